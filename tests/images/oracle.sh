#!/usr/bin/env bash
# Makes images with other people's tools (mmdebstrap's root, umoci, skopeo, GNU tar, busybox, setcap, setfacl), for the tests
# that compare what banger makes of them with what umoci makes of them (tests/oci/oracle). As root.
#
#   tests/images/oracle.sh PARTS
#
# PARTS holds minbase.tar and busybox.tar (tests/run.sh parts). Each image is an OCI layout PARTS/oracle/NAME with the tag t,
# made once, under a name that is complete or absent. To make one again, remove it.
set -euo pipefail
parts=$(realpath "$1")
export PATH="$PATH:/usr/sbin:/sbin" LC_ALL=C
umask 022
out=$parts/oracle
mkdir -p "$out"
staged=$(mktemp -d "$out/.staged.XXXX")
trap 'rm -rf "$staged"' EXIT

# once NAME FUNCTION: makes $out/NAME by `FUNCTION PATH`.
once() {
    [ -e "$out/$1" ] && return
    "$2" "$staged/$1"
    mv "$staged/$1" "$out/$1"
}

new_layout() {
    umoci init --layout "$1"
    umoci new --image "$1:t"
}

# add LAYOUT TAR...: the tars as they are, one layer each.
add() {
    local layout=$1 tar
    shift
    for tar in "$@"; do umoci raw add-layer --image "$layout:t" "$tar"; done
}

# change LAYOUT SCRIPT: a layer of what a script does in the unpacked root, as umoci packs it.
change() {
    local bundle=$staged/bundle
    umoci unpack --image "$1:t" "$bundle" >/dev/null
    (cd "$bundle/rootfs" && set -e && eval "$2")
    umoci repack --image "$1:t" "$bundle" >/dev/null
    rm -rf "$bundle"
}

copy() { skopeo copy -q --insecure-policy "$@"; }

debian() {
    new_layout "$1"
    add "$1" "$parts/minbase.tar"
}

# Layers that write, link and delete through the symlinks /bin, /sbin, /lib and /lib64 of a usr-merged root, without naming
# these: as images do that are built FROM it with COPY.
usr_merged() {
    local t=$staged/tree
    new_layout "$1"
    add "$1" "$parts/minbase.tar"
    rm -rf "$t" && mkdir -p "$t"/{bin,sbin,lib/systemd/system,lib/x86_64-linux-gnu,lib64}
    printf '#!/bin/sh\n' | tee "$t/bin/tool" "$t/sbin/toold" >/dev/null
    chmod 755 "$t/bin/tool" "$t/sbin/toold"
    ln "$t/bin/tool" "$t/lib/tool-too"
    printf '[Unit]\n' >"$t/lib/systemd/system/tool.service"
    head -c 50000 /dev/urandom >"$t/lib64/libtool.so"
    ln -s ../lib64/libtool.so "$t/lib/libtool.so.1"
    (cd "$t" && tar --numeric-owner --owner=0 --group=0 -cf "$staged/through.tar" --no-recursion bin/tool sbin/toold lib/tool-too \
        lib/systemd/system/tool.service lib64/libtool.so lib/libtool.so.1)
    rm -rf "$t" && mkdir -p "$t"/{bin,lib/terminfo/x,lib/udev}
    touch "$t/bin/.wh.tool" "$t/bin/.wh.more" "$t/lib/terminfo/.wh..wh..opq"
    echo terminal >"$t/lib/terminfo/x/xx"
    (cd "$t" && tar --numeric-owner --owner=0 --group=0 -cf "$staged/whiteouts.tar" --no-recursion bin/.wh.tool bin/.wh.more \
        lib/terminfo/.wh..wh..opq lib/terminfo/x lib/terminfo/x/xx)
    add "$1" "$staged/through.tar" "$staged/whiteouts.tar"
    # And one as a package manager leaves it: files replaced, a package's files gone, its database changed.
    change "$1" 'rm -r usr/share/doc/* usr/share/perl usr/bin/perl && ln -s /bin/true usr/bin/perl && echo x >>var/lib/dpkg/status &&
        rm usr/sbin/toold && mkdir usr/sbin/toold && chmod 700 root'
    # A directory in the place of the symlink itself is what containerd makes of it, too.
    rm -rf "$t" && mkdir -p "$t/lib64"
    echo own >"$t/lib64/own"
    (cd "$t" && tar --numeric-owner --owner=0 --group=0 -cf "$staged/own.tar" lib64)
    add "$1" "$staged/own.tar"
}

docker_archive() { copy "oci:$out/usr-merged:t" "docker-archive:$1:oracle/debian:12"; }
zstd_layers() { copy --dest-compress --dest-compress-format zstd "oci:$out/usr-merged:t" "oci:$1:t"; }

# Capabilities, set-id and sticky bits, ACLs, attributes of all sizes in all namespaces, and what later layers do to them.
attributes() {
    new_layout "$1"
    add "$1" "$parts/busybox.tar"
    # shellcheck disable=SC2016 # expanded in the tree
    change "$1" '
        cp bin/busybox bin/raw && setcap cap_net_raw+ep bin/raw
        cp bin/busybox bin/low-port && setcap cap_net_bind_service,cap_sys_ptrace=eip bin/low-port && ln bin/low-port bin/lower
        cp bin/busybox bin/as-root && chown 0:42 bin/as-root && chmod 6755 bin/as-root
        mkdir -p srv/shared srv/acl srv/deep/er && chmod 3775 srv/shared && chown 1000:50 srv/shared
        echo a >srv/acl/file && setfacl -m u:1000:rw,u:1001:r,g:50:rwx,m::rwx srv/acl/file
        echo b >srv/acl/none && setfacl -m u:4294967294:--- srv/acl/none
        setfacl -m u:1000:rwx,d:u:1000:rwx,d:g:50:r-x,d:o::--- srv/acl && echo inherits >srv/acl/inherits && mkdir srv/acl/sub
        setfacl -d -m u:7:rw srv/deep
        echo c >srv/user && setfattr -n user.comment -v "a comment" srv/user
        setfattr -n user.bytes -v 0x000aff3d0d00 srv/user && setfattr -n "user.with space" -v x srv/user
        setfattr -n trusted.thing -v 1 srv/user && setfattr -n security.other -v 2 srv/user
        setfattr -n user.on-dir -v d srv/deep && setfattr -h -n trusted.on-link -v l sbin/init
        mkfifo srv/pipe && setfattr -h -n trusted.on-fifo -v f srv/pipe
        mknod srv/null c 1 3 && setfattr -h -n trusted.on-device -v v srv/null
        for n in 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20; do touch "srv/many$n"
            for m in 1 2 3 4 5 6 7 8 9; do setfattr -n "user.attribute$m" -v "value $m" "srv/many$n"; done; done
        big=$(head -c 3600 /dev/zero | tr "\0" x)
        for n in 1 2 3; do touch "srv/big$n" && setfattr -n user.big -v "$big$n" "srv/big$n"; done
        touch srv/long-name && setfattr -n "user.$(head -c 250 /dev/zero | tr "\0" n)" -v long srv/long-name
        chmod 1777 . && setfattr -n user.root -v r . && chown 3:4 .'
    change "$1" '
        setfattr -x user.comment srv/user && setfacl -b srv/acl/file && setfacl -k srv/acl && chmod 0 srv/big1
        setcap -r bin/raw && chmod u-s bin/as-root && chown 5:6 srv/shared && chmod 2770 srv/shared && touch -h -d 2001-02-03 sbin/init
        setfattr -n user.late -v late srv/deep && chown 7:8 srv/big2 && chmod 0751 .'
}

# Files with holes of all kinds, of one time.
holes() {
    mkdir -p "$1"
    python3 - "$1" <<'PYTHON'
import os, sys
def sparse(name, size, chunks):
    path = os.path.join(sys.argv[1], name)
    with open(path, "wb") as f:
        for at, data in chunks:
            f.seek(at)
            f.write(data)
        f.truncate(size)
    os.utime(path, (1700000000, 1700000000))
G, K = 1 << 30, 1024
noise = bytes((i * 2654435761 >> 13) & 255 for i in range(64 * K))
sparse("five", 5 * G + 123, [(0, noise), (G - 5, noise), (4 * G + 4096, noise), (5 * G, b"end")])
sparse("hole", 64 << 20, [])
sparse("head", 8 << 20, [(0, b"x")])
sparse("tail", (8 << 20) + 1, [(8 << 20, b"x")])
sparse("comb", 48 << 20, [(n * 16 * K, noise[n % 7:][:4096]) for n in range(3000)])
sparse("dense", 100000, [(0, noise), (64 * K, noise[:100000 - 64 * K])])
PYTHON
}

# pack TAR OPTION...: the files with holes, but for the one of 5 GiB, below a directory that is the tar's name.
pack() {
    local tar=$1
    shift
    (cd "$staged/holes" && tar --numeric-owner --owner=0 --group=0 --transform "s,^,$(basename "$tar" .tar)/," "$@" -cf "$tar" \
        hole head tail comb dense)
}

# GNU tar's three PAX ways to keep holes, and umoci's, which has none. 5 GiB take longest, so one way only.
sparse() {
    local version
    new_layout "$1"
    for version in 0.0 0.1 1.0; do
        pack "$staged/way-$version.tar" --sparse --format=posix --sparse-version=$version
        add "$1" "$staged/way-$version.tar"
    done
    change "$1" "mkdir umoci && cp --sparse=always -t umoci $staged/holes/{hole,head,tail,comb,dense}"
    (cd "$staged/holes" && tar --numeric-owner --owner=0 --group=0 --sparse --format=posix -cf "$staged/five.tar" five)
    add "$1" "$staged/five.tar"
}

# GNU tar's own way, which umoci and containerd refuse; and the same files without any, for umoci.
sparse_gnu() {
    new_layout "$1"
    pack "$staged/way.tar" --sparse --format=gnu
    add "$1" "$staged/way.tar"
}

not_sparse() {
    new_layout "$1"
    pack "$staged/way.tar" --format=gnu
    add "$1" "$staged/way.tar"
}

once debian debian
once usr-merged usr_merged
once debian.docker.tar docker_archive
once usr-merged-zstd zstd_layers
once attributes attributes
for name in sparse sparse-gnu not-sparse; do
    [ -e "$out/$name" ] || [ -d "$staged/holes" ] || holes "$staged/holes"
done
once sparse sparse
once sparse-gnu sparse_gnu
once not-sparse not_sparse
