//! A guest's sshd, for one connection.

use ring::digest::{SHA256, digest};

use super::key;
use crate::image::config::Asked;
use crate::proto::api::VmExec;

/// Decides in the guest, in the one program that every image with an sshd has, a shell: so it takes one round trip.
const SCRIPT: &str = include_str!("guest.sh");

/// What the script says first, at most, in bytes.
pub const MAX_WORD: usize = 1024;

/// Starts it in VM `vm` for whoever has the private half of `public`.
pub fn exec(vm: &str, public: &str) -> VmExec {
    // Several users of one daemon have keys of their own.
    let hash = digest(&SHA256, public.as_bytes());
    let name: String = hash.as_ref()[..6].iter().map(|byte| format!("{byte:02x}")).collect();
    let argv = ["sh", "-c", SCRIPT, "banger-ssh", public, &format!("ssh-{name}")].map(str::to_owned);
    let asked =
        Asked { argv: argv.to_vec(), env: vec![], cwd: Some("/".to_owned()), user: Some("0:0".to_owned()) };
    VmExec { vm: vm.to_owned(), asked, as_run: false, tty: None, stdin: true }
}

/// What the script says before anything else.
#[derive(Debug, PartialEq, Eq)]
pub enum Word {
    /// What follows is SSH, from a host with this key.
    Ready(String),
    /// The image has no sshd.
    None,
    /// Why it cannot be started.
    Broken(String),
}

impl Word {
    /// Reads a line without its newline. None: it is none of the script's.
    pub fn parse(line: &[u8]) -> Option<Self> {
        let line = std::str::from_utf8(line).ok()?;
        match line.split_once(' ') {
            Some(("ready", host_key)) => key::line(host_key).map(Self::Ready),
            Some(("broken", why)) => Some(Self::Broken(why.to_owned())),
            _ => (line == "none").then_some(Self::None),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_scripts_first_word_is_understood_and_nothing_else() {
        let host_key = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIOM4+kO9p8ZzEgbjFiYtXwxJ+4cXIdQCSuOoLjTkVQPB";
        let ready = Word::parse(format!("ready {host_key}").as_bytes());
        assert_eq!(ready, Some(Word::Ready(host_key.to_owned())));
        assert_eq!(Word::parse(b"none"), Some(Word::None));
        assert_eq!(Word::parse(b"broken by hand"), Some(Word::Broken("by hand".to_owned())));
        for bad in [&b"SSH-2.0-OpenSSH_9.2"[..], b"", b"ready", b"ready x y", b"none of it", b"\xff"] {
            assert_eq!(Word::parse(bad), None, "{bad:?}");
        }
    }
}
