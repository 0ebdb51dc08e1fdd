//! Our rules in the table filter of iptables, and so of Docker and ufw: which they are and where they belong. Pure.
//!
//! They come last before a chain gives up: before a rule that refuses all, before ufw's chains for what nobody wanted, or at the
//! end, where there is the policy. So whatever somebody has refused or accepted by a rule of his own, stays so.

use std::fmt::Write;

use crate::network::names::BRIDGE;

/// Those that packets of VMs meet.
pub const CHAINS: [&str; 2] = ["FORWARD", "INPUT"];
/// The beginning of our rules' comments; the rest says which it is, and so all that it consists of.
const COMMENT: &str = "banger:";

/// What `iptables -S` shows of a chain.
#[derive(Debug, Default)]
struct Chain<'a> {
    /// The policy is to drop.
    drops: bool,
    rules: Vec<Vec<&'a str>>,
}

/// What iptables-restore --noflush takes to get from `listing` to rules of ours where they are needed; None: nothing is to be done.
///
/// `dns_port`: None for no rules at all.
pub fn script(listing: &str, dns_port: Option<u16>) -> Option<String> {
    let mut script = String::new();
    for name in CHAINS {
        let chain = Chain::parse(listing, name);
        let wanted = match dns_port {
            Some(dns_port) if chain.blocks(listing) => rules(name, dns_port),
            _ => vec![],
        };
        chain.change(name, &wanted, &mut script);
    }
    (!script.is_empty()).then(|| format!("*filter\n{script}COMMIT\n"))
}

/// What identifies a rule, and the rule.
type Rule = (String, String);

/// For the way out, the way back, and DNS. Echo requests to the gateway are not worth a rule.
fn rules(chain: &str, dns_port: u16) -> Vec<Rule> {
    let rule = |what: String, matches: String| {
        let comment = format!("{COMMENT}{what}");
        let text = format!("{matches} -m comment --comment {comment} -j ACCEPT");
        (comment, text)
    };
    match chain {
        "FORWARD" => vec![
            rule("out".to_owned(), format!("-i {BRIDGE} ! -o {BRIDGE}")),
            rule("back".to_owned(), format!("-o {BRIDGE} -m conntrack --ctstate RELATED,ESTABLISHED")),
        ],
        _ => ["udp", "tcp"]
            .map(|protocol| {
                let matches = format!("-i {BRIDGE} -p {protocol} -m {protocol} --dport {dns_port}");
                rule(format!("dns-{protocol}-{dns_port}"), matches)
            })
            .into(),
    }
}

impl<'a> Chain<'a> {
    fn parse(listing: &'a str, name: &str) -> Self {
        let mut chain = Self::default();
        for line in listing.lines() {
            match words(line)[..] {
                ["-P", n, policy] if n == name => chain.drops = policy == "DROP",
                ["-A", n, ref rule @ ..] if n == name => chain.rules.push(rule.to_vec()),
                _ => {}
            }
        }
        chain
    }

    /// By its policy, by a rule for all, or by a chain with such a rule. Ufw's jumps are there, and do nothing, while it is disabled.
    fn blocks(&self, listing: &str) -> bool {
        let refused_by_another = |rule: &Vec<&str>| match rule[..] {
            ["-j", other] => Chain::parse(listing, other).rules.iter().any(|rule| refuses_all(rule)),
            _ => false,
        };
        self.drops || self.rules.iter().any(|rule| refuses_all(rule) || refused_by_another(rule))
    }

    /// The place of the first rule at which the chain gives up.
    fn end(&self) -> usize {
        self.rules.iter().position(|rule| gives_up(rule)).unwrap_or(self.rules.len())
    }

    /// Adds to `script` what brings `wanted` where they belong, and nothing if they are there, and nowhere else.
    fn change(&self, name: &str, wanted: &[Rule], script: &mut String) {
        let ours: Vec<usize> =
            (0..self.rules.len()).filter(|at| comment(&self.rules[*at]).is_some()).collect();
        let end = self.end();
        let first = end.saturating_sub(wanted.len());
        let there = ours.iter().map(|at| comment(&self.rules[*at]));
        if ours.iter().copied().eq(first..end.max(first))
            && there.eq(wanted.iter().map(|(c, _)| Some(c.as_str())))
        {
            return;
        }
        // From the last on, so that the numbers of the rest stay.
        for at in ours.iter().rev() {
            script.push_str(&format!("-D {name} {}\n", at + 1));
        }
        let before = ours.iter().filter(|at| **at < end).count();
        for (place, (_, rule)) in wanted.iter().enumerate() {
            let number = end - before + place + 1;
            // Writing to a String does not fail.
            writeln!(script, "-I {name} {number} {rule}").unwrap_or_default();
        }
    }
}

/// Ours, by its comment.
fn comment<'a>(rule: &[&'a str]) -> Option<&'a str> {
    let [_, comment] = rule.windows(2).find(|pair| pair[0] == "--comment")? else { return None };
    comment.starts_with(COMMENT).then_some(comment)
}

fn refuses_all(rule: &[&str]) -> bool {
    match rule {
        ["-m", "comment", "--comment", _, rest @ ..] => refuses_all(rest),
        ["-j", "DROP"] | ["-j", "REJECT", ..] => true,
        _ => false,
    }
}

/// It refuses all that comes to it, or leads to what ufw does when no rule of its user's was about a packet.
fn gives_up(rule: &[&str]) -> bool {
    refuses_all(rule)
        || matches!(rule, ["-j", target] if target.starts_with("ufw-after-") || target.starts_with("ufw-reject-"))
}

/// The words of a line; what is in quotes is one.
fn words(line: &str) -> Vec<&str> {
    let mut words = vec![];
    let mut rest = line.trim();
    while !rest.is_empty() {
        let (word, after) = match rest.strip_prefix('"') {
            Some(quoted) => quoted.split_once('"').unwrap_or((quoted, "")),
            None => rest.split_once(' ').unwrap_or((rest, "")),
        };
        words.push(word);
        rest = after.trim_start();
    }
    words
}

#[cfg(test)]
mod tests {
    use super::*;

    const OUT: &str = "-i br-banger ! -o br-banger -m comment --comment banger:out -j ACCEPT";
    const BACK: &str =
        "-o br-banger -m conntrack --ctstate RELATED,ESTABLISHED -m comment --comment banger:back -j ACCEPT";

    fn docker(ours: &[&str]) -> String {
        let ours: String = ours.iter().map(|rule| format!("-A FORWARD {rule}\n")).collect();
        format!(
            "-P INPUT ACCEPT\n-P FORWARD DROP\n-P OUTPUT ACCEPT\n-N DOCKER\n-N DOCKER-USER\n\
             -A FORWARD -j DOCKER-USER\n-A FORWARD -o docker0 -j DOCKER\n{ours}-A DOCKER-USER -j RETURN\n"
        )
    }

    #[test]
    fn dockers_policy_gets_our_rules_before_it_and_only_once() {
        assert_eq!(
            script(&docker(&[]), Some(42069)),
            Some(format!("*filter\n-I FORWARD 3 {OUT}\n-I FORWARD 4 {BACK}\nCOMMIT\n"))
        );
        assert_eq!(script(&docker(&[OUT, BACK]), Some(42069)), None);
        assert_eq!(
            script(&docker(&[OUT, BACK]), None).as_deref(),
            Some("*filter\n-D FORWARD 4\n-D FORWARD 3\nCOMMIT\n")
        );
        assert_eq!(script(&docker(&[]), None), None);
    }

    #[test]
    fn what_is_only_half_there_or_in_the_wrong_place_is_put_right() {
        let half = script(&docker(&[BACK]), Some(42069));
        assert_eq!(
            half,
            Some(format!("*filter\n-D FORWARD 3\n-I FORWARD 3 {OUT}\n-I FORWARD 4 {BACK}\nCOMMIT\n"))
        );
        let behind = docker(&[OUT, BACK, "-j DROP"]).replace("-A FORWARD -j DOCKER-USER\n", "");
        assert_eq!(script(&behind, Some(42069)), None);
        let late = docker(&["-j REJECT --reject-with icmp-host-prohibited", OUT, BACK]);
        assert_eq!(
            script(&late, Some(42069)),
            Some(format!(
                "*filter\n-D FORWARD 5\n-D FORWARD 4\n-I FORWARD 3 {OUT}\n-I FORWARD 4 {BACK}\nCOMMIT\n"
            ))
        );
        let early = docker(&[OUT, BACK, "-i eth7 -j DROP"]);
        assert_eq!(
            script(&early, Some(42069)),
            Some(format!(
                "*filter\n-D FORWARD 4\n-D FORWARD 3\n-I FORWARD 4 {OUT}\n-I FORWARD 5 {BACK}\nCOMMIT\n"
            )),
            "somebody's own refusal comes first"
        );
    }

    #[test]
    fn ufw_gets_them_before_its_chains_for_the_rest() {
        let chains = |name: &str| {
            let name = name.to_lowercase();
            let upper = name.to_uppercase();
            ["before-logging", "before", "after", "after-logging", "reject", "track"]
                .map(|part| format!("-A {upper} -j ufw-{part}-{name}\n"))
                .concat()
        };
        let listing = format!("-P INPUT DROP\n-P FORWARD DROP\n{}{}", chains("INPUT"), chains("FORWARD"));
        assert_eq!(
            script(&listing, Some(53)),
            Some(format!(
                "*filter\n-I FORWARD 3 {OUT}\n-I FORWARD 4 {BACK}\n\
                 -I INPUT 3 -i br-banger -p udp -m udp --dport 53 -m comment --comment banger:dns-udp-53 -j ACCEPT\n\
                 -I INPUT 4 -i br-banger -p tcp -m tcp --dport 53 -m comment --comment banger:dns-tcp-53 -j ACCEPT\nCOMMIT\n"
            ))
        );
    }

    #[test]
    fn who_blocks_nothing_gets_nothing() {
        assert_eq!(
            script("-P INPUT ACCEPT\n-P FORWARD ACCEPT\n-A FORWARD -i eth0 -j DROP\n", Some(53)),
            None
        );
        assert_eq!(script("", Some(53)), None);
        // Ufw, disabled, leaves its jumps; enabled, it may reject where others have a policy.
        let ufw = "-P FORWARD ACCEPT\n-N ufw-reject-forward\n-A FORWARD -j ufw-after-forward\n-A FORWARD -j ufw-reject-forward\n";
        assert_eq!(script(ufw, Some(53)), None);
        let rejecting = format!("{ufw}-A ufw-reject-forward -j REJECT --reject-with icmp-port-unreachable\n");
        assert!(script(&rejecting, Some(53)).expect("it blocks").starts_with("*filter\n-I FORWARD 1 "));
        // Docker is gone, its policy with it.
        let after = docker(&[OUT, BACK]).replace("DROP", "ACCEPT");
        assert_eq!(
            script(&after, Some(53)).as_deref(),
            Some("*filter\n-D FORWARD 4\n-D FORWARD 3\nCOMMIT\n")
        );
    }

    #[test]
    fn another_port_is_another_rule() {
        let listing = |port| {
            format!(
                "-P INPUT DROP\n-A INPUT -p udp -m comment --comment banger:dns-udp-{port} -j ACCEPT\n-A INPUT -p tcp -m comment --comment banger:dns-tcp-{port} -j ACCEPT\n"
            )
        };
        assert_eq!(script(&listing(53), Some(53)), None);
        let script = script(&listing(53), Some(54)).expect("changes");
        assert!(
            script.contains("-D INPUT 2\n-D INPUT 1\n-I INPUT 1 ") && script.contains("dns-udp-54"),
            "{script}"
        );
    }

    #[test]
    fn comments_in_quotes_are_one_word_and_not_ours() {
        let line = r#"-A FORWARD -m comment --comment "for banger: all" -j DROP"#;
        assert_eq!(words(line)[5], "for banger: all");
        let listing = format!("-P FORWARD ACCEPT\n{line}\n");
        let script = script(&listing, Some(53)).expect("it blocks");
        assert!(script.starts_with("*filter\n-I FORWARD 1 -i br-banger"), "{script}");
    }
}
