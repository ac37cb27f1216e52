//! The head's fit: logistic regression on standardised inputs, by AdamW on all samples at once.
//!
//! Loss = mean_i of -log p(label_i) + l2/2 |w|^2 with p = sigmoid(w . z + c z_l + b) and z = (x - mean) / std. Only the weights of the
//! state, w, are held down by l2. Sums are in f64 and in the order of the samples, so a fit is a function of them and of the recipe.

use crate::{
    optimizer::{AdamW, global_norm, learning_rate},
    params::Param,
    recipe::OptimizerRecipe,
    verifier::recipe::VerifierHeadRecipe,
};

/// One response to learn from.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Input<'a> {
    /// The state that the head reads, `[E]`.
    pub state: &'a [f32],
    /// `reason`'s confidence of the response; read if the recipe says so.
    pub confidence: f64,
    pub correct: bool,
}

/// Weights for inputs as they are.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Weights {
    /// `[E]`
    pub weight: Vec<f32>,
    pub confidence: Option<f32>,
    pub bias: f32,
}

/// Fits a head in `steps` steps.
pub(crate) fn fit(
    inputs: &[Input<'_>],
    head: &VerifierHeadRecipe,
    optimizer: &OptimizerRecipe,
    steps: u64,
) -> Weights {
    let columns = inputs.first().map_or(0, |i| i.state.len()) + usize::from(head.confidence);
    let rows: Vec<Vec<f64>> = inputs
        .iter()
        .map(|input| {
            let state = input.state.iter().map(|&x| f64::from(x));
            let confidence = head.confidence.then_some(input.confidence);
            state.chain(confidence).collect()
        })
        .collect();
    let scale = Standard::of(&rows, columns);
    let rows: Vec<Vec<f64>> = rows.iter().map(|row| scale.apply(row)).collect();
    let weights = class_weights(inputs, head.balance);
    // The values of all inputs, then the bias.
    let mut params = vec![Param {
        name: "head".to_owned(),
        shape: vec![columns + 1],
        values: vec![0.0; columns + 1],
        decay: false,
    }];
    let held_down = columns - usize::from(head.confidence);
    let mut adamw = AdamW::new(&params);
    for step in 0..steps {
        let values = &params[0].values;
        let mut gradient = vec![0.0f64; columns + 1];
        for ((row, input), weight) in rows.iter().zip(inputs).zip(&weights) {
            let logit = dot(row, values) + f64::from(values[columns]);
            let label = f64::from(u8::from(input.correct));
            let error = weight * (1.0 / (1.0 + (-logit).exp()) - label);
            for (g, x) in gradient.iter_mut().zip(row) {
                *g += error * x;
            }
            gradient[columns] += error;
        }
        for (g, &w) in gradient.iter_mut().zip(values).take(held_down) {
            *g += head.l2 * f64::from(w);
        }
        let gradients = [gradient.iter().map(|&g| g as f32).collect::<Vec<f32>>()];
        let norm = global_norm(&gradients);
        let factor = (optimizer.max_grad_norm / norm.max(f64::MIN_POSITIVE)).min(1.0);
        let lr = learning_rate(optimizer, step, steps);
        adamw.step(optimizer, lr, &mut params, &gradients, factor as f32);
    }
    scale.undo(&params[0].values, head.confidence)
}

fn dot(row: &[f64], values: &[f32]) -> f64 {
    row.iter().zip(values).map(|(x, &w)| x * f64::from(w)).sum()
}

/// The weight of each sample; they sum to 1.
fn class_weights(inputs: &[Input<'_>], balance: bool) -> Vec<f64> {
    let n = inputs.len().max(1) as f64;
    let right = inputs.iter().filter(|i| i.correct).count() as f64;
    let of = |input: &Input<'_>| match (balance, input.correct) {
        (false, _) => 1.0 / n,
        (true, true) => 0.5 / right,
        (true, false) => 0.5 / (n - right),
    };
    inputs.iter().map(of).collect()
}

/// Mean and standard deviation of each input.
struct Standard {
    mean: Vec<f64>,
    /// Where an input never changes, infinity: it then counts for nothing.
    std: Vec<f64>,
}

impl Standard {
    fn of(rows: &[Vec<f64>], columns: usize) -> Self {
        let n = rows.len().max(1) as f64;
        let mut mean = vec![0.0; columns];
        for row in rows {
            for (m, x) in mean.iter_mut().zip(row) {
                *m += x / n;
            }
        }
        let mut variance = vec![0.0; columns];
        for row in rows {
            for ((v, x), m) in variance.iter_mut().zip(row).zip(&mean) {
                *v += (x - m).powi(2) / n;
            }
        }
        let std = |v: &f64| if *v > 1e-12 { v.sqrt() } else { f64::INFINITY };
        Self {
            std: variance.iter().map(std).collect(),
            mean,
        }
    }

    fn apply(&self, row: &[f64]) -> Vec<f64> {
        let scaled = row.iter().zip(&self.mean).zip(&self.std);
        scaled.map(|((x, m), s)| (x - m) / s).collect()
    }

    /// w z + b = (w / std) x + (b - w mean / std)
    fn undo(&self, values: &[f32], confidence: bool) -> Weights {
        let plain: Vec<f64> = values
            .iter()
            .zip(&self.std)
            .map(|(&w, s)| f64::from(w) / s)
            .collect();
        let shift: f64 = plain.iter().zip(&self.mean).map(|(w, m)| w * m).sum();
        let bias = values.last().map_or(0.0, |&b| f64::from(b));
        let mut weight: Vec<f32> = plain.iter().map(|&w| w as f32).collect();
        let confidence = if confidence { weight.pop() } else { None };
        Weights {
            weight,
            confidence,
            bias: (bias - shift) as f32,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{params::generator, recipe::Schedule};
    use rand::Rng;

    fn optimizer() -> OptimizerRecipe {
        OptimizerRecipe {
            lr: 0.05,
            betas: [0.9, 0.99],
            eps: 1e-8,
            weight_decay: 0.0,
            schedule: Schedule::Cosine,
            warmup_ratio: 0.0,
            min_lr_ratio: 0.0,
            decay_ratio: 0.2,
            max_grad_norm: 1.0,
        }
    }

    fn head(l2: f64, balance: bool) -> VerifierHeadRecipe {
        VerifierHeadRecipe {
            confidence: true,
            l2,
            balance,
            ..VerifierHeadRecipe::default()
        }
    }

    /// States with a shift and a scale, one value that never changes; labels by a known logit.
    fn world(n: usize) -> Vec<(Vec<f32>, f32, bool)> {
        let mut rng = generator(4, "world");
        (0..n)
            .map(|_| {
                let a: f32 = rng.random_range(-1.0..1.0);
                let l: f32 = rng.random_range(-1.0..0.0);
                let p = 1.0 / (1.0 + f64::from(-(2.0 * a + 3.0 * l + 2.0)).exp());
                (vec![100.0 + 10.0 * a, 7.0], l, rng.random_bool(p))
            })
            .collect()
    }

    fn inputs(world: &[(Vec<f32>, f32, bool)]) -> Vec<Input<'_>> {
        world
            .iter()
            .map(|(state, confidence, correct)| Input {
                state,
                confidence: f64::from(*confidence),
                correct: *correct,
            })
            .collect()
    }

    #[test]
    fn it_finds_the_weights_that_made_the_labels() {
        let world = world(20_000);
        let found = fit(&inputs(&world), &head(0.0, false), &optimizer(), 400);
        // logit = 2 (x - 100) / 10 + 3 l + 2
        assert!((found.weight[0] - 0.2).abs() < 0.02, "{found:?}");
        assert_eq!(found.weight[1], 0.0, "what never changes says nothing");
        let c = found.confidence.expect("a confidence");
        assert!((c - 3.0).abs() < 0.2, "{found:?}");
        assert!((found.bias + 18.0).abs() < 2.0, "{found:?}");
    }

    #[test]
    fn l2_holds_the_state_down_and_balance_moves_the_bias() {
        let world = world(2000);
        let inputs = inputs(&world);
        let free = fit(&inputs, &head(0.0, false), &optimizer(), 300);
        let held = fit(&inputs, &head(10.0, false), &optimizer(), 300);
        assert!(held.weight[0].abs() < 0.1 * free.weight[0].abs());
        assert!(
            held.confidence.expect("a confidence") > 2.0,
            "not held down"
        );
        let mean = |weights: &Weights| {
            let p = inputs.iter().map(|i| {
                let x = f64::from(weights.weight[0]) * f64::from(i.state[0]);
                let l = f64::from(weights.confidence.unwrap_or(0.0)) * i.confidence;
                1.0 / (1.0 + (-(x + l + f64::from(weights.bias))).exp())
            });
            p.sum::<f64>() / inputs.len() as f64
        };
        let share = inputs.iter().filter(|i| i.correct).count() as f64 / inputs.len() as f64;
        assert!((mean(&free) - share).abs() < 0.01, "calibrated");
        let balanced = fit(&inputs, &head(0.0, true), &optimizer(), 300);
        assert!((mean(&balanced) - share).abs() > 0.02, "{share}");
    }
}
