//! Downloading a bundle: to a file without a name, hashed as it comes, and given to nobody who would open it before it has
//! turned out to be the one that the catalog means.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::Path;

use ring::digest::{Context, SHA256};

use crate::catalog::error::CatalogError;
use crate::catalog::record::BundleAt;
use crate::host::environment::Environment;
use crate::host::fetch::{self, FetchError, Validators};
use crate::host::files::{create_private_dir, nameless};
use crate::host::progress::{Progress, Unit};
use crate::image::digest::{Algorithm, Digest};

/// Returns the bundle, open at its beginning. `scratch` is a directory on a file system with room for it; nothing in it has a
/// name. What was read of a download that breaks off is lost: the next try begins anew.
pub fn download(
    bundle: &BundleAt,
    environment: &Environment,
    scratch: &Path,
    progress: &dyn Progress,
) -> Result<File, CatalogError> {
    let at = bundle.location.to_string();
    let damaged = |why: String| CatalogError::Damaged { at: at.clone(), why };
    let kept = |e: io::Error| CatalogError::io(format!("keep {at} in {}", scratch.display()), e);
    let client = fetch::client(environment);
    let opened = fetch::open(&client, &bundle.location, &Validators::default());
    fetch::tell_problems(&client, progress);
    // Only a request with validators can be answered by "not modified".
    let mut opened = opened?.ok_or(FetchError::Status { at: at.clone(), status: 304 })?;
    if let Some(length) = opened.length.filter(|length| *length != bundle.size) {
        return Err(damaged(format!("it has {length} bytes, not {}", bundle.size)));
    }
    create_private_dir(scratch).map_err(kept)?;
    let mut file = nameless(scratch).map_err(kept)?;
    let mut hash = Context::new(&SHA256);
    let mut buffer = vec![0; 128 << 10];
    let mut done = 0;
    loop {
        if progress.cancelled() {
            return Err(CatalogError::Cancelled);
        }
        let n = match opened.reader.read(&mut buffer) {
            Ok(0) => break,
            Ok(n) => n,
            Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
            Err(e) => return Err(FetchError::Unreachable { at: at.clone(), source: e.into() }.into()),
        };
        done += n as u64;
        // Whoever never stops sending is not listened to for long.
        if done > bundle.size {
            return Err(damaged(format!("it has more than {} bytes", bundle.size)));
        }
        hash.update(&buffer[..n]);
        file.write_all(&buffer[..n]).map_err(kept)?;
        progress.advance(done, bundle.size, Unit::Bytes);
    }
    if done != bundle.size {
        return Err(damaged(format!("it ends after {done} of {} bytes", bundle.size)));
    }
    let found = Digest::new(Algorithm::Sha256, hash.finish().as_ref());
    if found.as_ref() != Some(&bundle.digest) {
        let found = found.map(|d| d.hex().to_owned()).unwrap_or_default();
        return Err(damaged(format!("its sha256 is {found}, not {}", bundle.digest.hex())));
    }
    file.seek(SeekFrom::Start(0)).map_err(kept)?;
    Ok(file)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::progress::Silent;

    #[test]
    fn only_the_bundle_that_is_meant_comes_through_and_nothing_is_left_of_another() {
        let dir = tempfile::tempdir().expect("a directory");
        let (path, scratch) = (dir.path().join("b"), dir.path().join("scratch"));
        let hash = ring::digest::digest(&SHA256, b"content");
        let digest = Digest::new(Algorithm::Sha256, hash.as_ref()).expect("a digest");
        let location: crate::host::location::Location = path.display().to_string().parse().expect("a path");
        let bundle = BundleAt { location, digest, size: 7 };
        let get = |content: &[u8]| {
            std::fs::write(&path, content).expect("writes");
            download(&bundle, &Environment::default(), &scratch, &Silent)
        };
        let mut text = String::new();
        get(b"content").expect("downloads").read_to_string(&mut text).expect("reads");
        assert_eq!(text, "content");
        for (content, why) in
            [(&b"contenT"[..], "its sha256 is"), (b"conten", "6 bytes"), (b"content!", "8 bytes")]
        {
            let error = get(content).expect_err(why).to_string();
            assert!(error.contains(why), "{error}");
        }
        assert_eq!(std::fs::read_dir(&scratch).expect("lists").count(), 0);
    }
}
