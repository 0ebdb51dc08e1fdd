//! Somebody who makes releases: scripts that do what the updater asks of an executable, packed, digested and signed.

use std::fmt::Write as _;
use std::io::Write as _;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use flate2::Compression;
use flate2::write::GzEncoder;
use ring::digest::{SHA256, digest};
use ring::rand::SystemRandom;
use ring::signature::{ECDSA_P256_SHA256_ASN1_SIGNING, EcdsaKeyPair, KeyPair};
use serde_json::{Value, json};
use tar::{Builder, EntryType, Header};

use crate::server::Server;

pub const BANGER: &str = env!("CARGO_BIN_EXE_banger");

pub struct Publisher(EcdsaKeyPair);

impl Publisher {
    pub fn new() -> Self {
        let random = SystemRandom::new();
        let key = EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_ASN1_SIGNING, &random).expect("generates");
        Self(EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_ASN1_SIGNING, key.as_ref(), &random).expect("reads"))
    }

    pub fn pem(&self) -> String {
        const HEAD: &str = "MFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAE";
        let mut der = STANDARD.decode(HEAD).expect("base64");
        der.extend_from_slice(&self.0.public_key().as_ref()[1..]);
        format!("-----BEGIN PUBLIC KEY-----\n{}\n-----END PUBLIC KEY-----\n", STANDARD.encode(der))
    }

    pub fn sign(&self, bytes: &[u8]) -> String {
        STANDARD.encode(self.0.sign(&SystemRandom::new(), bytes).expect("signs"))
    }

    /// Puts a release of this tarball on the server, and returns its entry for a manifest.
    pub fn release(&self, server: &Server, version: &str, tarball: Vec<u8>) -> Value {
        let at = |name: &str| format!("/{version}/{name}");
        let name = tarball_name(version);
        let sums = format!("{}  {name}\n", sha256(&tarball));
        server.put(&at("SHA256SUMS.sig"), self.sign(sums.as_bytes()));
        server.put(&at("SHA256SUMS"), sums);
        server.put(&at(&name), tarball);
        json!({
            "version": version,
            "tarball_url": server.at(&at(&name)),
            "sha256sums_url": server.at(&at("SHA256SUMS")),
            "sha256sums_sig_url": server.at(&at("SHA256SUMS.sig")),
        })
    }
}

pub fn tarball_name(version: &str) -> String {
    format!("banger-{version}-x86_64-linux.tar.gz")
}

pub fn manifest(latest: &str, releases: &[Value]) -> String {
    json!({"schema_version": 1, "latest_stable": latest, "releases": releases}).to_string()
}

pub fn sha256(bytes: &[u8]) -> String {
    digest(&SHA256, bytes).as_ref().iter().fold(String::new(), |mut hex, b| {
        write!(hex, "{b:02x}").expect("writes");
        hex
    })
}

/// A tarball of one file.
pub fn pack(executable: &str) -> Vec<u8> {
    pack_members(&[("banger", EntryType::Regular, executable.as_bytes())])
}

pub fn pack_members(members: &[(&str, EntryType, &[u8])]) -> Vec<u8> {
    let mut builder = Builder::new(GzEncoder::new(vec![], Compression::fast()));
    for (name, kind, data) in members {
        let mut header = Header::new_gnu();
        header.set_path(name).expect("fits");
        header.set_entry_type(*kind);
        if *kind == EntryType::Symlink {
            header.set_link_name("/bin/sh").expect("fits");
        }
        header.set_mode(0o755);
        header.set_size(data.len() as u64);
        header.set_cksum();
        builder.append(&header, *data).expect("appends");
    }
    let mut gz = builder.into_inner().expect("ends");
    gz.flush().expect("flushes");
    gz.finish().expect("ends")
}

/// An executable that does what the updater asks of one: "units" and "daemon" are files below BANGER_ROOT.
#[derive(Debug, Clone)]
pub struct Executable {
    pub version: String,
    /// What it says that it is; its version, unless something is wrong.
    pub says: String,
    /// The exit status of `--check-migrations`.
    pub migrations: u8,
    /// Shell that doctor runs: prints rows.
    pub doctor: String,
    /// Shell that starts the daemon.
    pub start: String,
    /// Shell that brings units up to date, before it says so.
    pub refresh: String,
}

impl Executable {
    pub fn new(version: &str) -> Self {
        Self {
            version: version.to_owned(),
            says: version.to_owned(),
            migrations: 0,
            doctor:
                "echo '[{\"subject\": \"kvm\", \"verdict\": \"fail\", \"found\": \"never there\"}]'; exit 1"
                    .to_owned(),
            start: format!("echo {} >$r/run/daemon", version.trim_start_matches('v')),
            refresh: String::new(),
        }
    }

    pub fn script(&self) -> String {
        let Self { version, says, migrations, doctor, start, refresh } = self;
        let rows = format!(
            "echo \"[{{\\\"path\\\": \\\"$r/units/bangerd.service\\\", \\\"change\\\": \\\"replace\\\"}}, \
             {{\\\"path\\\": \\\"$r/share/of-{version}\\\", \\\"change\\\": \\\"create\\\"}}]\""
        );
        format!(
            "#!/bin/bash
# {version}
r=$BANGER_ROOT
case \"$*\" in
--version) echo 'banger {says} (commit short, built 2026-01-01T00:00:00Z)' ;;
version) printf 'version:  {says}\\ncommit:   commit-of-{version}\\nbuilt_at: 2026-01-01T00:00:00Z\\n' ;;
'--check-migrations --system') echo 'the verdict of {version}'; exit {migrations} ;;
'system refresh --dry-run --json') {rows} ;;
'system refresh --json')
    {refresh}
    echo 'unit of {version}' >$r/units/bangerd.service
    echo 'made by {version}' >$r/share/of-{version}
    {rows} ;;
'doctor --json') {doctor} ;;
'daemon status --json')
    [ -e $r/run/daemon ] || {{ echo 'bangerd is not running' >&2; exit 1; }}
    echo \"{{\\\"pid\\\": 1, \\\"version\\\": \\\"$(cat $r/run/daemon)\\\"}}\" ;;
'daemon stop') rm -f $r/run/daemon ;;
ps) {start} ;;
'--system --save-database '* | '--system --restore-database '*) exec -a bangerd {BANGER} \"$@\" ;;
*) echo \"unknown: $*\" >&2; exit 64 ;;
esac
"
        )
    }

    pub fn tarball(&self) -> Vec<u8> {
        pack(&self.script())
    }
}
