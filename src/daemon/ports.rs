//! `vm ports`: what listens in a guest, by its agent's word, and how each of it is reached from here.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use crate::daemon::dial::dial;
use crate::daemon::fault::Fault;
use crate::daemon::guest::{another_answer, running};
use crate::daemon::guest_text::harmless;
use crate::daemon::{Shared, agent, probe};
use crate::proto::agent::{Answer, MAX_PORTS, Port, Request};
use crate::proto::api::{PortView, Published, Scheme, VmPorts};
use crate::store::record::Run;
use crate::vm::publish::Protocol;

/// The longest name of a program (linux/sched.h, TASK_COMM_LEN), each of its bytes escaped.
const PROGRAM: usize = 64;

/// All that listens in the VM, and what is published of it though nothing does.
pub async fn ports(d: &Shared, wanted: VmPorts) -> Result<Vec<PortView>, Fault> {
    let (record, channel) = running(d, &wanted.vm)?;
    let (Answer::Ports { mut ports }, _) = dial(&channel, &Request::Ports, agent::ANSWER_DEADLINE).await?
    else {
        return Err(another_answer());
    };
    ports.truncate(MAX_PORTS);
    let schemes = match wanted.probe {
        true => probe::schemes(d, &channel, &ports).await,
        false => BTreeMap::new(),
    };
    let bridged = d.store.get::<Run>(record.id)?.is_some_and(|run| run.bridged);
    let name = bridged.then(|| format!("{}.{}", record.name, d.config.network.suffix));
    Ok(views(ports, &d.ports.view(record.id), name.as_deref(), &schemes))
}

/// `name`: what the guest is called in a network that this host reaches.
fn views(
    listening: Vec<Port>,
    published: &[Published],
    name: Option<&str>,
    schemes: &BTreeMap<(Option<IpAddr>, u16), Scheme>,
) -> Vec<PortView> {
    let has = |published: &&Published| published.problem.is_none();
    let mut heard = BTreeSet::new();
    let mut views: Vec<PortView> = vec![];
    for port in listening.into_iter().take(MAX_PORTS) {
        let key = (port.port, port.protocol);
        let leads = |p: &&Published| (p.publish.guest, p.publish.protocol) == key;
        let mut reach: Vec<String> =
            published.iter().filter(leads).filter(has).map(|p| p.publish.place()).collect();
        heard.insert(key);
        if let Some(name) = name.filter(|_| !port.address.is_loopback()) {
            reach.push(format!("{name}:{}", port.port));
        }
        views.push(PortView {
            protocol: port.protocol,
            address: Some(port.address),
            port: port.port,
            pid: port.pid,
            scheme: schemes.get(&probe::place(&port)).copied().filter(|_| port.protocol == Protocol::Tcp),
            program: port.program.map(|program| harmless(&program, PROGRAM)),
            reach,
        });
    }
    for silent in published.iter().filter(has) {
        let (protocol, port) = (silent.publish.protocol, silent.publish.guest);
        if !heard.contains(&(port, protocol)) {
            let reach = vec![silent.publish.place()];
            let (address, pid, program, scheme) = (None, None, None, None);
            views.push(PortView { protocol, address, port, pid, program, reach, scheme });
        }
    }
    views.sort_by_key(|view| (view.port, view.protocol));
    views
}

#[cfg(test)]
mod tests {
    use super::*;

    fn listening(text: &str) -> Port {
        let (protocol, at) = text.split_once(' ').expect("a protocol");
        let at: std::net::SocketAddr = at.parse().expect("an address");
        let protocol = if protocol == "tcp" {
            crate::vm::publish::Protocol::Tcp
        } else {
            crate::vm::publish::Protocol::Udp
        };
        Port {
            protocol,
            address: at.ip(),
            port: at.port(),
            pid: Some(7),
            program: Some("a\u{1b}[2J".to_owned()),
        }
    }

    fn published(text: &str) -> Published {
        Published { publish: text.parse().expect("a port"), problem: None }
    }

    fn shown(listening: Vec<Port>, published: &[Published], name: Option<&str>) -> Vec<String> {
        let line = |v: &PortView| format!("{} {} {}", v.protocol, v.port, v.reach.join(" "));
        views(listening, published, name, &BTreeMap::new()).iter().map(line).collect()
    }

    #[test]
    fn each_port_is_shown_with_all_ways_to_it() {
        let guest = || {
            ["tcp 0.0.0.0:80", "tcp 127.0.0.1:5432", "udp 10.0.0.2:53", "tcp [::]:53"].map(listening).to_vec()
        };
        assert_eq!(shown(guest(), &[], None), ["tcp 53 ", "udp 53 ", "tcp 80 ", "tcp 5432 "]);
        assert_eq!(
            shown(guest(), &[], Some("dev.vm")),
            ["tcp 53 dev.vm:53", "udp 53 dev.vm:53", "tcp 80 dev.vm:80", "tcp 5432 "],
            "what listens on loopback is reached by nobody else"
        );
        let ports = ["8080:80", "[::1]:8081:80", "5353:53/udp", "5432:5432", "9000:9000"].map(published);
        assert_eq!(
            shown(guest(), &ports, Some("dev.vm")),
            [
                "tcp 53 dev.vm:53",
                "udp 53 127.0.0.1:5353/udp dev.vm:53",
                "tcp 80 127.0.0.1:8080 [::1]:8081 dev.vm:80",
                "tcp 5432 127.0.0.1:5432",
                "tcp 9000 127.0.0.1:9000",
            ]
        );
    }

    #[test]
    fn a_port_that_could_not_be_had_is_no_way() {
        let lost = Published { problem: Some("taken".to_owned()), ..published("8080:80") };
        assert_eq!(shown(vec![listening("tcp 0.0.0.0:80")], &[lost], None), ["tcp 80 "]);
    }

    #[test]
    fn a_guest_that_lies_is_cut_short_and_made_harmless() {
        let flood = (0..10_000).map(|n| Port { port: n, ..listening("tcp 0.0.0.0:80") }).collect();
        let views = views(flood, &[], None, &BTreeMap::new());
        assert_eq!(views.len(), MAX_PORTS);
        assert!(views.iter().all(|view| view.program.as_deref() == Some("a\\u{1b}[2J")));
    }
}
