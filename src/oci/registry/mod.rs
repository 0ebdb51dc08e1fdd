//! A registry (distribution-spec): manifests and blobs over HTTP, each verified by its digest.

mod challenge;
mod credentials;
mod http;

use std::io::Read;

use ureq::http::Method;

use crate::host::progress::{Progress, Unit};
use crate::image::digest::Digest;
use crate::image::manifest::{
    DOCKER_LIST, DOCKER_MANIFEST, Descriptor, Document, MAX_BLOB, MAX_DOCUMENT, OCI_INDEX, OCI_MANIFEST,
    harmless, parse,
};
use crate::image::reference::Reference;
use crate::oci::blobs::{Blobs, PutError};
use crate::oci::error::OciError;
use crate::oci::hash;
use crate::oci::region::Region;
use crate::oci::select::Content;
use crate::oci::{Settings, io_cancelled};
use http::Http;

const MANIFESTS: [&str; 4] = [OCI_INDEX, DOCKER_LIST, OCI_MANIFEST, DOCKER_MANIFEST];

/// One repository of a registry.
pub struct Registry<'a> {
    http: Http,
    reference: &'a Reference,
    blobs: Blobs,
    progress: &'a dyn Progress,
    /// Bytes of this image: had, and known of.
    done: u64,
    total: u64,
    /// Blobs that were in the store before.
    reused: Vec<Digest>,
}

impl<'a> Registry<'a> {
    pub fn new(
        reference: &'a Reference,
        settings: &Settings,
        progress: &'a dyn Progress,
    ) -> Result<Self, OciError> {
        let blobs = Blobs::open(&settings.blobs)
            .map_err(|e| OciError::io(format!("open the blob store {}", settings.blobs.display()), e))?;
        let http = Http::new(reference, login(reference, settings, progress));
        Ok(Self { http, reference, blobs, progress, done: 0, total: 0, reused: vec![] })
    }

    /// The digest that the reference stands for now. One request, where the registry follows the specification.
    pub fn resolve(&mut self) -> Result<Digest, OciError> {
        let path = self.path("manifests", &self.reference.target());
        match self.http.request(&Method::HEAD, &path, &MANIFESTS) {
            Ok(response) => {
                if let Some(digest) = content_digest(&response) {
                    return Ok(digest);
                }
            }
            // A registry without HEAD; or an error, which has its words only in the answer to GET.
            Err(
                OciError::NotFound { .. }
                | OciError::Denied { .. }
                | OciError::Throttled { .. }
                | OciError::Refused { .. },
            ) => {}
            Err(e) => return Err(e),
        }
        self.top().map(|(digest, _)| digest)
    }

    /// What the reference stands for, and its digest.
    pub fn top(&mut self) -> Result<(Digest, Document), OciError> {
        let path = self.path("manifests", &self.reference.target());
        let mut response = self.http.request(&Method::GET, &path, &MANIFESTS)?;
        let said = content_digest(&response);
        let media_type = header(&response, "content-type");
        let bytes = self.http.body(&mut response, MAX_DOCUMENT)?;
        let own = hash::sha256(&bytes).ok_or_else(|| self.protocol("its manifest has no digest"))?;
        // The reference's digest is the user's; the header's is the registry's, and may only agree.
        let wanted = self.reference.digest().cloned().or(said.filter(|d| d.algorithm() == own.algorithm()));
        if let Some(wanted) = &wanted {
            hash::check(&bytes, wanted)
                .map_err(|found| OciError::wrong_digest("manifest", wanted, &found))?;
        }
        let document = parse(&bytes, media_type.as_deref())
            .map_err(|source| OciError::Manifest { image: self.name(), source })?;
        Ok((wanted.unwrap_or(own), document))
    }

    /// Announces the layers that will be asked for, so that progress has an end.
    pub fn expect(&mut self, layers: &[Descriptor]) {
        self.done = 0;
        self.total = layers.iter().map(|d| d.size).sum();
    }

    /// Whether this blob was in the store before.
    pub fn reused(&self, digest: &str) -> bool {
        self.reused.iter().any(|d| d.to_string() == digest)
    }

    /// Removes from the store what was in it before, and takes nothing from it again.
    pub fn forget_reused(&mut self) -> Result<(), OciError> {
        for digest in std::mem::take(&mut self.reused) {
            self.blobs
                .remove(&digest)
                .map_err(|e| OciError::io(format!("remove the damaged blob {digest}"), e))?;
        }
        Ok(())
    }

    fn path(&self, kind: &str, target: &str) -> String {
        format!("/v2/{}/{kind}/{target}", self.reference.repository())
    }

    fn protocol(&self, why: &str) -> OciError {
        OciError::Protocol { registry: self.reference.registry().to_owned(), why: why.to_owned() }
    }

    fn fetch(&mut self, what: &'static str, descriptor: &Descriptor) -> Result<Region, OciError> {
        let path = self.path("blobs", &descriptor.digest.to_string());
        let mut response = self.http.request(&Method::GET, &path, &["*/*"])?;
        let length = header(&response, "content-length").and_then(|l| l.parse::<u64>().ok());
        if let Some(length) = length.filter(|l| *l != descriptor.size) {
            return Err(OciError::wrong_size(what, &descriptor.digest, descriptor.size, length));
        }
        let before = self.done;
        let mut source = Watched {
            reader: response.body_mut().as_reader(),
            done: before,
            total: self.total,
            progress: self.progress,
        };
        let stored = self.blobs.put(&descriptor.digest, descriptor.size, &mut source);
        self.done = before + descriptor.size;
        stored.map_err(|e| match e {
            PutError::Source(_) if self.progress.cancelled() => OciError::Cancelled,
            PutError::Source(e) => self.http.transfer_failed(e),
            PutError::Disk(e) => OciError::io(format!("store {what} {}", descriptor.digest), e),
            PutError::Digest(found) => OciError::wrong_digest(what, &descriptor.digest, &found),
            PutError::Size(found) => OciError::wrong_size(what, &descriptor.digest, descriptor.size, found),
        })
    }
}

impl Content for Registry<'_> {
    fn name(&self) -> String {
        self.reference.familiar()
    }

    fn document(&mut self, descriptor: &Descriptor) -> Result<Vec<u8>, OciError> {
        let digest = &descriptor.digest;
        if descriptor.size > MAX_DOCUMENT {
            return Err(OciError::wrong_size("manifest", digest, MAX_DOCUMENT, descriptor.size));
        }
        let path = self.path("manifests", &digest.to_string());
        let mut response = self.http.request(&Method::GET, &path, &MANIFESTS)?;
        let bytes = self.http.body(&mut response, MAX_DOCUMENT)?;
        verify("manifest", descriptor, &bytes)?;
        Ok(bytes)
    }

    fn blob(&mut self, what: &'static str, descriptor: &Descriptor) -> Result<Region, OciError> {
        if self.progress.cancelled() {
            return Err(OciError::Cancelled);
        }
        if descriptor.size > MAX_BLOB {
            return Err(OciError::wrong_size(what, &descriptor.digest, MAX_BLOB, descriptor.size));
        }
        let here = self.blobs.get(&descriptor.digest, descriptor.size);
        match here.map_err(|e| OciError::io(format!("read {what} {}", descriptor.digest), e))? {
            Some(region) => {
                self.reused.push(descriptor.digest.clone());
                self.done += descriptor.size;
                self.progress.advance(self.done, self.total, Unit::Bytes);
                Ok(region)
            }
            None => self.fetch(what, descriptor),
        }
    }
}

/// Checks a document that is in memory.
pub fn verify(what: &'static str, descriptor: &Descriptor, bytes: &[u8]) -> Result<(), OciError> {
    if bytes.len() as u64 != descriptor.size {
        return Err(OciError::wrong_size(what, &descriptor.digest, descriptor.size, bytes.len() as u64));
    }
    hash::check(bytes, &descriptor.digest)
        .map_err(|found| OciError::wrong_digest(what, &descriptor.digest, &found))
}

/// The credentials in docker's config.json; none if it cannot be used, since most images need none.
fn login(
    reference: &Reference,
    settings: &Settings,
    progress: &dyn Progress,
) -> Option<credentials::Credentials> {
    let path = settings.docker_config.as_ref()?;
    let found = match std::fs::read(path) {
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return None,
        Err(e) => Err(e.to_string()),
        Ok(text) => credentials::find(&text, reference.registry()),
    };
    found.unwrap_or_else(|why| {
        progress.note(&format!("cannot use {}: {}; going on anonymously", path.display(), harmless(&why)));
        None
    })
}

fn header(response: &ureq::http::Response<ureq::Body>, name: &str) -> Option<String> {
    response.headers().get(name)?.to_str().ok().map(str::to_owned)
}

fn content_digest(response: &ureq::http::Response<ureq::Body>) -> Option<Digest> {
    header(response, "docker-content-digest")?.parse().ok()
}

/// A body that tells how much of it has come, and ends when nobody waits for it.
struct Watched<'a, R> {
    reader: R,
    done: u64,
    total: u64,
    progress: &'a dyn Progress,
}

impl<R: Read> Read for Watched<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        if self.progress.cancelled() {
            return Err(io_cancelled());
        }
        let n = self.reader.read(buffer)?;
        self.done += n as u64;
        self.progress.advance(self.done, self.total, Unit::Bytes);
        Ok(n)
    }
}
