//! An AF_VSOCK address for calls that must not block; the vsock crate has only those that do.
#![allow(unsafe_code)]

use rustix::net::AddressFamily;
use rustix::net::addr::{SocketAddrArg, SocketAddrLen, SocketAddrOpaque};

/// `struct sockaddr_vm` (linux/vm_sockets.h): 16 bytes.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct VsockAddress {
    family: u16,
    reserved: u16,
    port: u32,
    cid: u32,
    flags_and_zero: [u8; 4],
}

impl VsockAddress {
    pub fn new(cid: u32, port: u32) -> Self {
        Self { family: AddressFamily::VSOCK.as_raw(), reserved: 0, port, cid, flags_and_zero: [0; 4] }
    }
}

// SAFETY: `f` gets a pointer to `self`, which lives through the call, and its length; the struct has the kernel's layout
// (repr(C), no padding: 2 + 2 + 4 + 4 + 4 bytes) and the family it announces.
unsafe impl SocketAddrArg for VsockAddress {
    unsafe fn with_sockaddr<R>(&self, f: impl FnOnce(*const SocketAddrOpaque, SocketAddrLen) -> R) -> R {
        f(std::ptr::from_ref(self).cast(), size_of::<Self>() as SocketAddrLen)
    }
}
