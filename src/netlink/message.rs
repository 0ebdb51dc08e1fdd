//! What a netlink message looks like (netlink(7)): a header, the family's own structure, then attributes.
//!
//! Requests are built, answers are read; whatever the kernel, or somebody in its place, answers, reading it never panics.

const HEADER: usize = 16;
const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;
const NLM_F_REQUEST: u16 = 1;
const NLM_F_ACK: u16 = 4;
const NLM_F_DUMP: u16 = 0x300;
const NLM_F_CREATE: u16 = 0x400;
const NLM_F_EXCL: u16 = 0x200;
/// The upper bits of an attribute's kind say that it is nested, and the order of its bytes (linux/netlink.h, NLA_TYPE_MASK).
const KIND_MASK: u16 = 0x3fff;
const NESTED: u16 = 0x8000;

/// What is asked of the kernel about the thing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verb {
    /// It exists; change it or remove it.
    Change,
    /// Make it; it must not exist.
    Create,
    /// Make it, or leave it as it is.
    Ensure,
    /// Tell about all of its kind.
    Dump,
    /// One end of a transaction, which is not acknowledged (nfnetlink).
    Bracket,
}

/// A request under construction. All numbers are the machine's own order.
pub struct Message(Vec<u8>);

impl Message {
    pub fn new(kind: u16, verb: Verb) -> Self {
        let flags = NLM_F_REQUEST
            | match verb {
                Verb::Change => NLM_F_ACK,
                Verb::Create => NLM_F_ACK | NLM_F_CREATE | NLM_F_EXCL,
                Verb::Ensure => NLM_F_ACK | NLM_F_CREATE,
                Verb::Dump => NLM_F_DUMP,
                Verb::Bracket => 0,
            };
        let mut bytes = vec![0; HEADER];
        bytes[4..6].copy_from_slice(&kind.to_ne_bytes());
        bytes[6..8].copy_from_slice(&flags.to_ne_bytes());
        Self(bytes)
    }

    pub fn bytes(&mut self, bytes: &[u8]) {
        self.0.extend_from_slice(bytes);
    }

    pub fn u32(&mut self, number: u32) {
        self.bytes(&number.to_ne_bytes());
    }

    /// Length (without the padding), kind, value, padding to four bytes.
    pub fn attribute(&mut self, kind: u16, value: &[u8]) {
        self.bytes(&((4 + value.len()) as u16).to_ne_bytes());
        self.bytes(&kind.to_ne_bytes());
        self.bytes(value);
        self.0.resize(self.0.len().next_multiple_of(4), 0);
    }

    /// A string with its final NUL.
    pub fn text(&mut self, kind: u16, value: &str) {
        self.attribute(kind, &[value.as_bytes(), &[0]].concat());
    }

    /// An attribute whose value is what `inside` adds.
    pub fn nested(&mut self, kind: u16, inside: impl FnOnce(&mut Self)) {
        let start = self.0.len();
        self.attribute(kind | NESTED, &[]);
        inside(self);
        let length = (self.0.len() - start) as u16;
        self.0[start..start + 2].copy_from_slice(&length.to_ne_bytes());
    }

    pub fn finish(mut self, sequence: u32) -> Vec<u8> {
        let length = self.0.len() as u32;
        self.0[..4].copy_from_slice(&length.to_ne_bytes());
        self.0[8..12].copy_from_slice(&sequence.to_ne_bytes());
        self.0
    }
}

/// One message of an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Answer<'a> {
    pub sequence: u32,
    pub said: Said<'a>,
}

/// What the kernel says in one message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Said<'a> {
    /// An acknowledgement: the errno, 0 for success.
    Verdict(i32),
    /// The dump is complete, or ended by that errno.
    Done(i32),
    /// Something else, of that kind: the family's structure and attributes.
    Tells(u16, &'a [u8]),
}

/// The messages of a datagram, up to the first that is cut.
pub fn answers(datagram: &[u8]) -> impl Iterator<Item = Answer<'_>> {
    let mut rest = datagram;
    std::iter::from_fn(move || {
        let length = u32_at(rest, 0)? as usize;
        let body = rest.get(HEADER..length)?;
        let kind = u16_at(rest, 4)?;
        let sequence = u32_at(rest, 8)?;
        rest = rest.get(length.next_multiple_of(4)..).unwrap_or_default();
        // An errno is sent as a negative number; what is none reads as success of nothing, so it is not believed.
        let errno = || u32_at(body, 0).and_then(|number| (number as i32).checked_neg());
        let said = match kind {
            NLMSG_ERROR => Said::Verdict(errno()?),
            NLMSG_DONE => Said::Done(errno().unwrap_or(0)),
            kind => Said::Tells(kind, body),
        };
        Some(Answer { sequence, said })
    })
}

/// The attributes in `bytes`, kind and value, up to the first that is cut.
pub fn attributes(bytes: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    let mut rest = bytes;
    std::iter::from_fn(move || {
        let length = usize::from(u16_at(rest, 0)?);
        let value = rest.get(4..length)?;
        let kind = u16_at(rest, 2)? & KIND_MASK;
        rest = rest.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some((kind, value))
    })
}

/// The value of the attribute of that kind.
pub fn attribute(bytes: &[u8], kind: u16) -> Option<&[u8]> {
    attributes(bytes).find(|(k, _)| *k == kind).map(|(_, value)| value)
}

/// A string without its final NUL; what is not UTF-8 is replaced.
pub fn text(value: &[u8]) -> String {
    let end = value.iter().position(|b| *b == 0).unwrap_or(value.len());
    String::from_utf8_lossy(&value[..end]).into_owned()
}

pub fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_ne_bytes(bytes.get(at..at.checked_add(2)?)?.try_into().ok()?))
}

pub fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_ne_bytes(bytes.get(at..at.checked_add(4)?)?.try_into().ok()?))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn error(errno: i32) -> Vec<u8> {
        let mut message = Message::new(NLMSG_ERROR, Verb::Change);
        message.u32((-errno) as u32);
        message.finish(1)
    }

    #[test]
    fn a_message_has_its_length_and_padded_attributes() {
        let mut message = Message::new(20, Verb::Create);
        message.u32(7);
        message.attribute(5, &[1, 2, 3]);
        let bytes = message.finish(9);
        assert_eq!(bytes.len(), 16 + 4 + 8);
        assert_eq!(bytes[..4], 28u32.to_ne_bytes());
        assert_eq!(bytes[4..6], 20u16.to_ne_bytes());
        assert_eq!(bytes[6..8], 0x605u16.to_ne_bytes());
        assert_eq!(bytes[8..12], 9u32.to_ne_bytes());
        assert_eq!(bytes[20..22], 7u16.to_ne_bytes());
        assert_eq!(bytes[22..28], [5, 0, 1, 2, 3, 0]);
    }

    #[test]
    fn what_was_nested_reads_back() {
        let mut message = Message::new(16, Verb::Change);
        message.nested(18, |inside| {
            inside.text(1, "bridge");
            inside.nested(2, |data| data.attribute(33, &[1]));
        });
        message.attribute(3, &[9]);
        let bytes = message.finish(1);
        let info = attribute(&bytes[16..], 18).expect("is there");
        assert_eq!(text(attribute(info, 1).expect("is there")), "bridge");
        assert_eq!(attribute(attribute(info, 2).expect("is there"), 33), Some(&[1][..]));
        assert_eq!(attribute(&bytes[16..], 3), Some(&[9][..]), "what follows is outside");
    }

    #[test]
    fn an_answer_that_is_cut_or_something_else_is_no_verdict() {
        let said = |bytes: &[u8]| answers(bytes).map(|a| format!("{:?}", a.said)).collect::<Vec<_>>();
        assert_eq!(said(&error(17)), ["Verdict(17)"]);
        assert_eq!(said(&[error(0), error(2)].concat()), ["Verdict(0)", "Verdict(2)"]);
        assert_eq!(said(&error(17)[..18]), [""; 0]);
        assert_eq!(said(&[]), [""; 0]);
        let mut other = Message::new(16, Verb::Change);
        other.u32(0);
        assert_eq!(said(&other.finish(1)), ["Tells(16, [0, 0, 0, 0])"]);
    }

    proptest! {
        #[test]
        fn whatever_is_answered_is_read_to_an_end(mut bytes in prop::collection::vec(any::<u8>(), 0..300), length in 0u32..80) {
            // Without a length that fits now and then nothing would be read at all.
            if bytes.len() >= 4 {
                bytes[..4].copy_from_slice(&length.to_ne_bytes());
            }
            for answer in answers(&bytes) {
                if let Said::Tells(_, body) = answer.said {
                    prop_assert!(attributes(body).count() <= body.len());
                }
            }
            prop_assert!(attributes(&bytes).all(|(_, value)| text(value).len() <= 3 * bytes.len()));
        }

        #[test]
        fn attributes_read_back_as_they_were_written(values in prop::collection::vec((0u16..0x3fff, prop::collection::vec(any::<u8>(), 0..40)), 0..10)) {
            let mut message = Message::new(16, Verb::Change);
            for (kind, value) in &values {
                message.attribute(*kind, value);
            }
            let bytes = message.finish(1);
            let read: Vec<_> = attributes(&bytes[16..]).map(|(k, v)| (k, v.to_vec())).collect();
            prop_assert_eq!(read, values);
        }
    }
}
