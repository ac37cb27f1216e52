//! LoRA adapters: y = W x + scale * B (A x) on the linear layers.

use crate::{ContentHash, Tensor};

/// The two matrices of one linear layer.
#[derive(Debug, Clone)]
pub struct LoraPair {
    /// `[R, in]`.
    pub a: Tensor,
    /// `[out, R]`.
    pub b: Tensor,
    /// alpha / r, or alpha / sqrt(r) for rslora.
    pub scale: f32,
}

/// An adapter, checked against the config of its base.
#[derive(Debug, Clone)]
pub struct Adapter {
    /// Name for people: the directory or file it came from.
    pub name: String,
    /// The tokens at whose last occurrence the adapter begins (activated LoRA); `None` for a plain LoRA.
    pub invocation: Option<Vec<u32>>,
    /// Pairs per layer, indexed by `Linear as usize`.
    pub layers: Vec<[Option<LoraPair>; 7]>,
    /// Identity of its tensors, scales and invocation.
    pub hash: ContentHash,
    /// Largest R.
    pub rank_max: usize,
    /// Linear layers that it changes.
    pub matched: usize,
}

impl Adapter {
    /// The first token that the adapter acts on, by PEFT's rule: the first token of the last occurrence of the
    /// invocation sequence, or `None` if it does not occur. A plain LoRA acts from token 0.
    pub fn start(&self, tokens: &[u32]) -> Option<usize> {
        match &self.invocation {
            None => Some(0),
            Some(sequence) => tokens
                .windows(sequence.len().max(1))
                .rposition(|window| window == sequence),
        }
    }
}
