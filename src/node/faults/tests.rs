use std::time::Duration;

use super::super::kernel::{Change, Link, Verb};
use super::super::testing::{Bench, ETH0, advert, link, router};
use super::super::{Action, Event, Via};
use super::*;
use crate::config::{Prefix, Router};

const EPERM: Errno = Errno(1);

/// Routers whose adverts are among what was to be sent.
fn adverts(bench: &Bench) -> Vec<RouterId> {
    bench.actions.frames().filter_map(|(_, advert_of, _)| advert_of).collect()
}

/// The next advert leaves the node; returns whose.
fn next_advert(bench: &mut Bench) -> Vec<RouterId> {
    loop {
        bench.now = bench.now.max(bench.node.next_deadline().unwrap());
        bench.timeout();
        let ids = adverts(bench);
        bench.settle();
        if !ids.is_empty() {
            return ids;
        }
    }
}

fn fail(bench: &mut Bench, adverts: Vec<RouterId>) {
    let count = u32::try_from(adverts.len()).unwrap();
    bench.event(Event::SendFailed { index: ETH0, errno: EPERM, count, adverts });
    bench.timeout();
    bench.settle();
}

fn active(change: impl FnOnce(&mut Router)) -> Bench {
    let mut router = router(51);
    change(&mut router);
    let mut bench = Bench::new(vec![router]);
    bench.pass(Duration::from_secs(4));
    assert_eq!(bench.router().state, "active");
    bench.asked.clear();
    bench
}

fn carrier(running: bool) -> Event<'static> {
    Event::Kernel(Change::Link(Link { running, ..link(ETH0) }))
}

fn removed(bench: &Bench) -> bool {
    bench.asked.iter().any(|op| op.verb == Verb::Remove)
}

#[test]
fn a_router_whose_adverts_cannot_be_sent_gives_way_and_is_back_when_they_can() {
    let mut bench = active(|_| ());
    for round in 1..=3 {
        assert_eq!(bench.router().state, "active", "round {round}");
        let ids = next_advert(&mut bench);
        fail(&mut bench, ids);
    }
    let shown = bench.router();
    assert_eq!(shown.state, "initialize");
    assert!(shown.not_ready.unwrap().contains("EPERM"), "it says why");
    assert!(removed(&bench));
    assert_eq!((shown.counters.gave_way, shown.counters.adverts_unsent), (1, 3));
    // It tries again, and one failure is enough then.
    bench.pass(Duration::from_millis(1_100));
    assert_eq!(bench.router().state, "backup");
    let ids = next_advert(&mut bench);
    assert_eq!(bench.router().state, "active");
    fail(&mut bench, ids);
    assert_eq!((bench.router().state, bench.router().counters.gave_way), ("initialize", 2));
    bench.pass(Duration::from_secs(20));
    assert_eq!((bench.router().state, bench.router().counters.gave_way), ("active", 2));
}

#[test]
fn a_farewell_through_a_link_that_is_gone_is_no_failure_and_any_other_is_one() {
    const ENETUNREACH: Errno = Errno(101);
    let gone = |prefix: &str, len| {
        let prefix = Prefix { ip: prefix.parse().unwrap(), len };
        Event::Kernel(Change::AddressGone { index: ETH0, prefix })
    };
    let down = || Event::Kernel(Change::Link(Link { up: false, running: false, ..link(ETH0) }));
    for (event, errno, told) in [
        (down(), ENETUNREACH, 0),
        (carrier(false), Errno(100), 0),
        (gone("10.0.0.201", 24), ENETUNREACH, 0),
        (down(), EPERM, 1),
    ] {
        let mut bench = active(|_| ());
        bench.event(event);
        let ids = adverts(&bench);
        assert_eq!((ids.len(), bench.router().state), (1, "initialize"));
        bench.event(Event::SendFailed { index: ETH0, errno, count: 1, adverts: ids.clone() });
        let failed = |notice: &&Notice| matches!(notice, Notice::SendFailed { .. });
        assert_eq!(bench.actions.notices.iter().filter(failed).count(), told);
        // What goes with it and is no farewell is one.
        bench.now = bench.now + Duration::from_secs(2);
        bench.event(Event::SendFailed { index: ETH0, errno: Errno(105), count: 2, adverts: ids });
        assert_eq!(bench.actions.notices.iter().filter(failed).count(), 1);
    }
    let mut bench = active(|_| ());
    let ids = next_advert(&mut bench);
    let event = Event::SendFailed { index: ETH0, errno: ENETUNREACH, count: 1, adverts: ids };
    bench.event(event);
    assert_eq!(bench.actions.notices.len(), 1, "an active router's advert is no farewell");
}

#[test]
fn packets_that_cannot_be_sent_show_in_the_status_as_long_as_that_goes_on() {
    let mut bench = active(|_| ());
    let shown = |bench: &Bench| bench.node.status(bench.now).ports[0].not_sent.clone();
    let fails = |bench: &mut Bench| {
        let adverts = Vec::new();
        bench.event(Event::SendFailed { index: ETH0, errno: Errno(105), count: 1, adverts });
    };
    // A full queue for a moment is no state.
    fails(&mut bench);
    fails(&mut bench);
    assert_eq!(shown(&bench), None);
    bench.pass(Duration::from_secs(60));
    assert_eq!(shown(&bench), None);
    fails(&mut bench);
    assert!(shown(&bench).is_some_and(|why| why.contains("ENOBUFS") && why.contains("ARP")));
    bench.pass(Duration::from_secs(91));
    assert_eq!(shown(&bench), None, "it is over");
    fails(&mut bench);
    assert_eq!(shown(&bench), None);
    assert_eq!(bench.node.status(bench.now).ports[0].send_errors, 4, "all are counted");
}

#[test]
fn a_vip_that_goes_with_its_link_was_taken_away_by_nobody() {
    let vip = Prefix::host([10, 0, 0, 51].into());
    let gone = Event::Kernel(Change::AddressGone { index: ETH0, prefix: vip });
    let restored = |bench: &Bench| {
        let restored = |notice: &&Notice| matches!(notice, Notice::Restored { .. });
        bench.actions.notices.iter().filter(restored).count()
    };
    // The kernel takes IPv6 addresses away before it says that the link is down.
    let mut bench = active(|_| ());
    bench.event(gone.clone());
    assert_eq!(restored(&bench), 0);
    bench.event(Event::Kernel(Change::Link(Link { up: false, running: false, ..link(ETH0) })));
    assert_eq!(restored(&bench), 0);
    bench.settle();
    bench.pass(Duration::from_secs(5));
    assert_eq!((bench.router().state, bench.router().counters.restored), ("initialize", 0));
    // One that is removed alone is put back, and that is told.
    let mut bench = active(|_| ());
    bench.event(gone);
    bench.timeout();
    let [Action::Apply(ops)] = &bench.actions.kernel[..] else { panic!("not put back") };
    let results = ops.iter().map(|_| Ok(())).collect();
    bench.event(Event::Applied(results));
    assert_eq!((restored(&bench), bench.router().counters.restored), (1, 1));
}

#[test]
fn two_adverts_that_failed_between_others_that_went_are_no_reason() {
    let mut bench = active(|_| ());
    for _ in 0..10 {
        for _ in 0..2 {
            let ids = next_advert(&mut bench);
            fail(&mut bench, ids);
        }
        next_advert(&mut bench);
    }
    assert_eq!(bench.router().state, "active");
}

#[test]
fn one_told_to_stay_stays_and_announces_its_addresses_when_it_can_send_again() {
    let mut bench = active(|router| router.yield_on_send_errors = false);
    for _ in 0..5 {
        let ids = next_advert(&mut bench);
        fail(&mut bench, ids);
    }
    assert_eq!(bench.router().state, "active");
    bench.pass(Duration::from_secs(10));
    let before = bench.router().counters.announcements;
    next_advert(&mut bench);
    next_advert(&mut bench);
    assert_eq!(bench.router().counters.announcements, before, "one that went says nothing new");
    for _ in 0..3 {
        let ids = next_advert(&mut bench);
        fail(&mut bench, ids);
    }
    next_advert(&mut bench);
    let mut announced = false;
    for _ in 0..5 {
        next_advert(&mut bench);
        announced |= bench.router().counters.announcements > before;
    }
    assert!(announced);
}

#[test]
fn an_address_that_someone_removes_again_and_again_is_given_up_with_a_farewell() {
    let vip = Prefix::host([10, 0, 0, 51].into());
    let gone = || Event::Kernel(Change::AddressGone { index: ETH0, prefix: vip });
    let mut bench = active(|_| ());
    // Every two seconds is a nuisance, and no fight.
    for _ in 0..30 {
        bench.event(gone());
        bench.timeout();
        bench.settle();
        bench.pass(Duration::from_secs(2));
        assert_eq!(bench.router().state, "active");
    }
    assert_eq!(bench.router().counters.restored, 30);
    for _ in 0..30 {
        bench.event(gone());
        if bench.router().state == "initialize" {
            break;
        }
        bench.pass(Duration::from_millis(120));
    }
    let shown = bench.router();
    assert_eq!((shown.state, shown.counters.priority_zero_sent), ("initialize", 1));
    assert!(shown.not_ready.unwrap().contains("10.0.0.51"), "it says which");
    bench.pass(Duration::from_secs(29));
    assert_eq!(bench.router().state, "initialize");
    bench.pass(Duration::from_secs(6));
    assert_eq!(bench.router().state, "active");
}

#[test]
fn a_link_lost_for_less_than_its_delay_changes_nothing_but_is_announced() {
    let mut bench = active(|router| router.carrier_delay = Duration::from_millis(500));
    bench.pass(Duration::from_secs(5));
    bench.event(carrier(false));
    bench.settle();
    bench.pass(Duration::from_millis(200));
    bench.event(carrier(true));
    bench.timeout();
    assert!(bench.actions.frames().any(|(via, ..)| via == Via::Ethernet(ETH0)), "switches forgot");
    bench.settle();
    assert_eq!((bench.router().state, removed(&bench)), ("active", false));
    // The next loss has the whole delay again, and then it counts.
    bench.pass(Duration::from_secs(1));
    bench.event(carrier(false));
    bench.settle();
    bench.pass(Duration::from_millis(490));
    assert_eq!(bench.router().state, "active");
    bench.pass(Duration::from_millis(20));
    assert_eq!((bench.router().state, removed(&bench)), ("initialize", true));
}

#[test]
fn without_a_delay_a_lost_link_counts_at_once_and_a_backup_never_bears_it() {
    let mut bench = active(|_| ());
    bench.event(carrier(false));
    assert_eq!(bench.router().state, "initialize");

    let delayed = Router { carrier_delay: Duration::from_secs(5), ..router(51) };
    let mut bench = Bench::new(vec![delayed.clone()]);
    bench.packet("10.0.0.202", &advert(&delayed, "10.0.0.202", 200));
    bench.event(carrier(false));
    assert_eq!(bench.router().state, "initialize", "it hears nobody, and must not take over");
}

#[test]
fn an_advert_that_leaves_late_is_counted() {
    let mut bench = active(|_| ());
    bench.now = bench.node.next_deadline().unwrap() + Duration::from_millis(400);
    bench.timeout();
    assert_eq!(bench.router().counters.late_adverts, 0);
    bench.pass(Duration::from_secs(3));
    let due = bench.node.next_deadline().unwrap();
    bench.now = due + Duration::from_millis(2_500);
    bench.timeout();
    let counters = bench.router().counters;
    assert_eq!((counters.late_adverts, counters.overslept), (1, 0));
}

#[test]
fn one_that_gave_way_and_then_loses_its_address_waits_for_it_without_spinning() {
    let mut bench = active(|_| ());
    for _ in 0..3 {
        let ids = next_advert(&mut bench);
        fail(&mut bench, ids);
    }
    let own = Prefix { ip: "10.0.0.201".parse().unwrap(), len: 24 };
    bench.event(Event::Kernel(Change::AddressGone { index: ETH0, prefix: own }));
    bench.settle();
    bench.pass(Duration::from_secs(2));
    assert!(bench.router().not_ready.unwrap().contains("no address"));
    assert!(bench.node.next_deadline().is_none_or(|at| at > bench.now));
}

const PEER: &str = "10.0.0.202";

/// Time passes beside an active router of less precedence, as far as that one is heard.
fn pass_beside_a_peer(bench: &mut Bench, seconds: u32) {
    for _ in 0..seconds {
        bench.packet(PEER, &advert(&router(51), PEER, 50));
        bench.timeout();
        bench.settle();
        bench.pass(Duration::from_secs(1));
    }
}

#[test]
fn a_router_whose_vip_the_kernel_refuses_gives_way_and_tries_again_less_and_less_often() {
    let mut bench = Bench::new(vec![router(51)]);
    bench.refuses = Some(([10, 0, 0, 51].into(), EPERM));
    pass_beside_a_peer(&mut bench, 5);
    let shown = bench.router();
    assert_eq!((shown.state, shown.counters.gave_way), ("initialize", 1));
    assert_eq!(shown.counters.priority_zero_sent, 1);
    let why = shown.not_ready.unwrap();
    assert!(why.contains("10.0.0.51") && why.contains("EPERM") && why.contains("CAP_NET_ADMIN"));
    pass_beside_a_peer(&mut bench, 600);
    let trials = bench.router().counters.gave_way;
    assert!((8..=14).contains(&trials), "{trials}");
    bench.refuses = None;
    pass_beside_a_peer(&mut bench, 70);
    assert_eq!((bench.router().state, bench.router().unplaced), ("active", None));
    // What was is forgotten: the next one is tried again soon.
    bench.refuses = Some(([10, 0, 0, 51].into(), EPERM));
    let vip = Prefix::host([10, 0, 0, 51].into());
    bench.event(Event::Kernel(Change::AddressGone { index: ETH0, prefix: vip }));
    bench.timeout();
    bench.settle();
    assert_eq!(bench.router().state, "initialize");
    bench.refuses = None;
    pass_beside_a_peer(&mut bench, 9);
    assert_eq!(bench.router().state, "active");
}

#[test]
fn where_nobody_takes_over_a_router_keeps_the_vips_that_it_has() {
    let vips = [51, 52].map(|last| Prefix::host([10, 0, 0, last].into()));
    let mut bench = Bench::new(vec![Router { vips: vips.into(), ..router(51) }]);
    bench.refuses = Some((vips[1].ip, Errno(22)));
    bench.pass(Duration::from_secs(5));
    assert_eq!((bench.router().state, bench.router().counters.gave_way), ("initialize", 1));
    bench.pass(Duration::from_secs(600));
    let shown = bench.router();
    assert_eq!((shown.state, shown.counters.gave_way), ("active", 1));
    let unplaced = shown.unplaced.unwrap();
    assert!(unplaced.contains("10.0.0.52") && unplaced.contains("EINVAL"), "{unplaced}");
    // Somebody is there by now.
    pass_beside_a_peer(&mut bench, 3);
    assert_eq!((bench.router().state, bench.router().counters.gave_way), ("initialize", 2));
    // He falls silent: better some of them than none.
    bench.pass(Duration::from_secs(9));
    assert_eq!(bench.router().state, "active");
    // Another list is another matter.
    bench.configure(vec![Router { vips: vec![vips[0]], ..router(51) }]);
    bench.settle();
    assert_eq!((bench.router().state, bench.router().unplaced), ("active", None));
}

#[test]
fn an_addition_that_fails_for_a_moment_is_borne() {
    let mut bench = Bench::new(vec![router(51)]);
    bench.refuses = Some(([10, 0, 0, 51].into(), Errno(12)));
    bench.pass(Duration::from_secs(5));
    assert_eq!(bench.router().state, "active");
    assert!(bench.router().unplaced.unwrap().contains("ENOMEM"));
    bench.refuses = None;
    bench.pass(Duration::from_secs(2));
    let shown = bench.router();
    assert_eq!((shown.state, shown.unplaced, shown.counters.gave_way), ("active", None, 0));
    bench.refuses = Some(([10, 0, 0, 51].into(), Errno(12)));
    let vip = Prefix::host([10, 0, 0, 51].into());
    bench.event(Event::Kernel(Change::AddressGone { index: ETH0, prefix: vip }));
    bench.timeout();
    bench.settle();
    pass_beside_a_peer(&mut bench, 3);
    assert_eq!(bench.router().state, "initialize", "not for ever");
}
