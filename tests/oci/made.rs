//! Layers made by hand, field by field, for what no packer can be made to write; and layouts of them in any packing.

use std::fs;
use std::io::Write;
use std::path::PathBuf;

use flate2::Compression;
use tar::EntryType;

use crate::support::*;

pub const FILE: EntryType = EntryType::Regular;
pub const DIR: EntryType = EntryType::Directory;
pub const SYMLINK: EntryType = EntryType::Symlink;
pub const LINK: EntryType = EntryType::Link;
pub const FIFO: EntryType = EntryType::Fifo;
pub const CHAR: EntryType = EntryType::Char;
pub const BLOCK: EntryType = EntryType::Block;

/// A tar being made.
#[derive(Default)]
pub struct Tar(Vec<u8>);

/// A member of it. What its header cannot hold goes into a PAX header before it.
#[derive(Clone)]
pub struct Member<'a> {
    kind: EntryType,
    path: Vec<u8>,
    target: Vec<u8>,
    data: &'a [u8],
    mode: u32,
    owner: (u64, u64),
    time: String,
    device: (u32, u32),
    xattrs: Vec<(&'a str, &'a [u8])>,
}

pub fn member_of<'a>(kind: EntryType, path: impl AsRef<[u8]>) -> Member<'a> {
    Member {
        kind,
        path: path.as_ref().to_owned(),
        target: vec![],
        data: b"",
        mode: if kind == DIR { 0o755 } else { 0o644 },
        owner: (0, 0),
        time: "1700000000".to_owned(),
        device: (0, 0),
        xattrs: vec![],
    }
}

impl<'a> Member<'a> {
    pub fn path(&self) -> &[u8] {
        &self.path
    }
    pub fn data(self, data: &'a [u8]) -> Self {
        Self { data, ..self }
    }
    pub fn target(self, target: impl AsRef<[u8]>) -> Self {
        Self { target: target.as_ref().to_owned(), ..self }
    }
    pub fn mode(self, mode: u32) -> Self {
        Self { mode, ..self }
    }
    pub fn owner(self, uid: u64, gid: u64) -> Self {
        Self { owner: (uid, gid), ..self }
    }
    /// Seconds, perhaps with a fraction, as PAX writes them.
    pub fn time(self, time: impl Into<String>) -> Self {
        Self { time: time.into(), ..self }
    }
    pub fn device(self, major: u32, minor: u32) -> Self {
        Self { device: (major, minor), ..self }
    }
    pub fn xattr(mut self, name: &'a str, value: &'a [u8]) -> Self {
        self.xattrs.push((name, value));
        self
    }
}

impl Tar {
    pub fn add(&mut self, member: Member<'_>) -> &mut Self {
        let mut pax = vec![];
        let mut record = |key: &str, value: &[u8]| {
            // A record's length counts its own digits (pax(1), "pax Extended Header").
            let rest = key.len() + value.len() + 3;
            let digits = (1..8).find(|d| (rest + d).to_string().len() == *d).expect("a length");
            pax.extend(format!("{} {key}=", rest + digits).into_bytes());
            pax.extend(value);
            pax.push(b'\n');
        };
        if member.path.len() > 100 {
            record("path", &member.path);
        }
        if member.target.len() > 100 {
            record("linkpath", &member.target);
        }
        if member.owner.0 > 0o7_777_777 {
            record("uid", member.owner.0.to_string().as_bytes());
        }
        if member.owner.1 > 0o7_777_777 {
            record("gid", member.owner.1.to_string().as_bytes());
        }
        let whole = member.time.parse::<u64>().ok().filter(|t| *t <= 0o77_777_777_777);
        if whole.is_none() {
            record("mtime", member.time.as_bytes());
        }
        for (name, value) in &member.xattrs {
            record(&format!("SCHILY.xattr.{name}"), value);
        }
        if !pax.is_empty() {
            let plain = member_of(EntryType::XHeader, "pax").data(&pax);
            self.header(&plain, 0).content(&pax);
        }
        self.header(&member, whole.unwrap_or(0)).content(member.data)
    }

    fn header(&mut self, member: &Member<'_>, time: u64) -> &mut Self {
        let mut block = [0_u8; 512];
        let mut put = |at: usize, bytes: &[u8]| block[at..at + bytes.len()].copy_from_slice(bytes);
        put(0, &member.path[..member.path.len().min(100)]);
        put(100, format!("{:07o}", member.mode).as_bytes());
        put(108, format!("{:07o}", member.owner.0.min(0o7_777_777)).as_bytes());
        put(116, format!("{:07o}", member.owner.1.min(0o7_777_777)).as_bytes());
        put(124, format!("{:011o}", member.data.len()).as_bytes());
        put(136, format!("{time:011o}").as_bytes());
        put(156, &[member.kind.as_byte()]);
        put(157, &member.target[..member.target.len().min(100)]);
        put(257, b"ustar\x0000");
        put(329, format!("{:07o}", member.device.0).as_bytes());
        put(337, format!("{:07o}", member.device.1).as_bytes());
        self.raw(block)
    }

    /// A header as it is, but for its sum.
    pub fn raw(&mut self, mut block: [u8; 512]) -> &mut Self {
        block[148..156].fill(b' ');
        let sum: u32 = block.iter().map(|b| u32::from(*b)).sum();
        block[148..155].copy_from_slice(format!("{sum:06o}\0").as_bytes());
        self.0.extend(block);
        self
    }

    /// A member's content, padded.
    pub fn content(&mut self, data: &[u8]) -> &mut Self {
        self.0.extend(data);
        self.0.resize(self.0.len().next_multiple_of(512), 0);
        self
    }

    pub fn finish(&mut self) -> Vec<u8> {
        self.0.extend([0; 1024]);
        std::mem::take(&mut self.0)
    }
}

pub fn tar_of(members: impl IntoIterator<Item = Member<'static>>) -> Vec<u8> {
    let mut tar = Tar::default();
    for member in members {
        tar.add(member);
    }
    tar.finish()
}

/// How a layer is packed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Packing {
    Plain,
    Gzip(u32),
    /// As many small members, which together are one gzip file (RFC 1952).
    GzipMembers,
    Zstd(i32),
}

impl Packing {
    pub fn pack(self, tar: &[u8]) -> Vec<u8> {
        let gzip = |part: &[u8], level| {
            let mut encoder = flate2::write::GzEncoder::new(vec![], Compression::new(level));
            encoder.write_all(part).expect("packs");
            encoder.finish().expect("packs")
        };
        match self {
            Self::Plain => tar.to_owned(),
            Self::Gzip(level) => gzip(tar, level),
            Self::GzipMembers => tar.chunks(70_000).flat_map(|part| gzip(part, 6)).collect(),
            Self::Zstd(level) => zstd::stream::encode_all(tar, level).expect("packs"),
        }
    }

    pub fn media_type(self) -> &'static str {
        match self {
            Self::Plain => "application/vnd.oci.image.layer.v1.tar",
            Self::Gzip(_) | Self::GzipMembers => LAYER,
            Self::Zstd(_) => "application/vnd.oci.image.layer.v1.tar+zstd",
        }
    }
}

/// A layout of one image, tag `t`, whose layers are these tars in one packing.
pub fn layout_of(dir: PathBuf, tars: &[Vec<u8>], packing: Packing) -> Layout {
    let layout = Layout::new(dir);
    let packed: Vec<Vec<u8>> = tars.iter().map(|tar| packing.pack(tar)).collect();
    let manifest = image_of(&layout, tars, &packed, packing.media_type(), CONFIG, MANIFEST);
    layout.index(&[manifest + &ref_name("t")]);
    layout
}

/// Stores an image and returns its manifest's descriptor, open.
pub fn image_of(
    layout: &Layout,
    tars: &[Vec<u8>],
    packed: &[Vec<u8>],
    layer_type: &str,
    config_type: &str,
    manifest_type: &str,
) -> String {
    let ids: Vec<String> = tars.iter().map(|tar| format!("\"{}\"", sha256(tar))).collect();
    let config = format!(
        r#"{{"architecture":"{ARCH}","os":"linux","config":{{"Cmd":["sh"]}},"rootfs":{{"type":"layers","diff_ids":[{}]}}}}"#,
        ids.join(",")
    );
    let layers: Vec<String> = packed.iter().map(|bytes| layout.blob(layer_type, bytes) + "}").collect();
    let manifest = format!(
        r#"{{"schemaVersion":2,"mediaType":"{manifest_type}","config":{}}},"layers":[{}]}}"#,
        layout.blob(config_type, config.as_bytes()),
        layers.join(",")
    );
    layout.blob(manifest_type, manifest.as_bytes())
}

/// Noise that is the same each time (xorshift64).
pub struct Noise(pub u64);

impl Noise {
    pub fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    pub fn below(&mut self, n: usize) -> usize {
        usize::try_from(self.next() % n as u64).expect("below n")
    }

    pub fn bytes(&mut self, n: usize) -> Vec<u8> {
        (0..n.div_ceil(8)).flat_map(|_| self.next().to_le_bytes()).take(n).collect()
    }
}

/// Removes what a test is done with, so that the next import has its room.
pub fn discard(path: &std::path::Path) {
    fs::remove_file(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
}
