//! From tokens to a tree: recursive descent with a bounded depth. What does not fit the grammar is `None`, and the answer is
//! then plain text. The arithmetic is in `term`.
//!
//! ```text
//! list     = item { ("," | ";" | "and" | "or") item }
//! item     = sets { (relation | ≈) sets }
//! sets     = ratio { (∪ | ∩ | \) ratio }
//! ratio    = measured { ":" measured }
//! measured = [currency] sum [unit] | words
//! ```

use crate::expr::{Expr, MAX_DEPTH, Rel};
use crate::text;
use crate::token::{Commas, Tok, Token, tokens};
use crate::unit;
use crate::words;

/// Most operands that are read for one answer.
const MAX_WORK: u32 = 10_000;

/// A parsed answer, and whether a comma between digits could also have separated two numbers.
pub(crate) fn parse(text: &str, commas: Commas) -> Option<(Expr, bool)> {
    let (toks, grouped) = tokens(text, commas)?;
    let mut parser = Parser {
        toks: &toks,
        at: 0,
        depth: 0,
        bars: 0,
        minus_first: false,
        saw_sign: false,
        work: MAX_WORK,
    };
    let mut items = parser.items(true)?;
    if parser.at != toks.len() {
        return None;
    }
    let expr = if items.len() == 1 {
        items.pop()?
    } else {
        Expr::List(items)
    };
    Some((expr, grouped))
}

pub(crate) struct Parser<'a> {
    pub(crate) toks: &'a [Tok],
    pub(crate) at: usize,
    pub(crate) depth: usize,
    /// Open absolute values: inside, a bar closes.
    pub(crate) bars: usize,
    /// Which sign `±` stands for in this reading, and whether there was one.
    pub(crate) minus_first: bool,
    pub(crate) saw_sign: bool,
    pub(crate) work: u32,
}

impl Parser<'_> {
    pub(crate) fn peek(&self) -> Option<&Token> {
        self.toks.get(self.at).map(|tok| &tok.token)
    }

    pub(crate) fn after(&self, ahead: usize) -> Option<&Token> {
        self.toks.get(self.at + ahead).map(|tok| &tok.token)
    }

    pub(crate) fn eat(&mut self, token: &Token) -> bool {
        let found = self.peek() == Some(token);
        self.at += usize::from(found);
        found
    }

    pub(crate) fn expect(&mut self, token: &Token) -> Option<()> {
        self.eat(token).then_some(())
    }

    pub(crate) fn deeper<T>(&mut self, inner: impl FnOnce(&mut Self) -> Option<T>) -> Option<T> {
        if self.depth >= MAX_DEPTH {
            return None;
        }
        self.depth += 1;
        let result = inner(self);
        self.depth -= 1;
        result
    }

    /// Items up to something that is no separator. `split`: an item with ± is two items.
    pub(crate) fn items(&mut self, split: bool) -> Option<Vec<Expr>> {
        let mut items = Vec::new();
        loop {
            let start = self.at;
            let outer = std::mem::replace(&mut self.saw_sign, false);
            let item = self.deeper(Self::item)?;
            items.push(item);
            if split && self.saw_sign {
                self.at = start;
                let before = std::mem::replace(&mut self.minus_first, true);
                let second = self.deeper(Self::item);
                self.minus_first = before;
                items.push(second?);
                self.saw_sign = outer;
            } else {
                self.saw_sign |= outer;
            }
            let mut separated = false;
            // ", and" is one separator.
            while matches!(self.peek(), Some(Token::Comma | Token::And | Token::Or)) {
                self.at += 1;
                separated = true;
            }
            if !separated {
                return Some(items);
            }
        }
    }

    fn item(&mut self) -> Option<Expr> {
        if self.eat(&Token::Rel(Rel::Eq)) || self.eat(&Token::Approx) {
            // "= 5"
            return self.sets();
        }
        let first = self.sets()?;
        let named = matches!(first, Expr::Var(_) | Expr::Apply(..) | Expr::Text(_));
        let mut rest = Vec::new();
        loop {
            match self.peek() {
                Some(&Token::Rel(rel)) => {
                    self.at += 1;
                    rest.push((rel, self.sets()?));
                }
                Some(Token::Approx) => {
                    self.at += 1;
                    let rounded = self.sets()?;
                    // "x = 1/3 ≈ 0.333" says 1/3; "x ≈ 0.333" has nothing better.
                    if named && rest.is_empty() {
                        rest.push((Rel::Eq, rounded));
                    }
                }
                _ => break,
            }
        }
        if rest.is_empty() {
            Some(first)
        } else {
            Some(Expr::Relation(Box::new(first), rest))
        }
    }

    fn sets(&mut self) -> Option<Expr> {
        let first = self.ratio()?;
        let op = match self.peek() {
            Some(op @ (Token::Cup | Token::Cap | Token::Setminus)) => op.clone(),
            _ => return Some(first),
        };
        let mut items = vec![first];
        while self.eat(&op) {
            items.push(self.ratio()?);
        }
        match op {
            Token::Cup => Some(Expr::Union(items)),
            Token::Cap => Some(Expr::Intersection(items)),
            _ => {
                let [a, b]: [Expr; 2] = items.try_into().ok()?;
                Some(Expr::Without(Box::new(a), Box::new(b)))
            }
        }
    }

    fn ratio(&mut self) -> Option<Expr> {
        let first = self.measured()?;
        if self.peek() != Some(&Token::Colon) {
            return Some(first);
        }
        let mut items = vec![first];
        while self.eat(&Token::Colon) {
            items.push(self.measured()?);
        }
        Some(Expr::Ratio(items))
    }

    fn measured(&mut self) -> Option<Expr> {
        while let (Some(Token::Word(word)), Some(_)) = (self.peek(), self.after(1)) {
            if !words::is_filler(&word.to_lowercase()) {
                break;
            }
            self.at += 1;
        }
        let negative = self.peek() == Some(&Token::Minus) && self.is_currency(1);
        self.at += usize::from(negative);
        let money = if self.is_currency(0) {
            self.at += 1;
            match &self.toks.get(self.at.checked_sub(1)?)?.token {
                Token::Word(word) => Some(unit::canonical(word)),
                _ => Some("dollar".to_owned()),
            }
        } else {
            None
        };
        if money.is_none() && self.is_text() {
            return Some(self.text());
        }
        let mut value = self.sum()?;
        if let Some(zeros) = self.multiplier() {
            self.at += 1;
            value = Expr::Mul(vec![value, Expr::int(zeros)]);
        }
        if negative {
            value = Expr::Neg(Box::new(value));
        }
        let unit = self.unit(matches!(value, Expr::Degree(_)))?;
        match (money, unit) {
            (Some(money), None) => Some(Expr::Unit(Box::new(value), money)),
            (Some(money), Some(unit)) if unit == money => Some(Expr::Unit(Box::new(value), unit)),
            (Some(_), Some(_)) => None,
            (None, Some(unit)) => Some(Expr::Unit(Box::new(value), unit)),
            (None, None) => Some(value),
        }
    }

    fn is_currency(&self, ahead: usize) -> bool {
        match self.after(ahead) {
            Some(Token::Dollar) => true,
            Some(Token::Word(word)) => {
                matches!(
                    word.as_str(),
                    "euro" | "pound" | "yen" | "rupee" | "USD" | "EUR"
                ) && matches!(self.after(ahead + 1), Some(Token::Num(..)))
            }
            _ => false,
        }
    }

    fn multiplier(&self) -> Option<u32> {
        match self.peek() {
            Some(Token::Word(word)) => words::multiplier(&word.to_lowercase()),
            _ => None,
        }
    }

    pub(crate) fn number_word(&self) -> Option<u32> {
        match self.peek() {
            Some(Token::Word(word)) => words::number_word(&word.to_lowercase()),
            _ => None,
        }
    }

    /// Does plain text begin here?
    fn is_text(&self) -> bool {
        match (self.peek(), self.after(1)) {
            (Some(Token::Word(word)), _) => words::number_word(&word.to_lowercase()).is_none(),
            (Some(Token::Name(name)), Some(Token::Word(_))) => matches!(name.as_str(), "a" | "A"),
            _ => false,
        }
    }

    /// Words, and numbers and letters among them, up to anything else. Articles are left out.
    fn text(&mut self) -> Expr {
        let mut said: Vec<String> = Vec::new();
        while let Some(token) = self.peek() {
            match token {
                Token::Word(word) => said.push(word.to_lowercase()),
                Token::Name(name) => said.push(name.to_lowercase()),
                Token::Num(_, Some(digits)) => said.push(digits.clone()),
                _ => break,
            }
            self.at += 1;
        }
        Expr::Text(text::without_articles(&said))
    }

    /// The unit after a number; `Some(None)` if there is none, `None` if what follows cannot be one.
    #[expect(
        clippy::option_option,
        reason = "absent and impossible are different answers"
    )]
    fn unit(&mut self, degrees: bool) -> Option<Option<String>> {
        let mut parts: Vec<String> = Vec::new();
        let mut count = 0;
        if let (true, Some(Token::Name(scale))) = (degrees, self.peek()) {
            if !matches!(scale.as_str(), "C" | "F") {
                return None;
            }
            parts.push(format!("degree {scale}"));
            self.at += 1;
        }
        loop {
            match (self.peek(), self.after(1)) {
                (Some(Token::Word(word)), _) => {
                    count += 1;
                    if !unit::is_unit_word(word) || count > unit::MAX_WORDS {
                        return None;
                    }
                    parts.push(unit::canonical(word));
                    self.at += 1;
                }
                (Some(Token::Caret), _) if !parts.is_empty() => {
                    self.at += 1;
                    parts.push(format!("^{}", self.plain_integer()?));
                }
                (Some(Token::Slash), Some(Token::Word(name) | Token::Name(name)))
                    if !parts.is_empty() =>
                {
                    parts.push("/".to_owned());
                    parts.push(unit::canonical(name));
                    self.at += 2;
                }
                _ => break,
            }
        }
        Some((!parts.is_empty()).then(|| unit::join(&parts)))
    }

    /// An integer with or without a group around it.
    pub(crate) fn plain_integer(&mut self) -> Option<String> {
        let grouped = self.eat(&Token::GroupOpen);
        let minus = self.eat(&Token::Minus);
        let digits = match self.peek() {
            Some(Token::Num(_, Some(digits))) => digits.clone(),
            _ => {
                let value = self.number_word()?;
                value.to_string()
            }
        };
        self.at += 1;
        if grouped {
            self.expect(&Token::GroupClose)?;
        }
        Some(if minus { format!("-{digits}") } else { digits })
    }
}
