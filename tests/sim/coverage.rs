//! What a run has seen: a fault that was never injected, an event that never came, or a rule that
//! was never asked for, tests nothing.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use havip::node::notice::{NotReady, Notice};
use havip::node::router::Reason;
use havip::sim::Turn;

use super::faults::{KINDS, Kind};

/// Events that a run of many schedules has to see.
const EVENTS: [&str; 24] = [
    "active: no active router was heard",
    "active: the active router gave up",
    "active: preempted",
    "active: priority 255",
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
    "vacated",
];

/// What sites a run of many schedules has to have.
const FEATURES: [&str; 26] = [
    "10 ms",
    "IPv4",
    "IPv6",
    "VIPs with a network",
    "address_lifetime",
    "carrier_delay",
    "checksum",
    "different intervals",
    "five routers",
    "four gateways",
    "listen_first",
    "listen_first 0",
    "no priority 255",
    "password",
    "policy",
    "preempt off",
    "preempt on",
    "preempt_delay",
    "priority 255",
    "profile",
    "several VIPs",
    "several routers",
    "version 2",
    "version 3",
    "vips_excluded",
    "yield_on_send_errors",
];

/// Counts by kind of fault, by event, by what sites had and by rule.
#[derive(Clone, Debug, Default)]
pub(crate) struct Coverage {
    pub(crate) schedules: u64,
    /// Moments at which something happened, and turns that daemons took in them.
    pub(crate) steps: u64,
    pub(crate) turns: u64,
    pub(crate) frames: u64,
    /// By the world's clock.
    pub(crate) time: Duration,
    pub(crate) faults: BTreeMap<Kind, u64>,
    pub(crate) events: BTreeMap<&'static str, u64>,
    pub(crate) features: BTreeMap<&'static str, u64>,
    /// Times that each rule was asked for.
    pub(crate) rules: BTreeMap<&'static str, u64>,
}

impl Coverage {
    pub(crate) fn saw(&mut self, event: &'static str) {
        *self.events.entry(event).or_default() += 1;
    }

    pub(crate) fn asked(&mut self, rule: &'static str) {
        *self.rules.entry(rule).or_default() += 1;
    }

    pub(crate) fn turn(&mut self, turn: &Turn) {
        self.turns += 1;
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
        self.schedules += other.schedules;
        self.steps += other.steps;
        self.turns += other.turns;
        self.frames += other.frames;
        self.time += other.time;
        add(&mut self.faults, &other.faults);
        add(&mut self.events, &other.events);
        add(&mut self.features, &other.features);
        add(&mut self.rules, &other.rules);
    }

    /// What a run of many schedules should have seen and has not.
    pub(crate) fn missing(&self) -> Vec<String> {
        let kinds = KINDS.iter().filter(|kind| !self.faults.contains_key(kind));
        let events = EVENTS.iter().filter(|event| !self.events.contains_key(*event));
        let features = FEATURES.iter().filter(|feature| !self.features.contains_key(*feature));
        let words = events.chain(features).map(ToString::to_string);
        kinds.map(|kind| format!("{kind:?}")).chain(words).collect()
    }
}

impl fmt::Display for Coverage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { steps, turns, frames, time, .. } = self;
        let (hours, minutes) = (time.as_secs() / 3600, time.as_secs() / 60 % 60);
        writeln!(
            f,
            "{steps} steps, {turns} turns, {frames} frames, {hours} h {minutes} min of virtual time"
        )?;
        let faults = self.faults.iter().map(|(kind, count)| (format!("{kind:?}"), *count));
        let sums = [self.faults.values().sum::<u64>(), self.rules.values().sum()];
        list(f, &format!("{} faults injected", sums[0]), &faults.collect())?;
        list(f, "events", &self.events)?;
        list(f, "schedules with", &self.features)?;
        list(f, &format!("{} times a rule was asked for", sums[1]), &self.rules)
    }
}

fn add<T: Copy + Ord>(to: &mut BTreeMap<T, u64>, from: &BTreeMap<T, u64>) {
    for (what, count) in from {
        *to.entry(*what).or_default() += count;
    }
}

/// All counts, in lines of a terminal's width.
fn list<T: AsRef<str>>(
    f: &mut fmt::Formatter<'_>,
    what: &str,
    counts: &BTreeMap<T, u64>,
) -> fmt::Result {
    write!(f, "{what}:")?;
    let mut width = usize::MAX;
    for (what, count) in counts {
        let text = format!("{count} {}", what.as_ref().replace('_', " "));
        if width.saturating_add(text.len()) > 96 {
            write!(f, "\n  {text}")?;
            width = text.len();
        } else {
            write!(f, ", {text}")?;
            width += 2 + text.len();
        }
    }
    writeln!(f)
}

fn event(notice: &Notice) -> Option<&'static str> {
    Some(match notice {
        Notice::Transition { reason, .. } => match reason {
            Reason::NoResponse => "active: no active router was heard",
            Reason::Resigned => "active: the active router gave up",
            Reason::Preempted => "active: preempted",
            Reason::Owner => "active: priority 255",
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
        Notice::Restored { .. } => "restoring",
        Notice::SendFailed { .. } => "send failed",
        Notice::Vacated { .. } => "vacated",
        _ => return None,
    })
}
