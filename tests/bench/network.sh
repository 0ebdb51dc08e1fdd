#!/usr/bin/env bash
# What a VM's tap, port and rules cost, in process against ip -batch and nft -f -, and what removing 50 taps costs, at once against
# one by one. Fails where one VM takes longer than 2 ms or 50 taps longer than 100 ms.
#
#   tests/bench/network.sh [--release]     as root; in a network namespace of its own
set -euo pipefail
cd "$(dirname "$0")/../.."
cargo build --quiet --example network_bench "$@"
kind=debug
if [ "${1:-}" = --release ]; then kind=release; fi
echo "$kind build"
unshare -n target/*/"$kind"/examples/network_bench
