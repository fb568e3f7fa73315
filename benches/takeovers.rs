//! Three gateways at the shortest interval on a busy machine: how often a router changes hands
//! though nothing has happened; havip and keepalived one after the other in one run.
//!
//!     cargo bench --bench takeovers -- [--minutes 10] [--routers 64] [--interval 0.01] [--load yes]
//!
//! Every advert of a gateway that should be a backup is a takeover; those of one router within one
//! second count once. One that began within a stall of the machine, or not longer after it than a
//! backup waits, is nobody's fault and shown apart: a processor ran nothing then, at any priority.
//! Needs root, and keepalived from `tests/lab/fetch`. Prints a table in Markdown.

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
use measure::{Arguments, Stall, Stalls, apart, pass};

const PRIORITIES: [u8; 3] = [200, 150, 100];
/// Takeovers of one router within this time are one.
const EPISODE: Duration = Duration::from_secs(1);
struct Outcome {
    adverts: u64,
    /// When takeovers began.
    taken: Vec<Instant>,
    stalls: Vec<Stall>,
}

fn measure(
    keepalived: bool,
    own: &str,
    routers: usize,
    interval: &str,
    busy: bool,
    time: Duration,
) -> Outcome {
    let mut lan = Lan::new();
    let hosts = [lan.host(), lan.host(), lan.host()];
    let macs = hosts.each_ref().map(lab::Host::mac);
    let watcher = lan.host();
    let start = |at: usize| {
        let mut work = Work::new(routers, interval, PRIORITIES[at]);
        work.whole = [own; 2];
        Gateway::start(keepalived, &hosts[at], &work)
    };
    let active = start(0);
    wait("every VIP is there", || vips(&hosts[0]) == routers);
    let backups = [start(1), start(2)];
    // Announcements repeat for a while after a start.
    pass(Duration::from_secs(6));
    let load = busy.then(Load::start);
    pass(Duration::from_secs(2));
    let last: BTreeMap<u8, Instant> = BTreeMap::new();
    let seen = Arc::new(Mutex::new((0, last, Vec::new())));
    let theirs = Arc::clone(&seen);
    let stalls = Stalls::watch();
    let watch = capture::each(&watcher, move |frame| {
        let What::Advert { vrid, .. } = frame.what else { return };
        let (adverts, last, taken) = &mut *theirs.lock().expect("nobody panics with it");
        if frame.from == macs[0] {
            *adverts += 1;
        } else if last.insert(vrid, frame.at).is_none_or(|before| frame.at.since(before) > EPISODE)
        {
            taken.push(frame.at);
        }
    });
    pass(time);
    let stalls = stalls.all();
    drop((watch, load, active, backups));
    let (adverts, _, taken) = std::mem::take(&mut *seen.lock().expect("nobody panics with it"));
    Outcome { adverts, taken, stalls }
}

fn main() {
    let arguments = Arguments::read();
    let minutes: f64 = arguments.value("--minutes", "10").parse().expect("--minutes: a number");
    let routers = arguments.value("--routers", "64");
    let count = routers.parse().expect("--routers: a number");
    let interval = arguments.value("--interval", "0.01");
    let length: f64 = interval.parse().expect("--interval: a number");
    let busy = arguments.value("--load", "yes") == "yes";
    if !has_keepalived() {
        return;
    }
    let columns = [
        "routers",
        "interval, s",
        "machine",
        "",
        "minutes",
        "adverts of the active",
        "takeovers",
        "of them by stalls of the machine",
        "stalls beyond an interval",
        "longest, ms",
    ];
    let mut table = Table::beside_keepalived("takeovers", &columns);
    let limit = Duration::from_secs_f64(length);
    for (name, keepalived, own) in PROGRAMS {
        let time = Duration::from_secs_f64(minutes * 60.0);
        let outcome = apart(|| measure(keepalived, own, count, interval, busy, time));
        let stalls: Vec<&Stall> =
            outcome.stalls.iter().filter(|stall| stall.to.since(stall.from) > limit).collect();
        let stalled = |at: &&Instant| {
            stalls.iter().any(|stall| stall.from <= **at && **at <= stall.to + limit * 4)
        };
        let longest = stalls.iter().map(|stall| stall.to.since(stall.from)).max();
        table.row(&[
            routers,
            interval,
            if busy { "busy" } else { "idle" },
            name,
            &minutes.to_string(),
            &outcome.adverts.to_string(),
            &outcome.taken.len().to_string(),
            &outcome.taken.iter().filter(stalled).count().to_string(),
            &stalls.len().to_string(),
            &format!("{:.1}", longest.unwrap_or_default().as_secs_f64() * 1e3),
        ]);
    }
}
