//! Registries that refuse, lie, or send somebody elsewhere (A7, A9, F8).

use std::sync::{Arc, OnceLock};

use banger::oci::OciError;

use crate::support::*;

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
    let parts = Arc::new(Parts::small());
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
    type Answering = Box<dyn Fn(&Seen) -> Vec<u8> + Send + Sync>;
    let table: [(Answering, &str); 6] = [
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
    let parts = Arc::new(Parts::small());
    let layer = parts.layer().to_vec();
    let half = layer[..layer.len() / 2].to_vec();
    let lengths = [
        ("Connection: close\r\n".to_owned(), b"ENDLESS".to_vec(), "at least"),
        (format!("Connection: close\r\nContent-Length: {}\r\n", half.len()), half.clone(), "bytes, not"),
        // Each time they are asked.
        (
            format!("Connection: close\r\nContent-Length: {}\r\n", layer.len()),
            half.clone(),
            "cannot fetch layer sha256:",
        ),
        ("Connection: close\r\n".to_owned(), half, "broke: it ended after"),
    ];
    for (head, body, want) in lengths {
        let parts = Arc::clone(&parts);
        let server = Server::start(move |seen| {
            if !parts.is_layer(&seen.path) {
                return parts.answer(seen);
            }
            [format!("HTTP/1.1 200 OK\r\n{head}\r\n").as_bytes(), &body].concat()
        });
        let error = chain(&bench.pull(&format!("{}/app:1", server.address)).expect_err("refused"));
        assert!(error.contains(want), "{want}: {error}");
    }
}

#[test]
fn an_index_whose_image_is_another_one_is_refused() {
    let parts = Parts::small();
    let other = Parts::of(&[files(&[("b", b"b")])]);
    let descriptor = |size: usize| {
        format!(
            r#"{{"mediaType":"{MANIFEST}","digest":"{}","size":{size}{}}}"#,
            sha256(&parts.manifest),
            platform(ARCH)
        )
    };
    let index =
        |size| format!(r#"{{"schemaVersion":2,"mediaType":"{INDEX}","manifests":[{}]}}"#, descriptor(size));
    let right = parts.manifest.len();
    for (index, manifest, want) in [
        (index(right), other.manifest.clone(), "is damaged: its content has the digest"),
        (index(right + 1), parts.manifest.clone(), "is damaged: it has"),
        (index(right), [parts.manifest.clone(), vec![b' '; 10]].concat(), "is damaged: it has at least"),
    ] {
        let bench = Bench::new();
        let top = index.clone();
        let server = Server::start(move |seen| match seen.path.ends_with("/1") {
            true => response(200, &format!("{V2}Content-Type: {INDEX}\r\n"), top.as_bytes()),
            false => response(200, &format!("{V2}Content-Type: {MANIFEST}\r\n"), &manifest),
        });
        let error = bench.pull(&format!("{}/app:1", server.address)).expect_err(want).to_string();
        assert!(error.contains(want), "{want}: {error}");
    }
}

#[test]
fn what_an_image_says_of_itself_does_not_name_it() {
    // A8
    let bench = Bench::new();
    let parts = Parts::small();
    let name = "docker.io/library/debian:12";
    let annotations = format!(
        r#""annotations":{{"org.opencontainers.image.ref.name":"debian:12","io.containerd.image.name":"{name}"}},"layers""#
    );
    let manifest =
        String::from_utf8(parts.manifest.clone()).expect("UTF-8").replace("\"layers\"", &annotations);
    let parts = Parts { manifest: manifest.into_bytes(), ..parts };
    let server = Server::start(move |seen| parts.answer(seen));
    let reference = format!("{}/app:1", server.address);
    let built = bench.pull(&reference).expect("pulls");
    assert_eq!((built.names, built.source), (vec![reference.clone()], reference));
}

#[test]
fn endless_answers_end_whatever_they_answer() {
    let mut bench = Bench::new();
    bench.settings.patience.tries = 2;
    let endless = |head: &str| format!("HTTP/1.1 {head}\r\nConnection: close\r\n\r\nENDLESS").into_bytes();
    let address = Arc::new(OnceLock::<String>::new());
    let own = Arc::clone(&address);
    let server = Server::start(move |seen| {
        if seen.path.starts_with("/token") {
            return endless("200 OK");
        }
        let challenge =
            format!("WWW-Authenticate: Bearer realm=\"http://{}/token\"", own.get().expect("set"));
        endless(&format!("401 Unauthorized\r\n{challenge}"))
    });
    address.set(server.address.clone()).expect("once");
    for (server, want) in [
        (server, "its answer is longer than 1 MiB"),
        (Server::start(move |_| endless("500 Oops")), "is in trouble (status 500)"),
        (Server::start(move |_| endless("404 Not Found")), "there is no image"),
        // A header without an end.
        (Server::start(|_| b"HTTP/1.1 200 OK\r\nX: ENDLESS".to_vec()), "does not behave as a registry"),
    ] {
        let error = chain(&bench.pull(&format!("{}/app:1", server.address)).expect_err(want));
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
    let parts = Arc::new(Parts::small());
    let cdn = Server::start({
        let parts = Arc::clone(&parts);
        move |seen| parts.answer(seen)
    });
    let elsewhere = cdn.address.clone();
    let registry = Server::start(move |seen| match (&seen.authorization, seen.path.contains("/blobs/")) {
        (None, _) => response(401, "WWW-Authenticate: Basic realm=\"x\"\r\n", b""),
        (Some(_), true) => response(307, &format!("Location: http://{elsewhere}{}\r\n", seen.path), b""),
        (Some(_), false) => parts.answer(seen),
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
    let parts = Parts::small();
    let address = Arc::new(OnceLock::<String>::new());
    let own = Arc::clone(&address);
    let server = Server::start(move |seen| match seen.authorization.as_deref() {
        _ if seen.path.starts_with("/token?") => response(200, "", br#"{"token":"t0k3n","expires_in":60}"#),
        Some("Bearer t0k3n") => parts.answer(seen),
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
    assert!(error.to_string().contains("from another host, but does not speak https itself"), "{error}");
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
