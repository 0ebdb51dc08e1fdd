#!/usr/bin/env bash
# The golden image: a Debian 12 to develop in, with systemd, sshd, git, tmux, jq, docker and compilers, from Debian's own packages.
#
#   tests/images/golden.sh OUT.tar         its root file system
#   tests/images/golden.sh OUT.tar.zst     a bundle for a catalog, and the root file system beside it as OUT.tar
#
# As root, on a machine with mmdebstrap. BANGER: the banger that packs the bundle (default: the one on the PATH).
# SOURCE_DATE_EPOCH: the newest time that a file in it may bear (default: now). With the same one and the same packages on the mirror,
# the same bytes come out.
set -euo pipefail
umask 022

# What it is for; and what these need that Debian only recommends: sessions for logins, the parser of the profile that docker gives its
# containers, the loader of the modules that its firewall rules are, certificates for git over https, a resolver of the machine's own
# name; ip, ps and less for whoever looks around.
packages=(
    systemd systemd-sysv dbus udev openssh-server git tmux jq docker.io build-essential
    libpam-systemd apparmor kmod ca-certificates curl libnss-myhostname iproute2 procps less
)

build_tar() {
    local out=$1
    # What nobody reads in a machine for a day: it would be a fifth of the image.
    local unread=(--dpkgopt='path-exclude=/usr/share/man/*' --dpkgopt='path-exclude=/usr/share/info/*'
        --dpkgopt='path-exclude=/usr/share/locale/*' --dpkgopt='path-exclude=/usr/share/doc/*'
        --dpkgopt='path-include=/usr/share/doc/*/copyright')
    mmdebstrap --quiet --variant=minbase --architectures=amd64 --include="$(IFS=,; echo "${packages[*]}")" "${unread[@]}" \
        --customize-hook="bash '$(realpath "$0")' --configure \"\$1\"" bookworm "$out"
}

# Called by mmdebstrap when all packages are there: what makes one machine out of many.
configure() {
    local root=$1
    # Made by each machine for itself, at its first boot. One key is enough for every ssh since 2014, and made at once; RSA's takes an
    # emulated guest many seconds.
    rm -f "$root"/etc/ssh/ssh_host_*
    cat >"$root/etc/systemd/system/ssh-host-key.service" <<'UNIT'
[Unit]
Description=Make this machine's SSH host key
ConditionPathExists=!/etc/ssh/ssh_host_ed25519_key
Before=ssh.service

[Service]
Type=oneshot
ExecStart=/usr/bin/ssh-keygen -q -t ed25519 -N "" -f /etc/ssh/ssh_host_ed25519_key

[Install]
RequiredBy=ssh.service
UNIT
    chroot "$root" systemctl --quiet enable ssh-host-key.service
    cat >"$root/etc/ssh/sshd_config.d/golden.conf" <<'CONF'
HostKey /etc/ssh/ssh_host_ed25519_key
PasswordAuthentication no
KbdInteractiveAuthentication no
CONF
    # For logins, and for shells that come from the host.
    echo 'LANG=C.UTF-8' >"$root/etc/default/locale"
    # shellcheck disable=SC2016
    echo 'export LANG="${LANG:-C.UTF-8}"' >"$root/etc/profile.d/locale.sh"
    # The host's, which mmdebstrap has copied for itself.
    rm "$root/etc/hostname" "$root/etc/resolv.conf"
    echo debian >"$root/etc/hostname"
    printf '127.0.0.1 localhost\n::1 localhost ip6-localhost ip6-loopback\n' >"$root/etc/hosts"
    # Empty, not absent: it is no machine's first boot in systemd's sense, which would reset what is enabled (machine-id(5)).
    : >"$root/etc/machine-id"

    chroot "$root" apt-get clean
    find "$root/var/lib/apt/lists" -type f -delete
    find "$root/var/log" -type f -delete
    rm -f "$root"/var/cache/debconf/*-old "$root"/var/lib/dpkg/*-old "$root"/etc/*-
}

build_bundle() {
    local out=$1 tar=${1%.zst}
    build_tar "$tar"
    "${BANGER:-banger}" internal make-bundle --rootfs-tar "$tar" --name debian-bookworm --distro debian --arch amd64 \
        --description "Debian 12 with systemd, sshd, git, tmux, jq, docker and compilers" --out "$out"
}

case "${1:-}:$#" in
--configure:2) configure "$2" ;;
*.tar:1) build_tar "$1" ;;
*.tar.zst:1) build_bundle "$1" ;;
*)
    echo "usage: tests/images/golden.sh OUT.tar|OUT.tar.zst" >&2
    exit 2
    ;;
esac
