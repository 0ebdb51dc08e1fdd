//! Values as they are typed for a VM or a command in it, parsed at the edge.

use crate::cli::error::Error;
use crate::image::config::Asked;
use crate::proto::agent::Tty;
use crate::vm::spec::{AccelChoice, VmmChoice};

/// For argh: the number after --vcpu.
pub fn vcpu(text: &str) -> Result<u8, String> {
    text.parse().map_err(|_| format!("{text:?} is no number of CPUs; write it like 2"))
}

/// For argh: the word after --vmm.
pub fn vmm(text: &str) -> Result<VmmChoice, String> {
    match text {
        "auto" => Ok(VmmChoice::Auto),
        "firecracker" => Ok(VmmChoice::Firecracker),
        "qemu" => Ok(VmmChoice::Qemu),
        _ => Err(format!("{text:?} is no VMM; choose auto, firecracker or qemu")),
    }
}

/// For argh: the word after --accel.
pub fn accel(text: &str) -> Result<AccelChoice, String> {
    match text {
        "auto" => Ok(AccelChoice::Auto),
        "kvm" => Ok(AccelChoice::Kvm),
        "tcg" => Ok(AccelChoice::Tcg),
        _ => Err(format!("{text:?} is no accelerator; choose auto, kvm or tcg")),
    }
}

/// What is asked of a command: `env` as after -e, where a NAME alone takes this host's value, as docker does.
///
/// # Errors
/// A word for -e that has no name.
pub fn command(
    argv: Vec<String>,
    env: &[String],
    cwd: Option<&str>,
    user: Option<&str>,
    tty: bool,
) -> Result<Asked, Error> {
    let mut words = vec![];
    if tty && let Ok(term) = std::env::var("TERM") {
        // First, so that -e TERM=... wins.
        words.push(format!("TERM={term}"));
    }
    for word in env {
        words.push(variable(word, |name| std::env::var(name).ok())?);
    }
    Ok(Asked { argv, env: words, cwd: cwd.map(str::to_owned), user: user.map(str::to_owned) })
}

fn variable(word: &str, host: impl Fn(&str) -> Option<String>) -> Result<String, Error> {
    match word.split_once('=') {
        Some(("", _)) => Err(bad(word)),
        Some(_) => Ok(word.to_owned()),
        None if word.is_empty() => Err(bad(word)),
        // Not set here either: the image's is removed.
        None => Ok(host(word).map_or_else(|| word.to_owned(), |value| format!("{word}={value}"))),
    }
}

fn bad(word: &str) -> Error {
    Error::Refused(format!("-e {word:?} has no name; write it like -e NAME=value"))
}

/// The terminal's size for the guest, or the usual one where the terminal does not know its own.
pub fn tty_size() -> Tty {
    crate::cli::session::size().unwrap_or(Tty { rows: 24, columns: 80 })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_read_and_others_refused_with_the_choice() {
        assert_eq!(vmm("qemu"), Ok(VmmChoice::Qemu));
        assert_eq!(accel("tcg"), Ok(AccelChoice::Tcg));
        assert_eq!(vcpu("4"), Ok(4));
        for error in [vmm("QEMU").map(drop), accel("").map(drop), vcpu("-1").map(drop), vcpu("300").map(drop)]
        {
            assert!(error.is_err());
        }
    }

    #[test]
    fn a_variable_without_a_value_takes_this_hosts() {
        let host = |name: &str| (name == "HERE").then(|| "1".to_owned());
        for (word, want) in [("A=1", "A=1"), ("A=", "A="), ("HERE", "HERE=1"), ("GONE", "GONE")] {
            assert_eq!(variable(word, host).expect("a word"), want);
        }
        for word in ["", "=x"] {
            assert!(variable(word, host).is_err());
        }
    }
}
