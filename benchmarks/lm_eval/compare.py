"""The same questions, the same server: the score of lm-evaluation-harness and that of `edgethink eval`, which must be equal.

Run:    python benchmarks/lm_eval/compare.py QUESTIONS.jsonl [--binary target/release/edgethink] [--model models/pocket] [--limit 100]
Needs:  lm-eval 0.4.13 (with its `api` packages: aiohttp, tenacity, tiktoken)

QUESTIONS are rows of {"prompt": text or one message, "answer"}, such as data/pocket/hard-test.jsonl. Asked greedily, three times: by lm-eval's
local-chat-completions, by `edgethink eval --endpoint`, both through `edgethink serve`, and by `edgethink eval` without a server.
"""

import argparse
import json
import os
import pathlib
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request

HERE = pathlib.Path(__file__).resolve().parent


def questions(path: pathlib.Path, limit: int, folder: pathlib.Path) -> pathlib.Path:
    rows = []
    for line in path.read_text().splitlines()[:limit]:
        row = json.loads(line)
        prompt = row["prompt"] if isinstance(row["prompt"], str) else row["prompt"][-1]["content"]
        rows.append({"question": prompt, "prompt": prompt, "answer": str(row["answer"])})
    file = folder / "questions.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return file


def wait(url: str) -> None:
    for _ in range(600):
        try:
            urllib.request.urlopen(url, timeout=1)
            return
        except OSError:
            time.sleep(0.1)
    sys.exit(f"nothing answers at {url}")


def harness(url: str, folder: pathlib.Path) -> float:
    yaml = (HERE / "pocket_hard.yaml").read_text().replace("questions.jsonl", str(folder / "questions.jsonl"))
    (folder / "pocket_hard.yaml").write_text(yaml)
    model = f"model=pocket,base_url={url}/chat/completions,num_concurrent=4,tokenized_requests=False"
    command = [sys.executable, "-m", "lm_eval", "--model", "local-chat-completions", "--model_args", model, "--tasks", "pocket_hard",
               "--include_path", str(folder), "--apply_chat_template", "--output_path", str(folder / "out"), "--log_samples"]
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "HF_DATASETS_CACHE": str(folder / "cache"), "OPENAI_API_KEY": "none"}
    subprocess.run(command, check=True, cwd=folder, env=environment)
    results = json.loads(next((folder / "out").rglob("results_*.json")).read_text())
    return results["results"]["pocket_hard"]["exact_match,flexible-extract"]


def ours(binary: str, file: pathlib.Path, more: list[str]) -> float:
    command = [binary, "eval", f"jsonl={file}", "--temperature", "0", "--max-tokens", "760", "--json", *more]
    out = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    return json.loads(out)["tasks"][0]["accuracy"]


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("questions", type=pathlib.Path)
    options.add_argument("--binary", default="target/release/edgethink")
    options.add_argument("--model", default="models/pocket")
    options.add_argument("--limit", type=int, default=100)
    args = options.parse_args()
    folder = pathlib.Path(tempfile.mkdtemp())
    file = questions(args.questions, args.limit, folder)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    url = f"http://127.0.0.1:{port}/v1"
    server = subprocess.Popen([args.binary, "serve", "--model", args.model, "--port", str(port)])
    try:
        wait(f"http://127.0.0.1:{port}/health")
        scores = {
            "lm-eval, local-chat-completions": harness(url, folder),
            "edgethink eval --endpoint": ours(args.binary, file, ["--endpoint", url, "--endpoint-model", "pocket"]),
            "edgethink eval": ours(args.binary, file, ["--model", args.model]),
        }
    finally:
        server.terminate()
        server.wait()
    shutil.rmtree(folder)
    for name, score in scores.items():
        print(f"{name:34} {score:.4f} of {args.limit} questions")
    if len(set(scores.values())) != 1:
        sys.exit("the scores differ")


if __name__ == "__main__":
    main()
