//! Beside the original havip on one etcd: what its API writes, mistakes included, becomes what its
//! agents would run, and its watchd finds the gateway keys that it expects.

#![cfg(feature = "etcd")]

#[macro_use]
#[path = "lab/cluster/mod.rs"]
mod cluster;
mod lab;
#[path = "lab/original.rs"]
mod original;

use std::process::Command;

use cluster::watch::{Change, Watch};
use cluster::{Cluster, Setup};
use havip::linux::netlink::Requests;
use lab::{Daemon, Host, Lan, wait};
use original::{Api, Instance, example, gateway, publish, rendered};

const VIP: &str = "192.0.2.100";
const KEY: &str = "/havip/vRouterGateway/100";

/// A switch with an etcd on it that has what an installation of the original begins with.
fn set_up(test: &str, version: &'static str) -> Option<(Lan, Cluster)> {
    let mut lan = Lan::new();
    let address = lan.address();
    let etcd = Cluster::start(test, &Setup { address, ..Setup::new(version) })?;
    Api(&etcd).begin();
    Some((lan, etcd))
}

/// A daemon with the example's file.
fn havip(etcd: &Cluster, host: &Host) -> Daemon {
    host.daemon_of(&example(etcd, host))
}

/// What a daemon runs, in an agent's words.
fn running(daemon: &Daemon) -> Vec<Instance> {
    let status = daemon.status();
    let text = |value: &serde_json::Value| value.as_str().unwrap().to_owned();
    let vips = |router: &serde_json::Value| {
        router["vips"].as_array().unwrap().iter().map(|vip| text(&vip["address"])).collect()
    };
    let routers = status["vrrp"]["routers"].as_array().unwrap().iter();
    routers
        .map(|router| {
            assert_eq!(router["version"], 2, "{router}");
            assert_eq!(router["priority"], 50, "{router}");
            Instance {
                vrid: router["vrid"].to_string(),
                interface: text(&router["interface"]),
                advert_interval: text(&router["advert_interval"]),
                vips: vips(router),
            }
        })
        .collect()
}

/// Waits until a daemon runs what the agent of its host would.
#[track_caller]
fn as_the_agent(etcd: &Cluster, daemon: &Daemon, node: &str) {
    let mut wanted = rendered(etcd, node).expect("the template has all of its keys");
    wanted.sort();
    let mut found = Vec::new();
    let same = lab::holds_within(lab::LIMIT, || {
        found = running(daemon);
        found == wanted
    });
    assert!(same, "{found:?} instead of {wanted:?}\n{}", daemon.log());
}

/// What a daemon says of its configuration.
fn problems(daemon: &Daemon) -> String {
    daemon.status()["config"]["problems"].to_string()
}

#[track_caller]
fn wait_for_problem(daemon: &Daemon, what: &str) {
    let came = lab::holds_within(lab::LIMIT, || problems(daemon).contains(what));
    assert!(came, "no \"{what}\" in {:#}", daemon.status()["config"]);
}

/// `havip` with these arguments: what it said, and its exit code.
fn run(host: &Host, arguments: &[&str]) -> (String, Option<i32>) {
    let mut program = Command::new(env!("CARGO_BIN_EXE_havip"));
    let output = host.within(|| program.args(arguments).output().unwrap());
    (String::from_utf8([output.stdout, output.stderr].concat()).unwrap(), output.status.code())
}

with_each_version! {
    isolated fn a_node_runs_what_the_originals_agent_would_whatever_its_api_writes(
        version: &'static str,
    ) {
        let Some((mut lan, etcd)) = set_up(module_path!(), version) else { return };
        let api = Api(&etcd);
        let host = lan.host();
        let daemon = havip(&etcd, &host);
        api.set_router("100", &[VIP, "192.0.2.101"], "", "").unwrap();
        api.set_router("101", &["192.0.2.110"], "2", "eth0").unwrap();
        api.set_node("gw1", "", &["100", "101"]);
        as_the_agent(&etcd, &daemon, "gw1");
        wait("all VIPs are there, bound or not", || {
            host.has(VIP) && host.has("192.0.2.101") && host.has("192.0.2.110")
        });

        // Bindings concern nobody here.
        let revision = daemon.status()["config"]["store"]["revision"].clone();
        api.bind("192.0.2.101", "ns1", "").unwrap();
        api.bind("192.0.2.101", "ns1", "web").unwrap();
        api.bind("192.0.2.101", "ns1", "mail").unwrap();
        api.bind("192.0.2.110", "ns2", "web").unwrap();
        assert!(api.bind("192.0.2.110", "ns2", "mail").is_err());
        assert!(api.set_router("100", &[VIP], "", "").is_err(), "its VIP is in use");
        api.unbind("192.0.2.101", "web").unwrap();
        assert!(api.unbind("192.0.2.101", "").is_err(), "a service is left");
        api.unbind("192.0.2.101", "mail").unwrap();
        api.unbind("192.0.2.101", "").unwrap();
        api.unbind("192.0.2.110", "web").unwrap();
        as_the_agent(&etcd, &daemon, "gw1");

        // A VIP that leaves stays behind as a binding, and nowhere else.
        api.set_router("100", &[VIP, "192.0.2.102"], "", "").unwrap();
        let orphan = etcd.get("/havip/binding/192.0.2.101/vrid");
        assert_eq!(orphan.as_deref(), Some("100"), "the original's mistake");
        as_the_agent(&etcd, &daemon, "gw1");
        wait("the VIPs follow", || host.has("192.0.2.102") && !host.has("192.0.2.101"));
        // It may even be bound, as the original offers it still.
        api.bind("192.0.2.101", "ns3", "web").unwrap();
        let (text, code) = run(&host, &["check", "--etcd", "--endpoints", &etcd.endpoint(0)]);
        assert!(text.contains("/havip/binding/192.0.2.101/vrid"), "{text}");
        assert_eq!(code, Some(0), "an orphan is harmless: {text}");

        // `none` deletes, and the default holds again.
        api.set_router("101", &["192.0.2.110"], "none", "none").unwrap();
        as_the_agent(&etcd, &daemon, "gw1");
        // A router moves to other nodes and back.
        api.set_node("gw1", "", &["101"]);
        as_the_agent(&etcd, &daemon, "gw1");
        wait("its VIPs go", || !host.has(VIP) && !host.has("192.0.2.102"));
        api.set_node("gw1", "", &["100", "101"]);
        as_the_agent(&etcd, &daemon, "gw1");
        wait("and come", || host.has(VIP) && host.has("192.0.2.102"));
        assert!(!host.has("192.0.2.101"), "orphaned, bound, and still nowhere");

        // Where the template fails the agent goes on with what it had, and so does havip.
        let before = running(&daemon);
        api.delete_router("101").unwrap();
        assert_eq!(rendered(&etcd, "gw1"), None);
        wait_for_problem(&daemon, "virtual_router/101");
        api.delete_node("gw1");
        wait_for_problem(&daemon, "a mistake is not an order");
        assert_eq!(running(&daemon), before);
        assert!(host.has(VIP) && host.has("192.0.2.110"));
        assert_ne!(daemon.status()["config"]["store"]["revision"], revision);
    }
}

isolated! {
    fn what_the_originals_api_lets_in_is_named_by_its_key_and_stops_no_good_router() {
        let Some((mut lan, etcd)) = set_up("vrids", "3.4") else { return };
        let api = Api(&etcd);
        let host = lan.host();
        let daemon = havip(&etcd, &host);
        api.set_router("100", &[VIP], "", "").unwrap();
        for bad in ["999", "a/b", "default", ""] {
            api.set_router(bad, &["192.0.2.120"], "", "").unwrap();
        }
        // The VIP of another router, and an interval that version 2 does not have.
        api.set_router("102", &["192.0.2.121", VIP], "", "").unwrap();
        api.set_router("103", &["192.0.2.122"], "0.5", "").unwrap();
        api.set_router("104", &["192.0.2.123"], "", "").unwrap();
        api.set_node("gw1", "", &["100", "102", "103", "104", "999", "a/b", "default", ""]);
        wait("the good ones run", || {
            let vrids = running(&daemon).into_iter().map(|instance| instance.vrid);
            vrids.eq(["100", "104"].map(str::to_owned))
        });
        for what in [
            "virtual_router/999",
            "/havip/node/gw1/vrids (revision",
            "\\\"a/b\\\"",
            "\\\"default\\\" is reserved",
            "/havip/virtual_routers/default/vips (revision",
            "/havip/virtual_routers/102/vips (revision",
            "192.0.2.100 on eth0 is router 100's already",
            "/havip/virtual_routers/103/advert_interval (revision",
        ] {
            wait_for_problem(&daemon, what);
        }
        wait("the good VIPs are there", || host.has(VIP) && host.has("192.0.2.123"));
        for vip in ["192.0.2.120", "192.0.2.121", "192.0.2.122"] {
            assert!(!host.has(vip), "{vip}");
        }
        // The same on another node, where nobody can refuse it.
        api.set_router("105", &["192.0.2.123"], "", "").unwrap();
        api.set_node("gw2", "", &["105"]);
        let (text, code) = run(&host, &["check", "--etcd", "--endpoints", &etcd.endpoint(0)]);
        assert_eq!(code, Some(3), "{text}");
        for key in [
            "/havip/virtual_routers//vips (revision",
            "/havip/virtual_routers/a/b/vips (revision",
            "virtual_router/999",
            "/havip/binding/192.0.2.120/vrid (revision",
            "virtual_router/105/vips: 192.0.2.123 on eth0: the same VIP as router 104's",
        ] {
            assert!(text.contains(key), "no {key} in\n{text}");
        }
    }
}

isolated! {
    fn hand_written_values_tombstones_and_both_spellings_are_read_as_meant() {
        let Some((mut lan, etcd)) = set_up("values", "3.4") else { return };
        let api = Api(&etcd);
        let host = lan.host();
        let daemon = havip(&etcd, &host);
        // As `echo 100 | base64` leaves them.
        etcd.put("/havip/virtual_routers/100/vips", "192.0.2.100,192.0.2.101\n");
        etcd.put("/havip/node/gw1/vrids", "100,101\n");
        etcd.put("/havip/node/gw1/node_ip", "192.0.2.9\n");
        // Tombstones that someone put instead of deleting.
        api.set_router("101", &["192.0.2.110"], "", "").unwrap();
        etcd.put("/havip/virtual_routers/101/interface", "none");
        etcd.put("/havip/virtual_routers/101/advert_interval", "none\n");
        let instance = |vrid: &str, vips: &[&str]| Instance {
            vrid: vrid.into(),
            interface: "eth0".into(),
            advert_interval: "1".into(),
            vips: vips.iter().map(ToString::to_string).collect(),
        };
        let wanted = [instance("100", &[VIP, "192.0.2.101"]), instance("101", &["192.0.2.110"])];
        wait("both run with the defaults", || running(&daemon) == wanted);
        wait("the gateway key has the node's address without a newline", || {
            etcd.get(KEY).as_deref() == Some("192.0.2.9,ff:ff:ff:ff:ff:ff")
        });

        // The README's spelling beside the deployed code's: merged, and the README's wins.
        etcd.put("/havip/virtual_router/100/vips", VIP);
        etcd.put("/havip/virtual_router/101/advert_interval", "2");
        wait("both spellings are read", || {
            let mut wanted = [instance("100", &[VIP]), instance("101", &["192.0.2.110"])];
            wanted[1].advert_interval = "2".into();
            running(&daemon) == wanted
        });
        let differs = "/havip/virtual_routers/100/vips";
        wait_for_problem(&daemon, differs);
        assert!(problems(&daemon).contains("differs from /havip/virtual_router/100/vips"));
        let mut status = vec!["status", "--config", daemon.config.to_str().unwrap()];
        let (text, code) = run(&host, &status);
        assert!(text.contains(differs) && code == Some(0), "{text}");
        status.push("--check");
        let (text, code) = run(&host, &status);
        assert!(text.contains(differs) && code == Some(4), "{text}");
        etcd.del("/havip/virtual_router/100/vips");
        wait("the deployed code's holds again", || running(&daemon)[0] == wanted[0]);
        assert!(!problems(&daemon).contains(differs));
        // `none` for the list is an order, unlike its absence.
        etcd.put("/havip/node/gw1/vrids", "none\n");
        wait("released", || running(&daemon).is_empty() && !host.has(VIP));
    }
}

/// What watchd makes of a gateway key.
fn as_watchd(value: &str) -> Option<(&str, &str)> {
    let parts: Vec<&str> = value.split(',').collect();
    let [node_ip, mac] = *parts else { return None };
    node_ip.parse::<std::net::IpAddr>().ok()?;
    let bytes: Vec<&str> = mac.split(':').collect();
    let hex = |byte: &&str| byte.len() == 2 && u8::from_str_radix(byte, 16).is_ok();
    (bytes.len() == 6 && bytes.iter().all(hex)).then_some((node_ip, mac))
}

/// What changed below the branches that the original reads.
fn changes(watch: &mut Watch<'_>) -> Vec<Change> {
    let ours = |(key, _): &Change| !key.starts_with("/havip/status/");
    watch.changes().into_iter().filter(ours).collect()
}

with_each_version! {
    isolated fn watchd_sees_one_put_that_it_can_read_per_takeover_and_no_stale_word_stays(
        version: &'static str,
    ) {
        let Some((mut lan, etcd)) = set_up(module_path!(), version) else { return };
        let api = Api(&etcd);
        let (a, b) = (lan.host(), lan.host());
        b.within(|| {
            let mut requests = Requests::open().unwrap();
            requests.add_veth(&lab::name("tun0"), &lab::name("tun1"), None).unwrap();
        });
        api.set_router("100", &[VIP], "", "").unwrap();
        api.set_node("gw1", "", &["100"]);
        api.set_node("gw2", "192.0.2.33", &["100"]);
        let mut watch = etcd.watch();
        let put = |value: &str| -> Change { (KEY.to_owned(), Some(value.to_owned())) };

        let mut first = havip(&etcd, &a);
        first.wait_for("active");
        wait("the key says who", || etcd.get(KEY) == Some(gateway(&a)));
        let second = havip(&etcd, &b);
        second.wait_for("backup");
        // A stale agent writes over it: the active one says again who it is, the backup says
        // nothing.
        publish(&etcd, &b, "100", "192.0.2.66,0a:00:00:00:00:66");
        wait("it is put right", || etcd.get(KEY) == Some(gateway(&a)));
        let heard = |daemon: &Daemon| {
            daemon.status()["vrrp"]["routers"][0]["counters"]["adverts_received"].as_u64().unwrap()
        };
        let before = heard(&second);
        wait("three more adverts", || heard(&second) >= before + 3);
        let mut wanted =
            vec![put(&gateway(&a)), put("192.0.2.66,0a:00:00:00:00:66"), put(&gateway(&a))];
        assert_eq!(changes(&mut watch), wanted);

        // With nobody active, or a backup only, a foreign word stands.
        assert!(first.stop().success());
        second.wait_for("active");
        wait("the key names the successor", || {
            etcd.get(KEY).is_some_and(|value| value.starts_with("192.0.2.33,"))
        });
        let first = havip(&etcd, &a);
        first.wait_for("backup");
        let before = heard(&first);
        wait("three more adverts", || heard(&first) >= before + 3);
        let value = etcd.get(KEY).unwrap();
        wanted.push(put(&value));
        assert_eq!(changes(&mut watch), wanted, "one PUT, and nothing else");
        let (node_ip, mac) = as_watchd(&value).expect("watchd can read it");
        assert_eq!(node_ip, "192.0.2.33");
        let tunnel = b.snapshot().links.into_iter().find(|link| link.name.as_str() == "tun0");
        assert_eq!(mac, tunnel.unwrap().mac.unwrap().to_string());
        assert_eq!(as_watchd(&gateway(&a)).unwrap().1, "ff:ff:ff:ff:ff:ff");
        let fields = etcd.ctl(&["get", KEY, "-w", "fields"]).unwrap();
        assert!(fields.contains("\"Lease\" : 0"), "{fields}");
    }
}
