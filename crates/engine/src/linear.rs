//! Linear layers of a batch: y = W x + b, and + scale · B (A x) on the rows of each adapter.
//!
//! All matrices that share an input are one region of work: their units and the A products of the adapters are handed to the pool
//! together. Where there are adapters a second region adds the B products; A x is quantized before it where B is in 8 bits.

use std::ops::Range;

use edgethink_kernels::{ColumnsMut, GROUP, Isa, QuantGroup, QuantRows, add_assign};
use edgethink_model::Linear;

use crate::adapters::{AdapterSet, Pair};
use crate::batch::Segment;
use crate::matrix::{Input, Matrix};
use crate::profile::{Part, Profile};
use crate::rows::{Needs, Work};
use crate::weights::Layer;

/// Units of a task of the base at least.
pub(crate) const BASE_UNITS: usize = 4;
/// And of an adapter, whose floats are slower and whose A comes last in its region.
const ADAPTER_UNITS: usize = 2;

/// One matrix of a group with a common input.
pub(crate) struct Product<'a> {
    pub(crate) linear: Linear,
    pub(crate) matrix: &'a Matrix,
    /// `[out]`
    pub(crate) bias: Option<&'a [f32]>,
    /// `[T, out]`
    pub(crate) out: &'a mut [f32],
    /// Whether it is added to `out`.
    pub(crate) add: bool,
}

/// The adapters of a batch.
pub(crate) struct Deltas<'a> {
    pub(crate) adapters: &'a AdapterSet,
    pub(crate) segments: &'a [Segment],
    pub(crate) layer: usize,
}

/// A part of a region: units of a matrix on some token rows.
struct Task<'a> {
    matrix: &'a Matrix,
    units: Range<usize>,
    input: Input<'a>,
    bias: Option<&'a [f32]>,
    out: ColumnsMut<'a>,
    accumulate: Option<f32>,
}

/// A x of the adapters, reused between calls.
#[derive(Debug, Default)]
pub(crate) struct Scratch {
    floats: Vec<f32>,
    quants: Vec<QuantGroup>,
}

/// A pair that acts on a segment.
struct Delta<'a> {
    product: usize,
    segment: &'a Segment,
    pair: &'a Pair,
    /// Where A x lies in the scratch, `[T, columns of B]`.
    floats: Range<usize>,
    /// And its groups, if B is in 8 bits.
    quants: Range<usize>,
}

/// Computes all products. `input` has rows of `cols` elements; `scratch` is reused between calls. The time is that of `part`, and what
/// the second region takes that of [`Part::LoraB`].
pub(crate) fn multiply(
    work: &Work<'_>,
    products: &mut [Product<'_>],
    input: Input<'_>,
    deltas: &Deltas<'_>,
    scratch: &mut Scratch,
    profile: &mut Profile,
    part: Part,
) {
    let deltas = acting(products, deltas, scratch);
    let base = products.iter().map(|p| p.matrix.units());
    let mut left: usize = base.chain(deltas.iter().map(|d| d.pair.a.units())).sum();

    let mut tasks = Vec::new();
    for product in products.iter_mut() {
        let whole = Task {
            matrix: product.matrix,
            units: 0..product.matrix.units(),
            input,
            bias: product.bias,
            out: ColumnsMut::new(product.out, product.matrix.rows()),
            accumulate: product.add.then_some(1.0),
        };
        whole.split(work, BASE_UNITS, &mut left, &mut tasks);
    }
    let mut rest = &mut scratch.floats[..];
    for delta in &deltas {
        let Pair { a, b, .. } = delta.pair;
        let (mine, tail) = std::mem::take(&mut rest).split_at_mut(delta.floats.len());
        rest = tail;
        if a.rows() < b.cols() {
            mine.fill(0.0);
        }
        let whole = Task {
            matrix: a,
            units: 0..a.units(),
            input: input.slice(delta.segment.rows.clone(), a.cols()),
            bias: None,
            out: ColumnsMut::new(mine, b.cols()).split_at(a.rows()).0,
            accumulate: None,
        };
        whole.split(work, ADAPTER_UNITS, &mut left, &mut tasks);
    }
    run(work, &mut tasks);
    drop(tasks);
    profile.lap_with(part, || {
        let base = products.iter().map(|p| p.matrix.size_bytes());
        let adapters = deltas.iter().map(|d| d.pair.a.size_bytes());
        let macs = products.iter().map(|p| p.out.len() * p.matrix.cols());
        let more = deltas
            .iter()
            .map(|d| d.segment.rows.len() * d.pair.a.rows() * d.pair.a.cols());
        (base.chain(adapters).sum(), macs.chain(more).sum())
    });
    if deltas.is_empty() {
        return;
    }

    quantize(work, &deltas, scratch);
    let mut left = deltas.iter().map(|d| d.pair.b.units()).sum();
    let mut tasks = Vec::new();
    for (index, product) in products.iter_mut().enumerate() {
        let width = product.matrix.rows();
        let mut rest = &mut *product.out;
        let mut at = 0;
        // Segments are disjoint and ascending.
        for delta in deltas.iter().filter(|d| d.product == index) {
            let rows = &delta.segment.rows;
            let (_, tail) = std::mem::take(&mut rest).split_at_mut((rows.start - at) * width);
            let (mine, tail) = tail.split_at_mut(rows.len() * width);
            (rest, at) = (tail, rows.end);
            let Pair { b, scale, .. } = delta.pair;
            let quants = &scratch.quants[delta.quants.clone()];
            let whole = Task {
                matrix: b,
                units: 0..b.units(),
                input: Input {
                    floats: &scratch.floats[delta.floats.clone()],
                    quants: b.is_packed().then(|| QuantRows::new(b.cols(), quants)),
                },
                bias: None,
                out: ColumnsMut::new(mine, width),
                accumulate: Some(*scale),
            };
            whole.split(work, ADAPTER_UNITS, &mut left, &mut tasks);
        }
    }
    run(work, &mut tasks);
    drop(tasks);
    profile.lap_with(Part::LoraB, || {
        let bytes = deltas.iter().map(|d| d.pair.b.size_bytes()).sum();
        let macs = deltas
            .iter()
            .map(|d| d.floats.len() * d.pair.b.rows())
            .sum();
        (bytes, macs)
    });
}

/// The pairs that act, with room for them in the scratch.
fn acting<'a>(
    products: &[Product<'_>],
    deltas: &Deltas<'a>,
    scratch: &mut Scratch,
) -> Vec<Delta<'a>> {
    let mut acting: Vec<Delta<'_>> = Vec::new();
    let (mut floats, mut quants) = (0, 0);
    for (product, p) in products.iter().enumerate() {
        for segment in deltas.segments {
            let pair = deltas
                .adapters
                .pair(segment.adapter, deltas.layer, p.linear);
            let Some(pair) = pair else { continue };
            let len = segment.rows.len() * pair.b.cols();
            let groups = if pair.b.is_packed() { len / GROUP } else { 0 };
            acting.push(Delta {
                product,
                segment,
                pair,
                floats: floats..floats + len,
                quants: quants..quants + groups,
            });
            (floats, quants) = (floats + len, quants + groups);
        }
    }
    if scratch.floats.len() < floats {
        scratch.floats.resize(floats, 0.0);
    }
    if scratch.quants.len() < quants {
        scratch.quants.resize(quants, QuantGroup::default());
    }
    acting
}

/// A x to int8 where B is in 8 bits. A row that is not finite becomes zeros and is reported.
fn quantize(work: &Work<'_>, deltas: &[Delta<'_>], scratch: &mut Scratch) {
    let mut rows = Vec::new();
    let mut elements = 0;
    let mut rest = &mut scratch.quants[..];
    for delta in deltas.iter().filter(|d| d.pair.b.is_packed()) {
        let (mine, tail) = std::mem::take(&mut rest).split_at_mut(delta.quants.len());
        rest = tail;
        elements += delta.floats.len();
        let cols = delta.pair.b.cols();
        let floats = scratch.floats[delta.floats.clone()].chunks_exact(cols);
        let quants = mine.chunks_exact_mut(cols / GROUP);
        rows.extend(delta.segment.rows.clone().zip(floats.zip(quants)));
    }
    work.for_rows(&mut rows, elements, |(row, (floats, quants))| {
        work.quantize(*row, floats, quants);
    });
}

impl<'a> Task<'a> {
    /// Cuts it into tasks, smaller and smaller ones, of `least` units or more. `left` counts the units of the region that have no task yet.
    fn split(self, work: &Work<'_>, least: usize, left: &mut usize, tasks: &mut Vec<Task<'a>>) {
        let mut rest = self.out;
        let mut first = self.units.start;
        while first < self.units.end {
            let units = first..(first + work.share(*left, least)).min(self.units.end);
            first = units.end;
            *left -= units.len();
            let rows = self.matrix.rows_of(units.clone());
            let (out, tail) = rest.split_at(rows.len());
            rest = tail;
            tasks.push(Task {
                units,
                bias: self.bias.map(|bias| &bias[rows]),
                out,
                ..self
            });
        }
    }
}

fn run(work: &Work<'_>, tasks: &mut [Task<'_>]) {
    let isa = work.isa;
    work.pool.for_each_mut(tasks, |_, task| {
        let Task {
            matrix,
            units,
            input,
            bias,
            out,
            accumulate,
        } = task;
        matrix.multiply(isa, units.clone(), *input, out, *accumulate);
        add_bias(isa, *bias, out);
    });
}

/// Adds the bias, if there is one, to every row.
pub(crate) fn add_bias(isa: Isa, bias: Option<&[f32]>, out: &mut ColumnsMut<'_>) {
    let Some(bias) = bias else { return };
    for t in 0..out.rows() {
        add_assign(isa, out.row_mut(t), bias);
    }
}

impl Deltas<'_> {
    /// What these linears of a layer read of their rows.
    pub(crate) fn needs(&self, layer: &Layer, linears: &[Linear]) -> Needs {
        Needs {
            floats: !layer.all_packed(linears) || self.act_on(linears),
            quants: layer.needs_quants(linears),
        }
    }

    /// Whether an adapter changes one of these layers, on any row.
    pub(crate) fn act_on(&self, linears: &[Linear]) -> bool {
        self.segments.iter().any(|segment| {
            let pair = |&linear| self.adapters.pair(segment.adapter, self.layer, linear);
            linears.iter().any(|linear| pair(linear).is_some())
        })
    }
}
