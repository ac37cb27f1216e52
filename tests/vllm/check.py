"""Runs the same short GRPO by our engine and by a vLLM server, and compares: check.py PROGRAM WORK URL"""

import json
import shutil
import subprocess
import sys
from pathlib import Path

program, work, url = sys.argv[1], Path(sys.argv[2]), sys.argv[3]
STEPS = 6
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

# The same weights, on from the first token: what vLLM can do. They were trained for what the base has read, so the answers are wrong; a
# reward that pays for the length is there to learn all the same.
plain = work / "plain"
shutil.copytree("models/pocket/sft", plain)
config = json.loads((plain / "adapter_config.json").read_text())
config.pop("alora_invocation_tokens")
(plain / "adapter_config.json").write_text(json.dumps(config))


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


by_vllm = f'backend = {{ kind = "openai", urls = ["{url}"], adapter_dir = "{work / "adapters"}", requests = 4 }}'
code, said = train("masked", "models/pocket/sft", by_vllm)
assert code != 0 and "the adapter is masked" in said, said
for name, backend in [("engine", ""), ("vllm", by_vllm)]:
    code, said = train(name, plain, backend)
    assert code == 0, said

gap = values("vllm", "sampling/sampling_logp_difference/mean")
print("mean |log-probability of vLLM - trainer|, nats:", " ".join(f"{x:.1e}" for x in gap))
print("largest:", " ".join(f"{x:.1e}" for x in values("vllm", "sampling/sampling_logp_difference/max")))
print("mean importance ratio:", " ".join(f"{x:.5f}" for x in values("vllm", "sampling/importance_sampling_ratio/mean")))
for name in ("engine", "vllm"):
    print(f"reward by {name}:", " ".join(f"{x:.3f}" for x in values(name, "reward")))
    print(f"tokens by {name}:", " ".join(f"{x:.1f}" for x in values(name, "completions/mean_length")))
    print(f"seconds of the draws by {name}:", " ".join(f"{x:.2f}" for x in values(name, "rollout/seconds")))
assert len(gap) == STEPS and 0 < max(gap) < MISMATCH, gap
assert values("vllm", "rollout/servers_live") == [1.0] * STEPS
# Draws differ, and the steps that follow from them: 48 completions leave a step's mean reward uncertain by about 0.08.
rewards = {name: values(name, "reward") for name in ("engine", "vllm")}
assert abs(sum(rewards["engine"]) - sum(rewards["vllm"])) / STEPS < 0.15, rewards
for name, reward in rewards.items():
    assert sum(reward[3:]) > sum(reward[:3]), f"{name} learns nothing: {reward}"
