//! The memory of a GPU that trains, counted as `ops/composed` and the library's tape hold it.
//!
//! Letters as in [`super::memory`]. Kept for the backward pass, per token and layer:
//! - always: the layer's input and middle 2E, q, k, v and the attention's output 2HD + 2KD, its sums H, and gate, its sigmoid, their product
//!   and up 4F;
//! - what the adapter reads, each once: the norms 2E and the product of the feed-forward 1F. Masked, it has rows of its own for each linear
//!   layer; with dropout these, and the mask beside them. And its low side R for each linear layer;
//! - a network that is trained as a whole: the norms 2E, these before their gain 2E, the product 1F.
//!
//! A frozen base in bf16 has two bytes for each value of its matrices, one as stored the bits of its linear layers' file; one matrix at a time
//! is made f32. The gradient of a layer takes the place of what the layer kept, as on the CPU. Sums, moments and the values that are trained
//! stay on the host. The library's pools and the driver take more than is counted here.

use edgethink_model::Dtype;

use super::{
    Cost, DevicePlan, LayerCost, Shape,
    memory::{F32, ROUNDED, Step, adapter_of, matrices, parts, rounded},
};
use crate::{
    net::LINEARS,
    ops::{blocks, frozen::packing},
    recipe::{BaseFormat, Checkpointing},
};

/// Tensors of the size of a block of scores that are held at once, going back.
const OF_SCORES: u64 = 5;
/// Tensors of the size of a chunk of logits that are held at once.
const OF_LOGITS: u64 = 4;
/// The same where a teacher's are held beside them.
const OF_TAUGHT_LOGITS: u64 = 7;

/// The plan of a step with documents of up to `longest` tokens.
pub(super) fn plan(shape: &Shape, step: &Step, longest: usize) -> DevicePlan {
    let spec = &shape.spec;
    let (e, f, vocab) = (spec.hidden as u64, spec.ffn as u64, spec.vocab as u64);
    let rows = step.tokens * F32;
    let keeps = kept(shape, step);
    let parts = parts(spec);
    let last = parts.len() - 1;
    let mut layers = Vec::new();
    for (at, (name, parameters)) in parts.into_iter().enumerate() {
        let is_layer = at > 0 && at < last;
        let adapter = match step.adapter && is_layer {
            true => adapter_of(shape),
            false => 0,
        };
        let trainable = if step.adapter { adapter } else { parameters };
        let activations = match (is_layer, step.checkpointing) {
            (true, Checkpointing::Off) => rows * keeps,
            (true, Checkpointing::On) => rows * e,
            // On the host.
            (true, Checkpointing::Offload) => 0,
            // The last layer's output, its norm, and its gradient; trained, the norm before its gain too.
            (false, _) if at == last => rows * if step.adapter { 3 * e } else { 4 * e },
            (false, _) => 0,
        };
        let gradients = match is_layer && !step.checkpointing.is_on() {
            true => (F32 * trainable).saturating_sub(activations),
            false => 0,
        };
        layers.push(LayerCost {
            name,
            parameters,
            trainable,
            weights: F32 * parameters - saved(shape, step, at, last),
            // A new one is there before the one of the last step goes.
            adapter: 2 * F32 * adapter,
            gradients,
            optimizer: 0,
            activations,
        });
    }
    let cost = |name: &str, bytes: u64| Cost {
        name: name.to_owned(),
        bytes,
    };
    // The gradients of the feed-forward's four, of the layer's output, middle and input.
    let through = rows * (4 * f + 3 * e);
    let mut rest = Vec::new();
    if step.checkpointing.is_on() {
        let trainable = layers[1].trainable;
        let again = rows * keeps + F32 * trainable;
        rest.push(cost("one layer run again, and backward", again + through));
    } else {
        rest.push(cost("one layer backward", through));
    }
    let (heads, longest) = (spec.heads, longest.min(step.tokens as usize).max(1));
    let block = (blocks::SCORES / (heads * longest)).max(blocks::SHORTEST_SCORES);
    let scores = (heads * longest * block.min(longest)) as u64;
    rest.push(cost(
        "scores of a block of the attention",
        OF_SCORES * F32 * scores,
    ));
    let chunk = (blocks::LOGITS / spec.vocab).max(blocks::SHORTEST_LOGITS) as u64;
    let of_logits = if step.taught {
        OF_TAUGHT_LOGITS
    } else {
        OF_LOGITS
    };
    let logits = of_logits * F32 * vocab * chunk.min(step.tokens);
    rest.push(cost("logits of a chunk of the loss", logits));
    if step.taught {
        let network: u64 = layers.iter().map(|l| l.parameters).sum();
        // Its last hidden states; what its layers hold in turn is gone before the network runs.
        rest.push(cost("the teacher", F32 * network + rows * e));
    }
    if !step.adapter {
        // The sum over the chunks, the next one's part, and the new sum; a tied head's meets the embedding's.
        rest.push(cost("gradient of the head", 3 * F32 * vocab * e));
    }
    if !step.base.is_f32() {
        let widest = match step.base {
            BaseFormat::Bf16 => vocab.max(f),
            _ => f.max((spec.heads * spec.head_dim) as u64),
        } * e;
        rest.push(cost("a matrix in f32, for its product", F32 * widest));
    }
    if !step.compute.is_f32() {
        // And the result, until it is f32.
        let values = rounded(spec, step.tokens) + step.tokens * f;
        rest.push(cost(ROUNDED, 2 * values));
    }
    DevicePlan {
        device: shape.device,
        layers,
        rest,
    }
}

/// Bytes that the format of a frozen base saves in part `at` of `0..=last`.
fn saved(shape: &Shape, step: &Step, at: usize, last: usize) -> u64 {
    let spec = &shape.spec;
    let table = (spec.vocab * spec.hidden) as u64;
    let layer = matrices(spec);
    match step.base {
        BaseFormat::F32 => 0,
        BaseFormat::Bf16 if at == 0 || at == last && !spec.tied => 2 * table,
        BaseFormat::Bf16 if at < last => 2 * layer,
        BaseFormat::Stored if at > 0 && at < last => {
            (F32 * layer).saturating_sub(shape.stored(layer, packed))
        }
        BaseFormat::Bf16 | BaseFormat::Stored => 0,
    }
}

/// Bytes of 256 values of a type as a GPU holds them: codes of 4 or 8 bits and a scale in f32 for each 32, or floats.
fn packed(dtype: Dtype) -> u64 {
    match packing(dtype) {
        Some((bits, _)) => 256 / 8 * u64::from(bits) + 256 / 32 * F32,
        None => 256 * dtype.block_bytes() as u64,
    }
}

/// Values that a layer keeps for its backward pass, per token.
fn kept(shape: &Shape, step: &Step) -> u64 {
    let spec = &shape.spec;
    let (e, f, h) = (spec.hidden as u64, spec.ffn as u64, spec.heads as u64);
    let q = (spec.heads * spec.head_dim) as u64;
    let kv = (spec.kv_heads * spec.head_dim) as u64;
    let normed = if spec.qk_norm { q + kv } else { 0 };
    let always = 2 * e + 2 * q + 2 * kv + h + 4 * f + normed;
    if !step.adapter {
        return always + 4 * e + f + normed;
    }
    let on = |linear: usize| shape.targets[linear];
    let linears = (0..LINEARS.len()).filter(|&linear| on(linear));
    let low = linears.clone().count() as u64 * shape.rank as u64;
    let inputs: u64 = linears
        .map(|linear| spec.linear_shape(linear).1 as u64)
        .sum();
    let read = if step.dropout {
        2 * inputs
    } else if step.masked {
        inputs
    } else {
        let if_any =
            |mut of: std::ops::Range<usize>, width: u64| if of.any(on) { width } else { 0 };
        if_any(0..3, e) + if_any(4..6, e) + if_any(6..7, f)
    };
    always + low + read
}
