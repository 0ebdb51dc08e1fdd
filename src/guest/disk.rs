//! The root file system's device: the image, the VM's own file on top of it, and its growth (DESIGN D2).
//!
//! ```text
//!            0                        base                    sectors
//! root       |  snapshot of the image  |  linear               |
//!                        |                      |
//! cow file   | exceptions and chunks   | tail                  |
//!            0                      cow::file_bytes(base)
//! ```
//!
//! What lies behind the image's end has nothing to be a copy of: it is mapped to the cow file as it is. So writes there cost
//! no exception and no extra flush, reads of what was never written are the sparse file's zeros, and dm-zero is not needed.

use std::fs::File;
use std::io::{self, Seek, SeekFrom};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::fs::{major, minor};

use super::syscalls::{self, Target};
use super::{Failed, failed};
use crate::vm::boot::Root;
use crate::vm::cow;

const SECTOR: u64 = 512;
/// How long a device may take to appear after its driver has been loaded. Devices that are there at boot appear during the
/// load; this is for a machine where they do not.
const APPEARS: Duration = Duration::from_secs(5);

/// Makes the root device; `name` is what the device mapper calls it. Returns its path.
pub fn assemble(root: &Root) -> Result<PathBuf, Failed> {
    match root {
        Root::Plain { device } => Ok(open(device)?.path),
        Root::Snapshot { base, cow, sectors } => {
            let (base, cow) = (open(base)?, open(cow)?);
            let table = table(&base, &cow, *sectors).map_err(failed("lay out the disk"))?;
            let control = File::options().read(true).write(true).open("/dev/mapper/control");
            let minor = control
                .and_then(|control| syscalls::create_mapped(&control, "root", &table))
                .map_err(failed("make the disk's snapshot device"))?;
            Ok(PathBuf::from(format!("/dev/dm-{minor}")))
        }
    }
}

/// Grows the file system mounted at `directory` to the whole of its device; nothing if it fills it.
pub fn grow(directory: &Path, device: &Path) -> Result<(), Failed> {
    let grown = || {
        let bytes = File::open(device)?.seek(SeekFrom::End(0))?;
        let block = rustix::fs::statvfs(directory)?.f_frsize;
        syscalls::resize_ext4(&File::open(directory)?, bytes / block.max(1))
    };
    grown().map_err(failed("grow the file system to the size of its disk"))
}

#[derive(Debug)]
struct Device {
    path: PathBuf,
    /// `major:minor`, as the device mapper takes it.
    number: String,
    sectors: u64,
}

/// Finds /dev/<name>, waiting for it if it must.
fn open(name: &str) -> Result<Device, Failed> {
    let path = Path::new("/dev").join(name);
    let deadline = Instant::now() + APPEARS;
    let found = loop {
        match File::open(&path) {
            Err(e) if e.kind() == io::ErrorKind::NotFound && Instant::now() < deadline => {
                std::thread::sleep(Duration::from_millis(2));
            }
            other => break other,
        }
    };
    let described = found.and_then(|mut file| {
        let rdev = file.metadata()?.rdev();
        let number = format!("{}:{}", major(rdev), minor(rdev));
        Ok(Device { number, sectors: file.seek(SeekFrom::End(0))? / SECTOR, path: path.clone() })
    });
    described.map_err(failed(format!("open the disk {}", path.display())))
}

/// The table of the root device. A disk never ends before the image does.
fn table(base: &Device, cow: &Device, sectors: u64) -> Result<Vec<Target>, io::Error> {
    let tail_start = cow::file_bytes(base.sectors * SECTOR) / SECTOR;
    let tail = sectors.saturating_sub(base.sectors);
    if cow.sectors < tail_start + tail {
        let (has, needs) = (cow.sectors * SECTOR, (tail_start + tail) * SECTOR);
        return Err(io::Error::other(format!("the VM's own file has {has} bytes, its disk needs {needs}")));
    }
    let chunk = cow::CHUNK_BYTES / SECTOR;
    let mut table = vec![Target {
        start: 0,
        length: base.sectors,
        kind: "snapshot",
        parameters: format!("{} {} P {chunk}", base.number, cow.number),
    }];
    if tail > 0 {
        table.push(Target {
            start: base.sectors,
            length: tail,
            kind: "linear",
            parameters: format!("{} {tail_start}", cow.number),
        });
    }
    Ok(table)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn device(number: &str, sectors: u64) -> Device {
        Device { path: PathBuf::new(), number: number.to_owned(), sectors }
    }

    fn shown(base: u64, cow: u64, sectors: u64) -> Result<String, String> {
        let lines = table(&device("254:0", base), &device("254:16", cow), sectors)
            .map_err(|e| e.to_string())?
            .into_iter()
            .map(|t| format!("{} {} {} {}", t.start, t.length, t.kind, t.parameters));
        Ok(lines.collect::<Vec<_>>().join("\n"))
    }

    #[test]
    fn what_lies_behind_the_image_is_mapped_to_the_end_of_the_cow_file() {
        let room = cow::file_bytes(4096 * SECTOR) / SECTOR;
        assert_eq!(shown(4096, room, 4096), Ok("0 4096 snapshot 254:0 254:16 P 8".to_owned()));
        let want = format!("0 4096 snapshot 254:0 254:16 P 8\n4096 8192 linear 254:16 {room}");
        assert_eq!(shown(4096, room + 8192, 4096 + 8192), Ok(want));
    }

    #[test]
    fn a_disk_smaller_than_the_image_is_as_large_as_the_image() {
        assert_eq!(shown(4096, 1 << 20, 100), Ok("0 4096 snapshot 254:0 254:16 P 8".to_owned()));
    }

    #[test]
    fn a_cow_file_without_room_for_the_disk_is_refused() {
        let error = shown(4096, 4096, 4096).expect_err("too small");
        assert_eq!(error, "the VM's own file has 2097152 bytes, its disk needs 2113536");
    }
}
