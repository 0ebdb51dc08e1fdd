//! `banger vm ssh`: ssh in this process's place, told how to reach the VM, whether or not its own configuration knows.

use argh::{ArgsInfo, FromArgs};

use super::{Place, key, options};
use crate::cli::client::Client;
use crate::cli::error::Error;
use crate::host::cmd;
use crate::proto::api::VmShow;
use crate::vm::state::State;

#[derive(FromArgs, ArgsInfo, Debug)]
/// Open a shell in a running VM with ssh, or run a command. It needs no network, but an sshd in the image; `banger vm shell` needs nothing.
#[argh(
    subcommand,
    name = "ssh",
    usage = "[<options>] <vm> [-- <command>...]",
    help_triggers("-h", "--help", "help"),
    example = "banger vm ssh dev\n\
               banger vm ssh dev -- uname -a\n\
               banger vm ssh -A dev -- git clone git@example.com:me/repo\n\
               banger vm ssh dev -N -L 8080:localhost:80   # http://127.0.0.1:8080\n\
               banger ssh-config --install                 # from then on: ssh dev.vm, scp, rsync, git, editors",
    note = "What follows -- is the command; its words arrive as they were typed. Its exit status is banger's; 255 is ssh's own."
)]
pub struct Ssh {
    /// the VM's name, its id, or the beginning of its id
    #[argh(positional)]
    vm: String,
    /// who logs in: a user of the guest; root if not given
    #[argh(option, short = 'u', arg_name = "user", default = "\"root\".to_owned()")]
    user: String,
    /// let the guest use the keys of your ssh agent while you are there
    #[argh(switch, short = 'A')]
    forward_agent: bool,
    /// run the command on a pseudo-terminal; a shell has one by itself
    #[argh(switch, short = 't')]
    tty: bool,
    /// run nothing; for forwarding only
    #[argh(switch, short = 'N')]
    no_command: bool,
    /// lead a port of this host to one that the guest reaches, [addr:]port:host:port; may be repeated
    #[argh(option, short = 'L', arg_name = "ports")]
    local_forward: Vec<String>,
    /// lead a port of the guest to one that this host reaches, [addr:]port:host:port; may be repeated
    #[argh(option, short = 'R', arg_name = "ports")]
    remote_forward: Vec<String>,
    /// be a SOCKS proxy into the guest on a port of this host, [addr:]port; may be repeated
    #[argh(option, short = 'D', arg_name = "port")]
    dynamic_forward: Vec<String>,
}

impl Ssh {
    pub fn run(&self, command: &[String]) -> Result<(), Error> {
        let client = Client::from_env()?;
        let place = Place::find(&client)?;
        let vm = client.ask(VmShow { vm: self.vm.clone() })?.record;
        if let State::Stopped | State::Failed { .. } = vm.state {
            let name = &vm.name;
            return Err(Error::Refused(format!(
                "VM {name} does not run; `banger vm start {name}` starts it"
            )));
        }
        // ssh reads it before it runs the proxy, which would make it too.
        key::public(&place)?;
        let banger = std::env::current_exe()
            .map_err(|source| Error::Host { what: "find this executable".to_owned(), source })?;
        options::refuse_unspeakable(&banger)?;
        let host = format!("{}.{}", vm.name, place.suffix);
        let mut words: Vec<String> = options::options(&place, &banger, &vm.id.to_string())
            .into_iter()
            .flat_map(|(keyword, value)| ["-o".to_owned(), format!("{keyword}={value}")])
            .collect();
        words.extend(self.words(&host, command));
        Err(match cmd::become_program("ssh", &words) {
            e if e.kind() == std::io::ErrorKind::NotFound => Error::Refused(format!(
                "there is no ssh on this host; `apt install openssh-client` installs it, and `banger vm shell {}` needs none",
                vm.name
            )),
            source => Error::Host { what: "run ssh".to_owned(), source },
        })
    }

    /// The words of ssh that depend on what was typed.
    fn words(&self, host: &str, command: &[String]) -> Vec<String> {
        let mut words: Vec<String> = vec!["-l".to_owned(), self.user.clone()];
        for (given, flag) in [(self.forward_agent, "-A"), (self.tty, "-t"), (self.no_command, "-N")] {
            words.extend(given.then(|| flag.to_owned()));
        }
        for (flag, values) in
            [("-L", &self.local_forward), ("-R", &self.remote_forward), ("-D", &self.dynamic_forward)]
        {
            words.extend(values.iter().flat_map(|value| [flag.to_owned(), value.clone()]));
        }
        words.extend(["--".to_owned(), host.to_owned()]);
        // ssh joins words with spaces, and a shell there takes them apart.
        if !command.is_empty() {
            words.push(options::line(command));
        }
        words
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_is_one_word_that_the_shell_there_takes_apart() {
        let read = |args: &[&str]| Ssh::from_args(&["ssh"], args).expect("reads");
        let words = |args: &[&str], command: &[&str]| {
            let command: Vec<String> = command.iter().map(|word| (*word).to_owned()).collect();
            read(args).words("dev.vm", &command).join("|")
        };
        assert_eq!(words(&["dev"], &[]), "-l|root|--|dev.vm");
        assert_eq!(words(&["dev"], &["echo", "a b", "-x"]), "-l|root|--|dev.vm|echo 'a b' -x");
        assert_eq!(
            words(&["--user", "app", "-A", "-N", "-L", "1:h:2", "-L", "3:h:4", "-D", "5", "dev"], &[]),
            "-l|app|-A|-N|-L|1:h:2|-L|3:h:4|-D|5|--|dev.vm"
        );
    }
}
