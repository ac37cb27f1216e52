//! LaTeX commands.

use crate::expr::{Func, Rel};
use crate::number::Number;
use crate::token::{Lexer, Token};
use crate::words;

impl Lexer {
    pub(crate) fn command(&mut self) -> Option<()> {
        let next = self.peek(1)?;
        if !next.is_ascii_alphabetic() {
            self.at += 2;
            match next {
                '(' | ')' | '[' | ']' | ',' | ';' | ':' | '!' | ' ' | '>' | '\n' => {
                    self.spaced = true
                }
                '{' => self.push(Token::SetOpen),
                '}' => self.push(Token::SetClose),
                '%' => self.push(Token::Percent),
                '$' => self.push(Token::Dollar),
                '|' => self.push(Token::Bar),
                '&' => self.push(Token::And),
                '_' => self.push(Token::Underscore),
                '\\' => self.push(Token::Row),
                _ => return None,
            }
            return Some(());
        }
        let start = self.at + 1;
        self.at = start;
        while self.peek(0).is_some_and(|c| c.is_ascii_alphabetic()) {
            self.at += 1;
        }
        let name: String = self.chars[start..self.at].iter().collect();
        self.named(&name)
    }

    fn named(&mut self, name: &str) -> Option<()> {
        let token = match name {
            "left" | "right" | "middle" | "big" | "Big" | "bigg" | "Bigg" | "bigl" | "bigr"
            | "Bigl" | "Bigr" | "biggl" | "biggr" => {
                // "\left." opens nothing.
                self.at += usize::from(self.peek(0) == Some('.'));
                return Some(());
            }
            "displaystyle" | "textstyle" | "scriptstyle" | "limits" | "mathbf" | "mathit"
            | "mathsf" | "boldsymbol" | "bm" | "mathnormal" | "vec" | "boxed" | "fbox"
            | "operatorname" | "ensuremath" | "mathstrut" | "strut" | "phantom" => return Some(()),
            "quad" | "qquad" | "space" | "thinspace" | "enspace" => {
                self.spaced = true;
                return Some(());
            }
            "text" | "textbf" | "textit" | "textrm" | "texttt" | "textsf" | "mbox" | "hbox"
            | "rm" | "mathrm" | "textnormal" => return self.text_group(name),
            "mathbb" => return self.blackboard(),
            "begin" | "end" => return self.environment(name),
            "frac" | "dfrac" | "tfrac" | "cfrac" => return self.frac(Token::Frac),
            "binom" | "dbinom" | "tbinom" => return self.frac(Token::Binom),
            "sqrt" => Token::Sqrt,
            "pi" => Token::Pi,
            "infty" => Token::Infinity,
            "emptyset" | "varnothing" => Token::Empty,
            "pm" => Token::PlusMinus,
            "mp" => Token::MinusPlus,
            "cdot" | "times" | "ast" => Token::Times,
            "div" => Token::Slash,
            "le" | "leq" | "leqslant" => Token::Rel(Rel::Le),
            "ge" | "geq" | "geqslant" => Token::Rel(Rel::Ge),
            "lt" => Token::Rel(Rel::Lt),
            "gt" => Token::Rel(Rel::Gt),
            "ne" | "neq" => Token::Rel(Rel::Ne),
            "in" => Token::Rel(Rel::In),
            "approx" => Token::Approx,
            "cup" | "bigcup" => Token::Cup,
            "cap" | "bigcap" => Token::Cap,
            "setminus" | "backslash" => Token::Setminus,
            "lbrace" => Token::SetOpen,
            "rbrace" => Token::SetClose,
            "lvert" | "rvert" | "vert" => Token::Bar,
            "lfloor" => Token::FloorOpen,
            "rfloor" => Token::FloorClose,
            "lceil" => Token::CeilOpen,
            "rceil" => Token::CeilClose,
            "langle" | "lparen" => Token::Open('('),
            "rangle" | "rparen" => Token::Close(')'),
            "lbrack" => Token::Open('['),
            "rbrack" => Token::Close(']'),
            "degree" | "circ" => Token::Degree,
            "prime" => Token::Prime,
            "colon" => Token::Colon,
            "land" | "wedge" => Token::And,
            "lor" | "vee" => Token::Or,
            "mid" => Token::Bar,
            "cr" => Token::Row,
            "euro" => Token::Word("euro".to_owned()),
            "pounds" => Token::Word("pound".to_owned()),
            "dollar" => Token::Dollar,
            _ => {
                if let Some(func) = Func::named(name) {
                    Token::Func(func)
                } else {
                    Token::Name(words::greek(name)?.to_owned())
                }
            }
        };
        match token {
            Token::Open(_) => self.depth += 1,
            Token::Close(_) => self.depth = self.depth.saturating_sub(1),
            _ => {}
        }
        self.push(token);
        Some(())
    }

    fn skip_space(&mut self) {
        while self.peek(0).is_some_and(char::is_whitespace) {
            self.at += 1;
        }
    }

    /// `\text{...}` is words, and its braces are not seen; `\mathrm{e}` is the letter.
    fn text_group(&mut self, name: &str) -> Option<()> {
        self.skip_space();
        if self.peek(0) != Some('{') {
            return if name == "rm" { Some(()) } else { None };
        }
        let letter = matches!(self.peek(2), Some('}'))
            && matches!(name, "mathrm" | "rm" | "textbf" | "textit");
        if letter {
            self.group_open();
        } else {
            self.open_groups += 1;
            self.at += 1;
            self.spaced = true;
            self.text_groups.push(self.open_groups);
        }
        Some(())
    }

    fn blackboard(&mut self) -> Option<()> {
        self.skip_space();
        let braced = self.peek(0) == Some('{');
        let letter = self.peek(usize::from(braced))?;
        if braced && self.peek(2) != Some('}') {
            return None;
        }
        self.at += if braced { 3 } else { 1 };
        self.push(if letter == 'R' {
            Token::Reals
        } else {
            Token::Name(format!("\\mathbb{letter}"))
        });
        Some(())
    }

    /// `\frac12` and `\frac1{72}`: an argument without braces is one digit.
    fn frac(&mut self, token: Token) -> Option<()> {
        self.push(token);
        for _ in 0..2 {
            self.skip_space();
            let Some(digit) = self.peek(0).filter(char::is_ascii_digit) else {
                break;
            };
            let text = digit.to_string();
            self.one(Token::Num(Number::new(&text, "", 0)?, Some(text)));
        }
        Some(())
    }

    fn environment(&mut self, which: &str) -> Option<()> {
        let name = self.braced()?;
        if which == "end" {
            self.push(Token::End);
            return Some(());
        }
        if name == "array" {
            self.skip_space();
            self.braced()?;
        }
        let matrix = matches!(
            name.as_str(),
            "pmatrix"
                | "bmatrix"
                | "matrix"
                | "Bmatrix"
                | "smallmatrix"
                | "array"
                | "vmatrix"
                | "Vmatrix"
        );
        if !matrix {
            return None;
        }
        self.push(Token::Begin(name));
        Some(())
    }

    fn braced(&mut self) -> Option<String> {
        if self.peek(0) != Some('{') {
            return None;
        }
        let end = self.chars[self.at..].iter().position(|&c| c == '}')? + self.at;
        let inside = self.chars[self.at + 1..end].iter().collect();
        self.at = end + 1;
        Some(inside)
    }
}
