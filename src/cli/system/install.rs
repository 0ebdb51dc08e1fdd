//! `banger system install`.

use std::io::Write;

use argh::{ArgsInfo, FromArgs};
use rustix::process::Uid;

use crate::build;
use crate::cli::error::Error;
use crate::cli::render;
use crate::cli::system::daemons::Asked;
use crate::cli::system::{SHARED, here, roots};
use crate::system::accounts::Account;
use crate::system::check::{self, Facts, Owner, Problem};
use crate::system::error::SystemError;
use crate::system::install::{self, Done, Prepared, Wish};
use crate::system::layout::Layout;
use crate::system::plan::Change;
use crate::system::ready;
use crate::system::services::Manager;
use crate::system::units;

#[derive(FromArgs, ArgsInfo, Debug)]
/// Install this executable, for one user's VMs, and start it. Again: mend what is installed.
#[argh(
    subcommand,
    name = "install",
    help_triggers("-h", "--help", "help"),
    example = "sudo ./banger system install              # for whoever used sudo\n\
               ./banger system install --dry-run         # every file that it would write\n\
               sudo ./banger system install --owner me",
    note = "Everything is checked first, and nothing is changed if something is missing. What is made is removed again by `banger system uninstall`."
)]
pub struct Install {
    /// whose VMs they are; whose they were before, or who uses sudo, if not given
    #[argh(option, arg_name = "user")]
    owner: Option<String>,
    /// list what would be written, and change nothing
    #[argh(switch)]
    dry_run: bool,
    /// install over a newer version
    #[argh(switch)]
    force: bool,
}

impl Install {
    pub fn run(&self, layout: &Layout) -> Result<(), Error> {
        let owner = self.owner.clone().or_else(|| owner_of(layout)).or_else(who_used_sudo);
        let facts = check::gather(layout, owner.as_deref(), build::VERSION).map_err(SystemError::Look)?;
        let problems = check::judge(&facts, self.force);
        if self.dry_run {
            return dry_run(layout, &facts, &problems);
        }
        let account = match &facts.owner {
            Owner::Known { account, .. } if problems.is_empty() => account.clone(),
            Owner::Known { .. } | Owner::Unknown(_) | Owner::Unsaid => {
                say(&problems);
                return Err(Error::Refused("nothing was installed, and nothing was changed".to_owned()));
            }
        };
        // What cannot be taken back is logged.
        env_logger::Builder::new().filter_level(log::LevelFilter::Warn).format(line).init();
        let wish = wish(account);
        let prepared = install::prepare(layout, &wish)?;
        let asked = Asked { layout, owner: Uid::from_raw(wish.account.uid) };
        let done = install::install(layout, &wish, &prepared, &Manager::of(layout), &asked, ready::PATIENCE);
        match done {
            Ok(done) => render::out(&report(layout, &wish, &prepared, done)),
            Err(e) => {
                render::say(match prepared.fresh {
                    true => "what had been made was removed again; there is no installation",
                    false => {
                        "the installation is only partly mended; `sudo banger system install` takes it up again"
                    }
                });
                Err(e.into())
            }
        }
    }
}

fn line(to: &mut env_logger::fmt::Formatter, record: &log::Record<'_>) -> std::io::Result<()> {
    writeln!(to, "banger: {}", record.args())
}

/// Whose the installation is that is mended. One that cannot be believed is a problem of its own.
fn owner_of(layout: &Layout) -> Option<String> {
    let install = crate::host::install::Install::read(&layout.dirs.install_file());
    install.ok().flatten().map(|install| install.owner)
}

/// The user behind sudo(8).
fn who_used_sudo() -> Option<String> {
    std::env::var("SUDO_USER").ok().filter(|user| !user.is_empty())
}

fn wish(account: Account) -> Wish {
    Wish { account, build: here(), shared: SHARED, root: roots() }
}

fn say(problems: &[Problem]) {
    for Problem { what, advice, .. } in problems {
        render::say(&format!("banger: {what}; {advice}"));
    }
}

/// Lists what would be written. Who is not root need not be told that, nor have an owner chosen.
fn dry_run(layout: &Layout, facts: &Facts, problems: &[Problem]) -> Result<(), Error> {
    let account = match &facts.owner {
        Owner::Known { account, .. } => account.clone(),
        Owner::Unknown(_) | Owner::Unsaid => {
            Account { name: "OWNER".to_owned(), uid: u32::MAX, gid: u32::MAX, home: "/".into() }
        }
    };
    let prepared = install::prepare(layout, &wish(account))?;
    render::out(&listed(layout, &prepared))?;
    let stops: Vec<Problem> = problems.iter().filter(|problem| !problem.is_about_root).cloned().collect();
    if !stops.is_empty() {
        render::say("as it is, nothing would be installed:");
        say(&stops);
    }
    Ok(())
}

/// A line for each directory and file: what would become of it, its path, and what it is for.
fn listed(layout: &Layout, prepared: &Prepared) -> String {
    let directories = prepared
        .directories
        .iter()
        .map(|(directory, change)| (*change, format!("{}/", directory.path.display()), directory.purpose));
    let (binary, change) = &prepared.binary;
    let binary = [(*change, binary.display().to_string(), "is the whole program")];
    let steps =
        prepared.steps.iter().map(|step| (step.change(), step.path().display().to_string(), step.purpose()));
    // systemd's own way to remember what is started at boot (systemctl(1), enable).
    let enabled = units::boot_links(layout).into_iter().map(|path| {
        let change = if path.is_symlink() { Change::Keep } else { Change::Create };
        (change, path.display().to_string(), "has it started at boot")
    });
    let made = layout.made();
    let change = match (prepared.makes_directories(), made.exists()) {
        (false, _) => Change::Keep,
        (true, true) => Change::Replace,
        (true, false) => Change::Create,
    };
    let lock = layout.lock();
    let lock_change = if lock.exists() { Change::Keep } else { Change::Create };
    let made = [
        (change, made.display().to_string(), "says which directories were made, for their removal"),
        (lock_change, lock.display().to_string(), "is held by whoever changes the installation"),
    ];
    let lines: Vec<(Change, String, &str)> =
        directories.chain(made).chain(binary).chain(steps).chain(enabled).collect();
    let width = lines.iter().map(|(_, path, _)| path.chars().count()).max().unwrap_or(0);
    lines
        .iter()
        .map(|(change, path, purpose)| format!("{:<8} {path:<width$}  {purpose}\n", change.to_string()))
        .collect()
}

fn report(layout: &Layout, wish: &Wish, prepared: &Prepared, done: Done) -> String {
    let (owner, version, binary) = (&wish.account.name, &wish.build.version, layout.binary());
    let binary = binary.display();
    let daemons = if done.restarted { "started" } else { "run as they were" };
    let before = wish.account.home.join(".local/share/banger");
    let before = match before.join("banger.redb").exists() {
        true => format!(
            "what {owner} has in {} is not used by it; without an installation it is again\n",
            before.display()
        ),
        false => String::new(),
    };
    match (prepared.fresh, done.files) {
        (true, _) => format!(
            "banger v{version} is installed at {binary}, for {owner}; bangerd and bangerd-root are {daemons}, now and at boot\n\
             next, as {owner}: `banger doctor`, and `banger vm run`\n{before}"
        ),
        (false, 0) => format!(
            "banger v{version} is installed for {owner}, and nothing had to be mended; its daemons {daemons}\n"
        ),
        (false, 1) => format!(
            "banger v{version} is installed for {owner}; one file was mended, and its daemons {daemons}\n"
        ),
        (false, n) => format!(
            "banger v{version} is installed for {owner}; {n} files were mended, and its daemons {daemons}\n"
        ),
    }
}
