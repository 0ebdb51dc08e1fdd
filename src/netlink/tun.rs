//! Taps: links whose other end is a process (the kernel's networking/tuntap.rst). They are made over /dev/net/tun, not rtnetlink.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::OwnedFd;

use rustix::ioctl::{IntegerSetter, Opcode, Updater, ioctl, opcode};
use rustix::process::Uid;

const DEVICE: &str = "/dev/net/tun";
/// What the ioctls' numbers say they take is an int, whatever they take (linux/if_tun.h).
const TUNSETIFF: Opcode = opcode::write::<i32>(b'T', 202);
const TUNSETPERSIST: Opcode = opcode::write::<i32>(b'T', 203);
const TUNSETOWNER: Opcode = opcode::write::<i32>(b'T', 204);
const IFF_TAP: u16 = 0x2;
const IFF_NO_PI: u16 = 0x1000;
const IFF_VNET_HDR: u16 = 0x4000;
const IFF_TUN_EXCL: u16 = 0x8000;
/// With its final NUL.
const IFNAMSIZ: usize = 16;

/// struct ifreq as TUNSETIFF reads it: a name, then the flags in a union of 24 bytes.
#[repr(C)]
struct Request {
    name: [u8; IFNAMSIZ],
    flags: u16,
    rest: [u8; 22],
}

/// A tap, and this process behind it. It is gone when it is dropped, unless it has been told to stay.
///
/// Ethernet frames, each preceded by a virtio-net header, one queue: what Firecracker and QEMU both take.
pub struct Tap(File);

impl Tap {
    /// Makes a tap of that name.
    ///
    /// # Errors
    /// EBUSY: there is a link of that name.
    pub fn create(name: &str) -> io::Result<Self> {
        Self::attach(name, IFF_TUN_EXCL)
    }

    /// Goes behind the tap of that name, which the caller has found to exist.
    ///
    /// # Errors
    /// EBUSY: some process is behind it. EINVAL: it is no tap.
    pub fn open(name: &str) -> io::Result<Self> {
        Self::attach(name, 0)
    }

    fn attach(name: &str, flags: u16) -> io::Result<Self> {
        let device = OpenOptions::new().read(true).write(true).open(DEVICE)?;
        let flags = IFF_TAP | IFF_NO_PI | IFF_VNET_HDR | flags;
        let mut request = Request { name: [0; IFNAMSIZ], flags, rest: [0; 22] };
        let Some(place) = request.name.get_mut(..name.len()).filter(|place| place.len() < IFNAMSIZ) else {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "no link has so long a name"));
        };
        place.copy_from_slice(name.as_bytes());
        // SAFETY: TUNSETIFF reads a struct ifreq, 40 bytes, of which Request is the layout, and writes one back (__tun_chr_ioctl), so
        // that it is lent as something that changes.
        unsafe { ioctl(&device, Updater::<TUNSETIFF, Request>::new(&mut request)) }?;
        Ok(Self(device))
    }

    /// The one user, besides root, who may go behind it once nobody is.
    pub fn give(&self, owner: Uid) -> io::Result<()> {
        // SAFETY: TUNSETOWNER takes a number in place of a pointer.
        unsafe { ioctl(&self.0, IntegerSetter::<TUNSETOWNER>::new_usize(owner.as_raw() as usize)) }?;
        Ok(())
    }

    /// It stays when nobody is behind it.
    pub fn stay(&self) -> io::Result<()> {
        // SAFETY: TUNSETPERSIST takes a number in place of a pointer.
        unsafe { ioctl(&self.0, IntegerSetter::<TUNSETPERSIST>::new_usize(1)) }?;
        Ok(())
    }
}

impl From<Tap> for OwnedFd {
    fn from(tap: Tap) -> OwnedFd {
        tap.0.into()
    }
}
