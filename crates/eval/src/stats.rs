//! Numbers that are told of samples: pass@k, confidence intervals, quantiles.

use edgethink_engine::rng::Draws;
use serde::{Deserialize, Serialize};

/// Draws of a bootstrap.
const DRAWS: usize = 1000;
/// The 97.5 % quantile of the normal distribution.
const Z: f64 = 1.959_964;

/// 95 % of it.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Interval {
    /// The lower end.
    pub low: f64,
    /// The upper end.
    pub high: f64,
    /// How it was found.
    pub method: Method,
}

/// Ways to an interval.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Method {
    /// Wilson's score interval of a share.
    Wilson,
    /// Percentiles over 1,000 draws of questions with replacement; samples of one question stay together.
    Bootstrap,
}

/// The chance that one of `k` of `n` samples is right, of which `correct` are: unbiased (Chen et al., arXiv 2107.03374, §2.1).
/// `None` if there are fewer than `k`.
pub fn pass_at_k(n: usize, correct: usize, k: usize) -> Option<f64> {
    if k == 0 || k > n || correct > n {
        return None;
    }
    // 1 - C(n - c, k) / C(n, k), as a product that neither overflows nor cancels.
    let wrong = n - correct;
    if wrong < k {
        return Some(1.0);
    }
    let none: f64 = (wrong + 1..=n).map(|i| 1.0 - k as f64 / i as f64).product();
    Some(1.0 - none)
}

/// The interval of the mean of one value from 0 to 1 per question. Wilson's where all are 0 or 1, otherwise a bootstrap over questions.
/// `None` without questions.
pub fn interval(values: &[f64], seed: u64) -> Option<Interval> {
    if values.is_empty() {
        return None;
    }
    let sum: f64 = values.iter().sum();
    if values.iter().all(|x| *x == 0.0 || *x == 1.0) {
        return Some(wilson(sum, values.len() as f64));
    }
    let draws = Draws::new(seed, 0);
    let n = values.len();
    let mean = |draw: usize| {
        let pick =
            |at: usize| values[((draws.uniform(draw * n + at) * n as f64) as usize).min(n - 1)];
        (0..n).map(pick).sum::<f64>() / n as f64
    };
    let mut means: Vec<f64> = (0..DRAWS).map(mean).collect();
    means.sort_by(f64::total_cmp);
    Some(Interval {
        low: quantile(&means, 0.025).unwrap_or(0.0),
        high: quantile(&means, 0.975).unwrap_or(1.0),
        method: Method::Bootstrap,
    })
}

fn wilson(right: f64, n: f64) -> Interval {
    let share = right / n;
    let centre = share + Z * Z / (2.0 * n);
    let half = Z * (share * (1.0 - share) / n + Z * Z / (4.0 * n * n)).sqrt();
    let whole = 1.0 + Z * Z / n;
    Interval {
        low: ((centre - half) / whole).max(0.0),
        high: ((centre + half) / whole).min(1.0),
        method: Method::Wilson,
    }
}

/// The mean; `None` of nothing.
pub fn mean(values: impl IntoIterator<Item = f64>) -> Option<f64> {
    let (n, sum) = values
        .into_iter()
        .fold((0_usize, 0.0), |(n, sum), x| (n + 1, sum + x));
    (n > 0).then(|| sum / n as f64)
}

/// A quantile of sorted values, between the two nearest; `None` of nothing.
pub fn quantile(sorted: &[f64], share: f64) -> Option<f64> {
    let last = sorted.len().checked_sub(1)?;
    let place = share.clamp(0.0, 1.0) * last as f64;
    let below = place.floor() as usize;
    let above = sorted[(below + 1).min(last)];
    Some(sorted[below] + (above - sorted[below]) * (place - below as f64))
}

/// The median; `None` of nothing.
pub fn median(values: impl IntoIterator<Item = f64>) -> Option<f64> {
    let mut values: Vec<f64> = values.into_iter().collect();
    values.sort_by(f64::total_cmp);
    quantile(&values, 0.5)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pass_at_k_is_the_share_of_subsets() {
        // Every subset of k of n samples, counted.
        for n in 1_usize..=8 {
            for correct in 0..=n {
                for k in 1..=n {
                    let subsets = (0_u32..1 << n).filter(|set| set.count_ones() as usize == k);
                    let with = |set: &u32| set & ((1_u32 << correct) - 1) != 0;
                    let all = subsets.clone().count() as f64;
                    let want = subsets.filter(with).count() as f64 / all;
                    let got = pass_at_k(n, correct, k).expect("k is at most n");
                    assert!(
                        (got - want).abs() < 1e-12,
                        "{n} {correct} {k}: {got} {want}"
                    );
                }
            }
        }
        assert_eq!(pass_at_k(4, 1, 5), None);
        assert_eq!(pass_at_k(4, 1, 0), None);
        let large = pass_at_k(10_000, 1, 100).expect("k is at most n");
        assert!((large - 0.01).abs() < 1e-9, "{large}");
    }

    #[test]
    fn intervals_hold_the_mean_and_shrink() {
        // Wilson's interval of 8 of 10, from the formula by hand: 0.4902 to 0.9433.
        let mut values = vec![1.0; 8];
        values.extend([0.0; 2]);
        let eight = interval(&values, 0).expect("an interval");
        assert_eq!(eight.method, Method::Wilson);
        assert!(
            (eight.low - 0.4902).abs() < 1e-4 && (eight.high - 0.9433).abs() < 1e-4,
            "{eight:?}"
        );
        let all = interval(&[1.0; 20], 0).expect("an interval");
        assert!(
            all.high <= 1.0 && all.low > 0.8 && all.low < 0.9,
            "no certainty from 20: {all:?}"
        );
        // A mean of n values with standard deviation s has the half width 1.96 s / sqrt(n).
        let values: Vec<f64> = (0..400).map(|i| f64::from(i % 5) / 4.0).collect();
        let found = interval(&values, 1).expect("an interval");
        let want = Z * (0.125_f64 / 400.0).sqrt();
        assert_eq!(found.method, Method::Bootstrap);
        assert!(
            ((found.high - found.low) / 2.0 - want).abs() < 0.15 * want,
            "{found:?}, {want}"
        );
        assert_eq!(interval(&values, 1), interval(&values, 1));
        assert_eq!(interval(&[], 1), None);
    }

    #[test]
    fn quantiles_stand_between_neighbours() {
        assert_eq!(quantile(&[1.0, 2.0, 4.0], 0.5), Some(2.0));
        assert_eq!(quantile(&[1.0, 2.0], 0.25), Some(1.25));
        assert_eq!(median([3.0, 1.0, 2.0]), Some(2.0));
        assert_eq!(median([]), None);
    }
}
