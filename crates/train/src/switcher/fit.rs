//! The network of a switcher, its gradient by hand, and the loop that fits it.
//!
//! With x the standardised average `[E]`, noisy in training, and d the dropout mask `[H]` (0 or 1/(1-p)):
//!
//! `h = d relu(W1 x + b1)`, `z = w2 h + b2`, `loss = log(1 + e^z) - y z`
//!
//! `dz = sigmoid(z) - y`, `dw2 = dz h`, `db2 = dz`, `du = dz w2 d [W1 x + b1 > 0]`, `dW1 = du x`, `db1 = du`

use rand::{Rng, seq::SliceRandom};
use rand_chacha::ChaCha8Rng;

use super::recipe::{HeadRecipe, SwitcherRecipe};
use crate::{
    optimizer::{AdamW, global_norm, learning_rate},
    params::{Param, generator, normal},
};

/// Averages with their labels.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Examples {
    /// `[N][E]`
    pub x: Vec<Vec<f32>>,
    /// 1 for queries that need a thought, `[N]`.
    pub y: Vec<f32>,
}

/// Mean and standard deviation of each of the E values.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Standard {
    pub mean: Vec<f32>,
    pub std: Vec<f32>,
}

impl Standard {
    /// Of these rows, at least one. A value that never changes keeps its size.
    pub(super) fn of(rows: &[Vec<f32>]) -> Self {
        let n = rows.len() as f64;
        let width = rows.first().map_or(0, Vec::len);
        let column = |i: usize| rows.iter().map(move |row| f64::from(row[i]));
        let mean: Vec<f64> = (0..width).map(|i| column(i).sum::<f64>() / n).collect();
        let std = mean.iter().enumerate().map(|(i, mean)| {
            let variance = column(i).map(|x| (x - mean).powi(2)).sum::<f64>() / n;
            let std = variance.sqrt() as f32;
            if std > 0.0 { std } else { 1.0 }
        });
        Self {
            std: std.collect(),
            mean: mean.iter().map(|&m| m as f32).collect(),
        }
    }

    fn apply(&self, row: &[f32]) -> Vec<f32> {
        let constants = self.mean.iter().zip(&self.std);
        row.iter()
            .zip(constants)
            .map(|(x, (mean, std))| (x - mean) / std)
            .collect()
    }
}

/// `fc1.weight [H, E]`, `fc1.bias [H]`, `fc2.weight [1, H]`, `fc2.bias [1]`, as torch's Linear starts: uniform in `±1/sqrt(in)`.
pub(super) fn init(width: usize, hidden: usize, seed: u64) -> Vec<Param> {
    let param = |name: &str, shape: &[usize], inner: usize| {
        let bound = 1.0 / (inner as f32).sqrt();
        let mut rng = generator(seed, name);
        let n = shape.iter().product();
        Param {
            name: name.to_owned(),
            shape: shape.to_vec(),
            values: (0..n).map(|_| rng.random_range(-bound..bound)).collect(),
            decay: shape.len() == 2,
        }
    };
    vec![
        param("fc1.weight", &[hidden, width], width),
        param("fc1.bias", &[hidden], width),
        param("fc2.weight", &[1, hidden], hidden),
        param("fc2.bias", &[1], hidden),
    ]
}

/// Adds `scale` times the gradient of one example's loss to `grads`, and gives the loss in nats.
fn accumulate(
    params: &[Param],
    grads: &mut [Vec<f32>],
    x: &[f32],
    y: f32,
    mask: &[f32],
    scale: f32,
) -> f64 {
    let [w1, b1, w2, b2] = [0, 1, 2, 3].map(|i| params[i].values.as_slice());
    let width = x.len();
    let units: Vec<f32> = w1
        .chunks_exact(width)
        .zip(b1)
        .map(|(row, b)| b + row.iter().zip(x).map(|(w, x)| w * x).sum::<f32>())
        .collect();
    let hidden: Vec<f32> = units
        .iter()
        .zip(mask)
        .map(|(u, d)| d * u.max(0.0))
        .collect();
    let z = b2[0] + w2.iter().zip(&hidden).map(|(w, h)| w * h).sum::<f32>();
    let dz = scale * (1.0 / (1.0 + (-z).exp()) - y);
    grads[3][0] += dz;
    for (j, h) in hidden.iter().enumerate() {
        grads[2][j] += dz * h;
        let du = if units[j] > 0.0 {
            dz * w2[j] * mask[j]
        } else {
            0.0
        };
        if du != 0.0 {
            grads[1][j] += du;
            let row = &mut grads[0][j * width..(j + 1) * width];
            row.iter_mut().zip(x).for_each(|(g, x)| *g += du * x);
        }
    }
    let z = f64::from(z);
    // log(1 + e^z), without an overflow.
    z.max(0.0) + (-z.abs()).exp().ln_1p() - f64::from(y) * z
}

/// What an epoch left.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Epoch {
    /// Epochs made.
    pub epoch: u64,
    /// Mean training loss in nats, with noise and dropout.
    pub loss: f64,
    /// Mean loss of the held-out queries, without.
    pub eval_loss: f64,
    /// Learning rate of the last step.
    pub learning_rate: f64,
}

/// Fits a network; `after` sees each epoch and says whether to go on. `None` if it said no.
pub(super) fn fit<E>(
    recipe: &SwitcherRecipe,
    standard: &Standard,
    learn: &Examples,
    held_out: &Examples,
    mut after: impl FnMut(Epoch) -> Result<bool, E>,
) -> Result<Option<Vec<Param>>, E> {
    let (learn, held_out) = (
        standardised(standard, learn),
        standardised(standard, held_out),
    );
    let mut params = init(standard.mean.len(), recipe.head.hidden, recipe.seed);
    let mut adamw = AdamW::new(&params);
    let batch = recipe.run.batch_size.min(learn.x.len());
    let steps_per_epoch = learn.x.len().div_ceil(batch) as u64;
    let total = steps_per_epoch * recipe.run.epochs;
    let mut order: Vec<usize> = (0..learn.x.len()).collect();
    for epoch in 0..recipe.run.epochs {
        let mut rng = generator(recipe.seed, &format!("epoch {epoch}"));
        order.shuffle(&mut rng);
        let (mut sum, mut lr) = (0.0, 0.0);
        for (i, members) in order.chunks(batch).enumerate() {
            let mut grads = zeros(&params);
            for &member in members {
                let (x, mask) = disturbed(&recipe.head, &learn.x[member], &mut rng);
                let scale = 1.0 / members.len() as f32;
                sum += accumulate(&params, &mut grads, &x, learn.y[member], &mask, scale);
            }
            lr = learning_rate(&recipe.optimizer, epoch * steps_per_epoch + i as u64, total);
            let norm = global_norm(&grads);
            let factor = (recipe.optimizer.max_grad_norm / norm.max(1e-12)).min(1.0);
            adamw.step(&recipe.optimizer, lr, &mut params, &grads, factor as f32);
        }
        let go_on = after(Epoch {
            epoch: epoch + 1,
            loss: sum / learn.x.len() as f64,
            eval_loss: loss(&params, &held_out),
            learning_rate: lr,
        })?;
        if !go_on {
            return Ok(None);
        }
    }
    Ok(Some(params))
}

fn standardised(standard: &Standard, examples: &Examples) -> Examples {
    Examples {
        x: examples.x.iter().map(|row| standard.apply(row)).collect(),
        y: examples.y.clone(),
    }
}

/// A noisy copy of an average, and a dropout mask.
fn disturbed(head: &HeadRecipe, x: &[f32], rng: &mut ChaCha8Rng) -> (Vec<f32>, Vec<f32>) {
    let noise = normal(rng, head.noise, x.len());
    let x = x.iter().zip(noise).map(|(x, noise)| x + noise).collect();
    let keep = 1.0 - head.dropout;
    let mask = (0..head.hidden).map(|_| {
        if rng.random::<f32>() < keep {
            1.0 / keep
        } else {
            0.0
        }
    });
    (x, mask.collect())
}

/// Mean loss without noise and dropout.
fn loss(params: &[Param], examples: &Examples) -> f64 {
    let mask = vec![1.0; params[1].values.len()];
    let mut unused = zeros(params);
    let rows = examples.x.iter().zip(&examples.y);
    let sum: f64 = rows
        .map(|(x, &y)| accumulate(params, &mut unused, x, y, &mask, 0.0))
        .sum();
    sum / examples.x.len() as f64
}

fn zeros(params: &[Param]) -> Vec<Vec<f32>> {
    params.iter().map(|p| vec![0.0; p.values.len()]).collect()
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use edgethink_testkit::{Tol, assert_close};
    use serde_json::Value;

    use super::*;
    use crate::recipe::{OptimizerRecipe, Schedule};

    /// The same numbers as `golden/switcher.py`.
    fn golden() -> Value {
        let path =
            PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../golden/train/switcher.json");
        serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap()
    }

    fn floats(value: &Value) -> Vec<f32> {
        let list = value.as_array().unwrap().iter();
        list.map(|x| x.as_f64().unwrap() as f32).collect()
    }

    fn params_of(value: &Value) -> Vec<Param> {
        init(6, 4, 0)
            .into_iter()
            .map(|p| Param {
                values: floats(&value[&p.name]),
                ..p
            })
            .collect()
    }

    #[test]
    fn loss_gradients_and_steps_are_torchs() {
        let golden = golden();
        let x: Vec<Vec<f32>> = golden["x"].as_array().unwrap().iter().map(floats).collect();
        let y = floats(&golden["y"]);
        let masks: Vec<Vec<f32>> = golden["masks"]
            .as_array()
            .unwrap()
            .iter()
            .map(floats)
            .collect();
        let mut params = params_of(&golden["start"]);
        let optimizer = OptimizerRecipe {
            lr: 1e-2,
            betas: [0.9, 0.999],
            eps: 1e-8,
            weight_decay: 0.1,
            schedule: Schedule::Constant,
            warmup_ratio: 0.0,
            min_lr_ratio: 0.0,
            decay_ratio: 0.0,
            max_grad_norm: 1e9,
        };
        // torch counts in f64. An outlier of 20 nearly cancels in some sums, which costs f32 some of its digits.
        let tolerance = Tol::RelToMax(1e-4);
        let mut adamw = AdamW::new(&params);
        for step in golden["steps"].as_array().unwrap() {
            let mut grads = zeros(&params);
            let scale = 1.0 / y.len() as f32;
            let rows = x.iter().zip(&y).zip(&masks);
            let sum: f64 = rows
                .map(|((x, &y), mask)| accumulate(&params, &mut grads, x, y, mask, scale))
                .sum();
            let loss = [(sum / y.len() as f64) as f32];
            assert_close(&loss, &[step["loss"].as_f64().unwrap() as f32], tolerance);
            for (p, grad) in params.iter().zip(&grads) {
                assert_close(grad, &floats(&step["grads"][&p.name]), tolerance);
            }
            adamw.step(&optimizer, optimizer.lr, &mut params, &grads, 1.0);
            for p in &params {
                assert_close(&p.values, &floats(&step["params"][&p.name]), tolerance);
            }
        }
    }

    #[test]
    fn a_loss_of_any_size_is_finite() {
        let mut params = init(1, 1, 0);
        for (param, value) in params.iter_mut().zip([1.0, 0.0, 1.0, 0.0]) {
            param.values[0] = value;
        }
        let mut grads = zeros(&params);
        for (y, want) in [(1.0, 0.0), (0.0, 1e6)] {
            let loss = accumulate(&params, &mut grads, &[1e6], y, &[1.0], 1.0);
            assert!((loss - want).abs() < 1e-6, "{loss}");
        }
        assert!(grads.iter().flatten().all(|g| g.is_finite()));
    }

    #[test]
    fn columns_are_standardised_and_constants_survive() {
        let rows = vec![vec![1.0, 5.0], vec![3.0, 5.0]];
        let standard = Standard::of(&rows);
        assert_eq!(
            (standard.mean.as_slice(), standard.std.as_slice()),
            (&[2.0, 5.0][..], &[1.0, 1.0][..])
        );
        assert_eq!(standard.apply(&[1.0, 5.5]), [-1.0, 0.5]);
    }
}
