//! What the node shows of itself: for operators, the control socket and metrics.

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;

use super::claims::Holder;
use super::entry::{Counters, Entry};
use super::kernel::Port;
use super::notice::{CannotPlace, Conflict, DoesNotYield, Foreign, NotSent, OwnAddress, Stray};
use super::rivals::{Misconfigured, Rival};
use super::router::{State, Waiting};
use super::{Dump, Instant, Node, Phase};
use crate::config::{Prefix, RouterName};
use crate::wire::vrrp::SumForm;

/// Everything that one node shows.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct NodeStatus {
    /// `reading`, `cleaning`, `running` or `stopping`.
    pub phase: &'static str,
    /// Whether what is known of links and addresses is up to date.
    pub kernel_in_sync: bool,
    /// Each router, in the order of their names.
    pub routers: Vec<RouterStatus>,
    /// Each pair of sockets.
    pub ports: Vec<PortStatus>,
}

/// One router.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct RouterStatus {
    /// Its name.
    pub name: String,
    /// On the wire.
    pub vrid: u8,
    /// 2 or 3.
    pub version: u8,
    /// `IPv4` or `IPv6`.
    pub family: String,
    /// Where it runs.
    pub interface: String,
    /// `initialize`, `backup` or `active`.
    pub state: &'static str,
    /// Milliseconds since it is in this state.
    pub since_ms: u64,
    /// Why it came into this state.
    pub reason: Option<String>,
    /// Why it does not take part; absent when it does.
    pub not_ready: Option<String>,
    /// A backup that will not take over: which misconfigured advert it heard.
    pub held_back: Option<String>,
    /// Beside the active router that it knows, or is, there is one that is configured otherwise,
    /// or another host says that it has one of its VIPs. The first of `conflicts`.
    pub conflict: Option<String>,
    /// An active router's interface is down or has no carrier, for less than its `carrier_delay`:
    /// how long it stays active.
    pub link_lost: Option<String>,
    /// A VIP that the kernel does not take, which the router bears as nobody else took over.
    pub unplaced: Option<String>,
    /// Everybody else who has, or seems to have, what this router has: one text each.
    pub conflicts: Vec<String>,
    /// 1 to 255.
    pub priority: u8,
    /// Seconds.
    pub advert_interval: String,
    /// Active_Adver_Interval in seconds.
    pub active_adver_interval: String,
    /// The address that adverts are sent from.
    pub source: Option<String>,
    /// Why it is that one of the interface's.
    pub source_reason: Option<String>,
    /// Who was heard last: address, priority and milliseconds ago.
    pub heard: Option<HeardStatus>,
    /// The form of the checksum last heard: `rfc9568` or `pseudo_header`.
    pub checksum_heard: Option<&'static str>,
    /// Advertised VIPs.
    pub vips: Vec<AddressStatus>,
    /// The others.
    pub vips_excluded: Vec<AddressStatus>,
    /// VIPs that an advert has no room for.
    pub not_advertised: usize,
    /// Seconds that the kernel keeps an address without the daemon; absent: for ever.
    pub address_lifetime: Option<u32>,
    /// Counters since the router was configured.
    pub counters: Counters,
}

/// The last advert heard.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct HeardStatus {
    /// The sender.
    pub address: String,
    /// Its priority.
    pub priority: u8,
    /// How long ago, in milliseconds.
    pub ago_ms: u64,
}

/// One VIP.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct AddressStatus {
    /// The address, with its prefix length unless it is a host address.
    pub address: String,
    /// `present`, `absent`, `missing` (wanted, and not there yet or again), `leaving` (there, and
    /// not wanted), or `not ours` (on the interface, and not from havip).
    pub state: &'static str,
    /// Of one that is not ours: what is there.
    pub other: Option<String>,
    /// Why it may not serve as a VIP there.
    pub warning: Option<&'static str>,
}

/// One pair of sockets.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct PortStatus {
    /// Its interface's name, or index if it is gone.
    pub interface: String,
    /// `IPv4` or `IPv6`.
    pub family: String,
    /// Packets discarded, by reason.
    pub discarded: BTreeMap<&'static str, u64>,
    /// Packets for VRIDs that nobody here runs.
    pub unknown_vrid: u64,
    /// Packets that were sent to this box alone and not to the group.
    pub unicast: u64,
    /// Packets that were no IP packet.
    pub malformed: u64,
    /// Packets that could not be sent through this interface, all kinds.
    pub send_errors: u64,
    /// Why packets could not be sent through it, if that went on and was not long ago.
    pub not_sent: Option<String>,
}

/// A router's state in short, for those who tell others.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RouterState {
    /// Which.
    pub name: RouterName,
    /// `initialize`, `backup` or `active`.
    pub state: &'static str,
    /// Whether it holds the addresses.
    pub active: bool,
}

impl Node {
    /// What is shown at `now`.
    #[must_use]
    pub fn status(&self, now: Instant) -> NodeStatus {
        let routers = self
            .by_name
            .values()
            .filter_map(|id| self.entries.get(id))
            .map(|entry| self.router_status(now, entry))
            .collect();
        let ports = self.ports.wanted().map(|port| self.port_status(now, port)).collect();
        NodeStatus {
            phase: match self.phase {
                Phase::Reading => "reading",
                Phase::Cleaning => "cleaning",
                Phase::Running => "running",
                Phase::Stopping => "stopping",
            },
            kernel_in_sync: self.dump == Dump::Idle,
            routers,
            ports,
        }
    }

    /// How many of everything it remembers that can grow: each is bounded by the configuration, by
    /// what the kernel has, or by a constant, whatever others send.
    pub fn sizes(&self) -> impl Iterator<Item = (&'static str, usize)> {
        let of_entries =
            |size: fn(&Entry) -> usize| self.entries.values().map(|entry| size(entry)).sum();
        let own = [
            ("routers", self.entries.len()),
            ("routers by name", self.by_name.len()),
            ("routers by interface", self.by_interface.values().map(BTreeSet::len).sum()),
            ("routers by VRID", self.by_vrid.len()),
            ("routers by VIP", self.by_vip.values().map(Vec::len).sum()),
            ("routers to look at", self.to_look.len()),
            ("timers", self.timers.len()),
            ("changes", self.changes.len()),
            ("effects", self.effects.len()),
            ("places", of_entries(|entry| entry.places.len())),
            ("VIPs on the box", self.strays.len()),
            ("peers", of_entries(|entry| entry.rivals.peers())),
            ("checksum forms", of_entries(|entry| entry.sums.len())),
            ("unfit VIPs", of_entries(|entry| entry.unfit.len())),
            ("packets kept", of_entries(Entry::kept)),
        ];
        own.into_iter()
            .chain(self.links.sizes())
            .chain(self.ports.sizes())
            .chain(self.flaps.sizes())
            .chain(self.limits.sizes())
            .chain(self.claims.sizes())
            .chain(self.announcer.sizes())
            .chain(self.prober.sizes())
            .chain(self.watches.sizes())
            .chain(self.fence.sizes())
    }

    /// Every router's state.
    pub fn states(&self) -> impl Iterator<Item = RouterState> {
        self.entries.values().map(|entry| RouterState {
            name: entry.router.config().name.clone(),
            state: entry.state_name(),
            active: entry.router.is_active(),
        })
    }

    fn router_status(&self, now: Instant, entry: &Entry) -> RouterStatus {
        let config = entry.router.config();
        let addresses = |prefixes: &[Prefix]| {
            prefixes.iter().map(|prefix| self.address_status(entry, *prefix)).collect()
        };
        let guarded =
            matches!(entry.router.state(), State::Backup { waiting: Waiting::Guarded, .. });
        let tell = |Misconfigured { src, mismatch, .. }: Misconfigured| {
            format!("{src} advertises this router's addresses {mismatch}; {}", mismatch.way_out())
        };
        let rivals = &entry.rivals;
        let held_back = rivals.misconfigured.filter(|_| guarded).map(tell);
        let misconfigured = rivals.misconfigured.filter(|other| !guarded && now < other.until);
        let foreign = rivals.foreign.filter(|other| now < other.until);
        let foreign = foreign.map(|other| Foreign(&other.src, config.vrid).to_string());
        let lacking = rivals.lacking.filter(|other| now < other.until && !entry.router.is_active());
        let lacking = lacking.map(|other| {
            format!(
                "{} is active and does not advertise {}, so that possibly no gateway has it; set \
                 the same vips on all gateways",
                other.src, other.address
            )
        });
        let stray = rivals.stray.filter(|stray| stray.is_told).and_then(|stray| {
            let (index, address) = stray.place;
            let interface = &self.links.link(index)?.name;
            let is_own = self.is_its_own(entry, &stray.place);
            Some(Stray { address: &address, interface, is_own }.to_string())
        });
        let same_address = rivals.shown_same_address(now).zip(entry.source);
        let same_address =
            same_address.map(|(other, source)| OwnAddress(&source, other.mac).to_string());
        let loser = rivals.does_not_yield(now).map(|src| DoesNotYield(&src).to_string());
        let claimed = rivals.shown_rival(now).map(|Rival { address, mac, .. }| {
            let ours = entry.link.and_then(|index| self.links.link(index)?.mac);
            Conflict { address: &address, ours, theirs: mac }.to_string()
        });
        let conflicts: Vec<String> = misconfigured
            .map(tell)
            .into_iter()
            .chain(stray)
            .chain(same_address)
            .chain(foreign)
            .chain(lacking)
            .chain(loser)
            .chain(claimed)
            .collect();
        RouterStatus {
            name: config.name.to_string(),
            vrid: config.vrid.number(),
            version: config.version.number(),
            family: config.family.to_string(),
            interface: config.interface.to_string(),
            state: entry.state_name(),
            since_ms: millis(now, entry.since),
            reason: entry.reason.map(|reason| reason.to_string()),
            not_ready: entry.not_ready.as_ref().map(ToString::to_string),
            held_back,
            unplaced: entry.unplaced.last.map(|(address, errno)| {
                let then = if entry.unplaced.alone {
                    "; nobody else took over: active without it"
                } else {
                    ""
                };
                format!("{}{then}", CannotPlace(&address, errno))
            }),
            link_lost: entry.link_lost_at.map(|at| {
                let left = (at + config.carrier_delay).since(now).as_secs_f64();
                format!(
                    "{} is down or has no carrier; this router gives up in {left:.0} s unless it comes \
                     back (carrier_delay)",
                    config.interface
                )
            }),
            conflict: conflicts.first().cloned(),
            conflicts,
            priority: config.priority.number(),
            advert_interval: config.advert_interval.to_string(),
            active_adver_interval: entry.router.active_adver_interval().to_string(),
            source: entry.source.map(|source| source.to_string()),
            source_reason: entry.source_fit.map(|fit| fit.to_string()),
            heard: entry.heard.map(|heard| HeardStatus {
                address: heard.src.to_string(),
                priority: heard.priority,
                ago_ms: millis(now, heard.at),
            }),
            checksum_heard: entry.sum_heard.map(|sum| match sum {
                SumForm::Message => "rfc9568",
                SumForm::PseudoHeader => "pseudo_header",
            }),
            vips: addresses(&config.vips),
            vips_excluded: addresses(&config.vips_excluded),
            not_advertised: if entry.mtu > 0 { entry.not_advertised() } else { 0 },
            address_lifetime: entry.lifetime,
            counters: entry.counters.clone(),
        }
    }

    fn port_status(&self, now: Instant, port: Port) -> PortStatus {
        let counters = self.ports.counters.get(&port).cloned().unwrap_or_default();
        let unsent = self.ports.send_errors.get(&port.index);
        let name = self.links.link(port.index).map(|link| link.name.to_string());
        let not_sent = unsent.filter(|unsent| unsent.goes_on(now));
        PortStatus {
            interface: name.unwrap_or_else(|| port.index.0.to_string()),
            family: port.family.to_string(),
            discarded: counters.discarded.iter().map(|(why, count)| (why.name(), *count)).collect(),
            unknown_vrid: counters.unknown_vrid,
            unicast: counters.unicast,
            malformed: counters.malformed,
            send_errors: unsent.map_or(0, |unsent| unsent.count),
            not_sent: not_sent.map(|of| NotSent(of.errno, now.since(of.at)).to_string()),
        }
    }

    fn address_status(&self, entry: &Entry, prefix: Prefix) -> AddressStatus {
        let holder = entry.link.map_or(Holder::Nobody, |index| {
            self.claims.holder(&(index, Prefix::host(prefix.ip)), &self.links)
        });
        let state = match (holder, entry.router.is_active()) {
            (Holder::Other(_), _) => "not ours",
            (Holder::Ours, true) => "present",
            (Holder::Ours, false) => "leaving",
            (Holder::Nobody, true) => "missing",
            (Holder::Nobody, false) => "absent",
        };
        let other = match holder {
            Holder::Other(other) => Some(other.to_string()),
            Holder::Nobody | Holder::Ours => None,
        };
        let warning = entry.unfit.get(&prefix.ip).copied();
        AddressStatus { address: prefix.to_string(), state, other, warning }
    }
}

fn millis(now: Instant, then: Instant) -> u64 {
    u64::try_from(now.since(then).as_millis()).unwrap_or(u64::MAX)
}
