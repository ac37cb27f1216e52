//! A word problem: a structure with names and numbers put in, its statements shuffled, and its solution step by step.

use rand::Rng;
use rand::seq::SliceRandom;

use crate::scenario::{ADJECTIVES, OTHER_THINGS, SCENARIOS, SHIFTED, SIMPLE, Scenario, fill};
use crate::seed::{pick, weighted};
use crate::split::Split;
use crate::structure::{Op, Second, Structure};

/// The largest number that may occur.
const MAX_VALUE: u32 = 999;

/// One line of the solution.
#[derive(Clone, Debug)]
pub(crate) struct Step {
    /// The word for the quantity found here: "Anna", "red", "together", "difference".
    pub label: String,
    /// The word for the quantity it leans on.
    pub from: String,
    /// The statement as it stands in the problem; empty when the question asks for this step.
    pub statement: String,
    /// The second quantity of a sum or difference: its word, its value, and whether it is given by the problem.
    pub second: Option<(String, u32, bool)>,
    /// The calculation with its result: "14 + 5 = 19".
    pub calc: String,
    /// The value found.
    pub value: u32,
    /// "+", "-", "*" or "/".
    pub sign: char,
    /// Left and right operand.
    pub operands: (u32, u32),
}

/// A word problem with its solution.
#[derive(Clone, Debug)]
pub(crate) struct Problem {
    pub scenario: &'static str,
    pub statements: Vec<String>,
    pub question: String,
    /// The word and value the chain starts with, and the statement that gives it.
    pub start: (String, u32, String),
    pub steps: Vec<Step>,
}

/// How a problem is drawn.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ProblemSpec {
    pub steps: usize,
    pub split: Split,
    /// Sentences that the solution does not need: at most so many.
    pub distractors: usize,
    /// Use the templates that training never sees, and at least three distractors.
    pub shifted: bool,
    /// Use one short sentence for each relation.
    pub simple: bool,
}

impl Problem {
    /// Draws a problem.
    pub(crate) fn draw<R: Rng>(rng: &mut R, spec: ProblemSpec) -> Self {
        loop {
            let structure = Structure::draw_in(rng, spec.steps, spec.split);
            // Not every start fits a structure (half of an odd number), and few structures fit no start (five halves): try, then draw anew.
            for _ in 0..20 {
                if let Some(problem) = Self::fill_in(rng, &structure, spec) {
                    return problem;
                }
            }
        }
    }

    /// The text of the problem: statements in their order, then the question.
    pub(crate) fn text(&self) -> String {
        let mut text = self.statements.join(" ");
        text.push(' ');
        text.push_str(&self.question);
        text
    }

    /// The answer.
    pub(crate) fn answer(&self) -> u32 {
        self.steps.last().map_or(self.start.1, |s| s.value)
    }

    fn fill_in<R: Rng>(rng: &mut R, structure: &Structure, spec: ProblemSpec) -> Option<Self> {
        let settings = match (spec.shifted, spec.simple) {
            (true, _) => SHIFTED,
            (false, true) => SIMPLE,
            (false, false) => SCENARIOS,
        };
        let weights: Vec<f64> = settings.iter().map(|s| s.1).collect();
        let scenario = settings[weighted(rng, &weights)].0;
        let unit = pick(rng, scenario.units);
        let mut words: Vec<&'static str> = scenario.entities.to_vec();
        words.shuffle(rng);
        let mut free = words.into_iter();
        let mut next = || free.next();
        let ph = |word: &str| scenario.phrase.replace("{e}", word);

        let start_value = match weighted(rng, &[0.6, 0.34, 0.06]) {
            0 => rng.random_range(2..=20),
            1 => rng.random_range(20..=60),
            _ => rng.random_range(100..=200),
        };
        let start_word = next()?.to_owned();
        let start_text = fill(
            pick(rng, scenario.given),
            &[
                ("{x}", &ph(&start_word)),
                ("{n}", &start_value.to_string()),
                ("{u}", unit),
            ],
        );
        let mut statements = vec![start_text.clone()];
        // Words and values of the chain so far: index 0 is the start, index i the result of step i.
        let mut chain: Vec<(String, u32)> = vec![(start_word.clone(), start_value)];
        let mut steps: Vec<Step> = Vec::with_capacity(structure.ops.len());
        let mut question = String::new();
        let last = structure.ops.len() - 1;
        for (i, &op) in structure.ops.iter().enumerate() {
            let (from, prev) = chain[i].clone();
            let asked = structure.asked && i == last;
            let label = if asked {
                match op {
                    Op::Minus(_) => "difference",
                    _ => "together",
                }
                .to_owned()
            } else {
                next()?.to_owned()
            };
            let mut second = None;
            let (sign, right, value) = match op {
                Op::Add => {
                    let k = amount(rng);
                    ('+', k, prev + k)
                }
                Op::Sub => {
                    let k = amount(rng).min(prev.saturating_sub(2));
                    ('-', k, prev.checked_sub(k)?)
                }
                Op::Double => ('*', 2, prev * 2),
                Op::Triple => ('*', 3, prev * 3),
                Op::Half => ('/', 2, if prev % 2 == 0 { prev / 2 } else { return None }),
                Op::Plus(which) | Op::Minus(which) => {
                    let plus = matches!(op, Op::Plus(_));
                    let (word, other) = match which {
                        Second::Back(n) => chain[i.checked_sub(n)?].clone(),
                        Second::Given => {
                            let word = next()?.to_owned();
                            let other = if plus {
                                amount(rng)
                            } else {
                                amount(rng).min(prev.saturating_sub(2))
                            };
                            let slots = [
                                ("{x}", &*ph(&word)),
                                ("{n}", &*other.to_string()),
                                ("{u}", unit),
                            ];
                            statements.push(fill(pick(rng, scenario.given), &slots));
                            (word, other)
                        }
                    };
                    second = Some((word, other, which == Second::Given));
                    let value = if plus {
                        prev + other
                    } else {
                        prev.checked_sub(other)?
                    };
                    (if plus { '+' } else { '-' }, other, value)
                }
            };
            // Nothing, one (English would need the singular) and numbers of four digits are left out.
            let too_hard = match sign {
                '*' if right == 3 => prev > 40,
                '*' => prev > 120,
                '/' => prev > 240,
                _ => false,
            };
            if value < 2 || right < 2 || value > MAX_VALUE || too_hard {
                return None;
            }
            let templates = templates(scenario, op);
            let z = second.as_ref().map_or(String::new(), |s| ph(&s.0));
            let n = right.to_string();
            let slots = [
                ("{x}", &*ph(&label)),
                ("{y}", &*ph(&from)),
                ("{z}", &*z),
                ("{n}", &*n),
                ("{u}", unit),
            ];
            let statement = if asked {
                let ask = if matches!(op, Op::Plus(_)) {
                    scenario.ask_plus
                } else {
                    scenario.ask_minus
                };
                question = fill(pick(rng, ask), &slots[1..]);
                String::new()
            } else {
                fill(pick(rng, templates), &slots)
            };
            if !asked {
                statements.push(statement.clone());
            }
            let calc = format!("{prev} {sign} {right} = {value}");
            steps.push(Step {
                label: label.clone(),
                from,
                statement,
                second,
                calc,
                value,
                sign,
                operands: (prev, right),
            });
            chain.push((label, value));
        }
        if !structure.asked {
            let x = ph(&chain[last + 1].0);
            question = fill(pick(rng, scenario.ask), &[("{x}", &x), ("{u}", unit)]);
        }
        let least = if spec.shifted {
            3.min(spec.distractors)
        } else {
            0
        };
        for _ in 0..rng.random_range(least..=spec.distractors) {
            let Some(word) = next() else { break };
            let n = amount(rng).to_string();
            let text = if rng.random_bool(0.4) {
                // Something of the same kind that leans on the chain, but that nobody asks for.
                let stated = chain.len() - usize::from(structure.asked);
                let (base, _) = &chain[rng.random_range(0..stated)];
                let list = match rng.random_range(0..3) {
                    0 => scenario.add,
                    1 => scenario.sub,
                    _ => scenario.double,
                };
                fill(
                    pick(rng, list),
                    &[
                        ("{x}", &ph(word)),
                        ("{y}", &ph(base)),
                        ("{n}", &n),
                        ("{u}", unit),
                    ],
                )
            } else {
                let slots = [
                    ("{x}", &*ph(word)),
                    ("{n}", &*n),
                    ("{a}", pick(rng, ADJECTIVES)),
                    ("{v}", pick(rng, OTHER_THINGS)),
                ];
                fill(pick(rng, scenario.aside), &slots)
            };
            statements.push(text);
        }
        statements.shuffle(rng);
        let start = (start_word, start_value, start_text);
        Some(Self {
            scenario: scenario.name,
            statements,
            question,
            start,
            steps,
        })
    }
}

/// The number in "5 more than": mostly small.
fn amount<R: Rng>(rng: &mut R) -> u32 {
    match weighted(rng, &[0.7, 0.26, 0.04]) {
        0 => rng.random_range(2..=9),
        1 => rng.random_range(10..=30),
        _ => rng.random_range(50..=100),
    }
}

fn templates(scenario: &Scenario, op: Op) -> &'static [&'static str] {
    match op {
        Op::Add => scenario.add,
        Op::Sub => scenario.sub,
        Op::Double => scenario.double,
        Op::Triple => scenario.triple,
        Op::Half => scenario.half,
        Op::Plus(_) => scenario.plus,
        Op::Minus(_) => scenario.minus,
    }
}
