//! Which of this node's own keys are to be put, and when. Level-triggered: what counts is what
//! should stand there and what was last seen there, not how it came about.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::node::Instant;

/// Least time between two puts of one key: two nodes that both believe that a key is theirs
/// must not grind the cluster.
const INTERVAL: Duration = Duration::from_secs(1);
/// Longest time between two tries of a key that the server refuses.
const REFUSED_MAX: Duration = Duration::from_secs(60);

/// The keys that this node wants to hold its values, and what is known of them.
#[derive(Debug, Default)]
pub(super) struct Writes {
    wanted: BTreeMap<String, String>,
    /// What stands there as far as is known, with the revision at which that was known. Without
    /// an entry nothing is known.
    seen: BTreeMap<String, (Option<Vec<u8>>, i64)>,
    tries: BTreeMap<String, Try>,
}

#[derive(Clone, Copy, Debug)]
struct Try {
    next_at: Instant,
    refused: u32,
}

impl Writes {
    /// Takes what should stand there from now on.
    pub(super) fn want(&mut self, now: Instant, wanted: BTreeMap<String, String>) {
        self.wanted = wanted;
        self.tries.retain(|key, put| self.wanted.contains_key(key) || put.next_at > now);
    }

    /// The keys that should stand there.
    pub(super) fn keys(&self) -> impl Iterator<Item = &str> {
        self.wanted.keys().map(String::as_str)
    }

    /// Everything of this node's outputs that stood there at `revision`.
    pub(super) fn listed(&mut self, revision: i64, found: BTreeMap<String, Vec<u8>>) {
        self.seen = found.into_iter().map(|(key, value)| (key, (Some(value), revision))).collect();
        for key in self.wanted.keys() {
            self.seen.entry(key.clone()).or_insert((None, revision));
        }
    }

    /// One of them changed at `revision`; `None`: it was deleted.
    pub(super) fn changed(&mut self, key: &str, value: Option<&[u8]>, revision: i64) {
        // An event may arrive after an answer that is newer.
        if self.seen.get(key).is_none_or(|(_, known)| *known < revision) {
            self.seen.insert(key.to_owned(), (value.map(<[u8]>::to_vec), revision));
        }
    }

    /// Keys to put now, with their values; not more than `most`.
    pub(super) fn due(&self, now: Instant, most: usize) -> Vec<(String, String)> {
        self.wrong()
            .filter(|(key, _)| self.next_at(key) <= now)
            .take(most)
            .map(|(key, value)| (key.to_owned(), value.to_owned()))
            .collect()
    }

    /// When [`due`](Self::due) next has something.
    pub(super) fn next_deadline(&self) -> Option<Instant> {
        self.wrong().map(|(key, _)| self.next_at(key)).min()
    }

    /// A put of this value was done at `revision`.
    pub(super) fn done(&mut self, now: Instant, key: &str, value: &str, revision: i64) {
        self.tries.insert(key.to_owned(), Try { next_at: now + INTERVAL, refused: 0 });
        self.changed(key, Some(value.as_bytes()), revision);
    }

    /// A put did not come to its end: it is tried again, at the usual rate.
    pub(super) fn failed(&mut self, now: Instant, key: &str) {
        let next_at = now + INTERVAL;
        let first = Try { next_at, refused: 0 };
        self.tries.entry(key.to_owned()).and_modify(|put| put.next_at = next_at).or_insert(first);
    }

    /// The server refused a put.
    pub(super) fn refused(&mut self, now: Instant, key: &str) {
        let refused = self.tries.get(key).map_or(0, |put| put.refused).saturating_add(1);
        let wait = INTERVAL.saturating_mul(1 << refused.min(8)).min(REFUSED_MAX);
        self.tries.insert(key.to_owned(), Try { next_at: now + wait, refused });
    }

    /// Keys that do not hold what they should.
    fn wrong(&self) -> impl Iterator<Item = (&str, &str)> {
        let right = |key: &str, value: &str| {
            self.seen.get(key).is_some_and(|(seen, _)| seen.as_deref() == Some(value.as_bytes()))
        };
        self.wanted
            .iter()
            .map(|(key, value)| (key.as_str(), value.as_str()))
            .filter(move |(key, value)| !right(key, value))
    }

    fn next_at(&self, key: &str) -> Instant {
        self.tries.get(key).map_or(Instant::ZERO, |put| put.next_at)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: &str = "/havip/vRouterGateway/100";

    fn at(ms: u64) -> Instant {
        Instant::ZERO + Duration::from_millis(ms)
    }

    fn wanting(value: &str) -> Writes {
        let mut writes = Writes::default();
        writes.want(at(0), [(KEY.to_owned(), value.to_owned())].into());
        writes
    }

    fn is_due(writes: &Writes, ms: u64) -> bool {
        !writes.due(at(ms), 1).is_empty()
    }

    #[test]
    fn a_wanted_key_is_put_at_once_and_then_left_alone() {
        let mut writes = wanting("a");
        assert_eq!(writes.due(at(0), 9), [(KEY.to_owned(), "a".to_owned())]);
        writes.done(at(0), KEY, "a", 5);
        assert_eq!(writes.next_deadline(), None);
        // Its own event.
        writes.changed(KEY, Some(b"a"), 5);
        assert!(!is_due(&writes, 10_000));
    }

    #[test]
    fn what_stands_there_already_is_not_put_again() {
        let mut writes = wanting("a");
        writes.listed(7, [(KEY.to_owned(), b"a".to_vec())].into());
        assert_eq!(writes.next_deadline(), None);
    }

    #[test]
    fn a_key_that_another_overwrote_or_deleted_is_put_again_once_a_second() {
        let mut writes = wanting("a");
        writes.done(at(0), KEY, "a", 5);
        for (ms, other) in [(100, Some(&b"b"[..])), (1100, None)] {
            let revision = 6 + i64::try_from(ms).unwrap();
            writes.changed(KEY, other, revision);
            assert!(!is_due(&writes, ms + 800));
            assert_eq!(writes.next_deadline(), Some(at(ms + 900)));
            assert!(is_due(&writes, ms + 900));
            writes.done(at(ms + 900), KEY, "a", revision + 1);
        }
    }

    #[test]
    fn an_event_older_than_the_last_put_is_ignored() {
        let mut writes = wanting("a");
        writes.done(at(0), KEY, "a", 9);
        writes.changed(KEY, Some(b"b"), 8);
        assert_eq!(writes.next_deadline(), None);
    }

    #[test]
    fn a_reconnect_shows_what_was_lost_meanwhile() {
        let mut writes = wanting("a");
        writes.done(at(0), KEY, "a", 9);
        // The store was restored from an older copy: the revision says nothing.
        writes.listed(3, BTreeMap::new());
        assert!(is_due(&writes, 1000));
    }

    #[test]
    fn a_key_that_is_not_wanted_any_more_is_left_as_it_is() {
        let mut writes = wanting("a");
        writes.want(at(0), BTreeMap::new());
        writes.changed(KEY, Some(b"b"), 9);
        assert_eq!(writes.next_deadline(), None);
    }

    #[test]
    fn wanting_a_key_on_and_off_does_not_evade_the_rate() {
        let mut writes = wanting("a");
        writes.done(at(0), KEY, "a", 1);
        writes.want(at(10), BTreeMap::new());
        writes.want(at(20), [(KEY.to_owned(), "b".to_owned())].into());
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
        writes.want(at(0), (0..250).map(|n| (n.to_string(), "v".to_owned())).collect());
        let mut parts = Vec::new();
        loop {
            let part = writes.due(at(0), 100);
            if part.is_empty() {
                break;
            }
            part.iter().for_each(|(key, value)| writes.done(at(0), key, value, 5));
            parts.push(part.len());
        }
        assert_eq!(parts, [100, 100, 50]);
    }

    #[test]
    fn a_refused_put_is_tried_ever_more_rarely() {
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
    }
}
