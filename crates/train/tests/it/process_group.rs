//! Several processes that train one model: the same result as one, the same end, and what they say when they do not fit.

use std::net::TcpListener;
use std::path::Path;
use std::time::Duration;

use crate::support::*;
use edgethink_model::hf::safetensors;
use edgethink_train::{
    Event, ProcessGroup, Progress, SftRecipe, Silent, TrainError, base, sft, sft_in,
};

/// An address that nobody listens at.
fn free() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    listener.local_addr().unwrap().to_string()
}

fn join(rank: usize, size: usize, address: &str) -> Result<ProcessGroup, TrainError> {
    ProcessGroup::join(rank, size, address, Duration::from_secs(20))
}

/// Trains by one process for each recipe; the results in the order of the ranks.
fn together(
    recipes: &[SftRecipe],
    progress: fn(usize) -> Box<dyn Progress>,
) -> Vec<Result<(), TrainError>> {
    let address = &free();
    std::thread::scope(|scope| {
        let run = |(rank, recipe)| {
            scope.spawn(move || {
                let mut group = join(rank, recipes.len(), address)?;
                sft_in(recipe, &mut group, &mut *progress(rank)).map(drop)
            })
        };
        let running: Vec<_> = recipes.iter().enumerate().map(run).collect();
        let results = running.into_iter().map(|thread| thread.join().unwrap());
        results.collect()
    })
}

fn silent(_: usize) -> Box<dyn Progress> {
    Box::new(Silent)
}

/// The largest difference of a value between two adapters, and the largest value.
fn distance(dir: &Path, a: &str, b: &str) -> (f32, f32) {
    let open =
        |name: &str| safetensors::open(&dir.join(name).join("adapter_model.safetensors")).unwrap();
    let (a, b) = (open(a), open(b));
    assert!(!a.is_empty() && a.keys().eq(b.keys()));
    let (mut apart, mut largest) = (0f32, 0f32);
    for (name, tensor) in &a {
        for (x, y) in tensor.to_f32().iter().zip(b[name].to_f32()) {
            apart = apart.max((x - y).abs());
            largest = largest.max(x.abs());
        }
    }
    (apart, largest)
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
        let recipes: Vec<SftRecipe> = (0..size).map(|_| recipe(&out)).collect();
        for result in together(&recipes, silent) {
            result.unwrap();
        }
        // The order of the sums differs, nothing else.
        let (apart, largest) = distance(dir.path(), "one", &out);
        assert!(
            apart <= 1e-4 * largest,
            "{size} processes: {apart} of {largest}"
        );
        let loss = |run: &str| last(dir.path(), run, "loss");
        assert!((loss("one") - loss(&out)).abs() < 1e-4);
    }
}

/// Wants to stop from step 4 on.
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

#[test]
fn one_that_stops_stops_all_and_another_number_goes_on() {
    let dir = with_base();
    let recipe = |out: &str| sft_recipe(dir.path(), "base", out, true, 2.0);
    sft(&recipe("whole"), &mut Silent).unwrap();
    let stopped = together(&[recipe("parts"), recipe("parts")], |rank| {
        Box::new(StopAt4 {
            stops: rank == 1,
            asked: 0,
        })
    });
    for result in &stopped {
        assert!(
            matches!(result, Err(TrainError::Stopped { step: 5, .. })),
            "{result:?}"
        );
    }
    sft(&recipe("parts"), &mut Silent).unwrap();
    let (apart, largest) = distance(dir.path(), "whole", "parts");
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
