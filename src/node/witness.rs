//! Who else says that a VIP is his: what others' ARP and neighbour advertisements claim.
//!
//! A second active router is heard by its adverts as a rule. One that nobody hears, a host with
//! an address set by hand, or a gateway that kept its VIP, shows only here.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::Duration;

use super::event::{Action, Actions};
use super::kernel::Port;
use super::links::Place;
use super::notice::Notice;
use super::{Instant, Node};
use crate::wire::{Family, IfIndex, Mac};

/// Time between two defences of one router's addresses (RFC 5227 §2.4 (c), DEFEND_INTERVAL): two
/// hosts that both defend must not do it for ever.
const DEFEND_PAUSE: Duration = Duration::from_secs(10);

/// Another's claim to an address of ours.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Rival {
    pub(super) address: IpAddr,
    pub(super) mac: Mac,
    /// When it was heard last.
    pub(super) at: Instant,
    /// When ours was announced because of it.
    defended_at: Instant,
}

/// What each port listens for.
#[derive(Debug, Default)]
pub(super) struct Watches {
    watched: BTreeMap<Port, Vec<IpAddr>>,
    /// What is claimed may have changed.
    stale: bool,
}

impl Watches {
    /// What is claimed has changed.
    pub(super) const fn stale(&mut self) {
        self.stale = true;
    }

    /// This port's sockets are new, or gone: they watch nothing.
    pub(super) fn forget(&mut self, port: Port) {
        self.watched.remove(&port);
        self.stale = true;
    }

    pub(super) fn sizes(&self) -> [(&'static str, usize); 2] {
        let addresses = self.watched.values().map(Vec::len).sum();
        [("watched ports", self.watched.len()), ("watched addresses", addresses)]
    }
}

impl Node {
    /// Tells the sockets what to listen for, if that changed.
    pub(super) fn watch(&mut self, out: &mut Actions) {
        if !std::mem::take(&mut self.watches.stale) {
            return;
        }
        let mut wanted: BTreeMap<Port, Vec<IpAddr>> = BTreeMap::new();
        let places: BTreeSet<Place> =
            self.entries.values().flat_map(|entry| entry.places.iter().copied()).collect();
        for (index, prefix) in places {
            let port = Port { index, family: Family::of(&prefix.ip) };
            if self.ports.missing(port).is_none() {
                wanted.entry(port).or_default().push(prefix.ip);
            }
        }
        let watched = &mut self.watches.watched;
        for port in watched.keys().copied().collect::<Vec<_>>() {
            wanted.entry(port).or_default();
        }
        for (port, addresses) in wanted {
            if watched.get(&port).is_none_or(|before| *before != addresses) {
                watched.insert(port, addresses.clone());
                out.kernel.push(Action::Watch { port, addresses });
            }
        }
        watched.retain(|_, addresses| !addresses.is_empty());
    }

    /// Someone says that `ip` is at `mac`.
    pub(super) fn claimed(
        &mut self,
        now: Instant,
        index: IfIndex,
        ip: IpAddr,
        mac: Mac,
        out: &mut Actions,
    ) {
        // A frame of ours that came back.
        if self.links.has_mac(mac) {
            return;
        }
        let Some(place) = self.links.place_of(index, ip) else { return };
        let Some(id) = self.claims.claim_on(&place).map(|claim| claim.router) else { return };
        let ours = self.links.link(index).and_then(|link| link.mac);
        let Some(entry) = self.entries.get_mut(&id) else { return };
        let config = entry.router.config();
        // Whoever had it until now may not have heard yet.
        if now.since(entry.since) < config.advert_interval.duration() {
            return;
        }
        entry.counters.address_conflicts += 1;
        let defends = entry.rival.is_none_or(|last| now.since(last.defended_at) >= DEFEND_PAUSE);
        let defended_at = entry.rival.filter(|_| !defends).map_or(now, |last| last.defended_at);
        entry.rival = Some(Rival { address: ip, mac, at: now, defended_at });
        let router = config.name.clone();
        if defends {
            self.announcer.start(place);
        }
        self.notice(now, Notice::AddressConflict { router, address: ip, ours, theirs: mac }, out);
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{Bench, ETH0, router};
    use super::super::{Event, Via};
    use super::*;
    use crate::config::{Prefix, Router};

    fn vip(last: u8) -> Prefix {
        Prefix::host([10, 0, 0, last].into())
    }

    const THEIRS: Mac = Mac([2, 0, 0, 0, 0, 9]);

    fn claim(bench: &mut Bench, ip: [u8; 4], mac: Mac) -> bool {
        bench.event(Event::Claimed { index: ETH0, ip: ip.into(), mac });
        bench.timeout();
        let announced = bench.actions.frames().any(|(via, ..)| via == Via::Ethernet(ETH0));
        bench.settle();
        announced
    }

    fn watched(bench: &Bench) -> Vec<&Action> {
        let is_watch = |action: &&Action| matches!(action, Action::Watch { .. });
        bench.actions.kernel.iter().filter(is_watch).collect()
    }

    #[test]
    fn another_who_claims_a_vip_is_named_with_both_macs_and_the_vip_defended_now_and_then() {
        let mut bench = Bench::new(vec![router(51)]);
        assert!(!claim(&mut bench, [10, 0, 0, 51], THEIRS), "a backup expects it");
        assert_eq!(bench.router().counters.address_conflicts, 0);
        bench.pass(Duration::from_secs(10));
        assert_eq!(bench.router().state, "active");
        assert!(claim(&mut bench, [10, 0, 0, 51], THEIRS));
        let notice = bench.router().conflict.unwrap();
        assert!(notice.contains("02:00:00:00:00:09") && notice.contains("02:00:00:00:00:01"));
        bench.pass(Duration::from_secs(5));
        assert!(!claim(&mut bench, [10, 0, 0, 51], THEIRS), "once in ten seconds");
        bench.pass(Duration::from_secs(6));
        assert!(claim(&mut bench, [10, 0, 0, 51], THEIRS));
        assert_eq!(bench.router().counters.address_conflicts, 3);
        assert_eq!(bench.router().state, "active", "no stranger takes it by a word");
        bench.pass(Duration::from_secs(21));
        assert_eq!(bench.router().conflict, None);
        // What is ours, and what is no VIP, is nobody's claim.
        assert!(!claim(&mut bench, [10, 0, 0, 51], Mac([2, 0, 0, 0, 0, 1])));
        assert!(!claim(&mut bench, [10, 0, 0, 52], THEIRS));
        assert_eq!(bench.router().counters.address_conflicts, 3);
    }

    #[test]
    fn sockets_are_told_what_is_active_and_only_when_that_changes() {
        let mut bench = Bench::new(vec![router(51), router(52)]);
        let mut told = Vec::new();
        let mut changes = 0;
        for _ in 0..4_000 {
            bench.now = bench.now + Duration::from_millis(2);
            bench.timeout();
            if let Some(Action::Watch { addresses, .. }) = watched(&bench).last() {
                told.clone_from(addresses);
                changes += 1;
            }
            bench.settle();
        }
        assert_eq!(told, [IpAddr::from([10, 0, 0, 51]), [10, 0, 0, 52].into()]);
        assert!(changes <= 2, "{changes}");
        bench.configure(vec![router(52)]);
        bench.timeout();
        let [Action::Watch { addresses, .. }] = watched(&bench)[..] else { panic!("not told") };
        assert_eq!(*addresses, [IpAddr::from([10, 0, 0, 52])]);
        let more = Router { vips: vec![vip(52), vip(53)], ..router(52) };
        bench.configure(vec![more.clone()]);
        bench.timeout();
        bench.configure(vec![Router { vips: vec![vip(53)], ..more }]);
        bench.timeout();
        let [Action::Watch { addresses, .. }] = watched(&bench)[..] else { panic!("not told") };
        assert_eq!(*addresses, [IpAddr::from([10, 0, 0, 53])]);
    }
}
