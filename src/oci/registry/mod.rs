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
mod range;
mod redirect;
mod refusal;
mod retry;
mod token;

use std::collections::HashSet;
use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use ureq::http::Method;

use crate::host::https::Client;
use crate::host::progress::Progress;
use crate::image::digest::Digest;
use crate::image::manifest::{
    DOCKER_LIST, DOCKER_MANIFEST, Descriptor, Document, MAX_BLOB, MAX_DOCUMENT, OCI_INDEX, OCI_MANIFEST,
    parse,
};
use crate::image::reference::{DOCKER_HUB, Reference};
use crate::oci::Settings;
use crate::oci::arrival::{Arrival, Transfer};
use crate::oci::blob::Blob;
use crate::oci::blobs::{Blobs, Claim};
use crate::oci::error::{OciError, seconds};
use crate::oci::fate::{Failure, Fate, attended};
use crate::oci::hash;
use crate::oci::meter::{Meter, Unpacking};
use crate::oci::region::Region;
use crate::oci::select::Content;
use http::{Ask, DOCKER_HUB_HOST, Http};
use login::Login;
pub use retry::Patience;
use retry::{Tries, dice};

const MANIFESTS: [&str; 4] = [OCI_INDEX, DOCKER_LIST, OCI_MANIFEST, DOCKER_MANIFEST];
const USER_AGENT: &str = concat!("banger/", env!("CARGO_PKG_VERSION"));
/// So many layers come at the same time. One connection seldom fills a line; many are rude to the registry.
const CONNECTIONS: usize = 4;

/// One repository of a registry.
pub struct Registry<'a> {
    reference: &'a Reference,
    client: Arc<Client>,
    /// Mirrors in their order, then the registry itself.
    places: Vec<Http<'a>>,
    /// The first place that may still be asked: those before it have failed.
    from: AtomicUsize,
    blobs: Blobs,
    patience: Patience,
    progress: &'a dyn Progress,
    meter: Meter<'a>,
    fate: Arc<Fate>,
    /// When the last pause that was told of ends.
    waiting: Mutex<Option<Instant>>,
    /// Layers to come, oldest first.
    wanted: Vec<Wanted>,
    /// Layers that were asked for.
    opened: HashSet<Digest>,
    /// Blobs that are somebody else's work: they were in the store, or another pull fetches them.
    reused: Vec<Digest>,
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
        let (registries, environment) = (&settings.registries, &settings.environment);
        let mirrors = if mirrors { registries.mirrors(reference.registry()) } else { &[] };
        let insecure = registries.is_insecure(reference.registry());
        let host = |registry: &str| {
            if registry == DOCKER_HUB { DOCKER_HUB_HOST.to_owned() } else { registry.to_owned() }
        };
        let unverified = std::iter::once(reference.registry())
            .chain(mirrors.iter().map(|mirror| mirror.authority()))
            .filter(|registry| registries.is_insecure(registry));
        let client = Client::new(environment, USER_AGENT)
            .stalled_after(settings.patience.stalled)
            .without_verifying(unverified.map(host).collect());
        let client = Arc::new(client);
        let login = |registry: &str| -> Login<'a> {
            let config: Option<PathBuf> = settings.docker_config.clone();
            Login::new(config, registry, environment, progress)
        };
        let mut places: Vec<Http<'a>> = mirrors
            .iter()
            .map(|mirror| Http::mirror(mirror, reference, Arc::clone(&client), login(mirror.authority())))
            .collect();
        places.push(Http::registry(reference, insecure, Arc::clone(&client), login(reference.registry())));
        Self {
            reference,
            client,
            places,
            from: AtomicUsize::new(0),
            blobs: settings.blobs.clone(),
            patience: settings.patience.clone(),
            progress,
            meter: Meter::new(progress),
            fate: Arc::new(Fate::default()),
            waiting: Mutex::new(None),
            wanted: vec![],
            opened: HashSet::new(),
            reused: vec![],
        }
    }

    /// Does `work` with it, which ends at once when nobody waits for it any more. After an error the registry is of no more use.
    pub fn attended<T>(
        &mut self,
        work: impl FnOnce(&mut Self) -> Result<T, OciError>,
    ) -> Result<T, OciError> {
        self.fate = Arc::default();
        let (fate, client, progress) = (Arc::clone(&self.fate), Arc::clone(&self.client), self.progress);
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
        let digest = self.first_that_has_it(|http| self.digest_from(http))?;
        let mirror = self.places().first().filter(|http| !self.is_last(http));
        if let (Some(mirror), None) = (mirror, self.reference.digest()) {
            self.progress.note(&format!(
                "{} is what {} says it is",
                self.reference.familiar(),
                mirror.name()
            ));
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
        self.first_that_has_it(|http| self.top_from(http))
    }

    fn top_from(&self, http: &Http<'_>) -> Result<(Digest, Document), OciError> {
        let (said, media_type, bytes) = self.document_from(http, &self.reference.target())?;
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

    /// A manifest's bytes, and what its answer's headers call its digest and its type.
    fn document_from(
        &self,
        http: &Http<'_>,
        target: &str,
    ) -> Result<(Option<Digest>, Option<String>, Vec<u8>), OciError> {
        let patience = self.patience_with(http);
        let mut tries = Tries::new(&patience);
        loop {
            let fetched = http.request(&manifest(target)).and_then(|mut response| {
                let (said, media_type) = (content_digest(&response), header(&response, "content-type"));
                Ok((said, media_type, http.body(&mut response, MAX_DOCUMENT)?))
            });
            match fetched {
                Err(e) => self.wait(http, &mut tries, e, 0)?,
                fetched => return fetched,
            }
        }
    }

    /// Whether a blob that turned out to be damaged may be a good one elsewhere.
    pub fn doubts(&self, digest: &str) -> Option<Doubt> {
        if self.reused.iter().any(|d| d.to_string() == digest) {
            return Some(Doubt::Cache);
        }
        (self.places.len() > 1).then_some(Doubt::Mirror)
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
        let first = self.opened.insert(descriptor.digest.clone());
        let size = if first { descriptor.size } else { 0 };
        match self.claim("layer", descriptor)? {
            Claim::Here(region) => {
                self.meter.expect(size, size);
                Ok(Blob::Here(region))
            }
            Claim::Coming { transfer, .. } => {
                self.meter.expect(size, 0);
                let arrival = Arrival::new(Arc::clone(&transfer), Arc::clone(&self.fate));
                // An image may have a layer twice.
                if first {
                    self.wanted.push(Wanted { what: "layer", descriptor: descriptor.clone(), transfer });
                }
                Ok(Blob::Arriving(arrival))
            }
        }
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

    fn claim(&mut self, what: &'static str, descriptor: &Descriptor) -> Result<Claim, OciError> {
        let Descriptor { digest, size, .. } = descriptor;
        if *size > MAX_BLOB {
            return Err(OciError::wrong_size(what, digest, MAX_BLOB, *size));
        }
        let claim = self.blobs.claim(digest, *size);
        let claim = claim.map_err(|e| {
            OciError::io(format!("look for {what} {digest} in {}", self.blobs.directory().display()), e)
        })?;
        if !matches!(claim, Claim::Coming { joined: false, .. }) {
            self.reused.push(digest.clone());
        }
        Ok(claim)
    }

    /// Where the image can be had, best first.
    fn places(&self) -> &[Http<'a>] {
        &self.places[self.from.load(Ordering::Relaxed)..]
    }

    fn is_last(&self, http: &Http<'_>) -> bool {
        self.places.last().is_some_and(|last| std::ptr::eq(last, http))
    }

    /// A mirror is not worth much patience: there is another place to ask.
    fn patience_with(&self, http: &Http<'_>) -> Patience {
        let tries = if self.is_last(http) { self.patience.tries } else { self.patience.tries.min(2) };
        Patience { tries, ..self.patience.clone() }
    }

    /// What `get` gets, from the first place where it gets anything; the error of the last, which is the registry itself.
    fn first_that_has_it<T>(
        &self,
        mut get: impl FnMut(&Http<'a>) -> Result<T, OciError>,
    ) -> Result<T, OciError> {
        let mut from = self.from.load(Ordering::Relaxed);
        loop {
            let Some(http) = self.places.get(from) else { return Err(OciError::Cancelled) };
            match get(http) {
                Err(e @ (OciError::Cancelled | OciError::Io { .. })) => return Err(e),
                Err(e) if !self.is_last(http) && !self.fate.is_sealed() => {
                    from += 1;
                    // Several threads may find out at the same time.
                    let next = self.places.get(from).map(Http::name).unwrap_or_default();
                    if self.from.fetch_max(from, Ordering::Relaxed) < from {
                        self.progress.note(&format!("{e}; going on with {next}"));
                    }
                }
                got => return got,
            }
        }
    }

    /// Waits before the next try, if one is due after `error`.
    fn wait(
        &self,
        http: &Http<'_>,
        tries: &mut Tries<'_>,
        error: OciError,
        brought: u64,
    ) -> Result<(), OciError> {
        let why = retry::short(&error);
        let pause = tries.again(error, http.has_answered(), brought, dice())?;
        self.tell_once(&format!("{why}; trying again in {}", seconds(pause)), pause);
        if self.fate.rest(pause) { Err(OciError::Cancelled) } else { Ok(()) }
    }

    /// When several threads wait for the same registry, one note is enough.
    fn tell_once(&self, text: &str, pause: Duration) {
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        if waiting.is_none_or(|end| end <= Instant::now()) {
            *waiting = Some(Instant::now() + pause);
            self.progress.note(text);
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
        self.first_that_has_it(|http| {
            let (_, _, bytes) = self.document_from(http, &digest.to_string())?;
            verify("manifest", descriptor, &bytes)?;
            Ok(bytes)
        })
    }

    fn blob(&mut self, what: &'static str, descriptor: &Descriptor) -> Result<Region, OciError> {
        match self.claim(what, descriptor)? {
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
