//! Two gateways on a cluster of three members that is stopped, killed, cut, filled, restored,
//! compacted and guarded: what the gateways do with that, which is nothing on the network.
//!
//! Each scenario prints a line with its figures; `--nocapture` shows them.

#![cfg(feature = "etcd")]

#[macro_use]
mod lab;
#[path = "lab/cluster/mod.rs"]
mod cluster;

use std::collections::BTreeMap;
use std::process::Command;
use std::time::Duration;

use cluster::{Cluster, Setup};
use havip::config::NodeName;
use havip::daemon::socket;
use havip::linux::clock;
use havip::store::{Entry, snapshot};
use lab::listener::Listener;
use lab::{Daemon, Host, Lan, holds_within, wait};
use serde_json::Value;

/// Routers of the two gateways.
const ROUTERS: u8 = 4;

/// Each scenario with each version.
macro_rules! scenarios {
    ($($name:ident)*) => {
        $(mod $name {
            isolated! {
                fn etcd_3_4() {
                    super::run(super::$name, stringify!($name), "3.4");
                }
            }
            isolated! {
                fn etcd_3_5() {
                    super::run(super::$name, stringify!($name), "3.5");
                }
            }
        })*
    };
}

scenarios! {
    a_member_that_is_frozen_is_left_for_another
    a_leader_that_is_frozen_is_left_for_another
    a_majority_that_is_frozen_and_returns
    all_members_killed_and_back
    a_node_that_was_frozen_through_a_compaction
    a_dead_and_a_black_endpoint_beside_a_good_one
    a_right_that_is_taken_away_and_given_back
    a_full_database_and_a_failover_meanwhile
    a_restored_store_takes_nothing_away
    a_leader_that_moves_again_and_again
    two_boxes_with_one_name
    garbage_deletions_and_lost_leases
    a_bad_router_keeps_its_last_good_form_and_the_others_follow
    a_member_cut_off_from_the_others
    a_storm_of_faults_by_chance
}

fn run(
    scenario: fn(&'static str, &'static str) -> Option<String>,
    name: &'static str,
    version: &'static str,
) {
    let Some(figures) = scenario(name, version) else { return };
    println!("{name} | {version} | {figures}");
}

/// A LAN with a cluster, two gateways and a listener.
struct Site {
    lan: Lan,
    cluster: Cluster,
    gateways: Vec<(Host, Daemon)>,
    listener: Listener,
    /// Transitions of the gateways at the beginning.
    transitions: u64,
    /// Changes made so far.
    changes: u32,
}

/// Elections of a third of a second.
fn quick(version: &'static str) -> Setup {
    let extra = ["--heartbeat-interval=30", "--election-timeout=300"].map(str::to_owned);
    Setup { members: 3, extra: extra.into(), ..Setup::new(version) }
}

/// A daemon's local file beside its own tables.
fn local_file(host: &Host, endpoints: &[String], rest: &str) -> String {
    format!(
        "[etcd]\nendpoints = {endpoints:?}\n{rest}[snapshot]\npath = \"{}\"\ninterval = 0\n",
        host.folder().join("state").display()
    )
}

impl Site {
    fn start(test: &str, setup: Setup, login: Option<&str>) -> Option<Self> {
        let mut lan = Lan::new();
        let address = lan.address();
        let mut cluster = Cluster::start(test, &Setup { address, ..setup })?;
        cluster.put("/havip/virtual_router/default/interface", "eth0");
        cluster.put("/havip/virtual_router/default/advert_interval", "0.1");
        let vrids: Vec<String> = (1..=ROUTERS).map(|vrid| vrid.to_string()).collect();
        for vrid in &vrids {
            cluster.put(&format!("/havip/virtual_router/{vrid}/vips"), &vip(vrid));
        }
        for node in ["gw1", "gw2"] {
            cluster.put(&format!("/havip/node/{node}/vrids"), &vrids.join(","));
        }
        if let Some(password) = login {
            for node in ["gw1", "gw2"] {
                let own = format!("/havip/status/{node}");
                let grants = [
                    ("read", "/havip/", true),
                    ("readwrite", "/havip/vRouterGateway/", true),
                    ("readwrite", own.as_str(), false),
                ];
                cluster.add_user(node, Some(password), &grants);
            }
            cluster.enable_auth();
        }
        let hosts = [lan.host(), lan.host()];
        let listener = Listener::on(&lan.host());
        let gateways = hosts.map(|host| {
            let rest = login.map_or_else(String::new, |password| {
                let file = host.folder().join("password");
                std::fs::write(&file, password).unwrap();
                private(&file);
                let file = file.display();
                format!("username = \"gw{}\"\npassword_file = \"{file}\"\n", host.number())
            });
            let daemon = host.daemon(&local_file(&host, &cluster.endpoints(), &rest));
            (host, daemon)
        });
        let gateways = Vec::from(gateways);
        let mut site = Self { lan, cluster, gateways, listener, transitions: 0, changes: 0 };
        wait("every router is active on one gateway", || site.is_settled());
        site.transitions = site.count("master_transitions");
        site.listener.forget();
        Some(site)
    }

    /// Whether one gateway holds all VIPs, the gateway keys say so, and both report it.
    fn is_settled(&self) -> bool {
        let active = self.actives();
        let all = usize::from(ROUTERS);
        let gateways = self.cluster.dump("/havip/vRouterGateway/");
        let reports = self.cluster.dump("/havip/status/");
        active.iter().sum::<usize>() == all
            && active.contains(&all)
            && gateways.len() == all
            && reports.len() == 2
            && reports.values().all(|report| {
                let report: Value = serde_json::from_str(report).unwrap_or_default();
                report["routers"].as_object().is_some_and(|routers| {
                    routers.len() == all
                        && routers.values().all(|router| {
                            router["state"] == "active" || router["state"] == "backup"
                        })
                })
            })
    }

    /// Active routers of each gateway.
    fn actives(&self) -> Vec<usize> {
        let active = |daemon: &Daemon| {
            let status = daemon.status();
            let routers = status["vrrp"]["routers"].as_array().cloned().unwrap_or_default();
            routers.iter().filter(|router| router["state"] == "active").count()
        };
        self.gateways.iter().map(|(_, daemon)| active(daemon)).collect()
    }

    /// The gateway that is active.
    fn active(&self) -> usize {
        let actives = self.actives();
        actives.iter().position(|active| *active == usize::from(ROUTERS)).expect("one is active")
    }

    fn count(&self, counter: &str) -> u64 {
        let of = |daemon: &Daemon| -> u64 {
            let status = daemon.status();
            let routers = status["vrrp"]["routers"].as_array().cloned().unwrap_or_default();
            routers.iter().filter_map(|router| router["counters"][counter].as_u64()).sum()
        };
        self.gateways.iter().map(|(_, daemon)| of(daemon)).sum()
    }

    fn store(&self, gateway: usize) -> Value {
        self.gateways[gateway].1.status()["config"]["store"].clone()
    }

    fn is_connected(&self, gateway: usize) -> bool {
        self.store(gateway)["connected"] == true
    }

    /// The member that a gateway speaks with.
    fn member(&self, gateway: usize) -> usize {
        let endpoint = self.store(gateway)["endpoint"].as_str().unwrap_or_default().to_owned();
        let of = |index: &usize| endpoint.ends_with(&self.cluster.address(*index).to_string());
        (0..self.cluster.len()).find(of).expect("a member's endpoint")
    }

    /// What `havip status --check` says of a gateway.
    fn check(&self, gateway: usize) -> (String, Option<i32>) {
        let mut program = Command::new(env!("CARGO_BIN_EXE_havip"));
        program.args(["status", "--check", "--config"]).arg(&self.gateways[gateway].1.config);
        let output = program.output().unwrap();
        (String::from_utf8(output.stdout).unwrap(), output.status.code())
    }

    /// Makes a change that both gateways must take over, and waits until the active one's kernel
    /// and both configurations have it. Returns how long that took.
    fn change(&mut self) -> Duration {
        self.changes += 1;
        let excluded = format!("198.51.100.{}", self.changes);
        let begin = clock::now();
        self.cluster.put("/havip/virtual_router/1/vips_excluded", &excluded);
        wait("a change arrives", || {
            self.gateways.iter().any(|(host, _)| host.has(&excluded)) && self.agrees()
        });
        clock::now().since(begin)
    }

    /// Whether both gateways have exactly what the store has.
    fn agrees(&self) -> bool {
        let routers = self.cluster.dump("/havip/virtual_router/");
        self.gateways.iter().all(|(_, daemon)| {
            let Ok(body) = socket::get(&daemon.socket, "/v1/config") else { return false };
            let shown: Value = serde_json::from_slice(&body).unwrap();
            let mut values = BTreeMap::new();
            for value in shown["values"].as_array().into_iter().flatten() {
                let text = |key: &str| value[key].as_str().unwrap_or_default().to_owned();
                if text("origin").starts_with("/havip/") {
                    values.insert(format!("/havip/{}", text("path")), text("value"));
                }
            }
            values == routers
        })
    }

    /// Checks that nothing moved on the network, and that no event was lost.
    fn is_calm(&mut self) {
        assert_eq!(self.count("master_transitions"), self.transitions, "a transition");
        assert_eq!(self.count("priority_zero_sent"), 0);
        self.listener.read();
        assert_eq!(self.listener.farewells, 0);
        assert_eq!(self.listener.sources.len(), 1, "{:?}", self.listener.sources);
        wait("both have what the store has", || self.agrees());
        for (host, daemon) in &self.gateways {
            assert!(!daemon.log().contains("panic"), "{}\n{}", host.ip(), daemon.log());
        }
        wait("both are well", || self.check(0).1 == Some(0) && self.check(1).1 == Some(0));
    }
}

fn vip(vrid: &str) -> String {
    format!("192.0.2.10{vrid}")
}

fn private(file: &std::path::Path) {
    use std::os::unix::fs::PermissionsExt as _;
    std::fs::set_permissions(file, std::fs::Permissions::from_mode(0o600)).unwrap();
}

fn ms(duration: Duration) -> String {
    format!("{} ms", duration.as_millis())
}

/// Freezes the member that gateway 0 speaks with, which leads or not.
fn frozen(test: &'static str, version: &'static str, leads: bool) -> Option<String> {
    let mut site = Site::start(test, quick(version), None)?;
    let member = site.member(0);
    let other = (member + 1) % 3;
    let wanted = if leads { member } else { other };
    if site.cluster.leader() != wanted {
        site.cluster.move_leader(wanted);
    }
    site.change();
    let begin = clock::now();
    site.cluster.stop(member);
    wait("another member is spoken with", || site.is_connected(0) && site.member(0) != member);
    let moved = clock::now().since(begin);
    // A new leader is there before the old one's silence was noticed.
    site.cluster.leader();
    let changed = site.change();
    site.cluster.cont(member);
    site.change();
    site.is_calm();
    Some(format!("on another member after {}, next change {}", ms(moved), ms(changed)))
}

fn a_member_that_is_frozen_is_left_for_another(
    test: &'static str,
    version: &'static str,
) -> Option<String> {
    frozen(test, version, false)
}

fn a_leader_that_is_frozen_is_left_for_another(
    test: &'static str,
    version: &'static str,
) -> Option<String> {
    frozen(test, version, true)
}

fn a_majority_that_is_frozen_and_returns(
    test: &'static str,
    version: &'static str,
) -> Option<String> {
    let mut site = Site::start(test, quick(version), None)?;
    let begin = clock::now();
    site.cluster.stop(0);
    site.cluster.stop(1);
    wait("both notice", || !site.is_connected(0) && !site.is_connected(1));
    let noticed = clock::now().since(begin);
    let (said, code) = site.check(0);
    assert_eq!(code, Some(4), "{said}");
    assert!(said.contains("not connected for"), "{said}");
    site.listener.forget();
    wait("adverts go on", || site.listener.heard(1) >= 10);
    let begin = clock::now();
    site.cluster.cont(0);
    site.cluster.cont(1);
    wait("both are back", || site.is_connected(0) && site.is_connected(1));
    let back = clock::now().since(begin);
    site.cluster.leader();
    site.change();
    site.is_calm();
    Some(format!("noticed by both after {}, back after {}", ms(noticed), ms(back)))
}

fn all_members_killed_and_back(test: &'static str, version: &'static str) -> Option<String> {
    let mut site = Site::start(test, quick(version), None)?;
    site.change();
    (0..3).for_each(|index| site.cluster.kill(index));
    wait("both notice", || !site.is_connected(0) && !site.is_connected(1));
    // The backup starts anew meanwhile, from what it has on disk.
    let backup = 1 - site.active();
    let (host, daemon) = &mut site.gateways[backup];
    let before: u64 = daemon.status()["vrrp"]["routers"][0]["counters"]["master_transitions"]
        .as_u64()
        .unwrap_or(0);
    assert_eq!(before, 0, "a backup that was never active");
    assert!(daemon.stop().success());
    let begin = clock::now();
    *daemon = host.daemon(&local_file(host, &site.cluster.endpoints(), ""));
    wait("it runs from the snapshot", || {
        let status = site.gateways[backup].1.status();
        status["config"]["store"]["source"] == "snapshot"
            && status["vrrp"]["routers"]
                .as_array()
                .is_some_and(|all| all.len() == usize::from(ROUTERS))
    });
    let started = clock::now().since(begin);
    let (said, code) = site.check(backup);
    assert_eq!(code, Some(4), "{said}");
    site.listener.forget();
    wait("adverts go on", || site.listener.heard(1) >= 10);
    (0..3).for_each(|index| site.cluster.spawn(index));
    site.cluster.wait_healthy();
    let begin = clock::now();
    wait("both are back", || site.is_connected(0) && site.is_connected(1));
    let back = clock::now().since(begin);
    site.change();
    site.is_calm();
    Some(format!("from the snapshot after {}, back after {}", ms(started), ms(back)))
}

fn a_node_that_was_frozen_through_a_compaction(
    test: &'static str,
    version: &'static str,
) -> Option<String> {
    let mut site = Site::start(test, quick(version), None)?;
    let backup = 1 - site.active();
    site.cluster.put("/havip/virtual_router/2/priority", "101");
    wait("it arrives", || site.agrees());
    site.gateways[backup].1.signal("-STOP");
    for round in 0..100 {
        site.cluster.put("/havip/virtual_router/3/vips_excluded", &format!("203.0.113.{round}"));
    }
    site.cluster.del("/havip/virtual_router/2/priority");
    site.cluster.compact();
    let begin = clock::now();
    site.gateways[backup].1.signal("-CONT");
    wait("both have what the store has", || site.agrees());
    let caught_up = clock::now().since(begin);
    site.change();
    site.is_calm();
    Some(format!("agrees after {}", ms(caught_up)))
}

fn a_dead_and_a_black_endpoint_beside_a_good_one(
    test: &'static str,
    version: &'static str,
) -> Option<String> {
    let mut site = Site::start(test, quick(version), None)?;
    let backup = 1 - site.active();
    let good = site.cluster.address(0).to_string();
    let (host, daemon) = &mut site.gateways[backup];
    host.within(|| {
        for arguments in [
            "add table ip fault",
            "add chain ip fault out { type filter hook output priority 0 ; }",
            "add rule ip fault out tcp dport 9 drop",
        ] {
            assert!(Command::new("nft").args(arguments.split(' ')).status().unwrap().success());
        }
    });
    let endpoints = ["192.0.2.254:1", "192.0.2.254:9", &good].map(str::to_owned);
    let mut worst = Duration::ZERO;
    // The first one is chosen by chance.
    for _ in 0..4 {
        assert!(daemon.stop().success());
        let begin = clock::now();
        *daemon = host.daemon(&local_file(host, &endpoints, ""));
        wait("it speaks with the good one", || {
            daemon.status()["config"]["store"]["source"] == "etcd"
        });
        worst = worst.max(clock::now().since(begin));
    }
    site.change();
    site.is_calm();
    Some(format!("ready after {} at most of 4 starts", ms(worst)))
}

fn a_right_that_is_taken_away_and_given_back(
    test: &'static str,
    version: &'static str,
) -> Option<String> {
    let mut site = Site::start(test, quick(version), Some("sesame"))?;
    site.change();
    // Another's role changes the revision of the rights, which makes no difference.
    let link = site.store(0)["link_since_ms"].as_u64();
    site.cluster.add_user("other", Some("x"), &[("read", "/elsewhere", false)]);
    site.change();
    assert!(site.store(0)["link_since_ms"].as_u64() >= link, "it went on on its connection");
    let begin = clock::now();
    site.cluster.revoke("gw1", "/havip/", true);
    wait("it shows", || {
        site.store(0)["error"].as_str().is_some_and(|error| error.contains("permission denied"))
    });
    let noticed = clock::now().since(begin);
    let (said, code) = site.check(0);
    assert_eq!(code, Some(4), "{said}");
    assert!(said.contains("permission denied"), "{said}");
    site.listener.forget();
    wait("adverts go on", || site.listener.heard(1) >= 10);
    let begin = clock::now();
    site.cluster.grant("gw1", ("read", "/havip/", true));
    wait("it is back", || site.is_connected(0) && site.store(0)["error"].is_null());
    let back = clock::now().since(begin);
    site.change();
    site.is_calm();
    Some(format!("noticed after {}, back after {}", ms(noticed), ms(back)))
}

fn a_full_database_and_a_failover_meanwhile(
    test: &'static str,
    version: &'static str,
) -> Option<String> {
    let mut setup = quick(version);
    setup.extra.push("--quota-backend-bytes=2097152".into());
    let mut site = Site::start(test, setup, None)?;
    let before = site.active();
    site.cluster.fill_quota();
    site.gateways[before].1.signal("-KILL");
    site.gateways[before].1.ended();
    let after = 1 - before;
    wait("the other takes over", || {
        let (host, daemon) = &site.gateways[after];
        daemon.state() == "active" && host.has(&vip("1"))
    });
    wait("what is not written is said", || {
        site.store(after)["refused"].to_string().contains("database full")
    });
    let (said, code) = site.check(after);
    assert_eq!(code, Some(4), "{said}");
    assert!(site.is_connected(after), "reading goes on");
    let begin = clock::now();
    site.cluster.disarm();
    let own = format!("{},ff:ff:ff:ff:ff:ff", site.gateways[after].0.ip());
    wait("it is written", || {
        site.cluster.dump("/havip/vRouterGateway/").values().all(|value| *value == own)
    });
    let written = clock::now().since(begin);
    wait("and well", || site.check(after).1 == Some(0));
    Some(format!("written {} after the alarm was disarmed", ms(written)))
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
    let (said, code) = site.check(0);
    assert_eq!(code, Some(4), "{said}");
    assert!(said.contains("held: 2, 9") && said.contains("restored"), "{said}");
    // Through a restart, too.
    let standby = 1 - site.active_of_nine();
    let (host, daemon) = &mut site.gateways[standby];
    assert!(daemon.stop().success());
    *daemon = host.daemon(&local_file(host, &site.cluster.endpoints(), ""));
    wait("it holds the same", || held(&site, standby) == "[\"2\",\"9\"]");
    // An order counts at once, and what is put back is not held any more.
    site.cluster.put("/havip/virtual_router/2/vips", "192.0.2.102,192.0.2.113");
    wait("the order is followed", || at("192.0.2.113")(&site) && !at("192.0.2.112")(&site));
    wait("one is left", || (0..2).all(|gateway| held(&site, gateway) == "[\"9\"]"));
    // What was ordered since stays ordered after a restart, and what is held is held, also where
    // etcd comes later than the start waits for it.
    let (host, daemon) = &mut site.gateways[standby];
    let file = host.folder().join("state/snapshot.toml");
    wait("it is on disk what is held", || {
        std::fs::read_to_string(&file).is_ok_and(|text| text.contains("held = "))
    });
    assert!(daemon.stop().success());
    (0..3).for_each(|index| site.cluster.stop(index));
    *daemon = host.daemon(&local_file(host, &site.cluster.endpoints(), ""));
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
        assert_eq!(String::from_utf8(output.stdout).unwrap(), "let go: 9\n");
    }
    wait("it is released", || !at("192.0.2.109")(&site));
    site.change();
    site.listener.read();
    assert_eq!(site.listener.farewells, 1, "of the router that an operator let go");
    wait("both are well", || site.check(0).1 == Some(0) && site.check(1).1 == Some(0));
    assert!(site.agrees());
    Some(format!("etcd restored in {}, nothing released", ms(restored)))
}

impl Site {
    /// The gateway that is active, of five routers.
    fn active_of_nine(&self) -> usize {
        usize::from(self.actives()[1] > 0)
    }
}

fn a_leader_that_moves_again_and_again(
    test: &'static str,
    version: &'static str,
) -> Option<String> {
    let mut site = Site::start(test, quick(version), None)?;
    let mut worst = Duration::ZERO;
    for _ in 0..8 {
        let leader = site.cluster.leader();
        site.cluster.move_leader((leader + 1) % 3);
        worst = worst.max(site.change());
    }
    site.is_calm();
    Some(format!("8 moves, slowest change {}", ms(worst)))
}

fn two_boxes_with_one_name(test: &'static str, version: &'static str) -> Option<String> {
    let mut site = Site::start(test, quick(version), None)?;
    let third = site.lan.host();
    let text = local_file(&third, &site.cluster.endpoints(), "");
    let own = format!("node = \"gw{}\"", third.number());
    let config = third.folder().join("havip.toml");
    std::fs::write(&config, third.config(&text).replace(&own, "node = \"gw1\"")).unwrap();
    let mut program = Command::new(env!("CARGO_BIN_EXE_havip"));
    program.args(["run", "--config"]).arg(&config);
    let log = third.folder().join("log");
    let mut child = third.start(&mut program, &log);
    let socket = third.folder().join("run/havip.sock");
    let status = || -> Option<Value> {
        serde_json::from_slice(&socket::get(&socket, "/v1/status").ok()?).ok()
    };
    wait("it is refused", || {
        status().is_some_and(|status| {
            let why = status["config"]["store"]["name_taken"].to_string();
            why.contains("has this node's name") && why.contains(&site.gateways[0].0.ip())
        })
    });
    assert_eq!(status().unwrap()["vrrp"]["routers"].as_array().map(Vec::len), Some(0));
    assert!(site.store(0)["name_taken"].is_null(), "who was there first is not disturbed");
    site.change();
    site.is_calm();
    // The first one goes, and its name is free.
    let begin = clock::now();
    let killed = &mut site.gateways[0].1;
    killed.kill();
    wait("the other takes the name once the lease has ended", || {
        status().is_some_and(|status| {
            status["config"]["store"]["name_taken"].is_null()
                && status["vrrp"]["routers"].as_array().map(Vec::len) == Some(usize::from(ROUTERS))
        })
    });
    let taken = clock::now().since(begin);
    let _ = child.kill();
    let _ = child.wait();
    Some(format!("refused; the name was free {} after the first was killed", ms(taken)))
}

fn garbage_deletions_and_lost_leases(test: &'static str, version: &'static str) -> Option<String> {
    let mut site = Site::start(test, quick(version), None)?;
    // Garbage concerns one router.
    site.cluster.put("/havip/virtual_router/2/vips", "\u{1}\u{2}not an address");
    site.cluster.put("/havip/virtual_router/2/nonsense", "1");
    wait("it is named with key and revision", || {
        let (said, code) = site.check(0);
        code == Some(4) && said.contains("/havip/virtual_router/2/vips (revision ")
    });
    site.cluster.put("/havip/virtual_router/3/vips_excluded", "203.0.113.3");
    wait("the others follow", || site.gateways.iter().any(|(host, _)| host.has("203.0.113.3")));
    assert!(site.gateways.iter().any(|(host, _)| host.has(&vip("2"))), "the last good form");
    site.cluster.del("/havip/virtual_router/2/nonsense");
    site.cluster.put("/havip/virtual_router/2/vips", &vip("2"));
    wait("all is well again", || site.check(0).1 == Some(0) && site.check(1).1 == Some(0));

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
            let (said, code) = site.check(0);
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
        wait("all is well again", || site.check(0).1 == Some(0) && site.check(1).1 == Some(0));
    }
    site.is_calm();
    Some("8 kinds of mistakes, none of them moved a VIP".to_owned())
}

fn a_member_cut_off_from_the_others(test: &'static str, version: &'static str) -> Option<String> {
    let setup = Setup { partitions: true, ..quick(version) };
    let mut site = Site::start(test, setup, None)?;
    let member = site.member(0);
    let begin = clock::now();
    site.cluster.partition(member);
    wait("it is left for another", || site.is_connected(0) && site.member(0) != member);
    let moved = clock::now().since(begin);
    wait("by both", || site.is_connected(1) && site.member(1) != member);
    site.cluster.leader();
    let changed = site.change();
    site.cluster.join(member);
    site.change();
    site.is_calm();
    Some(format!("on another member after {}, next change {}", ms(moved), ms(changed)))
}

/// Faults by chance for `HAVIP_SOAK_SECONDS` (10), from `HAVIP_SEED`: at the end the store, what is
/// on disk and what runs are the same, and the gateways are no larger.
fn a_storm_of_faults_by_chance(test: &'static str, version: &'static str) -> Option<String> {
    let number = |name: &str, default: u64| {
        std::env::var(name).map_or(default, |text| text.parse().expect("a number"))
    };
    let seed = number("HAVIP_SEED", 1);
    let length = Duration::from_secs(number("HAVIP_SOAK_SECONDS", 10));
    let setup = Setup { partitions: true, ..quick(version) };
    let mut site = Site::start(test, setup, None)?;
    site.change();
    let sizes = |site: &Site| -> Vec<(usize, f64)> {
        let of = |(_, daemon): &(Host, Daemon)| size_of_process(daemon.pid());
        site.gateways.iter().map(of).collect()
    };
    let before = sizes(&site);
    let mut random = Random(seed);
    let mut faults = [0_u32; 8];
    let mut broken: Option<(usize, usize)> = None;
    let end = clock::now() + length;
    while clock::now() < end {
        let what = random.below(8);
        let member = random.below(3);
        // One at a time is out of order, most often: without a majority nothing can be changed.
        if let Some((kind, member)) = broken.take() {
            match kind {
                0 => site.cluster.cont(member),
                1 => site.cluster.restart(member),
                _ => site.cluster.join(member),
            }
            site.cluster.wait_healthy();
        }
        match what {
            0 => site.cluster.stop(member),
            1 => site.cluster.kill(member),
            2 => site.cluster.partition(member),
            3 => {
                let leader = site.cluster.leader();
                site.cluster.move_leader((leader + 1) % 3);
            }
            // A request that was done and is asked for once more, as etcdctl does, is refused.
            4 => {
                let revision = site.cluster.revision().to_string();
                let _ = site.cluster.ctl(&["compact", "--physical", &revision]);
            }
            5 => _ = site.cluster.ctl(&["defrag"]),
            6 => site.gateways[random.below(2)].1.signal("-HUP"),
            _ => {}
        }
        faults[what] += 1;
        if what < 3 {
            broken = Some((what, member));
            site.cluster.leader();
        }
        for _ in 0..=random.below(4) {
            let router = random.below(usize::from(ROUTERS)) + 1;
            let key = format!("/havip/virtual_router/{router}/vips_excluded");
            let value = format!("203.0.113.{}", router * 40 + random.below(40));
            // What is in doubt after a fault is not lost, only not known.
            let _ = match random.below(4) {
                0 => site.cluster.ctl(&["del", "--", &key]),
                1 => site.cluster.ctl(&["put", "--", &key, "garbage"]),
                _ => site.cluster.ctl(&["put", "--", &key, &value]),
            };
        }
    }
    if let Some((kind, member)) = broken {
        match kind {
            0 => site.cluster.cont(member),
            1 => site.cluster.restart(member),
            _ => site.cluster.join(member),
        }
    }
    site.cluster.wait_healthy();
    site.cluster.leader();
    for router in 1..=ROUTERS {
        site.cluster.del(&format!("/havip/virtual_router/{router}/vips_excluded"));
    }
    site.change();
    site.is_calm();
    wait("what is on disk is what the store has", || site.is_on_disk());
    let after = sizes(&site);
    for (before, after) in before.iter().zip(&after) {
        assert!(after.0 <= before.0 + 4, "descriptors: {before:?}, then {after:?}");
        assert!(after.1 <= before.1 + 4.0, "MiB: {before:?}, then {after:?}");
    }
    Some(format!(
        "seed {seed}, {length:?}: stop, kill, cut, move, compact, defrag, reload, none {faults:?}; \
         {} changes; descriptors and MiB before {before:.1?}, after {after:.1?}",
        site.cluster.revision()
    ))
}

/// Open descriptors and private memory in MiB.
fn size_of_process(pid: u32) -> (usize, f64) {
    let descriptors = std::fs::read_dir(format!("/proc/{pid}/fd")).unwrap().count();
    let rollup = std::fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).unwrap();
    let line = rollup.lines().find_map(|line| line.strip_prefix("Private_Dirty:")).unwrap();
    let kib: f64 = line.trim().trim_end_matches(" kB").parse().unwrap();
    (descriptors, kib / 1024.0)
}

/// Numbers by chance, the same for the same seed (splitmix64).
struct Random(u64);

impl Random {
    fn below(&mut self, end: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ (z >> 31)) % end as u64) as usize
    }
}

impl Drop for Site {
    fn drop(&mut self) {
        if std::thread::panicking() {
            for (_, daemon) in &self.gateways {
                eprintln!("{}", daemon.log());
            }
        }
    }
}

impl Site {
    /// Whether the snapshots hold what the store has for each node.
    fn is_on_disk(&self) -> bool {
        self.gateways.iter().all(|(host, _)| {
            let node = NodeName::new(&format!("gw{}", host.number())).unwrap();
            let mut keys = self.cluster.dump("/havip/virtual_router/");
            keys.extend(self.cluster.dump(&format!("/havip/node/{node}/")));
            let entries: Vec<Entry> = keys
                .into_iter()
                .map(|(key, value)| Entry {
                    key: key.into_bytes(),
                    value: value.into_bytes(),
                    mod_revision: 1,
                })
                .collect();
            let wanted = snapshot::body(&snapshot::kept("/havip/", &entries));
            let (found, refused) = snapshot::load(&host.folder().join("state"), &node);
            refused.is_empty() && found.is_some_and(|found| snapshot::body(&found.tree) == wanted)
        })
    }
}

#[test]
fn a_condition_that_never_holds_is_noticed() {
    assert!(!holds_within(Duration::from_millis(10), || false));
}
