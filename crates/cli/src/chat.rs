//! `edgethink chat`: a conversation. Earlier thoughts are left out of the history; the prefix cache keeps its KV.

use std::io::{BufRead, IsTerminal, Write};
use std::process::ExitCode;

use anyhow::{Context, Result};
use edgethink_model::Message;
use edgethink_reason::{FinishReason, Input, Reasoner, Think};
use rustyline::DefaultEditor;
use rustyline::error::ReadlineError;

use crate::args::{ChatArgs, ThinkArg};
use crate::ask;
use crate::open::{self, Need};
use crate::screen::Screen;

const HELP: &str =
    "/think on|off    think before answering, or not; /think auto lets the switcher decide
/budget N|off    limit on the tokens of one answer
/clear           forget the conversation
/help            this list
/exit            leave (Ctrl-D does too)
Ctrl-C stops an answer. A line that ends in \\ goes on in the next one.";

/// A line of the user.
#[derive(Debug, PartialEq, Eq)]
enum Line {
    Say(String),
    Think(ThinkArg),
    Budget(Option<usize>),
    Clear,
    Help,
    Exit,
    Empty,
    /// What is wrong with it.
    Bad(String),
}

/// Runs the command.
pub(crate) fn run(args: &ChatArgs) -> Result<ExitCode> {
    let opened = open::open(&args.model)?;
    let name = opened.name.clone();
    let mut reasoner = open::reasoner(opened, &args.engine, &args.thinking, &Need::conversation())?;
    let mut chat = Chat {
        system: args.system.clone(),
        messages: Vec::new(),
        args,
        think: args.thinking.think,
        budget: args.thinking.budget,
    };
    let mut input = Lines::open()?;
    let screen = Screen::stderr();
    if input.interactive() {
        let think = match open::think(&reasoner, chat.think) {
            Think::On => "on",
            Think::Off => "off",
            Think::Auto => "auto",
        };
        eprintln!(
            "{}",
            screen.dim(&format!(
                "{name}, thinking {think}, {}. /help shows the commands.",
                chat.limit(&reasoner)
            ))
        );
    }
    let say = |text: &str| {
        if screen.live {
            eprintln!("{}", screen.dim(text));
        }
    };
    while let Some(line) = input.next()? {
        match parse(&line) {
            Line::Say(text) => chat.say(&mut reasoner, text)?,
            Line::Think(think) => {
                chat.think = Some(think);
                say(match think {
                    ThinkArg::On => "thinking on",
                    ThinkArg::Off => "thinking off",
                    ThinkArg::Auto => "thinking when the switcher says so",
                });
            }
            Line::Budget(budget) => {
                chat.budget = budget;
                say(&chat.limit(&reasoner));
            }
            Line::Clear => {
                chat.messages.clear();
                say("forgotten");
            }
            Line::Help => eprintln!("{HELP}"),
            Line::Exit => break,
            Line::Empty => {}
            Line::Bad(what) => eprintln!("{what}"),
        }
    }
    Ok(ExitCode::SUCCESS)
}

struct Chat<'a> {
    system: Option<String>,
    messages: Vec<Message>,
    args: &'a ChatArgs,
    think: Option<ThinkArg>,
    budget: Option<usize>,
}

impl Chat<'_> {
    /// The budget in words.
    fn limit(&self, reasoner: &Reasoner) -> String {
        let soft = self.args.thinking.soft_budget.or(self.budget);
        let named = soft.filter(|_| reasoner.format().budget_line.is_some());
        match (self.budget, named) {
            (None, None) => "no budget".to_owned(),
            (None, Some(soft)) => format!("{soft} tokens named in the prompt"),
            (Some(hard), None) => format!("at most {hard} tokens"),
            (Some(hard), Some(soft)) if hard == soft => {
                format!("at most {hard} tokens, named in the prompt")
            }
            (Some(hard), Some(soft)) => {
                format!("at most {hard} tokens, {soft} named in the prompt")
            }
        }
    }

    /// One turn. An error is shown and takes the turn back; the conversation goes on.
    fn say(&mut self, reasoner: &mut Reasoner, text: String) -> Result<()> {
        self.messages.push(Message::new("user", text));
        let system = self
            .system
            .as_deref()
            .map(|text| Message::new("system", text));
        let messages = system
            .into_iter()
            .chain(self.messages.iter().cloned())
            .collect();
        let mut query = open::query(
            reasoner,
            Input::Messages(messages),
            &self.args.thinking,
            &self.args.sampling,
        );
        if self.args.thinking.reasoning_effort.is_none() {
            query.think = open::think(reasoner, self.think);
            query.budget = self.budget;
            query.named_budget = self.args.thinking.soft_budget.or(self.budget);
        }
        match ask::stream(reasoner, &query, &self.args.display) {
            Ok(answer) => {
                let Some(choice) = answer.choices.into_iter().next() else {
                    return Ok(());
                };
                if choice.text.is_empty() {
                    self.messages.pop();
                    if choice.finish_reason != FinishReason::Cancelled {
                        eprintln!(
                            "no answer came; the question is not kept (try /budget 500 or --max-tokens)"
                        );
                    }
                } else {
                    self.messages.push(Message::new("assistant", choice.text));
                }
                Ok(())
            }
            Err(error)
                if error
                    .downcast_ref::<edgethink_reason::ReasonError>()
                    .is_some() =>
            {
                self.messages.pop();
                crate::report(&error);
                if !self.messages.is_empty() {
                    eprintln!("the question is not kept; /clear starts afresh");
                }
                Ok(())
            }
            Err(error) => Err(error),
        }
    }
}

fn parse(line: &str) -> Line {
    let line = line.trim();
    if line.is_empty() {
        return Line::Empty;
    }
    if !line.starts_with('/') {
        return Line::Say(line.to_owned());
    }
    let mut words = line.split_whitespace();
    let command = words.next().unwrap_or_default();
    let rest: Vec<&str> = words.collect();
    match (command, rest.as_slice()) {
        ("/think", ["on"]) => Line::Think(ThinkArg::On),
        ("/think", ["off"]) => Line::Think(ThinkArg::Off),
        ("/think", ["auto"]) => Line::Think(ThinkArg::Auto),
        ("/think", _) => Line::Bad("write /think on, /think off or /think auto".into()),
        ("/budget", ["off"]) => Line::Budget(None),
        ("/budget", [number]) => match number.parse() {
            Ok(budget) => Line::Budget(Some(budget)),
            Err(_) => Line::Bad(format!(
                "{number:?} is no number of tokens; write /budget 500 or /budget off"
            )),
        },
        ("/budget", _) => Line::Bad("write /budget 500 or /budget off".into()),
        ("/clear", []) => Line::Clear,
        ("/help" | "/?", []) => Line::Help,
        ("/exit" | "/quit" | "/bye", []) => Line::Exit,
        _ => Line::Bad(format!("{command} is no command; /help shows them")),
    }
}

/// Lines from an editor on a terminal, plain lines from a pipe.
enum Lines {
    Editor(Box<DefaultEditor>),
    Pipe,
}

impl Lines {
    fn open() -> Result<Self> {
        if std::io::stdin().is_terminal() && std::io::stdout().is_terminal() {
            let editor = DefaultEditor::new().context("cannot edit lines on this terminal")?;
            Ok(Self::Editor(Box::new(editor)))
        } else {
            Ok(Self::Pipe)
        }
    }

    fn interactive(&self) -> bool {
        matches!(self, Self::Editor(_))
    }

    /// The next input, or `None` at its end. A trailing backslash joins the next line.
    fn next(&mut self) -> Result<Option<String>> {
        let mut text = String::new();
        loop {
            let more = !text.is_empty();
            let Some(line) = self.line(more)? else {
                return Ok(more.then_some(text));
            };
            match line.strip_suffix('\\') {
                Some(start) => {
                    text.push_str(start);
                    text.push('\n');
                }
                None => {
                    text.push_str(&line);
                    if let Self::Editor(editor) = self {
                        editor
                            .add_history_entry(&text)
                            .context("cannot keep the line")?;
                    }
                    return Ok(Some(text));
                }
            }
        }
    }

    fn line(&mut self, more: bool) -> Result<Option<String>> {
        match self {
            Self::Editor(editor) => match editor.readline(if more { "… " } else { "> " }) {
                Ok(line) => Ok(Some(line)),
                // Ctrl-C empties the line, as in a shell.
                Err(ReadlineError::Interrupted) => Ok(Some(String::new())),
                Err(ReadlineError::Eof) => Ok(None),
                Err(error) => Err(error).context("cannot read the line"),
            },
            Self::Pipe => {
                std::io::stdout().flush()?;
                let mut line = String::new();
                let read = std::io::stdin()
                    .lock()
                    .read_line(&mut line)
                    .context("cannot read stdin")?;
                Ok((read > 0).then(|| line.trim_end_matches(['\n', '\r']).to_owned()))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_are_told_from_talk() {
        assert_eq!(parse(" hello /think "), Line::Say("hello /think".into()));
        assert_eq!(parse("/think  on"), Line::Think(ThinkArg::On));
        assert_eq!(parse("/budget 0"), Line::Budget(Some(0)));
        assert_eq!(parse("/budget off"), Line::Budget(None));
        assert_eq!(parse("   "), Line::Empty);
        assert_eq!(parse("/exit"), Line::Exit);
        for bad in [
            "/think",
            "/think maybe",
            "/budget -1",
            "/budget x",
            "/clear all",
            "/nothing",
        ] {
            assert!(matches!(parse(bad), Line::Bad(_)), "{bad}");
        }
    }
}
