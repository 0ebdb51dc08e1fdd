//! What ssh must be told for a VM, as words of a command line or as lines of a configuration (ssh_config(5)), and how words are quoted.

use std::path::Path;

use super::Place;
use crate::cli::error::Error;

/// Keywords and values. `host` is what stands for the host's name: `%h`, or an id where that is known.
pub fn options(place: &Place, banger: &Path, host: &str) -> Vec<(&'static str, String)> {
    // A percent sign begins a token in each of these.
    let path = |path: &Path| format!("\"{}\"", path.display().to_string().replace('%', "%%"));
    let banger = word(&banger.display().to_string()).replace('%', "%%");
    vec![
        // Quoted, since a shell reads it: an old ssh takes `$(x).vm` for a host, which may come with a git submodule (CVE-2023-51385).
        ("ProxyCommand", format!("{banger} internal ssh-proxy -- '{host}'")),
        ("IdentityFile", path(&place.key)),
        // Not the agent's keys before ours: after a few that do not fit, sshd hangs up.
        ("IdentitiesOnly", "yes".to_owned()),
        ("UserKnownHostsFile", path(&place.known_hosts())),
        ("GlobalKnownHostsFile", "/dev/null".to_owned()),
        // The key is there before ssh asks for it.
        ("StrictHostKeyChecking", "yes".to_owned()),
        ("UpdateHostKeys", "no".to_owned()),
        ("CheckHostIP", "no".to_owned()),
        ("CanonicalizeHostname", "no".to_owned()),
        // What a person lends all their hosts (`Host *`) is not for a guest, whose root may be anybody; -A and -X still outrank this.
        ("ForwardAgent", "no".to_owned()),
        ("ForwardX11", "no".to_owned()),
        ("ForwardX11Trusted", "no".to_owned()),
        // Nor is a password that they type, nor a ticket of theirs: of what lets a user in, ssh tries nothing else. GSSAPIAuthentication is not
        // named, since an ssh that was built without it complains of the name each time, whatever IgnoreUnknown or LogLevel say.
        ("PreferredAuthentications", "publickey".to_owned()),
    ]
}

/// The configuration for all VMs.
pub fn configuration(place: &Place, banger: &Path) -> String {
    let mut text = format!(
        "# Written by `banger ssh-config`, which writes it anew: what is added here is lost.\nHost *.{}\n    User root\n",
        place.suffix
    );
    for (keyword, value) in options(place, banger, "%h") {
        text.push_str(&format!("    {keyword} {value}\n"));
    }
    text
}

/// A path that no quotes make safe in all the places where ssh reads it.
pub fn refuse_unspeakable(path: &Path) -> Result<(), Error> {
    match path.to_str() {
        Some(text) if !text.contains(['"', '\\', '\n', '\r']) && !text.contains("${") => Ok(()),
        _ => Err(Error::Refused(format!(
            "{path:?} cannot be written into ssh's configuration; move it, or set ssh_key_path or XDG_DATA_HOME"
        ))),
    }
}

/// `argv` as one line for a shell on the other side, which makes the same words of it.
pub fn line(argv: &[String]) -> String {
    argv.iter().map(|argument| word(argument)).collect::<Vec<_>>().join(" ")
}

/// One word for a shell.
fn word(text: &str) -> String {
    let plain = |b: u8| b.is_ascii_alphanumeric() || b"-_./:@%+,=".contains(&b);
    // `A=b` in front would be an assignment, and `~` is not plain at all.
    if !text.is_empty() && text.bytes().all(plain) && !text.contains('=') {
        return text.to_owned();
    }
    format!("'{}'", text.replace('\'', r"'\''"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::cmd;

    #[test]
    fn a_shell_makes_the_same_words_of_a_line() {
        let words = [
            "printf", "%s\\n", "", "a b", "it's", "'", "$HOME", "`id`", "a\nb", "A=b", "~", "*", "\\", "\"",
            "!x", "-n", "ü", "a;b", "#", "%d",
        ];
        let argv: Vec<String> = words.map(str::to_owned).to_vec();
        let said = cmd::run("sh", ["-c", &line(&argv)]).expect("runs");
        let want: String = argv[2..].iter().map(|word| format!("{word}\n")).collect();
        assert_eq!(String::from_utf8(said).expect("UTF-8"), want);
        assert_eq!(line(&["ls".to_owned(), "-l".to_owned(), "/a b".to_owned()]), "ls -l '/a b'");
    }

    #[test]
    fn ssh_reads_of_the_configuration_what_is_meant() {
        let dir = tempfile::tempdir().expect("a directory");
        let place =
            Place { dir: "/a b/100%/ssh".into(), key: "/a b/100%/key".into(), suffix: "vm".to_owned() };
        let file = dir.path().join("config");
        std::fs::write(&file, configuration(&place, Path::new("/it's 1%/banger"))).expect("writes");
        let read = |host: &str| {
            let out = cmd::run("ssh", ["-G", "-F", file.to_str().expect("UTF-8"), host]).expect("reads it");
            String::from_utf8(out).expect("UTF-8")
        };
        let vm = read("dev.vm");
        for line in [
            "user root",
            "identitiesonly yes",
            "stricthostkeychecking true",
            "proxycommand '/it'\\''s 1%%/banger' internal ssh-proxy -- '%h'",
            "globalknownhostsfile /dev/null",
        ] {
            assert!(vm.lines().any(|l| l == line), "{line}\n{vm}");
        }
        for path in ["identityfile /a b/100%", "userknownhostsfile "] {
            assert!(vm.lines().any(|l| l.starts_with(path)), "{path}\n{vm}");
        }
        assert!(!read("dev.example").contains("ssh-proxy"));
    }

    #[test]
    fn what_a_person_lends_all_hosts_is_not_lent_to_a_guest_unless_it_is_asked_for() {
        let dir = tempfile::tempdir().expect("a directory");
        let place = Place { dir: "/d".into(), key: "/d/key".into(), suffix: "vm".to_owned() };
        let (ours, theirs) = (dir.path().join("ours"), dir.path().join("theirs"));
        std::fs::write(&ours, configuration(&place, Path::new("/banger"))).expect("writes");
        let lent = "Host *\n ForwardAgent yes\n ForwardX11 yes\n ForwardX11Trusted yes\n \
                    PreferredAuthentications gssapi-with-mic,password\n";
        let include = format!("Include {}\n", ours.display());
        let read = |config: &str, words: &[&str], host: &str| {
            std::fs::write(&theirs, config).expect("writes");
            let args = [&["-G", "-F", theirs.to_str().expect("UTF-8")], words, &[host]].concat();
            String::from_utf8(cmd::run("ssh", args).expect("reads it")).expect("UTF-8")
        };
        let has = |said: &str, line: &str| said.lines().any(|l| l == line);
        let typed: Vec<String> = options(&place, Path::new("/banger"), "aa")
            .into_iter()
            .flat_map(|(keyword, value)| ["-o".to_owned(), format!("{keyword}={value}")])
            .collect();
        let typed: Vec<&str> = typed.iter().map(String::as_str).collect();
        for (config, words) in [(include + lent, vec![]), (lent.to_owned(), typed)] {
            let said = read(&config, &words, "dev.vm");
            for line in [
                "forwardagent no",
                "forwardx11 no",
                "forwardx11trusted no",
                "preferredauthentications publickey",
            ] {
                assert!(has(&said, line), "{line}\n{said}");
            }
            // As it was typed: behind the options, as `banger vm ssh` has it.
            let asked = read(&config, &[&words[..], &["-A"]].concat(), "dev.vm");
            assert!(has(&asked, "forwardagent yes"), "{asked}");
            assert!(has(&asked, "forwardx11 no"), "{asked}");
        }
        assert!(has(&read(lent, &[], "dev.example"), "forwardagent yes"), "others are left alone");
    }

    #[test]
    fn a_path_that_cannot_be_quoted_is_refused() {
        for bad in ["/a\"b", "/a\\b", "/${HOME}", "/a\nb"] {
            refuse_unspeakable(Path::new(bad)).expect_err(bad);
        }
        refuse_unspeakable(Path::new("/a b/ü%")).expect("fine");
    }
}
