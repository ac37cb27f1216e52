"""Golden values for the policy objective of crates/train: losses, log-probabilities and LoRA gradients by torch's autograd.

Run: python golden/grpo.py     (torch, transformers, peft, safetensors; after golden/train.py)
Reads golden/train/{golden.json,qwen2.safetensors}; writes golden/train/grpo.{json,safetensors}.
"""
import json
import os

import torch
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file, save_file
from transformers import Qwen2Config, Qwen2ForCausalLM

HERE = os.path.join(os.path.dirname(os.path.abspath(__file__)), "train")
TEMPERATURE, EPSILON, EPSILON_HIGH, BETA, CAP, IMPORTANCE_CAP = 0.8, 0.2, 0.28, 0.05, 20, 2.0

with open(f"{HERE}/golden.json") as f:
    golden = json.load(f)
stored = load_file(f"{HERE}/qwen2.safetensors")
net = Qwen2ForCausalLM(Qwen2Config(**golden["qwen2"]["config"])).float()
config = LoraConfig(
    r=4, lora_alpha=6, task_type="CAUSAL_LM", bias="none", init_lora_weights=False,
    target_modules=["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"],
    alora_invocation_tokens=golden["invocation"],
)
peft = get_peft_model(net, config)
with torch.no_grad():
    for name, p in peft.named_parameters():
        short = name.replace(".default", "")
        plain = name.replace("base_model.model.", "", 1).replace(".base_layer", "")
        p.copy_(stored[f"lora.{short}"] if "lora_" in name else stored[f"param.{plain}"])


def logprobs(doc):
    ids = torch.tensor([doc["tokens"]])
    logits = peft(input_ids=ids).logits[0].double() / TEMPERATURE
    logp = torch.log_softmax(logits, -1)[doc["completion_from"] - 1 : -1]
    entropy = -(logp.exp() * logp).sum(-1)
    return logp.gather(1, ids[0, doc["completion_from"] :, None])[:, 0], entropy


torch.manual_seed(3)
advantages = [1.3, -0.7, -0.6]
now = [logprobs(doc)[0].detach() for doc in golden["docs"]]
# Old, sampler's and reference log-probabilities: near the present ones, some ratios outside of the clip range.
old = [n + 0.3 * torch.randn_like(n) for n in now]
sampled = [o + 0.5 * torch.randn_like(o) for o in old]
reference = [n + 0.4 * torch.randn_like(n) for n in now]


def loss(kind):
    total, tokens = 0.0, sum(len(n) for n in now)
    for doc, a, o, s, r in zip(golden["docs"], advantages, old, sampled, reference):
        l, _ = logprobs(doc)
        ratio = torch.exp(l - o)
        gain = torch.min(ratio * a, torch.clamp(ratio, 1 - EPSILON, 1 + EPSILON_HIGH) * a)
        weight = torch.clamp(torch.exp(o - s), max=IMPORTANCE_CAP)
        per_token = -weight * gain + BETA * (torch.exp(r - l) - (r - l) - 1)
        total = total + {
            "grpo": per_token.mean() / len(now),
            "dapo": per_token.sum() / tokens,
            "dr_grpo": per_token.sum() / (len(now) * CAP),
        }[kind]
    return total


out = {
    "temperature": TEMPERATURE, "epsilon": EPSILON, "epsilon_high": EPSILON_HIGH, "beta": BETA, "cap": CAP,
    "importance_cap": IMPORTANCE_CAP, "advantages": advantages,
    "old": [o.tolist() for o in old], "sampled": [s.tolist() for s in sampled], "reference": [r.tolist() for r in reference],
    "logprobs": [n.tolist() for n in now], "entropies": [logprobs(doc)[1].tolist() for doc in golden["docs"]], "loss": {},
}
tensors = {}
for kind in ["grpo", "dapo", "dr_grpo"]:
    peft.zero_grad()
    value = loss(kind)
    value.backward()
    out["loss"][kind] = value.item()
    for name, p in peft.named_parameters():
        if "lora_" in name:
            tensors[f"{kind}.{name.replace('.default', '')}"] = p.grad.float().contiguous()
save_file(tensors, f"{HERE}/grpo.safetensors")
with open(f"{HERE}/grpo.json", "w") as f:
    json.dump(out, f, indent=1)
    f.write("\n")
print(out["loss"])
