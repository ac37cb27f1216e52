"""Many streaming clients, some of which hang up, while adapters come and go: is every answer what the same request gets alone?

Run:    cargo build --release -p edgethink
        python benchmarks/server/load.py target/release/edgethink --clients 64 --seconds 600
Needs:  httpx==0.28.1

Starts `edgethink serve` on the pocket model with copies of its adapters below an adapter root, and asks every request once alone. Then
CLIENTS clients draw from them for SECONDS: base and adapters, budgets, votes, n from 1 to 4. A fifth of the requests is dropped after a
random number of events. Meanwhile adapters are unloaded, loaded again, and put in each other's place. An answer must be the one of an
adapter that had the name while the request ran; "no such adapter" counts only if it was away at some time of it.

1. When the clients have stopped, nothing may run, wait or hold a block, and memory must not have grown since the first fifth of the run.
2. The clients start again, and the server gets SIGTERM: what it has begun must be answered, what comes later refused, and it must exit 0.
3. A server with a queue of 2 gets all clients at once: what is too much must be refused within a second, with Retry-After.

Prints one JSON object; exit code 1 if anything of this failed.
"""

import argparse
import asyncio
import contextlib
import json
import pathlib
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time

import httpx

POCKET = pathlib.Path(__file__).resolve().parents[2] / "models" / "pocket"
#: What the names below the adapter root hold at first. `swap` is replaced in place, the others go and come back.
HOT = {"one": "adapter", "two": "sft", "three": "adapter", "swap": "sft"}
QUESTIONS = [
    "What are you?",
    "How can you help me?",
    "Tell me half of 98.",
    "Leo has 3 shells. Mia has 11 more shells than Leo. Olga has 5 fewer shells than Mia. How many shells does Olga own?",
    "Finn has twice as many coins as Ben. Ben has 6 coins. Olga has 4 more coins than Finn. How many coins does Olga own?",
]


class Absent(Exception):
    """The adapter is not there."""


class Refused(Exception):
    """503 with its code, the seconds until it came and its Retry-After; or no reply at all, with the code `connection`."""

    def __init__(self, code, seconds=0.0, retry_after=None):
        super().__init__(code)
        self.code, self.seconds, self.retry_after = code, seconds, retry_after


def requests(count):
    """Requests of many kinds, each with a seed of its own."""
    names, out = ["pocket", "adapter", *HOT], []
    for i in range(count):
        body = {
            "model": names[i % len(names)],
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
    try:
        reply = await client.send(client.build_request("POST", "/v1/chat/completions", json=body), stream=True)
    except httpx.TransportError as error:
        raise Refused("connection") from error
    async with contextlib.aclosing(reply):
        if reply.status_code != 200:
            error = json.loads(await reply.aread())["error"]
            if reply.status_code == 404:
                raise Absent
            if reply.status_code == 503:
                raise Refused(error["code"], time.perf_counter() - begun, reply.headers.get("retry-after"))
            raise RuntimeError(f"{reply.status_code}: {error}")
        async for line in reply.aiter_lines():
            if not line.startswith("data: "):
                continue
            if line == "data: [DONE]":
                return texts, first
            chunk = json.loads(line[6:])
            if "error" in chunk:
                if chunk["error"]["code"] == "adapter_not_found":
                    raise Absent  # it went while the request waited for room
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


class Adapters:
    """What may have been under each name of the adapter root, a set per change; None stands for nothing."""

    def __init__(self, client):
        self.client = client
        self.past = {name: [{content}] for name, content in HOT.items()}
        self.changes = 0

    async def manage(self, what, **body):
        reply = await self.client.post(f"/v1/{what}_lora_adapter", json=body)
        if reply.status_code != 200:
            raise RuntimeError(f"{what} {body}: {reply.text}")
        self.changes += 1

    async def load_all(self):
        for name, content in HOT.items():
            await self.manage("load", lora_name=name, lora_path=content)

    async def change(self, until):
        """Changes one after the other until then; every name holds an adapter at the end."""
        rng = random.Random(0)
        while time.monotonic() < until:
            name = rng.choice(list(HOT))
            (old,) = self.past[name][-1]
            if name == "swap":
                new = "sft" if old == "adapter" else "adapter"
                self.past[name].append({old, new})
                await self.manage("load", lora_name=name, lora_path=new, load_inplace=True)
            else:
                new = old
                self.past[name].append({old, None})
                await self.manage("unload", lora_name=name)
                await asyncio.sleep(rng.random() * 0.3)
                await self.manage("load", lora_name=name, lora_path=new)
            self.past[name].append({new})
            await asyncio.sleep(rng.random() * 0.5)

    def since(self, name, mark):
        """What a request may have met that began at `mark`, a length of the name's past."""
        return set().union(*self.past[name][mark - 1 :]) if name in self.past else {name}


class Run:
    """Clients, and what became of their requests."""

    def __init__(self, client, bodies, alone, adapters):
        self.client, self.bodies, self.alone, self.adapters = client, bodies, alone, adapters
        self.counts = {"answered": 0, "dropped": 0, "absent": 0, "refused": 0, "wrong": 0, "failed": 0}
        self.ttft, self.errors, self.ending = [], [], False

    def count(self, what, told=None):
        self.counts[what] += 1
        if told is not None:
            self.errors.append(told[:400])

    async def one(self, rng, drops=True):
        at = rng.randrange(len(self.bodies))
        body = self.bodies[at]
        name = body["model"]
        mark = len(self.adapters.past.get(name, []))
        try:
            answer, first = await ask(self.client, body, rng.randrange(1, 60) if drops and rng.random() < 0.2 else None)
        except Absent:
            away = None in self.adapters.since(name, mark)
            return self.count("absent") if away else self.count("wrong", f"{name} was there")
        if first is not None:
            self.ttft.append(first)
        met = self.adapters.since(name, mark) - {None}
        if answer is None:
            self.count("dropped")
        elif any(answer == self.alone[at][content] for content in met):
            self.count("answered")
        else:
            self.count("wrong", json.dumps({"at": at, "met": sorted(met), "got": answer, "alone": self.alone[at]}))

    async def loop(self, seed, go_on):
        """One client until `go_on()` says no, or the server refuses because it ends."""
        rng = random.Random(seed)
        while go_on():
            try:
                await self.one(rng)
            except Refused as refusal:
                if refusal.code != "queue_full" and not self.ending:
                    self.count("failed", refusal.code)
                    continue
                self.count("refused")
                if self.ending:
                    return
                await asyncio.sleep(0.2)
            except Exception as error:  # noqa: BLE001 - counted and shown
                self.count("failed", repr(error))


async def alone(client, bodies):
    """Per request, the answer by what may be under its name."""
    out = []
    for body in bodies:
        contents = ["adapter", "sft"] if body["model"] == "swap" else [HOT.get(body["model"], body["model"])]
        name = {"adapter": "one", "sft": "two"} if body["model"] in HOT else {}
        out.append({content: (await ask(client, {**body, "model": name.get(content, content)}))[0] for content in contents})
    return out


async def metrics(client):
    text = (await client.get("/metrics")).text
    lines = [line.rsplit(" ", 1) for line in text.splitlines() if line and not line.startswith("#")]
    return {name: float(value) for name, value in lines}


async def leaks(client):
    """What is still held when nobody asks, and the metrics."""
    for _ in range(100):
        now = await metrics(client)
        names = ["edgethink_kv_blocks_used", "edgethink_requests_running", "edgethink_requests_waiting"]
        held = {name: now[name] for name in names if now[name] != 0}
        if not held:
            break
        await asyncio.sleep(0.1)
    return held, now


def rss_kib(pid):
    for line in open(f"/proc/{pid}/status"):
        if line.startswith("VmRSS:"):
            return int(line.split()[1])


def quantile(values, q):
    values = sorted(values)
    return round(values[min(len(values) - 1, int(q * len(values)))], 4) if values else None


@contextlib.asynccontextmanager
async def served(program, *flags):
    """A server and a client of it."""
    process = subprocess.Popen([program, "serve", "--port", "0", *map(str, flags)], stderr=subprocess.PIPE, text=True)
    try:
        for line in process.stderr:
            if "http://" in line:
                break
        else:
            raise RuntimeError("the server did not start")
        url = "http://" + line.split("http://")[1].split("\x1b")[0].strip()
        limits = httpx.Limits(max_connections=None, max_keepalive_connections=256)
        async with httpx.AsyncClient(base_url=url, timeout=300, limits=limits) as client:
            yield process, client
    finally:
        process.kill()
        process.wait()


async def under_load(a, bodies, root):
    """Steps 1 and 2."""
    async with served(a.program, "--streams", a.clients, "--queue", 4 * a.clients, "--adapter-root", root) as (process, client):
        adapters = Adapters(client)
        await adapters.load_all()
        run = Run(client, bodies, await alone(client, bodies), adapters)
        until, memory = time.monotonic() + a.seconds, []

        async def watch():
            while time.monotonic() < until:
                memory.append(rss_kib(process.pid))
                await asyncio.sleep(max(0.5, a.seconds / 50))

        go_on = lambda: time.monotonic() < until
        await asyncio.gather(watch(), adapters.change(until), *(run.loop(seed, go_on) for seed in range(a.clients)))
        held, now = await leaks(client)
        early = max(memory[: max(1, len(memory) // 5)])
        found = {
            **run.counts, "adapter_changes": adapters.changes, "leaked": held, "ttft_s": {"p50": quantile(run.ttft, 0.5), "p99": quantile(run.ttft, 0.99)},
            "tokens_generated": now["edgethink_tokens_generated_total"], "preemptions": now["edgethink_preemptions_total"],
            "rss_kib": {"first_fifth_max": early, "last": memory[-1]}, "errors": run.errors[:5],
        }
        ok = not (run.counts["wrong"] or run.counts["failed"] or held) and memory[-1] < 1.2 * early

        run = Run(client, bodies, run.alone, adapters)
        clients = [asyncio.create_task(run.loop(1000 + seed, lambda: True)) for seed in range(a.clients)]
        await asyncio.sleep(min(5, a.seconds))
        run.ending, told = True, time.monotonic()
        process.send_signal(signal.SIGTERM)
        await asyncio.gather(*clients)
        code = await asyncio.to_thread(process.wait, 120)
        drained = {**run.counts, "exit_code": code, "seconds": round(time.monotonic() - told, 2), "errors": run.errors[:5]}
        ok &= code == 0 and not run.counts["wrong"] and not run.counts["failed"] and run.counts["refused"] > 0
        return ok, found, drained


async def full_queue(a, bodies):
    """Step 3."""
    bodies = [body for body in bodies if body["model"] == "pocket"]
    async with served(a.program, "--streams", 4, "--queue", 2, "--kv-tokens", 2048) as (process, client):
        known = await alone(client, bodies)
        run = Run(client, bodies, known, Adapters(client))

        async def once(seed):
            try:
                await run.one(random.Random(seed), drops=False)
            except Refused as refusal:
                run.count("refused")
                return refusal

        refusals = [refusal for refusal in await asyncio.gather(*map(once, range(a.clients))) if refusal]
        slowest = max((refusal.seconds for refusal in refusals), default=0.0)
        proper = all(refusal.code == "queue_full" and refusal.retry_after for refusal in refusals)
        held, _ = await leaks(client)
        ok = bool(refusals) and proper and slowest < 1.0 and not held and not run.counts["wrong"] and run.counts["answered"] > 0
        return ok, {**run.counts, "slowest_refusal_s": round(slowest, 3), "leaked": held, "errors": run.errors[:5]}


async def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("program")
    parser.add_argument("--clients", type=int, default=64)
    parser.add_argument("--seconds", type=float, default=120)
    parser.add_argument("--requests", type=int, default=60)
    a = parser.parse_args()
    bodies = requests(a.requests)
    with tempfile.TemporaryDirectory() as root:
        for name in set(HOT.values()):
            shutil.copytree(POCKET / name, pathlib.Path(root) / name)
        load_ok, load, drain = await under_load(a, bodies, root)
    queue_ok, queue = await full_queue(a, bodies)
    print(json.dumps({"clients": a.clients, "seconds": a.seconds, "load": load, "drain": drain, "queue": queue, "ok": load_ok and queue_ok}, indent=1))
    return 0 if load_ok and queue_ok else 1


if __name__ == "__main__":
    sys.exit(asyncio.run(main()))
