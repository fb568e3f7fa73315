//! What received packets do to a node: which counter, which line in the log, which state.

use std::time::Duration;

use proptest::prelude::*;

use super::*;
use crate::config::{Prefix, Router};
use crate::node::Event;
use crate::node::notice::Level;
use crate::node::testing::{Bench, ETH0, advert, priority, router};
use crate::wire::Family;
use crate::wire::checksum::Sum;
use crate::wire::vrrp::{AdvertSpec, Centis, SumForm};

const PEER: &str = "10.0.0.202";
const PEER6: &str = "fe80::ca";

fn v2() -> Router {
    Router { version: Version::V2, ..router(51) }
}

fn v6() -> Router {
    let vips = vec![Prefix::host("fe80::51".parse().unwrap())];
    Router { family: Family::V6, vips, ..router(51) }
}

fn peer_of(router: &Router) -> &'static str {
    match router.family {
        Family::V4 => PEER,
        Family::V6 => PEER6,
    }
}

/// A bench with this router as backup of one with priority 200, heard once.
fn backup(router: &Router) -> Bench {
    let mut bench = Bench::new(vec![router.clone()]);
    bench.packet(peer_of(router), &advert(router, peer_of(router), 200));
    assert!(bench.node.entries.values().all(|entry| entry.remembers()));
    assert_eq!(bench.router().state, "backup");
    bench
}

/// A bench with this router as the active one.
fn active(router: &Router) -> Bench {
    let mut bench = Bench::new(vec![router.clone()]);
    bench.pass(Duration::from_secs(4));
    assert_eq!(bench.router().state, "active");
    bench
}

/// Sums the packet anew, as a sender that means what it says.
fn summed(mut bytes: Vec<u8>, router: &Router) -> Vec<u8> {
    bytes[6..8].fill(0);
    let sum = match router.family {
        Family::V4 => Sum::default(),
        Family::V6 => {
            let src: IpAddr = PEER6.parse().unwrap();
            Sum::pseudo_header(src, "ff02::12".parse().unwrap(), 112, bytes.len())
        }
    };
    let sum = sum.bytes(&bytes).checksum();
    bytes[6..8].copy_from_slice(&sum.to_be_bytes());
    bytes
}

type Break = fn(&mut Vec<u8>);

/// Counter, what breaks the packet, TTL.
const HOSTILE: [(&str, Break, u8); 11] = [
    ("ip_ttl_errors", |_| (), 254),
    ("ip_ttl_errors", |_| (), 1),
    ("invalid_type_packets", |bytes| bytes[0] = bytes[0] & 0xf0 | 2, 255),
    ("version_errors", |bytes| bytes[0] = 0x41, 255),
    ("version_errors", |bytes| bytes[0] = 0x11, 255),
    ("address_count_errors", |bytes| bytes[3] = 0, 255),
    ("packet_length_errors", |bytes| bytes[3] = 200, 255),
    ("packet_length_errors", |bytes| bytes.truncate(7), 255),
    ("packet_length_errors", |bytes| bytes.extend([0; 4]), 255),
    ("vrid_errors", |bytes| bytes[1] = 0, 255),
    ("packet_length_errors", Vec::clear, 255),
];

#[test]
fn every_hostile_packet_is_counted_by_its_reason_and_changes_nothing() {
    for router in [router(51), v2(), v6()] {
        let mut table: Vec<(&str, Break, u8)> = HOSTILE.to_vec();
        match (router.version, router.family) {
            (Version::V3, Family::V6) => {
                table.push(("first_address_errors", |bytes| bytes[8] = 0x20, 255));
                table.push(("zero_interval_errors", |bytes| bytes[4..6].fill(0), 255));
            }
            (Version::V3, Family::V4) => {
                table.push(("zero_interval_errors", |bytes| bytes[4..6].fill(0), 255));
            }
            (Version::V2, _) => {
                table.push(("zero_interval_errors", |bytes| bytes[5] = 0, 255));
            }
        }
        for (counter, change, ttl) in table {
            for mut bench in [backup(&router), active(&router)] {
                let (before, deadline) = (bench.router(), bench.node.next_deadline());
                let mut bytes = advert(&router, peer_of(&router), 255);
                change(&mut bytes);
                let bytes = if bytes.len() >= 8 { summed(bytes, &router) } else { bytes };
                bench.packet_with_ttl(peer_of(&router), &bytes, ttl);
                let after = bench.router();
                assert_eq!(bench.discarded(counter), 1, "{counter} {router:?}");
                assert_eq!(after, before, "{counter}");
                assert_eq!(bench.node.next_deadline(), deadline);
                assert_eq!(bench.actions.frame_count(), 0, "{counter}");
                assert!(bench.actions.kernel.is_empty());
            }
        }
        let mut bench = backup(&router);
        let mut bytes = advert(&router, peer_of(&router), 255);
        bytes[6] ^= 0x10;
        bench.packet(peer_of(&router), &bytes);
        assert_eq!(bench.discarded("checksum_errors"), 1);
    }
}

#[test]
fn a_flood_of_bad_packets_is_counted_whole_and_logged_once_a_second() {
    let mut bench = backup(&router(51));
    let mut bytes = advert(&router(51), PEER, 255);
    bytes[6] ^= 0x10;
    let mut lines = 0;
    for _ in 0..10_000 {
        bench.packet(PEER, &bytes);
        lines += bench.actions.notices.len();
        bench.now = bench.now + Duration::from_micros(100);
    }
    assert_eq!(bench.discarded("checksum_errors"), 10_000);
    assert_eq!(lines, 1, "in one second");
    bench.packet(PEER, &bytes);
    match bench.actions.notices.as_slice() {
        [Notice::Discarded { count: 10_001, reason: Discard::Checksum, .. }] => {}
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_vrid_of_others_is_counted_without_a_word() {
    let mut bench = backup(&router(51));
    bench.packet(PEER, &advert(&router(52), PEER, 255));
    assert_eq!(bench.node.status(bench.now).ports[0].unknown_vrid, 1);
    assert_eq!(bench.actions.notices, []);
}

#[test]
fn our_own_advert_that_comes_back_is_ignored() {
    let mut bench = active(&router(51));
    bench.packet("10.0.0.201", &advert(&router(51), "10.0.0.201", 255));
    assert_eq!(bench.router().state, "active");
    assert_eq!(bench.router().counters.own_packets, 1);
}

/// A packet from `src` to this box alone.
fn unicast(bench: &mut Bench, router: &Router, src: &str, ttl: u8) {
    let (src, dst): (IpAddr, IpAddr) = match router.family {
        Family::V4 => (src.parse().unwrap(), "10.0.0.201".parse().unwrap()),
        Family::V6 => (src.parse().unwrap(), "2001:db8::c9".parse().unwrap()),
    };
    let addresses: Vec<IpAddr> = router.vips.iter().map(|vip| vip.ip).collect();
    let spec = AdvertSpec {
        version: router.version,
        vrid: router.vrid,
        priority: 50,
        interval: router.advert_interval,
        auth: Auth::None,
        addresses: &addresses,
        sum: SumForm::PseudoHeader,
    };
    let mut bytes = Vec::new();
    spec.emit(src, dst, &mut bytes);
    let port = Port { index: ETH0, family: router.family };
    bench.event(Event::Packet { port, meta: RxMeta { src, dst, ttl }, bytes: &bytes });
}

#[test]
fn who_sends_to_this_box_alone_is_counted_named_and_not_taken_over() {
    for router in [router(51), v2(), v6()] {
        let src = if router.family == Family::V4 { "10.0.0.9" } else { "fe80::9" };
        let mut bench = backup(&router);
        let received = bench.router().counters.adverts_received;
        for _ in 0..5 {
            unicast(&mut bench, &router, src, 255);
            let shown = bench.router();
            let why = shown.held_back.unwrap();
            assert!(why.contains("sends unicast") && why.contains("unicast_peer"), "{why}");
            bench.pass(router.advert_interval.duration());
            assert_eq!(bench.router().state, "backup");
        }
        let shown = bench.router();
        assert_eq!((shown.counters.misconfigured, shown.counters.adverts_received), (5, received));
        assert_eq!(bench.node.status(bench.now).ports[0].unicast, 5);
        let mut bench = active(&router);
        unicast(&mut bench, &router, src, 255);
        let shown = bench.router();
        assert_eq!(shown.state, "active");
        assert!(shown.conflict.is_some_and(|what| what.contains("sends unicast")));
    }
}

#[test]
fn what_comes_to_this_box_alone_from_beyond_the_link_has_no_effect() {
    for (router, near, far) in [
        (router(51), None, "192.0.2.9"),
        (router(51), None, "10.0.0.9"),
        (v6(), Some("fe80::9"), "2001:db8:1::9"),
    ] {
        let mut bench = backup(&router);
        unicast(&mut bench, &router, far, 254);
        assert_eq!(bench.router().held_back, None);
        assert_eq!(bench.discarded("ip_ttl_errors"), 1);
        if let Some(near) = near {
            unicast(&mut bench, &router, near, 64);
            assert!(bench.router().held_back.is_some());
        }
    }
}

#[test]
fn in_version_3_another_interval_is_kept_learned_and_told() {
    let mut bench = backup(&router(51));
    let slow = Router { advert_interval: Centis(300), ..router(51) };
    bench.packet(PEER, &advert(&slow, PEER, 200));
    let shown = bench.router();
    assert_eq!(shown.counters.interval_errors, 1);
    assert_eq!(shown.counters.adverts_received, 2);
    assert_eq!(shown.active_adver_interval, "3");
    assert!(matches!(
        bench.actions.notices.as_slice(),
        [Notice::Differs { what: Difference::Interval(Centis(300)), .. }]
    ));
}

#[test]
fn in_version_2_another_interval_is_discarded_and_its_sender_not_taken_over() {
    let mut bench = backup(&v2());
    let slow = Router { advert_interval: Centis(300), ..v2() };
    bench.packet(PEER, &advert(&slow, PEER, 50));
    let shown = bench.router();
    assert_eq!((shown.counters.interval_errors, shown.counters.adverts_received), (1, 1));
    assert!(
        shown.held_back.is_some_and(|why| why.contains("every 3 s")),
        "{:?}",
        bench.actions.notices
    );
}

#[test]
fn an_active_router_shows_one_that_is_active_in_another_version_until_it_falls_silent() {
    let mut bench = active(&router(51));
    bench.packet(PEER, &advert(&v2(), PEER, 50));
    let shown = bench.router();
    assert_eq!((shown.state, shown.held_back), ("active", None));
    let conflict = shown.conflict.unwrap();
    assert!(conflict.contains(PEER) && conflict.contains("set version = \"2\""), "{conflict}");
    bench.packet(PEER, &advert(&v2(), PEER, 0));
    assert_eq!(bench.router().conflict, None);
}

/// An advert of version 3 with these VIPs, under this VRID.
fn naming(vrid: u8, vips: &[u8], prio: u8) -> Vec<u8> {
    let vips = vips.iter().map(|last| Prefix::host([10, 0, 0, *last].into())).collect();
    advert(&Router { vips, ..router(vrid) }, PEER, prio)
}

#[test]
fn other_addresses_are_kept_and_told() {
    let mut bench = backup(&router(51));
    bench.packet(PEER, &naming(51, &[51, 99], 200));
    let shown = bench.router();
    assert_eq!((shown.counters.address_list_errors, shown.counters.adverts_received), (1, 2));
    assert_eq!(shown.conflict, None, "all of ours are there");
    assert!(matches!(
        bench.actions.notices.as_slice(),
        [Notice::Differs { what: Difference::Addresses, .. }]
    ));
}

#[test]
fn an_active_router_without_one_of_our_addresses_is_named_while_it_is_so() {
    let vips = [51, 99].map(|last| Prefix::host([10, 0, 0, last].into()));
    let mut bench = backup(&Router { vips: vips.into(), ..router(51) });
    assert_eq!(bench.router().conflict, None);
    bench.packet(PEER, &naming(51, &[51], 200));
    let conflict = bench.router().conflict.unwrap();
    assert!(conflict.contains("does not advertise 10.0.0.99"), "{conflict}");
    bench.packet(PEER, &naming(51, &[51, 99], 200));
    assert_eq!(bench.router().conflict, None);
}

#[test]
fn another_cluster_of_the_same_kind_is_named_and_its_adverts_count_for_nothing() {
    // One that starts beside it takes its own addresses.
    let mut bench = Bench::new(vec![router(51)]);
    for _ in 0..10 {
        bench.packet(PEER, &naming(51, &[99], 200));
        bench.pass(Duration::from_secs(1));
    }
    let shown = bench.router();
    assert_eq!((shown.state, shown.counters.foreign_cluster), ("active", 10));
    assert_eq!(shown.counters.adverts_received, 0);
    let conflict = shown.conflict.unwrap();
    assert!(conflict.contains(PEER) && conflict.contains("another VRID"), "{conflict}");
    // Nor does an active one yield to it, or answer it.
    let sent = bench.router().counters.adverts_sent;
    bench.packet(PEER, &naming(51, &[99], 50));
    assert_eq!((bench.router().state, bench.router().counters.adverts_sent), ("active", sent));
    bench.pass(Duration::from_secs(5));
    assert_eq!(bench.router().conflict, None, "it fell silent");
}

#[test]
fn gateways_that_replace_all_addresses_one_after_the_other_stay_one_cluster() {
    let replaced = Router { vips: vec![Prefix::host([10, 0, 0, 99].into())], ..router(51) };
    // The active one first, and this one first.
    for (here, there) in [(router(51), 99), (replaced.clone(), 51)] {
        let mut bench = backup(&router(51));
        bench.configure(vec![here]);
        for _ in 0..50 {
            bench.packet(PEER, &naming(51, &[there], 200));
            bench.pass(Duration::from_secs(1));
            assert_eq!(bench.router().state, "backup");
        }
        // Then the other; and nobody moved.
        bench.configure(vec![Router {
            vips: vec![Prefix::host([10, 0, 0, 98].into())],
            ..replaced.clone()
        }]);
        bench.packet(PEER, &naming(51, &[98], 200));
        assert_eq!(bench.router().counters.foreign_cluster, 0);
    }
    // But not for ever: nobody has what is configured here.
    let mut bench = backup(&router(51));
    for _ in 0..70 {
        bench.packet(PEER, &naming(51, &[99], 200));
        bench.pass(Duration::from_secs(1));
    }
    assert_eq!(bench.router().state, "active");
    // One who never named any is another cluster at once, and a mate is still heard beside it.
    let mut bench = backup(&router(51));
    let other = Router { vips: vec![Prefix::host([10, 0, 0, 99].into())], ..router(51) };
    bench.packet("10.0.0.203", &advert(&other, "10.0.0.203", 255));
    assert_eq!(bench.router().counters.foreign_cluster, 1);
    bench.packet(PEER, &advert(&router(51), PEER, 200));
    assert_eq!(bench.router().heard.unwrap().address, PEER);
}

#[test]
fn an_advert_under_another_vrid_that_names_our_address_holds_a_backup_back_and_is_named() {
    let mut bench = Bench::new(vec![router(51)]);
    for _ in 0..20 {
        bench.packet(PEER, &naming(77, &[7, 51], 10));
        bench.pass(Duration::from_millis(500));
    }
    let shown = bench.router();
    assert_eq!(shown.state, "backup");
    let why = shown.held_back.unwrap();
    assert!(why.contains("under VRID 77") && why.contains("51 here"), "{why}");
    assert_eq!(bench.node.status(bench.now).ports[0].unknown_vrid, 20);
    // Its sender falls silent, and comes back: both are active then, and this one does not yield.
    bench.pass(Duration::from_secs(5));
    bench.packet(PEER, &naming(77, &[51], 255));
    assert_eq!((bench.router().state, bench.router().held_back), ("active", None));
    assert!(bench.router().conflict.unwrap().contains("under VRID 77"));
    bench.packet(PEER, &naming(78, &[52], 255));
    assert_eq!(bench.router().counters.misconfigured, 21, "not our address");
    // A farewell ends it.
    bench.pass(Duration::from_secs(1));
    bench.packet(PEER, &naming(77, &[51], 0));
    assert_eq!(bench.router().conflict, None);
}

#[test]
fn a_vip_that_a_peer_has_in_another_router_of_ours_is_a_conflict_of_that_router() {
    let mut bench = Bench::new(vec![router(51), router(52)]);
    for _ in 0..10 {
        bench.packet(PEER, &naming(51, &[51, 52], 200));
        bench.pass(Duration::from_millis(500));
    }
    let routers = bench.node.status(bench.now).routers;
    let states: Vec<_> = routers.iter().map(|router| router.state).collect();
    assert_eq!(states, ["backup", "backup"]);
    assert_eq!(routers[0].held_back, None);
    assert!(routers[1].held_back.as_ref().unwrap().contains("under VRID 51"));
}

#[test]
fn a_flood_under_another_vrid_is_looked_at_ten_times_a_second() {
    let mut bench = backup(&router(51));
    let bytes = naming(77, &[51], 10);
    for _ in 0..10_000 {
        bench.packet(PEER, &bytes);
        bench.now = bench.now + Duration::from_micros(100);
    }
    assert_eq!(bench.router().counters.misconfigured, 10);
    assert_eq!(bench.node.status(bench.now).ports[0].unknown_vrid, 10_000);
}

#[test]
fn a_password_that_is_missing_or_wrong_is_counted_and_never_shown() {
    let ours = Router { auth_pass: Some(config::Secret::new("geheim".into())), ..v2() };
    let mut bench = Bench::new(vec![ours.clone()]);
    bench.packet(PEER, &advert(&ours, PEER, 200));
    let shown = bench.router();
    assert_eq!((shown.counters.auth_errors, shown.counters.adverts_received), (1, 0));
    let told = format!("{:?} {:?}", bench.actions.notices, shown);
    assert!(!told.contains("geheim"), "{told}");
    assert!(shown.held_back.is_some_and(|why| why.contains("authentication")));
}

#[test]
fn another_cluster_on_the_same_vrid_has_no_effect_and_is_named() {
    let mut bench = backup(&router(51));
    let deadline = bench.node.next_deadline();
    let vips = vec![Prefix::host([10, 0, 0, 99].into())];
    let other = Router { vips, ..v2() };
    bench.packet(PEER, &advert(&other, PEER, 255));
    assert_eq!(bench.router().counters.foreign_cluster, 1);
    assert_eq!(bench.node.next_deadline(), deadline);
    match bench.actions.notices.as_slice() {
        [notice @ Notice::ForeignCluster { .. }] => assert_eq!(notice.level(), Level::Warn),
        other => panic!("{other:?}"),
    }
}

#[test]
fn the_form_of_the_checksum_last_heard_is_answered_in_kind() {
    let mut bench = active(&router(51));
    let bytes = summed(advert(&router(51), PEER, 50), &router(51));
    bench.packet(PEER, &bytes);
    assert_eq!(bench.router().checksum_heard, Some("rfc9568"));
    let (_, _, sent) = bench.actions.frames().next().unwrap();
    let (meta, message) = crate::wire::ip::parse_ipv4(sent).unwrap();
    let heard = Packet::new(message).unwrap().check(&meta).unwrap();
    assert_eq!(heard.sum, Some(SumForm::Message));
    // And one who sends the other form is told of, as no single form serves both.
    bench.now = bench.now + Duration::from_secs(2);
    bench.packet("10.0.0.203", &advert(&router(51), "10.0.0.203", 50));
    assert!(bench.actions.notices.iter().any(|n| matches!(n, Notice::ChecksumForms { .. })));
}

#[test]
fn two_owners_resolve_by_address_and_neither_discards_the_other() {
    let owner = Router { priority: priority(255), ..router(51) };
    let mut bench = Bench::new(vec![owner.clone()]);
    assert_eq!(bench.router().state, "active");
    bench.packet("10.0.0.200", &advert(&owner, "10.0.0.200", 255));
    assert_eq!(bench.router().state, "active");
    bench.packet(PEER, &advert(&owner, PEER, 255));
    assert_eq!(bench.router().state, "backup");
}

#[test]
fn nothing_that_arrives_before_a_router_can_take_part_has_an_effect() {
    let mut bench = Bench::on(&[], vec![router(51)]);
    assert_eq!(bench.router().state, "initialize");
    bench.packet(PEER, &advert(&router(51), PEER, 200));
    assert_eq!(bench.router().state, "initialize");
    assert_eq!(bench.actions.frame_count(), 0);
}

/// A password of eight bytes, as version 2 has them.
const SECRET: [u8; 8] = *b"geheimnis".first_chunk().unwrap();

#[test]
fn an_advert_with_a_password_is_not_remembered() {
    let auth_pass = Some(config::Secret::new(String::from_utf8_lossy(&SECRET).into()));
    let ours = Router { auth_pass, ..v2() };
    let mut bench = Bench::new(vec![ours.clone()]);
    let mut bytes = advert(&ours, PEER, 200);
    bytes[4] = 1;
    let end = bytes.len() - 8;
    bytes[end..].copy_from_slice(&SECRET);
    for count in 1..3 {
        bench.packet(PEER, &summed(bytes.clone(), &ours));
        assert_eq!(bench.router().counters.adverts_received, count);
        assert!(bench.node.entries.values().all(|entry| !entry.remembers()));
    }
}

/// One step of the property below.
#[derive(Clone, Copy, Debug)]
enum Step {
    /// From which peer, priority, whether its list is another, whether the sum is of the message
    /// alone, which byte is flipped, TTL.
    Packet(u8, u8, bool, bool, Option<usize>, u8),
    /// Takes up a configuration with these VIPs, or in another version.
    Configure(u8, bool),
    Pass(u16),
}

fn step() -> impl Strategy<Value = Step> {
    let priority = prop_oneof![8 => Just(200u8), 1 => Just(0), 1 => Just(50), 1 => any::<u8>()];
    let ttl = prop_oneof![9 => Just(255u8), 1 => Just(254)];
    let rarely = || prop::bool::weighted(0.1);
    let flip = prop::option::weighted(0.1, 0usize..12);
    let packet = (prop_oneof![6 => Just(202u8), 1 => Just(203), 1 => Just(201)], priority);
    prop_oneof![
        12 => (packet, rarely(), rarely(), flip, ttl)
            .prop_map(|((peer, priority), list, sum, flip, ttl)| {
                Step::Packet(peer, priority, list, sum, flip, ttl)
            }),
        1 => (51u8..53, rarely()).prop_map(|(vip, old)| Step::Configure(vip, old)),
        4 => (0u16..1500).prop_map(Step::Pass),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    /// To remember the last advert saves work and changes nothing.
    #[test]
    fn an_advert_that_is_remembered_has_the_effect_of_one_that_is_not(
        steps in prop::collection::vec(step(), 1..60),
    ) {
        let mut benches = [Bench::new(vec![router(51)]), Bench::new(vec![router(51)])];
        for step in steps {
            for (bench, remembers) in benches.iter_mut().zip([true, false]) {
                if !remembers {
                    bench.node.entries.values_mut().for_each(|entry| entry.forget_usual());
                }
                match step {
                    Step::Packet(peer, priority, other_list, message, flip, ttl) => {
                        let vip = [10, 0, 0, if other_list { 99 } else { 51 }];
                        let sender = Router { vips: vec![Prefix::host(vip.into())], ..router(51) };
                        let peer = format!("10.0.0.{peer}");
                        let mut bytes = advert(&sender, &peer, priority);
                        if message {
                            bytes = summed(bytes, &sender);
                        }
                        if let Some(at) = flip {
                            bytes[at] ^= 1;
                        }
                        bench.packet_with_ttl(&peer, &bytes, ttl);
                    }
                    Step::Configure(vip, old) => {
                        let version = if old { Version::V2 } else { Version::V3 };
                        let vips = vec![Prefix::host([10, 0, 0, vip].into())];
                        bench.configure(vec![Router { version, vips, ..router(51) }]);
                    }
                    Step::Pass(ms) => bench.pass(Duration::from_millis(ms.into())),
                }
            }
            let [one, other] = &benches;
            prop_assert_eq!(format!("{:?}", one.actions), format!("{:?}", other.actions));
            prop_assert_eq!(one.node.status(one.now), other.node.status(other.now));
            prop_assert_eq!(one.node.next_deadline(), other.node.next_deadline());
        }
    }
}
