"""What N parallel streams from one prompt cost against one: time of a decode step and KV memory, N = 1..16, on a 0.5B and a 1.5B shape.

Run:    cargo build --release -p edgethink
        python benchmarks/streams/streams.py target/release/edgethink benchmarks/record/streams.json
Needs:  what benchmarks/llama_cpp/setup.sh installs (it writes the random Q4_0 models), matplotlib==3.11.2

Writes a JSON record and, beside it, a picture. A step's time is N over the tokens per second of all streams together; every figure is
the median of the repeats of `edgethink bench`, behind a prompt of 512 tokens. The argument that it tests (METHOD 5): decoding waits for
the weights, so streams that read them together cost little more than one.
"""

import argparse
import datetime
import json
import os
import pathlib
import platform
import subprocess
import sys
import tempfile

HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent / "llama_cpp"))
STREAMS = (1, 2, 3, 4, 6, 8, 12, 16)
DEPTH, DECODE = 512, 32


def model(name, shape):
    """The path of a random Q4_0 model, written once."""
    import llama
    import models
    import numpy as np

    path = os.path.join(tempfile.gettempdir(), f"random-qwen2-{name.lower()}-q4_0.gguf")
    if not os.path.exists(path):
        with tempfile.TemporaryDirectory(dir=os.path.dirname(path)) as scratch:
            f16 = os.path.join(scratch, "f16.gguf")
            models.write(f16, getattr(models, shape), seed=0, dtype=np.float16)
            llama.quantize(f16, path, "Q4_0")
    return path


def bench(binary, path, threads, repeats):
    args = [binary, "bench", "--model", path, "--threads", threads, "--prefill", 0, "--decode", DECODE, "--depth", DEPTH,
            "--streams", ",".join(map(str, STREAMS)), "--repeats", repeats, "--json"]
    done = subprocess.run([str(a) for a in args], check=True, capture_output=True, text=True)
    report = json.loads(done.stdout)
    rows = []
    for f in report["figures"]:
        n = f["streams"]
        rows.append({"streams": n, "tokens_per_second": f["tokens_per_second"], "step_ms": 1e3 * n / f["tokens_per_second"], "kv_bytes": f["kv_bytes"]})
    for row in rows:
        row["step_ratio"] = row["step_ms"] / rows[0]["step_ms"]
        row["kv_ratio"] = row["kv_bytes"] / rows[0]["kv_bytes"]
    return {"weights_bytes": report["weights_bytes"], "kv_bytes_per_token": report["kv_bytes_per_token"], "isa": report["isa"], "rows": rows}


def draw(results, path):
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(1, 2, figsize=(11, 4))
    for axis, key, title in zip(axes, ("step_ratio", "kv_ratio"), ("time of a decode step, against one stream", "KV memory, against one stream")):
        for name, result in results.items():
            rows = result["rows"]
            axis.plot([r["streams"] for r in rows], [r[key] for r in rows], marker="o", label=name)
        axis.plot(STREAMS, STREAMS, color="0.7", linestyle="--", label="N separate requests")
        axis.set(title=title, xlabel="streams", ylim=(0, 8.5))
        axis.legend()
    figure.tight_layout()
    figure.savefig(path)


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("binary")
    p.add_argument("record", type=pathlib.Path)
    p.add_argument("--threads", type=int, default=2)
    p.add_argument("--repeats", type=int, default=3)
    a = p.parse_args()
    from speed import cpu

    results = {}
    for name, shape in (("0.5B", "QWEN2_05B"), ("1.5B", "QWEN2_15B")):
        results[name] = bench(a.binary, model(name, shape), a.threads, a.repeats)
        for row in results[name]["rows"]:
            print(f"{name}  {row['streams']:2} streams  {row['step_ms']:7.1f} ms a step ({row['step_ratio']:.2f})  KV {row['kv_bytes'] / 2**20:6.1f} MiB ({row['kv_ratio']:.2f})")
    record = {
        "date": datetime.date.today().isoformat(), "model": "random weights, shapes of Qwen2.5-0.5B and 1.5B, Q4_0", "prompt_tokens": DEPTH,
        "decode_steps": DECODE, "threads": a.threads, "repeats": a.repeats, "cpu": cpu(), "system": platform.platform(), "results": results,
    }
    a.record.write_text(json.dumps(record, indent=1) + "\n")
    draw(results, a.record.with_suffix(".svg"))


if __name__ == "__main__":
    main()
