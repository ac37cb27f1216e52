//! Attention in 16 or 8 lanes, whichever the visible rows of a tile fill better.

use super::{narrow, wide};
use crate::attention::{Step, TileState};

/// Lets the 16 rows of a tile see up to 32 tokens.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni,avx2,fma,f16c")]
pub(crate) fn step(kv: &Step<'_>, tile: &mut TileState<'_>) {
    let upper_half_sees = kv.from[8..]
        .iter()
        .zip(&kv.to[8..])
        .any(|(from, to)| from < to);
    if upper_half_sees {
        wide::attention::step(kv, tile);
    } else {
        narrow::attention::step(kv, tile);
    }
}
