//! Mirrors and insecure registries, as config.toml names them.

use std::fs;

use banger::oci::OciError;
use banger::oci::registries::Terms;

use crate::support::*;

fn mirrored(bench: &mut Bench, registry: &str, mirrors: &[String]) {
    let mirrors = mirrors.iter().map(|m| m.parse().expect("a mirror")).collect();
    bench.settings.registries.add(registry, Terms { mirrors, insecure: false }).expect("a registry");
}

/// Resolves and pulls as the daemon does, and returns the notes.
fn pull(bench: &Bench, reference: &str) -> Result<Vec<String>, OciError> {
    let told = Told::default();
    let parsed = reference.parse().expect("a reference");
    let mut pull = banger::oci::Pull::new(&parsed, &bench.settings, &told);
    let outcome = pull.resolve().and_then(|_| pull.fetch(&bench.out()));
    let names = bench.finish(outcome)?.names;
    assert_eq!(names, [parsed.local_name()], "it is called as it was asked for");
    Ok(told.notes.lock().expect("not poisoned").clone())
}

#[test]
fn a_mirror_is_asked_before_the_registry_and_a_note_says_so() {
    let mut bench = Bench::new();
    let parts = Parts::small();
    let mirror = Server::start(move |seen| parts.answer(seen));
    let registry = Server::start(|_| response(500, "", b"nobody should ask"));
    mirrored(&mut bench, &registry.address, &[format!("http://{}/hub", mirror.address)]);
    let notes = pull(&bench, &format!("{}/library/app:1", registry.address)).expect("pulls");
    let want = format!("{}/library/app:1 is what http://{}/hub says it is", registry.address, mirror.address);
    assert_eq!(notes, [want]);
    assert!(registry.seen().is_empty());
    assert!(mirror.seen().iter().all(|s| s.path.starts_with("/v2/hub/library/app/")));
}

#[test]
fn docker_hub_has_mirrors_too() {
    let mut bench = Bench::new();
    let parts = Parts::small();
    let mirror = Server::start(move |seen| parts.answer(seen));
    mirrored(&mut bench, "docker.io", &[format!("http://{}", mirror.address)]);
    pull(&bench, "debian:12").expect("pulls");
    assert_eq!(mirror.seen()[0].path, "/v2/library/debian/manifests/12");
}

#[test]
fn what_one_mirror_has_not_another_may_have_and_the_registry_has_the_last_word() {
    let parts = std::sync::Arc::new(Parts::large(1 << 20));
    let (own, layers) = (parts.clone(), parts.clone());
    let registry = Server::start(move |seen| own.answer(seen));
    let gone = "http://127.0.0.1:1".to_owned();
    let empty = Server::start(|_| response(404, V2, b""));
    let broken = Server::start(|_| response(503, V2, b""));
    // It has the manifest, but the layer only in part.
    let partial = Server::start(move |seen| match layers.is_layer(&seen.path) {
        true if seen.from() == 0 => cut(V2, layers.layer(), 300_000),
        true => response(404, V2, b""),
        false => layers.answer(seen),
    });
    for (mirrors, want) in [
        (vec![gone.clone()], format!("cannot reach {gone}; going on with {}", registry.address)),
        (vec![format!("http://{}", empty.address)], "check the name and the tag; going on with".to_owned()),
        (vec![format!("http://{}", broken.address)], "try again later; going on with".to_owned()),
        (
            vec![gone.clone(), format!("http://{}", partial.address)],
            format!("http://{} refuses (status 404); going on with {}", partial.address, registry.address),
        ),
    ] {
        let mut bench = Bench::new();
        mirrored(&mut bench, &registry.address, &mirrors);
        let notes = pull(&bench, &format!("{}/app:1", registry.address)).expect("pulls").join("\n");
        assert!(notes.contains(&want), "{want}: {notes}");
    }
    // What the partial one had was not fetched twice.
    let asked: Vec<usize> =
        registry.seen().iter().filter(|s| parts.is_layer(&s.path)).map(Seen::from).collect();
    assert_eq!(asked, [0, 0, 0, 300_000]);
    // With all of them gone it is the registry's error that counts.
    let mut bench = Bench::new();
    let nothing = Server::start(|_| response(404, V2, b""));
    mirrored(&mut bench, &nothing.address, &[gone, format!("http://{}", empty.address)]);
    let error = pull(&bench, &format!("{}/app:1", nothing.address)).expect_err("refused");
    assert!(matches!(error, OciError::NotFound { .. }), "{error}");
}

#[test]
fn a_mirror_that_lies_is_found_out_and_left_out() {
    let mut bench = Bench::new();
    let parts = std::sync::Arc::new(Parts::small());
    let (own, bent) = (parts.clone(), parts.clone());
    let registry = Server::start(move |seen| own.answer(seen));
    let liar = Server::start(move |seen| {
        let mut answer = bent.answer(seen);
        if bent.is_layer(&seen.path) {
            let last = answer.len() - 1;
            answer[last] ^= 1;
        }
        answer
    });
    mirrored(&mut bench, &registry.address, &[format!("http://{}", liar.address)]);
    let notes = pull(&bench, &format!("{}/app:1", registry.address)).expect("pulls").join("\n");
    assert!(
        notes.contains(&format!("the layer {} is damaged at a mirror", sha256(parts.layer()))),
        "{notes}"
    );
    // By digest a mirror cannot even give another manifest.
    let other = Parts::of(&[files(&[("b", b"b")])]);
    let swapped = Server::start(move |seen| other.answer(seen));
    let mut bench = Bench::new();
    mirrored(&mut bench, &registry.address, &[format!("http://{}", swapped.address)]);
    let reference = format!("{}/app@{}", registry.address, sha256(&parts.manifest));
    let notes = pull(&bench, &reference).expect("pulls").join("\n");
    assert!(notes.contains("is damaged") && notes.contains("going on with"), "{notes}");
}

#[test]
fn a_mirror_gets_its_own_credentials_and_never_the_registrys() {
    let parts = std::sync::Arc::new(Parts::small());
    let own = parts.clone();
    let demanding = move |seen: &Seen| match seen.authorization {
        None => response(401, "WWW-Authenticate: Basic realm=\"x\"\r\n", b""),
        Some(_) => own.answer(seen),
    };
    let (mirror, registry) = (Server::start(demanding.clone()), Server::start(demanding));
    let auth = |address: &str, user: &str| format!(r#""{address}":{{"username":"{user}","password":"p"}}"#);
    // printf mirror:p | base64; printf registry:p | base64
    let (mirrors, registrys) = ("Basic bWlycm9yOnA=", "Basic cmVnaXN0cnk6cA==");
    let both = [auth(&registry.address, "registry"), auth(&mirror.address, "mirror")].join(",");
    for (auths, at_mirror, at_registry) in
        [(both, vec![mirrors], vec![]), (auth(&registry.address, "registry"), vec![], vec![registrys])]
    {
        let mut bench = Bench::new();
        mirrored(&mut bench, &registry.address, &[format!("http://{}", mirror.address)]);
        let config = bench.write("config.json", format!(r#"{{"auths":{{{auths}}}}}"#).as_bytes());
        bench.settings.docker_config = Some(config);
        let before = (mirror.seen().len(), registry.seen().len());
        pull(&bench, &format!("{}/app:1", registry.address)).expect("pulls");
        let sent = |server: &Server, before: usize| {
            let mut sent: Vec<String> =
                server.seen().split_off(before).into_iter().filter_map(|s| s.authorization).collect();
            sent.dedup();
            sent
        };
        assert_eq!(sent(&mirror, before.0), at_mirror);
        assert_eq!(sent(&registry, before.1), at_registry);
    }
}

#[test]
fn an_insecure_registry_may_have_any_certificate_or_none() {
    // https, by an authority that nobody knows.
    let mut bench = Bench::new();
    let registry = Registry::private(&bench, "127.0.0.1");
    registry.fill(&bench);
    let reference = format!("{}/app:1", registry.address);
    let error = pull(&bench, &reference).expect_err("not trusted");
    assert!(matches!(error, OciError::Tls { .. }), "{error}");
    let insecure = Terms { mirrors: vec![], insecure: true };
    bench.settings.registries.add(&registry.address, insecure.clone()).expect("a registry");
    pull(&bench, &reference).expect("pulls");
    // Plain http, though https is asked for first.
    let mut bench = Bench::new();
    let parts = Parts::small();
    let server = Server::start(move |seen| parts.answer(seen));
    bench.settings.registries.add(&server.address, insecure).expect("a registry");
    pull(&bench, &format!("{}/app:1", server.address)).expect("pulls");
    assert_eq!(server.seen()[0].method, "TLS");
    // Being insecure is its own: where it redirects to has to prove who it is.
    let mut bench = Bench::new();
    let registry = Registry::private(&bench, "127.0.0.1");
    registry.fill(&bench);
    let elsewhere = registry.address.replace("127.0.0.1", "localhost");
    let server = Server::start(move |seen| {
        response(307, &format!("Location: https://{elsewhere}{}\r\n", seen.path), b"")
    });
    let insecure = Terms { mirrors: vec![], insecure: true };
    bench.settings.registries.add(&server.address, insecure).expect("a registry");
    let error = pull(&bench, &format!("{}/app:1", server.address)).expect_err("not trusted");
    assert!(matches!(error, OciError::Tls { .. }), "{error}");
    fs::remove_dir_all(bench.path("registry")).expect("removes");
}
