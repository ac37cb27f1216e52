"""Plants outlier channels into a model without changing what it computes, as trained models of several billion parameters have them.

usage: python plant.py MODEL_DIR OUT_DIR [FACTOR]

In every layer, four channels of each norm get a weight 1/FACTOR of theirs and the columns behind them FACTOR times theirs; likewise sixteen
rows of up against columns of down, and four rows of v against columns of o. FACTOR (32) is a power of two, so every product stays the same,
bit for bit, in any float format; a scale that spans an outlier leaves FACTOR times fewer codes for everything else.
Needs numpy.
"""

import json
import os
import shutil
import struct
import sys

import numpy as np

# Bits of a bfloat16 are the upper half of a float32's.
TYPES = {"F32": np.float32, "F16": np.float16, "BF16": np.uint16}


def load_file(path):
    """Tensors of a safetensors file as float32, with the type that each is stored in."""
    with open(path, "rb") as file:
        (size,) = struct.unpack("<Q", file.read(8))
        header, data = json.loads(file.read(size)), file.read()
    tensors = {}
    for name, info in header.items():
        if name == "__metadata__":
            continue
        start, end = info["data_offsets"]
        stored = np.frombuffer(data[start:end], TYPES[info["dtype"]]).reshape(info["shape"])
        bf16 = info["dtype"] == "BF16"
        values = (stored.astype(np.uint32) << 16).view(np.float32) if bf16 else stored.astype(np.float32)
        tensors[name] = (info["dtype"], values)
    return tensors


def save_file(tensors, path):
    """Writes them; a value that its type does not hold exactly is an error."""
    header, parts, end = {"__metadata__": {"format": "pt"}}, [], 0
    for name, (dtype, values) in tensors.items():
        if dtype == "BF16":
            bits = np.ascontiguousarray(values).view(np.uint32)
            assert not (bits & 0xFFFF).any(), f"{name} is no longer bfloat16"
            stored = (bits >> 16).astype(np.uint16)
        else:
            stored = values.astype(TYPES[dtype])
            assert (stored.astype(np.float32) == values).all(), f"{name} is no longer {dtype}"
        parts.append(stored.tobytes())
        header[name] = {"dtype": dtype, "shape": list(values.shape), "data_offsets": [end, end + len(parts[-1])]}
        end += len(parts[-1])
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with open(path, "wb") as file:
        file.write(struct.pack("<Q", len(text)) + text + b"".join(parts))


def planted(base):
    """Everything that is planted: (norm or linear layer, "in" or "out", indices); inputs are multiplied, outputs divided."""
    config = json.load(open(os.path.join(base, "config.json")))
    rng = np.random.default_rng(0)
    heads, kv_heads = config["num_attention_heads"], config["num_key_value_heads"]
    d = config.get("head_dim") or config["hidden_size"] // heads
    for i in range(config["num_hidden_layers"]):
        p = f"model.layers.{i}."
        readers = {
            "input_layernorm": ["self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"],
            "post_attention_layernorm": ["mlp.gate_proj", "mlp.up_proj"],
        }
        for norm, behind in readers.items():
            channels = rng.choice(config["hidden_size"], 4, replace=False)
            yield p + norm, "out", channels
            for linear in behind:
                yield p + linear, "in", channels
        rows = rng.choice(config["intermediate_size"], 16, replace=False)
        yield p + "mlp.up_proj", "out", rows
        yield p + "mlp.down_proj", "in", rows
        for row in rng.choice(kv_heads * d, 4, replace=False):
            group = heads // kv_heads
            readers = [head * d + row % d for head in range(row // d * group, (row // d + 1) * group)]
            yield p + "self_attn.v_proj", "out", np.array([row])
            yield p + "self_attn.o_proj", "in", np.array(readers)


def copy_others(source, out, weights):
    os.makedirs(out, exist_ok=True)
    for name in os.listdir(source):
        if name != weights and os.path.isfile(os.path.join(source, name)):
            shutil.copy(os.path.join(source, name), out)
    return load_file(os.path.join(source, weights))


def main(source, out, factor=32.0):
    tensors = copy_others(source, out, "model.safetensors")
    for name, side, index in planted(source):
        weight, bias = (tensors.get(f"{name}.{part}", (None, None))[1] for part in ("weight", "bias"))
        if side == "in":
            weight[:, index] *= np.float32(factor)
        else:
            weight[index] /= np.float32(factor)
            if bias is not None:
                bias[index] /= np.float32(factor)
    save_file(tensors, os.path.join(out, "model.safetensors"))


def main_adapter(base, source, out, factor=32.0):
    """The same for a PEFT adapter of the model: A reads other inputs, B writes other outputs."""
    tensors = copy_others(source, out, "adapter_model.safetensors")
    for name, side, index in planted(base):
        a, b = (tensors.get(f"base_model.model.{name}.lora_{x}.weight", (None, None))[1] for x in "AB")
        if a is not None and side == "in":
            a[:, index] *= np.float32(factor)
        if b is not None and side == "out":
            b[index] /= np.float32(factor)
    save_file(tensors, os.path.join(out, "adapter_model.safetensors"))


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], *map(float, sys.argv[3:4]))
