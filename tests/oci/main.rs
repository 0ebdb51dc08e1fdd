//! Pull and import against real parts: docker's registry, skopeo, umoci, busybox, and e2fsprogs as the judge of what came
//! out. To be run as root, since owners and devices are compared.

mod hostile;
mod import;
mod misbehaving;
mod oracle;
mod pull;
mod support;
