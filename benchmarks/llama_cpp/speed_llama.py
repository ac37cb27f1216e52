"""Times llama.cpp once on a model: prefill of a prompt, and decode of several streams. Prints one JSON object of tokens per second.

usage: python speed_llama.py MODEL.gguf THREADS PREFILL DECODE STREAMS[,STREAMS..]

Settings are llama.cpp's defaults for speed: KV cache of f16, flash attention as it chooses, the whole prompt in one batch of at most 512.
"""

import json
import sys

import numpy as np

import llama


def main(path, threads, prefill, decode, streams):
    most = max(streams)
    context = prefill + most * (decode + 8) + 64
    m = llama.Model(path, n_ctx=context, threads=threads, kv=llama.F16, n_seq=most, n_batch=max(prefill, most), flash=-1)
    prompt = np.random.default_rng(0).integers(0, m.n_vocab, prefill).tolist()
    m.time_prefill(prompt[:64])  # pages the weights in
    out = {"prefill": prefill / m.time_prefill(prompt)}
    for n in streams:
        m.time_decode(prompt[:32], n, 2)
        out[f"decode x{n}"] = decode * n / m.time_decode(prompt[:32], n, decode)
    m.close()
    print(json.dumps(out))


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4]), [int(n) for n in sys.argv[5].split(",")])
