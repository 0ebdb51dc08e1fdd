//! Which objects the deltas of a pack are.
//!
//! An object's name makes known the deltas that wait for it, and those make known others: depth first, so that bases are still at hand.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, Write};
use std::os::unix::fs::FileExt;

use flate2::write::ZlibEncoder;
use flate2::{Compression, Crc};

use super::entry::{Kind, head};
use super::read::{Cache, Pack};
use super::scan::{Object, Scanned, State};
use super::{Entry, bad, seal};
use crate::git::{Hasher, Id};

/// How many bytes of bases are kept.
const CACHE: usize = 48 << 20;

/// Finds an object that the pack has not: in the repository that it goes to.
pub type Elsewhere<'a> = dyn FnMut(&Id) -> io::Result<Option<(Kind, Vec<u8>)>> + 'a;

/// Names all objects of the pack in `file`; returns them with the pack's checksum. Bases that are not in it are appended, so that it needs no other.
///
/// # Errors
/// `InvalidData` if a delta is broken, or its base is nowhere.
pub fn resolve(
    mut scanned: Scanned,
    file: &File,
    elsewhere: &mut Elsewhere<'_>,
) -> io::Result<(Vec<Entry>, Id)> {
    let mut waiting = Waiting::of(&scanned.objects);
    let mut located: HashMap<u64, u64> = HashMap::new();
    let mut cache = Cache::new(CACHE);
    let mut stack: Vec<u32> = vec![];
    // Those that are named from the start: the others come up once, from these.
    let named = (0u32..).zip(&scanned.objects).filter_map(|(number, object)| match object.state {
        State::Named(id) => Some((number, object.offset, id)),
        State::Delta(_) | State::Reference(_) => None,
    });
    for (number, offset, id) in named.collect::<Vec<_>>() {
        waiting.release(number, offset, &id, &mut stack, &mut located, &scanned.objects);
        unfold(&mut scanned, file, &mut waiting, &mut stack, &mut located, &mut cache)?;
    }
    let (before, checksum) = (scanned.objects.len(), scanned.checksum);
    let mut bases: Vec<Id> = waiting.by_name.keys().copied().collect();
    bases.sort_unstable();
    for base in bases {
        // Another base that was found may have made it known meanwhile.
        if !waiting.by_name.contains_key(&base) {
            continue;
        }
        let Some((kind, content)) = elsewhere(&base)? else { continue };
        let object = append(file, scanned.end, kind, &content, base)?;
        let (number, offset) = (scanned.objects.len() as u32, object.0.offset);
        scanned.objects.push(object.0);
        scanned.end = object.1;
        waiting.release(number, offset, &base, &mut stack, &mut located, &scanned.objects);
        unfold(&mut scanned, file, &mut waiting, &mut stack, &mut located, &mut cache)?;
    }
    let checksum = match scanned.objects.len() {
        same if same == before => checksum,
        more => seal(file, scanned.format, more, scanned.end)?,
    };
    let entries = scanned.objects.iter().map(|object| match object.state {
        State::Named(id) => Ok(Entry { offset: object.offset, crc: object.crc, id }),
        State::Reference(base) => Err(bad(format!("the base {base} of a delta is missing"))),
        State::Delta(_) => Err(bad("a delta's base is a delta without one")),
    });
    Ok((entries.collect::<io::Result<_>>()?, checksum))
}

/// Deltas by what they wait for.
struct Waiting {
    /// (base's number, delta's number), sorted.
    by_number: Vec<(u32, u32)>,
    by_name: HashMap<Id, Vec<u32>>,
}

impl Waiting {
    fn of(objects: &[Object]) -> Self {
        let mut waiting = Self { by_number: vec![], by_name: HashMap::new() };
        for (number, object) in (0u32..).zip(objects) {
            match object.state {
                State::Named(_) => {}
                State::Delta(base) => waiting.by_number.push((base, number)),
                State::Reference(id) => waiting.by_name.entry(id).or_default().push(number),
            }
        }
        waiting.by_number.sort_unstable();
        waiting
    }

    /// Puts those on the stack that wait for the object with this number and name.
    fn release(
        &mut self,
        number: u32,
        offset: u64,
        id: &Id,
        stack: &mut Vec<u32>,
        located: &mut HashMap<u64, u64>,
        objects: &[Object],
    ) {
        let from = self.by_number.partition_point(|(base, _)| *base < number);
        stack.extend(
            self.by_number[from..].iter().take_while(|(base, _)| *base == number).map(|(_, delta)| delta),
        );
        for delta in self.by_name.remove(id).unwrap_or_default() {
            located.insert(objects[delta as usize].offset, offset);
            stack.push(delta);
        }
    }
}

/// Names what is on the stack, and all that waits for it.
fn unfold(
    scanned: &mut Scanned,
    file: &File,
    waiting: &mut Waiting,
    stack: &mut Vec<u32>,
    located: &mut HashMap<u64, u64>,
    cache: &mut Cache,
) -> io::Result<()> {
    let pack = Pack { file, format: scanned.format, number: 0 };
    while let Some(number) = stack.pop() {
        let offset = scanned.objects[number as usize].offset;
        let (kind, content) = pack.content(offset, cache, &|at, _| Ok(located.get(&at).copied()))?;
        let mut hasher = Hasher::object(scanned.format, kind.name(), content.len() as u64);
        hasher.update(&content);
        let id = hasher.finish();
        scanned.objects[number as usize].state = State::Named(id);
        waiting.release(number, offset, &id, stack, located, &scanned.objects);
    }
    Ok(())
}

/// Writes an object behind the last one. Returns it, and where it ends.
fn append(file: &File, at: u64, kind: Kind, content: &[u8], id: Id) -> io::Result<(Object, u64)> {
    let mut encoder = ZlibEncoder::new(head(kind, content.len() as u64), Compression::fast());
    encoder.write_all(content)?;
    let bytes = encoder.finish()?;
    file.write_all_at(&bytes, at)?;
    let mut crc = Crc::new();
    crc.update(&bytes);
    Ok((Object { offset: at, crc: crc.sum(), state: State::Named(id) }, at + bytes.len() as u64))
}
