//! What is under test: anything that answers questions. The reasoner of this program is one, an endpoint is another.

use crate::error::EvalError;
use crate::question::{Question, Truth};
use crate::record::Record;

/// A question and the seed of its draws.
#[derive(Debug, Clone, Copy)]
pub struct Ask<'a> {
    /// What is asked.
    pub question: &'a Question,
    /// Which time it is asked, from 0.
    pub repeat: usize,
    /// Seed of the draws.
    pub seed: u64,
}

/// What came back.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Reply {
    /// The streams.
    pub samples: Vec<Sample>,
    /// Tokens of the prompt.
    pub prompt_tokens: usize,
    /// Tokens of all streams.
    pub query_tokens: usize,
    /// Tokens computed to score the answers.
    pub verifier_tokens: usize,
    /// The switcher's score, and whether it gave a thought.
    pub switch: Option<(f32, bool)>,
    /// From the query's start to its first token, milliseconds.
    pub ttft_ms: Option<f64>,
    /// Tokens of all streams per second, after the first.
    pub decode_tps: Option<f64>,
    /// From the query's start to its end, seconds.
    pub seconds: f64,
}

/// One stream of a reply.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Sample {
    /// The visible part; empty if the thought did not end.
    pub text: String,
    /// The thought.
    pub reasoning: String,
    /// Tokens of the stream.
    pub completion_tokens: usize,
    /// Of these, the ones of the thought.
    pub reasoning_tokens: usize,
    /// Why it ended.
    pub finish_reason: String,
    /// Why the thought ended.
    pub thought_closed: Option<String>,
    /// The budget forced the answer.
    pub budget_forced: bool,
    /// How often the end of the thought was put off.
    pub continued: usize,
    /// What the verifier gave it.
    pub score: Option<f32>,
    /// It is what the query answers.
    pub chosen: bool,
}

/// Gets each reply by the number of its question as it is ready; false ends the run.
pub type Take<'a> = dyn FnMut(usize, Reply) -> Result<bool, EvalError> + 'a;

/// A model under test.
pub trait Subject {
    /// Answers all questions, in any order. Returns false if `take` or `stop` ended it.
    ///
    /// # Errors
    /// A model that fails, and what `take` says.
    fn answer(
        &mut self,
        asks: &[Ask<'_>],
        stop: &(dyn Fn() -> bool + Sync),
        take: &mut Take<'_>,
    ) -> Result<bool, EvalError>;
}

impl Reply {
    /// The records of the query. `runs` judges programs.
    ///
    /// # Errors
    /// A program that cannot be run.
    pub fn records(
        self,
        task: &str,
        ask: &Ask<'_>,
        mut runs: impl FnMut(&Truth, &str) -> Result<bool, EvalError>,
    ) -> Result<Vec<Record>, EvalError> {
        let truth = &ask.question.truth;
        let streams = self.samples.len();
        let record = |(stream, sample): (usize, Sample)| {
            let found = edgethink_grader::extract(&sample.text);
            let correct = match truth {
                Truth::Answer(want) => edgethink_grader::is_correct(&sample.text, want),
                Truth::Program(_) => runs(truth, &sample.text)?,
            };
            Ok(Record {
                task: task.to_owned(),
                question: ask.question.index,
                repeat: ask.repeat,
                stream,
                expected: truth.text().to_owned(),
                answer: found.map(|found| found.text.to_owned()),
                correct,
                chosen: sample.chosen,
                unfinished: is_unfinished(&sample),
                completion_tokens: sample.completion_tokens,
                reasoning_tokens: sample.reasoning_tokens,
                finish_reason: sample.finish_reason,
                thought_closed: sample.thought_closed,
                budget_forced: sample.budget_forced,
                continued: sample.continued,
                score: sample.score,
                text: sample.text,
                reasoning: sample.reasoning,
                switch_score: self.switch.map(|(score, _)| score),
                thinks: self.switch.map(|(_, thinks)| thinks),
                prompt_tokens: self.prompt_tokens,
                query_tokens: self.query_tokens,
                verifier_tokens: self.verifier_tokens,
                streams,
                ttft_ms: self.ttft_ms,
                decode_tps: self.decode_tps,
                seconds: self.seconds,
            })
        };
        self.samples.into_iter().enumerate().map(record).collect()
    }
}

/// The thought began and did not end.
fn is_unfinished(sample: &Sample) -> bool {
    let inside = edgethink_grader::visible(&sample.text).is_none();
    inside || (sample.text.is_empty() && !sample.reasoning.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rows::Columns;

    #[test]
    fn an_unclosed_thought_is_a_wrong_answer() {
        let question = Question {
            index: 0,
            messages: Vec::new(),
            truth: Truth::Answer("4".to_owned()),
            columns: Columns::new(),
        };
        let ask = Ask {
            question: &question,
            repeat: 0,
            seed: 0,
        };
        for (text, reasoning, correct, unfinished) in [
            ("The answer is 4.", "2 + 2", true, false),
            ("", "The answer is 4.", false, true),
            ("<think>The answer is 4.", "", false, true),
            ("<think>5?</think>The answer is 4.", "", true, false),
            ("", "", false, false),
        ] {
            let sample = Sample {
                text: text.to_owned(),
                reasoning: reasoning.to_owned(),
                ..Sample::default()
            };
            let reply = Reply {
                samples: vec![sample],
                ..Reply::default()
            };
            let records = reply.records("t", &ask, |_, _| Ok(false)).expect("records");
            assert_eq!(
                (records[0].correct, records[0].unfinished),
                (correct, unfinished),
                "{text:?}"
            );
        }
    }
}
