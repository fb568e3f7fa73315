//! Changes as the kernel reports them.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};

use super::parse;
use super::socket::Socket;
use crate::linux::sys;
use crate::node::kernel::Change;

/// Bytes of the largest notification: a link with some hundred virtual functions stays below.
const DATAGRAM: usize = 32 * 1024;

/// Reads changes of links and addresses without waiting. Holds a buffer of 32 KiB.
#[derive(Debug)]
pub struct Notifications {
    socket: Socket,
    buffer: Box<[u8]>,
    /// Something was lost and not yet reported.
    overrun: bool,
}

impl Notifications {
    /// Bytes that the kernel may keep for us: some thousand notifications.
    pub const RECEIVE_BUFFER: i32 = 4 * 1024 * 1024;

    /// Subscribes, in the calling thread's network namespace. What changes from here on is
    /// reported, so a dump made after this misses nothing.
    ///
    /// `receive_buffer` is in bytes ([`Self::RECEIVE_BUFFER`]); without CAP_NET_ADMIN the kernel
    /// gives at most `net.core.rmem_max`.
    ///
    /// # Errors
    /// EMFILE, ENFILE or ENOMEM.
    pub fn open(receive_buffer: i32) -> io::Result<Self> {
        let groups = libc::RTMGRP_LINK | libc::RTMGRP_IPV4_IFADDR | libc::RTMGRP_IPV6_IFADDR;
        let socket = Socket::open(groups, libc::SOCK_NONBLOCK)?;
        sys::set_receive_buffer(socket.as_fd(), receive_buffer)?;
        Ok(Self { socket, buffer: vec![0; DATAGRAM].into(), overrun: false })
    }

    /// Appends what has arrived to `out`, at most `bound` datagrams (one change each, seldom more).
    /// True when the bound ended it and more may wait.
    ///
    /// [`Change::Overrun`] comes last, when the queue is empty: until then the kernel throws away
    /// further notifications without saying so again, and a dump made meanwhile could miss them.
    /// A notification that cannot be parsed is reported in the same way.
    ///
    /// # Errors
    /// What recvmsg(2) gives other than EAGAIN, EINTR and ENOBUFS.
    pub fn read(&mut self, out: &mut Vec<Change>, bound: usize) -> io::Result<bool> {
        for _ in 0..bound {
            let datagram = match self.socket.receive(&mut self.buffer) {
                Ok(datagram) => datagram,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    if std::mem::take(&mut self.overrun) {
                        out.push(Change::Overrun);
                    }
                    return Ok(false);
                }
                Err(error) if error.raw_os_error() == Some(libc::ENOBUFS) => {
                    self.overrun = true;
                    continue;
                }
                Err(error) => return Err(error),
            };
            if !datagram.from_kernel {
                continue;
            }
            self.overrun |= datagram.truncated;
            let bytes = self.buffer.get(..datagram.length).unwrap_or_default();
            for change in parse::changes(bytes) {
                match change {
                    Ok(Some(change)) => out.push(change),
                    Ok(None) => {}
                    Err(_) => self.overrun = true,
                }
            }
        }
        Ok(true)
    }
}

impl AsFd for Notifications {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}
