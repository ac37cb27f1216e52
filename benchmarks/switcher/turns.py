"""What the switcher decides of a question that stands behind other turns: by kind of question, kind of turn, and system message.

Run:    python benchmarks/switcher/turns.py BINARY DATA [--model MODEL] [--first 0] [--count 100]
Needs:  nothing but Python; DATA holds easy-test.jsonl and hard-test.jsonl of `edgethink train data`

Each of `count` easy and hard test questions is asked alone, behind a question that the model has answered, behind two of them, and behind a long
system message that no recipe has. Prints the share that is sent to think and the AUROC of easy against hard.
"""

import argparse
import json
import pathlib
import subprocess
import urllib.request

SYSTEM = (
    "You work at the desk of a small library by the sea. People come in with wet coats, and many of them only want to be warm for a while. Others look "
    "for a book that they have read as a child and of which they know only the colour. Be kind to all of them. Speak in short sentences, and do not send "
    "anyone away. The library has two floors, a reading room, a shelf of maps and a cat that sleeps on the newspapers. On Mondays it is closed. On "
    "Saturdays the children come for a story. When somebody asks for a number, give the number. When somebody asks the way, tell the way. If you do not "
    "know, say so. Thank you."
)


def main():
    a = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    a.add_argument("binary")
    a.add_argument("data", type=pathlib.Path)
    a.add_argument("--model", default="models/pocket")
    a.add_argument("--first", type=int, default=0, help="the first question; what stands before is from 200 questions on")
    a.add_argument("--count", type=int, default=100)
    a.add_argument("--port", type=int, default=18433)
    a = a.parse_args()
    command = [a.binary, "serve", "--model", a.model, "--port", str(a.port), "--offline"]
    server = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    try:
        for line in server.stdout:
            if "http://" in line:
                break
        measure(a, f"http://127.0.0.1:{a.port}/v1/chat/completions")
    finally:
        server.terminate()


def measure(a, url):
    def ask(messages, tokens):
        body = {"messages": messages, "temperature": 0, "max_tokens": tokens}
        request = urllib.request.Request(url, json.dumps(body).encode(), {"Content-Type": "application/json"})
        return json.load(urllib.request.urlopen(request))

    def answered(question):
        reply = ask(question, 300)["choices"][0]["message"]["content"]
        return question + [{"role": "assistant", "content": reply}]

    pools = {kind: [json.loads(line)["prompt"] for line in open(a.data / f"{kind}-test.jsonl")] for kind in ("easy", "hard")}
    scores, threshold = {}, None
    for i in range(a.first, a.first + a.count):
        turns = {kind: answered(pool[i + 200]) for kind, pool in pools.items()}
        system = [{"role": "system", "content": SYSTEM}]
        before = {
            "alone": [], "behind easy": turns["easy"], "behind hard": turns["hard"], "behind easy, hard": turns["easy"] + turns["hard"],
            "behind hard, easy": turns["hard"] + turns["easy"], "behind a system message": system, "and hard": system + turns["hard"],
        }
        for kind, pool in pools.items():
            for name, messages in before.items():
                decision = ask(messages + pool[i], 1)["edgethink"]["decision"]
                threshold = decision["threshold"]
                scores.setdefault(name, {}).setdefault(kind, []).append(decision["score"])
    print(f"threshold {threshold:.4f}, {a.count} easy and {a.count} hard questions from number {a.first} on; share sent to think, %")
    print(f"{'':26}{'easy':>6}{'hard':>6}{'AUROC':>8}")
    for name, by in scores.items():
        easy, hard = by["easy"], by["hard"]
        wins = sum((e < h) + 0.5 * (e == h) for e in easy for h in hard) / (len(easy) * len(hard))
        share = [100 * sum(s >= threshold for s in group) / len(group) for group in (easy, hard)]
        print(f"{name:26}{share[0]:6.0f}{share[1]:6.0f}{wins:8.4f}")


if __name__ == "__main__":
    main()
