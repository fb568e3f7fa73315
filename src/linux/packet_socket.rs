//! Complete Ethernet frames out of one interface: gratuitous ARP, unsolicited neighbour
//! advertisements.

use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};

use super::sys::{self, Target};
use crate::node::kernel::Errno;
use crate::wire::IfIndex;

/// An AF_PACKET socket that only sends. Its protocol is 0, so that it never receives and nothing
/// piles up in it.
#[derive(Debug)]
pub struct PacketSocket {
    fd: OwnedFd,
    index: IfIndex,
}

impl PacketSocket {
    /// On this interface, in the calling thread's network namespace.
    ///
    /// # Errors
    /// EPERM without CAP_NET_RAW, ENODEV.
    pub fn open(index: IfIndex) -> io::Result<Self> {
        let fd = sys::socket(libc::AF_PACKET, libc::SOCK_RAW | libc::SOCK_NONBLOCK, 0)?;
        // SAFETY: a C structure of integers, for which all zeroes hold.
        let mut address: libc::sockaddr_ll = unsafe { MaybeUninit::zeroed().assume_init() };
        address.sll_family = libc::AF_PACKET as libc::c_ushort;
        address.sll_ifindex = sys::signed(index)?;
        // SAFETY: a sockaddr_ll for a packet socket.
        unsafe { sys::bind(fd.as_fd(), &address) }?;
        sys::set_send_options(fd.as_fd())?;
        Ok(Self { fd, index })
    }

    /// The interface that it sends on.
    #[must_use]
    pub const fn index(&self) -> IfIndex {
        self.index
    }

    /// Sends the first [`MAX_SEND`](super::MAX_SEND) of `frames` without waiting. Gives how many
    /// went, and the error of the first that did not: ENETDOWN when the interface is down, ENXIO
    /// when it is gone, EAGAIN or ENOBUFS when its queue is full, EMSGSIZE.
    pub fn send_batch<'a, P: AsRef<[u8]> + ?Sized + 'a>(
        &self,
        frames: impl IntoIterator<Item = &'a P>,
    ) -> (usize, Option<Errno>) {
        sys::send_batch(self.fd.as_fd(), frames, Target::Bound)
    }
}
