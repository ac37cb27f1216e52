//! The identity of weights: BLAKE3 over names, dtypes, shapes and all bytes.
//!
//! Two files with the same hash compute the same function. The key of a prefix cache holds it, so that KV written under
//! one adapter is never read under another, however the adapters are named.

use std::fmt;
use std::io;

use crate::Tensor;

/// A BLAKE3 hash of weights.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ContentHash(pub [u8; 32]);

impl ContentHash {
    /// Hashes `text` (such as a config) and tensors with their names, in the order given.
    ///
    /// # Errors
    /// The system's error for a failed read.
    pub fn of<'a>(
        text: &str,
        tensors: impl IntoIterator<Item = (String, &'a Tensor)>,
    ) -> io::Result<Self> {
        let mut hasher = blake3::Hasher::new();
        // Every part is preceded by its length, so that no two lists of parts give the same stream.
        let part = |hasher: &mut blake3::Hasher, bytes: &[u8]| {
            hasher.update(&(bytes.len() as u64).to_le_bytes());
            hasher.update(bytes);
        };
        part(&mut hasher, text.as_bytes());
        for (name, tensor) in tensors {
            part(&mut hasher, name.as_bytes());
            let kind = format!("{} {:?}", tensor.written_dtype(), tensor.shape);
            part(&mut hasher, kind.as_bytes());
            tensor.read_runs(&mut |run| {
                hasher.update(run);
                Ok(())
            })?;
        }
        Ok(Self(*hasher.finalize().as_bytes()))
    }
}

impl ContentHash {
    /// The hash that [`Display`](fmt::Display) wrote.
    pub fn from_hex(text: &str) -> Option<Self> {
        let hash = blake3::Hash::from_hex(text).ok()?;
        Some(Self(*hash.as_bytes()))
    }
}

impl fmt::Display for ContentHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for ContentHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ContentHash({self})")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_part_counts() {
        let a = Tensor::from_f32(vec![2], &[1.0, 2.0]).unwrap();
        let b = Tensor::from_f32(vec![2, 1], &[1.0, 2.0]).unwrap();
        let c = Tensor::from_f32(vec![2], &[1.0, 2.5]).unwrap();
        let hash = |text: &str, name: &str, tensor: &Tensor| {
            ContentHash::of(text, [(name.to_owned(), tensor)]).unwrap()
        };
        let base = hash("t", "n", &a);
        assert_eq!(base, hash("t", "n", &a.clone()));
        for other in [
            hash("u", "n", &a),
            hash("t", "m", &a),
            hash("t", "n", &b),
            hash("t", "n", &c),
        ] {
            assert_ne!(base, other);
        }
        assert_eq!(base.to_string().len(), 64);
        assert_eq!(ContentHash::from_hex(&base.to_string()), Some(base));
        assert_eq!(ContentHash::from_hex("00"), None);
    }
}
