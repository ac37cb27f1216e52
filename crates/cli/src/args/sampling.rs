//! Flags that say how tokens are drawn. What is not given comes from the model's generation_config.json.

use clap::Args;

/// Sampling.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Sampling")]
pub(crate) struct SamplingArgs {
    /// 0 takes the most likely token [default: the model's, else 0]
    #[arg(long, value_name = "T", env = "EDGETHINK_TEMPERATURE", value_parser = at_least_zero)]
    pub(crate) temperature: Option<f32>,
    /// Only the K most likely tokens, 0 for all
    #[arg(long, value_name = "K", env = "EDGETHINK_TOP_K")]
    pub(crate) top_k: Option<usize>,
    /// Only the most likely tokens that together reach this probability
    #[arg(long, value_name = "P", env = "EDGETHINK_TOP_P", value_parser = share)]
    pub(crate) top_p: Option<f32>,
    /// Only tokens at least this share as likely as the best one
    #[arg(long, value_name = "P", env = "EDGETHINK_MIN_P", value_parser = share)]
    pub(crate) min_p: Option<f32>,
    /// Divides the logits of tokens seen, 1 changes nothing
    #[arg(long, value_name = "X", env = "EDGETHINK_REPETITION_PENALTY", value_parser = above_zero)]
    pub(crate) repetition_penalty: Option<f32>,
    /// Taken from the logits of tokens the response has
    #[arg(long, value_name = "X", env = "EDGETHINK_PRESENCE_PENALTY", value_parser = finite, allow_hyphen_values = true)]
    pub(crate) presence_penalty: Option<f32>,
    /// The same, times how often it has them
    #[arg(long, value_name = "X", env = "EDGETHINK_FREQUENCY_PENALTY", value_parser = finite, allow_hyphen_values = true)]
    pub(crate) frequency_penalty: Option<f32>,
    /// Added to a token's logit, as ID=X; may be given several times
    #[arg(long, value_name = "ID=X", value_parser = bias)]
    pub(crate) logit_bias: Vec<(u32, f32)>,
    /// The same seed gives the same tokens [default: 0]
    #[arg(
        long,
        short,
        value_name = "SEED",
        default_value_t = 0,
        hide_default_value = true,
        env = "EDGETHINK_SEED"
    )]
    pub(crate) seed: u64,
}

fn number(text: &str) -> Result<f32, String> {
    let value: f32 = text.parse().map_err(|_| format!("{text:?} is no number"))?;
    if value.is_finite() {
        Ok(value)
    } else {
        Err("must be finite".into())
    }
}

fn finite(text: &str) -> Result<f32, String> {
    number(text)
}

fn at_least_zero(text: &str) -> Result<f32, String> {
    number(text).and_then(|x| {
        if x >= 0.0 {
            Ok(x)
        } else {
            Err("must be at least 0".into())
        }
    })
}

fn above_zero(text: &str) -> Result<f32, String> {
    number(text).and_then(|x| {
        if x > 0.0 {
            Ok(x)
        } else {
            Err("must be above 0".into())
        }
    })
}

fn share(text: &str) -> Result<f32, String> {
    number(text).and_then(|x| {
        if (0.0..=1.0).contains(&x) {
            Ok(x)
        } else {
            Err("must be between 0 and 1".into())
        }
    })
}

/// `ID=X` or `ID:X`.
fn bias(text: &str) -> Result<(u32, f32), String> {
    let (id, value) = text
        .split_once(['=', ':'])
        .ok_or_else(|| format!("{text:?} is not of the form ID=X, for example 42=-5"))?;
    let id = id.trim().parse().map_err(|_| {
        format!("{id:?} is no token id; edgethink info shows the vocabulary's size")
    })?;
    Ok((id, number(value.trim())?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_that_mean_nothing_are_refused() {
        assert_eq!(bias("42=-5.5"), Ok((42, -5.5)));
        for text in ["42", "x=1", "1=nan", "1=inf", "-1=2"] {
            assert!(bias(text).is_err(), "{text}");
        }
        assert!(share("1.01").is_err() && share("nan").is_err() && share("0.9").is_ok());
        assert!(at_least_zero("-0.1").is_err() && above_zero("0").is_err());
    }
}
