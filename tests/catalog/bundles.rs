//! Bundles for machines without a network: made of what one banger has, installed into another that has nothing, and what is left of one
//! that somebody has bent.

use std::fs::{self, File};
use std::io::{Read, Write};
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Stdio;

use serde_json::{Value, json};

use crate::support::{BUILTIN, Ran, Rig, VERSION, fake_kernel, names_in};

const CONFIG: &str = "network = 'user'\n";

/// A tar with one file, as an image's root file system.
fn rootfs(rig: &Rig, text: &str) -> PathBuf {
    let path = rig.path(&format!("{text}.tar"));
    let mut tar = tar::Builder::new(File::create(&path).expect("creates"));
    let mut header = tar::Header::new_gnu();
    header.set_size(text.len() as u64);
    header.set_mode(0o644);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(0);
    tar.append_data(&mut header, "etc/text", text.as_bytes()).expect("appends");
    tar.finish().expect("ends");
    path
}

fn import_image(rig: &Rig, name: &str, text: &str) {
    let path = rootfs(rig, text);
    rig.ok(&format!("image import -q {} --name {name}", path.display()));
}

fn import_kernel(rig: &Rig, name: &str, seed: u8) {
    let dir = rig.path(&format!("kernel-{seed}"));
    fs::create_dir_all(dir.join("modules")).expect("makes directories");
    fs::write(dir.join("modules/modules.builtin"), BUILTIN).expect("writes");
    fs::write(dir.join("vmlinux"), fake_kernel(VERSION, seed)).expect("writes");
    rig.ok(&format!("kernel import -q --from {} --name {name}", dir.display()));
}

fn firecracker(rig: &Rig, version: &str) -> PathBuf {
    let dir = rig.path("fc");
    fs::create_dir_all(&dir).expect("makes a directory");
    for (name, says) in [("firecracker", "Firecracker"), ("jailer", "Jailer")] {
        let path = dir.join(name);
        fs::write(&path, format!("#!/bin/sh\necho '{says} v{version}'\n")).expect("writes");
        fs::set_permissions(&path, PermissionsExt::from_mode(0o755)).expect("sets the mode");
    }
    dir
}

/// A banger with an image of two names, and a kernel that the image wants.
fn full() -> Rig {
    let rig = Rig::new(CONFIG);
    import_kernel(&rig, "small", 1);
    import_image(&rig, "app", "one");
    rig.ok("image tag app further");
    rig
}

fn create(rig: &Rig, name: &str, rest: &str) -> PathBuf {
    let path = rig.path(name);
    rig.ok(&format!("bundle create -q {} {rest}", path.display()));
    path
}

fn install(rig: &Rig, bundle: &Path, rest: &str) -> Value {
    rig.json(&format!("bundle install --json -q {} {rest}", bundle.display()))
}

fn states(view: &Value) -> Vec<String> {
    let parts = view["parts"].as_array().expect("parts");
    parts.iter().map(|p| format!("{} {} {}", p["kind"], p["name"], p["state"]).replace('"', "")).collect()
}

/// Everything that banger has, but for when it came.
fn all(rig: &Rig) -> Value {
    let mut all = json!([rig.json("image list --json"), rig.json("kernel list --json")]);
    for list in all.as_array_mut().expect("lists") {
        for thing in list.as_array_mut().expect("things") {
            let thing = thing.as_object_mut().expect("an object");
            for when in ["created_at", "imported_at", "disk_bytes"] {
                thing.remove(when);
            }
        }
    }
    all
}

/// The state directory's files and their content.
fn files(rig: &Rig) -> Vec<(String, String)> {
    let mut found = vec![];
    for dir in ["state/images", "state/kernels/small", "state/kernels", "state/programs"] {
        for name in names_in(&rig.path(dir)) {
            let path = rig.path(dir).join(&name);
            if path.is_file() {
                let hash = blake3::hash(&fs::read(&path).expect("reads")).to_hex().to_string();
                found.push((format!("{dir}/{name}"), hash));
            }
        }
    }
    found
}

#[test]
fn what_one_banger_has_another_gets_in_one_file() {
    let from = full();
    let fc = firecracker(&from, "1.15.0");
    let path = from.path("b");
    let line = format!(
        "bundle create {} --image app --kernel small --with-firecracker {}",
        path.display(),
        fc.display()
    );
    let made = from.ok(&line);
    // What sha256sum says of it.
    let digest = ring::digest::digest(&ring::digest::SHA256, &fs::read(&path).expect("reads"));
    let digest: String = digest.as_ref().iter().map(|b| format!("{b:02x}")).collect();
    assert_eq!(made.out, format!("{digest}  {}\n", path.display()));
    assert_eq!(names_in(&from.path("")).iter().filter(|n| n.starts_with(".staged")).count(), 0);
    // The same again, whatever the order of the words.
    let again = create(
        &from,
        "again",
        &format!("--with-firecracker {} --kernel small --image further", fc.display()),
    );
    assert!(fs::read(&path).expect("reads") == fs::read(again).expect("reads"), "the same bytes");

    let to = Rig::new(CONFIG);
    let ran = to.ok(&format!("bundle install {}", path.display()));
    let lines: Vec<Vec<&str>> = ran.out.lines().map(|l| l.split_whitespace().collect()).collect();
    let words = |n: usize| (lines[n][0], lines[n][1], *lines[n].last().expect("a word"));
    assert_eq!(words(1), ("image", "app", "installed"), "{ran:#?}");
    assert_eq!(words(2), ("kernel", "small", "installed"), "{ran:#?}");
    assert_eq!(words(3), ("program", "firecracker", "installed"), "{ran:#?}");
    assert_eq!(words(4), ("program", "jailer", "installed"), "{ran:#?}");
    assert_eq!(all(&from), all(&to));
    assert_eq!(to.json("kernel show --json small")["default"], true);
    let others =
        |rig: &Rig| files(rig).into_iter().filter(|(name, _)| !name.contains("programs")).collect::<Vec<_>>();
    assert_eq!(others(&from), others(&to));
    let id = to.json("image show --json app")["id"].as_str().expect("an id").to_owned();
    let meta = fs::metadata(to.path(&format!("state/images/{id}.ext4"))).expect("is there");
    assert_eq!(meta.permissions().mode() & 0o777, 0o444);
    assert!(meta.blocks() * 512 < meta.len() / 2, "holes stay holes");
    let program = to.path("state/programs/firecracker");
    assert_eq!(fs::read(&program).expect("reads"), fs::read(fc.join("firecracker")).expect("reads"));
    assert_eq!(fs::metadata(&program).expect("stats").permissions().mode() & 0o777, 0o755);
    to.assert_nothing_is_staged();

    // Once more: it is said that all of it is here.
    let view = install(&to, &path, "");
    assert_eq!(
        states(&view),
        [
            "image app here",
            "kernel small here",
            "program firecracker 1.15.0 here",
            "program jailer 1.15.0 here"
        ]
    );
    assert_eq!(all(&from), all(&to));
}

#[test]
fn a_bundle_goes_through_pipes_and_tar_takes_banger_out_of_it() {
    let from = full();
    let path = from.path("b");
    let mut child = from
        .command(&["bundle", "create", "-", "--image", "app"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("runs");
    let mut bytes = vec![];
    child.stdout.take().expect("is piped").read_to_end(&mut bytes).expect("reads");
    let ended = child.wait_with_output().expect("ends");
    assert!(ended.status.success(), "{}", String::from_utf8_lossy(&ended.stderr));
    fs::write(&path, &bytes).expect("writes");

    let to = Rig::new(CONFIG);
    let mut child = to
        .command(&["bundle", "install", "-"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("runs");
    let mut stdin = child.stdin.take().expect("is piped");
    stdin.write_all(&bytes).expect("writes");
    drop(stdin);
    let ran = Ran::from(child.wait_with_output().expect("ends"));
    assert_eq!(ran.code, Some(0), "{ran:#?}");
    assert_eq!(to.json("image show --json further")["names"], json!(["app", "further"]));

    let out = std::process::Command::new("tar")
        .arg("--zstd")
        .arg("-xf")
        .arg(&path)
        .arg("banger")
        .current_dir(to.path(""))
        .status();
    assert!(out.expect("runs tar").success());
    let (mine, theirs) = (Path::new(env!("CARGO_BIN_EXE_banger")), to.path("banger"));
    assert!(fs::read(mine).expect("reads") == fs::read(&theirs).expect("reads"), "the same executable");
    assert_eq!(fs::metadata(theirs).expect("stats").permissions().mode() & 0o111, 0o111);
}

#[test]
fn no_name_is_taken_over_without_force() {
    let from = full();
    let bundle = create(&from, "b", "--image app --kernel small");
    let to = Rig::new(CONFIG);
    import_kernel(&to, "small", 2);
    import_image(&to, "further", "two");
    let before = (all(&to), files(&to));
    let said = to.refused(&format!("bundle install -q {}", bundle.display()));
    assert!(said.contains("there is another kernel small") && said.contains("further is image"), "{said}");
    assert_eq!((all(&to), files(&to)), before);
    let view = install(&to, &bundle, "--force");
    assert_eq!(states(&view), ["image app replaced", "kernel small replaced"]);
    let ids = |name: &str| to.json(&format!("image show --json {name}"))["id"].clone();
    assert_eq!(ids("further"), ids("app"));
    assert_eq!(to.json("image list --json").as_array().expect("images").len(), 2, "the other one stays");
    let blake3 = |rig: &Rig| rig.json("kernel show --json small")["blake3"].clone();
    assert_eq!(blake3(&from), blake3(&to));
    assert_eq!(to.json("kernel show --json small")["default"], true);
    to.assert_nothing_is_staged();
    // Nor of the programs that another bundle has brought.
    let fc = |version: &str| {
        let fc = firecracker(&from, version);
        create(&from, version, &format!("--with-firecracker {}", fc.display()))
    };
    install(&to, &fc("1.15.0"), "");
    let newer = fc("1.16.1");
    let said = to.refused(&format!("bundle install -q {}", newer.display()));
    assert!(said.contains("there is another firecracker from a bundle"), "{said}");
    let view = install(&to, &newer, "--force");
    assert_eq!(states(&view), ["program firecracker 1.16.1 replaced", "program jailer 1.16.1 replaced"]);
    assert_eq!(names_in(&to.path("state/programs")), ["firecracker", "jailer"]);
    to.assert_nothing_is_staged();
}

/// Changes the tar in a bundle.
fn bend(bundle: &Path, to: &Path, bend: impl FnOnce(&mut Vec<u8>)) {
    let mut tar = zstd::decode_all(File::open(bundle).expect("opens")).expect("unpacks");
    bend(&mut tar);
    fs::write(to, zstd::encode_all(tar.as_slice(), 1).expect("packs")).expect("writes");
}

fn find(bytes: &[u8], what: &str) -> usize {
    bytes.windows(what.len()).position(|window| window == what.as_bytes()).expect("is there")
}

#[test]
fn of_a_bundle_that_is_not_right_to_its_end_nothing_is_installed() {
    let from = full();
    let bundle = create(&from, "b", "--image app --kernel small");
    let whole = fs::read(&bundle).expect("reads");
    let to = Rig::new(CONFIG);
    let nothing = (all(&to), files(&to));
    let bad = to.path("bad");
    let refused = |want: &str| {
        let said = to.refused(&format!("bundle install -q {}", bad.display()));
        assert!(said.contains(want), "{want}: {said}");
        assert_eq!((all(&to), files(&to)), nothing, "{want}");
    };
    for length in [0, 1, 100, whole.len() / 2, whole.len() - 1] {
        fs::write(&bad, &whole[..length]).expect("writes");
        refused("ends in the middle");
    }
    fs::write(&bad, [whole.as_slice(), b"more"].concat()).expect("writes");
    refused("goes on where it should end");
    fs::write(&bad, b"no bundle").expect("writes");
    refused("cannot be unpacked");
    bend(&bundle, &bad, |tar| {
        // In the image, which comes last.
        let at = tar.windows(4).rposition(|window| window == b"one\0").expect("the image's file");
        tar[at] = b'O';
    });
    refused("is damaged");
    bend(&bundle, &bad, |tar| {
        let at = find(tar, "\"schema_version\": 1") + 18;
        tar[at] = b'9';
    });
    refused("it is of schema 9, and this banger knows bundles up to schema 1");
    bend(&bundle, &bad, |tar| {
        let at = find(tar, "\"app\"") + 1;
        tar[at..at + 3].copy_from_slice(b"../");
    });
    refused("cannot name an image");
    bend(&bundle, &bad, |tar| {
        // Two blocks of zeros are the end: a member before them.
        let block = tar[..512].to_vec();
        let end = tar.len() - 1024;
        tar.splice(end..end, block);
    });
    refused("is not the one that its manifest has there");
    bend(&bundle, &bad, |tar| {
        // The kernel becomes another, and the manifest says so: it is still no kernel.
        let at = tar.windows(8).position(|window| window == b"\x7fELF\x02\x01\x01\x00").expect("an ELF file");
        assert!(at > 0);
        let vmlinux = fake_kernel(VERSION, 1);
        let at = tar.windows(vmlinux.len()).position(|window| window == vmlinux).expect("the kernel");
        let mut other = vmlinux.clone();
        let version = find(&other, VERSION);
        other[version] = b'7';
        let (old, new) = (blake3::hash(&vmlinux).to_hex(), blake3::hash(&other).to_hex());
        tar[at..at + other.len()].copy_from_slice(&other);
        let said = find(tar, old.as_str());
        tar[said..said + 64].copy_from_slice(new.as_bytes());
    });
    refused("cannot install the bundle's kernel small: it is 7.12.30, not 6.12.30");
    fs::remove_file(&bad).expect("removes");
    symlink(to.path(""), &bad).expect("links");
    let said = to.refused(&format!("bundle install -q {}", bad.display()));
    assert!(said.ends_with("is a directory, and no bundle"), "{said}");
    // And the good one still is.
    install(&to, &bundle, "");
}

#[test]
fn a_bundle_that_asks_more_of_this_machine_than_it_may_is_refused() {
    let from = full();
    let bundle = create(&from, "b", "--image app");
    let to = Rig::new("network = 'user'\n[image_limits]\nlayer_size = '1M'\n");
    let said = to.refused(&format!("bundle install -q {}", bundle.display()));
    assert!(said.contains("larger than image_limits.layer_size"), "{said}");
}

#[test]
fn whoever_gives_up_leaves_nothing() {
    let from = full();
    let bundle = fs::read(create(&from, "b", "--image app --kernel small")).expect("reads");
    let to = Rig::new(CONFIG);
    let nothing = (all(&to), files(&to));
    // Most of it has come, and then nothing comes any more.
    let mut child = to
        .command(&["bundle", "install", "-q", "-"])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("runs");
    let mut stdin = child.stdin.take().expect("is piped");
    stdin.write_all(&bundle[..bundle.len() - 10]).expect("writes");
    until(|| names_in(&to.path("state/images")).iter().any(|name| name.starts_with(".staged-")));
    let pid = child.id().to_string();
    assert!(std::process::Command::new("kill").args(["-INT", &pid]).status().expect("runs kill").success());
    assert!(!child.wait().expect("ends").success());
    until(|| {
        let staged = |dir| names_in(&to.path(dir)).iter().any(|name| name.starts_with(".staged-"));
        !staged("state/images") && !staged("state/kernels") && !staged("state")
    });
    assert_eq!((all(&to), files(&to)), nothing);

    // A bundle that nobody reads.
    let dir = from.path("out");
    fs::create_dir(&dir).expect("makes a directory");
    let fifo = dir.join("fifo");
    assert!(std::process::Command::new("mkfifo").arg(&fifo).status().expect("runs mkfifo").success());
    let line = format!("bundle create -q {} --image app --force", fifo.display());
    assert!(from.refused(&line).contains("is no file, and stays as it is"));
    assert_eq!(names_in(&dir), ["fifo"]);
}

fn until(done: impl Fn() -> bool) {
    let begun = std::time::Instant::now();
    while !done() {
        assert!(begun.elapsed() < std::time::Duration::from_secs(60), "waited in vain");
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
}

#[test]
fn what_cannot_be_made_is_refused_with_the_reason_and_leaves_no_file() {
    let rig = full();
    let dir = rig.path("out");
    fs::create_dir(&dir).expect("makes a directory");
    let path = dir.join("b");
    let fc = firecracker(&rig, "1.4.0");
    let refused = |rest: &str| {
        let said = rig.refused(&format!("bundle create -q {} {rest}", path.display()));
        assert_eq!(names_in(&dir), [""; 0], "{rest}");
        said
    };
    assert!(refused("").contains("there is nothing to put into the bundle"));
    assert!(refused("--image nonsense").contains("there is no image \"nonsense\""));
    assert!(refused("--kernel nonsense").contains("there is no kernel \"nonsense\""));
    assert!(refused("--image app --with-firecracker /nonexistent").contains("cannot take firecracker along"));
    assert!(refused(&format!("--with-firecracker {}", fc.display())).contains("banger needs 1.5.0 or later"));
    // An image that is damaged on the disk.
    let id = rig.json("image show --json app")["id"].as_str().expect("an id").to_owned();
    let file = rig.path(&format!("state/images/{id}.ext4"));
    fs::set_permissions(&file, PermissionsExt::from_mode(0o644)).expect("sets the mode");
    let mut bytes = fs::read(&file).expect("reads");
    let last = bytes.len() - 1;
    bytes[last] ^= 1;
    fs::write(&file, bytes).expect("writes");
    assert!(refused("--image app").contains("its file changed while it was read, or is damaged"));
    fs::write(&path, "mine").expect("writes");
    let said = rig.refused(&format!("bundle create -q {} --kernel small", path.display()));
    assert!(said.ends_with("is there already; --force replaces it"), "{said}");
    assert_eq!(fs::read(&path).expect("reads"), b"mine");
    rig.ok(&format!("bundle create -q {} --kernel small --force", path.display()));
    assert_eq!(names_in(&dir), ["b"]);
    let note = rig.ok(&format!("image import -q {} --name wants", rootfs(&rig, "three").display()));
    assert_eq!(note.out, "wants\n");
}
