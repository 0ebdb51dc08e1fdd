//! Pull and import against real parts: docker's registry, skopeo, umoci, busybox, the kernel, and e2fsprogs as the judge of
//! what came out. To be run as root, since owners and devices are compared.

mod bombs;
mod cut;
mod hostile;
mod import;
mod made;
mod misbehaving;
mod oracle;
mod pull;
mod support;
