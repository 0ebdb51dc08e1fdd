//! git's config, as text: what a repository of the guest is told.

use super::Format;

/// Renders a repository's config. No value can become another key, whatever is in it.
pub fn render(
    format: Format,
    origin: Option<&str>,
    user_name: Option<&str>,
    user_email: Option<&str>,
) -> String {
    let mut text = "[core]\n".to_owned();
    // Extensions count from version 1 on (gitrepository-layout).
    let version = if format == Format::Sha1 { "0" } else { "1" };
    for (key, value) in [
        ("repositoryformatversion", version),
        ("filemode", "true"),
        ("bare", "false"),
        ("logallrefupdates", "true"),
    ] {
        text += &format!("\t{key} = {value}\n");
    }
    if format != Format::Sha1 {
        text += &format!("[extensions]\n\tobjectformat = {}\n", format.name());
    }
    if let Some(url) = origin {
        text += &format!(
            "[remote \"origin\"]\n\turl = {}\n\tfetch = +refs/heads/*:refs/remotes/origin/*\n",
            quoted(url)
        );
    }
    if user_name.is_some() || user_email.is_some() {
        text += "[user]\n";
    }
    for (key, value) in [("name", user_name), ("email", user_email)] {
        if let Some(value) = value {
            text += &format!("\t{key} = {}\n", quoted(value));
        }
    }
    text
}

/// A value in quotes (git-config, SYNTAX). What a config cannot hold is left out: NUL, and CR, which older gits lose at a line's end.
fn quoted(value: &str) -> String {
    let mut text = String::from('"');
    for c in value.chars() {
        match c {
            '"' | '\\' => text.extend(['\\', c]),
            '\n' => text += "\\n",
            '\t' => text += "\\t",
            '\u{8}' => text += "\\b",
            '\0' | '\r' => {}
            c => text.push(c),
        }
    }
    text.push('"');
    text
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    #[test]
    fn git_reads_the_values_as_they_were_and_nothing_else() {
        let dir = tempfile::tempdir().expect("a directory");
        let file = dir.path().join("config");
        let evil = "x\" # ; \\\n[core]\n\tfsmonitor = touch /tmp/x\\";
        std::fs::write(&file, render(Format::Sha256, Some(evil), Some(" A \"B\"\t"), Some("a@b\r")))
            .expect("writes");
        let out = Command::new("git")
            .args(["config", "-z", "--list", "--file"])
            .arg(&file)
            .output()
            .expect("runs git");
        let text = String::from_utf8(out.stdout).expect("text");
        let keys: Vec<&str> = text.split('\0').filter(|s| !s.is_empty()).collect();
        let url = format!("remote.origin.url\n{evil}");
        assert_eq!(
            keys,
            [
                "core.repositoryformatversion\n1",
                "core.filemode\ntrue",
                "core.bare\nfalse",
                "core.logallrefupdates\ntrue",
                "extensions.objectformat\nsha256",
                url.as_str(),
                "remote.origin.fetch\n+refs/heads/*:refs/remotes/origin/*",
                "user.name\n A \"B\"\t",
                "user.email\na@b",
            ]
        );
    }
}
