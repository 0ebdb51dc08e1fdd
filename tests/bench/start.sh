#!/usr/bin/env bash
# What the network costs a start: `banger vm start`, until the guest is ready, with a tap, a port of the bridge, firewall, name and jail ("bridge"),
# against the same without any network ("none"), and with QEMU's user-mode network ("user"), where the guest has as much to do as on
# the bridge, and the host nothing. In a network namespace of its own; rounds are interleaved; medians are printed.
#
#   tests/bench/start.sh [ROUNDS]     as root, after tests/run.sh e2e has made the parts (BANGER_TEST_DIR, target/test-parts)
set -euo pipefail
cd "$(dirname "$0")/../.."
[ -n "${IN_NAMESPACE:-}" ] || IN_NAMESPACE=yes exec unshare -n "$0" "$@"
rounds=${1:-15}
parts=$(realpath "${BANGER_TEST_DIR:-target/test-parts}")
banger=$(realpath "${BANGER_TEST_BINARY:-$(ls target/*/release/banger)}")
export PATH="$parts/tools/bin:$PATH:$HOME/.cargo/bin" BANGER_ACCEL=tcg BANGER_VMM=qemu
work=$(mktemp -d "$parts/bench.XXXX")
trap 'for r in bridge user; do BANGER_ROOT=$work/$r "$banger" daemon stop >/dev/null 2>&1 || true; done; rm -rf "$work"' EXIT
ip link set lo up
for r in bridge user; do
    mkdir -p "$work/$r/config"
    cp -al "$parts/seed/state" "$work/$r/state"
    rm "$work/$r/state/banger.redb"
    cp "$parts/seed/state/banger.redb" "$work/$r/state/"
done
echo "network = 'user'" >"$work/user/config/config.toml"

in_root() { BANGER_ROOT=$work/${1/none/user} "$banger" "${@:2}"; }
start() { in_root "$1" vm start -q "$1"; }
timed() { local begin end; begin=$(date +%s%N); "$@" </dev/null >/dev/null 2>"$work/log" || { cat "$work/log" >&2; exit 1; }; end=$(date +%s%N); echo $(((end - begin) / 1000000)); }
median() { sort -n | awk '{v[NR] = $1} END {print (NR % 2) ? v[(NR + 1) / 2] : int((v[NR / 2] + v[NR / 2 + 1]) / 2)}'; }

for r in none user bridge; do
    nat=(--nat)
    [ "$r" != none ] || nat=()
    in_root "$r" vm create -q --no-start --name "$r" "${nat[@]}" --vcpu 1 --memory 512M --image busybox >/dev/null
    start "$r" >/dev/null # the daemons are up, the bridge is there
    in_root "$r" vm kill -q "$r" >/dev/null
done
for _ in $(seq "$rounds"); do
    for r in none user bridge; do
        timed start "$r" >>"$work/$r.ms"
        in_root "$r" vm kill -q "$r" >/dev/null
    done
done
for r in none user bridge; do echo "$r: $(tr '\n' ' ' <"$work/$r.ms")ms, median $(median <"$work/$r.ms") ms"; done
