//! Which sockets are needed, which are there, and what came in wrongly through them.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::Instant;
use super::event::{Action, Actions};
use super::kernel::{Errno, Port};
use super::links::Past;
use super::notice::NotReady;
use crate::wire::vrrp::{Discard, Vrid};
use crate::wire::{Family, IfIndex};

/// Pause after sockets could not be opened.
const RETRY: Duration = Duration::from_secs(1);

/// For how long it is shown that a packet was not sent: announcements are repeated each minute.
const UNSENT_SHOWN: Duration = Duration::from_secs(90);
/// Failures within a shorter time than this are only counted.
const UNSENT_LASTS: Duration = Duration::from_millis(500);

/// Adverts of one VRID are looked at for the addresses of routers of another VRID at most once in
/// this time: others' may be many, and may have 255 addresses each.
const LOOK_PAUSE: Duration = Duration::from_millis(100);

/// What came in through one port and could not be given to a router.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct PortCounters {
    pub(super) discarded: BTreeMap<Discard, u64>,
    /// VRIDs that nobody here runs: other clusters, as a rule.
    pub(super) unknown_vrid: u64,
    /// Sent to this box alone and not to the group.
    pub(super) unicast: u64,
    /// No IP packet that could carry an advert.
    pub(super) malformed: u64,
    /// When adverts of other VRIDs than a router's own were last looked at for its addresses.
    looked_at: BTreeMap<Vrid, Instant>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Opening {
        /// Why they could not be opened the last time: as long as that is the case nothing is new.
        after: Option<Errno>,
    },
    Open,
    Failed {
        errno: Errno,
        retry_at: Instant,
    },
    /// Wanted no more while they are being opened: closed once that is answered. So there is one
    /// request for each port, however often its routers come and go meanwhile.
    Leaving,
}

#[derive(Debug)]
struct Slot {
    state: State,
    /// Routers that need it.
    users: usize,
    /// What the link had gone through when the group was joined.
    past: Past,
}

/// The sockets of this node. What one port costs does not grow with the number of the others.
#[derive(Debug, Default)]
pub(super) struct Ports {
    ports: BTreeMap<Port, Slot>,
    /// Those that nobody needs, until they are closed.
    idle: BTreeSet<Port>,
    /// Those that failed, by when they are tried again.
    retries: BTreeSet<(Instant, Port)>,
    pub(super) counters: BTreeMap<Port, PortCounters>,
    pub(super) send_errors: BTreeMap<IfIndex, Unsent>,
}

/// Packets of all kinds that could not be sent through a link.
#[derive(Clone, Copy, Debug)]
pub(super) struct Unsent {
    pub(super) count: u64,
    pub(super) errno: Errno,
    /// The first and the last failure, of those with less than [`UNSENT_SHOWN`] between them.
    since: Instant,
    pub(super) at: Instant,
}

impl Unsent {
    /// Whether the failures went on, and not long ago: a queue that was full once does not count.
    pub(super) fn goes_on(&self, now: Instant) -> bool {
        now.since(self.at) < UNSENT_SHOWN && self.at.since(self.since) >= UNSENT_LASTS
    }
}

impl Ports {
    /// A router more needs this port: it is opened if it is not there.
    pub(super) fn acquire(&mut self, port: Port, past: Past, out: &mut Actions) {
        let slot = self.ports.entry(port).or_insert_with(|| {
            out.kernel.push(Action::Open(port));
            Slot { state: State::Opening { after: None }, users: 0, past }
        });
        slot.users += 1;
        if slot.state == State::Leaving {
            slot.state = State::Opening { after: None };
        }
        self.idle.remove(&port);
    }

    /// A router needs this port no more.
    pub(super) fn release(&mut self, port: Port) {
        let Some(slot) = self.ports.get_mut(&port) else { return };
        slot.users = slot.users.saturating_sub(1);
        if slot.users == 0 {
            self.idle.insert(port);
        }
    }

    /// Closes what nobody needs; gives which ports that are.
    pub(super) fn sweep(&mut self, out: &mut Actions) -> BTreeSet<Port> {
        let idle = std::mem::take(&mut self.idle);
        for port in idle.iter().copied() {
            let Some(slot) = self.ports.get_mut(&port) else { continue };
            match slot.state {
                State::Opening { .. } | State::Leaving => slot.state = State::Leaving,
                State::Open | State::Failed { .. } => {
                    self.remove(port);
                    out.kernel.push(Action::Close(port));
                }
            }
            self.counters.remove(&port);
            if !self.is_used(port.index) {
                self.send_errors.remove(&port.index);
            }
        }
        idle
    }

    fn remove(&mut self, port: Port) {
        if let Some(Slot { state: State::Failed { retry_at, .. }, .. }) = self.ports.remove(&port) {
            self.retries.remove(&(retry_at, port));
        }
    }

    /// Proves or renews the membership of open sockets, if their link went through something since
    /// they were joined.
    pub(super) fn join(&mut self, port: Port, past: Past, out: &mut Actions) {
        let Some(slot) = self.ports.get_mut(&port) else { return };
        if slot.state == State::Open && slot.past != past {
            // A switch may have forgotten who was behind a link that was lost.
            let anew = slot.past.lost != past.lost;
            slot.past = past;
            out.kernel.push(Action::Join { port, anew });
        }
    }

    /// Proves the membership of open sockets.
    pub(super) fn prove(&self, port: Port, out: &mut Actions) {
        if self.ports.get(&port).is_some_and(|slot| slot.state == State::Open) {
            out.kernel.push(Action::Join { port, anew: false });
        }
    }

    /// Takes the answer to [`Action::Open`], or to a [`Action::Join`] that failed.
    pub(super) fn opened(
        &mut self,
        now: Instant,
        port: Port,
        result: Result<(), Errno>,
        out: &mut Actions,
    ) {
        let Some(slot) = self.ports.get_mut(&port) else { return };
        match (slot.state, result) {
            (State::Leaving, _) => {
                self.remove(port);
                out.kernel.push(Action::Close(port));
            }
            (_, Ok(())) => slot.state = State::Open,
            (_, Err(errno)) => {
                let retry_at = now + RETRY;
                if let State::Failed { retry_at, .. } = slot.state {
                    self.retries.remove(&(retry_at, port));
                }
                slot.state = State::Failed { errno, retry_at };
                self.retries.insert((retry_at, port));
            }
        }
    }

    /// What a router still waits for on this port.
    pub(super) fn missing(&self, port: Port) -> Option<NotReady> {
        match self.ports.get(&port).map(|slot| slot.state) {
            Some(State::Open) => None,
            Some(State::Opening { after: None } | State::Leaving) | None => {
                Some(NotReady::SocketsOpening)
            }
            Some(State::Failed { errno, .. } | State::Opening { after: Some(errno) }) => {
                Some(NotReady::SocketsFailed(errno))
            }
        }
    }

    /// Tries again what failed.
    pub(super) fn timeout(&mut self, now: Instant, out: &mut Actions) {
        while let Some((at, port)) = self.retries.first().copied().filter(|(at, _)| *at <= now) {
            self.retries.remove(&(at, port));
            if let Some(slot) = self.ports.get_mut(&port) {
                let after = match slot.state {
                    State::Failed { errno, .. } => Some(errno),
                    State::Opening { .. } | State::Open | State::Leaving => None,
                };
                slot.state = State::Opening { after };
                out.kernel.push(Action::Open(port));
            }
        }
    }

    /// When something is tried again.
    pub(super) fn next_deadline(&self) -> Option<Instant> {
        self.retries.first().map(|(at, _)| *at)
    }

    /// Counts packets that could not be sent; returns all of that link so far. Of a link that is
    /// left by now nobody asks.
    pub(super) fn send_failed(
        &mut self,
        now: Instant,
        index: IfIndex,
        errno: Errno,
        count: u32,
    ) -> u64 {
        let count = u64::from(count);
        if !self.is_used(index) {
            return count;
        }
        let fresh = Unsent { count: 0, errno, since: now, at: now };
        let unsent = self.send_errors.entry(index).or_insert(fresh);
        if now.since(unsent.at) >= UNSENT_SHOWN {
            unsent.since = now;
        }
        (unsent.errno, unsent.at) = (errno, now);
        unsent.count = unsent.count.saturating_add(count);
        unsent.count
    }

    /// The counters of a port that is wanted.
    pub(super) fn counters(&mut self, port: Port) -> &mut PortCounters {
        self.counters.entry(port).or_default()
    }

    /// Whether to look at an advert of this VRID for addresses of routers of another.
    pub(super) fn looks(&mut self, now: Instant, port: Port, vrid: Vrid) -> bool {
        let looked_at = &mut self.counters(port).looked_at;
        let looks = looked_at.get(&vrid).is_none_or(|at| now.since(*at) >= LOOK_PAUSE);
        if looks {
            looked_at.insert(vrid, now);
        }
        looks
    }

    /// Whether this port is wanted: packets of others are leftovers in a queue.
    pub(super) fn is_wanted(&self, port: Port) -> bool {
        self.ports.get(&port).is_some_and(|slot| slot.users > 0)
    }

    /// Those that are.
    pub(super) fn wanted(&self) -> impl Iterator<Item = Port> {
        self.ports.iter().filter(|(_, slot)| slot.users > 0).map(|(port, _)| *port)
    }

    /// Whether a port of this link is.
    fn is_used(&self, index: IfIndex) -> bool {
        [Family::V4, Family::V6].into_iter().any(|family| self.is_wanted(Port { index, family }))
    }

    pub(super) fn sizes(&self) -> [(&'static str, usize); 8] {
        let wanted = self.ports.values().filter(|slot| slot.users > 0).count();
        let looked_at = self.counters.values().map(|port| port.looked_at.len()).sum();
        let discards = self.counters.values().map(|port| port.discarded.len()).sum();
        [
            ("ports", wanted),
            ("ports being opened or left", self.ports.len() - wanted),
            ("ports that nobody needs", self.idle.len()),
            ("ports to try again", self.retries.len()),
            ("port counters", self.counters.len()),
            ("discards", discards),
            ("VRIDs looked at", looked_at),
            ("send errors", self.send_errors.len()),
        ]
    }
}
