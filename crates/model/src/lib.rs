//! Model files: config, weights, tokenizer, chat template, LoRA adapters, and a plain reference forward pass.
//!
//! [`Model::load`] reads a Hugging Face directory, a GGUF file, a bundle or a hub id. Files are hostile until proven otherwise:
//! every length is checked before it sizes anything, and every mistake is an error that names the thing and the remedy.
//!
//! Letters in shape comments: T tokens, E hidden, F ffn, L layers, H query heads, K kv heads, D head dim, V vocab, R rank.

pub mod bundle;
pub mod bytes;
pub mod config;
pub mod dtype;
pub mod error;
mod folder;
pub mod generation;
pub mod gguf;
pub mod hash;
pub mod head;
pub mod hf;
pub mod hub;
pub mod json;
pub mod lora;
mod model;
pub mod panels;
pub mod quant;
pub mod reference;
pub mod template;
pub mod tensor;
pub mod tokenizer;
pub mod weights;

pub use bundle::{Bundle, BundleError};
pub use bytes::{Bytes, MappedFile};
pub use config::{Config, ConfigError, Family, Linear, Rope, RopeScaling};
pub use dtype::Dtype;
pub use error::{LoadError, SafetensorsError};
pub use folder::Folder;
pub use generation::GenerationConfig;
pub use hash::ContentHash;
pub use head::{HeadError, HeadFile, HeadTensor};
pub use hf::{SaveOptions, Stored, save, save_tensors, write_atomic};
pub use lora::{Adapter, AdapterDtype, AdapterError, LoraPair};
pub use model::{LoadOptions, Model, Source};
pub use template::{ChatTemplate, Message, RenderOptions, TemplateError};
pub use tensor::{Tensor, TensorError};
pub use tokenizer::{Detokenizer, Tokenizer, TokenizerError};
pub use weights::{LayerWeights, Weights, WeightsError};
