//! The guest's agent itself, with its work tree in a directory of this machine: what each side says is what the other one hears.

use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

use super::{Host, git};
use crate::cli::client::Attention;
use crate::cli::render::Progress;
use crate::cli::workspace::error::WorkspaceError;
use crate::cli::workspace::export::{How, Origin, Patch};
use crate::cli::workspace::gather::Gathered;
use crate::cli::workspace::source::Source;
use crate::cli::workspace::{Done, Guest as Met, bring};
use crate::guest::wire::Wire;
use crate::guest::workspace;
use crate::host::cmd::git::Patience;
use crate::proto::agent::{Answer, Request};
use crate::proto::frame::Frame;
use crate::proto::workspace::{Changes, Prepare};

pub struct Agent {
    dir: tempfile::TempDir,
}

impl Agent {
    pub fn new() -> Self {
        // In memory: a prepare waits for its whole file system to be on the disk.
        Self { dir: tempfile::tempdir_in("/dev/shm").expect("a directory") }
    }

    pub fn top(&self) -> PathBuf {
        self.dir.path().join("root/repo")
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.top().join(name)
    }

    pub fn git(&self, args: &[&str]) -> String {
        git(&self.top(), args)
    }

    pub fn write(&self, name: &str, text: &str) {
        let path = self.path(name);
        std::fs::create_dir_all(path.parent().expect("a parent")).expect("makes");
        std::fs::write(path, text).expect("writes");
    }

    pub fn read(&self, name: &str) -> Option<String> {
        std::fs::read_to_string(self.path(name)).ok()
    }

    pub fn prepare(&self, gathered: &Gathered, force: bool) -> Result<Done, WorkspaceError> {
        let mut progress = Progress::silent();
        self.asked(Request::Prepare(Prepare { path: self.guest_path(), present: true }), |met| {
            bring(gathered, met, force, &mut Attention::to(&mut progress))
        })
    }

    /// What `banger vm workspace export` prints.
    pub fn patch(&self, host: &Host) -> String {
        let found = match Source::find(&host.top(), false, &Patience::default()).expect("is found") {
            Source::Repository(found) => Some(found),
            Source::Plain(_) => None,
        };
        let origin = Origin { found, cache: self.dir.path().join("cache"), patience: Patience::default() };
        let mut progress = Progress::silent();
        let mut attention = Attention::to(&mut progress);
        let asked = Request::Changes(Changes { path: self.guest_path(), all: false });
        let patch = self.asked(asked, |met| Patch::make(&origin, met, None, &mut attention));
        let mut text = vec![];
        assert!(patch.expect("is made").write(How::Patch, &mut text).is_ok());
        String::from_utf8(text).expect("text")
    }

    fn guest_path(&self) -> String {
        self.top().to_str().expect("text").to_owned()
    }

    /// Asks the agent, and acts on what it holds.
    pub fn asked<T>(
        &self,
        request: Request,
        act: impl FnOnce(Met) -> Result<T, WorkspaceError>,
    ) -> Result<T, WorkspaceError> {
        let ledgers = self.dir.path().join("ledgers");
        let (mut near, far) = UnixStream::pair().expect("a pair");
        std::thread::scope(|scope| {
            scope.spawn(move || serve(far, &request, &ledgers));
            let answer = Frame::read(&mut near).expect("reads").expect("an answer");
            match serde_json::from_slice(&answer.payload).expect("an answer") {
                Answer::Held(held) => act(Met { held: *held, connection: near.into() }),
                Answer::Refused(refusal) => WorkspaceError::refused(refusal.message),
                other => panic!("{other:?}"),
            }
        })
    }
}

fn serve(far: UnixStream, request: &Request, ledgers: &Path) {
    let mut wire = Wire::new(far.into()).expect("a wire");
    // A host that has hung up is no failure of the agent's.
    drop(match request {
        Request::Prepare(wanted) => workspace::prepare(&mut wire, wanted, ledgers),
        Request::Changes(wanted) => workspace::changes(&mut wire, wanted, ledgers),
        other => panic!("{other:?}"),
    });
    drop(wire.finish());
}
