//! What exactly a command is: whom it runs as, where, with which environment, and which program when none is named.

use std::collections::BTreeMap;
use std::ffi::CString;
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use super::spawn::{self, Running, Step};
use super::users::{self, User};
use super::wire::refusal;
use crate::image::config::DEFAULT_PATH;
use crate::proto::agent::{Code, Exec, Refusal};

/// A command, decided in every detail.
#[derive(Debug)]
pub struct Command {
    pub program: String,
    /// What the program sees as its own name.
    pub argv0: String,
    pub args: Vec<String>,
    pub env: BTreeMap<String, String>,
    pub cwd: CString,
    /// Enter it before becoming the user.
    pub cwd_first: bool,
    pub user: User,
}

/// What comes before a command in a login shell: directories of the image's own PATH, which /etc/profile has replaced, come back in front
/// (`$1`), and mise's tools are found, also where its installer has put it. With `$2` those too that it installs later, as behind `vm run`:
/// by its shims, which a shell needs and a command can do without. Not `mise exec`, which would hide the statuses 126 and 127.
///
/// mise asks on a terminal whether it may trust a tree, and fails elsewhere; but who brought the tree wants its commands run, and the guest
/// is the fence. Stdin is for the command alone.
const LOGIN: &str = r#"test -z "$1" || PATH="$1:$PATH"
test ! -x "$HOME/.local/bin/mise" || PATH="$PATH:$HOME/.local/bin"
if command -v mise >/dev/null 2>&1; then
    eval "$(MISE_TRUSTED_CONFIG_PATHS=/ mise env -s bash </dev/null)"
    test -z "$2" || PATH="${MISE_DATA_DIR:-${XDG_DATA_HOME:-$HOME/.local/share}/mise}/shims:$PATH"
fi
shift 2
exec "$@""#;

/// Starts what the host asks for, or says why not.
pub fn start(wanted: Exec) -> Result<Running, Refusal> {
    let (passwd, group) = users::read_files();
    let user = users::find(&wanted.user, &passwd, &group).map_err(|e| refusal(Code::NoUser, e.0))?;
    let (tty, stdin) = (wanted.tty, wanted.stdin);
    check_directory(&wanted.cwd, wanted.make_cwd)?;
    let command = decide(wanted, user, is_executable)?;
    spawn::spawn(&command, tty, stdin).map_err(|(step, e)| refused(&command, step, &e))
}

fn decide(wanted: Exec, user: User, is_program: impl Fn(&str) -> bool) -> Result<Command, Refusal> {
    let bad = |what: &str| refusal(Code::BadRequest, what);
    if wanted.argv.iter().chain(&wanted.env).any(|word| word.contains('\0')) {
        return Err(bad("a word of the command or its environment holds a NUL"));
    }
    let shell = shell_of(&user, &is_program);
    let login = wanted.login.then(|| SHELLS.into_iter().find(|shell| is_program(shell))).flatten();
    let mut env = BTreeMap::new();
    for word in &wanted.env {
        match word.split_once('=') {
            Some((name, value)) if !name.is_empty() => env.insert(name.to_owned(), value.to_owned()),
            _ => return Err(bad("a word of the environment is not NAME=value")),
        };
    }
    let mut default = |name: &str, value: Option<&str>| {
        if let Some(value) = value {
            env.entry(name.to_owned()).or_insert_with(|| value.to_owned());
        }
    };
    default("PATH", Some(DEFAULT_PATH));
    default("HOME", Some(&user.home));
    default("USER", user.name.as_deref());
    default("LOGNAME", user.name.as_deref());
    default("SHELL", shell.as_deref());
    default("TERM", wanted.tty.map(|_| "xterm"));
    let front = front(&wanted.env);
    let mut words = wanted.argv.into_iter();
    let mut args = vec![];
    let (program, argv0) = match (words.next(), &shell) {
        (Some(program), _) if program.is_empty() => return Err(bad("the command's name is empty")),
        (Some(program), _) => match login {
            None => (program.clone(), program),
            Some(shell) => {
                args = ["-lc", LOGIN, base(shell), &front, "", &program].map(str::to_owned).to_vec();
                (shell.to_owned(), base(shell).to_owned())
            }
        },
        (None, Some(shell)) if wanted.login => {
            args = match !front.is_empty() || has_mise(&env, &is_program) {
                true if POSIX.contains(&base(shell)) => {
                    ["-lc", LOGIN, base(shell), &front, "shims", shell].map(str::to_owned).to_vec()
                }
                _ => vec!["-l".to_owned()],
            };
            (shell.clone(), base(shell).to_owned())
        }
        // No dash, which would make it a login shell: /etc/profile replaces the PATH that the image gives, and what the
        // image put there is not found any more. Docker's shells are no login shells either.
        (None, Some(shell)) => (shell.clone(), base(shell).to_owned()),
        (None, None) => {
            let text = "the image has no shell; name a program of it after --, such as -- /bin/PROGRAM";
            return Err(refusal(Code::NoShell, text));
        }
    };
    let cwd = CString::new(wanted.cwd).map_err(|_| bad("the directory's name holds a NUL"))?;
    args.extend(words);
    // A work tree is root's, and below /root unless it was put elsewhere, where others may not go; who asks for no directory starts in it
    // nevertheless.
    let cwd_first = wanted.login && wanted.make_cwd;
    Ok(Command { program, argv0, args, env, cwd, cwd_first, user })
}

/// Those of the PATH in `env` that are not in everybody's.
fn front(env: &[String]) -> String {
    let path = env.iter().rev().find_map(|word| word.strip_prefix("PATH=")).unwrap_or_default();
    let usual: Vec<&str> = DEFAULT_PATH.split(':').collect();
    let own: Vec<&str> = path.split(':').filter(|dir| !dir.is_empty() && !usual.contains(dir)).collect();
    own.join(":")
}

/// Whether there is a mise where programs are looked for.
fn has_mise(env: &BTreeMap<String, String>, is_program: impl Fn(&str) -> bool) -> bool {
    let of = |name: &str| env.get(name).map(String::as_str).unwrap_or_default();
    let own = format!("{}/.local/bin", of("HOME"));
    of("PATH").split(':').chain([own.as_str()]).any(|dir| is_program(&format!("{dir}/mise")))
}

fn base(path: &str) -> &str {
    path.rsplit('/').next().unwrap_or(path)
}

/// Shells that images have.
const SHELLS: [&str; 2] = ["/bin/bash", "/bin/sh"];
/// Shells that read [`LOGIN`].
const POSIX: [&str; 7] = ["bash", "sh", "dash", "ash", "zsh", "ksh", "mksh"];

/// The user's shell, or one that images have. A shell that only says that there is none for this user is no shell to ask for.
fn shell_of(user: &User, is_program: impl Fn(&str) -> bool) -> Option<String> {
    let own =
        user.shell.as_deref().filter(|shell| !shell.ends_with("/nologin") && !shell.ends_with("/false"));
    own.into_iter().chain(SHELLS).find(|shell| is_program(shell)).map(str::to_owned)
}

fn is_executable(path: &str) -> bool {
    fs::metadata(path).is_ok_and(|meta| meta.is_file() && meta.mode() & 0o111 != 0)
}

fn check_directory(cwd: &str, make: bool) -> Result<(), Refusal> {
    if !cwd.starts_with('/') {
        return Err(refusal(Code::BadRequest, format!("the directory {cwd:?} is not an absolute path")));
    }
    let no = |why: String| Err(refusal(Code::NoDirectory, why));
    match fs::metadata(cwd) {
        Ok(meta) if meta.is_dir() => Ok(()),
        Ok(_) => no(format!("{cwd} is not a directory of the guest")),
        Err(e) if e.kind() == io::ErrorKind::NotFound && make => match fs::create_dir_all(cwd) {
            Ok(()) => Ok(()),
            Err(e) => no(format!("cannot make the directory {cwd} in the guest: {e}")),
        },
        Err(e) if e.kind() == io::ErrorKind::NotFound => no(format!("the guest has no directory {cwd}")),
        Err(e) => no(format!("cannot use the directory {cwd} of the guest: {e}")),
    }
}

fn refused(command: &Command, step: Step, error: &io::Error) -> Refusal {
    let (program, cwd) = (&command.program, command.cwd.to_string_lossy());
    match (step, error.kind()) {
        (Step::Directory, _) => {
            refusal(Code::NoDirectory, format!("cannot use the directory {cwd} as this user: {error}"))
        }
        (Step::Program, io::ErrorKind::NotFound)
            if program.contains('/') && Path::new(&*cwd).join(program).exists() =>
        {
            let what = "what it needs to run (its loader or interpreter) does not";
            refusal(Code::NoProgram, format!("{program} exists in the guest, but {what}"))
        }
        (Step::Program, io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
            refusal(Code::NoProgram, format!("the guest has no program {program}"))
        }
        (Step::Program, io::ErrorKind::ArgumentListTooLong) => {
            refusal(Code::Failed, format!("cannot execute {program}: command and environment are too long"))
        }
        // Not the program's fault: fork, or exec, found no room.
        (Step::Program, io::ErrorKind::OutOfMemory | io::ErrorKind::WouldBlock) => {
            refusal(Code::Failed, format!("the guest cannot start a process: {error}"))
        }
        (Step::Program, _) => refusal(Code::NotExecutable, format!("cannot execute {program}: {error}")),
        (Step::Terminal, _) => refusal(Code::Failed, format!("cannot make a terminal in the guest: {error}")),
        (Step::User, _) => refusal(Code::Failed, format!("cannot become this user: {error}")),
        (Step::Process, _) => refusal(Code::Failed, format!("the guest cannot start a process: {error}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proto::agent::Tty;

    fn user(shell: Option<&str>) -> User {
        User {
            name: Some("app".to_owned()),
            uid: 5,
            gid: 6,
            groups: vec![],
            home: "/srv".to_owned(),
            shell: shell.map(str::to_owned),
        }
    }

    fn exec(argv: &str, env: &str, tty: bool) -> Exec {
        let words = |s: &str| s.split_whitespace().map(str::to_owned).collect();
        let tty = tty.then_some(Tty { rows: 1, columns: 2 });
        Exec { argv: words(argv), env: words(env), cwd: "/".to_owned(), tty, ..Exec::default() }
    }

    #[test]
    fn what_the_environment_lacks_is_added_and_what_it_has_is_kept() {
        let shown = |env: &str, tty| {
            let command = decide(exec("ls", env, tty), user(Some("/bin/zsh")), |_| true).expect("decides");
            command.env.iter().map(|(k, v)| format!("{k}={v}")).collect::<Vec<_>>().join(" ")
        };
        assert_eq!(
            shown("PATH=/bin A=b=c", true),
            "A=b=c HOME=/srv LOGNAME=app PATH=/bin SHELL=/bin/zsh TERM=xterm USER=app"
        );
        assert_eq!(
            shown("PATH=/bin HOME=/x USER=u LOGNAME=l SHELL=s TERM=t", true),
            "HOME=/x LOGNAME=l PATH=/bin SHELL=s TERM=t USER=u"
        );
        assert!(!shown("", false).contains("TERM"));
    }

    #[test]
    fn no_command_is_the_users_shell_or_one_that_is_there() {
        #[allow(clippy::type_complexity)] // a table, read once
        let table: [(Option<&str>, &[&str], Option<(&str, &str)>); 6] = [
            (Some("/bin/zsh"), &["/bin/zsh", "/bin/sh"], Some(("/bin/zsh", "zsh"))),
            (Some("/bin/zsh"), &["/bin/bash", "/bin/sh"], Some(("/bin/bash", "bash"))),
            (Some("/usr/sbin/nologin"), &["/usr/sbin/nologin", "/bin/sh"], Some(("/bin/sh", "sh"))),
            (Some("/bin/false"), &["/bin/false"], None),
            (None, &["/bin/sh"], Some(("/bin/sh", "sh"))),
            (None, &[], None),
        ];
        for (shell, there, want) in table {
            match (decide(exec("", "", true), user(shell), |path| there.contains(&path)), want) {
                (Ok(command), Some(want)) => {
                    assert_eq!(
                        (command.program.as_str(), command.argv0.as_str()),
                        want,
                        "{shell:?} {there:?}"
                    );
                }
                (Err(refused), None) => assert_eq!(refused.code, Code::NoShell, "{shell:?} {there:?}"),
                (got, _) => panic!("{shell:?} {there:?}: {got:?}"),
            }
        }
    }

    #[test]
    fn in_a_login_shell_a_command_keeps_its_words_and_the_images_path() {
        let decided = |argv: &str, env: &str, there: &[&str]| {
            let wanted = Exec { login: true, ..exec(argv, env, false) };
            decide(wanted, user(Some("/bin/zsh")), |path| there.contains(&path)).expect("decides")
        };
        let command = decided("go test", "PATH=/usr/local/go/bin:/usr/bin:/bin", &["/bin/bash", "/bin/sh"]);
        assert_eq!((command.program.as_str(), command.argv0.as_str()), ("/bin/bash", "bash"));
        assert_eq!(command.args, ["-lc", LOGIN, "bash", "/usr/local/go/bin", "", "go", "test"]);
        let command = decided("ls", "", &["/bin/sh"]);
        assert_eq!(command.args, ["-lc", LOGIN, "sh", "", "", "ls"]);
        let command = decided("/tool -x", "", &[]);
        assert_eq!((command.program.as_str(), command.args), ("/tool", vec!["-x".to_owned()]));
        let command = decided("", "", &["/bin/zsh", "/bin/sh"]);
        assert_eq!((command.program.as_str(), command.args), ("/bin/zsh", vec!["-l".to_owned()]));
        let command = decided("", "PATH=/opt/bin", &["/bin/sh"]);
        assert_eq!(command.args, ["-lc", LOGIN, "sh", "/opt/bin", "shims", "/bin/sh"]);
        for mise in ["/usr/local/bin/mise", "/srv/.local/bin/mise"] {
            let command = decided("", "", &["/bin/zsh", mise]);
            assert_eq!(command.args, ["-lc", LOGIN, "zsh", "", "shims", "/bin/zsh"], "{mise}");
        }
        let wanted = Exec { login: true, ..exec("", "PATH=/opt/bin", false) };
        let command = decide(wanted, user(Some("/usr/bin/fish")), |_| true).expect("decides");
        assert_eq!((command.program.as_str(), command.args), ("/usr/bin/fish", vec!["-l".to_owned()]));
    }

    #[test]
    fn a_login_shell_hands_on_words_statuses_and_the_path() {
        let run = |script: &str, front: &str| {
            let words = ["-c", LOGIN, "sh", front, "", "/bin/sh", "-c", script, "sh", "a b", "*", ""];
            let out =
                std::process::Command::new("/bin/sh").args(words).env("PATH", "/bin").output().expect("runs");
            (out.status.code(), String::from_utf8_lossy(&out.stdout).into_owned())
        };
        assert_eq!(
            run(r#"printf "%s|" "$PATH" "$@"; exit 3"#, "/x"),
            (Some(3), "/x:/bin|a b|*||".to_owned())
        );
        assert_eq!(run(r#"printf %s "$PATH""#, ""), (Some(0), "/bin".to_owned()));
        for (program, status) in [("/no/such", 127), ("/etc/passwd", 126)] {
            let out =
                std::process::Command::new("/bin/sh").args(["-c", LOGIN, "sh", "", "", program]).output();
            assert_eq!(out.expect("runs").status.code(), Some(status), "{program}");
        }
    }

    #[test]
    fn words_that_no_process_can_have_are_refused() {
        for (argv, env) in [("a\0b", ""), ("ls", "A"), ("ls", "=x"), ("ls", "A=\0")] {
            let wanted = Exec { argv: vec![argv.to_owned()], ..exec("", env, false) };
            let refused = decide(wanted, user(None), |_| true).expect_err("refused");
            assert_eq!(refused.code, Code::BadRequest, "{argv:?} {env:?}");
        }
        assert_eq!(check_directory("tmp", true).expect_err("relative").code, Code::BadRequest);
        assert_eq!(check_directory("/no/such", false).expect_err("missing").code, Code::NoDirectory);
        assert_eq!(check_directory("/etc/passwd", true).expect_err("a file").code, Code::NoDirectory);
    }
}
