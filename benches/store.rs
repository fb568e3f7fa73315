//! What following a large, busy store costs a gateway: 100,000 keys of others, then changes to
//! them, then changes to its own; beside a store that has nothing but its own keys.
//!
//!     cargo bench --bench store -- [--keys 100000] [--seconds 60] [--version 3.5]
//!
//! 64 routers at 100 ms. Needs root, and etcd from `tests/lab/fetch`. Prints a table in Markdown:
//! changes that were made, events that reached the node and readings it made, its CPU, its memory
//! (PSS), the longest gap between two adverts of one router, as the host beside it saw them, and
//! the longest time for which the machine ran nothing at any priority.

#[path = "../tests/lab/cluster/mod.rs"]
mod cluster;
#[path = "../tests/lab/mod.rs"]
mod lab;
mod measure;

use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use cluster::{Cluster, Setup};
use havip::config::NodeName;
use havip::linux::netlink::Requests;
use havip::linux::{RecvBatch, VrrpSocket, clock, netns, rt};
use havip::node::Instant;
use havip::node::kernel::Port;
use havip::store::endpoint::Scheme;
use havip::store::{Endpoint, Options, import};
use havip::wire::Family;
use havip::wire::ip::parse_ipv4;
use havip::wire::vrrp::Packet;
use lab::{Daemon, Host, Lan, wait};
use measure::table::Table;
use measure::{Arguments, Stalls, cpu, memory, pass};

const ROUTERS: usize = 64;

/// Writes keys one after the other over etcd's HTTP gateway.
struct Writer {
    stream: BufReader<TcpStream>,
    host: SocketAddr,
}

impl Writer {
    fn new(host: SocketAddr) -> Self {
        let stream = TcpStream::connect(host).expect("etcd listens");
        stream.set_nodelay(true).expect("a socket");
        Self { stream: BufReader::new(stream), host }
    }

    fn put(&mut self, key: &str, value: &str) {
        let body = format!(
            "{{\"key\":\"{}\",\"value\":\"{}\"}}",
            BASE64_STANDARD.encode(key),
            BASE64_STANDARD.encode(value)
        );
        let request = format!(
            "POST /v3/kv/put HTTP/1.1\r\nHost: {}\r\nContent-Length: {}\r\n\r\n{body}",
            self.host,
            body.len()
        );
        self.stream.get_mut().write_all(request.as_bytes()).expect("etcd reads");
        let (mut length, mut line) = (0, String::new());
        loop {
            line.clear();
            self.stream.read_line(&mut line).expect("etcd answers");
            let text = line.trim().to_ascii_lowercase();
            if let Some(number) = text.strip_prefix("content-length:") {
                length = number.trim().parse().expect("a number");
            }
            if text.is_empty() {
                break;
            }
        }
        let mut answer = vec![0; length];
        self.stream.read_exact(&mut answer).expect("etcd answers");
        assert!(answer.windows(6).any(|part| part == b"header"), "a put is refused");
    }
}

/// Hears adverts, and keeps the longest gap of any router.
struct Gaps {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<Duration>,
}

impl Gaps {
    fn on(host: &Host) -> Self {
        let socket = host.within(|| {
            let index = lab::index_of(&mut Requests::open().unwrap(), "eth0");
            VrrpSocket::open(Port { index, family: Family::V4 }).unwrap()
        });
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let thread = std::thread::spawn(move || {
            // Its own lateness would be taken for the gateway's.
            let _ = rt::realtime(2);
            let mut batch = RecvBatch::new();
            let mut last: BTreeMap<u8, Instant> = BTreeMap::new();
            let mut worst = Duration::ZERO;
            while !stopped.load(Ordering::Relaxed) {
                let _ = havip::linux::wait_readable(&socket, Duration::from_millis(100));
                while socket.recv_batch(&mut batch).unwrap() > 0 {
                    let now = clock::now();
                    for packet in batch.packets() {
                        let (_, bytes) = parse_ipv4(packet.bytes).unwrap();
                        let vrid = Packet::new(bytes).unwrap().header().vrid.number();
                        if let Some(before) = last.insert(vrid, now) {
                            worst = worst.max(now.since(before));
                        }
                    }
                }
            }
            worst
        });
        Self { stop, thread }
    }

    fn end(self) -> Duration {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().expect("it ends")
    }
}

fn own_keys() -> Vec<(String, String)> {
    let names: Vec<String> = (1..=ROUTERS).map(|vrid| vrid.to_string()).collect();
    let mut keys = vec![
        ("/havip/virtual_router/default/interface".to_owned(), "eth0".to_owned()),
        ("/havip/virtual_router/default/advert_interval".to_owned(), "0.1".to_owned()),
        ("/havip/node/gw1/vrids".to_owned(), names.join(",")),
    ];
    for name in &names {
        keys.push((format!("/havip/virtual_router/{name}/vips"), format!("10.77.0.{name}")));
    }
    keys
}

/// Keys of gateways and routers that are not this node's.
fn others(number: usize) -> (String, String) {
    let (group, kind) = (number / 4, number % 4);
    match kind {
        0 => (format!("/havip/node/other{group}/vrids"), format!("other{group}")),
        1 => (format!("/havip/virtual_router/other{group}/vips"), "10.78.0.1".to_owned()),
        2 => (format!("/havip/virtual_router/other{group}/vrid"), "9".to_owned()),
        _ => (format!("/havip/vRouterGateway/other{group}"), "10.0.0.1,ff:ff:ff:ff:ff:ff".into()),
    }
}

fn fill(cluster: &Cluster, keys: impl Iterator<Item = (String, String)>) {
    let endpoints = [cluster.endpoint(0)];
    let endpoints =
        Endpoint::parse_list(endpoints.iter().map(String::as_str), Scheme::Http).unwrap();
    let options = Options::new(endpoints, "/havip/".to_owned(), NodeName::new("-").unwrap());
    let keys: Vec<_> = keys.collect();
    for part in keys.chunks(100) {
        smol::block_on(import(&options, part, &[])).expect("it is written");
    }
}

/// Makes `rate` changes a second for a time; returns how many.
fn change(cluster: &Cluster, rate: u32, seconds: u64, of: impl Fn(u32) -> (String, String)) -> u32 {
    let begin = clock::now();
    let end = begin + Duration::from_secs(seconds);
    if rate == 0 {
        pass(Duration::from_secs(seconds));
        return 0;
    }
    let mut writer = Writer::new(cluster.address(0));
    let mut made = 0;
    while clock::now() < end {
        let due = begin + Duration::from_secs(1) * made / rate;
        pass(due.since(clock::now()));
        let (key, value) = of(made);
        writer.put(&key, &value);
        made += 1;
    }
    made
}

struct Site<'a> {
    cluster: &'a Cluster,
    daemon: &'a Daemon,
    neighbour: &'a Host,
    seconds: u64,
    table: Table,
}

impl Site<'_> {
    fn count(&self, name: &str) -> u64 {
        self.daemon.status()["config"]["store"][name].as_u64().unwrap_or(0)
    }

    fn row(&mut self, what: &str, keys: usize, rate: u32, of: impl Fn(u32) -> (String, String)) {
        let before = (self.count("events"), self.count("readings"));
        let processes = [self.daemon.pid()];
        let gaps = Gaps::on(self.neighbour);
        let stalls = Stalls::watch();
        let began = cpu(&processes);
        let made = change(self.cluster, rate, self.seconds, of);
        let used = cpu(&processes) - began;
        let worst = gaps.end();
        let stall = stalls.longest();
        let minutes = self.seconds as f64 / 60.0;
        let read = (self.count("events") - before.0, self.count("readings") - before.1);
        self.table.row(&[
            what.to_owned(),
            keys.to_string(),
            made.to_string(),
            read.0.to_string(),
            read.1.to_string(),
            format!("{:.2}", used as f64 / 1e9 / minutes),
            format!("{:.2}", memory(&processes)),
            format!("{:.1}", worst.as_secs_f64() * 1e3),
            format!("{:.1}", stall.as_secs_f64() * 1e3),
        ]);
    }
}

fn main() {
    let arguments = Arguments::read();
    let keys: usize = arguments.value("--keys", "100000").parse().expect("--keys: a number");
    let seconds = arguments.value("--seconds", "60").parse().expect("--seconds: a number");
    let version = if arguments.value("--version", "3.5") == "3.4" { "3.4" } else { "3.5" };
    netns::unshare_net().expect("this needs root");
    let mut lan = Lan::new();
    let address = lan.address();
    let extra = vec!["--quota-backend-bytes=4294967296".to_owned()];
    let setup = Setup { address, extra, ..Setup::new(version) };
    let Some(cluster) = Cluster::start("benches/store", &setup) else { return };
    fill(&cluster, own_keys().into_iter());
    let (gateway, neighbour) = (lan.host(), lan.host());
    let daemon = gateway.daemon(&format!(
        "[etcd]\nendpoints = [\"{}\"]\n[snapshot]\npath = \"{}\"\n",
        cluster.endpoint(0),
        gateway.folder().join("state").display()
    ));
    wait("every VIP is there", || {
        let ours = |ip: std::net::IpAddr| ip.to_string().starts_with("10.77.");
        let all = gateway.snapshot().addresses;
        all.iter().filter(|address| ours(address.prefix.ip)).count() == ROUTERS
    });
    // Announcements repeat for a while after a start.
    pass(Duration::from_secs(6));
    let columns = [
        "",
        "keys",
        "changes",
        "events",
        "readings",
        "CPU, s a minute",
        "PSS, MiB",
        "longest gap, ms",
        "longest stall of the machine, ms",
    ];
    let table = Table::new("store", &columns);
    let mut site =
        Site { cluster: &cluster, daemon: &daemon, neighbour: &neighbour, seconds, table };
    let own = own_keys().len();
    let none = |_| unreachable!("nothing changes");
    site.row("its own keys alone", own, 0, none);
    fill(&cluster, (0..keys).map(others));
    site.row("and those of others", own + keys, 0, none);
    site.row("500 changes a second to others", own + keys, 500, |n| {
        let (key, value) = others(n as usize * 7919 % keys);
        (key, format!("{value} "))
    });
    site.row("200 changes a second to its own", own + keys, 200, |n| {
        let router = n as usize % ROUTERS + 1;
        (format!("/havip/virtual_router/{router}/priority"), (100 + n % 100).to_string())
    });
}
