//! Who may import whom: the table in ARCHITECTURE.md against each crate's `[dependencies]`.
//!
//! The table is the fenced block after the heading "Who may import whom"; a line reads `engine -> kernels, pool, model`.

use std::collections::{BTreeMap, BTreeSet};

use crate::tree::Tree;

/// External crates that only one of ours may use, and the invariant that says so.
const ONLY: [(&str, &[&str], &str); 6] = [
    (
        "burn",
        &["train"],
        "invariant 7: the tensor library stays in train",
    ),
    (
        "tokio",
        &["server"],
        "invariant 8: only server is asynchronous",
    ),
    ("axum", &["server"], "invariant 8: only server speaks HTTP"),
    ("clap", &["cli"], "invariant 8: only cli reads flags"),
    (
        "indicatif",
        &["cli"],
        "invariant 8: only cli draws progress",
    ),
    (
        "memmap2",
        &["model"],
        "invariant 1: the one mmap is in model",
    ),
];

/// Problems found, one line each.
pub(crate) fn check(tree: &Tree) -> Vec<String> {
    let mut problems = Vec::new();
    let allowed = match table(tree) {
        Ok(allowed) => allowed,
        Err(problem) => return vec![problem],
    };
    for krate in tree.crates() {
        let path = format!("crates/{krate}/Cargo.toml");
        let Some(manifest) = tree.file(&path) else {
            continue;
        };
        let (ours, others) = match dependencies(&manifest.text) {
            Ok(found) => found,
            Err(error) => {
                problems.push(format!("{path}: {error}"));
                continue;
            }
        };
        match allowed.get(&krate) {
            None => problems.push(format!(
                "{path}: crate `{krate}` has no line in the import table of ARCHITECTURE.md"
            )),
            Some(allowed) if allowed.contains("everything") => {}
            Some(allowed) => {
                for used in ours.difference(allowed) {
                    problems.push(format!(
                        "{path}: `{krate}` imports `{used}`, which ARCHITECTURE.md does not allow"
                    ));
                }
            }
        }
        for (library, users, why) in ONLY {
            let uses = others
                .iter()
                .any(|name| name == library || name.starts_with(&format!("{library}-")));
            if uses && !users.contains(&krate.as_str()) {
                problems.push(format!("{path}: `{krate}` depends on `{library}`; {why}"));
            }
        }
    }
    problems
}

/// The import table: crate -> the crates it may use.
fn table(tree: &Tree) -> Result<BTreeMap<String, BTreeSet<String>>, String> {
    let text = &tree
        .file("ARCHITECTURE.md")
        .ok_or("ARCHITECTURE.md is missing")?
        .text;
    let block = text
        .split_once("Who may import whom")
        .and_then(|(_, rest)| rest.split("```").nth(1))
        .ok_or("ARCHITECTURE.md: no fenced table after the heading \"Who may import whom\"")?;
    let mut table = BTreeMap::new();
    for line in block.lines().filter(|line| line.contains("->")) {
        let (krate, uses) = line.split_once("->").unwrap_or((line, ""));
        let uses = uses
            .split(',')
            .map(str::trim)
            .filter(|name| !name.is_empty() && *name != "nothing")
            .map(str::to_owned)
            .collect();
        table.insert(krate.trim().to_owned(), uses);
    }
    Ok(table)
}

/// Our own and other crates in `[dependencies]` (dev-dependencies are free).
fn dependencies(manifest: &str) -> Result<(BTreeSet<String>, BTreeSet<String>), toml::de::Error> {
    let manifest: toml::Table = toml::from_str(manifest)?;
    let mut ours = BTreeSet::new();
    let mut others = BTreeSet::new();
    let listed = manifest
        .get("dependencies")
        .and_then(|value| value.as_table());
    for name in listed.into_iter().flat_map(toml::Table::keys) {
        match name.strip_prefix("edgethink-") {
            Some(own) => ours.insert(own.to_owned()),
            None => others.insert(name.clone()),
        };
    }
    Ok((ours, others))
}
