//! One router among many gets another VIP: how long until that is on the wire, and what the others
//! notice of it; havip and keepalived one after the other in one run.
//!
//!     cargo bench --bench change -- [--routers 250] [--interval 0.1] [--runs 5]
//!
//! Both gateways run; the active one alone is given the change, in its file, with SIGHUP. From the
//! signal to the new VIP's announcement, as a third host sees it; the longest time between two
//! adverts of the changed router and of any other in the two seconds after; and how often the
//! backup took anything over. Needs root, and keepalived from `tests/lab/fetch`. Prints a table in
//! Markdown.

#[path = "measure/gateway.rs"]
mod gateway;
#[path = "../tests/lab/mod.rs"]
mod lab;
mod measure;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use gateway::{Gateway, Work, excluded, has_keepalived, vips};
use havip::linux::clock;
use havip::node::Instant;
use lab::capture::{Capture, What};
use lab::{Lan, wait};
use measure::table::Table;
use measure::{Arguments, Stalls, apart, median, ms, pass, worst};

/// The router that changes, as the benchmark's first.
const CHANGED: u8 = 1;

#[derive(Default)]
struct Outcome {
    announced: Vec<f64>,
    own_gap: Vec<f64>,
    others_gap: Vec<f64>,
    taken: usize,
    stall: f64,
}

fn measure(keepalived: bool, routers: usize, interval: &str, runs: usize) -> Outcome {
    let mut lan = Lan::new();
    let (a, b) = (lan.host(), lan.host());
    let capture = Capture::on(&lan.host());
    let (mac, other) = (a.mac(), b.mac());
    let mut work = Work::new(routers, interval, 200);
    let active = Gateway::start(keepalived, &a, &work);
    wait("every VIP is there", || vips(&a) == routers);
    let _backup = Gateway::start(keepalived, &b, &Work::new(routers, interval, 100));
    // Announcements repeat for a while after a start.
    pass(Duration::from_secs(6));
    let mut outcome = Outcome::default();
    for run in 1..=runs {
        let stalls = Stalls::watch();
        capture.forget();
        pass(Duration::from_millis(500));
        let new = What::Claim(excluded(run).parse().expect("an address"));
        work.excluded = run;
        let at = clock::now();
        active.change(&a, &work);
        let find = || capture.all().into_iter().find(|seen| seen.what == new);
        wait("the new VIP is announced", || find().is_some());
        outcome.announced.push(ms(at, find().expect("it was waited for").at));
        pass(Duration::from_secs(2));
        let mut last: BTreeMap<u8, Instant> = BTreeMap::new();
        let mut taken = BTreeSet::new();
        let (mut own_gap, mut others_gap) = (0.0_f64, 0.0_f64);
        for seen in capture.all() {
            let What::Advert { vrid, .. } = seen.what else { continue };
            if seen.from == other {
                taken.insert(vrid);
            } else if seen.from == mac
                && let Some(before) = last.insert(vrid, seen.at)
            {
                let gap = if vrid == CHANGED { &mut own_gap } else { &mut others_gap };
                *gap = gap.max(ms(before, seen.at));
            }
        }
        outcome.own_gap.push(own_gap);
        outcome.others_gap.push(others_gap);
        outcome.taken += taken.len();
        outcome.stall = outcome.stall.max(stalls.longest().as_secs_f64() * 1e3);
    }
    drop(active);
    outcome
}

fn main() {
    let arguments = Arguments::read();
    let interval = arguments.value("--interval", "0.1");
    let runs = arguments.value("--runs", "5").parse().expect("--runs: a number");
    let routers = arguments.value("--routers", "250");
    let count = routers.parse().expect("--routers: a number");
    if !has_keepalived() {
        return;
    }
    let columns = [
        "routers",
        "",
        "change to announcement, ms: median (worst)",
        "longest gap of the changed one, ms: worst",
        "of the others",
        "taken over by the backup",
        "longest stall of the machine, ms",
    ];
    let mut table = Table::beside_keepalived("change", &columns);
    for (name, keepalived) in [("havip", false), ("keepalived", true)] {
        let outcome = apart(|| measure(keepalived, count, interval, runs));
        table.row(&[
            routers,
            name,
            &format!("{:.1} ({:.1})", median(&outcome.announced), worst(&outcome.announced)),
            &format!("{:.1}", worst(&outcome.own_gap)),
            &format!("{:.1}", worst(&outcome.others_gap)),
            &format!("{} in {runs} changes", outcome.taken),
            &format!("{:.1}", outcome.stall),
        ]);
    }
}
