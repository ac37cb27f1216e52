//! The steps of a layer that work on one token row at a time, each followed by the quantization that the next matrices need.
//!
//! A row that is not finite becomes zeros and is reported; the other rows of the batch are not touched by it.

use std::sync::Mutex;

use edgethink_kernels::{GROUP, Isa, QuantGroup, QuantRows, quantize_rows, rms_norm, swiglu};
use edgethink_pool::Pool;

use crate::matrix::Input;
use crate::spare::Spare;

/// Elements per task below which handing work to another thread costs more than it saves.
const TASK_ELEMENTS: usize = 8192;

/// Rows that a task takes at most.
const TASK_ROWS: usize = 8;

/// Tasks per thread at least: enough that a late thread is helped.
const TASKS_PER_THREAD: usize = 4;

/// What of some token rows is read: packed matrices read int8 groups, others and most adapters floats.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Needs {
    pub(crate) floats: bool,
    pub(crate) quants: bool,
}

/// Token rows as floats, as int8 groups, or both. With the rows of a prompt, what nobody reads would go to memory.
#[derive(Debug, Default)]
pub(crate) struct Rows {
    cols: usize,
    pub(crate) floats: Vec<f32>,
    quantized: bool,
    quants: Vec<QuantGroup>,
    /// One row of floats that are not kept.
    spare: Spare<Vec<f32>>,
}

/// One row under construction.
struct Row<'a> {
    index: usize,
    floats: Option<&'a mut [f32]>,
    quants: Option<&'a mut [QuantGroup]>,
    /// The residual stream's row, where the step changes it.
    residual: Option<&'a mut [f32]>,
}

impl Rows {
    /// As the input of matrices.
    pub(crate) fn input(&self) -> Input<'_> {
        let quants = self
            .quantized
            .then(|| QuantRows::new(self.cols, &self.quants));
        Input {
            floats: &self.floats,
            quants,
        }
    }

    /// out = norm(x).
    pub(crate) fn norm(
        &mut self,
        work: &Work<'_>,
        x: &mut [f32],
        weight: &[f32],
        eps: f32,
        needs: Needs,
    ) {
        let e = weight.len();
        self.fill(work, x.len() / e, e, needs, Some(x), |row, floats| {
            let residual = row.residual.as_deref().expect("the residual is given");
            rms_norm(work.isa, residual, weight, eps, floats).is_ok()
        });
    }

    /// The rows' floats `[T, cols]`, to be written before a step that changes them in place.
    pub(crate) fn floats_mut(&mut self, rows: usize, cols: usize) -> &mut [f32] {
        self.floats.resize(rows * cols, 0.0);
        &mut self.floats
    }

    /// The rows' groups `[T, cols / 32]`, to be written; their floats are not there.
    pub(crate) fn quants_mut(&mut self, rows: usize, cols: usize) -> &mut [QuantGroup] {
        (self.cols, self.quantized) = (cols, true);
        self.floats.clear();
        let groups = rows * cols / GROUP;
        self.quants.resize(groups, QuantGroup::default());
        &mut self.quants
    }

    /// self = silu(self) · up, both `[T, F]`: the widest rows of a layer are held twice and not three times.
    pub(crate) fn gated(&mut self, work: &Work<'_>, up: &[f32], cols: usize, quantize: bool) {
        let needs = Needs {
            floats: true,
            quants: quantize,
        };
        self.fill(work, up.len() / cols, cols, needs, None, |row, floats| {
            let up = &up[row.index * cols..(row.index + 1) * cols];
            swiglu(work.isa, floats, up);
            // Quantizing looks for itself.
            row.quants.is_some() || floats.iter().all(|x| x.is_finite())
        });
    }

    /// out `[n, K·W]` from `picked` rows of `x` `[K, T, W]`: heads back side by side.
    pub(crate) fn gather(
        &mut self,
        work: &Work<'_>,
        x: &[f32],
        picked: &[usize],
        rows: usize,
        width: usize,
        needs: Needs,
    ) {
        let cols = x.len() / rows;
        self.fill(work, picked.len(), cols, needs, None, |row, floats| {
            for (head, out) in floats.chunks_exact_mut(width).enumerate() {
                out.copy_from_slice(&x[(head * rows + picked[row.index]) * width..][..width]);
            }
            true
        });
    }

    fn fill(
        &mut self,
        work: &Work<'_>,
        rows: usize,
        cols: usize,
        needs: Needs,
        residual: Option<&mut [f32]>,
        step: impl Fn(&Row<'_>, &mut [f32]) -> bool + Sync,
    ) {
        (self.cols, self.quantized) = (cols, needs.quants);
        let kept = if needs.floats { rows * cols } else { 0 };
        self.floats.resize(kept, 0.0);
        let groups = if needs.quants { cols / GROUP } else { 0 };
        self.quants.resize(rows * groups, QuantGroup::default());
        let mut residuals = residual.map(|x| x.chunks_exact_mut(cols));
        let mut quants = self.quants.chunks_exact_mut(groups.max(1));
        let mut floats = self.floats.chunks_exact_mut(cols);
        let mut tasks: Vec<Row<'_>> = Vec::with_capacity(rows);
        for index in 0..rows {
            tasks.push(Row {
                index,
                floats: floats.next(),
                quants: quants.next(),
                residual: residuals.as_mut().and_then(Iterator::next),
            });
        }
        let one = |row: &mut Row<'_>, floats: &mut [f32]| {
            let mut finite = step(row, floats);
            if let Some(quants) = &mut row.quants {
                finite = finite && quantize_rows(work.isa, cols, floats, quants).is_ok();
                if !finite {
                    quants.fill(QuantGroup::default());
                }
            }
            if !finite {
                floats.fill(0.0);
                if let Some(residual) = row.residual.as_deref_mut() {
                    residual.fill(0.0);
                }
                work.fail(row.index);
            }
        };
        work.for_parts(&mut tasks, rows * cols, |part| {
            self.spare.with(|spare| {
                for row in part {
                    if let Some(floats) = row.floats.take() {
                        one(row, floats);
                    } else {
                        spare.resize(cols, 0.0);
                        one(row, spare);
                    }
                }
            });
        });
    }
}

/// Who computes, and where rows that are not finite are noted.
pub(crate) struct Work<'a> {
    pub(crate) pool: &'a Pool,
    pub(crate) isa: Isa,
    pub(crate) failed: &'a Mutex<Vec<usize>>,
}

impl Work<'_> {
    /// Tasks that attention and many rows are cut into at least, if they can be.
    pub(crate) fn tasks(&self) -> usize {
        match self.pool.threads() {
            1 => 1,
            threads => threads * TASKS_PER_THREAD,
        }
    }

    /// Units of the next task of a region of matrices, of which so many have none yet: less and less, so that a slow thread is not waited
    /// for, but long runs of weights at first; a multiple of `least` if there are as many, as a single token row takes some panels at a time.
    pub(crate) fn share(&self, left: usize, least: usize) -> usize {
        match self.pool.threads() {
            1 => left,
            threads => left.div_ceil(2 * threads).next_multiple_of(least),
        }
    }

    /// A step on rows that have so many elements together: by all threads if they are enough.
    pub(crate) fn for_rows<T: Send>(
        &self,
        rows: &mut [T],
        elements: usize,
        step: impl Fn(&mut T) + Sync,
    ) {
        self.for_parts(rows, elements, |part| part.iter_mut().for_each(&step));
    }

    /// The same, some rows after each other at a time.
    fn for_parts<T: Send>(&self, rows: &mut [T], elements: usize, step: impl Fn(&mut [T]) + Sync) {
        if elements < TASK_ELEMENTS {
            step(rows);
            return;
        }
        let most = rows.len().div_ceil(self.tasks()).min(TASK_ROWS);
        let mut parts: Vec<_> = rows.chunks_mut(most).collect();
        self.pool.for_each_mut(&mut parts, |_, part| step(part));
    }

    /// Quantizes a row. One that is not finite becomes zeros and is noted.
    pub(crate) fn quantize(&self, row: usize, x: &[f32], groups: &mut [QuantGroup]) {
        if quantize_rows(self.isa, x.len(), x, groups).is_err() {
            groups.fill(QuantGroup::default());
            self.fail(row);
        }
    }

    /// Notes a row that is not finite.
    pub(crate) fn fail(&self, row: usize) {
        self.failed.lock().expect("no task panicked").push(row);
    }
}
