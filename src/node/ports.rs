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
    /// No IP packet that could carry an advert.
    pub(super) malformed: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Opening,
    Open,
    Failed { errno: Errno, retry_at: Instant },
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
        let gone: Vec<Port> =
            self.ports.keys().filter(|port| !wanted.contains(port)).copied().collect();
        for port in gone {
            self.ports.remove(&port);
            self.counters.remove(&port);
            self.send_errors.remove(&port.index);
            out.kernel.push(Action::Close(port));
        }
        for port in wanted {
            if !self.ports.contains_key(port) {
                self.ports.insert(*port, State::Opening);
                out.kernel.push(Action::Open(*port));
            }
        }
    }

    /// Takes the answer to [`Action::Open`].
    pub(super) fn opened(&mut self, now: Instant, port: Port, result: Result<(), Errno>) {
        if let Some(state) = self.ports.get_mut(&port) {
            *state = match result {
                Ok(()) => State::Open,
                Err(errno) => State::Failed { errno, retry_at: now + RETRY },
            };
        }
    }

    /// What a router still waits for on this port.
    pub(super) fn missing(&self, port: Port) -> Option<NotReady> {
        match self.ports.get(&port) {
            Some(State::Open) => None,
            Some(State::Opening) | None => Some(NotReady::SocketsOpening),
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
                State::Opening | State::Open => None,
            })
            .min()
    }

    /// Counts packets that could not be sent; returns all of that link so far.
    pub(super) fn send_failed(&mut self, index: IfIndex, count: u32) -> u64 {
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
        self.ports.contains_key(&port)
    }
}
