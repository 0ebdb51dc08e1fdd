//! What doctor says before and after a swap, and whether an update may stay.

use std::collections::BTreeSet;
use std::process::Output;

use serde::Deserialize;

/// A row of `banger doctor --json`; what else is in it is for people.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Row {
    pub subject: String,
    pub verdict: String,
    #[serde(default)]
    pub found: String,
}

/// What a run of doctor said; None: nothing that can be understood.
pub fn rows(output: &Output) -> Option<Vec<Row>> {
    let rows: Vec<Row> = serde_json::from_slice(&output.stdout).ok()?;
    // It exits with 1 if something fails.
    matches!(output.status.code(), Some(0 | 1)).then_some(rows)
}

/// What fails now and did not before: a host that lacked something must not be unable to update. `before`: None where nobody could
/// be asked; then all that fails counts. Sentences.
pub fn worse(before: Option<&[Row]>, now: &[Row]) -> Vec<String> {
    let fails = |row: &&Row| row.verdict == "fail";
    let known: BTreeSet<&str> =
        before.unwrap_or_default().iter().filter(fails).map(|row| row.subject.as_str()).collect();
    let new = now.iter().filter(fails).filter(|row| !known.contains(row.subject.as_str()));
    new.map(|row| format!("{}: {}", row.subject, row.found)).collect()
}

#[cfg(test)]
mod tests {
    use std::os::unix::process::ExitStatusExt;
    use std::process::ExitStatus;

    use super::*;

    fn row(subject: &str, verdict: &str) -> Row {
        Row { subject: subject.to_owned(), verdict: verdict.to_owned(), found: "bad".to_owned() }
    }

    #[test]
    fn only_what_did_not_fail_before_counts() {
        let now = [row("kvm", "fail"), row("bridge", "fail"), row("dns", "warn"), row("x", "pass")];
        let before = [row("kvm", "fail"), row("bridge", "pass"), row("dns", "fail")];
        assert_eq!(worse(Some(&before), &now), ["bridge: bad"]);
        assert_eq!(worse(None, &now), ["kvm: bad", "bridge: bad"]);
        assert_eq!(worse(Some(&now), &now), [""; 0]);
    }

    #[test]
    fn what_is_no_list_of_rows_is_no_answer() {
        let output = |text: &str, code: i32| Output {
            status: ExitStatus::from_raw(code << 8),
            stdout: text.as_bytes().to_vec(),
            stderr: vec![],
        };
        let text = r#"[{"subject": "kvm", "verdict": "fail", "found": "bad", "advice": "none"}]"#;
        assert_eq!(rows(&output(text, 1)), Some(vec![row("kvm", "fail")]));
        assert_eq!(rows(&output("[]", 0)), Some(vec![]));
        for (text, code) in [("", 1), ("{}", 0), (text, 2), ("usage", 1)] {
            assert_eq!(rows(&output(text, code)), None, "{text}");
        }
    }
}
