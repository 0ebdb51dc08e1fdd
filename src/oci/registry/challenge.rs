//! What a registry wants to be shown: WWW-Authenticate (RFC 9110, 11.6.1).

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Challenge {
    Basic,
    /// A token is to be had at `realm`.
    Bearer {
        realm: String,
        service: Option<String>,
    },
}

/// The challenge to be met among a response's headers: Bearer if there is one, since Basic is often there for browsers.
pub fn choose<'a>(headers: impl Iterator<Item = &'a str>) -> Option<Challenge> {
    let all: Vec<Challenge> = headers.flat_map(parse).collect();
    let bearer = all.iter().find(|c| matches!(c, Challenge::Bearer { .. }));
    bearer.or_else(|| all.first()).cloned()
}

fn parse(header: &str) -> Vec<Challenge> {
    let mut found: Vec<(String, Vec<(String, String)>)> = vec![];
    for item in items(header) {
        // `Bearer realm="x"` begins a challenge, `service="y"` belongs to the one before.
        let (scheme, rest) = match item.split_once(' ') {
            Some((scheme, rest)) if !scheme.contains('=') => (Some(scheme), rest.trim()),
            None if !item.contains('=') => (Some(item.as_str()), ""),
            _ => (None, item.as_str()),
        };
        if let Some(scheme) = scheme {
            found.push((scheme.to_ascii_lowercase(), vec![]));
        }
        if let (Some((_, parameters)), Some((name, value))) = (found.last_mut(), rest.split_once('=')) {
            parameters.push((name.trim().to_ascii_lowercase(), unquote(value.trim())));
        }
    }
    let one = |(scheme, parameters): (String, Vec<(String, String)>)| {
        let get = |name: &str| parameters.iter().find(|(n, _)| n == name).map(|(_, v)| v.clone());
        match scheme.as_str() {
            "basic" => Some(Challenge::Basic),
            "bearer" => Some(Challenge::Bearer { realm: get("realm")?, service: get("service") }),
            _ => None,
        }
    };
    found.into_iter().filter_map(one).collect()
}

/// Splits at commas outside quotes.
fn items(header: &str) -> Vec<String> {
    let mut items = vec![String::new()];
    let (mut quoted, mut escaped) = (false, false);
    for c in header.chars() {
        match c {
            ',' if !quoted => items.push(String::new()),
            _ => {
                if let Some(item) = items.last_mut() {
                    item.push(c);
                }
                if c == '"' && !escaped {
                    quoted = !quoted;
                }
                escaped = quoted && c == '\\' && !escaped;
            }
        }
    }
    items.into_iter().map(|i| i.trim().to_owned()).filter(|i| !i.is_empty()).collect()
}

fn unquote(value: &str) -> String {
    let Some(inner) = value.strip_prefix('"').and_then(|v| v.strip_suffix('"')) else {
        return value.to_owned();
    };
    let mut text = String::new();
    let mut chars = inner.chars();
    while let Some(c) = chars.next() {
        text.extend(if c == '\\' { chars.next() } else { Some(c) });
    }
    text
}

/// Percent-encodes all but unreserved characters (RFC 3986, 2.3).
pub fn encode(text: &str) -> String {
    let unreserved = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.' | b'_' | b'~');
    text.bytes()
        .map(|b| if unreserved(b) { char::from(b).to_string() } else { format!("%{b:02X}") })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bearer(realm: &str, service: Option<&str>) -> Challenge {
        Challenge::Bearer { realm: realm.to_owned(), service: service.map(str::to_owned) }
    }

    #[test]
    fn challenges_are_parsed() {
        let hub = r#"Bearer realm="https://auth.docker.io/token",service="registry.docker.io",scope="repository:a:pull,push""#;
        let table: [(&[&str], Option<Challenge>); 8] = [
            (&[hub], Some(bearer("https://auth.docker.io/token", Some("registry.docker.io")))),
            (&[r#"Basic realm="x, y=z""#], Some(Challenge::Basic)),
            (&[r#"Basic realm="x", Bearer realm="https://t/""#], Some(bearer("https://t/", None))),
            (&["Basic", r#"bearer  REALM=https://t/"#], Some(bearer("https://t/", None))),
            (&[r#"Bearer realm="https://t/\"a\"""#], Some(bearer("https://t/\"a\"", None))),
            (&["Bearer service=x"], None),
            (&["Negotiate"], None),
            (&[], None),
        ];
        for (headers, want) in table {
            assert_eq!(choose(headers.iter().copied()), want, "{headers:?}");
        }
    }

    proptest::proptest! {
        #[test]
        fn any_header_is_parsed(text in "\\PC{0,100}|[a-zA-Z =\",\\\\]{0,60}") {
            drop(choose([text.as_str()].into_iter()));
        }
    }
}
