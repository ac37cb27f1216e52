"""Runs what `edgethink quantize` writes in llama.cpp: every scheme of recipes/quantize, and trained ranges where there are some.

usage: python in_llama_cpp.py EDGETHINK_BINARY MODEL_DIR TEXT_FILE [TRAINED_DIR SCHEME]

For each file: 64 greedy tokens after each of five prompts by both programs, with KV in f32, and the perplexity of the text. llama.cpp rounds
activations to 8 bits in blocks of 32, we in rows, so a close decision may fall the other way: then how many tokens were alike is shown, and the
margin between the two best logits where they part. Fails if that margin is above 0.5, or mean -ln p differs by more than 0.5 %. A scheme that
the model has no room for is named and left out. Needs llama-cpp-python and numpy.
"""

import json
import pathlib
import subprocess
import sys
import tempfile

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / "benchmarks/llama_cpp"), str(ROOT / "benchmarks/export")]
import gguf  # noqa: E402
import llama  # noqa: E402
import ppl  # noqa: E402

CTX = 128


def measure(binary, path, name, text):
    m = llama.Model(path)
    for i, question in enumerate(gguf.QUESTIONS):
        prompt = gguf.chat(question)
        want, rows = m.greedy(m.tokenize(prompt), gguf.TOKENS)
        got = gguf.ours(binary, path, prompt, "--raw")
        gguf.compare(f"{name} prompt {i}", got, want, rows, exact=False)
    m.close()
    theirs, nll, count = ppl.perplexity(path, open(text, encoding="utf-8").read(), CTX)
    args = ["eval", "ppl", "--text", text, "--model", path, "--adapter", "none", "--ctx", CTX, "--kv", "f32", "--json"]
    ours = json.loads(gguf.run(binary, *args))
    close = count == ours["scored_tokens"] and abs(nll - ours["nll"]) <= 0.005 * nll
    gguf.check(close, f"{name}: perplexity {ours['ppl']:.4f}, llama.cpp {theirs:.4f}, {count} tokens, {ours['nll'] - nll:+.5f} nats")


def main(binary, model, text, *trained):
    schemes = [(path.stem, path, []) for path in sorted((ROOT / "recipes/quantize").glob("*.toml"))]
    if trained:
        schemes.append(("trained", pathlib.Path(trained[1]), ["--trained", trained[0]]))
    with tempfile.TemporaryDirectory() as scratch:
        for name, scheme, more in schemes:
            path = f"{scratch}/{name}.gguf"
            args = [binary, "quantize", "--model", model, "--scheme", str(scheme), "--calibration", text, "--out", path, *more]
            done = subprocess.run(args, capture_output=True, text=True)
            if done.returncode != 0:
                print(f"left out: {name}: {done.stderr.strip().splitlines()[-1]}")
                continue
            measure(binary, path, name, text)
    sys.exit(gguf.failed)


if __name__ == "__main__":
    main(*sys.argv[1:])
