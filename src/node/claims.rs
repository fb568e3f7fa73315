//! Which addresses the kernel should carry, and what is to be done about the difference.
//!
//! Level-triggered: a place (link and address) that something happened to is looked at again,
//! wanted against actual, and so falls into one of three queues. Nothing is done twice or in the
//! wrong order because of an event that came late, was lost, or came twice.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use super::Instant;
use super::entry::RouterId;
use super::kernel::{Address, Errno, IFA_PROTO_HAVIP, Op, Verb};
use super::links::{Links, Place, from};
use crate::wire::IfIndex;

/// Operations in one request: small enough that the first address is confirmed, and announced,
/// within a few milliseconds, and that a renewal need not wait long behind additions.
const CHUNK_MAX: usize = 32;
/// Requests on their way at once: one with the kernel, one waiting, so that it never idles.
const INFLIGHT_MAX: usize = 2;
/// Pause after an operation that failed, and between restorations of one address.
const RETRY: Duration = Duration::from_secs(1);
/// Least time between two additions of one address, however often someone takes it away.
const RESTORE_PAUSE: Duration = Duration::from_millis(100);

/// An address that is taken away once in this time is put back for ever.
const LOSS_PACE: Duration = Duration::from_secs(1);
/// One that is taken away this much faster is fought for: about 20 times beyond that pace.
const FIGHT: Duration = Duration::from_secs(20);

/// EADDRNOTAVAIL: the address was not there.
const EADDRNOTAVAIL: i32 = 99;
/// ENODEV: nor was the link.
const ENODEV: i32 = 19;

/// A wish for one address, on behalf of one router.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Claim {
    pub(super) router: RouterId,
    /// Seconds that the kernel keeps it without renewal; `None`: for ever.
    pub(super) lifetime: Option<u32>,
}

/// What became of an operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Done {
    /// The address is there now, and was not before: announce it.
    Added(Place),
    /// It did not work, and will be tried again.
    Failed(Op, Errno),
}

/// What it means that an address went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Lost {
    /// Nobody wanted it.
    Unwanted,
    /// It comes back.
    Wanted,
    /// It came back so often already that someone else means it.
    Fought,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Remove,
    Renew,
    Add,
}

/// Wishes, and the work that follows from them.
#[derive(Debug, Default)]
pub(super) struct Claims {
    wanted: BTreeMap<Place, Claim>,
    /// Places that this daemon filled: how it knows its own where the kernel has no IFA_PROTO.
    put: BTreeSet<Place>,
    remove: BTreeSet<Place>,
    renew: BTreeSet<Place>,
    add: BTreeSet<Place>,
    inflight: VecDeque<Vec<(Kind, Op)>>,
    /// Places of those that the kernel reported while they were on their way: what it reported is
    /// newer than their answer.
    told: BTreeSet<Place>,
    /// Not to be touched before.
    retry: BTreeMap<Place, Instant>,
    retry_order: BTreeSet<(Instant, Place)>,
    added_at: BTreeMap<Place, Instant>,
    /// Until when the losses of a wanted address last at [`LOSS_PACE`].
    losses: BTreeMap<Place, Instant>,
}

impl Claims {
    /// Whether havip put this address there.
    pub(super) fn is_ours(&self, address: &Address) -> bool {
        address.proto == IFA_PROTO_HAVIP
            || (address.proto == 0 && self.put.contains(&(address.index, address.prefix)))
    }

    /// Remembers addresses that an earlier run of this daemon put there, where the kernel does
    /// not remember it.
    pub(super) fn remember(&mut self, place: Place) {
        self.put.insert(place);
    }

    /// The claim on a place.
    pub(super) fn claim_on(&self, place: &Place) -> Option<&Claim> {
        self.wanted.get(place)
    }

    /// Wants `place` for a router; returns whether it is there already.
    pub(super) fn claim(&mut self, place: Place, claim: Claim, links: &Links) -> bool {
        let before = self.wanted.insert(place, claim);
        if before.is_some_and(|before| before.lifetime != claim.lifetime) {
            self.renew.insert(place);
        }
        self.look(place, links);
        links.address(&place).is_some() && !self.remove.contains(&place)
    }

    /// Wants `place` no more, if it was `router` that wanted it.
    pub(super) fn release(&mut self, place: Place, router: RouterId, links: &Links) {
        if self.wanted.get(&place).is_some_and(|claim| claim.router == router) {
            self.wanted.remove(&place);
            self.losses.remove(&place);
            self.added_at.remove(&place);
            self.look(place, links);
        }
    }

    /// Wants the lifetime of `place` renewed.
    pub(super) fn renew(&mut self, place: Place) {
        self.renew.insert(place);
    }

    /// The kernel reports an address at `place`.
    pub(super) fn told(&mut self, place: Place) {
        if self.is_inflight(&place) {
            self.told.insert(place);
        }
    }

    /// Looks at a place again: something happened to it.
    pub(super) fn look(&mut self, place: Place, links: &Links) {
        self.add.remove(&place);
        self.remove.remove(&place);
        match self.difference(&place, links) {
            Some(Kind::Add) => _ = self.add.insert(place),
            Some(Kind::Remove) => _ = self.remove.insert(place),
            Some(Kind::Renew) | None => {}
        }
        if !self.wanted.contains_key(&place) {
            self.renew.remove(&place);
            if links.address(&place).is_none() {
                self.unhold(&place);
            }
        }
    }

    /// Looks at everything again: a dump has come.
    pub(super) fn look_at_all(&mut self, links: &Links) {
        let places: BTreeSet<Place> = links
            .addresses()
            .map(|address| (address.index, address.prefix))
            .chain(self.wanted.keys().copied())
            .collect();
        self.add.clear();
        self.remove.clear();
        self.put.retain(|place| links.address(place).is_some());
        for place in places {
            self.look(place, links);
        }
    }

    /// What wanted and actual differ by. Another's address is neither replaced nor removed.
    fn difference(&self, place: &Place, links: &Links) -> Option<Kind> {
        match (self.wanted.get(place), links.address(place)) {
            (Some(_), None) => links.link(place.0).map(|_| Kind::Add),
            (None, Some(address)) if self.is_ours(address) => Some(Kind::Remove),
            (Some(_) | None, Some(_)) | (None, None) => None,
        }
    }

    /// The next request, if there is work and room for it. Removals go first (someone else may
    /// hold the address already), then renewals (they have a deadline), then additions.
    pub(super) fn next_chunk(&mut self, now: Instant, links: &Links) -> Option<Vec<Op>> {
        if self.inflight.len() >= INFLIGHT_MAX {
            return None;
        }
        self.wake(now, links);
        // So in every turn but a few.
        if self.remove.is_empty() && self.renew.is_empty() && self.add.is_empty() {
            return None;
        }
        let mut chunk = Vec::new();
        for kind in [Kind::Remove, Kind::Renew, Kind::Add] {
            let room = CHUNK_MAX - chunk.len();
            let queue = match kind {
                Kind::Remove => &self.remove,
                Kind::Renew => &self.renew,
                Kind::Add => &self.add,
            };
            let places: Vec<Place> = queue
                .iter()
                .filter(|place| kind == Kind::Renew || !self.retry.contains_key(place))
                .filter(|place| !self.is_inflight(place))
                .take(room)
                .copied()
                .collect();
            for place in places {
                match kind {
                    Kind::Remove => self.remove.remove(&place),
                    Kind::Renew => self.renew.remove(&place),
                    Kind::Add => self.add.remove(&place),
                };
                if let Some(op) = self.op(kind, place, links) {
                    chunk.push((kind, op));
                }
            }
        }
        if chunk.is_empty() {
            return None;
        }
        let ops = chunk.iter().map(|(_, op)| *op).collect();
        self.inflight.push_back(chunk);
        Some(ops)
    }

    fn op(&self, kind: Kind, place: Place, links: &Links) -> Option<Op> {
        let (index, prefix) = place;
        let verb = match kind {
            Kind::Remove => Verb::Remove,
            Kind::Renew => {
                // Only what is there and ours has a lifetime to renew; what is gone is an addition.
                let ours = links.address(&place).is_some_and(|address| self.is_ours(address));
                if !ours {
                    return None;
                }
                Verb::Put { lifetime: self.wanted.get(&place)?.lifetime }
            }
            Kind::Add => Verb::Put { lifetime: self.wanted.get(&place)?.lifetime },
        };
        Some(Op { index, prefix, verb })
    }

    fn is_inflight(&self, place: &Place) -> bool {
        self.inflight.iter().flatten().any(|(_, op)| (op.index, op.prefix) == *place)
    }

    /// Wanted places that are empty.
    pub(super) fn missing(&self, links: &Links) -> Vec<Place> {
        self.wanted.keys().filter(|place| links.address(place).is_none()).copied().collect()
    }

    /// Whether the answer to an addition of `place` is to come.
    pub(super) fn is_adding(&self, place: &Place) -> bool {
        self.is_under_way(Kind::Add, place)
    }

    fn is_under_way(&self, wanted: Kind, place: &Place) -> bool {
        let mut inflight = self.inflight.iter().flatten();
        inflight.any(|(kind, op)| *kind == wanted && (op.index, op.prefix) == *place)
    }

    /// Takes the results of the oldest request; `links` learns what was acknowledged.
    pub(super) fn applied(
        &mut self,
        now: Instant,
        results: &[Result<(), Errno>],
        links: &mut Links,
    ) -> Vec<Done> {
        let mut done = Vec::new();
        let Some(chunk) = self.inflight.pop_front() else { return done };
        for (at, (kind, op)) in chunk.into_iter().enumerate() {
            let place = (op.index, op.prefix);
            // A request that failed as a whole has no results: EIO for each.
            let result = results.get(at).copied().unwrap_or(Err(Errno(5)));
            let told = self.told.remove(&place);
            match (kind, result) {
                // It was there, and someone took it away before this was heard of.
                (Kind::Add, Ok(())) if told && links.address(&place).is_none() => {}
                // Its link went meanwhile, and the address with it.
                (Kind::Add, Ok(())) if links.link(op.index).is_none() => {}
                (Kind::Add, Ok(())) => {
                    links.acknowledged(op.index, op.prefix);
                    self.put.insert(place);
                    if self.wanted.contains_key(&place) {
                        self.added_at.insert(place, now);
                    }
                    done.push(Done::Added(place));
                }
                (Kind::Renew, Ok(())) => {}
                (Kind::Remove, Ok(()) | Err(Errno(EADDRNOTAVAIL | ENODEV))) => {
                    links.forget_address(&place);
                    self.put.remove(&place);
                    self.added_at.remove(&place);
                }
                (Kind::Add | Kind::Renew | Kind::Remove, Err(errno)) => {
                    self.hold(place, now + RETRY);
                    done.push(Done::Failed(op, errno));
                }
            }
            self.look(place, links);
        }
        done
    }

    /// An address went. It may be wanted again since this daemon asked for its removal.
    pub(super) fn lost(&mut self, now: Instant, place: Place, links: &Links) -> Lost {
        self.put.remove(&place);
        let wanted = self.wanted.contains_key(&place) && !self.is_under_way(Kind::Remove, &place);
        if let Some(at) = self.added_at.remove(&place)
            && wanted
            && now.since(at) < RESTORE_PAUSE
        {
            self.hold(place, at + RESTORE_PAUSE);
        }
        self.look(place, links);
        if !wanted {
            return Lost::Unwanted;
        }
        let until = self.losses.entry(place).or_insert(now);
        *until = (*until).max(now) + LOSS_PACE;
        if until.since(now) >= FIGHT { Lost::Fought } else { Lost::Wanted }
    }

    fn hold(&mut self, place: Place, until: Instant) {
        self.unhold(&place);
        self.retry.insert(place, until);
        self.retry_order.insert((until, place));
    }

    fn unhold(&mut self, place: &Place) {
        if let Some(before) = self.retry.remove(place) {
            self.retry_order.remove(&(before, *place));
        }
    }

    /// Frees places whose pause is over.
    fn wake(&mut self, now: Instant, links: &Links) {
        while let Some((at, place)) = self.retry_order.first().copied() {
            if at > now {
                break;
            }
            self.retry_order.pop_first();
            self.retry.remove(&place);
            self.look(place, links);
        }
    }

    /// When a pause ends that something waits for; while no request has room, an answer comes first.
    pub(super) fn next_deadline(&self) -> Option<Instant> {
        if self.inflight.len() >= INFLIGHT_MAX {
            return None;
        }
        self.retry_order.first().map(|(at, _)| *at)
    }

    /// Whether no address is being removed or waits to be.
    pub(super) fn nothing_to_remove(&self) -> bool {
        self.inflight.is_empty() && self.remove.iter().all(|place| self.retry.contains_key(place))
    }

    /// Drops what is known of a link that went.
    pub(super) fn link_gone(&mut self, index: IfIndex, links: &Links) {
        take_of(&mut self.put, index);
        take_of(&mut self.remove, index);
        while let Some(place) = self.added_at.range(from(index)..).next().map(|(place, _)| *place)
            && place.0 == index
        {
            self.added_at.remove(&place);
        }
        while let Some(place) = self.retry.range(from(index)..).next().map(|(place, _)| *place)
            && place.0 == index
        {
            self.unhold(&place);
        }
        let gone: Vec<Place> = self.places_on(index).collect();
        for place in gone {
            self.look(place, links);
        }
        take_of(&mut self.remove, index);
    }

    /// The places on a link that are wanted.
    pub(super) fn places_on(&self, index: IfIndex) -> impl Iterator<Item = Place> {
        let all = self.wanted.range(from(index)..).map(|(place, _)| *place);
        all.take_while(move |place| place.0 == index)
    }

    pub(super) fn sizes(&self) -> [(&'static str, usize); 10] {
        [
            ("claims", self.wanted.len()),
            ("put", self.put.len()),
            ("to remove", self.remove.len()),
            ("to renew", self.renew.len()),
            ("to add", self.add.len()),
            ("asked", self.inflight.iter().map(Vec::len).sum()),
            ("told", self.told.len()),
            ("held back", self.retry.len().max(self.retry_order.len())),
            ("added", self.added_at.len()),
            ("losses", self.losses.len()),
        ]
    }
}

/// Takes the places of a link away.
fn take_of(places: &mut BTreeSet<Place>, index: IfIndex) {
    while let Some(place) = places.range(from(index)..).next().copied()
        && place.0 == index
    {
        places.remove(&place);
    }
}
