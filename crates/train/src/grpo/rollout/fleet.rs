//! Several servers as one backend: each version of the adapter written once and loaded by all, requests spread and made again.
//!
//! A request goes to the server with the fewest that are not answered yet. A server that fails rests for a time that doubles with each
//! failure, then gets one request; an answer brings it back. Before its first request of a version it is given that version, so one that
//! was started anew is taken in without further ado. A request that fails goes to another server. The run ends when every server refuses,
//! or when a request has failed on more servers than there are and for longer than `retry_seconds`; the error names them all.

use std::{
    collections::VecDeque,
    fs,
    path::PathBuf,
    sync::{
        Arc, Condvar, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use edgethink_model::Model;

use super::{
    Completion, Draws, RolloutBackend, ServerCount, ServersRecipe,
    completions::Limits,
    llama_server,
    recipe::address,
    server::{Failure, Kind, Pushed, Server},
};
use crate::{
    error::TrainError,
    grpo::{policy::Policy, questions::Prompt, recipe::GrpoRecipe},
    params::Param,
    recipe::FloatType,
    run::checkpoint::write_dir_atomic,
};

/// How long a server rests after its first failure; each further one doubles it ...
const FIRST_REST: Duration = Duration::from_millis(250);
/// ... up to this.
const LONGEST_REST: Duration = Duration::from_secs(10);
/// A request is never given up before it failed so often.
const FEWEST_TRIES: usize = 3;
/// Hex digits of the adapter's hash in its name.
const HASH_DIGITS: usize = 8;

/// What a fleet needs of the run around it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Place<'a> {
    pub recipe: &'a GrpoRecipe,
    pub policy: &'a Policy,
    pub model: &'a Model,
}

/// The servers.
#[derive(Debug)]
pub(crate) struct Fleet<'a> {
    place: Place<'a>,
    servers: Vec<Server>,
    requests: usize,
    retry: Duration,
    adapter_dir: PathBuf,
    board: Mutex<Vec<State>>,
    /// The version in place: its number, its names.
    current: Option<(u64, Pushed)>,
    /// The run is over: nothing is asked again.
    over: Arc<AtomicBool>,
    retried: usize,
}

/// What is known of a server.
#[derive(Debug, Clone, Default)]
struct State {
    /// Requests that are not answered yet.
    outstanding: usize,
    /// Requests that were answered.
    answered: u64,
    /// Failures since the last answer.
    failures: u32,
    /// It rests until then.
    rests_until: Option<Instant>,
    /// Its last failure said that the request is wrong.
    refused: bool,
    last_error: Option<String>,
}

impl State {
    fn succeeded(&mut self) {
        self.failures = 0;
        self.rests_until = None;
        self.refused = false;
        self.answered += 1;
    }

    fn failed(&mut self, failure: Failure) {
        let rest = FIRST_REST * (1 << self.failures.min(8));
        self.failures += 1;
        self.rests_until = Some(Instant::now() + rest.min(LONGEST_REST));
        self.refused = failure.refused;
        self.last_error = Some(failure.problem);
    }

    /// Whether it may be asked now: one that failed gets a single request.
    fn takes(&self, requests: usize, now: Instant) -> bool {
        let most = if self.failures > 0 { 1 } else { requests };
        self.outstanding < most && self.rests_until.is_none_or(|until| until <= now)
    }
}

/// One request of a draw.
#[derive(Debug, Clone, Copy)]
struct Job {
    at: usize,
    tries: usize,
    first_failure: Option<Instant>,
}

/// A draw in progress.
#[derive(Debug)]
struct Draw {
    waiting: VecDeque<Job>,
    done: Vec<Option<Vec<Completion>>>,
    left: usize,
    given_up: bool,
    retried: usize,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl<'a> Fleet<'a> {
    /// Looks for the servers. Those that do not answer are tried again later.
    ///
    /// # Errors
    /// [`TrainError::Servers`] if none answers, or if one cannot do what the adapter needs; [`TrainError::Write`] without a directory for
    /// the adapters; [`TrainError::ApiKey`].
    pub(crate) fn new(
        place: Place<'a>,
        recipe: &ServersRecipe,
        over: Arc<AtomicBool>,
    ) -> Result<Self, TrainError> {
        let key = match &recipe.api_key_env {
            None => None,
            Some(name) => {
                Some(std::env::var(name).map_err(|_| TrainError::ApiKey { name: name.clone() })?)
            }
        };
        let dir = &recipe.adapter_dir;
        let adapter_dir = fs::create_dir_all(dir)
            .and_then(|()| dir.canonicalize())
            .map_err(|source| TrainError::Write {
                path: dir.clone(),
                source,
            })?;
        let timeout = Duration::from_secs_f64(recipe.timeout_seconds);
        let server = |url: &String| {
            Server::new(
                address(url),
                key.clone(),
                recipe.remote_dir.clone(),
                timeout,
            )
        };
        let servers: Vec<Server> = recipe.urls.iter().map(server).collect();
        let fleet = Self {
            place,
            board: Mutex::new(vec![State::default(); servers.len()]),
            servers,
            requests: recipe.requests,
            retry: Duration::from_secs_f64(recipe.retry_seconds),
            adapter_dir,
            current: None,
            over,
            retried: 0,
        };
        fleet.look()?;
        Ok(fleet)
    }

    /// Asks every server what it is.
    fn look(&self) -> Result<(), TrainError> {
        let found: Vec<Result<Kind, Failure>> = std::thread::scope(|scope| {
            let asked: Vec<_> = self
                .servers
                .iter()
                .map(|server| scope.spawn(|| server.identify()))
                .collect();
            let lost = |_| Err(Failure::lost("asking it failed"));
            let joined = asked.into_iter().map(|one| one.join().unwrap_or_else(lost));
            joined.collect()
        });
        let mut board = lock(&self.board);
        for (state, found) in board.iter_mut().zip(&found) {
            match found {
                Ok(_) => state.succeeded(),
                Err(failure) => state.failed(failure.clone()),
            }
        }
        let plain_only = found
            .iter()
            .enumerate()
            .find_map(|(at, kind)| Some((at, kind.as_ref().ok()?.without_masks()?)));
        if self.place.policy.masked()
            && let Some((at, name)) = plain_only
        {
            return Err(TrainError::Servers {
                problem: format!("the adapter is masked, and {name} has plain adapters only"),
                servers: vec![format!(
                    "{}: draw by `edgethink serve` or llama-server, or train an adapter without a prompt mask",
                    self.servers[at].url
                )],
            });
        }
        if found.iter().all(Result::is_err) {
            return Err(self.error(&board, "none of them answers"));
        }
        Ok(())
    }

    fn error(&self, board: &[State], problem: &str) -> TrainError {
        let servers = self.servers.iter().zip(board).map(|(server, state)| {
            let said = state.last_error.as_deref().unwrap_or("no error");
            format!("{}: {said}", server.url)
        });
        TrainError::Servers {
            problem: problem.to_owned(),
            servers: servers.collect(),
        }
    }

    fn dir(&self, name: &str) -> PathBuf {
        self.adapter_dir.join(name)
    }

    /// Removes a version that no server needs any more.
    fn forget(&self, name: &str) {
        // What is left over costs room on the disk and nothing else.
        let _ = fs::remove_dir_all(self.dir(name));
    }

    /// The server for a request that failed `tries` times, if one may be asked now.
    fn choose(&self, board: &mut [State], tries: usize) -> Option<usize> {
        let now = Instant::now();
        let free = (0..board.len()).filter(|&at| board[at].takes(self.requests, now));
        // What failed once goes where others are answered.
        let order = |&at: &usize| {
            let state = &board[at];
            let doubtful = tries > 0 && state.failures > 0;
            (doubtful, state.outstanding, state.answered)
        };
        let chosen = free.min_by_key(order)?;
        board[chosen].outstanding += 1;
        Some(chosen)
    }

    /// Takes requests and has them answered, until none is left.
    fn work(
        &self,
        draw: &Mutex<Draw>,
        changed: &Condvar,
        pushed: &Pushed,
        prompts: &[Prompt],
        draws: Draws,
    ) {
        let limits = Limits {
            vocab_size: self.place.model.config.vocab_size,
            eos: &self.place.model.generation.eos_token_ids,
        };
        let mut state = lock(draw);
        loop {
            if state.left == 0 || state.given_up || self.over.load(Ordering::Relaxed) {
                return;
            }
            let next = state.waiting.front().copied();
            let chosen = next.and_then(|job| {
                let server = self.choose(&mut lock(&self.board), job.tries)?;
                Some((job, server))
            });
            let Some((mut job, at)) = chosen else {
                // A rest ends without a word.
                let pause = FIRST_REST / 4;
                let waited = changed.wait_timeout(state, pause);
                state = waited.unwrap_or_else(PoisonError::into_inner).0;
                continue;
            };
            state.waiting.pop_front();
            drop(state);
            let prompt = &prompts[job.at].tokens;
            let reply = self.servers[at].complete(pushed, prompt, job.at, draws, limits);
            state = lock(draw);
            let mut board = lock(&self.board);
            board[at].outstanding -= 1;
            match reply {
                Ok(completions) => {
                    board[at].succeeded();
                    state.done[job.at] = Some(completions);
                    state.left -= 1;
                }
                Err(failure) => {
                    board[at].failed(failure);
                    state.retried += 1;
                    job.tries += 1;
                    let since = *job.first_failure.get_or_insert_with(Instant::now);
                    let enough = FEWEST_TRIES.max(self.servers.len() + 1);
                    state.given_up |= board.iter().all(|one| one.refused)
                        || (job.tries >= enough && since.elapsed() >= self.retry);
                    state.waiting.push_front(job);
                }
            }
            drop(board);
            changed.notify_all();
        }
    }
}

impl RolloutBackend for Fleet<'_> {
    fn update(&mut self, version: u64, params: &[Param]) -> Result<(), TrainError> {
        if self.current.as_ref().is_some_and(|(at, _)| *at == version) {
            return Ok(());
        }
        let Place { recipe, policy, .. } = self.place;
        // A server may keep what it computed for a name: equal names must be equal weights.
        let hash = policy.adapter(params)?.hash.to_string();
        let hash: String = hash.chars().take(HASH_DIGITS).collect();
        let name = format!("policy-{version}-{hash}");
        let dir = self.dir(&name);
        write_dir_atomic(&dir, |part| {
            policy.write(
                &recipe.model.adapter,
                part,
                params,
                FloatType::F32,
                &recipe.budget,
            )
        })?;
        if self.servers.iter().any(Server::may_read_gguf) {
            let path = self.dir(llama_server::FILE);
            let saved = policy
                .adapter(params)?
                .save_gguf(&path, &self.place.model.config);
            saved.map_err(|source| TrainError::Adapter { path, source })?;
        }
        let path = dir.to_string_lossy().into_owned();
        let new = (version, Pushed { name, path });
        if let Some((_, old)) = self.current.replace(new) {
            self.forget(&old.name);
        }
        Ok(())
    }

    fn draw(
        &mut self,
        prompts: &[Prompt],
        draws: Draws,
    ) -> Result<Vec<Vec<Completion>>, TrainError> {
        let Some((_, pushed)) = self.current.clone() else {
            // Nothing was put in place: there is no policy to draw from.
            return Ok(Vec::new());
        };
        let job = |at| Job {
            at,
            tries: 0,
            first_failure: None,
        };
        let draw = Mutex::new(Draw {
            waiting: (0..prompts.len()).map(job).collect(),
            done: vec![None; prompts.len()],
            left: prompts.len(),
            given_up: false,
            retried: 0,
        });
        let changed = Condvar::new();
        let workers = prompts.len().min(self.requests * self.servers.len());
        std::thread::scope(|scope| {
            for _ in 0..workers {
                scope.spawn(|| self.work(&draw, &changed, &pushed, prompts, draws));
            }
        });
        let draw = draw.into_inner().unwrap_or_else(PoisonError::into_inner);
        self.retried = draw.retried;
        if self.over.load(Ordering::Relaxed) && draw.left > 0 {
            return Err(TrainError::Cancelled);
        }
        if draw.left > 0 {
            let board = lock(&self.board);
            let problem = if board.iter().all(|one| one.refused) {
                "they refuse the request"
            } else {
                "a request for completions failed again and again"
            };
            return Err(self.error(&board, problem));
        }
        Ok(draw.done.into_iter().flatten().collect())
    }

    fn told(&self) -> String {
        let board = lock(&self.board);
        let live = board.iter().filter(|state| state.failures == 0).count();
        let mut text = format!("rollouts by {live} of {} servers", board.len());
        for (server, state) in self.servers.iter().zip(board.iter()) {
            if state.failures > 0 {
                let said = state.last_error.as_deref().unwrap_or_default();
                text.push_str(&format!("\n{} does not answer: {said}", server.url));
            }
        }
        text
    }

    fn servers(&self) -> Option<ServerCount> {
        let board = lock(&self.board);
        Some(ServerCount {
            live: board.iter().filter(|state| state.failures == 0).count(),
            all: board.len(),
            retried: self.retried,
        })
    }
}

impl Drop for Fleet<'_> {
    fn drop(&mut self) {
        let board = lock(&self.board).clone();
        let well = self
            .servers
            .iter()
            .zip(&board)
            .filter(|(_, state)| state.failures == 0);
        well.for_each(|(server, _)| server.unload());
        if let Some((_, pushed)) = self.current.take() {
            self.forget(&pushed.name);
            // Only there if a server may have needed it.
            let _ = fs::remove_file(self.dir(llama_server::FILE));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_that_fails_rests_longer_each_time_and_an_answer_brings_it_back() {
        let mut state = State::default();
        let now = Instant::now();
        assert!(state.takes(2, now));
        let mut rests = Vec::new();
        for _ in 0..12 {
            state.failed(Failure::lost("gone"));
            let until = state.rests_until.expect("a rest");
            assert!(!state.takes(2, now));
            rests.push(until.duration_since(now).as_secs_f64());
        }
        assert!((rests[1] / rests[0] - 2.0).abs() < 0.2, "{rests:?}");
        assert!(
            (rests[11] - LONGEST_REST.as_secs_f64()).abs() < 0.2,
            "{rests:?}"
        );
        let later = now + LONGEST_REST * 2;
        assert!(state.takes(2, later));
        state.outstanding = 1;
        assert!(
            !state.takes(2, later),
            "one request shows whether it is back"
        );
        state.succeeded();
        assert!(state.takes(2, now));
    }
}
