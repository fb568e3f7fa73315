//! How often the same is told: what goes on for days must not fill a disk, and its log has to say
//! how much of it was left out.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;

use super::{Difference, Notice};
use crate::node::Instant;
use crate::node::kernel::Errno;
use crate::node::router::Reason;
use crate::wire::vrrp::Discard;

/// Notices of one kind about one thing: at most one in this time.
const PAUSE: Duration = Duration::from_secs(1);
/// Of what goes on as it is each pause is twice as long as the one before, up to this.
const PAUSE_MAX: Duration = Duration::from_secs(600);
/// What was not heard of for so long is over, and news when it begins again. Gateways announce what
/// they have each minute.
const OVER: Duration = Duration::from_secs(90);
/// Kinds and things that are remembered.
const THINGS_MAX: usize = 4096;
/// The same of one kind and thing: others' addresses, which anyone can invent.
const SAME_MAX: usize = 16;

/// Which notices are limited; each kind apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Kind {
    AddressConflict,
    AddressFailed,
    ChecksumForms,
    Differs,
    Discarded(Discard),
    DoesNotYield,
    DumpFailed,
    ForeignCluster,
    HeldByOther,
    Misconfigured,
    Overrun,
    Overslept,
    OwnAddress,
    Reannounced,
    Rejoined,
    Restored,
    SendFailed,
    Stray,
    UnfitVip,
    Vacated,
}

/// The kind of a notice, and about which router, interface or address of this box it is.
type Thing = (Kind, String);
/// What makes two notices of one kind about one thing the same: who else is concerned, and how.
type Same = (Option<IpAddr>, u64);

/// What a notice is held back by.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Key {
    thing: Thing,
    /// Of what may go on for ever.
    same: Option<Same>,
}

/// What was told a while ago.
#[derive(Debug, Default)]
pub(in crate::node) struct Limits(BTreeMap<Thing, Told>);

#[derive(Debug, Default)]
struct Told {
    at: Option<Instant>,
    seen_at: Instant,
    left_out: u64,
    same: Vec<(Same, GoesOn)>,
}

#[derive(Clone, Copy, Debug)]
struct GoesOn {
    told_at: Instant,
    seen_at: Instant,
    pause: Duration,
}

impl Limits {
    /// Whether a notice is to be told, and how many of its kind about the same thing were not since
    /// the last one.
    pub(in crate::node) fn tells(&mut self, now: Instant, notice: &Notice) -> Option<u64> {
        key(notice).map_or(Some(0), |key| self.takes(now, key))
    }

    fn takes(&mut self, now: Instant, Key { thing, same }: Key) -> Option<u64> {
        if self.0.len() >= THINGS_MAX && !self.0.contains_key(&thing) {
            self.0.clear();
        }
        let told = self.0.entry(thing).or_default();
        if now.since(std::mem::replace(&mut told.seen_at, now)) >= OVER {
            told.left_out = 0;
        }
        told.same.retain(|(_, goes_on)| now.since(goes_on.seen_at) < OVER);
        let known = told.same.iter_mut().find(|(of, _)| Some(*of) == same);
        let known = known.map(|(_, goes_on)| {
            goes_on.seen_at = now;
            *goes_on
        });
        let waits = known.is_some_and(|goes_on| now.since(goes_on.told_at) < goes_on.pause);
        if waits || told.at.is_some_and(|at| now.since(at) < PAUSE) {
            told.left_out = told.left_out.saturating_add(1);
            return None;
        }
        told.at = Some(now);
        if let Some(same) = same {
            let pause = known.map_or(PAUSE, |goes_on| (goes_on.pause * 2).min(PAUSE_MAX));
            told.same.retain(|(of, _)| *of != same);
            if told.same.len() >= SAME_MAX {
                told.same.remove(0);
            }
            told.same.push((same, GoesOn { told_at: now, seen_at: now, pause }));
        }
        Some(std::mem::take(&mut told.left_out))
    }

    /// How much it remembers.
    pub(in crate::node) fn sizes(&self) -> [(&'static str, usize); 2] {
        let same = self.0.values().map(|told| told.same.len()).sum();
        [("limits", self.0.len()), ("limits of what goes on", same)]
    }
}

/// How often such notices are told; `None`: each.
fn key(notice: &Notice) -> Option<Key> {
    let of = |kind: Kind, thing: &str, same: Option<Same>| {
        Some(Key { thing: (kind, thing.to_owned()), same })
    };
    let by = |src: &IpAddr, how: u64| Some((Some(*src), how));
    let how = |how: u64| Some((None, how));
    let by_errno = |errno: &Errno| Some((None, u64::from(errno.0.unsigned_abs())));
    match notice {
        Notice::Misconfigured { router, src, mismatch, backup } => {
            let same = by(src, mismatch.number() * 2 + u64::from(*backup));
            of(Kind::Misconfigured, router.as_str(), same)
        }
        Notice::ForeignCluster { router, src, .. } => {
            of(Kind::ForeignCluster, router.as_str(), by(src, 0))
        }
        Notice::Differs { router, src, what } => {
            of(Kind::Differs, router.as_str(), by(src, u64::from(*what == Difference::Addresses)))
        }
        Notice::ChecksumForms { router } => of(Kind::ChecksumForms, router.as_str(), how(0)),
        Notice::Reannounced { router, reason } => {
            let same = match reason {
                Reason::ConflictWon(src) | Reason::Outranked(src) => by(src, 0),
                _ => None,
            };
            of(Kind::Reannounced, router.as_str(), same)
        }
        Notice::Restored { router, .. } => of(Kind::Restored, router.as_str(), how(0)),
        Notice::Overslept { router, .. } => of(Kind::Overslept, router.as_str(), how(0)),
        Notice::SendFailed { interface, errno, .. } => {
            of(Kind::SendFailed, interface.as_str(), by_errno(errno))
        }
        Notice::AddressFailed { errno, .. } => of(Kind::AddressFailed, "", by_errno(errno)),
        Notice::Overrun => of(Kind::Overrun, "", how(0)),
        Notice::DumpFailed { errno } => of(Kind::DumpFailed, "", by_errno(errno)),
        Notice::AddressConflict { router, address, theirs, .. } => {
            let mac = theirs.0.iter().fold(0, |mac, byte| mac << 8 | u64::from(*byte));
            of(Kind::AddressConflict, router.as_str(), by(address, mac))
        }
        Notice::DoesNotYield { router, src } => of(Kind::DoesNotYield, router.as_str(), by(src, 0)),
        Notice::OwnAddress { interface, .. } => of(Kind::OwnAddress, interface.as_str(), None),
        Notice::Rejoined { interface, .. } => of(Kind::Rejoined, interface.as_str(), how(0)),
        Notice::Stray { router, address, interface, .. } => {
            of(Kind::Stray, &format!("{router} {address} {interface}"), None)
        }
        Notice::UnfitVip { address, .. } => of(Kind::UnfitVip, &address.to_string(), None),
        Notice::HeldByOther { other, .. } => {
            of(Kind::HeldByOther, &other.prefix.ip.to_string(), None)
        }
        Notice::Vacated { address, .. } => of(Kind::Vacated, &address.to_string(), None),
        Notice::Discarded { interface, reason, .. } => {
            of(Kind::Discarded(*reason), interface.as_str(), how(0))
        }
        Notice::After { notice, .. } => key(notice),
        Notice::Leftovers { .. }
        | Notice::NotAdvertised { .. }
        | Notice::NotReady { .. }
        | Notice::Flapping { .. }
        | Notice::SourceChanged { .. }
        | Notice::Stopping
        | Notice::Transition { .. } => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Router;
    use crate::node::Event;
    use crate::node::notice::Level;
    use crate::node::testing::{Bench, ETH0, advert, router};
    use crate::wire::Mac;
    use crate::wire::vrrp::Version;

    /// The lines about what `happens` in each of so many seconds, and a status after that.
    fn lines(seconds: u64, happens: impl Fn(&mut Bench, u64)) -> (Vec<String>, Bench) {
        let mut bench = Bench::new(vec![router(51)]);
        bench.pass(Duration::from_secs(10));
        assert_eq!(bench.router().state, "active");
        let mut lines = Vec::new();
        for second in 0..seconds {
            happens(&mut bench, second);
            let told =
                |notice: &Notice| (notice.level() == Level::Error).then(|| notice.to_string());
            lines.extend(bench.actions.notices.iter().filter_map(told));
            let end = bench.now + Duration::from_secs(1);
            while let Some(at) = bench.node.next_deadline().filter(|at| *at <= end) {
                bench.now = bench.now.max(at);
                bench.timeout();
                lines.extend(bench.actions.notices.iter().filter_map(told));
                bench.settle();
            }
            bench.now = end;
        }
        (lines, bench)
    }

    #[test]
    fn a_rival_that_stays_for_an_hour_leaves_a_few_lines_with_counts_and_shows_in_the_status() {
        let claim = |bench: &mut Bench, _| {
            let mac = Mac([2, 0, 0, 0, 0, 9]);
            bench.event(Event::Claimed { index: ETH0, ip: [10, 0, 0, 51].into(), mac });
        };
        let (lines, bench) = lines(3_600, claim);
        assert!((10..20).contains(&lines.len()), "{}: {lines:#?}", lines.len());
        assert!(lines.iter().all(|line| line.contains("02:00:00:00:00:09")));
        assert!(!lines[0].contains("more of this kind") && lines[9].contains("more of this kind"));
        assert!(
            bench.router().conflict.is_some() && bench.router().counters.address_conflicts > 999
        );
    }

    #[test]
    fn misconfigured_peers_beside_an_active_router_leave_a_few_lines_each() {
        let other = Router { version: Version::V2, ..router(51) };
        let adverts = |bench: &mut Bench, second: u64| {
            let peer = if second.is_multiple_of(2) { "10.0.0.202" } else { "10.0.0.203" };
            bench.packet(peer, &advert(&other, peer, 100));
        };
        let (lines, bench) = lines(3_600, adverts);
        for peer in ["10.0.0.202", "10.0.0.203"] {
            let count = lines.iter().filter(|line| line.contains(peer)).count();
            assert!((5..20).contains(&count), "{count}: {lines:#?}");
        }
        assert!(bench.router().conflict.is_some_and(|why| why.contains("10.0.0.20")));
    }

    fn of(same: Option<u8>) -> Key {
        let same = same.map(|last| (Some(IpAddr::from([10, 0, 0, last])), 0));
        Key { thing: (Kind::Misconfigured, "51".to_owned()), same }
    }

    fn at(millis: u64) -> Instant {
        Instant::ZERO + Duration::from_millis(millis)
    }

    /// When what happens each 100 ms is told within a time, and how many are left out before.
    fn told(limits: &mut Limits, seconds: std::ops::Range<u64>, same: u8) -> Vec<(u64, u64)> {
        let all = (seconds.start * 10..seconds.end * 10).map(|tenth| tenth * 100);
        all.filter_map(|millis| Some((millis / 1_000, limits.takes(at(millis), of(Some(same)))?)))
            .collect()
    }

    #[test]
    fn what_goes_on_is_told_at_once_then_less_and_less_with_what_was_left_out() {
        let mut limits = Limits::default();
        let all = told(&mut limits, 0..3_000, 7);
        let head = [(0, 0), (1, 9), (3, 19), (7, 39), (15, 79), (31, 159)];
        assert_eq!(all[..6], head);
        let times: Vec<u64> = all.iter().map(|(at, _)| *at).collect();
        assert_eq!(times[6..], [63, 127, 255, 511, 1_023, 1_623, 2_223, 2_823]);
        assert!(all[11..].iter().all(|(_, left_out)| *left_out == 5_999), "{all:?}");
        // Another is news.
        assert_eq!(limits.takes(at(3_000_000), of(Some(8))), Some(1_769));
        // So is the first one once it was over for a while.
        assert_eq!(limits.takes(at(3_080_000), of(Some(7))), None);
        assert_eq!(limits.takes(at(3_170_000), of(Some(7))), Some(0));
    }

    #[test]
    fn many_that_are_invented_are_one_a_second_and_few_are_remembered() {
        let mut limits = Limits::default();
        let all = (0..10_000).map(|number: u32| {
            let same = Some((Some(IpAddr::from(number.to_be_bytes())), 0));
            let key = Key { thing: (Kind::Misconfigured, "51".to_owned()), same };
            limits.takes(at(u64::from(number)), key)
        });
        let all: Vec<u64> = all.flatten().collect();
        assert_eq!(all, [0, 999, 999, 999, 999, 999, 999, 999, 999, 999]);
        assert_eq!(limits.sizes(), [("limits", 1), ("limits of what goes on", 10)]);
        for number in 0..100 {
            limits.takes(at(20_000 + u64::from(number) * 1_000), of(Some(number)));
        }
        assert_eq!(limits.sizes()[1].1, SAME_MAX);
        for number in 0..2 * THINGS_MAX {
            let thing = (Kind::Misconfigured, number.to_string());
            limits.takes(at(200_000), Key { thing, same: None });
        }
        assert!(limits.sizes()[0].1 <= THINGS_MAX);
    }

    #[test]
    fn what_happens_now_and_then_is_told_each_time() {
        let mut limits = Limits::default();
        let tells = |millis| limits.takes(at(millis), of(None));
        let all: Vec<Option<u64>> = [0, 500, 1_000, 2_000, 3_000, 4_000].map(tells).to_vec();
        assert_eq!(all, [Some(0), None, Some(1), Some(0), Some(0), Some(0)]);
    }
}
