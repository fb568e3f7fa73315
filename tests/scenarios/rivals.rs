//! Others who have what a gateway has, or say so: whoever asks is told who, and what to do.

use super::*;

isolated! {
    fn a_hand_over_to_a_gateway_that_stood_still_is_no_conflict_on_either_side() {
        let mut lan = Lan::new();
        let Pair { a, b, first, second, .. } = Pair::start(&mut lan, "");
        for round in 1..=5 {
            first.signal("-STOP");
            second.wait_for("active");
            wait("the second has it", || b.has(VIP));
            first.signal("-CONT");
            second.wait_for("backup");
            wait("the first has it alone", || a.has(VIP) && !b.has(VIP));
            for daemon in [&first, &second] {
                assert_eq!(check(daemon), (Some(0), String::new()), "round {round}");
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
        let (code, text) = check(&first);
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
        let (code, text) = check(&daemon);
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
        let keys = |priority: u8| {
            format!("vips = [\"{VIP}\"]\nadvert_interval = 0.2\npriority = {priority}")
        };
        let first = a.daemon(&a.router("51", &keys(100)));
        first.wait_for("active");
        let second = b.daemon(&b.router("52", &keys(150)));
        wait("it holds back", || router(&second)["held_back"].is_string());
        let sent = counter(&first, "adverts_sent");
        wait("many intervals pass", || counter(&first, "adverts_sent") > sent + 20);
        assert!(second.state() == "backup" && !b.has(VIP));
        let (code, text) = check(&second);
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
            let (code, text) = check(daemon);
            assert!(code == Some(4) && text.contains("another cluster on this link"), "{text}");
            assert_eq!(counter(daemon, "master_transitions"), 1);
        }
    }
}
