//! Publishing a release of banger itself: `banger internal release`.
//!
//! ```text
//! OUT/manifest.json                              what there is, the new release first
//! OUT/install.sh                                 with the public keys, and where the manifest is
//! OUT/vX.Y.Z/banger-vX.Y.Z-x86_64-linux.tar.gz   one file, banger
//! OUT/vX.Y.Z/banger-vX.Y.Z-man.tar.gz            its manual pages, for those who package it
//! OUT/vX.Y.Z/SHA256SUMS, SHA256SUMS.sig          their digests, and who says so
//! ```
//!
//! OUT is uploaded as it is. Whatever `banger update` or install.sh would refuse is refused here: what is written has been read back
//! by the same code and the same keys.

mod installer;
mod manifest;
mod sign;
mod tarball;

use std::error::Error;
use std::fmt;
use std::fs::File;
use std::io::{self, BufReader, Write};
use std::path::{Path, PathBuf};

use serde::Serialize;

use crate::host::cmd::{self, CmdError};
use crate::host::files::{remove_tree_if_present, sync_directory, write_atomic};
use crate::host::signature::{BadKey, Key};
use crate::host::undo::Undo;
use crate::release::manifest::{BadManifest, MAX_MANIFEST};
use crate::release::version::Version;
use crate::updater::error::UpdateError;
use crate::updater::fetch::MAX_TARBALL;
use crate::updater::stage::tarball_name;
use crate::updater::tarball::{BadTarball, MAX_EXECUTABLE, unpack};
use crate::updater::verify;

pub use self::manifest::{BadBase, Base};

const MANIFEST: &str = "manifest.json";
const INSTALLER: &str = "install.sh";
const SUMS: &str = "SHA256SUMS";
const SIGNATURE: &str = "SHA256SUMS.sig";

/// A banger to be released.
#[derive(Debug)]
pub struct ReleaseWish {
    /// The executable.
    pub binary: PathBuf,
    /// What its version must be; None: what it says.
    pub version: Option<Version>,
    /// What is uploaded at `base`; made if missing.
    pub out: PathBuf,
    pub base: Base,
    /// The private key, in PEM.
    pub key: PathBuf,
    /// The manifest that there is; None: the one in `out`, if there is one.
    pub manifest: Option<PathBuf>,
    /// RFC 3339, UTC.
    pub expires: Option<String>,
    pub min_version: Option<Version>,
    /// The manual pages of a version, names and texts.
    pub manual: fn(&str) -> Vec<(String, String)>,
}

/// A release, ready to be uploaded.
#[derive(Debug, Serialize)]
pub struct Released {
    pub version: Version,
    pub latest_stable: Version,
    pub tarball: String,
    pub sha256: String,
    /// Of the tarball, in bytes.
    pub size: u64,
    pub manifest: String,
}

/// Why there is no release.
#[derive(Debug)]
pub enum ReleaseError {
    /// No key in this banger could judge it.
    Placeholder,
    Keys(BadKey),
    /// What is wrong with the private key; a sentence.
    Private(PathBuf, &'static str),
    /// Its public half is none of the keys in this banger.
    OtherKey(PathBuf),
    /// No banger would update to it.
    Refused(UpdateError),
    Tarball(BadTarball),
    Binary(CmdError),
    /// It says something else than a version.
    Silent(PathBuf),
    Version {
        asked: Version,
        found: Version,
    },
    /// It has been released before.
    Reused(Version),
    /// There is something in its place, though no manifest names it.
    Occupied(PathBuf),
    TooLarge {
        bytes: u64,
    },
    /// The manifest would be longer than any banger reads.
    TooMany,
    Manifest(PathBuf, BadManifest),
    Io {
        op: String,
        source: io::Error,
    },
}

/// Makes a release, judged by the public `keys` in PEM. Nothing is left behind on an error.
pub fn release(wish: &ReleaseWish, keys: &str) -> Result<Released, ReleaseError> {
    let known = Key::parse_all(keys).map_err(ReleaseError::Keys)?;
    if known.iter().all(|key| matches!(key, Key::Placeholder)) {
        return Err(ReleaseError::Placeholder);
    }
    let signer = sign::Signer::read(&wish.key)?;
    if !known.contains(&signer.public()) {
        return Err(ReleaseError::OtherKey(wish.key.clone()));
    }
    let version = version_of(&wish.binary)?;
    if let Some(asked) = wish.version.as_ref().filter(|asked| **asked != version) {
        return Err(ReleaseError::Version { asked: asked.clone(), found: version });
    }
    std::fs::create_dir_all(&wish.out).map_err(failed(format!("make {}", wish.out.display())))?;
    let old = old_manifest(wish)?;
    let entry = manifest::Entry {
        version: version.clone(),
        tarball: tarball_name(&version),
        expires: wish.expires.clone(),
        min_version: wish.min_version.clone(),
    };
    let merged = manifest::add(
        old.as_ref().map(|(path, bytes)| (path.as_path(), bytes.as_slice())),
        &entry,
        &wish.base,
    )?;

    let place = wish.out.join(version.to_string());
    if place.symlink_metadata().is_ok() {
        return Err(ReleaseError::Occupied(place));
    }
    let staged = wish.out.join(format!(".staged-{}-release", std::process::id()));
    std::fs::create_dir(&staged).map_err(failed(format!("make {}", staged.display())))?;
    let mut undo = Undo::default();
    let doomed = staged.clone();
    undo.push(format!("directory {}", staged.display()), move || remove_tree_if_present(&doomed));

    let tarball = staged.join(&entry.tarball);
    let made = tarball::make(&wish.binary, &tarball)?;
    if made.bytes > MAX_TARBALL {
        return Err(ReleaseError::TooLarge { bytes: made.bytes });
    }
    let manual = format!("banger-{version}-man.tar.gz");
    let pages = tarball::make_manual(&(wish.manual)(&version.to_string()), &staged.join(&manual))?;
    let sums = format!("{}  {}\n{}  {manual}\n", made.sha256, entry.tarball, pages.sha256);
    let signature = signer.sign(sums.as_bytes())?;
    write(&staged.join(SUMS), sums.as_bytes())?;
    write(&staged.join(SIGNATURE), format!("{signature}\n").as_bytes())?;
    judge(&staged, &entry.tarball, &known)?;
    sync_directory(&staged)
        .and_then(|()| std::fs::rename(&staged, &place))
        .map_err(failed(format!("store {}", place.display())))?;
    let doomed = place.clone();
    undo.push(format!("directory {}", place.display()), move || remove_tree_if_present(&doomed));

    let installer = installer::with(keys, &wish.base.at(MANIFEST));
    store(&wish.out.join(INSTALLER), installer.as_bytes(), 0o755)?;
    // What names the release is last: until then there is none.
    let manifest = wish.out.join(MANIFEST);
    store(&manifest, &merged.bytes, 0o644)?;
    undo.commit();
    Ok(Released {
        tarball: place.join(&entry.tarball).display().to_string(),
        version,
        latest_stable: merged.latest_stable,
        sha256: made.sha256,
        size: made.bytes,
        manifest: manifest.display().to_string(),
    })
}

/// Reads a release as an update does.
fn judge(directory: &Path, name: &str, keys: &[Key]) -> Result<(), ReleaseError> {
    let read = |name| {
        let path = directory.join(name);
        std::fs::read(&path).map_err(failed(format!("read {}", path.display())))
    };
    let sums = verify::sums(keys, &read(SUMS)?, &read(SIGNATURE)?).map_err(ReleaseError::Refused)?;
    let path = directory.join(name);
    let mut file = File::open(&path).map_err(failed(format!("read {}", path.display())))?;
    verify::tarball(&mut file, name, &sums).map_err(ReleaseError::Refused)?;
    unpack(BufReader::new(file), &mut io::sink(), MAX_EXECUTABLE).map(drop).map_err(ReleaseError::Tarball)
}

/// The manifest that the release is added to, and where it was.
fn old_manifest(wish: &ReleaseWish) -> Result<Option<(PathBuf, Vec<u8>)>, ReleaseError> {
    let (path, must_be) = match &wish.manifest {
        Some(path) => (path.clone(), true),
        None => (wish.out.join(MANIFEST), false),
    };
    match std::fs::read(&path) {
        Ok(bytes) => Ok(Some((path, bytes))),
        Err(e) if e.kind() == io::ErrorKind::NotFound && !must_be => Ok(None),
        Err(e) => Err(failed(format!("read {}", path.display()))(e)),
    }
}

/// The version that a banger says it is.
fn version_of(binary: &Path) -> Result<Version, ReleaseError> {
    // A name without a slash would be looked for on the PATH.
    let program = std::path::absolute(binary).map_err(failed(format!("find {}", binary.display())))?;
    let said = cmd::run(&program.display().to_string(), ["--version"]).map_err(ReleaseError::Binary)?;
    let said = String::from_utf8_lossy(&said);
    Version::of_line(said.trim_end()).ok_or_else(|| ReleaseError::Silent(binary.to_owned()))
}

/// A file of a directory that nobody sees yet.
fn write(path: &Path, bytes: &[u8]) -> Result<(), ReleaseError> {
    let written = File::create_new(path).and_then(|mut file| {
        file.write_all(bytes)?;
        file.sync_all()
    });
    written.map_err(failed(format!("write {}", path.display())))
}

fn store(path: &Path, bytes: &[u8], mode: u32) -> Result<(), ReleaseError> {
    let path = std::path::absolute(path).map_err(failed(format!("find {}", path.display())))?;
    write_atomic(&path, bytes, mode).map_err(failed(format!("write {}", path.display())))
}

fn failed(op: impl Into<String>) -> impl FnOnce(io::Error) -> ReleaseError {
    let op = op.into();
    move |source| ReleaseError::Io { op, source }
}

impl fmt::Display for ReleaseError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Placeholder => f.write_str(
                "this banger was built with a placeholder for the key that judges releases, so it would never take an update; put the \
                 public key into src/updater/keys.pem and build again (README.md, Releasing)",
            ),
            Self::Keys(_) => f.write_str("the public keys in this banger cannot be read"),
            Self::Private(path, why) => write!(f, "{} is no key to sign with: {why}", path.display()),
            Self::OtherKey(path) => write!(
                f,
                "{} belongs to none of the public keys in this banger, so no banger would take what it signs; build with its \
                 public key in src/updater/keys.pem, or sign with the other key",
                path.display()
            ),
            Self::Refused(_) | Self::Tarball(_) => f.write_str("no banger would update to it"),
            Self::Binary(_) => f.write_str("the program to be released does not run"),
            Self::Silent(path) => write!(f, "{} --version does not say the version of a banger", path.display()),
            Self::Version { asked, found } => write!(f, "the program says that it is {found}, not {asked}"),
            Self::Reused(version) => {
                write!(f, "{version} has been released already, and a version is never used twice; release the next one")
            }
            Self::Occupied(path) => write!(
                f,
                "{} is there already; if it was never uploaded, remove it, and if it was, give the manifest that names it with \
                 --manifest",
                path.display()
            ),
            Self::TooLarge { bytes } => {
                write!(f, "the tarball has {bytes} bytes, and banger downloads at most {MAX_TARBALL}; strip the program")
            }
            Self::TooMany => write!(
                f,
                "the manifest would be longer than the {MAX_MANIFEST} bytes that banger reads; take old releases out of it"
            ),
            Self::Manifest(path, _) => write!(f, "{} cannot be added to", path.display()),
            Self::Io { op, .. } => write!(f, "cannot {op}"),
        }
    }
}

impl Error for ReleaseError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match self {
            Self::Keys(source) => Some(source),
            Self::Refused(source) => Some(source),
            Self::Tarball(source) => Some(source),
            Self::Binary(source) => Some(source),
            Self::Manifest(_, source) => Some(source),
            Self::Io { source, .. } => Some(source),
            Self::Placeholder
            | Self::Private(..)
            | Self::OtherKey(_)
            | Self::Silent(_)
            | Self::Version { .. }
            | Self::Reused(_)
            | Self::Occupied(_)
            | Self::TooLarge { .. }
            | Self::TooMany => None,
        }
    }
}
