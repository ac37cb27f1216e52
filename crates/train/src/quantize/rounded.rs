//! The weights of a quantized network as a function of what is trained: transforms folded in, then rounded (METHOD 6).
//!
//! The parameters are small next to the weights: logarithms of factors and angles of each transform that the scheme asks for, on top of
//! its closed form, and the logarithm of each group's range over the one that the scheme finds. All are zero at the start, where the
//! network is the scheme's own. [`Rounded::weights`] goes forward; [`Rounded::pull_back`] takes the gradient of the weights, which the
//! tensor library's tape gave, through rounding (straight-through) and folding. A factor f = e^a on a row makes dL/da the sum of the row's
//! weights times their gradients; on a column behind it, minus that sum.

use edgethink_model::{Config, Linear, Model};
use edgethink_quantize::{
    QuantizeError, Scheme, Trained,
    layer::Layer,
    range,
    straight_through::{self, backward, round},
    trained::{TrainedLayer, key_pairs, value_row},
    transforms::Plan,
};
use rayon::prelude::*;

use crate::{
    base_model,
    net::{Slots, Spec},
    params::Param,
};

/// A matrix that is rounded.
#[derive(Debug)]
struct Grouped {
    /// Its place in the network's list.
    tensor: usize,
    /// The place of its ranges in the trained list.
    param: usize,
    name: String,
    group: usize,
    levels: (f32, f32),
    /// Share of the whole range of each group at the start.
    start: Vec<f32>,
}

/// Places of a layer's transforms in the trained list.
#[derive(Debug, Clone, Copy, Default)]
struct Folds {
    norms: Option<[usize; 2]>,
    value: Option<usize>,
    key: Option<usize>,
    up: Option<usize>,
}

/// The network behind the trained parameters.
#[derive(Debug)]
pub(crate) struct Rounded {
    config: Config,
    spec: Spec,
    slots: Slots,
    /// With the transforms in closed form.
    layers: Vec<Layer>,
    /// The network's tensors; those of the layers are filled in from `layers`.
    template: Vec<Param>,
    folds: Vec<Folds>,
    matrices: Vec<Grouped>,
}

impl Rounded {
    /// The network of a model under a scheme, and the parameters at the start.
    ///
    /// # Errors
    /// [`QuantizeError`] for a scheme that the model has no room for, or weights that cannot be rounded.
    pub(crate) fn new(model: &Model, scheme: &Scheme) -> Result<(Self, Vec<Param>), QuantizeError> {
        let threads = rayon::current_num_threads();
        let plan = Plan::new(&model.config, scheme.transforms)?;
        let config = plan.config();
        let spec = base_model::spec(&config);
        let slots = spec.numbered_slots();
        let mut layers = Vec::with_capacity(spec.layers);
        for weights in &model.weights.layers {
            let read = Layer::read(&config, weights).map_err(|source| QuantizeError::Io {
                path: "the model".into(),
                source,
            });
            let mut layer = read?;
            plan.fold_layer(&mut layer, threads);
            layers.push(layer);
        }
        let tensors = spec.tensors();
        let mut template: Vec<Param> = tensors.into_iter().map(|(n, s)| param(n, s)).collect();
        let mut norm = model.weights.norm.to_f32();
        template[slots.embed].values = model.weights.embed_tokens.to_f32();
        plan.fold_embedding(&mut template[slots.embed].values, threads);
        if let Some(head) = slots.head {
            template[head].values = model.weights.output().to_f32();
            plan.fold_lm_head(&mut template[head].values, &norm, threads);
        }
        plan.fold_norm(&mut norm);
        template[slots.norm].values = norm;

        let mut params = Vec::new();
        let mut place = |name: String, len: usize| {
            let mut fresh = param(name, vec![len]);
            fresh.values = vec![0.0; len];
            params.push(fresh);
            params.len() - 1
        };
        let wanted = scheme.transforms;
        let (e, kv) = (config.hidden_size, config.kv_size());
        let folds = (0..spec.layers)
            .map(|i| {
                let mut at = |name: &str, len| place(format!("model.layers.{i}.{name}"), len);
                Folds {
                    norms: wanted.norm.then(|| {
                        ["input_layernorm", "post_attention_layernorm"].map(|name| at(name, e))
                    }),
                    value: wanted.value.then(|| at("self_attn.v_proj", kv)),
                    key: wanted.key.then(|| at("self_attn.k_proj", kv / 2)),
                    up: wanted
                        .up
                        .then(|| at("mlp.up_proj", config.intermediate_size)),
                }
            })
            .collect();
        let mut rounded = Self {
            config,
            spec,
            slots,
            layers,
            template,
            folds,
            matrices: Vec::new(),
        };
        let weights = rounded.folded(&params);
        let mut matrices = Vec::new();
        for (name, format, (rows, cols)) in scheme.matrices(&rounded.config) {
            let group = format.group_len(&name, cols)?;
            let tensor = weights.iter().position(|p| p.name == name);
            let tensor = tensor.expect("a scheme names the tensors of the network");
            let (levels, wanted) = (format.levels(), format.range);
            let values = &weights[tensor].values;
            if let Some(at) = values.iter().position(|w| !w.is_finite()) {
                let (row, value) = (at / cols, values[at]);
                return Err(QuantizeError::NonFinite { name, row, value });
            }
            let share = |weights: &[f32]| {
                let found = range::scale(weights, levels, wanted);
                straight_through::share(weights, levels, found)
            };
            let start: Vec<f32> = values.par_chunks(group).map(share).collect();
            let mut ranges = param(name.clone(), vec![start.len()]);
            ranges.values = vec![0.0; rows * cols / group];
            params.push(ranges);
            matrices.push(Grouped {
                tensor,
                param: params.len() - 1,
                name,
                group,
                levels,
                start,
            });
        }
        rounded.matrices = matrices;
        Ok((rounded, params))
    }

    /// The network.
    pub(crate) fn spec(&self) -> &Spec {
        &self.spec
    }

    /// Transforms and ranges that the parameters stand for.
    pub(crate) fn trained(&self, params: &[Param]) -> Trained {
        let shares = |m: &Grouped| (m.name.clone(), m.shares(params));
        Trained {
            layers: self.folds.iter().map(|f| f.layer(params)).collect(),
            shares: self.matrices.iter().map(shares).collect(),
        }
    }

    /// The network's weights, rounded as an engine reads them.
    pub(crate) fn weights(&self, params: &[Param]) -> Vec<Param> {
        let mut weights = self.folded(params);
        for m in &self.matrices {
            let values = &mut weights[m.tensor].values;
            let groups = values.par_chunks_mut(m.group).zip(m.shares(params));
            groups.for_each(|(group, share)| round(group, m.levels, share));
        }
        weights
    }

    /// The gradient of the parameters from that of the network's weights.
    pub(crate) fn pull_back(&self, params: &[Param], gradient: &[Vec<f32>]) -> Vec<Vec<f32>> {
        let weights = self.folded(params);
        let mut gradient = gradient.to_vec();
        let mut out: Vec<Vec<f32>> = params.iter().map(|p| vec![0.0; p.values.len()]).collect();
        for m in &self.matrices {
            let groups = weights[m.tensor].values.par_chunks(m.group);
            let groups = groups.zip(gradient[m.tensor].par_chunks_mut(m.group));
            out[m.param] = groups
                .zip(m.shares(params))
                .map(|((weights, gradient), share)| backward(weights, m.levels, share, gradient))
                .collect();
        }
        self.unfold(&weights, &gradient, &mut out);
        out
    }

    /// The network's weights with all transforms in them, not rounded.
    fn folded(&self, params: &[Param]) -> Vec<Param> {
        let mut weights = self.template.clone();
        let layers: Vec<Layer> = self
            .layers
            .par_iter()
            .zip(&self.folds)
            .map(|(layer, folds)| {
                let mut layer = layer.clone();
                folds.layer(params).fold(&mut layer, &self.config);
                layer
            })
            .collect();
        for (layer, slots) in layers.into_iter().zip(&self.slots.layers) {
            let mut put = |at: usize, values: Vec<f32>| weights[at].values = values;
            put(slots.input_norm, layer.input_layernorm);
            put(slots.post_norm, layer.post_attention_layernorm);
            for (matrix, &at) in layer.linears.into_iter().zip(&slots.linears) {
                put(at, matrix.values);
            }
            for (bias, at) in layer.biases.into_iter().zip(slots.biases) {
                if let (Some(bias), Some(at)) = (bias, at) {
                    put(at, bias);
                }
            }
            if let (Some((q, k)), Some(q_at), Some(k_at)) =
                (layer.qk_norm, slots.q_norm, slots.k_norm)
            {
                put(q_at, q);
                put(k_at, k);
            }
        }
        weights
    }

    /// The gradient of the transforms from that of the folded weights.
    fn unfold(&self, weights: &[Param], gradient: &[Vec<f32>], out: &mut [Vec<f32>]) {
        let by_row = |at: usize| sums(&weights[at], &gradient[at], |row, _| row);
        let by_col = |at: usize| sums(&weights[at], &gradient[at], |_, col| col);
        for (folds, slots) in self.folds.iter().zip(&self.slots.layers) {
            let at = |linear: Linear| slots.linears[linear as usize];
            let rows = |linear: Linear| {
                let mut sums = by_row(at(linear));
                if let Some(bias) = slots.biases[linear as usize] {
                    add(&mut sums, &by_row(bias), 1.0);
                }
                sums
            };
            if let Some([input, post]) = folds.norms {
                let attention = [Linear::Q, Linear::K, Linear::V].as_slice();
                let mlp = [Linear::Gate, Linear::Up].as_slice();
                for (param, norm, readers) in [
                    (input, slots.input_norm, attention),
                    (post, slots.post_norm, mlp),
                ] {
                    out[param] = by_row(norm);
                    for &reader in readers {
                        add(&mut out[param], &by_col(at(reader)), -1.0);
                    }
                }
            }
            if let Some(param) = folds.value {
                out[param] = rows(Linear::V);
                for (column, sum) in by_col(at(Linear::O)).into_iter().enumerate() {
                    out[param][value_row(&self.config, column)] -= sum;
                }
            }
            if let Some(param) = folds.up {
                out[param] = rows(Linear::Up);
                add(&mut out[param], &by_col(at(Linear::Down)), -1.0);
            }
            let Some(param) = folds.key else { continue };
            // y_i = cos x_i - sin x_j, y_j = sin x_i + cos x_j, so dy_i = -y_j and dy_j = y_i for each radian.
            for (pair, d_angle) in out[param].iter_mut().enumerate() {
                for (linear, (i, j)) in key_pairs(&self.config, pair) {
                    let bias = slots.biases[linear as usize];
                    for tensor in [Some(at(linear)), bias].into_iter().flatten() {
                        let cols = weights[tensor].values.len() / weights[tensor].shape[0];
                        let row = |all: &'_ [f32], row: usize| all[row * cols..][..cols].to_vec();
                        let (y, g) = (&weights[tensor].values, &gradient[tensor]);
                        *d_angle += dot(&row(g, j), &row(y, i)) - dot(&row(g, i), &row(y, j));
                    }
                }
            }
        }
    }
}

impl Grouped {
    fn shares(&self, params: &[Param]) -> Vec<f32> {
        let logs = &params[self.param].values;
        self.start
            .iter()
            .zip(logs)
            .map(|(s, log)| s * log.exp())
            .collect()
    }
}

impl Folds {
    fn layer(&self, params: &[Param]) -> TrainedLayer {
        let factors = |at: usize| params[at].values.iter().map(|log| log.exp()).collect();
        TrainedLayer {
            norms: self.norms.map(|norms| norms.map(factors)),
            value: self.value.map(factors),
            key: self.key.map(|at| params[at].values.clone()),
            up: self.up.map(factors),
        }
    }
}

/// A tensor still without values.
fn param(name: String, shape: Vec<usize>) -> Param {
    Param {
        name,
        shape,
        values: Vec::new(),
        decay: false,
    }
}

/// Weight times gradient, summed by what `key` makes of row and column.
fn sums(weights: &Param, gradient: &[f32], key: impl Fn(usize, usize) -> usize) -> Vec<f32> {
    let rows = weights.shape[0];
    let cols = weights.values.len() / rows;
    let mut sums = vec![0.0f64; (key(rows - 1, cols - 1)) + 1];
    for (at, (w, g)) in weights.values.iter().zip(gradient).enumerate() {
        sums[key(at / cols, at % cols)] += f64::from(*w) * f64::from(*g);
    }
    sums.into_iter().map(|sum| sum as f32).collect()
}

fn add(sums: &mut [f32], other: &[f32], sign: f32) {
    sums.iter_mut().zip(other).for_each(|(s, o)| *s += sign * o);
}

fn dot(a: &[f32], b: &[f32]) -> f32 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

#[cfg(test)]
mod tests;
