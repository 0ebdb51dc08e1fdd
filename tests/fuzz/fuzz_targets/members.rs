//! Tar archives of every order and kind of member.

use arbitrary::Arbitrary;
use tar::{Builder, EntryType, Header};

/// Few names, so that members meet each other.
#[derive(Arbitrary, Debug, Clone, Copy)]
enum Name {
    A,
    B,
    C,
    Dot,
    DotDot,
    Whiteout,
    Opaque,
    Odd(u8),
    Long,
}

#[derive(Arbitrary, Debug)]
enum Kind {
    File(u16),
    /// A hole, then data.
    Directory,
    Symlink(Path),
    HardLink(Path),
    Device(u32, u32),
    Fifo,
}

#[derive(Arbitrary, Debug)]
struct Path {
    from_root: bool,
    names: [Option<Name>; 4],
}

#[derive(Arbitrary, Debug)]
pub struct Member {
    path: Path,
    kind: Kind,
    owner: u32,
    mode: u16,
    time: i64,
    xattr: Option<(u8, u16)>,
}

fn bytes(path: &Path) -> Vec<u8> {
    let names = path.names.iter().flatten().map(|name| match name {
        Name::A => b"a".to_vec(),
        Name::B => b"b".to_vec(),
        Name::C => b"c".to_vec(),
        Name::Dot => b".".to_vec(),
        Name::DotDot => b"..".to_vec(),
        Name::Whiteout => b".wh.a".to_vec(),
        Name::Opaque => b".wh..wh..opq".to_vec(),
        Name::Odd(byte) => vec![b'x', (*byte).max(1)],
        Name::Long => vec![b'n'; 60],
    });
    let joined = names.collect::<Vec<_>>().join(&b'/');
    if path.from_root { [b"/".to_vec(), joined].concat() } else { joined }
}

pub fn archive(members: &[Member]) -> Vec<u8> {
    let mut builder = Builder::new(vec![]);
    for member in members {
        if let Some((name, len)) = member.xattr {
            let key = format!(
                "SCHILY.xattr.{}",
                ["user.x", "security.y", "strange", "system.posix_acl_access"][name as usize % 4]
            );
            let value = vec![b'v'; usize::from(len) % 6000];
            builder.append_pax_extensions([(key.as_str(), value.as_slice())]).expect("appends");
        }
        let mut header = Header::new_gnu();
        header.set_mode(u32::from(member.mode));
        header.set_uid(u64::from(member.owner));
        header.set_gid(u64::from(member.owner / 3));
        header.set_mtime(member.time as u64);
        header.set_size(0);
        let none = Path { from_root: false, names: [None; 4] };
        let (kind, link, size) = match &member.kind {
            Kind::File(size) => (EntryType::Regular, &none, usize::from(*size)),
            Kind::Directory => (EntryType::Directory, &none, 0),
            Kind::Symlink(to) => (EntryType::Symlink, to, 0),
            Kind::HardLink(to) => (EntryType::Link, to, 0),
            Kind::Device(major, minor) => {
                header.set_device_major(*major % 5000).expect("fits");
                header.set_device_minor(*minor % 1_200_000).expect("fits");
                (EntryType::Char, &none, 0)
            }
            Kind::Fifo => (EntryType::Fifo, &none, 0),
        };
        header.set_entry_type(kind);
        header.set_size(size as u64);
        for (field, text) in [(0, bytes(&member.path)), (157, bytes(link))] {
            let len = text.len().min(100);
            header.as_mut_bytes()[field..field + len].copy_from_slice(&text[..len]);
        }
        header.set_cksum();
        builder.append(&header, vec![b'd'; size].as_slice()).expect("appends");
    }
    builder.into_inner().expect("finishes")
}
