//! The kernel's edge against this kernel, each test in a network namespace of its own.
//!
//! They need root, or user namespaces and util-linux's `unshare`; a test that has neither says so
//! on standard error and is counted there.

#![cfg(feature = "daemon")]

#[macro_use]
#[path = "../lab/mod.rs"]
mod lab;
mod netlink;
mod packets;

use std::fs;
use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

use havip::config::Prefix;
use lab::{ip, name, skip};

use havip::linux::netlink::{Notifications, Requests};
use havip::linux::{VrrpSocket, netns, rt, wait_readable};
use havip::node::kernel::{Address, Change, Link, Op, Port, Snapshot, Verb};
use havip::wire::{Family, IfIndex};

/// Longer than anything that is waited for takes; only a failing test waits as long.
const LIMIT: Duration = Duration::from_secs(20);

fn prefix(text: &str, len: u8) -> Prefix {
    Prefix { ip: ip(text), len }
}

fn put(index: IfIndex, address: &str, lifetime: Option<u32>) -> Op {
    Op { index, prefix: Prefix::host(ip(address)), verb: Verb::Add { lifetime } }
}

fn renew(index: IfIndex, address: &str, lifetime: Option<u32>) -> Op {
    Op { index, prefix: Prefix::host(ip(address)), verb: Verb::Renew { lifetime } }
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
    let local = Op { index, prefix: prefix(v6, 64), verb: Verb::Add { lifetime: None } };
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

isolated!(
    fn real_time_priority_is_the_threads_own_where_it_is_allowed() {
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
    }
);

isolated!(
    fn touched_memory_is_locked_where_it_is_allowed() {
        fn locked() -> bool {
            let text = fs::read_to_string("/proc/self/status").unwrap();
            let line = text.lines().find(|line| line.starts_with("VmLck:")).unwrap();
            line.split_whitespace().nth(1) != Some("0")
        }
        match rt::lock_memory() {
            Ok(()) => assert!(locked()),
            Err(_) => {
                skip("touched_memory_is_locked", "needs CAP_IPC_LOCK or a high RLIMIT_MEMLOCK")
            }
        }
    }
);
