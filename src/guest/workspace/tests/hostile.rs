//! What must not happen, does not, and what breaks off leaves what was there.

use super::*;

fn state(lab: &Lab) -> (Held, String, Vec<u8>) {
    let (mut wire, agent) = lab.prepare();
    let held = held(&mut wire).expect("answers");
    drop(wire);
    agent.join().expect("no panic");
    (held, line(&lab.guest(), &["rev-parse", "HEAD"]), git(&lab.guest(), &["ls-files", "-s"]))
}

#[test]
fn a_host_that_hangs_up_leaves_head_refs_and_index_and_can_go_on() {
    for (at, within) in [(3, false), (4, true), (6, false), (7, false), (7, true), (9, false), (9, true)] {
        let lab = Lab::new();
        for n in 0..60 {
            lab.write(&format!("f{n}"), format!("{n}\n").repeat(300));
        }
        lab.write("old", "old");
        lab.commit("first");
        let ways = Ways { hang_up: Some((at, within)), ..Ways::default() };
        // The very first, with nothing there.
        lab.bring_so(&ways).expect_err("hangs up");
        lab.bring();
        lab.check();
        let before = state(&lab);
        for n in 0..60 {
            lab.write(&format!("f{n}"), format!("{n} again\n").repeat(300));
        }
        fs::remove_file(lab.host().join("old")).expect("removes");
        lab.commit("second");
        lab.bring_so(&ways).expect_err("hangs up");
        assert_eq!(state(&lab), before, "{at} {within}");
        git(&lab.guest(), &["fsck", "--strict", "--full"]);
        git(&lab.guest(), &["status"]);
        let leftover = text(&git(&lab.guest(), &["ls-files", "-o"]));
        assert_eq!(leftover, "", "{at} {within}");
        let again = lab.bring();
        assert!(again.ledger.iter().all(|record| record.fate == Fate::Unchanged), "{at} {within}");
        lab.check();
    }
}

#[test]
fn what_the_guest_has_already_is_named_before_anything_is_touched() {
    let lab = Lab::new();
    lab.write("file", "1");
    lab.commit("first");
    lab.bring();
    for path in ["new", "dir-in-the-way/x", "file-in-the-way"] {
        write(&lab.guest().join(path), "precious");
    }
    for path in ["new", "dir-in-the-way", "file-in-the-way/deep/x", "other"] {
        lab.write(path, "host's");
    }
    lab.commit("second");
    let error = lab.bring_so(&Ways::default()).expect_err("refused");
    assert_eq!(error, "in the way: dir-in-the-way file-in-the-way new ");
    assert_eq!(fs::read(lab.guest().join("new")).expect("reads"), b"precious");
    lab.bring_so(&Ways { overwrite: true, ..Ways::default() }).expect("is brought");
    lab.check();
}

#[test]
fn a_place_that_is_not_ours_is_refused() {
    let lab = Lab::new();
    lab.write("file", "1");
    lab.commit("first");
    let refused = || lab.bring_so(&Ways { overwrite: true, ..Ways::default() }).expect_err("refused");
    let foreign = format!(
        "{} exists in the guest and was not brought by banger; choose another --guest-path",
        lab.guest_path()
    );
    write(&lab.guest().join("something"), "x");
    assert_eq!(refused(), foreign);
    fs::remove_dir_all(lab.guest()).expect("removes");
    write(&lab.guest(), "a file");
    assert_eq!(refused(), foreign);
    fs::remove_file(lab.guest()).expect("removes");
    fs::create_dir(lab.guest()).expect("makes a directory");
    lab.bring();
    // Nothing is left: it is brought as if for the first time.
    fs::remove_dir_all(lab.guest()).expect("removes");
    assert_eq!(lab.bring().held.placed, None);
    lab.check();
}

#[test]
fn two_prepares_of_one_path_do_not_meet() {
    let lab = Lab::new();
    lab.write("file", "1");
    lab.commit("first");
    let (mut first, agent) = lab.prepare();
    held(&mut first).expect("is the first");
    let error = lab.bring_so(&Ways::default()).expect_err("refused");
    assert!(error.starts_with("another prepare of "), "{error}");
    drop(first);
    agent.join().expect("no panic");
    lab.bring();
}

#[test]
fn symlinks_of_the_guest_lead_nobody_out_of_the_tree() {
    let lab = Lab::new();
    lab.write("dir/file", "1");
    lab.commit("first");
    lab.bring();
    let elsewhere = lab.dir.path().join("elsewhere");
    write(&elsewhere.join("file"), "precious");
    fs::remove_dir_all(lab.guest().join("dir")).expect("removes");
    symlink(&elsewhere, lab.guest().join("dir")).expect("links");
    lab.write("dir/file", "2");
    lab.write("dir/more", "2");
    lab.commit("second");
    let error = lab.bring_so(&Ways::default()).expect_err("refused");
    assert_eq!(error, "in the way: dir ");
    lab.bring_so(&Ways { overwrite: true, ..Ways::default() }).expect("is brought");
    lab.check();
    assert_eq!(fs::read(elsewhere.join("file")).expect("reads"), b"precious");
    // Neither when what was placed there goes.
    fs::remove_dir_all(lab.guest().join("dir")).expect("removes");
    symlink(&elsewhere, lab.guest().join("dir")).expect("links");
    fs::remove_dir_all(lab.host().join("dir")).expect("removes");
    lab.commit("third");
    lab.bring();
    assert_eq!(fs::read(elsewhere.join("file")).expect("reads"), b"precious");
}

#[test]
fn a_host_that_says_nonsense_is_told_so_and_nothing_moves() {
    let lab = Lab::new();
    lab.write("file", "1");
    lab.commit("first");
    lab.bring();
    let before = state(&lab);
    lab.write("file", "2");
    lab.commit("second");
    let tampers: [(&str, Tamper); 11] = [
        ("cannot understand the order: ", |at, bytes| {
            if at == 3 {
                bytes.truncate(9)
            }
        }),
        ("cannot bring it there: \"../../x\" is no name", |at, bytes| {
            if at == 3 {
                *bytes = text(bytes).replace("\"main\"", "\"../../x\"").into_bytes();
            }
        }),
        ("cannot bring it there: what is there has its objects named", |at, bytes| {
            if at == 3 {
                *bytes = text(bytes).replace("\"sha1\"", "\"sha256\"").into_bytes();
            }
        }),
        ("cannot read the list of paths: ", |at, bytes| {
            if at == 4 {
                bytes.extend(b"100644 0 S\t../x\0")
            }
        }),
        ("cannot read the list of paths: \"x\" is to stay", |at, bytes| {
            if at == 4 {
                bytes.extend(format!("100644 {} K\tx\0", "0".repeat(32)).into_bytes());
            }
        }),
        ("cannot read the list of paths: a record is too long", |at, bytes| {
            if at == 4 {
                bytes.extend([b'x'; 9999])
            }
        }),
        ("cannot read the index: \"", |at, bytes| {
            if at == 6 {
                bytes.extend(b"100644 x 0\t.git/config\0")
            }
        }),
        ("cannot place \"other\": nobody has said", |at, bytes| {
            if at == 7 {
                bytes[..5].copy_from_slice(b"other");
                bytes[148..156].fill(b' ');
                let sum: u32 = bytes[..512].iter().map(|b| u32::from(*b)).sum();
                bytes[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
            }
        }),
        ("cannot read the tar stream: ", |at, bytes| {
            if at == 7 {
                bytes.fill(7)
            }
        }),
        ("cannot take the host's objects: its checksum is wrong", |at, bytes| {
            if at == 9 {
                let last = bytes.len() - 1;
                bytes[last] ^= 1;
            }
        }),
        ("cannot take the host's objects: ", |at, bytes| {
            if at == 9 {
                bytes.clear()
            }
        }),
    ];
    for (want, tamper) in tampers {
        let error = lab.bring_so(&Ways { tamper: Some(tamper), ..Ways::default() }).expect_err("refused");
        assert!(error.starts_with(want), "{error:?}, not {want:?}");
        assert_eq!(state(&lab), before, "{want}");
        git(&lab.guest(), &["fsck", "--strict", "--full"]);
        // For the next one it is as if nothing of it had come.
        lab.write("file", want);
    }
    lab.bring();
    lab.check();
}

#[test]
fn git_at_work_in_the_guest_and_branches_in_the_way_are_named() {
    let lab = Lab::new();
    lab.write("file", "1");
    lab.commit("first");
    lab.bring();
    write(&lab.guest().join(".git/index.lock"), "");
    let error = lab.bring_so(&Ways::default()).expect_err("refused");
    assert!(
        error.contains("git is at work in the guest: ") && error.contains("index.lock exists"),
        "{error}"
    );
    fs::remove_file(lab.guest().join(".git/index.lock")).expect("removes");
    git(&lab.guest(), &["branch", "topic"]);
    git(&lab.host(), &["checkout", "-qb", "topic/a"]);
    for _ in 0..2 {
        let error = lab.bring_so(&Ways::default()).expect_err("refused");
        assert!(
            error.contains("the guest has a branch topic, beside which there can be no branch topic/a"),
            "{error}"
        );
        git(&lab.guest(), &["pack-refs", "--all"]);
    }
    git(&lab.guest(), &["branch", "-D", "topic"]);
    lab.bring();
    lab.check();
}

#[test]
fn a_pack_that_cannot_be_opened_is_no_pack_that_has_gone() {
    let lab = Lab::new();
    lab.write("file", "1");
    lab.commit("first");
    lab.bring();
    let packs = lab.guest().join(".git/objects/pack");
    // git removes the pack first when it has repacked it.
    write(&packs.join("pack-gone.idx"), "");
    lab.bring();
    symlink("pack-gone.pack", packs.join("pack-gone.pack")).expect("links");
    let error = lab.bring_so(&Ways::default()).expect_err("refused");
    assert!(error.contains("pack-gone.pack: "), "{error}");
}

#[test]
fn a_ledger_that_is_damaged_is_no_ledger() {
    let lab = Lab::new();
    lab.write("file", "1");
    lab.commit("first");
    lab.bring();
    let file = ledger::file(&lab.ledgers(), &lab.guest_path());
    assert_eq!(fs::metadata(&file).expect("stats").mode() & 0o777, 0o600);
    let whole = fs::read(&file).expect("reads");
    for length in 0..whole.len() {
        fs::write(&file, &whole[..length]).expect("writes");
        // Refused, or as much of it as there is; no panic.
        let (mut wire, agent) = lab.prepare();
        drop(held(&mut wire));
        drop(wire);
        agent.join().expect("no panic");
    }
}
