//! From what is configured and what is there to which router runs where: touching only what
//! changed.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use super::claims::{Claim, Holder};
use super::entry::{Entry, RouterId, Timer};
use super::kernel::{Master, MasterKind, Port};
use super::links::Place;
use super::notice::{NotReady, Notice};
use super::router::{Input, Reason};
use super::{ADVERTS_PER_TURN, Actions, Instant, Node, Phase, advertise};
use crate::config::{self, Config, IfName, Lifetime};
use crate::wire::Family;
use crate::wire::vrrp::{Centis, Vrid, active_down_interval};

/// Shortest automatic lifetime of an address: a stranger may hold the kernel's RTNL lock for a
/// while, and a healthy node must not lose its VIPs by that.
const LIFETIME_MIN: u32 = 4;
/// Renewals a second that are worth it: each wakes every listener for addresses on the box.
const RENEWALS_PER_SECOND: u64 = 100;
/// Renewals go this much early with an advert, at most.
const RENEW_EARLY: Duration = Duration::from_millis(100);

impl Node {
    /// Runs `config` from now on.
    pub(super) fn apply_config(&mut self, now: Instant, config: Arc<Config>, out: &mut Actions) {
        let mut kept: BTreeMap<RouterId, Arc<config::Router>> = BTreeMap::new();
        let mut fresh: Vec<Arc<config::Router>> = Vec::new();
        for router in config.routers.values() {
            match self.by_name.get(&router.name) {
                Some(id) if self.entries.get(id).is_some_and(|e| same_router(e, router)) => {
                    kept.insert(*id, Arc::clone(router));
                }
                Some(_) | None => fresh.push(Arc::clone(router)),
            }
        }
        // First what goes, so that a VIP that moves from one router to another is not removed.
        let gone: Vec<RouterId> =
            self.entries.keys().filter(|id| !kept.contains_key(id)).copied().collect();
        for id in gone {
            self.stop_router(now, id, NotReady::Stopping, out);
            self.forget(id);
        }
        let mut changed = Vec::new();
        for (id, router) in kept {
            if self.entries.get(&id).is_some_and(|entry| **entry.router.config() != *router) {
                self.reconfigure(now, id, router, out);
                changed.push(id);
            }
        }
        for router in fresh {
            let id = RouterId(self.next_id);
            self.next_id += 1;
            self.by_name.insert(router.name.clone(), id);
            self.by_interface.entry(router.interface.clone()).or_default().insert(id);
            self.index_vips(id, &router);
            self.entries.insert(id, Box::new(Entry::new(router, now)));
        }
        self.config = Some(config);
        self.share_wakeups();
        changed.extend(self.set_lifetimes());
        for id in changed {
            self.sync_claims(now, id, out);
        }
        self.find_strays(now, out);
        self.evaluate_all(now, out);
        out.states_changed = true;
    }

    fn reconfigure(
        &mut self,
        now: Instant,
        id: RouterId,
        router: Arc<config::Router>,
        out: &mut Actions,
    ) {
        let mut effects = std::mem::take(&mut self.effects);
        if let Some(entry) = self.entries.get_mut(&id) {
            let before = entry.state_name();
            entry.forget_frames();
            let local = entry.source;
            let old = Arc::clone(entry.router.config());
            entry.router.reconfigure(now, local, Arc::clone(&router), &mut effects);
            if old.vips != router.vips || old.vips_excluded != router.vips_excluded {
                self.try_again(id);
            }
            self.unindex_vips(id, &old);
            self.index_vips(id, &router);
            self.effects(now, id, before, &mut effects, out);
            // Addresses that are listed no more go now; new ones come once all have gone.
            if let Some(entry) = self.entries.get(&id) {
                let wanted: BTreeSet<Place> = entry.wanted().map(|(place, _)| place).collect();
                let places = entry.places.clone();
                for place in places.into_iter().filter(|place| !wanted.contains(place)) {
                    self.release(id, place);
                }
            }
            self.warn_not_advertised(now, id, out);
            self.warn_unfit(now, id, out);
        }
        self.effects = effects;
    }

    /// Puts a router into Initialize, with farewell and without addresses if it was active.
    fn stop_router(&mut self, now: Instant, id: RouterId, why: NotReady, out: &mut Actions) {
        self.input(now, id, Input::Shutdown, out);
        if let Some(entry) = self.entries.get_mut(&id) {
            entry.not_ready = Some(why);
        }
    }

    fn forget(&mut self, id: RouterId) {
        let Some(mut entry) = self.entries.remove(&id) else { return };
        for timer in Timer::ALL {
            if let Some(at) = *entry.timers.of(timer) {
                self.timers.remove(&(at, timer, id));
            }
        }
        let config = entry.router.config();
        if self.by_name.get(&config.name) == Some(&id) {
            self.by_name.remove(&config.name);
            self.flaps.forget(&config.name);
        }
        if let Some(ids) = self.by_interface.get_mut(&config.interface) {
            ids.remove(&id);
            if ids.is_empty() {
                self.by_interface.remove(&config.interface);
            }
        }
        let config = Arc::clone(config);
        self.unindex_vips(id, &config);
        let (family, vrid) = (config.family, config.vrid);
        let port = entry.link.map(|index| Port { index, family });
        self.leave_vrid(id, port, vrid);
        self.watches.stale_of(entry.link);
        // The sockets of who stops are closed with the process.
        if let Some(port) = entry.port.filter(|_| self.phase != Phase::Stopping) {
            self.ports.release(port);
        }
        self.to_look.remove(&id);
    }

    /// Packets for this VRID are `id`'s no more.
    fn leave_vrid(&mut self, id: RouterId, port: Option<Port>, vrid: Vrid) {
        let Some(key) = port.map(|port| (port, vrid)) else { return };
        if self.by_vrid.get(&key) == Some(&id) {
            self.by_vrid.remove(&key);
        }
    }

    /// Gives up some routers; the next turn gives up more.
    pub(super) fn stop_some(&mut self, now: Instant, out: &mut Actions) {
        let some: Vec<RouterId> = self.entries.keys().take(ADVERTS_PER_TURN).copied().collect();
        for id in some {
            self.stop_router(now, id, NotReady::Stopping, out);
            self.forget(id);
        }
    }

    /// Puts the adverts of routers that share link and interval into as few wake-ups as their
    /// number allows.
    fn share_wakeups(&mut self) {
        let mut groups: BTreeMap<(IfName, Centis), Vec<RouterId>> = BTreeMap::new();
        for (id, entry) in &self.entries {
            let config = entry.router.config();
            groups.entry((config.interface.clone(), config.advert_interval)).or_default().push(*id);
        }
        for ((_, interval), ids) in groups {
            let slots = u32::try_from(ids.len().div_ceil(ADVERTS_PER_TURN)).unwrap_or(u32::MAX);
            for (at, id) in ids.iter().enumerate() {
                let slot = u32::try_from(at / ADVERTS_PER_TURN).unwrap_or(0);
                let offset = interval.duration() * slot / slots.max(1);
                if let Some(entry) = self.entries.get_mut(id) {
                    entry.router.set_slot((ids.len() > 1).then_some(offset));
                }
            }
        }
    }

    /// Decides how long each router's addresses live; gives those for which that changed. The
    /// kernel has to hear of it before the pace of renewals follows.
    fn set_lifetimes(&mut self) -> Vec<RouterId> {
        let addresses: usize = self
            .entries
            .values()
            .map(|entry| {
                let config = entry.router.config();
                config.vips.len() + config.vips_excluded.len()
            })
            .sum();
        // Renewed at a quarter of the lifetime: addresses / (lifetime / 4) renewals a second.
        let floor = u64::try_from(addresses).unwrap_or(u64::MAX).saturating_mul(4);
        let floor = u32::try_from(floor.div_ceil(RENEWALS_PER_SECOND)).unwrap_or(u32::MAX);
        let mut changed = Vec::new();
        for (id, entry) in &mut self.entries {
            let config = entry.router.config();
            let lifetime = match config.address_lifetime {
                Lifetime::Forever => None,
                Lifetime::Seconds(seconds) => Some(seconds),
                Lifetime::Auto => Some(automatic_lifetime(config).max(floor)),
            };
            if entry.lifetime != lifetime {
                entry.lifetime = lifetime;
                changed.push(*id);
            }
        }
        changed
    }

    /// Claims what an active router should have, releases what it should not.
    pub(super) fn sync_claims(&mut self, now: Instant, id: RouterId, out: &mut Actions) {
        let Some(entry) = self.entries.get(&id) else { return };
        let wanted: Vec<(Place, u8)> = entry.wanted().collect();
        let lifetime = entry.lifetime;
        let keep: BTreeSet<Place> = wanted.iter().map(|(place, _)| *place).collect();
        let before: BTreeSet<Place> = entry.places.iter().copied().collect();
        for place in before.symmetric_difference(&keep) {
            self.watches.stale(place.0);
        }
        for place in before.difference(&keep) {
            self.release(id, *place);
        }
        for (place, len) in &wanted {
            let claim = Claim { router: id, lifetime, len: *len };
            let before = self.claims.claim_on(place).copied();
            if before == Some(claim) {
                continue;
            }
            let there = self.claims.claim(*place, claim, &self.links);
            // Another lifetime or length is nobody's news.
            if there && before.is_none_or(|before| before.router != id) {
                self.announcer.start(*place);
                self.held_by_other(now, place, out);
            }
        }
        if let Some(entry) = self.entries.get_mut(&id) {
            entry.places = wanted.into_iter().map(|(place, _)| place).collect();
            let renews = entry.lifetime.filter(|_| !entry.places.is_empty());
            entry.renew_at = renews.map(|lifetime| {
                let next = now + renewal_interval(lifetime);
                entry.renew_at.map_or(next, |before| before.min(next))
            });
        }
        self.start_probes(now, id);
        self.open_fence(now, id);
        self.retime(id);
    }

    /// Says so if a wanted place is another's.
    pub(super) fn held_by_other(&mut self, now: Instant, place: &Place, out: &mut Actions) {
        let Holder::Other(other) = self.claims.holder(place, &self.links) else { return };
        let Some(claim) = self.claims.claim_on(place) else { return };
        let Some(entry) = self.entries.get(&claim.router) else { return };
        let config = entry.router.config();
        let owner = config.priority == crate::wire::vrrp::Priority::OWNER;
        let (router, interface) = (config.name.clone(), config.interface.clone());
        let other = *other;
        self.notice(now, Notice::HeldByOther { router, other, interface, owner }, out);
    }

    fn release(&mut self, id: RouterId, place: Place) {
        self.claims.release(place, id, &self.links);
        if self.claims.claim_on(&place).is_none() {
            self.announcer.stop(&place);
            self.prober.stop(&place);
            self.fence.shut(place);
        }
        self.watches.stale(place.0);
        if let Some(entry) = self.entries.get_mut(&id) {
            entry.places.retain(|other| *other != place);
        }
    }

    /// Renews every address of an active router.
    pub(super) fn renew(&mut self, now: Instant, id: RouterId) {
        let Some(entry) = self.entries.get_mut(&id) else { return };
        let Some(lifetime) = entry.lifetime else { return };
        entry.renew_at = Some(now + renewal_interval(lifetime));
        for place in &entry.places {
            self.claims.renew(*place);
        }
    }

    /// Renews what would be due soon, as this router has just been woken: one wake-up less.
    pub(super) fn renew_early(&mut self, now: Instant, id: RouterId) {
        let Some(entry) = self.entries.get_mut(&id) else { return };
        if entry.renew_at.is_none_or(|at| at > now + RENEW_EARLY) {
            return;
        }
        if let Some(at) = entry.timers.of(Timer::Renew).take() {
            self.timers.remove(&(at, Timer::Renew, id));
        }
        self.renew(now, id);
    }

    /// Looks at every router again.
    pub(super) fn evaluate_all(&mut self, now: Instant, out: &mut Actions) {
        self.to_look.extend(self.entries.keys());
        self.look(now, out);
    }

    /// Something happened to an interface of this name, or to its addresses of `family` alone: the
    /// routers there are to be looked at again.
    pub(super) fn touch(&mut self, name: &IfName, family: Option<Family>) {
        let of_family = |id: &&RouterId| {
            let entry = self.entries.get(id);
            family.is_none_or(|family| {
                entry.is_some_and(|entry| entry.router.config().family == family)
            })
        };
        let ids = self.by_interface.get(name).into_iter().flatten();
        self.to_look.extend(ids.filter(of_family));
    }

    /// The same for the routers behind one port.
    pub(super) fn touch_port(&mut self, port: Port) {
        if let Some(link) = self.links.link(port.index) {
            let name = link.name.clone();
            self.touch(&name, Some(port.family));
        }
    }

    /// Looks at the routers to which something happened: once, however much that was.
    pub(super) fn look(&mut self, now: Instant, out: &mut Actions) {
        let ids = std::mem::take(&mut self.to_look);
        if self.phase != Phase::Running {
            return;
        }
        for id in ids {
            self.evaluate(now, id, out);
        }
        for port in self.ports.sweep(out) {
            self.watches.forget(port);
        }
    }

    /// The sockets that a router needs.
    fn port_of(&self, entry: &Entry) -> Option<Port> {
        let config = entry.router.config();
        // Joining a group needs the interface up once; later downs do no harm.
        let link = self.links.by_name(&config.interface)?;
        let port = Port { index: link.index, family: config.family };
        (link.up || self.ports.is_wanted(port)).then_some(port)
    }

    /// Finds out whether a router can take part, and starts or stops it.
    pub(super) fn evaluate(&mut self, now: Instant, id: RouterId, out: &mut Actions) {
        let Some(entry) = self.entries.get(&id) else { return };
        let (port, before) = (self.port_of(entry), entry.port);
        if port != before {
            // First what comes, so that sockets are not closed that are needed.
            if let Some(port) = port {
                self.ports.acquire(port, self.links.past(port.index), out);
            }
            before.into_iter().for_each(|port| self.ports.release(port));
            if let Some(entry) = self.entries.get_mut(&id) {
                entry.port = port;
            }
        }
        let Some(entry) = self.entries.get(&id) else { return };
        let config = Arc::clone(entry.router.config());
        let link = self.links.by_name(&config.interface);
        let index = link.map(|link| link.index);
        let mtu = link.map_or(0, |link| link.mtu);
        let ours = |address: &super::kernel::Address| self.claims.is_ours(address);
        let source = index.and_then(|index| {
            let kept = entry.source.filter(|_| entry.link == Some(index));
            self.links.source(index, &config, kept, ours)
        });
        let (source, fit) = (source.map(|source| source.ip), source.map(|source| source.fit));
        let unfit = self.cannot_be_on(&config.interface);
        let mac = link.and_then(|link| link.mac);
        let past = index.map(|index| self.links.past(index)).unwrap_or_default();
        let why = match link {
            _ if unfit.is_some() => unfit,
            None => Some(NotReady::NoInterface),
            Some(link) if !link.up => Some(NotReady::LinkDown),
            Some(link) if !link.running => Some(NotReady::NoCarrier),
            Some(_) if source.is_none() => Some(NotReady::NoAddress),
            Some(link) => self.ports.missing(Port { index: link.index, family: config.family }),
        };
        let left = entry.link;
        let moved = left != index;
        let was_ready = entry.not_ready.is_none();
        let carries = link.is_some_and(|link| link.up && link.running);
        if let Some(entry) = self.entries.get_mut(&id) {
            // It came and went between two looks.
            let lost = std::mem::replace(&mut entry.lost, past.lost) != past.lost;
            if lost && carries && !moved && entry.router.is_active() {
                entry.link_lost_at.get_or_insert(now);
            }
        }
        if let Some(port) = port.filter(|_| carries) {
            self.ports.join(port, past, out);
        }
        let why = self.borne(now, id, why, source.is_some(), out);
        if was_ready && (why.is_some() || moved) {
            let why = why.clone().unwrap_or(NotReady::SocketsOpening);
            self.stop_router(now, id, why, out);
        }
        if moved {
            let port = left.map(|index| Port { index, family: config.family });
            self.leave_vrid(id, port, config.vrid);
            if let Some(index) = index {
                let port = Port { index, family: config.family };
                self.by_vrid.insert((port, config.vrid), id);
            }
        }
        let Some(entry) = self.entries.get_mut(&id) else { return };
        let readdressed = entry.source != source || entry.mtu != mtu;
        (entry.link, entry.mtu, entry.source, entry.source_fit) = (index, mtu, source, fit);
        let has_new_mac = std::mem::replace(&mut entry.mac, mac) != mac && mac.is_some();
        let announces = has_new_mac && was_ready && !moved && entry.router.is_active();
        if readdressed {
            self.watches.stale_of(index);
            entry.forget_frames();
        }
        let before = std::mem::replace(&mut entry.not_ready, why.clone());
        if let (Some(to), Some(fit)) = (source, fit)
            && let Some(from) = entry.last_source.replace(to)
            && from != to
        {
            let router = config.name.clone();
            self.notice(now, Notice::SourceChanged { router, from, to, fit }, out);
        }
        if why.is_none() {
            self.warn_not_advertised(now, id, out);
        }
        let Some(entry) = self.entries.get_mut(&id) else { return };
        match why {
            None if !was_ready || moved => {
                entry.not_ready_said = false;
                self.warn_unfit(now, id, out);
                self.input(now, id, Input::Startup, out);
            }
            // RFC 9568 §6.4 has no event for a new primary address: state and VIPs stay, and
            // whoever decides by address learns the new one at once.
            None if readdressed && entry.router.is_active() => {
                let priority = entry.router.config().priority.number();
                advertise(entry, id, priority, out);
                out.states_changed = true;
            }
            None => {}
            // Sockets take a moment at each start: nothing to speak of.
            Some(NotReady::SocketsOpening) => {}
            Some(why) if before.as_ref() == Some(&why) && entry.not_ready_said => {}
            Some(why) => {
                entry.not_ready_said = true;
                let router = config.name.clone();
                self.notice(now, Notice::NotReady { router, why }, out);
            }
        }
        if announces {
            self.reannounce(now, id, Reason::NewMac, out);
        }
    }

    /// Finds VIPs that no host of the interface's subnets can have.
    fn warn_unfit(&mut self, now: Instant, id: RouterId, out: &mut Actions) {
        let Some(entry) = self.entries.get_mut(&id) else { return };
        let Some(index) = entry.link else { return };
        let config = Arc::clone(entry.router.config());
        let vips = config.vips.iter().chain(&config.vips_excluded);
        let unfit = vips.filter_map(|vip| Some((vip.ip, self.links.unfit(index, vip.ip)?)));
        entry.unfit = unfit.collect();
        for (address, why) in entry.unfit.clone() {
            let router = config.name.clone();
            self.notice(now, Notice::UnfitVip { router, address, why }, out);
        }
    }

    /// Why no router can be on the interface of this name, whatever state it is in.
    fn cannot_be_on(&self, name: &IfName) -> Option<NotReady> {
        let Some(link) = self.links.by_name(name) else {
            let real = self.links.by_alt_name(name)?.name.clone();
            return Some(NotReady::OtherName { name: name.clone(), real });
        };
        if link.loopback {
            return Some(NotReady::Loopback(name.clone()));
        }
        // A VRF's member has its packets and addresses itself.
        let Master { index, kind } = link.master.filter(|master| master.kind != MasterKind::Vrf)?;
        let master = self.links.link(index)?.name.clone();
        Some(NotReady::PortOf { port: name.clone(), kind, master })
    }

    /// Asks whether a router that hears nothing is a member of its group, once each time.
    pub(super) fn prove(&mut self, now: Instant, id: RouterId, out: &mut Actions) {
        let Some(entry) = self.entries.get_mut(&id) else { return };
        if entry.prove_at().is_some_and(|at| now >= at) {
            entry.proved = true;
            if let Some(port) = entry.port {
                self.ports.prove(port, out);
            }
        }
    }

    /// Says how many VIPs fit into no advert, when that changed.
    fn warn_not_advertised(&mut self, now: Instant, id: RouterId, out: &mut Actions) {
        let Some(entry) = self.entries.get_mut(&id) else { return };
        let count = if entry.mtu > 0 { entry.not_advertised() } else { 0 };
        if std::mem::replace(&mut entry.not_advertised_said, count) != count {
            let router = entry.router.config().name.clone();
            self.notice(now, Notice::NotAdvertised { router, count }, out);
        }
    }
}

/// Whether a router's new configuration can be taken over while it runs: the rest of it says
/// which virtual router it is.
fn same_router(entry: &Entry, new: &config::Router) -> bool {
    let old = entry.router.config();
    (old.vrid, old.version, old.family, &old.interface)
        == (new.vrid, new.version, new.family, &new.interface)
}

/// max(4 s, 1.5 × Active_Down_Interval, rounded up).
fn automatic_lifetime(config: &config::Router) -> u32 {
    let down = active_down_interval(config.version, config.priority, config.advert_interval);
    let seconds = (down * 3 / 2).as_nanos().div_ceil(1_000_000_000);
    u32::try_from(seconds).unwrap_or(u32::MAX).max(LIFETIME_MIN)
}

/// A quarter of the lifetime: three renewals may fail before the kernel acts.
fn renewal_interval(lifetime: u32) -> Duration {
    Duration::from_secs(u64::from(lifetime)) / 4
}
