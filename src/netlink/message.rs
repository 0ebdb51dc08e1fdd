//! What a netlink message looks like (netlink(7)): a header, the family's own structure, then attributes.

const HEADER: usize = 16;
const NLMSG_ERROR: u16 = 2;
const NLM_F_REQUEST: u16 = 1;
const NLM_F_ACK: u16 = 4;
const NLM_F_CREATE: u16 = 0x400;
const NLM_F_EXCL: u16 = 0x200;

/// A request under construction. All numbers are the machine's own order.
pub struct Message(Vec<u8>);

impl Message {
    /// A request that is to be acknowledged; `create`: it makes something that must not exist yet.
    pub fn new(kind: u16, create: bool) -> Self {
        let flags = NLM_F_REQUEST | NLM_F_ACK | if create { NLM_F_CREATE | NLM_F_EXCL } else { 0 };
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

    pub fn finish(mut self, sequence: u32) -> Vec<u8> {
        let length = self.0.len() as u32;
        self.0[..4].copy_from_slice(&length.to_ne_bytes());
        self.0[8..12].copy_from_slice(&sequence.to_ne_bytes());
        self.0
    }
}

/// The errno that an acknowledgement bears, 0 for success; None if it is no acknowledgement.
pub fn verdict(answer: &[u8]) -> Option<i32> {
    let kind = u16::from_ne_bytes(answer.get(4..6)?.try_into().ok()?);
    let error = i32::from_ne_bytes(answer.get(HEADER..HEADER + 4)?.try_into().ok()?);
    (kind == NLMSG_ERROR).then_some(error.checked_neg()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_has_its_length_and_padded_attributes() {
        let mut message = Message::new(20, true);
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
    fn an_answer_that_is_cut_or_something_else_is_no_verdict() {
        let mut ack = Message::new(NLMSG_ERROR, false);
        ack.u32((-17i32) as u32);
        let bytes = ack.finish(1);
        assert_eq!(verdict(&bytes), Some(17));
        assert_eq!(verdict(&bytes[..18]), None);
        assert_eq!(verdict(&[]), None);
        let mut other = Message::new(16, false);
        other.u32(0);
        assert_eq!(verdict(&other.finish(1)), None);
    }
}
