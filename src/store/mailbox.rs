//! A mailbox in which newer letters replace older ones of their kind: the sender never waits,
//! and a slow reader finds the present state, not a backlog.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use smol::channel;

/// What can be in a mailbox.
pub trait Letter {
    /// Whether `older`, not yet read, is of no use any more. There must be few letters of which
    /// none replaces another: that is the mailbox's bound.
    fn replaces(&self, older: &Self) -> bool;
}

/// The writing end.
#[derive(Debug)]
pub struct Sender<T> {
    letters: Arc<Mutex<VecDeque<T>>>,
    bell: channel::Sender<()>,
}

/// The reading end.
#[derive(Debug)]
pub struct Receiver<T> {
    letters: Arc<Mutex<VecDeque<T>>>,
    bell: channel::Receiver<()>,
}

/// An empty mailbox.
#[must_use]
pub fn mailbox<T: Letter>() -> (Sender<T>, Receiver<T>) {
    let letters = Arc::new(Mutex::new(VecDeque::new()));
    let (ring, hear) = channel::bounded(1);
    (Sender { letters: Arc::clone(&letters), bell: ring }, Receiver { letters, bell: hear })
}

impl<T: Letter> Sender<T> {
    /// Puts a letter into the box and takes out those that it replaces. Returns `false` when
    /// nobody will ever read it.
    pub fn send(&self, letter: T) -> bool {
        let mut letters = lock(&self.letters);
        letters.retain(|older| !letter.replaces(older));
        letters.push_back(letter);
        drop(letters);
        // Full: it has rung already.
        !matches!(self.bell.try_send(()), Err(channel::TrySendError::Closed(())))
    }

    /// Waits until the reader has gone away.
    pub async fn closed(&self) {
        self.bell.closed().await;
    }
}

impl<T> Receiver<T> {
    /// The next letter; waits for one. `None` when the writer has gone away.
    pub async fn recv(&self) -> Option<T> {
        loop {
            if let Some(letter) = self.try_recv() {
                return Some(letter);
            }
            if self.bell.recv().await.is_err() {
                return self.try_recv();
            }
        }
    }

    /// The next letter, if there is one now.
    #[must_use]
    pub fn try_recv(&self) -> Option<T> {
        lock(&self.letters).pop_front()
    }
}

fn lock<T>(letters: &Mutex<VecDeque<T>>) -> MutexGuard<'_, VecDeque<T>> {
    // No code that can panic runs while it is held, beside the letters' own comparison.
    letters.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, PartialEq)]
    enum Test {
        State(u32),
        Link(u32),
    }

    impl Letter for Test {
        fn replaces(&self, older: &Self) -> bool {
            std::mem::discriminant(self) == std::mem::discriminant(older)
        }
    }

    #[test]
    fn the_newest_of_each_kind_is_kept_in_the_order_of_arrival() {
        let (sender, receiver) = mailbox();
        for letter in [Test::State(1), Test::Link(1), Test::State(2), Test::State(3)] {
            assert!(sender.send(letter));
        }
        smol::block_on(async {
            assert_eq!(receiver.recv().await, Some(Test::Link(1)));
            assert_eq!(receiver.recv().await, Some(Test::State(3)));
        });
        assert_eq!(receiver.try_recv(), None);
    }

    #[test]
    fn what_was_sent_is_read_after_the_writer_is_gone() {
        let (sender, receiver) = mailbox();
        sender.send(Test::State(1));
        sender.send(Test::Link(1));
        drop(sender);
        smol::block_on(async {
            assert_eq!(receiver.recv().await, Some(Test::State(1)));
            assert_eq!(receiver.recv().await, Some(Test::Link(1)));
            assert_eq!(receiver.recv().await, None);
        });
    }

    #[test]
    fn a_writer_learns_that_nobody_reads() {
        let (sender, receiver) = mailbox();
        drop(receiver);
        assert!(!sender.send(Test::State(1)));
        smol::block_on(sender.closed());
    }
}
