//! A blob from wherever it can be had, in as many pieces as it takes.

use std::io::{self, Read};

use ureq::Body;
use ureq::http::{Method, Response, StatusCode};

use super::http::{Ask, Http};
use super::range::ContentRange;
use super::retry::Tries;
use super::{Registry, Wanted, header};
use crate::image::manifest::Descriptor;
use crate::oci::arrival::{FinishError, Lead, Turn};
use crate::oci::error::OciError;
use crate::oci::region::Region;

/// The most that is read at a time, in bytes.
const BUFFER: usize = 128 << 10;

impl Registry<'_> {
    /// Fetches a blob into the store, or waits until whoever fetches it has done so. `came` hears of bytes that are new.
    pub(super) fn fetch(&self, wanted: &Wanted, came: &dyn Fn(u64)) -> Result<Region, OciError> {
        let Wanted { what, descriptor, transfer } = wanted;
        let digest = &descriptor.digest;
        let store = |e| OciError::io(format!("store {what} {digest}"), e);
        let mut counted = 0;
        let mut count = |written: u64| {
            came(written.saturating_sub(counted));
            counted = counted.max(written);
        };
        let mut lead = match transfer.take_part(&self.fate, &mut count).map_err(store)? {
            Turn::Lead(lead) => lead,
            Turn::Whole(region) => return Ok(region),
            Turn::Damaged(why) => return Err(OciError::Damaged { what, digest: digest.to_string(), why }),
            Turn::Over => return Err(OciError::Cancelled),
        };
        let fate = &self.fate;
        self.places.first_that_has_it(fate, |http| self.rest_of(wanted, http, &mut lead, &mut count))?;
        lead.finish().map_err(|e| match e {
            FinishError::Disk(e) => store(e),
            FinishError::Damaged(why) => OciError::Damaged { what, digest: digest.to_string(), why },
        })
    }

    /// Fetches what is missing from one place, and tries again what may go better another time. Each try asks the place itself,
    /// since where it redirected to may have been for once.
    fn rest_of(
        &self,
        wanted: &Wanted,
        http: &Http<'_>,
        lead: &mut Lead<'_>,
        count: &mut dyn FnMut(u64),
    ) -> Result<(), OciError> {
        let patience = self.places.patience_with(http);
        let mut tries = Tries::new(&patience);
        while lead.missing() > 0 || lead.written() == 0 {
            let before = lead.written();
            match self.piece(wanted, http, lead, count) {
                Ok(()) => return Ok(()),
                Err(_) if self.fate.is_sealed() || self.progress.cancelled() => {
                    return Err(OciError::Cancelled);
                }
                Err(e) => self.places.wait(&self.fate, http, &mut tries, e, lead.written() - before)?,
            }
        }
        Ok(())
    }

    /// One answer's worth of the blob.
    fn piece(
        &self,
        wanted: &Wanted,
        http: &Http<'_>,
        lead: &mut Lead<'_>,
        count: &mut dyn FnMut(u64),
    ) -> Result<(), OciError> {
        let Wanted { what, descriptor, .. } = wanted;
        let target = descriptor.digest.to_string();
        let from = lead.written();
        let ask = Ask { method: &Method::GET, kind: "blobs", target: &target, accept: &["*/*"], from };
        let response = http.request(&ask)?;
        let first = first_byte(&response, from, descriptor.size).map_err(|why| http.protocol(why))?;
        fits(&response, first, what, descriptor)?;
        // An answer from the beginning is read from the beginning; what has come before is hashed already.
        let mut known = from - first;
        let mut reader = response.into_body().into_reader();
        let mut buffer = vec![0; BUFFER];
        loop {
            if self.fate.is_sealed() || self.progress.cancelled() {
                return Err(OciError::Cancelled);
            }
            let n = match reader.read(&mut buffer) {
                Ok(0) => break,
                Ok(n) => n,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
                Err(e) => return Err(http.broken(e)),
            };
            let skipped = usize::try_from(known).unwrap_or(n).min(n);
            known -= skipped as u64;
            let new = &buffer[skipped..n];
            // A registry that never stops sending is not listened to for long.
            if new.len() as u64 > lead.missing() {
                let found = lead.written() + new.len() as u64;
                return Err(OciError::wrong_size(what, &descriptor.digest, descriptor.size, found));
            }
            lead.append(new).map_err(|e| OciError::io(format!("store {what} {target}"), e))?;
            count(lead.written());
        }
        match lead.missing() {
            0 => Ok(()),
            _ => {
                let text = format!("it ended after {} of {} bytes", lead.written(), descriptor.size);
                Err(http.broken(io::Error::new(io::ErrorKind::UnexpectedEof, text)))
            }
        }
    }
}

/// The byte of the blob that an answer begins with: `from`, or 0 where the registry knows no ranges.
fn first_byte(response: &Response<Body>, from: u64, size: u64) -> Result<u64, &'static str> {
    if response.status() != StatusCode::PARTIAL_CONTENT {
        return Ok(0);
    }
    let range = header(response, "content-range").and_then(|value| ContentRange::parse(&value));
    match range {
        Some(range) if range.is_rest_of(from, size) => Ok(from),
        Some(_) => Err("it sends another part of a blob than it was asked for"),
        None => Err("it sends a part of a blob without saying which"),
    }
}

/// What is announced must be as long as what is wanted.
fn fits(
    response: &Response<Body>,
    first: u64,
    what: &'static str,
    descriptor: &Descriptor,
) -> Result<(), OciError> {
    let length = header(response, "content-length").and_then(|l| l.parse::<u64>().ok());
    match length.map(|length| length.saturating_add(first)) {
        Some(end) if end != descriptor.size => {
            Err(OciError::wrong_size(what, &descriptor.digest, descriptor.size, end))
        }
        _ => Ok(()),
    }
}
