//! `train sft`: a LoRA adapter on a frozen base, with the prompt mask of METHOD 2 or without, written for PEFT.

use std::{fs, path::Path};

use serde_json::json;

use crate::{
    base::{Saved, Summary, finish, with_threads},
    base_model::{self, Text},
    data::{Encoder, Encoding},
    device::Device,
    error::TrainError,
    net::{LINEARS, Spec},
    params::{Param, generator},
    process_group::ProcessGroup,
    recipe::{LoraRecipe, LossOn, SftRecipe},
    run::{self, Job, Learns, LoraLayout, Progress},
};

/// Trains an adapter as the recipe says and writes a PEFT directory.
///
/// # Errors
/// [`TrainError`]; [`TrainError::Stopped`] if `progress` asked to stop: the same call goes on from the checkpoint.
pub fn sft(recipe: &SftRecipe, progress: &mut dyn Progress) -> Result<Summary, TrainError> {
    sft_in(recipe, &mut ProcessGroup::alone(), progress)
}

/// The same by several processes together; the one that leads the group writes.
///
/// # Errors
/// As [`sft`], and [`TrainError::Group`].
pub fn sft_in(
    recipe: &SftRecipe,
    group: &mut ProcessGroup,
    progress: &mut dyn Progress,
) -> Result<Summary, TrainError> {
    with_threads(recipe.run.threads, || {
        let run = &recipe.run;
        let device = Device::open(&run.device, run.gradient_checkpointing)?;
        let start = base_model::load(&recipe.model, recipe.seed)?;
        device.check_base(&start.weights, run.base_dtype, run.compute_dtype)?;
        let invocation = invocation(&recipe.lora, &start.text)?;
        let encoder = Encoder {
            tokenizer: &start.text.tokenizer,
            template: start.text.template.as_ref(),
            eos: &start.text.eos,
            encoding: Encoding::new(&recipe.data, LossOn::Completion, invocation.clone()),
        };
        let (train, valid) = encoder.load_sets(&recipe.data, &recipe.output_dir, progress)?;
        let (params, layout) = init(&start.spec, &recipe.lora, recipe.seed);
        let outcome = run::run(
            Job {
                output_dir: &recipe.output_dir,
                seed: recipe.seed,
                resolved: json!(recipe),
                shuffle: recipe.data.shuffle,
                optimizer: &recipe.optimizer,
                run: &recipe.run,
                spec: &start.spec,
                learns: Learns::Adapter {
                    base: start.weights,
                    params,
                    layout,
                },
                rounded: None,
                teacher: None,
                train,
                valid,
                device: &device,
                group,
            },
            progress,
        )?;
        if !group.leads() {
            return Ok(Summary::of(&outcome));
        }
        let dir = &recipe.output_dir;
        write_peft(dir, recipe, invocation.as_deref(), &outcome.params)?;
        finish(&outcome, dir, progress)
    })
}

/// The tokens at which a masked adapter begins.
fn invocation(lora: &LoraRecipe, text: &Text) -> Result<Option<Vec<u32>>, TrainError> {
    if !lora.masked {
        return Ok(None);
    }
    let unfit = |problem: String| TrainError::Unfit {
        path: text.dir.clone(),
        problem,
    };
    let sequence = match (&lora.invocation, &text.template) {
        (Some(sequence), _) => sequence.clone(),
        (None, Some(template)) => template
            .generation_prompt()
            .map_err(|e| unfit(e.to_string()))?,
        (None, None) => String::new(),
    };
    let tokens = text
        .tokenizer
        .encode(&sequence, false)
        .map_err(|e| unfit(e.to_string()))?;
    if tokens.is_empty() {
        return Err(unfit(
            "has no generation prompt for a masked adapter to begin at; set [lora] invocation"
                .to_owned(),
        ));
    }
    Ok(Some(tokens))
}

/// A fresh adapter as PEFT makes it: A uniform in `±1/sqrt(in)` (Kaiming with a = sqrt 5), B zero.
pub(crate) fn init(spec: &Spec, lora: &LoraRecipe, seed: u64) -> (Vec<Param>, LoraLayout) {
    use rand::Rng;
    let mut params = Vec::new();
    let mut slots = vec![[None; 7]; spec.layers];
    for (layer, slots) in slots.iter_mut().enumerate() {
        for (i, linear) in LINEARS.iter().enumerate() {
            let short = linear.rsplit('.').next().unwrap_or(linear);
            if !lora.targets.iter().any(|t| t == short) {
                continue;
            }
            let (out, inner) = spec.linear_shape(i);
            let name = |side: &str| {
                format!("base_model.model.model.layers.{layer}.{linear}.lora_{side}.weight")
            };
            let bound = 1.0 / (inner as f32).sqrt();
            let mut rng = generator(seed, &name("A"));
            slots[i] = Some((params.len(), params.len() + 1));
            params.push(Param {
                name: name("A"),
                shape: vec![lora.r, inner],
                values: (0..lora.r * inner)
                    .map(|_| rng.random_range(-bound..bound))
                    .collect(),
                decay: true,
            });
            params.push(Param {
                name: name("B"),
                shape: vec![out, lora.r],
                values: vec![0.0; out * lora.r],
                decay: true,
            });
        }
    }
    let rank = lora.r as f32;
    let scale = if lora.rslora {
        lora.alpha / rank.sqrt()
    } else {
        lora.alpha / rank
    };
    let layout = LoraLayout {
        slots,
        scale,
        dropout: lora.dropout,
    };
    (params, layout)
}

/// Writes `adapter_model.safetensors` and `adapter_config.json`.
fn write_peft(
    dir: &Path,
    recipe: &SftRecipe,
    invocation: Option<&[u32]>,
    params: &[Param],
) -> Result<(), TrainError> {
    let path = dir.join("adapter_model.safetensors");
    edgethink_model::save_tensors(
        &path,
        params
            .iter()
            .map(|p| (p.name.clone(), Saved::new(p, recipe.run.save_dtype))),
    )?;
    let lora = &recipe.lora;
    let mut config = json!({
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": recipe.model.base,
        "revision": null,
        "inference_mode": true,
        "r": lora.r,
        "lora_alpha": lora.alpha,
        "lora_dropout": lora.dropout,
        "target_modules": lora.targets,
        "bias": "none",
        "use_rslora": lora.rslora,
        "use_dora": false,
        "fan_in_fan_out": false,
        "init_lora_weights": true,
        "modules_to_save": null,
        "layers_to_transform": null,
        "layers_pattern": null,
        "rank_pattern": {},
        "alpha_pattern": {},
    });
    if let Some(tokens) = invocation {
        config["alora_invocation_tokens"] = json!(tokens);
    }
    let path = dir.join("adapter_config.json");
    fs::write(&path, format!("{config:#}\n")).map_err(|source| TrainError::Write { path, source })
}
