//! A request that is answered by what happens, for as long as anybody listens.

use rustix::io::Errno;

use super::wire::{Lines, send_line};
use super::{Client, ClientError, bad_reply, line_of, reach};
use crate::cli::error::Error;
use crate::proto::api::{DaemonEvents, Event, Happening, Reply, UNKNOWN_REQUEST};

impl Client {
    /// Has `hear` told what happens; returns when the daemon has ended. Starts one if nothing listens.
    pub fn listen(
        &self,
        request: DaemonEvents,
        mut hear: impl FnMut(&Happening) -> Result<(), Error>,
    ) -> Result<(), Error> {
        let reached = reach::reach_or_start(&self.place)?;
        let connection = &reached.stream;
        match send_line(connection, &line_of::<DaemonEvents>(request)?, None) {
            Ok(()) | Err(Errno::PIPE | Errno::CONNRESET) => {}
            Err(e) => {
                return Err(ClientError::Connection { what: "send the request", source: e.into() }.into());
            }
        }
        let mut lines = Lines::default();
        loop {
            let Some(line) = lines.take()? else {
                match lines.fill(connection) {
                    Ok(true) => continue,
                    Ok(false) | Err(ClientError::Unread) => return Ok(()),
                    Err(e) => return Err(e.into()),
                }
            };
            match serde_json::from_slice::<Reply>(&line).map_err(bad_reply)? {
                Reply::Event(Event::Happened(happening)) => hear(&happening)?,
                Reply::Event(_) => {}
                Reply::Done(_) => return Ok(()),
                Reply::Error(failure) if failure.message.starts_with(UNKNOWN_REQUEST) => {
                    return Err(ClientError::OldDaemon.into());
                }
                Reply::Error(failure) => return Err(ClientError::Failed(failure).into()),
            }
        }
    }
}
