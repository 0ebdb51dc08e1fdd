//! `banger doctor --probe`: a small VM from its beginning to its end, since what looks well may not work (FAULTS F12).
//!
//! ```text
//!  create -> start -> command -> address -> name -> delete
//! ```
//!
//! It is made for as long as this process lives, so that it is deleted however this process ends. While it runs everything else is
//! looked at, since names and the network can be judged only then.

use std::io;
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::net::{RecvFlags, recv};
use rustix::rand::{GetRandomFlags, getrandom};

use crate::cli::client::{Attention, Client, ClientError};
use crate::cli::error::Error;
use crate::cli::render::{self, Progress};
use crate::cli::signals::Signals;
use crate::cli::vm::asked;
use crate::host::environment::Environment;
use crate::host::resolver::Resolver;
use crate::proto::api::{
    Call, DaemonStatus, ImageList, ImageView, VmCreate, VmDelete, VmExec, VmStart, VmView,
};
use crate::proto::finding::{Finding, Verdict};
use crate::proto::frame::{Frame, HEADER, Header, Kind};
use crate::vm::name::VmName;
use crate::vm::size::Mib;
use crate::vm::spec::Wish;

const SUBJECT: &str = "probe";
/// What every distribution's kernel boots in.
const MEMORY: Mib = Mib(256);
/// How long a command may take that does nothing, and how long a guest may take to refuse a connection.
const PATIENCE: Duration = Duration::from_secs(30);
/// How long the host's resolver may take.
const NAME_PATIENCE: Duration = Duration::from_secs(5);
/// Said by the guest's agent, which is this program, of itself: a program that every image has.
const COMMAND: [&str; 2] = ["/proc/self/exe", "--version"];
const ANSWER: &str = "banger v";

/// How it ended before its end.
#[derive(Debug)]
enum End {
    Broken(Broken),
    /// A signal that asks to end.
    Interrupted(i32),
}

/// What went wrong where.
#[derive(Debug, PartialEq, Eq)]
struct Broken {
    stage: &'static str,
    why: String,
    /// Lines that help, such as the last ones of the guest's console.
    details: Vec<String>,
}

/// How long each thing took, when all went well.
#[derive(Debug, Default, PartialEq, Eq)]
struct Times {
    started: Duration,
    command: Duration,
    /// None: it has no address that this host could reach.
    address: Option<Duration>,
    /// None: this host asks nobody for names of VMs.
    name: Option<Duration>,
    deleted: Duration,
}

/// Probes, looks at everything with `look` while the VM runs, and returns what was found, with a row for the probe.
///
/// # Errors
/// A signal that asks to end; the VM is gone by then.
pub fn run(client: &Client, quiet: bool, look: impl Fn() -> Vec<Finding>) -> Result<Vec<Finding>, Error> {
    let signals =
        Signals::catch().map_err(|source| Error::Host { what: "catch signals".to_owned(), source })?;
    let mut at = At { client, progress: Progress::new(quiet), signals };
    let mut seen = None;
    let outcome = at.probe(&mut || seen.insert(look()).clone());
    at.progress.clear();
    let outcome = match outcome {
        Ok(times) => Ok(times),
        Err(End::Broken(broken)) => Err(broken),
        Err(End::Interrupted(signal)) => return Err(ClientError::Interrupted(signal).into()),
    };
    // It broke before there was anything more to see.
    let mut findings = seen.unwrap_or_else(look);
    findings.push(row(&outcome));
    Ok(findings)
}

struct At<'a> {
    client: &'a Client,
    progress: Progress,
    signals: Signals,
}

impl At<'_> {
    fn probe(&mut self, look: &mut dyn FnMut() -> Vec<Finding>) -> Result<Times, End> {
        let images = self.ask("create", ImageList {})?;
        let wish = asked::hardware(Wish { vcpu: Some(1), memory: Some(MEMORY), ..Wish::default() });
        let vm = self.ask(
            "create",
            VmCreate {
                name: Some(name().map_err(|e| broken("create", &e))?),
                image: smallest(&images),
                kernel: None,
                wish: wish.map_err(|e| broken("create", &e))?,
                start: false,
                soon: true,
                ephemeral: true,
                publish: vec![],
                ttl_s: None,
                advise: false,
                environment: Environment::of_process().to_bring(),
            },
        )?;
        let outcome = self.go_through(&vm, look);
        self.progress.clear();
        let begun = Instant::now();
        // Not to be interrupted: an interrupted probe waits for this alone.
        let deleted = self.client.ask(VmDelete { vm: vm.record.id.to_string(), only_if_ended: false });
        let times = outcome?;
        deleted.map_err(|e| end("delete", e))?;
        Ok(Times { deleted: begun.elapsed(), ..times })
    }

    fn go_through(&mut self, vm: &VmView, look: &mut dyn FnMut() -> Vec<Finding>) -> Result<Times, End> {
        let id = vm.record.id.to_string();
        let begun = Instant::now();
        let vm = self.ask("start", VmStart { vm: id.clone() })?;
        let mut times = Times { started: begun.elapsed(), ..Times::default() };

        let begun = Instant::now();
        let said = self.command(id)?;
        if !said.starts_with(ANSWER) {
            let why = format!("the command was to say {ANSWER}..., and said {said:?}");
            return Err(End::Broken(Broken { stage: "command", why, details: vec![] }));
        }
        times.command = begun.elapsed();

        let daemon = self.ask("address", DaemonStatus {})?;
        let findings = look();
        // Where no names are answered VMs have a network of their VMM's own, in which nobody reaches them.
        let address =
            vm.address.as_deref().and_then(|text| text.parse().ok()).filter(|_| !daemon.dns.is_empty());
        let Some(address) = address else { return Ok(times) };
        let begun = Instant::now();
        reach(address).map_err(|e| {
            broken("address", &io::Error::other(format!("{address} does not answer on the bridge: {e}")))
        })?;
        times.address = Some(begun.elapsed());

        let routed = findings.iter().any(|row| row.subject == "resolver" && row.verdict == Verdict::Pass);
        if routed {
            let begun = Instant::now();
            resolve(&format!("{}.{}.", vm.record.name, daemon.dns_suffix), address)?;
            times.name = Some(begun.elapsed());
        }
        Ok(times)
    }

    /// Runs the command, and returns what it said.
    fn command(&mut self, vm: String) -> Result<String, End> {
        let asked = asked::command(COMMAND.map(str::to_owned).to_vec(), &[], Some("/"), Some("0"), false);
        let request = VmExec {
            vm,
            asked: asked.map_err(|e| broken("command", &e))?,
            as_run: false,
            tty: None,
            stdin: false,
        };
        let attention = &mut Attention { progress: &mut self.progress, signals: Some(&mut self.signals) };
        let guest = self.client.open(request, attention).map_err(|e| end("command", e))?;
        let (mut inbound, mut said) = (vec![], vec![]);
        let deadline = Instant::now() + PATIENCE;
        loop {
            while let Some(frame) = take(&mut inbound).map_err(|e| broken("command", &e))? {
                match frame.kind {
                    Kind::Stdout | Kind::Stderr => said.extend(frame.payload),
                    Kind::Exit if frame.payload == [0] => {
                        return Ok(String::from_utf8_lossy(&said).trim().to_owned());
                    }
                    Kind::Exit | Kind::Failed => {
                        let why = format!("it failed, and said {:?}", String::from_utf8_lossy(&said).trim());
                        return Err(End::Broken(Broken { stage: "command", why, details: vec![] }));
                    }
                    _ => {}
                }
            }
            self.hear(&guest, &mut inbound, deadline)?;
        }
    }

    /// Waits for more from the guest.
    fn hear(&mut self, guest: &OwnedFd, inbound: &mut Vec<u8>, deadline: Instant) -> Result<(), End> {
        let failed = |e: io::Error| broken("command", &e);
        let left = Timespec::try_from(deadline.saturating_duration_since(Instant::now()))
            .map_err(|e| failed(io::Error::other(e)))?;
        match poll(
            &mut [PollFd::new(guest, PollFlags::IN), PollFd::new(&self.signals, PollFlags::IN)],
            Some(&left),
        ) {
            Ok(0) => return Err(failed(io::ErrorKind::TimedOut.into())),
            Ok(_) | Err(Errno::INTR) => {}
            Err(e) => return Err(failed(e.into())),
        }
        if let Some(signal) = self.signals.asked_to_end() {
            return Err(End::Interrupted(signal));
        }
        let mut buffer = [0; 4096];
        match recv(guest, &mut buffer[..], RecvFlags::DONTWAIT) {
            Ok((0, _)) => Err(failed(io::ErrorKind::UnexpectedEof.into())),
            Ok((n, _)) => {
                inbound.extend_from_slice(&buffer[..n]);
                Ok(())
            }
            Err(Errno::AGAIN | Errno::INTR) => Ok(()),
            Err(e) => Err(failed(e.into())),
        }
    }

    fn ask<C: Call>(&mut self, stage: &'static str, request: C) -> Result<C::Answer, End> {
        let signals = Some(&mut self.signals);
        let attention = &mut Attention { progress: &mut self.progress, signals };
        self.client.call(request, attention).map_err(|e| end(stage, e))
    }
}

/// A whole frame from the front of `inbound`.
fn take(inbound: &mut Vec<u8>) -> io::Result<Option<Frame>> {
    let Some(header) = inbound.first_chunk::<HEADER>() else { return Ok(None) };
    let header = Header::parse(*header).map_err(io::Error::other)?;
    let Some(payload) = inbound.get(HEADER..HEADER + header.length) else { return Ok(None) };
    let frame = Frame::new(header.kind, payload);
    inbound.drain(..HEADER + header.length);
    Ok(Some(frame))
}

/// A guest that is reached refuses a connection to a port that nobody has.
fn reach(address: IpAddr) -> io::Result<()> {
    match TcpStream::connect_timeout(&SocketAddr::new(address, 1), NAME_PATIENCE) {
        Err(e) if e.kind() == io::ErrorKind::ConnectionRefused => Ok(()),
        other => other.map(drop),
    }
}

/// Asks this host's resolver, as other programs do.
fn resolve(name: &str, address: IpAddr) -> Result<(), End> {
    match Resolver::default().lookup(name, Instant::now() + NAME_PATIENCE) {
        Ok(found) if found.contains(&address) => Ok(()),
        Ok(found) => {
            let why = format!("{name} is {address}, and this host's resolver says {found:?}");
            Err(End::Broken(Broken { stage: "name", why, details: vec![] }))
        }
        Err(e) => Err(broken("name", &e)),
    }
}

/// Nobody else's name.
fn name() -> io::Result<VmName> {
    let mut bytes = [0; 4];
    getrandom(&mut bytes, GetRandomFlags::empty())?;
    format!("doctor-{:08x}", u32::from_ne_bytes(bytes))
        .parse()
        .map_err(|e: crate::vm::name::BadName| io::Error::other(e))
}

/// The image that is the least to boot. None: nothing is here, so that the default one is pulled.
fn smallest(images: &[ImageView]) -> Option<String> {
    let whole = images.iter().filter(|image| image.problem.is_none());
    whole.min_by_key(|image| image.record.bytes).map(|image| image.record.id.clone())
}

fn broken(stage: &'static str, e: &dyn std::error::Error) -> End {
    End::Broken(Broken { stage, why: render::chain(e), details: vec![] })
}

fn end(stage: &'static str, e: ClientError) -> End {
    match e {
        ClientError::Interrupted(signal) => End::Interrupted(signal),
        ClientError::Failed(failure) => {
            End::Broken(Broken { stage, why: failure.message, details: failure.details })
        }
        e => broken(stage, &e),
    }
}

fn row(outcome: &Result<Times, Broken>) -> Finding {
    match outcome {
        Ok(times) => {
            let mut found = format!("a VM in {}, a command in {}", took(times.started), took(times.command));
            for (what, time) in [("its address", times.address), ("its name", times.name)] {
                if let Some(time) = time {
                    found += &format!(", {what} in {}", took(time));
                }
            }
            Finding::pass(SUBJECT, format!("{found}, deleted in {}", took(times.deleted)))
        }
        Err(Broken { stage, why, details }) => {
            let mut advice = match *stage {
                "create" => "No VM can be made as things are.",
                "start" => "VMs do not start; other rows may say why, and `banger vm run` shows the same.",
                "command" => "VMs start, and nothing can be run in them.",
                "address" => {
                    "VMs run, and this host does not reach them; another firewall may keep it from them."
                }
                "name" => "VMs are reached by their addresses, and not by their names.",
                _ => "It is deleted when this process ends, or at the next start of the daemon.",
            }
            .to_owned();
            if !details.is_empty() {
                advice += &format!(" The guest said last: {}", details.join(" | "));
            }
            Finding::fail(SUBJECT, format!("{stage}: {why}"), advice)
        }
    }
}

fn took(time: Duration) -> String {
    match time.as_millis() {
        ms if ms < 1000 => format!("{ms} ms"),
        ms => format!("{}.{} s", ms / 1000, ms / 100 % 10),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proto::api::{Code, Failure};

    #[test]
    fn a_probe_that_went_well_tells_how_long_each_thing_took() {
        let ms = Duration::from_millis;
        let times = Times { started: ms(1849), command: ms(15), address: None, name: None, deleted: ms(40) };
        assert_eq!(row(&Ok(times)).line(), "Pass probe: a VM in 1.8 s, a command in 15 ms, deleted in 40 ms");
        let bridged = Times { address: Some(ms(1)), name: Some(ms(2)), ..Times::default() };
        assert!(row(&Ok(bridged)).line().contains(", its address in 1 ms, its name in 2 ms, "));
    }

    #[test]
    fn a_probe_that_failed_names_the_stage_and_what_the_guest_said_last() {
        let failure = Failure {
            code: Code::NotReady,
            message: "the guest did not come up".to_owned(),
            op: "op-1".to_owned(),
            details: vec!["panic".to_owned(), "not syncing".to_owned()],
        };
        let Err(End::Broken(broken)) = Err::<(), _>(end("start", ClientError::Failed(failure))) else {
            panic!("it is no signal")
        };
        let line = row(&Err(broken)).line();
        assert!(
            line.starts_with("Fail probe: start: the guest did not come up => VMs do not start"),
            "{line}"
        );
        assert!(line.ends_with(" The guest said last: panic | not syncing"), "{line}");
        assert!(matches!(end("start", ClientError::Interrupted(2)), End::Interrupted(2)));
    }

    #[test]
    fn frames_are_taken_whole_and_what_is_none_is_an_error() {
        let mut bytes = Frame::new(Kind::Stdout, *b"abc").bytes();
        bytes.extend(Frame::new(Kind::Exit, [0]).bytes());
        let rest = bytes.split_off(6);
        assert_eq!(take(&mut bytes).expect("fine"), None, "a part of one");
        bytes.extend(rest);
        assert_eq!(take(&mut bytes).expect("fine").expect("one").payload, b"abc");
        assert_eq!(take(&mut bytes).expect("fine").expect("one").kind, Kind::Exit);
        assert_eq!(take(&mut bytes).expect("fine"), None);
        take(&mut vec![99; 5]).expect_err("no frame");
    }

    #[test]
    fn every_probe_has_a_name_of_its_own() {
        let (one, other) = (name().expect("a name"), name().expect("a name"));
        assert!(one.as_str().starts_with("doctor-"));
        assert_ne!(one, other);
    }
}
