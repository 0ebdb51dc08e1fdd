#!/usr/bin/env bash
# Makes the two images that tests/bench/import.sh measures with, as OCI layouts, from Debian packages; as root, once.
#
#   tests/bench/images.sh DIR
#
# DIR/small: Debian with systemd and sshd, one gzip layer: about 90 MB packed, 230 MB unpacked, 12,000 entries.
# DIR/large: the same and seven layers of packages above it: about 350 MB packed, 970 MB unpacked, 54,000 entries.
# Each is made under another name first, so what is there is complete.
set -euo pipefail
dir=$(mkdir -p "$1" && realpath "$1")
export PATH="$PATH:/usr/sbin:/sbin"
# shellcheck source=/dev/null
codename=$(. /etc/os-release && echo "$VERSION_CODENAME")
staged=$dir/.staged
rm -rf "$staged"
mkdir "$staged"
trap 'rm -rf "$staged"' EXIT

# The packages of one layer, unpacked as dpkg would onto a usr-merged root.
packages_tar() {
    local tar=$1 root=$staged/root debs=$staged/debs name
    shift
    rm -rf "$root" "$debs"
    mkdir -p "$root/usr" "$debs"
    (cd "$debs" && apt-get download -q "$@" >&2)
    for name in "$debs"/*.deb; do dpkg-deb -x "$name" "$root"; done
    for name in bin sbin lib lib64; do
        [ -d "$root/$name" ] || continue
        mkdir -p "$root/usr/$name"
        cp -a "$root/$name/." "$root/usr/$name/"
        rm -r "${root:?}/$name"
    done
    tar -C "$root" --sort=name --numeric-owner -cf "$tar" .
}

new_layout() {
    umoci init --layout "$1"
    umoci new --image "$1:bench"
}

if [ ! -e "$dir/base.tar" ]; then
    mmdebstrap -q --variant=minbase --include=systemd,systemd-sysv,dbus,locales,man-db,tmux,jq,openssh-server "$codename" "$staged/base.tar"
    mv "$staged/base.tar" "$dir/base.tar"
fi

if [ ! -e "$dir/small" ]; then
    new_layout "$staged/small"
    umoci raw add-layer --image "$staged/small:bench" "$dir/base.tar"
    mv "$staged/small" "$dir/small"
fi

if [ ! -e "$dir/large" ]; then
    headers=$(apt-cache depends linux-headers-amd64 | awk '/Depends: linux-headers-[0-9]/ {print $2; exit}')
    layers=(
        "golang-1.19-src"
        "$headers ${headers%-amd64}-common"
        "cpp-12 gcc-12 g++-12"
        "python3.11-doc"
        "gnat-12 libclang-cpp14"
        "vim-runtime git libruby3.1 groff git-man perl-doc"
        "libicu-dev iso-codes"
    )
    new_layout "$staged/large"
    umoci raw add-layer --image "$staged/large:bench" "$dir/base.tar"
    for names in "${layers[@]}"; do
        # shellcheck disable=SC2086 # names are words
        packages_tar "$staged/layer.tar" $names
        umoci raw add-layer --image "$staged/large:bench" "$staged/layer.tar"
    done
    mv "$staged/large" "$dir/large"
fi
