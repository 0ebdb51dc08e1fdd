//! `banger image`: what guests have as their root file system.

mod cache;

use std::io::IsTerminal;
use std::os::fd::AsFd;

use argh::{ArgsInfo, FromArgs};

use self::cache::Cache;
use crate::cli::client::{Attention, Client};
use crate::cli::error::Error;
use crate::cli::files::absolute;
use crate::cli::render::{self, Progress};
use crate::host::environment::Environment;
use crate::image::record::ImageRecord;
use crate::proto::api::{
    Call, ImageCatalog, ImageDelete, ImageImport, ImageList, ImageOffer, ImagePromote, ImagePull,
    ImageRegister, ImageShow, ImageTag, ImageView,
};

#[derive(FromArgs, ArgsInfo, Debug)]
/// Manage the images that VMs are made of.
#[argh(
    subcommand,
    name = "image",
    help_triggers("-h", "--help", "help"),
    example = "banger image pull debian:12\nbanger image list\nbanger image list --available"
)]
pub struct Image {
    #[argh(subcommand)]
    verb: Verb,
}

#[derive(FromArgs, ArgsInfo, Debug)]
#[argh(subcommand)]
enum Verb {
    Pull(Pull),
    Import(Import),
    Register(Register),
    Promote(Promote),
    List(List),
    Show(Show),
    Delete(Delete),
    Tag(Tag),
    Cache(Cache),
}

#[derive(FromArgs, ArgsInfo, Debug)]
/// Pull an image by its name in a catalog, or else from a registry.
#[argh(
    subcommand,
    name = "pull",
    help_triggers("-h", "--help", "help"),
    example = "banger image pull debian-bookworm                   # by its name in a catalog\n\
               banger image pull debian:12\n\
               banger image pull ghcr.io/owner/app:v1 --name app"
)]
struct Pull {
    /// a name in a catalog, or a reference, such as debian:12 or ghcr.io/owner/app@sha256:...
    #[argh(positional)]
    reference: String,
    /// a further name for it
    #[argh(option, arg_name = "name")]
    name: Option<String>,
    /// let the name stand for it even if it stands for another image
    #[argh(switch)]
    force: bool,
    /// which of an index's images: linux/amd64, linux/amd64/v3; this machine's by default
    #[argh(option, arg_name = "os/arch")]
    platform: Option<String>,
    /// show no progress
    #[argh(switch, short = 'q')]
    quiet: bool,
}

#[derive(FromArgs, ArgsInfo, Debug)]
/// Import an image from a file or a directory: an OCI layout or its tar, what `docker save` writes, or the tar of a root file system. What it is, is found out by looking.
#[argh(
    subcommand,
    name = "import",
    help_triggers("-h", "--help", "help"),
    example = "banger image import ./debian.tar --name debian\n\
               docker save app | banger image import -"
)]
struct Import {
    /// the file or directory; - reads a tar from stdin
    #[argh(positional)]
    path: String,
    /// what to call it; the name in the archive by default
    #[argh(option, arg_name = "name")]
    name: Option<String>,
    /// let the name stand for it even if it stands for another image
    #[argh(switch)]
    force: bool,
    /// which of an index's images: linux/amd64, linux/amd64/v3; this machine's by default
    #[argh(option, arg_name = "os/arch")]
    platform: Option<String>,
    /// show no progress
    #[argh(switch, short = 'q')]
    quiet: bool,
}

#[derive(FromArgs, ArgsInfo, Debug)]
/// Make an image of a file with an ext4 file system, without copying it. VMs read it where it is, so it must stay as it is; banger never writes to it and never removes it.
#[argh(
    subcommand,
    name = "register",
    help_triggers("-h", "--help", "help"),
    example = "banger image register ./rootfs.ext4 --name mine\n\
               banger image register /srv/images/ci.ext4 --kernel 6.1.0-56-cloud-amd64"
)]
struct Register {
    /// the file
    #[argh(positional)]
    file: String,
    /// what to call it; the file's name without its extension by default
    #[argh(option, arg_name = "name")]
    name: Option<String>,
    /// the kernel that its VMs boot when they name none
    #[argh(option, arg_name = "name")]
    kernel: Option<String>,
    /// let the name stand for it even if it stands for another image
    #[argh(switch)]
    force: bool,
    /// show no progress
    #[argh(switch, short = 'q')]
    quiet: bool,
}

#[derive(FromArgs, ArgsInfo, Debug)]
/// Copy the file of a registered image in, so that it is banger's own. Its VMs go on, and the file is not needed any more.
#[argh(
    subcommand,
    name = "promote",
    help_triggers("-h", "--help", "help"),
    example = "banger image promote mine"
)]
struct Promote {
    /// the image's name, its id, or the beginning of its id
    #[argh(positional)]
    image: String,
    /// show no progress
    #[argh(switch, short = 'q')]
    quiet: bool,
}

#[derive(FromArgs, ArgsInfo, Debug)]
/// List the images.
#[argh(
    subcommand,
    name = "list",
    help_triggers("-h", "--help", "help"),
    example = "banger image list\n\
               banger image list --available                # what the catalogs have\n\
               banger image list --json | jq -r '.[].names[]'",
    note = "Fields of --json: id, names, digest, source, arch, variant, bytes, created_at (seconds since 1970), config (User, Env, Entrypoint, Cmd, WorkingDir), kernel, path (of a registered file), stamp, disk_bytes, used_by, problem. \
            With --available: name, distro, arch, kernel, description, source, bytes, state (pulled or available), catalog."
)]
struct List {
    /// list what the catalogs have
    #[argh(switch)]
    available: bool,
    /// print JSON
    #[argh(switch)]
    json: bool,
}

#[derive(FromArgs, ArgsInfo, Debug)]
/// Show all that is known of one image.
#[argh(
    subcommand,
    name = "show",
    help_triggers("-h", "--help", "help"),
    example = "banger image show debian",
    note = "Fields of --json: as `banger image list --json`."
)]
struct Show {
    /// the image's name, its id, or the beginning of its id
    #[argh(positional)]
    image: String,
    /// print JSON
    #[argh(switch)]
    json: bool,
}

#[derive(FromArgs, ArgsInfo, Debug)]
/// Remove a name, and the image itself with its last name or when it is named by its id.
#[argh(
    subcommand,
    name = "delete",
    help_triggers("-h", "--help", "help"),
    example = "banger image delete debian"
)]
struct Delete {
    /// the image's name, its id, or the beginning of its id
    #[argh(positional)]
    image: String,
}

#[derive(FromArgs, ArgsInfo, Debug)]
/// Give an image a further name. A name that stands for another image moves.
#[argh(
    subcommand,
    name = "tag",
    help_triggers("-h", "--help", "help"),
    example = "banger image tag debian:12 base"
)]
struct Tag {
    /// the image's name, its id, or the beginning of its id
    #[argh(positional)]
    image: String,
    /// the further name
    #[argh(positional)]
    name: String,
}

impl Image {
    pub fn run(&self) -> Result<(), Error> {
        let client = Client::from_env()?;
        match &self.verb {
            Verb::Pull(pull) => {
                let Pull { reference, name, force, platform, quiet } = pull;
                let request = ImagePull {
                    reference: reference.clone(),
                    name: name.clone(),
                    force: *force,
                    platform: platform.clone(),
                    environment: Environment::of_process().to_bring(),
                };
                make(&client, request, *quiet)
            }
            Verb::Import(import) => import.run(&client),
            Verb::Register(register) => {
                let Register { file, name, kernel, force, quiet } = register;
                let request = ImageRegister {
                    path: absolute(file)?,
                    name: name.clone(),
                    kernel: kernel.clone(),
                    force: *force,
                };
                make(&client, request, *quiet)
            }
            Verb::Promote(promote) => {
                make(&client, ImagePromote { image: promote.image.clone() }, promote.quiet)
            }
            Verb::List(list) => list.run(&client),
            Verb::Show(show) => show.run(&client),
            Verb::Delete(delete) => Ok(client.ask(ImageDelete { image: delete.image.clone() })?),
            Verb::Cache(cache) => cache.run(&client),
            Verb::Tag(tag) => {
                client.ask(ImageTag { image: tag.image.clone(), name: tag.name.clone() })?;
                Ok(())
            }
        }
    }
}

/// Asks for an image, shows how it is made, and prints what it is called.
fn make(client: &Client, request: impl Call<Answer = ImageRecord>, quiet: bool) -> Result<(), Error> {
    let mut progress = Progress::new(quiet);
    let image = client.call(request, &mut Attention::to(&mut progress))?;
    progress.clear();
    render::out_line(&called(&image))
}

/// What people call an image: its last name, which is the one it was given just now; else its short id.
fn called(image: &ImageRecord) -> String {
    image.names.last().cloned().unwrap_or_else(|| short(&image.id).to_owned())
}

/// Whose file it is, where a registered one is, and what is wrong with it.
fn place(image: &ImageView) -> String {
    match (&image.record.path, &image.problem) {
        (None, _) => "managed".to_owned(),
        (Some(path), None) => format!("registered: {path}"),
        (Some(path), Some(problem)) => format!("registered: {path} ({problem})"),
    }
}

/// As many digits of an id as `banger vm list` shows of a VM's.
fn short(id: &str) -> &str {
    id.get(..12).unwrap_or(id)
}

impl Import {
    fn run(&self, client: &Client) -> Result<(), Error> {
        let (name, force, platform) = (self.name.clone(), self.force, self.platform.clone());
        if self.path != "-" {
            return make(
                client,
                ImageImport { path: Some(absolute(&self.path)?), name, force, platform },
                self.quiet,
            );
        }
        let stdin = std::io::stdin();
        if stdin.is_terminal() {
            return Err(Error::Refused(
                "`banger image import -` reads a tar from stdin, which is a terminal; redirect it from a file or a pipe"
                    .to_owned(),
            ));
        }
        let mut progress = Progress::new(self.quiet);
        let request = ImageImport { path: None, name, force, platform };
        let image = client.call_with(request, stdin.as_fd(), &mut Attention::to(&mut progress))?;
        progress.clear();
        render::out_line(&called(&image))
    }
}

impl List {
    fn run(&self, client: &Client) -> Result<(), Error> {
        if self.available {
            return self.offers(client);
        }
        let images = client.ask(ImageList {})?;
        if self.json {
            return render::json(&images);
        }
        let row = |image: &ImageView| {
            [
                short(&image.record.id).to_owned(),
                image.record.names.join(", "),
                image.record.arch.clone(),
                render::bytes(image.disk_bytes),
                image.used_by.len().to_string(),
                render::age(render::now(), image.record.created_at),
                place(image),
            ]
        };
        let rows: Vec<_> = images.iter().map(row).collect();
        render::out(&render::table(["ID", "NAMES", "ARCH", "SIZE", "VMS", "CREATED", "FILE"], &rows))
    }

    fn offers(&self, client: &Client) -> Result<(), Error> {
        // Of a catalog that cannot be had a note says why.
        let mut progress = Progress::new(false);
        let offers = client.call(
            ImageCatalog { offline: false, environment: Environment::of_process().to_bring() },
            &mut Attention::to(&mut progress),
        )?;
        progress.clear();
        if self.json {
            return render::json(&offers);
        }
        let row = |offer: &ImageOffer| {
            [
                offer.name.clone(),
                render::offer_state(offer.state).to_owned(),
                offer.distro.clone(),
                offer.arch.clone(),
                offer.bytes.map_or_else(|| "-".to_owned(), render::bytes),
                offer.description.clone(),
            ]
        };
        let rows: Vec<_> = offers.iter().map(row).collect();
        render::out(&render::table(["NAME", "STATE", "DISTRO", "ARCH", "SIZE", "DESCRIPTION"], &rows))
    }
}

impl Show {
    fn run(&self, client: &Client) -> Result<(), Error> {
        let image = client.ask(ImageShow { image: self.image.clone() })?;
        if self.json {
            return render::json(&image);
        }
        let file = place(&image);
        let ImageView { record, disk_bytes, used_by, .. } = image;
        let config = record.config;
        render::out(&render::fields(&[
            ("id", record.id),
            ("names", record.names.join(", ")),
            ("source", record.source),
            ("file", file),
            ("kernel", record.kernel.unwrap_or_default()),
            ("digest", record.digest.unwrap_or_default()),
            ("arch", record.arch),
            ("size", format!("{}, {} on disk", render::bytes(record.bytes), render::bytes(disk_bytes))),
            ("user", config.user),
            ("directory", config.working_dir),
            ("entrypoint", config.entrypoint.join(" ")),
            ("command", config.cmd.join(" ")),
            ("environment", config.env.join(" ")),
            ("used by", used_by.join(", ")),
            ("created", render::age(render::now(), record.created_at)),
        ]))
    }
}
