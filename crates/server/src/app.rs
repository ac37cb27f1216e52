//! What every handler shares: the worker's handle, the model for its tokenizer and template, the names, the limits, the metrics.

use std::ops::Deref;
use std::sync::{Arc, OnceLock, PoisonError, RwLock};

use edgethink_model::Model;
use edgethink_model::tokenizer::Tokenizer;
use edgethink_reason::{Query, Reasoner, ThoughtFormat};

use crate::error::ApiError;
use crate::metrics::Metrics;
use crate::options::Options;
use crate::worker::handle::Handle;

/// The server's state. Cloning shares it.
#[derive(Debug, Clone)]
pub(crate) struct App(Arc<Inner>);

/// See [`App`].
#[derive(Debug)]
pub(crate) struct Inner {
    pub(crate) options: Options,
    pub(crate) model: Arc<Model>,
    /// What a request leaves open.
    pub(crate) defaults: Query,
    pub(crate) worker: Handle,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) facts: Facts,
    adapters: RwLock<Vec<LoadedAdapter>>,
    /// The bytes of each token, `[ids]`; made when they are first asked for.
    token_bytes: OnceLock<Vec<Vec<u8>>>,
    /// Seconds since 1970 when the server started: when its models were made, for OpenAI's clients.
    pub(crate) started: u64,
}

/// What does not change while the server runs.
#[derive(Debug, Clone)]
pub(crate) struct Facts {
    pub(crate) context_tokens: usize,
    pub(crate) vocab_size: usize,
    pub(crate) blocks_total: usize,
    pub(crate) block_tokens: usize,
    pub(crate) block_bytes: usize,
    pub(crate) threads: usize,
    pub(crate) isa: String,
    pub(crate) weights: &'static str,
    pub(crate) adapter_weights: &'static str,
    pub(crate) parameters: usize,
    /// The switcher's threshold, if there is one.
    pub(crate) threshold: Option<f32>,
    pub(crate) verifier: bool,
    /// How the base writes its thoughts.
    pub(crate) format: ThoughtFormat,
}

/// An adapter under its name.
#[derive(Debug, Clone)]
pub(crate) struct LoadedAdapter {
    pub(crate) name: String,
    pub(crate) masked: bool,
    pub(crate) rank: usize,
    pub(crate) format: ThoughtFormat,
    /// It came with the model: a query that names no adapter gets it.
    pub(crate) own: bool,
}

/// What a model name stands for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Target {
    /// The name as it was given, for the reply.
    pub(crate) name: String,
    /// The adapter it names; `None` for the base.
    pub(crate) adapter: Option<String>,
}

impl Deref for App {
    type Target = Inner;

    fn deref(&self) -> &Inner {
        &self.0
    }
}

impl Facts {
    /// Of a reasoner that is not at work yet.
    pub(crate) fn of(reasoner: &Reasoner) -> Self {
        use edgethink_engine::{AdapterFormat, WeightFormat};
        let engine = reasoner.engine();
        let stats = engine.stats();
        let block_tokens = edgethink_engine::block_pool::BLOCK_TOKENS;
        Self {
            context_tokens: engine.context_tokens(),
            vocab_size: reasoner.model().config.vocab_size,
            blocks_total: stats.blocks_total,
            block_tokens,
            block_bytes: stats.kv_bytes_per_token * block_tokens,
            threads: engine.options().threads,
            isa: engine.options().isa.to_string(),
            weights: match engine.options().weights {
                WeightFormat::Stored => "stored",
                WeightFormat::Q8 => "q8",
                WeightFormat::Q4 => "q4",
            },
            adapter_weights: match engine.options().adapters {
                AdapterFormat::Stored => "stored",
                AdapterFormat::Q8 => "q8",
            },
            parameters: reasoner.model().config.parameters(),
            threshold: reasoner.switcher().map(|switcher| switcher.threshold()),
            verifier: reasoner.verifier().is_some(),
            format: reasoner.format().clone(),
        }
    }
}

impl App {
    pub(crate) fn new(
        options: Options,
        model: Arc<Model>,
        defaults: Query,
        worker: Handle,
        metrics: Arc<Metrics>,
        facts: Facts,
        adapter: Option<LoadedAdapter>,
    ) -> Self {
        Self(Arc::new(Inner {
            options,
            model,
            defaults,
            worker,
            metrics,
            facts,
            adapters: RwLock::new(adapter.into_iter().collect()),
            token_bytes: OnceLock::new(),
            started: crate::now(),
        }))
    }

    /// The adapters that are loaded now.
    pub(crate) fn adapters(&self) -> Vec<LoadedAdapter> {
        let adapters = self.adapters.read().unwrap_or_else(PoisonError::into_inner);
        adapters.clone()
    }

    /// Changes the list of adapters.
    pub(crate) fn with_adapters<T>(&self, change: impl FnOnce(&mut Vec<LoadedAdapter>) -> T) -> T {
        change(
            &mut self
                .adapters
                .write()
                .unwrap_or_else(PoisonError::into_inner),
        )
    }

    /// The bytes of a token whose text is `text`.
    pub(crate) fn token_bytes(&self, token: u32, text: &str) -> Vec<u8> {
        let table = self.token_bytes.get_or_init(|| {
            let bytes = self.model.tokenizer.as_ref().map(Tokenizer::token_bytes);
            // A decoder that cannot be read leaves the texts.
            bytes.and_then(Result::ok).unwrap_or_default()
        });
        match table.get(token as usize) {
            Some(bytes) if !bytes.is_empty() => bytes.clone(),
            _ => text.as_bytes().to_vec(),
        }
    }

    /// Whether the model ends its turn with this token.
    pub(crate) fn ends_turn(&self, token: u32) -> bool {
        self.model.generation.eos_token_ids.contains(&token)
    }

    /// What `name` stands for; no name is the base.
    ///
    /// # Errors
    /// 404 for a name that is not known.
    pub(crate) fn resolve(&self, name: Option<&str>) -> Result<Target, ApiError> {
        let options = &self.options;
        let Some(given) = name else {
            return Ok(Target {
                name: options.model.clone(),
                adapter: None,
            });
        };
        let alias = options.aliases.iter().find(|(alias, _)| alias == given);
        let meant = alias.map_or(given, |(_, meant)| meant);
        let adapter = if meant == options.model {
            None
        } else {
            Some(self.adapter(meant).map_err(|_| unknown_model(given))?.name)
        };
        Ok(Target {
            name: given.to_owned(),
            adapter,
        })
    }

    /// The adapter of this name.
    ///
    /// # Errors
    /// 404 for a name that is not known.
    pub(crate) fn adapter(&self, name: &str) -> Result<LoadedAdapter, ApiError> {
        let found = self.adapters().into_iter().find(|it| it.name == name);
        found.ok_or_else(|| {
            let message = format!("there is no adapter {name:?}; GET /v1/models lists them");
            ApiError {
                param: Some("edgethink.adapter".to_owned()),
                ..ApiError::not_found("adapter_not_found", message)
            }
        })
    }
}

fn unknown_model(name: &str) -> ApiError {
    let message = format!("there is no model {name:?}; GET /v1/models lists them");
    ApiError {
        param: Some("model".to_owned()),
        ..ApiError::not_found("model_not_found", message)
    }
}
