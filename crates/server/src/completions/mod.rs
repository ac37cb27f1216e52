//! `POST /v1/completions`: a raw text goes on. The base answers, without template or thought.

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
use types::{CompletionChoice, CompletionLogprobs, CompletionRequest, CompletionResponse};

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
    let ask = request.into_ask()?;
    let Prepared {
        query,
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
        logprobs: BTreeMap::new(),
    };
    if streams {
        return Ok(sse::respond(ticket, stream));
    }
    let outcome = ticket.outcome().await?;
    let choices = outcome.answer.choices.iter();
    let choices = choices.map(|it| choice(&stream.app, it)).collect();
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
    fn into_ask(self) -> Result<Ask, ApiError> {
        let one: Result<[String; 1], _> = self.prompt.0.try_into();
        let Ok([prompt]) = one else {
            let message = "give one text; ask for several with several requests";
            return Err(ApiError::unsupported("prompt", message));
        };
        if prompt.is_empty() {
            return Err(ApiError::bad("prompt", "the prompt is empty"));
        }
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
            top_logprobs: Named::of("logprobs", self.logprobs),
            ..Ask::new(self.model, Input::Raw(prompt))
        })
    }
}

fn choice(app: &App, choice: &Choice) -> CompletionChoice {
    let logprobs = choice.logprobs.as_ref().map(|all| {
        let mut state = LogprobState::default();
        for one in all {
            state.push(app, one);
        }
        state.waiting
    });
    CompletionChoice {
        index: choice.index,
        text: choice.text.clone(),
        logprobs,
        finish_reason: Some(finish_word(choice.finish_reason, false)),
    }
}

/// Log-probabilities of a choice that are not sent yet, and where its next token begins.
#[derive(Debug, Default)]
struct LogprobState {
    waiting: CompletionLogprobs,
    offset: usize,
}

impl LogprobState {
    /// Appends a token; one that ends the text is no part of it.
    fn push(&mut self, app: &App, one: &TokenLogprob) {
        if app.ends_turn(one.token) {
            return;
        }
        let top = one.top.iter();
        let top = top.map(|(_, text, logp)| (text.clone(), *logp)).collect();
        self.waiting.tokens.push(one.text.clone());
        self.waiting.token_logprobs.push(one.logp);
        self.waiting.top_logprobs.push(top);
        self.waiting.text_offset.push(self.offset);
        self.offset += one.text.chars().count();
    }

    /// What waits, unless that is nothing.
    fn take(&mut self) -> Option<CompletionLogprobs> {
        (!self.waiting.tokens.is_empty()).then(|| std::mem::take(&mut self.waiting))
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
    /// Of each choice, what waits for its next text.
    logprobs: BTreeMap<usize, LogprobState>,
}

impl CompletionStream {
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
                let state = self.logprobs.entry(stream).or_default();
                state.push(&self.app, &logprob);
                return;
            }
            Event::Content { stream, text } => (stream, text, None),
            Event::StreamFinished { stream, reason } => {
                (stream, String::new(), Some(finish_word(reason, false)))
            }
            _ => return,
        };
        let state = self.logprobs.get_mut(&index);
        let choice = CompletionChoice {
            index,
            text,
            logprobs: state.and_then(LogprobState::take),
            finish_reason,
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
