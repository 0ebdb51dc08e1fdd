//! What a guest sends to be copied: an archive of every order and kind of member, in frames, or any bytes in the place of either. It is unpacked or
//! refused; nothing outside of the directory is touched, and nothing in it has a right that it ought not to have.
#![no_main]

mod members;

use std::fs;
use std::io::Write;
use std::os::unix::fs::{FileTypeExt, MetadataExt, symlink};
use std::os::unix::net::UnixStream;
use std::path::Path;

use arbitrary::Arbitrary;
use banger::copy::{Destination, Incoming, unpack};
use banger::proto::frame::{Frame, Kind};
use members::{Member, archive};

#[derive(Arbitrary, Debug)]
struct Sent {
    /// Into the directory, over it, or beside what is in it.
    to: Option<bool>,
    what: What,
    piece: u16,
    whole: bool,
}

#[derive(Arbitrary, Debug)]
enum What {
    Members(Vec<Member>),
    Tar(Vec<u8>),
    Frames(Vec<u8>),
}

libfuzzer_sys::fuzz_target!(|sent: Sent| {
    let place = tempfile::tempdir_in("/dev/shm").expect("a directory");
    let (base, outside) = (place.path().join("base"), place.path().join("outside"));
    for directory in [&base, &outside, &base.join("a")] {
        fs::create_dir(directory).expect("creates");
    }
    // Names of members, which lead out.
    fs::write(outside.join("b"), "theirs").expect("writes");
    symlink(&outside, base.join("b")).expect("links");
    symlink("../../outside", base.join("a/a")).expect("links");
    symlink(outside.join("b"), base.join("c")).expect("links");
    let to = match sent.to {
        None => Destination::find(path(&base), false),
        Some(false) => Destination::find(path(&base), true),
        Some(true) => Destination::find(path(&base.join("d")), false),
    };
    let to = to.expect("a destination");
    let theirs = || {
        let meta = fs::metadata(outside.join("b")).expect("is there");
        (
            meta.ino(),
            meta.nlink(),
            meta.uid(),
            meta.mode(),
            meta.mtime(),
            fs::read(outside.join("b")).expect("reads"),
        )
    };
    let before = theirs();
    let bytes = frames(&sent);
    let (near, mut far) = UnixStream::pair().expect("a pair");
    std::thread::scope(|scope| {
        let mut rest = near.try_clone().expect("a descriptor");
        scope.spawn(move || far.write_all(&bytes).expect("writes"));
        drop(unpack(&mut Incoming::new(near.into(), |_| {}), &to));
        // Else it would get a SIGPIPE.
        std::io::copy(&mut rest, &mut std::io::sink()).expect("reads");
    });
    assert_eq!(theirs(), before);
    assert_eq!(fs::read_dir(&outside).expect("reads").count(), 1);
    assert_eq!(fs::read_dir(place.path()).expect("reads").count(), 2);
    harmless(&base);
});

fn frames(sent: &Sent) -> Vec<u8> {
    let tar = match &sent.what {
        What::Members(members) => &archive(members),
        What::Tar(bytes) => bytes,
        What::Frames(bytes) => return bytes.clone(),
    };
    let pieces = tar.chunks(usize::from(sent.piece) + 1).map(|piece| Frame::new(Kind::Data, piece).bytes());
    let end = Frame::new(if sent.whole { Kind::Eof } else { Kind::Failed }, []).bytes();
    pieces.chain([end]).collect::<Vec<_>>().concat()
}

fn path(path: &Path) -> &str {
    path.to_str().expect("UTF-8")
}

/// No device, and no setuid or setgid bit.
fn harmless(directory: &Path) {
    for entry in fs::read_dir(directory).expect("reads") {
        let path = entry.expect("an entry").path();
        let meta = fs::symlink_metadata(&path).expect("is there");
        let kind = meta.file_type();
        assert!(!kind.is_block_device() && !kind.is_char_device(), "{}", path.display());
        assert!(kind.is_symlink() || meta.mode() & 0o6000 == 0, "{}", path.display());
        if kind.is_dir() {
            harmless(&path);
        }
    }
}
