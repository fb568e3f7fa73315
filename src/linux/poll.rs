//! What wakes the engine.

use std::io;
use std::os::fd::{AsFd, AsRawFd};

use polling::{Event, PollMode, Poller};

/// Has `poller` return with `key` for as long as `source` is readable.
///
/// # Errors
/// What epoll_ctl(2) says: registered already, or out of memory.
pub fn register(poller: &Poller, source: &impl AsFd, key: usize) -> io::Result<()> {
    let fd = source.as_fd().as_raw_fd();
    // SAFETY: the crate asks for removal before the descriptor is closed; its reason is pollers
    // other than epoll, which forgets a descriptor by itself when its last copy is closed.
    unsafe { poller.add_with_mode(fd, Event::readable(key), PollMode::Level) }
}
