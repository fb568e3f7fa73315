//! Links, addresses and what is reported of them.

use std::net::IpAddr;
use std::process::Command;

use havip::config::Prefix;
use havip::linux::netlink::{DefaultRoutes, Notifications, Requests, remove_routes};
use havip::node::kernel::{Change, Errno, IFA_PROTO_HAVIP, Op, Verb};
use havip::wire::IfIndex;

use crate::{
    Wire, address, bridge, changes_until, ip, link, name, prefix, put, remove, renew, skip,
};

isolated!(
    fn an_address_of_either_family_is_put_renewed_and_removed() {
        let mut requests = Requests::open().unwrap();
        let index = bridge(&mut requests);
        for text in ["10.0.0.3", "2001:db8::3", "169.254.7.7", "fe80::77"] {
            for lifetime in [Some(100), Some(200), None, Some(300)] {
                let verb = if lifetime == Some(100) { put } else { renew };
                assert_eq!(requests.apply(&[verb(index, text, lifetime)]).unwrap(), [Ok(())]);
                let found = address(&requests.dump().unwrap(), index, text).unwrap();
                assert_eq!(found.prefix, Prefix::host(ip(text)));
                assert_eq!(found.proto, IFA_PROTO_HAVIP);
                assert_eq!(found.permanent, lifetime.is_none(), "{text} {lifetime:?}");
                assert!(!found.tentative);
                assert_eq!(found.link_scope, text.starts_with("169") || text.starts_with("fe80"));
            }
            let gone = remove(index, Prefix::host(ip(text)));
            assert_eq!(requests.apply(&[gone]).unwrap(), [Ok(())]);
            assert_eq!(address(&requests.dump().unwrap(), index, text), None);
            let again = requests.apply(&[gone]).unwrap();
            assert_eq!(again, [Err(Errno(libc::EADDRNOTAVAIL))]);
        }
        assert_eq!(requests.malformed(), 0);
    }
);

isolated!(
    fn the_kernel_shows_the_lifetimes_that_were_asked_for() {
        let mut requests = Requests::open().unwrap();
        let index = bridge(&mut requests);
        let ops = [put(index, "10.0.0.3", Some(9000)), put(index, "2001:db8::3", Some(9000))];
        assert_eq!(requests.apply(&ops).unwrap(), [Ok(()), Ok(())]);
        let Ok(output) = Command::new("ip").args(["-o", "addr", "show", "dev", "br0"]).output()
        else {
            return skip("the_kernel_shows_the_lifetimes_that_were_asked_for", "needs iproute2");
        };
        let text = String::from_utf8(output.stdout).unwrap();
        let of = |address: &str| text.lines().find(|line| line.contains(address)).unwrap();
        let seconds = |line: &str, what: &str| -> u32 {
            let rest = line.split_once(what).unwrap().1.trim_start();
            rest.split_once("sec").unwrap().0.parse().unwrap()
        };
        // A slow machine may show less than was asked for, never more.
        for line in [of("10.0.0.3"), of("2001:db8::3")] {
            assert!((8000..=9000).contains(&seconds(line, "valid_lft")), "{line}");
        }
        assert!((8000..=9000).contains(&seconds(of("10.0.0.3"), "preferred_lft")));
        assert_eq!(seconds(of("2001:db8::3"), "preferred_lft"), 0);
        assert!(of("2001:db8::3").contains("deprecated"));
        assert!(!of("10.0.0.3").contains("deprecated"));
    }
);

isolated!(
    fn an_address_that_nobody_renews_is_reported_gone() {
        let mut requests = Requests::open().unwrap();
        let index = bridge(&mut requests);
        let mut notifications = Notifications::open(Notifications::RECEIVE_BUFFER).unwrap();
        let ops = [put(index, "10.0.0.3", Some(1)), put(index, "2001:db8::3", Some(1))];
        requests.apply(&ops).unwrap();
        let gone = ops.map(|op| Change::AddressGone { index, prefix: op.prefix });
        changes_until(&mut notifications, |changes| gone.iter().all(|c| changes.contains(c)));
    }
);

isolated!(
    fn an_address_that_is_there_is_neither_added_nor_changed() {
        let mut requests = Requests::open().unwrap();
        let index = bridge(&mut requests);
        for (text, len) in
            [("10.0.0.3", 32), ("2001:db8::3", 128), ("2001:db8::4", 64), ("fe80::4", 64)]
        {
            requests.add_address(index, prefix(text, len)).unwrap();
            let before = address(&requests.dump().unwrap(), index, text).unwrap();
            assert!(before.permanent && before.proto == 0);
            let there = Err(Errno(libc::EEXIST));
            assert_eq!(requests.apply(&[put(index, text, Some(60))]).unwrap(), [there]);
            assert_eq!(address(&requests.dump().unwrap(), index, text), Some(before));
        }
        // IPv4 knows an address by its prefix length too.
        requests.add_address(index, prefix("10.0.0.4", 24)).unwrap();
        assert_eq!(requests.apply(&[put(index, "10.0.0.4", Some(60))]).unwrap(), [Ok(())]);
    }
);

/// The routes of a family but for those to the box itself and of multicast, as iproute2 says them.
fn routes(family: &str) -> Vec<String> {
    let output = Command::new("ip").args([family, "route", "show", "table", "all"]).output();
    let text = String::from_utf8(output.unwrap().stdout).unwrap();
    let lines = text.lines().map(|line| line.trim().to_owned());
    lines.filter(|line| !line.contains("table local")).collect()
}

isolated!(
    fn an_on_link_route_is_made_renewed_and_removed_and_is_nobody_elses() {
        if Command::new("ip").arg("-V").output().is_err() {
            return skip("an_on_link_route_is_made", "needs iproute2");
        }
        let mut requests = Requests::open().unwrap();
        let index = bridge(&mut requests);
        let on = |text: &str, len, verb| Op { index, prefix: prefix(text, len), verb };
        let route = |again| Verb::Route { table: 254, lifetime: Some(60), again };
        let unroute = Verb::Unroute { table: 254 };
        requests.add_address(index, prefix("2001:db8::1", 64)).unwrap();
        requests.add_address(index, prefix("10.0.0.1", 24)).unwrap();
        let before = [routes("-4"), routes("-6")];
        let refused = requests.apply(&[on("10.0.0.3", 24, route(false))]).unwrap();
        assert_eq!(refused, [Err(Errno(libc::EINVAL))], "its source is not there");
        for text in ["10.0.0.3", "10.0.0.4", "2001:db8::3", "2001:db8::4"] {
            assert_eq!(requests.apply(&[put(index, text, Some(60))]).unwrap(), [Ok(())]);
        }
        let there = Err(Errno(libc::EEXIST));
        let made = requests
            .apply(&[
                on("10.0.0.3", 24, route(false)),
                on("10.0.0.3", 24, route(true)),
                on("10.0.0.4", 24, route(false)),
                on("2001:db8::3", 64, route(false)),
                on("2001:db8::4", 64, route(false)),
                on(
                    "2001:db8::3",
                    64,
                    Verb::Route { table: 254, lifetime: Some(9000), again: true },
                ),
            ])
            .unwrap();
        assert_eq!(made, [Ok(()), there, Ok(()), Ok(()), there, there]);
        let ours = |family| {
            let all = routes(family).into_iter();
            all.filter(|line| line.contains("proto 72")).collect::<Vec<_>>()
        };
        assert_eq!(ours("-4").len(), 2);
        assert!(
            ours("-4")
                .iter()
                .all(|line| line.contains("metric 18432 ") || line.ends_with("metric 18432")),
            "{:?}",
            ours("-4")
        );
        let [six] = &ours("-6")[..] else { panic!("{:?}", ours("-6")) };
        let seconds = six.split("expires ").nth(1).unwrap().split("sec").next().unwrap();
        assert!((8000..=9000).contains(&seconds.parse::<u32>().unwrap()), "{six}");
        // An IPv4 route goes with its address.
        requests.apply(&[remove(index, Prefix::host(ip("10.0.0.3")))]).unwrap();
        assert_eq!(ours("-4").len(), 1);
        let removed =
            requests.apply(&[on("10.0.0.4", 24, unroute), on("2001:db8::4", 64, unroute)]).unwrap();
        assert_eq!(removed, [Ok(()), Ok(())]);
        let again = requests.apply(&[on("2001:db8::4", 64, unroute)]).unwrap();
        assert_eq!(again, [Err(Errno(libc::ESRCH))]);
        for text in ["10.0.0.4", "2001:db8::3", "2001:db8::4"] {
            requests.apply(&[remove(index, Prefix::host(ip(text)))]).unwrap();
        }
        assert_eq!([routes("-4"), routes("-6")], before);
    }
);

isolated!(
    fn routes_that_an_earlier_run_left_are_removed_from_every_table_and_no_others() {
        if Command::new("ip").arg("-V").output().is_err() {
            return skip("routes_that_an_earlier_run_left", "needs iproute2");
        }
        let mut requests = Requests::open().unwrap();
        let index = bridge(&mut requests);
        requests.add_address(index, prefix("10.0.0.1", 24)).unwrap();
        requests.add_address(index, prefix("2001:db8::1", 64)).unwrap();
        for text in ["10.1.0.3", "2001:db8:1::3"] {
            requests.apply(&[put(index, text, None)]).unwrap();
        }
        let others = [
            "10.1.0.0/24 dev br0 metric 18432 proto static table 7",
            "2001:db8:1::/64 dev br0 metric 18432 proto static table 7",
        ];
        for route in others {
            let words =
                std::iter::once("route").chain(std::iter::once("add")).chain(route.split(' '));
            assert!(Command::new("ip").args(words).status().unwrap().success(), "{route}");
        }
        let before = [routes("-4"), routes("-6")];
        for table in [254, 1001] {
            let verb = Verb::Route { table, lifetime: None, again: false };
            let ops = [
                Op { index, prefix: prefix("10.1.0.3", 24), verb },
                Op { index, prefix: prefix("2001:db8:1::3", 64), verb },
            ];
            assert_eq!(requests.apply(&ops).unwrap(), [Ok(()), Ok(())]);
        }
        assert_eq!(remove_routes().unwrap(), 4);
        assert_eq!([routes("-4"), routes("-6")], before);
        assert_eq!(remove_routes().unwrap(), 0);
    }
);

isolated!(
    fn a_chunk_of_five_hundred_is_done_and_every_answer_is_in_its_place() {
        let mut requests = Requests::open().unwrap();
        let index = bridge(&mut requests);
        let nowhere = IfIndex(9999);
        let op = |n: u32| {
            let on = if n % 7 == 3 { nowhere } else { index };
            put(on, &format!("10.{}.{}.1", n / 250, n % 250), Some(600))
        };
        let ops: Vec<Op> = (0..500).map(op).collect();
        let answers = requests.apply(&ops).unwrap();
        assert_eq!(answers.len(), 500);
        for (op, answer) in ops.iter().zip(&answers) {
            let right = if op.index == nowhere { Err(Errno(libc::ENODEV)) } else { Ok(()) };
            assert_eq!(*answer, right);
        }
        let there = requests.dump().unwrap().addresses.iter().filter(|a| a.index == index).count();
        assert!(there >= answers.iter().filter(|a| a.is_ok()).count());
    }
);

isolated!(
    fn removing_a_host_address_leaves_the_operators_network_alone() {
        let mut requests = Requests::open().unwrap();
        let index = bridge(&mut requests);
        let operators = [
            prefix("10.0.0.1", 24),
            prefix("10.0.0.2", 24),
            prefix("10.0.0.3", 24),
            prefix("2001:db8::1", 64),
        ];
        for operator in operators {
            requests.add_address(index, operator).unwrap();
        }
        // The operator's own address with another length, and one beside them.
        let ops = [put(index, "10.0.0.3", Some(60)), put(index, "10.0.0.9", Some(60))];
        assert_eq!(requests.apply(&ops).unwrap(), [Ok(()), Ok(())]);
        let ops = ops.map(|op| remove(index, op.prefix));
        assert_eq!(requests.apply(&ops).unwrap(), [Ok(()), Ok(())]);
        let wrong = remove(index, prefix("10.0.0.1", 32));
        assert_eq!(requests.apply(&[wrong]).unwrap(), [Err(Errno(libc::EADDRNOTAVAIL))]);
        let left = requests.dump().unwrap().addresses;
        let left = left.iter().filter(|a| a.index == index && !a.link_scope).map(|a| a.prefix);
        assert_eq!(left.collect::<Vec<_>>(), operators);
    }
);

isolated!(
    fn what_was_reported_amounts_to_what_a_dump_shows() {
        let mut notifications = Notifications::open(Notifications::RECEIVE_BUFFER).unwrap();
        let mut requests = Requests::open().unwrap();
        let mut known = requests.dump().unwrap();
        let index = bridge(&mut requests);
        requests.add_veth(&name("a"), &name("b"), None).unwrap();
        let a = link(&requests.dump().unwrap(), "a").index;
        let b = link(&requests.dump().unwrap(), "b").index;
        requests.set_up(b, true).unwrap();
        requests.set_up(a, true).unwrap();
        requests.set_master(a, index).unwrap();
        let ops: Vec<Op> = (1..40).map(|n| put(index, &format!("10.0.0.{n}"), Some(60))).collect();
        requests.apply(&ops).unwrap();
        requests.apply(&[renew(index, "10.0.0.1", None), remove(index, ops[4].prefix)]).unwrap();
        requests.set_up(b, false).unwrap();
        requests.delete_link(a).unwrap();
        // The last thing done is the last thing reported.
        let last = put(index, "10.0.1.1", None);
        requests.apply(&[last]).unwrap();
        let is_last = |c: &Change| matches!(c, Change::Address(a) if a.prefix == last.prefix);
        for change in changes_until(&mut notifications, |changes| changes.iter().any(is_last)) {
            match change {
                Change::Link(link) => {
                    known.links.retain(|known| known.index != link.index);
                    known.links.push(link);
                }
                Change::LinkGone(index) => known.links.retain(|known| known.index != index),
                Change::Address(new) => {
                    known.addresses.retain(|a| (a.index, a.prefix) != (new.index, new.prefix));
                    known.addresses.push(new);
                }
                Change::AddressGone { index, prefix } => {
                    known.addresses.retain(|a| (a.index, a.prefix) != (index, prefix));
                }
                Change::Overrun => panic!("overrun"),
            }
        }
        let mut shown = requests.dump().unwrap();
        for snapshot in [&mut known, &mut shown] {
            snapshot.links.sort_by_key(|link| link.index);
            // Link-local addresses of the kernel's own come and go by their own clock.
            snapshot.addresses.retain(|a| a.prefix.ip.is_ipv4());
            snapshot.addresses.sort_by_key(|a| (a.index, a.prefix));
            // Carrier is reported up to a second after it changed.
            snapshot.links.iter_mut().for_each(|link| link.running = false);
        }
        assert_eq!(known, shown);
    }
);

isolated!(
    fn lost_notifications_are_reported_once_and_last() {
        let mut requests = Requests::open().unwrap();
        let index = bridge(&mut requests);
        let mut notifications = Notifications::open(4096).unwrap();
        let ops: Vec<Op> = (1..200).map(|n| put(index, &format!("10.0.0.{n}"), None)).collect();
        requests.apply(&ops).unwrap();
        let mut changes = Vec::new();
        while notifications.read(&mut changes, 1).unwrap() {}
        assert_eq!(changes.last(), Some(&Change::Overrun));
        let overruns = changes.iter().filter(|c| **c == Change::Overrun).count();
        assert_eq!(overruns, 1);
        assert!(changes.len() < ops.len());
        // From here on it hears again.
        let prefix = ops[0].prefix;
        requests.apply(&[remove(index, prefix)]).unwrap();
        changes_until(&mut notifications, |c| c.contains(&Change::AddressGone { index, prefix }));
    }
);

isolated!(
    fn reading_stops_at_the_bound_and_says_so() {
        let mut requests = Requests::open().unwrap();
        let index = bridge(&mut requests);
        let mut notifications = Notifications::open(Notifications::RECEIVE_BUFFER).unwrap();
        let ops: Vec<Op> = (1..11).map(|n| put(index, &format!("10.0.0.{n}"), None)).collect();
        requests.apply(&ops).unwrap();
        let mut changes = Vec::new();
        assert!(notifications.read(&mut changes, 4).unwrap());
        assert_eq!(changes.len(), 4);
        while notifications.read(&mut changes, 4).unwrap() {}
        assert!(changes.len() >= ops.len());
    }
);

isolated!(
    fn the_default_gateways_of_both_families_are_found() {
        let mut requests = Requests::open().unwrap();
        let mut routes = DefaultRoutes::watch();
        let mut gateways = || routes.gateways([7]).unwrap();
        assert_eq!(gateways(), Vec::<IpAddr>::new());
        let index = bridge(&mut requests);
        requests.add_address(index, prefix("10.0.0.1", 24)).unwrap();
        requests.add_default_route(index, ip("10.0.0.254")).unwrap();
        requests.add_default_route(index, ip("fe80::254")).unwrap();
        assert_eq!(gateways(), [ip("10.0.0.254"), ip("fe80::254")]);
        let name = requests.dump().unwrap().links.into_iter().find(|link| link.index == index);
        let name = name.unwrap().name;
        let change = |arguments: &str| {
            let arguments = arguments.replace("DEV", name.as_str());
            let status = Command::new("ip").args(arguments.split(' ')).status();
            assert!(status.unwrap().success(), "{arguments}");
        };
        // Beside more specific ones, others of a higher metric, and in other tables.
        change("route add 0.0.0.0/8 via 10.0.0.8 dev DEV");
        change("route add 10.9.0.0/16 via 10.0.0.9 dev DEV");
        change("-6 route add 2001:db8::/32 via fe80::9 dev DEV");
        assert_eq!(gateways(), [ip("10.0.0.254"), ip("fe80::254")]);
        change("route add default via 10.0.0.253 dev DEV metric 500");
        change("route add default via 10.0.0.7 dev DEV table 7");
        change("route add default via 10.0.0.6 dev DEV table 1006");
        change("rule add from 10.6.0.0/16 table 1006");
        change("-6 route add default via fe80::7 dev DEV table 7");
        let all = ["10.0.0.6", "10.0.0.7", "10.0.0.253", "10.0.0.254", "fe80::7", "fe80::254"];
        assert_eq!(gateways(), all.map(ip));
        change("-6 route del default via fe80::254 dev DEV");
        change("route del default via 10.0.0.254 dev DEV");
        change("route flush table 7");
        assert_eq!(gateways(), ["10.0.0.6", "10.0.0.253", "fe80::7"].map(ip));
        change("link set DEV down");
        assert_eq!(gateways(), Vec::<IpAddr>::new());
    }
);

isolated!(
    fn an_interface_is_moved_to_another_namespace() {
        let wire = Wire::new();
        let mut requests = Requests::open().unwrap();
        let index = bridge(&mut requests);
        requests.add_veth(&name("a"), &name("b"), None).unwrap();
        let a = link(&requests.dump().unwrap(), "a").index;
        requests.set_master(a, index).unwrap();
        requests.move_to_namespace(a, &wire.away).unwrap();
        let here = requests.dump().unwrap();
        assert!(here.links.iter().all(|link| link.name.as_str() != "a"));
        let there = wire.away(|| Requests::open().unwrap().dump().unwrap());
        assert!(!link(&there, "a").up);
    }
);

isolated!(
    fn a_refusal_comes_with_the_kernels_words() {
        let mut requests = Requests::open().unwrap();
        let index = bridge(&mut requests);
        let op = Op { index, prefix: prefix("10.0.0.1", 33), verb: Verb::Add { lifetime: None } };
        assert_eq!(requests.apply(&[op]).unwrap(), [Err(Errno(libc::EINVAL))]);
        assert!(requests.explanation().is_some());
        requests.apply(&[put(index, "10.0.0.1", None)]).unwrap();
        assert_eq!(requests.explanation(), None);
    }
);
