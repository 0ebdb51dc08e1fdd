//! Symlinks in the tar streams of a copy, in both directions.

use std::io::{self, Read, Write};
use std::path::Path;

use tar::{Builder, EntryType, Header};

/// Appends a symlink with `target` as it is: the tar crate's own way would tidy it (`./f//x` would become `./f/x`). One
/// that is too long for the header goes before it, as GNU tar does.
pub fn append_symlink<W: Write>(
    tar: &mut Builder<W>,
    mut header: Header,
    name: &Path,
    target: &[u8],
) -> io::Result<()> {
    header.set_entry_type(EntryType::Symlink);
    if header.set_link_name_literal(target).is_err() {
        let mut long = Header::new_gnu();
        long.set_entry_type(EntryType::GNULongLink);
        long.set_size(target.len() as u64 + 1);
        long.set_mode(0o644);
        long.set_path("@LongLink")?;
        long.set_cksum();
        tar.append(&long, target.chain(&[0][..]))?;
    }
    tar.append_data(&mut header, name, io::empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_target_arrives_as_it_is_however_long() {
        for target in ["./f//x", "../a/./b/", &format!("./{}//x", "long/".repeat(40))] {
            let mut tar = Builder::new(vec![]);
            let mut header = Header::new_gnu();
            header.set_size(0);
            append_symlink(&mut tar, header, Path::new("link"), target.as_bytes()).expect("appends");
            let bytes = tar.into_inner().expect("ends");
            let mut archive = tar::Archive::new(&bytes[..]);
            let entry = archive.entries().expect("entries").next().expect("one").expect("an entry");
            assert_eq!(entry.link_name_bytes().as_deref(), Some(target.as_bytes()));
            assert_eq!(entry.path_bytes().as_ref(), b"link");
        }
    }
}
