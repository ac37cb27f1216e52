//! The arithmetic half of the grammar: sums, products, powers, functions, brackets, matrices.
//!
//! ```text
//! sum     = ["+" | "-"] product { ("+" | "-") product }
//! product = factor { ["*" | "/"] factor }
//! factor  = primary { "!" | "%" | "°" | "^" exponent }
//! ```

use crate::expr::{Const, Expr, Func};
use crate::number::Number;
use crate::parse::Parser;
use crate::token::Token;

impl Parser<'_> {
    fn sign(&mut self) -> Option<bool> {
        let minus = match self.peek()? {
            Token::Plus => false,
            Token::Minus => true,
            Token::PlusMinus => {
                self.saw_sign = true;
                self.minus_first
            }
            Token::MinusPlus => {
                self.saw_sign = true;
                !self.minus_first
            }
            _ => return None,
        };
        self.at += 1;
        Some(minus)
    }

    pub(crate) fn sum(&mut self) -> Option<Expr> {
        let mut terms = Vec::new();
        let mut minus = self.sign();
        loop {
            let term = self.product()?;
            terms.push(if minus == Some(true) {
                negate(term)
            } else {
                term
            });
            minus = self.sign();
            if minus.is_none() {
                break;
            }
        }
        if terms.len() == 1 {
            terms.pop()
        } else {
            Some(Expr::Add(terms))
        }
    }

    fn product(&mut self) -> Option<Expr> {
        let first_at = self.at;
        let mut items = vec![self.factor()?];
        loop {
            if self.eat(&Token::Times) {
                items.push(self.factor()?);
            } else if self.peek() == Some(&Token::Slash) {
                self.at += 1;
                let bottom = self.factor()?;
                items.push(Expr::Inv(Box::new(bottom)));
            } else if self.starts_factor() {
                if let Some(part) = self.mixed_part(first_at) {
                    let whole = items.pop()?;
                    items.push(Expr::Add(vec![whole, part]));
                } else {
                    items.push(self.factor()?);
                }
            } else {
                break;
            }
        }
        if items.len() == 1 {
            items.pop()
        } else {
            Some(Expr::Mul(items))
        }
    }

    /// The fraction of a mixed number: `3\frac12`, `3 1/2`, `3½`, right after an integer that begins the product.
    fn mixed_part(&mut self, first_at: usize) -> Option<Expr> {
        let integer = matches!(self.toks[first_at].token, Token::Num(_, Some(_)));
        if !integer || self.at != first_at + 1 {
            return None;
        }
        let start = self.at;
        let part = if self.eat(&Token::Frac) {
            let top = self.argument();
            let bottom = self.argument();
            top.zip(bottom)
        } else if matches!(
            (self.peek(), self.after(1), self.after(2)),
            (
                Some(Token::Num(_, Some(_))),
                Some(Token::Slash),
                Some(Token::Num(_, Some(_)))
            )
        ) {
            let top = self.primary();
            self.at += 1;
            let bottom = self.primary();
            top.zip(bottom)
        } else {
            None
        };
        if let Some((Expr::Num(top), Expr::Num(bottom))) = part
            && let (Some(t), Some(b)) = (top.exact(), bottom.exact())
            && let (Some(t), Some(b)) = (t.as_int(), b.as_int())
            && t < b
        {
            return Some(Expr::quotient(Expr::Num(top), Expr::Num(bottom)));
        }
        self.at = start;
        None
    }

    /// May a factor follow without a sign of multiplication?
    fn starts_factor(&self) -> bool {
        let previous = self.at.checked_sub(1).map(|at| &self.toks[at].token);
        match self.peek() {
            // "3 5" is no product, "3 1/2" is a mixed number, "x2" is neither.
            Some(Token::Num(..)) => match previous {
                Some(Token::Close(_) | Token::GroupClose | Token::Degree) => true,
                Some(Token::Num(..)) => self.after(1) == Some(&Token::Slash),
                _ => false,
            },
            // "20 °C" is no product.
            Some(Token::Name(name)) => {
                previous != Some(&Token::Degree) || !matches!(name.as_str(), "C" | "F")
            }
            Some(
                Token::Func(_)
                | Token::Frac
                | Token::Sqrt
                | Token::Binom
                | Token::Pi
                | Token::Infinity
                | Token::Open('(')
                | Token::FloorOpen
                | Token::CeilOpen,
            ) => true,
            Some(Token::GroupOpen) => true,
            Some(Token::Bar) => self.bars == 0,
            _ => false,
        }
    }

    fn factor(&mut self) -> Option<Expr> {
        self.deeper(|p| {
            if let Some(minus) = p.sign() {
                let inner = p.factor()?;
                return Some(if minus { negate(inner) } else { inner });
            }
            let mut base = p.primary()?;
            let mut postfix = 0;
            loop {
                base = match p.peek() {
                    Some(Token::Bang) => Expr::Factorial(Box::new(base)),
                    Some(Token::Percent) => Expr::Percent(Box::new(base)),
                    Some(Token::Degree) => Expr::Degree(Box::new(base)),
                    Some(Token::Caret) => {
                        p.at += 1;
                        let exponent = p.exponent()?;
                        Expr::Pow(Box::new(base), Box::new(exponent))
                    }
                    _ => break,
                };
                if !matches!(base, Expr::Pow(..)) {
                    p.at += 1;
                }
                postfix += 1;
                if postfix > 3 {
                    return None;
                }
            }
            Some(base)
        })
    }

    /// After `^`: a group, or a signed factor of its own, so that `2^3^2` is `2^(3^2)`.
    pub(crate) fn exponent(&mut self) -> Option<Expr> {
        if self.peek() == Some(&Token::GroupOpen) {
            self.group()
        } else {
            self.factor()
        }
    }

    /// `{ ... }`
    fn group(&mut self) -> Option<Expr> {
        self.deeper(|p| {
            p.expect(&Token::GroupOpen)?;
            let bars = std::mem::take(&mut p.bars);
            let mut items = p.items(false)?;
            p.bars = bars;
            p.expect(&Token::GroupClose)?;
            if items.len() == 1 {
                items.pop()
            } else {
                // "{1, 2}" without backslashes is a set.
                Some(Expr::Set(items))
            }
        })
    }

    /// The argument of a command: a group or one token.
    fn argument(&mut self) -> Option<Expr> {
        if self.peek() == Some(&Token::GroupOpen) {
            self.group()
        } else {
            self.primary()
        }
    }

    fn primary(&mut self) -> Option<Expr> {
        // Some readings are tried twice; nesting must not double that at every level.
        self.work = self.work.checked_sub(1)?;
        let token = self.peek()?.clone();
        if token == Token::GroupOpen {
            return self.group();
        }
        if let Some(value) = self.number_word() {
            self.at += 1;
            return Some(Expr::int(value));
        }
        self.at += 1;
        Some(match token {
            Token::Num(number, plain) => return self.number(number, plain),
            Token::Name(name) => return self.name(name),
            Token::Func(func) => return self.deeper(|p| p.call(func)),
            Token::Frac | Token::Binom => {
                let top = self.argument()?;
                let bottom = self.argument()?;
                if token == Token::Frac {
                    Expr::quotient(top, bottom)
                } else {
                    Expr::Binom(Box::new(top), Box::new(bottom))
                }
            }
            Token::Sqrt => {
                let index = if self.eat(&Token::Open('[')) {
                    let index = self.sum()?;
                    self.expect(&Token::Close(']'))?;
                    index
                } else {
                    Expr::int(2)
                };
                let inner = self.deeper(Self::argument)?;
                Expr::Root(Box::new(inner), Box::new(index))
            }
            Token::Pi => Expr::Const(Const::Pi),
            Token::Infinity => Expr::Inf(false),
            Token::Empty => Expr::Set(Vec::new()),
            Token::Reals => Expr::Tuple('(', vec![Expr::Inf(true), Expr::Inf(false)], ')'),
            Token::Open(open) => return self.deeper(|p| p.brackets(open)),
            Token::SetOpen => {
                if self.eat(&Token::SetClose) {
                    return Some(Expr::Set(Vec::new()));
                }
                let items = self.deeper(|p| p.items(true))?;
                self.expect(&Token::SetClose)?;
                Expr::Set(items)
            }
            Token::FloorOpen | Token::CeilOpen => {
                let inner = Box::new(self.deeper(Self::sum)?);
                if token == Token::FloorOpen {
                    self.expect(&Token::FloorClose)?;
                    Expr::Floor(inner)
                } else {
                    self.expect(&Token::CeilClose)?;
                    Expr::Ceil(inner)
                }
            }
            Token::Bar => {
                self.bars += 1;
                let inner = self.deeper(Self::sum)?;
                self.bars -= 1;
                self.expect(&Token::Bar)?;
                Expr::Abs(Box::new(inner))
            }
            Token::Begin(name) => return self.deeper(|p| p.matrix(&name)),
            _ => return None,
        })
    }

    /// A literal, or digits in a written base: `52_8`.
    pub(crate) fn number(&mut self, number: Number, plain: Option<String>) -> Option<Expr> {
        if self.eat(&Token::Underscore) {
            let base = self.plain_integer()?.parse().ok()?;
            return Some(Expr::Based(plain?, base));
        }
        Some(Expr::Num(number))
    }

    /// A variable with its index and primes, a constant, or a function that is only named.
    fn name(&mut self, letter: String) -> Option<Expr> {
        let mut name = letter;
        if self.eat(&Token::Underscore) {
            name.push('_');
            name.push_str(&self.index()?);
        }
        while self.eat(&Token::Prime) {
            name.push('\'');
        }
        match name.as_str() {
            "e" => return Some(Expr::Const(Const::E)),
            "i" => return Some(Expr::Const(Const::I)),
            _ => {}
        }
        let first = name.chars().next()?;
        let function = matches!(first, 'f' | 'g' | 'h')
            || (first.is_ascii_uppercase()
                && self.toks.get(self.at).is_some_and(|tok| !tok.spaced));
        if !function || self.peek() != Some(&Token::Open('(')) {
            return Some(Expr::Var(name));
        }
        let start = self.at;
        self.at += 1;
        let bars = std::mem::take(&mut self.bars);
        let items = self.deeper(|p| p.items(false));
        self.bars = bars;
        let items = items?;
        self.expect(&Token::Close(')'))?;
        let simple = matches!(items.as_slice(), [Expr::Var(_) | Expr::Num(_)]) || items.len() > 1;
        if simple || first.is_ascii_lowercase() {
            Some(Expr::Apply(name, items))
        } else {
            self.at = start;
            Some(Expr::Var(name))
        }
    }

    /// What stands in an index: letters, digits, signs.
    fn index(&mut self) -> Option<String> {
        let grouped = self.eat(&Token::GroupOpen);
        let mut text = String::new();
        while let Some(token) = self.peek() {
            match token {
                Token::Num(_, Some(digits)) => text.push_str(digits),
                Token::Name(name) | Token::Word(name) => text.push_str(name),
                Token::Plus => text.push('+'),
                Token::Minus => text.push('-'),
                Token::Comma => text.push(','),
                _ => break,
            }
            self.at += 1;
            if !grouped {
                break;
            }
        }
        if grouped {
            self.expect(&Token::GroupClose)?;
        }
        (!text.is_empty()).then_some(text)
    }

    /// A function: its exponent, its base, and its argument, in brackets or up to the next function, sign or operator.
    fn call(&mut self, func: Func) -> Option<Expr> {
        let mut base = None;
        let mut exponent = None;
        if func == Func::Log && self.eat(&Token::Underscore) {
            base = Some(self.argument()?);
        }
        if self.eat(&Token::Caret) {
            exponent = Some(self.argument_or_negative()?);
        }
        let arg = if matches!(self.peek(), Some(Token::Open('('))) {
            self.primary()?
        } else {
            let mut items = vec![self.factor()?];
            while self.starts_factor()
                && !matches!(self.peek(), Some(Token::Func(_) | Token::Open('(')))
            {
                items.push(self.factor()?);
            }
            if items.len() == 1 {
                items.pop()?
            } else {
                Expr::Mul(items)
            }
        };
        let arg = Box::new(arg);
        let minus_one = Expr::Neg(Box::new(Expr::int(1)));
        if exponent.as_ref() == Some(&minus_one)
            && let Some(inverse) = func.inverse()
        {
            return Some(Expr::Call(inverse, arg));
        }
        let value = match base {
            Some(base) => Expr::LogBase(Box::new(base), arg),
            None => Expr::Call(func, arg),
        };
        Some(match exponent {
            Some(exponent) => Expr::Pow(Box::new(value), Box::new(exponent)),
            None => value,
        })
    }

    fn argument_or_negative(&mut self) -> Option<Expr> {
        if self.peek() == Some(&Token::Minus) {
            self.at += 1;
            return Some(negate(self.argument()?));
        }
        self.argument()
    }

    /// After `(` or `[`: one item in brackets of the same kind is a group, anything else a tuple or an interval.
    fn brackets(&mut self, open: char) -> Option<Expr> {
        let bars = std::mem::take(&mut self.bars);
        let items = self.items(false);
        self.bars = bars;
        let mut items = items?;
        let Some(Token::Close(close)) = self.peek() else {
            return None;
        };
        let close = *close;
        self.at += 1;
        if items.len() > 1 {
            return Some(Expr::Tuple(open, items, close));
        }
        let same = matches!((open, close), ('(', ')') | ('[', ']'));
        let item = items.pop()?;
        // A nested row keeps its brackets: [[1, 2]] is a matrix.
        if open == '[' && matches!(item, Expr::Tuple('[', _, ']')) {
            return Some(Expr::Tuple('[', vec![item], ']'));
        }
        same.then_some(item)
    }

    fn matrix(&mut self, name: &str) -> Option<Expr> {
        let mut rows = vec![vec![self.sum()?]];
        loop {
            let token = self.peek()?;
            let ends = *token == Token::End;
            let row = *token == Token::Row;
            if !ends && !row && *token != Token::Cell {
                return None;
            }
            self.at += 1;
            if ends || (row && self.eat(&Token::End)) {
                break;
            }
            let cell = self.sum()?;
            if row {
                rows.push(Vec::new());
            }
            rows.last_mut()?.push(cell);
        }
        let width = rows[0].len();
        if rows.iter().any(|row| row.len() != width) {
            return None;
        }
        // Bars make it a determinant, which is not the matrix.
        let bars = matches!(name, "vmatrix" | "Vmatrix");
        let matrix = Expr::Matrix(rows);
        Some(if bars {
            Expr::Abs(Box::new(matrix))
        } else {
            matrix
        })
    }
}

fn negate(value: Expr) -> Expr {
    match value {
        Expr::Inf(negative) => Expr::Inf(!negative),
        // The sign goes inside, so that a percentage is seen to be one.
        Expr::Percent(inner) => Expr::Percent(Box::new(negate(*inner))),
        Expr::Degree(inner) => Expr::Degree(Box::new(negate(*inner))),
        other => Expr::Neg(Box::new(other)),
    }
}
