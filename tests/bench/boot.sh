#!/usr/bin/env bash
# How long `banger vm run --rm -- true` takes against the fastest bare boot of the same kernel that we know: QEMU's microvm
# under emulation with an /init that loads the same modules and powers off at once. Rounds are interleaved, so that what
# else the machine does falls on both; medians and their ratio are printed.
#
#   tests/bench/boot.sh [ROUNDS]     after tests/run.sh e2e has made the parts (BANGER_TEST_DIR, target/test-parts)
set -euo pipefail
cd "$(dirname "$0")/../.."
rounds=${1:-7}
parts=$(realpath "${BANGER_TEST_DIR:-target/test-parts}")
banger=$(realpath "${BANGER_TEST_BINARY:-$(ls target/*/release/banger)}")
export PATH="$parts/tools/bin:$PATH:$HOME/.cargo/bin"
work=$(mktemp -d "$parts/bench.XXXX")
export BANGER_ROOT=$work/root BANGER_ACCEL=tcg BANGER_VMM=qemu
trap '"$banger" daemon stop >/dev/null 2>&1 || true; rm -rf "$work"' EXIT
mkdir "$work/root"
cp -a "$parts/seed/state" "$work/root/state"
mkdir "$work/root/config"
# Without a bridge: that is measured by start.sh.
echo "network = 'user'" >"$work/root/config/config.toml"
kernels=("$work"/root/state/kernels/*/)
kernel=${kernels[0]}

mkdir "$work/initrd"
gcc -static -O2 -s -o "$work/initrd/init" tests/bench/bare_init.c
(cd "$work/initrd" && mkdir dev && cpio -i -d --quiet <"$kernel/modules.cpio" && find . | cpio -o -H newc --quiet >"$work/bare.cpio")
khz=$(awk -F: '/^cpu MHz/ {printf "%d", $2 * 1000; exit}' /proc/cpuinfo)

bare() {
    qemu-system-x86_64 -M microvm,acpi=on -accel tcg,tb-size=1024 -cpu max -smp 1 -m 512 -nodefaults -no-user-config -display none \
        -no-reboot -kernel "$kernel/vmlinux" -initrd "$work/bare.cpio" -append "tsc_early_khz=$khz quiet loglevel=0 \
cryptomgr.notests mitigations=off nokaslr initcall_blacklist=load_system_certificate_list,init_kprobe_trace"
}
ours() { "$banger" vm run -q --rm --vcpu 1 --memory 512M --image busybox -- true; }
timed() { local begin end; begin=$(date +%s%N); "$@" </dev/null >/dev/null 2>"$work/log" || { cat "$work/log" >&2; exit 1; }; end=$(date +%s%N); echo $(((end - begin) / 1000000)); }
median() { sort -n | awk '{v[NR] = $1} END {print (NR % 2) ? v[(NR + 1) / 2] : int((v[NR / 2] + v[NR / 2 + 1]) / 2)}'; }

ours >/dev/null # the daemon is up, the initramfs is made
for _ in $(seq "$rounds"); do
    timed bare >>"$work/bare"
    timed ours >>"$work/ours"
done
b=$(median <"$work/bare") o=$(median <"$work/ours")
echo "bare boot, $rounds rounds: $(tr '\n' ' ' <"$work/bare")ms, median $b ms"
echo "vm run --rm -- true:      $(tr '\n' ' ' <"$work/ours")ms, median $o ms"
echo "ratio: $(awk -v o="$o" -v b="$b" 'BEGIN {printf "%.2f", o / b}')"
