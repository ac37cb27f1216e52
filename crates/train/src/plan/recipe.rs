//! A recipe of any kind, told apart by its tables, and what a plan asks of it.

use std::path::Path;

use serde_json::Value;

use super::Shape;
use crate::{
    base_model,
    device::DeviceChoice,
    error::TrainError,
    grpo::{GrpoRecipe, RolloutKv, RolloutWeights},
    net::LINEARS,
    quantize::QuantizeRecipe,
    recipe::{BaseFormat, BaseRecipe, Checkpointing, FloatType, RunRecipe, SftRecipe},
    switcher::SwitcherRecipe,
    verifier::VerifierRecipe,
};

/// A recipe of `edgethink train`.
#[derive(Debug, Clone, PartialEq)]
pub enum Recipe {
    /// `train base`
    Base(BaseRecipe),
    /// `train sft`
    Sft(SftRecipe),
    /// `train grpo`
    Grpo(Box<GrpoRecipe>),
    /// `train verifier`
    Verifier(VerifierRecipe),
    /// `train switcher`
    Switcher(SwitcherRecipe),
    /// `train quantize`
    Quantize(QuantizeRecipe),
}

impl Recipe {
    /// Reads and checks a recipe of any kind: the tables that only one kind has say which it is.
    ///
    /// # Errors
    /// [`TrainError::Read`], or [`TrainError::Recipe`] with every problem found.
    pub fn load(path: &Path) -> Result<Self, TrainError> {
        let text = std::fs::read_to_string(path).map_err(|source| TrainError::Read {
            path: path.to_owned(),
            source,
        })?;
        let table: toml::Table = toml::from_str(&text).map_err(|e| TrainError::Recipe {
            path: path.to_owned(),
            problems: vec![e.to_string()],
        })?;
        let has = |name: &str| table.contains_key(name);
        let data = table.get("data").and_then(toml::Value::as_table);
        if has("lora") {
            SftRecipe::load(path).map(Self::Sft)
        } else if has("rollout") {
            GrpoRecipe::load(path).map(|r| Self::Grpo(Box::new(r)))
        } else if has("sample") {
            VerifierRecipe::load(path).map(Self::Verifier)
        } else if data.is_some_and(|data| data.contains_key("easy")) {
            SwitcherRecipe::load(path).map(Self::Switcher)
        } else if has("scheme") {
            QuantizeRecipe::load(path).map(Self::Quantize)
        } else if has("model") {
            BaseRecipe::load(path).map(Self::Base)
        } else {
            Err(TrainError::Recipe {
                path: path.to_owned(),
                problems: vec![
                    "it is no recipe of edgethink train that can be planned: none of [lora], [rollout], [sample], [data.easy], scheme or \
                     [model] is there"
                        .to_owned(),
                ],
            })
        }
    }

    /// The command that runs it.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Base(_) => "base",
            Self::Sft(_) => "sft",
            Self::Grpo(_) => "grpo",
            Self::Verifier(_) => "verifier",
            Self::Switcher(_) => "switcher",
            Self::Quantize(_) => "quantize",
        }
    }

    /// The config of a new network.
    pub(super) fn config(&self) -> Option<&Path> {
        match self {
            Self::Base(r) => r.model.config.as_deref(),
            _ => None,
        }
    }

    /// The model that it starts from.
    pub(super) fn base(&self) -> Option<&Path> {
        match self {
            Self::Base(r) => r.model.base.as_deref(),
            Self::Sft(r) => r.model.base.as_deref(),
            Self::Quantize(r) => r.model.base.as_deref(),
            Self::Grpo(r) => Some(&r.model.base),
            Self::Verifier(r) => Some(&r.model.base),
            Self::Switcher(r) => Some(&r.model.base),
        }
    }

    /// Threads; 0 for all cores.
    pub(super) fn threads(&self) -> usize {
        match self {
            Self::Base(r) => r.run.threads,
            Self::Sft(r) => r.run.threads,
            Self::Quantize(r) => r.run.threads,
            Self::Grpo(r) => r.run.threads,
            Self::Verifier(r) => r.run.threads,
            Self::Switcher(r) => r.model.threads,
        }
    }

    /// The device that trains the network; `None` of what runs on the CPU only.
    pub(super) fn device(&self) -> Option<DeviceChoice> {
        match self {
            Self::Base(r) => Some(r.run.device),
            Self::Sft(r) => Some(r.run.device),
            Self::Grpo(r) => Some(r.run.device),
            Self::Quantize(r) => Some(r.run.device),
            Self::Verifier(_) | Self::Switcher(_) => None,
        }
    }

    /// How the matrices of its frozen base are held.
    pub(super) fn base_dtype(&self) -> BaseFormat {
        match self {
            Self::Sft(r) => r.run.base_dtype,
            Self::Grpo(r) => r.run.base_dtype,
            _ => BaseFormat::F32,
        }
    }

    /// In which numbers the linear layers of its frozen base are computed.
    pub(super) fn compute_dtype(&self) -> FloatType {
        match self {
            Self::Sft(r) => r.run.compute_dtype,
            Self::Grpo(r) => r.run.compute_dtype,
            _ => FloatType::F32,
        }
    }

    /// What is kept for the backward pass, where there is one.
    pub(super) fn checkpointing(&self) -> Option<Checkpointing> {
        match self {
            Self::Base(r) => Some(r.run.gradient_checkpointing),
            Self::Sft(r) => Some(r.run.gradient_checkpointing),
            Self::Quantize(r) => Some(r.run.gradient_checkpointing),
            Self::Grpo(r) => Some(r.run.gradient_checkpointing),
            Self::Switcher(_) | Self::Verifier(_) => None,
        }
    }

    fn keep(&mut self, checkpointing: Checkpointing) {
        match self {
            Self::Base(r) => r.run.gradient_checkpointing = checkpointing,
            Self::Sft(r) => r.run.gradient_checkpointing = checkpointing,
            Self::Quantize(r) => r.run.gradient_checkpointing = checkpointing,
            Self::Grpo(r) => r.run.gradient_checkpointing = checkpointing,
            Self::Switcher(_) | Self::Verifier(_) => {}
        }
    }

    fn hold(&mut self, base: BaseFormat) {
        match self {
            Self::Sft(r) => r.run.base_dtype = base,
            Self::Grpo(r) => r.run.base_dtype = base,
            _ => {}
        }
    }

    /// Rank and linear layers of the adapter; rank 0 without one. One that is not there yet has `given` or the paper's.
    pub(super) fn adapter(
        &self,
        given: Option<usize>,
        notes: &mut Vec<String>,
    ) -> Result<(usize, [bool; 7]), TrainError> {
        let dir = match self {
            Self::Sft(r) => {
                let short = |linear: &&str| linear.rsplit('.').next().unwrap_or(linear).to_owned();
                let mut targets = [false; 7];
                for (on, linear) in targets.iter_mut().zip(&LINEARS) {
                    *on = r.lora.targets.contains(&short(linear));
                }
                return Ok((r.lora.r, targets));
            }
            Self::Grpo(r) => &r.model.adapter,
            Self::Verifier(r) => match &r.model.adapter {
                Some(dir) => dir,
                None => return Ok((0, [false; 7])),
            },
            Self::Base(_) | Self::Quantize(_) | Self::Switcher(_) => return Ok((0, [false; 7])),
        };
        let path = dir.join("adapter_config.json");
        if !path.is_file() {
            let rank = given.unwrap_or(128);
            notes.push(format!(
                "adapter {} is not there: rank {rank} on all linear layers is taken",
                dir.display()
            ));
            return Ok((rank, [true; 7]));
        }
        let config: Value =
            serde_json::from_str(&base_model::read(&path)?).map_err(|e| TrainError::Unfit {
                path: path.clone(),
                problem: e.to_string(),
            })?;
        let rank = config.get("r").and_then(Value::as_u64).unwrap_or(0) as usize;
        let names: Vec<&str> = match config.get("target_modules") {
            Some(Value::Array(list)) => list.iter().filter_map(Value::as_str).collect(),
            _ => Vec::new(),
        };
        let mut targets = [false; 7];
        for (on, linear) in targets.iter_mut().zip(&LINEARS) {
            // A pattern instead of a list is taken to mean all.
            *on = names.is_empty() || names.iter().any(|name| linear.ends_with(name));
        }
        Ok((rank, targets))
    }

    fn run(&mut self) -> Option<(&mut RunRecipe, usize)> {
        match self {
            Self::Base(r) => Some((&mut r.run, r.data.max_length)),
            Self::Sft(r) => Some((&mut r.run, r.data.max_length)),
            Self::Quantize(r) => Some((&mut r.run, r.data.max_length)),
            _ => None,
        }
    }

    /// The same recipe with settings that change its memory on a device and not, or little, what is learnt; each with its description.
    pub(super) fn cheaper(&self, shape: &Shape) -> Vec<(String, Self)> {
        let mut found = Vec::new();
        let mut all = self.clone();
        let mut add = |setting: String, change: &dyn Fn(&mut Self)| {
            let mut recipe = self.clone();
            change(&mut recipe);
            change(&mut all);
            found.push((setting, recipe));
        };
        let more = [
            ("true", Checkpointing::On),
            ("\"offload\"", Checkpointing::Offload),
        ];
        for (name, checkpointing) in more {
            let is_more = self.checkpointing().is_some_and(|now| now < checkpointing);
            if is_more && shape.device.check_checkpointing(checkpointing).is_ok() {
                let setting = format!("[run] gradient_checkpointing = {name}");
                add(setting, &|r| r.keep(checkpointing));
            }
        }
        if let Some((run, longest)) = self.clone().run() {
            if run.micro_batch_tokens > longest {
                add(format!("[run] micro_batch_tokens = {longest}"), &|r| {
                    if let Some((run, longest)) = r.run() {
                        run.micro_batch_tokens = longest;
                    }
                });
            }
            let half = longest / 2;
            add(
                format!("[data] max_length = {half}, [run] micro_batch_tokens = {half}"),
                &|r| r.shorten(),
            );
        }
        if let Self::Sft(r) = self
            && r.lora.r > 8
        {
            add(format!("[lora] r = {}", r.lora.r / 2), &|r| {
                if let Self::Sft(r) = r {
                    r.lora.r /= 2;
                }
            });
        }
        let frozen = matches!(self, Self::Sft(_) | Self::Grpo(_));
        if frozen && self.base_dtype().is_f32() {
            let in_blocks = shape.linears.iter().any(|(dtype, _)| dtype.block_len() > 1);
            let (name, base) = match shape.device {
                DeviceChoice::Cuda(_) if !in_blocks => ("bf16", BaseFormat::Bf16),
                _ => ("stored", BaseFormat::Stored),
            };
            if shape.check_base(base, self.compute_dtype()).is_ok() {
                let setting = format!("[run] base_dtype = \"{name}\"");
                add(setting, &|r| r.hold(base));
            }
        }
        if let Self::Grpo(r) = self {
            let longest = r.data.max_prompt_tokens + r.rollout.max_completion_tokens;
            if r.run.micro_batch_tokens > longest {
                add(format!("[run] micro_batch_tokens = {longest}"), &|r| {
                    if let Self::Grpo(r) = r {
                        r.run.micro_batch_tokens =
                            r.data.max_prompt_tokens + r.rollout.max_completion_tokens;
                    }
                });
            }
            if r.rollout.max_sequences > 8 {
                add("[rollout] max_sequences = 8".to_owned(), &|r| {
                    if let Self::Grpo(r) = r {
                        r.rollout.max_sequences = 8;
                    }
                });
            }
            if r.rollout.kv != RolloutKv::Int8 {
                add("[rollout] kv = \"int8\"".to_owned(), &|r| {
                    if let Self::Grpo(r) = r {
                        r.rollout.kv = RolloutKv::Int8;
                    }
                });
            }
        }
        if let Self::Verifier(r) = self {
            if r.sample.max_sequences > 8 {
                add("[sample] max_sequences = 8".to_owned(), &|r| {
                    if let Self::Verifier(r) = r {
                        r.sample.max_sequences = 8;
                    }
                });
            }
            if r.model.weights == RolloutWeights::Stored {
                add("[model] weights = \"q4\"".to_owned(), &|r| {
                    if let Self::Verifier(r) = r {
                        r.model.weights = RolloutWeights::Q4;
                    }
                });
            }
        }
        if let Self::Switcher(r) = self
            && r.model.weights == RolloutWeights::Stored
        {
            add("[model] weights = \"q4\"".to_owned(), &|r| {
                if let Self::Switcher(r) = r {
                    r.model.weights = RolloutWeights::Q4;
                }
            });
        }
        if found.len() > 1 {
            found.push(("all of these".to_owned(), all));
        }
        found
    }

    fn shorten(&mut self) {
        let data = match self {
            Self::Base(r) => Some((&mut r.data, &mut r.run)),
            Self::Sft(r) => Some((&mut r.data, &mut r.run)),
            Self::Quantize(r) => Some((&mut r.data, &mut r.run)),
            _ => None,
        };
        if let Some((data, run)) = data {
            data.max_length /= 2;
            run.micro_batch_tokens = data.max_length;
        }
    }
}
