"""Runs the same short GRPO by our engine and by a server, and compares.

    check.py PROGRAM WORK URL SERVER [--plain]

With --plain the adapter acts on the prompt too, for servers that have no masked ones, and that a masked one is refused is tested first.
The server reads the adapters in WORK/adapters.
"""

import argparse
import json
import shutil
import subprocess
from pathlib import Path

parser = argparse.ArgumentParser()
parser.add_argument("program")
parser.add_argument("work", type=Path)
parser.add_argument("url")
parser.add_argument("server")
parser.add_argument("--plain", action="store_true")
args = parser.parse_args()
program, work, server = args.program, args.work, args.server
STEPS = 12
# A float32 server and our engine differ by rounding only.
MISMATCH = 1e-3

rows = [(a, b, c) for a in (3, 9, 17) for b in (4, 8, 11) for c in (2, 5)]
with open(work / "questions.jsonl", "w") as file:
    for a, b, c in rows:
        question = (
            f"Leo has {a} shells. Mia has {b} more shells than Leo. Olga has {c} fewer shells than Mia. "
            "How many shells does Olga own?"
        )
        file.write(json.dumps({"prompt": question, "answer": str(a + b - c)}) + "\n")

adapter = Path("models/pocket/sft")
if args.plain:
    # The same weights, on from the first token. They were trained for what the base has read, so the answers are wrong; a reward that pays
    # for the length is there to learn all the same.
    masked, adapter = adapter, work / "plain"
    shutil.copytree(masked, adapter)
    config = json.loads((adapter / "adapter_config.json").read_text())
    config.pop("alora_invocation_tokens")
    (adapter / "adapter_config.json").write_text(json.dumps(config))


def train(name, adapter, backend):
    recipe = work / f"{name}.toml"
    recipe.write_text(
        f"""output_dir = "{work / name}"
seed = 4
[model]
base = "models/pocket/base"
adapter = "{adapter}"
[data]
train = ["{work / "questions.jsonl"}"]
max_prompt_tokens = 120
[budget]
tokens = [64, 96]
[rollout]
questions_per_step = 6
group = 8
temperature = 0.8
max_completion_tokens = 224
{backend}
[[reward]]
kind = "l1_exact"
alpha = 0.01
[optimizer]
lr = 5e-4
betas = [0.9, 0.95]
weight_decay = 0.0
schedule = "constant"
warmup_ratio = 0.0
max_grad_norm = 1.0
[run]
steps = {STEPS}
micro_batch_tokens = 1280
log_every = 1
save_every = 0
resume = "none"
"""
    )
    done = subprocess.run([program, "train", "grpo", "--config", recipe], capture_output=True, text=True)
    return done.returncode, done.stderr


def values(name, metric):
    lines = (work / name / "metrics.jsonl").read_text().splitlines()
    found = [json.loads(line).get(metric) for line in lines]
    return [value for value in found if value is not None]


by_server = f'backend = {{ kind = "openai", urls = ["{args.url}"], adapter_dir = "{work / "adapters"}", requests = 4 }}'
if args.plain:
    code, said = train("masked", masked, by_server)
    assert code != 0 and "the adapter is masked" in said, said
for name, backend in [("engine", ""), (server, by_server)]:
    code, said = train(name, adapter, backend)
    assert code == 0, said

gap = values(server, "sampling/sampling_logp_difference/mean")
print(f"mean |log-probability of {server} - trainer|, nats:", " ".join(f"{x:.1e}" for x in gap))
print("largest:", " ".join(f"{x:.1e}" for x in values(server, "sampling/sampling_logp_difference/max")))
print("mean importance ratio:", " ".join(f"{x:.5f}" for x in values(server, "sampling/importance_sampling_ratio/mean")))
for name in ("engine", server):
    print(f"reward by {name}:", " ".join(f"{x:.3f}" for x in values(name, "reward")))
    print(f"tokens by {name}:", " ".join(f"{x:.1f}" for x in values(name, "completions/mean_length")))
    print(f"seconds of the draws by {name}:", " ".join(f"{x:.2f}" for x in values(name, "rollout/seconds")))
assert len(gap) == STEPS and 0 < max(gap) < MISMATCH, gap
assert values(server, "rollout/servers_live") == [1.0] * STEPS
# Draws differ, and the steps that follow from them: 48 completions leave a step's mean reward uncertain by about 0.08.
rewards = {name: values(name, "reward") for name in ("engine", server)}
assert abs(sum(rewards["engine"]) - sum(rewards[server])) / STEPS < 0.15, rewards
for name, reward in rewards.items():
    assert sum(reward[STEPS // 2 :]) > sum(reward[: STEPS // 2]), f"{name} learns nothing: {reward}"
