//! A bounds-checked cursor over the bytes of a GGUF file. Nothing is allocated here but error texts.

use super::error::GgufError;

/// Longest key or tensor name accepted, in bytes; ggml itself allows 65,535 and 64.
pub(super) const MAX_NAME: usize = 65_535;

/// Reads little-endian fields one after the other.
#[derive(Debug, Clone)]
pub(super) struct Cursor<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Cursor<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Cursor<'a> {
        Cursor { bytes, at: 0 }
    }

    /// Position of the next byte.
    pub(super) fn at(&self) -> usize {
        self.at
    }

    /// Bytes left.
    pub(super) fn left(&self) -> usize {
        self.bytes.len() - self.at
    }

    /// The next `n` bytes; `what` names them in the error.
    pub(super) fn take(
        &mut self,
        n: u64,
        what: &dyn std::fmt::Display,
    ) -> Result<&'a [u8], GgufError> {
        let truncated = || GgufError::Truncated {
            what: what.to_string(),
            at: self.at,
            need: n,
            left: self.left(),
        };
        let n = usize::try_from(n).map_err(|_| truncated())?;
        let end = self.at.checked_add(n).ok_or_else(truncated)?;
        let slice = self.bytes.get(self.at..end).ok_or_else(truncated)?;
        self.at = end;
        Ok(slice)
    }

    /// The next `N` bytes as an array.
    fn array<const N: usize>(
        &mut self,
        what: &dyn std::fmt::Display,
    ) -> Result<[u8; N], GgufError> {
        let mut out = [0; N];
        out.copy_from_slice(self.take(N as u64, what)?);
        Ok(out)
    }

    pub(super) fn u32(&mut self, what: &dyn std::fmt::Display) -> Result<u32, GgufError> {
        Ok(u32::from_le_bytes(self.array(what)?))
    }

    pub(super) fn u64(&mut self, what: &dyn std::fmt::Display) -> Result<u64, GgufError> {
        Ok(u64::from_le_bytes(self.array(what)?))
    }

    /// A length and that many bytes of UTF-8.
    pub(super) fn text(&mut self, what: &dyn std::fmt::Display) -> Result<&'a str, GgufError> {
        let len = self.u64(what)?;
        let at = self.at;
        let bytes = self.take(len, what)?;
        std::str::from_utf8(bytes).map_err(|_| GgufError::Utf8 {
            what: what.to_string(),
            at,
        })
    }

    /// A text of at most [`MAX_NAME`] bytes.
    pub(super) fn name(&mut self, what: &dyn std::fmt::Display) -> Result<&'a str, GgufError> {
        let text = self.text(what)?;
        if text.len() > MAX_NAME {
            let (what, found, max) = (
                format!("the length of {what}"),
                text.len() as u64,
                MAX_NAME as u64,
            );
            return Err(GgufError::TooLarge { what, found, max });
        }
        Ok(text)
    }

    /// Checks that `count` items of at least `each` bytes can still follow, so that memory for them may be taken.
    pub(super) fn room(
        &self,
        count: u64,
        each: u64,
        what: &dyn std::fmt::Display,
    ) -> Result<usize, GgufError> {
        let need = count.saturating_mul(each);
        if need > self.left() as u64 {
            return Err(GgufError::Truncated {
                what: what.to_string(),
                at: self.at,
                need,
                left: self.left(),
            });
        }
        usize::try_from(count).map_err(|_| GgufError::Truncated {
            what: what.to_string(),
            at: self.at,
            need,
            left: self.left(),
        })
    }
}
