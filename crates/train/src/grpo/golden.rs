//! The objective through the network against TRL (`golden/grpo.py`), for every loss and micro-batch split.

use edgethink_model::hf::safetensors;
use serde_json::Value;

use super::{
    batch::Batch,
    recipe::{ObjectiveRecipe, PolicyLoss},
};
use crate::{
    device::Device,
    golden::golden,
    gradient::{self, Leaves},
    ops::Score,
    params,
    recipe::{BaseFormat, Checkpointing},
    run::{Batcher, Lanes},
};

fn numbers(value: &Value) -> Vec<f32> {
    let list = value.as_array().unwrap().iter();
    list.flat_map(|v| match v {
        Value::Array(_) => numbers(v),
        v => vec![v.as_f64().unwrap() as f32],
    })
    .collect()
}

fn close(got: f64, want: f64) -> bool {
    (got - want).abs() <= 1e-5 * want.abs().max(0.1)
}

#[test]
fn losses_and_gradients_are_trls() {
    Device::tested()
        .iter()
        .for_each(losses_and_gradients_are_trls_on);
}

fn losses_and_gradients_are_trls_on(device: &Device) {
    let dir = edgethink_testkit::golden_dir().join("train");
    let text = std::fs::read_to_string(dir.join("grpo.json")).unwrap();
    let want: Value = serde_json::from_str(&text).unwrap();
    let grads = safetensors::open(&dir.join("grpo.safetensors")).unwrap();
    let golden = golden("qwen2");
    let (adapter, layout) = golden.adapter();
    let pass = golden.pass(Some(&layout), Checkpointing::Off);
    let number = |name: &str| want[name].as_f64().unwrap() as f32;
    let batch = Batch {
        set: golden.masked.clone(),
        advantages: numbers(&want["advantages"]),
        lengths: want["old"]
            .as_array()
            .unwrap()
            .iter()
            .map(|o| o.as_array().unwrap().len())
            .collect(),
        sampled: numbers(&want["sampled"]),
    };
    let scores = |name: &str| -> Vec<Score> {
        let all = numbers(&want[name]).into_iter();
        all.map(|logprob| Score {
            logprob,
            entropy: 0.0,
        })
        .collect()
    };
    let batcher = Batcher::at_temperature(&golden.spec, 64, number("temperature"));
    let leaves = Leaves::frozen(
        device,
        params::stored(&golden.params),
        false,
        BaseFormat::F32,
    )
    .with_adapter(&adapter, false);
    let all = batch.examples();
    let now = gradient::score(&pass, &leaves, &batcher.batch(&batch.set, &all)).unwrap();
    for (score, (logprob, entropy)) in now.iter().zip(
        numbers(&want["logprobs"])
            .into_iter()
            .zip(numbers(&want["entropies"])),
    ) {
        assert!(
            close(score.logprob.into(), logprob.into()),
            "{score:?} {logprob}"
        );
        assert!(
            close(score.entropy.into(), entropy.into()),
            "{score:?} {entropy}"
        );
    }
    for (name, loss) in [
        ("grpo", PolicyLoss::Grpo),
        ("dapo", PolicyLoss::Dapo),
        ("dr_grpo", PolicyLoss::DrGrpo),
    ] {
        let recipe = ObjectiveRecipe {
            loss,
            epsilon: number("epsilon"),
            epsilon_high: Some(number("epsilon_high")),
            beta: number("beta"),
            importance_cap: number("importance_cap"),
            ..ObjectiveRecipe::default()
        };
        let cap = number("cap") as usize;
        let (set, terms, value) =
            batch.weigh(&now, &scores("old"), &scores("reference"), &recipe, cap);
        assert!(
            terms.iter().any(|t| t.clipped != [false; 2]),
            "something is clipped"
        );
        let expected = want["loss"][name].as_f64().unwrap();
        assert!(close(value, expected), "{name}: {value} {expected}");
        for limit in [1, 20, 1000] {
            let mut lanes = Lanes::new(device, &adapter).unwrap();
            let micros = set.learnt_batches(&all, limit);
            let (_, sums) = lanes
                .accumulate(&pass, &leaves, &batcher, &set, &micros)
                .unwrap();
            for (param, sum) in adapter.iter().zip(sums) {
                let grad = grads[&format!("{name}.{}", param.name)].to_f32();
                let largest = grad.iter().fold(0.0f32, |a, b| a.max(b.abs()));
                for (got, want) in sum.iter().zip(&grad) {
                    assert!(
                        (got - want).abs() <= 2e-5 * largest.max(1e-3),
                        "{name} {limit} {}: {got} {want}",
                        param.name
                    );
                }
            }
        }
    }
}
