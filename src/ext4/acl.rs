//! POSIX access control lists. System calls, and so tar, show them in one form (kernel: include/uapi/linux/posix_acl_xattr.h,
//! version 2, eight bytes an entry); ext4 keeps them in another (fs/ext4/acl.h, version 1), where only named users and groups
//! have an id.

const SHOWN: u32 = 2;
const KEPT: u32 = 1;
const ENTRY: usize = 8;

const USER_OBJ: u16 = 0x01;
const USER: u16 = 0x02;
const GROUP_OBJ: u16 = 0x04;
const GROUP: u16 = 0x08;
const MASK: u16 = 0x10;
const OTHER: u16 = 0x20;

/// The list as ext4 keeps it; None: it is none.
pub fn on_disk(shown: &[u8]) -> Option<Vec<u8>> {
    let (version, entries) = shown.split_first_chunk::<4>()?;
    if u32::from_le_bytes(*version) != SHOWN || entries.is_empty() || !entries.len().is_multiple_of(ENTRY) {
        return None;
    }
    let mut kept = KEPT.to_le_bytes().to_vec();
    for entry in entries.chunks_exact(ENTRY) {
        let (tag, permissions) =
            (u16::from_le_bytes([entry[0], entry[1]]), u16::from_le_bytes([entry[2], entry[3]]));
        if permissions > 7 {
            return None;
        }
        match tag {
            USER_OBJ | GROUP_OBJ | MASK | OTHER => kept.extend(&entry[..4]),
            USER | GROUP => kept.extend(entry),
            _ => return None,
        }
    }
    Some(kept)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_named_users_and_groups_keep_an_id() {
        let shown =
            b"\x02\0\0\0\x01\0\x06\0\xff\xff\xff\xff\x02\0\x04\0\xe8\x03\0\0\x04\0\x04\0\xff\xff\xff\xff\
                      \x10\0\x04\0\xff\xff\xff\xff\x20\0\0\0\xff\xff\xff\xff";
        let kept = b"\x01\0\0\0\x01\0\x06\0\x02\0\x04\0\xe8\x03\0\0\x04\0\x04\0\x10\0\x04\0\x20\0\0\0";
        assert_eq!(on_disk(shown).as_deref(), Some(kept.as_slice()));
        let table: [&[u8]; 6] = [
            b"",
            b"\x02\0\0\0",
            b"\x01\0\0\0\x01\0\x06\0\0\0\0\0",
            b"\x02\0\0\0\x01\0\x06\0",
            b"\x02\0\0\0\x03\0\x06\0\0\0\0\0",
            b"\x02\0\0\0\x01\0\x09\0\0\0\0\0",
        ];
        for bad in table {
            assert_eq!(on_disk(bad), None, "{}", bad.escape_ascii());
        }
    }
}
