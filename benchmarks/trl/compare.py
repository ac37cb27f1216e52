"""GRPO side by side: `edgethink train grpo` and TRL's GRPOTrainer, both on the CPU, in turn, for each seed.

Run:    cargo build --release -p edgethink
        python benchmarks/trl/compare.py [--seeds 0 1 2] [--base DIR] [--adapter DIR] [--data FILE] [--record FILE]
Needs:  trl==1.16.0 transformers==5.23.0 peft==0.21.2 torch==2.13.0 datasets==5.2.0 matplotlib==3.11.2     (CPU wheels are enough)
        the pocket model, and its questions: edgethink data --config recipes/pocket/data.toml

Both train the same adapter under the settings of grpo.toml with the same reward; TRL gets the prompts of our run in their order (see
trl_run.py for what is the same and what is not). The adapter is masked (activated LoRA), which PEFT trains and generates with.
Writes one JSON record and, beside it, a picture of reward and mean length over steps. A step's seconds hold its completions and its
optimizer step, not the loading. Its CPU seconds are those of the process, TRL's without imports and loading, ours with; on a busy
machine they say more than the wall time. `--threads 1` is the way to compare them, as no thread then spins for another.
"""

import argparse
import datetime
import json
import os
import pathlib
import platform
import resource
import statistics
import subprocess
import sys
import tempfile

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parents[1]


def run(command, threads):
    """CPU seconds of a command and of what it started."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run([str(part) for part in command], check=True, env={**os.environ, "OMP_NUM_THREADS": str(threads)})
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def ours(binary, recipe, out, threads):
    cpu = run([binary, "train", "grpo", "--config", recipe], threads)
    rows = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    names = {"seconds": "step_time", "reward": "reward", "mean_length": "completions/mean_length", "kl": "kl"}
    return {key: [row[name] for row in rows] for key, name in names.items()} | {"cpu_seconds": cpu}


def theirs(recipe, tables, out, threads):
    cpu = run([sys.executable, HERE / "trl_run.py", "--recipe", recipe, "--tables", tables, "--out", out], threads)
    return json.loads(out.read_text()) | {"cpu_seconds": cpu}


def draw(runs, path):
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(1, 2, figsize=(11, 4))
    for axis, name, title in zip(axes, ("reward", "mean_length"), ("reward", "tokens per response")):
        for who, colour in (("edgethink", "tab:blue"), ("trl", "tab:red")):
            curves = [run[name] for run in runs[who]]
            steps = range(1, len(curves[0]) + 1)
            for curve in curves:
                axis.plot(steps, curve, colour, alpha=0.25, linewidth=1)
            axis.plot(steps, [statistics.mean(values) for values in zip(*curves)], colour, linewidth=2, label=who)
        axis.set(title=title, xlabel="step")
        axis.legend()
    figure.tight_layout()
    figure.savefig(path)


def curve(runs, name):
    """Mean and standard deviation over seeds of the mean over the first and the last third of the steps."""
    out = {}
    for place, part in (("first", lambda c: c[: len(c) // 3]), ("last", lambda c: c[-(len(c) // 3) :])):
        values = [statistics.mean(part(run[name])) for run in runs]
        out[place] = {"mean": statistics.mean(values), "std": statistics.stdev(values) if len(values) > 1 else None}
    return out


def summary(runs):
    """Median seconds of a step, after the first, which warms up; the curves' begin and end."""
    steps = [second for run in runs for second in run["seconds"][1:]]
    per_step = [(run["cpu_seconds"] - run.get("load_cpu_seconds", 0.0)) / len(run["seconds"]) for run in runs]
    return {
        "seconds_per_step": {"median": statistics.median(steps), "least": min(steps), "most": max(steps)},
        "cpu_seconds_per_step": statistics.median(per_step),
        "reward": curve(runs, "reward"),
        "mean_length": curve(runs, "mean_length"),
    }


def main():
    p = argparse.ArgumentParser()
    p.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    p.add_argument("--base", default=ROOT / "models/pocket/base")
    p.add_argument("--adapter", default=ROOT / "models/pocket/sft")
    p.add_argument("--data", default=ROOT / "data/pocket/rl.jsonl")
    p.add_argument("--binary", default=ROOT / "target/release/edgethink")
    p.add_argument("--threads", type=int, default=2)
    p.add_argument("--steps", type=int, default=12)
    p.add_argument("--record", type=pathlib.Path, default=ROOT / "benchmarks/record/trl.json")
    a = p.parse_args()

    runs, load = {"edgethink": [], "trl": []}, []
    template = (HERE / "grpo.toml").read_text()
    filled = {"{base}": a.base, "{adapter}": a.adapter, "{data}": a.data, "threads = 2": f"threads = {a.threads}"}
    for old, new in (filled | {"steps = 12": f"steps = {a.steps}"}).items():
        template = template.replace(old, str(new))
    for seed in a.seeds:
        with tempfile.TemporaryDirectory() as folder:
            folder = pathlib.Path(folder)
            out, recipe = folder / "ours", folder / "grpo.toml"
            recipe.write_text(template.replace("{out}", str(out)).replace("seed = 0", f"seed = {seed}"))
            load.append(os.getloadavg()[0])
            runs["edgethink"].append(ours(a.binary, recipe, out, a.threads))
            load.append(os.getloadavg()[0])
            runs["trl"].append(theirs(recipe, out / "completions", folder / "trl.json", a.threads))
        sides = {who: summary(list_) for who, list_ in runs.items()}
        ratio = {
            name: of(sides["trl"]) / of(sides["edgethink"])
            for name, of in (("seconds", lambda s: s["seconds_per_step"]["median"]), ("cpu_seconds", lambda s: s["cpu_seconds_per_step"]))
        }
        cpu = next(line.split(":")[1].strip() for line in open("/proc/cpuinfo") if line.startswith("model name"))
        commit = subprocess.run(["git", "-C", ROOT, "rev-parse", "--short", "HEAD"], capture_output=True, text=True).stdout.strip()
        record = {
            "date": datetime.date.today().isoformat(),
            "commit": commit,
            "model": "models/pocket: base of 1.2 M parameters, masked adapter of rank 16",
            "seeds": a.seeds[: len(runs["trl"])],
            "threads": a.threads,
            "cpu": {"name": cpu, "cores": os.cpu_count()},
            "system": platform.platform(),
            "load_before_each_run": load,
            "versions": runs["trl"][0]["versions"],
            "ratio": ratio,
            "results": sides,
            "runs": {who: [{k: v for k, v in run.items() if k != "versions"} for run in list_] for who, list_ in runs.items()},
        }
        a.record.write_text(json.dumps(record, indent=1) + "\n")
        draw(runs, a.record.with_suffix(".svg"))
        print(f"seed {seed}: TRL takes {ratio['seconds']:.1f} times the wall time of a step, {ratio['cpu_seconds']:.1f} times the CPU time")


if __name__ == "__main__":
    main()
