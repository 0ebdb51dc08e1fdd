//! Users of this host. A static executable has no NSS, so /etc/passwd is read here, and who is not in it is asked of getent(1).

use std::io;
use std::path::{Path, PathBuf};

use crate::host::cmd;

/// A user.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Account {
    pub name: String,
    pub uid: u32,
    pub gid: u32,
    pub home: PathBuf,
}

/// login.defs(5): below are services, where it says nothing else.
const UID_MIN: u32 = 1000;
/// The user that is nobody, here and on NFS (systemd: UIDS-GIDS.md).
const NOBODY: u32 = 65534;

/// Looks for `name`; None: there is no such user.
pub fn find(name: &str) -> io::Result<Option<Account>> {
    if let Some(account) = parse(&std::fs::read_to_string("/etc/passwd")?, name) {
        return Ok(Some(account));
    }
    // The network's users. Its exit status is 2 for one that nobody knows, and it need not be installed.
    match cmd::run("getent", ["passwd", "--", name]) {
        Ok(line) => Ok(parse(&String::from_utf8_lossy(&line), name)),
        Err(_) => Ok(None),
    }
}

/// The user `name` in `passwd` (passwd(5)).
fn parse(passwd: &str, name: &str) -> Option<Account> {
    let account = |line: &str| {
        let fields: Vec<&str> = line.split(':').collect();
        match fields.as_slice() {
            [user, _, uid, gid, _, home, ..] if *user == name => Some(Account {
                name: name.to_owned(),
                uid: uid.parse().ok()?,
                gid: gid.parse().ok()?,
                home: PathBuf::from(home),
            }),
            _ => None,
        }
    };
    passwd.lines().find_map(account)
}

/// What is at a user's home.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Home {
    Missing,
    /// A directory of the user with this uid.
    Of(u32),
}

/// Looks at `home`.
pub fn home(home: &Path) -> Home {
    use std::os::unix::fs::MetadataExt;
    match std::fs::metadata(home) {
        Ok(meta) if meta.is_dir() => Home::Of(meta.uid()),
        Ok(_) | Err(_) => Home::Missing,
    }
}

/// The first uid that is a person's, by login.defs(5).
pub fn first_person() -> u32 {
    std::fs::read_to_string("/etc/login.defs").ok().and_then(|text| uid_min(&text)).unwrap_or(UID_MIN)
}

fn uid_min(login_defs: &str) -> Option<u32> {
    let mut lines = login_defs.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
    lines.find_map(|words| match words.as_slice() {
        ["UID_MIN", value, ..] => value.parse().ok(),
        _ => None,
    })
}

/// Says why VMs cannot be this user's: a sentence without its end, such as `is a service's account`.
pub fn unfit(account: &Account, first_person: u32, home: Home) -> Option<String> {
    let named = |c: char| c.is_ascii_alphanumeric() || "_.@-".contains(c);
    match home {
        // A unit's text has words of its own (systemd.unit(5), specifiers).
        _ if account.name.starts_with('-') || !account.name.chars().all(named) => {
            Some("has a name that systemd does not take".to_owned())
        }
        // The daemon is the part without privilege; as root it would be the helper as well. Root has banger without an installation.
        _ if account.uid == 0 => Some("is root, whose `banger` works without an installation".to_owned()),
        _ if account.uid == NOBODY || account.uid == u32::MAX || account.uid < first_person => {
            Some(format!("is a service's account (uid {}), not a person's", account.uid))
        }
        Home::Missing => Some(format!("has no home; {} is no directory", account.home.display())),
        Home::Of(uid) if uid != account.uid => {
            Some(format!("has no home of their own; {} belongs to uid {uid}", account.home.display()))
        }
        Home::Of(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PASSWD: &str = "root:x:0:0:root:/root:/bin/bash\n# a comment\nbroken:x\nme:x:1000:100:Me,,,:/home/me:/bin/bash\n\
                          mean:x:1001:100::/home/mean:\nodd:x:x:1::/:/bin/sh\n";

    #[test]
    fn a_user_is_found_by_the_whole_name() {
        let me = Account { name: "me".to_owned(), uid: 1000, gid: 100, home: "/home/me".into() };
        assert_eq!(parse(PASSWD, "me"), Some(me));
        for nobody in ["m", "", "broken", "odd", "# a comment", "Me,,,"] {
            assert_eq!(parse(PASSWD, nobody), None, "{nobody}");
        }
    }

    #[test]
    fn an_owner_is_a_person_with_a_home() {
        let account =
            |name: &str, uid: u32| Account { name: name.to_owned(), uid, gid: 1, home: "/home/x".into() };
        let table = [
            (account("me", 1000), Home::Of(1000), None),
            (account("me@corp.example", 700_000), Home::Of(700_000), None),
            (account("root", 0), Home::Of(0), Some("is root, whose")),
            (account("www-data", 33), Home::Of(33), Some("is a service's account (uid 33)")),
            (account("nobody", 65534), Home::Of(65534), Some("is a service's account")),
            (account("me", 1000), Home::Missing, Some("has no home; /home/x")),
            (account("me", 1000), Home::Of(0), Some("has no home of their own; /home/x belongs to uid 0")),
            (account("a%nb", 1000), Home::Of(1000), Some("has a name that systemd")),
            (account("-me", 1000), Home::Of(1000), Some("has a name that systemd")),
        ];
        for (account, home, want) in table {
            let why = unfit(&account, 1000, home);
            assert_eq!(why.is_some(), want.is_some(), "{account:?}: {why:?}");
            assert!(why.unwrap_or_default().starts_with(want.unwrap_or_default()), "{account:?}");
        }
    }

    #[test]
    fn the_first_person_is_whom_login_defs_says() {
        assert_eq!(uid_min("# UID_MIN 7\nUID_MIN\t\t\t 500\nUID_MAX 60000\n"), Some(500));
        assert_eq!(uid_min("SYS_UID_MIN 100\n"), None);
    }
}
