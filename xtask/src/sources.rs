//! What every source file keeps to: a header, a length, and the places where `unsafe`, printing and exiting may stand.

use crate::tree::{Source, Tree};

/// Longest file without a reason in its header, lines outside its test module.
const LONGEST: usize = 600;

/// Files that may opt in to `unsafe` (invariant 1).
const UNSAFE: [&str; 3] = [
    "crates/kernels/src/",
    "crates/pool/src/",
    "crates/model/src/bytes.rs",
];

/// Files of `engine` that know no tensors (invariant 5).
const TENSOR_FREE: [&str; 3] = ["block_pool", "scheduler", "prefix_cache"];

/// Problems found, one line each.
pub(crate) fn check(tree: &Tree) -> Vec<String> {
    let mut problems = Vec::new();
    for file in tree.rust() {
        header(file, &mut problems);
        places(file, &mut problems);
    }
    for file in tree.sources_of("engine") {
        let name = file.path.trim_start_matches("crates/engine/src/");
        if TENSOR_FREE.iter().any(|stem| name.starts_with(stem))
            && (file.text.contains("edgethink_kernels") || file.text.contains("edgethink_model"))
        {
            problems.push(format!(
                "{}: the scheduler and the block pool know no tensors (invariant 5)",
                file.path
            ));
        }
    }
    problems
}

fn header(file: &Source, problems: &mut Vec<String>) {
    // An inner attribute such as `#![expect(...)]` may stand above or below; the header comes first.
    if !file.text.starts_with("//!") {
        problems.push(format!(
            "{}: no `//!` header that says what the file is",
            file.path
        ));
    }
    let code = file
        .text
        .split("#[cfg(test)]\nmod ")
        .next()
        .unwrap_or_default();
    let lines = code.lines().count();
    let says_why = file
        .text
        .lines()
        .take_while(|line| line.starts_with("//!"))
        .any(|line| line.contains("one file because"));
    if lines > LONGEST && !says_why {
        problems.push(format!(
            "{}: {lines} lines; split it, or say in the header why it is \"one file because\"",
            file.path
        ));
    }
}

fn places(file: &Source, problems: &mut Vec<String>) {
    // This file spells the patterns out, so it cannot be held against them.
    if file.path == "xtask/src/sources.rs" {
        return;
    }
    // The lint denies it everywhere, so a file that uses `unsafe` must name the lint to opt in.
    let opts_in = file.text.contains("unsafe_code");
    if opts_in && !UNSAFE.iter().any(|place| file.path.starts_with(place)) {
        problems.push(format!(
            "{}: `unsafe` has no place here (invariant 1)",
            file.path
        ));
    }
    let library = file.path.starts_with("crates/")
        && !file.path.starts_with("crates/cli/")
        && file.path.contains("/src/")
        && !file.path.contains("/src/bin/");
    if library {
        for pattern in ["process::exit(", "println!(", "eprintln!("] {
            let used = file
                .text
                .split("#[cfg(test)]")
                .next()
                .unwrap_or_default()
                .lines()
                .any(|line| line.contains(pattern) && !line.trim_start().starts_with("//"));
            if used {
                problems.push(format!(
                    "{}: `{pattern}...)` belongs to cli (invariant 8)",
                    file.path
                ));
            }
        }
    }
    for pattern in ["todo!(", "unimplemented!("] {
        if file.text.contains(pattern) {
            problems.push(format!("{}: `{pattern}...)` left in the code", file.path));
        }
    }
}
