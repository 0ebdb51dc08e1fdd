#!/usr/bin/env bash
# Prepares the machine for tests/host, as root: what the web server has is in /srv/www by now, and /srv/kernel has a vmlinux.
set -euo pipefail
chmod -R a+rX /srv /opt
mkdir -p /srv/kernel/modules
cd "/lib/modules/$(uname -r)"
cp modules.order modules.builtin modules.builtin.modinfo /srv/kernel/modules
# VMs in a VM are slow. Of the kernel's thousand modules they get those that they load.
for module in virtio_mmio virtio_blk virtio_net virtio_rng ext4 dm_snapshot dm_zero vmw_vsock_virtio_transport; do
    modprobe --show-depends "$module"
done | sed -n 's/^insmod \([^ ]*\) *$/\1/p' | sort -u | while read -r file; do
    install -D -m 644 "$file" "/srv/kernel/modules/${file#/lib/modules/*/}"
done
