#!/usr/bin/env bash
# tests/fuzz/run.sh [MINUTES [TARGET...]]: fuzzes each target, or these, for so many minutes (8), one after the other. As root, `copy` may do most.
#
# What is found on the way stays in target/corpus, what breaks a target in artifacts/TARGET.
set -euo pipefail
cd "$(dirname "$0")"
minutes=${1:-8}
shift $(($# > 0))
command -v cargo-fuzz >/dev/null || cargo install cargo-fuzz --locked
rustup toolchain list | grep -q ^nightly || rustup toolchain install nightly --profile minimal
targets=("$@")
[ $# -gt 0 ] || mapfile -t targets < <(cargo fuzz list --fuzz-dir .)
for target in "${targets[@]}"; do
    mkdir -p "target/corpus/$target"
    cargo +nightly fuzz run --fuzz-dir . "$target" "target/corpus/$target" "corpus/$target" -- \
        -max_total_time=$((minutes * 60)) -rss_limit_mb=2048 -timeout=10 -max_len=16384 -len_control=0
done
