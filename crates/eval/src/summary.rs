//! From records to the figures of one task.

use std::collections::BTreeMap;

use serde::Serialize;

use crate::record::{QueryRecords, Record, queries};
use crate::stats::{Interval, interval, mean, median, pass_at_k, quantile};
use crate::votes::{self, Voter, Votes};

/// Draws of votes.
const RESAMPLES: usize = 100;

/// What a task gave. Lengths are tokens, shares are 0 to 1.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Summary {
    /// The task.
    pub task: String,
    /// Questions asked.
    pub questions: usize,
    /// Queries: questions times repeats.
    pub queries: usize,
    /// Share of right answers, mean over questions: avg@k.
    pub accuracy: f64,
    /// 95 % of it.
    pub interval: Option<Interval>,
    /// pass@k by k, where questions have several samples.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub pass: BTreeMap<usize, f64>,
    /// maj@k and weighted maj@k, where questions have several samples.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub votes: Option<Votes>,
    /// Tokens of all streams of a query, mean.
    pub tokens_per_query: f64,
    /// Tokens of a stream: mean.
    pub tokens_per_answer: f64,
    /// Their median.
    pub tokens_median: f64,
    /// 95 % are shorter.
    pub tokens_p95: f64,
    /// Tokens of a thought, mean.
    pub reasoning_tokens: f64,
    /// Share of answers whose thought did not end.
    pub unfinished_share: f64,
    /// Share of answers that the budget forced.
    pub forced_share: f64,
    /// Share of answers cut at a limit.
    pub length_share: f64,
    /// Share of queries that the switcher gave a thought.
    pub thought_share: Option<f64>,
    /// Streams begun per query.
    pub streams: f64,
    /// Tokens computed to score answers, per query.
    pub verifier_tokens: f64,
    /// Time to the first token, median, milliseconds.
    pub ttft_ms: Option<f64>,
    /// Tokens of all streams of a query per second, median.
    pub decode_tps: Option<f64>,
    /// Seconds per query, mean.
    pub seconds: f64,
}

/// One summary per task. Sorts the records.
pub fn by_task(records: &mut [Record]) -> Vec<Summary> {
    let queries = queries(records);
    let same = |a: &QueryRecords<'_>, b: &QueryRecords<'_>| a.any().task == b.any().task;
    queries.chunk_by(same).map(|task| of(task)).collect()
}

/// The summary of some queries, which need not be of one task; they are sorted by question.
pub fn of(queries: &[QueryRecords<'_>]) -> Summary {
    let same = |a: &QueryRecords<'_>, b: &QueryRecords<'_>| {
        (&a.any().task, a.any().question) == (&b.any().task, b.any().question)
    };
    let questions: Vec<&[QueryRecords<'_>]> = queries.chunk_by(same).collect();
    let of_question = |question: &&[QueryRecords<'_>]| {
        mean(question.iter().map(QueryRecords::accuracy)).unwrap_or(0.0)
    };
    let accuracies: Vec<f64> = questions.iter().map(of_question).collect();
    let pool: Vec<Vec<Voter>> = questions.iter().map(|question| voters(question)).collect();
    let least = pool.iter().map(Vec::len).min().unwrap_or(0);
    let sizes: Vec<usize> = std::iter::successors(Some(1), |k| Some(k * 2))
        .take_while(|&k| k < least)
        .chain([least])
        .collect();
    let several = least > 1;
    let pass = sizes.iter().filter(|_| several).filter_map(|&k| {
        let of = |samples: &Vec<Voter>| {
            pass_at_k(
                samples.len(),
                samples.iter().filter(|s| s.correct).count(),
                k,
            )
        };
        Some((k, mean(pool.iter().filter_map(of))?))
    });
    let whole = || {
        queries
            .iter()
            .flat_map(|query| query.0)
            .filter(|record| record.is_whole())
    };
    let share =
        |of: fn(&Record) -> bool| mean(whole().map(|r| f64::from(u8::from(of(r))))).unwrap_or(0.0);
    let each =
        |of: fn(&Record) -> usize| mean(queries.iter().map(|q| of(q.any()) as f64)).unwrap_or(0.0);
    let mut lengths: Vec<f64> = whole()
        .map(|record| record.completion_tokens as f64)
        .collect();
    lengths.sort_by(f64::total_cmp);
    Summary {
        task: queries
            .first()
            .map_or_else(String::new, |query| query.any().task.clone()),
        questions: questions.len(),
        queries: queries.len(),
        accuracy: mean(accuracies.iter().copied()).unwrap_or(0.0),
        interval: interval(&accuracies, 0),
        pass: pass.collect(),
        votes: several.then(|| votes::count(&pool, &sizes, RESAMPLES, 0)),
        tokens_per_query: each(|record| record.query_tokens),
        tokens_per_answer: mean(lengths.iter().copied()).unwrap_or(0.0),
        tokens_median: quantile(&lengths, 0.5).unwrap_or(0.0),
        tokens_p95: quantile(&lengths, 0.95).unwrap_or(0.0),
        reasoning_tokens: mean(whole().map(|record| record.reasoning_tokens as f64)).unwrap_or(0.0),
        unfinished_share: share(|record| record.unfinished),
        forced_share: share(|record| record.budget_forced),
        length_share: share(|record| record.finish_reason == "length"),
        thought_share: mean(
            queries
                .iter()
                .filter_map(|q| q.any().thinks)
                .map(|thinks| f64::from(u8::from(thinks))),
        ),
        streams: each(|record| record.streams),
        verifier_tokens: each(|record| record.verifier_tokens),
        ttft_ms: median(queries.iter().filter_map(|q| q.any().ttft_ms)),
        decode_tps: median(queries.iter().filter_map(|q| q.any().decode_tps)),
        seconds: mean(queries.iter().map(|q| q.any().seconds)).unwrap_or(0.0),
    }
}

/// The samples of a question that could vote together: all that ended.
pub fn voters(question: &[QueryRecords<'_>]) -> Vec<Voter> {
    let records = question.iter().flat_map(|query| query.0);
    let voter = |record: &Record| Voter {
        answer: record.answer.clone(),
        score: record.score,
        correct: record.correct,
    };
    records
        .filter(|record| record.is_whole())
        .map(voter)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(question: usize, repeat: usize, stream: usize, answer: &str) -> Record {
        Record {
            task: "t".to_owned(),
            question,
            repeat,
            stream,
            answer: Some(answer.to_owned()),
            correct: answer == "1",
            chosen: true,
            completion_tokens: 10 * (1 + stream),
            query_tokens: 30,
            streams: 2,
            ..Record::default()
        }
    }

    #[test]
    fn repeats_are_averaged_per_question() {
        let mut records = Vec::new();
        for (question, answers) in [["1", "1", "1", "2"], ["3", "3", "1", "3"]]
            .iter()
            .enumerate()
        {
            for (repeat, answer) in answers.iter().enumerate() {
                records.push(Record {
                    streams: 1,
                    ..record(question, repeat, 0, answer)
                });
            }
        }
        records.reverse();
        let summaries = by_task(&mut records);
        let [summary] = &summaries[..] else {
            panic!("one task")
        };
        assert_eq!(
            (summary.questions, summary.queries, summary.accuracy),
            (2, 8, 0.5)
        );
        assert_eq!(
            summary.pass,
            BTreeMap::from([(1, 0.5), (2, 0.75), (4, 1.0)])
        );
        let votes = summary.votes.as_ref().expect("several samples");
        assert_eq!(
            votes.by_n.last().map(|entry| entry.majority.mean),
            Some(0.5)
        );
        assert_eq!(summary.tokens_per_answer, 10.0);
    }

    #[test]
    fn a_vote_is_one_answer_and_costs_all_its_streams() {
        // The vote chose the wrong one in one query and the right one in the other; a stream that was not needed says nothing.
        let mut records = vec![
            record(0, 0, 0, "1"),
            record(0, 0, 1, "2"),
            record(1, 0, 0, "1"),
            record(1, 0, 1, ""),
        ];
        records[0].chosen = false;
        records[3].chosen = false;
        records[3].finish_reason = "decided".to_owned();
        let summary = &by_task(&mut records)[0];
        assert_eq!(summary.accuracy, 0.5);
        assert_eq!(summary.tokens_per_query, 30.0);
        assert!((summary.tokens_per_answer - 40.0 / 3.0).abs() < 1e-9);
        assert!(summary.votes.is_none(), "one question has one sample only");
    }
}
