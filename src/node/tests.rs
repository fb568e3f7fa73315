//! What a node does with the box it is on.

use std::time::Duration;

use super::kernel::{Address, Change, Errno, IFA_PROTO_HAVIP, Op, Snapshot, Verb};
use super::testing::{Bench, ETH0, address, advert, link, router};
use super::*;
use crate::config::Router;
use crate::wire::Family;
use crate::wire::vrrp::{Centis, RxMeta};

fn source_of(bench: &Bench) -> Option<String> {
    bench.router().source
}

/// Addresses and TTL of each advert in the last event's frames.
fn adverts(bench: &Bench) -> Vec<RxMeta> {
    let of_vrrp = bench.actions.frames().filter(|(via, ..)| matches!(via, Via::Vrrp(_)));
    of_vrrp.map(|(_, _, bytes)| crate::wire::ip::parse_ipv4(bytes).unwrap().0).collect()
}

#[test]
fn adverts_come_from_the_first_address_and_go_on_doing_so_when_others_come() {
    let mut bench = Bench::new(vec![router(51)]);
    assert_eq!(source_of(&bench).as_deref(), Some("10.0.0.201"));
    let second = Change::Address(address("10.0.0.7", 24, false));
    bench.event(Event::Kernel(second));
    assert_eq!(source_of(&bench).as_deref(), Some("10.0.0.201"));
    bench.pass(Duration::from_secs(4));
    assert_eq!(bench.router().state, "active");
    // Over two intervals, an advert is among what is sent.
    let sent = (0..200).find_map(|_| {
        bench.now = bench.now + Duration::from_millis(10);
        bench.timeout();
        adverts(&bench).first().copied()
    });
    let sent = sent.unwrap();
    assert_eq!(sent.src, "10.0.0.201".parse::<IpAddr>().unwrap());
    assert_eq!(sent.dst, "224.0.0.18".parse::<IpAddr>().unwrap());
    assert_eq!(sent.ttl, 255);
}

#[test]
fn an_ipv6_router_waits_for_a_link_local_address() {
    let vips = vec![Prefix::host("fe80::51".parse().unwrap())];
    let v6 = Router { family: Family::V6, vips, ..router(51) };
    let mut bench = Bench::on(&[("2001:db8::1", 64, false)], vec![v6]);
    let shown = bench.router();
    assert_eq!((shown.state, shown.source), ("initialize", None));
    assert!(shown.not_ready.is_some_and(|why| why.contains("address")));
    let mut tentative = address("fe80::c9", 64, true);
    tentative.tentative = true;
    bench.event(Event::Kernel(Change::Address(tentative)));
    bench.settle();
    assert_eq!(bench.router().state, "initialize", "it may be another's yet");
    bench.event(Event::Kernel(Change::Address(address("fe80::c9", 64, true))));
    bench.settle();
    assert_eq!((bench.router().state, source_of(&bench).as_deref()), ("backup", Some("fe80::c9")));
}

#[test]
fn the_advert_comes_before_the_first_address_and_announcements_after_it() {
    let mut bench = Bench::new(vec![router(51)]);
    bench.now = bench.node.next_deadline().unwrap();
    bench.timeout();
    assert_eq!(adverts(&bench).len(), 1, "the advert is in the same turn");
    // It is asked for, which says nothing.
    let frames: Vec<&[u8]> = bench.actions.frames().map(|(.., frame)| frame).collect();
    let claim = arp::claim(&frames[1][14..]);
    assert_eq!((frames.len(), claim), (2, None), "nothing is announced that is not there");
    let Some(Action::Apply(ops)) = bench.actions.kernel.first().cloned() else {
        panic!("{:?}", bench.actions.kernel);
    };
    assert_eq!(ops.len(), 1);
    bench.event(Event::Applied(vec![Ok(())]));
    bench.timeout();
    let announced = bench.actions.frames().any(|(via, ..)| via == Via::Ethernet(ETH0));
    assert!(announced, "announced as soon as it is there");
}

#[test]
fn a_router_that_gives_up_says_so_once_and_takes_away_exactly_what_it_put() {
    let mut bench = Bench::new(vec![router(51)]);
    bench.pass(Duration::from_secs(4));
    bench.asked.clear();
    bench.event(Event::Shutdown);
    bench.timeout();
    assert_eq!(adverts(&bench).len(), 1);
    bench.settle();
    let removed =
        Op { index: ETH0, prefix: Prefix::host([10, 0, 0, 51].into()), verb: Verb::Remove };
    assert_eq!(bench.asked, [removed]);
    assert!(bench.node.is_stopped());
}

#[test]
fn in_the_steady_state_nothing_is_asked_of_the_kernel_but_renewals() {
    let mut bench = Bench::new(vec![router(51)]);
    bench.pass(Duration::from_secs(4));
    bench.asked.clear();
    bench.pass(Duration::from_secs(10));
    assert!(!bench.asked.is_empty());
    assert!(
        bench.asked.iter().all(|op| op.verb == Verb::Renew { lifetime: Some(6) }),
        "{:?}",
        bench.asked
    );
    let addresses: BTreeSet<_> = bench.asked.iter().map(|op| op.prefix).collect();
    assert_eq!(addresses.len(), 1);
}

#[test]
fn a_renewal_goes_with_an_advert() {
    for interval in [Centis(1), Centis(10)] {
        let mut bench = Bench::new(vec![Router { advert_interval: interval, ..router(51) }]);
        bench.pass(Duration::from_secs(10));
        let end = bench.now + Duration::from_secs(10);
        let (mut renewals, mut turns) = (0, 0);
        while let Some(at) = bench.node.next_deadline().filter(|at| *at <= end) {
            // More or less late, as a machine is: adverts keep their cadence, renewals do not.
            turns += 1;
            bench.now = bench.now.max(at) + Duration::from_micros(turns * 700 % 2000);
            bench.timeout();
            if bench.actions.kernel.iter().any(|action| matches!(action, Action::Apply(_))) {
                assert!(adverts(&bench).len() == 1, "it wakes the router by itself");
                renewals += 1;
            }
            bench.settle();
        }
        assert!((9..=12).contains(&renewals), "{renewals}");
    }
}

#[test]
fn the_same_configuration_again_does_nothing() {
    for state in ["backup", "active"] {
        let mut bench = Bench::new(vec![router(51)]);
        bench.packet("10.0.0.202", &advert(&router(51), "10.0.0.202", 200));
        if state == "active" {
            bench.pass(Duration::from_secs(10));
        }
        let before = (bench.router(), bench.node.next_deadline());
        assert_eq!(before.0.state, state);
        bench.configure(vec![router(51)]);
        assert_eq!((bench.router(), bench.node.next_deadline()), before);
        assert_eq!(bench.actions.frame_count(), 0);
        assert!(bench.actions.kernel.is_empty());
    }
}

#[test]
fn more_vips_than_an_advert_carries_are_held_and_not_advertised_and_that_is_told() {
    let vips = (0..400u16).map(|n| {
        let [high, low] = n.to_be_bytes();
        Prefix::host([10, 1, high, low].into())
    });
    let mut bench = Bench::new(vec![Router { vips: vips.collect(), ..router(51) }]);
    assert_eq!(bench.router().not_advertised, 400 - 255);
    bench.pass(Duration::from_secs(5));
    let present = bench.router().vips.iter().filter(|vip| vip.state == "present").count();
    assert_eq!(present, 400);
}

fn size(bench: &Bench, of: &str) -> usize {
    bench.node.sizes().find(|(what, _)| *what == of).unwrap().1
}

#[test]
fn however_much_is_lost_during_a_dump_one_more_follows_it() {
    let mut bench = Bench::new(vec![router(51)]);
    bench.event(Event::Kernel(Change::Overrun));
    bench.timeout();
    assert_eq!(bench.actions.kernel, [Action::Dump]);
    for _ in 0..1_000 {
        bench.event(Event::Kernel(Change::Overrun));
    }
    assert_eq!(size(&bench, "changes"), 0);
    bench.event(Event::Dumped(Ok(Snapshot::default())));
    bench.timeout();
    assert_eq!(bench.actions.kernel[..1], [Action::Dump]);
    bench.event(Event::Dumped(Ok(Snapshot::default())));
    bench.timeout();
    assert!(!bench.actions.kernel.contains(&Action::Dump));
}

#[test]
fn sockets_that_are_wanted_no_more_when_they_come_are_closed_and_asked_for_once() {
    let mut bench = Bench::new(vec![]);
    let mut asked = Vec::new();
    for routers in [vec![router(51)], vec![], vec![router(51)], vec![]] {
        bench.configure(routers);
        asked.append(&mut bench.actions.kernel);
    }
    let port = Port { index: ETH0, family: Family::V4 };
    assert_eq!(asked, [Action::Open(port)]);
    assert_eq!((size(&bench, "ports"), size(&bench, "ports being opened or left")), (0, 1));
    bench.event(Event::Opened { port, result: Ok(()) });
    assert_eq!(bench.actions.kernel, [Action::Close(port)]);
    assert_eq!(size(&bench, "ports being opened or left"), 0);
    // Wanted again in time they are taken.
    bench.configure(vec![router(51)]);
    bench.configure(vec![]);
    bench.configure(vec![router(51)]);
    bench.event(Event::Opened { port, result: Ok(()) });
    assert_eq!(bench.actions.kernel, []);
    assert_eq!(bench.router().state, "backup");
}

#[test]
fn what_is_heard_of_a_link_after_its_end_is_not_kept() {
    let mut bench = Bench::new(vec![router(51)]);
    for number in 3..100 {
        let gone = IfIndex(number - 1);
        let adds = |action: &Action| matches!(action, Action::Apply(ops) if ops[0].index == gone);
        while !bench.actions.kernel.iter().any(adds) {
            bench.now = bench.node.next_deadline().unwrap().max(bench.now);
            bench.timeout();
        }
        bench.event(Event::Kernel(Change::LinkGone(gone)));
        // Both answers come late.
        bench.event(Event::Applied(vec![Ok(())]));
        let errno = Errno(19);
        bench.event(Event::SendFailed { index: gone, errno, count: 1, adverts: Vec::new() });
        bench.event(Event::Kernel(Change::Link(link(IfIndex(number)))));
        bench.settle();
        let own = Address { index: IfIndex(number), ..address("10.0.0.201", 24, false) };
        bench.event(Event::Kernel(Change::Address(own)));
        bench.settle();
        for (of, most) in [("put", 0), ("added", 0), ("send errors", 0), ("ports", 1)] {
            assert!(size(&bench, of) <= most, "{} {of}", size(&bench, of));
        }
    }
}

#[test]
fn what_went_and_came_back_around_a_dump_is_announced() {
    let mut bench = Bench::new(vec![router(51)]);
    bench.pass(Duration::from_secs(10));
    let vip = Address { proto: IFA_PROTO_HAVIP, ..address("10.0.0.51", 32, false) };
    bench.event(Event::Kernel(Change::Overrun));
    bench.timeout();
    assert_eq!(bench.actions.kernel, [Action::Dump]);
    // Its loss was lost; a renewal brought it back after the dump was made.
    bench.event(Event::Kernel(Change::Address(vip)));
    let eth0 = link(ETH0);
    let own = address("10.0.0.201", 24, false);
    bench.event(Event::Dumped(Ok(Snapshot { links: vec![eth0], addresses: vec![own] })));
    bench.timeout();
    assert!(bench.actions.frames().any(|(via, ..)| via == Via::Ethernet(ETH0)));
}

#[test]
fn while_dumps_fail_each_vip_is_announced_within_a_second_of_a_loss() {
    let mut bench = Bench::new(vec![router(51)]);
    bench.pass(Duration::from_secs(10));
    let before = bench.router().counters.announcements;
    bench.event(Event::Kernel(Change::Overrun));
    let end = bench.now + Duration::from_secs(20);
    let mut announced = Vec::new();
    while let Some(at) = bench.node.next_deadline().filter(|at| *at <= end) {
        bench.now = bench.now.max(at);
        bench.timeout();
        let frames = bench.actions.frames().filter(|(via, ..)| *via == Via::Ethernet(ETH0));
        announced.extend(frames.map(|_| end.since(bench.now)));
        if bench.actions.kernel.contains(&Action::Dump) {
            bench.settle();
            bench.event(Event::Dumped(Err(Errno(12))));
        }
        bench.settle();
    }
    assert_eq!(announced, [Duration::from_secs(19)], "and not with each dump that fails");
    assert_eq!(bench.router().counters.announcements, before + 1);
}

#[test]
fn a_failure_on_a_link_is_forgotten_with_it() {
    let mut bench = Bench::new(vec![router(51)]);
    bench.pass(Duration::from_secs(10));
    bench.configure(vec![]);
    bench.timeout();
    bench.event(Event::Applied(vec![Err(Errno(1))]));
    assert_eq!(size(&bench, "held back"), 1);
    bench.event(Event::Kernel(Change::LinkGone(ETH0)));
    assert_eq!(size(&bench, "held back"), 0);
}

#[test]
fn a_vip_that_is_wanted_again_while_it_is_removed_was_taken_away_by_nobody() {
    let both = Router { vips_excluded: router(52).vips, ..router(51) };
    let mut bench = Bench::new(vec![both.clone()]);
    bench.pass(Duration::from_secs(10));
    let prefix = router(52).vips[0];
    for _ in 0..50 {
        bench.configure(vec![router(51)]);
        bench.timeout();
        let remove = Op { index: ETH0, prefix, verb: Verb::Remove };
        assert_eq!(bench.actions.kernel[0], Action::Apply(vec![remove]));
        bench.configure(vec![both.clone()]);
        // The kernel tells everybody before it answers.
        bench.event(Event::Kernel(Change::AddressGone { index: ETH0, prefix }));
        assert_eq!(bench.actions.notices, []);
        bench.event(Event::Applied(vec![Ok(())]));
        bench.timeout();
        bench.settle();
        assert_eq!((bench.router().counters.restored, bench.router().state), (0, "active"));
        assert_eq!(bench.router().vips_excluded[0].state, "present");
    }
}
