//! bzImage: an x86 kernel that unpacks itself. We take the ELF vmlinux out of it, which VMMs start without unpacking.
//!
//! The setup header says where the packed kernel lies (kernel: Documentation/arch/x86/boot.rst, payload_offset); its
//! first bytes say how it was packed, its last four how long it is unpacked (kernel: scripts/Makefile.lib, size_append).

use std::fmt;
use std::io::Read;

use liblzma::bufread::XzDecoder;

/// Why the kernel could not be taken out.
#[derive(Debug)]
pub enum BadImage {
    /// No boot sector with `HdrS`.
    NotBzImage,
    /// A boot protocol before 2.08 (Linux 2.6.26) does not say where the packed kernel lies.
    TooOld { protocol: u16 },
    /// The header points outside the file.
    Truncated,
    /// Packed in a way that we do not unpack.
    Packing { name: &'static str },
    /// It claims to be larger than any kernel.
    TooBig { bytes: u64 },
    /// The packed kernel is damaged.
    Damaged { packing: &'static str, source: std::io::Error },
}

/// The largest unpacked kernel that we take, in bytes; Debian's have 40 to 80 MB, with debug information 800 MB.
pub const MAX_KERNEL: u64 = 1 << 30;
/// lz4's legacy frame, which the kernel uses, is cut into blocks of this many bytes (lz4: doc/lz4_Frame_format.md).
const LZ4_BLOCK: usize = 8 << 20;

/// Whether `bytes` begin as a bzImage does.
pub fn is_bzimage(bytes: &[u8]) -> bool {
    bytes.get(0x1fe..0x200) == Some(b"\x55\xaa") && bytes.get(0x202..0x206) == Some(b"HdrS")
}

/// Returns the unpacked kernel of a bzImage: an ELF file, and behind it perhaps relocations.
pub fn unpack(bytes: &[u8]) -> Result<Vec<u8>, BadImage> {
    let payload = payload(bytes)?;
    let (packed, length) = payload.split_last_chunk::<4>().ok_or(BadImage::Truncated)?;
    let length = u32::from_le_bytes(*length);
    let packing = Packing::of(packed)?;
    // gzip's own trailer ends with the length; the others have it appended.
    let stream = if packing == Packing::Gzip { payload } else { packed };
    if u64::from(length) > MAX_KERNEL {
        return Err(BadImage::TooBig { bytes: length.into() });
    }
    let damaged = |source| BadImage::Damaged { packing: packing.name(), source };
    let kernel = packing.unpack(stream, length as usize).map_err(damaged)?;
    if kernel.len() != length as usize {
        let text = format!("{} bytes came out, {length} were promised", kernel.len());
        return Err(damaged(std::io::Error::new(std::io::ErrorKind::InvalidData, text)));
    }
    Ok(kernel)
}

/// The packed kernel with its four bytes of length.
fn payload(bytes: &[u8]) -> Result<&[u8], BadImage> {
    if !is_bzimage(bytes) {
        return Err(BadImage::NotBzImage);
    }
    let number = |at: usize| {
        let bytes: [u8; 4] =
            bytes.get(at..at + 4).and_then(|b| b.try_into().ok()).ok_or(BadImage::Truncated)?;
        Ok(u32::from_le_bytes(bytes) as usize)
    };
    let protocol: [u8; 2] =
        bytes.get(0x206..0x208).and_then(|b| b.try_into().ok()).ok_or(BadImage::Truncated)?;
    let protocol = u16::from_le_bytes(protocol);
    if protocol < 0x0208 {
        return Err(BadImage::TooOld { protocol });
    }
    // "For backwards compatibility, if the setup_sects field contains 0, the real value is 4."
    let sectors = if bytes[0x1f1] == 0 { 4 } else { usize::from(bytes[0x1f1]) };
    let start = (sectors + 1) * 512 + number(0x248)?;
    let end = start.checked_add(number(0x24c)?).ok_or(BadImage::Truncated)?;
    bytes.get(start..end).ok_or(BadImage::Truncated)
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Packing {
    Gzip,
    Xz,
    Zstd,
    Lz4,
}

impl Packing {
    fn of(packed: &[u8]) -> Result<Self, BadImage> {
        const KNOWN: [(&[u8], Result<Packing, &str>); 8] = [
            (b"\x1f\x8b", Ok(Packing::Gzip)),
            (b"\xfd7zXZ\0", Ok(Packing::Xz)),
            (b"\x28\xb5\x2f\xfd", Ok(Packing::Zstd)),
            (b"\x02\x21\x4c\x18", Ok(Packing::Lz4)),
            (b"BZh", Err("bzip2")),
            (b"\x89LZO", Err("lzo")),
            (b"\x5d\0\0", Err("lzma")),
            (b"\x7fELF", Err("nothing at all")),
        ];
        let found = KNOWN.into_iter().find(|(magic, _)| packed.starts_with(magic));
        let (_, packing) = found.unwrap_or((b"", Err("an unknown method")));
        packing.map_err(|name| BadImage::Packing { name })
    }

    fn name(self) -> &'static str {
        match self {
            Self::Gzip => "gzip",
            Self::Xz => "xz",
            Self::Zstd => "zstd",
            Self::Lz4 => "lz4",
        }
    }

    /// Unpacks at most `length` bytes and one.
    fn unpack(self, packed: &[u8], length: usize) -> std::io::Result<Vec<u8>> {
        let mut out = vec![];
        let limit = length as u64 + 1;
        match self {
            Self::Gzip => flate2::read::GzDecoder::new(packed).take(limit).read_to_end(&mut out)?,
            // The x86 filter that the kernel's xz is made with is part of the stream's description.
            Self::Xz => {
                let decoder = liblzma::stream::Stream::new_stream_decoder(MAX_KERNEL, 0)?;
                XzDecoder::new_stream(packed, decoder).take(limit).read_to_end(&mut out)?
            }
            Self::Zstd => {
                zstd::stream::read::Decoder::new(packed)?.single_frame().take(limit).read_to_end(&mut out)?
            }
            Self::Lz4 => return lz4_legacy(packed, length),
        };
        Ok(out)
    }
}

fn lz4_legacy(packed: &[u8], length: usize) -> std::io::Result<Vec<u8>> {
    let bad = |text: String| std::io::Error::new(std::io::ErrorKind::InvalidData, text);
    let mut rest = packed.get(4..).unwrap_or_default();
    let mut out = Vec::new();
    let mut block = vec![0; LZ4_BLOCK];
    while out.len() < length {
        let (size, after) = rest.split_first_chunk::<4>().ok_or(std::io::ErrorKind::UnexpectedEof)?;
        let size = u32::from_le_bytes(*size) as usize;
        let data = after.get(..size).ok_or(std::io::ErrorKind::UnexpectedEof)?;
        let n = lz4_flex::block::decompress_into(data, &mut block).map_err(|e| bad(e.to_string()))?;
        if n == 0 {
            return Err(bad("a block is empty".to_owned()));
        }
        out.extend_from_slice(&block[..n]);
        rest = &after[size..];
    }
    Ok(out)
}

impl fmt::Display for BadImage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotBzImage => f.write_str("it is neither an ELF vmlinux nor an x86 bzImage"),
            Self::TooOld { protocol } => {
                write!(f, "its boot protocol {}.{:02} is older than 2.08", protocol >> 8, protocol & 0xff)
            }
            Self::Truncated => f.write_str("it is a bzImage, but cut short"),
            Self::Packing { name } => {
                write!(
                    f,
                    "it is packed with {name}; gzip, xz, zstd and lz4 can be unpacked, or give the ELF vmlinux"
                )
            }
            Self::TooBig { bytes } => write!(f, "it claims to unpack to {bytes} bytes"),
            Self::Damaged { packing, .. } => write!(f, "the {packing} data in it is damaged"),
        }
    }
}

impl std::error::Error for BadImage {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Damaged { source, .. } => Some(source),
            Self::NotBzImage
            | Self::TooOld { .. }
            | Self::Truncated
            | Self::Packing { .. }
            | Self::TooBig { .. } => None,
        }
    }
}

#[cfg(test)]
pub(super) mod tests {
    use std::io::Write;

    use proptest::prelude::*;

    use super::*;

    /// A bzImage around `payload`, which ends with the length.
    pub fn bzimage(payload: &[u8]) -> Vec<u8> {
        let mut image = vec![0; 1024];
        image[0x1f1] = 1;
        image[0x1fe..0x200].copy_from_slice(b"\x55\xaa");
        image[0x202..0x206].copy_from_slice(b"HdrS");
        image[0x206..0x208].copy_from_slice(&[0x0f, 0x02]);
        image[0x248] = 16;
        image[0x24c..0x250].copy_from_slice(&(payload.len() as u32).to_le_bytes());
        image.extend([0xcc; 16]);
        image.extend(payload);
        image.extend(b"checksum");
        image
    }

    pub fn gzip(bytes: &[u8]) -> Vec<u8> {
        let mut writer = flate2::write::GzEncoder::new(vec![], flate2::Compression::fast());
        writer.write_all(bytes).expect("writes");
        writer.finish().expect("packs")
    }

    fn xz(bytes: &[u8]) -> Vec<u8> {
        let mut filters = liblzma::stream::Filters::new();
        let options = liblzma::stream::LzmaOptions::new_preset(1).expect("a preset");
        filters.x86().lzma2(&options);
        let stream = liblzma::stream::Stream::new_stream_encoder(&filters, liblzma::stream::Check::Crc32);
        let mut writer = liblzma::write::XzEncoder::new_stream(vec![], stream.expect("a stream"));
        writer.write_all(bytes).expect("writes");
        writer.finish().expect("packs")
    }

    fn lz4(bytes: &[u8]) -> Vec<u8> {
        let mut out = b"\x02\x21\x4c\x18".to_vec();
        for chunk in bytes.chunks(LZ4_BLOCK) {
            let block = lz4_flex::block::compress(chunk);
            out.extend((block.len() as u32).to_le_bytes());
            out.extend(block);
        }
        out
    }

    fn with_length(mut packed: Vec<u8>, length: usize) -> Vec<u8> {
        packed.extend((length as u32).to_le_bytes());
        packed
    }

    /// Not compressible to nothing, with calls in it that the x86 filter rewrites, and longer than one lz4 block.
    fn kernel() -> Vec<u8> {
        (0..9u32 << 20).map(|i| if i % 16 == 0 { 0xe8 } else { (i >> 7) as u8 }).collect()
    }

    #[test]
    fn every_packing_that_debian_and_others_use_is_unpacked() {
        let kernel = kernel();
        let zstd = zstd::encode_all(&kernel[..], 1).expect("packs");
        let table = [
            ("gzip", gzip(&kernel)),
            ("xz", with_length(xz(&kernel), kernel.len())),
            ("zstd", with_length(zstd, kernel.len())),
            ("lz4", with_length(lz4(&kernel), kernel.len())),
        ];
        for (name, payload) in table {
            assert!(unpack(&bzimage(&payload)).expect(name) == kernel, "{name}");
        }
    }

    #[test]
    fn a_packing_that_is_not_unpacked_is_named() {
        let table = [
            (&b"BZh91AY"[..], "bzip2"),
            (b"\x89LZO\0\r\n", "lzo"),
            (b"\x5d\0\0\x80\0", "lzma"),
            (b"whatever", "an unknown method"),
        ];
        for (payload, name) in table {
            let error = unpack(&bzimage(&with_length(payload.to_vec(), 10))).expect_err("refused");
            assert!(error.to_string().starts_with(&format!("it is packed with {name};")), "{error}");
        }
    }

    #[test]
    fn a_damaged_or_short_image_is_refused() {
        let kernel = b"\x7fELF and more".repeat(100);
        let image = bzimage(&gzip(&kernel));
        assert!(matches!(unpack(&image[..1060]), Err(BadImage::Truncated)));
        assert!(matches!(unpack(&image[..0x205]), Err(BadImage::NotBzImage)));
        let lying = bzimage(&with_length(lz4(&kernel), kernel.len() - 1));
        assert!(matches!(unpack(&lying), Err(BadImage::Damaged { packing: "lz4", .. })));
        let mut flipped = image.clone();
        flipped[1024 + 16 + 20] ^= 0xff;
        assert!(matches!(unpack(&flipped), Err(BadImage::Damaged { packing: "gzip", .. })));
        let huge = bzimage(&with_length(b"\xfd7zXZ\0".to_vec(), u32::MAX as usize));
        assert!(matches!(unpack(&huge), Err(BadImage::TooBig { .. })));
    }

    proptest! {
        #[test]
        fn a_garbled_header_never_panics(at in 0x1f0usize..0x250, value in any::<u8>(), cut in 0usize..1200) {
            let mut image = bzimage(&gzip(b"a kernel"));
            image[at] = value;
            image.truncate(cut);
            let _ = unpack(&image);
        }

        #[test]
        fn a_garbled_payload_never_panics(payload in prop::collection::vec(any::<u8>(), 0..64), which in 0usize..4) {
            let magic: &[u8] = [&b"\x1f\x8b\x08"[..], b"\xfd7zXZ\0", b"\x28\xb5\x2f\xfd", b"\x02\x21\x4c\x18"][which];
            let _ = unpack(&bzimage(&[magic, &payload, &64u32.to_le_bytes()].concat()));
        }
    }
}
