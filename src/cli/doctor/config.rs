//! The configuration: whether it is one, and whether the daemon that runs has read it.

use crate::cli::client::Client;
use crate::cli::render;
use crate::config::{self, ConfigError, Read};
use crate::proto::finding::Finding;

const SUBJECT: &str = "config";

/// `running`: what tells the configuration of the daemon that runs from others, where that is known.
pub fn row(client: &Client, running: Option<&str>) -> Finding {
    judge(&config::read(client.config()), running, client.is_of_installation())
}

fn judge(read: &Result<Read, ConfigError>, running: Option<&str>, installed: bool) -> Finding {
    let read = match read {
        Ok(read) => read,
        Err(e) => {
            return Finding::fail(
                SUBJECT,
                render::chain(e),
                "Correct it; `banger config check` says all that is wrong, `banger config keys` what there is.",
            );
        }
    };
    let there: Vec<String> =
        read.layers.iter().filter(|l| l.is_there).map(|l| l.path.display().to_string()).collect();
    let found = if there.is_empty() { "all by default".to_owned() } else { there.join(", ") };
    match running {
        Some(running) if !running.is_empty() && running != read.digest => {
            let how = if installed { "sudo banger system restart" } else { "banger daemon stop" };
            Finding::warn(
                SUBJECT,
                format!("{found}, and the bangerd that runs has read another one"),
                format!("`{how}` has this one read; VMs run on."),
            )
        }
        Some(_) | None => Finding::pass(SUBJECT, found),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Places;
    use crate::proto::finding::Verdict;

    #[test]
    fn a_configuration_that_is_wrong_or_not_yet_read_is_noticed() {
        let dir = tempfile::tempdir().expect("a directory");
        let own = dir.path().join("config.toml");
        let places = Places { roots: None, own: own.clone(), home: None };
        let row = |running: Option<&str>| judge(&config::read(&places), running, false);
        assert_eq!((row(None).verdict, row(None).found.as_str()), (Verdict::Pass, "all by default"));
        std::fs::write(&own, "dns_port = 5353").expect("writes");
        let digest = config::read(&places).expect("a configuration").digest;
        assert_eq!(row(Some(&digest)).verdict, Verdict::Pass);
        assert_eq!(row(Some("")).verdict, Verdict::Pass, "an older daemon does not say");
        let other = row(Some("0123"));
        assert_eq!(other.verdict, Verdict::Warn);
        assert!(other.line().contains("`banger daemon stop`"), "{other:?}");
        std::fs::write(&own, "dns_prot = 5353").expect("writes");
        let bad = row(Some(&digest));
        assert!(
            bad.verdict == Verdict::Fail && bad.found.contains("config.toml:1:1: there is no key"),
            "{bad:?}"
        );
    }
}
