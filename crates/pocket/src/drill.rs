//! Arithmetic by itself: what is to be calculated stands in the prompt, so that every token of the completion follows from what is before it.

use rand::Rng;
use rand::seq::SliceRandom;

use crate::scenario::NAMES;
use crate::seed::{pick, weighted};

/// The largest number that may occur.
const MAX_VALUE: u32 = 999;

/// "Numbers: 28 + 7. 90 / 2." with the results, or a chain "Tom = 14. Anna = Tom + 5." solved as thoughts do it. `shorthand` is the share of
/// chains "Tom =14 Anna Tom +5", solved as a thought in shorthand.
pub(crate) fn draw<R: Rng>(rng: &mut R, shorthand: f64) -> (String, String) {
    // No draw where there is no choice: texts without shorthand stay what they were.
    if shorthand > 0.0 && rng.random_bool(shorthand) {
        short_chain(rng)
    } else if rng.random_bool(0.5) {
        lines(rng)
    } else {
        chain(rng)
    }
}

fn lines<R: Rng>(rng: &mut R) -> (String, String) {
    let (mut asked, mut solved) = ("Numbers:".to_owned(), Vec::new());
    for _ in 0..rng.random_range(6..=12) {
        // As in word problems: mostly small, now and then three digits.
        let a = match weighted(rng, &[0.55, 0.3, 0.15]) {
            0 => rng.random_range(2..=60),
            1 => rng.random_range(2..=120),
            _ => rng.random_range(100..=400),
        };
        let (sign, b, value) = operation(rng, a);
        asked.push_str(&format!(" {a} {sign} {b}."));
        solved.push(format!("{a} {sign} {b} = {value}."));
    }
    (asked + "\n", solved.join(" "))
}

fn chain<R: Rng>(rng: &mut R) -> (String, String) {
    let mut names = NAMES.to_vec();
    names.shuffle(rng);
    let mut value = rng.random_range(2..=60);
    let (mut asked, mut solved) = (
        format!("Chain: {} = {value}.", names[0]),
        format!("{} = {value}.", names[0]),
    );
    for pair in names.windows(2).take(rng.random_range(3..=8)) {
        let (from, name) = (pair[0], pair[1]);
        let (sign, b, next) = operation(rng, value);
        asked.push_str(&format!(" {name} = {from} {sign} {b}."));
        solved.push_str(&format!(
            " {name} = {from} {sign} {b} = {value} {sign} {b} = {next}."
        ));
        value = next;
    }
    (asked + "\n", solved)
}

/// "Short: Tom =14 Anna Tom +5 Ben Anna - Kim 3." and "Tom =14 Anna Tom +5 =19 Ben Anna - Kim 3 =16".
fn short_chain<R: Rng>(rng: &mut R) -> (String, String) {
    let mut names = NAMES.to_vec();
    names.shuffle(rng);
    let mut names = names.into_iter();
    let mut name = || names.next().unwrap_or("it");
    let mut value = match weighted(rng, &[0.45, 0.55]) {
        0 => rng.random_range(2..=60),
        _ => rng.random_range(60..=300),
    };
    let mut from = name();
    let start = format!("{from} ={value}");
    let (mut asked, mut solved) = (format!("Short: {start}"), start);
    for _ in 0..rng.random_range(4..=9) {
        let (sign, b, next) = if value >= 6 && rng.random_bool(0.4) {
            difference(rng, value)
        } else {
            operation(rng, value)
        };
        let label = name();
        // A second quantity with its name, as sums and differences of two have it.
        let read = if matches!(sign, "+" | "-") && rng.random_bool(0.4) {
            format!("{label} {from} {sign} {} {b}", name())
        } else {
            format!("{label} {from} {sign}{b}")
        };
        asked.push_str(&format!(" {read}"));
        solved.push_str(&format!(" {read} ={next}"));
        value = next;
        from = label;
    }
    (asked + ".\n", solved)
}

/// What is taken from `a` is of any size and often near it, as in "How many more does Ben have than Tom?".
fn difference<R: Rng>(rng: &mut R, a: u32) -> (&'static str, u32, u32) {
    let most = if rng.random_bool(0.5) {
        (a - 2).min(12)
    } else {
        a - 2
    };
    let value = rng.random_range(2..=most);
    ("-", a - value, value)
}

/// Sign, right operand and result of a calculation with `a` that word problems could ask for.
fn operation<R: Rng>(rng: &mut R, a: u32) -> (&'static str, u32, u32) {
    loop {
        let b = match weighted(rng, &[0.65, 0.29, 0.06]) {
            0 => rng.random_range(2..=9),
            1 => rng.random_range(10..=40),
            _ => rng.random_range(50..=120),
        };
        match pick(rng, &["+", "+", "+", "-", "-", "-", "*", "*", "/"]) {
            "+" if a + b <= MAX_VALUE => return ("+", b, a + b),
            "-" if a >= b + 2 => return ("-", b, a - b),
            "*" if a <= 40 && rng.random_bool(0.4) => return ("*", 3, a * 3),
            "*" if a <= 120 => return ("*", 2, a * 2),
            "/" if (4..=240).contains(&a) && a.is_multiple_of(2) => return ("/", 2, a / 2),
            _ => {}
        }
    }
}
