//! Says of each pair on stdin, two answers with a tab between them, whether they are equal: 1 or 0, a line each.
//!
//! `cut -f 2,3 golden/grader.tsv | tail -n +2 | cargo run --release -p edgethink-grader --example judge`

use std::io::{BufRead, Write};

use edgethink_grader::equal;

fn main() -> std::io::Result<()> {
    let mut out = std::io::BufWriter::new(std::io::stdout().lock());
    for line in std::io::stdin().lock().lines() {
        let line = line?;
        let (got, want) = line.split_once('\t').unwrap_or((&line, ""));
        writeln!(out, "{}", u8::from(equal(got, want)))?;
    }
    out.flush()
}
