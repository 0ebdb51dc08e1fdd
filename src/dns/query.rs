//! A guest's question on its way to an upstream server, and back.

use crate::dns::question::{Edns, LONGEST_NAME, Question, flag, kind};
use crate::dns::reply::{self, Rcode, Reply, UDP_MOST};

/// A question that others know the answer to.
#[derive(Debug, Clone)]
pub struct Query {
    id: u16,
    flags: u16,
    /// Name, type and class, as they came.
    asked: Vec<u8>,
    edns: Option<Edns>,
}

impl Query {
    pub fn of(question: &Question<'_>) -> Self {
        Self { id: question.id, flags: question.flags, asked: question.asked.to_vec(), edns: question.edns }
    }

    /// The message for an upstream server, under an id of ours: the question as it came, and of EDNS what concerns us both.
    /// Options are between neighbours (RFC 7873), or tell of the asker (RFC 7871).
    pub fn message(&self, id: u16) -> Vec<u8> {
        let mut out = Vec::with_capacity(12 + LONGEST_NAME + 4 + 11);
        out.extend(id.to_be_bytes());
        let kept = flag::RECURSION_DESIRED | flag::AUTHENTIC_DATA | flag::CHECKING_DISABLED;
        out.extend((self.flags & kept).to_be_bytes());
        out.extend([0, 1, 0, 0, 0, 0, 0, u8::from(self.edns.is_some())]);
        out.extend(&self.asked);
        if let Some(edns) = self.edns {
            out.extend([0, 0, kind::OPT as u8]);
            out.extend(edns.size.clamp(512, UDP_MOST as u16).to_be_bytes());
            out.extend([0, 0, if edns.dnssec { 0x80 } else { 0 }, 0, 0, 0]);
        }
        out
    }

    pub fn id(&self) -> u16 {
        self.id
    }

    pub fn asked(&self) -> &[u8] {
        &self.asked
    }

    /// How many bytes may go back over UDP.
    pub fn udp_limit(&self) -> usize {
        reply::udp_limit(self.edns)
    }

    /// The reply that nobody could say.
    pub fn failed(&self) -> Vec<u8> {
        self.reply(Rcode::ServerFailure, 0, |reply| reply.end())
    }

    /// The reply that says to come again by TCP.
    pub fn truncated(&self) -> Vec<u8> {
        self.reply(Rcode::NoError, flag::TRUNCATED, |reply| reply.end())
    }

    /// The reply in place of one that rebinds: there is no such record. Not "refused", after which some ask again and again
    /// (musl's), nor "no such name", since the name may have other records.
    pub fn blocked(&self) -> Vec<u8> {
        self.reply(Rcode::NoError, 0, |reply| {
            reply.end_blocked("an address of this machine or of its network")
        })
    }

    fn reply(&self, code: Rcode, extra: u16, end: impl FnOnce(Reply<'_>)) -> Vec<u8> {
        let mut out = vec![];
        let extra = extra | flag::RECURSION_AVAILABLE;
        end(Reply::begin(&mut out, self.id, self.flags, &self.asked, self.edns, code, extra));
        out
    }
}
