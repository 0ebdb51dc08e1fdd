//! The VMs that there are: those that cannot be reached as they should.

use crate::proto::api::VmView;
use crate::proto::finding::Finding;
use crate::vm::state::State;

pub fn rows(vms: &[VmView]) -> Vec<Finding> {
    let mut rows = vec![];
    for vm in vms {
        let name = &vm.record.name;
        if let Some(problem) = &vm.problem {
            rows.push(Finding::warn(
                "vms",
                format!("{name} cannot be reached"),
                format!("In {name}, {problem}."),
            ));
        }
        for published in &vm.published {
            if let Some(problem) = &published.problem {
                let place = published.publish.place();
                let advice = format!("It is tried again: {problem}.");
                rows.push(Finding::warn("vms", format!("port {place} does not lead to {name}"), advice));
            }
        }
    }
    if rows.is_empty() {
        let running = vms.iter().filter(|vm| matches!(vm.record.state, State::Running { .. })).count();
        rows.push(Finding::pass("vms", format!("{} of {} running", running, vms.len())));
    }
    rows
}

#[cfg(test)]
mod tests {
    use super::*;

    fn vm(name: &str, change: serde_json::Value) -> VmView {
        let mut json = serde_json::json!({
            "id": "000000000001", "name": name, "image": "i", "image_name": "debian",
            "spec": { "vcpu": 1, "memory_mib": 512, "disk_mib": 8192, "vmm": "auto", "accel": "auto", "nat": false },
            "state": "running", "processes": { "vmm": { "pid": 1, "started": 1 } },
            "created_at": 0, "directory": "/d", "address": null, "running_on": null,
        });
        let (fields, changed) = (json.as_object_mut().expect("an object"), change.as_object().cloned());
        fields.extend(changed.expect("an object"));
        serde_json::from_value(json).expect("a view")
    }

    #[test]
    fn a_vm_that_cannot_be_reached_is_named() {
        let stopped = serde_json::json!({ "state": "stopped" });
        let all = [vm("a", serde_json::json!({})), vm("b", stopped)];
        assert_eq!(rows(&all).iter().map(Finding::line).collect::<Vec<_>>(), ["Pass vms: 1 of 2 running"]);
        let port = serde_json::json!({ "address": "127.0.0.1", "host": 8080, "guest": 80, "protocol": "tcp", "problem": "taken" });
        let ill = [
            vm("a", serde_json::json!({ "problem": "its device has ended" })),
            vm("b", serde_json::json!({ "published": [port] })),
        ];
        assert_eq!(
            rows(&ill).iter().map(Finding::line).collect::<Vec<_>>(),
            [
                "Warn vms: a cannot be reached => In a, its device has ended.",
                "Warn vms: port 127.0.0.1:8080 does not lead to b => It is tried again: taken.",
            ]
        );
    }
}
