#!/usr/bin/env bash
# Builds for 64-bit ARM and runs under emulation: the kernel tests on NEON with and without the int8 matrix instructions, the engine's
# exactness tests, and one question to the pocket model.
#
# Needs root on Debian or a system with debootstrap; says "skipped" otherwise. Debian's own rustc has a standard library for arm64, so a
# Debian tree is set up once under target/arm64 (about 3 GB), and the repository is mounted into it.
set -euo pipefail
cd "$(dirname "$0")/../.."

suite=arm64
# shellcheck source=tests/debian.sh
source tests/debian.sh
[[ $(uname -m) == x86_64 ]] || skip "emulation is for x86-64 machines; on ARM run cargo test"
target=aarch64-unknown-linux-gnu
debian_tree sid '
    dpkg --add-architecture arm64
    apt-get update -qq
    apt-get install -y -qq --no-install-recommends \
        rustc cargo gcc gcc-aarch64-linux-gnu libc6-dev-arm64-cross libstd-rust-dev:arm64 qemu-user ca-certificates
    apt-get clean'

# What cargo needs is fetched outside of the tree; inside it works offline.
cargo fetch --locked --quiet
mkdir -p "$tree/src" "$tree/cargo"
inside() {
    unshare --mount sh -ec '
        tree=$1 cargo=$2
        shift 2
        mount --bind "$PWD" "$tree/src"
        mount --bind "$cargo" "$tree/cargo"
        mount -t proc proc "$tree/proc"
        mount --bind /dev "$tree/dev"
        exec chroot "$tree" env -i PATH=/usr/bin:/bin HOME=/root CARGO_HOME=/cargo CARGO_NET_OFFLINE=true \
            CARGO_TARGET_DIR=/target CARGO_INCREMENTAL=0 CARGO_PROFILE_DEV_DEBUG=0 \
            CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_LINKER=aarch64-linux-gnu-gcc \
            CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_RUNNER="qemu-aarch64 -cpu max -L /usr/aarch64-linux-gnu" \
            sh -ec "cd /src && $*"' - "$tree" "${CARGO_HOME:-$HOME/.cargo}" "$@"
}

inside "EDGETHINK_REQUIRE_ISA=neoni8mm cargo test --locked --target $target -p edgethink-kernels"
inside "cargo test --locked --target $target -p edgethink-engine --test it -- exactness:: reference:: golden::"
# Without the tensor library, which training alone needs.
inside "cargo build --locked --target $target -p edgethink --no-default-features"
question="Tom has 14 apples. Anna has 5 more than Tom. Ben has twice as many as Anna. How many apples does Ben have?"
answer=$(inside "qemu-aarch64 -cpu max -L /usr/aarch64-linux-gnu /target/$target/debug/edgethink ask --think on \"$question\"")
echo "arm64 answers: $answer"
[[ $answer == *38* ]]
echo "arm64: kernels, exactness and ask passed"
