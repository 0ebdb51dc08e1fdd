//! Pull and import against real parts: docker's registry, skopeo, umoci, busybox, and e2fsprogs as the judge of what came
//! out. To be run as root, since owners and devices are compared.

mod command;
mod hostile;
mod import;
mod login;
mod mirrors;
mod misbehaving;
mod proxy;
mod pull;
mod secure;
mod server;
mod sharing;
mod support;
mod transfer;
