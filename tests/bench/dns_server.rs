//! banger's DNS server without the rest, and the routing of a resolver to it.
//!
//!     dns-server serve SUFFIX PORT [BRIDGE] < names      lines "NAME ADDRESS"; BRIDGE, as 172.16.0.1/24, is served too
//!     dns-server route LINK PORT SUFFIX BRIDGE           has systemd-resolved ask it
//!     dns-server clear LINK

use std::error::Error;
use std::io::BufRead;
use std::net::Ipv4Addr;

use banger::dns::names::Names;
use banger::dns::service::{Face, Service, Upstream};
use banger::network::subnet::Subnet;
use banger::root::resolver;

fn main() -> Result<(), Box<dyn Error>> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    match args.as_slice() {
        ["serve", suffix, port] => serve(suffix, port, None),
        ["serve", suffix, port, bridge] => serve(suffix, port, Some(bridge.parse()?)),
        ["route", link, port, suffix, bridge] => {
            println!("{:?}", resolver::set(link, port.parse()?, &suffix.parse()?, bridge.parse()?)?);
            Ok(())
        }
        ["clear", link] => {
            println!("{:?}", resolver::clear(link)?);
            Ok(())
        }
        _ => Err("see the first lines of tests/bench/dns_server.rs".into()),
    }
}

fn serve(suffix: &str, port: &str, bridge: Option<Subnet>) -> Result<(), Box<dyn Error>> {
    let names = Names::new(&suffix.parse()?);
    if let Some(bridge) = bridge {
        names.set_subnet(bridge);
    }
    for line in std::io::stdin().lock().lines() {
        let line = line?;
        let (name, address) = line.split_once(' ').ok_or("a line is \"NAME ADDRESS\"")?;
        names.insert(&name.parse()?, address.parse()?);
    }
    let port = port.parse()?;
    let service = Service::start(names, Upstream::File("/etc/resolv.conf".into()))?;
    let host = service.listen((Ipv4Addr::LOCALHOST, port).into(), Face::Host)?;
    println!("{}", host.address());
    let guests = match bridge {
        Some(bridge) => Some(service.listen((bridge.gateway(), port).into(), Face::Guests(bridge.into()))?),
        None => None,
    };
    if let Some(guests) = &guests {
        println!("{}", guests.address());
    }
    loop {
        std::thread::park();
    }
}
