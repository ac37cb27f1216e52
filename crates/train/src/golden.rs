//! Losses, gradients and optimizer steps against torch, transformers and PEFT (`golden/train.py`).

mod properties;

use std::{collections::BTreeMap, path::PathBuf};

use edgethink_model::{Config, Tensor, hf::safetensors};
use serde_json::Value;

use crate::{
    base_model::{self, NamedTensors},
    data::Dataset,
    device::Device,
    gradient::{self, AdapterSide, Leaves, Pass},
    net::{Slots, Spec},
    optimizer::{self, AdamW},
    params::{self, Param, decays},
    recipe::{BaseFormat, Checkpointing, FloatType, LoraRecipe, OptimizerRecipe, Schedule},
    run::{Batcher, LoraLayout},
    sft,
};

pub(crate) struct Golden {
    tensors: BTreeMap<String, Tensor>,
    values: Value,
    config: Config,
    pub spec: Spec,
    slots: Slots,
    pub params: Vec<Param>,
    all: Dataset,
    completion: Dataset,
    pub masked: Dataset,
}

pub(crate) fn golden(family: &str) -> Golden {
    let dir = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../golden/train");
    let json: Value =
        serde_json::from_str(&std::fs::read_to_string(dir.join("golden.json")).unwrap()).unwrap();
    let tensors = safetensors::open(&dir.join(format!("{family}.safetensors"))).unwrap();
    let config = Config::from_json(&json[family]["config"].to_string()).unwrap();
    let spec = base_model::spec(&config);
    let params = spec
        .tensors()
        .into_iter()
        .map(|(name, shape)| Param {
            values: tensors[&format!("param.{name}")].to_f32(),
            decay: decays(&name, &shape),
            name,
            shape,
        })
        .collect();
    let slots = spec.numbered_slots();
    let invocation: Vec<u32> = serde_json::from_value(json["invocation"].clone()).unwrap();
    let set = |completion: bool, masked: bool| {
        let mut set = Dataset::default();
        for doc in json["docs"].as_array().unwrap() {
            let tokens: Vec<u32> = serde_json::from_value(doc["tokens"].clone()).unwrap();
            let from = doc["completion_from"].as_u64().unwrap() as usize;
            let start = tokens.windows(2).rposition(|w| w == invocation).unwrap();
            let weights = (0..tokens.len()).map(|i| f32::from(u8::from(!completion || i >= from)));
            set.push(&tokens, weights, if masked { start } else { 0 });
        }
        set
    };
    Golden {
        values: json[family].clone(),
        all: set(false, false),
        completion: set(true, false),
        masked: set(true, true),
        tensors,
        config,
        spec,
        slots,
        params,
    }
}

impl Golden {
    pub(crate) fn pass<'a>(
        &'a self,
        adapter: Option<&'a LoraLayout>,
        checkpointing: Checkpointing,
    ) -> Pass<'a> {
        Pass {
            spec: &self.spec,
            slots: &self.slots,
            checkpointing,
            adapter: adapter.map(|l| AdapterSide {
                slots: &l.slots,
                scale: l.scale,
                dropout: None,
                compute: FloatType::F32,
            }),
            teacher: None,
        }
    }

    fn number(&self, name: &str) -> f64 {
        self.values[name].as_f64().unwrap()
    }

    pub(crate) fn adapter(&self) -> (Vec<Param>, LoraLayout) {
        let (mut params, layout) = sft::init(&self.spec, &lora(), 0);
        for p in &mut params {
            p.values = self.tensors[&format!("lora.{}", p.name)].to_f32();
        }
        (params, layout)
    }
}

/// The adapter of the golden files.
fn lora() -> LoraRecipe {
    LoraRecipe {
        r: 4,
        alpha: 6.0,
        dropout: 0.0,
        targets: crate::net::LINEARS
            .iter()
            .map(|l| l.rsplit('.').next().unwrap().to_owned())
            .collect(),
        masked: true,
        invocation: None,
        rslora: false,
    }
}

/// Loss and gradients of a set, in micro-batches of at most `limit` tokens.
fn run(
    pass: &Pass<'_>,
    leaves: &Leaves,
    sizes: &[Param],
    set: &Dataset,
    limit: usize,
) -> (f64, Vec<Vec<f32>>) {
    let batcher = Batcher::new(pass.spec, 64);
    let mut sums: Vec<Vec<f32>> = sizes.iter().map(|p| vec![0.0; p.values.len()]).collect();
    let examples: Vec<usize> = (0..set.examples.len()).collect();
    let loss = set
        .micro_batches(&examples, limit)
        .into_iter()
        .map(|micro| {
            gradient::accumulate(
                pass,
                leaves,
                &batcher.batch(set, &examples[micro]),
                &mut sums,
            )
            .expect("the device works")
        })
        .sum();
    (loss, sums)
}

/// Every value within `share` of the tensor's largest one: f32 sums in another order.
fn assert_close(name: &str, got: &[f32], want: &[f32], share: f32) {
    assert_eq!(got.len(), want.len(), "{name}");
    let largest = want.iter().fold(0.0f32, |m, v| m.max(v.abs()));
    for (i, (g, w)) in got.iter().zip(want).enumerate() {
        assert!(
            (g - w).abs() <= share * largest + 1e-7,
            "{name}[{i}]: {g} is not {w}"
        );
    }
}

#[test]
fn logits_losses_and_gradients_are_torchs() {
    Device::tested()
        .iter()
        .for_each(logits_losses_and_gradients_are_torchs_on);
}

fn logits_losses_and_gradients_are_torchs_on(device: &Device) {
    for family in ["qwen2", "qwen3"] {
        let g = golden(family);
        let leaves = Leaves::base(device, &g.params, false);
        let pass = g.pass(None, Checkpointing::Off);
        let first = Batcher::new(&g.spec, 64).batch(&g.all, &[0]);
        let logits = gradient::logits(&pass, &leaves, &first);
        assert_close("logits", &logits, &g.tensors["logits"].to_f32(), 1e-5);
        let (loss, grads) = run(&pass, &leaves, &g.params, &g.all, 1000);
        assert!((loss - g.number("loss_all")).abs() <= 1e-4, "{loss}");
        for (p, grad) in g.params.iter().zip(&grads) {
            assert_close(
                &p.name,
                grad,
                &g.tensors[&format!("grad.{}", p.name)].to_f32(),
                1e-4,
            );
        }
        let (loss, _) = run(&pass, &leaves, &g.params, &g.completion, 1000);
        assert!((loss - g.number("loss_completion")).abs() <= 1e-4, "{loss}");
    }
}

#[test]
fn adapter_losses_and_gradients_are_pefts() {
    Device::tested()
        .iter()
        .for_each(adapter_losses_and_gradients_are_pefts_on);
}

fn adapter_losses_and_gradients_are_pefts_on(device: &Device) {
    for family in ["qwen2", "qwen3"] {
        let g = golden(family);
        let (adapter, layout) = g.adapter();
        let leaves = Leaves::frozen(device, params::stored(&g.params), false, BaseFormat::F32)
            .with_adapter(&adapter, false);
        for (kind, set) in [("plain", &g.completion), ("masked", &g.masked)] {
            for checkpointing in [Checkpointing::Off, Checkpointing::On] {
                let pass = g.pass(Some(&layout), checkpointing);
                let (loss, grads) = run(&pass, &leaves, &adapter, set, 1000);
                let want = g.number(&format!("lora_{kind}_loss"));
                assert!(
                    (loss - want).abs() <= 1e-4,
                    "{family} {kind}: {loss} is not {want}"
                );
                for (p, grad) in adapter.iter().zip(&grads) {
                    let want = g.tensors[&format!("lora_grad_{kind}.{}", p.name)].to_f32();
                    assert_close(&p.name, grad, &want, 2e-4);
                }
            }
        }
    }
}

#[test]
fn products_in_bf16_are_those_of_mixed_precision() {
    Device::tested()
        .iter()
        .for_each(products_in_bf16_are_those_of_mixed_precision_on);
}

/// Torch rounds the same values: only a sum that lies between two values of bf16 may go to the other one.
fn products_in_bf16_are_those_of_mixed_precision_on(device: &Device) {
    for family in ["qwen2", "qwen3"] {
        let g = golden(family);
        let base = params::stored(&g.params);
        if let Err(error) = device.check_base(&base, BaseFormat::F32, FloatType::Bf16) {
            assert!(error.to_string().contains("compute_dtype"), "{error}");
            continue;
        }
        let (adapter, layout) = g.adapter();
        let leaves = Leaves::frozen(device, base, false, BaseFormat::F32);
        let leaves = leaves.with_adapter(&adapter, false);
        for checkpointing in [Checkpointing::Off, Checkpointing::On] {
            let mut pass = g.pass(Some(&layout), checkpointing);
            let side = pass.adapter.as_mut().expect("an adapter");
            side.compute = FloatType::Bf16;
            let (loss, grads) = run(&pass, &leaves, &adapter, &g.masked, 1000);
            let want = g.number("lora_bf16_loss");
            assert!(
                (loss - want).abs() <= 1e-4,
                "{family}: {loss} is not {want}"
            );
            for (p, grad) in adapter.iter().zip(&grads) {
                let want = g.tensors[&format!("lora_grad_bf16.{}", p.name)].to_f32();
                assert_close(&p.name, grad, &want, 2e-4);
            }
        }
    }
}

#[test]
fn ten_steps_of_adamw_are_torchs() {
    Device::tested()
        .iter()
        .for_each(ten_steps_of_adamw_are_torchs_on);
}

fn ten_steps_of_adamw_are_torchs_on(device: &Device) {
    let g = golden("qwen2");
    let mut params = g.params.clone();
    let mut adamw = AdamW::new(&params);
    let recipe = OptimizerRecipe {
        lr: 1e-2,
        betas: [0.9, 0.95],
        eps: 1e-8,
        weight_decay: 0.1,
        schedule: Schedule::Constant,
        warmup_ratio: 0.0,
        min_lr_ratio: 0.0,
        decay_ratio: 0.0,
        max_grad_norm: 1.0,
    };
    let tokens: usize = g.all.examples.iter().map(|e| g.all.targets_of(e)).sum();
    for step in 0..10 {
        let leaves = Leaves::base(device, &params, false);
        let (loss, grads) = run(
            &g.pass(None, Checkpointing::Off),
            &leaves,
            &params,
            &g.all,
            1000,
        );
        let norm = optimizer::global_norm(&grads) / tokens as f64;
        let want = g.values["adamw_losses"][step].as_f64().unwrap();
        assert!(
            (loss / tokens as f64 - want).abs() <= 2e-4 * want,
            "step {step}: {loss} is not {want}"
        );
        let want = g.values["adamw_norms"][step].as_f64().unwrap();
        assert!(
            (norm - want).abs() <= 1e-3 * want,
            "step {step}: norm {norm} is not {want}"
        );
        let clip = (recipe.max_grad_norm / (norm + 1e-6)).min(1.0);
        adamw.step(
            &recipe,
            recipe.lr,
            &mut params,
            &grads,
            (clip / tokens as f64) as f32,
        );
    }
    for p in &params {
        // Ten steps of at most 0.01; k_proj's bias has a gradient of rounding noise only (softmax ignores it).
        let share = if p.name.ends_with("k_proj.bias") {
            0.2
        } else {
            2e-3
        };
        assert_close(
            &p.name,
            &p.values,
            &g.tensors[&format!("adamw.{}", p.name)].to_f32(),
            share,
        );
    }
}
