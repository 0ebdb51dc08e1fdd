//! The machine with what the tests need in it, and what they look at afterwards.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Instant;

use crate::machine::{Ended, Machine, build, part};
use crate::releases::{BEFORE, NEXT, NOW, STASH, Www, manifest_url, sha256};

pub struct Host {
    pub machine: Machine,
    /// The versions, by the digests of their executables.
    versions: BTreeMap<String, &'static str>,
    /// What is known of the VM in it: QEMU's pid, and when it was started.
    vm: RefCell<String>,
    cases: RefCell<Vec<Case>>,
}

struct Case {
    name: String,
    has_failed: bool,
}

/// What is to be true of an installation whenever nothing is under way.
#[derive(Debug, Clone, Copy)]
pub struct Installed {
    pub version: &'static str,
    pub previous: Option<&'static str>,
    /// Whether an update has left what it staged.
    pub is_staged: bool,
}

impl Installed {
    pub fn of(version: &'static str, previous: Option<&'static str>) -> Self {
        Self { version, previous, is_staged: false }
    }
}

impl Host {
    pub fn new() -> Self {
        let machine = Machine::boot();
        let www = tempfile::tempdir_in(part("rigs")).expect("makes a directory");
        Www::make(www.path());
        machine.ok("mkdir -p /srv/www /srv/kernel");
        machine.copy_in(&www.path().join("."), "/srv/www");
        machine.copy_in(&machine.vmlinux(), "/srv/kernel/vmlinux");
        machine.copy_in(&part("busybox.tar"), "/srv/busybox.tar");
        machine.copy_in(&part("host/key.pub.pem"), "/srv/www/key.pem");
        machine.copy_in(&crate_file("install.sh"), "/srv/www/install.sh");
        let mut versions = BTreeMap::new();
        for version in [BEFORE, NOW, NEXT] {
            let binary = build(version);
            machine.ok(&format!("mkdir -p {STASH}/{version}"));
            machine.copy_in(&binary, &format!("{STASH}/{version}/banger"));
            versions.insert(sha256(&fs::read(binary).expect("reads")), version);
        }
        machine.write("/srv/server.py", include_str!("server.py"));
        machine.write("/srv/observe.sh", include_str!("observe.sh"));
        machine.ok(include_str!("prepare.sh"));
        machine.ok("sync");
        machine.serve();
        Self { machine, versions, vm: RefCell::default(), cases: RefCell::default() }
    }

    /// Runs a case, and goes on with the next one if it fails: the machine is what it is, and the next one says what is wrong with it.
    pub fn case(&self, name: &str, run: impl FnOnce()) {
        let begun = Instant::now();
        let has_failed = catch_unwind(AssertUnwindSafe(run)).is_err();
        let outcome = if has_failed { "FAILED" } else { "ok" };
        println!("{:6.1} s  {outcome:6}  {name}", begun.elapsed().as_secs_f32());
        self.cases.borrow_mut().push(Case { name: name.to_owned(), has_failed });
    }

    /// Fails the test if a case of it has failed; `at_least` is how many there must have been.
    pub fn conclude(&self, at_least: usize) {
        let cases = self.cases.borrow();
        let failed: Vec<_> = cases.iter().filter(|case| case.has_failed).map(|case| &*case.name).collect();
        println!("{} cases, {} failed", cases.len(), failed.len());
        assert!(failed.is_empty(), "these failed, see above: {failed:#?}");
        assert!(cases.len() >= at_least, "only {} cases were run", cases.len());
    }

    /// `banger update`, as root, pointed at the manifest `name`.
    pub fn update(&self, name: &str, args: &str) -> Ended {
        self.machine.sh(&format!("banger update --manifest-url {} {args}", manifest_url(name)))
    }

    /// As [`Host::update`]; it must succeed.
    #[track_caller]
    pub fn updated(&self, name: &str, args: &str) -> Ended {
        let end = self.update(name, args);
        assert_eq!(end.status, 0, "update to {name} {args}: {end:#?}\n{}", self.journal());
        end
    }

    /// What the services have said of late.
    pub fn journal(&self) -> String {
        self.machine.sh("journalctl -b -q --no-pager -n 12 -o cat -u 'banger*'").stdout
    }

    /// Makes the first VM, as the owner would.
    pub fn make_vm(&self) {
        self.machine.ok_of("dev", "banger kernel import --from /srv/kernel --name small");
        self.machine.ok_of("dev", "banger image import /srv/busybox.tar --name busybox");
        self.machine.ok_of("dev", "banger vm run -q -d --name inner --image busybox --vcpu 1 --memory 128M");
        self.remember_vm();
    }

    /// From now on it is this very process that is to go on.
    pub fn remember_vm(&self) {
        let seen = self.observe();
        assert_eq!(seen["vm"].split(' ').count(), 2, "one VM runs: {seen:#?}");
        self.vm.replace(seen["vm"].clone());
    }

    /// What observe.sh sees, with versions for the digests that are known.
    pub fn observe(&self) -> BTreeMap<String, String> {
        let text = self.machine.ok("bash /srv/observe.sh");
        let mut seen = BTreeMap::new();
        for line in text.lines() {
            let (what, is) = line.split_once(": ").unwrap_or((line.trim_end_matches(':'), ""));
            let words = is.split(' ').map(|word| self.versions.get(word).map_or(word, |version| *version));
            seen.insert(what.to_owned(), words.collect::<Vec<_>>().join(" ").trim().to_owned());
        }
        seen
    }

    /// The installation is whole, and the VM is the one that it was and can be reached.
    #[track_caller]
    pub fn assert_is(&self, want: Installed) {
        let staging = if want.is_staged { "some" } else { "0" };
        let mut seen = self.observe();
        if want.is_staged && seen["staging"] != "0" {
            seen.insert("staging".to_owned(), staging.to_owned());
        }
        let active = "active enabled".to_owned();
        let wanted: BTreeMap<String, String> = [
            ("banger", format!("{} -rwxr-xr-x root:root", want.version)),
            ("previous", want.previous.unwrap_or("none").to_owned()),
            ("bangerd", "banger".to_owned()),
            ("bangerd-root", "banger".to_owned()),
            ("banger-vsock", "banger".to_owned()),
            ("bangerd.service", active.clone()),
            ("bangerd-root.service", active.clone()),
            ("bangerd-root.socket", active),
            ("units to reload", "no".to_owned()),
            ("install.toml", want.version.to_owned()),
            ("daemon", want.version.to_owned()),
            ("journal", "none".to_owned()),
            ("staging", staging.to_owned()),
            ("vm", self.vm.borrow().clone()),
            ("exec", "fine".to_owned()),
        ]
        .map(|(what, is)| (what.to_owned(), is))
        .into();
        let differs: Vec<_> = wanted
            .iter()
            .filter(|(what, is)| seen.get(*what) != Some(is))
            .map(|(what, is)| format!("{what}: {:?}, and not {is:?}", seen.get(what)))
            .collect();
        assert!(differs.is_empty(), "{differs:#?}\n{}", self.journal());
    }
}

fn crate_file(name: &str) -> std::path::PathBuf {
    std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join(name)
}
