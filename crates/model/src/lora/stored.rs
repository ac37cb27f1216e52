//! The number formats in which a bundle holds an adapter.

use std::path::Path;

use super::{Adapter, AdapterError, LoraPair, int4, int8};
use crate::{Config, LoadError, Tensor};

/// How the matrices of an adapter are stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum AdapterDtype {
    /// As they are in the file.
    #[default]
    Float,
    /// 8 bits with a scale per channel, the paper's (METHOD 6).
    Int8,
    /// 4 bits with a scale per group of up to 32 columns.
    Int4,
}

impl AdapterDtype {
    /// Name in a bundle's manifest.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Float => "float",
            Self::Int8 => "int8",
            Self::Int4 => "int4",
        }
    }

    /// The bytes of a safetensors file with the matrices of the one at `path` in this format; `None` for [`Self::Float`].
    ///
    /// # Errors
    /// [`LoadError`] for a file that cannot be read, or that this format cannot hold.
    pub(crate) fn encode(self, path: &Path) -> Result<Option<Vec<u8>>, LoadError> {
        match self {
            Self::Float => Ok(None),
            Self::Int8 => int8::encode(path, |_| true).map(Some),
            Self::Int4 => int4::encode(path).map(Some),
        }
    }

    /// The adapter with its matrices as a reader of this format gets them.
    ///
    /// # Errors
    /// [`AdapterError`] as [`Adapter::new`].
    pub(crate) fn rounded(self, adapter: &Adapter, base: &Config) -> Result<Adapter, AdapterError> {
        let round = |tensor: &Tensor| match self {
            Self::Float => tensor.clone(),
            Self::Int8 => int8::rounded(tensor),
            Self::Int4 => {
                let values = int4::rounded(&tensor.to_f32(), tensor.cols());
                Tensor::from_f32(tensor.shape.clone(), &values).expect("as many values as before")
            }
        };
        let pair = |pair: &LoraPair| LoraPair {
            a: round(&pair.a),
            b: round(&pair.b),
            scale: pair.scale,
        };
        let layer =
            |pairs: &[Option<LoraPair>; 7]| std::array::from_fn(|i| pairs[i].as_ref().map(pair));
        let layers = adapter.layers.iter().map(layer).collect();
        Adapter::new(
            adapter.name.clone(),
            adapter.invocation.clone(),
            layers,
            base,
        )
    }
}
