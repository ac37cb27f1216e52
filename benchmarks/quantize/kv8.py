"""What the KV cache in 8 bits costs, by context length (METHOD 6: KV8, one scale per token and head).

usage: python kv8.py EDGETHINK_BINARY MODEL DATA_DIR OUT_DIR [TOKENS]

For contexts of 64 to 2048 tokens: perplexity of the second half of each chunk, given the first, with KV in f32, f16 and int8
(`edgethink eval ppl`), on TOKENS (65536) tokens of DATA_DIR/base-valid.jsonl as one text; rows past the model's own context are left out.
Writes OUT_DIR/kv8.json and OUT_DIR/kv8.md.
"""

import json
import os
import subprocess
import sys

CONTEXTS = [64, 128, 256, 512, 1024, 2048]
FORMATS = ["f32", "f16", "int8"]


def text(data, out):
    """All rows of the file as one text."""
    with open(os.path.join(data, "base-valid.jsonl"), encoding="utf-8") as rows, open(out, "w", encoding="utf-8") as file:
        for line in rows:
            row = json.loads(line)
            if "messages" in row:
                file.write("".join(f"<|im_start|>{m['role']}\n{m['content']}<|im_end|>\n" for m in row["messages"]))
            else:
                file.write(row.get("text") or f"{row['prompt']}{row['completion']}\n\n")


def main(binary, model, data, out, tokens=65536):
    os.makedirs(out, exist_ok=True)
    path = os.path.join(out, "kv8.txt")
    text(data, path)
    table = []
    for ctx in CONTEXTS:
        row = {"ctx": ctx}
        for kv in FORMATS:
            args = ["eval", "ppl", "--text", path, "--model", model, "--adapter", "none", "--ctx", str(ctx), "--chunks", str(int(tokens) // ctx)]
            done = subprocess.run([binary, *args, "--kv", kv, "--json"], capture_output=True, text=True)
            if done.returncode != 0:
                print(f"{ctx} tokens: {done.stderr.strip()}")
                break
            result = json.loads(done.stdout)
            row |= {kv: result["ppl"], f"{kv}_nll": result["nll"], "scored": result["scored_tokens"]}
        else:
            print(row, flush=True)
            table.append(row)
    with open(os.path.join(out, "kv8.json"), "w") as file:
        json.dump(table, file, indent=1)
    with open(os.path.join(out, "kv8.md"), "w") as file:
        file.write("| context | tokens scored | f32 | f16 | int8 | int8 - f32, nats |\n|---:|---:|---:|---:|---:|---:|\n")
        for r in table:
            file.write(f"| {r['ctx']} | {r['scored']} | {r['f32']:.4f} | {r['f16']:.4f} | {r['int8']:.4f} | {r['int8_nll'] - r['f32_nll']:+.5f} |\n")
    print(open(os.path.join(out, "kv8.md")).read())


if __name__ == "__main__":
    main(*sys.argv[1:])
