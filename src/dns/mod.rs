//! DNS: names of VMs answered with authority (RFC 1035, RFC 2308), and everything else of guests passed on to the host's own resolvers.
//!
//! ```text
//!  udp (a thread per address), tcp -> question -> zone: a name of ours -> reply
//!                                              -> not ours: the host is refused, a guest's goes
//!                                                 -> query -> upstream -> answer (is it one? does it rebind?) -> the guest
//! ```
//!
//! Reading, deciding and writing is pure ([`question`], [`zone`], [`reply`], [`query`], [`answer`]). Each address has a thread that
//! answers over UDP and does nothing else, so that a flood of questions delays neither the daemon nor the other address; what waits
//! for others, upstream servers and TCP, is in one more thread ([`service`]).

pub mod answer;
mod limits;
pub mod names;
pub mod query;
pub mod question;
pub mod rebind;
mod reply;
pub mod service;
mod tcp;
mod udp;
mod upstream;
pub mod zone;
