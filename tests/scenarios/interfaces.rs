//! What can carry VRRP is more than a link that is up: ports, names, MAC addresses, memberships.

use std::net::{Ipv6Addr, UdpSocket};

use super::*;

/// Runs `ip` on a host.
fn ip(host: &Host, arguments: &str) {
    let mut program = Command::new("ip");
    program.args(arguments.split(' '));
    let status = host.within(|| program.status()).unwrap();
    assert!(status.success(), "ip {arguments}");
}

fn not_ready(daemon: &Daemon) -> String {
    router(daemon)["not_ready"].as_str().unwrap_or_default().to_owned()
}

isolated! {
    fn a_port_of_a_bridge_takes_no_part_and_its_master_is_named() {
        let mut lan = Lan::new();
        let Pair { a, b, first, second, .. } = Pair::start(&mut lan, "");
        ip(&b, "link add brx type bridge");
        ip(&b, "link set brx up");
        ip(&b, "link set eth0 master brx");
        let why = "eth0 is a port of bridge brx";
        wait("the backup says why", || not_ready(&second).contains(why));
        assert_eq!(second.state(), "initialize");
        assert_eq!(check(&second).0, Some(4));
        ip(&b, "link set eth0 nomaster");
        second.wait_for("backup");
        let heard = counter(&second, "adverts_received");
        wait("it hears again", || counter(&second, "adverts_received") > heard);

        ip(&a, "link add brx type bridge");
        ip(&a, "link set brx up");
        ip(&a, "link set eth0 master brx");
        second.wait_for("active");
        wait("the active one says why", || not_ready(&first).contains(why));
        wait("its VIP moved", || !a.has(VIP) && b.has(VIP));
        ip(&a, "link set eth0 nomaster");
        first.wait_for("active");
        second.wait_for("backup");
    }
}

isolated! {
    fn another_name_of_an_interface_and_the_loopback_interface_are_named() {
        let mut lan = Lan::new();
        let a = lan.host();
        ip(&a, "link property add dev eth0 altname uplink");
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
        ip(&a, "link property add dev eth0 altname later");
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
        ip(&a, "link set eth0 address 02:00:00:00:07:07");
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
        ip(&b, "link set eth0 mtu 1200");
        second.wait_for("initialize");
        ip(&b, "link set eth0 mtu 1500");
        wait_hears(&second);
        // So fast that the daemon may see but the end of it.
        for _ in 0..5 {
            ip(&b, "link set eth0 mtu 1200");
            ip(&b, "link set eth0 mtu 1500");
        }
        wait_hears(&second);
        for arguments in ["link set eth0 down", "link set eth0 up"] {
            ip(&b, arguments);
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
        ip(&b, "link set eth0 mtu 1200");
        second.wait_for("initialize");
        ip(&b, "link set eth0 mtu 1500");
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
            ip(&a, &format!("link set eth0 mtu {mtu}"));
            wait("it is told", || daemon.log().contains(&told(count)));
            let (code, text) = check(&daemon);
            assert_eq!(code, Some(4), "{text}");
            assert!(text.contains(&told(count)), "{text}");
            assert_eq!(daemon.state(), "active");
        }
        ip(&a, "link set eth0 mtu 1500");
        wait("the end of it is told", || daemon.log().contains("every VIP fits into an advert"));
        assert!(!check(&daemon).1.contains("do not fit"));
    }
}
