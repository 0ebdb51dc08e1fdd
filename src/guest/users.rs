//! Users as the image knows them: /etc/passwd and /etc/group, read by ourselves. glibc's getpwnam would load the image's
//! libraries into our static executable, and a scratch image has none.

use std::fs::File;
use std::io::Read;

/// Whom a command runs as.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct User {
    /// None: a number that /etc/passwd does not have.
    pub name: Option<String>,
    pub uid: u32,
    pub gid: u32,
    /// The supplementary groups.
    pub groups: Vec<u32>,
    pub home: String,
    /// None: /etc/passwd says nothing about one.
    pub shell: Option<String>,
}

/// There is no such user or group; a sentence.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NoUser(pub String);

/// Both files; empty where the image has none.
pub fn read_files() -> (String, String) {
    (read("/etc/passwd"), read("/etc/group"))
}

fn read(path: &str) -> String {
    // An image can hold anything; what lies beyond a mebibyte is not looked at.
    let mut bytes = vec![];
    let read = File::open(path).and_then(|file| file.take(1 << 20).read_to_end(&mut bytes));
    if read.is_err() {
        bytes.clear();
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

/// Finds `name`, `name:group`, `uid`, `uid:gid`, or a mixture, as docker does (moby: sys/user, GetExecUser): numbers need no
/// entry, a group that is asked for replaces all others, and without an entry the group is 0 and the home `/`. Root needs no
/// entry either.
pub fn find(spec: &str, passwd: &str, group: &str) -> Result<User, NoUser> {
    let (user, wanted_group) = match spec.split_once(':') {
        Some((user, group)) => (user, Some(group).filter(|group| !group.is_empty())),
        None => (spec, None),
    };
    let user = if user.is_empty() { "0" } else { user };
    let number = user.parse::<u32>().ok();
    let entries = || passwd.lines().filter_map(entry);
    let entry = entries()
        .find(|e| e.name.as_deref() == Some(user))
        .or_else(|| entries().find(|e| Some(e.uid) == number));
    let mut found = match (entry, number) {
        (Some(entry), _) => entry,
        (None, Some(uid)) => nameless(uid),
        (None, None) if user == "root" => User { name: Some("root".to_owned()), ..nameless(0) },
        (None, None) => return Err(NoUser(format!("the guest has no user {user:?}; see its /etc/passwd"))),
    };
    match wanted_group {
        Some(wanted) => {
            let by_name = groups(group).find(|g| g.0 == wanted).map(|g| g.1);
            found.gid = by_name
                .or_else(|| wanted.parse().ok())
                .ok_or_else(|| NoUser(format!("the guest has no group {wanted:?}; see its /etc/group")))?;
        }
        None => {
            if let Some(name) = &found.name {
                found.groups =
                    groups(group).filter(|g| g.2.split(',').any(|m| m == name)).map(|g| g.1).collect();
            }
        }
    }
    Ok(found)
}

fn nameless(uid: u32) -> User {
    User { name: None, uid, gid: 0, groups: vec![], home: "/".to_owned(), shell: None }
}

/// `name:password:uid:gid:gecos:home:shell` (passwd(5)).
fn entry(line: &str) -> Option<User> {
    let fields: Vec<&str> = line.split(':').collect();
    let [name, _, uid, gid, rest @ ..] = &fields[..] else { return None };
    if name.is_empty() || name.starts_with('#') {
        return None;
    }
    let some = |n: usize| rest.get(n).map(|s| s.trim().to_owned()).filter(|s| !s.is_empty());
    Some(User {
        name: Some((*name).to_owned()),
        uid: uid.parse().ok()?,
        gid: gid.parse().ok()?,
        groups: vec![],
        home: some(1).unwrap_or_else(|| "/".to_owned()),
        shell: some(2),
    })
}

/// `name:password:gid:member,member` (group(5)).
fn groups(file: &str) -> impl Iterator<Item = (&str, u32, &str)> {
    file.lines().filter_map(|line| {
        let mut fields = line.split(':');
        let (name, _, gid) = (fields.next()?, fields.next()?, fields.next()?.parse().ok()?);
        Some((name, gid, fields.next().unwrap_or_default().trim()))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const PASSWD: &str = "root:x:0:0:root:/root:/bin/bash\n# comment\nbroken\nnobody:x:65534:65534::/:/usr/sbin/nologin\n\
                          app:x:1000:1001::/srv/app:/bin/sh\n12:x:77:78:::\n";
    const GROUP: &str = "root:x:0:\nwheel:x:10:root,app\ndocker:x:999:app\nbad\nstaff:x:50:\n";

    fn found(spec: &str) -> Result<(u32, u32, Vec<u32>, String), String> {
        find(spec, PASSWD, GROUP).map(|u| (u.uid, u.gid, u.groups, u.home)).map_err(|e| e.0)
    }

    #[test]
    fn users_are_found_as_docker_finds_them() {
        let table: [(&str, u32, u32, &[u32], &str); 11] = [
            ("root", 0, 0, &[10], "/root"),
            ("", 0, 0, &[10], "/root"),
            ("0", 0, 0, &[10], "/root"),
            ("app", 1000, 1001, &[10, 999], "/srv/app"),
            ("1000", 1000, 1001, &[10, 999], "/srv/app"),
            ("app:staff", 1000, 50, &[], "/srv/app"),
            ("app:4711", 1000, 4711, &[], "/srv/app"),
            ("app:", 1000, 1001, &[10, 999], "/srv/app"),
            ("4711", 4711, 0, &[], "/"),
            ("4711:4712", 4711, 4712, &[], "/"),
            // A name made of digits is a name first.
            ("12", 77, 78, &[], "/"),
        ];
        for (spec, uid, gid, groups, home) in table {
            assert_eq!(found(spec), Ok((uid, gid, groups.to_vec(), home.to_owned())), "{spec:?}");
        }
    }

    #[test]
    fn a_user_or_group_that_is_not_there_is_named() {
        let error = found("bob").expect_err("no bob");
        assert_eq!(error, "the guest has no user \"bob\"; see its /etc/passwd");
        assert_eq!(
            found("app:bobs").expect_err("no bobs"),
            "the guest has no group \"bobs\"; see its /etc/group"
        );
        assert!(found("-1").is_err());
        assert!(found("4294967296").is_err());
        assert!(found("# comment").is_err());
    }

    #[test]
    fn an_image_without_passwd_has_root_and_numbers() {
        let root = find("root", "", "").expect("root is always there");
        assert_eq!((root.uid, root.name.as_deref(), root.home.as_str()), (0, Some("root"), "/"));
        assert_eq!(find("5", "", "").map(|u| (u.uid, u.name)), Ok((5, None)));
        assert!(find("app", "", "").is_err());
    }
}
