//! Asks for the VIPs of active routers: who else has one, and only answers when asked, tells it to
//! this box alone as a rule, and nobody would know.
//!
//! An ARP probe (RFC 5227 §2.1.1) and a neighbour solicitation from the unspecified address (RFC 4862
//! §5.4.2) ask without saying anything themselves: nobody's cache is changed by them, and a gateway
//! that does not have the address has nothing to answer. What is answered comes in as every other
//! claim does (`witness.rs`).

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::Duration;

use super::event::{Actions, Via};
use super::links::Place;
use super::router::Reason;
use super::{Instant, Node, RouterId};
use crate::wire::{IfIndex, arp, ndp};

/// Until when whoever had an address has lost it, as a rule: the kernel of one whose process
/// stopped keeps it for 4 s (`LIFETIME_MIN`).
const SETTLED: Duration = Duration::from_secs(5);
/// Probes of one link: this many at once, then a pause. With 5,000 addresses each is asked for once
/// in 12.5 s at most.
const BURST: usize = 4;
const PAUSE: Duration = Duration::from_millis(10);

/// What is asked for, and when next.
#[derive(Debug, Default)]
pub(super) struct Prober {
    links: BTreeMap<IfIndex, Queue>,
    /// The links by the time at which each is due, once each.
    order: BTreeSet<(Instant, IfIndex)>,
}

#[derive(Debug, Default)]
struct Queue {
    places: BTreeMap<Place, Instant>,
    due: BTreeSet<(Instant, Place)>,
    /// The end of the pause.
    after: Option<Instant>,
    /// Where it stands in the order.
    stands: Option<Instant>,
}

impl Prober {
    /// Asks for `place` at `at`, or when it is to be asked for already if that is before `latest`.
    pub(super) fn start(&mut self, place: Place, at: Instant, latest: Instant) {
        let queue = self.links.entry(place.0).or_default();
        let at = match queue.places.get(&place) {
            None => at,
            Some(before) if *before > latest => latest,
            Some(_) => return,
        };
        queue.put(place, at);
        self.order(place.0);
    }

    /// Asks for `place` no more.
    pub(super) fn stop(&mut self, place: &Place) {
        let Some(queue) = self.links.get_mut(&place.0) else { return };
        if let Some(at) = queue.places.remove(place) {
            queue.due.remove(&(at, *place));
            self.order(place.0);
        }
    }

    /// Hands what is due at `now` to `ask`, as far as the pace allows; what it returns is the time
    /// until the next one, if there is to be one.
    pub(super) fn due(&mut self, now: Instant, mut ask: impl FnMut(Place) -> Option<Duration>) {
        while let Some((at, index)) = self.order.first().copied().filter(|(at, _)| *at <= now) {
            let Some(queue) = self.links.get_mut(&index) else {
                self.order.remove(&(at, index));
                continue;
            };
            for _ in 0..BURST {
                let Some((_, place)) = queue.due.first().copied().filter(|(at, _)| *at <= now)
                else {
                    break;
                };
                queue.due.pop_first();
                queue.places.remove(&place);
                if let Some(pause) = ask(place) {
                    queue.put(place, now + pause);
                }
                queue.after = Some(now + PAUSE);
            }
            self.order(index);
        }
    }

    /// When something is due next.
    pub(super) fn next_deadline(&self) -> Option<Instant> {
        self.order.first().map(|(at, _)| *at)
    }

    pub(super) fn sizes(&self) -> [(&'static str, usize); 2] {
        let sum = |size: fn(&Queue) -> usize| self.links.values().map(size).sum();
        [
            ("probed", sum(|queue| queue.places.len())),
            ("probes", sum(|queue| queue.due.len()).max(self.order.len())),
        ]
    }

    /// Puts a link where it belongs in the order.
    fn order(&mut self, index: IfIndex) {
        let Some(queue) = self.links.get_mut(&index) else { return };
        let next = queue.due.first().map(|(at, _)| queue.after.map_or(*at, |after| after.max(*at)));
        if let Some(before) = std::mem::replace(&mut queue.stands, next) {
            self.order.remove(&(before, index));
        }
        match next {
            Some(next) => _ = self.order.insert((next, index)),
            None => _ = self.links.remove(&index),
        }
    }
}

impl Queue {
    fn put(&mut self, place: Place, at: Instant) {
        if let Some(before) = self.places.insert(place, at) {
            self.due.remove(&(before, place));
        }
        self.due.insert((at, place));
    }
}

impl Node {
    /// Asks for what an active router has that is not asked for yet, once whoever had it has
    /// settled.
    pub(super) fn start_probes(&mut self, now: Instant, id: RouterId) {
        let Some(entry) = self.entries.get(&id) else { return };
        let interval = entry.router.config().probe_interval;
        if !interval.is_zero() {
            for place in &entry.places {
                self.prober.start(*place, now + SETTLED, now + interval.max(SETTLED));
            }
        }
    }

    /// A router became active. If nobody gave way to it, somebody may be there who is not heard:
    /// then it asks at once.
    pub(super) fn probe_first(&mut self, now: Instant, id: RouterId, reason: Reason) {
        let Some(entry) = self.entries.get(&id) else { return };
        let in_silence = matches!(reason, Reason::NoResponse | Reason::Owner);
        if in_silence && !entry.router.config().probe_interval.is_zero() {
            for place in &entry.places {
                self.prober.start(*place, now, now);
            }
        }
    }

    /// Another has what this active router has: whether it still has it is asked soon.
    pub(super) fn ask_soon(&mut self, now: Instant, id: RouterId, place: Place) {
        let Some(entry) = self.entries.get(&id) else { return };
        if !entry.router.config().probe_interval.is_zero() {
            self.prober.start(place, now + SETTLED, now + SETTLED);
        }
    }

    pub(super) fn probe(&mut self, now: Instant, out: &mut Actions) {
        let Self { prober, claims, links, entries, .. } = self;
        prober.due(now, |(index, prefix)| {
            let id = claims.claim_on(&(index, prefix))?.router;
            let entry = entries.get_mut(&id)?;
            let pause = entry.router.config().probe_interval;
            if pause.is_zero() {
                return None;
            }
            if let Some(mac) = links.link(index).and_then(|link| link.mac) {
                out.frame(Via::Ethernet(index), None, |out| match prefix.ip {
                    IpAddr::V4(ip) => arp::probe(mac, ip, out),
                    IpAddr::V6(ip) => ndp::probe(mac, ip, out),
                });
                entry.counters.probes += 1;
            }
            entry.rivals.asks(prefix.ip);
            // Once more after the first, which may have met who was on his way out, and as long as
            // another has it.
            let is_first = now.since(entry.since) < SETTLED;
            let is_soon = is_first || entry.rivals.shown_rival(now).is_some();
            Some(if is_soon { pause.min(SETTLED) } else { pause })
        });
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{Bench, ETH0, advert, router};
    use super::super::{Action, Event};
    use super::*;
    use crate::config::{Prefix, Router};
    use crate::wire::Mac;

    fn place(number: u16) -> Place {
        let [high, low] = number.to_be_bytes();
        (ETH0, Prefix::host([10, 0, high, low].into()))
    }

    /// Whether a frame asks for an address.
    fn is_probe(frame: &[u8]) -> bool {
        let is_arp = frame[12..14] == [8, 6] && frame[28..32] == [0; 4];
        is_arp || (frame[12..14] == [0x86, 0xdd] && frame[54] == 135)
    }

    fn probes(bench: &Bench) -> usize {
        bench.actions.frames().filter(|(.., frame)| is_probe(frame)).count()
    }

    /// When it asks until `end` has passed, in whole seconds after it became active.
    fn asks(bench: &mut Bench, end: Duration) -> Vec<u64> {
        let (mut since, mut all) = (None, Vec::new());
        let end = bench.now + end;
        while let Some(at) = bench.node.next_deadline().filter(|at| *at <= end) {
            bench.now = bench.now.max(at);
            bench.timeout();
            if bench.router().state == "active" {
                let since = *since.get_or_insert(bench.now);
                all.extend(vec![bench.now.since(since).as_secs(); probes(bench)]);
            }
            bench.settle();
        }
        all
    }

    #[test]
    fn who_has_a_vip_as_well_is_asked_until_it_does_not_answer_any_more() {
        let mut bench = Bench::new(vec![router(51)]);
        bench.pass(Duration::from_secs(30));
        let claims = |bench: &mut Bench| {
            let mac = Mac([2, 0, 0, 0, 0, 9]);
            bench.event(Event::Claimed { index: ETH0, ip: [10, 0, 0, 51].into(), mac });
            bench.pass(Duration::from_secs(2));
        };
        claims(&mut bench);
        for _ in 0..5 {
            assert!(bench.router().conflict.is_some());
            let before = bench.router().counters.probes;
            bench.pass(Duration::from_secs(5));
            assert!(bench.router().counters.probes > before);
            claims(&mut bench);
        }
        bench.pass(Duration::from_secs(6));
        assert!(bench.router().conflict.is_some(), "a question or two may be lost");
        bench.pass(Duration::from_secs(10));
        assert_eq!(bench.router().conflict, None);
    }

    #[test]
    fn who_takes_over_in_silence_asks_before_it_announces_then_again_and_then_each_minute() {
        let mut bench = Bench::new(vec![router(51)]);
        while bench.router().state != "active" {
            bench.now = bench.now.max(bench.node.next_deadline().unwrap());
            bench.timeout();
        }
        let frames: Vec<(Via, bool)> =
            bench.actions.frames().map(|(via, _, frame)| (via, is_probe(frame))).collect();
        assert!(matches!(frames[0].0, Via::Vrrp(_)), "the advert waits for nothing");
        assert_eq!(frames[1..], [(Via::Ethernet(ETH0), true)]);
        let applied = bench.actions.kernel.iter().any(|a| matches!(a, Action::Apply(_)));
        assert!(applied, "nor does the address");
        bench.settle();
        assert_eq!(asks(&mut bench, Duration::from_secs(130)), [4, 64, 124]);
        assert_eq!(bench.router().counters.probes, 4);
    }

    #[test]
    fn who_is_given_way_to_asks_once_that_has_settled() {
        let mut bench = Bench::new(vec![router(51)]);
        bench.packet("10.0.0.9", &advert(&router(51), "10.0.0.9", 200));
        bench.packet("10.0.0.9", &advert(&router(51), "10.0.0.9", 0));
        assert_eq!(asks(&mut bench, Duration::from_secs(70)), [5, 65]);
    }

    #[test]
    fn a_backup_asks_nothing_and_nor_does_one_that_is_told_not_to() {
        let mut bench = Bench::new(vec![Router { probe_interval: Duration::ZERO, ..router(51) }]);
        assert_eq!(asks(&mut bench, Duration::from_secs(100)), [0; 0]);
        let often = Router { probe_interval: Duration::from_secs(10), ..router(51) };
        bench.configure(vec![often.clone()]);
        bench.settle();
        let first = asks(&mut bench, Duration::from_secs(26));
        assert_eq!(first.windows(2).map(|w| w[1] - w[0]).collect::<Vec<_>>(), [10, 10]);
        bench.packet("10.0.0.9", &advert(&often, "10.0.0.9", 200));
        assert_eq!(bench.router().state, "backup");
        bench.settle();
        assert_eq!(bench.node.prober.sizes(), [("probed", 0), ("probes", 0)]);
    }

    #[test]
    fn another_who_only_answers_is_named() {
        let theirs = Mac([2, 0, 0, 0, 0, 9]);
        let mut bench = Bench::new(vec![router(51)]);
        let end = bench.now + Duration::from_secs(20);
        while let Some(at) = bench.node.next_deadline().filter(|at| *at <= end) {
            bench.now = bench.now.max(at);
            bench.timeout();
            let asked = probes(&bench) > 0;
            bench.settle();
            if asked {
                let ip = [10, 0, 0, 51].into();
                bench.event(Event::Claimed { index: ETH0, ip, mac: theirs });
            }
        }
        assert!(bench.router().conflict.is_some_and(|what| what.contains(&theirs.to_string())));
    }

    #[test]
    fn thousands_keep_the_pace_and_each_is_asked_for() {
        let mut prober = Prober::default();
        for number in 0..5_000 {
            prober.start(place(number), Instant::ZERO, Instant::ZERO);
        }
        let end = Instant::ZERO + Duration::from_secs(73);
        let mut asked: BTreeMap<Place, usize> = BTreeMap::new();
        let mut last = None;
        while let Some(at) = prober.next_deadline().filter(|at| *at <= end) {
            let mut count = 0;
            prober.due(at, |place| {
                *asked.entry(place).or_default() += 1;
                count += 1;
                Some(Duration::from_secs(60))
            });
            assert!((1..=BURST).contains(&count));
            assert!(last.is_none_or(|last| at.since(last) >= PAUSE));
            last = Some(at);
        }
        assert_eq!(asked.len(), 5_000);
        assert!(asked.values().all(|count| *count == 2), "{asked:?}");
    }

    #[test]
    fn links_do_not_wait_for_each_other_and_what_is_stopped_is_not_asked_for() {
        let mut prober = Prober::default();
        let other = (IfIndex(9), place(1).1);
        for number in 0..100 {
            prober.start(place(number), Instant::ZERO, Instant::ZERO);
        }
        prober.start(other, Instant::ZERO, Instant::ZERO);
        let mut all = Vec::new();
        prober.due(Instant::ZERO, |place| {
            all.push(place);
            None
        });
        assert_eq!(all.len(), BURST + 1);
        assert!(all.contains(&other));
        for number in 0..100 {
            prober.stop(&place(number));
        }
        assert_eq!(prober.next_deadline(), None);
        assert_eq!(prober.sizes(), [("probed", 0), ("probes", 0)]);
    }
}
