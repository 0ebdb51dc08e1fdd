//! bangerd-root itself, as a process on a real socket in a network of its own: who may ask, what a hostile client can do to it,
//! what a crash leaves. What it made is looked at with `ip`, `nft` and /proc, never with its own reader.

mod client;
mod crash;
mod hostile;
mod launch;
mod life;
mod rig;
mod world;
