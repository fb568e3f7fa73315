//! Which sockets are needed, which are there, and what came in wrongly through them.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::Instant;
use super::event::{Action, Actions};
use super::kernel::{Errno, Port};
use super::notice::NotReady;
use crate::wire::IfIndex;
use crate::wire::vrrp::Discard;

/// Pause after sockets could not be opened.
const RETRY: Duration = Duration::from_secs(1);

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
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Opening,
    Open,
    Failed {
        errno: Errno,
        retry_at: Instant,
    },
    /// Wanted no more while they are being opened: closed once that is answered. So there is one
    /// request for each port, however often its routers come and go meanwhile.
    Leaving,
}

/// The sockets of this node.
#[derive(Debug, Default)]
pub(super) struct Ports {
    ports: BTreeMap<Port, State>,
    pub(super) counters: BTreeMap<Port, PortCounters>,
    pub(super) send_errors: BTreeMap<IfIndex, u64>,
}

impl Ports {
    /// Opens what is wanted and not there, closes what is not wanted.
    pub(super) fn want(&mut self, wanted: &BTreeSet<Port>, out: &mut Actions) {
        self.ports.retain(|port, state| match state {
            _ if wanted.contains(port) => true,
            State::Opening | State::Leaving => {
                *state = State::Leaving;
                true
            }
            State::Open | State::Failed { .. } => {
                out.kernel.push(Action::Close(*port));
                false
            }
        });
        self.counters.retain(|port, _| wanted.contains(port));
        self.send_errors.retain(|index, _| wanted.iter().any(|port| port.index == *index));
        for port in wanted {
            let state = self.ports.entry(*port).or_insert_with(|| {
                out.kernel.push(Action::Open(*port));
                State::Opening
            });
            if *state == State::Leaving {
                *state = State::Opening;
            }
        }
    }

    /// Takes the answer to [`Action::Open`].
    pub(super) fn opened(
        &mut self,
        now: Instant,
        port: Port,
        result: Result<(), Errno>,
        out: &mut Actions,
    ) {
        let Some(state) = self.ports.get_mut(&port) else { return };
        match (*state, result) {
            (State::Leaving, _) => {
                self.ports.remove(&port);
                out.kernel.push(Action::Close(port));
            }
            (_, Ok(())) => *state = State::Open,
            (_, Err(errno)) => *state = State::Failed { errno, retry_at: now + RETRY },
        }
    }

    /// What a router still waits for on this port.
    pub(super) fn missing(&self, port: Port) -> Option<NotReady> {
        match self.ports.get(&port) {
            Some(State::Open) => None,
            Some(State::Opening | State::Leaving) | None => Some(NotReady::SocketsOpening),
            Some(State::Failed { errno, .. }) => Some(NotReady::SocketsFailed(*errno)),
        }
    }

    /// Tries again what failed.
    pub(super) fn timeout(&mut self, now: Instant, out: &mut Actions) {
        for (port, state) in &mut self.ports {
            if let State::Failed { retry_at, .. } = state
                && *retry_at <= now
            {
                *state = State::Opening;
                out.kernel.push(Action::Open(*port));
            }
        }
    }

    /// When something is tried again.
    pub(super) fn next_deadline(&self) -> Option<Instant> {
        self.ports
            .values()
            .filter_map(|state| match state {
                State::Failed { retry_at, .. } => Some(*retry_at),
                State::Opening | State::Open | State::Leaving => None,
            })
            .min()
    }

    /// Counts packets that could not be sent; returns all of that link so far. Of a link that is
    /// left by now nobody asks.
    pub(super) fn send_failed(&mut self, index: IfIndex, count: u32) -> u64 {
        if !self.wanted().any(|port| port.index == index) {
            return u64::from(count);
        }
        let total = self.send_errors.entry(index).or_default();
        *total = total.saturating_add(u64::from(count));
        *total
    }

    /// The counters of a port that is wanted.
    pub(super) fn counters(&mut self, port: Port) -> &mut PortCounters {
        self.counters.entry(port).or_default()
    }

    /// Whether this port is wanted: packets of others are leftovers in a queue.
    pub(super) fn is_wanted(&self, port: Port) -> bool {
        !matches!(self.ports.get(&port), Some(State::Leaving) | None)
    }

    fn wanted(&self) -> impl Iterator<Item = &Port> {
        self.ports.iter().filter(|(_, state)| **state != State::Leaving).map(|(port, _)| port)
    }

    pub(super) fn sizes(&self) -> [(&'static str, usize); 5] {
        let discards = self.counters.values().map(|port| port.discarded.len()).sum();
        [
            ("ports", self.wanted().count()),
            ("ports being opened or left", self.ports.len() - self.wanted().count()),
            ("port counters", self.counters.len()),
            ("discards", discards),
            ("send errors", self.send_errors.len()),
        ]
    }
}
