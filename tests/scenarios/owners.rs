//! A gateway whose own address is a VIP (priority 255), and one that holds that address meanwhile:
//! the kernel keeps the owner's adverts from the other's sockets, as if he had forged them.

use super::*;
use crate::lab::holds_within;

/// Router 51 with these VIPs.
fn owner(host: &Host, priority: u8, vips: &str) -> Daemon {
    let keys = format!("vips = [{vips}]\nadvert_interval = 0.2\npriority = {priority}");
    host.daemon(&host.router("51", &keys))
}

/// Waits until the first is active, and the second a backup that hears it again and again.
fn settles(first: &Daemon, second: &Daemon) {
    first.wait_for("active");
    second.wait_for("backup");
    let heard = counter(second, "adverts_received");
    wait("the backup hears ten more adverts", || counter(second, "adverts_received") > heard + 10);
    assert_eq!((first.state(), second.state()), ("active".into(), "backup".into()));
}

/// An owner comes back after `cut`, until when he was cut off, and is heard. Both have heard each
/// other before if they have `met`.
fn returns(met: bool, cut: fn(&mut Lan, &Host, bool)) {
    let mut lan = Lan::new();
    let (a, b) = (lan.host(), lan.host());
    let own = format!("\"{}\"", a.ip());
    let first = owner(&a, 255, &own);
    first.wait_for("active");
    let second = if met {
        let second = owner(&b, 100, &own);
        settles(&first, &second);
        cut(&mut lan, &a, true);
        second
    } else {
        cut(&mut lan, &a, true);
        owner(&b, 100, &own)
    };
    second.wait_for("active");
    wait("the other holds the owner's address", || b.has(&a.ip()));
    cut(&mut lan, &a, false);
    settles(&first, &second);
    assert!(a.has(&a.ip()) && !b.has(&a.ip()));
}

/// The owner's own cable is drawn: he sees it.
fn cable(lan: &mut Lan, host: &Host, cut: bool) {
    lan.plug(host, !cut);
}

/// Somewhere between the switches: he sees nothing, and stays active.
fn trunk(lan: &mut Lan, host: &Host, cut: bool) {
    lan.join_switch(host, !cut);
}

isolated! {
    fn an_owner_whose_cable_was_drawn_is_heard_by_the_one_that_has_his_address() {
        returns(true, cable);
    }
}
isolated! {
    fn an_owner_who_was_cut_off_unawares_is_heard_by_the_one_that_has_his_address() {
        returns(true, trunk);
    }
}
isolated! {
    fn an_owner_is_heard_by_one_that_has_his_address_and_never_heard_him() {
        returns(false, cable);
    }
}
isolated! {
    fn an_owner_who_was_active_all_the_time_is_heard_by_one_that_never_heard_him() {
        returns(false, trunk);
    }
}

isolated! {
    fn two_owners_of_both_their_addresses_end_as_one_active() {
        let mut lan = Lan::new();
        let (a, b) = (lan.host(), lan.host());
        let both = format!("\"{}\", \"{}\"", a.ip(), b.ip());
        for at_once in [true, false] {
            let first = owner(&a, 255, &both);
            if !at_once {
                first.wait_for("active");
                wait("it has both", || a.has(&b.ip()));
            }
            let second = owner(&b, 255, &both);
            // Of equal priorities the higher address decides (RFC 9568 §6.4.3).
            settles(&second, &first);
            assert!(!a.has(&b.ip()) && b.has(&a.ip()));
        }
    }
}

isolated! {
    fn two_boxes_with_one_address_hear_each_other_and_the_higher_priority_wins() {
        let mut lan = Lan::new();
        let (a, b) = (lan.host(), lan.host());
        for host in [&a, &b] {
            host.within(|| {
                let moved = "ip addr flush dev eth0 && ip addr add 192.0.2.9/24 dev eth0";
                assert!(Command::new("sh").args(["-c", moved]).status().unwrap().success());
            });
        }
        let first = start(&a, 150, "");
        first.wait_for("active");
        let second = start(&b, 100, "");
        let both = || first.state() == "active" && second.state() == "backup";
        let heard = || router(&second)["counters"]["adverts_received"].as_u64() > Some(10);
        assert!(
            holds_within(lab::LIMIT, || both() && heard()),
            "{:#}\n{:#}",
            router(&first),
            router(&second)
        );
        assert_eq!(counter(&first, "gave_way"), 0);
    }
}
