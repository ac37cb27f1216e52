//! From a query to requests of the engine: the prompt, the limits, the place of the adapter, the streams.

use std::time::Instant;

use edgethink_engine::{AdapterSpan, HiddenStates, Request};

use crate::answer::{BudgetUse, Usage};
use crate::budget::{BudgetPlan, bare_closing};
use crate::error::ReasonError;
use crate::event::QueryId;
use crate::form::Form;
use crate::format::ThoughtFormat;
use crate::job::{Job, Judging, Lane, Prepared, Score};
use crate::prompt::{Prompt, encode, name_budget, place_adapter};
use crate::query::{Input, MinThink, Query, Think};
use crate::reasoner::{Reasoner, Route};
use crate::stream::{LeastThought, Stream, StreamRules};
use crate::thinker::Thinker;

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
        let guide = match &query.grammar {
            Some(grammar) => Some(self.guide(grammar)?),
            None => None,
        };
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
            guide,
            ignore_eos: query.ignore_eos,
            drawn_logprobs: query.drawn_logprobs,
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
                form: job.guide.clone().map(Form::new),
                logprob: 0.0,
                answer: None,
                score: Score::None,
            });
        }
        (first..first + count).try_for_each(|stream| {
            if self.force_if_due(job, stream)? {
                return Ok(());
            }
            self.begin_form(job, stream)
        })
    }

    /// The prompt, the limits and the rules of `query` in the mode `think`, which is on or off.
    pub(crate) fn prepare(&self, query: &Query, think: Think) -> Result<Prepared, ReasonError> {
        let thinks = think == Think::On;
        let named = query.named_budget.filter(|_| thinks);
        let thinker = self.thinker(query.adapter.as_deref())?;
        let format = &thinker.format;
        let line = named.and_then(|tokens| format.budget_line(tokens));
        let (input, line) = name_budget(query.input.clone(), line);
        let prompt = encode(&self.model, &input, think, &format.tags, &query.template)?;
        // What scores the answer is read behind it.
        let behind = self.scoring_tokens(query.scoring);
        let room = self.room(prompt.tokens.len() + behind, 1)?;
        let closing = match query.grammar {
            Some(_) => bare_closing(&format.tags, &format.closing),
            None => format.closing.clone(),
        };
        let plan = self.plan(query, think, &prompt, &closing, format, room)?;
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
            tags: (!query.whole && (thinks || matches!(query.input, Input::Messages(_))))
                .then(|| format.tags.clone()),
            inside: prompt.inside_thought && thinks && !query.whole,
            stops: query.stop.clone(),
            budget: plan,
            least: self.least_thought(
                least,
                &thinker,
                plan.map_or(limit, |plan| plan.thought_tokens),
            )?,
            stop_loops: query.stop_loops && thinks,
            logprobs: query.top_logprobs.is_some(),
            closing,
        };
        let (from, adapter) = place_adapter(thinker.adapter(), think, &prompt.tokens);
        let span = match (from, &thinker.adapter) {
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
            thinks,
            adapter,
            thinker,
            budget,
        })
    }

    fn plan(
        &self,
        query: &Query,
        think: Think,
        prompt: &Prompt,
        closing: &str,
        format: &ThoughtFormat,
        room: usize,
    ) -> Result<Option<BudgetPlan>, ReasonError> {
        let Some(budget) = query.budget.filter(|_| think == Think::On) else {
            return Ok(None);
        };
        let budget = budget.min(query.max_tokens.unwrap_or(usize::MAX));
        let open = if prompt.inside_thought {
            ""
        } else {
            format.tags.open.as_str()
        };
        // What forcing an answer takes at most.
        let closing = self
            .tokenizer
            .encode(&format!("{open}{closing}"), false)?
            .len();
        let plan = BudgetPlan::new(budget, room, closing, query.answer_reserve);
        Ok(Some(
            plan.ok_or(self.no_room(prompt.tokens.len(), closing + 1))?,
        ))
    }

    fn least_thought(
        &self,
        min: Option<&MinThink>,
        thinker: &Thinker,
        limit: usize,
    ) -> Result<Option<LeastThought>, ReasonError> {
        let Some(min) = min else {
            return Ok(None);
        };
        if thinker.close_token.is_none() {
            return Err(ReasonError::MinThinkTag {
                tag: thinker.format.tags.close.clone(),
            });
        }
        Ok(Some(LeastThought {
            tokens: min.tokens,
            continuation: self.tokenizer.encode(&min.continuation, false)?,
            times: min.times,
            limit,
        }))
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
