//! Several processes that train one model: the same result as one, the same end, and what they say when they do not fit.

use std::fs;
use std::net::TcpListener;
use std::path::Path;
use std::time::Duration;

use crate::mock_server::{Act, Mock};
use crate::servers::{by_servers, values};
use crate::support::*;
use edgethink_testkit::adapter_distance;
use edgethink_train::{
    Event, GrpoRecipe, ProcessGroup, Progress, Reward, RolloutKv, RolloutWeights, SftRecipe,
    Silent, TrainError, base, grpo, grpo_in, sft, sft_in,
};
use serde_json::{Map, Value};

/// An address that nobody listens at.
fn free() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    listener.local_addr().unwrap().to_string()
}

fn join(rank: usize, size: usize, address: &str) -> Result<ProcessGroup, TrainError> {
    ProcessGroup::join(rank, size, address, Duration::from_secs(20))
}

/// A recipe that several processes can train by.
trait Together: Clone + Sync {
    fn train(
        &self,
        group: &mut ProcessGroup,
        progress: &mut dyn Progress,
    ) -> Result<(), TrainError>;
}

impl Together for SftRecipe {
    fn train(
        &self,
        group: &mut ProcessGroup,
        progress: &mut dyn Progress,
    ) -> Result<(), TrainError> {
        sft_in(self, group, progress).map(drop)
    }
}

impl Together for GrpoRecipe {
    fn train(
        &self,
        group: &mut ProcessGroup,
        progress: &mut dyn Progress,
    ) -> Result<(), TrainError> {
        grpo_in(self, group, progress).map(drop)
    }
}

/// Trains by one process for each recipe; the results in the order of the ranks.
fn together<R: Together>(
    recipes: &[R],
    progress: fn(usize) -> Box<dyn Progress>,
) -> Vec<Result<(), TrainError>> {
    let address = &free();
    std::thread::scope(|scope| {
        let processes = recipes.iter().enumerate().map(|(rank, recipe)| {
            scope.spawn(move || {
                let mut group = join(rank, recipes.len(), address)?;
                recipe.train(&mut group, &mut *progress(rank))
            })
        });
        let running: Vec<_> = processes.collect();
        let results = running.into_iter().map(|thread| thread.join().unwrap());
        results.collect()
    })
}

fn silent(_: usize) -> Box<dyn Progress> {
    Box::new(Silent)
}

fn all_well<R: Together>(recipes: &[R]) {
    together(recipes, silent)
        .into_iter()
        .for_each(|result| result.unwrap());
}

fn with_base() -> tempfile::TempDir {
    let dir = workspace();
    base(&base_recipe(dir.path(), "base"), &mut Silent).unwrap();
    dir
}

#[test]
fn several_processes_train_what_one_trains() {
    let dir = with_base();
    let recipe = |out: &str| sft_recipe(dir.path(), "base", out, true, 2.0);
    sft(&recipe("one"), &mut Silent).unwrap();
    for size in [2, 3] {
        let out = format!("of-{size}");
        all_well(&vec![recipe(&out); size]);
        // The order of the sums differs, nothing else.
        let (apart, largest) = adapter_distance(&dir.path().join("one"), &dir.path().join(&out));
        assert!(
            apart <= 1e-4 * largest,
            "{size} processes: {apart} of {largest}"
        );
        let loss = |run: &str| last(dir.path(), run, "loss");
        assert!((loss("one") - loss(&out)).abs() < 1e-4);
    }
}

/// Wants to stop after step 4.
struct StopAt4 {
    stops: bool,
    asked: u64,
}

impl Progress for StopAt4 {
    fn event(&mut self, _: &Event) {}
    fn stop(&mut self) -> bool {
        self.asked += 1;
        self.stops && self.asked > 4
    }
}

/// Two processes, of which the second wants to stop.
fn stopped_by_rank_1<R: Together>(recipe: &R) {
    let results = together(&[recipe.clone(), recipe.clone()], |rank| {
        Box::new(StopAt4 {
            stops: rank == 1,
            asked: 0,
        })
    });
    for result in &results {
        assert!(
            matches!(result, Err(TrainError::Stopped { step: 4, .. })),
            "{result:?}"
        );
    }
}

#[test]
fn one_that_stops_stops_all_and_another_number_goes_on() {
    let dir = with_base();
    let recipe = |out: &str| sft_recipe(dir.path(), "base", out, true, 2.0);
    sft(&recipe("whole"), &mut Silent).unwrap();
    stopped_by_rank_1(&recipe("parts"));
    sft(&recipe("parts"), &mut Silent).unwrap();
    let (apart, largest) = adapter_distance(&dir.path().join("whole"), &dir.path().join("parts"));
    assert!(apart <= 1e-4 * largest, "{apart} of {largest}");
}

#[test]
fn processes_that_do_not_fit_are_told_so() {
    let dir = with_base();
    let mut other = sft_recipe(dir.path(), "base", "out", true, 2.0);
    other.optimizer.lr = 0.5;
    let recipes = [sft_recipe(dir.path(), "base", "out", true, 2.0), other];
    for result in together(&recipes, silent) {
        let said = result.unwrap_err().to_string();
        assert!(said.contains("optimizer.lr"), "{said}");
    }
    assert!(!dir.path().join("out").exists(), "nothing is written");

    let said = |result: Result<ProcessGroup, TrainError>| result.map(drop).unwrap_err().to_string();
    assert!(said(join(2, 2, "127.0.0.1:1")).contains("rank 2 of 2"));
    let alone = ProcessGroup::join(0, 2, &free(), Duration::from_millis(50));
    assert!(said(alone).contains("1 of 2 processes came"));
    let lost = ProcessGroup::join(1, 2, &free(), Duration::from_millis(50));
    assert!(said(lost).contains("start rank 0 there"));
    let address = &free();
    std::thread::scope(|scope| {
        let leader = scope.spawn(move || said(join(0, 3, address)));
        let counted = said(join(1, 2, address));
        assert!(counted.contains("rank 1 counts 2 processes"), "{counted}");
        assert_eq!(leader.join().unwrap(), counted);
    });
}

/// Reinforcement learning with all that a step can ask of the others: further questions for groups without signal, and a second optimizer
/// step on the same completions.
fn reinforced(dir: &Path, out: &str) -> GrpoRecipe {
    let mut recipe = recipe(dir, out);
    recipe.reward = vec![Reward::Accuracy { weight: 1.0 }];
    recipe.rollout.resample = 2;
    recipe.objective.iterations = 2;
    recipe.optimizer.lr = 5e-4;
    // Few tokens, and some of them far from the reference.
    recipe.guard.max_kl = 1e6;
    recipe.run.steps = 6;
    recipe.run.log_every = 1;
    recipe.run.eval_every = 3;
    recipe.run.save_every = 0;
    recipe.run.completions_every = 1;
    // One whose first step finds a group with signal, in every case.
    recipe.seed = 3;
    recipe
}

/// A line of the log, without the times.
fn logged(dir: &Path, run: &str, line: usize) -> Map<String, Value> {
    let log = fs::read_to_string(dir.join(run).join("metrics.jsonl")).unwrap();
    let line = log.lines().nth(line).unwrap();
    let mut values: Map<String, Value> = serde_json::from_str(line).unwrap();
    values.retain(|name, _| !["step_time", "rollout/seconds"].contains(&name.as_str()));
    values
}

#[cfg(feature = "parquet")]
fn completions(dir: &Path, run: &str, step: usize) -> Vec<u8> {
    let name = format!("completions_{step:05}.parquet");
    bytes(&dir.join(run).join("completions").join(name))
}

#[test]
fn several_processes_reinforce_what_one_reinforces() {
    // 4-bit weights need rows of 32.
    let (narrow, wide) = (world(), world_of(32));
    let stored = (RolloutWeights::Stored, RolloutKv::F32);
    let rounded = (RolloutWeights::Q4, RolloutKv::Int8);
    for (case, (size, max_staleness, (weights, kv))) in
        [(2, 0, stored), (3, 0, rounded), (2, 1, stored)]
            .into_iter()
            .enumerate()
    {
        let d = if weights == RolloutWeights::Q4 {
            wide.path()
        } else {
            narrow.path()
        };
        let recipe = |out: &str| {
            let mut recipe = reinforced(d, out);
            recipe.rollout.max_staleness = max_staleness;
            recipe.rollout.weights = weights;
            recipe.rollout.kv = kv;
            recipe
        };
        let [one, out] = ["one", "several"].map(|name| format!("{name}-{case}"));
        grpo(&recipe(&one), &mut Silent).unwrap();
        let mut recipes = vec![recipe(&out); size];
        // Each may have its own.
        recipes[1].run.threads = rayon::current_num_threads();
        all_well(&recipes);
        // The first step is the same bit for bit, up to the sum of the gradients ...
        #[cfg(feature = "parquet")]
        assert!(completions(d, &one, 1) == completions(d, &out, 1));
        let [mut want, mut found] = [&one, &out].map(|run| logged(d, run, 1));
        let [norm, other] = [&mut want, &mut found].map(|values| {
            let changed = ["grad_norm", "loss", "kl", "entropy"].map(|name| values.remove(name));
            changed[0].as_ref().unwrap().as_f64().unwrap()
        });
        assert!(
            norm > 0.0 && (norm - other).abs() <= 1e-4 * norm,
            "{norm} {other}"
        );
        assert_eq!(want, found);
        let dropped = values(d, &out, "frac_reward_zero_std");
        assert!(dropped.iter().any(|&share| share > 0.0), "{dropped:?}");
        // ... and the rest to rounding.
        let (apart, largest) = adapter_distance(&d.join(&one), &d.join(&out));
        assert!(apart <= 1e-4 * largest, "{size}: {apart} of {largest}");
        for name in ["reward", "completions/mean_length", "eval_accuracy"] {
            let [want, found] = [&one, &out].map(|run| last(d, run, name));
            assert!((want - found).abs() <= 1e-4, "{name}: {want} {found}");
        }
    }
}

#[test]
fn reinforcement_that_one_stops_goes_on_with_any_number() {
    let dir = world();
    let d = dir.path();
    all_well(&vec![reinforced(d, "whole"); 2]);
    for out in ["by-two", "by-one"] {
        stopped_by_rank_1(&reinforced(d, out));
    }
    all_well(&vec![reinforced(d, "by-two"); 2]);
    let adapter = |out: &str| bytes(&d.join(out).join("adapter_model.safetensors"));
    assert!(
        adapter("whole") == adapter("by-two"),
        "the resumed adapter differs"
    );
    grpo(&reinforced(d, "by-one"), &mut Silent).unwrap();
    let (apart, largest) = adapter_distance(&d.join("whole"), &d.join("by-one"));
    assert!(apart <= 1e-4 * largest, "{apart} of {largest}");
}

#[test]
fn servers_draw_for_all_and_one_that_fails_ends_all() {
    let dir = world();
    let d = dir.path();
    let (alone, shared) = (Mock::well(), Mock::well());
    grpo(&by_servers(d, "one", &[&alone]), &mut Silent).unwrap();
    all_well(&vec![by_servers(d, "two", &[&shared]); 2]);
    let (apart, largest) = adapter_distance(&d.join("one"), &d.join("two"));
    assert!(apart <= 1e-4 * largest, "{apart} of {largest}");
    assert_eq!(
        alone.asked("/v1/completions").len(),
        shared.asked("/v1/completions").len(),
        "one process asks for all"
    );

    let dies = Mock::start(
        "mock",
        |number, _| {
            if number < 8 { Act::Well } else { Act::Close }
        },
    );
    let results = together(&vec![by_servers(d, "dies", &[&dies]); 2], silent);
    let [leader, follower] = &results[..] else {
        panic!("{results:?}");
    };
    assert!(
        matches!(leader, Err(TrainError::Servers { .. })),
        "{leader:?}"
    );
    let said = follower.as_ref().unwrap_err().to_string();
    assert!(said.contains("rank 0 has gone"), "{said}");

    // What each would draw and learn is compared before anything is written.
    let mut other = reinforced(d, "out");
    other.run.micro_batch_tokens += 1;
    for result in together(&[reinforced(d, "out"), other], silent) {
        let said = result.unwrap_err().to_string();
        assert!(
            said.contains("rank 1") && said.contains("micro_batch_tokens"),
            "{said}"
        );
    }
    assert!(!d.join("out").exists(), "nothing is written");
}
