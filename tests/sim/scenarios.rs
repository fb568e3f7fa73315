//! What operators count on, one story each.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use havip::config::{ChecksumMode, Config, IfName, Lifetime, NodeName, Prefix, Router, RouterName};
use havip::node::Instant;
use havip::sim::World;
use havip::wire::Family;
use havip::wire::vrrp::{Centis, Priority, Version, Vrid};

const VIP: &str = "10.0.0.100";

fn vip() -> IpAddr {
    VIP.parse().unwrap()
}

fn own(number: u8) -> Vec<Prefix> {
    let v4 = Prefix { ip: [10, 0, 0, number].into(), len: 24 };
    let v6 = Prefix { ip: format!("fe80::{number:x}").parse().unwrap(), len: 64 };
    vec![v4, v6]
}

fn router(priority: u8, interval: u16) -> Router {
    Router {
        name: RouterName::new("51").unwrap(),
        vrid: Vrid::new(51).unwrap(),
        version: Version::V3,
        family: Family::V4,
        interface: IfName::new("eth0").unwrap(),
        priority: Priority::new(priority).unwrap(),
        preempt: true,
        preempt_delay: Duration::ZERO,
        listen_first: Duration::ZERO,
        carrier_delay: Duration::ZERO,
        probe_interval: Duration::from_secs(60),
        yield_on_send_errors: true,
        advert_interval: Centis(interval),
        auth_pass: None,
        vips: vec![Prefix::host(vip())],
        vips_excluded: Vec::new(),
        checksum: ChecksumMode::Auto,
        address_lifetime: Lifetime::Auto,
        check: None,
    }
}

fn config(routers: impl IntoIterator<Item = Router>) -> Arc<Config> {
    let routers: BTreeMap<_, _> =
        routers.into_iter().map(|router| (router.name.clone(), Arc::new(router))).collect();
    Arc::new(Config { node: NodeName::new("gw").unwrap(), node_ip: None, routers })
}

/// Machines with these priorities.
fn world(seed: u64, interval: u16, priorities: &[u8]) -> World {
    let mut world = World::new(seed);
    for (number, priority) in (1..).zip(priorities) {
        world.add(&own(number), config([router(*priority, interval)]));
    }
    world
}

fn run(world: &mut World, ms: u64) {
    world.run(Duration::from_millis(ms), |_| {});
}

#[track_caller]
fn assert_sole(world: &World, machine: usize) {
    assert_eq!(world.active("51"), [machine], "at {:?}", world.now());
    assert_eq!(world.holders(&vip()), [machine], "at {:?}", world.now());
}

#[test]
fn the_highest_priority_becomes_the_only_active_one() {
    let mut world = world(1, 100, &[100, 150, 120]);
    run(&mut world, 10_000);
    assert_sole(&world, 1);
}

#[test]
fn among_equals_that_meet_the_highest_address_wins() {
    let mut world = world(1, 100, &[100, 100, 100]);
    for (from, to) in [(0, 1), (1, 0), (0, 2), (2, 0), (1, 2), (2, 1)] {
        world.cut(from, to);
    }
    run(&mut world, 10_000);
    assert_eq!(world.active("51"), [0, 1, 2], "a partition has as many owners as sides");
    world.heal();
    run(&mut world, 1_100);
    assert_sole(&world, 2);
}

#[test]
fn a_killed_active_router_is_replaced_within_active_down_interval() {
    let mut world = world(1, 100, &[200, 100]);
    run(&mut world, 10_000);
    assert_sole(&world, 0);
    let killed_at = world.now();
    world.kill(0);
    run(&mut world, 3_609 + 20);
    assert_eq!(world.active("51"), [1]);
    let announced = world.announced(1, vip()).expect("the successor announces");
    assert!(announced.since(killed_at) <= Duration::from_millis(3_609 + 20));
    // 1.5 × 3.21875 s, rounded up.
    run(&mut world, 5_000);
    assert_eq!(world.holders(&vip()), [1], "the dead machine's address ran out");
}

#[test]
fn a_stopped_active_router_is_replaced_within_skew_time() {
    let mut world = world(1, 100, &[200, 100]);
    run(&mut world, 10_000);
    world.shutdown(0);
    run(&mut world, 609 + 20);
    assert_sole(&world, 1);
}

#[test]
fn a_router_that_comes_back_waits_its_preempt_delay_and_no_longer() {
    let mut world = World::new(1);
    let late = || Router { preempt_delay: Duration::from_secs(10), ..router(200, 100) };
    world.add(&own(1), config([router(100, 100)]));
    world.add(&own(2), config([late()]));
    // The first time, too: machine 0 has nobody to wait for.
    run(&mut world, 20_000);
    assert_sole(&world, 1);
    world.kill(1);
    run(&mut world, 10_000);
    assert_eq!(world.active("51"), [0]);
    let back_at = world.now();
    world.start(1, config([late()]));
    // Its delay begins with the first advert that it hears, within one interval.
    run(&mut world, 9_900);
    assert_sole(&world, 0);
    run(&mut world, 1_200);
    assert_sole(&world, 1);
    let announced = world.announced(1, vip()).expect("it announces");
    let took = announced.since(back_at);
    assert!(took >= Duration::from_secs(10) && took <= Duration::from_millis(11_100), "{took:?}");
    // While it waits, whom it waits for may die.
    world.kill(1);
    run(&mut world, 10_000);
    world.start(1, config([late()]));
    run(&mut world, 3_000);
    world.kill(0);
    run(&mut world, 3_300);
    assert_eq!(world.active("51"), [1]);
}

#[test]
fn every_version_and_family_elects_and_fails_over() {
    for (version, family, auth) in [
        (Version::V2, Family::V4, false),
        (Version::V2, Family::V4, true),
        (Version::V3, Family::V4, false),
        (Version::V3, Family::V6, false),
    ] {
        let mut world = World::new(7);
        let ip: IpAddr = if family == Family::V6 { "fe80::100" } else { VIP }.parse().unwrap();
        for (number, priority) in [(1, 100), (2, 150), (3, 120)] {
            let mut router = router(priority, 100);
            (router.version, router.family) = (version, family);
            router.vips = vec![Prefix::host(ip)];
            router.auth_pass = auth.then(|| havip::config::Secret::new("letmein".to_owned()));
            world.add(&own(number), config([router]));
        }
        run(&mut world, 10_000);
        assert_eq!((world.active("51"), world.holders(&ip)), (vec![1], vec![1]), "{version}");
        world.shutdown(1);
        run(&mut world, 2_000);
        assert_eq!((world.active("51"), world.holders(&ip)), (vec![2], vec![2]), "{version}");
    }
}

#[test]
fn one_centisecond_keeps_the_order_of_priorities() {
    for seed in 0..50 {
        let mut world = world(seed, 1, &[254, 200, 100]);
        run(&mut world, 1_000);
        assert_sole(&world, 0);
        world.kill(0);
        run(&mut world, 50);
        assert_eq!(world.active("51"), [1], "seed {seed}");
    }
}

#[test]
fn a_vip_that_a_stranger_removes_comes_back_and_is_announced() {
    let mut world = world(1, 100, &[200, 100]);
    run(&mut world, 10_000);
    for _ in 0..5 {
        let (kernel, index) = world.kernel(0);
        assert!(kernel.remove_address(index, Prefix::host(vip())));
        let removed_at = world.now();
        run(&mut world, 150);
        assert_sole(&world, 0);
        assert!(world.announced(0, vip()).unwrap() >= removed_at);
        run(&mut world, 2_000);
    }
}

#[test]
fn an_operators_address_is_neither_taken_nor_removed() {
    let mut world = world(1, 100, &[200]);
    let (kernel, index) = world.kernel(0);
    kernel.add_own_address(index, Prefix::host(vip()));
    run(&mut world, 10_000);
    assert_eq!(world.active("51"), [0]);
    world.shutdown(0);
    run(&mut world, 1_000);
    assert_eq!(world.holders(&vip()), [0]);
}

#[test]
fn a_restarted_daemon_removes_what_its_crash_left_before_anything_else() {
    let mut world = world(1, 100, &[200]);
    run(&mut world, 10_000);
    let config = world.kill(0).unwrap();
    assert_eq!(world.holders(&vip()), [0]);
    world.start(0, config);
    run(&mut world, 50);
    assert_eq!(world.holders(&vip()), [] as [usize; 0]);
    run(&mut world, 10_000);
    assert_sole(&world, 0);
}

#[test]
fn losing_carrier_hands_over_and_getting_it_back_takes_over() {
    let mut world = world(1, 100, &[200, 100]);
    run(&mut world, 10_000);
    let (kernel, index) = world.kernel(0);
    kernel.set_running(index, false);
    run(&mut world, 4_000);
    assert_sole(&world, 1);
    let (kernel, index) = world.kernel(0);
    kernel.set_running(index, true);
    run(&mut world, 5_000);
    assert_sole(&world, 0);
}

#[test]
fn a_deleted_and_recreated_interface_is_followed() {
    let mut world = world(1, 100, &[200, 100]);
    run(&mut world, 10_000);
    let (kernel, index) = world.kernel(0);
    kernel.delete_link(index);
    run(&mut world, 5_000);
    assert_sole(&world, 1);
    world.recreate_link(0, &own(1));
    run(&mut world, 5_000);
    assert_sole(&world, 0);
}

#[test]
fn a_frozen_active_router_yields_or_wins_without_a_second_owner() {
    for (priorities, expected) in [([200, 100], 0), ([100, 200], 1)] {
        let mut world = world(3, 100, &priorities);
        run(&mut world, 10_000);
        let active = world.active("51")[0];
        assert_eq!(active, expected);
        world.freeze(active, Duration::from_secs(6));
        run(&mut world, 5_900);
        let resumed_at = world.now() + Duration::from_millis(100);
        run(&mut world, 1_200);
        assert_sole(&world, active);
        assert!(world.announced(active, vip()).unwrap() >= resumed_at, "it announced again");
    }
}

#[test]
fn a_peer_in_another_version_with_our_vip_is_not_taken_over() {
    let mut world = World::new(1);
    let mut old = router(50, 100);
    old.version = Version::V2;
    old.preempt = false;
    world.add(&own(1), config([old]));
    run(&mut world, 10_000);
    assert_sole(&world, 0);
    world.add(&own(2), config([router(200, 100)]));
    run(&mut world, 30_000);
    assert_sole(&world, 0);
    let status = world.node(1).unwrap().status(world.now());
    let held_back = status.routers[0].held_back.as_deref().unwrap();
    assert!(held_back.contains("VRRPv2"), "{held_back}");
    // It is a backup all the same: when the other one goes, it takes over.
    world.kill(0);
    run(&mut world, 4_000);
    assert_eq!(world.active("51"), [1]);
}

#[test]
fn changing_one_router_disturbs_no_other() {
    let routers = |priority: u8, changed: u8| {
        config((1..=100).map(|vrid| {
            let mut router = router(priority, 10);
            router.name = RouterName::new(&vrid.to_string()).unwrap();
            router.vrid = Vrid::new(vrid).unwrap();
            router.vips = vec![Prefix::host([10, 1, 0, vrid].into())];
            if vrid == 7 {
                router.vips.push(Prefix::host([10, 2, changed, vrid].into()));
            }
            router
        }))
    };
    let mut world = World::new(1);
    world.add(&own(1), routers(200, 0));
    world.add(&own(2), routers(100, 0));
    run(&mut world, 5_000);
    let transitions = |world: &World| -> u64 {
        let now = world.now();
        (0..2)
            .flat_map(|machine| world.node(machine).unwrap().status(now).routers)
            .map(|router| router.counters.master_transitions + router.counters.priority_zero_sent)
            .sum()
    };
    let before = transitions(&world);
    for round in 1..=50 {
        world.configure(0, routers(200, round));
        world.configure(1, routers(100, round));
        run(&mut world, 200);
    }
    assert_eq!(transitions(&world), before);
    let ip: IpAddr = [10, 2, 50, 7].into();
    assert_eq!(world.holders(&ip), [0]);
    assert_eq!(world.holders(&[10, 2, 49, 7].into()), [] as [usize; 0]);
}

#[test]
fn a_longer_lifetime_reaches_the_kernel_before_renewals_slow_down() {
    let routers = |others: u16| {
        let mut many = router(200, 100);
        many.name = RouterName::new("52").unwrap();
        many.vrid = Vrid::new(52).unwrap();
        many.vips = vec![Prefix::host([10, 3, 0, 1].into())];
        let octets = |n: u16| [10, 4, u8::try_from(n >> 8).unwrap(), n.to_le_bytes()[0]];
        many.vips_excluded = (0..others).map(|n| Prefix::host(octets(n).into())).collect();
        config([router(200, 100), many])
    };
    let mut world = World::new(1);
    world.add(&own(1), routers(0));
    run(&mut world, 10_000);
    assert_eq!(world.holders(&vip()), [0]);
    // Two thousand more addresses: renewing all of them each second would wake the box too often.
    world.configure(0, routers(2_000));
    world.run(Duration::from_secs(300), |world| {
        assert_eq!(world.holders(&vip()), [0], "at {:?}", world.now());
    });
    let status = world.node(0).unwrap().status(world.now());
    assert_eq!(status.routers[0].address_lifetime, Some(81));
    assert_eq!(status.routers[0].counters.restored, 0);
}

#[test]
fn many_routers_share_wakeups_without_a_burst() {
    let routers = |priority: u8| {
        config((1..=250).map(|vrid| {
            let mut router = router(priority, 10);
            router.name = RouterName::new(&vrid.to_string()).unwrap();
            router.vrid = Vrid::new(vrid).unwrap();
            router.vips = vec![Prefix::host([10, 1, 0, vrid].into())];
            router
        }))
    };
    let mut world = World::new(1);
    world.add(&own(1), routers(200));
    run(&mut world, 20_000);
    let sent = world.adverts[0];
    let mut moments = 0;
    let mut last = (Instant::ZERO, sent);
    world.run(Duration::from_secs(1), |world| {
        if world.adverts[0] != last.1 {
            assert!(world.adverts[0] - last.1 <= 64, "a burst");
            if world.now() != last.0 {
                moments += 1;
            }
            last = (world.now(), world.adverts[0]);
        }
    });
    let sent = world.adverts[0] - sent;
    assert!((2500..=2600).contains(&sent), "{sent} adverts in a second");
    assert!(moments <= 45, "{moments} moments of sending in a second");
}
