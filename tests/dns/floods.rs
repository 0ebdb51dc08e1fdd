//! Floods: what they may cost, and whom.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use crate::rig::{GUEST, OTHER, Rig, connection, dig, question, socket};
use crate::upstream::{Server, good};

/// Bytes of memory that this process has.
fn resident() -> usize {
    let status = std::fs::read_to_string("/proc/self/status").expect("reads");
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("a line");
    line.trim().trim_end_matches(" kB").parse::<usize>().expect("a number") << 10
}

fn descriptors() -> usize {
    std::fs::read_dir("/proc/self/fd").expect("lists").count()
}

#[test]
fn a_guest_that_floods_takes_its_share_and_no_more() {
    let silent = Server::new(|_| vec![]);
    let rig = Rig::asking(&[silent.address]);
    let flooder = socket(GUEST, rig.guests.address());
    let (memory, open) = (resident(), descriptors());
    let began = Instant::now();
    for n in 0..20_000u16 {
        flooder.send(&question(n, "flood.example")).expect("sends");
    }
    assert!(descriptors() < open + 150, "{} descriptors were opened", descriptors() - open);
    assert!(resident() < memory + (64 << 20), "{} bytes", resident() - memory);
    assert!(began.elapsed() < Duration::from_secs(8), "{:?}", began.elapsed());
    // Nobody else notices: neither the host, nor another guest, whose question for others finds a place.
    let asked = Instant::now();
    assert_eq!(rig.host_digs("dev.vm").answer, ["A 172.16.0.2"]);
    assert_eq!(dig(rig.guests.address(), OTHER, "dev.vm").answer, ["A 172.16.0.2"]);
    assert!(asked.elapsed() < Duration::from_secs(2), "{:?}", asked.elapsed());
    let before = silent.asked();
    socket(OTHER, rig.guests.address()).send(&question(1, "other.example")).expect("sends");
    crate::rig::until("the other guest's question is passed on", || {
        let heard = silent.heard.lock().expect("not poisoned");
        heard[before.min(heard.len())..].iter().any(|(q, _)| q.windows(5).any(|w| w == b"other"))
    });
    assert!(silent.asked() < 2000, "{}", silent.asked());
}

#[test]
fn a_flood_of_garbage_is_answered_or_dropped_and_nothing_breaks() {
    let fine = Server::new(|q| vec![good(q)]);
    let rig = Rig::asking(&[fine.address]);
    let flooder = socket(GUEST, rig.guests.address());
    flooder.set_nonblocking(true).expect("does not block");
    let mut state = 88172645463325252u64;
    let mut random = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state
    };
    for _ in 0..20_000 {
        let mut message = question(random() as u16, "dev.vm");
        for _ in 0..random() % 6 {
            let at = random() as usize % message.len();
            message[at] = random() as u8;
        }
        message.truncate((random() as usize % message.len()).max(message.len() / 2));
        // The kernel may have no room for it.
        flooder.send(&message).unwrap_or_default();
        while flooder.recv(&mut [0; 2048]).is_ok() {}
    }
    assert_eq!(rig.guest_digs("dev.vm").answer, ["A 172.16.0.2"]);
    assert_eq!(rig.guest_digs("example.org").answer, ["A 192.0.2.1"]);
}

#[test]
fn connections_are_few_and_idle_ones_end() {
    let rig = Rig::asking(&[]);
    let address = rig.host.address();
    let idle: Vec<TcpStream> = (0..16).map(|_| connection(address)).collect();
    // One more is closed at once.
    let mut more = connection(address);
    assert!(matches!(more.read(&mut [0; 1]), Ok(0) | Err(_)));
    // UDP goes on in the meantime.
    assert_eq!(rig.host_digs("+notcp dev.vm").answer, ["A 172.16.0.2"]);
    let began = Instant::now();
    let mut slow = &idle[0];
    slow.write_all(&[0]).expect("half of a length");
    for mut stream in &idle {
        assert!(matches!(stream.read(&mut [0; 1]), Ok(0) | Err(_)));
    }
    assert!(began.elapsed() < Duration::from_secs(13), "{:?}", began.elapsed());
    assert_eq!(rig.host_digs("+tcp dev.vm").answer, ["A 172.16.0.2"]);
}

#[test]
fn what_is_too_long_or_no_question_ends_its_connection() {
    let rig = Rig::asking(&[]);
    for bytes in
        [&[0xff, 0xff][..], &[0, 0], &[0, 3, 1, 2, 3], &[0, 12, 0, 0, 0x80, 0, 0, 0, 0, 0, 0, 0, 0, 0]]
    {
        let mut stream = connection(rig.host.address());
        stream.write_all(bytes).expect("writes");
        let began = Instant::now();
        assert!(matches!(stream.read(&mut [0; 1]), Ok(0) | Err(_)), "{bytes:?}");
        assert!(began.elapsed() < Duration::from_secs(5), "{bytes:?}");
    }
}

#[test]
fn it_ends_in_the_middle_of_a_flood() {
    let rig = Rig::asking(&[]);
    let address = rig.host.address();
    let end = Arc::new(AtomicBool::new(false));
    let flood = {
        let end = Arc::clone(&end);
        std::thread::spawn(move || {
            let socket = socket(std::net::Ipv4Addr::LOCALHOST, address);
            while !end.load(Ordering::Relaxed) {
                // Once nobody listens any more, the kernel says so.
                socket.send(&question(1, "dev.vm")).unwrap_or_default();
            }
        })
    };
    std::thread::sleep(Duration::from_millis(200));
    let began = Instant::now();
    drop(rig);
    assert!(began.elapsed() < Duration::from_secs(3), "{:?}", began.elapsed());
    end.store(true, Ordering::Relaxed);
    flood.join().expect("ends");
}
