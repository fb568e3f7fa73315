//! Network namespaces, for the demonstration and for tests.

use std::fs::{self, File};
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};

use super::netlink::Requests;
use super::sys;
use crate::wire::IfIndex;

/// The loopback interface's index, the same in every network namespace.
const LOOPBACK: IfIndex = IfIndex(1);

/// Moves the calling thread into a new network namespace with its loopback up.
///
/// # Errors
/// EPERM without CAP_SYS_ADMIN in the thread's user namespace.
pub fn unshare_net() -> io::Result<()> {
    // SAFETY: takes flags alone; a network namespace is a thread's own.
    sys::check(unsafe { libc::unshare(libc::CLONE_NEWNET) })?;
    loopback_up()
}

/// Moves the process into a new user namespace, in which it is root, and a new network namespace
/// with its loopback up. Only while the process has one thread.
///
/// # Errors
/// EINVAL with more than one thread; EPERM or ENOSPC where user namespaces are switched off.
pub fn unshare_user_net() -> io::Result<()> {
    // SAFETY: cannot fail and takes nothing.
    let uid = unsafe { libc::geteuid() };
    // SAFETY: cannot fail and takes nothing.
    let gid = unsafe { libc::getegid() };
    // SAFETY: takes flags alone.
    sys::check(unsafe { libc::unshare(libc::CLONE_NEWUSER | libc::CLONE_NEWNET) })?;
    // A group map may be written without privilege only when setgroups(2) is given up first.
    fs::write("/proc/self/setgroups", "deny").map_err(|e| named("/proc/self/setgroups", &e))?;
    fs::write("/proc/self/uid_map", format!("0 {uid} 1"))
        .map_err(|e| named("/proc/self/uid_map", &e))?;
    fs::write("/proc/self/gid_map", format!("0 {gid} 1"))
        .map_err(|e| named("/proc/self/gid_map", &e))?;
    loopback_up()
}

/// The calling thread's network namespace; it lives on while the descriptor is open.
///
/// # Errors
/// That /proc is not mounted, or EMFILE.
pub fn current() -> io::Result<OwnedFd> {
    let path = "/proc/thread-self/ns/net";
    File::open(path).map(OwnedFd::from).map_err(|e| named(path, &e))
}

/// Moves the calling thread into the network namespace that `namespace` is open on.
///
/// # Errors
/// EPERM without CAP_SYS_ADMIN in its user namespace; EINVAL for another descriptor.
pub fn enter(namespace: impl AsFd) -> io::Result<()> {
    let fd = namespace.as_fd().as_raw_fd();
    // SAFETY: `fd` is borrowed and open; CLONE_NEWNET lets the kernel refuse another kind.
    sys::check(unsafe { libc::setns(fd, libc::CLONE_NEWNET) }).map(drop)
}

fn loopback_up() -> io::Result<()> {
    Requests::open()?.set_up(LOOPBACK, true)
}

fn named(path: &str, error: &io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("{path}: {error}"))
}
