#!/usr/bin/env bash
# Other people's clients against `edgethink serve` on the pocket model: openai (Python and JavaScript), anthropic, and
# pydantic-ai; and schemathesis, which makes requests up from the OpenAPI document and wants no 5xx. Installs them at pinned versions on
# the first run.
#
#   tests/clients/run.sh           EDGETHINK=path/to/edgethink for a program that is built already
set -euo pipefail
cd "$(dirname "$0")/../.."

# shellcheck source=../serve.sh
source tests/serve.sh
venv="$root/target/clients-venv"
skip() { echo "tests/clients: skipped, $1"; exit 0; }
command -v python3 >/dev/null && command -v npm >/dev/null || skip "python3 or npm is missing"
[ "$(node -p 'parseInt(process.versions.node)')" -ge 20 ] || skip "node 20 or later is missing"
cd tests/clients
if ! cmp -s requirements.txt "$venv/requirements.txt"; then
  { python3 -m venv "$venv" && timeout 120 "$venv/bin/pip" install -q -r requirements.txt; } || skip "pip could not install the clients"
  cp requirements.txt "$venv/"
fi
if [ ! node_modules/.package-lock.json -nt package-lock.json ]; then
  timeout 60 npm ci --silent || skip "npm could not install the client"
fi

serve
export EDGETHINK_URL="$url"
"$venv/bin/python" -m pytest -q -p no:cacheprovider .
node --test --test-timeout=120000
"$venv/bin/schemathesis" run "$url/openapi.json" --checks not_a_server_error --max-examples 10 --seed 1 --generation-database none --no-color
echo "tests/clients: ok"
