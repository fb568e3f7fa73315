//! What waits to be done to the kernel's addresses and routes, and what is on its way there.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use crate::node::kernel::Op;
use crate::node::links::{Place, from};
use crate::wire::IfIndex;

/// Requests on their way at once: one with the kernel, one waiting, so that it never idles.
const INFLIGHT_MAX: usize = 2;

/// In the order in which they are done: removals go first (someone else may hold the address
/// already), then renewals (they have a deadline), then additions.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Kind {
    Remove,
    Unroute,
    Renew,
    Add,
    Route,
}

impl Kind {
    pub(super) const ALL: [Self; 5] =
        [Self::Remove, Self::Unroute, Self::Renew, Self::Add, Self::Route];

    pub(super) const fn lane(self) -> Lane {
        match self {
            Self::Remove | Self::Renew | Self::Add => Lane::Address,
            Self::Unroute | Self::Route => Lane::Route,
        }
    }
}

/// What waits for each other: what is done to an address, and what to its route.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Lane {
    Address,
    Route,
}

/// An operation on its way to the kernel.
#[derive(Clone, Copy, Debug)]
pub(super) struct Asked {
    pub(super) kind: Kind,
    pub(super) place: Place,
    pub(super) op: Op,
}

/// A queue for each kind, and the requests that have no answer yet.
#[derive(Debug, Default)]
pub(super) struct Work {
    /// None of them is empty.
    queues: BTreeMap<Kind, BTreeSet<Place>>,
    inflight: VecDeque<Vec<Asked>>,
}

impl Work {
    pub(super) fn queue(&mut self, kind: Kind, place: Place) {
        self.queues.entry(kind).or_default().insert(place);
    }

    pub(super) fn unqueue(&mut self, kind: Kind, place: &Place) {
        if let Some(queue) = self.queues.get_mut(&kind) {
            queue.remove(place);
            if queue.is_empty() {
                self.queues.remove(&kind);
            }
        }
    }

    /// Empties the queue of this kind.
    pub(super) fn unqueue_all(&mut self, kind: Kind) {
        self.queues.remove(&kind);
    }

    pub(super) fn queued(&self, kind: Kind) -> impl Iterator<Item = &Place> {
        self.queues.get(&kind).into_iter().flatten()
    }

    pub(super) fn is_queued(&self, kind: Kind, place: &Place) -> bool {
        self.queues.get(&kind).is_some_and(|queue| queue.contains(place))
    }

    pub(super) fn nothing_is_queued(&self) -> bool {
        self.queues.is_empty()
    }

    /// The places on a link that something waits to be done to.
    pub(super) fn queued_on(&self, index: IfIndex) -> impl Iterator<Item = Place> {
        self.queues.values().flat_map(move |queue| {
            let places = queue.range(from(index)..).copied();
            places.take_while(move |place| place.0 == index)
        })
    }

    /// Whether another request may be made.
    pub(super) fn has_room(&self) -> bool {
        self.inflight.len() < INFLIGHT_MAX
    }

    /// A request is made.
    pub(super) fn ask(&mut self, request: Vec<Asked>) {
        self.inflight.push_back(request);
    }

    /// The oldest request has been answered.
    pub(super) fn answered(&mut self) -> Option<Vec<Asked>> {
        self.inflight.pop_front()
    }

    /// Everything that is on its way.
    pub(super) fn asked(&self) -> impl Iterator<Item = &Asked> {
        self.inflight.iter().flatten()
    }

    /// Whether something is being done to the address of `place`, or to its route.
    pub(super) fn is_busy(&self, place: &Place, lane: Lane) -> bool {
        self.asked().any(|asked| asked.place == *place && asked.kind.lane() == lane)
    }

    /// Whether this is being done to `place`.
    pub(super) fn is_under_way(&self, kind: Kind, place: &Place) -> bool {
        self.asked().any(|asked| asked.kind == kind && asked.place == *place)
    }
}
