//! From the end of an active gateway to its successor's first advert, havip and keepalived one
//! after the other in one run.
//!
//!     cargo bench --bench failover -- [--intervals 1,0.1,0.01] [--runs 10]
//!
//! An end is a `kill -9` of the process that speaks VRRP (havip has a guard beside it, keepalived
//! a parent that starts another), one of every process at once, a SIGTERM, or a cut cable. What the protocol itself
//! costs, from the last advert that the successor heard until it may take over (Active_Down_Interval,
//! or Skew_Time after a farewell), is shown beside. Runs during which the machine itself stood still
//! for more than 5 ms are left out and counted. Needs root, and keepalived from `tests/lab/fetch`.
//! Prints a table in Markdown.

#[path = "measure/gateway.rs"]
mod gateway;
#[path = "../tests/lab/mod.rs"]
mod lab;
mod measure;

use std::time::Duration;

use gateway::{Gateway, Work, vip, vips};
use havip::linux::clock;
use havip::node::Instant;
use havip::wire::Mac;
use lab::capture::{Capture, What};
use lab::peer::is_there;
use lab::{Lan, wait};
use measure::picture::{Bars, draw};
use measure::table::Table;
use measure::{Arguments, Stalls, apart, median, ms, worst};

const PRIORITIES: [u8; 2] = [200, 100];
/// Longer than this, and the machine is what is measured.
const STALL: Duration = Duration::from_millis(5);

#[derive(Clone, Copy)]
enum End {
    Kill,
    KillAll,
    Term,
    Cut,
}

/// What became of the runs of one kind.
#[derive(Default)]
struct Outcome {
    /// From the end to the successor's first advert, and how much of that is beyond what the
    /// protocol costs; in milliseconds.
    gaps: Vec<f64>,
    beyond: Vec<f64>,
    stalled: usize,
}

/// Each run in a network namespace of its own.
fn measure(keepalived: bool, interval: &str, end: End, runs: usize) -> Outcome {
    let mut outcome = Outcome::default();
    while outcome.gaps.len() < runs && outcome.stalled < 3 * runs {
        apart(|| once(keepalived, interval, end, &mut outcome));
    }
    outcome
}

fn once(keepalived: bool, interval: &str, end: End, outcome: &mut Outcome) {
    let mut lan = Lan::new();
    let (a, b) = (lan.host(), lan.host());
    let capture = Capture::on(&lan.host());
    let macs = [a.mac(), b.mac()];
    let work = |at: usize| Work::new(1, interval, PRIORITIES[at]);
    let start = |at: usize, host| Gateway::start(keepalived, host, &work(at));
    let active = start(0, &a);
    wait("the first is active", || vips(&a) == 1);
    let backup = start(1, &b);
    // Long enough for the other to have heard it, and for its announcements.
    let many = capture.all().len() + 20;
    wait("it advertises", || capture.all().len() >= many);
    wait("one is active", || vips(&b) == 0);
    let stalls = Stalls::watch();
    capture.forget();
    wait("it goes on", || capture.has_advert(macs[0]));
    let ended_at = clock::now();
    let kept = match end {
        End::Kill => {
            active.kill_speaker();
            Some(active)
        }
        End::KillAll => {
            active.kill_all();
            Some(active)
        }
        End::Term => {
            active.stop();
            None
        }
        End::Cut => {
            lan.plug(&a, false);
            Some(active)
        }
    };
    wait("the other takes over", || {
        capture.has_advert(macs[1]) && capture.has_claim(macs[1], &vip(1))
    });
    let (first, limit) = times(&capture, macs, interval.parse().expect("--intervals: numbers"));
    if stalls.longest() > STALL {
        outcome.stalled += 1;
    } else {
        outcome.gaps.push(ms(ended_at, first));
        outcome.beyond.push(ms(limit, first));
    }
    drop((kept, backup));
}

/// When the successor's first advert came, and when the protocol allowed it.
fn times(capture: &Capture, [active, backup]: [Mac; 2], interval: f64) -> (Instant, Instant) {
    let adverts = |from: Mac| {
        capture.all().into_iter().filter_map(move |seen| match seen.what {
            What::Advert { priority, .. } if seen.from == from => Some((seen.at, priority)),
            _ => None,
        })
    };
    let (first, _) = adverts(backup).next().expect("it was waited for");
    let heard = adverts(active).take_while(|(at, _)| *at < first);
    let (last, priority) = heard.last().expect("it was waited for");
    // RFC 9568 §6.1.
    let skew = f64::from(256 - i32::from(PRIORITIES[1])) / 256.0 * interval;
    let wait = if priority == 0 { skew } else { 3.0 * interval + skew };
    (first, last + Duration::from_secs_f64(wait))
}

fn main() {
    let arguments = Arguments::read();
    let runs = arguments.value("--runs", "10").parse().expect("--runs: a number");
    if !is_there("keepalived") {
        eprintln!("no keepalived beside which to measure; run tests/lab/fetch");
        return;
    }
    let mut table = Table::new(
        "failover",
        &[
            "interval, s",
            "end",
            "havip, ms: median (worst)",
            "keepalived",
            "ratio of medians",
            "beyond the protocol, median: havip",
            "keepalived",
            "runs + left out: havip, keepalived",
        ],
    );
    let mut bars = Vec::new();
    for interval in arguments.value("--intervals", "1,0.1,0.01").split(',') {
        for (name, end) in [
            ("kill -9", End::Kill),
            ("kill -9 of all", End::KillAll),
            ("SIGTERM", End::Term),
            ("cable", End::Cut),
        ] {
            let [ours, theirs] = [false, true].map(|k| measure(k, interval, end, runs));
            let shown = |o: &Outcome| format!("{:.1} ({:.1})", median(&o.gaps), worst(&o.gaps));
            let count = |o: &Outcome| format!("{} + {}", o.gaps.len(), o.stalled);
            let medians = [median(&ours.gaps), median(&theirs.gaps)];
            table.row(&[
                interval,
                name,
                &shown(&ours),
                &shown(&theirs),
                &format!("{:.2}", medians[0] / medians[1]),
                &format!("{:.1}", median(&ours.beyond)),
                &format!("{:.1}", median(&theirs.beyond)),
                &format!("{}, {}", count(&ours), count(&theirs)),
            ]);
            let name = format!("{interval} s: {name}");
            bars.push(Bars { name, ours: medians[0], theirs: medians[1] });
        }
    }
    let title = "From the end of the active gateway to its successor's first advert, median";
    draw("failover", title, "ms", &bars);
}
