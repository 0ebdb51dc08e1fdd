//! `banger vm stats`: what VMs use, once or again and again.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use argh::{ArgsInfo, FromArgs};
use serde::Serialize;

use super::ports::running;
use super::several::{Meant, at_once, complain, resolve};
use crate::cli::client::Client;
use crate::cli::error::Error;
use crate::cli::render;
use crate::cli::usage::rates::Rates;
use crate::cli::usage::{self, Usage, look};
use crate::proto::api::{StatsView, VmList, VmView};
use crate::vm::duration;

#[derive(FromArgs, ArgsInfo, Debug)]
/// Show what VMs use of CPUs, memory, disk and network: inside, as their kernels say, and of this host.
#[argh(
    subcommand,
    name = "stats",
    usage = "[<vm>...] [<options>]",
    help_triggers("-h", "--help", "help"),
    example = "banger vm stats                        # of all VMs that run\n\
               banger vm stats dev --watch\n\
               banger vm stats --watch --every 10s --json > usage.jsonl",
    note = "Rates are of the time since the last look; the first takes two, 200 ms apart. 100 % of CPU is one CPU. A guest that does not answer within two seconds has - in its place.\n\
            Fields of --json: vm, id, guest (null if it does not answer: at_ms, clock_ns, cpus, cpu_busy_ms, load_hundredths, processes, memory_bytes, memory_available_bytes, disk_bytes, disk_free_bytes, disk_read_bytes, disk_written_bytes, net_received_bytes, net_sent_bytes), vmm (null if it has ended: at_ms, pid, cpu_ms, memory_bytes, disk_read_bytes, disk_written_bytes, disk_bytes, net_received_bytes, net_sent_bytes), rates (cpu_percent, disk_read_bytes_per_s, disk_written_bytes_per_s, net_received_bytes_per_s, net_sent_bytes_per_s, vmm_cpu_percent), problem (why there is nothing of the guest). Counters count from the start of the guest or the VMM; what a kernel does not tell is null. With --watch, one line for each VM each time, and at_ms (milliseconds since 1970)."
)]
pub struct Stats {
    /// names, ids, or beginnings of ids; all VMs that run if not given
    #[argh(positional)]
    vm: Vec<String>,
    /// go on until Ctrl-C, every two seconds if --every says nothing else
    #[argh(switch, short = 'w')]
    watch: bool,
    /// how often, such as 10s; with --watch
    #[argh(option, arg_name = "time")]
    every: Option<String>,
    /// print JSON
    #[argh(switch)]
    json: bool,
}

/// How long a guest may take, and how often VMs are looked at.
const PATIENCE: Duration = Duration::from_secs(2);
const EVERY: Duration = Duration::from_secs(2);
const SHORTEST: Duration = Duration::from_millis(500);

#[derive(Serialize)]
struct Row<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    at_ms: Option<u64>,
    vm: &'a str,
    id: String,
    #[serde(flatten)]
    view: &'a StatsView,
    rates: Rates,
}

impl Stats {
    pub fn run(&self) -> Result<(), Error> {
        let client = Client::from_env()?;
        if !self.watch {
            if self.every.is_some() {
                return Err(Error::Refused("--every says how often; add --watch".to_owned()));
            }
            return self.once(&client);
        }
        let every = match &self.every {
            Some(text) => {
                duration::parse(text).map_err(|e| Error::Refused(format!("--every: {e}")))?.max(SHORTEST)
            }
            None => EVERY,
        };
        self.again_and_again(&client, every)
    }

    fn once(&self, client: &Client) -> Result<(), Error> {
        let vms = client.ask(VmList {})?;
        let meant = self.meant(&vms);
        let outcomes = at_once(|id| look(client, id, None, PATIENCE), &meant, &vms);
        let (mut seen, mut errors) = (vec![], vec![]);
        for (meant, outcome) in meant.iter().zip(outcomes) {
            match (meant, outcome) {
                (Meant::Vm(at), Some(Ok(usage))) => seen.push((&vms[*at], usage)),
                (Meant::Vm(_), Some(Err(e))) => errors.push(e.into()),
                (Meant::Vm(_), None) => {}
                (Meant::Nothing(e), _) => errors.push(Error::Refused(e.to_string())),
            }
        }
        if self.json {
            let rows: Vec<Row<'_>> = seen.iter().map(|(vm, usage)| row(vm, usage, None)).collect();
            render::json(&rows)?;
        } else if !seen.is_empty() || errors.is_empty() {
            render::out(&table(&seen))?;
        }
        complain(errors)
    }

    fn again_and_again(&self, client: &Client, every: Duration) -> Result<(), Error> {
        let mut before: BTreeMap<String, StatsView> = BTreeMap::new();
        // The first look is at a list of a daemon that is started if need be; a daemon that ends later ends this.
        let mut vms = client.ask(VmList {})?;
        loop {
            let begun = Instant::now();
            let meant = self.meant(&vms);
            let patience = every.min(PATIENCE);
            let outcomes = at_once(|id| look(client, id, before.get(id).cloned(), patience), &meant, &vms);
            let mut seen = vec![];
            for (meant, outcome) in meant.iter().zip(outcomes) {
                match (meant, outcome) {
                    (Meant::Vm(at), Some(Ok(usage))) => seen.push((&vms[*at], usage)),
                    // It does not run now, and may again.
                    (Meant::Vm(at), Some(Err(e))) => {
                        let view = StatsView { guest: None, vmm: None, problem: Some(e.to_string()) };
                        seen.push((&vms[*at], Usage { view, rates: Rates::default() }));
                    }
                    (Meant::Vm(_), None) => {}
                    (Meant::Nothing(e), _) => return Err(Error::Refused(e.to_string())),
                }
            }
            if self.json {
                let now = Some(render::now_ms());
                for (vm, usage) in &seen {
                    render::json_line(&row(vm, usage, now))?;
                }
            } else {
                render::anew(&table(&seen))?;
            }
            before = seen.into_iter().map(|(vm, usage)| (vm.record.id.to_string(), usage.view)).collect();
            std::thread::sleep(every.saturating_sub(begun.elapsed()));
            vms = client.ask_running(VmList {})?;
        }
    }

    fn meant(&self, vms: &[VmView]) -> Vec<Meant> {
        if self.vm.is_empty() { running(vms) } else { resolve(&self.vm, vms) }
    }
}

fn row<'a>(vm: &'a VmView, usage: &'a Usage, at_ms: Option<u64>) -> Row<'a> {
    let (id, rates) = (vm.record.id.to_string(), usage.rates);
    Row { at_ms, vm: vm.record.name.as_str(), id, view: &usage.view, rates }
}

fn table(seen: &[(&VmView, Usage)]) -> String {
    let rows: Vec<_> = seen.iter().map(|(vm, usage)| line(vm, usage)).collect();
    let header = [
        "NAME",
        "CPU",
        "LOAD",
        "PROCS",
        "MEMORY",
        "DISK",
        "READ/WRITE PER S",
        "NET IN/OUT PER S",
        "VMM CPU",
        "VMM MEM",
        "VMM DISK",
    ];
    render::table(header, &rows)
}

fn line(vm: &VmView, usage: &Usage) -> [String; 11] {
    let Usage { view, rates } = usage;
    let (guest, vmm) = (view.guest.as_ref(), view.vmm.as_ref());
    [
        vm.record.name.to_string(),
        usage::percent(rates.cpu_percent),
        usage::load(guest),
        usage::processes(guest),
        usage::memory(guest),
        usage::disk(guest),
        usage::pair(rates.disk_read_bytes_per_s, rates.disk_written_bytes_per_s),
        usage::pair(rates.net_received_bytes_per_s, rates.net_sent_bytes_per_s),
        usage::percent(rates.vmm_cpu_percent),
        usage::size(vmm, |vmm| vmm.memory_bytes),
        usage::size(vmm, |vmm| vmm.disk_bytes),
    ]
}
