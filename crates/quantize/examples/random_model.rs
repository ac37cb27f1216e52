//! Writes a random bf16 model of a real shape, to measure memory and speed with.
//!
//!   cargo run --release -p edgethink-quantize --example random_model -- 7b /tmp/random-7b
//!   /usr/bin/time -v edgethink quantize --model /tmp/random-7b --scheme recipes/quantize/q4_g32.toml --out /tmp/random-7b.gguf

use std::path::Path;
use std::process::ExitCode;

use edgethink_model::{Config, Dtype};
use edgethink_testkit::{Extras, qwen25_half_billion, write_random_model};

/// The shape of Qwen2.5-7B: 7,615,616,512 parameters, 15 GB in bf16.
fn qwen25_7b() -> Config {
    Config {
        hidden_size: 3584,
        intermediate_size: 18_944,
        num_hidden_layers: 28,
        num_attention_heads: 28,
        num_key_value_heads: 4,
        head_dim: 128,
        vocab_size: 152_064,
        tie_word_embeddings: false,
        ..qwen25_half_billion()
    }
}

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let config = match args.first().map(String::as_str) {
        Some("0.5b") => qwen25_half_billion(),
        Some("7b") => qwen25_7b(),
        _ => {
            eprintln!("usage: random_model 0.5b|7b DIR");
            return ExitCode::from(2);
        }
    };
    let Some(dir) = args.get(1) else {
        eprintln!("usage: random_model 0.5b|7b DIR");
        return ExitCode::from(2);
    };
    eprintln!("{} parameters to {dir}", config.parameters());
    write_random_model(Path::new(dir), &config, 0, Dtype::BF16, Extras::None);
    ExitCode::SUCCESS
}
