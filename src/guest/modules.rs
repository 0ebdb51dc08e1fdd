//! The kernel's modules that lie in the initramfs: which of them this boot needs, and loading them.

use std::fs::File;
use std::io;

use rustix::io::Errno;
use rustix::system::finit_module;

use super::console;

/// One line for each module, in dependency order: `<path> <group>[,<group>...]`.
pub const ORDER: &str = "/modules/order";

/// Loads the modules that belong to one of `groups`, in the file's order. A module that the kernel refuses is a line on the
/// console: it may be built in, or serve a device that this machine lacks, and if not, what needs it says so next.
pub fn load(order: &str, groups: &[&str]) {
    for path in select(order, groups) {
        if let Err(e) = load_one(path) {
            console::say(format_args!("cannot load {path}: {e}"));
        }
    }
}

fn load_one(path: &str) -> io::Result<()> {
    match finit_module(File::open(path)?, c"", 0) {
        Ok(()) | Err(Errno::EXIST) => Ok(()),
        Err(e) => Err(e.into()),
    }
}

/// The paths of the modules that belong to one of `groups`, in order.
fn select<'a>(order: &'a str, groups: &[&str]) -> Vec<&'a str> {
    let wanted = |list: &str| list.split(',').any(|group| groups.contains(&group));
    order
        .lines()
        .filter_map(|line| line.split_once(' '))
        .filter(|(_, list)| wanted(list.trim()))
        .map(|(path, _)| path)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_modules_of_the_wanted_groups_come_in_the_files_order() {
        let order = "/modules/virtio.ko mmio,pci,block\n/modules/virtio_pci.ko pci\n/modules/virtio_blk.ko block\n\
                     /modules/dm-mod.ko snapshot\n/modules/vsock.ko vsock\n";
        assert_eq!(select(order, &["block"]), ["/modules/virtio.ko", "/modules/virtio_blk.ko"]);
        assert_eq!(
            select(order, &["vsock", "snapshot", "mmio"]),
            ["/modules/virtio.ko", "/modules/dm-mod.ko", "/modules/vsock.ko"]
        );
        assert_eq!(select(order, &["net"]), [""; 0]);
    }

    #[test]
    fn lines_without_a_group_are_no_modules() {
        assert_eq!(select("\n/modules/a.ko\n/modules/b.ko \n", &["block", ""]), ["/modules/b.ko"]);
        assert_eq!(select("", &["block"]), [""; 0]);
    }
}
