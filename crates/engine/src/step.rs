//! One step: schedule, copy blocks, run the batch, choose tokens, report.

use crate::active::Active;
use crate::batch::{Batch, Piece};
use crate::engine::Engine;
use crate::error::{EngineError, Place, RequestError};
use crate::profile::Part;
use crate::request::{AdapterSpan, Event, FinishReason, RequestId, TokenId};
use crate::sampler::{Choice, ChoiceError, choose, score};
use crate::scheduler::Chunk;
use crate::sequence::SeqId;

/// A chunk with what is wanted of it.
struct Wanted {
    chunk: Chunk,
    /// Row of each position of the chunk.
    rows: Vec<usize>,
    /// First position whose logits are wanted; `end` for none.
    logits_from: usize,
    /// Positions whose hidden states are wanted.
    hidden: std::ops::Range<usize>,
}

/// A token to choose or to score, from one row of logits.
struct Job {
    id: RequestId,
    stream: usize,
    /// Position of the token.
    position: usize,
    /// The token, if it is forced.
    given: Option<TokenId>,
    result: Result<Choice, ChoiceError>,
}

/// The jobs of one row.
struct RowJobs<'a> {
    logits: &'a mut [f32],
    jobs: Vec<Job>,
}

impl Engine {
    /// Does one forward pass over whatever is to be done, and returns what happened, in order.
    ///
    /// # Errors
    /// None at present: what goes wrong with a request is an event. The result leaves room for failures of the engine as a whole.
    pub fn step(&mut self) -> Result<Vec<Event>, EngineError> {
        self.runner.profile.begin();
        let mut events = std::mem::take(&mut self.events);
        let plan = self.scheduler.schedule();
        for &copy in &plan.copies {
            self.runner.kv.copy(copy);
        }
        self.scheduler.copied();
        if plan.chunks.is_empty() {
            return Ok(events);
        }
        let (batch, wanted) = self.batch(&plan.chunks);
        self.counters.steps += 1;
        self.counters.computed_tokens += batch.rows.len() as u64;
        let logits: Vec<usize> = wanted
            .iter()
            .flat_map(|w| w.rows[w.logits_from - w.chunk.start..].iter().copied())
            .collect();
        let hidden: Vec<usize> = wanted
            .iter()
            .flat_map(|w| w.hidden.clone().map(|p| w.rows[p - w.chunk.start]))
            .collect();
        let mut rows: Vec<RowJobs<'_>> = Vec::with_capacity(logits.len());
        self.runner.profile.lap(Part::Plan);
        let mut output = self
            .runner
            .forward(&batch, &self.adapters, &logits, &hidden);
        let (hidden, failed) = (output.hidden, output.failed);

        // Which chunks failed, and what the others choose.
        let vocab = self.model.config.vocab_size;
        let failure = |w: &Wanted| {
            let first = |&(row, place): &(usize, Place)| {
                w.rows
                    .iter()
                    .position(|&r| r == row)
                    .map(|at| (w.chunk.start + at, place))
            };
            failed
                .iter()
                .filter_map(first)
                .min_by_key(|&(position, _)| position)
        };
        let failures: Vec<Option<(usize, Place)>> = wanted.iter().map(failure).collect();
        let mut slices = output.logits.chunks_exact_mut(vocab);
        for (w, failure) in wanted.iter().zip(&failures) {
            let active = &self.requests[&w.chunk.seq.request];
            let tokens = &self
                .scheduler
                .get(w.chunk.seq)
                .expect("scheduled sequences are known")
                .tokens;
            for position in w.logits_from..w.chunk.start + w.chunk.len {
                let logits = slices.next().expect("one row of logits per wanted row");
                if failure.is_none() {
                    rows.push(RowJobs {
                        logits,
                        jobs: jobs(active, w.chunk.seq, position + 1, tokens),
                    });
                }
            }
        }
        self.choose(&mut rows);
        self.runner.profile.lap(Part::Choose);
        let jobs: Vec<Job> = rows.into_iter().flat_map(|row| row.jobs).collect();
        self.runner.reuse(output.logits);

        let e = self.model.config.hidden_size;
        let mut hidden = hidden.chunks_exact(e);
        for (w, failure) in wanted.iter().zip(failures) {
            let states: Vec<f32> = hidden
                .by_ref()
                .take(w.hidden.len())
                .flatten()
                .copied()
                .collect();
            match failure {
                // Streams of one request can fail together; the first reports.
                Some(_) if !self.requests.contains_key(&w.chunk.seq.request) => {}
                Some((position, place)) => {
                    let error = RequestError::NonFinite { position, place };
                    events.push(self.fail(RequestId(w.chunk.seq.request), error));
                }
                None if !self.requests.contains_key(&w.chunk.seq.request) => {}
                None => self.complete(w, states, &mut events),
            }
        }
        for job in jobs {
            self.apply(job, &mut events);
        }
        self.runner.profile.lap(Part::Report);
        Ok(events)
    }

    /// Lays out the chunks and notes what is wanted of them.
    fn batch(&mut self, chunks: &[Chunk]) -> (Batch, Vec<Wanted>) {
        let mut pieces = Vec::new();
        let mut wanted = Vec::new();
        let mut spans = Vec::new();
        for &chunk in chunks {
            let active = self
                .requests
                .get_mut(&chunk.seq.request)
                .expect("scheduled requests are known");
            active.cached.get_or_insert(chunk.start);
            let active = &self.requests[&chunk.seq.request];
            let stream = &active.streams[chunk.seq.stream as usize];
            let sequence = self
                .scheduler
                .get(chunk.seq)
                .expect("scheduled sequences are known");
            let end = chunk.start + chunk.len;
            let before = pieces.len();
            let parts = AdapterSpan::pieces(active.request.adapter, chunk.start..end);
            pieces.extend(parts.map(|(part, adapter)| Piece {
                tokens: &sequence.tokens[part.clone()],
                start: part.start,
                blocks: &sequence.blocks,
                adapter,
            }));
            spans.push(before..pieces.len());
            let scores = active.request.max_tokens > 0;
            let hidden_end = active.hidden_end(end);
            wanted.push(Wanted {
                chunk,
                rows: Vec::new(),
                logits_from: if scores {
                    (stream.scored - 1).clamp(chunk.start, end)
                } else {
                    end
                },
                hidden: stream
                    .hidden_next
                    .clamp(chunk.start, hidden_end.max(chunk.start))
                    ..hidden_end.max(chunk.start),
            });
        }
        let batch = Batch::new(&pieces, self.model.config.group_size());
        for (wanted, span) in wanted.iter_mut().zip(spans) {
            wanted.rows = batch.piece_rows[span].iter().cloned().flatten().collect();
        }
        (batch, wanted)
    }

    /// Chooses all tokens; rows are spread over the threads.
    fn choose(&self, rows: &mut [RowJobs<'_>]) {
        let isa = self.runner.isa;
        self.runner.pool.for_each_mut(rows, |_, row| {
            let count = row.jobs.len();
            let mut copy = Vec::new();
            for (index, job) in row.jobs.iter_mut().enumerate() {
                let active = &self.requests[&job.id.0];
                let stream = &active.streams[job.stream];
                let top = active.request.top_logprobs.unwrap_or(0);
                job.result = match job.given {
                    Some(token) => score(isa, row.logits, token, top),
                    None => {
                        // Choosing changes the logits; the last stream of a row may have the row itself.
                        let logits = if index + 1 == count {
                            &mut *row.logits
                        } else {
                            copy.clear();
                            copy.extend_from_slice(row.logits);
                            &mut copy
                        };
                        let uniform = stream.draws.uniform(job.position);
                        choose(
                            isa,
                            logits,
                            &active.request.sampling,
                            &stream.seen,
                            stream.allowed.as_ref(),
                            uniform,
                            top,
                        )
                    }
                };
            }
        });
    }

    /// A chunk is computed: hidden states, the end of a prompt.
    fn complete(&mut self, w: &Wanted, states: Vec<f32>, events: &mut Vec<Event>) {
        let (seq, id) = (w.chunk.seq, RequestId(w.chunk.seq.request));
        let end = w.chunk.start + w.chunk.len;
        self.scheduler.commit(w.chunk);
        let active = self.requests.get_mut(&id.0).expect("the request is known");
        let hidden_wanted = active.hidden_end(usize::MAX);
        let stream = &mut active.streams[seq.stream as usize];
        if !w.hidden.is_empty() {
            events.push(Event::Hidden {
                request: id,
                stream: seq.stream as usize,
                first_position: w.hidden.start,
                data: states,
            });
            stream.hidden_next = w.hidden.end;
        }
        if stream.hidden_next >= hidden_wanted {
            stream.hidden_next = usize::MAX;
        }
        self.scheduler.set_reusable(seq, stream.hidden_next);
        let prompt_tokens = active.request.prompt.len();
        if active.prefilled || end < prompt_tokens {
            return;
        }
        let cached_tokens = active.cached.unwrap_or(0);
        self.counters.prompt_tokens += prompt_tokens as u64;
        self.counters.cached_tokens += cached_tokens as u64;
        events.push(Event::Prefilled {
            request: id,
            prompt_tokens,
            cached_tokens,
        });
        let live: Vec<usize> = (0..active.streams.len())
            .filter(|&s| !active.streams[s].done)
            .collect();
        if active.request.max_tokens == 0 {
            for stream in live {
                events.push(self.finish(id, stream, FinishReason::Length));
            }
            return;
        }
        active.prefilled = true;
        let root_is_done = active.streams[0].done;
        for &stream in live.iter().filter(|&&s| s > 0) {
            let to = self.requests[&id.0].seq(stream);
            self.scheduler.fork(seq, to);
        }
        if root_is_done {
            self.scheduler.release(seq, true);
        }
    }

    /// Reports a token and what follows from it.
    fn apply(&mut self, job: Job, events: &mut Vec<Event>) {
        let Some(active) = self.requests.get_mut(&job.id.0) else {
            return;
        };
        if active.streams[job.stream].done {
            return;
        }
        let choice = match job.result {
            Ok(choice) => choice,
            Err(error) => {
                let position = job.position;
                let error = match error {
                    ChoiceError::NonFinite => RequestError::NonFinite {
                        position: position - 1,
                        place: Place::Logits,
                    },
                    ChoiceError::NothingLeft => RequestError::NothingToChoose { position },
                };
                events.push(self.fail(job.id, error));
                return;
            }
        };
        let (seq, limit, penalties) = (
            active.seq(job.stream),
            active.limit,
            active.request.sampling.has_penalties(),
        );
        let stream = &mut active.streams[job.stream];
        stream.scored = job.position + 1;
        // Tokens that the sequence does not have yet: the chosen one, or all that are forced.
        let known = self
            .scheduler
            .get(seq)
            .expect("running streams have a sequence")
            .tokens
            .len();
        if known == job.position {
            let mut new = vec![choice.token];
            if job.given.is_some() {
                new = stream.forced.drain(..).take(limit - known).collect();
            }
            for token in new {
                self.scheduler.append(seq, token);
                if penalties {
                    stream.seen.add(token);
                }
            }
        }
        self.counters.generated_tokens += 1;
        let forced = job.given.is_some();
        let Choice {
            token,
            logprob,
            drawn_logprob,
            top,
        } = choice;
        let ends = active.ends(job.stream, token, forced);
        events.push(Event::Token {
            request: job.id,
            stream: job.stream,
            token,
            logprob,
            drawn_logprob,
            top,
            forced,
        });
        if let Some(reason) = ends {
            events.push(self.finish(job.id, job.stream, reason));
        }
    }
}

/// What the logits before `position` are for.
fn jobs(active: &Active, seq: SeqId, position: usize, tokens: &[TokenId]) -> Vec<Job> {
    let streams = if active.prefilled {
        seq.stream as usize..seq.stream as usize + 1
    } else {
        0..active.streams.len()
    };
    let job = |stream: usize| {
        let state = &active.streams[stream];
        let given = tokens
            .get(position)
            .copied()
            .or_else(|| state.forced.front().copied());
        (!state.done).then_some(Job {
            id: active.id,
            stream,
            position,
            given,
            result: Err(ChoiceError::NothingLeft),
        })
    };
    streams.filter_map(job).collect()
}
