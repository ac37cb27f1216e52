//! Behaviour of the pool through its public API, with as many and with more threads than cores.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use edgethink_pool::Pool;

fn pools() -> impl Iterator<Item = Pool> {
    [1, 2, 3, 16]
        .into_iter()
        .map(|threads| Pool::new(threads).expect("threads start"))
}

#[test]
fn every_index_runs_once() {
    for pool in pools() {
        for n in [0, 1, 2, 7, 100, 1000] {
            let counts: Vec<AtomicUsize> = (0..n).map(|_| AtomicUsize::new(0)).collect();
            pool.run(n, |i| {
                counts[i].fetch_add(1, Ordering::Relaxed);
            });
            assert!(
                counts.iter().all(|c| c.load(Ordering::Relaxed) == 1),
                "{} threads, n = {n}",
                pool.threads()
            );
        }
    }
}

#[test]
fn items_are_visited_mutably() {
    for pool in pools() {
        let mut items = vec![0usize; 333];
        for round in 0..50 {
            pool.for_each_mut(&mut items, |i, item| *item += i + round);
        }
        let rounds: usize = (0..50).sum();
        assert!(
            items
                .iter()
                .enumerate()
                .all(|(i, &item)| item == 50 * i + rounds)
        );
    }
}

#[test]
fn many_short_calls_under_contention() {
    // More threads than cores, and pauses that let workers fall asleep at different moments.
    let pool = Pool::new(16).expect("threads start");
    let total = AtomicUsize::new(0);
    for call in 0..3000 {
        pool.run(5, |i| {
            total.fetch_add(i, Ordering::Relaxed);
        });
        if call % 500 == 0 {
            std::thread::sleep(Duration::from_millis(3));
        }
    }
    assert_eq!(total.into_inner(), 3000 * 10);
}

#[test]
fn calls_from_several_threads_take_turns() {
    let pool = Pool::new(3).expect("threads start");
    let total = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                for _ in 0..200 {
                    pool.run(10, |_| {
                        total.fetch_add(1, Ordering::Relaxed);
                    });
                }
            });
        }
    });
    assert_eq!(total.into_inner(), 4 * 200 * 10);
}

#[test]
fn nested_calls_run_inline() {
    let pool = Pool::new(4).expect("threads start");
    let total = AtomicUsize::new(0);
    pool.run(8, |_| {
        pool.run(8, |_| {
            total.fetch_add(1, Ordering::Relaxed);
        });
    });
    assert_eq!(total.into_inner(), 64);
}

#[test]
fn a_panic_reaches_the_caller_and_the_pool_goes_on() {
    for pool in pools() {
        for bad in [0, 3, 99] {
            let result = catch_unwind(AssertUnwindSafe(|| {
                pool.run(100, |i| assert!(i != bad, "task {i}"));
            }));
            let payload = result.expect_err("the panic must propagate");
            assert_eq!(
                payload.downcast_ref::<String>().map(String::as_str),
                Some(format!("task {bad}").as_str())
            );
        }
        let total = AtomicUsize::new(0);
        pool.run(100, |i| {
            total.fetch_add(i, Ordering::Relaxed);
        });
        assert_eq!(total.into_inner(), 4950);
    }
}

#[test]
fn the_caller_waits_for_a_slow_task_of_a_worker() {
    let pool = Pool::new(2).expect("threads start");
    for _ in 0..5 {
        let mut items = [0u32; 2];
        pool.for_each_mut(&mut items, |i, item| {
            std::thread::sleep(Duration::from_millis(if i == 0 { 1 } else { 20 }));
            *item = 1;
        });
        assert_eq!(items, [1, 1]);
    }
}

#[test]
fn pools_can_be_dropped_while_workers_sleep_or_spin() {
    for pause in [0, 5] {
        let pool = Pool::new(4).expect("threads start");
        pool.run(4, |_| {});
        std::thread::sleep(Duration::from_millis(pause));
        drop(pool);
    }
}
