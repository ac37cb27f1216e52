//! Writes a random model of the shape of Qwen2.5-0.5B, in bf16, for `speed` and other measurements.
//!
//! ```text
//! cargo run --release -p edgethink-engine --example random_model -- DIR
//! ```

use std::error::Error;
use std::path::Path;

use edgethink_model::Dtype;
use edgethink_testkit::{Extras, qwen25_half_billion, write_random_model};

fn main() -> Result<(), Box<dyn Error>> {
    let dir = std::env::args().nth(1).ok_or("give a directory")?;
    std::fs::create_dir_all(&dir)?;
    write_random_model(
        Path::new(&dir),
        &qwen25_half_billion(),
        1,
        Dtype::BF16,
        Extras::None,
    );
    Ok(())
}
