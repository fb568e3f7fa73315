//! The kernel's edge against this kernel, each test in a network namespace of its own.
//!
//! They need root, or user namespaces and util-linux's `unshare`; a test that has neither says so
//! on standard error and is counted there.

#![cfg(feature = "daemon")]

use std::fs;
use std::io::{self, Write};
use std::net::IpAddr;
use std::os::fd::{AsFd, OwnedFd};
use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use havip::config::{IfName, Prefix};
use havip::linux::netlink::{Notifications, Requests, default_gateways};
use havip::linux::{PacketSocket, Received, RecvBatch, VrrpSocket, netns, rt, wait_readable};
use havip::node::kernel::{
    Address, Change, Errno, IFA_PROTO_HAVIP, Link, Op, Port, Snapshot, Verb,
};
use havip::wire::{Family, IfIndex, Mac};

/// Longer than anything that is waited for takes; only a failing test waits as long.
const LIMIT: Duration = Duration::from_secs(20);

/// Runs `body` in a new network namespace, on a thread of its own.
fn isolated(name: &'static str, body: fn()) {
    const WITHIN: &str = "HAVIP_TEST_IN_USER_NAMESPACE";
    let run = move || netns::unshare_net().is_ok().then(body).is_some();
    match std::thread::spawn(run).join() {
        Ok(true) => return,
        Ok(false) => {}
        Err(panic) => std::panic::resume_unwind(panic),
    }
    let mut within = Command::new("unshare");
    within.args(["--user", "--map-root-user"]);
    if std::env::var_os(WITHIN).is_some() || !within.arg("true").status().is_ok_and(|s| s.success())
    {
        return skip(name, "needs root");
    }
    let output = Command::new("unshare")
        .args(["--user", "--map-root-user"])
        .arg(std::env::current_exe().unwrap())
        .args([name, "--exact", "--test-threads=1"])
        .env(WITHIN, "1")
        .output()
        .unwrap();
    io::stderr().write_all(&output.stderr).unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
}

/// Says so past libtest's capture, so that it is seen of a test that passes.
fn skip(name: &str, why: &str) {
    static SKIPPED: AtomicUsize = AtomicUsize::new(0);
    let count = SKIPPED.fetch_add(1, Ordering::Relaxed) + 1;
    writeln!(io::stderr(), "skipped: {why} ({name}; {count} so far)").unwrap();
}

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn prefix(text: &str, len: u8) -> Prefix {
    Prefix { ip: ip(text), len }
}

fn name(text: &str) -> IfName {
    IfName::new(text).unwrap()
}

fn put(index: IfIndex, address: &str, lifetime: Option<u32>) -> Op {
    Op { index, prefix: Prefix::host(ip(address)), verb: Verb::Put { lifetime } }
}

fn remove(index: IfIndex, prefix: Prefix) -> Op {
    Op { index, prefix, verb: Verb::Remove }
}

fn link(snapshot: &Snapshot, wanted: &str) -> Link {
    snapshot.links.iter().find(|link| link.name.as_str() == wanted).unwrap().clone()
}

fn address(snapshot: &Snapshot, index: IfIndex, wanted: &str) -> Option<Address> {
    let wanted = ip(wanted);
    snapshot.addresses.iter().find(|a| a.index == index && a.prefix.ip == wanted).copied()
}

/// A bridge that is up: the simplest interface that every kernel has.
fn bridge(requests: &mut Requests) -> IfIndex {
    requests.add_bridge(&name("br0")).unwrap();
    let index = link(&requests.dump().unwrap(), "br0").index;
    requests.set_up(index, true).unwrap();
    index
}

/// Another network namespace at the other end of a wire; both ends up and with addresses.
struct Wire {
    home: OwnedFd,
    away: OwnedFd,
    near: Link,
    far: Link,
}

impl Wire {
    /// `near` has 10.9.0.1/24 and fe80::1, `far` 10.9.0.2/24 and fe80::2.
    fn new() -> Self {
        let home = netns::current().unwrap();
        netns::unshare_net().unwrap();
        let away = netns::current().unwrap();
        netns::enter(&home).unwrap();
        let mut notifications = Notifications::open(Notifications::RECEIVE_BUFFER).unwrap();
        let mut requests = Requests::open().unwrap();
        requests.add_veth(&name("near"), &name("far"), Some(away.as_fd())).unwrap();
        let near = end("near", "10.9.0.1", "fe80::1");
        netns::enter(&away).unwrap();
        let far = end("far", "10.9.0.2", "fe80::2");
        netns::enter(&home).unwrap();
        // It was up first, so it has a queue only some time after it got its carrier, and until
        // then the kernel throws away what is sent, without an error.
        let runs = |c: &Change| matches!(c, Change::Link(l) if l.name == near.name && l.running);
        changes_until(&mut notifications, |changes| changes.iter().any(runs));
        Self { home, away, near, far }
    }

    fn away<T>(&self, body: impl FnOnce() -> T) -> T {
        netns::enter(&self.away).unwrap();
        let result = body();
        netns::enter(&self.home).unwrap();
        result
    }

    fn sockets(&self, family: Family) -> (VrrpSocket, VrrpSocket) {
        let near = VrrpSocket::open(Port { index: self.near.index, family }).unwrap();
        let far = Port { index: self.far.index, family };
        (near, self.away(|| VrrpSocket::open(far).unwrap()))
    }
}

fn end(which: &str, v4: &str, v6: &str) -> Link {
    let mut requests = Requests::open().unwrap();
    let index = link(&requests.dump().unwrap(), which).index;
    // One link-local address only, and that without duplicate address detection, to use at once.
    fs::write(format!("/proc/sys/net/ipv6/conf/{which}/addr_gen_mode"), "1").unwrap();
    requests.set_up(index, true).unwrap();
    requests.add_address(index, prefix(v4, 24)).unwrap();
    let local = Op { index, prefix: prefix(v6, 64), verb: Verb::Put { lifetime: None } };
    assert_eq!(requests.apply(&[local]).unwrap(), [Ok(())]);
    link(&requests.dump().unwrap(), which)
}

/// Reads notifications until `done` says so of all that have come.
fn changes_until(from: &mut Notifications, done: impl Fn(&[Change]) -> bool) -> Vec<Change> {
    let mut changes = Vec::new();
    loop {
        while from.read(&mut changes, 64).unwrap() {}
        if done(&changes) {
            return changes;
        }
        assert!(wait_readable(&*from, LIMIT).unwrap(), "nothing more came after {changes:?}");
    }
}

/// An IP packet of protocol 112 from `source` to the group.
fn packet(source: IpAddr, payload: &[u8]) -> Vec<u8> {
    let length = u16::try_from(payload.len()).unwrap();
    let mut bytes = Vec::new();
    match source {
        IpAddr::V4(source) => {
            bytes.extend([0x45, 0xc0]);
            bytes.extend((length + 20).to_be_bytes());
            bytes.extend([0, 0, 0, 0, 255, 112, 0, 0]);
            bytes.extend(source.octets());
            bytes.extend([224, 0, 0, 18]);
        }
        IpAddr::V6(source) => {
            bytes.extend([0x6c, 0, 0, 0]);
            bytes.extend(length.to_be_bytes());
            bytes.extend([112, 255]);
            bytes.extend(source.octets());
            bytes.extend([0xff, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x12]);
        }
    }
    bytes.extend(payload);
    bytes
}

/// Reads packets on `socket` until `count` have come, and hands each to `each`.
fn receive(socket: &VrrpSocket, count: usize, mut each: impl FnMut(Received<'_>)) {
    let mut batch = RecvBatch::new();
    let mut seen = 0;
    while seen < count {
        assert!(wait_readable(socket, LIMIT).unwrap(), "{seen} of {count} packets came");
        seen += socket.recv_batch(&mut batch).unwrap();
        batch.packets().for_each(&mut each);
    }
    assert_eq!(seen, count);
}

#[test]
fn an_address_of_either_family_is_put_renewed_and_removed() {
    isolated("an_address_of_either_family_is_put_renewed_and_removed", || {
        let mut requests = Requests::open().unwrap();
        let index = bridge(&mut requests);
        for text in ["10.0.0.3", "2001:db8::3", "169.254.7.7", "fe80::77"] {
            for lifetime in [Some(100), Some(200), None, Some(300)] {
                assert_eq!(requests.apply(&[put(index, text, lifetime)]).unwrap(), [Ok(())]);
                let found = address(&requests.dump().unwrap(), index, text).unwrap();
                assert_eq!(found.prefix, Prefix::host(ip(text)));
                assert_eq!(found.proto, IFA_PROTO_HAVIP);
                assert_eq!(found.permanent, lifetime.is_none(), "{text} {lifetime:?}");
                assert!(!found.tentative);
                assert_eq!(found.link_scope, text.starts_with("169") || text.starts_with("fe80"));
            }
            let gone = remove(index, Prefix::host(ip(text)));
            assert_eq!(requests.apply(&[gone]).unwrap(), [Ok(())]);
            assert_eq!(address(&requests.dump().unwrap(), index, text), None);
            let again = requests.apply(&[gone]).unwrap();
            assert_eq!(again, [Err(Errno(libc::EADDRNOTAVAIL))]);
        }
        assert_eq!(requests.malformed(), 0);
    });
}

#[test]
fn the_kernel_shows_the_lifetimes_that_were_asked_for() {
    isolated("the_kernel_shows_the_lifetimes_that_were_asked_for", || {
        let mut requests = Requests::open().unwrap();
        let index = bridge(&mut requests);
        let ops = [put(index, "10.0.0.3", Some(9000)), put(index, "2001:db8::3", Some(9000))];
        assert_eq!(requests.apply(&ops).unwrap(), [Ok(()), Ok(())]);
        let Ok(output) = Command::new("ip").args(["-o", "addr", "show", "dev", "br0"]).output()
        else {
            return skip("the_kernel_shows_the_lifetimes_that_were_asked_for", "needs iproute2");
        };
        let text = String::from_utf8(output.stdout).unwrap();
        let of = |address: &str| text.lines().find(|line| line.contains(address)).unwrap();
        let seconds = |line: &str, what: &str| -> u32 {
            let rest = line.split_once(what).unwrap().1.trim_start();
            rest.split_once("sec").unwrap().0.parse().unwrap()
        };
        // A slow machine may show less than was asked for, never more.
        for line in [of("10.0.0.3"), of("2001:db8::3")] {
            assert!((8000..=9000).contains(&seconds(line, "valid_lft")), "{line}");
        }
        assert!((8000..=9000).contains(&seconds(of("10.0.0.3"), "preferred_lft")));
        assert_eq!(seconds(of("2001:db8::3"), "preferred_lft"), 0);
        assert!(of("2001:db8::3").contains("deprecated"));
        assert!(!of("10.0.0.3").contains("deprecated"));
    });
}

#[test]
fn an_address_that_nobody_renews_is_reported_gone() {
    isolated("an_address_that_nobody_renews_is_reported_gone", || {
        let mut requests = Requests::open().unwrap();
        let index = bridge(&mut requests);
        let mut notifications = Notifications::open(Notifications::RECEIVE_BUFFER).unwrap();
        let ops = [put(index, "10.0.0.3", Some(1)), put(index, "2001:db8::3", Some(1))];
        requests.apply(&ops).unwrap();
        let gone = ops.map(|op| Change::AddressGone { index, prefix: op.prefix });
        changes_until(&mut notifications, |changes| gone.iter().all(|c| changes.contains(c)));
    });
}

#[test]
fn a_put_takes_over_an_address_that_is_there_with_other_attributes() {
    isolated("a_put_takes_over_an_address_that_is_there_with_other_attributes", || {
        let mut requests = Requests::open().unwrap();
        let index = bridge(&mut requests);
        for text in ["10.0.0.3", "2001:db8::3"] {
            requests.add_address(index, Prefix::host(ip(text))).unwrap();
            let before = address(&requests.dump().unwrap(), index, text).unwrap();
            assert!(before.permanent && before.proto == 0);
            assert_eq!(requests.apply(&[put(index, text, Some(60))]).unwrap(), [Ok(())]);
            let after = address(&requests.dump().unwrap(), index, text).unwrap();
            assert!(!after.permanent && after.proto == IFA_PROTO_HAVIP, "{after:?}");
        }
    });
}

#[test]
fn a_chunk_of_five_hundred_is_done_and_every_answer_is_in_its_place() {
    isolated("a_chunk_of_five_hundred_is_done_and_every_answer_is_in_its_place", || {
        let mut requests = Requests::open().unwrap();
        let index = bridge(&mut requests);
        let nowhere = IfIndex(9999);
        let op = |n: u32| {
            let on = if n % 7 == 3 { nowhere } else { index };
            put(on, &format!("10.{}.{}.1", n / 250, n % 250), Some(600))
        };
        let ops: Vec<Op> = (0..500).map(op).collect();
        let answers = requests.apply(&ops).unwrap();
        assert_eq!(answers.len(), 500);
        for (op, answer) in ops.iter().zip(&answers) {
            let right = if op.index == nowhere { Err(Errno(libc::ENODEV)) } else { Ok(()) };
            assert_eq!(*answer, right);
        }
        let there = requests.dump().unwrap().addresses.iter().filter(|a| a.index == index).count();
        assert!(there >= answers.iter().filter(|a| a.is_ok()).count());
    });
}

#[test]
fn removing_a_host_address_leaves_the_operators_network_alone() {
    isolated("removing_a_host_address_leaves_the_operators_network_alone", || {
        let mut requests = Requests::open().unwrap();
        let index = bridge(&mut requests);
        let operators = [
            prefix("10.0.0.1", 24),
            prefix("10.0.0.2", 24),
            prefix("10.0.0.3", 24),
            prefix("2001:db8::1", 64),
        ];
        for operator in operators {
            requests.add_address(index, operator).unwrap();
        }
        // The operator's own address with another length, and one beside them.
        let ops = [put(index, "10.0.0.3", Some(60)), put(index, "10.0.0.9", Some(60))];
        assert_eq!(requests.apply(&ops).unwrap(), [Ok(()), Ok(())]);
        let ops = ops.map(|op| remove(index, op.prefix));
        assert_eq!(requests.apply(&ops).unwrap(), [Ok(()), Ok(())]);
        let wrong = remove(index, prefix("10.0.0.1", 32));
        assert_eq!(requests.apply(&[wrong]).unwrap(), [Err(Errno(libc::EADDRNOTAVAIL))]);
        let left = requests.dump().unwrap().addresses;
        let left = left.iter().filter(|a| a.index == index && !a.link_scope).map(|a| a.prefix);
        assert_eq!(left.collect::<Vec<_>>(), operators);
    });
}

#[test]
fn what_was_reported_amounts_to_what_a_dump_shows() {
    isolated("what_was_reported_amounts_to_what_a_dump_shows", || {
        let mut notifications = Notifications::open(Notifications::RECEIVE_BUFFER).unwrap();
        let mut requests = Requests::open().unwrap();
        let mut known = requests.dump().unwrap();
        let index = bridge(&mut requests);
        requests.add_veth(&name("a"), &name("b"), None).unwrap();
        let a = link(&requests.dump().unwrap(), "a").index;
        let b = link(&requests.dump().unwrap(), "b").index;
        requests.set_up(b, true).unwrap();
        requests.set_up(a, true).unwrap();
        requests.set_master(a, index).unwrap();
        let ops: Vec<Op> = (1..40).map(|n| put(index, &format!("10.0.0.{n}"), Some(60))).collect();
        requests.apply(&ops).unwrap();
        requests.apply(&[put(index, "10.0.0.1", None), remove(index, ops[4].prefix)]).unwrap();
        requests.set_up(b, false).unwrap();
        requests.delete_link(a).unwrap();
        // The last thing done is the last thing reported.
        let last = put(index, "10.0.1.1", None);
        requests.apply(&[last]).unwrap();
        let is_last = |c: &Change| matches!(c, Change::Address(a) if a.prefix == last.prefix);
        for change in changes_until(&mut notifications, |changes| changes.iter().any(is_last)) {
            match change {
                Change::Link(link) => {
                    known.links.retain(|known| known.index != link.index);
                    known.links.push(link);
                }
                Change::LinkGone(index) => known.links.retain(|known| known.index != index),
                Change::Address(new) => {
                    known.addresses.retain(|a| (a.index, a.prefix) != (new.index, new.prefix));
                    known.addresses.push(new);
                }
                Change::AddressGone { index, prefix } => {
                    known.addresses.retain(|a| (a.index, a.prefix) != (index, prefix));
                }
                Change::Overrun => panic!("overrun"),
            }
        }
        let mut shown = requests.dump().unwrap();
        for snapshot in [&mut known, &mut shown] {
            snapshot.links.sort_by_key(|link| link.index);
            // Link-local addresses of the kernel's own come and go by their own clock.
            snapshot.addresses.retain(|a| a.prefix.ip.is_ipv4());
            snapshot.addresses.sort_by_key(|a| (a.index, a.prefix));
            // Carrier is reported up to a second after it changed.
            snapshot.links.iter_mut().for_each(|link| link.running = false);
        }
        assert_eq!(known, shown);
    });
}

#[test]
fn lost_notifications_are_reported_once_and_last() {
    isolated("lost_notifications_are_reported_once_and_last", || {
        let mut requests = Requests::open().unwrap();
        let index = bridge(&mut requests);
        let mut notifications = Notifications::open(4096).unwrap();
        let ops: Vec<Op> = (1..200).map(|n| put(index, &format!("10.0.0.{n}"), None)).collect();
        requests.apply(&ops).unwrap();
        let mut changes = Vec::new();
        while notifications.read(&mut changes, 1).unwrap() {}
        assert_eq!(changes.last(), Some(&Change::Overrun));
        let overruns = changes.iter().filter(|c| **c == Change::Overrun).count();
        assert_eq!(overruns, 1);
        assert!(changes.len() < ops.len());
        // From here on it hears again.
        let prefix = ops[0].prefix;
        requests.apply(&[remove(index, prefix)]).unwrap();
        changes_until(&mut notifications, |c| c.contains(&Change::AddressGone { index, prefix }));
    });
}

#[test]
fn reading_stops_at_the_bound_and_says_so() {
    isolated("reading_stops_at_the_bound_and_says_so", || {
        let mut requests = Requests::open().unwrap();
        let index = bridge(&mut requests);
        let mut notifications = Notifications::open(Notifications::RECEIVE_BUFFER).unwrap();
        let ops: Vec<Op> = (1..11).map(|n| put(index, &format!("10.0.0.{n}"), None)).collect();
        requests.apply(&ops).unwrap();
        let mut changes = Vec::new();
        assert!(notifications.read(&mut changes, 4).unwrap());
        assert_eq!(changes.len(), 4);
        while notifications.read(&mut changes, 4).unwrap() {}
        assert!(changes.len() >= ops.len());
    });
}

#[test]
fn adverts_go_from_one_end_to_the_other_and_to_nobody_else() {
    isolated("adverts_go_from_one_end_to_the_other_and_to_nobody_else", || {
        let wire = Wire::new();
        for (family, source, group) in [
            (Family::V4, ip("10.9.0.2"), ip("224.0.0.18")),
            (Family::V6, ip("fe80::2"), ip("ff02::12")),
        ] {
            let (near, far) = wire.sockets(family);
            let (_, bystander) = wire.sockets(family);
            let payloads: Vec<[u8; 8]> = (0..40u8).map(|n| [n; 8]).collect();
            let packets: Vec<Vec<u8>> = payloads.iter().map(|p| packet(source, p)).collect();
            assert_eq!(far.send_batch(&packets), (40, None));
            let mut got = Vec::new();
            receive(&near, 40, |received| {
                assert_eq!(received.source, source);
                assert!(!received.truncated);
                let payload = match family {
                    Family::V4 => {
                        let (header, payload) = received.bytes.split_at(20);
                        assert_eq!(header[8], 255);
                        assert_eq!(header[12..], packets[0][12..20]);
                        payload
                    }
                    Family::V6 => {
                        assert_eq!(received.hop_limit, Some(255));
                        assert_eq!(received.destination, Some(group));
                        received.bytes
                    }
                };
                got.push(<[u8; 8]>::try_from(payload).unwrap());
            });
            assert_eq!(got, payloads);
            let mut batch = RecvBatch::new();
            for own in [&far, &bystander] {
                assert_eq!(own.recv_batch(&mut batch).unwrap(), 0, "heard its own host");
                assert_eq!(batch.packets().count(), 0);
            }
        }
    });
}

#[test]
fn one_call_sends_at_most_sixty_four_and_stops_at_the_first_that_fails() {
    isolated("one_call_sends_at_most_sixty_four_and_stops_at_the_first_that_fails", || {
        let wire = Wire::new();
        let (near, _) = wire.sockets(Family::V4);
        let mut packets = vec![packet(ip("10.9.0.1"), &[1; 8]); 100];
        assert_eq!(near.send_batch(&packets), (havip::linux::MAX_SEND, None));
        packets[5] = packet(ip("10.9.0.1"), &[1; 1600]);
        assert_eq!(near.send_batch(&packets), (5, Some(Errno(libc::EMSGSIZE))));
        assert_eq!(near.send_batch::<Vec<u8>>(&[]), (0, None));
    });
}

#[test]
fn a_packet_beyond_the_buffer_is_marked() {
    isolated("a_packet_beyond_the_buffer_is_marked", || {
        let wire = Wire::new();
        let jumbo = |dev| {
            let args = ["link", "set", "mtu", "9000", "dev", dev];
            Command::new("ip").args(args).status().is_ok_and(|s| s.success())
        };
        if !jumbo("near") || !wire.away(|| jumbo("far")) {
            return skip("a_packet_beyond_the_buffer_is_marked", "needs iproute2");
        }
        let (near, far) = wire.sockets(Family::V6);
        let packets = [packet(ip("fe80::2"), &[1; 4088]), packet(ip("fe80::2"), &[1; 4104])];
        assert_eq!(far.send_batch(&packets), (2, None));
        let mut seen = Vec::new();
        receive(&near, 2, |received| seen.push((received.bytes.len(), received.truncated)));
        assert_eq!(seen, [(4088, false), (4096, true)]);
    });
}

#[test]
fn a_packet_for_another_group_or_for_the_host_is_not_heard() {
    isolated("a_packet_for_another_group_or_for_the_host_is_not_heard", || {
        let wire = Wire::new();
        let (near, _) = wire.sockets(Family::V4);
        let socket = wire.away(|| PacketSocket::open(wire.far.index)).unwrap();
        let frame = |mac: [u8; 6], destination: [u8; 4], mark: u8| {
            let mut packet = packet(ip("10.9.0.2"), &[mark; 8]);
            packet[16..20].copy_from_slice(&destination);
            let words = packet[..20].chunks(2).map(|w| u32::from(w[0]) << 8 | u32::from(w[1]));
            let sum: u32 = words.sum();
            let sum = !u16::try_from((sum & 0xffff) + (sum >> 16)).unwrap();
            packet[10..12].copy_from_slice(&sum.to_be_bytes());
            let mut frame = mac.to_vec();
            frame.extend(wire.far.mac.unwrap().0);
            frame.extend([8, 0]);
            frame.extend(packet);
            frame
        };
        let frames = [
            frame(wire.near.mac.unwrap().0, [10, 9, 0, 1], 1),
            frame([1, 0, 0x5e, 0, 0, 1], [224, 0, 0, 1], 2),
            frame([1, 0, 0x5e, 0, 0, 18], [224, 0, 0, 18], 3),
        ];
        assert_eq!(socket.send_batch(&frames), (3, None));
        receive(&near, 1, |received| assert_eq!(received.bytes[20..], [3; 8]));
        assert_eq!(near.recv_batch(&mut RecvBatch::new()).unwrap(), 0);
    });
}

#[test]
fn nothing_piles_up_in_a_socket_that_only_sends() {
    isolated("nothing_piles_up_in_a_socket_that_only_sends", || {
        let wire = Wire::new();
        for (family, source, protocol_at, file) in [
            (Family::V4, ip("10.9.0.2"), 9, "/proc/thread-self/net/raw"),
            (Family::V6, ip("fe80::2"), 6, "/proc/thread-self/net/raw6"),
        ] {
            let (near, far) = wire.sockets(family);
            // Protocol 255 is what a socket of IPPROTO_RAW hears.
            let mut packets = vec![packet(source, &[7; 8]); 32];
            packets[..16].iter_mut().for_each(|packet| packet[protocol_at] = 255);
            assert_eq!(far.send_batch(&packets), (32, None));
            assert!(wait_readable(&near, LIMIT).unwrap());
            let table = fs::read_to_string(file).unwrap();
            let mut queues: Vec<(&str, bool)> = Vec::new();
            for line in table.lines().skip(1) {
                let fields: Vec<&str> = line.split_whitespace().collect();
                let (_, protocol) = fields[1].rsplit_once(':').unwrap();
                let (_, queued) = fields[4].split_once(':').unwrap();
                queues.push((protocol, u64::from_str_radix(queued, 16).unwrap() > 0));
            }
            queues.sort_unstable();
            assert_eq!(queues, [("0070", true), ("00FF", false)], "{table}");
        }
        let _quiet = PacketSocket::open(wire.near.index).unwrap();
        let table = fs::read_to_string("/proc/thread-self/net/packet").unwrap();
        let fields: Vec<&str> = table.lines().nth(1).unwrap().split_whitespace().collect();
        // Proto and Rmem.
        assert_eq!((fields[3], fields[6]), ("0000", "0"), "{table}");
    });
}

#[test]
fn a_gratuitous_arp_teaches_the_other_end() {
    isolated("a_gratuitous_arp_teaches_the_other_end", || {
        let wire = Wire::new();
        wire.away(|| fs::write("/proc/sys/net/ipv4/conf/far/arp_accept", "1")).unwrap();
        let socket = PacketSocket::open(wire.near.index).unwrap();
        let Mac(mac) = wire.near.mac.unwrap();
        let mut frame = vec![0xff; 6];
        frame.extend(mac);
        frame.extend([8, 6, 0, 1, 8, 0, 6, 4, 0, 1]);
        frame.extend(mac);
        frame.extend([10, 9, 0, 77]);
        frame.extend([0; 6]);
        frame.extend([10, 9, 0, 77]);
        assert_eq!(socket.send_batch(&[frame]), (1, None));
        let learned = wire.away(|| {
            // The frame is worked on at the other end in its own time.
            let end = havip::linux::clock::now() + LIMIT;
            loop {
                let table = fs::read_to_string("/proc/thread-self/net/arp").unwrap();
                if let Some(line) = table.lines().find(|line| line.starts_with("10.9.0.77 ")) {
                    return line.to_owned();
                }
                assert!(havip::linux::clock::now() < end, "not learned: {table}");
                std::thread::yield_now();
            }
        });
        assert!(learned.contains(&Mac(mac).to_string()), "{learned}");
    });
}

#[test]
fn an_interface_made_anew_has_another_index_and_the_old_sockets_fail() {
    isolated("an_interface_made_anew_has_another_index_and_the_old_sockets_fail", || {
        let mut requests = Requests::open().unwrap();
        let mut notifications = Notifications::open(Notifications::RECEIVE_BUFFER).unwrap();
        let wire = Wire::new();
        let old = wire.near.index;
        let open = |family| VrrpSocket::open(Port { index: old, family });
        let sockets = [Family::V4, Family::V6].map(|family| open(family).unwrap());
        let frames = PacketSocket::open(old).unwrap();
        requests.delete_link(old).unwrap();
        changes_until(&mut notifications, |c| c.contains(&Change::LinkGone(old)));
        requests.add_veth(&name("near"), &name("far"), Some(wire.away.as_fd())).unwrap();
        let new = link(&requests.dump().unwrap(), "near").index;
        assert_ne!(new, old);
        for (socket, source) in sockets.iter().zip([ip("10.9.0.1"), ip("fe80::1")]) {
            let (sent, errno) = socket.send_batch(&[packet(source, &[0; 8])]);
            assert_eq!(sent, 0);
            let gone = [libc::ENODEV, libc::ENXIO, libc::ENETUNREACH, libc::EADDRNOTAVAIL];
            assert!(errno.is_some_and(|Errno(e)| gone.contains(&e)), "{errno:?}");
            assert_eq!(socket.recv_batch(&mut RecvBatch::new()).unwrap(), 0);
        }
        let (sent, errno) = frames.send_batch(&[[0; 60]]);
        assert_eq!((sent, errno), (0, Some(Errno(libc::ENXIO))));
        assert!(open(Family::V4).is_err());
        assert!(open(Family::V6).is_err());
        assert!(PacketSocket::open(old).is_err());
        let answer = requests.apply(&[put(old, "10.0.0.3", Some(5))]).unwrap();
        assert_eq!(answer, [Err(Errno(libc::ENODEV))]);
    });
}

#[test]
fn an_interface_that_was_down_carries_adverts_again_when_it_is_up() {
    isolated("an_interface_that_was_down_carries_adverts_again_when_it_is_up", || {
        let wire = Wire::new();
        let mut requests = Requests::open().unwrap();
        let (near, far) = wire.sockets(Family::V4);
        let there = [packet(ip("10.9.0.1"), &[1; 8])];
        let back = [packet(ip("10.9.0.2"), &[2; 8])];
        requests.set_up(wire.near.index, false).unwrap();
        let (sent, errno) = near.send_batch(&there);
        assert!(sent == 0 && errno.is_some(), "{sent} {errno:?}");
        requests.set_up(wire.near.index, true).unwrap();
        assert_eq!(near.send_batch(&there), (1, None));
        receive(&far, 1, |received| assert_eq!(received.bytes[20..], [1; 8]));
        // The membership has come back by itself.
        assert_eq!(far.send_batch(&back), (1, None));
        receive(&near, 1, |received| assert_eq!(received.bytes[20..], [2; 8]));
    });
}

#[test]
fn the_default_gateways_of_both_families_are_found() {
    isolated("the_default_gateways_of_both_families_are_found", || {
        let mut requests = Requests::open().unwrap();
        assert_eq!(default_gateways().unwrap(), Vec::<IpAddr>::new());
        let index = bridge(&mut requests);
        requests.add_address(index, prefix("10.0.0.1", 24)).unwrap();
        requests.add_default_route(index, ip("10.0.0.254")).unwrap();
        requests.add_default_route(index, ip("fe80::254")).unwrap();
        assert_eq!(default_gateways().unwrap(), [ip("10.0.0.254"), ip("fe80::254")]);
    });
}

#[test]
fn an_interface_is_moved_to_another_namespace() {
    isolated("an_interface_is_moved_to_another_namespace", || {
        let wire = Wire::new();
        let mut requests = Requests::open().unwrap();
        let index = bridge(&mut requests);
        requests.add_veth(&name("a"), &name("b"), None).unwrap();
        let a = link(&requests.dump().unwrap(), "a").index;
        requests.set_master(a, index).unwrap();
        requests.move_to_namespace(a, &wire.away).unwrap();
        let here = requests.dump().unwrap();
        assert!(here.links.iter().all(|link| link.name.as_str() != "a"));
        let there = wire.away(|| Requests::open().unwrap().dump().unwrap());
        assert!(!link(&there, "a").up);
    });
}

#[test]
fn a_refusal_comes_with_the_kernels_words() {
    isolated("a_refusal_comes_with_the_kernels_words", || {
        let mut requests = Requests::open().unwrap();
        let index = bridge(&mut requests);
        let op = Op { index, prefix: prefix("10.0.0.1", 33), verb: Verb::Put { lifetime: None } };
        assert_eq!(requests.apply(&[op]).unwrap(), [Err(Errno(libc::EINVAL))]);
        assert!(requests.explanation().is_some());
        requests.apply(&[put(index, "10.0.0.1", None)]).unwrap();
        assert_eq!(requests.explanation(), None);
    });
}

#[test]
fn real_time_priority_is_the_threads_own_where_it_is_allowed() {
    isolated("real_time_priority_is_the_threads_own_where_it_is_allowed", || {
        /// Fields 40 and 41 of /proc/PID/stat: real-time priority and policy.
        fn policy() -> String {
            let text = fs::read_to_string("/proc/thread-self/stat").unwrap();
            let (_, rest) = text.rsplit_once(')').unwrap();
            rest.split_whitespace().skip(37).take(2).collect::<Vec<_>>().join(" ")
        }
        match rt::realtime(3) {
            Ok(()) => {
                assert_eq!(policy(), "3 2");
                assert_eq!(std::thread::spawn(policy).join().unwrap(), "0 0");
            }
            Err(error) => {
                assert_eq!(error.raw_os_error(), Some(libc::EPERM));
                skip("real_time_priority", "needs CAP_SYS_NICE outside user namespaces");
            }
        }
    });
}
