//! What can carry VRRP is more than a link that is up: ports, names, MAC addresses, memberships.

use std::net::{Ipv4Addr, Ipv6Addr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{self, JoinHandle};

use havip::config::Prefix;
use havip::linux::netlink::Requests;
use havip::node::kernel::{Op, Verb};

use super::*;
use crate::lab::index_of;

fn not_ready(daemon: &Daemon) -> String {
    router(daemon)["not_ready"].as_str().unwrap_or_default().to_owned()
}

isolated! {
    fn a_port_of_a_bridge_takes_no_part_and_its_master_is_named() {
        let mut lan = Lan::new();
        let Pair { a, b, first, second, .. } = Pair::start(&mut lan, "");
        b.run_ip("link add brx type bridge");
        b.run_ip("link set brx up");
        b.run_ip("link set eth0 master brx");
        let why = "eth0 is a port of bridge brx";
        wait("the backup says why", || not_ready(&second).contains(why));
        assert_eq!(second.state(), "initialize");
        assert_eq!(second.check().0, Some(4));
        b.run_ip("link set eth0 nomaster");
        second.wait_for("backup");
        let heard = counter(&second, "adverts_received");
        wait("it hears again", || counter(&second, "adverts_received") > heard);

        a.run_ip("link add brx type bridge");
        a.run_ip("link set brx up");
        a.run_ip("link set eth0 master brx");
        second.wait_for("active");
        wait("the active one says why", || not_ready(&first).contains(why));
        wait("its VIP moved", || !a.has(VIP) && b.has(VIP));
        a.run_ip("link set eth0 nomaster");
        first.wait_for("active");
        second.wait_for("backup");
    }
}

isolated! {
    fn another_name_of_an_interface_and_the_loopback_interface_are_named() {
        let mut lan = Lan::new();
        let a = lan.host();
        a.run_ip("link property add dev eth0 altname uplink");
        let on = |interface: &str| {
            let keys = format!("vips = [\"{VIP}\"]\nadvert_interval = 0.1");
            a.config(&a.router("51", &keys)).replace("\"eth0\"", &format!("\"{interface}\""))
        };
        let daemon = a.daemon_of(&on("uplink"));
        let why = "uplink is another name of the interface eth0; write interface = \"eth0\"";
        wait("the other name is named", || not_ready(&daemon) == why);
        daemon.reload(&on("lo"));
        wait("loopback is refused", || not_ready(&daemon).contains("lo is the loopback"));
        // What has an interface stays on it when it is told to go to one that is not there.
        drop(daemon);
        let daemon = a.daemon_of(&on("later"));
        wait("there is none of this name", || not_ready(&daemon).contains("does not exist"));
        a.run_ip("link property add dev eth0 altname later");
        wait("it is named when it comes", || not_ready(&daemon).starts_with("later is another"));
        daemon.reload(&on("eth0"));
        daemon.wait_for("active");
    }
}

isolated! {
    fn another_mac_is_announced_at_once() {
        let mut lan = Lan::new();
        let Pair { a, capture, first, .. } = Pair::start(&mut lan, "");
        wait("it has the VIP", || a.has(VIP));
        capture.forget();
        a.run_ip("link set eth0 address 02:00:00:00:07:07");
        let mac = a.mac();
        assert_eq!(mac.to_string(), "02:00:00:00:07:07");
        wait("the new one is announced", || capture.has_claim(mac, VIP));
        assert_eq!(counter(&first, "master_transitions"), 1);
        wait("it says why", || first.log().contains("another MAC address"));
    }
}

/// Two gateways of an IPv6 router, the second of which has heard the first.
fn pair_v6(lan: &mut Lan) -> (Host, Host, Daemon, Daemon) {
    let (a, b) = (lan.host(), lan.host());
    let start = |host: &Host, priority: u8| {
        let keys = format!(
            "vips = [\"fe80::51\", \"2001:db8::51\"]\nadvert_interval = 0.2\npriority = {priority}"
        );
        host.daemon(&host.router("51", &keys))
    };
    let first = start(&a, 150);
    first.wait_for("active");
    let second = start(&b, 100);
    wait_heard(&second);
    (a, b, first, second)
}

/// The backup takes part, has heard more, and has stayed backup.
fn wait_hears(daemon: &Daemon) {
    daemon.wait_for("backup");
    let heard = counter(daemon, "adverts_received");
    let active = counter(daemon, "master_transitions");
    wait("it hears its peer again", || counter(daemon, "adverts_received") > heard + 10);
    assert_eq!(counter(daemon, "master_transitions"), active);
}

isolated! {
    fn a_backup_hears_again_after_its_interface_had_no_room_for_ipv6() {
        let mut lan = Lan::new();
        let (_a, b, _first, second) = pair_v6(&mut lan);
        b.run_ip("link set eth0 mtu 1200");
        second.wait_for("initialize");
        b.run_ip("link set eth0 mtu 1500");
        wait_hears(&second);
        // So fast that the daemon may see but the end of it.
        for _ in 0..5 {
            b.run_ip("link set eth0 mtu 1200");
            b.run_ip("link set eth0 mtu 1500");
        }
        wait_hears(&second);
        for arguments in ["link set eth0 down", "link set eth0 up"] {
            b.run_ip(arguments);
        }
        wait_hears(&second);
    }
}

isolated! {
    fn a_backup_that_hears_nothing_looks_at_its_own_membership_before_it_takes_over() {
        let mut lan = Lan::new();
        let (_a, b, _first, second) = pair_v6(&mut lan);
        // A stranger's membership outlives the interface's IPv6. Its end then counts against who is
        // a member by then, and nobody is told.
        let group: Ipv6Addr = "ff02::12".parse().unwrap();
        let eth0 = b.snapshot().links.into_iter().find(|link| link.name.as_str() == "eth0");
        let index = eth0.unwrap().index.0;
        let stranger = b.within(|| UdpSocket::bind("[::]:0").unwrap());
        stranger.join_multicast_v6(&group, index).unwrap();
        b.run_ip("link set eth0 mtu 1200");
        second.wait_for("initialize");
        b.run_ip("link set eth0 mtu 1500");
        wait_hears(&second);
        drop(stranger);
        wait("it joins again", || second.log().contains("had lost the membership"));
        wait_hears(&second);
        assert_eq!(counter(&second, "master_transitions"), 0);
    }
}

isolated! {
    fn vips_that_fit_no_more_are_told_whenever_their_number_changes() {
        let mut lan = Lan::new();
        let a = lan.host();
        let vips: Vec<String> = (1..=200).map(|at| format!("\"198.18.7.{at}\"")).collect();
        let keys = format!("vips = [{}]\nadvert_interval = 0.1", vips.join(", "));
        let daemon = a.daemon(&a.router("51", &keys));
        daemon.wait_for("active");
        let told = |count: usize| format!("{count} VIP(s) do not fit into an advert");
        for (mtu, count) in [(576, 63), (100, 182)] {
            a.run_ip(&format!("link set eth0 mtu {mtu}"));
            wait("it is told", || daemon.log().contains(&told(count)));
            let (code, text) = daemon.check();
            assert_eq!(code, Some(4), "{text}");
            assert!(text.contains(&told(count)), "{text}");
            assert_eq!(daemon.state(), "active");
        }
        a.run_ip("link set eth0 mtu 1500");
        wait("the end of it is told", || daemon.log().contains("every VIP fits into an advert"));
        assert!(!daemon.check().1.contains("do not fit"));
    }
}

/// Adds an address to a host and removes it, again and again until it is dropped.
struct Churn {
    changes: Arc<AtomicU64>,
    over: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Churn {
    /// Of a host that has so many addresses that the kernel gives them in parts.
    fn of(host: &Host) -> Self {
        let (changes, over) = <(Arc<AtomicU64>, Arc<AtomicBool>)>::default();
        let (counted, told) = (Arc::clone(&changes), Arc::clone(&over));
        let mut requests = host.within(|| Requests::open().unwrap());
        let index = index_of(&mut requests, "lo");
        let op = |at: u32, verb| {
            let ip = Ipv4Addr::from_bits(0x0a00_0000 + at).into();
            Op { index, prefix: Prefix::host(ip), verb }
        };
        let add = Verb::Add { lifetime: None };
        let many: Vec<Op> = (1..=12_000).map(|at| op(at, add)).collect();
        assert!(requests.apply(&many).unwrap().iter().all(Result::is_ok));
        let both = [op(0, add), op(0, Verb::Remove)].repeat(50);
        let thread = thread::spawn(move || {
            while !told.load(Ordering::Relaxed) {
                requests.apply(&both).unwrap();
                counted.fetch_add(50, Ordering::Relaxed);
            }
        });
        Self { changes, over, thread: Some(thread) }
    }

    /// Waits until a daemon that starts has tried often, and is far from giving up.
    fn wait_many(&self, daemon: &Daemon) {
        let run_dir = daemon.socket.parent().unwrap();
        wait("it starts", || run_dir.exists());
        let before = self.changes.load(Ordering::Relaxed);
        wait("many changes", || self.changes.load(Ordering::Relaxed) > before + 1_000);
    }
}

impl Drop for Churn {
    fn drop(&mut self) {
        self.over.store(true, Ordering::Relaxed);
        self.thread.take().unwrap().join().unwrap();
    }
}

isolated! {
    fn a_daemon_that_starts_while_addresses_change_fast_waits_until_it_can_read_them() {
        let mut lan = Lan::new();
        let a = lan.host();
        let churn = Churn::of(&a);
        let mut daemon = start(&a, 100, "");
        churn.wait_many(&daemon);
        assert!(daemon.stop().success(), "{}", daemon.log());
        std::fs::remove_dir_all(daemon.socket.parent().unwrap()).unwrap();
        let daemon = start(&a, 100, "");
        churn.wait_many(&daemon);
        drop(churn);
        daemon.wait_for("active");
    }
}

isolated! {
    fn what_goes_with_a_link_or_its_ipv6_is_told_neither_as_removed_nor_as_unsent() {
        let vips = ["fe80::51", "2001:db8::51"];
        let ends = [
            ("ip link set eth0 down", "its interface is down"),
            ("ip link set eth0 mtu 1200", "no address to send from"),
            ("echo 1 >/proc/sys/net/ipv6/conf/eth0/disable_ipv6", "no address to send from"),
            ("ip link del eth0", "its interface does not exist"),
        ];
        let mut lan = Lan::new();
        for (end, why) in ends {
            let a = lan.host();
            let keys = "vips = [\"fe80::51\", \"2001:db8::51\"]\nadvert_interval = 0.1";
            let mut daemon = a.daemon(&a.router("51", keys));
            daemon.wait_for("active");
            wait("its VIPs are there", || vips.iter().all(|vip| a.has(vip)));
            let status = a.within(|| Command::new("sh").args(["-c", end]).status().unwrap());
            assert!(status.success(), "{end}");
            wait("it says why", || not_ready(&daemon).contains(why));
            assert!(daemon.stop().success());
            let log = daemon.log();
            for wrong in ["not sent", "put back", "cannot "] {
                assert!(!log.contains(wrong), "{end}: {log}");
            }
        }
    }
}

isolated! {
    fn announcements_that_cannot_be_sent_are_told_by_a_check() {
        let mut lan = Lan::new();
        let a = lan.host();
        nft(&a, &[
            "add table netdev t",
            "add chain netdev t e { type filter hook egress device eth0 priority 0 ; }",
            "add rule netdev t e ether type arp drop",
        ]);
        let daemon = a.daemon(&a.router("51", &format!("vips = [\"{VIP}\"]\nadvert_interval = 0.1")));
        daemon.wait_for("active");
        wait("it is told", || {
            let (code, text) = daemon.check();
            code == Some(4) && text.contains("interface eth0: packets could not be sent")
        });
        assert_eq!(daemon.state(), "active", "its adverts go");
        assert_eq!(daemon.status()["vrrp"]["ports"][0]["interface"], "eth0");
    }
}
