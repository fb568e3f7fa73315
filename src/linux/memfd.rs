//! Memory that another process can read after this one has died.

use std::ffi::CStr;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd};

use super::sys;

/// What nobody can undo: the size stays as it is.
const SEALS: libc::c_int = libc::F_SEAL_SHRINK | libc::F_SEAL_GROW | libc::F_SEAL_SEAL;

/// Makes `size` bytes of memory behind a descriptor, whose size nobody can change any more.
/// Pages take memory once they are written.
///
/// # Errors
/// Out of descriptors or memory.
pub fn memfd(name: &CStr, size: u64) -> io::Result<File> {
    let flags = libc::MFD_CLOEXEC | libc::MFD_ALLOW_SEALING;
    // SAFETY: the name is a C string that lives through the call.
    let fd = unsafe { libc::memfd_create(name.as_ptr(), flags) };
    let file = File::from(sys::owned(fd)?);
    file.set_len(size)?;
    // SAFETY: fcntl(2) with integers.
    sys::check(unsafe { libc::fcntl(file.as_raw_fd(), libc::F_ADD_SEALS, SEALS) })?;
    Ok(file)
}

/// Whether a descriptor is of such memory.
pub fn is_sealed(fd: impl AsFd) -> bool {
    // SAFETY: fcntl(2) with integers.
    let seals = unsafe { libc::fcntl(fd.as_fd().as_raw_fd(), libc::F_GET_SEALS) };
    seals >= 0 && seals & SEALS == SEALS
}
