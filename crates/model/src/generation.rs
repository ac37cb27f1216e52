//! `generation_config.json`: the tokens that end an answer, and the sampling that the model's makers advise.

use std::path::Path;

use serde_json::{Map, Value};

use crate::LoadError;
use crate::json::{JsonError, parse_object_bytes};

/// Defaults for generation. `None` where the file says nothing.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct GenerationConfig {
    /// Any of these ends a sequence.
    pub eos_token_ids: Vec<u32>,
    /// Beginning of a text.
    pub bos_token_id: Option<u32>,
    /// Padding.
    pub pad_token_id: Option<u32>,
    /// False: greedy.
    pub do_sample: Option<bool>,
    /// Sampling temperature.
    pub temperature: Option<f32>,
    /// Nucleus: the smallest set with this probability.
    pub top_p: Option<f32>,
    /// The k most likely tokens; 0 is all.
    pub top_k: Option<u32>,
    /// Tokens less likely than this share of the most likely one are left out.
    pub min_p: Option<f32>,
    /// Divides the logits of tokens that occurred; 1 is none.
    pub repetition_penalty: Option<f32>,
}

impl GenerationConfig {
    /// Reads the text of a generation_config.json or config.json (which holds the same token ids).
    ///
    /// # Errors
    /// [`LoadError`] with `path` for bad JSON or a field of the wrong kind.
    pub fn from_json(text: &[u8], path: &Path) -> Result<Self, LoadError> {
        let json = |source: JsonError| LoadError::Json {
            path: path.to_path_buf(),
            source,
        };
        let map = parse_object_bytes(text).map_err(json)?;
        let fields = Fields { map: &map, path };
        Ok(Self {
            eos_token_ids: fields.ids("eos_token_id")?,
            bos_token_id: fields.ids("bos_token_id")?.first().copied(),
            pad_token_id: fields.ids("pad_token_id")?.first().copied(),
            do_sample: fields.get("do_sample", "true or false", Value::as_bool)?,
            temperature: fields.number("temperature")?,
            top_p: fields.number("top_p")?,
            top_k: fields.get("top_k", "a whole number", |v| {
                v.as_u64().and_then(|k| u32::try_from(k).ok())
            })?,
            min_p: fields.number("min_p")?,
            repetition_penalty: fields.number("repetition_penalty")?,
        })
    }

    /// Takes what `other` has and this one lacks.
    pub fn or(mut self, other: Self) -> Self {
        if self.eos_token_ids.is_empty() {
            self.eos_token_ids = other.eos_token_ids;
        }
        self.bos_token_id = self.bos_token_id.or(other.bos_token_id);
        self.pad_token_id = self.pad_token_id.or(other.pad_token_id);
        self.do_sample = self.do_sample.or(other.do_sample);
        self.temperature = self.temperature.or(other.temperature);
        self.top_p = self.top_p.or(other.top_p);
        self.top_k = self.top_k.or(other.top_k);
        self.min_p = self.min_p.or(other.min_p);
        self.repetition_penalty = self.repetition_penalty.or(other.repetition_penalty);
        self
    }
}

struct Fields<'a> {
    map: &'a Map<String, Value>,
    path: &'a Path,
}

impl Fields<'_> {
    fn get<T>(
        &self,
        field: &str,
        expected: &'static str,
        read: impl Fn(&Value) -> Option<T>,
    ) -> Result<Option<T>, LoadError> {
        let Some(value) = self.map.get(field).filter(|v| !v.is_null()) else {
            return Ok(None);
        };
        let wrong = || LoadError::Field {
            path: self.path.to_path_buf(),
            field: field.to_owned(),
            expected,
        };
        read(value).map(Some).ok_or_else(wrong)
    }

    fn number(&self, field: &str) -> Result<Option<f32>, LoadError> {
        let finite = |v: &Value| v.as_f64().map(|x| x as f32).filter(|x| x.is_finite());
        self.get(field, "a finite number", finite)
    }

    /// One id or a list of ids.
    fn ids(&self, field: &str) -> Result<Vec<u32>, LoadError> {
        let id = |v: &Value| v.as_u64().and_then(|id| u32::try_from(id).ok());
        let ids = |v: &Value| match v {
            Value::Array(list) => list.iter().map(id).collect(),
            one => id(one).map(|id| vec![id]),
        };
        Ok(self
            .get(field, "a token id or a list of them", ids)?
            .unwrap_or_default())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<GenerationConfig, LoadError> {
        GenerationConfig::from_json(text.as_bytes(), Path::new("generation_config.json"))
    }

    #[test]
    fn one_or_many_ends() {
        let many = read(r#"{"eos_token_id":[151645,151643],"temperature":0.7,"top_k":20,"repetition_penalty":1.1}"#).unwrap();
        assert_eq!(many.eos_token_ids, [151645, 151643]);
        assert_eq!(
            (many.temperature, many.top_k, many.repetition_penalty),
            (Some(0.7), Some(20), Some(1.1))
        );
        let one = read(r#"{"eos_token_id":2,"bos_token_id":1,"top_p":null}"#).unwrap();
        assert_eq!(
            (one.eos_token_ids.clone(), one.bos_token_id, one.top_p),
            (vec![2], Some(1), None)
        );
        assert_eq!(many.clone().or(one).bos_token_id, Some(1));
    }

    #[test]
    fn wrong_kinds_are_named() {
        for text in [
            r#"{"eos_token_id":-1}"#,
            r#"{"eos_token_id":["a"]}"#,
            r#"{"eos_token_id":4294967296}"#,
        ] {
            let message = read(text).unwrap_err().to_string();
            assert!(message.contains("eos_token_id"), "{message}");
        }
        assert!(
            read(r#"{"temperature":"hot"}"#)
                .unwrap_err()
                .to_string()
                .contains("temperature")
        );
        assert!(read(r#"{"top_k":1,"top_k":2}"#).is_err());
    }
}
