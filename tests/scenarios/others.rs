//! Addresses and routes of others on the interfaces that VIPs are on: whatever havip does, and
//! however it ends, they stay exactly as they are.

use std::collections::BTreeSet;

use havip::linux::netlink::Notifications;
use havip::node::kernel::Change;

use super::*;
use crate::lab::ip;

/// What routers of these tests have beside their VIPs: their lifetime is over within the test.
const KEYS: &str = "advert_interval = 0.1\naddress_lifetime = 2";
/// The same IP for both families and all tests: an operator's address, or a VIP beside one.
const V6: &str = "2001:db8::1";

/// Every address of eth0 and every route of a host but for havip's routes, with how long a lifetime
/// still runs left out.
fn others(host: &Host) -> BTreeSet<String> {
    let addresses = host.run_ip("-o address show dev eth0");
    let routes = ["-4", "-6"].map(|f| host.run_ip(&format!("{f} route show table all")));
    let all = [addresses, routes.concat()].concat();
    let seconds =
        |word: &str| word.ends_with("sec") && word.starts_with(|c: char| c.is_ascii_digit());
    let line = |line: &str| {
        let words = line.split_whitespace();
        words.map(|word| if seconds(word) { "Nsec" } else { word }).collect::<Vec<_>>().join(" ")
    };
    let ours = |line: &&str| line.contains("proto 72");
    all.lines().filter(|line| !ours(line)).map(line).collect()
}

/// The same without the host addresses that VIPs of ours are, and the routes by which the kernel
/// finds them itself.
fn settled(host: &Host, vips: &[&str]) -> BTreeSet<String> {
    let of_vip = |line: &String| {
        vips.iter().any(|vip| {
            line.contains(&format!("local {vip} dev"))
                || line.contains(&format!("inet {vip}/32 "))
                || line.contains(&format!("inet6 {vip}/128 "))
        })
    };
    others(host).into_iter().filter(|line| !of_vip(line)).collect()
}

fn ours(host: &Host) -> Vec<String> {
    let routes = ["-4", "-6"].map(|f| host.run_ip(&format!("{f} route show table all"))).concat();
    let ours = |line: &&str| line.contains("proto 72");
    routes.lines().filter(ours).map(str::to_owned).collect()
}

/// How many addresses with this IP a host has.
fn addresses(host: &Host, wanted: &str) -> usize {
    let there = host.snapshot().addresses;
    there.iter().filter(|address| address.prefix.ip == ip(wanted)).count()
}

/// A VIP's state, and what is there in its place.
fn shown(daemon: &Daemon, vip: &str) -> (String, String) {
    let router = router(daemon);
    let all = router["vips"].as_array().unwrap().iter();
    let mut all = all.chain(router["vips_excluded"].as_array().unwrap());
    let found = all.find(|shown| shown["address"].as_str().unwrap().split('/').next() == Some(vip));
    let text = |key: &str| found.unwrap()[key].as_str().unwrap_or("none").to_owned();
    (text("state"), text("other"))
}

/// Waits until the VIPs' lifetime would be over several times.
fn outlive(daemon: &Daemon) {
    let before = counter(daemon, "adverts_sent");
    wait("two lifetimes pass", || counter(daemon, "adverts_sent") >= before + 45);
}

/// A dual-stack gateway whose own addresses are VIPs: one of each kind, with another of ours.
fn owned(host: &Host, priority: u8, more: &str) -> String {
    let six = format!(
        "[virtual_router.v6]\ninterface = \"eth0\"\nvrid = 51\npriority = {priority}\n\
         vips = [\"fe80::1\", \"{V6}\", \"2001:db8::77/64\"]\n{KEYS}\n"
    );
    let keys =
        format!("vips = [\"{VIP}\", \"192.0.2.77/24\"]\npriority = {priority}\n{KEYS}{more}");
    format!("{}{six}", host.router("51", &keys)).replace("[\"51\"]", "[\"51\", \"v6\"]")
}

const OWN: [&str; 4] = [
    "192.0.2.100/24",
    "fe80::1/64",
    "2001:db8::1/64",
    "198.51.100.1/24 valid_lft 3600 preferred_lft 1800",
];
const ALL: [&str; 2] = ["192.0.2.77", "2001:db8::77"];

/// A host that has [`OWN`], and what others have there.
fn owner(lan: &mut Lan) -> (Host, BTreeSet<String>) {
    let host = lan.host();
    for own in OWN {
        let nodad = if own.contains(':') { " nodad" } else { "" };
        host.run_ip(&format!("address add {own} dev eth0{nodad}"));
    }
    let is_usable =
        |own: &&str| others(&host).iter().any(|line| line.starts_with(&format!("local {own} dev")));
    wait("they are usable", || ["fe80::1", V6].iter().all(is_usable));
    let before = others(&host);
    (host, before)
}

/// A clean end leaves what others have, and nothing else.
#[track_caller]
fn ends_clean(mut daemon: Daemon, host: &Host, before: &BTreeSet<String>) {
    assert!(daemon.stop().success());
    assert_eq!(&others(host), before, "after a clean end");
    assert_eq!(ours(host), [] as [String; 0]);
}

isolated! {
    fn an_operators_address_that_is_a_vip_stays_as_it_is_however_havip_ends() {
        let mut lan = Lan::new();
        let (a, before) = owner(&mut lan);
        let capture = Capture::on(&lan.host());
        for (priority, guard) in [(100, true), (255, true), (100, false)] {
            let text = owned(&a, priority, "");
            let text =
                if guard { a.config(&text) } else { a.config_without_guard(&text) };
            let mut daemon = a.daemon_of(&text);
            daemon.wait_for("active");
            wait("its own are there", || ALL.iter().all(|vip| a.has(vip)));
            wait("the routes too", || ours(&a).len() == 2);
            for vip in [VIP, "fe80::1", V6] {
                wait("it is announced", || capture.has_claim(a.mac(), vip));
            }
            outlive(&daemon);
            assert_eq!(settled(&a, &ALL), before, "priority {priority}");
            assert_eq!(shown(&daemon, VIP), ("not ours".into(), "192.0.2.100/24 (permanent)".into()));
            assert_eq!(shown(&daemon, "192.0.2.77").0, "present");
            daemon.wait_for_log("2001:db8::1/64 (permanent) is on eth0 and not from havip");
            if guard {
                daemon.guard();
            }
            daemon.kill();
            wait("what was ours is gone", || {
                ALL.iter().all(|vip| !a.has(vip)) && ours(&a).is_empty()
            });
            assert_eq!(others(&a), before, "after a crash, guard {guard}");
            let daemon = a.daemon_of(&text);
            daemon.wait_for("active");
            wait("its own are there again", || ALL.iter().all(|vip| a.has(vip)));
            ends_clean(daemon, &a, &before);
            capture.forget();
        }
    }
}

isolated! {
    fn what_a_crash_left_is_removed_at_the_next_start_and_what_is_others_not() {
        let mut lan = Lan::new();
        let (a, before) = owner(&mut lan);
        let text = owned(&a, 100, "").replace("address_lifetime = 2", "address_lifetime = \"forever\"");
        let mut daemon = a.daemon_of(&a.config_without_guard(&text));
        daemon.wait_for("active");
        wait("all is there", || ALL.iter().all(|vip| a.has(vip)) && ours(&a).len() == 2);
        daemon.kill();
        assert!(ALL.iter().all(|vip| a.has(vip)) && ours(&a).len() == 2, "left by the crash");
        let daemon = a.daemon_of(&a.config_without_guard(&a.router("9", "vips = [\"10.9.0.9\"]\nadvert_interval = 0.1")));
        daemon.wait_for("active");
        assert!(ALL.iter().all(|vip| !a.has(vip)));
        assert_eq!(ours(&a), [] as [String; 0]);
        ends_clean(daemon, &a, &before);
    }
}

isolated! {
    fn a_vip_with_its_networks_length_changes_no_route_of_others_and_has_its_own() {
        let mut lan = Lan::new();
        let a = lan.host();
        // As a router advertisement or DHCP gives them.
        a.run_ip("address add 2001:db8::5/64 dev eth0 valid_lft 3600 preferred_lft 3600 nodad");
        a.run_ip("address add 10.6.0.5/24 dev eth0 valid_lft 3600 preferred_lft 3600");
        wait("it is usable", || others(&a).iter().any(|l| l.starts_with("local 2001:db8::5 dev")));
        let before = others(&a);
        let vips = ["192.0.2.100", "10.6.0.100", "10.7.0.100", "2001:db8::100", "2001:db8:7::100"];
        let keys = format!(
            "vips = [\"192.0.2.100/24\"]\nvips_excluded = [\"10.6.0.100/24\", \"10.7.0.100/25\", \
             \"2001:db8::100/64\", \"2001:db8:7::100/64\", \"10.7.0.101/25\", \"2001:db8:7::101/64\"]\n{KEYS}"
        );
        let more = ["10.7.0.101", "2001:db8:7::101"];
        let all: Vec<&str> = vips.into_iter().chain(more).collect();
        let text = a.config_without_guard(&a.router("51", &keys));
        let mut daemon = a.daemon_of(&text);
        daemon.wait_for("active");
        wait("all VIPs are there", || all.iter().all(|vip| a.has(vip)));
        // IPv4 has one for each VIP, IPv6 one for each network.
        wait("so are the routes", || ours(&a).len() == 6);
        outlive(&daemon);
        assert_eq!(ours(&a).len(), 6, "{:?}", ours(&a));
        assert!(ours(&a).iter().all(|route| route.contains("metric 18432")));
        assert_eq!(settled(&a, &all), before);
        // Nobody renews them any more.
        daemon.kill();
        wait("the lifetimes end", || all.iter().all(|vip| !a.has(vip)) && ours(&a).is_empty());
        assert_eq!(others(&a), before);
        let daemon = a.daemon_of(&text);
        daemon.wait_for("active");
        wait("all VIPs are there", || all.iter().all(|vip| a.has(vip)) && ours(&a).len() == 6);
        ends_clean(daemon, &a, &before);
    }
}

isolated! {
    fn a_vip_that_was_there_first_takes_no_address_of_its_network_along() {
        let mut lan = Lan::new();
        let a = lan.host();
        let promote = "/proc/sys/net/ipv4/conf/eth0/promote_secondaries";
        a.within(|| std::fs::write(promote, "0").unwrap());
        let keys = format!("vips = [\"10.8.0.100/24\"]\n{KEYS}");
        let daemon = a.daemon(&a.router("51", &keys));
        daemon.wait_for("active");
        wait("the VIP is there", || a.has("10.8.0.100"));
        a.run_ip("address add 10.8.0.5/24 dev eth0");
        let before = settled(&a, &["10.8.0.100"]);
        assert!(before.iter().any(|line| line.contains("10.8.0.5/24") && !line.contains("secondary")));
        ends_clean(daemon, &a, &before);
        assert_eq!(a.within(|| std::fs::read_to_string(promote).unwrap()).trim(), "0");
    }
}

isolated! {
    fn an_address_that_appears_while_active_takes_the_vips_place_until_it_goes() {
        let mut lan = Lan::new();
        let a = lan.host();
        let capture = Capture::on(&lan.host());
        let keys = format!("vips = [\"{VIP}/24\"]\nvips_excluded = [\"2001:db8::1/64\"]\n{KEYS}");
        let daemon = a.daemon(&a.router("51", &keys));
        daemon.wait_for("active");
        wait("it has both", || a.has(VIP) && a.has(V6) && ours(&a).len() == 2);
        for (add, delete, vip, is) in [
            ("add 192.0.2.100/16 dev eth0", "del 192.0.2.100/16 dev eth0", VIP, "192.0.2.100/16 (permanent)"),
            // The kernel keeps the length that it has.
            ("replace 192.0.2.100/32 dev eth0", "del 192.0.2.100/32 dev eth0", VIP, "192.0.2.100/32 (permanent)"),
            (
                "replace 192.0.2.100/32 dev eth0 valid_lft 999 preferred_lft 999",
                "del 192.0.2.100/32 dev eth0", VIP, "192.0.2.100/32 (with a lifetime)",
            ),
            ("replace 2001:db8::1/64 dev eth0", "del 2001:db8::1/128 dev eth0", V6, "2001:db8::1/128 (permanent)"),
        ] {
            a.run_ip(&format!("address {add}"));
            wait("it is seen", || shown(&daemon, vip) == ("not ours".into(), is.into()));
            wait("ours is not beside it", || ours(&a).len() == 1 && addresses(&a, vip) == 1);
            // The kernel's own route to an IPv6 address of ours comes a little after it.
            let ours_too = if vip == VIP { V6 } else { VIP };
            let before = settled(&a, &[ours_too]);
            outlive(&daemon);
            assert_eq!(settled(&a, &[ours_too]), before, "{add}");
            capture.forget();
            a.run_ip(&format!("address {delete}"));
            wait("ours is there again", || shown(&daemon, vip).0 == "present" && ours(&a).len() == 2);
            wait("and announced", || capture.has_claim(a.mac(), vip));
        }
        daemon.wait_for_log("havip adds its own");
        assert_eq!((daemon.state(), counter(&daemon, "restored")), ("active".into(), 0));
        a.run_ip("address add 192.0.2.100/16 dev eth0");
        wait("it is seen", || shown(&daemon, VIP).0 == "not ours");
        wait("ours is not beside it", || ours(&a).len() == 1 && addresses(&a, VIP) == 1);
        let before = settled(&a, &[V6]);
        ends_clean(daemon, &a, &before);
    }
}

isolated! {
    fn a_reload_that_changes_a_vips_length_does_not_take_it_away() {
        let mut lan = Lan::new();
        let a = lan.host();
        let text = |vips: &str| a.config(&a.router("51", &format!("{KEYS}\nvips = [{vips}]")));
        let daemon = a.daemon_of(&text("\"10.8.0.100\""));
        daemon.wait_for("active");
        wait("it is there", || a.has("10.8.0.100"));
        let mut changes = a.within(|| Notifications::open(4 << 20).unwrap());
        for (vip, network) in [
            ("\"10.8.0.100/24\"", Some("10.8.0.0/24 ")),
            ("\"10.8.0.100/25\"", Some("10.8.0.0/25 ")),
            ("\"10.8.0.100/32\"", None),
        ] {
            daemon.reload(&text(vip));
            wait("the route follows", || match network {
                Some(network) => matches!(&ours(&a)[..], [only] if only.starts_with(network)),
                None => ours(&a).is_empty(),
            });
        }
        let mut all = Vec::new();
        while changes.read(&mut all, 1024).unwrap() {}
        let gone = |change: &&Change| matches!(change, Change::AddressGone { .. });
        assert_eq!(all.iter().find(gone), None);
        assert_eq!(counter(&daemon, "master_transitions"), 1);
    }
}

isolated! {
    fn adverts_come_from_the_address_that_fits_the_vips_and_a_change_is_told() {
        let mut lan = Lan::new();
        let a = lan.host();
        a.run_ip("address flush dev eth0");
        a.run_ip("address add 169.254.188.158/16 dev eth0 scope link");
        let daemon = start(&a, 150, "");
        daemon.wait_for("active");
        let source = || {
            let router = router(&daemon);
            let text = |key: &str| router[key].as_str().unwrap_or("none").to_owned();
            (text("source"), text("source_reason"))
        };
        assert_eq!(source().0, "169.254.188.158");
        assert!(source().1.starts_with("link scope"), "{source:?}", source = source());
        a.run_ip("address add 198.51.100.1/24 dev eth0");
        wait("one of global scope is better", || source().0 == "198.51.100.1");
        a.run_ip("address add 192.0.2.1/24 dev eth0");
        let best = ("192.0.2.1".to_owned(), "its subnet holds a VIP".to_owned());
        wait("one in the VIP's subnet is best", || source() == best);
        wait("the log says so", || {
            daemon.log().contains("adverts are sent from 192.0.2.1 (its subnet holds a VIP), no longer from 198.51.100.1")
        });
        assert_eq!(counter(&daemon, "master_transitions"), 1);
    }
}

isolated! {
    fn a_vip_that_is_an_address_of_the_subnet_itself_is_warned_of() {
        let mut lan = Lan::new();
        let a = lan.host();
        a.run_ip("address add 2001:db8::5/64 dev eth0 nodad");
        let keys = format!(
            "vips = [\"192.0.2.255\", \"192.0.2.0\", \"192.0.2.100\"]\nvips_excluded = [\"2001:db8::\"]\n{KEYS}"
        );
        let daemon = a.daemon(&a.router("51", &keys));
        daemon.wait_for("active");
        let vips = router(&daemon);
        let warning = |key: &str, at: usize| vips[key][at]["warning"].to_string();
        assert!(warning("vips", 0).contains("broadcast address of the interface's subnet"));
        assert!(warning("vips", 1).contains("address of the interface's subnet itself"));
        assert_eq!(warning("vips", 2), "null");
        assert!(warning("vips_excluded", 0).contains("anycast"));
        for vip in ["192.0.2.255", "192.0.2.0", "2001:db8::"] {
            daemon.wait_for_log(&format!("VIP {vip}: it is the"));
        }
    }
}
