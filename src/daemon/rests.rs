//! When packets are let come before they are read: a neighbour sends the adverts of many routers in
//! one burst, and where they come one after the other, reading each by itself costs both sides a
//! wake-up a packet. Packets that come alone wait for nothing.

use std::time::Duration;

use crate::node::Instant;

/// For how long.
pub(super) const REST: Duration = Duration::from_millis(1);
/// So often, then it is tried without: many a network card or kernel hands a burst over as a whole.
const RESTS: u32 = 128;
/// As many wake-ups for packets, each soon after the one before, and they come one after the other.
const TRICKLE: u32 = 3;

/// What the last packets tell of the next ones.
#[derive(Debug)]
pub(super) struct Rests {
    /// When there was a wake-up for packets last, and how often in a row it came soon after another.
    woke_at: Instant,
    soon: u32,
    left: u32,
}

impl Rests {
    pub(super) const fn new() -> Self {
        Self { woke_at: Instant::ZERO, soon: 0, left: 0 }
    }

    /// Whether to rest before the next packets are read.
    pub(super) const fn is_due(&self) -> bool {
        self.left > 0
    }

    /// A rest was taken.
    pub(super) const fn taken(&mut self) {
        self.left = self.left.saturating_sub(1);
    }

    /// After a wake-up at `woke_at` there were so many packets, and at least one.
    pub(super) fn read(&mut self, woke_at: Instant, packets: usize) {
        let is_soon = woke_at.since(self.woke_at) < REST;
        self.woke_at = woke_at;
        self.soon = if is_soon { self.soon + 1 } else { 0 };
        if self.soon >= TRICKLE {
            (self.soon, self.left) = (0, RESTS);
        } else if !is_soon && packets == 1 {
            self.left = 0;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SOON: Duration = Duration::from_micros(50);
    const LATER: Duration = Duration::from_millis(25);

    /// Packets of wake-ups that follow each other after these times.
    fn wake(rests: &mut Rests, after: &[Duration], packets: usize) {
        for time in after {
            rests.read(rests.woke_at + *time, packets);
        }
    }

    #[test]
    fn it_rests_where_packets_trickle_and_now_and_then_tries_without() {
        let mut rests = Rests::new();
        wake(&mut rests, &[LATER, SOON, SOON], 1);
        assert!(!rests.is_due());
        wake(&mut rests, &[SOON], 1);
        for _ in 0..RESTS {
            assert!(rests.is_due());
            rests.taken();
            wake(&mut rests, &[LATER], 64);
        }
        assert!(!rests.is_due());
    }

    #[test]
    fn whole_bursts_and_packets_that_come_alone_wait_for_nothing() {
        let mut rests = Rests::new();
        for packets in [64, 1] {
            wake(&mut rests, &[LATER, SOON, LATER, SOON, LATER], packets);
            assert!(!rests.is_due());
        }
        wake(&mut rests, &[SOON; 3], 1);
        assert!(rests.is_due());
        wake(&mut rests, &[LATER], 1);
        assert!(!rests.is_due());
    }
}
