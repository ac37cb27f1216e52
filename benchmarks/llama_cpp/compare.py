"""Compares greedy tokens of the program with llama.cpp's on the golden models, through the command line.

usage: python compare.py EDGETHINK_BINARY GOLDEN_DIR

Greedy tokens of the engine may leave llama.cpp's path only where llama.cpp's own two best logits are closer than 2 % of their spread:
both round activations to 8 bits, differently. KV is f16 on both sides. Prints one line per model and fails when a difference has no such reason.
"""

import json
import os
import subprocess
import sys

import numpy as np
from safetensors.numpy import load_file

import llama

PROMPT = "Hello, the world and 12345 things!"


def main(binary, golden):
    failed = False
    for file in sorted(f for f in os.listdir(golden) if f.endswith(".safetensors")):
        name = file.removesuffix(".safetensors")
        path = os.path.join(golden, f"{name}.gguf")
        n = len(load_file(os.path.join(golden, file))["greedy"])
        m = llama.Model(path)
        want, rows = m.greedy(m.tokenize(PROMPT, add_special=True), n)
        m.close()
        args = [binary, "ask", PROMPT, "--model", path, "--raw", "--json", "--ignore-eos", "--temperature", "0", "--max-tokens", str(n)]
        args += ["--kv", "f16"]
        done = subprocess.run(args, check=True, capture_output=True, text=True)
        got = json.loads(done.stdout)["token_ids"]
        same = next((i for i, (a, b) in enumerate(zip(got, want)) if a != b), min(len(got), n))
        if same == n:
            print(f"{name}: the same {n} tokens")
            continue
        top = np.sort(rows[same])
        close = (top[-1] - top[-2]) / (top[-1] - top[0])
        print(f"{name}: {same} of {n} tokens, then llama.cpp's margin is {close:.4f} of the spread")
        failed |= bool(close > 0.02)
    sys.exit(failed)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2])
