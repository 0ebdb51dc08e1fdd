#!/usr/bin/env bash
# How long an image import takes against `gzip -dc` of its layers, which is the least that any import could do with gzip's own
# inflate; against umoci unpack + mkfs.ext4 -d; and against arcbox-ext4, a crate that writes ext4 from layers. Rounds are
# interleaved, caches are warm, each import is a real one of a fresh bangerd; medians are printed. As root, on Debian.
#
#   tests/bench/import.sh [ROUNDS]
#
# BANGER_TEST_BINARY: the banger to measure (default: the release build). BANGER_BENCH_DIR: where the images are kept between
# runs, 1 GB (default: target/bench). The first run makes them from Debian packages, and builds arcbox-ext4 there.
set -euo pipefail
cd "$(dirname "$0")/../.."
dir=$(realpath -m "${BANGER_BENCH_DIR:-target/bench}")
BANGER_TEST_BINARY=$(realpath "${BANGER_TEST_BINARY:-$(ls target/*/release/banger)}")
export BANGER_TEST_BINARY PATH="$PATH:/usr/sbin:/sbin:$HOME/.cargo/bin" PYTHONDONTWRITEBYTECODE=1
tests/bench/images.sh "$dir"

# A program around arcbox-ext4, outside of this repository's build.
arcbox=$dir/arcbox
mkdir -p "$arcbox/src"
cat >"$arcbox/Cargo.toml" <<'TOML'
[package]
name = "arcbox"
version = "0.0.0"
edition = "2024"
[dependencies]
arcbox-ext4 = "=0.1.2"
flate2 = { version = "1", default-features = false, features = ["zlib-rs"] }
[profile.release]
codegen-units = 1
lto = "fat"
[workspace]
TOML
cat >"$arcbox/src/main.rs" <<'RUST'
//! arcbox OUT BYTES LAYER...: an ext4 file of so many bytes from gzipped layers.
use std::{env, fs::File, io::BufReader, path::Path};

fn main() {
    let args: Vec<String> = env::args().collect();
    let mut ext4 = arcbox_ext4::Formatter::new(Path::new(&args[1]), 4096, args[2].parse().unwrap()).unwrap();
    for layer in &args[3..] {
        let file = BufReader::with_capacity(256 << 10, File::open(layer).unwrap());
        ext4.unpack_tar(flate2::bufread::GzDecoder::new(file)).unwrap();
    }
    ext4.close().unwrap();
}
RUST
CARGO_TARGET_DIR=$arcbox/target cargo install --quiet --path "$arcbox" --root "$dir"
exec python3 tests/bench/import.py "$dir" "${1:-5}"
