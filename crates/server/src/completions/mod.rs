//! `POST /v1/completions`: a raw text, or a list of tokens, goes on. The base answers, or the adapter that `model` names, without template
//! and without telling a thought apart.

pub(crate) mod types;

use std::collections::BTreeMap;

use axum::Json;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use edgethink_reason::{Choice, Event, Input, Think, TokenLogprob};

use crate::app::App;
use crate::ask::{Ask, Named, Prepared, Thinking};
use crate::chat::convert::finish_word;
use crate::error::{ApiError, ErrorBody};
use crate::extract::Body;
use crate::sse::{self, Chunks, Frame};
use crate::wire::{Asked, LlamaTimings, Usage};
use crate::worker::handle::Outcome;
use types::{
    CompletionChoice, CompletionLogprobs, CompletionRequest, CompletionResponse, LogprobsMode,
    Prompt,
};

/// OpenAI's default.
const DEFAULT_TOKENS: i64 = 16;

/// Goes on with a text.
#[utoipa::path(
    post,
    path = "/v1/completions",
    tag = "OpenAI",
    request_body = CompletionRequest,
    responses(
        (status = 200, description = "The reply, or its pieces", content((CompletionResponse = "application/json"), (CompletionResponse = "text/event-stream"))),
        (status = 400, description = "A field is wrong, and is named", body = ErrorBody),
        (status = 404, description = "No such model", body = ErrorBody),
        (status = 503, description = "Too many requests wait, or the server is shutting down", body = ErrorBody),
    )
)]
pub(crate) async fn create(
    State(app): State<App>,
    Body(request): Body<CompletionRequest>,
) -> Result<Response, ApiError> {
    let streams = request.stream.unwrap_or(false);
    if request.stream_options.is_some() && !streams {
        let message = "stream_options needs stream to be true";
        return Err(ApiError::bad("stream_options", message));
    }
    let options = request.stream_options.as_ref();
    let include_usage = options.and_then(|it| it.include_usage).unwrap_or(false);
    let vocab_size = app.facts.vocab_size;
    let (logprobs, token_ids) = (request.logprobs.is_some(), request.return_token_ids);
    let token_ids = token_ids.unwrap_or(false);
    let ask = request.into_ask(vocab_size)?;
    let Prepared {
        query,
        prompt,
        blocks,
        asked,
    } = app.prepare(ask).await.map_err(about_the_prompt)?;
    let ticket = app.submit(query, blocks).await.map_err(about_the_prompt)?;
    let stream = CompletionStream {
        id: format!("cmpl-{}", ticket.id),
        created: crate::now(),
        app,
        asked,
        include_usage,
        shown: Shown {
            logprobs,
            token_ids: token_ids.then_some(prompt),
        },
        waiting: BTreeMap::new(),
    };
    if streams {
        return Ok(sse::respond(ticket, stream));
    }
    let outcome = ticket.outcome().await?;
    let choices = outcome.answer.choices.iter();
    let choices = choices.map(|it| stream.choice(it)).collect();
    Ok(Json(stream.whole(choices, &outcome)).into_response())
}

/// The prompt is the field that other APIs call messages.
fn about_the_prompt(mut error: ApiError) -> ApiError {
    if error.param.as_deref() == Some("messages") {
        error.param = Some("prompt".to_owned());
    }
    error
}

impl CompletionRequest {
    fn into_ask(self, vocab_size: usize) -> Result<Ask, ApiError> {
        let input = self.prompt.into_input(vocab_size)?;
        // Of a streamed reply the tokens come with their log-probabilities.
        let ids = self.return_token_ids.unwrap_or(false);
        let logprobs = self
            .logprobs
            .or((ids && self.stream == Some(true)).then_some(0));
        let tokens = self.max_tokens.unwrap_or(DEFAULT_TOKENS);
        Ok(Ask {
            thinking: Thinking {
                think: Named::of("prompt", Some(Think::Off)),
                ..Thinking::default()
            },
            n: self.n,
            seed: self.seed,
            max_tokens: Named::of("max_tokens", Some(tokens)),
            stop: self.stop.map(|stop| stop.0).unwrap_or_default(),
            temperature: self.temperature,
            top_p: self.top_p,
            top_k: self.top_k,
            min_p: self.min_p,
            presence_penalty: self.presence_penalty,
            frequency_penalty: self.frequency_penalty,
            repetition_penalty: self.repetition_penalty,
            logit_bias: self.logit_bias.unwrap_or_default(),
            ignore_eos: self.ignore_eos.unwrap_or(false),
            top_logprobs: Named::of("logprobs", logprobs),
            drawn_logprobs: self.logprobs_mode == Some(LogprobsMode::ProcessedLogprobs),
            whole: true,
            ..Ask::new(self.model, input)
        })
    }
}

impl Prompt {
    fn into_input(self, vocab_size: usize) -> Result<Input, ApiError> {
        let (mut texts, mut lists) = match self {
            Self::Text(text) => (vec![text], Vec::new()),
            Self::Texts(texts) => (texts, Vec::new()),
            Self::Tokens(tokens) => (Vec::new(), vec![tokens]),
            Self::Lists(lists) => (Vec::new(), lists),
        };
        if texts.len() + lists.len() > 1 {
            let message = "give one text; ask for several with several requests";
            return Err(ApiError::unsupported("prompt", message));
        }
        let text = texts.pop().filter(|text| !text.is_empty());
        let tokens = lists.pop().filter(|tokens| !tokens.is_empty());
        match (text, tokens) {
            (Some(text), _) => Ok(Input::Raw(text)),
            (None, Some(tokens)) => {
                if let Some(at) = tokens.iter().position(|&id| id as usize >= vocab_size) {
                    let message = format!("the vocabulary has {vocab_size} tokens");
                    return Err(ApiError::bad(format!("prompt[{at}]"), message));
                }
                Ok(Input::Tokens(tokens))
            }
            (None, None) => Err(ApiError::bad("prompt", "the prompt is empty")),
        }
    }
}

/// What of the tokens a reply tells.
#[derive(Debug)]
struct Shown {
    logprobs: bool,
    /// Their ids; the prompt's.
    token_ids: Option<Vec<u32>>,
}

/// Tokens of a choice that are not sent yet, and where its next token begins.
#[derive(Debug, Default)]
struct Waiting {
    ids: Vec<u32>,
    logprobs: CompletionLogprobs,
    offset: usize,
    /// A piece was sent: the prompt's ids are known.
    begun: bool,
}

impl Waiting {
    /// Appends a token; one that ends the text is no part of it, unless ids are asked for.
    fn push(&mut self, app: &App, one: &TokenLogprob, shown: &Shown) {
        let ends = app.ends_turn(one.token);
        if ends && shown.token_ids.is_none() {
            return;
        }
        self.ids.push(one.token);
        if !shown.logprobs {
            return;
        }
        let top = one.top.iter();
        let top = top.map(|(_, text, logp)| (text.clone(), *logp)).collect();
        self.logprobs.tokens.push(one.text.clone());
        self.logprobs.token_logprobs.push(one.logp);
        self.logprobs.top_logprobs.push(top);
        self.logprobs.text_offset.push(self.offset);
        if !ends {
            self.offset += one.text.chars().count();
        }
    }

    /// A piece with what waits.
    fn piece(&mut self, index: usize, text: String, shown: &Shown) -> CompletionChoice {
        let first = !std::mem::replace(&mut self.begun, true);
        let ids = std::mem::take(&mut self.ids);
        let logprobs = std::mem::take(&mut self.logprobs);
        CompletionChoice {
            index,
            text,
            logprobs: (!logprobs.tokens.is_empty()).then_some(logprobs),
            finish_reason: None,
            prompt_token_ids: shown.token_ids.clone().filter(|_| first),
            token_ids: shown.token_ids.is_some().then_some(ids),
        }
    }
}

/// One reply, streamed or whole.
#[derive(Debug)]
struct CompletionStream {
    app: App,
    id: String,
    created: u64,
    asked: Asked,
    include_usage: bool,
    shown: Shown,
    /// Of each choice, what waits for its next text.
    waiting: BTreeMap<usize, Waiting>,
}

impl CompletionStream {
    fn choice(&self, choice: &Choice) -> CompletionChoice {
        let logprobs = choice.logprobs.as_ref().map(|all| {
            let mut state = Waiting::default();
            for one in all {
                state.push(&self.app, one, &self.shown);
            }
            state.logprobs
        });
        let ids = &self.shown.token_ids;
        CompletionChoice {
            index: choice.index,
            text: choice.text.clone(),
            logprobs,
            finish_reason: Some(finish_word(choice.finish_reason, false)),
            prompt_token_ids: ids.clone(),
            token_ids: ids.is_some().then(|| choice.token_ids.clone()),
        }
    }

    fn piece(&self, choices: Vec<CompletionChoice>) -> CompletionResponse {
        CompletionResponse {
            id: self.id.clone(),
            object: "text_completion",
            created: self.created,
            model: self.asked.model.clone(),
            choices,
            usage: None,
            timings: None,
            edgethink: None,
        }
    }

    /// A reply with its counts.
    fn whole(&self, choices: Vec<CompletionChoice>, outcome: &Outcome) -> CompletionResponse {
        CompletionResponse {
            usage: Some(Usage::from(&outcome.answer.usage)),
            timings: Some(LlamaTimings::from(&outcome.answer)),
            edgethink: Some(self.app.summary(outcome, &self.asked)),
            ..self.piece(choices)
        }
    }
}

impl Chunks for CompletionStream {
    fn event(&mut self, event: Event, out: &mut Vec<Frame>) {
        let (index, text, finish_reason) = match event {
            Event::Logprob { stream, logprob } => {
                let state = self.waiting.entry(stream).or_default();
                state.push(&self.app, &logprob, &self.shown);
                return;
            }
            Event::Content { stream, text } => (stream, text, None),
            Event::StreamFinished { stream, reason } => {
                (stream, String::new(), Some(finish_word(reason, false)))
            }
            _ => return,
        };
        let waiting = self.waiting.entry(index).or_default();
        let choice = CompletionChoice {
            finish_reason,
            ..waiting.piece(index, text, &self.shown)
        };
        out.push(Frame::data(&self.piece(vec![choice])));
    }

    fn done(&mut self, outcome: &Outcome, out: &mut Vec<Frame>) {
        if self.include_usage {
            out.push(Frame::data(&self.whole(Vec::new(), outcome)));
        }
        out.push(Frame::text("[DONE]"));
    }

    fn failed(&mut self, error: &ApiError, out: &mut Vec<Frame>) {
        out.push(Frame::data(&error.body()));
        out.push(Frame::text("[DONE]"));
    }
}
