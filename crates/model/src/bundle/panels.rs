//! The base of a bundle as a GGUF file whose matrices lie in [`panels`]: the same header, the same places, and within each matrix the same
//! bytes in the order in which an engine reads them. So the mapping of the bundle is what the engine multiplies with.

use std::io;

use super::CHUNK;
use crate::gguf::Gguf;
use crate::{Bytes, Dtype, panels};

/// Name of such a base. Not `.gguf`, as no other program reads it rightly; unpacking gives the GGUF file back.
pub(super) const PANELS: &str = "model.panels";

/// What lies in panels in a base of this name, by the bundle's format.
pub(super) fn dtypes(format: u64) -> &'static [Dtype] {
    match format {
        ..=2 => &[Dtype::Q4_0, Dtype::Q8_0],
        _ => &panels::DTYPES,
    }
}

/// The lowest format in which all matrices of a GGUF file that can lie in panels do; none if there is no such matrix.
pub(super) fn format(file: &Bytes) -> Option<u64> {
    let gguf = Gguf::parse(file.as_slice()).ok()?;
    let tensors = gguf.tensors.iter();
    let in_panels = tensors.filter(|t| panels::possible(t.dtype, &t.shape));
    let of_each = in_panels.map(|t| if dtypes(2).contains(&t.dtype) { 2 } else { 3 });
    of_each.max()
}

/// The order that a file is turned to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum To {
    Panels,
    Rows,
}

/// Gives the bytes of `file` with its matrices of `dtypes` in the other order to `take`, a run at a time.
///
/// # Errors
/// `InvalidData` for a file that is no GGUF or has a scale that is not finite; a failed read; what `take` gives.
pub(super) fn turn(
    file: &Bytes,
    to: To,
    dtypes: &[Dtype],
    take: &mut dyn FnMut(&[u8]) -> io::Result<()>,
) -> io::Result<()> {
    let damaged = |text: String| io::Error::new(io::ErrorKind::InvalidData, text);
    let gguf = Gguf::parse(file.as_slice()).map_err(|e| damaged(e.to_string()))?;
    let mut tensors: Vec<_> = gguf.tensors.iter().collect();
    tensors.retain(|t| dtypes.contains(&t.dtype) && panels::possible(t.dtype, &t.shape));
    tensors.sort_by_key(|t| t.range.start);
    let (mut turned, mut at) = (Vec::new(), 0);
    for tensor in tensors {
        let (name, cols) = (tensor.name, tensor.shape[1]);
        file.read_runs(at..tensor.range.start, CHUNK, take)?;
        at = tensor.range.end;
        let mut first = 0;
        let panel = tensor.dtype.row_bytes(cols).unwrap_or(0).max(1) * panels::PANEL;
        let step = (CHUNK / panel).max(1) * panel;
        file.read_runs(tensor.range.clone(), step, &mut |run| {
            match to {
                To::Rows => panels::to_rows(tensor.dtype, cols, run, &mut turned),
                To::Panels => {
                    turned.resize(run.len(), 0);
                    panels::to_panels(tensor.dtype, cols, run, &mut turned)
                        .map_err(|e| damaged(format!("{name:?}, behind row {first}: {e}")))?;
                }
            }
            first += run.len() / panel * panels::PANEL;
            take(&turned)
        })?;
    }
    file.read_runs(at..file.len(), CHUNK, take)
}
