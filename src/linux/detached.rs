//! What a process does that has to outlive the one that started it, and little else.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use super::sys;

/// CAP_NET_ADMIN (linux/capability.h): to change addresses.
const CAP_NET_ADMIN: u32 = 12;
/// _LINUX_CAPABILITY_VERSION_3: two words of each set.
const CAPABILITY_VERSION: u32 = 0x2008_0522;

/// A session of its own: what a terminal or a shell sends to the starter's group does not arrive.
///
/// # Errors
/// EPERM when it leads a process group already.
pub fn own_session() -> io::Result<()> {
    // SAFETY: takes nothing.
    sys::check(unsafe { libc::setsid() }).map(drop)
}

/// Closes every descriptor from `first` on. For a program that has not opened any yet.
///
/// # Errors
/// ENOSYS before Linux 5.9.
pub fn close_from(first: u32) -> io::Result<()> {
    // SAFETY: takes numbers; nobody in this program has a descriptor from `first` on yet.
    let result = unsafe { libc::syscall(libc::SYS_close_range, first, u32::MAX, 0) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// The name that the kernel has for this process: 15 bytes at most.
pub fn name(name: &std::ffi::CStr) {
    // SAFETY: the name is a C string; the kernel copies its first 16 bytes. It cannot fail.
    unsafe { libc::prctl(libc::PR_SET_NAME, name.as_ptr()) };
}

/// Gives up every capability but CAP_NET_ADMIN. Raw sockets that are open go on working.
///
/// # Errors
/// EPERM when it does not have that one itself.
pub fn keep_net_admin() -> io::Result<()> {
    // struct __user_cap_header_struct: version, pid (0: the calling thread).
    let header = [CAPABILITY_VERSION, 0];
    let kept = 1 << CAP_NET_ADMIN;
    // struct __user_cap_data_struct, twice: effective, permitted, inheritable.
    let data = [kept, kept, 0, 0, 0, 0];
    // SAFETY: both pointers are to live structures of the sizes that this version has.
    let result = unsafe { libc::syscall(libc::SYS_capset, header.as_ptr(), data.as_ptr()) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// A descriptor that becomes readable when the process that started this one ends, if it is
/// `parent`.
///
/// # Errors
/// ENOSYS before Linux 5.3; ESRCH when the parent is another by now.
pub fn parent(parent: u32) -> io::Result<OwnedFd> {
    // SAFETY: takes numbers alone.
    let fd = unsafe { libc::syscall(libc::SYS_pidfd_open, parent, 0) };
    let fd = sys::owned(libc::c_int::try_from(fd).map_err(io::Error::other)?)?;
    // Asked afterwards: the number was the parent's all the time that it was opened in.
    if std::os::unix::process::parent_id() == parent {
        Ok(fd)
    } else {
        Err(io::Error::from_raw_os_error(libc::ESRCH))
    }
}

/// The same open file under one of the highest numbers that this process may use. A process that
/// ends lets go of its files from the highest number down, and of some sockets only after tens of
/// milliseconds: who waits for this one hears of the end first.
///
/// # Errors
/// Out of descriptors.
pub fn with_high_number(file: impl AsFd) -> io::Result<OwnedFd> {
    /// Bounds the kernel's table of descriptors to 64 KiB.
    const MOST: libc::rlim_t = 4096;
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: the pointer is to a live structure.
    sys::check(unsafe { libc::getrlimit(libc::RLIMIT_NOFILE, &raw mut limit) })?;
    // Some room above, for the next guard's.
    let least = limit.rlim_cur.min(MOST).saturating_sub(8);
    let least = libc::c_int::try_from(least).map_err(io::Error::other)?;
    let fd = file.as_fd().as_raw_fd();
    // SAFETY: fcntl(2) with integers.
    sys::owned(unsafe { libc::fcntl(fd, libc::F_DUPFD_CLOEXEC, least) })
}

/// Makes room in the kernel's table of descriptors for [`with_high_number`], which makes the kernel
/// wait for about 10 ms once the process has several threads.
///
/// # Errors
/// Out of memory.
pub fn make_room() -> io::Result<()> {
    with_high_number(io::stdin()).map(drop)
}

/// Waits, without bound, until `one` or `other` can be read or is hung up.
///
/// # Errors
/// ENOMEM.
pub fn wait_for_either(one: BorrowedFd<'_>, other: Option<BorrowedFd<'_>>) -> io::Result<()> {
    let entry = |fd: libc::c_int| libc::pollfd { fd, events: libc::POLLIN, revents: 0 };
    // The kernel passes over a negative one.
    let other = other.map_or(-1, |fd| fd.as_raw_fd());
    let mut both = [entry(one.as_fd().as_raw_fd()), entry(other)];
    loop {
        // SAFETY: two live pollfds.
        match sys::check(unsafe { libc::poll(both.as_mut_ptr(), 2, -1) }) {
            Ok(_) => return Ok(()),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}
