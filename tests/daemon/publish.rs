//! Published ports, before guests that answer as they should, not at all, or as no guest does.

use std::io::{ErrorKind, Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::sync::Arc;
use std::time::Duration;

use banger::proto::agent::{Answer, Code as GuestCode, MAX_PORTS, Port, Refusal, Request};
use banger::proto::api::{Code, Event, Published, Reply, VmCreate, VmPorts, VmSet, VmStart, VmStop, VmView};
use banger::proto::frame::{Frame, Kind};
use banger::vm::change::Change;
use banger::vm::publish::{Protocol, Publish};

use crate::guests::{Manner, answer, attend, good, up};
use crate::rig::{Rig, wanted};

fn ports(texts: &[&str]) -> Vec<Publish> {
    texts.iter().map(|text| text.parse().expect("a port")).collect()
}

fn create(rig: &Rig, name: &str, texts: &[&str], manner: Manner) -> VmView {
    let wish = VmCreate { publish: ports(texts), ..wanted(name) };
    let vm = rig.call(wish).expect("creates");
    attend(rig.dirs().vm_sockets(vm.record.id), up(), manner);
    vm
}

fn start(rig: &Rig, name: &str) -> Vec<SocketAddr> {
    rig.call(VmStart { vm: name.to_owned() }).expect("starts");
    places(rig, name)
}

/// Where the ports of the VM are.
fn places(rig: &Rig, name: &str) -> Vec<SocketAddr> {
    let at = |p: &Published| SocketAddr::new(p.publish.address, p.publish.host);
    rig.show(name).published.iter().map(at).collect()
}

/// A port that nobody has just now.
fn free_port() -> u16 {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("binds");
    listener.local_addr().expect("has an address").port()
}

fn connect(at: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect(at).expect("connects");
    stream.set_read_timeout(Some(Duration::from_secs(60))).expect("sets a timeout");
    stream
}

fn echoes(at: SocketAddr) -> bool {
    let mut stream = connect(at);
    let said = stream.write_all(b"hello").and_then(|()| stream.shutdown(Shutdown::Write));
    let mut back = String::new();
    said.and_then(|()| stream.read_to_string(&mut back)).is_ok() && back == "hello"
}

#[test]
fn a_port_leads_to_the_guest_while_it_runs() {
    let rig = Rig::started();
    create(&rig, "dev", &["0:80", "0:53/udp"], good());
    assert_eq!(places(&rig, "dev"), [], "it does not run");
    let at = start(&rig, "dev");
    assert!(echoes(at[0]));
    let client = UdpSocket::bind("127.0.0.1:0").expect("binds");
    client.set_read_timeout(Some(Duration::from_secs(60))).expect("sets a timeout");
    for datagram in [&b"one"[..], b"", &[7; 60_000]] {
        client.send_to(datagram, at[1]).expect("sends");
        let mut buffer = vec![0; 65_535];
        let (length, from) = client.recv_from(&mut buffer).expect("is answered");
        assert_eq!((&buffer[..length], from), (datagram, at[1]));
    }
    let mut open = connect(at[0]);
    rig.call(VmStop { vm: "dev".to_owned(), force: true }).expect("stops");
    assert_eq!(open.read(&mut [0]).expect_err("is reset").kind(), ErrorKind::ConnectionReset);
    assert_eq!(TcpStream::connect(at[0]).expect_err("is closed").kind(), ErrorKind::ConnectionRefused);
}

#[test]
fn two_vms_do_not_have_one_port() {
    let rig = Rig::started();
    let port = free_port();
    let text = format!("{port}:80");
    create(&rig, "one", &[&text], good());
    create(&rig, "two", &[&format!("0.0.0.0:{text}")], good());
    start(&rig, "one");
    let failure = rig.call(VmStart { vm: "two".to_owned() }).expect_err("it is taken");
    assert_eq!(failure.code, Code::Conflict);
    assert_eq!(
        failure.message,
        format!(
            "cannot start vm two: port 0.0.0.0:{port} is published by vm one; publish another one, or take it away there with \
             `banger vm set one --unpublish {port}`"
        )
    );
    assert_eq!(rig.label("two"), "stopped");
    let soon = VmCreate { publish: ports(&[&text]), soon: true, ..wanted("three") };
    let failure = rig.call(soon).expect_err("it is taken");
    assert!(failure.message.starts_with("cannot start vm three: port 127.0.0.1:"), "{failure:?}");
    let change = Change { unpublish: vec![port.to_string().parse().expect("a port")], ..Change::default() };
    rig.call(VmSet { vm: "one".to_owned(), change }).expect("changes");
    start(&rig, "two");
    assert!(echoes(SocketAddr::new(Ipv4Addr::LOCALHOST.into(), port)));
}

#[test]
fn a_port_that_is_lost_while_bangerd_is_away_is_taken_again_when_it_is_free() {
    let mut rig = Rig::started();
    create(&rig, "dev", &["0:80", "0:81"], good());
    let at = start(&rig, "dev");
    let mut open = connect(at[0]);
    open.write_all(b"x").expect("sends");
    open.read_exact(&mut [0]).expect("receives");
    rig.kill();
    assert_eq!(open.read(&mut [0]).expect_err("is reset").kind(), ErrorKind::ConnectionReset);
    let thief = TcpListener::bind(at[1]).expect("takes it");
    rig.start();
    assert!(echoes(at[0]), "the other is there at once");
    rig.until("the loss is known", |rig| rig.show("dev").published[1].problem.is_some());
    let view = rig.show("dev");
    let problem = view.published[1].problem.as_deref().expect("a problem");
    assert!(problem.contains("is taken by another program"), "{problem}");
    assert_eq!(places(&rig, "dev"), at, "the one that it waits for");
    assert_eq!(rig.label("dev"), "running");
    assert!(rig.log().contains("it is tried again"));
    drop(thief);
    rig.until("it is back", |rig| rig.show("dev").published[1].problem.is_none());
    assert_eq!(places(&rig, "dev"), at, "at the port that clients know");
    assert!(echoes(at[1]));
}

#[test]
fn a_change_that_cannot_be_made_changes_nothing() {
    let rig = Rig::started();
    create(&rig, "dev", &["0:80"], good());
    let at = start(&rig, "dev");
    let other = TcpListener::bind("127.0.0.1:0").expect("binds");
    let taken = other.local_addr().expect("has an address").port();
    let change = Change {
        publish: ports(&[&format!("{taken}:81")]),
        unpublish: vec![format!("{}:80", at[0].port()).parse().expect("a port")],
        ..Change::default()
    };
    let failure = rig.call(VmSet { vm: "dev".to_owned(), change }).expect_err("it is taken");
    let want = format!("cannot change vm dev: port 127.0.0.1:{taken} is taken by another program");
    assert!(failure.message.starts_with(&want), "{failure:?}");
    rig.until("all is as it was", |rig| places(rig, "dev") == at && echoes(at[0]));
    assert_eq!(rig.show("dev").record.publish, ports(&["0:80"]));
}

#[test]
fn what_a_guest_refuses_or_does_not_understand_resets_the_client() {
    let rig = Rig::started();
    let refused = Answer::Refused(Refusal { code: GuestCode::NotFound, message: "\u{1b}[2Jno".to_owned() });
    let frame = |kind, payload: &[u8]| [answer(&Answer::Done), Frame::new(kind, payload).bytes()].concat();
    let table = [
        answer(&refused),
        answer(&Answer::Started { pid: 1 }),
        b"HTTP/1.1 200 OK\r\n\r\n".to_vec(),
        frame(Kind::Failed, b"no"),
        frame(Kind::Exit, &[0]),
        [frame(Kind::Data, b""), vec![7, 255, 255, 255, 255]].concat(),
    ];
    for (n, bytes) in table.into_iter().enumerate() {
        let name = format!("v{n}");
        let manner: Manner = Arc::new(move |r| matches!(r, Request::Connect(_)).then(|| bytes.clone()));
        create(&rig, &name, &["0:80"], manner);
        let at = start(&rig, &name);
        let end = connect(at[0]).read(&mut [0]).expect_err("is reset");
        assert_eq!(end.kind(), ErrorKind::ConnectionReset, "{name}");
        assert_eq!(rig.label(&name), "running");
    }
    assert!(!rig.log().contains('\u{1b}'), "what a guest says is harmless in the log");
}

#[test]
fn a_guest_that_does_not_answer_holds_up_neither_bangerd_nor_other_vms() {
    let rig = Rig::started();
    let silent: Manner = Arc::new(|request| {
        if matches!(request, Request::Connect(_)) {
            std::thread::sleep(Duration::from_secs(3600));
        }
        None
    });
    create(&rig, "mute", &["0:80"], silent);
    create(&rig, "dev", &["0:80"], good());
    let (mute, at) = (start(&rig, "mute"), start(&rig, "dev"));
    // More than are served at once: the others wait in the kernel's queue.
    let waiting: Vec<_> = (0..700).map(|_| connect(mute[0])).collect();
    assert!(echoes(at[0]));
    assert_eq!(rig.label("dev"), "running");
    let descriptors = std::fs::read_dir(format!("/proc/{}/fd", rig.daemon_pid())).expect("lists").count();
    assert!(descriptors < 2 * 512 + 100, "{descriptors} descriptors");
    drop(waiting);
    assert!(echoes(at[0]));
}

#[test]
fn what_a_guest_says_of_its_ports_is_cut_short_and_harmless() {
    let rig = Rig::started();
    let port = |port: u16| Port {
        protocol: Protocol::Tcp,
        address: Ipv4Addr::UNSPECIFIED.into(),
        port,
        pid: Some(1),
        program: Some("\u{1b}[2Jx".to_owned()),
    };
    let lies = answer(&Answer::Ports { ports: (1..=400).map(port).collect() });
    let manner: Manner = Arc::new(move |r| matches!(r, Request::Ports).then(|| lies.clone()));
    create(&rig, "dev", &[], manner);
    start(&rig, "dev");
    let ports = rig.call(VmPorts { vm: "dev".to_owned(), probe: false }).expect("answers");
    assert_eq!(ports.len(), MAX_PORTS);
    assert!(ports.iter().all(|p| p.program.as_deref() == Some("\\u{1b}[2Jx")), "{:?}", ports[0]);
    create(&rig, "odd", &[], good());
    start(&rig, "odd");
    let failure =
        rig.call(VmPorts { vm: "odd".to_owned(), probe: false }).expect_err("answers something else");
    assert!(failure.message.contains("does not speak banger's protocol"), "{failure:?}");
}

#[test]
fn a_plain_user_is_told_which_ports_are_roots() {
    let rig = Rig::of_a_plain_user();
    let floor = std::fs::read_to_string("/proc/sys/net/ipv4/ip_unprivileged_port_start").expect("reads");
    let floor: u16 = floor.trim().parse().expect("a number");
    assert!(floor > 1, "on this machine all ports are everybody's, and nothing can be refused");
    let port = floor - 1;
    let create = |soon| VmCreate { publish: ports(&[&format!("{port}:80")]), soon, ..wanted("dev") };
    let failure = rig.call(create(true)).expect_err("is root's");
    let want = format!("port 127.0.0.1:{port} is root's; publish one from {floor} on");
    assert!(failure.code == Code::BadRequest && failure.message.contains(&want), "{failure:?}");
    rig.call(create(false)).expect("creates");
    let failure = rig.call(VmStart { vm: "dev".to_owned() }).expect_err("is root's");
    assert!(failure.message.contains(&want), "{failure:?}");
}

#[test]
fn a_plain_user_is_told_once_what_the_root_helper_would_add() {
    let mut rig = Rig::of_a_plain_user();
    let notes = |rig: &Rig, name: &str, advise: bool| {
        let mut client = rig.connect();
        client.ask(VmCreate { advise, ..wanted(name) });
        let mut notes = vec![];
        loop {
            match client.line().expect("an answer") {
                Reply::Event(Event::Note { text }) => notes.push(text),
                Reply::Event(_) => {}
                Reply::Done(_) => return notes,
                Reply::Error(failure) => panic!("{failure:?}"),
            }
        }
    };
    assert!(notes(&rig, "quiet", false).is_empty(), "nobody would see it");
    let said = notes(&rig, "one", true);
    assert!(said.len() == 1 && said[0].contains("bangerd-root") && said[0].lines().count() == 1, "{said:?}");
    assert!(notes(&rig, "two", true).is_empty());
    rig.kill();
    rig.start();
    assert!(notes(&rig, "three", true).is_empty(), "it is remembered");
}
