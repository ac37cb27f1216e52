//! Model directories in the form of Hugging Face: reading with every check, and writing.

mod directory;
pub mod safetensors;
mod write;

pub use directory::{load_dir, load_folder};
pub use write::{SaveOptions, Stored, save, save_tensors, write_atomic};
