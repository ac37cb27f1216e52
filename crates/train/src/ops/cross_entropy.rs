//! The output head and the cross-entropy as one operation, in chunks of rows: no `[T, V]` logits are kept.
//!
//! For each token with weight `c` and target `t`: `loss += c (log sum_j e^{z_j} - z_t)`, `z = head h`. The gradient
//! of the logits, `c (softmax(z) - onehot(t))`, is turned into `dh` and `dhead` at once, in the forward pass.
//! With a [`Lesson`] the target is a distribution p instead of a token: `loss += c KL(p || softmax(z))`, gradient `c (softmax(z) - p)`.
//! Tokens of weight zero (the prompt of a fine-tuning example) are skipped altogether.

use std::sync::Arc;

use burn_autodiff::{
    checkpoint::{base::Checkpointer, strategy::NoCheckpointing},
    grads::Gradients,
    ops::{Backward, Ops, OpsKind},
};
use burn_backend::{Backend, tensor::FloatTensor};
use burn_flex::{Flex, FlexTensor};
use rayon::prelude::*;

use super::{
    Taped, dense,
    linear::{matmul_nn, matmul_nt, matmul_tn},
    rows_cols, simd, tensor, values,
};

/// Logits held at a time (16 MiB of f32).
const CHUNK_LOGITS: usize = 4 << 20;
/// Rows held at a time at most.
const CHUNK_ROWS: usize = 1024;

/// What each row of a micro-batch is to predict.
#[derive(Debug, Clone)]
pub(crate) struct Targets {
    /// Target token of each row; anything where the weight is zero.
    pub ids: Vec<u32>,
    /// Weight of each row; zero means no loss.
    pub weights: Vec<f32>,
    /// Divides the logits: the distribution that completions were drawn from. 1 for everything but reinforcement learning.
    pub temperature: f32,
}

/// Another network's distributions of the same tokens, as what gives them; learnt instead of the target tokens.
#[derive(Debug, Clone)]
pub(crate) struct Lesson<B: Backend> {
    /// Its final hidden states, `[T, E']`.
    pub hidden: FloatTensor<B>,
    /// Its head, `[V, E']`.
    pub head: FloatTensor<B>,
}

/// What a model thinks of one target token.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Score {
    /// Its log-probability, nats.
    pub logprob: f32,
    /// Entropy of the distribution that it is one draw of, nats.
    pub entropy: f32,
}

/// The loss and, where wanted, its gradients.
#[derive(Debug)]
pub(crate) struct Output {
    /// Weighted sum of negative log-likelihoods, `[1]`.
    pub loss: FlexTensor,
    pub d_hidden: Option<FlexTensor>,
    pub d_head: Option<FlexTensor>,
}

/// Computes the loss of `hidden [T, E]` under `head [V, E]`; `want` asks for the gradients of each.
pub(crate) fn run(
    hidden: &FlexTensor,
    head: &FlexTensor,
    targets: &Targets,
    lesson: Option<&Lesson<Flex>>,
    want: [bool; 2],
) -> Output {
    let (rows, e) = rows_cols(hidden);
    let (vocab, _) = rows_cols(head);
    let mut loss = 0.0f64;
    let mut d_hidden = vec![0.0; if want[0] { rows * e } else { 0 }];
    let mut d_head: Option<FlexTensor> = None;
    each_chunk(hidden, head, targets, |chunk, gathered, mut logits| {
        let scale = 1.0 / targets.temperature;
        let wanted = lesson.map(|lesson| {
            let e = rows_cols(&lesson.hidden).1;
            matmul_nt(&gather(values(&lesson.hidden), e, chunk), &lesson.head)
        });
        let wanted = wanted.as_ref().map(values);
        let losses: Vec<f32> = logits
            .storage_mut::<f32>()
            .par_chunks_mut(vocab)
            .zip(chunk.par_iter())
            .enumerate()
            .with_min_len(32)
            .map(|(at, (z, &row))| {
                let (target, weight) = (targets.ids[row] as usize, targets.weights[row]);
                simd::vectorized(|| match wanted {
                    None => nll_and_gradient(z, target, weight, scale),
                    Some(wanted) => {
                        let wanted = &wanted[at * vocab..(at + 1) * vocab];
                        divergence_and_gradient(z, wanted, weight, scale)
                    }
                })
            })
            .collect();
        loss += losses.iter().map(|&l| f64::from(l)).sum::<f64>();
        if want[0] {
            let dh = matmul_nn(&logits, head);
            for (dh, &row) in values(&dh).chunks_exact(e).zip(chunk) {
                d_hidden[row * e..(row + 1) * e].copy_from_slice(dh);
            }
        }
        if want[1] {
            let part = matmul_tn(&logits, gathered);
            d_head = Some(match d_head.take() {
                None => part,
                Some(mut sum) => {
                    simd::vectorized(|| {
                        simd::add_assign(sum.storage_mut::<f32>(), values(&part));
                    });
                    sum
                }
            });
        }
    });
    Output {
        loss: tensor(vec![loss as f32], &[1]),
        d_hidden: want[0].then(|| tensor(d_hidden, &[rows, e])),
        d_head: want[1]
            .then(|| d_head.unwrap_or_else(|| tensor(vec![0.0; vocab * e], &[vocab, e]))),
    }
}

/// Calls `work` with some of the rows that have a weight, their hidden states `[n, E]` and their logits `[n, V]`, chunk by chunk.
fn each_chunk(
    hidden: &FlexTensor,
    head: &FlexTensor,
    targets: &Targets,
    mut work: impl FnMut(&[usize], &FlexTensor, FlexTensor),
) {
    let (rows, e) = rows_cols(hidden);
    let (vocab, _) = rows_cols(head);
    let h = values(hidden);
    let active: Vec<usize> = (0..rows).filter(|&i| targets.weights[i] != 0.0).collect();
    for chunk in active.chunks(chunk_rows(vocab)) {
        let gathered = gather(h, e, chunk);
        let logits = matmul_nt(&gathered, head);
        work(chunk, &gathered, logits);
    }
}

/// Rows whose logits are held at a time.
pub(crate) fn chunk_rows(vocab: usize) -> usize {
    (CHUNK_LOGITS / vocab).clamp(16, CHUNK_ROWS)
}

/// Some of the rows of `e` values.
fn gather(all: &[f32], e: usize, rows: &[usize]) -> FlexTensor {
    let mut gathered = Vec::with_capacity(rows.len() * e);
    for &row in rows {
        gathered.extend_from_slice(&all[row * e..(row + 1) * e]);
    }
    tensor(gathered, &[rows.len(), e])
}

/// The same for the divergence from the distribution with the logits `wanted`, both at one temperature.
#[inline(always)]
fn divergence_and_gradient(z: &mut [f32], wanted: &[f32], weight: f32, scale: f32) -> f32 {
    let log_sum = |z: &[f32]| {
        let max = simd::max(z);
        let sum: f32 = z.iter().map(|v| simd::exp((v - max) * scale)).sum();
        max * scale + sum.ln()
    };
    let (own, other) = (log_sum(z), log_sum(wanted));
    let mut loss = 0.0f64;
    for (z, w) in z.iter_mut().zip(wanted) {
        let (log_q, log_p) = (*z * scale - own, w * scale - other);
        let (q, p) = (simd::exp(log_q), simd::exp(log_p));
        loss += f64::from(p) * f64::from(log_p - log_q);
        *z = weight * scale * (q - p);
    }
    weight * loss as f32
}

/// Turns one row of logits into the gradient of the weighted loss, and returns that loss. `scale` is the inverse temperature.
#[inline(always)]
fn nll_and_gradient(z: &mut [f32], target: usize, weight: f32, scale: f32) -> f32 {
    let max = simd::max(z);
    let z_target = z[target];
    for v in z.iter_mut() {
        *v = simd::exp((*v - max) * scale);
    }
    let sum = simd::sum(z);
    let factor = weight * scale / sum;
    for v in z.iter_mut() {
        *v *= factor;
    }
    z[target] -= weight * scale;
    weight * (sum.ln() + (max - z_target) * scale)
}

/// Scores the targets of the rows with a weight, in order.
pub(crate) fn score(hidden: &FlexTensor, head: &FlexTensor, targets: &Targets) -> Vec<Score> {
    let (vocab, _) = rows_cols(head);
    let mut scores = Vec::new();
    each_chunk(hidden, head, targets, |chunk, _, mut logits| {
        let part: Vec<Score> = logits
            .storage_mut::<f32>()
            .par_chunks_mut(vocab)
            .zip(chunk.par_iter())
            .with_min_len(32)
            .map(|(z, &row)| {
                let target = targets.ids[row] as usize;
                simd::vectorized(|| logprob_and_entropy(z, target, 1.0 / targets.temperature))
            })
            .collect();
        scores.extend(part);
    });
    scores
}

/// log p of the target, and -sum p log p = log sum e^x - sum p x with x = (z - max) scale.
#[inline(always)]
fn logprob_and_entropy(z: &mut [f32], target: usize, scale: f32) -> Score {
    let max = simd::max(z);
    let x_target = (z[target] - max) * scale;
    let mut weighted = 0.0f64;
    for v in z.iter_mut() {
        let x = (*v - max) * scale;
        *v = simd::exp(x);
        weighted += f64::from(*v) * f64::from(x);
    }
    let sum = simd::sum(z);
    Score {
        logprob: x_target - sum.ln(),
        entropy: sum.ln() - (weighted / f64::from(sum)) as f32,
    }
}

#[derive(Debug)]
struct CrossEntropy;

impl Backward<Flex, 2> for CrossEntropy {
    type State = (Option<FlexTensor>, Option<FlexTensor>);

    fn backward(self, ops: Ops<Self::State, 2>, grads: &mut Gradients, _: &mut Checkpointer) {
        let upstream = dense(grads.consume::<Flex>(&ops.node));
        let factor = values(&upstream)[0];
        let (d_hidden, d_head) = ops.state;
        let [h_node, w_node] = ops.parents;
        for (node, grad) in [(h_node, d_hidden), (w_node, d_head)] {
            if let (Some(node), Some(grad)) = (node, grad) {
                grads.register::<Flex>(node.id, scaled(grad, factor));
            }
        }
    }
}

fn scaled(mut t: FlexTensor, factor: f32) -> FlexTensor {
    if factor != 1.0 {
        t.storage_mut::<f32>().iter_mut().for_each(|v| *v *= factor);
    }
    t
}

/// The operation on the tape.
pub(crate) fn taped(
    hidden: FloatTensor<Taped>,
    head: FloatTensor<Taped>,
    targets: &Arc<Targets>,
    lesson: Option<&Lesson<Flex>>,
) -> FloatTensor<Taped> {
    let nodes = [hidden.node(), head.node()];
    let want = [hidden.is_tracked(), head.is_tracked()];
    let (hidden, head) = (dense(hidden.into_primitive()), dense(head.into_primitive()));
    let out = run(&hidden, &head, targets, lesson, want);
    match CrossEntropy
        .prepare::<NoCheckpointing>(nodes)
        .compute_bound()
        .stateful()
    {
        OpsKind::Tracked(prep) => prep.finish((out.d_hidden, out.d_head), out.loss),
        OpsKind::UnTracked(prep) => prep.finish(out.loss),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A few numbers that look random.
    fn wave(n: usize, step: f32, size: f32) -> Vec<f32> {
        (0..n).map(|i| ((i as f32 * step).sin()) * size).collect()
    }

    fn targets() -> Targets {
        Targets {
            ids: vec![0; 3],
            weights: vec![1.0, 0.0, 2.0],
            temperature: 1.0,
        }
    }

    #[test]
    fn a_divergence_is_that_of_the_definition_and_its_gradient_the_slope() {
        let (vocab, e, wide) = (7, 4, 6);
        let hidden = wave(3 * e, 1.7, 1.0);
        let head = tensor(wave(vocab * e, 0.9, 0.8), &[vocab, e]);
        let lesson = Lesson::<Flex> {
            hidden: tensor(wave(3 * wide, 2.3, 1.0), &[3, wide]),
            head: tensor(wave(vocab * wide, 1.1, 0.7), &[vocab, wide]),
        };
        let softmax = |row: usize, hidden: &[f32], head: &FlexTensor, e: usize| -> Vec<f64> {
            let logit = |v: &[f32]| -> f64 {
                let h = &hidden[row * e..(row + 1) * e];
                h.iter().zip(v).map(|(a, b)| f64::from(a * b)).sum()
            };
            let z: Vec<f64> = values(head).chunks(e).map(|v| logit(v).exp()).collect();
            let sum: f64 = z.iter().sum();
            z.iter().map(|z| z / sum).collect()
        };
        let definition = |hidden: &[f32]| -> f64 {
            let row = |row: usize| -> f64 {
                let q = softmax(row, hidden, &head, e);
                let p = softmax(row, values(&lesson.hidden), &lesson.head, wide);
                p.iter().zip(&q).map(|(p, q)| p * (p / q).ln()).sum()
            };
            row(0) + 2.0 * row(2)
        };
        let got = run(
            &tensor(hidden.clone(), &[3, e]),
            &head,
            &targets(),
            Some(&lesson),
            [true, true],
        );
        let loss = f64::from(values(&got.loss)[0]);
        assert!((loss - definition(&hidden)).abs() < 1e-5, "{loss}");
        let gradient = got.d_hidden.expect("it was asked for");
        for i in 0..hidden.len() {
            let moved = |by: f32| {
                let mut h = hidden.clone();
                h[i] += by;
                definition(&h)
            };
            let slope = (moved(1e-2) - moved(-1e-2)) / 2e-2;
            let found = f64::from(values(&gradient)[i]);
            assert!((slope - found).abs() < 1e-3, "{i}: {slope} {found}");
        }
    }

    #[test]
    fn a_network_has_nothing_to_learn_from_itself() {
        let lesson = Lesson::<Flex> {
            hidden: tensor(wave(12, 1.7, 1.0), &[3, 4]),
            head: tensor(wave(28, 0.9, 0.8), &[7, 4]),
        };
        let (hidden, head) = (lesson.hidden.clone(), lesson.head.clone());
        let got = run(&hidden, &head, &targets(), Some(&lesson), [true, false]);
        assert!(values(&got.loss)[0].abs() < 1e-6);
        let gradient = got.d_hidden.expect("it was asked for");
        assert!(values(&gradient).iter().all(|g| g.abs() < 1e-6));
    }
}
