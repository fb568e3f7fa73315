//! The way of a received packet: RFC 9568 §7.1, then who it is for, then what it means.

use std::net::IpAddr;
use std::time::Duration;

use super::entry::RouterId;
use super::notice::{Difference, Mismatch};
use super::rivals::Misconfigured;
use super::router::{Heard, Input};
use super::{Actions, Instant, Node, Notice};
use crate::wire::Mac;
use crate::wire::ip::TTL;
use crate::wire::vrrp::{
    Advert, Auth, Discard, Packet, RxMeta, Version, active_down_interval, group,
};

use super::kernel::Port;

impl Node {
    pub(super) fn malformed(&mut self, now: Instant, port: Port, out: &mut Actions) {
        if self.ports.is_wanted(port) {
            self.ports.counters(port).malformed += 1;
            self.discarded_notice(now, port, None, Discard::PacketLength, out);
        }
    }

    pub(super) fn packet(
        &mut self,
        now: Instant,
        port: Port,
        meta: &RxMeta,
        bytes: &[u8],
        overheard: Option<Mac>,
        out: &mut Actions,
    ) {
        if !self.ports.is_wanted(port) {
            return;
        }
        let packet = match Packet::new(bytes) {
            Ok(packet) => packet,
            Err(reason) => return self.discarded(now, port, meta.src, reason, out),
        };
        let header = packet.header();
        let is_unicast = meta.dst != group(port.family);
        if is_unicast {
            let counter = &mut self.ports.counters(port).unicast;
            *counter = counter.saturating_add(1);
        }
        let Some(id) = self.by_vrid.get(&(port, header.vrid)).copied() else {
            let counter = &mut self.ports.counters(port).unknown_vrid;
            *counter = counter.saturating_add(1);
            return;
        };
        let Some(entry) = self.entries.get_mut(&id) else { return };
        // RFC 9568 has no word for it: our own advert came back, or another uses our address. Which
        // of them it is tells its MAC, where that is known.
        let is_own = match overheard {
            Some(mac) => self.links.has_mac(mac),
            None => entry.source == Some(meta.src),
        };
        if is_own {
            entry.counters.own_packets += 1;
            return;
        }
        if is_unicast {
            // Whoever sends such does not hear what goes to the group. Over IPv6, keepalived sends
            // it with Hop Limit 64, so that its source has to show that it is from this link.
            let is_near = self.links.shares_64(port.index, meta.src);
            let meta = if is_near { &RxMeta { ttl: TTL, ..*meta } } else { meta };
            return match packet.check(meta) {
                Ok(advert) => {
                    self.mismatched(now, id, meta.src, &advert, Mismatch::Unicast, out);
                }
                Err(reason) => self.discarded(now, port, meta.src, reason, out),
            };
        }
        if overheard.is_none() {
            self.delivered(id, meta.src);
        }
        let Some(entry) = self.entries.get_mut(&id) else { return };
        if let Some(heard) = entry.usual(meta, bytes) {
            entry.note_heard(now, heard);
            return self.input(now, id, Input::Advert(heard), out);
        }
        let config = entry.router.config().clone();
        if header.version != config.version {
            entry.counters.version_errors += 1;
            if let Ok(advert) = packet.check(meta) {
                self.mismatched(now, id, meta.src, &advert, Mismatch::Version(header.version), out);
            }
            return;
        }
        let advert = match packet.check(meta) {
            Ok(advert) => advert,
            Err(reason) => return self.discarded(now, port, meta.src, reason, out),
        };
        if let Some(sent) = differing_auth(entry.auth(), &advert) {
            entry.counters.auth_errors += 1;
            self.mismatched(now, id, meta.src, &advert, Mismatch::Auth(sent), out);
            return;
        }
        if advert.interval != config.advert_interval {
            entry.counters.interval_errors += 1;
            if config.version == Version::V2 {
                // RFC 3768 §7.1: the packet MUST be discarded.
                let mismatch = Mismatch::Interval(advert.interval);
                self.mismatched(now, id, meta.src, &advert, mismatch, out);
                return;
            }
        }
        self.accepted(now, id, meta, bytes, &advert, out);
    }

    /// An advert that takes part in the election.
    fn accepted(
        &mut self,
        now: Instant,
        id: RouterId,
        meta: &RxMeta,
        bytes: &[u8],
        advert: &Advert<'_>,
        out: &mut Actions,
    ) {
        let Some(entry) = self.entries.get_mut(&id) else { return };
        let config = entry.router.config().clone();
        let name = &config.name;
        let src = meta.src;
        let heard = Heard { src, priority: advert.priority, interval: advert.interval };
        entry.note_heard(now, heard);
        let noted = advert.sum.map(|sum| entry.note_sum(src, sum)).unwrap_or_default();
        // What an active router would say at its end has another sum, too.
        out.states_changed |= noted.changed && entry.router.is_active();
        let other_addresses = !advert.addresses().eq(config.vips.iter().map(|prefix| prefix.ip));
        if other_addresses {
            entry.counters.address_list_errors += 1;
        }
        // RFC 9568 §7.1 SHOULD log: but the packet is kept.
        let what = if advert.interval != config.advert_interval {
            Some(Difference::Interval(advert.interval))
        } else if other_addresses {
            Some(Difference::Addresses)
        } else {
            None
        };
        // A password is not compared as plain bytes are, nor kept.
        let plain = what.is_none() && advert.auth == Auth::None;
        entry.note_usual(plain, meta, bytes, heard);
        if let Some(what) = what {
            self.notice(now, Notice::Differs { router: name.clone(), src, what }, out);
        }
        if noted.mixed {
            self.notice(now, Notice::ChecksumForms { router: name.clone() }, out);
        }
        self.input(now, id, Input::Advert(heard), out);
    }

    /// An advert for a VRID of ours that is configured otherwise.
    fn mismatched(
        &mut self,
        now: Instant,
        id: RouterId,
        src: IpAddr,
        advert: &Advert<'_>,
        mismatch: Mismatch,
        out: &mut Actions,
    ) {
        let Some(entry) = self.entries.get_mut(&id) else { return };
        let config = entry.router.config();
        let ours =
            advert.addresses().any(|address| config.vips.iter().any(|prefix| prefix.ip == address));
        if ours {
            entry.counters.misconfigured += 1;
            let heard = Heard { src, priority: advert.priority, interval: advert.interval };
            let interval = config.advert_interval.max(heard.interval);
            let silence = match heard.priority {
                0 => Duration::ZERO,
                _ => active_down_interval(config.version, config.priority, interval),
            };
            entry.rivals.misconfigured =
                Some(Misconfigured { src, mismatch, until: now + silence });
            self.input(now, id, Input::Misconfigured(heard), out);
        } else {
            entry.counters.foreign_cluster += 1;
            let router = config.name.clone();
            self.notice(now, Notice::ForeignCluster { router, src }, out);
        }
    }

    /// Says that a misconfigured advert was heard.
    pub(super) fn guarding(&mut self, now: Instant, id: RouterId, out: &mut Actions) {
        let Some(entry) = self.entries.get(&id) else { return };
        let Some(Misconfigured { src, mismatch, .. }) = entry.rivals.misconfigured else { return };
        let router = entry.router.config().name.clone();
        let backup = !entry.router.is_active();
        self.notice(now, Notice::Misconfigured { router, src, mismatch, backup }, out);
    }

    fn discarded(
        &mut self,
        now: Instant,
        port: Port,
        src: IpAddr,
        reason: Discard,
        out: &mut Actions,
    ) {
        let counter = self.ports.counters(port).discarded.entry(reason).or_default();
        *counter = counter.saturating_add(1);
        self.discarded_notice(now, port, Some(src), reason, out);
    }

    fn discarded_notice(
        &mut self,
        now: Instant,
        port: Port,
        src: Option<IpAddr>,
        reason: Discard,
        out: &mut Actions,
    ) {
        let Some(link) = self.links.link(port.index) else { return };
        let interface = link.name.clone();
        let counters = self.ports.counters(port);
        let count = counters.discarded.get(&reason).copied().unwrap_or(counters.malformed);
        let family = port.family;
        self.notice(now, Notice::Discarded { interface, family, src, reason, count }, out);
    }
}

/// What the advert authenticates with, if that is not what this router does. The password is
/// compared without a hint of where it differs.
fn differing_auth(own: Auth, advert: &Advert<'_>) -> Option<&'static str> {
    match (own, advert.auth) {
        (Auth::None, Auth::None) => None,
        (Auth::Simple(own), Auth::Simple(theirs)) => {
            let differing = own.iter().zip(&theirs).fold(0, |bits, (a, b)| bits | (a ^ b));
            (differing != 0).then_some("another password")
        }
        (_, Auth::None) => Some("no authentication"),
        (_, Auth::Simple(_)) => Some("a password"),
        (_, Auth::Other(_)) => Some("an authentication type that havip does not have"),
    }
}

#[cfg(test)]
mod tests;
