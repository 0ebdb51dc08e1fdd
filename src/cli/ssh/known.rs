//! banger's own known_hosts: a line for each VM, marked with its id, in the format of sshd(8).
//!
//! `dev.vm,4f1c2b3a0d9e ssh-ed25519 AAAA... banger:4f1c2b3a0d9e`
//!
//! So a VM may be renamed, a new VM may have an old one's name, and the key of one that was deleted counts for nobody. Lines go with
//! `banger vm delete`; those of VMs that went otherwise, when ssh is next used.

use std::fs;
use std::io;

use super::{Place, dirs, failed, key};
use crate::cli::error::Error;
use crate::host::files::write_atomic;

/// A VM that there is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Living {
    pub id: String,
    pub name: String,
}

/// Writes down that VM `id` has `host_key`, unless another one is there: then it stays, and ssh refuses. `list` says which VMs there are.
pub fn pin(
    place: &Place,
    id: &str,
    host_key: &str,
    list: impl FnOnce() -> Result<Vec<Living>, Error>,
) -> Result<(), Error> {
    let _one_at_a_time = place.lock()?;
    // Only now: a VM that is not in an older list may have been pinned meanwhile, and its line would be dropped.
    let vms = list()?;
    change(place, |text| pinned(text, &vms, &place.suffix, Some((id, host_key))))
}

/// Drops the line of a VM that has been deleted. Where that cannot be done the next use of ssh does it.
pub fn forget(id: &str) {
    let Ok(dirs) = dirs() else { return };
    let dir = dirs.state.join("ssh");
    if !dir.join("known_hosts").exists() {
        return;
    }
    let place = Place { key: dir.clone(), dir, suffix: String::new() };
    let Ok(_one_at_a_time) = place.lock() else { return };
    change(&place, |text| without(text, id)).unwrap_or_default();
}

fn change(place: &Place, new: impl FnOnce(&str) -> String) -> Result<(), Error> {
    let path = place.known_hosts();
    let old = match fs::read_to_string(&path) {
        Ok(text) => text,
        Err(e) if e.kind() == io::ErrorKind::NotFound => String::new(),
        Err(e) => return Err(failed("read", &path)(e)),
    };
    let new = new(&old);
    if new == old {
        return Ok(());
    }
    write_atomic(&path, new.as_bytes(), 0o600).map_err(failed("write", &path))
}

/// `text` with a line for each of `vms` that has one, by its present name, and one for `this`. Lines of others than VMs stay.
fn pinned(text: &str, vms: &[Living], suffix: &str, this: Option<(&str, &str)>) -> String {
    let entry =
        |vm: &Living, host_key: &str| format!("{}.{suffix},{} {host_key} {MARK}{}\n", vm.name, vm.id, vm.id);
    let living = |id: &str| vms.iter().find(|vm| vm.id == id);
    let mut new = String::new();
    let mut this = this;
    for line in text.lines() {
        let Some(id) = id_of(line) else {
            new.push_str(line);
            new.push('\n');
            continue;
        };
        let host_key = line.split_once(' ').and_then(|(_, rest)| key::line(rest));
        if let (Some(vm), Some(host_key)) = (living(id), host_key) {
            new.push_str(&entry(vm, &host_key));
            this = this.filter(|(known, _)| *known != id);
        }
    }
    if let Some((vm, host_key)) = this.and_then(|(id, host_key)| Some((living(id)?, host_key))) {
        new.push_str(&entry(vm, host_key));
    }
    new
}

fn without(text: &str, id: &str) -> String {
    text.split_inclusive('\n').filter(|line| id_of(line.trim_end()) != Some(id)).collect()
}

const MARK: &str = "banger:";

fn id_of(line: &str) -> Option<&str> {
    line.rsplit(' ').next()?.strip_prefix(MARK)
}

#[cfg(test)]
mod tests {
    use super::*;

    const ONE: &str = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIOM4+kO9p8ZzEgbjFiYtXwxJ+4cXIdQCSuOoLjTkVQPB";
    const TWO: &str = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIF2b+kO9p8ZzEgbjFiYtXwxJ+4cXIdQCSuOoLjTkVQPB";

    fn vms(list: &[(&str, &str)]) -> Vec<Living> {
        list.iter().map(|(id, name)| Living { id: (*id).to_owned(), name: (*name).to_owned() }).collect()
    }

    #[test]
    fn a_key_is_pinned_once_and_another_one_of_the_same_vm_does_not_replace_it() {
        let vms = vms(&[("aa", "dev")]);
        let first = pinned("", &vms, "vm", Some(("aa", ONE)));
        assert_eq!(first, format!("dev.vm,aa {ONE} banger:aa\n"));
        assert_eq!(pinned(&first, &vms, "vm", Some(("aa", ONE))), first);
        assert_eq!(pinned(&first, &vms, "vm", Some(("aa", TWO))), first, "ssh refuses what is offered then");
    }

    #[test]
    fn two_that_pin_at_once_do_not_drop_each_others_keys() {
        let dir = tempfile::tempdir().expect("a directory");
        let ssh = dir.path().join("ssh");
        let place = Place { key: ssh.clone(), dir: ssh.clone(), suffix: "vm".to_owned() };
        pin(&place, "aa", ONE, || Ok(vms(&[("aa", "dev")]))).expect("pins");
        pin(&place, "bb", TWO, || {
            let held = crate::host::files::try_lock(&ssh.join("lock")).expect("looks").is_none();
            assert!(held, "another one could pin what this list does not hold");
            Ok(vms(&[("aa", "dev"), ("bb", "new")]))
        })
        .expect("pins");
        let text = fs::read_to_string(place.known_hosts()).expect("reads");
        assert_eq!(text, format!("dev.vm,aa {ONE} banger:aa\nnew.vm,bb {TWO} banger:bb\n"));
    }

    #[test]
    fn a_new_vm_of_an_old_name_never_meets_the_old_ones_key() {
        let old = pinned("", &vms(&[("aa", "dev")]), "vm", Some(("aa", ONE)));
        let new = pinned(&old, &vms(&[("bb", "dev")]), "vm", Some(("bb", TWO)));
        assert_eq!(new, format!("dev.vm,bb {TWO} banger:bb\n"));
    }

    #[test]
    fn lines_follow_the_names_of_vms_and_leave_others_alone() {
        let text =
            format!("# mine\nelsewhere {ONE}\ndev.vm,aa {ONE} banger:aa\ndev.vm,bb broken banger:bb\n");
        let now = pinned(&text, &vms(&[("aa", "old"), ("bb", "dev")]), "box", Some(("bb", TWO)));
        assert_eq!(
            now,
            format!("# mine\nelsewhere {ONE}\nold.box,aa {ONE} banger:aa\ndev.box,bb {TWO} banger:bb\n")
        );
        assert_eq!(without(&now, "aa"), format!("# mine\nelsewhere {ONE}\ndev.box,bb {TWO} banger:bb\n"));
        assert_eq!(without(&now, "cc"), now);
    }
}
