//! Equality of answers: which kinds of answers can be equal, and part by part whether they are.
//!
//! | one side | the other | equal if |
//! |---|---|---|
//! | number | number | the same value (`scalar`); 0.33 is not 1/3 |
//! | `50\%` | 50 or 0.5 | either reading; 50 is not 0.5 |
//! | with a unit | without | the numbers are equal; two different units never are |
//! | `x = 5` | 5 | the value is equal; `2x + 1 = 0` has none |
//! | equation | equation | the differences of their sides are proportional |
//! | `x > 2` | `(2, \infty)` | the same interval |
//! | 1, 2 | 2, 1 | a list without brackets has no order, like a set |
//! | 1, 2 | (1, 2) | item by item; brackets have an order, and `[1, 2]` is not `(1, 2)` |
//! | `52_8` | `52_8` | digits and base are the same; it is neither 52 nor 528 |
//! | text | text | the same words but for case and articles |
//!
//! The rules follow MATH's `is_equiv` (<https://github.com/hendrycks/math>) and Math-Verify
//! (<https://github.com/huggingface/Math-Verify>) where those accept what is right, and are stricter where they accept what is
//! not. Equality is symmetric. It is not transitive: 50 = 50 % = 0.5.

use crate::eval::Steps;
use crate::expr::{Expr, Rel};
use crate::parse::parse;
use crate::plain::Decimal;
use crate::relation::{same_relation, statement};
use crate::scalar::{name_of, scalars_equal};
use crate::text;
use crate::token::Commas;

/// Longest list that is compared without its order.
const MAX_UNORDERED: usize = 64;

/// Do two answers say the same? Never true for an empty answer, NaN, or a value that does not exist (1/0).
#[must_use]
pub fn equal(got: &str, want: &str) -> bool {
    let (got, want) = (text::clean(got), text::clean(want));
    if got.is_empty() || want.is_empty() {
        return false;
    }
    if let (Some(got), Some(want)) = (Decimal::read(got), Decimal::read(want)) {
        return got == want;
    }
    if let Some(same) = text::same_choice(got, want) {
        return same;
    }
    // "LA" is not "AL": capitals alone are a name, though as variables they would commute.
    let name = |text: &str| text.len() > 1 && text.bytes().all(|byte| byte.is_ascii_uppercase());
    if name(got) && name(want) {
        return got == want && text::same_text(got, want);
    }
    parsed_equal(got, want)
}

/// The same for two answers that are no choice and no name.
pub(crate) fn parsed_equal(got: &str, want: &str) -> bool {
    let mut steps = Steps::new();
    match (parse(got, Commas::Group), parse(want, Commas::Group)) {
        (Some((a, grouped_a)), Some((b, grouped_b))) => {
            if same(&a, &b, &mut steps) {
                return true;
            }
            if !grouped_a && !grouped_b {
                return false;
            }
            // "12,100" may also be the list 12, 100.
            match (parse(got, Commas::Split), parse(want, Commas::Split)) {
                (Some((a, _)), Some((b, _))) => same(&a, &b, &mut steps),
                _ => false,
            }
        }
        (None, None) => text::same_text(got, want),
        _ => false,
    }
}

/// Do two parsed answers say the same?
pub(crate) fn same(a: &Expr, b: &Expr, steps: &mut Steps) -> bool {
    // A comparison of parts copies some of them: it costs more than a node of an evaluation.
    if steps.take(20).is_err() {
        return false;
    }
    match (a, b) {
        (Expr::Relation(x, rest_x), Expr::Relation(y, rest_y)) => {
            same_relation((x, rest_x), (y, rest_y), steps)
        }
        (Expr::Relation(first, rest), other) | (other, Expr::Relation(first, rest)) => {
            statement(first, rest, steps).is_some_and(|said| same(&said.value, other, steps))
        }
        (Expr::List(x), Expr::List(y)) => same_lists(x, y, steps),
        (Expr::List(items), other) | (other, Expr::List(items)) => list_and(items, other, steps),
        (Expr::Set(x), Expr::Set(y)) | (Expr::Union(x), Expr::Union(y)) => {
            unordered(x, y, steps)
                || merged(a)
                    .zip(merged(b))
                    .is_some_and(|(x, y)| unordered(&x, &y, steps))
        }
        (Expr::Union(_), Expr::Set(y)) | (Expr::Set(y), Expr::Union(_)) => {
            let union = if matches!(a, Expr::Union(_)) { a } else { b };
            merged(union).is_some_and(|x| unordered(&x, y, steps))
        }
        (Expr::Intersection(x), Expr::Intersection(y)) => unordered(x, y, steps),
        (Expr::Without(x, gone_x), Expr::Without(y, gone_y)) => {
            same(x, y, steps) && same(gone_x, gone_y, steps)
        }
        (Expr::Tuple(open_x, x, close_x), Expr::Tuple(open_y, y, close_y)) => {
            open_x == open_y && close_x == close_y && ordered(x, y, steps)
        }
        (Expr::Matrix(x), Expr::Matrix(y)) => {
            x.len() == y.len() && x.iter().zip(y).all(|(x, y)| ordered(x, y, steps))
        }
        (Expr::Matrix(rows), Expr::Tuple('[', items, ']'))
        | (Expr::Tuple('[', items, ']'), Expr::Matrix(rows)) => {
            rows.len() == items.len()
                && rows.iter().zip(items).all(|(row, item)| match item {
                    Expr::Tuple('[', cells, ']') => ordered(row, cells, steps),
                    _ => false,
                })
        }
        (Expr::Ratio(x), Expr::Ratio(y)) => ordered(x, y, steps),
        (Expr::Unit(x, unit_x), Expr::Unit(y, unit_y)) => unit_x == unit_y && same(x, y, steps),
        (Expr::Unit(x, unit), Expr::Degree(y)) | (Expr::Degree(y), Expr::Unit(x, unit)) => {
            unit == "degree" && same(x, y, steps)
        }
        // "5 % more" is 5 %, "5 cm" is not.
        (Expr::Unit(x, _), Expr::Percent(_)) | (Expr::Percent(_), Expr::Unit(x, _))
            if !matches!(**x, Expr::Percent(_)) =>
        {
            false
        }
        (Expr::Unit(x, _), other) | (other, Expr::Unit(x, _)) => same(x, other, steps),
        (Expr::Percent(x), Expr::Percent(y)) | (Expr::Degree(x), Expr::Degree(y)) => {
            same(x, y, steps)
        }
        (Expr::Percent(_), Expr::Degree(_)) | (Expr::Degree(_), Expr::Percent(_)) => false,
        (Expr::Percent(x) | Expr::Degree(x), other) => {
            same(x, other, steps) || same_scalars(a, other, steps)
        }
        (other, Expr::Percent(x) | Expr::Degree(x)) => {
            same(x, other, steps) || same_scalars(b, other, steps)
        }
        (Expr::Text(x), Expr::Text(y)) => text::same_words(x, y),
        (Expr::Inf(x), Expr::Inf(y)) => x == y,
        (Expr::Based(x, base_x), Expr::Based(y, base_y)) => {
            base_x == base_y && x.trim_start_matches('0') == y.trim_start_matches('0')
        }
        // The solution set {5} is the solution 5.
        (Expr::Set(items), other) | (other, Expr::Set(items)) => match items.as_slice() {
            [item] if is_scalar(other) => same(item, other, steps),
            _ => false,
        },
        _ => same_scalars(a, b, steps),
    }
}

fn same_scalars(a: &Expr, b: &Expr, steps: &mut Steps) -> bool {
    is_scalar(a) && is_scalar(b) && scalars_equal(a, b, steps)
}

fn is_scalar(a: &Expr) -> bool {
    !matches!(
        a,
        Expr::Inf(_)
            | Expr::Based(..)
            | Expr::Unit(..)
            | Expr::Tuple(..)
            | Expr::Set(_)
            | Expr::List(_)
            | Expr::Matrix(_)
            | Expr::Ratio(_)
            | Expr::Union(_)
            | Expr::Intersection(_)
            | Expr::Without(..)
            | Expr::Relation(..)
            | Expr::Text(_)
    )
}

fn ordered(a: &[Expr], b: &[Expr], steps: &mut Steps) -> bool {
    a.len() == b.len() && a.iter().zip(b).all(|(x, y)| same(x, y, steps))
}

/// Each of one list is one of the other.
fn unordered(a: &[Expr], b: &[Expr], steps: &mut Steps) -> bool {
    if a.len() != b.len() {
        return false;
    }
    if a.len() > MAX_UNORDERED {
        return ordered(a, b, steps);
    }
    let mut left: Vec<&Expr> = b.iter().collect();
    a.iter().all(|x| {
        let found = left.iter().position(|y| same(x, y, steps));
        found.map(|index| left.swap_remove(index)).is_some()
    })
}

/// The members of a union of sets of numbers.
fn merged(union: &Expr) -> Option<Vec<Expr>> {
    let Expr::Union(parts) = union else {
        return None;
    };
    let mut members: Vec<Expr> = Vec::new();
    for part in parts {
        let Expr::Set(items) = part else {
            return None;
        };
        let new = items.iter().filter(|item| !members.contains(item));
        let new: Vec<Expr> = new.cloned().collect();
        members.extend(new);
    }
    Some(members)
}

fn same_lists(a: &[Expr], b: &[Expr], steps: &mut Steps) -> bool {
    if unordered(a, b, steps) {
        return true;
    }
    let (left, right) = (one_name(a), one_name(b));
    match (left, right) {
        (Some((x, left)), Some((y, right))) => x == y && unordered(&left, &right, steps),
        (Some((_, left)), None) => unordered(&left, b, steps),
        (None, Some((_, right))) => unordered(a, &right, steps),
        (None, None) => {
            let (left, right) = (in_order(a), in_order(b));
            match (left, right) {
                (Some(left), None) => ordered(&left, b, steps),
                (None, Some(right)) => ordered(a, &right, steps),
                _ => false,
            }
        }
    }
}

/// A list against one thing: a tuple, a set, or a union of intervals.
fn list_and(items: &[Expr], other: &Expr, steps: &mut Steps) -> bool {
    let named = one_name(items).map(|(_, values)| values);
    let values = named.as_deref().unwrap_or(items);
    match other {
        Expr::Tuple('(' | '[', parts, ')' | ']') => {
            ordered(values, parts, steps)
                || in_order(items).is_some_and(|values| ordered(&values, parts, steps))
        }
        Expr::Set(members) => unordered(values, members, steps),
        Expr::Union(parts) => {
            let intervals: Option<Vec<Expr>> = items
                .iter()
                .map(|item| match item {
                    Expr::Relation(first, rest) => statement(first, rest, steps).map(|s| s.value),
                    Expr::Tuple(..) => Some(item.clone()),
                    _ => None,
                })
                .collect();
            let one_variable = items
                .iter()
                .map(Expr::variables)
                .collect::<std::collections::BTreeSet<_>>()
                .len()
                == 1;
            one_variable && intervals.is_some_and(|list| unordered(&list, parts, steps))
        }
        _ => false,
    }
}

/// `x = 1, 2` and `x = 1, x = 2`: the name and the values.
fn one_name(items: &[Expr]) -> Option<(&str, Vec<Expr>)> {
    let equation = |item: &Expr| -> Option<(String, Expr)> {
        match item {
            Expr::Relation(first, rest) => match rest.as_slice() {
                [(Rel::Eq, value)] => Some((name_of(first)?.to_owned(), value.clone())),
                _ => None,
            },
            _ => None,
        }
    };
    let Expr::Relation(first, _) = items.first()? else {
        return None;
    };
    let name = name_of(first)?;
    let mut values = Vec::with_capacity(items.len());
    for (index, item) in items.iter().enumerate() {
        match equation(item) {
            Some((other, value)) if other == name => values.push(value),
            None if index > 0 && !matches!(item, Expr::Relation(..)) => values.push(item.clone()),
            _ => return None,
        }
    }
    Some((name, values))
}

/// `x = 1, y = 2` with the names in alphabetical order: the values, which a tuple gives without names.
fn in_order(items: &[Expr]) -> Option<Vec<Expr>> {
    let mut last = "";
    let mut values = Vec::with_capacity(items.len());
    for item in items {
        let Expr::Relation(first, rest) = item else {
            return None;
        };
        let [(Rel::Eq, value)] = rest.as_slice() else {
            return None;
        };
        let name = name_of(first)?;
        if name <= last {
            return None;
        }
        last = name;
        values.push(value.clone());
    }
    Some(values)
}
