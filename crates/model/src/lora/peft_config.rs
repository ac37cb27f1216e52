//! `adapter_config.json` of PEFT: which modules an adapter has, and their ranks and scales.
//!
//! Matching follows PEFT 0.21 (`tuners_utils.check_target_module_exists`, `utils.other.get_pattern_key`): a list of targets matches a
//! module by its whole name or its last parts, a text is a pattern for the whole name, and the first key of `rank_pattern` or
//! `alpha_pattern` that matches the end of the name counts.

use regex::Regex;
use serde_json::{Map, Value};

use super::error::AdapterError;
use crate::json::{parse_object_bytes, shorten};

/// The part of `adapter_config.json` that changes results.
#[derive(Debug)]
pub(super) struct PeftConfig {
    r: usize,
    alpha: f64,
    rslora: bool,
    ranks: Patterns<usize>,
    alphas: Patterns<f64>,
    targets: Targets,
    exclude: Option<Targets>,
    layers: Option<Vec<usize>>,
    layers_patterns: Vec<Regex>,
    pub(super) invocation: Option<Vec<u32>>,
}

/// `target_modules` or `exclude_modules`.
#[derive(Debug)]
enum Targets {
    All,
    Names(Vec<String>),
    Pattern(Regex),
}

/// Patterns in file order with their values.
#[derive(Debug)]
struct Patterns<T>(Vec<(Regex, T)>);

impl<T: Copy> Patterns<T> {
    /// An object of patterns and values, or nothing. The map keeps the order of the file.
    fn parse(
        map: &Map<String, Value>,
        field: &'static str,
        read: impl Fn(&Value) -> Option<T>,
    ) -> Result<Self, AdapterError> {
        let entries = match map.get(field) {
            None | Some(Value::Null) => return Ok(Patterns(vec![])),
            Some(Value::Object(entries)) => entries,
            Some(other) => {
                return Err(field_error(
                    field,
                    other,
                    "an object of patterns and numbers",
                ));
            }
        };
        let one = |(key, value): (&String, &Value)| {
            let number = read(value).ok_or_else(|| {
                field_error(&format!("{field}.{key}"), value, "a number in range")
            })?;
            Ok((
                pattern(field, key, |key| format!(r"^(?:.*\.)?(?:{key})$"))?,
                number,
            ))
        };
        entries
            .iter()
            .map(one)
            .collect::<Result<_, _>>()
            .map(Patterns)
    }

    fn get(&self, module: &str) -> Option<T> {
        self.0
            .iter()
            .find(|(pattern, _)| pattern.is_match(module))
            .map(|(_, value)| *value)
    }
}

/// Fields that only matter in training or are notes; any value is accepted.
const IGNORED: &[&str] = &[
    "auto_mapping",
    "base_model_name_or_path",
    "corda_config",
    "ensure_weight_tying",
    "eva_config",
    "inference_mode",
    "loftq_config",
    "lora_dropout",
    "lora_ga_config",
    "megatron_config",
    "megatron_core",
    "peft_version",
    "qalora_group_size",
    "revision",
    "runtime_config",
    "velora_config",
];

/// Fields read below.
const READ: &[&str] = &[
    "alora_invocation_tokens",
    "alpha_pattern",
    "bias",
    "exclude_modules",
    "init_lora_weights",
    "layers_pattern",
    "layers_to_transform",
    "lora_alpha",
    "peft_type",
    "r",
    "rank_pattern",
    "target_modules",
    "task_type",
    "use_rslora",
];

/// Fields of PEFT that we do not compute, with what to do; refused unless null, false or empty.
const REFUSED: &[(&str, &str)] = &[
    ("use_dora", "train without DoRA"),
    ("modules_to_save", "train without modules_to_save"),
    ("lora_bias", "train with lora_bias = false"),
    (
        "fan_in_fan_out",
        "the supported architectures have no transposed layers",
    ),
    (
        "layer_replication",
        "train on the base without replicated layers",
    ),
    ("trainable_token_indices", "train without trainable tokens"),
    ("target_parameters", "target modules instead of parameters"),
    ("use_qalora", "train without QALoRA"),
    ("use_bdlora", "train without BD-LoRA"),
    ("arrow_config", "train without Arrow"),
    ("kasa_config", "train without KaSA"),
    ("monteclora_config", "train without MonteCLoRA"),
];

impl PeftConfig {
    /// Parses and checks the whole file.
    pub(super) fn parse(text: &[u8]) -> Result<PeftConfig, AdapterError> {
        let map = parse_object_bytes(text)?;
        check_fields(&map)?;
        check_kind(&map)?;
        let r = count(&map, "r")?.unwrap_or(8);
        let alpha = number(&map, "lora_alpha")?.unwrap_or(8.0);
        let ranks = Patterns::parse(&map, "rank_pattern", |v| {
            usize::try_from(v.as_u64()?)
                .ok()
                .filter(|r| (1..=MAX_RANK).contains(r))
        })?;
        let alphas = Patterns::parse(&map, "alpha_pattern", |v| {
            v.as_f64().filter(|a| a.is_finite())
        })?;
        let targets = Targets::parse(&map, "target_modules")?.ok_or_else(|| {
            field_error(
                "target_modules",
                &Value::Null,
                "a list of names or a pattern",
            )
        })?;
        Ok(PeftConfig {
            r,
            alpha,
            rslora: boolean(&map, "use_rslora")?,
            ranks,
            alphas,
            targets,
            exclude: Targets::parse(&map, "exclude_modules")?,
            layers: layers_to_transform(&map)?,
            layers_patterns: layers_patterns(&map)?,
            invocation: invocation(&map)?,
        })
    }

    /// Whether the adapter has a pair for this module, named as in the base (`model.layers.0.self_attn.q_proj`).
    pub(super) fn targets(&self, module: &str, layer: usize) -> bool {
        if self.exclude.as_ref().is_some_and(|e| e.matches(module)) || !self.targets.matches(module)
        {
            return false;
        }
        // PEFT applies layers_to_transform only to a list of names; a pattern speaks for itself.
        let Some(layers) = self
            .layers
            .as_ref()
            .filter(|_| !matches!(self.targets, Targets::Pattern(_)))
        else {
            return true;
        };
        let in_pattern = self.layers_patterns.is_empty()
            || self.layers_patterns.iter().any(|p| p.is_match(module));
        in_pattern && layers.contains(&layer)
    }

    /// Rank of a module.
    pub(super) fn rank(&self, module: &str) -> usize {
        self.ranks.get(module).unwrap_or(self.r)
    }

    /// alpha / r of a module, or alpha / sqrt(r).
    pub(super) fn scale(&self, module: &str) -> f32 {
        let alpha = self.alphas.get(module).unwrap_or(self.alpha);
        let r = self.rank(module) as f64;
        (if self.rslora {
            alpha / r.sqrt()
        } else {
            alpha / r
        }) as f32
    }
}

/// Far above every rank in use; keeps products of sizes small.
const MAX_RANK: usize = 1 << 16;

impl Targets {
    fn parse(
        map: &Map<String, Value>,
        field: &'static str,
    ) -> Result<Option<Targets>, AdapterError> {
        match map.get(field) {
            None | Some(Value::Null) => Ok(None),
            Some(Value::String(s)) if s == "all-linear" => Ok(Some(Targets::All)),
            Some(Value::String(s)) => Ok(Some(Targets::Pattern(pattern(field, s, |s| {
                format!("^(?:{s})$")
            })?))),
            Some(list @ Value::Array(_)) => {
                let names = texts(list)
                    .ok_or_else(|| field_error(field, list, "a list of names or a pattern"))?;
                Ok(Some(Targets::Names(names)))
            }
            Some(other) => Err(field_error(field, other, "a list of names or a pattern")),
        }
    }

    fn matches(&self, module: &str) -> bool {
        match self {
            Targets::All => true,
            Targets::Names(names) => names.iter().any(|name| {
                module
                    .strip_suffix(name.as_str())
                    .is_some_and(|rest| rest.is_empty() || rest.ends_with('.'))
            }),
            Targets::Pattern(pattern) => pattern.is_match(module),
        }
    }
}

/// Refuses fields that we do not compute or do not know, unless their value says "not used".
fn check_fields(map: &Map<String, Value>) -> Result<(), AdapterError> {
    for (field, value) in map {
        let unused = match value {
            Value::Null | Value::Bool(false) => true,
            Value::Array(list) => list.is_empty(),
            Value::Object(entries) => entries.is_empty(),
            _ => false,
        };
        let name = field.as_str();
        if unused || IGNORED.contains(&name) || READ.contains(&name) {
            continue;
        }
        let refused = REFUSED.iter().find(|(refused, _)| *refused == name);
        let remedy = refused.map_or(
            "this program does not know the field; remove it if it does not matter",
            |(_, remedy)| remedy,
        );
        return Err(AdapterError::Unsupported {
            field: field.clone(),
            found: shorten(value),
            remedy,
        });
    }
    Ok(())
}

fn check_kind(map: &Map<String, Value>) -> Result<(), AdapterError> {
    let unsupported = |field: &str, value: &Value, remedy| {
        Err(AdapterError::Unsupported {
            field: field.to_owned(),
            found: shorten(value),
            remedy,
        })
    };
    let value = |field: &str| map.get(field).unwrap_or(&Value::Null);
    if value("peft_type") != "LORA" {
        return unsupported("peft_type", value("peft_type"), "only LORA adapters are");
    }
    if !value("task_type").is_null() && value("task_type") != "CAUSAL_LM" {
        return unsupported("task_type", value("task_type"), "only CAUSAL_LM is");
    }
    if !value("bias").is_null() && value("bias") != "none" {
        return unsupported("bias", value("bias"), "train with bias = \"none\"");
    }
    // These start from a changed base; PEFT writes `true` after converting such an adapter back.
    let init = value("init_lora_weights");
    if let Value::String(kind) = init
        && !["gaussian", "eva", "orthogonal"].contains(&kind.as_str())
    {
        return unsupported(
            "init_lora_weights",
            init,
            "save with path_initial_model_for_weight_conversion, as the base was changed",
        );
    }
    Ok(())
}

fn layers_to_transform(map: &Map<String, Value>) -> Result<Option<Vec<usize>>, AdapterError> {
    let expected = "a layer number or a list of them";
    let number = |v: &Value| v.as_u64().and_then(|n| usize::try_from(n).ok());
    match map.get("layers_to_transform") {
        None | Some(Value::Null) => Ok(None),
        Some(Value::Array(list)) if list.is_empty() => Ok(None),
        Some(value @ Value::Array(list)) => {
            let layers: Option<Vec<usize>> = list.iter().map(number).collect();
            layers
                .map(Some)
                .ok_or_else(|| field_error("layers_to_transform", value, expected))
        }
        Some(value) => number(value)
            .map(|n| Some(vec![n]))
            .ok_or_else(|| field_error("layers_to_transform", value, expected)),
    }
}

fn layers_patterns(map: &Map<String, Value>) -> Result<Vec<Regex>, AdapterError> {
    let list = match map.get("layers_pattern") {
        None | Some(Value::Null) => vec![],
        Some(Value::String(s)) if s.is_empty() => vec![],
        Some(Value::String(s)) => vec![s.clone()],
        Some(value) => texts(value)
            .ok_or_else(|| field_error("layers_pattern", value, "a name or a list of names"))?,
    };
    list.iter()
        .map(|p| {
            pattern("layers_pattern", p, |p| {
                format!(r"^(?:.*?\.)?(?:{p})\.\d+\.")
            })
        })
        .collect()
}

fn invocation(map: &Map<String, Value>) -> Result<Option<Vec<u32>>, AdapterError> {
    match map.get("alora_invocation_tokens") {
        None | Some(Value::Null) => Ok(None),
        Some(value) => {
            let token = |v: &Value| v.as_u64().and_then(|n| u32::try_from(n).ok());
            let tokens = value
                .as_array()
                .and_then(|list| list.iter().map(token).collect());
            tokens
                .map(Some)
                .ok_or_else(|| field_error("alora_invocation_tokens", value, "a list of token ids"))
        }
    }
}

fn texts(value: &Value) -> Option<Vec<String>> {
    value
        .as_array()?
        .iter()
        .map(|v| v.as_str().map(str::to_owned))
        .collect()
}

fn count(map: &Map<String, Value>, field: &'static str) -> Result<Option<usize>, AdapterError> {
    match map.get(field) {
        None => Ok(None),
        Some(value) => {
            let n = value
                .as_u64()
                .and_then(|n| usize::try_from(n).ok())
                .filter(|n| (1..=MAX_RANK).contains(n));
            n.map(Some)
                .ok_or_else(|| field_error(field, value, "a whole number from 1 to 65536"))
        }
    }
}

fn number(map: &Map<String, Value>, field: &'static str) -> Result<Option<f64>, AdapterError> {
    match map.get(field) {
        None => Ok(None),
        Some(value) => {
            let n = value.as_f64().filter(|n| n.is_finite());
            n.map(Some)
                .ok_or_else(|| field_error(field, value, "a finite number"))
        }
    }
}

fn boolean(map: &Map<String, Value>, field: &'static str) -> Result<bool, AdapterError> {
    match map.get(field) {
        None | Some(Value::Null) => Ok(false),
        Some(Value::Bool(b)) => Ok(*b),
        Some(value) => Err(field_error(field, value, "true or false")),
    }
}

fn field_error(field: &str, found: &Value, expected: &'static str) -> AdapterError {
    AdapterError::Field {
        field: field.to_owned(),
        found: shorten(found),
        expected,
    }
}

/// Compiles a pattern written for Python's `re`; what the two engines share is what occurs in practice.
fn pattern(
    field: &'static str,
    text: &str,
    wrap: impl Fn(&str) -> String,
) -> Result<Regex, AdapterError> {
    regex::RegexBuilder::new(&wrap(text))
        .size_limit(1 << 20)
        .build()
        .map_err(|error| AdapterError::Pattern {
            field,
            pattern: text.to_owned(),
            reason: error.to_string(),
        })
}
