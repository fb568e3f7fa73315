//! Links, addresses and what is reported of them.

use std::net::IpAddr;
use std::process::Command;

use havip::config::Prefix;
use havip::linux::netlink::{Notifications, Requests, default_gateways};
use havip::node::kernel::{Change, Errno, IFA_PROTO_HAVIP, Op, Verb};
use havip::wire::IfIndex;

use crate::{Wire, address, bridge, changes_until, ip, link, name, prefix, put, remove, skip};

isolated!(
    fn an_address_of_either_family_is_put_renewed_and_removed() {
        let mut requests = Requests::open().unwrap();
        let index = bridge(&mut requests);
        for text in ["10.0.0.3", "2001:db8::3", "169.254.7.7", "fe80::77"] {
            for lifetime in [Some(100), Some(200), None, Some(300)] {
                assert_eq!(requests.apply(&[put(index, text, lifetime)]).unwrap(), [Ok(())]);
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
    fn a_put_takes_over_an_address_that_is_there_with_other_attributes() {
        let mut requests = Requests::open().unwrap();
        let index = bridge(&mut requests);
        for text in ["10.0.0.3", "2001:db8::3"] {
            requests.add_address(index, Prefix::host(ip(text))).unwrap();
            let before = address(&requests.dump().unwrap(), index, text).unwrap();
            assert!(before.permanent && before.proto == 0);
            assert_eq!(requests.apply(&[put(index, text, Some(60))]).unwrap(), [Ok(())]);
            let after = address(&requests.dump().unwrap(), index, text).unwrap();
            assert!(!after.permanent && after.proto == IFA_PROTO_HAVIP, "{after:?}");
        }
    }
);

isolated!(
    fn an_ipv6_address_keeps_the_length_that_it_has_until_it_is_removed() {
        let mut requests = Requests::open().unwrap();
        let index = bridge(&mut requests);
        requests.add_address(index, prefix("2001:db8::3", 64)).unwrap();
        let op = put(index, "2001:db8::3", Some(60));
        assert_eq!(requests.apply(&[op]).unwrap(), [Ok(())]);
        let found = address(&requests.dump().unwrap(), index, "2001:db8::3").unwrap();
        assert_eq!(found.prefix, prefix("2001:db8::3", 64));
        let ops = [remove(index, found.prefix), op];
        assert_eq!(requests.apply(&ops).unwrap(), [Ok(()), Ok(())]);
        let found = address(&requests.dump().unwrap(), index, "2001:db8::3").unwrap();
        assert_eq!(found.prefix, op.prefix);
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
        requests.apply(&[put(index, "10.0.0.1", None), remove(index, ops[4].prefix)]).unwrap();
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
        assert_eq!(default_gateways().unwrap(), Vec::<IpAddr>::new());
        let index = bridge(&mut requests);
        requests.add_address(index, prefix("10.0.0.1", 24)).unwrap();
        requests.add_default_route(index, ip("10.0.0.254")).unwrap();
        requests.add_default_route(index, ip("fe80::254")).unwrap();
        assert_eq!(default_gateways().unwrap(), [ip("10.0.0.254"), ip("fe80::254")]);
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
        let op = Op { index, prefix: prefix("10.0.0.1", 33), verb: Verb::Put { lifetime: None } };
        assert_eq!(requests.apply(&[op]).unwrap(), [Err(Errno(libc::EINVAL))]);
        assert!(requests.explanation().is_some());
        requests.apply(&[put(index, "10.0.0.1", None)]).unwrap();
        assert_eq!(requests.explanation(), None);
    }
);
