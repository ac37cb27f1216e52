//! Test helpers: tiny random models, float comparison, golden files.
//!
//! Helpers panic on failure: they are called by tests, and a panic is how a test fails.

mod close;
mod formula;
mod golden;
mod llama_cpp;
mod models;
mod peft;
mod tokenizer;

pub use close::{Report, Tol, assert_close, compare};
pub use formula::{formula, formula_into};
pub use golden::{Golden, golden, golden_at, golden_dir};
pub use llama_cpp::{LLAMA_CPP_MODELS, LlamaCppGolden, llama_cpp_golden, relative_error};
pub use models::{
    Extras, qwen25_half_billion, tiny_config, tiny_model, tiny_model_of, write_random_model,
};
pub use peft::{adapter_distance, write_peft};
pub use tokenizer::{CHAT_TEMPLATE, FIRST_SPECIAL, SPECIAL_TOKENS, TOKENS, tokenizer_json};
