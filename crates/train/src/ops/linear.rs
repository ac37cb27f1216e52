//! `y = x W^T + bias` with gradients for all three.
//!
//! `dx = dy W`, `dW = dy^T x` (written in the layout of `W`, so the optimizer reads it in order), `dbias` = sum of
//! the rows of `dy`.

use burn_autodiff::{
    NodeId,
    checkpoint::{base::Checkpointer, strategy::NoCheckpointing},
    grads::Gradients,
    ops::{Backward, Ops, OpsKind},
};
use burn_backend::{ops::FloatTensorOps, tensor::FloatTensor};
use burn_flex::{Flex, FlexTensor};
use rayon::prelude::*;

use super::{Taped, dense, frozen, rows_cols, simd, tensor, values};
use crate::recipe::FloatType;

/// Rows of one partial sum of the bias gradient.
const ROWS: usize = 512;

/// `a [m, k] b [n, k]^T -> [m, n]`
pub(crate) fn matmul_nt(a: &FlexTensor, b: &FlexTensor) -> FlexTensor {
    Flex::float_matmul(a.clone(), Flex::float_transpose(b.clone()))
}

/// `a [m, k] b [k, n] -> [m, n]`
pub(crate) fn matmul_nn(a: &FlexTensor, b: &FlexTensor) -> FlexTensor {
    Flex::float_matmul(a.clone(), b.clone())
}

/// `a [k, m]^T b [k, n] -> [m, n]`
pub(crate) fn matmul_tn(a: &FlexTensor, b: &FlexTensor) -> FlexTensor {
    Flex::float_matmul(Flex::float_transpose(a.clone()), b.clone())
}

/// `x W^T + bias`
pub(crate) fn forward(
    x: &FlexTensor,
    weight: &FlexTensor,
    bias: Option<&FlexTensor>,
    compute: FloatType,
) -> FlexTensor {
    let mut y = frozen::product(x, weight, compute);
    if let Some(bias) = bias {
        let bias = dense(bias.clone());
        let b = values(&bias);
        y.storage_mut::<f32>()
            .par_chunks_mut(ROWS * b.len())
            .for_each(|rows| {
                simd::vectorized(|| {
                    for row in rows.chunks_exact_mut(b.len()) {
                        simd::add_assign(row, b);
                    }
                });
            });
    }
    y
}

/// The sum of the rows of `dy`, in blocks of a fixed size.
pub(crate) fn sum_rows(dy: &FlexTensor) -> FlexTensor {
    let (_, cols) = rows_cols(dy);
    let parts: Vec<Vec<f32>> = values(dy)
        .par_chunks(ROWS * cols)
        .map(|rows| {
            let mut sum = vec![0.0; cols];
            simd::vectorized(|| {
                for row in rows.chunks_exact(cols) {
                    simd::add_assign(&mut sum, row);
                }
            });
            sum
        })
        .collect();
    let mut sum = vec![0.0; cols];
    for part in &parts {
        simd::add_assign(&mut sum, part);
    }
    tensor(sum, &[cols])
}

#[derive(Debug)]
struct Linear;

/// What the backward pass needs.
#[derive(Debug, Clone)]
struct Saved {
    x: FlexTensor,
    weight: FlexTensor,
    compute: FloatType,
}

fn backward(saved: &Saved, dy: &FlexTensor, nodes: [Option<NodeId>; 3], grads: &mut Gradients) {
    let [x_node, w_node, b_node] = nodes;
    if let Some(id) = x_node {
        grads.register::<Flex>(id, frozen::back(dy, &saved.weight, saved.compute));
    }
    if let Some(id) = w_node {
        grads.register::<Flex>(id, matmul_tn(dy, &saved.x));
    }
    if let Some(id) = b_node {
        grads.register::<Flex>(id, sum_rows(dy));
    }
}

impl Backward<Flex, 2> for Linear {
    type State = Saved;

    fn backward(self, ops: Ops<Self::State, 2>, grads: &mut Gradients, _: &mut Checkpointer) {
        let dy = dense(grads.consume::<Flex>(&ops.node));
        let [x_node, w_node] = ops.parents.map(|node| node.map(|n| n.id));
        backward(&ops.state, &dy, [x_node, w_node, None], grads);
    }
}

impl Backward<Flex, 3> for Linear {
    type State = Saved;

    fn backward(self, ops: Ops<Self::State, 3>, grads: &mut Gradients, _: &mut Checkpointer) {
        let dy = dense(grads.consume::<Flex>(&ops.node));
        let nodes = ops.parents.map(|node| node.map(|n| n.id));
        backward(&ops.state, &dy, nodes, grads);
    }
}

/// The operation on the tape.
pub(crate) fn taped(
    x: FloatTensor<Taped>,
    weight: FloatTensor<Taped>,
    bias: Option<&FloatTensor<Taped>>,
    compute: FloatType,
) -> FloatTensor<Taped> {
    let (x_node, w_node) = (x.node(), weight.node());
    let (x, weight) = (x.into_primitive(), weight.into_primitive());
    let bias_node = bias.map(|bias| bias.node());
    let out = forward(&x, &weight, bias.map(|bias| bias.primitive()), compute);
    let saved = Saved { x, weight, compute };
    match bias_node {
        None => {
            match Backward::<Flex, 2>::prepare::<NoCheckpointing>(Linear, [x_node, w_node])
                .compute_bound()
                .stateful()
            {
                OpsKind::Tracked(prep) => prep.finish(saved, out),
                OpsKind::UnTracked(prep) => prep.finish(out),
            }
        }
        Some(b_node) => {
            match Backward::<Flex, 3>::prepare::<NoCheckpointing>(Linear, [x_node, w_node, b_node])
                .compute_bound()
                .stateful()
            {
                OpsKind::Tracked(prep) => prep.finish(saved, out),
                OpsKind::UnTracked(prep) => prep.finish(out),
            }
        }
    }
}
