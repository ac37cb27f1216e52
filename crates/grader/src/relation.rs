//! Equations, inequalities and memberships: what they say of one name, and when two say the same.
//!
//! An equation is given up for its value only if the other side is a name (`x = 5`, `f(x) = 2x`, `Area = 5`), so that
//! `2x + 1 = 0` is never taken for 0 (Math-Verify issue 60).

use crate::compare::same;
use crate::eval::Steps;
use crate::expr::{Expr, Rel};
use crate::scalar::{difference, is_fixed, less, name_of, proportional, scalars_equal};

/// A relation as a statement of one name: `x = 5` is (x, 5), `x > 2` is (x, (2, ∞)).
pub(crate) struct Statement {
    pub(crate) name: String,
    pub(crate) value: Expr,
}

/// What a side is called, if it is no more than a name.
fn name(side: &Expr) -> Option<String> {
    match side {
        Expr::Apply(function, args) => {
            let args: Option<Vec<&str>> = args.iter().map(name_of).collect();
            Some(format!("{function}({})", args?.join(",")))
        }
        Expr::Text(word) => Some(word.clone()),
        Expr::Tuple('(', items, ')') => {
            let items: Option<Vec<&str>> = items.iter().map(name_of).collect();
            Some(format!("({})", items?.join(",")))
        }
        other => name_of(other).map(str::to_owned),
    }
}

/// The statement that a relation is, if it is one.
pub(crate) fn statement(
    first: &Expr,
    rest: &[(Rel, Expr)],
    steps: &mut Steps,
) -> Option<Statement> {
    match rest {
        [(Rel::In, set)] => Some(Statement {
            name: name(first)?,
            value: set.clone(),
        }),
        _ if rest.iter().all(|(rel, _)| *rel == Rel::Eq) => equation(first, rest, steps),
        _ => interval(first, rest, steps),
    }
}

fn equation(first: &Expr, rest: &[(Rel, Expr)], steps: &mut Steps) -> Option<Statement> {
    let (_, last) = rest.last()?;
    if let Some(name) = name(first) {
        let agree = rest
            .iter()
            .all(|(_, side)| std::ptr::eq(side, last) || same(side, last, steps));
        return agree.then(|| Statement {
            name,
            value: last.clone(),
        });
    }
    if rest.len() == 1
        && let Some(name) = name(last)
    {
        return Some(Statement {
            name,
            value: first.clone(),
        });
    }
    // "2 + 3 = 5" says 5, if it is true.
    let sound = is_fixed(first)
        && rest
            .iter()
            .all(|(_, side)| is_fixed(side) && scalars_equal(first, side, steps));
    sound.then(|| Statement {
        name: String::new(),
        value: last.clone(),
    })
}

/// `x > 2`, `2 < x`, `1 <= x < 3` as an interval.
fn interval(first: &Expr, rest: &[(Rel, Expr)], steps: &mut Steps) -> Option<Statement> {
    let (name, low, high) = match rest {
        [(rel, right)] => {
            let (name, rel, bound) = match (name_of(first), name_of(right)) {
                (Some(name), None) => (name, *rel, right),
                (None, Some(name)) => (name, rel.flipped()?, first),
                _ => return None,
            };
            match rel {
                Rel::Lt | Rel::Le => (name, (Rel::Lt, Expr::Inf(true)), (rel, bound.clone())),
                Rel::Gt => (name, (Rel::Lt, bound.clone()), (Rel::Lt, Expr::Inf(false))),
                Rel::Ge => (name, (Rel::Le, bound.clone()), (Rel::Lt, Expr::Inf(false))),
                _ => return None,
            }
        }
        [(one, middle), (two, right)] => {
            let name = name_of(middle)?;
            match (one, two) {
                (Rel::Lt | Rel::Le, Rel::Lt | Rel::Le) => {
                    (name, (*one, first.clone()), (*two, right.clone()))
                }
                (Rel::Gt | Rel::Ge, Rel::Gt | Rel::Ge) => (
                    name,
                    (two.flipped()?, right.clone()),
                    (one.flipped()?, first.clone()),
                ),
                _ => return None,
            }
        }
        _ => return None,
    };
    let fixed = |bound: &Expr| matches!(bound, Expr::Inf(_)) || is_fixed(bound);
    // An empty interval says nothing that brackets could say.
    if !fixed(&low.1) || !fixed(&high.1) || less(&high.1, &low.1, steps) == Some(true) {
        return None;
    }
    let open = if low.0 == Rel::Le { '[' } else { '(' };
    let close = if high.0 == Rel::Le { ']' } else { ')' };
    Some(Statement {
        name: name.to_owned(),
        value: Expr::Tuple(open, vec![low.1, high.1], close),
    })
}

type Relation<'a> = (&'a Expr, &'a [(Rel, Expr)]);

/// Do two relations say the same?
pub(crate) fn same_relation(a: Relation<'_>, b: Relation<'_>, steps: &mut Steps) -> bool {
    if let (Some(x), Some(y)) = (statement(a.0, a.1, steps), statement(b.0, b.1, steps))
        && one_name(&x.name, &y.name)
    {
        return same(&x.value, &y.value, steps);
    }
    if let ([(one, right_a)], [(two, right_b)]) = (a.1, b.1) {
        let scalar = |rel: Rel| rel != Rel::In;
        if scalar(*one) && scalar(*two) {
            let (x, y) = (difference(a.0, right_a), difference(b.0, right_b));
            if let Some(sign) = proportional(&x, &y, steps) {
                let two = if sign < 0.0 {
                    two.flipped()
                } else {
                    Some(*two)
                };
                return two == Some(*one);
            }
        }
    }
    pairwise(a, b, steps)
}

/// May two statements be of the same thing? `f(x)` is also called y, and a true equation of numbers has no name.
fn one_name(a: &str, b: &str) -> bool {
    let function = |name: &str| name.ends_with(')') && !name.starts_with('(');
    a == b || a.is_empty() || b.is_empty() || (function(a) && b == "y") || (a == "y" && function(b))
}

/// The same sides in the same order, or all of it read from the right.
fn pairwise(a: Relation<'_>, b: Relation<'_>, steps: &mut Steps) -> bool {
    let sides = |relation: Relation<'_>| -> (Vec<Expr>, Vec<Rel>) {
        let rest = relation.1.iter().map(|(_, side)| side.clone());
        let sides = std::iter::once(relation.0.clone()).chain(rest).collect();
        (sides, relation.1.iter().map(|(rel, _)| *rel).collect())
    };
    let (left, left_rels) = sides(a);
    let (mut right, right_rels) = sides(b);
    if left.len() != right.len() {
        return false;
    }
    let mut all = |right: &[Expr]| left.iter().zip(right).all(|(x, y)| same(x, y, steps));
    if left_rels == right_rels && all(&right) {
        return true;
    }
    right.reverse();
    let turned: Option<Vec<Rel>> = right_rels.iter().rev().map(|rel| rel.flipped()).collect();
    turned == Some(left_rels) && all(&right)
}
