"""Fine-tuning side by side: tokens per second of `edgethink train sft` and of PyTorch with PEFT, in turn, on the CPU or on a GPU.

Run:    cargo build --release -p edgethink
        python benchmarks/peft/sft_speed.py [--shapes 28M 0.5B] [--rounds 3] [--threads 2] [--record FILE]
On a GPU: cargo build --release -p edgethink --features vulkan
        python benchmarks/peft/sft_speed.py --device vulkan --torch-device cuda --shapes 0.5B 1.5B --record FILE
Needs:  torch==2.13.0 transformers==5.23.0 peft==0.21.2 numpy     (CPU wheels are enough for the CPU; all in f32)

Both train an activated adapter of rank 16 on all linear layers of the same random Qwen2 network, on the same rows of one length, so that nobody
pads, with AdamW and without gradient checkpointing. The loss of the first step must be the same to 1e-4 before anything is timed. PyTorch
gets its rows at once or one by one: the faster way counts. A figure is the median over the rounds of a run's median step, the first step
left out. Memory is the most that was resident; of the GPU's, only PyTorch's is known.
"""

import argparse
import json
import os
import pathlib
import platform
import random
import shutil
import statistics
import subprocess
import sys
import tempfile
import time

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parents[1]
BASE = ROOT / "models/pocket/base"
INVOCATION = "<|im_start|>assistant\n"
# Network, tokens of a row, rows of a step.
SHAPES = {
    "28M": (dict(hidden_size=512, intermediate_size=1536, num_hidden_layers=8, num_attention_heads=8, num_key_value_heads=2, vocab_size=16384), 512, 4),
    "0.5B": (dict(hidden_size=896, intermediate_size=4864, num_hidden_layers=24, num_attention_heads=14, num_key_value_heads=2, vocab_size=151936), 512, 2),
    "1.5B": (dict(hidden_size=1536, intermediate_size=8960, num_hidden_layers=28, num_attention_heads=12, num_key_value_heads=2, vocab_size=151936), 512, 4),
}
# Timed if none is named: what a CPU does in minutes.
USUAL = ["28M", "0.5B"]
TARGETS = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]

RECIPE = """
output_dir = "{out}"
seed = 0
[model]
base = "{model}"
[data]
train = ["{data}"]
max_length = {length}
overlong = "truncate"
loss = "completion"
shuffle = false
[lora]
r = 16
alpha = 32.0
dropout = 0.0
masked = true
[optimizer]
lr = 1e-3
betas = [0.9, 0.95]
eps = 1e-8
weight_decay = 0.0
schedule = "constant"
warmup_ratio = 0.0
max_grad_norm = 1.0
[run]
max_tokens = {tokens}
batch_tokens = {batch}
micro_batch_tokens = {micro}
device = "{device}"
dtype = "f32"
base_dtype = "{held}"
compute_dtype = "{compute}"
gradient_checkpointing = false
log_every = 1
save_every = 0
threads = {threads}
resume = "none"
"""


def write_model(shape: dict, folder: pathlib.Path) -> None:
    import torch
    from transformers import Qwen2Config, Qwen2ForCausalLM

    torch.manual_seed(0)
    config = Qwen2Config(tie_word_embeddings=True, max_position_embeddings=4096, rope_theta=1e6, **shape)
    Qwen2ForCausalLM(config).to(torch.bfloat16).save_pretrained(folder)
    for name in ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja"):
        shutil.copy(BASE / name, folder)


def write_rows(file: pathlib.Path, count: int, length: int) -> None:
    """Rows longer than `length` tokens, of which a quarter is the prompt; what is too long is cut off by both."""
    draw = random.Random(0)
    words = ["Anna", "has", "apples", "more", "than", "Tom", "books", "and", "How", "many", "fewer", "twice", "12", "7", "35"]
    text = lambda n: " ".join(draw.choice(words) for _ in range(n))
    rows = [{"prompt": f"<|im_start|>user\n{text(length // 6)}<|im_end|>\n{INVOCATION}", "completion": text(length)} for _ in range(count)]
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))


def child(command: list) -> tuple[str, float]:
    """Output of a command and the GiB that were resident at most."""
    with tempfile.TemporaryFile("w+") as out, tempfile.TemporaryFile("w+") as problem:
        process = subprocess.Popen([str(part) for part in command], stdout=out, stderr=problem)
        _, status, used = os.wait4(process.pid, 0)
        out.seek(0), problem.seek(0)
        if status:
            sys.exit(f"{command[0]}: {problem.read()[-3000:]}")
        return out.read(), used.ru_maxrss / 2**20


def ours(binary: pathlib.Path, recipe: str, folder: pathlib.Path) -> dict:
    shutil.rmtree(folder / "ours", ignore_errors=True)
    (folder / "sft.toml").write_text(recipe)
    _, memory = child([binary, "train", "sft", "--config", folder / "sft.toml"])
    rows = [json.loads(line) for line in (folder / "ours/metrics.jsonl").read_text().splitlines()]
    rows = [row for row in rows if "step_time" in row]
    return {"loss": rows[0]["loss"], "seconds": [row["step_time"] for row in rows], "memory": memory}


def theirs_here(model_dir: str, data: str, length: int, rows: int, micro: int, steps: int, threads: int, device: str, compute: str) -> None:
    """The run of PyTorch, in a process of its own; prints one JSON object. With `compute` bf16 it has automatic mixed precision."""
    import peft
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    torch.set_num_threads(threads)
    tokenizer = AutoTokenizer.from_pretrained(model_dir)
    encode = lambda text: tokenizer(text, add_special_tokens=False)["input_ids"]
    batches, labels = [], []
    for line in pathlib.Path(data).read_text().splitlines():
        row = json.loads(line)
        prompt, completion = encode(row["prompt"]), encode(row["completion"])
        assert len(prompt) + len(completion) >= length
        batches.append((prompt + completion)[:length])
        labels.append(([-100] * len(prompt) + completion)[:length])
    batches, labels = torch.tensor(batches, device=device), torch.tensor(labels, device=device)
    base = AutoModelForCausalLM.from_pretrained(model_dir, dtype=torch.float32, attn_implementation="sdpa")
    config = peft.LoraConfig(r=16, lora_alpha=32, target_modules=TARGETS, task_type="CAUSAL_LM", alora_invocation_tokens=encode(INVOCATION))
    model = peft.get_peft_model(base, config).to(device)
    model.train()
    trained = [p for p in model.parameters() if p.requires_grad]
    adamw = torch.optim.AdamW(trained, lr=1e-3, betas=(0.9, 0.95), eps=1e-8, weight_decay=0.0)
    losses, seconds = [], []
    for step in range(steps):
        begun = time.perf_counter()
        total = 0.0
        for at in range(step * rows, (step + 1) * rows, micro):
            part = slice(at, at + micro)
            with torch.autocast(device, torch.bfloat16, enabled=compute == "bf16"):
                loss = model(input_ids=batches[part], labels=labels[part]).loss * micro / rows
            loss.backward()
            total += loss.item()
        torch.nn.utils.clip_grad_norm_(trained, 1.0)
        adamw.step()
        adamw.zero_grad()
        if device == "cuda":
            torch.cuda.synchronize()
        seconds.append(time.perf_counter() - begun)
        losses.append(total)
    on_gpu = torch.cuda.max_memory_allocated() / 2**30 if device == "cuda" else None
    print(json.dumps({"loss": losses[0], "losses": losses, "seconds": seconds, "gpu_memory": on_gpu, "versions": {m.__name__: m.__version__ for m in (torch, peft)}}))


def theirs(*arguments) -> dict:
    code = f"import sys; sys.path.insert(0, {str(HERE)!r}); import sft_speed; sft_speed.theirs_here(*{tuple(map(lambda a: str(a) if isinstance(a, pathlib.Path) else a, arguments))!r})"
    out, memory = child([sys.executable, "-c", code])
    return json.loads(out.splitlines()[-1]) | {"memory": memory}


def main() -> None:
    p = argparse.ArgumentParser()
    p.add_argument("--shapes", nargs="+", choices=list(SHAPES), default=USUAL)
    p.add_argument("--rounds", type=int, default=3)
    p.add_argument("--steps", type=int, default=5)
    p.add_argument("--threads", type=int, default=2)
    p.add_argument("--device", default="cpu", help="of edgethink: cpu, vulkan, cuda or metal, and vulkan:N")
    p.add_argument("--base-dtype", default="f32", choices=["f32", "bf16", "stored"], help="how edgethink holds the frozen base, a bf16 file")
    p.add_argument("--compute-dtype", default="f32", choices=["f32", "bf16"], help="of the products with the base; in PyTorch automatic mixed precision")
    p.add_argument("--torch-device", default="cpu", choices=["cpu", "cuda"], help="of PyTorch")
    p.add_argument("--binary", type=pathlib.Path, default=ROOT / "target/release/edgethink")
    p.add_argument("--record", type=pathlib.Path, default=ROOT / "benchmarks/record/sft.json")
    a = p.parse_args()

    record = {"machine": platform.processor() or platform.machine(), "device": a.device, "base_dtype": a.base_dtype, "compute_dtype": a.compute_dtype, "torch_device": a.torch_device, "threads": a.threads, "rounds": a.rounds, "shapes": {}}
    for name in a.shapes:
        shape, length, rows = SHAPES[name]
        with tempfile.TemporaryDirectory() as folder:
            folder = pathlib.Path(folder)
            write_model(shape, folder / "model")
            write_rows(folder / "rows.jsonl", rows * a.steps, length)
            batch = length * rows
            recipe = RECIPE.format(out=folder / "ours", model=folder / "model", data=folder / "rows.jsonl", length=length, tokens=batch * a.steps,
                                   batch=batch, micro=length if a.device == "cpu" else batch, device=a.device, held=a.base_dtype, compute=a.compute_dtype, threads=a.threads)
            runs = {"edgethink": [], "at once": [], "one by one": []}
            for _ in range(a.rounds):
                runs["edgethink"].append(ours(a.binary, recipe, folder))
                for way, micro in (("at once", rows), ("one by one", 1)):
                    runs[way].append(theirs(folder / "model", folder / "rows.jsonl", length, rows, micro, a.steps, a.threads, a.torch_device, a.compute_dtype))
                first = [list_[-1]["loss"] for list_ in runs.values()]
                # Mixed precision rounds in other places than ours.
                near = {"f32": 1e-4, "bf16": 1e-2}[a.compute_dtype]
                assert max(first) - min(first) < near * max(first), f"the first losses differ: {first}"
        rate = {who: statistics.median(batch / statistics.median(run["seconds"][1:]) for run in list_) for who, list_ in runs.items()}
        memory = {who: max(run["memory"] for run in list_) for who, list_ in runs.items()}
        best = max(("at once", "one by one"), key=rate.get)
        record["shapes"][name] = {"tokens_per_second": rate, "ratio": rate["edgethink"] / rate[best], "memory_gib": memory,
                                  "first_loss": first, "runs": runs}
        print(f"{name}: edgethink {rate['edgethink']:.1f} tokens/s, {memory['edgethink']:.2f} GiB; PyTorch + PEFT {rate[best]:.1f} ({best}), "
              f"{memory[best]:.2f} GiB; ratio {rate['edgethink'] / rate[best]:.2f}; first losses {first}", flush=True)
    record["load"] = os.getloadavg()
    a.record.write_text(json.dumps(record, indent=1) + "\n")


if __name__ == "__main__":
    main()
