//! Plain decimals, the most frequent answers: compared by their digits, without a parser.

/// A decimal such as `-12.50`: its sign, its digits before the point, and those behind it without the zeros at their end.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Decimal<'a> {
    negative: bool,
    whole: &'a str,
    fraction: &'a str,
}

/// Most digits: all arithmetic of the general path is exact for these.
const MAX_DIGITS: usize = 18;

impl<'a> Decimal<'a> {
    /// Reads an answer that is nothing else. A zero, whose sign says nothing, and zeros at the beginning are left to the general path.
    pub(crate) fn read(text: &'a str) -> Option<Self> {
        let (negative, rest) = match text.strip_prefix('-') {
            Some(rest) => (true, rest),
            None => (false, text),
        };
        let bytes = rest.as_bytes();
        if bytes.len() > MAX_DIGITS {
            return None;
        }
        let digits = |bytes: &[u8]| bytes.iter().take_while(|b| b.is_ascii_digit()).count();
        let len = digits(bytes);
        let (whole, rest) = rest.split_at(len);
        let fraction = match rest.strip_prefix('.') {
            None if rest.is_empty() => "",
            Some(fraction)
                if !fraction.is_empty() && digits(fraction.as_bytes()) == fraction.len() =>
            {
                fraction.trim_end_matches('0')
            }
            _ => return None,
        };
        let plain = match whole.as_bytes() {
            [b'0'] => !fraction.is_empty(),
            [first, ..] => *first != b'0',
            [] => false,
        };
        plain.then_some(Self {
            negative,
            whole,
            fraction,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::compare::{equal, parsed_equal};

    #[test]
    fn what_is_read_and_what_is_not() {
        let read = |text| Decimal::read(text).map(|d| (d.negative, d.whole, d.fraction));
        assert_eq!(read("12"), Some((false, "12", "")));
        assert_eq!(read("-12.500"), Some((true, "12", "5")));
        assert_eq!(read("7.0"), Some((false, "7", "")));
        assert_eq!(read("0.25"), Some((false, "0", "25")));
        for text in [
            "",
            "-",
            "0",
            "-0",
            "0.0",
            "042",
            ".5",
            "5.",
            "1.2.3",
            "1e5",
            "1,234",
            "+3",
            "--3",
            "12a",
            "1 2",
            "١",
            "1234567890123456789",
        ] {
            assert_eq!(read(text), None, "{text:?}");
        }
    }

    #[test]
    fn the_short_way_judges_as_the_long_one() {
        let numbers: Vec<String> = ["1", "12", "7", "70", "0", "100", "123456789012345678"]
            .iter()
            .flat_map(|whole| {
                ["", ".5", ".50", ".05", ".0", ".250", ".333"].map(|f| format!("{whole}{f}"))
            })
            .flat_map(|x| [format!("-{x}"), x])
            .collect();
        for a in &numbers {
            for b in &numbers {
                assert_eq!(equal(a, b), parsed_equal(a, b), "{a} and {b}");
            }
        }
    }
}
