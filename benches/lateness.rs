//! How late adverts leave, on an idle machine and on one whose processors and disk are busy, havip
//! and keepalived one after the other in one run.
//!
//!     cargo bench --bench lateness -- [--routers 1,64] [--intervals 0.1,0.01] [--seconds 20]
//!
//! An advert is late by what the time since the one before it is beyond the interval, as a host at
//! the other end of the cable sees it. The longest time for which the machine ran nothing, at any
//! priority, is shown beside: no program could have been earlier. keepalived is shown as it is by
//! default and with a real-time priority (and a limit of CPU time with which the kernel does not
//! kill it for that); havip takes one by itself. Needs root, and keepalived
//! from `tests/lab/fetch`. Prints a table in Markdown.

#[path = "measure/gateway.rs"]
mod gateway;
#[path = "../tests/lab/mod.rs"]
mod lab;
mod measure;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use gateway::{Gateway, PROGRAMS, Work, has_keepalived, vips};
use havip::node::Instant;
use lab::capture::{self, What};
use lab::{Lan, wait};
use measure::load::Load;
use measure::table::Table;
use measure::{Arguments, Stalls, apart, ms, pass, quantile, worst};

struct Outcome {
    late: Vec<f64>,
    stall_ms: f64,
}

fn measure(
    keepalived: bool,
    own: &str,
    busy: bool,
    routers: usize,
    interval: &str,
    seconds: u64,
) -> Outcome {
    let mut lan = Lan::new();
    let (a, b) = (lan.host(), lan.host());
    lan.join(&a, &b, 1);
    let mac = a.mac();
    let last: BTreeMap<u8, Instant> = BTreeMap::new();
    let seen = Arc::new(Mutex::new((last, Vec::new())));
    let theirs = Arc::clone(&seen);
    let length: f64 = interval.parse().expect("--intervals: numbers with commas");
    let watch = capture::each(&b, move |frame| {
        if let What::Advert { vrid, .. } = frame.what
            && frame.from == mac
        {
            let (last, late) = &mut *theirs.lock().expect("nobody panics with it");
            if let Some(before) = last.insert(vrid, frame.at) {
                late.push((ms(before, frame.at) - length * 1e3).max(0.0));
            }
        }
    });
    let mut work = Work::new(routers, interval, 200);
    work.whole = [own; 2];
    let gateway = Gateway::start(keepalived, &a, &work);
    wait("every VIP is there", || vips(&a) == routers);
    // Announcements repeat for a while after a start.
    pass(Duration::from_secs(5));
    let load = busy.then(Load::start);
    pass(Duration::from_secs(1));
    let stalls = Stalls::watch();
    let late = || std::mem::take(&mut seen.lock().expect("nobody panics with it").1);
    late();
    pass(Duration::from_secs(seconds));
    let late = late();
    let stall_ms = stalls.longest().as_secs_f64() * 1e3;
    drop((watch, load, gateway));
    Outcome { late, stall_ms }
}

fn main() {
    let arguments = Arguments::read();
    let seconds = arguments.value("--seconds", "20").parse().expect("--seconds: a number");
    if !has_keepalived() {
        return;
    }
    let columns = [
        "routers",
        "interval, s",
        "machine",
        "",
        "adverts",
        "late, ms: median",
        "p99",
        "worst",
        "longest stall of the machine, ms",
    ];
    let mut table = Table::beside_keepalived("lateness", &columns);
    for routers in arguments.value("--routers", "1,64").split(',') {
        let count = routers.parse().expect("--routers: numbers with commas");
        for interval in arguments.value("--intervals", "0.1,0.01").split(',') {
            for (machine, busy) in [("idle", false), ("busy", true)] {
                for (name, keepalived, own) in PROGRAMS {
                    let outcome =
                        apart(|| measure(keepalived, own, busy, count, interval, seconds));
                    let late = &outcome.late;
                    let shown = [quantile(late, 0.5), quantile(late, 0.99), worst(late)];
                    let [median, p99, worst] = shown.map(|value| format!("{value:.2}"));
                    let adverts = late.len().to_string();
                    let stall = format!("{:.1}", outcome.stall_ms);
                    table.row(&[
                        routers, interval, machine, name, &adverts, &median, &p99, &worst, &stall,
                    ]);
                }
            }
        }
    }
}
