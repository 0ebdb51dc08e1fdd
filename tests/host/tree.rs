//! What is on the machine, before and after.

use std::collections::BTreeSet;

use crate::machine::Machine;

/// Every path with its type, mode, owner, and size or target; of files in /etc and /usr/local the digest too. Left out is what a machine
/// changes by itself as time goes by, and what the test has put there.
pub fn files(machine: &Machine) -> BTreeSet<String> {
    let script = r#"
        cd /
        find . -xdev \( -path ./var/log -o -path ./var/lib/systemd -o -path ./srv -o -path ./opt -o -path ./tmp -o -path ./var/tmp \
            -o -path ./var/lib/sudo -o -path ./usr/lib/modules \) -prune \
            -o -type d -printf '%M %u:%g %p\n' -o -printf '%M %u:%g %s %p -> %l\n'
        find etc usr/local -type f -exec sha256sum {} +
    "#;
    machine.ok(script).lines().map(str::to_owned).collect()
}

/// What is in the kernel, in memory, and in systemd of banger's.
pub fn traces(machine: &Machine) -> String {
    let script = r"
        ip -o link | grep -o 'br-banger\|bgr[0-9a-f]\{12\}'
        nft list ruleset | grep -i banger
        ls -d /run/banger* /sys/fs/cgroup/banger 2>/dev/null
        systemctl list-units --all --plain --no-legend 'banger*'
        systemctl list-unit-files --no-legend 'banger*'
        pgrep -a banger; pgrep -a qemu-system
        true
    ";
    machine.ok(script)
}
