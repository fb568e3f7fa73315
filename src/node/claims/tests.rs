use std::time::Duration;

use super::*;
use crate::config::{Prefix, Router};
use crate::node::kernel::{Change, Snapshot};
use crate::node::notice::Notice;
use crate::node::testing::{Bench, ETH0, address, link, router};
use crate::node::{Action, Event};

const VIP: [u8; 4] = [10, 0, 0, 51];

/// A router with this VIP length that is active, its address there as a kernel without marks
/// reports it.
fn active(len: u8) -> Bench {
    let vips = vec![Prefix { ip: VIP.into(), len }];
    let mut bench = Bench::new(vec![Router { vips, ..router(51) }]);
    bench.pass(Duration::from_secs(4));
    assert_eq!(bench.router().state, "active");
    bench.asked.clear();
    bench
}

fn there(len: u8, permanent: bool, proto: u8) -> Change {
    let plain = address("10.0.0.51", len, false);
    Change::Address(Address { permanent, proto, ..plain })
}

fn tell(bench: &mut Bench, change: Change) {
    bench.event(Event::Kernel(change));
    bench.settle();
    bench.timeout();
    bench.settle();
}

fn gone(len: u8) -> Change {
    Change::AddressGone { index: ETH0, prefix: Prefix { ip: VIP.into(), len } }
}

fn verbs(bench: &mut Bench) -> Vec<Verb> {
    std::mem::take(&mut bench.asked).into_iter().map(|op| op.verb).collect()
}

fn state(bench: &Bench) -> &'static str {
    bench.router().vips[0].state
}

#[test]
fn a_vip_is_put_as_a_host_address_and_its_network_as_a_route() {
    let vips = vec![Prefix { ip: VIP.into(), len: 24 }];
    let mut bench = Bench::new(vec![Router { vips, ..router(51) }]);
    bench.pass(Duration::from_secs(4));
    let mut asked = std::mem::take(&mut bench.asked).into_iter();
    let first = asked.next().unwrap();
    assert_eq!((first.prefix.len, first.verb), (32, Verb::Add { lifetime: Some(6) }));
    let second = asked.next().unwrap();
    assert_eq!(second.prefix.len, 24);
    assert!(matches!(second.verb, Verb::Route { again: false, .. }), "{second:?}");
    bench.pass(Duration::from_secs(10));
    let renewals = verbs(&mut bench);
    let is_renewal =
        |verb: &Verb| matches!(verb, Verb::Renew { .. } | Verb::Route { again: true, .. });
    assert!(!renewals.is_empty() && renewals.iter().all(is_renewal), "{renewals:?}");
    bench.event(Event::Shutdown);
    bench.timeout();
    bench.settle();
    assert_eq!(verbs(&mut bench), [Verb::Remove, Verb::Unroute { table: 254 }]);
}

#[test]
fn another_length_changes_the_route_and_not_the_address() {
    let mut bench = active(24);
    for (len, expected) in [(25, 2), (32, 1), (24, 1)] {
        let vips = vec![Prefix { ip: VIP.into(), len }];
        bench.configure(vec![Router { vips, ..router(51) }]);
        bench.timeout();
        bench.settle();
        let verbs = verbs(&mut bench);
        assert_eq!(verbs.len(), expected, "/{len}: {verbs:?}");
        assert!(verbs.iter().all(|v| matches!(v, Verb::Route { .. } | Verb::Unroute { .. })));
    }
    assert_eq!(state(&bench), "present");
}

#[test]
fn ours_goes_from_beside_anothers_and_comes_back_after_it() {
    for len in [16, 24, 30] {
        let mut bench = active(24);
        tell(&mut bench, there(len, true, 0));
        assert_eq!(verbs(&mut bench), [Verb::Remove, Verb::Unroute { table: 254 }]);
        assert_eq!(state(&bench), "not ours");
        assert_eq!(bench.router().vips[0].other, Some(format!("10.0.0.51/{len} (permanent)")));
        assert!(bench.node.farewells().all(|farewell| farewell.addresses.is_empty()));
        bench.pass(Duration::from_secs(20));
        assert_eq!(verbs(&mut bench), []);
        tell(&mut bench, gone(len));
        assert!(matches!(verbs(&mut bench)[..], [Verb::Add { .. }, Verb::Route { .. }]));
        assert_eq!((state(&bench), bench.router().counters.restored), ("present", 0));
        assert_eq!(bench.node.farewells().next().unwrap().addresses.len(), 1);
    }
}

#[test]
fn what_another_made_of_ours_is_known_by_mark_and_without_marks_by_its_lifetime() {
    for (marks, change, is_ours) in [
        (false, there(32, false, 0), true),
        (false, there(32, true, 0), false),
        (true, there(32, false, 0), false),
        (true, there(32, true, 0), false),
        (true, there(32, false, IFA_PROTO_HAVIP), true),
        (true, there(32, false, 4), false),
    ] {
        let mut bench = active(32);
        // As the kernel reports what was added.
        tell(&mut bench, there(32, false, if marks { IFA_PROTO_HAVIP } else { 0 }));
        assert_eq!(state(&bench), "present");
        tell(&mut bench, change.clone());
        assert_eq!(state(&bench) == "present", is_ours, "{change:?}, marks {marks}");
        bench.asked.clear();
        bench.pass(Duration::from_secs(20));
        assert_eq!(verbs(&mut bench).is_empty(), !is_ours, "{change:?}, marks {marks}");
        bench.event(Event::Shutdown);
        bench.timeout();
        bench.settle();
        assert_eq!(verbs(&mut bench).contains(&Verb::Remove), is_ours, "{change:?}");
    }
}

#[test]
fn what_the_kernel_says_is_there_is_asked_for_and_left_alone() {
    let mut bench = Bench::new(vec![router(51)]);
    bench.refuses = Some((VIP.into(), Errno(EEXIST)));
    bench.now = bench.node.next_deadline().unwrap();
    bench.timeout();
    let asked = std::mem::take(&mut bench.actions.kernel);
    assert!(
        matches!(&asked[0], Action::Apply(ops) if matches!(ops[..], [Op { verb: Verb::Add { .. }, .. }]))
    );
    bench.event(Event::Applied(vec![Err(Errno(EEXIST))]));
    assert_eq!(bench.actions.notices, [], "news of it may be under way");
    bench.timeout();
    assert!(bench.actions.kernel.contains(&Action::Dump), "{:?}", bench.actions.kernel);
    let addresses = vec![address("10.0.0.201", 24, false), address("10.0.0.51", 32, false)];
    bench.event(Event::Dumped(Ok(Snapshot { links: vec![link(ETH0)], addresses })));
    bench.settle();
    assert_eq!(state(&bench), "not ours");
    bench.asked.clear();
    bench.pass(Duration::from_secs(20));
    assert_eq!(verbs(&mut bench), []);
    assert!(bench.router().counters.announcements > 0, "it counts as there");
}

#[test]
fn what_a_renewal_brought_back_is_announced_though_its_addition_failed() {
    let mut bench = active(32);
    let back = there(32, false, IFA_PROTO_HAVIP);
    tell(&mut bench, back.clone());
    bench.pass(Duration::from_secs(10));
    let prefix = Prefix::host(VIP.into());
    bench.event(Event::Kernel(Change::AddressGone { index: ETH0, prefix }));
    bench.timeout();
    assert!(matches!(request(&mut bench)[..], [Verb::Add { .. }]));
    bench.event(Event::Kernel(back));
    bench.timeout();
    let before = bench.router().counters.announcements;
    bench.event(Event::Applied(vec![Err(Errno(105))]));
    assert!(matches!(bench.actions.notices[..], [Notice::Restored { .. }]));
    bench.timeout();
    assert_eq!(bench.router().counters.announcements, before + 1);
}

#[test]
fn a_route_that_another_has_is_neither_renewed_nor_removed() {
    let vips = vec![Prefix { ip: "2001:db8::51".parse().unwrap(), len: 64 }];
    let mut bench = Bench::new(vec![Router { vips_excluded: vips, ..router(51) }]);
    bench.now = bench.node.next_deadline().unwrap();
    loop {
        bench.timeout();
        let asked = std::mem::take(&mut bench.actions.kernel);
        let Some(ops) = asked.iter().find_map(|action| match action {
            Action::Apply(ops) => Some(ops.clone()),
            _ => None,
        }) else {
            break;
        };
        let result = |op: &Op| match op.verb {
            Verb::Route { .. } => Err(Errno(EEXIST)),
            _ => Ok(()),
        };
        bench.event(Event::Applied(ops.iter().map(result).collect()));
    }
    bench.event(Event::Shutdown);
    bench.timeout();
    bench.settle();
    let verbs = verbs(&mut bench);
    assert_eq!(verbs, [Verb::Remove, Verb::Remove], "and no route");
}

/// The operations of the one request that is being asked.
fn request(bench: &mut Bench) -> Vec<Verb> {
    let asked = std::mem::take(&mut bench.actions.kernel);
    let ops = asked.into_iter().filter_map(|action| match action {
        Action::Apply(ops) => Some(ops),
        _ => None,
    });
    ops.flatten().map(|op| op.verb).collect()
}

#[test]
fn a_route_is_left_to_another_vip_that_has_just_asked_for_the_same() {
    let at = |last: u16| Prefix { ip: format!("2001:db8::{last:x}").parse().unwrap(), len: 64 };
    let with = |vips_excluded| vec![Router { vips_excluded, ..router(51) }];
    let mut bench = Bench::new(with(vec![at(1)]));
    bench.pass(Duration::from_secs(4));
    bench.configure(with(vec![at(1), at(2)]));
    bench.timeout();
    assert!(matches!(request(&mut bench)[..], [Verb::Add { .. }]));
    bench.event(Event::Applied(vec![Ok(())]));
    bench.timeout();
    assert!(matches!(request(&mut bench)[..], [Verb::Route { again: false, .. }]));
    bench.configure(with(vec![at(2)]));
    bench.timeout();
    assert_eq!(request(&mut bench), [Verb::Remove], "and not the route");
    bench.event(Event::Applied(vec![Err(Errno(EEXIST))]));
    bench.event(Event::Applied(vec![Ok(())]));
    bench.settle();
    bench.asked.clear();
    bench.event(Event::Shutdown);
    bench.timeout();
    bench.settle();
    assert!(verbs(&mut bench).contains(&Verb::Unroute { table: 254 }), "the last one's goes");
}
