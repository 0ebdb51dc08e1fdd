//! What a repository is like: its HEAD, what it is configured to, and which paths it holds, those of its submodules included.

use std::collections::HashSet;
use std::ffi::OsString;
use std::io::Read;
use std::path::PathBuf;

use super::error::WorkspaceError;
use super::index::{self, is_id};
use super::origin::without_credentials;
use super::source::{Found, in_the_way, open};
use super::tree::{Item, There, Tree};
use crate::git::index::Entry;
use crate::git::{Id, Mode, is_ref_name, parse_path};
use crate::host::cmd::CmdError;
use crate::host::cmd::git::Running;

/// A repository that has been read.
#[derive(Debug)]
pub struct Repo {
    pub found: Found,
    /// The commit that HEAD is at.
    pub head: String,
    /// The branch that HEAD is on; None: detached, or one whose name is no text, or none that can be made anew.
    pub branch: Option<String>,
    pub settings: Settings,
    /// As it is sent.
    pub index: Vec<u8>,
    /// Blobs that the index names.
    pub staged: HashSet<Id>,
    /// Commits that have lost their parents already.
    pub shallow: Vec<String>,
    /// Submodules with a work tree, by path relative to this repository's.
    pub submodules: Vec<(String, Repo)>,
}

/// What a guest needs of the configuration.
#[derive(Debug, Default)]
pub struct Settings {
    pub origin: Option<String>,
    pub user_name: Option<String>,
    pub user_email: Option<String>,
    pub exclude: String,
    /// Modes of files mean something here.
    pub file_mode: bool,
}

/// What there is to bring, and what is worth a word.
#[derive(Debug, Default)]
pub struct Listing {
    /// In the order of the index.
    pub items: Vec<Item>,
    /// Untracked files, whether they are brought or stay behind.
    pub untracked: Vec<Vec<u8>>,
    pub notes: Vec<String>,
}

/// Reads a repository and what it has on disk.
pub fn read(found: Found, with_untracked: bool) -> Result<(Repo, Listing), WorkspaceError> {
    let mut tree = Tree::open(&found.top, found.git.patience())?;
    let mut listing = Listing::default();
    let read = one(found, b"", &mut tree, with_untracked, &mut listing)?;
    Ok((read, listing))
}

/// The commit that `name` means; None: there is none.
pub fn commit(found: &Found, name: &str) -> Result<Option<String>, WorkspaceError> {
    let spec = format!("{name}^{{commit}}");
    let id = found.git.line(&["rev-parse", "--verify", "--quiet", "--end-of-options", &spec])?;
    Ok(id.filter(|id| is_id(id)))
}

/// The branch that HEAD is on.
pub fn branch(found: &Found) -> Result<Option<String>, WorkspaceError> {
    let full = found.git.line(&["rev-parse", "--symbolic-full-name", "HEAD"])?;
    let branch = full.as_deref().and_then(|full| full.strip_prefix("refs/heads/"));
    let fits = |branch: &&str| is_ref_name(branch) && !branch.contains(char::REPLACEMENT_CHARACTER);
    Ok(branch.filter(fits).map(str::to_owned))
}

/// A repository without its paths.
pub fn state(found: Found, notes: &mut Vec<String>) -> Result<Repo, WorkspaceError> {
    let top = found.top.display().to_string();
    let Some(head) = commit(&found, "HEAD")? else {
        return WorkspaceError::refused(format!(
            "{top} has no commit yet; make one, or bring the files alone with --copy"
        ));
    };
    let branch = branch(&found)?;
    let settings = settings(&found, notes)?;
    let shallow = found.file("shallow")?.unwrap_or_default();
    let shallow =
        String::from_utf8_lossy(&shallow).lines().filter(|id| is_id(id)).map(str::to_owned).collect();
    Ok(Repo {
        found,
        head,
        branch,
        settings,
        index: vec![],
        staged: HashSet::new(),
        shallow,
        submodules: vec![],
    })
}

fn one(
    found: Found,
    prefix: &[u8],
    tree: &mut Tree,
    with_untracked: bool,
    listing: &mut Listing,
) -> Result<Repo, WorkspaceError> {
    // It walks the directories while we do.
    let looking =
        found.git.start(&["ls-files", "-o", "--exclude-standard", "-z"], std::process::Stdio::null())?;
    let mut read = state(found, &mut listing.notes)?;
    let entries = entries(&read.found)?;
    read.index = index::written(&entries);
    let mut before: Option<Vec<u8>> = None;
    let mut looked = HashSet::new();
    for tracked in entries {
        // A path that is in conflict is there once for each side.
        if before.as_ref() != Some(&tracked.path) {
            ignores_are_files(&below(prefix, &tracked.path), &mut looked, tree)?;
            place(&mut read, prefix, &tracked, tree, with_untracked, listing)?;
            before = Some(tracked.path);
        }
        if tracked.mode != Mode::Gitlink {
            read.staged.insert(tracked.id);
        }
    }
    untracked(looking, prefix, tree, with_untracked, listing)?;
    Ok(read)
}

/// What the index says.
fn entries(found: &Found) -> Result<Vec<Entry>, WorkspaceError> {
    let format = found.format;
    let mut entries = index::parse(&found.git.read(&["ls-files", "-s", "-v", "-z"])?, format)?;
    if entries.iter().any(|entry| index::may_be_announced(entry, format)) {
        index::mark_announced(&mut entries, &found.git.read(&["ls-files", "-z", "--debug"])?, format);
    }
    Ok(entries)
}

/// Refuses where a `.gitignore` in a directory above `path` is no file: git would wait for it. `looked` knows directories that are fine.
fn ignores_are_files(
    path: &[u8],
    looked: &mut HashSet<Vec<u8>>,
    tree: &mut Tree,
) -> Result<(), WorkspaceError> {
    let mut above = path;
    while let Some(slash) = above.iter().rposition(|b| *b == b'/') {
        above = &path[..slash];
        if looked.contains(above) {
            break;
        }
        let file = below(above, b".gitignore");
        if let There::Special = tree.look(&file)? {
            return Err(in_the_way(&tree.shown(&file)));
        }
        looked.insert(above.to_vec());
    }
    Ok(())
}

/// Takes up a tracked path as it is on disk.
fn place(
    read: &mut Repo,
    prefix: &[u8],
    tracked: &Entry,
    tree: &mut Tree,
    with_untracked: bool,
    listing: &mut Listing,
) -> Result<(), WorkspaceError> {
    let path = below(prefix, &tracked.path);
    let there = tree.look(&path)?;
    match (there, tracked.mode) {
        (There::Item(mut item), mode) => {
            if !read.settings.file_mode && matches!(item.mode, Mode::File | Mode::Executable) {
                item.mode = if mode == Mode::Executable { mode } else { Mode::File };
            }
            listing.items.push(item);
        }
        (There::Directory, Mode::Gitlink) => match tree.look(&below(&path, b".git"))? {
            There::Nothing => listing.items.push(directory(path)),
            There::Item(_) | There::Directory | There::Special => {
                let top = tree.shown(&path);
                let found = open(&top, Some(&read.found.git_dir.join("modules")), read.found.git.patience())?;
                let Ok(name) = String::from_utf8(tracked.path.clone()) else {
                    return WorkspaceError::refused(format!(
                        "the submodule {} has a name that is no text",
                        top.display()
                    ));
                };
                if found.format != read.found.format {
                    return WorkspaceError::refused(format!(
                        "the submodule {} names its objects in another way than its repository",
                        top.display()
                    ));
                }
                let sub = one(found, &path, tree, with_untracked, listing)?;
                read.submodules.push((name, sub));
            }
        },
        // Deleted, or something that git would not have put there.
        (There::Directory | There::Nothing | There::Special, _) => {}
    }
    Ok(())
}

pub fn directory(path: Vec<u8>) -> Item {
    Item { path, mode: Mode::Directory, stamp: super::stamp::NEVER, size: 0, mtime: 0, blob: None }
}

/// `path` relative to what `prefix` is relative to.
fn below(prefix: &[u8], path: &[u8]) -> Vec<u8> {
    match prefix {
        b"" => path.to_vec(),
        prefix => [prefix, b"/", path].concat(),
    }
}

fn untracked(
    mut looking: Running,
    prefix: &[u8],
    tree: &mut Tree,
    bring: bool,
    listing: &mut Listing,
) -> Result<(), WorkspaceError> {
    let mut listed = vec![];
    let read = looking.stdout.take().map_or(Ok(0), |mut stdout| stdout.read_to_end(&mut listed));
    looking.finish_after(read.map(drop))?;
    for name in listed.split(|b| *b == 0).filter(|name| !name.is_empty()) {
        let path = below(prefix, name);
        if name.ends_with(b"/") {
            if bring {
                let shown = tree.shown(&path);
                listing
                    .notes
                    .push(format!("{} is a repository of its own and stays behind", shown.display()));
            }
            continue;
        }
        if bring {
            match (parse_path(&path), tree.look(&path)?) {
                (Ok(_), There::Item(item)) => listing.items.push(item),
                (Ok(_), There::Directory | There::Nothing | There::Special) => continue,
                (Err(e), _) => {
                    listing.notes.push(format!("{e}; it stays behind"));
                    continue;
                }
            }
        }
        listing.untracked.push(path);
    }
    Ok(())
}

/// One question for all of them: the values of keys in the order of the files, the last being the one that counts, but for the URL, of which
/// git fetches the first. What the repository's configuration includes does not count: it may be any file of the person's.
fn settings(found: &Found, notes: &mut Vec<String>) -> Result<Settings, WorkspaceError> {
    let keys = r"^(remote\.origin\.url|user\.name|user\.email|core\.filemode|extensions\.partialclone)$";
    let told =
        match found.git.read(&["config", "--null", "--show-scope", "--show-origin", "--get-regexp", keys]) {
            Ok(told) => told,
            Err(CmdError::Failed { status, .. }) if status.code() == Some(1) => vec![],
            Err(e) => return Err(e.into()),
        };
    let own = [found.common.join("config"), found.git_dir.join("config.worktree")];
    let own = own.map(|path| format!("file:{}", path.display()));
    let mut settings = parse_settings(&String::from_utf8_lossy(&told), &own, notes);
    settings.exclude = exclude(found)?;
    Ok(settings)
}

/// `told`: for each value its scope, the file that has it, and key and value in two lines, a NUL after each of them.
fn parse_settings(told: &str, own: &[String], notes: &mut Vec<String>) -> Settings {
    let mut settings = Settings { file_mode: true, ..Settings::default() };
    let mut has_origin = false;
    let words: Vec<&str> = told.split('\0').collect();
    for entry in words.chunks_exact(3) {
        let [scope, origin, value] = entry else { continue };
        let ours = !matches!(*scope, "local" | "worktree") || own.iter().any(|own| own == origin);
        let Some((key, value)) = value.split_once('\n').filter(|_| ours) else { continue };
        let plain = (!value.chars().any(char::is_control) && !value.is_empty()).then(|| value.to_owned());
        match key {
            "remote.origin.url" if !has_origin => {
                has_origin = true;
                settings.origin = without_credentials(value);
                if settings.origin.is_none() {
                    notes.push("the URL of origin is nothing for a guest and is left out".to_owned());
                }
            }
            "user.name" => settings.user_name = plain,
            "user.email" => settings.user_email = plain,
            "core.filemode" => settings.file_mode = !matches!(value, "false" | "no" | "off" | "0"),
            "extensions.partialclone" => {
                notes.push(
                    "it is a partial clone: what it has not fetched is missing in the guest too".to_owned(),
                );
            }
            _ => {}
        }
    }
    settings
}

/// What is ignored here beside what the tree's own .gitignore files say. The file of the person's own is asked of their configuration alone:
/// a repository could name any file of theirs.
pub fn exclude(found: &Found) -> Result<String, WorkspaceError> {
    let args = ["config", "--global", "--includes", "--path", "--get", "core.excludesFile"];
    let named = match found.git.line(&args) {
        Ok(named) => named.map(PathBuf::from),
        Err(CmdError::Failed { .. }) => None,
        Err(e) => return Err(e.into()),
    };
    let config = std::env::var_os("XDG_CONFIG_HOME").filter(|dir| !dir.is_empty()).map(PathBuf::from);
    let home = || std::env::var_os("HOME").map(|home: OsString| PathBuf::from(home).join(".config"));
    let own = named.or_else(|| config.or_else(home).map(|dir| dir.join("git/ignore")));
    let own = own.filter(|path| path.is_file()).and_then(|path| std::fs::read(path).ok()).unwrap_or_default();
    let shared = found.file("info/exclude")?.unwrap_or_default();
    let mut text = String::from_utf8_lossy(&own).into_owned();
    if !text.is_empty() && !text.ends_with('\n') {
        text.push('\n');
    }
    text.push_str(&String::from_utf8_lossy(&shared));
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_are_taken_without_what_could_become_other_settings() {
        let own = ["file:/r/.git/config".to_owned()];
        let said = |scope: &str, file: &str, value: &str| format!("{scope}\0file:{file}\0{value}\0");
        let local = |value: &str| said("local", "/r/.git/config", value);
        let told = [
            said("global", "/home/me/.gitconfig", "user.name\nA"),
            local("remote.origin.url\nhttps://u:p@h/a"),
            local("remote.origin.url\nhttps://second/"),
            local("user.name\nB C"),
            said("local", "/home/me/other/.git/config", "user.name\nSecret"),
            local("user.email\na\r\n[core]"),
            local("core.filemode\nfalse"),
            local("bare"),
        ]
        .concat();
        let mut notes = vec![];
        let settings = parse_settings(&told, &own, &mut notes);
        assert_eq!(settings.origin.as_deref(), Some("https://h/a"));
        assert_eq!(settings.user_name.as_deref(), Some("B C"));
        assert_eq!(settings.user_email, None);
        assert!(!settings.file_mode);
        assert_eq!(notes, [""; 0]);
        parse_settings(&local("remote.origin.url\nhttps://h/a\r"), &own, &mut notes);
        assert_eq!(notes.len(), 1);
    }
}
