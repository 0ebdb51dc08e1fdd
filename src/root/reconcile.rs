//! What is there against what the records claim: what nobody claims is removed, what is claimed and missing is made again.
//!
//! At the helper's start, and by `bangerd-root --reconcile`. The plan is pure; [`super::perform`] carries it out.

use std::collections::BTreeSet;
use std::fmt;

use crate::network::names::TapName;
use crate::root::records::{Doing, Exists};
use crate::vm::id::VmId;

/// Whose the bridge is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Bridge {
    Missing,
    Ours,
    /// Somebody else's, who may have taps with our stamp on it.
    Foreign,
}

/// What there is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Have {
    pub bridge: Bridge,
    /// Those that bear the stamp.
    pub taps: BTreeSet<TapName>,
    /// Whether anything of our tables is loaded.
    pub firewall: bool,
    /// VMs with a jail, or the rest of one.
    pub jails: BTreeSet<VmId>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// Ends what runs in it, too.
    RemoveJail(VmId),
    DeleteTap(TapName),
    /// The record of something that was not finished.
    Forget(VmId),
    /// The record stays, without the launch that was not finished.
    Settle(VmId),
    RestoreBridge,
    RestoreTap(VmId),
    /// The ruleset with all that is claimed, and nothing else.
    LoadFirewall,
    /// There is no bridge of ours: the ruleset goes.
    UnloadFirewall,
}

/// The steps from `have` to what `exists` claims. Processes end before the taps that they hold, and a record goes last.
pub fn plan(exists: &Exists, have: &Have) -> Vec<Step> {
    let begun = |wanted: &[Doing]| -> BTreeSet<VmId> {
        let of = |doing: Option<Doing>| doing.is_some_and(|doing| wanted.contains(&doing));
        exists.vms.values().filter(|record| of(record.doing)).map(|record| record.vm).collect()
    };
    let half_launched = begun(&[Doing::Launching]);
    let gone = begun(&[Doing::CreatingTap, Doing::Removing]);
    let claimed: BTreeSet<VmId> =
        exists.vms.keys().chain(&exists.unreadable).copied().filter(|vm| !gone.contains(vm)).collect();
    let jailed: BTreeSet<VmId> = claimed
        .iter()
        .copied()
        .filter(|vm| {
            exists.unreadable.contains(vm) || exists.vms.get(vm).is_some_and(|r| r.processes.is_some())
        })
        .collect();

    let mut steps = vec![];
    let jails: BTreeSet<VmId> = have.jails.iter().chain(&half_launched).chain(&gone).copied().collect();
    steps.extend(jails.difference(&jailed).copied().map(Step::RemoveJail));
    steps.extend(half_launched.iter().copied().map(Step::Settle));
    if have.bridge != Bridge::Foreign {
        steps.extend(
            have.taps.iter().copied().filter(|tap| !claimed.contains(&tap.vm())).map(Step::DeleteTap),
        );
    }
    steps.extend(gone.iter().copied().map(Step::Forget));
    match (exists.bridge, have.bridge) {
        (_, Bridge::Foreign) => {}
        (None, Bridge::Missing | Bridge::Ours) if have.firewall => steps.push(Step::UnloadFirewall),
        (None, Bridge::Missing | Bridge::Ours) => {}
        (Some(_), Bridge::Missing | Bridge::Ours) => {
            // A bridge that was made again has no ports, so that each tap is put in its place.
            steps.push(Step::RestoreBridge);
            let there = |vm: &VmId| have.bridge == Bridge::Ours && have.taps.contains(&TapName::of(*vm));
            let missing = claimed.iter().copied().filter(|vm| exists.vms.contains_key(vm) && !there(vm));
            steps.extend(missing.map(Step::RestoreTap));
            steps.push(Step::LoadFirewall);
        }
    }
    steps
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::RemoveJail(vm) => write!(f, "remove the jail of VM {vm}"),
            Self::DeleteTap(tap) => write!(f, "delete tap {tap}"),
            Self::Forget(vm) => write!(f, "forget VM {vm}"),
            Self::Settle(vm) => write!(f, "forget the launch of VM {vm}"),
            Self::RestoreBridge => f.write_str("restore the bridge"),
            Self::RestoreTap(vm) => write!(f, "restore the tap of VM {vm}"),
            Self::LoadFirewall => f.write_str("load the firewall"),
            Self::UnloadFirewall => f.write_str("unload the firewall"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::network::subnet;
    use crate::proto::root::Port;
    use crate::root::records::{BridgeRecord, Record};
    use crate::vm::state::{Process, Processes};

    fn id(n: u64) -> VmId {
        VmId::from_random(n)
    }

    fn exists(vms: &[(u64, bool, Option<Doing>)], unreadable: &[u64]) -> Exists {
        let record = |(n, launched, doing): &(u64, bool, Option<Doing>)| Record {
            vm: id(*n),
            port: Port { slot: 9, nat: false, lan: false, direct: false },
            processes: launched.then_some(Processes { vmm: Process { pid: 9, started: 9 }, vsock: None }),
            doing: *doing,
        };
        Exists {
            bridge: Some(BridgeRecord { subnet: subnet::DEFAULT, dns_port: 42069 }),
            vms: vms.iter().map(|vm| (id(vm.0), record(vm))).collect(),
            unreadable: unreadable.iter().map(|n| id(*n)).collect(),
        }
    }

    fn have(bridge: Bridge, taps: &[u64], jails: &[u64]) -> Have {
        Have {
            bridge,
            taps: taps.iter().map(|n| TapName::of(id(*n))).collect(),
            firewall: true,
            jails: jails.iter().map(|n| id(*n)).collect(),
        }
    }

    fn steps(exists: &Exists, have: &Have) -> String {
        plan(exists, have).iter().map(|step| format!("{step}\n")).collect()
    }

    #[test]
    fn what_is_as_it_is_claimed_is_only_loaded_again() {
        let exists = exists(&[(1, false, None), (2, true, None)], &[]);
        let steps = steps(&exists, &have(Bridge::Ours, &[1, 2], &[2]));
        assert_eq!(steps, "restore the bridge\nload the firewall\n");
    }

    #[test]
    fn what_nobody_claims_goes_and_what_cannot_be_read_stays() {
        let exists = exists(&[(1, false, None)], &[4]);
        let steps = steps(&exists, &have(Bridge::Ours, &[1, 3, 4], &[1, 4, 5]));
        assert_eq!(
            steps,
            "remove the jail of VM 000000000001\nremove the jail of VM 000000000005\ndelete tap bgr000000000003\n\
             restore the bridge\nload the firewall\n"
        );
    }

    #[test]
    fn what_was_not_finished_is_taken_back() {
        let exists = exists(
            &[
                (1, false, Some(Doing::CreatingTap)),
                (2, false, Some(Doing::Launching)),
                (3, true, Some(Doing::Removing)),
            ],
            &[],
        );
        let steps = steps(&exists, &have(Bridge::Ours, &[1, 2, 3], &[2]));
        assert_eq!(
            steps,
            "remove the jail of VM 000000000001\nremove the jail of VM 000000000002\nremove the jail of VM 000000000003\n\
             forget the launch of VM 000000000002\ndelete tap bgr000000000001\ndelete tap bgr000000000003\n\
             forget VM 000000000001\nforget VM 000000000003\nrestore the bridge\nload the firewall\n"
        );
    }

    #[test]
    fn what_is_claimed_and_missing_is_made_again() {
        let exists = exists(&[(1, false, None), (2, true, None)], &[3]);
        let want = "restore the bridge\nrestore the tap of VM 000000000002\nload the firewall\n";
        assert_eq!(steps(&exists, &have(Bridge::Ours, &[1], &[2])), want);
        // Without the bridge the taps that are there are nobody's ports.
        let want = "restore the bridge\nrestore the tap of VM 000000000001\nrestore the tap of VM 000000000002\nload the firewall\n";
        assert_eq!(steps(&exists, &have(Bridge::Missing, &[1], &[2])), want);
    }

    #[test]
    fn somebody_elses_bridge_and_what_is_on_it_are_left_alone() {
        let exists = exists(&[(1, false, None)], &[]);
        assert_eq!(
            steps(&exists, &have(Bridge::Foreign, &[7, 8], &[9])),
            "remove the jail of VM 000000000009\n"
        );
        let nothing = Exists::default();
        assert_eq!(
            steps(&nothing, &have(Bridge::Missing, &[7], &[])),
            "delete tap bgr000000000007\nunload the firewall\n"
        );
    }
}
