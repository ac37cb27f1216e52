//! The network of the Qwen2, Qwen3 and Llama families as a function of its parameters.
//!
//! `x = embed(ids)`; per layer `x += o(attention(norm(x)))`, `x += down(swiglu(gate(norm(x)), up(norm(x))))`; then the
//! final norm, the head and the loss. Parameters are a flat list of tensors; [`Slots`] says which is which.

use std::sync::Arc;

use burn_backend::{Shape, TensorMetadata, ops::FloatTensorOps};

use crate::{
    ops::{
        AdapterRows, AttentionPlan, Lesson, NetOps, Targets, Tensor,
        lora::{Frozen, LoraPlan},
    },
    recipe::FloatType,
};

/// Linear layers of a block, in the order of `model::Linear`.
pub(crate) const LINEARS: [&str; 7] = [
    "self_attn.q_proj",
    "self_attn.k_proj",
    "self_attn.v_proj",
    "self_attn.o_proj",
    "mlp.gate_proj",
    "mlp.up_proj",
    "mlp.down_proj",
];

/// Sizes and switches of a network.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Spec {
    pub hidden: usize,
    pub ffn: usize,
    pub layers: usize,
    pub heads: usize,
    pub kv_heads: usize,
    pub head_dim: usize,
    pub vocab: usize,
    pub eps: f32,
    pub tied: bool,
    /// Which linear layers have a bias.
    pub biases: [bool; 7],
    pub qk_norm: bool,
    pub window: Option<usize>,
    /// Angle of position 1 for each of the `head_dim / 2` pairs.
    pub inv_freq: Vec<f32>,
    /// Factor on cosines and sines (YaRN); 1 otherwise.
    pub rope_factor: f32,
}

impl Spec {
    /// `(out, in)` of a linear layer.
    pub(crate) fn linear_shape(&self, linear: usize) -> (usize, usize) {
        let (q, kv) = (self.heads * self.head_dim, self.kv_heads * self.head_dim);
        match linear {
            0 => (q, self.hidden),
            1 | 2 => (kv, self.hidden),
            3 => (self.hidden, q),
            4 | 5 => (self.ffn, self.hidden),
            _ => (self.hidden, self.ffn),
        }
    }

    /// Whether a linear layer has a bias.
    pub(crate) fn has_bias(&self, linear: usize) -> bool {
        self.biases[linear]
    }

    /// Cosines and sines `[positions, D / 2]`.
    pub(crate) fn rope_tables(&self, positions: usize) -> (Arc<[f32]>, Arc<[f32]>) {
        let angles =
            (0..positions).flat_map(|p| self.inv_freq.iter().map(move |f| f64::from(p as f32 * f)));
        let f = f64::from(self.rope_factor);
        let (cos, sin): (Vec<f32>, Vec<f32>) = angles
            .map(|a| ((a.cos() * f) as f32, (a.sin() * f) as f32))
            .unzip();
        (cos.into(), sin.into())
    }

    /// Names and shapes of all tensors in the order of [`Slots`], by their Hugging Face names.
    pub(crate) fn tensors(&self) -> Vec<(String, Vec<usize>)> {
        let mut out = Vec::new();
        self.slots(|name, shape| {
            out.push((name, shape));
            out.len() - 1
        });
        out
    }

    /// The slots of the list of [`Spec::tensors`].
    pub(crate) fn numbered_slots(&self) -> Slots {
        let mut count = 0;
        self.slots(|_, _| {
            count += 1;
            count - 1
        })
    }

    /// Builds the slots, asking `place` for the index of each tensor.
    pub(crate) fn slots(&self, mut place: impl FnMut(String, Vec<usize>) -> usize) -> Slots {
        let (e, d) = (self.hidden, self.head_dim);
        let embed = place("model.embed_tokens.weight".into(), vec![self.vocab, e]);
        let layers = (0..self.layers)
            .map(|layer| {
                let p = format!("model.layers.{layer}.");
                let input_norm = place(format!("{p}input_layernorm.weight"), vec![e]);
                let mut linears = [0; 7];
                let mut biases = [None; 7];
                for (i, name) in LINEARS.iter().enumerate() {
                    let (rows, cols) = self.linear_shape(i);
                    linears[i] = place(format!("{p}{name}.weight"), vec![rows, cols]);
                    if self.has_bias(i) {
                        biases[i] = Some(place(format!("{p}{name}.bias"), vec![rows]));
                    }
                }
                let mut qk = |name: &str| {
                    self.qk_norm
                        .then(|| place(format!("{p}self_attn.{name}.weight"), vec![d]))
                };
                let (q_norm, k_norm) = (qk("q_norm"), qk("k_norm"));
                let post_norm = place(format!("{p}post_attention_layernorm.weight"), vec![e]);
                LayerSlots {
                    input_norm,
                    post_norm,
                    linears,
                    biases,
                    q_norm,
                    k_norm,
                }
            })
            .collect();
        let norm = place("model.norm.weight".into(), vec![e]);
        let head = (!self.tied).then(|| place("lm_head.weight".into(), vec![self.vocab, e]));
        Slots {
            embed,
            layers,
            norm,
            head,
        }
    }
}

/// Where each tensor stands in the list of parameters.
#[derive(Debug, Clone)]
pub(crate) struct Slots {
    pub embed: usize,
    pub layers: Vec<LayerSlots>,
    pub norm: usize,
    pub head: Option<usize>,
}

impl Slots {
    /// The output head `[V, E]`; a tied network's is its embedding.
    pub(crate) fn output(&self) -> usize {
        self.head.unwrap_or(self.embed)
    }
}

/// The tensors of one layer.
#[derive(Debug, Clone)]
pub(crate) struct LayerSlots {
    pub input_norm: usize,
    pub post_norm: usize,
    pub linears: [usize; 7],
    pub biases: [Option<usize>; 7],
    pub q_norm: Option<usize>,
    pub k_norm: Option<usize>,
}

/// One micro-batch, ready for the network.
#[derive(Debug, Clone)]
pub(crate) struct MicroBatch {
    pub ids: Arc<[u32]>,
    pub attention: Arc<AttentionPlan>,
    pub targets: Arc<Targets>,
    pub adapter_rows: Arc<AdapterRows>,
}

/// The adapter of a forward pass: for each layer and linear, the indices of A and B in its list of tensors.
#[derive(Debug)]
pub(crate) struct AdapterPass<'a, O: NetOps> {
    pub tensors: &'a [Tensor<O>],
    pub slots: &'a [[Option<(usize, usize)>; 7]],
    pub scale: f32,
    /// Dropout share, and the seed of this step.
    pub dropout: Option<(f32, u64)>,
    /// Of the products with the frozen base.
    pub compute: FloatType,
}

/// Final hidden states `[T, E]`, after the last norm.
pub(crate) fn hidden<O: NetOps>(
    spec: &Spec,
    slots: &Slots,
    base: &[Tensor<O>],
    adapter: Option<&AdapterPass<'_, O>>,
    batch: &MicroBatch,
) -> Tensor<O> {
    let mut x = O::embed(base[slots.embed].clone(), &batch.ids);
    for layer in 0..spec.layers {
        x = block(spec, slots, layer, base, adapter, batch, x);
    }
    O::rms_norm(x, base[slots.norm].clone(), spec.eps)
}

/// One layer: attention and feed-forward, each with its residual.
pub(crate) fn block<O: NetOps>(
    spec: &Spec,
    slots: &Slots,
    layer: usize,
    base: &[Tensor<O>],
    adapter: Option<&AdapterPass<'_, O>>,
    batch: &MicroBatch,
    x: Tensor<O>,
) -> Tensor<O> {
    let s = &slots.layers[layer];
    let compute = adapter.map_or(FloatType::F32, |a| a.compute);
    let linear = |i: usize, x: Tensor<O>| -> Tensor<O> {
        let weight = &base[s.linears[i]];
        let bias = s.biases[i].map(|b| &base[b]);
        let pair = adapter.and_then(|a| a.slots[layer][i].map(|pair| (a, pair)));
        match pair {
            None => O::project(x, weight.clone(), bias.cloned(), compute),
            Some((pass, (a, b))) => O::project_with_adapter(
                x,
                Frozen {
                    weight,
                    bias,
                    compute,
                },
                pass.tensors[a].clone(),
                pass.tensors[b].clone(),
                LoraPlan {
                    scale: pass.scale,
                    rows: Arc::clone(&batch.adapter_rows),
                    dropout: pass.dropout.map(|(share, seed)| {
                        (
                            share,
                            seed ^ ((layer * 7 + i) as u64).wrapping_mul(0x9E37_79B9_7F4A_7C15),
                        )
                    }),
                },
            ),
        }
    };
    let normed = O::rms_norm(x.clone(), base[s.input_norm].clone(), spec.eps);
    let q = head_norm::<O>(spec, linear(0, normed.clone()), s.q_norm.map(|n| &base[n]));
    let k = head_norm::<O>(spec, linear(1, normed.clone()), s.k_norm.map(|n| &base[n]));
    let v = linear(2, normed);
    let attended = O::attend(q, k, v, &batch.attention);
    let x = O::Backend::float_add(x, linear(3, attended));
    let normed = O::rms_norm(x.clone(), base[s.post_norm].clone(), spec.eps);
    let gate = linear(4, normed.clone());
    let up = linear(5, normed);
    O::Backend::float_add(x, linear(6, O::swiglu(gate, up)))
}

/// The norm of each head (Qwen3); nothing for the other families.
fn head_norm<O: NetOps>(spec: &Spec, x: Tensor<O>, weight: Option<&Tensor<O>>) -> Tensor<O> {
    let Some(weight) = weight else { return x };
    let shape = x.shape();
    let (rows, cols) = (shape[0], shape[1]);
    let heads = Shape::from(vec![rows * cols / spec.head_dim, spec.head_dim]);
    let normed = O::rms_norm(
        O::Backend::float_reshape(x, heads),
        weight.clone(),
        spec.eps,
    );
    O::Backend::float_reshape(normed, Shape::from(vec![rows, cols]))
}

/// Weighted sum of the losses of a micro-batch, `[1]`; see [`NetOps::cross_entropy`].
pub(crate) fn loss<O: NetOps>(
    spec: &Spec,
    slots: &Slots,
    base: &[Tensor<O>],
    adapter: Option<&AdapterPass<'_, O>>,
    batch: &MicroBatch,
    lesson: Option<&Lesson<O::Inner>>,
) -> Tensor<O> {
    let h = hidden(spec, slots, base, adapter, batch);
    let head = base[slots.output()].clone();
    O::cross_entropy(h, head, &batch.targets, lesson)
}
