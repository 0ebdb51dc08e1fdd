//! Where a repository comes from, as a guest may know it: without what lets one in.

/// `url`, as git takes them (gitfaq, gitremote-helpers), without user and password of web addresses, without the password of others, and
/// without what a web address asks for; None: it is not for a guest, as it holds control characters or is a command.
pub fn without_credentials(url: &str) -> Option<String> {
    if url.is_empty() || url.chars().any(char::is_control) {
        return None;
    }
    // A remote helper's: `transport::address`.
    if let Some((helper, address)) = url.split_once("::")
        && helper.chars().all(|c| c.is_ascii_alphanumeric() || c == '-')
    {
        // These run what the address says, and nobody knows what two of them would mean.
        if matches!(helper, "" | "ext" | "fd") || address.contains("::") {
            return None;
        }
        return without_credentials(address).map(|address| format!("{helper}::{address}"));
    }
    let Some((scheme, rest)) = url.split_once("://") else { return Some(scp_like(url)) };
    let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
    let (authority, mut path) = rest.split_at(end);
    let (user, host) = match authority.rsplit_once('@') {
        Some((user, host)) => (user.split(':').next().unwrap_or_default(), host),
        None => ("", authority),
    };
    // A password with a slash that is not encoded: git would not understand it, and people write it.
    let port = host.rsplit_once(']').map_or(host, |(_, port)| port).rsplit_once(':').map(|(_, port)| port);
    let no_port = port.is_some_and(|port| !port.bytes().all(|b| b.is_ascii_digit()));
    if no_port || (port.is_some() && user.is_empty() && path.contains('@')) {
        return None;
    }
    let ssh = matches!(scheme.to_ascii_lowercase().as_str(), "ssh" | "git+ssh" | "ssh+git");
    if !ssh {
        path = path.split(['?', '#']).next().unwrap_or_default();
    }
    Some(match ssh && !user.is_empty() {
        true => format!("{scheme}://{user}@{host}{path}"),
        false => format!("{scheme}://{host}{path}"),
    })
}

/// `user@host:path` or a path. What stands before the host behind a colon would be a password; ssh does not take one there, but people
/// write it.
fn scp_like(url: &str) -> String {
    let Some((first, rest)) = url.split_once(':') else { return url.to_owned() };
    let end = rest.find('/').unwrap_or(rest.len());
    match rest[..end].rfind('@') {
        Some(at) if !first.contains(['/', '@']) => rest[at + 1..].to_owned(),
        _ => url.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_lets_one_in_does_not_go_into_a_guest() {
        let table = [
            ("https://github.com/a/b.git", Some("https://github.com/a/b.git")),
            ("https://me:secret@host:8443/a", Some("https://host:8443/a")),
            ("https://ghp_token@host/a", Some("https://host/a")),
            ("HTTPS://u:p@ss@host/a@b", Some("HTTPS://host/a@b")),
            ("https://host/a?private_token=x#y", Some("https://host/a")),
            ("https://u:p@host", Some("https://host")),
            ("ftp://u:p@host/a", Some("ftp://host/a")),
            ("ssh://git@host:22/a", Some("ssh://git@host:22/a")),
            ("ssh://git:pw@host/~a", Some("ssh://git@host/~a")),
            ("git@github.com:a/b@v1.git", Some("git@github.com:a/b@v1.git")),
            ("host:a/b", Some("host:a/b")),
            ("me:secret@host:a/b", Some("host:a/b")),
            ("/srv/git/a:b@c", Some("/srv/git/a:b@c")),
            ("../a", Some("../a")),
            ("file:///srv/a", Some("file:///srv/a")),
            ("codecommit::https://u:p@host/a", Some("codecommit::https://host/a")),
            ("https://host/a@b", Some("https://host/a@b")),
            ("https://[::1]:8443/a", Some("https://[::1]:8443/a")),
            ("https://[::1]/a", Some("https://[::1]/a")),
            ("https://u:pa/ss@host/r", None),
            ("https://u:12/ss@host/r", None),
            ("https://u:pa#ss@host/r", None),
            ("ext::sh -c touch% /tmp/x", None),
            ("::::::a", None),
            ("a::b::c", None),
            ("https://host/a\r", None),
            ("a\n[core]", None),
            ("", None),
        ];
        for (url, want) in table {
            assert_eq!(without_credentials(url).as_deref(), want, "{url:?}");
        }
    }
}
