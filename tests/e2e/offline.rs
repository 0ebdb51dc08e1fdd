//! One static executable: it runs where there is nothing else, and finds names and peers without the host's libraries.

use std::fs;
use std::path::Path;
use std::process::Command;

use crate::rig::{binary, ended, part};

#[test]
#[ignore = "needs the release binary made by tests/run.sh"]
fn the_executable_is_static_and_at_most_twelve_mib() {
    let out = Command::new("file").arg("-b").arg(binary()).output().expect("runs file");
    let kind = String::from_utf8_lossy(&out.stdout).into_owned();
    assert!(kind.contains("static-pie linked") || kind.contains("statically linked"), "{kind}");
    let bytes = fs::metadata(binary()).expect("stats").len();
    assert!(bytes <= 12 << 20, "{bytes} bytes");
}

#[test]
#[ignore = "needs root and the release binary made by tests/run.sh"]
fn every_personality_tells_its_version_in_an_empty_chroot() {
    let dir = tempfile::tempdir_in(part("")).expect("a directory");
    fs::copy(binary(), dir.path().join("banger")).expect("copies");
    for name in ["banger", "bangerd", "bangerd-root", "banger-vsock"] {
        if name != "banger" {
            std::os::unix::fs::symlink("banger", dir.path().join(name)).expect("links");
        }
        let out = Command::new("chroot").arg(dir.path()).arg(format!("/{name}")).arg("--version").output();
        let end = ended(out.expect("runs chroot"));
        assert_eq!(end.status, 0, "{end:#?}");
        assert!(end.stdout.starts_with("banger v") && end.stdout.contains(", built "), "{end:#?}");
    }
}

/// A registry that speaks HTTPS under a name of its own, a DNS server for that name, and a chroot with nothing but the
/// executable, /proc, and the certificate authority's file: all in a network namespace without a way out.
#[test]
#[ignore = "needs root and the parts made by tests/run.sh"]
fn names_and_https_work_in_an_empty_chroot() {
    let dir = tempfile::tempdir_in(part("")).expect("a directory");
    prepare(dir.path());
    let out = Command::new("unshare")
        .args(["-n", "-m", "-p", "-f", "--kill-child", "--mount-proc", "bash", "-euc", SCRIPT, "bash"])
        .arg(dir.path())
        .arg(part("busybox.tar"))
        .output()
        .expect("runs unshare");
    let end = ended(out);
    // No program of the host is there, and none is needed.
    assert_eq!((end.status, end.stdout.as_str()), (0, "registry.test:5443/busybox:1\n"), "{end:#?}");
    let images = fs::read_dir(dir.path().join("root/data/state/images")).expect("lists");
    let images: Vec<_> = images.map(|entry| entry.expect("lists").path()).collect();
    assert_eq!(images.len(), 1, "{images:?}");
    let judged = Command::new("/sbin/e2fsck").arg("-fn").arg(&images[0]).output().expect("runs e2fsck");
    assert!(judged.status.success(), "{}", String::from_utf8_lossy(&judged.stdout));
    let blobs = fs::read_dir(dir.path().join("root/data/cache/oci/blobs/sha256")).expect("lists").count();
    assert_eq!(blobs, 2, "a configuration and a layer are in the cache: {end:#?}");
}

fn prepare(dir: &Path) {
    let root = dir.join("root");
    fs::create_dir_all(root.join("proc")).expect("makes");
    fs::create_dir_all(root.join("data")).expect("makes");
    fs::copy(binary(), root.join("banger")).expect("copies");
    std::os::unix::fs::symlink("banger", root.join("bangerd")).expect("links");
    let config = format!(
        "version: 0.1\nstorage: {{filesystem: {{rootdirectory: {0}/registry}}}}\nhttp: {{addr: '127.0.0.1:5443', tls: \
         {{certificate: {0}/cert.pem, key: {0}/key.pem}}}}\n",
        dir.display()
    );
    fs::write(dir.join("registry.yml"), config).expect("writes");
}

const SCRIPT: &str = r#"
cd "$1"
setup() {
    ip link set lo up
    openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 1 -subj '/CN=test authority' \
        -addext basicConstraints=critical,CA:TRUE -keyout ca.key -out root/ca.pem
    openssl req -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -subj '/CN=registry.test' -keyout key.pem -out csr.pem
    openssl x509 -req -in csr.pem -CA root/ca.pem -CAkey ca.key -CAcreateserial -days 1 -out cert.pem \
        -extfile <(printf 'subjectAltName=DNS:registry.test')
    docker-registry serve registry.yml &
    dnsmasq --keep-in-foreground --no-resolv --no-hosts --conf-file=/dev/null --listen-address=127.0.0.1 --bind-interfaces \
        --address=/registry.test/127.0.0.1 --pid-file= --user=root &
    umoci init --layout layout
    umoci new --image layout:busybox
    umoci raw add-layer --image layout:busybox "$2"
    for _ in $(seq 100); do
        skopeo copy -q --dest-tls-verify=false oci:layout:busybox docker://127.0.0.1:5443/busybox:1 && break
        sleep 0.1
    done
    mount -t proc proc root/proc
    "${alone[@]}" /bangerd &
    while [ ! -S root/data/run/bangerd.sock ]; do sleep 0.05; done
}
alone=(env -i BANGER_ROOT=/data SSL_CERT_FILE=/ca.pem "$(command -v chroot)" root)
setup "$@" >log 2>&1
exec "${alone[@]}" /banger image pull registry.test:5443/busybox:1
"#;
