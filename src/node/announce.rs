//! Gratuitous ARP and unsolicited NA: which address is announced when, and how fast.
//!
//! An address is announced as soon as it is there, a few times more in case that was lost or
//! came before a switch's port was forwarding, and then now and then for ever, because caches
//! age out and frames are filtered. A switch that inspects ARP shuts a port that floods, so each
//! link has a pace, and what is new goes before what is repeated.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::Instant;
use super::links::Place;
use crate::wire::IfIndex;

/// Time from each announcement of an address to the next, until the refresh takes over.
const REPEATS: [Duration; 3] =
    [Duration::from_millis(200), Duration::from_millis(800), Duration::from_secs(2)];
/// Time between two announcements of an address that has been there for a while.
const REFRESH: Duration = Duration::from_secs(60);
/// Time from a reading of the whole kernel to the announcement of what it has.
const AGAIN: Duration = Duration::from_secs(1);
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
    /// The links by when something is due there, each once.
    order: BTreeSet<(Instant, IfIndex)>,
}

#[derive(Debug, Default)]
struct Queue {
    /// Repeats done so far, and where the place waits for its next announcement.
    places: BTreeMap<Place, (usize, Waits)>,
    /// By the order in which they came.
    first: BTreeSet<(u64, Place)>,
    came: u64,
    first_after: Option<Instant>,
    later: BTreeSet<(Instant, Place)>,
    later_after: Option<Instant>,
    /// Where this link stands in the order.
    at: Option<Instant>,
}

/// Its key in `first` or in `later`: every place stands in one of them, once.
#[derive(Clone, Copy, Debug)]
enum Waits {
    First(u64),
    Later(Instant),
}

impl Announcer {
    /// Announces `place` as soon as the pace allows, and from then on.
    pub(super) fn start(&mut self, place: Place) {
        let queue = self.links.entry(place.0).or_default();
        if !matches!(queue.places.get(&place), Some((_, Waits::First(_)))) {
            queue.remove(&place);
            queue.came += 1;
            queue.first.insert((queue.came, place));
            queue.places.insert(place, (0, Waits::First(queue.came)));
            self.reorder(place.0);
        }
    }

    /// Announces `place` no more.
    pub(super) fn stop(&mut self, place: &Place) {
        let Some(queue) = self.links.get_mut(&place.0) else { return };
        queue.remove(place);
        self.reorder(place.0);
        if self.links.get(&place.0).is_some_and(|queue| queue.places.is_empty()) {
            self.links.remove(&place.0);
        }
    }

    /// Announces each place again within [`AGAIN`]: notifications were lost, and an address may have
    /// been away meanwhile. However often they are lost, that is once in this time.
    pub(super) fn again(&mut self, now: Instant) {
        let at = now + AGAIN;
        let links: Vec<IfIndex> = self.links.keys().copied().collect();
        for index in links {
            let Some(queue) = self.links.get_mut(&index) else { continue };
            while let Some((_, place)) = queue.later.last().copied().filter(|(of, _)| *of > at) {
                queue.later.pop_last();
                queue.later.insert((at, place));
                if let Some((_, waits)) = queue.places.get_mut(&place) {
                    *waits = Waits::Later(at);
                }
            }
            self.reorder(index);
        }
    }

    /// Puts a link where it belongs in the order: something is due there at another time.
    fn reorder(&mut self, index: IfIndex) {
        let Some(queue) = self.links.get_mut(&index) else { return };
        let at = queue.next_deadline();
        let before = std::mem::replace(&mut queue.at, at);
        if before != at {
            if let Some(before) = before {
                self.order.remove(&(before, index));
            }
            if let Some(at) = at {
                self.order.insert((at, index));
            }
        }
    }

    /// Hands what is due at `now` to `announce`, as far as the pace allows.
    pub(super) fn due(&mut self, now: Instant, mut announce: impl FnMut(Place)) {
        let due = |(at, _): &&(Instant, IfIndex)| *at <= now;
        let links: Vec<IfIndex> =
            self.order.iter().take_while(due).map(|(_, index)| *index).collect();
        for index in links {
            if let Some(queue) = self.links.get_mut(&index) {
                queue.due(now, &mut announce);
            }
            self.reorder(index);
        }
    }

    pub(super) fn sizes(&self) -> [(&'static str, usize); 3] {
        let sum = |size: fn(&Queue) -> usize| self.links.values().map(size).sum();
        [
            ("links with announcements", self.links.len().max(self.order.len())),
            ("announced", sum(|queue| queue.places.len())),
            ("announcements", sum(|queue| queue.first.len() + queue.later.len())),
        ]
    }

    /// When something is due next.
    pub(super) fn next_deadline(&self) -> Option<Instant> {
        self.order.first().map(|(at, _)| *at)
    }
}

impl Queue {
    fn remove(&mut self, place: &Place) {
        match self.places.remove(place) {
            Some((_, Waits::First(number))) => _ = self.first.remove(&(number, *place)),
            Some((_, Waits::Later(at))) => _ = self.later.remove(&(at, *place)),
            None => {}
        }
    }

    /// Hands what is due to `announce`, as far as the pace allows.
    fn due(&mut self, now: Instant, announce: &mut impl FnMut(Place)) {
        if self.first_after.is_none_or(|at| now >= at) && !self.first.is_empty() {
            for _ in 0..FIRST_BURST {
                let Some((_, place)) = self.first.pop_first() else { break };
                announce(place);
                self.again(place, 0, now);
            }
            self.first_after = Some(now + FIRST_PAUSE);
        }
        if self.later_after.is_none_or(|at| now >= at) {
            for _ in 0..REPEAT_BURST {
                let Some((at, place)) = self.later.first().copied() else { break };
                if at > now {
                    break;
                }
                self.later.pop_first();
                announce(place);
                let done = self.places.get(&place).map_or(0, |(done, _)| *done);
                self.again(place, done + 1, now);
                self.later_after = Some(now + REPEAT_PAUSE);
            }
        }
    }

    fn again(&mut self, place: Place, done: usize, now: Instant) {
        let at = now + REPEATS.get(done).copied().unwrap_or(REFRESH);
        self.places.insert(place, (done.min(REPEATS.len()), Waits::Later(at)));
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Prefix;

    fn place(link: u32, number: u16) -> Place {
        let [high, low] = number.to_be_bytes();
        (IfIndex(link), Prefix::host([10, 0, high, low].into()))
    }

    /// Everything that is announced until `end`, with its time; the deadline is believed.
    fn until(announcer: &mut Announcer, end: Duration) -> Vec<(Instant, Place)> {
        let end = Instant::ZERO + end;
        let mut all = Vec::new();
        while let Some(at) = announcer.next_deadline().filter(|at| *at <= end) {
            let before = all.len();
            announcer.due(at, |place| all.push((at, place)));
            assert!(all.len() > before, "woken for nothing at {at:?}");
        }
        all
    }

    #[test]
    fn an_address_is_announced_at_once_repeated_and_then_refreshed() {
        let mut announcer = Announcer::default();
        announcer.start(place(1, 1));
        let all = until(&mut announcer, Duration::from_secs(130));
        let times: Vec<u64> = all.iter().map(|(at, _)| at.nanos() / 1_000_000).collect();
        assert_eq!(times, [0, 200, 1_000, 3_000, 63_000, 123_000]);
    }

    #[test]
    fn a_thousand_addresses_keep_the_pace_and_each_has_all_its_announcements() {
        let mut announcer = Announcer::default();
        for number in 0..1_000 {
            announcer.start(place(1, number));
        }
        let all = until(&mut announcer, Duration::from_secs(30));
        for number in 0..1_000 {
            let own = all.iter().filter(|(_, of)| *of == place(1, number)).count();
            assert_eq!(own, 1 + REPEATS.len(), "{number}");
        }
        // The last address is announced for the first time before anything but the first few
        // repeats: what is new waits for nothing.
        let last = all.iter().position(|(_, of)| *of == place(1, 999)).unwrap();
        assert!(all[last].0 < Instant::ZERO + Duration::from_millis(20));
        // No burst beyond the pace: in each instant, and in each 10 ms once all are there.
        for window in all.chunk_by(|a, b| a.0 == b.0) {
            assert!(window.len() <= FIRST_BURST + REPEAT_BURST);
        }
        let settled: Vec<Instant> =
            all.iter().map(|(at, _)| *at).filter(|at| at.nanos() > 100_000_000).collect();
        let bound = REPEAT_BURST + 1;
        assert!(settled.windows(bound).all(|run| run[bound - 1].since(run[0]) >= REPEAT_PAUSE));
    }

    #[test]
    fn links_do_not_wait_for_each_other_and_what_is_stopped_is_silent() {
        let mut announcer = Announcer::default();
        for number in 0..100 {
            announcer.start(place(1, number));
        }
        announcer.start(place(2, 1));
        announcer.start(place(2, 2));
        announcer.stop(&place(2, 2));
        let mut first = Vec::new();
        announcer.due(Instant::ZERO, |place| first.push(place));
        assert_eq!(first.len(), FIRST_BURST + 1);
        assert!(first.contains(&place(2, 1)) && !first.contains(&place(2, 2)));
        for number in 0..100 {
            announcer.stop(&place(1, number));
        }
        announcer.stop(&place(2, 1));
        assert_eq!(announcer.next_deadline(), None);
    }

    #[test]
    fn started_again_it_begins_anew_and_is_not_announced_twice_at_once() {
        let mut announcer = Announcer::default();
        announcer.start(place(1, 1));
        announcer.start(place(1, 1));
        assert_eq!(until(&mut announcer, Duration::from_millis(100)).len(), 1);
        announcer.start(place(1, 1));
        let later = Instant::ZERO + Duration::from_millis(150);
        let mut count = 0;
        announcer.due(later, |_| count += 1);
        assert_eq!(count, 1);
        assert_eq!(announcer.next_deadline(), Some(later + REPEATS[0]));
    }

    #[test]
    fn after_lost_notifications_each_address_is_announced_once_more_within_a_second() {
        let mut announcer = Announcer::default();
        announcer.start(place(1, 1));
        announcer.start(place(1, 2));
        let settled = Duration::from_secs(10);
        assert_eq!(until(&mut announcer, settled).len(), 2 * (1 + REPEATS.len()));
        // However often they are lost: what waits for less is not put off.
        for millis in 0..500 {
            announcer.again(Instant::ZERO + settled + Duration::from_millis(millis));
        }
        let all = until(&mut announcer, settled + Duration::from_secs(59));
        let at = Instant::ZERO + settled + AGAIN;
        assert_eq!(all, [(at, place(1, 1)), (at, place(1, 2))]);
        let sizes = announcer.sizes();
        assert_eq!(
            sizes,
            [("links with announcements", 1), ("announced", 2), ("announcements", 2)]
        );
        announcer.stop(&place(1, 1));
        announcer.stop(&place(1, 2));
        assert_eq!(announcer.next_deadline(), None);
    }

    #[test]
    fn what_starts_and_stops_again_and_again_waits_once() {
        let mut announcer = Announcer::default();
        announcer.start(place(1, 1));
        for _ in 0..1_000 {
            announcer.start(place(1, 2));
            announcer.stop(&place(1, 2));
        }
        announcer.start(place(1, 2));
        assert_eq!(
            announcer.sizes(),
            [("links with announcements", 1), ("announced", 2), ("announcements", 2)]
        );
        assert_eq!(until(&mut announcer, Duration::ZERO).len(), 2);
    }
}
