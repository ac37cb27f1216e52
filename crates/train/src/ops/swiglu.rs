//! `silu(gate) * up`, with its gradient.
//!
//! With `s = 1 / (1 + e^-g)`: `y = g s u`, `du = dy g s`, `dg = dy u s (1 + g (1 - s))`.

use burn_autodiff::{
    checkpoint::{base::Checkpointer, strategy::NoCheckpointing},
    grads::Gradients,
    ops::{Backward, Ops, OpsKind},
};
use burn_backend::tensor::FloatTensor;
use burn_flex::{Flex, FlexTensor};
use rayon::prelude::*;

use super::{Taped, dense, rows_cols, simd, tensor, values};

/// Values of one parallel task.
const BLOCK: usize = 32 * 1024;

/// `silu(gate) * up`, elementwise.
pub(crate) fn forward(gate: &FlexTensor, up: &FlexTensor) -> FlexTensor {
    let (rows, cols) = rows_cols(gate);
    let (g, u) = (values(gate), values(up));
    let mut out = vec![0.0; g.len()];
    out.par_chunks_mut(BLOCK)
        .zip(g.par_chunks(BLOCK))
        .zip(u.par_chunks(BLOCK))
        .for_each(|((out, g), u)| simd::vectorized(|| forward_block(g, u, out)));
    tensor(out, &[rows, cols])
}

#[inline(always)]
fn forward_block(g: &[f32], u: &[f32], out: &mut [f32]) {
    for ((out, &g), &u) in out.iter_mut().zip(g).zip(u) {
        *out = g * u / (1.0 + simd::exp(-g));
    }
}

fn backward(gate: &FlexTensor, up: &FlexTensor, dy: &FlexTensor) -> (FlexTensor, FlexTensor) {
    let (rows, cols) = rows_cols(gate);
    let (g, u, dy) = (values(gate), values(up), values(dy));
    let mut dg = vec![0.0; g.len()];
    let mut du = vec![0.0; g.len()];
    dg.par_chunks_mut(BLOCK)
        .zip(du.par_chunks_mut(BLOCK))
        .zip(g.par_chunks(BLOCK))
        .zip(u.par_chunks(BLOCK))
        .zip(dy.par_chunks(BLOCK))
        .for_each(|((((dg, du), g), u), dy)| {
            simd::vectorized(|| backward_block(g, u, dy, dg, du));
        });
    (tensor(dg, &[rows, cols]), tensor(du, &[rows, cols]))
}

#[inline(always)]
fn backward_block(g: &[f32], u: &[f32], dy: &[f32], dg: &mut [f32], du: &mut [f32]) {
    let inputs = g.iter().zip(u).zip(dy);
    for (((&g, &u), &dy), (dg, du)) in inputs.zip(dg.iter_mut().zip(du)) {
        let s = 1.0 / (1.0 + simd::exp(-g));
        *du = dy * g * s;
        *dg = dy * u * s * (1.0 + g * (1.0 - s));
    }
}

#[derive(Debug)]
struct Swiglu;

impl Backward<Flex, 2> for Swiglu {
    type State = (FlexTensor, FlexTensor);

    fn backward(self, ops: Ops<Self::State, 2>, grads: &mut Gradients, _: &mut Checkpointer) {
        let dy = dense(grads.consume::<Flex>(&ops.node));
        let (gate, up) = ops.state;
        let (dg, du) = backward(&gate, &up, &dy);
        let [g_node, u_node] = ops.parents;
        if let Some(node) = g_node {
            grads.register::<Flex>(node.id, dg);
        }
        if let Some(node) = u_node {
            grads.register::<Flex>(node.id, du);
        }
    }
}

/// The operation on the tape.
pub(crate) fn taped(gate: FloatTensor<Taped>, up: FloatTensor<Taped>) -> FloatTensor<Taped> {
    let nodes = [gate.node(), up.node()];
    let (gate, up) = (dense(gate.into_primitive()), dense(up.into_primitive()));
    let out = forward(&gate, &up);
    match Swiglu
        .prepare::<NoCheckpointing>(nodes)
        .compute_bound()
        .stateful()
    {
        OpsKind::Tracked(prep) => prep.finish((gate, up), out),
        OpsKind::UnTracked(prep) => prep.finish(out),
    }
}
