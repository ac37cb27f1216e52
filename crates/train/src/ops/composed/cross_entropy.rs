//! The output head and the cross-entropy in chunks of rows, with the gradient made in the forward pass: the algorithm of the CPU's
//! operation (`ops/cross_entropy.rs`), so that no `[T, V]` logits are kept.

use std::sync::Arc;

use burn_autodiff::{
    Autodiff,
    checkpoint::{base::Checkpointer, strategy::NoCheckpointing},
    grads::Gradients,
    ops::{Backward, Ops, OpsKind},
};
use burn_backend::{
    Backend, ExecutionError, FloatDType, Shape, TensorMetadata,
    tensor::{FloatTensor, IndexingUpdateOp, IntTensor},
};

use super::{floats, frozen::cast, indices, matmul_nt, matmul_tn, read, reshape};
use crate::ops::{Lesson, Score, Targets, blocks};

/// Logits held at a time. In tests so few that there are several chunks.
const CHUNK_LOGITS: usize = if cfg!(test) { 1 } else { blocks::LOGITS };

/// The loss and, where wanted, its gradients.
pub(super) struct Output<B: Backend> {
    /// Weighted sum of negative log-likelihoods, `[1]`.
    pub(super) loss: FloatTensor<B>,
    d_hidden: Option<FloatTensor<B>>,
    d_head: Option<FloatTensor<B>>,
}

/// Some of the rows that have a weight, under the softmax.
struct Chunk<B: Backend> {
    /// Rows of the micro-batch.
    rows: Vec<usize>,
    /// The same on the device, `[n]`.
    at: IntTensor<B>,
    hidden: FloatTensor<B>, // [n, E]
    /// Targets `[n, 1]`.
    ids: IntTensor<B>,
    /// Logits over the temperature, less the largest of the row.
    x: FloatTensor<B>, // [n, V]
    exp: FloatTensor<B>,    // [n, V] = e^x
    sum: FloatTensor<B>,    // [n, 1]
    target: FloatTensor<B>, // [n, 1] = x of the target
}

impl<B: Backend> Chunk<B> {
    fn new(
        rows: Vec<usize>,
        hidden: &FloatTensor<B>,
        head: &FloatTensor<B>,
        targets: &Targets,
    ) -> Self {
        let device = hidden.device();
        let at = indices::<B>(rows.iter().copied(), &device);
        let hidden = B::float_select(hidden.clone(), 0, at.clone());
        let x = shifted::<B>(hidden.clone(), head.clone(), targets.temperature);
        let exp = B::float_exp(x.clone());
        let ids = indices::<B>(rows.iter().map(|&row| targets.ids[row] as usize), &device);
        let ids = B::int_reshape(ids, Shape::from(vec![rows.len(), 1]));
        Self {
            rows,
            at,
            hidden,
            sum: B::float_sum_dim(exp.clone(), 1),
            target: B::float_gather(1, x.clone(), ids.clone()),
            ids,
            x,
            exp,
        }
    }

    /// Chunks of all rows that have a weight.
    fn all<'a>(
        hidden: &'a FloatTensor<B>,
        head: &'a FloatTensor<B>,
        targets: &'a Targets,
    ) -> impl Iterator<Item = Self> + 'a {
        let vocab = head.shape()[0];
        let active: Vec<usize> = (0..targets.weights.len())
            .filter(|&row| targets.weights[row] != 0.0)
            .collect();
        let chunks = active.chunks((CHUNK_LOGITS / vocab).max(blocks::SHORTEST_LOGITS));
        let chunks: Vec<Vec<usize>> = chunks.map(<[usize]>::to_vec).collect();
        chunks
            .into_iter()
            .map(|rows| Self::new(rows, hidden, head, targets))
    }

    /// The rows' weights times `factor`, `[n, 1]`.
    fn weights(&self, targets: &Targets, factor: f32) -> FloatTensor<B> {
        let weights = self.rows.iter().map(|&row| targets.weights[row] * factor);
        let shape = [self.rows.len(), 1];
        floats::<B>(weights.collect(), &shape, &self.hidden.device())
    }

    /// Log-probabilities of the targets, `[n, 1]`.
    fn logprobs(&self) -> FloatTensor<B> {
        B::float_sub(self.target.clone(), B::float_log(self.sum.clone()))
    }

    /// Entropies of the rows' distributions, `[n, 1]`: `log sum e^x - sum p x`.
    fn entropies(&self) -> FloatTensor<B> {
        let weighted = B::float_sum_dim(B::float_mul(self.exp.clone(), self.x.clone()), 1);
        let mean = B::float_div(weighted, self.sum.clone());
        B::float_sub(B::float_log(self.sum.clone()), mean)
    }

    /// The lesson's distributions p `[n, V]`, and the divergences `sum p (log p - log q)` from them, `[n, 1]`.
    fn lesson(&self, lesson: &Lesson<B>, targets: &Targets) -> (FloatTensor<B>, FloatTensor<B>) {
        let hidden = B::float_select(lesson.hidden.clone(), 0, self.at.clone());
        let y = shifted::<B>(hidden, lesson.head.clone(), targets.temperature);
        let exp = B::float_exp(y.clone());
        let sum = B::float_sum_dim(exp.clone(), 1);
        let p = B::float_div(exp, sum.clone());
        let apart = B::float_sum_dim(B::float_mul(p.clone(), B::float_sub(y, self.x.clone())), 1);
        let sums = B::float_sub(B::float_log(self.sum.clone()), B::float_log(sum));
        (p, B::float_add(apart, sums))
    }

    /// The gradient of the weighted loss with respect to the logits, `[n, V]`: `c (softmax(z) - onehot(t))`, or `c (softmax(z) - p)`.
    fn gradient(self, targets: &Targets, lesson: Option<FloatTensor<B>>) -> FloatTensor<B> {
        let scale = 1.0 / targets.temperature;
        let weights = self.weights(targets, scale);
        let own = B::float_mul(self.exp, B::float_div(weights.clone(), self.sum));
        match lesson {
            Some(p) => B::float_sub(own, B::float_mul(p, weights)),
            None => B::float_scatter(
                1,
                own,
                self.ids,
                B::float_neg(weights),
                IndexingUpdateOp::Add,
            ),
        }
    }
}

/// Logits over the temperature, less the largest of the row.
fn shifted<B: Backend>(
    hidden: FloatTensor<B>,
    head: FloatTensor<B>,
    temperature: f32,
) -> FloatTensor<B> {
    let logits = matmul_nt::<B>(hidden, head);
    let x = B::float_div_scalar(logits, temperature.into());
    B::float_sub(x.clone(), B::float_max_dim(x, 1))
}

/// Computes the loss of `hidden [T, E]` under `head [V, E]`; `want` asks for the gradients of each.
pub(super) fn run<B: Backend>(
    hidden: &FloatTensor<B>,
    head: &FloatTensor<B>,
    targets: &Targets,
    lesson: Option<&Lesson<B>>,
    want: [bool; 2],
) -> Output<B> {
    let device = hidden.device();
    let head = &cast::<B>(head.clone());
    let zeros = |shape| B::float_zeros(shape, &device, FloatDType::F32);
    let mut loss = zeros(Shape::from(vec![1]));
    let mut d_hidden = want[0].then(|| zeros(hidden.shape()));
    let mut d_head = want[1].then(|| zeros(head.shape()));
    for chunk in Chunk::<B>::all(hidden, head, targets) {
        let (lesson, losses) = match lesson {
            Some(lesson) => {
                let (p, divergences) = chunk.lesson(lesson, targets);
                (Some(p), divergences)
            }
            None => (None, B::float_neg(chunk.logprobs())),
        };
        let losses = B::float_mul(losses, chunk.weights(targets, 1.0));
        loss = B::float_add(loss, B::float_sum(losses));
        if want == [false, false] {
            continue;
        }
        let (at, inputs) = (chunk.at.clone(), chunk.hidden.clone());
        let gradient = chunk.gradient(targets, lesson);
        d_hidden = d_hidden.map(|sum| {
            let part = B::float_matmul(gradient.clone(), head.clone());
            B::float_select_assign(sum, 0, at, part, IndexingUpdateOp::Add)
        });
        d_head = d_head.map(|sum| B::float_add(sum, matmul_tn::<B>(gradient, inputs)));
    }
    Output {
        loss,
        d_hidden,
        d_head,
    }
}

/// Scores the targets of the rows with a weight, in order.
///
/// # Errors
/// What the device says if it could not.
pub(crate) fn score<B: Backend>(
    hidden: &FloatTensor<B>,
    head: &FloatTensor<B>,
    targets: &Targets,
) -> Result<Vec<Score>, ExecutionError> {
    let mut scores = Vec::new();
    let head = cast::<B>(head.clone());
    for chunk in Chunk::<B>::all(hidden, &head, targets) {
        let parts = vec![chunk.logprobs(), chunk.entropies()];
        let parts = read::<B>(parts)?;
        let pairs = parts[0].iter().zip(&parts[1]);
        scores.extend(pairs.map(|(&logprob, &entropy)| Score { logprob, entropy }));
    }
    Ok(scores)
}

#[derive(Debug)]
struct CrossEntropy;

impl<B: Backend> Backward<B, 2> for CrossEntropy {
    type State = [Option<FloatTensor<B>>; 2];

    fn backward(self, ops: Ops<Self::State, 2>, grads: &mut Gradients, _: &mut Checkpointer) {
        let upstream = reshape::<B>(grads.consume::<B>(&ops.node), &[1, 1]);
        for (node, grad) in ops.parents.into_iter().zip(ops.state) {
            if let (Some(node), Some(grad)) = (node, grad) {
                grads.register::<B>(node.id, B::float_mul(grad, upstream.clone()));
            }
        }
    }
}

/// The operation on the tape.
pub(super) fn taped<B: Backend>(
    hidden: FloatTensor<Autodiff<B>>,
    head: FloatTensor<Autodiff<B>>,
    targets: &Arc<Targets>,
    lesson: Option<&Lesson<B>>,
) -> FloatTensor<Autodiff<B>> {
    let nodes = [hidden.node(), head.node()];
    let want = [hidden.is_tracked(), head.is_tracked()];
    let out = run::<B>(hidden.primitive(), head.primitive(), targets, lesson, want);
    match Backward::<B, 2>::prepare::<NoCheckpointing>(CrossEntropy, nodes)
        .compute_bound()
        .stateful()
    {
        OpsKind::Tracked(prep) => prep.finish([out.d_hidden, out.d_head], out.loss),
        OpsKind::UnTracked(prep) => prep.finish(out.loss),
    }
}
