//! Catalogs: what a name stands for, before any registry is asked; and the bundles that they point to.
//!
//! ```text
//!  catalog_urls --fetch--> signature --> record --> an entry: a reference, for oci/
//!       |         (kept)   catalog_keys     |                  or a bundle --download--> sha256 --> bundle/ --> files
//!  embedded.json ---------------------------'
//! ```
//!
//! The catalogs are asked in the order of `catalog_urls`, and the one in this executable last; the first that has a name
//! decides what it stands for. So whoever configures a catalog decides over what banger happens to ship, and a new version of
//! banger cannot change what a name means there. A catalog that can neither be read nor is kept from before stops the search:
//! going on would give the name to somebody it is not meant for.
//!
//! Without any network there is [`medium`]: all that a machine needs, in one file.
//!
//! Trust is a signature over the catalog and, from there, the sha256 of each bundle, judged before anything looks inside.

pub mod about;
pub mod bundle;
mod download;
pub mod error;
mod kept;
pub mod medium;
mod passing;
pub mod record;

use std::fmt;
use std::io::Read;
use std::path::PathBuf;

pub use self::download::download;
pub use self::error::CatalogError;
use self::kept::Kept;
use self::record::{Catalog, MAX_CATALOG};
use crate::host::causes::chain;
use crate::host::environment::Environment;
use crate::host::fetch::{self, FetchError, Validators};
use crate::host::https::Client;
use crate::host::location::Location;
use crate::host::progress::Progress;
use crate::host::signature::{self, Key, MAX_PEM, MAX_SIGNATURE};

/// The key that this banger was built with. A build without one has a placeholder, which verifies nothing.
pub const EMBEDDED_KEY: &str = include_str!("key.pem");
const EMBEDDED: &[u8] = include_bytes!("embedded.json");

/// Where the catalogs are, and whose signatures count.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Settings {
    pub urls: Vec<Location>,
    pub keys: Vec<KeyAt>,
    /// The directory in which catalogs are kept.
    pub cache: PathBuf,
    /// Take what is kept, and ask nobody.
    pub offline: bool,
    /// Proxies and certificates for what is not here.
    pub environment: Environment,
}

/// A key that was configured.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum KeyAt {
    Here(Key),
    /// Of a file in PEM, read when it is needed.
    File(PathBuf),
}

/// Which catalog it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origin {
    At(Location),
    /// The one in this executable.
    Embedded,
}

/// A catalog in its turn, or why it cannot be had.
pub struct Turn {
    pub origin: Origin,
    pub catalog: Result<Catalog, CatalogError>,
}

/// All catalogs, each read when its turn comes.
pub fn each<'a>(settings: &'a Settings, progress: &'a dyn Progress) -> impl Iterator<Item = Turn> + 'a {
    let configured = settings
        .urls
        .iter()
        .map(|at| Turn { origin: Origin::At(at.clone()), catalog: read(at, settings, progress) });
    let embedded = std::iter::once_with(|| Turn {
        origin: Origin::Embedded,
        catalog: record::parse(EMBEDDED, None)
            .map_err(|source| CatalogError::Catalog { at: Origin::Embedded.to_string(), source }),
    });
    configured.chain(embedded)
}

/// What `pick` finds in the first catalog in which it finds something.
///
/// # Errors
/// Those of a catalog that cannot be had, if none before it has what is looked for.
pub fn first<T>(
    settings: &Settings,
    progress: &dyn Progress,
    pick: impl Fn(Catalog) -> Option<T>,
) -> Result<Option<(T, Origin)>, CatalogError> {
    for Turn { origin, catalog } in each(settings, progress) {
        if let Some(found) = pick(catalog?) {
            return Ok(Some((found, origin)));
        }
    }
    Ok(None)
}

/// The catalog at a location: what is there now, or, where that cannot be had, what was kept of it.
fn read(at: &Location, settings: &Settings, progress: &dyn Progress) -> Result<Catalog, CatalogError> {
    let keys = keys(settings)?;
    // What cannot be verified any more, since a key was withdrawn or the file bent, counts as not there.
    let kept = Kept::load(&settings.cache, at).filter(|kept| verified(at, kept, &keys).is_ok());
    if settings.offline {
        let gone = || FetchError::Unreachable { at: at.to_string(), source: "it is not kept here".into() };
        return parse(at, &kept.ok_or_else(gone)?);
    }
    if progress.cancelled() {
        return Err(CatalogError::Cancelled);
    }
    let client = fetch::client(&settings.environment);
    let fetched = fetch(&client, at, kept.as_ref());
    fetch::tell_problems(&client, progress);
    let fresh = match (fetched, kept) {
        (Ok(None), Some(kept)) => return parse(at, &kept),
        (Ok(Some(fresh)), _) => fresh,
        (Err(e), Some(kept)) if e.is_passing() => {
            progress.note(&format!("{}; what is known of it from before is used", chain(&e)));
            return parse(at, &kept);
        }
        (Err(e), _) => return Err(e),
        (Ok(None), None) => return Err(FetchError::Status { at: at.to_string(), status: 304 }.into()),
    };
    verified(at, &fresh, &keys)?;
    let catalog = parse(at, &fresh)?;
    if let Err(e) = fresh.store(&settings.cache, at) {
        // It is needed only when the catalog cannot be had.
        log::warn!("cannot keep the catalog {at}: {e}");
    }
    Ok(catalog)
}

/// The catalog and its signature; None: they are what is kept.
fn fetch(client: &Client, at: &Location, kept: Option<&Kept>) -> Result<Option<Kept>, CatalogError> {
    let known = kept.map(|kept| kept.validators.clone()).unwrap_or_default();
    let Some((bytes, validators)) = fetch::read(client, at, &known, MAX_CATALOG)? else { return Ok(None) };
    let place = at.signature().map_err(|_| FetchError::Protocol {
        at: at.to_string(),
        why: "its location is too long for its signature's",
    })?;
    let unsigned = || CatalogError::Unsigned { at: at.to_string(), signature: place.to_string() };
    let (signature, _) = match fetch::read(client, &place, &Validators::default(), MAX_SIGNATURE) {
        Ok(Some(signature)) => signature,
        Ok(None) | Err(FetchError::Status { status: 404 | 410, .. }) => return Err(unsigned()),
        // The catalog could be read from this machine just now, so its signature is not there.
        Err(FetchError::Unreachable { .. }) if matches!(place, Location::File(_)) => return Err(unsigned()),
        Err(e) => return Err(e.into()),
    };
    let signature = String::from_utf8_lossy(&signature).into_owned();
    Ok(Some(Kept { bytes, signature, validators }))
}

fn verified(at: &Location, kept: &Kept, keys: &[Key]) -> Result<(), CatalogError> {
    signature::verify(keys, &kept.bytes, &kept.signature)
        .map_err(|source| CatalogError::Signature { at: at.to_string(), source })
}

fn parse(at: &Location, kept: &Kept) -> Result<Catalog, CatalogError> {
    record::parse(&kept.bytes, Some(at))
        .map_err(|source| CatalogError::Catalog { at: at.to_string(), source })
}

/// The embedded key and the configured ones.
fn keys(settings: &Settings) -> Result<Vec<Key>, CatalogError> {
    let parse = |name: &str, pem: &str| {
        Key::parse(pem).map_err(|source| CatalogError::Key { key: name.to_owned(), source })
    };
    let mut keys = vec![parse("the key in this executable", EMBEDDED_KEY)?];
    for key in &settings.keys {
        keys.push(match key {
            KeyAt::Here(key) => key.clone(),
            KeyAt::File(path) => {
                let mut pem = String::new();
                let read = std::fs::File::open(path).and_then(|f| f.take(MAX_PEM).read_to_string(&mut pem));
                read.map_err(|e| CatalogError::io(format!("read the key {}", path.display()), e))?;
                parse(&path.display().to_string(), &pem)?
            }
        });
    }
    Ok(keys)
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::At(location) => location.fmt(f),
            Self::Embedded => f.write_str("banger"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::catalog::record::ImageSource;
    use crate::host::progress::Silent;

    #[test]
    fn the_key_of_a_build_without_one_verifies_nothing() {
        assert_eq!(Key::parse(EMBEDDED_KEY), Ok(Key::Placeholder));
    }

    #[test]
    fn the_catalog_in_this_executable_has_the_default_image() {
        for arch in ["amd64", "arm64"] {
            let pick = |catalog: Catalog| {
                catalog.images.into_iter().find(|i| i.about.name == "debian-bookworm" && i.about.arch == arch)
            };
            let (entry, origin) =
                first(&Settings::default(), &Silent, pick).expect("reads").expect("is there");
            assert_eq!(origin, Origin::Embedded);
            let ImageSource::Reference(reference) = entry.source else { panic!("a reference") };
            assert_eq!(reference.to_string(), "docker.io/library/debian:bookworm");
        }
    }
}
