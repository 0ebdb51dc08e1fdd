//! Names of addresses (RFC 1035, 3.5): 172.16.0.2 is `2.0.16.172.in-addr.arpa`, and a network of whole bytes is a zone.

use std::net::Ipv4Addr;

use crate::network::subnet::Subnet;

/// The domain of all of them.
pub const ARPA: &str = "in-addr.arpa";

/// How many bytes of an address name the zones of `subnet`.
pub fn bytes_of_zone(subnet: Subnet) -> usize {
    if subnet.prefix() == 16 { 2 } else { 3 }
}

/// The domains below which lie the names of all addresses in `subnet`, and of no other: one for a network of whole bytes, else up
/// to 128, of networks or of addresses.
pub fn domains(subnet: Subnet) -> Vec<String> {
    // From /25 on a domain would take its neighbours along, so that there each address is one.
    let bytes = if subnet.prefix() > 24 { 4 } else { bytes_of_zone(subnet) };
    let step = 1usize << (32 - 8 * bytes);
    (subnet.network().to_bits()..=subnet.broadcast().to_bits())
        .step_by(step)
        .map(|bits| name(Ipv4Addr::from_bits(bits), bytes))
        .collect()
}

/// The name of the first `bytes` bytes of `address`.
fn name(address: Ipv4Addr, bytes: usize) -> String {
    let mut name = String::new();
    for byte in address.octets()[..bytes].iter().rev() {
        name.push_str(&format!("{byte}."));
    }
    name + ARPA
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(subnet: &str) -> Vec<String> {
        domains(subnet.parse().expect("a subnet"))
    }

    #[test]
    fn a_network_has_the_domains_of_its_addresses_and_of_no_other() {
        assert_eq!(of("172.16.0.1/24"), ["0.16.172.in-addr.arpa"]);
        assert_eq!(of("10.5.9.1/16"), ["5.10.in-addr.arpa"]);
        assert_eq!(of("10.5.8.1/23"), ["8.5.10.in-addr.arpa", "9.5.10.in-addr.arpa"]);
        assert_eq!(of("192.168.7.5/30"), [4, 5, 6, 7].map(|byte| format!("{byte}.7.168.192.in-addr.arpa")));
        assert_eq!(of("10.0.0.1/17").len(), 128);
        assert_eq!(of("10.0.0.1/25").len(), 128);
    }
}
