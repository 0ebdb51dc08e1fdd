//! An upstream server that a test plays.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, UdpSocket};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::Duration;

/// What it was asked, and by which port.
pub type Heard = Arc<Mutex<Vec<(Vec<u8>, u16)>>>;

/// It answers each question with the messages that `say` makes of it, over UDP, and over TCP with those of `say_tcp`.
pub struct Server {
    pub address: SocketAddr,
    pub heard: Heard,
    pub tcp: Arc<AtomicUsize>,
    end: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
}

pub type Say = fn(&[u8]) -> Vec<Vec<u8>>;

impl Server {
    pub fn new(say: Say) -> Self {
        Self::both(say, say)
    }

    pub fn both(say: Say, say_tcp: Say) -> Self {
        let (udp, listener) = sockets();
        let address = udp.local_addr().expect("an address");
        let (heard, tcp, end) =
            (Heard::default(), Arc::<AtomicUsize>::default(), Arc::<AtomicBool>::default());
        udp.set_read_timeout(Some(Duration::from_millis(50))).expect("a timeout");
        listener.set_nonblocking(true).expect("does not block");
        let over_udp = {
            let (heard, end) = (Arc::clone(&heard), Arc::clone(&end));
            move || {
                let mut message = [0; 4096];
                while !end.load(Ordering::Relaxed) {
                    let Ok((length, from)) = udp.recv_from(&mut message) else { continue };
                    heard.lock().expect("not poisoned").push((message[..length].to_vec(), from.port()));
                    for reply in say(&message[..length]) {
                        udp.send_to(&reply, from).expect("sends");
                    }
                }
            }
        };
        let over_tcp = {
            let (tcp, end) = (Arc::clone(&tcp), Arc::clone(&end));
            move || {
                while !end.load(Ordering::Relaxed) {
                    let Ok((mut stream, _)) = listener.accept() else {
                        thread::sleep(Duration::from_millis(10));
                        continue;
                    };
                    tcp.fetch_add(1, Ordering::Relaxed);
                    stream.set_nonblocking(false).expect("blocks");
                    let mut length = [0; 2];
                    stream.read_exact(&mut length).expect("a length");
                    let mut message = vec![0; usize::from(u16::from_be_bytes(length))];
                    stream.read_exact(&mut message).expect("a question");
                    for reply in say_tcp(&message) {
                        let framed = [&(reply.len() as u16).to_be_bytes()[..], &reply].concat();
                        // Whoever asked may have heard enough.
                        if stream.write_all(&framed).is_err() {
                            break;
                        }
                    }
                }
            }
        };
        let threads = vec![thread::spawn(over_udp), thread::spawn(over_tcp)];
        Self { address, heard, tcp, end, threads }
    }

    pub fn asked(&self) -> usize {
        self.heard.lock().expect("not poisoned").len()
    }
}

/// On one port; the kernel's choice for UDP may be taken for TCP.
fn sockets() -> (UdpSocket, TcpListener) {
    for _ in 0..100 {
        let udp = UdpSocket::bind("127.0.0.1:0").expect("binds");
        if let Ok(tcp) = TcpListener::bind(udp.local_addr().expect("an address")) {
            return (udp, tcp);
        }
    }
    panic!("no port is free for both");
}

impl Drop for Server {
    fn drop(&mut self) {
        self.end.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            if thread.join().is_err() && !thread::panicking() {
                panic!("the upstream server of a test failed");
            }
        }
    }
}

/// Where the question in `message` ends.
fn end_of_question(message: &[u8]) -> usize {
    let mut at = 12;
    while message[at] != 0 {
        at += 1 + usize::from(message[at]);
    }
    at + 5
}

/// The answer to `question` with these records of type and body, without EDNS.
pub fn answer(question: &[u8], records: &[(u16, &[u8])]) -> Vec<u8> {
    let mut message = question[..end_of_question(question)].to_vec();
    message[2] |= 0x80;
    message[3] = 0x80;
    message[6..12].fill(0);
    message[6..8].copy_from_slice(&(records.len() as u16).to_be_bytes());
    for (kind, body) in records {
        message.extend([0xc0, 0x0c]);
        message.extend(kind.to_be_bytes());
        message.extend([0, 1, 0, 0, 0, 60]);
        message.extend((body.len() as u16).to_be_bytes());
        message.extend(*body);
    }
    message
}

/// As [`answer`], with 192.0.2.1.
pub fn good(question: &[u8]) -> Vec<u8> {
    answer(question, &[(1, &[192, 0, 2, 1])])
}

/// As [`answer`], with a code and no record.
pub fn coded(question: &[u8], code: u8) -> Vec<u8> {
    let mut message = answer(question, &[]);
    message[3] |= code;
    message
}
