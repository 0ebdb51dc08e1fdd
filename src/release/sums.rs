//! SHA256SUMS: the digests of a release's files, as sha256sum(1) writes them: `DIGEST  NAME`, `DIGEST *NAME`, or `SHA256 (NAME) = DIGEST`.

use std::collections::BTreeMap;
use std::fmt;

/// The longest SHA256SUMS, in bytes.
pub const MAX_SUMS: u64 = 16 << 10;

/// A SHA-256 in 64 lower-case hexadecimal digits.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Sha256(String);

impl Sha256 {
    pub fn of_bytes(digest: &[u8; 32]) -> Self {
        Self(digest.iter().map(|b| format!("{b:02x}")).collect())
    }

    fn parse(text: &str) -> Option<Self> {
        let hex = text.len() == 64 && text.bytes().all(|b| b.is_ascii_hexdigit());
        hex.then(|| Self(text.to_ascii_lowercase()))
    }
}

impl fmt::Display for Sha256 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// What each name stands for.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Sums(BTreeMap<String, Sha256>);

/// Why a text is no SHA256SUMS; lines are counted from 1.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum BadSums {
    Line(usize),
    /// A name with two digests.
    Twice(usize),
}

impl Sums {
    pub fn parse(text: &str) -> Result<Self, BadSums> {
        let mut sums = BTreeMap::new();
        for (number, line) in text.lines().enumerate().map(|(i, line)| (i + 1, line)) {
            let line = line.trim_end_matches('\r');
            if line.trim().is_empty() || line.starts_with('#') {
                continue;
            }
            let (name, digest) = gnu(line).or_else(|| bsd(line)).ok_or(BadSums::Line(number))?;
            match sums.insert(name.to_owned(), digest.clone()) {
                Some(other) if other != digest => return Err(BadSums::Twice(number)),
                _ => {}
            }
        }
        Ok(Self(sums))
    }

    pub fn get(&self, name: &str) -> Option<&Sha256> {
        self.0.get(name)
    }
}

fn gnu(line: &str) -> Option<(&str, Sha256)> {
    let (digest, rest) = line.split_at_checked(64)?;
    // The second character says whether it was read as text or as binary, which is the same here.
    let name = rest.strip_prefix("  ").or_else(|| rest.strip_prefix(" *"))?;
    Some((plain(name)?, Sha256::parse(digest)?))
}

fn bsd(line: &str) -> Option<(&str, Sha256)> {
    let (name, digest) = line.strip_prefix("SHA256 (")?.rsplit_once(") = ")?;
    Some((plain(name)?, Sha256::parse(digest)?))
}

/// A name that needs no escapes (sha256sum(1)), and is in no directory.
fn plain(name: &str) -> Option<&str> {
    let fine = !name.is_empty()
        && name.trim() == name
        && !name.contains(|c: char| c.is_control() || c == '/' || c == '\\');
    fine.then_some(name)
}

impl fmt::Display for BadSums {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Line(n) => write!(f, "line {n} of it is no digest with a file's name"),
            Self::Twice(n) => write!(f, "line {n} of it gives a file a second digest"),
        }
    }
}

impl std::error::Error for BadSums {}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const A: &str = "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa";
    const B: &str = "BBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBB";

    #[test]
    fn both_forms_are_read_and_digests_are_lower_case() {
        let text = format!(
            "# of v0.2.0\n\n{A}  one.tar.gz\r\n{B} *two\nSHA256 (three (3)) = {B}\n{A}  one.tar.gz\n"
        );
        let sums = Sums::parse(&text).expect("sums");
        for (name, digest) in
            [("one.tar.gz", A), ("two", &B.to_lowercase()), ("three (3)", &B.to_lowercase())]
        {
            assert_eq!(sums.get(name).map(ToString::to_string).as_deref(), Some(digest));
        }
        assert_eq!(sums.get("four"), None);
        assert_eq!(Sums::parse(""), Ok(Sums::default()));
    }

    #[test]
    fn a_line_that_is_neither_is_named() {
        for bad in [
            format!("{A} one"),
            A.to_owned(),
            format!("{A}  "),
            format!("{}  one", &A[1..]),
            format!("g{}  one", &A[1..]),
            format!("{A}  ../one"),
            format!("\\{A}  one\\nx"),
            format!("{A}   one"),
            format!("SHA256 (one) = {}", &A[1..]),
            format!("SHA512 (one) = {A}"),
            format!("SHA256 () = {A}"),
            "hello".to_owned(),
            "é".repeat(40),
        ] {
            assert_eq!(Sums::parse(&format!("#\n{bad}\n")), Err(BadSums::Line(2)), "{bad}");
        }
        assert_eq!(Sums::parse(&format!("{A}  one\n{B}  one\n")), Err(BadSums::Twice(2)));
    }

    proptest! {
        #[test]
        fn what_is_read_is_what_was_written(name in "[a-zA-Z0-9._+-]{1,40}", digest in prop::array::uniform32(any::<u8>()), form in 0..3u8) {
            let sha256 = Sha256::of_bytes(&digest);
            let line = match form {
                0 => format!("{sha256}  {name}\n"),
                1 => format!("{sha256} *{name}\n"),
                _ => format!("SHA256 ({name}) = {sha256}\n"),
            };
            let sums = Sums::parse(&line).expect("a line");
            prop_assert_eq!(sums.get(&name), Some(&sha256));
        }

        #[test]
        fn any_text_is_read_or_refused(text in "\\PC{0,200}|[0-9a-f \n*()=SHA256]{0,200}") {
            drop(Sums::parse(&text));
        }
    }
}
