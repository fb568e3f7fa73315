//! What happens when a daemon dies: its guard says priority 0 and takes the VIPs away; and where
//! the guard dies too, the kernel's lifetime does.

#![cfg(feature = "daemon")]

#[macro_use]
mod lab;

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::os::fd::AsFd as _;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use havip::config::Prefix;
use havip::linux::netlink::Requests;
use havip::linux::{clock, netns};
use havip::wire::Family;
use lab::listener::Listener;
use lab::{Daemon, Host, Lan, ip, wait};

const VIP: &str = "192.0.2.100";
/// A box's own address, which is also a VIP: the owner of RFC 9568 §6.1.
const OWN: &str = "192.0.2.200";

/// VIPs that nothing but a process takes away.
const FOR_EVER: &str = "address_lifetime = \"forever\"";

/// The local file's tables for these routers: name and keys.
fn routers(host: &Host, routers: &[(String, String)]) -> String {
    let names: Vec<String> = routers.iter().map(|(name, _)| format!("\"{name}\"")).collect();
    let mut text = format!("[node.gw{}]\nvrids = [{}]\n", host.number(), names.join(", "));
    for (name, keys) in routers {
        let _ = write!(text, "\n[virtual_router.{name}]\ninterface = \"eth0\"\n{keys}\n");
    }
    text
}

/// One router with the VIP.
fn one(host: &Host, priority: u8, more: &str) -> String {
    let keys = format!("vips = [\"{VIP}\"]\nadvert_interval = 0.1\npriority = {priority}\n{more}");
    host.router("51", &keys)
}

fn signal(name: &str, pid: &str) {
    let status = Command::new("kill").args([name, "--", pid]).status();
    assert!(status.unwrap().success(), "kill {name} {pid}");
}

fn lives(pid: u64) -> bool {
    Path::new(&format!("/proc/{pid}")).exists()
}

/// Waits until every router of a daemon is in this state.
#[track_caller]
fn all_are(daemon: &Daemon, state: &str) {
    let mut status = serde_json::Value::Null;
    let came = lab::holds_within(lab::LIMIT, || {
        status = daemon.status();
        let routers = status["vrrp"]["routers"].as_array().unwrap();
        !routers.is_empty() && routers.iter().all(|router| router["state"] == state)
    });
    assert!(came, "not {state}: {status:#}\n{}", daemon.log());
}

/// Why the routers of a daemon are what they are, without the names of whom they heard.
fn reasons(daemon: &Daemon) -> BTreeMap<String, usize> {
    let mut reasons = BTreeMap::new();
    for router in daemon.status()["vrrp"]["routers"].as_array().unwrap() {
        *reasons.entry(router["reason"].as_str().unwrap_or("none").to_owned()).or_default() += 1;
    }
    reasons
}

const GAVE_UP: &str = "the active router gave up";
const NOT_HEARD: &str = "no active router was heard";

/// Processes that any of a process's threads has started.
fn children(pid: u32) -> String {
    let Ok(tasks) = fs::read_dir(format!("/proc/{pid}/task")) else { return String::new() };
    let of_each = tasks.map(|task| fs::read_to_string(task.unwrap().path().join("children")));
    of_each.map(Result::unwrap_or_default).collect::<String>().trim().to_owned()
}

isolated! {
    fn a_killed_daemon_gives_up_every_router_and_its_successor_follows_its_word() {
        let mut lan = Lan::new();
        let (a, b, c) = (lan.host(), lan.host(), lan.host());
        let all = |priority: u8| [
            ("v3", 51, format!("vips = [\"{VIP}\", \"192.0.2.101\"]")),
            ("v2", 52, "vips = [\"192.0.2.102/24\"]\nversion = \"2\"\nauth_pass = \"abc\"".into()),
            ("v6", 53, "vips = [\"fe80::53\", \"2001:db8::53\"]".into()),
        ].map(|(name, vrid, keys)| {
            let keys = format!(
                "vrid = {vrid}\n{keys}\nadvert_interval = 1\npriority = {priority}\n{FOR_EVER}"
            );
            (name.to_owned(), keys)
        });
        let mut first = a.daemon(&routers(&a, &all(200)));
        all_are(&first, "active");
        let second = b.daemon(&routers(&b, &all(100)));
        all_are(&second, "backup");
        a.within(|| {
            let mut requests = Requests::open().unwrap();
            let index = lab::index_of(&mut requests, "eth0");
            for own in ["192.0.2.77", OWN] {
                requests.add_address(index, Prefix::host(ip(own))).unwrap();
            }
        });
        let vips = [VIP, "192.0.2.101", "192.0.2.102", "fe80::53", "2001:db8::53"];
        wait("all VIPs are there", || vips.iter().all(|vip| a.has(vip)));
        let guard = first.guard();
        let mut v4 = Listener::at(&c, "eth0", Family::V4);
        let mut v6 = Listener::at(&c, "eth0", Family::V6);
        first.kill();
        wait("priority 0 is heard for all", || {
            v4.read();
            v6.read();
            v4.resigned.keys().copied().eq([51, 52]) && v6.resigned.keys().copied().eq([53])
        });
        wait("the VIPs are gone", || !vips.iter().any(|vip| a.has(vip)));
        wait("the guard is gone too", || !lives(guard));
        all_are(&second, "active");
        assert_eq!(reasons(&second), BTreeMap::from([(GAVE_UP.to_owned(), 3)]));
        wait("it has the VIPs", || vips.iter().all(|vip| b.has(vip)));
        for own in [a.ip().as_str(), "192.0.2.77", OWN] {
            assert!(a.has(own), "{own} is the box's own");
        }
        first.wait_for_log("3 adverts with priority 0 sent, 5 addresses taken away");
    }
}

isolated! {
    fn the_owners_own_address_stays_when_its_daemon_dies() {
        let mut lan = Lan::new();
        let (a, c) = (lan.host(), lan.host());
        a.within(|| {
            let mut requests = Requests::open().unwrap();
            let index = lab::index_of(&mut requests, "eth0");
            requests.add_address(index, Prefix::host(ip(OWN))).unwrap();
        });
        let keys = format!("vips = [\"{OWN}\", \"{VIP}\"]\npriority = 255\n{FOR_EVER}");
        let mut daemon = a.daemon(&a.router("51", &keys));
        daemon.wait_for("active");
        wait("the VIP is there", || a.has(VIP));
        daemon.guard();
        let mut listener = Listener::on(&c);
        daemon.kill();
        wait("the VIP is gone", || !a.has(VIP));
        wait("priority 0", || listener.gave_up());
        assert!(a.has(OWN));
    }
}

isolated! {
    fn on_a_kernel_that_keeps_no_owners_the_will_says_what_was_put() {
        let mut lan = Lan::new();
        let a = lan.host();
        let address = |words: &str| _ = a.run_ip(&format!("address {words} dev eth0"));
        let life = "valid_lft 600 preferred_lft 600";
        // Nothing carries a mark but the VIPs, which then lose it.
        a.without_marks();
        // A VIP that another program put there before.
        address(&format!("add 192.0.2.200/32 {life}"));
        let with = |vips: &str| {
            a.router("51", &format!("vips = [{vips}]\npriority = 255\naddress_lifetime = 600"))
        };
        let mut daemon = a.daemon(&with(&format!("\"{OWN}\"")));
        daemon.wait_for("active");
        // Before the VIPs are there with their marks, it has looked at what the kernel keeps.
        daemon.guard();
        let all = with(&format!("\"{OWN}\", \"{VIP}\", \"192.0.2.101\""));
        daemon.reload(&a.config(&all));
        wait("the VIPs are there", || a.has(VIP) && a.has("192.0.2.101"));
        daemon.signal("-STOP");
        for vip in ["192.0.2.100/32", "192.0.2.101/32"] {
            address(&format!("del {vip}"));
        }
        address(&format!("add 192.0.2.100/32 {life}"));
        // Nobody's business: one that an operator set in place of the VIP, and one that is none.
        address("add 192.0.2.101/32");
        address(&format!("add 192.0.2.77/32 {life}"));
        daemon.kill();
        wait("the VIP is gone", || !a.has(VIP));
        wait("it is done", || daemon.log().contains("1 addresses taken away"));
        assert!([OWN, "192.0.2.101", "192.0.2.77"].iter().all(|other| a.has(other)));
    }
}

isolated! {
    fn a_daemon_that_aborts_or_crashes_is_answered_for_like_one_that_is_killed() {
        let mut lan = Lan::new();
        let (a, c) = (lan.host(), lan.host());
        let mut listener = Listener::on(&c);
        for name in ["-ABRT", "-ILL", "-KILL"] {
            let mut daemon = a.daemon(&one(&a, 100, FOR_EVER));
            daemon.wait_for("active");
            wait("the VIP is there", || a.has(VIP));
            daemon.guard();
            listener.forget();
            daemon.signal(name);
            assert!(!daemon.ended().success(), "{name}");
            wait("the VIP is gone", || !a.has(VIP));
            wait("priority 0", || listener.gave_up());
        }
    }
}

isolated! {
    fn signals_that_are_no_order_end_neither_the_daemon_nor_its_guard() {
        let mut lan = Lan::new();
        let a = lan.host();
        let daemon = a.daemon(&one(&a, 100, FOR_EVER));
        daemon.wait_for("active");
        let guard = daemon.guard();
        let send = |name: &str, pid: u64| {
            let status = Command::new("kill").arg(name).arg(pid.to_string()).status();
            assert!(status.unwrap().success(), "{name} {pid}: it is gone");
        };
        for name in [
            "-ALRM", "-IO", "-PIPE", "-PROF", "-PWR", "-TTIN", "-TTOU", "-URG", "-VTALRM", "-WINCH",
            "-XFSZ", "-USR1", "-USR2", "-34", "-35", "-64",
        ] {
            // As `pkill havip` does, whose pattern fits both.
            send(name, guard);
            send(name, daemon.pid().into());
        }
        // A process that a signal has ended is a zombie until its parent looks.
        let alive = |pid: u64| {
            let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
            stat.rsplit_once(") ").is_some_and(|(_, rest)| rest.starts_with(['S', 'R', 'D']))
        };
        wait("the log has the status", || {
            daemon.log().contains("node gw1  havip ") && daemon.log().contains("ROUTER ")
        });
        wait("and the counters", || {
            daemon.log().contains("counters: router 51: ")
                && daemon.log().contains("master_transitions 1")
        });
        assert!(alive(guard) && alive(daemon.pid().into()), "{}", daemon.log());
        assert_eq!(daemon.state(), "active");
        assert_eq!(daemon.guard(), guard, "the same one");
        assert!(!daemon.log().contains("warn: guard"), "{}", daemon.log());
    }
}

isolated! {
    fn a_clean_end_says_priority_zero_once_and_the_guard_goes_silently() {
        let mut lan = Lan::new();
        let (a, c) = (lan.host(), lan.host());
        let mut daemon = a.daemon(&one(&a, 100, ""));
        daemon.wait_for("active");
        let guard = daemon.guard();
        let mut listener = Listener::on(&c);
        // As a service manager does it: the same signal to all.
        signal("-TERM", &guard.to_string());
        assert!(daemon.stop().success());
        wait("the guard ends", || !lives(guard));
        listener.read();
        assert_eq!(listener.resigned, BTreeMap::from([(51, 1)]));
        assert!(!daemon.log().contains("havip guard"), "{}", daemon.log());
    }
}

isolated! {
    fn signals_for_the_daemons_terminal_or_group_leave_the_guard_at_its_post() {
        let mut lan = Lan::new();
        let a = lan.host();
        let config = a.folder().join("group.toml");
        fs::write(&config, a.config(&one(&a, 100, FOR_EVER))).unwrap();
        let mut program = Command::new(env!("CARGO_BIN_EXE_havip"));
        program.arg("run").arg("--config").arg(&config).process_group(0);
        let log = a.folder().join("group.log");
        let mut child = a.start(&mut program, &log);
        wait("the VIP is there", || a.has(VIP));
        let said = || fs::read_to_string(&log).unwrap();
        let guard: u64 = children(child.id()).parse().unwrap();
        let named = || fs::read_to_string(format!("/proc/{guard}/comm")).unwrap_or_default();
        wait("it is ready", || named() == "havip-guard\n");
        let line = fs::read_to_string(format!("/proc/{guard}/cmdline")).unwrap();
        assert!(line.starts_with("havip\0guard\0"), "{line:?}");
        for name in ["-TERM", "-INT", "-HUP"] {
            signal(name, &guard.to_string());
        }
        signal("-KILL", &format!("-{}", child.id()));
        assert!(!child.wait().unwrap().success());
        wait("the VIP is gone", || !a.has(VIP));
        wait("and the guard", || !lives(guard));
        assert!(said().contains("1 adverts with priority 0 sent"), "{}", said());
    }
}

isolated! {
    fn a_guard_that_dies_is_replaced_and_its_successor_does_the_same() {
        let mut lan = Lan::new();
        let (a, c) = (lan.host(), lan.host());
        let mut daemon = a.daemon(&one(&a, 100, FOR_EVER));
        daemon.wait_for("active");
        wait("the VIP is there", || a.has(VIP));
        let first = daemon.guard();
        signal("-KILL", &first.to_string());
        wait("another one runs", || {
            let guard = daemon.status()["guard"].clone();
            guard["state"] == "running" && guard["pid"] != first && guard["starts"] == 2
        });
        daemon.wait_for_log("guard: process");
        let mut listener = Listener::on(&c);
        daemon.kill();
        wait("the VIP is gone", || !a.has(VIP));
        wait("priority 0", || listener.gave_up());
    }
}

isolated! {
    fn a_guard_that_is_stopped_is_replaced_and_its_successor_acts() {
        let mut lan = Lan::new();
        let a = lan.host();
        let mut daemon = a.daemon(&one(&a, 100, FOR_EVER));
        daemon.wait_for("active");
        wait("the VIP is there", || a.has(VIP));
        let first = daemon.guard();
        signal("-STOP", &first.to_string());
        wait("another one runs", || {
            let guard = daemon.status()["guard"].clone();
            guard["state"] == "running" && guard["pid"] != first
        });
        assert!(!lives(first) && daemon.log().contains("was stopped"), "{}", daemon.log());
        daemon.kill();
        wait("the VIP is gone", || !a.has(VIP));
    }
}

isolated! {
    fn a_guard_that_keeps_dying_is_started_less_often_and_its_absence_is_told() {
        let mut lan = Lan::new();
        let a = lan.host();
        let daemon = a.daemon(&one(&a, 100, ""));
        daemon.wait_for("active");
        for least in [100, 200, 400].map(Duration::from_millis) {
            let guard = daemon.guard();
            let before = clock::now();
            signal("-KILL", &guard.to_string());
            wait("another one runs", || {
                let guard_now = daemon.status()["guard"].clone();
                guard_now["state"] == "running" && guard_now["pid"] != guard
            });
            let pause = clock::now().since(before);
            assert!(pause >= least, "another one ran after {pause:?}, and not {least:?}");
        }
        let mut said = (None, String::new());
        wait("the check says so", || {
            // It may have died by itself meanwhile: then there is none to kill.
            if let Some(pid) = daemon.status()["guard"]["pid"].as_u64() {
                let _ = Command::new("kill").args(["-KILL", &pid.to_string()]).status();
            }
            said = daemon.check();
            said.1.starts_with("guard: absent: process ")
        });
        assert_eq!(said.0, Some(4), "{said:?}");
        assert_eq!(daemon.state(), "active", "nothing else is touched");
        daemon.guard();
        assert_eq!(daemon.check(), (Some(0), String::new()));
    }
}

isolated! {
    fn when_the_guard_dies_with_its_daemon_the_lifetime_takes_the_vip_away() {
        let mut lan = Lan::new();
        let (a, b) = (lan.host(), lan.host());
        let mut first = a.daemon(&one(&a, 200, "address_lifetime = 4"));
        first.wait_for("active");
        let second = b.daemon(&one(&b, 100, ""));
        second.wait_for("backup");
        wait("the VIP is there", || a.has(VIP));
        let guard = first.guard();
        // So that it cannot start another.
        first.signal("-STOP");
        signal("-KILL", &guard.to_string());
        first.kill();
        second.wait_for("active");
        assert_eq!(reasons(&second), BTreeMap::from([(NOT_HEARD.to_owned(), 1)]));
        wait("its lifetime has ended", || !a.has(VIP));
    }
}

isolated! {
    fn the_end_of_a_process_namespace_takes_the_guard_along_and_leaves_the_lifetime() {
        const NAME: &str =
            "the_end_of_a_process_namespace_takes_the_guard_along_and_leaves_the_lifetime";
        let mut lan = Lan::new();
        let (a, b) = (lan.host(), lan.host());
        let config = a.folder().join("init.toml");
        fs::write(&config, a.config(&one(&a, 200, "address_lifetime = 4"))).unwrap();
        let mut program = Command::new("unshare");
        program.args(["--pid", "--fork", "--mount-proc", "--kill-child"]);
        program.arg(env!("CARGO_BIN_EXE_havip")).arg("run").arg("--config").arg(&config);
        let log = a.folder().join("init.log");
        let mut outer = a.start(&mut program, &log);
        let mut init = String::new();
        let started = lab::holds_within(lab::LIMIT, || {
            init = children(outer.id());
            a.has(VIP) || outer.try_wait().unwrap().is_some()
        });
        assert!(started);
        if !a.has(VIP) {
            return lab::skip(NAME, &fs::read_to_string(&log).unwrap());
        }
        let second = b.daemon(&one(&b, 100, ""));
        second.wait_for("backup");
        let guard: u64 = children(init.parse().unwrap()).parse().unwrap();
        // Else it might be quicker than the kernel, which ends all others after the first.
        signal("-STOP", &guard.to_string());
        signal("-KILL", &init);
        wait("the guard is gone with its namespace", || !lives(guard));
        second.wait_for("active");
        assert_eq!(reasons(&second), BTreeMap::from([(NOT_HEARD.to_owned(), 1)]));
        wait("its lifetime has ended", || !a.has(VIP));
        let _ = outer.wait();
    }
}

isolated! {
    fn when_a_whole_cgroup_is_killed_the_lifetime_takes_the_vip_away() {
        const NAME: &str = "when_a_whole_cgroup_is_killed_the_lifetime_takes_the_vip_away";
        let mounts = fs::read_to_string("/proc/mounts").unwrap();
        let root = mounts.lines().find_map(|line| {
            let mut words = line.split(' ').skip(1);
            let (place, kind) = (words.next()?, words.next()?);
            (kind == "cgroup2").then(|| Path::new(place).to_owned())
        });
        let Some(group) = root.map(|root| root.join(format!("havip-test-{}", std::process::id())))
        else {
            return lab::skip(NAME, "no cgroup2");
        };
        if let Err(error) = fs::create_dir(&group) {
            return lab::skip(NAME, &format!("{}: {error}", group.display()));
        }
        /// The group goes when it is empty.
        struct Group<'a>(&'a Path);
        impl Drop for Group<'_> {
            fn drop(&mut self) {
                let _ = fs::write(self.0.join("cgroup.kill"), "1");
                let _ = lab::holds_within(lab::LIMIT, || fs::remove_dir(self.0).is_ok());
            }
        }
        let _group = Group(&group);
        if !group.join("cgroup.kill").exists() {
            return lab::skip(NAME, "no cgroup.kill: needs Linux 5.14");
        }
        let mut lan = Lan::new();
        let a = lan.host();
        let config = a.folder().join("group.toml");
        fs::write(&config, a.config(&one(&a, 100, "address_lifetime = 4"))).unwrap();
        let mut program = Command::new("sh");
        program.args(["-c", "echo $$ >\"$0/cgroup.procs\" && exec \"$@\""]).arg(&group);
        program.arg(env!("CARGO_BIN_EXE_havip")).arg("run").arg("--config").arg(&config);
        let mut child = a.start(&mut program, &a.folder().join("group.log"));
        wait("the VIP is there", || a.has(VIP));
        let procs = || fs::read_to_string(group.join("cgroup.procs")).unwrap();
        assert_eq!(procs().lines().count(), 2, "the daemon and its guard: {}", procs());
        fs::write(group.join("cgroup.kill"), "1").unwrap();
        assert!(!child.wait().unwrap().success());
        wait("both are gone", || procs().is_empty());
        wait("the VIP is gone", || !a.has(VIP));
    }
}

isolated! {
    fn an_interface_that_is_gone_keeps_nothing_from_the_others() {
        let mut lan = Lan::new();
        let (a, c) = (lan.host(), lan.host());
        let far = c.within(|| netns::current().unwrap());
        let (near, far_end) = (lab::name("eth1"), lab::name("far1"));
        a.within(|| {
            let mut requests = Requests::open().unwrap();
            requests.add_veth(&near, &far_end, Some(far.as_fd())).unwrap();
        });
        for (host, name, own) in [(&a, &near, "198.51.100.1"), (&c, &far_end, "198.51.100.2")] {
            host.within(|| {
                let mut requests = Requests::open().unwrap();
                let index = lab::index_of(&mut requests, name.as_str());
                requests.add_address(index, Prefix { ip: ip(own), len: 24 }).unwrap();
                requests.set_up(index, true).unwrap();
            });
        }
        // eth0's router comes first in every order.
        let text = routers(&a, &[
            ("a51".into(), format!("vrid = 51\nvips = [\"{VIP}\"]\n{FOR_EVER}")),
            ("b52".into(), format!("vrid = 52\nvips = [\"198.51.100.9\"]\n{FOR_EVER}")),
        ]);
        let (before, after) = text.split_at(text.find("b52]").unwrap());
        let mut daemon = a.daemon(&format!("{before}{}", after.replace("eth0", "eth1")));
        all_are(&daemon, "active");
        wait("the VIPs are there", || a.has(VIP) && a.has("198.51.100.9"));
        daemon.guard();
        let mut listener = Listener::at(&c, "far1", Family::V4);
        daemon.signal("-STOP");
        lan.delete(&a);
        daemon.kill();
        wait("priority 0", || listener.gave_up());
        assert_eq!(listener.resigned.keys().collect::<Vec<_>>(), [&52]);
        wait("the VIP is gone", || !a.has("198.51.100.9"));
        wait("it says so", || daemon.log().contains("1 adverts with priority 0 sent, 1 address"));
    }
}

isolated! {
    fn a_packet_that_cannot_go_keeps_none_of_the_others_back() {
        let mut lan = Lan::new();
        let (a, c) = (lan.host(), lan.host());
        let many: Vec<String> = (1..=200).map(|n| format!("\"198.51.100.{n}\"")).collect();
        let keys = |vrid: u8, vips: &str| format!("vrid = {vrid}\nvips = [{vips}]\n{FOR_EVER}");
        let mut daemon = a.daemon(&routers(&a, &[
            ("a51".into(), keys(51, &many.join(", "))),
            ("b52".into(), keys(52, &format!("\"{VIP}\""))),
        ]));
        all_are(&daemon, "active");
        wait("the VIPs are there", || a.has(VIP) && a.has("198.51.100.200"));
        daemon.guard();
        let mut listener = Listener::on(&c);
        daemon.signal("-STOP");
        // Smaller than an advert with 200 addresses.
        a.run_ip("link set eth0 mtu 600");
        daemon.kill();
        wait("priority 0", || listener.gave_up());
        assert_eq!(listener.resigned.keys().collect::<Vec<_>>(), [&52]);
        wait("the VIPs are gone", || !a.has(VIP) && !a.has("198.51.100.200"));
    }
}

isolated! {
    fn two_hundred_and_fifty_routers_are_given_up() {
        const COUNT: u8 = 250;
        let mut lan = Lan::new();
        let (a, c) = (lan.host(), lan.host());
        let vip = |number: u8| format!("198.51.100.{number}");
        let text = routers(&a, &(1..=COUNT).map(|number| {
            (number.to_string(), format!("vips = [\"{}\"]\n{FOR_EVER}", vip(number)))
        }).collect::<Vec<_>>());
        let mut daemon = a.daemon(&text);
        all_are(&daemon, "active");
        let held = || a.snapshot().addresses.iter()
            .filter(|address| address.prefix.ip.to_string().starts_with("198.51.100.")).count();
        wait("all VIPs are there", || held() == usize::from(COUNT));
        daemon.guard();
        let mut listener = Listener::on(&c);
        daemon.kill();
        wait("priority 0 of each", || {
            listener.read();
            listener.resigned.keys().copied().eq(1..=COUNT)
        });
        wait("all VIPs are gone", || held() == 0);
    }
}

isolated! {
    fn the_guard_is_nothing_to_be_run_by_hand_and_may_be_switched_off() {
        let by_hand = |arguments: &[&str], stdin: Stdio| {
            let mut program = Command::new(env!("CARGO_BIN_EXE_havip"));
            let output = program.args(arguments).stdin(stdin).output().unwrap();
            (String::from_utf8(output.stderr).unwrap(), output.status.code())
        };
        for arguments in [&["guard"][..], &["guard", "1"], &["guard", "x"]] {
            for stdin in [Stdio::null(), Stdio::piped()] {
                let (text, code) = by_hand(arguments, stdin);
                assert_eq!(code, Some(2), "{text}");
                assert!(text.contains("the daemon starts it by itself"), "{text}");
            }
        }
        let help = Command::new(env!("CARGO_BIN_EXE_havip")).arg("--help").output().unwrap();
        assert!(!String::from_utf8(help.stdout).unwrap().contains("guard"));

        let mut lan = Lan::new();
        let a = lan.host();
        let daemon = a.daemon_of(&a.config_without_guard(&one(&a, 100, "")));
        daemon.wait_for("active");
        let status = daemon.status();
        assert_eq!(status["guard"]["state"], "off", "{status:#}");
        assert_eq!(status["guard"]["starts"], 0);
    }
}
