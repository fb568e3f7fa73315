//! Many routers, havip and keepalived one after the other in one run: CPU and memory of the active
//! gateway and of its backup, and the time from start to the first advert and to the last VIP.
//!
//!     cargo bench --bench routers -- [--routers 1,64,250,1000] [--interval 0.1] [--seconds 20]
//!
//! The two are joined by cables and not by a switch, and each has a processor of its own, which
//! takes up what arrives for it: else the kernel would charge that work to whoever sends. Beyond
//! 250 routers there are several interfaces. Both run the same program, so each one's cost includes
//! what its peer makes of it. A pair that a stall at its start has made both active is left out,
//! told of, and started anew. Beside them, what two threads take that do nothing but send and read
//! as many adverts. The first advert is shown as each program is by default, and for havip also
//! without listening first. Needs root, two processors, and
//! keepalived from `tests/lab/fetch`. Prints a table in Markdown.

#[path = "measure/bare.rs"]
mod bare;
#[path = "measure/gateway.rs"]
mod gateway;
#[path = "../tests/lab/mod.rs"]
mod lab;
mod measure;

use std::process::Command;
use std::time::Duration;

use bare::bare;
use gateway::{Gateway, PER_INTERFACE, Work, has_keepalived, vips};
use havip::linux::clock;
use havip::node::Instant;
use lab::capture::Capture;
use lab::{Host, Lan, wait};
use measure::table::Table;
use measure::{Arguments, apart, cpu, memory, ms, pass, pin};

/// Pairs that are started to have one with an active gateway and a backup.
const TRIES: usize = 3;

struct Row {
    cpu: [f64; 2],
    memory: [f64; 2],
    first_ms: f64,
    last_ms: f64,
}

fn pair(routers: usize) -> (Lan, Host, Host) {
    let mut lan = Lan::named("br0");
    let (a, b) = (lan.host(), lan.host());
    let cables = u8::try_from(routers.div_ceil(PER_INTERFACE)).expect("--routers: not that many");
    lan.join(&a, &b, cables);
    takes_up(&a, 0);
    takes_up(&b, 1);
    (lan, a, b)
}

/// Has one processor take up what arrives at a host (receive packet steering).
fn takes_up(host: &Host, processor: usize) {
    let script = format!(
        "mount -t sysfs sysfs /sys; for queue in /sys/class/net/eth*/queues/rx-0; do \
         echo {:x} > $queue/rps_cpus; done",
        1 << processor
    );
    let mut steer = Command::new("unshare");
    steer.args(["--mount", "sh", "-ec", &script]);
    let done = host.within(|| steer.status()).is_ok_and(|status| status.success());
    assert!(done, "unshare (of util-linux) cannot say which processor takes up what arrives");
}

/// Starts one and waits for all of its VIPs; when its first advert came and its last VIP was there.
fn start(keepalived: bool, [a, b]: [&Host; 2], work: &Work<'_>) -> (Gateway, f64, f64) {
    let capture = Capture::on(b);
    let begin = clock::now();
    let active = Gateway::start(keepalived, a, work);
    let mac = a.mac();
    let mut last = Instant::ZERO;
    wait("every VIP is there", || {
        last = clock::now();
        vips(a) == work.routers
    });
    wait("it advertises", || capture.has_advert(mac));
    let first = capture.all().into_iter().find(|seen| seen.from == mac).expect("it was waited for");
    (active, ms(begin, first.at), ms(begin, last))
}

/// One pair; `None` if a stall at the start has made both active for good.
fn measure(keepalived: bool, routers: usize, interval: &str, seconds: u64) -> Option<Row> {
    let (_lan, a, b) = pair(routers);
    let work = |priority| Work::new(routers, interval, priority);
    let (active, first_ms, last_ms) = start(keepalived, [&a, &b], &work(200));
    let backup = Gateway::start(keepalived, &b, &work(100));
    // Announcements repeat for a while after a start.
    pass(Duration::from_secs(6));
    if vips(&b) != 0 {
        eprintln!("left out: the backup of {routers} routers is active as well");
        return None;
    }
    let processes = [active.processes(), backup.processes()];
    for (processor, of) in processes.iter().enumerate() {
        of.iter().for_each(|pid| pin("-acp", processor, pid.to_string()));
    }
    let before = processes.clone().map(|pids| cpu(&pids));
    pass(Duration::from_secs(seconds));
    let after = processes.clone().map(|pids| cpu(&pids));
    let per_minute = |at: usize| (after[at] - before[at]) as f64 / 1e9 * 60.0 / seconds as f64;
    let memory = processes.map(|pids| memory(&pids));
    Some(Row { cpu: [per_minute(0), per_minute(1)], memory, first_ms, last_ms })
}

/// The first advert of a havip that does not listen first.
fn at_once(routers: usize, interval: &str) -> f64 {
    let (_lan, a, b) = pair(routers);
    let mut work = Work::new(routers, interval, 200);
    work.every[0] = "listen_first = 0";
    start(false, [&a, &b], &work).1
}

fn main() {
    let arguments = Arguments::read();
    let interval = arguments.value("--interval", "0.1");
    let seconds = arguments.value("--seconds", "20").parse().expect("--seconds: a number");
    if !has_keepalived() {
        return;
    }
    let head = format!("routers, every {interval} s");
    let columns = [&head, "", "havip", "keepalived", "ratio", "adverts alone"];
    let mut table = Table::beside_keepalived("routers", &columns);
    for routers in arguments.value("--routers", "1,64,250,1000").split(',') {
        let count: usize = routers.parse().expect("--routers: numbers with commas");
        let once = |k| apart(|| measure(k, count, interval, seconds));
        let [ours, theirs] = [false, true]
            .map(|k| (0..TRIES).find_map(|_| once(k)).expect("one active gateway, at last"));
        let without = apart(|| at_once(count, interval));
        let [sending, reading] = apart(|| {
            let (_lan, a, b) = pair(count);
            bare([&a, &b], count, interval, seconds).map(|cpu| format!("{cpu:.2}"))
        });
        for (what, a, b, alone) in [
            ("CPU of the active, s a minute", ours.cpu[0], theirs.cpu[0], &*sending),
            ("CPU of the backup, s a minute", ours.cpu[1], theirs.cpu[1], &reading),
            ("memory of the active (PSS), MiB", ours.memory[0], theirs.memory[0], "-"),
            ("memory of the backup (PSS), MiB", ours.memory[1], theirs.memory[1], "-"),
            ("start to the first advert, ms", ours.first_ms, theirs.first_ms, "-"),
            ("the same with listen_first = 0", without, theirs.first_ms, "-"),
            ("start to the last VIP, ms", ours.last_ms, theirs.last_ms, "-"),
        ] {
            let cells = [a, b, a / b].map(|value| format!("{value:.2}"));
            let [a, b, ratio] = &cells;
            table.row(&[routers, what, a, b, ratio, alone]);
        }
    }
}
