# Sourced by the suites that need a Debian tree: `skip WHY` ends a suite that cannot run here, `debian_tree RELEASE INSTALL` sets a tree
# up once. Expects the suite's name in `suite`; the tree is under target/.
# shellcheck shell=bash

# shellcheck disable=SC2154  # `suite` is the caller's.
tree=$PWD/target/$suite/debian

skip() {
    echo "tests/$suite: skipped, $1"
    exit 0
}

# $1: the release. $2: what a shell in the tree installs once its packages are known.
debian_tree() {
    [[ $(id -u) == 0 ]] || skip "setting up a Debian tree needs root"
    if ! command -v debootstrap >/dev/null; then
        command -v apt-get >/dev/null || skip "no debootstrap, and no apt-get to install it"
        apt-get update -qq && apt-get install -y -qq debootstrap
    fi
    [[ ! -e $tree/ready ]] || return 0
    # The mirror that this machine uses.
    local mirror
    mirror=$(sed -n -E '/^(URIs:|deb) /{s/^[^ ]+ +([^ ]+).*/\1/p;q}' /etc/apt/sources.list.d/*debian* /etc/apt/sources.list 2>/dev/null || true)
    [[ -n $mirror ]] || skip "no Debian mirror in /etc/apt"
    # debootstrap mounts /proc: in a mount namespace of its own, nothing stays mounted behind a stopped one.
    rm -rf --one-file-system "$tree"
    unshare --mount debootstrap --variant=minbase "$1" "$tree" "$mirror"
    cp /etc/resolv.conf "$tree/etc/"
    # A mirror may lag behind.
    echo 'Acquire::Check-Valid-Until "false";' >"$tree/etc/apt/apt.conf.d/10mirror"
    chroot "$tree" env DEBIAN_FRONTEND=noninteractive sh -ec "$2"
    touch "$tree/ready"
}
