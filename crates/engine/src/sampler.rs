//! From logits to a token.
//!
//! [`choose`] applies bias, penalties, the set of allowed tokens, temperature, top-k, top-p and min-p in that order (the order of transformers' warpers) and inverts
//! the distribution function at a given uniform number; it draws nothing itself. Logits that are not finite are an error, never a token.
//! Equal logits are ranked by token id, so the result depends on nothing but the arguments.

use std::cmp::Ordering;
use std::collections::BTreeMap;

use edgethink_kernels::{Isa, largest, log_sum_exp};

use crate::mask::TokenMask;
use crate::request::{Sampling, TokenId};

/// Tokens whose logit, after temperature, is this far below the best one are left out: together they have a probability below
/// V e^-40 < 1e-12, less than the 53 bits of the draw can tell.
const NEGLIGIBLE: f32 = 40.0;
/// Logits that are looked at together: to find that a part has nothing takes no branch per logit.
const PART: usize = 64;

/// A chosen or scored token.
#[derive(Debug, Clone, PartialEq)]
pub struct Choice {
    /// The token.
    pub token: TokenId,
    /// Its log-probability under the unchanged logits, nats.
    pub logprob: f32,
    /// Its log-probability under the distribution that it was drawn from, after bias, penalties, temperature and filters; 0 for the
    /// most likely token at temperature 0 and for a given token.
    pub drawn_logprob: f32,
    /// The best tokens under the unchanged logits, best first.
    pub top: Vec<(TokenId, f32)>,
}

/// Why no token can be had.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ChoiceError {
    /// A logit is NaN or infinite.
    NonFinite,
    /// Every token is banned.
    NothingLeft,
}

/// How often each token occurred: what the penalties look at.
#[derive(Debug, Clone, Default)]
pub struct Occurrences {
    /// Tokens of prompt and completion, with their count in the completion.
    counts: BTreeMap<TokenId, u32>,
}

impl Occurrences {
    /// Those of a prompt with an empty completion.
    pub fn new(prompt: &[TokenId]) -> Self {
        Occurrences {
            counts: prompt.iter().map(|&token| (token, 0)).collect(),
        }
    }

    /// Counts a token of the completion.
    pub fn add(&mut self, token: TokenId) {
        *self.counts.entry(token).or_default() += 1;
    }
}

/// Chooses a token, of `allowed` if that is given; `logits` `[V]` is changed. `uniform` in `[0, 1)` is the draw; `top` of the best tokens are reported.
///
/// # Errors
/// [`ChoiceError`].
pub fn choose(
    isa: Isa,
    logits: &mut [f32],
    sampling: &Sampling,
    seen: &Occurrences,
    allowed: Option<&TokenMask>,
    uniform: f64,
    top: usize,
) -> Result<Choice, ChoiceError> {
    let mut most = largest(isa, logits);
    let total = log_sum_exp(isa, logits, most).map_err(|_| ChoiceError::NonFinite)?;
    let top = best(logits, top, total);
    let changed = !sampling.logit_bias.is_empty() || sampling.has_penalties() || allowed.is_some();
    let plain = changed.then(|| logits.to_vec());
    if changed {
        change(logits, sampling, seen);
        if let Some(allowed) = allowed {
            allowed.apply(logits);
        }
        most = largest(isa, logits);
    }
    if most == f32::NEG_INFINITY {
        return Err(ChoiceError::NothingLeft);
    }
    let (token, drawn_logprob) = if sampling.temperature == 0.0 {
        (first_of(logits, most).ok_or(ChoiceError::NonFinite)?, 0.0)
    } else {
        draw(logits, most, sampling, uniform)?
    };
    let logprob = plain.as_deref().unwrap_or(logits)[token];
    Ok(Choice {
        token: token as TokenId,
        logprob: logprob - total,
        drawn_logprob,
        top,
    })
}

/// Scores a token that is given.
///
/// # Errors
/// [`ChoiceError::NonFinite`].
pub fn score(isa: Isa, logits: &[f32], token: TokenId, top: usize) -> Result<Choice, ChoiceError> {
    let most = largest(isa, logits);
    let total = log_sum_exp(isa, logits, most).map_err(|_| ChoiceError::NonFinite)?;
    Ok(Choice {
        token,
        logprob: logits[token as usize] - total,
        drawn_logprob: 0.0,
        top: best(logits, top, total),
    })
}

/// Bias and penalties.
fn change(logits: &mut [f32], sampling: &Sampling, seen: &Occurrences) {
    for &(token, bias) in &sampling.logit_bias {
        logits[token as usize] += bias;
    }
    if !sampling.has_penalties() {
        return;
    }
    for (&token, &count) in &seen.counts {
        let logit = &mut logits[token as usize];
        *logit = if *logit > 0.0 {
            *logit / sampling.repetition_penalty
        } else {
            *logit * sampling.repetition_penalty
        };
        if count > 0 {
            *logit -= sampling.presence_penalty + sampling.frequency_penalty * count as f32;
        }
    }
}

/// The first place of a value.
fn first_of(logits: &[f32], value: f32) -> Option<usize> {
    let has = |part: &[f32]| part.iter().fold(false, |any, &x| any | (x == value));
    let part = logits.chunks(PART).position(has)? * PART;
    let place = logits[part..].iter().position(|&x| x == value)?;
    Some(part + place)
}

/// Higher logits first, then lower ids.
fn rank(a: &(TokenId, f32), b: &(TokenId, f32)) -> Ordering {
    b.1.total_cmp(&a.1).then(a.0.cmp(&b.0))
}

/// The `count` best tokens with their log-probabilities.
fn best(logits: &[f32], count: usize, total: f32) -> Vec<(TokenId, f32)> {
    if count == 0 {
        return Vec::new();
    }
    let mut all: Vec<(TokenId, f32)> = logits
        .iter()
        .enumerate()
        .map(|(i, &x)| (i as TokenId, x - total))
        .collect();
    keep_best(&mut all, count);
    all
}

/// Keeps and sorts the `count` best.
fn keep_best(tokens: &mut Vec<(TokenId, f32)>, count: usize) {
    if count < tokens.len() {
        tokens.select_nth_unstable_by(count - 1, rank);
        tokens.truncate(count);
    }
    tokens.sort_unstable_by(rank);
}

/// Temperature, filters and the draw: the token and its log-probability under what is left. `most` is the largest logit.
fn draw(
    logits: &[f32],
    most: f32,
    sampling: &Sampling,
    uniform: f64,
) -> Result<(usize, f32), ChoiceError> {
    // Candidates with their logits relative to the best, in nats at this temperature: 0 and below.
    let scale = 1.0 / sampling.temperature;
    let floor = if sampling.min_p > 0.0 {
        sampling.min_p.ln().max(-NEGLIGIBLE)
    } else {
        -NEGLIGIBLE
    };
    let sorted = sampling.top_k > 0 || sampling.top_p < 1.0;
    // min-p compares with the best token, which no filter removes, so it can be applied first; top-p must then see the mass that it
    // removed, so it is applied here only where the candidates need no order.
    let limit = if sorted { -NEGLIGIBLE } else { floor };
    let relative = |logit: f32| {
        // Equal to the best stays in, also where the scale is infinite.
        if logit == most {
            0.0
        } else {
            (logit - most) * scale
        }
    };
    let mut candidates: Vec<(TokenId, f32)> = Vec::new();
    for (part, logits) in logits.chunks(PART).enumerate() {
        let any = logits
            .iter()
            .fold(false, |any, &x| any | (relative(x) >= limit));
        if !any {
            continue;
        }
        for (index, &logit) in logits.iter().enumerate() {
            let relative = relative(logit);
            if relative >= limit {
                candidates.push(((part * PART + index) as TokenId, relative));
            }
        }
    }
    if sorted {
        filter(&mut candidates, sampling, floor);
    }
    let mass: f64 = candidates
        .iter()
        .map(|&(_, relative)| f64::from(relative).exp())
        .sum();
    let wanted = uniform * mass;
    let mut sum = 0.0;
    let found = candidates.iter().find(|&&(_, relative)| {
        sum += f64::from(relative).exp();
        wanted < sum
    });
    // Without one, by rounding only, it is the last: its interval ends at the mass.
    let &(token, relative) = found
        .or(candidates.last())
        .ok_or(ChoiceError::NothingLeft)?;
    Ok((token as usize, relative - mass.ln() as f32))
}

/// top-k, top-p and min-p on candidates, which come out sorted.
fn filter(candidates: &mut Vec<(TokenId, f32)>, sampling: &Sampling, floor: f32) {
    if sampling.top_k > 0 {
        keep_best(candidates, sampling.top_k.min(candidates.len()));
    }
    if sampling.top_p < 1.0 {
        let mass: f64 = candidates
            .iter()
            .map(|&(_, relative)| f64::from(relative).exp())
            .sum();
        let wanted = f64::from(sampling.top_p) * mass;
        // The nucleus is mostly small: sort a growing head until it holds the mass.
        let mut head = 128.min(candidates.len());
        loop {
            if head < candidates.len() {
                candidates.select_nth_unstable_by(head - 1, rank);
            }
            candidates[..head].sort_unstable_by(rank);
            let mut sum = 0.0;
            let nucleus = candidates[..head].iter().position(|&(_, relative)| {
                sum += f64::from(relative).exp();
                sum >= wanted
            });
            match nucleus {
                Some(last) => candidates.truncate(last + 1),
                None if head == candidates.len() => {}
                None => {
                    head = (head * 4).min(candidates.len());
                    continue;
                }
            }
            break;
        }
    }
    candidates.retain(|&(_, relative)| relative >= floor);
}

#[cfg(test)]
#[path = "sampler_tests.rs"]
mod tests;
