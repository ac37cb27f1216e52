//! Documents name files that exist, so that a rename cannot leave the prose behind.
//!
//! In the documents below, every word in backquotes that looks like a path of this repository must be one.

use crate::tree::Tree;

const DOCUMENTS: [&str; 6] = [
    "README.md",
    "ARCHITECTURE.md",
    "PAPER.md",
    "CONTRIBUTING.md",
    "EXPERIMENTS.md",
    "CHANGELOG.md",
];

const ROOTS: [&str; 7] = [
    "crates/",
    "xtask/",
    "recipes/",
    "models/",
    "golden/",
    "benchmarks/",
    ".ci/",
];

/// Problems found, one line each.
pub(crate) fn check(tree: &Tree) -> Vec<String> {
    let mut problems = Vec::new();
    for document in DOCUMENTS {
        let Some(file) = tree.file(document) else {
            problems.push(format!("{document} is missing"));
            continue;
        };
        for path in paths(&file.text) {
            if !tree.exists(&path) {
                problems.push(format!("{document}: `{path}` does not exist"));
            }
        }
    }
    problems
}

/// Backquoted words that start with a folder of ours; `path::item` and `path#test` keep the path only.
fn paths(text: &str) -> Vec<String> {
    text.split('`')
        .skip(1)
        .step_by(2)
        .filter(|word| !word.contains(char::is_whitespace) && !word.contains(['*', '{', '<']))
        .filter(|word| ROOTS.iter().any(|root| word.starts_with(root)))
        .map(|word| {
            let end = word
                .find("::")
                .or_else(|| word.find('#'))
                .unwrap_or(word.len());
            word[..end].to_owned()
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::paths;

    #[test]
    fn finds_paths_and_drops_items() {
        let text = "see `crates/a/src/b.rs::item`, `crates/*/x`, `cargo run`, and `golden/`";
        assert_eq!(paths(text), ["crates/a/src/b.rs", "golden/"]);
    }
}
