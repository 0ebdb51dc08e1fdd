//! What `banger doctor` finds: a row has a subject, a verdict, and for whatever is not well, what to do about it.
//!
//! Whoever knows a thing makes its rows: the command line of the installation's files and services, the daemon of the rest. Subjects
//! are words that stay: an update compares what fails after it with what failed before.

use serde::{Deserialize, Serialize};

/// One thing that was looked at, as `doctor --json` gives it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Finding {
    /// What was looked at; a word or two.
    pub subject: String,
    pub verdict: Verdict,
    /// What was found; a phrase.
    pub found: String,
    /// What to do about it; a sentence.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub advice: Option<String>,
    /// What of it `doctor --fix` mends.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fix: Option<Fix>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    Pass,
    /// It works, with less than there could be.
    Warn,
    /// VMs do not run, or not as the configuration says.
    Fail,
}

/// All that `doctor --fix` does. None holds a path or a name: whoever mends it works out itself what there is to mend, so that a row
/// that came over a socket can ask for nothing else.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Fix {
    /// Directories of the installation get the owner and the mode that they should have.
    Directories,
    /// Sockets that nobody listens at are removed.
    Sockets,
    /// Services of the installation that do not run are started.
    Services,
    /// The bridge, the firewall and the forwarding are made again where they are missing.
    Network,
    /// The host's resolver is told again where names of VMs are.
    Resolver,
}

impl Finding {
    pub fn pass(subject: &str, found: impl Into<String>) -> Self {
        let (subject, found) = (subject.to_owned(), found.into());
        Self { subject, verdict: Verdict::Pass, found, advice: None, fix: None }
    }

    pub fn warn(subject: &str, found: impl Into<String>, advice: impl Into<String>) -> Self {
        Self { verdict: Verdict::Warn, advice: Some(advice.into()), ..Self::pass(subject, found) }
    }

    pub fn fail(subject: &str, found: impl Into<String>, advice: impl Into<String>) -> Self {
        Self { verdict: Verdict::Fail, ..Self::warn(subject, found, advice) }
    }

    /// The same, and what mends it.
    #[must_use]
    pub fn mended_by(self, fix: Fix) -> Self {
        Self { fix: Some(fix), ..self }
    }

    /// The row in one line, for tables of tests.
    #[cfg(test)]
    pub fn line(&self) -> String {
        let advice = self.advice.as_ref().map(|advice| format!(" => {advice}")).unwrap_or_default();
        let fix = self.fix.map(|fix| format!(" [{fix:?}]")).unwrap_or_default();
        format!("{:?} {}: {}{advice}{fix}", self.verdict, self.subject, self.found)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_of_an_older_banger_is_read_and_a_good_one_is_short() {
        let old = r#"{"subject":"kvm","verdict":"warn","found":"x","advice":"y"}"#;
        let row: Finding = serde_json::from_str(old).expect("a row");
        assert_eq!(row, Finding::warn("kvm", "x", "y"));
        let pass = serde_json::to_string(&Finding::pass("kvm", "usable")).expect("serialises");
        assert_eq!(pass, r#"{"subject":"kvm","verdict":"pass","found":"usable"}"#);
        let mended = Finding::fail("bridge", "gone", "z").mended_by(Fix::Network);
        assert_eq!(mended.line(), "Fail bridge: gone => z [Network]");
        assert!(serde_json::to_string(&mended).expect("serialises").ends_with(r#""fix":"network"}"#));
    }
}
