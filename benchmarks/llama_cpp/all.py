"""Everything that is claimed against llama.cpp, in one command: prefill, decode by depth and streams, adapters, switching, loading.

Run:    cargo build --release -p edgethink
        benchmarks/llama_cpp/setup.sh VENV BIN
        VENV/bin/python benchmarks/llama_cpp/all.py target/release/edgethink RECORD.json --work DIR
Needs:  what setup.sh installs; matplotlib==3.11.2 for the pictures (left out where it is missing)

Models have random weights in the shapes of Qwen2.5 (0.5B, 1.5B, 7B) and the types that llama.cpp's quantizer chooses for Q4_0; they and
the adapters (rank 128 on all linear layers, f16) are written to --work once: 0.4, 1.0 and 4.4 GB. Before anything is timed, greedy tokens
of the program are given to llama.cpp: each must be its best or within 2 % of the spread of its logits, with and without the adapter.
Both programs run alternately with the same threads, each --rounds times; a figure is the median. llama.cpp is timed with flash
attention on and off, and the better one counts.

--isa holds both programs to the instruction set of a lesser machine: avx2, or avxvnni (laptops from Alder Lake on). VENV and BIN are then
those that setup.sh makes with the same name.
"""

import argparse
import json
import os
import pathlib
import platform
import statistics
import subprocess
import sys
import time

import numpy as np

HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE))
STEPS = {"0.5B": 64, "1.5B": 32, "7B": 16}
DEPTHS = {"0.5B": (0, 1024, 4096), "1.5B": (0, 1024, 4096), "7B": (0, 1024)}
STREAMS = {"0.5B": (1, 4, 8, 16), "1.5B": (1, 4, 8, 16), "7B": (1, 8)}
SWITCH = {"0.5B": (1024, 8192), "1.5B": (1024,), "7B": ()}
RANKS = {"0.5B": (16, 32, 64, 128), "1.5B": (128,), "7B": ()}
PREFILL, SHARED, MIXED = 512, 512, 9
INVOCATION = [5, 6, 7]
HELD = {"avx2": set(), "avxvnni": {"AVX_VNNI"}}
PARTS = ("check", "speed", "streams", "lora", "switch", "load")
CLOSE = 0.02


def make(work, name, rank=None, seed=0):
    """The path of a model, or of an adapter of it, written once."""
    import models

    shape = models.QWEN2[name]
    if rank is None:
        path = work / f"qwen2-{name}-q4_0.gguf"
        write = lambda part: models.write_q4(part, shape, seed)
    else:
        path = work / f"qwen2-{name}-lora-{rank}-{seed}.gguf"
        every = [module for module, _, _ in models.linears(shape)]
        # B is small enough that a random adapter does not drown the base.
        write = lambda part: models.write_lora(part, shape, seed, rank, alpha=rank / 64, invocation=INVOCATION, modules=every, dtype=np.float16)
    if not path.exists():
        part = path.with_suffix(".part")
        write(str(part))
        forget(part)
        part.rename(path)
    return str(path)


def forget(path):
    """Takes a file out of the page cache: what was written in small pieces lies in small pages there, and is read again in large ones."""
    with open(path, "rb") as file:
        os.fsync(file.fileno())
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


class Programs:
    """Runs both and collects figures by name."""

    def __init__(self, binary, threads, adapter_weights, isa):
        self.binary, self.threads, self.adapter_weights, self.isa = binary, threads, adapter_weights, isa
        self.ours, self.theirs, self.report = {}, {}, {}

    def edgethink(self, model, *args):
        args = [self.binary, "bench", "--model", model, "--threads", self.threads, "--repeats", 1, "--adapter-weights", self.adapter_weights, "--json", *self.isa, *args]
        done = subprocess.run([str(a) for a in args], capture_output=True, text=True)
        if done.returncode != 0:
            sys.exit(f"{' '.join(map(str, args))}\n{done.stderr}")
        report = json.loads(done.stdout)
        self.report.update({k: report[k] for k in ("isa", "weights", "adapter_weights", "kv")})
        return report

    def llama(self, model, jobs):
        args = [sys.executable, str(HERE / "speed_jobs.py"), model, str(self.threads)]
        done = subprocess.run(args, input=json.dumps(jobs), capture_output=True, text=True)
        if done.returncode != 0:
            sys.exit(f"{' '.join(args)}\n{done.stderr}")
        return json.loads(done.stdout.splitlines()[-1])

    def note(self, side, name, value):
        side.setdefault(name, []).append(value)


def check_isa(isa):
    """Stops where llama.cpp was not compiled for the instruction set that is asked for."""
    from llama import version

    found = {name for name in ("AVX_VNNI", "AVX512", "AMX_INT8") if f"{name} = 1" in version()["system_info"]}
    if isa and found != HELD[isa]:
        sys.exit(f"this llama.cpp has {sorted(found) or 'none'} beyond AVX2: compile it with setup.sh VENV BIN JOBS {isa}")


def bundle(binary, model):
    """The bundle of a model, written once."""
    path = pathlib.Path(model).with_suffix(".edgethink")
    if not path.exists():
        subprocess.run([binary, "bundle", "pack", model, "-o", str(path)], check=True)
    return str(path)


def check(p, model, adapter):
    """Greedy tokens of the program, judged by llama.cpp's logits."""
    worst = {}
    for name, lora in (("base", None), ("adapter", adapter)):
        more = ["--adapter", lora, "--with-adapter", "--switch", 0] if lora else ["--adapter", "none"]
        sample = p.edgethink(model, "--prefill", 0, "--decode", 0, "--sample", 24, *more)["sample"]
        job = {"what": "check", "flash": 0, **sample}
        gaps = p.llama(model, [job | {"lora": lora} if lora else job])[0]
        worst[name] = max(gaps)
        same = sum(gap == 0 for gap in gaps)
        print(f"  {name}: {same} of {len(gaps)} greedy tokens are llama.cpp's best, the others within {100 * max(gaps):.2f} % of the spread")
        if max(gaps) > CLOSE:
            sys.exit(f"outputs differ by more than {100 * CLOSE} %: nothing is timed")
    return worst


def round_of(p, name, model, parts, work):
    """One round of every part, llama.cpp first."""
    steps, jobs = STEPS[name], []
    lora = lambda rank=128, seed=1: make(work, name, rank, seed)

    def job(key, **fields):
        for flash in (0, 1):
            jobs.append((key, {"flash": flash, **fields}))

    if "speed" in parts:
        job("prefill", what="prefill", tokens=PREFILL)
        for depth in DEPTHS[name]:
            job(f"decode depth {depth}", what="decode", streams=1, depth=depth, steps=steps)
    if "streams" in parts:
        for n in STREAMS[name]:
            job(f"decode {n} streams", what="decode", streams=n, depth=SHARED, steps=steps // 2)
    if "lora" in parts:
        for rank in RANKS[name]:
            job(f"lora {rank} prefill", what="prefill", tokens=PREFILL, lora=lora(rank))
            for n in (1, 4, 8) if rank == 128 else (1,):
                job(f"lora {rank} decode {n} streams", what="decode", streams=n, depth=SHARED, steps=steps // 2, lora=lora(rank))
    if "switch" in parts:
        for tokens in SWITCH[name]:
            job(f"switch {tokens}", what="prefill", tokens=tokens, lora=lora())
    if jobs:
        for (key, spec), value in zip(jobs, p.llama(model, [spec for _, spec in jobs])):
            if key.startswith("switch"):
                value = 1e3 * spec["tokens"] / value
            p.note(p.theirs, f"{key}, flash {'on' if spec['flash'] else 'off'}", value)

    def figures(key, *args):
        for f in p.edgethink(model, *args)["figures"]:
            p.note(p.ours, key(f), f["tokens_per_second"])

    decode = ("--prefill", 0, "--decode", steps, "--switch", 0)
    half = ("--prefill", 0, "--decode", steps // 2, "--switch", 0, "--depth", SHARED)
    listed = lambda values: ",".join(map(str, values))
    if "speed" in parts:
        figures(lambda f: "prefill", "--adapter", "none", "--prefill", PREFILL, "--decode", 0)
        figures(lambda f: f"decode depth {f['depth']}", "--adapter", "none", *decode, "--streams", 1, "--depth", listed(DEPTHS[name]))
    if "streams" in parts:
        figures(lambda f: f"decode {f['streams']} streams", "--adapter", "none", *half, "--streams", listed(STREAMS[name]))
    if "lora" in parts:
        for rank in RANKS[name]:
            with_adapter = ("--adapter", lora(rank), "--with-adapter")
            figures(lambda f: f"lora {rank} prefill", *with_adapter, "--prefill", PREFILL, "--decode", 0, "--switch", 0)
            streams = (1, 4, 8, MIXED) if rank == 128 else (1,)
            figures(lambda f: f"lora {rank} decode {f['streams']} streams", *with_adapter, *half, "--streams", listed(streams))
        figures(lambda f: f"base decode {f['streams']} streams", "--adapter", "none", *half, "--streams", MIXED)
        figures(lambda f: f"mixed decode {f['streams']} streams", "--adapter", lora(), "--mixed-with", lora(seed=2), *half, "--streams", MIXED)
    if "switch" in parts:
        for tokens in SWITCH[name]:
            for s in p.edgethink(model, "--adapter", lora(), "--prefill", 0, "--decode", 0, "--switch", tokens)["switches"]:
                p.note(p.ours, f"switch {s['tokens']}", s["switch_ms"])
    if "load" in parts:
        def load(key, path):
            run = lambda tokens: p.edgethink(path, "--adapter", "none", "--prefill", tokens, "--decode", 8, "--streams", 1, "--switch", 0)
            run(1)  # the page cache is warm behind it
            report = run(PREFILL)
            held = report["weights_bytes"] + (PREFILL + 8) * report["kv_bytes_per_token"]
            p.note(p.ours, f"load to first token, ms{key}", report["first_token_ms"])
            p.note(p.ours, f"resident over weights and KV{key}", report["peak_rss_bytes"] / held)
            p.note(p.ours, f"resident, bytes{key}", report["peak_rss_bytes"])

        load("", model)
        load(", bundle", bundle(p.binary, model))
        p.note(p.theirs, "load to first token, ms, flash off", 1e3 * p.llama(model, [{"what": "load", "flash": 0}])[0])


def summary(p, model, limits):
    """Medians, and the ratio to llama.cpp's better setting; for times the ratio is theirs over ours too."""
    size = os.path.getsize(model)
    rows = {}
    for name, values in p.ours.items():
        ours = statistics.median(values)
        row = {"edgethink": ours}
        settings = {key.removeprefix(name + ", "): statistics.median(v) for key, v in p.theirs.items() if key.startswith(name + ", flash")}
        if settings:
            is_time = name.startswith(("switch", "load"))
            best = min(settings.values()) if is_time else max(settings.values())
            row |= {"llama.cpp": best, "llama.cpp by setting": settings, "ratio": best / ours if is_time else ours / best}
        rows[name] = row
    print(f"\n{'':34}{'edgethink':>12}{'llama.cpp':>12}{'ratio':>9}   ({size / 1e9:.2f} GB)")
    for name, row in rows.items():
        theirs = f"{row['llama.cpp']:12.1f}{row['ratio']:9.2f}" if "ratio" in row else ""
        print(f"{name:34}{row['edgethink']:12.2f}{theirs}")
    for row in marks(rows, limits):
        print("  " + row)
    return rows


def marks(rows, limits):
    """The sentences that follow from the rows."""
    value = lambda name: rows[name]["edgethink"]
    if "lora 128 decode 1 streams" in rows and "decode 1 streams" in rows:
        for n in (1, 4, 8):
            ours = value(f"decode {n} streams") / value(f"lora 128 decode {n} streams") - 1
            theirs = rows[f"decode {n} streams"]["llama.cpp"] / rows[f"lora 128 decode {n} streams"]["llama.cpp"] - 1
            yield f"rank 128, {n} streams: +{100 * ours:.0f} % (llama.cpp +{100 * theirs:.0f} %); its share of the bytes is {100 * limits['adapter_share']:.0f} %"
        mixed = value(f"lora 128 decode {MIXED} streams") / value(f"mixed decode {MIXED} streams") - 1
        yield f"two adapters and the base in one batch of {MIXED}: {100 * mixed:+.1f} % time against one adapter alone"
    for name in rows:
        if name.startswith("decode depth") and "read_gb_per_second" in limits:
            depth = int(name.split()[-1])
            most = limits["read_gb_per_second"] * 1e9 / (limits["weights_bytes"] + depth * limits["kv_bytes_per_token"])
            yield f"{name}: {100 * value(name) / most:.0f} % of what reading at {limits['read_gb_per_second']:.1f} GB/s allows"


def draw(results, path):
    """Tokens per second by streams, depth and rank; nothing where matplotlib is missing."""
    try:
        import matplotlib
    except ImportError:
        print("matplotlib is not installed: no pictures")
        return
    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    kinds = (("streams", "decode {} streams", "streams on one 512-token prompt"), ("depth", "decode depth {}", "tokens of context"), ("rank", "lora {} decode 1 streams", "rank of the adapter"))
    figure, axes = plt.subplots(len(results), 3, figsize=(13, 3.4 * len(results)), squeeze=False)
    for line, (name, result) in zip(axes, results.items()):
        for axis, (_, pattern, label) in zip(line, kinds):
            before, after = pattern.split("{}")
            found = {int(k[len(before) : len(k) - len(after) or None]): v for k, v in result["rows"].items() if k.startswith(before) and k.endswith(after) and k[len(before) : len(k) - len(after) or None].isdigit()}
            xs = sorted(found)
            for side in ("edgethink", "llama.cpp"):
                points = [(x, found[x][side]) for x in xs if side in found[x]]
                axis.plot(*zip(*points), marker="o", label=side) if points else None
            axis.set(title=f"{name} shape, Q4_0", xlabel=label, ylabel="tokens/s", ylim=(0, None), xticks=xs)
            axis.set_visible(bool(axis.lines))
            if axis.lines:
                axis.legend()
    figure.tight_layout()
    figure.savefig(path)


def main():
    a = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    a.add_argument("binary")
    a.add_argument("record", type=pathlib.Path, help="written; parts that an earlier run has left in it stay if they are not run again")
    a.add_argument("--work", type=pathlib.Path, required=True, help="where models and adapters are kept")
    a.add_argument("--models", default="0.5B,1.5B,7B")
    a.add_argument("--parts", default=",".join(PARTS))
    a.add_argument("--depths", help="instead of those of each model, for example 0,1024,4096")
    a.add_argument("--adapter-weights", choices=("stored", "q8"), default="stored", help="how the program holds adapters; llama.cpp's are f16")
    a.add_argument("--isa", choices=HELD, help="hold both programs to this instruction set")
    a.add_argument("--rounds", type=int, default=3)
    a.add_argument("--threads", type=int, default=os.cpu_count())
    a = a.parse_args()
    from llama import version
    from speed import cpu

    parts = a.parts.split(",")
    check_isa(a.isa)
    before = json.loads(a.record.read_text()) if a.record.exists() else {"cpu": cpu(), "threads": a.threads, "isa": a.isa, "results": {}}
    if (before["cpu"], before["threads"], before.get("isa")) != (cpu(), a.threads, a.isa):
        sys.exit(f"{a.record} is of another processor, instruction set or number of threads: name another file")
    results = before["results"]
    if a.depths:
        for name in DEPTHS:
            DEPTHS[name] = tuple(map(int, a.depths.split(",")))
    isa = ["--isa", a.isa] if a.isa else []
    roofline = json.loads(subprocess.run([a.binary, "bench", "--roofline", "--threads", str(a.threads), "--json", *isa], check=True, capture_output=True, text=True).stdout)
    reads = max((r for r in roofline["reads"]), key=lambda r: r["bytes_per_thread"])
    for name in a.models.split(","):
        begin = time.time()
        p = Programs(a.binary, a.threads, a.adapter_weights, isa)
        model = make(a.work, name)
        print(f"\n{name}: {model}", flush=True)
        result = results.get(name, {})
        if "check" in parts:
            result["largest gap over the spread"] = check(p, model, make(a.work, name, 128, 1))
        on = ("--adapter", make(a.work, name, 128, 1), "--with-adapter", "--switch", 0) if RANKS[name] else ("--adapter", "none")
        sizes = p.edgethink(model, *on, "--prefill", 0, "--decode", 0)
        limits = {
            "weights_bytes": sizes["weights_bytes"], "kv_bytes_per_token": sizes["kv_bytes_per_token"],
            "read_gb_per_second": reads["gb_per_second"], "adapter_share": sizes["adapters_bytes"] / sizes["weights_bytes"],
        }
        for i in range(a.rounds):
            round_of(p, name, model, parts, a.work)
            print(f"  round {i + 1} of {a.rounds}, {time.time() - begin:.0f} s", flush=True)
        git = subprocess.run(["git", "describe", "--always", "--dirty"], capture_output=True, text=True, cwd=HERE).stdout.strip()
        run = {
            "date": time.strftime("%Y-%m-%d"), "commit": git, "parts": parts, "rounds": a.rounds, "limits": limits, "edgethink": p.report,
            "values": {"edgethink": p.ours, "llama.cpp": p.theirs},
        }
        result |= {"rows": result.get("rows", {}) | summary(p, model, limits), "runs": result.get("runs", []) + [run]}
        results[name] = result
        record = {
            "models": "random weights, shapes of Qwen2.5, types of llama.cpp's Q4_0",
            "unit": "tokens per second of all streams; switch and load in ms", "threads": a.threads, "cpu": cpu(), "isa": a.isa,
            "system": platform.platform(), "llama.cpp": version(), "roofline": roofline, "results": results,
        }
        a.record.write_text(json.dumps(record, indent=1) + "\n")  # after each model, so that a stopped run leaves what it has
    draw(results, a.record.with_suffix(".svg"))


if __name__ == "__main__":
    main()
