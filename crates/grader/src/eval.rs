//! One walk over a scalar for every kind of arithmetic: exact rationals here, residues in `modular`, floats in `float`.
//!
//! Each visited node and each factor of a factorial costs one step of [`Steps`]; this is what bounds a comparison, in place of
//! a timeout.

use crate::expr::{Const, Expr, Func};
use crate::number::{Number, Rational};

/// Why a scalar has no value in some arithmetic.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fail {
    /// There is no such value: a division by zero, the logarithm of zero.
    Undefined,
    /// This arithmetic cannot say: a root in the rationals, a number that does not fit, an unfinished step budget.
    Unsupported,
}

/// Steps left for one comparison.
#[derive(Debug)]
pub(crate) struct Steps(u32);

impl Steps {
    pub(crate) fn new() -> Self {
        Self(200_000)
    }

    pub(crate) fn take(&mut self, count: u32) -> Result<(), Fail> {
        self.0 = self.0.checked_sub(count).ok_or(Fail::Unsupported)?;
        Ok(())
    }
}

/// An arithmetic.
pub(crate) trait Domain {
    type Value: Clone;

    fn number(&self, number: &Number) -> Result<Self::Value, Fail>;
    fn int(&self, value: i64) -> Result<Self::Value, Fail>;
    fn constant(&self, constant: Const) -> Result<Self::Value, Fail>;
    fn variable(&self, name: &str) -> Result<Self::Value, Fail>;
    fn apply(&self, name: &str, args: &[Self::Value]) -> Result<Self::Value, Fail>;
    fn add(&self, a: &Self::Value, b: &Self::Value) -> Result<Self::Value, Fail>;
    fn mul(&self, a: &Self::Value, b: &Self::Value) -> Result<Self::Value, Fail>;
    fn inv(&self, a: &Self::Value) -> Result<Self::Value, Fail>;
    fn powi(&self, a: &Self::Value, exponent: i64) -> Result<Self::Value, Fail>;
    /// A root of a fixed index >= 2; of a negative real number and an odd index, the real one.
    fn root(&self, a: &Self::Value, index: u32) -> Result<Self::Value, Fail>;
    /// A power that is neither a fixed integer nor a fixed fraction.
    fn pow(&self, a: &Self::Value, b: &Self::Value) -> Result<Self::Value, Fail>;
    fn abs(&self, a: &Self::Value) -> Result<Self::Value, Fail>;
    fn floor(&self, a: &Self::Value) -> Result<Self::Value, Fail>;
    fn call(&self, func: Func, a: &Self::Value) -> Result<Self::Value, Fail>;
}

/// Largest index of a root, numerator of an exponent's fraction, and argument of a factorial.
const MAX_INDEX: i128 = 100;
const MAX_FACTORIAL: i128 = 10_000;

/// The value of a scalar.
pub(crate) fn eval<D: Domain>(
    domain: &D,
    expr: &Expr,
    steps: &mut Steps,
) -> Result<D::Value, Fail> {
    steps.take(1)?;
    match expr {
        Expr::Num(number) => domain.number(number),
        Expr::Const(constant) => domain.constant(*constant),
        Expr::Var(name) => domain.variable(name),
        Expr::Apply(name, args) => {
            let args: Result<Vec<_>, _> = args.iter().map(|a| eval(domain, a, steps)).collect();
            domain.apply(name, &args?)
        }
        Expr::Add(items) => fold(domain, items, steps, 0, D::add),
        Expr::Mul(items) => fold(domain, items, steps, 1, D::mul),
        Expr::Neg(a) => {
            let a = eval(domain, a, steps)?;
            domain.mul(&domain.int(-1)?, &a)
        }
        Expr::Inv(a) => domain.inv(&eval(domain, a, steps)?),
        Expr::Pow(base, exponent) => power(domain, base, exponent, steps),
        Expr::Root(a, index) => {
            let index = exact(index, steps)?.as_int().ok_or(Fail::Unsupported)?;
            if !(2..=MAX_INDEX).contains(&index) {
                return Err(Fail::Unsupported);
            }
            domain.root(&eval(domain, a, steps)?, index as u32)
        }
        Expr::Factorial(a) => {
            let n = exact(a, steps)?.as_int().ok_or(Fail::Unsupported)?;
            product(domain, 2, n, steps)
        }
        Expr::Binom(n, k) => {
            let n = exact(n, steps)?.as_int().ok_or(Fail::Unsupported)?;
            let k = exact(k, steps)?.as_int().ok_or(Fail::Unsupported)?;
            if k < 0 || n < k {
                return Err(Fail::Unsupported);
            }
            let k = k.min(n - k);
            let top = product(domain, n - k + 1, n, steps)?;
            let bottom = product(domain, 2, k, steps)?;
            domain.mul(&top, &domain.inv(&bottom)?)
        }
        Expr::Abs(a) => domain.abs(&eval(domain, a, steps)?),
        Expr::Floor(a) => domain.floor(&eval(domain, a, steps)?),
        Expr::Ceil(a) => {
            let minus = domain.int(-1)?;
            let a = domain.mul(&minus, &eval(domain, a, steps)?)?;
            domain.mul(&minus, &domain.floor(&a)?)
        }
        Expr::Call(func, a) => domain.call(*func, &eval(domain, a, steps)?),
        Expr::LogBase(base, a) => {
            let base = domain.call(Func::Ln, &eval(domain, base, steps)?)?;
            let a = domain.call(Func::Ln, &eval(domain, a, steps)?)?;
            domain.mul(&a, &domain.inv(&base)?)
        }
        Expr::Percent(a) => {
            let a = eval(domain, a, steps)?;
            domain.mul(&a, &domain.inv(&domain.int(100)?)?)
        }
        Expr::Degree(a) => {
            let a = eval(domain, a, steps)?;
            let radian = domain.mul(
                &domain.constant(Const::Pi)?,
                &domain.inv(&domain.int(180)?)?,
            )?;
            domain.mul(&a, &radian)
        }
        _ => Err(Fail::Unsupported),
    }
}

/// Addition or multiplication of a domain.
type Operation<D> =
    fn(&D, &<D as Domain>::Value, &<D as Domain>::Value) -> Result<<D as Domain>::Value, Fail>;

fn fold<D: Domain>(
    domain: &D,
    items: &[Expr],
    steps: &mut Steps,
    neutral: i64,
    op: Operation<D>,
) -> Result<D::Value, Fail> {
    let mut total: Option<D::Value> = None;
    for item in items {
        let value = eval(domain, item, steps)?;
        total = Some(match total {
            None => value,
            Some(total) => op(domain, &total, &value)?,
        });
    }
    total.map_or_else(|| domain.int(neutral), Ok)
}

/// A fixed integer exponent is repeated multiplication, a fixed fraction a root of it, anything else the domain's own power.
fn power<D: Domain>(
    domain: &D,
    base: &Expr,
    exponent: &Expr,
    steps: &mut Steps,
) -> Result<D::Value, Fail> {
    let a = eval(domain, base, steps)?;
    let fixed = match exact(exponent, steps) {
        Err(Fail::Undefined) => return Err(Fail::Undefined),
        other => other.ok().map(Rational::as_fraction),
    };
    match fixed {
        Some((num, 1)) => {
            let num = i64::try_from(num).map_err(|_| Fail::Unsupported)?;
            domain.powi(&a, num)
        }
        Some((num, den)) if num.abs() <= MAX_INDEX && den <= MAX_INDEX => {
            domain.powi(&domain.root(&a, den as u32)?, num as i64)
        }
        _ => {
            let b = eval(domain, exponent, steps)?;
            domain.pow(&a, &b)
        }
    }
}

/// from * (from + 1) * ... * to; 1 if that is empty.
fn product<D: Domain>(
    domain: &D,
    from: i128,
    to: i128,
    steps: &mut Steps,
) -> Result<D::Value, Fail> {
    if to < 0 {
        return Err(Fail::Undefined);
    }
    if to - from > MAX_FACTORIAL {
        return Err(Fail::Unsupported);
    }
    let mut total = domain.int(1)?;
    for factor in from..=to {
        steps.take(1)?;
        let factor = i64::try_from(factor).map_err(|_| Fail::Unsupported)?;
        total = domain.mul(&total, &domain.int(factor)?)?;
    }
    Ok(total)
}

/// Exact rational arithmetic.
#[derive(Debug)]
pub(crate) struct Exact;

/// The exact value of a scalar without variables.
pub(crate) fn exact(expr: &Expr, steps: &mut Steps) -> Result<Rational, Fail> {
    eval(&Exact, expr, steps)
}

impl Domain for Exact {
    type Value = Rational;

    fn number(&self, number: &Number) -> Result<Rational, Fail> {
        number.exact().ok_or(Fail::Unsupported)
    }
    fn int(&self, value: i64) -> Result<Rational, Fail> {
        Rational::int(value.into()).ok_or(Fail::Unsupported)
    }
    fn constant(&self, _: Const) -> Result<Rational, Fail> {
        Err(Fail::Unsupported)
    }
    fn variable(&self, _: &str) -> Result<Rational, Fail> {
        Err(Fail::Unsupported)
    }
    fn apply(&self, _: &str, _: &[Rational]) -> Result<Rational, Fail> {
        Err(Fail::Unsupported)
    }
    fn add(&self, a: &Rational, b: &Rational) -> Result<Rational, Fail> {
        a.add(*b).ok_or(Fail::Unsupported)
    }
    fn mul(&self, a: &Rational, b: &Rational) -> Result<Rational, Fail> {
        a.mul(*b).ok_or(Fail::Unsupported)
    }
    fn inv(&self, a: &Rational) -> Result<Rational, Fail> {
        if a.is_zero() {
            return Err(Fail::Undefined);
        }
        a.inv().ok_or(Fail::Unsupported)
    }
    fn powi(&self, a: &Rational, exponent: i64) -> Result<Rational, Fail> {
        if a.is_zero() && exponent <= 0 {
            return Err(Fail::Undefined);
        }
        a.powi(exponent).ok_or(Fail::Unsupported)
    }
    fn root(&self, a: &Rational, index: u32) -> Result<Rational, Fail> {
        a.root(index).ok_or(Fail::Unsupported)
    }
    fn pow(&self, _: &Rational, _: &Rational) -> Result<Rational, Fail> {
        Err(Fail::Unsupported)
    }
    fn abs(&self, a: &Rational) -> Result<Rational, Fail> {
        Ok(a.abs())
    }
    fn floor(&self, a: &Rational) -> Result<Rational, Fail> {
        a.floor().ok_or(Fail::Unsupported)
    }
    fn call(&self, _: Func, _: &Rational) -> Result<Rational, Fail> {
        Err(Fail::Unsupported)
    }
}
