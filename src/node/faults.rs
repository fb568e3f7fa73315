//! When a router gives way by itself, though nothing is missing: its adverts cannot be sent, or
//! someone takes its addresses away again and again. And when it bears a fault for a while: its
//! link is lost for a moment.

use std::time::Duration;

use super::entry::RouterId;
use super::event::Actions;
use super::kernel::Errno;
use super::links::Place;
use super::notice::{NotReady, Notice};
use super::router::Reason;
use super::{Instant, Node};
use crate::wire::IfIndex;

/// Adverts in a row that could not be sent, after which others must be believed to have taken
/// over: they wait for three intervals (RFC 9568 §6.1).
const UNSENT_MAX: u32 = 3;
/// How long a router that cannot send stays away before it tries again.
const UNSENT_PAUSE: Duration = Duration::from_secs(1);
/// The same where someone fights for an address: an operator has to find out who.
const FIGHT_PAUSE: Duration = Duration::from_secs(30);

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
        let total = self.ports.send_failed(index, count);
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
        let (until, why) = entry.held_off?;
        if now < until {
            entry.look_at = Some(until);
            return Some(why);
        }
        entry.held_off = None;
        None
    }
}

#[cfg(test)]
mod tests;
