#!/usr/bin/env bash
# GRPO on the pocket model with completions by llama-server as a router: its instance starts anew with every step's adapter, masked as it is,
# the log-probabilities are the trainer's, and the reward goes as with our own engine.
#
#   tests/llama_server/run.sh             skipped unless llama-server is in target/llama-bin, or in the directory that LLAMA_BIN names
#   tests/llama_server/run.sh --install   compiles it there first, by benchmarks/llama_cpp/setup.sh (half an hour of one core)
#   EDGETHINK=path/to/edgethink           a program that is built already
set -euo pipefail
cd "$(dirname "$0")/../.."

root="$PWD" suite=llama_server
. tests/rollouts/server.sh
bin="${LLAMA_BIN:-$root/target/llama-bin}"
if [ "${1:-}" = --install ]; then
  benchmarks/llama_cpp/setup.sh "$root/target/llama-venv" "$bin" "$(nproc)"
fi
[ -x "$bin/llama-server" ] || skip "llama-server is not there; see --install"
program

work="$(mktemp -d)"
"$EDGETHINK" export gguf --model models/pocket/base --dtype f32 --output "$work/base.gguf"
# Numbers as the trainer has them, so that what differs is rounding.
cat >"$work/llama.ini" <<INI
[policy]
model = $work/base.gguf
lora = $work/adapters/policy.gguf
ctx-size = 8192
parallel = 8
cache-type-k = f32
cache-type-v = f32
flash-attn = off
INI
port="$(free_port)"
"$bin/llama-server" --models-preset "$work/llama.ini" --host 127.0.0.1 --port "$port" >"$work/llama.log" 2>&1 &
server=$!
trap 'kill "$server" 2>/dev/null; wait "$server" 2>/dev/null; rm -rf "$work"' EXIT
started 60 "http://127.0.0.1:$port/health" "$server" "$work/llama.log"

python3 tests/rollouts/check.py "$EDGETHINK" "$work" "http://127.0.0.1:$port" llama-server
echo "tests/llama_server: ok"
