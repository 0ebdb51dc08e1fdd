//! At start: what the store says, compared with what is there (DESIGN D8). The plan is pure; applying it is one match.

use std::collections::BTreeSet;
use std::fmt;
use std::path::{Path, PathBuf};

use crate::daemon::driver::remove_files;
use crate::daemon::exit;
use crate::daemon::fault::Fault;
use crate::daemon::op::Op;
use crate::daemon::orders::{Order, What};
use crate::daemon::{Shared, names_in, network};
use crate::host::process;
use crate::image::record::ImageRecord;
use crate::kernel::record::KernelRecord;
use crate::network::lease::Lease;
use crate::store::Changes;
use crate::store::record::Run;
use crate::vm::id::VmId;
use crate::vm::record::VmRecord;
use crate::vm::state::{Event, Process, State};

/// One thing to do.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Step {
    /// The VM is as its record says, running or not.
    Adopt(VmId),
    /// The daemon died while it stopped this VM.
    FinishStop(VmId),
    /// The daemon died while it deleted this VM.
    FinishDelete(VmId),
    /// A process of a VM that is not running.
    End(VmId, Process),

    /// The VM's state changed while nobody looked.
    Settle(VmId, Event),
    /// Nothing in the store needs it.
    Remove(PathBuf),
}

/// Whatever of VMs, images and kernels there is on disk, by name.
#[derive(Debug, Default)]
struct Found {
    vms: Vec<String>,
    sockets: Vec<String>,
    images: Vec<String>,
    kernels: Vec<String>,
    state: Vec<String>,
}

/// What the store knows and banger has files of, by name.
struct Known<'a> {
    vms: &'a [VmRecord],
    images: BTreeSet<String>,
    kernels: BTreeSet<String>,
    /// Those whose processes only root can end, and does when all else is settled ([`network::restore`]).
    jailed: BTreeSet<VmId>,
}

/// The steps from what is known and found to agreement. Paths are relative to `vms/` and so on, below state and runtime.
fn plan(known: &Known<'_>, found: &Found, alive: impl Fn(Process) -> bool) -> Vec<Step> {
    let mut steps = vec![];
    for vm in known.vms {
        let (vmm, vsock) = match vm.state.processes() {
            Some(p) => (Some(p.vmm).filter(|p| alive(*p)), p.vsock.filter(|p| alive(*p))),
            None => (None, None),
        };
        let ours = !known.jailed.contains(&vm.id);
        let end = [vmm, vsock].into_iter().flatten().filter(|_| ours).map(|p| Step::End(vm.id, p));
        match (&vm.state, vmm) {
            (State::Stopped | State::Failed { .. }, _) | (State::Running { .. }, Some(_)) => {}
            (State::Stopping { .. }, Some(_)) => {
                steps.push(Step::FinishStop(vm.id));
                continue;
            }
            (State::Running { .. } | State::Stopping { .. }, None) => {
                steps.extend(end);
                steps.push(Step::Settle(vm.id, Event::Exited));
            }
            (State::Starting { .. }, _) => {
                steps.extend(end);
                let reason = "bangerd ended while the VM was starting".to_owned();
                steps.push(Step::Settle(vm.id, Event::GaveUp(reason)));
            }
            (State::Deleting, _) => {
                steps.push(Step::FinishDelete(vm.id));
                continue;
            }
        }
        steps.push(Step::Adopt(vm.id));
    }
    let vms: BTreeSet<String> = known.vms.iter().map(|vm| vm.id.to_string()).collect();
    let with_processes: BTreeSet<String> = known
        .vms
        .iter()
        .filter(|vm| match vm.state {
            State::Running { processes } | State::Stopping { processes } => alive(processes.vmm),
            // What was starting is given up.
            State::Starting { .. } | State::Stopped | State::Failed { .. } | State::Deleting => false,
        })
        .map(|vm| vm.id.to_string())
        .collect();
    let mut remove = |below: &str, names: &[String], keep: &dyn Fn(&str) -> bool| {
        steps.extend(names.iter().filter(|n| !keep(n)).map(|n| Step::Remove(Path::new(below).join(n))));
    };
    remove("vms", &found.vms, &|name| vms.contains(name));
    remove("sockets", &found.sockets, &|name| with_processes.contains(name));
    remove("images", &found.images, &|name| {
        name.strip_suffix(".ext4").is_some_and(|id| known.images.contains(id))
    });
    remove("kernels", &found.kernels, &|name| known.kernels.contains(name));
    remove("", &found.state, &|name| !name.starts_with(".staged-"));
    steps
}

/// Makes the store and the host agree, before the first client is served.
pub fn at_start(d: &Shared) -> Result<(), Fault> {
    let records = d.store.all::<VmRecord>()?;
    let own = |image: &ImageRecord| image.path.is_none();
    let known = Known {
        vms: &records,
        images: d.store.all::<ImageRecord>()?.into_iter().filter(own).map(|i| i.id).collect(),
        kernels: d.store.all::<KernelRecord>()?.into_iter().map(|k| k.name).collect(),
        jailed: d.store.all::<Run>()?.into_iter().filter(|run| run.jailed).map(|run| run.vm).collect(),
    };
    let names = |dir: &Path| {
        names_in(dir).map_err(|e| Fault::failed(format!("cannot look into {}", dir.display()), &e))
    };
    let found = Found {
        vms: names(&d.dirs.state.join("vms"))?,
        sockets: names(&d.dirs.runtime.join("vms"))?,
        images: names(&d.dirs.images())?,
        kernels: names(&d.dirs.state.join("kernels"))?,
        state: names(&d.dirs.state)?,
    };
    let alive = |process| match process::is_alive(process) {
        Ok(alive) => alive,
        Err(e) => {
            log::warn!("cannot look at process {}: {e}", process.pid);
            false
        }
    };
    let op = Op::own();
    for step in plan(&known, &found, alive) {
        match &step {
            // One for each VM there is: not worth a line.
            Step::Adopt(id) if d.store.get::<Run>(id)?.is_none() => log::debug!("{op} {step}"),
            _ => log::info!("{op} {step}"),
        }
        apply(d, &step)?;
    }
    if let Err(fault) = network::restore(d) {
        // The VMs are there all the same; whatever needs the bridge will say so again.
        log::error!("{op} {}", fault.message);
    }
    Ok(())
}

fn apply(d: &Shared, step: &Step) -> Result<(), Fault> {
    match step {
        Step::Adopt(id) => {
            if let Some(record) = d.store.get::<VmRecord>(id)? {
                d.vms.adopt(d, record);
            }
            Ok(())
        }
        Step::FinishStop(id) => {
            apply(d, &Step::Adopt(*id))?;
            let (order, _) = Order::new(What::Stop { force: true }, &Op::own());
            if d.vms.order(*id, order).is_err() {
                log::error!("vm {id}: it cannot be stopped");
            }
            Ok(())
        }
        Step::FinishDelete(id) => {
            if let Err(fault) = remove_files(d, *id) {
                // It can be deleted once more when that is mended; the others need not wait for it.
                log::error!("vm {id}: {}", fault.message);
                return apply(d, &Step::Adopt(*id));
            }
            let changes = Changes::new().remove::<VmRecord>(id).remove::<Run>(id).remove::<Lease>(id);
            Ok(d.store.apply(changes)?)
        }
        Step::End(_, process) => {
            smol::block_on(exit::end(*process));
            Ok(())
        }
        Step::Settle(id, event) => {
            let Some(mut record) = d.store.get::<VmRecord>(id)? else { return Ok(()) };
            record.state = record.state.on(event.clone())?;
            Ok(d.store.apply(Changes::new().put(&record).remove::<Run>(id))?)
        }
        Step::Remove(path) => {
            let path = match path.strip_prefix("sockets") {
                Ok(rest) => d.dirs.runtime.join("vms").join(rest),
                Err(_) => d.dirs.state.join(path),
            };
            let removed = match std::fs::symlink_metadata(&path) {
                Ok(meta) if meta.is_dir() => crate::host::files::remove_tree_if_present(&path),
                _ => crate::host::files::remove_if_present(&path),
            };
            // What cannot be removed is in nobody's way.
            if let Err(e) = removed {
                log::error!("cannot remove {}: {e}", path.display());
            }
            Ok(())
        }
    }
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Adopt(id) => write!(f, "adopt vm {id}"),
            Self::FinishStop(id) => write!(f, "finish stopping vm {id}"),
            Self::FinishDelete(id) => write!(f, "finish deleting vm {id}"),
            Self::End(id, process) => write!(f, "end process {} of vm {id}", process.pid),
            Self::Settle(id, Event::GaveUp(reason)) => write!(f, "vm {id} has failed: {reason}"),
            Self::Settle(id, _) => write!(f, "vm {id} has ended"),
            Self::Remove(path) => write!(f, "remove {}, which nothing needs", path.display()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::vm::size::Mib;
    use crate::vm::spec::{Spec, VmmChoice};
    use crate::vm::state::Processes;

    fn vm(n: u64, state: State) -> VmRecord {
        VmRecord {
            id: VmId::from_random(n),
            name: format!("v{n}").parse().expect("a name"),
            image: "i".to_owned(),
            image_name: "i".to_owned(),
            kernel: None,
            spec: Spec {
                vcpu: 1,
                memory: Mib(512),
                disk: Mib(1024),
                vmm: VmmChoice::Auto,
                accel: Default::default(),
                nat: false,
                lan: false,
            },
            publish: vec![],
            state,
            created_at: 0,
            started_at: None,
            owner: None,
            expires_at: None,
            workspaces: vec![],
        }
    }

    fn steps(vms: &[VmRecord], found: &Found, alive: &[u32]) -> Vec<String> {
        let known = Known {
            vms,
            images: ["aa".to_owned()].into(),
            kernels: ["6.1".to_owned()].into(),
            jailed: [VmId::from_random(9)].into(),
        };
        plan(&known, found, |p| alive.contains(&p.pid)).iter().map(ToString::to_string).collect()
    }

    #[test]
    fn every_state_with_and_without_its_processes_has_its_steps() {
        let process = |pid| Process { pid, started: 1 };
        let processes = Processes { vmm: process(7), vsock: Some(process(8)) };
        let starting = State::Starting { processes };
        let running = State::Running { processes };
        let stopping = State::Stopping { processes };
        let failed = State::Failed { reason: "x".to_owned() };
        let (adopt, ended) = ("adopt vm 000000000001", "vm 000000000001 has ended");
        let (end7, end8) = ("end process 7 of vm 000000000001", "end process 8 of vm 000000000001");
        let gave_up = "vm 000000000001 has failed: bangerd ended while the VM was starting";
        let table: Vec<(State, &[u32], Vec<&str>)> = vec![
            (State::Stopped, &[7, 8], vec![adopt]),
            (failed, &[], vec![adopt]),
            (State::Deleting, &[], vec!["finish deleting vm 000000000001"]),
            (running.clone(), &[7, 8], vec![adopt]),
            (running.clone(), &[7], vec![adopt]),
            (running.clone(), &[8], vec![end8, ended, adopt]),
            (running, &[], vec![ended, adopt]),
            (stopping.clone(), &[7, 8], vec!["finish stopping vm 000000000001"]),
            (stopping, &[8], vec![end8, ended, adopt]),
            (starting.clone(), &[7, 8], vec![end7, end8, gave_up, adopt]),
            (starting.clone(), &[8], vec![end8, gave_up, adopt]),
            (starting, &[], vec![gave_up, adopt]),
        ];
        for (state, alive, want) in table {
            let got = steps(&[vm(1, state.clone())], &Found::default(), alive);
            assert_eq!(got, want, "{} with {alive:?}", state.label());
        }
    }

    #[test]
    fn what_root_has_started_is_not_ended_by_us() {
        let process = |pid| Process { pid, started: 1 };
        let processes = Processes { vmm: process(7), vsock: Some(process(8)) };
        let got = steps(&[vm(9, State::Starting { processes })], &Found::default(), &[7, 8]);
        let gave_up = "vm 000000000009 has failed: bangerd ended while the VM was starting";
        assert_eq!(got, [gave_up, "adopt vm 000000000009"]);
    }

    #[test]
    fn sockets_stay_with_those_who_run_and_nobody_else() {
        let process = |pid| Process { pid, started: 1 };
        let processes = |pid| Processes { vmm: process(pid), vsock: None };
        let vms = [
            vm(1, State::Running { processes: processes(11) }),
            vm(2, State::Starting { processes: processes(12) }),
            vm(3, State::Running { processes: processes(13) }),
        ];
        let names = ["000000000001", "000000000002", "000000000003"].map(str::to_owned).to_vec();
        let found = Found { sockets: names, ..Found::default() };
        let got = steps(&vms, &found, &[11, 12]);
        let removed: Vec<&String> = got.iter().filter(|step| step.starts_with("remove ")).collect();
        assert_eq!(
            removed,
            [
                "remove sockets/000000000002, which nothing needs",
                "remove sockets/000000000003, which nothing needs"
            ]
        );
    }

    #[test]
    fn what_nothing_needs_is_removed_and_the_rest_stays() {
        let names = |s: &str| s.split_whitespace().map(str::to_owned).collect::<Vec<_>>();
        let found = Found {
            vms: names("000000000001 000000000002"),
            sockets: names("000000000001 000000000002"),
            images: names("aa.ext4 bb.ext4 .staged-op-1"),
            kernels: names("6.1 6.2 .staged-op-2"),
            state: names("banger.redb vms bangerd.log .staged-banger.redb"),
        };
        assert_eq!(
            steps(&[vm(1, State::Stopped)], &found, &[]),
            [
                "adopt vm 000000000001",
                "remove vms/000000000002, which nothing needs",
                "remove sockets/000000000001, which nothing needs",
                "remove sockets/000000000002, which nothing needs",
                "remove images/bb.ext4, which nothing needs",
                "remove images/.staged-op-1, which nothing needs",
                "remove kernels/6.2, which nothing needs",
                "remove kernels/.staged-op-2, which nothing needs",
                "remove .staged-banger.redb, which nothing needs",
            ]
        );
    }
}
