//! From a query to a request of the engine: the prompt, the limits, the place of the adapter.

use std::time::Instant;

use edgethink_engine::{AdapterSpan, Request};

use crate::answer::{BudgetUse, Usage};
use crate::budget::BudgetPlan;
use crate::error::ReasonError;
use crate::event::QueryId;
use crate::job::Job;
use crate::prompt::{Prompt, encode, name_budget, place_adapter};
use crate::query::{Input, Query, Think};
use crate::reasoner::Reasoner;
use crate::stream::{LeastThought, Stream, StreamRules};

impl Reasoner {
    /// Takes a query; its events come from [`Reasoner::step`].
    ///
    /// # Errors
    /// A query that can have no answer: see [`ReasonError`]. Queries in flight are not affected.
    pub fn submit(&mut self, query: &Query) -> Result<QueryId, ReasonError> {
        query.check()?;
        let submitted = Instant::now();
        let thinks = query.think == Think::On;
        let named = query.named_budget.filter(|_| thinks);
        let line = named.and_then(|tokens| self.format.budget_line(tokens));
        let (input, line) = name_budget(query.input.clone(), line);
        let prompt = encode(&self.model, &input, query.think, &self.format.tags)?;
        let room = self.room(prompt.tokens.len(), 1)?;
        let plan = self.plan(query, &prompt, room)?;
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
        let rules = StreamRules {
            tags: (thinks || matches!(query.input, Input::Messages(_)))
                .then(|| self.format.tags.clone()),
            inside: prompt.inside_thought && thinks,
            stops: query.stop.clone(),
            budget: plan,
            least: self.least_thought(query, plan.map_or(limit, |plan| plan.thought_tokens))?,
            stop_loops: query.stop_loops && thinks,
            logprobs: query.top_logprobs.is_some(),
        };
        let (from, adapter) = place_adapter(self.adapter(), query.think, &prompt.tokens);
        let span = match (from, &self.adapter) {
            (Some(from), Some((id, _))) => Some(AdapterSpan::starting(*id, from)),
            _ => None,
        };
        let prompt_tokens = prompt.tokens.len();
        let request = Request {
            adapter: span,
            n: query.n,
            sampling: query.sampling.clone(),
            // Where a rule speaks about the end of a thought, the end of the turn is judged here.
            ignore_eos: query.ignore_eos || plan.is_some() || rules.least.is_some(),
            seed: query.seed,
            top_logprobs: query.top_logprobs,
            ..Request::greedy(prompt.tokens, limit)
        };
        let id = self.engine.submit(request.clone())?;
        let mut job = Job {
            query: QueryId(self.next_query),
            request,
            handles: (0..query.n).map(|stream| (id, stream)).collect(),
            streams: (0..query.n).map(|_| Stream::new(&rules)).collect(),
            detokenizers: (0..query.n)
                .map(|_| self.tokenizer.detokenizer(true))
                .collect(),
            ignore_eos: query.ignore_eos,
            adapter,
            budget,
            usage: Usage {
                prompt_tokens,
                ..Usage::default()
            },
            submitted,
            prefilled: None,
            first_token: None,
            last_token: None,
        };
        self.next_query += 1;
        for stream in 0..query.n {
            self.force_if_due(&mut job, stream)?;
        }
        let query = job.query;
        self.routes.insert(id, (query, 0));
        self.jobs.insert(query, job);
        Ok(query)
    }

    fn plan(
        &self,
        query: &Query,
        prompt: &Prompt,
        room: usize,
    ) -> Result<Option<BudgetPlan>, ReasonError> {
        let Some(budget) = query.budget.filter(|_| query.think == Think::On) else {
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
        query: &Query,
        limit: usize,
    ) -> Result<Option<LeastThought>, ReasonError> {
        let Some(min) = query
            .min_think
            .as_ref()
            .filter(|_| query.think == Think::On)
        else {
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
