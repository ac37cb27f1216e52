//! Linear layers of a batch: y = W x + b, and + scale · B (A x) on the rows of each adapter.
//!
//! All matrices that share an input are one region of work: their units and the A products of the adapters are handed to the pool
//! together. Where there are adapters a second region adds the B products.

use std::ops::Range;

use edgethink_kernels::{ColumnsMut, gemm_dense};
use edgethink_model::{Linear, LoraPair};
use edgethink_pool::Pool;

use crate::adapters::AdapterSet;
use crate::batch::Segment;
use crate::matrix::{Input, Matrix, dense_view};
use crate::profile::{Part, Profile};
use crate::rows::Work;

/// Tasks per thread: enough that a late thread is helped, few enough that each reads a long run of weights.
const TASKS_PER_THREAD: usize = 4;

/// One matrix of a group with a common input.
pub(crate) struct Product<'a> {
    pub(crate) linear: Linear,
    pub(crate) matrix: &'a Matrix,
    /// `[out]`
    pub(crate) bias: Option<&'a [f32]>,
    /// `[T, out]`
    pub(crate) out: &'a mut [f32],
}

/// The adapters of a batch.
pub(crate) struct Deltas<'a> {
    pub(crate) adapters: &'a AdapterSet,
    pub(crate) segments: &'a [Segment],
    pub(crate) layer: usize,
}

/// A part of a region.
enum Task<'a> {
    /// Units of a matrix.
    Base {
        matrix: &'a Matrix,
        units: Range<usize>,
        bias: Option<&'a [f32]>,
        out: ColumnsMut<'a>,
    },
    /// Rows of A or B on the token rows of an adapter.
    Lora {
        pair: &'a LoraPair,
        is_b: bool,
        rows: Range<usize>,
        x: &'a [f32],
        out: ColumnsMut<'a>,
    },
}

/// Computes all products. `input` has rows of `cols` elements; `scratch` is reused between calls. The time is that of `part`, and what
/// the second region takes that of [`Part::LoraB`].
pub(crate) fn multiply(
    work: &Work<'_>,
    products: &mut [Product<'_>],
    input: Input<'_>,
    deltas: &Deltas<'_>,
    scratch: &mut Vec<f32>,
    profile: &mut Profile,
    part: Part,
) {
    let pool = work.pool;
    let units: usize = products.iter().map(|p| p.matrix.units()).sum();
    let per_task = units.div_ceil(parts(pool)).max(1);
    // Every pair that acts, with where its A x lies in the scratch.
    struct Delta<'a> {
        product: usize,
        segment: &'a Segment,
        pair: &'a LoraPair,
        scratch: Range<usize>,
    }
    let mut pairs: Vec<Delta<'_>> = Vec::new();
    let mut needed = 0;
    for (product, p) in products.iter().enumerate() {
        for segment in deltas.segments {
            if let Some(pair) = deltas
                .adapters
                .pair(segment.adapter, deltas.layer, p.linear)
            {
                let len = segment.rows.len() * pair.a.rows();
                pairs.push(Delta {
                    product,
                    segment,
                    pair,
                    scratch: needed..needed + len,
                });
                needed += len;
            }
        }
    }
    if scratch.len() < needed {
        scratch.resize(needed, 0.0);
    }

    let mut tasks = Vec::with_capacity(units / per_task + products.len() + 2 * pairs.len());
    for product in products.iter_mut() {
        let matrix = product.matrix;
        let mut rest = ColumnsMut::new(product.out, matrix.rows());
        for first in (0..matrix.units()).step_by(per_task) {
            let units = first..(first + per_task).min(matrix.units());
            let rows = matrix.rows_of(units.clone());
            let (out, tail) = rest.split_at(rows.len());
            rest = tail;
            tasks.push(Task::Base {
                matrix,
                bias: product.bias.map(|b| &b[rows]),
                units,
                out,
            });
        }
    }
    let mut rest = &mut scratch[..needed];
    for Delta {
        segment,
        pair,
        scratch,
        ..
    } in &pairs
    {
        let (mine, tail) = std::mem::take(&mut rest).split_at_mut(scratch.len());
        rest = tail;
        let x = &input.floats[segment.rows.start * pair.a.cols()..segment.rows.end * pair.a.cols()];
        lora_tasks(&mut tasks, pool, pair, false, x, mine);
    }
    run(work, &mut tasks, input);
    drop(tasks);
    profile.lap_with(part, || {
        let base = products
            .iter()
            .map(|p| p.matrix.size_bytes())
            .sum::<usize>();
        let adapters = pairs
            .iter()
            .map(|d| d.pair.a.storage().len())
            .sum::<usize>();
        let macs = products
            .iter()
            .map(|p| p.out.len() * p.matrix.cols())
            .sum::<usize>();
        let more = pairs
            .iter()
            .map(|d| d.scratch.len() * d.pair.a.cols())
            .sum::<usize>();
        (base + adapters, macs + more)
    });
    if pairs.is_empty() {
        return;
    }

    let mut tasks = Vec::with_capacity(2 * pairs.len());
    for (index, product) in products.iter_mut().enumerate() {
        let width = product.matrix.rows();
        let mut rest = &mut *product.out;
        let mut at = 0;
        // Segments are disjoint and ascending.
        for Delta {
            segment,
            pair,
            scratch: range,
            ..
        } in pairs.iter().filter(|d| d.product == index)
        {
            let (_, tail) =
                std::mem::take(&mut rest).split_at_mut((segment.rows.start - at) * width);
            let (mine, tail) = tail.split_at_mut(segment.rows.len() * width);
            (rest, at) = (tail, segment.rows.end);
            lora_tasks(&mut tasks, pool, pair, true, &scratch[range.clone()], mine);
        }
    }
    run(work, &mut tasks, input);
    drop(tasks);
    profile.lap_with(Part::LoraB, || {
        let bytes = pairs.iter().map(|d| d.pair.b.storage().len()).sum();
        let macs = pairs
            .iter()
            .map(|d| d.scratch.len() * d.pair.b.rows())
            .sum();
        (bytes, macs)
    });
}

fn parts(pool: &Pool) -> usize {
    if pool.threads() == 1 {
        1
    } else {
        pool.threads() * TASKS_PER_THREAD
    }
}

/// Splits the rows of A or B over tasks that write `out` `[T, rows]`.
fn lora_tasks<'a>(
    tasks: &mut Vec<Task<'a>>,
    pool: &Pool,
    pair: &'a LoraPair,
    is_b: bool,
    x: &'a [f32],
    out: &'a mut [f32],
) {
    let rows = if is_b { pair.b.rows() } else { pair.a.rows() };
    let per_task = rows.div_ceil(parts(pool)).max(16);
    let mut rest = ColumnsMut::new(out, rows);
    for first in (0..rows).step_by(per_task) {
        let rows = first..(first + per_task).min(rows);
        let (out, tail) = rest.split_at(rows.len());
        rest = tail;
        tasks.push(Task::Lora {
            pair,
            is_b,
            rows,
            x,
            out,
        });
    }
}

fn run(work: &Work<'_>, tasks: &mut [Task<'_>], input: Input<'_>) {
    let isa = work.isa;
    work.pool.for_each_mut(tasks, |_, task| match task {
        Task::Base {
            matrix,
            units,
            bias,
            out,
        } => {
            matrix.multiply(isa, units.clone(), input, out);
            if let Some(bias) = bias {
                for t in 0..out.rows() {
                    edgethink_kernels::add_assign(isa, out.row_mut(t), bias);
                }
            }
        }
        Task::Lora {
            pair,
            is_b,
            rows,
            x,
            out,
        } => {
            let (weight, accumulate) = if *is_b {
                (&pair.b, Some(pair.scale))
            } else {
                (&pair.a, None)
            };
            gemm_dense(
                isa,
                dense_view(weight),
                weight.cols(),
                rows.clone(),
                x,
                out,
                accumulate,
            );
        }
    });
}
