//! JSON that refuses what serde_json lets pass: a key that appears twice in one object.
//!
//! A file with two values for one key means different things to different readers, so it is an error here. Nesting is
//! limited by serde_json (128 levels), and memory by the length of the text.

use std::fmt;

use serde::de::{self, Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Number, Value};
use thiserror::Error;

/// The text is no JSON object, or one of its keys appears twice.
#[derive(Debug, Error)]
#[error("{0}")]
pub struct JsonError(#[from] serde_json::Error);

/// Parses an object, refusing duplicate keys at any depth.
///
/// # Errors
/// [`JsonError`] with line and column.
pub fn parse_object(text: &str) -> Result<Map<String, Value>, JsonError> {
    parse_object_bytes(text.as_bytes())
}

/// As [`parse_object`], for bytes that should be UTF-8.
///
/// # Errors
/// [`JsonError`] with line and column.
pub fn parse_object_bytes(text: &[u8]) -> Result<Map<String, Value>, JsonError> {
    match serde_json::from_slice::<Unique>(text)?.0 {
        Value::Object(map) => Ok(map),
        other => {
            let found = format!("expected an object, found {}", shorten(&other));
            Err(JsonError(de::Error::custom(found)))
        }
    }
}

/// A value as text, cut to a length that fits in an error message.
pub(crate) fn shorten(value: &Value) -> String {
    let text = value.to_string();
    match text.char_indices().nth(60) {
        Some((cut, _)) => format!("{}...", &text[..cut]),
        None => text,
    }
}

/// A JSON value of which every object has distinct keys.
struct Unique(Value);

impl<'de> Deserialize<'de> for Unique {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(UniqueVisitor).map(Unique)
    }
}

struct UniqueVisitor;

impl<'de> Visitor<'de> for UniqueVisitor {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_bool<E>(self, v: bool) -> Result<Value, E> {
        Ok(Value::Bool(v))
    }

    fn visit_i64<E>(self, v: i64) -> Result<Value, E> {
        Ok(Value::Number(v.into()))
    }

    fn visit_u64<E>(self, v: u64) -> Result<Value, E> {
        Ok(Value::Number(v.into()))
    }

    fn visit_f64<E: de::Error>(self, v: f64) -> Result<Value, E> {
        Number::from_f64(v)
            .map(Value::Number)
            .ok_or_else(|| E::custom("a number that is not finite"))
    }

    fn visit_str<E>(self, v: &str) -> Result<Value, E> {
        Ok(Value::String(v.to_owned()))
    }

    fn visit_string<E>(self, v: String) -> Result<Value, E> {
        Ok(Value::String(v))
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Value, A::Error> {
        let mut items = Vec::new();
        while let Some(Unique(item)) = seq.next_element()? {
            items.push(item);
        }
        Ok(Value::Array(items))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Value, A::Error> {
        let mut map = Map::new();
        while let Some(key) = entries.next_key::<String>()? {
            let Unique(value) = entries.next_value()?;
            if map.contains_key(&key) {
                return Err(de::Error::custom(format_args!(
                    "the key `{key}` appears twice"
                )));
            }
            map.insert(key, value);
        }
        Ok(Value::Object(map))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn duplicate_keys_are_refused_at_any_depth() {
        for text in [
            r#"{"a":1,"a":1}"#,
            r#"{"x":[{"b":1,"b":2}]}"#,
            r#"{"a":1,"\u0061":2}"#,
        ] {
            let message = parse_object(text).unwrap_err().to_string();
            assert!(message.contains("appears twice"), "{message}");
        }
    }

    #[test]
    fn the_rest_is_plain_json() {
        let text = r#"{"a":[1,-2,2.5,null,true,"s"],"b":{"c":18446744073709551615}}"#;
        let map = parse_object(text).unwrap();
        assert_eq!(
            Value::Object(map),
            serde_json::from_str::<Value>(text).unwrap()
        );
        assert!(parse_object("[1]").is_err());
        assert!(parse_object("{\"a\":").is_err());
        assert!(parse_object(&"[".repeat(100_000)).is_err());
        assert!(parse_object_bytes(b"{\"\xff\":1}").is_err());
    }
}
