//! Writes the data set of a JSON spec: `cargo run -p edgethink-pocket --example write -- spec.json out/`.

use std::path::PathBuf;

use edgethink_pocket::{DatasetSpec, write_dataset};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let args: Vec<String> = std::env::args().collect();
    let [_, spec, dir] = args.as_slice() else {
        return Err("usage: write SPEC.json DIR".into());
    };
    let spec: DatasetSpec = serde_json::from_str(&std::fs::read_to_string(spec)?)?;
    write_dataset(&PathBuf::from(dir), &spec)?;
    Ok(())
}
