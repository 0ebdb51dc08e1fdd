use std::convert::Infallible;
use std::io::Write;

use proptest::prelude::*;

use super::*;
use crate::host::progress::Silent;

/// A package of this control text and these files, its data packed with gzip.
pub fn package(control: &str, files: &[(&str, &[u8])]) -> Vec<u8> {
    let tar = |files: &[(&str, &[u8])]| {
        let mut tar = tar::Builder::new(flate2::write::GzEncoder::new(vec![], flate2::Compression::fast()));
        for (path, content) in files {
            let mut header = tar::Header::new_gnu();
            header.set_size(content.len() as u64);
            header.set_mode(0o644);
            tar.append_data(&mut header, format!("./{path}"), *content).expect("appends");
        }
        tar.into_inner().expect("ends").finish().expect("packs")
    };
    let mut deb = ar::Builder::new(vec![]);
    for (name, content) in [
        ("debian-binary", b"2.0\n".to_vec()),
        ("control.tar.gz", tar(&[("control", control.as_bytes())])),
        ("data.tar.gz", tar(files)),
    ] {
        let header = ar::Header::new(name.into(), content.len() as u64);
        deb.append(&header, &content[..]).expect("appends");
    }
    deb.into_inner().expect("ends")
}

fn file(bytes: &[u8]) -> tempfile::NamedTempFile {
    let mut file = tempfile::NamedTempFile::new().expect("a file");
    file.write_all(bytes).expect("writes");
    file
}

type Seen = Vec<(String, Vec<u8>)>;

fn read_all(bytes: &[u8]) -> Result<(Control, Seen), DebError<Infallible>> {
    let mut seen = vec![];
    let wanted = |path: &str| path.starts_with("boot/").then_some(100);
    let control = read(file(bytes).path(), &Silent, wanted, |path, content| {
        seen.push((path.to_owned(), content));
        Ok(())
    })?;
    Ok((control, seen))
}

#[test]
fn wanted_files_come_with_their_content_however_long_their_names_are() {
    let long = format!("boot/{}", "x".repeat(200));
    let files = [("usr/x", &b"no"[..]), ("boot/vmlinuz-1", b"kernel"), (&long, b"long")];
    let (control, seen) =
        read_all(&package("Package: linux-image-1\nDepends: kmod, x\n", &files)).expect("reads");
    assert_eq!(control, Control { package: "linux-image-1".to_owned(), kernel: None });
    assert_eq!(seen, [("boot/vmlinuz-1".to_owned(), b"kernel".to_vec()), (long, b"long".to_vec())]);
}

#[test]
fn a_package_names_the_kernel_that_it_depends_on() {
    let text = "Package: linux-image-cloud-amd64\nDepends: linux-base (>= 4), linux-image-6.1.0-56-cloud-amd64 (= 6.1.192-2)\n";
    let control = Control::parse(text);
    assert_eq!(control.kernel.as_deref(), Some("linux-image-6.1.0-56-cloud-amd64"));
    assert_eq!(Control::parse("Package: a\x1b[2Jb\n").package, "the package");
}

#[test]
fn what_is_no_package_or_a_damaged_one_is_told_apart() {
    for bytes in
        [&b""[..], b"hello", b"!<arch>\nfoo.o/          0           0     0     644     2         `\nhi"]
    {
        assert!(matches!(read_all(bytes), Err(DebError::NotAPackage)), "{bytes:?}");
    }
    let deb = package("Package: p\n", &[("boot/vmlinuz-1", &[7; 90])]);
    for cut in [80, deb.len() / 2, deb.len() - 20] {
        assert!(matches!(read_all(&deb[..cut]), Err(DebError::Damaged(_))), "cut at {cut}");
    }
    let deb = package("Package: p\n", &[("boot/vmlinuz-1", &[7; 101])]);
    let error = read_all(&deb).expect_err("above the limit");
    assert!(matches!(error, DebError::Damaged(e) if e.kind() == io::ErrorKind::FileTooLarge));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn a_garbled_package_never_panics(at in 0usize..700, value in any::<u8>()) {
        let mut deb = package("Package: p\n", &[("boot/vmlinuz-1", b"kernel")]);
        if let Some(byte) = deb.get_mut(at) {
            *byte = value;
        }
        let _ = read_all(&deb);
    }
}
