"""Runs our GGUF exports in llama.cpp: base models in three dtypes, and the activated LoRA.

Run:    cargo build --release -p edgethink
        python benchmarks/export/gguf.py [--binary target/release/edgethink] [--model models/pocket]
Needs:  llama-cpp-python torch transformers tokenizers numpy     (CPU wheels are enough)

1. Pocket as F16, Q8_0 and Q4_0: 64 greedy tokens after each of five prompts, ours and llama.cpp's, both with KV in F32.
2. Tiny random models of the other families, made by transformers (Qwen3, Llama with rope scaling, SmolLM2's shape, Mistral), each
   with the way of cutting text that its family has: the same, and the tokens of difficult texts.
3. Pocket's adapter as aLoRA, switched as llama-server does it: what stands before the last invocation is decoded by the base, the rest
   with the adapter. 64 greedy tokens, ours and llama.cpp's, and llama.cpp's base for contrast.

Fails if a token differs for F16. llama.cpp rounds the activations to f16 there, so of 40 prompts for a random model the two are taken
whose decisions are the clearest. With Q8_0 and Q4_0 llama.cpp also rounds the activations to 8 bits: there the smallest margin
between the two best logits at the first difference is shown, and a difference at a margin above 0.5 fails.
"""

import argparse
import ctypes
import json
import pathlib
import subprocess
import sys
import tempfile

import numpy as np

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "benchmarks/llama_cpp"))
import llama  # noqa: E402

lc = llama.lc
QUESTIONS = [
    "Tom has 12 apples. Ann has 7 more apples than Tom. How many apples does Ann have?",
    "What is 17 plus 25?",
    "Sam has 30 coins. He gives 4 to Eve and then finds 9 more. How many coins does Sam have?",
    "Hello!",
    "Which is larger, 81 or 18?",
]
TEXTS = [
    "Hello, the world and 12345 things!", "I'll DON'T we'LL", "  two  spaces\n\n\nand\ttabs  ", "café naïve 日本語 🙂", "a<think>b</think> c",
    "x = (y+1)*2; // ok\r\n\r\n", "12 123 1234 ½", " the", "<|im_start|>user\nHello<|im_end|>\n",
]
WORDS = "the hello world and thing 12 Tom has apples 7 in or an he how many more".split()
TOKENS = 64
failed = False


def check(ok, line):
    global failed
    failed |= not ok
    print(("ok    " if ok else "WRONG ") + line, flush=True)


def run(binary, *args):
    done = subprocess.run([binary, *map(str, args)], capture_output=True, text=True)
    if done.returncode != 0:
        sys.exit(f"{' '.join(map(str, args))}: {done.stderr}")
    return done.stdout


def ours(binary, model, prompt, *flags):
    out = run(
        binary, "ask", "--model", model, "--kv", "f32", "--max-tokens", TOKENS, "--ignore-eos", "--temperature", 0, "--json",
        "--threads", 1, *flags, prompt,
    )
    return json.loads(out)["token_ids"]


def compare(name, got, want, rows, exact):
    """`rows` are llama.cpp's logits; the margin where the two part is how close the decision was."""
    same = next((i for i, (a, b) in enumerate(zip(got, want)) if a != b), len(want))
    if same == len(want) == len(got):
        return check(True, f"{name}: {TOKENS} of {TOKENS} tokens alike")
    two = np.sort(rows[same])[-2:]
    margin = two[1] - two[0]
    check(not exact and margin <= 0.5, f"{name}: {same} of {TOKENS} tokens alike, then a decision with margin {margin:.4f}")


def chat(question):
    return f"<|im_start|>user\n{question}<|im_end|>\n<|im_start|>assistant\n"


def clearest(m):
    """Of 40 random prompts the two with the largest smallest margin between the two best logits along the greedy path."""
    rng = np.random.default_rng(1)
    prompts = [" ".join(rng.choice(WORDS, 6)) for _ in range(40)]
    def margin(prompt):
        top = np.sort(m.greedy(m.tokenize(prompt, add_special=True), TOKENS)[1], axis=1)
        return float((top[:, -1] - top[:, -2]).min())
    return sorted(prompts, key=margin)[-2:]


def base(binary, model, scratch, name, dtypes, prompts=None):
    for dtype in dtypes:
        path = str(scratch / f"{name}-{dtype}.gguf")
        run(binary, "export", "gguf", "--model", model, "--dtype", dtype, "-o", path)
        m = llama.Model(path)
        prompts = prompts or clearest(m)
        for i, prompt in enumerate(prompts):
            want, rows = m.greedy(m.tokenize(prompt, add_special=True), TOKENS)
            got = ours(binary, path, prompt, "--raw")
            compare(f"{name} {dtype} prompt {i}", got, want, rows, exact=dtype == "f16")
        m.close()


def tokens(name, path, tokenizer):
    m = llama.Model(path)
    wrong = [t for t in TEXTS if m.tokenize(t) != tokenizer.encode(t, add_special_tokens=False)]
    alone = m.tokenize("Hello", add_special=True) == tokenizer.encode("Hello")
    check(not wrong and alone, f"{name}: tokens of {len(TEXTS) - len(wrong)} of {len(TEXTS)} texts alike {wrong or ''}")
    m.close()


def alora(binary, model, scratch):
    base_path, lora_path = str(scratch / "pocket-f16.gguf"), str(scratch / "think.gguf")
    run(binary, "export", "lora", "--model", model, "-o", lora_path)
    m = llama.Model(base_path)
    adapter = lc.llama_adapter_lora_init(m.model, lora_path.encode())
    n = lc.llama_adapter_get_alora_n_invocation_tokens(adapter)
    pointer = lc.llama_adapter_get_alora_invocation_tokens(adapter)
    invocation = [pointer[i] for i in range(n)]
    expected = m.tokenize("<|im_start|>assistant\n")
    check(invocation == expected, f"aLoRA: llama.cpp reads the invocation tokens {invocation}")
    on = (lc.llama_adapter_lora_p_ctypes * 1)(adapter), 1, (ctypes.c_float * 1)(1.0)
    off = (lc.llama_adapter_lora_p_ctypes * 0)(), 0, (ctypes.c_float * 0)()

    def switch(state):
        if lc.llama_set_adapters_lora(m.ctx, *state) != 0:
            sys.exit("llama_set_adapters_lora failed")

    def greedy(prompt):
        # As llama-server: find the last invocation, decode what is before it without the adapter and the rest with it.
        start = next((i for i in range(len(prompt) - n, -1, -1) if prompt[i : i + n] == invocation), None)
        m.clear()
        switch(off)
        position = 0
        if start:
            m.decode(prompt[:start], range(start), [0] * start, [False] * start)
            position = start
        if start is not None:
            switch(on)
        rest = prompt[position:]
        row = m.decode(rest, range(position, len(prompt)), [0] * len(rest), [i == len(rest) - 1 for i in range(len(rest))])[0]
        out, rows = [], []
        for i in range(TOKENS):
            rows.append(row)
            out.append(int(row.argmax()))
            row = m.decode([out[-1]], [len(prompt) + i], [0], [True])[0]
        switch(off)
        return out, np.stack(rows)

    for i, question in enumerate(QUESTIONS):
        prompt = m.tokenize(chat(question))
        want, rows = greedy(prompt)
        plain, _ = m.greedy(prompt, TOKENS)
        got = ours(binary, base_path, question, "--adapter", lora_path, "--think", "on")
        compare(f"aLoRA question {i}", got, want, rows, exact=True)
        check(want != plain, f"aLoRA question {i}: the adapter changes {sum(a != b for a, b in zip(want, plain))} of {TOKENS} tokens")
    without = m.tokenize("Tom has 12 apples.")
    check(greedy(without)[0] == m.greedy(without, TOKENS)[0], "aLoRA without the invocation: the base's tokens")
    m.close()


def families(pocket):
    """Tiny random models with weights large enough that decisions are clear, and tokenizers cut as their family's."""
    import torch
    import transformers as t

    torch.set_num_threads(1)
    vocabulary = json.loads((pocket / "base/tokenizer.json").read_text())

    def cut(pattern, normalizer=None, **model):
        steps = [
            {"type": "Split", "pattern": {"Regex": pattern}, "behavior": "Isolated", "invert": False},
            {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": False, "use_regex": False},
        ]
        return {**vocabulary, "normalizer": normalizer, "pre_tokenizer": {"type": "Sequence", "pretokenizers": steps},
                "model": {**vocabulary["model"], **model}}

    qwen = vocabulary["pre_tokenizer"]["pretokenizers"][0]["pattern"]["Regex"]
    bos = {"type": "TemplateProcessing", "single": [{"SpecialToken": {"id": "<|endoftext|>", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}],
           "pair": [{"SpecialToken": {"id": "<|endoftext|>", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 1}}],
           "special_tokens": {"<|endoftext|>": {"id": "<|endoftext|>", "ids": [0], "tokens": ["<|endoftext|>"]}}}
    llama3 = {**cut(qwen.replace(r"|\p{N}|", r"|\p{N}{1,3}|"), ignore_merges=True), "post_processor": bos}
    digits = [{"type": "Digits", "individual_digits": True}, {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": False, "use_regex": True}]
    smollm = {**vocabulary, "normalizer": None, "pre_tokenizer": {"type": "Sequence", "pretokenizers": digits}}
    shape = dict(hidden_size=64, intermediate_size=96, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2, vocab_size=1024,
                 max_position_embeddings=512, initializer_range=0.25, eos_token_id=2, bos_token_id=0, pad_token_id=0)
    scaling = dict(rope_type="llama3", factor=8.0, low_freq_factor=1.0, high_freq_factor=4.0, original_max_position_embeddings=64, rope_theta=5e5)
    return {
        "qwen3": (t.Qwen3Config(**shape, head_dim=32, tie_word_embeddings=True), vocabulary, {}),
        "llama3": (t.LlamaConfig(**shape, rope_parameters=scaling, tie_word_embeddings=False), llama3, {"bos_token": "<|endoftext|>"}),
        "smollm2": (t.LlamaConfig(**shape, tie_word_embeddings=True), smollm, {}),
        "mistral": (t.MistralConfig(**{**shape, "bos_token_id": 1}, head_dim=16, sliding_window=None), sentencepiece(), {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"}),
    }


def sentencepiece():
    """A tokenizer in the form of Llama 2 and Mistral 7B: byte fallback, spaces as "▁", merges by score."""
    tokens = ["<unk>", "<s>", "</s>"] + [f"<0x{b:02X}>" for b in range(256)]
    pieces = ["he", "ll", "▁a", "▁t", "▁w", "in", "er", "▁th", "▁the", "or", "▁wor", "ld", "ing", "hell", "an", "▁an", "▁and", "▁hell", "▁hello", "12", "thing"]
    chars = sorted(set("".join(pieces)) | set("▁etaoinshrdlcumwfgypbvkHTW,.!?0123456789é"))
    ids = {x: i for i, x in enumerate(tokens + pieces + chars)}
    merges = []
    for piece in pieces:
        cuts = [(piece[:i], piece[i:]) for i in range(1, len(piece)) if piece[:i] in ids and piece[i:] in ids]
        merges += [f"{a} {b}" for a, b in sorted(cuts, key=lambda c: (ids[c[0]], ids[c[1]]))]
    def special(i):
        return {"id": i, "content": tokens[i], "single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}

    bos = [{"SpecialToken": {"id": "<s>", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}]
    return {
        "version": "1.0", "truncation": None, "padding": None, "added_tokens": [special(i) for i in range(3)],
        "normalizer": {"type": "Sequence", "normalizers": [{"type": "Prepend", "prepend": "▁"}, {"type": "Replace", "pattern": {"String": " "}, "content": "▁"}]},
        "pre_tokenizer": None,
        "post_processor": {"type": "TemplateProcessing", "single": bos, "pair": bos + [{"Sequence": {"id": "B", "type_id": 1}}],
                           "special_tokens": {"<s>": {"id": "<s>", "ids": [1], "tokens": ["<s>"]}}},
        "decoder": {"type": "Sequence", "decoders": [{"type": "Replace", "pattern": {"String": "▁"}, "content": " "}, {"type": "ByteFallback"}, {"type": "Fuse"},
                                                    {"type": "Strip", "content": " ", "start": 1, "stop": 0}]},
        "model": {"type": "BPE", "dropout": None, "unk_token": "<unk>", "continuing_subword_prefix": None, "end_of_word_suffix": None, "fuse_unk": True,
                  "byte_fallback": True, "ignore_merges": False, "vocab": ids, "merges": merges},
    }


def main():
    p = argparse.ArgumentParser()
    p.add_argument("--binary", default=str(ROOT / "target/release/edgethink"))
    p.add_argument("--model", default=str(ROOT / "models/pocket"))
    a = p.parse_args()
    import torch
    import transformers

    with tempfile.TemporaryDirectory() as scratch:
        scratch = pathlib.Path(scratch)
        base(a.binary, a.model, scratch, "pocket", ["f16", "q8_0", "q4_0"], [chat(q) for q in QUESTIONS])
        fast = transformers.PreTrainedTokenizerFast(tokenizer_file=a.model + "/base/tokenizer.json")
        tokens("pocket", str(scratch / "pocket-f16.gguf"), fast)
        alora(a.binary, a.model, scratch)
        for name, (config, tokenizer, special) in families(pathlib.Path(a.model)).items():
            directory = scratch / name
            torch.manual_seed(1)
            transformers.AutoModelForCausalLM.from_config(config, dtype=torch.float32).save_pretrained(directory)
            (directory / "tokenizer.json").write_text(json.dumps(tokenizer, ensure_ascii=False))
            (directory / "tokenizer_config.json").write_text(json.dumps({"eos_token": "<|im_end|>", **special}))
            base(a.binary, str(directory), scratch, name, ["f16", "q8_0", "q4_0"])
            fast = transformers.PreTrainedTokenizerFast(tokenizer_file=str(directory / "tokenizer.json"))
            tokens(name, str(scratch / f"{name}-f16.gguf"), fast)
    sys.exit(failed)


if __name__ == "__main__":
    main()
