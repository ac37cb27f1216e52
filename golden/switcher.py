"""Golden values for the switcher's network of crates/train: losses, gradients and AdamW steps by torch.

Run: python golden/switcher.py     (torch; made with 2.13)
Writes golden/train/switcher.json.
"""
import json
import os

import torch

torch.set_default_dtype(torch.float64)
E, H, N, STEPS, DROPOUT = 6, 4, 10, 3, 0.25

torch.manual_seed(5)
x = torch.randn(N, E)
x[2] *= 20  # an outlier
y = torch.tensor([0.0, 1.0] * (N // 2))
masks = (torch.rand(N, H) >= DROPOUT).double() / (1 - DROPOUT)
net = {"fc1": torch.nn.Linear(E, H), "fc2": torch.nn.Linear(H, 1)}
named = {f"{layer}.{name}": p for layer, module in net.items() for name, p in module.named_parameters()}
decayed = [p for p in named.values() if p.dim() == 2]
plain = [p for p in named.values() if p.dim() == 1]
adamw = torch.optim.AdamW(
    [{"params": decayed, "weight_decay": 0.1}, {"params": plain, "weight_decay": 0.0}], lr=1e-2
)


def flat(tensors):
    return {name: t.detach().flatten().tolist() for name, t in tensors.items()}


out = {"x": x.tolist(), "y": y.tolist(), "masks": masks.tolist(), "start": flat(named), "steps": []}
for _ in range(STEPS):
    hidden = masks * torch.relu(net["fc1"](x))
    loss = torch.nn.functional.binary_cross_entropy_with_logits(net["fc2"](hidden)[:, 0], y)
    adamw.zero_grad()
    loss.backward()
    grads = flat({name: p.grad for name, p in named.items()})
    adamw.step()
    out["steps"].append({"loss": loss.item(), "grads": grads, "params": flat(named)})

path = os.path.join(os.path.dirname(os.path.abspath(__file__)), "train", "switcher.json")
with open(path, "w") as f:
    json.dump(out, f, indent=1)
    f.write("\n")
