//! Questions to a name server, and what its answers mean. Pure: bytes in, bytes out.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use simple_dns::rdata::RData;
use simple_dns::{CLASS, Name, Packet, PacketFlag, QCLASS, QTYPE, RCODE, TYPE};

/// As many addresses of a family are used.
const MAX_ADDRESSES: usize = 8;
/// As many aliases may lie between a name and its address.
const MAX_ALIASES: usize = 16;

/// A question as it is sent.
#[derive(Debug)]
pub struct Question {
    id: u16,
    name: Vec<Vec<u8>>,
    kind: TYPE,
    pub bytes: Vec<u8>,
}

/// What the answer to a question says.
#[derive(Debug, PartialEq, Eq)]
pub enum Answer {
    /// None: the name does not exist, or has no address of this family.
    Addresses(Vec<IpAddr>),
    /// It did not fit; TCP will do.
    Truncated,
    /// The server will not, or cannot, say.
    Failed(&'static str),
}

impl Question {
    /// The questions for both families; None: the text cannot be a name. An id is random: who forges an answer has to
    /// guess it, and the port.
    pub fn both(name: &str) -> Option<[Self; 2]> {
        Some([Self::new(name, TYPE::A)?, Self::new(name, TYPE::AAAA)?])
    }

    fn new(text: &str, kind: TYPE) -> Option<Self> {
        let text = text.strip_suffix('.').unwrap_or(text);
        let allowed = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.');
        if text.is_empty()
            || text.len() > 253
            || text.split('.').any(str::is_empty)
            || !text.bytes().all(allowed)
        {
            return None;
        }
        let mut id = [0; 2];
        rustix::rand::getrandom(&mut id, rustix::rand::GetRandomFlags::empty()).ok()?;
        let id = u16::from_ne_bytes(id);
        let name = Name::new(text).ok()?;
        let mut packet = Packet::new_query(id);
        packet.set_flags(PacketFlag::RECURSION_DESIRED);
        packet.questions.push(simple_dns::Question::new(
            name.clone(),
            QTYPE::TYPE(kind),
            QCLASS::CLASS(CLASS::IN),
            false,
        ));
        Some(Self { id, name: labels(&name), kind, bytes: packet.build_bytes_vec().ok()? })
    }

    /// What `message` answers to this question; None: it is no answer to it.
    pub fn judge(&self, message: &[u8]) -> Option<Answer> {
        // The id and the truncation flag are looked at before the rest is parsed: a message cut short may not parse.
        let id = u16::from_be_bytes([*message.first()?, *message.get(1)?]);
        let (response, truncated) = (message.get(2)? & 0x80 != 0, message.get(2)? & 0x02 != 0);
        if id != self.id || !response {
            return None;
        }
        let packet = match Packet::parse(message) {
            Ok(packet) => packet,
            Err(_) if truncated => return Some(Answer::Truncated),
            Err(_) => return None,
        };
        let [asked] = packet.questions.as_slice() else { return None };
        if labels(&asked.qname) != self.name || asked.qtype != QTYPE::TYPE(self.kind) {
            return None;
        }
        if truncated {
            return Some(Answer::Truncated);
        }
        Some(match packet.rcode() {
            RCODE::NoError => Answer::Addresses(self.addresses(&packet)),
            RCODE::NameError => Answer::Addresses(vec![]),
            RCODE::ServerFailure => Answer::Failed("server failure"),
            RCODE::Refused => Answer::Failed("refused"),
            RCODE::FormatError => Answer::Failed("format error"),
            _ => Answer::Failed("an error"),
        })
    }

    /// The addresses of the name, and of the names that it is an alias of.
    fn addresses(&self, packet: &Packet<'_>) -> Vec<IpAddr> {
        let mut owner = self.name.clone();
        for _ in 0..=MAX_ALIASES {
            let records: Vec<_> = packet
                .answers
                .iter()
                .filter(|r| r.class == CLASS::IN && labels(&r.name) == owner)
                .map(|r| &r.rdata)
                .collect();
            let mut found: Vec<IpAddr> = records
                .iter()
                .filter_map(|data| match data {
                    RData::A(a) if self.kind == TYPE::A => Some(Ipv4Addr::from(a.address).into()),
                    RData::AAAA(a) if self.kind == TYPE::AAAA => Some(Ipv6Addr::from(a.address).into()),
                    _ => None,
                })
                .collect();
            if !found.is_empty() {
                found.truncate(MAX_ADDRESSES);
                return found;
            }
            let alias = records.iter().find_map(|data| match data {
                RData::CNAME(alias) => Some(labels(&alias.0)),
                _ => None,
            });
            match alias {
                Some(alias) => owner = alias,
                None => break,
            }
        }
        vec![]
    }
}

/// A name's labels as they compare: without regard to case.
fn labels(name: &Name<'_>) -> Vec<Vec<u8>> {
    name.as_bytes().map(<[u8]>::to_ascii_lowercase).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cannot_be_a_name_is_not_asked_for() {
        let long = format!("{}.example", "x".repeat(64));
        for text in ["", ".", "a..b", "a b", "a\0b", "é.example", "a/b", &long, &"a.".repeat(200)] {
            assert!(Question::both(text).is_none(), "{text:?}");
        }
        assert!(Question::both("Registry-1.docker_x.io.").is_some());
    }

    #[test]
    fn only_an_answer_to_the_question_is_judged() {
        let question = Question::new("a.example", TYPE::A).expect("a question");
        assert_eq!(question.judge(&question.bytes), None, "the question itself is no answer");
        let mut echo = question.bytes.clone();
        echo[2] |= 0x80;
        assert_eq!(question.judge(&echo), Some(Answer::Addresses(vec![])));
        let mut other_id = echo.clone();
        other_id[1] ^= 1;
        assert_eq!(question.judge(&other_id), None);
        let mut other_name = echo.clone();
        other_name[13] ^= 1;
        assert_eq!(question.judge(&other_name), None);
        let mut other_case = echo.clone();
        other_case[13] ^= 0x20;
        assert!(question.judge(&other_case).is_some());
        let mut truncated = echo.clone();
        truncated[2] |= 2;
        assert_eq!(question.judge(&truncated), Some(Answer::Truncated));
        let mut refused = echo;
        refused[3] = 5;
        assert_eq!(question.judge(&refused), Some(Answer::Failed("refused")));
    }

    proptest::proptest! {
        #[test]
        fn any_bytes_are_judged(tail in proptest::collection::vec(proptest::num::u8::ANY, 0..600)) {
            let question = Question::new("a.example", TYPE::A).expect("a question");
            let mut message = question.bytes.clone();
            message[2] |= 0x80;
            message[6..12].copy_from_slice(&[0, 3, 0, 1, 0, 1]);
            message.extend(&tail);
            drop(question.judge(&message));
            drop(question.judge(&tail));
        }
    }
}
