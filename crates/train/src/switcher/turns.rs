//! Earlier turns, drawn by the seed: a question of some set and what was said to it, in front of a query.
//!
//! What was asked before must not decide whether the query needs a thought, so both labels draw from the same turns in the same way.

use edgethink_model::Message;
use rand::{Rng, seq::IndexedRandom};
use rand_chacha::ChaCha8Rng;
use serde_json::Value;

use super::queries::prompt_of;
use super::recipe::{TurnsRecipe, has};
use crate::{data::understood, error::TrainError};

const THOUGHT_END: &str = "</think>";

/// Turns to draw from: of each set a list, of each turn its messages.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Turns {
    sets: Vec<Vec<Vec<Message>>>,
    share: f64,
    most: usize,
}

impl Turns {
    /// Reads the sets.
    ///
    /// # Errors
    /// [`TrainError::Read`], [`TrainError::DataRow`] for a row without a prompt or the reply's field, or [`TrainError::NoQuestions`] for an
    /// empty set.
    pub(super) fn load(recipe: &TurnsRecipe) -> Result<Self, TrainError> {
        let mut sets = Vec::new();
        for set in &recipe.sets {
            let mut turns = Vec::new();
            for path in &set.files {
                let mut keys: Vec<&str> = set.only.keys().map(String::as_str).collect();
                keys.push(&set.reply);
                let rows = understood(path, &keys, |row| {
                    has(&row, &set.only)
                        .then(|| turn(&row, &set.reply))
                        .transpose()
                })?;
                turns.extend(rows.into_iter().filter_map(|(_, turn)| turn));
            }
            if turns.is_empty() {
                return Err(TrainError::NoQuestions {
                    files: set.files.clone(),
                    dropped: 0,
                });
            }
            sets.push(turns);
        }
        Ok(Self {
            sets,
            share: recipe.share,
            most: recipe.most,
        })
    }

    /// Turns for one query, the oldest first: none but for the share of the queries, else 1 to `most`, each of a set by lot.
    pub(super) fn draw(&self, rng: &mut ChaCha8Rng) -> Vec<&[Message]> {
        if !rng.random_bool(self.share) {
            return Vec::new();
        }
        let number = rng.random_range(1..=self.most);
        let turns = (0..number).filter_map(|_| self.sets.choose(rng)?.choose(rng));
        turns.map(Vec::as_slice).collect()
    }
}

/// The messages of a row with the reply behind them, as a client sends them back: without the thought.
fn turn(row: &Value, reply: &str) -> Result<Vec<Message>, String> {
    let mut messages = prompt_of(row, None)?;
    // Instructions stand in front of a conversation, not in it.
    messages.retain(|message| message.role != "system");
    let text = match row.get(reply) {
        Some(Value::String(text)) => text,
        Some(Value::Array(items)) => items
            .last()
            .and_then(|message| message.get("content"))
            .and_then(Value::as_str)
            .ok_or_else(|| format!("`{reply}` is not a list of messages with content"))?,
        _ => return Err(format!("has no `{reply}`, a text or a list of messages")),
    };
    let answer = text.rsplit(THOUGHT_END).next().unwrap_or(text);
    messages.push(Message::new("assistant", answer.trim_start()));
    Ok(messages)
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use serde_json::json;
    use tempfile::NamedTempFile;

    use super::super::recipe::TurnSetRecipe;
    use super::*;
    use crate::params::generator;

    fn file(rows: &[Value]) -> NamedTempFile {
        let mut file = tempfile::Builder::new()
            .suffix(".jsonl")
            .tempfile()
            .unwrap();
        for row in rows {
            writeln!(file, "{row}").unwrap();
        }
        file
    }

    fn set(file: &NamedTempFile, reply: &str, kind: &str) -> TurnSetRecipe {
        TurnSetRecipe {
            files: vec![file.path().to_owned()],
            only: [("kind".to_owned(), json!(kind))].into(),
            reply: reply.to_owned(),
        }
    }

    #[test]
    fn a_reply_stands_without_its_thought() {
        let row = json!({
            "prompt": [{"role": "system", "content": "Count."}, {"role": "user", "content": "1+1?"}],
            "completion": [{"role": "assistant", "content": "<think>\none more\n</think>\n\nIt is 2"}],
            "answer": "2",
        });
        for (reply, said) in [("completion", "It is 2"), ("answer", "2")] {
            let want = [
                Message::new("user", "1+1?"),
                Message::new("assistant", said),
            ];
            assert_eq!(turn(&row, reply).unwrap(), want);
        }
        let text = json!({"prompt": "1+1?", "completion": "2 < 3"});
        assert_eq!(turn(&text, "completion").unwrap()[1].content, "2 < 3");
        let missing = turn(&row, "response").unwrap_err();
        assert!(missing.contains("no `response`"), "{missing}");
        let odd = json!({"prompt": "1+1?", "completion": [{"role": "assistant"}]});
        assert!(turn(&odd, "completion").unwrap_err().contains("content"));
    }

    #[test]
    fn draws_follow_the_share_the_sets_and_the_seed() {
        let rows = |kind: &str| -> Vec<Value> {
            let row = |i| json!({"prompt": format!("{kind} {i}"), "answer": "7", "kind": kind});
            (0..5).map(row).collect()
        };
        // Many more rows of one kind: the sets are drawn from equally all the same.
        let few = file(&[rows("easy"), rows("other")].concat());
        let many = file(&[(); 20].map(|()| rows("hard")).concat());
        let recipe = TurnsRecipe {
            share: 0.25,
            most: 3,
            sets: vec![set(&few, "answer", "easy"), set(&many, "answer", "hard")],
        };
        let turns = Turns::load(&recipe).unwrap();
        let draw = |seed| {
            let mut rng = generator(seed, "turns");
            let draws = (0..4000).map(|_| turns.draw(&mut rng).concat());
            draws.collect::<Vec<Vec<Message>>>()
        };
        let draws = draw(1);
        assert_eq!(draws, draw(1));
        assert_ne!(draws, draw(2));
        let with = draws.iter().filter(|turns| !turns.is_empty()).count();
        // Standard deviation 27.
        assert!((880..1120).contains(&with), "{with}");
        let lengths = |n: usize| draws.iter().filter(|d| d.len() == 2 * n).count();
        for n in 1..=3 {
            assert!((260..410).contains(&lengths(n)), "{n}: {}", lengths(n));
        }
        let asked = draws.iter().flatten().filter(|m| m.role == "user");
        let (mut easy, mut hard) = (0, 0);
        for message in asked {
            match message.content.split(' ').next() {
                Some("easy") => easy += 1,
                Some("hard") => hard += 1,
                _ => panic!("{message:?}"),
            }
        }
        assert!(
            (easy as f64 / hard as f64 - 1.0).abs() < 0.2,
            "{easy} {hard}"
        );
    }

    #[test]
    fn an_empty_set_is_refused_by_its_file() {
        let file = file(&[json!({"prompt": "a", "answer": "b", "kind": "easy"})]);
        let recipe = TurnsRecipe {
            share: 1.0,
            most: 1,
            sets: vec![set(&file, "answer", "hard")],
        };
        let error = Turns::load(&recipe).unwrap_err();
        assert!(
            matches!(&error, TrainError::NoQuestions { files, .. } if files == &[file.path()]),
            "{error}"
        );
    }
}
