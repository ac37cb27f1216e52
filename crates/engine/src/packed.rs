//! Loading of matrices: panels in place on the file's mapping, or integers from the file or floats rounded to integers, packed into one
//! arena.
//!
//! A decode step reads every weight once, so the arena lies in large pages where the system has them: with small ones a processor in a
//! virtual machine spends most of the step in page walks. What is packed is read through the file's handle, so that its mapping does not
//! become resident.

use std::ops::Range;
use std::sync::Arc;

use edgethink_kernels::{
    Bits, GROUP, KernelError, PANEL, PackedMut, PackedRef, PackedShape, advise_huge_pages,
    pack_rows, quantize_weights,
};
use edgethink_model::quant::{block_codes, has_offsets};
use edgethink_model::{Bytes, Dtype, Tensor, panels};
use edgethink_pool::Pool;

use crate::error::EngineError;
use crate::matrix::{Hold, Matrix};
use crate::spare::Spare;

/// Rows that one task converts at most, which bounds its scratch; a multiple of the panel.
const LOAD_ROWS: usize = 64;
/// Bytes of the file that one task reads if that is more than a panel: they stay in the second-level cache until they are packed.
const LOAD_BYTES: usize = 256 << 10;
/// Alignment of the quants in bytes: a cache line, which is also the widest vector.
const ALIGN: usize = 64;

/// A tensor to be loaded.
pub(crate) struct Item<'a> {
    pub(crate) name: String,
    pub(crate) tensor: &'a Tensor,
    pub(crate) hold: Hold,
}

/// A packed matrix.
#[derive(Debug)]
pub(crate) struct Packed {
    shape: PackedShape,
    panels: Panels,
}

/// Where panels lie.
#[derive(Debug)]
enum Panels {
    /// In memory of our own, which all matrices share.
    Arena(Arc<Vec<u8>>, Range<usize>),
    /// In the file.
    File(Bytes),
}

impl Packed {
    /// For the kernels.
    pub(crate) fn view(&self) -> PackedRef<'_> {
        let bytes = match &self.panels {
            Panels::Arena(arena, range) => &arena[range.clone()],
            Panels::File(bytes) => bytes.as_slice(),
        };
        PackedRef::new(self.shape, bytes)
    }

    /// Sizes.
    pub(crate) fn shape(&self) -> PackedShape {
        self.shape
    }
}

/// A part of a matrix, converted by one task.
struct Part<'a> {
    item: &'a Item<'a>,
    rows: Range<usize>,
    target: PackedMut<'a>,
    result: Result<(), EngineError>,
}

/// What a part is read into on its way to the panels.
#[derive(Default)]
struct Scratch {
    bytes: Vec<u8>,
    floats: Vec<f32>,
    codes: Vec<u8>,
    scales: Vec<f32>,
    offsets: Vec<f32>,
}

/// Loads all matrices, in order. Those that are held as stored floats, or lie in panels, stay on the file's mapping.
pub(crate) fn load(items: &[Item<'_>], pool: &Pool) -> Result<Vec<Matrix>, EngineError> {
    let shapes = items.iter().map(shape).collect::<Result<Vec<_>, _>>()?;
    let to_pack = || {
        let all = items.iter().zip(&shapes);
        all.filter_map(|(item, shape)| Some((item, (*shape)?)))
            .filter(|(item, _)| item.in_place().is_none())
    };
    let bytes: usize = to_pack().map(|(_, shape)| shape.bytes()).sum();
    let mut arena = vec![0u8; bytes + ALIGN];
    let _ = advise_huge_pages(&mut arena); // only speed depends on it
    let skip = arena.as_ptr().align_offset(ALIGN).min(ALIGN);

    let (mut parts, mut rest) = (Vec::new(), &mut arena[skip..]);
    for (item, shape) in to_pack() {
        let (mine, tail) = std::mem::take(&mut rest).split_at_mut(shape.bytes());
        rest = tail;
        let mut target = PackedMut::new(shape, mine);
        let row_bytes = item.tensor.row_size().max(1);
        let rows = (LOAD_BYTES / row_bytes / PANEL * PANEL).clamp(PANEL, LOAD_ROWS);
        for first in (0..shape.rows).step_by(rows) {
            let panels = (rows / PANEL).min(target.shape().panels());
            let (head, tail) = target.split_at_panel(panels);
            target = tail;
            parts.push(Part {
                item,
                rows: first..first + head.shape().rows,
                target: head,
                result: Ok(()),
            });
        }
    }
    let spare = Spare::<Scratch>::default();
    pool.for_each_mut(&mut parts, |_, part| {
        let (rows, target) = (part.rows.clone(), &mut part.target);
        part.result = spare.with(|scratch| convert(part.item, rows, scratch, target));
    });
    parts.into_iter().try_for_each(|part| part.result)?;

    let (arena, mut at) = (Arc::new(arena), skip);
    let matrix = |(item, shape): (&Item<'_>, Option<PackedShape>)| {
        let Some(shape) = shape else {
            return Matrix::Dense(item.tensor.clone());
        };
        let panels = match item.in_place() {
            Some(bytes) => Panels::File(bytes.clone()),
            None => {
                let range = at..at + shape.bytes();
                at = range.end;
                Panels::Arena(Arc::clone(&arena), range)
            }
        };
        Matrix::Packed(Packed { shape, panels })
    };
    Ok(items.iter().zip(shapes).map(matrix).collect())
}

impl Item<'_> {
    /// The file's own panels, if that is how it is to be held.
    fn in_place(&self) -> Option<&Bytes> {
        self.tensor.panels().filter(|_| self.hold == Hold::Stored)
    }
}

/// The packed shape of an item, `None` for floats in place.
fn shape(item: &Item<'_>) -> Result<Option<PackedShape>, EngineError> {
    let Item { name, tensor, hold } = item;
    let (rows, mut cols) = (tensor.rows(), tensor.cols());
    if let Hold::Scaled(_) = hold {
        cols = cols.next_multiple_of(GROUP);
    }
    let (bits, has_offset) = match (hold, tensor.dtype.code_bits()) {
        (Hold::Rounded(bits), _) => (*bits, false),
        (Hold::Scaled(_), _) => (Bits::B8, false),
        (Hold::Stored, None) if tensor.dtype == Dtype::Q6K => (Bits::B6, false),
        (Hold::Stored, None) => return Ok(None),
        (Hold::Stored, Some(4)) => (Bits::B4, has_offsets(tensor.dtype)),
        (Hold::Stored, Some(_)) => (Bits::B8, has_offsets(tensor.dtype)),
    };
    if !cols.is_multiple_of(GROUP) {
        return Err(EngineError::Columns {
            name: name.clone(),
            cols,
        });
    }
    Ok(Some(PackedShape {
        rows,
        cols,
        bits,
        has_offset,
    }))
}

/// Reads rows of the tensor and packs them.
fn convert(
    item: &Item<'_>,
    rows: Range<usize>,
    scratch: &mut Scratch,
    target: &mut PackedMut<'_>,
) -> Result<(), EngineError> {
    let Item { name, tensor, hold } = item;
    let cols = target.shape().cols;
    let len = rows.len() * cols;
    let Scratch {
        bytes,
        floats,
        codes,
        scales,
        offsets,
    } = scratch;
    let unreadable = |source| EngineError::Read {
        name: name.clone(),
        source: Arc::new(source),
    };
    let damaged = |source| EngineError::Quantize {
        name: name.clone(),
        source,
    };
    if *hold == Hold::Stored {
        tensor
            .read_rows_into(rows.clone(), bytes)
            .map_err(unreadable)?;
        if panels::DTYPES.contains(&tensor.dtype) {
            return panels::to_panels(tensor.dtype, cols, bytes, target.bytes_mut()).map_err(
                |panels::NotFinite { row, block }| {
                    let group = block * target.shape().bits.block_cols() / GROUP;
                    damaged(KernelError::ScaleRange { row, group })
                },
            );
        }
    }
    codes.resize(len, 0);
    scales.resize(len / GROUP, 0.0);
    offsets.resize(len / GROUP, 0.0);
    match hold {
        Hold::Stored => block_codes(tensor.dtype, bytes, codes, scales, offsets),
        Hold::Rounded(bits) => {
            floats.resize(len, 0.0);
            tensor.read_rows_f32(rows, floats).map_err(unreadable)?;
            quantize_weights(*bits, cols, floats, codes, scales).map_err(damaged)?;
        }
        Hold::Scaled(exponent) if tensor.dtype == Dtype::I8 => {
            tensor
                .read_rows_into(rows.clone(), bytes)
                .map_err(unreadable)?;
            let (_, row_scales) = tensor.as_int8().expect("it is I8");
            let factor = 2f32.powi(*exponent);
            let stored = bytes.chunks_exact(tensor.cols());
            let packed = codes
                .chunks_exact_mut(cols)
                .zip(scales.chunks_exact_mut(cols / GROUP));
            for ((codes, scales), (stored, scale)) in packed.zip(stored.zip(&row_scales[rows])) {
                // Codes from −128 on become codes with their zero at 128.
                codes.fill(128);
                codes
                    .iter_mut()
                    .zip(stored)
                    .for_each(|(code, q)| *code = q ^ 0x80);
                scales.fill(scale * factor);
            }
        }
        Hold::Scaled(exponent) => {
            floats.clear();
            floats.resize(len, 0.0);
            let (count, stored) = (rows.len(), tensor.cols());
            tensor
                .read_rows_f32(rows, &mut floats[..count * stored])
                .map_err(unreadable)?;
            if stored < cols {
                for row in (0..count).rev() {
                    floats.copy_within(row * stored..(row + 1) * stored, row * cols);
                    floats[row * cols + stored..(row + 1) * cols].fill(0.0);
                }
            }
            let factor = 2f32.powi(*exponent);
            floats.iter_mut().for_each(|x| *x *= factor);
            quantize_weights(Bits::B8, cols, floats, codes, scales).map_err(damaged)?;
        }
    }
    let offsets = target.shape().has_offset.then_some(offsets.as_slice());
    pack_rows(target, 0, codes, scales, offsets).map_err(damaged)
}

#[cfg(test)]
mod tests {
    use half::f16;

    use super::*;

    /// Codes with a scale per row are packed as they are, and columns behind the last are zeros.
    #[test]
    fn codes_of_rows_stay() {
        let shape = vec![20, 40];
        let codes: Vec<u8> = (0..20 * 40).map(|i: usize| (i * 37 % 251) as u8).collect();
        let scales: Vec<f32> = (0..20).map(|row| 2f32.powi(-row)).collect();
        let tensor = Tensor::int8(shape, Bytes::copy_of(&codes), &scales).expect("fits");
        let item = Item {
            name: "t".to_owned(),
            tensor: &tensor,
            hold: Hold::Scaled(3),
        };
        let loaded = load(&[item], &Pool::new(1).expect("a pool")).expect("loads");
        let mut row = [1.0; 64];
        for (r, want) in tensor.to_f32().chunks_exact(40).enumerate() {
            loaded[0].row_into(r, &mut row);
            let want = want.iter().map(|x| 8.0 * x).chain([0.0; 24]);
            assert!(row.iter().copied().eq(want), "row {r}");
        }
    }

    /// The layout of the model's panels is that of the kernels.
    #[test]
    fn blocks_give_what_their_codes_give() {
        for (bits, dtype) in [(Bits::B4, Dtype::Q4_0), (Bits::B8, Dtype::Q8_0)] {
            for rows in [1, 16, 35] {
                let shape = PackedShape {
                    rows,
                    cols: 96,
                    bits,
                    has_offset: false,
                };
                let (mut blocks, mut codes, mut scales) = (Vec::new(), Vec::new(), Vec::new());
                for index in 0..rows * 3 {
                    let scale = f16::from_f32(index as f32 / 64.0 - 1.0);
                    blocks.extend_from_slice(&scale.to_le_bytes());
                    scales.push(scale.to_f32());
                    let code = |c: usize| (index * 37 + c * 11 + index * c) as u8;
                    if bits == Bits::B8 {
                        blocks.extend((0..32).map(code));
                        codes.extend((0..32).map(|c| code(c) ^ 0x80));
                    } else {
                        blocks.extend((0..16).map(code));
                        codes.extend((0..16).map(|c| code(c) & 15));
                        codes.extend((0..16).map(|c| code(c) >> 4));
                    }
                }
                let (mut want, mut got) = (vec![1; shape.bytes()], vec![7; shape.bytes()]);
                pack_rows(
                    &mut PackedMut::new(shape, &mut want),
                    0,
                    &codes,
                    &scales,
                    None,
                )
                .expect("finite");
                panels::to_panels(dtype, 96, &blocks, &mut got).expect("finite");
                assert_eq!(got, want, "{bits:?}, {rows} rows");
            }
        }
    }

    /// What training on a quantized base relies on: the engine multiplies with exactly the values that the file's blocks stand for.
    #[test]
    fn stored_blocks_are_held_bit_for_bit() {
        for dtype in panels::DTYPES {
            let cols = 3 * dtype.block_len();
            let shape = vec![70, cols];
            let mut bytes = vec![0u8; dtype.tensor_bytes(&shape).expect("a small tensor")];
            for (i, block) in bytes.chunks_mut(dtype.block_bytes()).enumerate() {
                for (j, byte) in block.iter_mut().enumerate() {
                    *byte = ((i * 31 + j * 73 + i * j) & 255) as u8;
                }
                // Every sign and many sizes of scale, the smallest included, and every code.
                let scale = ((i * 389) as u16 % 0x7000) | ((i as u16 & 1) << 15);
                let at = if dtype == Dtype::Q6K { 208 } else { 0 };
                block[at..at + 2].copy_from_slice(&scale.to_le_bytes());
            }
            let tensor = Tensor::new(dtype, shape, Bytes::copy_of(&bytes)).expect("whole blocks");
            let item = Item {
                name: "w".to_owned(),
                tensor: &tensor,
                hold: Hold::Stored,
            };
            let held = load(&[item], &Pool::new(2).expect("threads"))
                .expect("it packs")
                .remove(0);
            assert!(held.is_packed());
            let want = tensor.to_f32();
            let mut row = vec![f32::NAN; cols];
            for (r, want) in want.chunks(cols).enumerate() {
                held.row_into(r, &mut row);
                for (got, want) in row.iter().zip(want) {
                    assert!(got == want, "{dtype}, row {r}: {got} for {want}");
                }
            }
        }
    }
}
