//! The root helper, and what it has made: without it VMs have the user-mode network.

use super::{fail, pass, warn};
use crate::build;
use crate::daemon::fault::chain;
use crate::daemon::guest_text::harmless;
use crate::daemon::root_client::RootClient;
use crate::network::subnet::Subnet;
use crate::proto::api::Finding;
use crate::proto::root::Status;

const SUBJECT: &str = "root helper";

/// Who does what only root may do.
pub enum Helper {
    Absent,
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

/// Asks whoever does what only root may do.
pub fn observe(root: &RootClient) -> Helper {
    match root {
        RootClient::Nobody => Helper::Unwanted,
        RootClient::Powerless => Helper::Powerless,
        RootClient::Here(_) => match root.status() {
            Ok(status) => Helper::Own(status),
            Err(e) => Helper::Broken(chain(&e)),
        },
        RootClient::Helper(_) if !root.is_there() => Helper::Absent,
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
            Self::Absent | Self::Unwanted | Self::Powerless | Self::Broken(_) => None,
        }
    }
}

pub fn rows(helper: &Helper, subnet: Subnet) -> Vec<Finding> {
    match helper {
        Helper::Absent => vec![warn(
            SUBJECT,
            "not there; VMs have QEMU's user-mode network",
            "Where bangerd-root runs as root, VMs get names, a network of their own, and isolation from each other.",
        )],
        Helper::Unwanted => vec![pass(SUBJECT, "not wanted: `network` in config.toml is \"user\"")],
        Helper::Powerless => vec![warn(
            SUBJECT,
            "root lacks CAP_NET_ADMIN or CAP_SYS_ADMIN here, as in a container; VMs have QEMU's user-mode network",
            "Give the container both, or leave it so.",
        )],
        Helper::Own(status) => {
            let mut rows = vec![pass(SUBJECT, "not needed: bangerd is root"), bridge(status, subnet)];
            rows.extend(notes(status));
            rows
        }
        Helper::Broken(why) => vec![fail(
            SUBJECT,
            harmless(why, 500),
            "Look into its log, and start it again; VMs with a network do not start without it.",
        )],
        Helper::Answered(status) => {
            let mut rows = vec![version(status, build::VERSION), bridge(status, subnet)];
            rows.extend(notes(status));
            rows
        }
    }
}

fn notes(status: &Status) -> impl Iterator<Item = Finding> {
    let advice = "What it says of a program is to be mended there.";
    status.notes.iter().map(move |note| warn(SUBJECT, harmless(note, 500), advice))
}

fn version(status: &Status, own: &str) -> Finding {
    let found = format!("version {}, pid {}", harmless(&status.version, 40), status.pid);
    match status.version == own {
        true => pass(SUBJECT, found),
        false => warn(SUBJECT, found, format!("bangerd is {own}; start the older of the two again.")),
    }
}

fn bridge(status: &Status, wanted: Subnet) -> Finding {
    match status.subnet {
        None => pass("bridge", "none yet; the first VM with a network makes it"),
        Some(has) if has == wanted => pass("bridge", format!("{has}, {} VMs", status.vms.len())),
        Some(has) => warn(
            "bridge",
            format!("it has {has}, and the configuration says {wanted}"),
            "Stop all VMs; the next one that starts makes it anew.",
        ),
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};

    use super::*;
    use crate::daemon::doctor::line;
    use crate::network::subnet;
    use crate::proto::root::Answer;

    fn status(version: &str, subnet: Option<&str>, notes: &[&str]) -> Status {
        Status {
            pid: 7,
            version: version.to_owned(),
            subnet: subnet.map(|s| s.parse().expect("a subnet")),
            vms: vec![],
            no_firecracker: None,
            notes: notes.iter().map(|note| (*note).to_owned()).collect(),
        }
    }

    #[test]
    fn the_helper_is_judged_by_what_it_says() {
        let shown = |helper: Helper| rows(&helper, subnet::DEFAULT).iter().map(line).collect::<Vec<_>>();
        assert!(
            shown(Helper::Absent)[0]
                .starts_with("Warn root helper: not there; VMs have QEMU's user-mode network")
        );
        assert_eq!(
            shown(Helper::Unwanted),
            ["Pass root helper: not wanted: `network` in config.toml is \"user\""]
        );
        assert_eq!(
            shown(Helper::Own(status(build::VERSION, Some("172.16.0.1/24"), &[]))),
            ["Pass root helper: not needed: bangerd is root", "Pass bridge: 172.16.0.1/24, 0 VMs"]
        );
        assert!(shown(Helper::Powerless)[0].starts_with("Warn root helper: root lacks CAP_NET_ADMIN"));
        assert!(
            shown(Helper::Broken("it hung\u{7}".to_owned()))[0]
                .starts_with("Fail root helper: it hung\\u{7} => ")
        );
        let answered = |status| shown(Helper::Answered(status));
        assert_eq!(
            answered(status(build::VERSION, Some("172.16.0.1/24"), &[])),
            [
                format!("Pass root helper: version {}, pid 7", build::VERSION),
                "Pass bridge: 172.16.0.1/24, 0 VMs".to_owned()
            ]
        );
        let old = answered(status("0.0.1", None, &["jailer is not root's"]));
        assert!(old[0].starts_with("Warn root helper: version 0.0.1, pid 7 => bangerd is "), "{old:?}");
        assert_eq!(old[1], "Pass bridge: none yet; the first VM with a network makes it");
        assert!(old[2].starts_with("Warn root helper: jailer is not root's"), "{old:?}");
        let other = answered(status(build::VERSION, Some("10.0.0.1/24"), &[]));
        assert!(
            other[1].starts_with("Warn bridge: it has 10.0.0.1/24, and the configuration says 172.16.0.1/24")
        );
    }

    #[test]
    fn a_helper_is_asked_over_its_socket() {
        let dir = tempfile::tempdir().expect("a directory");
        let socket = dir.path().join("s");
        let root = RootClient::Helper(socket.clone());
        assert!(matches!(observe(&root), Helper::Absent));
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
                observe(&root)
            })
        };
        let good = serde_json::to_vec(&Answer::Status(status("1", None, &[]))).expect("serialises");
        assert!(matches!(said(good), Helper::Answered(s) if s.version == "1"));
        assert!(matches!(said(b"{\"answer\":\"done\"}\n".to_vec()), Helper::Broken(_)));
        assert!(matches!(said(b"hello".to_vec()), Helper::Broken(_)));
    }
}
