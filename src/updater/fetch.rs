//! Fetching a release's parts: never more than they may be, and never for ever.

use std::fs::File;
use std::io::{self, Read, Write};
use std::time::{Duration, Instant};

use crate::host::environment::Environment;
use crate::host::fetch::{self, FetchError, Validators};
use crate::host::https::{Client, STALLED};
use crate::host::location::Location;
use crate::host::progress::{Progress, Unit};
use crate::updater::error::{At, UpdateError};

/// The longest tarball, in bytes.
pub const MAX_TARBALL: u64 = 256 << 20;

/// How long things may take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Patience {
    /// For a server to send anything more.
    pub stalled: Duration,
    /// For the head of an answer.
    pub head: Duration,
    /// For all of the tarball.
    pub tarball: Duration,
    /// For a program to end.
    pub program: Duration,
    /// For restarted services to answer.
    pub answer: Duration,
}

impl Default for Patience {
    fn default() -> Self {
        Self {
            stalled: STALLED,
            head: Duration::from_secs(60),
            tarball: Duration::from_secs(60 * 60),
            program: Duration::from_secs(120),
            answer: Duration::from_secs(60),
        }
    }
}

/// What requests go through.
pub fn client(environment: &Environment, patience: Patience) -> Client {
    fetch::client(environment).stalled_after(patience.stalled).answered_within(patience.head)
}

/// All of a short document.
pub fn document(
    client: &Client,
    at: At,
    what: &'static str,
    location: &Location,
    limit: u64,
) -> Result<Vec<u8>, UpdateError> {
    let read = fetch::read(client, location, &Validators::default(), limit).map_err(at.fetch(what))?;
    // Only a request with validators can be answered by "not modified".
    let gone = || at.fetch(what)(FetchError::Status { at: location.to_string(), status: 304 });
    read.map(|(bytes, _)| bytes).ok_or_else(gone)
}

/// Writes what lies at `location` into `file`.
pub fn tarball(
    client: &Client,
    location: &Location,
    file: &mut File,
    patience: Patience,
    progress: &dyn Progress,
) -> Result<(), UpdateError> {
    let failed = At::Download.fetch("tarball");
    download(client, location, MAX_TARBALL, file, patience, progress).map_err(|e| match e {
        Broken::Fetch(e) => failed(e),
        Broken::Keep(e) => At::Download.io("keep the tarball")(e),
        Broken::Cancelled => At::Download.said("cancelled"),
    })
}

enum Broken {
    Fetch(FetchError),
    Keep(io::Error),
    Cancelled,
}

fn download(
    client: &Client,
    location: &Location,
    limit: u64,
    file: &mut File,
    patience: Patience,
    progress: &dyn Progress,
) -> Result<(), Broken> {
    let at = location.to_string();
    let deadline = Instant::now() + patience.tarball;
    let broken = |e: io::Error| Broken::Fetch(FetchError::Unreachable { at: at.clone(), source: e.into() });
    let too_long = || Broken::Fetch(FetchError::TooLong { at: at.clone(), limit });
    let opened = fetch::open(client, location, &Validators::default()).map_err(Broken::Fetch)?;
    let gone = || Broken::Fetch(FetchError::Status { at: at.clone(), status: 304 });
    let mut opened = opened.ok_or_else(gone)?;
    if opened.length.is_some_and(|length| length > limit) {
        return Err(too_long());
    }
    let mut buffer = vec![0; 128 << 10];
    let mut done = 0;
    loop {
        if progress.cancelled() {
            return Err(Broken::Cancelled);
        }
        let n = match opened.reader.read(&mut buffer) {
            Ok(0) => break,
            Ok(n) => n,
            Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
            Err(e) => return Err(broken(e)),
        };
        done += n as u64;
        if done > limit {
            return Err(too_long());
        }
        // Each byte may be in time, and all of them not.
        if Instant::now() > deadline {
            return Err(broken(io::ErrorKind::TimedOut.into()));
        }
        file.write_all(&buffer[..n]).map_err(Broken::Keep)?;
        progress.advance(done, opened.length.unwrap_or(0), Unit::Bytes);
    }
    match opened.length {
        Some(length) if length != done => Err(broken(io::Error::new(
            io::ErrorKind::UnexpectedEof,
            format!("it ends after {done} of {length} bytes"),
        ))),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::progress::{Cancelled, Silent};

    #[test]
    fn a_file_longer_than_it_may_be_is_not_taken() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("t");
        std::fs::write(&path, [7; 100]).expect("writes");
        let location = Location::File(path);
        let client = client(&Environment::default(), Patience::default());
        let get = |limit, progress: &dyn Progress| {
            let mut file = tempfile::tempfile().expect("a file");
            let got = download(&client, &location, limit, &mut file, Patience::default(), progress);
            got.map(|()| file.metadata().expect("stats").len())
        };
        assert!(matches!(get(100, &Silent), Ok(100)));
        assert!(matches!(get(99, &Silent), Err(Broken::Fetch(FetchError::TooLong { limit: 99, .. }))));
        assert!(matches!(get(100, &Cancelled), Err(Broken::Cancelled)));
    }
}
