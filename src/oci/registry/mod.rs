//! A registry (distribution-spec): manifests and blobs over HTTP, each verified by its digest.
//!
//! ```text
//!  top -> what the reference stands for         from the first place that has it: mirrors, then the registry
//!  blob -> a configuration                      from the store, or fetched now
//!  open -> a layer, here or on its way          wanted, in order
//!  fetch_while -> a few threads fetch layers while they are unpacked
//! ```

mod challenge;
mod credentials;
mod fetch;
mod helper;
mod http;
mod login;
mod places;
mod range;
mod redirect;
mod refusal;
mod retry;
mod token;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

use ureq::http::Method;

use crate::host::progress::Progress;
use crate::image::digest::Digest;
use crate::image::manifest::{
    DOCKER_LIST, DOCKER_MANIFEST, Descriptor, Document, MAX_BLOB, MAX_DOCUMENT, OCI_INDEX, OCI_MANIFEST,
    parse,
};
use crate::image::reference::Reference;
use crate::oci::Settings;
use crate::oci::arrival::{Arrival, Transfer};
use crate::oci::blob::Blob;
use crate::oci::blobs::{Blobs, Claim};
use crate::oci::error::OciError;
use crate::oci::fate::{Failure, Fate, attended};
use crate::oci::hash;
use crate::oci::meter::{Meter, Unpacking};
use crate::oci::region::Region;
use crate::oci::select::Content;
use http::{Ask, Http};
use places::Places;
pub use retry::Patience;
use retry::Tries;

const MANIFESTS: [&str; 4] = [OCI_INDEX, DOCKER_LIST, OCI_MANIFEST, DOCKER_MANIFEST];
/// So many layers come at the same time. One connection seldom fills a line; many are rude to the registry.
const CONNECTIONS: usize = 4;

/// One repository of a registry.
pub struct Registry<'a> {
    reference: &'a Reference,
    places: Places<'a>,
    blobs: Blobs,
    progress: &'a dyn Progress,
    meter: Meter<'a>,
    fate: Arc<Fate>,
    /// Layers to come, oldest first.
    wanted: Vec<Wanted>,
    /// Layers that were asked for, by digest and size: an image may have one twice, and may lie about one of both.
    opened: HashMap<(Digest, u64), Blob>,
    /// Blobs that are somebody else's work: they were in the store, or another pull fetches them.
    reused: Vec<Digest>,
}

/// A manifest, and what its answer's headers say of it.
struct Answer {
    digest: Option<Digest>,
    media_type: Option<String>,
    bytes: Vec<u8>,
}

/// A blob to fetch.
struct Wanted {
    what: &'static str,
    descriptor: Descriptor,
    transfer: Arc<Transfer>,
}

impl<'a> Registry<'a> {
    /// `mirrors`: whether mirrors are asked too, where there are some.
    pub fn new(
        reference: &'a Reference,
        settings: &'a Settings,
        progress: &'a dyn Progress,
        mirrors: bool,
    ) -> Self {
        Self {
            reference,
            places: Places::new(reference, settings, progress, mirrors),
            blobs: settings.blobs.clone(),
            progress,
            meter: Meter::new(progress),
            fate: Arc::default(),
            wanted: vec![],
            opened: HashMap::new(),
            reused: vec![],
        }
    }

    /// Does `work` with it, which ends at once when nobody waits for it any more. After an error the registry is of no more use.
    pub fn attended<T>(
        &mut self,
        work: impl FnOnce(&mut Self) -> Result<T, OciError>,
    ) -> Result<T, OciError> {
        self.fate = Arc::default();
        let (fate, client, progress) = (Arc::clone(&self.fate), self.places.client(), self.progress);
        let outcome = attended(&fate, progress, || client.close(), || work(self));
        match outcome {
            // Whatever an interrupted read was taken for.
            Err(_) if progress.cancelled() => Err(OciError::Cancelled),
            Err(e) if e.is_distrust() => {
                client.problems().iter().for_each(|problem| progress.note(problem));
                Err(e)
            }
            outcome => outcome,
        }
    }

    /// The digest that the reference stands for now. One request, where the registry follows the specification.
    pub fn resolve(&self) -> Result<Digest, OciError> {
        let digest = self.places.first_that_has_it(&self.fate, |http| self.digest_from(http))?;
        if let (Some(mirror), None) = (self.places.mirror(), self.reference.digest()) {
            self.progress.note(&format!("{} is what {mirror} says it is", self.reference.familiar()));
        }
        Ok(digest)
    }

    fn digest_from(&self, http: &Http<'_>) -> Result<Digest, OciError> {
        let target = self.reference.target();
        let ask = Ask { method: &Method::HEAD, ..manifest(&target) };
        match http.request(&ask) {
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
        self.top_from(http).map(|(digest, _)| digest)
    }

    /// What the reference stands for, and its digest.
    pub fn top(&self) -> Result<(Digest, Document), OciError> {
        self.places.first_that_has_it(&self.fate, |http| self.top_from(http))
    }

    fn top_from(&self, http: &Http<'_>) -> Result<(Digest, Document), OciError> {
        let Answer { digest: said, media_type, bytes } =
            self.document_from(http, &self.reference.target())?;
        let own = hash::sha256(&bytes).ok_or_else(|| http.protocol("its manifest has no digest"))?;
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

    /// A manifest, from one place.
    fn document_from(&self, http: &Http<'_>, target: &str) -> Result<Answer, OciError> {
        let patience = self.places.patience_with(http);
        let mut tries = Tries::new(&patience);
        loop {
            let fetched = http.request(&manifest(target)).and_then(|mut response| {
                let (digest, media_type) = (content_digest(&response), header(&response, "content-type"));
                Ok(Answer { digest, media_type, bytes: http.body(&mut response, MAX_DOCUMENT)? })
            });
            match fetched {
                Err(e) => self.places.wait(&self.fate, http, &mut tries, e, 0)?,
                fetched => return fetched,
            }
        }
    }

    /// Whether a blob that turned out to be damaged may be a good one elsewhere.
    pub fn doubts(&self, digest: &str) -> Option<Doubt> {
        if self.reused.iter().any(|d| d.to_string() == digest) {
            return Some(Doubt::Cache);
        }
        self.places.has_mirrors().then_some(Doubt::Mirror)
    }

    /// Removes from the store what was in it before.
    pub fn forget_reused(&self) -> Result<(), OciError> {
        for digest in &self.reused {
            self.blobs
                .remove(digest)
                .map_err(|e| OciError::io(format!("remove the damaged blob {digest}"), e))?;
        }
        Ok(())
    }

    /// A layer, here or to be fetched by [`Registry::fetch_while`].
    pub fn open(&mut self, descriptor: &Descriptor) -> Result<Blob, OciError> {
        let size = descriptor.size;
        let key = (descriptor.digest.clone(), size);
        if let Some(same) = self.opened.get(&key) {
            return Ok(same.clone());
        }
        let claim = self.claim("layer", descriptor)?;
        self.note_reuse(&claim, descriptor);
        let blob = match claim {
            Claim::Here(region) => {
                self.meter.expect(size, size);
                Blob::Here(region)
            }
            Claim::Coming { transfer, .. } => {
                self.meter.expect(size, 0);
                let arrival = Arrival::new(Arc::clone(&transfer), Arc::clone(&self.fate));
                // Whatever is opened is wanted: else its readers would wait for ever.
                self.wanted.push(Wanted { what: "layer", descriptor: descriptor.clone(), transfer });
                Blob::Arriving(arrival)
            }
        };
        self.opened.insert(key, blob.clone());
        Ok(blob)
    }

    /// Fetches the layers that were opened, and does `work` meanwhile, a stage that is called `text`. Both end with the first error.
    pub fn fetch_while<T>(
        &self,
        text: &str,
        work: impl FnOnce(&dyn Progress) -> Result<T, OciError>,
    ) -> Result<T, OciError> {
        self.meter.unpack(text);
        let queue = Mutex::new(self.wanted.iter());
        let next = || queue.lock().unwrap_or_else(PoisonError::into_inner).next();
        let done = thread::scope(|scope| {
            for _ in 0..self.wanted.len().min(CONNECTIONS) {
                scope.spawn(|| self.fetch_layers(next));
            }
            let unfinished = self.fate.unless_finished();
            let done = work(&Unpacking { meter: &self.meter, fate: &self.fate });
            if done.is_ok() {
                unfinished.finished();
            }
            done
        });
        match self.fate.failure() {
            Some(failure) => Err(failure),
            None => done,
        }
    }

    fn fetch_layers<'w>(&self, next: impl Fn() -> Option<&'w Wanted>) {
        let unfinished = self.fate.unless_finished();
        while let Some(wanted) = next() {
            if let Err(e) = self.fetch(wanted, &|bytes| self.meter.came(bytes)) {
                return self.fate.fail(Failure::of(wanted.what, &wanted.descriptor.digest, e));
            }
        }
        unfinished.finished();
    }

    fn claim(&self, what: &'static str, descriptor: &Descriptor) -> Result<Claim, OciError> {
        let Descriptor { digest, size, .. } = descriptor;
        if *size > MAX_BLOB {
            return Err(OciError::wrong_size(what, digest, MAX_BLOB, *size));
        }
        self.blobs.claim(digest, *size).map_err(|e| {
            OciError::io(format!("look for {what} {digest} in {}", self.blobs.directory().display()), e)
        })
    }

    fn note_reuse(&mut self, claim: &Claim, descriptor: &Descriptor) {
        if !matches!(claim, Claim::Coming { joined: false, .. }) {
            self.reused.push(descriptor.digest.clone());
        }
    }
}

/// Who may be to blame for a damaged blob, besides the registry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Doubt {
    Cache,
    Mirror,
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
        self.places.first_that_has_it(&self.fate, |http| {
            let Answer { bytes, .. } = self.document_from(http, &digest.to_string())?;
            verify("manifest", descriptor, &bytes)?;
            Ok(bytes)
        })
    }

    fn blob(&mut self, what: &'static str, descriptor: &Descriptor) -> Result<Region, OciError> {
        let claim = self.claim(what, descriptor)?;
        self.note_reuse(&claim, descriptor);
        match claim {
            Claim::Here(region) => Ok(region),
            Claim::Coming { transfer, .. } => {
                let wanted = Wanted { what, descriptor: descriptor.clone(), transfer };
                self.fetch(&wanted, &|_| ()).map_err(|e| Failure::of(what, &descriptor.digest, e).into())
            }
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

/// The request for a manifest.
fn manifest(target: &str) -> Ask<'_> {
    Ask { method: &Method::GET, kind: "manifests", target, accept: &MANIFESTS, from: 0 }
}

fn header(response: &ureq::http::Response<ureq::Body>, name: &str) -> Option<String> {
    response.headers().get(name)?.to_str().ok().map(str::to_owned)
}

fn content_digest(response: &ureq::http::Response<ureq::Body>) -> Option<Digest> {
    header(response, "docker-content-digest")?.parse().ok()
}

/// For tests/fuzz: what is made of a registry's headers and bodies.
#[cfg(fuzzing)]
pub fn what_a_registry_says(bytes: &[u8]) {
    assert!(!refusal::said(bytes).contains(|c: char| c.is_control()));
    drop(token::read(bytes));
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    challenge::choose([text].into_iter());
    range::ContentRange::parse(text);
    retry::retry_after(text, std::time::SystemTime::now());
    for from in ["https://registry.example/v2/", "http://127.0.0.1:5000/v2/"] {
        let from = from.parse().expect("a URL");
        if let Ok(to) = redirect::redirected(&from, text) {
            assert!(to.scheme_str() == Some("https") || from.scheme_str() == Some("http"));
        }
    }
}
