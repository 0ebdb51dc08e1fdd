//! A repository's objects, one by one. Which commits a guest gets is found by a walk here (`git::history`), over `cat-file --batch`, as its
//! result is needed in every detail: what has been walked, and whose parents have not. A guest that has a part already is described by the
//! same kind of walk.

use std::collections::HashMap;
use std::io::{BufRead, BufReader, Read as _, Write};
use std::process::Stdio;

use super::error::WorkspaceError;
use crate::git::history::parents_of;
use crate::host::cmd::git::{Git, Running, Stdin, Stdout};

/// Reads objects, one at a time, out of one `git cat-file --batch`.
pub struct Objects {
    running: Running,
    stdin: Stdin,
    stdout: BufReader<Stdout>,
    parents: HashMap<String, Vec<String>>,
}

/// The largest commit that is read.
const MAX_COMMIT: u64 = 16 << 20;

impl Objects {
    pub fn open(git: &Git) -> Result<Self, WorkspaceError> {
        let mut running = git.start(&["cat-file", "--batch"], Stdio::piped())?;
        match (running.stdin.take(), running.stdout.take()) {
            (Some(stdin), Some(stdout)) => {
                let stdout = BufReader::with_capacity(64 * 1024, stdout);
                Ok(Self { running, stdin, stdout, parents: HashMap::new() })
            }
            _ => WorkspaceError::refused("git has no pipes"),
        }
    }

    /// Ends it; an error of git's own that made a read fail is known by then.
    pub fn close(self) -> Result<(), WorkspaceError> {
        let Self { running, stdin, stdout, .. } = self;
        drop((stdin, stdout));
        Ok(running.finish()?)
    }

    /// The size of `id`, whose content is to be read next, to its last byte and the newline behind it; None: it is not there.
    pub fn find(&mut self, id: &str, kind: &str) -> Result<Option<u64>, WorkspaceError> {
        let mut line = String::new();
        self.moved(|o| {
            o.stdin.write_all(format!("{id}\n").as_bytes())?;
            o.stdout.read_line(&mut line)
        })?;
        let words: Vec<&str> = line.split_whitespace().collect();
        match words[..] {
            [_, "missing"] => Ok(None),
            [_, is, size] if is == kind => match size.parse() {
                Ok(size) => Ok(Some(size)),
                Err(_) => WorkspaceError::refused(format!("git says {line:?} of the object {id}")),
            },
            _ => WorkspaceError::refused(format!("the object {id} is no {kind} but {:?}", line.trim_end())),
        }
    }

    /// The content that [`Objects::find`] has announced.
    pub fn content(&mut self) -> &mut BufReader<Stdout> {
        &mut self.stdout
    }

    /// The newline behind a content.
    pub fn end(&mut self) -> Result<(), WorkspaceError> {
        self.moved(|o| o.stdout.read_exact(&mut [0])).map(drop)
    }

    /// The parents of a commit; None: it is not there.
    pub fn parents(&mut self, id: &str) -> Result<Option<Vec<String>>, WorkspaceError> {
        if let Some(known) = self.parents.get(id) {
            return Ok(Some(known.clone()));
        }
        let Some(size) = self.find(id, "commit")? else { return Ok(None) };
        if size > MAX_COMMIT {
            return WorkspaceError::refused(format!("the commit {id} has {size} bytes"));
        }
        let mut text = vec![0; size as usize];
        self.moved(|o| o.stdout.read_exact(&mut text))?;
        self.end()?;
        let parents = parents_of(&text);
        self.parents.insert(id.to_owned(), parents.clone());
        Ok(Some(parents))
    }

    /// Parents that have been asked for before.
    pub fn known(&self, id: &str) -> Vec<String> {
        self.parents.get(id).cloned().unwrap_or_default()
    }

    fn moved<T>(
        &mut self,
        mut act: impl FnMut(&mut Self) -> std::io::Result<T>,
    ) -> Result<T, WorkspaceError> {
        act(self).map_err(|e| self.broken(e))
    }

    /// The error that reading a content was.
    pub fn broken(&self, e: std::io::Error) -> WorkspaceError {
        self.running.doing().failed(e).into()
    }
}
