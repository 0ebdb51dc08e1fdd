//! Ids: twelve hexadecimal digits, chosen at random, never reused on purpose.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// A VM's id: 48 random bits, written as twelve lower-case hexadecimal digits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct VmId(u64);

/// The text is no id.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BadId(String);

impl VmId {
    /// The id made of the low 48 bits of `random`.
    pub fn from_random(random: u64) -> Self {
        Self(random & 0xffff_ffff_ffff)
    }

    /// A vsock context id of its own, where all VMs of a host share one number space: 31 bits of the id,
    /// clear of the reserved 0 to 2 and of VMADDR_CID_ANY (vsock(7)).
    pub fn cid(self) -> u32 {
        3 + (self.0 % 0x7fff_fff0) as u32
    }

    /// A machine-id(5) of its own, so that a guest's identity does not come from a shared image.
    pub fn machine_id(self) -> String {
        format!("ba9e5000000000000000{self}")
    }
}

impl fmt::Display for VmId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:012x}", self.0)
    }
}

impl FromStr for VmId {
    type Err = BadId;
    fn from_str(s: &str) -> Result<Self, BadId> {
        let digits = s.len() == 12 && s.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
        match u64::from_str_radix(s, 16) {
            Ok(n) if digits => Ok(Self(n)),
            _ => Err(BadId(s.to_owned())),
        }
    }
}

impl TryFrom<String> for VmId {
    type Error = BadId;
    fn try_from(s: String) -> Result<Self, BadId> {
        s.parse()
    }
}

impl From<VmId> for String {
    fn from(id: VmId) -> String {
        id.to_string()
    }
}

impl fmt::Display for BadId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} is no id; an id has twelve digits of 0-9 and a-f", self.0)
    }
}

impl std::error::Error for BadId {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_is_twelve_hexadecimal_digits_and_reads_back() {
        let id = VmId::from_random(u64::MAX - 5);
        assert_eq!(id.to_string(), "fffffffffffa");
        assert_eq!("fffffffffffa".parse(), Ok(id));
        for bad in ["", "fffffffffff", "FFFFFFFFFFFA", "+fffffffffff", "fffffffffffaa", "g00000000000"] {
            assert!(bad.parse::<VmId>().is_err(), "{bad}");
        }
    }

    #[test]
    fn a_cid_is_never_a_reserved_one() {
        for random in [0, 1, 2, 0x7fff_fff0, u64::MAX] {
            let cid = VmId::from_random(random).cid();
            assert!((3..0xffff_fff0).contains(&cid), "{cid}");
        }
    }

    #[test]
    fn a_machine_id_has_thirty_two_digits() {
        let id = VmId::from_random(7).machine_id();
        assert!(id.len() == 32 && id.bytes().all(|b| b.is_ascii_hexdigit()), "{id}");
    }
}
