//! What holds for all answers: equality is symmetric, a value equals itself in every form, neighbours differ, and nothing panics
//! or takes long.

use std::time::{Duration, Instant};

use edgethink_grader::{code_block, equal, extract, is_correct, visible};
use proptest::prelude::*;

/// Thousands in groups of three: 1234567 is 1,234,567.
fn grouped(value: u64) -> String {
    let digits = value.to_string();
    let mut out = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

/// Fragments of answers, so that random text often parses.
fn fragment() -> impl Strategy<Value = String> {
    prop_oneof![
        Just(r"\frac{1}{2}"),
        Just(r"\frac"),
        Just("{"),
        Just("}"),
        Just("("),
        Just(")"),
        Just("["),
        Just("]"),
        Just(r"\{"),
        Just(r"\}"),
        Just("x"),
        Just("y"),
        Just("="),
        Just("<"),
        Just(","),
        Just(" "),
        Just("1"),
        Just("23"),
        Just("0"),
        Just("."),
        Just("-"),
        Just("+"),
        Just("*"),
        Just("/"),
        Just("^"),
        Just("_"),
        Just("!"),
        Just("%"),
        Just(r"\sqrt"),
        Just(r"\sqrt[3]"),
        Just(r"\pi"),
        Just("e"),
        Just("i"),
        Just(r"\text{ cm}"),
        Just(r"^\circ"),
        Just(r"\pm"),
        Just("|"),
        Just(r"\cup"),
        Just(r"\infty"),
        Just("and"),
        Just("or"),
        Just(r"\begin{pmatrix}"),
        Just(r"\end{pmatrix}"),
        Just("&"),
        Just(r"\\"),
        Just(r"\sin"),
        Just(r"\ln"),
        Just(r"\log_"),
        Just("$"),
        Just(r"\$"),
        Just("f("),
        Just(":"),
        Just("apples"),
        Just("B"),
        Just("1,234"),
        Just(r"\boxed{"),
        Just("Final answer:"),
        Just("####"),
        Just("</think>"),
        Just("<think>"),
        Just("```\n"),
    ]
    .prop_map(str::to_owned)
}

fn soup() -> impl Strategy<Value = String> {
    prop::collection::vec(fragment(), 0..24).prop_map(|parts| parts.concat())
}

/// A polynomial in x as text, in two orders of its terms.
fn polynomial() -> impl Strategy<Value = (String, String)> {
    prop::collection::vec(-9_i32..10, 1..5).prop_map(|coefficients| {
        let terms: Vec<String> = coefficients
            .iter()
            .enumerate()
            .map(|(power, c)| format!("({c})x^{{{}}}", power + 1))
            .collect();
        let turned: Vec<String> = terms.iter().rev().cloned().collect();
        (terms.join("+"), turned.join(" + "))
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn nothing_panics_and_equality_is_symmetric(a in any::<String>(), b in any::<String>()) {
        assert_eq!(equal(&a, &b), equal(&b, &a));
        let _ = (extract(&a), code_block(&a), visible(&a), is_correct(&a, &b));
    }

    #[test]
    fn the_same_of_answers_made_of_fragments(a in soup(), b in soup()) {
        assert_eq!(equal(&a, &b), equal(&b, &a));
        let _ = (extract(&a), code_block(&a), is_correct(&a, &b));
        let _ = equal(&a, &a);
    }

    #[test]
    fn an_integer_in_every_form(n in 0_u64..1_000_000_000_000) {
        let plain = n.to_string();
        for form in [
            grouped(n),
            grouped(n).replace(',', "{,}"),
            grouped(n).replace(',', r",\!"),
            format!("{n}.0"),
            format!("{n}."),
            format!("${n}$"),
            format!(r"\({n}\)"),
            format!(r"\frac{{{}}}{{2}}", 2 * n),
            format!("x = {n}"),
            format!("{n} apples"),
            format!(r"\text{{{n}}}"),
            format!("**{n}**"),
            format!("-(-{n})"),
            format!(r"\sqrt{{{n}^2}}"),
            format!("{n} + 0"),
        ] {
            assert!(equal(&plain, &form), "{} is {}", form, plain);
            assert!(equal(&form, &plain), "{} is {}", plain, form);
        }
        let response = format!("<think>\n{}\n</think>\n\n**Final answer:** {}", n + 1, grouped(n));
        assert!(is_correct(&response, &plain));
    }

    #[test]
    fn neighbours_differ(n in any::<i64>()) {
        let next = i128::from(n) + 1;
        let (n, next) = (n.to_string(), next.to_string());
        assert!(equal(&n, &n));
        assert!(!equal(&n, &next));
        assert!(!equal(&n, &format!("x = {next}")));
        assert!(!equal(&format!("x = {n}"), &format!("x = {next}")));
        assert!(!equal(&format!("({n}, 1)"), &format!("({next}, 1)")));
        assert!(!equal(&format!(r"\sqrt{{2}} + {n}"), &n));
        assert!(!equal(&format!("x + {n}"), &format!("x + {next}")));
    }

    #[test]
    fn fractions(a in -10_000_i64..10_000, b in 1_i64..10_000, k in 1_i64..100) {
        let plain = format!("{a}/{b}");
        assert!(equal(&plain, &format!(r"\frac{{{a}}}{{{b}}}")));
        assert!(equal(&plain, &format!(r"\dfrac{{{}}}{{{}}}", k * a, k * b)));
        assert!(!equal(&plain, &format!(r"\frac{{{}}}{{{b}}}", a + 1)));
        // A decimal is equal only if it is the value.
        let rounded = format!("{:.6}", a as f64 / b as f64);
        let exact = (i128::from(a) * 1_000_000) % i128::from(b) == 0;
        assert_eq!(equal(&plain, &rounded), exact, "{} against {}", plain, rounded);
    }

    #[test]
    fn polynomials((one, other) in polynomial(), shift in 1_i32..5) {
        assert!(equal(&one, &other), "{} is {}", one, other);
        assert!(equal(&format!("y = {one}"), &other));
        let moved = format!("{other} + {shift}");
        assert!(!equal(&one, &moved), "{} is not {}", one, moved);
        let renamed = other.replace('x', "t");
        assert!(!equal(&one, &renamed));
    }

    #[test]
    fn lists_have_no_order_and_tuples_do(mut items in prop::collection::vec(-50_i32..50, 2..6)) {
        let list = |items: &[i32]| items.iter().map(i32::to_string).collect::<Vec<_>>().join(", ");
        let before = list(&items);
        let tuple = format!("({before})");
        items.reverse();
        let after = list(&items);
        assert!(equal(&before, &after));
        assert!(equal(&format!(r"\{{{before}\}}"), &format!(r"\{{{after}\}}")));
        assert_eq!(equal(&tuple, &format!("({after})")), before == after);
    }
}

/// 64 KiB of anything, far below the 50 ms of a release build: no part is worse than linear in its length.
#[test]
fn long_inputs_are_quick() {
    let fill = |piece: &str| piece.repeat(65_536 / piece.len());
    let nested = format!("{}1{}", "(".repeat(2_000), ")".repeat(2_000));
    let mut inputs: Vec<String> = [
        "1",
        "1+",
        "(",
        "{",
        r"\frac{",
        r"\boxed{",
        "####",
        "Answer: ",
        "final answer",
        "the answer is ",
        "$",
        "**",
        ". ",
        "x^",
        "-",
        "1,",
        r"\pm\{",
        r"3\frac{",
        "A(",
        "|",
        "<think>",
        "</think>",
        "```\n",
        "answer",
        " ",
        "\\",
        "é",
        "\n",
    ]
    .iter()
    .map(|piece| fill(piece))
    .collect();
    // The longest that are read as mathematics.
    for piece in [
        r"\pm\{", r"3\frac{", "A(", "9!+", "9999!,", "x^", "(", "|", "-", "1,", r"\sin ", "{",
        "x+", r"\ln\ln ",
    ] {
        inputs.push(piece.repeat(4096 / piece.len()));
        inputs.push(piece.repeat(400 / piece.len()));
        inputs.push(format!("{}x", piece.repeat(60 / piece.len())));
    }
    inputs.push(nested);
    for (open, close) in [
        ("(x=", ")"),
        ("(1=", "=1)"),
        (r"\{1,", r"\}"),
        ("((1,2)=", ")"),
        (r"\{x<", r"\}"),
    ] {
        for depth in [9, 13, 38] {
            inputs.push(format!("{}1{}", open.repeat(depth), close.repeat(depth)));
        }
    }
    for input in &inputs {
        let start = Instant::now();
        let _ = equal(input, &format!("{input} "));
        let _ = equal(input, &format!("{input}1"));
        let _ = equal(input, "1");
        let _ = (extract(input), code_block(input), is_correct(input, "1"));
        let took = start.elapsed();
        let head: String = input.chars().take(20).collect();
        assert!(
            took < Duration::from_millis(1000),
            "{head:?}... of {} bytes took {took:?}",
            input.len()
        );
    }
}
