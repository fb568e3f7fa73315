//! Where the kernel may answer for a VIP, and until when: the fence's decisions. A way is opened
//! with each advert of an active router, for a little less time than others wait for the next ones.
//! So it shuts by itself where this process stands still, before anyone takes over.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::claims::Holder;
use super::kernel::{Gate, Passage};
use super::links::Place;
use super::{Instant, Node, RouterId};

/// Shortest interval that a way is opened for anew. The kernel counts its time-outs in ticks of up
/// to 10 ms, and may end one two ticks early.
const PACE_MIN: Duration = Duration::from_millis(20);

/// What stands, and what is to be told of it.
#[derive(Debug, Default)]
pub(super) struct Fence {
    is_on: bool,
    /// Until when each place is open.
    open: BTreeMap<Place, Instant>,
    /// Places of nobody, whose address the kernel may still have.
    shut: BTreeSet<Place>,
    /// Of which something is to be told.
    changed: BTreeSet<Place>,
}

/// How long a way stays open after an advert: 2.75 intervals. Others take over after 3 and their
/// skew time (RFC 9568 §6.1); a stall of 2.5 intervals is borne.
fn open_for(interval: Duration) -> Duration {
    interval.max(PACE_MIN) * 11 / 4
}

impl Fence {
    /// Opens the way to `place`, after an advert at `now` of a router with this `interval`.
    fn open(&mut self, now: Instant, interval: Duration, place: Place) {
        let until = now + open_for(interval);
        // An advert out of turn needs no more than the one before, nor does each at short intervals.
        let soon = interval.max(PACE_MIN) - interval / 2;
        if self.open.get(&place).is_some_and(|before| until.since(*before) < soon) {
            return;
        }
        self.shut.remove(&place);
        self.open.insert(place, until);
        self.changed.insert(place);
    }

    /// Shuts the way to `place`: the address there is to go.
    pub(super) fn shut(&mut self, place: Place) {
        if self.open.remove(&place).is_some() {
            self.shut.insert(place);
            self.changed.insert(place);
        }
    }

    /// How many of everything it remembers.
    pub(super) fn sizes(&self) -> [(&'static str, usize); 3] {
        [
            ("ways open", self.open.len()),
            ("ways shut", self.shut.len()),
            ("ways to be told", self.changed.len()),
        ]
    }

    /// What is to be told, each way once. There is no fence any more where an address of ours
    /// `is_gone`.
    fn take(&mut self, is_gone: impl Fn(&Place) -> bool) -> Vec<Passage> {
        let Self { open, shut, changed, .. } = self;
        shut.retain(|place| {
            let gone = is_gone(place);
            if gone {
                changed.insert(*place);
            }
            !gone
        });
        let passage = |place: Place| {
            let gate = match open.get(&place) {
                Some(until) => Gate::OpenUntil(*until),
                None if shut.contains(&place) => Gate::Shut,
                None => Gate::Gone,
            };
            Passage { index: place.0, ip: place.1.ip, gate }
        };
        std::mem::take(changed).into_iter().map(passage).collect()
    }
}

impl Node {
    /// Tells it, before its first event, that there is a fence.
    pub fn fence(&mut self) {
        self.fence.is_on = true;
    }

    /// A router has said that it is active: the kernel may answer for what it has.
    pub(super) fn open_fence(&mut self, now: Instant, id: RouterId) {
        if !self.fence.is_on {
            return;
        }
        let Some(entry) = self.entries.get(&id) else { return };
        let interval = entry.router.config().advert_interval.duration();
        for place in &entry.places {
            // What another put there is not ours to fence in.
            match self.claims.holder(place, &self.links) {
                Holder::Nobody | Holder::Ours => self.fence.open(now, interval, *place),
                Holder::Other(_) => self.fence.shut(*place),
            }
        }
    }

    /// What the fence is to be told of this turn.
    pub(super) fn passages(&mut self) -> Vec<Passage> {
        let Self { fence, links, claims, .. } = self;
        fence.take(|place| claims.holder(place, links) != Holder::Ours)
    }
}

#[cfg(test)]
mod tests {
    use super::super::kernel::Change;
    use super::super::testing::{Bench, ETH0, address, advert, router};
    use super::super::{Action, Event, Via};
    use super::*;
    use crate::config::{Prefix, Router};
    use crate::wire::vrrp::Centis;

    const VIP: [u8; 4] = [10, 0, 0, 51];

    fn passages(bench: &Bench) -> Vec<Passage> {
        let of = |action: &Action| match action {
            Action::Fence(passages) => passages.clone(),
            _ => Vec::new(),
        };
        bench.actions.kernel.iter().flat_map(of).collect()
    }

    fn gates(bench: &Bench) -> Vec<Gate> {
        passages(bench).iter().map(|passage| passage.gate).collect()
    }

    /// A fenced router with this interval in hundredths of a second, which has just become active.
    fn active(interval: u16) -> Bench {
        let router = Router { advert_interval: Centis(interval), ..router(51) };
        let mut bench = Bench::new(vec![router]);
        bench.node.fence();
        bench.now = bench.node.next_deadline().unwrap();
        bench.timeout();
        bench
    }

    /// Time passes to the next advert.
    fn next(bench: &mut Bench) {
        bench.now = bench.node.next_deadline().unwrap();
        bench.timeout();
    }

    #[test]
    fn a_way_is_shut_before_others_take_over_and_bears_a_stall_of_two_and_a_half_intervals() {
        for ms in [20, 50, 100, 1000, 40_950] {
            let interval = Duration::from_millis(ms);
            assert!(open_for(interval) < interval * 3, "{interval:?}");
            assert!(open_for(interval) > interval * 5 / 2, "{interval:?}");
        }
        assert_eq!(open_for(Duration::from_millis(10)), Duration::from_millis(55));
    }

    #[test]
    fn each_advert_opens_the_way_anew_and_nothing_else_does() {
        let mut bench = active(100);
        let until = |bench: &Bench| Gate::OpenUntil(bench.now + Duration::from_millis(2750));
        let opened = Passage { index: ETH0, ip: VIP.into(), gate: until(&bench) };
        assert_eq!(passages(&bench), [opened]);
        bench.settle();
        for _ in 0..20 {
            next(&mut bench);
            let is_advert = bench.actions.frames().any(|(via, ..)| matches!(via, Via::Vrrp(_)));
            assert_eq!(gates(&bench), if is_advert { vec![until(&bench)] } else { Vec::new() });
        }
    }

    #[test]
    fn at_short_intervals_the_way_is_opened_once_a_pace() {
        let mut bench = active(1);
        bench.settle();
        let mut opened = 0;
        for _ in 0..100 {
            next(&mut bench);
            opened += gates(&bench).len();
        }
        assert!((40..=60).contains(&opened), "{opened}");
    }

    #[test]
    fn who_gives_way_shuts_at_once_and_the_fence_goes_with_the_address() {
        let mut bench = active(100);
        bench.settle();
        bench.packet("10.0.0.202", &advert(&router(51), "10.0.0.202", 200));
        bench.timeout();
        assert_eq!(gates(&bench), [Gate::Shut]);
        bench.timeout();
        assert_eq!(gates(&bench), [], "the address is there yet");
        bench.event(Event::Applied(vec![Ok(())]));
        bench.timeout();
        assert_eq!(gates(&bench), [Gate::Gone]);
    }

    #[test]
    fn an_address_that_another_put_is_not_fenced_in() {
        let mut bench = active(100);
        bench.settle();
        let prefix = Prefix::host(VIP.into());
        bench.event(Event::Kernel(Change::AddressGone { index: ETH0, prefix }));
        bench.event(Event::Kernel(Change::Address(address("10.0.0.51", 32, false))));
        bench.pass(Duration::from_secs(2));
        let all: Vec<Gate> = (0..5)
            .flat_map(|_| {
                next(&mut bench);
                gates(&bench)
            })
            .collect();
        assert_eq!(all, []);
        assert!(bench.node.fence.open.is_empty() && bench.node.fence.shut.is_empty());
    }

    #[test]
    fn without_a_fence_nothing_is_told() {
        let mut bench = Bench::new(vec![router(51)]);
        for _ in 0..10 {
            next(&mut bench);
            assert_eq!(gates(&bench), []);
        }
        assert_eq!(bench.router().state, "active");
    }
}
