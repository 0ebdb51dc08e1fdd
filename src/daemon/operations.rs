//! What goes on: requests that change something and have not ended. An update asks, so that it does not cut them off.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::daemon::fault::Fault;
use crate::daemon::op::Op;
use crate::daemon::{Shared, now};
use crate::proto::api::{OperationView, Request, What};

/// By the ids of operations.
#[derive(Default)]
pub struct Operations(Mutex<BTreeMap<String, OperationView>>);

/// An operation goes on for as long as this is there.
#[must_use = "dropping it says that the operation has ended"]
pub struct Going {
    d: Shared,
    op: Op,
    kind: String,
    subject: String,
}

impl Operations {
    pub fn list(&self) -> Vec<OperationView> {
        let mut all: Vec<OperationView> = self.lock().values().cloned().collect();
        all.sort_by(|a, b| (a.started_at, &a.id).cmp(&(b.started_at, &b.id)));
        all
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, OperationView>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Lets `op` be seen from now on, as `kind` of `subject`.
pub fn begin(d: &Shared, op: &Op, kind: &str, subject: String) -> Going {
    begin_since(d, op, kind, subject, None)
}

/// The same of one that nobody asked for; `why` tells whoever listens what it is for.
pub fn begin_since(d: &Shared, op: &Op, kind: &str, subject: String, why: Option<&str>) -> Going {
    let (id, kind) = (op.id().to_owned(), kind.to_owned());
    d.events.operation(op, &kind, &subject, What::OperationBegun, why);
    let view = OperationView {
        id: id.clone(),
        kind: kind.clone(),
        subject: subject.clone(),
        started_at: now(),
        done: false,
    };
    d.operations.lock().insert(id, view);
    Going { d: d.clone(), op: op.clone(), kind, subject }
}

impl Going {
    /// It has ended, `fault` being why it failed.
    pub fn ended(self, fault: Option<&Fault>) {
        let what = if fault.is_some() { What::OperationFailed } else { What::OperationDone };
        let why = fault.map(|fault| fault.message.as_str());
        self.d.events.operation(&self.op, &self.kind, &self.subject, what, why);
    }
}

impl Drop for Going {
    fn drop(&mut self) {
        self.d.operations.lock().remove(self.op.id());
    }
}

/// What `request` works on, if it is one that should not be cut off; one that only looks can be asked again.
pub fn subject(request: &Request) -> Option<String> {
    let image = |name: &Option<String>, path: &Option<String>| {
        name.clone().or_else(|| path.clone()).unwrap_or_else(|| "an archive".to_owned())
    };
    match request {
        Request::VmCreate(r) => {
            Some(r.name.as_ref().map_or_else(|| "a new VM".to_owned(), ToString::to_string))
        }
        Request::VmStart(r) => Some(r.vm.clone()),
        Request::VmStop(r) => Some(r.vm.clone()),
        Request::VmSet(r) => Some(r.vm.clone()),
        Request::VmDelete(r) => Some(r.vm.clone()),
        Request::ImagePull(r) => Some(r.reference.clone()),
        Request::ImageImport(r) => Some(image(&r.name, &r.path)),
        Request::ImageRegister(r) => Some(r.path.clone()),
        Request::ImagePromote(r) => Some(r.image.clone()),
        Request::ImageTag(r) => Some(r.image.clone()),
        Request::ImageDelete(r) => Some(r.image.clone()),
        Request::ImageCachePrune(_) => Some("the cache".to_owned()),
        Request::KernelImport(r) => Some(r.name.clone().unwrap_or_else(|| "a kernel".to_owned())),
        Request::KernelPull(r) => Some(r.kernel.clone()),
        Request::BundleCreate(_) | Request::BundleInstall(_) => Some("a bundle".to_owned()),
        Request::KernelRemove(r) => Some(r.kernel.clone()),
        Request::KernelDefault(r) => Some(r.kernel.clone()),
        // Sessions go on without the daemon: their descriptors are the clients'.
        Request::VmExec(_) | Request::VmRead(_) | Request::VmWrite(_) | Request::VmLogs(_) => None,
        Request::DaemonStatus(_)
        | Request::DaemonDoctor(_)
        | Request::DaemonMend(_)
        | Request::DaemonStop(_)
        | Request::DaemonOperations(_)
        | Request::DaemonEvents(_)
        | Request::VmList(_)
        | Request::VmShow(_)
        | Request::VmPrepare(_)
        | Request::VmChanges(_)
        | Request::VmWorkspace(_)
        | Request::VmPorts(_)
        | Request::VmStats(_)
        | Request::VmPing(_)
        | Request::VmHealth(_)
        | Request::ImageList(_)
        | Request::ImageCatalog(_)
        | Request::ImageShow(_)
        | Request::ImageCacheList(_)
        | Request::KernelCatalog(_)
        | Request::KernelList(_)
        | Request::KernelShow(_) => None,
    }
}
