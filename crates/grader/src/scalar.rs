//! Equality of two scalars: exact where it can be decided exactly, else within the error bound of a float.
//!
//! In order: rationals in checked `i128`; residues modulo two primes, which decide every rational function; complex floats at
//! fixed points with an error bound; the same tree. Scalars with different variables are never equal.

use crate::eval::{Domain, Fail, Steps, eval, exact};
use crate::expr::{Const, Expr};
use crate::float::{Float, Value};
use crate::modular::Modular;

/// Points with a value on both sides that an expression with variables must agree at.
const ENOUGH: usize = 2;

/// Are the two scalars equal?
pub(crate) fn scalars_equal(a: &Expr, b: &Expr, steps: &mut Steps) -> bool {
    let (left, right) = (exact(a, steps), exact(b, steps));
    match (left, right) {
        (Err(Fail::Undefined), _) | (_, Err(Fail::Undefined)) => return false,
        (Ok(left), Ok(right)) => return left == right,
        _ => {}
    }
    let variables = a.variables();
    if variables != b.variables() {
        return false;
    }
    let points = if variables.is_empty() {
        1
    } else {
        Float::POINTS
    };
    if let Some(same) = by_residue(a, b, steps) {
        // Numbers that are a multiple of both primes apart differ in a size that a float sees at one point.
        return same && by_float(a, b, 1, steps) != Some(false);
    }
    by_float(a, b, points, steps).unwrap_or_else(|| a == b && is_sure(a))
}

/// Equality as rational functions; `None` if one is not a rational function.
fn by_residue(a: &Expr, b: &Expr, steps: &mut Steps) -> Option<bool> {
    for field in Modular::all().take(2) {
        match (eval(&field, a, steps), eval(&field, b, steps)) {
            (Ok(a), Ok(b)) if a == b => {}
            (Ok(_), Ok(_)) => return Some(false),
            (Err(Fail::Undefined), _) | (_, Err(Fail::Undefined)) => return Some(false),
            _ => return None,
        }
    }
    Some(true)
}

/// The values of both sides at the first so many points: a value, or why there is none.
fn at_points(
    a: &Expr,
    b: &Expr,
    points: u64,
    steps: &mut Steps,
) -> impl Iterator<Item = (Result<Value, Fail>, Result<Value, Fail>)> {
    let fixed = a.variables().is_empty() && b.variables().is_empty();
    let real = !fixed && !a.is_complex() && !b.is_complex();
    (0..points).map(move |point| {
        let domain = Float::new(point, real);
        (eval(&domain, a, steps), eval(&domain, b, steps))
    })
}

/// Equality at the first so many points; `None` if too few of them can say. One point is enough for a number.
fn by_float(a: &Expr, b: &Expr, points: u64, steps: &mut Steps) -> Option<bool> {
    let fixed = points == 1;
    let mut agreed = 0;
    for (left, right) in at_points(a, b, points, steps) {
        match (left, right) {
            (Ok(left), Ok(right)) => match left.agrees(right) {
                Some(true) => agreed += 1,
                Some(false) => return Some(false),
                None => {}
            },
            (Err(Fail::Undefined), _) | (_, Err(Fail::Undefined)) if fixed => return Some(false),
            _ => {}
        }
    }
    let enough = if fixed { 1 } else { ENOUGH };
    (agreed >= enough).then_some(true)
}

/// The same tree is equal to itself unless it may have no value: a division by what may be zero, the tangent of a right angle.
fn is_sure(a: &Expr) -> bool {
    let domain = Float::new(1, false);
    let mut steps = Steps::new();
    let mut sure = true;
    a.visit(&mut |part| match part {
        Expr::Inv(bottom) => match eval(&domain, bottom, &mut steps) {
            Ok(value) => sure &= !value.may_be_zero(),
            Err(fail) => sure &= fail != Fail::Undefined,
        },
        Expr::Call(..) | Expr::LogBase(..) => {
            sure &= eval(&domain, part, &mut steps).is_ok();
        }
        _ => {}
    });
    sure
}

/// Is there a number c, not 0, with a = c b for all values of the variables? The sign of c, if there is.
///
/// This makes two equations `a = 0` and `b = 0` the same one.
pub(crate) fn proportional(a: &Expr, b: &Expr, steps: &mut Steps) -> Option<f64> {
    if a.variables() != b.variables() || a.variables().is_empty() {
        return None;
    }
    let mut rational = true;
    for prime in 0..2 {
        // The ratio at the two points of one field.
        let mut ratios = Modular::all().skip(prime).step_by(2).map(|field| {
            let (a, b) = (eval(&field, a, steps)?, eval(&field, b, steps)?);
            field.mul(&a, &field.inv(&b)?)
        });
        match (ratios.next(), ratios.next()) {
            (Some(Ok(first)), Some(Ok(second))) if first == second && first != 0 => {}
            (Some(Ok(_)), Some(Ok(_))) => return None,
            _ => rational = false,
        }
    }
    let mut sign = None;
    let mut first: Option<Value> = None;
    let mut agreed = 0;
    for (index, (left, right)) in at_points(a, b, Float::POINTS, steps).enumerate() {
        let (Ok(left), Ok(right)) = (left, right) else {
            continue;
        };
        let domain = Float::new(index as u64, true);
        let Ok(ratio) = domain.inv(&right).and_then(|inv| domain.mul(&left, &inv)) else {
            continue;
        };
        sign = sign.or(ratio.sign());
        match first {
            None => first = Some(ratio),
            Some(first) => match first.agrees(ratio) {
                Some(true) => agreed += 1,
                Some(false) => return None,
                None => {}
            },
        }
    }
    if rational || agreed >= ENOUGH {
        sign
    } else {
        None
    }
}

/// a - b.
pub(crate) fn difference(a: &Expr, b: &Expr) -> Expr {
    Expr::Add(vec![a.clone(), Expr::Neg(Box::new(b.clone()))])
}

/// Is the scalar a value without variables?
pub(crate) fn is_fixed(a: &Expr) -> bool {
    a.variables().is_empty() && !matches!(a, Expr::Text(_))
}

/// Is a < b, for two scalars without variables?
pub(crate) fn less(a: &Expr, b: &Expr, steps: &mut Steps) -> Option<bool> {
    let domain = Float::new(0, true);
    let difference = eval(&domain, &difference(a, b), steps).ok()?;
    difference.sign().map(|sign| sign < 0.0)
}

/// A letter that is a name, as written: a variable, or e and i, which a question may use as names too.
pub(crate) fn name_of(a: &Expr) -> Option<&str> {
    match a {
        Expr::Var(name) => Some(name),
        Expr::Const(Const::E) => Some("e"),
        Expr::Const(Const::I) => Some("i"),
        _ => None,
    }
}
