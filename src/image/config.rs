//! How an image wants its processes started: the `config` object of the OCI image configuration (image-spec config.md),
//! which is docker's too, and how a command line is made of it.

use serde::{Deserialize, Serialize};

/// The part of an image's configuration that concerns a process. Field names are the specification's.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct ImageConfig {
    /// `name`, `name:group`, or numbers; empty: root.
    #[serde(deserialize_with = "or_default")]
    pub user: String,
    /// `NAME=value`.
    #[serde(deserialize_with = "or_default")]
    pub env: Vec<String>,
    #[serde(deserialize_with = "or_default")]
    pub entrypoint: Vec<String>,
    #[serde(deserialize_with = "or_default")]
    pub cmd: Vec<String>,
    #[serde(deserialize_with = "or_default")]
    pub working_dir: String,
}

/// Docker writes `null` where the specification says that a field is absent.
fn or_default<'de, D, T>(d: D) -> Result<T, D::Error>
where
    D: serde::Deserializer<'de>,
    T: Deserialize<'de> + Default,
{
    Ok(Option::deserialize(d)?.unwrap_or_default())
}

/// What a person asked for on the command line.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Asked {
    /// Empty: what the image runs by itself, or a shell.
    pub argv: Vec<String>,
    /// `NAME=value`, or `NAME` alone, which removes the image's.
    pub env: Vec<String>,
    pub cwd: Option<String>,
    pub user: Option<String>,
}

/// What is to be started.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Command {
    /// Empty: the user's shell.
    pub argv: Vec<String>,
    /// `NAME=value`, each name once, in the order of first mention.
    pub env: Vec<String>,
    pub cwd: String,
    pub user: String,
}

/// PATH where the image sets none; docker's default (moby: daemon/pkg/oci/defaults.go, DefaultPathEnv).
pub const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

impl ImageConfig {
    /// The first process, as `docker run` composes it: Entrypoint, then what was asked for or else Cmd.
    pub fn run(&self, asked: &Asked) -> Command {
        let tail = if asked.argv.is_empty() { &self.cmd } else { &asked.argv };
        let argv: Vec<String> = self.entrypoint.iter().chain(tail).cloned().collect();
        // An image whose command is an init has been given to it already; what a person wants then is a shell.
        let argv =
            if asked.argv.is_empty() && argv.first().is_some_and(|p| is_init(p)) { vec![] } else { argv };
        self.command(argv, asked)
    }

    /// A further process, as `docker exec` composes it: without Entrypoint and Cmd.
    pub fn exec(&self, asked: &Asked) -> Command {
        self.command(asked.argv.clone(), asked)
    }

    fn command(&self, argv: Vec<String>, asked: &Asked) -> Command {
        let mut env = vec![format!("PATH={DEFAULT_PATH}")];
        for word in self.env.iter().chain(&asked.env) {
            let name = word.split_once('=').map_or(word.as_str(), |(name, _)| name);
            let same = |set: &String| set.split_once('=').is_some_and(|(n, _)| n == name);
            match (env.iter().position(same), word.contains('=')) {
                (Some(i), true) => env[i] = word.clone(),
                (Some(i), false) => drop(env.remove(i)),
                (None, true) => env.push(word.clone()),
                (None, false) => {}
            }
        }
        let or = |asked: &Option<String>, image: &str, otherwise: &str| match asked {
            Some(text) => text.clone(),
            None if image.is_empty() => otherwise.to_owned(),
            None => image.to_owned(),
        };
        Command {
            argv,
            env,
            cwd: or(&asked.cwd, &self.working_dir, "/"),
            user: or(&asked.user, &self.user, "root"),
        }
    }
}

/// Whether `program` is an init, which wants to be process 1.
pub fn is_init(program: &str) -> bool {
    matches!(
        program,
        "/sbin/init"
            | "/usr/sbin/init"
            | "/init"
            | "/lib/systemd/systemd"
            | "/usr/lib/systemd/systemd"
            | "/bin/systemd"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(s: &str) -> Vec<String> {
        s.split_whitespace().map(str::to_owned).collect()
    }

    fn asked(argv: &str) -> Asked {
        Asked { argv: words(argv), ..Asked::default() }
    }

    #[test]
    fn run_composes_entrypoint_and_command_as_docker_does() {
        let table = [
            ("", "", "", ""),
            ("", "bash", "", "bash"),
            ("", "bash", "ls -l", "ls -l"),
            ("/entry", "serve", "", "/entry serve"),
            ("/entry", "serve", "ls", "/entry ls"),
            ("/entry -x", "", "", "/entry -x"),
            ("", "/sbin/init", "", ""),
            ("", "/sbin/init", "ls", "ls"),
        ];
        for (entrypoint, cmd, argv, want) in table {
            let image =
                ImageConfig { entrypoint: words(entrypoint), cmd: words(cmd), ..ImageConfig::default() };
            assert_eq!(image.run(&asked(argv)).argv, words(want), "{entrypoint} | {cmd} | {argv}");
        }
    }

    #[test]
    fn exec_leaves_entrypoint_and_cmd_out() {
        let image =
            ImageConfig { entrypoint: words("/entry"), cmd: words("serve"), ..ImageConfig::default() };
        assert_eq!(image.exec(&asked("ls")).argv, words("ls"));
        assert_eq!(image.exec(&asked("")).argv, Vec::<String>::new());
    }

    #[test]
    fn the_environment_is_the_images_then_the_persons() {
        let image = ImageConfig { env: words("PATH=/bin A=1 B=2 C=a=b"), ..ImageConfig::default() };
        let asked = Asked { env: words("B=3 D=4 A ZZ"), ..Asked::default() };
        assert_eq!(image.run(&asked).env, words("PATH=/bin B=3 C=a=b D=4"));
        assert_eq!(ImageConfig::default().run(&Asked::default()).env, [format!("PATH={DEFAULT_PATH}")]);
    }

    #[test]
    fn user_and_directory_are_the_persons_then_the_images_then_roots() {
        let image =
            ImageConfig { user: "app".to_owned(), working_dir: "/srv".to_owned(), ..ImageConfig::default() };
        let command = image.run(&Asked::default());
        assert_eq!((command.user.as_str(), command.cwd.as_str()), ("app", "/srv"));
        let asked = Asked { user: Some("0".to_owned()), cwd: Some("/tmp".to_owned()), ..Asked::default() };
        let command = image.run(&asked);
        assert_eq!((command.user.as_str(), command.cwd.as_str()), ("0", "/tmp"));
        let command = ImageConfig::default().exec(&Asked::default());
        assert_eq!((command.user.as_str(), command.cwd.as_str()), ("root", "/"));
    }

    #[test]
    fn docker_writes_null_where_a_field_is_absent() {
        let config: ImageConfig =
            serde_json::from_str(r#"{"Env":null,"Cmd":["sh"],"Entrypoint":null,"Labels":{}}"#)
                .expect("parses");
        assert_eq!(config, ImageConfig { cmd: words("sh"), ..ImageConfig::default() });
    }
}
