//! Waiting for many descriptors and for a point in time.

use std::collections::BTreeMap;
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::sync::Arc;

use polling::{Event, Events, PollMode};

use super::clock;
use crate::node::Instant;

/// `polling` with a safe face: it keeps a duplicate of each descriptor that it watches, so that none
/// is closed under way. A watched socket therefore stays open until [`Self::remove`].
#[derive(Debug)]
pub struct Poller {
    inner: Arc<polling::Poller>,
    events: Events,
    watched: BTreeMap<usize, OwnedFd>,
}

/// Ends a [`Poller::wait`] from another thread.
#[derive(Clone, Debug)]
pub struct Waker(Arc<polling::Poller>);

impl Waker {
    /// Ends the wait under way, or the next one.
    ///
    /// # Errors
    /// What write(2) to an eventfd gives.
    pub fn wake(&self) -> io::Result<()> {
        self.0.notify()
    }
}

impl Poller {
    /// Watches nothing yet.
    ///
    /// # Errors
    /// EMFILE, ENFILE or ENOMEM.
    pub fn new() -> io::Result<Self> {
        let inner = Arc::new(polling::Poller::new()?);
        Ok(Self { inner, events: Events::new(), watched: BTreeMap::new() })
    }

    /// Watches `source` under `key` for something to read, level-triggered: what is left unread is
    /// told again. Takes the place of what was watched under `key`.
    ///
    /// # Errors
    /// EMFILE, ENOMEM, ENOSPC; `usize::MAX` as key.
    pub fn add(&mut self, key: usize, source: impl AsFd) -> io::Result<()> {
        self.remove(key)?;
        let fd = source.as_fd().try_clone_to_owned()?;
        let event = Event::readable(key);
        // SAFETY: the descriptor is ours and is deleted from the poller before it is closed.
        unsafe { self.inner.add_with_mode(fd.as_raw_fd(), event, PollMode::Level) }?;
        self.watched.insert(key, fd);
        Ok(())
    }

    /// Watches `key` no more; nothing when it was not.
    ///
    /// # Errors
    /// None known for a descriptor that is watched.
    pub fn remove(&mut self, key: usize) -> io::Result<()> {
        if let Some(fd) = self.watched.get(&key) {
            self.inner.delete(fd)?;
            self.watched.remove(&key);
        }
        Ok(())
    }

    /// Another thread's way to end a wait.
    #[must_use]
    pub fn waker(&self) -> Waker {
        Waker(Arc::clone(&self.inner))
    }

    /// Waits until something can be read, a [`Waker`] wakes or `until` has come, and replaces `ready`
    /// by the keys that can be read (none after the other two). Does not wait for a time that has
    /// passed. After a suspend it may end late by what was left of the wait.
    ///
    /// # Errors
    /// ENOMEM.
    pub fn wait(&mut self, until: Option<Instant>, ready: &mut Vec<usize>) -> io::Result<()> {
        ready.clear();
        self.events.clear();
        let left = until.map(|until| until.since(clock::now()));
        self.inner.wait(&mut self.events, left)?;
        ready.extend(self.events.iter().map(|event| event.key));
        Ok(())
    }
}

impl Drop for Poller {
    fn drop(&mut self) {
        // A waker may keep the inner poller longer than our descriptors live.
        for fd in self.watched.values() {
            let _ = self.inner.delete(fd);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::os::unix::net::UnixStream;
    use std::time::Duration;

    use super::*;

    #[test]
    fn what_is_left_unread_is_told_again() {
        let (mut near, mut far) = UnixStream::pair().unwrap();
        let mut poller = Poller::new().unwrap();
        let mut ready = vec![9];
        poller.add(7, &near).unwrap();
        poller.wait(Some(Instant::ZERO), &mut ready).unwrap();
        assert!(ready.is_empty());
        far.write_all(b"x").unwrap();
        for _ in 0..2 {
            poller.wait(None, &mut ready).unwrap();
            assert_eq!(ready, [7]);
        }
        assert_eq!(near.read(&mut [0; 8]).unwrap(), 1);
        poller.wait(Some(Instant::ZERO), &mut ready).unwrap();
        assert!(ready.is_empty());
    }

    #[test]
    fn what_was_removed_or_replaced_is_told_no_more() {
        let (near, far) = UnixStream::pair().unwrap();
        let (quiet, _other) = UnixStream::pair().unwrap();
        let mut poller = Poller::new().unwrap();
        let mut ready = Vec::new();
        poller.add(1, &near).unwrap();
        (&far).write_all(b"x").unwrap();
        poller.add(1, &quiet).unwrap();
        poller.wait(Some(Instant::ZERO), &mut ready).unwrap();
        assert!(ready.is_empty());
        poller.remove(1).unwrap();
        poller.remove(1).unwrap();
    }

    #[test]
    fn a_waker_ends_a_wait_and_a_point_in_time_does() {
        let mut poller = Poller::new().unwrap();
        let mut ready = Vec::new();
        poller.waker().wake().unwrap();
        poller.wait(None, &mut ready).unwrap();
        let until = clock::now() + Duration::from_millis(2);
        poller.wait(Some(until), &mut ready).unwrap();
        assert!(clock::now() >= until);
    }
}
