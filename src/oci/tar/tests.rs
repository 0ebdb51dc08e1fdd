use std::process::Command;

use ::tar::Builder;

use super::*;

fn header(kind: EntryType, size: u64) -> Header {
    let mut header = Header::new_ustar();
    header.set_entry_type(kind);
    header.set_size(size);
    header.set_mode(0o644);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(7);
    header
}

fn read_all(bytes: &[u8]) -> Result<Vec<(Entry, Vec<u8>)>, TarError> {
    let mut reader = Reader::new(Stream(bytes));
    let mut all = vec![];
    while let Some(entry) = reader.next()? {
        let mut data = vec![];
        reader.read_to_end(&mut data).map_err(TarError::Read)?;
        all.push((entry, data));
    }
    Ok(all)
}

/// A member with PAX records before it.
fn with_pax(records: &[(&str, &[u8])], kind: EntryType, size: u64, data: &[u8]) -> Vec<u8> {
    let mut builder = Builder::new(vec![]);
    builder.append_pax_extensions(records.iter().copied()).expect("appends");
    let mut header = header(kind, size);
    header.set_path("name").expect("a short path");
    header.set_cksum();
    builder.append(&header, data).expect("appends");
    builder.into_inner().expect("finishes")
}

#[test]
fn a_member_with_two_sizes_is_refused_before_its_data_is_taken_for_members() {
    // The data is itself a tar: who believes the header's size sees one more member than who believes the record's.
    let mut inner = Builder::new(vec![]);
    let mut smuggled = header(EntryType::Regular, 0);
    inner.append_data(&mut smuggled, "smuggled", [].as_slice()).expect("appends");
    let inner = inner.into_inner().expect("finishes");
    for (record, field) in [(inner.len(), 0), (0, inner.len()), (512, inner.len())] {
        let record = record.to_string();
        let tar = with_pax(&[("size", record.as_bytes())], EntryType::Regular, field as u64, &inner[..field]);
        let error = read_all(&tar).expect_err("refused").to_string();
        assert!(error.contains("has two sizes that differ"), "{error}");
    }
    let same = with_pax(&[("size", b"3")], EntryType::Regular, 3, b"abc");
    assert_eq!(read_all(&same).expect("reads")[0].1, b"abc");
}

#[test]
fn extended_headers_apply_to_the_next_member_only() {
    let mut tar = with_pax(
        &[
            ("path", b"long\xffname"),
            ("uid", b"3000000"),
            ("mtime", b"5.25"),
            ("SCHILY.xattr.user.a", b"1\n2"),
        ],
        EntryType::Regular,
        1,
        b"x",
    );
    tar.truncate(tar.len() - 1024);
    let mut builder = Builder::new(tar);
    let mut plain = header(EntryType::Regular, 0);
    builder.append_data(&mut plain, "plain", [].as_slice()).expect("appends");
    let mut long = header(EntryType::Symlink, 0);
    builder.append_link(&mut long, "d/".repeat(90), "t/".repeat(120)).expect("appends");
    let all = read_all(&builder.into_inner().expect("finishes")).expect("reads");
    assert_eq!(all[0].0.path, b"long\xffname");
    assert_eq!((all[0].0.uid, all[0].0.mtime), (3_000_000, Time { seconds: 5, nanoseconds: 250_000_000 }));
    assert_eq!(all[0].0.xattrs[b"user.a".as_slice()], b"1\n2");
    assert_eq!((all[1].0.path.as_slice(), all[1].0.uid, all[1].0.xattrs.len()), (b"plain".as_slice(), 0, 0));
    assert_eq!((all[2].0.path.len(), all[2].0.link.len()), (180, 240));
}

#[test]
fn what_is_no_tar_or_ends_early_is_told_apart() {
    let good = with_pax(&[], EntryType::Regular, 600, &[7; 600]);
    assert!(matches!(read_all(b"hello"), Err(TarError::Truncated { .. })));
    assert!(matches!(read_all(&[b'x'; 2048]), Err(TarError::NoHeader)));
    for cut in [100, 512 + 100, 512 + 700] {
        let error = read_all(&good[..cut]).expect_err("refused");
        assert!(matches!(error, TarError::Truncated { .. } | TarError::Read(_)), "{cut}: {error}");
    }
    let mut flipped = good.clone();
    flipped[3] ^= 1;
    assert!(matches!(read_all(&flipped), Err(TarError::NoHeader)));
    assert_eq!(read_all(&[0; 1024]).expect("an empty archive").len(), 0);
}

#[test]
fn huge_extended_headers_and_files_are_refused() {
    let mut builder = Builder::new(vec![]);
    let mut pax = header(EntryType::XHeader, 2 << 20);
    pax.set_cksum();
    builder.append(&pax, [0; 16].as_slice()).expect("appends");
    let error = read_all(&builder.into_inner().expect("finishes")).expect_err("refused").to_string();
    assert!(error.contains("larger than 1 MiB"), "{error}");
    let mut huge = header(EntryType::Regular, 2 << 40);
    huge.set_path("huge").expect("a short path");
    huge.set_cksum();
    let error = read_all(huge.as_bytes()).expect_err("refused").to_string();
    assert!(error.contains("'huge' is larger than 1 TiB"), "{error}");
}

#[test]
fn sparse_files_of_gnu_tar_keep_their_holes_in_every_format() {
    let dir = tempfile::tempdir().expect("a directory");
    let file = std::fs::File::create(dir.path().join("holes")).expect("creates");
    let mut want = vec![0; 1 << 20];
    for at in [0, 300_000, 700_000, 1_000_000] {
        use std::os::unix::fs::FileExt;
        file.write_all_at(b"data", at).expect("writes");
        want[at as usize..][..4].copy_from_slice(b"data");
    }
    file.set_len(1 << 20).expect("extends");
    for format in [
        &["--format=gnu"][..],
        &["--sparse-version=0.0"],
        &["--sparse-version=0.1"],
        &["--sparse-version=1.0"],
    ] {
        let mut tar = Command::new("tar");
        tar.args(["--sparse", "--hole-detection=raw"]);
        if !format[0].contains("gnu") {
            tar.arg("--format=posix");
        }
        let out =
            tar.args(format).arg("-C").arg(dir.path()).args(["-cf", "-", "holes"]).output().expect("runs");
        assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
        assert!(out.stdout.len() < 1 << 19, "{format:?}: tar wrote the holes");
        let all = read_all(&out.stdout).expect("reads");
        let (entry, data) = &all[0];
        assert_eq!((entry.path.as_slice(), entry.size), (b"holes".as_slice(), 1 << 20), "{format:?}");
        let mut file = vec![0; 1 << 20];
        let mut from = data.as_slice();
        for stretch in &entry.stretches {
            let (here, rest) = from.split_at(stretch.len as usize);
            file[stretch.at as usize..][..here.len()].copy_from_slice(here);
            from = rest;
        }
        assert!(file == want, "{format:?}");
    }
}

proptest::proptest! {
    #[test]
    fn any_bytes_are_read_or_refused(mut bytes in proptest::collection::vec(proptest::num::u8::ANY, 0..3000), kind in 0usize..12) {
        // With a right checksum, so that more than the checksum is looked at.
        if bytes.len() >= 512 {
            bytes[156] = b"0123456xgLKS"[kind];
            bytes[257..265].copy_from_slice(b"ustar  \0");
            bytes[148..156].fill(b' ');
            let sum: u32 = bytes[..512].iter().map(|b| u32::from(*b)).sum();
            bytes[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
        }
        drop(read_all(&bytes));
    }
}
