//! The names that git gives to contents.

use std::io::{self, Read};

use crate::git::Format;
use crate::git::pack::hash_blob;

/// The id of the blob of `size` bytes that `content` gives.
///
/// # Errors
/// Those of `content`, and `UnexpectedEof` if it has another size.
pub fn id(format: Format, size: u64, content: &mut impl Read) -> io::Result<String> {
    let id = hash_blob(format, size, content, |_| Ok(()))?;
    match content.read(&mut [0])? {
        0 => Ok(id.to_string()),
        _ => Err(io::ErrorKind::UnexpectedEof.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn contents_have_the_names_that_git_gives_them() {
        // `printf 'hello\n' | git hash-object --stdin`, with and without `--object-format=sha256`.
        let table = [
            (Format::Sha1, "ce013625030ba8dba906f756967f9e9ca394464a"),
            (Format::Sha256, "2cf8d83d9ee29543b34a87727421fdecb7e3f3a183d337639025de576db9ebb4"),
        ];
        for (format, want) in table {
            assert_eq!(id(format, 6, &mut &b"hello\n"[..]).expect("reads"), want);
            id(format, 5, &mut &b"hello\n"[..]).expect_err("longer");
            id(format, 7, &mut &b"hello\n"[..]).expect_err("shorter");
        }
    }
}
