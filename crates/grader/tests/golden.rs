//! The pairs of `golden/grader.tsv`, of which it is known by construction whether they are the same: none that differ may be
//! equal, and 99 % of those that are the same must be. Math-Verify's answers stand beside them (`golden/grader.py`).

#![expect(clippy::print_stdout, reason = "the counts are read with --nocapture")]

use std::collections::BTreeMap;

use edgethink_grader::equal;

struct Pair<'a> {
    class: &'a str,
    got: &'a str,
    want: &'a str,
    same: bool,
    /// What Math-Verify 0.9.0 says.
    theirs: Option<bool>,
}

fn pairs() -> Vec<Pair<'static>> {
    include_str!("../../../golden/grader.tsv")
        .lines()
        .skip(1)
        .map(|line| {
            let fields: Vec<&str> = line.split('\t').collect();
            let [class, got, want, same, theirs] = fields[..] else {
                panic!("five columns: {line:?}");
            };
            Pair {
                class,
                got,
                want,
                same: same == "1",
                theirs: (theirs != "-").then(|| theirs == "1"),
            }
        })
        .collect()
}

#[test]
fn no_false_positive_and_hardly_a_false_negative() {
    let pairs = pairs();
    assert!(pairs.len() >= 1_500, "only {} pairs", pairs.len());
    let said: Vec<bool> = pairs.iter().map(|p| equal(p.got, p.want)).collect();
    let mut missed = 0;
    let mut accepted = Vec::new();
    let mut theirs: BTreeMap<&str, [usize; 2]> = BTreeMap::new();
    for (pair, &said) in pairs.iter().zip(&said) {
        assert_eq!(
            said,
            equal(pair.want, pair.got),
            "{:?} {:?}",
            pair.got,
            pair.want
        );
        if said && !pair.same {
            accepted.push(format!(
                "{}: {:?} for {:?}",
                pair.class, pair.got, pair.want
            ));
        }
        if !said && pair.same {
            missed += 1;
            println!("missed {}: {:?} for {:?}", pair.class, pair.got, pair.want);
        }
        match pair.theirs {
            Some(true) if !pair.same => theirs.entry(pair.class).or_default()[0] += 1,
            Some(false) if pair.same => theirs.entry(pair.class).or_default()[1] += 1,
            _ => {}
        }
    }
    println!(
        "{} pairs: {} wrongly equal, {missed} missed; Math-Verify by class [wrongly equal, missed]: {theirs:?}",
        pairs.len(),
        accepted.len()
    );
    assert!(
        accepted.is_empty(),
        "wrongly equal:\n{}",
        accepted.join("\n")
    );
    assert!(
        missed * 100 <= pairs.len(),
        "{missed} of {} missed",
        pairs.len()
    );
}

#[test]
fn a_value_is_equal_to_itself() {
    for pair in pairs() {
        for text in [pair.got, pair.want] {
            assert!(equal(text, text), "{text:?}");
            let boxed = format!("<think>\n1\n</think>\nSo it is $\\boxed{{{text}}}$.");
            assert!(edgethink_grader::is_correct(&boxed, text), "{boxed:?}");
        }
    }
}
