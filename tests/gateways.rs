//! Real daemons in real network namespaces.

#![cfg(feature = "daemon")]

#[macro_use]
mod lab;

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::process::Command;

use havip::node::notice::Notice;
use havip::node::record::{End, replay};
use lab::{Daemon, Host, Lan, ip, wait};

const VIP: &str = "192.0.2.100";

fn keys(priority: u8) -> String {
    format!("vips = [\"{VIP}\"]\nadvert_interval = 0.1\npriority = {priority}")
}

fn start(host: &Host, priority: u8) -> Daemon {
    host.daemon(&host.router("51", &keys(priority)))
}

/// Output and exit code of a command of havip.
fn havip(arguments: &[&str]) -> (String, Option<i32>) {
    let output = Command::new(env!("CARGO_BIN_EXE_havip")).args(arguments).output().unwrap();
    let text = [output.stdout, output.stderr].concat();
    (String::from_utf8(text).unwrap(), output.status.code())
}

isolated! {
    fn a_killed_gateway_is_replaced_and_its_kernel_drops_the_vip_by_itself() {
        let mut lan = Lan::new();
        let (a, b, client) = (lan.host(), lan.host(), lan.host());
        let mut first = a.daemon_of(&a.config_without_guard(&a.router("51", &keys(200))));
        first.wait_for("active");
        let second = start(&b, 100);
        second.wait_for("backup");
        wait("the VIP answers", || client.reaches(VIP));
        assert!(a.has(VIP) && !b.has(VIP));
        first.kill();
        second.wait_for("active");
        wait("the successor has it", || b.has(VIP));
        wait("the dead one's kernel drops it", || !a.has(VIP));
        assert!(client.reaches(VIP));
        let first = start(&a, 200);
        first.wait_for("active");
        second.wait_for("backup");
        wait("it moved back", || a.has(VIP) && !b.has(VIP));
        wait("the VIP answers", || client.reaches(VIP));
    }
}

isolated! {
    fn a_record_of_a_daemon_comes_out_as_it_was_and_is_its_owner_s_alone() {
        let mut lan = Lan::new();
        let (a, b) = (lan.host(), lan.host());
        let tape = a.folder().join("tape");
        let flags = ["--record", tape.to_str().unwrap()];
        // With a fence, which is a part of it.
        let text = a.config(&a.router("51", &keys(200)));
        let text = text.replacen("[havip]\n", "[havip]\nfence = true\n", 1);
        let mut first = a.daemon_with(&flags, &[], &text);
        first.wait_for("active");
        let second = start(&b, 100);
        second.wait_for("backup");
        lan.plug(&a, false);
        second.wait_for("active");
        lan.plug(&a, true);
        first.wait_for("active");
        assert_eq!(first.stop().code(), Some(0));
        let mode = fs::metadata(&tape).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        let mut transitions = 0;
        let mut end = None;
        wait("the record's end is written", || {
            transitions = 0;
            let replayed = replay(&fs::read(&tape).unwrap(), |_, _, actions| {
                let is_one = |notice: &&Notice| matches!(notice, Notice::Transition { .. });
                transitions += actions.notices.iter().filter(is_one).count();
            });
            end = replayed.unwrap().end;
            end.is_some()
        });
        assert_eq!(end, Some(End::Stopped));
        // Backup and active, without carrier, backup and active, stopped.
        assert_eq!(transitions, 6);
    }
}

isolated! {
    fn a_cut_cable_hands_over_and_its_return_takes_over() {
        let mut lan = Lan::new();
        let (a, b) = (lan.host(), lan.host());
        let (first, second) = (start(&a, 200), start(&b, 100));
        first.wait_for("active");
        second.wait_for("backup");
        lan.plug(&a, false);
        second.wait_for("active");
        wait("without carrier there is no VIP", || !a.has(VIP) && b.has(VIP));
        assert_eq!(first.state(), "initialize");
        lan.plug(&a, true);
        first.wait_for("active");
        second.wait_for("backup");
        wait("it moved back", || a.has(VIP) && !b.has(VIP));
    }
}

isolated! {
    fn sigterm_gives_up_everything_and_ends_well() {
        let mut lan = Lan::new();
        let (a, b) = (lan.host(), lan.host());
        let mut first = start(&a, 200);
        first.wait_for("active");
        let second = start(&b, 100);
        second.wait_for("backup");
        assert_eq!(first.stop().code(), Some(0));
        assert!(!a.has(VIP), "the address was taken away before the end");
        assert!(!first.socket.exists());
        second.wait_for("active");
        let status = second.status();
        let router = &status["vrrp"]["routers"][0];
        assert_eq!(router["counters"]["priority_zero_received"], 1);
    }
}

isolated! {
    fn an_ipv6_router_fails_over() {
        let mut lan = Lan::new();
        let (a, b) = (lan.host(), lan.host());
        let keys = |priority| format!(
            "vips = [\"fe80::51\", \"2001:db8::51\"]\nadvert_interval = 0.1\npriority = {priority}"
        );
        let mut first = a.daemon(&a.router("v6", &format!("vrid = 51\n{}", keys(200))));
        let second = b.daemon(&b.router("v6", &format!("vrid = 51\n{}", keys(100))));
        first.wait_for("active");
        second.wait_for("backup");
        wait("both VIPs are there", || a.has("fe80::51") && a.has("2001:db8::51"));
        first.kill();
        second.wait_for("active");
        wait("both VIPs moved", || b.has("fe80::51") && b.has("2001:db8::51"));
        let vip = |snapshot: havip::node::kernel::Snapshot| {
            snapshot.addresses.into_iter().find(|a| a.prefix.ip == ip("2001:db8::51")).unwrap()
        };
        assert!(!vip(b.snapshot()).tentative, "no duplicate address detection");
    }
}

isolated! {
    fn a_vip_that_someone_removes_comes_back_without_a_change_of_state() {
        let mut lan = Lan::new();
        let a = lan.host();
        let daemon = start(&a, 100);
        daemon.wait_for("active");
        for round in 1..=3_u64 {
            wait("the VIP is there", || a.has(VIP));
            a.within(|| {
                use havip::config::Prefix;
                use havip::node::kernel::{Op, Verb};
                let mut requests = havip::linux::netlink::Requests::open().unwrap();
                let index = lab::index_of(&mut requests, "eth0");
                let op = Op { index, prefix: Prefix::host(ip(VIP)), verb: Verb::Remove };
                assert_eq!(requests.apply(&[op]).unwrap(), [Ok(())]);
            });
            wait("it is put back", || {
                daemon.status()["vrrp"]["routers"][0]["counters"]["restored"] == round && a.has(VIP)
            });
        }
        let status = daemon.status();
        assert_eq!(status["vrrp"]["routers"][0]["counters"]["master_transitions"], 1);
    }
}

isolated! {
    fn a_deleted_and_recreated_interface_is_followed() {
        let mut lan = Lan::new();
        let (mut a, b) = (lan.host(), lan.host());
        let (first, second) = (start(&a, 200), start(&b, 100));
        first.wait_for("active");
        second.wait_for("backup");
        lan.delete(&a);
        second.wait_for("active");
        let status = first.status();
        let why = status["vrrp"]["routers"][0]["not_ready"].as_str().unwrap().to_owned();
        assert!(why.contains("does not exist"), "{why}");
        lan.attach(&mut a);
        first.wait_for("active");
        second.wait_for("backup");
        wait("the VIP is back", || a.has(VIP) && !b.has(VIP));
    }
}

isolated! {
    fn leftovers_of_a_crash_are_removed_and_others_addresses_are_not() {
        let mut lan = Lan::new();
        let (a, b) = (lan.host(), lan.host());
        let rest = a.router("51", &format!("{}\naddress_lifetime = \"forever\"", keys(200)));
        let mut first = a.daemon_of(&a.config_without_guard(&rest));
        first.wait_for("active");
        wait("the VIP is there", || a.has(VIP));
        first.kill();
        let second = start(&b, 255);
        second.wait_for("active");
        assert!(a.has(VIP), "for ever means for ever");
        let first = a.daemon(&rest);
        first.wait_for("backup");
        wait("it was removed", || !a.has(VIP));
        assert!(a.has("192.0.2.1"), "the box's own address stays");
    }
}

isolated! {
    fn on_a_kernel_that_keeps_no_owners_a_file_tells_what_a_crash_left() {
        let mut lan = Lan::new();
        let (a, b) = (lan.host(), lan.host());
        a.without_marks();
        let rest = a.router("51", &format!("{}\naddress_lifetime = \"forever\"", keys(200)));
        let mut first = a.daemon_of(&a.config_without_guard(&rest));
        first.wait_for("active");
        wait("the VIP is there", || a.has(VIP));
        let file = a.folder().join("run/addresses");
        let text = fs::read_to_string(&file).unwrap();
        assert!(text.starts_with("havip addresses 1\n") && text.contains(VIP), "{text}");
        first.kill();
        let second = start(&b, 255);
        second.wait_for("active");
        // The old kernel's view of it, and an address of an operator's beside it.
        for words in [format!("del {VIP}"), format!("add {VIP}"), "add 192.0.2.77".to_owned()] {
            a.run_ip(&format!("address {words}/32 dev eth0"));
        }
        let mut first = a.daemon(&rest);
        first.wait_for("backup");
        wait("it was removed", || !a.has(VIP));
        assert!(a.has("192.0.2.77"), "nobody's business");
        assert!(first.stop().success());
        assert!(!file.exists(), "a clean end leaves nothing to tell");
    }
}

isolated! {
    fn sighup_takes_over_a_right_file_and_refuses_a_wrong_one_whole() {
        let mut lan = Lan::new();
        let a = lan.host();
        let daemon = start(&a, 100);
        daemon.wait_for("active");
        let write = |rest: &str| fs::write(&daemon.config, a.config(rest)).unwrap();
        let two = keys(100).replace("]\n", ", \"192.0.2.101\"]\n");
        write(&a.router("51", &two));
        daemon.signal("-HUP");
        wait("the new VIP is there", || a.has("192.0.2.101"));
        assert!(a.has(VIP));

        write(&a.router("51", &format!("{}\nprioritty = 7", keys(100))));
        daemon.signal("-HUP");
        let refused = || daemon.status()["config"]["refused"].clone();
        let check = || havip(&["status", "--check", "--config", daemon.config.to_str().unwrap(), "--run-dir", daemon.socket.parent().unwrap().to_str().unwrap()]);
        wait("it is refused", || refused().as_array().is_some_and(|list| !list.is_empty()));
        let (said, code) = check();
        assert_eq!(code, Some(4), "{said}");
        assert!(said.starts_with("file refused: ") && said.contains("havip.toml:13"), "{said}");
        let text = refused().to_string();
        assert!(text.contains("havip.toml:13") && text.contains("priority"), "{text}");
        assert!(a.has("192.0.2.101"), "what ran goes on");

        write(&a.router("51", &keys(100)));
        daemon.signal("-HUP");
        wait("the second VIP goes", || !a.has("192.0.2.101"));
        wait("nothing is refused", || refused().as_array().unwrap().is_empty());
        assert_eq!(check(), (String::new(), Some(0)));
        let status = daemon.status();
        assert_eq!(status["vrrp"]["routers"][0]["counters"]["master_transitions"], 1);
    }
}

isolated! {
    fn a_second_daemon_on_one_run_dir_is_refused() {
        let mut lan = Lan::new();
        let a = lan.host();
        let daemon = start(&a, 100);
        daemon.wait_for("active");
        let config = daemon.config.to_str().unwrap();
        let (text, code) = a.within(|| havip(&["run", "--config", config]));
        assert_eq!(code, Some(1), "{text}");
        assert!(text.contains(&daemon.pid().to_string()), "{text}");
        assert_eq!(daemon.state(), "active");
    }
}

isolated! {
    fn the_control_socket_is_its_owners_alone_and_secrets_are_nowhere() {
        let mut lan = Lan::new();
        let a = lan.host();
        let keys = format!("vips = [\"{VIP}\"]\nversion = \"2\"\nauth_pass = \"h1dden!\"");
        let daemon = a.daemon(&a.router("51", &keys));
        daemon.wait_for("active");
        let mode = fs::metadata(&daemon.socket).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        let run_dir = daemon.socket.parent().unwrap().to_str().unwrap();
        let (text, code) = havip(&["status", "--run-dir", run_dir]);
        assert_eq!(code, Some(0), "{text}");
        assert!(text.contains("active") && text.contains(VIP), "{text}");
        let (json, code) = havip(&["status", "--json", "--run-dir", run_dir]);
        assert_eq!(code, Some(0));
        let json: serde_json::Value = serde_json::from_str(&json).unwrap();
        assert_eq!(json["schema"], 1);
        let (shown, code) = havip(&["show", "--run-dir", run_dir]);
        assert_eq!(code, Some(0), "{shown}");
        assert!(shown.contains("havip.toml:9") && shown.contains("(hidden)"), "{shown}");
        for text in [text, json.to_string(), shown, daemon.log()] {
            assert!(!text.contains("h1dden!"), "{text}");
        }
    }
}

isolated! {
    fn a_command_answers_for_the_file_that_it_was_given_and_for_no_other() {
        let mut lan = Lan::new();
        let (a, b) = (lan.host(), lan.host());
        let keys = |vip: &str| format!("vips = [\"{vip}\"]\nadvert_interval = 0.1");
        let one = a.daemon(&a.router("51", &keys(VIP)));
        let other = b.daemon(&b.router("52", &keys("192.0.2.101")));
        one.wait_for("active");
        other.wait_for("active");
        let (file, foreign) = (one.config.to_str().unwrap(), other.config.to_str().unwrap());
        let run_dir = one.socket.parent().unwrap().to_str().unwrap();
        for arguments in [
            &["status", file][..],
            &["status", "-c", file],
            &["status", "-c", file, file],
            &["status", "--config", file, "--run-dir", run_dir],
            &["show", file],
            &["check", file],
            &["check", "-c", file],
        ] {
            let (text, code) = havip(arguments);
            assert_eq!(code, Some(0), "{arguments:?}: {text}");
            assert!(!text.contains("192.0.2.101"), "{arguments:?}: {text}");
        }
        for arguments in [
            &["status", "-c", foreign, "--run-dir", run_dir][..],
            &["show", foreign, "--run-dir", run_dir],
            &["status", "--check", "-c", foreign, "--run-dir", run_dir],
        ] {
            let (text, code) = havip(arguments);
            assert_eq!(code, Some(7), "{arguments:?}: {text}");
            assert!(text.contains(&format!("this daemon runs with {file}")), "{text}");
        }
        let (text, code) = havip(&["check", file, "--config", foreign]);
        assert_eq!(code, Some(2), "{text}");
        // What tells nothing of its daemon is told with both ways out.
        let folder = one.config.parent().unwrap().to_str().unwrap();
        let spoiled = format!("{folder}/spoiled.toml");
        fs::write(&spoiled, "[havip]\nrun_dir = \"run\"\n").unwrap();
        for (told_by, exit) in [("/no/such/file", 6), (folder, 1), (&spoiled, 3)] {
            for command in ["status", "show"] {
                let (text, code) = havip(&[command, "-c", told_by]);
                assert_eq!(code, Some(exit), "{command} {told_by}: {text}");
                for way_out in ["name the file that the daemon was started with", "--run-dir"] {
                    assert!(text.contains(way_out), "{command} {told_by}: {text}");
                }
                assert!(!text.contains("write one"), "{text}");
            }
        }
        // A file that was spoiled meanwhile still says where its daemon is.
        let text = fs::read_to_string(file).unwrap();
        fs::write(file, format!("{text}[nonsense]\nx = 1\n")).unwrap();
        let (text, code) = havip(&["status", "-c", file]);
        assert_eq!(code, Some(0), "{text}");
        assert_eq!(havip(&["check", "-c", file]).1, Some(3));
    }
}

isolated! {
    fn a_node_of_which_the_file_says_nothing_is_told_everywhere() {
        let mut lan = Lan::new();
        let a = lan.host();
        let router = a.router("51", &format!("vips = [\"{VIP}\"]\nadvert_interval = 0.1"));
        let right = a.config(&router);
        let wrong = right.replacen("node = \"gw1\"", "node = \"gw11\"", 1);
        let daemon = a.daemon_of(&wrong);
        let path = daemon.config.to_str().unwrap();
        let check = || havip(&["status", "--check", "--config", path]);
        let missing = "node/gw11/vrids: missing, so node gw11 runs no router; did you mean \"gw1\"?";
        wait("it is told", || {
            let (text, code) = check();
            code == Some(4) && text.contains(missing)
        });
        wait("the log has it", || daemon.log().contains(&format!("error: {missing}")));
        let (text, code) = havip(&["check", path]);
        assert!(text.contains(missing), "{text}");
        assert_eq!(code, Some(3));
        // Its name counts from the start on; what it is to run, at once.
        daemon.reload(&wrong.replace("[node.gw1]", "[node.gw11]"));
        daemon.wait_for("active");
        wait("all is well", || check().1 == Some(0));
        fs::write(path, "").unwrap();
        let (text, code) = havip(&["check", path]);
        assert!(text.contains("it names no node") && !text.contains("right"), "{text}");
        assert_eq!(code, Some(3));
    }
}

isolated! {
    fn a_file_with_an_interface_that_is_not_there_moves_nothing_until_it_is() {
        let mut lan = Lan::new();
        let a = lan.host();
        let keys = format!("vips = [\"{VIP}\"]\nadvert_interval = 0.1");
        let text = a.config(&a.router("51", &keys));
        let daemon = a.daemon_of(&text);
        daemon.wait_for("active");
        wait("the VIP is there", || a.has(VIP));
        let wrong = text.replace("\"eth0\"", "\"eht0\"");
        daemon.reload(&wrong);
        let path = daemon.config.to_str().unwrap();
        wait("it is told", || {
            let (text, code) = havip(&["status", "--check", "-c", path]);
            code == Some(4) && text.contains("this box has no interface eht0 to run on (did you mean \"eth0\"?)")
        });
        let router = || daemon.status()["vrrp"]["routers"][0].clone();
        assert_eq!((&router()["interface"], &router()["state"]), (&"eth0".into(), &"active".into()));
        assert_eq!(router()["counters"]["master_transitions"], 1);
        assert!(a.has(VIP));
        // There it is, and the file counts when it is read again.
        a.run_ip("link add eht0 type bridge");
        daemon.reload(&wrong);
        wait("it has moved", || router()["interface"] == "eht0");
        wait("the VIP is gone", || !a.has(VIP));
    }
}

isolated! {
    fn routers_that_are_listed_and_do_not_run_are_shown_with_their_reason() {
        let mut lan = Lan::new();
        let a = lan.host();
        let text = "[node.gw1]\nvrids = [51]\n[virtual_router.51]\ninterface = \"eth0\"\n\
                    vips = [\"192.0.2.100\"]\nenabled = false\n";
        let daemon = a.daemon(text);
        let path = daemon.config.to_str().unwrap();
        wait("it is shown", || {
            let (text, _) = havip(&["status", "-c", path]);
            text.contains("does not run: disabled: enabled = false at ")
                && !text.contains("lists no router")
        });
        wait("all is well, as that is an order", || {
            havip(&["status", "--check", "-c", path]).1 == Some(0)
        });
    }
}

isolated! {
    fn a_password_that_others_may_read_is_told_by_run_check_and_status() {
        let mut lan = Lan::new();
        let a = lan.host();
        let keys = format!("vips = [\"{VIP}\"]\nversion = 2\nauth_pass = \"h1dden!\"");
        let text = a.config(&a.router("51", &keys));
        let daemon = a.daemon_of(&text);
        daemon.wait_for("active");
        let path = daemon.config.to_str().unwrap();
        let warned = |text: &str| text.contains("a password in a file that others may read");
        assert_eq!(havip(&["check", path]).1, Some(0));
        wait("all is well, the VIP included", || {
            havip(&["status", "--check", "-c", path]).1 == Some(0)
        });
        fs::set_permissions(path, fs::Permissions::from_mode(0o640)).unwrap();
        daemon.reload(&text);
        wait("it is told", || {
            let (text, code) = havip(&["status", "--check", "-c", path]);
            warned(&text) && code == Some(4)
        });
        let (text, code) = havip(&["check", path]);
        assert!(warned(&text) && code == Some(4), "{text}");
        wait("it is logged", || warned(&daemon.log()));
        assert!(!daemon.log().contains("h1dden!"));
    }
}

isolated! {
    fn exit_codes_are_as_documented() {
        let folder = lab::Folder::new();
        let file = folder.0.join("havip.toml");
        let path = file.to_str().unwrap();
        let run_dir = folder.0.to_str().unwrap();
        assert_eq!(havip(&["check", path]).1, Some(6), "there is no file");
        assert_eq!(havip(&["run", "--config", path]).1, Some(6));
        assert_eq!(havip(&["frobnicate"]).1, Some(2));
        assert_eq!(havip(&["status", "--run-dir", run_dir]).1, Some(7));
        assert_eq!(havip(&["status", "--check", "--json"]).1, Some(2), "which of the two?");
        let router = "[virtual_router.51]\ninterface = \"eth0\"\nvips = [\"10.0.0.3\"]\n";
        fs::write(&file, format!("[node.gw1]\nvrids = [51]\n{router}")).unwrap();
        assert_eq!(havip(&["check", path]).1, Some(0));
        fs::write(&file, format!("[node.gw1]\nvrids = [51, 51]\n{router}")).unwrap();
        assert_eq!(havip(&["check", path]).1, Some(4));
        fs::write(&file, format!("[node.gw1]\nvrids = [51, 52]\n{router}")).unwrap();
        let (text, code) = havip(&["check", path]);
        assert_eq!(code, Some(3), "{text}");
        assert!(text.contains("virtual_router/52/vips"), "{text}");
        assert_eq!(havip(&["--help"]).1, Some(0));
        for command in ["run", "check", "show", "status", "demo", "version"] {
            let (text, code) = havip(&[command, "--help"]);
            assert_eq!(code, Some(0));
            assert!(text.contains("Usage: havip"), "{text}");
        }
    }
}

isolated! {
    fn the_demo_shows_a_failover_and_leaves_nothing_behind() {
        let folder = lab::Folder::new();
        let mut demo = Command::new(env!("CARGO_BIN_EXE_havip"));
        let output = demo.arg("demo").env("TMPDIR", &folder.0).output().unwrap();
        let text = String::from_utf8([output.stdout, output.stderr].concat()).unwrap();
        assert_eq!(output.status.code(), Some(0), "{text}");
        assert_eq!(text.matches("longest gap").count(), 5, "{text}");
        assert_eq!(fs::read_dir(&folder.0).unwrap().count(), 0, "{text}");
    }
}
