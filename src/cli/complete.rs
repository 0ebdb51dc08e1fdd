//! Completion: `banger completion SHELL` prints a script that asks `banger complete -- WORDS` what can come next.
//!
//! Verbs and options come from the tree itself; names of VMs, images and kernels from the daemon, when it runs: it is never
//! started for this. Where a path is due, and nowhere else, the shell completes files.

use std::collections::BTreeMap;

use argh::{ArgsInfo, CommandInfoWithArgs, FlagInfoKind, FromArgs};

use crate::cli::client::Client;
use crate::cli::error::Error;
use crate::cli::render;
use crate::cli::tree::{Banger, HIDDEN};
use crate::cli::words::is_help;
use crate::proto::api::{ImageCatalog, ImageList, KernelCatalog, KernelList, VmList};

#[derive(FromArgs, ArgsInfo, Debug)]
/// Print a completion script for a shell, with live names of VMs, images and kernels.
#[argh(
    subcommand,
    name = "completion",
    help_triggers("-h", "--help", "help"),
    example = "banger completion bash > /etc/bash_completion.d/banger\n\
               banger completion zsh > /usr/local/share/zsh/site-functions/_banger\n\
               banger completion fish > ~/.config/fish/completions/banger.fish"
)]
pub struct Completion {
    /// bash, zsh or fish
    #[argh(positional, from_str_fn(shell))]
    shell: Shell,
}

#[derive(FromArgs, ArgsInfo, Debug)]
/// Answer a completion script; what follows -- are the words after `banger`, the last one as far as it is typed.
#[argh(subcommand, name = "complete", help_triggers("-h", "--help", "help"))]
pub struct Complete {}

#[derive(Debug, Clone, Copy)]
enum Shell {
    Bash,
    Zsh,
    Fish,
}

fn shell(text: &str) -> Result<Shell, String> {
    match text {
        "bash" => Ok(Shell::Bash),
        "zsh" => Ok(Shell::Zsh),
        "fish" => Ok(Shell::Fish),
        _ => Err(format!("there is no completion for {text:?}; choose bash, zsh or fish")),
    }
}

/// The scripts, as they are printed, and as an installation has them.
pub const BASH: &str = include_str!("complete/banger.bash");
pub const ZSH: &str = include_str!("complete/banger.zsh");
pub const FISH: &str = include_str!("complete/banger.fish");

impl Completion {
    pub fn run(&self) -> Result<(), Error> {
        render::out(match self.shell {
            Shell::Bash => BASH,
            Shell::Zsh => ZSH,
            Shell::Fish => FISH,
        })
    }
}

impl Complete {
    /// Prints one candidate per line, a tab and its description behind it; `:files` where the shell is to add files.
    pub fn run(&self, words: &[String]) -> Result<(), Error> {
        let (due, typed) = due(&Banger::get_args_info(), words);
        let mut text = String::new();
        for candidate in candidates(due) {
            if candidate.word.starts_with(&typed) || candidate.word == FILES {
                let word = render::escape(&candidate.word).into_owned();
                let about = render::escape(&candidate.about).into_owned();
                text.push_str(&format!("{word}\t{about}\n"));
            }
        }
        render::out(&text)
    }
}

const FILES: &str = ":files";

/// What can come next.
#[derive(Debug, PartialEq, Eq)]
enum Due {
    /// These words.
    Words(Vec<Candidate>),
    Vms,
    Images,
    Kernels,
    /// What catalogs offer, as far as it is known here.
    ImageOffers,
    KernelOffers,
    Files,
    /// One side of `vm cp`.
    VmsOrFiles,
    Nothing,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Candidate {
    word: String,
    about: String,
}

impl Candidate {
    fn new(word: impl Into<String>, about: &str) -> Self {
        // The first sentence is enough beside a word.
        let about = about.trim().split(['.', ';']).next().unwrap_or_default();
        Self { word: word.into(), about: about.to_owned() }
    }
}

/// What is due at the last of `words`, and as much of it as is typed.
fn due(tree: &CommandInfoWithArgs, words: &[String]) -> (Due, String) {
    let Some((typed, before)) = words.split_last() else {
        return (verbs(tree), String::new());
    };
    if before.iter().any(|w| w == "--") {
        // A command in the guest: nothing is known of it here.
        return (Due::Nothing, typed.clone());
    }
    let (before, asks) = match before.split_first() {
        Some((first, rest)) if is_help(first) => (rest, true),
        _ => (before, false),
    };
    let mut node = tree;
    let mut path = vec![];
    let mut rest = before.iter();
    while !node.commands.is_empty() {
        let Some(word) = rest.next() else {
            let mut due = verbs(node);
            if let (Due::Words(words), true) = (&mut due, asks && path.is_empty()) {
                words.push(Candidate::new("examples", "ten things that people do"));
            }
            return (due, typed.clone());
        };
        match node.commands.iter().find(|c| c.name == word) {
            Some(sub) => {
                node = &sub.command;
                path.push(sub.name);
            }
            None => return (Due::Nothing, typed.clone()),
        }
    }
    let mut positional = 0;
    let mut value_of = None;
    for word in rest {
        value_of = match value_of {
            Some(_) => None,
            None if word.starts_with('-') && word.len() > 1 => option_wanting_value(node, word),
            None => {
                positional += 1;
                None
            }
        };
    }
    let verb = path.join(" ");
    if let Some(flag) = value_of {
        return (value(flag), typed.clone());
    }
    if let Some((flag, part)) = typed.split_once('=').filter(|(flag, _)| flag.starts_with("--")) {
        // The shell sees one word, so that the candidates have to begin as it does.
        let due = match value(flag) {
            Due::Words(words) => Due::Words(
                words.into_iter().map(|c| Candidate { word: format!("{flag}={}", c.word), ..c }).collect(),
            ),
            other => return (other, part.to_owned()),
        };
        return (due, typed.clone());
    }
    if typed.starts_with('-') {
        let flags = node.flags.iter().filter(|f| !f.hidden).map(|f| Candidate::new(f.long, f.description));
        return (Due::Words(flags.collect()), typed.clone());
    }
    (argument(&verb, positional), typed.clone())
}

fn verbs(node: &CommandInfoWithArgs) -> Due {
    let visible = node.commands.iter().filter(|c| !HIDDEN.contains(&c.name));
    Due::Words(visible.map(|c| Candidate::new(c.name, c.command.description)).collect())
}

/// The long name of the option that `word` is, if its value is the next word.
fn option_wanting_value(node: &CommandInfoWithArgs, word: &str) -> Option<&'static str> {
    let flag = match word.strip_prefix("--") {
        Some(_) => node.flags.iter().find(|f| f.long == word),
        // In a cluster such as -it only the last can want the next word.
        None => word.chars().next_back().and_then(|c| node.flags.iter().find(|f| f.short == Some(c))),
    };
    flag.filter(|f| matches!(f.kind, FlagInfoKind::Option { .. })).map(|f| f.long)
}

/// What can be the value of an option.
fn value(flag: &str) -> Due {
    let words = |words: &[&str]| Due::Words(words.iter().map(|w| Candidate::new(*w, "")).collect());
    match flag {
        "--image" => Due::Images,
        "--kernel" => Due::Kernels,
        "--vmm" => words(&["auto", "firecracker", "qemu"]),
        "--accel" => words(&["auto", "kvm", "tcg"]),
        // `vm set`; elsewhere they are switches, which have no value.
        "--nat" | "--lan" => words(&["on", "off"]),
        "--deb" | "--from" | "--with-firecracker" | "--output" => Due::Files,
        _ => Due::Nothing,
    }
}

/// What can be argument number `n` of a verb.
fn argument(verb: &str, n: usize) -> Due {
    match (verb, n) {
        (
            "vm start" | "vm stop" | "vm kill" | "vm restart" | "vm delete" | "vm set" | "vm ports"
            | "vm stats",
            _,
        ) => Due::Vms,
        ("vm exec" | "vm shell" | "vm ssh" | "vm show" | "vm logs" | "vm ping" | "vm health", 0) => Due::Vms,
        ("vm workspace prepare" | "vm workspace status" | "vm workspace diff" | "vm workspace export", 0) => {
            Due::Vms
        }
        ("vm run", 0) | ("vm workspace prepare", 1) => Due::Files,
        ("vm cp", 0 | 1) => Due::VmsOrFiles,
        ("image show" | "image delete" | "image tag" | "image promote", 0) => Due::Images,
        ("image pull", 0) => Due::ImageOffers,
        ("image import" | "image register" | "bundle create" | "bundle install" | "config check", 0) => {
            Due::Files
        }
        ("kernel pull", 0) => Due::KernelOffers,
        ("kernel show" | "kernel rm" | "kernel default", 0) => Due::Kernels,
        ("completion", 0) => {
            Due::Words(["bash", "zsh", "fish"].iter().map(|w| Candidate::new(*w, "")).collect())
        }
        _ => Due::Nothing,
    }
}

fn candidates(due: Due) -> Vec<Candidate> {
    match due {
        Due::Words(words) => words,
        Due::Vms => vms(""),
        Due::VmsOrFiles => [vms(":"), vec![Candidate::new(FILES, "")]].concat(),
        Due::Files => vec![Candidate::new(FILES, "")],
        Due::Images => live(ImageList {}, |image| {
            let about = render::bytes(image.disk_bytes);
            image.record.names.iter().map(|name| Candidate::new(name, &about)).collect()
        }),
        Due::Kernels => {
            live(KernelList {}, |kernel| vec![Candidate::new(&kernel.record.name, &kernel.record.version)])
        }
        Due::ImageOffers => live(ImageCatalog { offline: true, environment: BTreeMap::new() }, |offer| {
            vec![Candidate::new(&offer.name, &offer.description)]
        }),
        Due::KernelOffers => live(KernelCatalog { offline: true, environment: BTreeMap::new() }, |offer| {
            vec![Candidate::new(&offer.name, &offer.description)]
        }),
        Due::Nothing => vec![],
    }
}

fn vms(suffix: &str) -> Vec<Candidate> {
    live(VmList {}, |vm| {
        let about = format!("{} from {}", vm.record.state.label(), vm.record.image_name);
        vec![Candidate { word: format!("{}{suffix}", vm.record.name), about }]
    })
}

/// What a daemon that runs answers; nothing if none does, or if it fails: a prompt is no place for errors.
fn live<C, T>(request: C, each: impl Fn(&T) -> Vec<Candidate>) -> Vec<Candidate>
where
    C: crate::proto::api::Call<Answer = Vec<T>>,
{
    let answer = Client::from_env().and_then(|client| client.ask_running(request));
    answer.unwrap_or_default().iter().flat_map(each).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn due_at(line: &str) -> (Due, String) {
        let words: Vec<String> = line.split(' ').map(str::to_owned).collect();
        due(&Banger::get_args_info(), &words)
    }

    fn words_at(line: &str) -> Vec<String> {
        match due_at(line) {
            (Due::Words(words), typed) => {
                words.into_iter().map(|c| c.word).filter(|w| w.starts_with(&typed)).collect()
            }
            other => panic!("{line}: {other:?}"),
        }
    }

    #[test]
    fn verbs_and_options_come_from_the_tree() {
        assert_eq!(words_at("vm s"), ["start", "stop", "set", "shell", "ssh", "show", "stats"]);
        assert_eq!(words_at("k"), ["kernel"]);
        assert_eq!(words_at("help ex"), ["examples"]);
        assert_eq!(words_at("help vm se"), ["set"]);
        for hidden in HIDDEN {
            assert!(!words_at("").contains(&hidden.to_owned()));
        }
        assert_eq!(words_at("vm run --me"), ["--memory"]);
        assert_eq!(
            words_at("vm exec -"),
            ["--help", "--interactive", "--tty", "--env", "--workdir", "--user", "--auto-prepare"]
        );
        assert!(!words_at("vm run -").contains(&"--interactive".to_owned()), "a hidden one");
        assert_eq!(words_at("completion "), ["bash", "zsh", "fish"]);
    }

    #[test]
    fn each_place_has_its_own_kind_of_names() {
        let table = [
            ("vm exec ", Due::Vms),
            ("vm set a ", Due::Vms),
            ("vm ports ", Due::Vms),
            ("vm stats a ", Due::Vms),
            ("vm ping ", Due::Vms),
            ("vm health ", Due::Vms),
            ("vm set --publish ", Due::Nothing),
            ("vm run --nat ", Due::Files),
            ("vm exec dev ", Due::Nothing),
            ("vm ssh -A ", Due::Vms),
            ("vm ssh dev -- ", Due::Nothing),
            ("help vm run --image ", Due::Images),
            ("vm exec -e A=1 ", Due::Vms),
            ("vm exec -it ", Due::Vms),
            ("vm stop a b ", Due::Vms),
            ("vm run --image ", Due::Images),
            ("vm run --image d", Due::Images),
            ("vm run --image debian --kernel ", Due::Kernels),
            ("vm run --name ", Due::Nothing),
            ("vm run ", Due::Files),
            ("vm run . ", Due::Nothing),
            ("vm workspace prepare ", Due::Vms),
            ("vm workspace prepare --depth 3 dev ", Due::Files),
            ("vm workspace prepare dev . ", Due::Nothing),
            ("vm workspace status ", Due::Vms),
            ("vm workspace diff ", Due::Vms),
            ("vm workspace export --as-branch b ", Due::Vms),
            ("vm workspace export dev --output ", Due::Files),
            ("vm workspace export dev ", Due::Nothing),
            ("vm run -- ", Due::Nothing),
            ("vm exec dev -- ls ", Due::Nothing),
            ("vm cp ", Due::VmsOrFiles),
            ("vm cp a b ", Due::Nothing),
            ("image import ", Due::Files),
            ("image register ", Due::Files),
            ("image register f --kernel ", Due::Kernels),
            ("image promote ", Due::Images),
            ("image pull ", Due::ImageOffers),
            ("image pull x --name ", Due::Nothing),
            ("kernel pull --force ", Due::KernelOffers),
            ("image tag x ", Due::Nothing),
            ("kernel import --deb ", Due::Files),
            ("bundle create ", Due::Files),
            ("bundle create f ", Due::Nothing),
            ("bundle create f --image a --image ", Due::Images),
            ("bundle create f --kernel ", Due::Kernels),
            ("bundle create f --with-firecracker ", Due::Files),
            ("bundle install ", Due::Files),
            ("kernel rm ", Due::Kernels),
            ("nonsense ", Due::Nothing),
        ];
        for (line, want) in table {
            assert_eq!(due_at(line).0, want, "{line}");
        }
        assert_eq!(words_at("vm run --vmm q"), ["qemu"]);
        assert_eq!(words_at("vm run --vmm=q"), ["--vmm=qemu"]);
        assert_eq!(words_at("vm set dev --nat "), ["on", "off"]);
    }
}
