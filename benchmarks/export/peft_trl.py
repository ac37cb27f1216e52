"""Our PEFT directories in peft, adapters made by peft and TRL in ours, and merged weights in transformers.

Run:    cargo build --release -p edgethink && cargo build --release -p edgethink-engine --example logits
        python benchmarks/export/peft_trl.py [--bin target/release]
Needs:  torch transformers peft trl datasets numpy     (CPU wheels are enough; all in f32)

All on pocket's base. The error is the largest one of a logit over the largest logit; above 1e-4 the script fails.

1. `export peft` of the activated adapter, of a plain one, and of a plain one that came from our own GGUF LoRA: peft's logits with the
   exported directory, the engine's with the source.
2. Adapters made by peft (random weights; plain, rslora with rank and alpha patterns, activated) and by two steps of TRL's SFTTrainer.
3. `export merged` in F32 against peft, and its refusal of the activated adapter.
"""

import argparse
import json
import pathlib
import shutil
import subprocess
import sys
import tempfile

import numpy as np
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from transformers import AutoModelForCausalLM, AutoTokenizer

ROOT = pathlib.Path(__file__).resolve().parents[2]
BASE = ROOT / "models/pocket/base"
TEXT = "<|im_start|>user\nTom has 12 apples. Ann has 7 more apples than Tom. How many apples does Ann have?<|im_end|>\n"
ANSWER = "<|im_start|>assistant\n<think>\nTom has 12 apples."
failed = False


def theirs(model, ids):
    with torch.no_grad():
        return model(input_ids=torch.tensor([ids])).logits[0].double().numpy()


def load():
    return AutoModelForCausalLM.from_pretrained(BASE, dtype=torch.float32).eval()


def in_peft(directory, ids):
    return theirs(PeftModel.from_pretrained(load(), directory).eval().float(), ids)


def in_ours(binaries, adapter, ids):
    done = subprocess.run([binaries / "examples/logits", BASE, adapter, ",".join(map(str, ids))], check=True, capture_output=True, text=True)
    return np.array(json.loads(done.stdout)["engine"]).reshape(len(ids), -1)


def export(binaries, *args, ok=True):
    done = subprocess.run([binaries / "edgethink", "export", *map(str, args)], capture_output=True, text=True)
    if (done.returncode == 0) != ok:
        sys.exit(f"export {' '.join(map(str, args))}: {done.stderr}")
    return done.stderr


def compare(name, got, want, plain):
    global failed
    scale = np.abs(want).max()
    error, change = np.abs(got - want).max() / scale, np.abs(want - plain).max() / scale
    ok = error <= 1e-4 and change > 1e-2
    failed |= not ok
    print(f"{'ok    ' if ok else 'WRONG '}{name}: within {error:.1e} of the largest logit; the adapter changes {change:.2f}", flush=True)


def without_invocation(source, target):
    shutil.copytree(source, target)
    config = json.loads((target / "adapter_config.json").read_text())
    config["alora_invocation_tokens"] = None
    (target / "adapter_config.json").write_text(json.dumps(config))
    return target


def made_by_peft(target, **options):
    torch.manual_seed(3)
    model = get_peft_model(load(), LoraConfig(task_type="CAUSAL_LM", init_lora_weights=True, **options))
    for name, p in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(p, std=0.05)
    model.save_pretrained(target)
    return target


def made_by_trl(target, tokenizer):
    from datasets import Dataset
    from trl import SFTConfig, SFTTrainer

    rows = Dataset.from_list([{"prompt": [{"role": "user", "content": f"What is {i} plus 2?"}],
                               "completion": [{"role": "assistant", "content": f"<think>\n{i} + 2 = {i + 2}\n</think>\n\n{i + 2}"}]} for i in range(8)])
    config = SFTConfig(output_dir=str(target), max_steps=2, per_device_train_batch_size=4, learning_rate=2e-2, report_to="none", use_cpu=True,
                       bf16=False, save_strategy="no", logging_steps=1)
    trainer = SFTTrainer(model=load(), args=config, train_dataset=rows, processing_class=tokenizer,
                         peft_config=LoraConfig(task_type="CAUSAL_LM", r=8, lora_alpha=16, target_modules="all-linear"))
    trainer.train()
    trainer.save_model(str(target))
    return target


def main():
    p = argparse.ArgumentParser()
    p.add_argument("--bin", default=str(ROOT / "target/release"))
    binaries = pathlib.Path(p.parse_args().bin).resolve()
    torch.set_num_threads(1)
    tokenizer = AutoTokenizer.from_pretrained(BASE)
    ids = tokenizer(TEXT + ANSWER, add_special_tokens=False)["input_ids"]
    base = theirs(load(), ids)
    with tempfile.TemporaryDirectory() as scratch:
        scratch = pathlib.Path(scratch)
        activated = ROOT / "models/pocket/adapter"
        plain = without_invocation(activated, scratch / "plain")
        export(binaries, "lora", "--model", BASE, "--adapter", plain, "-o", scratch / "plain.gguf")
        for name, source in [("activated", activated), ("plain", plain), ("plain from GGUF", scratch / "plain.gguf")]:
            target = scratch / f"out-{name.replace(' ', '-')}"
            export(binaries, "peft", "--model", BASE, "--adapter", source, "-o", target)
            compare(f"export peft, {name}", in_ours(binaries, source, ids), in_peft(target, ids), base)

        invocation = tokenizer("<|im_start|>assistant\n", add_special_tokens=False)["input_ids"]
        for name, options in [
            ("plain", dict(r=8, lora_alpha=16, target_modules="all-linear")),
            ("rslora with patterns", dict(r=8, lora_alpha=16, target_modules=["q_proj", "v_proj", "down_proj"], use_rslora=True,
                                          rank_pattern={"layers.1.self_attn.q_proj": 4}, alpha_pattern={"down_proj": 8})),
            ("activated", dict(r=8, lora_alpha=16, target_modules=["q_proj", "k_proj", "v_proj"], alora_invocation_tokens=invocation)),
        ]:
            made = made_by_peft(scratch / f"peft-{name.replace(' ', '-')}", **options)
            compare(f"made by peft, {name}", in_ours(binaries, made, ids), in_peft(made, ids), base)
        made = made_by_trl(scratch / "trl", tokenizer)
        compare("made by TRL", in_ours(binaries, made, ids), in_peft(made, ids), base)

        merged = scratch / "merged"
        export(binaries, "merged", "--model", BASE, "--adapter", plain, "--dtype", "f32", "-o", merged)
        model = AutoModelForCausalLM.from_pretrained(merged, dtype=torch.float32).eval()
        compare("export merged", theirs(model, ids), in_peft(plain, ids), base)
        said = export(binaries, "merged", "--model", BASE, "--adapter", activated, "-o", scratch / "no", ok=False)
        print(f"export merged of the activated adapter: {said.strip()}")
    sys.exit(failed)


if __name__ == "__main__":
    main()
