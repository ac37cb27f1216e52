//! `cargo run -p xtask`: checks the statements of ARCHITECTURE.md and STYLE against the tree.
//!
//! The same checks run as tests (`cargo test -p xtask`), so CI fails when the prose and the code part ways.

#![expect(clippy::print_stdout, reason = "this is a program for people")]

mod docs;
mod imports;
mod sources;
mod tree;

use std::process::ExitCode;

/// Looks at the tree and says what is wrong, one line each.
type Check = fn(&tree::Tree) -> Vec<String>;

fn main() -> ExitCode {
    let tree = match tree::Tree::open() {
        Ok(tree) => tree,
        Err(error) => {
            eprintln!("error: {error}");
            return ExitCode::from(2);
        }
    };
    let checks: [(&str, Check); 3] = [
        (
            "imports follow the table in ARCHITECTURE.md",
            imports::check,
        ),
        ("sources keep the invariants", sources::check),
        ("documents name files that exist", docs::check),
    ];
    let mut failed = false;
    for (name, check) in checks {
        let problems = check(&tree);
        println!(
            "{} {name}",
            if problems.is_empty() {
                "ok    "
            } else {
                "FAILED"
            }
        );
        for problem in &problems {
            println!("       {problem}");
        }
        failed |= !problems.is_empty();
    }
    ExitCode::from(u8::from(failed))
}

#[cfg(test)]
mod tests {
    use super::{docs, imports, sources, tree::Tree};

    fn assert_clean(problems: &[String]) {
        assert!(problems.is_empty(), "\n{}", problems.join("\n"));
    }

    #[test]
    fn imports_follow_the_table() {
        assert_clean(&imports::check(&Tree::open().expect("the repository")));
    }

    #[test]
    fn sources_keep_the_invariants() {
        assert_clean(&sources::check(&Tree::open().expect("the repository")));
    }

    #[test]
    fn documents_name_files_that_exist() {
        assert_clean(&docs::check(&Tree::open().expect("the repository")));
    }
}
