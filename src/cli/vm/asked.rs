//! Values as they are typed for a VM or a command in it, parsed at the edge.

use crate::cli::error::Error;
use crate::image::config::Asked;
use crate::proto::agent::Tty;
use crate::vm::lifetime::Ttl;
use crate::vm::spec::{AccelChoice, BadSpec, VmmChoice, Wish};

/// For argh: the number after --vcpu.
pub fn vcpu(text: &str) -> Result<u8, String> {
    let count: u32 = text.parse().map_err(|_| format!("{text:?} is no number of CPUs; write it like 2"))?;
    u8::try_from(count).map_err(|_| format!("{count} CPUs are more than a VM can have; ask for fewer"))
}

/// For argh: what is switched after --nat or --lan.
pub fn on_or_off(text: &str) -> Result<bool, String> {
    match text {
        "on" => Ok(true),
        "off" => Ok(false),
        _ => Err(format!("{text:?} is neither; write on or off")),
    }
}

/// How long a VM is to exist, in seconds.
pub fn ttl(ttl: Option<Ttl>) -> Option<u64> {
    match ttl? {
        Ttl::Off => None,
        Ttl::Seconds(seconds) => Some(seconds),
    }
}

/// What is asked of the hardware: `flags`, and where they leave the VMM or the accelerator open, `BANGER_VMM` and
/// `BANGER_ACCEL`.
///
/// # Errors
/// `--lan` without `--nat`, and a variable with a word that is no choice.
pub fn hardware(flags: Wish) -> Result<Wish, Error> {
    if flags.lan && !flags.nat {
        return Err(Error::Refused(BadSpec::LanWithoutNat.to_string()));
    }
    overridden(flags, |name| std::env::var(name).ok())
}

fn overridden(mut wish: Wish, env: impl Fn(&str) -> Option<String>) -> Result<Wish, Error> {
    let read = |name: &str| env(name).filter(|value| !value.is_empty());
    if let (VmmChoice::Auto, Some(word)) = (wish.vmm, read("BANGER_VMM")) {
        wish.vmm = word.parse().map_err(|e| Error::Refused(format!("BANGER_VMM: {e}")))?;
    }
    if let (AccelChoice::Auto, Some(word)) = (wish.accel, read("BANGER_ACCEL")) {
        wish.accel = word.parse().map_err(|e| Error::Refused(format!("BANGER_ACCEL: {e}")))?;
    }
    Ok(wish)
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
        assert_eq!(vcpu("4"), Ok(4));
        assert_eq!((on_or_off("on"), on_or_off("off")), (Ok(true), Ok(false)));
        assert_eq!(on_or_off("yes"), Err("\"yes\" is neither; write on or off".to_owned()));
        for error in [vcpu("-1"), vcpu("two"), vcpu("1000")] {
            assert!(error.is_err());
        }
    }

    #[test]
    fn a_flag_wins_over_the_environment_which_wins_over_automatic() {
        use {AccelChoice as A, VmmChoice as V};
        let read = |vmm, accel, env: [&'static str; 2]| {
            let flags = Wish { vmm, accel, ..Wish::default() };
            overridden(flags, |name| Some(env[usize::from(name == "BANGER_ACCEL")].to_owned()))
                .map(|wish| (wish.vmm, wish.accel))
        };
        assert_eq!(read(V::Auto, A::Auto, ["qemu", "tcg"]).expect("words"), (V::Qemu, A::Tcg));
        assert_eq!(read(V::Auto, A::Auto, ["", ""]).expect("words"), (V::Auto, A::Auto));
        assert_eq!(read(V::Qemu, A::Kvm, ["firecracker", "tcg"]).expect("words"), (V::Qemu, A::Kvm));
        let error = |env| read(V::Auto, A::Auto, env).expect_err("no word").to_string();
        assert_eq!(error(["xen", ""]), "BANGER_VMM: \"xen\" is no VMM; choose auto, firecracker or qemu");
        assert_eq!(error(["", "hvf"]), "BANGER_ACCEL: \"hvf\" is no accelerator; choose auto, kvm or tcg");
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
