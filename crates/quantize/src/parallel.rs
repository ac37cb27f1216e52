//! Work split over scoped threads by index; results come back in order, so the split never changes them.

use std::ops::Range;

/// Calls `work` on consecutive ranges of `0..n`, one per thread, and returns the results in order.
pub(crate) fn ranges<R: Send>(
    threads: usize,
    n: usize,
    work: impl Fn(Range<usize>) -> R + Sync,
) -> Vec<R> {
    let per_thread = n.div_ceil(threads.max(1)).max(1);
    let ranges: Vec<Range<usize>> = (0..n)
        .step_by(per_thread)
        .map(|first| first..(first + per_thread).min(n))
        .collect();
    if ranges.len() <= 1 {
        return ranges.into_iter().map(work).collect();
    }
    std::thread::scope(|scope| {
        let work = &work;
        let handles: Vec<_> = ranges
            .into_iter()
            .map(|range| scope.spawn(move || work(range)))
            .collect();
        handles
            .into_iter()
            .map(|handle| match handle.join() {
                Ok(result) => result,
                Err(panic) => std::panic::resume_unwind(panic),
            })
            .collect()
    })
}

/// Calls `work` on every row of `cols` elements.
pub(crate) fn rows_mut(
    threads: usize,
    values: &mut [f32],
    cols: usize,
    work: impl Fn(&mut [f32]) + Sync,
) {
    let rows = (values.len() / cols).div_ceil(threads.max(1)).max(1);
    let work = &work;
    std::thread::scope(|scope| {
        for part in values.chunks_mut(rows * cols) {
            scope.spawn(move || part.chunks_exact_mut(cols).for_each(work));
        }
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_index_once_in_order() {
        for threads in [0, 1, 2, 3, 9] {
            let all: Vec<usize> = ranges(threads, 7, |r| r.collect::<Vec<_>>()).concat();
            assert_eq!(all, (0..7).collect::<Vec<_>>(), "{threads} threads");
        }
        assert!(ranges(2, 0, |r| r.len()).is_empty());
    }
}
