//! Decisions, pure: what is to be sent, and which addresses the kernel should have.
//!
//! Nothing here does IO, reads a clock, blocks or fails. Time enters as `now`; everything that
//! happens enters as an [`Event`]; everything to do leaves in [`Actions`]. [`turn`] is the one
//! loop body that both the daemon and the simulator run.

#![forbid(unsafe_code)]
#![cfg_attr(not(test), deny(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing))]

mod announce;
mod apply;
mod claims;
mod entry;
mod event;
mod faults;
mod fence;
mod flaps;
pub mod kernel;
mod links;
pub mod notice;
mod observe;
mod overhear;
mod packet;
mod ports;
mod probe;
pub mod record;
mod rivals;
pub mod router;
pub mod source;
mod status;
mod strays;
#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
mod tests;
mod time;
mod turn;
mod witness;

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use announce::Announcer;
use claims::{Claims, Holder};
use entry::{Entry, Timer};
use fence::Fence;
use flaps::Flaps;
use links::{Links, Place};
use notice::{Limits, Notice};
use overhear::Shadow;
use ports::Ports;
use probe::Prober;
use router::{Effect, Input, Reason};
use strays::Strays;
use witness::Watches;

pub use entry::{Counters, RouterId};
pub use event::{Action, Actions, Event, Farewell, Inbox, Via};
pub use status::{AddressStatus, NodeStatus, PortStatus, RouterState, RouterStatus};
pub use time::Instant;
pub use turn::{Host, turn};

use crate::config::{Config, IfName, Prefix, RouterName};
use crate::wire::vrrp::Vrid;
use crate::wire::{IfIndex, arp, ndp};
use kernel::{Change, MAIN_TABLE, Port};

/// Routers that may send, or give up, in one turn: so that no burst overflows a peer's socket.
const ADVERTS_PER_TURN: usize = 64;
/// Deadlines that have moved away are put where they belong this long before they come up, so that
/// those of a burst of adverts cost one wake-up.
const GATHER: Duration = Duration::from_millis(1);
/// Deadlines that are put there in one turn though they do not come up yet.
const MENDED_MAX: usize = 4;

/// How far the node is with its start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// Links and addresses are not known.
    Reading,
    /// An earlier run's addresses are being removed.
    Cleaning,
    /// Routers take part.
    Running,
    /// Routers give up one after another.
    Stopping,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Dump {
    /// What is known is true.
    Idle,
    /// To be asked for as soon as it is this time.
    Wanted(Instant),
    /// Asked for; `again`: what was reported meanwhile is not complete.
    Waiting { again: bool },
}

/// Everything that one gateway decides.
#[derive(Debug)]
pub struct Node {
    config: Option<Arc<Config>>,
    phase: Phase,
    links: Links,
    dump: Dump,
    /// What the kernel reported since the dump under way was asked for.
    changes: Vec<Change>,
    /// Boxed: a node of the map has room for eleven, and is half empty.
    entries: BTreeMap<RouterId, Box<Entry>>,
    next_id: u64,
    by_name: BTreeMap<RouterName, RouterId>,
    by_interface: BTreeMap<IfName, BTreeSet<RouterId>>,
    by_vrid: BTreeMap<(Port, Vrid), RouterId>,
    /// Whose a VIP is; several routers may have one, on different interfaces.
    by_vip: BTreeMap<IpAddr, Vec<RouterId>>,
    /// Something happened to what they run on.
    to_look: BTreeSet<RouterId>,
    ports: Ports,
    timers: BTreeSet<(Instant, Timer, RouterId)>,
    claims: Claims,
    announcer: Announcer,
    prober: Prober,
    fence: Fence,
    watches: Watches,
    strays: Strays,
    limits: Limits,
    flaps: Flaps,
    /// Taken out and put back by every call, so that nothing is allocated in the steady state.
    effects: Vec<Effect>,
}

impl Default for Node {
    fn default() -> Self {
        Self::new()
    }
}

impl Node {
    /// A node that knows nothing yet. Its first `Timeout` asks for a dump.
    #[must_use]
    pub fn new() -> Self {
        Self {
            config: None,
            phase: Phase::Reading,
            links: Links::default(),
            dump: Dump::Wanted(Instant::ZERO),
            changes: Vec::new(),
            entries: BTreeMap::new(),
            next_id: 0,
            by_name: BTreeMap::new(),
            by_interface: BTreeMap::new(),
            by_vrid: BTreeMap::new(),
            by_vip: BTreeMap::new(),
            to_look: BTreeSet::new(),
            ports: Ports::default(),
            timers: BTreeSet::new(),
            claims: Claims::default(),
            announcer: Announcer::default(),
            prober: Prober::default(),
            fence: Fence::default(),
            watches: Watches::default(),
            strays: Strays::default(),
            limits: Limits::default(),
            flaps: Flaps::default(),
            effects: Vec::new(),
        }
    }

    /// Tells it, before its first event, of an address that an earlier run put on an interface,
    /// for kernels that do not mark addresses (before 5.18).
    /// `fenced`: it was put with a lifetime.
    pub fn remember(&mut self, index: IfIndex, prefix: Prefix, fenced: bool) {
        self.claims.remember((index, prefix), fenced);
    }

    /// Takes one event at `now`; appends to `out` what is to be done.
    pub fn handle(&mut self, now: Instant, event: Event<'_>, out: &mut Actions) {
        // Changes come together, and what they amount to is looked at before anything else.
        if !matches!(event, Event::Kernel(_)) {
            self.look(now, out);
        }
        match event {
            Event::Timeout { heard_all } => self.timeout(now, heard_all, out),
            Event::Packet { port, meta, bytes } => self.packet(now, port, &meta, bytes, None, out),
            Event::Overheard { index, mac, bytes } => self.overheard(now, index, mac, &bytes, out),
            Event::Malformed { port } => self.malformed(now, port, out),
            Event::Kernel(change) => self.kernel(now, change, out),
            Event::Dumped(result) => self.dumped(now, result, out),
            Event::Applied(results) => self.applied(now, &results, out),
            Event::Opened { port, result } => {
                self.ports.opened(now, port, result, out);
                self.watches.forget(port);
                self.touch_port(port);
            }
            Event::Rejoined { port } => {
                if let Some(link) = self.links.link(port.index) {
                    let (interface, family) = (link.name.clone(), port.family);
                    self.notice(now, Notice::Rejoined { interface, family }, out);
                }
            }
            Event::SendFailed { index, errno, count, adverts } => {
                self.send_failed(now, index, (errno, count), &adverts, out);
            }
            Event::Claimed { index, ip, mac } => self.claimed(now, index, ip, mac, out),
            Event::Config(config) => match self.phase {
                Phase::Reading | Phase::Cleaning => self.config = Some(config),
                Phase::Running => self.apply_config(now, config, out),
                Phase::Stopping => {}
            },
            Event::Shutdown => {
                if self.phase != Phase::Stopping {
                    self.phase = Phase::Stopping;
                    self.notice(now, Notice::Stopping, out);
                }
            }
        }
    }

    /// When the next `Timeout` does something; read it again after every event. In the past
    /// while there is work left for a next turn.
    #[must_use]
    pub fn next_deadline(&self) -> Option<Instant> {
        let dump = match self.dump {
            Dump::Wanted(at) => Some(at),
            Dump::Idle | Dump::Waiting { .. } => None,
        };
        let stopping =
            (self.phase == Phase::Stopping && !self.entries.is_empty()).then_some(Instant::ZERO);
        let to_look = (!self.to_look.is_empty()).then_some(Instant::ZERO);
        let deadlines = [
            dump,
            stopping,
            to_look,
            self.timers.first().map(|(at, ..)| *at),
            self.claims.next_deadline(),
            self.announcer.next_deadline(),
            self.prober.next_deadline(),
            self.ports.next_deadline(),
            self.flaps.next_deadline(),
        ];
        deadlines.into_iter().flatten().min()
    }

    /// After `Shutdown`: whether every router has given up and no address is left to remove.
    #[must_use]
    pub fn is_stopped(&self) -> bool {
        self.phase == Phase::Stopping && self.entries.is_empty() && self.claims.nothing_to_remove()
    }

    /// What the active routers would say and have taken away if this process died now. Changes
    /// only with [`Actions::states_changed`].
    pub fn farewells(&self) -> impl Iterator<Item = Farewell<'_>> {
        self.entries.values().filter(|entry| entry.router.is_active()).filter_map(|entry| {
            let link = self.links.link(entry.link?)?;
            let port = Port { index: link.index, family: entry.router.config().family };
            // Another's address that is also a VIP is not to be taken away.
            let others = |place| matches!(self.claims.holder(place, &self.links), Holder::Other(_));
            let ours = entry.places.iter().filter(|place| !others(place));
            let configured = |place: &Place| {
                let len = self.claims.claim_on(place).map_or(place.1.len, |claim| claim.len);
                Prefix { ip: place.1.ip, len }
            };
            let addresses = ours.map(configured).collect();
            let table = link.vrf_table.unwrap_or(MAIN_TABLE);
            Some(Farewell { port, table, packets: entry.farewell(), addresses })
        })
    }

    fn timeout(&mut self, now: Instant, heard_all: bool, out: &mut Actions) {
        if let Dump::Wanted(at) = self.dump
            && now >= at
        {
            self.dump = Dump::Waiting { again: false };
            self.changes.clear();
            out.kernel.push(Action::Dump);
        }
        if self.phase == Phase::Stopping {
            self.stop_some(now, out);
        }
        self.fire_timers(now, heard_all, out);
        self.ports.timeout(now, out);
        self.probe(now, out);
        while let Some((router, count)) = self.flaps.untold(now) {
            let id = self.by_name.get(&router);
            let Some(entry) = id.and_then(|id| self.entries.get(id)) else { continue };
            out.notices.push(Notice::Flapping { router, count, state: entry.state_name() });
        }
        self.announce(now, out);
        while let Some(ops) = self.claims.next_chunk(now, &self.links) {
            out.kernel.push(Action::Apply(ops));
        }
        self.watch(out);
        let passages = self.passages();
        if !passages.is_empty() {
            out.kernel.push(Action::Fence(passages));
        }
    }

    fn fire_timers(&mut self, now: Instant, heard_all: bool, out: &mut Actions) {
        let mut deferred = Vec::new();
        let mut fired = 0;
        while let Some((at, timer, id)) = self.timers.first().copied() {
            if at > now + GATHER || fired >= ADVERTS_PER_TURN {
                break;
            }
            if self.mend_first() {
                continue;
            }
            if at > now {
                break;
            }
            self.timers.pop_first();
            let Some(entry) = self.entries.get_mut(&id) else { continue };
            // Whoever may have adverts waiting unread must not take over.
            if timer == Timer::Router && !heard_all && !entry.router.is_active() {
                deferred.push((at, timer, id));
                continue;
            }
            *entry.timers.of(timer) = None;
            match timer {
                Timer::Router => {
                    fired += 1;
                    self.input(now, id, Input::Timeout, out);
                    self.renew_early(now, id);
                }
                Timer::Renew => self.renew(now, id),
                Timer::Look => {
                    entry.look_at = None;
                    self.judge(now, id, out);
                    self.tell_stray(now, id, out);
                    self.prove(now, id, out);
                    self.evaluate(now, id, out);
                }
            }
            self.retime(id);
        }
        self.timers.extend(deferred);
        // Of few routers, the next deadline is then a true one, and nobody wakes for another.
        for _ in 0..MENDED_MAX {
            if !self.mend_first() {
                break;
            }
        }
    }

    /// Puts the first deadline of the index where it belongs, if it has moved away since it was put
    /// there.
    fn mend_first(&mut self) -> bool {
        let Some((at, timer, id)) = self.timers.first().copied() else { return false };
        let Some(entry) = self.entries.get_mut(&id) else { return false };
        if *entry.deadlines().of(timer) == Some(at) {
            return false;
        }
        self.timers.pop_first();
        *entry.timers.of(timer) = None;
        self.retime(id);
        true
    }

    /// Feeds a router, and does what follows.
    fn input(&mut self, now: Instant, id: RouterId, input: Input, out: &mut Actions) {
        let mut effects = std::mem::take(&mut self.effects);
        if let Some(entry) = self.entries.get_mut(&id)
            // A router without an address to send from is in Initialize, where nothing but
            // Startup has an effect, and that comes with the address.
            && let Some(local) = entry.source
        {
            let before = entry.state_name();
            entry.router.handle(now, local, input, &mut effects);
            if !effects.is_empty() || !entry.is_timed() {
                self.effects(now, id, before, &mut effects, out);
            }
        }
        self.effects = effects;
    }

    fn effects(
        &mut self,
        now: Instant,
        id: RouterId,
        before: &'static str,
        effects: &mut Vec<Effect>,
        out: &mut Actions,
    ) {
        for effect in effects.drain(..) {
            let Some(entry) = self.entries.get_mut(&id) else { return };
            match effect {
                Effect::Advertise(0) => advertise(entry, id, 0, out),
                Effect::Advertise(priority) => {
                    advertise(entry, id, priority, out);
                    self.open_fence(now, id);
                    self.advert_follows(now, id, out);
                }
                Effect::Activated(reason) => {
                    entry.counters.master_transitions += 1;
                    self.moved(now, id, before, reason, out);
                    self.sync_claims(now, id, out);
                    self.probe_first(now, id, reason);
                }
                Effect::Deactivated(reason) => {
                    self.moved(now, id, before, reason, out);
                    self.sync_claims(now, id, out);
                }
                Effect::Moved(reason) => self.moved(now, id, before, reason, out),
                Effect::Late => entry.counters.late_adverts += 1,
                Effect::Reannounce(reason) => {
                    match reason {
                        Reason::ConflictWon(_) => entry.counters.conflicts_won += 1,
                        _ => entry.counters.overslept += 1,
                    }
                    self.reannounce(now, id, reason, out);
                }
                Effect::Overslept(late) => {
                    entry.counters.overslept += 1;
                    let router = entry.router.config().name.clone();
                    self.notice(now, Notice::Overslept { router, late }, out);
                }
                Effect::Won(heard) => self.won(now, id, heard, out),
                Effect::Guarding => self.guarding(now, id, out),
            }
        }
        self.retime(id);
    }

    /// Announces again what an active router has.
    fn reannounce(&mut self, now: Instant, id: RouterId, reason: Reason, out: &mut Actions) {
        let Some(entry) = self.entries.get(&id) else { return };
        for place in &entry.places {
            if self.links.place_of(place.0, place.1.ip).is_some() {
                self.announcer.start(*place);
            }
        }
        let router = entry.router.config().name.clone();
        self.notice(now, Notice::Reannounced { router, reason }, out);
    }

    fn moved(
        &mut self,
        now: Instant,
        id: RouterId,
        before: &'static str,
        reason: Reason,
        out: &mut Actions,
    ) {
        let Some(entry) = self.entries.get_mut(&id) else { return };
        entry.since = now;
        entry.reason = Some(reason);
        entry.rivals.moved();
        entry.unplaced.moved();
        entry.delivered = false;
        if entry.shadow != Shadow::None {
            self.watches.stale_of(entry.link);
        }
        out.states_changed = true;
        let router = entry.router.config().name.clone();
        let states = (before, entry.state_name());
        self.notice(now, Notice::Transition { router, states, reason }, out);
        self.look_for_strays(now, id, out);
    }

    /// Puts a router's deadlines where they belong in the index. One that moves away, as a backup's
    /// does with every advert, stays where it is and is looked at when that comes up.
    fn retime(&mut self, id: RouterId) {
        let Some(entry) = self.entries.get_mut(&id) else { return };
        let mut deadlines = entry.deadlines();
        for timer in Timer::ALL {
            let (new, old) = (*deadlines.of(timer), entry.timers.of(timer));
            if entry::stands(new, *old) {
                continue;
            }
            if let Some(old) = *old {
                self.timers.remove(&(old, timer, id));
            }
            if let Some(new) = new {
                self.timers.insert((new, timer, id));
            }
            *old = new;
        }
    }

    fn announce(&mut self, now: Instant, out: &mut Actions) {
        let Self { announcer, claims, links, entries, .. } = self;
        announcer.due(now, |(index, prefix)| {
            let Some(mac) = links.link(index).and_then(|link| link.mac) else { return };
            let Some(claim) = claims.claim_on(&(index, prefix)) else { return };
            let Some(entry) = entries.get_mut(&claim.router) else { return };
            match prefix.ip {
                IpAddr::V4(ip) => {
                    out.frame(Via::Ethernet(index), None, |out| arp::gratuitous(mac, ip, out));
                }
                IpAddr::V6(ip) => {
                    // An excluded VIP of an IPv4 router has no link-local address at hand; the
                    // target itself is a source that RFC 4861 §7.2.6 allows as well.
                    let src = match entry.source {
                        Some(IpAddr::V6(src)) => src,
                        Some(IpAddr::V4(_)) | None => ip,
                    };
                    out.frame(Via::Ethernet(index), None, |out| {
                        ndp::unsolicited_na(mac, src, ip, out);
                    });
                }
            }
            entry.counters.announcements += 1;
        });
    }

    fn notice(&mut self, now: Instant, notice: Notice, out: &mut Actions) {
        let changed = match &notice {
            Notice::Transition { router, .. } | Notice::NotReady { router, .. } => Some(router),
            _ => None,
        };
        if changed.is_some_and(|router| !self.flaps.tells(now, router)) {
            out.untold.push(notice);
            return;
        }
        if let Some(left_out) = self.limits.tells(now, &notice) {
            out.notices.push(notice.after(left_out));
        }
    }
}

fn advertise(entry: &mut Entry, id: RouterId, priority: u8, out: &mut Actions) {
    let Some(index) = entry.link else { return };
    let port = Port { index, family: entry.router.config().family };
    let farewell;
    let frames = if priority == 0 {
        farewell = entry.farewell();
        &*farewell
    } else {
        entry.frames()
    };
    for frame in frames {
        out.frame(Via::Vrrp(port), Some(id), |out| out.extend_from_slice(frame));
    }
    entry.counters.adverts_sent += 1;
    if priority == 0 {
        entry.counters.priority_zero_sent += 1;
    }
}
