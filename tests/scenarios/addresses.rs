//! Strangers that touch addresses, and changes that must touch only their own.

use std::collections::BTreeSet;
use std::fs;
use std::net::IpAddr;

use havip::config::Prefix;
use havip::linux::PacketSocket;
use havip::linux::netlink::{Notifications, Requests};
use havip::node::kernel::{Change, Op, Verb};
use havip::wire::{IfIndex, Mac, arp, ndp};

use super::*;
use crate::lab::{index_of, ip};

/// Addresses that went from a host's interfaces since the beginning.
struct Gone(Notifications);

impl Gone {
    fn on(host: &Host) -> Self {
        Self(host.within(|| Notifications::open(4 << 20).unwrap()))
    }

    fn read(&mut self) -> BTreeSet<IpAddr> {
        let mut changes = Vec::new();
        while self.0.read(&mut changes, 1024).unwrap() {}
        let gone = changes.iter().filter_map(|change| match change {
            Change::AddressGone { prefix, .. } => Some(prefix.ip),
            Change::Overrun => panic!("changes were lost"),
            _ => None,
        });
        gone.collect()
    }
}

/// Takes an address away as a stranger does; whether it was there.
fn remove_address(requests: &mut Requests, index: IfIndex, prefix: Prefix) -> bool {
    requests.apply(&[Op { index, prefix, verb: Verb::Remove }]).unwrap() == [Ok(())]
}

fn reload(daemon: &Daemon, text: &str) {
    let reads = || daemon.log().matches("read again").count();
    let before = reads();
    fs::write(&daemon.config, text).unwrap();
    daemon.signal("-HUP");
    wait("it is read", || reads() > before);
}

isolated! {
    fn s3_fifty_changes_of_one_router_among_a_hundred_disturb_no_other() {
        let mut lan = Lan::new();
        let (a, b) = (lan.host(), lan.host());
        let text = |host: &Host, priority: u8, round: u8| {
            let number = host.number();
            let names: Vec<String> = (1..=100).map(|vrid| vrid.to_string()).collect();
            let mut text = format!(
                "[node.gw{number}]\nvrids = [{}]\n[virtual_router.default]\n\
                 interface = \"eth0\"\nadvert_interval = 1\npriority = {priority}\n",
                names.join(", ")
            );
            for vrid in 1..=100 {
                text += &format!("[virtual_router.{vrid}]\nvips = [\"192.0.2.{}\"]\n", vrid + 100);
            }
            // An unrelated one changes each second time.
            text.replace(
                "[virtual_router.7]\n",
                &format!("[virtual_router.7]\nvips_excluded = [\"10.1.0.{}\"]\n", round / 2 + 1),
            )
        };
        let (first, second) =
            (a.daemon(&text(&a, 200, 0)), b.daemon(&text(&b, 100, 0)));
        let settled = |daemon: &Daemon, state: &str| {
            let status = daemon.status();
            let routers = status["vrrp"]["routers"].as_array().unwrap();
            routers.len() == 100 && routers.iter().all(|router| router["state"] == state)
        };
        wait("all are active", || settled(&first, "active") && settled(&second, "backup"));
        wait("all are there", || (101..=200).all(|last| a.has(&format!("192.0.2.{last}"))));
        let sum = |name: &str| -> u64 {
            [&first, &second].iter().flat_map(|daemon| {
                let status = daemon.status();
                let routers = status["vrrp"]["routers"].as_array().unwrap().clone();
                routers.into_iter().map(|router| router["counters"][name].as_u64().unwrap())
            }).sum()
        };
        let before = sum("master_transitions");
        let mut gone = Gone::on(&a);
        for round in 1..=50 {
            reload(&first, &a.config(&text(&a, 200, round)));
            reload(&second, &b.config(&text(&b, 100, round)));
        }
        wait("the last change is there", || a.has("10.1.0.26") && !a.has("10.1.0.25"));
        assert_eq!(sum("master_transitions"), before);
        assert_eq!(sum("priority_zero_sent"), 0);
        let gone = gone.read();
        assert!(gone.iter().all(|ip| ip.to_string().starts_with("10.1.0.")), "{gone:?}");
    }
}

isolated! {
    fn s5_one_vip_less_takes_away_that_one_and_nothing_else() {
        let mut lan = Lan::new();
        let a = lan.host();
        let keys = |vips: &str| format!("vips = [{vips}]\nadvert_interval = 0.1");
        let vips = ["\"192.0.2.100\"", "\"192.0.2.101/24\"", "\"192.0.2.102/24\"", "\"10.5.0.1/24\""];
        let daemon = a.daemon(&a.router("51", &keys(&vips.join(", "))));
        daemon.wait_for("active");
        let others = ["192.0.2.1", "192.0.2.100", "192.0.2.102", "192.0.2.200", "10.5.0.1"];
        a.within(|| {
            let mut requests = Requests::open().unwrap();
            let eth0 = index_of(&mut requests, "eth0");
            requests.add_address(eth0, Prefix { ip: ip("192.0.2.200"), len: 24 }).unwrap();
        });
        wait("all are there", || others.iter().all(|ip| a.has(ip)) && a.has("192.0.2.101"));
        let mut gone = Gone::on(&a);
        reload(&daemon, &a.config(&a.router("51", &keys(
            &[vips[0], vips[2], vips[3]].join(", ")
        ))));
        wait("it is gone", || !a.has("192.0.2.101"));
        assert!(others.iter().all(|ip| a.has(ip)));
        assert_eq!(gone.read(), [ip("192.0.2.101")].into());
    }
}

isolated! {
    fn s6_a_vip_that_is_removed_comes_back_announced_and_is_given_up_in_a_fight() {
        let mut lan = Lan::new();
        let Pair { a, b, capture, first, second } = Pair::start(&mut lan, "");
        let mac = a.mac();
        let remove = || a.within(|| {
            let mut requests = Requests::open().unwrap();
            let eth0 = index_of(&mut requests, "eth0");
            // It may be gone already.
            remove_address(&mut requests, eth0, Prefix { ip: ip(VIP), len: 32 })
        });
        for round in 1..=5 {
            wait("the VIP is there", || a.has(VIP));
            capture.forget();
            assert!(remove());
            wait("it is announced again", || capture.has_claim(mac, VIP) && a.has(VIP));
            assert_eq!(counter(&first, "restored"), round);
        }
        assert_eq!((first.state(), capture.farewells(mac)), ("active".to_owned(), 0));
        wait("it gives up", || {
            remove();
            first.state() == "initialize"
        });
        wait("with a farewell", || capture.farewells(mac) == 1);
        second.wait_for("active");
        wait("the other one has it", || b.has(VIP) && !a.has(VIP));
        first.wait_for_log("as often as it is put back");
    }
}

isolated! {
    fn s11_changes_that_the_kernel_could_not_tell_are_found_by_reading_everything() {
        let mut lan = Lan::new();
        let a = lan.host();
        let daemon = start(&a, 150, "");
        daemon.wait_for("active");
        wait("it has the VIP", || a.has(VIP));
        daemon.signal("-STOP");
        // More than its socket holds, with the one that matters among them.
        a.within(|| {
            let mut requests = Requests::open().unwrap();
            let eth0 = index_of(&mut requests, "eth0");
            let prefix = |ip: &str| Prefix { ip: lab::ip(ip), len: 32 };
            assert!(remove_address(&mut requests, eth0, prefix(VIP)));
            let mut listener = Notifications::open(1).unwrap();
            let mut changes = Vec::new();
            for _ in 0..200 {
                for last in 0..100_u8 {
                    requests.add_address(eth0, prefix(&format!("10.9.0.{last}"))).unwrap();
                }
                for last in 0..100_u8 {
                    let prefix = prefix(&format!("10.9.0.{last}"));
                    assert!(remove_address(&mut requests, eth0, prefix));
                }
                let _ = listener.read(&mut changes, 1024);
                changes.clear();
            }
        });
        daemon.signal("-CONT");
        wait("it noticed", || daemon.log().contains("notifications overflowed"));
        wait("what is true is known", || a.has(VIP) && daemon.status()["vrrp"]["kernel_in_sync"] == true);
        assert_eq!(counter(&daemon, "master_transitions"), 1);
    }
}

isolated! {
    fn s12_an_ipv6_vip_is_never_tentative_and_its_advertisement_overrides() {
        let mut lan = Lan::new();
        let a = lan.host();
        // As every distribution has it.
        a.within(|| {
            for name in ["eth0", "all", "default"] {
                fs::write(format!("/proc/sys/net/ipv6/conf/{name}/accept_dad"), "1").unwrap();
            }
        });
        let capture = Capture::on(&lan.host());
        // Its link-local address is tentative again, for a second or two.
        a.within(|| {
            let mut requests = Requests::open().unwrap();
            let eth0 = index_of(&mut requests, "eth0");
            requests.set_up(eth0, false).unwrap();
            requests.set_up(eth0, true).unwrap();
        });
        let keys = "vrid = 51\nvips = [\"fe80::51\", \"2001:db8::51\"]\nadvert_interval = 0.1";
        let daemon = a.daemon(&a.router("v6", keys));
        daemon.wait_for("active");
        for vip in ["fe80::51", "2001:db8::51"] {
            wait("it is there", || a.has(vip));
            let address = a.snapshot().addresses.into_iter().find(|a| a.prefix.ip == ip(vip));
            assert!(!address.unwrap().tentative, "{vip}");
            wait("it is announced", || capture.has_claim(a.mac(), vip));
        }
    }
}

isolated! {
    fn another_that_answers_for_a_vip_is_named_with_both_macs() {
        let mut lan = Lan::new();
        let (a, b) = (lan.host(), lan.host());
        let capture = Capture::on(&lan.host());
        let four = a.router("51", &format!("vips = [\"{VIP}\"]\nadvert_interval = 0.1"));
        let six = "[virtual_router.v6]\ninterface = \"eth0\"\nvrid = 51\n\
                   vips = [\"fe80::51\"]\nadvert_interval = 0.1\n";
        let both = format!("{four}{six}").replace("[\"51\"]", "[\"51\", \"v6\"]");
        let daemon = a.daemon(&both);
        let conflict = |at: usize| daemon.status()["vrrp"]["routers"][at]["conflict"].to_string();
        wait("both are active", || a.has(VIP) && a.has("fe80::51"));
        assert_eq!((conflict(0), conflict(1)), ("null".into(), "null".into()));
        let ours = a.mac();
        let theirs = Mac([2, 0, 0, 0xbe, 0xef, 1]);
        wait("the announcements of its start are over", || {
            let at = |vip: &str| {
                let claims = capture.all().into_iter().filter(|seen| seen.from == ours);
                claims.filter(|seen| seen.what == lab::capture::What::Claim(ip(vip))).count()
            };
            at(VIP) >= 4 && at("fe80::51") >= 4
        });
        capture.forget();
        b.within(|| {
            let index = index_of(&mut Requests::open().unwrap(), "eth0");
            let socket = PacketSocket::open().unwrap();
            let (mut reply, mut na) = (Vec::new(), Vec::new());
            arp::gratuitous(theirs, VIP.parse().unwrap(), &mut reply);
            let target = "fe80::51".parse().unwrap();
            ndp::unsolicited_na(theirs, target, target, &mut na);
            assert_eq!(socket.send_batch(index, &[reply, na]), (2, None));
        });
        wait("it is named", || [conflict(0), conflict(1)].iter().all(|text| {
            text.contains(&theirs.to_string()) && text.contains(&ours.to_string())
        }));
        wait("and both are defended", || {
            capture.has_claim(ours, VIP) && capture.has_claim(ours, "fe80::51")
        });
        daemon.wait_for_log("two hosts have it");
        assert!(a.has(VIP) && a.has("fe80::51"));
    }
}

isolated! {
    fn of_very_many_vips_each_is_watched() {
        let mut lan = Lan::new();
        let (a, b) = (lan.host(), lan.host());
        let many: Vec<String> =
            (0..1_500).map(|n| format!("\"10.8.{}.{}\"", n / 100, n % 100 * 2 + 1)).collect();
        let more = format!("vips_excluded = [{}]\nprobe_interval = 0", many.join(", "));
        let daemon = start(&a, 150, &more);
        daemon.wait_for("active");
        let last = "10.8.14.199";
        wait("all are there", || a.has(last) && a.has(VIP));
        let theirs = Mac([2, 0, 0, 0xbe, 0xef, 1]);
        let (socket, index) = b.within(|| {
            let index = index_of(&mut Requests::open().unwrap(), "eth0");
            (PacketSocket::open().unwrap(), index)
        });
        let mut claim = Vec::new();
        arp::gratuitous(theirs, last.parse().unwrap(), &mut claim);
        wait("its claim is named", || {
            assert_eq!(socket.send_batch(index, &[&claim]), (1, None));
            router(&daemon)["conflict"].as_str().is_some_and(|text| text.contains(last))
        });
    }
}
