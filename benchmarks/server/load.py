"""Many streaming clients at once, some of which hang up: is every answer what the same request gets alone?

    edgethink serve --port 8123 --streams 64 --queue 256 &
    python benchmarks/server/load.py --url http://127.0.0.1:8123 --pid $! --clients 64 --seconds 600

Asks every request once alone, then lets CLIENTS clients draw from them for SECONDS. A fifth of the requests is dropped after a random
number of events. At the end nothing may run, wait or hold a block, and the server's memory must not have grown since the first fifth
of the run. Prints one JSON object; exit code 1 if an answer differed or something leaked. Needs httpx.
"""

import argparse
import asyncio
import json
import random
import sys
import time

import httpx

QUESTIONS = [
    "What are you?",
    "How can you help me?",
    "Tell me half of 98.",
    "Leo has 3 shells. Mia has 11 more shells than Leo. Olga has 5 fewer shells than Mia. How many shells does Olga own?",
    "Finn has twice as many coins as Ben. Ben has 6 coins. Olga has 4 more coins than Finn. How many coins does Olga own?",
]


def requests(count, adapters):
    """Requests of many kinds, each with a seed of its own."""
    out = []
    for i in range(count):
        body = {
            "model": adapters[i % len(adapters)],
            "messages": [{"role": "user", "content": QUESTIONS[i % len(QUESTIONS)]}],
            "seed": i,
            "temperature": [0.0, 0.7, 1.0][i % 3],
            "n": [1, 1, 2, 4][i % 4],
            "stream": True,
            "stream_options": {"include_usage": True},
            "max_tokens": [40, 120, 300][i % 3],
        }
        budget = [None, 40, None, 96][i % 4]
        if budget:
            body["thinking_budget"] = budget
        if i % 5 == 0:
            body["reasoning_effort"] = "none"
            body.pop("thinking_budget", None)
        if i % 7 == 0 and body["n"] > 1:
            body["edgethink"] = {"vote": "weighted", "scoring": "verifier"}
        out.append(body)
    return out


async def ask(client, body, drop_after=None):
    """(answer, seconds to the first text); the answer is None if it was dropped."""
    texts, first, events = {}, None, 0
    begun = time.perf_counter()
    async with client.stream("POST", "/v1/chat/completions", json=body) as reply:
        if reply.status_code == 503:
            await reply.aread()
            return "full", None
        if reply.status_code != 200:
            raise RuntimeError(f"{reply.status_code}: {await reply.aread()}")
        async for line in reply.aiter_lines():
            if not line.startswith("data: "):
                continue
            if line == "data: [DONE]":
                return texts, first
            chunk = json.loads(line[6:])
            if "error" in chunk:
                raise RuntimeError(str(chunk))
            events += 1
            if drop_after is not None and events >= drop_after:
                return None, first
            for choice in chunk["choices"]:
                delta = choice["delta"]
                text = texts.setdefault(choice["index"], ["", "", ""])
                text[0] += delta.get("reasoning_content") or ""
                text[1] += delta.get("content") or ""
                text[2] += choice["finish_reason"] or ""
                if first is None and (text[0] or text[1]):
                    first = time.perf_counter() - begun
    raise RuntimeError("the stream ended without [DONE]")


async def metrics(client):
    text = (await client.get("/metrics")).text
    lines = [line.rsplit(" ", 1) for line in text.splitlines() if line and not line.startswith("#")]
    return {name: float(value) for name, value in lines}


def rss_kib(pid):
    if pid is None:
        return None
    with open(f"/proc/{pid}/status") as status:
        for line in status:
            if line.startswith("VmRSS:"):
                return int(line.split()[1])
    return None


def quantile(values, q):
    values = sorted(values)
    return round(values[min(len(values) - 1, int(q * len(values)))], 4) if values else None


async def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--url", default="http://127.0.0.1:8080")
    parser.add_argument("--pid", type=int)
    parser.add_argument("--clients", type=int, default=64)
    parser.add_argument("--seconds", type=float, default=120)
    parser.add_argument("--requests", type=int, default=60)
    parser.add_argument("--adapters", default="pocket,adapter", help="model names to mix")
    args = parser.parse_args()
    limits = httpx.Limits(max_connections=None, max_keepalive_connections=args.clients)
    async with httpx.AsyncClient(base_url=args.url, timeout=300, limits=limits) as client:
        bodies = requests(args.requests, args.adapters.split(","))
        alone = [(await ask(client, body))[0] for body in bodies]
        until = time.monotonic() + args.seconds
        counts = {"answered": 0, "dropped": 0, "full": 0, "wrong": 0, "failed": 0}
        ttft, memory, errors = [], [], []

        async def run(seed):
            rng = random.Random(seed)
            while time.monotonic() < until:
                at = rng.randrange(len(bodies))
                drop = rng.randrange(1, 60) if rng.random() < 0.2 else None
                try:
                    answer, first = await ask(client, bodies[at], drop)
                except Exception as error:  # noqa: BLE001 - counted and shown
                    counts["failed"] += 1
                    errors.append(repr(error)[:200])
                    continue
                if first is not None:
                    ttft.append(first)
                if answer is None:
                    counts["dropped"] += 1
                elif answer == "full":
                    counts["full"] += 1
                    await asyncio.sleep(0.2)
                elif answer == alone[at]:
                    counts["answered"] += 1
                else:
                    counts["wrong"] += 1
                    errors.append(json.dumps({"at": at, "got": answer, "alone": alone[at]})[:400])

        async def watch():
            while time.monotonic() < until:
                memory.append(rss_kib(args.pid))
                await asyncio.sleep(max(1.0, args.seconds / 50))

        await asyncio.gather(watch(), *(run(seed) for seed in range(args.clients)))
        for _ in range(100):
            after = await metrics(client)
            held = ["edgethink_kv_blocks_used", "edgethink_requests_running", "edgethink_requests_waiting"]
            leaked = {name: after[name] for name in held if after[name] != 0}
            if not leaked:
                break
            await asyncio.sleep(0.1)
    memory = [kib for kib in memory if kib is not None]
    early = max(memory[: max(1, len(memory) // 5)], default=0)
    result = {
        "clients": args.clients,
        "seconds": args.seconds,
        **counts,
        "leaked": leaked,
        "ttft_s": {"p50": quantile(ttft, 0.5), "p99": quantile(ttft, 0.99)},
        "tokens_generated": after["edgethink_tokens_generated_total"],
        "preemptions": after["edgethink_preemptions_total"],
        "rss_kib": {"first_fifth_max": early, "last": memory[-1] if memory else None},
        "errors": errors[:5],
    }
    print(json.dumps(result, indent=1))
    return 1 if counts["wrong"] or counts["failed"] or leaked else 0


if __name__ == "__main__":
    sys.exit(asyncio.run(main()))
