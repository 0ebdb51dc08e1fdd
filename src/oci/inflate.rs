//! What a stream is packed with is read from its first bytes, whatever its name or media type says.

use std::io::{self, BufRead, Read};

use crate::oci::gzip::{Crcs, Gunzip};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Packing {
    None,
    Gzip,
    Zstd,
    Xz,
    /// Recognised, but not unpacked here.
    Bzip2,
}

/// Judges the first bytes of a stream.
pub fn packing(head: &[u8]) -> Packing {
    let table: [(&[u8], Packing); 4] = [
        (b"\x1f\x8b", Packing::Gzip),
        (b"\x28\xb5\x2f\xfd", Packing::Zstd),
        (b"\xfd7zXZ\0", Packing::Xz),
        (b"BZh", Packing::Bzip2),
    ];
    // zstd may begin with skippable frames (RFC 8878, 3.1.2).
    if matches!(head, [0x50..=0x5f, 0x2a, 0x4d, 0x18, ..]) {
        return Packing::Zstd;
    }
    table.into_iter().find(|(magic, _)| head.starts_with(magic)).map_or(Packing::None, |(_, p)| p)
}

/// What zstd and xz may want of memory: windows are a stranger's choice. zstd's levels take up to 8 MiB, and 128 MiB, 2^27,
/// is what its own programs accept; xz's levels take up to 65 MiB.
const ZSTD_WINDOW_LOG: u32 = 27;
const XZ_MEMORY: u64 = 80 << 20;

/// The stream, unpacked.
pub fn inflate<'a>(mut reader: impl BufRead + 'a, crcs: Crcs) -> io::Result<Box<dyn Read + 'a>> {
    Ok(match packing(reader.fill_buf()?) {
        Packing::None => Box::new(reader),
        Packing::Gzip => Box::new(Gunzip::new(reader, crcs)?),
        Packing::Zstd => {
            let mut decoder = zstd::stream::read::Decoder::with_buffer(reader)?;
            decoder.window_log_max(ZSTD_WINDOW_LOG)?;
            Box::new(decoder)
        }
        Packing::Xz => {
            let stream =
                liblzma::stream::Stream::new_stream_decoder(XZ_MEMORY, liblzma::stream::CONCATENATED)?;
            Box::new(liblzma::bufread::XzDecoder::new_stream(reader, stream))
        }
        Packing::Bzip2 => {
            return Err(io::Error::new(
                io::ErrorKind::Unsupported,
                "it is packed with bzip2; use gzip, zstd or xz",
            ));
        }
    })
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    #[test]
    fn every_packing_is_recognised_and_streams_may_be_concatenated() {
        let text = b"some text, some text, some text".repeat(100);
        let gzip = |bytes: &[u8]| {
            let mut encoder = flate2::write::GzEncoder::new(vec![], flate2::Compression::fast());
            encoder.write_all(bytes).expect("packs");
            encoder.finish().expect("packs")
        };
        let zstd = |bytes: &[u8]| zstd::stream::encode_all(bytes, 1).expect("packs");
        let mut xz = liblzma::write::XzEncoder::new(vec![], 1);
        xz.write_all(&text).expect("packs");
        let (one, two) = text.split_at(1000);
        let table = [
            text.clone(),
            gzip(&text),
            [gzip(one), gzip(two)].concat(),
            zstd(&text),
            [zstd(one), b"\x50\x2a\x4d\x18\x03\0\0\0abc".to_vec(), zstd(two)].concat(),
            [b"\x5f\x2a\x4d\x18\x03\0\0\0abc".to_vec(), zstd(&text)].concat(),
            xz.finish().expect("packs"),
        ];
        for packed in table {
            let mut got = vec![];
            inflate(packed.as_slice(), Crcs::Check).expect("begins").read_to_end(&mut got).expect("unpacks");
            assert!(got == text, "{:?}", packing(&packed));
        }
        assert!(inflate(b"BZh91AY".as_slice(), Crcs::Check).is_err());
    }
}
