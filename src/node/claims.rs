//! Which addresses the kernel should carry, and what is to be done about the difference.
//!
//! Level-triggered: a place (link and address) that something happened to is looked at again,
//! wanted against actual, and so falls into one of the queues. Nothing is done twice or in the
//! wrong order because of an event that came late, was lost, or came twice.
//!
//! A wanted place is a host address, whatever prefix length is configured: it is nobody's primary
//! or secondary address, and no route of the kernel's belongs to it ([`onlink`]). Any address with
//! that IP on the link counts as there. Where it is another's, it stays as it is, and none of ours
//! is beside it; ours comes back when that one goes.

mod onlink;
mod pauses;
mod work;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::Instant;
use super::entry::RouterId;
use super::kernel::{Address, Errno, IFA_PROTO_HAVIP, Op, Verb};
use super::links::{Links, Place, from, host};
use crate::wire::IfIndex;
use onlink::{Route, Standing};
use pauses::Pauses;
use work::{Asked, Kind, Lane, Work};

/// Operations in one request: small enough that the first address is confirmed, and announced,
/// within a few milliseconds, and that a renewal need not wait long behind additions.
const CHUNK_MAX: usize = 32;
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
/// ESRCH: there was no such route.
const ESRCH: i32 = 3;
/// EEXIST: there is one already.
const EEXIST: i32 = 17;

/// A wish for one address, on behalf of one router.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Claim {
    pub(super) router: RouterId,
    /// Seconds that the kernel keeps it without renewal; `None`: for ever.
    pub(super) lifetime: Option<u32>,
    /// The configured prefix length: what is on the link beside it.
    pub(super) len: u8,
}

/// Who has the IP of a place on its link.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Holder<'a> {
    /// It is not there.
    Nobody,
    /// We, as it is wanted.
    Ours,
    /// Somebody else, with an address of whatever prefix length.
    Other(&'a Address),
}

/// What became of an operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Done {
    /// The address is there now, and was not before: announce it.
    Added(Place),
    /// The kernel says that it is there already, and nothing was said of it: ask what is true.
    Unknown,
    /// It did not work, and will be tried again.
    Failed(Op, Errno),
}

/// How often a wanted address was lost.
#[derive(Clone, Copy, Debug)]
struct Loss {
    /// Until when its losses last at [`LOSS_PACE`].
    until: Instant,
    /// It is not known to be back.
    is_away: bool,
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
    /// It was another's, and ours takes its place.
    Vacated,
}

/// Wishes, and the work that follows from them.
#[derive(Debug, Default)]
pub(super) struct Claims {
    wanted: BTreeMap<Place, Claim>,
    /// Places that this daemon filled, and whether with a lifetime: how it knows its own where the
    /// kernel has no IFA_PROTO.
    put: BTreeMap<Place, bool>,
    /// The kernel keeps IFA_PROTO: an address on the box has one.
    keeps_owners: bool,
    /// On-link routes, by the address that they are there for.
    routes: BTreeMap<Place, (Route, Standing)>,
    /// What is to be done, and what is on its way.
    work: Work,
    /// Places of those that the kernel reported while they were on their way: what it reported is
    /// newer than their answer.
    told: BTreeSet<Place>,
    /// What failed in a way that news under way may explain: said when it fails again.
    doubtful: BTreeSet<(Place, Lane)>,
    pauses: Pauses,
    added_at: BTreeMap<Place, Instant>,
    /// Wanted addresses that were lost.
    losses: BTreeMap<Place, Loss>,
}

impl Claims {
    /// Whether havip put this address there. Where the kernel does not keep that, an address with
    /// another kind of lifetime than the one that was asked for is another's by now.
    pub(super) fn is_ours(&self, address: &Address) -> bool {
        if self.keeps_owners || address.proto != 0 {
            return address.proto == IFA_PROTO_HAVIP;
        }
        let place = (address.index, address.prefix);
        let asked = self.work.asked().filter(|asked| asked.place == place);
        let asked = asked.filter(|asked| matches!(asked.kind, Kind::Add | Kind::Renew));
        let asked = asked.map(|asked| is_fenced(asked.op));
        self.put.get(&place).copied().into_iter().chain(asked).any(|put| put != address.permanent)
    }

    /// Who has the IP of a place.
    pub(super) fn holder<'a>(&self, place: &Place, links: &'a Links) -> Holder<'a> {
        let mut holder = Holder::Nobody;
        for address in links.with_ip(place.0, place.1.ip) {
            if !self.is_ours(address) {
                return Holder::Other(address);
            }
            if address.prefix == place.1 {
                holder = Holder::Ours;
            }
        }
        holder
    }

    /// Remembers an address that an earlier run of this daemon put there, with a lifetime or
    /// without, where the kernel does not remember it.
    pub(super) fn remember(&mut self, place: Place, fenced: bool) {
        self.put.insert(place, fenced);
    }

    /// The claim on a place.
    pub(super) fn claim_on(&self, place: &Place) -> Option<&Claim> {
        self.wanted.get(place)
    }

    /// Wants `place` for a router; returns whether it is there already.
    pub(super) fn claim(&mut self, place: Place, claim: Claim, links: &Links) -> bool {
        let before = self.wanted.insert(place, claim);
        if before.is_some_and(|before| before.lifetime != claim.lifetime) {
            self.renew(place);
        }
        self.look(place, links);
        self.holder(&place, links) != Holder::Nobody
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

    /// Wants the lifetime of `place` renewed, and of its route.
    pub(super) fn renew(&mut self, place: Place) {
        self.work.queue(Kind::Renew, place);
        if matches!(self.routes.get(&place), Some((_, Standing::Ours | Standing::Others))) {
            self.work.queue(Kind::Route, place);
        }
    }

    /// The kernel has an address.
    pub(super) fn seen(&mut self, address: &Address) {
        if address.proto != 0 && !self.keeps_owners {
            self.keeps_owners = true;
            self.put.clear();
        }
    }

    /// The kernel reports an address at `place`.
    pub(super) fn told(&mut self, place: Place) {
        let wanted = host(place);
        if self.work.is_busy(&wanted, Lane::Address) {
            self.told.insert(wanted);
        }
    }

    /// Looks at a place again: something happened to it.
    pub(super) fn look(&mut self, place: Place, links: &Links) {
        self.look_at_address(place, links);
        let wanted = host(place);
        if wanted != place {
            self.look_at_address(wanted, links);
        }
        self.look_at_route(wanted, links);
    }

    fn look_at_address(&mut self, place: Place, links: &Links) {
        self.work.unqueue(Kind::Add, &place);
        self.work.unqueue(Kind::Remove, &place);
        if let Some(kind) = self.difference(&place, links) {
            self.work.queue(kind, place);
        }
        if !self.wanted.contains_key(&place) {
            self.work.unqueue(Kind::Renew, &place);
            if links.address(&place).is_none() {
                self.pauses.unhold(&(place, Lane::Address));
                self.doubtful.remove(&(place, Lane::Address));
            }
        } else if links.place_of(place.0, place.1.ip).is_some() {
            self.doubtful.remove(&(place, Lane::Address));
        }
    }

    /// Looks at everything again: a dump has come.
    pub(super) fn look_at_all(&mut self, links: &Links) {
        let places: BTreeSet<Place> = links
            .addresses()
            .map(|address| (address.index, address.prefix))
            .chain(self.wanted.keys().copied())
            .chain(self.routes.keys().copied())
            .collect();
        for kind in [Kind::Add, Kind::Remove] {
            self.work.unqueue_all(kind);
        }
        self.put.retain(|place, _| links.address(place).is_some());
        for place in places {
            self.look(place, links);
        }
    }

    /// Looks at everything on a link again: it came up, went down, or changed its VRF.
    pub(super) fn look_at_link(&mut self, index: IfIndex, links: &Links) {
        let places: Vec<Place> = self.places_on(index).collect();
        for place in places {
            self.look(place, links);
        }
    }

    /// What wanted and actual differ by. Another's address is neither replaced nor removed, and
    /// ours is not beside it.
    fn difference(&self, place: &Place, links: &Links) -> Option<Kind> {
        let is_there = links.address(place).is_some_and(|there| self.is_ours(there));
        match self.holder(place, links) {
            _ if !self.wanted.contains_key(place) => is_there.then_some(Kind::Remove),
            Holder::Nobody => links.link(place.0).map(|_| Kind::Add),
            Holder::Other(_) => is_there.then_some(Kind::Remove),
            Holder::Ours => None,
        }
    }

    /// The next request, if there is work and room for it.
    pub(super) fn next_chunk(&mut self, now: Instant, links: &Links) -> Option<Vec<Op>> {
        if !self.work.has_room() {
            return None;
        }
        self.wake(now, links);
        // So in every turn but a few.
        if self.work.nothing_is_queued() {
            return None;
        }
        let mut chunk: Vec<Asked> = Vec::new();
        for kind in Kind::ALL {
            let lane = kind.lane();
            let places: Vec<Place> = self
                .work
                .queued(kind)
                .filter(|place| kind == Kind::Renew || !self.pauses.holds(&(**place, lane)))
                .filter(|place| !self.work.is_busy(place, lane))
                .filter(|place| chunk.iter().all(|a| (a.place, a.kind.lane()) != (**place, lane)))
                .take(CHUNK_MAX - chunk.len())
                .copied()
                .collect();
            for place in places {
                self.work.unqueue(kind, &place);
                if let Some(op) = self.op(kind, place, links) {
                    chunk.push(Asked { kind, place, op });
                }
            }
        }
        if chunk.is_empty() {
            return None;
        }
        let ops = chunk.iter().map(|asked| asked.op).collect();
        self.work.ask(chunk);
        Some(ops)
    }

    fn op(&mut self, kind: Kind, place: Place, links: &Links) -> Option<Op> {
        let (index, prefix) = place;
        let verb = match kind {
            Kind::Remove => Verb::Remove,
            // Only what is there and ours has a lifetime to renew; what is gone is an addition.
            Kind::Renew if self.holder(&place, links) != Holder::Ours => return None,
            Kind::Renew => Verb::Renew { lifetime: self.wanted.get(&place)?.lifetime },
            Kind::Add => Verb::Add { lifetime: self.wanted.get(&place)?.lifetime },
            Kind::Route => return self.route(place, links),
            Kind::Unroute => return self.unroute(place, links),
        };
        Some(Op { index, prefix, verb })
    }

    /// Wanted places where nobody has the address.
    pub(super) fn missing(&self, links: &Links) -> Vec<Place> {
        let is_empty = |place: &&Place| links.place_of(place.0, place.1.ip).is_none();
        self.wanted.keys().filter(is_empty).copied().collect()
    }

    /// Whether the answer to an addition of `place` is to come.
    pub(super) fn is_adding(&self, place: &Place) -> bool {
        self.work.is_under_way(Kind::Add, place)
    }

    /// Takes the results of the oldest request; `links` learns what was acknowledged.
    pub(super) fn applied(
        &mut self,
        now: Instant,
        results: &[Result<(), Errno>],
        links: &mut Links,
    ) -> Vec<Done> {
        let mut done = Vec::new();
        let Some(chunk) = self.work.answered() else { return done };
        for (at, Asked { kind, place, op }) in chunk.into_iter().enumerate() {
            // A request that failed as a whole has no results: EIO for each.
            let result = results.get(at).copied().unwrap_or(Err(Errno(5)));
            done.extend(match kind {
                Kind::Add | Kind::Renew | Kind::Remove => {
                    self.address_done(now, kind, op, result, links)
                }
                Kind::Route | Kind::Unroute => self.route_done(now, place, op, result),
            });
            self.look(place, links);
        }
        done
    }

    fn address_done(
        &mut self,
        now: Instant,
        kind: Kind,
        op: Op,
        result: Result<(), Errno>,
        links: &mut Links,
    ) -> Option<Done> {
        let place = (op.index, op.prefix);
        let told = self.told.remove(&place);
        let key = (place, Lane::Address);
        if result.is_ok() {
            self.doubtful.remove(&key);
        }
        match (kind, result) {
            // It was there, and someone took it away before this was heard of.
            (Kind::Add, Ok(())) if told && links.address(&place).is_none() => None,
            // Its link went meanwhile, and the address with it.
            (Kind::Add, Ok(())) if links.link(op.index).is_none() => None,
            (Kind::Add, Ok(())) => {
                links.acknowledged(op.index, op.prefix);
                if !self.keeps_owners {
                    self.put.insert(place, is_fenced(op));
                }
                if self.wanted.contains_key(&place) {
                    self.added_at.insert(place, now);
                }
                Some(Done::Added(place))
            }
            (Kind::Renew, Ok(())) => {
                if let Some(fenced) = self.put.get_mut(&place) {
                    *fenced = is_fenced(op);
                }
                None
            }
            (Kind::Remove, Ok(()) | Err(Errno(EADDRNOTAVAIL | ENODEV))) => {
                links.forget_address(&place);
                self.put.remove(&place);
                self.added_at.remove(&place);
                None
            }
            // Another was faster, an answer of ours was lost, or a renewal under way brought it back:
            // whatever kept this from being done, it is there, and hosts are to learn of it.
            (Kind::Add, Err(_)) if self.holder(&place, links) != Holder::Nobody => {
                Some(Done::Added(place))
            }
            (Kind::Add, Err(Errno(EEXIST))) if self.doubtful.insert(key) => {
                self.pauses.hold(key, now + RETRY);
                Some(Done::Unknown)
            }
            (_, Err(errno)) => {
                self.pauses.hold(key, now + RETRY);
                Some(Done::Failed(op, errno))
            }
            // Not an address's.
            (Kind::Route | Kind::Unroute, Ok(())) => None,
        }
    }

    /// An address went, one of ours or not. It may be wanted again since this daemon asked for its
    /// removal.
    pub(super) fn lost(&mut self, now: Instant, place: Place, ours: bool, links: &Links) -> Lost {
        if !ours {
            self.look(place, links);
            let place = host(place);
            let vacated =
                self.wanted.contains_key(&place) && self.holder(&place, links) == Holder::Nobody;
            return if vacated { Lost::Vacated } else { Lost::Unwanted };
        }
        self.put.remove(&place);
        let wanted = self.wanted.contains_key(&place)
            && !self.work.is_under_way(Kind::Remove, &place)
            && self.holder(&place, links) == Holder::Nobody;
        if let Some(at) = self.added_at.remove(&place)
            && wanted
            && now.since(at) < RESTORE_PAUSE
        {
            self.pauses.hold((place, Lane::Address), at + RESTORE_PAUSE);
        }
        self.look(place, links);
        if !wanted {
            return Lost::Unwanted;
        }
        let loss = self.losses.entry(place).or_insert(Loss { until: now, is_away: true });
        loss.until = loss.until.max(now) + LOSS_PACE;
        loss.is_away = true;
        if loss.until.since(now) >= FIGHT { Lost::Fought } else { Lost::Wanted }
    }

    /// A wanted address is there; returns whether it had been lost.
    pub(super) fn regained(&mut self, place: &Place) -> bool {
        let loss = self.losses.get_mut(place);
        loss.is_some_and(|loss| std::mem::take(&mut loss.is_away))
    }

    /// Frees places whose pause is over.
    fn wake(&mut self, now: Instant, links: &Links) {
        while let Some(place) = self.pauses.pop(now) {
            self.look(place, links);
        }
    }

    /// When a pause ends that something waits for; while no request has room, an answer comes first.
    pub(super) fn next_deadline(&self) -> Option<Instant> {
        if self.work.has_room() { self.pauses.next_end() } else { None }
    }

    /// Whether nothing is being removed or waits to be.
    pub(super) fn nothing_to_remove(&self) -> bool {
        let waits = |kind: Kind| {
            self.work.queued(kind).all(|place| self.pauses.holds(&(*place, kind.lane())))
        };
        self.work.asked().next().is_none() && waits(Kind::Remove) && waits(Kind::Unroute)
    }

    /// Drops what is known of a link that went.
    pub(super) fn link_gone(&mut self, index: IfIndex, links: &Links) {
        let mut all: BTreeSet<Place> = self.pauses.places_on(index).collect();
        all.extend(of_link(&self.put, index));
        all.extend(of_link(&self.routes, index));
        all.extend(of_link(&self.added_at, index));
        all.extend(self.places_on(index));
        all.extend(self.work.queued_on(index));
        for place in all {
            self.put.remove(&place);
            self.routes.remove(&place);
            self.added_at.remove(&place);
            for lane in [Lane::Address, Lane::Route] {
                self.pauses.unhold(&(place, lane));
                self.doubtful.remove(&(place, lane));
            }
            for kind in Kind::ALL {
                self.work.unqueue(kind, &place);
            }
            self.look(place, links);
        }
    }

    /// The places on a link that are wanted.
    pub(super) fn places_on(&self, index: IfIndex) -> impl Iterator<Item = Place> {
        of_link(&self.wanted, index)
    }

    pub(super) fn sizes(&self) -> [(&'static str, usize); 14] {
        let queued = |kind| self.work.queued(kind).count();
        [
            ("claims", self.wanted.len()),
            ("put", self.put.len()),
            ("routes", self.routes.len()),
            ("to remove", queued(Kind::Remove)),
            ("to renew", queued(Kind::Renew)),
            ("to add", queued(Kind::Add)),
            ("to route", queued(Kind::Route)),
            ("to unroute", queued(Kind::Unroute)),
            ("asked", self.work.asked().count()),
            ("told", self.told.len()),
            ("doubtful", self.doubtful.len()),
            ("held back", self.pauses.len()),
            ("added", self.added_at.len()),
            ("losses", self.losses.len()),
        ]
    }
}

/// The places of one link.
fn of_link<T>(places: &BTreeMap<Place, T>, index: IfIndex) -> impl Iterator<Item = Place> {
    let all = places.range(from(index)..).map(|(place, _)| *place);
    all.take_while(move |place| place.0 == index)
}

/// Whether what was asked for has a lifetime.
const fn is_fenced(op: Op) -> bool {
    matches!(op.verb, Verb::Add { lifetime: Some(_) } | Verb::Renew { lifetime: Some(_) })
}

#[cfg(test)]
mod tests;
