//! Whether a release is its publisher's: the signature over SHA256SUMS, then the tarball's digest in it.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};

use ring::digest::{Context, SHA256};

use crate::host::signature::{self, Key};
use crate::release::sums::{Sha256, Sums};
use crate::updater::error::{At, UpdateError};

/// What `text` says, once its signature has been found good.
pub fn sums(keys: &[Key], text: &[u8], signature: &[u8]) -> Result<Sums, UpdateError> {
    let signature = String::from_utf8_lossy(signature);
    signature::verify(keys, text, &signature)
        .map_err(|e| At::Verify.said(format!("SHA256SUMS is not accepted: {e}")))?;
    let text = std::str::from_utf8(text).map_err(|_| At::Verify.said("SHA256SUMS is no text"))?;
    Sums::parse(text).map_err(|e| At::Verify.said(format!("SHA256SUMS cannot be read: {e}")))
}

/// The digest of all of `file`, which is at its beginning afterwards.
pub fn digest(file: &mut File) -> io::Result<Sha256> {
    file.seek(SeekFrom::Start(0))?;
    let mut hash = Context::new(&SHA256);
    let mut buffer = vec![0; 128 << 10];
    loop {
        match file.read(&mut buffer) {
            Ok(0) => break,
            Ok(n) => hash.update(&buffer[..n]),
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    }
    file.seek(SeekFrom::Start(0))?;
    let digest: [u8; 32] = hash.finish().as_ref().try_into().map_err(io::Error::other)?;
    Ok(Sha256::of_bytes(&digest))
}

/// Accepts `file` if it is what `sums` call `name`.
pub fn tarball(file: &mut File, name: &str, sums: &Sums) -> Result<(), UpdateError> {
    let want = sums.get(name).ok_or_else(|| {
        At::Verify
            .said(format!("SHA256SUMS has no {name}, so this is not the release that the manifest says"))
    })?;
    let found = digest(file).map_err(At::Verify.io("read the tarball"))?;
    match found == *want {
        true => Ok(()),
        false => {
            Err(At::Verify
                .said(format!("the sha256 of {name} is {found}, and not {want} as its publisher says")))
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    #[test]
    fn a_placeholder_accepts_nothing() {
        let error = sums(&[Key::Placeholder], b"", b"AAAA").expect_err("refused").to_string();
        assert_eq!(
            error,
            "verify: SHA256SUMS is not accepted: this banger was built without a key to judge it by"
        );
        assert_eq!(Key::parse_all(include_str!("keys.pem")).expect("keys"), [Key::Placeholder]);
    }

    #[test]
    fn a_tarball_is_the_one_of_the_sums_or_none() {
        let mut file = tempfile::tempfile().expect("a file");
        file.write_all(b"content").expect("writes");
        let hex = "ed7002b439e9ac845f22357d822bac1444730fbdb6016d3ec9432297b9ec9f73";
        let sums = Sums::parse(&format!("{hex}  t.tar.gz\n{}  other\n", "0".repeat(64))).expect("sums");
        tarball(&mut file, "t.tar.gz", &sums).expect("is it");
        let mut text = String::new();
        file.read_to_string(&mut text).expect("reads from its beginning");
        assert_eq!(text, "content");
        let error = tarball(&mut file, "other", &sums).expect_err("another").to_string();
        assert!(error.contains(hex), "{error}");
        tarball(&mut file, "none", &sums).expect_err("not there");
    }
}
