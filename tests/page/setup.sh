#!/usr/bin/env bash
# Installs what the browser tests need, if it is not there: playwright-core and axe-core by npm, and with PAGE_INSTALL=1, as root,
# Chromium by apt-get. Exits 1 when something is missing; `--missing` says what, on one line.
set -uo pipefail
cd "$(dirname "$0")"

browser() {
  [ -x "${CHROMIUM:-}" ] || command -v chromium chromium-browser google-chrome >/dev/null 2>&1
}

missing() {
  command -v node >/dev/null && command -v npm >/dev/null || { echo "node 20 or later is missing"; return; }
  browser || { echo "chromium is missing (PAGE_INSTALL=1 installs it by apt-get, as root)"; return; }
  [ -d node_modules/playwright-core ] && [ -d node_modules/axe-core ] || echo "npm could not install playwright-core and axe-core"
}

if [ "${1:-}" = --missing ]; then
  missing
  exit 0
fi
if [ "${PAGE_INSTALL:-}" = 1 ] && ! browser && command -v apt-get >/dev/null && [ "$(id -u)" = 0 ]; then
  { apt-get update -q && apt-get install -qy --no-install-recommends chromium fonts-inter; } >/dev/null 2>&1
fi
if browser && command -v npm >/dev/null && [ ! node_modules/.package-lock.json -nt package-lock.json ]; then
  timeout 60 npm ci --silent >/dev/null 2>&1
fi
[ -z "$(missing)" ]
