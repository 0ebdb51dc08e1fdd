//! Signatures of what others publish: ECDSA P-256 over SHA-256 of the file, in ASN.1 DER, in base64, as `cosign sign-blob --key` and
//! `openssl dgst -sha256 -sign KEY | base64` write them.

use std::fmt;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use ring::signature::{ECDSA_P256_SHA256_ASN1, UnparsedPublicKey};

/// The longest signature, in bytes; in base64 it has 96.
pub const MAX_SIGNATURE: u64 = 1 << 10;

/// What a SubjectPublicKeyInfo of an uncompressed P-256 point begins with (RFC 5480, section 2); the point follows.
const P256: [u8; 26] = [
    0x30, 0x59, 0x30, 0x13, 0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01, 0x06, 0x08, 0x2a, 0x86,
    0x48, 0xce, 0x3d, 0x03, 0x01, 0x07, 0x03, 0x42, 0x00,
];
const POINT: usize = 65;
const BEGIN: &str = "-----BEGIN PUBLIC KEY-----";
const END: &str = "-----END PUBLIC KEY-----";
/// The longest key in PEM that is looked at, in bytes; it has 178.
pub const MAX_PEM: u64 = 16 << 10;

/// A public key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Key {
    /// An uncompressed point.
    P256([u8; POINT]),
    /// Stands where a key belongs, so that nobody takes its absence for permission.
    Placeholder,
}

/// Why a text is no public key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BadKey {
    NotPem,
    Private,
    Several,
    NotP256,
}

/// Why a signature is not accepted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BadSignature {
    /// There is no key to judge it by.
    NoKey,
    NotBase64,
    /// None of the keys has made it for these bytes.
    Wrong,
}

impl Key {
    /// Reads one key in PEM.
    pub fn parse(pem: &str) -> Result<Self, BadKey> {
        if pem.contains("PRIVATE KEY-----") {
            return Err(BadKey::Private);
        }
        let (_, rest) = pem.split_once(BEGIN).ok_or(BadKey::NotPem)?;
        let (body, rest) = rest.split_once(END).ok_or(BadKey::NotPem)?;
        if rest.contains(BEGIN) {
            return Err(BadKey::Several);
        }
        let body = unwrapped(body);
        if body == "PLACEHOLDER" {
            return Ok(Self::Placeholder);
        }
        let der = STANDARD.decode(body).map_err(|_| BadKey::NotPem)?;
        let point = der.strip_prefix(&P256).ok_or(BadKey::NotP256)?;
        let point: [u8; POINT] = point.try_into().map_err(|_| BadKey::NotP256)?;
        if point[0] == 4 { Ok(Self::P256(point)) } else { Err(BadKey::NotP256) }
    }

    /// Reads the keys of `pem`, one after the other; what is between them are comments.
    ///
    /// # Errors
    /// [`BadKey`] for any of them, and where there is none.
    pub fn parse_all(pem: &str) -> Result<Vec<Self>, BadKey> {
        if pem.contains("PRIVATE KEY-----") {
            return Err(BadKey::Private);
        }
        let blocks: Vec<&str> = pem.split_inclusive(END).filter(|block| block.contains(BEGIN)).collect();
        if blocks.is_empty() {
            return Err(BadKey::NotPem);
        }
        blocks.into_iter().map(Self::parse).collect()
    }
}

/// Accepts `bytes` if one of `keys` has made `signature`, the text of a detached signature, for them.
pub fn verify(keys: &[Key], bytes: &[u8], signature: &str) -> Result<(), BadSignature> {
    let points: Vec<&[u8; POINT]> = keys
        .iter()
        .filter_map(|key| match key {
            Key::P256(point) => Some(point),
            Key::Placeholder => None,
        })
        .collect();
    if points.is_empty() {
        return Err(BadSignature::NoKey);
    }
    let der = STANDARD.decode(unwrapped(signature)).map_err(|_| BadSignature::NotBase64)?;
    let made_it = |point: &&[u8; POINT]| {
        UnparsedPublicKey::new(&ECDSA_P256_SHA256_ASN1, point.as_slice()).verify(bytes, &der).is_ok()
    };
    if points.iter().any(made_it) { Ok(()) } else { Err(BadSignature::Wrong) }
}

/// Base64 without the line breaks that some programs put into it.
fn unwrapped(text: &str) -> String {
    text.chars().filter(|c| !c.is_ascii_whitespace()).collect()
}

impl fmt::Display for BadKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NotPem => "it is no public key in PEM (-----BEGIN PUBLIC KEY-----)",
            Self::Private => "it is a private key; give the public one, and keep this one to yourself",
            Self::Several => "it holds several keys; give each by itself",
            Self::NotP256 => "it is no ECDSA P-256 key",
        })
    }
}

impl std::error::Error for BadKey {}

impl fmt::Display for BadSignature {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NoKey => "this banger was built without a key to judge it by",
            Self::NotBase64 => "its signature is not base64",
            Self::Wrong => {
                "its signature was made by none of the known keys, or for another content; if it has just been published, \
                 try again later"
            }
        })
    }
}

impl std::error::Error for BadSignature {}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use ring::rand::SystemRandom;
    use ring::signature::{ECDSA_P256_SHA256_ASN1_SIGNING, EcdsaKeyPair, KeyPair};

    use super::*;

    fn pair() -> (EcdsaKeyPair, Key) {
        let random = SystemRandom::new();
        let document =
            EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_ASN1_SIGNING, &random).expect("generates");
        let pair = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_ASN1_SIGNING, document.as_ref(), &random);
        let pair = pair.expect("its own form");
        let key = Key::parse(&pem(pair.public_key().as_ref())).expect("a key");
        (pair, key)
    }

    fn pem(point: &[u8]) -> String {
        format!("{BEGIN}\n{}\n{END}\n", STANDARD.encode([&P256, point].concat()))
    }

    fn sign(pair: &EcdsaKeyPair, bytes: &[u8]) -> String {
        STANDARD.encode(pair.sign(&SystemRandom::new(), bytes).expect("signs"))
    }

    #[test]
    fn what_a_known_key_has_signed_is_accepted_and_nothing_else() {
        let ((pair, key), (other_pair, other)) = (pair(), pair());
        let signature = sign(&pair, b"a catalog");
        assert_eq!(verify(std::slice::from_ref(&key), b"a catalog", &signature), Ok(()));
        assert_eq!(verify(&[Key::Placeholder, other.clone(), key.clone()], b"a catalog", &signature), Ok(()));
        let wrapped = format!("{}\n{}\n", &signature[..64], &signature[64..]);
        assert_eq!(verify(std::slice::from_ref(&key), b"a catalog", &wrapped), Ok(()));
        for (keys, bytes, signature, why) in [
            (vec![other], &b"a catalog"[..], signature.clone(), BadSignature::Wrong),
            (vec![key.clone()], b"a catalog.", signature.clone(), BadSignature::Wrong),
            (vec![key.clone()], b"a catalog", sign(&other_pair, b"a catalog"), BadSignature::Wrong),
            (vec![key.clone()], b"a catalog", String::new(), BadSignature::Wrong),
            (vec![key], b"a catalog", "no base64!".to_owned(), BadSignature::NotBase64),
            (vec![Key::Placeholder], b"a catalog", signature.clone(), BadSignature::NoKey),
            (vec![], b"a catalog", signature, BadSignature::NoKey),
        ] {
            assert_eq!(verify(&keys, bytes, &signature), Err(why));
        }
    }

    #[test]
    fn what_is_no_p256_public_key_is_told_apart() {
        let (_, key) = pair();
        let Key::P256(point) = key else { panic!("a key") };
        let private = "-----BEGIN EC PRIVATE KEY-----\nAAAA\n-----END EC PRIVATE KEY-----\n";
        for (text, why) in [
            (String::new(), BadKey::NotPem),
            ("ssh-ed25519 AAAA".to_owned(), BadKey::NotPem),
            (format!("{BEGIN}\n!!\n{END}"), BadKey::NotPem),
            (format!("{BEGIN}\nAAAA"), BadKey::NotPem),
            (private.to_owned(), BadKey::Private),
            (pem(&point).repeat(2), BadKey::Several),
            (pem(&point[1..]), BadKey::NotP256),
            (pem(&[&[2], &point[1..]].concat()), BadKey::NotP256),
            (format!("{BEGIN}\nAAAA\n{END}"), BadKey::NotP256),
        ] {
            assert_eq!(Key::parse(&text), Err(why), "{text}");
        }
    }

    #[test]
    fn keys_that_follow_each_other_are_all_read_and_all_good() {
        let ((_, one), (_, two)) = (pair(), pair());
        let Key::P256(point) = &one else { panic!("a key") };
        let Key::P256(other) = &two else { panic!("a key") };
        let placeholder = format!("{BEGIN}\nPLACEHOLDER\n{END}\n");
        let text = format!("until 2027\n{}the next one\n{}{placeholder}", pem(point), pem(other));
        assert_eq!(Key::parse_all(&text), Ok(vec![one.clone(), two.clone(), Key::Placeholder]));
        for (text, why) in [
            (String::new(), BadKey::NotPem),
            (format!("{}{BEGIN}\nAAAA", pem(point)), BadKey::NotPem),
            (format!("{}{BEGIN}\nAAAA\n{END}\n", pem(point)), BadKey::NotP256),
            (format!("{}-----BEGIN PRIVATE KEY-----\n", pem(point)), BadKey::Private),
        ] {
            assert_eq!(Key::parse_all(&text), Err(why), "{text}");
        }
    }

    #[test]
    #[ignore = "needs openssl"]
    fn keys_and_signatures_of_openssl_are_understood() {
        let dir = tempfile::tempdir().expect("a directory");
        let script = "openssl ecparam -name prime256v1 -genkey -noout -out k.pem 2>/dev/null; openssl ec -in k.pem -pubout \
                      -out p.pem 2>/dev/null; printf 'a catalog' >c; openssl dgst -sha256 -sign k.pem c | base64 >c.sig";
        let status = std::process::Command::new("sh").args(["-ec", script]).current_dir(dir.path()).status();
        assert!(status.expect("runs").success());
        let read = |name| std::fs::read_to_string(dir.path().join(name)).expect("reads");
        let key = Key::parse(&read("p.pem")).expect("a key");
        assert_eq!(Key::parse(&read("k.pem")), Err(BadKey::Private));
        assert_eq!(verify(&[key], b"a catalog", &read("c.sig")), Ok(()));
    }

    proptest! {
        #[test]
        fn any_text_is_a_key_or_refused(text in "\\PC{0,200}", body in "[A-Za-z0-9+/=\n]{0,200}") {
            let _ = Key::parse(&text);
            let _ = Key::parse(&format!("{BEGIN}\n{body}\n{END}"));
            let (_, key) = pair();
            prop_assert!(verify(std::slice::from_ref(&key), b"x", &text).is_err());
            prop_assert!(verify(&[key], b"x", &body).is_err());
        }
    }
}
