//! From the end of an active gateway to its successor's first advert, havip and keepalived one
//! after the other in one run.
//!
//!     cargo bench --bench failover -- [--intervals 1,0.1,0.01] [--runs 5]
//!
//! An end is a `kill -9` of the process that speaks VRRP (havip has a guard beside it, keepalived
//! a parent that starts another, which may speak first), one of every process at once, a SIGTERM,
//! or a cut cable. What the protocol itself costs, from the last advert that the successor heard
//! until it may take over (Active_Down_Interval, or Skew_Time after a farewell), is shown beside.
//! Runs during which the machine itself stood still for more than 5 ms and a twentieth of the
//! interval are left out and counted. Needs root, and keepalived from `tests/lab/fetch`. Prints a
//! table in Markdown.

#[path = "measure/gateway.rs"]
mod gateway;
#[path = "../tests/lab/mod.rs"]
mod lab;
mod measure;

use std::time::Duration;

use gateway::{Gateway, Work, has_keepalived, vip, vips};
use havip::linux::clock;
use havip::node::Instant;
use havip::wire::Mac;
use lab::capture::{Capture, What};
use lab::{Lan, wait};
use measure::picture::{Bars, draw};
use measure::table::Table;
use measure::{Arguments, Stalls, apart, median, ms, worst};

const PRIORITIES: [u8; 2] = [200, 100];
/// Longer than this and this part of the interval, and the machine is what is measured.
const STALL: Duration = Duration::from_millis(5);
const STALL_PART: f64 = 1.0 / 20.0;
/// Adverts heard before the end: long enough for the backup, and, as far as that does not take too
/// long, for the announcements after a start.
const HEARD: (usize, usize) = (5, 20);
const SETTLED: Duration = Duration::from_secs(6);

#[derive(Clone, Copy, PartialEq)]
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
    let length: f64 = interval.parse().expect("--intervals: numbers");
    let settled = (SETTLED.as_secs_f64() / length) as usize;
    let many = capture.all().len() + settled.clamp(HEARD.0, HEARD.1);
    wait("it advertises", || capture.all().len() >= many);
    wait("one is active", || vips(&b) == 0);
    let stalls = Stalls::watch();
    capture.forget();
    wait("it goes on", || capture.has_advert(macs[0]));
    let before = clock::now();
    let (ended_at, kept) = match end {
        // The command that sends the signal takes a moment; what was said until then counts as
        // said before.
        End::Kill => {
            active.kill_speaker();
            (clock::now(), Some(active))
        }
        End::KillAll => {
            active.kill_all();
            (clock::now(), Some(active))
        }
        End::Term => {
            active.stop();
            (before, None)
        }
        End::Cut => {
            lan.plug(&a, false);
            (before, Some(active))
        }
    };
    let speakers = if end == End::Kill { &macs[..] } else { &macs[1..] };
    wait("someone takes over", || next(&capture, ended_at, speakers).is_some());
    let (first, speaker) = next(&capture, ended_at, speakers).expect("it was waited for");
    if speaker == macs[1] {
        wait("it announces its VIP", || capture.has_claim(macs[1], &vip(1)));
    }
    let limit = limit(&capture, macs[0], first, length);
    if stalls.longest() > STALL.max(Duration::from_secs_f64(length * STALL_PART)) {
        outcome.stalled += 1;
    } else {
        outcome.gaps.push(ms(ended_at, first));
        outcome.beyond.push(ms(limit, first));
    }
    drop((kept, backup));
}

/// Every advert, its sender and its priority.
fn adverts(capture: &Capture) -> impl Iterator<Item = (Instant, Mac, u8)> {
    capture.all().into_iter().filter_map(|seen| match seen.what {
        What::Advert { priority, .. } => Some((seen.at, seen.from, priority)),
        What::Claim(_) => None,
    })
}

/// The first advert after `since` that is no farewell: the successor's, or of one that was started
/// anew in the place of the first.
fn next(capture: &Capture, since: Instant, speakers: &[Mac]) -> Option<(Instant, Mac)> {
    let mut all = adverts(capture).filter(|(_, from, _)| speakers.contains(from));
    all.find(|(at, _, priority)| *at > since && *priority > 0).map(|(at, from, _)| (at, from))
}

/// When the protocol allowed the backup to take over, with what it had heard before `first`.
fn limit(capture: &Capture, active: Mac, first: Instant, interval: f64) -> Instant {
    let heard = adverts(capture).filter(|(at, from, _)| *from == active && *at < first);
    let (last, _, priority) = heard.last().expect("it was waited for");
    // RFC 9568 §6.1.
    let skew = f64::from(256 - i32::from(PRIORITIES[1])) / 256.0 * interval;
    let wait = if priority == 0 { skew } else { 3.0 * interval + skew };
    last + Duration::from_secs_f64(wait)
}

fn main() {
    let arguments = Arguments::read();
    let runs = arguments.value("--runs", "5").parse().expect("--runs: a number");
    if !has_keepalived() {
        return;
    }
    let mut table = Table::beside_keepalived(
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
            let shown = |o: &Outcome| match o.gaps[..] {
                [] => "-".to_owned(),
                _ => format!("{:.1} ({:.1})", median(&o.gaps), worst(&o.gaps)),
            };
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
            // In no run of one of them did the machine go on.
            if medians.iter().all(|median| median.is_finite()) {
                bars.push(Bars { name, ours: medians[0], theirs: medians[1] });
            }
        }
    }
    let title = "From the end of the active gateway to its successor's first advert, median";
    draw("failover", title, "ms", &bars);
}
