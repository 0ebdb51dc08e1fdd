//! The bridge, the firewall and the forwarding, as whoever does what only root may do sees them in the kernel.

use crate::network::subnet::Subnet;
use crate::proto::finding::{Finding, Fix};
use crate::proto::root::{Bridge, Firewall, Status};

/// `wanted`: what the configuration says.
pub fn rows(status: &Status, wanted: Subnet) -> Vec<Finding> {
    let mut rows = vec![bridge(status, wanted)];
    // Before there is a bridge, nothing is let through and nothing is held back.
    if status.subnet.is_some() {
        rows.extend(firewall(status));
        rows.extend(forwarding(status));
    }
    rows
}

fn bridge(status: &Status, wanted: Subnet) -> Finding {
    let subject = "bridge";
    let (vms, seen) = (status.vms.len(), status.network);
    match (status.subnet, seen.map(|seen| seen.bridge)) {
        (_, Some(Bridge::Foreign)) => Finding::fail(
            subject,
            "there is a link br-banger that is not banger's",
            "VMs with a network do not start beside it: rename it, or remove it with `ip link delete br-banger`.",
        ),
        (None, _) => Finding::pass(subject, "none yet; the first VM with a network makes it"),
        (Some(_), Some(Bridge::Missing)) => lost(
            vms,
            subject,
            "it is gone",
            "Somebody has removed it; the next VM that starts makes it again, or `banger doctor --fix`.",
        ),
        (Some(has), _) if has != wanted => Finding::warn(
            subject,
            format!("it has {has}, and the configuration says {wanted}"),
            "Stop all VMs; the next one that starts makes it anew.",
        ),
        (Some(_), _) if seen.is_some_and(|seen| seen.unplugged > 0) => Finding::fail(
            subject,
            format!("{} of {vms} VMs are no port of it", seen.map_or(0, |seen| seen.unplugged)),
            "Somebody has taken them off it; `banger vm restart` puts a VM back.",
        ),
        (Some(has), _) => Finding::pass(subject, format!("{has}, {vms} VMs")),
    }
}

/// None: a helper that does not say.
fn firewall(status: &Status) -> Option<Finding> {
    let (subject, vms) = ("firewall", status.vms.len());
    Some(match status.network?.firewall {
        Firewall::Whole => Finding::pass(subject, "whole"),
        Firewall::Missing => lost(
            vms,
            subject,
            "its tables are gone: nothing keeps VMs from each other and from this host",
            "Somebody has flushed them; `banger doctor --fix` loads them again.",
        ),
        Firewall::Changed => lost(
            vms,
            subject,
            "somebody has added rules to its tables, or removed some",
            "`banger doctor --fix` loads them as they were; rules of your own belong in tables of your own.",
        ),
    })
}

fn forwarding(status: &Status) -> Option<Finding> {
    let subject = "forwarding";
    let nat = status.vms.iter().filter(|vm| vm.port.is_some_and(|port| port.nat)).count();
    Some(match status.network?.forwarding {
        true => Finding::pass(subject, "on"),
        false => lost(
            nat,
            subject,
            "this host forwards no packets, so that no VM has a way out",
            "Something has set net.ipv4.ip_forward to 0, as a file in /etc/sysctl.d may say; `banger doctor --fix` sets it to 1.",
        ),
    })
}

/// What is gone fails as long as VMs need it; without any, the next one that starts brings it back.
fn lost(vms: usize, subject: &str, found: &str, advice: &str) -> Finding {
    let row = match vms {
        0 => Finding::warn(subject, found, advice),
        1 => Finding::fail(subject, format!("{found} (1 VM)"), advice),
        _ => Finding::fail(subject, format!("{found} ({vms} VMs)"), advice),
    };
    row.mended_by(Fix::Network)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::network::subnet;
    use crate::proto::root::{Network, Port, VmStatus};

    const WELL: Network =
        Network { bridge: Bridge::Ours, firewall: Firewall::Whole, forwarding: true, unplugged: 0 };

    fn status(subnet: Option<&str>, network: Option<Network>, nat: &[bool]) -> Status {
        let vm = |(n, nat): (usize, &bool)| VmStatus {
            vm: crate::vm::id::VmId::from_random(n as u64),
            port: Some(Port { slot: 2, nat: *nat, lan: false, direct: false }),
            processes: None,
        };
        Status {
            pid: 7,
            version: "1".to_owned(),
            subnet: subnet.map(|s| s.parse().expect("a subnet")),
            vms: nat.iter().enumerate().map(vm).collect(),
            no_firecracker: None,
            notes: vec![],
            network,
        }
    }

    fn lines(status: &Status) -> Vec<String> {
        rows(status, subnet::DEFAULT).iter().map(Finding::line).collect()
    }

    #[test]
    fn a_network_that_is_well_is_three_short_rows() {
        let well = status(Some("172.16.0.1/24"), Some(WELL), &[true, false]);
        assert_eq!(
            lines(&well),
            ["Pass bridge: 172.16.0.1/24, 2 VMs", "Pass firewall: whole", "Pass forwarding: on"]
        );
        let none = status(None, Some(Network { bridge: Bridge::Missing, forwarding: false, ..WELL }), &[]);
        assert_eq!(lines(&none), ["Pass bridge: none yet; the first VM with a network makes it"]);
        let old = status(Some("172.16.0.1/24"), None, &[]);
        assert_eq!(lines(&old), ["Pass bridge: 172.16.0.1/24, 0 VMs"], "a helper that says no more");
    }

    #[test]
    fn what_others_have_broken_fails_where_a_vm_needs_it() {
        let row = |n: usize, network: Network, nat: &[bool]| {
            lines(&status(Some("172.16.0.1/24"), Some(network), nat)).swap_remove(n)
        };
        let gone = Network { bridge: Bridge::Missing, ..WELL };
        assert!(row(0, gone, &[true]).starts_with("Fail bridge: it is gone (1 VM) => "));
        assert!(row(0, gone, &[true]).ends_with(" [Network]"));
        assert!(row(0, gone, &[]).starts_with("Warn bridge: it is gone => "));
        let flushed = Network { firewall: Firewall::Missing, ..WELL };
        assert!(row(1, flushed, &[false]).starts_with("Fail firewall: its tables are gone"));
        let changed = Network { firewall: Firewall::Changed, ..WELL };
        assert!(row(1, changed, &[false]).starts_with("Fail firewall: somebody has added rules"));
        assert!(row(1, changed, &[]).starts_with("Warn firewall: "));
        let off = Network { forwarding: false, ..WELL };
        assert!(row(2, off, &[true, false]).starts_with("Fail forwarding: this host forwards no packets"));
        assert!(row(2, off, &[false]).starts_with("Warn forwarding: "), "nobody has a way out");
        let unplugged = Network { unplugged: 1, ..WELL };
        assert!(row(0, unplugged, &[true, true]).starts_with("Fail bridge: 1 of 2 VMs are no port of it"));
    }

    #[test]
    fn another_network_or_somebody_elses_link_is_named() {
        let other = lines(&status(Some("10.0.0.1/24"), Some(WELL), &[]));
        assert!(
            other[0].starts_with("Warn bridge: it has 10.0.0.1/24, and the configuration says 172.16.0.1/24")
        );
        let foreign = Network { bridge: Bridge::Foreign, firewall: Firewall::Missing, ..WELL };
        assert!(
            lines(&status(None, Some(foreign), &[]))[0].starts_with("Fail bridge: there is a link br-banger")
        );
    }
}
