//! What the kernel says, in notifications, dumps and answers, and what follows for the routers.

use std::time::Duration;

use super::claims::{Done, Lost};
use super::kernel::{Change, Errno, Link, Snapshot, Verb};
use super::links::{Place, Touched, host};
use super::notice::Notice;
use super::{Actions, Dump, Instant, Node, Phase};
use crate::wire::Family;

/// Pause after a dump that failed.
const DUMP_RETRY: Duration = Duration::from_secs(1);
/// Changes kept while a dump is under way; more than that, and it is done again.
const CHANGES_MAX: usize = 65_536;

/// What decides whether and where a link has routes.
const fn carries(link: &Link) -> (bool, Option<u32>) {
    (link.up, link.vrf_table)
}

impl Node {
    pub(super) fn kernel(&mut self, now: Instant, change: Change, out: &mut Actions) {
        if change == Change::Overrun {
            self.notice(now, Notice::Overrun, out);
            self.want_dump(now);
            // However long it takes until a dump says what is: what a renewal brought back, hosts
            // are to learn anew.
            self.announcer.again(now);
            return;
        }
        if let Dump::Waiting { again } = &mut self.dump {
            if self.changes.len() < CHANGES_MAX {
                self.changes.push(change.clone());
            } else {
                // Too much to remember: the dump under way will be followed by another.
                *again = true;
            }
        }
        let before = match &change {
            Change::Link(Link { index, .. }) | Change::LinkGone(index) => {
                self.links.link(*index).cloned()
            }
            _ => None,
        };
        if let Change::Address(address) = &change {
            self.claims.seen(address);
        }
        // Our own addresses come and go without any router being concerned.
        let ours = match &change {
            Change::Address(address) => self.claims.is_ours(address),
            Change::AddressGone { index, prefix } => self
                .links
                .address(&(*index, *prefix))
                .is_some_and(|address| self.claims.is_ours(address)),
            Change::Link(_) | Change::LinkGone(_) | Change::Overrun => false,
        };
        let appeared = match &change {
            Change::Address(address) => {
                self.links.place_of(address.index, address.prefix.ip).is_none()
            }
            _ => false,
        };
        let touched = self.links.apply(&change);
        if let Change::Address(address) = &change {
            self.claims.told((address.index, address.prefix));
        }
        out.box_changed |= touched != Touched::Nothing && !ours;
        match touched {
            // One of ours that is known to be gone since its removal was acknowledged.
            Touched::Nothing => {
                if let Change::AddressGone { index, prefix } = change {
                    self.stray_touched(now, (index, prefix), out);
                }
            }
            Touched::Link(index) => {
                let carried = before.as_ref().map(carries);
                let after = self.links.link(index).cloned();
                match &after {
                    None => {
                        self.claims.link_gone(index, &self.links);
                        self.strays_gone(now, index, out);
                    }
                    Some(link) if Some(carries(link)) != carried => {
                        self.claims.look_at_link(index, &self.links);
                    }
                    Some(_) => {}
                }
                for link in before.into_iter().chain(after) {
                    self.touch(&link.name, None);
                    link.alt_names.iter().for_each(|name| self.touch(name, None));
                }
            }
            Touched::Address(place) => {
                self.stray_touched(now, place, out);
                let removed = matches!(change, Change::AddressGone { .. });
                match removed.then(|| self.claims.lost(now, place, ours, &self.links)) {
                    // Told once it is back: what goes with its link does not come back.
                    Some(Lost::Wanted) => {}
                    Some(Lost::Fought) => self.fights(now, &place, out),
                    Some(Lost::Vacated) => self.vacated(now, &host(place), out),
                    Some(Lost::Unwanted) | None => {
                        self.claims.look(place, &self.links);
                        if appeared {
                            self.is_back(now, place, out);
                        }
                    }
                }
                if !ours && self.claims.claim_on(&host(place)).is_some() {
                    // Whose it is stands in the status and in the will.
                    out.states_changed = true;
                    if !removed {
                        self.held_by_other(now, &host(place), out);
                    }
                }
                if !ours && let Some(link) = self.links.link(place.0) {
                    let name = link.name.clone();
                    self.touch(&name, Some(Family::of(&place.1.ip)));
                }
            }
        }
    }

    /// A place that was empty is not any more: someone removed the address, and a renewal under
    /// way brought it back. That one's answer does not tell that it was gone.
    fn is_back(&mut self, now: Instant, place: Place, out: &mut Actions) {
        let place = host(place);
        if self.links.place_of(place.0, place.1.ip).is_some()
            && self.claims.claim_on(&place).is_some()
            && !self.claims.is_adding(&place)
        {
            self.announcer.start(place);
            self.restored(now, &place, out);
        }
    }

    /// Says so if an address that is there had been lost.
    fn restored(&mut self, now: Instant, place: &Place, out: &mut Actions) {
        if !self.claims.regained(place) {
            return;
        }
        let Some(claim) = self.claims.claim_on(place) else { return };
        let Some(entry) = self.entries.get_mut(&claim.router) else { return };
        entry.counters.restored += 1;
        let router = entry.router.config().name.clone();
        self.notice(now, Notice::Restored { router, address: place.1 }, out);
    }

    fn vacated(&mut self, now: Instant, place: &Place, out: &mut Actions) {
        let Some(claim) = self.claims.claim_on(place) else { return };
        let Some(entry) = self.entries.get(&claim.router) else { return };
        let (router, address) = (entry.router.config().name.clone(), place.1.ip);
        self.notice(now, Notice::Vacated { router, address }, out);
    }

    fn want_dump(&mut self, now: Instant) {
        match &mut self.dump {
            Dump::Idle => self.dump = Dump::Wanted(now),
            Dump::Wanted(_) => {}
            // The one under way may have begun before what was lost.
            Dump::Waiting { again } => *again = true,
        }
    }

    pub(super) fn dumped(
        &mut self,
        now: Instant,
        result: Result<Snapshot, Errno>,
        out: &mut Actions,
    ) {
        let again = self.dump == Dump::Waiting { again: true };
        self.dump = if again { Dump::Wanted(now) } else { Dump::Idle };
        let mut missing = self.claims.missing(&self.links);
        match result {
            Err(errno) => {
                self.dump = Dump::Wanted(now + DUMP_RETRY);
                self.changes.clear();
                self.notice(now, Notice::DumpFailed { errno }, out);
                return;
            }
            Ok(snapshot) => {
                snapshot.addresses.iter().for_each(|address| self.claims.seen(address));
                self.links.replace(snapshot);
            }
        }
        // Nor may the loss of what is back by now ever have been heard of.
        missing.extend(self.claims.missing(&self.links));
        // What was reported while the dump was made is at least as new as what the dump says.
        for change in std::mem::take(&mut self.changes) {
            self.links.apply(&change);
        }
        self.claims.look_at_all(&self.links);
        for place in missing {
            self.is_back(now, place, out);
        }
        // Nor is what a renewal brought back before the loss was heard of known from any of these.
        self.announcer.again(now);
        if self.phase == Phase::Reading {
            self.phase = Phase::Cleaning;
            let count =
                self.links.addresses().filter(|address| self.claims.is_ours(address)).count();
            if count > 0 {
                self.notice(now, Notice::Leftovers { count }, out);
            }
        }
        self.cleaned(now, out);
        self.find_strays(now, out);
        self.evaluate_all(now, out);
    }

    pub(super) fn applied(
        &mut self,
        now: Instant,
        results: &[Result<(), Errno>],
        out: &mut Actions,
    ) {
        for done in self.claims.applied(now, results, &mut self.links) {
            match done {
                Done::Added(place) => {
                    if let Some(router) = self.claims.claim_on(&place).map(|claim| claim.router) {
                        self.announcer.start(place);
                        self.restored(now, &place, out);
                        self.placed(router);
                    }
                }
                Done::Unknown => self.want_dump(now),
                Done::Failed(op, errno) => {
                    let doing = op.verb.doing();
                    let interface = self.links.link(op.index).map(|link| link.name.clone());
                    let address = op.prefix;
                    let notice = Notice::AddressFailed { address, interface, doing, errno };
                    self.notice(now, notice, out);
                    if matches!(op.verb, Verb::Add { .. } | Verb::Renew { .. }) {
                        self.not_placed(now, &(op.index, op.prefix), errno, out);
                    }
                }
            }
        }
        self.cleaned(now, out);
    }

    /// Lets the routers take part once nothing of an earlier run is left.
    fn cleaned(&mut self, now: Instant, out: &mut Actions) {
        if self.phase == Phase::Cleaning && self.claims.nothing_to_remove() {
            self.phase = Phase::Running;
            if let Some(config) = self.config.take() {
                self.apply_config(now, config, out);
            }
        }
    }
}
