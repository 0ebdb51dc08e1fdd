//! `banger update` below a directory of the test's own: releases that a publisher signs and a server on 127.0.0.1 has, among them what
//! must be refused, and `kill -9` wherever an update can be cut off. Needs root, as an update does; nothing of the host is touched.

mod contract;
mod crash;
mod good;
mod hostile;
mod publisher;
mod refused;
mod rig;
mod server;
mod taken_back;
