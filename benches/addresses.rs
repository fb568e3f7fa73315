//! Many VIPs on one interface: how long it takes to put them there, beside keepalived and beside
//! `ip -batch`, which is as fast as a program that waits for each answer gets.
//!
//!     cargo bench --bench addresses -- [--vips 1000,5000] [--interval 0.1] [--runs 3]
//!
//! One router becomes active with that many VIPs. Timed as the kernel reports addresses and as a
//! host at the other end of the cable sees frames: from the first to the last address, from the
//! first address to the first that is announced, and how late the latest advert was meanwhile and
//! in the second after. Needs root, iproute2, and keepalived from `tests/lab/fetch`. Prints a
//! table in Markdown.

#[path = "measure/gateway.rs"]
mod gateway;
#[path = "../tests/lab/mod.rs"]
mod lab;
mod measure;

use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use gateway::{Gateway, Work, excluded, has_keepalived, is_vip};
use havip::linux::netlink::Notifications;
use havip::linux::{clock, rt, wait_readable};
use havip::node::Instant;
use havip::node::kernel::Change;
use lab::capture::{Capture, What};
use lab::{Host, Lan};
use measure::table::Table;
use measure::{Arguments, apart, median, ms, pass, worst};

/// When the first and the last of `count` VIPs were there.
fn watch(host: &Host, count: usize, meanwhile: impl FnOnce() + Send) -> (Instant, Instant) {
    let ready = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let look = || {
            let _ = rt::realtime(90);
            let mut notifications = host.within(|| Notifications::open(64 << 20).expect("netlink"));
            ready.store(true, Ordering::Release);
            let mut changes = Vec::new();
            let (mut first, mut seen) = (None, std::collections::BTreeSet::new());
            while seen.len() < count {
                let came = wait_readable(&notifications, Duration::from_secs(60));
                assert!(came.expect("poll"), "{} of {count} VIPs came", seen.len());
                while notifications.read(&mut changes, 1000).expect("netlink") {}
                for change in changes.drain(..) {
                    match change {
                        Change::Address(address) if is_vip(address.prefix.ip) => {
                            first.get_or_insert_with(clock::now);
                            seen.insert(address.prefix);
                        }
                        Change::Overrun => panic!("the kernel told more than could be kept"),
                        _ => {}
                    }
                }
            }
            (first.expect("some came"), clock::now())
        };
        let looking = scope.spawn(look);
        while !ready.load(Ordering::Acquire) {
            std::thread::yield_now();
        }
        meanwhile();
        looking.join().expect("it says why above")
    })
}

/// From the first address to the last, in milliseconds.
fn batch(vips: usize) -> f64 {
    let mut lan = Lan::new();
    let (a, b) = (lan.host(), lan.host());
    lan.join(&a, &b, 1);
    let file = a.folder().join("batch");
    let lines: Vec<String> =
        (1..=vips).map(|at| format!("addr add {}/32 dev eth0\n", excluded(at))).collect();
    std::fs::write(&file, lines.concat()).expect("it can be written");
    let (first, last) = watch(&a, vips, || {
        let mut child =
            a.start(Command::new("ip").arg("-batch").arg(&file), &a.folder().join("log"));
        assert!(child.wait().expect("a child").success(), "ip -batch");
    });
    ms(first, last)
}

/// From the first address to the last, from the first address to the first that is announced,
/// and how late the latest advert was.
fn measure(keepalived: bool, vips: usize, interval: &str) -> [f64; 3] {
    let mut lan = Lan::new();
    let (a, b) = (lan.host(), lan.host());
    lan.join(&a, &b, 1);
    let (mac, capture) = (a.mac(), Capture::on(&b));
    let mut work = Work::new(1, interval, 200);
    work.excluded = vips - 1;
    let mut gateway = None;
    let (first, last) = watch(&a, vips, || gateway = Some(Gateway::start(keepalived, &a, &work)));
    pass(Duration::from_secs(1));
    let own = || capture.all().into_iter().filter(|seen| seen.from == mac);
    let is_vip = |what| matches!(what, What::Claim(ip) if is_vip(ip));
    let announced = own().find(|seen| is_vip(seen.what)).expect("it announces").at;
    let adverts: Vec<Instant> =
        own().filter(|seen| matches!(seen.what, What::Advert { .. })).map(|seen| seen.at).collect();
    let now = clock::now();
    let ends = adverts.iter().copied().skip(1).chain([now]);
    let gap = adverts.iter().zip(ends).map(|(from, to)| ms(*from, to)).fold(0.0, f64::max);
    let interval: f64 = interval.parse().expect("--interval: a number");
    drop(gateway);
    [ms(first, last), ms(first, announced), (gap - interval * 1e3).max(0.0)]
}

fn main() {
    let arguments = Arguments::read();
    let interval = arguments.value("--interval", "0.1");
    let runs: usize = arguments.value("--runs", "3").parse().expect("--runs: a number");
    if !has_keepalived() {
        return;
    }
    let columns = [
        "VIPs",
        "",
        "first to last address, ms: median",
        "beside ip -batch",
        "first address to first announcement, ms: median",
        "latest advert, ms late: worst",
    ];
    let mut table = Table::beside_keepalived("addresses", &columns);
    for vips in arguments.value("--vips", "1000,5000").split(',') {
        let count: usize = vips.parse().expect("--vips: numbers with commas");
        let limits: Vec<f64> = (0..runs).map(|_| apart(|| batch(count))).collect();
        let limit = median(&limits);
        table.row(&[vips, "ip -batch", &format!("{limit:.1}"), "1.00", "", ""]);
        for (name, keepalived) in [("havip", false), ("keepalived", true)] {
            let all: Vec<[f64; 3]> =
                (0..runs).map(|_| apart(|| measure(keepalived, count, interval))).collect();
            let of = |at: usize| all.iter().map(|times| times[at]).collect::<Vec<f64>>();
            let took = median(&of(0));
            table.row(&[
                vips,
                name,
                &format!("{took:.1}"),
                &format!("{:.2}", took / limit),
                &format!("{:.1}", median(&of(1))),
                &format!("{:.1}", worst(&of(2))),
            ]);
        }
    }
}
