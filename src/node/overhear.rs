//! Peers whose adverts the IP layer keeps back: over IPv4, Linux takes a packet that comes from an
//! address of this box for a forgery. So it goes with the owner of an address (priority 255) while
//! a backup of his holds it, and with two boxes that have the same address.
//!
//! Where that may be, the packet socket that hears who else claims a VIP hears adverts as well. It
//! costs each packet that the box forwards a look, so it does so for routers only of which there
//! is a sign, and only while their adverts do not come as they should.

use std::net::IpAddr;

use super::entry::{Entry, RouterId};
use super::event::Actions;
use super::kernel::{Address, Port};
use super::router::State;
use super::{Instant, Node};
use crate::wire::ip::parse_unchecked_ipv4;
use crate::wire::vrrp::{Priority, Vrid, group};
use crate::wire::{Family, IfIndex, Mac};

/// What speaks for it that someone's adverts come from an address of a router.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Shadow {
    /// Nothing.
    None,
    /// Someone else says that the address is his.
    Claimed,
    /// One came.
    Heard,
}

impl Entry {
    /// Whether an advert through the IP layer says nothing about where others are heard.
    pub(super) fn is_delivered(&self) -> bool {
        self.shadow != Shadow::Claimed && (self.delivered || self.router.is_active())
    }
}

impl Node {
    /// A VRRP packet as it came off the wire.
    pub(super) fn overheard(
        &mut self,
        now: Instant,
        index: IfIndex,
        mac: Mac,
        bytes: &[u8],
        out: &mut Actions,
    ) {
        // What the IP layer would not deliver for another reason counts for nothing here either.
        let Ok((meta, message)) = parse_unchecked_ipv4(bytes) else { return };
        let is_for_us = meta.dst == group(Family::V4) || self.links.has_ip(&meta.dst);
        // What it does deliver comes through the port's own socket.
        if is_for_us && self.links.has_ip(&meta.src) {
            let port = Port { index, family: Family::V4 };
            self.packet(now, port, &meta, message, Some(mac), out);
        }
    }

    /// There is a sign of it that someone's adverts come from an address of this router.
    pub(super) fn shadowed(&mut self, id: RouterId, shadow: Shadow) {
        let Some(entry) = self.entries.get_mut(&id) else { return };
        if entry.shadow < shadow {
            entry.shadow = shadow;
            self.watches.stale_of(entry.link);
        }
    }

    /// An advert of this router came from `src` through the IP layer.
    pub(super) fn delivered(&mut self, id: RouterId, src: IpAddr) {
        let Some(entry) = self.entries.get_mut(&id) else { return };
        let is_new = !entry.router.is_active() && !std::mem::replace(&mut entry.delivered, true);
        if is_new && entry.shadow != Shadow::None {
            self.watches.stale_of(entry.link);
        }
        // Whoever took over announces the addresses, and may be heard by that first.
        if entry.shadow == Shadow::Claimed {
            entry.shadow = Shadow::None;
            self.watches.stale_of(entry.link);
        }
        if entry.shadow == Shadow::None {
            let config = entry.router.config();
            if config.vips.iter().chain(&config.vips_excluded).any(|vip| vip.ip == src) {
                self.shadowed(id, Shadow::Heard);
            }
        }
    }

    /// Whether to listen for packets of this router that the IP layer keeps back, and where.
    pub(super) fn overhears(&self, entry: &Entry) -> Option<(Port, Vrid)> {
        let config = entry.router.config();
        let listens = match entry.router.state() {
            State::Initialize => false,
            State::Backup { .. } => !entry.delivered,
            State::Active { .. } => true,
        };
        if !listens || config.family != Family::V4 {
            return None;
        }
        let port = Port { index: entry.link?, family: Family::V4 };
        // An owner of more than he has may meet another owner, whose address he then has.
        let is_owner = config.priority == Priority::OWNER;
        let ours = |address: &Address| self.claims.is_ours(address);
        let has = |ip: &IpAddr| self.links.has_source(port.index, ip, ours);
        let owns_more = || config.vips.iter().any(|vip| !has(&vip.ip));
        let may_be = entry.shadow != Shadow::None || (is_owner && owns_more());
        may_be.then_some((port, config.vrid))
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;
    use std::time::Duration;

    use super::super::testing::{Bench, ETH0, advert, router};
    use super::super::{Action, Event};
    use super::*;
    use crate::config::{Prefix, Router};
    use crate::wire::ip::ipv4_header;
    use crate::wire::vrrp::PROTOCOL;

    const THEIRS: Mac = Mac([2, 0, 0, 0, 0, 9]);
    const OURS: Mac = Mac([2, 0, 0, 0, 0, 1]);
    const VIP: [u8; 4] = [10, 0, 0, 51];

    /// An advert of priority 255 that comes from the VIP, as a whole packet.
    fn packet(priority: u8, change: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
        let message = advert(&router(51), "10.0.0.51", priority);
        let mut bytes = Vec::new();
        let to = Ipv4Addr::new(224, 0, 0, 18);
        ipv4_header(VIP.into(), to, PROTOCOL, message.len() as u16, &mut bytes);
        bytes.extend(message);
        change(&mut bytes);
        bytes
    }

    fn overhear(bench: &mut Bench, mac: Mac, bytes: Vec<u8>) {
        bench.event(Event::Overheard { index: ETH0, mac, bytes });
    }

    /// The virtual routers that the sockets are told of now, if they are told of any.
    fn told(bench: &mut Bench) -> Option<Vec<u8>> {
        bench.timeout();
        let told = bench.actions.kernel.iter().rev().find_map(|action| match action {
            Action::Watch { vrids, .. } => Some(vrids.iter().map(|vrid| vrid.number()).collect()),
            _ => None,
        });
        bench.settle();
        told
    }

    fn active() -> Bench {
        let mut bench = Bench::new(vec![router(51)]);
        bench.pass(Duration::from_secs(5));
        assert_eq!(bench.router().state, "active");
        bench
    }

    #[test]
    fn an_owner_whose_address_this_box_holds_is_heard_and_obeyed() {
        let mut bench = active();
        overhear(&mut bench, THEIRS, packet(255, |_| {}));
        assert_eq!(bench.router().state, "backup");
        assert_eq!(bench.router().counters.adverts_received, 1);
    }

    #[test]
    fn what_the_ip_layer_refuses_or_delivers_counts_for_nothing_and_our_own_is_counted() {
        let mut bench = active();
        let before = bench.router();
        for bytes in [
            packet(255, |bytes| bytes[10] ^= 1),
            packet(255, |bytes| bytes[6] = 0x20),
            packet(255, |bytes| bytes.truncate(30)),
            packet(255, Vec::clear),
        ] {
            overhear(&mut bench, THEIRS, bytes);
        }
        // Not from an address of this box.
        let mut other = advert(&router(51), "10.0.0.9", 255);
        let mut bytes = Vec::new();
        let to = Ipv4Addr::new(224, 0, 0, 18);
        ipv4_header([10, 0, 0, 9].into(), to, PROTOCOL, other.len() as u16, &mut bytes);
        bytes.append(&mut other);
        overhear(&mut bench, THEIRS, bytes);
        assert_eq!(bench.router(), before);
        overhear(&mut bench, OURS, packet(255, |_| {}));
        let after = bench.router();
        assert_eq!((after.state, after.counters.own_packets), ("active", 1));
        overhear(&mut bench, THEIRS, packet(255, |bytes| bytes[8] = 254));
        // Its header's sum is wrong now; with a right one the TTL is.
        assert_eq!(bench.router().state, "active");
    }

    #[test]
    fn it_listens_for_routers_of_which_there_is_a_sign_and_while_nothing_comes_as_it_should() {
        let mut bench = active();
        assert_eq!(told(&mut bench), None, "no sign, no cost");
        bench.event(Event::Claimed { index: ETH0, ip: VIP.into(), mac: THEIRS });
        assert_eq!(told(&mut bench), Some(vec![51]));
        overhear(&mut bench, THEIRS, packet(255, |_| {}));
        assert_eq!(bench.router().state, "backup");
        // The address is gone here, and what comes is delivered.
        assert_eq!(told(&mut bench), Some(vec![51]));
        bench.packet("10.0.0.51", &advert(&router(51), "10.0.0.51", 255));
        assert_eq!(told(&mut bench), Some(vec![]));
        bench.pass(Duration::from_secs(5));
        assert_eq!(bench.router().state, "active");
        overhear(&mut bench, THEIRS, packet(255, |_| {}));
        assert_eq!(bench.router().state, "backup", "it listened from the first moment");
    }

    #[test]
    fn a_claim_of_a_peer_whose_adverts_come_as_they_should_is_no_sign() {
        let mut bench = active();
        bench.event(Event::Claimed { index: ETH0, ip: VIP.into(), mac: THEIRS });
        assert_eq!(told(&mut bench), Some(vec![51]));
        bench.packet("10.0.0.9", &advert(&router(51), "10.0.0.9", 200));
        assert_eq!(told(&mut bench), Some(vec![]));
        bench.packet("10.0.0.9", &advert(&router(51), "10.0.0.9", 0));
        bench.pass(Duration::from_secs(5));
        assert_eq!(bench.router().state, "active");
        assert_eq!(told(&mut bench), None);
    }

    #[test]
    fn an_advert_that_comes_from_a_vip_is_a_sign_and_so_is_owning_what_one_does_not_have() {
        let mut bench = Bench::new(vec![router(51)]);
        bench.packet("10.0.0.51", &advert(&router(51), "10.0.0.51", 255));
        let mut last = None;
        while bench.router().state != "active" {
            bench.now = bench.now.max(bench.node.next_deadline().unwrap());
            last = told(&mut bench).or(last);
        }
        assert_eq!(last, Some(vec![51]));
        let owner = |vips: &[&str]| Router {
            priority: Priority::OWNER,
            vips: vips.iter().map(|ip| Prefix::host(ip.parse().unwrap())).collect(),
            ..router(51)
        };
        let mut bench = Bench::new(vec![owner(&["10.0.0.201"])]);
        bench.pass(Duration::from_secs(5));
        assert_eq!(told(&mut bench), None, "he has it, and nobody else should");
        let mut bench = Bench::on(&[("10.0.0.201", 24, false)], vec![]);
        bench.configure(vec![owner(&["10.0.0.201", "10.0.0.202"])]);
        let mut all = Vec::new();
        for action in std::mem::take(&mut bench.actions.kernel) {
            if let Action::Open(port) = action {
                bench.event(Event::Opened { port, result: Ok(()) });
            }
        }
        all.extend(told(&mut bench));
        assert_eq!(all, [[51]]);
    }
}
