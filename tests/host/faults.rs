//! An update that dies at each of its steps, a machine that loses its power in one, and the end of an installation.

use crate::host::{Host, Installed};
use crate::releases::{NEXT, NOW, STASH, manifest_url};
use crate::tree;

use banger::release::journal::Step;

/// The steps of an update behind which it dies; the updater's own tests have all of them, on a machine of paper.
const STEPS: &[Step] = &[
    Step::Begin,
    Step::LinkPrevious,
    Step::Rename,
    Step::RestartHelper,
    Step::Doctor,
    Step::Accept,
    Step::Clean,
];
/// The steps of going back behind which it dies.
const STEPS_BACK: &[&str] = &["executable", "undone"];
/// The release, and the step behind which the machine loses its power.
const CUTS: &[(&str, Step)] = &[
    ("next", Step::Rename),
    ("next", Step::RestartDaemon),
    ("migrates", Step::RestartDaemon),
    ("next", Step::Accept),
];

#[test]
#[ignore = "boots VMs; run by tests/run.sh"]
fn an_update_dies_at_its_steps_and_uninstall_leaves_the_machine_as_it_was() {
    let host = Host::new();
    let before = tree::files(&host.machine);
    host.case("installed by the one file, without a network", || {
        println!("{}", host.machine.ok(&format!("{STASH}/{NOW}/banger system install --owner dev")));
        host.make_vm();
        host.assert_is(Installed::of(NOW, None));
    });
    host.case("daemon and helper die, and are started again", || {
        host.machine.ok("systemctl kill -s KILL bangerd.service bangerd-root.service; sleep 3");
        host.assert_is(Installed::of(NOW, None));
    });
    host.case("uninstall with a VM running is refused, and names it", || {
        let end = host.machine.sh("banger system uninstall");
        assert_eq!(end.status, 1, "{end:?}");
        assert!(end.stderr.contains("inner"), "{end:?}");
        host.assert_is(Installed::of(NOW, None));
    });
    host.case("uninstall leaves nothing but what is the owner's", || {
        println!("{}", host.machine.ok("banger system uninstall --force"));
        assert_eq!(tree::traces(&host.machine), "");
        let after = tree::files(&host.machine);
        let gone: Vec<_> = before.difference(&after).collect();
        assert!(gone.is_empty(), "gone: {gone:#?}");
        let users =
            |line: &&String| !line.contains(" ./var/lib/banger") && !line.contains(" ./var/cache/banger");
        let left: Vec<_> = after.difference(&before).filter(users).collect();
        assert!(left.is_empty(), "left: {left:#?}");
    });
    host.case("installed again, what is the owner's is there", || {
        host.machine.ok(&format!("{STASH}/{NOW}/banger system install --owner dev"));
        host.machine.ok_of("dev", "banger vm start -q inner");
        host.remember_vm();
        host.assert_is(Installed::of(NOW, None));
    });
    host.case("uninstall --purge leaves nothing", || {
        println!("{}", host.machine.ok("banger system uninstall --purge --force"));
        assert_eq!(tree::traces(&host.machine), "");
        let after = tree::files(&host.machine);
        let differs: Vec<_> = before.symmetric_difference(&after).collect();
        assert!(differs.is_empty(), "{differs:#?}");
    });
    host.conclude(6);
}

#[test]
#[ignore = "boots VMs; run by tests/run.sh"]
fn an_update_dies_at_its_steps_and_what_comes_next_mends_it() {
    let host = Host::new();
    host.case("installed by the one file, without a network", || {
        host.machine.ok(&format!("{STASH}/{NOW}/banger system install --owner dev"));
        host.make_vm();
        host.assert_is(Installed::of(NOW, None));
    });
    let mut table = String::new();
    for step in STEPS {
        let step = format!("update: after {step}");
        host.case(&step, || {
            let had = begin_again(&host);
            die(&host, "next", &step);
            // The owner is not kept from working, nor asked to be root.
            let end = host.machine.sh_of("dev", "banger vm list");
            assert_eq!(end.status, 0, "{end:#?}");
            let outcome = mend(&host, had);
            table.push_str(&format!("{step:40} {outcome}\n"));
        });
    }
    for step in STEPS_BACK {
        let step = format!("roll back: {step}");
        host.case(&step, || {
            let had = begin_again(&host);
            die(&host, "ill", &step);
            let outcome = mend(&host, had);
            table.push_str(&format!("{step:40} {outcome}\n"));
        });
    }
    for (release, step) in CUTS {
        let step = format!("update: after {step}");
        host.case(&format!("power cut, {step}, {release}"), || {
            let had = begin_again(&host);
            die(&host, release, &step);
            host.machine.cut_power();
            host.machine.serve();
            // Its VM has lost its power too.
            host.machine.ok_of("dev", "banger vm start -q inner");
            host.remember_vm();
            let outcome = assert_mended(&host, had);
            let said = host.machine.ok("journalctl -b -q --no-pager -o cat -u banger-recover.service");
            table.push_str(&format!(
                "power cut, {step:29} {outcome} ({release}; said at boot: {})\n",
                said.trim()
            ));
        });
    }
    println!("{table}");
    host.conclude(1 + STEPS.len() + STEPS_BACK.len() + CUTS.len());
}

/// Brings [`NOW`] back if need be, and returns what there is to go back to then.
fn begin_again(host: &Host) -> Option<&'static str> {
    let seen = host.observe();
    if !seen["banger"].starts_with(NOW) {
        host.updated("next", &format!("--to v{NOW} --allow-downgrade"));
    }
    match &*host.observe()["previous"] {
        "none" => None,
        NEXT => Some(NEXT),
        NOW => Some(NOW),
        other => panic!("an unknown way back: {other}"),
    }
}

/// An update that dies at `step`.
fn die(host: &Host, name: &str, step: &str) {
    let line = format!("BANGER_FAILPOINT='{step}' banger update --manifest-url {}", manifest_url(name));
    let end = host.machine.sh(&line);
    assert_eq!(end.status, 137, "it does not die there: {end:#?}");
}

/// Root's next command mends it, and says so in one line.
fn mend(host: &Host, had: Option<&'static str>) -> String {
    let end = host.machine.sh("banger vm list");
    assert_eq!(end.status, 0, "{end:#?}");
    let said: Vec<_> = end.stderr.lines().filter(|line| line.contains("was cut off")).collect();
    let outcome = assert_mended(host, had);
    assert!(said.len() <= 1, "{end:#?}");
    format!("{outcome} (said: {})", said.first().unwrap_or(&"nothing"))
}

/// All is as it was, or all is new.
fn assert_mended(host: &Host, had: Option<&'static str>) -> &'static str {
    let seen = host.observe();
    if seen["banger"].starts_with(NEXT) {
        host.assert_is(Installed::of(NEXT, Some(NOW)));
        "finished"
    } else {
        host.assert_is(Installed::of(NOW, had));
        "undone"
    }
}
