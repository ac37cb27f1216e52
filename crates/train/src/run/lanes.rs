//! Micro-batches of one step on several threads, with a sum that does not depend on their number.
//!
//! The micro-batches of a step go round a fixed number of lanes. Each lane adds up its own gradients on a tape of
//! its own, in order; the lanes are added in order. A thread takes whole lanes, so small networks, whose matrix
//! products are too short to share, use all cores. Large networks have one lane, as each needs memory for a
//! gradient, and share the work inside the products.

use std::sync::{
    Mutex, PoisonError,
    atomic::{AtomicUsize, Ordering},
};

use rayon::{ThreadPool, ThreadPoolBuilder};

use super::trainer::Batcher;
use crate::{
    data::Dataset,
    device::Device,
    error::TrainError,
    gradient::{self, Leaves, Pass},
    ops::simd,
    params::Param,
};

/// Lanes of a small network.
const LANES: usize = 4;
/// Trained values up to which a network counts as small (64 MiB of gradients per lane).
const SMALL: usize = 16 << 20;

/// Lanes of a network with so many trained values.
pub(crate) fn lanes_of(values: usize) -> usize {
    if values <= SMALL { LANES } else { 1 }
}

/// The lanes, their sums and the threads that work on them.
#[derive(Debug)]
pub(crate) struct Lanes {
    sums: Vec<Vec<Vec<f32>>>,
    pools: Vec<ThreadPool>,
}

impl Lanes {
    /// Lanes for gradients of the size of `params`. A GPU has one: it fills itself with one micro-batch.
    pub(crate) fn new(device: &Device, params: &[Param]) -> Result<Self, TrainError> {
        let values: usize = params.iter().map(|p| p.values.len()).sum();
        let lanes = if device.is_cpu() { lanes_of(values) } else { 1 };
        let threads = rayon::current_num_threads();
        let workers = threads.min(lanes);
        let pools = (0..workers)
            .map(|i| {
                // The threads that do not divide evenly go to the first workers.
                let share = threads / workers + usize::from(i < threads % workers);
                ThreadPoolBuilder::new().num_threads(share).build()
            })
            .collect::<Result<Vec<_>, _>>()
            .map_err(|source| TrainError::Pool { source })?;
        let zeros = || params.iter().map(|p| vec![0.0; p.values.len()]).collect();
        Ok(Self {
            sums: (0..lanes).map(|_| zeros()).collect(),
            pools,
        })
    }

    /// Does `work` on each item, on all threads; results come in the order of the items.
    pub(crate) fn map<T: Sync, R: Send>(
        &self,
        items: &[T],
        work: impl Fn(&T) -> R + Sync,
    ) -> Vec<R> {
        let next = AtomicUsize::new(0);
        let results: Vec<Mutex<Option<R>>> = items.iter().map(|_| Mutex::new(None)).collect();
        let take = || {
            loop {
                let at = next.fetch_add(1, Ordering::Relaxed);
                let (Some(item), Some(place)) = (items.get(at), results.get(at)) else {
                    return;
                };
                let result = work(item);
                *place.lock().unwrap_or_else(PoisonError::into_inner) = Some(result);
            }
        };
        std::thread::scope(|scope| {
            for pool in &self.pools {
                scope.spawn(|| pool.install(take));
            }
        });
        results
            .into_iter()
            .filter_map(|r| r.into_inner().unwrap_or_else(PoisonError::into_inner))
            .collect()
    }

    /// The loss of micro-batches of examples, summed over learnt tokens, and its gradient.
    pub(crate) fn accumulate(
        &mut self,
        pass: &Pass<'_>,
        leaves: &Leaves,
        batcher: &Batcher<'_>,
        set: &Dataset,
        micros: &[&[usize]],
    ) -> Result<(f64, &mut [Vec<f32>]), TrainError> {
        let count = self.sums.len();
        let lanes: Vec<_> = self
            .sums
            .iter_mut()
            .enumerate()
            .map(|(lane, sums)| Mutex::new((lane, sums, Ok(0.0f64))))
            .collect();
        let next = AtomicUsize::new(0);
        let work = || {
            while let Some(lane) = lanes.get(next.fetch_add(1, Ordering::Relaxed)) {
                let mut lane = lane.lock().unwrap_or_else(PoisonError::into_inner);
                let (index, sums, loss) = &mut *lane;
                sums.iter_mut().for_each(|s| s.fill(0.0));
                let mine = micros.iter().skip(*index).step_by(count);
                // A tape of its own: tapes that share a leaf wait for each other.
                let leaves = leaves.fork();
                *loss = mine
                    .map(|e| gradient::accumulate(pass, &leaves, &batcher.batch(set, e), sums))
                    .sum();
            }
        };
        std::thread::scope(|scope| {
            for pool in &self.pools {
                scope.spawn(|| pool.install(work));
            }
        });
        let losses = lanes
            .into_iter()
            .map(|lane| lane.into_inner().unwrap_or_else(PoisonError::into_inner).2)
            .collect::<Result<Vec<f64>, TrainError>>()?;
        let (total, rest) = self.sums.split_at_mut(1);
        for lane in rest {
            for (sum, part) in total[0].iter_mut().zip(lane) {
                simd::vectorized(|| simd::add_assign(sum, part));
            }
        }
        Ok((losses.iter().sum(), &mut total[0]))
    }
}
