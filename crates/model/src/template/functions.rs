//! The functions and filters that transformers gives to chat templates: `raise_exception`, `strftime_now`, `tojson`.

use minijinja::value::{Kwargs, Value, ValueKind};
use minijinja::{Environment, Error, ErrorKind, Output, State, escape_formatter};

use super::clock;

/// Marks an error that the template raised itself.
const RAISED: &str = "raised by the template: ";

pub(super) fn install(environment: &mut Environment<'static>) {
    environment.add_function(
        "raise_exception",
        |message: String| -> Result<String, Error> {
            Err(Error::new(
                ErrorKind::InvalidOperation,
                format!("{RAISED}{message}"),
            ))
        },
    );
    environment.add_function("strftime_now", |format: String| {
        clock::strftime_now(&format)
    });
    environment.add_filter("tojson", to_json);
    environment.set_formatter(as_python);
}

/// Prints `None`, `True` and `False` as Python does.
fn as_python(out: &mut Output<'_>, state: &mut State, value: &Value) -> Result<(), Error> {
    match value.kind() {
        ValueKind::None => out.write_str("None")?,
        ValueKind::Bool if value.is_true() => out.write_str("True")?,
        ValueKind::Bool => out.write_str("False")?,
        _ => escape_formatter(out, state, value)?,
    }
    Ok(())
}

/// The message of `raise_exception`, if that is what stopped the template.
pub(super) fn raised(error: &Error) -> Option<String> {
    error.detail()?.strip_prefix(RAISED).map(str::to_owned)
}

/// Removes `{% generation %}` and `{% endgeneration %}`, which mark the assistant's text for training and print nothing.
pub(super) fn without_generation_tags(source: &str) -> String {
    let mut out = String::with_capacity(source.len());
    let mut rest = source;
    while let Some(start) = rest.find("{%") {
        // The end of a tag is looked for behind its beginning: `{%}` has none.
        let Some(end) = rest[start + 2..].find("%}").map(|n| start + n + 4) else {
            break;
        };
        let tag = &rest[start + 2..end - 2];
        let name = tag
            .trim_start_matches(['-', '+'])
            .trim_end_matches(['-', '+'])
            .trim();
        out.push_str(&rest[..start]);
        if matches!(name, "generation" | "endgeneration") {
            // An empty comment keeps the whitespace rules of the tag.
            let open = if tag.starts_with('-') { "{#-" } else { "{#" };
            let close = if tag.ends_with('-') { "-#}" } else { "#}" };
            out.push_str(open);
            out.push_str(close);
        } else {
            out.push_str(&rest[start..end]);
        }
        rest = &rest[end..];
    }
    out.push_str(rest);
    out
}

/// `json.dumps(value, ensure_ascii=False)` with Python's separators, and `indent` if given.
#[expect(
    clippy::needless_pass_by_value,
    reason = "minijinja passes keyword arguments so"
)]
fn to_json(state: &State, value: &Value, options: Kwargs) -> Result<Value, Error> {
    let indent: Option<usize> = options.get("indent")?;
    let _: Option<bool> = options.get("ensure_ascii")?;
    options.assert_all_used()?;
    let mut out = Json {
        state,
        text: String::new(),
        indent: indent.map(|n| n.min(16)),
    };
    out.value(value, 0)?;
    Ok(Value::from_safe_string(out.text))
}

/// Levels of nesting that are written; the stack is not infinite.
const MOST_NESTED: usize = 64;

struct Json<'a, 'b, 'c> {
    state: &'a State<'b, 'c>,
    text: String,
    indent: Option<usize>,
}

impl Json<'_, '_, '_> {
    fn value(&mut self, value: &Value, depth: usize) -> Result<(), Error> {
        let failed = |what: &str| {
            Error::new(
                ErrorKind::InvalidOperation,
                format!("cannot write {what} as JSON"),
            )
        };
        // Walking a value costs the template as much as printing it.
        self.state.consume_fuel(1)?;
        if depth > MOST_NESTED {
            return Err(failed("a value nested so deeply"));
        }
        match value.kind() {
            ValueKind::Undefined | ValueKind::None => self.text.push_str("null"),
            ValueKind::Bool => self
                .text
                .push_str(if value.is_true() { "true" } else { "false" }),
            ValueKind::Number => self.text.push_str(&value.to_string()),
            ValueKind::String => self.string(value.as_str().unwrap_or_default())?,
            ValueKind::Map => {
                self.items('{', '}', value, depth, |this, key| {
                    this.string(&key.to_string())?;
                    this.text.push_str(": ");
                    this.value(&value.get_item(key)?, depth + 1)
                })?;
            }
            ValueKind::Seq | ValueKind::Iterable => {
                self.items('[', ']', value, depth, |this, item| {
                    this.value(item, depth + 1)
                })?;
            }
            other => return Err(failed(&format!("a {other}"))),
        }
        Ok(())
    }

    fn items(
        &mut self,
        open: char,
        close: char,
        value: &Value,
        depth: usize,
        write: impl Fn(&mut Self, &Value) -> Result<(), Error>,
    ) -> Result<(), Error> {
        self.text.push(open);
        let mut any = false;
        for item in value.try_iter()? {
            if any {
                self.text
                    .push_str(if self.indent.is_some() { "," } else { ", " });
            }
            any = true;
            self.line(depth + 1);
            write(self, &item)?;
        }
        if any {
            self.line(depth);
        }
        self.text.push(close);
        Ok(())
    }

    fn line(&mut self, depth: usize) {
        if let Some(width) = self.indent {
            self.text.push('\n');
            self.text.extend(std::iter::repeat_n(' ', width * depth));
        }
    }

    fn string(&mut self, text: &str) -> Result<(), Error> {
        self.state.consume_fuel(text.len() as u64 / 4)?;
        self.text
            .push_str(&serde_json::Value::from(text).to_string());
        Ok(())
    }
}
