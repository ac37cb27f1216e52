"""Makes golden/gguf: tiny models with llama.cpp's logits, greedy tokens and tokenizations, and blocks of every quantized type.

usage: python golden.py OUT_DIR
"""

import json
import os
import sys
import tempfile

import gguf
import numpy as np
from safetensors.numpy import save_file

import llama
import models
from models import Shape

PROMPT = 24
GREEDY = 64
TEMPLATE = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
SMALL = dict(E=64, F=96, L=2, H=4, K=2, D=16, V=320)
TINY = dict(E=32, F=64, L=2, H=4, K=2, D=8, V=320)  # for plain floats
WIDE = dict(E=256, F=256, L=1, H=4, K=1, D=64, V=320)
MODELS = {
    # name: shape, pre-tokenizer, type
    "qwen2-f32": (Shape("qwen2", **TINY, tied=True, theta=1e6), "qwen2", None),
    "qwen2-q8_0": (Shape("qwen2", **SMALL, tied=True, theta=1e6), "qwen2", "Q8_0"),
    "qwen2-q4_0": (Shape("qwen2", **SMALL, tied=False, theta=1e6), "qwen2", "Q4_0"),
    "qwen2-q4_k": (Shape("qwen2", **WIDE, tied=True, theta=1e6), "qwen2", "Q4_K_M"),
    # Rows of 64 and 96 are no multiples of 256: llama.cpp falls back to Q5_0, Q5_1 and Q8_0.
    "qwen2-q5_0": (Shape("qwen2", **SMALL, tied=True, theta=1e6), "qwen2", "Q4_K_M"),
    "qwen2-q5_1": (Shape("qwen2", **SMALL, tied=True, theta=1e6), "qwen2", "Q5_K_M"),
    "qwen3-f16": (Shape("qwen3", **{**TINY, "D": 16}, tied=True, theta=1e6), "smollm", "F16"),
    "llama-f32": (Shape("llama", **TINY, tied=False, theta=5e5, eps=1e-5, rope_freqs=True), "llama-bpe", None),
    "llama-q8_0": (Shape("llama", **{**SMALL, "V": 352}, tied=True, eps=1e-5), "spm", "Q8_0"),
    "qwen2-yarn": (
        Shape("qwen2", **TINY, tied=True, extra={
            "qwen2.rope.scaling.type": "yarn", "qwen2.rope.scaling.factor": 4.0,
            "qwen2.rope.scaling.original_context_length": 64}),
        "qwen2", None),
}
TEXTS = [
    "Hello, the world and 12345 things!", "I'll DON'T we'LL", "  two  spaces\n\n\nand\ttabs  ", "café naïve Ünïcödé 日本語 🙂", "",
    "<|im_start|>user\nHello<|im_end|>\n", "a<think>b</think> c", "x = (y+1)*2; // ok\r\n\r\n", "12 123 1234 ½ ²", " the", "the the",
]


def margin(rows):
    """Smallest distance between the best and the second-best logit over the rows."""
    top = np.sort(rows, axis=1)[:, -2:]
    return float((top[:, 1] - top[:, 0]).min())


def make(out, scratch, name, shape, pre, ftype):
    tokenizer = models.spm_tokenizer(shape.V) if pre == "spm" else models.bpe_tokenizer(pre, shape.V, TEMPLATE)
    path = os.path.join(out, f"{name}.gguf")
    first = path if ftype is None else os.path.join(scratch, f"{name}.gguf")
    models.write(first, shape, seed=1, tokenizer=tokenizer)
    if ftype is not None:
        llama.quantize(first, path, ftype)
    m = llama.Model(path)
    # Of 300 prompts the one whose greedy path has the clearest decisions: rounding should not decide a test.
    best = None
    for seed in range(300):
        prompt = np.random.default_rng(seed).integers(0, 256, PROMPT).tolist()
        tokens, rows = m.greedy(prompt, GREEDY)
        if best is None or margin(rows) > best[0]:
            best = (margin(rows), prompt, tokens)
    _, prompt, tokens = best
    record = {
        "prompt": np.array(prompt, np.float32), "greedy": np.array(tokens, np.float32), "logits": m.logits(prompt),
        "margin": np.array([best[0]], np.float32),
    }
    if ftype is not None:
        # The same weights as plain floats, so that llama.cpp rounds no activations.
        exact = os.path.join(scratch, "exact.gguf")
        llama.quantize(path, exact, "F32")
        plain = llama.Model(exact)
        record["exact_logits"] = plain.logits(prompt)
        plain.close()
    if name == "llama-f32":
        lora = os.path.join(out, "llama-lora.gguf")
        models.write_lora(lora, shape, seed=2, rank=4, alpha=8.0)
        adapted = llama.Model(path, lora=lora)
        record["lora_logits"] = adapted.logits(prompt)
        adapted.close()
    save_file(record, os.path.join(out, f"{name}.safetensors"))
    # llama.cpp's SentencePiece adds no prefix after special tokens; such texts are left to the BPE models.
    texts = [t for t in TEXTS if pre != "spm" or "<" not in t]
    texts = {t: m.tokenize(t) for t in texts}
    with_special = m.tokenize("Hello", add_special=True)
    m.close()
    error = np.linalg.norm(record["logits"] - record.get("exact_logits", record["logits"])) / np.linalg.norm(record["logits"])
    print(f"{name}: {os.path.getsize(path)} bytes, clearest margin {best[0]:.3f}, rounding of activations {error:.4f}")
    return {"texts": texts, "hello": with_special}


def blocks(path):
    """Random blocks of each type with what the gguf package makes of them, and values with their quantized bytes."""
    rng = np.random.default_rng(3)
    w = gguf.GGUFWriter(path, "blocks")
    types = gguf.GGMLQuantizationType
    halves = {"Q8_0": [0], "Q4_0": [0], "Q4_1": [0, 2], "Q5_0": [0], "Q5_1": [0, 2], "Q4_K": [0, 2], "Q5_K": [0, 2], "Q6_K": [208]}
    for name, places in halves.items():
        kind = types[name]
        values, size = gguf.GGML_QUANT_SIZES[kind]
        rows = max(4, 1024 // values)
        raw = rng.integers(0, 256, (rows, size), dtype=np.uint8)
        for place in places:
            raw[:, place : place + 2] = rng.standard_normal((rows, 1)).astype(np.float16).view(np.uint8)
        w.add_tensor(f"{name}.blocks", raw, raw_dtype=kind)
        w.add_tensor(f"{name}.values", gguf.quants.dequantize(raw, kind).astype(np.float32))
    values = rng.standard_normal((16, 32)).astype(np.float32)
    values[0] = 0.0  # a block of zeros
    values[1] *= 1e-6  # a subnormal scale
    values[2, 5] = 300.0  # an outlier
    values[3] = np.linspace(-127, 127, 32)  # ties
    values[4] = np.arange(32) / 2 - 8  # halves: rounding away from zero
    values[5, 0], values[5, 1] = 3.0, -3.0  # equal magnitudes: the first counts
    values[5, 2:] = 0.5
    w.add_tensor("quantize.values", values)
    for name in ["Q8_0", "Q4_0"]:
        w.add_tensor(f"quantize.{name}", gguf.quants.quantize(values, types[name]), raw_dtype=types[name])
    w.write_header_to_file()
    w.write_kv_data_to_file()
    w.write_tensors_to_file()
    w.close()


def main(out):
    os.makedirs(out, exist_ok=True)
    blocks(os.path.join(out, "blocks.gguf"))
    tokens = {}
    with tempfile.TemporaryDirectory() as scratch:
        for name, (shape, pre, ftype) in MODELS.items():
            tokens[name] = make(out, scratch, name, shape, pre, ftype)
    with open(os.path.join(out, "tokens.json"), "w") as f:
        lines = [f'  {json.dumps(name)}: {json.dumps(value, ensure_ascii=False)}' for name, value in tokens.items()]
        f.write("{\n" + ",\n".join(lines) + "\n}\n")


if __name__ == "__main__":
    main(sys.argv[1])
