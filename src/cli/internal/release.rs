//! `banger internal release`: README.md, Releasing.

use std::path::PathBuf;

use argh::{ArgsInfo, FromArgs};

use crate::build;
use crate::cli::error::Error;
use crate::cli::help::man;
use crate::cli::render;
use crate::cli::tree::Banger;
use crate::publish::release::{self, Base, ReleaseWish};
use crate::release::version::Version;

#[derive(FromArgs, ArgsInfo, Debug)]
/// Make a release of banger: tarball, manual pages, SHA256SUMS, its signature, manifest.json and install.sh, ready to be uploaded. The public keys in
/// this banger judge the signature.
#[argh(
    subcommand,
    name = "release",
    help_triggers("-h", "--help", "help"),
    example = "banger internal release --binary target/x86_64-unknown-linux-gnu/release/banger --out releases \\\n  \
               --base-url https://releases.thaloco.com/banger --key release.key",
    note = "Fields of what is printed: version, latest_stable, tarball (its path), sha256, size, manifest (its path)."
)]
pub struct Release {
    /// the executable
    #[argh(option, arg_name = "file")]
    binary: PathBuf,
    /// a directory for it all, as it is to be uploaded
    #[argh(option, arg_name = "dir")]
    out: PathBuf,
    /// where that directory will be
    #[argh(option, arg_name = "url")]
    base_url: Base,
    /// the private key, in PEM (PKCS #8)
    #[argh(option, arg_name = "file")]
    key: PathBuf,
    /// what the executable must say that it is, such as v1.2.3
    #[argh(option, arg_name = "version")]
    version: Option<Version>,
    /// from when on there will be a newer release, such as 2027-01-01T00:00:00Z
    #[argh(option, arg_name = "time")]
    expires: Option<String>,
    /// the oldest banger that can update to it by itself
    #[argh(option, arg_name = "version")]
    min_version: Option<Version>,
    /// the manifest that is published now; the one in --out, if not given
    #[argh(option, arg_name = "file")]
    manifest: Option<PathBuf>,
}

impl Release {
    pub fn run(self) -> Result<(), Error> {
        let wish = ReleaseWish {
            binary: self.binary,
            version: self.version,
            out: self.out,
            base: self.base_url,
            key: self.key,
            manifest: self.manifest,
            expires: self.expires,
            min_version: self.min_version,
            manual: |version| man::pages(&Banger::get_args_info(), version),
        };
        let made = release::release(&wish, build::RELEASE_KEYS);
        render::json(&made.map_err(|e| Error::Release(Box::new(e)))?)
    }
}
