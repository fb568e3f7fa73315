//! Waiting for one descriptor.

use std::io;
use std::os::fd::{AsFd, AsRawFd};
use std::time::Duration;

use super::sys;

/// Waits until `source` can be read (or has an error to give), at most `limit`. False when it took
/// longer.
///
/// # Errors
/// ENOMEM, EINVAL.
pub fn wait_readable(source: impl AsFd, limit: Duration) -> io::Result<bool> {
    let end = super::clock::now() + limit;
    loop {
        let fd = source.as_fd().as_raw_fd();
        let mut poll = libc::pollfd { fd, events: libc::POLLIN, revents: 0 };
        // Rounded up, so that it does not turn without waiting in the last millisecond.
        let left = end.since(super::clock::now()).as_nanos().div_ceil(1_000_000);
        let left = libc::c_int::try_from(left).unwrap_or(libc::c_int::MAX);
        // SAFETY: one live pollfd.
        match sys::check(unsafe { libc::poll(&raw mut poll, 1, left) }) {
            Ok(ready) => return Ok(ready > 0),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}
