//! Loss and gradient of one micro-batch: the tape, with or without running the layers again.
//!
//! Checkpointing keeps the input of each layer only. The backward pass then takes one layer at a time, runs it
//! again on a tape, and feeds it the gradient of its output as `sum(output * gradient)`.

use burn_backend::{AutodiffBackend, ops::FloatTensorOps, tensor::FloatTensor};
use burn_flex::{Flex, FlexTensor};
use half::bf16;

use crate::{
    net::{self, AdapterPass, MicroBatch, Slots, Spec},
    ops::{self, FusedOps, Score, Taped},
    params::Param,
};

/// A tensor on the tape.
pub(crate) type TapedTensor = FloatTensor<Taped>;

/// The network and how its gradient is made.
#[derive(Debug)]
pub(crate) struct Pass<'a> {
    pub spec: &'a Spec,
    pub slots: &'a Slots,
    /// Keep only the input of each layer and run the layer again in the backward pass.
    pub checkpointing: bool,
    /// The adapter, if one is trained: then the base is frozen.
    pub adapter: Option<AdapterSide<'a>>,
}

/// The adapter's side of a pass.
#[derive(Debug)]
pub(crate) struct AdapterSide<'a> {
    pub slots: &'a [[Option<(usize, usize)>; 7]],
    pub scale: f32,
    pub dropout: Option<(f32, u64)>,
}

/// The parameters of one optimizer step as tensors.
#[derive(Debug)]
pub(crate) struct Leaves {
    base: Vec<TapedTensor>,
    adapter: Vec<TapedTensor>,
}

/// Values as the forward pass reads them: rounded to bf16 where the recipe says so.
fn rounded(mut values: Vec<f32>, bf16_weights: bool) -> Vec<f32> {
    if bf16_weights {
        for value in &mut values {
            *value = bf16::from_f32(*value).to_f32();
        }
    }
    values
}

/// Tensors that are trained.
fn trained(params: &[Param], bf16_weights: bool) -> Vec<TapedTensor> {
    let leaf = |p: &Param| {
        let t = ops::tensor(rounded(p.values.clone(), bf16_weights), &p.shape);
        Taped::float_set_require_grad(Taped::from_inner(t), true)
    };
    params.iter().map(leaf).collect()
}

impl Leaves {
    /// Tensors of a base to be trained.
    pub(crate) fn base(base: &[Param], bf16_weights: bool) -> Self {
        Self {
            base: trained(base, bf16_weights),
            adapter: Vec::new(),
        }
    }

    /// Tensors of a frozen base, still without an adapter. They take the values: of a large base there is no second copy.
    pub(crate) fn frozen(base: Vec<Param>, bf16_weights: bool) -> Self {
        let leaf =
            |p: Param| Taped::from_inner(ops::tensor(rounded(p.values, bf16_weights), &p.shape));
        Self {
            base: base.into_iter().map(leaf).collect(),
            adapter: Vec::new(),
        }
    }

    /// Takes new values of the trained adapter, keeping the frozen base's tensors.
    pub(crate) fn with_adapter(self, adapter: &[Param], bf16_weights: bool) -> Self {
        Self {
            base: self.base,
            adapter: trained(adapter, bf16_weights),
        }
    }

    /// The same values on a new tape.
    pub(crate) fn fork(&self) -> Self {
        let copy = |list: &[TapedTensor]| {
            list.iter()
                .map(|t| {
                    let fresh = Taped::from_inner(t.primitive().clone());
                    if t.is_tracked() {
                        Taped::float_set_require_grad(fresh, true)
                    } else {
                        fresh
                    }
                })
                .collect()
        };
        Self {
            base: copy(&self.base),
            adapter: copy(&self.adapter),
        }
    }

    fn trained(&self) -> &[TapedTensor] {
        if self.adapter.is_empty() {
            &self.base
        } else {
            &self.adapter
        }
    }
}

/// Adds the gradient of the micro-batch's weighted loss to `sums` (one vector per trained tensor), and returns
/// that loss.
pub(crate) fn accumulate(
    pass: &Pass<'_>,
    leaves: &Leaves,
    batch: &MicroBatch,
    sums: &mut [Vec<f32>],
) -> f64 {
    if pass.checkpointing {
        return accumulate_by_layer(pass, leaves, batch, sums);
    }
    let adapter = adapter_pass::<Taped>(pass, &leaves.adapter);
    let loss = net::loss::<Taped>(pass.spec, pass.slots, &leaves.base, adapter.as_ref(), batch);
    let value = scalar(loss.primitive());
    backward_into(loss, leaves, sums);
    value
}

/// The weighted loss only.
pub(crate) fn evaluate(pass: &Pass<'_>, leaves: &Leaves, batch: &MicroBatch) -> f64 {
    let base = inner(&leaves.base);
    let adapter = inner(&leaves.adapter);
    let adapter = adapter_pass::<Flex>(pass, &adapter);
    let loss = net::loss::<Flex>(pass.spec, pass.slots, &base, adapter.as_ref(), batch);
    scalar(&loss)
}

/// Log-probability and entropy of each target with a weight, in order.
pub(crate) fn score(pass: &Pass<'_>, leaves: &Leaves, batch: &MicroBatch) -> Vec<Score> {
    let base = inner(&leaves.base);
    let adapter = inner(&leaves.adapter);
    let adapter = adapter_pass::<Flex>(pass, &adapter);
    let h = net::hidden::<Flex>(pass.spec, pass.slots, &base, adapter.as_ref(), batch);
    let head = &base[pass.slots.head.unwrap_or(pass.slots.embed)];
    ops::cross_entropy::score(&ops::dense(h), &ops::dense(head.clone()), &batch.targets)
}

/// Final hidden states `[T, E]` and the head's logits `[T, V]`.
#[cfg(test)]
pub(crate) fn logits(pass: &Pass<'_>, leaves: &Leaves, batch: &MicroBatch) -> Vec<f32> {
    let base = inner(&leaves.base);
    let adapter = inner(&leaves.adapter);
    let adapter = adapter_pass::<Flex>(pass, &adapter);
    let h = net::hidden::<Flex>(pass.spec, pass.slots, &base, adapter.as_ref(), batch);
    let head = &base[pass.slots.head.unwrap_or(pass.slots.embed)];
    ops::into_vec(ops::linear::matmul_nt(&h, head))
}

fn inner(tensors: &[TapedTensor]) -> Vec<FlexTensor> {
    tensors.iter().map(|t| t.primitive().clone()).collect()
}

fn adapter_pass<'a, B: FusedOps>(
    pass: &Pass<'a>,
    tensors: &'a [FloatTensor<B>],
) -> Option<AdapterPass<'a, B>> {
    pass.adapter.as_ref().map(|side| AdapterPass {
        tensors,
        slots: side.slots,
        scale: side.scale,
        dropout: side.dropout,
    })
}

fn scalar(t: &FlexTensor) -> f64 {
    f64::from(ops::values(t)[0])
}

/// Runs the tape back from `root` and adds the gradients of the trained tensors to `sums`.
fn backward_into(root: TapedTensor, leaves: &Leaves, sums: &mut [Vec<f32>]) {
    let mut grads = root.backward();
    for (leaf, sum) in leaves.trained().iter().zip(sums) {
        if let Some(g) = leaf.grad_remove(&mut grads) {
            let g = ops::dense(g);
            ops::simd::vectorized(|| ops::simd::add_assign(sum, ops::values(&g)));
        }
    }
}

fn accumulate_by_layer(
    pass: &Pass<'_>,
    leaves: &Leaves,
    batch: &MicroBatch,
    sums: &mut [Vec<f32>],
) -> f64 {
    let (spec, slots) = (pass.spec, pass.slots);
    let base = inner(&leaves.base);
    let low = inner(&leaves.adapter);
    let plain = adapter_pass::<Flex>(pass, &low);
    let taped = adapter_pass::<Taped>(pass, &leaves.adapter);

    let mut x = <Flex as FusedOps>::embed(base[slots.embed].clone(), &batch.ids);
    let mut inputs = Vec::with_capacity(spec.layers);
    for layer in 0..spec.layers {
        inputs.push(x.clone());
        x = net::block::<Flex>(spec, slots, layer, &base, plain.as_ref(), batch, x);
    }

    let tracked = |x: FlexTensor| Taped::float_set_require_grad(Taped::from_inner(x), true);
    let mut input = tracked(x);
    let normed = Taped::rms_norm(input.clone(), leaves.base[slots.norm].clone(), spec.eps);
    let head = leaves.base[slots.head.unwrap_or(slots.embed)].clone();
    let mut root = Taped::cross_entropy(normed, head, &batch.targets);
    let loss = scalar(root.primitive());
    // `root` always depends on `input`; its gradient is the gradient of the layer below's output.
    let mut step = |root: TapedTensor, input: &TapedTensor| -> Option<FlexTensor> {
        let mut grads = root.backward();
        for (leaf, sum) in leaves.trained().iter().zip(sums.iter_mut()) {
            if let Some(g) = leaf.grad_remove(&mut grads) {
                ops::simd::add_assign(sum, ops::values(&ops::dense(g)));
            }
        }
        input.grad_remove(&mut grads)
    };
    let fed = |out: TapedTensor, g: FlexTensor| {
        Taped::float_sum(Taped::float_mul(out, Taped::from_inner(g)))
    };
    let mut gradient = step(root, &input);
    for (layer, x) in inputs.into_iter().enumerate().rev() {
        let Some(g) = gradient else { return loss };
        input = tracked(x);
        let out = net::block::<Taped>(
            spec,
            slots,
            layer,
            &leaves.base,
            taped.as_ref(),
            batch,
            input.clone(),
        );
        root = fed(out, g);
        gradient = step(root, &input);
    }
    if let (None, Some(g)) = (&pass.adapter, gradient) {
        let embedded = <Taped as FusedOps>::embed(leaves.base[slots.embed].clone(), &batch.ids);
        step(fed(embedded, g), &input);
    }
    loss
}
