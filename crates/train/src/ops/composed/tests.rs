//! Against the CPU's operations where the golden files do not reach: attention with windows, in several blocks, in a document of one token;
//! the loss under a lesson.

use std::sync::Arc;

use burn_backend::{AutodiffBackend, ops::FloatTensorOps};

use super::*;
use crate::ops::{Taped, into_vec, tensor};

const HEADS: usize = 6;
const KV_HEADS: usize = 2;
const HEAD_DIM: usize = 4;

/// Numbers that look random.
fn wave(rows: usize, cols: usize, step: f32) -> FloatTensor<Taped> {
    let values = (0..rows * cols).map(|i| (i as f32 * step).sin()).collect();
    let t = Taped::from_inner(tensor(values, &[rows, cols]));
    Taped::float_set_require_grad(t, true)
}

fn plan(bounds: Vec<usize>, window: Option<usize>) -> Arc<AttentionPlan> {
    let angles = |of: fn(f32) -> f32| (0..50 * HEAD_DIM / 2).map(|i| of(i as f32 * 0.3)).collect();
    Arc::new(AttentionPlan {
        heads: HEADS,
        kv_heads: KV_HEADS,
        head_dim: HEAD_DIM,
        bounds,
        window,
        cos: angles(f32::cos),
        sin: angles(f32::sin),
    })
}

/// The output, and the gradients of q, k and v under an arbitrary gradient of the output.
fn run<O: NetOps<Backend = Taped>>(plan: &Arc<AttentionPlan>) -> [Vec<f32>; 4] {
    let rows = plan.bounds.last().copied().unwrap();
    let q = wave(rows, HEADS * HEAD_DIM, 1.3);
    let k = wave(rows, KV_HEADS * HEAD_DIM, 0.7);
    let v = wave(rows, KV_HEADS * HEAD_DIM, 2.1);
    let out = O::attend(q.clone(), k.clone(), v.clone(), plan);
    let fed = Taped::float_mul(out.clone(), wave(rows, HEADS * HEAD_DIM, 0.9));
    let mut grads = Taped::float_sum(fed).backward();
    let mut of = |x: FloatTensor<Taped>| into_vec(x.grad_remove(&mut grads).unwrap());
    let (dq, dk, dv) = (of(q), of(k), of(v));
    [into_vec(out.into_primitive()), dq, dk, dv]
}

#[test]
fn attention_is_the_fused_one_with_and_without_a_window() {
    for window in [None, Some(9), Some(1)] {
        let plan = plan(vec![0, 40, 47, 48], window);
        let (fused, composed) = (run::<Taped>(&plan), run::<Composed<Taped>>(&plan));
        for (want, got) in fused.iter().zip(&composed) {
            assert_eq!(want.len(), got.len());
            for (want, got) in want.iter().zip(got) {
                assert!(
                    (want - got).abs() <= 1e-5,
                    "{window:?}: {got} is not {want}"
                );
            }
        }
    }
}

/// The divergence from a lesson, and its gradients of the hidden states and the head.
fn learn<O: NetOps<Backend = Taped, Inner = Flex>>(temperature: f32) -> [Vec<f32>; 3] {
    let (rows, e, wide, vocab) = (70, 6, 8, 11);
    let hidden = wave(rows, e, 1.7);
    let head = wave(vocab, e, 0.9);
    let lesson = Lesson {
        hidden: wave(rows, wide, 2.3).into_primitive(),
        head: wave(vocab, wide, 1.1).into_primitive(),
    };
    let targets = Arc::new(Targets {
        ids: vec![0; rows],
        weights: (0..rows).map(|row| (row % 3) as f32).collect(),
        temperature,
    });
    let loss = O::cross_entropy(hidden.clone(), head.clone(), &targets, Some(&lesson));
    let mut grads = loss.clone().backward();
    let mut of = |x: FloatTensor<Taped>| into_vec(x.grad_remove(&mut grads).unwrap());
    let (d_hidden, d_head) = (of(hidden), of(head));
    [into_vec(loss.into_primitive()), d_hidden, d_head]
}

#[test]
fn a_lesson_is_learnt_as_on_the_cpu() {
    for temperature in [1.0, 0.7] {
        let fused = learn::<Taped>(temperature);
        let composed = learn::<Composed<Taped>>(temperature);
        for (want, got) in fused.iter().zip(&composed) {
            assert_eq!(want.len(), got.len());
            let largest = want.iter().fold(0.0f32, |m, v| m.max(v.abs()));
            assert!(largest > 0.1, "{largest}");
            for (want, got) in want.iter().zip(got) {
                assert!(
                    (want - got).abs() <= 1e-5 * largest.max(1.0),
                    "{got} is not {want}"
                );
            }
        }
    }
}
