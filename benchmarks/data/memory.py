"""Peak memory of encoding training files of several sizes: it must not grow with the file.

Run:    python benchmarks/data/memory.py [--edgethink target/release/edgethink] [--megabytes 30 300]
Needs:  Linux, Python 3; the pocket model's directory (models/pocket/base) for its tokenizer.

For each size a JSONL file of that many megabytes is made, and `edgethink train base` encodes it to the disk and makes one optimizer step; then
`edgethink data decontaminate` compares it with a small benchmark. Printed are the seconds and the peak of resident memory of each.
"""
import argparse
import json
import os
import pathlib
import random
import subprocess
import tempfile
import time

ROOT = pathlib.Path(__file__).resolve().parents[2]
RECIPE = """output_dir = "{dir}/out"
seed = 1
[model]
base = "{base}"
[data]
train = ["{dir}/rows.jsonl"]
cache = "{dir}/tokens"
max_length = 512
overlong = "truncate"
[optimizer]
lr = 1e-4
betas = [0.9, 0.999]
weight_decay = 0.0
schedule = "constant"
warmup_ratio = 0.0
max_grad_norm = 1.0
[run]
max_tokens = 1024
batch_tokens = 1024
micro_batch_tokens = 512
log_every = 1
save_every = 0
resume = "none"
"""


def rows(path, megabytes, base):
    """Rows of words that the tokenizer knows, about 600 bytes each."""
    vocab = json.loads((base / "tokenizer.json").read_text())["model"]["vocab"]
    words = [w for w in (vocab if isinstance(vocab, dict) else [v[0] for v in vocab]) if w.isalpha()] or ["a", "b"]
    draw = random.Random(1)
    written = 0
    with open(path, "w") as file:
        while written < megabytes * 1_000_000:
            row = json.dumps({"text": " ".join(draw.choices(words, k=120))}) + "\n"
            file.write(row)
            written += len(row)


def measured(command):
    """Seconds and peak of resident memory, MiB, of a command."""
    begun = time.time()
    child = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(child.pid, 0)
    code = os.waitstatus_to_exitcode(status)
    if code != 0:
        raise SystemExit(f"{command} failed with {code}")
    return time.time() - begun, usage.ru_maxrss / 1024


def main():
    args = argparse.ArgumentParser()
    args.add_argument("--edgethink", default=str(ROOT / "target/release/edgethink"))
    args.add_argument("--base", type=pathlib.Path, default=ROOT / "models/pocket/base")
    args.add_argument("--megabytes", type=int, nargs="+", default=[30, 300])
    args = args.parse_args()
    print("megabytes  command        seconds  peak MiB")
    for megabytes in args.megabytes:
        with tempfile.TemporaryDirectory() as name:
            dir = pathlib.Path(name)
            rows(dir / "rows.jsonl", megabytes, args.base)
            (dir / "bench.jsonl").write_text(json.dumps({"question": "how many apples does anna have if tom has nine more than she has"}) + "\n")
            (dir / "recipe.toml").write_text(RECIPE.format(dir=dir, base=args.base))
            for label, command in [
                ("train base", ["train", "base", "--config", str(dir / "recipe.toml")]),
                ("decontaminate", ["data", "decontaminate", str(dir / "rows.jsonl"), "--against", str(dir / "bench.jsonl"), "--out", str(dir / "clean.jsonl")]),
            ]:
                seconds, mib = measured([args.edgethink, *command])
                print(f"{megabytes:9}  {label:13}  {seconds:7.1f}  {mib:8.1f}", flush=True)


if __name__ == "__main__":
    main()
