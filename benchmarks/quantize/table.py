"""The paper's table 10 on a small model: what range search, transforms, training of both, and Hessian-aware rounding give back (METHOD 6).

usage: python table.py EDGETHINK_BINARY BASE_DIR ADAPTER_DIR DATA_DIR OUT_DIR LIMIT [--planted | ROW...]

For the model as it is and for one with planted outlier channels (plant.py), every row of SCHEMES is quantized with one scale per output
channel, then measured: perplexity of the completions of base-valid.jsonl, accuracy of easy-test.jsonl without and of hard-test.jsonl with
thinking, by the adapter that was trained on the float base and taken along through the transforms. The rows of TRAINED start from the scheme of that
name and are trained end to end by `edgethink train quantize` on the first rows of base.jsonl. Writes OUT_DIR/table.json and OUT_DIR/table.md. LIMIT is how many rows of each file are
measured. Rows that table.json has are kept; naming rows measures those again. With --planted, only the model with planted outliers, the rows
of PLANTED, and those of WHOLE on all rows of each file as well. Needs numpy.
"""

import json
import os
import subprocess
import sys

import plant

PLAIN = {"bits": 4, "group": "channel", "range": "minmax", "rounding": "nearest"}
LP = {**PLAIN, "range": {"lp": 2.0}}
GPTQ = {**LP, "rounding": "gptq"}
FOLD = {"norm": True, "value": True, "key": True, "up": True}
ROTATE = {"residual": True, "untie": True, "value": True, "key": True, "up": True}
# name: linear layers, embedding that is also the lm_head, transforms
SCHEMES = {
    "min-max": (PLAIN, PLAIN, {}),
    "+ L^p": (LP, LP, {}),
    "+ transforms": (PLAIN, PLAIN, FOLD),
    "+ both": (LP, LP, FOLD),
    "+ both, GPTQ": (GPTQ, LP, FOLD),
    "+ both, GPTQ, ranges fitted": ({**GPTQ, "sweeps": 8}, LP, FOLD),
    "+ both, untied and rotated": (LP, LP, ROTATE),
    "+ both, groups of 32": ({**LP, "group": 32}, {**LP, "group": 32}, FOLD),
    "+ all, groups of 32": ({**GPTQ, "group": 32, "sweeps": 8}, {**LP, "group": 32}, FOLD),
}
# name: the scheme that is trained
TRAINED = {"+ L^p, trained": "+ L^p", "+ both, trained": "+ both"}
ROWS = ["bf16", *SCHEMES, *TRAINED]
# With --planted: what is measured, and of it on whole files too.
PLANTED = ["bf16", "min-max", "+ L^p", "+ transforms", "+ both", "+ both, GPTQ", "+ both, trained"]
WHOLE = ["bf16", "+ both", "+ both, trained"]
CTX, CHUNKS = 256, 64
RECIPE = """output_dir = "{out}"
seed = 0
scheme = "{scheme}"
[model]
base = "{model}"
[data]
train = ["{data}"]
max_length = 960
[optimizer]
lr = 5e-3
betas = [0.9, 0.95]
weight_decay = 0.0
schedule = "cosine"
warmup_ratio = 0.05
max_grad_norm = 1.0
[run]
max_tokens = {tokens}
batch_tokens = 3840
micro_batch_tokens = 960
log_every = 10
save_every = 50
save_total_limit = 1
threads = 2
"""
TOKENS, TRAIN_ROWS = 400_000, 5000


def toml(linears, tied, transforms):
    """A scheme as text."""

    def value(x):
        if isinstance(x, dict):
            return "{ " + ", ".join(f"{k} = {value(v)}" for k, v in x.items()) + " }"
        return json.dumps(x)

    sweeps = linears.get("sweeps", 0)
    linears = {key: x for key, x in linears.items() if key != "sweeps"}
    head = {**linears, "rounding": "nearest"}
    tables = {"linears": linears, "embedding": {**head, "bits": 8}, "lm_head": head, "tied": tied, "transforms": transforms}
    tables["gptq"] = {"damping": 0.01, "act_order": True, "sweeps": sweeps}
    tables["calibration"] = {"ctx": CTX, "chunks": CHUNKS}
    return "\n".join(f"[{name}]\n" + "".join(f"{k} = {value(v)}\n" for k, v in table.items()) for name, table in tables.items())


def calibration_text(data, out):
    """Training rows as one text."""
    with open(os.path.join(data, "base.jsonl"), encoding="utf-8") as rows, open(out, "w", encoding="utf-8") as text:
        for _, line in zip(range(400), rows):
            row = json.loads(line)
            if "messages" in row:
                text.write("".join(f"<|im_start|>{m['role']}\n{m['content']}<|im_end|>\n" for m in row["messages"]))
            else:
                text.write(f"{row['prompt']}{row['completion']}\n\n")


def main(binary, base, adapter, data, out, limit, *only):
    only_planted = "--planted" in only
    only = [name for name in only if name != "--planted"]
    os.makedirs(out, exist_ok=True)
    planted = os.path.join(out, "planted")
    plant.main(base, planted)
    text = os.path.join(out, "calibration.txt")
    calibration_text(data, text)

    def train(source, scheme, to):
        recipe = os.path.join(out, "recipe.toml")
        here = os.path.abspath
        part = os.path.join(out, "train.jsonl")
        with open(os.path.join(data, "base.jsonl"), encoding="utf-8") as rows, open(part, "w", encoding="utf-8") as file:
            file.writelines(row for _, row in zip(range(TRAIN_ROWS), rows))
        open(recipe, "w").write(RECIPE.format(out=here(to), scheme=here(scheme), model=here(source), data=here(part), tokens=TOKENS))
        if subprocess.run([binary, "train", "quantize", "--config", recipe], stderr=open(os.path.join(out, "train.log"), "a")).returncode != 0:
            sys.exit(f"the training failed, see {out}/train.log")

    def run(*args):
        done = subprocess.run([binary, *args, "--json"], capture_output=True, text=True)
        if done.returncode != 0:
            sys.exit(done.stderr)
        return json.loads(done.stdout)

    def measure(model, adapter, row, source_bytes):
        """The row on LIMIT rows of each file, and for WHOLE with --planted on all of them."""
        file = lambda name: os.path.join(data, name)
        rows = []
        for take in [int(limit)] + [None] * (only_planted and row["row"] in WHOLE):
            most = [] if take is None else ["--limit", str(take)]
            chunks = [] if take is None else ["--chunks", str(take)]
            ppl = run("eval", "ppl", "--jsonl", file("base-valid.jsonl"), "--model", model, "--adapter", "none", *chunks)
            easy = run("eval", "jsonl", file("easy-test.jsonl"), "--model", model, "--adapter", "none", "--think", "off", *most)
            hard = run("eval", "jsonl", file("hard-test.jsonl"), "--model", model, "--adapter", adapter, "--think", "on", "--max-tokens", "500", *most)
            rows.append(row | {"rows": hard["rows"], "ppl": ppl["ppl"], "easy": easy["accuracy"], "hard": hard["accuracy"]})
            rows[-1] |= {"stored_bytes": ppl["weights_bytes"], "share": ppl["weights_bytes"] / source_bytes}
            print(rows[-1], flush=True)
        return rows

    path = os.path.join(out, "table.json")
    table = json.load(open(path)) if os.path.exists(path) else []
    kinds = [("pocket", base), ("planted", planted)]
    for kind, source in kinds[1:] if only_planted else kinds:
        # Outliers change what an adapter reads, just as transforms do.
        taken = adapter if kind == "pocket" else os.path.join(out, "planted-adapter")
        if kind == "planted":
            plant.main_adapter(base, adapter, taken)
        for name in PLANTED if only_planted else ROWS:
            if name not in only if only else any((r["model"], r["row"]) == (kind, name) for r in table):
                continue
            table = [r for r in table if (r["model"], r["row"]) != (kind, name)]
            row = {"model": kind, "row": name}
            if name == "bf16":
                size = run("eval", "ppl", "--jsonl", os.path.join(data, "base-valid.jsonl"), "--model", source, "--chunks", "1")
                table += measure(source, taken, row, size["weights_bytes"])
                write(out, table)
                continue
            scheme = os.path.join(out, "scheme.toml")
            open(scheme, "w").write(toml(*SCHEMES[TRAINED.get(name, name)]))
            model = os.path.join(out, f"{kind}-{ROWS.index(name)}.gguf")
            more = []
            if name in TRAINED:
                more = ["--trained", os.path.join(out, f"{kind}-{ROWS.index(name)}-trained")]
                train(source, scheme, more[1])
            along = os.path.join(out, "adapter")
            command = ["quantize", "--model", source, "--scheme", scheme, "--calibration", text, "--out", model]
            report = run(*command, "--adapter", taken, "--adapter-out", along, *more)
            table += measure(model, along, row, report["source_bytes"])
            write(out, table)
    write(out, table)
    print(open(os.path.join(out, "table.md")).read())


def write(out, table):
    """table.json and table.md, in the order of ROWS, with what the accuracy on hard questions is of bf16's on the same rows."""
    table.sort(key=lambda r: (r["model"] != "pocket", ROWS.index(r["row"]), r.get("rows", 0)))
    with open(os.path.join(out, "table.json"), "w") as f:
        json.dump(table, f, indent=1)
    floats = {(r["model"], r.get("rows")): r["hard"] for r in table if r["row"] == "bf16"}
    with open(os.path.join(out, "table.md"), "w") as f:
        f.write("| model | weights | rows | perplexity | easy, no thinking | hard, thinking | of bf16 | bytes of bf16 |\n|---|---|---:|---:|---:|---:|---:|---:|\n")
        for r in table:
            whole = floats.get((r["model"], r.get("rows")))
            kept = f"{100 * r['hard'] / whole:.1f} %" if whole else ""
            f.write(f"| {r['model']} | {r['row']} | {r.get('rows', '')} | {r['ppl']:.4f} | {100 * r['easy']:.1f} % | {100 * r['hard']:.1f} % | {kept} | {r['share']:.3f} |\n")


if __name__ == "__main__":
    main(*sys.argv[1:])
