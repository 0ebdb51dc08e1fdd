//! What happens, told to whoever listens (`banger events`). A listener that does not keep up loses some and is told how many; nobody
//! waits for it.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use smol::channel::{Receiver, Sender, TrySendError, bounded};
use smol::future;

use crate::daemon::Shared;
use crate::daemon::fault::Fault;
use crate::daemon::guest_text::harmless;
use crate::daemon::op::Op;
use crate::image::record::ImageRecord;
use crate::proto::api::{DaemonEvents, Event, Happening, What};
use crate::vm::record::VmRecord;
use crate::vm::state::State;

/// How many wait for a listener.
const WAITING: usize = 1024;
/// How many are remembered for those who come later.
const REMEMBERED: usize = 1024;
/// The longest detail, in characters.
const DETAIL: usize = 500;

#[derive(Default)]
pub struct Events(Mutex<Inner>);

#[derive(Default)]
struct Inner {
    listeners: Vec<Telling>,
    past: VecDeque<Happening>,
}

struct Telling {
    queue: Sender<Happening>,
    lost: Arc<AtomicU64>,
}

/// The receiving end; dropping it ends the listening.
struct Listener {
    past: VecDeque<Happening>,
    queue: Receiver<Happening>,
    lost: Arc<AtomicU64>,
}

impl Events {
    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn tell(&self, happening: Happening) {
        let mut inner = self.lock();
        inner.listeners.retain(|listener| listener.tell(&happening));
        if inner.past.len() == REMEMBERED {
            inner.past.pop_front();
        }
        inner.past.push_back(happening);
    }

    fn listen(&self, since_ms: Option<u64>) -> Listener {
        let (queue, receiver) = bounded(WAITING);
        let lost = Arc::new(AtomicU64::new(0));
        let mut inner = self.lock();
        inner.listeners.push(Telling { queue, lost: Arc::clone(&lost) });
        let wanted = |h: &&Happening| since_ms.is_some_and(|since| h.at_ms >= since);
        Listener { past: inner.past.iter().filter(wanted).cloned().collect(), queue: receiver, lost }
    }

    pub fn vm(&self, op: Option<&Op>, what: What, record: &VmRecord, detail: Option<&str>) {
        self.tell(Happening {
            id: Some(record.id.to_string()),
            name: Some(record.name.to_string()),
            ..happening(op, what, detail)
        });
    }

    /// What became of a VM's record, if anything that somebody could want to know.
    pub fn vm_took(&self, op: &Op, before: &VmRecord, after: &VmRecord) {
        if let Some((what, detail)) = difference(before, after) {
            self.vm(Some(op), what, after, detail.as_deref());
        }
    }

    pub fn image(&self, op: Option<&Op>, what: What, record: &ImageRecord) {
        self.tell(Happening {
            id: Some(record.id.clone()),
            name: record.names.first().map(|name| harmless(name, DETAIL)),
            ..happening(op, what, Some(&record.names.join(", ")))
        });
    }

    pub fn kernel(&self, op: Option<&Op>, what: What, name: &str) {
        let name = Some(harmless(name, DETAIL));
        self.tell(Happening { id: name.clone(), name, ..happening(op, what, None) });
    }

    pub fn operation(&self, op: &Op, method: &str, subject: &str, what: What, detail: Option<&str>) {
        self.tell(Happening {
            name: Some(harmless(subject, DETAIL)),
            method: Some(method.to_owned()),
            ..happening(Some(op), what, detail)
        });
    }
}

fn happening(op: Option<&Op>, what: What, detail: Option<&str>) -> Happening {
    Happening {
        op: op.map(|op| op.id().to_owned()),
        detail: detail.map(|detail| harmless(detail, DETAIL)),
        ..Happening::new(now_ms(), what)
    }
}

/// Milliseconds since 1970.
pub fn now_ms() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as u64)
}

fn difference(before: &VmRecord, after: &VmRecord) -> Option<(What, Option<String>)> {
    if before.state.label() != after.state.label() {
        return Some(match &after.state {
            State::Stopped => (What::VmStopped, None),
            State::Starting { .. } => (What::VmStarting, None),
            State::Running { .. } => (What::VmRunning, None),
            State::Stopping { .. } => (What::VmStopping, None),
            State::Failed { reason } => (What::VmFailed, Some(reason.clone())),
            State::Deleting => (What::VmDeleting, None),
        });
    }
    if before.workspaces != after.workspaces {
        return Some((What::VmWorkspace, after.workspaces.last().map(|brought| brought.guest_path.clone())));
    }
    if before.name != after.name {
        return Some((What::VmChanged, Some(format!("it was called {}", before.name))));
    }
    let same = VmRecord { state: after.state.clone(), ..before.clone() } == *after;
    (!same).then(|| (What::VmChanged, Some(after.spec.to_string())))
}

impl Telling {
    /// Returns whether anybody listens still.
    fn tell(&self, happening: &Happening) -> bool {
        // What was lost is told where it is missing: behind what waited then, and before what comes now.
        let lost = self.lost.swap(0, Ordering::Relaxed);
        let first = (lost > 0).then(|| losses(lost));
        for (told, next) in first.into_iter().chain([happening.clone()]).enumerate() {
            match self.queue.try_send(next) {
                Ok(()) => {}
                Err(TrySendError::Full(_)) => {
                    let again = if told == 0 { lost } else { 0 };
                    self.lost.fetch_add(again + 1, Ordering::Relaxed);
                    return true;
                }
                Err(TrySendError::Closed(_)) => return false,
            }
        }
        true
    }
}

impl Listener {
    /// The next one. None: nothing more will come.
    async fn next(&mut self) -> Option<Happening> {
        if let Some(past) = self.past.pop_front() {
            return Some(past);
        }
        if let Ok(waiting) = self.queue.try_recv() {
            return Some(waiting);
        }
        match self.lost.swap(0, Ordering::Relaxed) {
            0 => self.queue.recv().await.ok(),
            count => Some(losses(count)),
        }
    }
}

fn losses(count: u64) -> Happening {
    Happening { count: Some(count), ..Happening::new(now_ms(), What::Lost) }
}

/// Tells the client of `op` what happens, until it has gone.
pub async fn stream(d: &Shared, op: &Op, wanted: DaemonEvents) -> Result<(), Fault> {
    let mut listener = d.events.listen(wanted.since_ms);
    let telling = async {
        while let Some(happening) = listener.next().await {
            if !op.tell(Event::Happened(Box::new(happening))).await {
                return;
            }
        }
    };
    future::or(op.gone(), telling).await;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::vm::workspace::Workspace;

    fn record() -> VmRecord {
        let json = serde_json::json!({
            "id": "000000000001", "name": "dev", "image": "i", "image_name": "debian",
            "spec": { "vcpu": 1, "memory_mib": 512, "disk_mib": 8192, "vmm": "auto", "accel": "auto", "nat": false },
            "state": "stopped", "created_at": 0,
        });
        serde_json::from_value(json).expect("a record")
    }

    #[test]
    fn what_became_of_a_vm_is_told_in_one_word() {
        let before = record();
        assert_eq!(difference(&before, &before), None);
        let failed = VmRecord { state: State::Failed { reason: "no".to_owned() }, ..record() };
        assert_eq!(difference(&before, &failed), Some((What::VmFailed, Some("no".to_owned()))));
        let other = VmRecord { state: State::Failed { reason: "still no".to_owned() }, ..record() };
        assert_eq!(difference(&failed, &other), None, "it failed before");
        let workspace = Workspace {
            guest_path: "/root/a".to_owned(),
            source: "/a".to_owned(),
            head: None,
            branch: None,
            from: None,
            prepared_at: 1,
            untracked: false,
        };
        let brought = VmRecord { workspaces: vec![workspace], ..record() };
        assert_eq!(difference(&before, &brought), Some((What::VmWorkspace, Some("/root/a".to_owned()))));
        let mut bigger = record();
        bigger.spec.vcpu = 4;
        let (what, detail) = difference(&before, &bigger).expect("a change");
        assert!(what == What::VmChanged && detail.is_some_and(|spec| spec.starts_with("4 vcpu")));
    }

    #[test]
    fn a_slow_listener_holds_nobody_up_and_is_told_what_it_lost() {
        let events = Events::default();
        let mut slow = events.listen(None);
        for n in 0..WAITING + 7 {
            events.kernel(None, What::KernelChanged, &format!("k{n}"));
        }
        smol::block_on(async {
            for n in 0..2 {
                assert_eq!(slow.next().await.and_then(|h| h.name), Some(format!("k{n}")));
            }
            events.kernel(None, What::KernelChanged, "later");
            events.kernel(None, What::KernelChanged, "lost");
            for n in 2..WAITING {
                assert_eq!(slow.next().await.and_then(|h| h.name), Some(format!("k{n}")));
            }
            for (what, count) in [(What::Lost, Some(7)), (What::KernelChanged, None), (What::Lost, Some(1))] {
                let next = slow.next().await.expect("is told");
                assert_eq!((next.what, next.count), (what, count));
            }
        });
        drop(slow);
        events.kernel(None, What::KernelChanged, "k");
        assert!(events.lock().listeners.is_empty(), "who has gone is forgotten");
    }

    #[test]
    fn the_past_is_told_to_those_who_ask_and_does_not_grow() {
        let events = Events::default();
        for n in 0..REMEMBERED + 3 {
            events.kernel(None, What::KernelChanged, &format!("k\u{1b}{n}"));
        }
        assert_eq!(events.listen(Some(0)).past.len(), REMEMBERED);
        assert_eq!(events.listen(Some(0)).past[0].name.as_deref(), Some("k\\u{1b}3"));
        assert!(events.listen(None).past.is_empty());
        assert!(events.listen(Some(now_ms() + 10_000)).past.is_empty());
    }
}
