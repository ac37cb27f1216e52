//! One forward pass as rows: every token to compute with its position, its KV slot and its adapter.
//!
//! Rows of one adapter are adjacent, so that its matrices are applied to slices; within that, rows keep the order of their sequences.
//! For attention, adjacent rows whose sequences begin with the same block form a tile: the tile visits the shared blocks once for all
//! of its rows, and then each sequence's own blocks with the other rows masked. A prefill chunk and the streams of one prompt are the
//! two cases of this.

use std::ops::Range;

use crate::block_pool::{BLOCK_TOKENS, BlockId};
use crate::request::AdapterId;

/// Query rows of a tile at most (tokens × heads of a group): bounds its state to the second-level cache.
const TILE_QUERIES: usize = 256;

/// Tokens of a part of a sequence, a multiple of the block.
const PART: usize = 256;

/// Consecutive tokens of a sequence, all with the same adapter or none.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Piece<'a> {
    /// The tokens to compute.
    pub(crate) tokens: &'a [u32],
    /// Position of the first.
    pub(crate) start: usize,
    /// The sequence's block table.
    pub(crate) blocks: &'a [BlockId],
    /// Who acts on them besides the base.
    pub(crate) adapter: Option<AdapterId>,
}

/// One token row.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Row {
    pub(crate) token: u32,
    pub(crate) position: usize,
    /// Where its KV goes.
    pub(crate) slot: usize,
}

/// Rows of one adapter.
#[derive(Debug, Clone)]
pub(crate) struct Segment {
    pub(crate) adapter: AdapterId,
    pub(crate) rows: Range<usize>,
}

/// Rows that visit blocks together.
#[derive(Debug)]
pub(crate) struct Tile {
    pub(crate) rows: Range<usize>,
    /// Position of each query row, `[rows × G]`.
    pub(crate) positions: Vec<u32>,
    pub(crate) steps: Vec<Step>,
    /// The steps by the part of the sequence that they are in.
    pub(crate) parts: Vec<Range<usize>>,
    /// Positions with foreign rows masked, for the steps that need it.
    masks: Vec<u32>,
}

/// A block to visit.
#[derive(Debug)]
pub(crate) struct Step {
    pub(crate) block: BlockId,
    /// Tokens of it that are filled.
    pub(crate) tokens: usize,
    /// Position of its first token.
    pub(crate) first: usize,
    mask: Option<Range<usize>>,
}

/// A forward pass to do.
#[derive(Debug)]
pub(crate) struct Batch {
    pub(crate) rows: Vec<Row>,
    pub(crate) segments: Vec<Segment>,
    pub(crate) tiles: Vec<Tile>,
    /// The rows of each piece, in the order in which the pieces were given.
    pub(crate) piece_rows: Vec<Range<usize>>,
}

impl Batch {
    /// Lays the pieces out. `group` is G, the query heads per kv head.
    pub(crate) fn new(pieces: &[Piece<'_>], group: usize) -> Self {
        let mut order: Vec<usize> = (0..pieces.len()).collect();
        order.sort_by_key(|&i| pieces[i].adapter);
        let mut batch = Batch {
            rows: Vec::new(),
            segments: Vec::new(),
            tiles: Vec::new(),
            piece_rows: vec![0..0; pieces.len()],
        };
        for &index in &order {
            let piece = &pieces[index];
            let first = batch.rows.len();
            for (offset, &token) in piece.tokens.iter().enumerate() {
                let position = piece.start + offset;
                let slot = piece.blocks[position / BLOCK_TOKENS].index() * BLOCK_TOKENS
                    + position % BLOCK_TOKENS;
                batch.rows.push(Row {
                    token,
                    position,
                    slot,
                });
            }
            let rows = first..batch.rows.len();
            batch.piece_rows[index] = rows.clone();
            if let Some(adapter) = piece.adapter {
                match batch.segments.last_mut() {
                    Some(last) if last.adapter == adapter => last.rows.end = rows.end,
                    _ => batch.segments.push(Segment { adapter, rows }),
                }
            }
        }
        batch.tiles = tiles(pieces, &order, group);
        batch
    }

    /// The segments among some rows, which ascend: ranges of their places.
    pub(crate) fn segments_of(&self, rows: &[usize]) -> Vec<Segment> {
        let place = |row: usize| rows.partition_point(|&r| r < row);
        self.segments
            .iter()
            .map(|segment| Segment {
                adapter: segment.adapter,
                rows: place(segment.rows.start)..place(segment.rows.end),
            })
            .filter(|segment| !segment.rows.is_empty())
            .collect()
    }
}

impl Tile {
    /// Positions of the tile's query rows for a step; rows that must not see the block have position 0, which is before it.
    pub(crate) fn positions(&self, step: &Step) -> &[u32] {
        step.mask
            .clone()
            .map_or(&self.positions, |range| &self.masks[range])
    }
}

/// Cuts the rows into tiles.
fn tiles(pieces: &[Piece<'_>], order: &[usize], group: usize) -> Vec<Tile> {
    let most = (TILE_QUERIES / group).max(1);
    let mut tiles = Vec::new();
    let mut members: Vec<Piece<'_>> = Vec::new();
    let (mut first, mut count) = (0, 0);
    for &index in order {
        let mut rest = pieces[index];
        while !rest.tokens.is_empty() {
            let fits = members
                .first()
                .is_none_or(|m| m.blocks[0] == rest.blocks[0])
                && count < most;
            if !fits {
                tiles.push(tile(&members, first, group));
                members.clear();
                (first, count) = (first + count, 0);
            }
            let (head, tail) = rest.tokens.split_at(rest.tokens.len().min(most - count));
            members.push(Piece {
                tokens: head,
                ..rest
            });
            count += head.len();
            rest = Piece {
                tokens: tail,
                start: rest.start + head.len(),
                ..rest
            };
        }
    }
    if !members.is_empty() {
        tiles.push(tile(&members, first, group));
    }
    tiles
}

/// The tile of some pieces that share their first block.
fn tile(members: &[Piece<'_>], first: usize, group: usize) -> Tile {
    let positions_of = |piece: &Piece<'_>| {
        let range = piece.start..piece.start + piece.tokens.len();
        range.flat_map(move |position| std::iter::repeat_n(position as u32, group))
    };
    let positions: Vec<u32> = members.iter().flat_map(positions_of).collect();
    let rows = first..first + positions.len() / group;
    let end = |piece: &Piece<'_>| piece.start + piece.tokens.len();
    let last = members.iter().map(end).max().unwrap_or(0);
    let (mut steps, mut masks) = (Vec::new(), Vec::new());
    for index in 0..last.div_ceil(BLOCK_TOKENS) {
        let start = index * BLOCK_TOKENS;
        // The distinct blocks at this place, in the order of their first member.
        let mut blocks: Vec<BlockId> = Vec::new();
        let sees = |piece: &Piece<'_>| end(piece) > start;
        for piece in members.iter().filter(|piece| sees(piece)) {
            if !blocks.contains(&piece.blocks[index]) {
                blocks.push(piece.blocks[index]);
            }
        }
        let alone = blocks.len() == 1;
        for block in blocks {
            let reads = |piece: &Piece<'_>| sees(piece) && piece.blocks[index] == block;
            let filled = members
                .iter()
                .filter(|piece| reads(piece))
                .map(end)
                .max()
                .unwrap_or(0);
            // Rows of other blocks are masked; rows that end before this block see nothing of it anyway.
            let mask = (!alone).then(|| {
                let from = masks.len();
                for piece in members {
                    let visible = reads(piece);
                    masks.extend(positions_of(piece).map(|p| if visible { p } else { 0 }));
                }
                from..masks.len()
            });
            steps.push(Step {
                block,
                tokens: (filled - start).min(BLOCK_TOKENS),
                first: start,
                mask,
            });
        }
    }
    let by_part = |a: &Step, b: &Step| a.first / PART == b.first / PART;
    let mut parts = Vec::new();
    for part in steps.chunk_by(by_part) {
        let first = parts.last().map_or(0, |part: &Range<usize>| part.end);
        parts.push(first..first + part.len());
    }
    Tile {
        rows,
        positions,
        steps,
        parts,
        masks,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::block_pool::BlockPool;

    #[test]
    fn every_row_visits_exactly_its_own_blocks_in_order() {
        let mut pool = BlockPool::new(16);
        let mut new = || pool.alloc().expect("free");
        let (shared, other) = ([new(), new()], [new(), new(), new()]);
        let tables: Vec<Vec<BlockId>> = vec![
            vec![shared[0], shared[1], new()],
            vec![shared[0], shared[1], new()],
            other.to_vec(),
            vec![shared[0], new()],
        ];
        let tokens = [5u32; 40];
        let pieces = [
            Piece {
                tokens: &tokens[..1],
                start: 70,
                blocks: &tables[0],
                adapter: Some(AdapterId(1)),
            },
            Piece {
                tokens: &tokens[..1],
                start: 66,
                blocks: &tables[1],
                adapter: Some(AdapterId(1)),
            },
            Piece {
                tokens: &tokens,
                start: 30,
                blocks: &tables[2],
                adapter: None,
            },
            Piece {
                tokens: &tokens[..2],
                start: 40,
                blocks: &tables[3],
                adapter: Some(AdapterId(1)),
            },
        ];
        let group = 7;
        let batch = Batch::new(&pieces, group);
        assert_eq!(batch.piece_rows, [40..41, 41..42, 0..40, 42..44]);
        assert_eq!(batch.segments.len(), 1);
        assert_eq!(batch.segments[0].rows, 40..44);
        let kept = batch.segments_of(&[3, 41, 43]);
        assert_eq!(kept.len(), 1);
        assert_eq!(kept[0].rows, 1..3);
        assert!(batch.segments_of(&[0, 39]).is_empty());
        let covered: Vec<usize> = batch.tiles.iter().flat_map(|t| t.rows.clone()).collect();
        assert_eq!(covered, (0..44).collect::<Vec<_>>());
        assert!(
            batch.tiles.iter().any(|t| t.rows == (40..44)),
            "streams of one prompt share a tile"
        );
        for (piece, rows) in pieces.iter().zip(&batch.piece_rows) {
            for row in rows.clone() {
                let position = batch.rows[row].position;
                let tile = batch
                    .tiles
                    .iter()
                    .find(|t| t.rows.contains(&row))
                    .expect("covered");
                let query = (row - tile.rows.start) * group;
                let mut visited = Vec::new();
                for step in &tile.steps {
                    let seen = tile.positions(step)[query] as usize + 1;
                    if seen > step.first {
                        assert!(step.tokens >= (seen - step.first).min(BLOCK_TOKENS));
                        visited.push(step.block);
                    }
                }
                assert_eq!(
                    visited,
                    piece.blocks[..position / BLOCK_TOKENS + 1],
                    "row {row}"
                );
            }
        }
    }
}
