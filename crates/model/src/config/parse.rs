//! Reading and writing config.json, in the old form (`rope_theta`, `rope_scaling`) and in that of transformers 5
//! (`rope_parameters`, `dtype`).

use serde_json::{Map, Value, json};

use super::{Config, ConfigError, Family, RopeScaling, invalid};
use crate::json::{parse_object, shorten};

/// Fields that have a default or may be absent: a misspelt one would silently change the results.
const OPTIONAL_FIELDS: [&str; 11] = [
    "num_key_value_heads",
    "head_dim",
    "rope_theta",
    "rope_scaling",
    "rope_parameters",
    "tie_word_embeddings",
    "attention_bias",
    "mlp_bias",
    "sliding_window",
    "use_sliding_window",
    "partial_rotary_factor",
];

impl Config {
    /// Reads and validates a config.json.
    ///
    /// # Errors
    /// [`ConfigError`] for bad JSON, missing, misspelt or absurd fields, and for features that we do not compute.
    pub fn from_json(text: &str) -> Result<Self, ConfigError> {
        Self::from_object(&parse_object(text)?)
    }

    fn from_object(map: &Map<String, Value>) -> Result<Self, ConfigError> {
        let family = family(map)?;
        refuse_misspelt(map)?;
        refuse_unsupported(map)?;
        let size = |field| size(map, field);
        let hidden_size = require(size("hidden_size")?, "hidden_size")?;
        let num_hidden_layers = require(size("num_hidden_layers")?, "num_hidden_layers")?;
        let num_attention_heads = require(size("num_attention_heads")?, "num_attention_heads")?;
        let num_key_value_heads = match (size("num_key_value_heads")?, family) {
            (Some(heads), _) => heads,
            (None, Family::Llama) => num_attention_heads,
            (None, _) => return Err(ConfigError::Missing("num_key_value_heads")),
        };
        let head_dim = match (size("head_dim")?, family) {
            (Some(d), _) => d,
            (None, Family::Qwen3) => 128, // the default of transformers' Qwen3Config
            (None, _)
                if num_attention_heads == 0 || !hidden_size.is_multiple_of(num_attention_heads) =>
            {
                return Err(invalid(
                    "hidden_size",
                    hidden_size,
                    "a multiple of num_attention_heads, or a head_dim",
                ));
            }
            (None, _) => hidden_size / num_attention_heads,
        };
        let max_position_embeddings =
            require(size("max_position_embeddings")?, "max_position_embeddings")?;
        let (rope_theta, rope_scaling) = rope(map, max_position_embeddings)?;
        let bias = flag(map, "attention_bias")?;
        let config = Config {
            family,
            hidden_size,
            intermediate_size: require(size("intermediate_size")?, "intermediate_size")?,
            num_hidden_layers,
            num_attention_heads,
            num_key_value_heads,
            head_dim,
            vocab_size: require(size("vocab_size")?, "vocab_size")?,
            max_position_embeddings,
            rms_norm_eps: require(number(map, "rms_norm_eps")?, "rms_norm_eps")? as f32,
            rope_theta,
            rope_scaling,
            tie_word_embeddings: flag(map, "tie_word_embeddings")?.unwrap_or(false),
            attention_bias: family == Family::Qwen2 || bias == Some(true),
            output_bias: family != Family::Qwen2 && bias == Some(true),
            mlp_bias: flag(map, "mlp_bias")?.unwrap_or(false),
            qk_norm: family == Family::Qwen3,
            sliding_window: sliding_window(map, family, num_hidden_layers)?,
        };
        if family == Family::Mistral && (config.attention_bias || config.mlp_bias) {
            return Err(unsupported(
                "attention_bias",
                &Value::Bool(true),
                "Mistral has no biases",
            ));
        }
        if family == Family::Qwen2 && (bias == Some(false) || config.mlp_bias) {
            return Err(unsupported(
                "attention_bias",
                &json!(bias),
                "Qwen2 has biases on q, k and v and nowhere else",
            ));
        }
        if family == Family::Qwen3 && config.mlp_bias {
            return Err(unsupported(
                "mlp_bias",
                &Value::Bool(true),
                "Qwen3 has no biases in its feed-forward layer",
            ));
        }
        config.validate()?;
        Ok(config)
    }

    /// A config.json that [`Config::from_json`] and transformers read back as the same model.
    pub fn to_json(&self) -> String {
        let mut map = Map::new();
        let mut put = |key: &str, value: Value| map.insert(key.to_owned(), value);
        put("architectures", json!([self.family.architecture()]));
        put("model_type", json!(self.family.model_type()));
        put("hidden_act", json!("silu"));
        put("hidden_size", json!(self.hidden_size));
        put("intermediate_size", json!(self.intermediate_size));
        put("num_hidden_layers", json!(self.num_hidden_layers));
        put("num_attention_heads", json!(self.num_attention_heads));
        put("num_key_value_heads", json!(self.num_key_value_heads));
        put("head_dim", json!(self.head_dim));
        put("vocab_size", json!(self.vocab_size));
        put(
            "max_position_embeddings",
            json!(self.max_position_embeddings),
        );
        put("rms_norm_eps", json!(shortest(self.rms_norm_eps)));
        put("rope_theta", json!(self.rope_theta));
        put(
            "rope_scaling",
            self.rope_scaling
                .as_ref()
                .map_or(Value::Null, rope_scaling_json),
        );
        put("tie_word_embeddings", json!(self.tie_word_embeddings));
        match self.family {
            Family::Qwen2 => {}
            Family::Qwen3 => drop(put("attention_bias", json!(self.attention_bias))),
            Family::Llama => {
                put("attention_bias", json!(self.attention_bias));
                put("mlp_bias", json!(self.mlp_bias));
            }
            Family::Mistral => {}
        }
        match self.family {
            Family::Mistral => drop(put("sliding_window", json!(self.sliding_window))),
            Family::Qwen2 | Family::Qwen3 => {
                put("use_sliding_window", json!(self.sliding_window.is_some()));
                put("sliding_window", json!(self.sliding_window));
                put(
                    "max_window_layers",
                    json!(if self.sliding_window.is_some() {
                        0
                    } else {
                        self.num_hidden_layers
                    }),
                );
            }
            Family::Llama => {}
        }
        let mut text = serde_json::to_string_pretty(&Value::Object(map))
            .expect("a map of strings and numbers");
        text.push('\n');
        text
    }
}

fn family(map: &Map<String, Value>) -> Result<Family, ConfigError> {
    let architecture = map
        .get("architectures")
        .and_then(|a| a.get(0))
        .and_then(Value::as_str);
    let model_type = map.get("model_type").and_then(Value::as_str);
    let by_architecture = |name: &str| Family::ALL.into_iter().find(|f| f.architecture() == name);
    let by_model_type = |name: &str| Family::ALL.into_iter().find(|f| f.model_type() == name);
    match (architecture, model_type) {
        (Some(name), _) => by_architecture(name).ok_or_else(|| ConfigError::Architecture {
            found: name.to_owned(),
        }),
        (None, Some(name)) => by_model_type(name).ok_or_else(|| ConfigError::Architecture {
            found: name.to_owned(),
        }),
        (None, None) => Err(ConfigError::Missing("architectures")),
    }
}

fn sliding_window(
    map: &Map<String, Value>,
    family: Family,
    layers: usize,
) -> Result<Option<usize>, ConfigError> {
    match family {
        Family::Llama => Ok(None),
        // Absent means transformers' default, null means none.
        Family::Mistral if map.get("sliding_window").is_none() => Ok(Some(4096)),
        Family::Mistral => size(map, "sliding_window"),
        Family::Qwen2 | Family::Qwen3 => {
            if flag(map, "use_sliding_window")? != Some(true) {
                return Ok(None);
            }
            let first = size(map, "max_window_layers")?.unwrap_or(28);
            if first >= layers {
                return Ok(None);
            }
            if first > 0 {
                return Err(unsupported(
                    "max_window_layers",
                    &json!(first),
                    "a window must be in all layers or in none",
                ));
            }
            Ok(Some(require(
                size(map, "sliding_window")?,
                "sliding_window",
            )?))
        }
    }
}

fn rope(
    map: &Map<String, Value>,
    max_position: usize,
) -> Result<(f64, Option<RopeScaling>), ConfigError> {
    let nested = |field| match map.get(field) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::Object(rope)) => Ok(Some(rope)),
        Some(other) => Err(invalid(field, shorten(other), "an object or null")),
    };
    let parameters = match nested("rope_parameters")? {
        Some(rope) => Some(rope),
        None => nested("rope_scaling")?,
    };
    let empty = Map::new();
    let rope = parameters.unwrap_or(&empty);
    if let Some(inner) = rope.values().find(|v| v.is_object()) {
        return Err(unsupported(
            "rope_parameters",
            inner,
            "the rope must be the same in every layer",
        ));
    }
    for (holder, field) in [
        (rope, "partial_rotary_factor"),
        (map, "partial_rotary_factor"),
    ] {
        if number(holder, field)?.is_some_and(|share| share != 1.0) {
            return Err(unsupported(
                "partial_rotary_factor",
                &holder[field],
                "only whole heads are rotated",
            ));
        }
    }
    let theta = match number(rope, "rope_theta")? {
        Some(theta) => theta,
        None => number(map, "rope_theta")?.unwrap_or(10_000.0), // transformers' default
    };
    let kind = match rope.get("rope_type").or_else(|| rope.get("type")) {
        None | Some(Value::Null) if rope.contains_key("factor") => {
            return Err(ConfigError::Missing("rope_scaling.rope_type"));
        }
        None | Some(Value::Null) => "default",
        Some(Value::String(kind)) => kind,
        Some(other) => {
            return Err(invalid(
                "rope_scaling.rope_type",
                shorten(other),
                "a string",
            ));
        }
    };
    let factor = || require(number(rope, "factor")?, "rope_scaling.factor");
    let original = || -> Result<usize, ConfigError> {
        Ok(match size(map, "original_max_position_embeddings")? {
            Some(outside) => outside,
            None => size(rope, "original_max_position_embeddings")?.unwrap_or(max_position),
        })
    };
    let scaling = match kind {
        "default" => None,
        "linear" => Some(RopeScaling::Linear { factor: factor()? }),
        "llama3" => Some(RopeScaling::Llama3 {
            factor: factor()?,
            low_freq_factor: require(
                number(rope, "low_freq_factor")?,
                "rope_scaling.low_freq_factor",
            )?,
            high_freq_factor: require(
                number(rope, "high_freq_factor")?,
                "rope_scaling.high_freq_factor",
            )?,
            original_max_position_embeddings: original()?,
        }),
        "yarn" => Some(yarn(rope, factor()?, original()?)?),
        "divisors" => Some(RopeScaling::Divisors(divisors(rope)?)),
        _ => {
            let remedy = "supported are default, linear, llama3 and yarn";
            return Err(ConfigError::Unsupported {
                field: "rope_scaling.rope_type",
                found: kind.to_owned(),
                remedy,
            });
        }
    };
    Ok((theta, scaling))
}

fn yarn(
    rope: &Map<String, Value>,
    factor: f64,
    original: usize,
) -> Result<RopeScaling, ConfigError> {
    let mscale = |scale: f64| {
        if factor <= 1.0 {
            1.0
        } else {
            0.1 * scale * factor.ln() + 1.0
        }
    };
    let nonzero = |x: &f64| *x != 0.0;
    let attention_factor = match number(rope, "attention_factor")? {
        Some(given) => given,
        None => match (
            number(rope, "mscale")?.filter(nonzero),
            number(rope, "mscale_all_dim")?.filter(nonzero),
        ) {
            (Some(one), Some(all)) => mscale(one) / mscale(all),
            _ => mscale(1.0),
        },
    };
    Ok(RopeScaling::Yarn {
        factor,
        original_max_position_embeddings: original,
        beta_fast: number(rope, "beta_fast")?.filter(nonzero).unwrap_or(32.0),
        beta_slow: number(rope, "beta_slow")?.filter(nonzero).unwrap_or(1.0),
        attention_factor,
        truncate: flag(rope, "truncate")?.unwrap_or(true),
    })
}

fn divisors(rope: &Map<String, Value>) -> Result<Vec<f32>, ConfigError> {
    const FIELD: &str = "rope_scaling.divisors";
    let values = rope
        .get("divisors")
        .and_then(Value::as_array)
        .ok_or(ConfigError::Missing(FIELD))?;
    let number = |v: &Value| {
        v.as_f64()
            .map(|x| x as f32)
            .ok_or_else(|| invalid(FIELD, shorten(v), "numbers"))
    };
    values.iter().map(number).collect()
}

fn rope_scaling_json(scaling: &RopeScaling) -> Value {
    match scaling {
        RopeScaling::Linear { factor } => json!({ "rope_type": "linear", "factor": factor }),
        RopeScaling::Llama3 {
            factor,
            low_freq_factor,
            high_freq_factor,
            original_max_position_embeddings,
        } => json!({
            "rope_type": "llama3", "factor": factor, "low_freq_factor": low_freq_factor,
            "high_freq_factor": high_freq_factor, "original_max_position_embeddings": original_max_position_embeddings,
        }),
        RopeScaling::Yarn {
            factor,
            original_max_position_embeddings,
            beta_fast,
            beta_slow,
            attention_factor,
            truncate,
        } => json!({
            "rope_type": "yarn", "factor": factor, "original_max_position_embeddings": original_max_position_embeddings,
            "beta_fast": beta_fast, "beta_slow": beta_slow, "attention_factor": attention_factor, "truncate": truncate,
        }),
        // transformers has no such rope; only a file that came from GGUF has it.
        RopeScaling::Divisors(divisors) => json!({ "rope_type": "divisors", "divisors": divisors }),
    }
}

fn refuse_unsupported(map: &Map<String, Value>) -> Result<(), ConfigError> {
    if let Some(value) = map.get("quantization_config").filter(|v| !v.is_null()) {
        let remedy = "use the original bf16 checkpoint, or a GGUF file";
        return Err(unsupported("quantization_config", value, remedy));
    }
    if let Some(act) = map.get("hidden_act").filter(|v| v.as_str() != Some("silu")) {
        return Err(unsupported("hidden_act", act, "only silu is computed"));
    }
    Ok(())
}

/// An unknown key that is nearly one of the optional fields is a typo, and its default would be used instead.
fn refuse_misspelt(map: &Map<String, Value>) -> Result<(), ConfigError> {
    for key in map
        .keys()
        .filter(|k| k.len() < 64 && !OPTIONAL_FIELDS.contains(&k.as_str()))
    {
        if let Some(field) = OPTIONAL_FIELDS
            .into_iter()
            .find(|field| edit_distance(key, field) <= 2)
        {
            return Err(invalid(
                field,
                format_args!("absent, but there is `{key}`"),
                "the right spelling",
            ));
        }
    }
    Ok(())
}

/// Insertions, deletions and substitutions of bytes between two short strings.
fn edit_distance(a: &str, b: &str) -> usize {
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.bytes().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, y) in b.bytes().enumerate() {
            let substitute = diagonal + usize::from(x != y);
            diagonal = row[j + 1];
            row[j + 1] = substitute.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[b.len()]
}

fn unsupported(field: &'static str, found: &Value, remedy: &'static str) -> ConfigError {
    ConfigError::Unsupported {
        field,
        found: shorten(found),
        remedy,
    }
}

fn require<T>(value: Option<T>, field: &'static str) -> Result<T, ConfigError> {
    value.ok_or(ConfigError::Missing(field))
}

/// A whole number, `None` if absent or null.
fn size(map: &Map<String, Value>, field: &'static str) -> Result<Option<usize>, ConfigError> {
    let Some(value) = map.get(field).filter(|v| !v.is_null()) else {
        return Ok(None);
    };
    let whole = value.as_u64().and_then(|n| usize::try_from(n).ok());
    whole
        .map(Some)
        .ok_or_else(|| invalid(field, shorten(value), "a whole number that is not negative"))
}

fn number(map: &Map<String, Value>, field: &'static str) -> Result<Option<f64>, ConfigError> {
    let Some(value) = map.get(field).filter(|v| !v.is_null()) else {
        return Ok(None);
    };
    value
        .as_f64()
        .map(Some)
        .ok_or_else(|| invalid(field, shorten(value), "a number"))
}

fn flag(map: &Map<String, Value>, field: &'static str) -> Result<Option<bool>, ConfigError> {
    let Some(value) = map.get(field).filter(|v| !v.is_null()) else {
        return Ok(None);
    };
    value
        .as_bool()
        .map(Some)
        .ok_or_else(|| invalid(field, shorten(value), "true or false"))
}

/// The f64 with the shortest decimal that reads back as this f32: 1e-6, not 9.999999974752427e-7.
fn shortest(x: f32) -> f64 {
    x.to_string()
        .parse()
        .expect("a finite f32 prints as a number")
}
