"""Compares the speed of `edgethink bench` with llama.cpp on one random 0.5B-shaped Q4_0 file, alternating runs, and writes a record.

usage: python speed.py EDGETHINK_BINARY RECORD.json [--rounds 3] [--threads 2] [--type Q4_0] [--model FILE.gguf]

The machine may be shared: only the ratios of medians of alternating runs count. Both programs measure prefill of 512 tokens on an
empty cache and greedy decode of 64 steps for 1, 4 and 8 streams that share a short prompt.
"""

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time

import numpy as np

HERE = os.path.dirname(os.path.abspath(__file__))
PREFILL, DECODE, STREAMS = 512, 64, (1, 4, 8)


def make_model(path, ftype):
    """Writes the random model through F16 and llama.cpp's quantizer."""
    import llama
    import models

    with tempfile.TemporaryDirectory(dir=os.path.dirname(path)) as scratch:
        f16 = os.path.join(scratch, "f16.gguf")
        models.write(f16, models.QWEN2_05B, seed=0, dtype=np.float16)
        llama.quantize(f16, path, ftype)


def run_llama(model, threads):
    args = [sys.executable, os.path.join(HERE, "speed_llama.py"), model, threads, PREFILL, DECODE, ",".join(map(str, STREAMS))]
    return json.loads(subprocess.run([str(a) for a in args], check=True, capture_output=True, text=True).stdout)


def run_edgethink(binary, model, threads, report):
    args = [binary, "bench", "--model", model, "--threads", threads, "--prefill", PREFILL, "--decode", DECODE,
            "--streams", ",".join(map(str, STREAMS)), "--depth", 0, "--repeats", 1, "--json"]
    done = subprocess.run([str(a) for a in args], check=True, capture_output=True, text=True)
    report.update(json.loads(done.stdout))
    out = {}
    for figure in report.pop("figures"):
        name = "prefill" if figure["what"] == "prefill" else f"decode x{figure['streams']}"
        out[name] = figure["tokens_per_second"]
    return out


def cpu():
    if os.path.exists("/proc/cpuinfo"):
        lines = dict(line.split(":", 1) for line in open("/proc/cpuinfo") if ":" in line)
        fields = {k.strip(): v.strip() for k, v in lines.items()}
        flags = [f for f in fields.get("flags", "").split() if f.startswith(("avx", "amx", "fma", "f16c"))]
        return {"name": fields.get("model name", platform.processor()), "cores": os.cpu_count(), "flags": flags}
    return {"name": platform.processor(), "cores": os.cpu_count(), "flags": []}


def main():
    p = argparse.ArgumentParser()
    p.add_argument("binary")
    p.add_argument("record")
    p.add_argument("--rounds", type=int, default=3)
    p.add_argument("--threads", type=int, default=2)
    p.add_argument("--type", default="Q4_0")
    p.add_argument("--model")
    a = p.parse_args()
    model = a.model or os.path.join(tempfile.gettempdir(), f"random-qwen2-0.5b-{a.type.lower()}.gguf")
    if not os.path.exists(model):
        make_model(model, a.type)
    ours, theirs, report = [], [], {}
    for _ in range(a.rounds):
        theirs.append(run_llama(model, a.threads))
        ours.append(run_edgethink(a.binary, model, a.threads, report))
    from llama import version

    rows = {}
    for name in theirs[0]:
        us, them = (statistics.median(r[name] for r in runs) for runs in (ours, theirs))
        rows[name] = {"edgethink": round(us, 2), "llama.cpp": round(them, 2), "ratio": round(us / them, 3)}
        print(f"{name:10} edgethink {us:8.1f} tok/s   llama.cpp {them:8.1f} tok/s   ratio {us / them:.2f}")
    git = subprocess.run(["git", "describe", "--always", "--dirty"], capture_output=True, text=True, cwd=HERE).stdout.strip()
    record = {
        "date": time.strftime("%Y-%m-%d"), "commit": git, "model": f"random weights, shape of Qwen2.5-0.5B, {a.type} by llama.cpp's quantizer",
        "prefill_tokens": PREFILL, "decode_steps": DECODE, "threads": a.threads, "rounds": a.rounds, "unit": "tokens per second, median",
        "cpu": cpu(), "system": platform.platform(), "llama.cpp": version(), "edgethink": report, "results": rows,
        "runs": {"edgethink": ours, "llama.cpp": theirs},
    }
    report.pop("model", None)
    with open(a.record, "w") as f:
        json.dump(record, f, indent=1)
        f.write("\n")


if __name__ == "__main__":
    main()
