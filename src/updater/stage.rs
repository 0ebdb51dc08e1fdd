//! A release on its way from its publisher to an executable that can be trusted: nothing is opened before it has been judged.

use std::fs::File;
use std::io::{BufReader, Read};
use std::path::Path;

use crate::host::environment::Environment;
use crate::host::fetch;
use crate::host::files::nameless;
use crate::host::https::Client;
use crate::host::location::Location;
use crate::host::signature::{Key, MAX_PEM, MAX_SIGNATURE};
use crate::release::manifest::{MAX_MANIFEST, Manifest, Release};
use crate::release::sums::MAX_SUMS;
use crate::release::version::Version;
use crate::updater::candidate::{self, Change, Migration};
use crate::updater::error::{At, UpdateError};
use crate::updater::fetch::Patience;
use crate::updater::program::Program;
use crate::updater::tarball::MAX_EXECUTABLE;
use crate::updater::{Updater, staging, tarball, verify};

/// An executable that has said that it is what it was to be.
pub struct Staged {
    pub version: Version,
    /// Open for reading.
    pub file: File,
    pub migration: Migration,
    /// What becomes of units, links, completions and manual pages.
    pub changes: Vec<Change>,
}

/// What is published at `location`.
pub fn manifest(
    environment: &Environment,
    location: &Location,
    patience: Patience,
) -> Result<Manifest, UpdateError> {
    let client = super::fetch::client(environment, patience);
    let bytes = super::fetch::document(&client, At::Discover, "manifest", location, MAX_MANIFEST)?;
    Manifest::parse(&bytes)
        .map_err(|e| At::Discover.said(format!("the manifest at {location} cannot be used: {e}")))
}

/// The keys of a file, or those of this executable, `embedded` in PEM.
pub fn keys(file: Option<&Path>, embedded: &str) -> Result<Vec<Key>, UpdateError> {
    let read = |path: &Path| {
        let mut pem = String::new();
        File::open(path).and_then(|f| f.take(MAX_PEM).read_to_string(&mut pem)).map(|_| pem)
    };
    let (pem, name) = match file {
        Some(path) => {
            let name = path.display().to_string();
            (read(path).map_err(At::Verify.io(format!("read the key {name}")))?, name)
        }
        None => (embedded.to_owned(), "the key in this executable".to_owned()),
    };
    Key::parse_all(&pem).map_err(|e| At::Verify.said(format!("{name} cannot be used: {e}")))
}

impl Updater<'_> {
    /// Fetches and judges `release`; `manifest` is where it was found.
    pub fn stage(
        &self,
        environment: &Environment,
        manifest: &Location,
        release: &Release,
        keys: &[Key],
    ) -> Result<Staged, UpdateError> {
        // Said before anything is downloaded: nothing could be accepted.
        if !keys.iter().any(|key| matches!(key, Key::P256(_))) {
            return Err(At::Verify.said(
                "this banger was built without the key of a publisher (its place is held by a placeholder), so no release \
                 can be accepted; install one that has a key",
            ));
        }
        let staging = &self.layout.staging;
        staging::clean(staging)?;
        let staged = self.fetch_and_judge(environment, manifest, release, keys);
        if staged.is_err() {
            // What is not accepted is not kept. The error before counts more than one of this.
            if let Err(e) = staging::clean(staging) {
                self.progress.note(&e.to_string());
            }
        }
        staged
    }

    fn fetch_and_judge(
        &self,
        environment: &Environment,
        manifest: &Location,
        release: &Release,
        keys: &[Key],
    ) -> Result<Staged, UpdateError> {
        let client = super::fetch::client(environment, self.patience);
        self.progress.stage(&format!("downloading banger {}", release.version));
        let place = |what: &str, url: &str| place(manifest, what, url);
        let (sums, signature) =
            (place("SHA256SUMS", &release.sums)?, place("its signature", &release.signature)?);
        let tarball = place("its tarball", &release.tarball)?;
        let sums = document(&client, "SHA256SUMS", &sums, MAX_SUMS)?;
        let signature = document(&client, "signature", &signature, MAX_SIGNATURE)?;
        fetch::tell_problems(&client, self.progress);
        let sums = verify::sums(keys, &sums, &signature)?;
        let keep = || format!("keep the tarball in {}", self.layout.staging.display());
        let mut file = nameless(&self.layout.staging).map_err(At::Download.io(keep()))?;
        super::fetch::tarball(&client, &tarball, &mut file, self.patience, self.progress)?;
        self.progress.stage(&format!("verifying banger {}", release.version));
        verify::tarball(&mut file, &tarball_name(&release.version), &sums)?;
        // The very file that was just digested.
        let mut out = staging::create_executable(&self.layout.staging)
            .map_err(At::Unpack.io("create the executable"))?;
        tarball::unpack(BufReader::new(file), &mut out, MAX_EXECUTABLE)
            .map_err(|e| At::Unpack.said(e.to_string()))?;
        out.sync_all().map_err(At::Unpack.io("write the executable"))?;
        drop(out);
        self.judge(release.version.clone())
    }

    /// Judges the staged executable by its own words.
    pub fn judge(&self, version: Version) -> Result<Staged, UpdateError> {
        let path = staging::executable(&self.layout.staging);
        let open = || format!("open {}", path.display());
        let file = File::open(&path).map_err(At::Check.io(open()))?;
        let program =
            Program::open(&file, self.install, self.patience.program).map_err(At::Check.io(open()))?;
        candidate::is(&program, &version)?;
        let migration = candidate::migration(&program)?;
        let changes = candidate::refresh(&program, true)?;
        Ok(Staged { version, file, migration, changes })
    }
}

fn document(client: &Client, what: &'static str, at: &Location, limit: u64) -> Result<Vec<u8>, UpdateError> {
    super::fetch::document(client, At::Download, what, at, limit)
}

/// Where a manifest says that something is, if it may say so: one from elsewhere cannot send us to this machine.
fn place(manifest: &Location, what: &str, url: &str) -> Result<Location, UpdateError> {
    let location: Location = url.parse().map_err(|e| At::Download.said(format!("{what}: {e}")))?;
    match manifest.may_name(&location) {
        true => Ok(location),
        false => Err(At::Download.said(format!(
            "{what} is said to be at {location}, on this machine, by a manifest that is not from here"
        ))),
    }
}

/// By this name SHA256SUMS knows a release's tarball, whatever its URL is: what is signed says which version it is.
pub fn tarball_name(version: &Version) -> String {
    format!("banger-{version}-{}-linux.tar.gz", std::env::consts::ARCH)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_manifest_from_elsewhere_cannot_point_here() {
        let remote: Location = "https://example.org/m.json".parse().expect("a place");
        let here: Location = "http://127.0.0.1:1/m.json".parse().expect("a place");
        place(&remote, "x", "http://127.0.0.1/t").expect_err("here");
        place(&remote, "x", "https://other.example/t").expect("elsewhere");
        place(&here, "x", "http://127.0.0.1/t").expect("here");
        place(&here, "x", "http://example.org/t").expect_err("http from elsewhere");
    }
}
