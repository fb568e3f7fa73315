//! VIPs that are on the box though nobody here is active for them: left by another program, by hand,
//! or by a keepalived that was killed. The kernel answers for them beside the active gateway.

use std::collections::BTreeSet;
use std::net::IpAddr;

use super::entry::{Entry, RouterId};
use super::kernel::Address;
use super::links::{Links, Place};
use super::notice::{NotReady, Notice};
use super::rivals::{StrayVip, judged_after};
use super::router::{State, Waiting};
use super::{Actions, Instant, Node};
use crate::config::Prefix;
use crate::wire::vrrp::Priority;
use crate::wire::{Family, IfIndex};

/// Where VIPs of the configuration are on the box, whoever put them there: on any interface, with
/// any prefix length.
#[derive(Debug, Default)]
pub(super) struct Strays(BTreeSet<(IpAddr, Place)>);

const LOWEST: IpAddr = IpAddr::V4(std::net::Ipv4Addr::UNSPECIFIED);

impl Strays {
    fn note(&mut self, place: Place, links: &Links) {
        let key = (place.1.ip, place);
        match links.address(&place) {
            Some(_) => self.0.insert(key),
            None => self.0.remove(&key),
        };
    }

    fn places(&self, ip: IpAddr) -> impl Iterator<Item = &Place> {
        let from = (ip, (IfIndex(0), Prefix { ip: LOWEST, len: 0 }));
        self.0.range(from..).take_while(move |(of, _)| *of == ip).map(|(_, place)| place)
    }

    pub(super) fn len(&self) -> usize {
        self.0.len()
    }
}

impl Node {
    /// Something happened to an address.
    pub(super) fn stray_touched(&mut self, now: Instant, place: Place, out: &mut Actions) {
        let Some(ids) = self.by_vip.get(&place.1.ip).cloned() else { return };
        self.strays.note(place, &self.links);
        for id in ids {
            self.look_for_strays(now, id, out);
        }
    }

    /// A link went, with its addresses.
    pub(super) fn strays_gone(&mut self, now: Instant, index: IfIndex, out: &mut Actions) {
        let gone: Vec<Place> = self
            .strays
            .0
            .iter()
            .map(|(_, place)| *place)
            .filter(|place| place.0 == index)
            .collect();
        for place in gone {
            self.stray_touched(now, place, out);
        }
    }

    /// Everything may be another than it was: what is on the box, or which VIPs there are.
    pub(super) fn find_strays(&mut self, now: Instant, out: &mut Actions) {
        let places = self.links.addresses().map(|address| (address.index, address.prefix));
        let vips = places.filter(|place| self.by_vip.contains_key(&place.1.ip));
        self.strays = Strays(vips.map(|place| (place.1.ip, place)).collect());
        let ids: Vec<RouterId> = self.entries.keys().copied().collect();
        for id in ids {
            self.look_for_strays(now, id, out);
        }
    }

    /// Finds out whether one of a router's VIPs is on the box though it is not active.
    pub(super) fn look_for_strays(&mut self, now: Instant, id: RouterId, out: &mut Actions) {
        let Some(entry) = self.entries.get(&id) else { return };
        let config = entry.router.config();
        // The owner's VIPs are the box's own addresses (RFC 9568 §1.6).
        let may_have = entry.router.is_active() || config.priority == Priority::OWNER;
        let is_another_s =
            |place: &&Place| self.links.address(place).is_some_and(|a| !self.claims.is_ours(a));
        let vips = config.vips.iter().chain(&config.vips_excluded).filter(|_| !may_have);
        let stray = vips.flat_map(|vip| self.strays.places(vip.ip)).find(is_another_s).copied();
        let Some(entry) = self.entries.get_mut(&id) else { return };
        let known = entry.rivals.stray.filter(|known| Some(known.place) == stray);
        let found = |place| StrayVip { place, since: now, is_told: false };
        entry.rivals.stray = known.or_else(|| stray.map(found));
        self.tell_stray(now, id, out);
        self.retime(id);
    }

    /// Says so, once it was true for long enough.
    pub(super) fn tell_stray(&mut self, now: Instant, id: RouterId, out: &mut Actions) {
        let Some(entry) = self.entries.get_mut(&id) else { return };
        if entry.stray_at().is_none_or(|at| now < at) {
            return;
        }
        let Some(stray) = &mut entry.rivals.stray else { return };
        stray.is_told = true;
        let place = stray.place;
        let Some(entry) = self.entries.get(&id) else { return };
        let Some(link) = self.links.link(place.0) else { return };
        let (router, interface) = (entry.router.config().name.clone(), link.name.clone());
        let is_own = self.is_its_own(entry, &place);
        self.notice(now, Notice::Stray { router, address: place.1, interface, is_own }, out);
    }

    /// Whether a stray VIP is, as far as can be seen, an address that the box itself needs: the one
    /// that adverts are sent from, or the only one in its subnet.
    pub(super) fn is_its_own(&self, entry: &Entry, place: &Place) -> bool {
        let (config, (index, prefix)) = (entry.router.config(), *place);
        let is_ours = |address: &Address| self.claims.is_ours(address);
        // Before the first turn of the router no source has been chosen yet.
        let chosen = || Some(self.links.source(index, config, None, is_ours)?.ip);
        if entry.source.or_else(chosen) == Some(prefix.ip) {
            return true;
        }
        let Some(address) = self.links.address(place) else { return false };
        let family = Family::of(&prefix.ip);
        // Of IPv4 addresses, adverts are sent from one of the box's own; with no subnet, and for
        // ever, is how other programs put VIPs.
        let is_bare = prefix == Prefix::host(prefix.ip) && address.permanent;
        if (family, config.family) == (Family::V4, Family::V4) || is_bare {
            return false;
        }
        // What a DHCPv6 server leases has no subnet.
        let subnet = Prefix { ip: prefix.ip, len: prefix.len.min(64) };
        let serves = |other: &Address| {
            let ip = other.prefix.ip;
            Family::of(&ip) == family
                && ip != prefix.ip
                && subnet.contains(&ip)
                && !(other.secondary || other.tentative || is_ours(other) || self.is_vip(&ip))
        };
        !self.links.in_order(index).any(|(_, other)| serves(other))
    }

    /// Whether an address is a VIP that no router here owns.
    fn is_vip(&self, ip: &IpAddr) -> bool {
        let priority = |id| self.entries.get(id).map(|entry| entry.router.config().priority);
        let ids = self.by_vip.get(ip).into_iter().flatten();
        ids.filter_map(priority).any(|priority| priority != Priority::OWNER)
    }
}

impl Entry {
    /// When a VIP of another on this box is to be told: not while this router is about to become
    /// active, as it may have it then.
    pub(super) fn stray_at(&self) -> Option<Instant> {
        let stray = self.rivals.stray.filter(|stray| !stray.is_told)?;
        let config = self.router.config();
        let wait = judged_after(config);
        let at = stray.since + wait;
        match self.router.state() {
            State::Active { .. } => None,
            State::Backup { waiting: Waiting::Accepted | Waiting::Guarded, .. } => Some(at),
            // Another is active until then.
            State::Backup { waiting: Waiting::Preempting, .. }
                if !config.preempt_delay.is_zero() =>
            {
                Some(at)
            }
            State::Backup {
                active_down_at,
                waiting:
                    Waiting::Silence | Waiting::Resigned | Waiting::Preempting | Waiting::Overslept,
                ..
            } => Some(at.max(active_down_at + wait)),
            State::Initialize => match self.not_ready {
                None | Some(NotReady::Starting | NotReady::SocketsOpening) => None,
                Some(_) => Some(at),
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::super::Event;
    use super::super::kernel::{Change, IFA_PROTO_HAVIP, Link, Snapshot};
    use super::super::testing::{Bench, ETH0, address, advert, link, router};
    use super::*;
    use crate::config::{IfName, Router};
    use crate::node::testing::priority;

    const PEER: &str = "10.0.0.202";
    const ETH1: IfIndex = IfIndex(7);

    fn change(bench: &mut Bench, change: Change) {
        bench.event(Event::Kernel(change));
    }

    /// What is told of strays while another is active for as long as that takes.
    fn told(bench: &mut Bench, router: &Router) -> Vec<String> {
        let six = router.family == Family::V6;
        let peer = if six { "fe80::ca" } else { PEER };
        bench.packet(peer, &advert(router, peer, 200));
        until(bench, Duration::from_millis(1_200))
    }

    /// What is told of them within a time.
    fn until(bench: &mut Bench, time: Duration) -> Vec<String> {
        let mut told = Vec::new();
        let end = bench.now + time;
        loop {
            let strays = bench.actions.notices.iter();
            let strays = strays.filter(|notice| matches!(notice, Notice::Stray { .. }));
            told.extend(strays.map(ToString::to_string));
            bench.settle();
            let Some(at) = bench.node.next_deadline().filter(|at| *at <= end) else { break };
            bench.now = bench.now.max(at);
            bench.timeout();
        }
        bench.now = end;
        told
    }

    fn backup(router: &Router) -> Bench {
        let mut bench = Bench::new(vec![router.clone()]);
        let other = Link { name: IfName::new("eth1").unwrap(), ..link(ETH1) };
        change(&mut bench, Change::Link(other));
        bench.packet(PEER, &advert(router, PEER, 200));
        bench
    }

    #[test]
    fn nobody_is_told_to_remove_the_boxs_only_address_at_the_start() {
        let own = Prefix { ip: [10, 0, 0, 201].into(), len: 24 };
        let router = Router { vips: vec![own], ..router(51) };
        let mut bench = Bench::on(&[("10.0.0.201", 24, false)], vec![]);
        bench.configure(vec![router.clone()]);
        bench.settle();
        let told = told(&mut bench, &router);
        assert!(told.len() == 1 && !told[0].contains("ip addr del"), "{told:?}");
    }

    #[test]
    fn a_vip_on_a_backup_is_named_with_the_command_that_removes_it_wherever_it_is() {
        for (index, name) in [(ETH0, "eth0"), (ETH1, "eth1")] {
            for len in [0, 24, 32] {
                let mut bench = backup(&router(51));
                let stray = Address { index, ..address("10.0.0.51", len, false) };
                change(&mut bench, Change::Address(stray));
                assert_eq!(bench.router().conflict, None, "not at once");
                assert_eq!(told(&mut bench, &router(51)).len(), 1);
                change(&mut bench, Change::Address(stray));
                assert_eq!(told(&mut bench, &router(51)).len(), 0, "said once");
                let conflict = bench.router().conflict.unwrap();
                let command = format!("ip addr del 10.0.0.51/{len} dev {name}");
                assert!(conflict.contains(&command), "{conflict}");
                let gone = match index {
                    ETH0 => Change::AddressGone { index, prefix: stray.prefix },
                    _ => Change::LinkGone(index),
                };
                change(&mut bench, gone);
                assert_eq!(bench.router().conflict, None);
                assert_eq!(told(&mut bench, &router(51)).len(), 0);
            }
        }
    }

    #[test]
    fn what_is_known_of_a_link_that_no_dump_had_ends_with_it() {
        // Reported before its end, and read after a dump that was made after its end.
        let mut bench = backup(&router(51));
        let index = IfIndex(9);
        for proto in [0, IFA_PROTO_HAVIP] {
            let late = Address { index, proto, ..address("10.0.0.51", 32, false) };
            change(&mut bench, Change::Address(late));
            assert_eq!(bench.node.strays.len(), 1);
            bench.settle();
            change(&mut bench, Change::LinkGone(index));
            assert_eq!(
                (bench.node.strays.len(), bench.node.links.with_ip(index, late.prefix.ip).count()),
                (0, 0)
            );
        }
    }

    #[test]
    fn what_is_there_when_a_router_gives_up_or_is_configured_is_found() {
        let stray = address("10.0.0.51", 24, false);
        let mut bench = Bench::new(vec![router(51)]);
        bench.pass(Duration::from_secs(5));
        assert_eq!(bench.router().state, "active");
        change(&mut bench, Change::Address(stray));
        assert_eq!(until(&mut bench, Duration::from_secs(9)).len(), 0, "it may have it");
        assert_eq!(told(&mut bench, &router(51)).len(), 1);
        assert!(bench.router().conflict.is_some_and(|why| why.contains("10.0.0.51/24")));

        let own = address("10.0.0.201", 24, false);
        let mut bench = backup(&router(51));
        let all = Snapshot { links: vec![link(ETH0)], addresses: vec![own, stray] };
        bench.event(Event::Kernel(Change::Overrun));
        bench.timeout();
        bench.event(Event::Dumped(Ok(all)));
        told(&mut bench, &router(51));
        assert!(bench.router().conflict.is_some());
        bench.configure(vec![Router {
            vips: vec![Prefix::host([10, 0, 0, 52].into())],
            ..router(51)
        }]);
        assert_eq!(bench.router().conflict, None, "no VIP any more");
        bench.configure(vec![router(51)]);
        told(&mut bench, &router(51));
        assert!(bench.router().conflict.is_some());
    }

    #[test]
    fn a_router_that_is_about_to_be_active_has_no_stray() {
        // Nobody is heard: what is there is announced.
        let stray = ("10.0.0.51", 24, false);
        let mut bench = Bench::on(&[("10.0.0.201", 24, false), stray], vec![router(51)]);
        assert_eq!(until(&mut bench, Duration::from_secs(9)), [] as [String; 0]);
        assert_eq!(bench.router().state, "active");
        // The same when another interface is configured, where a weaker gateway is active.
        let on = [("10.0.0.201", 24, false), stray];
        let elsewhere = Router { interface: IfName::new("eth1").unwrap(), ..router(51) };
        let mut bench = Bench::on(&on, vec![elsewhere]);
        bench.configure(vec![router(51)]);
        bench.settle();
        for _ in 0..8 {
            bench.packet(PEER, &advert(&router(51), PEER, 50));
            assert_eq!(until(&mut bench, Duration::from_secs(1)), [] as [String; 0]);
        }
        assert_eq!(bench.router().state, "active");
        // One that may not become active for a while has it beside the active one.
        let patient = Router { preempt_delay: Duration::from_secs(300), ..router(51) };
        let mut bench = Bench::on(&on, vec![patient]);
        bench.packet(PEER, &advert(&router(51), PEER, 50));
        assert_eq!(until(&mut bench, Duration::from_secs(2)).len(), 1);
    }

    #[test]
    fn the_address_that_adverts_come_from_is_not_to_be_removed() {
        let vips = vec![Prefix::host([10, 0, 0, 201].into())];
        let router = Router { vips, ..router(51) };
        let mut bench = Bench::new(vec![router.clone()]);
        told(&mut bench, &router);
        let conflict = bench.router().conflict.unwrap();
        assert!(conflict.contains("priority 255") && !conflict.contains("ip addr del"));
    }

    #[test]
    fn the_boxs_only_ipv6_address_of_a_subnet_is_not_to_be_removed() {
        let six = |vips: [&str; 2]| {
            let vips = vips.map(|ip| Prefix::host(ip.parse().unwrap()));
            Router { family: Family::V6, vips: vips.to_vec(), ..router(51) }
        };
        let global = six(["fe80::51", "2001:db8::51"]);
        let four = Router { vips_excluded: global.vips.clone(), ..router(51) };
        let bare = |ip| address(ip, 128, false);
        let net = |ip| address(ip, 64, false);
        let local = address("fe80::c9", 64, true);
        let temporary = Address { secondary: true, ..net("2001:db8::7") };
        let leased = Address { permanent: false, ..bare("2001:db8::51") };
        for (router, stray, others, is_own) in [
            (&global, net("2001:db8::51"), vec![], true),
            (&global, net("2001:db8::51"), vec![net("2001:db8:7::5")], true),
            (&global, net("2001:db8::51"), vec![temporary], true),
            (&global, net("2001:db8::51"), vec![net("2001:db8::5")], false),
            (&global, net("2001:db8::51"), vec![bare("2001:db8::5")], false),
            (&global, bare("2001:db8::51"), vec![], false),
            (&global, bare("2001:db8::51"), vec![net("2001:db8::5")], false),
            (&global, leased, vec![], true),
            (&global, leased, vec![net("2001:db8::5")], false),
            (&global, address("fe80::51", 64, true), vec![], false),
            (&four, net("2001:db8::51"), vec![], true),
            (&four, net("2001:db8::51"), vec![net("2001:db8::5")], false),
        ] {
            let mut bench = Bench::new(vec![router.clone()]);
            for other in [local, stray].into_iter().chain(others.clone()) {
                change(&mut bench, Change::Address(other));
            }
            let told = told(&mut bench, router);
            assert_eq!(told.len(), 1, "{stray} beside {others:?}: {told:?}");
            assert_eq!(!told[0].contains("ip addr del"), is_own, "{stray} beside {others:?}");
            let shown = bench.router().conflict.unwrap();
            assert_eq!(!shown.contains("ip addr del"), is_own, "{shown}");
        }
        // Both of a subnet are VIPs: none of them is to be removed.
        let both = six(["fe80::51", "2001:db8::51"]);
        let both =
            Router { vips: [&both.vips[..], &[net("2001:db8::52").prefix]].concat(), ..both };
        let mut bench = Bench::new(vec![both.clone()]);
        for own in ["2001:db8::51", "2001:db8::52"] {
            change(&mut bench, Change::Address(net(own)));
        }
        assert!(told(&mut bench, &both).iter().all(|told| !told.contains("ip addr del")));
    }

    #[test]
    fn an_owner_s_address_is_his_own() {
        let owner = Router { priority: priority(255), ..router(51) };
        let mut bench = Bench::new(vec![owner.clone()]);
        bench.packet(PEER, &advert(&owner, PEER, 255));
        assert_eq!(bench.router().state, "backup");
        change(&mut bench, Change::Address(address("10.0.0.51", 24, false)));
        assert_eq!(told(&mut bench, &owner).len(), 0);
        assert_eq!(bench.router().conflict, None);
    }
}
