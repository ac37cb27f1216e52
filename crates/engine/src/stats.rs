//! Sizes and counts of an engine.

/// What has been done since the engine was made.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counters {
    /// Forward passes.
    pub steps: u64,
    /// Token rows computed.
    pub computed_tokens: u64,
    /// Prompt tokens of requests whose prompt is computed.
    pub prompt_tokens: u64,
    /// How many of those the prefix cache had.
    pub cached_tokens: u64,
    /// Tokens reported by streams.
    pub generated_tokens: u64,
}

/// A snapshot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EngineStats {
    /// Bytes of the weights in memory once all were used.
    pub weights_bytes: usize,
    /// Bytes of all loaded adapters.
    pub adapters_bytes: usize,
    /// Bytes of KV per token, all layers.
    pub kv_bytes_per_token: usize,
    /// Bytes of the whole KV cache once all of it was used.
    pub kv_bytes: usize,
    /// KV blocks of 32 tokens.
    pub blocks_total: usize,
    /// Blocks that nobody holds.
    pub blocks_free: usize,
    /// Blocks in the prefix cache, some of them also held by streams.
    pub blocks_cached: usize,
    /// Blocks that sequences hold, the cached ones among them included.
    pub blocks_held: usize,
    /// Sequences with KV.
    pub running: usize,
    /// Sequences without.
    pub waiting: usize,
    /// How often a sequence lost its blocks to an older one.
    pub preemptions: u64,
    /// What has been done.
    pub counters: Counters,
}
