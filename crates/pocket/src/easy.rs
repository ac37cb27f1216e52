//! Easy questions: greetings, facts, and one small step of arithmetic.

use rand::Rng;
use rand::seq::SliceRandom;

use crate::facts::{GREETINGS, RELATIONS};
use crate::scenario::{NAMES, THINGS, fill, people};
use crate::seed::{fnv1a, pick, weighted};
use crate::split::Split;

/// A question with its short answer.
#[derive(Clone, Debug)]
pub(crate) struct Easy {
    /// What it asks for: "capital", "sum", "greeting".
    pub task: &'static str,
    pub question: String,
    pub answer: String,
    /// What a thought says about it.
    pub reason: String,
    /// Zero for what is known, one for what is calculated.
    pub steps: usize,
}

impl Easy {
    /// Draws a question of `split`: a question of the test set never occurs in training, though the fact behind it does.
    pub(crate) fn draw<R: Rng>(rng: &mut R, split: Split) -> Self {
        loop {
            let easy = match weighted(rng, &[0.06, 0.44, 0.5]) {
                0 => Self::greeting(rng),
                1 => Self::fact(rng),
                _ => Self::one_step(rng),
            };
            // Greetings are too few to be split.
            if easy.task == "greeting" || Split::of_hash(fnv1a(easy.question.as_bytes())) == split {
                return easy;
            }
        }
    }

    fn greeting<R: Rng>(rng: &mut R) -> Self {
        let (said, back) = GREETINGS[rng.random_range(0..GREETINGS.len())];
        let question = pick(rng, said).to_owned();
        Self {
            task: "greeting",
            question,
            answer: back.to_owned(),
            reason: "There is nothing to solve here.".to_owned(),
            steps: 0,
        }
    }

    fn fact<R: Rng>(rng: &mut R) -> Self {
        let relation = &RELATIONS[rng.random_range(0..RELATIONS.len())];
        let (a, b) = relation.pairs[rng.random_range(0..relation.pairs.len())];
        let question = fill(pick(rng, relation.ask), &[("{a}", a)]);
        let reason = fill(pick(rng, relation.prose), &[("{a}", a), ("{b}", b)]);
        Self {
            task: relation.name,
            question,
            answer: b.to_owned(),
            reason,
            steps: 0,
        }
    }

    fn one_step<R: Rng>(rng: &mut R) -> Self {
        let a: u32 = rng.random_range(2..=60);
        let b: u32 = match weighted(rng, &[0.7, 0.3]) {
            0 => rng.random_range(2..=9),
            _ => rng.random_range(10..=20),
        };
        let (task, question, answer, reason) = match rng.random_range(0..8) {
            0 => (
                "sum",
                sum_question(rng, a, b),
                a + b,
                format!("{a} + {b} = {}.", a + b),
            ),
            1 => {
                let (a, b) = (a.max(b) + 1, a.min(b));
                (
                    "difference",
                    difference_question(rng, a, b),
                    a - b,
                    format!("{a} - {b} = {}.", a - b),
                )
            }
            2 => {
                let q = pick(
                    rng,
                    &["What is twice {a}?", "What is 2 times {a}?", "Double {a}."],
                );
                (
                    "double",
                    q.replace("{a}", &a.to_string()),
                    a * 2,
                    format!("{a} * 2 = {}.", a * 2),
                )
            }
            3 => {
                let q = pick(
                    rng,
                    &[
                        "What is half of {a}?",
                        "Tell me half of {a}.",
                        "What is {a} / 2?",
                    ],
                );
                (
                    "half",
                    q.replace("{a}", &(a * 2).to_string()),
                    a,
                    format!("{} / 2 = {a}.", a * 2),
                )
            }
            4 => {
                let b = if a == b { b + 7 } else { b };
                let (b, a) = if rng.random_bool(0.5) { (a, b) } else { (b, a) };
                let larger = rng.random_bool(0.5);
                let word = if larger {
                    pick(rng, &["larger", "more", "bigger"])
                } else {
                    pick(rng, &["smaller", "less"])
                };
                let value = if larger { a.max(b) } else { a.min(b) };
                (
                    "compare",
                    format!("Which is {word}, {a} or {b}?"),
                    value,
                    format!("{} is larger than {}.", a.max(b), a.min(b)),
                )
            }
            5 => {
                let (name, thing) = (pick(rng, NAMES), pick(rng, THINGS));
                let tail = pick(rng, &["gets {b} more", "finds {b} more", "buys {b} more"])
                    .replace("{b}", &b.to_string());
                let q = format!(
                    "{name} has {a} {thing} and {tail}. How many {thing} does {name} have now?"
                );
                ("gain", q, a + b, format!("{a} + {b} = {}.", a + b))
            }
            6 => {
                let (a, b) = (a.max(b) + 1, a.min(b));
                let (name, thing) = (pick(rng, NAMES), pick(rng, THINGS));
                let tail = pick(rng, &["loses {b}", "sells {b}", "gives away {b}"])
                    .replace("{b}", &b.to_string());
                let q = format!(
                    "{name} has {a} {thing} and {tail}. How many {thing} does {name} have now?"
                );
                ("loss", q, a - b, format!("{a} - {b} = {}.", a - b))
            }
            _ => {
                let mut names = NAMES.to_vec();
                names.shuffle(rng);
                let (x, y, u) = (names[0], names[1], pick(rng, THINGS));
                let given = fill(
                    pick(rng, people().given),
                    &[("{x}", y), ("{n}", &a.to_string()), ("{u}", u)],
                );
                let more = fill(
                    pick(rng, people().add),
                    &[("{x}", x), ("{y}", y), ("{n}", &b.to_string()), ("{u}", u)],
                );
                (
                    "more",
                    format!("{given} {more} How many {u} does {x} have?"),
                    a + b,
                    format!("{a} + {b} = {}.", a + b),
                )
            }
        };
        Self {
            task,
            question,
            answer: answer.to_string(),
            reason,
            steps: 1,
        }
    }
}

fn sum_question<R: Rng>(rng: &mut R, a: u32, b: u32) -> String {
    let template = pick(
        rng,
        &[
            "What is {a} + {b}?",
            "What is {a} plus {b}?",
            "Add {b} to {a}.",
            "How much is {a} + {b}?",
        ],
    );
    filled(template, a, b)
}

fn difference_question<R: Rng>(rng: &mut R, a: u32, b: u32) -> String {
    let template = pick(
        rng,
        &[
            "What is {a} - {b}?",
            "What is {a} minus {b}?",
            "Take {b} away from {a}.",
            "How much is {a} - {b}?",
        ],
    );
    filled(template, a, b)
}

/// A template with its two numbers.
fn filled(template: &str, a: u32, b: u32) -> String {
    template
        .replace("{a}", &a.to_string())
        .replace("{b}", &b.to_string())
}

/// The thought about an easy question, short or long.
pub(crate) fn think<R: Rng>(rng: &mut R, easy: &Easy, concise: f64) -> String {
    if rng.random_bool(concise) {
        return easy.reason.clone();
    }
    let opener = pick(
        rng,
        &[
            "This is a short question.",
            "Okay, this is simple.",
            "Let me see. This one is easy.",
        ],
    );
    let mut text = format!("{opener} {}", easy.reason);
    if rng.random_bool(0.6) {
        let again = pick(
            rng,
            &["Wait, let me check that again.", "Hmm, is that right?"],
        );
        text.push_str(&format!(" {again} {} Yes, that is right.", easy.reason));
    }
    text
}
