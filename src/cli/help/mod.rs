//! `banger --help`, a page to begin with; `banger help examples`; and both, with all the rest, as manual pages ([`man`]).
//!
//! What a command is for is said once, beside the command; here is only which of them belong together.

pub mod man;

use argh::CommandInfoWithArgs;

use crate::cli::tree::HIDDEN;

/// `banger help examples`.
pub const EXAMPLES: &str = include_str!("examples.txt");

/// Commands by what they are about. One that is in none of these belongs to the last.
const GROUPS: [(&str, &[&str]); 3] = [
    ("Virtual machines", &["vm", "ps", "top", "events", "ssh-config"]),
    ("What they are made of", &["image", "kernel", "bundle"]),
    ("banger itself", &["doctor", "config", "system", "update", "daemon", "version", "completion"]),
];

const WIDTH: usize = 80;
const INDENT: usize = 14;

const FIRST: &str = "\
Usage: banger <command> [<options>] [<arguments>]

A disposable, real virtual machine in one command. It is made from any container
image, which needs neither an init nor sshd, and has a kernel of its own.

Begin with:
  banger doctor                    what this host has of what is needed
  banger vm run                    a clean shell; leave it with exit or Ctrl-D
  banger vm run --rm -- uname -a   one command, and nothing left of it
  banger vm list                   the machines that there are
  banger vm delete NAME            end one, and remove its disk
";

const LAST: &str = "
More:
  banger help examples             ten things that people do, to be copied
  banger help <command>            options and examples: banger help vm run
  banger config keys               what can be configured, and where

A machine, an image or a kernel is named by its name, its id, or the beginning
of its id. What follows -- is a command for the guest, and its exit status is
banger's; any error of banger's own is 1.
";

/// The page.
pub fn page(tree: &CommandInfoWithArgs) -> String {
    let mut text = FIRST.to_owned();
    for (title, commands) in groups(tree) {
        text.push_str(&format!("\n{title}:\n"));
        for command in commands {
            let name = format!("  {:<width$}", command.0, width = INDENT - 2);
            fill(&mut text, &name, sentence(command.1.description));
            let verbs: Vec<&str> = visible(command.1).map(|(name, _)| name).collect();
            if !verbs.is_empty() {
                fill(&mut text, &" ".repeat(INDENT), &verbs.join(", "));
            }
        }
    }
    text + LAST
}

type Command<'a> = (&'a str, &'a CommandInfoWithArgs);

fn visible<'a>(node: &'a CommandInfoWithArgs) -> impl Iterator<Item = Command<'a>> {
    node.commands.iter().filter(|c| !HIDDEN.contains(&c.name)).map(|c| (c.name, &c.command))
}

/// Each command that people use, in its group.
fn groups<'a>(tree: &'a CommandInfoWithArgs) -> Vec<(&'static str, Vec<Command<'a>>)> {
    let group_of =
        |name: &str| GROUPS.iter().position(|(_, names)| names.contains(&name)).unwrap_or(GROUPS.len() - 1);
    let place = |name: &str| GROUPS[group_of(name)].1.iter().position(|n| *n == name);
    let mut groups = vec![];
    for (number, (title, _)) in GROUPS.iter().enumerate() {
        let mut commands: Vec<Command<'a>> =
            visible(tree).filter(|(name, _)| group_of(name) == number).collect();
        commands.sort_by_key(|(name, _)| place(name).unwrap_or(usize::MAX));
        groups.push((*title, commands));
    }
    groups
}

/// The first sentence; it is enough in a list.
fn sentence(text: &str) -> &str {
    text.split_once(". ").map_or(text, |(first, _)| first).trim_end_matches('.')
}

/// Adds words behind `first`, in lines of [`WIDTH`].
fn fill(text: &mut String, first: &str, words: &str) {
    let mut line = first.to_owned();
    for word in words.split_whitespace() {
        if line.len() > INDENT && line.len() + 1 + word.chars().count() > WIDTH {
            text.push_str(line.trim_end());
            text.push('\n');
            line = " ".repeat(INDENT);
        }
        if line.len() > INDENT {
            line.push(' ');
        }
        line.push_str(word);
    }
    text.push_str(&line);
    text.push('\n');
}

#[cfg(test)]
mod tests {
    use argh::ArgsInfo;

    use super::*;
    use crate::cli::tree::{Banger, Meaning, read};
    use crate::cli::words::order;

    /// The words behind `banger` in a line of a page, without the remark behind two spaces.
    fn words(line: &str) -> Option<Vec<String>> {
        let line = line.trim().split("  ").next()?;
        let command =
            line.split(" | ").find_map(|part| part.trim_start_matches("sudo ").strip_prefix("banger "))?;
        Some(command.split_whitespace().map(str::to_owned).collect())
    }

    #[test]
    fn every_command_on_the_pages_is_one() {
        let tree = Banger::get_args_info();
        let page = page(&tree);
        let mut seen = 0;
        for line in page.lines().chain(EXAMPLES.lines()).filter(|line| line.starts_with("  ")) {
            let Some(words) = words(line) else { continue };
            if words[0] == "help" {
                continue;
            }
            seen += 1;
            let ordered = order(&tree, &words).unwrap_or_else(|e| panic!("{line}: {e}"));
            assert!(matches!(read(&ordered), Ok(Meaning::Do(_))), "{line}");
        }
        assert!(seen > 25, "{seen}");
    }

    #[test]
    fn the_pages_fit_a_terminal_and_name_every_command_that_people_use() {
        let tree = Banger::get_args_info();
        let page = page(&tree);
        for line in page.lines().chain(EXAMPLES.lines()) {
            assert!(line.chars().count() <= WIDTH, "{line}");
        }
        for command in &tree.commands {
            let shown = page.lines().any(|line| line.starts_with(&format!("  {} ", command.name)));
            assert_eq!(shown, !HIDDEN.contains(&command.name), "{}", command.name);
        }
        assert_eq!(EXAMPLES.lines().filter(|l| l.starts_with(|c: char| c.is_ascii_digit())).count(), 10);
    }

    #[test]
    fn words_are_filled_into_lines() {
        let mut text = String::new();
        fill(&mut text, "  vm          ", &"word ".repeat(30));
        let lines: Vec<&str> = text.lines().collect();
        assert!(lines.len() == 3 && lines[0].starts_with("  vm          word word"), "{text}");
        assert!(lines[1..].iter().all(|line| line.starts_with("              word")), "{text}");
        assert_eq!(sentence("One. Two."), "One");
        assert_eq!(sentence("Dots in v1.2 stay."), "Dots in v1.2 stay");
    }
}
