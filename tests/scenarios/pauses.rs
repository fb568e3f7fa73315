//! A process or a machine that stands still, or dies.

use super::*;

/// The machine of an active gateway is frozen for longer than others wait (a snapshot of a VM, a
/// starved host), and what the successor said meanwhile reaches it or, with `deaf`, does not.
fn frozen_for_long(deaf: bool, preempt: bool) {
    let mut lan = Lan::new();
    let client = lan.host();
    let more = format!("preempt = {preempt}");
    let Pair { a, b, capture, first, second } = Pair::start(&mut lan, &more);
    wait("the VIP answers", || client.reaches(VIP));
    first.signal("-STOP");
    second.wait_for("active");
    if deaf {
        nft(
            &a,
            &[
                "add table ip deaf",
                "add chain ip deaf in { type filter hook input priority 0 ; }",
                "add rule ip deaf in ip protocol 112 drop",
            ],
        );
    }
    capture.forget();
    first.signal("-CONT");
    wait("the one with precedence announces its VIP again", || capture.has_claim(a.mac(), VIP));
    wait("one is active", || (first.state(), second.state()) == ("active".into(), "backup".into()));
    wait("one has the VIP", || a.has(VIP) && !b.has(VIP));
    wait("the VIP answers", || client.reaches(VIP));
    first.wait_for_log("announcing its addresses again");
    let log = first.log();
    assert_eq!(log.matches("announcing its addresses again").count(), 1, "{log}");
    assert_eq!(counter(&first, "master_transitions"), 1);
    assert_eq!(counter(&second, "master_transitions"), 1);
}

isolated! {
    fn s1_an_active_gateway_frozen_for_long_is_one_again_and_announces() {
        frozen_for_long(false, true);
    }
}

isolated! {
    fn s1_also_where_it_never_hears_who_stood_in_for_it() {
        frozen_for_long(true, true);
    }
}

isolated! {
    fn s1_without_preemption_precedence_decides_among_two_that_are_active() {
        frozen_for_long(false, false);
    }
}

isolated! {
    fn s2_a_freeze_shorter_than_others_wait_changes_nothing_and_is_counted() {
        let mut lan = Lan::new();
        let (a, b) = (lan.host(), lan.host());
        let keys = |priority| format!("vips = [\"{VIP}\"]\npriority = {priority}");
        let first = a.daemon(&a.router("51", &keys(150)));
        first.wait_for("active");
        let second = b.daemon(&b.router("51", &keys(100)));
        wait_heard(&second);
        first.signal("-STOP");
        wait("two adverts are missing", || {
            router(&second)["heard"]["ago_ms"].as_u64().unwrap_or(0) >= 2_000
        });
        first.signal("-CONT");
        let before = counter(&second, "adverts_received");
        wait("it goes on", || counter(&second, "adverts_received") > before + 1);
        assert_eq!(counter(&first, "late_adverts"), 1);
        assert_eq!(counter(&first, "master_transitions"), 1);
        assert_eq!(counter(&second, "master_transitions"), 0);
    }
}

isolated! {
    fn s13_a_restart_after_a_crash_removes_what_was_left_before_it_takes_part() {
        let mut lan = Lan::new();
        let (a, b) = (lan.host(), lan.host());
        let capture = Capture::on(&lan.host());
        let more = "preempt = false\naddress_lifetime = \"forever\"";
        // Neither a guard nor a lifetime takes the VIP away, so it is there for the next start.
        let keys = format!("vips = [\"{VIP}\"]\nadvert_interval = {INTERVAL}\npriority = 150\n{more}");
        let mut first = a.daemon_of(&a.config_without_guard(&a.router("51", &keys)));
        first.wait_for("active");
        let second = start(&b, 100, more);
        wait_heard(&second);
        first.kill();
        second.wait_for("active");
        assert!(a.has(VIP), "it was left behind");
        capture.forget();
        let first = start(&a, 150, more);
        first.wait_for("backup");
        wait_heard(&first);
        assert!(b.has(VIP) && !a.has(VIP));
        assert!(!capture.has_advert(a.mac()), "it said something");
    }
}

isolated! {
    fn s16_of_three_at_ten_milliseconds_the_second_takes_over_each_time() {
        let mut lan = Lan::new();
        let hosts = [lan.host(), lan.host(), lan.host()];
        let keys = |priority| {
            format!("vips = [\"{VIP}\"]\nadvert_interval = 0.01\npriority = {priority}")
        };
        let start = |host: &Host, priority| host.daemon(&host.router("51", &keys(priority)));
        let second = start(&hosts[1], 200);
        let third = start(&hosts[2], 100);
        for _ in 0..5 {
            let mut first = start(&hosts[0], 254);
            first.wait_for("active");
            wait("the others follow", || {
                second.state() == "backup" && third.state() == "backup"
            });
            first.kill();
            second.wait_for("active");
            wait("the third hears it", || {
                router(&third)["heard"]["priority"] == 200 && third.state() == "backup"
            });
        }
    }
}
