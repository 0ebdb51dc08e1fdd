#!/usr/bin/env bash
# Prints what there is of banger's installation on this machine, a line each; run as root, by tests/host. Mostly by other means than
# banger's own, and changes nothing.
set -u
cd /usr/local/bin || exit 1

# The digest of a file, or what is there instead.
digest() { if [ -f "$1" ]; then sha256sum <"$1" | cut -d ' ' -f 1; else echo none; fi; }

echo "banger: $(digest banger) $(stat -c '%A %U:%G' banger 2>/dev/null)"
echo "previous: $(digest banger.previous)"
for link in bangerd bangerd-root banger-vsock; do echo "$link: $(readlink "$link" || echo none)"; done
for unit in bangerd.service bangerd-root.service bangerd-root.socket; do
    echo "$unit: $(systemctl is-active "$unit") $(systemctl is-enabled "$unit" 2>/dev/null)"
done
echo "units to reload: $(for unit in bangerd.service bangerd-root.service bangerd-root.socket banger-recover.service; do
    systemctl show -P NeedDaemonReload "$unit"; done | sort -u)"
echo "install.toml: $(sed -n 's/^version = //p' /etc/banger/install.toml 2>/dev/null | tr -d "\"'")"
echo "daemon: $(runuser -u dev -- ./banger daemon status --json 2>&1 | jq -r .version 2>&1)"
echo "journal: $(digest /var/lib/banger-root/update.json)"
echo "staging: $(find /var/cache/banger/updates -mindepth 1 2>/dev/null | wc -l)"
# QEMU of the one VM: its pid and when it was started, in ticks since boot (proc(5)).
echo "vm: $(for pid in $(pgrep qemu-system); do echo "$pid $(sed 's/.*) //' "/proc/$pid/stat" | cut -d ' ' -f 20)"; done)"
echo "exec: $(runuser -u dev -- timeout 120 ./banger vm exec inner -- echo fine 2>&1)"
