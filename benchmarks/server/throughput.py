"""Tokens per second of `edgethink serve` and of llama.cpp's `llama-server`, for 1 to 16 streaming clients on one 0.5B-shaped model.

Run:    benchmarks/llama_cpp/setup.sh VENV BIN          (once: llama-server, and what writes the model)
        cargo build --release -p edgethink
        VENV/bin/python benchmarks/server/throughput.py target/release/edgethink BIN/llama-server benchmarks/record/server.json
Needs:  llama-server and the gguf package, which setup.sh makes, and matplotlib==3.11.2 for the picture

Random weights of the shape of Qwen2.5-0.5B in Q4_0, one file for both. Every client asks for 64 greedy tokens behind a prompt of 200,
and again when it has them; `ignore_eos` makes both write the same number, which is checked before anything is timed. Prompts are new in
every round, so no answer comes from a cache; in the second variant the first 160 tokens are the same for all, as a system prompt
would be. The servers take turns. llama-server gets as many slots as there are clients and no cache in main memory (it would copy
every prompt and never find one again), with flash attention and without: the better one counts. Both have the same threads.

Writes a JSON record and, beside it, a picture. A round's rate is all its tokens over the time from the first request to the last
token; figures are medians of the rounds.
"""

import argparse
import asyncio
import datetime
import json
import os
import pathlib
import platform
import random
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request

HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent / "llama_cpp"))
LETTERS = "bdgjkmpqvxyz"  # no two of them, nor one behind a space, are merged: a character is a token
SHARED = 160
TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message.role }}\n{{ message.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def tokenizer(size):
    """A byte-level BPE whose `size` tokens all have a text, so that every generated token is one that a client sees."""
    import gguf
    import models

    chars = models.bytes_to_unicode()
    tokens = [chars[b] for b in range(256)] + [a + b for a, b in models.MERGES]
    special = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
    first = len(tokens)
    tokens += special
    tokens += [f"Ġw{i}" for i in range(len(tokens), size)]

    def add(w):
        w.add_tokenizer_model("gpt2")
        w.add_tokenizer_pre("qwen2")
        w.add_token_list(tokens)
        normal, control = gguf.TokenType.NORMAL, gguf.TokenType.CONTROL
        w.add_token_types([control if token in special else normal for token in tokens])
        w.add_token_merges([f"{a} {b}" for a, b in models.MERGES])
        w.add_bos_token_id(first)
        w.add_eos_token_id(first + 2)
        w.add_pad_token_id(first)
        w.add_add_bos_token(False)
        w.add_chat_template(TEMPLATE)

    return add


def model():
    """The path of the model, written once."""
    import models

    path = os.path.join(tempfile.gettempdir(), "random-qwen2-0.5b-q4_0-chat.gguf")
    if not os.path.exists(path):
        models.write_q4(path + ".part", models.QWEN2_05B, 0, tokenizer(models.QWEN2_05B.V))
        os.replace(path + ".part", path)
    return path


def letters(rng, count):
    """A text of `count` tokens."""
    return "".join(" " if i % 6 == 5 else rng.choice(LETTERS) for i in range(count))


class Server:
    """A program that listens, until it is closed."""

    def __init__(self, name, command):
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        self.name, self.log = name, tempfile.TemporaryFile()
        command = [str(part) for part in command] + ["--host", "127.0.0.1", "--port", str(self.port)]
        self.process = subprocess.Popen(command, stdout=self.log, stderr=self.log)
        for _ in range(600):
            try:
                urllib.request.urlopen(f"http://127.0.0.1:{self.port}/health").close()
                return
            except (urllib.error.URLError, ConnectionError):
                if self.process.poll() is not None:
                    break
                time.sleep(0.1)
        self.close()
        self.log.seek(0)
        raise RuntimeError(f"{name} did not start:\n{self.log.read().decode()[-2000:]}")

    def cpu_seconds(self):
        fields = open(f"/proc/{self.process.pid}/stat").read().rsplit(")", 1)[1].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def close(self):
        self.process.terminate()
        self.process.wait()


async def ask(port, path, prompt, tokens):
    """One streamed reply: (prompt tokens, generated tokens, seconds to the first text, seconds between texts)."""
    body = {"max_tokens": tokens, "ignore_eos": True, "temperature": 0, "stream": True, "stream_options": {"include_usage": True}}
    if path == "chat/completions":
        body["messages"] = [{"role": "user", "content": prompt}]
    else:
        body["prompt"] = prompt
    text = json.dumps(body)
    begun = time.perf_counter()
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    head = f"POST /v1/{path} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\nConnection: close\r\nContent-Length: {len(text)}\r\n\r\n"
    writer.write((head + text).encode())
    usage, times, status = None, [], await reader.readline()
    if b" 200 " not in status:
        raise RuntimeError((status + await reader.read(2000)).decode())
    async for line in reader:
        if not line.startswith(b"data: "):
            continue
        if line.startswith(b"data: [DONE]"):
            break
        chunk = json.loads(line[6:])
        usage = chunk.get("usage") or usage
        for choice in chunk["choices"]:
            if choice.get("text") or choice.get("delta", {}).get("content"):
                times.append(time.perf_counter())
    writer.close()
    gaps = [b - a for a, b in zip(times, times[1:])]
    return usage["prompt_tokens"], usage["completion_tokens"], times[0] - begun, gaps


async def load(server, path, prompts, tokens):
    """Each client asks its prompts one after the other; all begin at the same time."""

    async def client(own):
        return [await ask(server.port, path, prompt, tokens) for prompt in own]

    used, begun = server.cpu_seconds(), time.perf_counter()
    replies = [reply for own in await asyncio.gather(*map(client, prompts)) for reply in own]
    seconds = time.perf_counter() - begun
    if any(reply[1] != tokens for reply in replies):
        raise RuntimeError(f"{server.name} wrote {[reply[1] for reply in replies]} tokens and not {tokens}")
    return {
        "tokens_per_second": len(replies) * tokens / seconds,
        "cpu_ms_per_token": 1e3 * (server.cpu_seconds() - used) / (len(replies) * tokens),
        "ttft_s": statistics.median(reply[2] for reply in replies),
        "gap_ms": 1e3 * statistics.median(gap for reply in replies for gap in reply[3]),
        "prompt_tokens": replies[0][0],
    }


def measure(a, path_to_model, variant, clients):
    """Medians of every server with `clients` clients, the servers in turn."""
    ours = [a.edgethink, "serve", "--model", path_to_model, "--threads", a.threads, "--think", "off", *a.edgethink_flags.split()]
    theirs = [a.llama_server, "-m", path_to_model, "-t", a.threads, "-tb", a.threads, "-np", clients, "-c", 512 * clients, "--cache-ram", 0]
    servers = [Server("edgethink", ours)] + [Server(f"llama-server -fa {fa}", theirs + ["-fa", fa]) for fa in ("on", "off")]
    rounds = {server.name: [] for server in servers}
    try:
        prefix = letters(random.Random(variant), SHARED if variant == "shared" else 0)
        for round_number in range(a.rounds + 1):
            for server in servers[round_number % 3 :] + servers[: round_number % 3]:
                # The same texts for every server.
                rng = random.Random(f"{variant} {clients} {round_number}")
                prompt = lambda: prefix + letters(rng, a.prompt - len(prefix))
                prompts = [[prompt() for _ in range(a.requests if round_number else 1)] for _ in range(clients)]
                found = asyncio.run(load(server, a.path, prompts, a.tokens))
                if round_number:  # the first one warms up and checks the counts
                    rounds[server.name].append(found)
    finally:
        for server in servers:
            server.close()
    counts = {found["prompt_tokens"] for all_found in rounds.values() for found in all_found}
    if len(counts) != 1:
        raise RuntimeError(f"the servers count the prompt's tokens differently: {counts}")
    return {name: {key: statistics.median(found[key] for found in all_found) for key in all_found[0]} for name, all_found in rounds.items()}


def draw(results, path):
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(1, len(results), figsize=(5.5 * len(results), 4), squeeze=False)
    for axis, (variant, rows) in zip(axes[0], results.items()):
        for name in rows[0]["servers"]:
            axis.plot([row["clients"] for row in rows], [row["servers"][name]["tokens_per_second"] for row in rows], marker="o", label=name)
        axis.set(title=f"{variant} prompts", xlabel="clients", ylabel="generated tokens per second", ylim=(0, None))
        axis.legend()
    figure.tight_layout()
    figure.savefig(path)


def said(command):
    done = subprocess.run(command, capture_output=True, text=True)
    return (done.stdout + done.stderr).strip()


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("edgethink")
    p.add_argument("llama_server")
    p.add_argument("record", type=pathlib.Path)
    p.add_argument("--clients", default="1,4,8,16")
    p.add_argument("--variants", default="distinct,shared")
    p.add_argument("--rounds", type=int, default=3)
    p.add_argument("--requests", type=int, default=2, help="requests of a client in a round")
    p.add_argument("--threads", type=int, default=2)
    p.add_argument("--prompt", type=int, default=200)
    p.add_argument("--tokens", type=int, default=64)
    p.add_argument("--path", default="completions", choices=["completions", "chat/completions"])
    p.add_argument("--edgethink-flags", default="", help="further flags of `edgethink serve`, in one text")
    a = p.parse_args()
    from speed import cpu

    path, results = model(), {}
    for variant in a.variants.split(","):
        results[variant] = []
        for clients in map(int, a.clients.split(",")):
            servers = measure(a, path, variant, clients)
            rate = {name: found["tokens_per_second"] for name, found in servers.items()}
            ratio = rate["edgethink"] / max(value for name, value in rate.items() if name != "edgethink")
            results[variant].append({"clients": clients, "ratio": ratio, "servers": servers})
            print(f"{variant} prompts, {clients} clients: {ratio:.2f} of the better llama-server", flush=True)
            for name, found in servers.items():
                print("  {:22} {tokens_per_second:7.1f} tokens/s  first text {ttft_s:6.2f} s  between texts {gap_ms:6.1f} ms  {cpu_ms_per_token:6.1f} ms CPU a token".format(name, **found), flush=True)
    record = {
        "date": datetime.date.today().isoformat(), "model": "random weights, shape of Qwen2.5-0.5B, Q4_0", "path": a.path,
        "prompt_tokens": a.prompt, "shared_tokens": SHARED, "generated_tokens": a.tokens, "threads": a.threads, "rounds": a.rounds,
        "requests_of_a_client": a.requests, "cpu": cpu(), "system": platform.platform(),
        "edgethink": {"version": said([a.edgethink, "--version"]), "commit": said(["git", "-C", str(HERE), "rev-parse", "--short=12", "HEAD"]), "flags": a.edgethink_flags},
        "llama_server": said([a.llama_server, "--version"]).splitlines(), "results": results,
    }
    a.record.write_text(json.dumps(record, indent=1) + "\n")
    draw(results, a.record.with_suffix(".svg"))


if __name__ == "__main__":
    main()
