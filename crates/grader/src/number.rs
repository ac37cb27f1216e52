//! Decimal literals and exact rationals in checked `i128`.
//!
//! A literal keeps its digits, so that a number of any length can also be read modulo a prime. Where a rational does not fit,
//! the answer is `None`, never a rounded or wrapped value.

/// Longest literal and largest power of ten that are read as a number.
const MAX_DIGITS: usize = 1000;
const MAX_EXPONENT: i32 = 1000;

/// The powers of ten that an `f64` holds exactly.
const POWERS_OF_TEN: [f64; 23] = [
    1e0, 1e1, 1e2, 1e3, 1e4, 1e5, 1e6, 1e7, 1e8, 1e9, 1e10, 1e11, 1e12, 1e13, 1e14, 1e15, 1e16,
    1e17, 1e18, 1e19, 1e20, 1e21, 1e22,
];

/// A decimal literal: digits * 10^exponent, not negative. Without leading zeros and without trailing zeros, so that equal
/// literals are equal values.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Number {
    digits: String,
    exponent: i32,
}

impl Number {
    /// From the digits before and after the point and a power of ten. `None` if there is no digit or it is too long.
    pub(crate) fn new(whole: &str, fraction: &str, exponent: i32) -> Option<Self> {
        let len = whole.len() + fraction.len();
        if len == 0 || len > MAX_DIGITS || exponent.abs() > MAX_EXPONENT {
            return None;
        }
        let mut digits = String::with_capacity(len);
        digits.push_str(whole.trim_start_matches('0'));
        digits.push_str(match digits.is_empty() {
            true => fraction.trim_start_matches('0'),
            false => fraction,
        });
        let significant = digits.len();
        digits.truncate(digits.trim_end_matches('0').len());
        if digits.is_empty() {
            return Some(Self::int(0));
        }
        let dropped = (significant - digits.len()) as i32;
        Some(Self {
            digits,
            exponent: exponent - fraction.len() as i32 + dropped,
        })
    }

    pub(crate) fn int(value: u32) -> Self {
        let all = value.to_string();
        let digits = all.trim_end_matches('0');
        Self {
            digits: digits.to_owned(),
            exponent: if digits.is_empty() {
                0
            } else {
                (all.len() - digits.len()) as i32
            },
        }
    }

    /// The digits of the integer part of the value and the power of ten, for reading modulo a prime.
    pub(crate) fn parts(&self) -> (&str, i32) {
        (&self.digits, self.exponent)
    }

    pub(crate) fn exact(&self) -> Option<Rational> {
        let mut num: i128 = 0;
        for digit in self.digits.bytes() {
            num = num.checked_mul(10)?.checked_add(i128::from(digit - b'0'))?;
        }
        let scale = 10_i128.checked_pow(self.exponent.unsigned_abs())?;
        if self.exponent >= 0 {
            Rational::new(num.checked_mul(scale)?, 1)
        } else {
            Rational::new(num, scale)
        }
    }

    /// The nearest `f64`; `None` if there is none.
    pub(crate) fn float(&self) -> Option<f64> {
        if self.digits.is_empty() {
            return Some(0.0);
        }
        // Both are exact in an f64, so one operation rounds as the parser does.
        let power = usize::try_from(self.exponent.unsigned_abs()).ok();
        if self.digits.len() <= 15
            && let Some(power) = power.and_then(|power| POWERS_OF_TEN.get(power))
        {
            let digits: f64 = self.digits.parse::<u64>().ok()? as f64;
            return Some(match self.exponent >= 0 {
                true => digits * power,
                false => digits / power,
            });
        }
        let text = format!("{}e{}", self.digits, self.exponent);
        text.parse().ok().filter(|value: &f64| value.is_normal())
    }
}

/// An exact rational in lowest terms with a positive denominator.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Rational {
    num: i128,
    den: i128,
}

impl Rational {
    /// `None` if the denominator is zero or the value does not fit.
    pub(crate) fn new(num: i128, den: i128) -> Option<Self> {
        if den == 0 || num == i128::MIN || den == i128::MIN {
            return None;
        }
        if den == 1 {
            return Some(Self { num, den });
        }
        let divisor = gcd(num.unsigned_abs(), den.unsigned_abs()) as i128;
        let sign = den.signum();
        Some(Self {
            num: sign * num / divisor,
            den: sign * den / divisor,
        })
    }

    pub(crate) fn int(value: i128) -> Option<Self> {
        Self::new(value, 1)
    }

    pub(crate) fn is_zero(self) -> bool {
        self.num == 0
    }

    /// The value if it is an integer.
    pub(crate) fn as_int(self) -> Option<i128> {
        (self.den == 1).then_some(self.num)
    }

    pub(crate) fn as_fraction(self) -> (i128, i128) {
        (self.num, self.den)
    }

    pub(crate) fn abs(self) -> Self {
        // Never i128::MIN: see `new`.
        Self {
            num: self.num.abs(),
            den: self.den,
        }
    }

    pub(crate) fn floor(self) -> Option<Self> {
        Self::int(self.num.div_euclid(self.den))
    }

    pub(crate) fn add(self, other: Self) -> Option<Self> {
        let left = self.num.checked_mul(other.den)?;
        let right = other.num.checked_mul(self.den)?;
        Self::new(left.checked_add(right)?, self.den.checked_mul(other.den)?)
    }

    pub(crate) fn mul(self, other: Self) -> Option<Self> {
        // Cross-reduced first: (a/b)(c/d) with gcd(a,d) and gcd(c,b) taken out fits whenever the result does.
        let a = Self::new(self.num, other.den)?;
        let b = Self::new(other.num, self.den)?;
        Self::new(a.num.checked_mul(b.num)?, a.den.checked_mul(b.den)?)
    }

    pub(crate) fn inv(self) -> Option<Self> {
        Self::new(self.den, self.num)
    }

    pub(crate) fn powi(self, exponent: i64) -> Option<Self> {
        let base = if exponent < 0 { self.inv()? } else { self };
        let exponent = exponent.unsigned_abs();
        if base.den == 1 && base.num.abs() <= 1 {
            let odd = exponent % 2 == 1;
            let one = if base.num == -1 && !odd { 1 } else { base.num };
            return Self::int(if exponent == 0 { 1 } else { one });
        }
        let exponent = u32::try_from(exponent).ok()?;
        Self::new(
            base.num.checked_pow(exponent)?,
            base.den.checked_pow(exponent)?,
        )
    }

    /// The exact root; for a negative value the real one, if the index is odd. `None` if it is not rational.
    pub(crate) fn root(self, index: u32) -> Option<Self> {
        if self.num < 0 && index.is_multiple_of(2) {
            return None;
        }
        let num = int_root(self.num.unsigned_abs(), index)? as i128;
        let den = int_root(self.den.unsigned_abs(), index)? as i128;
        Self::new(self.num.signum() * num, den)
    }
}

fn gcd(mut a: u128, mut b: u128) -> u128 {
    while b != 0 {
        // A division of 64 bits is one instruction.
        if let (Ok(mut a), Ok(mut b)) = (u64::try_from(a), u64::try_from(b)) {
            while b != 0 {
                (a, b) = (b, a % b);
            }
            return a.into();
        }
        (a, b) = (b, a % b);
    }
    a.max(1)
}

/// The exact integer root of that index, or `None`.
fn int_root(value: u128, index: u32) -> Option<u128> {
    if value <= 1 || index == 1 {
        return Some(value);
    }
    if index == 0 || index >= 128 {
        return None;
    }
    // The float is off by at most a few; the integers around it are tried exactly.
    let guess = (value as f64).powf(1.0 / f64::from(index)).round() as u128;
    (guess.saturating_sub(2)..=guess.saturating_add(2))
        .find(|candidate| candidate.checked_pow(index) == Some(value))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn literals_are_exact() {
        let half = Number::new("0", "50", 0).and_then(|n| n.exact());
        assert_eq!(half, Rational::new(1, 2));
        let big = Number::new("12345678901234567890123456789012345678901", "", 0);
        assert!(big.is_some_and(|n| n.exact().is_none()));
        assert_eq!(Number::new("1200", "", 0), Some(Number::int(1200)));
        assert_eq!(Number::new("", "", 0), None);
        assert_eq!(Number::int(0).exact(), Rational::int(0));
        for (whole, fraction) in [("000", "000"), ("", "0"), ("0", "")] {
            assert_eq!(Number::new(whole, fraction, 5), Some(Number::int(0)));
        }
        assert_eq!(Number::new("00", "0120", 3), Some(Number::int(12)));
    }

    /// The short way to a float gives the bits of the parser.
    #[test]
    fn floats_are_rounded_once() {
        for digits in [
            "1",
            "3",
            "12345",
            "999999999999999",
            "123456789012345",
            "1234567890123456789",
        ] {
            for exponent in (-30..=30).chain([-308, -320, 300, 308, 400]) {
                let number = Number::new(digits, "", exponent).expect("a number");
                let want: f64 = format!("{digits}e{exponent}").parse().expect("a float");
                let want = Some(want).filter(|x| x.is_normal());
                assert_eq!(number.float(), want, "{digits}e{exponent}");
            }
        }
    }

    #[test]
    fn common_divisors_of_any_size() {
        let big = u128::from(u64::MAX) + 1;
        for (a, b, want) in [
            (0, 0, 1),
            (0, 6, 6),
            (6, 0, 6),
            (12, 18, 6),
            (big * 12, big * 18, big * 6),
            (big, 6, 2),
        ] {
            assert_eq!(gcd(a, b), want, "{a} and {b}");
        }
    }

    #[test]
    fn overflow_is_none() {
        let big = Rational::int(i128::MAX).expect("fits");
        assert_eq!(big.add(big), None);
        assert_eq!(big.mul(big), None);
        assert_eq!(big.powi(2), None);
        assert_eq!(big.powi(1), Some(big));
        assert_eq!(Rational::new(i128::MIN, 1), None);
        assert_eq!(Rational::new(1, 0), None);
    }

    #[test]
    fn roots_are_exact_or_absent() {
        let r = |num, den| Rational::new(num, den).expect("a rational");
        assert_eq!(r(16, 9).root(2), Some(r(4, 3)));
        assert_eq!(r(-8, 1).root(3), Some(r(-2, 1)));
        assert_eq!(r(-8, 1).root(2), None);
        assert_eq!(r(2, 1).root(2), None);
        let square = 1_000_000_007_i128 * 1_000_000_007;
        assert_eq!(r(square, 1).root(2), Some(r(1_000_000_007, 1)));
        assert_eq!(r(square + 1, 1).root(2), None);
    }
}
