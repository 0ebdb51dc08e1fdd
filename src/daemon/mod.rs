//! bangerd: state and orchestration; it owns every decision, and runs as the owner, unprivileged.
//!
//! ```text
//!  socket (who asks, what) -> api (which handler) -> vms ----> driver (one task per VM: start, stop, exit)
//!                                                 -> images, kernels (catalogs), guest (exec, read, write, logs)
//! ```
//!
//! It is crash-only (DESIGN D8): what is intended is stored before the host is touched, [`reconcile`] compares the two at start,
//! and VMs are processes that do not need it. One thread waits for everything; what blocks runs beside it ([`threads`]).

mod agent;
mod api;
mod bundles;
mod cache;
mod catalogs;
mod dial;
mod dns;
mod doctor;
mod driver;
mod events;
mod exit;
mod fault;
mod file_sync;
mod guest;
mod guest_text;
mod health;
mod image_id;
mod images;
mod initramfs;
mod jail;
mod kernels;
mod launch;
mod leases;
mod lifetime;
mod log_times;
mod logs;
mod machine;
mod made_of;
mod modules_image;
mod names;
mod network;
mod network_hint;
mod op;
mod operations;
mod orders;
mod place;
mod ports;
mod probe;
mod programs;
mod publish;
mod pulls;
mod reconcile;
mod registered;
mod root_client;
mod saved;
mod set;
mod socket;
mod sparse;
mod start;
mod stop;
mod threads;
mod unsettled;
mod usage;
mod uses;
mod vms;
mod workspace;

use std::ffi::OsString;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{SystemTime, UNIX_EPOCH};

use argh::FromArgs;
use smol::channel::{Sender, bounded};
use smol::{Executor, Task};

use crate::config::{self, Config};
use crate::daemon::dns::Dns;
use crate::daemon::events::Events;
use crate::daemon::fault::{Fault, chain};
use crate::daemon::network::Bridge;
use crate::daemon::operations::Operations;
use crate::daemon::place::Place;
use crate::daemon::publish::Ports;
use crate::daemon::pulls::Images;
use crate::daemon::root_client::RootClient;
use crate::daemon::uses::Uses;
use crate::daemon::vms::Vms;
use crate::host::descriptors;
use crate::host::dirs::Dirs;
use crate::host::endpoint;
use crate::proto::api::{BAD_CONFIG, Code};
use crate::store::{Changes, Store, StoreError};
use crate::system::layout::Layout;

/// bangerd: banger's daemon. Without options it runs in the foreground; the command line starts it when it is needed.
#[derive(FromArgs)]
struct Args {
    /// say whether this bangerd can work with the database: exit status 0 compatible, 1 will migrate, 2 too new
    #[argh(switch)]
    check_migrations: bool,
    /// use the installation's directories
    #[argh(switch, hidden_help)]
    system: bool,
    /// copy the database to this file, while no daemon runs
    #[argh(option, hidden_help)]
    save_database: Option<PathBuf>,
    /// put such a copy back
    #[argh(option, hidden_help)]
    restore_database: Option<PathBuf>,
    /// become the program that the first line of stdin names
    #[argh(switch, hidden_help)]
    launch: bool,
}

/// Everything that handlers and drivers share.
pub struct Daemon {
    pub dirs: Dirs,
    pub config: Config,
    /// Of the configuration as it was read.
    pub config_digest: String,
    pub store: Store,
    pub vms: Vms,
    pub images: Images,
    pub root: RootClient,
    pub bridge: Bridge,
    pub dns: Dns,
    pub ports: Ports,
    pub operations: Operations,
    pub uses: Uses,
    pub events: Events,
    /// Of updates, in an installation.
    pub journal: Option<PathBuf>,
    /// Seconds since 1970.
    pub started_at: u64,
    /// Ends the daemon.
    pub stop: Sender<()>,
    /// Weak, since its tasks own this very value: both are dropped at the end.
    executor: Weak<Executor<'static>>,
    /// Held while records are read, judged and written as one, such as a name that must be free. Never across an await.
    ledger: Mutex<()>,
}

pub type Shared = Arc<Daemon>;

impl Daemon {
    /// Runs `task` until it ends or its handle is dropped; None when the daemon is ending.
    pub fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) -> Option<Task<()>> {
        self.executor.upgrade().map(|executor| executor.spawn(task))
    }

    pub fn ledger(&self) -> MutexGuard<'_, ()> {
        // What it guards is in the store, which a panic leaves as it was.
        self.ledger.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Runs `work`, which blocks, beside the daemon's thread.
pub async fn blocking<T: Send + 'static>(d: &Shared, work: impl FnOnce(&Shared) -> T + Send + 'static) -> T {
    let d = Arc::clone(d);
    threads::aside(move || work(&d)).await
}

/// Makes `changes` beside the daemon's thread: a commit waits for the disk.
pub async fn apply(d: &Shared, changes: Changes) -> Result<(), StoreError> {
    blocking(d, move |d| d.store.apply(changes)).await
}

/// Seconds since 1970.
pub fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_secs())
}

/// The personality: parses `args` and does what they say.
pub fn main(args: Vec<OsString>) -> ExitCode {
    let words: Vec<String> = args.iter().map(|a| a.to_string_lossy().into_owned()).collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let args = match Args::from_args(&["bangerd"], &words) {
        Ok(args) => args,
        Err(exit) if exit.status.is_ok() => {
            println!("{}", exit.output.trim_end());
            return ExitCode::SUCCESS;
        }
        Err(exit) => return fail(&exit.output.trim().replace('\n', " ")),
    };
    // Who started it ran /proc/self/exe, and the kernel calls a process by what was run: `ps`, `pgrep` and `top` would say exe.
    if let Err(e) = rustix::thread::set_name(c"bangerd") {
        return fail(&format!("cannot take the name bangerd: {e}"));
    }
    if let Err(e) = descriptors::keep_from_children() {
        return fail(&format!("cannot keep descriptors from children: {e}"));
    }
    if args.launch {
        return launch::become_ordered();
    }
    let dirs = match args.system {
        true => Dirs::installed(),
        false => match Dirs::from_env() {
            Ok(dirs) => dirs,
            Err(e) => return fail(&e.to_string()),
        },
    };
    if args.check_migrations {
        return check_migrations(&dirs);
    }
    if args.save_database.is_some() || args.restore_database.is_some() {
        begin_log(None);
    }
    let copied = match (&args.save_database, &args.restore_database) {
        (Some(copy), _) => Some(saved::save(&dirs, copy)),
        (None, Some(copy)) => Some(saved::restore(&dirs, copy)),
        (None, None) => None,
    };
    match copied {
        Some(Ok(())) => return ExitCode::SUCCESS,
        Some(Err(fault)) => return fail(&fault.message),
        None => {}
    }
    let place = match args.system {
        true => Place::of_installation(dirs),
        false => Place::of_user(dirs),
    };
    let place = match place {
        Ok(place) => place,
        Err(fault) => return fail(&fault.message),
    };
    // Before anything listens: whoever connects to a daemon is answered.
    let config = match config::read(&place.config) {
        Ok(config) => config,
        Err(e) => {
            fail(&format!("cannot start: {}", chain(&e)));
            return ExitCode::from(BAD_CONFIG);
        }
    };
    begin_log(config.config.log_level.as_deref());
    match run(place, config) {
        Ok(()) => ExitCode::SUCCESS,
        Err(fault) => fail(&fault.message),
    }
}

/// Logs to stderr as the environment says, else as `level`, the configuration's.
fn begin_log(level: Option<&str>) {
    let asked = std::env::var("BANGER_LOG_LEVEL").ok().filter(|asked| !asked.is_empty());
    let level = asked.as_deref().or(level).unwrap_or("info");
    env_logger::Builder::new().parse_filters(level).format(write_line).init();
}

/// A line of the log: people read it on terminals, and guests have a part in what it says.
fn write_line(out: &mut env_logger::fmt::Formatter, record: &log::Record<'_>) -> io::Result<()> {
    const LONGEST: usize = 8192;
    let text = guest_text::harmless(&record.args().to_string(), LONGEST);
    writeln!(out, "[{} {:<5}] {text}", out.timestamp(), record.level())
}

fn fail(why: &str) -> ExitCode {
    // In one piece: others that fail at the same time write to the same log, whose last line whoever started them reads.
    io::stderr().write_all(format!("bangerd: {why}\n").as_bytes()).unwrap_or_default();
    ExitCode::FAILURE
}

/// Exit status 3: the database cannot be judged.
fn check_migrations(dirs: &Dirs) -> ExitCode {
    match Store::check(&dirs.database()) {
        Ok(verdict) => {
            println!("{verdict}");
            ExitCode::from(verdict.status())
        }
        Err(e) => {
            eprintln!("bangerd: {}", chain(&e));
            ExitCode::from(3)
        }
    }
}

fn run(place: Place, config: config::Read) -> Result<(), Fault> {
    let failed = |e: &dyn std::error::Error| Fault::failed("cannot start", e);
    let Place { dirs, private, config: _, installed } = place;
    let config::Read { config, digest, layers: _ } = config;
    let journal = installed.then(|| Layout::from_env().journal());
    // The lock of the socket comes first: whoever holds it is the daemon, and may open the database.
    let listening = socket::listen(&dirs).map_err(|e| failed(&e))?;
    for dir in &private {
        endpoint::own_directory(dir, 0o700).map_err(|e| failed(&e))?;
    }
    refuse_lost_database(&dirs)?;
    let store = Store::open(&dirs.database()).map_err(|e| open_fault(&dirs, &e))?;
    allow_many_descriptors();
    let (stop, stopped) = bounded(1);
    let executor = Arc::new(Executor::new());
    let d = Arc::new(Daemon {
        vms: Vms::default(),
        images: Images::new(dirs.blobs()),
        root: RootClient::find(&dirs, config.network.kind)?,
        bridge: Bridge::default(),
        dns: Dns::start(&config.network.suffix, config.network.dns_port, None),
        ports: Ports::default(),
        operations: Operations::default(),
        uses: Uses::default(),
        events: Events::default(),
        journal,
        started_at: now(),
        stop,
        executor: Arc::downgrade(&executor),
        ledger: Mutex::new(()),
        dirs,
        config,
        config_digest: digest,
        store,
    });
    reconcile::at_start(&d)?;
    cache::sweep(&d);
    log::info!("bangerd {} listens at {}", crate::build::VERSION, d.dirs.socket().display());
    let serve = executor.spawn(api::serve(Arc::clone(&d), listening.listener));
    smol::block_on(executor.run(async {
        // Its senders live as long as the daemon.
        if stopped.recv().await.is_err() {
            log::debug!("nobody can stop the daemon any more");
        }
    }));
    log::info!("bangerd ends; its VMs run on");
    drop(serve);
    Ok(())
}

fn open_fault(dirs: &Dirs, e: &StoreError) -> Fault {
    let mut fault = Fault::failed("cannot start", e);
    if matches!(e, StoreError::Damaged { .. }) {
        // Beginning with an empty one would take every disk for a leftover.
        fault.message += &format!(
            "; it stays as it is: put a copy of it back, or move {} away to begin with nothing",
            dirs.state.display()
        );
    }
    fault
}

/// A database that is gone while the disks of its VMs are there is an accident: beginning with an empty one would remove them.
fn refuse_lost_database(dirs: &Dirs) -> Result<(), Fault> {
    let looked = |e: io::Error| Fault::failed("cannot start: cannot look at the state", &e);
    if dirs.database().try_exists().map_err(looked)? {
        return Ok(());
    }
    let vms = dirs.state.join("vms");
    if names_in(&vms).map_err(looked)?.is_empty() {
        return Ok(());
    }
    let text = format!(
        "cannot start: {} is gone, but {} has disks of VMs; put the database back, or move that directory away to begin with \
         nothing",
        dirs.database().display(),
        vms.display()
    );
    Err(Fault::new(Code::Failed, text))
}

/// Each connection and VM takes a few descriptors; the usual soft limit of 1024 is for programs that use select(2).
fn allow_many_descriptors() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let limit = getrlimit(Resource::Nofile);
    if let Err(e) = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit }) {
        log::warn!("cannot raise the limit of open files: {e}");
    }
}

/// What is below `dir`, by name; nothing where there is no such directory.
pub fn names_in(dir: &Path) -> io::Result<Vec<String>> {
    match std::fs::read_dir(dir) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(vec![]),
        Err(e) => Err(e),
        Ok(entries) => entries.map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned())).collect(),
    }
}
