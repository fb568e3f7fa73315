//! A storm of address events on a box with many links: how late adverts are meanwhile, beside
//! keepalived.
//!
//!     cargo bench --bench links -- [--scales 250x2000,1000x5000] [--interval 0.1] [--rounds 5]
//!
//! One gateway has a router on each of so many links, beside so many other links that none of its
//! routers use. In each round an address is added on each of 250 links, all at once, and taken away
//! again. Timed from outside: the longest gap between two adverts of one router, in as long a calm
//! before and during the storm. How long the machine itself stood still stands beside it. Needs
//! root, iproute2, and keepalived from `tests/lab/fetch`. Prints a table in Markdown.

#[path = "measure/gateway.rs"]
mod gateway;
#[path = "../tests/lab/mod.rs"]
mod lab;
mod measure;

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::process::Command;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use gateway::{Gateway, Work, has_keepalived, vips};
use havip::linux::clock;
use havip::node::Instant;
use havip::wire::Mac;
use lab::capture::{What, each};
use lab::{Host, Lan};
use measure::table::Table;
use measure::{Arguments, Stalls, apart, median, ms, pass, worst};

/// Links that get an address in a storm.
const TOUCHED: usize = 250;
/// Time after the last change in which what it set off still counts.
const AFTER: Duration = Duration::from_millis(500);
/// Longest start.
const START: Duration = Duration::from_secs(300);

/// One program in one scale, in milliseconds.
struct Row {
    calm: f64,
    storms: Vec<f64>,
    stall: f64,
}

fn batch(host: &Host, lines: &str) {
    let file = host.folder().join("batch");
    std::fs::write(&file, lines).expect("it can be written");
    let log = host.folder().join("batch.log");
    let mut child = host.start(Command::new("ip").arg("-batch").arg(&file), &log);
    assert!(child.wait().expect("a child").success(), "ip -batch");
}

/// A link with an address for each router, `eth0` and on, and the other links, among them the far
/// ends of those.
fn links(host: &Host, routers: usize, others: usize) {
    let mut lines = String::new();
    let mut pair = |near: &str, far: &str| {
        writeln!(
            lines,
            "link add {near} type veth peer name {far}\nlink set {near} up\nlink set {far} up"
        )
        .expect("a string");
    };
    (1..routers).for_each(|at| pair(&format!("eth{at}"), &format!("far{at}")));
    let pairs = others.saturating_sub(routers).div_ceil(2);
    (0..pairs).for_each(|at| pair(&format!("one{at}"), &format!("other{at}")));
    for at in 1..routers {
        let (high, low) = (at / 250, at % 250);
        writeln!(lines, "addr add 10.{}.{low}.1/24 dev eth{at}", 100 + high).expect("a string");
    }
    batch(host, &lines);
}

fn storm(host: &Host, verb: &str, routers: usize) {
    let lines = (0..TOUCHED.min(routers)).map(|at| {
        let (link, low) = (at * routers.div_ceil(TOUCHED) % routers, at % 250);
        format!("addr {verb} 172.16.{low}.1/24 dev eth{link}\n")
    });
    batch(host, &lines.collect::<String>());
}

/// The longest gap of each router's adverts, as they come.
#[derive(Default)]
struct Gaps {
    last: BTreeMap<(Mac, u8), Instant>,
    longest: f64,
    count: usize,
}

impl Gaps {
    fn take(&mut self, router: (Mac, u8), at: Instant) {
        self.count += 1;
        if let Some(before) = self.last.insert(router, at) {
            self.longest = self.longest.max(ms(before, at));
        }
    }
}

fn measure(
    keepalived: bool,
    (routers, others): (usize, usize),
    interval: &str,
    rounds: usize,
) -> Row {
    let mut lan = Lan::new();
    let host = lan.host();
    links(&host, routers, others);
    // Each link gets an IPv6 address of its own, and proves it.
    pass(Duration::from_secs(5));
    let mut work = Work::new(routers, interval, 200);
    work.per_interface = 1;
    let gateway = Gateway::start(keepalived, &host, &work);
    let begin = clock::now();
    while vips(&host) < routers {
        assert!(clock::now().since(begin) < START, "{} of {routers} VIPs came", vips(&host));
        pass(Duration::from_millis(500));
    }
    // Announcements repeat for a while after a start.
    pass(Duration::from_secs(6));
    let gaps = Arc::new(Mutex::new(Gaps::default()));
    let taken = Arc::clone(&gaps);
    let watch = each(&host, move |seen| {
        if let What::Advert { vrid, .. } = seen.what {
            taken.lock().expect("nobody panics").take((seen.from, vrid), seen.at);
        }
    });
    let longest = || std::mem::take(&mut gaps.lock().expect("nobody panics").longest);
    let begin = clock::now();
    pass(Duration::from_secs(2));
    let _ = longest();
    pass(Duration::from_secs(3));
    let calm = longest();
    let stalls = Stalls::watch();
    let storms = (0..rounds)
        .flat_map(|_| ["add", "del"])
        .map(|verb| {
            storm(&host, verb, routers);
            pass(AFTER);
            longest()
        })
        .collect();
    let stall = stalls.longest().as_secs_f64() * 1e3;
    let seconds = clock::now().since(begin).as_secs_f64();
    let (heard, seen) =
        gaps.lock().map(|gaps| (gaps.last.len(), gaps.count)).expect("nobody panics");
    assert_eq!(heard, routers, "routers that advertise");
    let due = seconds / interval.parse::<f64>().expect("--interval: a number") * routers as f64;
    assert!(seen as f64 > due * 0.5, "{seen} adverts seen where {due:.0} were due");
    drop(watch);
    drop(gateway);
    Row { calm, storms, stall }
}

fn main() {
    let arguments = Arguments::read();
    let interval = arguments.value("--interval", "0.1");
    let rounds = arguments.value("--rounds", "5").parse().expect("--rounds: a number");
    if !has_keepalived() {
        return;
    }
    let head = format!("routers, each on a link of its own, every {interval} s");
    let columns = [
        &head,
        "other links",
        "",
        "longest gap in a calm, ms",
        "in a storm: median",
        "in a storm: longest",
        "longest stall of the machine, ms",
    ];
    let mut table = Table::new("links", &columns);
    for scale in arguments.value("--scales", "250x2000,1000x5000").split(',') {
        let (routers, others) = scale.split_once('x').expect("--scales: ROUTERSxOTHERS");
        let number = |text: &str| text.parse::<usize>().expect("--scales: numbers");
        let counts = (number(routers), number(others));
        let rows = [("havip", false), ("keepalived", true)].map(|(name, keepalived)| {
            let row = apart(|| measure(keepalived, counts, interval, rounds));
            let [calm, middle, longest, stall] =
                [row.calm, median(&row.storms), worst(&row.storms), row.stall]
                    .map(|value| format!("{value:.1}"));
            table.row(&[routers, others, name, &calm, &middle, &longest, &stall]);
            row
        });
        let [ours, theirs] = &rows;
        let ratio = |of: fn(&Row) -> f64| format!("{:.2}", of(ours) / of(theirs));
        table.row(&[
            routers,
            others,
            "ratio",
            &ratio(|row| row.calm),
            &ratio(|row| median(&row.storms)),
            &ratio(|row| worst(&row.storms)),
            "",
        ]);
    }
}
