//! Registries that refuse, lie, or send somebody elsewhere (A7, A9, F8).

use std::sync::{Arc, OnceLock};

use banger::oci::OciError;

use crate::support::*;

const V2: &str = "Docker-Distribution-Api-Version: registry/2.0\r\n";

/// The parts of a small image, as a registry serves them.
struct Parts {
    manifest: Vec<u8>,
    config: Vec<u8>,
    layer: Vec<u8>,
}

fn parts() -> Parts {
    let bench = Bench::new();
    let tar = files(&[("a", b"a")]);
    let layout = Layout::of(bench.path("l"), std::slice::from_ref(&tar));
    let index: serde_json::Value =
        serde_json::from_slice(&std::fs::read(layout.dir.join("index.json")).expect("reads"))
            .expect("parses");
    let read = |digest: &serde_json::Value| {
        std::fs::read(layout.blob_path(digest.as_str().expect("a digest"))).expect("reads")
    };
    let manifest = read(&index["manifests"][0]["digest"]);
    let parsed: serde_json::Value = serde_json::from_slice(&manifest).expect("parses");
    Parts { config: read(&parsed["config"]["digest"]), layer: gzip(&tar), manifest }
}

impl Parts {
    fn answer(&self, path: &str) -> Vec<u8> {
        if path.contains("/manifests/") {
            return response(200, &format!("{V2}Content-Type: {MANIFEST}\r\n"), &self.manifest);
        }
        for blob in [&self.config, &self.layer] {
            if path.ends_with(&sha256(blob)) {
                return response(200, V2, blob);
            }
        }
        response(404, V2, b"")
    }
}

#[test]
fn a_registry_that_refuses_is_quoted_and_cannot_steer_the_terminal() {
    let bench = Bench::new();
    let table: [(u16, &[u8], &str); 9] = [
        (
            401,
            br#"{"errors":[{"code":"UNAUTHORIZED","message":"who are you"}]}"#,
            "to anonymous users: UNAUTHORIZED: who are you; log in with",
        ),
        (
            403,
            br#"{"errors":[{"code":"DENIED","message":"no"}]}"#,
            "to anonymous users: DENIED: no; log in with",
        ),
        (404, br#"{"errors":[{"code":"MANIFEST_UNKNOWN"}]}"#, "there is no image"),
        (
            429,
            br#"{"errors":[{"code":"TOOMANYREQUESTS","message":"slow down"}]}"#,
            "wants fewer requests: TOOMANYREQUESTS: slow down; wait",
        ),
        (500, b"", "is in trouble (status 500); try again later"),
        (503, b"<html>sorry</html>", "is in trouble (status 503); try again later"),
        (502, b"upstream is down\nmore", "(status 502: upstream is down)"),
        (418, br#"{"errors":[]}"#, "refuses (status 418)"),
        (
            500,
            b"{\"errors\":[{\"code\":\"X\",\"message\":\"\\u001b[2Jred\\u202e\"}]}",
            "(status 500: X: \\u{1b}[2Jred\\u{202e})",
        ),
    ];
    for (status, body, want) in table {
        let server = Server::start(move |_| response(status, V2, body));
        let error = bench.pull(&format!("{}/app:1", server.address)).expect_err("refused").to_string();
        assert!(error.contains(want), "{status}: {error}");
        assert!(!error.contains(['\x1b', '\u{202e}']), "{error:?}");
    }
}

#[test]
fn manifests_that_lie_are_refused() {
    let bench = Bench::new();
    let parts = Arc::new(parts());
    let other = sha256(b"other");
    let answer = |body: Vec<u8>, media_type: &'static str, digest: String| {
        move |_: &Seen| {
            response(
                200,
                &format!("{V2}Content-Type: {media_type}\r\nDocker-Content-Digest: {digest}\r\n"),
                &body,
            )
        }
    };
    let huge = [parts.manifest.clone(), vec![b' '; 5 << 20]].concat();
    let table: [(Box<Handler>, &str); 6] = [
        (
            Box::new(answer(parts.manifest.clone(), MANIFEST, other.clone())),
            "is damaged: its content has the digest",
        ),
        (
            Box::new(answer(parts.manifest.clone(), INDEX, sha256(&parts.manifest))),
            "the manifest contradicts itself",
        ),
        (Box::new(answer(b"<html>".to_vec(), "text/html", String::new())), "the manifest is malformed"),
        (Box::new(answer(huge, MANIFEST, String::new())), "longer than 4 MiB"),
        (
            Box::new(|_: &Seen| {
                format!("HTTP/1.1 200 OK\r\nContent-Type: {MANIFEST}\r\nConnection: close\r\n\r\nENDLESS")
                    .into_bytes()
            }),
            "longer than 4 MiB",
        ),
        (Box::new(|_: &Seen| b"SSH-2.0-OpenSSH_9.2\r\n".to_vec()), ""),
    ];
    for (handler, want) in table {
        let server = Server::start(move |seen| handler(seen));
        let error = chain(&bench.pull(&format!("{}/app:1", server.address)).expect_err("refused"));
        assert!(error.contains(want), "{want}: {error}");
    }
    // By digest it must be that, whatever the header says.
    let server = Server::start(answer(parts.manifest.clone(), MANIFEST, other.clone()));
    let error = bench.pull(&format!("{}/app@{other}", server.address)).expect_err("refused").to_string();
    assert!(
        error.starts_with(&format!("manifest {other} is damaged: its content has the digest")),
        "{error}"
    );
}

#[test]
fn blobs_that_never_end_or_end_early_are_not_kept() {
    let bench = Bench::new();
    let parts = Arc::new(parts());
    let layer = sha256(&parts.layer);
    let half = parts.layer[..parts.layer.len() / 2].to_vec();
    let lengths = [
        ("Connection: close\r\n".to_owned(), b"ENDLESS".to_vec(), "at least"),
        (
            format!("Connection: close\r\nContent-Length: {}\r\n", parts.layer.len()),
            half.clone(),
            "cannot reach",
        ),
        (format!("Connection: close\r\nContent-Length: {}\r\n", half.len()), half.clone(), "bytes, not"),
        ("Connection: close\r\n".to_owned(), half, "bytes, not"),
    ];
    for (head, body, want) in lengths {
        let (parts, layer) = (Arc::clone(&parts), layer.clone());
        let server = Server::start(move |seen| {
            if !seen.path.ends_with(&layer) {
                return parts.answer(&seen.path);
            }
            [format!("HTTP/1.1 200 OK\r\n{head}\r\n").as_bytes(), &body].concat()
        });
        let error = chain(&bench.pull(&format!("{}/app:1", server.address)).expect_err("refused"));
        assert!(error.contains(want), "{want}: {error}");
    }
}

fn logged_in(bench: &mut Bench, registry: &str) {
    let config = format!(r#"{{"auths":{{"{registry}":{{"username":"user","password":"secret"}}}}}}"#);
    bench.settings.docker_config = Some(bench.write("config.json", config.as_bytes()));
}

#[test]
fn credentials_do_not_follow_a_redirect_to_another_host() {
    let mut bench = Bench::new();
    let parts = Arc::new(parts());
    let cdn = Server::start({
        let parts = Arc::clone(&parts);
        move |seen| parts.answer(&seen.path)
    });
    let elsewhere = cdn.address.clone();
    let registry = Server::start(move |seen| match (&seen.authorization, seen.path.contains("/blobs/")) {
        (None, _) => response(401, "WWW-Authenticate: Basic realm=\"x\"\r\n", b""),
        (Some(_), true) => response(307, &format!("Location: http://{elsewhere}{}\r\n", seen.path), b""),
        (Some(_), false) => parts.answer(&seen.path),
    });
    logged_in(&mut bench, &registry.address);
    bench.pull(&format!("{}/app:1", registry.address)).expect("pulls");
    assert_eq!(cdn.seen().len(), 2, "a configuration and a layer");
    assert!(cdn.seen().iter().all(|s| s.authorization.is_none()), "{:?}", cdn.seen());
    assert!(registry.seen().iter().skip(1).all(|s| s.authorization.is_some()));
}

#[test]
fn redirects_to_nowhere_and_in_circles_end() {
    let bench = Bench::new();
    for (location, want) in [
        ("Location: /again\r\n", "it redirects in circles"),
        ("", "it redirects to nowhere"),
        ("Location: file:///etc/passwd\r\n", "it redirects to no URL"),
        ("Location: gopher://x/\r\n", "it redirects to no URL"),
    ] {
        let server = Server::start(move |_| response(302, location, b""));
        let error = chain(&bench.pull(&format!("{}/app:1", server.address)).expect_err("refused"));
        assert!(error.contains(want), "{want}: {error}");
    }
}

#[test]
fn a_token_is_fetched_for_pulling_alone_and_used() {
    let mut bench = Bench::new();
    let parts = parts();
    let address = Arc::new(OnceLock::<String>::new());
    let own = Arc::clone(&address);
    let server = Server::start(move |seen| match seen.authorization.as_deref() {
        _ if seen.path.starts_with("/token?") => response(200, "", br#"{"token":"t0k3n","expires_in":60}"#),
        Some("Bearer t0k3n") => parts.answer(&seen.path),
        _ => {
            let realm = format!("http://{}/token", own.get().expect("set"));
            let challenge =
                format!("Bearer realm=\"{realm}\",service=\"s v\",scope=\"repository:evil:pull,push\"");
            response(401, &format!("WWW-Authenticate: {challenge}\r\n"), b"")
        }
    });
    address.set(server.address.clone()).expect("once");
    bench.pull(&format!("{}/app:1", server.address)).expect("pulls anonymously");
    logged_in(&mut bench, &server.address);
    std::fs::remove_file(bench.out()).expect("removes");
    bench.pull(&format!("{}/app:1", server.address)).expect("pulls as somebody");
    let tokens: Vec<Seen> = server.seen().into_iter().filter(|s| s.path.starts_with("/token")).collect();
    assert_eq!(tokens.len(), 2, "one for each pull");
    assert_eq!(tokens[0].path, "/token?service=s%20v&scope=repository%3Aapp%3Apull");
    assert_eq!(tokens[0].authorization, None);
    // printf user:secret | base64
    assert_eq!(tokens[1].authorization.as_deref(), Some("Basic dXNlcjpzZWNyZXQ="));
}

#[test]
fn a_token_realm_elsewhere_over_plain_http_is_refused() {
    let mut bench = Bench::new();
    let server = Server::start(|_| {
        response(401, "WWW-Authenticate: Bearer realm=\"http://192.0.2.1/token\",service=\"x\"\r\n", b"")
    });
    logged_in(&mut bench, &server.address);
    let error = bench.pull(&format!("{}/app:1", server.address)).expect_err("refused");
    assert!(matches!(error, OciError::Protocol { .. }), "{error}");
    assert!(error.to_string().contains("plain http from another host"), "{error}");
}

#[test]
fn tokens_that_are_none_are_refused() {
    let bench = Bench::new();
    let bodies: [&[u8]; 5] =
        [b"{}", b"nonsense", br#"{"token":"a\r\nX: y"}"#, br#"{"token":""}"#, br#"{"token":5}"#];
    for body in bodies {
        let address = Arc::new(OnceLock::<String>::new());
        let own = Arc::clone(&address);
        let server = Server::start(move |seen| {
            if seen.path.starts_with("/token") {
                return response(200, "", body);
            }
            let realm = format!("http://{}/token", own.get().expect("set"));
            response(401, &format!("WWW-Authenticate: Bearer realm=\"{realm}\"\r\n"), b"")
        });
        address.set(server.address.clone()).expect("once");
        let error = chain(&bench.pull(&format!("{}/app:1", server.address)).expect_err("refused"));
        assert!(error.contains("its token server"), "{error}");
    }
}
