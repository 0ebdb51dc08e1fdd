//! The calls that have no safe wrapper: the device mapper's (kernel: include/uapi/linux/dm-ioctl.h), ext4's resize
//! (fs/ext4/ioctl.c), fork, a vsock's buffer, and a real-time signal.
#![allow(unsafe_code)]

use std::ffi::c_void;
use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

use rustix::ioctl::{Ioctl, IoctlOutput, Opcode, Setter, ioctl, opcode};
use rustix::process::{Pid, Signal};

/// A range of a mapped device, in sectors of 512 bytes, and what it maps to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    pub start: u64,
    pub length: u64,
    /// The name of a target type, at most 15 bytes.
    pub kind: &'static str,
    pub parameters: String,
}

/// `struct dm_ioctl`.
const HEADER: usize = 312;
/// `struct dm_target_spec`.
const SPEC: usize = 40;
/// Where `dm_ioctl` holds `dev`, `name`.
const DEV: usize = 40;
const NAME: usize = 48;
const DEV_CREATE: u8 = 3;
const DEV_SUSPEND: u8 = 6;
const TABLE_LOAD: u8 = 9;

/// Creates a mapped device called `name` with this table, and starts it. Returns its minor number: it is /dev/dm-<minor>.
/// `control` is /dev/mapper/control.
pub fn create_mapped(control: &File, name: &str, table: &[Target]) -> io::Result<u32> {
    call(control, DEV_CREATE, &mut message(name, &[]))?;
    call(control, TABLE_LOAD, &mut message(name, table))?;
    // Without DM_SUSPEND_FLAG the call resumes: it makes the loaded table the live one.
    let mut resume = message(name, &[]);
    call(control, DEV_SUSPEND, &mut resume)?;
    let mut dev = [0; 8];
    dev.copy_from_slice(&resume[DEV..DEV + 8]);
    let dev = u64::from_ne_bytes(dev);
    // huge_encode_dev (include/linux/kdev_t.h), which is new_encode_dev: the minor's low byte, then the major, then the rest.
    Ok(((dev & 0xff) | ((dev >> 12) & 0xf_ff00)) as u32)
}

/// The header and the table, as one buffer.
fn message(name: &str, table: &[Target]) -> Vec<u8> {
    let mut body = vec![];
    for target in table {
        let mut parameters = target.parameters.clone().into_bytes();
        parameters.push(0);
        parameters.resize(parameters.len().next_multiple_of(8), 0);
        let mut kind = [0; 16];
        kind[..target.kind.len()].copy_from_slice(target.kind.as_bytes());
        body.extend(target.start.to_ne_bytes());
        body.extend(target.length.to_ne_bytes());
        body.extend(0u32.to_ne_bytes());
        // `next`: how far it is from this specification to the next one.
        body.extend(((SPEC + parameters.len()) as u32).to_ne_bytes());
        body.extend(kind);
        body.extend(parameters);
    }
    let mut buffer = vec![0; HEADER];
    // Version 4.0.0, the length of it all, where the table begins, how many targets it has.
    let words = [4, 0, 0, (HEADER + body.len()) as u32, HEADER as u32, table.len() as u32];
    for (place, word) in buffer.chunks_exact_mut(4).zip(words) {
        place.copy_from_slice(&word.to_ne_bytes());
    }
    buffer[NAME..NAME + name.len()].copy_from_slice(name.as_bytes());
    buffer.extend(body);
    buffer
}

struct Call<'a> {
    opcode: Opcode,
    buffer: &'a mut [u8],
}

// SAFETY: the opcode is one of the device mapper's, all of which take a pointer to a dm_ioctl whose data_size says how many
// bytes follow; `message` sets it to the buffer's length, and the kernel reads and writes no further. Nothing is returned.
unsafe impl Ioctl for Call<'_> {
    type Output = ();
    const IS_MUTATING: bool = true;

    fn opcode(&self) -> Opcode {
        self.opcode
    }

    fn as_ptr(&mut self) -> *mut c_void {
        self.buffer.as_mut_ptr().cast()
    }

    unsafe fn output_from_ptr(_: IoctlOutput, _: *mut c_void) -> rustix::io::Result<()> {
        Ok(())
    }
}

fn call(control: &File, number: u8, buffer: &mut [u8]) -> io::Result<()> {
    let opcode = opcode::read_write::<[u8; HEADER]>(0xfd, number);
    // SAFETY: `Call` upholds what the device mapper asks of its buffer; another kind of file refuses the opcode.
    Ok(unsafe { ioctl(control, Call { opcode, buffer }) }?)
}

/// Grows the mounted ext4 file system that `directory` is on to this many of its blocks; nothing if it has them.
pub fn resize_ext4(directory: &File, blocks: u64) -> io::Result<()> {
    const EXT4_IOC_RESIZE_FS: Opcode = opcode::write::<u64>(b'f', 16);
    // SAFETY: the kernel reads a u64 through the pointer, which `Setter` makes point to one; other file systems refuse.
    Ok(unsafe { ioctl(directory, Setter::<EXT4_IOC_RESIZE_FS, u64>::new(blocks)) }?)
}

/// fork(2). Returns the child's pid in the parent, None in the child. For a process of one thread.
pub fn fork() -> io::Result<Option<Pid>> {
    // Not rustix's: libc's own keeps what it knows of the process (its thread's id, its locks) true in the child.
    unsafe extern "C" {
        fn fork() -> i32;
    }
    // SAFETY: with one thread nothing can be half done in another, so the child may do whatever its parent may.
    match unsafe { fork() } {
        -1 => Err(io::Error::last_os_error()),
        pid => Ok(Pid::from_raw(pid)),
    }
}

/// Sets how much a vsock buffers for its reader, which the kernel tells the host at once. Another kind of socket refuses.
pub fn set_vsock_buffer(socket: BorrowedFd<'_>, bytes: u64) -> io::Result<()> {
    const AF_VSOCK: i32 = 40;
    const SO_VM_SOCKETS_BUFFER_SIZE: i32 = 0;
    const SO_VM_SOCKETS_BUFFER_MAX_SIZE: i32 = 2;
    unsafe extern "C" {
        fn setsockopt(fd: i32, level: i32, name: i32, value: *const c_void, length: u32) -> i32;
    }
    for name in [SO_VM_SOCKETS_BUFFER_MAX_SIZE, SO_VM_SOCKETS_BUFFER_SIZE] {
        // SAFETY: the kernel reads a u64 (net/vmw_vsock/af_vsock.c), and is given the address and the length of one.
        let done = unsafe { setsockopt(socket.as_raw_fd(), AF_VSOCK, name, (&raw const bytes).cast(), 8) };
        if done != 0 {
            return Err(io::Error::last_os_error());
        }
    }
    Ok(())
}

/// `SIGRTMIN + n` as the kernel and systemd number it, n at most 30.
pub fn realtime(n: u8) -> Signal {
    // glibc keeps 32 and 33 for itself (nptl(7)); to send the others is as fine as to send any signal.
    let raw = 34 + i32::from(n.min(30));
    // SAFETY: between 34 and 64, so a valid signal and none that libc reserves.
    unsafe { Signal::from_raw_unchecked(raw) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_holds_header_specifications_and_parameters_where_the_kernel_looks() {
        let table = [
            Target { start: 0, length: 16, kind: "snapshot", parameters: "254:0 254:16 P 8".to_owned() },
            Target { start: 16, length: 8, kind: "linear", parameters: "254:16 99".to_owned() },
        ];
        let bytes = message("root", &table);
        let word = |at: usize| u32::from_ne_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]]);
        assert_eq!([word(0), word(12), word(16), word(20)], [4, bytes.len() as u32, 312, 2]);
        assert_eq!(&bytes[48..53], b"root\0");
        // The second specification is where the first one's `next` says.
        let second = HEADER + word(HEADER + 20) as usize;
        assert_eq!(&bytes[HEADER + 24..HEADER + 33], b"snapshot\0");
        assert_eq!(&bytes[HEADER + SPEC..HEADER + SPEC + 17], b"254:0 254:16 P 8\0");
        assert_eq!(&bytes[second + 24..second + 31], b"linear\0");
        assert_eq!(second % 8, 0);
    }

    #[test]
    fn real_time_signals_are_numbered_as_systemd_does() {
        assert_eq!((realtime(4).as_raw(), realtime(5).as_raw()), (38, 39));
    }
}
