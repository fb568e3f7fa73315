//! The system calls that several modules share, each with a safe face.

use std::ffi::CStr;
use std::io;
use std::mem::{MaybeUninit, size_of};
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::ptr;

use crate::node::kernel::Errno;
use crate::wire::{Family, IfIndex};

/// Packets that one call of `send_batch` sends at most.
pub const MAX_SEND: usize = 64;

/// -1 becomes `errno`.
pub(super) fn check(result: libc::c_int) -> io::Result<libc::c_int> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}

/// Takes what a system call has just opened.
pub(super) fn owned(fd: RawFd) -> io::Result<OwnedFd> {
    check(fd)?;
    // SAFETY: not negative, so the call before has opened it and nobody else has it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// AF_INET or AF_INET6.
pub(super) const fn domain(family: Family) -> libc::c_int {
    match family {
        Family::V4 => libc::AF_INET,
        Family::V6 => libc::AF_INET6,
    }
}

/// socket(2), close-on-exec.
pub(super) fn socket(
    domain: libc::c_int,
    kind: libc::c_int,
    protocol: libc::c_int,
) -> io::Result<OwnedFd> {
    // SAFETY: takes numbers alone.
    owned(unsafe { libc::socket(domain, kind | libc::SOCK_CLOEXEC, protocol) })
}

fn set_option<T>(
    fd: BorrowedFd<'_>,
    level: libc::c_int,
    name: libc::c_int,
    value: *const T,
    length: usize,
) -> io::Result<()> {
    let length = libc::socklen_t::try_from(length).map_err(io::Error::other)?;
    // SAFETY: private to this module, whose callers give a live value of `length` bytes.
    check(unsafe { libc::setsockopt(fd.as_raw_fd(), level, name, value.cast(), length) }).map(drop)
}

/// An option of type int.
pub(super) fn set_int(
    fd: BorrowedFd<'_>,
    level: libc::c_int,
    name: libc::c_int,
    value: libc::c_int,
) -> io::Result<()> {
    set_option(fd, level, name, &raw const value, size_of::<libc::c_int>())
}

/// An option whose structure the caller has laid out.
pub(super) fn set_bytes(
    fd: BorrowedFd<'_>,
    level: libc::c_int,
    name: libc::c_int,
    value: &[u8],
) -> io::Result<()> {
    set_option(fd, level, name, value.as_ptr(), value.len())
}

/// SO_RCVTIMEO in whole seconds.
pub(super) fn set_receive_timeout(fd: BorrowedFd<'_>, seconds: u8) -> io::Result<()> {
    let time = libc::timeval { tv_sec: seconds.into(), tv_usec: 0 };
    let size = size_of::<libc::timeval>();
    set_option(fd, libc::SOL_SOCKET, libc::SO_RCVTIMEO, &raw const time, size)
}

/// Receive buffer beyond `net.core.rmem_max` where that is allowed, else as near as it is.
pub(super) fn set_receive_buffer(fd: BorrowedFd<'_>, bytes: libc::c_int) -> io::Result<()> {
    set_int(fd, libc::SOL_SOCKET, libc::SO_RCVBUFFORCE, bytes)
        .or_else(|_| set_int(fd, libc::SOL_SOCKET, libc::SO_RCVBUF, bytes))
}

/// SO_ATTACH_FILTER; takes the place of the filter before.
pub(super) fn attach_filter(fd: BorrowedFd<'_>, filter: &[libc::sock_filter]) -> io::Result<()> {
    let length = libc::c_ushort::try_from(filter.len()).map_err(io::Error::other)?;
    // The kernel copies the instructions and does not write to them.
    let program = libc::sock_fprog { len: length, filter: filter.as_ptr().cast_mut() };
    let size = size_of::<libc::sock_fprog>();
    set_option(fd, libc::SOL_SOCKET, libc::SO_ATTACH_FILTER, &raw const program, size)
}

/// Binds a socket to one interface, so that it neither hears nor speaks on another.
pub(super) fn bind_to_interface(fd: BorrowedFd<'_>, index: IfIndex) -> io::Result<()> {
    match set_int(fd, libc::SOL_SOCKET, libc::SO_BINDTOIFINDEX, signed(index)?) {
        // Before Linux 5.0 there is only the name, which may move to another interface between
        // the two look-ups.
        Err(error) if error.raw_os_error() == Some(libc::ENOPROTOOPT) => {
            let name = interface_name(index)?;
            let bytes = name.to_bytes_with_nul();
            set_bytes(fd, libc::SOL_SOCKET, libc::SO_BINDTODEVICE, bytes)?;
            if interface_name(index)? == name {
                Ok(())
            } else {
                Err(io::Error::from_raw_os_error(libc::ENODEV))
            }
        }
        other => other,
    }
}

/// For sockets that send what others wait for: room for a burst, whatever `net.core.wmem_default`
/// is, and the front of the interface's queue.
pub(super) fn set_send_options(fd: BorrowedFd<'_>) -> io::Result<()> {
    /// TC_PRIO_INTERACTIVE, the highest that needs no privilege; in the first band of pfifo_fast as
    /// TC_PRIO_CONTROL is.
    const PRIORITY: libc::c_int = 6;
    const SEND_BUFFER: libc::c_int = 256 * 1024;
    set_int(fd, libc::SOL_SOCKET, libc::SO_PRIORITY, PRIORITY)?;
    set_int(fd, libc::SOL_SOCKET, libc::SO_SNDBUF, SEND_BUFFER)
}

/// An interface's index as most structures have it.
pub(super) fn signed(index: IfIndex) -> io::Result<libc::c_int> {
    libc::c_int::try_from(index.0).map_err(|_| io::Error::from_raw_os_error(libc::ENODEV))
}

fn interface_name(index: IfIndex) -> io::Result<std::ffi::CString> {
    let mut name = [0u8; libc::IF_NAMESIZE];
    // SAFETY: the buffer has the IF_NAMESIZE bytes that the call may write.
    let found = unsafe { libc::if_indextoname(index.0, name.as_mut_ptr().cast()) };
    if found.is_null() {
        return Err(io::Error::last_os_error());
    }
    CStr::from_bytes_until_nul(&name).map(CStr::to_owned).map_err(io::Error::other)
}

/// bind(2) to an address whose structure the caller chose.
///
/// # Safety
/// `T` is a socket address of the socket's family, without padding that matters.
pub(super) unsafe fn bind<T>(fd: BorrowedFd<'_>, address: &T) -> io::Result<()> {
    let length = libc::socklen_t::try_from(size_of::<T>()).map_err(io::Error::other)?;
    // SAFETY: `address` lives, has `length` bytes, and is what the caller promises.
    check(unsafe { libc::bind(fd.as_raw_fd(), ptr::from_ref(address).cast(), length) }).map(drop)
}

/// Where [`send_batch`] sends to.
#[derive(Clone, Copy)]
pub(super) enum Target {
    /// An interface.
    Link(libc::sockaddr_ll),
    /// An IPv4 address.
    V4(libc::sockaddr_in),
    /// An IPv6 address.
    V6(libc::sockaddr_in6),
}

impl Target {
    fn raw(&mut self) -> (*mut libc::c_void, libc::socklen_t) {
        // All lengths are far below the smallest socklen_t.
        match self {
            Self::Link(a) => (ptr::from_mut(a).cast(), size_of::<libc::sockaddr_ll>() as _),
            Self::V4(a) => (ptr::from_mut(a).cast(), size_of::<libc::sockaddr_in>() as _),
            Self::V6(a) => (ptr::from_mut(a).cast(), size_of::<libc::sockaddr_in6>() as _),
        }
    }
}

/// Sends the first [`MAX_SEND`] of `packets` with as few system calls as it takes, without waiting
/// and without allocating (5.5 KiB of stack, of which as many headers are touched as packets are
/// sent). Gives how many went, and the error of the first that did not.
pub(super) fn send_batch<'a, P: AsRef<[u8]> + ?Sized + 'a>(
    fd: BorrowedFd<'_>,
    packets: impl IntoIterator<Item = &'a P>,
    mut target: Target,
) -> (usize, Option<Errno>) {
    let mut vectors = [const { MaybeUninit::<libc::iovec>::uninit() }; MAX_SEND];
    let mut messages = [const { MaybeUninit::<libc::mmsghdr>::uninit() }; MAX_SEND];
    let (name, name_length) = target.raw();
    let mut count = 0;
    for ((packet, vector), message) in packets.into_iter().zip(&mut vectors).zip(&mut messages) {
        let bytes = packet.as_ref();
        // Only read through by the kernel.
        let iov_base = bytes.as_ptr().cast_mut().cast();
        // SAFETY: a plain C structure of integers and pointers, for which all zeroes hold.
        let message = message.write(unsafe { MaybeUninit::zeroed().assume_init() });
        message.msg_hdr.msg_name = name;
        message.msg_hdr.msg_namelen = name_length;
        message.msg_hdr.msg_iov = vector.write(libc::iovec { iov_base, iov_len: bytes.len() });
        message.msg_hdr.msg_iovlen = 1;
        count += 1;
    }
    let mut sent = 0;
    while let Some(rest) = messages.get_mut(sent..count).filter(|rest| !rest.is_empty()) {
        // The system call itself: musl's sendmmsg is a loop over sendmsg on 64 bits. The structures
        // were zeroed, so musl's padding holds what the kernel takes for the upper halves.
        // SAFETY: the first `count` headers are written, and each points to a live vector, packet
        // and address.
        let result = unsafe {
            libc::syscall(
                libc::SYS_sendmmsg,
                fd.as_raw_fd(),
                rest.as_mut_ptr(),
                rest.len(),
                libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL,
            )
        };
        match usize::try_from(result) {
            // 0 is not given for a batch that is not empty; it must not make this loop for ever.
            Ok(0) => return (sent, Some(Errno(libc::EAGAIN))),
            Ok(more) => sent += more,
            Err(_) => match last_errno() {
                Errno(libc::EINTR) => {}
                errno => return (sent, Some(errno)),
            },
        }
    }
    (sent, None)
}

/// `errno` of the call before.
pub(super) fn last_errno() -> Errno {
    Errno(io::Error::last_os_error().raw_os_error().unwrap_or(libc::EIO))
}

/// The user that this process acts as.
pub(super) fn user() -> u32 {
    // SAFETY: takes nothing and cannot fail.
    unsafe { libc::geteuid() }
}

/// The host's name as gethostname(2) has it.
///
/// # Errors
/// A name of more than 255 bytes or not UTF-8.
pub fn hostname() -> io::Result<String> {
    let mut name = [0u8; 256];
    // SAFETY: the buffer has the length that is given.
    check(unsafe { libc::gethostname(name.as_mut_ptr().cast(), name.len()) })?;
    let name = CStr::from_bytes_until_nul(&name).map_err(io::Error::other)?;
    name.to_str().map(str::to_owned).map_err(io::Error::other)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_host_has_a_name() {
        assert!(!hostname().unwrap().is_empty());
    }
}

/// An error of the kernel's, with what was being done.
#[derive(Debug)]
struct InStep {
    what: &'static str,
    error: io::Error,
}

impl std::fmt::Display for InStep {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}: {}", self.what, self.error)
    }
}

impl std::error::Error for InStep {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(&self.error)
    }
}

/// Says what was being done; [`errno`] still finds the kernel's number.
pub(super) fn in_step(what: &'static str, error: io::Error) -> io::Error {
    io::Error::new(error.kind(), InStep { what, error })
}

/// The kernel's number of an error; EINTR or EIO for those that have none.
#[must_use]
pub fn errno(error: &io::Error) -> Errno {
    let inner = || error.get_ref()?.downcast_ref::<InStep>()?.error.raw_os_error();
    let none = match error.kind() {
        io::ErrorKind::Interrupted => libc::EINTR,
        _ => libc::EIO,
    };
    Errno(error.raw_os_error().or_else(inner).unwrap_or(none))
}
