#!/usr/bin/env bash
# GRPO on the pocket model with completions by llama-server as a router: its instance starts anew with every step's adapter, masked as it is,
# the log-probabilities are the trainer's, and the reward goes as with our own engine.
#
#   tests/llama_server/run.sh             skipped unless llama-server is in target/llama-bin, or in the directory that LLAMA_BIN names
#   tests/llama_server/run.sh --install   compiles it there first, by benchmarks/llama_cpp/setup.sh (half an hour of one core)
#   EDGETHINK=path/to/edgethink           a program that is built already
set -euo pipefail
cd "$(dirname "$0")/../.."

root="$PWD"
bin="${LLAMA_BIN:-$root/target/llama-bin}"
if [ "${1:-}" = --install ]; then
  benchmarks/llama_cpp/setup.sh "$root/target/llama-venv" "$bin" "$(nproc)"
fi
[ -x "$bin/llama-server" ] || { echo "tests/llama_server: skipped, llama-server is not there; see --install"; exit 0; }
if [ -z "${EDGETHINK:-}" ]; then
  cargo build --release --locked -p edgethink
  EDGETHINK="${CARGO_TARGET_DIR:-$root/target}/release/edgethink"
fi

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
port="$(python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])')"
"$bin/llama-server" --models-preset "$work/llama.ini" --host 127.0.0.1 --port "$port" >"$work/llama.log" 2>&1 &
server=$!
trap 'kill "$server" 2>/dev/null; wait "$server" 2>/dev/null; rm -rf "$work"' EXIT
for _ in $(seq 60); do
  curl -fs "http://127.0.0.1:$port/health" >/dev/null && break
  kill -0 "$server" 2>/dev/null || { tail -30 "$work/llama.log"; echo "tests/llama_server: the server did not start" >&2; exit 1; }
  sleep 1
done

python3 tests/rollouts/check.py "$EDGETHINK" "$work" "http://127.0.0.1:$port" llama-server
echo "tests/llama_server: ok"
