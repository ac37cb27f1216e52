//! Root-mean-square norm of rows, with its gradient.
//!
//! With `s = 1 / sqrt(mean(x^2) + eps)` and `y = x s w`:
//! `dx = s (w dy) - x s^3 / n * sum(w dy x)`, `dw = sum over rows of dy x s`.

use burn_autodiff::{
    checkpoint::{base::Checkpointer, strategy::NoCheckpointing},
    grads::Gradients,
    ops::{Backward, Ops, OpsKind},
};
use burn_backend::{TensorMetadata, tensor::FloatTensor};
use burn_flex::{Flex, FlexTensor};
use rayon::prelude::*;

use super::{Taped, dense, simd, tensor, values};

/// Rows of one parallel task; fixed, so that the order of sums does not depend on the number of threads.
const ROWS: usize = 256;

/// Normalised rows and the inverse root mean square of each row.
pub(crate) fn forward(x: &FlexTensor, weight: &FlexTensor, eps: f32) -> (FlexTensor, Vec<f32>) {
    let n = weight.shape()[0];
    let (xs, w) = (values(x), values(weight));
    let rows = xs.len() / n;
    let mut out = vec![0.0; xs.len()];
    let mut inverse = vec![0.0; rows];
    out.par_chunks_mut(ROWS * n)
        .zip(inverse.par_chunks_mut(ROWS))
        .zip(xs.par_chunks(ROWS * n))
        .for_each(|((out, inverse), x)| simd::vectorized(|| forward_rows(x, w, eps, out, inverse)));
    let shape: Vec<usize> = x.shape().iter().copied().collect();
    (tensor(out, &shape), inverse)
}

#[inline(always)]
fn forward_rows(x: &[f32], w: &[f32], eps: f32, out: &mut [f32], inverse: &mut [f32]) {
    let n = w.len();
    for ((x, out), inverse) in x.chunks_exact(n).zip(out.chunks_exact_mut(n)).zip(inverse) {
        let s = 1.0 / (simd::dot(x, x) / n as f32 + eps).sqrt();
        *inverse = s;
        for i in 0..n {
            out[i] = x[i] * s * w[i];
        }
    }
}

fn backward(
    x: &FlexTensor,
    weight: &FlexTensor,
    inverse: &[f32],
    dy: &FlexTensor,
) -> (FlexTensor, FlexTensor) {
    let n = weight.shape()[0];
    let (xs, w, dys) = (values(x), values(weight), values(dy));
    let mut dx = vec![0.0; xs.len()];
    let parts: Vec<Vec<f32>> = dx
        .par_chunks_mut(ROWS * n)
        .zip(xs.par_chunks(ROWS * n))
        .zip(dys.par_chunks(ROWS * n))
        .zip(inverse.par_chunks(ROWS))
        .map(|(((dx, x), dy), inverse)| {
            let mut dw = vec![0.0; n];
            simd::vectorized(|| backward_rows(x, w, inverse, dy, dx, &mut dw));
            dw
        })
        .collect();
    let mut dw = vec![0.0; n];
    for part in &parts {
        simd::add_assign(&mut dw, part);
    }
    let shape: Vec<usize> = x.shape().iter().copied().collect();
    (tensor(dx, &shape), tensor(dw, &[n]))
}

#[inline(always)]
fn backward_rows(
    x: &[f32],
    w: &[f32],
    inverse: &[f32],
    dy: &[f32],
    dx: &mut [f32],
    dw: &mut [f32],
) {
    let n = w.len();
    let rows = x
        .chunks_exact(n)
        .zip(dy.chunks_exact(n))
        .zip(dx.chunks_exact_mut(n));
    for (((x, dy), dx), &s) in rows.zip(inverse) {
        let c = simd::dot3(w, dy, x) * s * s * s / n as f32;
        for i in 0..n {
            dx[i] = dy[i] * w[i] * s - x[i] * c;
            dw[i] += dy[i] * x[i] * s;
        }
    }
}

#[derive(Debug)]
struct RmsNorm;

impl Backward<Flex, 2> for RmsNorm {
    type State = (FlexTensor, FlexTensor, Vec<f32>);

    fn backward(self, ops: Ops<Self::State, 2>, grads: &mut Gradients, _: &mut Checkpointer) {
        let dy = dense(grads.consume::<Flex>(&ops.node));
        let (x, weight, inverse) = ops.state;
        let (dx, dw) = backward(&x, &weight, &inverse, &dy);
        let [x_node, w_node] = ops.parents;
        if let Some(node) = x_node {
            grads.register::<Flex>(node.id, dx);
        }
        if let Some(node) = w_node {
            grads.register::<Flex>(node.id, dw);
        }
    }
}

/// The operation on the tape.
pub(crate) fn taped(
    x: FloatTensor<Taped>,
    weight: FloatTensor<Taped>,
    eps: f32,
) -> FloatTensor<Taped> {
    let nodes = [x.node(), weight.node()];
    let (x, weight) = (dense(x.into_primitive()), dense(weight.into_primitive()));
    let (out, inverse) = forward(&x, &weight, eps);
    match RmsNorm
        .prepare::<NoCheckpointing>(nodes)
        .compute_bound()
        .stateful()
    {
        OpsKind::Tracked(prep) => prep.finish((x, weight, inverse), out),
        OpsKind::UnTracked(prep) => prep.finish(out),
    }
}
