//! Looks at all VMs again and again, on a thread of its own: a daemon or a guest that takes its time keeps no key waiting.

use std::collections::BTreeMap;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::Duration;

use super::state::Row;
use super::{News, Post};
use crate::cli::client::Client;
use crate::cli::render;
use crate::cli::usage::{self, Usage, look};
use crate::cli::vm::list::{uptime, workspace};
use crate::cli::vm::ports::running;
use crate::cli::vm::several::{Meant, at_once};
use crate::host::causes::chain;
use crate::proto::api::{StatsView, VmList, VmView};
use crate::vm::state::State;

const EVERY: Duration = Duration::from_millis(1500);
/// How long a guest may keep the others' numbers waiting.
const PATIENCE: Duration = Duration::from_millis(1500);

/// Until `over` has nobody at its other end. A message on it asks for a look at once.
pub fn run(client: &Client, post: &Post, over: &Receiver<()>) {
    let mut before: BTreeMap<String, StatsView> = BTreeMap::new();
    loop {
        match client.ask_running(VmList {}) {
            Ok(vms) => {
                // Who is there is shown before it is known what they use.
                if before.is_empty() {
                    post.send(News::Vms(vms.iter().map(|vm| row(vm, None)).collect()));
                }
                let (rows, after) = sample(client, &vms, &before);
                before = after;
                post.send(News::Vms(rows));
            }
            Err(e) => post.send(News::Trouble(format!("{}; what is shown is old", chain(&e)))),
        }
        match over.recv_timeout(EVERY) {
            Ok(()) | Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => return,
        }
    }
}

fn sample(
    client: &Client,
    vms: &[VmView],
    before: &BTreeMap<String, StatsView>,
) -> (Vec<Row>, BTreeMap<String, StatsView>) {
    let meant = running(vms);
    let outcomes = at_once(|id| look(client, id, before.get(id).cloned(), PATIENCE), &meant, vms);
    let mut seen: BTreeMap<usize, Usage> = BTreeMap::new();
    for (meant, outcome) in meant.iter().zip(outcomes) {
        if let (Meant::Vm(at), Some(Ok(usage))) = (meant, outcome) {
            seen.insert(*at, usage);
        }
    }
    let rows = vms.iter().enumerate().map(|(at, vm)| row(vm, seen.get(&at))).collect();
    let after = seen.into_iter().map(|(at, usage)| (vms[at].record.id.to_string(), usage.view));
    (rows, after.collect())
}

fn row(vm: &VmView, usage: Option<&Usage>) -> Row {
    let record = &vm.record;
    let guest = usage.and_then(|usage| usage.view.guest.as_ref());
    let rates = usage.map(|usage| usage.rates).unwrap_or_default();
    Row {
        id: record.id.to_string(),
        name: record.name.to_string(),
        state: record.state.label().to_owned(),
        runs: matches!(record.state, State::Running { .. }),
        // A guest that does not answer may keep its VMM busy all the same.
        cpu: usage::percent(rates.cpu_percent.or(rates.vmm_cpu_percent)),
        memory: usage::memory(guest),
        disk: usage::disk(guest),
        net: usage::pair(rates.net_received_bytes_per_s, rates.net_sent_bytes_per_s),
        uptime: uptime(record, render::now()),
        workspace: workspace(record).to_owned(),
    }
}
