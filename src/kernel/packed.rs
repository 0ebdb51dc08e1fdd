//! Packed files: the streams of a package and single modules, unpacked by what their first bytes say, up to a limit.

use std::io::{self, BufRead, Read};

use liblzma::bufread::XzDecoder;
use liblzma::stream::{CONCATENATED, Stream};

/// The largest module that we take, in bytes, unpacked; amdgpu with debug information has about 500 MB.
pub const MAX_MODULE: usize = 1 << 30;

/// What unpacking xz may take, in bytes: a stream asks for it in its header. Its largest preset takes 65 MiB.
const XZ_MEMORY: u64 = 512 << 20;

/// Returns a reader of what `stream` holds, unpacked if it is gzip, xz or zstd, and as it is otherwise.
pub fn reader<'a>(mut stream: impl BufRead + 'a) -> io::Result<Box<dyn Read + 'a>> {
    let start = stream.fill_buf()?;
    Ok(if start.starts_with(b"\x1f\x8b") {
        Box::new(flate2::bufread::MultiGzDecoder::new(stream))
    } else if start.starts_with(b"\xfd7zXZ\0") {
        let decoder = Stream::new_stream_decoder(XZ_MEMORY, CONCATENATED)?;
        Box::new(XzDecoder::new_stream(stream, decoder))
    } else if start.starts_with(b"\x28\xb5\x2f\xfd") {
        Box::new(zstd::stream::read::Decoder::with_buffer(stream)?)
    } else {
        Box::new(stream)
    })
}

/// Returns the whole of a packed or plain file.
///
/// # Errors
/// `FileTooLarge` above `limit` bytes; what the format's reader finds wrong.
pub fn unpack(bytes: &[u8], limit: usize) -> io::Result<Vec<u8>> {
    let mut out = vec![];
    reader(bytes)?.take(limit as u64 + 1).read_to_end(&mut out)?;
    if out.len() > limit { Err(io::ErrorKind::FileTooLarge.into()) } else { Ok(out) }
}

/// The name of a module's file without what says how it is packed: `a/b.ko.xz` is `a/b.ko`. None if it is no module's.
pub fn module_path(path: &str) -> Option<&str> {
    let plain = [".xz", ".zst", ".gz"].iter().find_map(|end| path.strip_suffix(end)).unwrap_or(path);
    plain.ends_with(".ko").then_some(plain)
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use proptest::prelude::*;

    use super::*;

    fn packed() -> [Vec<u8>; 4] {
        let module = b"\x7fELF a module".repeat(50);
        let mut xz = liblzma::write::XzEncoder::new(vec![], 1);
        xz.write_all(&module).expect("writes");
        let zstd = zstd::encode_all(&module[..], 1).expect("packs");
        [crate::kernel::bzimage::tests::gzip(&module), xz.finish().expect("packs"), zstd, module]
    }

    #[test]
    fn every_packing_is_recognised_by_content_and_held_to_the_limit() {
        let [gz, xz, zst, plain] = packed();
        for bytes in [&gz, &xz, &zst, &plain] {
            assert_eq!(unpack(bytes, plain.len()).expect("unpacks"), plain);
            let error = unpack(bytes, plain.len() - 1).expect_err("too large");
            assert_eq!(error.kind(), io::ErrorKind::FileTooLarge);
        }
        for bytes in [&gz, &xz, &zst] {
            unpack(&bytes[..bytes.len() / 2], plain.len()).expect_err("cut short");
        }
    }

    #[test]
    fn a_module_is_named_without_its_packing() {
        let table = [
            ("a/b.ko", Some("a/b.ko")),
            ("a/b.ko.xz", Some("a/b.ko")),
            ("b.ko.zst", Some("b.ko")),
            ("b.ko.gz", Some("b.ko")),
            ("b.ko.bz2", None),
            ("modules.order", None),
        ];
        for (path, want) in table {
            assert_eq!(module_path(path), want, "{path}");
        }
    }

    proptest! {
        #[test]
        fn garbage_never_panics(which in 0usize..4, at in 0usize..40, value in any::<u8>()) {
            let mut bytes = packed()[which].clone();
            if let Some(byte) = bytes.get_mut(at) {
                *byte = value;
            }
            let _ = unpack(&bytes, 4096);
        }
    }
}
