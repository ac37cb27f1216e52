//! The forward pass: token rows of any mix of sequences through all layers.
//!
//! ```text
//! x = embed(token)                                              [T, E]
//! per layer:  h = norm(x)          q, k, v = W h + b (+ LoRA)   one region of work
//!             rotate q and k, write k and v into their blocks   only then attend: a chunk reads its own tokens as later ones do
//!             x += o(attend(q))    h = norm(x)
//!             x += down(silu(gate(h)) · up(h))
//! logits = lm_head(norm(x))                                     only for rows that ask
//! ```
//! Behind the keys and values of the last layer, too, only the rows that ask go on.
//!
//! A row's result depends on its own input and the KV of its sequence alone: no kernel looks at other rows, and sums run in the same
//! order for any number of rows or threads. That is what makes chunked prefill, batches and forks exact.

use std::sync::Mutex;

use edgethink_kernels::Isa;
use edgethink_model::{Config, Linear, Model, Rope};
use edgethink_pool::Pool;

use crate::adapters::{AdapterSet, Base};
use crate::attention::{self, AttentionShape, attend};
use crate::batch::Batch;
use crate::error::{EngineError, Place};
use crate::gated::{Held, gated};
use crate::kv::KvStore;
use crate::linear::{self, Deltas, Product, multiply};
use crate::options::{AdapterFormat, EngineOptions};
use crate::profile::{Part, Profile};
use crate::rows::{Needs, Rows, Work};
use crate::spare::Spare;
use crate::store::{Tokens, store};
use crate::weights::{EngineWeights, Layer, check_config};

/// Weights, KV and buffers of a model.
#[derive(Debug)]
pub(crate) struct Runner {
    config: Config,
    shape: AttentionShape,
    rope: Rope,
    weights: EngineWeights,
    pub(crate) kv: KvStore,
    pub(crate) pool: Pool,
    pub(crate) isa: Isa,
    adapters: AdapterFormat,
    pub(crate) profile: Profile,
    buffers: Buffers,
}

/// Buffers between the steps; they keep the size of the largest batch.
#[derive(Debug, Default)]
struct Buffers {
    /// Residual stream `[T, E]`.
    x: Vec<f32>,
    normed: Rows,
    q: Vec<f32>,
    k: Vec<f32>,
    v: Vec<f32>,
    /// Queries and attention outputs by head, `[K, T, G·D]`.
    head_q: Vec<f32>,
    head_out: Vec<f32>,
    mixed: Rows,
    up: Vec<f32>,
    /// The gate, then the gated rows.
    gated: Rows,
    held: Spare<Held>,
    lora: linear::Scratch,
    states: attention::Scratch,
    /// `[T, D/2]`
    cos: Vec<f32>,
    sin: Vec<f32>,
    /// Final states of the rows that are wanted.
    last_x: Vec<f32>,
    last: Rows,
    /// `[n, V]`
    logits: Vec<f32>,
}

/// What a forward pass gave.
#[derive(Debug)]
pub(crate) struct Output {
    /// Logits of the rows that asked, `[n, V]`. Give the buffer back with [`Runner::reuse`].
    pub(crate) logits: Vec<f32>,
    /// Final hidden states of the rows that asked, `[m, E]`.
    pub(crate) hidden: Vec<f32>,
    /// Rows that met a non-finite value, with the first place where they did. Their outputs mean nothing.
    pub(crate) failed: Vec<(usize, Place)>,
}

impl Runner {
    pub(crate) fn new(model: &Model, options: &EngineOptions) -> Result<Self, EngineError> {
        let config = model.config.clone();
        check_config(&config)?;
        let pool = Pool::new(options.threads).map_err(|e| EngineError::Threads(e.into()))?;
        let weights = EngineWeights::load(model, options.weights, &pool)?;
        let kv = KvStore::new(
            config.num_hidden_layers,
            config.num_key_value_heads,
            config.head_dim,
            options.blocks(),
            options.kv,
        );
        let shape = AttentionShape {
            kv_heads: config.num_key_value_heads,
            group: config.group_size(),
            head_dim: config.head_dim,
            window: config
                .sliding_window
                .map(|w| u32::try_from(w).unwrap_or(u32::MAX)),
        };
        Ok(Runner {
            shape,
            rope: config.rope(),
            config,
            weights,
            kv,
            pool,
            isa: options.isa,
            adapters: options.adapters,
            profile: Profile::default(),
            buffers: Buffers::default(),
        })
    }

    /// Bytes of the weights.
    pub(crate) fn weights_bytes(&self) -> usize {
        self.weights.size_bytes()
    }

    /// What an adapter is held with.
    pub(crate) fn base(&self) -> Base<'_> {
        Base {
            config: &self.config,
            layers: &self.weights.layers,
            format: self.adapters,
            pool: &self.pool,
        }
    }

    /// Runs a batch. `logits` and `hidden` name the rows whose outputs are wanted.
    pub(crate) fn forward(
        &mut self,
        batch: &Batch,
        adapters: &AdapterSet,
        logits: &[usize],
        hidden: &[usize],
    ) -> Output {
        let Runner {
            config,
            shape,
            rope,
            weights,
            kv,
            pool,
            isa,
            profile,
            buffers,
            ..
        } = self;
        let (isa, shape, e) = (*isa, *shape, config.hidden_size);
        let rows = batch.rows.len();
        buffers.resize(config, rows);
        let half = config.head_dim / 2;
        let angles = buffers
            .cos
            .chunks_exact_mut(half)
            .zip(buffers.sin.chunks_exact_mut(half));
        for (row, (cos, sin)) in batch.rows.iter().zip(angles) {
            rope.cos_sin(row.position, cos, sin);
        }
        // The rows of the batch that are computed: all, and at the end those that ask.
        let all: Vec<usize> = (0..rows).collect();
        let mut asked: Vec<usize> = logits.iter().chain(hidden).copied().collect();
        asked.sort_unstable();
        asked.dedup();
        let asked_segments = batch.segments_of(&asked);
        let mut computed = &all;

        let mut failed: Vec<(usize, Place)> = Vec::new();
        let noted = Mutex::new(Vec::new());
        let work = Work {
            pool,
            isa,
            failed: &noted,
        };
        let tokens = batch.rows.iter().map(|row| row.token);
        let mut embeddings: Vec<_> = tokens.zip(buffers.x.chunks_exact_mut(e)).collect();
        work.for_rows(&mut embeddings, rows * e, |(token, x)| {
            weights.embed(*token, x)
        });
        profile.lap(Part::Embed);

        let mut collect = |place: Place, computed: &[usize]| {
            let mut noted = noted.lock().expect("no task panicked");
            noted.sort_unstable();
            for row in noted.drain(..).map(|index| computed[index]) {
                if failed.iter().all(|&(known, _)| known != row) {
                    failed.push((row, place));
                }
            }
        };
        for (index, layer) in weights.layers.iter().enumerate() {
            let at = |what| Place::Layer { layer: index, what };
            let b = &mut *buffers;
            let mut deltas = Deltas {
                adapters,
                segments: &batch.segments,
                layer: index,
            };
            let needs = deltas.needs(layer, &[Linear::Q, Linear::K, Linear::V]);
            let weight = &layer.input_layernorm;
            b.normed
                .norm(&work, &mut b.x, weight, config.rms_norm_eps, needs);
            collect(at("input"), computed);
            profile.lap(Part::Norm);
            let products = &mut [
                product(layer, Linear::Q, &mut b.q),
                product(layer, Linear::K, &mut b.k),
                product(layer, Linear::V, &mut b.v),
            ];
            let input = b.normed.input();
            multiply(
                &work,
                products,
                input,
                &deltas,
                &mut b.lora,
                profile,
                Part::Qkv,
            );

            let token = Tokens {
                q: &b.q,
                k: &b.k,
                v: &b.v,
                cos: &b.cos,
                sin: &b.sin,
                batch,
                layer,
                shape,
                eps: config.rms_norm_eps,
            };
            store(&work, &token, kv.heads_mut(index), &mut b.head_q);
            collect(at("keys and values"), computed);
            profile.lap(Part::Store);
            let is_last = index + 1 == weights.layers.len();
            if is_last && asked.is_empty() {
                break;
            }
            attend(
                &work,
                kv,
                index,
                shape,
                batch,
                &b.head_q,
                &mut b.head_out,
                &mut b.states,
            );
            collect(at("attention"), computed);
            profile.lap_with(Part::Attend, || shape.work(batch, kv));

            if is_last {
                computed = &asked;
                deltas.segments = &asked_segments;
                b.keep(computed, config);
            }
            let width = shape.group * shape.head_dim;
            b.mixed.gather(
                &work,
                &b.head_out,
                computed,
                rows,
                width,
                deltas.needs(layer, &[Linear::O]),
            );
            profile.lap(Part::Gather);
            multiply(
                &work,
                &mut [added(layer, Linear::O, &mut b.x)],
                b.mixed.input(),
                &deltas,
                &mut b.lora,
                profile,
                Part::Output,
            );
            let needs = deltas.needs(layer, &[Linear::Gate, Linear::Up]);
            let weight = &layer.post_attention_layernorm;
            b.normed
                .norm(&work, &mut b.x, weight, config.rms_norm_eps, needs);
            collect(at("attention output"), computed);
            profile.lap(Part::Norm);
            let (n, f) = (computed.len(), config.intermediate_size);
            let all = [Linear::Gate, Linear::Up, Linear::Down];
            if layer.all_packed(&all) && !deltas.act_on(&all) {
                let linears = [Linear::Gate, Linear::Up].map(|linear| layer.linear(linear));
                let out = b.gated.quants_mut(n, f);
                gated(&work, linears, b.normed.input(), &b.held, out);
                profile.lap_with(Part::GateUp, || {
                    let [gate, up] = linears.map(|(matrix, _)| matrix.size_bytes());
                    (gate + up, 2 * n * f * config.hidden_size)
                });
            } else {
                b.up.resize(n * f, 0.0);
                let products = &mut [
                    product(layer, Linear::Gate, b.gated.floats_mut(n, f)),
                    product(layer, Linear::Up, &mut b.up),
                ];
                let input = b.normed.input();
                multiply(
                    &work,
                    products,
                    input,
                    &deltas,
                    &mut b.lora,
                    profile,
                    Part::GateUp,
                );
                b.gated
                    .gated(&work, &b.up, f, layer.needs_quants(&[Linear::Down]));
                profile.lap(Part::Gated);
            }
            collect(at("gate and up"), computed);
            multiply(
                &work,
                &mut [added(layer, Linear::Down, &mut b.x)],
                b.gated.input(),
                &deltas,
                &mut b.lora,
                profile,
                Part::Down,
            );
        }

        // Rows with logits first, so that they are a slice of the final states.
        let mut order = logits.to_vec();
        order.extend(hidden.iter().copied().filter(|row| !logits.contains(row)));
        let b = &mut *buffers;
        let place = |row| computed.binary_search(row).expect("who asks is computed");
        let places: Vec<usize> = order.iter().map(place).collect();
        b.gather_last(&places, e);
        b.last.norm(
            &work,
            &mut b.last_x,
            &weights.norm,
            config.rms_norm_eps,
            Needs {
                floats: true,
                quants: weights.lm_head.is_packed(),
            },
        );
        collect(Place::FinalNorm, &order);
        let state = |row: &usize| {
            let index = order
                .iter()
                .position(|known| known == row)
                .expect("hidden rows are in the order");
            &b.last.floats[index * e..(index + 1) * e]
        };
        let hidden: Vec<f32> = hidden
            .iter()
            .flat_map(|row| state(row).iter().copied())
            .collect();
        b.logits.resize(logits.len() * config.vocab_size, 0.0);
        profile.lap(Part::Norm);
        if !logits.is_empty() {
            let input = b.last.input().slice(0..logits.len(), e);
            let none = Deltas {
                adapters,
                segments: &[],
                layer: 0,
            };
            let head = Product {
                linear: Linear::Q,
                matrix: &weights.lm_head,
                bias: None,
                out: &mut b.logits,
                add: false,
            };
            multiply(
                &work,
                &mut [head],
                input,
                &none,
                &mut b.lora,
                profile,
                Part::Head,
            );
        }
        Output {
            logits: std::mem::take(&mut b.logits),
            hidden,
            failed,
        }
    }

    /// Takes the buffer of the logits back for the next pass.
    pub(crate) fn reuse(&mut self, logits: Vec<f32>) {
        self.buffers.logits = logits;
    }
}

impl Buffers {
    fn resize(&mut self, config: &Config, rows: usize) {
        let (q, kv) = (config.q_size(), config.kv_size());
        let sizes = [
            (&mut self.x, config.hidden_size),
            (&mut self.q, q),
            (&mut self.k, kv),
            (&mut self.v, kv),
            (&mut self.head_q, q),
            (&mut self.head_out, q),
            (&mut self.cos, config.head_dim / 2),
            (&mut self.sin, config.head_dim / 2),
        ];
        for (buffer, width) in sizes {
            buffer.resize(rows * width, 0.0);
        }
    }

    /// Leaves these rows, which ascend, of the residual stream alone, and room for no others in what comes behind the attention.
    fn keep(&mut self, rows: &[usize], config: &Config) {
        let e = config.hidden_size;
        for (to, &from) in rows.iter().enumerate() {
            self.x.copy_within(from * e..(from + 1) * e, to * e);
        }
        self.x.truncate(rows.len() * e);
    }

    /// The residual stream of some rows into `last_x`.
    fn gather_last(&mut self, rows: &[usize], e: usize) {
        self.last_x.clear();
        for row in rows {
            self.last_x
                .extend_from_slice(&self.x[row * e..(row + 1) * e]);
        }
    }
}

/// A linear layer with its output buffer.
fn product<'a>(layer: &'a Layer, linear: Linear, out: &'a mut [f32]) -> Product<'a> {
    let (matrix, bias) = layer.linear(linear);
    Product {
        linear,
        matrix,
        bias,
        out,
        add: false,
    }
}

/// A linear layer that is added to `out`.
fn added<'a>(layer: &'a Layer, linear: Linear, out: &'a mut [f32]) -> Product<'a> {
    Product {
        add: true,
        ..product(layer, linear, out)
    }
}
