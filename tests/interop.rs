//! Beside a real keepalived: exactly one active gateway, failover both ways, priorities obeyed.

#![cfg(feature = "daemon")]

#[macro_use]
mod lab;

use std::process::Command;

use lab::peer::{Keepalived, is_there};
use lab::{Host, Lan, wait};

/// Each test beside Debian 12's keepalived, and beside a newer one.
macro_rules! beside_each {
    ($(isolated fn $name:ident($peer:ident: &'static str $(,)?) $body:block)*) => {
        $(mod $name {
            use super::*;

            fn beside($peer: &'static str) $body

            isolated! { fn keepalived_2_2() { beside("keepalived") } }
            isolated! { fn keepalived_2_3() { beside("keepalived-2.3") } }
        })*
    };
}

/// Whether the peer is there; the test skips if not.
fn has(peer: &str, test: &str) -> bool {
    let there = is_there(peer);
    if !there {
        lab::skip(test, &format!("no {peer}; run tests/lab/fetch {peer}"));
    }
    there
}

/// One pairing: keys for each side, and the VIP to watch.
struct Case {
    havip: &'static str,
    keepalived: &'static str,
    vip: &'static str,
}

const V3: Case = Case {
    havip: "vips = [\"192.0.2.100\"]\nadvert_interval = 0.2",
    keepalived: "  version 3\n  advert_int 0.2\n  virtual_ipaddress {\n    192.0.2.100 dev eth0\n  }",
    vip: "192.0.2.100",
};
const V6: Case = Case {
    havip: "vips = [\"fe80::51\", \"2001:db8::51\"]\nadvert_interval = 0.2",
    keepalived: "  version 3\n  advert_int 0.2\n  virtual_ipaddress {\n    fe80::51 dev eth0\n    \
                 2001:db8::51 dev eth0\n  }",
    vip: "2001:db8::51",
};
const V2: Case = Case {
    havip: "vips = [\"192.0.2.100\"]\nversion = \"2\"",
    keepalived: "  version 2\n  advert_int 1\n  virtual_ipaddress {\n    192.0.2.100 dev eth0\n  }",
    vip: "192.0.2.100",
};
const V2_PASS: Case = Case {
    havip: "vips = [\"192.0.2.100\"]\nversion = \"2\"\nauth_pass = \"s3cret\"",
    keepalived: "  version 2\n  advert_int 1\n  authentication {\n    auth_type PASS\n    \
                 auth_pass s3cret\n  }\n  virtual_ipaddress {\n    192.0.2.100 dev eth0\n  }",
    vip: "192.0.2.100",
};

/// Which of the two has the VIP, if it is exactly one.
fn sole(hosts: [&Host; 2], vip: &str) -> Option<usize> {
    match hosts.map(|host| host.has(vip)) {
        [true, false] => Some(0),
        [false, true] => Some(1),
        [true, true] | [false, false] => None,
    }
}

fn pairing(peer: &'static str, case: &Case) {
    if !has(peer, "interop") {
        return;
    }
    for (ours, theirs, expected) in [(200, 100, 0), (100, 200, 1)] {
        let mut lan = Lan::named(if expected == 0 { "br1" } else { "br2" });
        let (a, b) = (lan.host(), lan.host());
        let havip = |priority: u8| {
            a.daemon(&a.router("51", &format!("priority = {priority}\n{}", case.havip)))
        };
        let start = |priority: u8| {
            Keepalived::start(peer, &b, &format!("  priority {priority}\n{}", case.keepalived))
        };
        let mut daemon = havip(ours);
        let mut keepalived = start(theirs);
        wait("the higher priority has the VIP alone", || {
            sole([&a, &b], case.vip) == Some(expected)
        });
        let state = if expected == 0 { "active" } else { "backup" };
        daemon.wait_for(state);
        // It stays so: over many adverts nobody else takes it.
        let status = daemon.status();
        let heard = status["vrrp"]["routers"][0]["counters"]["adverts_received"].as_u64().unwrap();
        if expected == 1 {
            wait("ten more adverts", || {
                let now = daemon.status();
                let count = &now["vrrp"]["routers"][0]["counters"]["adverts_received"];
                count.as_u64().unwrap() >= heard + 10
            });
        }
        assert_eq!(sole([&a, &b], case.vip), Some(expected));

        // The one that has it stops: the other takes over, and gives it back.
        if expected == 0 {
            assert!(daemon.stop().success());
            wait("keepalived takes over", || sole([&a, &b], case.vip) == Some(1));
            daemon = havip(ours);
            wait("havip takes it back", || sole([&a, &b], case.vip) == Some(0));
            assert_eq!(daemon.state(), "active");
        } else {
            keepalived.stop();
            wait("havip takes over", || sole([&a, &b], case.vip) == Some(0));
            daemon.wait_for("active");
            keepalived = start(theirs);
            wait("keepalived takes it back", || sole([&a, &b], case.vip) == Some(1));
            daemon.wait_for("backup");
        }
        assert!(daemon.stop().success());
        keepalived.stop();
    }
}

beside_each! {
    isolated fn version_3_over_ipv4_with_keepalived(peer: &'static str) { pairing(peer, &V3) }
    isolated fn version_3_over_ipv6_with_keepalived(peer: &'static str) { pairing(peer, &V6) }
    isolated fn version_2_with_keepalived(peer: &'static str) { pairing(peer, &V2) }
    isolated fn version_2_with_password_with_keepalived(peer: &'static str) {
        pairing(peer, &V2_PASS)
    }
}

/// A keepalived that sends to the other gateway alone, in this version and family.
fn beside_unicast(name: &'static str, version: u8, vip: &str, addresses: fn(&Host) -> String) {
    if !has(name, "interop") {
        return;
    }
    let mut lan = Lan::new();
    let (a, b) = (lan.host(), lan.host());
    let (ours, theirs) = (addresses(&a), addresses(&b));
    let keys = format!("vips = [{vip}]\nversion = \"{version}\"\nadvert_interval = 1");
    let vip = vip.trim_matches('"').to_owned();
    let conf = |peer: &str| {
        format!(
            "  version {version}\n  priority 50\n  advert_int 1\n{peer}\n  virtual_ipaddress {{\n    \
             {vip} dev eth0\n  }}"
        )
    };
    let unicast = format!("  unicast_src_ip {theirs}\n  unicast_peer {{\n    {ours}\n  }}");
    let mut keepalived = Keepalived::start(name, &b, &conf(&unicast));
    wait("keepalived is active", || b.has(&vip));
    let daemon = a.daemon(&a.router("51", &keys));
    let router = || daemon.status()["vrrp"]["routers"][0].clone();
    wait("it has heard it for long", || router()["counters"]["misconfigured"].as_u64() >= Some(6));
    assert_eq!(daemon.state(), "backup");
    assert_eq!(sole([&a, &b], &vip), Some(1));
    let why = router()["held_back"].as_str().unwrap().to_owned();
    assert!(why.contains("sends unicast") && why.contains("unicast_peer"), "{why}");
    daemon.wait_for_log("sends unicast");
    let port = daemon.status()["vrrp"]["ports"][0].clone();
    assert!(port["unicast"].as_u64() >= Some(6), "{port}");
    // The way out that it names.
    keepalived.stop();
    daemon.wait_for("active");
    let mut keepalived = Keepalived::start(name, &b, &conf(""));
    // One that heard nothing would be active after four intervals.
    let sent = || router()["counters"]["adverts_sent"].as_u64().unwrap();
    let before = sent();
    wait("keepalived has had time to hear it", || sent() >= before + 6);
    assert_eq!(sole([&a, &b], &vip), Some(0), "{}", keepalived.log());
    keepalived.stop();
}

beside_each! {
    isolated fn a_keepalived_that_sends_unicast_is_named_and_not_taken_over(peer: &'static str) {
        beside_unicast(peer, 3, "\"192.0.2.100\"", Host::ip)
    }
    isolated fn a_keepalived_that_sends_unicast_in_version_2_is_named_and_not_taken_over(
        peer: &'static str
    ) {
        beside_unicast(peer, 2, "\"192.0.2.100\"", Host::ip)
    }
    isolated fn a_keepalived_that_sends_unicast_over_ipv6_is_named_and_not_taken_over(
        peer: &'static str
    ) {
        beside_unicast(peer, 3, "\"fe80::51\"", |host| {
            let ip = format!("2001:db8::{}", host.number());
            host.within(|| {
                let add = format!("ip addr add {ip}/64 dev eth0 nodad");
                assert!(Command::new("sh").args(["-c", &add]).status().unwrap().success());
            });
            ip
        })
    }
}

/// What every agent of the original havip runs.
const ORIGINAL: &str = "  version 2\n  priority 50\n  advert_int 1\n  nopreempt\n  authentication {\n    \
                        auth_type PASS\n    auth_pass Sylvanas\n  }\n  virtual_ipaddress {\n    \
                        192.0.2.100 dev eth0\n  }";

/// Two hosts, the second with such an agent as the active one.
fn beside_the_original(peer: &'static str) -> Option<(Lan, Host, Host, Keepalived)> {
    if !has(peer, "original") {
        return None;
    }
    let mut lan = Lan::new();
    let (a, b) = (lan.host(), lan.host());
    let agent = Keepalived::start(peer, &b, ORIGINAL);
    wait("the agent is active", || b.has("192.0.2.100"));
    Some((lan, a, b, agent))
}

beside_each! {
    isolated fn beside_an_original_agent_the_profile_joins_takes_over_and_hands_back(
        peer: &'static str
    ) {
        let Some((_lan, a, b, mut agent)) = beside_the_original(peer) else { return };
        let keys = "vips = [\"192.0.2.100\"]\nprofile = \"original\"";
        let mut daemon = a.daemon(&a.router("51", keys));
        daemon.wait_for("backup");
        wait("it hears the agent", || {
            daemon.status()["vrrp"]["routers"][0]["counters"]["adverts_received"].as_u64() >= Some(8)
        });
        assert_eq!(sole([&a, &b], "192.0.2.100"), Some(1));
        agent.stop();
        wait("it takes over", || sole([&a, &b], "192.0.2.100") == Some(0));
        let mut agent = Keepalived::start(peer, &b, ORIGINAL);
        wait("the agent hears it", || agent.log().contains("BACKUP STATE"));
        assert_eq!(sole([&a, &b], "192.0.2.100"), Some(0));
        assert!(daemon.stop().success());
        wait("it hands back", || sole([&a, &b], "192.0.2.100") == Some(1));
        agent.stop();
    }

    isolated fn beside_an_original_agent_the_default_stays_backup_and_says_why(
        peer: &'static str
    ) {
        let Some((_lan, a, b, mut agent)) = beside_the_original(peer) else { return };
        let daemon = a.daemon(&a.router("51", "vips = [\"192.0.2.100\"]"));
        wait("it has heard the agent for long", || {
            daemon.status()["vrrp"]["routers"][0]["counters"]["misconfigured"].as_u64() >= Some(6)
        });
        assert_eq!(daemon.state(), "backup");
        assert_eq!(sole([&a, &b], "192.0.2.100"), Some(1));
        let status = daemon.status();
        let why = status["vrrp"]["routers"][0]["held_back"].as_str().unwrap();
        assert!(why.contains("VRRPv2"), "{why}");
        daemon.wait_for_log("profile = \"original\"");
        agent.stop();
        wait("nobody else is there: it takes over", || a.has("192.0.2.100"));
    }
}

/// A keepalived that has our VIP under another VRID than ours is not taken over, in whatever version
/// and with whatever password it speaks.
fn under_another_vrid(peer: &'static str) {
    if !has(peer, "interop") {
        return;
    }
    // An interval of a second, so that no keepalived that is late for a moment is taken over.
    let slow = |case: &Case| {
        let others = case.havip.lines().filter(|line| !line.starts_with("advert_interval"));
        others.chain(["advert_interval = 1"]).collect::<Vec<_>>().join("\n")
    };
    let cases = [(&V3, &V3), (&V6, &V6), (&V2, &V2), (&V3, &V2), (&V3, &V2_PASS), (&V2, &V3)];
    for (at, (ours, theirs)) in cases.into_iter().enumerate() {
        let mut lan = Lan::named(&format!("br{}", at + 10));
        let (a, b) = (lan.host(), lan.host());
        let _keepalived =
            Keepalived::start(peer, &b, &format!("  priority 50\n{}", theirs.keepalived));
        wait("keepalived has the VIP", || b.has(theirs.vip));
        let daemon = a.daemon(&a.router("52", &format!("{}\npriority = 200", slow(ours))));
        let held_back = || {
            let status = daemon.status();
            let why = status["vrrp"]["routers"][0]["held_back"].as_str();
            why.is_some_and(|why| why.contains("under VRID 51") && why.contains("52 here"))
        };
        wait("it holds back", held_back);
        let port = |name: &str| daemon.status()["vrrp"]["ports"][0][name].as_u64().unwrap();
        let heard = port("unknown_vrid");
        wait("many adverts pass", || port("unknown_vrid") > heard + 4);
        assert!(held_back() && !a.has(ours.vip) && daemon.state() == "backup");
    }
}

beside_each! {
    isolated fn a_keepalived_that_has_our_vip_under_another_vrid_is_named_and_not_taken_over(
        peer: &'static str
    ) {
        under_another_vrid(peer)
    }
}

/// What a keepalived that was killed leaves behind is named by the havip that runs there instead, as
/// backup of another.
fn left_by_a_killed_one(peer: &'static str) {
    if !has(peer, "interop") {
        return;
    }
    let mut lan = Lan::new();
    let (a, b) = (lan.host(), lan.host());
    let keepalived = Keepalived::start(peer, &b, &format!("  priority 100\n{}", V3.keepalived));
    wait("keepalived has the VIP", || b.has(V3.vip));
    keepalived.kill();
    let keys = |priority: u8| format!("{}\npriority = {priority}", V3.havip);
    let first = a.daemon(&a.router("51", &keys(200)));
    first.wait_for("active");
    let second = b.daemon(&b.router("51", &keys(100)));
    let conflict = |daemon: &lab::Daemon| {
        let status = daemon.status();
        status["vrrp"]["routers"][0]["conflict"].as_str().unwrap_or_default().to_owned()
    };
    wait("the backup names it", || {
        conflict(&second).contains("ip addr del 192.0.2.100/32 dev eth0")
    });
    // It asks for its VIP, and the other box answers.
    wait("the active one names it", || conflict(&first).contains(&b.mac().to_string()));
    assert_eq!(second.state(), "backup");
    b.within(|| {
        let removal = ["addr", "del", "192.0.2.100/32", "dev", "eth0"];
        assert!(Command::new("ip").args(removal).status().unwrap().success());
    });
    wait("the backup is well", || conflict(&second).is_empty());
}

beside_each! {
    isolated fn what_a_killed_keepalived_left_on_a_backup_is_named_by_both(peer: &'static str) {
        left_by_a_killed_one(peer)
    }
}
