//! What a score is worth: AUROC, accuracy and tokens along the share of queries that think (the paper's Fig. 3), and the threshold that
//! a wish needs.
//!
//! Everything here is counting: each question was asked once with and once without a thought, and routing picks one of the two.

/// What came of a question, asked one way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Outcome {
    /// The answer was right.
    pub correct: bool,
    /// Tokens of the response.
    pub tokens: usize,
}

/// A question asked both ways.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Asked {
    /// The switcher's score.
    pub score: f32,
    /// How much it counts; equal questions count 1.
    pub weight: f64,
    /// Without a thought.
    pub base: Outcome,
    /// With one.
    pub think: Outcome,
}

/// A threshold, and what routing by it gives.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Cut {
    /// Share of the queries that think.
    pub share: f64,
    /// Queries with at least this score think; `None` where no threshold from 0 to 1 gives the share.
    pub threshold: Option<f32>,
    /// Where it was measured.
    pub result: Option<Routed>,
}

/// Means over all queries.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Routed {
    /// Share of right answers.
    pub accuracy: f64,
    /// Tokens per answer.
    pub tokens: f64,
}

/// What is wanted of a threshold.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Wish {
    /// This share of the queries thinks.
    Share(f64),
    /// At least this share of right answers, with as few thoughts as possible.
    Accuracy(f64),
    /// At least this share of the accuracy of always thinking, with as few thoughts as possible.
    Keep(f64),
}

/// A wish that no threshold grants.
#[derive(Debug, Clone, Copy, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum WishError {
    /// Not a share.
    #[error("{wish} is no share; give a number from 0 to 1")]
    NoShare {
        /// The number given.
        wish: f64,
    },
    /// The set has no questions.
    #[error("there are no questions to calibrate on")]
    NoQuestions,
    /// Accuracy is wanted of questions that were not asked.
    #[error("an accuracy needs questions with answers, asked both ways")]
    NotAsked,
    /// Equal scores.
    #[error(
        "no threshold makes {:.1} % of the queries think: so many scores are equal; {:.1} % and {:.1} % are possible",
        100.0 * wish, 100.0 * below, 100.0 * above
    )]
    Share {
        /// The share wanted.
        wish: f64,
        /// The next that is possible.
        below: f64,
        /// The next that is possible.
        above: f64,
    },
    /// More than there is.
    #[error(
        "no threshold reaches {:.1} % right answers: the best is {:.1} %, when {:.1} % of the queries think; always thinking reaches {:.1} %",
        100.0 * wish, 100.0 * best, 100.0 * share, 100.0 * always
    )]
    Accuracy {
        /// The accuracy wanted.
        wish: f64,
        /// The best of all thresholds.
        best: f64,
        /// The share of thoughts that gives it.
        share: f64,
        /// Accuracy of always thinking.
        always: f64,
    },
}

/// The chance that a hard query scores above an easy one; equal scores count half. `None` without both kinds.
pub fn auroc(easy: &[f32], hard: &[f32]) -> Option<f64> {
    let mut all: Vec<(f32, bool)> = Vec::with_capacity(easy.len() + hard.len());
    all.extend(easy.iter().map(|&score| (score, false)));
    all.extend(hard.iter().map(|&score| (score, true)));
    all.sort_by(|a, b| a.0.total_cmp(&b.0));
    let (mut below, mut wins) = (0.0, 0.0);
    for equal in all.chunk_by(|a, b| a.0.total_cmp(&b.0).is_eq()) {
        let hard = equal.iter().filter(|(_, hard)| *hard).count() as f64;
        let easy = equal.len() as f64 - hard;
        wins += hard * (below + 0.5 * easy);
        below += easy;
    }
    let pairs = easy.len() as f64 * hard.len() as f64;
    (pairs > 0.0).then(|| wins / pairs)
}

/// Every cut that scores allow, from no thought to thoughts only. Each counts alike.
pub fn cuts(scores: &[f32]) -> Vec<Cut> {
    sweep(scores.iter().map(|&score| (score, 1.0, None)))
}

/// The same with what routing gives: the curve of Fig. 3.
pub fn curve(asked: &[Asked]) -> Vec<Cut> {
    sweep(
        asked
            .iter()
            .map(|row| (row.score, row.weight, Some((row.base, row.think)))),
    )
}

type Row = (f32, f64, Option<(Outcome, Outcome)>);

fn sweep(rows: impl Iterator<Item = Row>) -> Vec<Cut> {
    let mut rows: Vec<Row> = rows.collect();
    rows.sort_by(|a, b| b.0.total_cmp(&a.0));
    let all: f64 = rows.iter().map(|row| row.1).sum();
    if all <= 0.0 {
        return Vec::new();
    }
    let asked = rows.iter().all(|row| row.2.is_some());
    // Nobody thinks yet.
    let mut sums = [0.0, 0.0];
    for (_, weight, outcomes) in &rows {
        if let Some((base, _)) = outcomes {
            add(&mut sums, *weight, *base);
        }
    }
    let point = |share: f64, threshold, sums: [f64; 2]| Cut {
        share: share / all,
        threshold,
        result: asked.then(|| Routed {
            // Sums of weights are rounded.
            accuracy: (sums[0] / all).clamp(0.0, 1.0),
            tokens: sums[1] / all,
        }),
    };
    let highest = rows.first().map_or(1.0, |row| row.0);
    let mut cuts = vec![point(0.0, between(highest, 1.0), sums)];
    let mut thinking = 0.0;
    let groups: Vec<&[Row]> = rows.chunk_by(|a, b| a.0.total_cmp(&b.0).is_eq()).collect();
    for (i, group) in groups.iter().enumerate() {
        for (_, weight, outcomes) in *group {
            thinking += weight;
            if let Some((base, think)) = outcomes {
                add(&mut sums, -weight, *base);
                add(&mut sums, *weight, *think);
            }
        }
        let threshold = match groups.get(i + 1) {
            Some(next) => between(next[0].0, group[0].0),
            None => Some(0.0),
        };
        // The last share is exact.
        let share = if i + 1 == groups.len() { all } else { thinking };
        cuts.push(point(share, threshold, sums));
    }
    cuts
}

fn add(sums: &mut [f64; 2], weight: f64, outcome: Outcome) {
    sums[0] += weight * f64::from(u8::from(outcome.correct));
    sums[1] += weight * outcome.tokens as f64;
}

/// A threshold above `below` and at most `above`, in the middle where there is room.
fn between(below: f32, above: f32) -> Option<f32> {
    let middle = below + 0.5 * (above - below);
    if below >= above {
        None
    } else if middle > below {
        Some(middle)
    } else {
        Some(above)
    }
}

/// What routing by `threshold` gives; `None` without questions.
pub fn route(asked: &[Asked], threshold: f32) -> Option<Cut> {
    let all: f64 = asked.iter().map(|row| row.weight).sum();
    let (mut share, mut sums) = (0.0, [0.0, 0.0]);
    for row in asked {
        let thinks = row.score >= threshold;
        add(
            &mut sums,
            row.weight,
            if thinks { row.think } else { row.base },
        );
        share += if thinks { row.weight } else { 0.0 };
    }
    (all > 0.0).then(|| Cut {
        share: share / all,
        threshold: Some(threshold),
        result: Some(Routed {
            accuracy: (sums[0] / all).clamp(0.0, 1.0),
            tokens: sums[1] / all,
        }),
    })
}

/// Never and always thinking: the ends of `curve`.
pub fn ends(curve: &[Cut]) -> Option<(Routed, Routed)> {
    Some((curve.first()?.result?, curve.last()?.result?))
}

/// Routing by lot at this share: the straight line between the [`ends`] of `curve`.
pub fn by_lot(curve: &[Cut], share: f64) -> Option<Routed> {
    let (never, always) = ends(curve)?;
    let mix = |a: f64, b: f64| a + share * (b - a);
    Some(Routed {
        accuracy: mix(never.accuracy, always.accuracy),
        tokens: mix(never.tokens, always.tokens),
    })
}

/// The cut that grants a wish; `cuts` come from [`cuts`] or [`curve`].
///
/// # Errors
/// [`WishError`], which says what is possible.
pub fn grant(cuts: &[Cut], wish: Wish) -> Result<Cut, WishError> {
    let (Wish::Share(number) | Wish::Accuracy(number) | Wish::Keep(number)) = wish;
    if !(0.0..=1.0).contains(&number) {
        return Err(WishError::NoShare { wish: number });
    }
    let always = cuts.last().ok_or(WishError::NoQuestions)?;
    match wish {
        Wish::Share(share) => grant_share(cuts, share),
        Wish::Accuracy(accuracy) => grant_accuracy(cuts, accuracy),
        Wish::Keep(keep) => {
            let always = always.result.ok_or(WishError::NotAsked)?.accuracy;
            grant_accuracy(cuts, keep * always)
        }
    }
}

/// A share may be missed by this much, or by one query.
const SHARE_TOLERANCE: f64 = 0.01;

fn grant_share(cuts: &[Cut], wish: f64) -> Result<Cut, WishError> {
    let possible = || cuts.iter().filter(|cut| cut.threshold.is_some());
    let distance = |cut: &&Cut| (cut.share - wish).abs();
    let nearest = possible().min_by(|a, b| distance(a).total_cmp(&distance(b)));
    let nearest = nearest.ok_or(WishError::NoQuestions)?;
    // With n distinct scores the shares are 1/n apart.
    let step = 1.0 / (cuts.len().max(2) - 1) as f64;
    if distance(&nearest) <= SHARE_TOLERANCE.max(0.5 * step + 1e-9) {
        return Ok(*nearest);
    }
    let shares = || possible().map(|cut| cut.share);
    Err(WishError::Share {
        wish,
        below: shares().filter(|&s| s < wish).fold(0.0, f64::max),
        above: shares().filter(|&s| s > wish).fold(1.0, f64::min),
    })
}

fn grant_accuracy(cuts: &[Cut], wish: f64) -> Result<Cut, WishError> {
    let measured: Option<Vec<(&Cut, f64)>> = cuts
        .iter()
        .map(|cut| Some((cut, cut.result?.accuracy)))
        .collect();
    let measured = measured.ok_or(WishError::NotAsked)?;
    let possible = || measured.iter().filter(|(cut, _)| cut.threshold.is_some());
    // 1e-9: sums of weights are rounded.
    if let Some((cut, _)) = possible().find(|(_, accuracy)| *accuracy >= wish - 1e-9) {
        return Ok(**cut);
    }
    // Of equals the first: the one with the fewest thoughts.
    let best = possible().rev().max_by(|a, b| a.1.total_cmp(&b.1));
    let (best, accuracy) = best.ok_or(WishError::NoQuestions)?;
    Err(WishError::Accuracy {
        wish,
        best: *accuracy,
        share: best.share,
        always: measured.last().map_or(0.0, |(_, accuracy)| *accuracy),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn asked(score: f32, base: (bool, usize), think: (bool, usize)) -> Asked {
        let outcome = |(correct, tokens)| Outcome { correct, tokens };
        Asked {
            score,
            weight: 1.0,
            base: outcome(base),
            think: outcome(think),
        }
    }

    /// Two easy questions, which a thought does not help, and two hard ones.
    fn four() -> Vec<Asked> {
        vec![
            asked(0.1, (true, 5), (true, 40)),
            asked(0.9, (false, 6), (true, 120)),
            asked(0.2, (true, 5), (false, 50)),
            asked(0.7, (false, 8), (true, 100)),
        ]
    }

    #[test]
    fn auroc_by_hand() {
        assert_eq!(auroc(&[0.1, 0.2], &[0.3, 0.9]), Some(1.0));
        assert_eq!(auroc(&[0.3, 0.9], &[0.1, 0.2]), Some(0.0));
        assert_eq!(auroc(&[0.5, 0.5], &[0.5]), Some(0.5));
        // 3 of 4 pairs are won, one is equal.
        assert_eq!(auroc(&[0.1, 0.4], &[0.4, 0.5]), Some(3.5 / 4.0));
        assert_eq!(auroc(&[], &[0.5]), None);
    }

    #[test]
    fn the_curve_by_hand() {
        let curve = curve(&four());
        let of = |f: fn(&Routed) -> f64| -> Vec<f64> {
            curve
                .iter()
                .filter_map(|cut| cut.result.as_ref().map(f))
                .collect()
        };
        let shares: Vec<f64> = curve.iter().map(|cut| cut.share).collect();
        assert_eq!(shares, [0.0, 0.25, 0.5, 0.75, 1.0]);
        assert_eq!(of(|r| r.accuracy), [0.5, 0.75, 1.0, 0.75, 0.75]);
        assert_eq!(of(|r| r.tokens), [6.0, 34.5, 57.5, 68.75, 77.5]);
        for cut in &curve {
            let again = route(&four(), cut.threshold.unwrap()).unwrap();
            assert_eq!(again, *cut);
        }
        let half = by_lot(&curve, 0.5).unwrap();
        assert_eq!((half.accuracy, half.tokens), (0.625, 41.75));
    }

    #[test]
    fn weights_are_another_mix() {
        let mut rows = four();
        for row in &mut rows {
            row.weight = if row.score < 0.5 { 3.0 } else { 1.0 };
        }
        let cut = route(&rows, 0.5).unwrap();
        assert_eq!(cut.share, 0.25);
        let result = cut.result.unwrap();
        assert_eq!(
            (result.accuracy, result.tokens),
            (1.0, (30.0 + 220.0) / 8.0)
        );
    }

    #[test]
    fn wishes_are_granted_or_refused_with_what_is_possible() {
        let curve = curve(&four());
        let threshold = |wish| grant(&curve, wish).map(|cut| (cut.share, cut.threshold));
        assert_eq!(threshold(Wish::Share(0.5)), Ok((0.5, Some(0.45))));
        assert_eq!(threshold(Wish::Share(1.0)), Ok((1.0, Some(0.0))));
        assert_eq!(threshold(Wish::Accuracy(0.75)).map(|t| t.0), Ok(0.25));
        assert_eq!(threshold(Wish::Accuracy(1.0)).map(|t| t.0), Ok(0.5));
        assert_eq!(threshold(Wish::Keep(1.0)).map(|t| t.0), Ok(0.25));
        let nan = threshold(Wish::Accuracy(f64::NAN));
        assert!(matches!(nan, Err(WishError::NoShare { .. })));
        let worse: Vec<Asked> = four()[..1].to_vec();
        let worse = super::curve(&[worse[0], asked(0.5, (false, 1), (false, 2))]);
        let error = grant(&worse, Wish::Accuracy(0.9)).unwrap_err();
        assert_eq!(
            error.to_string(),
            "no threshold reaches 90.0 % right answers: the best is 50.0 %, when 0.0 % of the queries think; always thinking reaches 50.0 %"
        );
        let equal = cuts(&[0.5, 0.5, 0.5, 0.9]);
        let error = grant(&equal, Wish::Share(0.6)).unwrap_err();
        assert_eq!(
            error,
            WishError::Share {
                wish: 0.6,
                below: 0.25,
                above: 1.0
            }
        );
        assert_eq!(grant(&equal, Wish::Accuracy(0.5)), Err(WishError::NotAsked));
        assert_eq!(grant(&[], Wish::Share(0.5)), Err(WishError::NoQuestions));
    }

    #[test]
    fn a_score_of_one_always_thinks() {
        let cuts = cuts(&[1.0, 0.25]);
        assert_eq!(cuts[0].threshold, None);
        let none = grant(&cuts, Wish::Share(0.0)).unwrap_err();
        assert!(matches!(none, WishError::Share { above, .. } if above == 0.5));
    }

    proptest! {
        #[test]
        fn more_thoughts_need_a_lower_threshold(
            rows in prop::collection::vec((0u8..40, any::<(bool, bool)>(), 1usize..9, 1usize..99), 1..60),
        ) {
            let rows: Vec<Asked> = rows
                .into_iter()
                .map(|(score, (base, think), short, long)| {
                    asked(f32::from(score) / 40.0, (base, short), (think, long))
                })
                .collect();
            let curve = curve(&rows);
            for pair in curve.windows(2) {
                prop_assert!(pair[0].share < pair[1].share);
                prop_assert!(pair[0].threshold > pair[1].threshold);
            }
            for cut in &curve {
                let again = route(&rows, cut.threshold.unwrap()).unwrap();
                prop_assert!((again.share - cut.share).abs() < 1e-12);
                let (a, b) = (again.result.unwrap(), cut.result.unwrap());
                prop_assert!((a.accuracy - b.accuracy).abs() < 1e-12 && (a.tokens - b.tokens).abs() < 1e-9);
            }
            // A higher wish never thinks less.
            let mut last = 0.0;
            for wish in 0..=20 {
                let Ok(cut) = grant(&curve, Wish::Accuracy(f64::from(wish) / 20.0)) else { break };
                prop_assert!(cut.share >= last);
                last = cut.share;
            }
            let (always, never) = (curve.last().unwrap(), curve[0]);
            prop_assert_eq!((never.share, always.share), (0.0, 1.0));
        }
    }
}
