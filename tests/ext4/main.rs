//! The ext4 writer before somebody else's judge: e2fsck finds nothing to complain of, and debugfs sees what was meant.

mod shapes;
mod support;
mod whole;
