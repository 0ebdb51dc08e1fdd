//! Docker's credential helpers: a program `docker-credential-NAME` that is asked on its stdin for a server
//! (github.com/docker/docker-credential-helpers).

use std::ffi::OsStr;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::time::Duration;

use serde::Deserialize;

use super::credentials::Credentials;
use crate::host::cmd::run_fed;
use crate::host::environment::Environment;
use crate::image::manifest::harmless;
use crate::image::reference::DOCKER_HUB;

/// It may have to wait for somebody who unlocks a key ring.
const LIMIT: Duration = Duration::from_secs(30);
/// What a helper needs to find its files, its own programs and the session's key ring. Nothing else is for it.
const ENVIRONMENT: [&str; 4] = ["PATH", "HOME", "XDG_RUNTIME_DIR", "DBUS_SESSION_BUS_ADDRESS"];
/// The user name that says that the secret is an identity token.
const IDENTITY: &str = "<token>";

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Answer {
    username: String,
    secret: String,
}

/// What the helper `name` has for `registry`; None: nothing.
///
/// # Errors
/// A sentence, harmless to show.
pub fn ask(name: &str, registry: &str, environment: &Environment) -> Result<Option<Credentials>, String> {
    let program = format!("docker-credential-{}", checked(name)?);
    let found = find(&program, environment.get("PATH").unwrap_or_default());
    let path = found.ok_or_else(|| format!("{program} is not on PATH"))?;
    // Docker Hub's credentials have been kept under this name since before there were references.
    let server = if registry == DOCKER_HUB { "https://index.docker.io/v1/" } else { registry };
    let out = run_fed(&path, &["get"], &environment.only(&ENVIRONMENT), server.as_bytes(), LIMIT)
        .map_err(|e| format!("{e}"))?;
    if out.status.success() {
        return parse(&out.stdout).map(Some).ok_or_else(|| format!("{program} answers no credentials"));
    }
    if is_not_found(&out.stdout) || is_not_found(&out.stderr) {
        return Ok(None);
    }
    let said = if out.stdout.trim_ascii().is_empty() { &out.stderr } else { &out.stdout };
    let last = String::from_utf8_lossy(said).trim().lines().last().map(harmless).unwrap_or_default();
    Err(format!("{program} failed: {last}"))
}

/// A name from a file that others may have written: it must not become a path, or an option.
fn checked(name: &str) -> Result<&str, String> {
    let ok = !name.is_empty() && name.bytes().all(|b| matches!(b, b'a'..=b'z' | b'0'..=b'9' | b'_' | b'-'));
    if ok { Ok(name) } else { Err(format!("'{}' is no name of a credential helper", harmless(name))) }
}

/// The executable file of that name in the first directory of PATH that has one. Relative directories are left out: they would be
/// others for the daemon than for its user.
fn find(program: &str, path: &str) -> Option<PathBuf> {
    let directories = std::env::split_paths(OsStr::new(path)).filter(|dir| dir.is_absolute());
    directories.map(|dir| dir.join(program)).find(|candidate| {
        candidate.metadata().is_ok_and(|meta| meta.is_file() && meta.permissions().mode() & 0o111 != 0)
    })
}

fn parse(stdout: &[u8]) -> Option<Credentials> {
    let Answer { username, secret } = serde_json::from_slice(stdout).ok()?;
    if secret.is_empty() {
        return None;
    }
    Some(if username == IDENTITY {
        Credentials::Identity { token: secret }
    } else {
        Credentials::Password { user: username, password: secret }
    })
}

fn is_not_found(said: &[u8]) -> bool {
    String::from_utf8_lossy(said).to_ascii_lowercase().contains("credentials not found")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A helper that does what a line of shell says.
    fn helper(script: &str) -> (tempfile::TempDir, Environment) {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("docker-credential-test");
        std::fs::write(&path, format!("#!/bin/sh\n{script}\n")).expect("writes");
        std::fs::set_permissions(&path, PermissionsExt::from_mode(0o755)).expect("sets the mode");
        let path = format!("relative:{}:/usr/bin:/bin", dir.path().display());
        let environment =
            Environment::from([("PATH", path.as_str()), ("HOME", "/home/me"), ("NO_PROXY", "x")]);
        (dir, environment)
    }

    #[test]
    fn a_helper_is_asked_for_the_server_with_the_daemons_path_and_home() {
        let script = r#"[ "$*" = get ] && [ -z "$NO_PROXY" ] && read -r server
            printf '{"ServerURL":"%s","Username":"%s","Secret":"%s"}' "$server" "$server" "$HOME""#;
        let (_dir, environment) = helper(script);
        let got = |registry| ask("test", registry, &environment).expect("answers");
        let password = |user: &str| {
            Some(Credentials::Password { user: user.to_owned(), password: "/home/me".to_owned() })
        };
        assert_eq!(got("ghcr.io"), password("ghcr.io"));
        assert_eq!(got("docker.io"), password("https://index.docker.io/v1/"));
    }

    #[test]
    fn an_identity_token_is_told_from_a_password() {
        let (_dir, environment) = helper(r#"echo '{"Username":"<token>","Secret":"abc"}'"#);
        let identity = Credentials::Identity { token: "abc".to_owned() };
        assert_eq!(ask("test", "ghcr.io", &environment), Ok(Some(identity)));
    }

    #[test]
    fn a_helper_that_has_nothing_is_told_from_one_that_fails() {
        let (_dir, environment) = helper("echo 'credentials not found in native keychain'; exit 1");
        assert_eq!(ask("test", "ghcr.io", &environment), Ok(None));
        let table = [
            ("echo 'cannot open \x1b[2J key ring'; exit 1", "failed: cannot open \\u{1b}[2J key ring"),
            ("echo oops >&2; exit 1", "docker-credential-test failed: oops"),
            ("echo nonsense", "docker-credential-test answers no credentials"),
            (r#"echo '{"Username":"u","Secret":""}'"#, "answers no credentials"),
        ];
        for (script, want) in table {
            let (_dir, environment) = helper(script);
            let error = ask("test", "ghcr.io", &environment).expect_err(script);
            assert!(error.ends_with(want), "{script}: {error}");
        }
    }

    #[test]
    fn a_name_is_no_path_and_the_program_must_be_on_path() {
        let (dir, environment) = helper("echo '{}'");
        for name in ["", "../test", "a/b", ".", "test.sh", "Test", "-x y", "test\n", "täst"] {
            let error = ask(name, "ghcr.io", &environment).expect_err(name);
            assert!(error.ends_with("is no name of a credential helper"), "{name}: {error}");
        }
        let error = ask("none", "ghcr.io", &environment).expect_err("not there");
        assert_eq!(error, "docker-credential-none is not on PATH");
        let program = dir.path().join("docker-credential-test");
        std::fs::set_permissions(program, PermissionsExt::from_mode(0o644)).expect("sets the mode");
        assert!(ask("test", "ghcr.io", &environment).is_err(), "one that cannot be executed");
    }

    proptest::proptest! {
        #[test]
        fn any_answer_is_read(bytes: Vec<u8>, user in "\\PC{0,20}", secret in "\\PC{1,20}") {
            drop(parse(&bytes));
            let text = serde_json::json!({"ServerURL": "x", "Username": user, "Secret": secret}).to_string();
            let want = if user == IDENTITY {
                Credentials::Identity { token: secret }
            } else {
                Credentials::Password { user, password: secret }
            };
            proptest::prop_assert_eq!(parse(text.as_bytes()), Some(want));
        }
    }
}
