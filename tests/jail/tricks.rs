//! What an owner whose account has been taken over might try: other files under the names of those that he opened, links where the
//! helper works, a program of his own. Each is refused, and nothing is left or changed.

use std::fs::{self, Permissions};
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown, symlink};
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::fs::{CWD, RenameFlags, renameat_with};

use crate::rig::{OWNER, Rig, UID};

fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(e) = next {
        text.push_str(&format!(": {e}"));
        next = e.source();
    }
    text
}

fn assert_untouched(rig: &Rig) {
    for name in ["1", "console", "log"] {
        let meta = fs::metadata(rig.owners(name)).expect("stats");
        assert_eq!(
            (meta.uid(), meta.gid(), meta.permissions().mode() & 0o7777),
            (OWNER, OWNER, 0o600),
            "{name}"
        );
    }
    let meta = fs::metadata(rig.sockets()).expect("stats");
    assert_eq!((meta.gid(), meta.permissions().mode() & 0o7777), (OWNER, 0o700));
    rig.assert_nothing_left();
}

#[test]
#[ignore = "needs root, and its own network namespace: unshare -n"]
fn a_file_that_was_swapped_after_it_was_opened_is_not_mounted() {
    let rig = Rig::probing("echo ran");
    let secret = rig.path().join("secret");
    fs::write(&secret, "secret").expect("writes");
    type Swap = fn(&Rig, &std::path::Path);
    let swaps: [(&str, Swap, &str); 4] = [
        (
            "another file",
            |rig, _| rig.write("0", b"other", 0o444),
            "is another file than the one that was opened",
        ),
        ("a symlink", |rig, secret| symlink(secret, rig.owners("0")).expect("links"), "mount /drive0"),
        ("nothing", |_, _| {}, "mount /drive0"),
        ("a directory", |rig, _| fs::create_dir(rig.owners("0")).expect("makes"), "is another file"),
    ];
    for (what, swap, want) in swaps {
        let descriptors = rig.descriptors();
        let before = rig.owners("0.before");
        fs::rename(rig.owners("0"), &before).expect("renames");
        // Its name is one that the kernel says has gone only if it has.
        fs::remove_file(&before).expect("removes");
        swap(&rig, &secret);
        let error = chain(&rig.launch_with(descriptors).expect_err(what));
        assert!(error.contains(want) || error.contains("(deleted)"), "{what}: {error}");
        assert_untouched(&rig);
        if rig.owners("0").is_dir() {
            fs::remove_dir(rig.owners("0")).expect("removes");
        } else if rig.owners("0").symlink_metadata().is_ok() {
            fs::remove_file(rig.owners("0")).expect("removes");
        }
        rig.write("0", b"0", 0o444);
    }
    assert!(!rig.log().contains("ran"), "{}", rig.log());
}

struct Stop<'a>(&'a AtomicBool);

impl Drop for Stop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

#[test]
#[ignore = "needs root, and its own network namespace: unshare -n"]
fn a_file_that_is_swapped_all_the_time_is_itself_or_not_there() {
    let rig = Rig::probing("cat /drive0; echo; cat /kernel; echo; exec sleep 1000");
    let secret = rig.path().join("secret");
    fs::write(&secret, "secret").expect("writes");
    symlink(&secret, rig.owners("link")).expect("links");
    let stop = AtomicBool::new(false);
    let (mut launched, mut refused) = (0, 0);
    std::thread::scope(|scope| {
        // Also when an assertion fails: the scope waits for its threads.
        let _stop = Stop(&stop);
        scope.spawn(|| {
            while !stop.load(Ordering::Relaxed) {
                for _ in 0..2 {
                    renameat_with(CWD, rig.owners("0"), CWD, rig.owners("link"), RenameFlags::EXCHANGE)
                        .expect("swaps");
                }
            }
        });
        for _ in 0..30 {
            // Whichever it is just now; a symlink is not followed to what root could read.
            let descriptors = loop {
                if rig.owners("0").symlink_metadata().is_ok_and(|meta| meta.is_file())
                    && let Ok(file) = fs::File::open(rig.owners("0"))
                    && file.metadata().is_ok_and(|meta| meta.uid() == OWNER)
                {
                    let mut descriptors = rig.descriptors();
                    descriptors[5] = file.into();
                    break descriptors;
                }
            };
            match rig.launch_with(descriptors) {
                Ok(_) => launched += 1,
                Err(e) => {
                    refused += 1;
                    assert!(chain(&e).contains("mount /drive0"), "{}", chain(&e));
                }
            }
            banger::root::launch::remove(&rig.ground, rig.launch.vm, None).expect("removes");
            banger::host::files::remove_if_present(&rig.sockets().join("vhost.sock")).expect("removes");
        }
    });
    println!("{launched} launches, {refused} refusals");
    assert!(!rig.log().contains("secret"), "{}", rig.log());
    assert!(launched > 0, "{refused} refusals and nothing else");
    assert_eq!(fs::read_to_string(&secret).expect("reads"), "secret");
    let meta = fs::metadata(&secret).expect("stats");
    assert_eq!((meta.uid(), meta.gid()), (0, 0));
    rig.assert_nothing_left();
}

#[test]
#[ignore = "needs root, and its own network namespace: unshare -n"]
fn links_where_jails_are_made_and_removed_are_not_followed() {
    let rig = Rig::probing("exec sleep 1000");
    let precious = rig.path().join("precious");
    fs::create_dir(&precious).expect("makes");
    fs::write(precious.join("file"), "precious").expect("writes");
    let jail = rig.ground.jail();
    // The directory itself is a link.
    symlink(&precious, &jail).expect("links");
    let error = chain(&rig.launch().expect_err("refused"));
    assert_eq!(
        error,
        format!("the directory for jails is not root's own: {} is no directory", jail.display())
    );
    fs::remove_file(&jail).expect("unlinks");
    // Links in it bear the names that the jail will have; it is made, and goes, elsewhere.
    fs::create_dir(&jail).expect("makes");
    let vm = rig.launch.vm.to_string();
    for name in ["firecracker", "qemu", "vm", "usr", "dev", &vm] {
        symlink(&precious, jail.join(name)).expect("links");
    }
    rig.launch().expect("launched");
    banger::root::launch::remove(&rig.ground, rig.launch.vm, None).expect("removes");
    assert_eq!(fs::read_dir(&jail).expect("lists").count(), 6, "what was there is there");
    assert_eq!(fs::read_to_string(precious.join("file")).expect("reads"), "precious");
    assert_eq!(fs::read_dir(&precious).expect("lists").count(), 1);
    fs::remove_dir_all(&jail).expect("removes");
    // It is somebody else's, or below what is.
    fs::create_dir(&jail).expect("makes");
    chown(&jail, Some(OWNER), Some(OWNER)).expect("gives away");
    let error = chain(&rig.launch().expect_err("refused"));
    assert!(error.contains(&format!("{} belongs to user {OWNER}", jail.display())), "{error}");
    chown(&jail, Some(0), Some(0)).expect("takes back");
    let above = jail.parent().expect("has one");
    fs::set_permissions(above, Permissions::from_mode(0o777)).expect("changes");
    let error = chain(&rig.launch().expect_err("refused"));
    assert!(error.contains(&format!("others than root may write {}", above.display())), "{error}");
    rig.assert_nothing_left();
}

#[test]
#[ignore = "needs root, and its own network namespace: unshare -n"]
fn a_program_that_others_could_have_made_is_not_run() {
    let mut rig = Rig::probing("echo ran");
    let qemu = rig.path().join("qemu");
    let refused = |want: &str| {
        let error = chain(&rig.launch().expect_err(want));
        assert!(error.starts_with("root runs only what is root's own: ") && error.contains(want), "{error}");
        assert_untouched(&rig);
    };
    chown(&qemu, Some(OWNER), None).expect("gives away");
    refused(&format!("belongs to user {OWNER}"));
    chown(&qemu, Some(0), None).expect("takes back");
    fs::set_permissions(&qemu, Permissions::from_mode(0o775)).expect("changes");
    refused("others than root may write");
    fs::set_permissions(&qemu, Permissions::from_mode(0o755)).expect("changes");
    // A link of root's own to a program of his.
    let his = rig.owners("his");
    fs::write(&his, "#!/bin/sh\n").expect("writes");
    fs::set_permissions(&his, Permissions::from_mode(0o755)).expect("changes");
    symlink(&his, rig.path().join("linked")).expect("links");
    rig.programs.qemu = Some(rig.path().join("linked"));
    let error = chain(&rig.launch().expect_err("his"));
    assert!(error.contains(&format!("belongs to user {OWNER}")), "{error}");
    assert_untouched(&rig);
}

#[test]
#[ignore = "needs root, and its own network namespace: unshare -n"]
fn a_launch_that_fails_late_leaves_nothing_and_says_why() {
    let rig = Rig::probing("echo ran");
    // The vsock device ends before anybody can use it, when all else has been made.
    let device = rig.path().join("device");
    fs::write(&device, "#!/bin/sh\necho no device today >&2\n").expect("writes");
    let error = chain(&rig.launch().expect_err("refused"));
    assert_eq!(
        error,
        "its process could not enter its jail: cannot wait for the vsock device: it ended as soon as it was started"
    );
    assert_eq!(rig.log(), "no device today\n");
    assert_untouched(&rig);
    // The program cannot be run.
    let rig = Rig::probing("");
    fs::write(rig.path().join("qemu"), "#!/no/such/interpreter\n").expect("writes");
    let error = chain(&rig.launch().expect_err("refused"));
    assert!(error.contains("cannot run") && error.contains("No such file"), "{error}");
    assert_untouched(&rig);
    // A descriptor is of somebody else's file: root's, as root could have opened it, and writable.
    let rig = Rig::probing("echo ran");
    let secret = rig.path().join("secret");
    fs::write(&secret, "secret").expect("writes");
    let mut descriptors = rig.descriptors();
    descriptors[6] = fs::OpenOptions::new().read(true).write(true).open(&secret).expect("opens").into();
    let error = chain(&rig.launch_with(descriptors).expect_err("refused"));
    assert_eq!(error, "drive 1 belongs to user 0, whom this helper does not serve");
    assert_ne!(fs::metadata(&secret).expect("stats").gid(), UID);
    assert_untouched(&rig);
}
