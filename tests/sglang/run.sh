#!/usr/bin/env bash
# GRPO on the pocket model with completions by SGLang: every step's adapter is loaded by name, the log-probabilities are the trainer's, and the
# reward goes as with our own engine. It runs on the CPU, in f32, with torch's operations. SGLang has no masked adapters, so the pocket's adapter
# is made a plain one first; that a masked one is refused is tested too.
#
#   tests/sglang/run.sh             skipped unless sglang is in target/sglang-venv, or in the environment that SGLANG_VENV names
#   tests/sglang/run.sh --install   installs it there first, from the package index (5.5 GB, most of it torch)
#   EDGETHINK=path/to/edgethink     a program that is built already
set -euo pipefail
cd "$(dirname "$0")/../.."

root="$PWD" suite=sglang
. tests/rollouts/server.sh
venv="${SGLANG_VENV:-$root/target/sglang-venv}"
if [ "${1:-}" = --install ]; then
  [ -x "$venv/bin/python" ] || python3 -m venv "$venv"
  "$venv/bin/python" -m pip install -q -r tests/sglang/requirements.txt
  # Its own list of requirements is CUDA's.
  "$venv/bin/python" -m pip install -q --no-deps sglang==0.5.23
fi
[ -x "$venv/bin/python" ] && "$venv/bin/python" -c 'from importlib.metadata import version; version("sglang")' 2>/dev/null \
  || skip "sglang is not installed; see --install"
program

work="$(mktemp -d)"
port="$(free_port)"
# A process group of its own: while it starts, its children do not end with it.
SGLANG_USE_CPU_ENGINE=1 PYTHONPATH="$root/tests/sglang" OMP_NUM_THREADS=1 HF_HUB_OFFLINE=1 TORCHDYNAMO_DISABLE=1 \
  setsid "$venv/bin/python" -m sglang.launch_server --model-path models/pocket/base --served-model-name pocket --host 127.0.0.1 \
  --port "$port" --device cpu --dtype float32 --attention-backend torch_native --sampling-backend pytorch --grammar-backend none \
  --disable-cuda-graph --disable-overlap-schedule --skip-server-warmup --enable-lora --max-lora-rank 16 --lora-target-modules all \
  --lora-backend torch_native --max-total-tokens 16384 --max-running-requests 32 >"$work/sglang.log" 2>&1 &
sglang=$!
trap 'kill -- "-$sglang" 2>/dev/null; wait "$sglang" 2>/dev/null; rm -rf "$work"' EXIT
started 600 "http://127.0.0.1:$port/v1/models" "$sglang" "$work/sglang.log"

python3 tests/rollouts/check.py "$EDGETHINK" "$work" "http://127.0.0.1:$port" sglang --plain
for step in 0 1 2 3 4 5; do
  grep -q "policy-$step-" "$work/sglang.log" \
    || fail "version $step of the policy was not loaded"
done
echo "tests/sglang: ok"
