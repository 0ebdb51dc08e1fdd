//! /etc/hosts and /etc/resolv.conf (hosts(5), resolv.conf(5)), with their manuals' limits.

use std::net::{IpAddr, Ipv4Addr, SocketAddr, SocketAddrV6};
use std::time::Duration;

const MAX_SERVERS: usize = 3;
const MAX_SEARCH: usize = 32;
const PORT: u16 = 53;

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// At least one.
    pub servers: Vec<SocketAddr>,
    pub search: Vec<String>,
    /// A name with at least so many dots is tried as it is first.
    pub ndots: usize,
    pub timeout: Duration,
    pub attempts: u32,
}

impl Config {
    /// Parses the text; an empty one means the server on this machine.
    pub fn parse(text: &str) -> Self {
        let mut config =
            Self { servers: vec![], search: vec![], ndots: 1, timeout: Duration::from_secs(5), attempts: 2 };
        for line in text.lines() {
            let mut words = line.split_ascii_whitespace();
            match words.next() {
                Some("nameserver") => config.servers.extend(words.next().and_then(server)),
                // The last one of them counts.
                Some("search" | "domain") => {
                    config.search = words.take(MAX_SEARCH).map(str::to_owned).collect();
                }
                Some("options") => words.for_each(|word| config.option(word)),
                _ => {}
            }
        }
        config.servers.truncate(MAX_SERVERS);
        if config.servers.is_empty() {
            config.servers.push((Ipv4Addr::LOCALHOST, PORT).into());
        }
        config
    }

    fn option(&mut self, word: &str) {
        let Some((name, Ok(value))) = word.split_once(':').map(|(n, v)| (n, v.parse::<u32>())) else {
            return;
        };
        match name {
            "ndots" => self.ndots = value.min(15) as usize,
            "timeout" => self.timeout = Duration::from_secs(u64::from(value.clamp(1, 30))),
            "attempts" => self.attempts = value.clamp(1, 5),
            _ => {}
        }
    }

    /// The names to ask for, in order. One that ends in a dot is complete.
    pub fn candidates(&self, name: &str) -> Vec<String> {
        if name.ends_with('.') {
            return vec![name.to_owned()];
        }
        let as_is = format!("{name}.");
        let searched = self.search.iter().map(|domain| format!("{name}.{}.", domain.trim_end_matches('.')));
        let dots = name.bytes().filter(|b| *b == b'.').count();
        if dots >= self.ndots {
            std::iter::once(as_is).chain(searched).collect()
        } else {
            searched.chain(std::iter::once(as_is)).collect()
        }
    }
}

/// An address, for a link-local one with the number of its interface.
fn server(word: &str) -> Option<SocketAddr> {
    if let Ok(address) = word.parse::<IpAddr>() {
        return Some((address, PORT).into());
    }
    let (address, scope) = word.split_once('%')?;
    let scope = match scope.parse() {
        Ok(number) => number,
        Err(_) => std::fs::read_to_string(format!("/sys/class/net/{}/ifindex", interface(scope)?))
            .ok()?
            .trim()
            .parse()
            .ok()?,
    };
    Some(SocketAddrV6::new(address.parse().ok()?, PORT, 0, scope).into())
}

/// A name that an interface can have, and so no path.
fn interface(name: &str) -> Option<&str> {
    let ok = !name.is_empty() && name.len() < 16 && !name.contains('/') && name != "." && name != "..";
    ok.then_some(name)
}

/// The addresses of `name` in the text of /etc/hosts, those of IPv4 first.
pub fn hosts(text: &str, name: &str) -> Vec<IpAddr> {
    let name = name.trim_end_matches('.');
    let mut found: Vec<IpAddr> = vec![];
    for line in text.lines() {
        let line = line.split('#').next().unwrap_or_default();
        let mut words = line.split_ascii_whitespace();
        let Some(Ok(address)) = words.next().map(str::parse) else { continue };
        if words.any(|word| word.eq_ignore_ascii_case(name)) && !found.contains(&address) {
            found.push(address);
        }
    }
    found.sort_by_key(IpAddr::is_ipv6);
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn resolv_conf_is_read_as_its_manual_says() {
        let text = "# a comment\nnameserver 192.0.2.1\nnameserver ::1\nnameserver fe80::1%7\nnameserver 192.0.2.9\n\
                    domain old.example\nsearch a.example b.example.\noptions ndots:2 timeout:1 attempts:99 rotate\n";
        let config = Config::parse(text);
        assert_eq!(
            config.servers[..2],
            ["192.0.2.1:53".parse().expect("ok"), "[::1]:53".parse().expect("ok")]
        );
        assert_eq!(config.servers[2].to_string(), "[fe80::1%7]:53");
        assert_eq!((config.servers.len(), config.ndots, config.attempts), (3, 2, 5));
        assert_eq!(config.timeout, Duration::from_secs(1));
        assert_eq!(config.candidates("x"), ["x.a.example.", "x.b.example.", "x."]);
        assert_eq!(config.candidates("x.y.z"), ["x.y.z.", "x.y.z.a.example.", "x.y.z.b.example."]);
        assert_eq!(config.candidates("x."), ["x."]);
    }

    #[test]
    fn without_the_file_the_server_on_this_machine_is_asked() {
        assert_eq!(Config::parse("").servers, ["127.0.0.1:53".parse().expect("ok")]);
        assert_eq!(Config::parse("nameserver nonsense\nnameserver 1%../../x\n").servers.len(), 1);
    }

    #[test]
    fn hosts_are_found_in_any_case_and_comments_are_not() {
        let text = "127.0.0.1 localhost\n::2 box\n192.0.2.7\tBox.Example box # other\n#192.0.2.8 box\nnonsense box\n";
        assert_eq!(
            hosts(text, "BOX"),
            ["192.0.2.7".parse::<IpAddr>().expect("ok"), "::2".parse().expect("ok")]
        );
        assert_eq!(hosts(text, "box.example.").len(), 1);
        assert!(hosts(text, "other").is_empty());
    }
}
