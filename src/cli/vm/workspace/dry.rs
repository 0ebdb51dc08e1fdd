//! What would travel, for people and for programs.

use serde::Serialize;

use crate::cli::error::Error;
use crate::cli::render;
use crate::cli::workspace::{Done, Gathered};

#[derive(Serialize)]
struct View<'a> {
    source: String,
    guest_path: &'a str,
    /// Null for a plain copy.
    head: Option<&'a str>,
    branch: Option<&'a str>,
    paths: Vec<PathView>,
    files: usize,
    /// Of the files.
    bytes: u64,
    removed: usize,
    commits: usize,
    /// Untracked files.
    stay_behind: Vec<String>,
    notes: &'a [String],
}

#[derive(Serialize)]
struct PathView {
    path: String,
    mode: &'static str,
    bytes: u64,
}

/// Shows what of `gathered` would be `sent`, and what that would come to.
pub fn show(
    gathered: &Gathered,
    guest_path: &str,
    sent: &[bool],
    done: &Done,
    json: bool,
) -> Result<(), Error> {
    let text = |path: &[u8]| String::from_utf8_lossy(path).into_owned();
    let items = gathered.items.iter().zip(sent).filter(|(_, sent)| **sent);
    let paths: Vec<PathView> = items
        .map(|(item, _)| PathView { path: text(&item.path), mode: item.mode.word(), bytes: item.size })
        .collect();
    let brought = gathered.repository.as_ref();
    let view = View {
        source: gathered.top.to_string_lossy().into_owned(),
        guest_path,
        head: brought.map(|brought| brought.head.as_str()),
        branch: brought.and_then(|brought| brought.branch.as_deref()),
        files: paths.len(),
        paths,
        bytes: done.bytes,
        removed: done.removed,
        commits: done.commits,
        stay_behind: gathered.behind.iter().map(|path| text(path)).collect(),
        notes: &gathered.notes,
    };
    if json {
        return render::json(&view);
    }
    let mut out = String::new();
    for path in &view.paths {
        out.push_str(&format!("{:>10}  {}\n", render::bytes(path.bytes), render::escape(&path.path)));
    }
    let removed = if view.removed > 0 { format!(", {} removed", view.removed) } else { String::new() };
    let line = format!(
        "{} -> {}: {} files ({}){removed}, {} commits",
        view.source,
        view.guest_path,
        view.files,
        render::bytes(view.bytes),
        view.commits
    );
    out.push_str(&format!("{}\n", render::escape(&line)));
    for path in &view.stay_behind {
        out.push_str(&format!("stays behind: {}\n", render::escape(path)));
    }
    render::out(&out)?;
    view.notes.iter().for_each(|note| render::say(note));
    Ok(())
}
