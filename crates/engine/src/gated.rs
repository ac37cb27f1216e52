//! silu(gate x) · up x of packed matrices that no adapter changes, in one region of work: a task multiplies some columns of both, and gates
//! and quantizes them while they are in its cache. With the rows of a prompt, gate and up would go to memory and back otherwise.

use std::ops::Range;

use edgethink_kernels::{ColumnsMut, GROUP, PANEL, QuantGroup, quantize_columns, swiglu};

use crate::linear::{BASE_UNITS, add_bias};
use crate::matrix::{Input, Matrix};
use crate::rows::Work;
use crate::spare::Spare;

/// Elements of gate and of up that a task holds at once.
const HELD: usize = 32 * 1024;

/// Units of both matrices, and where their groups go.
struct Task<'a> {
    units: Range<usize>,
    /// `[T, groups of the units]`
    out: ColumnsMut<'a, QuantGroup>,
}

/// What a thread holds at once.
#[derive(Debug, Default)]
pub(crate) struct Held {
    gate: Vec<f32>,
    up: Vec<f32>,
}

/// `out` `[T, F / 32]` = the groups of silu(gate) · up. Rows of which a part is not finite get zeros there and are noted.
pub(crate) fn gated(
    work: &Work<'_>,
    linears: [(&Matrix, Option<&[f32]>); 2],
    input: Input<'_>,
    spare: &Spare<Held>,
    out: &mut [QuantGroup],
) {
    let units = linears[0].0.units();
    let (mut tasks, mut first) = (Vec::new(), 0);
    let mut rest = ColumnsMut::new(out, units * PANEL / GROUP);
    while first < units {
        let some = first..(first + work.share(2 * (units - first), BASE_UNITS)).min(units);
        first = some.end;
        let (out, tail) = rest.split_at(some.len() * PANEL / GROUP);
        rest = tail;
        tasks.push(Task { units: some, out });
    }
    let run = |held: &mut Held, task: &mut Task<'_>| {
        let rows = task.out.rows();
        let most = (HELD / (rows * PANEL)).next_multiple_of(BASE_UNITS);
        for first in task.units.clone().step_by(most) {
            let units = first..(first + most).min(task.units.end);
            let at = (first - task.units.start) * PANEL / GROUP;
            let mut out = task.out.part(at..at + units.len() * PANEL / GROUP);
            held.compute(work, linears, units, input, &mut out);
        }
    };
    let pool = work.pool;
    pool.for_each_mut(&mut tasks, |_, task| spare.with(|held| run(held, task)));
}

impl Held {
    /// Some units for all rows.
    fn compute(
        &mut self,
        work: &Work<'_>,
        linears: [(&Matrix, Option<&[f32]>); 2],
        units: Range<usize>,
        input: Input<'_>,
        out: &mut ColumnsMut<'_, QuantGroup>,
    ) {
        let (rows, cols) = (out.rows(), units.len() * PANEL);
        let Self { gate, up } = self;
        for ((matrix, bias), target) in linears.into_iter().zip([&mut *gate, &mut *up]) {
            target.resize(rows * cols, 0.0);
            let mut target = ColumnsMut::new(target, cols);
            matrix.multiply(work.isa, units.clone(), input, &mut target, None);
            let bias = bias.map(|bias| &bias[matrix.rows_of(units.clone())]);
            add_bias(work.isa, bias, &mut target);
        }
        swiglu(work.isa, gate, up);
        if quantize_columns(work.isa, gate, out).is_ok() {
            return;
        }
        for (row, gate) in gate.chunks_exact(cols).enumerate() {
            work.quantize(row, gate, out.row_mut(row));
        }
    }
}
