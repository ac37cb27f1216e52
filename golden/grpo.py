"""Golden values for the policy objective of crates/train: losses and LoRA gradients by TRL's own GRPOTrainer for the same rollouts,
log-probabilities and entropies by torch.

Run: python golden/grpo.py     (trl==1.16.0 datasets==5.2.0, torch, transformers, peft, safetensors; after golden/train.py)
Reads golden/train/{golden.json,qwen2.safetensors} and the pocket's tokenizer, which TRL wants; writes golden/train/grpo.{json,safetensors}.
"""
import json
import os
import tempfile

import torch
from datasets import Dataset
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file, save_file
from transformers import AutoTokenizer, Qwen2Config, Qwen2ForCausalLM
from trl import GRPOConfig, GRPOTrainer

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


def padded(rows, left=False):
    """Rows of numbers as one tensor, and the mask of what is not padding."""
    width = max(map(len, rows))
    fill = [[0] * (width - len(row)) for row in rows]
    join = (lambda row, pad: [*pad, *row]) if left else (lambda row, pad: [*row, *pad])
    values = torch.tensor([join(list(row), pad) for row, pad in zip(rows, fill)])
    return values, torch.tensor([join([1] * len(row), pad) for row, pad in zip(rows, fill)])


with tempfile.TemporaryDirectory() as folder:
    # Its sampler's correction is asked for without a sampler, by the two fields that turn it on.
    trainer = GRPOTrainer(
        model=peft,
        reward_funcs=lambda completions, **_: [0.0] * len(completions),
        args=GRPOConfig(
            output_dir=folder, temperature=TEMPERATURE, epsilon=EPSILON, epsilon_high=EPSILON_HIGH, beta=BETA, max_completion_length=CAP,
            num_generations=len(now), per_device_train_batch_size=len(now), steps_per_generation=1, use_cpu=True, bf16=False,
            gradient_checkpointing=False, report_to="none", use_bias_correction_kl=False,
        ),
        train_dataset=Dataset.from_list([{"prompt": "never asked"}] * len(now)),
        processing_class=AutoTokenizer.from_pretrained(os.path.join(HERE, "../../models/pocket/base")),
    )
trainer.use_vllm, trainer.vllm_importance_sampling_correction = True, True
trainer.current_gradient_accumulation_steps = 1
peft.train()


def loss(kind):
    """TRL's loss of the rollouts."""
    trainer.loss_type = kind
    prompt_ids, prompt_mask = padded([doc["tokens"][: doc["completion_from"]] for doc in golden["docs"]], left=True)
    completion_ids, completion_mask = padded([doc["tokens"][doc["completion_from"] :] for doc in golden["docs"]])
    column = lambda rows: padded([row.tolist() for row in rows])[0]
    ratio = column([torch.clamp(torch.exp(o - s), max=IMPORTANCE_CAP) for o, s in zip(old, sampled)])
    return trainer._compute_loss(peft, {
        "prompt_ids": prompt_ids, "prompt_mask": prompt_mask, "completion_ids": completion_ids, "completion_mask": completion_mask,
        "advantages": torch.tensor(advantages), "old_per_token_logps": column(old), "ref_per_token_logps": column(reference),
        "importance_sampling_ratio": ratio, "num_items_in_batch": completion_mask.sum(),
    })


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
        # TRL keeps a frozen copy of the adapter as the reference.
        if "lora_" in name and p.requires_grad:
            tensors[f"{kind}.{name.replace('.default', '')}"] = p.grad.float().contiguous()
save_file(tensors, f"{HERE}/grpo.safetensors")
with open(f"{HERE}/grpo.json", "w") as f:
    json.dump(out, f, indent=1)
    f.write("\n")
print(out["loss"])
