//! The agent without a VM: its end of a socket pair, on the machine that runs the tests.
