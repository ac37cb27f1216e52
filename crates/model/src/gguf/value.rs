//! Metadata values of a GGUF file and typed access to them.
//!
//! Texts and number arrays borrow from the file; only an array of texts is allocated, and it needs no more memory than twice its
//! bytes in the file.

use super::error::GgufError;

/// Element type of a metadata value; the numbers are those of the file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
pub enum ValueType {
    /// Unsigned 8 bit.
    U8 = 0,
    /// Signed 8 bit.
    I8 = 1,
    /// Unsigned 16 bit.
    U16 = 2,
    /// Signed 16 bit.
    I16 = 3,
    /// Unsigned 32 bit.
    U32 = 4,
    /// Signed 32 bit.
    I32 = 5,
    /// 32-bit float.
    F32 = 6,
    /// One byte, 0 or 1.
    Bool = 7,
    /// Length and UTF-8 bytes.
    String = 8,
    /// Element type, count, elements.
    Array = 9,
    /// Unsigned 64 bit.
    U64 = 10,
    /// Signed 64 bit.
    I64 = 11,
    /// 64-bit float.
    F64 = 12,
}

impl ValueType {
    const ALL: [ValueType; 13] = [
        ValueType::U8,
        ValueType::I8,
        ValueType::U16,
        ValueType::I16,
        ValueType::U32,
        ValueType::I32,
        ValueType::F32,
        ValueType::Bool,
        ValueType::String,
        ValueType::Array,
        ValueType::U64,
        ValueType::I64,
        ValueType::F64,
    ];

    /// The type with this number.
    pub fn from_id(id: u32) -> Option<ValueType> {
        ValueType::ALL.get(usize::try_from(id).ok()?).copied()
    }

    /// Bytes of one value, or `None` for texts and arrays.
    pub fn size(self) -> Option<usize> {
        match self {
            ValueType::U8 | ValueType::I8 | ValueType::Bool => Some(1),
            ValueType::U16 | ValueType::I16 => Some(2),
            ValueType::U32 | ValueType::I32 | ValueType::F32 => Some(4),
            ValueType::U64 | ValueType::I64 | ValueType::F64 => Some(8),
            ValueType::String | ValueType::Array => None,
        }
    }
}

/// One metadata value. `'a` is the file.
#[derive(Debug, Clone, PartialEq)]
pub enum Value<'a> {
    /// Any unsigned integer.
    Unsigned(u64),
    /// Any signed integer.
    Signed(i64),
    /// A float of 32 or 64 bits.
    Float(f64),
    /// A boolean.
    Bool(bool),
    /// A text.
    String(&'a str),
    /// An array of texts.
    Strings(Vec<&'a str>),
    /// An array of numbers or booleans.
    Numbers(Numbers<'a>),
}

/// A number array as it lies in the file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Numbers<'a> {
    kind: ValueType,
    bytes: &'a [u8],
}

impl<'a> Numbers<'a> {
    /// `kind` has a fixed size and `bytes` is a multiple of it (the reader checks both).
    pub(crate) fn new(kind: ValueType, bytes: &'a [u8]) -> Numbers<'a> {
        Numbers { kind, bytes }
    }

    /// Count of elements.
    pub fn len(&self) -> usize {
        self.bytes.len() / self.kind.size().unwrap_or(1)
    }

    /// True when there are no elements.
    pub fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    /// Element type in the file.
    pub fn kind(&self) -> ValueType {
        self.kind
    }

    /// The elements, each as the scalar value it would be alone.
    pub fn iter(&self) -> impl Iterator<Item = Value<'a>> + use<'a> {
        let kind = self.kind;
        self.bytes
            .chunks_exact(kind.size().unwrap_or(1))
            .map(move |chunk| scalar(kind, chunk))
    }
}

/// Decodes one fixed-size value; `bytes` has exactly `kind.size()` bytes. A boolean is true when its byte is not 0.
pub(crate) fn scalar<'a>(kind: ValueType, bytes: &[u8]) -> Value<'a> {
    let mut raw = [0u8; 8];
    let n = bytes.len().min(8);
    raw[..n].copy_from_slice(&bytes[..n]);
    let unsigned = u64::from_le_bytes(raw);
    // Sign extension: move the value to the top and shift it back arithmetically.
    let shift = 64 - 8 * u32::try_from(n.max(1)).unwrap_or(8);
    let signed = (unsigned << shift).cast_signed() >> shift;
    match kind {
        ValueType::I8 | ValueType::I16 | ValueType::I32 | ValueType::I64 => Value::Signed(signed),
        ValueType::F32 => Value::Float(f64::from(f32::from_le_bytes([
            raw[0], raw[1], raw[2], raw[3],
        ]))),
        ValueType::F64 => Value::Float(f64::from_le_bytes(raw)),
        ValueType::Bool => Value::Bool(unsigned != 0),
        _ => Value::Unsigned(unsigned),
    }
}

impl Value<'_> {
    /// Short text for error messages; long values are named, not printed.
    pub fn describe(&self) -> String {
        match self {
            Value::Unsigned(v) => format!("the number {v}"),
            Value::Signed(v) => format!("the number {v}"),
            Value::Float(v) => format!("the number {v}"),
            Value::Bool(v) => format!("the boolean {v}"),
            Value::String(s) if s.len() <= 40 => format!("the text {s:?}"),
            Value::String(s) => format!("a text of {} bytes", s.len()),
            Value::Strings(v) => format!("an array of {} texts", v.len()),
            Value::Numbers(v) => format!("an array of {} numbers", v.len()),
        }
    }

    /// The value as a non-negative integer.
    pub fn as_u64(&self) -> Option<u64> {
        match self {
            Value::Unsigned(v) => Some(*v),
            Value::Signed(v) => u64::try_from(*v).ok(),
            _ => None,
        }
    }

    /// The value as a finite number (integers included).
    pub fn as_f64(&self) -> Option<f64> {
        match self {
            Value::Float(v) => v.is_finite().then_some(*v),
            Value::Unsigned(v) => Some(*v as f64),
            Value::Signed(v) => Some(*v as f64),
            _ => None,
        }
    }
}

/// The metadata of a file, in file order, keys unique.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Metadata<'a> {
    entries: Vec<(&'a str, Value<'a>)>,
    index: std::collections::HashMap<&'a str, usize>,
}

impl<'a> Metadata<'a> {
    /// Adds an entry; false when the key is already there.
    pub(crate) fn insert(&mut self, key: &'a str, value: Value<'a>) -> bool {
        if self.index.contains_key(key) {
            return false;
        }
        self.index.insert(key, self.entries.len());
        self.entries.push((key, value));
        true
    }

    /// All entries in file order.
    pub fn entries(&self) -> &[(&'a str, Value<'a>)] {
        &self.entries
    }

    /// The value of a key.
    pub fn get(&self, key: &str) -> Option<&Value<'a>> {
        self.index.get(key).map(|&i| &self.entries[i].1)
    }

    fn typed<T>(
        &self,
        key: &str,
        expected: &'static str,
        read: impl Fn(&Value<'a>) -> Option<T>,
    ) -> Result<Option<T>, GgufError> {
        let Some(value) = self.get(key) else {
            return Ok(None);
        };
        match read(value) {
            Some(v) => Ok(Some(v)),
            None => Err(GgufError::WrongValue {
                key: key.to_owned(),
                found: value.describe(),
                expected,
            }),
        }
    }

    /// A text, or `None` when the key is absent.
    pub fn text(&self, key: &str) -> Result<Option<&'a str>, GgufError> {
        self.typed(key, "a text", |v| {
            if let Value::String(s) = v {
                Some(*s)
            } else {
                None
            }
        })
    }

    /// A boolean.
    pub fn boolean(&self, key: &str) -> Result<Option<bool>, GgufError> {
        self.typed(key, "a boolean", |v| {
            if let Value::Bool(b) = v {
                Some(*b)
            } else {
                None
            }
        })
    }

    /// A count or size below 2^31, so that no later arithmetic on it can overflow.
    pub fn count(&self, key: &str) -> Result<Option<usize>, GgufError> {
        self.typed(key, "a whole number from 0 to 2147483647", |v| {
            v.as_u64()
                .filter(|&n| n < 1 << 31)
                .and_then(|n| usize::try_from(n).ok())
        })
    }

    /// A token id.
    pub fn token(&self, key: &str) -> Result<Option<u32>, GgufError> {
        self.typed(key, "a token id", |v| {
            v.as_u64().and_then(|n| u32::try_from(n).ok())
        })
    }

    /// A finite number.
    pub fn number(&self, key: &str) -> Result<Option<f64>, GgufError> {
        self.typed(key, "a finite number", Value::as_f64)
    }

    /// An array of texts.
    pub fn texts(&self, key: &str) -> Result<Option<&[&'a str]>, GgufError> {
        let Some(value) = self.get(key) else {
            return Ok(None);
        };
        match value {
            Value::Strings(v) => Ok(Some(v)),
            // An empty array may carry any element type.
            Value::Numbers(n) if n.is_empty() => Ok(Some(&[])),
            _ => Err(GgufError::WrongValue {
                key: key.to_owned(),
                found: value.describe(),
                expected: "an array of texts",
            }),
        }
    }

    /// An array of numbers.
    pub fn numbers(&self, key: &str) -> Result<Option<Numbers<'a>>, GgufError> {
        self.typed(key, "an array of numbers", |v| {
            if let Value::Numbers(n) = v {
                Some(*n)
            } else {
                None
            }
        })
    }

    /// Turns an absent value into an error.
    pub fn need<T>(key: &str, value: Option<T>) -> Result<T, GgufError> {
        value.ok_or_else(|| GgufError::MissingKey {
            key: key.to_owned(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scalars_of_every_width_decode() {
        assert_eq!(scalar(ValueType::U8, &[0xff]), Value::Unsigned(255));
        assert_eq!(scalar(ValueType::I8, &[0xff]), Value::Signed(-1));
        assert_eq!(scalar(ValueType::I16, &[0xfe, 0xff]), Value::Signed(-2));
        assert_eq!(
            scalar(ValueType::U16, &[0xfe, 0xff]),
            Value::Unsigned(65534)
        );
        assert_eq!(
            scalar(ValueType::I32, &[0, 0, 0, 0x80]),
            Value::Signed(i64::from(i32::MIN))
        );
        assert_eq!(
            scalar(ValueType::I64, &[0, 0, 0, 0, 0, 0, 0, 0x80]),
            Value::Signed(i64::MIN)
        );
        assert_eq!(
            scalar(ValueType::U64, &[0xff; 8]),
            Value::Unsigned(u64::MAX)
        );
        assert_eq!(
            scalar(ValueType::F32, &1.5f32.to_le_bytes()),
            Value::Float(1.5)
        );
        assert_eq!(
            scalar(ValueType::F64, &(-2.25f64).to_le_bytes()),
            Value::Float(-2.25)
        );
        assert_eq!(scalar(ValueType::Bool, &[1]), Value::Bool(true));
    }

    #[test]
    fn a_wrong_type_is_an_error_and_an_absent_key_is_none() {
        let mut meta = Metadata::default();
        assert!(meta.insert("a", Value::Signed(-3)));
        assert!(!meta.insert("a", Value::Bool(true)));
        assert!(meta.insert("nan", Value::Float(f64::NAN)));
        assert!(meta.count("b").expect("absent").is_none());
        assert!(matches!(meta.count("a"), Err(GgufError::WrongValue { .. })));
        assert!(matches!(meta.text("a"), Err(GgufError::WrongValue { .. })));
        assert!(matches!(
            meta.number("nan"),
            Err(GgufError::WrongValue { .. })
        ));
        assert_eq!(meta.number("a").expect("integer as number"), Some(-3.0));
    }
}
