//! Rows of the embedding table, with the gradient summed in token order.

use std::sync::Arc;

use burn_autodiff::{
    checkpoint::{base::Checkpointer, strategy::NoCheckpointing},
    grads::Gradients,
    ops::{Backward, Ops, OpsKind},
};
use burn_backend::tensor::FloatTensor;
use burn_flex::{Flex, FlexTensor};

use super::{Taped, dense, rows_cols, simd, tensor, values};

/// Rows `ids` of `table [V, E]`; the caller has checked the ids against V.
pub(crate) fn forward(table: &FlexTensor, ids: &[u32]) -> FlexTensor {
    let (_, cols) = rows_cols(table);
    let table = values(table);
    let mut out = Vec::with_capacity(ids.len() * cols);
    for &id in ids {
        let start = id as usize * cols;
        out.extend_from_slice(&table[start..start + cols]);
    }
    tensor(out, &[ids.len(), cols])
}

#[derive(Debug)]
struct Embedding;

impl Backward<Flex, 1> for Embedding {
    type State = (Arc<[u32]>, [usize; 2]);

    fn backward(self, ops: Ops<Self::State, 1>, grads: &mut Gradients, _: &mut Checkpointer) {
        let dy = dense(grads.consume::<Flex>(&ops.node));
        let (ids, [rows, cols]) = ops.state;
        let [node] = ops.parents;
        if let Some(node) = node {
            let mut sum = vec![0.0; rows * cols];
            for (dy, &id) in values(&dy).chunks_exact(cols).zip(ids.iter()) {
                let start = id as usize * cols;
                simd::add_assign(&mut sum[start..start + cols], dy);
            }
            grads.register::<Flex>(node.id, tensor(sum, &[rows, cols]));
        }
    }
}

/// The operation on the tape.
pub(crate) fn taped(table: FloatTensor<Taped>, ids: &Arc<[u32]>) -> FloatTensor<Taped> {
    let node = table.node();
    let table = dense(table.into_primitive());
    let (rows, cols) = rows_cols(&table);
    let out = forward(&table, ids);
    match Embedding
        .prepare::<NoCheckpointing>([node])
        .compute_bound()
        .stateful()
    {
        OpsKind::Tracked(prep) => prep.finish((Arc::clone(ids), [rows, cols]), out),
        OpsKind::UnTracked(prep) => prep.finish(out),
    }
}
