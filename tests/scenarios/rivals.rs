//! Others who have what a gateway has, or say so: whoever asks is told who, and what to do.

use super::*;

isolated! {
    fn a_hand_over_to_a_gateway_that_stood_still_is_no_conflict_on_either_side() {
        let mut lan = Lan::new();
        let Pair { a, b, first, second, .. } = Pair::start(&mut lan, "");
        for _ in 1..=5 {
            first.signal("-STOP");
            second.wait_for("active");
            wait("the second has it", || b.has(VIP));
            first.signal("-CONT");
            second.wait_for("backup");
            wait("the first has it alone", || a.has(VIP) && !b.has(VIP));
            for daemon in [&first, &second] {
                wait("all is well", || daemon.check() == (Some(0), String::new()));
                assert!(!daemon.log().contains("two hosts have it"), "{}", daemon.log());
            }
        }
    }
}

/// An address that a host without IPv6 refuses.
const VIP6: &str = "2001:db8::100";

fn without_ipv6(host: &Host) {
    let path = "/proc/sys/net/ipv6/conf/eth0/disable_ipv6";
    host.within(|| std::fs::write(path, "1").unwrap());
}

isolated! {
    fn a_gateway_whose_kernel_refuses_a_vip_leaves_the_addresses_to_one_that_can() {
        let mut lan = Lan::new();
        let (a, b) = (lan.host(), lan.host());
        without_ipv6(&a);
        let more = format!("vips_excluded = [\"{VIP6}\"]");
        let second = start(&b, 100, &more);
        second.wait_for("active");
        let first = start(&a, 150, &more);
        wait("it gives way", || counter_of(&first, "gave_way") > 0);
        wait("the other has all", || second.state() == "active" && b.has(VIP) && b.has(VIP6));
        let (code, text) = first.check();
        assert_eq!(code, Some(4));
        assert!(text.contains(VIP6) && text.contains("IPv6 seems to be disabled"), "{text}");
        wait("it tried again", || counter_of(&first, "gave_way") > 2);
        wait("the other has all", || second.state() == "active" && b.has(VIP) && b.has(VIP6));
        assert!(!a.has(VIP));
    }
}

isolated! {
    fn a_gateway_alone_keeps_the_vips_that_its_kernel_takes() {
        let mut lan = Lan::new();
        let a = lan.host();
        without_ipv6(&a);
        let daemon = start(&a, 150, &format!("vips_excluded = [\"{VIP6}\"]"));
        let shown = || router(&daemon)["unplaced"].as_str().is_some_and(|why| why.contains(VIP6));
        wait("it says what it lacks", || daemon.state() == "active" && shown());
        wait("it has the other", || a.has(VIP));
        let sent = counter(&daemon, "adverts_sent");
        wait("it goes on", || counter(&daemon, "adverts_sent") > sent + 30);
        assert_eq!(counter(&daemon, "gave_way"), 1);
        let (code, text) = daemon.check();
        assert!(code == Some(4) && text.contains("nobody else took over"), "{text}");
    }
}

/// Before the daemon knows its routers, it has no counters.
fn counter_of(daemon: &Daemon, name: &str) -> u64 {
    router(daemon)["counters"][name].as_u64().unwrap_or(0)
}

isolated! {
    fn a_start_without_a_capability_sends_nothing_and_says_which_one() {
        let mut lan = Lan::new();
        let a = lan.host();
        let capture = Capture::on(&lan.host());
        let config = a.folder().join("havip.toml");
        let keys = format!("vips = [\"{VIP}\"]\nadvert_interval = 0.1\npriority = 255");
        std::fs::write(&config, a.config(&a.router("51", &keys))).unwrap();
        for (dropped, named) in [("net_admin", "CAP_NET_ADMIN"), ("net_raw", "CAP_NET_RAW")] {
            let mut program = Command::new("setpriv");
            program.arg(format!("--bounding-set=-{dropped}")).arg(env!("CARGO_BIN_EXE_havip"));
            program.args(["run", "--config"]).arg(&config);
            let output = a.within(|| program.output()).unwrap();
            let said = String::from_utf8(output.stderr).unwrap();
            assert_eq!(output.status.code(), Some(5), "{said}");
            assert!(said.contains(named) && said.contains("AmbientCapabilities"), "{said}");
        }
        assert!(!capture.has_advert(a.mac()) && !a.has(VIP));
    }
}

isolated! {
    fn the_same_vip_under_another_vrid_is_not_taken_and_named_with_both_vrids() {
        let mut lan = Lan::new();
        let (a, b) = (lan.host(), lan.host());
        // Nobody who is late for a moment is taken over.
        let keys = |priority: u8| {
            format!("vips = [\"{VIP}\"]\nadvert_interval = 1\npriority = {priority}")
        };
        let first = a.daemon(&a.router("51", &keys(100)));
        first.wait_for("active");
        let second = b.daemon(&b.router("52", &keys(150)));
        wait("it holds back", || router(&second)["held_back"].is_string());
        let sent = counter(&first, "adverts_sent");
        wait("many intervals pass", || counter(&first, "adverts_sent") > sent + 5);
        assert!(second.state() == "backup" && !b.has(VIP));
        let (code, text) = second.check();
        assert!(code == Some(4) && text.contains("under VRID 51"), "{text}");
        assert!(text.contains("51 there, 52 here") && text.contains("192.0.2.1 "), "{text}");
        // What holds it back is over with the other.
        drop(first);
        second.wait_for("active");
        // The one that comes back is held back in turn.
        let first = a.daemon(&a.router("51", &keys(100)));
        wait("it holds back", || router(&first)["held_back"].is_string());
    }
}

isolated! {
    fn two_clusters_with_one_vrid_have_each_its_own_vips_and_say_so() {
        let mut lan = Lan::new();
        let (a, b) = (lan.host(), lan.host());
        let keys = |vip: &str, priority: u8| {
            format!("vips = [\"{vip}\"]\nadvert_interval = 0.2\npriority = {priority}")
        };
        let second = b.daemon(&b.router("51", &keys("192.0.2.171", 150)));
        second.wait_for("active");
        let first = a.daemon(&a.router("51", &keys("192.0.2.151", 100)));
        first.wait_for("active");
        wait("each has its own", || a.has("192.0.2.151") && b.has("192.0.2.171"));
        for daemon in [&first, &second] {
            wait("it hears the other", || counter(daemon, "foreign_cluster") > 10);
            let (code, text) = daemon.check();
            assert!(code == Some(4) && text.contains("another cluster on this link"), "{text}");
            assert_eq!(counter(daemon, "master_transitions"), 1);
        }
    }
}

isolated! {
    fn a_vip_left_on_a_backup_is_named_by_both_and_so_is_the_command_that_removes_it() {
        let mut lan = Lan::new();
        let Pair { a, b, first, second, .. } = Pair::start(&mut lan, "");
        for (length, interface) in [(24, "eth0"), (32, "eth0"), (32, "lo")] {
            let (address, device) = (format!("{VIP}/{length}"), format!("dev {interface}"));
            b.run_ip(&format!("addr add {address} {device}"));
            let command = format!("ip addr del {address} {device}");
            wait("the backup names it", || second.check().1.contains(&command));
            assert_eq!(second.check().0, Some(4));
            second.wait_for_log(&command);
            if interface == "eth0" {
                // Whatever it asks the LAN, it asks from the VIP now.
                let says = || {
                    let socket = std::net::UdpSocket::bind((VIP, 0)).unwrap();
                    // Nobody is there: each packet is a question who is.
                    let _ = socket.send_to(b"?", "192.0.2.250:9");
                };
                wait("the active gateway names it", || {
                    b.within(says);
                    first.check().1.contains("two hosts have it")
                });
                assert!(first.check().1.contains(&b.mac().to_string()));
            }
            b.run_ip(&command["ip ".len()..]);
            wait("the backup is well", || second.check() == (Some(0), String::new()));
        }
        assert!(a.has(VIP) && !b.has(VIP));
        assert_eq!((first.state(), second.state()), ("active".into(), "backup".into()));
    }
}

isolated! {
    fn a_boxs_own_ipv6_address_that_is_a_vip_is_not_to_be_removed_and_a_left_one_is() {
        let mut lan = Lan::new();
        let (a, b) = (lan.host(), lan.host());
        let keys = |priority: u8| {
            let vips = "vips = [\"fe80::51\", \"2001:db8::51\"]";
            format!("{vips}\nadvert_interval = 0.2\npriority = {priority}")
        };
        let first = a.daemon(&a.router("51", &keys(150)));
        first.wait_for("active");
        b.run_ip("addr add 2001:db8::51/64 dev eth0 nodad");
        let second = b.daemon(&b.router("51", &keys(100)));
        let own = "this box has no other address of its own in that subnet";
        wait("it is the box's own", || second.check().1.contains(own));
        assert!(second.log().contains(own) && !second.log().contains("ip addr del"));
        b.run_ip("addr add 2001:db8::5/64 dev eth0 nodad");
        let command = "ip addr del 2001:db8::51/64 dev eth0";
        wait("it is one that is left", || second.check().1.contains(command));
        b.run_ip(&command["ip ".len()..]);
        wait("the backup is well", || second.check() == (Some(0), String::new()));
    }
}

isolated! {
    fn a_router_that_moves_to_an_interface_which_has_its_vip_already_has_no_conflict() {
        let mut lan = Lan::new();
        let a = lan.host();
        lan.second_cable(&a);
        a.run_ip("link set eth1 up");
        a.run_ip("addr add 198.51.100.9/24 dev eth1");
        a.run_ip(&format!("addr add {VIP}/32 dev eth1"));
        let keys = format!("vips = [\"{VIP}\"]\nadvert_interval = 0.4");
        let on = |interface: &str| {
            a.config(&a.router("51", &keys)).replace("\"eth0\"", &format!("\"{interface}\""))
        };
        let daemon = a.daemon_of(&on("eth0"));
        daemon.wait_for("active");
        daemon.reload(&on("eth1"));
        wait("it is active there", || {
            let router = router(&daemon);
            assert_eq!(router["conflict"], Value::Null);
            router["interface"] == "eth1" && router["state"] == "active"
        });
        let log = daemon.log();
        assert!(!log.contains("though this router is not active"), "{log}");
    }
}

isolated! {
    fn gateways_of_different_subnets_behind_rp_filter_are_told_where_to_look() {
        let mut lan = Lan::new();
        let (a, b) = (lan.host(), lan.host());
        b.within(|| {
            let moved = "ip addr flush dev eth0 && ip addr add 198.51.100.2/24 dev eth0";
            assert!(Command::new("sh").args(["-c", moved]).status().unwrap().success());
        });
        for host in [&a, &b] {
            host.within(|| {
                for which in ["all", "eth0"] {
                    std::fs::write(format!("/proc/sys/net/ipv4/conf/{which}/rp_filter"), "1").unwrap();
                }
            });
        }
        let (first, second) = (start(&a, 150, ""), start(&b, 100, ""));
        for daemon in [&first, &second] {
            daemon.wait_for("active");
            wait("it is told", || daemon.check().1.contains("rp_filter"));
            assert_eq!(daemon.check().0, Some(4));
        }
    }
}

isolated! {
    fn a_firewall_that_lets_nothing_in_is_named_by_the_one_that_is_not_heard() {
        let mut lan = Lan::new();
        let (a, b) = (lan.host(), lan.host());
        let first = start(&a, 150, "");
        first.wait_for("active");
        nft(&b, &[
            "add table ip deaf",
            "add chain ip deaf in { type filter hook input priority 0 ; }",
            "add rule ip deaf in ip protocol 112 drop",
        ]);
        let second = start(&b, 100, "");
        second.wait_for("active");
        wait("the one with precedence says so", || {
            let (code, text) = first.check();
            code == Some(4) && text.contains("192.0.2.2 is active as well")
        });
        wait("the other hears its announcements", || second.check().1.contains("protocol 112"));
        nft(&b, &["delete table ip deaf"]);
        second.wait_for("backup");
        wait("both are well", || {
            [&first, &second].iter().all(|daemon| daemon.check() == (Some(0), String::new()))
        });
    }
}

isolated! {
    fn two_gateways_with_one_own_address_are_told_so_with_the_other_s_mac() {
        let mut lan = Lan::new();
        let (a, b) = (lan.host(), lan.host());
        b.within(|| {
            let moved = "ip addr flush dev eth0 && ip addr add 192.0.2.1/24 dev eth0";
            assert!(Command::new("sh").args(["-c", moved]).status().unwrap().success());
        });
        let first = start(&a, 150, "");
        first.wait_for("active");
        let second = start(&b, 100, "");
        wait("the backup names the other", || {
            let (code, text) = second.check();
            code == Some(4) && text.contains(&a.mac().to_string()) && text.contains("192.0.2.1 as")
        });
        wait("the active one names the backup", || {
            // What it asks the LAN comes from the address.
            b.within(|| {
                let socket = std::net::UdpSocket::bind("192.0.2.1:0").unwrap();
                let _ = socket.send_to(b"?", "192.0.2.250:9");
            });
            first.check().1.contains(&b.mac().to_string())
        });
    }
}
