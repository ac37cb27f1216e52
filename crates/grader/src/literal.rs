//! Literals: thousands, decimals, powers of ten, repeating decimals, signs of Unicode for fractions and exponents.

use crate::number::Number;
use crate::token::{Commas, Lexer, Token};
use crate::words;

impl Lexer {
    pub(crate) fn fraction(&mut self, top: u32, bottom: u32) {
        self.push(Token::Frac);
        for digits in [top, bottom] {
            self.push(Token::Num(Number::int(digits), Some(digits.to_string())));
        }
    }

    /// `x²` is `x^{2}`, `x⁻¹⁰` is `x^{-10}`.
    pub(crate) fn superscript(&mut self, first: char) -> Option<()> {
        self.push(Token::Caret);
        self.push(Token::GroupOpen);
        let mut run = String::from(first);
        self.at += 1;
        while let Some(more) = self.peek(0).and_then(words::superscript) {
            run.push(more);
            self.at += 1;
        }
        let digits = match run.strip_prefix('-') {
            Some(digits) => {
                self.push(Token::Minus);
                digits
            }
            None => &run,
        };
        self.push(Token::Num(
            Number::new(digits, "", 0)?,
            Some(digits.to_owned()),
        ));
        self.push(Token::GroupClose);
        Some(())
    }

    fn digits(&mut self) -> String {
        let start = self.at;
        while self.peek(0).is_some_and(|c| c.is_ascii_digit()) {
            self.at += 1;
        }
        self.chars[start..self.at].iter().collect()
    }

    /// A literal: thousands in groups of three (`1,234`, `1{,}234`, `11,\!111`, `1\,234`, `1 234`), a point, a power of ten.
    pub(crate) fn number(&mut self) -> Option<()> {
        let mut whole = self.digits();
        // An index or exponent ends at its digits: "\log_2 128" has no 2128.
        let hangs = matches!(
            self.out.last().map(|tok| &tok.token),
            Some(Token::Underscore | Token::Caret)
        );
        if (1..=3).contains(&whole.len()) && !whole.starts_with('0') && !hangs {
            while let Some((skip, comma)) = self.separator() {
                self.at += skip;
                whole.push_str(&self.digits());
                self.grouped |= comma;
            }
        }
        let point = self.peek(0) == Some('.') && self.peek(1).is_some_and(|c| c.is_ascii_digit());
        let mut fraction = String::new();
        if point {
            self.at += 1;
            fraction = self.digits();
        } else if self.peek(0) == Some('.') && self.peek(1) != Some('.') {
            // "5." is 5.
            self.at += 1;
        }
        let dotted = point
            || self
                .at
                .checked_sub(1)
                .is_some_and(|at| self.chars[at] == '.');
        if dotted && let Some(repeating) = self.overline() {
            return self.repeating(&whole, &fraction, &repeating);
        }
        let exponent = self.exponent(point);
        let plain = (!point && exponent == 0).then(|| whole.clone());
        self.push(Token::Num(Number::new(&whole, &fraction, exponent)?, plain));
        Some(())
    }

    /// The digits of `\overline{...}`, if they stand here.
    fn overline(&mut self) -> Option<String> {
        const SIGN: &str = "\\overline{";
        let rest = &self.chars[self.at..];
        if !rest.iter().take(SIGN.len()).copied().eq(SIGN.chars()) {
            return None;
        }
        let rest = &rest[SIGN.len()..];
        let digits: String = rest.iter().take_while(|c| c.is_ascii_digit()).collect();
        if digits.is_empty() || rest.get(digits.len()) != Some(&'}') {
            return None;
        }
        self.at += SIGN.len() + digits.len() + 1;
        Some(digits)
    }

    /// 0.1666... is 0.1 + 6/90.
    fn repeating(&mut self, whole: &str, fraction: &str, digits: &str) -> Option<()> {
        let below = "9".repeat(digits.len()) + &"0".repeat(fraction.len());
        self.push(Token::GroupOpen);
        self.push(Token::Num(Number::new(whole, fraction, 0)?, None));
        self.push(Token::Plus);
        self.push(Token::Num(Number::new(digits, "", 0)?, None));
        self.push(Token::Slash);
        self.push(Token::Num(Number::new(&below, "", 0)?, None));
        self.push(Token::GroupClose);
        Some(())
    }

    /// What separates thousands here: how many characters, and whether it is a bare comma. Exactly three digits follow.
    fn separator(&self) -> Option<(usize, bool)> {
        let rest = &self.chars[self.at..];
        let starts = |text: &str| {
            rest.len() >= text.len() && text.chars().zip(rest).all(|(want, got)| want == *got)
        };
        let skip = if let Some(long) = [",\\! ", ",\\!", "{,}", "\\,", "{\\,}", "\\ "]
            .iter()
            .find(|s| starts(s))
        {
            long.len()
        } else {
            match rest.first()? {
                ',' => 1,
                ' ' | '\u{a0}' | '\u{202f}' | '\u{2009}' => 1,
                _ => return None,
            }
        };
        let bare = skip == 1 && rest[0] == ',';
        if bare && (self.commas == Commas::Split || self.depth > 0) {
            return None;
        }
        let digits = rest[skip..].iter().take_while(|c| c.is_ascii_digit());
        let three = digits.count() == 3;
        // "1 234" but not "1 234/5", which is a mixed number.
        let mixed = rest[0] != ',' && rest.get(skip + 3) == Some(&'/');
        (three && !mixed).then_some((skip, bare))
    }

    /// `1e9`, `2.5E-3`. A bare `2e-1` may be 2e - 1: the sign needs a point before it or two digits after it.
    pub(crate) fn exponent(&mut self, point: bool) -> i32 {
        if !matches!(self.peek(0), Some('e' | 'E')) {
            return 0;
        }
        let signed = matches!(self.peek(1), Some('+' | '-'));
        let start = 1 + usize::from(signed);
        let digits: String = self.chars[self.at + start..]
            .iter()
            .take(4)
            .take_while(|c| c.is_ascii_digit())
            .collect();
        let follows = self.peek(start + digits.len());
        let sure = !signed || point || digits.len() >= 2;
        if digits.is_empty() || !sure || follows.is_some_and(|c| c.is_alphanumeric() || c == '.') {
            return 0;
        }
        let negative = self.peek(1) == Some('-');
        self.at += start + digits.len();
        let value = digits.parse().unwrap_or(i32::MAX);
        if negative { -value } else { value }
    }
}
