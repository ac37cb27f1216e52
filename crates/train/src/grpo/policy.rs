//! The adapter as parameters to train and as what the engine loads.

use std::{fs, path::Path};

use edgethink_model::{Adapter, Config, Linear, LoraPair, Tensor};

use crate::grpo::recipe::BudgetRecipe;
use crate::{
    base::Saved, error::TrainError, net::LINEARS, params::Param, recipe::FloatType, run::LoraLayout,
};

/// A loaded adapter, taken apart.
#[derive(Debug)]
pub(crate) struct Policy {
    pub params: Vec<Param>,
    pub layout: LoraLayout,
    /// The adapter as it was loaded.
    from: Adapter,
    config: Config,
}

impl Policy {
    /// Loads a PEFT directory.
    ///
    /// # Errors
    /// [`TrainError::Adapter`], or [`TrainError::Unfit`] for linear layers with different scales.
    pub(crate) fn load(path: &Path, config: &Config) -> Result<Self, TrainError> {
        let adapter = Adapter::load(path, config).map_err(|source| TrainError::Adapter {
            path: path.to_owned(),
            source,
        })?;
        let (mut params, mut scale) = (Vec::new(), None);
        let mut slots = vec![[None; 7]; adapter.layers.len()];
        for (layer, pairs) in adapter.layers.iter().enumerate() {
            for (linear, pair) in Linear::ALL.into_iter().zip(pairs) {
                let Some(pair) = pair else { continue };
                if *scale.get_or_insert(pair.scale) != pair.scale {
                    return Err(TrainError::Unfit {
                        path: path.to_owned(),
                        problem: "has linear layers with different alpha / r (rank_pattern or alpha_pattern); only one is trained"
                            .to_owned(),
                    });
                }
                slots[layer][linear as usize] = Some((params.len(), params.len() + 1));
                for (side, tensor) in [("A", &pair.a), ("B", &pair.b)] {
                    let name = LINEARS[linear as usize];
                    params.push(Param {
                        name: format!(
                            "base_model.model.model.layers.{layer}.{name}.lora_{side}.weight"
                        ),
                        shape: tensor.shape.clone(),
                        values: tensor.to_f32(),
                        decay: true,
                    });
                }
            }
        }
        Ok(Self {
            params,
            layout: LoraLayout {
                slots,
                scale: scale.unwrap_or(1.0),
                dropout: 0.0,
            },
            from: adapter,
            config: config.clone(),
        })
    }

    /// Whether it leaves a part of the prompt to the base.
    pub(crate) fn masked(&self) -> bool {
        self.from.invocation.is_some()
    }

    /// Where it begins in a prompt.
    pub(crate) fn start(&self, tokens: &[u32]) -> usize {
        self.from.start(tokens).unwrap_or(tokens.len())
    }

    /// An adapter with new values, for the engine.
    ///
    /// # Errors
    /// [`TrainError::Adapter`] for values that are not finite.
    pub(crate) fn adapter(&self, params: &[Param]) -> Result<Adapter, TrainError> {
        let wrong = |source| TrainError::Adapter {
            path: "the trained adapter".into(),
            source,
        };
        let tensor = |at: usize| {
            let param = &params[at];
            Tensor::from_f32(param.shape.clone(), &param.values).map_err(|e| TrainError::Unfit {
                path: "the trained adapter".into(),
                problem: e.to_string(),
            })
        };
        let mut layers = Vec::with_capacity(self.layout.slots.len());
        for slots in &self.layout.slots {
            let mut pairs: [Option<LoraPair>; 7] = Default::default();
            for (pair, slot) in pairs.iter_mut().zip(slots) {
                let Some((a, b)) = *slot else { continue };
                *pair = Some(LoraPair {
                    a: tensor(a)?,
                    b: tensor(b)?,
                    scale: self.layout.scale,
                });
            }
            layers.push(pairs);
        }
        Adapter::new("policy", self.from.invocation.clone(), layers, &self.config).map_err(wrong)
    }

    /// Writes a PEFT directory: the trained tensors beside the settings of the adapter that the run started from, and `edgethink.json`, which
    /// tells the program how budgets are named to it, and which it knows.
    ///
    /// # Errors
    /// [`TrainError`] for a failed write.
    pub(crate) fn write(
        &self,
        from: &Path,
        dir: &Path,
        params: &[Param],
        dtype: FloatType,
        budget: &BudgetRecipe,
    ) -> Result<(), TrainError> {
        fs::create_dir_all(dir).map_err(|source| TrainError::Write {
            path: dir.to_owned(),
            source,
        })?;
        edgethink_model::save_tensors(
            &dir.join("adapter_model.safetensors"),
            params
                .iter()
                .map(|p| (p.name.clone(), Saved::new(p, dtype))),
        )?;
        let (source, path) = (
            from.join("adapter_config.json"),
            dir.join("adapter_config.json"),
        );
        if source != path {
            fs::copy(&source, &path).map_err(|source| TrainError::Write { path, source })?;
        }
        let path = dir.join("edgethink.json");
        let mut budgets = budget.tokens.clone();
        budgets.sort_unstable();
        budgets.dedup();
        let format = serde_json::json!({"budget_line": budget.line, "budgets": budgets});
        fs::write(&path, format!("{format:#}\n"))
            .map_err(|source| TrainError::Write { path, source })
    }
}
