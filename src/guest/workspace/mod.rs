//! Work trees: the guest's side of [`crate::proto::workspace`].

use std::io;

use crate::guest::wire::Wire;
use crate::proto::agent::Code;
use crate::proto::workspace::{Changes, Prepare};

pub fn prepare(wire: &mut Wire, _wanted: &Prepare) -> io::Result<()> {
    wire.refuse(Code::Failed, "to be written")
}

pub fn changes(wire: &mut Wire, _wanted: &Changes) -> io::Result<()> {
    wire.refuse(Code::Failed, "to be written")
}
