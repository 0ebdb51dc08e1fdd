//! Proxies (F6): a small one on loopback, for hosts that are nowhere else.

use std::io::{BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};

use banger::host::environment::Environment;
use banger::oci::OciError;
use banger::oci::registries::Terms;

use crate::support::*;

/// A proxy for which every host is at `backend`. It keeps the first line of each request, and the password that came with it.
struct Proxy {
    address: String,
    seen: Arc<Log>,
}

type Log = Mutex<Vec<(String, Option<String>)>>;

impl Proxy {
    fn start(backend: &str) -> Self {
        Self::listen(backend, |client, backend, seen| {
            let mut reader = BufReader::new(client.try_clone().expect("clones"));
            let Some((line, headers)) = head(&mut reader) else { return };
            let get = |name: &str| headers.iter().find(|(n, _)| n == name).map(|(_, v)| v.clone());
            seen.lock().expect("not poisoned").push((line.clone(), get("proxy-authorization")));
            if line.starts_with("CONNECT ") {
                (&client).write_all(b"HTTP/1.1 200 OK\r\n\r\n").expect("answers");
                return splice(client, backend);
            }
            // As every proxy: what the host needs is what follows the host in the URL.
            let url = line.split(' ').nth(1).and_then(|u| u.strip_prefix("http://")).expect("a whole URL");
            let (_, path) = url.split_once('/').expect("a path");
            let mut request = format!("{} /{path} HTTP/1.1\r\n", line.split(' ').next().unwrap_or_default());
            for (name, value) in headers.iter().filter(|(n, _)| !n.starts_with("proxy-") && n != "connection")
            {
                request += &format!("{name}: {value}\r\n");
            }
            request += "connection: close\r\n\r\n";
            (&backend).write_all(request.as_bytes()).expect("asks");
            splice(client, backend);
        })
    }

    /// One that speaks SOCKS5 (RFC 1928), as far as a client without a password goes.
    fn socks(backend: &str) -> Self {
        Self::listen(backend, |mut client, backend, seen| {
            let mut take = |n: usize| {
                let mut bytes = vec![0; n];
                client.read_exact(&mut bytes).expect("reads");
                bytes
            };
            let methods = take(2)[1];
            take(methods.into());
            (&client).write_all(&[5, 0]).expect("answers");
            let mut take = |n: usize| {
                let mut bytes = vec![0; n];
                client.read_exact(&mut bytes).expect("reads");
                bytes
            };
            let request = take(5);
            assert_eq!(&request[..4], [5, 1, 0, 3], "to connect to a name");
            let name = String::from_utf8(take(request[4].into())).expect("UTF-8");
            let port = take(2);
            seen.lock()
                .expect("not poisoned")
                .push((format!("SOCKS {name}:{}", u16::from_be_bytes([port[0], port[1]])), None));
            (&client).write_all(&[5, 0, 0, 1, 0, 0, 0, 0, 0, 0]).expect("answers");
            splice(client, backend);
        })
    }

    fn listen(backend: &str, serve: impl Fn(TcpStream, TcpStream, &Log) + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("binds");
        let address = listener.local_addr().expect("bound").to_string();
        let seen = Arc::new(Mutex::new(vec![]));
        let (log, backend, serve) = (Arc::clone(&seen), backend.to_owned(), Arc::new(serve));
        std::thread::spawn(move || {
            for client in listener.incoming() {
                let (log, serve) = (Arc::clone(&log), Arc::clone(&serve));
                let backend = TcpStream::connect(&backend).expect("connects");
                std::thread::spawn(move || serve(client.expect("accepts"), backend, &log));
            }
        });
        Self { address, seen }
    }

    fn lines(&self) -> Vec<String> {
        self.seen.lock().expect("not poisoned").iter().map(|(line, _)| line.clone()).collect()
    }

    fn passwords(&self) -> Vec<Option<String>> {
        self.seen.lock().expect("not poisoned").iter().map(|(_, password)| password.clone()).collect()
    }
}

/// Carries bytes both ways until both sides have ended.
fn splice(a: TcpStream, b: TcpStream) {
    let copy = |mut from: TcpStream, mut to: TcpStream| {
        move || {
            // Either side may be gone.
            drop(std::io::copy(&mut from, &mut to));
            drop(to.shutdown(std::net::Shutdown::Write));
        }
    };
    let there = std::thread::spawn(copy(a.try_clone().expect("clones"), b.try_clone().expect("clones")));
    copy(b, a)();
    there.join().expect("no panic");
}

/// A registry that calls itself registry.test, the environment to reach it by, and a proxy to it.
fn secure(bench: &Bench, proxy: impl Fn(&str) -> Proxy) -> (Registry, Proxy, String) {
    let registry = Registry::private(bench, "registry.test");
    registry.fill(bench);
    let proxy = proxy(&registry.address);
    (registry, proxy, text(&bench.path("registry.test.ca.crt")).to_owned())
}

#[test]
fn https_goes_through_a_tunnel() {
    let mut bench = Bench::new();
    let (_registry, proxy, ca) = secure(&bench, Proxy::start);
    let url = format!("http://user:pa%3Ass@{}", proxy.address);
    bench.settings.environment = Environment::from([("https_proxy", url.as_str()), ("SSL_CERT_FILE", &ca)]);
    bench.pull("registry.test:5443/app:1").unwrap_or_else(|e| panic!("{}", chain(&e)));
    let lines = proxy.lines();
    assert!(
        !lines.is_empty() && lines.iter().all(|l| l == "CONNECT registry.test:5443 HTTP/1.1"),
        "{lines:?}"
    );
    // printf user:pa:ss | base64
    assert!(proxy.passwords().iter().all(|p| p.as_deref() == Some("Basic dXNlcjpwYTpzcw==")));
}

#[test]
fn https_goes_through_socks_where_all_proxy_says_so() {
    let mut bench = Bench::new();
    let (_registry, proxy, ca) = secure(&bench, Proxy::socks);
    let url = format!("socks5h://{}", proxy.address);
    bench.settings.environment = Environment::from([("ALL_PROXY", url.as_str()), ("SSL_CERT_FILE", &ca)]);
    bench.pull("registry.test:5443/app:1").unwrap_or_else(|e| panic!("{}", chain(&e)));
    let lines = proxy.lines();
    assert!(!lines.is_empty() && lines.iter().all(|l| l == "SOCKS registry.test:5443"), "{lines:?}");
}

#[test]
fn plain_http_is_asked_of_the_proxy_by_its_whole_url() {
    let mut bench = Bench::new();
    let registry = Registry::start(&bench);
    registry.fill(&bench);
    let proxy = Proxy::start(&registry.address);
    let url = format!("http://user:secret@{}", proxy.address);
    bench.settings.environment =
        Environment::from([("HTTP_PROXY", url.as_str()), ("HTTPS_PROXY", url.as_str())]);
    let insecure = Terms { mirrors: vec![], insecure: true };
    bench.settings.registries.add("plain.test:5000", insecure).expect("a registry");
    bench.pull("plain.test:5000/app:1").unwrap_or_else(|e| panic!("{}", chain(&e)));
    let lines = proxy.lines();
    // It is asked for https first, and has none.
    assert_eq!(lines[0], "CONNECT plain.test:5000 HTTP/1.1");
    let (manifests, blobs) =
        ("GET http://plain.test:5000/v2/app/manifests/1 ", "GET http://plain.test:5000/v2/app/blobs/");
    assert!(lines[1].starts_with(manifests), "{lines:?}");
    assert_eq!(lines.iter().filter(|l| l.starts_with(blobs)).count(), 2, "{lines:?}");
    // printf user:secret | base64
    assert!(proxy.passwords().iter().all(|p| p.as_deref() == Some("Basic dXNlcjpzZWNyZXQ=")));
}

#[test]
fn this_machine_and_what_is_exempt_are_reached_directly() {
    let mut bench = Bench::new();
    let parts = Parts::small();
    let server = Server::start(move |seen| parts.answer(seen));
    let nobody = "http://127.0.0.1:1";
    bench.settings.environment =
        Environment::from([("HTTP_PROXY", nobody), ("HTTPS_PROXY", nobody), ("ALL_PROXY", nobody)]);
    bench.pull(&format!("{}/app:1", server.address)).expect("pulls");
    // Through the proxy that is not there, by name; and not through it, where the name is exempt and nobody has it.
    let error = |no_proxy| {
        let mut bench = Bench::new();
        bench.settings.environment = Environment::from([("HTTPS_PROXY", nobody), ("NO_PROXY", no_proxy)]);
        chain(&bench.resolve("registry.localhost.test/app:1").expect_err("nothing is there"))
    };
    assert!(error("other.test").contains("Connection refused"), "{}", error("other.test"));
    let mut bench = Bench::new();
    bench.settings.environment = Environment::from([("HTTPS_PROXY", "nonsense://x")]);
    let error = bench.resolve("registry.test/app:1").expect_err("refused");
    assert!(matches!(error, OciError::Unreachable { .. }), "{error}");
    assert!(chain(&error).contains("the variable HTTPS_PROXY is no proxy's address"), "{}", chain(&error));
}

#[test]
fn where_a_registry_on_this_machine_redirects_to_goes_through_the_proxy() {
    let mut bench = Bench::new();
    let parts = Arc::new(Parts::small());
    let own = Arc::clone(&parts);
    let cdn = Server::start(move |seen| own.answer(seen));
    let proxy = Proxy::start(&cdn.address);
    let registry = Server::start(move |seen| match parts.is_layer(&seen.path) {
        true => response(307, &format!("Location: http://cdn.test{}\r\n", seen.path), b""),
        false => parts.answer(seen),
    });
    let url = format!("http://{}", proxy.address);
    bench.settings.environment = Environment::from([("http_proxy", url.as_str())]);
    bench.pull(&format!("{}/app:1", registry.address)).expect("pulls");
    let lines = proxy.lines();
    assert!(lines.len() == 1 && lines[0].starts_with("GET http://cdn.test/v2/app/blobs/"), "{lines:?}");
}
