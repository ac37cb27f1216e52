//! Starts the program with a clean environment, on a tiny model made for the test.

use std::process::Output;

use assert_cmd::Command;
use edgethink_model::Family;
use edgethink_testkit::tiny_model;
use serde_json::Value;
use tempfile::TempDir;

/// A tiny random model in a directory of its own.
pub(crate) struct Model(TempDir);

impl Model {
    pub(crate) fn new() -> Self {
        Self(tiny_model(Family::Qwen2, 1))
    }

    pub(crate) fn path(&self) -> &str {
        self.0.path().to_str().expect("a UTF-8 path")
    }

    /// `edgethink ask --model <this>` with more arguments.
    pub(crate) fn ask(&self, args: &[&str]) -> Command {
        let mut command = edgethink();
        command.args(["ask", "--model", self.path()]).args(args);
        command
    }

    /// As [`Model::ask`], for pipes of one's own.
    pub(crate) fn std_ask(&self, args: &[&str]) -> std::process::Command {
        let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_edgethink"));
        command.args(["ask", "--model", self.path()]).args(args);
        command
    }
}

/// The program without any of its own environment variables.
pub(crate) fn edgethink() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_edgethink"));
    for (name, _) in std::env::vars() {
        if name.starts_with("EDGETHINK_") {
            command.env_remove(name);
        }
    }
    command
}

pub(crate) fn stdout(output: &Output) -> String {
    assert!(
        output.status.success(),
        "{:?}: {}",
        output.status,
        stderr(output)
    );
    String::from_utf8(output.stdout.clone()).expect("UTF-8")
}

pub(crate) fn stderr(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).expect("UTF-8")
}

pub(crate) fn json(output: &Output) -> Value {
    serde_json::from_str(&stdout(output)).expect("one JSON value")
}
