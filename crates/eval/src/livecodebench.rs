//! The tests of a LiveCodeBench problem, as the data set keeps them.
//!
//! `public_test_cases` is JSON: a list of `{"input", "output", "testtype"}`, where the type is `stdin` or `functional`.
//! `private_test_cases` is the same, or, since it is long, the text of that JSON pickled, compressed by zlib, in base64. A pickle can run
//! any code when it is loaded, so it is not loaded: of its instructions those are read that hold one text, and any other refuses the row
//! ([`pickled_text`]). `metadata` is JSON that names the function of functional tests.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use miniz_oxide::inflate::decompress_to_vec_zlib_with_limit;
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// Most bytes of the tests of one problem.
const MOST: usize = 512 << 20;

/// One input and what is to come of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Case {
    /// What stands on the standard input, or the arguments as JSON, one a line.
    pub(crate) input: String,
    /// What is to be printed, or returned, as JSON.
    pub(crate) output: String,
    /// Which of the two.
    pub(crate) testtype: Kind,
}

/// How a program is given its input.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Kind {
    Stdin,
    Functional,
}

/// All tests of a row, the public ones first.
pub(crate) fn cases(public: &str, private: &str) -> Result<Vec<Case>, String> {
    let read = |what: &str, text: &str| -> Result<Vec<Case>, String> {
        serde_json::from_str(text).map_err(|e| format!("its {what} tests are none: {e}"))
    };
    let mut all = read("public", public)?;
    let private = if private.trim_start().starts_with('[') {
        read("private", private)?
    } else {
        let refused = |why: String| format!("its private tests cannot be read: {why}");
        read("private", &unpacked(private).map_err(refused)?)?
    };
    all.extend(private);
    if all.is_empty() {
        return Err("it has no tests".to_owned());
    }
    Ok(all)
}

/// The function that functional tests call; none for programs that read and print.
pub(crate) fn function(metadata: &str, cases: &[Case]) -> Result<Option<String>, String> {
    let metadata: Value = match metadata.trim() {
        "" => Value::Null,
        text => serde_json::from_str(text).map_err(|e| format!("its metadata is no JSON: {e}"))?,
    };
    // The data set says func_name, the harness's own samples fn_name.
    let name = ["func_name", "fn_name"]
        .iter()
        .find_map(|key| metadata[*key].as_str());
    let calls = cases.iter().any(|case| case.testtype == Kind::Functional);
    match name {
        None if calls => {
            Err("its tests call a function that its metadata does not name".to_owned())
        }
        name => Ok(name.map(str::to_owned)),
    }
}

/// From base64 over zlib to the text that was pickled.
fn unpacked(text: &str) -> Result<String, String> {
    let bytes = STANDARD
        .decode(text.trim())
        .map_err(|e| format!("no base64: {e}"))?;
    let pickle = decompress_to_vec_zlib_with_limit(&bytes, MOST);
    let pickle =
        pickle.map_err(|e| format!("no zlib data of at most {MOST} bytes: {:?}", e.status))?;
    pickled_text(&pickle).map(str::to_owned)
}

/// The one text in a pickle (protocols 1 to 5) that holds nothing else.
fn pickled_text(pickle: &[u8]) -> Result<&str, String> {
    let cut = || "the pickle is cut".to_owned();
    let mut rest = pickle;
    let take = |rest: &mut &[u8], n: usize| -> Result<Vec<u8>, String> {
        let (head, tail) = rest.split_at_checked(n).ok_or_else(cut)?;
        *rest = tail;
        Ok(head.to_vec())
    };
    let length = |rest: &mut &[u8], n: usize| -> Result<usize, String> {
        let mut le = [0; 8];
        le[..n].copy_from_slice(&take(rest, n)?);
        usize::try_from(u64::from_le_bytes(le)).map_err(|_| cut())
    };
    let mut text = None;
    loop {
        let op = take(&mut rest, 1)?[0];
        let size = match op {
            // PROTO, FRAME, MEMOIZE, BINPUT, LONG_BINPUT: nothing that a single text needs.
            0x80 => take(&mut rest, 1).map(|_| None)?,
            0x95 => take(&mut rest, 8).map(|_| None)?,
            0x94 => None,
            b'q' => take(&mut rest, 1).map(|_| None)?,
            b'r' => take(&mut rest, 4).map(|_| None)?,
            // SHORT_BINUNICODE, BINUNICODE, BINUNICODE8
            0x8c => Some(length(&mut rest, 1)?),
            b'X' => Some(length(&mut rest, 4)?),
            0x8d => Some(length(&mut rest, 8)?),
            b'.' => break,
            other => {
                return Err(format!(
                    "the pickle holds the instruction {other:#04x}; only a text is read, since a pickle can run any code"
                ));
            }
        };
        if let Some(size) = size {
            let (head, tail) = rest.split_at_checked(size).ok_or_else(cut)?;
            rest = tail;
            let found = std::str::from_utf8(head).map_err(|e| format!("the pickled text: {e}"))?;
            if text.replace(found).is_some() {
                return Err("the pickle holds more than one text".to_owned());
            }
        }
    }
    if !rest.is_empty() {
        return Err("something stands behind the pickle".to_owned());
    }
    text.ok_or_else(|| "the pickle holds no text".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    /// [{"input": "2 3\n", "output": "5\n", "testtype": "stdin"}], as text, pickled, compressed, in base64: by Python 3.
    const PACKED: &str =
        "eJxrYJlqxwABPVbR1UqZeQWlJUpWCkpGCsYxeUo6Ckr5pSVQIVOIQElqcUlJZUEqSKi4JCUzT6k2dooeALHCFKE=";

    fn packed(pickle: &[u8]) -> String {
        STANDARD.encode(miniz_oxide::deflate::compress_to_vec_zlib(pickle, 6))
    }

    #[test]
    fn packed_tests_are_read_without_running_them() {
        let plain = json!([{"input": "2 3\n", "output": "5\n", "testtype": "stdin"}]).to_string();
        let from_python = cases("[]", PACKED).expect("whole");
        assert_eq!(from_python, cases("[]", &plain).expect("whole"));
        assert_eq!(from_python[0].testtype, Kind::Stdin);
        // Protocols 2 and 3, and a long text's length in 8 bytes.
        for (op, len) in [(b'X', 4), (0x8d, 8)] {
            let size = plain.len().to_le_bytes();
            let pickle = [&[0x80, 3, op], &size[..len], plain.as_bytes(), b"q\0."].concat();
            assert_eq!(cases("[]", &packed(&pickle)).expect("whole"), from_python);
        }
        assert_eq!(cases(&plain, &plain).expect("whole").len(), 2);
    }

    #[test]
    fn a_pickle_of_anything_else_is_refused() {
        // What `pickle.dumps` writes for an object whose loading calls os.system("true").
        let call = b"\x80\x04\x95\x1d\0\0\0\0\0\0\0\x8c\x05posix\x94\x8c\x06system\x94\x93\x94\x8c\x04true\x94\x85\x94R\x94.";
        let global = b"cposix\nsystem\n(S'true'\ntR.";
        let list = b"\x80\x04]\x94\x8c\x01a\x94a.";
        for (pickle, why) in [
            (&call[..], "more than one text"),
            (global, "instruction 0x63"),
            (list, "instruction 0x5d"),
            (b"\x80\x04\x8c\x05ab.", "cut"),
            (b"\x80\x04\x8c\x02ab", "cut"),
            (b"\x80\x04\x8c\x02ab.more", "behind"),
            (b"\x80\x04.", "no text"),
            (b"\x80\x04\x8c\x02\xff\xfe.", "utf-8"),
            (b"", "cut"),
            (b"\x8d\xff\xff\xff\xff\xff\xff\xff\xff.", "cut"),
        ] {
            let error = cases("[]", &packed(pickle)).expect_err(why);
            assert!(error.contains(why), "{why}: {error}");
        }
    }

    #[test]
    fn rows_without_whole_tests_are_refused_by_name() {
        for (public, private, why) in [
            ("[]", "[]", "no tests"),
            ("{", "[]", "public tests"),
            ("[]", "[{}]", "private tests"),
            (
                r#"[{"input": "", "output": "", "testtype": "file"}]"#,
                "[]",
                "public tests",
            ),
            ("[]", "@@@", "base64"),
            ("[]", "AAAA", "zlib"),
        ] {
            let error = cases(public, private).expect_err(why);
            assert!(error.contains(why), "{why}: {error}");
        }
        let calls = r#"[{"input": "1", "output": "2", "testtype": "functional"}]"#;
        let calls = cases(calls, "[]").expect("whole");
        for (metadata, want) in [
            (r#"{"func_name": "add"}"#, Ok(Some("add".to_owned()))),
            (r#"{"fn_name": "add"}"#, Ok(Some("add".to_owned()))),
            ("{}", Err("does not name")),
            ("", Err("does not name")),
            ("{", Err("no JSON")),
        ] {
            match (function(metadata, &calls), want) {
                (Ok(got), Ok(want)) => assert_eq!(got, want),
                (Err(got), Err(want)) => assert!(got.contains(want), "{got}"),
                (got, want) => panic!("{metadata}: {got:?}, {want:?}"),
            }
        }
        let piped = cases("[]", PACKED).expect("whole");
        assert_eq!(function("{}", &piped), Ok(None));
    }
}
