//! Who the guest is and whom it asks: host name, /etc/hosts, /etc/resolv.conf, its address.
//!
//! Nothing here is worth a guest that does not come up: what fails is a line on the console.

use std::fs;
use std::io;
use std::net::{IpAddr, Ipv4Addr};
use std::path::Path;

use super::console;
use super::{Failed, failed};
use crate::netlink::Netlink;
use crate::vm::boot::{Boot, Net};

const HOSTS_BEGIN: &str = "# banger begin: written at every boot, lines outside are kept";
const HOSTS_END: &str = "# banger end";
/// Where systemd-resolved keeps what /etc/resolv.conf is linked to.
const RESOLVED: &str = "run/systemd/resolve/";

/// Sets it all. `own_init`: the image starts services of its own, systemd-resolved among them.
pub fn assume(boot: &Boot, own_init: bool) {
    let name = boot.name.to_string();
    let named = rustix::system::sethostname(name.as_bytes()).map_err(failed("set the host name"));
    let address = boot.net.as_ref().map_or(Ipv4Addr::new(127, 0, 1, 1), |net| net.address);
    let mut steps = vec![named, write_if_changed("/etc/hostname", format!("{name}\n").as_bytes())];
    let old = fs::read("/etc/hosts").unwrap_or_default();
    steps.push(write_if_changed("/etc/hosts", &hosts(&old, &name, address.into())));
    steps.push(network(boot.net.as_ref()));
    if let Some(net) = &boot.net
        && !net.dns.is_empty()
    {
        steps.push(resolver(&net.dns, own_init));
    }
    for failed in steps.into_iter().filter_map(Result::err) {
        console::say(failed.sentence());
    }
}

/// Gives the guest another name while it runs; its address stays.
pub fn rename(name: &str) -> Result<(), Failed> {
    rustix::system::sethostname(name.as_bytes()).map_err(failed("set the host name"))?;
    write_if_changed("/etc/hostname", format!("{name}\n").as_bytes())?;
    let old = fs::read("/etc/hosts").unwrap_or_default();
    let address = own_address(&old).unwrap_or(Ipv4Addr::new(127, 0, 1, 1).into());
    write_if_changed("/etc/hosts", &hosts(&old, name, address))
}

/// The address in our block, whose last line it begins.
fn own_address(hosts: &[u8]) -> Option<IpAddr> {
    let text = String::from_utf8_lossy(hosts);
    let (block, _) = text.split_once(HOSTS_BEGIN)?.1.split_once(HOSTS_END)?;
    block.trim_end().lines().last()?.split_whitespace().next()?.parse().ok()
}

fn network(net: Option<&Net>) -> Result<(), Failed> {
    let mut netlink = Netlink::open().map_err(failed("speak to the kernel about the network"))?;
    netlink.set_up("lo").map_err(failed("set lo up"))?;
    let Some(net) = net else { return Ok(()) };
    let link = interface().map_err(failed("find the network interface"))?;
    netlink.set_up(&link).map_err(failed(format!("set {link} up")))?;
    netlink
        .add_address(&link, net.address, net.prefix)
        .map_err(failed(format!("give {link} its address")))?;
    netlink.add_default_route(&link, net.gateway).map_err(failed("set the default route"))
}

/// The guest's one interface: the first in alphabetical order that is not lo.
fn interface() -> io::Result<String> {
    let mut names = vec![];
    for entry in fs::read_dir("/sys/class/net")? {
        names.push(entry?.file_name().to_string_lossy().into_owned());
    }
    names.sort();
    let first = names.into_iter().find(|name| name != "lo");
    first.ok_or_else(|| io::Error::new(io::ErrorKind::NotFound, "the machine has none"))
}

fn resolver(servers: &[Ipv4Addr], own_init: bool) -> Result<(), Failed> {
    let path = Path::new("/etc/resolv.conf");
    let lines: String = servers.iter().map(|s| format!("nameserver {s}\n")).collect();
    let written = || match fs::read_link(path) {
        Ok(target) if own_init && target.to_string_lossy().contains(RESOLVED) => {
            // The link is resolved's; resolved itself is told (resolved.conf(5)).
            let list: Vec<String> = servers.iter().map(Ipv4Addr::to_string).collect();
            fs::create_dir_all("/run/systemd/resolved.conf.d")?;
            let text = format!("[Resolve]\nDNS={}\nDomains=~.\n", list.join(" "));
            fs::write("/run/systemd/resolved.conf.d/banger.conf", text)
        }
        Ok(_) if !path.exists() => {
            // It leads to what a service would have made that does not run here.
            fs::remove_file(path)?;
            fs::write(path, &lines)
        }
        _ if fs::read(path).is_ok_and(|old| old == lines.as_bytes()) => Ok(()),
        _ => fs::write(path, &lines),
    };
    written().map_err(failed("write /etc/resolv.conf"))
}

/// Writes only what differs: every block written is one copied into the VM's file.
fn write_if_changed(path: &str, content: &[u8]) -> Result<(), Failed> {
    let write = || {
        if fs::read(path).is_ok_and(|old| old == content) {
            return Ok(());
        }
        if let Some(directory) = Path::new(path).parent() {
            fs::create_dir_all(directory)?;
        }
        fs::write(path, content)
    };
    write().map_err(failed(format!("write {path}")))
}

/// /etc/hosts with our block, in the place of an older one or at its end; all other lines are kept.
fn hosts(old: &[u8], name: &str, address: IpAddr) -> Vec<u8> {
    let mut before = vec![];
    let mut after = vec![];
    let mut inside = false;
    let mut seen = false;
    for line in old.split_inclusive(|b| *b == b'\n') {
        match line.trim_ascii() {
            text if text == HOSTS_BEGIN.as_bytes() => (inside, seen) = (true, true),
            text if inside && text == HOSTS_END.as_bytes() => inside = false,
            _ if inside => {}
            _ if seen => after.extend_from_slice(line),
            _ => before.extend_from_slice(line),
        }
    }
    if before.last().is_some_and(|last| *last != b'\n') {
        before.push(b'\n');
    }
    let mut block = format!("{HOSTS_BEGIN}\n");
    if !names_localhost(&before) && !names_localhost(&after) {
        block += "127.0.0.1 localhost\n::1 localhost ip6-localhost ip6-loopback\n";
    }
    block += &format!("{address} {name}\n{HOSTS_END}\n");
    [before, block.into_bytes(), after].concat()
}

fn names_localhost(lines: &[u8]) -> bool {
    lines.split(|b| *b == b'\n').any(|line| {
        let text = line.split(|b| *b == b'#').next().unwrap_or_default();
        text.split(u8::is_ascii_whitespace).skip(1).any(|word| word == b"localhost")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(old: &str, name: &str) -> String {
        String::from_utf8(hosts(old.as_bytes(), name, Ipv4Addr::new(10, 0, 2, 15).into())).expect("text")
    }

    #[test]
    fn an_empty_hosts_file_gets_localhost_and_the_guest() {
        let want = format!(
            "{HOSTS_BEGIN}\n127.0.0.1 localhost\n::1 localhost ip6-localhost ip6-loopback\n10.0.2.15 dev\n{HOSTS_END}\n"
        );
        assert_eq!(written("", "dev"), want);
        assert_eq!(written(&want, "dev"), want);
    }

    #[test]
    fn lines_that_are_not_ours_are_kept_where_they_are() {
        let old =
            format!("127.0.0.1\tlocalhost\n{HOSTS_BEGIN}\n10.0.0.9 old\n{HOSTS_END}\n1.2.3.4 db # mine\n");
        let want =
            format!("127.0.0.1\tlocalhost\n{HOSTS_BEGIN}\n10.0.2.15 dev\n{HOSTS_END}\n1.2.3.4 db # mine\n");
        assert_eq!(written(&old, "dev"), want);
        assert_eq!(written("1.2.3.4 x", "dev").lines().next(), Some("1.2.3.4 x"));
    }

    #[test]
    fn the_address_is_the_one_that_the_block_has() {
        let old = written("1.2.3.4 db\n", "dev");
        assert_eq!(own_address(old.as_bytes()), Some(Ipv4Addr::new(10, 0, 2, 15).into()));
        let renamed = hosts(old.as_bytes(), "web", own_address(old.as_bytes()).expect("an address"));
        assert_eq!(String::from_utf8(renamed).expect("text"), written("1.2.3.4 db\n", "web"));
        assert_eq!(own_address(b"1.2.3.4 db\n"), None);
    }

    #[test]
    fn bytes_that_are_no_text_survive() {
        let new = hosts(b"1.2.3.4 \xff\n", "dev", Ipv4Addr::LOCALHOST.into());
        assert!(new.starts_with(b"1.2.3.4 \xff\n"));
    }

    #[test]
    fn a_commented_localhost_is_no_localhost() {
        assert!(!names_localhost(b"# 127.0.0.1 localhost\n127.0.0.1 x # localhost\n"));
        assert!(names_localhost(b"::1 ip6 localhost"));
    }
}
