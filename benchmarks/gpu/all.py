"""One command for a GPU: SFT and GRPO steps of the 0.5B to 7B shapes (random weights), with tokens per second, memory, the share of the
card's peak, and losses held against the CPU's. What this machine cannot measure is `not measured` in the record and the table.

Run:    cargo build --release -p edgethink --features cuda        (or vulkan)
        python benchmarks/gpu/all.py [--device cuda] [--shapes 0.5B 1.5B 3B 7B] [--card "H100 SXM" | --peak TFLOPS] [--record FILE]
Needs:  Python 3. With torch, transformers and peft (versions: benchmarks/peft/sft_speed.py) the same SFT by PyTorch and PEFT, up to 1.5B.

The operations of a step are those that `edgethink train plan` counts. The peak is that of the arithmetic that most products use: FP32 through
Vulkan and Metal; through CUDA bf16 (`[run] compute_dtype`, --compute-dtype), or TF32, as the library makes products of f32 values. Memory is the most that `nvidia-smi` saw in use on
card 0, less what was in use before. A GRPO step is the learning alone; our engine draws its completions on the CPU, which is told beside it.
Random weights end at no time of their own: one token in 64 counts as an end, so that lengths, and with them L1's rewards, differ.
The CPU makes the first step of --cpu-shapes too, with the same base in bf16; losses are told, and equal if within 1e-3 of each other.
"""

import argparse
import json
import pathlib
import platform
import random
import shutil
import statistics
import struct
import subprocess
import sys
import tempfile
import threading
import time

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "benchmarks/peft"))
import sft_speed  # noqa: E402

NOT = "not measured"
# Network, tied head, tokens of a row, rows of a step, run the layers again.
SHAPES = {
    "28M": (sft_speed.SHAPES["28M"][0], True, 512, 4, False),
    "0.5B": (sft_speed.SHAPES["0.5B"][0], True, 1024, 8, False),
    "1.5B": (sft_speed.SHAPES["1.5B"][0], True, 1024, 8, False),
    "3B": (dict(hidden_size=2048, intermediate_size=11008, num_hidden_layers=36, num_attention_heads=16, num_key_value_heads=2, vocab_size=151936), True, 1024, 8, True),
    "7B": (dict(hidden_size=3584, intermediate_size=18944, num_hidden_layers=28, num_attention_heads=28, num_key_value_heads=4, vocab_size=152064), False, 1024, 8, True),
}
# 10^12 operations per second, without sparsity: FP32 outside the tensor cores, TF32, and bf16 with sums in FP32. From NVIDIA's data sheets
# (A100, L4, H100, H200) and architecture papers (GA102, Ada).
CARDS = {
    "A100": (19.5, 156, 312), "H100 SXM": (67, 494.5, 989.5), "H200": (67, 494.5, 989.5), "L4": (30.3, 60, 121),
    "RTX 3090": (35.6, 35.6, 71), "RTX 4090": (82.6, 82.6, 165.2),
}

GRPO = """
output_dir = "{out}"
seed = 0
[model]
base = "{model}"
adapter = "{adapter}"
[data]
train = ["{data}"]
max_prompt_tokens = 256
[budget]
tokens = [64, 128]
line = "Use at most {{B}} tokens."
[rollout]
questions_per_step = 2
group = 8
temperature = 1.0
max_completion_tokens = 256
max_sequences = 16
[[reward]]
kind = "l1_exact"
[objective]
loss = "dapo"
epsilon = 0.2
beta = 1e-3
[optimizer]
lr = 1e-5
betas = [0.9, 0.95]
eps = 1e-8
weight_decay = 0.0
schedule = "constant"
warmup_ratio = 0.0
max_grad_norm = 1.0
[run]
steps = {steps}
micro_batch_tokens = 2048
device = "{device}"
gradient_checkpointing = {again}
log_every = 1
save_every = 0
resume = "none"
[guard]
zero_reward_steps = 1000
clipped_steps = 1000
max_entropy = 100.0
"""


def write_model(shape: dict, tied: bool, folder: pathlib.Path) -> None:
    """Random weights in bf16, cut at random places out of a million normal draws."""
    draw = random.Random(0)
    pool = b"".join(struct.pack("<f", draw.gauss(0.0, 0.02))[2:] for _ in range(1 << 20))
    e, f, layers = shape["hidden_size"], shape["intermediate_size"], shape["num_hidden_layers"]
    q, kv = e, e // shape["num_attention_heads"] * shape["num_key_value_heads"]
    tensors = {"model.embed_tokens.weight": [shape["vocab_size"], e], "model.norm.weight": [e]}
    if not tied:
        tensors["lm_head.weight"] = [shape["vocab_size"], e]
    for layer in range(layers):
        at = f"model.layers.{layer}"
        for name, out, inner in (("q", q, e), ("k", kv, e), ("v", kv, e), ("o", e, q)):
            tensors[f"{at}.self_attn.{name}_proj.weight"] = [out, inner]
            if name != "o":
                tensors[f"{at}.self_attn.{name}_proj.bias"] = [out]
        for name, out, inner in (("gate", f, e), ("up", f, e), ("down", e, f)):
            tensors[f"{at}.mlp.{name}_proj.weight"] = [out, inner]
        for name in ("input_layernorm", "post_attention_layernorm"):
            tensors[f"{at}.{name}.weight"] = [e]
    header, end = {}, 0
    for name, dims in tensors.items():
        size = 2 * dims[0] * (dims[1] if len(dims) > 1 else 1)
        header[name] = {"dtype": "BF16", "shape": dims, "data_offsets": [end, end + size]}
        end += size
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    folder.mkdir()
    with open(folder / "model.safetensors", "wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        for name, about in header.items():
            left = about["data_offsets"][1] - about["data_offsets"][0]
            if "norm" in name:
                file.write(b"\x80\x3f" * (left // 2))
                continue
            while left:
                start = 2 * draw.randrange(1 << 19)
                left -= file.write(pool[start : start + min(left, 1 << 20)])
    config = shape | {"model_type": "qwen2", "architectures": ["Qwen2ForCausalLM"], "rms_norm_eps": 1e-6, "rope_theta": 1e6, "hidden_act": "silu",
                      "max_position_embeddings": 4096, "tie_word_embeddings": tied}
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "generation_config.json").write_text(json.dumps({"eos_token_id": list(range(2, shape["vocab_size"], 64))}))
    for name in ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja"):
        shutil.copy(sft_speed.BASE / name, folder)


def used() -> float | None:
    """GiB in use on the first NVIDIA card, by its driver's own program."""
    try:
        out = subprocess.run(["nvidia-smi", "--query-gpu=memory.used", "--format=csv,noheader,nounits", "-i", "0"], capture_output=True, text=True)
        return float(out.stdout) / 1024 if out.returncode == 0 else None
    except (FileNotFoundError, ValueError):
        return None


def run(binary: pathlib.Path, kind: str, recipe: str, folder: pathlib.Path) -> dict:
    """The metrics of a training, step by step, and what it took of both memories, GiB."""
    file = folder / f"{kind}.toml"
    file.write_text(recipe)
    before, most, done = used(), 0.0, threading.Event()

    def watch() -> None:
        nonlocal most
        while before is not None and not done.wait(0.2):
            most = max(most, used() or 0.0)

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        _, memory = sft_speed.child([binary, "train", kind, "--config", file])
    finally:
        done.set()
        thread.join()
    out = next(line.split('"')[1] for line in recipe.splitlines() if line.startswith("output_dir"))
    rows = [json.loads(line) for line in (pathlib.Path(out) / "metrics.jsonl").read_text().splitlines()]
    return {"steps": [row for row in rows if "step_time" in row], "host_gib": memory, "gpu_gib": None if before is None else most - before}


def sft_recipe(out: pathlib.Path, folder: pathlib.Path, shape: tuple, device: str, steps: int, held: str, compute: str) -> str:
    _, _, length, rows, again = shape
    text = sft_speed.RECIPE.format(out=out, model=folder / "model", data=folder / "rows.jsonl", length=length, tokens=length * rows * steps, batch=length * rows,
                                   micro=length * (rows if device != "cpu" else 1), device=device, held=held,
                                   compute=compute, threads=0)
    return text.replace("gradient_checkpointing = false", f"gradient_checkpointing = {str(again).lower()}")


def flops(binary: pathlib.Path, recipe: pathlib.Path) -> float:
    """Operations of a step's forward and backward pass."""
    out, _ = sft_speed.child([binary, "train", "plan", recipe, "--json", "--no-times", "--memory", "100000"])
    return next(work["flops"] for work in json.loads(out)["work"] if work["name"] == "forward and backward")


def measure(a, name: str, folder: pathlib.Path) -> dict:
    """One shape on the GPU, and its first step on the CPU."""
    shape = SHAPES[name]
    dims, tied, length, rows, again = shape
    write_model(dims, tied, folder / "model")
    sft_speed.write_rows(folder / "rows.jsonl", rows * a.steps, length)
    # Held and computed in bf16 where there are such numbers.
    held, compute = ("bf16", a.compute_dtype) if a.device.startswith("cuda") else ("f32", "f32")
    base = f'base_dtype = "{held}"\ncompute_dtype = "{compute}"\n'
    found = {}
    sft = run(a.binary, "sft", sft_recipe(folder / "gpu", folder, shape, a.device, a.steps, held, compute), folder)
    seconds = statistics.median([row["step_time"] for row in sft["steps"]][1:])
    rate = flops(a.binary, folder / "sft.toml") / seconds / 1e12
    found["sft"] = {"tokens_per_second": length * rows / seconds, "tflops": rate, "share_of_peak": rate / a.peak if a.peak else NOT,
                    "gpu_gib": NOT if sft["gpu_gib"] is None else sft["gpu_gib"], "host_gib": sft["host_gib"],
                    "losses": [row["loss"] for row in sft["steps"]], "cpu_loss": NOT, "equal": NOT}
    questions = [{"prompt": f"What is {i} + {i + 1}?", "answer": str(2 * i + 1)} for i in range(64)]
    (folder / "questions.jsonl").write_text("".join(json.dumps(row) + "\n" for row in questions))
    grpo = lambda device, out, steps: GRPO.format(out=out, model=folder / "model", adapter=folder / "gpu", data=folder / "questions.jsonl",
                                                  device=device, again=str(again).lower(), steps=steps)
    cut = lambda text: text.replace("[guard]", f"{base}[guard]")
    rl = run(a.binary, "grpo", cut(grpo(a.device, folder / "grpo", a.steps)), folder)
    timed = rl["steps"][1:] or rl["steps"]
    learnt = [row["step_time"] - row["rollout/seconds"] for row in timed]
    found["grpo"] = {"learning_seconds": statistics.median(learnt), "rollout_seconds": statistics.median(row["rollout/seconds"] for row in timed),
                     "gpu_gib": NOT if rl["gpu_gib"] is None else rl["gpu_gib"], "losses": [row["loss"] for row in rl["steps"]], "cpu_loss": NOT, "equal": NOT}
    if name in a.cpu_shapes:
        first = run(a.binary, "sft", sft_recipe(folder / "cpu", folder, shape, "cpu", 1, held, compute), folder)
        again_rl = run(a.binary, "grpo", cut(grpo("cpu", folder / "grpo-cpu", 1)), folder)
        for kind, cpu in (("sft", first), ("grpo", again_rl)):
            loss, other = cpu["steps"][0]["loss"], found[kind]["losses"][0]
            found[kind] |= {"cpu_loss": loss, "equal": abs(loss - other) <= 1e-3 * max(abs(loss), 1e-3)}
    return found


def table(record: dict) -> str:
    head = ["shape", "SFT tokens/s", "share of peak", "GPU GiB", "loss, CPU's", "GRPO learning s", "rollouts s (CPU)", "GPU GiB", "loss, CPU's", "PyTorch + PEFT tokens/s"]
    tell = lambda v: f"{v:.4g}" if isinstance(v, float) else str(v)

    def pair(part: dict) -> str:
        return NOT if not part else f"{part['losses'][0]:.5f}, {tell(part['cpu_loss'])}"

    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    for name, found in record["shapes"].items():
        sft, grpo, torch = (found[key] if isinstance(found[key], dict) else {} for key in ("sft", "grpo", "pytorch"))
        cells = [name, *(tell(sft.get(key, NOT)) for key in ("tokens_per_second", "share_of_peak", "gpu_gib")), pair(sft),
                 *(tell(grpo.get(key, NOT)) for key in ("learning_seconds", "rollout_seconds", "gpu_gib")), pair(grpo), tell(torch.get("tokens_per_second", NOT))]
        lines.append("| " + " | ".join(cells) + " |")
    return f"Device: {record['device']}. Card: {record['card']}. Peak: {record['peak_tflops']} TFLOP/s.\n\n" + "\n".join(lines) + "\n"


def pytorch(a, name: str) -> dict | str:
    """The same SFT by PyTorch and PEFT beside ours, where they are installed."""
    if name not in sft_speed.SHAPES or subprocess.run([sys.executable, "-c", "import torch, peft; assert torch.cuda.is_available()"], capture_output=True).returncode:
        return NOT
    with tempfile.NamedTemporaryFile(suffix=".json") as file:
        sft_speed.child([sys.executable, ROOT / "benchmarks/peft/sft_speed.py", "--shapes", name, "--rounds", "1", "--binary", a.binary, "--device", a.device,
                         "--torch-device", "cuda", "--compute-dtype", a.compute_dtype if a.device.startswith("cuda") else "f32", "--record", file.name])
        found = json.loads(pathlib.Path(file.name).read_text())["shapes"][name]
    rate = found["tokens_per_second"]
    return {"tokens_per_second": max(rate["at once"], rate["one by one"]), "beside_ours": found}


def main() -> None:
    p = argparse.ArgumentParser()
    p.add_argument("--device", help="cuda, vulkan, metal, ... [default: cuda if nvidia-smi finds a card, else nothing is measured]")
    p.add_argument("--shapes", nargs="+", choices=list(SHAPES), default=["0.5B", "1.5B", "3B", "7B"])
    p.add_argument("--cpu-shapes", nargs="*", choices=list(SHAPES), default=["28M", "0.5B"], help="whose first step the CPU makes too")
    p.add_argument("--steps", type=int, default=4)
    p.add_argument("--compute-dtype", choices=["f32", "bf16"], default="bf16", help="of the products with the base through CUDA; elsewhere they are f32")
    p.add_argument("--card", choices=list(CARDS))
    p.add_argument("--peak", type=float, help="of the card, 10^12 operations per second, instead of --card")
    p.add_argument("--binary", type=pathlib.Path, default=ROOT / "target/release/edgethink")
    p.add_argument("--work", type=pathlib.Path, help="a folder with room for the largest model [default: the system's]")
    p.add_argument("--record", type=pathlib.Path, default=ROOT / "benchmarks/record/gpu.json")
    a = p.parse_args()
    if not a.device and used() is not None:
        a.device = "cuda"
    if a.card and not a.peak:
        by_cuda = a.device is not None and a.device.startswith("cuda")
        a.peak = CARDS[a.card][{"f32": 1, "bf16": 2}[a.compute_dtype] if by_cuda else 0]

    record = {"machine": platform.processor() or platform.machine(), "device": a.device or NOT, "card": a.card or NOT, "peak_tflops": a.peak or NOT,
              "time": time.strftime("%Y-%m-%d"), "shapes": {}}
    for name in a.shapes:
        found = {"sft": NOT, "grpo": NOT, "pytorch": NOT}
        if a.device:
            with tempfile.TemporaryDirectory(dir=a.work) as folder:
                found |= measure(a, name, pathlib.Path(folder))
            found["pytorch"] = pytorch(a, name)
        record["shapes"][name] = found
        a.record.write_text(json.dumps(record, indent=1) + "\n")
        a.record.with_suffix(".md").write_text(table(record))
    print(table(record), end="")


if __name__ == "__main__":
    main()
