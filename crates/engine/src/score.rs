//! Logits of a whole token sequence, outside any request.

use crate::batch::{Batch, Piece};
use crate::block_pool::{BLOCK_TOKENS, BlockId};
use crate::engine::Engine;
use crate::error::{EngineError, Place, RequestError};
use crate::request::AdapterSpan;

impl Engine {
    /// Logits of all tokens of a sequence, `[T, V]`, outside any request and without the prefix cache: for scoring and tests.
    ///
    /// # Errors
    /// [`EngineError::NoBlocks`] if running requests hold too many blocks, or [`RequestError`] for bad tokens, an unknown adapter, or
    /// values that are not finite.
    pub fn logits(
        &mut self,
        tokens: &[u32],
        adapter: Option<AdapterSpan>,
    ) -> Result<Vec<f32>, EngineError> {
        let vocab_size = self.model.config.vocab_size;
        if let Some((index, &token)) = tokens
            .iter()
            .enumerate()
            .find(|&(_, &token)| token as usize >= vocab_size)
        {
            return Err(RequestError::Token {
                index,
                token,
                vocab_size,
            }
            .into());
        }
        let context = self.context_tokens();
        if tokens.len() > context {
            return Err(RequestError::ContextOverflow {
                prompt: tokens.len(),
                context,
            }
            .into());
        }
        self.owner_span(adapter)?;
        let blocks = self
            .scheduler
            .borrow_blocks(tokens.len().div_ceil(BLOCK_TOKENS));
        let blocks = blocks.ok_or(EngineError::NoBlocks {
            tokens: tokens.len(),
        })?;
        let result = self.logits_in(tokens, adapter, &blocks);
        self.scheduler.return_blocks(blocks);
        Ok(result?)
    }

    fn logits_in(
        &mut self,
        tokens: &[u32],
        adapter: Option<AdapterSpan>,
        blocks: &[BlockId],
    ) -> Result<Vec<f32>, RequestError> {
        let group = self.model.config.group_size();
        let mut all = Vec::new();
        for start in (0..tokens.len()).step_by(self.options.max_batch_tokens) {
            let end = (start + self.options.max_batch_tokens).min(tokens.len());
            let pieces: Vec<Piece<'_>> = AdapterSpan::pieces(adapter, start..end)
                .map(|(part, adapter)| Piece {
                    tokens: &tokens[part.clone()],
                    start: part.start,
                    blocks,
                    adapter,
                })
                .collect();
            let batch = Batch::new(&pieces, group);
            let rows: Vec<usize> = batch.piece_rows.iter().cloned().flatten().collect();
            let output = self.runner.forward(&batch, &self.adapters, &rows, &[]);
            if let Some(&(row, place)) = output.failed.first() {
                return Err(RequestError::NonFinite {
                    position: batch.rows[row].position,
                    place,
                });
            }
            all.extend_from_slice(&output.logits);
            self.runner.reuse(output.logits);
        }
        match all.iter().position(|x| !x.is_finite()) {
            Some(at) => Err(RequestError::NonFinite {
                position: at / self.model.config.vocab_size,
                place: Place::Logits,
            }),
            None => Ok(all),
        }
    }
}
