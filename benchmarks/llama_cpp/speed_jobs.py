"""Times llama.cpp on one model: a list of jobs as JSON on stdin, their figures as JSON on stdout.

usage: python speed_jobs.py MODEL.gguf THREADS < JOBS.json

Jobs, each with "flash" 0 or 1 (flash attention) and optionally "lora" (a GGUF adapter that acts on every token):
  {"what": "check", "prompt": [..], "tokens": [..]}     how far llama.cpp's best logit is above each given token's, over the spread
  {"what": "load"}                                      seconds to load the model and give one token
  {"what": "prefill", "tokens": N}                      tokens per second of a fresh prompt, logits of the last token
  {"what": "decode", "streams": N, "depth": D, "steps": S}   tokens per second of all streams together behind one prompt of D tokens

Settings are llama.cpp's defaults for speed: KV cache of f16, prompts in batches of at most 512.
"""

import json
import sys
import time

import numpy as np

import llama

BATCH = 512


class Session:
    """A model with a context, made anew only where a job needs another one."""

    def __init__(self, path, threads):
        self.path, self.threads = path, threads
        self.model, self.key = None, None

    def open(self, job, context, streams):
        key = (job.get("lora"), job["flash"])
        if self.model is None or key != self.key or self.context < context or self.streams < streams:
            self.close()
            self.model = llama.Model(self.path, n_ctx=context, threads=self.threads, kv=llama.F16, n_seq=streams, n_batch=BATCH,
                                     flash=job["flash"], lora=job.get("lora"))
            self.key, self.context, self.streams = key, context, streams
            self.model.time_prefill(self.prompt(64))  # pages the weights in
        return self.model

    def close(self):
        if self.model is not None:
            self.model.close()
            self.model = None

    def prompt(self, count):
        return np.random.default_rng(count).integers(0, self.model.n_vocab, count).tolist()

    def run(self, job):
        what = job["what"]
        if what == "load":
            self.close()
            start = time.perf_counter()
            m = llama.Model(self.path, n_ctx=64, threads=self.threads, kv=llama.F16, flash=job["flash"])
            m.logits([1])
            seconds = time.perf_counter() - start
            m.close()
            return seconds
        if what == "check":
            tokens = job["prompt"] + job["tokens"]
            m = self.open(job, len(tokens) + 8, 1)
            rows = m.logits(tokens)[len(job["prompt"]) - 1 : -1]
            return [float((row.max() - row[t]) / (row.max() - row.min())) for row, t in zip(rows, job["tokens"])]
        if what == "prefill":
            m = self.open(job, job["tokens"] + 8, 1)
            return job["tokens"] / m.time_prefill(self.prompt(job["tokens"]))
        streams, depth, steps = job["streams"], job["depth"], job["steps"]
        m = self.open(job, depth + streams * (steps + 8) + 64, streams)
        return steps * streams / m.time_decode(self.prompt(max(depth, 1)), streams, steps)


def main():
    session = Session(sys.argv[1], int(sys.argv[2]))
    jobs = json.load(sys.stdin)
    # Jobs that share a context stand together; the largest context first.
    order = sorted(range(len(jobs)), key=lambda i: (jobs[i].get("lora") or "", jobs[i]["flash"], -jobs[i].get("depth", jobs[i].get("tokens", 0) if jobs[i]["what"] == "prefill" else 0), -jobs[i].get("streams", 1)))
    out = [None] * len(jobs)
    for i in order:
        out[i] = session.run(jobs[i])
    session.close()
    print(json.dumps(out))


if __name__ == "__main__":
    main()
