//! Blocks as HTML, in one file without anything from elsewhere, and as Markdown.

use std::fmt::Write;

const STYLE: &str = include_str!("style.css");

/// One thing on the page.
#[derive(Debug, Clone, PartialEq)]
pub enum Block {
    /// A heading.
    Heading(String),
    /// A paragraph.
    Text(String),
    /// A table; every row has as many cells as the header.
    Table {
        /// Over it; may be empty.
        caption: String,
        /// Column names.
        header: Vec<String>,
        /// Cells.
        rows: Vec<Vec<String>>,
    },
    /// A picture.
    Figure {
        /// Its file's name in Markdown.
        name: String,
        /// What it shows.
        caption: String,
        /// For the page: takes its colours.
        inline: String,
        /// For the file.
        file: String,
    },
}

/// A report.
#[derive(Debug, Clone, PartialEq)]
pub struct Page {
    /// Over it.
    pub title: String,
    /// What is on it.
    pub blocks: Vec<Block>,
}

impl Page {
    /// The page.
    pub fn html(&self) -> String {
        let title = escape(&self.title);
        let mut html = format!(
            "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
             <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n<title>{title}</title>\n\
             <style>\n{STYLE}</style>\n</head>\n<body>\n<h1>{title}</h1>\n"
        );
        for block in &self.blocks {
            match block {
                Block::Heading(text) => {
                    push(&mut html, format_args!("<h2>{}</h2>\n", escape(text)))
                }
                Block::Text(text) => push(&mut html, format_args!("<p>{}</p>\n", escape(text))),
                Block::Table {
                    caption,
                    header,
                    rows,
                } => {
                    html.push_str("<div class=\"scroll\"><table>\n");
                    if !caption.is_empty() {
                        push(
                            &mut html,
                            format_args!("<caption>{}</caption>\n", escape(caption)),
                        );
                    }
                    html.push_str("<thead><tr>");
                    for cell in header {
                        push(
                            &mut html,
                            format_args!("<th scope=\"col\">{}</th>", escape(cell)),
                        );
                    }
                    html.push_str("</tr></thead>\n<tbody>\n");
                    for row in rows {
                        html.push_str("<tr>");
                        for (at, cell) in row.iter().enumerate() {
                            let (open, close) = if at == 0 {
                                ("<th scope=\"row\">", "</th>")
                            } else {
                                ("<td>", "</td>")
                            };
                            push(&mut html, format_args!("{open}{}{close}", escape(cell)));
                        }
                        html.push_str("</tr>\n");
                    }
                    html.push_str("</tbody></table></div>\n");
                }
                Block::Figure {
                    caption, inline, ..
                } => push(
                    &mut html,
                    format_args!(
                        "<figure>{inline}<figcaption>{}</figcaption></figure>\n",
                        escape(caption)
                    ),
                ),
            }
        }
        html.push_str("</body>\n</html>\n");
        html
    }

    /// The same as Markdown; figures are files beside it.
    pub fn markdown(&self) -> String {
        let mut text = format!("# {}\n", self.title);
        for block in &self.blocks {
            text.push('\n');
            match block {
                Block::Heading(heading) => push(&mut text, format_args!("## {heading}\n")),
                Block::Text(paragraph) => push(&mut text, format_args!("{paragraph}\n")),
                Block::Table {
                    caption,
                    header,
                    rows,
                } => {
                    if !caption.is_empty() {
                        push(&mut text, format_args!("{caption}:\n\n"));
                    }
                    push(
                        &mut text,
                        format_args!(
                            "| {} |\n|{}\n",
                            header.join(" | "),
                            "---|".repeat(header.len())
                        ),
                    );
                    for row in rows {
                        let row: Vec<String> =
                            row.iter().map(|cell| cell.replace('|', "\\|")).collect();
                        push(&mut text, format_args!("| {} |\n", row.join(" | ")));
                    }
                }
                Block::Figure { name, caption, .. } => {
                    push(&mut text, format_args!("![{caption}]({name})\n"))
                }
            }
        }
        text
    }

    /// The figures as files: name and SVG.
    pub fn figures(&self) -> impl Iterator<Item = (&str, &str)> {
        self.blocks.iter().filter_map(|block| match block {
            Block::Figure { name, file, .. } => Some((name.as_str(), file.as_str())),
            _ => None,
        })
    }
}

/// Writing to a string cannot fail.
fn push(text: &mut String, what: std::fmt::Arguments<'_>) {
    let _ = text.write_fmt(what);
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
        .replace('"', "&quot;")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_forms_say_the_same_and_html_stands_alone() {
        let page = Page {
            title: "A & B".to_owned(),
            blocks: vec![
                Block::Heading("One".to_owned()),
                Block::Text("x < y".to_owned()),
                Block::Table {
                    caption: "c".to_owned(),
                    header: vec![String::new(), "n".to_owned()],
                    rows: vec![vec!["a|b".to_owned(), "1".to_owned()]],
                },
                Block::Figure {
                    name: "f.svg".to_owned(),
                    caption: "f".to_owned(),
                    inline: "<svg></svg>".to_owned(),
                    file: "<svg/>".to_owned(),
                },
            ],
        };
        let html = page.html();
        for part in [
            "A &amp; B",
            "x &lt; y",
            "<th scope=\"row\">a|b</th><td>1</td>",
            "<svg></svg>",
            "prefers-color-scheme",
        ] {
            assert!(html.contains(part), "{part}: {html}");
        }
        assert!(!html.contains("http"), "nothing comes from elsewhere");
        let text = page.markdown();
        assert!(
            text.contains("| a\\|b | 1 |") && text.contains("![f](f.svg)"),
            "{text}"
        );
        assert_eq!(page.figures().collect::<Vec<_>>(), [("f.svg", "<svg/>")]);
    }
}
