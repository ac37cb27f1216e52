"""Random-weight models in GGUF files, for comparisons with llama.cpp.

The files are written with llama.cpp's own `gguf` package and quantized by llama.cpp's own quantizer, so nothing here shares code with
the reader under test. Tensor rows of q and k are written in the order of the architecture (what we write *is* the model; nothing is
permuted here).
"""

from dataclasses import dataclass, field

import gguf
import numpy as np


@dataclass(frozen=True)
class Shape:
    """Shape of a model; E hidden, F ffn, L layers, H query heads, K kv heads, D head dim, V vocabulary."""

    arch: str
    E: int
    F: int
    L: int
    H: int
    K: int
    D: int
    V: int
    tied: bool
    theta: float = 10000.0
    eps: float = 1e-6
    context: int = 4096
    rope_freqs: bool = False
    extra: dict = field(default_factory=dict)


QWEN2_05B = Shape("qwen2", E=896, F=4864, L=24, H=14, K=2, D=64, V=151936, tied=True, theta=1e6, context=32768)
QWEN2_15B = Shape("qwen2", E=1536, F=8960, L=28, H=12, K=2, D=128, V=151936, tied=True, theta=1e6, context=32768)
QWEN2_7B = Shape("qwen2", E=3584, F=18944, L=28, H=28, K=4, D=128, V=152064, tied=False, theta=1e6, context=32768)
QWEN2 = {"0.5B": QWEN2_05B, "1.5B": QWEN2_15B, "7B": QWEN2_7B}


def linears(s: Shape):
    """Name and [out, in] of the linear layers of a block."""
    q, kv = s.H * s.D, s.K * s.D
    return [
        ("attn_q", q, s.E),
        ("attn_k", kv, s.E),
        ("attn_v", kv, s.E),
        ("attn_output", s.E, q),
        ("ffn_gate", s.F, s.E),
        ("ffn_up", s.F, s.E),
        ("ffn_down", s.E, s.F),
    ]


def describe(w, s: Shape, tokenizer=None):
    """What a model file says of its shape; `tokenizer` adds its keys to the writer."""
    w.add_name(f"random {s.arch}")
    w.add_block_count(s.L)
    w.add_context_length(s.context)
    w.add_embedding_length(s.E)
    w.add_feed_forward_length(s.F)
    w.add_head_count(s.H)
    w.add_head_count_kv(s.K)
    w.add_key_length(s.D)
    w.add_value_length(s.D)
    w.add_rope_dimension_count(s.D)
    w.add_rope_freq_base(s.theta)
    w.add_layer_norm_rms_eps(s.eps)
    w.add_vocab_size(s.V)
    for key, value in s.extra.items():
        (w.add_float32 if isinstance(value, float) else w.add_string if isinstance(value, str) else w.add_uint32)(key, value)
    if tokenizer is None:
        w.add_tokenizer_model("none")
    else:
        tokenizer(w)


def write(path: str, s: Shape, seed: int, tokenizer=None, dtype=np.float32):
    """Writes a model with normally distributed weights; `tokenizer` adds its keys to the writer."""
    rng = np.random.default_rng(seed)
    w = gguf.GGUFWriter(path, s.arch)
    describe(w, s, tokenizer)

    def put(name, *shape, std, mean=0.0):
        x = rng.standard_normal(shape, dtype=np.float32)
        x *= np.float32(std)
        x += np.float32(mean)
        w.add_tensor(name, x if x.ndim == 1 else x.astype(dtype))

    put("token_embd.weight", s.V, s.E, std=0.5)
    if s.rope_freqs:
        w.add_tensor("rope_freqs.weight", np.linspace(1.0, 8.0, s.D // 2, dtype=np.float32))
    for i in range(s.L):
        put(f"blk.{i}.attn_norm.weight", s.E, std=0.1, mean=1.0)
        put(f"blk.{i}.ffn_norm.weight", s.E, std=0.1, mean=1.0)
        for name, out, inner in linears(s):
            put(f"blk.{i}.{name}.weight", out, inner, std=1.2 / np.sqrt(inner))
            if s.arch == "qwen2" and name in ("attn_q", "attn_k", "attn_v"):
                put(f"blk.{i}.{name}.bias", out, std=0.2)
        if s.arch == "qwen3":
            put(f"blk.{i}.attn_q_norm.weight", s.D, std=0.1, mean=1.0)
            put(f"blk.{i}.attn_k_norm.weight", s.D, std=0.1, mean=1.0)
    put("output_norm.weight", s.E, std=0.1, mean=1.0)
    if not s.tied:
        put("output.weight", s.V, s.E, std=0.5)
    w.write_header_to_file()
    w.write_kv_data_to_file()
    w.write_tensors_to_file()
    w.close()


def random_blocks(rng, kind, rows, cols, std):
    """Random blocks `[rows, bytes]` of Q4_0, Q8_0 or Q6_K whose values have about the standard deviation `std` and mean 0."""
    values, size = gguf.GGML_QUANT_SIZES[kind]
    blocks = np.frombuffer(rng.bytes(rows * cols // values * size), np.uint8).reshape(-1, size).copy()
    if kind == gguf.GGMLQuantizationType.Q4_0:  # d, 16 bytes; codes 0..16 less 8
        # A second draw in place of code 0 leaves -7..7, whose mean is 0.
        for shift, mask in ((0, 0x0F), (4, 0xF0)):
            codes = blocks[:, 2:]
            codes[(codes & mask) == 0] |= np.uint8(8 << shift)
        blocks[:, :2] = np.frombuffer(np.float16(std / 4.3).tobytes(), np.uint8)
    elif kind == gguf.GGMLQuantizationType.Q8_0:  # d, 32 signed bytes
        blocks[:, :2] = np.frombuffer(np.float16(std / 73.9).tobytes(), np.uint8)
    elif kind == gguf.GGMLQuantizationType.Q6_K:  # 128 and 64 bytes of codes less 32, 16 signed scales, d
        signs = blocks[:, 192:208]
        signs[:] = np.where(signs & 1, 100, 156)  # 100 and -100, so that the mean is 0
        blocks[:, 208:] = np.frombuffer(np.float16(std / 1850).tobytes(), np.uint8)
    else:
        raise ValueError(f"no random blocks of {kind}")
    return blocks.reshape(rows, -1)


def write_q4(path: str, s: Shape, seed: int, tokenizer=None):
    """Writes a random model of Q4_0 blocks straight, without floats in between (16 s of processor time per GB). Types are those that llama.cpp's
    quantizer chooses for Q4_0: the matrix of the logits is Q6_K, or Q8_0 where a row is no multiple of 256.
    `tokenizer` adds its keys to the writer."""
    kinds = gguf.GGMLQuantizationType
    rng = np.random.default_rng(seed)
    w = gguf.GGUFWriter(path, s.arch, use_temp_file=False)
    describe(w, s, tokenizer)
    head = kinds.Q6_K if s.E % 256 == 0 else kinds.Q8_0
    matrices = [("token_embd.weight", s.V, s.E, head if s.tied else kinds.Q4_0, 0.5)]
    floats = {}
    for i in range(s.L):
        for name in ("attn_norm", "ffn_norm"):
            floats[f"blk.{i}.{name}.weight"] = (1 + 0.1 * rng.standard_normal(s.E)).astype(np.float32)
        for name, out, inner in linears(s):
            matrices.append((f"blk.{i}.{name}.weight", out, inner, kinds.Q4_0, 1.2 / np.sqrt(inner)))
            if name in ("attn_q", "attn_k", "attn_v"):
                floats[f"blk.{i}.{name}.bias"] = (0.2 * rng.standard_normal(out)).astype(np.float32)
    floats["output_norm.weight"] = (1 + 0.1 * rng.standard_normal(s.E)).astype(np.float32)
    if not s.tied:
        matrices.append(("output.weight", s.V, s.E, head, 0.5))
    for name, rows, cols, kind, _ in matrices:
        values, size = gguf.GGML_QUANT_SIZES[kind]
        row = cols // values * size
        w.add_tensor_info(name, (rows, row), np.dtype(np.uint8), rows * row, raw_dtype=kind)
    for name, x in floats.items():
        w.add_tensor_info(name, x.shape, x.dtype, x.nbytes)
    w.write_header_to_file()
    w.write_kv_data_to_file()
    w.write_ti_data_to_file()
    # One matrix at a time: the model need not fit in memory.
    for name, rows, cols, kind, std in matrices:
        w.write_tensor_data(random_blocks(rng, kind, rows, cols, std))
    for x in floats.values():
        w.write_tensor_data(x)
    w.close()


def write_lora(path: str, s: Shape, seed: int, rank: int, alpha: float, invocation=None, modules=("attn_q", "attn_k", "attn_v", "ffn_down"), dtype=np.float32):
    """Writes a LoRA adapter of a model of shape `s` in llama.cpp's form."""
    rng = np.random.default_rng(seed)
    w = gguf.GGUFWriter(path, s.arch)
    w.add_type("adapter")
    w.add_name("random adapter")
    w.add_string("adapter.type", "lora")
    w.add_float32("adapter.lora.alpha", alpha)
    if invocation is not None:
        w.add_key_value("adapter.alora.invocation_tokens", invocation, gguf.GGUFValueType.ARRAY, gguf.GGUFValueType.UINT32)
    for i in range(s.L):
        for name, out, inner in linears(s):
            if name in modules:
                a = rng.standard_normal((rank, inner), dtype=np.float32) / np.float32(np.sqrt(inner))
                b = rng.standard_normal((out, rank), dtype=np.float32) * np.float32(0.5)
                w.add_tensor(f"blk.{i}.{name}.weight.lora_a", a.astype(dtype))
                w.add_tensor(f"blk.{i}.{name}.weight.lora_b", b.astype(dtype))
    w.write_header_to_file()
    w.write_kv_data_to_file()
    w.write_tensors_to_file()
    w.close()


def bytes_to_unicode():
    """GPT-2's printable stand-ins for the 256 bytes."""
    printable = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    chars = {b: chr(b) for b in printable}
    others = [b for b in range(256) if b not in chars]
    chars.update({b: chr(256 + i) for i, b in enumerate(others)})
    return chars


MERGES = [
    ("Ġ", "t"), ("h", "e"), ("Ġt", "he"), ("i", "n"), ("Ġ", "a"), ("e", "r"), ("o", "n"), ("Ġ", "s"), ("a", "n"), ("an", "d"),
    ("Ġ", "and"), ("in", "g"), ("l", "l"), ("'", "ll"), ("Ġ", "Ġ"), ("ĠĠ", "ĠĠ"), ("Ċ", "Ċ"), ("1", "2"), ("12", "3"), ("Ã", "©"), ("c", "a"),
    ("ca", "f"), ("Ġ", "("), ("o", "u"), ("Ġ", "w"), ("Ġw", "or"), ("o", "r"), ("l", "d"), ("H", "e"), ("He", "ll"),
]


def bpe_tokenizer(pre: str, size: int, chat_template=None):
    """Keys of a byte-level BPE with few merges, three special tokens, and unused tokens up to `size`."""
    chars = bytes_to_unicode()
    tokens = [chars[b] for b in range(256)] + [a + b for a, b in MERGES]
    types = [gguf.TokenType.NORMAL] * len(tokens)
    special = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
    first = len(tokens)
    tokens += special + ["<think>", "</think>"]
    types += [gguf.TokenType.CONTROL] * 3 + [gguf.TokenType.USER_DEFINED] * 2
    while len(tokens) < size:
        tokens.append(f"[PAD{len(tokens)}]")
        types.append(gguf.TokenType.UNUSED)

    def add(w):
        w.add_tokenizer_model("gpt2")
        w.add_tokenizer_pre(pre)
        w.add_token_list(tokens)
        w.add_token_types(types)
        w.add_token_merges([f"{a} {b}" for a, b in MERGES])
        w.add_bos_token_id(first)
        w.add_eos_token_id(first + 2)
        w.add_pad_token_id(first)
        if pre != "llama-bpe":
            w.add_add_bos_token(False)
        if chat_template is not None:
            w.add_chat_template(chat_template)

    return add


def spm_tokenizer(size: int):
    """Keys of a SentencePiece BPE: byte tokens, letters, and some words with scores."""
    words = ["▁t", "he", "▁the", "in", "er", "on", "▁a", "an", "nd", "▁and", "ing", "ll", "▁H", "▁He", "▁Hell", "▁Hello", "lo", "or", "ld", "▁w", "▁wor", "▁world"]
    letters = ["▁", *"abcdefghijklmnopqrstuvwxyzHTW,.!?'0123456789é"]
    tokens = ["<unk>", "<s>", "</s>"] + [f"<0x{b:02X}>" for b in range(256)] + words + letters
    types = [gguf.TokenType.UNKNOWN, gguf.TokenType.CONTROL, gguf.TokenType.CONTROL] + [gguf.TokenType.BYTE] * 256
    types += [gguf.TokenType.NORMAL] * (len(words) + len(letters))
    scores = [0.0] * 259 + [-float(i) for i in range(len(words))] + [-1000.0 - i for i in range(len(letters))]
    assert len(tokens) <= size
    while len(tokens) < size:
        tokens.append(f"[PAD{len(tokens)}]")
        types.append(gguf.TokenType.UNUSED)
        scores.append(-10000.0)

    def add(w):
        w.add_tokenizer_model("llama")
        w.add_tokenizer_pre("default")
        w.add_token_list(tokens)
        w.add_token_scores(scores)
        w.add_token_types(types)
        w.add_unk_token_id(0)
        w.add_bos_token_id(1)
        w.add_eos_token_id(2)

    return add
