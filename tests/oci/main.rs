//! Pull and import against real parts: docker's registry, skopeo, umoci, busybox, the kernel, and e2fsprogs as the judge of
//! what came out. To be run as root, since owners and devices are compared.

mod bombs;
mod command;
mod cut;
mod hostile;
mod import;
mod login;
mod made;
mod mirrors;
mod misbehaving;
mod oracle;
mod proxy;
mod pull;
mod secure;
mod server;
mod sharing;
mod support;
mod transfer;
