//! What a run has seen: a fault that was never injected, or an event that never came, tests
//! nothing.

use std::collections::BTreeMap;

use havip::node::notice::{NotReady, Notice};
use havip::node::router::Reason;
use havip::sim::Turn;

use super::faults::{KINDS, Kind};

/// Events that a run of many schedules has to see.
const EVENTS: [&str; 22] = [
    "active: no active router was heard",
    "active: the active router gave up",
    "active: preempted",
    "backup: outranked",
    "initialize: shutdown",
    "address failed",
    "advert differs",
    "conflict won",
    "discarded",
    "dump failed",
    "held by other",
    "held by the node's last form",
    "leftovers",
    "misconfigured peer",
    "no carrier",
    "no interface",
    "overrun",
    "overslept as active",
    "overslept as backup",
    "read bound hit",
    "restoring",
    "send failed",
];

/// Counts by kind of fault and by event.
#[derive(Clone, Debug, Default)]
pub(crate) struct Coverage {
    pub(crate) faults: BTreeMap<Kind, u64>,
    pub(crate) events: BTreeMap<&'static str, u64>,
}

impl Coverage {
    pub(crate) fn saw(&mut self, event: &'static str) {
        *self.events.entry(event).or_default() += 1;
    }

    pub(crate) fn turn(&mut self, turn: &Turn) {
        if !turn.heard_all {
            self.saw("read bound hit");
        }
        for notice in &turn.notices {
            if let Some(event) = event(notice) {
                self.saw(event);
            }
        }
    }

    pub(crate) fn add(&mut self, other: &Self) {
        for (kind, count) in &other.faults {
            *self.faults.entry(*kind).or_default() += count;
        }
        for (event, count) in &other.events {
            *self.events.entry(event).or_default() += count;
        }
    }

    /// What a run of many schedules should have seen and has not.
    pub(crate) fn missing(&self) -> Vec<String> {
        let kinds = KINDS.iter().filter(|kind| !self.faults.contains_key(kind));
        let events = EVENTS.iter().filter(|event| !self.events.contains_key(*event));
        kinds.map(|kind| format!("{kind:?}")).chain(events.map(ToString::to_string)).collect()
    }
}

fn event(notice: &Notice) -> Option<&'static str> {
    Some(match notice {
        Notice::Transition { reason, .. } => match reason {
            Reason::NoResponse => "active: no active router was heard",
            Reason::Resigned => "active: the active router gave up",
            Reason::Preempted => "active: preempted",
            Reason::Outranked(_) => "backup: outranked",
            Reason::Shutdown => "initialize: shutdown",
            _ => return None,
        },
        Notice::Reannounced { reason: Reason::ConflictWon(_), .. } => "conflict won",
        Notice::Reannounced { reason: Reason::Overslept, .. } => "overslept as active",
        Notice::Overslept { .. } => "overslept as backup",
        Notice::AddressFailed { .. } => "address failed",
        Notice::Differs { .. } => "advert differs",
        Notice::Discarded { .. } => "discarded",
        Notice::DumpFailed { .. } => "dump failed",
        Notice::HeldByOther { .. } => "held by other",
        Notice::Leftovers { .. } => "leftovers",
        Notice::Misconfigured { .. } => "misconfigured peer",
        Notice::NotReady { why: NotReady::NoCarrier, .. } => "no carrier",
        Notice::NotReady { why: NotReady::NoInterface, .. } => "no interface",
        Notice::Overrun => "overrun",
        Notice::Restoring { .. } => "restoring",
        Notice::SendFailed { .. } => "send failed",
        _ => return None,
    })
}
