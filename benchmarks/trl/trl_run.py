"""One GRPO run by TRL's GRPOTrainer on the CPU, of the questions that one of our runs has asked, in the same order.

Called by compare.py; see there. Writes one JSON object: seconds, reward, length and KL of each step, and the versions.

    python trl_run.py --recipe RECIPE.toml --tables COMPLETIONS_DIR --out OUT.json

What is the same: base, adapter to start from (which is also the reference), prompts with their budgets, reward (checked against our
own reward on every completion of our run), group, completion length, temperature, loss, epsilon, beta, AdamW with its learning rate,
gradient clipping, f32, threads. What is not: TRL divides by the sample deviation of a group, we by the population's (a factor of 1.07
on all advantages, which AdamW takes out again). TRL keeps the tokens of groups without signal in the mean, so a step with such groups
has a smaller gradient there; we leave them out. TRL weights the KL by the ratio (use_bias_correction_kl), we do not.
Not TRL's defaults: no gradient checkpointing (on by default, and slower), f32 (bf16 by default), micro-batches of 16 completions; other
sizes were not tried, --micro-batch sets one.
"""

import argparse
import json
import pathlib
import re
import time
import tomllib

import peft
import pyarrow.parquet
import torch
import transformers
import trl
from datasets import Dataset
from peft import PeftModel
from transformers import AutoModelForCausalLM, AutoTokenizer, TrainerCallback


def soft_barrier(length, budget, margin, floor):
    low, high = (1 - margin) * budget, (1 + margin) * budget
    if length <= low:
        return 1.0
    return floor if length > high else 1 - (1 - floor) * (length - low) / (high - low)


def correct(text, answer):
    """The answer after the end of thinking; the pocket model's answers are whole numbers."""
    visible = text.partition("</think>")[2] if "<think>" in text else text
    found = re.search(r"\*\*Final answer:\*\* (-?\d+)\s*$", visible)
    return found is not None and found[1] == answer


def reward(recipe, text, length, ended, budget, answer):
    setting = recipe["reward"][0]
    return float(ended and correct(text, answer)) * soft_barrier(length, budget, setting["margin"], setting["floor"])


def questions(tables, recipe):
    """The prompts of our run in their order, after a check that the reward here is the reward there."""
    group = recipe["rollout"]["group"]
    rows = [row for path in sorted(tables.glob("*.parquet")) for row in pyarrow.parquet.read_table(path).to_pylist()]
    for row in rows:
        got = reward(recipe, row["completion"], row["tokens"], row["ended"], row["budget"], row["answer"])
        assert abs(got - row["reward"]) < 1e-6, f"another reward, {got}, for {row}"
    return Dataset.from_list([{k: row[k] for k in ("prompt", "answer", "budget")} for row in rows[::group]])


class Clock(TrainerCallback):
    """Wall time from the begin of a step, with its completions, to the end of its optimizer step."""

    def __init__(self):
        self.seconds = []

    def on_train_begin(self, *_, **__):
        self.load_cpu_seconds = time.process_time()

    def on_step_begin(self, *_, **__):
        self.begun = time.perf_counter()

    def on_step_end(self, *_, **__):
        self.seconds.append(time.perf_counter() - self.begun)


def main():
    p = argparse.ArgumentParser()
    p.add_argument("--recipe", type=pathlib.Path, required=True)
    p.add_argument("--tables", type=pathlib.Path, required=True)
    p.add_argument("--out", type=pathlib.Path, required=True)
    p.add_argument("--steps", type=int, help="fewer steps than the recipe's")
    p.add_argument("--micro-batch", type=int, default=16, help="completions of one forward and backward pass")
    a = p.parse_args()

    recipe = tomllib.loads(a.recipe.read_text())
    rollout, objective, optimizer = recipe["rollout"], recipe["objective"], recipe["optimizer"]
    steps = a.steps or recipe["run"]["steps"]
    torch.set_num_threads(recipe["run"]["threads"])
    tokenizer = AutoTokenizer.from_pretrained(recipe["model"]["base"])
    base = AutoModelForCausalLM.from_pretrained(recipe["model"]["base"], dtype=torch.float32)
    config = peft.PeftConfig.from_pretrained(recipe["model"]["adapter"])
    config.inference_mode = False
    model = PeftModel.from_pretrained(base, recipe["model"]["adapter"], config=config, is_trainable=True)

    def rewards(completions, completion_ids, answer, budget, **_):
        rows = zip(completions, completion_ids, budget, answer)
        return [reward(recipe, text, len(ids), ids[-1] in ends, b, ans) for text, ids, b, ans in rows]

    completions = rollout["questions_per_step"] * rollout["group"]
    clock = Clock()
    trainer = trl.GRPOTrainer(
        model=model,
        reward_funcs=rewards,
        processing_class=tokenizer,
        train_dataset=questions(a.tables, recipe),
        callbacks=[clock],
        args=trl.GRPOConfig(
            output_dir=str(a.out.with_suffix("")),
            seed=recipe["seed"],
            max_steps=steps,
            per_device_train_batch_size=a.micro_batch,
            gradient_accumulation_steps=completions // a.micro_batch,
            num_generations=rollout["group"],
            max_completion_length=rollout["max_completion_tokens"],
            temperature=rollout["temperature"],
            top_k=0,
            top_p=1.0,
            loss_type=objective["loss"],
            epsilon=objective["epsilon"],
            beta=objective["beta"],
            learning_rate=optimizer["lr"],
            adam_beta1=optimizer["betas"][0],
            adam_beta2=optimizer["betas"][1],
            adam_epsilon=optimizer["eps"],
            weight_decay=optimizer["weight_decay"],
            lr_scheduler_type=optimizer["schedule"],
            warmup_steps=0,
            max_grad_norm=optimizer["max_grad_norm"],
            shuffle_dataset=False,
            gradient_checkpointing=False,
            bf16=False,
            use_cpu=True,
            logging_steps=1,
            save_strategy="no",
            report_to="none",
            disable_tqdm=True,
        ),
    )
    ends = set(trainer.eos_token_ids)
    trainer.train()
    logs = [row for row in trainer.state.log_history if "reward" in row]
    a.out.write_text(json.dumps({
        "seconds": clock.seconds,
        "load_cpu_seconds": clock.load_cpu_seconds,
        "reward": [row["reward"] for row in logs],
        "mean_length": [row["completions/mean_length"] for row in logs],
        "kl": [row["kl"] for row in logs],
        "versions": {m.__name__: m.__version__ for m in (trl, transformers, peft, torch)},
    }))


if __name__ == "__main__":
    main()
