//! The one place where a request of any API becomes a [`Query`]: ranges, names, the server's defaults and limits.
//!
//! Each API's `convert` fills an [`Ask`] with what its request says; [`App::prepare`] checks the values and asks the tokenizer how
//! long the prompt is, so that nearly everything that can be wrong is found before the request waits for its turn.

use std::collections::BTreeMap;
use std::ops::RangeInclusive;

use edgethink_reason::prompt::encode;
use edgethink_reason::{Effort, Grammar, Input, MinThink, Query, ReasonError, Scoring, Think};
use serde_json::{Map, Value};

use crate::app::{App, Target};
use crate::error::ApiError;
use crate::extension::Extension;
use crate::wire::Asked;
use crate::worker::handle::Ticket;

/// Stop strings of one request.
const MAX_STOPS: usize = 16;
/// Alternatives per token.
const MAX_TOP_LOGPROBS: i64 = 20;
/// What a response without a limit is expected to take, tokens: the queue's guess, no limit.
const EXPECTED_TOKENS: usize = 1024;

/// A value and the field it came from.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Named<T> {
    pub(crate) name: &'static str,
    pub(crate) value: T,
}

impl<T> Named<T> {
    /// The value of a field that may be left out.
    pub(crate) fn of(name: &'static str, value: Option<T>) -> Option<Self> {
        value.map(|value| Self { name, value })
    }
}

/// How much to think, as far as the request says so.
#[derive(Debug, Default)]
pub(crate) struct Thinking {
    /// Auto, on or off; the first that is given counts.
    pub(crate) think: Option<Named<Think>>,
    /// `reasoning_effort`, unless it is `auto`.
    pub(crate) effort: Option<Named<Effort>>,
    /// The budget under all its names; they must agree. -1 is none.
    pub(crate) budgets: Vec<Named<i64>>,
}

/// What a request asks for, in whatever API it came.
#[derive(Debug)]
pub(crate) struct Ask {
    pub(crate) model: Option<String>,
    pub(crate) input: Input,
    /// Variables of the chat template.
    pub(crate) template: Map<String, Value>,
    pub(crate) thinking: Thinking,
    pub(crate) n: Option<i64>,
    pub(crate) seed: Option<i64>,
    pub(crate) max_tokens: Option<Named<i64>>,
    pub(crate) stop: Vec<String>,
    /// Name of the field of the stop strings.
    pub(crate) stop_name: &'static str,
    pub(crate) temperature: Option<f64>,
    pub(crate) top_p: Option<f64>,
    pub(crate) top_k: Option<i64>,
    pub(crate) min_p: Option<f64>,
    pub(crate) presence_penalty: Option<f64>,
    pub(crate) frequency_penalty: Option<f64>,
    pub(crate) repetition_penalty: Option<f64>,
    pub(crate) logit_bias: BTreeMap<String, f64>,
    /// The end of the turn does not end the answer.
    pub(crate) ignore_eos: bool,
    /// Log-probabilities with so many alternatives.
    pub(crate) top_logprobs: Option<Named<i64>>,
    /// Log-probabilities are those of the distribution that tokens are drawn from.
    pub(crate) drawn_logprobs: bool,
    /// A raw text: an adapter that is named goes on with it, without rules about thoughts, votes or scores.
    pub(crate) whole: bool,
    /// The form of the answer.
    pub(crate) grammar: Option<Grammar>,
    pub(crate) extension: Option<Extension>,
}

/// A request that is ready for the worker.
#[derive(Debug)]
pub(crate) struct Prepared {
    pub(crate) query: Query,
    /// The prompt's tokens, `[T]`.
    pub(crate) prompt: Vec<u32>,
    /// KV blocks that it is expected to fill.
    pub(crate) blocks: usize,
    pub(crate) asked: Asked,
}

impl Ask {
    /// A request for `input` that leaves everything else open.
    pub(crate) fn new(model: Option<String>, input: Input) -> Self {
        Self {
            model,
            input,
            template: Map::new(),
            thinking: Thinking::default(),
            n: None,
            seed: None,
            max_tokens: None,
            stop: Vec::new(),
            stop_name: "stop",
            temperature: None,
            top_p: None,
            top_k: None,
            min_p: None,
            presence_penalty: None,
            frequency_penalty: None,
            repetition_penalty: None,
            logit_bias: BTreeMap::new(),
            ignore_eos: false,
            top_logprobs: None,
            drawn_logprobs: false,
            whole: false,
            grammar: None,
            extension: None,
        }
    }

    /// The query, with the server's defaults for what is left open.
    fn into_query(self, app: &App) -> Result<(Query, Asked), ApiError> {
        let Target { name, adapter } = app.resolve(self.model.as_deref())?;
        let extended = self.extension.is_some();
        let extension = self.extension.clone().unwrap_or_default();
        let thinker = match &extension.adapter {
            Some(name) => Some(app.adapter(name)?),
            None => match &adapter {
                Some(name) => Some(app.adapter(name)?),
                None => app.adapters().into_iter().find(|it| it.own),
            },
        };
        let limits = &app.options.limits;
        let n = within("n", self.n.unwrap_or(1), 1..=limits.max_n as i64)? as usize;
        let max_tokens = match self.max_tokens {
            None => app.defaults.max_tokens.or(limits.max_tokens),
            Some(Named { name, value }) => {
                let most = limits.max_tokens.map_or(i64::MAX, |most| most as i64);
                Some(within(name, value, 1..=most)? as usize)
            }
        };
        let own = Some(app.defaults.seed).filter(|&seed| seed != 0);
        let seed = self.seed.map(i64::cast_unsigned).or(own);
        // 53 bits: what JavaScript can give back.
        let seed = seed.unwrap_or_else(|| rand::random::<u64>() >> 11);
        let defaults = Query {
            n,
            seed,
            max_tokens,
            stop: self.stops()?,
            top_logprobs: self.top_logprobs()?,
            ignore_eos: self.ignore_eos,
            drawn_logprobs: self.drawn_logprobs,
            whole: self.whole,
            ..app.defaults.clone()
        };
        let query = self.sampled(defaults, app.facts.vocab_size)?;
        let format = thinker.as_ref().map_or(&app.facts.format, |it| &it.format);
        let named_adapter = adapter.is_some() || extension.adapter.is_some();
        let query = self.thought(query, &extension, named_adapter, &format.budgets)?;
        if query.think == Think::Auto && app.facts.threshold.is_none() {
            let field = self.thinking.think.map_or("edgethink.think", |it| it.name);
            return Err(ApiError::bad(field, ReasonError::NoSwitcher.to_string()));
        }
        let query = voted(query, &extension)?;
        let query = if self.whole && named_adapter {
            by_the_adapter_alone(query)
        } else {
            query
        };
        // The reasoner's own adapter has no name there.
        let named = thinker.as_ref().filter(|it| !it.own);
        let named = named.map(|it| it.name.clone());
        let asked = Asked {
            model: name,
            adapter: thinker.map(|it| it.name),
            seed,
            extended,
        };
        let query = Query {
            input: self.input,
            template: self.template,
            grammar: self.grammar,
            adapter: named,
            ..query
        };
        Ok((query, asked))
    }

    fn stops(&self) -> Result<Vec<String>, ApiError> {
        if self.stop.len() > MAX_STOPS {
            let message = format!("at most {MAX_STOPS} stop strings are taken");
            return Err(ApiError::bad(self.stop_name, message));
        }
        if self.stop.iter().any(String::is_empty) {
            let message = "a stop string is empty; it would end every answer at once";
            return Err(ApiError::bad(self.stop_name, message));
        }
        Ok(self.stop.clone())
    }

    fn top_logprobs(&self) -> Result<Option<usize>, ApiError> {
        let Some(Named { name, value }) = self.top_logprobs else {
            return Ok(None);
        };
        Ok(Some(within(name, value, 0..=MAX_TOP_LOGPROBS)? as usize))
    }

    /// How tokens are drawn.
    fn sampled(&self, mut query: Query, vocab_size: usize) -> Result<Query, ApiError> {
        let sampling = &mut query.sampling;
        let number = |name, value: Option<f64>, range: RangeInclusive<f64>, set: &mut f32| {
            if let Some(value) = value {
                *set = real(name, value, range)?;
            }
            Ok::<(), ApiError>(())
        };
        number(
            "temperature",
            self.temperature,
            0.0..=2.0,
            &mut sampling.temperature,
        )?;
        number("top_p", self.top_p, 1e-6..=1.0, &mut sampling.top_p)?;
        number("min_p", self.min_p, 0.0..=1.0, &mut sampling.min_p)?;
        let signed = -2.0..=2.0;
        let presence = &mut sampling.presence_penalty;
        number(
            "presence_penalty",
            self.presence_penalty,
            signed.clone(),
            presence,
        )?;
        let frequency = &mut sampling.frequency_penalty;
        number(
            "frequency_penalty",
            self.frequency_penalty,
            signed,
            frequency,
        )?;
        let repetition = &mut sampling.repetition_penalty;
        number(
            "repetition_penalty",
            self.repetition_penalty,
            0.01..=10.0,
            repetition,
        )?;
        if let Some(top_k) = self.top_k {
            // -1 is "all" in vLLM's words.
            sampling.top_k = within("top_k", top_k, -1..=i64::from(u32::MAX))?.max(0) as usize;
        }
        for (token, bias) in &self.logit_bias {
            let id = token.parse::<u32>().ok();
            let id = id.filter(|&id| (id as usize) < vocab_size).ok_or_else(|| {
                let message = format!("{token:?} is no token id below {vocab_size}");
                ApiError::bad("logit_bias", message)
            })?;
            sampling
                .logit_bias
                .push((id, real("logit_bias", *bias, -100.0..=100.0)?));
        }
        Ok(query)
    }

    /// Whether and how long to think.
    fn thought(
        &self,
        query: Query,
        extension: &Extension,
        named_adapter: bool,
        budgets: &[usize],
    ) -> Result<Query, ApiError> {
        let Thinking { think, effort, .. } = &self.thinking;
        let from_effort = effort.map(|effort| match effort.value {
            Effort::None => Think::Off,
            _ => Think::On,
        });
        let think = extension
            .think
            .map(Think::from)
            .or(think.map(|think| think.value))
            .or(from_effort)
            // An adapter that is asked for by its name is to be heard.
            .or(named_adapter.then_some(Think::On))
            .unwrap_or(query.think);
        let mut query = Query { think, ..query };
        if let Some(effort) = effort {
            query.budget = effort.value.budget(budgets);
            query.named_budget = query.budget;
        }
        let own = Named::of("edgethink.budget", extension.budget);
        if let Some(budget) = one_budget(own.iter().chain(&self.thinking.budgets))? {
            query.budget = budget;
            query.named_budget = budget;
            let thought_through = own.is_none() && budget == Some(0) && extension.think.is_none();
            if thought_through {
                // Elsewhere a budget of 0 forbids the thought and leaves the answer its length.
                (query.think, query.budget, query.named_budget) = (Think::Off, None, None);
            }
        }
        if let Some(tokens) = extension.min_think {
            let tokens = within("edgethink.min_think", tokens, 0..=1 << 24)? as usize;
            query.min_think = (tokens > 0).then(|| MinThink::new(tokens));
        }
        query.stop_loops = extension.stop_loops.unwrap_or(query.stop_loops);
        Ok(query)
    }
}

/// The budget, if one is given; all that are given must say the same.
fn one_budget<'a>(
    given: impl Iterator<Item = &'a Named<i64>>,
) -> Result<Option<Option<usize>>, ApiError> {
    let mut found: Option<Named<i64>> = None;
    for &next in given {
        within(next.name, next.value, -1..=1 << 40)?;
        match found {
            Some(first) if first.value != next.value => {
                let message = format!(
                    "{} says {} tokens but {} says {}; give one of them",
                    next.name, next.value, first.name, first.value
                );
                return Err(ApiError::bad(next.name, message));
            }
            _ => found = Some(next),
        }
    }
    Ok(found.map(|budget| usize::try_from(budget.value).ok()))
}

/// A raw text that a named adapter goes on with: what the server was started with for thoughts and votes is not meant for it.
fn by_the_adapter_alone(query: Query) -> Query {
    Query {
        think: Think::On,
        scale_n: false,
        scoring: Scoring::Off,
        vote: None,
        early_stop: None,
        waves: false,
        budget: None,
        named_budget: None,
        min_think: None,
        stop_loops: false,
        ..query
    }
}

/// Streams, scores and votes.
fn voted(query: Query, extension: &Extension) -> Result<Query, ApiError> {
    let early_stop = match &extension.early_stop {
        Some(rule) => rule.rule()?,
        None => query.early_stop,
    };
    Ok(Query {
        scale_n: extension.scale_n.unwrap_or(query.scale_n),
        scoring: extension.scoring.map_or(query.scoring, Into::into),
        vote: extension.vote.map_or(query.vote, |vote| vote.aggregate()),
        early_stop,
        waves: extension.waves.unwrap_or(query.waves),
        ..query
    })
}

/// A whole number in its range.
pub(crate) fn within(name: &str, value: i64, range: RangeInclusive<i64>) -> Result<i64, ApiError> {
    if range.contains(&value) {
        return Ok(value);
    }
    let (least, most) = range.into_inner();
    let most = if most == i64::MAX {
        String::new()
    } else {
        format!(" and at most {most}")
    };
    let message = format!("{name} is {value}; it must be at least {least}{most}");
    Err(ApiError::bad(name, message))
}

/// A number in its range.
fn real(name: &str, value: f64, range: RangeInclusive<f64>) -> Result<f32, ApiError> {
    if range.contains(&value) {
        return Ok(value as f32);
    }
    let (least, most) = range.into_inner();
    let message = format!("{name} is {value}; it must be from {least} to {most}");
    Err(ApiError::bad(name, message))
}

impl App {
    /// Turns a request into a query that the reasoner will accept, as far as that can be known here.
    ///
    /// # Errors
    /// 400 with the field, 404 for a model that is not known.
    pub(crate) async fn prepare(&self, ask: Ask) -> Result<Prepared, ApiError> {
        let app = self.clone();
        // Templates and tokenizers take milliseconds for a long prompt; other connections go on meanwhile.
        let work = tokio::task::spawn_blocking(move || {
            let (query, asked) = ask.into_query(&app)?;
            let prompt = app.encoded(&query)?;
            let blocks = app.blocks(&query, prompt.len());
            Ok(Prepared {
                query,
                prompt,
                blocks,
                asked,
            })
        });
        work.await
            .map_err(|_| ApiError::internal("the request could not be prepared"))?
    }

    /// Gives a prepared request to the worker.
    ///
    /// # Errors
    /// 503 if too many wait, or what the reasoner refuses.
    pub(crate) async fn submit(&self, query: Query, blocks: usize) -> Result<Ticket, ApiError> {
        let limits = &self.options.limits;
        self.worker.submit(query, blocks, limits).await
    }

    /// How many tokens the query's prompt has; it must leave room for an answer.
    pub(crate) fn prompt_tokens(&self, query: &Query) -> Result<usize, ApiError> {
        Ok(self.encoded(query)?.len())
    }

    /// The tokens of the query's prompt, `[T]`, which must leave room for an answer.
    fn encoded(&self, query: &Query) -> Result<Vec<u32>, ApiError> {
        // What the switcher may choose later is longer by a few tokens at most.
        let think = if query.think == Think::Auto {
            Think::Off
        } else {
            query.think
        };
        let tags = &self.facts.format.tags;
        let prompt = encode(&self.model, &query.input, think, tags, &query.template)?;
        let (tokens, context) = (prompt.tokens.len(), self.facts.context_tokens);
        if tokens >= context {
            return Err(ReasonError::NoRoom {
                prompt: tokens,
                context,
                left: 0,
                needed: 1,
            }
            .into());
        }
        Ok(prompt.tokens)
    }

    /// KV blocks for a prompt and its streams.
    fn blocks(&self, query: &Query, prompt: usize) -> usize {
        let room = self.facts.context_tokens - prompt;
        let limits = [query.max_tokens, query.budget];
        let stream = limits.into_iter().flatten().min();
        let stream = stream.unwrap_or(EXPECTED_TOKENS).min(room);
        let block = self.facts.block_tokens;
        prompt.div_ceil(block) + query.n * (stream.div_ceil(block) + 1)
    }
}
