//! The key that guests know this user by: ed25519, made when it is first needed, in OpenSSH's own format.
//!
//! A private key file is `openssh-key-v1`, NUL, then strings with their lengths before them (openssh-portable: PROTOCOL.key). Its public
//! half is readable without the passphrase.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use ring::rand::{SecureRandom, SystemRandom};
use ring::signature::{Ed25519KeyPair, KeyPair};

use super::{Place, failed};
use crate::cli::error::Error;
use crate::host::files::{create_private_dir, write_atomic};

const KIND: &[u8] = b"ssh-ed25519";
const COMMENT: &str = "banger";
const MAGIC: &[u8] = b"openssh-key-v1\0";
const BEGIN: &str = "-----BEGIN OPENSSH PRIVATE KEY-----\n";
const END: &str = "-----END OPENSSH PRIVATE KEY-----\n";

/// The public key as it stands in authorized_keys, without a comment. The pair is made if there is none, and what is there is never
/// overwritten.
pub fn public(place: &Place) -> Result<String, Error> {
    let path = &place.key;
    let _one_at_a_time = place.lock()?;
    match fs::symlink_metadata(path) {
        Ok(_) => public_of(path),
        Err(e) if e.kind() == io::ErrorKind::NotFound => make(path),
        Err(e) => Err(failed("look for the key", path)(e)),
    }
}

fn make(path: &Path) -> Result<String, Error> {
    let (mut seed, mut check) = ([0; 32], [0; 4]);
    let random = SystemRandom::new();
    let filled = random.fill(&mut seed).and_then(|()| random.fill(&mut check));
    let made = filled.ok().and_then(|()| pair(&seed, check));
    let (private, public) =
        made.ok_or_else(|| Error::Refused("the kernel gives no random numbers for an ssh key".to_owned()))?;
    if let Some(dir) = path.parent() {
        create_private_dir(dir).map_err(failed("create", dir))?;
    }
    write_atomic(path, private.as_bytes(), 0o600).map_err(failed("write the key", path))?;
    let beside = beside(path);
    write_atomic(&beside, format!("{public} {COMMENT}\n").as_bytes(), 0o644)
        .map_err(failed("write the key", &beside))?;
    Ok(public)
}

/// The public half of a key that is there: from the file beside it, or from the key's own.
fn public_of(path: &Path) -> Result<String, Error> {
    let beside = beside(path);
    let read = match fs::read_to_string(&beside) {
        Ok(text) => line(&text),
        Err(e) if e.kind() == io::ErrorKind::NotFound => {
            let text = fs::read_to_string(path).map_err(failed("read the key", path))?;
            of_private(&text)
        }
        Err(e) => return Err(failed("read the key", &beside)(e)),
    };
    read.ok_or_else(|| {
        let (key, public) = (path.display(), beside.display());
        Error::Refused(format!(
            "{key} has no public key beside it that can be read; `ssh-keygen -y -f {key} > {public}` writes it"
        ))
    })
}

fn beside(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".pub");
    name.into()
}

/// Kind and key of `ssh-ed25519 AAAA... comment`.
pub fn line(text: &str) -> Option<String> {
    let mut words = text.split_ascii_whitespace();
    let (kind, key) = (words.next()?, words.next()?);
    let named = kind.bytes().all(|b| b.is_ascii_alphanumeric() || b"-@.".contains(&b));
    // The blob says its kind again, with the length before it (RFC 4253, 6.6).
    let mut blob = &STANDARD.decode(key).ok()?[..];
    (named && take(&mut blob)? == kind.as_bytes()).then(|| format!("{kind} {key}"))
}

fn of_private(text: &str) -> Option<String> {
    let body: String = text.strip_prefix(BEGIN)?.split_once("-----END")?.0.split_ascii_whitespace().collect();
    let bytes = STANDARD.decode(body).ok()?;
    let mut rest = bytes.strip_prefix(MAGIC)?;
    let (_cipher, _kdf, _options) = (take(&mut rest)?, take(&mut rest)?, take(&mut rest)?);
    let blob = take(&mut rest.strip_prefix(&1u32.to_be_bytes())?)?;
    let kind = std::str::from_utf8(take(&mut &blob[..])?).ok()?;
    line(&format!("{kind} {}", STANDARD.encode(blob)))
}

/// The private key's file and the public key's line; `check` is any number, by which OpenSSH sees that it has decrypted a key. None: the
/// seed is no key.
fn pair(seed: &[u8; 32], check: [u8; 4]) -> Option<(String, String)> {
    let pair = Ed25519KeyPair::from_seed_unchecked(seed).ok()?;
    let public = pair.public_key().as_ref();
    let blob = [string(KIND), string(public)].concat();
    let mut secret = [
        check.to_vec(),
        check.to_vec(),
        blob.clone(),
        string(&[&seed[..], public].concat()),
        string(COMMENT.as_bytes()),
    ]
    .concat();
    // Up to a whole block of the cipher, which is none: 8 bytes.
    secret.extend((1u8..).take(secret.len().next_multiple_of(8) - secret.len()));
    let file = [
        MAGIC.to_vec(),
        string(b"none"),
        string(b"none"),
        string(b""),
        1u32.to_be_bytes().to_vec(),
        string(&blob),
        string(&secret),
    ]
    .concat();
    let base64 = STANDARD.encode(file);
    let mut text = BEGIN.to_owned();
    for piece in base64.as_bytes().chunks(70) {
        text.extend(piece.iter().map(|byte| char::from(*byte)));
        text.push('\n');
    }
    text.push_str(END);
    Some((text, format!("ssh-ed25519 {}", STANDARD.encode(blob))))
}

fn string(bytes: &[u8]) -> Vec<u8> {
    [&(bytes.len() as u32).to_be_bytes()[..], bytes].concat()
}

fn take<'a>(bytes: &mut &'a [u8]) -> Option<&'a [u8]> {
    let (length, rest) = bytes.split_first_chunk()?;
    let (string, rest) = rest.split_at_checked(u32::from_be_bytes(*length) as usize)?;
    *bytes = rest;
    Some(string)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;
    use crate::host::cmd;

    fn place(dir: &Path) -> Place {
        let dir = dir.join("ssh");
        Place { key: dir.join("id_ed25519"), dir, suffix: "vm".to_owned() }
    }

    fn keygen(args: &[&str]) -> String {
        String::from_utf8(cmd::run("ssh-keygen", args).expect("runs")).expect("UTF-8").trim().to_owned()
    }

    #[test]
    fn the_key_is_one_that_openssh_reads() {
        let dir = tempfile::tempdir().expect("a directory");
        let place = place(dir.path());
        let public = public(&place).expect("makes it");
        let path = place.key.to_str().expect("UTF-8");
        assert_eq!(keygen(&["-y", "-f", path]), format!("{public} banger"));
        assert!(keygen(&["-lf", path]).ends_with("banger (ED25519)"));
        let mode = |path: &Path| fs::metadata(path).expect("is there").permissions().mode() & 0o777;
        assert_eq!((mode(&place.key), mode(&place.dir)), (0o600, 0o700));
    }

    #[test]
    fn a_key_that_is_there_stays_and_its_public_half_is_found() {
        let dir = tempfile::tempdir().expect("a directory");
        let place = place(dir.path());
        create_private_dir(&place.dir).expect("makes it");
        let path = place.key.to_str().expect("UTF-8");
        for (kind, passphrase) in [("ed25519", ""), ("ecdsa", "secret")] {
            keygen(&["-q", "-t", kind, "-N", passphrase, "-C", "mine", "-f", path]);
            let before = fs::read(&place.key).expect("reads");
            let beside = fs::read_to_string(beside(&place.key)).expect("reads");
            for without in [false, true] {
                if without {
                    fs::remove_file(super::beside(&place.key)).expect("removes");
                }
                assert_eq!(format!("{} mine\n", public(&place).expect(kind)), beside, "{without}");
                assert_eq!(fs::read(&place.key).expect("reads"), before);
            }
            fs::remove_file(&place.key).expect("removes");
        }
        fs::write(&place.key, "-----BEGIN RSA PRIVATE KEY-----\n").expect("writes");
        let said = public(&place).expect_err("no public half").to_string();
        assert!(said.contains("`ssh-keygen -y -f "), "{said}");
    }

    #[test]
    fn many_first_uses_at_once_give_one_key() {
        let dir = tempfile::tempdir().expect("a directory");
        let place = place(dir.path());
        let all: Vec<String> = std::thread::scope(|scope| {
            let uses: Vec<_> = (0..8).map(|_| scope.spawn(|| public(&place).expect("a key"))).collect();
            uses.into_iter().map(|u| u.join().expect("no panic")).collect()
        });
        assert!(all.iter().all(|one| *one == all[0]), "{all:?}");
    }

    #[test]
    fn what_is_no_public_key_is_none() {
        let good = pair(&[7; 32], [0; 4]).expect("a key").1;
        assert_eq!(line(&format!("{good} a comment\n")), Some(good.clone()));
        for bad in
            ["", "ssh-ed25519", "ssh-ed25519 ???", "ssh-rsa AAAA", &good.replace("ssh-ed25519", "ssh-rsa")]
        {
            assert_eq!(line(bad), None, "{bad}");
        }
    }
}
