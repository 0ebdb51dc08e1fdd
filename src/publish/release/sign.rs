//! Signing: ECDSA P-256 over SHA-256, in ASN.1 DER, in base64, as `cosign sign-blob` writes it.

use std::path::Path;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use ring::rand::SystemRandom;
use ring::signature::{ECDSA_P256_SHA256_ASN1_SIGNING, EcdsaKeyPair, KeyPair};

use super::{ReleaseError, failed};
use crate::host::signature::Key;

const BEGIN: &str = "-----BEGIN PRIVATE KEY-----";
const END: &str = "-----END PRIVATE KEY-----";

/// Somebody who signs.
pub struct Signer(EcdsaKeyPair);

impl Signer {
    /// Reads a private key in PEM, as `openssl genpkey` writes it (PKCS #8).
    pub fn read(path: &Path) -> Result<Self, ReleaseError> {
        let pem = std::fs::read_to_string(path).map_err(failed(format!("read {}", path.display())))?;
        Self::parse(&pem).map_err(|why| ReleaseError::Private(path.to_owned(), why))
    }

    fn parse(pem: &str) -> Result<Self, &'static str> {
        if pem.contains("-----BEGIN EC PRIVATE KEY-----") {
            return Err(
                "it is in an older form; `openssl pkcs8 -topk8 -nocrypt -in IT` writes the one that is read here",
            );
        }
        if pem.contains("ENCRYPTED") {
            return Err(
                "it is encrypted; `openssl pkcs8 -in IT` decrypts it, into a file system in memory, say",
            );
        }
        let body = pem.split_once(BEGIN).and_then(|(_, rest)| rest.split_once(END)).map(|(body, _)| body);
        let body: String = body
            .ok_or("it is no private key in PEM (-----BEGIN PRIVATE KEY-----)")?
            .split_whitespace()
            .collect();
        let der = STANDARD.decode(body).map_err(|_| "it is no base64 between its lines")?;
        EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_ASN1_SIGNING, &der, &SystemRandom::new())
            .map(Self)
            .map_err(|_| "it is no ECDSA P-256 key")
    }

    pub fn public(&self) -> Key {
        // The curve decides the length.
        self.0.public_key().as_ref().try_into().map_or(Key::Placeholder, Key::P256)
    }

    /// The text of a detached signature.
    pub fn sign(&self, bytes: &[u8]) -> Result<String, ReleaseError> {
        let signature = self.0.sign(&SystemRandom::new(), bytes);
        let unknown = |_| failed("sign: no random numbers are to be had")(std::io::ErrorKind::Other.into());
        signature.map(|signature| STANDARD.encode(signature)).map_err(unknown)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::signature::verify;

    #[test]
    fn what_is_signed_is_accepted_by_the_public_half() {
        let document = EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_ASN1_SIGNING, &SystemRandom::new())
            .expect("generates");
        let pem = format!("a comment\n{BEGIN}\n{}\n{END}\n", STANDARD.encode(document.as_ref()));
        let signer = Signer::parse(&pem).map_err(str::to_owned).expect("a key");
        let signature = signer.sign(b"sums").expect("signs");
        assert_eq!(verify(&[signer.public()], b"sums", &signature), Ok(()));
    }

    #[test]
    fn what_is_no_key_to_sign_with_is_refused_with_what_to_do() {
        for (pem, why) in [
            ("", "no private key"),
            ("-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----", "no private key"),
            ("-----BEGIN EC PRIVATE KEY-----\nAAAA\n-----END EC PRIVATE KEY-----", "openssl pkcs8 -topk8"),
            ("-----BEGIN ENCRYPTED PRIVATE KEY-----\nAAAA\n-----END ENCRYPTED PRIVATE KEY-----", "encrypted"),
            ("-----BEGIN PRIVATE KEY-----\n??\n-----END PRIVATE KEY-----", "no base64"),
            ("-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----", "no ECDSA P-256"),
            ("-----BEGIN PRIVATE KEY-----\nAAAA", "no private key"),
        ] {
            let found = Signer::parse(pem).err().expect(pem);
            assert!(found.contains(why), "{pem}: {found}");
        }
    }
}
