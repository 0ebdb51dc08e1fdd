//! The root helper: without it VMs have the user-mode network.

use super::network;
use crate::build;
use crate::daemon::fault::chain;
use crate::daemon::guest_text::harmless;
use crate::daemon::root_client::RootClient;
use crate::network::subnet::Subnet;
use crate::proto::finding::{Finding, Fix};
use crate::proto::root::Status;

const SUBJECT: &str = "root helper";

/// Who does what only root may do.
pub enum Helper {
    /// Nobody listens; on an installed machine somebody should.
    Absent {
        installed: bool,
    },
    /// The configuration says `network = "user"`.
    Unwanted,
    /// This process is root's, and may not do what root does.
    Powerless,
    /// This very process, which is root.
    Own(Status),
    Answered(Status),
    /// It is there, and does not answer as it should; a phrase.
    Broken(String),
}

/// Asks whoever does what only root may do. `installed`: there is an installation here, so that there should be a helper.
pub fn observe(root: &RootClient, installed: bool) -> Helper {
    match root {
        RootClient::Nobody => Helper::Unwanted,
        RootClient::Powerless => Helper::Powerless,
        RootClient::Here(_) => match root.status() {
            Ok(status) => Helper::Own(status),
            Err(e) => Helper::Broken(chain(&e)),
        },
        RootClient::Helper(_) if !root.is_there() => Helper::Absent { installed },
        RootClient::Helper(_) => match root.status() {
            Ok(status) => Helper::Answered(status),
            Err(e) => Helper::Broken(chain(&e)),
        },
    }
}

impl Helper {
    /// Whether VMs have a network in which they have names.
    pub fn has_network(&self) -> bool {
        self.status().is_some()
    }

    /// How many VMs are on the bridge.
    pub fn ports(&self) -> usize {
        self.status().map_or(0, |status| status.vms.len())
    }

    fn status(&self) -> Option<&Status> {
        match self {
            Self::Own(status) | Self::Answered(status) => Some(status),
            Self::Absent { .. } | Self::Unwanted | Self::Powerless | Self::Broken(_) => None,
        }
    }
}

pub fn rows(helper: &Helper, subnet: Subnet) -> Vec<Finding> {
    match helper {
        Helper::Absent { installed: true } => vec![
            Finding::fail(
                SUBJECT,
                "not there, on a machine with an installation; VMs have QEMU's user-mode network",
                "`sudo banger system restart` starts it; `journalctl -u bangerd-root` says why it ended.",
            )
            .mended_by(Fix::Services),
        ],
        Helper::Absent { installed: false } => vec![Finding::warn(
            SUBJECT,
            "not there; VMs have QEMU's user-mode network",
            "Where bangerd-root runs as root, VMs get names, a network of their own, and isolation from each other.",
        )],
        Helper::Unwanted => vec![Finding::pass(SUBJECT, "not wanted: `network` in config.toml is \"user\"")],
        Helper::Powerless => vec![Finding::warn(
            SUBJECT,
            "root lacks CAP_NET_ADMIN or CAP_SYS_ADMIN here, as in a container; VMs have QEMU's user-mode network",
            "Give the container both, or leave it so.",
        )],
        Helper::Own(status) => {
            let mut rows = vec![Finding::pass(SUBJECT, "not needed: bangerd is root")];
            rows.extend(network::rows(status, subnet));
            rows.extend(notes(status));
            rows
        }
        Helper::Broken(why) => vec![
            Finding::fail(
                SUBJECT,
                harmless(why, 500),
                "Look into its log, and start it again; VMs with a network do not start without it.",
            )
            .mended_by(Fix::Services),
        ],
        Helper::Answered(status) => {
            let mut rows = vec![version(status, build::VERSION)];
            rows.extend(network::rows(status, subnet));
            rows.extend(notes(status));
            rows
        }
    }
}

fn notes(status: &Status) -> impl Iterator<Item = Finding> {
    let advice = "What it says of a program is to be mended there.";
    status.notes.iter().map(move |note| Finding::warn(SUBJECT, harmless(note, 500), advice))
}

fn version(status: &Status, own: &str) -> Finding {
    let found = format!("version {}, pid {}", harmless(&status.version, 40), status.pid);
    match status.version == own {
        true => Finding::pass(SUBJECT, found),
        false => {
            Finding::warn(SUBJECT, found, format!("bangerd is {own}; start the older of the two again."))
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};

    use super::*;
    use crate::network::subnet;
    use crate::proto::root::Answer;

    fn status(version: &str, notes: &[&str]) -> Status {
        Status {
            pid: 7,
            version: version.to_owned(),
            subnet: None,
            vms: vec![],
            no_firecracker: None,
            network: None,
            notes: notes.iter().map(|note| (*note).to_owned()).collect(),
        }
    }

    #[test]
    fn the_helper_is_judged_by_what_it_says() {
        let shown =
            |helper: Helper| rows(&helper, subnet::DEFAULT).iter().map(Finding::line).collect::<Vec<_>>();
        let absent = |installed| shown(Helper::Absent { installed }).swap_remove(0);
        assert!(absent(false).starts_with("Warn root helper: not there; VMs have QEMU's user-mode network"));
        assert!(absent(true).starts_with("Fail root helper: not there, on a machine with an installation"));
        assert_eq!(
            shown(Helper::Unwanted),
            ["Pass root helper: not wanted: `network` in config.toml is \"user\""]
        );
        assert_eq!(
            shown(Helper::Own(status(build::VERSION, &[]))),
            [
                "Pass root helper: not needed: bangerd is root",
                "Pass bridge: none yet; the first VM with a network makes it"
            ]
        );
        assert!(shown(Helper::Powerless)[0].starts_with("Warn root helper: root lacks CAP_NET_ADMIN"));
        let broken = shown(Helper::Broken("it hung\u{7}".to_owned())).swap_remove(0);
        assert!(broken.starts_with("Fail root helper: it hung\\u{7} => "), "{broken}");
        assert!(broken.ends_with(" [Services]"), "{broken}");
        let answered = |status| shown(Helper::Answered(status));
        let same = answered(status(build::VERSION, &[]));
        assert_eq!(same[0], format!("Pass root helper: version {}, pid 7", build::VERSION));
        let old = answered(status("0.0.1", &["jailer is not root's"]));
        assert!(old[0].starts_with("Warn root helper: version 0.0.1, pid 7 => bangerd is "), "{old:?}");
        assert!(old[2].starts_with("Warn root helper: jailer is not root's"), "{old:?}");
    }

    #[test]
    fn a_helper_is_asked_over_its_socket() {
        let dir = tempfile::tempdir().expect("a directory");
        let socket = dir.path().join("s");
        let root = RootClient::Helper(socket.clone());
        assert!(matches!(observe(&root, false), Helper::Absent { .. }));
        let listener = std::os::unix::net::UnixListener::bind(&socket).expect("binds");
        let said = |answer: Vec<u8>| {
            std::thread::scope(|scope| {
                scope.spawn(|| {
                    let (mut stream, _) = listener.accept().expect("accepts");
                    let mut line = vec![0; 64];
                    let read = stream.read(&mut line).expect("reads");
                    assert_eq!(&line[..read], b"{\"op\":\"status\"}\n");
                    stream.write_all(&answer).and_then(|()| stream.write_all(b"\n")).expect("answers");
                });
                observe(&root, false)
            })
        };
        let good = serde_json::to_vec(&Answer::Status(status("1", &[]))).expect("serialises");
        assert!(matches!(said(good), Helper::Answered(s) if s.version == "1"));
        assert!(matches!(said(b"{\"answer\":\"done\"}".to_vec()), Helper::Broken(_)));
        assert!(matches!(said(b"hello".to_vec()), Helper::Broken(_)));
    }
}
