//! The words of a command line, put in order before argh reads them.
//!
//! argh gives types and help; this gives what people are used to beyond that: `--memory=2G`, `-it`, a `-` as an argument, a
//! command after `--` that is nobody's business, and one sentence with a suggestion when a word is wrong. It walks the same
//! description of the tree that help and completion come from, so that there is only one.

use std::fmt;

use argh::{CommandInfoWithArgs, FlagInfo, FlagInfoKind, Optionality, PositionalInfo};

use crate::cli::tree::HIDDEN;
use crate::vm::lookup::nearest;

/// A command line, understood as far as the tree of commands goes.
#[derive(Debug, PartialEq, Eq)]
pub struct Words {
    /// For argh: the verb's path, each flag by its long name, its value as a word of its own, `--`, the arguments.
    pub ordered: Vec<String>,
    /// What followed the first `--`, for a verb that takes a command; None without a `--`.
    pub command: Option<Vec<String>>,
    /// Help was asked for, or a group was named without a verb.
    pub help: bool,
}

/// What is wrong with the words. `verb` is the whole path, such as `banger vm run`.
#[derive(Debug, PartialEq, Eq)]
pub enum Usage {
    NoSuchVerb {
        group: String,
        typed: String,
        near: Option<String>,
    },
    NoSuchFlag {
        verb: String,
        typed: String,
        near: Option<String>,
    },
    NoValue {
        verb: String,
        flag: String,
    },
    ValueForSwitch {
        verb: String,
        flag: String,
    },
    TooMany {
        verb: String,
        word: String,
        takes_command: bool,
    },
    Missing {
        verb: String,
        argument: String,
    },
    /// A value that does not parse; `why` is a whole clause.
    Value {
        what: String,
        why: String,
    },
    NotUtf8 {
        shown: String,
    },
}

/// Whether the verb at the end of `path` takes a command after `--`.
fn takes_command(path: &[&str]) -> bool {
    matches!(path.last(), Some(&("run" | "exec" | "ssh" | "complete")))
}

pub fn is_help(word: &str) -> bool {
    matches!(word, "-h" | "--help" | "help")
}

/// Puts `args` (without the program's name) in order along `tree`.
///
/// # Errors
/// [`Usage`], the first thing that is wrong from the left.
pub fn order(tree: &CommandInfoWithArgs, args: &[String]) -> Result<Words, Usage> {
    let split = args.iter().position(|a| a == "--");
    let (before, after) = match split {
        Some(at) => (&args[..at], Some(&args[at + 1..])),
        None => (args, None),
    };
    let mut node = tree;
    let mut path = vec!["banger"];
    let mut help = false;
    let mut words = before.iter().map(String::as_str);
    while !node.commands.is_empty() {
        let Some(word) = words.next() else {
            return Ok(Words { ordered: owned(&path[1..]), command: None, help: true });
        };
        if is_help(word) {
            help = true;
            continue;
        }
        if word.starts_with('-') {
            return Err(Usage::NoSuchFlag { verb: path.join(" "), typed: word.to_owned(), near: None });
        }
        let Some(sub) = node.commands.iter().find(|c| c.name == word) else {
            let visible = node.commands.iter().map(|c| c.name).filter(|name| !HIDDEN.contains(name));
            return Err(Usage::NoSuchVerb {
                group: path.join(" "),
                typed: word.to_owned(),
                near: nearest(word, visible).map(|near| format!("{} {near}", path.join(" "))),
            });
        };
        node = &sub.command;
        path.push(sub.name);
    }
    let rest: Vec<&str> = words.collect();
    if help || rest.first().is_some_and(|w| *w == "help") {
        return Ok(Words { ordered: owned(&path[1..]), command: None, help: true });
    }
    leaf(node, &path, &rest, after)
}

fn owned(words: &[&str]) -> Vec<String> {
    words.iter().map(|w| (*w).to_owned()).collect()
}

/// The flags and arguments of one verb.
fn leaf(
    node: &CommandInfoWithArgs,
    path: &[&str],
    words: &[&str],
    after: Option<&[String]>,
) -> Result<Words, Usage> {
    let verb = path.join(" ");
    let mut flags = vec![];
    let mut arguments: Vec<String> = vec![];
    let mut words = words.iter().copied();
    while let Some(word) = words.next() {
        if is_help(word) && word != "help" {
            return Ok(Words { ordered: owned(&path[1..]), command: None, help: true });
        }
        if let Some(long) = word.strip_prefix("--") {
            let (name, value) = match long.split_once('=') {
                Some((name, value)) => (name, Some(value)),
                None => (long, None),
            };
            let typed = format!("--{name}");
            let Some(flag) = node.flags.iter().find(|f| f.long == typed) else {
                let near = nearest(&typed, node.flags.iter().filter(|f| !f.hidden).map(|f| f.long));
                return Err(Usage::NoSuchFlag { verb, typed, near });
            };
            push_flag(&mut flags, flag, value, &mut words, &verb)?;
        } else if word.len() > 1 && word.starts_with('-') {
            let cluster = word[1..].char_indices();
            for (at, short) in cluster {
                let Some(flag) = node.flags.iter().find(|f| f.short == Some(short)) else {
                    return Err(Usage::NoSuchFlag { verb, typed: format!("-{short}"), near: None });
                };
                let tail = &word[1 + at + short.len_utf8()..];
                let is_option = matches!(flag.kind, FlagInfoKind::Option { .. });
                // `-eK=V` and `-e K=V` are the same; the rest of the word is the value.
                let value = (is_option && !tail.is_empty()).then(|| tail.strip_prefix('=').unwrap_or(tail));
                push_flag(&mut flags, flag, value, &mut words, &verb)?;
                if is_option {
                    break;
                }
            }
        } else {
            arguments.push(word.to_owned());
        }
    }
    let takes_command = takes_command(path);
    let command = takes_command.then(|| after.map(<[String]>::to_vec)).flatten();
    if !takes_command {
        arguments.extend(after.unwrap_or_default().iter().cloned());
    }
    count(node, verb, &arguments, takes_command)?;
    let mut ordered = owned(&path[1..]);
    ordered.extend(flags);
    ordered.push("--".to_owned());
    ordered.extend(arguments);
    Ok(Words { ordered, command, help: false })
}

fn push_flag<'a>(
    flags: &mut Vec<String>,
    flag: &FlagInfo<'_>,
    value: Option<&str>,
    words: &mut impl Iterator<Item = &'a str>,
    verb: &str,
) -> Result<(), Usage> {
    let here = || (verb.to_owned(), flag.long.to_owned());
    flags.push(flag.long.to_owned());
    match (&flag.kind, value) {
        (FlagInfoKind::Switch, None) => {}
        (FlagInfoKind::Switch, Some(_)) => {
            let (verb, flag) = here();
            return Err(Usage::ValueForSwitch { verb, flag });
        }
        (FlagInfoKind::Option { .. }, Some(value)) => flags.push(value.to_owned()),
        (FlagInfoKind::Option { .. }, None) => match words.next() {
            Some(value) => flags.push(value.to_owned()),
            None => {
                let (verb, flag) = here();
                return Err(Usage::NoValue { verb, flag });
            }
        },
    }
    Ok(())
}

fn count(
    node: &CommandInfoWithArgs,
    verb: String,
    arguments: &[String],
    takes_command: bool,
) -> Result<(), Usage> {
    let repeats = node.positionals.last().is_some_and(|p| p.optionality == Optionality::Repeating);
    if let Some(word) = arguments.get(node.positionals.len()).filter(|_| !repeats) {
        return Err(Usage::TooMany { verb, word: word.clone(), takes_command });
    }
    // Verbs that repeat their argument want one at least, except where none means all.
    let all = matches!(verb.as_str(), "banger vm ports" | "banger vm stats");
    let wanted = |p: &&PositionalInfo<'_>| {
        p.optionality != Optionality::Optional && !(all && p.optionality == Optionality::Repeating)
    };
    let missing = node.positionals.get(arguments.len()).filter(wanted);
    match missing {
        Some(p) => Err(Usage::Missing { verb, argument: p.name.to_uppercase() }),
        None => Ok(()),
    }
}

/// Makes a sentence of argh's complaint about a value, the only one that is left after [`order`].
pub fn complaint(text: &str) -> Usage {
    let text = text.trim_end();
    let parts = text
        .strip_prefix("Error parsing ")
        .and_then(|rest| rest.split_once(" '"))
        .and_then(|(_, rest)| rest.split_once("' with value '"));
    match parts {
        Some((what, rest)) => {
            let why = rest.split_once("': ").map_or(rest, |(_, why)| why);
            let why = if why == "duplicate values provided" { "it is given twice" } else { why };
            Usage::Value { what: what.to_owned(), why: why.to_owned() }
        }
        None => Usage::Value { what: "banger".to_owned(), why: text.to_owned() },
    }
}

impl fmt::Display for Usage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoSuchVerb { group, typed, near: Some(near) } => {
                write!(f, "there is no command `{group} {typed}`; did you mean `{near}`?")
            }
            Self::NoSuchVerb { group, typed, near: None } => {
                write!(f, "there is no command `{group} {typed}`; `{group} --help` shows what there is")
            }
            Self::NoSuchFlag { verb, typed, near: Some(near) } => {
                write!(f, "`{verb}` has no option {typed}; did you mean {near}?")
            }
            Self::NoSuchFlag { verb, typed, near: None } => {
                write!(f, "`{verb}` has no option {typed}; `{verb} --help` shows what there is")
            }
            Self::NoValue { verb, flag } => {
                write!(f, "{flag} needs a value; `{verb} --help` shows which")
            }
            Self::ValueForSwitch { verb, flag } => {
                write!(f, "{flag} of `{verb}` takes no value; leave it out")
            }
            Self::TooMany { verb, word, takes_command: true } => {
                write!(f, "{word:?} is one word too many for `{verb}`; put -- before the command to run")
            }
            Self::TooMany { verb, word, takes_command: false } => {
                write!(f, "{word:?} is one word too many for `{verb}`; `{verb} --help` shows what it takes")
            }
            Self::Missing { verb, argument } => {
                write!(f, "`{verb}` needs {argument}; `{verb} --help` shows an example")
            }
            Self::Value { what, why } => write!(f, "{what}: {why}"),
            Self::NotUtf8 { shown } => {
                write!(f, "{shown} is not UTF-8; banger takes text only, so rename it or put it into a file")
            }
        }
    }
}

impl std::error::Error for Usage {}

#[cfg(test)]
mod tests {
    use argh::ArgsInfo;

    use super::*;
    use crate::cli::tree::Banger;

    fn read(line: &str) -> Result<Words, String> {
        let args: Vec<String> = line.split_whitespace().map(str::to_owned).collect();
        order(&Banger::get_args_info(), &args).map_err(|e| e.to_string())
    }

    #[test]
    fn flags_are_read_as_people_write_them() {
        let table = [
            ("vm run --memory=2G", "vm run --memory 2G --"),
            ("vm run --memory 2G -d", "vm run --memory 2G --detach --"),
            ("vm exec -it dev", "vm exec --interactive --tty -- dev"),
            ("vm exec -eA=1 -e B=2 dev", "vm exec --env A=1 --env B=2 -- dev"),
            ("vm exec -iw/tmp dev", "vm exec --interactive --workdir /tmp -- dev"),
            ("vm exec dev -u 1", "vm exec --user 1 -- dev"),
            ("vm cp - dev:/x", "vm cp -- - dev:/x"),
            ("vm start -- help", "vm start -- help"),
            ("vm start a help", "vm start -- a help"),
            ("vm ports", "vm ports --"),
            ("vm set dev -p 8080:80 --nat off", "vm set --publish 8080:80 --nat off -- dev"),
        ];
        for (line, want) in table {
            let words = read(line).expect(line);
            assert_eq!((words.ordered.join(" ").as_str(), words.help), (want, false), "{line}");
        }
    }

    #[test]
    fn what_follows_the_first_dashes_is_the_command_whatever_it_is() {
        for (line, want) in [
            ("vm run -- ls --help -- x", Some("ls --help -- x")),
            ("vm exec dev -- --memory", Some("--memory")),
            ("vm run --", Some("")),
            ("vm run", None),
        ] {
            let words = read(line).expect(line);
            assert_eq!(words.command.map(|c| c.join(" ")).as_deref(), want, "{line}");
        }
    }

    #[test]
    fn help_is_found_everywhere() {
        let table = [
            ("", ""),
            ("help", ""),
            ("--help", ""),
            ("vm", "vm"),
            ("vm -h", "vm"),
            ("help vm", "vm"),
            ("help vm run", "vm run"),
            ("vm help run", "vm run"),
            ("vm run help", "vm run"),
            ("vm run --memory 2G --help", "vm run"),
            ("vm show dev -h", "vm show"),
        ];
        for (line, want) in table {
            let words = read(line).expect(line);
            assert_eq!((words.ordered.join(" ").as_str(), words.help), (want, true), "{line}");
        }
    }

    #[test]
    fn a_wrong_word_gets_one_sentence() {
        let table = [
            ("vn", "there is no command `banger vn`; did you mean `banger vm`?"),
            ("vm lst", "there is no command `banger vm lst`; did you mean `banger vm list`?"),
            (
                "vm frobnicate",
                "there is no command `banger vm frobnicate`; `banger vm --help` shows what there is",
            ),
            ("vm run --memry 2G", "`banger vm run` has no option --memry; did you mean --memory?"),
            ("vm run -Z", "`banger vm run` has no option -Z; `banger vm run --help` shows what there is"),
            ("--frob", "`banger` has no option --frob; `banger --help` shows what there is"),
            ("vm run --name", "--name needs a value; `banger vm run --help` shows which"),
            ("vm run --name -- ls", "--name needs a value; `banger vm run --help` shows which"),
            ("vm run --rm=yes", "--rm of `banger vm run` takes no value; leave it out"),
            (
                "vm exec dev ls",
                r#""ls" is one word too many for `banger vm exec`; put -- before the command to run"#,
            ),
            (
                "vm list x",
                r#""x" is one word too many for `banger vm list`; `banger vm list --help` shows what it takes"#,
            ),
            ("vm show", "`banger vm show` needs VM; `banger vm show --help` shows an example"),
            ("vm start", "`banger vm start` needs VM; `banger vm start --help` shows an example"),
        ];
        for (line, want) in table {
            assert_eq!(read(line).map(|w| w.ordered), Err(want.to_owned()), "{line}");
        }
    }

    #[test]
    fn arghs_complaints_become_sentences() {
        let table = [
            (
                "Error parsing option '--memory' with value '7X': \"7X\" is no size; write it like 512M or 4G\n",
                "--memory: \"7X\" is no size; write it like 512M or 4G",
            ),
            (
                "Error parsing option '--name' with value 'b': duplicate values provided\n",
                "--name: it is given twice",
            ),
        ];
        for (text, want) in table {
            assert_eq!(complaint(text).to_string(), want);
        }
    }
}
