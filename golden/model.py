"""Makes golden/model/*: logits and greedy tokens of tiny random models, computed by transformers and PEFT in f32.

Run:    python golden/model.py            (writes golden/model/, about 200 kB, in a minute on one core)
Needs:  pip install torch==2.13.0 transformers==5.23.0 peft==0.21.2 safetensors numpy   (CPU wheels are enough)

The weights are not stored: `formula.py` and `crates/testkit` make the same ones from a seed. Each case is a JSON file (config.json
as transformers wrote it, seed, prompt, 64 greedy tokens) and a safetensors file (`logits` [T, V] of the prompt).
Read by crates/model/tests/golden.rs.
"""

import json
import pathlib
import tempfile

import numpy as np
import torch
from peft import LoraConfig, get_peft_model
from safetensors.numpy import save_file
from transformers import (
    LlamaConfig,
    LlamaForCausalLM,
    MistralConfig,
    MistralForCausalLM,
    Qwen2Config,
    Qwen2ForCausalLM,
    Qwen3Config,
    Qwen3ForCausalLM,
)

from formula import formula, weight

OUT = pathlib.Path(__file__).parent / "model"
PROMPT = 20  # tokens
GREEDY = 64

SHAPE = dict(
    hidden_size=64,
    intermediate_size=96,
    num_hidden_layers=2,
    num_attention_heads=4,
    num_key_value_heads=2,
    vocab_size=160,
    max_position_embeddings=512,
    rms_norm_eps=1e-6,
)
ROPE_LLAMA3 = dict(
    rope_type="llama3",
    rope_theta=500000.0,
    factor=8.0,
    low_freq_factor=1.0,
    high_freq_factor=4.0,
    original_max_position_embeddings=64,
)
ROPE_LINEAR = dict(rope_type="linear", rope_theta=10000.0, factor=4.0)
ROPE_YARN = dict(rope_type="yarn", rope_theta=10000.0, factor=4.0, original_max_position_embeddings=128)

FAMILIES = {
    "qwen2_tied": (Qwen2ForCausalLM, Qwen2Config(**SHAPE, tie_word_embeddings=True)),
    "qwen2_untied": (Qwen2ForCausalLM, Qwen2Config(**SHAPE, rope_parameters=ROPE_YARN)),
    "qwen3": (Qwen3ForCausalLM, Qwen3Config(**SHAPE, head_dim=32, tie_word_embeddings=True)),
    "llama3": (LlamaForCausalLM, LlamaConfig(**SHAPE, rope_parameters=ROPE_LLAMA3)),
    # SmolLM2: a tied Llama, with 3 query heads per key head.
    "smollm2": (
        LlamaForCausalLM,
        LlamaConfig(**{**SHAPE, "hidden_size": 96, "num_attention_heads": 6}, tie_word_embeddings=True, rope_parameters=ROPE_LINEAR),
    ),
    "llama_bias": (LlamaForCausalLM, LlamaConfig(**SHAPE, attention_bias=True, mlp_bias=True)),
    "mistral": (MistralForCausalLM, MistralConfig(**SHAPE, sliding_window=8)),
}

ALL = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
# Written over tokens 3, 4 and 12, 13 of the prompt: the last one counts.
INVOCATION = [150, 151]
ADAPTERS = {
    "lora": (dict(r=4, lora_alpha=8, target_modules=ALL), False),
    "rslora": (dict(r=4, lora_alpha=8, target_modules=["q_proj", "v_proj"], use_rslora=True), False),
    "patterns": (
        dict(
            r=4,
            lora_alpha=8,
            target_modules=ALL,
            rank_pattern={"q_proj": 2, "layers.1.mlp.down_proj": 8},
            alpha_pattern={"layers.0.self_attn.v_proj": 24, "o_proj": 2},
        ),
        False,
    ),
    "one_layer": (dict(r=4, lora_alpha=8, target_modules=["up_proj"], layers_to_transform=[1]), False),
    "alora": (dict(r=8, lora_alpha=16, target_modules=ALL, alora_invocation_tokens=INVOCATION), True),
    "alora_absent": (dict(r=8, lora_alpha=16, target_modules=ALL, alora_invocation_tokens=[159, 159, 159]), False),
}


def prompt_of(seed: int) -> list[int]:
    return ((formula(seed, "prompt", PROMPT) + 1) * 75).astype(np.int64).tolist()  # ids below 150


def fill(model, seed: int) -> None:
    """Replaces all weights by those of the formula; a tied lm_head follows the embedding."""
    tied = model.config.tie_word_embeddings
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if not (tied and name == "lm_head.weight"):
                parameter.copy_(torch.from_numpy(weight(seed, name, tuple(parameter.shape))))


def logits_of(model, tokens: list[int]) -> torch.Tensor:
    with torch.no_grad():
        return model(input_ids=torch.tensor([tokens]), use_cache=False).logits[0].float()


def greedy(model, prompt: list[int], cached: bool = False) -> list[int] | None:
    """The next tokens, or None if two were almost equally likely at some step. The whole sequence is computed again for each
    token, unless `cached`."""
    tokens, cache, new = list(prompt), None, list(prompt)
    for _ in range(GREEDY):
        if cached:
            with torch.no_grad():
                out = model(input_ids=torch.tensor([new]), past_key_values=cache, use_cache=True, logits_to_keep=1)
            last, cache = out.logits[0, -1].float(), out.past_key_values
        else:
            last = logits_of(model, tokens)[-1]
        top = torch.topk(last, 2).values
        if top[0] - top[1] < 1e-4:
            return None
        new = [int(last.argmax())]
        tokens += new
    return tokens[len(prompt) :]


def config_of(model) -> dict:
    """config.json exactly as transformers saves it, less what changes with its version."""
    with tempfile.TemporaryDirectory() as d:
        model.config.save_pretrained(d)
        config = json.loads((pathlib.Path(d) / "config.json").read_text())
    config.pop("transformers_version", None)
    return config


def write(name: str, case: dict, logits: torch.Tensor) -> None:
    (OUT / f"{name}.json").write_text(json.dumps(case) + "\n")
    save_file({"logits": logits.numpy()}, OUT / f"{name}.safetensors")
    spread = len(set(case["greedy"]))
    print(f"{name}: logits std {logits.std():.2f}, {spread} different tokens of {GREEDY}: {case['greedy'][:12]}")


def base_model(name: str, seed: int):
    architecture, config = FAMILIES[name]
    config.attn_implementation = "eager"
    model = architecture(config).eval().float()
    fill(model, seed)
    return model


def with_a_good_seed(case_of) -> None:
    """A model that repeats one token would hide mistakes: takes the first seed whose greedy tokens are many and certain."""
    for seed in range(11, 100):
        name, case, logits = case_of(seed)
        if len(set(case["greedy"] or [])) >= 12:
            return write(name, case, logits)
    raise SystemExit("no seed gives varied tokens")


def family_case(name: str, seed: int, cached: bool = False):
    model = base_model(name, seed)
    prompt = prompt_of(seed)
    case = dict(config=config_of(model), seed=seed, prompt=prompt, greedy=greedy(model, prompt, cached))
    return name, case, logits_of(model, prompt)


def families() -> None:
    for name in FAMILIES:
        with_a_good_seed(lambda seed: family_case(name, seed))


def adapters() -> None:
    for name, (spec, activated) in ADAPTERS.items():
        with_a_good_seed(lambda seed: adapter_case(name, spec, activated, seed))


def adapter_case(name: str, spec: dict, activated: bool, seed: int):
    prompt = prompt_of(seed)
    prompt[3:5] = INVOCATION
    prompt[12:14] = INVOCATION
    base_logits = logits_of(base_model("qwen2_tied", seed), prompt)
    model = base_model("qwen2_tied", seed)
    config = config_of(model)
    lora = LoraConfig(task_type="CAUSAL_LM", lora_dropout=0.0, bias="none", **spec)
    model = get_peft_model(model, lora).eval()
    with torch.no_grad():
        for full, parameter in model.named_parameters():
            if ".lora_" not in full:
                continue
            stored = full.replace(".default.", ".")  # the name in adapter_model.safetensors
            shape = tuple(parameter.shape)
            scale = np.sqrt(3.0 / shape[1]) * (0.5 if ".lora_B." in full else 1.0)
            parameter.copy_(torch.from_numpy(formula(seed, stored, int(np.prod(shape))).reshape(shape) * np.float32(scale)))
    logits = logits_of(model, prompt)
    difference = (logits - base_logits).abs().max(dim=1).values
    if activated:
        assert difference[:12].max() == 0 and difference[12:].min() > 0, "the adapter must start at token 12"
    elif name == "alora_absent":
        assert difference.max() == 0
    else:
        assert difference.max() > 0.1
    case = dict(
        config=config,
        seed=seed,
        prompt=prompt,
        greedy=greedy(model, prompt),
        adapter=dict(peft_type="LORA", task_type="CAUSAL_LM", bias="none", **spec),
    )
    return f"peft_{name}", case, logits


if __name__ == "__main__":
    torch.set_num_threads(1)
    OUT.mkdir(exist_ok=True)
    families()
    adapters()
