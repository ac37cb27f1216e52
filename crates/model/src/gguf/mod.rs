//! GGUF, the file format of llama.cpp: a bounds-checked reader, the mapping to a [`Model`](crate::Model), and a writer.
//!
//! - `reader` parses the container and trusts nothing in it; `value` gives typed access to the metadata.
//! - `config`, `names`, `permute`, `tokenizer` map metadata and tensors to what the rest of this crate uses; `load` puts them together.
//! - `writer` writes files that llama.cpp and this reader accept; `export` writes whole models with it.

mod config;
mod cursor;
mod error;
mod export;
mod load;
mod names;
mod permute;
mod reader;
mod tokenizer;
mod types;
mod value;
mod writer;

pub use error::GgufError;
pub use export::{ExportOptions, put_model, save_model};
pub use load::load;
pub use reader::{DEFAULT_ALIGNMENT, Gguf, TensorInfo};
pub use value::{Metadata, Numbers, Value, ValueType};
pub use writer::{Entry, GgufWriter};

pub(crate) use config::{architecture, family, permutes_heads};
pub(crate) use load::{load_from, map_tensor};
pub(crate) use names::{linear_name, linear_of, split_block};
pub(crate) use permute::{Order, permute_heads};
