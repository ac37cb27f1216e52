"""Golden values for crates/train: losses, gradients and optimizer steps of transformers, PEFT and torch.

Run: python golden/train.py     (torch, transformers, peft, safetensors)
Writes golden/train/{qwen2,qwen3}.safetensors and golden/train/golden.json.
"""
import json
import os

import torch
from peft import LoraConfig, get_peft_model
from safetensors.torch import save_file
from transformers import Qwen2Config, Qwen2ForCausalLM, Qwen3Config, Qwen3ForCausalLM

HERE = os.path.join(os.path.dirname(os.path.abspath(__file__)), "train")
VOCAB, INVOCATION = 40, [3, 7]
# Documents, and the first token of each that is learnt in the completion loss.
DOCS = [
    ([5, 9, 12, 30, 3, 7, 8, 22, 11, 2], 6),
    ([14, 3, 7, 9, 3, 7, 31, 6, 2], 6),
    ([25, 17, 16, 39, 1, 4, 28, 3, 7, 19, 20, 33, 2], 9),
]


def model(family):
    shape = dict(
        vocab_size=VOCAB, hidden_size=16, intermediate_size=24, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, max_position_embeddings=64, rms_norm_eps=1e-6, attention_dropout=0.0,
    )
    torch.manual_seed(7)
    if family == "qwen2":
        net = Qwen2ForCausalLM(Qwen2Config(tie_word_embeddings=True, **shape))
    else:
        net = Qwen3ForCausalLM(Qwen3Config(tie_word_embeddings=False, head_dim=8, **shape))
    with torch.no_grad():
        for name, p in net.named_parameters():
            p.copy_(torch.randn_like(p) * 0.3 + (1.0 if "norm" in name else 0.0))
    return net.float().train()


def nll(net, tokens, start):
    """Sum of negative log-likelihoods of tokens[start:], in nats."""
    ids = torch.tensor([tokens])
    logits = net(input_ids=ids).logits[0].double()
    start = max(start, 1)
    logp = torch.log_softmax(logits[start - 1 : -1], -1)
    return -logp.gather(1, ids[0, start:, None]).sum()


def gradients(net, completion):
    net.zero_grad()
    loss = sum(nll(net, doc, start if completion else 0) for doc, start in DOCS)
    loss.backward()
    grads = {n: p.grad.clone() for n, p in net.named_parameters() if p.grad is not None}
    return loss.item(), grads


def in_bf16(linear):
    def forward(x):
        y = torch.nn.functional.linear(x.bfloat16(), linear.weight.bfloat16()).float()
        return y if linear.bias is None else y + linear.bias

    return forward


out = {"docs": [{"tokens": d, "completion_from": s} for d, s in DOCS], "invocation": INVOCATION}
for family in ["qwen2", "qwen3"]:
    tensors, values = {}, {}
    net = model(family)
    for name, p in net.named_parameters():
        tensors[f"param.{name}"] = p.detach().clone()
    tensors["logits"] = net(input_ids=torch.tensor([DOCS[0][0]])).logits[0].detach().clone()
    values["loss_all"], grads = gradients(net, False)
    values["loss_completion"], _ = gradients(net, True)
    tensors |= {f"grad.{n}": g for n, g in grads.items()}
    out[family] = values
    net.config.save_pretrained(HERE + "/tmp")
    with open(HERE + "/tmp/config.json") as f:
        config = json.load(f)
    out[family]["config"] = config

    # Ten steps of AdamW on the completion loss per token, gradients clipped at 1.
    if family == "qwen2":
        decay = [p for n, p in net.named_parameters() if p.dim() == 2 and "embed" not in n]
        keep = [p for n, p in net.named_parameters() if not (p.dim() == 2 and "embed" not in n)]
        groups = [{"params": decay, "weight_decay": 0.1}, {"params": keep, "weight_decay": 0.0}]
        adamw = torch.optim.AdamW(groups, lr=1e-2, betas=(0.9, 0.95), eps=1e-8)
        count = sum(len(d) - 1 for d, _ in DOCS)
        values["adamw_losses"], values["adamw_norms"] = [], []
        for _ in range(10):
            net.zero_grad()
            loss = sum(nll(net, doc, 0) for doc, _ in DOCS) / count
            loss.backward()
            norm = torch.nn.utils.clip_grad_norm_(net.parameters(), 1.0)
            adamw.step()
            values["adamw_losses"].append(loss.item())
            values["adamw_norms"].append(norm.item())
        tensors |= {f"adamw.{n}": p.detach().clone() for n, p in net.named_parameters()}

    # LoRA, plain and activated.
    for kind in ["plain", "masked"]:
        net = model(family)
        extra = {"alora_invocation_tokens": INVOCATION} if kind == "masked" else {}
        config = LoraConfig(
            r=4, lora_alpha=6, task_type="CAUSAL_LM", bias="none", init_lora_weights=False,
            target_modules=["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"], **extra,
        )
        torch.manual_seed(11)
        peft = get_peft_model(net, config)
        with torch.no_grad():
            for name, p in peft.named_parameters():
                if "lora_" in name:
                    p.copy_(torch.randn_like(p) * 0.3)
        values[f"lora_{kind}_loss"], grads = gradients(peft, True)
        short = lambda n: n.replace(".default", "")
        if kind == "plain":
            tensors |= {f"lora.{short(n)}": p.detach().clone() for n, p in peft.named_parameters() if "lora_" in n}
        tensors |= {f"lora_grad_{kind}.{short(n)}": g for n, g in grads.items() if "lora_" in n}
        if kind == "masked":
            # The products with the base in bf16, as automatic mixed precision has them; everything else in f32.
            for _, layer in peft.named_modules():
                if hasattr(layer, "base_layer"):
                    layer.base_layer.forward = in_bf16(layer.base_layer)
            values["lora_bf16_loss"], grads = gradients(peft, True)
            tensors |= {f"lora_grad_bf16.{short(n)}": g for n, g in grads.items() if "lora_" in n}
    save_file({n: t.float().contiguous() for n, t in tensors.items()}, f"{HERE}/{family}.safetensors")

os.remove(HERE + "/tmp/config.json")
if os.path.exists(HERE + "/tmp/generation_config.json"):
    os.remove(HERE + "/tmp/generation_config.json")
os.rmdir(HERE + "/tmp")
with open(HERE + "/golden.json", "w") as f:
    json.dump(out, f, indent=1)
    f.write("\n")
print({k: v for k, v in out.items() if k in ("qwen2", "qwen3")})
