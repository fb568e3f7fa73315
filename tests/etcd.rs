//! Gateways driven by a real etcd.

#![cfg(feature = "etcd")]

#[macro_use]
#[path = "lab/cluster/mod.rs"]
mod cluster;
mod lab;

use std::process::Command;

use cluster::{Cluster, Setup};
use lab::listener::Listener;
use lab::{Daemon, Host, Lan, wait};

const VIP: &str = "192.0.2.100";

/// A switch with an etcd on it.
fn set_up(test: &str, version: &'static str) -> Option<(Lan, Cluster)> {
    let mut lan = Lan::new();
    let address = lan.address();
    let etcd = Cluster::start(test, &Setup { address, ..Setup::new(version) })?;
    Some((lan, etcd))
}

/// Starts a daemon that has nothing but this etcd.
fn gateway(host: &Host, etcd: &Cluster) -> Daemon {
    host.daemon(&format!(
        "[etcd]\nendpoints = [\"{}\"]\n[snapshot]\npath = \"{}\"\ninterval = 0\n",
        etcd.endpoint(0),
        host.folder().join("state").display()
    ))
}

with_each_version! {
    isolated fn what_etcdctl_puts_becomes_an_address_on_the_active_gateway(version: &'static str) {
        let Some((mut lan, etcd)) = set_up(module_path!(), version) else { return };
        let (a, b) = (lan.host(), lan.host());
        let (first, second) = (gateway(&a, &etcd), gateway(&b, &etcd));
        // The seed's tables, as its scripts put them.
        etcd.put("/havip/virtual_router/default/interface", "eth0");
        etcd.put("/havip/virtual_router/default/advert_interval", "0.1");
        etcd.put("/havip/virtual_router/100/vips", VIP);
        for (host, priority) in [(&a, "200"), (&b, "100")] {
            let node = format!("/havip/node/gw{}", host.number());
            etcd.put(&format!("{node}/virtual_router/100/priority"), priority);
            etcd.put(&format!("{node}/vrids"), "100");
        }
        first.wait_for("active");
        second.wait_for("backup");
        wait("the VIP is on the active gateway", || a.has(VIP) && !b.has(VIP));
        let active = format!("{},ff:ff:ff:ff:ff:ff", a.ip());
        let named = || etcd.get("/havip/vRouterGateway/100").as_ref() == Some(&active);
        wait("the gateway key says who", named);

        etcd.put("/havip/virtual_router/100/vips", "192.0.2.100,192.0.2.101");
        wait("a second VIP comes", || a.has("192.0.2.101"));
        assert!(a.has(VIP));

        // A bad value changes nothing, and says so.
        etcd.put("/havip/virtual_router/100/priority", "many");
        etcd.put("/havip/node/gw1/virtual_router/100/priority", "none");
        wait("it is named", || {
            first.status()["config"]["problems"].to_string().contains("virtual_router/100/priority")
                || second.status()["config"]["problems"].to_string().contains("many")
        });
        assert!(a.has(VIP) && a.has("192.0.2.101"));
        etcd.put("/havip/virtual_router/100/priority", "100");

        // A stale agent's word over ours is put right.
        etcd.put("/havip/vRouterGateway/100", "10.9.9.9,00:00:00:00:00:00");
        wait("the gateway key is put right", named);

        // An order is an order.
        etcd.put("/havip/node/gw1/vrids", "none");
        etcd.put("/havip/node/gw2/vrids", "none");
        wait("released", || !a.has(VIP) && !b.has(VIP));
    }
}

with_each_version! {
    isolated fn losing_etcd_changes_nothing_and_its_return_moves_only_what_changed(
        version: &'static str,
    ) {
        let Some((mut lan, mut etcd)) = set_up(module_path!(), version) else { return };
        let a = lan.host();
        let daemon = gateway(&a, &etcd);
        etcd.put("/havip/virtual_router/default/interface", "eth0");
        etcd.put("/havip/virtual_router/default/advert_interval", "0.1");
        etcd.put("/havip/virtual_router/100/vips", VIP);
        etcd.put("/havip/virtual_router/101/vips", "192.0.2.101");
        etcd.put("/havip/node/gw1/vrids", "100,101");
        daemon.wait_for("active");
        wait("both are there", || a.has(VIP) && a.has("192.0.2.101"));
        let mut listener = Listener::on(&lan.host());
        etcd.kill(0);
        wait("the loss shows", || daemon.status()["config"]["store"]["connected"] == false);
        // Through the loss, a time without it, and its return.
        wait("adverts go on", || listener.heard(100) >= 30 && listener.heard(101) >= 30);
        assert!(a.has(VIP) && a.has("192.0.2.101"));
        etcd.restart(0);
        wait("it is back", || daemon.status()["config"]["store"]["connected"] == true);
        let before = listener.heard(100);
        wait("and on", || listener.heard(100) > before && listener.heard(101) > before);
        assert_eq!(listener.farewells, 0);
        assert_eq!(listener.sources, [lab::ip(&a.ip())].into());
        etcd.put("/havip/virtual_router/101/vips", "192.0.2.102");
        wait("the change comes", || a.has("192.0.2.102") && !a.has("192.0.2.101"));
        let status = daemon.status();
        for router in status["vrrp"]["routers"].as_array().unwrap() {
            assert_eq!(router["counters"]["master_transitions"], 1, "{router}");
            assert_eq!(router["counters"]["priority_zero_sent"], 0);
        }
        // Everything vanishing is a mistake, not an order.
        etcd.del_prefix("/havip/");
        wait("it alarms", || {
            daemon.status()["config"]["problems"].to_string().contains("a mistake is not an order")
        });
        assert!(a.has(VIP) && a.has("192.0.2.102"));
    }
}

with_each_version! {
    isolated fn export_and_import_are_each_others_way_back_and_a_wrong_file_writes_nothing(
        version: &'static str,
    ) {
        let Some((mut lan, etcd)) = set_up(module_path!(), version) else { return };
        let a = lan.host();
        let endpoint = etcd.endpoint(0);
        let havip = |arguments: &[&str]| {
            let mut program = Command::new(env!("CARGO_BIN_EXE_havip"));
            program.args(arguments).args(["--endpoints", &endpoint]);
            let output = a.within(|| program.output().unwrap());
            let text = String::from_utf8([output.stdout, output.stderr].concat()).unwrap();
            (text, output.status.code())
        };
        let file = a.folder().join("wanted.toml");
        let path = file.to_str().unwrap();
        let wanted = "[virtual_router.100]\ninterface = \"eth0\"\nvips = [\"192.0.2.100\"]\n\
                      version = 2\nauth_pass = \"h1dden!\"\n[node.gw1]\nvrids = [100]\n";
        // The deployed code's spelling stays with a router that has it.
        etcd.put("/havip/virtual_routers/100/interface", "eth1");
        std::fs::write(&file, wanted).unwrap();
        let (text, code) = havip(&["import", "--dry-run", path]);
        assert_eq!(code, Some(0), "{text}");
        assert!(text.contains("/havip/virtual_routers/100/vips") && !text.contains("h1dden!"));
        assert_eq!(etcd.get("/havip/node/gw1/vrids"), None);
        let (text, code) = havip(&["import", path]);
        assert_eq!(code, Some(0), "{text}");
        assert!(text.contains("put 5 key(s)"), "{text}");
        assert_eq!(etcd.get("/havip/virtual_routers/100/vips").as_deref(), Some(VIP));
        assert_eq!(etcd.get("/havip/node/gw1/vrids").as_deref(), Some("100"));
        let (text, code) = havip(&["import", path]);
        assert_eq!(code, Some(0));
        assert!(text.contains("all of it already"), "{text}");
        let (text, code) = havip(&["check", "--etcd"]);
        assert_eq!(code, Some(0), "{text}");

        let (text, code) = havip(&["export"]);
        assert_eq!(code, Some(0), "{text}");
        assert!(text.contains("vips = \"192.0.2.100\"") && !text.contains("h1dden!"), "{text}");
        let out = a.folder().join("out.toml");
        let (text, code) = havip(&["export", out.to_str().unwrap()]);
        assert_eq!(code, Some(0), "{text}");
        let mode = std::os::unix::fs::MetadataExt::mode(&std::fs::metadata(&out).unwrap());
        assert_eq!(mode & 0o777, 0o600);
        etcd.del_prefix("/havip/");
        let (text, code) = havip(&["import", out.to_str().unwrap()]);
        assert_eq!(code, Some(0), "{text}");
        assert_eq!(etcd.get("/havip/virtual_router/100/auth_pass").as_deref(), Some("h1dden!"));

        std::fs::write(&file, wanted.replace("= 2", "= 4")).unwrap();
        let (text, code) = havip(&["import", path]);
        assert_eq!(code, Some(3), "{text}");
        assert_eq!(etcd.get("/havip/virtual_router/100/version").as_deref(), Some("2"));
        etcd.put("/havip/virtual_router/100/priority", "1000");
        let (text, code) = havip(&["check", "--etcd"]);
        assert_eq!(code, Some(3), "{text}");
        assert!(text.contains("/havip/virtual_router/100/priority (revision"), "{text}");
    }
}

/// Runs a command against this etcd.
fn havip_at(host: &Host, etcd: &Cluster, arguments: &[&str]) -> (String, Option<i32>) {
    let mut program = Command::new(env!("CARGO_BIN_EXE_havip"));
    program.args(arguments).args(["--endpoints", &etcd.endpoint(0)]);
    let output = host.within(|| program.output().unwrap());
    let text = String::from_utf8([output.stdout, output.stderr].concat()).unwrap();
    (text, output.status.code())
}

with_each_version! {
    isolated fn a_slip_in_the_default_interface_takes_no_vip_away(version: &'static str) {
        let Some((mut lan, etcd)) = set_up(module_path!(), version) else { return };
        let (a, b) = (lan.host(), lan.host());
        let (first, second) = (gateway(&a, &etcd), gateway(&b, &etcd));
        etcd.put("/havip/virtual_router/default/interface", "eth0");
        etcd.put("/havip/virtual_router/default/advert_interval", "0.1");
        for vrid in 100..=102 {
            etcd.put(&format!("/havip/virtual_router/{vrid}/vips"), &format!("192.0.2.{vrid}"));
        }
        etcd.put("/havip/node/gw1/virtual_router/default/priority", "200");
        etcd.put("/havip/node/gw1/vrids", "100-102");
        etcd.put("/havip/node/gw2/vrids", "100-102");
        let all = || (100..=102).all(|vrid| a.has(&format!("192.0.2.{vrid}")));
        wait("the range is three routers, on the one of higher priority", all);
        second.wait_for("backup");
        etcd.put("/havip/virtual_router/default/interface", "eht0");
        let error = "this box has no interface eht0";
        wait("both say so", || {
            [&first, &second].iter().all(|daemon| {
                daemon.log().contains(error)
                    && daemon.status()["config"]["problems"].to_string().contains(error)
            })
        });
        // What changes beside it counts, which shows that the state was taken over.
        etcd.put("/havip/virtual_router/102/priority", "90");
        etcd.put("/havip/virtual_router/103/vips", "192.0.2.103");
        etcd.put("/havip/virtual_router/103/interface", "eth0");
        etcd.put("/havip/node/gw1/vrids", "100-103");
        wait("a new router comes", || a.has("192.0.2.103"));
        assert!(all());
        for router in first.status()["vrrp"]["routers"].as_array().unwrap() {
            assert_eq!(router["counters"]["master_transitions"], 1, "{router}");
        }
        // The interface appears: it goes there by itself.
        a.run_ip("link add eht0 type bridge");
        wait("it moves", || !all());
        etcd.put("/havip/virtual_router/default/interface", "eth0");
        wait("and back, with all well", || {
            all() && first.status()["config"]["problems"].as_array().unwrap().is_empty()
        });
    }
}

with_each_version! {
    isolated fn a_gateway_without_ipv4_is_named_by_ipv6_or_says_that_it_has_no_name(
        version: &'static str,
    ) {
        let Some((mut lan, etcd)) = set_up(module_path!(), version) else { return };
        let a = lan.host();
        // It reaches etcd from a host address, which is no name.
        let own = a.ip();
        a.run_ip(&format!("address del {own}/24 dev eth0"));
        a.run_ip(&format!("address add {own}/32 dev eth0"));
        a.run_ip("route add 192.0.2.0/24 dev eth0");
        etcd.put("/havip/virtual_router/default/interface", "eth0");
        etcd.put("/havip/virtual_router/default/advert_interval", "0.1");
        etcd.put("/havip/virtual_router/100/vips", "fe80::100");
        etcd.put("/havip/node/gw1/vrids", "100");
        let daemon = gateway(&a, &etcd);
        daemon.wait_for("active");
        let said = "/havip/vRouterGateway/: not written: this box has no IPv4 address";
        let is_told = |(code, text): (Option<i32>, String)| code == Some(4) && text.contains(said);
        wait("it is told", || is_told(daemon.check()));
        wait("and logged", || daemon.log().contains(said));
        assert_eq!(etcd.get("/havip/vRouterGateway/100"), None);
        a.run_ip("address add 2001:db8::7/64 dev eth0 nodad");
        let name = || etcd.get("/havip/vRouterGateway/100").unwrap_or_default();
        wait("it is written", || name() == "2001:db8::7,ff:ff:ff:ff:ff:ff");
        wait("all is well", || daemon.check() == (Some(0), String::new()));
    }
}

with_each_version! {
    isolated fn what_was_exported_can_be_put_back_whatever_it_is(version: &'static str) {
        let Some((mut lan, etcd)) = set_up(module_path!(), version) else { return };
        let a = lan.host();
        for (key, value) in [
            ("virtual_router/default/interface", "eth0"),
            ("virtual_router/100/vips", VIP),
            ("virtual_router/100/colour", "red"),
            ("node/gw1/vrids", "100"),
            ("later/room/key", "7"),
            ("binding/192.0.2.100/vrid", "100"),
        ] {
            etcd.put(&format!("/havip/{key}"), value);
        }
        let before = etcd.dump("/havip/");
        etcd.put("/havip/vRouterGateway/100", "192.0.2.1,ff:ff:ff:ff:ff:ff");
        let (file, bad) = (a.folder().join("backup.toml"), a.folder().join("bad.toml"));
        let (file, bad) = (file.to_str().unwrap(), bad.to_str().unwrap());
        let (text, code) = havip_at(&a, &etcd, &["export", file]);
        assert_eq!(code, Some(0), "{text}");
        etcd.put("/havip/virtual_router/100/priority", "1000");
        let spoiled = etcd.dump("/havip/");
        assert_eq!(havip_at(&a, &etcd, &["export", bad]).1, Some(0));
        etcd.del_prefix("/havip/");
        let (text, code) = havip_at(&a, &etcd, &["import", file]);
        assert_eq!(code, Some(0), "{text}");
        assert!(text.contains("backup.toml:") && text.contains("colour: unknown key"), "{text}");
        assert_eq!(etcd.dump("/havip/"), before);
        // What has an error is put back only if that is meant.
        etcd.del_prefix("/havip/");
        let (text, code) = havip_at(&a, &etcd, &["import", bad]);
        assert!(text.contains("\"1000\" is not a number") && text.contains("--force"), "{text}");
        assert_eq!((code, etcd.dump("/havip/").len()), (Some(3), 0));
        let (text, code) = havip_at(&a, &etcd, &["import", "--force", bad]);
        assert_eq!(code, Some(0), "{text}");
        let mut back = etcd.dump("/havip/");
        back.insert("/havip/vRouterGateway/100".into(), spoiled["/havip/vRouterGateway/100"].clone());
        assert_eq!(back, spoiled);
        // A key that no TOML can hold is missing in it, and that is no success.
        etcd.put("/havip/node/gw1//x", "1");
        let (text, code) = havip_at(&a, &etcd, &["export"]);
        assert!(text.contains("an empty segment in the key"), "{text}");
        assert_eq!(code, Some(4));
    }
}

with_each_version! {
    isolated fn a_part_is_judged_beside_what_etcd_has(version: &'static str) {
        let Some((mut lan, etcd)) = set_up(module_path!(), version) else { return };
        let a = lan.host();
        etcd.put("/havip/virtual_router/default/interface", "eth0");
        etcd.put("/havip/virtual_router/100/vips", VIP);
        etcd.put("/havip/node/gw1/vrids", "100");
        let file = a.folder().join("part.toml");
        let import = |text: &str| {
            std::fs::write(&file, text).unwrap();
            havip_at(&a, &etcd, &["import", file.to_str().unwrap()])
        };
        // Alone, neither of these is a router.
        let (text, code) = import("[virtual_router.100]\npriority = 120\n");
        assert_eq!(code, Some(0), "{text}");
        let (text, code) = import(
            "[virtual_router.101]\nvips = [\"192.0.2.101\"]\n[node.gw1]\nvrids = [100, 101]\n",
        );
        assert_eq!(code, Some(0), "{text}");
        assert_eq!(etcd.get("/havip/node/gw1/vrids").as_deref(), Some("100,101"));
        // And what is right alone may be wrong there.
        let (text, code) = import("[virtual_router.101]\nvips = [\"192.0.2.100\"]\n");
        assert!(text.contains("192.0.2.100 on eth0 is router 100's already"), "{text}");
        assert_eq!(code, Some(3));
        // An error that etcd has already is nothing that the part does.
        etcd.put("/havip/virtual_router/100/priority", "1000");
        let (text, code) = import("[virtual_router.101]\npriority = 90\n[havip]\nnode = \"gw1\"\n");
        assert_eq!(code, Some(0), "{text}");
        assert!(text.contains("etcd has 2 error(s) already"), "{text}");
        assert!(text.contains("havip/node: not put into etcd"), "{text}");
        assert_eq!(etcd.get("/havip/havip/node"), None);
    }
}

with_each_version! {
    isolated fn a_user_who_may_not_is_told_what_this_command_needs(version: &'static str) {
        let Some((mut lan, mut etcd)) = set_up(module_path!(), version) else { return };
        let a = lan.host();
        etcd.put("/havip/virtual_router/default/interface", "eth0");
        etcd.add_user("reader", Some("sesame"), &[("read", "/havip/", true)]);
        etcd.add_user("nobody", Some("sesame"), &[("read", "/elsewhere/", true)]);
        etcd.enable_auth();
        let password = a.folder().join("password");
        std::fs::write(&password, "sesame").unwrap();
        let private = std::os::unix::fs::PermissionsExt::from_mode(0o600);
        std::fs::set_permissions(&password, private).unwrap();
        let config = |user: &str| {
            let file = a.folder().join(format!("{user}.toml"));
            let password = password.display();
            let text = format!("[etcd]\nusername = \"{user}\"\npassword_file = \"{password}\"\n");
            std::fs::write(&file, text).unwrap();
            file.to_str().unwrap().to_owned()
        };
        let part = a.folder().join("part.toml");
        std::fs::write(&part, "[virtual_router.default]\nadvert_interval = 2\n").unwrap();
        let part = part.to_str().unwrap();
        let (text, code) = havip_at(&a, &etcd, &["import", part, "-c", &config("reader")]);
        assert!(text.contains("import writes below /havip/: grant the user write"), "{text}");
        assert!(!text.contains("on its outputs") && code == Some(5), "{code:?}: {text}");
        let (text, code) = havip_at(&a, &etcd, &["export", "-c", &config("nobody")]);
        assert!(text.contains("reads all below /havip/: grant the user read on it"), "{text}");
        assert!(!text.contains("on its outputs") && code == Some(5), "{code:?}: {text}");
    }
}

with_each_version! {
    isolated fn a_restart_without_etcd_runs_from_the_snapshot_and_moves_to_etcd_without_a_flap(
        version: &'static str,
    ) {
        let Some((mut lan, mut etcd)) = set_up(module_path!(), version) else { return };
        let a = lan.host();
        let mut daemon = gateway(&a, &etcd);
        etcd.put("/havip/virtual_router/default/interface", "eth0");
        etcd.put("/havip/virtual_router/default/advert_interval", "0.1");
        etcd.put("/havip/virtual_router/100/vips", VIP);
        etcd.put("/havip/virtual_router/101/vips", "192.0.2.101");
        etcd.put("/havip/node/gw1/vrids", "100,101");
        wait("both are there", || a.has(VIP) && a.has("192.0.2.101"));
        let snapshot = a.folder().join("state/snapshot.toml");
        wait("the snapshot has both", || {
            std::fs::read_to_string(&snapshot).is_ok_and(|text| text.contains("100,101"))
        });
        let mode = std::os::unix::fs::MetadataExt::mode(&std::fs::metadata(&snapshot).unwrap());
        assert_eq!(mode & 0o777, 0o600);
        etcd.kill(0);
        assert!(daemon.stop().success());
        assert!(!a.has(VIP));
        daemon = gateway(&a, &etcd);
        wait("both are back without etcd", || a.has(VIP) && a.has("192.0.2.101"));
        let (code, said) = daemon.check();
        assert_eq!(code, Some(4), "{said}");
        assert!(said.contains("not connected for") && said.contains("snapshot, written"), "{said}");
        assert_eq!(daemon.status()["config"]["store"]["source"], "snapshot");
        etcd.restart(0);
        wait("etcd is used again", || daemon.status()["config"]["store"]["source"] == "etcd");
        etcd.put("/havip/virtual_router/101/vips", "192.0.2.102");
        wait("the change comes", || a.has("192.0.2.102") && !a.has("192.0.2.101"));
        for router in daemon.status()["vrrp"]["routers"].as_array().unwrap() {
            assert_eq!(router["counters"]["master_transitions"], 1, "{router}");
        }
    }
}

with_each_version! {
    isolated fn where_etcd_is_counts_anew_at_sighup_and_moves_nothing_else(version: &'static str) {
        let Some((mut lan, etcd)) = set_up("sighup", version) else { return };
        etcd.put("/havip/virtual_router/default/interface", "eth0");
        etcd.put("/havip/virtual_router/100/vips", VIP);
        etcd.put("/havip/node/gw1/vrids", "100");
        let a = lan.host();
        let state = a.folder().join("state");
        let file = |endpoint: &str| {
            format!(
                "[etcd]\nendpoints = [\"{endpoint}\"]\n[snapshot]\npath = \"{}\"\ninterval = 0\n\
                 [virtual_router.7]\ninterface = \"eth0\"\nvips = [\"192.0.2.107\"]\n",
                state.display()
            )
        };
        let daemon = a.daemon(&file("192.0.2.254:1"));
        wait("nothing answers", || daemon.status()["config"]["store"]["error"].is_string());
        std::fs::write(&daemon.config, a.config(&file(&etcd.endpoint(0)))).unwrap();
        daemon.signal("-HUP");
        daemon.wait_for("active");
        wait("etcd's VIP is there", || a.has(VIP));
        // To another name of the same, and back to nowhere: what runs goes on.
        let port = etcd.address(0).port();
        std::fs::write(&daemon.config, a.config(&file(&format!("http://192.0.2.254:{port}/"))))
            .unwrap();
        daemon.signal("-HUP");
        std::fs::write(&daemon.config, a.config(&file("192.0.2.254:1"))).unwrap();
        daemon.signal("-HUP");
        wait("it is away", || daemon.status()["config"]["store"]["connected"] == false);
        assert!(a.has(VIP));
        let status = daemon.status();
        assert_eq!(status["vrrp"]["routers"][0]["counters"]["master_transitions"], 1, "{status}");
        assert_eq!(status["config"]["refused"].as_array().map(Vec::len), Some(0));
        // What counts only at a start is said, and not for ever.
        let text = a.config(&file("192.0.2.254:1")).replace("gw1", "gw7");
        std::fs::write(&daemon.config, text).unwrap();
        daemon.signal("-HUP");
        wait("it is said", || {
            daemon.status()["config"]["refused"].to_string().contains("[havip] node: changed")
        });
        std::fs::write(&daemon.config, a.config(&file("192.0.2.254:1"))).unwrap();
        daemon.signal("-HUP");
        wait("no more", || {
            daemon.status()["config"]["refused"].as_array().is_some_and(Vec::is_empty)
        });
    }
}
