//! The DNS server in the daemon: which VM has which name, and where the server answers.
//!
//! It listens once there is a bridge, since without one no VM has an address of its own. A port that somebody else has is no reason not to
//! run VMs: it is logged, shown by `daemon status`, and tried again whenever the bridge is looked after.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::daemon::fault::chain;
use crate::dns::names::Names;
use crate::dns::service::{Face, Listening, Service, Upstream};
use crate::network::subnet::Subnet;
use crate::network::suffix::Suffix;
use crate::proto::api::DnsView;

/// The server and its names.
#[derive(Debug)]
pub struct Dns {
    names: Names,
    port: u16,
    live: Mutex<Live>,
}

/// What listens at this moment.
#[derive(Debug, Default)]
struct Live {
    // Before the service, which they need until they end.
    host: Option<Place>,
    guests: Option<Place>,
    bridge: Option<Subnet>,
    service: Option<Service>,
}

#[derive(Debug)]
struct Place {
    address: SocketAddr,
    /// Or why nobody is answered there.
    listening: Result<Listening, String>,
}

impl Dns {
    /// The server for names below `suffix`. It listens at once if there is a `bridge` already, else from
    /// [`listen_on_bridge`](Self::listen_on_bridge) on; `dns_port` is that of both of its addresses.
    pub fn start(suffix: &Suffix, dns_port: u16, bridge: Option<Subnet>) -> Self {
        let dns = Self { names: Names::new(suffix), port: dns_port, live: Mutex::default() };
        if let Some(bridge) = bridge {
            dns.listen_on_bridge(bridge);
        }
        dns
    }

    /// The names, for changing them: a VM's from the moment that it is ready until it stops.
    pub fn names(&self) -> &Names {
        &self.names
    }

    /// Listens on 127.0.0.1 for the host and on the bridge for guests, as far as it does not yet. What cannot be had is logged, and
    /// kept for [`view`](Self::view).
    pub fn listen_on_bridge(&self, bridge: Subnet) {
        let mut live = self.live();
        if live.bridge != Some(bridge) {
            live.guests = None;
            live.bridge = Some(bridge);
            self.names.set_subnet(bridge);
        }
        let live = &mut *live;
        let service = match &mut live.service {
            Some(service) => service,
            empty => {
                let upstream = Upstream::File(PathBuf::from("/etc/resolv.conf"));
                match Service::start(self.names.clone(), upstream) {
                    Ok(service) => empty.insert(service),
                    Err(e) => return log::error!("cannot start the DNS server: {e}"),
                }
            }
        };
        let host = SocketAddr::from((Ipv4Addr::LOCALHOST, self.port));
        mend(service, &mut live.host, host, Face::Host);
        let guests = SocketAddr::from((bridge.gateway(), self.port));
        mend(service, &mut live.guests, guests, Face::Guests(bridge.into()));
    }

    /// Where it answers, or should; nothing before there is a bridge.
    pub fn view(&self) -> Vec<DnsView> {
        let live = self.live();
        [&live.host, &live.guests]
            .into_iter()
            .flatten()
            .map(|place| DnsView {
                address: place.address.to_string(),
                problem: place.listening.as_ref().err().cloned(),
            })
            .collect()
    }

    fn live(&self) -> MutexGuard<'_, Live> {
        // A panic leaves at worst something that does not listen, which the next call mends.
        self.live.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Makes the server listen at `address`, if it does not.
fn mend(service: &Service, place: &mut Option<Place>, address: SocketAddr, face: Face) {
    let before = match place {
        Some(Place { listening: Ok(_), .. }) => return,
        Some(Place { listening: Err(problem), .. }) => Some(problem.clone()),
        None => None,
    };
    let listening = service.listen(address, face).map_err(|e| chain(&e));
    match &listening {
        Ok(listening) => log::info!("names of VMs are answered at {}", listening.address()),
        Err(problem) if before.as_ref() != Some(problem) => {
            log::warn!("names of VMs are not answered at {address}: {problem}");
        }
        // It has been said.
        Err(_) => {}
    }
    *place = Some(Place { address, listening });
}

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, UdpSocket};

    use super::*;

    fn free_port() -> u16 {
        UdpSocket::bind("127.0.0.1:0").and_then(|s| s.local_addr()).expect("a port").port()
    }

    /// A bridge that is not there.
    fn bridge() -> Subnet {
        "10.255.254.1/24".parse().expect("a subnet")
    }

    #[test]
    fn without_a_bridge_nothing_listens() {
        let dns = Dns::start(&Suffix::default(), free_port(), None);
        assert!(dns.view().is_empty());
    }

    #[test]
    fn a_busy_port_is_a_problem_that_is_shown_and_ends_with_its_cause() {
        let port = free_port();
        let squatter = TcpListener::bind(("127.0.0.1", port)).expect("binds");
        let dns = Dns::start(&Suffix::default(), port, Some(bridge()));
        let problems = || dns.view().into_iter().map(|v| v.problem).collect::<Vec<_>>();
        let [Some(host), Some(guests)] = &problems()[..] else { panic!("{:?}", problems()) };
        assert_eq!(
            *host,
            format!("another program uses 127.0.0.1:{port}; end it, or choose another dns_port")
        );
        assert!(guests.starts_with(&format!("cannot listen on UDP 10.255.254.1:{port}: ")), "{guests}");
        drop(squatter);
        dns.listen_on_bridge(bridge());
        assert_eq!(problems()[0], None);
        assert_eq!(dns.view()[0].address, format!("127.0.0.1:{port}"));
        // And it lets go of what it has.
        drop(dns);
        TcpListener::bind(("127.0.0.1", port)).expect("TCP is free again");
        UdpSocket::bind(("127.0.0.1", port)).expect("UDP is free again");
    }
}
