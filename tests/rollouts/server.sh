# Sourced by the suites that draw completions by another program's server. A suite has `suite`, its name, and `root`, the repository.

# EDGETHINK: a program that is built already, or the release build.
program() {
  if [ -z "${EDGETHINK:-}" ]; then
    cargo build --release --locked -p edgethink
    EDGETHINK="${CARGO_TARGET_DIR:-$root/target}/release/edgethink"
  fi
}

skip() { echo "tests/$suite: skipped, $1"; exit 0; }

fail() { echo "tests/$suite: $1" >&2; exit 1; }

free_port() { python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])'; }

# started SECONDS URL PROCESS LOG: waits until URL answers.
started() {
  for _ in $(seq "$1"); do
    curl -fs "$2" >/dev/null && return
    kill -0 "$3" 2>/dev/null || { tail -30 "$4"; fail "the server did not start"; }
    sleep 1
  done
  fail "the server does not answer after $1 s"
}
