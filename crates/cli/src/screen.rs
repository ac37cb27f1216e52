//! What the terminal can do, and the few escape sequences this program writes.
//!
//! Colour and redrawing happen on a terminal only; NO_COLOR (any value that is not empty) and TERM=dumb turn colour off.

use std::io::{IsTerminal, Write};

use anyhow::Result;
use unicode_width::UnicodeWidthChar;

/// The properties of one output.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Screen {
    /// Dimming and bold may be used.
    pub(crate) colour: bool,
    /// Lines may be redrawn.
    pub(crate) live: bool,
    /// Columns.
    pub(crate) width: usize,
    /// Rows.
    pub(crate) height: usize,
}

impl Screen {
    /// A pipe or a file: plain text.
    #[cfg(test)]
    pub(crate) const PLAIN: Self = Self {
        colour: false,
        live: false,
        width: 80,
        height: 24,
    };

    /// Looks at stdout.
    pub(crate) fn stdout() -> Self {
        Self::of(std::io::stdout().is_terminal())
    }

    /// Looks at stderr.
    pub(crate) fn stderr() -> Self {
        Self::of(std::io::stderr().is_terminal())
    }

    fn of(terminal: bool) -> Self {
        let set = |name| std::env::var_os(name).is_some_and(|value| !value.is_empty());
        let dumb = std::env::var_os("TERM").is_some_and(|term| term == "dumb");
        let (width, height) =
            terminal_size::terminal_size().map_or((80, 24), |(w, h)| (w.0.into(), h.0.into()));
        Self {
            colour: terminal && !dumb && !set("NO_COLOR"),
            live: terminal && !dumb,
            width: usize::max(width, 20),
            height: usize::max(height, 4),
        }
    }

    /// `text` dimmed.
    pub(crate) fn dim(self, text: &str) -> String {
        self.style("2", text)
    }

    /// `text` bold.
    pub(crate) fn bold(self, text: &str) -> String {
        self.style("1", text)
    }

    /// `text` in the colour of errors.
    pub(crate) fn red(self, text: &str) -> String {
        self.style("1;31", text)
    }

    fn style(self, code: &str, text: &str) -> String {
        if self.colour && !text.is_empty() {
            format!("\x1b[{code}m{text}\x1b[0m")
        } else {
            text.to_owned()
        }
    }
}

/// Text of a model as a terminal may show it: no control characters, so that it cannot move the cursor or set titles.
pub(crate) fn harmless(text: &str) -> String {
    text.chars()
        .filter(|&c| c == '\n' || c == '\t' || !c.is_control())
        .map(|c| if c == '\t' { ' ' } else { c })
        .collect()
}

/// The last `rows` lines of `text` when it is wrapped at `width` columns.
pub(crate) fn wrapped_tail(text: &str, width: usize, rows: usize) -> Vec<String> {
    let mut lines = Vec::new();
    // A row takes at most `width` characters, so no more than this can be visible.
    let skip = text.chars().count().saturating_sub((width + 1) * rows);
    let tail: String = text.chars().skip(skip).collect();
    for paragraph in tail.split('\n') {
        let mut line = String::new();
        let mut used = 0;
        for word in paragraph.split_inclusive(' ') {
            let wide: usize = word
                .trim_end()
                .chars()
                .map(|c| c.width().unwrap_or(0))
                .sum();
            if used > 0 && used + wide > width {
                lines.push(std::mem::take(&mut line));
                used = 0;
            }
            for c in word.chars() {
                let w = c.width().unwrap_or(0);
                if used + w > width {
                    if c == ' ' {
                        continue;
                    }
                    lines.push(std::mem::take(&mut line));
                    used = 0;
                }
                line.push(c);
                used += w;
            }
        }
        lines.push(line);
    }
    let first = lines.len().saturating_sub(rows);
    lines.split_off(first)
}

/// Lines at the bottom of the output that are drawn again and again.
#[derive(Debug, Default)]
pub(crate) struct LiveRegion {
    rows: usize,
}

impl LiveRegion {
    /// Replaces what was drawn before. Lines must fit the width.
    pub(crate) fn draw(&mut self, out: &mut impl Write, lines: &[String]) -> Result<()> {
        self.clear(out)?;
        write!(out, "{}", lines.join("\n"))?;
        out.flush()?;
        self.rows = lines.len();
        Ok(())
    }

    /// Removes what was drawn; the cursor stands where the first line began.
    pub(crate) fn clear(&mut self, out: &mut impl Write) -> Result<()> {
        if self.rows > 0 {
            write!(out, "\r")?;
            if self.rows > 1 {
                write!(out, "\x1b[{}A", self.rows - 1)?;
            }
            write!(out, "\x1b[J")?;
            out.flush()?;
        }
        self.rows = 0;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_wrap_at_words_and_fit() {
        assert_eq!(
            wrapped_tail("one two three", 7, 9),
            ["one two", " three"].map(|s| s.trim_start().to_owned())
        );
        assert_eq!(wrapped_tail("abcdefgh", 3, 9), ["abc", "def", "gh"]);
        assert_eq!(wrapped_tail("a\nb\nc", 10, 2), ["b", "c"]);
        assert_eq!(wrapped_tail("", 10, 2), [""]);
        for width in 1..12 {
            for line in wrapped_tail("日本語 and a longwordhere ok\nx", width.max(2), 50) {
                let wide: usize = line
                    .trim_end()
                    .chars()
                    .map(|c| c.width().unwrap_or(0))
                    .sum();
                assert!(wide <= width.max(2), "{line:?} in {width}");
            }
        }
    }

    #[test]
    fn escape_sequences_of_a_model_are_not_passed_on() {
        assert_eq!(harmless("a\x1b[2Jb\x07\tc\nd\r"), "a[2Jb c\nd");
    }

    #[test]
    fn a_region_is_removed_line_by_line() {
        let mut out = Vec::new();
        let mut region = LiveRegion::default();
        region
            .draw(&mut out, &["a".into(), "b".into()])
            .expect("memory");
        region.clear(&mut out).expect("memory");
        region.clear(&mut out).expect("memory");
        assert_eq!(String::from_utf8(out).expect("text"), "a\nb\r\x1b[1A\x1b[J");
    }

    #[test]
    fn plain_text_has_no_escapes() {
        assert_eq!(Screen::PLAIN.dim("x"), "x");
        assert_eq!(
            Screen {
                colour: true,
                ..Screen::PLAIN
            }
            .dim("x"),
            "\x1b[2mx\x1b[0m"
        );
    }
}
