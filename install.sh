#!/usr/bin/env bash
# Tries banger out on a Debian machine (12 or newer, amd64), from a checkout of its source:
#
#   ./install.sh --try
#
# installs the Debian packages that it needs, builds it, makes a small Debian image and a kernel for its guests, and runs a
# first command in a VM. What is there already is not made again. Nothing is installed outside of the checkout, of banger's
# own directories (or BANGER_ROOT) and, if it is needed, ~/.cargo/bin/vhost-device-vsock, other than Debian's packages.
set -euo pipefail

rust_needed=91 # 1.91; Cargo.toml, rust-version
vsock_device=vhost-device-vsock

say() { printf 'install.sh: %s\n' "$*"; }
die() {
    printf 'install.sh: %s\n' "$*" >&2
    exit 1
}

usage() {
    cat <<'TEXT'
Usage: ./install.sh --try

Builds banger from this checkout on a Debian machine, makes what its VMs need, and runs a first command in one.
TEXT
}

# quietly MESSAGE COMMAND...: runs the command; if it fails, shows the end of what it said, and ends with the message.
quietly() {
    local message=$1
    shift
    "$@" >"$scratch/log" 2>&1 || {
        tail -n 20 "$scratch/log" >&2
        die "$message"
    }
}

# As root, through sudo where that is needed.
as_root() {
    if [ "$(id -u)" -eq 0 ]; then
        "$@"
    else
        sudo -- "$@"
    fi
}

check_machine() {
    [ -e src/main.rs ] || die "this is not banger's source; run it from a checkout: git clone it, then ./install.sh --try"
    local arch tool
    for tool in apt-get apt-cache dpkg dpkg-query; do
        command -v "$tool" >/dev/null ||
            die "this is not a Debian machine; on others, install QEMU, build with cargo, and import a kernel and an image by hand (README.md)"
    done
    arch=$(dpkg --print-architecture)
    [ "$arch" = amd64 ] || die "this machine is $arch; banger runs on amd64 so far"
    # shellcheck source=/dev/null
    codename=$(. /etc/os-release && printf '%s' "${VERSION_CODENAME:-}")
    [ -n "$codename" ] || die "/etc/os-release has no VERSION_CODENAME; is this Debian 12 or newer?"
    if [ "$(id -u)" -ne 0 ] && ! command -v sudo >/dev/null; then
        die "packages are installed as root; run this as root, or install sudo"
    fi
}

is_installed() { dpkg-query -W -f='${Status}' "$1" 2>/dev/null | grep -q 'ok installed'; }

# The package lists are fetched once, when something is to be had from them.
update_lists() {
    [ -z "${lists_updated:-}" ] || return 0
    say "updating the package lists"
    quietly "apt-get update failed; check this machine's network and /etc/apt" as_root apt-get update
    lists_updated=yes
}

install_packages() {
    local package missing=() firewall=()
    # Root's VMs have a network of their own, behind a firewall.
    [ "$(id -u)" -ne 0 ] || firewall=(nftables)
    for package in qemu-system-x86 mmdebstrap gcc libc6-dev make xz-utils ca-certificates "${firewall[@]}" "$@"; do
        is_installed "$package" || missing+=("$package")
    done
    [ "${#missing[@]}" -gt 0 ] || return 0
    update_lists
    say "installing ${missing[*]}"
    quietly "apt-get could not install ${missing[*]}" \
        as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends "${missing[@]}"
}

# The minor number of the Rust that builds here; nothing without one.
rust_minor() { (rustc --version 2>/dev/null || true) | sed -n 's/^rustc 1\.\([0-9]*\)\..*/\1/p'; }

is_new_enough() { [ "${1:-0}" -ge "$rust_needed" ] && command -v cargo >/dev/null; }

find_rust() {
    export PATH="$PATH:$HOME/.cargo/bin"
    is_new_enough "$(rust_minor)" && return
    if ! command -v rustup >/dev/null; then
        update_lists
        apt-cache show rustup >/dev/null 2>&1 ||
            die "Rust 1.$rust_needed or newer is needed; install it from https://rustup.rs, then run this again"
        install_packages rustup
    fi
    say "installing Rust's stable toolchain"
    quietly "rustup could not install the stable toolchain" rustup toolchain install stable --profile minimal
    export RUSTUP_TOOLCHAIN=stable
    hash -r
    is_new_enough "$(rust_minor)" ||
        die "Rust 1.$rust_needed or newer is needed, and $(command -v rustc || echo none) is older; put rustup's first on the PATH, then run this again"
}

# QEMU's vsock is the kernel's, where this user may open it, or else a program.
find_vsock() {
    # Opened to be read and written, `<>` would make a file where there is no device.
    if [ -c /dev/vhost-vsock ] && (: <>/dev/vhost-vsock) 2>/dev/null; then return; fi
    if command -v "$vsock_device" >/dev/null; then return; fi
    say "building $vsock_device, since this machine's /dev/vhost-vsock cannot be used (a few minutes)"
    quietly "cargo could not build $vsock_device" cargo install "$vsock_device" --locked
}

build() {
    say "building banger (a few minutes, the first time)"
    local host name
    host=$(rustc -vV | sed -n 's/^host: //p')
    cargo build --release --locked --quiet || die "banger does not build; its errors are above"
    bin=$(realpath "${CARGO_TARGET_DIR:-target}/$host/release")
    banger=$bin/banger
    [ -x "$banger" ] || die "cargo made no $banger; is build.target or CARGO_BUILD_TARGET set?"
    for name in bangerd bangerd-root banger-vsock; do
        ln -sfn banger "$bin/$name"
    done
}

import_kernel() {
    local package
    package=$(kernel_package)
    if [ -z "$package" ]; then
        update_lists
        package=$(kernel_package)
    fi
    [ -n "$package" ] || die "apt knows no kernel for clouds (linux-image-cloud-amd64); is Debian's main section in /etc/apt?"
    if "$banger" kernel show "${package#linux-image-}" >/dev/null 2>&1; then
        say "the kernel ${package#linux-image-} is there"
        return
    fi
    say "downloading $package"
    (cd "$scratch" && quietly "apt-get could not download $package; try again after apt-get update" apt-get download "$package")
    say "importing the kernel"
    "$banger" kernel import --deb "$(echo "$scratch"/linux-image-*.deb)" || die "the kernel could not be imported"
}

# The package that Debian's newest kernel for clouds is in.
kernel_package() {
    apt-cache depends linux-image-cloud-amd64 2>/dev/null | awk '/Depends: linux-image-/ {print $2; exit}'
}

# Called debian, it is what `vm run` takes without --image, as long as nobody has pulled debian-bookworm.
import_image() {
    if "$banger" image show debian >/dev/null 2>&1; then
        say "the image debian is there"
        return
    fi
    say "making an image of Debian $codename (a minute)"
    as_root mmdebstrap --quiet --variant=minbase "$codename" - 2>"$scratch/log" | "$banger" image import - --name debian || {
        tail -n 20 "$scratch/log" >&2
        die "the image could not be made"
    }
}

first_run() {
    say "running: banger vm run --rm --image debian -- uname -a"
    "$banger" vm run --rm --image debian -- uname -a || die "the first VM did not do it; see README.md, Troubleshooting"
    say "it works; a shell in a new VM:"
    printf '\n    %s vm run\n\n' "$banger"
    case ":$PATH:" in
    *":$bin:"*) ;;
    *) printf 'To call it banger, put it on the PATH:\n\n    export PATH="%s:%s"\n\n' "$bin" "\$PATH" ;;
    esac
}

case "${1:-}" in
--try) [ "$#" -eq 1 ] || { usage >&2; exit 2; } ;;
-h | --help)
    usage
    exit 0
    ;;
*)
    usage >&2
    say "there is no released binary to download yet; use ./install.sh --try in a checkout of the source" >&2
    exit 2
    ;;
esac

cd "$(dirname "$0")"
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
check_machine
install_packages
find_rust
find_vsock
build
import_kernel
import_image
first_run
