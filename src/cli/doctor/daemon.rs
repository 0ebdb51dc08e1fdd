//! The daemon: whether it answers, and whether it is of this build.

use crate::build;
use crate::cli::client::ClientError;
use crate::cli::render;
use crate::proto::api::DaemonView;
use crate::proto::finding::Finding;

const SUBJECT: &str = "bangerd";

/// `installed`: systemd starts it.
pub fn row(view: &DaemonView, installed: bool) -> Finding {
    if view.version == build::VERSION && view.commit == build::COMMIT {
        return Finding::pass(SUBJECT, format!("version {}, pid {}", view.version, view.pid));
    }
    Finding::warn(
        SUBJECT,
        format!(
            "version {} ({}), and this is banger {} ({})",
            view.version,
            view.commit,
            build::VERSION,
            build::COMMIT
        ),
        match installed {
            true => "`sudo banger system restart` starts the installed one. VMs run on.",
            false => {
                "`banger daemon stop`, and the next command starts the one beside this banger. VMs run on."
            }
        },
    )
}

/// It cannot be asked anything.
pub fn absent(e: &ClientError) -> Finding {
    Finding::fail(
        SUBJECT,
        render::chain(e),
        "Nothing works without it, and what only it knows (KVM, VMMs, the network, disks, images) has no row here.",
    )
}

/// It answers, and does not say what it sees.
pub fn silent(e: &ClientError) -> Finding {
    Finding::fail(
        SUBJECT,
        format!("it does not say what it sees: {}", render::chain(e)),
        "Its log may say why.",
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proto::finding::Verdict;

    #[test]
    fn a_daemon_of_another_build_is_noticed() {
        let view = |version: &str| DaemonView {
            pid: 7,
            version: version.to_owned(),
            commit: build::COMMIT.to_owned(),
            built: String::new(),
            started_at: 0,
            socket: String::new(),
            state_dir: String::new(),
            running_vms: 0,
            dns: vec![],
            dns_suffix: String::new(),
            config: String::new(),
        };
        assert_eq!(row(&view(build::VERSION), false).verdict, Verdict::Pass);
        let old = row(&view("0.0.1"), true);
        assert_eq!(old.verdict, Verdict::Warn);
        assert!(old.line().contains("`sudo banger system restart`"), "{old:?}");
        assert_eq!(absent(&ClientError::NotRunning).verdict, Verdict::Fail);
    }
}
