//! Programs under test, run only where the user allows it, and only within bubblewrap: no network, no file but Python's own, a process
//! group that dies with us, limits on time, memory, processes and files.
//!
//! A program passes if its tests end and it then prints a word that it cannot know; leaving early with exit code 0 does not pass.

use std::io::{Read, Write};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use serde_json::Value;

use crate::error::EvalError;
use crate::livecodebench;
use crate::rows::{Columns, column};
use crate::task::CodeTests;

/// Time of one program with its tests.
const SECONDS: u64 = 60;
/// Time that each test of LiveCodeBench may add to it, in seconds: six of its own, and one around it, as its own harness has it.
const SECONDS_PER_CASE: u64 = 7;
/// Runs the tests of LiveCodeBench.
const LIVE_CODE_BENCH: &str = include_str!("livecodebench.py");
/// Memory of one program.
const BYTES: u64 = 1 << 30;
/// Most bytes that are read of what it prints.
const OUTPUT: u64 = 1 << 20;

/// What a program is tested with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Program {
    tests: Tests,
    /// Time for all of it.
    seconds: u64,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Tests {
    /// What stands before and behind it.
    Around { before: String, after: String },
    /// Inputs and outputs, as the row packs them: unpacked, those of a whole data set are many gigabytes.
    Cases {
        public: String,
        private: String,
        function: Option<String>,
    },
}

impl Program {
    /// The tests of a row.
    pub(crate) fn of(tests: CodeTests, columns: &Columns) -> Result<Self, String> {
        let text = |name: &str| match column(columns, name) {
            Some(Value::String(text)) => Ok(text.clone()),
            Some(Value::Array(lines)) => {
                let lines: Vec<&str> = lines.iter().filter_map(Value::as_str).collect();
                Ok(lines.join("\n"))
            }
            _ => Err(format!("it has no text in a column `{name}`")),
        };
        match tests {
            // The prompt is a function that does nothing yet, with its imports and helpers.
            CodeTests::HumanEval => Ok(Self::around(
                format!("{}\n", text("prompt")?),
                format!("{}\ncheck({})\n", text("test")?, text("entry_point")?),
            )),
            CodeTests::Mbpp => Ok(Self::around(
                text("test_imports")
                    .or_else(|_| text("test_setup_code"))
                    .unwrap_or_default(),
                format!("{}\n", text("test_list")?),
            )),
            CodeTests::LiveCodeBench => {
                let (public, private) = (text("public_test_cases")?, text("private_test_cases")?);
                let cases = livecodebench::cases(&public, &private)?;
                let metadata = text("metadata").unwrap_or_default();
                let function = livecodebench::function(&metadata, &cases)?;
                Ok(Self {
                    seconds: SECONDS.max(SECONDS_PER_CASE * cases.len() as u64 + 5),
                    tests: Tests::Cases {
                        public,
                        private,
                        function,
                    },
                })
            }
        }
    }

    fn around(before: String, after: String) -> Self {
        Self {
            tests: Tests::Around { before, after },
            seconds: SECONDS,
        }
    }

    /// The whole program, which prints `word` when its tests have ended.
    fn source(&self, code: &str, word: &str) -> Result<String, String> {
        let (before, code, after) = match &self.tests {
            Tests::Around { before, after } => (before.as_str(), code.to_owned(), after.as_str()),
            Tests::Cases {
                public,
                private,
                function,
            } => {
                let tests = serde_json::to_string(&livecodebench::cases(public, private)?);
                let tests = python(&tests.map_err(|e| e.to_string())?);
                let (code, function) = (python(code), python(function.as_deref().unwrap_or("")));
                let given =
                    format!("tests = json.loads({tests})\nfunction = {function}\ncode = {code}");
                ("import json", given, LIVE_CODE_BENCH)
            }
        };
        Ok(format!("{before}\n{code}\n{after}\nprint({word:?})\n"))
    }
}

/// A text as Python writes it: JSON's form of a text is also Python's.
fn python(text: &str) -> String {
    Value::from(text).to_string()
}

/// Where programs run.
#[derive(Debug)]
pub struct Sandbox(());

impl Sandbox {
    /// Looks whether there is one here, by running a program that must pass and one that must not.
    ///
    /// # Errors
    /// A machine without bubblewrap, prlimit or Python 3, or one that forbids it.
    pub fn new() -> Result<Self, EvalError> {
        let sandbox = Self(());
        let program = Program::around(String::new(), "assert f(1) == 2".to_owned());
        let missing = |what: &str| {
            EvalError::Code(format!(
                "generated code cannot run here safely: {what}; it needs bubblewrap (bwrap), prlimit and python3"
            ))
        };
        for (code, want) in [
            ("def f(x): return x + 1", true),
            ("def f(x): return x", false),
        ] {
            match sandbox.run(&program, code) {
                Ok(passed) if passed == want => {}
                Ok(_) => return Err(missing("a test program went wrong in the sandbox")),
                Err(error) => return Err(missing(&error.to_string())),
            }
        }
        Ok(sandbox)
    }

    /// Whether the last code block of a response passes its tests.
    ///
    /// # Errors
    /// A sandbox that cannot be started.
    pub fn passes(&self, program: &Program, response: &str) -> Result<bool, EvalError> {
        let Some(code) = edgethink_grader::code_block(response) else {
            return Ok(false);
        };
        self.run(program, code)
            .map_err(|error| EvalError::Code(format!("the sandbox cannot be started: {error}")))
    }

    fn run(&self, program: &Program, code: &str) -> std::io::Result<bool> {
        let word = word(code);
        let source = program.source(code, &word).map_err(std::io::Error::other)?;
        let mut child = command(program.seconds).spawn()?;
        if let Some(mut stdin) = child.stdin.take() {
            // A program that ends before it is read has not passed; its exit says so.
            std::thread::spawn(move || stdin.write_all(source.as_bytes()));
        }
        let stdout = child.stdout.take();
        let output = std::thread::spawn(move || {
            let mut text = Vec::new();
            if let Some(mut stdout) = stdout {
                let _ = stdout.by_ref().take(OUTPUT).read_to_end(&mut text);
                // What is too much is thrown away, so that the program can end.
                let _ = std::io::copy(&mut stdout, &mut std::io::sink());
            }
            text
        });
        let until = Instant::now() + Duration::from_secs(program.seconds);
        let status = loop {
            if let Some(status) = child.try_wait()? {
                break Some(status);
            }
            if Instant::now() > until {
                child.kill()?;
                child.wait()?;
                break None;
            }
            std::thread::sleep(Duration::from_millis(5));
        };
        let text = output.join().unwrap_or_default();
        let said = String::from_utf8_lossy(&text).lines().last() == Some(word.as_str());
        Ok(status.is_some_and(|status| status.success()) && said)
    }
}

/// A word that the program has no way to know before its tests have ended.
fn word(code: &str) -> String {
    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    let mut hasher = blake3::Hasher::new();
    hasher.update(code.as_bytes());
    hasher.update(&now.as_nanos().to_le_bytes());
    hasher.update(&std::process::id().to_le_bytes());
    hasher.finalize().to_hex().to_string()
}

/// Python within bubblewrap within limits; the program comes by stdin.
fn command(seconds: u64) -> Command {
    let mut command = Command::new("bwrap");
    command.args([
        "--unshare-all",
        "--die-with-parent",
        "--new-session",
        "--clearenv",
    ]);
    for dir in ["/usr", "/lib", "/lib64", "/bin"] {
        command.args(["--ro-bind-try", dir, dir]);
    }
    command.args([
        "--proc", "/proc", "--dev", "/dev", "--tmpfs", "/tmp", "--chdir", "/tmp",
    ]);
    command.args([
        "--setenv",
        "PATH",
        "/usr/bin:/bin",
        "--setenv",
        "PYTHONHASHSEED",
        "0",
    ]);
    command.args([
        "prlimit".to_owned(),
        format!("--cpu={seconds}"),
        format!("--as={BYTES}"),
        format!("--fsize={}", 1 << 24),
        "--nofile=64".to_owned(),
        "--core=0".to_owned(),
    ]);
    command.args(["/usr/bin/python3", "-I", "-"]);
    command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null());
    command
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn columns(value: &Value) -> Columns {
        value.as_object().expect("an object").clone()
    }

    fn human() -> Program {
        let row = json!({
            "prompt": "from typing import List\n\ndef twice(x: int) -> int:\n    \"\"\"Twice x.\"\"\"\n",
            "test": "def check(candidate):\n    assert candidate(2) == 4\n",
            "entry_point": "twice",
        });
        Program::of(CodeTests::HumanEval, &columns(&row)).expect("whole")
    }

    #[test]
    fn programs_stand_between_their_prompt_and_their_tests() {
        let source = human()
            .source("def twice(x): return 2 * x", "w")
            .expect("whole");
        assert!(
            source.starts_with("from typing") && source.contains("check(twice)\n\nprint(\"w\")"),
            "{source}"
        );
        let row = json!({"test_imports": ["import math"], "test_list": ["assert f(1) == 1", "assert f(2) == 4"]});
        let program = Program::of(CodeTests::Mbpp, &columns(&row)).expect("whole");
        let source = program
            .source("def f(x): return x * x", "w")
            .expect("whole");
        assert!(
            source.starts_with("import math\n") && source.contains("== 1\nassert f(2)"),
            "{source}"
        );
        assert!(Program::of(CodeTests::Mbpp, &Columns::new()).is_err());
    }

    /// A row of LiveCodeBench in the data set's own columns.
    fn contest(public: &Value, private: &str, metadata: &str) -> Program {
        let row = json!({
            "question_title": "t", "question_content": "q", "platform": "atcoder", "question_id": "abc301_a",
            "contest_id": "abc301", "contest_date": "2023-05-13T00:00:00", "starter_code": "", "difficulty": "easy",
            "public_test_cases": public.to_string(), "private_test_cases": private, "metadata": metadata,
        });
        Program::of(CodeTests::LiveCodeBench, &columns(&row)).expect("whole")
    }

    #[test]
    fn contest_programs_are_judged_by_inputs_and_outputs() {
        let Ok(sandbox) = Sandbox::new() else { return };
        // [{"input": "2 3\n", "output": "5\n", "testtype": "stdin"}], as text, pickled, compressed, in base64: by Python 3.
        let private = "eJxrYJlqxwABPVbR1UqZeQWlJUpWCkpGCsYxeUo6Ckr5pSVQIVOIQElqcUlJZUEqSKi4JCUzT6k2dooeALHCFKE=";
        let case = |input: &str, output: &str, kind: &str| json!([{"input": input, "output": output, "testtype": kind}]);
        let piped = contest(&case("1 1\n", "2\n", "stdin"), private, "{}");
        let lines = contest(&case("3\n", "0.5\n1.0 2\n", "stdin"), "[]", "{}");
        let functional = case("[1, 2]\n3", "[4, 5]", "functional");
        let called = contest(&functional, "[]", "{\"func_name\": \"add\"}");
        let (good, bad) = (true, false);
        for (program, code, passes) in [
            (&piped, "print(sum(map(int, input().split())))", good),
            (
                &piped,
                "import sys\na, b = sys.stdin.buffer.read().split()\nprint(int(a) + int(b))\nexit()",
                good,
            ),
            (
                &piped,
                "import sys\na, b = open(0).readline().split()\nsys.stdout.buffer.write(b'%d' % (int(a) + int(b)))",
                good,
            ),
            (&piped, "print(2)", bad),
            (
                &piped,
                "print(sum(map(int, input().split())), 'apples')",
                bad,
            ),
            (&piped, "while True: pass", bad),
            (&lines, "print('.50')\nprint('1 2.00 ')", good),
            (&lines, "print('.50 1 2.00')", bad),
            (&lines, "print('.50')\nprint('1 2.01')", bad),
            (
                &called,
                "class Solution:\n    def add(self, a: List[int], b: int):\n        print('here', end='')\n        return tuple(x + b for x in a)",
                good,
            ),
            (
                &called,
                "def add(a, b):\n    return [x + b for x in a]",
                good,
            ),
            (
                &called,
                "class Solution:\n    def add(self, a, b):\n        return a",
                bad,
            ),
            (
                &called,
                "class Solution:\n    def sub(self, a, b):\n        return [4, 5]",
                bad,
            ),
        ] {
            let said = format!("```python\n{code}\n```\n");
            assert_eq!(
                sandbox.passes(program, &said).expect("it starts"),
                passes,
                "{code}"
            );
        }
    }

    #[test]
    fn only_what_passes_its_tests_passes() {
        // A machine without bubblewrap refuses; the refusal names what is missing.
        let sandbox = match Sandbox::new() {
            Ok(sandbox) => sandbox,
            Err(error) => {
                assert!(error.to_string().contains("bubblewrap"), "{error}");
                return;
            }
        };
        let block = |code: &str| format!("Here it is:\n```python\n{code}\n```\n");
        for (code, passes) in [
            ("def twice(x): return 2 * x", true),
            ("def twice(x): return x", false),
            ("import os\nos._exit(0)", false),
            ("import sys\nsys.exit(0)", false),
            ("def twice(x): return bytearray(1 << 34) and 4", false),
            (
                "def twice(x): return len(open('/etc/passwd').read()) * 0 + 4",
                false,
            ),
            (
                "import socket\nsocket.create_connection(('1.1.1.1', 80), 1)\ndef twice(x): return 4",
                false,
            ),
            ("def twice(x:", false),
        ] {
            let passed = sandbox.passes(&human(), &block(code)).expect("it starts");
            assert_eq!(passed, passes, "{code}");
        }
        assert!(
            !sandbox
                .passes(&human(), "def twice(x): return 2 * x")
                .expect("it starts"),
            "no block"
        );
    }
}
