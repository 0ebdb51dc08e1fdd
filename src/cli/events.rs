//! `banger events`: what happens, as it happens.

use argh::{ArgsInfo, FromArgs};

use crate::cli::client::Client;
use crate::cli::error::Error;
use crate::cli::{moment, render};
use crate::proto::api::{DaemonEvents, Happening, What};

#[derive(FromArgs, ArgsInfo, Debug)]
/// Show what happens, as it happens: to VMs, images and kernels, and which operations begin and end. Until Ctrl-C, or until bangerd ends.
#[argh(
    subcommand,
    name = "events",
    help_triggers("-h", "--help", "help"),
    example = "banger events\n\
               banger events --since 10m\n\
               banger events --json | jq -r 'select(.what == \"vm.failed\") | .name'",
    note = "--json prints a line for each, with these fields, null where there is nothing to say: at_ms (milliseconds since 1970), what (vm.created, vm.starting, vm.running, vm.stopping, vm.stopped, vm.failed, vm.deleting, vm.deleted, vm.changed, vm.workspace, image.changed, image.deleted, kernel.changed, kernel.deleted, kernel.default, operation.begun, operation.done, operation.failed, events.lost), id, name, op (the operation's id, as errors and log lines have it), method (vm.start), detail (why it failed; the workspace's path; the image's names), count (how many were lost).\n\
            Whoever reads too slowly loses some, and is told how many: events.lost. bangerd remembers the last thousand, since its own start, for --since. When it ends, so does this, with exit status 1: what happens until it is back is told to nobody."
)]
pub struct Events {
    /// first, what has happened since then: how long ago, such as 10m, or a time such as 2026-11-30T02:00:00Z
    #[argh(option, arg_name = "time")]
    since: Option<String>,
    /// print JSON, a line for each
    #[argh(switch)]
    json: bool,
}

impl Events {
    pub fn run(&self) -> Result<(), Error> {
        let since = self.since.as_deref().map(|text| moment::since(text, render::now_ms())).transpose();
        let since_ms = since.map_err(|why| Error::Refused(format!("--since: {why}")))?;
        let json = self.json;
        Client::from_env()?.listen(DaemonEvents { since_ms }, |happening| match json {
            true => render::json_line(happening),
            false => render::out_line(&line(happening)),
        })?;
        Err(Error::Refused(
            "bangerd has ended, and with it its events; run `banger events` again to go on".to_owned(),
        ))
    }
}

/// `TIME  WHAT  [METHOD] NAME  [DETAIL]  [(OP)]`.
fn line(happening: &Happening) -> String {
    let Happening { at_ms, what, id, name, op, method, detail, count } = happening;
    let what = serde_json::to_value(what).ok();
    let what = what.as_ref().and_then(|what| what.as_str()).unwrap_or_default();
    let mut text = format!("{}  {what:<16}", moment::format(*at_ms));
    let subject = name.as_ref().or(id.as_ref());
    for word in method.iter().chain(subject) {
        text.push(' ');
        text.push_str(word);
    }
    match (happening.what, count) {
        (What::Lost, Some(count)) => text.push_str(&format!(" {count} events, as they were read too slowly")),
        _ => {
            if let Some(detail) = detail.as_ref().filter(|detail| Some(*detail) != subject) {
                text.push_str(&format!(": {detail}"));
            }
        }
    }
    if let Some(op) = op {
        text.push_str(&format!(" ({op})"));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_is_a_line() {
        let base =
            Happening { name: Some("dev".to_owned()), ..Happening::new(1_796_004_000_000, What::VmRunning) };
        assert_eq!(line(&base), "2026-11-30T02:00:00Z  vm.running       dev");
        let failed = Happening {
            what: What::OperationFailed,
            method: Some("vm.start".to_owned()),
            detail: Some("no".to_owned()),
            op: Some("op-1".to_owned()),
            ..base.clone()
        };
        assert_eq!(line(&failed), "2026-11-30T02:00:00Z  operation.failed vm.start dev: no (op-1)");
        let lost = Happening { count: Some(3), ..Happening::new(0, What::Lost) };
        assert_eq!(
            line(&lost),
            "1970-01-01T00:00:00Z  events.lost      3 events, as they were read too slowly"
        );
    }
}
