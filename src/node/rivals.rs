//! Who else has, or says that he has, what a router has: each reason for which two hosts may answer
//! for one VIP, kept until it is over, so that it can be shown.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;

use super::entry::{PEERS_MAX, RouterId};
use super::links::Place;
use super::notice::Mismatch;
use super::router::Heard;
use super::{Instant, Node};
use crate::config;
use crate::wire::Mac;
use crate::wire::vrrp::Centis;

/// How long gateways of one cluster may take to replace all addresses of a router, one after the
/// other, without being two clusters.
const REPLACING_MAX: Duration = Duration::from_secs(60);
/// How long another's claim to a VIP is shown if it cannot be asked whether it still has it: gateways
/// announce what they have each minute.
const RIVAL_SHOWN: Duration = Duration::from_secs(90);
/// Questions that a rival may leave without an answer: one may be lost.
const UNANSWERED_MAX: u32 = 2;
/// A losing active router yields with the first advert that it hears. One that goes on for so many
/// intervals hears none.
const LOSES_INTERVALS: u32 = 5;
/// How long what looks like two owners waits, beyond an interval of a second at most: an ordinary
/// hand-over is none, in whatever order its packets and addresses are heard of.
const JUDGE_AFTER: Duration = Duration::from_millis(200);
const INTERVAL_MAX: Duration = Duration::from_secs(1);
/// One that was silent for so many has yielded, and took over anew: no backup does so earlier.
const YIELDED_INTERVALS: u32 = 3;

/// How long an ordinary hand-over explains what is heard or found.
pub(super) fn judged_after(config: &config::Router) -> Duration {
    config.advert_interval.duration().min(INTERVAL_MAX) + JUDGE_AFTER
}

/// The last advert that names this router's addresses and is configured otherwise.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Misconfigured {
    pub(super) src: IpAddr,
    pub(super) mismatch: Mismatch,
    /// Until when its sender must be taken for active.
    pub(super) until: Instant,
}

/// The last advert of another cluster that has the same VRID.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Foreign {
    pub(super) src: IpAddr,
    /// Until when its sender must be taken for active.
    pub(super) until: Instant,
}

/// An active router that does not advertise an address which this one has in its list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Lacking {
    pub(super) src: IpAddr,
    pub(super) address: IpAddr,
    /// Until when it must be taken for active.
    pub(super) until: Instant,
}

/// Another's claim to an address of ours.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Rival {
    pub(super) address: IpAddr,
    pub(super) mac: Mac,
    /// When it was heard last.
    pub(super) at: Instant,
    /// When ours was announced because of it.
    pub(super) defended_at: Instant,
    /// How often it was asked for the address since it was heard last.
    pub(super) asked: u32,
}

/// A VIP that another put on this box.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct StrayVip {
    pub(super) place: Place,
    pub(super) since: Instant,
    /// It was there for so long that no hand-over explains it.
    pub(super) is_told: bool,
}

/// A claim that was heard a moment ago: the advert of a new active router may still be on its way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Claimed {
    pub(super) place: Place,
    pub(super) mac: Mac,
    pub(super) judge_at: Instant,
}

/// An active router of less precedence that was heard while active.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Loser {
    pub(super) src: IpAddr,
    since: Instant,
    at: Instant,
    interval: Centis,
    said: bool,
}

impl Loser {
    fn is_heard(&self, now: Instant) -> bool {
        now.since(self.at) < self.interval.duration() * YIELDED_INTERVALS
    }

    fn is_deaf(&self) -> bool {
        self.at.since(self.since) >= self.interval.duration() * LOSES_INTERVALS
    }
}

/// Another who has the address that adverts are sent from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct SameAddress {
    pub(super) mac: Mac,
    pub(super) at: Instant,
}

/// Everything that one router knows of others who have what it has.
#[derive(Debug, Default)]
pub(super) struct Rivals {
    pub(super) misconfigured: Option<Misconfigured>,
    pub(super) foreign: Option<Foreign>,
    /// Those whose adverts named an address of this router, and since when they do not any more.
    peers: BTreeMap<IpAddr, Option<Instant>>,
    pub(super) lacking: Option<Lacking>,
    /// A VIP that another put on this box, which is not active.
    pub(super) stray: Option<StrayVip>,
    /// Who has the address that adverts are sent from.
    pub(super) same_address: Option<SameAddress>,
    pub(super) claim: Option<Claimed>,
    pub(super) rival: Option<Rival>,
    loser: Option<Loser>,
}

impl Rivals {
    /// The router's state is another: what others said of the one before is out of date.
    pub(super) const fn moved(&mut self) {
        (self.claim, self.rival, self.loser) = (None, None, None);
    }

    /// An advert from here names an address of this router.
    pub(super) fn mate(&mut self, src: IpAddr) {
        if self.peers.len() < PEERS_MAX || self.peers.contains_key(&src) {
            self.peers.insert(src, None);
        }
    }

    /// Whether one who names none of this router's addresses belongs to its cluster all the same: he
    /// named one a while ago, before all were replaced here or there.
    pub(super) fn is_mate(&mut self, now: Instant, src: IpAddr) -> bool {
        let Some(since) = self.peers.get_mut(&src) else { return false };
        let is_mate = now.since(*since.get_or_insert(now)) < REPLACING_MAX;
        if !is_mate {
            self.peers.remove(&src);
        }
        is_mate
    }

    pub(super) fn peers(&self) -> usize {
        self.peers.len()
    }

    /// An advert that takes part in the election: it decides who has the addresses, and explains
    /// why its sender said that he has them.
    pub(super) const fn elected(&mut self) {
        (self.claim, self.rival) = (None, None);
    }

    /// A losing advert was heard while active; returns whether its sender is to be named now.
    pub(super) fn lost(&mut self, now: Instant, heard: Heard, own: Centis) -> bool {
        let interval = own.max(heard.interval);
        let known = self.loser.filter(|last| last.src == heard.src && last.is_heard(now));
        let mut loser = match known {
            Some(last) => Loser { at: now, ..last },
            None => Loser { src: heard.src, since: now, at: now, interval, said: false },
        };
        let says = loser.is_deaf() && !loser.said;
        loser.said |= says;
        self.loser = Some(loser);
        says
    }

    /// Who advertises with less precedence and does not yield.
    pub(super) fn does_not_yield(&self, now: Instant) -> Option<IpAddr> {
        self.loser.filter(|loser| loser.is_deaf() && loser.is_heard(now)).map(|loser| loser.src)
    }

    /// Another has the address that adverts are sent from; returns whether that is news.
    pub(super) fn has_twin(&mut self, now: Instant, mac: Mac) -> bool {
        let known = self.shown_same_address(now).is_some_and(|other| other.mac == mac);
        self.same_address = Some(SameAddress { mac, at: now });
        !known
    }

    /// The one who has it and was heard not long ago.
    pub(super) fn shown_same_address(&self, now: Instant) -> Option<SameAddress> {
        self.same_address.filter(|other| now.since(other.at) < RIVAL_SHOWN)
    }

    /// An address is asked for. Who claimed it and did not answer before has it no more.
    pub(super) fn asks(&mut self, address: IpAddr) {
        let Some(rival) = self.rival.as_mut().filter(|rival| rival.address == address) else {
            return;
        };
        rival.asked += 1;
        if rival.asked > UNANSWERED_MAX {
            self.rival = None;
        }
    }

    /// Whose claim to an address is not over yet.
    pub(super) fn shown_rival(&self, now: Instant) -> Option<Rival> {
        self.rival.filter(|rival| now.since(rival.at) < RIVAL_SHOWN)
    }
}

impl Node {
    /// Takes note of whose the VIPs of a router are.
    pub(super) fn index_vips(&mut self, id: RouterId, config: &config::Router) {
        for prefix in config.vips.iter().chain(&config.vips_excluded) {
            let ids = self.by_vip.entry(prefix.ip).or_default();
            if !ids.contains(&id) {
                ids.push(id);
            }
        }
    }

    /// Forgets it.
    pub(super) fn unindex_vips(&mut self, id: RouterId, config: &config::Router) {
        for prefix in config.vips.iter().chain(&config.vips_excluded) {
            if let Some(ids) = self.by_vip.get_mut(&prefix.ip) {
                ids.retain(|other| *other != id);
                if ids.is_empty() {
                    self.by_vip.remove(&prefix.ip);
                }
            }
        }
    }
}
