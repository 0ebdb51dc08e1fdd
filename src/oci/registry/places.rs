//! Where an image can be had: mirrors in their order, then the registry itself; and how much patience each is worth.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::http::{DOCKER_HUB_HOST, Http};
use super::login::Login;
use super::retry::{Patience, Tries, dice, short};
use crate::host::https::Client;
use crate::host::progress::Progress;
use crate::image::reference::{DOCKER_HUB, Reference};
use crate::oci::Settings;
use crate::oci::error::{OciError, seconds};
use crate::oci::fate::Fate;

const USER_AGENT: &str = concat!("banger/", env!("CARGO_PKG_VERSION"));
/// A mirror is worth one more try: there is another place to ask.
const TRIES_OF_A_MIRROR: u32 = 2;

pub struct Places<'a> {
    client: Arc<Client>,
    all: Vec<Http<'a>>,
    /// The first that may still be asked: those before it have failed.
    from: AtomicUsize,
    patience: Patience,
    progress: &'a dyn Progress,
    /// When the last pause ends that was told of.
    waiting: Mutex<Option<Instant>>,
}

impl<'a> Places<'a> {
    /// `mirrors`: whether mirrors are asked too, where there are some.
    pub fn new(
        reference: &Reference,
        settings: &'a Settings,
        progress: &'a dyn Progress,
        mirrors: bool,
    ) -> Self {
        let Settings { registries, environment, patience, docker_config, .. } = settings;
        let registry = reference.registry();
        let mirrors = if mirrors { registries.mirrors(registry) } else { &[] };
        let insecure = std::iter::once(registry)
            .chain(mirrors.iter().map(|mirror| mirror.authority()))
            .filter(|name| registries.is_insecure(name))
            .map(|name| if name == DOCKER_HUB { DOCKER_HUB_HOST.to_owned() } else { name.to_owned() });
        let client = Client::new(environment, USER_AGENT)
            .stalled_after(patience.stalled)
            .without_verifying(insecure.collect());
        let client = Arc::new(client);
        // Each has its own login: what is for one must not reach another.
        let login = |name: &str| Login::new(docker_config.clone(), name, environment, progress);
        let mut all: Vec<Http<'a>> = mirrors
            .iter()
            .map(|mirror| Http::mirror(mirror, reference, Arc::clone(&client), login(mirror.authority())))
            .collect();
        let insecure = registries.is_insecure(registry);
        all.push(Http::registry(reference, insecure, Arc::clone(&client), login(registry)));
        let (from, waiting) = (AtomicUsize::new(0), Mutex::new(None));
        Self { client, all, from, patience: patience.clone(), progress, waiting }
    }

    pub fn client(&self) -> Arc<Client> {
        Arc::clone(&self.client)
    }

    pub fn has_mirrors(&self) -> bool {
        self.all.len() > 1
    }

    /// The mirror that is asked now; None: it is the registry itself.
    pub fn mirror(&self) -> Option<&str> {
        let now = self.all.get(self.from.load(Ordering::Relaxed))?;
        (!self.is_registry(now)).then(|| now.name())
    }

    fn is_registry(&self, http: &Http<'_>) -> bool {
        self.all.last().is_some_and(|last| std::ptr::eq(last, http))
    }

    /// What `get` gets, from the first place where it gets anything; the error of the last, which is the registry itself.
    pub fn first_that_has_it<T>(
        &self,
        fate: &Fate,
        mut get: impl FnMut(&Http<'a>) -> Result<T, OciError>,
    ) -> Result<T, OciError> {
        let mut from = self.from.load(Ordering::Relaxed);
        loop {
            let Some(http) = self.all.get(from) else { return Err(OciError::Cancelled) };
            match get(http) {
                // That is not the place's fault.
                Err(e @ (OciError::Cancelled | OciError::Io { .. })) => return Err(e),
                Err(e) if !self.is_registry(http) && !fate.is_sealed() => {
                    from += 1;
                    let next = self.all.get(from).map(Http::name).unwrap_or_default();
                    // Several threads may find out at the same time.
                    if self.from.fetch_max(from, Ordering::Relaxed) < from {
                        self.progress.note(&format!("{e}; going on with {next}"));
                    }
                }
                got => return got,
            }
        }
    }

    pub fn patience_with(&self, http: &Http<'_>) -> Patience {
        let most = if self.is_registry(http) { u32::MAX } else { TRIES_OF_A_MIRROR };
        Patience { tries: self.patience.tries.min(most), ..self.patience.clone() }
    }

    /// Waits before the next try, if one is due after `error`. `brought`: bytes that came since the last one.
    pub fn wait(
        &self,
        fate: &Fate,
        http: &Http<'_>,
        tries: &mut Tries<'_>,
        error: OciError,
        brought: u64,
    ) -> Result<(), OciError> {
        let why = short(&error);
        let pause = tries.again(error, http.has_answered(), brought, dice())?;
        self.tell_once(&format!("{why}; trying again in {}", seconds(pause)), pause);
        if fate.rest(pause) { Err(OciError::Cancelled) } else { Ok(()) }
    }

    /// When several threads wait at the same time, one note is enough.
    fn tell_once(&self, text: &str, pause: Duration) {
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        if waiting.is_none_or(|end| end <= Instant::now()) {
            *waiting = Some(Instant::now() + pause);
            self.progress.note(text);
        }
    }
}
