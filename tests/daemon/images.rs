//! Images that are files of somebody else's, and whose a name is.

use std::fs::File;
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, SystemTime};

use banger::image::record::ImageRecord;
use banger::kernel::record::KernelRecord;
use banger::proto::api::{
    Call, Code, Failure, ImageDelete, ImageImport, ImageList, ImagePromote, ImageRegister, ImageShow,
    ImageView, VmCreate, VmDelete, VmStart, VmStop,
};
use banger::store::{Changes, Store};
use tar::EntryType;

use crate::guests::{attend, good, up};
use crate::rig::{IMAGE, KERNEL, Rig, wanted};

/// A file system of 8 MiB, by others' hands.
fn ext4(rig: &Rig, name: &str) -> PathBuf {
    let directory = rig.path().join("theirs");
    std::fs::create_dir_all(&directory).expect("makes a directory");
    let path = directory.join(name);
    run("mke2fs", &["-q", "-t", "ext4", "-E", "root_owner=0:0"], &path, &["8M"]);
    path
}

fn run(program: &str, before: &[&str], path: &Path, after: &[&str]) {
    let paths = std::env::var("PATH").unwrap_or_default();
    let mut command = Command::new(program);
    command.env("PATH", format!("{paths}:/usr/sbin:/sbin")).args(before).arg(path).args(after);
    let out = command.output().expect("runs");
    assert!(out.status.code() <= Some(1), "{program}: {}", String::from_utf8_lossy(&out.stderr));
}

fn register(path: &Path) -> ImageRegister {
    let path = path.to_str().expect("UTF-8").to_owned();
    ImageRegister { path, name: None, kernel: None, force: false }
}

fn of(image: &str, vm: &str) -> VmCreate {
    VmCreate { image: Some(image.to_owned()), ..wanted(vm) }
}

fn show(rig: &Rig, image: &str) -> ImageView {
    rig.call(ImageShow { image: image.to_owned() }).expect("shows it")
}

fn vm(rig: &Rig, name: &str, image: &str) {
    rig.call(of(image, name)).expect("creates a VM");
}

/// Starts it; its guest comes up.
fn start(rig: &Rig, name: &str) {
    attend(rig.dirs().vm_sockets(rig.show(name).record.id), up(), good());
    rig.call(VmStart { vm: name.to_owned() }).expect("starts");
}

fn refused(rig: &Rig, name: &str) -> Failure {
    rig.call(VmStart { vm: name.to_owned() }).expect_err("it cannot start")
}

fn stop(rig: &Rig, name: &str) {
    rig.call(VmStop { vm: name.to_owned(), force: true }).expect("stops");
}

/// The words with which its VMM was launched last; what stands in for it here keeps none.
fn words(rig: &Rig, name: &str) -> String {
    let begin = format!("vm {name}: [");
    rig.log().lines().rfind(|line| line.contains(&begin)).expect("it was launched").to_owned()
}

#[test]
fn a_registered_file_is_used_where_it_is_and_never_written_or_removed() {
    let mut rig = Rig::started();
    let path = ext4(&rig, "mine.ext4");
    let link = rig.path().join("link");
    std::os::unix::fs::symlink(&path, &link).expect("links");
    let (content, meta) = (std::fs::read(&path).expect("reads"), std::fs::metadata(&path).expect("stats"));
    let image =
        rig.call(ImageRegister { name: Some("mine".to_owned()), ..register(&link) }).expect("registers");
    assert_eq!(image.id, blake3::hash(&content).to_hex().as_str());
    assert_eq!(image.path.as_deref(), path.canonicalize().expect("exists").to_str());
    assert_eq!((image.bytes, image.names.as_slice()), (8 << 20, ["mine".to_owned()].as_slice()));
    // Seen again by the next daemon, which removes what nothing needs.
    rig.kill();
    rig.start();
    assert_eq!(show(&rig, "mine").record, image);
    assert_eq!(show(&rig, "mine").problem, None);
    vm(&rig, "dev", "mine");
    start(&rig, "dev");
    assert!(words(&rig, "dev").contains(path.to_str().expect("UTF-8")));
    stop(&rig, "dev");
    let needed = rig.call(ImageDelete { image: "mine".to_owned() }).expect_err("a VM needs it");
    assert_eq!(needed.message, "image mine is needed by vm dev; delete them first");
    rig.call(VmDelete { vm: "dev".to_owned(), only_if_ended: false }).expect("deletes");
    rig.call(ImageDelete { image: "mine".to_owned() }).expect("forgets it");
    assert_eq!(rig.call(ImageList {}).expect("lists").len(), 1);
    assert!(std::fs::read(&path).expect("is there") == content);
    let after = std::fs::metadata(&path).expect("stats");
    assert_eq!(
        (after.mode(), after.mtime_nsec(), after.ctime_nsec()),
        (meta.mode(), meta.mtime_nsec(), meta.ctime_nsec())
    );
}

#[test]
fn no_vm_starts_on_a_file_that_is_not_what_was_registered() {
    let rig = Rig::started();
    let path = ext4(&rig, "mine.ext4");
    let shown = path.display().to_string();
    rig.call(register(&path)).expect("registers");
    vm(&rig, "dev", "mine");
    let original = std::fs::read(&path).expect("reads");
    let file = File::options().write(true).open(&path).expect("opens");
    let modified = file.metadata().expect("stats").modified().expect("has a time");
    // The least that can happen, and hidden as well as can be: one byte, with the length and the time of before.
    file.write_all_at(b"x", 5 << 20).expect("writes");
    file.set_modified(modified).expect("sets the time");
    let changed = format!(
        "{shown}, the file of image mine, has changed since it was registered, and the VMs of that image need it as it was; put it \
         back, or register it again with `banger image register {shown} --name mine --force` and make new VMs"
    );
    let failure = refused(&rig, "dev");
    assert_eq!((failure.code, failure.message), (Code::Conflict, format!("cannot start vm dev: {changed}")));
    let failure = rig.call(of("mine", "other")).expect_err("changed");
    assert_eq!(failure.message, format!("cannot make vm other: {changed}"));
    let failure = rig.call(ImagePromote { image: "mine".to_owned() }).expect_err("changed");
    assert_eq!(failure.message, changed);
    assert!(show(&rig, "mine").problem.is_some_and(|p| p.contains("changed")));
    // Put back: another file with the same content, then a touched one.
    std::fs::remove_file(&path).expect("removes it");
    std::fs::write(&path, &original).expect("writes");
    start(&rig, "dev");
    assert_eq!(show(&rig, "mine").problem, None);
    stop(&rig, "dev");
    let later = SystemTime::now() + Duration::from_secs(9);
    File::options().write(true).open(&path).and_then(|file| file.set_modified(later)).expect("touches");
    start(&rig, "dev");
    stop(&rig, "dev");
    // Longer, a directory, gone.
    File::options().write(true).open(&path).and_then(|file| file.set_len(9 << 20)).expect("lengthens");
    assert!(refused(&rig, "dev").message.contains("has changed since"));
    std::fs::remove_file(&path).expect("removes it");
    std::fs::create_dir(&path).expect("makes a directory");
    assert!(refused(&rig, "dev").message.contains("has changed since"));
    std::fs::remove_dir(&path).expect("removes it");
    let failure = refused(&rig, "dev");
    let gone = "is gone; put it back, or register a copy of it with `banger image register FILE`";
    assert_eq!(failure.message, format!("cannot start vm dev: {shown}, the file of image mine, {gone}"));
    assert_eq!(show(&rig, "mine").problem.as_deref(), Some("its file is gone"));
    // A copy elsewhere is the same image.
    let copy = path.with_file_name("copy.ext4");
    std::fs::write(&copy, &original).expect("writes");
    let again = rig.call(register(&copy)).expect("registers");
    assert_eq!(again.names, ["mine", "copy"]);
    start(&rig, "dev");
}

#[test]
fn what_guests_cannot_have_read_only_is_refused_in_a_sentence() {
    let rig = Rig::started();
    let directory = ext4(&rig, "good.ext4").parent().expect("has one").to_owned();
    let refused = |path: &Path| rig.call(register(path)).expect_err("refused");
    let expect = |path: &Path, why: &str| {
        let failure = refused(path);
        let want = format!("cannot register {}: {why}", path.display());
        assert!(failure.message.starts_with(&want), "{failure:?} is not: {want}");
        assert_eq!(failure.code, Code::BadRequest);
    };
    expect(&directory, "it is a directory");
    expect(Path::new("/dev/null"), "it is a device");
    let fifo = directory.join("fifo");
    run("mkfifo", &[], &fifo, &[]);
    expect(&fifo, "it is a named pipe");
    expect(&directory.join("none"), "No such file or directory");
    expect(Path::new("relative"), "it is no absolute path");
    let text = directory.join("text");
    std::fs::write(&text, "no file system").expect("writes");
    expect(&text, "it holds no ext4 file system");
    expect(&rig.dirs().image_file(&"ab".repeat(32)), "it is among banger's own files");

    let cut = ext4(&rig, "cut");
    File::options().write(true).open(&cut).and_then(|file| file.set_len(5 << 20)).expect("cuts it");
    expect(&cut, "it was cut off: the file has 5242880 bytes, its file system 8388608");
    let state = ext4(&rig, "state");
    run("debugfs", &["-w", "-R", "set_super_value state 0"], &state, &[]);
    expect(&state, "its file system is mounted, or was not unmounted cleanly");
    let faulty = ext4(&rig, "faulty");
    run("debugfs", &["-w", "-R", "set_super_value state 3"], &faulty, &[]);
    expect(&faulty, "its file system is marked as having errors; run `e2fsck -f` on it");

    // A real journal with a transaction in it, as a power cut leaves one.
    let unclean = ext4(&rig, "unclean");
    let script = directory.join("script");
    std::fs::write(&script, "journal_open\njournal_write -b 2000 /dev/zero\njournal_close\n")
        .expect("writes");
    run("debugfs", &["-w", "-f", script.to_str().expect("UTF-8")], &unclean, &[]);
    expect(
        &unclean,
        "its file system is mounted, or was not unmounted cleanly, and guests cannot replay its journal",
    );
    run("e2fsck", &["-fy"], &unclean, &[]);
    assert_eq!(rig.call(register(&unclean)).expect("registers what was mended").names, ["unclean"]);
    assert_eq!(rig.call(ImageList {}).expect("lists").len(), 2);
}

#[test]
fn a_promoted_image_is_bangers_own_and_its_vms_go_on_without_the_file() {
    let rig = Rig::started();
    let path = ext4(&rig, "mine.ext4");
    let content = std::fs::read(&path).expect("reads");
    let registered = rig.call(register(&path)).expect("registers");
    let own = rig.dirs().image_file(&registered.id);
    vm(&rig, "dev", "mine");
    start(&rig, "dev");
    assert!(!own.exists());
    let promoted = rig.call(ImagePromote { image: "mine".to_owned() }).expect("promotes");
    assert_eq!(promoted, ImageRecord { path: None, stamp: None, ..registered });
    assert!(std::fs::read(&own).expect("is there") == content);
    let meta = std::fs::metadata(&own).expect("stats");
    assert_eq!(meta.permissions().mode() & 0o777, 0o444);
    assert!(meta.blocks() * 512 < 4 << 20, "its holes are holes: {} blocks", meta.blocks());
    assert_eq!(rig.call(ImagePromote { image: "mine".to_owned() }).expect("is promoted"), promoted);
    std::fs::remove_file(&path).expect("removes it");
    stop(&rig, "dev");
    start(&rig, "dev");
    assert!(words(&rig, "dev").contains(own.to_str().expect("UTF-8")));
    let left = std::fs::read_dir(rig.dirs().images()).expect("lists").count();
    assert_eq!(left, 2, "the two images, and nothing staged");
}

#[test]
fn content_that_is_here_already_keeps_the_file_that_is_bangers_own() {
    let mut rig = Rig::started();
    let path = ext4(&rig, "mine.ext4");
    let id = rig.call(register(&path)).expect("registers").id;
    rig.call(ImagePromote { image: id.clone() }).expect("promotes");
    let again =
        rig.call(ImageRegister { name: Some("second".to_owned()), ..register(&path) }).expect("registers");
    assert_eq!((again.path, again.names.join(" ")), (None, "mine second".to_owned()));
    // What a promotion that was cut short would leave: nothing of a registered image is banger's to keep.
    rig.call(ImageDelete { image: id.clone() }).expect("deletes");
    rig.call(register(&path)).expect("registers");
    let stray = rig.dirs().image_file(&id);
    std::fs::write(&stray, "half").expect("writes");
    rig.kill();
    rig.start();
    assert!(!stray.exists() && path.exists());
}

#[test]
fn vms_take_the_kernel_of_their_image_when_none_is_asked_for_and_it_is_there() {
    let mut rig = Rig::new();
    rig.seed();
    let store = Store::open(&rig.dirs().database()).expect("opens");
    let second = store.get::<KernelRecord>(KERNEL).expect("reads").expect("is there");
    store.apply(Changes::new().put(&KernelRecord { name: "6.12".to_owned(), ..second })).expect("stores");
    drop(store);
    std::fs::create_dir_all(rig.dirs().kernel("6.12")).expect("makes a directory");
    rig.start();
    let path = ext4(&rig, "mine.ext4");
    let wish = |kernel: &str| ImageRegister { kernel: Some(kernel.to_owned()), ..register(&path) };
    let unknown = rig.call(wish("6.13")).expect_err("no such kernel");
    assert_eq!(unknown.message, "there is no kernel \"6.13\"; did you mean 6.1?");
    assert_eq!(rig.call(wish("6.12")).expect("registers").kernel.as_deref(), Some("6.12"));
    let kernel = |rig: &Rig, vm: &str| rig.show(vm).record.kernel;
    vm(&rig, "own", "mine");
    assert_eq!(kernel(&rig, "own").as_deref(), Some("6.12"));
    rig.call(VmCreate { kernel: Some(KERNEL.to_owned()), ..of("mine", "asked") }).expect("creates");
    assert_eq!(kernel(&rig, "asked").as_deref(), Some(KERNEL));
    vm(&rig, "plain", IMAGE);
    assert_eq!(kernel(&rig, "plain"), None);
    rig.call(VmDelete { vm: "own".to_owned(), only_if_ended: false }).expect("deletes");
    let remove = banger::proto::api::KernelRemove { kernel: "6.12".to_owned() };
    rig.call(remove).expect("no VM needs it");
    vm(&rig, "own", "mine");
    assert_eq!(kernel(&rig, "own"), None);
}

/// The tar of a root file system with one file.
fn tar(rig: &Rig, name: &str, content: &str) -> ImageImport {
    let path = rig.path().join(format!("{name}.tar"));
    let mut builder = tar::Builder::new(File::create(&path).expect("creates"));
    for (kind, path, content) in [
        (EntryType::Directory, "./", ""),
        (EntryType::Directory, "etc/", ""),
        (EntryType::Regular, "etc/motd", content),
    ] {
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(kind);
        header.set_size(content.len() as u64);
        header.set_mode(0o755);
        header.set_uid(0);
        header.set_gid(0);
        header.set_mtime(1_700_000_000);
        builder.append_data(&mut header, path, content.as_bytes()).expect("writes");
    }
    builder.finish().expect("writes");
    let path = path.to_str().expect("UTF-8").to_owned();
    ImageImport { path: Some(path), name: Some("mine".to_owned()), force: false, platform: None }
}

#[test]
fn a_name_of_another_image_is_moved_only_by_force() {
    let rig = Rig::started();
    let (one, two) = (tar(&rig, "one", "1"), tar(&rig, "two", "2"));
    let first = rig.call(one).expect("imports");
    let before = rig.call(ImageList {}).expect("lists");
    let taken = rig.call(two.clone()).expect_err("taken");
    assert_eq!(taken.code, Code::Conflict);
    let why =
        format!("\"mine\" stands for another image already ({}, from {})", &first.id[..12], first.source);
    assert!(taken.message.starts_with(&why), "{taken:?}");
    let path = ext4(&rig, "mine.ext4");
    // By the file's own name.
    assert!(rig.call(register(&path)).expect_err("taken").message.starts_with(&why));
    assert_eq!(rig.call(ImageList {}).expect("lists"), before);
    let files = std::fs::read_dir(rig.dirs().images()).expect("lists").count();
    assert_eq!(files, 2, "nothing is left of what was refused");
    let second = rig.call(ImageImport { force: true, ..two }).expect("moves it");
    assert_eq!(show(&rig, "mine").record, second);
    assert!(show(&rig, &first.id).record.names.is_empty());
    let third = rig.call(ImageRegister { force: true, ..register(&path) }).expect("moves it");
    assert_eq!(show(&rig, "mine").record, third);
}

/// What two requests at once came to.
fn at_once<C: Call + Send>(rig: &Rig, requests: [C; 2]) -> [Result<C::Answer, Failure>; 2]
where
    C::Answer: Send,
{
    std::thread::scope(|scope| {
        requests.map(|request| scope.spawn(|| rig.call(request))).map(|call| call.join().expect("no panic"))
    })
}

#[test]
fn of_two_who_make_the_same_at_once_the_second_takes_the_firsts_result() {
    let rig = Rig::started();
    let path = ext4(&rig, "mine.ext4");
    let same = at_once(&rig, [register(&path), register(&path)]);
    let ids = same.map(|outcome| outcome.expect("registers").id);
    assert_eq!(ids[0], ids[1]);
    assert_eq!(show(&rig, "mine").record.names, ["mine"]);
    let file = |id: &str| std::fs::metadata(rig.dirs().image_file(id)).map(|meta| meta.ino());
    let import = ImageImport { name: Some("n".to_owned()), ..tar(&rig, "one", "content") };
    let first = rig.call(import.clone()).expect("imports");
    let inode = file(&first.id).expect("is there");
    for other in at_once(&rig, [import.clone(), import]) {
        let other = other.expect("imports");
        assert_eq!(other, ImageRecord { created_at: other.created_at, ..first.clone() });
    }
    // The file stays that of the first: its VMs and all later ones share its pages.
    assert_eq!(file(&first.id).expect("is there"), inode);
}

#[test]
fn of_two_who_make_different_images_of_one_name_at_once_one_is_told() {
    let rig = Rig::started();
    let outcomes = at_once(&rig, [tar(&rig, "one", "1"), tar(&rig, "two", "2")]);
    let told = outcomes.iter().filter_map(|outcome| outcome.as_ref().err()).collect::<Vec<_>>();
    assert!(told.len() == 1 && told[0].message.contains("stands for another image already"), "{outcomes:?}");
    assert_eq!(rig.call(ImageList {}).expect("lists").len(), 2);
}
