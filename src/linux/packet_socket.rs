//! Complete Ethernet frames out of an interface: gratuitous ARP, unsolicited neighbour
//! advertisements, probes.

use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use super::sys::{self, Target};
use crate::node::kernel::Errno;
use crate::wire::IfIndex;

/// An AF_PACKET socket that only sends, out of any interface. Its protocol is 0, so that it never
/// receives and nothing piles up in it.
#[derive(Debug)]
pub struct PacketSocket {
    fd: OwnedFd,
}

impl PacketSocket {
    /// In the calling thread's network namespace.
    ///
    /// # Errors
    /// EPERM without CAP_NET_RAW, or out of descriptors.
    pub fn open() -> io::Result<Self> {
        let fd = sys::socket(libc::AF_PACKET, libc::SOCK_RAW | libc::SOCK_NONBLOCK, 0)?;
        sys::set_send_options(fd.as_fd())?;
        Ok(Self { fd })
    }

    /// Sends the first [`MAX_SEND`](super::MAX_SEND) of `frames` out of an interface, without
    /// waiting. Gives how many went, and the error of the first that did not: ENETDOWN when the
    /// interface is down, ENXIO when it is gone, EAGAIN or ENOBUFS when a queue is full, EMSGSIZE.
    pub fn send_batch<'a, P: AsRef<[u8]> + ?Sized + 'a>(
        &self,
        index: IfIndex,
        frames: impl IntoIterator<Item = &'a P>,
    ) -> (usize, Option<Errno>) {
        send(self.fd.as_fd(), index, frames)
    }
}

/// Sends frames through any packet socket, whatever it is bound to.
pub(super) fn send<'a, P: AsRef<[u8]> + ?Sized + 'a>(
    fd: BorrowedFd<'_>,
    index: IfIndex,
    frames: impl IntoIterator<Item = &'a P>,
) -> (usize, Option<Errno>) {
    // Protocol 0: what a frame says of itself counts.
    match address(0, index) {
        Ok(to) => sys::send_batch(fd, frames, Target::Link(to)),
        Err(error) => (0, Some(sys::errno(&error))),
    }
}

/// An interface, and an EtherType to hear.
pub(super) fn address(protocol: u16, index: IfIndex) -> io::Result<libc::sockaddr_ll> {
    // SAFETY: a C structure of integers, for which all zeroes hold.
    let mut address: libc::sockaddr_ll = unsafe { MaybeUninit::zeroed().assume_init() };
    address.sll_family = libc::AF_PACKET as libc::c_ushort;
    address.sll_protocol = protocol.to_be();
    address.sll_ifindex = sys::signed(index)?;
    Ok(address)
}
