//! What a run's answers are a function of, as `run.json` records it.
//!
//! Every record has a name for each setting and leaves out those at their defaults. So a program with one more setting still knows the
//! records of an older one: what they do not name is at its default. A setting that is renamed, or a default that is changed, makes old
//! records those of another run, as it should.

use edgethink_engine::Sampling;
use edgethink_reason::{Aggregate, EarlyStop, Grammar, Input, MinThink, Query, Scoring};
use edgethink_reason::{Think, ThoughtFormat};
use serde_json::{Map, Value, json};

use crate::args::model::{AdapterWeightsArg, FormatArgs, KvArg, WeightsArg};

/// Everything of a query but its prompt and its seed, which the run counts up.
pub(crate) fn of_query(query: &Query) -> Value {
    let plain = Query::greedy(Input::Raw(String::new()), query.think);
    let mut map = other_than(named(query), &named(&plain));
    let think = match query.think {
        Think::On => "on",
        Think::Off => "off",
        Think::Auto => "auto",
    };
    map.insert("think".to_owned(), json!(think));
    Value::Object(map)
}

/// How the model was taught to think.
pub(crate) fn of_format(format: &ThoughtFormat) -> Value {
    let named = |format: &ThoughtFormat| {
        let ThoughtFormat {
            tags,
            closing,
            budget_line,
            budgets,
        } = format;
        object(json!({
            "open": tags.open,
            "close": tags.close,
            "closing": closing,
            "budget_line": budget_line,
            "budgets": budgets,
        }))
    };
    Value::Object(other_than(named(format), &named(&ThoughtFormat::default())))
}

/// How weights, adapters and keys are held in memory, and the instruction set if one is asked for.
pub(crate) fn of_engine(format: &FormatArgs) -> Value {
    let FormatArgs {
        weights,
        adapter_weights,
        kv,
        isa,
    } = format;
    let mut settings = json!({
        "weights": match weights {
            WeightsArg::Stored => "stored",
            WeightsArg::Q8 => "q8",
            WeightsArg::Q4 => "q4",
        },
        "adapter_weights": match adapter_weights {
            AdapterWeightsArg::Stored => "stored",
            AdapterWeightsArg::Q8 => "q8",
        },
        "kv": match kv {
            KvArg::Int8 => "int8",
            KvArg::F16 => "f16",
            KvArg::F32 => "f32",
        },
    });
    if let Some(isa) = isa {
        settings["isa"] = json!(isa.to_string());
    }
    settings
}

/// All settings by name. The pattern names every field, so that a new one cannot be forgotten here.
fn named(query: &Query) -> Map<String, Value> {
    let Query {
        input: _,
        think: _,
        adapter,
        template,
        grammar,
        n,
        scale_n,
        scoring,
        vote,
        early_stop,
        waves,
        sampling,
        seed,
        max_tokens,
        budget,
        named_budget,
        answer_reserve,
        min_think,
        stop_loops,
        stop,
        ignore_eos,
        top_logprobs,
        drawn_logprobs,
        whole,
    } = query;
    let min_think = min_think.as_ref().map(|min| {
        let MinThink {
            tokens,
            continuation,
            times,
        } = min;
        json!({"tokens": tokens, "continuation": continuation, "times": times})
    });
    let mut map = object(json!({
        "adapter": adapter,
        "template": template,
        "grammar": grammar.as_ref().map(|grammar| match grammar {
            Grammar::JsonObject => json!("json_object"),
            Grammar::JsonSchema(schema) => schema.clone(),
        }),
        "n": n,
        "scale_n": scale_n,
        "scoring": match scoring {
            Scoring::Off => "off",
            Scoring::Verifier => "verifier",
            Scoring::GenRm => "genrm",
        },
        "vote": vote.map(Aggregate::as_str),
        "early_stop": early_stop.map(|stop| match stop {
            EarlyStop::Exact => json!("exact"),
            EarlyStop::Confidence(wanted) => json!({"confidence": wanted}),
        }),
        "waves": waves,
        "seed": seed,
        "max_tokens": max_tokens,
        "budget": budget,
        "named_budget": named_budget,
        "answer_reserve": answer_reserve,
        "min_think": min_think,
        "stop_loops": stop_loops,
        "stop": stop,
        "ignore_eos": ignore_eos,
        "top_logprobs": top_logprobs,
        "drawn_logprobs": drawn_logprobs,
        "whole": whole,
    }));
    map.extend(drawing(sampling));
    map
}

fn drawing(sampling: &Sampling) -> Map<String, Value> {
    let Sampling {
        temperature,
        top_k,
        top_p,
        min_p,
        repetition_penalty,
        presence_penalty,
        frequency_penalty,
        logit_bias,
    } = sampling;
    let biases = logit_bias
        .iter()
        .map(|&(token, bias)| json!([token, number(bias)]));
    object(json!({
        "temperature": number(*temperature),
        "top_k": top_k,
        "top_p": number(*top_p),
        "min_p": number(*min_p),
        "repetition_penalty": number(*repetition_penalty),
        "presence_penalty": number(*presence_penalty),
        "frequency_penalty": number(*frequency_penalty),
        "logit_bias": biases.collect::<Vec<_>>(),
    }))
}

/// A float as its shortest decimal, so that 0.6 is 0.6 when it is read again; what is no number, as a text.
fn number(x: f32) -> Value {
    let text = x.to_string();
    match text.parse::<f64>() {
        Ok(x) if x.is_finite() => json!(x),
        _ => json!(text),
    }
}

/// What differs from `plain`.
fn other_than(mut map: Map<String, Value>, plain: &Map<String, Value>) -> Map<String, Value> {
    map.retain(|name, value| plain.get(name) != Some(value));
    map
}

/// The map of a `json!({...})`.
pub(crate) fn object(value: Value) -> Map<String, Value> {
    match value {
        Value::Object(map) => map,
        _ => Map::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use edgethink_eval::EvalError;
    use edgethink_eval::store::{Keep, Store};

    fn query() -> Query {
        Query::greedy(Input::Raw("a prompt".to_owned()), Think::Auto)
    }

    #[test]
    fn a_default_is_not_named_and_everything_else_is() {
        assert_eq!(of_query(&query()), json!({"think": "auto"}));
        let changed = Query {
            n: 3,
            scoring: Scoring::Verifier,
            vote: Some(Aggregate::Weighted),
            early_stop: Some(EarlyStop::Exact),
            budget: Some(256),
            min_think: Some(MinThink::new(8)),
            sampling: Sampling {
                temperature: 0.6,
                top_p: 0.95,
                logit_bias: vec![(7, f32::NEG_INFINITY), (8, 1.5)],
                ..Sampling::greedy()
            },
            ..query()
        };
        let want = json!({
            "think": "auto",
            "n": 3,
            "scoring": "verifier",
            "vote": "weighted",
            "early_stop": "exact",
            "budget": 256,
            "min_think": {"tokens": 8, "continuation": "Wait", "times": 6},
            "temperature": 0.6,
            "top_p": 0.95,
            "logit_bias": [[7, "-inf"], [8, 1.5]],
        });
        assert_eq!(of_query(&changed), want);
        let again: Value = serde_json::from_str(&want.to_string()).expect("JSON");
        assert_eq!(of_query(&changed), again, "as it is read from the file");
    }

    #[test]
    fn the_prompt_is_not_part_of_it() {
        let other = Query {
            input: Input::Raw("another".to_owned()),
            ..query()
        };
        assert_eq!(of_query(&query()), of_query(&other));
        assert_eq!(of_format(&ThoughtFormat::default()), json!({}));
        let closing = ThoughtFormat {
            closing: "</think>".to_owned(),
            ..ThoughtFormat::default()
        };
        assert_eq!(of_format(&closing), json!({"closing": "</think>"}));
    }

    /// A record of a program that knew fewer settings is of this run where the new ones are at their defaults, and of another one where
    /// they are not.
    #[test]
    fn an_older_record_with_fewer_settings_matches() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let old = json!({"asked": {"think": "auto", "temperature": 0.6, "top_p": 0.95}});
        let file = json!({"settings": old, "sessions": []});
        std::fs::write(dir.path().join("run.json"), file.to_string()).expect("written");
        let query = Query {
            sampling: Sampling {
                temperature: 0.6,
                top_p: 0.95,
                ..Sampling::greedy()
            },
            ..query()
        };
        let open = |query: &Query| -> Result<Store, EvalError> {
            let settings = object(json!({"asked": of_query(query)}));
            Store::open(Some(dir.path()), settings, Keep::Compact, false)
        };
        open(&query).expect("the same run");
        let waves = Query {
            waves: true,
            ..query
        };
        let error = open(&waves).expect_err("another run").to_string();
        assert!(error.contains("asked"), "{error}");
    }
}
