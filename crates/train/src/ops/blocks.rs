//! How much a GPU's operations hold at a time; `plan` counts with them in every build.

/// Scores of the attention (64 MiB of f32), where the shortest block allows it.
pub(crate) const SCORES: usize = 16 << 20;
/// Query rows of the shortest block of scores.
pub(crate) const SHORTEST_SCORES: usize = 64;
/// Logits of the loss (128 MiB of f32): products with fewer rows leave a GPU idle.
pub(crate) const LOGITS: usize = 32 << 20;
/// Rows of the shortest chunk of logits.
pub(crate) const SHORTEST_LOGITS: usize = 16;
