//! `[[file_sync]]`: files of the owner's that every VM gets when it starts.

use std::path::{Component, Path, PathBuf};

/// One entry, whose rules have been looked at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileSync {
    /// The owner's home, out of which no symlink may lead.
    pub home: PathBuf,
    /// Absolute; below the owner's home, as far as its text says.
    pub host: PathBuf,
    /// Absolute, below /root.
    pub guest: PathBuf,
    /// Of a file; None: 0600.
    pub mode: Option<u32>,
}

/// Reads the list.
///
/// # Errors
/// A sentence about the first entry that is wrong, with its number.
pub fn parse(value: &toml::Value, home: Option<&Path>) -> Result<Vec<FileSync>, String> {
    let list = value.as_array().ok_or("file_sync: it is a list; write each entry below [[file_sync]]")?;
    let numbered = list.iter().enumerate();
    numbered
        .map(|(at, entry)| one(entry, home).map_err(|why| format!("file_sync: entry {}: {why}", at + 1)))
        .collect()
}

fn one(entry: &toml::Value, home: Option<&Path>) -> Result<FileSync, String> {
    let table = entry.as_table().ok_or("it has no keys; it takes host, guest and mode")?;
    if let Some(other) = table.keys().find(|key| !matches!(key.as_str(), "host" | "guest" | "mode")) {
        return Err(format!("there is no key {other:?}; it takes host, guest and mode"));
    }
    let text = |key: &str| match table.get(key) {
        Some(toml::Value::String(text)) if !text.is_empty() => Ok(text.as_str()),
        Some(toml::Value::String(_)) => Err(format!("{key} is empty")),
        Some(_) => Err(format!("{key} is no text")),
        None => Err(format!("{key} is missing")),
    };
    let host = text("host")?;
    let guest = text("guest")?;
    let mode = table.get("mode").map(|_| text("mode").and_then(mode)).transpose()?;
    let home = home.ok_or("nothing says where your home is; HOME is not set")?;
    Ok(FileSync { home: home.to_owned(), host: host_path(host, home)?, guest: guest_path(guest)?, mode })
}

fn host_path(text: &str, home: &Path) -> Result<PathBuf, String> {
    let expanded = match text.strip_prefix("~/") {
        Some(rest) => home.join(plain("host", rest)?),
        None if text.starts_with('~') => return Err(foreign("host", text)),
        None if text.starts_with('/') => Path::new("/").join(plain("host", text)?),
        None => return Err(format!("host {text:?} is no absolute path; begin it with ~/ or /")),
    };
    match expanded.starts_with(home) {
        true => Ok(expanded),
        false => Err(format!("host {text:?} is not in your home, {}", home.display())),
    }
}

fn guest_path(text: &str) -> Result<PathBuf, String> {
    let below = match (text.strip_prefix("~/"), text.strip_prefix("/root/")) {
        (Some(rest), _) | (None, Some(rest)) => plain("guest", rest)?,
        (None, None) if text.starts_with('~') && text != "~" => return Err(foreign("guest", text)),
        (None, None) => {
            return Err(format!("guest {text:?} is not in root's home; begin it with ~/ or /root/"));
        }
    };
    if below.as_os_str().is_empty() {
        return Err(format!("guest {text:?} is root's home itself; name what is in it"));
    }
    Ok(Path::new("/root").join(below))
}

/// A path below something, without what leads out of it.
fn plain(key: &str, text: &str) -> Result<PathBuf, String> {
    let mut path = PathBuf::new();
    for component in Path::new(text).components() {
        match component {
            Component::Normal(part) => path.push(part),
            Component::CurDir | Component::RootDir => {}
            Component::ParentDir | Component::Prefix(_) => {
                return Err(format!("{key} holds .., which leads elsewhere; write the path without it"));
            }
        }
    }
    match text.contains('\0') {
        true => Err(format!("{key} holds a NUL")),
        false => Ok(path),
    }
}

fn foreign(key: &str, text: &str) -> String {
    format!("{key} {text:?} is in somebody else's home; begin it with ~/")
}

fn mode(text: &str) -> Result<u32, String> {
    let octal = matches!(text.len(), 3 | 4) && text.bytes().all(|b| matches!(b, b'0'..=b'7'));
    let mode = octal.then(|| u32::from_str_radix(text, 8).ok()).flatten().filter(|mode| *mode <= 0o777);
    mode.ok_or_else(|| format!("mode {text:?} is none; write it like '0600'"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Vec<FileSync>, String> {
        let table: toml::Table = text.parse().expect("TOML");
        parse(&table["file_sync"], Some(Path::new("/home/me")))
    }

    fn why(host: &str, guest: &str, mode: &str) -> String {
        let text = format!(
            "[[file_sync]]\nhost = '~/ok'\nguest = '~/ok'\n[[file_sync]]\nhost = '{host}'\nguest = '{guest}'\n{mode}"
        );
        let why = read(&text).expect_err(&text);
        why.strip_prefix("file_sync: entry 2: ").expect(&why).to_owned()
    }

    #[test]
    fn paths_begin_at_both_homes() {
        let list = read(
            "[[file_sync]]\nhost = '~/.gitconfig'\nguest = '~/.gitconfig'\n\
             [[file_sync]]\nhost = '/home/me/./.config//gh/'\nguest = '/root/.config/gh'\nmode = '0644'",
        )
        .expect("a list");
        let entry = |host: &str, guest: &str, mode| FileSync {
            home: "/home/me".into(),
            host: host.into(),
            guest: guest.into(),
            mode,
        };
        assert_eq!(
            list,
            [
                entry("/home/me/.gitconfig", "/root/.gitconfig", None),
                entry("/home/me/.config/gh", "/root/.config/gh", Some(0o644)),
            ]
        );
    }

    #[test]
    fn what_leads_elsewhere_is_refused_with_the_number_of_its_entry() {
        let table = [
            ("", "~/x", "host is empty"),
            ("~/x", "", "guest is empty"),
            ("x", "~/x", "host \"x\" is no absolute path; begin it with ~/ or /"),
            ("~/../x", "~/x", "host holds .., which leads elsewhere; write the path without it"),
            ("/home/me/../you/x", "~/x", "host holds .., which leads elsewhere; write the path without it"),
            ("~you/x", "~/x", "host \"~you/x\" is in somebody else's home; begin it with ~/"),
            ("/etc/passwd", "~/x", "host \"/etc/passwd\" is not in your home, /home/me"),
            ("/home/mean/x", "~/x", "host \"/home/mean/x\" is not in your home, /home/me"),
            ("~/x", "/etc/x", "guest \"/etc/x\" is not in root's home; begin it with ~/ or /root/"),
            ("~/x", "x", "guest \"x\" is not in root's home; begin it with ~/ or /root/"),
            ("~/x", "~", "guest \"~\" is not in root's home; begin it with ~/ or /root/"),
            ("~/x", "/root/", "guest \"/root/\" is root's home itself; name what is in it"),
            ("~/x", "/root/../etc/x", "guest holds .., which leads elsewhere; write the path without it"),
            ("~/x", "~app/x", "guest \"~app/x\" is in somebody else's home; begin it with ~/"),
        ];
        for (host, guest, want) in table {
            assert_eq!(why(host, guest, ""), want, "{host} {guest}");
        }
        for bad in ["6", "rw", "0800", "04755", "1777", "0o600", ""] {
            assert!(why("~/x", "~/x", &format!("mode = '{bad}'")).starts_with("mode"), "{bad}");
        }
        assert_eq!(why("~/x", "~/x", "mode = 600"), "mode is no text");
        assert_eq!(
            why("~/x", "~/x", "user = 'a'"),
            "there is no key \"user\"; it takes host, guest and mode"
        );
        assert!(read("file_sync = 'x'").expect_err("no list").contains("it is a list"));
    }
}
