//! Inference engine: sequences, KV blocks, scheduler, adapters per token span, sampler.
