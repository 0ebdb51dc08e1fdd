#!/usr/bin/env bash
# Installs what the tests need on a Debian machine (as root), makes the images that they boot, and runs all of them:
# formatting, lints, scripts, unit tests, then the lane on real parts (real VMs, a real registry, its own namespaces).
#
#   tests/run.sh              everything
#   tests/run.sh e2e [NAME]   only the lane on real parts, only tests whose name contains NAME
#   tests/run.sh host [NAME]  only the lane on a machine with systemd, where banger is installed, updated and taken back
#   tests/run.sh parts        only install and make the parts
#
# BANGER_TEST_DIR: where the parts are kept between runs (default: target/test-parts).
# BANGER_TEST_FIRECRACKER_DIR: a directory with firecracker and jailer, both root's own, on a host with KVM; without it those tests stay ignored.
set -euo pipefail
cd "$(dirname "$0")/.."
parts=$(realpath -m "${BANGER_TEST_DIR:-target/test-parts}")
lane=${1:-all}
filter=${2:-}
export PATH="$parts/tools/bin:$PATH:/usr/sbin:/sbin:$HOME/.cargo/bin"
export CARGO_TERM_COLOR=never
mkdir -p "$parts/tools"

say() { printf '\n== %s\n' "$*"; }

install_packages() {
    local need=(qemu-system-x86 mmdebstrap skopeo umoci docker-registry busybox-static e2fsprogs
        acl attr libcap2-bin python3 bsdutils wget
        gcc libc6-dev xz-utils zstd tar cpio kmod git file strace tmux openssl dnsmasq-base iproute2 util-linux shellcheck zsh fish
        nftables iptables tcpdump bind9-dnsutils iputils-ping curl procps netcat-openbsd
        openssh-client rsync groff)
    local missing=()
    for package in "${need[@]}"; do
        dpkg-query -W -f='${Status}' "$package" 2>/dev/null | grep -q 'ok installed' || missing+=("$package")
    done
    if [ "${#missing[@]}" -gt 0 ]; then
        say "installing ${missing[*]}"
        apt-get update -q
        DEBIAN_FRONTEND=noninteractive apt-get install -q -y --no-install-recommends "${missing[@]}"
    fi
}

install_tools() {
    if ! command -v cargo >/dev/null; then
        echo "cargo is missing; install Rust 1.91 or newer (https://rustup.rs), then run this again" >&2
        exit 1
    fi
    command -v cargo-nextest >/dev/null ||
        { say "building cargo-nextest"; cargo install cargo-nextest --locked --root "$parts/tools"; }
    command -v vhost-device-vsock >/dev/null ||
        { say "building vhost-device-vsock"; cargo install vhost-device-vsock --locked --root "$parts/tools"; }
    # Tests run VMs as users who may not look into root's home.
    local device
    device=$(command -v vhost-device-vsock)
    [ "$device" = "$parts/tools/bin/vhost-device-vsock" ] || install -D -m 755 "$device" "$parts/tools/bin/vhost-device-vsock"
}

# The guests' parts: a kernel package, and root file systems as tars. Each is made once, under a name that is complete or absent.
make_parts() {
    local codename
    # shellcheck source=/dev/null
    codename=$(. /etc/os-release && echo "$VERSION_CODENAME")
    if ! ls "$parts"/linux-image-*.deb >/dev/null 2>&1; then
        say "downloading a kernel package"
        local package
        package=$(apt-cache depends linux-image-cloud-amd64 | awk '/Depends: linux-image-/ {print $2; exit}')
        [ -n "$package" ] || { apt-get update -q; package=$(apt-cache depends linux-image-cloud-amd64 | awk '/Depends: linux-image-/ {print $2; exit}'); }
        (cd "$parts" && apt-get download -q "$package")
    fi
    make_tar minbase mmdebstrap -q --variant=minbase "$codename"
    make_tar systemd mmdebstrap -q --variant=minbase --include=systemd,systemd-sysv,dbus "$codename"
    make_tar sshd mmdebstrap -q --variant=minbase --include=openssh-server,rsync,git,procps "$codename"
    make_tar firewalls mmdebstrap -q --variant=minbase \
        --include=ufw,firewalld,iptables,nftables,iproute2,dbus,curl,iputils-ping,procps,bind9-dnsutils "$codename"
    make_tar busybox make_busybox
    make_tar scratch make_scratch
    make_tar golden tests/images/golden.sh
    make_tar host tests/images/host.sh
    say "making the images that imports are compared on"
    tests/images/oracle.sh "$parts"
}

# make_tar NAME COMMAND...: $parts/NAME.tar, by a command that takes the file's name as its last argument.
make_tar() {
    local name=$1
    shift
    [ -e "$parts/$name.tar" ] && return
    say "making $name.tar"
    rm -f "$parts/.staged-$name.tar"
    "$@" "$parts/.staged-$name.tar"
    mv "$parts/.staged-$name.tar" "$parts/$name.tar"
}

make_busybox() {
    local root
    root=$(mktemp -d)
    mkdir -p "$root"/{bin,sbin,etc,root,tmp}
    # mktemp makes it for its owner only, and the image has its mode.
    chmod 755 "$root"
    chmod 1777 "$root/tmp"
    cp /bin/busybox "$root/bin/busybox"
    chroot "$root" /bin/busybox --install -s /bin
    ln -s ../bin/busybox "$root/sbin/init"
    printf 'root:x:0:0:root:/root:/bin/sh\napp:x:1000:1000:App:/home/app:/bin/sh\n' >"$root/etc/passwd"
    printf 'root:x:0:\napp:x:1000:\nstaff:x:50:app\n' >"$root/etc/group"
    tar -C "$root" --numeric-owner -cf "$1" .
    rm -rf "$root"
}

make_scratch() {
    local root
    root=$(mktemp -d)
    printf '%s\n' '#include <stdio.h>' '#include <unistd.h>' \
        'int main(int n, char **a) { printf("hello from scratch, uid %d\n", (int)getuid()); return n > 1 ? 42 : 0; }' >"$root/hello.c"
    gcc -static -O2 -s -o "$root/hello" "$root/hello.c"
    rm "$root/hello.c"
    tar -C "$root" --numeric-owner -cf "$1" hello
    rm -rf "$root"
}

checks() {
    say "formatting, lints, scripts"
    cargo fmt --check
    cargo clippy --quiet --all-targets -- -D warnings
    shellcheck install.sh tests/run.sh .ci/run tests/bench/*.sh tests/images/*.sh tests/network/*.sh tests/host/*.sh tests/fuzz/*.sh
    say "unit tests"
    cargo nextest run --config-file tests/nextest.toml --no-fail-fast
}

# What every test begins with: the kernel and the images, imported by the binary under test.
make_seed() {
    say "importing the kernel and the images"
    rm -rf "$parts/seed" "$parts/rigs"
    mkdir -p "$parts/seed"
    local banger=(env BANGER_ROOT="$parts/seed" "$BANGER_TEST_BINARY")
    "${banger[@]}" kernel import --deb "$(ls "$parts"/linux-image-*.deb)"
    local name
    for name in busybox minbase systemd sshd scratch golden; do
        "${banger[@]}" image import "$parts/$name.tar" --name "$name"
    done
    "${banger[@]}" daemon stop
}

# The guests run the release binary: what is shipped is what is tested, and it boots faster.
real_parts() {
    say "building the release binary"
    cargo build --quiet --release
    say "tests on real parts"
    export BANGER_TEST_PARTS=$parts
    BANGER_TEST_BINARY=$(realpath target/*/release/banger)
    export BANGER_TEST_BINARY
    make_seed
    # What needs a host with more than this lane brings stays ignored, and says why in its attribute.
    local expression='binary(e2e) | binary(oci) | binary(kernel_boot) | binary(cli) | binary(catalog) | binary(release) | binary(update) | test(kernel::import) | test(catalog::signature)'
    if grep -q vsock_loopback /proc/modules; then expression="$expression | test(the_kernels_vsock)"; fi
    if [ -n "${BANGER_TEST_FIRECRACKER_DIR:-}" ]; then expression="$expression | binary(firecracker)"; fi
    if [ -n "$filter" ]; then expression="($expression) and test($filter)"; fi
    cargo nextest run --config-file tests/nextest.toml --no-fail-fast --run-ignored only -E "$expression"
    say "tests in a network namespace of their own"
    local private='test(netlink) | binary(network) | binary(root) | (binary(jail) and not (test(real_firecracker) | test(with_kvm)))'
    if [ -n "${BANGER_TEST_FIRECRACKER_DIR:-}" ]; then private="$private | test(real_firecracker)"; fi
    if [ -c /dev/vhost-vsock ] && grep -qE 'vmx|svm' /proc/cpuinfo; then private="$private | test(with_kvm)"; fi
    unshare -n "$(command -v cargo)" nextest run --config-file tests/nextest.toml --offline --no-fail-fast --run-ignored only -E "$private"
}

# Three versions that differ in nothing else, and the key that judges their releases.
make_versions() {
    local dir=$parts/host version
    mkdir -p "$dir"
    if ! [ -e "$dir/key.pub.pem" ]; then
        openssl genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-256 -out "$dir/key.pem"
        openssl pkey -in "$dir/key.pem" -pubout -out "$dir/key.pub.pem"
    fi
    for version in 0.0.1 0.0.2 0.0.3; do
        say "building version $version"
        BANGER_BUILD_VERSION=$version BANGER_RELEASE_KEYS=$dir/key.pub.pem cargo build --quiet --profile trial --bin banger
        install -D "$(realpath target/*/trial/banger)" "$dir/$version/banger"
    done
}

# The machine of each test has one processor, so that they run side by side.
on_a_host() {
    make_versions
    say "tests on a machine with systemd"
    local expression='binary(host)'
    if [ -n "$filter" ]; then expression="($expression) and test($filter)"; fi
    BANGER_TEST_PARTS=$parts BANGER_TEST_BINARY=$parts/host/0.0.2/banger \
        cargo nextest run --config-file tests/nextest.toml --no-fail-fast --run-ignored only -E "$expression"
}

install_packages
install_tools
make_parts
case $lane in
all)
    checks
    real_parts
    on_a_host
    ;;
e2e) real_parts ;;
host) on_a_host ;;
parts) echo "the parts are in $parts" ;;
*) echo "tests/run.sh: $lane is no lane; use all, e2e, host or parts" >&2; exit 2 ;;
esac
