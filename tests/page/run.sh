#!/usr/bin/env bash
# The page in a real browser: its modules, a slow server, and `edgethink serve` on the pocket model.
#
#   tests/page/run.sh                  builds the program (release) and runs everything
#   EDGETHINK=path/to/edgethink        a program that is built already
#   PAGE_SHOTS=folder                  where screenshots go (target/page-shots)
#   PAGE_INSTALL=1                     Chromium may be installed by apt-get, as root
set -euo pipefail
cd "$(dirname "$0")/../.."

tests/page/setup.sh || { echo "tests/page: skipped, $(tests/page/setup.sh --missing)"; exit 0; }

# shellcheck source=../serve.sh
source tests/serve.sh
serve --adapter-root models/pocket
cd tests/page
export PAGE_SHOTS="${PAGE_SHOTS:-$root/target/page-shots}"
EDGETHINK_URL="$url" node --test --test-concurrency=1 --test-timeout=300000
echo "tests/page: ok, screenshots in $PAGE_SHOTS"
