//! `banger config`: what is configured, where that comes from, and what is wrong with it. No daemon is needed, and none is started.

use std::path::{Path, PathBuf};

use argh::{ArgsInfo, FromArgs};

use crate::cli::client::Client;
use crate::cli::error::Error;
use crate::cli::render;
use crate::config::keys::{Absent, KEYS};
use crate::config::{self, ConfigError, Places, shown};
use crate::host::{facts, trusted};
use crate::proto::api::DaemonStatus;

#[derive(FromArgs, ArgsInfo, Debug)]
/// Look at the configuration, config.toml. bangerd reads it at its start.
#[argh(
    subcommand,
    name = "config",
    help_triggers("-h", "--help", "help"),
    example = "banger config show --origin    # every key, and who says so\n\
               banger config keys             # what can be set\n\
               vi \"$(banger config path -q | tail -1)\" && banger config check"
)]
pub struct Config {
    #[argh(subcommand)]
    verb: Verb,
}

#[derive(FromArgs, ArgsInfo, Debug)]
#[argh(subcommand)]
enum Verb {
    Show(Show),
    Check(Check),
    Path(Paths),
    Keys(Keys),
}

#[derive(FromArgs, ArgsInfo, Debug)]
/// Show every key with what holds for it now.
#[argh(
    subcommand,
    name = "show",
    help_triggers("-h", "--help", "help"),
    example = "banger config show --origin\nbanger config show --json | jq -r '.[] | select(.origin == \"file\") | .key'",
    note = "Fields of --json: key, value (null: nothing), origin (default, host, file, environment), place (the file and the line, or the variable), about."
)]
struct Show {
    /// print JSON
    #[argh(switch)]
    json: bool,
    /// show where each value comes from
    #[argh(switch)]
    origin: bool,
}

#[derive(FromArgs, ArgsInfo, Debug)]
/// Say what is wrong with the configuration, or with a file that is to become it. Exits with 1 if something is.
#[argh(
    subcommand,
    name = "check",
    help_triggers("-h", "--help", "help"),
    example = "banger config check\nbanger config check ./config.toml && cp ./config.toml ~/.config/banger/"
)]
struct Check {
    /// this file alone
    #[argh(positional)]
    file: Option<PathBuf>,
}

#[derive(FromArgs, ArgsInfo, Debug)]
/// Show which files are the configuration. A later one lies over an earlier one, key by key.
#[argh(
    subcommand,
    name = "path",
    help_triggers("-h", "--help", "help"),
    example = "banger config path\nbanger config path -q"
)]
struct Paths {
    /// print paths only
    #[argh(switch, short = 'q')]
    quiet: bool,
}

#[derive(FromArgs, ArgsInfo, Debug)]
/// Show every key that there is, what it takes and what holds without it.
#[argh(subcommand, name = "keys", help_triggers("-h", "--help", "help"), example = "banger config keys")]
struct Keys {}

impl Config {
    pub fn run(&self) -> Result<(), Error> {
        match &self.verb {
            Verb::Show(show) => show.run(),
            Verb::Check(check) => check.run(),
            Verb::Path(paths) => paths.run(),
            Verb::Keys(_) => keys(),
        }
    }
}

impl Show {
    fn run(&self) -> Result<(), Error> {
        let client = Client::from_env()?;
        let read = config::read(client.config()).map_err(Error::Config)?;
        // systemd's environment counts for an installation's daemon, and nobody's for what is not the daemon's.
        let installed = client.is_of_installation();
        let env = |name: &str| std::env::var(name).ok().filter(|_| !installed || name != "BANGER_LOG_LEVEL");
        let state = client.state_dir();
        let host = facts::read(if state.is_dir() { state } else { Path::new("/") }).ok();
        let all = shown::shown(&read, env, host.as_ref());
        match (self.json, self.origin) {
            (true, _) => render::json(&all)?,
            (false, true) => {
                let rows: Vec<_> =
                    all.iter().map(|s| [s.key.to_owned(), shown::words(s), shown::origin(s)]).collect();
                render::out(&render::table(["KEY", "VALUE", "ORIGIN"], &rows))?;
            }
            (false, false) => {
                let rows: Vec<_> = all.iter().map(|s| [s.key.to_owned(), shown::words(s)]).collect();
                render::out(&render::table(["KEY", "VALUE"], &rows))?;
            }
        }
        tell_of_another(&client, &read);
        Ok(())
    }
}

/// Says so where the daemon that runs has read something else.
fn tell_of_another(client: &Client, read: &config::Read) {
    let Ok(view) = client.ask_running(DaemonStatus {}) else { return };
    // Of an older banger nothing is known.
    if view.config.is_empty() || view.config == read.digest {
        return;
    }
    let how = if client.is_of_installation() { "sudo banger system restart" } else { "banger daemon stop" };
    render::say(&format!(
        "note: the bangerd that runs (pid {}) read another configuration at its start; `{how}` has this one read; VMs run on",
        view.pid
    ));
}

impl Check {
    fn run(&self) -> Result<(), Error> {
        let client = Client::from_env()?;
        let places = match &self.file {
            None => client.config().clone(),
            Some(file) => {
                // One that is to be looked at has to be there.
                std::fs::metadata(file).map_err(|e| Error::Config(ConfigError::Read(file.clone(), e)))?;
                Places { roots: None, own: file.clone(), home: client.config().home.clone() }
            }
        };
        let untrusted = places.roots.as_deref().and_then(|roots| trusted::read(roots).err());
        if let Some(e) = &untrusted {
            render::error(&Error::Refused(e.to_string()));
        }
        match config::read(&places) {
            Err(ConfigError::Invalid(problems)) => {
                for problem in problems {
                    render::error(&Error::Refused(problem.to_string()));
                }
                Err(Error::Said(1))
            }
            Err(e) => Err(Error::Config(e)),
            Ok(_) if untrusted.is_some() => Err(Error::Said(1)),
            Ok(read) => {
                for layer in &read.layers {
                    let state = if layer.is_there { "ok" } else { "not there" };
                    render::out_line(&format!("{}: {state}", layer.path.display()))?;
                }
                if self.file.is_none() {
                    tell_of_another(&client, &read);
                }
                Ok(())
            }
        }
    }
}

impl Paths {
    fn run(&self) -> Result<(), Error> {
        let client = Client::from_env()?;
        let files = client.config().files().map(|(_, path)| path);
        if self.quiet {
            return render::out(&files.map(|path| format!("{}\n", path.display())).collect::<String>());
        }
        let state = |path: &Path| if path.exists() { "there" } else { "not there" };
        let rows: Vec<_> = files.map(|path| [path.display().to_string(), state(path).to_owned()]).collect();
        render::out(&render::table(["FILE", "STATE"], &rows))
    }
}

/// `banger config keys`.
fn keys() -> Result<(), Error> {
    let default = |absent: Absent| match absent {
        Absent::Is(text) => text.to_owned(),
        Absent::Without(what) => format!("({what})"),
        Absent::Host => "(by this host)".to_owned(),
    };
    let rows: Vec<_> = KEYS
        .iter()
        .map(|key| [key.name.to_owned(), key.takes.0.to_owned(), default(key.absent), key.about.to_owned()])
        .collect();
    render::out(&render::table(["KEY", "TAKES", "DEFAULT", "WHAT IT IS"], &rows))
}
