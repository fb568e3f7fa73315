//! Two gateways of one kind, a client, and what can be seen of them.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::net::IpAddr;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use havip::linux::netlink::{Notifications, Requests};
use havip::linux::{Pinger, clock};
use havip::node::Instant;
use havip::node::kernel::Change;
use havip::wire::Mac;

use crate::gateway::Gateway;
use crate::lab::capture::{Capture, Seen, What};
use crate::lab::peer::Keepalived;
use crate::lab::{Host, Lan, ip, wait};
use crate::measure::{Over, other};

/// The VIP of most scenarios, and of the one over IPv6.
pub(crate) const VIP: &str = "192.0.2.100";
pub(crate) const VIP6: &str = "2001:db8::51";

pub(crate) fn seconds(seconds: f64) -> Duration {
    Duration::from_secs_f64(seconds)
}

/// What both gateways are told.
#[derive(Clone)]
pub(crate) struct Setup {
    /// Seconds between adverts.
    pub(crate) interval: &'static str,
    /// With more than one router, each has a VIP of its own instead.
    pub(crate) vips: &'static [&'static str],
    pub(crate) routers: u8,
    /// An address that is not advertised, of router 51.
    pub(crate) excluded: Option<String>,
    /// Keys of havip's router; lines of keepalived's `global_defs`, outside of it, and of its
    /// `vrrp_instance`.
    pub(crate) havip: &'static str,
    pub(crate) globals: &'static str,
    pub(crate) outer: &'static str,
    pub(crate) instance: &'static str,
}

impl Default for Setup {
    fn default() -> Self {
        Self {
            interval: "1",
            vips: &[VIP],
            routers: 1,
            excluded: None,
            havip: "",
            globals: "",
            outer: "",
            instance: "",
        }
    }
}

impl Setup {
    /// VRIDs, each with its addresses.
    fn all(&self) -> Vec<(u8, Vec<String>)> {
        if self.routers == 1 {
            return vec![(51, self.vips.iter().map(|vip| (*vip).to_owned()).collect())];
        }
        (1..=self.routers)
            .map(|vrid| {
                let vip = if vrid == 51 { VIP.to_owned() } else { format!("10.77.0.{vrid}") };
                (vrid, vec![vip])
            })
            .collect()
    }

    fn havip(&self, host: &Host, priority: u8) -> String {
        let number = host.number();
        let names: Vec<String> = self.all().iter().map(|(vrid, _)| vrid.to_string()).collect();
        let mut text = format!(
            "[havip]\nnode = \"gw{number}\"\nrun_dir = \"{}\"\n[node.gw{number}]\nvrids = [{}]\n\n\
             [virtual_router.default]\ninterface = \"eth0\"\nadvert_interval = {}\n\
             priority = {priority}\n{}\n",
            host.folder().join("run").display(),
            names.join(", "),
            self.interval,
            self.havip
        );
        for (vrid, vips) in self.all() {
            text += &format!("[virtual_router.{vrid}]\nvips = {vips:?}\n");
            if let (51, Some(excluded)) = (vrid, &self.excluded) {
                text += &format!("vips_excluded = [{excluded:?}]\n");
            }
        }
        text
    }

    fn keepalived(&self, priority: u8) -> String {
        let mut text = format!(
            "global_defs {{\n  vrrp_version 3\n  vrrp_garp_master_refresh 60\n  \
             vrrp_higher_prio_send_advert true\n{}}}\n{}",
            self.globals, self.outer
        );
        for (vrid, vips) in self.all() {
            let line = |ip: &String| format!("    {ip} dev eth0\n");
            let vips: String = vips.iter().map(line).collect();
            let excluded = match (vrid, &self.excluded) {
                (51, Some(ip)) => format!("  virtual_ipaddress_excluded {{\n{}  }}\n", line(ip)),
                _ => String::new(),
            };
            text += &format!(
                "vrrp_instance VI_{vrid} {{\n  state BACKUP\n  interface eth0\n  \
                 virtual_router_id {vrid}\n  priority {priority}\n  advert_int {}\n{}  \
                 virtual_ipaddress {{\n{vips}  }}\n{excluded}}}\n",
                self.interval, self.instance
            );
        }
        text
    }
}

/// A signal to all that belongs to a gateway, at once: a daemon that goes on before its guard takes
/// that one for dead and starts another.
pub(crate) fn signal(gateway: &Gateway, name: &str) {
    crate::gateway::signal(name, &gateway.processes());
}

/// Addresses that went from a host.
pub(crate) struct Gone(Notifications);

impl Gone {
    pub(crate) fn on(host: &Host) -> Self {
        Self(host.within(|| Notifications::open(16 << 20).expect("this needs root")))
    }

    pub(crate) fn read(mut self) -> BTreeSet<IpAddr> {
        let mut changes = Vec::new();
        while self.0.read(&mut changes, 1024).expect("the socket is there") {}
        let gone = changes.iter().filter_map(|change| match change {
            Change::AddressGone { prefix, .. } => Some(prefix.ip),
            _ => None,
        });
        gone.collect()
    }
}

/// Which of the two have the watched VIP, and from when on.
type Held = Vec<(Instant, [bool; 2])>;

/// Looks as often as it can until told to end.
fn watch(requests: &mut [Requests; 2], vip: IpAddr, ends: &AtomicBool) -> Held {
    let mut held: Held = Vec::new();
    while !ends.load(Ordering::Relaxed) {
        let has = |requests: &mut Requests| {
            // One that was changed meanwhile is asked for again.
            let snapshot = requests.dump().ok()?;
            Some(snapshot.addresses.iter().any(|address| address.prefix.ip == vip))
        };
        let [first, second] = requests;
        if let (Some(a), Some(b)) = (has(first), has(second))
            && held.last().is_none_or(|(_, last)| *last != [a, b])
        {
            held.push((clock::now(), [a, b]));
        }
        std::thread::park_timeout(Duration::from_micros(500));
    }
    held
}

/// For how long as many as `count` had it: the longest time, and all of them, as text.
fn for_long(held: &Held, end: Instant, count: usize) -> String {
    let many = |has: &[bool; 2]| has.iter().filter(|has| **has).count();
    let until = held.iter().skip(1).map(|(at, _)| *at).chain([end]);
    let spans = held.iter().zip(until).filter(|((_, has), _)| many(has) == count);
    let times: Vec<Duration> = spans.map(|((from, _), until)| until.since(*from)).collect();
    let longest = times.iter().max().copied().unwrap_or_default().as_millis();
    let all = times.iter().sum::<Duration>().as_millis();
    if all == longest { format!("{all} ms") } else { format!("{longest} ms (in all {all})") }
}

/// The longest time for which the VIP answered nobody.
fn unanswered(pinger: &Pinger, ends: &AtomicBool) -> Duration {
    let (mut last, mut longest) = (clock::now(), Duration::ZERO);
    let mut sequence = 0_u16;
    while !ends.load(Ordering::Relaxed) {
        sequence = sequence.wrapping_add(1);
        pinger.send(sequence);
        if pinger.receive(Duration::from_millis(5)).is_some() {
            longest = longest.max(clock::now().since(last));
            last = clock::now();
            std::thread::park_timeout(Duration::from_millis(2));
        }
    }
    longest.max(clock::now().since(last))
}

/// The place of a scenario.
pub(crate) struct Bed {
    pub(crate) lan: Lan,
    pub(crate) a: Host,
    pub(crate) b: Host,
    pub(crate) macs: [Mac; 2],
    pub(crate) capture: Capture,
    pub(crate) watched: &'static str,
    client: Host,
    keepalived: bool,
}

impl Bed {
    pub(crate) fn new(keepalived: bool) -> Self {
        let mut lan = Lan::new();
        let (a, b, client) = (lan.host(), lan.host(), lan.host());
        let capture = Capture::on(&lan.host());
        let macs = [a.mac(), b.mac()];
        Self { lan, a, b, macs, capture, watched: VIP, client, keepalived }
    }

    pub(crate) fn start(&self, host: &Host, setup: &Setup, priority: u8) -> Gateway {
        if self.keepalived {
            Gateway::Keepalived(Keepalived::run(&other(), host, &setup.keepalived(priority)))
        } else {
            Gateway::Havip(host.daemon_of(&setup.havip(host, priority)))
        }
    }

    /// Two of them: the first, of priority 200, is active, and the second, of 100, knows it.
    pub(crate) fn pair(&self, setup: &Setup) -> (Gateway, Gateway) {
        let first = self.start(&self.a, setup, 200);
        wait("the first is active", || self.a.has(self.watched));
        let second = self.start(&self.b, setup, 100);
        let all = usize::from(setup.routers);
        let adverts = || self.adverts().filter(|(_, from, ..)| *from == self.macs[0]).count();
        let many = adverts() + if setup.interval == "1" { 4 } else { 20 } * all;
        wait("it goes on for a while", || adverts() >= many);
        assert_eq!(self.holders(), "a", "before it begins");
        (first, second)
    }

    /// Gives a running gateway its file anew.
    pub(crate) fn reload(&self, host: &Host, gateway: &mut Gateway, setup: &Setup, priority: u8) {
        let (path, text, pid) = match gateway {
            Gateway::Havip(daemon) => {
                (daemon.config.clone(), setup.havip(host, priority), daemon.pid())
            }
            Gateway::Keepalived(daemon) => (
                host.folder().join("keepalived/keepalived.conf"),
                setup.keepalived(priority),
                daemon.pid(),
            ),
        };
        fs::write(path, text).expect("the folder is there");
        let status = Command::new("kill").args(["-HUP", &pid.to_string()]).status();
        assert!(status.is_ok_and(|status| status.success()), "it runs");
    }

    /// Does `disturb`, and says what could be seen meanwhile.
    pub(crate) fn observe<T>(&mut self, disturb: impl FnOnce(&mut Self) -> T) -> (String, T) {
        let open = || Requests::open().expect("this needs root");
        let mut requests = [self.a.within(open), self.b.within(open)];
        let vip = ip(self.watched);
        let pinger = match vip {
            IpAddr::V4(target) => {
                Some(self.client.within(|| Pinger::open(target).expect("this needs root")))
            }
            IpAddr::V6(_) => None,
        };
        let ends = AtomicBool::new(false);
        self.capture.forget();
        let (result, held, dark) = std::thread::scope(|scope| {
            let held = scope.spawn(|| watch(&mut requests, vip, &ends));
            let dark = scope.spawn(|| pinger.as_ref().map(|pinger| unanswered(pinger, &ends)));
            let over = Over(&ends);
            let result = disturb(self);
            drop(over);
            (result, held.join().expect("it says why"), dark.join().expect("it says why"))
        });
        let end = clock::now();
        let mut facts = format!(
            "{}; VIP on {} in the end, on both for {}, on none for {}",
            self.turns(),
            self.holders(),
            for_long(&held, end, 2),
            for_long(&held, end, 0)
        );
        if let Some(dark) = dark {
            facts += &format!(", unanswered {} ms", dark.as_millis());
        }
        (facts, result)
    }

    /// Who has the VIP now.
    pub(crate) fn holders(&self) -> &'static str {
        match [&self.a, &self.b].map(|host| host.has(self.watched)) {
            [true, true] => "both",
            [true, false] => "a",
            [false, true] => "b",
            [false, false] => "none",
        }
    }

    fn adverts(&self) -> impl Iterator<Item = (Instant, Mac, u8, u8)> + use<> {
        self.capture.all().into_iter().filter_map(|Seen { at, from, what }| match what {
            What::Advert { vrid, priority } => Some((at, from, vrid, priority)),
            What::Claim(_) => None,
        })
    }

    /// Who advertised each router, one after the other, farewells aside. The first gateway did at
    /// the beginning.
    fn senders(&self) -> BTreeMap<u8, Vec<Mac>> {
        let mut senders: BTreeMap<u8, Vec<Mac>> = BTreeMap::new();
        for (_, from, vrid, priority) in self.adverts() {
            let senders = senders.entry(vrid).or_insert_with(|| vec![self.macs[0]]);
            if priority != 0 && senders.last() != Some(&from) {
                senders.push(from);
            }
        }
        senders
    }

    /// How often another than before advertised, of all routers.
    pub(crate) fn takeovers(&self) -> usize {
        self.senders().values().map(|senders| senders.len() - 1).sum()
    }

    /// The same of router 51, as `a → b → a`.
    fn turns(&self) -> String {
        let senders = self.senders().remove(&51).unwrap_or_default();
        // An interface that was made again has another MAC.
        let named = |mac: &Mac| if *mac == self.macs[1] { "b" } else { "a" };
        match senders.len() {
            0..=9 => senders.iter().map(named).collect::<Vec<_>>().join(" → "),
            many => format!("{} changes between a and b", many - 1),
        }
    }

    pub(crate) fn farewells(&self) -> usize {
        self.macs.iter().map(|mac| self.capture.farewells(*mac)).sum()
    }

    /// The longest time between two adverts of one router.
    pub(crate) fn longest_silence(&self) -> Duration {
        let mut last: BTreeMap<u8, Instant> = BTreeMap::new();
        let gaps = self
            .adverts()
            .filter_map(|(at, _, vrid, _)| last.insert(vrid, at).map(|before| at.since(before)));
        gaps.max().unwrap_or_default()
    }

    /// Whether, and how long after `since`, a gateway first claimed an address.
    pub(crate) fn announced(&self, from: Mac, vip: &str, since: Instant) -> String {
        let claim = What::Claim(ip(vip));
        let found = self
            .capture
            .all()
            .into_iter()
            .find(|seen| seen.at >= since && seen.from == from && seen.what == claim);
        found.map_or_else(
            || "no".to_owned(),
            |seen| format!("after {} ms", seen.at.since(since).as_millis()),
        )
    }

    /// Seconds from `since` to the first advert of anyone but `except`.
    pub(crate) fn first_advert_since(&self, since: Instant, except: Mac) -> f64 {
        let mut others = self.adverts().filter(|(at, from, _, _)| *at >= since && *from != except);
        others.next().map_or(f64::NAN, |(at, ..)| at.since(since).as_secs_f64())
    }
}
