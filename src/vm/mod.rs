//! A VM as an idea: what it is called, what it is made of, what state it is in, what it boots with.
//!
//! Nothing here does I/O, reads a clock or logs; the daemon acts, this decides.

pub mod boot;
pub mod change;
pub mod cow;
pub mod duration;
pub mod id;
pub mod lifetime;
pub mod lookup;
pub mod name;
pub mod publish;
pub mod record;
pub mod size;
pub mod spec;
pub mod state;
pub mod workspace;
