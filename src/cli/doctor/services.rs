//! The installation's services as systemd runs them: whether they do, and whether they are held to what their units say.

use std::collections::{BTreeMap, BTreeSet};

use crate::cli::render;
use crate::host::cmd::{self, CmdError};
use crate::proto::finding::{Finding, Fix};
use crate::system::layout::Layout;
use crate::system::services::{ALL, Unit};
use crate::system::units;

/// What `systemctl show` says of a unit.
pub type Properties = BTreeMap<String, String>;

/// What is asked for. The rest of a unit's hardening is not said in the words in which it is written.
const ASKED: &str = "LoadState,ActiveState,Result,UnitFileState,NeedDaemonReload,NRestarts,MainPID,KillMode,RuntimeDirectoryPreserve,\
                     OOMPolicy,NoNewPrivileges,CapabilityBoundingSet,DevicePolicy,KeyringMode,LockPersonality,PrivateTmp,\
                     ProtectClock,ProtectHome,ProtectHostname,ProtectKernelLogs,ProtectKernelModules,ProtectSystem,\
                     RestrictRealtime,RestrictSUIDSGID";
/// Without these, VMs end with the service.
const KEEP_VMS: [&str; 3] = ["KillMode", "RuntimeDirectoryPreserve", "OOMPolicy"];
/// So often a service that runs may have ended before.
const MANY_RESTARTS: u32 = 3;

pub fn rows(layout: &Layout, owner: &str) -> Vec<Finding> {
    let mut rows = vec![];
    for unit in ALL {
        let properties = match show(unit) {
            Ok(properties) => properties,
            Err(e) => {
                return vec![Finding::fail(
                    "services",
                    format!("systemd cannot be asked: {}", render::chain(&e)),
                    "An installation is run by systemd; without it, use banger as root or as yourself, without installing it.",
                )];
            }
        };
        rows.extend(running(unit, &properties));
        let text =
            units::ALL.iter().find(|file| file.name == unit.name()).map(|file| file.text(layout, owner));
        rows.extend(held(unit, &text.unwrap_or_default(), &properties));
        let pid = properties.get("MainPID").filter(|pid| pid.as_str() != "0");
        let status = pid.and_then(|pid| std::fs::read_to_string(format!("/proc/{pid}/status")).ok());
        rows.extend(status.and_then(|status| as_started(unit, &properties, &status)));
    }
    for (subject, well) in [("services", "all run, and start at boot"), ("hardening", "as the units say")] {
        if !rows.iter().any(|row| row.subject == subject) {
            rows.push(Finding::pass(subject, well));
        }
    }
    rows
}

fn show(unit: Unit) -> Result<Properties, CmdError> {
    let out = cmd::run("systemctl", ["show", "--no-pager", "-p", ASKED, unit.name()])?;
    Ok(parse(&String::from_utf8_lossy(&out)))
}

fn parse(text: &str) -> Properties {
    let pairs = text.lines().filter_map(|line| line.split_once('='));
    pairs.map(|(name, value)| (name.to_owned(), value.to_owned())).collect()
}

fn get<'a>(properties: &'a Properties, name: &str) -> &'a str {
    properties.get(name).map_or("", String::as_str)
}

/// None: it runs as it should.
fn running(unit: Unit, p: &Properties) -> Option<Finding> {
    let (subject, name) = ("services", unit.name());
    let log = format!("`journalctl -u {name}` says why.");
    let restarts: u32 = get(p, "NRestarts").parse().unwrap_or(0);
    let row = match (unit, get(p, "LoadState"), get(p, "ActiveState")) {
        (_, load, _) if load != "loaded" => Finding::fail(
            subject,
            format!("systemd does not know {name} ({load})"),
            "`sudo banger system install` writes it again.",
        ),
        (_, _, "failed") => Finding::fail(subject, format!("{name} has failed ({})", get(p, "Result")), log)
            .mended_by(Fix::Services),
        // It runs once at boot, and only if there is something to do.
        (Unit::Recovery, _, _) => return boot(unit, p),
        (_, _, "active" | "reloading") if restarts >= MANY_RESTARTS => {
            Finding::warn(subject, format!("{name} runs, and has ended {restarts} times by itself"), log)
        }
        (_, _, "active" | "reloading") => return boot(unit, p),
        (_, _, state) => Finding::fail(
            subject,
            format!("{name} does not run ({state})"),
            format!("`sudo banger system restart` starts it; {log}"),
        )
        .mended_by(Fix::Services),
    };
    Some(row)
}

fn boot(unit: Unit, p: &Properties) -> Option<Finding> {
    let (subject, name) = ("services", unit.name());
    if get(p, "NeedDaemonReload") == "yes" {
        let advice = "`sudo systemctl daemon-reload`, then `sudo banger system restart`.";
        let row = Finding::warn(subject, format!("{name} has changed since systemd read it"), advice);
        return Some(row.mended_by(Fix::Services));
    }
    (get(p, "UnitFileState") != "enabled").then(|| {
        Finding::warn(
            subject,
            format!("{name} is {}, so that it does not start at boot", get(p, "UnitFileState")),
            format!("`sudo systemctl enable {name}`."),
        )
    })
}

/// A unit may be overridden (`systemctl edit`): what systemd has against the text that this version wants. None: the same.
fn held(unit: Unit, text: &str, p: &Properties) -> Option<Finding> {
    let wanted = settings(text);
    let differs =
        |name: &&String| p.contains_key(*name) && normal(name, get(p, name)) != normal(name, &wanted[*name]);
    let weaker: Vec<&String> = wanted.keys().filter(differs).collect();
    let (subject, name) = ("hardening", unit.name());
    let shown = |names: &[&String]| {
        names.iter().map(|name| changed(name, get(p, name), &wanted[*name])).collect::<Vec<_>>().join(", ")
    };
    let advice = format!(
        "A drop-in may say so: `systemctl cat {name}` shows it, `sudo systemctl revert {name}` removes it."
    );
    if weaker.is_empty() {
        return None;
    }
    let fatal: Vec<&String> =
        weaker.iter().copied().filter(|name| KEEP_VMS.contains(&name.as_str())).collect();
    Some(match fatal.is_empty() {
        true => Finding::warn(subject, format!("{name} has {}", shown(&weaker)), advice),
        false => Finding::fail(
            subject,
            format!("{name} has {}, so that VMs may end with it", shown(&fatal)),
            advice,
        ),
    })
}

/// What a setting is now, in a few words.
fn changed(name: &str, has: &str, wanted: &str) -> String {
    let (rights, wanted) = (normal(name, has), normal(name, wanted));
    match name {
        "CapabilityBoundingSet" => format!(
            "{name} with {} more and {} fewer",
            rights.difference(&wanted).count(),
            wanted.difference(&rights).count()
        ),
        _ => format!("{name}={has}"),
    }
}

/// What the section [Service] of a unit sets, with lines that go on in the next one put together.
fn settings(text: &str) -> Properties {
    let whole = text.replace("\\\n", " ");
    let section = whole
        .lines()
        .skip_while(|line| *line != "[Service]")
        .skip(1)
        .take_while(|line| !line.starts_with('['));
    parse(&section.filter(|line| !line.starts_with('#')).collect::<Vec<_>>().join("\n"))
}

/// Rights are a set, in systemd's own case and order.
fn normal(name: &str, value: &str) -> BTreeSet<String> {
    match name {
        "CapabilityBoundingSet" => value.split_whitespace().map(str::to_ascii_lowercase).collect(),
        _ => [value.to_owned()].into(),
    }
}

/// A process keeps what it was started with, whatever its unit says since: `status` is its /proc/pid/status. None: the same.
fn as_started(unit: Unit, p: &Properties, status: &str) -> Option<Finding> {
    let field = |name: &str| status.lines().find_map(|line| line.strip_prefix(name)).map(str::trim);
    let bounding = field("CapBnd:").and_then(|hex| u64::from_str_radix(hex, 16).ok())?;
    let names = normal("CapabilityBoundingSet", get(p, "CapabilityBoundingSet"));
    let allowed = names.iter().map(|name| bit(name)).sum::<Option<u64>>();
    let more_rights = allowed.is_some_and(|allowed| bounding & !allowed != 0);
    let may_gain = get(p, "NoNewPrivileges") == "yes" && field("NoNewPrivs:") == Some("0");
    (more_rights || may_gain).then(|| {
        let found = format!("{} was started with more rights than its unit gives it now", unit.name());
        Finding::warn("hardening", found, "`sudo banger system restart` starts it again; VMs run on.")
    })
}

/// The bit of a capability (linux/capability.h); None: one that no unit of ours names.
fn bit(name: &str) -> Option<u64> {
    const BITS: [(&str, u32); 12] = [
        ("cap_chown", 0),
        ("cap_dac_override", 1),
        ("cap_fowner", 3),
        ("cap_kill", 5),
        ("cap_setgid", 6),
        ("cap_setuid", 7),
        ("cap_setpcap", 8),
        ("cap_net_admin", 12),
        ("cap_net_raw", 13),
        ("cap_sys_chroot", 18),
        ("cap_sys_admin", 21),
        ("cap_mknod", 27),
    ];
    BITS.iter().find(|(known, _)| *known == name).map(|(_, bit)| 1 << bit)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn well() -> Properties {
        parse(
            "LoadState=loaded\nActiveState=active\nResult=success\nUnitFileState=enabled\nNeedDaemonReload=no\nNRestarts=0\nMainPID=7\n",
        )
    }

    fn with(changes: &[(&str, &str)]) -> Properties {
        let mut properties = well();
        properties.extend(changes.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())));
        properties
    }

    #[test]
    fn a_service_is_judged_by_what_systemd_says() {
        let row = |unit, changes: &[(&str, &str)]| running(unit, &with(changes)).map(|row| row.line());
        assert_eq!(row(Unit::Daemon, &[]), None);
        assert_eq!(row(Unit::Recovery, &[("ActiveState", "inactive")]), None);
        type Row = (Unit, &'static [(&'static str, &'static str)], &'static str);
        let table: [Row; 6] = [
            (
                Unit::Daemon,
                &[("ActiveState", "failed"), ("Result", "exit-code")],
                "Fail services: bangerd.service has failed (exit-code)",
            ),
            (
                Unit::HelperSocket,
                &[("ActiveState", "inactive")],
                "Fail services: bangerd-root.socket does not run (inactive)",
            ),
            (
                Unit::Helper,
                &[("LoadState", "not-found")],
                "Fail services: systemd does not know bangerd-root.service (not-found)",
            ),
            (
                Unit::Helper,
                &[("NRestarts", "9")],
                "Warn services: bangerd-root.service runs, and has ended 9 times by itself",
            ),
            (
                Unit::Recovery,
                &[("UnitFileState", "disabled")],
                "Warn services: banger-recover.service is disabled, so that",
            ),
            (
                Unit::Daemon,
                &[("NeedDaemonReload", "yes")],
                "Warn services: bangerd.service has changed since systemd read it",
            ),
        ];
        for (unit, changes, want) in table {
            let row = row(unit, changes).expect(want);
            assert!(row.starts_with(want), "{row}");
        }
    }

    #[test]
    fn a_unit_that_was_overridden_is_noticed_by_what_it_sets() {
        let text = |unit: Unit| {
            units::ALL
                .iter()
                .find(|file| file.name == unit.name())
                .expect("a unit")
                .text(&Layout::host(), "me")
        };
        // As systemd 252 says it.
        let helper = "cap_chown cap_dac_override cap_fowner cap_kill cap_setgid cap_setuid cap_setpcap cap_net_admin cap_net_raw \
                      cap_sys_chroot cap_sys_admin cap_mknod";
        let same = [
            ("KillMode", "process"),
            ("RuntimeDirectoryPreserve", "yes"),
            ("OOMPolicy", "continue"),
            ("NoNewPrivileges", "yes"),
            ("LockPersonality", "yes"),
            ("CapabilityBoundingSet", helper),
            ("RestrictSUIDSGID", "no"),
        ];
        let row =
            |unit, changes: &[(&str, &str)]| held(unit, &text(unit), &with(changes)).map(|row| row.line());
        assert_eq!(row(Unit::Helper, &same), None);
        let weaker = [&same[..], &[("NoNewPrivileges", "no")]].concat();
        assert!(
            row(Unit::Helper, &weaker)
                .expect("a row")
                .starts_with("Warn hardening: bangerd-root.service has NoNewPrivileges=no => ")
        );
        let deadly = [&same[..], &[("KillMode", "control-group"), ("NoNewPrivileges", "no")]].concat();
        let row_of = row(Unit::Helper, &deadly).expect("a row");
        assert!(
            row_of.starts_with(
                "Fail hardening: bangerd-root.service has KillMode=control-group, so that VMs may end"
            ),
            "{row_of}"
        );
        let daemon = [("KillMode", "process"), ("CapabilityBoundingSet", ""), ("RestrictSUIDSGID", "yes")];
        assert_eq!(row(Unit::Daemon, &daemon), None);
        let more = row(Unit::Daemon, &[("CapabilityBoundingSet", "cap_kill")]).expect("a row");
        assert!(
            more.starts_with(
                "Warn hardening: bangerd.service has CapabilityBoundingSet with 1 more and 0 fewer"
            ),
            "{more}"
        );
        assert_eq!(
            row(Unit::HelperSocket, &[("KillMode", "control-group")]),
            None,
            "a socket sets none of it"
        );
    }

    #[test]
    fn a_process_that_began_before_its_unit_was_hardened_is_noticed() {
        let hardened =
            with(&[("NoNewPrivileges", "yes"), ("CapabilityBoundingSet", "cap_kill cap_net_admin")]);
        let row = |bounding: &str, privileges: &str| {
            as_started(
                Unit::Helper,
                &hardened,
                &format!("Name:\tx\nNoNewPrivs:\t{privileges}\nCapBnd:\t{bounding}\n"),
            )
        };
        assert_eq!(row("0000000000001020", "1"), None);
        assert_eq!(row("0000000000000020", "1"), None, "it may give up more");
        assert!(row("000001ffffffffff", "1").is_some());
        assert!(row("0000000000001020", "0").is_some());
        let daemon = with(&[("NoNewPrivileges", "yes"), ("CapabilityBoundingSet", "")]);
        assert_eq!(as_started(Unit::Daemon, &daemon, "NoNewPrivs:\t1\nCapBnd:\t0000000000000000\n"), None);
    }
}
