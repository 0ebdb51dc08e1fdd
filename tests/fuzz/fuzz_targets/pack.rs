//! Packs of git as somebody may make them: objects, deltas against any of those before them or against what is elsewhere, and lies in them. A pack
//! without lies is taken, with the contents that its deltas mean; one with lies is refused, or is one whose objects are all to be read again
//! under their names.
#![no_main]

mod packed;

use std::collections::HashSet;
use std::io::Write;

use arbitrary::Arbitrary;
use banger::git::pack::Kind;
use banger::git::{Format, Id};
use flate2::Compression;
use flate2::write::ZlibEncoder;
use packed::{digest, name, received};

#[derive(Arbitrary, Debug)]
struct Made {
    sha256: bool,
    version: bool,
    objects: Vec<Object>,
    /// In the pack, before its checksum.
    lie: Option<Lie>,
    more: u8,
}

#[derive(Arbitrary, Debug)]
struct Object {
    form: Form,
    /// In what is deflated.
    lie: Option<Lie>,
    size: Option<u64>,
    stored: bool,
}

#[derive(Arbitrary, Debug)]
enum Form {
    Whole(u8, Vec<u8>),
    /// Of an object before it.
    Offset(u8, Vec<Op>),
    /// Of the object with this number, or, if there is none, of one that the repository has.
    Named(u8, Vec<Op>),
    /// Of an offset, or a name, that is perhaps nothing's.
    Stray(u64, Vec<Op>),
    Unknown([u8; 20], Vec<Op>),
}

#[derive(Arbitrary, Debug)]
enum Op {
    Copy(u16, u16),
    Insert(Vec<u8>),
}

#[derive(Arbitrary, Debug)]
struct Lie {
    at: u16,
    flip: u8,
}

const ELSEWHERE: &[u8] = b"what the repository has already";

/// An object as it ought to be read.
struct Meant {
    offset: u64,
    kind: Kind,
    content: Vec<u8>,
    id: Id,
}

libfuzzer_sys::fuzz_target!(|made: Made| {
    let format = if made.sha256 { Format::Sha256 } else { Format::Sha1 };
    let mut bytes = vec![b'P', b'A', b'C', b'K', 0, 0, 0, 2 + u8::from(made.version)];
    let count = made.objects.len() as u32 + u32::from(made.more);
    bytes.extend(count.to_be_bytes());
    let mut honest = made.more == 0 && made.lie.is_none();
    let elsewhere = Meant {
        offset: 0,
        kind: Kind::Blob,
        content: ELSEWHERE.to_vec(),
        id: name(format, Kind::Blob, ELSEWHERE),
    };
    let mut meant: Vec<Meant> = vec![];
    for object in &made.objects {
        honest &= object.lie.is_none() && object.size.is_none();
        let offset = bytes.len() as u64;
        let named = |base: &Meant| (7, base.id.bytes().to_vec());
        let (base, (form, told), ops) = match &object.form {
            Form::Offset(back, ops) => match meant.iter().rev().nth(usize::from(*back)) {
                Some(base) => (base, (6, distance(offset - base.offset)), ops),
                None => (&elsewhere, (6, distance(u64::from(*back))), ops),
            },
            Form::Named(at, ops) => {
                let base = meant.get(usize::from(*at)).unwrap_or(&elsewhere);
                (base, named(base), ops)
            }
            Form::Stray(far, ops) => (&elsewhere, (6, distance(*far)), ops),
            Form::Unknown(id, ops) => {
                (&elsewhere, (7, id.iter().copied().cycle().take(format.id_bytes()).collect()), ops)
            }
            Form::Whole(kind, content) => {
                let (number, kind) = [(1, Kind::Commit), (2, Kind::Tree), (3, Kind::Blob), (4, Kind::Tag)]
                    [usize::from(*kind) % 4];
                put(&mut bytes, object, number, &[], content);
                meant.push(Meant { offset, kind, id: name(format, kind, content), content: content.clone() });
                continue;
            }
        };
        honest &= form == 7 && *told == *base.id.bytes() || form == 6 && base.offset > 0;
        let (delta, content) = delta(&base.content, ops);
        let kind = base.kind;
        put(&mut bytes, object, form, &told, &delta);
        meant.push(Meant { offset, kind, id: name(format, kind, &content), content });
    }
    flip(&mut bytes, made.lie.as_ref());
    let bytes = [&bytes[..], digest(format, &bytes).bytes()].concat();
    let read = received(&bytes, format, &|id| (*id == elsewhere.id).then(|| ELSEWHERE.to_vec()));
    if honest && !meant.is_empty() {
        let read = read.expect("an honest pack is taken");
        let wanted: HashSet<Id> = meant.iter().map(|object| object.id).collect();
        assert!(wanted.is_subset(&read), "{made:?}");
    }
});

fn put(bytes: &mut Vec<u8>, object: &Object, kind: u8, base: &[u8], content: &[u8]) {
    let mut size = object.size.unwrap_or(content.len() as u64);
    let mut byte = kind << 4 | (size & 15) as u8;
    size >>= 4;
    while size > 0 {
        bytes.push(byte | 0x80);
        byte = (size & 0x7f) as u8;
        size >>= 7;
    }
    bytes.push(byte);
    bytes.extend(base);
    let mut content = content.to_vec();
    flip(&mut content, object.lie.as_ref());
    let level = if object.stored { Compression::none() } else { Compression::fast() };
    let mut encoder = ZlibEncoder::new(bytes, level);
    encoder.write_all(&content).expect("deflates");
    encoder.finish().expect("ends");
}

fn flip(bytes: &mut [u8], lie: Option<&Lie>) {
    if let Some(Lie { at, flip }) = lie
        && !bytes.is_empty()
    {
        let at = usize::from(*at) % bytes.len();
        bytes[at] ^= flip;
    }
}

/// As offset deltas have it (gitformat-pack).
fn distance(mut distance: u64) -> Vec<u8> {
    let mut bytes = vec![(distance & 0x7f) as u8];
    while distance >= 0x80 {
        distance = (distance >> 7) - 1;
        bytes.insert(0, 0x80 | (distance & 0x7f) as u8);
    }
    bytes
}

/// A delta of these steps, and what comes out of it.
fn delta(base: &[u8], ops: &[Op]) -> (Vec<u8>, Vec<u8>) {
    let (mut steps, mut made) = (vec![], vec![]);
    for op in ops {
        match op {
            Op::Copy(at, length) => {
                let at = usize::from(*at) % (base.len() + 1);
                let length = usize::from(*length).min(base.len() - at);
                if length > 0 {
                    let [a, b, ..] = (at as u32).to_le_bytes();
                    let [c, d, ..] = (length as u32).to_le_bytes();
                    steps.extend([0b1011_0011, a, b, c, d]);
                    made.extend(&base[at..at + length]);
                }
            }
            Op::Insert(bytes) => {
                for piece in bytes.chunks(127) {
                    steps.push(piece.len() as u8);
                    steps.extend(piece);
                }
                made.extend(bytes);
            }
        }
    }
    let mut delta = vec![];
    for mut size in [base.len(), made.len()] {
        while size >= 0x80 {
            delta.push(size as u8 | 0x80);
            size >>= 7;
        }
        delta.push(size as u8);
    }
    delta.extend(steps);
    (delta, made)
}
