//! gzip (RFC 1952): members end to end, each a header, deflate's data, and a trailer with a CRC and a length.
//!
//! The framing is read here, and the data inflated by flate2, since a layer's digests say more of it than a CRC does, and the
//! CRC of all of it takes a tenth of the time that inflating takes.

use std::io::{self, BufRead, Read};

use flate2::Crc;
use flate2::bufread::DeflateDecoder;

/// Whether the CRC of what comes out is compared with the trailer's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Crcs {
    Check,
    /// A digest of the same bytes is checked.
    Pass,
}

/// Inflates what `reader` has, to its end.
pub struct Gunzip<R> {
    /// None: the end was reached, or an error was found.
    member: Option<DeflateDecoder<R>>,
    crcs: Crcs,
    crc: Crc,
    bytes: u32,
}

const MAGIC: [u8; 3] = [0x1f, 0x8b, 8];
const HEADER_CRC: u8 = 2;
const EXTRA: u8 = 4;
const NAME: u8 = 8;
const COMMENT: u8 = 16;
const RESERVED: u8 = 0xe0;
/// The longest name or comment; nobody reads them.
const MAX_TEXT: usize = 64 << 10;

impl<R: BufRead> Gunzip<R> {
    /// Reads the first member's header.
    pub fn new(mut reader: R, crcs: Crcs) -> io::Result<Self> {
        header(&mut reader)?;
        Ok(Self { member: Some(DeflateDecoder::new(reader)), crcs, crc: Crc::new(), bytes: 0 })
    }

    /// Goes from the end of a member's data to the next one's, if there is one.
    fn next_member(&mut self) -> io::Result<()> {
        let Some(member) = self.member.take() else { return Ok(()) };
        let mut reader = member.into_inner();
        let mut trailer = [0; 8];
        reader.read_exact(&mut trailer)?;
        let [a, b, c, d, rest @ ..] = trailer;
        let crc = u32::from_le_bytes([a, b, c, d]);
        if u32::from_le_bytes(rest) != self.bytes || self.crcs == Crcs::Check && crc != self.crc.sum() {
            return Err(bad("its gzip data does not have the length or the CRC that its end says"));
        }
        if !reader.fill_buf()?.is_empty() {
            header(&mut reader)?;
            self.crc.reset();
            self.bytes = 0;
            self.member = Some(DeflateDecoder::new(reader));
        }
        Ok(())
    }
}

impl<R: BufRead> Read for Gunzip<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while let Some(member) = &mut self.member {
            let n = member.read(buffer)?;
            if n > 0 || buffer.is_empty() {
                if self.crcs == Crcs::Check {
                    self.crc.update(&buffer[..n]);
                }
                self.bytes = self.bytes.wrapping_add(n as u32);
                return Ok(n);
            }
            self.next_member()?;
        }
        Ok(0)
    }
}

fn header(reader: &mut impl BufRead) -> io::Result<()> {
    let mut fixed = [0; 10];
    reader.read_exact(&mut fixed)?;
    let flags = fixed[3];
    if !fixed.starts_with(&MAGIC) || flags & RESERVED != 0 {
        return Err(bad("its gzip data has a bad header"));
    }
    if flags & EXTRA != 0 {
        let mut length = [0; 2];
        reader.read_exact(&mut length)?;
        skip(reader, u16::from_le_bytes(length).into())?;
    }
    for text in [NAME, COMMENT] {
        if flags & text != 0 {
            skip_text(reader)?;
        }
    }
    if flags & HEADER_CRC != 0 {
        skip(reader, 2)?;
    }
    Ok(())
}

fn skip(reader: &mut impl BufRead, bytes: u64) -> io::Result<()> {
    let passed = io::copy(&mut reader.by_ref().take(bytes), &mut io::sink())?;
    if passed == bytes { Ok(()) } else { Err(io::ErrorKind::UnexpectedEof.into()) }
}

/// Passes over a text that ends with a zero.
fn skip_text(reader: &mut impl BufRead) -> io::Result<()> {
    let mut byte = [1];
    for _ in 0..MAX_TEXT {
        reader.read_exact(&mut byte)?;
        if byte == [0] {
            return Ok(());
        }
    }
    Err(bad("its gzip data has a bad header"))
}

fn bad(why: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, why)
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    fn packed(text: &[u8], builder: flate2::GzBuilder) -> Vec<u8> {
        let mut encoder = builder.write(vec![], flate2::Compression::fast());
        encoder.write_all(text).expect("packs");
        encoder.finish().expect("packs")
    }

    fn unpacked(bytes: &[u8], crcs: Crcs) -> io::Result<Vec<u8>> {
        let mut out = vec![];
        Gunzip::new(bytes, crcs)?.read_to_end(&mut out)?;
        Ok(out)
    }

    #[test]
    fn headers_of_every_kind_are_passed_over() {
        let builder = flate2::GzBuilder::new;
        let full = builder().filename("a name").comment("a comment").extra([7; 300]).mtime(5);
        for one in [builder(), builder().filename("x"), builder().extra([1]), full] {
            let bytes = packed(b"some text", one);
            assert_eq!(unpacked(&bytes, Crcs::Check).expect("unpacks"), b"some text");
        }
    }

    #[test]
    fn damage_is_found_wherever_it_is() {
        let bytes = packed(&b"some text ".repeat(1000), flate2::GzBuilder::new());
        let crc_at = bytes.len() - 8;
        let mut damaged = bytes.clone();
        damaged[crc_at] ^= 1;
        unpacked(&damaged, Crcs::Check).expect_err("the CRC differs");
        unpacked(&damaged, Crcs::Pass).expect("is left to a digest");
        let mut damaged = bytes.clone();
        damaged[crc_at + 4] ^= 1;
        unpacked(&damaged, Crcs::Pass).expect_err("the length differs");
        for len in 0..bytes.len() {
            let error = unpacked(&bytes[..len], Crcs::Pass).expect_err("is cut off");
            assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof, "{len}");
        }
        let garbage = [&bytes[..], b"more"].concat();
        unpacked(&garbage, Crcs::Pass).expect_err("what follows is no member");
    }

    proptest::proptest! {
        #[test]
        fn any_bytes_end(mut bytes in proptest::collection::vec(0u8.., 0..200)) {
            drop(unpacked(&bytes, Crcs::Check));
            bytes.splice(0..0, [0x1f, 0x8b, 8, 0x1f]);
            drop(unpacked(&bytes, Crcs::Check));
        }
    }
}
