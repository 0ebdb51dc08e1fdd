//! https with an authority of one's own (F6): who is trusted, and that it works where there is nothing.

use std::fs;
use std::path::Path;
use std::process::Command;

use banger::host::environment::Environment;
use banger::host::progress::Silent;

use crate::support::*;

impl Registry {
    /// A registry that speaks https as `host`, with a certificate of an authority of its own: `HOST.ca.crt` in the bench.
    pub fn private(bench: &Bench, host: &str) -> Self {
        let kind = if host.parse::<std::net::IpAddr>().is_ok() { "IP" } else { "DNS" };
        let script = format!(
            "cd {}
             new() {{ openssl req -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes \"$@\"; }}
             new -x509 -days 2 -subj '/CN=authority of {host}' -keyout {host}.ca.key -out {host}.ca.crt \
                -addext basicConstraints=critical,CA:TRUE
             new -subj /CN=registry -keyout {host}.key -out {host}.csr
             printf 'subjectAltName={kind}:{host},DNS:localhost\\n' >{host}.ext
             openssl x509 -req -in {host}.csr -CA {host}.ca.crt -CAkey {host}.ca.key -CAcreateserial -days 2 \
                -extfile {host}.ext -out {host}.crt",
            bench.path("").display()
        );
        run("sh", &["-ec", &script]);
        let (cert, key) = (bench.path(&format!("{host}.crt")), bench.path(&format!("{host}.key")));
        let tls = format!("  tls:\n    certificate: {}\n    key: {}\n", cert.display(), key.display());
        Self::configured(bench, &tls, "")
    }

    /// Puts a small image there, as `app:1`.
    pub fn fill(&self, bench: &Bench) {
        let layout = Layout::of(bench.path("filling"), &[files(&[("a", b"a")])]);
        self.push(&format!("oci:{}", text(&layout.dir)), "app:1", &[]);
        fs::remove_dir_all(&layout.dir).expect("removes");
    }
}

#[test]
fn an_authority_of_ones_own_is_trusted_by_ssl_cert_file_or_ssl_cert_dir_only() {
    let mut bench = Bench::new();
    let registry = Registry::private(&bench, "127.0.0.1");
    registry.fill(&bench);
    let reference = format!("{}/app:1", registry.address);
    let ca = bench.path("127.0.0.1.ca.crt");
    fs::create_dir(bench.path("dir")).expect("makes a directory");
    fs::copy(&ca, bench.path("dir/any-name.pem")).expect("copies");
    for variable in [("SSL_CERT_FILE", text(&ca)), ("SSL_CERT_DIR", text(&bench.path("dir")))] {
        bench.settings.environment = Environment::from([variable]);
        bench.pull(&reference).unwrap_or_else(|e| panic!("{variable:?}: {}", chain(&e)));
        fs::remove_file(bench.out()).expect("removes");
    }
    bench.settings.environment = Environment::default();
    let error = chain(&bench.pull(&reference).expect_err("not trusted"));
    assert!(error.contains("cannot trust") && error.contains("SSL_CERT_FILE"), "{error}");
    // A file that is not there is said when it matters.
    bench.settings.environment = Environment::from([("SSL_CERT_FILE", "/no/such/file")]);
    let told = Told::default();
    bench.pull_with(&reference, &told).expect_err("not trusted");
    let notes = told.notes.lock().expect("not poisoned").join("\n");
    assert!(notes.contains("cannot use SSL_CERT_FILE, /no/such/file"), "{notes}");
}

/// An empty root directory with this test in it, and `files` copied into it.
fn empty_root(bench: &Bench, files: &[(&Path, &str)]) -> Command {
    let root = bench.path("root");
    fs::create_dir_all(root.join("tmp")).expect("makes directories");
    fs::copy(std::env::current_exe().expect("a path"), root.join("test")).expect("copies");
    for (from, to) in files {
        let to = root.join(to);
        fs::create_dir_all(to.parent().expect("a directory")).expect("makes directories");
        fs::copy(from, to).expect("copies");
    }
    let mut chroot = Command::new("chroot");
    chroot.arg(&root).arg("/test");
    chroot
}

#[test]
fn the_hosts_authorities_are_trusted_beside_those_of_ssl_cert_file() {
    let name = "secure::the_hosts_authorities_are_trusted_beside_those_of_ssl_cert_file";
    if let Some([first, second]) = child_words() {
        let mut bench = Bench::new();
        bench.settings.environment = Environment::of_process();
        for reference in [first, second] {
            bench.resolve(&reference).unwrap_or_else(|e| panic!("{reference}: {}", chain(&e)));
        }
        return;
    }
    let bench = Bench::new();
    let first = Registry::private(&bench, "127.0.0.1");
    first.fill(&bench);
    let second = Bench::new();
    let other = Registry::private(&second, "127.0.0.1");
    other.fill(&second);
    let bundle = bench.path("127.0.0.1.ca.crt");
    let own = second.path("127.0.0.1.ca.crt");
    let mut chroot = empty_root(&bench, &[(&bundle, "etc/ssl/certs/ca-certificates.crt"), (&own, "own.pem")]);
    chroot.env("SSL_CERT_FILE", "/own.pem");
    let words = [format!("{}/app:1", first.address), format!("{}/app:1", other.address)];
    run_child(&mut chroot, name, &[&words[0], &words[1]]);
}

#[test]
fn names_and_https_work_in_an_empty_root_directory() {
    if let Some([reference]) = child_words() {
        let mut bench = Bench::new();
        bench.settings.environment = Environment::of_process();
        bench.resolve(&reference).expect("resolves");
        // No program of the host is needed either; whether the file is sound is seen from outside.
        let parsed = reference.parse().expect("a reference");
        let pull = banger::oci::Pull::new(&parsed, &bench.settings, &Silent);
        pull.fetch(Path::new("/out.ext4")).expect("pulls");
        return;
    }
    let bench = Bench::new();
    let registry = Registry::private(&bench, "127.0.0.1");
    registry.fill(&bench);
    let port = registry.address.rsplit_once(':').expect("a port").1;
    let mut chroot = empty_root(&bench, &[(&bench.path("127.0.0.1.ca.crt"), "ca.crt")]);
    chroot.env("SSL_CERT_FILE", "/ca.crt");
    let reference = format!("localhost:{port}/app:1");
    run_child(&mut chroot, "secure::names_and_https_work_in_an_empty_root_directory", &[&reference]);
    run("e2fsck", &["-fn", text(&bench.path("root/out.ext4"))]);
}
