//! The bridge, its taps and the firewall on a real kernel, in network namespaces; seen with ip, nft, ping, curl, dig and tcpdump.
//!
//! Each test has a host of its own ([`rig::own_host`]), so that they run side by side, and touch nothing of the machine's.

mod hostile;
mod links;
mod others;
mod reach;
mod rig;
