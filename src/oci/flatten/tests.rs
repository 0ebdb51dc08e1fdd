//! Layers are written as lines, `KIND PATH[ -> TARGET]`, and trees compared as lines.

use ::tar::{Builder, EntryType, Header};

use super::*;
use crate::host::progress::Silent;
use crate::oci::tar::Stream;

/// `d`irectory, `f`ile (its content is its path), `s`ymlink, `h`ard link, `c`haracter device, `p`ipe.
fn layer(lines: &str) -> Vec<u8> {
    let mut builder = Builder::new(vec![]);
    for line in lines.lines().map(str::trim).filter(|l| !l.is_empty()) {
        let (kind, rest) = line.split_once(' ').expect("a kind and a path");
        let (path, target) = rest.split_once(" -> ").unwrap_or((rest, ""));
        let path = if path == "EMPTY" { "" } else { path };
        let mut header = Header::new_gnu();
        header.set_mode(0o644);
        header.set_uid(1);
        header.set_gid(2);
        header.set_mtime(3);
        header.set_size(0);
        let data = if kind == "f" { path.as_bytes() } else { &[] };
        header.set_entry_type(match kind {
            "d" => EntryType::Directory,
            "f" => EntryType::Regular,
            "s" => EntryType::Symlink,
            "h" => EntryType::Link,
            "c" => EntryType::Char,
            "p" => EntryType::Fifo,
            other => panic!("no kind {other}"),
        });
        header.set_device_major(1).expect("GNU headers have it");
        header.set_device_minor(5).expect("GNU headers have it");
        header.set_size(data.len() as u64);
        // Names as an attacker writes them: the crate would refuse `..` and the empty one.
        for (field, text) in [(0, path), (157, target)] {
            header.as_mut_bytes()[field..field + text.len()].copy_from_slice(text.as_bytes());
        }
        header.set_cksum();
        builder.append(&header, data).expect("appends");
    }
    builder.into_inner().expect("finishes")
}

fn flatten(layers: &[&str], whiteouts: Whiteouts) -> Result<(Tree, Image), LayerError> {
    let file = tempfile::tempfile().expect("a file");
    let mut flattening = Flattening::new(file, Limits::default(), &Silent);
    for lines in layers {
        flattening.apply(&mut Reader::new(Stream(layer(lines).as_slice())), whiteouts)?;
    }
    Ok(flattening.finish())
}

fn list(tree: &Tree, image: &mut Image) -> Vec<String> {
    fn below(tree: &Tree, image: &mut Image, dir: InodeId, path: &str, lines: &mut Vec<String>) {
        for (name, entry) in tree.entries(dir) {
            let path = format!("{path}{}", String::from_utf8_lossy(name));
            let line = match &tree.get(entry.inode).kind {
                Kind::Directory(_) => {
                    lines.push(format!("{path}/"));
                    below(tree, image, entry.inode, &format!("{path}/"), lines);
                    continue;
                }
                Kind::File(content) => {
                    let mut text = vec![0; usize::try_from(content.size).expect("small")];
                    assert_eq!(image.read_head(content, &mut text).expect("reads"), text.len());
                    format!("{path} = {}", String::from_utf8_lossy(&text))
                }
                Kind::Symlink(target) => format!("{path} -> {}", String::from_utf8_lossy(target)),
                Kind::CharDevice { major, minor } => format!("{path} c {major}:{minor}"),
                Kind::BlockDevice { major, minor } => format!("{path} b {major}:{minor}"),
                Kind::Fifo => format!("{path} p"),
                Kind::Socket => panic!("no layer has sockets"),
            };
            lines.push(line);
        }
    }
    let mut lines = vec![];
    below(tree, image, InodeId::ROOT, "", &mut lines);
    lines
}

/// What the layers come to.
fn tree(layers: &[&str]) -> Vec<String> {
    let (tree, mut image) = flatten(layers, Whiteouts::Apply).expect("applies");
    list(&tree, &mut image)
}

#[test]
fn later_layers_replace_what_earlier_ones_have() {
    let table: &[(&str, &[&str], &[&str])] = &[
        ("a file over a file", &["f a/x", "f a/x"], &["a/", "a/x = a/x"]),
        ("a directory over a file", &["f a", "d a\nf a/x"], &["a/", "a/x = a/x"]),
        ("a file over a directory", &["d a\nf a/x", "f a"], &["a = a"]),
        ("a symlink over a directory (A3)", &["d a\nf a/x\nd b", "s a -> b"], &["a -> b", "b/"]),
        (
            "a directory over a symlink",
            &["d b\nf b/y\ns a -> b", "d a\nf a/x"],
            &["a/", "a/x = a/x", "b/", "b/y = b/y"],
        ),
        (
            "a directory over a directory merges",
            &["d a\nf a/x", "d a\nf a/y"],
            &["a/", "a/x = a/x", "a/y = a/y"],
        ),
        ("a fifo over a device", &["c a", "p a"], &["a p"]),
        ("an entry that is there twice", &["f a\ns a -> b"], &["a -> b"]),
        ("missing parents are made", &["f a/b/c"], &["a/", "a/b/", "a/b/c = a/b/c"]),
        ("paths from the root", &["f /a/./b//c"], &["a/", "a/b/", "a/b/c = /a/./b//c"]),
    ];
    for (what, layers, want) in table {
        assert_eq!(tree(layers), *want, "{what}");
    }
}

#[test]
fn whiteouts_delete_what_lower_layers_have_and_nothing_else() {
    let base = "d a\nf a/x\nf a/y\nd a/d\nf a/d/z";
    let table: &[(&str, &[&str], &[&str])] = &[
        ("a file", &[base, "f a/.wh.x"], &["a/", "a/d/", "a/d/z = a/d/z", "a/y = a/y"]),
        ("a directory", &[base, "f a/.wh.d"], &["a/", "a/x = a/x", "a/y = a/y"]),
        ("what is not there", &[base, "f .wh.b\nf c/.wh.b", "f .wh.a"], &[]),
        ("opaque", &[base, "d a\nf a/.wh..wh..opq\nf a/new"], &["a/", "a/new = a/new"]),
        (
            "opaque after its siblings",
            &[base, "f a/new\nf a/d/new\nf a/.wh..wh..opq"],
            &["a/", "a/d/", "a/d/new = a/d/new", "a/new = a/new"],
        ),
        (
            "then made anew",
            &[base, "f a/.wh.x\nf a/x"],
            &["a/", "a/d/", "a/d/z = a/d/z", "a/x = a/x", "a/y = a/y"],
        ),
        ("made anew, then whited out", &["f x", "d x\nf x/n\nf .wh.x"], &["x/", "x/n = x/n"]),
        ("aufs's own", &[base, "d .wh..wh.plnk\nf .wh..wh.aufs", "f .wh.a"], &[]),
        ("all of it", &[base, "f .wh..wh..opq"], &[]),
        ("a name that begins with a dot", &["f .x", "f .wh..x"], &[]),
    ];
    for (what, layers, want) in table {
        assert_eq!(tree(layers), *want, "{what}");
    }
    let (kept, mut image) = flatten(&["f .wh.x\nf x"], Whiteouts::Keep).expect("applies");
    assert_eq!(list(&kept, &mut image), [".wh.x = .wh.x", "x = x"], "in a root file system they are files");
}

#[test]
fn symlinks_on_the_way_lead_through_the_image_and_never_out_of_it() {
    let table: &[(&str, &[&str], &[&str])] = &[
        // A1
        (
            "an absolute one",
            &["s etc -> /tmp/x\nf etc/passwd"],
            &["etc -> /tmp/x", "tmp/", "tmp/x/", "tmp/x/passwd = etc/passwd"],
        ),
        (
            "one from a lower layer",
            &["d tmp\ns etc -> /tmp", "f etc/passwd"],
            &["etc -> /tmp", "tmp/", "tmp/passwd = etc/passwd"],
        ),
        (
            "one that climbs",
            &["s etc -> ../../../tmp\nf etc/passwd"],
            &["etc -> ../../../tmp", "tmp/", "tmp/passwd = etc/passwd"],
        ),
        ("through a whiteout", &["d tmp\nf tmp/x\ns etc -> /tmp", "f etc/.wh.x"], &["etc -> /tmp", "tmp/"]),
        (
            "through an opaque one",
            &["d tmp\nf tmp/x\ns etc -> /tmp", "f etc/.wh..wh..opq"],
            &["etc -> /tmp", "tmp/"],
        ),
        (
            "through a hard link's target",
            &["d tmp\nf tmp/x\ns etc -> /tmp", "h y -> etc/x"],
            &["etc -> /tmp", "tmp/", "tmp/x = tmp/x", "y = tmp/x"],
        ),
        ("two of them", &["d c\ns b -> c\ns a -> /b/.\nf a/x"], &["a -> /b/.", "b -> c", "c/", "c/x = a/x"]),
        (
            "as the last name it is replaced, not followed",
            &["f target\ns a -> target", "f a"],
            &["a = a", "target = target"],
        ),
        (
            "a hard link to it is a link to the symlink",
            &["f t\ns a -> t", "h b -> a"],
            &["a -> t", "b -> t", "t = t"],
        ),
    ];
    for (what, layers, want) in table {
        assert_eq!(tree(layers), *want, "{what}");
    }
}

#[test]
fn hard_links_share_an_inode_over_layers() {
    let (tree, mut image) =
        flatten(&["f a", "h b -> a", "h c -> /b\nh c -> c"], Whiteouts::Apply).expect("applies");
    let find = |name: &[u8]| tree.lookup(InodeId::ROOT, name).expect("is there");
    assert_eq!((find(b"a"), find(b"a")), (find(b"b"), find(b"c")));
    assert_eq!(tree.names(find(b"a")), 3);
    assert_eq!(list(&tree, &mut image), ["a = a", "b = a", "c = a"]);
    let (tree, mut image) =
        flatten(&["f a\nh b -> a", "f a\nf .wh.b", "h d -> a"], Whiteouts::Apply).expect("applies");
    assert_eq!(list(&tree, &mut image), ["a = a", "d = a"]);
}

#[test]
fn a_directory_entry_changes_the_attributes_only() {
    let (tree, _) = flatten(&["f a/x", "d a\nd ./"], Whiteouts::Apply).expect("applies");
    let a = tree.lookup(InodeId::ROOT, b"a").expect("is there");
    let meta = &tree.get(a).meta;
    assert_eq!((meta.uid, meta.gid, meta.mtime.seconds, meta.mode), (1, 2, 3, 0o644));
    assert_eq!(tree.get(InodeId::ROOT).meta.mode, 0o644, "the root directory has an entry too");
    assert_eq!(tree.entries(a).len(), 1);
}

#[test]
fn names_that_shells_stumble_over_are_only_names() {
    // A10
    let names = ["f a b", "f 'q\"", "f $(x)", "f -rf", "f x\ty", "f ;"];
    for name in names {
        assert_eq!(tree(&[name]).len(), 1, "{name:?}");
    }
}

#[test]
fn hostile_members_are_refused_by_name() {
    let table = [
        // A2
        ("s . -> /tmp", "root directory"),
        ("s EMPTY -> /tmp", "root directory"),
        ("f a/..", "root directory"),
        ("f ../x", "leads out of the image"),
        ("f /../../etc/passwd", "leads out of the image"),
        ("f a/../../x", "leads out of the image"),
        ("s a -> a\nf a/x", "too many symlinks"),
        ("s a -> b\ns b -> /a\nf a/x", "too many symlinks"),
        ("s a -> a/a\nf a/x", "too many symlinks"),
        ("f a\nf a/x", "no directory"),
        ("f a\ns l -> a\nf l/x", "no directory"),
        ("h a -> b", "hard link to nothing"),
        ("h a -> ../../etc/passwd", "hard link out of the image"),
        ("d b\nh a -> b", "hard link to a directory"),
        ("h a -> /", "hard link to the root"),
        ("s a -> ", "symlink to nothing"),
        ("f .wh.", "whiteout of nothing"),
        ("f a/.wh...", "whiteout of nothing"),
    ];
    for (lines, why) in table {
        let error = flatten(&[lines], Whiteouts::Apply).err().unwrap_or_else(|| panic!("accepted: {lines}"));
        assert!(error.to_string().contains(why), "{lines}: {error}");
    }
}

#[test]
fn a_tree_cannot_be_made_deeper_by_way_of_symlinks() {
    let mut lines = String::new();
    let step = "d/".repeat(40);
    for i in 0..10 {
        let from = if i == 0 { String::new() } else { format!("l{}/", i - 1) };
        lines.push_str(&format!("d {from}{step}\ns l{i} -> {from}{step}\n"));
    }
    let error = flatten(&[&lines], Whiteouts::Apply).err().expect("refused").to_string();
    assert!(error.contains("deeper than 256"), "{error}");
}
