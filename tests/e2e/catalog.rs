//! From files to a running VM by a catalog alone: bundles made by `make-bundle`, a catalog signed by openssl, and a banger that has
//! neither an image nor a kernel.

use std::io::{BufRead, BufReader, Write};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::{Value, json};

use crate::rig::{Rig, part};

/// Serves the files of a directory at a port of 127.0.0.1, as long as they are there.
fn serve(directory: PathBuf) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").expect("binds");
    let url = format!("http://{}", listener.local_addr().expect("bound"));
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.expect("accepts");
            let mut head = BufReader::new(stream.try_clone().expect("clones")).lines().map_while(Result::ok);
            let request = head.next().unwrap_or_default();
            while head.next().is_some_and(|line| !line.is_empty()) {}
            let name = request.split(' ').nth(1).unwrap_or_default().trim_start_matches('/').to_owned();
            let (status, body) = match std::fs::read(directory.join(name)) {
                Ok(body) => ("200 OK", body),
                Err(_) => ("404 Not Found", vec![]),
            };
            let head =
                format!("HTTP/1.1 {status}\r\nConnection: close\r\nContent-Length: {}\r\n\r\n", body.len());
            // Whoever has hung up does not want it.
            if stream.write_all(head.as_bytes()).is_ok() && stream.write_all(&body).is_err() {
                continue;
            }
        }
    });
    url
}

fn run(program: &str, args: &[&str], dir: &Path) {
    let out = Command::new(program).args(args).current_dir(dir).output().expect("runs");
    assert!(out.status.success(), "{program} {args:?}: {}", String::from_utf8_lossy(&out.stderr));
}

/// Makes a bundle in `dir` and returns its entry, at its URL.
fn bundle(rig: &Rig, dir: &Path, url: &str, what: &[&str]) -> Value {
    let out = dir.to_str().expect("UTF-8");
    let made = rig.ok_args(&[&["internal", "make-bundle", "-q", "--out", out], what].concat());
    let made: Value = serde_json::from_str(&made).expect("JSON");
    let name = Path::new(made["bundle"].as_str().expect("a path")).file_name().expect("a name").to_owned();
    let mut entry = made["entry"].clone();
    entry["url"] = json!(format!("{url}/{}", name.to_str().expect("UTF-8")));
    entry
}

#[test]
#[ignore = "boots VMs; run by tests/run.sh"]
fn with_a_catalog_alone_vm_run_gets_an_image_and_its_kernel_and_boots_them() {
    let rig = Rig::empty();
    let dir = tempfile::tempdir().expect("a directory");
    let url = serve(dir.path().to_owned());
    // A kernel and its modules, as a publisher has them.
    let parts = std::fs::read_dir(part("")).expect("lists").flatten().map(|e| e.path());
    let deb =
        parts.into_iter().find(|p| p.extension().is_some_and(|e| e == "deb")).expect("a kernel package");
    run("dpkg-deb", &["-x", deb.to_str().expect("UTF-8"), "package"], dir.path());
    let package = dir.path().join("package");
    let only = |below: &str| {
        let mut entries = std::fs::read_dir(package.join(below)).expect("lists").flatten();
        entries.next().expect("one").path().to_str().expect("UTF-8").to_owned()
    };
    let modules = only("lib/modules");
    let version = modules.rsplit('/').next().expect("a name").to_owned();
    let vmlinuz = package.join(format!("boot/vmlinuz-{version}"));
    let kernel = [
        "--kernel",
        vmlinuz.to_str().expect("UTF-8"),
        "--modules",
        &modules,
        "--name",
        "debian-cloud",
        "--version",
        &version,
    ];
    let kernel = bundle(&rig, dir.path(), &url, &kernel);
    let tar = part("busybox.tar");
    let image = [
        "--rootfs-tar",
        tar.to_str().expect("UTF-8"),
        "--name",
        "small",
        "--distro",
        "busybox",
        "--kernel-ref",
        "debian-cloud",
        "--size",
        "300M",
    ];
    let image = bundle(&rig, dir.path(), &url, &image);
    let catalog = json!({"version": 1, "images": [image], "kernels": [kernel]});
    std::fs::write(dir.path().join("catalog.json"), catalog.to_string()).expect("writes");
    let sign = "openssl ecparam -name prime256v1 -genkey -noout -out key.pem; openssl ec -in key.pem -pubout -out public.pem; \
                openssl dgst -sha256 -sign key.pem catalog.json | base64 >catalog.json.sig";
    run("sh", &["-ec", sign], dir.path());
    let config = format!(
        "network = 'user'\ndefault_image_name = 'small'\ncatalog_urls = ['{url}/catalog.json']\ncatalog_keys = ['{}']\n",
        dir.path().join("public.pem").display()
    );
    rig.configure(&config);

    let end = rig.args(&["vm", "run", "--rm", "--", "sh", "-c", "uname -r; ls /lib/modules"]);
    assert_eq!(end.status, 0, "{end:#?}\n{}", rig.daemon_log());
    let lines: Vec<&str> = end.stdout.lines().collect();
    assert_eq!(lines, [version.as_str(), version.as_str()], "{end:#?}");
    for said in [
        "the image wants the kernel debian-cloud; pulling it",
        "there is no image small here yet; pulling it",
    ] {
        assert!(end.stderr.contains(said), "{said}: {end:#?}");
    }
    rig.assert_no_vm_is_left();
    assert_eq!(rig.json("image show --json small")["bytes"], 300 << 20);
    // All of it is here now, and nothing is asked of anybody.
    std::fs::remove_dir_all(dir.path()).expect("removes");
    let end = rig.banger("vm run --rm -- true");
    assert_eq!(end.status, 0, "{end:#?}");
    assert!(!end.stderr.contains("pulling"), "{end:#?}");
    rig.assert_no_vm_is_left();
}
