//! The memory of a run, counted as the code holds it.
//!
//! Letters: P values of the network, A of the adapter, T tokens of a micro-batch, E hidden, F ffn, HD and KD widths of queries and keys,
//! H heads, R rank, V vocabulary; all in f32. Kept for the backward pass, per token and layer:
//! - with an adapter on every row: the layer's input and middle 2E, both norms 2E, q, k, v and the attention's output 2HD + 2KD, its sums
//!   H, gate, up and their product 3F, the adapter's low side R for each linear layer;
//! - a masked adapter keeps its rows of every linear layer's input apart: q, k, v, gate and up have 5E instead of 2E, and o has HD more.
//!
//! Going back, a layer's gradient is made where what the layer kept is given up: of the two only the larger is counted. Where a GPU trains
//! ([`super::device`]), the host has the values, the sums, the moments, and the gradients that come back.

use edgethink_model::Dtype;

use super::{Cost, LayerCost, Plan, Recipe, Shape, device, work};
use crate::{
    grpo::{RolloutKv, RolloutWeights},
    net::{LINEARS, Spec},
    ops::cross_entropy::chunk_rows,
    recipe::{BaseFormat, Checkpointing, FloatType, RunRecipe},
    run::lanes_of,
};

/// Bytes of a value.
pub(super) const F32: u64 = 4;
/// The program itself, its threads, and what the allocator keeps.
const PROGRAM: u64 = 24 << 20;
/// The tokenizer's tables, per token of the vocabulary.
const TOKENIZER: u64 = 400;

/// What a step of a training holds.
#[derive(Debug, Clone, Copy)]
pub(super) struct Step {
    /// Tokens of a micro-batch.
    pub(super) tokens: u64,
    /// Micro-batches that run at once, and lanes that keep a sum of gradients each.
    active: u64,
    lanes: u64,
    pub(super) checkpointing: Checkpointing,
    /// The base is frozen, and an adapter is trained.
    pub(super) adapter: bool,
    pub(super) masked: bool,
    pub(super) dropout: bool,
    /// How the matrices of a frozen base are held.
    pub(super) base: BaseFormat,
    /// In which numbers its linear layers are computed.
    pub(super) compute: FloatType,
    /// Another network of the same shape says what is to be learnt.
    pub(super) taught: bool,
}

/// The plan of a recipe, without its remedies.
pub(super) fn plan(recipe: &Recipe, shape: &Shape) -> Plan {
    let mut plan = Plan {
        kind: recipe.kind(),
        layers: Vec::new(),
        rest: vec![Cost {
            name: "program, tokenizer".to_owned(),
            bytes: PROGRAM + TOKENIZER * shape.spec.vocab as u64,
        }],
        work: work::of(recipe, shape),
        steps: work::steps(recipe),
        device: None,
        notes: shape.notes.clone(),
        remedies: Vec::new(),
    };
    match recipe {
        Recipe::Base(r) => {
            let step = Step::of(&r.run, shape, false, false);
            train(&mut plan, shape, step, r.data.max_length);
            data(&mut plan, &r.data.train, &r.data.valid);
        }
        Recipe::Sft(r) => {
            let step = Step {
                dropout: r.lora.dropout > 0.0,
                ..Step::of(&r.run, shape, true, r.lora.masked)
            };
            train(&mut plan, shape, step, r.data.max_length);
            data(&mut plan, &r.data.train, &r.data.valid);
        }
        Recipe::Quantize(r) => {
            let step = Step {
                taught: true,
                ..Step::of(&r.run, shape, false, false)
            };
            train(&mut plan, shape, step, r.data.max_length);
            data(&mut plan, &r.data.train, &r.data.valid);
            // The teacher's weights as values and, on the CPU, as tensors, the rounded weights, and the gradients pulled back through them.
            let network: u64 = plan.layers.iter().map(|l| l.parameters).sum();
            let copies = if shape.device.is_cpu() { 4 } else { 3 };
            plan.cost("teacher and rounded weights", copies * F32 * network);
        }
        Recipe::Grpo(r) => {
            let step = Step {
                tokens: r.run.micro_batch_tokens as u64,
                checkpointing: r.run.gradient_checkpointing,
                base: r.run.base_dtype,
                compute: r.run.compute_dtype,
                // Every completion of a step may be learnt from.
                ..Step::lanes(shape, true, true, usize::MAX)
            };
            let longest = r.data.max_prompt_tokens + r.rollout.max_completion_tokens;
            train(&mut plan, shape, step, longest);
            let adapter: u64 = plan.layers.iter().map(|l| l.trainable).sum();
            plan.cost("reference adapter, and the engine's", 3 * F32 * adapter);
            engine(&mut plan, shape, r.rollout.weights);
            let kv =
                kv_bytes(&shape.spec, r.rollout.kv) * (longest * r.rollout.max_sequences) as u64;
            plan.cost("KV cache of the rollouts", kv);
            let completions = r.rollout.questions_per_step * r.rollout.group;
            let kept = completions * r.rollout.max_completion_tokens * 24;
            plan.cost("completions of a step", kept as u64);
        }
        Recipe::Verifier(r) => {
            inference(&mut plan, shape);
            let longest = r.data.max_prompt_tokens + r.sample.max_completion_tokens + 16;
            engine(&mut plan, shape, r.model.weights);
            let kv = kv_bytes(&shape.spec, r.model.kv) * (longest * r.sample.max_sequences) as u64;
            plan.cost("KV cache of the responses", kv);
            let questions = |given: usize, otherwise: u64| match given {
                0 => otherwise,
                given => given as u64,
            };
            // MATH's training set, as the paper divides it, where all questions are asked and the file is not looked into.
            let samples = questions(r.data.train_questions, 7312) * r.sample.n as u64
                + questions(r.data.valid_questions, 188) * r.sample.valid_n as u64;
            plan.cost(
                "states of the responses",
                3 * F32 * samples * shape.spec.hidden as u64,
            );
        }
        Recipe::Switcher(r) => {
            inference(&mut plan, shape);
            engine(&mut plan, shape, r.model.weights);
            let kv = kv_bytes(&shape.spec, r.model.kv) * 32_768;
            plan.cost("KV cache of the queries", kv);
        }
    }
    plan
}

impl Plan {
    fn cost(&mut self, name: &str, bytes: u64) {
        self.rest.push(Cost {
            name: name.to_owned(),
            bytes,
        });
    }
}

impl Step {
    fn of(run: &RunRecipe, shape: &Shape, adapter: bool, masked: bool) -> Self {
        let micros = run.batch_tokens.div_ceil(run.micro_batch_tokens.max(1));
        Self {
            tokens: run.micro_batch_tokens as u64,
            checkpointing: run.gradient_checkpointing,
            base: run.base_dtype,
            compute: run.compute_dtype,
            ..Self::lanes(shape, adapter, masked, micros)
        }
    }

    fn lanes(shape: &Shape, adapter: bool, masked: bool, micros: usize) -> Self {
        let trained = if adapter {
            shape.spec.layers as u64 * adapter_of(shape)
        } else {
            parts(&shape.spec).iter().map(|(_, n)| n).sum::<u64>()
        };
        // A GPU takes one micro-batch at a time.
        let lanes = match shape.device.is_cpu() {
            true => lanes_of(trained as usize),
            false => 1,
        };
        Self {
            tokens: 0,
            active: lanes.min(shape.threads).min(micros).max(1) as u64,
            lanes: lanes as u64,
            checkpointing: Checkpointing::Off,
            adapter,
            masked,
            dropout: false,
            base: BaseFormat::F32,
            compute: FloatType::F32,
            taught: false,
        }
    }
}

pub(super) const ROUNDED: &str = "a product in bf16";

/// Values of a product in bf16: a matrix, and what it multiplies.
pub(super) fn rounded(spec: &Spec, tokens: u64) -> u64 {
    let (e, f) = (spec.hidden as u64, spec.ffn as u64);
    let widest = f.max((spec.heads * spec.head_dim) as u64);
    widest * e + tokens * widest
}

/// Names and values of the parts of the network.
pub(super) fn parts(spec: &Spec) -> Vec<(String, u64)> {
    let table = (spec.vocab * spec.hidden) as u64;
    let mut layer = (2 * spec.hidden) as u64;
    for linear in 0..LINEARS.len() {
        let (out, inner) = spec.linear_shape(linear);
        layer += (out * inner + if spec.has_bias(linear) { out } else { 0 }) as u64;
    }
    if spec.qk_norm {
        layer += 2 * spec.head_dim as u64;
    }
    let mut all = vec![("embedding".to_owned(), table)];
    all.extend((0..spec.layers).map(|i| (format!("layer {i}"), layer)));
    let head = if spec.tied { 0 } else { table };
    all.push(("norm, head".to_owned(), head + spec.hidden as u64));
    all
}

/// Values of the adapter in one layer.
pub(super) fn adapter_of(shape: &Shape) -> u64 {
    let sides = (0..LINEARS.len()).filter(|&i| shape.targets[i]).map(|i| {
        let (out, inner) = shape.spec.linear_shape(i);
        (shape.rank * (out + inner)) as u64
    });
    sides.sum()
}

/// Values that a layer keeps for its backward pass, per token.
fn kept(shape: &Shape, step: Step) -> u64 {
    let spec = &shape.spec;
    let (e, f, h) = (spec.hidden as u64, spec.ffn as u64, spec.heads as u64);
    let q = (spec.heads * spec.head_dim) as u64;
    let kv = (spec.kv_heads * spec.head_dim) as u64;
    let linears = shape.targets.iter().filter(|&&on| on).count() as u64;
    let normed = if spec.qk_norm { q + kv } else { 0 };
    let low = linears * shape.rank as u64;
    let shared = 4 * e + 2 * q + 2 * kv + h + 3 * f + normed + low;
    if step.adapter && step.masked {
        shared + 3 * e + q
    } else {
        shared
    }
}

/// A training's parts, with documents of up to `longest` tokens.
fn train(plan: &mut Plan, shape: &Shape, step: Step, longest: usize) {
    if !shape.device.is_cpu() {
        beside_a_gpu(plan, shape, step);
        plan.device = Some(device::plan(shape, &step, longest));
        return;
    }
    let spec = &shape.spec;
    let (e, f) = (spec.hidden as u64, spec.ffn as u64);
    let rows = step.tokens * step.active * F32;
    let keeps = kept(shape, step);
    let parts = parts(spec);
    let last = parts.len() - 1;
    for (at, (name, parameters)) in parts.into_iter().enumerate() {
        let is_layer = at > 0 && at < last;
        let adapter = if step.adapter && is_layer {
            adapter_of(shape)
        } else {
            0
        };
        let trainable = if step.adapter { adapter } else { parameters };
        let activations = match (is_layer, step.checkpointing.is_on()) {
            (true, true) => rows * e,
            (true, false) => rows * keeps,
            // The last layer's output, its norm, and its gradient.
            (false, _) if at == last => rows * 3 * e,
            (false, _) => 0,
        };
        // Of a layer run again they are counted below, and of embedding and head too.
        let in_flight = if is_layer && !step.checkpointing.is_on() {
            (F32 * trainable * step.active).saturating_sub(activations)
        } else {
            0
        };
        plan.layers.push(LayerCost {
            name,
            parameters,
            trainable,
            // Values and tensors; a frozen base has its tensors alone.
            weights: match step.adapter {
                true => F32 * parameters - saved(shape, step, is_layer),
                false => 2 * F32 * parameters,
            },
            adapter: 2 * F32 * adapter,
            gradients: F32 * trainable * step.lanes + in_flight,
            optimizer: 2 * F32 * trainable,
            activations,
        });
    }
    let layer_gradient = plan.layers[1].trainable;
    // While a layer runs backward: the gradients of its product, gate and up, of its output and its input.
    let through = rows * (3 * f + 3 * e);
    if step.checkpointing.is_on() {
        let again = rows * keeps + F32 * layer_gradient * step.active;
        plan.cost("one layer run again, and backward", again + through);
    } else {
        plan.cost("one layer backward", through);
    }
    if step.base == BaseFormat::Stored {
        let widest = f.max((spec.heads * spec.head_dim) as u64) * e;
        plan.cost(
            "a matrix in f32, for its product",
            F32 * widest * step.active,
        );
    }
    if !step.compute.is_f32() {
        plan.cost(ROUNDED, F32 * rounded(spec, step.tokens) * step.active);
    }
    let vocab = spec.vocab as u64;
    let logits = chunk_rows(spec.vocab) as u64 * (2 * vocab + 2 * e) * F32;
    plan.cost("logits of a chunk of the loss", logits * step.active);
    if !step.adapter {
        // The head's gradient is made in the forward pass and added up chunk by chunk; a tied one meets the embedding's.
        plan.cost("gradient of the head", 2 * F32 * vocab * e * step.active);
    }
}

/// Bytes that a layer's matrices save as their file has them.
fn saved(shape: &Shape, step: Step, is_layer: bool) -> u64 {
    if step.base != BaseFormat::Stored || !is_layer {
        return 0;
    }
    let matrices = matrices(&shape.spec);
    let block = |dtype: Dtype| (256 / dtype.block_len() * dtype.block_bytes()) as u64;
    (F32 * matrices).saturating_sub(shape.stored(matrices, block))
}

/// Values of the matrices of a layer.
pub(super) fn matrices(spec: &Spec) -> u64 {
    let of = |linear| spec.linear_shape(linear);
    let values = (0..LINEARS.len()).map(of).map(|(out, inner)| out * inner);
    values.sum::<usize>() as u64
}

/// The host's part of a training by a GPU.
fn beside_a_gpu(plan: &mut Plan, shape: &Shape, step: Step) {
    let parts = parts(&shape.spec);
    let last = parts.len() - 1;
    for (at, (name, parameters)) in parts.into_iter().enumerate() {
        let adapter = match step.adapter && at > 0 && at < last {
            true => adapter_of(shape),
            false => 0,
        };
        let trainable = if step.adapter { adapter } else { parameters };
        plan.layers.push(LayerCost {
            name,
            parameters,
            trainable,
            // A frozen base until it is on the GPU.
            weights: F32 * parameters,
            adapter: F32 * adapter,
            gradients: F32 * trainable,
            optimizer: 2 * F32 * trainable,
            activations: match step.checkpointing {
                Checkpointing::Offload if at > 0 && at < last => {
                    F32 * step.tokens * shape.spec.hidden as u64
                }
                _ => 0,
            },
        });
    }
    let back = match step.checkpointing.is_on() {
        true => plan.layers.iter().map(|l| l.trainable).max().unwrap_or(0),
        false => plan.layers.iter().map(|l| l.trainable).sum(),
    };
    plan.cost("gradients that come back from the GPU", F32 * back);
    if step.dropout {
        let widest = shape.spec.ffn.max(shape.spec.hidden) as u64;
        plan.cost("dropout's mask of a layer", 2 * F32 * step.tokens * widest);
    }
}

/// A run that only reads the network: its parts, without memory of their own.
fn inference(plan: &mut Plan, shape: &Shape) {
    for (name, parameters) in parts(&shape.spec) {
        plan.layers.push(LayerCost {
            name,
            parameters,
            ..LayerCost::default()
        });
    }
    let adapter = adapter_of(shape) * shape.spec.layers as u64;
    if adapter > 0 {
        plan.cost("adapter, and the engine's", 2 * F32 * adapter);
    }
}

/// The engine's weights; those of the file are mapped.
fn engine(plan: &mut Plan, shape: &Shape, weights: RolloutWeights) {
    let spec = &shape.spec;
    let all: u64 = plan.layers.iter().map(|l| l.parameters).sum();
    let table = (spec.vocab * spec.hidden) as u64;
    // Per 32 values: their bits, and a scale of 16 bits. The embedding's rows are read from the file.
    let (name, bytes) = match weights {
        RolloutWeights::Stored => ("weights of the engine, as stored", shape.file_bytes),
        RolloutWeights::Q8 => ("weights of the engine, 8 bits", all * 34 / 32 + 2 * table),
        RolloutWeights::Q4 => ("weights of the engine, 4 bits", all * 18 / 32 + 2 * table),
    };
    plan.cost(name, bytes);
}

/// Bytes of a token's keys and values in all layers, as the engine holds them.
fn kv_bytes(spec: &Spec, format: RolloutKv) -> u64 {
    let d = spec.head_dim as u64;
    let per_head = match format {
        RolloutKv::Int8 => 2 * (d + F32),
        RolloutKv::F16 => 4 * d,
        RolloutKv::F32 => 8 * d,
    };
    (spec.layers * spec.kv_heads) as u64 * per_head
}

/// The examples' tokens: four bytes and a weight for each token of about four bytes of text.
fn data(plan: &mut Plan, train: &[std::path::PathBuf], valid: &[std::path::PathBuf]) {
    let files = || train.iter().chain(valid);
    let found: Vec<u64> = files()
        .filter_map(|path| std::fs::metadata(path).ok())
        .map(|meta| meta.len())
        .collect();
    if found.len() < files().count() {
        plan.notes.push(
            "not all data files are there: their tokens, 8 bytes each, are not counted".to_owned(),
        );
    }
    let bytes: u64 = found.iter().sum();
    if bytes > 0 {
        plan.cost("tokens of the data, about", 2 * bytes);
    }
}
