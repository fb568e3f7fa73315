//! A gateway whose configuration changes again and again, through its file and through etcd: what
//! was not changed is not disturbed, and nothing of all that was stays.
//!
//! `HAVIP_CHANGES=n` makes that many changes instead of a few hundred, and prints figures.

#![cfg(feature = "etcd")]

#[macro_use]
mod lab;
#[path = "lab/cluster/mod.rs"]
mod cluster;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::time::Duration;

use cluster::{Cluster, Setup};
use havip::linux::clock;
use lab::{Daemon, Host, LIMIT, Lan, holds_within, wait};
use serde_json::Value;

/// Changes without a word to the contrary, and those of them after which sizes are compared: what
/// an allocator keeps for reuse it has by then.
const CHANGES: usize = 200;
const WARM_UP: usize = 100;
/// KiB by which the private memory may be larger at the end: threads that had nothing to do before
/// have an arena each by then. A leak of 100 bytes a change shows from 10,000 changes on.
const GROWTH_MAX: u64 = 1024;
/// One change in so many goes through etcd, where there is one.
const ETCD_EVERY: usize = 4;

/// What a router that changes is to be. Its state is not to change.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Spec {
    vips: Vec<String>,
    priority: u64,
    interval: &'static str,
}

impl Spec {
    /// The `round`th form of the router whose addresses end in this.
    fn new(round: usize, last: u8) -> Self {
        let more = (0..round % 4).map(|n| format!("198.51.{}.{last}", 100 + (round + n) % 7));
        Self {
            vips: std::iter::once(format!("192.0.2.{last}")).chain(more).collect(),
            priority: 200 + u64::try_from(round % 5).unwrap(),
            interval: ["0.5", "1", "0.7"][round % 3],
        }
    }
}

/// The site as it is meant to be after a change.
#[derive(Clone, Debug)]
struct Wanted {
    /// By the file, and in etcd.
    file: Spec,
    etcd: Option<Spec>,
    /// Whether the router is there that comes and goes, by the file and in etcd.
    guests: [bool; 2],
}

const FILE_GUEST: &str = "70";
const ETCD_GUEST: &str = "71";

impl Wanted {
    fn new(has_etcd: bool) -> Self {
        Self {
            file: Spec::new(0, 60),
            etcd: has_etcd.then(|| Spec::new(0, 61)),
            guests: [false; 2],
        }
    }

    /// Whether the next change goes through etcd.
    fn is_etcds(&self, round: usize) -> bool {
        self.etcd.is_some() && round.is_multiple_of(ETCD_EVERY)
    }

    /// The next change: another form of a router, or one that comes or goes.
    fn change(&mut self, round: usize) {
        let is_etcds = self.is_etcds(round);
        let guest = &mut self.guests[usize::from(is_etcds)];
        if round % 5 == 3 {
            *guest = !*guest;
        } else if let (true, Some(spec)) = (is_etcds, &mut self.etcd) {
            *spec = Spec::new(round, 61);
        } else {
            self.file = Spec::new(round, 60);
        }
    }

    fn file(&self, host: &Host, etcd: Option<&Cluster>) -> String {
        let mut text = match etcd {
            Some(etcd) => format!(
                "[etcd]\nendpoints = [\"{}\"]\n[snapshot]\npath = \"{}\"\n",
                etcd.endpoint(0),
                host.folder().join("state").display()
            ),
            None => {
                let guest = if self.guests[0] { ", 70" } else { "" };
                format!("[node.gw1]\nvrids = [51, 52, 60{guest}]\n")
            }
        };
        text += "[virtual_router.default]\ninterface = \"eth0\"\n";
        for (name, last) in [("51", 51), ("52", 52)] {
            text += &format!(
                "[virtual_router.{name}]\nvips = [\"192.0.2.{last}\"]\npriority = 200\n\
                 advert_interval = 0.5\n"
            );
        }
        let Spec { vips, priority, interval } = &self.file;
        text += &format!(
            "[virtual_router.60]\nvips = {vips:?}\npriority = {priority}\n\
             advert_interval = {interval}\n[virtual_router.70]\nvips = [\"192.0.2.70\"]\n\
             priority = 255\nenabled = {}\n",
            self.guests[0]
        );
        host.config(&text)
    }

    /// The keys in etcd: the list, and everything of etcd's own routers.
    fn keys(&self) -> BTreeMap<String, String> {
        let Some(spec) = &self.etcd else { return BTreeMap::new() };
        let guest = if self.guests[1] { ",71" } else { "" };
        [
            ("node/gw1/vrids", format!("51,52,60,61,70{guest}")),
            ("virtual_router/61/vips", spec.vips.join(",")),
            ("virtual_router/61/priority", spec.priority.to_string()),
            ("virtual_router/61/advert_interval", spec.interval.to_owned()),
            ("virtual_router/71/vips", "192.0.2.71".to_owned()),
            ("virtual_router/71/priority", "255".to_owned()),
        ]
        .map(|(key, value)| (format!("/havip/{key}"), value))
        .into()
    }

    /// Every router that is to run, with its addresses.
    fn routers(&self) -> BTreeMap<&str, Vec<String>> {
        let mut all = BTreeMap::from([
            ("51", vec!["192.0.2.51".to_owned()]),
            ("52", vec!["192.0.2.52".to_owned()]),
            ("60", self.file.vips.clone()),
        ]);
        all.extend(self.etcd.iter().map(|spec| ("61", spec.vips.clone())));
        for (name, is_there) in [FILE_GUEST, ETCD_GUEST].into_iter().zip(self.guests) {
            if is_there {
                all.insert(name, vec![format!("192.0.2.{name}")]);
            }
        }
        all
    }

    /// Whether a daemon runs it, and has its addresses on the interface.
    fn is_shown(&self, status: &Value) -> bool {
        let routers = by_name(status);
        let has = |(name, vips): (&str, Vec<String>)| {
            routers.get(name).is_some_and(|router| {
                let shown = router["vips"].as_array().unwrap();
                router["state"] == "active"
                    && shown.iter().all(|vip| vip["state"] == "present")
                    && shown.iter().map(|vip| &vip["address"]).eq(&vips)
            })
        };
        let is = |name: &str, spec: &Spec| {
            routers.get(name).is_some_and(|router| {
                router["priority"] == spec.priority && router["advert_interval"] == spec.interval
            })
        };
        let wanted = self.routers();
        routers.len() == wanted.len()
            && wanted.into_iter().all(has)
            && is("60", &self.file)
            && self.etcd.iter().all(|spec| is("61", spec))
    }
}

fn by_name(status: &Value) -> BTreeMap<&str, &Value> {
    let routers = status["vrrp"]["routers"].as_array().unwrap().iter();
    routers.map(|router| (router["name"].as_str().unwrap(), router)).collect()
}

/// What a process has.
#[derive(Clone, Copy, Debug, Default)]
struct Size {
    descriptors: usize,
    threads: usize,
    private_kib: u64,
}

impl Size {
    fn of(pid: u32) -> Self {
        let rollup = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).unwrap();
        let private = rollup.lines().filter(|line| line.starts_with("Private_"));
        let kib = private.map(|line| line.split_whitespace().nth(1).unwrap().parse::<u64>());
        Self {
            descriptors: fs::read_dir(format!("/proc/{pid}/fd")).unwrap().count(),
            threads: fs::read_dir(format!("/proc/{pid}/task")).unwrap().count(),
            private_kib: kib.map(Result::unwrap).sum(),
        }
    }
}

/// A process that has nothing more to do is as large as it was.
#[track_caller]
fn comes_back_to(pid: u32, before: Size) -> Size {
    let mut now = before;
    let is_back = holds_within(LIMIT, || {
        now = Size::of(pid);
        (now.descriptors, now.threads) == (before.descriptors, before.threads)
    });
    assert!(is_back, "{before:?} before, {now:?} now");
    assert!(now.private_kib <= before.private_kib + GROWTH_MAX, "{before:?} before, {now:?} now");
    now
}

/// Counters of a router that show whether it was disturbed.
fn disturbed(router: &Value) -> Vec<&Value> {
    let names = ["priority_zero_sent", "restored", "gave_way", "conflicts_won", "adverts_unsent"];
    names.iter().map(|name| &router["counters"][name]).collect()
}

/// Makes all changes on a gateway beside one that would take over.
fn many_changes(lan: &mut Lan, etcd: Option<&Cluster>) {
    let count = std::env::var("HAVIP_CHANGES").ok().map(|text| text.parse().expect("a number"));
    let is_asked = count.is_some();
    let count: usize = count.unwrap_or(CHANGES);
    let (a, b) = (lan.host(), lan.host());
    let mut wanted = Wanted::new(etcd.is_some());
    let mut keys = BTreeMap::new();
    put(etcd, &mut keys, &wanted);
    let daemon = a.daemon_of(&wanted.file(&a, etcd));
    wait("it has begun", || wanted.is_shown(&daemon.status()));
    let backup = beside(&b, etcd.is_some());
    wait("the other one listens", || {
        by_name(&backup.status()).values().all(|router| router["state"] == "backup")
    });
    let mut before = Size::default();
    let mut tenths = Vec::new();
    let mut longest = Duration::ZERO;
    let mut begin = clock::now();
    for round in 1..=WARM_UP + count {
        let at = clock::now();
        wanted.change(round);
        if wanted.is_etcds(round) {
            put(etcd, &mut keys, &wanted);
        } else {
            fs::write(&daemon.config, wanted.file(&a, etcd)).unwrap();
            daemon.signal("-HUP");
        }
        wait("the change is there", || wanted.is_shown(&daemon.status()));
        longest = longest.max(clock::now().since(at));
        if round % 100 == 0 {
            is_on_the_box(&a, &wanted);
        }
        if round > WARM_UP && (round - WARM_UP).is_multiple_of(count.div_ceil(10)) {
            tenths.push(Size::of(daemon.pid()).private_kib);
        }
        if round == WARM_UP {
            before = calm(&daemon);
            begin = clock::now();
            longest = Duration::ZERO;
        }
    }
    let took = clock::now().since(begin);
    let after = comes_back_to(daemon.pid(), before);
    undisturbed(&daemon, 1, "active");
    undisturbed(&backup, 0, "backup");
    if is_asked {
        println!(
            "{count} changes in {took:.1?}, {:.2?} each, {longest:.2?} at most; {before:?} before, \
             {after:?} after; KiB by tenths {tenths:?}",
            took / u32::try_from(count).unwrap()
        );
    }
}

/// Writes what differs.
fn put(etcd: Option<&Cluster>, keys: &mut BTreeMap<String, String>, wanted: &Wanted) {
    let Some(etcd) = etcd else { return };
    let new = wanted.keys();
    let changed = new.iter().filter(|(key, value)| keys.get(*key) != Some(value));
    let operations: Vec<String> =
        changed.map(|(key, value)| format!("put {key} \"{value}\"")).collect();
    if !operations.is_empty() {
        etcd.txn(&operations);
    }
    *keys = new;
}

/// A gateway with the same routers that only waits for the other one to fall silent.
fn beside(host: &Host, has_etcd: bool) -> Daemon {
    let names: &[u8] = if has_etcd { &[51, 52, 60, 61] } else { &[51, 52, 60] };
    let mut text = format!("[node.gw2]\nvrids = {names:?}\n");
    for last in names {
        text += &format!(
            "[virtual_router.{last}]\ninterface = \"eth0\"\nvips = [\"192.0.2.{last}\"]\n\
             priority = 50\nadvert_interval = 0.5\n"
        );
    }
    host.daemon(&text)
}

/// Its size when nothing is under way: for a while nothing is opened or started.
fn calm(daemon: &Daemon) -> Size {
    let mut same = 0;
    let mut last = Size::of(daemon.pid());
    wait("it is calm", || {
        let now = Size::of(daemon.pid());
        let is_same = (now.descriptors, now.threads) == (last.descriptors, last.threads);
        same = if is_same { same + 1 } else { 0 };
        last = now;
        same >= 50
    });
    last
}

/// The kernel has the addresses of all routers, and none that was.
fn is_on_the_box(host: &Host, wanted: &Wanted) {
    let vips: BTreeSet<String> = wanted.routers().into_values().flatten().collect();
    wait("the kernel has exactly these", || {
        let there = host.snapshot().addresses.into_iter().map(|address| address.prefix);
        let there = there.filter(|prefix| prefix.ip.is_ipv4() && prefix.len == 32);
        there.map(|prefix| prefix.ip.to_string()).collect::<BTreeSet<_>>() == vips
    });
}

/// Routers that were always there are what they were, without a doubt meanwhile.
#[track_caller]
fn undisturbed(daemon: &Daemon, transitions: u64, state: &str) {
    let status = daemon.status();
    for (name, router) in by_name(&status) {
        if [FILE_GUEST, ETCD_GUEST].contains(&name) {
            continue;
        }
        assert_eq!(router["state"], state, "{router:#}");
        assert_eq!(router["counters"]["master_transitions"], transitions, "{router:#}");
        assert!(disturbed(router).iter().all(|count| **count == 0), "{router:#}");
    }
}

isolated! {
    fn changes_of_the_file_disturb_nothing_else_and_leave_nothing_behind() {
        many_changes(&mut Lan::new(), None);
    }
}

isolated! {
    fn changes_of_the_file_and_of_etcd_disturb_nothing_else_and_leave_nothing_behind() {
        let mut lan = Lan::new();
        let address = lan.address();
        let setup = Setup { address, ..Setup::new("3.5") };
        let test = "changes_of_the_file_and_of_etcd";
        let Some(etcd) = Cluster::start(test, &setup) else { return };
        many_changes(&mut lan, Some(&etcd));
    }
}
