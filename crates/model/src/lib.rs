//! Model files: config, weights, tokenizer, chat template, LoRA adapters, and a plain reference forward pass.
