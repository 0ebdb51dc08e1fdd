#!/usr/bin/env bash
# The host that tests/host installs banger on: a Debian 12 with systemd, resolved, nftables and QEMU, from Debian's own packages.
#
#   tests/images/host.sh OUT.tar           its root file system
#
# As root, on a machine with mmdebstrap.
set -euo pipefail
umask 022

# What banger needs of a host, what install.sh does, and what the tests look at the machine with. No network of its own: whatever
# serves releases there is on loopback.
packages=(
    systemd systemd-sysv dbus libpam-systemd udev systemd-resolved kmod sudo curl ca-certificates openssl nftables iproute2
    procps qemu-system-x86 git openssh-client bash-completion jq python3
)

build_tar() {
    local out=$1
    # A third of it: what nobody reads there, and firmware of other processors and boot ROMs of network cards.
    local unread=(--dpkgopt='path-exclude=/usr/share/man/*' --dpkgopt='path-exclude=/usr/share/info/*'
        --dpkgopt='path-exclude=/usr/share/locale/*' --dpkgopt='path-exclude=/usr/share/doc/*'
        --dpkgopt='path-exclude=/usr/share/qemu/*.lid' --dpkgopt='path-exclude=/usr/share/qemu/openbios-*'
        --dpkgopt='path-exclude=/usr/share/qemu/slof.bin' --dpkgopt='path-exclude=/usr/lib/ipxe/*'
        --dpkgopt='path-exclude=/usr/lib/udev/hwdb.d/*')
    mmdebstrap --quiet --variant=minbase --architectures=amd64 --include="$(IFS=,; echo "${packages[*]}")" "${unread[@]}" \
        --customize-hook="bash '$(realpath "$0")' --configure \"\$1\"" bookworm "$out"
}

# Called by mmdebstrap when all packages are there.
configure() {
    local root=$1 unit
    chroot "$root" useradd --create-home --shell /bin/bash dev
    chroot "$root" useradd --create-home --shell /bin/bash other
    echo 'dev ALL=(ALL) NOPASSWD: ALL' >"$root/etc/sudoers.d/dev"
    chmod 440 "$root/etc/sudoers.d/dev"
    # What a machine without a network, whose life is minutes, need not do; emulated, each of them is seconds.
    for unit in apt-daily.timer apt-daily-upgrade.timer dpkg-db-backup.timer e2scrub_all.timer e2scrub_reap.service fstrim.timer \
        systemd-timesyncd.service systemd-hwdb-update.service systemd-pcrphase.service systemd-pcrphase-sysinit.service \
        systemd-firstboot.service ldconfig.service; do
        ln -sf /dev/null "$root/etc/systemd/system/$unit"
    done
    chroot "$root" systemctl --quiet enable systemd-resolved.service
    ln -sf /run/systemd/resolve/stub-resolv.conf "$root/etc/resolv.conf"
    # A power cut is one of the tests: what was said before it is wanted after it.
    mkdir -p "$root/var/log/journal"
    rm "$root/etc/hostname"
    echo host >"$root/etc/hostname"
    printf '127.0.0.1 localhost\n::1 localhost\n' >"$root/etc/hosts"
    : >"$root/etc/machine-id"

    chroot "$root" apt-get clean
    find "$root/var/lib/apt/lists" -type f -delete
    find "$root/var/log" -type f -delete
    # Written when a program is first run; it would be a change of the file tree that nobody has asked for.
    find "$root/usr/lib/python3" "$root/usr/lib/python3.11" -name __pycache__ -prune -exec rm -rf {} +
    rm -f "$root"/var/cache/debconf/*-old "$root"/var/lib/dpkg/*-old "$root"/etc/*-
}

case "${1:-}:$#" in
--configure:2) configure "$2" ;;
*.tar:1) build_tar "$1" ;;
*)
    echo "usage: tests/images/host.sh OUT.tar" >&2
    exit 2
    ;;
esac
