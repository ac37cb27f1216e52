//! One record per sample: what was asked and answered, whether it was right, and what it cost. Everything a table says is counted from these.

use serde::{Deserialize, Serialize};

/// A stream's answer to a question.
///
/// The columns of a records file have these names. What belongs to the whole query stands in every record of its streams.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct Record {
    /// The task's name.
    pub task: String,
    /// The question's place in the data set, from 0.
    pub question: usize,
    /// Which time it was asked, from 0.
    pub repeat: usize,
    /// Which of the parallel streams, from 0.
    pub stream: usize,
    /// The right answer; empty for programs.
    pub expected: String,
    /// The final answer that was found.
    pub answer: Option<String>,
    /// It is right. An unclosed thought is not.
    pub correct: bool,
    /// It is what the query answers: the vote chose it, or there was no vote and it is one of the answers.
    pub chosen: bool,
    /// The thought began and did not end.
    pub unfinished: bool,
    /// The visible part; empty in compact records.
    pub text: String,
    /// The thought; empty in compact records.
    pub reasoning: String,
    /// Tokens of this stream.
    pub completion_tokens: usize,
    /// Of these, the ones of the thought.
    pub reasoning_tokens: usize,
    /// Why it ended: `stop`, `length`, `decided` (the vote could do without it).
    pub finish_reason: String,
    /// Why the thought ended: `model`, `budget`, `loop`, `turn`.
    pub thought_closed: Option<String>,
    /// The budget forced the answer.
    pub budget_forced: bool,
    /// How often the end of the thought was put off.
    pub continued: usize,
    /// What the verifier gave it, 0 to 1.
    pub score: Option<f32>,
    /// The switcher's score of the query.
    pub switch_score: Option<f32>,
    /// The switcher gave the query a thought.
    pub thinks: Option<bool>,
    /// Tokens of the query's prompt.
    pub prompt_tokens: usize,
    /// Tokens of all streams of the query.
    pub query_tokens: usize,
    /// Tokens computed to score the query's answers.
    pub verifier_tokens: usize,
    /// Streams of the query that were begun.
    pub streams: usize,
    /// From the query's start to its first token, milliseconds.
    pub ttft_ms: Option<f64>,
    /// Tokens of all streams per second, after the first.
    pub decode_tps: Option<f64>,
    /// From the query's start to its end, seconds.
    pub seconds: f64,
}

impl Record {
    /// The query that it belongs to.
    pub fn query(&self) -> (usize, usize) {
        (self.question, self.repeat)
    }

    /// It ended by itself and counts as a sample of its own.
    pub fn is_whole(&self) -> bool {
        self.finish_reason != "decided"
    }

    /// The same without texts.
    #[must_use]
    pub fn compact(self) -> Self {
        Self {
            text: String::new(),
            reasoning: String::new(),
            ..self
        }
    }
}

/// The records of one query, and whether what it answers is right.
#[derive(Debug, Clone, Copy)]
pub struct QueryRecords<'a>(pub &'a [Record]);

impl QueryRecords<'_> {
    /// Share of the chosen answers that are right: 0 or 1 behind a vote.
    pub fn accuracy(&self) -> f64 {
        let chosen = self.0.iter().filter(|record| record.chosen);
        let right = chosen.clone().filter(|record| record.correct).count();
        right as f64 / chosen.count().max(1) as f64
    }

    /// Any record: all agree about the query.
    pub fn any(&self) -> &Record {
        &self.0[0]
    }
}

/// Records by query, in order. Sorts them first.
pub fn queries(records: &mut [Record]) -> Vec<QueryRecords<'_>> {
    records.sort_by(|a, b| {
        (&a.task, a.question, a.repeat, a.stream).cmp(&(&b.task, b.question, b.repeat, b.stream))
    });
    let same = |a: &Record, b: &Record| a.task == b.task && a.query() == b.query();
    records.chunk_by(same).map(QueryRecords).collect()
}
