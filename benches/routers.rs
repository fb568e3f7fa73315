//! Many routers on one interface, havip and keepalived one after the other in one run: CPU and
//! memory of the active gateway and of its backup, and the time from start to the last VIP.
//!
//!     cargo bench --bench routers -- [--routers 1,64,250] [--interval 0.1] [--seconds 10]
//!
//! The two are joined by a cable and not by a switch, whose work the kernel would charge to whoever
//! sends. Both run the same program, so each one's cost includes what its peer makes of it. Needs root, and keepalived from `tests/lab/fetch`. Prints a table in Markdown.

#[path = "measure/gateway.rs"]
mod gateway;
#[path = "../tests/lab/mod.rs"]
mod lab;
mod measure;

use std::time::Duration;

use gateway::{Gateway, vips};
use havip::linux::{clock, netns};
use lab::peer::is_there;
use lab::{Lan, wait};
use measure::{Arguments, cpu, memory, pass};

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
    let (mut a, mut b) = (lan.host(), lan.host());
    lan.join(&mut a, &mut b);
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
    let arguments = Arguments::read();
    let interval = arguments.value("--interval", "0.1");
    let seconds = arguments.value("--seconds", "10").parse().expect("--seconds: a number");
    if !is_there("keepalived") {
        eprintln!("no keepalived beside which to measure; run tests/lab/fetch");
        return;
    }
    println!("| routers, every {interval} s | | havip | keepalived | ratio |");
    println!("| --- | --- | --- | --- | --- |");
    for routers in arguments.value("--routers", "1,64,250").split(',') {
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
