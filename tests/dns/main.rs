//! The DNS server over real sockets, with dig for a witness (Debian: bind9-dnsutils) and upstream servers that the tests play. On loopback
//! alone, without root: here guests are whoever has an address in 127.9.0.0/16.

mod floods;
mod guests;
mod rig;
mod upstream;
mod zone;
