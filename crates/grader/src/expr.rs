//! The tree that an answer is parsed into: scalars, and what scalars stand in (tuples, sets, intervals, matrices, relations).
//!
//! The parser bounds the depth ([`MAX_DEPTH`]) and the number of tokens, so that walking and dropping a tree is bounded too.

use std::collections::BTreeSet;

use crate::number::Number;

/// Deepest nesting of brackets, groups, powers and functions.
pub(crate) const MAX_DEPTH: usize = 40;

/// Functions of one real argument.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Func {
    Sin,
    Cos,
    Tan,
    Cot,
    Sec,
    Csc,
    Arcsin,
    Arccos,
    Arctan,
    Sinh,
    Cosh,
    Tanh,
    Exp,
    Ln,
    /// Base 10 unless a base is written.
    Log,
}

impl Func {
    /// The function that a name stands for, with or without the backslash.
    pub(crate) fn named(name: &str) -> Option<Self> {
        Some(match name {
            "sin" => Self::Sin,
            "cos" => Self::Cos,
            "tan" | "tg" => Self::Tan,
            "cot" | "ctg" => Self::Cot,
            "sec" => Self::Sec,
            "csc" | "cosec" => Self::Csc,
            "arcsin" | "asin" => Self::Arcsin,
            "arccos" | "acos" => Self::Arccos,
            "arctan" | "atan" => Self::Arctan,
            "sinh" => Self::Sinh,
            "cosh" => Self::Cosh,
            "tanh" => Self::Tanh,
            "exp" => Self::Exp,
            "ln" => Self::Ln,
            "log" | "lg" => Self::Log,
            _ => return None,
        })
    }

    /// What `f^{-1}` means for the trigonometric functions.
    pub(crate) fn inverse(self) -> Option<Self> {
        match self {
            Self::Sin => Some(Self::Arcsin),
            Self::Cos => Some(Self::Arccos),
            Self::Tan => Some(Self::Arctan),
            _ => None,
        }
    }
}

/// Named numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Const {
    Pi,
    E,
    I,
}

/// How two sides are related.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Rel {
    Eq,
    Ne,
    Lt,
    Le,
    Gt,
    Ge,
    In,
}

impl Rel {
    /// The relation with its sides exchanged.
    pub(crate) fn flipped(self) -> Option<Self> {
        Some(match self {
            Self::Eq => Self::Eq,
            Self::Ne => Self::Ne,
            Self::Lt => Self::Gt,
            Self::Le => Self::Ge,
            Self::Gt => Self::Lt,
            Self::Ge => Self::Le,
            Self::In => return None,
        })
    }
}

/// An answer or a part of one.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Expr {
    Num(Number),
    Const(Const),
    /// Infinity; true if negative.
    Inf(bool),
    Var(String),
    Add(Vec<Expr>),
    Mul(Vec<Expr>),
    Neg(Box<Expr>),
    /// 1 / x.
    Inv(Box<Expr>),
    Pow(Box<Expr>, Box<Expr>),
    /// The root of the first; the index is the second.
    Root(Box<Expr>, Box<Expr>),
    Factorial(Box<Expr>),
    Binom(Box<Expr>, Box<Expr>),
    Abs(Box<Expr>),
    Floor(Box<Expr>),
    Ceil(Box<Expr>),
    Call(Func, Box<Expr>),
    /// Logarithm of the second in the base of the first.
    LogBase(Box<Expr>, Box<Expr>),
    /// A function that only has a name, such as f(x).
    Apply(String, Vec<Expr>),
    Percent(Box<Expr>),
    Degree(Box<Expr>),
    /// Digits in a written base, such as `52_8`.
    Based(String, u32),
    Unit(Box<Expr>, String),
    /// Ordered, in brackets: a point, a vector or an interval.
    Tuple(char, Vec<Expr>, char),
    Set(Vec<Expr>),
    /// Without brackets, separated by commas, "and" or "or".
    List(Vec<Expr>),
    Matrix(Vec<Vec<Expr>>),
    Ratio(Vec<Expr>),
    Union(Vec<Expr>),
    Intersection(Vec<Expr>),
    Without(Box<Expr>, Box<Expr>),
    Relation(Box<Expr>, Vec<(Rel, Expr)>),
    /// Plain words, normalised.
    Text(String),
}

impl Expr {
    pub(crate) fn int(value: u32) -> Self {
        Self::Num(Number::int(value))
    }

    pub(crate) fn quotient(top: Self, bottom: Self) -> Self {
        Self::Mul(vec![top, Self::Inv(Box::new(bottom))])
    }

    /// The names that stand free in a scalar.
    pub(crate) fn variables(&self) -> BTreeSet<&str> {
        let mut names = BTreeSet::new();
        self.visit(&mut |expr| {
            if let Self::Var(name) | Self::Apply(name, _) = expr {
                names.insert(name.as_str());
            }
        });
        names
    }

    /// True if plain words are part of it.
    pub(crate) fn has_text(&self) -> bool {
        let mut found = false;
        self.visit(&mut |expr| found |= matches!(expr, Self::Text(_)));
        found
    }

    /// True if the imaginary unit is written somewhere.
    pub(crate) fn is_complex(&self) -> bool {
        let mut found = false;
        self.visit(&mut |expr| found |= matches!(expr, Self::Const(Const::I)));
        found
    }

    pub(crate) fn visit<'a>(&'a self, take: &mut impl FnMut(&'a Self)) {
        take(self);
        match self {
            Self::Num(_)
            | Self::Const(_)
            | Self::Inf(_)
            | Self::Var(_)
            | Self::Based(..)
            | Self::Text(_) => {}
            Self::Add(items)
            | Self::Mul(items)
            | Self::Apply(_, items)
            | Self::Tuple(_, items, _)
            | Self::Set(items)
            | Self::List(items)
            | Self::Ratio(items)
            | Self::Union(items)
            | Self::Intersection(items) => items.iter().for_each(|item| item.visit(take)),
            Self::Neg(a)
            | Self::Inv(a)
            | Self::Factorial(a)
            | Self::Abs(a)
            | Self::Floor(a)
            | Self::Ceil(a)
            | Self::Call(_, a)
            | Self::Percent(a)
            | Self::Degree(a)
            | Self::Unit(a, _) => a.visit(take),
            Self::Pow(a, b)
            | Self::Root(a, b)
            | Self::Binom(a, b)
            | Self::LogBase(a, b)
            | Self::Without(a, b) => {
                a.visit(take);
                b.visit(take);
            }
            Self::Matrix(rows) => rows.iter().flatten().for_each(|item| item.visit(take)),
            Self::Relation(first, rest) => {
                first.visit(take);
                rest.iter().for_each(|(_, side)| side.visit(take));
            }
        }
    }
}
