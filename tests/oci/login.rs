//! Logins (A9): what each kind of registry gets to see, and what it must never see.

use std::os::unix::fs::PermissionsExt;
use std::sync::{Arc, OnceLock};

use banger::host::environment::Environment;
use banger::oci::OciError;
use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use ring::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair};

use crate::support::*;

/// Makes docker's config.json, and a credential helper `docker-credential-test` that does what `script` says and logs what
/// it is asked in the file `asked`.
fn with_helper(bench: &mut Bench, config: &str, script: &str) {
    let helper = bench.write(
        "docker-credential-test",
        format!(
            "#!/bin/sh\nread -r server\necho \"$* $server\" >>{}\n{script}\n",
            bench.path("asked").display()
        )
        .as_bytes(),
    );
    std::fs::set_permissions(helper, PermissionsExt::from_mode(0o755)).expect("sets the mode");
    bench.settings.docker_config = Some(bench.write("config.json", config.as_bytes()));
    let path = format!("{}:/usr/bin:/bin", bench.path("").display());
    bench.settings.environment = Environment::from([("PATH", path.as_str()), ("HOME", "/nowhere")]);
}

fn asked(bench: &Bench) -> Vec<String> {
    let text = std::fs::read_to_string(bench.path("asked")).unwrap_or_default();
    text.lines().map(str::to_owned).collect()
}

/// A server that wants a password, and serves an image to whoever has one.
fn demanding() -> Server {
    let parts = Parts::small();
    Server::start(move |seen| match seen.authorization.as_deref() {
        // printf user:secret | base64
        Some("Basic dXNlcjpzZWNyZXQ=") => parts.answer(seen),
        _ => response(401, "WWW-Authenticate: Basic realm=\"x\"\r\n", b""),
    })
}

const SECRET: &str = r#"echo '{"ServerURL":"x","Username":"user","Secret":"secret"}'"#;

#[test]
fn a_helper_is_asked_once_for_its_registry() {
    for config in [r#"{"credsStore":"test"}"#, r#"{"credsStore":"other","credHelpers":{"REGISTRY":"test"}}"#]
    {
        let (mut bench, server) = (Bench::new(), demanding());
        with_helper(&mut bench, &config.replace("REGISTRY", &server.address), SECRET);
        let reference = format!("{}/app:1", server.address).parse().expect("a reference");
        let told = Told::default();
        let mut pull = banger::oci::Pull::new(&reference, &bench.settings, &told);
        pull.resolve().expect("resolves");
        bench.finish(pull.fetch(&bench.out())).expect("pulls");
        assert_eq!(asked(&bench), [format!("get {}", server.address)]);
        assert!(told.notes.lock().expect("not poisoned").is_empty());
        // What was accepted is sent at once from then on.
        assert_eq!(server.seen().iter().filter(|s| s.authorization.is_none()).count(), 1);
    }
}

#[test]
fn a_registry_that_asks_for_nothing_gets_nothing_and_no_helper_runs() {
    let mut bench = Bench::new();
    let parts = Parts::small();
    let server = Server::start(move |seen| parts.answer(seen));
    with_helper(&mut bench, r#"{"credsStore":"test"}"#, SECRET);
    bench.pull(&format!("{}/app:1", server.address)).expect("pulls");
    assert!(asked(&bench).is_empty());
    assert!(server.seen().iter().all(|s| s.authorization.is_none()));
}

#[test]
fn without_credentials_and_with_a_broken_helper_one_goes_on_anonymously() {
    let table = [
        (r#"{"credsStore":"test"}"#, "echo 'credentials not found in native keychain'; exit 1", ""),
        (
            r#"{"credsStore":"test"}"#,
            "echo 'no key ring'; exit 1",
            "docker-credential-test failed: no key ring",
        ),
        (r#"{"credsStore":"none"}"#, "", "docker-credential-none is not on PATH"),
        (r#"{"credsStore":"../../tmp/evil"}"#, "", "'../../tmp/evil' is no name of a credential helper"),
        (r#"{"credHelpers":5}"#, "", "cannot use"),
    ];
    for (config, script, want) in table {
        let (mut bench, server) = (Bench::new(), demanding());
        with_helper(&mut bench, config, script);
        let told = Told::default();
        let error = bench.pull_with(&format!("{}/app:1", server.address), &told).expect_err("refused");
        assert!(matches!(error, OciError::Denied { anonymous: true, .. }), "{error}");
        let notes = told.notes.lock().expect("not poisoned").join("\n");
        assert!(notes.contains(want), "{notes}");
        assert_eq!(notes.is_empty(), want.is_empty(), "{notes}");
        assert_eq!(notes.ends_with("; going on anonymously"), !want.is_empty(), "{notes}");
    }
}

#[test]
fn an_identity_token_is_posted_to_the_token_server_and_to_nobody_else() {
    let mut bench = Bench::new();
    let parts = Parts::small();
    let address = Arc::new(OnceLock::<String>::new());
    let own = Arc::clone(&address);
    let server = Server::start(move |seen| match (seen.method.as_str(), seen.path.as_str()) {
        ("POST", "/token") => response(200, "", br#"{"access_token":"t0k3n","refresh_token":"new"}"#),
        (_, "/token") => response(405, "", b""),
        _ if seen.authorization.as_deref() == Some("Bearer t0k3n") => parts.answer(seen),
        _ => {
            let realm = format!("http://{}/token", own.get().expect("set"));
            response(401, &format!("WWW-Authenticate: Bearer realm=\"{realm}\",service=\"s v\"\r\n"), b"")
        }
    });
    address.set(server.address.clone()).expect("once");
    with_helper(&mut bench, r#"{"credsStore":"test"}"#, r#"echo '{"Username":"<token>","Secret":"id&1"}'"#);
    bench.pull(&format!("{}/app:1", server.address)).expect("pulls");
    let posts: Vec<Seen> = server.seen().into_iter().filter(|s| s.method == "POST").collect();
    assert_eq!(posts.len(), 1);
    let want = "grant_type=refresh_token&client_id=banger&service=s%20v&scope=repository%3Aapp%3Apull&refresh_token=id%261";
    assert_eq!((posts[0].body.as_str(), &posts[0].authorization), (want, &None));
    let others: Vec<Seen> = server.seen().into_iter().filter(|s| s.method != "POST").collect();
    assert!(others.iter().all(|s| !s.path.contains("id") && s.body.is_empty()));
    assert!(others.iter().filter_map(|s| s.authorization.as_ref()).all(|a| a == "Bearer t0k3n"));
}

#[test]
fn a_token_that_expires_meanwhile_is_renewed_once_for_all_threads() {
    let bench = Bench::new();
    let tars: Vec<_> = (0..4).map(|n| files(&[("a", &noise(10_000, n + 1))])).collect();
    let parts = Parts::of(&tars);
    let address = Arc::new(OnceLock::<String>::new());
    let (own, given) = (Arc::clone(&address), std::sync::atomic::AtomicUsize::new(0));
    let server = Server::start(move |seen| {
        if seen.path.starts_with("/token") {
            let n = given.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
            return response(200, "", format!(r#"{{"token":"t{n}"}}"#).as_bytes());
        }
        // The first token is good for manifests and the configuration, the second for layers.
        let is_layer = parts.layers.iter().any(|l| seen.path.ends_with(&sha256(l)));
        match seen.authorization.as_deref() {
            Some("Bearer t0") if !is_layer => parts.answer(seen),
            Some("Bearer t1") => parts.answer(seen),
            _ => {
                let realm = format!("http://{}/token", own.get().expect("set"));
                response(401, &format!("WWW-Authenticate: Bearer realm=\"{realm}\"\r\n"), b"")
            }
        }
    });
    address.set(server.address.clone()).expect("once");
    bench.pull(&format!("{}/app:1", server.address)).expect("pulls");
    assert_eq!(server.count("GET", "/token"), 2);
}

#[test]
fn a_redirect_of_a_resumed_blob_does_not_get_the_credentials_either() {
    let mut bench = Bench::new();
    let parts = Arc::new(Parts::large(1 << 20));
    let own = Arc::clone(&parts);
    let cdn = Server::start(move |seen| match seen.from() {
        0 => cut("", own.layer(), 100_000),
        from => part(own.layer(), from),
    });
    let elsewhere = cdn.address.clone();
    let registry = Server::start(move |seen| match &seen.authorization {
        None => response(401, "WWW-Authenticate: Basic realm=\"x\"\r\n", b""),
        Some(_) if parts.is_layer(&seen.path) => {
            response(302, &format!("Location: http://{elsewhere}/x\r\n"), b"")
        }
        Some(_) => parts.answer(seen),
    });
    with_helper(&mut bench, r#"{"credsStore":"test"}"#, SECRET);
    bench.pull(&format!("{}/app:1", registry.address)).expect("pulls");
    assert_eq!(cdn.seen().len(), 2);
    assert!(cdn.seen().iter().all(|s| s.authorization.is_none()));
}

/// Docker's registry with a token server of the test's, which signs what it gives as distribution's docs want it ("Token Authentication
/// Implementation").
fn guarded(bench: &Bench, storage: &Registry) -> (Registry, Server) {
    let script = format!(
        "cd {}
         openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 -subj /CN=tokens \
            -keyout token.key -out token.crt
         openssl pkcs8 -topk8 -nocrypt -in token.key -outform DER -out token.pk8
         openssl x509 -in token.crt -outform DER -out token.der",
        bench.path("").display()
    );
    run("sh", &["-ec", &script]);
    let pkcs8 = std::fs::read(bench.path("token.pk8")).expect("reads");
    let certificate = STANDARD.encode(std::fs::read(bench.path("token.der")).expect("reads"));
    let tokens = Server::start(move |seen| {
        // printf user:secret | base64
        if seen.authorization.as_deref().is_some_and(|a| a != "Basic dXNlcjpzZWNyZXQ=") {
            return response(401, "", br#"{"errors":[{"code":"UNAUTHORIZED","message":"wrong password"}]}"#);
        }
        let named = seen.authorization.is_some();
        // Everyone may pull `app`; `private` is for those with a name.
        let wanted = ["app", "private"]
            .into_iter()
            .find(|name| seen.path == format!("/token?service=registry&scope=repository%3A{name}%3Apull"))
            .unwrap_or_else(|| panic!("{} asks for something else", seen.path));
        let allowed = named || wanted == "app";
        let token = token(&pkcs8, &certificate, wanted, allowed);
        response(200, "Content-Type: application/json\r\n", format!(r#"{{"token":"{token}"}}"#).as_bytes())
    });
    let auth = format!(
        "auth:\n  token:\n    realm: http://{}/token\n    service: registry\n    issuer: test\n    rootcertbundle: {}\n",
        tokens.address,
        bench.path("token.crt").display()
    );
    let registry = Registry::beside(bench, storage, &auth);
    (registry, tokens)
}

/// A JSON web token (RFC 7519) by which `repository` may be pulled, or nothing.
fn token(pkcs8: &[u8], certificate: &str, repository: &str, allowed: bool) -> String {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).expect("a clock").as_secs();
    let access = match allowed {
        true => format!(r#"{{"type":"repository","name":"{repository}","actions":["pull"]}}"#),
        false => String::new(),
    };
    let header = format!(r#"{{"typ":"JWT","alg":"ES256","x5c":["{certificate}"]}}"#);
    let claims = format!(
        r#"{{"iss":"test","sub":"","aud":"registry","exp":{},"nbf":{},"iat":{now},"jti":"1","access":[{access}]}}"#,
        now + 300,
        now - 10
    );
    let signed = format!("{}.{}", URL_SAFE_NO_PAD.encode(header), URL_SAFE_NO_PAD.encode(claims));
    let random = ring::rand::SystemRandom::new();
    let key = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, pkcs8, &random).expect("a key");
    let signature = key.sign(&random, signed.as_bytes()).expect("signs");
    format!("{signed}.{}", URL_SAFE_NO_PAD.encode(signature.as_ref()))
}

#[test]
fn dockers_registry_with_a_token_server_gives_to_each_what_is_theirs() {
    let mut bench = Bench::new();
    let open = Registry::start(&bench);
    let layout = Layout::of(bench.path("l"), &[files(&[("a", b"a")])]);
    for name in ["app:1", "private:1"] {
        open.push(&format!("oci:{}", text(&layout.dir)), name, &[]);
    }
    let (registry, tokens) = guarded(&bench, &open);
    bench.pull(&format!("{}/app:1", registry.address)).unwrap_or_else(|e| panic!("{}", chain(&e)));
    assert_eq!(tokens.seen().len(), 1, "one token is enough");
    std::fs::remove_file(bench.out()).expect("removes");
    let private = format!("{}/private:1", registry.address);
    let error = bench.pull(&private).expect_err("refused");
    assert!(matches!(error, OciError::Denied { anonymous: true, .. }), "{error}");
    with_helper(&mut bench, r#"{"credsStore":"test"}"#, SECRET);
    bench.pull(&private).unwrap_or_else(|e| panic!("{}", chain(&e)));
    std::fs::remove_file(bench.out()).expect("removes");
    with_helper(&mut bench, r#"{"credsStore":"test"}"#, r#"echo '{"Username":"user","Secret":"wrong"}'"#);
    let error = bench.pull(&private).expect_err("refused");
    assert!(matches!(error, OciError::Denied { anonymous: false, .. }), "{error}");
    assert!(error.to_string().contains("wrong password"), "{error}");
}
