//! Publishing: a port of this host that leads to one of the guest, as `[ADDR:]HOST:GUEST[/udp]`, the way docker writes it.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr};
use std::str::FromStr;

use serde::{Deserialize, Serialize};

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Protocol {
    Tcp,
    Udp,
}

/// What is published: whoever connects to `host` of `address` on this machine speaks with port `guest` of the guest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Publish {
    /// An address of this machine; the unspecified one stands for all of them.
    pub address: IpAddr,
    /// 0: any port that is free when the VM starts.
    pub host: u16,
    pub guest: u16,
    pub protocol: Protocol,
}

/// What is to be published no longer: all that has these parts. Written `[ADDR:]HOST[:GUEST][/udp]`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Unpublish {
    pub address: Option<IpAddr>,
    pub host: u16,
    pub guest: Option<u16>,
    pub protocol: Protocol,
}

/// The text says no port to publish.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum BadPublish {
    Malformed(String),
    Port(String),
    Range(String),
    GuestZero,
    Address(String),
    Protocol(String),
}

/// Why a list of ports cannot be published.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BadList {
    Twice(Publish),
    Unknown(Unpublish),
    TooMany,
}

/// Published ports are one listener each; more than this is a mistake.
pub const MOST: usize = 100;

const LOCAL: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

impl Publish {
    /// Whether the kernel gives both to one program only: an unspecified address takes the port of all addresses, and that of
    /// IPv6 those of IPv4 too (ipv6(7), IPV6_V6ONLY).
    pub fn clashes(&self, other: &Self) -> bool {
        let covers = |all: IpAddr, one: IpAddr| all.is_unspecified() && (all.is_ipv6() || one.is_ipv4());
        let one_address = self.address == other.address
            || covers(self.address, other.address)
            || covers(other.address, self.address);
        one_address && self.host == other.host && self.host != 0 && self.protocol == other.protocol
    }

    /// `127.0.0.1:8080`, as a client writes it; `/udp` is added where it is not TCP.
    pub fn place(&self) -> String {
        format!("{}:{}{}", Bracketed(self.address), self.host, self.protocol.suffix())
    }
}

impl Unpublish {
    fn means(&self, publish: &Publish) -> bool {
        self.host == publish.host
            && self.protocol == publish.protocol
            && self.address.is_none_or(|address| address == publish.address)
            && self.guest.is_none_or(|guest| guest == publish.guest)
    }
}

/// Judges what is to be published of one VM.
///
/// # Errors
/// [`BadList::Twice`], [`BadList::TooMany`].
pub fn judge(list: &[Publish]) -> Result<(), BadList> {
    if list.len() > MOST {
        return Err(BadList::TooMany);
    }
    let clash =
        |(n, one): (usize, &Publish)| list[..n].iter().any(|other| other == one || other.clashes(one));
    match list.iter().enumerate().find(|pair| clash(*pair)) {
        Some((_, twice)) => Err(BadList::Twice(*twice)),
        None => Ok(()),
    }
}

/// The list `now` without what `remove` means, and with what `add` says. `actual` gives the port that one with host port 0 has now,
/// by which it may be named too. What is there already may be added again.
///
/// # Errors
/// [`BadList`].
pub fn change(
    now: &[Publish],
    add: &[Publish],
    remove: &[Unpublish],
    actual: impl Fn(&Publish) -> Publish,
) -> Result<Vec<Publish>, BadList> {
    let meant = |un: &Unpublish, publish: &Publish| un.means(publish) || un.means(&actual(publish));
    if let Some(unknown) = remove.iter().find(|un| !now.iter().any(|publish| meant(un, publish))) {
        return Err(BadList::Unknown(*unknown));
    }
    let mut list: Vec<Publish> =
        now.iter().filter(|publish| !remove.iter().any(|un| meant(un, publish))).copied().collect();
    for publish in add {
        if !list.contains(publish) {
            list.push(*publish);
        }
    }
    judge(&list).map(|()| list)
}

impl Protocol {
    pub fn name(self) -> &'static str {
        match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
        }
    }

    fn suffix(self) -> &'static str {
        match self {
            Self::Tcp => "",
            Self::Udp => "/udp",
        }
    }

    /// What precedes `/tcp` or `/udp`, and which of them it is.
    fn split(text: &str) -> Result<(&str, Self), BadPublish> {
        match text.split_once('/') {
            None => Ok((text, Self::Tcp)),
            Some((rest, "tcp")) => Ok((rest, Self::Tcp)),
            Some((rest, "udp")) => Ok((rest, Self::Udp)),
            Some((_, other)) => Err(BadPublish::Protocol(other.to_owned())),
        }
    }
}

/// The address at the front, if there is one, and the rest: what begins with a bracket, or has a dot or letters before its first
/// colon, is no port.
fn split_address(text: &str) -> Result<(Option<IpAddr>, &str), BadPublish> {
    let parse = |address: &str| {
        let parsed: Result<IpAddr, _> = address.parse();
        parsed.map(|a| a.to_canonical()).map_err(|_| BadPublish::Address(address.to_owned()))
    };
    if let Some(inner) = text.strip_prefix('[') {
        let malformed = || BadPublish::Malformed(text.to_owned());
        let (address, rest) = inner.split_once("]:").ok_or_else(malformed)?;
        return Ok((Some(parse(address)?), rest));
    }
    match text.split_once(':') {
        Some((front, rest)) if front.is_empty() || front.contains(|c: char| !is_of_ports(c)) => {
            Ok((Some(parse(front)?), rest))
        }
        _ => Ok((None, text)),
    }
}

fn is_of_ports(c: char) -> bool {
    c.is_ascii_digit() || c == '-'
}

fn port(text: &str) -> Result<u16, BadPublish> {
    if text.contains('-') && text.chars().all(is_of_ports) {
        return Err(BadPublish::Range(text.to_owned()));
    }
    // u16's own parser would take a plus sign.
    let digits = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    text.parse().ok().filter(|_| digits).ok_or_else(|| BadPublish::Port(text.to_owned()))
}

impl FromStr for Publish {
    type Err = BadPublish;
    fn from_str(s: &str) -> Result<Self, BadPublish> {
        let (ports, protocol) = Protocol::split(s)?;
        let (address, ports) = split_address(ports)?;
        let (host, guest) = ports.split_once(':').ok_or_else(|| BadPublish::Malformed(s.to_owned()))?;
        let (host, guest) = (port(host)?, port(guest)?);
        if guest == 0 {
            return Err(BadPublish::GuestZero);
        }
        Ok(Self { address: address.unwrap_or(LOCAL), host, guest, protocol })
    }
}

impl FromStr for Unpublish {
    type Err = BadPublish;
    fn from_str(s: &str) -> Result<Self, BadPublish> {
        let (ports, protocol) = Protocol::split(s)?;
        let (address, ports) = split_address(ports)?;
        let (host, guest) = match ports.split_once(':') {
            Some((host, guest)) => (host, Some(port(guest)?)),
            None => (ports, None),
        };
        Ok(Self { address, host: port(host)?, guest, protocol })
    }
}

/// An address as it stands before a colon and a port (RFC 3986, section 3.2.2).
struct Bracketed(IpAddr);

impl fmt::Display for Bracketed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            IpAddr::V4(address) => write!(f, "{address}"),
            IpAddr::V6(address) => write!(f, "[{address}]"),
        }
    }
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// As it is typed: `127.0.0.1:8080:80`.
impl fmt::Display for Publish {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}:{}{}", Bracketed(self.address), self.host, self.guest, self.protocol.suffix())
    }
}

impl fmt::Display for Unpublish {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(address) = self.address {
            write!(f, "{}:", Bracketed(address))?;
        }
        write!(f, "{}", self.host)?;
        if let Some(guest) = self.guest {
            write!(f, ":{guest}")?;
        }
        f.write_str(self.protocol.suffix())
    }
}

impl fmt::Display for BadPublish {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Malformed(text) => write!(
                f,
                "{text:?} publishes nothing; write it like 8080:80, 0.0.0.0:8080:80 or 5353:53/udp, this host's port first"
            ),
            Self::Port(text) => write!(f, "{text:?} is no port; ports are numbers from 1 to 65535"),
            Self::Range(text) => write!(f, "{text:?} is a range of ports; give each port its own -p"),
            Self::GuestZero => {
                f.write_str("the guest's port cannot be 0; only this host's can, which means any free one")
            }
            Self::Address(text) => write!(
                f,
                "{text:?} is no address of a machine; write it like 127.0.0.1, 0.0.0.0 for all of this host's, or [::1]"
            ),
            Self::Protocol(text) => {
                write!(f, "{text:?} is no protocol that can be published; choose tcp or udp")
            }
        }
    }
}

impl std::error::Error for BadPublish {}

impl fmt::Display for BadList {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Twice(publish) => write!(f, "port {} is published twice", publish.place()),
            Self::Unknown(unpublish) => write!(f, "{unpublish} is not published"),
            Self::TooMany => write!(f, "more than {MOST} published ports are too many"),
        }
    }
}

impl std::error::Error for BadList {}

#[cfg(test)]
mod tests {
    use super::*;

    fn publish(text: &str) -> Publish {
        text.parse().expect(text)
    }

    #[test]
    fn ports_are_read_as_docker_writes_them_and_shown_in_full() {
        let table = [
            ("8080:80", "127.0.0.1:8080:80"),
            ("8080:80/tcp", "127.0.0.1:8080:80"),
            ("0:80", "127.0.0.1:0:80"),
            ("5353:53/udp", "127.0.0.1:5353:53/udp"),
            ("0.0.0.0:8080:80", "0.0.0.0:8080:80"),
            ("[::]:8080:80", "[::]:8080:80"),
            ("[::1]:8080:80/udp", "[::1]:8080:80/udp"),
            ("[::ffff:10.0.0.1]:1:2", "10.0.0.1:1:2"),
            ("65535:65535", "127.0.0.1:65535:65535"),
        ];
        for (text, shown) in table {
            assert_eq!(publish(text).to_string(), shown);
            assert_eq!(publish(shown), publish(text), "{shown} reads back");
        }
        assert_eq!(publish("[::1]:8080:80/udp").place(), "[::1]:8080/udp");
    }

    #[test]
    fn what_publishes_nothing_is_refused_with_what_to_write() {
        let table = [
            ("80", "publishes nothing; write it like 8080:80"),
            ("", "publishes nothing"),
            ("80:", "\"\" is no port"),
            (":80", "\"\" is no address"),
            ("8080:0", "the guest's port cannot be 0"),
            ("8080:65536", "\"65536\" is no port"),
            ("+80:80", "\"+80\" is no address"),
            ("80:+80", "\"+80\" is no port"),
            ("8000-8010:8000-8010", "\"8000-8010\" is a range of ports; give each port its own -p"),
            ("localhost:8080:80", "\"localhost\" is no address"),
            ("::1:8080:80", "is no address"),
            ("[::1]8080:80", "publishes nothing"),
            ("[10.0.0]:8080:80", "\"10.0.0\" is no address"),
            ("8080:80/sctp", "\"sctp\" is no protocol"),
            ("8080:80:90", "\"80:90\" is no port"),
        ];
        for (text, want) in table {
            let error = text.parse::<Publish>().expect_err(text).to_string();
            assert!(error.contains(want), "{text}: {error}");
        }
    }

    #[test]
    fn two_clash_where_one_program_only_can_listen() {
        let table = [
            ("8080:80", "8080:90", true),
            ("8080:80", "8081:80", false),
            ("8080:80", "8080:80/udp", false),
            ("8080:80", "0.0.0.0:8080:80", true),
            ("[::]:8080:80", "8080:80", true),
            ("0.0.0.0:8080:80", "[::1]:8080:80", false),
            ("[::1]:8080:80", "127.0.0.1:8080:80", false),
            ("10.0.0.1:8080:80", "127.0.0.1:8080:80", false),
            ("0:80", "0:80", false),
        ];
        for (one, other, want) in table {
            assert_eq!(publish(one).clashes(&publish(other)), want, "{one} {other}");
            assert_eq!(publish(other).clashes(&publish(one)), want, "{other} {one}");
        }
    }

    #[test]
    fn a_list_changes_by_what_is_typed() {
        let now = [publish("8080:80"), publish("0:22"), publish("8080:80/udp")];
        let actual = |p: &Publish| if p.host == 0 { Publish { host: 40_000, ..*p } } else { *p };
        let changed = |add: &[&str], remove: &[&str]| {
            let add: Vec<Publish> = add.iter().map(|text| publish(text)).collect();
            let remove: Vec<Unpublish> = remove.iter().map(|text| text.parse().expect("ports")).collect();
            match change(&now, &add, &remove, actual) {
                Ok(list) => list.iter().map(Publish::to_string).collect::<Vec<_>>().join(" "),
                Err(e) => e.to_string(),
            }
        };
        let all = "127.0.0.1:8080:80 127.0.0.1:0:22 127.0.0.1:8080:80/udp";
        assert_eq!(changed(&[], &[]), all);
        assert_eq!(changed(&["8080:80"], &[]), all, "what is there may be said again");
        assert_eq!(changed(&[], &["8080", "40000"]), "127.0.0.1:8080:80/udp");
        assert_eq!(changed(&[], &["0:22", "8080/udp"]), "127.0.0.1:8080:80");
        assert_eq!(
            changed(&["8080:81"], &["127.0.0.1:8080:80"]),
            "127.0.0.1:0:22 127.0.0.1:8080:80/udp 127.0.0.1:8080:81"
        );
        assert_eq!(changed(&["8080:81"], &[]), "port 127.0.0.1:8080 is published twice");
        assert_eq!(changed(&[], &["9090"]), "9090 is not published");
        assert_eq!(changed(&[], &["0.0.0.0:8080"]), "0.0.0.0:8080 is not published");
        assert_eq!(changed(&[], &["8080:81/udp"]), "8080:81/udp is not published");
    }

    #[test]
    fn a_list_has_an_end() {
        let list: Vec<Publish> = (1..=101).map(|n| Publish { host: n, ..publish("1:1") }).collect();
        assert_eq!(judge(&list), Err(BadList::TooMany));
        assert_eq!(judge(&list[..100]), Ok(()));
    }
}
