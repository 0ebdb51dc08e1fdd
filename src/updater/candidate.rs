//! What an executable says of itself, before it is trusted with anything.

use std::process::Output;

use serde::Deserialize;

use crate::release::version::Version;
use crate::updater::error::{At, UpdateError};
use crate::updater::program::{As, Program, last_words};

/// What an executable is, in its own words.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct About {
    pub version: Version,
    pub commit: String,
    /// RFC 3339, UTC.
    pub built_at: String,
}

/// What it would do to the database.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Migration {
    None,
    /// The database will be of another schema afterwards.
    Will,
}

/// The version that a program says it has.
pub fn version(program: &Program<'_>) -> Result<Version, UpdateError> {
    let output = program.run(As::Owner, "banger", &["--version"]).map_err(At::Check.program())?;
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    let version = Version::of_line(said.lines().next().unwrap_or_default());
    version.filter(|_| output.status.success()).ok_or_else(|| {
        At::Check.said(format!("it does not say its version ({}): {}", output.status, last_words(&output)))
    })
}

/// Accepts a program that says that it has `expected`.
pub fn is(program: &Program<'_>, expected: &Version) -> Result<(), UpdateError> {
    match version(program)? {
        found if found == *expected => Ok(()),
        found => {
            Err(At::Check.said(format!("the release was to be {expected}, and says that it is {found}")))
        }
    }
}

/// All that it says of itself. An older one may not know the longer form.
pub fn about(program: &Program<'_>) -> Result<About, UpdateError> {
    let output = program.run(As::Owner, "banger", &["version"]).map_err(At::Check.program())?;
    if output.status.success()
        && let Some(about) = long(&String::from_utf8_lossy(&output.stdout))
    {
        return Ok(about);
    }
    let output = program.run(As::Owner, "banger", &["--version"]).map_err(At::Check.program())?;
    let line = String::from_utf8_lossy(&output.stdout).into_owned();
    short(&line)
        .ok_or_else(|| At::Check.said(format!("it does not say its version: {}", last_words(&output))))
}

/// Lines of `name: value`, as `banger version` prints them.
fn long(text: &str) -> Option<About> {
    let field = |name: &str| {
        let mut fields = text.lines().filter_map(|line| line.split_once(':'));
        fields.find(|(found, _)| *found == name).map(|(_, value)| value.trim().to_owned())
    };
    Some(About {
        version: field("version")?.parse().ok()?,
        commit: field("commit")?,
        built_at: field("built_at")?,
    })
}

/// `banger v0.1.0 (commit abcd1234, built 2026-11-23T15:00:00Z)`.
fn short(text: &str) -> Option<About> {
    let line = text.lines().next()?;
    let version = Version::of_line(line)?;
    let (_, rest) = line.split_once("(commit ")?;
    let (commit, built_at) = rest.strip_suffix(')')?.split_once(", built ")?;
    Some(About { version, commit: commit.to_owned(), built_at: built_at.to_owned() })
}

/// What it says of the database of the installation.
pub fn migration(program: &Program<'_>) -> Result<Migration, UpdateError> {
    let output = program
        .run(As::Owner, "bangerd", &["--check-migrations", "--system"])
        .map_err(At::Check.program())?;
    judge(&output)
}

fn judge(output: &Output) -> Result<Migration, UpdateError> {
    let words = last_words(output);
    match output.status.code() {
        Some(0) => Ok(Migration::None),
        Some(1) => Ok(Migration::Will),
        Some(2) => Err(At::Check.said(format!("it cannot work with the database that is here: {words}"))),
        _ => Err(At::Check.said(format!("it cannot judge the database ({}): {words}", output.status))),
    }
}

/// What becomes of a file of the installation.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Change {
    pub path: std::path::PathBuf,
    pub change: Kind,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    Create,
    Replace,
    Remove,
    Keep,
    /// A later banger's word for a change.
    #[serde(other)]
    Other,
}

/// The files that it would bring to what it wants; or, not `dry`, what it has done.
pub fn refresh(program: &Program<'_>, dry: bool) -> Result<Vec<Change>, UpdateError> {
    let args: &[&str] =
        if dry { &["system", "refresh", "--dry-run", "--json"] } else { &["system", "refresh", "--json"] };
    let at = if dry { At::Check } else { At::Swap };
    let output = program.run(As::Us, "banger", args).map_err(at.program())?;
    if !output.status.success() {
        return Err(at.said(format!("it cannot bring units and links up to date: {}", last_words(&output))));
    }
    serde_json::from_slice(&output.stdout)
        .map_err(|e| at.said(format!("what it says of units and links is not understood: {e}")))
}

#[cfg(test)]
mod tests {
    use std::os::unix::process::ExitStatusExt;
    use std::process::ExitStatus;

    use super::*;

    fn ended(code: i32) -> Output {
        Output { status: ExitStatus::from_raw(code << 8), stdout: b"too new: x\n".to_vec(), stderr: vec![] }
    }

    #[test]
    fn both_forms_of_a_version_are_read() {
        let text = "version:  v0.2.0\ncommit:   abc\nbuilt_at: 2026-11-23T15:00:00Z\ntarget:   x\n";
        let about = long(text).expect("about it");
        assert_eq!((about.version.to_string().as_str(), about.commit.as_str()), ("v0.2.0", "abc"));
        assert_eq!(about.built_at, "2026-11-23T15:00:00Z");
        assert_eq!(short("banger v0.2.0 (commit abc, built 2026-11-23T15:00:00Z)\n"), Some(about));
        assert_eq!((long(""), short("banger v0.2.0"), short("")), (None, None, None));
    }

    #[test]
    fn a_later_banger_may_have_more_words_for_changes() {
        let text = r#"[{"path": "/a", "change": "keep"}, {"path": "/b", "change": "mend", "why": "x"}]"#;
        let changes: Vec<Change> = serde_json::from_str(text).expect("changes");
        assert_eq!(changes.iter().map(|c| c.change).collect::<Vec<_>>(), [Kind::Keep, Kind::Other]);
    }

    #[test]
    fn only_0_and_1_let_an_update_go_on() {
        assert_eq!(judge(&ended(0)).expect("compatible"), Migration::None);
        assert_eq!(judge(&ended(1)).expect("will migrate"), Migration::Will);
        let error = judge(&ended(2)).expect_err("too new").to_string();
        assert_eq!(error, "check: it cannot work with the database that is here: too new: x");
        for code in [3, 127] {
            let error = judge(&ended(code)).expect_err("no verdict").to_string();
            assert!(error.starts_with("check: it cannot judge the database"), "{error}");
        }
        judge(&Output { status: ExitStatus::from_raw(9), stdout: vec![], stderr: vec![] })
            .expect_err("killed");
    }
}
