//! The personality `bangerd-root`: what it is told, whom it serves, what it gives up, and then it serves.

use std::ffi::OsString;
use std::fs::File;
use std::io;
use std::os::fd::AsFd;
use std::os::unix::net::{UnixListener, UnixStream};
use std::process::ExitCode;
use std::sync::Arc;

use argh::FromArgs;
use rustix::process::geteuid;

use crate::build;
use crate::host::{descriptors, endpoint};
use crate::root::chores::Hands;
use crate::root::error::chain;
use crate::root::install;
use crate::root::launch::stage;
use crate::root::launcher::{self, Launcher};
use crate::root::perform::{self, Root};
use crate::root::settings::Settings;
use crate::root::{Ground, activation, harden, serve, watch};

/// bangerd-root: the part of banger that runs as root. Without options it serves the owner of the installation.
#[derive(FromArgs)]
struct Args {
    /// remove what no record claims, make again what is claimed and missing, and end
    #[argh(switch)]
    reconcile: bool,
    /// end every VM, remove bridge, taps, firewall and all else that was ever made, and end
    #[argh(switch)]
    clear: bool,
    /// do what belongs to jails, for the helper that started it
    #[argh(switch, hidden_help)]
    launcher: bool,
}

/// The personality: parses `args` and does what they say.
pub fn main(args: Vec<OsString>) -> ExitCode {
    // A VMM in the making is one of ours, and has nothing to do with what follows.
    if let Some(code) = stage::run(&args) {
        return code;
    }
    let words: Vec<String> = args.iter().map(|a| a.to_string_lossy().into_owned()).collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let args = match Args::from_args(&["bangerd-root"], &words) {
        Ok(args) => args,
        Err(exit) if exit.status.is_ok() => {
            println!("{}", exit.output.trim_end());
            return ExitCode::SUCCESS;
        }
        Err(exit) => return fail(&exit.output.trim().replace('\n', " ")),
    };
    if !geteuid().is_root() {
        return fail(
            "this is root's to run; systemd starts it where banger is installed (banger system install)",
        );
    }
    let level = std::env::var("BANGER_LOG_LEVEL").unwrap_or_else(|_| "info".to_owned());
    env_logger::Builder::new().parse_filters(&level).format_target(false).init();
    let done = prepare().and_then(|(ground, settings)| match args {
        Args { launcher: true, .. } => launch(&ground, &settings),
        Args { reconcile: true, .. } => alone(ground, settings)?.reconcile().map_err(|e| chain(&e)),
        Args { clear: true, .. } => alone(ground, settings)?.clear().map_err(|e| chain(&e)),
        Args { .. } => run(ground, settings),
    });
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => fail(&why),
    }
}

fn fail(why: &str) -> ExitCode {
    eprintln!("bangerd-root: {why}");
    ExitCode::FAILURE
}

/// For `map_err`, where only a person reads it.
fn failed<E: std::error::Error>(what: &str) -> impl FnOnce(E) -> String {
    move |e| format!("cannot {what}: {}", chain(&e))
}

/// Whom it serves and how.
fn prepare() -> Result<(Ground, Settings), String> {
    let ground = install::ground().map_err(|e| chain(&e))?;
    let settings = Settings::read(&ground.dirs.config_file()).map_err(|e| chain(&e))?;
    Ok((ground, settings))
}

/// The helper's work in this process, while no helper serves.
fn alone(ground: Ground, settings: Settings) -> Result<Root, String> {
    Root::new(ground, settings).map_err(|e| match e.code() {
        crate::proto::root::Code::Conflict => {
            format!("{}; stop it first (systemctl stop bangerd-root.socket bangerd-root.service)", chain(&e))
        }
        _ => chain(&e),
    })
}

fn run(ground: Ground, settings: Settings) -> Result<(), String> {
    name(c"bangerd-root")?;
    let passed = activation::take().map_err(failed("take the socket that was passed"))?;
    descriptors::keep_from_children().map_err(failed("keep descriptors from children"))?;
    let lock = perform::take(&ground).map_err(|e| chain(&e))?;
    let listener = match passed {
        Some(listener) => listener,
        None => listen(&ground)?,
    };
    // While this process still has the rights that the launcher needs.
    let launcher = Launcher::spawn(&lock).map_err(failed("start the launcher"))?;
    let ended = launcher.ended().map_err(failed("watch the launcher"))?;
    harden::front(&ground).map_err(failed("give up what is not needed"))?;
    let root = Root::assemble(ground, settings, Hands::Apart(launcher), lock).map_err(|e| chain(&e))?;
    let root = Arc::new(root);
    if let Err(e) = root.reconcile() {
        // What is left is named; VMs that have nothing to do with it can be served all the same.
        log::error!("not everything could be reconciled: {}", chain(&e));
    }
    watch::start(&root).map_err(failed("watch the firewall"))?;
    log::info!("bangerd-root {} serves uid {}", build::VERSION, root.ground.owner.as_raw());
    serve::serve(&root, &listener, &ended).map_err(failed("serve"))
}

fn listen(ground: &Ground) -> Result<UnixListener, String> {
    endpoint::bind(&ground.dirs.root_socket(), Some((ground.owner, ground.group))).map_err(|e| chain(&e))
}

/// The launcher: its stdin is the front's control, its stdout the front's lock.
fn launch(ground: &Ground, settings: &Settings) -> Result<(), String> {
    name(c"bangerd-launch")?;
    let (control, lock) = handed_over().map_err(failed("take over from the helper"))?;
    descriptors::keep_from_children().map_err(failed("keep descriptors from children"))?;
    harden::launcher().map_err(failed("give up what is not needed"))?;
    launcher::serve(ground, settings, &control, lock).map_err(failed("hear the helper"))
}

/// Takes both, and leaves /dev/null in their place, so that no child can have them.
fn handed_over() -> io::Result<(UnixStream, File)> {
    let control = UnixStream::from(io::stdin().as_fd().try_clone_to_owned()?);
    let lock = File::from(io::stdout().as_fd().try_clone_to_owned()?);
    let null = File::options().read(true).write(true).open("/dev/null")?;
    rustix::stdio::dup2_stdin(&null)?;
    rustix::stdio::dup2_stdout(&null)?;
    Ok((control, lock))
}

/// Who started it may have run /proc/self/exe, and the kernel calls a process by what was run.
fn name(name: &std::ffi::CStr) -> Result<(), String> {
    rustix::thread::set_name(name).map_err(failed("take a name"))
}
