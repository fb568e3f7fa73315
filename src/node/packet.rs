//! The way of a received packet: RFC 9568 §7.1, then who it is for, then what it means.

use std::net::IpAddr;
use std::time::Duration;

use super::entry::RouterId;
use super::notice::{Difference, Mismatch};
use super::rivals::{Foreign, Lacking, Misconfigured};
use super::router::{Heard, Input};
use super::{Actions, Instant, Node, Notice};
use crate::config;
use crate::wire::Mac;
use crate::wire::ip::TTL;
use crate::wire::vrrp::{
    Advert, Auth, Centis, Discard, Packet, RxMeta, Version, active_down_interval, group,
};

use super::kernel::Port;

/// Interval at least of who advertises under another VRID, one of whose adverts is looked at in each
/// tenth of a second.
const INTERVAL_LOOKED_AT: Centis = Centis(20);

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
        let known = self.by_vrid.get(&(port, header.vrid)).copied();
        // As nearly all are: the same as the one before, from one about whom nothing is to be said.
        if overheard.is_none()
            && let Some(id) = known
            && let Some(entry) = self.entries.get_mut(&id)
            && entry.source != Some(meta.src)
            && entry.is_delivered()
            && let Some(heard) = entry.usual(meta, bytes)
        {
            entry.note_heard(now, heard);
            return self.input(now, id, Input::Advert(heard), out);
        }
        let is_unicast = meta.dst != group(port.family);
        if is_unicast {
            let counter = &mut self.ports.counters(port).unicast;
            *counter = counter.saturating_add(1);
        }
        let Some(id) = known else {
            let counter = &mut self.ports.counters(port).unknown_vrid;
            *counter = counter.saturating_add(1);
            if self.ports.looks(now, port, header.vrid)
                && let Ok(advert) = packet.check(meta)
            {
                self.named_elsewhere(now, port, None, meta.src, &advert, out);
            }
            return;
        };
        let Some(entry) = self.entries.get_mut(&id) else { return };
        // RFC 9568 has no word for it: our own advert came back, or another uses our address. Which
        // of them it is tells its MAC, where that is known.
        let is_own = match overheard {
            Some(mac) => self.links.has_mac(mac),
            None => entry.source == Some(meta.src),
        };
        let is_from_us = entry.source == Some(meta.src);
        if is_own {
            entry.counters.own_packets += 1;
            return;
        }
        if let Some(mac) = overheard.filter(|_| is_from_us) {
            self.same_address(now, id, mac, out);
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
        let Some(entry) = self.entries.get(&id) else { return };
        let config = entry.router.config().clone();
        let name = &config.name;
        let src = meta.src;
        let heard = Heard { src, priority: advert.priority, interval: advert.interval };
        let other_addresses = !advert.addresses().eq(config.vips.iter().map(|prefix| prefix.ip));
        let looks = other_addresses && self.looks_elsewhere(now, id, src, advert, out);
        let is_ours = !other_addresses || self.names_any(id, advert);
        let Some(entry) = self.entries.get_mut(&id) else { return };
        if !is_ours {
            // Deviation: RFC 9568 §7.1 keeps it. Whoever names none of our addresses holds none.
            if !entry.rivals.is_mate(now, src) {
                entry.counters.address_list_errors += 1;
                return self.foreign(now, id, heard, out);
            }
        } else {
            entry.rivals.mate(src);
        }
        if looks || !other_addresses {
            let missing = if entry.not_advertised() == 0 { lacks(&config, advert) } else { None };
            let until = now + silence_of(&config, heard);
            entry.rivals.lacking = missing.map(|address| Lacking { src, address, until });
        }
        entry.note_heard(now, heard);
        let noted = advert.sum.map(|sum| entry.note_sum(src, sum)).unwrap_or_default();
        // What an active router would say at its end has another sum, too.
        out.states_changed |= noted.changed && entry.router.is_active();
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
        let heard = Heard { src, priority: advert.priority, interval: advert.interval };
        self.looks_elsewhere(now, id, src, advert, out);
        if self.names_any(id, advert) {
            self.misconfigured(now, id, heard, mismatch, out);
        } else {
            self.foreign(now, id, heard, out);
        }
    }

    /// One who names addresses of this router in another way than its own: a backup leaves them to
    /// him.
    fn misconfigured(
        &mut self,
        now: Instant,
        id: RouterId,
        heard: Heard,
        mismatch: Mismatch,
        out: &mut Actions,
    ) {
        let Some(entry) = self.entries.get_mut(&id) else { return };
        entry.counters.misconfigured += 1;
        let until = now + silence_of(entry.router.config(), heard);
        entry.rivals.misconfigured = Some(Misconfigured { src: heard.src, mismatch, until });
        self.input(now, id, Input::Misconfigured(heard), out);
    }

    /// Another cluster, that has this router's VRID and none of its addresses: named, and without
    /// effect.
    fn foreign(&mut self, now: Instant, id: RouterId, heard: Heard, out: &mut Actions) {
        let Some(entry) = self.entries.get_mut(&id) else { return };
        entry.counters.foreign_cluster += 1;
        let config = entry.router.config();
        let (router, vrid, src) = (config.name.clone(), config.vrid, heard.src);
        let until = now + silence_of(config, heard);
        entry.rivals.foreign = Some(Foreign { src, until });
        self.notice(now, Notice::ForeignCluster { router, src, vrid }, out);
    }

    /// Whether an advert names an address of this router, one that it does not advertise included.
    fn names_any(&self, id: RouterId, advert: &Advert<'_>) -> bool {
        let is_ours =
            |address| self.by_vip.get(&address).is_some_and(|ids: &Vec<_>| ids.contains(&id));
        advert.addresses().any(is_ours)
    }

    /// [`Self::named_elsewhere`] for an advert of a VRID that is run here; returns whether it was
    /// looked at.
    fn looks_elsewhere(
        &mut self,
        now: Instant,
        id: RouterId,
        src: IpAddr,
        advert: &Advert<'_>,
        out: &mut Actions,
    ) -> bool {
        let Some(entry) = self.entries.get(&id) else { return false };
        let Some(index) = entry.link else { return false };
        let port = Port { index, family: entry.router.config().family };
        let looks = self.ports.looks(now, port, advert.vrid);
        if looks {
            self.named_elsewhere(now, port, Some(id), src, advert, out);
        }
        looks
    }

    /// An advert of another VRID may name an address of ours all the same: for each router but the
    /// one whose VRID it has, that is one configured otherwise.
    fn named_elsewhere(
        &mut self,
        now: Instant,
        port: Port,
        but: Option<RouterId>,
        src: IpAddr,
        advert: &Advert<'_>,
        out: &mut Actions,
    ) {
        let mut named: Vec<RouterId> = Vec::new();
        for id in advert.addresses().filter_map(|address| self.by_vip.get(&address)).flatten() {
            let is_here = self.entries.get(id).is_some_and(|entry| entry.link == Some(port.index));
            if is_here && but != Some(*id) && !named.contains(id) {
                named.push(*id);
            }
        }
        // Not each of its adverts is looked at.
        let interval = advert.interval.max(INTERVAL_LOOKED_AT);
        let heard = Heard { src, priority: advert.priority, interval };
        for id in named {
            let Some(entry) = self.entries.get(&id) else { continue };
            let mismatch = Mismatch::Vrid { theirs: advert.vrid, ours: entry.router.config().vrid };
            self.misconfigured(now, id, heard, mismatch, out);
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

/// A VIP of this router that an advert does not name.
fn lacks(config: &config::Router, advert: &Advert<'_>) -> Option<IpAddr> {
    let ours = config.vips.iter().map(|prefix| prefix.ip);
    // As a rule they are the same, in the same order.
    if advert.addresses().eq(ours.clone()) {
        return None;
    }
    ours.into_iter().find(|ours| !advert.addresses().any(|address| address == *ours))
}

/// How long who was heard must be taken for active.
fn silence_of(config: &config::Router, heard: Heard) -> Duration {
    let interval = config.advert_interval.max(heard.interval);
    match heard.priority {
        0 => Duration::ZERO,
        _ => active_down_interval(config.version, config.priority, interval),
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
