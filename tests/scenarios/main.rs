//! What goes wrong with virtual addresses in the field, played on a real LAN: real daemons, real
//! kernels, and a host that captures what they send. Each test is named after what happens.

#![cfg(feature = "daemon")]

#[macro_use]
#[path = "../lab/mod.rs"]
mod lab;

mod addresses;
mod cables;
mod descriptors;
mod guest;
mod hostile;
mod interfaces;
mod others;
mod owners;
mod pauses;
mod probes;
mod rivals;

use std::process::Command;

use lab::capture::Capture;
use lab::{Daemon, Host, Lan, wait};
use serde_json::Value;

/// The one VIP of most scenarios.
const VIP: &str = "192.0.2.100";

/// Of most scenarios: a machine that stands still for half a second makes no backup take over.
const INTERVAL: &str = "0.2";

/// A daemon with router 51 and these keys beside.
fn start(host: &Host, priority: u8, more: &str) -> Daemon {
    start_every(INTERVAL, host, priority, more)
}

/// The same with another interval.
fn start_every(interval: &str, host: &Host, priority: u8, more: &str) -> Daemon {
    let keys =
        format!("vips = [\"{VIP}\"]\nadvert_interval = {interval}\npriority = {priority}\n{more}");
    host.daemon(&host.router("51", &keys))
}

/// Two gateways that have heard each other, the first of them active, and what the LAN sees.
struct Pair {
    a: Host,
    b: Host,
    capture: Capture,
    first: Daemon,
    second: Daemon,
}

impl Pair {
    fn start(lan: &mut Lan, more: &str) -> Self {
        Self::every(INTERVAL, lan, more)
    }

    fn every(interval: &str, lan: &mut Lan, more: &str) -> Self {
        let (a, b) = (lan.host(), lan.host());
        let capture = Capture::on(&lan.host());
        let first = start_every(interval, &a, 150, more);
        first.wait_for("active");
        let second = start_every(interval, &b, 100, more);
        wait_heard(&second);
        Self { a, b, capture, first, second }
    }
}

/// What the status shows of its first router.
fn router(daemon: &Daemon) -> Value {
    daemon.status()["vrrp"]["routers"][0].clone()
}

fn counter(daemon: &Daemon, name: &str) -> u64 {
    router(daemon)["counters"][name].as_u64().unwrap_or_else(|| panic!("no counter {name}"))
}

/// Waits until a peer has advertised something to a backup, or a backup's answers.
fn wait_heard(daemon: &Daemon) {
    // There are no routers in the status before the kernel has been read.
    let heard = || router(daemon)["counters"]["adverts_received"].as_u64();
    wait("it hears its peer", || heard().is_some_and(|count| count > 2));
}

/// Sets rules of nftables on a host: each a whole command.
fn nft(host: &Host, rules: &[&str]) {
    host.within(|| {
        for rule in rules {
            let status = Command::new("nft").args(rule.split(' ')).status().unwrap();
            assert!(status.success(), "nft {rule}");
        }
    });
}
