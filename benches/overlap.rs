//! For how long two kernels answer for one VIP, havip and keepalived one after the other in one run:
//! from the successor's first gratuitous ARP to the last ARP reply of the gateway that was active,
//! which is asked on its own link each millisecond. And after a cut between two that are then both
//! active: from its end to the last reply of the one that yields.
//!
//!     cargo bench --bench overlap -- [--intervals 0.1] [--runs 5] [--ends kill,lone,freeze,group,cut]
//!
//! | end | what happens to the active gateway |
//! | --- | --- |
//! | kill | `kill -9` of the daemon; of all of keepalived |
//! | lone | the same where `guard = false` |
//! | freeze | SIGSTOP; the guard is left running; all of keepalived |
//! | group | `cgroup.kill`: everything at once, the guard too |
//! | cut | none: the LAN between them is cut, and healed; what is shown begins with that |
//!
//! Who still answers after `MOST` answers for good, as far as this goes. Runs during which the
//! machine itself stood still for too long are left out and counted. Needs root, a mounted cgroup2
//! for `group`, and keepalived from `tests/lab/fetch`. Prints a table in Markdown.

#[path = "measure/gateway.rs"]
mod gateway;
#[path = "../tests/lab/mod.rs"]
mod lab;
mod measure;

use std::fs;
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use gateway::{Gateway, Work, has_keepalived, signal, vip, vips};
use havip::config::IfName;
use havip::linux::clock;
use havip::linux::netlink::Requests;
use havip::node::Instant;
use havip::wire::{IfIndex, Mac};
use lab::asker::Asker;
use lab::capture::{Capture, What};
use lab::{Host, Lan, index_of, ip, wait};
use measure::table::Table;
use measure::{Arguments, Over, Stalls, apart, pass, quantile};

const PRIORITIES: [u8; 2] = [200, 100];
/// Longer than this, and the machine is what is measured.
const STALL: Duration = Duration::from_millis(20);
/// Between two questions.
const STEP: Duration = Duration::from_millis(1);
/// Who does not answer for this long has stopped.
const SILENCE: Duration = Duration::from_millis(300);
/// Who answers for longer than this beside its successor does so for good.
const MOST: Duration = Duration::from_secs(7);
/// How long two are active before the LAN is healed.
const APART: Duration = Duration::from_secs(1);

/// What runs on both gateways.
#[derive(Clone, Copy, PartialEq)]
enum Program {
    Havip { fence: bool },
    Keepalived,
}

#[derive(Clone, Copy, PartialEq)]
enum End {
    Kill,
    Lone,
    Freeze,
    Group,
    Cut,
}

const ENDS: [(&str, End); 5] = [
    ("kill", End::Kill),
    ("lone", End::Lone),
    ("freeze", End::Freeze),
    ("group", End::Group),
    ("cut", End::Cut),
];

/// Milliseconds of each run; infinite where it answered for good.
#[derive(Default)]
struct Outcome {
    overlaps: Vec<f64>,
    stalled: usize,
}

/// Two switches and the cable between them: on one the first gateway and a host that asks it, on
/// the other its successor and those that see and ask that one.
struct Site {
    cable: (Requests, IfIndex),
    active: Host,
    backup: Host,
    asker: Asker,
    other_asker: Asker,
    capture: Capture,
    _lans: [Lan; 2],
    _others: Vec<Host>,
}

impl Site {
    fn new() -> Self {
        let (mut far, mut near) = (Lan::named("br1"), Lan::named("br2"));
        let (active, asking) = (far.host(), far.host());
        // Hosts of each switch are counted by themselves: these have the numbers of those there.
        for _ in 0..2 {
            let namesake = near.host();
            near.delete(&namesake);
        }
        let (backup, seeing) = (near.host(), near.host());
        let mut requests = Requests::open().unwrap();
        let [one, other] = ["cable0", "cable1"].map(|name| IfName::new(name).unwrap());
        requests.add_veth(&one, &other, None).unwrap();
        for (name, bridge) in [("cable0", "br1"), ("cable1", "br2")] {
            let (end, bridge) = (index_of(&mut requests, name), index_of(&mut requests, bridge));
            requests.set_master(end, bridge).unwrap();
            requests.set_up(end, true).unwrap();
        }
        let cable = index_of(&mut requests, "cable0");
        Self {
            cable: (requests, cable),
            asker: Asker::on(&asking),
            other_asker: Asker::on(&seeing),
            capture: Capture::on(&seeing),
            active,
            backup,
            _lans: [far, near],
            _others: vec![asking, seeing],
        }
    }

    fn plug(&mut self, plugged: bool) {
        let (requests, cable) = &mut self.cable;
        requests.set_up(*cable, plugged).unwrap();
    }
}

fn start(program: Program, end: End, host: &Host, interval: &str, priority: u8) -> Gateway {
    let mut work = Work::new(1, interval, priority);
    let Program::Havip { fence } = program else {
        return Gateway::start(true, host, &work);
    };
    let settings = format!("guard = {}\nfence = {fence}", end != End::Lone);
    work.whole[0] = &settings;
    let gateway = Gateway::start(false, host, &work);
    if let Gateway::Havip(daemon) = &gateway {
        wait("guard and fence are there", || {
            let status = daemon.status();
            let guard = &status["guard"]["state"];
            (guard == "running" || guard == "off")
                && status["fence"]["state"] == if fence { "stands" } else { "off" }
        });
    }
    gateway
}

/// Each run in a network namespace of its own.
fn measure(program: Program, interval: &str, end: End, runs: usize) -> Outcome {
    let mut outcome = Outcome::default();
    while outcome.overlaps.len() < runs && outcome.stalled < 4 * runs {
        apart(|| once(program, interval, end, &mut outcome));
    }
    outcome
}

fn once(program: Program, interval: &str, end: End, outcome: &mut Outcome) {
    let mut site = Site::new();
    let macs = [site.active.mac(), site.backup.mac()];
    let first = start(program, end, &site.active, interval, PRIORITIES[0]);
    wait("the first is active", || vips(&site.active) == 1);
    let second = start(program, end, &site.backup, interval, PRIORITIES[1]);
    let many = site.capture.all().len() + 20;
    wait("it advertises", || site.capture.all().len() >= many);
    wait("one is active", || vips(&site.backup) == 0);
    let stalls = Stalls::watch();
    let overlap = if end == End::Cut {
        healed(&mut site, macs)
    } else {
        beside_its_successor(&site, macs, end, &first)
    };
    if stalls.longest() > STALL {
        outcome.stalled += 1;
    } else {
        outcome.overlaps.push(overlap.map_or(f64::INFINITY, |time| time.as_secs_f64() * 1e3));
    }
    // Who is stopped does not end by itself.
    signal("-CONT", &first.processes());
    drop((first, second));
}

/// Asks `of` for the VIP as long as `body` runs.
fn asked<T>(asker: &Asker, of: Mac, body: impl FnOnce() -> T) -> T {
    let is_over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !is_over.load(Ordering::Relaxed) {
                asker.ask(of, the_vip());
                std::thread::park_timeout(STEP);
            }
        });
        let _over = Over(&is_over);
        body()
    })
}

fn the_vip() -> IpAddr {
    ip(&vip(1))
}

fn last_answer(asker: &Asker, of: Mac) -> Option<Instant> {
    let heard = asker.heard();
    let ours = heard.iter().rev().find(|answer| answer.from == of && answer.ip == the_vip());
    ours.map(|answer| answer.at)
}

/// How long the first answers after the other's first announcement; `None`: for good.
fn beside_its_successor(
    site: &Site,
    [active, backup]: [Mac; 2],
    end: End,
    gateway: &Gateway,
) -> Option<Duration> {
    asked(&site.asker, active, || {
        wait("it answers", || last_answer(&site.asker, active).is_some());
        site.capture.forget();
        strike(end, gateway);
        wait("the other takes over", || site.capture.has_claim(backup, &vip(1)));
        let claim = What::Claim(the_vip());
        let all = site.capture.all();
        let first = all.iter().find(|seen| seen.from == backup && seen.what == claim).unwrap().at;
        until_silent(&site.asker, active, first)
    })
}

/// After a cut: how long the one that yields answers after its end.
fn healed(site: &mut Site, [_, backup]: [Mac; 2]) -> Option<Duration> {
    site.plug(false);
    wait("both are active", || site.capture.has_claim(backup, &vip(1)));
    pass(APART);
    let site = &mut *site;
    let (requests, cable) = &mut site.cable;
    asked(&site.other_asker, backup, || {
        wait("it answers", || last_answer(&site.other_asker, backup).is_some());
        let healed_at = clock::now();
        requests.set_up(*cable, true).unwrap();
        until_silent(&site.other_asker, backup, healed_at)
    })
}

fn until_silent(asker: &Asker, of: Mac, since: Instant) -> Option<Duration> {
    loop {
        let last = last_answer(asker, of).unwrap_or(since);
        if last.since(since) > MOST {
            return None;
        }
        if clock::now().since(last.max(since)) > SILENCE {
            return Some(last.since(since));
        }
        pass(Duration::from_millis(10));
    }
}

fn strike(end: End, gateway: &Gateway) {
    let all = gateway.processes();
    match (end, gateway) {
        (End::Kill | End::Lone, Gateway::Havip(_)) => gateway.kill_speaker(),
        (End::Kill | End::Lone, Gateway::Keepalived(_)) => gateway.kill_all(),
        (End::Freeze, Gateway::Havip(daemon)) => signal("-STOP", &[daemon.pid()]),
        (End::Freeze, Gateway::Keepalived(_)) => signal("-STOP", &all),
        (End::Group, _) => {
            let group = group().expect("it was looked for").join(all[0].to_string());
            fs::create_dir(&group).unwrap();
            for pid in &all {
                fs::write(group.join("cgroup.procs"), pid.to_string()).unwrap();
            }
            fs::write(group.join("cgroup.kill"), "1").unwrap();
            wait("all are gone", || fs::remove_dir(&group).is_ok());
        }
        (End::Cut, _) => {}
    }
}

/// Where a cgroup with `cgroup.kill` (Linux 5.14) can be made.
fn group() -> Option<PathBuf> {
    let mounts = fs::read_to_string("/proc/self/mounts").ok()?;
    let mount = mounts.lines().find(|line| line.split(' ').nth(2) == Some("cgroup2"))?;
    let folder = PathBuf::from(mount.split(' ').nth(1)?);
    let trial = folder.join(format!("havip-bench-{}", std::process::id()));
    fs::create_dir(&trial).ok()?;
    let is_there = trial.join("cgroup.kill").exists();
    let _ = fs::remove_dir(trial);
    is_there.then_some(folder)
}

/// Least, median and worst.
fn shown(outcome: &Outcome) -> String {
    let spread = [0.0, 0.5, 1.0].map(|part| quantile(&outcome.overlaps, part));
    let [least, median, worst] = spread.map(|ms| match ms {
        ms if ms.is_infinite() => "for good".to_owned(),
        ms if ms.is_nan() => "-".to_owned(),
        ms => format!("{ms:.0}"),
    });
    let (runs, left_out) = (outcome.overlaps.len(), outcome.stalled);
    format!("{least} / {median} / {worst} ({runs} + {left_out})")
}

fn main() {
    let arguments = Arguments::read();
    let runs = arguments.value("--runs", "5").parse().expect("--runs: a number");
    let ends = arguments.value("--ends", "kill,lone,freeze,group,cut");
    if !has_keepalived() {
        return;
    }
    let what = "ms: least / median / worst (runs + left out)";
    let columns = ["interval, s", "end", &format!("havip, {what}"), "with fence", "keepalived"];
    let mut table = Table::beside_keepalived("overlap", &columns);
    for interval in arguments.value("--intervals", "0.1").split(',') {
        for (name, end) in ENDS.into_iter().filter(|(name, _)| ends.split(',').any(|e| e == *name))
        {
            if end == End::Group && group().is_none() {
                table.row(&[interval, name, "no cgroup2 with cgroup.kill here", "", ""]);
                continue;
            }
            let ours = [false, true]
                .map(|fence| shown(&measure(Program::Havip { fence }, interval, end, runs)));
            let theirs = match end {
                End::Lone => "-".to_owned(),
                _ => shown(&measure(Program::Keepalived, interval, end, runs)),
            };
            table.row(&[interval, name, &ours[0], &ours[1], &theirs]);
        }
    }
}
