# Sourced by the tests that need a server: `serve [flags]` starts `edgethink serve` on the pocket model, on a free port of the
# loopback, sets `url`, and stops it when the script ends. EDGETHINK names a program that is built already.

root="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"

serve() {
  local program="${EDGETHINK:-}"
  if [ -z "$program" ]; then
    (cd "$root" && cargo build --release --locked -p edgethink)
    program="${CARGO_TARGET_DIR:-$root/target}/release/edgethink"
  fi
  server_log="$(mktemp)"
  "$program" serve --port 0 "$@" >"$server_log" 2>&1 &
  server_pid=$!
  trap 'kill "$server_pid" 2>/dev/null; wait "$server_pid" 2>/dev/null; rm -f "$server_log"' EXIT
  for _ in $(seq 100); do
    url="$(grep -om1 'http://[0-9.:]*' "$server_log" || true)"
    if [ -n "$url" ] && curl -fs "$url/health" >/dev/null; then return; fi
    kill -0 "$server_pid" 2>/dev/null || break
    sleep 0.1
  done
  echo "the server did not start:" >&2
  cat "$server_log" >&2
  return 1
}
