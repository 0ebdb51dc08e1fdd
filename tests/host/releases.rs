//! What the web server has: good releases, and each kind of bad one. All but those of /published/ are made here with openssl(1), as a
//! publisher without banger's own tools would make them.
//!
//! /published/ is what `banger internal release` makes. /vX.Y.Z/ holds a release; /NAME/manifest.json is what a case is pointed at, and
//! beside it are the release's files where something is wrong with them.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use flate2::Compression;
use flate2::write::GzEncoder;
use ring::digest::{SHA256, digest};
use serde_json::{Value, json};
use tar::{Builder, EntryType, Header};

use crate::machine::{build, part};

pub const BEFORE: &str = "0.0.1";
pub const NOW: &str = "0.0.2";
pub const NEXT: &str = "0.0.3";
/// Where executables are in the machine, for releases that are scripts and do what is not wrong with them by another's hand.
pub const STASH: &str = "/opt/builds";
const SERVER: &str = "http://127.0.0.1:8000";

/// Where the case NAME finds its manifest.
pub fn manifest_url(name: &str) -> String {
    format!("{SERVER}/{name}/manifest.json")
}

pub fn sha256(bytes: &[u8]) -> String {
    digest(&SHA256, bytes).as_ref().iter().map(|byte| format!("{byte:02x}")).collect()
}

/// A member of a tarball.
enum Member<'a> {
    File(&'a str, &'a [u8]),
    Link(&'a str, &'a str),
}

fn tarball(members: &[Member]) -> Vec<u8> {
    let mut tar = Builder::new(GzEncoder::new(vec![], Compression::fast()));
    for member in members {
        let mut header = Header::new_ustar();
        header.set_mtime(1_700_000_000);
        match member {
            Member::File(path, content) => {
                header.set_mode(0o755);
                header.set_size(content.len() as u64);
                tar.append_data(&mut header, path, *content).expect("appends");
            }
            Member::Link(path, target) => {
                header.set_mode(0o777);
                header.set_size(0);
                header.set_entry_type(EntryType::Symlink);
                tar.append_link(&mut header, path, target).expect("appends");
            }
        }
    }
    tar.into_inner().and_then(GzEncoder::finish).expect("packs")
}

/// Signs `bytes` with the private key in `key`, as cosign would: base64 of ECDSA P-256 over their SHA-256, in DER.
fn sign(key: &Path, bytes: &[u8]) -> Vec<u8> {
    let mut child = Command::new("sh")
        .args(["-c", "openssl dgst -sha256 -sign \"$0\" | base64 -w 0"])
        .arg(key)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("runs openssl");
    child.stdin.take().expect("piped").write_all(bytes).expect("writes");
    let out = child.wait_with_output().expect("ends");
    assert!(out.status.success() && !out.stdout.is_empty(), "openssl does not sign");
    out.stdout
}

/// The files of a release, before they are written.
struct Files {
    version: &'static str,
    tarball: Vec<u8>,
    sums: Vec<u8>,
    signature: Vec<u8>,
}

impl Files {
    fn of(version: &'static str, members: &[Member]) -> Self {
        let tarball = tarball(members);
        let sums = format!("{}  {}\n", sha256(&tarball), tarball_name(version)).into_bytes();
        let signature = sign(&part("host/key.pem"), &sums);
        Self { version, tarball, sums, signature }
    }

    /// Of an executable that is a script.
    fn of_script(version: &'static str, script: &str) -> Self {
        Self::of(version, &[Member::File("banger", script.as_bytes())])
    }

    fn write(&self, dir: &Path) {
        fs::create_dir_all(dir).expect("makes the directory");
        fs::write(dir.join(tarball_name(self.version)), &self.tarball).expect("writes");
        fs::write(dir.join("SHA256SUMS"), &self.sums).expect("writes");
        fs::write(dir.join("SHA256SUMS.sig"), &self.signature).expect("writes");
    }
}

fn tarball_name(version: &str) -> String {
    format!("banger-v{version}-x86_64-linux.tar.gz")
}

/// An entry of a manifest, for the release whose files are at the paths `tarball`, `sums` and `signature` of the server.
fn entry_at(version: &str, [tarball, sums, signature]: [&str; 3]) -> Value {
    json!({
        "version": format!("v{version}"),
        "tarball_url": format!("{SERVER}/{tarball}/{}", tarball_name(version)),
        "sha256sums_url": format!("{SERVER}/{sums}/SHA256SUMS"),
        "sha256sums_sig_url": format!("{SERVER}/{signature}/SHA256SUMS.sig"),
    })
}

fn entry(version: &str, at: &str) -> Value {
    entry_at(version, [at; 3])
}

fn manifest(latest: &str, releases: &[Value]) -> Value {
    json!({"schema_version": 1, "latest_stable": format!("v{latest}"), "releases": releases})
}

/// A script that is `version`'s executable in all but what `wrong` does, which is shell that sees `$name`, as which it was called, and
/// its arguments. Run by its descriptor, a script is not told its name.
fn script(version: &str, wrong: &str) -> String {
    format!(
        r#"#!/bin/bash
name=${{0##*/}}
case $0 in /proc/* | /dev/fd/*)
    case " $* " in *' --system '*) name=bangerd ;; *) name=banger ;; esac ;;
esac
{wrong}
exec -a "$name" {STASH}/{version}/banger "$@"
"#
    )
}

/// The web server's tree.
pub struct Www(PathBuf);

impl Www {
    /// Makes all of it in the directory `root`.
    pub fn make(root: &Path) -> Self {
        let www = Self(root.to_owned());
        for version in [BEFORE, NOW, NEXT] {
            let binary = fs::read(build(version)).expect("built by tests/run.sh");
            Files::of(version, &[Member::File("banger", &binary)]).write(&www.0.join(format!("v{version}")));
        }
        www.good();
        www.published();
        www.wrong_files();
        www.wrong_programs();
        www.wrong_manifests();
        www.bad_servers();
        www
    }

    fn manifest(&self, name: &str, manifest: &Value) {
        self.raw_manifest(name, manifest.to_string().as_bytes());
    }

    fn raw_manifest(&self, name: &str, bytes: &[u8]) {
        fs::create_dir_all(self.0.join(name)).expect("makes the directory");
        fs::write(self.0.join(name).join("manifest.json"), bytes).expect("writes");
    }

    /// A release with files of its own, beside its manifest.
    fn release(&self, name: &str, files: &Files) {
        files.write(&self.0.join(name));
        self.manifest(name, &manifest(files.version, &[entry(files.version, name)]));
    }

    fn good(&self) {
        let all = [BEFORE, NOW, NEXT].map(|version| entry(version, &format!("v{version}")));
        self.manifest("before", &manifest(BEFORE, &all[..1]));
        self.manifest("now", &manifest(NOW, &all[..2]));
        self.manifest("next", &manifest(NEXT, &all));
    }

    /// As a maintainer does it.
    fn published(&self) {
        for version in [BEFORE, NOW, NEXT] {
            let end = Command::new(build(NOW))
                .args(["internal", "release", "--base-url", &format!("{SERVER}/published"), "--binary"])
                .arg(build(version))
                .arg("--out")
                .arg(self.0.join("published"))
                .arg("--key")
                .arg(part("host/key.pem"))
                .output()
                .expect("runs banger");
            assert!(end.status.success(), "{}", String::from_utf8_lossy(&end.stderr));
        }
    }

    fn wrong_files(&self) {
        let member = Member::File("banger", b"#!/bin/sh\ntouch /run/it-ran\n");
        let good = || Files::of(NEXT, &[Member::File("banger", b"#!/bin/sh\ntouch /run/it-ran\n")]);
        let stranger = self.0.join("stranger.pem");
        let made = Command::new("openssl")
            .args(["ecparam", "-name", "prime256v1", "-genkey", "-noout", "-out"])
            .arg(&stranger)
            .status();
        assert!(made.expect("runs openssl").success());
        let sums = good().sums;
        self.release("another-key", &Files { signature: sign(&stranger, &sums), ..good() });
        fs::remove_file(&stranger).expect("removes");
        self.release("bad-signature", &Files { signature: b"c2lnbmF0dXJl".to_vec(), ..good() });
        self.release("no-signature", &Files { signature: vec![], ..good() });
        // Signed is what is in SHA256SUMS, so that whoever has the server can change the tarball, but not this.
        let mut other = good().tarball;
        other.push(0);
        self.release("bad-digest", &Files { tarball: other, ..good() });
        let mut sums = good().sums;
        sums[0] = if sums[0] == b'0' { b'1' } else { b'0' };
        self.release("sums-changed", &Files { sums, ..good() });
        // A true signature over the sums of another release.
        let old = Files::of(NOW, &[Member::File("banger", b"#!/bin/sh\ntouch /run/it-ran\n")]);
        self.release("sums-of-another", &Files { sums: old.sums, signature: old.signature, ..good() });

        let files = |members: &[Member]| Files::of(NEXT, members);
        let extra = Member::File("README", b"read me");
        self.release("extra-file", &files(&[member, extra]));
        self.release("symlink", &files(&[Member::Link("banger", "/bin/true")]));
        self.release("elsewhere", &files(&[Member::File("bin/banger", b"#!/bin/sh\ntouch /run/it-ran\n")]));
        self.release("empty-tarball", &files(&[]));
        let garbage = b"this is no gzip".to_vec();
        let sums = format!("{}  {}\n", sha256(&garbage), tarball_name(NEXT)).into_bytes();
        let signature = sign(&part("host/key.pem"), &sums);
        self.release("no-gzip", &Files { version: NEXT, tarball: garbage, sums, signature });
    }

    fn wrong_programs(&self) {
        self.release("wrong-version", &Files::of_script(NEXT, &script(NOW, "")));
        self.release("no-program", &Files::of_script(NEXT, "\x7fELF, but not really"));
        self.release("mute", &Files::of_script(NEXT, "#!/bin/sh\nexit 3\n"));
        let migrations =
            "case \" $* \" in *' --check-migrations '*) echo 'its schema is newer' >&2; exit 2 ;; esac";
        self.release("migration", &Files::of_script(NEXT, &script(NEXT, migrations)));
        // What is staged is fine. The daemon of it is not.
        let dead = "case \"$name $*\" in 'bangerd --system') echo 'I do not start' >&2; exit 1 ;; esac";
        self.release("dead", &Files::of_script(NEXT, &script(NEXT, dead)));
        let dead = "case \"$name\" in bangerd-root) echo 'I do not start' >&2; exit 1 ;; esac";
        self.release("dead-helper", &Files::of_script(NEXT, &script(NEXT, dead)));
        // Its daemon makes of the database what no other banger can read.
        let migrates = "case \" $* \" in *' --check-migrations '*) exit 1 ;; esac\n\
                        case \"$name $*\" in 'bangerd --system') echo migrated >/var/lib/banger/banger.redb ;; esac";
        self.release("migrates", &Files::of_script(NEXT, &script(NEXT, migrates)));
        let ill = "case \"$name $*\" in 'banger doctor'*)\n\
                   echo '[{\"subject\":\"made ill\",\"verdict\":\"fail\",\"found\":\"it was made to fail\",\"advice\":null}]'; exit 1 ;;\n\
                   esac";
        self.release("ill", &Files::of_script(NEXT, &script(NEXT, ill)));
        // Not when it is asked what it would do.
        let refresh =
            "case \"$name $*\" in 'banger system refresh --json') echo 'no units today' >&2; exit 1 ;; esac";
        self.release("no-units", &Files::of_script(NEXT, &script(NEXT, refresh)));
    }

    fn wrong_manifests(&self) {
        let next = || entry(NEXT, &format!("v{NEXT}"));
        let expired = |version| {
            let mut expired = entry(version, &format!("v{version}"));
            expired["expires"] = json!("2020-01-01T00:00:00Z");
            expired
        };
        self.manifest("expired", &manifest(NEXT, &[expired(NEXT)]));
        self.manifest("older", &manifest(BEFORE, &[entry(BEFORE, &format!("v{BEFORE}"))]));
        let mut later = manifest(NEXT, &[next()]);
        later["schema_version"] = json!(2);
        self.manifest("later-schema", &later);
        self.raw_manifest("no-json", b"<html>It works!</html>");
        let mut far = next();
        far["min_version"] = json!("v0.0.9");
        self.manifest("too-far", &manifest(NEXT, &[far]));
        let mut relative = next();
        relative["tarball_url"] = json!(tarball_name(NEXT));
        self.manifest("relative", &manifest(NEXT, &[relative]));
        let mut plain = next();
        plain["tarball_url"] = json!(format!("http://192.0.2.1/{}", tarball_name(NEXT)));
        self.manifest("plain-http", &manifest(NEXT, &[plain]));
    }

    /// See server.py.
    fn bad_servers(&self) {
        let at = format!("v{NEXT}");
        for way in ["cut", "stall", "endless", "lie"] {
            let bad = format!("{way}/v{NEXT}");
            for (what, places) in
                [("tarball", [&bad, &at, &at]), ("sums", [&at, &bad, &at]), ("signature", [&at, &at, &bad])]
            {
                let entry = entry_at(NEXT, places.map(String::as_str));
                self.manifest(&format!("{way}-{what}"), &manifest(NEXT, &[entry]));
            }
        }
    }
}
