//! The units of an installation, as text (systemd.unit(5)).
//!
//! VMs are not part of them: those in jails are in cgroups of their own, beside systemd's, and those that bangerd starts itself are
//! left alone by `KillMode=process`. So units can be restarted, updated and removed while VMs run.

use std::path::PathBuf;

use crate::system::layout::Layout;

/// The first line of all that is written here: by it a unit is known as banger's.
pub const MARK: &str =
    "# Written by `banger system install`, and again with each update; change it by `systemctl edit`.";

/// A file in systemd's directory.
#[derive(Debug, Clone, Copy)]
pub struct UnitFile {
    pub name: &'static str,
    pub purpose: &'static str,
    text: fn(&Layout, &str) -> String,
}

/// All of them.
pub const ALL: [UnitFile; 4] = [
    UnitFile { name: "bangerd.service", purpose: "runs the daemon as the owner", text: daemon },
    UnitFile { name: "bangerd-root.service", purpose: "runs the root helper", text: helper },
    UnitFile { name: "bangerd-root.socket", purpose: "opens the root helper's socket", text: socket },
    UnitFile {
        name: "banger-recover.service",
        purpose: "finishes or undoes, at boot, an update that was cut off",
        text: recover,
    },
];

/// The symlinks by which systemd starts them at boot, which it makes itself.
pub fn boot_links(layout: &Layout) -> Vec<PathBuf> {
    let link = |unit: &UnitFile| {
        let target = if unit.name.ends_with(".socket") { "sockets" } else { "multi-user" };
        layout.units.join(format!("{target}.target.wants")).join(unit.name)
    };
    ALL.iter().map(link).collect()
}

impl UnitFile {
    /// Its content in an installation of `owner`, the name of a user.
    pub fn text(&self, layout: &Layout, owner: &str) -> String {
        format!("{MARK}\n{}", (self.text)(layout, owner))
    }
}

/// bangerd starts QEMU without a jail where root's programs do not fit, so that what it forbids itself is forbidden to such VMs:
/// code that is written while it runs (TCG), devices, and the owner's files must stay.
fn daemon(layout: &Layout, owner: &str) -> String {
    let bangerd = layout.bin.join("bangerd");
    let install = layout.dirs.install_file();
    format!(
        "[Unit]
Description=banger's daemon, of {owner}
ConditionPathExists={install}
Wants=bangerd-root.socket
After=bangerd-root.socket bangerd-root.service banger-recover.service network.target nss-user-lookup.target

[Service]
Type=exec
User={owner}
ExecStart={bangerd} --system
Restart=on-failure
RestartSec=1
# VMs that it has started are its children, and run on without it.
KillMode=process
OOMPolicy=continue
TasksMax=infinity
LimitNOFILE=524288
RuntimeDirectory=banger
RuntimeDirectoryMode=0700
RuntimeDirectoryPreserve=yes

NoNewPrivileges=yes
CapabilityBoundingSet=
LockPersonality=yes
RestrictAddressFamilies=AF_UNIX AF_INET AF_INET6 AF_NETLINK AF_VSOCK
RestrictNamespaces=yes
RestrictRealtime=yes
RestrictSUIDSGID=yes
SystemCallArchitectures=native
SystemCallErrorNumber=EPERM
SystemCallFilter=~@clock @cpu-emulation @debug @module @mount @obsolete @raw-io @reboot @swap

[Install]
WantedBy=multi-user.target
",
        install = install.display(),
        bangerd = bangerd.display(),
    )
}

/// What is missing here is missing for a reason, each seen on a host: RestrictSUIDSGID, PrivateDevices and MemoryDenyWriteExecute break
/// jails, ProtectKernelTunables and ProtectControlGroups the settings and cgroups that are its work, ProtectProc its look at who asks,
/// and UMask the roots of jails, which other users enter. ProtectSystem=strict would show VMs their disks as unwritable. The helper gives up more by itself than can be said here (root/harden.rs).
fn helper(layout: &Layout, owner: &str) -> String {
    let helper = layout.bin.join("bangerd-root");
    let install = layout.dirs.install_file();
    format!(
        "[Unit]
Description=banger's root helper, for {owner}
ConditionPathExists={install}
Requires=bangerd-root.socket
After=bangerd-root.socket banger-recover.service network.target

[Service]
Type=exec
ExecStart={helper}
Restart=on-failure
RestartSec=1
# VMs are in cgroups of their own, and their jails in namespaces of their own: they run on without it.
KillMode=process
OOMPolicy=continue
RuntimeDirectory=banger-root
RuntimeDirectoryMode=0755
RuntimeDirectoryPreserve=yes

NoNewPrivileges=yes
CapabilityBoundingSet=CAP_SYS_ADMIN CAP_SYS_CHROOT CAP_MKNOD CAP_SETUID CAP_SETGID CAP_SETPCAP CAP_CHOWN CAP_FOWNER \\
    CAP_DAC_OVERRIDE CAP_KILL CAP_NET_ADMIN CAP_NET_RAW
# /dev/kvm, /dev/net/tun and /dev/vhost-vsock, some of which come with modules that are loaded later.
DevicePolicy=closed
DeviceAllow=char-misc rwm
# What it reaches is the kernel and this host's sockets. VMs are not in its cgroup.
IPAddressDeny=any
KeyringMode=private
LockPersonality=yes
PrivateTmp=yes
ProtectClock=yes
# An image that was registered where it lies is shown to its VM from there.
ProtectHome=read-only
ProtectHostname=yes
ProtectKernelLogs=yes
ProtectKernelModules=yes
ProtectSystem=full
RestrictAddressFamilies=AF_UNIX AF_NETLINK AF_INET AF_INET6
RestrictNamespaces=mnt pid net ipc uts cgroup
RestrictRealtime=yes
SystemCallArchitectures=native
SystemCallErrorNumber=EPERM
SystemCallFilter=~@clock @cpu-emulation @debug @module @obsolete @raw-io @reboot @swap

[Install]
WantedBy=multi-user.target
Also=bangerd-root.socket
",
        install = install.display(),
        helper = helper.display(),
    )
}

fn socket(layout: &Layout, owner: &str) -> String {
    format!(
        "[Unit]
Description=banger's root helper's socket, for {owner}

[Socket]
ListenStream={}
SocketUser={owner}
SocketMode=0600
DirectoryMode=0755
RemoveOnStop=yes

[Install]
WantedBy=sockets.target
",
        layout.dirs.root_socket().display()
    )
}

fn recover(layout: &Layout, _owner: &str) -> String {
    format!(
        "[Unit]
Description=Finish or undo an update of banger that was cut off
ConditionPathExists={}
Before=bangerd-root.service bangerd.service

[Service]
Type=oneshot
ExecStart={} internal finish-update
TimeoutStartSec=10min

[Install]
WantedBy=multi-user.target
",
        layout.journal().display(),
        layout.binary().display()
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;

    fn layout() -> Layout {
        Layout::host()
    }

    fn text(name: &str) -> String {
        let unit = ALL.iter().find(|unit| unit.name == name).expect("a unit");
        unit.text(&layout(), "me")
    }

    #[test]
    fn every_unit_begins_with_the_mark_and_names_only_what_is_in_the_layout() {
        for unit in ALL {
            let text = unit.text(&layout(), "me");
            assert!(text.starts_with(MARK), "{}", unit.name);
            for line in text.lines().filter(|line| line.starts_with("ExecStart=")) {
                let program = line.trim_start_matches("ExecStart=").split(' ').next().expect("a word");
                let known = layout().links().iter().any(|link| link == Path::new(program));
                assert!(known || layout().binary() == Path::new(program), "{line}");
            }
        }
    }

    #[test]
    fn the_daemon_is_the_owners_and_the_socket_too() {
        assert!(text("bangerd.service").contains("\nUser=me\nExecStart=/usr/local/bin/bangerd --system\n"));
        let socket = text("bangerd-root.socket");
        assert!(
            socket.contains(
                "\nListenStream=/run/banger-root/bangerd-root.sock\nSocketUser=me\nSocketMode=0600\n"
            )
        );
    }

    #[test]
    fn vms_outlive_both_daemons_and_so_do_their_runtime_directories() {
        for name in ["bangerd.service", "bangerd-root.service"] {
            let text = text(name);
            for word in [
                "KillMode=process",
                "OOMPolicy=continue",
                "RuntimeDirectoryPreserve=yes",
                "NoNewPrivileges=yes",
            ] {
                assert!(text.lines().any(|line| line == word), "{name}: {word}");
            }
        }
    }

    #[test]
    fn a_boot_link_is_where_the_unit_says_that_it_is_wanted() {
        for (unit, link) in ALL.iter().zip(boot_links(&layout())) {
            let wanted =
                link.parent().and_then(Path::file_name).expect("a directory").to_str().expect("UTF-8");
            let line = format!("WantedBy={}", wanted.trim_end_matches(".wants"));
            assert!(text(unit.name).lines().any(|l| l == line), "{line}");
        }
    }

    #[test]
    fn recovery_comes_before_whoever_works_with_the_files() {
        let text = text("banger-recover.service");
        assert!(text.contains("ConditionPathExists=/var/lib/banger-root/update.json"));
        assert!(text.contains("Before=bangerd-root.service bangerd.service"));
        assert!(text.contains("ExecStart=/usr/local/bin/banger internal finish-update"));
    }
}
