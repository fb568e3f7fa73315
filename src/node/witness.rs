//! Who else says that a VIP is his: what others' ARP and neighbour advertisements claim.
//!
//! A second active router is heard by its adverts as a rule. One that nobody hears, a host with
//! an address set by hand, or a gateway that kept its VIP, shows only here.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::Duration;

use super::entry::RouterId;
use super::event::{Action, Actions};
use super::kernel::Port;
use super::links::Place;
use super::notice::Notice;
use super::overhear::Shadow;
use super::rivals::{Claimed, Rival, judged_after};
use super::router::Heard;
use super::{Instant, Node};
use crate::wire::vrrp::Vrid;
use crate::wire::{Family, IfIndex, Mac};

/// Time between two defences of one router's addresses (RFC 5227 §2.4 (c), DEFEND_INTERVAL): two
/// hosts that both defend must not do it for ever.
const DEFEND_PAUSE: Duration = Duration::from_secs(10);

/// Addresses that others may claim, and virtual routers whose packets the IP layer may keep back.
type Watched = (Vec<IpAddr>, Vec<Vrid>);

/// What each port listens for.
#[derive(Debug, Default)]
pub(super) struct Watches {
    watched: BTreeMap<Port, Watched>,
    /// Links where what is claimed may have changed.
    stale: BTreeSet<IfIndex>,
}

impl Watches {
    /// What is claimed on this link has changed.
    pub(super) fn stale(&mut self, index: IfIndex) {
        self.stale.insert(index);
    }

    /// The same for the link that a router runs on.
    pub(super) fn stale_of(&mut self, link: Option<IfIndex>) {
        self.stale.extend(link);
    }

    /// This port's sockets are new, or gone: they watch nothing.
    pub(super) fn forget(&mut self, port: Port) {
        self.watched.remove(&port);
        self.stale.insert(port.index);
    }

    pub(super) fn sizes(&self) -> [(&'static str, usize); 4] {
        let watched = self.watched.values();
        let (addresses, vrids) = watched.fold((0, 0), |(addresses, vrids), watched| {
            (addresses + watched.0.len(), vrids + watched.1.len())
        });
        [
            ("watched ports", self.watched.len()),
            ("watched addresses", addresses),
            ("watched virtual routers", vrids),
            ("watches out of date", self.stale.len()),
        ]
    }
}

impl Node {
    /// Tells the sockets what to listen for, if that changed.
    pub(super) fn watch(&mut self, out: &mut Actions) {
        while let Some(index) = self.watches.stale.pop_first() {
            for family in [Family::V4, Family::V6] {
                self.watch_port(Port { index, family }, out);
            }
        }
    }

    fn routers_on(&self, port: Port) -> impl Iterator<Item = RouterId> {
        let routers = self.by_vrid.range((port, Vrid::MIN)..);
        routers.take_while(move |((of, _), _)| *of == port).map(|(_, id)| *id)
    }

    fn watch_port(&mut self, port: Port, out: &mut Actions) {
        let (mut addresses, mut vrids) = Watched::default();
        if self.ports.missing(port).is_none() {
            let places = self.claims.places_on(port.index).map(|(_, prefix)| prefix.ip);
            addresses.extend(places.filter(|ip| Family::of(ip) == port.family));
            let entries = || self.routers_on(port).filter_map(|id| self.entries.get(&id));
            // An address of this box's own may be another's as well.
            addresses.extend(entries().filter_map(|entry| entry.source));
            addresses.sort_unstable();
            addresses.dedup();
            vrids.extend(entries().filter_map(|entry| self.overhears(entry)).map(|(_, vrid)| vrid));
        }
        let wanted = (addresses, vrids);
        let watched = &mut self.watches.watched;
        let is_nothing = wanted == Watched::default();
        if watched.get(&port).map_or(is_nothing, |before| *before == wanted) {
            return;
        }
        let (addresses, vrids) = wanted.clone();
        if is_nothing {
            watched.remove(&port);
        } else {
            watched.insert(port, wanted);
        }
        out.kernel.push(Action::Watch { port, addresses, vrids });
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
        let Some((id, place)) = self.holder_of(index, ip) else {
            return self.own_claimed(now, index, ip, mac, out);
        };
        self.shadowed(id, Shadow::Claimed);
        let Some(entry) = self.entries.get_mut(&id) else { return };
        let interval = entry.router.config().advert_interval.duration();
        // Whoever had it until now may not have heard yet.
        let hands_over = now.since(entry.since) < interval
            || entry.heard.is_some_and(|heard| now.since(heard.at) < interval);
        if hands_over || entry.rivals.claim.is_some() {
            return;
        }
        let judge_at = now + judged_after(entry.router.config());
        entry.rivals.claim = Some(Claimed { place, mac, judge_at });
        self.retime(id);
    }

    /// Someone says that an address from which adverts are sent is at `mac`. Where that address is a
    /// VIP as well, this is the active gateway's announcement, and no conflict of own addresses.
    fn own_claimed(
        &mut self,
        now: Instant,
        index: IfIndex,
        ip: IpAddr,
        mac: Mac,
        out: &mut Actions,
    ) {
        let port = Port { index, family: Family::of(&ip) };
        for id in self.routers_on(port).collect::<Vec<_>>() {
            if self.entries.get(&id).is_some_and(|entry| entry.source == Some(ip)) {
                // His adverts would come from it as well.
                self.shadowed(id, Shadow::Claimed);
                if !self.by_vip.contains_key(&ip) {
                    self.same_address(now, id, mac, out);
                }
            }
        }
    }

    /// Another has the address that this router's adverts are sent from.
    pub(super) fn same_address(&mut self, now: Instant, id: RouterId, mac: Mac, out: &mut Actions) {
        let Some(entry) = self.entries.get_mut(&id) else { return };
        let Some(address) = entry.source else { return };
        if entry.rivals.has_twin(now, mac) {
            let interface = entry.router.config().interface.clone();
            self.notice(now, Notice::OwnAddress { interface, address, mac }, out);
        }
    }

    /// The active router that has a VIP on this link, and its place.
    fn holder_of(&self, index: IfIndex, ip: IpAddr) -> Option<(RouterId, Place)> {
        self.by_vip.get(&ip)?.iter().find_map(|id| {
            let places = &self.entries.get(id)?.places;
            let place = places.iter().find(|place| place.0 == index && place.1.ip == ip)?;
            Some((*id, *place))
        })
    }

    /// Believes a claim that no advert has explained.
    pub(super) fn judge(&mut self, now: Instant, id: RouterId, out: &mut Actions) {
        let Some(entry) = self.entries.get_mut(&id) else { return };
        let Some(Claimed { place, mac, .. }) =
            entry.rivals.claim.take_if(|claim| now >= claim.judge_at)
        else {
            return;
        };
        let (index, address) = (place.0, place.1.ip);
        entry.counters.address_conflicts += 1;
        let last = entry.rivals.rival;
        let defends = last.is_none_or(|last| now.since(last.defended_at) >= DEFEND_PAUSE);
        let defended_at = last.filter(|_| !defends).map_or(now, |last| last.defended_at);
        entry.rivals.rival = Some(Rival { address, mac, at: now, defended_at, asked: 0 });
        let router = entry.router.config().name.clone();
        if entry.router.is_active() {
            self.ask_soon(now, id, place);
        }
        let ours = self.links.link(index).and_then(|link| link.mac);
        if defends {
            self.announcer.start(place);
        }
        self.notice(now, Notice::AddressConflict { router, address, ours, theirs: mac }, out);
    }

    /// A losing advert came in while active.
    pub(super) fn won(&mut self, now: Instant, id: RouterId, heard: Heard, out: &mut Actions) {
        let Some(entry) = self.entries.get_mut(&id) else { return };
        let config = entry.router.config();
        let (router, own) = (config.name.clone(), config.advert_interval);
        if entry.rivals.lost(now, heard, own) {
            self.notice(now, Notice::DoesNotYield { router, src: heard.src }, out);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{Bench, ETH0, advert, router};
    use super::super::{Event, Inbox};
    use super::*;
    use crate::config::{Prefix, Router};
    use crate::wire::vrrp::{RxMeta, group};

    fn vip(last: u8) -> Prefix {
        Prefix::host([10, 0, 0, last].into())
    }

    const THEIRS: Mac = Mac([2, 0, 0, 0, 0, 9]);

    fn hear(bench: &mut Bench, ip: [u8; 4], mac: Mac) {
        bench.event(Event::Claimed { index: ETH0, ip: ip.into(), mac });
    }

    /// Another claims it, and no advert explains that; whether ours is announced because of it.
    fn claim(bench: &mut Bench, ip: [u8; 4], mac: Mac) -> bool {
        hear(bench, ip, mac);
        let before = bench.router().counters.announcements;
        bench.pass(Duration::from_millis(1_300));
        bench.router().counters.announcements > before
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
        bench.pass(Duration::from_millis(1));
        assert!(claim(&mut bench, [10, 0, 0, 51], THEIRS));
        let notice = bench.router().conflict.unwrap();
        assert!(notice.contains("02:00:00:00:00:09") && notice.contains("02:00:00:00:00:01"));
        bench.pass(Duration::from_secs(5));
        assert!(!claim(&mut bench, [10, 0, 0, 51], THEIRS), "once in ten seconds");
        bench.pass(Duration::from_secs(6));
        assert!(claim(&mut bench, [10, 0, 0, 51], THEIRS));
        assert_eq!(bench.router().counters.address_conflicts, 3);
        assert_eq!(bench.router().state, "active", "no stranger takes it by a word");
        bench.pass(Duration::from_secs(91));
        assert_eq!(bench.router().conflict, None);
        // What is ours, and what is no VIP, is nobody's claim.
        assert!(!claim(&mut bench, [10, 0, 0, 51], Mac([2, 0, 0, 0, 0, 1])));
        assert!(!claim(&mut bench, [10, 0, 0, 52], THEIRS));
        assert_eq!(bench.router().counters.address_conflicts, 3);
    }

    #[test]
    fn an_announcement_read_before_its_advert_is_a_hand_over_and_no_conflict() {
        let peer = "10.0.0.202";
        let strong = advert(&router(51), peer, 200);
        let port = Port { index: ETH0, family: Family::V4 };
        let meta = RxMeta { src: peer.parse().unwrap(), dst: group(Family::V4), ttl: 255 };
        let claimed = || Event::Claimed { index: ETH0, ip: [10, 0, 0, 51].into(), mac: THEIRS };
        let active = || {
            let mut bench = Bench::new(vec![router(51)]);
            bench.pass(Duration::from_secs(10));
            assert_eq!(bench.router().state, "active");
            bench
        };
        // In one turn, whatever was read first.
        let mut bench = active();
        let mut inbox = Inbox::default();
        inbox.event(claimed());
        inbox.packet(port, meta, &strong);
        let mut order = Vec::new();
        inbox.drain(|event| {
            order.push(matches!(event, Event::Claimed { .. }));
            bench.event(event);
        });
        assert_eq!(order, [false, true]);
        assert_eq!(bench.router().state, "backup");
        // And the advert half an interval later than its announcement.
        let mut late = active();
        late.event(claimed());
        late.pass(Duration::from_millis(500));
        late.packet(peer, &strong);
        for bench in [&mut bench, &mut late] {
            bench.pass(Duration::from_secs(2));
            let shown = bench.router();
            assert_eq!((shown.state, shown.counters.address_conflicts), ("backup", 0));
            assert_eq!((shown.conflict, shown.conflicts), (None, Vec::new()));
        }
    }

    #[test]
    fn another_s_claim_is_over_with_the_state_that_it_concerned() {
        let mut bench = Bench::new(vec![router(51)]);
        bench.pass(Duration::from_secs(10));
        claim(&mut bench, [10, 0, 0, 51], THEIRS);
        assert!(bench.router().conflict.is_some());
        bench.packet("10.0.0.202", &advert(&router(51), "10.0.0.202", 200));
        assert_eq!((bench.router().state, bench.router().conflict), ("backup", None));
    }

    #[test]
    fn a_loser_that_yields_is_no_conflict_and_one_that_goes_on_is_named() {
        let mut bench = Bench::new(vec![router(51)]);
        bench.pass(Duration::from_secs(10));
        let weak = advert(&router(51), "10.0.0.202", 50);
        bench.packet("10.0.0.202", &weak);
        hear(&mut bench, [10, 0, 0, 51], THEIRS);
        bench.pass(Duration::from_secs(9));
        assert_eq!(bench.router().conflicts, Vec::<String>::new(), "it yielded");
        let mut told = 0;
        for _ in 0..8 {
            bench.packet("10.0.0.202", &weak);
            let goes_on = |notice: &&Notice| matches!(notice, Notice::DoesNotYield { .. });
            told += bench.actions.notices.iter().filter(goes_on).count();
            bench.pass(Duration::from_secs(1));
        }
        assert_eq!((told, bench.router().state), (1, "active"));
        let conflict = bench.router().conflict.unwrap();
        assert!(conflict.contains("10.0.0.202") && conflict.contains("does not yield"));
        bench.pass(Duration::from_secs(5));
        assert_eq!(bench.router().conflict, None, "it fell silent");
    }

    #[test]
    fn another_who_has_the_address_that_adverts_come_from_is_named() {
        let mut bench = Bench::new(vec![router(51), router(52)]);
        bench.timeout();
        hear(&mut bench, [10, 0, 0, 201], THEIRS);
        let said = |bench: &Bench| {
            let own = |notice: &&Notice| matches!(notice, Notice::OwnAddress { .. });
            bench.actions.notices.iter().filter(own).count()
        };
        assert_eq!(said(&bench), 1, "once for all routers of the interface");
        hear(&mut bench, [10, 0, 0, 201], THEIRS);
        assert_eq!(said(&bench), 0);
        for router in bench.node.status(bench.now).routers {
            let conflict = router.conflict.unwrap();
            assert!(conflict.contains("10.0.0.201") && conflict.contains("02:00:00:00:00:09"));
        }
        bench.pass(Duration::from_secs(91));
        let all = bench.node.status(bench.now).routers;
        assert!(all.iter().all(|router| router.conflict.is_none()));
        hear(&mut bench, [10, 0, 0, 201], Mac([2, 0, 0, 0, 0, 1]));
        assert_eq!(said(&bench), 0, "our own");
    }

    #[test]
    fn an_active_gateway_has_a_vip_that_is_the_backups_own_address() {
        let mut bench = Bench::new(vec![Router { vips: vec![vip(201)], ..router(51) }]);
        bench.timeout();
        assert_eq!(bench.router().source.as_deref(), Some("10.0.0.201"));
        hear(&mut bench, [10, 0, 0, 201], THEIRS);
        let told = |notice: &Notice| matches!(notice, Notice::OwnAddress { .. });
        assert!(!bench.actions.notices.iter().any(told), "{:?}", bench.actions.notices);
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
        assert_eq!(told, [51, 52, 201].map(|last| IpAddr::from([10, 0, 0, last])));
        assert!(changes <= 2, "{changes}");
        bench.configure(vec![router(52)]);
        bench.timeout();
        let [Action::Watch { addresses, .. }] = watched(&bench)[..] else { panic!("not told") };
        assert_eq!(*addresses, [52, 201].map(|last| IpAddr::from([10, 0, 0, last])));
        let more = Router { vips: vec![vip(52), vip(53)], ..router(52) };
        bench.configure(vec![more.clone()]);
        bench.timeout();
        bench.configure(vec![Router { vips: vec![vip(53)], ..more }]);
        bench.timeout();
        let [Action::Watch { addresses, .. }] = watched(&bench)[..] else { panic!("not told") };
        assert_eq!(*addresses, [53, 201].map(|last| IpAddr::from([10, 0, 0, last])));
    }
}
