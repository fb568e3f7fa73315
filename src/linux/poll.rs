//! Waiting for descriptors and a deadline at once: epoll and a timerfd.
//!
//! The timer is absolute, on the clock of the deadlines, and set anew only for a deadline that is
//! earlier than what it stands at, or more than twice as far away: one that moves away with every
//! packet costs a call for each few of them, and no wake-up. So a wait is one system call, as a
//! rule, and a deadline is not off by the time between two of them.

use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::ptr;

use super::{clock, sys};
use crate::node::Instant;

/// Events told of in one wait; the others are told of in the next. 3 KiB of stack.
const READY_MAX: usize = 256;
/// The timer's own key.
const TIMER: u64 = u64::MAX;

/// Waits for several descriptors and a deadline.
#[derive(Debug)]
pub struct Poll {
    epoll: OwnedFd,
    timer: OwnedFd,
    /// What the timer stands at.
    armed: Option<Instant>,
}

impl Poll {
    /// Waits for nothing yet.
    ///
    /// # Errors
    /// Out of descriptors or memory.
    pub fn new() -> io::Result<Self> {
        // SAFETY: takes a number alone.
        let epoll = sys::owned(unsafe { libc::epoll_create1(libc::EPOLL_CLOEXEC) })?;
        let flags = libc::TFD_CLOEXEC | libc::TFD_NONBLOCK;
        // SAFETY: takes numbers alone.
        let timer = sys::owned(unsafe { libc::timerfd_create(libc::CLOCK_BOOTTIME, flags) })?;
        let poll = Self { epoll, timer, armed: None };
        // Edge-triggered: it tells of each expiry once, and nobody has to read it.
        poll.control(libc::EPOLL_CTL_ADD, &poll.timer, libc::EPOLLIN | libc::EPOLLET, TIMER)?;
        Ok(poll)
    }

    /// Has [`Self::wait`] return with `key` for as long as `source` is readable, until it is
    /// closed or removed.
    ///
    /// # Errors
    /// It is there already, or out of memory.
    pub fn add(&self, source: &impl AsFd, key: usize) -> io::Result<()> {
        self.control(libc::EPOLL_CTL_ADD, source, libc::EPOLLIN, key as u64)
    }

    /// Waits for `source` no more.
    ///
    /// # Errors
    /// It is not there.
    pub fn remove(&self, source: &impl AsFd) -> io::Result<()> {
        self.control(libc::EPOLL_CTL_DEL, source, 0, 0)
    }

    fn control(
        &self,
        what: libc::c_int,
        source: &impl AsFd,
        events: libc::c_int,
        key: u64,
    ) -> io::Result<()> {
        let mut event = libc::epoll_event { events: events.cast_unsigned(), u64: key };
        let (epoll, fd) = (self.epoll.as_raw_fd(), source.as_fd().as_raw_fd());
        // SAFETY: both descriptors are open and `event` lives through the call.
        sys::check(unsafe { libc::epoll_ctl(epoll, what, fd, &raw mut event) }).map(drop)
    }

    /// Waits until something is readable or `deadline` has come, and puts the keys of what is
    /// readable into `ready`, in place of what was there. Returns whether that is all: `false` if
    /// more may be readable than it tells of.
    ///
    /// # Errors
    /// None that Linux is known to give.
    pub fn wait(&mut self, deadline: Option<Instant>, ready: &mut Vec<usize>) -> io::Result<bool> {
        ready.clear();
        loop {
            let Some((events, over)) = self.wait_once(deadline, ready)? else { continue };
            let early = deadline.is_none_or(|deadline| deadline > clock::now());
            // The timer stood at a deadline that has moved away since.
            if !(over && ready.is_empty() && early) {
                return Ok(events < READY_MAX);
            }
        }
    }

    /// Returns how many events there were, and whether the timer ran out. `None`: a signal interrupted
    /// the wait, as SIGCONT does without a handler, and the kernel did not say what is readable.
    fn wait_once(
        &mut self,
        deadline: Option<Instant>,
        ready: &mut Vec<usize>,
    ) -> io::Result<Option<(usize, bool)>> {
        let mut timeout = -1;
        if let Some(deadline) = deadline {
            let now = clock::now();
            let is_off =
                |armed: Instant| armed > deadline || deadline.since(now) > armed.since(now) * 2;
            if deadline <= now {
                timeout = 0;
            } else if self.armed.is_none_or(is_off) {
                self.arm(deadline)?;
            }
        }
        let mut events = [const { MaybeUninit::<libc::epoll_event>::uninit() }; READY_MAX];
        let room = libc::c_int::try_from(events.len()).map_err(io::Error::other)?;
        // SAFETY: the buffer has room for as many events as are asked for.
        let count = unsafe {
            libc::epoll_wait(self.epoll.as_raw_fd(), events.as_mut_ptr().cast(), room, timeout)
        };
        let count = match sys::check(count) {
            Ok(count) => usize::try_from(count).unwrap_or(0),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => return Ok(None),
            Err(error) => return Err(error),
        };
        let mut over = false;
        for event in events.iter().take(count) {
            // SAFETY: the kernel has filled the first `count`; integers, which any bits are.
            let key = unsafe { event.assume_init() }.u64;
            if key == TIMER {
                self.armed = None;
                over = true;
            } else {
                ready.extend(usize::try_from(key));
            }
        }
        Ok(Some((count, over)))
    }

    fn arm(&mut self, at: Instant) -> io::Result<()> {
        let (seconds, nanos) = (at.nanos() / 1_000_000_000, at.nanos() % 1_000_000_000);
        let limit = |_| io::Error::from_raw_os_error(libc::EINVAL);
        // SAFETY: a C structure of integers, for which all zeroes hold.
        let mut time: libc::itimerspec = unsafe { MaybeUninit::zeroed().assume_init() };
        time.it_value.tv_sec = seconds.try_into().map_err(limit)?;
        // 0 would stop the timer.
        time.it_value.tv_nsec = nanos.max(1).try_into().map_err(limit)?;
        let (fd, flags) = (self.timer.as_raw_fd(), libc::TFD_TIMER_ABSTIME);
        // SAFETY: the descriptor is a timerfd and `time` lives through the call.
        let result = unsafe { libc::timerfd_settime(fd, flags, &raw const time, ptr::null_mut()) };
        sys::check(result)?;
        self.armed = Some(at);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read as _, Write as _};
    use std::os::unix::net::UnixStream;
    use std::time::Duration;

    use super::*;

    const LONG: Duration = Duration::from_secs(3600);

    #[test]
    fn it_returns_at_the_deadline_and_not_before() {
        let mut poll = Poll::new().unwrap();
        let mut ready = vec![7];
        for _ in 0..3 {
            let deadline = clock::now() + Duration::from_millis(3);
            poll.wait(Some(deadline), &mut ready).unwrap();
            assert!(clock::now() >= deadline);
            assert!(ready.is_empty());
        }
        poll.wait(Some(Instant::ZERO), &mut ready).unwrap();
    }

    #[test]
    fn what_is_readable_is_told_until_it_is_read() {
        let mut poll = Poll::new().unwrap();
        let (mut near, mut far) = UnixStream::pair().unwrap();
        poll.add(&near, 5).unwrap();
        far.write_all(b"x").unwrap();
        let mut ready = Vec::new();
        for _ in 0..2 {
            poll.wait(Some(clock::now() + LONG), &mut ready).unwrap();
            assert_eq!(ready, [5]);
        }
        near.read_exact(&mut [0]).unwrap();
        poll.wait(Some(clock::now()), &mut ready).unwrap();
        assert!(ready.is_empty());
        poll.remove(&near).unwrap();
        far.write_all(b"x").unwrap();
        poll.wait(Some(clock::now() + Duration::from_millis(1)), &mut ready).unwrap();
        assert!(ready.is_empty());
    }

    extern "C" fn nothing(_: libc::c_int) {}

    #[test]
    fn a_signal_ends_no_wait() {
        // SAFETY: a C structure for which all zeroes hold.
        let mut action: libc::sigaction = unsafe { MaybeUninit::zeroed().assume_init() };
        action.sa_sigaction = nothing as extern "C" fn(libc::c_int) as usize;
        // SAFETY: `action` lives through the call, and the handler does nothing.
        let result = unsafe { libc::sigaction(libc::SIGWINCH, &raw const action, ptr::null_mut()) };
        assert_eq!(result, 0);
        let (near, mut far) = UnixStream::pair().unwrap();
        let (say, said) = std::sync::mpsc::channel();
        let waiting = std::thread::spawn(move || {
            let mut poll = Poll::new().unwrap();
            poll.add(&near, 5).unwrap();
            // SAFETY: takes nothing and cannot fail.
            let task = unsafe { libc::gettid() };
            // SAFETY: takes nothing and cannot fail.
            let thread = unsafe { libc::pthread_self() };
            say.send((task, thread)).unwrap();
            let mut ready = Vec::new();
            poll.wait(Some(clock::now() + LONG), &mut ready).unwrap();
            ready
        });
        let (task, thread) = said.recv().unwrap();
        let stat = format!("/proc/self/task/{task}/stat");
        for _ in 0..20 {
            while !waiting.is_finished()
                && !std::fs::read_to_string(&stat).is_ok_and(|stat| stat.contains(") S "))
            {
                std::thread::yield_now();
            }
            assert!(!waiting.is_finished(), "it waits");
            // SAFETY: the thread is not joined yet.
            assert_eq!(unsafe { libc::pthread_kill(thread, libc::SIGWINCH) }, 0);
        }
        far.write_all(b"x").unwrap();
        assert_eq!(waiting.join().unwrap(), [5]);
    }

    #[test]
    fn when_more_is_readable_than_one_wait_tells_of_it_says_so() {
        let mut poll = Poll::new().unwrap();
        let (near, mut far) = UnixStream::pair().unwrap();
        far.write_all(b"x").unwrap();
        let mut copies = Vec::new();
        let mut ready = Vec::new();
        for key in 0..READY_MAX {
            let now = clock::now();
            assert!(poll.wait(Some(now), &mut ready).unwrap(), "{key} are readable");
            copies.push(near.try_clone().unwrap());
            poll.add(&copies[key], key).unwrap();
        }
        assert!(!poll.wait(None, &mut ready).unwrap());
        assert_eq!(ready.len(), READY_MAX);
    }

    #[test]
    fn a_deadline_that_moves_away_wakes_nobody_and_one_that_comes_nearer_is_kept() {
        let mut poll = Poll::new().unwrap();
        let mut ready = Vec::new();
        let (near, mut far) = UnixStream::pair().unwrap();
        poll.add(&near, 5).unwrap();
        far.write_all(b"x").unwrap();
        let soon = clock::now() + Duration::from_millis(2);
        poll.wait(Some(soon), &mut ready).unwrap();
        assert_eq!(ready, [5]);
        poll.remove(&near).unwrap();
        let later = soon + Duration::from_millis(8);
        poll.wait(Some(later), &mut ready).unwrap();
        assert!(clock::now() >= later, "the timer still stood at the earlier one");
        // And the other way: it stands at an hour, and is wanted in a moment.
        poll.add(&near, 5).unwrap();
        poll.wait(Some(clock::now() + LONG), &mut ready).unwrap();
        poll.remove(&near).unwrap();
        let soon = clock::now() + Duration::from_millis(2);
        poll.wait(Some(soon), &mut ready).unwrap();
        assert!(clock::now() >= soon);
    }
}
