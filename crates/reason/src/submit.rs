//! From a query to requests of the engine: the prompt, the limits, the place of the adapter, the streams.

use std::time::Instant;

use edgethink_engine::{AdapterSpan, HiddenStates, Request};

use crate::answer::{BudgetUse, Usage};
use crate::budget::BudgetPlan;
use crate::error::ReasonError;
use crate::event::QueryId;
use crate::job::{Job, Judging, Lane, Prepared, Score};
use crate::prompt::{Prompt, encode, name_budget, place_adapter};
use crate::query::{Input, MinThink, Query, Think};
use crate::reasoner::{Reasoner, Route};
use crate::stream::{LeastThought, Stream, StreamRules};

impl Reasoner {
    /// Takes a query; its events come from [`Reasoner::step`].
    ///
    /// # Errors
    /// A query that can have no answer: see [`ReasonError`]. Queries in flight are not affected.
    pub fn submit(&mut self, query: &Query) -> Result<QueryId, ReasonError> {
        query.check()?;
        self.check_scoring(query.scoring)?;
        let submitted = Instant::now();
        let (prepared, undecided) = self.begin_mode(query)?;
        let mut job = Job {
            query: QueryId(self.next_query),
            usage: Usage {
                prompt_tokens: prepared.request.prompt.len(),
                ..Usage::default()
            },
            prepared,
            undecided,
            decision: None,
            judging: Judging::of(query),
            n: query.n,
            lanes: Vec::new(),
            ignore_eos: query.ignore_eos,
            submitted,
            prefilled: None,
            first_token: None,
            last_token: None,
        };
        self.next_query += 1;
        let id = job.query;
        if let Err(error) = self.begin_streams(&mut job) {
            self.drop_lanes(&mut job);
            return Err(error);
        }
        self.jobs.insert(id, job);
        Ok(id)
    }

    /// Begins as many streams as are useful now: all that are left, or those that can decide the vote.
    pub(crate) fn begin_streams(&mut self, job: &mut Job) -> Result<(), ReasonError> {
        let first = job.lanes.len();
        let most = if job.undecided.is_some() && job.judging.scale_n {
            1
        } else {
            job.n - first
        };
        let count = self.useful_streams(job).min(most);
        if count == 0 {
            return Ok(());
        }
        let reading = job.undecided.as_ref().map(|undecided| &undecided.reading);
        let request = self.engine.submit(Request {
            n: count,
            first_stream: first,
            hidden: reading.map_or(HiddenStates::None, |reading| {
                HiddenStates::PromptFrom(reading.from())
            }),
            ..job.prepared.request.clone()
        })?;
        self.routes
            .insert(request, (job.query, Route::Streams { first }));
        for stream in 0..count {
            job.lanes.push(Lane {
                handle: (request, stream),
                stream: Stream::new(&job.prepared.rules),
                detokenizer: self.tokenizer.detokenizer(true),
                logprob: 0.0,
                answer: None,
                score: Score::None,
            });
        }
        (first..first + count).try_for_each(|stream| self.force_if_due(job, stream).map(drop))
    }

    /// The prompt, the limits and the rules of `query` in the mode `think`, which is on or off.
    pub(crate) fn prepare(&self, query: &Query, think: Think) -> Result<Prepared, ReasonError> {
        let thinks = think == Think::On;
        let named = query.named_budget.filter(|_| thinks);
        let line = named.and_then(|tokens| self.format.budget_line(tokens));
        let (input, line) = name_budget(query.input.clone(), line);
        let prompt = encode(&self.model, &input, think, &self.format.tags)?;
        // What scores the answer is read behind it.
        let behind = self.scoring_tokens(query.scoring);
        let room = self.room(prompt.tokens.len() + behind, 1)?;
        let plan = self.plan(query, think, &prompt, room)?;
        // Without a thought the budget is a plain limit.
        let limit = plan.map_or(query.budget.map_or(room, |budget| budget.max(1)), |plan| {
            plan.response_tokens
        });
        let limit = limit.min(room).min(query.max_tokens.unwrap_or(usize::MAX));
        let budget = (query.budget.is_some() || line.is_some()).then(|| BudgetUse {
            hard: query.budget,
            line,
            thought_tokens: plan.map(|plan| plan.thought_tokens),
            response_tokens: limit,
        });
        let least = query.min_think.as_ref().filter(|_| thinks);
        let rules = StreamRules {
            tags: (thinks || matches!(query.input, Input::Messages(_)))
                .then(|| self.format.tags.clone()),
            inside: prompt.inside_thought && thinks,
            stops: query.stop.clone(),
            budget: plan,
            least: self.least_thought(least, plan.map_or(limit, |plan| plan.thought_tokens))?,
            stop_loops: query.stop_loops && thinks,
            logprobs: query.top_logprobs.is_some(),
        };
        let (from, adapter) = place_adapter(self.adapter(), think, &prompt.tokens);
        let span = match (from, &self.adapter) {
            (Some(from), Some((id, _))) => Some(AdapterSpan::starting(*id, from)),
            _ => None,
        };
        let request = Request {
            adapter: span,
            sampling: query.sampling.clone(),
            // Where a rule speaks about the end of a thought, the end of the turn is judged here.
            ignore_eos: query.ignore_eos || plan.is_some() || rules.least.is_some(),
            seed: query.seed,
            top_logprobs: query.top_logprobs,
            ..Request::greedy(prompt.tokens, limit)
        };
        Ok(Prepared {
            request,
            rules,
            adapter,
            budget,
        })
    }

    fn plan(
        &self,
        query: &Query,
        think: Think,
        prompt: &Prompt,
        room: usize,
    ) -> Result<Option<BudgetPlan>, ReasonError> {
        let Some(budget) = query.budget.filter(|_| think == Think::On) else {
            return Ok(None);
        };
        let budget = budget.min(query.max_tokens.unwrap_or(usize::MAX));
        let closing = self.closing_tokens(prompt.inside_thought)?;
        let plan = BudgetPlan::new(budget, room, closing, query.answer_reserve);
        Ok(Some(
            plan.ok_or(self.no_room(prompt.tokens.len(), closing + 1))?,
        ))
    }

    fn least_thought(
        &self,
        min: Option<&MinThink>,
        limit: usize,
    ) -> Result<Option<LeastThought>, ReasonError> {
        let Some(min) = min else {
            return Ok(None);
        };
        if self.close_token.is_none() {
            return Err(ReasonError::MinThinkTag {
                tag: self.format.tags.close.clone(),
            });
        }
        Ok(Some(LeastThought {
            tokens: min.tokens,
            continuation: self.tokenizer.encode(&min.continuation, false)?,
            times: min.times,
            limit,
        }))
    }

    /// Tokens that forcing an answer takes at most.
    fn closing_tokens(&self, inside: bool) -> Result<usize, ReasonError> {
        let open = if inside {
            ""
        } else {
            self.format.tags.open.as_str()
        };
        Ok(self
            .tokenizer
            .encode(&format!("{open}{}", self.format.closing), false)?
            .len())
    }

    /// Tokens of the context behind the prompt, at least `needed`.
    fn room(&self, prompt: usize, needed: usize) -> Result<usize, ReasonError> {
        let room = self.engine.context_tokens().saturating_sub(prompt);
        if room < needed {
            return Err(self.no_room(prompt, needed));
        }
        Ok(room)
    }

    fn no_room(&self, prompt: usize, needed: usize) -> ReasonError {
        let context = self.engine.context_tokens();
        ReasonError::NoRoom {
            prompt,
            context,
            left: context.saturating_sub(prompt),
            needed,
        }
    }
}
