"""Compares `edgethink eval ppl` with llama.cpp's perplexity of the same GGUF files and text.

usage: python ppl.py EDGETHINK_BINARY TEXT_FILE N_CTX MODEL.gguf...

llama-cpp-python has no perplexity program, so its rule (tools/perplexity/perplexity.cpp) is written out here on llama.cpp's own logits: chunks of
N_CTX tokens, the first replaced by BOS where the vocabulary asks for one, the second half scored. KV is f32 on both sides. Both round
activations to 8 bits before integer weights, differently; that and sums in another order are the whole difference. Prints one line per
model and fails when the mean -ln p differs by more than 0.1 % and 0.002 nats.
"""

import json
import subprocess
import sys

import llama_cpp as lc
import numpy as np

import llama


def perplexity(path, text, n_ctx):
    """(ppl, mean -ln p, scored tokens) by llama.cpp."""
    m = llama.Model(path, n_ctx=n_ctx, n_batch=n_ctx)
    tokens = m.tokenize(text, add_special=True)
    first, total, count = n_ctx // 2, 0.0, 0
    for start in range(0, len(tokens) - n_ctx + 1, n_ctx):
        chunk = tokens[start : start + n_ctx]
        if lc.llama_vocab_get_add_bos(m.vocab):
            chunk[0] = lc.llama_vocab_bos(m.vocab)
        rows = m.logits(chunk)[first : n_ctx - 1].astype(np.float64)
        rows -= rows.max(axis=1, keepdims=True)
        logp = rows - np.log(np.exp(rows).sum(axis=1, keepdims=True))
        total -= logp[np.arange(len(rows)), chunk[first + 1 :]].sum()
        count += len(rows)
    m.close()
    return np.exp(total / count), total / count, count


def main(binary, text_file, n_ctx, paths):
    failed = False
    text = open(text_file, encoding="utf-8").read()
    for path in paths:
        args = [binary, "eval", "ppl", "--text", text_file, "--model", path, "--adapter", "none", "--ctx", str(n_ctx), "--kv", "f32", "--json"]
        ours = json.loads(subprocess.run(args, check=True, capture_output=True, text=True).stdout)
        ppl, nll, count = perplexity(path, text, n_ctx)
        same = count == ours["scored_tokens"] and abs(nll - ours["nll"]) <= max(0.002, 0.001 * nll)
        failed |= not same
        print(f"{path}: ours {ours['ppl']:.4f}, llama.cpp {ppl:.4f}; {count} tokens, {ours['nll'] - nll:+.5f} nats{'' if same else ' DIFFERS'}")
    sys.exit(failed)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]), sys.argv[4:])
