//! A store whose content is compacted, restored, garbled or deleted.

use std::process::Command;

use havip::daemon::socket;
use havip::linux::clock;
use serde_json::Value;

use crate::lab::wait;
use crate::site::{Site, ms, quick, vip};

scenarios! {
    a_node_that_was_frozen_through_a_compaction
    a_restored_store_takes_nothing_away
    garbage_deletions_and_lost_leases
    a_bad_router_keeps_its_last_good_form_and_the_others_follow
}

fn a_node_that_was_frozen_through_a_compaction(
    test: &'static str,
    version: &'static str,
) -> Option<String> {
    let mut site = Site::start(test, quick(version), None)?;
    let backup = 1 - site.active();
    site.cluster.put("/havip/virtual_router/2/preempt_delay", "1");
    wait("it arrives", || site.agrees());
    site.gateways[backup].1.signal("-STOP");
    for round in 0..100 {
        site.cluster.put("/havip/virtual_router/3/vips_excluded", &format!("203.0.113.{round}"));
    }
    site.cluster.del("/havip/virtual_router/2/preempt_delay");
    site.cluster.compact();
    let begin = clock::now();
    site.gateways[backup].1.signal("-CONT");
    wait("both have what the store has", || site.agrees());
    let caught_up = clock::now().since(begin);
    site.change();
    site.is_calm();
    Some(format!("agrees after {}", ms(caught_up)))
}

fn a_restored_store_takes_nothing_away(
    test: &'static str,
    version: &'static str,
) -> Option<String> {
    let mut site = Site::start(test, quick(version), None)?;
    let backup = site.cluster.snapshot("old.db");
    // What the backup does not know: a router, and an address of another.
    site.cluster.put("/havip/virtual_router/9/vips", "192.0.2.109");
    site.cluster.put("/havip/virtual_router/2/vips", "192.0.2.102,192.0.2.112");
    for node in ["gw1", "gw2"] {
        site.cluster.put(&format!("/havip/node/{node}/vrids"), "1,2,3,4,9");
    }
    let at = |address: &str| {
        let address = address.to_owned();
        move |site: &Site| site.gateways.iter().any(|(host, _)| host.has(&address))
    };
    wait("all of it is there", || at("192.0.2.109")(&site) && at("192.0.2.112")(&site));
    wait("and on disk", || {
        site.gateways.iter().all(|(host, _)| {
            let file = host.folder().join("state/snapshot.toml");
            std::fs::read_to_string(file).is_ok_and(|text| text.contains("1,2,3,4,9"))
        })
    });
    // Another token makes it another cluster, without one only the revision goes back.
    let begin = clock::now();
    site.cluster.restore(&backup, (version == "3.4").then_some("another"));
    let restored = clock::now().since(begin);
    let held = |site: &Site, gateway: usize| site.store(gateway)["held"].to_string();
    wait("both hold what vanished", || {
        (0..2).all(|gateway| held(&site, gateway) == "[\"2\",\"9\"]" && site.is_connected(gateway))
    });
    assert!(at("192.0.2.109")(&site) && at("192.0.2.112")(&site));
    let (code, said) = site.check(0);
    assert_eq!(code, Some(4), "{said}");
    assert!(said.contains("held: 2, 9") && said.contains("restored"), "{said}");
    // Through a restart, too.
    let standby = 1 - site.active_of_nine();
    site.restart(standby, &site.cluster.endpoints());
    wait("it holds the same", || held(&site, standby) == "[\"2\",\"9\"]");
    // An order counts at once, and what is put back is not held any more.
    site.cluster.put("/havip/virtual_router/2/vips", "192.0.2.102,192.0.2.113");
    wait("the order is followed", || at("192.0.2.113")(&site) && !at("192.0.2.112")(&site));
    wait("one is left", || (0..2).all(|gateway| held(&site, gateway) == "[\"9\"]"));
    // What was ordered since stays ordered after a restart, and what is held is held, also where
    // etcd comes later than the start waits for it.
    let file = site.gateways[standby].0.folder().join("state/snapshot.toml");
    wait("it is on disk what is held", || {
        std::fs::read_to_string(&file).is_ok_and(|text| text.contains("held = "))
    });
    (0..3).for_each(|index| site.cluster.stop(index));
    site.restart(standby, &site.cluster.endpoints());
    wait("it runs from the snapshot", || site.store(standby)["source"] == "snapshot");
    (0..3).for_each(|index| site.cluster.cont(index));
    wait("it holds the one", || {
        site.store(standby)["source"] == "etcd" && held(&site, standby) == "[\"9\"]"
    });
    let shown = socket::get(&site.gateways[standby].1.socket, "/v1/status").unwrap();
    assert!(!String::from_utf8(shown).unwrap().contains("192.0.2.112"), "what was let go is back");
    site.listener.forget();
    for gateway in 0..2 {
        let mut program = Command::new(env!("CARGO_BIN_EXE_havip"));
        program.args(["confirm", "--config"]).arg(&site.gateways[gateway].1.config);
        let output = program.output().unwrap();
        assert_eq!(String::from_utf8(output.stdout).unwrap(), "released: 9\n");
    }
    wait("it is released", || !at("192.0.2.109")(&site));
    site.change();
    site.listener.read();
    assert_eq!(site.listener.farewells, 1, "of the router that an operator let go");
    wait("both are well", || site.check(0).0 == Some(0) && site.check(1).0 == Some(0));
    assert!(site.agrees());
    Some(format!("etcd restored in {}, nothing released", ms(restored)))
}

impl Site {
    /// The gateway that is active, of five routers.
    fn active_of_nine(&self) -> usize {
        usize::from(self.actives()[1] > 0)
    }
}

fn garbage_deletions_and_lost_leases(test: &'static str, version: &'static str) -> Option<String> {
    let mut site = Site::start(test, quick(version), None)?;
    // Garbage concerns one router.
    site.cluster.put("/havip/virtual_router/2/vips", "\u{1}\u{2}not an address");
    site.cluster.put("/havip/virtual_router/2/nonsense", "1");
    wait("it is named with key and revision", || {
        let (code, said) = site.check(0);
        code == Some(4) && said.contains("/havip/virtual_router/2/vips (revision ")
    });
    site.cluster.put("/havip/virtual_router/3/vips_excluded", "203.0.113.3");
    wait("the others follow", || site.gateways.iter().any(|(host, _)| host.has("203.0.113.3")));
    assert!(site.gateways.iter().any(|(host, _)| host.has(&vip("2"))), "the last good form");
    site.cluster.del("/havip/virtual_router/2/nonsense");
    site.cluster.put("/havip/virtual_router/2/vips", &vip("2"));
    wait("all is well again", || site.check(0).0 == Some(0) && site.check(1).0 == Some(0));

    // A lease that somebody revokes, a status and a gateway key that somebody deletes.
    let lease = |site: &Site| -> i64 {
        let said = site.cluster.ctl(&["get", "/havip/status/gw1", "-w", "json"]).unwrap();
        let said: Value = serde_json::from_str(&said).unwrap();
        said["kvs"][0]["lease"].as_i64().unwrap_or(0)
    };
    let before = lease(&site);
    assert_ne!(before, 0);
    let begin = clock::now();
    site.cluster.ctl(&["lease", "revoke", &format!("{before:x}")]).unwrap();
    wait("the node says again that it lives", || ![0, before].contains(&lease(&site)));
    let again = clock::now().since(begin);
    let value = site.cluster.get("/havip/vRouterGateway/1");
    site.cluster.del("/havip/vRouterGateway/1");
    site.cluster.del("/havip/status/gw2");
    wait("both are put back", || {
        site.cluster.get("/havip/vRouterGateway/1") == value
            && site.cluster.get("/havip/status/gw2").is_some()
    });
    site.change();
    site.is_calm();
    Some(format!("status under a new lease {} after the old one was revoked", ms(again)))
}

fn a_bad_router_keeps_its_last_good_form_and_the_others_follow(
    test: &'static str,
    version: &'static str,
) -> Option<String> {
    let mut site = Site::start(test, quick(version), None)?;
    let own = |key: &str| format!("/havip/virtual_router/{key}");
    for (what, keys, named) in [
        ("an unknown key", vec![(own("2/priorty"), "7")], "did you mean \"priority\""),
        ("no number", vec![(own("2/priority"), "high")], "virtual_router/2/priority (revision "),
        ("out of range", vec![(own("2/advert_interval"), "900")], "2/advert_interval (revision "),
        ("an interval that the version lacks", vec![(own("2/version"), "2")], "2"),
        ("IPv6 in version 2", vec![(own("2/version"), "2"), (own("2/vips"), "fe80::2")], "version"),
        ("another's address", vec![(own("2/vips"), "192.0.2.101")], "is router 1's"),
        ("a wrong list", vec![("/havip/node/gw1/vrids".into(), "1,2 3")], "vrids (revision "),
        (
            "another's VRID",
            vec![
                (own("b/vrid"), "1"),
                (own("b/vips"), "192.0.2.120"),
                ("/havip/node/gw1/vrids".into(), "1,2,3,4,b"),
            ],
            "VRID",
        ),
    ] {
        let before: Vec<Option<String>> =
            keys.iter().map(|(key, _)| site.cluster.get(key)).collect();
        keys.iter().for_each(|(key, value)| site.cluster.put(key, value));
        wait(what, || {
            let (code, said) = site.check(0);
            code == Some(4) && said.contains(named)
        });
        let mut program = Command::new(env!("CARGO_BIN_EXE_havip"));
        program.args(["check", "--etcd", "--endpoints", &site.cluster.endpoint(0)]);
        assert!(matches!(program.status().unwrap().code(), Some(3 | 4)), "{what}");
        site.changes += 1;
        let other = format!("198.51.100.{}", site.changes);
        site.cluster.put(&own("3/vips_excluded"), &other);
        wait("the others follow", || site.gateways.iter().any(|(host, _)| host.has(&other)));
        let holds = |vrid| site.gateways.iter().any(|(host, _)| host.has(&vip(vrid)));
        assert!(["1", "2", "3", "4"].into_iter().all(holds), "{what}");
        for ((key, _), before) in keys.iter().zip(before).rev() {
            match before {
                Some(value) => site.cluster.put(key, &value),
                None => site.cluster.del(key),
            }
        }
        wait("all is well again", || site.check(0).0 == Some(0) && site.check(1).0 == Some(0));
    }
    site.is_calm();
    Some("8 kinds of mistakes, none of them moved a VIP".to_owned())
}
