//! The structure of a word problem: which quantity leans on which, and by what operation. Names and numbers come later.
//!
//! A problem is a chain of steps. Step i works on the result of step i-1 and, for `Plus` and `Minus`, on a second quantity: a fresh given
//! one or an earlier result. Splits are made by the hash of this structure, so no test problem has the shape of a training problem.

use rand::Rng;

use crate::seed::{fnv1a, weighted};
use crate::split::Split;

/// The second quantity of a sum or difference.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Second {
    /// A quantity that the problem gives.
    Given,
    /// The quantity `n` steps before the one worked on (1 = its own source).
    Back(usize),
}

/// What one step does with the result before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Op {
    Add,
    Sub,
    Double,
    Triple,
    Half,
    Plus(Second),
    Minus(Second),
}

/// A chain of steps; the last one may be the question itself ("how many together?").
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Structure {
    pub ops: Vec<Op>,
    /// The last step is asked for and not stated.
    pub asked: bool,
}

impl Structure {
    /// Draws a structure of `steps` steps (at least 1), of any split.
    fn draw<R: Rng>(rng: &mut R, steps: usize) -> Self {
        let mut ops = Vec::with_capacity(steps);
        for i in 0..steps {
            let second = |rng: &mut R| {
                if i >= 1 && rng.random_bool(0.4) {
                    Second::Back(rng.random_range(1..=i.min(3)))
                } else {
                    Second::Given
                }
            };
            ops.push(
                match weighted(rng, &[0.26, 0.22, 0.14, 0.08, 0.1, 0.12, 0.08]) {
                    0 => Op::Add,
                    1 => Op::Sub,
                    2 => Op::Double,
                    3 => Op::Triple,
                    4 => Op::Half,
                    5 => Op::Plus(second(rng)),
                    _ => Op::Minus(second(rng)),
                },
            );
        }
        let asked = matches!(ops.last(), Some(Op::Plus(_) | Op::Minus(_))) && rng.random_bool(0.6);
        Self { ops, asked }
    }

    /// Draws a structure of `steps` steps that belongs to `split`.
    pub(crate) fn draw_in<R: Rng>(rng: &mut R, steps: usize, split: Split) -> Self {
        loop {
            let structure = Self::draw(rng, steps);
            if structure.split() == split {
                return structure;
            }
        }
    }

    /// One line that two problems share exactly if they have the same shape.
    pub(crate) fn key(&self) -> String {
        let mut key = String::new();
        for op in &self.ops {
            let word = match op {
                Op::Add => "add".to_owned(),
                Op::Sub => "sub".to_owned(),
                Op::Double => "double".to_owned(),
                Op::Triple => "triple".to_owned(),
                Op::Half => "half".to_owned(),
                Op::Plus(Second::Given) => "plus:given".to_owned(),
                Op::Plus(Second::Back(n)) => format!("plus:{n}"),
                Op::Minus(Second::Given) => "minus:given".to_owned(),
                Op::Minus(Second::Back(n)) => format!("minus:{n}"),
            };
            key.push_str(&word);
            key.push('>');
        }
        key.push_str(if self.asked { "asked" } else { "stated" });
        key
    }

    /// The split this structure belongs to: 10 % test, 10 % valid, the rest train.
    pub(crate) fn split(&self) -> Split {
        Split::of_hash(fnv1a(self.key().as_bytes()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::problem::{Problem, ProblemSpec};
    use crate::seed::item_rng;
    use std::collections::HashSet;

    #[test]
    fn splits_share_no_structure() {
        let keys = |split: Split| -> HashSet<String> {
            (0..2000)
                .map(|i| {
                    Structure::draw_in(&mut item_rng(1, "t", i), 2 + (i % 7) as usize, split).key()
                })
                .collect()
        };
        let (train, valid, test) = (keys(Split::Train), keys(Split::Valid), keys(Split::Test));
        assert!(train.is_disjoint(&test) && train.is_disjoint(&valid) && valid.is_disjoint(&test));
        assert!(test.len() > 500, "only {} structures", test.len());
    }

    #[test]
    fn every_step_count_has_problems_in_every_split() {
        for split in [Split::Train, Split::Valid, Split::Test] {
            for steps in 2..=8 {
                let problem = Problem::draw(
                    &mut item_rng(2, "t", steps as u64),
                    ProblemSpec {
                        steps,
                        split,
                        distractors: 3,
                        shifted: false,
                        simple: false,
                    },
                );
                assert_eq!(problem.steps.len(), steps);
            }
        }
    }
}
