//! An active gateway asks who else has its VIPs.

use super::*;

/// Before the daemon knows its routers, it has no counters.
fn counter_of(daemon: &Daemon, name: &str) -> u64 {
    router(daemon)["counters"][name].as_u64().unwrap_or(0)
}

isolated! {
    fn a_host_that_has_a_vip_and_only_answers_is_named() {
        let mut lan = Lan::new();
        let (a, b) = (lan.host(), lan.host());
        // It announces nothing by itself.
        b.within(|| {
            for command in [
                format!("ip addr add {VIP}/32 dev eth0"),
                "ip addr add fe80::51/128 dev eth0 nodad".to_owned(),
                "ip addr add 2001:db8::51/128 dev eth0 nodad".to_owned(),
            ] {
                assert!(Command::new("sh").args(["-c", &command]).status().unwrap().success());
            }
        });
        let four = format!("vips = [\"{VIP}\"]\nadvert_interval = 0.1\nprobe_interval = 1");
        let six = "[virtual_router.v6]\ninterface = \"eth0\"\nvrid = 51\nprobe_interval = 1\n\
                   vips = [\"fe80::51\", \"2001:db8::51\"]\nadvert_interval = 0.1\n";
        let both = format!("{}{six}", a.router("51", &four));
        let daemon = a.daemon(&both.replace("[\"51\"]", "[\"51\", \"v6\"]"));
        let theirs = b.mac().to_string();
        wait("both are named with its MAC", || {
            (0..2).all(|at| {
                let conflict = &daemon.status()["vrrp"]["routers"][at]["conflict"];
                conflict.as_str().is_some_and(|text| text.contains(&theirs))
            })
        });
        daemon.wait_for_log("two hosts have it");
        assert_eq!(daemon.check().0, Some(4));
    }
}

isolated! {
    fn gateways_that_ask_often_name_nobody_in_a_hand_over() {
        let mut lan = Lan::new();
        let Pair { a, b, mut first, second, .. } = Pair::start(&mut lan, "probe_interval = 0.05");
        for _ in 0..3 {
            wait("it asks", || counter_of(&first, "probes") > 10);
            assert!(first.stop().success());
            second.wait_for("active");
            let before = counter_of(&second, "probes");
            wait("the other asks", || counter_of(&second, "probes") > before + 10);
            first = start(&a, 150, "probe_interval = 0.05");
            first.wait_for("active");
            second.wait_for("backup");
            wait("the first has it alone", || a.has(VIP) && !b.has(VIP));
        }
        for daemon in [&first, &second] {
            wait("all is well", || daemon.check() == (Some(0), String::new()));
            assert!(!daemon.log().contains("two hosts have it"), "{}", daemon.log());
        }
    }
}
