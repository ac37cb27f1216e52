//! How a solution is thought aloud: the same steps in few words or in many.
//!
//! Every thought first walks from the question back to what is given (the plan) and then calculates forward along it. So each next word needs
//! one look at the problem, which is what a model of a few layers can do. Wordy thoughts add what budget forcing later takes away.

use rand::Rng;
use rand::seq::SliceRandom;

use crate::problem::{Problem, Step};
use crate::seed::{pick, weighted};

/// What a thought contains.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Style {
    /// Repeats the problem word by word first.
    restate: bool,
    /// The plan in sentences instead of a list.
    long_plan: bool,
    /// Each step with its statement and a conclusion, instead of the bare calculation.
    long_steps: bool,
    /// Chance that a step is doubted and calculated again at once.
    doubt: f64,
    /// Calculates everything again at the end.
    recheck: bool,
    /// Small talk around the parts.
    chatter: bool,
}

impl Style {
    /// The plan and the bare calculations: the shortest thought that is taught.
    pub(crate) const CONCISE: Self = Self {
        restate: false,
        long_plan: false,
        long_steps: false,
        doubt: 0.0,
        recheck: false,
        chatter: false,
    };

    /// Draws a style. `concise` is the share of [`Style::CONCISE`]; `steps` keeps long problems within the context.
    pub(crate) fn draw<R: Rng>(rng: &mut R, concise: f64, steps: usize) -> Self {
        if rng.random_bool(concise) {
            return Self::CONCISE;
        }
        match weighted(rng, &[0.2, 0.8]) {
            0 => Self {
                restate: false,
                long_plan: rng.random_bool(0.5),
                long_steps: rng.random_bool(0.3),
                doubt: 0.0,
                recheck: rng.random_bool(0.4),
                chatter: rng.random_bool(0.5),
            },
            _ => Self {
                restate: steps <= 6 && rng.random_bool(0.5),
                long_plan: rng.random_bool(0.8),
                long_steps: rng.random_bool(0.9),
                doubt: if steps <= 5 { 0.4 } else { 0.15 },
                recheck: rng.random_bool(if steps <= 6 { 0.8 } else { 0.4 }),
                chatter: true,
            },
        }
    }
}

/// Which thoughts are drawn.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Thoughts {
    /// Share of shorthand.
    pub shorthand: f64,
    /// Share of [`Style::CONCISE`] among the others.
    pub concise: f64,
    /// Chance that a thought with an opening sentence has the usual one; otherwise it has any.
    pub usual_opener: f64,
    /// Problem and thought are at most so long, if a style is that makes them so.
    pub max_chars: usize,
}

/// A thought in shorthand or one in words, as [`write_within`] draws it.
pub(crate) fn draw<R: Rng>(rng: &mut R, problem: &Problem, thoughts: Thoughts) -> String {
    // No draw where there is no choice: texts without shorthand stay what they were.
    if thoughts.shorthand > 0.0 && rng.random_bool(thoughts.shorthand) {
        shorthand(problem)
    } else {
        write_within(rng, problem, thoughts)
    }
}

/// Writes a thought in a style that keeps problem and thought within `max_chars`; the concise one if no other drawn style does.
fn write_within<R: Rng>(rng: &mut R, problem: &Problem, thoughts: Thoughts) -> String {
    let room = thoughts.max_chars.saturating_sub(problem.text().len());
    for _ in 0..6 {
        let style = Style::draw(rng, thoughts.concise, problem.steps.len());
        let thought = write(rng, problem, style, thoughts.usual_opener);
        if thought.len() <= room {
            return thought;
        }
    }
    write(rng, problem, Style::CONCISE, 0.0)
}

/// Writes the thought that solves `problem`, without its tags.
fn write<R: Rng>(rng: &mut R, problem: &Problem, style: Style, usual_opener: f64) -> String {
    let mut parts: Vec<String> = Vec::new();
    if style.chatter {
        let usual = usual_opener > 0.0 && rng.random_bool(usual_opener);
        let opener = if usual {
            OPENERS[0]
        } else {
            pick(rng, OPENERS)
        };
        parts.push(opener.to_owned());
    }
    if style.restate {
        parts.push(format!("{} {}", pick(rng, RESTATE), problem.text()));
    }
    parts.push(if style.long_plan {
        long_plan(problem)
    } else {
        short_plan(problem)
    });
    parts.push(if style.long_steps {
        long_steps(rng, problem, style)
    } else {
        format!("Now {}", short_steps(problem))
    });
    if style.recheck {
        parts.push(format!("{} {}", pick(rng, RECHECK), short_steps(problem)));
        parts.push(pick(rng, AGREE).to_owned());
    }
    if style.chatter {
        parts.push(format!("So the answer is {}.", problem.answer()));
    }
    parts.join("\n")
}

/// Words of a problem in any order as the prompt, and what the problem says about each as what is learnt: its equation, now and then its
/// sentence, and the plan of the whole.
pub(crate) fn reading<R: Rng>(rng: &mut R, problem: &Problem) -> (String, String) {
    // Word, equation, sentence.
    let mut facts: Vec<(&str, String, &str)> = problem
        .steps
        .iter()
        .map(|s| (&*s.label, equation(s), &*s.statement))
        .collect();
    facts.push((&problem.start.0, start_equation(problem), &problem.start.2));
    for (word, value, given) in problem.steps.iter().filter_map(|s| s.second.as_ref()) {
        if *given {
            facts.push((word, format!("{word} = {value}"), ""));
        }
    }
    facts.shuffle(rng);
    let words: Vec<&str> = facts.iter().map(|f| f.0).collect();
    let list = words.join(" ");
    let mut found = Vec::new();
    if rng.random_bool(0.25) {
        facts.retain(|f| !f.2.is_empty());
        facts.truncate(4);
        let list: Vec<&str> = facts.iter().map(|f| f.0).collect();
        let lines: Vec<String> = facts.iter().map(|f| format!("{}: {}", f.0, f.2)).collect();
        return (format!("Lines: {}.\n", list.join(" ")), lines.join(" "));
    }
    for (_, equation, _) in &facts {
        found.push(format!("{equation}."));
    }
    let mut text = found.join(" ");
    if rng.random_bool(0.6) {
        text = format!("{text}\n{}", short_plan(problem));
    }
    (format!("Read: {list}.\n"), text)
}

const OPENERS: &[&str] = &[
    "Okay, let me think about this step by step.",
    "Hmm, this needs some steps. Let me think.",
    "Let me see what I have to find here.",
    "Alright, I will go through this slowly.",
];
const RESTATE: &[&str] = &[
    "Let me read the problem again.",
    "The problem says this.",
    "First I write down what is said.",
];
const RECHECK: &[&str] = &[
    "Let me go over it once more.",
    "Before I answer, I check all of it again.",
    "Let me check the whole thing.",
];
const AGREE: &[&str] = &[
    "Yes, it is the same again.",
    "Good, that fits.",
    "That is the same, so it is right.",
];
const DOUBT: &[&str] = &[
    "Wait, let me check that again.",
    "Hmm, is that right?",
    "Wait, I should be careful here.",
];
const SURE: &[&str] = &[
    "Yes, that is right.",
    "Okay, that is right.",
    "Yes, I am sure.",
];

/// The plan and the calculations in few tokens: "Plan: Ben Anna Tom.\nNow Tom =14 Anna Tom +5 =19 Ben Anna *2 =38". A number stands right
/// behind its sign, which saves the token of the space (every digit is a token of its own), and the left operand is the result just before.
/// An adapter can learn this form only if its base has read it (EXPERIMENTS.md, "A shorthand").
fn shorthand(problem: &Problem) -> String {
    let (start, value, _) = &problem.start;
    let mut text = format!("{}\nNow {start} ={value}", short_plan(problem));
    for Step {
        label,
        from,
        sign,
        second,
        operands: (_, right),
        value,
        ..
    } in &problem.steps
    {
        let read = match second {
            Some((word, other, _)) => format!("{sign} {word} {other}"),
            None => format!("{sign}{right}"),
        };
        text.push_str(&format!(" {label} {from} {read} ={value}"));
    }
    text
}

/// "Plan: Ben Anna Tom." Each name follows from the one before it by one look at the problem.
fn short_plan(problem: &Problem) -> String {
    let mut plan = "Plan:".to_owned();
    for step in problem.steps.iter().rev() {
        plan.push_str(&format!(" {}", step.label));
    }
    plan.push_str(&format!(" {}.", problem.start.0));
    plan
}

/// "I need Ben. To get Ben I need Anna. ... Tom is given."
fn long_plan(problem: &Problem) -> String {
    let mut plan = String::new();
    for (i, step) in problem.steps.iter().rev().enumerate() {
        plan.push_str(if i == 0 {
            "I want to know"
        } else {
            " To get it I need"
        });
        plan.push_str(&format!(
            " {}, and {} comes from {}.",
            step.label, step.label, step.from
        ));
    }
    plan.push_str(&format!(" And {} is given.", problem.start.0));
    plan
}

/// "Tom = 14. Anna = Tom + 5 = 14 + 5 = 19. Ben = Anna + Cara 7 = 19 + 7 = 26."
fn short_steps(problem: &Problem) -> String {
    let mut text = format!("{}.", start_equation(problem));
    for step in &problem.steps {
        text.push_str(&format!(" {}.", solved(step)));
    }
    text
}

/// "Tom = 14"
fn start_equation(problem: &Problem) -> String {
    format!("{} = {}", problem.start.0, problem.start.1)
}

/// What a statement says, as it is read: "Anna = Tom + 5", "Ben = Anna + Cara".
fn equation(step: &Step) -> String {
    let right = match &step.second {
        Some((word, _, _)) => word.clone(),
        None => step.operands.1.to_string(),
    };
    format!("{} = {} {} {right}", step.label, step.from, step.sign)
}

/// The equation with its numbers put in: "Anna = Tom + 5 = 14 + 5 = 19". The value of a second word follows it at once: "Anna + Cara 7".
fn solved(step: &Step) -> String {
    let second = match &step.second {
        Some((_, value, _)) => format!(" {value}"),
        None => String::new(),
    };
    format!("{}{second} = {}", equation(step), step.calc)
}

fn long_steps<R: Rng>(rng: &mut R, problem: &Problem, style: Style) -> String {
    let mut text = format!(
        "I start with {}. {} So {}.",
        problem.start.0,
        problem.start.2,
        start_equation(problem)
    );
    for step in &problem.steps {
        if step.statement.is_empty() {
            text.push_str(&format!(
                " Last comes {}. The question asks for it.",
                step.label
            ));
        } else {
            text.push_str(&format!(" Next comes {}. {}", step.label, step.statement));
        }
        text.push_str(&format!(" So {}.", solved(step)));
        if style.doubt > 0.0 && rng.random_bool(style.doubt) {
            text.push_str(&format!(
                " {} {}. {}",
                pick(rng, DOUBT),
                solved(step),
                pick(rng, SURE)
            ));
        }
    }
    text
}
