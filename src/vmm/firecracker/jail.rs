//! Firecracker under its jailer: from a machine, whose paths are those inside, to the jailer's arguments.
//!
//! The jailer copies Firecracker below its base directory, mounts that as its root, makes the device nodes, and becomes Firecracker
//! as another user (Firecracker: docs/jailer.md). It copies by opening the destination for writing (src/jailer/src/env.rs,
//! copy_exec_to_chroot), so neither a link nor a mount can stand there instead.

use std::path::{Path, PathBuf};

use crate::vmm::firecracker::{Firecracker, Told};
use crate::vmm::{Machine, PlanError, text};

/// Firecracker's configuration, in its root.
const CONFIG: &str = "/firecracker.json";

/// A jailer that this host can run, and what it is to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Jailer {
    pub program: PathBuf,
    /// The directory below which it makes its root.
    pub base: PathBuf,
    /// The user and the group that Firecracker runs as.
    pub uid: u32,
    /// Where its cgroup is, below the hierarchy's root; the process is in it already.
    pub cgroup: String,
}

/// A Firecracker that is run by its jailer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Jailed {
    pub argv: Vec<String>,
    /// What becomes its root; must exist, with all that the machine names.
    pub root: PathBuf,
    /// Files to write below the root first.
    pub files: Vec<(PathBuf, String)>,
}

impl Jailer {
    /// All that it takes to run `machine` in a jail. Reads and writes nothing.
    ///
    /// # Errors
    /// [`PlanError`] for what Firecracker cannot be told or cannot do.
    pub fn plan(&self, firecracker: &Firecracker, machine: &Machine) -> Result<Jailed, PlanError> {
        let told = Told::new(machine, Path::new(CONFIG))?;
        let (name, uid) = (machine.name(), self.uid.to_string());
        let mut argv = vec![text(&self.program)?, "--id", &name, "--exec-file", text(&firecracker.program)?];
        argv.extend(["--uid", &uid, "--gid", &uid, "--chroot-base-dir", text(&self.base)?]);
        // Without --cgroup it makes none. One that takes version 2 for granted would move itself into a cgroup with the name of its
        // program, should there be one, if it were not told where it is.
        argv.extend(["--parent-cgroup", &self.cgroup, "--"]);
        let argv = argv.into_iter().map(str::to_owned).chain(told.argv).collect();
        let program = firecracker.program.file_name().unwrap_or_default();
        let root = self.base.join(program).join(&name).join("root");
        Ok(Jailed { argv, root, files: vec![(CONFIG.into(), told.config.to_string())] })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::vm::size::Mib;

    #[test]
    fn a_machine_in_a_jail_is_this_command_line() {
        let jailer = Jailer {
            program: "/usr/bin/jailer".into(),
            base: "/var/lib/banger/jail".into(),
            uid: 1_900_000_002,
            cgroup: "banger/00000000002a".to_owned(),
        };
        let machine = Machine {
            vcpu: 1,
            memory: Mib(256),
            kernel: "/kernel".into(),
            initrd: "/initrd".into(),
            words: "banger.id=7".to_owned(),
            drives: vec![],
            cid: 5,
            nic: None,
            sockets: "/vm/00000000002a".into(),
            console_log: "/console.log".into(),
            vmm_log: "/vmm.log".into(),
        };
        let firecracker = Firecracker { program: "/usr/bin/firecracker-v1.15.2".into() };
        let jailed = jailer.plan(&firecracker, &machine).expect("planned");
        assert_eq!(
            jailed.argv.join(" "),
            "/usr/bin/jailer --id banger-00000000002a --exec-file /usr/bin/firecracker-v1.15.2 --uid 1900000002 --gid 1900000002 \
             --chroot-base-dir /var/lib/banger/jail --parent-cgroup banger/00000000002a -- --api-sock /vm/00000000002a/api.sock \
             --config-file /firecracker.json --log-path /vmm.log --level Error --show-level"
        );
        assert_eq!(
            jailed.root,
            Path::new("/var/lib/banger/jail/firecracker-v1.15.2/banger-00000000002a/root")
        );
        let config: serde_json::Value = serde_json::from_str(&jailed.files[0].1).expect("JSON");
        assert_eq!(config["boot-source"]["kernel_image_path"], "/kernel");
        assert_eq!(config["vsock"]["uds_path"], "/vm/00000000002a/vsock.sock");
    }
}
