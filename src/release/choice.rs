//! Which release to take, or why none.

use std::fmt;

use crate::release::manifest::{Manifest, Release};
use crate::release::version::Version;

/// What is known here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Here {
    /// Of the installed executable.
    pub current: Version,
    /// The newest that ever ran here, if that is known.
    pub newest_seen: Option<Version>,
    /// Seconds since 1970.
    pub now: u64,
    pub refuse_expired: bool,
}

/// What somebody asked for.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Wish {
    /// None: the newest stable one.
    pub to: Option<Version>,
    pub allow_downgrade: bool,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Choice {
    UpToDate(Notes),
    Take(Box<Release>, Notes),
}

/// What to tell about it: sentences.
pub type Notes = Vec<String>;

/// Why no release is taken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Refused {
    NoSuch {
        wanted: Version,
        latest: Version,
    },
    /// Older than one that ran here before.
    Older {
        wanted: Version,
        newest: Version,
    },
    Expired {
        version: Version,
    },
    /// It cannot be reached from this version in one step.
    TooOld {
        current: Version,
        wanted: Version,
        min: Version,
    },
}

/// Chooses among the releases of `manifest`.
pub fn choose(manifest: &Manifest, here: &Here, wish: &Wish) -> Result<Choice, Box<Refused>> {
    let wanted = wish.to.as_ref().unwrap_or(&manifest.latest_stable);
    let Some(release) = manifest.releases.iter().find(|release| release.version == *wanted) else {
        return Err(Box::new(Refused::NoSuch {
            wanted: wanted.clone(),
            latest: manifest.latest_stable.clone(),
        }));
    };
    // A manifest that was held back says that there is nothing new, so this comes before that.
    let expired = release.expires.is_some_and(|expires| here.now >= expires);
    if expired && here.refuse_expired {
        return Err(Box::new(Refused::Expired { version: wanted.clone() }));
    }
    let newest = here.newest_seen.as_ref().max(Some(&here.current)).unwrap_or(&here.current);
    let mut notes = vec![];
    if expired {
        notes.push(format!(
            "what the manifest says of {wanted} has expired; there may be a newer release that somebody between here and its \
             publisher holds back"
        ));
    }
    if *wanted == here.current {
        if wanted < newest && wish.to.is_none() {
            notes
                .push(format!("{newest} has been here already, and the manifest does not offer it any more"));
        }
        return Ok(Choice::UpToDate(notes));
    }
    if wanted < newest && !(wish.to.is_some() && wish.allow_downgrade) {
        return Err(Box::new(Refused::Older { wanted: wanted.clone(), newest: newest.clone() }));
    }
    if let Some(min) = release.min_version.as_ref().filter(|min| here.current < **min) {
        let (current, wanted) = (here.current.clone(), wanted.clone());
        return Err(Box::new(Refused::TooOld { current, wanted, min: min.clone() }));
    }
    Ok(Choice::Take(Box::new(release.clone()), notes))
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoSuch { wanted, latest } => {
                write!(f, "there is no release {wanted}; the newest stable one is {latest}")
            }
            Self::Older { wanted, newest } => write!(
                f,
                "{wanted} is older than {newest}, which has been here already; if it is meant, say `--to {wanted} \
                 --allow-downgrade`"
            ),
            Self::Expired { version } => write!(
                f,
                "what the manifest says of {version} has expired, and the configuration refuses that (update.refuse_expired); \
                 try again when its publisher has renewed it"
            ),
            Self::TooOld { current, wanted, min } => write!(
                f,
                "{wanted} can be reached from {min} on, and this is {current}; update to {min} first (`--to {min}`)"
            ),
        }
    }
}

impl std::error::Error for Refused {}

#[cfg(test)]
mod tests {
    use super::*;

    fn v(text: &str) -> Version {
        text.parse().expect(text)
    }

    fn release(version: &str) -> Release {
        let url = |name: &str| format!("https://example.org/{version}/{name}");
        Release {
            version: v(version),
            tarball: url("t"),
            sums: url("s"),
            signature: url("g"),
            expires: None,
            min_version: None,
        }
    }

    fn manifest() -> Manifest {
        let expiring = Release { expires: Some(1000), ..release("v0.2.0") };
        let far = Release { min_version: Some(v("v0.2.0")), ..release("v0.3.0") };
        Manifest {
            latest_stable: v("v0.2.0"),
            releases: vec![release("v0.1.0"), expiring, far, release("v0.3.0-rc.1")],
        }
    }

    #[test]
    fn every_situation_has_its_outcome() {
        // What is here, the newest seen, the time, whether expired ones are refused; --to, --allow-downgrade; what comes of it.
        let table = [
            ("v0.1.0", None, 0, false, None, false, "v0.2.0"),
            ("v0.1.0", None, 1000, false, None, false, "v0.2.0, warned"),
            ("v0.1.0", None, 1000, true, None, false, "refused: expired"),
            ("v0.1.0", None, 999, true, None, false, "v0.2.0"),
            ("v0.2.0", None, 0, false, None, false, "up to date"),
            ("v0.2.0", None, 1000, true, None, false, "refused: expired"),
            ("v0.2.0", None, 1000, false, None, false, "up to date, warned"),
            ("v0.3.0", None, 0, false, None, false, "refused: older than v0.3.0"),
            ("v0.1.0", Some("v0.3.0"), 0, false, None, false, "refused: older than v0.3.0"),
            ("v0.2.0", Some("v0.3.0"), 0, false, None, false, "up to date, warned"),
            ("v0.2.0", Some("v0.3.0"), 0, false, Some("v0.2.0"), false, "up to date"),
            ("v0.1.0", Some("v0.3.0"), 0, false, Some("v0.2.0"), false, "refused: older than v0.3.0"),
            // The flag alone does not count: a version must have been meant.
            ("v0.3.0", None, 0, false, None, true, "refused: older than v0.3.0"),
            ("v0.3.0", None, 0, false, Some("v0.1.0"), false, "refused: older than v0.3.0"),
            ("v0.3.0", None, 0, false, Some("v0.1.0"), true, "v0.1.0"),
            ("v0.2.0", Some("v0.3.0"), 0, false, Some("v0.3.0"), false, "v0.3.0"),
            ("v0.1.0", None, 0, false, Some("v0.3.0"), false, "refused: from v0.2.0 on"),
            ("v0.2.0", None, 0, false, Some("v0.3.0"), false, "v0.3.0"),
            ("v0.2.0", None, 0, false, Some("v0.3.0-rc.1"), false, "v0.3.0-rc.1"),
            ("v0.3.0-rc.1", None, 0, false, None, false, "refused: older than v0.3.0-rc.1"),
            ("v0.2.0", None, 0, false, Some("v0.4.0"), false, "refused: no such"),
        ];
        for (current, newest, now, refuse_expired, to, allow_downgrade, want) in table {
            let here = Here { current: v(current), newest_seen: newest.map(v), now, refuse_expired };
            let wish = Wish { to: to.map(v), allow_downgrade };
            let got = match choose(&manifest(), &here, &wish).map_err(|refused| *refused) {
                Ok(Choice::UpToDate(notes)) if notes.is_empty() => "up to date".to_owned(),
                Ok(Choice::UpToDate(_)) => "up to date, warned".to_owned(),
                Ok(Choice::Take(release, notes)) if notes.is_empty() => release.version.to_string(),
                Ok(Choice::Take(release, _)) => format!("{}, warned", release.version),
                Err(Refused::NoSuch { .. }) => "refused: no such".to_owned(),
                Err(Refused::Older { newest, .. }) => format!("refused: older than {newest}"),
                Err(Refused::Expired { .. }) => "refused: expired".to_owned(),
                Err(Refused::TooOld { min, .. }) => format!("refused: from {min} on"),
            };
            assert_eq!(got, want, "{here:?} {wish:?}");
        }
    }

    #[test]
    fn a_refusal_says_what_to_do() {
        let older = Refused::Older { wanted: v("v0.1.0"), newest: v("v0.2.0") };
        assert!(older.to_string().ends_with("say `--to v0.1.0 --allow-downgrade`"), "{older}");
    }
}
