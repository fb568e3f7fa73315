//! Signals as something to read: blocked for every thread, delivered through a file descriptor.

use std::io;
use std::mem::{MaybeUninit, size_of};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use super::sys;

/// A signal that the daemon acts on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Signal {
    /// SIGHUP: read the local file again.
    Hangup,
    /// SIGINT: end, as SIGTERM.
    Interrupt,
    /// SIGTERM: end in good order.
    Terminate,
    /// SIGUSR1: log the status.
    User1,
    /// SIGUSR2: log the counters.
    User2,
}

impl Signal {
    /// All of them.
    pub const ALL: [Self; 5] =
        [Self::Hangup, Self::Interrupt, Self::Terminate, Self::User1, Self::User2];

    const fn number(self) -> libc::c_int {
        match self {
            Self::Hangup => libc::SIGHUP,
            Self::Interrupt => libc::SIGINT,
            Self::Terminate => libc::SIGTERM,
            Self::User1 => libc::SIGUSR1,
            Self::User2 => libc::SIGUSR2,
        }
    }
}

/// Those that would end or stop a process which does nothing about them, though they say nothing to
/// this one. What ends it with a core (SIGQUIT, SIGSEGV and the like) or by a limit of CPU time does.
const IGNORED: [libc::c_int; 9] = [
    libc::SIGALRM,
    libc::SIGIO,
    libc::SIGPIPE,
    libc::SIGPROF,
    libc::SIGPWR,
    libc::SIGTTIN,
    libc::SIGTTOU,
    libc::SIGVTALRM,
    libc::SIGXFSZ,
];

/// Blocks every [`Signal`] in the calling thread and all that it starts, and ignores those that say
/// nothing to this program. To be called before the first other thread.
///
/// A blocked mask goes on into programs that are started: their starter must clear it.
///
/// # Errors
/// The kernel's refusal, which no known kernel gives.
pub fn block() -> io::Result<()> {
    let set = signal_set(&Signal::ALL)?;
    // SAFETY: `set` is an initialised set; no old set is asked for.
    let error =
        unsafe { libc::pthread_sigmask(libc::SIG_BLOCK, &raw const set, std::ptr::null_mut()) };
    if error != 0 {
        return Err(io::Error::from_raw_os_error(error));
    }
    IGNORED.into_iter().try_for_each(ignore)?;
    // Those below are the C library's own.
    (libc::SIGRTMIN()..=libc::SIGRTMAX()).try_for_each(ignore)
}

fn ignore(signal: libc::c_int) -> io::Result<()> {
    // SAFETY: SIG_IGN installs no handler, so nothing of ours ever runs in signal context.
    match unsafe { libc::signal(signal, libc::SIG_IGN) } {
        libc::SIG_ERR => Err(io::Error::last_os_error()),
        _ => Ok(()),
    }
}

/// Reads signals that [`block`] keeps from being delivered. Readable when one waits.
#[derive(Debug)]
pub struct SignalFd(OwnedFd);

impl SignalFd {
    /// For these signals.
    ///
    /// # Errors
    /// EMFILE, ENFILE or ENOMEM.
    pub fn new(signals: &[Signal]) -> io::Result<Self> {
        let set = signal_set(signals)?;
        let flags = libc::SFD_CLOEXEC | libc::SFD_NONBLOCK;
        // SAFETY: `set` is an initialised set; -1 asks for a new descriptor.
        let fd = unsafe { libc::signalfd(-1, &raw const set, flags) };
        sys::owned(fd).map(Self)
    }

    /// The next signal that waits, `None` when none does.
    ///
    /// # Errors
    /// What read(2) gives other than EAGAIN and EINTR.
    pub fn read(&self) -> io::Result<Option<Signal>> {
        const SIZE: usize = size_of::<libc::signalfd_siginfo>();
        loop {
            let mut info = MaybeUninit::<libc::signalfd_siginfo>::zeroed();
            let fd = self.0.as_raw_fd();
            // SAFETY: the buffer is SIZE writable bytes.
            let read = unsafe { libc::read(fd, info.as_mut_ptr().cast(), SIZE) };
            if read < 0 {
                let error = io::Error::last_os_error();
                match error.kind() {
                    io::ErrorKind::WouldBlock => return Ok(None),
                    io::ErrorKind::Interrupted => continue,
                    _ => return Err(error),
                }
            }
            // SAFETY: zeroed at first and overwritten by the kernel; integers only, any bits hold.
            let number = unsafe { info.assume_init() }.ssi_signo;
            let known = Signal::ALL.into_iter().find(|s| u32::try_from(s.number()) == Ok(number));
            if known.is_some() {
                return Ok(known);
            }
        }
    }
}

impl AsFd for SignalFd {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

fn signal_set(signals: &[Signal]) -> io::Result<libc::sigset_t> {
    let mut set = MaybeUninit::<libc::sigset_t>::uninit();
    // SAFETY: initialises the whole set.
    sys::check(unsafe { libc::sigemptyset(set.as_mut_ptr()) })?;
    // SAFETY: sigemptyset has initialised it.
    let mut set = unsafe { set.assume_init() };
    for signal in signals {
        // SAFETY: `set` is initialised and the signal number is a valid one.
        sys::check(unsafe { libc::sigaddset(&raw mut set, signal.number()) })?;
    }
    Ok(set)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_blocked_signal_is_read_once() {
        let handle = std::thread::spawn(|| {
            block().unwrap();
            let fd = SignalFd::new(&[Signal::Hangup]).unwrap();
            assert_eq!(fd.read().unwrap(), None);
            // SAFETY: raises a signal that this very thread blocks.
            let error = unsafe { libc::pthread_kill(libc::pthread_self(), libc::SIGHUP) };
            assert_eq!(error, 0);
            assert_eq!(fd.read().unwrap(), Some(Signal::Hangup));
            assert_eq!(fd.read().unwrap(), None);
        });
        handle.join().unwrap();
    }
}
