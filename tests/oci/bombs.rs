//! Layers that are small and become large (A6): what an import takes of this machine stays bounded. Each is imported in a
//! process of its own, which looks at the most memory that it ever had.

use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;

use banger::host::progress::Silent;
use banger::oci::{self, Input};
use ring::digest::{Context, SHA256};

use crate::made::*;
use crate::support::*;

const MIB: u64 = 1 << 20;
/// What an import may take, a debug build with its test runner: independent of how long a layer is.
const USUAL: u64 = 96 * MIB;
/// Where names and attributes themselves are the bomb, they are kept in memory up to a limit.
const WITH_METADATA: u64 = 640 * MIB;
/// And where a zstd frame asks for a window, up to that of zstd's own default limit (128 MiB).
const WITH_WINDOW: u64 = USUAL + 128 * MIB;

/// A layer that is written to a blob as it is made, so that it is never in memory as a whole.
struct Bomb {
    dir: PathBuf,
    blob: File,
    packed: Context,
    packed_len: u64,
    diff: Context,
}

impl Bomb {
    fn new(dir: PathBuf) -> Self {
        Layout::new(dir.clone());
        let blob = File::create(dir.join("blobs/sha256/bomb")).expect("creates");
        Self { dir, blob, packed: Context::new(&SHA256), packed_len: 0, diff: Context::new(&SHA256) }
    }

    /// `tar`, gzipped, so many times: gzip members one after another are one stream.
    fn times(&mut self, tar: &[u8], times: usize) -> &mut Self {
        let packed = Packing::Gzip(1).pack(tar);
        for _ in 0..times {
            self.raw(&packed, tar);
        }
        self
    }

    /// Packed bytes as they are, and what they unpack to.
    fn raw(&mut self, packed: &[u8], tar: &[u8]) -> &mut Self {
        self.blob.write_all(packed).expect("writes");
        self.packed.update(packed);
        self.packed_len += packed.len() as u64;
        self.diff.update(tar);
        self
    }

    /// Completes the layout. Returns where it is, and the layer's digest.
    fn finish(self) -> (PathBuf, String) {
        let hex = |context: Context| -> String {
            let hash = context.finish();
            format!("sha256:{}", hash.as_ref().iter().map(|b| format!("{b:02x}")).collect::<String>())
        };
        let (digest, diff_id) = (hex(self.packed), hex(self.diff));
        let layout = Layout { dir: self.dir };
        std::fs::rename(layout.dir.join("blobs/sha256/bomb"), layout.blob_path(&digest)).expect("renames");
        let config = format!(
            r#"{{"architecture":"{ARCH}","os":"linux","rootfs":{{"type":"layers","diff_ids":["{diff_id}"]}}}}"#
        );
        let manifest = format!(
            r#"{{"schemaVersion":2,"mediaType":"{MANIFEST}","config":{}}},"layers":[{{"mediaType":"{LAYER}","digest":"{digest}","size":{}}}]}}"#,
            layout.blob(CONFIG, config.as_bytes()),
            self.packed_len
        );
        let manifest = layout.blob(MANIFEST, manifest.as_bytes());
        layout.index(&[manifest]);
        (layout.dir, digest)
    }
}

/// Imports the layout in a process of its own. `outcome` is empty, or what the error must say beside the layer's digest.
fn goes_off(name: &str, bomb: Bomb, outcome: &str, bound: u64) {
    let (layout, digest) = bomb.finish();
    let mut child = Command::new(std::env::current_exe().expect("a path"));
    let words = [text(&layout), &digest, outcome, &bound.to_string()];
    run_child(child.args(["--include-ignored", "--nocapture"]), &format!("bombs::{name}"), &words);
}

/// In the process of its own: imports, and checks.
fn imports([layout, digest, outcome, bound]: [String; 4]) {
    let bench = Bench::new();
    let input = Input::Path(Path::new(&layout).to_owned());
    let result = oci::import(input, &bench.settings, &bench.out(), &Silent);
    let peak = peak_memory();
    println!("peak memory: {} MiB", peak / MIB);
    match bench.finish(result) {
        Ok(_) => assert_eq!(outcome, "", "it was imported"),
        Err(e) => {
            let error = chain(&e);
            let said = !outcome.is_empty() && error.contains(&outcome) && error.contains(&digest);
            assert!(said, "'{outcome}' is not in: {error}");
        }
    }
    let bound: u64 = bound.parse().expect("a number");
    assert!(peak <= bound, "{} MiB were taken, more than {}", peak / MIB, bound / MIB);
}

/// The most that this process ever had resident, in bytes (proc_pid_status(5)).
fn peak_memory() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").expect("reads");
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).expect("is there");
    line.trim().trim_end_matches(" kB").parse::<u64>().expect("a number") * 1024
}

fn header_of(path: &str, size: u64) -> Vec<u8> {
    let mut tar = Tar::default();
    tar.add(member_of(FILE, path));
    let mut block: [u8; 512] = tar.finish()[..512].try_into().expect("a header");
    block[124..135].copy_from_slice(format!("{size:011o}").as_bytes());
    tar.raw(block);
    let bytes = tar.finish();
    bytes[..512].to_owned()
}

#[test]
#[ignore = "takes a while; run by tests/run.sh"]
fn a_gigabyte_of_zeros_in_a_megabyte_takes_no_memory_and_no_disk() {
    const NAME: &str = "a_gigabyte_of_zeros_in_a_megabyte_takes_no_memory_and_no_disk";
    if let Some(words) = child_words() {
        return imports(words);
    }
    let bench = Bench::new();
    let mut bomb = Bomb::new(bench.path("l"));
    bomb.times(&header_of("zeros", 1 << 30), 1).times(&vec![0; 16 << 20], 64).times(&[0; 1024], 1);
    goes_off(NAME, bomb, "", USUAL);
}

#[test]
#[ignore = "takes a while; run by tests/run.sh"]
fn a_gigabyte_of_padding_behind_the_archive_takes_no_memory() {
    const NAME: &str = "a_gigabyte_of_padding_behind_the_archive_takes_no_memory";
    if let Some(words) = child_words() {
        return imports(words);
    }
    let bench = Bench::new();
    let mut bomb = Bomb::new(bench.path("l"));
    bomb.times(&tar_of([member_of(FILE, "file")]), 1).times(&vec![0; 16 << 20], 64);
    goes_off(NAME, bomb, "", USUAL);
}

#[test]
#[ignore = "takes a while; run by tests/run.sh"]
fn extended_headers_that_say_nothing_take_no_memory() {
    const NAME: &str = "extended_headers_that_say_nothing_take_no_memory";
    if let Some(words) = child_words() {
        return imports(words);
    }
    let bench = Bench::new();
    let mut bomb = Bomb::new(bench.path("l"));
    // Records of five bytes, as many as go into 900 KiB, before each of 60 members.
    let records = b"5 a=\n".repeat(180_000);
    let mut tar = Tar::default();
    tar.add(member_of(tar::EntryType::XHeader, "pax").data(&records)).add(member_of(FILE, "file"));
    let tar = tar.finish();
    bomb.times(&tar[..tar.len() - 1024], 60).times(&[0; 1024], 1);
    goes_off(NAME, bomb, "", USUAL);
}

#[test]
#[ignore = "takes a while; run by tests/run.sh"]
fn attributes_without_end_are_refused_in_bounded_memory() {
    const NAME: &str = "attributes_without_end_are_refused_in_bounded_memory";
    if let Some(words) = child_words() {
        return imports(words);
    }
    let bench = Bench::new();
    let mut bomb = Bomb::new(bench.path("l"));
    let value = [b'x'; 3000];
    for part in 0..200 {
        let mut tar = Tar::default();
        for n in 0..1000 {
            tar.add(member_of(FILE, format!("{part}-{n}")).xattr("user.x", &value));
        }
        let tar = tar.finish();
        bomb.times(&tar[..tar.len() - 1024], 1);
    }
    bomb.times(&[0; 1024], 1);
    goes_off(NAME, bomb, "names and attributes", WITH_METADATA);
}

#[test]
#[ignore = "takes a while; run by tests/run.sh"]
fn members_without_end_are_refused_in_bounded_memory() {
    const NAME: &str = "members_without_end_are_refused_in_bounded_memory";
    if let Some(words) = child_words() {
        return imports(words);
    }
    let bench = Bench::new();
    let mut tar = Tar::default();
    for n in 0..4096 {
        tar.add(member_of(FILE, format!("000/{n}")));
    }
    let mut part = tar.finish();
    part.truncate(part.len() - 1024);
    let last = tar_of([member_of(FILE, "one more")]);

    // Those that replace each other are no more than the last of them.
    let mut same = Bomb::new(bench.path("same"));
    same.times(&part, 64).times(&last, 1);
    goes_off(NAME, same, "", USUAL);

    // One more than 2^20, in 2^8 parts of 2^12.
    let mut other = Bomb::new(bench.path("other"));
    for n in 0..256 {
        renumber(&mut part, n);
        other.times(&part, 1);
    }
    other.times(&last, 1);
    goes_off(NAME, other, "more than 1048576 members", WITH_METADATA);
}

/// Writes three digits to the beginning of each member's name; making that many members anew would take minutes.
fn renumber(tar: &mut [u8], number: u32) {
    let digits = format!("{number:03}");
    let sum = |text: &[u8]| text.iter().map(|b| u32::from(*b)).sum::<u32>();
    for header in tar.chunks_exact_mut(512) {
        let had =
            std::str::from_utf8(&header[148..154]).ok().and_then(|text| u32::from_str_radix(text, 8).ok());
        let now = had.expect("a sum") - sum(&header[..3]) + sum(digits.as_bytes());
        header[..3].copy_from_slice(digits.as_bytes());
        header[148..154].copy_from_slice(format!("{now:06o}").as_bytes());
    }
}

/// A zstd frame of raw blocks that wants a window of 2^`log` bytes (RFC 8878, 3.1.1).
fn zstd_frame(log: u8, blocks: &[Vec<u8>]) -> Vec<u8> {
    let mut frame = vec![0x28, 0xb5, 0x2f, 0xfd, 0, (log - 10) << 3];
    for (n, block) in blocks.iter().enumerate() {
        let last = u32::from(n + 1 == blocks.len());
        let size = u32::try_from(block.len()).expect("a block is small");
        frame.extend(&(last | size << 3).to_le_bytes()[..3]);
        frame.extend(block);
    }
    frame
}

#[test]
#[ignore = "takes a while; run by tests/run.sh"]
fn zstd_windows_are_refused_or_bounded() {
    const NAME: &str = "zstd_windows_are_refused_or_bounded";
    if let Some(words) = child_words() {
        return imports(words);
    }
    let bench = Bench::new();
    let mut noise = Noise(3);
    let data = noise.bytes(200 << 20);
    let tar = [header_of("noise", data.len() as u64), data, vec![0; 1024]].concat();
    let blocks: Vec<Vec<u8>> = tar.chunks(128 << 10).map(<[u8]>::to_vec).collect();
    for (log, outcome) in [(21, ""), (27, ""), (31, "cannot read it")] {
        let mut bomb = Bomb::new(bench.path(&format!("l{log}")));
        bomb.raw(&zstd_frame(log, &blocks), &tar);
        goes_off(NAME, bomb, outcome, if log == 21 { USUAL } else { WITH_WINDOW });
    }
}
