//! AdamW with decoupled weight decay, learning-rate schedules and clipping by the global norm.
//!
//! Loshchilov and Hutter, <https://arxiv.org/abs/1711.05101>, in the order of operations of `torch.optim.AdamW`:
//! `p -= lr wd p`, `m = b1 m + (1 - b1) g`, `v = b2 v + (1 - b2) g^2`,
//! `p -= lr / (1 - b1^t) * m / (sqrt(v) / sqrt(1 - b2^t) + eps)`.

use rayon::prelude::*;

use crate::{
    ops::simd,
    params::Param,
    recipe::{OptimizerRecipe, Schedule},
};

/// Values of one parallel task.
const BLOCK: usize = 64 * 1024;

/// The optimizer's state: two moments per value, and the number of steps made.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct AdamW {
    pub first: Vec<Vec<f32>>,
    pub second: Vec<Vec<f32>>,
    pub steps: u64,
}

impl AdamW {
    /// Zero moments for `params`.
    pub(crate) fn new(params: &[Param]) -> Self {
        let zeros = || params.iter().map(|p| vec![0.0; p.values.len()]).collect();
        Self {
            first: zeros(),
            second: zeros(),
            steps: 0,
        }
    }

    /// One step with gradients `factor * grads`.
    pub(crate) fn step(
        &mut self,
        recipe: &OptimizerRecipe,
        lr: f64,
        params: &mut [Param],
        grads: &[Vec<f32>],
        factor: f32,
    ) {
        self.steps += 1;
        let [b1, b2] = recipe.betas;
        let t = i32::try_from(self.steps).unwrap_or(i32::MAX);
        let c = Coefficients {
            factor,
            b1: b1 as f32,
            b2: b2 as f32,
            step_size: (lr / (1.0 - b1.powi(t))) as f32,
            second_root: (1.0 - b2.powi(t)).sqrt() as f32,
            eps: recipe.eps as f32,
        };
        let state = self.first.iter_mut().zip(&mut self.second);
        for ((param, grad), (m, v)) in params.iter_mut().zip(grads).zip(state) {
            let keep = if param.decay {
                (1.0 - lr * recipe.weight_decay) as f32
            } else {
                1.0
            };
            param
                .values
                .par_chunks_mut(BLOCK)
                .zip(grad.par_chunks(BLOCK))
                .zip(m.par_chunks_mut(BLOCK))
                .zip(v.par_chunks_mut(BLOCK))
                .for_each(|(((p, g), m), v)| simd::vectorized(|| update(p, g, m, v, keep, &c)));
        }
    }
}

struct Coefficients {
    factor: f32,
    b1: f32,
    b2: f32,
    step_size: f32,
    second_root: f32,
    eps: f32,
}

#[inline(always)]
fn update(p: &mut [f32], g: &[f32], m: &mut [f32], v: &mut [f32], keep: f32, c: &Coefficients) {
    for (((p, &g), m), v) in p.iter_mut().zip(g).zip(m).zip(v) {
        let g = g * c.factor;
        *m = c.b1 * *m + (1.0 - c.b1) * g;
        *v = c.b2 * *v + (1.0 - c.b2) * g * g;
        *p = *p * keep - c.step_size * *m / (v.sqrt() / c.second_root + c.eps);
    }
}

/// The global 2-norm of all gradients, in f64; not finite if one of them is not.
pub(crate) fn global_norm(grads: &[Vec<f32>]) -> f64 {
    grads
        .iter()
        .flat_map(|g| g.chunks(BLOCK))
        .map(|block| {
            block
                .iter()
                .map(|&x| f64::from(x) * f64::from(x))
                .sum::<f64>()
        })
        .sum::<f64>()
        .sqrt()
}

/// Learning rate of step `step` (from 0) of `total`.
///
/// Warmup rises linearly over `warmup_ratio * total` steps; the first step already has a part of the rate.
pub(crate) fn learning_rate(recipe: &OptimizerRecipe, step: u64, total: u64) -> f64 {
    let total = total.max(1) as f64;
    let warmup = (recipe.warmup_ratio * total).round();
    let at = step as f64;
    if at < warmup {
        return recipe.lr * (at + 1.0) / warmup;
    }
    // Share of the run after warmup, 0 at its first step and 1 after its last.
    let share = ((at - warmup) / (total - warmup).max(1.0)).min(1.0);
    let floor = recipe.min_lr_ratio;
    let factor = match recipe.schedule {
        Schedule::Constant => 1.0,
        Schedule::Linear => 1.0 - share * (1.0 - floor),
        Schedule::Cosine => {
            floor + (1.0 - floor) * 0.5 * (1.0 + (std::f64::consts::PI * share).cos())
        }
        Schedule::Wsd => {
            let from = 1.0 - recipe.decay_ratio;
            if share <= from || recipe.decay_ratio == 0.0 {
                1.0
            } else {
                1.0 - (share - from) / recipe.decay_ratio * (1.0 - floor)
            }
        }
    };
    recipe.lr * factor
}

#[cfg(test)]
mod tests {
    use super::*;

    fn recipe(schedule: Schedule) -> OptimizerRecipe {
        OptimizerRecipe {
            lr: 2.0,
            betas: [0.9, 0.99],
            eps: 1e-8,
            weight_decay: 0.0,
            schedule,
            warmup_ratio: 0.1,
            min_lr_ratio: 0.1,
            decay_ratio: 0.25,
            max_grad_norm: 1.0,
        }
    }

    #[test]
    fn schedules_rise_hold_and_fall() {
        for (schedule, middle, last) in [
            (Schedule::Cosine, 1.1, 0.2),
            (Schedule::Linear, 1.1, 0.2),
            (Schedule::Constant, 2.0, 2.0),
            (Schedule::Wsd, 2.0, 0.2),
        ] {
            let r = recipe(schedule);
            let rate = |step| learning_rate(&r, step, 1000);
            assert!((rate(0) - 0.02).abs() < 1e-12);
            assert!((rate(99) - 2.0).abs() < 1e-12);
            assert!(
                (rate(550) - middle).abs() < 1e-9,
                "{schedule:?} {}",
                rate(550)
            );
            assert!(
                (rate(1000) - last).abs() < 1e-9,
                "{schedule:?} {}",
                rate(1000)
            );
            assert!((100..999).all(|s| rate(s + 1) <= rate(s) + 1e-12));
        }
    }

    #[test]
    fn the_norm_shows_what_is_not_finite() {
        assert!((global_norm(&[vec![3.0], vec![0.0, 4.0]]) - 5.0).abs() < 1e-12);
        assert!(global_norm(&[vec![1.0, f32::NAN]]).is_nan());
        assert!(global_norm(&[vec![f32::INFINITY]]).is_infinite());
    }
}
