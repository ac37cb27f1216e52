//! Responses drawn, graded and read: N streams of a question from one prompt KV, then the verifier's request for each that ended.

use std::{collections::BTreeMap, path::Path, sync::Arc};

use edgethink_engine::{
    AdapterId, AdapterSpan, Engine, EngineOptions, Event, FinishReason, Isa, Request, RequestId,
    Sampling,
};
use edgethink_model::{Adapter, Model, Tokenizer};
use edgethink_reason::{
    Input, Think, Verifier,
    prompt::{encode, place_adapter},
    split::Tags,
    verifier::Reply,
};
use serde_json::Map;

use super::{recipe::VerifierRecipe, samples::Sample};
use crate::{data::understood, error::TrainError, grpo::questions};

/// A question as the engine gets it.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Question {
    pub tokens: Vec<u32>,
    pub answer: String,
}

/// The questions of files, the first `limit` that fit (0: all); and how many were too long.
///
/// # Errors
/// [`TrainError::Read`], [`TrainError::DataRow`] or [`TrainError::NoQuestions`].
pub(crate) fn load(
    files: &[impl AsRef<Path>],
    limit: usize,
    recipe: &VerifierRecipe,
    model: &Model,
) -> Result<(Vec<Question>, usize), TrainError> {
    let (mut list, mut dropped) = (Vec::new(), 0);
    let full = |n: usize| limit > 0 && n == limit;
    for path in files.iter().map(AsRef::as_ref) {
        let data = &recipe.data;
        let form = questions::Form {
            schema: data.schema,
            answer: &data.answer,
            instruction: data.instruction.as_deref(),
        };
        let rows = understood(path, &[form.answer], |row| {
            let question = questions::parse(&row, form)?;
            // As the pipeline encodes it.
            let input = Input::Messages(question.messages);
            let prompt = encode(model, &input, Think::On, &Tags::default(), &Map::new());
            let tokens = prompt.map_err(|e| e.to_string())?.tokens;
            Ok(Question {
                tokens,
                answer: question.answer,
            })
        })?;
        for (_, question) in rows {
            if full(list.len()) {
                break;
            }
            if question.tokens.len() > recipe.data.max_prompt_tokens {
                dropped += 1;
            } else {
                list.push(question);
            }
        }
    }
    if list.is_empty() {
        let files = files.iter().map(|f| f.as_ref().to_owned()).collect();
        return Err(TrainError::NoQuestions { files, dropped });
    }
    Ok((list, dropped))
}

/// A response as it was drawn.
#[derive(Debug, Clone, Default)]
struct Response {
    tokens: Vec<u32>,
    logprobs: f64,
    ended: bool,
}

/// The engine that draws and reads.
#[derive(Debug)]
pub(crate) struct Drawer<'a> {
    engine: Engine,
    adapter: Option<(AdapterId, &'a Adapter)>,
    tokenizer: &'a Tokenizer,
    verifier: Verifier,
    temperature: f32,
    cap: usize,
}

impl<'a> Drawer<'a> {
    /// An engine in the recipe's formats; `verifier` says what is read.
    ///
    /// # Errors
    /// [`TrainError::Engine`], or [`TrainError::Unfit`] for a context that is too short.
    pub(crate) fn new(
        recipe: &VerifierRecipe,
        model: &Arc<Model>,
        adapter: Option<&'a Adapter>,
        tokenizer: &'a Tokenizer,
        verifier: Verifier,
    ) -> Result<Self, TrainError> {
        let sample = &recipe.sample;
        let context = model.config.max_position_embeddings;
        let longest = recipe.data.max_prompt_tokens
            + sample.max_completion_tokens
            + verifier.question().len();
        if longest > context {
            return Err(TrainError::Unfit {
                path: recipe.model.base.clone(),
                problem: format!(
                    "has a context of {context} tokens, but [data] max_prompt_tokens, [sample] max_completion_tokens and [head] question need {longest}"
                ),
            });
        }
        let defaults = EngineOptions::for_model(&model.config);
        let options = EngineOptions {
            threads: match recipe.run.threads {
                0 => defaults.threads,
                threads => threads,
            },
            isa: Isa::detect(),
            weights: recipe.model.weights.into(),
            kv: recipe.model.kv.into(),
            kv_tokens: sample.max_sequences * longest,
            max_sequences: sample.max_sequences.min(defaults.max_batch_tokens),
            ..defaults
        };
        let mut engine = Engine::new(Arc::clone(model), options).map_err(TrainError::engine)?;
        let adapter = match adapter {
            Some(adapter) => {
                let id = engine.load_adapter(adapter).map_err(TrainError::engine)?;
                Some((id, adapter))
            }
            None => None,
        };
        Ok(Self {
            engine,
            adapter,
            tokenizer,
            verifier,
            temperature: sample.temperature,
            cap: sample.max_completion_tokens,
        })
    }

    /// `n` responses to each question, read and graded. The first question has the number `first`; its draws depend on it and on `seed`
    /// alone.
    ///
    /// # Errors
    /// [`TrainError::Engine`], also for numbers that are not finite.
    pub(crate) fn draw(
        &mut self,
        questions: &[Question],
        first: usize,
        n: usize,
        seed: u64,
    ) -> Result<Vec<Vec<Sample>>, TrainError> {
        let responses = self.respond(questions, first, n, seed)?;
        let replies = self.read(questions, &responses)?;
        let mut all = Vec::with_capacity(questions.len());
        for (at, ((question, responses), replies)) in
            questions.iter().zip(&responses).zip(replies).enumerate()
        {
            let samples = responses.iter().zip(replies).enumerate();
            let samples: Result<Vec<Sample>, TrainError> = samples
                .map(|(sample, (response, state))| {
                    self.sample(question, response, state).map(|done| Sample {
                        row: first + at,
                        sample,
                        ..done
                    })
                })
                .collect();
            all.push(samples?);
        }
        Ok(all)
    }

    fn span(&self, tokens: &[u32]) -> Option<AdapterSpan> {
        let (id, adapter) = self.adapter?;
        let (from, _) = place_adapter(Some(adapter), Think::On, tokens);
        from.map(|from| AdapterSpan::starting(id, from))
    }

    fn respond(
        &mut self,
        questions: &[Question],
        first: usize,
        n: usize,
        seed: u64,
    ) -> Result<Vec<Vec<Response>>, TrainError> {
        let mut groups = vec![vec![Response::default(); n]; questions.len()];
        let mut places = BTreeMap::new();
        for (at, question) in questions.iter().enumerate() {
            let request = Request {
                adapter: self.span(&question.tokens),
                n,
                sampling: Sampling::temperature(self.temperature),
                seed: seed.wrapping_add((first + at) as u64),
                ..Request::greedy(question.tokens.clone(), self.cap)
            };
            let id = self.engine.submit(request).map_err(TrainError::engine)?;
            places.insert(id, at);
        }
        self.run(&places, |&at, event| match event {
            Event::Token {
                stream,
                token,
                logprob,
                ..
            } => {
                let response = &mut groups[at][*stream];
                response.tokens.push(*token);
                response.logprobs += f64::from(*logprob);
            }
            Event::Finished { stream, reason, .. } => {
                groups[at][*stream].ended = *reason == FinishReason::Stop;
            }
            _ => {}
        })?;
        Ok(groups)
    }

    /// The state behind each response that ended.
    fn read(
        &mut self,
        questions: &[Question],
        groups: &[Vec<Response>],
    ) -> Result<Vec<Vec<Option<Vec<f32>>>>, TrainError> {
        let mut replies: Vec<Vec<Reply>> = groups
            .iter()
            .map(|group| vec![Reply::default(); group.len()])
            .collect();
        let mut places = BTreeMap::new();
        for (at, (question, group)) in questions.iter().zip(groups).enumerate() {
            for (stream, response) in group.iter().enumerate() {
                let Some((_end, text)) = response.tokens.split_last().filter(|_| response.ended)
                else {
                    continue;
                };
                let span = self.span(&question.tokens);
                let request = self.verifier.request(&question.tokens, text, span);
                let id = self.engine.submit(request).map_err(TrainError::engine)?;
                places.insert(id, (at, stream));
            }
        }
        self.run(&places, |&(at, stream), event| {
            replies[at][stream].take(event)
        })?;
        let state = |reply: Reply| (!reply.hidden.is_empty()).then_some(reply.hidden);
        Ok(replies
            .into_iter()
            .map(|group| group.into_iter().map(state).collect())
            .collect())
    }

    /// Runs the engine to its end and gives each event with the place of its request.
    fn run<P>(
        &mut self,
        places: &BTreeMap<RequestId, P>,
        mut take: impl FnMut(&P, &Event),
    ) -> Result<(), TrainError> {
        while !self.engine.idle() {
            for event in self.engine.step().map_err(TrainError::engine)? {
                let Some(place) = places.get(&event.request()) else {
                    continue;
                };
                if let Event::Failed { error, .. } = event {
                    return Err(TrainError::engine(error));
                }
                take(place, &event);
            }
        }
        Ok(())
    }

    /// A response with its grade; where it stands is the caller's to say.
    fn sample(
        &self,
        question: &Question,
        response: &Response,
        state: Option<Vec<f32>>,
    ) -> Result<Sample, TrainError> {
        let text = self
            .tokenizer
            .decode(&response.tokens, true)
            .map_err(TrainError::engine)?;
        let visible = edgethink_grader::visible(&text).unwrap_or_default();
        let tokens = response.tokens.len();
        Ok(Sample {
            row: 0,
            sample: 0,
            correct: response.ended && edgethink_grader::is_correct(&text, &question.answer),
            expected: question.answer.clone(),
            text: visible.trim().to_owned(),
            completion_tokens: tokens,
            mean_logprob: (response.logprobs / tokens.max(1) as f64) as f32,
            score: None,
            state,
        })
    }
}
