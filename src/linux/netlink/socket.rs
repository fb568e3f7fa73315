//! A netlink socket: datagrams out, datagrams in.

use std::io;
use std::mem::{MaybeUninit, size_of};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use crate::linux::sys;

/// A netlink socket with a port of its own.
#[derive(Debug)]
pub(super) struct Socket(OwnedFd);

/// What one receive gave.
#[derive(Clone, Copy, Debug)]
pub(super) struct Datagram {
    /// Bytes in the buffer.
    pub(super) length: usize,
    /// The datagram was longer than the buffer.
    pub(super) truncated: bool,
    /// Sent by the kernel and not by a process that knows our port.
    pub(super) from_kernel: bool,
}

impl Socket {
    /// Opens and binds one for rtnetlink, subscribed to `groups` (RTMGRP_*).
    pub(super) fn open(groups: libc::c_int, flags: libc::c_int) -> io::Result<Self> {
        Self::of(libc::NETLINK_ROUTE, groups, flags)
    }

    /// The same, for another protocol (NETLINK_*).
    pub(super) fn of(
        protocol: libc::c_int,
        groups: libc::c_int,
        flags: libc::c_int,
    ) -> io::Result<Self> {
        let fd = sys::socket(libc::AF_NETLINK, libc::SOCK_RAW | flags, protocol)?;
        // SAFETY: a C structure of integers, for which all zeroes hold.
        let mut address: libc::sockaddr_nl = unsafe { MaybeUninit::zeroed().assume_init() };
        address.nl_family = libc::AF_NETLINK as libc::sa_family_t;
        address.nl_groups = groups.cast_unsigned();
        // SAFETY: a sockaddr_nl for a netlink socket.
        unsafe { sys::bind(fd.as_fd(), &address) }?;
        Ok(Self(fd))
    }

    /// One datagram to the kernel, of one message or many.
    pub(super) fn send(&self, bytes: &[u8]) -> io::Result<()> {
        loop {
            let fd = self.0.as_raw_fd();
            // SAFETY: the pointer and length are those of a live slice. Not connected: the kernel
            // is where a netlink socket sends by default.
            let sent = unsafe { libc::send(fd, bytes.as_ptr().cast(), bytes.len(), 0) };
            match usize::try_from(sent) {
                Ok(sent) if sent == bytes.len() => return Ok(()),
                Ok(_) => return Err(io::ErrorKind::WriteZero.into()),
                Err(_) => {
                    let error = io::Error::last_os_error();
                    if error.kind() != io::ErrorKind::Interrupted {
                        return Err(error);
                    }
                }
            }
        }
    }

    /// The next datagram, into `buffer`.
    pub(super) fn receive(&self, buffer: &mut [u8]) -> io::Result<Datagram> {
        // SAFETY: a C structure of integers, for which all zeroes hold.
        let mut from: libc::sockaddr_nl = unsafe { MaybeUninit::zeroed().assume_init() };
        let mut vector =
            libc::iovec { iov_base: buffer.as_mut_ptr().cast(), iov_len: buffer.len() };
        // SAFETY: a C structure of integers and pointers, for which all zeroes hold.
        let mut message: libc::msghdr = unsafe { MaybeUninit::zeroed().assume_init() };
        message.msg_name = (&raw mut from).cast();
        message.msg_namelen = size_of::<libc::sockaddr_nl>() as libc::socklen_t;
        message.msg_iov = &raw mut vector;
        message.msg_iovlen = 1;
        loop {
            // SAFETY: the header points to a live address, vector and buffer.
            let read = unsafe { libc::recvmsg(self.0.as_raw_fd(), &raw mut message, 0) };
            match usize::try_from(read) {
                Ok(length) => {
                    return Ok(Datagram {
                        length,
                        truncated: message.msg_flags & libc::MSG_TRUNC != 0,
                        from_kernel: from.nl_pid == 0,
                    });
                }
                Err(_) => {
                    let error = io::Error::last_os_error();
                    if error.kind() != io::ErrorKind::Interrupted {
                        return Err(error);
                    }
                }
            }
        }
    }
}

impl AsFd for Socket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}
