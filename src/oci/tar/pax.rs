//! PAX extended headers (POSIX.1 pax, "pax Extended Header"): records `LENGTH KEY=VALUE\n`.

use std::collections::BTreeMap;

use crate::ext4::tree::Time;
use crate::oci::tar::sparse::Records as Sparse;

/// The records that matter here; a record with an empty value is as if it were not there.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Records {
    pub path: Option<Vec<u8>>,
    pub link: Option<Vec<u8>>,
    pub size: Option<u64>,
    pub uid: Option<u64>,
    pub gid: Option<u64>,
    pub mtime: Option<Time>,
    pub xattrs: BTreeMap<Vec<u8>, Vec<u8>>,
    pub sparse: Sparse,
}

const XATTR: &[u8] = b"SCHILY.xattr.";
const SPARSE: &[u8] = b"GNU.sparse.";
/// ext4's own limits on a name and, without the ea_inode feature, near enough on all of an inode's attributes.
const MAX_XATTR_NAME: usize = 255;
const MAX_XATTRS: usize = 64 << 10;

/// Parses the records. A record is taken by its length, since a value may hold anything, newlines too.
pub fn parse(mut data: &[u8]) -> Result<Records, &'static str> {
    const MALFORMED: &str = "has a malformed PAX record";
    let mut records = Records::default();
    let mut xattr_bytes = 0;
    while !data.is_empty() {
        // Some writers pad with zeros.
        if data.iter().all(|b| *b == 0) {
            break;
        }
        let space = data.iter().take(20).position(|b| *b == b' ').ok_or(MALFORMED)?;
        let length: usize = number(&data[..space]).and_then(|n| usize::try_from(n).ok()).ok_or(MALFORMED)?;
        let record = data.get(space + 1..length).ok_or(MALFORMED)?;
        let record = record.strip_suffix(b"\n").ok_or(MALFORMED)?;
        let equals = record.iter().position(|b| *b == b'=').ok_or(MALFORMED)?;
        let (key, value) = (&record[..equals], &record[equals + 1..]);
        data = &data[length..];
        if let Some(name) = key.strip_prefix(XATTR) {
            xattr_bytes += name.len() + value.len();
            if name.is_empty() || name.len() > MAX_XATTR_NAME || name.contains(&0) {
                return Err("has an extended attribute with a bad name");
            }
            if xattr_bytes > MAX_XATTRS {
                return Err("has more than 64 KiB of extended attributes");
            }
            records.xattrs.insert(name.to_vec(), value.to_vec());
        } else if let Some(name) = key.strip_prefix(SPARSE) {
            records.sparse.add(name, value)?;
        } else if !value.is_empty() {
            plain(&mut records, key, value).ok_or("has a PAX record with a bad value")?;
        }
    }
    Ok(records)
}

/// None: the value is not as the key wants it.
fn plain(records: &mut Records, key: &[u8], value: &[u8]) -> Option<()> {
    let name = |value: &[u8]| (!value.contains(&0)).then(|| value.to_vec());
    match key {
        b"path" => records.path = Some(name(value)?),
        b"linkpath" => records.link = Some(name(value)?),
        b"size" => records.size = Some(number(value)?),
        b"uid" => records.uid = Some(number(value)?),
        b"gid" => records.gid = Some(number(value)?),
        b"mtime" => records.mtime = Some(time(value)?),
        _ => {}
    }
    Some(())
}

/// Decimal digits only; `str::parse` would take a sign.
pub fn number(text: &[u8]) -> Option<u64> {
    let digits = !text.is_empty() && text.iter().all(u8::is_ascii_digit);
    if digits { std::str::from_utf8(text).ok()?.parse().ok() } else { None }
}

/// `-12.5`: seconds, with a fraction of any length.
fn time(text: &[u8]) -> Option<Time> {
    let (negative, text) = match text.strip_prefix(b"-") {
        Some(rest) => (true, rest),
        None => (false, text),
    };
    let mut parts = text.splitn(2, |b| *b == b'.');
    let seconds = i64::try_from(number(parts.next()?)?).ok()?;
    let fraction = parts.next().unwrap_or_default();
    if !fraction.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let nanoseconds = (0..9).fold(0, |n, i| n * 10 + u32::from(fraction.get(i).map_or(0, |b| b - b'0')));
    Some(match (negative, nanoseconds) {
        (false, _) => Time { seconds, nanoseconds },
        (true, 0) => Time { seconds: -seconds, nanoseconds: 0 },
        // A fraction counts upwards from the second before.
        (true, n) => Time { seconds: -seconds - 1, nanoseconds: 1_000_000_000 - n },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(key: &str, value: &[u8]) -> Vec<u8> {
        let body = key.len() + value.len() + 3;
        let mut length = body + 1;
        while length != body + length.to_string().len() {
            length = body + length.to_string().len();
        }
        [format!("{length} {key}=").as_bytes(), value, b"\n"].concat()
    }

    #[test]
    fn a_value_may_hold_newlines_and_equals_signs() {
        let value = b"\x01\n\n=\0x";
        let data = [record("SCHILY.xattr.security.capability", value), record("path", b"a=b\nc")].concat();
        let records = parse(&data).expect("parses");
        assert_eq!(records.xattrs[b"security.capability".as_slice()], value);
        assert_eq!(records.path.as_deref(), Some(b"a=b\nc".as_slice()));
    }

    #[test]
    fn times_have_fractions_and_may_lie_before_1970() {
        let table = [
            ("12", Some((12, 0))),
            ("12.5", Some((12, 500_000_000))),
            ("12.0000000019", Some((12, 1))),
            ("-12", Some((-12, 0))),
            ("-12.25", Some((-13, 750_000_000))),
            ("-", None),
            ("1.2.3", None),
            ("+1", None),
        ];
        for (text, want) in table {
            let want = want.map(|(seconds, nanoseconds)| Time { seconds, nanoseconds });
            assert_eq!(time(text.as_bytes()), want, "{text}");
        }
    }

    #[test]
    fn malformed_records_are_refused() {
        let table: [&[u8]; 9] = [
            b"x",
            b"5 a=",
            b"999 a=b\n",
            b"6 a=bb",
            b"0 a=b\n",
            b"6 abcd\n",
            b"10 size=-1\n",
            b"13 path=a\0bc\n",
            b"99999999999999999999999 a=b\n",
        ];
        for data in table {
            assert!(parse(data).is_err(), "{}", data.escape_ascii());
        }
        assert!(parse(&record("SCHILY.xattr.user.x", &vec![0; 70_000])).is_err());
    }
}
