//! Tests of the sampler against distributions computed by hand.

use super::*;
use proptest::prelude::*;

const ISA: Isa = Isa::Scalar;

fn pick(logits: &[f32], sampling: &Sampling, uniform: f64) -> Result<TokenId, ChoiceError> {
    let seen = Occurrences::default();
    choose(ISA, &mut logits.to_vec(), sampling, &seen, None, uniform, 0).map(|c| c.token)
}

/// Share of each token over evenly spaced draws.
fn shares(logits: &[f32], sampling: &Sampling) -> Vec<f64> {
    let draws = 20_000;
    let mut shares = vec![0.0; logits.len()];
    for i in 0..draws {
        let token =
            pick(logits, sampling, (f64::from(i) + 0.5) / f64::from(draws)).expect("finite logits");
        shares[token as usize] += 1.0 / f64::from(draws);
    }
    shares
}

fn assert_shares(got: &[f64], want: &[f64]) {
    for (g, w) in got.iter().zip(want) {
        assert!((g - w).abs() <= 2e-4, "shares {got:?}, want {want:?}");
    }
}

fn softmax(logits: &[f32], temperature: f64) -> Vec<f64> {
    let exp: Vec<f64> = logits
        .iter()
        .map(|&x| (f64::from(x) / temperature).exp())
        .collect();
    let sum: f64 = exp.iter().sum();
    exp.iter().map(|e| e / sum).collect()
}

const LOGITS: [f32; 5] = [1.0, 3.0, -1.0, 2.0, 0.5];

#[test]
fn temperature_gives_the_softmax() {
    for temperature in [0.5, 1.0, 2.0] {
        let got = shares(&LOGITS, &Sampling::temperature(temperature));
        assert_shares(&got, &softmax(&LOGITS, f64::from(temperature)));
    }
    assert_eq!(pick(&LOGITS, &Sampling::greedy(), 0.99), Ok(1));
    assert_eq!(
        pick(&[2.0, 5.0, 5.0], &Sampling::greedy(), 0.0),
        Ok(1),
        "the lowest id among equals"
    );
    assert_eq!(
        pick(&LOGITS, &Sampling::temperature(1e-30), 0.999),
        Ok(1),
        "tiny temperatures do not overflow"
    );
}

#[test]
fn filters_keep_what_they_say() {
    let keep = |sampling: &Sampling, kept: &[usize]| {
        let all = softmax(&LOGITS, 1.0);
        let mass: f64 = kept.iter().map(|&i| all[i]).sum();
        let want: Vec<f64> = (0..5)
            .map(|i| {
                if kept.contains(&i) {
                    all[i] / mass
                } else {
                    0.0
                }
            })
            .collect();
        assert_shares(&shares(&LOGITS, sampling), &want);
    };
    let base = Sampling::temperature(1.0);
    // Probabilities: 0.0827, 0.611, 0.0112, 0.225, 0.0501 hence in order 1 3 0 4 2.
    keep(
        &Sampling {
            top_k: 2,
            ..base.clone()
        },
        &[1, 3],
    );
    keep(
        &Sampling {
            top_p: 0.6,
            ..base.clone()
        },
        &[1],
    );
    keep(
        &Sampling {
            top_p: 0.7,
            ..base.clone()
        },
        &[1, 3],
    );
    keep(
        &Sampling {
            top_p: 0.999,
            ..base.clone()
        },
        &[0, 1, 2, 3, 4],
    );
    keep(
        &Sampling {
            min_p: 0.1,
            ..base.clone()
        },
        &[0, 1, 3],
    );
    keep(
        &Sampling {
            top_k: 3,
            top_p: 0.95,
            min_p: 0.2,
            ..base.clone()
        },
        &[1, 3],
    );
    keep(&Sampling { top_k: 100, ..base }, &[0, 1, 2, 3, 4]);
}

#[test]
fn penalties_and_bias_follow_their_formulas() {
    let mut seen = Occurrences::new(&[0, 2]);
    seen.add(1);
    seen.add(1);
    let sampling = Sampling {
        repetition_penalty: 2.0,
        presence_penalty: 0.5,
        frequency_penalty: 0.25,
        logit_bias: vec![(4, 1.5)],
        ..Sampling::greedy()
    };
    let mut logits = LOGITS.to_vec();
    change(&mut logits, &sampling, &seen);
    assert_eq!(logits, [0.5, 1.5 - 1.0, -2.0, 2.0, 2.0]);
    // The log-probability that is reported is the model's own.
    let choice =
        choose(ISA, &mut LOGITS.to_vec(), &sampling, &seen, None, 0.0, 2).expect("finite logits");
    assert_eq!(choice.token, 3);
    assert!((f64::from(choice.logprob) - softmax(&LOGITS, 1.0)[3].ln()).abs() < 1e-6);
    assert_eq!(choice.top.iter().map(|t| t.0).collect::<Vec<_>>(), [1, 3]);
    let scored = score(ISA, &LOGITS, 3, 2).expect("finite logits");
    assert_eq!(scored, choice);
}

#[test]
fn non_finite_logits_are_an_error_and_never_a_token() {
    for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
        for sampling in [Sampling::greedy(), Sampling::temperature(1.0)] {
            for at in 0..3 {
                let mut logits = [0.0, 1.0, 2.0];
                logits[at] = bad;
                assert_eq!(pick(&logits, &sampling, 0.5), Err(ChoiceError::NonFinite));
                assert_eq!(score(ISA, &logits, 0, 0), Err(ChoiceError::NonFinite));
            }
        }
    }
}

#[test]
fn bans_hold_and_banning_everything_is_an_error() {
    for temperature in [0.0, 1.0] {
        let mut sampling = Sampling::temperature(temperature);
        sampling.logit_bias = vec![(1, f32::NEG_INFINITY)];
        assert_eq!(pick(&[0.0, 9.0], &sampling, 0.999), Ok(0));
        sampling.logit_bias.push((0, f32::NEG_INFINITY));
        assert_eq!(
            pick(&[0.0, 9.0], &sampling, 0.5),
            Err(ChoiceError::NothingLeft)
        );
    }
}

#[test]
fn settings_out_of_range_are_refused_by_name() {
    let bad = |change: fn(&mut Sampling)| {
        let mut sampling = Sampling::greedy();
        change(&mut sampling);
        sampling.validate(10).expect_err("out of range").to_string()
    };
    assert!(bad(|s| s.temperature = f32::NAN).contains("temperature"));
    assert!(bad(|s| s.temperature = -1.0).contains("temperature"));
    assert!(bad(|s| s.top_p = 0.0).contains("top_p"));
    assert!(bad(|s| s.min_p = 1.5).contains("min_p"));
    assert!(bad(|s| s.repetition_penalty = 0.0).contains("repetition_penalty"));
    assert!(bad(|s| s.logit_bias = vec![(10, 0.0)]).contains("vocabulary"));
    assert!(bad(|s| s.logit_bias = vec![(1, f32::NAN)]).contains("logit_bias"));
    assert!(Sampling::temperature(0.7).validate(10).is_ok());
}

proptest! {
    /// The quick nucleus (a growing sorted head) equals the plain one on long, flat or tied distributions.
    #[test]
    fn top_p_equals_a_full_sort(raw in prop::collection::vec(-3i8..3, 1..900), top_p in 0.01f32..1.0, u in 0.0f64..1.0) {
        let logits: Vec<f32> = raw.iter().map(|&x| f32::from(x) * 0.5).collect();
        let sampling = Sampling { top_p, ..Sampling::temperature(1.0) };
        let mut order: Vec<(TokenId, f32)> = logits.iter().enumerate().map(|(i, &x)| (i as TokenId, x)).collect();
        order.sort_by(rank);
        let most = order[0].1;
        let weights: Vec<f64> = order.iter().map(|&(_, x)| f64::from(x - most).exp()).collect();
        // The same sum in the same order as the candidates, which is by id.
        let mass: f64 = logits.iter().map(|&x| f64::from(x - most).exp()).sum();
        let mut sum = 0.0;
        let kept = 1 + weights.iter().position(|w| { sum += w; sum >= f64::from(top_p) * mass }).unwrap_or(weights.len() - 1);
        let token = pick(&logits, &sampling, u).expect("finite logits");
        prop_assert!(order[..kept].iter().any(|&(t, _)| t == token));
        let total: f64 = weights[..kept].iter().sum();
        let mut sum = 0.0;
        let at = weights[..kept].iter().position(|w| { sum += w; u * total < sum }).unwrap_or(kept - 1);
        prop_assert_eq!(order[at].0, token);
    }
}

#[test]
fn the_drawn_log_probability_is_that_of_the_changed_distribution() {
    let seen = Occurrences::default();
    for temperature in [0.5f32, 0.8, 1.0, 2.0] {
        let sampling = Sampling::temperature(temperature);
        let all = softmax(&LOGITS, f64::from(temperature));
        let two = Sampling {
            top_k: 2,
            ..sampling.clone()
        };
        let mut best = all.clone();
        best.sort_by(f64::total_cmp);
        let kept = best[best.len() - 1] + best[best.len() - 2];
        for uniform in [0.0, 0.3, 0.6, 0.9, 0.999] {
            let draw = |sampling: &Sampling| {
                choose(ISA, &mut LOGITS.to_vec(), sampling, &seen, None, uniform, 0)
                    .expect("finite logits")
            };
            let choice = draw(&sampling);
            let want = all[choice.token as usize].ln();
            assert!((f64::from(choice.drawn_logprob) - want).abs() < 1e-6);
            let choice = draw(&two);
            let want = (all[choice.token as usize] / kept).ln();
            assert!((f64::from(choice.drawn_logprob) - want).abs() < 1e-6);
        }
    }
}

#[test]
fn only_allowed_tokens_are_drawn_in_their_own_proportions() {
    let allowed = TokenMask::of(&[0, 3]);
    let seen = Occurrences::default();
    let draw = |sampling: &Sampling, allowed, uniform| {
        choose(
            ISA,
            &mut LOGITS.to_vec(),
            sampling,
            &seen,
            Some(allowed),
            uniform,
            1,
        )
    };
    let greedy = draw(&Sampling::greedy(), &allowed, 0.0).expect("finite logits");
    assert_eq!(greedy.token, 3);
    assert_eq!(greedy.top[0].0, 1, "what the model itself thinks best");
    let whole = softmax(&LOGITS, 1.0);
    assert!((f64::from(greedy.logprob) - whole[3].ln()).abs() < 1e-6);
    let share = whole[0] / (whole[0] + whole[3]);
    let drawn: Vec<TokenId> = (0..1000)
        .map(|i| {
            let uniform = (f64::from(i) + 0.5) / 1000.0;
            let sampling = Sampling::temperature(1.0);
            draw(&sampling, &allowed, uniform)
                .expect("finite logits")
                .token
        })
        .collect();
    assert!(drawn.iter().all(|token| [0, 3].contains(token)));
    let zeros = drawn.iter().filter(|&&token| token == 0).count();
    assert!(
        (zeros as f64 / 1000.0 - share).abs() < 2e-3,
        "{zeros} of 1000, want {share}"
    );
    let nothing = draw(&Sampling::greedy(), &TokenMask::of(&[]), 0.0);
    assert_eq!(nothing, Err(ChoiceError::NothingLeft));
}
