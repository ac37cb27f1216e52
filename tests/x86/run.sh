#!/usr/bin/env bash
# Runs the kernel tests and the engine's exactness tests on AVX-512 with VNNI and on AVX-VNNI where the machine has none: in the Bochs emulator,
# as an Ice Lake and as an Arrow Lake. A Linux kernel boots in it with the tests, built here as static programs, in its initial memory disk.
#
# usage: run.sh [ISA ...]      of avx512vnni and avxvnni, even if the machine has them; without, those that it lacks
#
# Needs root on Debian or a system with debootstrap; says "skipped" otherwise. A Debian tree with the emulator is set up once under
# target/x86 (about 0.4 GB). It is Debian 13, with Bochs 3.0: in 2.7 (Debian 12) Linux finds a wrong size of the registers' state, and in
# 3.1 (sid) it dies of divide errors. Its Sapphire Rapids has AMX but not XFD, without which Linux does not boot on it, so that AMX is tested
# only on a machine that has it.
# shellcheck disable=SC2016  # What is in single quotes is expanded by the shell that it is given to.
set -euo pipefail
cd "$(dirname "$0")/../.."

suite=x86
# shellcheck source=tests/debian.sh
source tests/debian.sh
[[ $(uname -m) == x86_64 ]] || skip "emulation is for x86-64 machines"
declare -A flags=([avx512vnni]=avx512_vnni [avxvnni]=avx_vnni) models=([avx512vnni]=corei7_icelake_u [avxvnni]=arrow_lake)
sets=("$@")
if [[ $# == 0 ]]; then
    for isa in avx512vnni avxvnni; do
        grep -qw "${flags[$isa]}" /proc/cpuinfo || sets+=("$isa")
    done
fi
[[ ${#sets[@]} != 0 ]] || skip "this machine has these instruction sets: cargo test runs them"
for isa in "${sets[@]}"; do
    [[ -v models[$isa] ]] || { echo "$suite: $isa is neither avx512vnni nor avxvnni" >&2; exit 2; }
done
target=x86_64-unknown-linux-gnu
# Of the kernel's package only the kernel: it needs no modules.
debian_tree trixie '
    apt-get update -qq
    apt-get install -y -qq --no-install-recommends \
        bochs bochs-term bochsbios vgabios busybox-static cpio isolinux syslinux-common xorriso
    cd /tmp
    apt-get download -qq "$(apt-cache depends linux-image-cloud-amd64 | sed -n "s/^ *Depends: \(linux-image-.*\)/\1/p")"
    dpkg-deb --fsys-tarfile linux-image-*.deb | tar -x -C / --wildcards "./boot/vmlinuz-*"
    mv /boot/vmlinuz-* /vmlinuz
    rm linux-image-*.deb
    apt-get clean'

# What the guest has: the tests, busybox, and the golden files where the tests look for them.
guest=$tree/guest disc=$tree/disc
rm -rf "$guest" "$disc"
mkdir -p "$guest"/{dev,proc,tmp,kernels,engine} "$guest$PWD/crates/testkit" "$disc"
cp "$tree/bin/busybox" "$guest/"
cp -r golden "$guest$PWD/"
build() {
    local into=$1 program name
    shift
    RUSTFLAGS="-C target-feature=+crt-static" CARGO_INCREMENTAL=0 CARGO_PROFILE_DEV_DEBUG=0 \
        cargo test --locked --target $target --no-run --message-format=json "$@" |
        sed -n -E 's/.*"executable":"([^"]+)".*/\1/p' | while read -r program; do
            name=${program##*/}
            cp "$program" "$guest/$into/${name%-*}"
        done
}
build kernels -p edgethink-kernels --tests
build engine -p edgethink-engine --test it

cat >"$guest/init" <<'END'
#!/busybox sh
/busybox mount -t proc proc /proc
/busybox mount -t devtmpfs dev /dev
passed=1
/busybox grep -m1 '^model name' /proc/cpuinfo
read -r EDGETHINK_REQUIRE_ISA </isa
export EDGETHINK_REQUIRE_ISA
run() {
    echo "== $*"
    "$@"
    code=$?
    echo "exit code $code"
    [ $code = 0 ] || passed=
}
for program in /kernels/*; do run $program; done
run /engine/it exactness:: reference:: golden::
echo "guest: ${passed:+passed}"
# The serial port must be empty before the machine goes off.
/busybox sleep 1
/busybox poweroff -f
END
chmod +x "$guest/init"

cat >"$disc/isolinux.cfg" <<'END'
default linux
label linux
  kernel vmlinuz
  initrd initrd
  append console=ttyS0 quiet nokaslr mitigations=off panic=-1 reboot=triple
END
emulate() {
    local isa=$1
    echo "$isa" >"$guest/isa"
    cat >"$tree/bochsrc" <<END
display_library: term
cpu: model=${models[$isa]}, ips=100000000, ignore_bad_msrs=1, reset_on_triple_fault=0
memory: guest=2048, host=2048
romimage: file=\$BXSHARE/BIOS-bochs-latest, options=fastboot
vgaromimage: file=\$BXSHARE/VGABIOS-lgpl-latest
ata0-master: type=cdrom, path=/disc.iso, status=inserted
boot: cdrom
clock: sync=none
com1: enabled=1, mode=file, dev=/serial.log
log: /bochs.log
panic: action=fatal
error: action=report
info: action=ignore
END
    chroot "$tree" sh -ec '
        cp /vmlinuz /usr/lib/ISOLINUX/isolinux.bin /usr/lib/syslinux/modules/bios/ldlinux.c32 /disc/
        cd /guest
        find . | cpio --quiet -o -H newc >/disc/initrd
        xorriso -as mkisofs -quiet -o /disc.iso -b isolinux.bin -c boot.cat -no-emul-boot -boot-load-size 4 -boot-info-table /disc
        rm -f /serial.log'
    # Bochs ends with an error code in any case: powering off is a "panic" to it. What the guest said counts.
    unshare --mount sh -ec '
        mount -t proc proc "$1/proc"
        mount --rbind /dev "$1/dev"
        exec timeout --foreground --kill-after=10 30m chroot "$1" env -i PATH=/usr/bin:/bin TERM=dumb bochs -q -f /bochsrc' - "$tree" \
        </dev/null >"$tree/bochs.out" 2>&1 || true
    tr -d '\r' <"$tree/serial.log" | tee "$tree/guest-$isa.log"
    if ! grep -q '^guest: passed$' "$tree/guest-$isa.log"; then
        echo "$suite: $isa FAILED; what the emulator said is in $tree/bochs.log"
        exit 1
    fi
}
for isa in "${sets[@]}"; do
    emulate "$isa"
done
rm -rf "$guest" "$disc" "$tree/disc.iso"
echo "$suite: kernels and exactness passed on ${sets[*]}"
