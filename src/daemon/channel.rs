//! How the threads speak: bounded queues and a bell, so that the one that sends adverts never
//! waits, and never takes a lock that another thread may hold.
//!
//! Receivers of [`std::sync::mpsc`] that wait register themselves under a lock that the sender
//! takes to wake them. So nobody waits there: whoever has nothing to do waits at its [`Bell`].

use std::io::{self, ErrorKind, Read, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;

/// The ringing end of a bell.
#[derive(Debug)]
pub(super) struct Ringer(UnixStream);

/// The hearing end of a bell. Readable once it has rung.
#[derive(Debug)]
pub(super) struct Bell(UnixStream);

/// A bell: any number of rings before a look count as one.
///
/// # Errors
/// What socketpair(2) says: out of descriptors or memory.
pub(super) fn bell() -> io::Result<(Ringer, Bell)> {
    let (ringer, bell) = UnixStream::pair()?;
    ringer.set_nonblocking(true)?;
    Ok((Ringer(ringer), Bell(bell)))
}

impl Ringer {
    /// Another end that rings the same bell.
    ///
    /// # Errors
    /// Out of descriptors.
    pub(super) fn another(&self) -> io::Result<Self> {
        self.0.try_clone().map(Self)
    }

    /// Rings. Never waits.
    pub(super) fn ring(&self) {
        // Full: it has rung often enough. Any other failure: nobody is there to hear it.
        let _ = (&self.0).write(&[1]);
    }
}

impl Bell {
    /// Waits until it rings; `false` if nobody is left to ring it.
    pub(super) fn wait(&self) -> bool {
        let mut rings = [0; 64];
        loop {
            match (&self.0).read(&mut rings) {
                Ok(0) => return false,
                Ok(_) => return true,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(_) => return false,
            }
        }
    }

    /// Hears it out: it is not readable until it rings again. Never waits, once
    /// [`Self::set_nonblocking`] was called.
    pub(super) fn silence(&self) {
        let mut rings = [0; 64];
        while matches!((&self.0).read(&mut rings), Ok(count) if count == rings.len()) {}
    }

    /// For those who wait for several things at once.
    ///
    /// # Errors
    /// None that Linux is known to give.
    pub(super) fn set_nonblocking(&self) -> io::Result<()> {
        self.0.set_nonblocking(true)
    }
}

impl AsFd for Bell {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}
