//! The logs of a run, kept short: a guest may write to its console without end (FAULTS A20). Whoever writes them appends, so
//! they can be cut while they grow.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::fd::OwnedFd;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::fs::inotify;
use smol::{Async, Timer};

use crate::daemon::log_times::Times;
use crate::daemon::threads::aside;

/// What a log may take on disk.
const MOST: u64 = 16 << 20;
/// What is kept of its end when it is cut.
const KEPT: u64 = 64 << 10;
/// However fast a log grows, it is looked at this often; one that does not grow is not looked at.
const PAUSE: Duration = Duration::from_secs(1);

/// Cuts each of `logs` whenever it has grown too long, and notes when it grew, until this is dropped.
pub async fn keep_short(logs: Vec<PathBuf>) -> io::Result<()> {
    let fd = inotify::init(inotify::CreateFlags::CLOEXEC | inotify::CreateFlags::NONBLOCK)?;
    for log in &logs {
        inotify::add_watch(&fd, log, inotify::WatchFlags::MODIFY)?;
    }
    let changes: Async<OwnedFd> = Async::new_nonblocking(fd)?;
    let mut logs: Vec<Times> = logs.iter().map(|log| Times::open(log)).collect();
    loop {
        logs = aside(move || -> io::Result<Vec<Times>> {
            for times in &mut logs {
                look(times)?;
            }
            Ok(logs)
        })
        .await?;
        changes.readable().await?;
        Timer::after(PAUSE).await;
        changes
            .read_with(|fd| {
                let mut events = [0; 4096];
                Ok(rustix::io::read(fd, &mut events)?)
            })
            .await?;
    }
}

/// Notes that a log has grown, and cuts it if it is too long, whether or not the one could be noted.
fn look(times: &mut Times) -> io::Result<()> {
    let log = times.log().to_owned();
    let meta = std::fs::metadata(&log)?;
    let unknown = |e| log::debug!("{}: cannot note when it grew: {e}", log.display());
    times.note(&meta).unwrap_or_else(&unknown);
    // By its blocks: a file that one writer does not append to is long, and mostly a hole, once it was cut.
    if meta.blocks() * 512 > MOST {
        let (gone, put_before) = cut(&log, KEPT)?;
        times.cut(gone, put_before).unwrap_or_else(&unknown);
    }
    Ok(())
}

/// Leaves the last `kept` bytes, behind a line that says so. Returns how many bytes are gone, and how long that line is.
fn cut(log: &Path, kept: u64) -> io::Result<(u64, u64)> {
    let mut from = File::open(log)?;
    let length = from.metadata()?.len();
    from.seek(SeekFrom::Start(length.saturating_sub(kept)))?;
    let mut rest = format!("[bangerd has cut this log: it took more than {} MiB]\n", MOST >> 20).into_bytes();
    let put_before = rest.len() as u64;
    from.take(kept).read_to_end(&mut rest)?;
    let mut to = OpenOptions::new().append(true).open(log)?;
    to.set_len(0)?;
    to.write_all(&rest)?;
    Ok((length.saturating_sub(kept), put_before))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_log_that_is_cut_keeps_its_end_and_goes_on_where_its_writer_appends() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("log");
        let mut writer = OpenOptions::new().append(true).create(true).open(&path).expect("opens");
        writer.write_all(b"the beginning and the end").expect("writes");
        let line = "[bangerd has cut this log: it took more than 16 MiB]\n".len() as u64;
        assert_eq!(cut(&path, 7).expect("cuts"), (18, line));
        writer.write_all(b", and more").expect("writes");
        let text = std::fs::read_to_string(&path).expect("reads");
        assert_eq!(text, "[bangerd has cut this log: it took more than 16 MiB]\nthe end, and more");
    }
}
