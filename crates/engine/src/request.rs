//! What a caller asks of the engine, and what it answers: requests, sampling settings, events.

use std::ops::Range;

use crate::error::RequestError;

/// Index of a token in the vocabulary.
pub type TokenId = u32;

/// Names a request; ids grow in order of submission.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RequestId(pub u64);

/// Names a loaded adapter.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct AdapterId(pub u32);

/// Which tokens an adapter acts on: those at positions `from..until`, prompt and generated. The base encodes the others (METHOD 2).
/// `from = 0` is a plain LoRA, which shares nothing with the base. An `until` lets the base read what the adapter wrote (METHOD 5).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AdapterSpan {
    /// The adapter.
    pub id: AdapterId,
    /// Position of the first token under it.
    pub from: usize,
    /// Position behind the last token under it; `usize::MAX` if it stays on.
    pub until: usize,
}

impl AdapterSpan {
    /// On from `from` to the end.
    pub fn starting(id: AdapterId, from: usize) -> Self {
        AdapterSpan {
            id,
            from,
            until: usize::MAX,
        }
    }

    /// The positions `range` in pieces that are all under the adapter or all without; none is empty.
    pub(crate) fn pieces(
        span: Option<Self>,
        range: Range<usize>,
    ) -> impl Iterator<Item = (Range<usize>, Option<AdapterId>)> {
        let within = |position: usize| position.clamp(range.start, range.end);
        let on = span.map_or(range.end, |span| within(span.from));
        let off = span.map_or(range.end, |span| within(span.until).max(on));
        let id = span.map(|span| span.id);
        let pieces = [
            (range.start..on, None),
            (on..off, id),
            (off..range.end, None),
        ];
        pieces.into_iter().filter(|(piece, _)| !piece.is_empty())
    }
}

/// How the next token is chosen. Applied in this order: bias, penalties, temperature, top-k, top-p, min-p.
#[derive(Debug, Clone, PartialEq)]
pub struct Sampling {
    /// Divides the logits; 0 takes the most likely token (the lowest id among equals).
    pub temperature: f32,
    /// Keeps the k most likely tokens; 0 keeps all.
    pub top_k: usize,
    /// Keeps the fewest most likely tokens whose probabilities sum to at least this; 1 keeps all.
    pub top_p: f32,
    /// Keeps tokens at least this many times as likely as the most likely one; 0 keeps all.
    pub min_p: f32,
    /// Divides positive and multiplies negative logits of tokens in prompt or completion; 1 is off.
    pub repetition_penalty: f32,
    /// Subtracted from the logits of tokens in the completion; 0 is off.
    pub presence_penalty: f32,
    /// Subtracted once per occurrence in the completion; 0 is off.
    pub frequency_penalty: f32,
    /// Added to the logits of single tokens; negative infinity bans a token.
    pub logit_bias: Vec<(TokenId, f32)>,
}

impl Sampling {
    /// The most likely token, always.
    pub fn greedy() -> Self {
        Sampling {
            temperature: 0.0,
            top_k: 0,
            top_p: 1.0,
            min_p: 0.0,
            repetition_penalty: 1.0,
            presence_penalty: 0.0,
            frequency_penalty: 0.0,
            logit_bias: Vec::new(),
        }
    }

    /// The model's own distribution at a temperature.
    pub fn temperature(temperature: f32) -> Self {
        Sampling {
            temperature,
            ..Self::greedy()
        }
    }

    /// Whether earlier tokens change the logits.
    pub fn has_penalties(&self) -> bool {
        self.repetition_penalty != 1.0
            || self.presence_penalty != 0.0
            || self.frequency_penalty != 0.0
    }

    /// Checks that every setting is a number in its range.
    ///
    /// # Errors
    /// [`RequestError::Sampling`] with the name of the first setting that is not, [`RequestError::Token`] for a bias on a token
    /// outside the vocabulary.
    pub fn validate(&self, vocab_size: usize) -> Result<(), RequestError> {
        let check = |name, value: f32, ok: bool, expected| {
            if ok {
                Ok(())
            } else {
                Err(RequestError::Sampling {
                    name,
                    value,
                    expected,
                })
            }
        };
        let finite = |v: f32| v.is_finite();
        check(
            "temperature",
            self.temperature,
            finite(self.temperature) && self.temperature >= 0.0,
            "at least 0",
        )?;
        check(
            "top_p",
            self.top_p,
            self.top_p > 0.0 && self.top_p <= 1.0,
            "above 0, at most 1",
        )?;
        check(
            "min_p",
            self.min_p,
            (0.0..=1.0).contains(&self.min_p),
            "from 0 to 1",
        )?;
        let repetition = self.repetition_penalty;
        check(
            "repetition_penalty",
            repetition,
            finite(repetition) && repetition > 0.0,
            "above 0",
        )?;
        check(
            "presence_penalty",
            self.presence_penalty,
            finite(self.presence_penalty),
            "a finite number",
        )?;
        check(
            "frequency_penalty",
            self.frequency_penalty,
            finite(self.frequency_penalty),
            "a finite number",
        )?;
        for (index, &(token, bias)) in self.logit_bias.iter().enumerate() {
            if token as usize >= vocab_size {
                return Err(RequestError::Token {
                    index,
                    token,
                    vocab_size,
                });
            }
            check(
                "logit_bias",
                bias,
                finite(bias) || bias == f32::NEG_INFINITY,
                "a finite number or -inf",
            )?;
        }
        Ok(())
    }
}

/// Which final hidden states (after the last norm) the caller wants.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HiddenStates {
    /// None.
    None,
    /// That of the last prompt token.
    Last,
    /// Those of all prompt tokens. They are computed anew even where the prefix cache knows the KV.
    Prompt,
    /// Those of the prompt tokens from this position on; the prefix cache may serve what lies before.
    PromptFrom(usize),
    /// Those of all prompt tokens and of every generated token that was fed back.
    All,
}

impl HiddenStates {
    /// The first position of a prompt of `prompt` tokens whose state is wanted.
    pub(crate) fn first(self, prompt: usize) -> Option<usize> {
        match self {
            HiddenStates::None => None,
            HiddenStates::Last => Some(prompt - 1),
            HiddenStates::Prompt | HiddenStates::All => Some(0),
            HiddenStates::PromptFrom(from) => (from < prompt).then_some(from),
        }
    }
}

/// One prompt and the completions wanted of it.
#[derive(Debug, Clone, PartialEq)]
pub struct Request {
    /// The prompt's tokens, at least one.
    pub prompt: Vec<TokenId>,
    /// The adapter and where it starts; `None` is the base.
    pub adapter: Option<AdapterSpan>,
    /// Completions (streams), each with its own draws. They share the prompt's KV.
    pub n: usize,
    /// How tokens are chosen.
    pub sampling: Sampling,
    /// Tokens per completion at most. 0 computes the prompt only.
    pub max_tokens: usize,
    /// Tokens that end a completion, besides the model's own.
    pub stop_tokens: Vec<TokenId>,
    /// Whether the model's end-of-sequence tokens are tokens like others.
    pub ignore_eos: bool,
    /// Seed of all draws.
    pub seed: u64,
    /// Number of the first stream in its draws: a request of the streams `k..k + n` draws what those of one larger request draw.
    pub first_stream: usize,
    /// How many of the most likely tokens to report with each token; `None` or 0 reports none.
    pub top_logprobs: Option<usize>,
    /// Final hidden states to report.
    pub hidden: HiddenStates,
}

impl Request {
    /// One greedy completion by the base, until the model ends it or the context is full.
    pub fn new(prompt: Vec<TokenId>) -> Self {
        Self::greedy(prompt, usize::MAX)
    }

    /// One greedy completion by the base.
    pub fn greedy(prompt: Vec<TokenId>, max_tokens: usize) -> Self {
        Request {
            prompt,
            adapter: None,
            n: 1,
            sampling: Sampling::greedy(),
            max_tokens,
            stop_tokens: Vec::new(),
            ignore_eos: false,
            seed: 0,
            first_stream: 0,
            top_logprobs: None,
            hidden: HiddenStates::None,
        }
    }
}

/// Why a stream ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FinishReason {
    /// It chose a stop token (which was reported as its last token).
    Stop,
    /// It has `max_tokens` tokens.
    Length,
    /// The caller cancelled it.
    Cancelled,
    /// The model's context or the KV cache is full.
    Context,
}

/// What happened in a step.
#[derive(Debug, Clone, PartialEq)]
pub enum Event {
    /// The prompt's KV is computed; the streams begin.
    Prefilled {
        /// The request.
        request: RequestId,
        /// Length of the prompt.
        prompt_tokens: usize,
        /// How many of them the prefix cache had.
        cached_tokens: usize,
    },
    /// Final hidden states of consecutive tokens.
    Hidden {
        /// The request.
        request: RequestId,
        /// The stream; 0 for prompt tokens.
        stream: usize,
        /// Position of the first token.
        first_position: usize,
        /// `[n, E]`.
        data: Vec<f32>,
    },
    /// A stream has one more token.
    Token {
        /// The request.
        request: RequestId,
        /// The stream, `0..n`.
        stream: usize,
        /// The token.
        token: TokenId,
        /// Its log-probability in nats under the model, before bias, penalties and temperature.
        logprob: f32,
        /// Its log-probability under the distribution that it was drawn from, after all of these; 0 if it was forced or drawn at
        /// temperature 0.
        drawn_logprob: f32,
        /// The most likely tokens and their log-probabilities, best first, as many as were asked for.
        top: Vec<(TokenId, f32)>,
        /// Whether the caller forced it.
        forced: bool,
    },
    /// A stream ended; its blocks are free.
    Finished {
        /// The request.
        request: RequestId,
        /// The stream.
        stream: usize,
        /// Why.
        reason: FinishReason,
    },
    /// All streams of a request that still ran ended with an error; their blocks are free. Other requests go on.
    Failed {
        /// The request.
        request: RequestId,
        /// What went wrong.
        error: RequestError,
    },
}

impl Event {
    /// The request that it belongs to.
    pub fn request(&self) -> RequestId {
        match *self {
            Event::Prefilled { request, .. }
            | Event::Hidden { request, .. }
            | Event::Token { request, .. }
            | Event::Finished { request, .. }
            | Event::Failed { request, .. } => request,
        }
    }
}
