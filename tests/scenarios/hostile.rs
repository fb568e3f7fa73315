//! Whoever is on the LAN can send anything to the group: what each packet counts as, and that it
//! moves nobody unless it is an advert that the protocol must believe.

mod forged;

use std::collections::BTreeMap;

use havip::linux::netlink::Requests;
use havip::linux::{MAX_SEND, PacketSocket, clock};
use havip::wire::vrrp::{Auth, Centis, SumForm, Version};
use havip::wire::{IfIndex, Mac};

use super::*;
use crate::lab::{index_of, ip as address};
use forged::{Forged, To, VIP2, VIP6};

/// What a packet is counted as: `IPv4.` and `IPv6.` are the sockets' counters, others a router's.
type Counts = &'static [&'static str];

struct Row {
    what: &'static str,
    to: To,
    forge: fn(&mut Forged),
    /// At the active gateway, at the backup.
    counts: [Counts; 2],
}

const fn row(what: &'static str, to: To, forge: fn(&mut Forged), counts: Counts) -> Row {
    Row { what, to, forge, counts: [counts, counts] }
}

/// One that must be believed. It has less priority than the active router, which stays.
const fn accepted(what: &'static str, to: To, forge: fn(&mut Forged)) -> Row {
    let counts: Counts = match to {
        To::Three => &["51.adverts_received"],
        To::Two => &["52.adverts_received"],
        To::Six => &["v6.adverts_received"],
    };
    row(what, to, forge, counts)
}

/// None of these makes anyone active or a backup.
const ROWS: &[Row] = &[
    accepted("an advert that has nothing wrong", To::Three, |_| {}),
    accepted("an IP header with options", To::Three, |f| f.options = &[0x94, 4, 0, 0]),
    accepted("Ethernet padding", To::Three, |f| f.padding = 18),
    accepted("the checksum of RFC 5798", To::Three, |f| f.sum = SumForm::PseudoHeader),
    accepted("reserved bits that are set", To::Three, |f| f.message = |m| m[4] |= 0xf0),
    row("TTL 254", To::Three, |f| f.header = |h| h[8] = 254, &["IPv4.ip_ttl_errors"]),
    row("TTL 0", To::Three, |f| f.header = |h| h[8] = 0, &["IPv4.ip_ttl_errors"]),
    row("a wrong checksum", To::Three, |f| f.sum_off_by = 1, &["IPv4.checksum_errors"]),
    row("type 2", To::Three, |f| f.message = |m| m[0] = 0x32, &["IPv4.invalid_type_packets"]),
    row("type 0", To::Three, |f| f.message = |m| m[0] = 0x30, &["IPv4.invalid_type_packets"]),
    row("version 4", To::Three, |f| f.message = |m| m[0] = 0x41, &["IPv4.version_errors"]),
    row("version 0", To::Three, |f| f.message = |m| m[0] = 0x01, &["IPv4.version_errors"]),
    row("VRID 0", To::Three, |f| f.vrid = 0, &["IPv4.vrid_errors"]),
    row(
        "a VRID of nobody here",
        To::Three,
        |f| {
            f.vrid = 99;
            f.addresses = vec![address("192.0.2.199")];
        },
        &["IPv4.unknown_vrid"],
    ),
    row(
        "a VRID of nobody here with our address",
        To::Three,
        |f| f.vrid = 98,
        &["IPv4.unknown_vrid", "51.misconfigured"],
    ),
    row("count 0", To::Three, |f| f.addresses.clear(), &["IPv4.address_count_errors"]),
    row(
        "count 0 before an address",
        To::Three,
        |f| f.message = |m| m[3] = 0,
        &["IPv4.address_count_errors"],
    ),
    row(
        "a count of more than there is",
        To::Three,
        |f| f.message = |m| m[3] = 2,
        &["IPv4.packet_length_errors"],
    ),
    row(
        "a count of 255",
        To::Three,
        |f| f.message = |m| m[3] = 255,
        &["IPv4.packet_length_errors"],
    ),
    row(
        "bytes behind the addresses",
        To::Three,
        |f| f.message = |m| m.extend([0; 4]),
        &["IPv4.packet_length_errors"],
    ),
    row(
        "an address cut in half",
        To::Three,
        |f| f.message = |m| m.truncate(10),
        &["IPv4.packet_length_errors"],
    ),
    row(
        "seven bytes",
        To::Three,
        |f| f.message = |m| m.truncate(7),
        &["IPv4.packet_length_errors"],
    ),
    row(
        "no byte behind the IP header",
        To::Three,
        |f| f.message = Vec::clear,
        &["IPv4.packet_length_errors"],
    ),
    row("interval 0", To::Three, |f| f.message = |m| m[5] = 0, &["IPv4.zero_interval_errors"]),
    row("an IP length beyond the frame's end", To::Three, |f| f.header = |h| h[3] += 1, &[]),
    row("a fragment", To::Three, |f| f.header = |h| h[6] = 0x20, &[]),
    row(
        "version 2 with our address",
        To::Three,
        |f| f.version = Version::V2,
        &["51.version_errors", "51.misconfigured"],
    ),
    row(
        "version 2 of others",
        To::Three,
        |f| {
            f.version = Version::V2;
            f.addresses = vec![address("192.0.2.199")];
        },
        &["51.version_errors", "51.foreign_cluster"],
    ),
    row(
        "other addresses",
        To::Three,
        |f| {
            // One who never named an address of ours.
            f.source = address("192.0.2.77");
            f.addresses = vec![address("192.0.2.199")];
        },
        &["51.foreign_cluster", "51.address_list_errors"],
    ),
    row(
        "an address too many",
        To::Three,
        |f| f.addresses.push(address("192.0.2.199")),
        &["51.adverts_received", "51.address_list_errors"],
    ),
    row(
        "another interval, learned by a backup",
        To::Three,
        |f| f.interval = Centis(200),
        &["51.adverts_received", "51.interval_errors"],
    ),
    Row {
        what: "the active router's own address as its source",
        to: To::Three,
        forge: |f| f.source = address("192.0.2.1"),
        // The kernel lets nobody in with an address of its own.
        counts: [&[], &["51.adverts_received"]],
    },
    Row {
        what: "the backup's own address as its source",
        to: To::Three,
        forge: |f| f.source = address("192.0.2.2"),
        counts: [&["51.adverts_received"], &[]],
    },
    accepted("version 2 with its password", To::Two, |_| {}),
    row(
        "another password",
        To::Two,
        |f| f.auth = Auth::Simple(*b"s3creT\0\0"),
        &["52.auth_errors", "52.misconfigured"],
    ),
    row("no password", To::Two, |f| f.auth = Auth::None, &["52.auth_errors", "52.misconfigured"]),
    row(
        "an authentication that nobody has",
        To::Two,
        |f| f.auth = Auth::Other(2),
        &["52.auth_errors", "52.misconfigured"],
    ),
    row(
        "another password, of others",
        To::Two,
        |f| {
            f.auth = Auth::Simple([0; 8]);
            f.addresses = vec![address("192.0.2.199")];
        },
        &["52.auth_errors", "52.foreign_cluster"],
    ),
    row(
        "version 2 with another interval",
        To::Two,
        |f| f.interval = Centis(500),
        &["52.interval_errors", "52.misconfigured"],
    ),
    row(
        "version 2 with interval 0",
        To::Two,
        |f| f.message = |m| m[5] = 0,
        &["IPv4.zero_interval_errors"],
    ),
    row(
        "version 2 that ends before its password",
        To::Two,
        |f| f.message = |m| m.truncate(12),
        &["IPv4.packet_length_errors"],
    ),
    row(
        "version 3 for a router of version 2",
        To::Two,
        |f| f.version = Version::V3,
        &["52.version_errors", "52.misconfigured"],
    ),
    accepted("an advert over IPv6", To::Six, |_| {}),
    row("Hop Limit 254", To::Six, |f| f.header = |h| h[7] = 254, &["IPv6.ip_ttl_errors"]),
    row(
        "a checksum without the pseudo-header",
        To::Six,
        |f| f.sum = SumForm::Message,
        &["IPv6.checksum_errors"],
    ),
    row(
        "a first address that is not link-local",
        To::Six,
        |f| {
            f.addresses = vec![address("2001:db8::51")];
        },
        &["IPv6.first_address_errors"],
    ),
    row("version 2 over IPv6", To::Six, |f| f.message = |m| m[0] = 0x21, &["v6.version_errors"]),
    row(
        "an IPv6 address cut in half",
        To::Six,
        |f| f.message = |m| m.truncate(16),
        &["IPv6.packet_length_errors"],
    ),
    row("IPv6 with count 0", To::Six, |f| f.addresses.clear(), &["IPv6.address_count_errors"]),
];

/// These move by themselves, or at most so often in an interval.
const MOVING: [&str; 5] =
    ["adverts_sent", "announcements", "late_adverts", "overslept", "conflicts_won"];

/// Every counter of a gateway that the LAN moves, and each router's state as one more.
fn counters(status: &Value) -> BTreeMap<String, u64> {
    let mut all = BTreeMap::new();
    for router in status["vrrp"]["routers"].as_array().unwrap() {
        let name = router["name"].as_str().unwrap();
        all.insert(format!("{name} is active"), u64::from(router["state"] == "active"));
        for (counter, value) in router["counters"].as_object().unwrap() {
            if !MOVING.contains(&counter.as_str()) {
                all.insert(format!("{name}.{counter}"), value.as_u64().unwrap());
            }
        }
    }
    for port in status["vrrp"]["ports"].as_array().unwrap() {
        let family = port["family"].as_str().unwrap();
        for (reason, value) in port["discarded"].as_object().unwrap() {
            all.insert(format!("{family}.{reason}"), value.as_u64().unwrap());
        }
        for counter in ["unknown_vrid", "malformed", "send_errors"] {
            all.insert(format!("{family}.{counter}"), port[counter].as_u64().unwrap());
        }
    }
    all
}

/// An active gateway, its backup, both with three routers, and a host that sends what it likes.
struct Scene {
    gateways: [Daemon; 2],
    hosts: [Host; 2],
    stranger: Host,
    mac: Mac,
    socket: (PacketSocket, IfIndex),
}

impl Scene {
    fn start(interval: &str) -> Self {
        let mut lan = Lan::new();
        let hosts = [lan.host(), lan.host()];
        let stranger = lan.host();
        let start = |host: &Host, priority: u8| {
            let number = host.number();
            host.daemon(&format!(
                "[node.gw{number}]\nvrids = [\"51\", \"52\", \"v6\"]\n[virtual_router.default]\n\
                 interface = \"eth0\"\npriority = {priority}\n\
                 [virtual_router.51]\nvips = [\"{VIP}\"]\nadvert_interval = {interval}\n\
                 [virtual_router.52]\nvips = [\"{VIP2}\"]\nversion = \"2\"\nauth_pass = \"s3cret\"\n\
                 [virtual_router.v6]\nvrid = 51\nvips = [\"{VIP6}\"]\n\
                 advert_interval = {interval}\n"
            ))
        };
        let all = |daemon: &Daemon, state: &str| {
            let status = daemon.status();
            let routers = status["vrrp"]["routers"].as_array().unwrap();
            routers.len() == 3 && routers.iter().all(|router| router["state"] == state)
        };
        let first = start(&hosts[0], 150);
        wait("it is active in all", || all(&first, "active"));
        let second = start(&hosts[1], 100);
        wait("the other hears it in all", || {
            let status = second.status();
            let routers = status["vrrp"]["routers"].as_array().unwrap().clone();
            all(&second, "backup")
                && routers.iter().all(|router| router["counters"]["adverts_received"] != 0)
        });
        let mac = stranger.mac();
        let socket = stranger.within(|| {
            let index = index_of(&mut Requests::open().unwrap(), "eth0");
            (PacketSocket::open().unwrap(), index)
        });
        Self { gateways: [first, second], hosts, stranger, mac, socket }
    }

    /// A frame to one of the routers.
    fn forge(&self, to: To, forge: fn(&mut Forged)) -> Vec<u8> {
        let source = if to == To::Six {
            format!("fe80::{}", self.stranger.number())
        } else {
            self.stranger.ip()
        };
        let mut forged = Forged::to(to, address(&source));
        if to == To::Six {
            forged.sum = SumForm::PseudoHeader;
        }
        forge(&mut forged);
        forged.frame(self.mac)
    }

    fn send(&self, frame: &[u8]) {
        assert_eq!(self.socket.0.send_batch(self.socket.1, &[frame]), (1, None));
    }

    /// The counters of both; what the backup has received is counted beside what the active
    /// gateway sent it. `None` when more was sent meanwhile.
    fn read(&self) -> Option<[BTreeMap<String, u64>; 2]> {
        let [before, backup, after] =
            [&self.gateways[0], &self.gateways[1], &self.gateways[0]].map(Daemon::status);
        let sent = |status: &Value| -> Vec<u64> {
            let routers = status["vrrp"]["routers"].as_array().unwrap().iter();
            routers.map(|router| router["counters"]["adverts_sent"].as_u64().unwrap()).collect()
        };
        if sent(&before) != sent(&after) {
            return None;
        }
        let mut backups = counters(&backup);
        let routers = after["vrrp"]["routers"].as_array().unwrap();
        for (router, sent) in routers.iter().zip(sent(&after)) {
            let name = format!("{}.adverts_received", router["name"].as_str().unwrap());
            let received = backups.get_mut(&name).unwrap();
            *received = received.wrapping_sub(sent);
        }
        Some([counters(&after), backups])
    }

    /// [`Self::read`], when all that was sent has arrived.
    fn settled(&self) -> [BTreeMap<String, u64>; 2] {
        let mut last = None;
        wait("nothing is under way", || {
            let now = self.read();
            let same = now.is_some() && now == last;
            last = now;
            same
        });
        last.unwrap()
    }
}

/// What differs, for the one who reads why a test failed.
fn difference(
    wanted: &[BTreeMap<String, u64>; 2],
    found: &[BTreeMap<String, u64>; 2],
) -> Vec<String> {
    let mut differing = Vec::new();
    for (who, (wanted, found)) in ["active", "backup"].iter().zip(wanted.iter().zip(found)) {
        let names: std::collections::BTreeSet<&String> =
            wanted.keys().chain(found.keys()).collect();
        for name in names {
            let [wanted, found] = [wanted, found].map(|all| all.get(name).copied().unwrap_or(0));
            if wanted != found {
                let more = found.wrapping_sub(wanted).cast_signed();
                differing.push(format!("{who}: {name} is {more:+} of what it should be"));
            }
        }
    }
    differing
}

isolated! {
    fn s14_each_packet_is_counted_as_what_it_is_and_moves_nobody() {
        let scene = Scene::start("1");
        let mut wanted = scene.settled();
        for Row { what, to, forge, counts } in ROWS {
            scene.send(&scene.forge(*to, *forge));
            for (wanted, names) in wanted.iter_mut().zip(counts) {
                for name in *names {
                    let count = wanted.entry((*name).to_owned()).or_default();
                    *count = count.wrapping_add(1);
                }
            }
            let mut last = Vec::new();
            let counted = lab::holds_within(lab::LIMIT, || {
                if let Some(found) = scene.read() {
                    last = difference(&wanted, &found);
                    return last.is_empty();
                }
                false
            });
            assert!(counted, "{what}: {last:#?}");
        }
        // The same bytes with more priority are what VRRP cannot but believe.
        scene.send(&scene.forge(To::Three, |f| f.priority = 200));
        wait("the active one gives way", || scene.gateways[0].state() == "backup");
        scene.gateways[0].wait_for("active");
        // And a farewell of the active router, forged by another.
        scene.send(&scene.forge(To::Three, |f| {
            f.source = address("192.0.2.1");
            f.priority = 0;
        }));
        wait("the backup takes over", || {
            router(&scene.gateways[1])["counters"]["master_transitions"] != 0
        });
        wait("the one with precedence has the VIP alone", || {
            scene.hosts[0].has(VIP) && !scene.hosts[1].has(VIP)
        });
    }
}

/// Resident memory in KiB.
fn resident(daemon: &Daemon) -> u64 {
    let text = std::fs::read_to_string(format!("/proc/{}/status", daemon.pid())).unwrap();
    let line = text.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().trim_end_matches(" kB").parse().unwrap()
}

/// Seconds of CPU so far, all threads.
fn cpu(daemon: &Daemon) -> f64 {
    let tasks = std::fs::read_dir(format!("/proc/{}/task", daemon.pid())).unwrap();
    let nanos = |task: std::io::Result<std::fs::DirEntry>| -> f64 {
        let text = std::fs::read_to_string(task.unwrap().path().join("schedstat")).unwrap();
        text.split(' ').next().unwrap().parse().unwrap()
    };
    tasks.map(nanos).sum::<f64>() / 1e9
}

/// Packets in each hundredth of a second: 10,000 a second.
const BURST: usize = 100;

/// Sends 10,000 packets a second for `seconds`, and says how long that took.
fn flood(scene: &Scene, frames: &[Vec<u8>], seconds: usize) -> f64 {
    let begin = clock::now();
    for burst in 0..100 * seconds {
        let due = begin + std::time::Duration::from_millis(10 * burst as u64);
        while clock::now() < due {
            std::thread::park_timeout(due.since(clock::now()));
        }
        let burst: Vec<&Vec<u8>> = frames.iter().cycle().skip(burst).take(BURST).collect();
        for part in burst.chunks(MAX_SEND) {
            // A queue that is full drops; there are more.
            let _ = scene.socket.0.send_batch(scene.socket.1, part);
        }
    }
    clock::now().since(begin).as_secs_f64()
}

isolated! {
    fn s14_ten_thousand_packets_a_second_move_nobody_and_fill_nothing() {
        let scene = Scene::start("0.1");
        let mixed: Vec<Vec<u8>> = ROWS
            .iter()
            .filter(|row| !row.counts[0].iter().any(|name| name.ends_with(".adverts_received")))
            .filter(|row| !row.counts[1].iter().any(|name| name.ends_with(".adverts_received")))
            .map(|row| scene.forge(row.to, row.forge))
            .collect();
        let floods: [(&str, Vec<Vec<u8>>, usize); 5] = [
            ("a wrong checksum", vec![scene.forge(To::Three, |f| f.sum_off_by = 1)], 1),
            ("VRIDs of others", vec![scene.forge(To::Three, |f| {
                f.vrid = 99;
                f.addresses = vec![address("192.0.2.199")];
            })], 0),
            ("our address under another VRID", vec![scene.forge(To::Three, |f| f.vrid = 98)], 1),
            ("an advert that loses", vec![scene.forge(To::Three, |f| f.interval = Centis(10))], 1),
            // One line a second and reason, of each family and router.
            ("every bad packet", mixed, 17),
        ];
        for (what, frames, lines_a_second) in floods {
            // The first ones may make it keep a little.
            flood(&scene, &frames, 1);
            let before = scene.gateways.each_ref().map(|daemon| {
                (resident(daemon), cpu(daemon), daemon.log().lines().count())
            });
            let seconds = flood(&scene, &frames, 3);
            for (daemon, (memory, busy, lines)) in scene.gateways.iter().zip(before) {
                let memory = resident(daemon).saturating_sub(memory);
                let busy = (cpu(daemon) - busy) / seconds * 100.0;
                let lines = daemon.log().lines().count() - lines;
                eprintln!(
                    "{what}: {seconds:.1} s, {} {busy:.0} % of a core, {memory} KiB more, \
                     {lines} lines",
                    daemon.state()
                );
                assert!(memory <= 256, "{what}: {memory} KiB more");
                let allowed = lines_a_second * (seconds.ceil() as usize + 1);
                assert!(lines <= allowed, "{what}: {lines} lines\n{}", daemon.log());
            }
        }
        for (daemon, transitions) in scene.gateways.iter().zip([1, 0]) {
            let status = daemon.status();
            for router in status["vrrp"]["routers"].as_array().unwrap() {
                assert_eq!(router["counters"]["master_transitions"], transitions, "{status:#}");
            }
        }
        assert!(scene.hosts[0].has(VIP) && !scene.hosts[1].has(VIP));
    }
}
