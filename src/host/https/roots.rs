//! Whom https trusts: the host's certificate authorities, and those that SSL_CERT_FILE and SSL_CERT_DIR name besides.

use std::path::Path;

use rustls_native_certs::{CertificateResult, load_certs_from_paths};
use ureq::tls::{Certificate, RootCerts};

use crate::host::environment::Environment;

/// Where distributions keep their bundle; the first that there is counts (Go's crypto/x509/root_linux.go has the same).
const BUNDLES: [&str; 6] = [
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
    "/etc/pki/tls/cacert.pem",
    "/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem",
    "/etc/ssl/cert.pem",
];

/// The authorities, and what went wrong with those that the environment names.
///
/// Mozilla's are taken where there are none at all, as in an empty root directory.
pub fn roots(environment: &Environment) -> (RootCerts, Vec<String>) {
    let bundle = BUNDLES.iter().map(Path::new).find(|path| path.exists());
    let host = load_certs_from_paths(bundle, None);
    for error in &host.errors {
        log::warn!("cannot use one of this host's root certificates: {error}");
    }
    let mut certificates = host.certs;
    let mut problems = vec![];
    let mut add = |variable: &str, path: &str, found: CertificateResult| {
        problems.extend(found.errors.iter().map(|e| format!("cannot use {variable}, {path}: {e}")));
        if found.errors.is_empty() && found.certs.is_empty() {
            problems.push(format!("cannot use {variable}, {path}: there is no certificate in it"));
        }
        certificates.extend(found.certs);
    };
    if let Some(file) = environment.get("SSL_CERT_FILE") {
        add("SSL_CERT_FILE", file, load_certs_from_paths(Some(Path::new(file)), None));
    }
    for directory in environment.get("SSL_CERT_DIR").unwrap_or_default().split(':').filter(|d| !d.is_empty())
    {
        add("SSL_CERT_DIR", directory, load_certs_from_paths(None, Some(Path::new(directory))));
    }
    if certificates.is_empty() {
        return (RootCerts::WebPki, problems);
    }
    let certificates: Vec<Certificate<'static>> =
        certificates.iter().map(|der| Certificate::from_der(der).to_owned()).collect();
    (RootCerts::new_with_certs(&certificates), problems)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_environment_names_and_cannot_be_used_is_said() {
        let dir = tempfile::tempdir().expect("a directory");
        let empty = dir.path().join("empty");
        std::fs::write(&empty, "no certificate").expect("writes");
        let problems = |variable, path: &Path| {
            roots(&Environment::from([(variable, path.to_str().expect("UTF-8"))])).1.join("; ")
        };
        assert!(problems("SSL_CERT_FILE", &dir.path().join("none")).contains("No such file"));
        assert!(problems("SSL_CERT_FILE", &empty).ends_with("there is no certificate in it"));
        assert!(problems("SSL_CERT_DIR", &dir.path().join("none")).contains("No such file"));
        assert!(roots(&Environment::default()).1.is_empty());
    }
}
