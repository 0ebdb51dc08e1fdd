//! The credentials for a registry, looked up when it asks for some: a helper may ask its user.

use std::path::PathBuf;
use std::sync::OnceLock;

use super::credentials::{Credentials, place};
use super::helper;
use crate::host::environment::Environment;
use crate::host::progress::Progress;
use crate::image::manifest::harmless;

pub struct Login<'a> {
    /// Docker's config.json.
    config: Option<PathBuf>,
    registry: String,
    environment: &'a Environment,
    progress: &'a dyn Progress,
    found: OnceLock<Option<Credentials>>,
}

impl<'a> Login<'a> {
    /// The login for `registry`, as docker's file calls it.
    pub fn new(
        config: Option<PathBuf>,
        registry: &str,
        environment: &'a Environment,
        progress: &'a dyn Progress,
    ) -> Self {
        Self { config, registry: registry.to_owned(), environment, progress, found: OnceLock::new() }
    }

    /// None if there are none, or none that can be had: most images need none.
    pub fn credentials(&self) -> Option<&Credentials> {
        self.found.get_or_init(|| self.look_up()).as_ref()
    }

    /// Whether no credentials have been found so far.
    pub fn is_anonymous(&self) -> bool {
        self.found.get().is_none_or(Option::is_none)
    }

    fn look_up(&self) -> Option<Credentials> {
        let path = self.config.as_ref()?;
        let place = match std::fs::read(path) {
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => return None,
            Err(e) => Err(e.to_string()),
            Ok(text) => place(&text, &self.registry),
        };
        let place = place
            .map_err(|why| {
                let why = harmless(&why);
                self.progress.note(&format!("cannot use {}: {why}; going on anonymously", path.display()));
            })
            .ok()?;
        let helped = place.helper.map(|name| helper::ask(&name, &self.registry, self.environment));
        match helped {
            Some(Ok(Some(credentials))) => Some(credentials),
            Some(Ok(None)) | None => place.written,
            Some(Err(why)) => {
                let rest = if place.written.is_some() { "" } else { "; going on anonymously" };
                self.progress
                    .note(&format!("cannot use the credential helper of {}: {why}{rest}", path.display()));
                place.written
            }
        }
    }
}
