//! The fence: a kernel whose daemon stands still answers for none of its VIPs, though it has them.

#![cfg(feature = "daemon")]

#[macro_use]
mod lab;

use std::io::Write as _;
use std::net::IpAddr;
use std::process::{Command, Stdio};

use lab::asker::Asker;
use lab::{Daemon, Host, Lan, ip, wait};

const VIP: &str = "192.0.2.100";
/// So that nothing but the fence keeps a frozen kernel silent.
const FOR_EVER: &str = "address_lifetime = \"forever\"";
/// The file's first lines, before what `Host::config` writes.
const FENCED: &str = "[havip]\nfence = true\n";

fn fenced(text: &str) -> String {
    text.replacen("[havip]\n", FENCED, 1)
}

fn one(host: &Host, priority: u8, more: &str) -> String {
    let keys = format!(
        "vips = [\"{VIP}\"]\nadvert_interval = 0.2\npriority = {priority}\n{FOR_EVER}\n{more}"
    );
    host.config(&host.router("51", &keys))
}

/// An active daemon with a fence that stands.
fn start(host: &Host, text: &str) -> Daemon {
    let daemon = host.daemon_of(&fenced(text));
    daemon.wait_for("active");
    stands(&daemon);
    daemon
}

/// The same with one VIP, which the kernel has and which is behind it.
fn start_one(host: &Host) -> Daemon {
    let daemon = start(host, &one(host, 100, ""));
    wait("the VIP is behind it", || host.has(VIP) && is_behind(host, VIP));
    daemon
}

#[track_caller]
fn stands(daemon: &Daemon) {
    let stands = || daemon.status()["fence"]["state"] == "stands";
    assert!(lab::holds_within(lab::LIMIT, stands), "{:#}\n{}", daemon.status(), daemon.log());
}

fn nft(host: &Host, command: &str) -> String {
    let run = || Command::new("nft").args(command.split(' ')).output().unwrap();
    let output = host.within(run);
    assert!(output.status.success(), "nft {command}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// The tables of a host, one a line.
fn tables(host: &Host) -> String {
    nft(host, "list tables")
}

const OURS: &str = "table arp havip\ntable ip havip\ntable ip6 havip\n";

/// Whether a VIP is behind the fence.
fn is_behind(host: &Host, vip: &str) -> bool {
    let family = if vip.contains(':') { "ip6" } else { "arp" };
    nft(host, &format!("list set {family} havip vip")).contains(vip)
}

/// The host's own addresses, IPv4 and IPv6, once both are there to be asked for.
fn own(host: &Host) -> (IpAddr, IpAddr) {
    let found = || {
        let all = host.snapshot().addresses;
        let own = |address: &&havip::node::kernel::Address| {
            address.link_scope && !address.tentative && address.prefix.ip.is_ipv6()
        };
        all.iter().find(own).map(|address| address.prefix.ip)
    };
    wait("it has a link-local address", || found().is_some());
    (ip(&host.ip()), found().unwrap())
}

/// A daemon and its guard are killed; both have left what was there.
fn crash(host: &Host, daemon: &mut Daemon) {
    let guard = daemon.guard();
    daemon.signal("-STOP");
    assert!(Command::new("kill").args(["-KILL", &guard.to_string()]).status().unwrap().success());
    daemon.kill();
    assert!(host.has(VIP) && is_behind(host, VIP), "it was left behind");
}

isolated! {
    fn a_frozen_daemons_kernel_answers_for_no_vip_while_it_has_them() {
        let mut lan = Lan::new();
        let (a, client) = (lan.host(), lan.host());
        let (v4, v6) = own(&a);
        let text = format!(
            "[node.gw{}]\nvrids = [\"v4\", \"v6\"]\n[virtual_router.default]\n\
             interface = \"eth0\"\nadvert_interval = 0.1\n{FOR_EVER}\n\
             [virtual_router.v4]\nvrid = 51\nvips = [\"{VIP}\"]\n\
             [virtual_router.v6]\nvrid = 52\nvips = [\"fe80::52\", \"2001:db8::52\"]\n",
            a.number()
        );
        let daemon = start(&a, &a.config(&text));
        let vips = [(VIP, v4), ("fe80::52", v6), ("2001:db8::52", v6)];
        wait("all VIPs are there", || vips.iter().all(|(vip, _)| a.has(vip)));
        let asker = Asker::on(&client);
        let answered = || vips.map(|(vip, own)| asker.is_answered(a.mac(), vip, own));
        wait("it answers for all", || answered() == [true; 3]);
        assert!(client.reaches(VIP));
        daemon.signal("-STOP");
        wait("it answers for none", || answered() == [false; 3]);
        assert!(vips.iter().all(|(vip, _)| a.has(vip)));
        // A host that knows the way already does not get through either.
        let mac = a.mac();
        client.run_ip(&format!("neighbour replace {VIP} lladdr {mac} dev eth0"));
        assert!(client.reaches(&a.ip()) && !client.reaches(VIP));
        assert_eq!(answered(), [false; 3], "nor does it later");
        daemon.signal("-CONT");
        wait("it answers again", || answered() == [true; 3]);
        assert!(client.reaches(VIP));
    }
}

isolated! {
    fn who_wakes_and_gives_way_never_answers_beside_its_successor() {
        let mut lan = Lan::new();
        let (a, b, client) = (lan.host(), lan.host(), lan.host());
        let (own, _) = own(&a);
        let first = start(&a, &one(&a, 100, ""));
        let second = b.daemon_of(&one(&b, 200, "preempt = false"));
        second.wait_for("backup");
        let asker = Asker::on(&client);
        let answered = || asker.is_answered(a.mac(), VIP, own);
        wait("it answers", answered);
        assert!(is_behind(&a, VIP));
        first.signal("-STOP");
        second.wait_for("active");
        assert!(!answered() && a.has(VIP));
        let heard = asker.heard().len();
        first.signal("-CONT");
        wait("it gives way", || !answered() && !a.has(VIP) && first.state() == "backup");
        let since = asker.heard().into_iter().skip(heard);
        assert!(!since.into_iter().any(|answer| answer.from == a.mac() && answer.ip == ip(VIP)));
        wait("the fence went with the address", || !is_behind(&a, VIP));
        // One that an operator sets there is nobody's but his.
        a.run_ip(&format!("address add {VIP} dev eth0"));
        wait("it answers for the operator's", answered);
    }
}

isolated! {
    fn a_fence_stands_where_it_is_wanted_until_a_clean_stop_and_beside_others_tables() {
        let mut lan = Lan::new();
        let a = lan.host();
        nft(&a, "add table arp other");
        nft(&a, "add table inet havip");
        let others = tables(&a);
        let mut daemon = a.daemon_of(&one(&a, 100, ""));
        daemon.wait_for("active");
        assert_eq!(daemon.status()["fence"]["state"], "off");
        assert_eq!(tables(&a), others, "none is wanted");
        assert!(daemon.stop().success());
        let mut daemon = start_one(&a);
        for table in OURS.lines() {
            assert!(tables(&a).contains(table), "{}", tables(&a));
        }
        assert!(daemon.stop().success());
        assert_eq!(tables(&a), others);
    }
}

isolated! {
    fn after_a_kill_the_guard_removes_the_fence_with_the_addresses() {
        let mut lan = Lan::new();
        let a = lan.host();
        let mut daemon = start_one(&a);
        daemon.guard();
        daemon.kill();
        wait("all is gone", || !a.has(VIP) && tables(&a).is_empty());
    }
}

isolated! {
    fn what_a_crash_left_is_removed_at_the_next_start_with_a_fence_and_without() {
        let mut lan = Lan::new();
        let (a, client) = (lan.host(), lan.host());
        let asker = Asker::on(&client);
        let (own, _) = own(&a);
        for again in [true, false] {
            let mut daemon = start_one(&a);
            crash(&a, &mut daemon);
            // As of a VIP that is none any more.
            nft(&a, "add element arp havip vip { eth0 . 192.0.2.77 }");
            wait("and shuts", || !asker.is_answered(a.mac(), VIP, own));
            let text = one(&a, 100, "");
            let mut daemon = a.daemon_of(&if again { fenced(&text) } else { text });
            daemon.wait_for("active");
            wait("it answers", || asker.is_answered(a.mac(), VIP, own));
            assert_eq!(tables(&a), if again { OURS } else { "" });
            assert!(!again || !is_behind(&a, "192.0.2.77"));
            assert!(daemon.stop().success());
            assert_eq!(tables(&a), "");
        }
    }
}

isolated! {
    fn what_a_crash_left_is_found_in_the_kernel_though_its_run_dir_is_gone() {
        let mut lan = Lan::new();
        let (a, client) = (lan.host(), lan.host());
        let asker = Asker::on(&client);
        let (own, _) = own(&a);
        let mut daemon = start_one(&a);
        crash(&a, &mut daemon);
        std::fs::remove_dir_all(daemon.socket.parent().unwrap()).unwrap();
        let mut daemon = a.daemon_of(&one(&a, 100, ""));
        daemon.wait_for("active");
        wait("it answers", || asker.is_answered(a.mac(), VIP, own));
        assert_eq!(tables(&a), "");
        wait("it is told", || daemon.log().contains("removed the one that an earlier run had left"));
        assert!(daemon.stop().success());
    }
}

isolated! {
    fn an_operators_table_of_the_same_name_is_named_and_left_alone() {
        let mut lan = Lan::new();
        let a = lan.host();
        nft(&a, "add table ip havip");
        nft(&a, "add chain ip havip mine");
        let operators = nft(&a, "list ruleset");
        let mut daemon = a.daemon_of(&one(&a, 100, ""));
        daemon.wait_for("active");
        assert!(daemon.stop().success());
        assert_eq!(nft(&a, "list ruleset"), operators, "no fence is wanted");
        let mut daemon = a.daemon_of(&fenced(&one(&a, 100, "")));
        daemon.wait_for("active");
        wait("it is told", || {
            let why = daemon.status()["fence"]["why"].to_string();
            why.contains("table ip havip") && why.contains("not havip's")
        });
        assert_eq!(nft(&a, "list ruleset"), operators);
        assert!(daemon.stop().success());
        assert_eq!(nft(&a, "list ruleset"), operators);
        let mut daemon = a.daemon_of(&fenced(&one(&a, 100, "")));
        daemon.wait_for("active");
        let guard = daemon.guard();
        daemon.kill();
        wait("the guard has ended", || {
            !std::fs::exists(format!("/proc/{guard}")).unwrap() && !a.has(VIP)
        });
        assert_eq!(nft(&a, "list ruleset"), operators);
    }
}

isolated! {
    fn a_fence_that_someone_removes_is_built_anew() {
        let mut lan = Lan::new();
        let (a, client) = (lan.host(), lan.host());
        let daemon = start_one(&a);
        nft(&a, "flush ruleset");
        wait("it stands again", || tables(&a) == OURS && is_behind(&a, VIP));
        wait("it is told", || daemon.log().contains("someone removed its tables"));
        let asker = Asker::on(&client);
        let (own, _) = own(&a);
        wait("it answers", || asker.is_answered(a.mac(), VIP, own));
        daemon.signal("-STOP");
        wait("and shuts", || !asker.is_answered(a.mac(), VIP, own));
    }
}

isolated! {
    fn where_there_can_be_no_fence_that_is_told_and_all_goes_on_without() {
        let mut lan = Lan::new();
        let (a, client) = (lan.host(), lan.host());
        // A table of that name which belongs to another process.
        let mut program = Command::new("nft");
        program.arg("-i").stdin(Stdio::piped()).stdout(Stdio::null());
        havip::linux::die_with_parent(&mut program);
        let mut owner = a.within(|| program.spawn().unwrap());
        let mut stdin = owner.stdin.take().unwrap();
        stdin.write_all(b"add table arp havip { flags owner; }\n").unwrap();
        wait("it is there", || tables(&a).contains("table arp havip"));
        let daemon = a.daemon_of(&fenced(&one(&a, 100, "")));
        daemon.wait_for("active");
        wait("it is told", || daemon.status()["fence"]["state"] == "absent");
        let why = daemon.status()["fence"]["why"].to_string();
        assert!(why.contains("Operation not permitted") && why.contains("CAP_NET_ADMIN"), "{why}");
        wait("it is logged", || daemon.log().contains("fence: nf_tables refuse it"));
        let asker = Asker::on(&client);
        let (own, _) = own(&a);
        wait("it answers", || asker.is_answered(a.mac(), VIP, own));
        drop(stdin);
        owner.wait().unwrap();
        stands(&daemon);
        wait("it answers behind it", || {
            is_behind(&a, VIP) && asker.is_answered(a.mac(), VIP, own)
        });
    }
}
