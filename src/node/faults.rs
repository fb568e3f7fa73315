//! When a router gives way by itself, though nothing is missing: its adverts cannot be sent, or
//! someone takes its addresses away again and again. And when it bears a fault for a while: its
//! link is lost for a moment.

use std::time::Duration;

use super::entry::{Entry, RouterId};
use super::event::Actions;
use super::kernel::Errno;
use super::links::Place;
use super::notice::{NotReady, Notice};
use super::router::Reason;
use super::{Instant, Node};
use crate::config::Prefix;
use crate::wire::IfIndex;
use crate::wire::vrrp::active_down_interval;

/// Adverts in a row that could not be sent, after which others must be believed to have taken
/// over: they wait for three intervals (RFC 9568 §6.1).
const UNSENT_MAX: u32 = 3;
/// How long a router that cannot send stays away before it tries again.
const UNSENT_PAUSE: Duration = Duration::from_secs(1);
/// The same where someone fights for an address: an operator has to find out who.
const FIGHT_PAUSE: Duration = Duration::from_secs(30);

/// How long additions of a VIP must fail before the next one is not expected to work either. What
/// the kernel will not change its mind about counts at once.
const UNPLACED_AFTER: Duration = Duration::from_secs(2);
/// How long a router whose VIPs the kernel does not take stays away at least and at most: twice as
/// long each time, as each trial takes the addresses away from whoever has them.
const UNPLACED_PAUSE: Duration = Duration::from_secs(1);
const UNPLACED_PAUSE_MAX: Duration = Duration::from_secs(60);

/// VIPs of an active router that the kernel does not take.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Unplaced {
    /// The last one, and why, while the router is active.
    pub(super) last: Option<(Prefix, Errno)>,
    /// Since when it is so.
    since: Option<Instant>,
    /// When the router gave way because of it, until it is back.
    gave_way_at: Option<Instant>,
    /// How long it stays away the next time.
    pause: Duration,
    /// Nobody took over when it gave way: it keeps what it has.
    pub(super) alone: bool,
}

impl Unplaced {
    /// The router's state is another.
    pub(super) const fn moved(&mut self) {
        (self.last, self.since) = (None, None);
    }
}

impl Node {
    /// Takes note of packets that could not be sent; `adverts` are the routers whose adverts were
    /// among them.
    pub(super) fn send_failed(
        &mut self,
        now: Instant,
        index: IfIndex,
        (errno, count): (Errno, u32),
        adverts: &[RouterId],
        out: &mut Actions,
    ) {
        // A router whose link or address is gone says farewell all the same, and nobody hears it.
        let is_expected = |id: &&RouterId| errno.is_lost_link() && self.cannot_speak(**id);
        let expected =
            u32::try_from(adverts.iter().filter(is_expected).count()).unwrap_or(u32::MAX);
        let count = count.saturating_sub(expected);
        if count == 0 {
            return;
        }
        let total = self.ports.send_failed(now, index, errno, count);
        if let Some(link) = self.links.link(index) {
            let interface = link.name.clone();
            self.notice(now, Notice::SendFailed { interface, errno, count: total }, out);
        }
        for id in adverts {
            let Some(entry) = self.entries.get_mut(id) else { continue };
            entry.counters.adverts_unsent += 1;
            // With both checksum forms there are two packets for each advert.
            if !std::mem::replace(&mut entry.last_unsent, true) {
                entry.unsent += 1;
            }
            // A lost link is borne for its own time.
            let gives_way = entry.router.is_active()
                && entry.router.config().yield_on_send_errors
                && entry.unsent >= UNSENT_MAX
                && entry.link_lost_at.is_none();
            if gives_way {
                // The next failure counts as the third one: it is tried once, not for three
                // intervals more.
                entry.unsent = UNSENT_MAX - 1;
                self.give_way(now, *id, NotReady::SendFails(errno), UNSENT_PAUSE, out);
            }
        }
    }

    /// Whether a router has stopped since its link, or its address there, is gone.
    fn cannot_speak(&self, id: RouterId) -> bool {
        let why = self.entries.get(&id).and_then(|entry| entry.not_ready.as_ref());
        matches!(
            why,
            Some(
                NotReady::NoInterface
                    | NotReady::LinkDown
                    | NotReady::NoCarrier
                    | NotReady::NoAddress
            )
        )
    }

    /// An advert is about to be sent: the one before went, unless that was heard of.
    pub(super) fn advert_follows(&mut self, now: Instant, id: RouterId, out: &mut Actions) {
        let Some(entry) = self.entries.get_mut(&id) else { return };
        if !std::mem::take(&mut entry.last_unsent)
            && std::mem::take(&mut entry.unsent) >= UNSENT_MAX
        {
            self.reannounce(now, id, Reason::SendsAgain, out);
        }
    }

    /// Someone took a VIP away so often that putting it back is a fight.
    pub(super) fn fights(&mut self, now: Instant, place: &Place, out: &mut Actions) {
        let Some(id) = self.claims.claim_on(place).map(|claim| claim.router) else { return };
        self.give_way(now, id, NotReady::Fought(place.1), FIGHT_PAUSE, out);
    }

    /// The kernel did not take a VIP.
    pub(super) fn not_placed(
        &mut self,
        now: Instant,
        place: &Place,
        errno: Errno,
        out: &mut Actions,
    ) {
        if self.links.place_of(place.0, place.1.ip).is_some() {
            return;
        }
        let Some(id) = self.claims.claim_on(place).map(|claim| claim.router) else { return };
        let Some(entry) = self.entries.get_mut(&id) else { return };
        let unplaced = &mut entry.unplaced;
        unplaced.last = Some((place.1, errno));
        let since = *unplaced.since.get_or_insert(now);
        if unplaced.alone || !(errno.is_lasting() || now.since(since) >= UNPLACED_AFTER) {
            return;
        }
        let config = entry.router.config();
        // Whoever takes over is heard by then.
        let silence = active_down_interval(config.version, config.priority, config.advert_interval);
        let pause = unplaced.pause.max(UNPLACED_PAUSE).max(silence);
        unplaced.pause = (pause * 2).min(UNPLACED_PAUSE_MAX.max(silence));
        unplaced.gave_way_at = Some(now);
        self.give_way(now, id, NotReady::CannotPlace(place.1, errno), pause, out);
    }

    /// Its VIPs are others: what was found out of those before counts no more.
    pub(super) fn try_again(&mut self, id: RouterId) {
        let Some(entry) = self.entries.get_mut(&id) else { return };
        if std::mem::take(&mut entry.unplaced).gave_way_at.is_some() {
            entry.held_off = None;
        }
    }

    /// A VIP is there: once all are, nothing is remembered of those that were not.
    pub(super) fn placed(&mut self, id: RouterId) {
        let Some(entry) = self.entries.get_mut(&id) else { return };
        if entry.places.iter().all(|place| self.links.place_of(place.0, place.1.ip).is_some()) {
            entry.unplaced = Unplaced::default();
        }
    }

    fn give_way(
        &mut self,
        now: Instant,
        id: RouterId,
        why: NotReady,
        pause: Duration,
        out: &mut Actions,
    ) {
        let Some(entry) = self.entries.get_mut(&id) else { return };
        entry.counters.gave_way += 1;
        entry.held_off = Some((now + pause, why));
        self.evaluate(now, id, out);
    }

    /// Why a router does not take part, where `why` is what is missing: not yet if it bears that,
    /// and still if it gave way a moment ago. Only who still `has_source`, an address to send from,
    /// bears the loss of its link.
    pub(super) fn borne(
        &mut self,
        now: Instant,
        id: RouterId,
        why: Option<NotReady>,
        has_source: bool,
        out: &mut Actions,
    ) -> Option<NotReady> {
        let entry = self.entries.get_mut(&id)?;
        entry.look_at = None;
        let bears = entry.router.is_active() && has_source;
        match why {
            Some(NotReady::LinkDown | NotReady::NoCarrier) if bears => {
                let delay = entry.router.config().carrier_delay;
                let until = *entry.link_lost_at.get_or_insert(now) + delay;
                if now < until {
                    entry.look_at = Some(until);
                    return None;
                }
            }
            // What a switch had learned went with the link.
            None if entry.link_lost_at.is_some() && entry.router.is_active() => {
                entry.link_lost_at = None;
                self.reannounce(now, id, Reason::LinkBack, out);
            }
            Some(_) | None => {}
        }
        let entry = self.entries.get_mut(&id)?;
        if why.is_some() {
            entry.link_lost_at = None;
            return why;
        }
        let (until, why) = entry.held_off.clone()?;
        // A gateway with some of its VIPs is better than none.
        let silent_at = entry.unplaced.gave_way_at.map(|at| entry.silent_at(at));
        let until = silent_at.into_iter().chain([until]).min().unwrap_or(until);
        if now < until {
            entry.look_at = Some(until);
            return Some(why);
        }
        entry.unplaced.gave_way_at = None;
        entry.unplaced.alone = silent_at.is_some_and(|at| now >= at);
        entry.held_off = None;
        None
    }
}

impl Entry {
    /// When nobody has been heard for so long that nobody is active in the place of this router.
    fn silent_at(&self, gave_way_at: Instant) -> Instant {
        let config = self.router.config();
        let wait = active_down_interval(config.version, config.priority, config.advert_interval);
        let heard = self.heard.filter(|heard| heard.priority > 0 && heard.at > gave_way_at);
        heard.map_or(gave_way_at, |heard| heard.at) + wait
    }
}

#[cfg(test)]
mod tests;
