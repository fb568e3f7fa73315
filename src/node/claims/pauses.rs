//! What is not to be touched for a while, as it failed or was done a moment ago.

use std::collections::{BTreeMap, BTreeSet};

use super::work::Lane;
use crate::node::Instant;
use crate::node::links::{Place, from};
use crate::wire::IfIndex;

/// An address, or its route.
pub(super) type Key = (Place, Lane);

/// Until when each is held, and which is the next one.
#[derive(Debug, Default)]
pub(super) struct Pauses {
    until: BTreeMap<Key, Instant>,
    order: BTreeSet<(Instant, Key)>,
}

impl Pauses {
    pub(super) fn hold(&mut self, key: Key, until: Instant) {
        self.unhold(&key);
        self.until.insert(key, until);
        self.order.insert((until, key));
    }

    pub(super) fn unhold(&mut self, key: &Key) {
        if let Some(before) = self.until.remove(key) {
            self.order.remove(&(before, *key));
        }
    }

    pub(super) fn holds(&self, key: &Key) -> bool {
        self.until.contains_key(key)
    }

    /// One whose pause is over, which is held no more.
    pub(super) fn pop(&mut self, now: Instant) -> Option<Place> {
        if self.next_end()? > now {
            return None;
        }
        let (_, key) = self.order.pop_first()?;
        self.until.remove(&key);
        Some(key.0)
    }

    /// When the next pause ends.
    pub(super) fn next_end(&self) -> Option<Instant> {
        self.order.first().map(|(at, _)| *at)
    }

    /// The places on a link of which something is held.
    pub(super) fn places_on(&self, index: IfIndex) -> impl Iterator<Item = Place> {
        let places = self.until.range((from(index), Lane::Address)..).map(|((place, _), _)| *place);
        places.take_while(move |place| place.0 == index)
    }

    pub(super) fn len(&self) -> usize {
        self.until.len().max(self.order.len())
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::config::Prefix;

    #[test]
    fn a_pause_that_is_made_longer_ends_once_and_one_that_is_taken_back_never() {
        let at = |seconds| Instant::ZERO + Duration::from_secs(seconds);
        let place = |last: u8| (IfIndex(2), Prefix::host([10, 0, 0, last].into()));
        let mut pauses = Pauses::default();
        pauses.hold((place(1), Lane::Address), at(1));
        pauses.hold((place(1), Lane::Address), at(3));
        pauses.hold((place(1), Lane::Route), at(2));
        pauses.hold((place(2), Lane::Address), at(1));
        pauses.unhold(&(place(2), Lane::Address));
        assert_eq!(pauses.next_end(), Some(at(2)));
        assert_eq!(pauses.pop(at(1)), None);
        assert_eq!(pauses.pop(at(2)), Some(place(1)));
        assert!(pauses.holds(&(place(1), Lane::Address)), "its route was held apart");
        assert_eq!(pauses.pop(at(3)), Some(place(1)));
        assert_eq!((pauses.pop(at(9)), pauses.len()), (None, 0));
    }
}
