//! The program `edgethink`.
fn main() {}
