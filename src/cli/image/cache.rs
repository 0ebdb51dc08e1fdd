//! `banger image cache`: what was fetched for images and can be fetched again.

use argh::{ArgsInfo, FromArgs};

use crate::cli::client::Client;
use crate::cli::error::Error;
use crate::cli::render;
use crate::proto::api::{BlobView, ImageCacheList, ImageCachePrune};

#[derive(FromArgs, ArgsInfo, Debug)]
/// Manage the cache of layers: what was fetched for images, and is not fetched again.
#[argh(
    subcommand,
    name = "cache",
    help_triggers("-h", "--help", "help"),
    example = "banger image cache list\nbanger image cache prune"
)]
pub struct Cache {
    #[argh(subcommand)]
    verb: Verb,
}

#[derive(FromArgs, ArgsInfo, Debug)]
#[argh(subcommand)]
enum Verb {
    List(List),
    Prune(Prune),
}

#[derive(FromArgs, ArgsInfo, Debug)]
/// List what is in the cache, the newest first.
#[argh(
    subcommand,
    name = "list",
    help_triggers("-h", "--help", "help"),
    example = "banger image cache list",
    note = "Fields of --json: digest, bytes (on disk), fetched_at (seconds since 1970), in_use (by a pull that goes on)."
)]
struct List {
    /// print JSON
    #[argh(switch)]
    json: bool,
}

#[derive(FromArgs, ArgsInfo, Debug)]
/// Empty the cache, but for what is in use just now. Images stay; only what is pulled later may be fetched again.
#[argh(
    subcommand,
    name = "prune",
    help_triggers("-h", "--help", "help"),
    example = "banger image cache prune --dry-run\nbanger image cache prune"
)]
struct Prune {
    /// only say what would be removed
    #[argh(switch)]
    dry_run: bool,
}

impl Cache {
    pub fn run(&self, client: &Client) -> Result<(), Error> {
        match &self.verb {
            Verb::List(list) => list.run(client),
            Verb::Prune(prune) => {
                let dry_run = prune.dry_run;
                let pruned = client.ask(ImageCachePrune { dry_run })?;
                let verb = if dry_run { "would free" } else { "freed" };
                let (bytes, blobs) = (render::bytes(pruned.bytes), pruned.blobs);
                render::out_line(&format!("{verb} {bytes} across {blobs} blob(s) in {}", pruned.directory))
            }
        }
    }
}

impl List {
    fn run(&self, client: &Client) -> Result<(), Error> {
        let blobs = client.ask(ImageCacheList {})?;
        if self.json {
            return render::json(&blobs);
        }
        let row = |blob: &BlobView| {
            [
                blob.digest.clone(),
                render::bytes(blob.bytes),
                render::age(render::now(), blob.fetched_at),
                if blob.in_use { "yes" } else { "" }.to_owned(),
            ]
        };
        let rows: Vec<_> = blobs.iter().map(row).collect();
        render::out(&render::table(["DIGEST", "SIZE", "FETCHED", "IN USE"], &rows))
    }
}
