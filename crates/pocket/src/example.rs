//! The examples of the world, typed, as endless streams by (seed, split, kind).

use rand::Rng;
use serde::{Deserialize, Serialize};

use crate::drill;
use crate::easy::{self, Easy};
use crate::facts::RELATIONS;
use crate::problem::{Problem, ProblemSpec};
use crate::scenario::fill;
use crate::seed::{item_rng, pick, weighted};
use crate::split::Split;
use crate::thought::{self, Thoughts};
use crate::warmup;

/// Who speaks, and what.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Message {
    /// "user" or "assistant".
    pub role: String,
    /// The text of the turn.
    pub content: String,
}

impl Message {
    fn new(role: &str, content: impl Into<String>) -> Self {
        Self {
            role: role.to_owned(),
            content: content.into(),
        }
    }
}

/// Easy questions need no thought, hard ones do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// Greetings, facts, and one step of arithmetic.
    Easy,
    /// Word problems of two to eight dependent steps.
    Hard,
}

/// A question with its answer, as evaluation and reinforcement learning read it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Question {
    /// The conversation up to the answer: one user turn.
    pub prompt: Vec<Message>,
    /// The expected answer, as a number or a word.
    pub answer: String,
    /// Easy or hard.
    pub kind: Kind,
    /// Dependent steps: 0 for facts, 1 for one small calculation, 2 to 8 for hard problems.
    pub steps: usize,
    /// What is asked: the relation of a fact, the operation, or the setting of a word problem.
    pub task: String,
}

/// A question with a thought and an answer, for fine-tuning.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Worked {
    /// The conversation up to the answer: one user turn.
    pub prompt: Vec<Message>,
    /// One assistant turn: `<think>`, the thought, `</think>`, the visible answer.
    pub completion: Vec<Message>,
    /// The expected answer.
    pub answer: String,
    /// Easy or hard.
    pub kind: Kind,
    /// Dependent steps.
    pub steps: usize,
    /// What is asked.
    pub task: String,
}

/// A line of the base model's training text.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Document {
    /// Plain text.
    Text {
        /// The document.
        text: String,
    },
    /// A text of which only the end is learned: what stands in a problem is chance, what follows from it is not.
    Worked {
        /// The problem.
        prompt: String,
        /// Its solution.
        completion: String,
    },
    /// A conversation.
    Chat {
        /// Its turns.
        messages: Vec<Message>,
    },
}

/// How hard problems are drawn, and what is asked along with them.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HardSpec {
    /// Weights of 2, 3, ... steps; the first is for 2 steps.
    pub steps: Vec<f64>,
    /// At most so many sentences that the solution does not need.
    pub distractors: usize,
    /// Other templates and more distractors: for the shifted evaluation set.
    #[serde(default)]
    pub shifted: bool,
    /// People and one short sentence for each relation: for the first texts of a training.
    #[serde(default)]
    pub simple: bool,
    /// Token budgets named in the last line of the user turn, drawn evenly; empty = none.
    #[serde(default)]
    pub budgets: Vec<u32>,
}

impl HardSpec {
    /// Two to eight steps, equally often, up to three distractors.
    #[must_use]
    pub fn even() -> Self {
        Self {
            steps: vec![1.0; 7],
            distractors: 3,
            shifted: false,
            simple: false,
            budgets: Vec::new(),
        }
    }

    fn draw<R: Rng>(&self, rng: &mut R, split: Split) -> Problem {
        let steps = 2 + weighted(rng, &self.steps);
        Problem::draw(
            rng,
            ProblemSpec {
                steps,
                split,
                distractors: self.distractors,
                shifted: self.shifted,
                simple: self.simple,
            },
        )
    }

    fn user_turn<R: Rng>(&self, rng: &mut R, text: String) -> Vec<Message> {
        if self.budgets.is_empty() {
            return vec![Message::new("user", text)];
        }
        let budget = self.budgets[rng.random_range(0..self.budgets.len())];
        vec![Message::new(
            "user",
            format!("{text}\nUse at most {budget} tokens."),
        )]
    }
}

/// Shares of the kinds of text that the base model reads; they need not sum to one.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BaseMix {
    /// Words repeated, for the first texts of a training.
    #[serde(default)]
    pub repeat: f64,
    /// Pairs of words in other orders, for the first texts of a training.
    #[serde(default)]
    pub pairs: f64,
    /// Worked solutions of hard problems.
    pub worked: f64,
    /// Thoughts about easy questions.
    #[serde(default)]
    pub worked_easy: f64,
    /// Problems with their statements looked up in another order: what teaches a small model to find things.
    pub reading: f64,
    /// Arithmetic by itself, in shorthand as often as the worked solutions are.
    pub drill: f64,
    /// Facts in prose.
    pub facts: f64,
    /// Chats about easy questions.
    pub easy_chat: f64,
    /// Chats where a hard problem is answered at once.
    pub hard_chat: f64,
    /// Share of concise thoughts among the worked solutions.
    pub concise: f64,
    /// Share of thoughts in shorthand among the worked solutions of hard problems, and of such chains among the arithmetic.
    #[serde(default)]
    pub shorthand: f64,
    /// Longer worked solutions are told in fewer words (about 3 characters are a token).
    pub max_chars: usize,
    /// How the hard problems are drawn.
    pub hard: HardSpec,
}

/// What the fine-tuning examples are made of.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SftMix {
    /// Share of easy questions.
    pub easy: f64,
    /// Share of concise thoughts.
    pub concise: f64,
    /// Share of thoughts in shorthand, of hard problems.
    #[serde(default)]
    pub shorthand: f64,
    /// Chance that a thought which begins with a sentence begins with the usual one. The most likely thought is then a wordy one, however
    /// many short ones there are beside it.
    #[serde(default)]
    pub usual_opener: f64,
    /// Longer examples are told in fewer words (about 3 characters are a token).
    pub max_chars: usize,
    /// How the hard problems are drawn.
    pub hard: HardSpec,
}

impl HardSpec {
    /// What is wrong with these settings, one line each.
    pub(crate) fn problems(&self, at: &str, found: &mut Vec<String>) {
        if !(1..=7).contains(&self.steps.len()) || !is_weights(&self.steps) {
            found.push(format!(
                "{at}.steps must hold 1 to 7 weights, for 2 to 8 steps, of which one is above 0"
            ));
        }
        if self.distractors > 20 {
            found.push(format!(
                "{at}.distractors is {}, at most 20 fit",
                self.distractors
            ));
        }
    }
}

impl BaseMix {
    /// What is wrong with these settings, one line each.
    pub(crate) fn problems(&self, at: &str, found: &mut Vec<String>) {
        let shares = [
            self.repeat,
            self.pairs,
            self.worked,
            self.worked_easy,
            self.reading,
            self.drill,
            self.facts,
            self.easy_chat,
            self.hard_chat,
        ];
        if !is_weights(&shares) {
            found.push(format!(
                "{at}: the shares must be 0 or more, and one above 0"
            ));
        }
        for (name, share) in [("concise", self.concise), ("shorthand", self.shorthand)] {
            if !(0.0..=1.0).contains(&share) {
                found.push(format!("{at}.{name} is {share}, not a share from 0 to 1"));
            }
        }
        self.hard.problems(&format!("{at}.hard"), found);
    }
}

impl SftMix {
    /// What is wrong with these settings, one line each.
    pub(crate) fn problems(&self, at: &str, found: &mut Vec<String>) {
        let shares = [
            ("easy", self.easy),
            ("concise", self.concise),
            ("shorthand", self.shorthand),
            ("usual_opener", self.usual_opener),
        ];
        for (name, share) in shares {
            if !(0.0..=1.0).contains(&share) {
                found.push(format!("{at}.{name} is {share}, not a share from 0 to 1"));
            }
        }
        self.hard.problems(&format!("{at}.hard"), found);
    }
}

fn is_weights(weights: &[f64]) -> bool {
    weights.iter().all(|w| w.is_finite() && *w >= 0.0) && weights.iter().any(|w| *w > 0.0)
}

/// An endless stream of base training text. `stage` tells apart streams that follow each other in one training.
pub fn documents(
    seed: u64,
    split: Split,
    stage: usize,
    mix: BaseMix,
) -> impl Iterator<Item = Document> {
    (0..).map(move |i| {
        document(
            &mut item_rng(seed, &format!("base/{}/{stage}", split.name()), i),
            split,
            &mix,
        )
    })
}

/// An endless stream of worked examples for fine-tuning.
pub fn worked(seed: u64, split: Split, mix: SftMix) -> impl Iterator<Item = Worked> {
    (0..).map(move |i| {
        let rng = &mut item_rng(seed, &format!("sft/{}", split.name()), i);
        if rng.random_bool(mix.easy) {
            let easy = Easy::draw(rng, split);
            let thought = easy::think(rng, &easy, mix.concise);
            let shown = if easy.task == "greeting" {
                easy.answer.clone()
            } else {
                format!("**Final answer:** {}", easy.answer)
            };
            let question = easy_question(easy);
            finish(question, &thought, &shown)
        } else {
            let problem = mix.hard.draw(rng, split);
            let thoughts = Thoughts {
                shorthand: mix.shorthand,
                concise: mix.concise,
                usual_opener: mix.usual_opener,
                max_chars: mix.max_chars,
            };
            let thought = thought::draw(rng, &problem, thoughts);
            let prompt = mix.hard.user_turn(rng, problem.text());
            let question = hard_question(&problem, prompt);
            let shown = format!("**Final answer:** {}", question.answer);
            finish(question, &thought, &shown)
        }
    })
}

/// An endless stream of easy questions.
pub fn easy_questions(seed: u64, split: Split) -> impl Iterator<Item = Question> {
    (0..).map(move |i| {
        easy_question(Easy::draw(
            &mut item_rng(seed, &format!("easy/{}", split.name()), i),
            split,
        ))
    })
}

/// An endless stream of hard questions.
pub fn hard_questions(seed: u64, split: Split, spec: HardSpec) -> impl Iterator<Item = Question> {
    let stream = format!("hard/{}/{}", split.name(), spec.shifted);
    (0..).map(move |i| {
        let rng = &mut item_rng(seed, &stream, i);
        let problem = spec.draw(rng, split);
        let prompt = spec.user_turn(rng, problem.text());
        hard_question(&problem, prompt)
    })
}

fn easy_question(easy: Easy) -> Question {
    let prompt = vec![Message::new("user", easy.question)];
    Question {
        prompt,
        answer: easy.answer,
        kind: Kind::Easy,
        steps: easy.steps,
        task: easy.task.to_owned(),
    }
}

fn hard_question(problem: &Problem, prompt: Vec<Message>) -> Question {
    let answer = problem.answer().to_string();
    Question {
        prompt,
        answer,
        kind: Kind::Hard,
        steps: problem.steps.len(),
        task: problem.scenario.to_owned(),
    }
}

fn finish(q: Question, thought: &str, shown: &str) -> Worked {
    let completion = vec![Message::new(
        "assistant",
        format!("<think>\n{thought}\n</think>\n\n{shown}"),
    )];
    Worked {
        prompt: q.prompt,
        completion,
        answer: q.answer,
        kind: q.kind,
        steps: q.steps,
        task: q.task,
    }
}

fn document<R: Rng>(rng: &mut R, split: Split, mix: &BaseMix) -> Document {
    match weighted(
        rng,
        &[
            mix.worked,
            mix.drill,
            mix.facts,
            mix.easy_chat,
            mix.hard_chat,
            mix.reading,
            mix.repeat,
            mix.pairs,
            mix.worked_easy,
        ],
    ) {
        0 => {
            let problem = mix.hard.draw(rng, split);
            let thoughts = Thoughts {
                shorthand: mix.shorthand,
                concise: mix.concise,
                usual_opener: 0.0,
                max_chars: mix.max_chars,
            };
            let thought = thought::draw(rng, &problem, thoughts);
            solution(
                rng,
                &problem.text(),
                &thought,
                &problem.answer().to_string(),
            )
        }
        8 => {
            let easy = Easy::draw(rng, split);
            let thought = easy::think(rng, &easy, mix.concise);
            solution(rng, &easy.question, &thought, &easy.answer)
        }
        1 => worked_document(drill::draw(rng, mix.shorthand)),
        2 => Document::Worked {
            prompt: "Facts:\n".to_owned(),
            completion: prose(rng),
        },
        3 => {
            let mut messages = Vec::new();
            for _ in 0..rng.random_range(1..=4) {
                let easy = Easy::draw(rng, split);
                messages.push(Message::new("user", easy.question));
                messages.push(Message::new("assistant", easy.answer));
            }
            Document::Chat { messages }
        }
        6 => worked_document(warmup::repeat(rng)),
        7 => worked_document(warmup::pairs(rng)),
        5 => {
            let problem = mix.hard.draw(rng, split);
            let (asked, found) = thought::reading(rng, &problem);
            framed(rng, &problem.text(), &asked, found)
        }
        _ => {
            let problem = mix.hard.draw(rng, split);
            let plain = HardSpec {
                budgets: Vec::new(),
                ..mix.hard.clone()
            };
            let spec = if rng.random_bool(0.5) {
                &mix.hard
            } else {
                &plain
            };
            let mut messages = spec.user_turn(rng, problem.text());
            messages.push(Message::new("assistant", problem.answer().to_string()));
            Document::Chat { messages }
        }
    }
}

/// A worked solution in one of three frames. The tags occur in text, so that their embeddings mean something before an adapter uses them; a
/// chat answer shows its work only if it is asked to.
fn solution<R: Rng>(rng: &mut R, text: &str, thought: &str, answer: &str) -> Document {
    match rng.random_range(0..3) {
        0 => Document::Worked {
            prompt: format!("Problem: {text}\n"),
            completion: format!("<think>\n{thought}\n</think>\n\n**Final answer:** {answer}"),
        },
        1 => Document::Worked {
            prompt: format!("Problem: {text}\nSolution:\n"),
            completion: format!("{thought}\nAnswer: {answer}"),
        },
        _ => Document::Chat {
            messages: vec![
                Message::new("user", format!("{text}\nShow your work.")),
                Message::new(
                    "assistant",
                    format!("{thought}\n\n**Final answer:** {answer}"),
                ),
            ],
        },
    }
}

/// What is found in a problem, asked for in a text or in a chat.
fn framed<R: Rng>(rng: &mut R, text: &str, asked: &str, found: String) -> Document {
    if rng.random_bool(0.5) {
        Document::Worked {
            prompt: format!("Problem: {text}\n{asked}"),
            completion: found,
        }
    } else {
        Document::Chat {
            messages: vec![
                Message::new("user", format!("{text}\n{}", asked.trim_end())),
                Message::new("assistant", found),
            ],
        }
    }
}

fn worked_document((prompt, completion): (String, String)) -> Document {
    Document::Worked { prompt, completion }
}

fn prose<R: Rng>(rng: &mut R) -> String {
    let mut lines = Vec::new();
    for _ in 0..rng.random_range(4..=10) {
        let relation = &RELATIONS[rng.random_range(0..RELATIONS.len())];
        let (a, b) = relation.pairs[rng.random_range(0..relation.pairs.len())];
        lines.push(fill(pick(rng, relation.prose), &[("{a}", a), ("{b}", b)]));
    }
    lines.join(" ")
}
