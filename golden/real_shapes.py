"""Logits and greedy tokens of random models of real shapes, by transformers in f32, for a comparison by hand (not in CI).

Run:    python golden/real_shapes.py OUT [NAME...]                                   (minutes and about 5 GB of memory per case)
Then:   cargo run --release -p edgethink-engine --example real_shapes -- OUT [NAME...]   (writes the same weights to OUT, 2 GB per case)
Needs:  as model.py
"""

import pathlib
import sys

import torch
from transformers import LlamaConfig, LlamaForCausalLM, MistralConfig, MistralForCausalLM
from transformers import Qwen2Config, Qwen2ForCausalLM, Qwen3Config, Qwen3ForCausalLM

import model as tiny

LLAMA3 = dict(tiny.ROPE_LLAMA3, factor=32.0, original_max_position_embeddings=8192)

# fmt: off
SHAPES = {
    # Qwen2.5-0.5B
    "qwen2": (Qwen2ForCausalLM, Qwen2Config(
        hidden_size=896, intermediate_size=4864, num_hidden_layers=24, num_attention_heads=14, num_key_value_heads=2, vocab_size=151936,
        max_position_embeddings=32768, rope_parameters=dict(rope_type="default", rope_theta=1e6), tie_word_embeddings=True)),
    # Qwen3-0.6B
    "qwen3": (Qwen3ForCausalLM, Qwen3Config(
        hidden_size=1024, intermediate_size=3072, num_hidden_layers=28, num_attention_heads=16, num_key_value_heads=8, head_dim=128,
        vocab_size=151936, max_position_embeddings=40960, rope_parameters=dict(rope_type="default", rope_theta=1e6), tie_word_embeddings=True)),
    # Llama-3.2-1B with half of its layers
    "llama": (LlamaForCausalLM, LlamaConfig(
        hidden_size=2048, intermediate_size=8192, num_hidden_layers=8, num_attention_heads=32, num_key_value_heads=8, vocab_size=128256,
        max_position_embeddings=131072, rms_norm_eps=1e-5, rope_parameters=LLAMA3, tie_word_embeddings=True)),
    # SmolLM2-360M
    "smollm2": (LlamaForCausalLM, LlamaConfig(
        hidden_size=960, intermediate_size=2560, num_hidden_layers=32, num_attention_heads=15, num_key_value_heads=5, vocab_size=49152,
        max_position_embeddings=8192, rms_norm_eps=1e-5, rope_parameters=dict(rope_type="default", rope_theta=1e5), tie_word_embeddings=True)),
    # Mistral-7B with a quarter of its width and 16 layers, and a window that the prompt exceeds
    "mistral": (MistralForCausalLM, MistralConfig(
        hidden_size=1024, intermediate_size=3584, num_hidden_layers=16, num_attention_heads=8, num_key_value_heads=2, vocab_size=32000,
        max_position_embeddings=32768, rms_norm_eps=1e-5, sliding_window=12)),
}
# fmt: on

if __name__ == "__main__":
    tiny.OUT = pathlib.Path(sys.argv[1])
    tiny.OUT.mkdir(parents=True, exist_ok=True)
    tiny.FAMILIES = SHAPES
    for name in sys.argv[2:] or SHAPES:
        tiny.with_a_good_seed(lambda seed: tiny.family_case(name, seed, cached=True))
