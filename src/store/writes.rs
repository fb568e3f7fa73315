//! Which of this node's own keys are to be put, and when. Level-triggered: what counts is what
//! should stand there and what was last seen there, not how it came about.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::node::Instant;

/// Least time between two puts of one key: two nodes that both believe that a key is theirs
/// must not grind the cluster.
const INTERVAL: Duration = Duration::from_secs(1);
/// After another was quicker.
const OVERTAKEN: Duration = Duration::from_millis(50);
/// Longest time between two tries of a key that the server refuses.
const REFUSED_MAX: Duration = Duration::from_secs(60);

/// What should stand at a key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Want {
    pub(super) value: String,
    /// The lease that the key shall go with; 0: none.
    pub(super) lease: i64,
}

/// What stands at a key.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Seen {
    /// `None`: there is no such key.
    pub(super) value: Option<Vec<u8>>,
    pub(super) lease: i64,
    /// Revision of its last change; 0: there is no such key.
    pub(super) mod_revision: i64,
}

/// A put that is due.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Due {
    pub(super) key: String,
    pub(super) want: Want,
    /// What it is put over: it is not put over anything else.
    pub(super) over: i64,
}

/// The keys that this node wants to hold its values, and what is known of them.
#[derive(Debug, Default)]
pub(super) struct Writes {
    wanted: BTreeMap<String, Want>,
    /// What stands there as far as is known, with the revision at which that was known. Without
    /// an entry there was no such key.
    seen: BTreeMap<String, (Seen, i64)>,
    tries: BTreeMap<String, Try>,
}

#[derive(Clone, Copy, Debug)]
struct Try {
    next_at: Instant,
    refused: u32,
    overtaken: u32,
}

impl Try {
    const fn after(next_at: Instant) -> Self {
        Self { next_at, refused: 0, overtaken: 0 }
    }
}

impl Writes {
    /// Takes what should stand there from now on.
    pub(super) fn want(&mut self, now: Instant, wanted: BTreeMap<String, Want>) {
        self.wanted = wanted;
        self.tries.retain(|key, put| self.wanted.contains_key(key) || put.next_at > now);
    }

    /// What stands at a key, as far as is known.
    pub(super) fn seen(&self, key: &str) -> Option<&Seen> {
        self.seen.get(key).map(|(seen, _)| seen)
    }

    /// Everything of this node's outputs that stood there at `revision`.
    pub(super) fn listed(&mut self, revision: i64, found: BTreeMap<String, Seen>) {
        self.seen = found.into_iter().map(|(key, seen)| (key, (seen, revision))).collect();
    }

    /// What stood at one of them at `revision`.
    pub(super) fn changed(&mut self, key: &str, seen: Seen, revision: i64) {
        // An event may arrive after an answer that is newer.
        if self.seen.get(key).is_none_or(|(_, known)| *known < revision) {
            self.seen.insert(key.to_owned(), (seen, revision));
        }
    }

    /// What to put now; not more than `most`.
    pub(super) fn due(&self, now: Instant, most: usize) -> Vec<Due> {
        self.wrong()
            .filter(|(key, _)| self.next_at(key) <= now)
            .take(most)
            .map(|(key, want)| Due {
                key: key.to_owned(),
                want: want.clone(),
                over: self.seen(key).map_or(0, |seen| seen.mod_revision),
            })
            .collect()
    }

    /// When [`due`](Self::due) next has something.
    pub(super) fn next_deadline(&self) -> Option<Instant> {
        self.wrong().map(|(key, _)| self.next_at(key)).min()
    }

    /// A put was done at `revision`; returns whether the last try was refused.
    pub(super) fn done(&mut self, now: Instant, due: &Due, revision: i64) -> bool {
        let before = self.tries.insert(due.key.clone(), Try::after(now + INTERVAL));
        let Want { value, lease } = due.want.clone();
        let seen = Seen { value: Some(value.into_bytes()), lease, mod_revision: revision };
        self.changed(&due.key, seen, revision);
        before.is_some_and(|put| put.refused > 0)
    }

    /// A put did not come to its end: it is tried again, at the usual rate.
    pub(super) fn failed(&mut self, now: Instant, key: &str) {
        let next_at = now + INTERVAL;
        let first = Try::after(next_at);
        self.tries.entry(key.to_owned()).and_modify(|put| put.next_at = next_at).or_insert(first);
    }

    /// Another wrote the key between our looking at it and our put: a look at it again, and then
    /// a try at something near the usual rate.
    pub(super) fn overtaken(&mut self, now: Instant, key: &str) {
        let before = self.tries.get(key).copied().unwrap_or_else(|| Try::after(now));
        let wait = OVERTAKEN.saturating_mul(1 << before.overtaken.min(8)).min(INTERVAL);
        let next_at = before.next_at.max(now + wait);
        let overtaken = before.overtaken.saturating_add(1);
        self.tries.insert(key.to_owned(), Try { next_at, overtaken, ..before });
    }

    /// The server refused a put.
    pub(super) fn refused(&mut self, now: Instant, key: &str) {
        let refused = self.tries.get(key).map_or(0, |put| put.refused).saturating_add(1);
        let next_at = now + refused_wait(refused);
        self.tries.insert(key.to_owned(), Try { refused, ..Try::after(next_at) });
    }

    /// Keys that do not hold what they should.
    fn wrong(&self) -> impl Iterator<Item = (&str, &Want)> {
        let right = |key: &str, want: &Want| {
            self.seen(key).is_some_and(|seen| {
                seen.value.as_deref() == Some(want.value.as_bytes()) && seen.lease == want.lease
            })
        };
        self.wanted
            .iter()
            .map(|(key, want)| (key.as_str(), want))
            .filter(move |(key, want)| !right(key, want))
    }

    fn next_at(&self, key: &str) -> Instant {
        self.tries.get(key).map_or(Instant::ZERO, |put| put.next_at)
    }
}

/// How long a server that refused something that many times in a row is left in peace.
pub(super) fn refused_wait(times: u32) -> Duration {
    INTERVAL.saturating_mul(1 << times.min(8)).min(REFUSED_MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: &str = "/havip/vRouterGateway/100";

    fn at(ms: u64) -> Instant {
        Instant::ZERO + Duration::from_millis(ms)
    }

    fn want(value: &str) -> Want {
        Want { value: value.to_owned(), lease: 0 }
    }

    fn wanting(value: &str) -> Writes {
        let mut writes = Writes::default();
        writes.want(at(0), [(KEY.to_owned(), want(value))].into());
        writes
    }

    fn seen(value: &str, mod_revision: i64) -> Seen {
        Seen { value: Some(value.into()), lease: 0, mod_revision }
    }

    fn due(value: &str, over: i64) -> Due {
        Due { key: KEY.to_owned(), want: want(value), over }
    }

    fn is_due(writes: &Writes, ms: u64) -> bool {
        !writes.due(at(ms), 1).is_empty()
    }

    #[test]
    fn a_wanted_key_is_put_at_once_and_then_left_alone() {
        let mut writes = wanting("a");
        assert_eq!(writes.due(at(0), 9), [due("a", 0)]);
        writes.done(at(0), &due("a", 0), 5);
        assert_eq!(writes.next_deadline(), None);
        // Its own event.
        writes.changed(KEY, seen("a", 5), 5);
        assert!(!is_due(&writes, 10_000));
    }

    #[test]
    fn what_stands_there_already_is_not_put_again() {
        let mut writes = wanting("a");
        writes.listed(7, [(KEY.to_owned(), seen("a", 3))].into());
        assert_eq!(writes.next_deadline(), None);
    }

    #[test]
    fn a_key_that_would_go_with_anothers_lease_is_put_again() {
        let mut writes = wanting("a");
        let leased = Seen { lease: 77, ..seen("a", 3) };
        writes.listed(7, [(KEY.to_owned(), leased)].into());
        assert_eq!(writes.due(at(0), 9), [due("a", 3)]);
    }

    #[test]
    fn a_key_that_another_overwrote_or_deleted_is_put_again_once_a_second() {
        let mut writes = wanting("a");
        writes.done(at(0), &due("a", 0), 5);
        for (ms, other) in [(100, Some("b")), (1100, None)] {
            let revision = 6 + i64::try_from(ms).unwrap();
            let stands = other.map_or_else(Seen::default, |value| seen(value, revision));
            let over = stands.mod_revision;
            writes.changed(KEY, stands, revision);
            assert!(!is_due(&writes, ms + 800));
            assert_eq!(writes.next_deadline(), Some(at(ms + 900)));
            assert_eq!(writes.due(at(ms + 900), 1), [due("a", over)]);
            writes.done(at(ms + 900), &due("a", over), revision + 1);
        }
    }

    #[test]
    fn a_key_is_put_over_nothing_but_what_was_seen() {
        let mut writes = wanting("a");
        writes.listed(9, [(KEY.to_owned(), seen("b", 4))].into());
        assert_eq!(writes.due(at(0), 1), [due("a", 4)]);
        // A successor was quicker.
        writes.overtaken(at(0), KEY);
        writes.changed(KEY, seen("c", 10), 10);
        assert_eq!(writes.next_deadline(), Some(at(50)));
        assert_eq!(writes.due(at(50), 1), [due("a", 10)]);
        // One who is quicker each time is not run after for ever.
        let waits: Vec<u64> = (0..8)
            .map(|n| {
                let now = at(10_000 * (n + 1));
                writes.overtaken(now, KEY);
                u64::try_from(writes.next_deadline().unwrap().since(now).as_millis()).unwrap()
            })
            .collect();
        assert!(waits.is_sorted() && waits[0] == 100 && waits[7] == 1000, "{waits:?}");
    }

    #[test]
    fn being_overtaken_does_not_evade_the_rate() {
        let mut writes = wanting("a");
        writes.done(at(0), &due("a", 0), 5);
        writes.changed(KEY, seen("b", 6), 6);
        writes.overtaken(at(10), KEY);
        assert_eq!(writes.next_deadline(), Some(at(1000)));
    }

    #[test]
    fn an_event_older_than_the_last_put_is_ignored() {
        let mut writes = wanting("a");
        writes.done(at(0), &due("a", 0), 9);
        writes.changed(KEY, seen("b", 8), 8);
        assert_eq!(writes.next_deadline(), None);
    }

    #[test]
    fn a_reconnect_shows_what_was_lost_meanwhile() {
        let mut writes = wanting("a");
        writes.done(at(0), &due("a", 0), 9);
        // The store was restored from an older copy: the revision says nothing.
        writes.listed(3, BTreeMap::new());
        assert!(is_due(&writes, 1000));
    }

    #[test]
    fn a_key_that_is_not_wanted_any_more_is_left_as_it_is() {
        let mut writes = wanting("a");
        writes.want(at(0), BTreeMap::new());
        writes.changed(KEY, seen("b", 9), 9);
        assert_eq!(writes.next_deadline(), None);
    }

    #[test]
    fn wanting_a_key_on_and_off_does_not_evade_the_rate() {
        let mut writes = wanting("a");
        writes.done(at(0), &due("a", 0), 1);
        writes.want(at(10), BTreeMap::new());
        writes.want(at(20), [(KEY.to_owned(), want("b"))].into());
        assert!(!is_due(&writes, 999));
        assert!(is_due(&writes, 1000));
    }

    #[test]
    fn a_put_that_broke_off_is_tried_again_at_the_usual_rate() {
        let mut writes = wanting("a");
        for ms in [0, 1000, 2000] {
            assert!(is_due(&writes, ms));
            writes.failed(at(ms), KEY);
            assert_eq!(writes.next_deadline(), Some(at(ms + 1000)));
        }
    }

    #[test]
    fn what_is_due_comes_in_parts() {
        let mut writes = Writes::default();
        writes.want(at(0), (0..250).map(|n| (n.to_string(), want("v"))).collect());
        let mut parts = Vec::new();
        loop {
            let part = writes.due(at(0), 100);
            if part.is_empty() {
                break;
            }
            for due in &part {
                assert!(!writes.done(at(0), due, 5));
            }
            parts.push(part.len());
        }
        assert_eq!(parts, [100, 100, 50]);
    }

    #[test]
    fn a_refused_put_is_tried_ever_more_rarely_and_its_success_is_told() {
        let mut writes = wanting("a");
        let mut now = at(0);
        let mut waits = Vec::new();
        for _ in 0..12 {
            writes.refused(now, KEY);
            let next = writes.next_deadline().unwrap();
            waits.push(next.since(now));
            now = next;
        }
        assert!(waits.is_sorted() && waits[0] == INTERVAL * 2, "{waits:?}");
        assert_eq!(waits.last(), Some(&REFUSED_MAX));
        assert!(writes.done(now, &due("a", 0), 9));
        assert!(!writes.done(now, &due("a", 0), 10));
    }
}
