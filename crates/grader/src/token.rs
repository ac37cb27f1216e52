//! From LaTeX or plain text to tokens.
//!
//! What only changes the look is dropped here: `\left`, `\displaystyle`, `$`, thin spaces, fonts. A command that is not known
//! makes the whole answer plain text (`None`), because guessing what it means is how unequal answers become equal.

use crate::expr::{Func, Rel};
use crate::number::Number;
use crate::words;

/// Longest text that is read as mathematics, and most tokens. Longer answers are compared as text.
const MAX_BYTES: usize = 4096;
const MAX_TOKENS: usize = 1000;

/// A unit of the grammar.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Token {
    /// A literal, and its digits if it was written as a plain integer.
    Num(Number, Option<String>),
    /// A variable.
    Name(String),
    /// A word of plain text, as written.
    Word(String),
    Func(Func),
    Frac,
    Sqrt,
    Binom,
    Pi,
    Infinity,
    Empty,
    Reals,
    Plus,
    Minus,
    PlusMinus,
    MinusPlus,
    Times,
    Slash,
    Caret,
    Underscore,
    Bang,
    Prime,
    Percent,
    Degree,
    Dollar,
    Comma,
    Colon,
    And,
    Or,
    Open(char),
    Close(char),
    /// `{` and `}` of LaTeX, which group and are not seen.
    GroupOpen,
    GroupClose,
    SetOpen,
    SetClose,
    FloorOpen,
    FloorClose,
    CeilOpen,
    CeilClose,
    Bar,
    Rel(Rel),
    Approx,
    Cup,
    Cap,
    Setminus,
    Begin(String),
    End,
    Cell,
    Row,
}

/// How commas between digits are read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Commas {
    /// `1,234` is one number.
    Group,
    /// `1,234` is two numbers.
    Split,
}

/// A token and whether white space stands before it.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Tok {
    pub(crate) token: Token,
    pub(crate) spaced: bool,
}

/// The tokens of a text, and whether a comma between digits was read as part of a number.
pub(crate) fn tokens(text: &str, commas: Commas) -> Option<(Vec<Tok>, bool)> {
    if text.len() > MAX_BYTES {
        return None;
    }
    let mut lexer = Lexer {
        chars: text.chars().collect(),
        at: 0,
        out: Vec::new(),
        spaced: false,
        commas,
        depth: 0,
        grouped: false,
        text_groups: Vec::new(),
        open_groups: 0,
        // An odd dollar sign opens no formula.
        money: text.matches('$').count() % 2 == 1 && !text.contains("\\$"),
    };
    while lexer.at < lexer.chars.len() {
        lexer.next()?;
        if lexer.out.len() > MAX_TOKENS {
            return None;
        }
    }
    Some((lexer.out, lexer.grouped))
}

pub(crate) struct Lexer {
    pub(crate) chars: Vec<char>,
    pub(crate) at: usize,
    pub(crate) out: Vec<Tok>,
    pub(crate) spaced: bool,
    pub(crate) commas: Commas,
    /// Nesting of ( and [: inside, a comma separates.
    pub(crate) depth: usize,
    pub(crate) grouped: bool,
    /// Group depths at which a `\text{` was opened.
    pub(crate) text_groups: Vec<usize>,
    pub(crate) open_groups: usize,
    /// A `$` before a digit is money.
    pub(crate) money: bool,
}

impl Lexer {
    pub(crate) fn peek(&self, ahead: usize) -> Option<char> {
        self.chars.get(self.at + ahead).copied()
    }

    pub(crate) fn push(&mut self, token: Token) {
        self.out.push(Tok {
            token,
            spaced: self.spaced,
        });
        self.spaced = false;
    }

    pub(crate) fn one(&mut self, token: Token) {
        self.at += 1;
        self.push(token);
    }

    pub(crate) fn next(&mut self) -> Option<()> {
        let c = self.peek(0)?;
        match c {
            c if c.is_whitespace() || matches!(c, '~' | '\u{200b}' | '\u{2061}' | '\u{feff}') => {
                self.at += 1;
                self.spaced = true;
            }
            '$' if self.money && self.peek(1).is_some_and(|c| c.is_ascii_digit() || c == '.') => {
                self.one(Token::Dollar);
            }
            '$' => {
                self.at += 1;
                self.spaced = true;
            }
            '0'..='9' => self.number()?,
            '.' if self.peek(1).is_some_and(|c| c.is_ascii_digit()) => self.number()?,
            '\\' => self.command()?,
            '+' => self.one(Token::Plus),
            '-' | '−' | '–' | '﹣' => self.one(Token::Minus),
            '*' if self.peek(1) == Some('*') => {
                self.at += 1;
                self.one(Token::Caret);
            }
            '*' | '×' | '·' | '⋅' | '∙' => self.one(Token::Times),
            '/' | '÷' | '∕' => self.one(Token::Slash),
            '^' => self.caret(),
            '_' => self.one(Token::Underscore),
            '!' if self.peek(1) == Some('=') => {
                self.at += 1;
                self.one(Token::Rel(Rel::Ne));
            }
            '!' => self.one(Token::Bang),
            '\'' | '′' | '’' => self.one(Token::Prime),
            '%' | '％' => self.one(Token::Percent),
            '°' | 'º' => self.one(Token::Degree),
            '€' | '£' | '¥' | '₹' => {
                let name = words::currency(c)?;
                self.one(Token::Word(name.to_owned()));
            }
            ',' | ';' | '，' | '、' => self.one(Token::Comma),
            ':' => self.one(Token::Colon),
            '(' | '[' | '⟨' => {
                self.depth += 1;
                self.one(Token::Open(if c == '[' { '[' } else { '(' }));
            }
            ')' | ']' | '⟩' => {
                self.depth = self.depth.saturating_sub(1);
                self.one(Token::Close(if c == ']' { ']' } else { ')' }));
            }
            '{' => self.group_open(),
            '}' => {
                let text = self.text_groups.last() == Some(&self.open_groups);
                self.open_groups = self.open_groups.checked_sub(1)?;
                if text {
                    self.text_groups.pop();
                    self.spaced = true;
                    self.at += 1;
                } else {
                    self.one(Token::GroupClose);
                }
            }
            '|' => self.one(Token::Bar),
            '=' => {
                self.at += usize::from(self.peek(1) == Some('='));
                self.one(Token::Rel(Rel::Eq));
            }
            '<' | '>' => {
                let or_equal = self.peek(1) == Some('=');
                self.at += usize::from(or_equal);
                self.one(Token::Rel(match (c, or_equal) {
                    ('<', false) => Rel::Lt,
                    ('<', true) => Rel::Le,
                    (_, false) => Rel::Gt,
                    (_, true) => Rel::Ge,
                }));
            }
            '≤' | '⩽' => self.one(Token::Rel(Rel::Le)),
            '≥' | '⩾' => self.one(Token::Rel(Rel::Ge)),
            '≠' => self.one(Token::Rel(Rel::Ne)),
            '∈' => self.one(Token::Rel(Rel::In)),
            '≈' => self.one(Token::Approx),
            '±' => self.one(Token::PlusMinus),
            '∓' => self.one(Token::MinusPlus),
            '∞' => self.one(Token::Infinity),
            'π' => self.one(Token::Pi),
            '√' => self.one(Token::Sqrt),
            '∪' => self.one(Token::Cup),
            '∩' => self.one(Token::Cap),
            '∅' | 'Ø' => self.one(Token::Empty),
            'ℝ' => self.one(Token::Reals),
            '&' => self.one(Token::Cell),
            'a'..='z' | 'A'..='Z' => self.letters(),
            _ => {
                if let Some((top, bottom)) = words::vulgar(c) {
                    self.at += 1;
                    self.fraction(top, bottom);
                } else if let Some(exponent) = words::superscript(c) {
                    self.superscript(exponent)?;
                } else if c.is_alphabetic() {
                    self.letters();
                } else {
                    return None;
                }
            }
        }
        Some(())
    }

    pub(crate) fn group_open(&mut self) {
        self.open_groups += 1;
        self.one(Token::GroupOpen);
    }

    /// `^`, or the degree sign as it is written in LaTeX: `^\circ`, `^{\circ}`.
    fn caret(&mut self) {
        let rest: String = self.chars[self.at + 1..].iter().take(10).collect();
        let rest = rest.trim_start();
        for sign in ["\\circ", "{\\circ}", "\\degree", "{\\degree}", "{o}"] {
            if rest.starts_with(sign) {
                let skip = self.chars[self.at + 1..]
                    .iter()
                    .take_while(|c| c.is_whitespace())
                    .count();
                self.at += skip + sign.len();
                self.one(Token::Degree);
                return;
            }
        }
        self.one(Token::Caret);
    }

    /// A run of letters: a function, a variable, a product of variables, or a word.
    fn letters(&mut self) {
        let start = self.at;
        while self.peek(0).is_some_and(char::is_alphabetic) {
            self.at += 1;
        }
        let run: String = self.chars[start..self.at].iter().collect();
        let in_text = !self.text_groups.is_empty();
        self.run(&run, in_text);
    }

    fn run(&mut self, run: &str, in_text: bool) {
        match run.to_lowercase().as_str() {
            "and" => return self.push(Token::And),
            "or" => return self.push(Token::Or),
            "percent" | "pct" | "percentage" => return self.push(Token::Percent),
            _ => {}
        }
        if in_text {
            return self.push(Token::Word(run.to_owned()));
        }
        match run {
            "sqrt" => return self.push(Token::Sqrt),
            "pi" => return self.push(Token::Pi),
            "infinity" | "infty" | "oo" => return self.push(Token::Infinity),
            "U" if self.spaced
                && self
                    .out
                    .last()
                    .is_some_and(|t| matches!(t.token, Token::Close(_))) =>
            {
                return self.push(Token::Cup);
            }
            _ => {}
        }
        if let Some(func) = Func::named(run) {
            return self.push(Token::Func(func));
        }
        if words::is_product(run) {
            for letter in run.chars() {
                self.push(Token::Name(letter.to_string()));
            }
        } else {
            self.push(Token::Word(run.to_owned()));
        }
    }
}
