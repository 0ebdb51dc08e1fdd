//! What was read of a catalog, kept for the time when it cannot be read: one file, so that its parts belong together.
//!
//! Only what was verified is kept, and it is verified again when it is taken: the file may be of anybody by then, and keys may
//! have been withdrawn.

use std::io::{self, Read};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::catalog::record::MAX_CATALOG;
use crate::host::fetch::Validators;
use crate::host::files::{create_private_dir, write_atomic};
use crate::host::location::Location;
use crate::host::signature::MAX_SIGNATURE;

/// A catalog as it was fetched.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Kept {
    pub bytes: Vec<u8>,
    pub signature: String,
    pub validators: Validators,
}

/// The first line of the file; the catalog's bytes follow.
#[derive(Serialize, Deserialize)]
struct Head {
    /// For people who look into the file.
    url: String,
    signature: String,
    etag: Option<String>,
    last_modified: Option<String>,
}

/// Room for the first line: a URL, a signature and two validators.
const MAX_HEAD: u64 = 16 << 10;

impl Kept {
    /// What is kept in the directory `cache` of the catalog at `location`; None: nothing that makes sense.
    pub fn load(cache: &Path, location: &Location) -> Option<Self> {
        let path = path(cache, location);
        let mut bytes = vec![];
        let limit = MAX_HEAD + MAX_CATALOG;
        match std::fs::File::open(&path).and_then(|f| f.take(limit + 1).read_to_end(&mut bytes)) {
            Ok(_) => {}
            Err(e) if e.kind() == io::ErrorKind::NotFound => return None,
            Err(e) => {
                log::warn!("cannot read {}: {e}", path.display());
                return None;
            }
        }
        let kept = Self::parse(&bytes, location);
        if kept.is_none() {
            log::warn!("{} holds no catalog of {location}", path.display());
        }
        kept
    }

    fn parse(bytes: &[u8], location: &Location) -> Option<Self> {
        let end = bytes.iter().position(|b| *b == b'\n')?;
        let head: Head = serde_json::from_slice(&bytes[..end]).ok()?;
        let rest = &bytes[end + 1..];
        let fits = rest.len() as u64 <= MAX_CATALOG && head.signature.len() as u64 <= MAX_SIGNATURE;
        (fits && head.url == location.to_string()).then(|| Self {
            bytes: rest.to_vec(),
            signature: head.signature,
            validators: Validators { etag: head.etag, last_modified: head.last_modified },
        })
    }

    pub fn store(&self, cache: &Path, location: &Location) -> io::Result<()> {
        create_private_dir(cache)?;
        let Validators { etag, last_modified } = self.validators.clone();
        let head = Head { url: location.to_string(), signature: self.signature.clone(), etag, last_modified };
        let mut file = serde_json::to_vec(&head)?;
        file.push(b'\n');
        file.extend_from_slice(&self.bytes);
        write_atomic(&path(cache, location), &file, 0o600)
    }
}

fn path(cache: &Path, location: &Location) -> PathBuf {
    let name = blake3::hash(location.to_string().as_bytes()).to_hex();
    cache.join(&name[..32])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_kept_comes_back_and_what_was_bent_does_not() {
        let dir = tempfile::tempdir().expect("a directory");
        let cache = dir.path().join("catalogs");
        let location: Location = "https://example.org/c.json".parse().expect("a location");
        assert_eq!(Kept::load(&cache, &location), None);
        let validators = Validators { etag: Some("\"a\"".to_owned()), last_modified: None };
        let kept = Kept { bytes: b"{\n}\n".to_vec(), signature: "AAAA\n".to_owned(), validators };
        kept.store(&cache, &location).expect("stores");
        assert_eq!(Kept::load(&cache, &location), Some(kept.clone()));
        let other: Location = "https://example.org/other.json".parse().expect("a location");
        assert_eq!(Kept::load(&cache, &other), None);
        std::fs::copy(path(&cache, &location), path(&cache, &other)).expect("copies");
        assert_eq!(Kept::load(&cache, &other), None, "it is another's");
        for bent in [&b""[..], b"\n", b"{}\n{}", &[b'x'; 100]] {
            std::fs::write(path(&cache, &location), bent).expect("writes");
            assert_eq!(Kept::load(&cache, &location), None);
        }
    }
}
