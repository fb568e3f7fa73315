//! Ports, links and firewalls that pass one way, for a while, or not at all.

use super::*;

const DEAF: [&str; 3] = [
    "add table ip deaf",
    "add chain ip deaf in { type filter hook input priority 0 ; }",
    "add rule ip deaf in ip protocol 112 drop",
];

isolated! {
    fn s7_an_interface_that_is_deleted_and_made_again_is_followed_without_a_restart() {
        let mut lan = Lan::new();
        let (mut a, b) = (lan.host(), lan.host());
        let first = start(&a, 150, "");
        first.wait_for("active");
        let second = start(&b, 100, "");
        wait_heard(&second);
        let descriptors = |daemon: &Daemon| {
            std::fs::read_dir(format!("/proc/{}/fd", daemon.pid())).unwrap().count()
        };
        let before = descriptors(&first);
        for _ in 0..3 {
            lan.delete(&a);
            first.wait_for("initialize");
            second.wait_for("active");
            lan.attach(&mut a);
            first.wait_for("active");
            second.wait_for("backup");
            wait("the VIP moved back", || a.has(VIP) && !b.has(VIP));
        }
        wait("no descriptor is left over", || descriptors(&first) == before);
    }
}

isolated! {
    fn s8_a_flap_counts_at_once_or_is_borne_as_it_was_told() {
        let mut lan = Lan::new();
        let a = lan.host();
        let capture = Capture::on(&lan.host());
        let daemon = start(&a, 150, "");
        daemon.wait_for("active");
        lan.plug(&a, false);
        daemon.wait_for("initialize");
        wait("the VIP is gone", || !a.has(VIP));
        lan.plug(&a, true);
        daemon.wait_for("active");
        drop(daemon);

        let daemon = start(&a, 150, "carrier_delay = 60");
        daemon.wait_for("active");
        wait("it has the VIP", || a.has(VIP));
        lan.plug(&a, false);
        wait("it bears the loss of its link", || router(&daemon)["link_lost"].is_string());
        assert!(daemon.state() == "active" && a.has(VIP));
        capture.forget();
        lan.plug(&a, true);
        // The kernel tells of a carrier that came back later than it lets packets through.
        wait("it hears of that", || daemon.log().contains("its link is back"));
        wait("it announces its VIP after that", || capture.has_claim(a.mac(), VIP));
        assert_eq!(counter(&daemon, "master_transitions"), 1);
    }
}

isolated! {
    fn s9_a_port_that_sends_long_before_it_receives_makes_no_second_active_router() {
        let mut lan = Lan::new();
        let (a, b) = (lan.host(), lan.host());
        let capture = Capture::on(&lan.host());
        let first = start(&a, 100, "");
        first.wait_for("active");
        nft(&b, &DEAF);
        capture.forget();
        // Of higher priority, so that it would take over from whom it hears, too.
        let keys = format!(
            "vips = [\"{VIP}\"]\nadvert_interval = {INTERVAL}\npriority = 150\npreempt = false\n\
             [node.gw{}.virtual_router.51]\nlisten_first = 600",
            b.number()
        );
        let second = b.daemon(&b.router("51", &keys));
        second.wait_for("backup");
        let heard = counter(&first, "adverts_sent");
        wait("many intervals pass", || counter(&first, "adverts_sent") > heard + 20);
        assert_eq!(second.state(), "backup");
        nft(&b, &["delete table ip deaf"]);
        wait_heard(&second);
        assert_eq!(second.state(), "backup");
        assert!(!capture.has_advert(b.mac()) && !capture.has_claim(b.mac(), VIP));
        assert_eq!(counter(&first, "master_transitions"), 1);
    }
}

isolated! {
    fn s9_where_the_guard_was_too_short_one_conflict_is_resolved_once() {
        let mut lan = Lan::new();
        let (a, b, client) = (lan.host(), lan.host(), lan.host());
        let capture = Capture::on(&lan.host());
        let first = start(&a, 150, "");
        first.wait_for("active");
        nft(&b, &DEAF);
        let second = start(&b, 100, "");
        // The active router hears it at once, and defends; it hears nobody.
        second.wait_for("active");
        capture.forget();
        nft(&b, &["delete table ip deaf"]);
        second.wait_for("backup");
        wait("the VIP is on one", || a.has(VIP) && !b.has(VIP));
        wait("the one that stays announces it", || capture.has_claim(a.mac(), VIP));
        wait("the VIP answers", || client.reaches(VIP));
        assert_eq!(counter(&first, "master_transitions"), 1);
        assert_eq!(counter(&second, "master_transitions"), 1);
        assert!(counter(&first, "conflicts_won") > 0);
    }
}

isolated! {
    fn s10_a_gateway_whose_adverts_the_kernel_refuses_gives_way_and_comes_back() {
        let mut lan = Lan::new();
        let Pair { a, b, capture, first, second } = Pair::start(&mut lan, "");
        nft(&a, &[
            "add table ip mute",
            "add chain ip mute out { type filter hook output priority 0 ; }",
            "add rule ip mute out ip protocol 112 drop",
        ]);
        wait("it gives way", || !a.has(VIP));
        second.wait_for("active");
        wait("its successor has it", || b.has(VIP));
        first.wait_for_log("EPERM");
        assert!(counter(&first, "adverts_unsent") >= 3 && counter(&first, "gave_way") >= 1);
        // It tries again and again, and takes nothing with it.
        wait("it tried", || counter(&first, "gave_way") >= 3);
        assert_eq!(counter(&second, "master_transitions"), 1);
        capture.forget();
        nft(&a, &["delete table ip mute"]);
        wait("it is back", || first.state() == "active" && second.state() == "backup");
        wait("and has announced the VIP", || {
            a.has(VIP) && !b.has(VIP) && capture.has_claim(a.mac(), VIP)
        });
    }
}
