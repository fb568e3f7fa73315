//! Gratuitous ARP and unsolicited NA: which address is announced when, and how fast.
//!
//! An address is announced as soon as it is there, a few times more in case that was lost or
//! came before a switch's port was forwarding, and then now and then for ever, because caches
//! age out and frames are filtered. A switch that inspects ARP shuts a port that floods, so each
//! link has a pace, and what is new goes before what is repeated.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use super::Instant;
use super::links::Place;
use crate::wire::IfIndex;

/// Time from each announcement of an address to the next, until the refresh takes over.
const REPEATS: [Duration; 3] =
    [Duration::from_millis(200), Duration::from_millis(800), Duration::from_secs(2)];
/// Time between two announcements of an address that has been there for a while.
const REFRESH: Duration = Duration::from_secs(60);
/// First announcements of one link: this many at once, then a pause.
const FIRST_BURST: usize = 64;
const FIRST_PAUSE: Duration = Duration::from_millis(1);
/// Repeated ones.
const REPEAT_BURST: usize = 16;
const REPEAT_PAUSE: Duration = Duration::from_millis(10);

/// What is announced, and when next.
#[derive(Debug, Default)]
pub(super) struct Announcer {
    links: BTreeMap<IfIndex, Queue>,
}

#[derive(Debug, Default)]
struct Queue {
    /// Repeats done so far and time of the next announcement; `None`: waits in `first`.
    places: BTreeMap<Place, (usize, Option<Instant>)>,
    /// May hold places that wait there no more.
    first: VecDeque<Place>,
    first_after: Option<Instant>,
    later: BTreeSet<(Instant, Place)>,
    later_after: Option<Instant>,
}

impl Announcer {
    /// Announces `place` as soon as the pace allows, and from then on.
    pub(super) fn start(&mut self, place: Place) {
        let queue = self.links.entry(place.0).or_default();
        match queue.places.insert(place, (0, None)) {
            Some((_, None)) => return,
            Some((_, Some(at))) => _ = queue.later.remove(&(at, place)),
            None => {}
        }
        queue.first.push_back(place);
    }

    /// Announces `place` no more.
    pub(super) fn stop(&mut self, place: &Place) {
        let Some(queue) = self.links.get_mut(&place.0) else { return };
        if let Some((_, Some(at))) = queue.places.remove(place) {
            queue.later.remove(&(at, *place));
        }
        if queue.places.is_empty() {
            self.links.remove(&place.0);
        }
    }

    /// Hands what is due at `now` to `announce`, as far as the pace allows.
    pub(super) fn due(&mut self, now: Instant, mut announce: impl FnMut(Place)) {
        for queue in self.links.values_mut() {
            if queue.first_after.is_none_or(|at| now >= at) && !queue.first.is_empty() {
                let mut sent = 0;
                while sent < FIRST_BURST
                    && let Some(place) = queue.first.pop_front()
                {
                    if matches!(queue.places.get(&place), Some((_, None))) {
                        announce(place);
                        queue.again(place, 0, now);
                        sent += 1;
                    }
                }
                queue.first_after = Some(now + FIRST_PAUSE);
            }
            if queue.later_after.is_none_or(|at| now >= at) {
                for _ in 0..REPEAT_BURST {
                    let Some((at, place)) = queue.later.first().copied() else { break };
                    if at > now {
                        break;
                    }
                    queue.later.pop_first();
                    announce(place);
                    let done = queue.places.get(&place).map_or(0, |(done, _)| *done);
                    queue.again(place, done + 1, now);
                    queue.later_after = Some(now + REPEAT_PAUSE);
                }
            }
        }
    }

    /// When something is due next.
    pub(super) fn next_deadline(&self) -> Option<Instant> {
        self.links.values().filter_map(Queue::next_deadline).min()
    }
}

impl Queue {
    fn again(&mut self, place: Place, done: usize, now: Instant) {
        let at = now + REPEATS.get(done).copied().unwrap_or(REFRESH);
        self.places.insert(place, (done.min(REPEATS.len()), Some(at)));
        self.later.insert((at, place));
    }

    fn next_deadline(&self) -> Option<Instant> {
        let first = (!self.first.is_empty()).then(|| self.first_after.unwrap_or(Instant::ZERO));
        let later =
            self.later.first().map(|(at, _)| self.later_after.map_or(*at, |after| after.max(*at)));
        match (first, later) {
            (Some(first), Some(later)) => Some(first.min(later)),
            (first, later) => first.or(later),
        }
    }
}
