//! A gateway of either kind, with the same routers.

#![allow(dead_code, reason = "each benchmark uses its part")]

use std::fs;
use std::net::IpAddr;
use std::process::Command;

use crate::lab::peer::{Keepalived, is_there};
use crate::lab::{Daemon, Host};
use crate::measure::other;

/// Routers of one interface: a VRID has eight bits.
pub(crate) const PER_INTERFACE: usize = 250;

/// What a gateway has to do; all else is as each program has it by default.
#[derive(Clone, Copy)]
pub(crate) struct Work<'a> {
    /// Each with one VIP; beyond those of one interface on `eth1` and so on.
    pub(crate) routers: usize,
    /// Routers of one interface.
    pub(crate) per_interface: usize,
    /// In seconds.
    pub(crate) interval: &'a str,
    pub(crate) priority: u8,
    /// VIPs of the first router that are not advertised.
    pub(crate) excluded: usize,
    /// Lines of havip's and of keepalived's own: for the whole, and for every router.
    pub(crate) whole: [&'a str; 2],
    pub(crate) every: [&'a str; 2],
}

impl<'a> Work<'a> {
    pub(crate) const fn new(routers: usize, interval: &'a str, priority: u8) -> Self {
        let per_interface = PER_INTERFACE;
        Self {
            routers,
            per_interface,
            interval,
            priority,
            excluded: 0,
            whole: [""; 2],
            every: [""; 2],
        }
    }

    /// Number, VRID and interface of each router.
    fn each(&self) -> impl Iterator<Item = (usize, usize, String)> {
        let room = self.per_interface;
        (0..self.routers).map(move |at| (at + 1, at % room + 1, format!("eth{}", at / room)))
    }

    fn havip_config(&self, host: &Host) -> String {
        let number = host.number();
        // A name that is a number would be a VRID.
        let names: Vec<String> = self.each().map(|(name, ..)| format!("\"r{name}\"")).collect();
        let mut text = format!(
            "[havip]\nnode = \"gw{number}\"\nrun_dir = \"{}\"\n{}\n[node.gw{number}]\n\
             vrids = [{}]\n\n[virtual_router.default]\nadvert_interval = {}\npriority = {}\n{}\n",
            host.folder().join("run").display(),
            self.whole[0],
            names.join(", "),
            self.interval,
            self.priority,
            self.every[0]
        );
        for (name, vrid, interface) in self.each() {
            text += &format!(
                "\n[virtual_router.r{name}]\nvrid = {vrid}\ninterface = \"{interface}\"\n\
                 vips = [\"{}\"]\n",
                vip(name)
            );
            if name == 1 && self.excluded > 0 {
                let all: Vec<String> =
                    (1..=self.excluded).map(|at| format!("\"{}\"", excluded(at))).collect();
                text += &format!("vips_excluded = [{}]\n", all.join(", "));
            }
        }
        text
    }

    fn keepalived_config(&self) -> String {
        let whole = self.whole[1];
        let mut text = format!("global_defs {{\n  vrrp_version 3\n{whole}\n}}\n");
        for (name, vrid, interface) in self.each() {
            let more = if name == 1 { self.excluded } else { 0 };
            let more: Vec<String> =
                (1..=more).map(|at| format!("    {}/32\n", excluded(at))).collect();
            text += &format!(
                "vrrp_instance VI_{name} {{\n  state BACKUP\n  interface {interface}\n  \
                 virtual_router_id {vrid}\n  priority {}\n  advert_int {}\n  {}\n  \
                 virtual_ipaddress {{\n    {}/32\n  }}\n  \
                 virtual_ipaddress_excluded {{\n{}  }}\n}}\n",
                self.priority,
                self.interval,
                self.every[1],
                vip(name),
                more.concat(),
            );
        }
        text
    }
}

/// The VIP of a router: 10.77.0.1 and up, in no network of the hosts', so that they cost no route.
pub(crate) fn vip(number: usize) -> String {
    format!("10.77.{}.{}", number / 250, number % 250 + 1)
}

/// A VIP that is not advertised: 10.78.0.1 and up.
pub(crate) fn excluded(number: usize) -> String {
    format!("10.78.{}.{}", number / 250, number % 250 + 1)
}

/// Whether an address is one of those.
pub(crate) fn is_vip(ip: IpAddr) -> bool {
    matches!(ip, IpAddr::V4(ip) if matches!(ip.octets(), [10, 77 | 78, ..]))
}

/// How many of them a host has.
pub(crate) fn vips(host: &Host) -> usize {
    host.snapshot().addresses.iter().filter(|address| is_vip(address.prefix.ip)).count()
}

/// Whether there is one to measure beside; says so if not.
pub(crate) fn has_keepalived() -> bool {
    let peer = other();
    let there = is_there(&peer);
    if !there {
        eprintln!("no {peer} beside which to measure; run tests/lab/fetch {peer}");
    }
    there
}

/// Programs and ways to run them: name, whether it is keepalived, and lines for its whole. havip
/// takes a real-time priority by itself.
pub(crate) const PROGRAMS: [(&str, bool, &str); 3] = [
    ("havip", false, ""),
    ("keepalived", true, ""),
    ("keepalived, real-time", true, "vrrp_rt_priority 50\n  vrrp_rlimit_rttime 1000000"),
];

/// A running gateway.
pub(crate) enum Gateway {
    Havip(Daemon),
    Keepalived(Keepalived),
}

impl Gateway {
    pub(crate) fn start(keepalived: bool, host: &Host, work: &Work<'_>) -> Self {
        if keepalived {
            Self::Keepalived(Keepalived::run(&other(), host, &work.keepalived_config()))
        } else {
            Self::Havip(host.daemon_of(&work.havip_config(host)))
        }
    }

    /// Gives it other work, which it takes up with a SIGHUP.
    pub(crate) fn change(&self, host: &Host, work: &Work<'_>) {
        match self {
            Self::Havip(daemon) => daemon.reload(&work.havip_config(host)),
            Self::Keepalived(daemon) => daemon.reload(&work.keepalived_config()),
        }
    }

    /// All of its processes.
    pub(crate) fn processes(&self) -> Vec<u32> {
        let mut all = vec![match self {
            Self::Havip(daemon) => daemon.pid(),
            Self::Keepalived(daemon) => daemon.pid(),
        }];
        let mut next = 0;
        while let Some(pid) = all.get(next) {
            let tasks = fs::read_dir(format!("/proc/{pid}/task"));
            for task in tasks.into_iter().flatten().flatten() {
                let children = fs::read_to_string(task.path().join("children"));
                let children = children.unwrap_or_default();
                all.extend(children.split_whitespace().flat_map(str::parse::<u32>));
            }
            next += 1;
        }
        all
    }

    /// kill -9 of the process that speaks VRRP.
    pub(crate) fn kill_speaker(&self) {
        let pid = match self {
            Self::Havip(daemon) => daemon.pid(),
            // Its parent waits for it.
            Self::Keepalived(_) => *self.processes().last().expect("itself at least"),
        };
        signal("-KILL", &[pid]);
    }

    /// kill -9 of every process, none of which has time to answer to the end of another.
    pub(crate) fn kill_all(&self) {
        let all = self.processes();
        signal("-STOP", &all);
        signal("-KILL", &all);
    }

    /// kill -9 of havip's daemon, and of all of keepalived.
    pub(crate) fn kill(self) {
        match self {
            Self::Havip(mut daemon) => daemon.kill(),
            Self::Keepalived(daemon) => daemon.kill(),
        }
    }

    /// SIGTERM, and its end.
    pub(crate) fn stop(mut self) {
        match &mut self {
            Self::Havip(daemon) => _ = daemon.stop(),
            Self::Keepalived(daemon) => daemon.stop(),
        }
    }
}

/// Sends a signal by its name. Who has ended already needs none.
pub(crate) fn signal(name: &str, pids: &[u32]) {
    let pids = pids.iter().map(u32::to_string);
    let _ = Command::new("kill").arg(name).args(pids).output().expect("kill is there");
}
