//! Manual pages from the tree of commands: `banger(1)`, and one for each command, such as `banger-vm(1)`, with its verbs.
//!
//! In the macros of man(7), which groff and mandoc both know. Text is made harmless for them: `\` and `-` mean something everywhere,
//! `.` and `'` at the beginning of a line.

use std::fs;
use std::path::PathBuf;

use argh::{ArgsInfo, CommandInfoWithArgs, FlagInfoKind, FromArgs};

use super::{EXAMPLES, FIRST, groups, sentence, visible};
use crate::build;
use crate::cli::error::Error;
use crate::cli::render;
use crate::cli::tree::{Banger, Meaning, read};
use crate::cli::words::Words;
use crate::host::files::write_atomic;

#[derive(FromArgs, ArgsInfo, Debug)]
/// Write the manual pages, banger.1 and one for each command, and print their paths.
#[argh(
    subcommand,
    name = "man",
    help_triggers("-h", "--help", "help"),
    example = "banger internal man --out ~/.local/share/man/man1"
)]
pub struct Man {
    /// a directory for them; made if missing
    #[argh(option, arg_name = "dir")]
    out: PathBuf,
}

impl Man {
    pub fn run(&self) -> Result<(), Error> {
        let failed = |what: String| move |source| Error::Host { what, source };
        fs::create_dir_all(&self.out).map_err(failed(format!("create {}", self.out.display())))?;
        for (name, page) in pages(&Banger::get_args_info(), build::VERSION) {
            let path = self.out.join(format!("{name}.1"));
            write_atomic(&path, page.as_bytes(), 0o644)
                .map_err(failed(format!("write {}", path.display())))?;
            render::out_line(&path.display().to_string())?;
        }
        Ok(())
    }
}

/// Names and texts, of a banger of this version.
pub fn pages(tree: &CommandInfoWithArgs, version: &str) -> Vec<(String, String)> {
    let mut pages = vec![("banger".to_owned(), first(tree, version))];
    for (name, node) in visible(tree) {
        pages.push((format!("banger-{name}"), of_command(name, node, version)));
    }
    pages
}

fn first(tree: &CommandInfoWithArgs, version: &str) -> String {
    let mut page = head("banger", tree.description, version);
    page.push_str(".SH SYNOPSIS\n.B banger\n<command> [<options>] [<arguments>]\n.SH DESCRIPTION\n");
    // Usage and what to begin with have sections of their own.
    let about: Vec<&str> = FIRST.lines().skip(2).take_while(|line| !line.is_empty()).collect();
    page.push_str(&format!("{}\n", escaped(&about.join(" "))));
    for (title, commands) in groups(tree) {
        page.push_str(&format!(".SS {}\n", escaped(title)));
        for (name, node) in commands {
            page.push_str(&format!(".TP\n.BR banger\\-{} (1)\n", escaped(name)));
            page.push_str(&format!("{}\n", escaped(sentence(node.description))));
        }
    }
    page.push_str(".SH EXIT STATUS\n");
    page.push_str("That of the command, where one was run in a guest; 0, or 1 for any error.\n");
    page.push_str(".SH FILES\n");
    for (path, what) in [
        ("~/.config/banger/config.toml", "What can be configured; see `banger config keys`."),
        ("/etc/banger/config.toml", "The same, of an installation; the owner's counts over it."),
        ("/var/lib/banger", "Images, kernels and machines of an installation."),
        ("~/.local/share/banger", "The same where nothing is installed; and ssh's key and known hosts."),
    ] {
        page.push_str(&format!(".TP\n.I {}\n{}\n", escaped(path), escaped(what)));
    }
    page.push_str(".SH EXAMPLES\n");
    verbatim(&mut page, EXAMPLES);
    page.push_str(".SH SEE ALSO\n");
    let all: Vec<String> =
        visible(tree).map(|(name, _)| format!(".BR banger\\-{} (1)", escaped(name))).collect();
    page.push_str(&format!("{}\n", all.join(",\n")));
    page
}

fn of_command(name: &str, node: &CommandInfoWithArgs, version: &str) -> String {
    let mut page = head(&format!("banger-{name}"), node.description, version);
    page.push_str(".SH SYNOPSIS\n");
    let verbs: Vec<_> = visible(node).collect();
    match verbs.is_empty() {
        true => usage(&mut page, &[name]),
        false => {
            for (verb, _) in &verbs {
                usage(&mut page, &[name, verb]);
            }
        }
    }
    page.push_str(".SH DESCRIPTION\n");
    body(&mut page, node);
    for (verb, node) in verbs {
        page.push_str(&format!(".SH {} {}\n", escaped(name), escaped(verb)).to_uppercase());
        body(&mut page, node);
    }
    page.push_str(".SH SEE ALSO\n.BR banger (1)\n");
    page
}

fn head(name: &str, about: &str, version: &str) -> String {
    // The version is all that says when: a page of the same banger is the same page.
    let title = escaped(&name.to_uppercase());
    let about = escaped(sentence(about));
    format!(
        ".TH {title} 1 \"\" \"banger {}\" \"banger\"\n.SH NAME\n{} \\- {about}\n",
        escaped(version.trim_start_matches('v')),
        escaped(name)
    )
}

/// What a command says of itself behind `Usage:`.
fn usage(page: &mut String, path: &[&str]) {
    let words = Words { ordered: path.iter().map(|w| (*w).to_owned()).collect(), command: None, help: true };
    let Ok(Meaning::Help(help)) = read(&words) else { return };
    let usage = help.strip_prefix("Usage: ").and_then(|rest| rest.lines().next()).unwrap_or_default();
    page.push_str(&format!("{}\n.br\n", escaped(usage)));
}

fn body(page: &mut String, node: &CommandInfoWithArgs) {
    page.push_str(&format!("{}\n", escaped(node.description)));
    let item = |page: &mut String, name: String, about: &str| {
        page.push_str(&format!(".TP\n.B {name}\n{}\n", escaped(about)));
    };
    for argument in node.positionals.iter().filter(|p| !p.hidden) {
        item(page, escaped(&format!("<{}>", argument.name)), argument.description);
    }
    for flag in node.flags.iter().filter(|f| !f.hidden && f.long != "--help") {
        let short = flag.short.map(|c| format!("-{c}, ")).unwrap_or_default();
        let value = match flag.kind {
            FlagInfoKind::Switch => String::new(),
            FlagInfoKind::Option { arg_name } => format!(" <{arg_name}>"),
        };
        item(page, escaped(&format!("{short}{}{value}", flag.long)), flag.description);
    }
    for note in node.notes {
        page.push_str(&format!(".PP\n{}\n", escaped(note)));
    }
    for example in node.examples {
        page.push_str(".PP\n");
        verbatim(page, example);
    }
}

/// Lines as they are.
fn verbatim(page: &mut String, text: &str) {
    page.push_str(".RS 2\n.nf\n");
    for line in text.lines() {
        // An empty line of source is one to troff, but a mistake to mandoc.
        page.push_str(&if line.is_empty() { ".sp\n".to_owned() } else { format!("{}\n", escaped(line)) });
    }
    page.push_str(".fi\n.RE\n");
}

/// Text for troff, which may be of several lines.
fn escaped(text: &str) -> String {
    let lines = text.trim_end().lines().map(|line| {
        let mut out = String::with_capacity(line.len() + 8);
        for c in line.trim_end().chars() {
            match c {
                '\\' => out.push_str("\\e"),
                '-' => out.push_str("\\-"),
                // Typographic in a page, and not what a shell reads.
                '\'' => out.push_str("\\(aq"),
                '`' => out.push_str("\\(ga"),
                '^' => out.push_str("\\(ha"),
                '~' => out.push_str("\\(ti"),
                c if c.is_ascii() => out.push(c),
                c => out.push_str(&format!("\\[u{:04X}]", u32::from(c))),
            }
        }
        if out.starts_with('.') { format!("\\&{out}") } else { out }
    });
    lines.collect::<Vec<_>>().join("\n.br\n")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::cmd;
    use crate::system::files::PAGE_MARK;

    #[test]
    fn text_means_nothing_to_troff() {
        let table = [
            (r"a\b", r"a\eb"),
            (".TH", r"\&.TH"),
            ("'x'", r"\(aqx\(aq"),
            ("--a", r"\-\-a"),
            ("a\n.b\n", "a\n.br\n\\&.b"),
            ("é", "\\[u00E9]"),
        ];
        for (text, want) in table {
            assert_eq!(escaped(text), want);
        }
    }

    #[test]
    fn groff_has_nothing_to_say_about_any_page_and_shows_what_was_meant() {
        let tree = Banger::get_args_info();
        let pages = pages(&tree, "v1.2.3");
        let show = |page: &str| {
            let script = "groff -ww -man -Tutf8 -P-cbou -rLL=100n - 2>&1";
            let out = cmd::run_reading("sh", ["-c", script], page.as_bytes()).expect("groff runs");
            String::from_utf8(out).expect("UTF-8")
        };
        for (name, page) in &pages {
            let shown = show(page);
            assert!(!shown.contains("troff: "), "{name}: {shown}");
            assert!(!page.to_lowercase().contains("internal"), "{name}");
            assert!(page.starts_with(PAGE_MARK), "{name}");
        }
        let vm = &pages.iter().find(|(name, _)| name == "banger-vm").expect("a page").1;
        let shown = show(vm);
        for what in [
            "banger-vm - ",
            "VM RUN",
            "-p, --publish <ports>",
            "banger vm run --image python:3.12 -- python -c 'print(1)'",
        ] {
            assert!(shown.contains(what), "{what}\n{shown}");
        }
        let names: Vec<&str> = pages.iter().map(|(name, _)| name.as_str()).collect();
        assert!(
            names.contains(&"banger")
                && names.contains(&"banger-ssh-config")
                && !names.contains(&"banger-internal")
        );
    }
}
