//! VIPs that are on the box though nobody here is active for them: left by another program, by hand,
//! or by a keepalived that was killed. The kernel answers for them beside the active gateway.

use std::collections::BTreeSet;
use std::net::IpAddr;

use super::entry::RouterId;
use super::kernel::Address;
use super::links::{Links, Place};
use super::notice::Notice;
use super::{Actions, Instant, Node};
use crate::config::Prefix;
use crate::wire::IfIndex;
use crate::wire::vrrp::Priority;

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
        let router = config.name.clone();
        // Before the first turn of the router no source has been chosen yet.
        let own_of = |place: Place| {
            let is_ours = |address: &Address| self.claims.is_ours(address);
            let chosen = || Some(self.links.source(place.0, config, None, is_ours)?.ip);
            entry.source.or_else(chosen)
        };
        let is_own = stray.is_some_and(|place| own_of(place) == Some(place.1.ip));
        let Some(entry) = self.entries.get_mut(&id) else { return };
        let before = std::mem::replace(&mut entry.rivals.stray, stray);
        let Some(place) = stray.filter(|_| stray != before) else { return };
        let Some(link) = self.links.link(place.0) else { return };
        let interface = link.name.clone();
        self.notice(now, Notice::Stray { router, address: place.1, interface, is_own }, out);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::super::Event;
    use super::super::kernel::{Change, Link, Snapshot};
    use super::super::testing::{Bench, ETH0, address, advert, link, router};
    use super::*;
    use crate::config::{IfName, Router};
    use crate::node::testing::priority;

    const PEER: &str = "10.0.0.202";
    const ETH1: IfIndex = IfIndex(7);

    fn change(bench: &mut Bench, change: Change) -> usize {
        bench.event(Event::Kernel(change));
        let said = |notice: &&Notice| matches!(notice, Notice::Stray { .. });
        bench.actions.notices.iter().filter(said).count()
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
        let mut bench = Bench::on(&[("10.0.0.201", 24, false)], vec![]);
        bench.configure(vec![Router { vips: vec![own], ..router(51) }]);
        let told = |notice: &&Notice| matches!(notice, Notice::Stray { is_own: true, .. });
        assert_eq!(bench.actions.notices.iter().filter(told).count(), 1);
    }

    #[test]
    fn a_vip_on_a_backup_is_named_with_the_command_that_removes_it_wherever_it_is() {
        for (index, name) in [(ETH0, "eth0"), (ETH1, "eth1")] {
            for len in [0, 24, 32] {
                let mut bench = backup(&router(51));
                let stray = Address { index, ..address("10.0.0.51", len, false) };
                assert_eq!(change(&mut bench, Change::Address(stray)), 1);
                assert_eq!(change(&mut bench, Change::Address(stray)), 0, "said once");
                let conflict = bench.router().conflict.unwrap();
                let command = format!("ip addr del 10.0.0.51/{len} dev {name}");
                assert!(conflict.contains(&command), "{conflict}");
                let gone = match index {
                    ETH0 => Change::AddressGone { index, prefix: stray.prefix },
                    _ => Change::LinkGone(index),
                };
                assert_eq!(change(&mut bench, gone), 0);
                assert_eq!(bench.router().conflict, None);
            }
        }
    }

    #[test]
    fn what_is_there_when_a_router_gives_up_or_is_configured_is_found() {
        let stray = address("10.0.0.51", 24, false);
        let mut bench = Bench::new(vec![router(51)]);
        bench.pass(Duration::from_secs(5));
        assert_eq!(bench.router().state, "active");
        assert_eq!(change(&mut bench, Change::Address(stray)), 0, "it may have it");
        bench.packet(PEER, &advert(&router(51), PEER, 200));
        assert!(bench.router().conflict.is_some_and(|why| why.contains("10.0.0.51/24")));

        let own = address("10.0.0.201", 24, false);
        let mut bench = backup(&router(51));
        let all = Snapshot { links: vec![link(ETH0)], addresses: vec![own, stray] };
        bench.event(Event::Kernel(Change::Overrun));
        bench.timeout();
        bench.event(Event::Dumped(Ok(all)));
        assert!(bench.router().conflict.is_some());
        bench.configure(vec![Router {
            vips: vec![Prefix::host([10, 0, 0, 52].into())],
            ..router(51)
        }]);
        assert_eq!(bench.router().conflict, None, "no VIP any more");
        bench.configure(vec![router(51)]);
        assert!(bench.router().conflict.is_some());
    }

    #[test]
    fn the_address_that_adverts_come_from_is_not_to_be_removed() {
        let vips = vec![Prefix::host([10, 0, 0, 201].into())];
        let bench = Bench::new(vec![Router { vips, ..router(51) }]);
        let conflict = bench.router().conflict.unwrap();
        assert!(conflict.contains("priority 255") && !conflict.contains("ip addr del"));
    }

    #[test]
    fn an_owner_s_address_is_his_own() {
        let owner = Router { priority: priority(255), ..router(51) };
        let mut bench = Bench::new(vec![owner.clone()]);
        bench.packet(PEER, &advert(&owner, PEER, 255));
        assert_eq!(bench.router().state, "backup");
        assert_eq!(change(&mut bench, Change::Address(address("10.0.0.51", 24, false))), 0);
        assert_eq!(bench.router().conflict, None);
    }
}
