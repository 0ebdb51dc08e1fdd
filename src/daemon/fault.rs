//! Why a request was not done, as the client is told: one code, one sentence, and lines that help.

use std::error::Error;
use std::fmt::Display;

use crate::daemon::guest_text;
use crate::daemon::names::Taken;
use crate::proto::api::{Code, Failure};
use crate::store::StoreError;
use crate::vm::lookup::LookupError;
use crate::vm::state::Refused;

/// A [`Failure`] that does not know its operation yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    pub code: Code,
    pub message: String,
    pub details: Vec<String>,
}

impl Fault {
    pub fn new(code: Code, message: impl Into<String>) -> Self {
        Self { code, message: message.into(), details: vec![] }
    }

    /// `what` was tried; `why`, with all its sources, is why it was not done.
    pub fn because(code: Code, what: impl Display, why: &dyn Error) -> Self {
        Self::new(code, format!("{what}: {}", chain(why)))
    }

    pub fn failed(what: impl Display, why: &dyn Error) -> Self {
        Self::because(Code::Failed, what, why)
    }

    /// The same, said of something larger: `cannot start vm dev: ...`.
    pub fn within(mut self, what: impl Display) -> Self {
        self.message = format!("{what}: {}", self.message);
        self
    }

    /// What reaches the client. All texts are made harmless: some come from guests, registries and archives.
    pub fn into_failure(self, op: &str) -> Failure {
        Failure {
            code: self.code,
            message: guest_text::harmless(&self.message, MAX_MESSAGE),
            op: op.to_owned(),
            details: self.details.iter().map(|line| guest_text::harmless(line, MAX_LINE)).collect(),
        }
    }
}

const MAX_MESSAGE: usize = 2000;
const MAX_LINE: usize = 500;

/// `error` and its sources, joined by `: `. A source that its error has quoted already is not said twice.
pub fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(source) = next {
        let words = source.to_string();
        if !text.ends_with(&words) {
            text = format!("{text}: {words}");
        }
        next = source.source();
    }
    text
}

impl From<StoreError> for Fault {
    fn from(e: StoreError) -> Self {
        Self::new(Code::Failed, chain(&e))
    }
}

impl From<LookupError> for Fault {
    fn from(e: LookupError) -> Self {
        let code = match e {
            LookupError::Unknown { .. } => Code::NotFound,
            LookupError::Ambiguous { .. } => Code::Conflict,
        };
        Self::new(code, e.to_string())
    }
}

impl From<Taken> for Fault {
    fn from(e: Taken) -> Self {
        Self::new(Code::Conflict, e.to_string())
    }
}

impl From<Refused> for Fault {
    fn from(e: Refused) -> Self {
        Self::new(Code::Conflict, e.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_chain_says_every_cause_once() {
        let io = std::io::Error::from_raw_os_error(2);
        assert_eq!(
            Fault::failed("cannot open x", &io).within("cannot start vm dev").message,
            "cannot start vm dev: cannot open x: No such file or directory (os error 2)"
        );
    }

    #[test]
    fn what_a_guest_wrote_cannot_move_the_cursor() {
        let mut fault = Fault::new(Code::Failed, "the guest says \u{1b}[2J\nhello");
        fault.details.push("\r\u{9b}31m".to_owned());
        let failure = fault.into_failure("op-1");
        assert_eq!(failure.message, "the guest says \\u{1b}[2J\\nhello");
        assert_eq!(failure.details, ["\\r\\u{9b}31m"]);
    }
}
