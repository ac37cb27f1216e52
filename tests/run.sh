#!/usr/bin/env bash
# What needs more than a Rust toolchain, one suite after the other, each within a time limit: other people's clients against the
# server, the page in a browser. A suite whose tools are missing is skipped, and says so. The last line is the summary.
#
#   tests/run.sh                    clients and page
#   tests/run.sh clients page arm64 these suites (arm64 sets up a Debian tree of 3 GB and takes half an hour)
#   tests/run.sh x86                AVX-512 and AVX-VNNI in an emulator, where the machine has none (a Debian tree of 0.4 GB; 30 minutes from nothing)
#   tests/run.sh vllm sglang llama_server
#                                   GRPO with one of these as its sampler, where it is installed
#   tests/run.sh vulkan             training through Vulkan against the CPU, where there is a driver
#   tests/run.sh --install ...      Chromium and Mesa's software driver may be installed by apt-get, as root
#   EDGETHINK=path/to/edgethink     a program that is built already; otherwise the release build is made
#
# Exits 1 if a suite fails or does not end in time.
set -uo pipefail
cd "$(dirname "$0")/.."

declare -A minutes=([clients]=5 [page]=6 [arm64]=45 [x86]=60 [vllm]=20 [sglang]=20 [llama_server]=10 [vulkan]=30)
suites=()
for arg in "$@"; do
  case "$arg" in
    --install) export PAGE_INSTALL=1 VULKAN_INSTALL=1 ;;
    *) [ -n "${minutes[$arg]:-}" ] || { echo "tests/run.sh: there is no suite $arg" >&2; exit 2; }
       suites+=("$arg") ;;
  esac
done
[ ${#suites[@]} -gt 0 ] || suites=(clients page)

if [ -z "${EDGETHINK:-}" ]; then
  cargo build --release --locked -p edgethink || exit 1
  EDGETHINK="${CARGO_TARGET_DIR:-$PWD/target}/release/edgethink"
fi
EDGETHINK="$(realpath "$EDGETHINK")" || exit 1
export EDGETHINK

log="$(mktemp)"
trap 'rm -f "$log"' EXIT
passed=0 failed=0 skipped=0 lines=()
for suite in "${suites[@]}"; do
  echo "== $suite"
  SECONDS=0
  timeout --kill-after=20 "${minutes[$suite]}m" "tests/$suite/run.sh" 2>&1 | tee "$log"
  code=${PIPESTATUS[0]}
  skip="$(sed -n "s/^tests\/$suite: skipped, //p" "$log" | tail -1)"
  if [ "$code" = 124 ] || [ "$code" = 137 ]; then
    failed=$((failed + 1)) lines+=("$suite: FAILED, not done after ${minutes[$suite]} minutes")
  elif [ "$code" != 0 ]; then
    failed=$((failed + 1)) lines+=("$suite: FAILED with exit code $code after $SECONDS s")
  elif [ -n "$skip" ]; then
    skipped=$((skipped + 1)) lines+=("$suite: skipped, $skip")
  else
    passed=$((passed + 1)) lines+=("$suite: passed in $SECONDS s")
  fi
done
echo
printf '%s\n' "${lines[@]}"
echo "suites: $passed passed, $failed failed, $skipped skipped"
[ "$failed" = 0 ]
