//! From the answers of N streams to one: majority, weighted majority, best of N (METHOD 5), and when to stop asking.
//!
//! Streams whose answers are equal by [`edgethink_grader::equal`] form a group. Majority counts a group's streams, weighted majority
//! adds their scores, best of N takes the stream with the highest score. A stream without an answer does not vote. Neither the
//! order of the streams nor that of their arrival matters.
//!
//! Equality is not transitive (50 % is 0.5 and, as an answer, also 50), so a group is made of the answers that are equal to its first
//! one in the order of their texts.

use edgethink_grader::equal;

/// How answers are put together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Aggregate {
    /// One stream, one vote.
    Majority,
    /// A stream's vote weighs its score.
    Weighted,
    /// The stream with the highest score decides.
    BestOfN,
}

impl Aggregate {
    /// One word, as in JSON.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Majority => "majority",
            Self::Weighted => "weighted",
            Self::BestOfN => "best_of_n",
        }
    }

    /// Whether streams need a score.
    pub fn needs_scores(self) -> bool {
        self != Self::Majority
    }
}

/// What one stream says.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Ballot<'a> {
    /// The stream.
    pub stream: usize,
    /// Its final answer.
    pub answer: &'a str,
    /// Its score, 0 to 1; 1 where nothing is scored.
    pub score: f32,
}

/// Equal answers.
#[derive(Debug, Clone, PartialEq)]
pub struct Group {
    /// The answer, as most of the group's weight writes it.
    pub answer: String,
    /// The group's streams, the highest score first.
    pub streams: Vec<usize>,
    /// The sum of their weights: their number, the sum of their scores, or the highest score.
    pub weight: f64,
}

/// The vote, its groups by weight.
#[derive(Debug, Clone, PartialEq)]
pub struct Vote {
    /// How answers were put together.
    pub aggregate: Aggregate,
    /// The heaviest group first; among equals the one with the higher score, then the smaller text. Empty if nobody answered.
    pub groups: Vec<Group>,
}

impl Vote {
    /// The stream that speaks for the winner.
    pub fn winner(&self) -> Option<usize> {
        self.groups.first()?.streams.first().copied()
    }
}

/// Streams that answer with one text.
struct Bundle<'a> {
    text: &'a str,
    ballots: Vec<Ballot<'a>>,
}

/// The ballots by text, in the order of the texts; within one, the highest score first.
fn bundles<'a>(ballots: &[Ballot<'a>]) -> Vec<Bundle<'a>> {
    let mut sorted = ballots.to_vec();
    sorted.sort_by(|a, b| {
        let by_score = b.score.total_cmp(&a.score);
        a.answer
            .cmp(b.answer)
            .then(by_score)
            .then(a.stream.cmp(&b.stream))
    });
    let mut bundles: Vec<Bundle<'a>> = Vec::new();
    for ballot in sorted {
        match bundles.last_mut() {
            Some(last) if last.text == ballot.answer => last.ballots.push(ballot),
            _ => bundles.push(Bundle {
                text: ballot.answer,
                ballots: vec![ballot],
            }),
        }
    }
    bundles
}

/// What some ballots weigh together.
fn weight<'a>(aggregate: Aggregate, ballots: impl IntoIterator<Item = &'a Ballot<'a>>) -> f64 {
    let scores = ballots.into_iter().map(|ballot| f64::from(ballot.score));
    match aggregate {
        Aggregate::Majority => scores.count() as f64,
        Aggregate::Weighted => scores.sum(),
        Aggregate::BestOfN => scores.fold(0.0, f64::max),
    }
}

/// Counts the ballots.
pub fn tally(aggregate: Aggregate, ballots: &[Ballot<'_>]) -> Vote {
    let mut rest = bundles(ballots);
    let mut groups: Vec<(f32, Group)> = Vec::new();
    while !rest.is_empty() {
        let first = rest[0].text;
        let same = |bundle: &mut Bundle<'_>| bundle.text == first || equal(bundle.text, first);
        let members: Vec<Bundle<'_>> = rest.extract_if(.., same).collect();
        let weigh = |bundle: &Bundle<'_>| weight(aggregate, &bundle.ballots);
        let mut answer = &members[0];
        for bundle in &members[1..] {
            if weigh(bundle) > weigh(answer) {
                answer = bundle;
            }
        }
        let mut all: Vec<&Ballot<'_>> = members.iter().flat_map(|b| &b.ballots).collect();
        all.sort_by(|a, b| b.score.total_cmp(&a.score).then(a.stream.cmp(&b.stream)));
        let group = Group {
            answer: answer.text.to_owned(),
            streams: all.iter().map(|ballot| ballot.stream).collect(),
            weight: weight(aggregate, all.iter().copied()),
        };
        groups.push((all[0].score, group));
    }
    groups.sort_by(|(score_a, a), (score_b, b)| {
        let by_weight = b.weight.total_cmp(&a.weight);
        by_weight
            .then(score_b.total_cmp(score_a))
            .then(a.answer.cmp(&b.answer))
    });
    Vote {
        aggregate,
        groups: groups.into_iter().map(|(_, group)| group).collect(),
    }
}

/// When the remaining streams need not be asked.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum EarlyStop {
    /// When nothing that they could say changes the answer.
    Exact,
    /// Also with this confidence in the leading answer. Of a majority: the chance that it is the one that the model gives most often, that
    /// it beats the second under a uniform prior (adaptive consistency, arXiv 2305.11860, the Beta rule). Of scored answers: the chance
    /// that it is right, each score taken as an independent opinion. So one answer that the verifier is sure of ends the vote.
    Confidence(f64),
}

/// How many more streams have to answer before the vote can be decided; 0 if it is. `outstanding` streams have not voted yet.
///
/// The exact rule: a text that weighs more than all other texts together, said or still to be said, wins whatever happens, since a
/// group holds a text wholly or not at all and no score is above 1.
pub fn needed(
    aggregate: Aggregate,
    ballots: &[Ballot<'_>],
    outstanding: usize,
    rule: EarlyStop,
) -> usize {
    let bundles = bundles(ballots);
    let chance = chance_right(aggregate, &bundles);
    let mut weights: Vec<f64> = bundles
        .iter()
        .map(|bundle| weight(aggregate, &bundle.ballots))
        .collect();
    weights.sort_by(|a, b| b.total_cmp(a));
    let first = weights.first().copied().unwrap_or(0.0);
    let others: f64 = weights.iter().skip(1).sum();
    let second = weights.get(1).copied().unwrap_or(0.0);
    (0..outstanding)
        .find(|&more| {
            // At best, all of them vote for the leader.
            let leader = first + more as f64;
            let decided = match aggregate {
                Aggregate::Majority | Aggregate::Weighted => {
                    leader > others + (outstanding - more) as f64
                }
                Aggregate::BestOfN => false, // any later score may be the highest
            };
            decided
                || match rule {
                    EarlyStop::Exact => false,
                    // The next score may be that of a sure answer.
                    EarlyStop::Confidence(wanted) if aggregate.needs_scores() => {
                        more > 0 || chance >= wanted
                    }
                    EarlyStop::Confidence(wanted) => confidence(leader, second) >= wanted,
                }
        })
        .unwrap_or(outstanding)
}

/// The chance that the text that weighs most is right: a text's odds are the product of the odds of its scores, and at most one text is
/// right.
fn chance_right(aggregate: Aggregate, bundles: &[Bundle<'_>]) -> f64 {
    // Scores are held away from 0 and 1, where one opinion would silence all others.
    let odds = |bundle: &Bundle<'_>| -> f64 {
        let scores = bundle.ballots.iter().map(|ballot| f64::from(ballot.score));
        scores
            .map(|score| score.clamp(1e-3, 1.0 - 1e-3))
            .map(|score| score / (1.0 - score))
            .product()
    };
    let weigh = |bundle: &&Bundle<'_>| weight(aggregate, &bundle.ballots);
    let leader = bundles
        .iter()
        .max_by(|a, b| weigh(a).total_cmp(&weigh(b)))
        .map_or(0.0, odds);
    leader / (1.0 + bundles.iter().map(odds).sum::<f64>())
}

/// The chance that the first of two answers, drawn `a` and `b` times, is the more frequent one: P(p > 1/2) for p ~ Beta(a + 1, b + 1).
/// Weights are rounded down and up to whole votes.
fn confidence(a: f64, b: f64) -> f64 {
    let (a, n) = (a.floor() as u32, a.floor() as u32 + b.ceil() as u32 + 1);
    // P(Binomial(n, 1/2) <= a)
    let mut term = 0.5f64.powi(n as i32);
    let mut sum = 0.0;
    for k in 0..=a {
        sum += term;
        term *= f64::from(n - k) / f64::from(k + 1);
    }
    sum
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ballots<'a>(said: &[(&'a str, f32)]) -> Vec<Ballot<'a>> {
        let ballot = |(stream, &(answer, score))| Ballot {
            stream,
            answer,
            score,
        };
        said.iter().enumerate().map(ballot).collect()
    }

    #[test]
    fn equal_answers_vote_together() {
        let said = ballots(&[("1/2", 0.2), ("7", 0.9), ("0.5", 0.3), ("0.5", 0.1)]);
        let majority = tally(Aggregate::Majority, &said);
        assert_eq!(majority.groups[0].answer, "0.5");
        assert_eq!(majority.groups[0].streams, [2, 0, 3]);
        assert_eq!(majority.groups[0].weight, 3.0);
        assert_eq!(majority.winner(), Some(2));
        let weighted = tally(Aggregate::Weighted, &said);
        assert_eq!(weighted.groups[0].answer, "7", "0.9 against 0.6");
        assert_eq!(tally(Aggregate::BestOfN, &said).winner(), Some(1));
        assert_eq!(tally(Aggregate::Majority, &[]).winner(), None);
    }

    #[test]
    fn a_tie_goes_to_the_higher_score_then_to_the_smaller_text() {
        let said = ballots(&[("8", 0.4), ("9", 0.6)]);
        assert_eq!(tally(Aggregate::Majority, &said).winner(), Some(1));
        let said = ballots(&[("9", 1.0), ("8", 1.0)]);
        assert_eq!(tally(Aggregate::Majority, &said).winner(), Some(1));
    }

    /// Texts of which some are equal to two others that are not equal to each other.
    const TEXTS: [&str; 6] = ["50%", "0.5", "50", "1/2", "7", "7.0"];

    /// A ballot box from a number, one digit per stream.
    fn drawn(mut code: usize, n: usize) -> Vec<Ballot<'static>> {
        (0..n)
            .map(|stream| {
                let (text, score) = (code % TEXTS.len(), (code / 7) % 4);
                code = code / TEXTS.len() + code % 101;
                Ballot {
                    stream,
                    answer: TEXTS[text],
                    score: score as f32 / 3.0,
                }
            })
            .collect()
    }

    const AGGREGATES: [Aggregate; 3] =
        [Aggregate::Majority, Aggregate::Weighted, Aggregate::BestOfN];

    #[test]
    fn the_order_of_the_streams_does_not_matter() {
        for code in 0..4000 {
            let said = drawn(code * 977, 5);
            for aggregate in AGGREGATES {
                let vote = tally(aggregate, &said);
                let mut turned = said.clone();
                turned.rotate_left(code % 5);
                turned.swap(0, code % 4);
                assert_eq!(tally(aggregate, &turned), vote);
                // Other numbers for the same streams: the same answers with the same weights.
                for (stream, ballot) in turned.iter_mut().enumerate() {
                    ballot.stream = stream;
                }
                let renamed = tally(aggregate, &turned);
                let outline = |vote: &Vote| -> Vec<(String, f64)> {
                    let group = |g: &Group| (g.answer.clone(), g.weight);
                    vote.groups.iter().map(group).collect()
                };
                assert_eq!(outline(&renamed), outline(&vote));
            }
        }
    }

    #[test]
    fn a_decided_vote_cannot_be_changed() {
        let mut decided = 0;
        for code in 0..200 {
            for known in 0..=4 {
                let said = drawn(code * 131, known);
                for aggregate in AGGREGATES {
                    let outstanding = 5 - known;
                    if needed(aggregate, &said, outstanding, EarlyStop::Exact) > 0
                        || outstanding == 0
                    {
                        continue;
                    }
                    decided += 1;
                    let winner = tally(aggregate, &said).groups[0].answer.clone();
                    // Every way in which the others can vote, at the highest score and at none.
                    for way in 0..(2 * TEXTS.len()).pow(outstanding as u32) {
                        let mut all = said.clone();
                        let mut digits = way;
                        for stream in known..5 {
                            let digit = digits % (2 * TEXTS.len());
                            digits /= 2 * TEXTS.len();
                            all.push(Ballot {
                                stream,
                                answer: TEXTS[digit / 2],
                                score: (digit % 2) as f32,
                            });
                        }
                        let last = tally(aggregate, &all);
                        assert_eq!(last.groups[0].answer, winner, "{all:?}");
                    }
                }
            }
        }
        assert!(decided > 20, "{decided} votes were decided early");
    }

    #[test]
    fn no_stream_is_asked_in_vain() {
        let needs = |said: &[(&str, f32)], outstanding, rule| {
            needed(Aggregate::Majority, &ballots(said), outstanding, rule)
        };
        let exact = EarlyStop::Exact;
        assert_eq!(needs(&[], 8, exact), 5);
        assert_eq!(needs(&[], 1, exact), 1);
        assert_eq!(needs(&[("1", 1.0); 5], 3, exact), 0);
        assert_eq!(needs(&[("1", 1.0); 4], 4, exact), 1);
        assert_eq!(needs(&[("1", 1.0), ("2", 1.0), ("1", 1.0)], 5, exact), 3);
        assert_eq!(needs(&[("1", 1.0)], 0, exact), 0);
        let weighted = |said: &[(&str, f32)], outstanding| {
            needed(Aggregate::Weighted, &ballots(said), outstanding, exact)
        };
        assert_eq!(weighted(&[("1", 0.5); 5], 3), 1, "2.5 is below 3");
        assert_eq!(weighted(&[("1", 0.9); 5], 3), 0);
        // 31/32 after four of a kind.
        let sure = EarlyStop::Confidence(0.95);
        assert_eq!(needs(&[], 8, sure), 4);
        assert_eq!(needs(&[("1", 1.0); 4], 4, sure), 0);
        assert_eq!(needs(&[("1", 1.0); 3], 5, sure), 1);
    }

    #[test]
    fn one_sure_answer_ends_a_scored_vote_and_a_doubted_one_asks_for_one_more() {
        for aggregate in [Aggregate::Weighted, Aggregate::BestOfN] {
            let needs = |said: &[(&str, f32)], outstanding| {
                let rule = EarlyStop::Confidence(0.9);
                needed(aggregate, &ballots(said), outstanding, rule)
            };
            assert_eq!(needs(&[], 3), 1);
            assert_eq!(needs(&[("7", 0.95)], 2), 0);
            assert_eq!(needs(&[("7", 0.85)], 2), 1);
            assert_eq!(needs(&[("7", 0.85), ("7", 0.85)], 1), 0, "two agree");
            assert_eq!(
                needs(&[("7", 0.95), ("8", 0.9)], 1),
                1,
                "two sure ones differ"
            );
            assert_eq!(needs(&[("7", 0.1)], 0), 0, "nobody is left");
            assert_eq!(
                needs(&[("7", 1.0), ("8", 1.0)], 4),
                1,
                "no score silences others"
            );
        }
    }

    #[test]
    fn the_chance_is_bayes_for_independent_opinions() {
        let chance = |said: &[(&str, f32)]| {
            let ballots = ballots(said);
            chance_right(Aggregate::Weighted, &bundles(&ballots))
        };
        assert_eq!(chance(&[]), 0.0);
        assert!((chance(&[("1", 0.75)]) - 0.75).abs() < 1e-9);
        // Odds 9 against 3 and 1 for neither.
        assert!((chance(&[("1", 0.75), ("1", 0.75), ("2", 0.75)]) - 9.0 / 13.0).abs() < 1e-9);
        // The text that weighs most is the one that would be given: odds 1 of 1, 19 and 1.
        assert!((chance(&[("1", 0.5), ("1", 0.5), ("2", 0.95)]) - 1.0 / 21.0).abs() < 1e-6);
    }

    #[test]
    fn confidence_is_the_beta_distribution_s() {
        // 1 - I_{1/2}(a + 1, b + 1), from tables: a = b is even, (4, 0) is 31/32, (3, 1) is 13/16.
        for (a, b, want) in [
            (0.0, 0.0, 0.5),
            (2.0, 2.0, 0.5),
            (4.0, 0.0, 31.0 / 32.0),
            (3.0, 1.0, 13.0 / 16.0),
        ] {
            assert!((confidence(a, b) - want).abs() < 1e-12, "{a}, {b}");
        }
    }
}
