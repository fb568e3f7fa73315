//! Many routers on one interface, havip and keepalived one after the other in one run: CPU and
//! memory of the active gateway and of its backup, and the time from start to the last VIP.
//!
//!     cargo bench --bench routers -- [--routers 1,64,250] [--interval 0.1] [--seconds 10]
//!
//! Both gateways of a pair run the same program, so each one's cost includes what its peer makes of
//! it. Needs root, and keepalived from `tests/lab/fetch`. Prints a table in Markdown.

#[path = "../tests/lab/mod.rs"]
mod lab;
mod measure;

use std::collections::BTreeMap;
use std::fs;
use std::time::Duration;

use havip::linux::{clock, netns};
use lab::peer::{Keepalived, is_there};
use lab::{Daemon, Host, Lan, wait};
use measure::{cpu, memory, pass};

/// VIPs are 10.77.0.1 and up: in no network of the hosts', so that they cost no route.
fn vip(number: usize) -> String {
    format!("10.77.{}.{}", number / 250, number % 250 + 1)
}

fn havip_config(routers: usize, interval: &str, priority: u8, node: u8) -> String {
    let names: Vec<String> = (1..=routers).map(|vrid| vrid.to_string()).collect();
    let mut text = format!(
        "[node.gw{node}]\nvrids = [{}]\n\n[virtual_router.default]\ninterface = \"eth0\"\n\
         advert_interval = {interval}\npriority = {priority}\n",
        names.join(", ")
    );
    for vrid in 1..=routers {
        text += &format!("\n[virtual_router.{vrid}]\nvips = [\"{}\"]\n", vip(vrid));
    }
    text
}

fn keepalived_config(routers: usize, interval: &str, priority: u8) -> String {
    let mut text = String::from("global_defs {\n  vrrp_version 3\n}\n");
    for vrid in 1..=routers {
        text += &format!(
            "vrrp_instance VI_{vrid} {{\n  state BACKUP\n  interface eth0\n  \
             virtual_router_id {vrid}\n  priority {priority}\n  advert_int {interval}\n  \
             virtual_ipaddress {{\n    {}/32\n  }}\n}}\n",
            vip(vrid)
        );
    }
    text
}

/// A running gateway of either kind.
enum Gateway {
    Havip(Daemon),
    Keepalived(Keepalived),
}

impl Gateway {
    fn start(keepalived: bool, host: &Host, routers: usize, interval: &str, priority: u8) -> Self {
        if keepalived {
            Self::Keepalived(Keepalived::run(host, &keepalived_config(routers, interval, priority)))
        } else {
            Self::Havip(host.daemon(&havip_config(routers, interval, priority, host.number())))
        }
    }

    /// All of its processes.
    fn processes(&self) -> Vec<u32> {
        let mut all = vec![match self {
            Self::Havip(daemon) => daemon.pid(),
            Self::Keepalived(daemon) => daemon.pid(),
        }];
        let mut next = 0;
        while let Some(pid) = all.get(next) {
            let children = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children"));
            all.extend(children.unwrap_or_default().split_whitespace().flat_map(str::parse::<u32>));
            next += 1;
        }
        all
    }
}

struct Row {
    cpu: [f64; 2],
    memory: [f64; 2],
    start_ms: u128,
}

/// In a network namespace of its own.
fn measure(keepalived: bool, routers: usize, interval: &str, seconds: u64) -> Row {
    std::thread::scope(|scope| {
        let run = || {
            netns::unshare_net().expect("this needs root");
            measure_here(keepalived, routers, interval, seconds)
        };
        scope.spawn(run).join().expect("it says why above")
    })
}

fn measure_here(keepalived: bool, routers: usize, interval: &str, seconds: u64) -> Row {
    let mut lan = Lan::named("br0");
    let (a, b) = (lan.host(), lan.host());
    let vips = |host: &Host| {
        let ours = |ip: std::net::IpAddr| ip.to_string().starts_with("10.77.");
        host.snapshot().addresses.iter().filter(|address| ours(address.prefix.ip)).count()
    };
    let begin = clock::now();
    let active = Gateway::start(keepalived, &a, routers, interval, 200);
    wait("every VIP is there", || vips(&a) == routers);
    let start_ms = clock::now().since(begin).as_millis();
    let backup = Gateway::start(keepalived, &b, routers, interval, 100);
    // Announcements repeat for a while after a start.
    pass(Duration::from_secs(6));
    assert_eq!(vips(&b), 0, "one active gateway");
    let processes = [active.processes(), backup.processes()];
    let before = processes.clone().map(|pids| cpu(&pids));
    pass(Duration::from_secs(seconds));
    let after = processes.clone().map(|pids| cpu(&pids));
    let per_minute = |at: usize| (after[at] - before[at]) as f64 / 1e9 * 60.0 / seconds as f64;
    Row {
        cpu: [per_minute(0), per_minute(1)],
        memory: processes.map(|pids| memory(&pids)),
        start_ms,
    }
}

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).filter(|a| a != "--bench").collect();
    let given: BTreeMap<&str, &str> =
        arguments.chunks_exact(2).map(|pair| (pair[0].as_str(), pair[1].as_str())).collect();
    let value = |name, default| given.get(name).copied().unwrap_or(default);
    let interval = value("--interval", "0.1");
    let seconds = value("--seconds", "10").parse().expect("--seconds: a number");
    if !is_there("keepalived") {
        eprintln!("no keepalived beside which to measure; run tests/lab/fetch");
        return;
    }
    println!("| routers, every {interval} s | | havip | keepalived | ratio |");
    println!("| --- | --- | --- | --- | --- |");
    for routers in value("--routers", "1,64,250").split(',') {
        let routers: usize = routers.parse().expect("--routers: numbers with commas");
        let [ours, theirs] = [false, true].map(|k| measure(k, routers, interval, seconds));
        let line = |what: &str, a: f64, b: f64| {
            println!("| {routers} | {what} | {a:.2} | {b:.2} | {:.2} |", a / b);
        };
        line("CPU of the active, s a minute", ours.cpu[0], theirs.cpu[0]);
        line("CPU of the backup, s a minute", ours.cpu[1], theirs.cpu[1]);
        line("memory of the active (PSS), MiB", ours.memory[0], theirs.memory[0]);
        line("memory of the backup (PSS), MiB", ours.memory[1], theirs.memory[1]);
        line("start to the last VIP, ms", ours.start_ms as f64, theirs.start_ms as f64);
    }
}
