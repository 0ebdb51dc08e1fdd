//! The tar in a bundle, read member by member. It is a tar of our own making, so only what [`super::make`] writes is taken:
//! ustar headers of files, directories and symlinks under plain relative paths. Whatever else tar has grown in forty years,
//! longer names, sparse files and a second opinion on sizes (CVE-2025-62518) among it, is refused rather than understood.

use std::io::{self, Read};

use tar::{EntryType, Header};

use crate::catalog::bundle::BundleError;
use crate::image::manifest::harmless;

const BLOCK: u64 = 512;
/// No file is so large (2^63 is what a file's size may be, off_t), and with its padding it still is a number.
const MAX_SIZE: u64 = 1 << 63;

/// What a member is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Kind {
    /// Its content follows, so many bytes.
    File(u64),
    Directory,
    /// Where it points to: inside the directory that is at the top of its own path.
    Symlink(String),
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Member {
    /// Names with `/` between them: none is empty, `.` or `..`.
    pub path: String,
    pub kind: Kind,
}

/// Walks the tar. Between two calls of [`Members::next`] it reads as the member's content.
pub struct Members<R> {
    source: R,
    /// Of the present member: content not read, and padding after it.
    left: u64,
    padding: u64,
}

impl<R: Read> Members<R> {
    pub fn new(source: R) -> Self {
        Self { source, left: 0, padding: 0 }
    }

    pub fn source(&self) -> &R {
        &self.source
    }

    pub fn into_source(self) -> R {
        self.source
    }

    /// Goes to the next member; None at the end, which is two blocks of zeros with nothing but zeros behind them.
    pub fn next(&mut self) -> Result<Option<Member>, BundleError> {
        let rest = self.left + self.padding;
        let passed = io::copy(&mut (&mut self.source).take(rest), &mut io::sink());
        if passed.map_err(read_error)? < rest {
            return Err(BundleError::Truncated);
        }
        (self.left, self.padding) = (0, 0);
        let block = self.block()?;
        if block.iter().all(|b| *b == 0) {
            return self.end().map(|()| None);
        }
        let mut header = Header::new_ustar();
        header.as_mut_bytes().copy_from_slice(&block);
        let (member, size) = parse(&header)?;
        self.left = size;
        self.padding = size.next_multiple_of(BLOCK) - size;
        Ok(Some(member))
    }

    fn block(&mut self) -> Result<[u8; BLOCK as usize], BundleError> {
        let mut block = [0; BLOCK as usize];
        self.source.read_exact(&mut block).map_err(read_error)?;
        Ok(block)
    }

    fn end(&mut self) -> Result<(), BundleError> {
        /// More than any tar pads its end by (20 blocks).
        const MAX_PADDING: u64 = 1 << 20;
        let second = self.block()?;
        let mut rest = vec![];
        (&mut self.source).take(MAX_PADDING + 1).read_to_end(&mut rest).map_err(read_error)?;
        let clean = second.iter().chain(&rest).all(|b| *b == 0);
        if clean && rest.len() as u64 <= MAX_PADDING { Ok(()) } else { Err(BundleError::Trailing) }
    }
}

/// A decompressor says of a stream that is cut off that it ends unexpectedly, wherever that is noticed.
pub fn read_error(e: io::Error) -> BundleError {
    if e.kind() == io::ErrorKind::UnexpectedEof { BundleError::Truncated } else { BundleError::Read(e) }
}

/// The present member's content.
impl<R: Read> Read for Members<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let wanted = buffer.len().min(usize::try_from(self.left).unwrap_or(usize::MAX));
        if wanted == 0 {
            return Ok(0);
        }
        let n = self.source.read(&mut buffer[..wanted])?;
        self.left -= n as u64;
        if n == 0 { Err(io::ErrorKind::UnexpectedEof.into()) } else { Ok(n) }
    }
}

/// The member that a header describes, and how many bytes follow.
fn parse(header: &Header) -> Result<(Member, u64), BundleError> {
    if !checksum_is_right(header) {
        return Err(BundleError::Damaged);
    }
    let written = header.path_bytes();
    let shown = || harmless(&String::from_utf8_lossy(&written));
    let bad = |why: &'static str| BundleError::Member { path: shown(), why };
    let kind = header.entry_type();
    let text = std::str::from_utf8(&written).map_err(|_| bad("has a name that is not UTF-8"))?;
    let text = if kind == EntryType::Directory { text.strip_suffix('/').unwrap_or(text) } else { text };
    if !is_plain(text) {
        return Err(bad("has a path that is not made of plain names"));
    }
    let size = header.entry_size().ok().filter(|size| *size < MAX_SIZE).ok_or_else(|| bad("has no size"))?;
    let kind = match kind {
        EntryType::Regular => Kind::File(size),
        EntryType::Directory | EntryType::Symlink if size > 0 => {
            return Err(bad("has content where none belongs"));
        }
        EntryType::Directory => Kind::Directory,
        EntryType::Symlink => {
            let target = header.link_name_bytes().unwrap_or_default();
            let target = std::str::from_utf8(&target).map_err(|_| bad("points to what is not UTF-8"))?;
            if !stays_inside(text, target) {
                return Err(bad("is a symlink out of its directory"));
            }
            Kind::Symlink(target.to_owned())
        }
        EntryType::GNULongName | EntryType::GNULongLink | EntryType::XHeader | EntryType::XGlobalHeader => {
            return Err(bad("uses an extension of tar; make the bundle with `banger internal make-bundle`"));
        }
        _ => return Err(bad("is neither a file, a directory nor a symlink")),
    };
    Ok((Member { path: text.to_owned(), kind }, size))
}

fn checksum_is_right(header: &Header) -> bool {
    let mut counted = *header.as_bytes();
    counted[148..156].fill(b' ');
    let sum: u32 = counted.iter().map(|b| u32::from(*b)).sum();
    header.cksum().is_ok_and(|said| said == sum)
}

fn is_plain(path: &str) -> bool {
    path.split('/').all(|name| !matches!(name, "" | "." | ".."))
        && !path.contains(|c: char| c.is_control() || c == '\\')
}

/// Whether the symlink at `path` can only lead to what is below the first name of its path: `..` come first, so that they are
/// counted from a directory that is one, and there are fewer of them than directories above it.
pub fn stays_inside(path: &str, target: &str) -> bool {
    let above = path.split('/').count() - 1;
    let mut names = target.split('/').peekable();
    let mut up = 0;
    while names.next_if_eq(&"..").is_some() {
        up += 1;
    }
    let rest: Vec<&str> = names.collect();
    !rest.is_empty() && up < above && is_plain(&rest.join("/"))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn header(kind: EntryType, path: &str, target: &str, size: u64) -> Header {
        let mut header = Header::new_ustar();
        header.set_entry_type(kind);
        header.set_size(size);
        header.set_mode(0o644);
        for (field, text) in [(0, path), (157, target)] {
            header.as_mut_bytes()[field..field + text.len()].copy_from_slice(text.as_bytes());
        }
        header.set_cksum();
        header
    }

    fn read(bytes: &[u8]) -> Result<Vec<Member>, BundleError> {
        let mut members = Members::new(bytes);
        let mut all = vec![];
        while let Some(member) = members.next()? {
            all.push(member);
        }
        Ok(all)
    }

    fn one(header: &Header) -> Result<Member, BundleError> {
        let bytes = [header.as_bytes().as_slice(), &[0; 1024]].concat();
        read(&bytes).map(|mut all| all.remove(0))
    }

    #[test]
    fn files_directories_and_symlinks_inside_are_taken() {
        let good = [
            (EntryType::Regular, "manifest.json", "", Kind::File(0)),
            (EntryType::Directory, "modules/kernel/", "", Kind::Directory),
            (EntryType::Directory, "modules", "", Kind::Directory),
            (EntryType::Symlink, "modules/a/b", "c", Kind::Symlink("c".to_owned())),
            (EntryType::Symlink, "modules/a/b", "../c/d", Kind::Symlink("../c/d".to_owned())),
        ];
        for (kind, path, target, want) in good {
            let member = one(&header(kind, path, target, 0)).expect(path);
            assert_eq!((member.path.as_str(), member.kind), (path.trim_end_matches('/'), want));
        }
        let large = header(EntryType::Regular, "rootfs.ext4", "", 20 << 30);
        assert!(matches!(parse(&large), Ok((_, size)) if size == 20 << 30));
        let endless = header(EntryType::Regular, "rootfs.ext4", "", u64::MAX);
        assert!(read(endless.as_bytes()).is_err());
    }

    #[test]
    fn whatever_could_leave_the_bundle_is_refused_by_name() {
        let bad = [
            (EntryType::Regular, "/etc/passwd", "", "plain names"),
            (EntryType::Regular, "../x", "", "plain names"),
            (EntryType::Regular, "modules/../../x", "", "plain names"),
            (EntryType::Regular, "./manifest.json", "", "plain names"),
            (EntryType::Regular, "modules//x", "", "plain names"),
            (EntryType::Regular, "", "", "plain names"),
            (EntryType::Regular, "a\nb", "", "plain names"),
            (EntryType::Directory, "..", "", "plain names"),
            (EntryType::Symlink, "modules/x", "/etc/passwd", "out of its directory"),
            (EntryType::Symlink, "modules/x", "../y", "out of its directory"),
            (EntryType::Symlink, "modules/a/x", "../../y", "out of its directory"),
            (EntryType::Symlink, "modules/x", "a/../../../y", "out of its directory"),
            (EntryType::Symlink, "modules/a/x", "..", "out of its directory"),
            (EntryType::Symlink, "modules/x", "", "out of its directory"),
            (EntryType::Symlink, "rootfs.ext4", "manifest.json", "out of its directory"),
            (EntryType::Link, "modules/x", "manifest.json", "neither a file"),
            (EntryType::Char, "modules/x", "", "neither a file"),
            (EntryType::Fifo, "modules/x", "", "neither a file"),
            (EntryType::GNUSparse, "rootfs.ext4", "", "neither a file"),
            (EntryType::XHeader, "x", "", "extension of tar"),
            (EntryType::GNULongName, "x", "", "extension of tar"),
        ];
        for (kind, path, target, why) in bad {
            let error = one(&header(kind, path, target, 0)).expect_err(path).to_string();
            assert!(error.contains(why) && !error.contains('\n'), "{kind:?} {path}: {error}");
        }
        assert!(one(&header(EntryType::Directory, "modules", "", 1)).is_err());
    }

    #[test]
    fn an_archive_that_ends_early_or_goes_on_is_refused() {
        let file = header(EntryType::Regular, "a", "", 600);
        let whole = [file.as_bytes().as_slice(), &[1; 600], &[0; 424], &[0; 1024]].concat();
        assert_eq!(read(&whole).expect("reads").len(), 1);
        for length in (0..whole.len()).step_by(100) {
            assert!(matches!(read(&whole[..length]), Err(BundleError::Truncated)), "{length}");
        }
        let padded = [whole.as_slice(), &[0; 8192]].concat();
        assert_eq!(read(&padded).expect("reads").len(), 1);
        for trailing in [[whole.as_slice(), b"x"].concat(), [whole.as_slice(), &whole].concat()] {
            assert!(matches!(read(&trailing), Err(BundleError::Trailing)));
        }
        let mut bent = whole.clone();
        bent[2] = b'x';
        assert!(matches!(read(&bent), Err(BundleError::Damaged)));
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..2000)) {
            let _ = read(&bytes);
        }

        #[test]
        fn a_header_with_a_byte_changed_is_read_or_refused(at in 0usize..512, value in any::<u8>()) {
            let mut header = header(EntryType::Symlink, "modules/a/b", "../c", 0);
            header.as_mut_bytes()[at] = value;
            header.set_cksum();
            if let Ok(Member { path, kind: Kind::Symlink(target) }) = one(&header) {
                prop_assert!(stays_inside(&path, &target) && !path.contains(".."));
            }
        }

        #[test]
        fn a_symlink_that_is_taken_never_leads_above_its_top(path in "[ab.]{1,2}(/[ab.]{1,2}){0,3}", target in "[ab./]{0,8}") {
            if is_plain(&path) && stays_inside(&path, &target) {
                let mut at: Vec<&str> = path.split('/').collect();
                at.pop();
                for name in target.split('/') {
                    if name == ".." { prop_assert!(at.pop().is_some()); } else { at.push(name); }
                    prop_assert!(!at.is_empty());
                }
            }
        }
    }
}
