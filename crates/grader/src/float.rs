//! Complex `f64` arithmetic in which every value carries a bound of its own error (running error analysis, Higham, Accuracy and
//! Stability of Numerical Algorithms, section 3.3).
//!
//! Two values are equal only if they differ by no more than their bounds: `sqrt(10^12 + 1)` and `10^6` differ by 5e-13 of the
//! value, which a relative tolerance would let through. NaN and infinity are never values. A result that overflows or underflows
//! is unsupported, and so is one that an operand vanishes in: `10^16 + sqrt(2)` is not compared with `10^16` in 53 bits.

use std::f64::consts::{E, PI};

use crate::eval::{Domain, Fail};
use crate::expr::{Const, Func};
use crate::modular::hash;
use crate::number::Number;

/// One rounding, doubled: the bounds need not be tight to the last bit.
const UNIT: f64 = f64::EPSILON;

/// re + i im, within `err` of the true value.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Value {
    pub(crate) re: f64,
    pub(crate) im: f64,
    err: f64,
}

impl Value {
    fn real(re: f64, err: f64) -> Result<Self, Fail> {
        Self { re, im: 0.0, err }.checked()
    }

    fn checked(self) -> Result<Self, Fail> {
        if self.re.is_finite() && self.im.is_finite() && self.err.is_finite() {
            Ok(self)
        } else {
            Err(Fail::Unsupported)
        }
    }

    fn size(self) -> f64 {
        self.re.hypot(self.im)
    }

    /// Do the values agree within their bounds? `None` if the bounds are too wide to say.
    pub(crate) fn agrees(self, other: Self) -> Option<bool> {
        let apart = (self.re - other.re).hypot(self.im - other.im);
        let bound = self.err + other.err;
        if apart > bound {
            return Some(false);
        }
        let size = self.size().max(other.size());
        (bound <= 1e-9 * size || bound <= 1e-12).then_some(true)
    }

    /// The sign of a real value whose bound does not reach zero.
    pub(crate) fn sign(self) -> Option<f64> {
        (self.re.abs() > self.err && self.im.abs() <= self.err).then(|| self.re.signum())
    }

    pub(crate) fn may_be_zero(self) -> bool {
        self.size() <= 2.0 * self.err || self.size() == 0.0
    }

    /// The real value, or `None` if there is an imaginary part.
    fn as_real(self) -> Option<f64> {
        (self.im.abs() <= self.err).then_some(self.re)
    }
}

/// The arithmetic at one point.
#[derive(Debug)]
pub(crate) struct Float {
    /// Which of the [`POINTS`] assignments of the variables.
    point: u64,
    /// Roots and logarithms of negative numbers are undefined: for expressions with variables, which stand for real numbers.
    real: bool,
}

/// Ranges of the variables at each point: all positive, all negative, mixed signs, positive integers.
const POINTS: [(f64, f64, Signs); 9] = [
    (0.1, 0.9, Signs::Positive),
    (1.1, 2.9, Signs::Positive),
    (3.0, 9.0, Signs::Positive),
    (11.0, 40.0, Signs::Positive),
    (0.1, 0.9, Signs::Negative),
    (1.1, 5.0, Signs::Negative),
    (0.3, 4.0, Signs::Mixed),
    (2.0, 8.0, Signs::Integer),
    (5.0, 12.0, Signs::Integer),
];

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Signs {
    Positive,
    Negative,
    Mixed,
    Integer,
}

impl Float {
    pub(crate) const POINTS: u64 = POINTS.len() as u64;

    pub(crate) fn new(point: u64, real: bool) -> Self {
        Self {
            point: point % Self::POINTS,
            real,
        }
    }

    /// The principal logarithm.
    fn ln(&self, a: Value) -> Result<Value, Fail> {
        let size = a.size();
        if size == 0.0 {
            return Err(Fail::Undefined);
        }
        if size <= 2.0 * a.err {
            return Err(Fail::Unsupported);
        }
        let negative = a.im != 0.0 || a.re < 0.0;
        if self.real && negative {
            return Err(Fail::Undefined);
        }
        let (re, im) = match a.as_real() {
            Some(x) if x > 0.0 => (x.ln(), 0.0),
            Some(x) => ((-x).ln(), PI),
            None => (size.ln(), a.im.atan2(a.re)),
        };
        let err = a.err / (size - a.err) + 2.0 * UNIT * (re.abs() + im.abs());
        Value { re, im, err }.checked()
    }

    fn exp(a: Value) -> Result<Value, Fail> {
        let size = a.re.exp();
        let vanishes = a.size() > 0.0 && a.size() < 1e-12;
        if size == 0.0 || a.err > 0.1 || vanishes {
            return Err(Fail::Unsupported);
        }
        let (sin, cos) = a.im.sin_cos();
        Value {
            re: size * cos,
            im: size * sin,
            err: 2.0 * size * (a.err + UNIT * (2.0 + a.im.abs())),
        }
        .checked()
    }
}

impl Domain for Float {
    type Value = Value;

    fn number(&self, number: &Number) -> Result<Value, Fail> {
        // More digits than an f64 tells apart.
        if number.parts().0.len() > 17 {
            return Err(Fail::Unsupported);
        }
        let value = number.float().ok_or(Fail::Unsupported)?;
        let exact = value.fract() == 0.0 && value.abs() < 9e15;
        Value::real(value, if exact { 0.0 } else { UNIT / 2.0 * value.abs() })
    }
    fn int(&self, value: i64) -> Result<Value, Fail> {
        let float = value as f64;
        Value::real(
            float,
            if float.abs() < 9e15 {
                0.0
            } else {
                UNIT * float.abs()
            },
        )
    }
    fn constant(&self, constant: Const) -> Result<Value, Fail> {
        match constant {
            Const::Pi => Value::real(PI, UNIT * 2.0),
            Const::E => Value::real(E, UNIT * 2.0),
            Const::I => Ok(Value {
                re: 0.0,
                im: 1.0,
                err: 0.0,
            }),
        }
    }
    fn variable(&self, name: &str) -> Result<Value, Fail> {
        let (low, high, signs) = POINTS[self.point as usize];
        let bits = hash(name, self.point);
        // 53 bits, in [0, 1).
        let share = (bits >> 11) as f64 / (1_u64 << 53) as f64;
        let size = low + share * (high - low);
        Value::real(
            match signs {
                Signs::Positive => size,
                Signs::Negative => -size,
                Signs::Mixed if bits.is_multiple_of(2) => -size,
                Signs::Mixed => size,
                Signs::Integer => size.round(),
            },
            0.0,
        )
    }
    fn apply(&self, name: &str, args: &[Value]) -> Result<Value, Fail> {
        // A smooth function of its arguments that depends on the name: equal arguments give equal values.
        let mut total = Value::real((hash(name, 77) >> 40) as f64 / 16_777_216.0, 0.0)?;
        for (index, arg) in args.iter().enumerate() {
            let scale = 0.5 + (hash(name, index as u64) >> 40) as f64 / 16_777_216.0;
            let phase = self.add(&self.mul(arg, &Value::real(scale, 0.0)?)?, &total)?;
            total = self.add(&total, &self.call(Func::Sin, &phase)?)?;
        }
        Ok(total)
    }
    fn add(&self, a: &Value, b: &Value) -> Result<Value, Fail> {
        let (re, im) = (a.re + b.re, a.im + b.im);
        let exact = a.err == 0.0 && b.err == 0.0 && integers(&[a.re, a.im, b.re, b.im, re, im]);
        let rounding = if exact {
            0.0
        } else {
            UNIT * (re.abs() + im.abs())
        };
        let vanishes = |part: &Value| !part.may_be_zero() && part.size() < 1000.0 * rounding;
        if vanishes(a) || vanishes(b) {
            return Err(Fail::Unsupported);
        }
        Value {
            re,
            im,
            err: a.err + b.err + rounding,
        }
        .checked()
    }
    fn mul(&self, a: &Value, b: &Value) -> Result<Value, Fail> {
        let re = a.re * b.re - a.im * b.im;
        let im = a.re * b.im + a.im * b.re;
        let size = a.size() * b.size();
        if size < f64::MIN_POSITIVE && a.size() > 0.0 && b.size() > 0.0 {
            return Err(Fail::Unsupported);
        }
        let exact = a.err == 0.0 && b.err == 0.0 && integers(&[a.re, a.im, b.re, b.im, re, im]);
        let rounding = if exact { 0.0 } else { 2.0 * UNIT * size };
        let err = a.size() * b.err + b.size() * a.err + a.err * b.err + rounding;
        Value { re, im, err }.checked()
    }
    fn inv(&self, a: &Value) -> Result<Value, Fail> {
        let size = a.size();
        if size == 0.0 {
            return Err(Fail::Undefined);
        }
        if a.may_be_zero() {
            return Err(Fail::Unsupported);
        }
        let (re, im) = (a.re / size / size, -a.im / size / size);
        let re = if a.im == 0.0 { 1.0 / a.re } else { re };
        let err = (a.err / (size - a.err) + 4.0 * UNIT) / size;
        if 1.0 / size < f64::MIN_POSITIVE {
            return Err(Fail::Unsupported);
        }
        Value { re, im, err }.checked()
    }
    fn powi(&self, a: &Value, exponent: i64) -> Result<Value, Fail> {
        if a.size() == 0.0 && exponent <= 0 {
            return Err(Fail::Undefined);
        }
        let (mut base, mut left) = (*a, exponent.unsigned_abs());
        let mut result = self.int(1)?;
        while left > 0 {
            if left % 2 == 1 {
                result = self.mul(&result, &base)?;
            }
            left /= 2;
            if left > 0 {
                base = self.mul(&base, &base)?;
            }
        }
        if exponent < 0 {
            self.inv(&result)
        } else {
            Ok(result)
        }
    }
    fn root(&self, a: &Value, index: u32) -> Result<Value, Fail> {
        let size = a.size();
        if size == 0.0 && a.err == 0.0 {
            return Ok(*a);
        }
        if size <= 2.0 * a.err {
            return Err(Fail::Unsupported);
        }
        let shrink = |value: f64| a.err / size * value + 4.0 * UNIT * value;
        match a.as_real() {
            Some(x) if x > 0.0 || index % 2 == 1 => {
                let root = match index {
                    2 => x.abs().sqrt(),
                    3 => x.abs().cbrt(),
                    _ => x.abs().powf(1.0 / f64::from(index)),
                };
                Value::real(root.copysign(x), shrink(root))
            }
            Some(_) if self.real => Err(Fail::Undefined),
            Some(x) if index == 2 => {
                let root = (-x).sqrt();
                Value {
                    re: 0.0,
                    im: root,
                    err: shrink(root),
                }
                .checked()
            }
            _ => {
                let ln = self.ln(*a)?;
                Self::exp(self.mul(&ln, &self.inv(&self.int(index.into())?)?)?)
            }
        }
    }
    fn pow(&self, a: &Value, b: &Value) -> Result<Value, Fail> {
        // An integer point: (-1)^n has a real value there.
        if b.err == 0.0 && b.im == 0.0 && b.re.fract() == 0.0 && b.re.abs() < 1e6 {
            return self.powi(a, b.re as i64);
        }
        if a.size() == 0.0 {
            return Err(Fail::Undefined);
        }
        Self::exp(self.mul(&self.ln(*a)?, b)?)
    }
    fn abs(&self, a: &Value) -> Result<Value, Fail> {
        let exact = if a.im == 0.0 { 0.0 } else { 2.0 * UNIT };
        Value::real(a.size(), a.err + exact * a.size())
    }
    fn floor(&self, a: &Value) -> Result<Value, Fail> {
        let x = a.as_real().ok_or(Fail::Unsupported)?;
        let clear = (x - a.err).floor() == (x + a.err).floor() && x.abs() < 9e15;
        if !clear {
            return Err(Fail::Unsupported);
        }
        Value::real(x.floor(), 0.0)
    }
    fn call(&self, func: Func, a: &Value) -> Result<Value, Fail> {
        match func {
            Func::Exp => return Self::exp(*a),
            Func::Ln => return self.ln(*a),
            Func::Log => {
                let ten = self.ln(self.int(10)?)?;
                return self.mul(&self.ln(*a)?, &self.inv(&ten)?);
            }
            _ => {}
        }
        let x = a.as_real().ok_or(Fail::Unsupported)?;
        let vanishes = match func {
            Func::Cos | Func::Cosh | Func::Sec => x != 0.0 && x.abs() < 1e-6,
            Func::Tanh => x.abs() > 15.0,
            Func::Arctan => x.abs() > 1e12,
            _ => false,
        };
        if vanishes {
            return Err(Fail::Unsupported);
        }
        // The derivative of each is at most `slope` near x.
        let (value, slope) = match func {
            Func::Sin => (x.sin(), 1.0),
            Func::Cos => (x.cos(), 1.0),
            Func::Arctan => (x.atan(), 1.0),
            Func::Tanh => (x.tanh(), 1.0),
            Func::Sinh => (x.sinh(), x.cosh() * 1.1),
            Func::Cosh => (x.cosh(), x.cosh() * 1.1),
            Func::Arcsin | Func::Arccos => {
                if x.abs() > 1.0 {
                    return Err(if x.abs() - 1.0 > a.err {
                        Fail::Undefined
                    } else {
                        Fail::Unsupported
                    });
                }
                let value = if func == Func::Arcsin {
                    x.asin()
                } else {
                    x.acos()
                };
                (value, 1.0 / (1.0 - x * x).max(a.err).max(UNIT).sqrt())
            }
            Func::Tan | Func::Sec => {
                let cos = self.inv(&self.call(Func::Cos, a)?)?;
                return if func == Func::Sec {
                    Ok(cos)
                } else {
                    self.mul(&self.call(Func::Sin, a)?, &cos)
                };
            }
            Func::Cot | Func::Csc => {
                let sin = self.inv(&self.call(Func::Sin, a)?)?;
                return if func == Func::Csc {
                    Ok(sin)
                } else {
                    self.mul(&self.call(Func::Cos, a)?, &sin)
                };
            }
            Func::Exp | Func::Ln | Func::Log => return Err(Fail::Unsupported),
        };
        if a.err > 1e-3 {
            return Err(Fail::Unsupported);
        }
        Value::real(value, slope * a.err * 1.01 + 2.0 * UNIT * value.abs())
    }
}

/// All of them integers that `f64` holds exactly.
fn integers(values: &[f64]) -> bool {
    values
        .iter()
        .all(|value| value.fract() == 0.0 && value.abs() < 9e15)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(value: f64) -> Value {
        Value::real(value, 0.0).expect("finite")
    }

    #[test]
    fn the_bound_is_tight_enough_and_wide_enough() {
        let f = Float::new(0, false);
        let two = f.root(&at(2.0), 2).expect("a root");
        let back = f.mul(&two, &two).expect("a square");
        assert_eq!(back.agrees(at(2.0)), Some(true));
        let near = f.root(&at(1e12 + 1.0), 2).expect("a root");
        assert_eq!(near.agrees(at(1e6)), Some(false));
        assert!(f.add(&at(1e16), &two).is_err(), "the smaller one vanishes");
    }

    #[test]
    fn nan_and_infinity_are_no_values() {
        let f = Float::new(0, false);
        assert_eq!(f.inv(&at(0.0)).err(), Some(Fail::Undefined));
        assert!(f.powi(&at(10.0), 400).is_err());
        assert!(f.powi(&at(10.0), -400).is_err());
        assert!(f.call(Func::Exp, &at(1e4)).is_err());
        assert!(f.call(Func::Exp, &at(-1e4)).is_err());
        assert!(f.call(Func::Ln, &at(0.0)).is_err());
        assert!(Value::real(f64::NAN, 0.0).is_err());
    }

    #[test]
    fn tangent_of_a_right_angle_has_no_value() {
        let f = Float::new(0, false);
        let right = f
            .mul(&f.constant(Const::Pi).expect("pi"), &at(0.5))
            .expect("half");
        assert!(f.call(Func::Tan, &right).is_err());
    }
}
