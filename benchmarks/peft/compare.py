"""Loads an adapter that `edgethink train sft` wrote into PEFT and compares logits with the engine and the reference pass.

Run:    cargo build --release -p edgethink-engine --example logits
        python benchmarks/peft/compare.py [--base DIR] [--adapter DIR] [--text TEXT] [--answer TEXT]
Needs:  torch transformers peft numpy     (CPU wheels are enough; all in f32)

The text goes through the chat template; the answer follows it, so that the adapter has tokens to act on. Prints the largest error of
a logit over the largest logit, and fails above 1e-3. Without the adapter the same is printed for the base, and PEFT's own change by
the adapter is printed so that an adapter which does nothing is seen.
"""

import argparse
import json
import pathlib
import subprocess
import sys

import numpy as np
import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM, AutoTokenizer

ROOT = pathlib.Path(__file__).resolve().parents[2]


def ours(binary, base, adapter, ids):
    done = subprocess.run([binary, base, adapter, ",".join(map(str, ids))], check=True, capture_output=True, text=True)
    out = json.loads(done.stdout)
    return out["adapter_from"], {k: np.array(out[k]).reshape(len(ids), -1) for k in ("engine", "reference")}


def theirs(model, ids):
    with torch.no_grad():
        return model(input_ids=torch.tensor([ids])).logits[0].double().numpy()


def main():
    p = argparse.ArgumentParser()
    p.add_argument("--base", default=str(ROOT / "models/pocket/base"))
    p.add_argument("--adapter", default=str(ROOT / "models/pocket/adapter"))
    p.add_argument("--text", default="Tom has 12 apples. Ann has 7 more apples than Tom. How many apples does Ann have?")
    p.add_argument("--answer", default="<think>\nTom has 12 apples.")
    p.add_argument("--binary", default=str(ROOT / "target/release/examples/logits"))
    a = p.parse_args()

    tokenizer = AutoTokenizer.from_pretrained(a.base)
    text = tokenizer.apply_chat_template([{"role": "user", "content": a.text}], add_generation_prompt=True, tokenize=False)
    ids = tokenizer(text + a.answer, add_special_tokens=False)["input_ids"]
    base = AutoModelForCausalLM.from_pretrained(a.base, dtype=torch.float32).eval()
    plain = theirs(base, ids)
    adapted = theirs(PeftModel.from_pretrained(base, a.adapter).eval().float(), ids)
    failed = False
    for name, adapter, want in [("base", "none", plain), ("adapter", a.adapter, adapted)]:
        start, found = ours(a.binary, a.base, adapter, ids)
        scale = np.abs(want).max()
        for who, got in found.items():
            error = np.abs(got - want).max() / scale
            same = (got.argmax(-1) == want.argmax(-1)).mean()
            where = "" if start is None else f", from token {start} on"
            print(f"{name}{where}: {who} within {error:.1e} of the largest logit, {100 * same:.0f} % of the best tokens alike")
            failed |= not error <= 1e-3
    change = np.abs(adapted - plain).max(-1) / np.abs(plain).max()
    print(f"the adapter changes logits by up to {change.max():.2f} of the largest, on {(change > 1e-6).sum()} of {len(ids)} tokens")
    sys.exit(failed)


if __name__ == "__main__":
    main()
