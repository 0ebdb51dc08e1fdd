//! The tree of commands: what argh parses, help shows and completion walks.

use argh::{ArgsInfo, FromArgs};

use crate::cli::bundle::Bundle;
use crate::cli::complete::{Complete, Completion};
use crate::cli::config::Config;
use crate::cli::daemon::Daemon;
use crate::cli::doctor::Doctor;
use crate::cli::error::Error;
use crate::cli::events::Events;
use crate::cli::help;
use crate::cli::image::Image;
use crate::cli::internal::Internal;
use crate::cli::kernel::Kernel;
use crate::cli::ssh::configuration::SshConfig;
use crate::cli::system::System;
use crate::cli::top::Top;
use crate::cli::update::Update;
use crate::cli::version::Version;
use crate::cli::vm::Vm;
use crate::cli::vm::list::Ps;
use crate::cli::words::{Usage, Words, complaint};

#[derive(FromArgs, ArgsInfo, Debug)]
/// A disposable, real virtual machine in one command.
#[argh(help_triggers("-h", "--help", "help"), example = "banger vm run")]
pub struct Banger {
    #[argh(subcommand)]
    pub noun: Noun,
}

#[derive(FromArgs, ArgsInfo, Debug)]
#[argh(subcommand)]
pub enum Noun {
    Vm(Vm),
    Ps(Ps),
    Top(Top),
    Events(Events),
    Image(Image),
    Kernel(Kernel),
    Bundle(Bundle),
    System(System),
    Update(Update),
    SshConfig(SshConfig),
    Config(Config),
    Daemon(Daemon),
    Doctor(Doctor),
    Version(Version),
    Completion(Completion),
    Complete(Complete),
    Internal(Internal),
}

impl Noun {
    /// Whether an update that was cut off is mended, or told of, before this. Words that are completed are a shell's, and units have
    /// their own moment.
    pub fn mends(&self) -> bool {
        !matches!(self, Self::Complete(_) | Self::Completion(_) | Self::Internal(_))
    }
}

/// Commands that no user needs: scripts, publishers and updates call them.
pub const HIDDEN: [&str; 3] = ["complete", "internal", "refresh"];

/// What the words mean: something to do, or a text to show.
pub enum Meaning {
    Do(Box<Noun>),
    Help(String),
}

/// Reads words that [`crate::cli::words::order`] has put in order.
///
/// # Errors
/// [`Usage::Value`] for a value that does not parse.
pub fn read(words: &Words) -> Result<Meaning, Error> {
    let mut args: Vec<&str> = words.ordered.iter().map(String::as_str).collect();
    if words.help {
        args.push("help");
    }
    match Banger::from_args(&["banger"], &args) {
        Ok(banger) => Ok(Meaning::Do(Box::new(banger.noun))),
        Err(early) if early.status.is_ok() && words.ordered.is_empty() => {
            Ok(Meaning::Help(help::page(&Banger::get_args_info())))
        }
        Err(early) if early.status.is_ok() => Ok(Meaning::Help(visible(&early.output))),
        Err(early) => Err(Error::Usage(complaint(&early.output))),
    }
}

/// Leaves the lines of hidden commands out of a help text; argh can hide options, but no commands.
fn visible(help: &str) -> String {
    let mut text = String::with_capacity(help.len());
    let mut hidden = false;
    for line in help.lines() {
        // A long description goes on in lines that are indented deeper.
        let command = HIDDEN
            .iter()
            .any(|name| line.strip_prefix("  ").is_some_and(|l| l.starts_with(&format!("{name} "))));
        hidden = command || (hidden && line.starts_with("     "));
        if !hidden {
            text.push_str(line);
            text.push('\n');
        }
    }
    text
}

/// Text of the command line, which must be UTF-8 to travel as JSON.
pub fn text_of(args: Vec<std::ffi::OsString>) -> Result<Vec<String>, Usage> {
    let text = |arg: std::ffi::OsString| {
        arg.into_string().map_err(|arg| Usage::NotUtf8 { shown: format!("{arg:?}") })
    };
    args.into_iter().map(text).collect()
}

#[cfg(test)]
mod tests {
    use argh::CommandInfoWithArgs;

    use super::*;
    use crate::cli::words::order;

    fn each_verb(path: &str, node: &CommandInfoWithArgs, f: &mut impl FnMut(&str, &CommandInfoWithArgs)) {
        f(path, node);
        for sub in &node.commands {
            each_verb(&format!("{path} {}", sub.name), &sub.command, f);
        }
    }

    #[test]
    fn every_group_and_verb_has_help_with_an_example() {
        each_verb("", &Banger::get_args_info(), &mut |path, node| {
            if path == " complete" {
                return;
            }
            assert!(!node.examples.is_empty(), "`banger{path}` has no example");
            assert!(node.examples.iter().all(|e| e.contains("banger")), "`banger{path}`");
            let args: Vec<String> = path.split_whitespace().chain(["--help"]).map(str::to_owned).collect();
            let words = order(&Banger::get_args_info(), &args).expect("help is understood");
            let Ok(Meaning::Help(help)) = read(&words) else { panic!("`banger{path}` shows no help") };
            assert!(help.starts_with(&format!("Usage: banger{path}")), "{help}");
            assert!(path.is_empty() || help.contains("Examples:"), "{help}");
            assert!(!help.contains("complete "), "{help}");
            assert!(path.starts_with(" internal") || !help.contains("internal "), "{help}");
        });
    }

    #[test]
    fn every_list_and_show_has_json() {
        each_verb("", &Banger::get_args_info(), &mut |path, node| {
            if path.ends_with(" list") || path.ends_with(" show") || path == " ps" {
                assert!(node.flags.iter().any(|f| f.long == "--json"), "`banger{path}` has no --json");
            }
        });
    }
}
