//! What measuring a process needs.

#![allow(dead_code, reason = "each benchmark uses its part")]

pub(crate) mod load;
pub(crate) mod picture;
pub(crate) mod table;

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use havip::linux::{clock, netns, rt};
use havip::node::Instant;

/// What follows the benchmark's name on the command line: `--name value`.
pub(crate) struct Arguments(BTreeMap<String, String>);

impl Arguments {
    pub(crate) fn read() -> Self {
        let all: Vec<String> = std::env::args().skip(1).filter(|a| a != "--bench").collect();
        Self(all.chunks_exact(2).map(|pair| (pair[0].clone(), pair[1].clone())).collect())
    }

    pub(crate) fn value<'a>(&'a self, name: &str, default: &'a str) -> &'a str {
        self.0.get(name).map_or(default, String::as_str)
    }
}

/// The keepalived that is measured beside havip: a peer of `tests/lab/fetch`, by `HAVIP_KEEPALIVED`.
pub(crate) fn other() -> String {
    std::env::var("HAVIP_KEEPALIVED").unwrap_or_else(|_| "keepalived".to_owned())
}

/// Nanoseconds of CPU of all threads.
pub(crate) fn cpu(processes: &[u32]) -> u64 {
    let tasks = processes.iter().flat_map(|pid| fs::read_dir(format!("/proc/{pid}/task")).unwrap());
    tasks.map(|task| cpu_of(&task.unwrap().path())).sum()
}

/// Nanoseconds of CPU of one thread, by its folder in /proc.
pub(crate) fn cpu_of(thread: &Path) -> u64 {
    let text = fs::read_to_string(thread.join("schedstat")).unwrap();
    text.split(' ').next().unwrap().parse().unwrap()
}

/// Proportional set size in MiB.
pub(crate) fn memory(processes: &[u32]) -> f64 {
    let kib = |pid: &u32| {
        let text = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).unwrap();
        let line = text.lines().find_map(|line| line.strip_prefix("Pss:")).unwrap();
        line.trim().trim_end_matches(" kB").parse::<f64>().unwrap()
    };
    processes.iter().map(kib).sum::<f64>() / 1024.0
}

/// Lets time pass.
pub(crate) fn pass(time: Duration) {
    let end = clock::now() + time;
    while clock::now() < end {
        std::thread::park_timeout(end.since(clock::now()));
    }
}

/// Does something on a thread of its own, in a network namespace of its own.
pub(crate) fn apart<T: Send>(body: impl FnOnce() -> T + Send) -> T {
    std::thread::scope(|scope| {
        let run = || {
            netns::unshare_net().expect("this needs root");
            body()
        };
        scope.spawn(run).join().expect("it says why above")
    })
}

/// Tells those who look at it that it is over, at the latest when it goes: whoever waits for them
/// does not wait for ever after a panic.
pub(crate) struct Over<'a>(pub(crate) &'a AtomicBool);

impl Drop for Over<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Keeps a thread, or with `"-acp"` for `how` all of a process, on one processor.
pub(crate) fn pin(how: &str, processor: usize, id: impl AsRef<OsStr>) {
    let mut pin = Command::new("taskset");
    pin.arg(how).arg(processor.to_string()).arg(id);
    let pinned = pin.output().is_ok_and(|output| output.status.success());
    assert!(pinned, "taskset (of util-linux) cannot pin a thread");
}

/// The value below which this part of them lies, 0 to 1.
pub(crate) fn quantile(values: &[f64], part: f64) -> f64 {
    let mut values = values.to_vec();
    values.sort_by(f64::total_cmp);
    let last = values.len().saturating_sub(1);
    values.get((last as f64 * part).round() as usize).copied().unwrap_or(f64::NAN)
}

pub(crate) fn median(values: &[f64]) -> f64 {
    quantile(values, 0.5)
}

pub(crate) fn worst(values: &[f64]) -> f64 {
    quantile(values, 1.0)
}

/// Milliseconds from one moment to a later one.
pub(crate) fn ms(from: Instant, to: Instant) -> f64 {
    (to.nanos() as f64 - from.nanos() as f64) / 1e6
}

/// A moment in which a processor ran nothing of ours, at any priority.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Stall {
    pub(crate) from: Instant,
    pub(crate) to: Instant,
}

/// Watches every processor for stalls.
pub(crate) struct Stalls {
    ends: Arc<AtomicBool>,
    threads: Vec<JoinHandle<Vec<Stall>>>,
}

/// The same for the calling thread.
pub(crate) fn pin_this_thread(processor: usize) {
    let thread = fs::read_link("/proc/thread-self").expect("/proc is mounted");
    pin("-cp", processor, thread.file_name().expect("PID/task/TID"));
}

impl Stalls {
    const STEP: Duration = Duration::from_millis(1);
    /// Shorter ones are no stalls.
    const LEAST: Duration = Duration::from_millis(2);

    pub(crate) fn watch() -> Self {
        let ends = Arc::new(AtomicBool::new(false));
        let count = std::thread::available_parallelism().map_or(1, usize::from);
        let threads = (0..count).map(|processor| {
            let ends = Arc::clone(&ends);
            std::thread::spawn(move || Self::look(processor, &ends))
        });
        Self { threads: threads.collect(), ends }
    }

    fn look(processor: usize, ends: &AtomicBool) -> Vec<Stall> {
        pin_this_thread(processor);
        let _ = rt::realtime(90);
        let mut stalls = Vec::new();
        while !ends.load(Ordering::Relaxed) {
            let from = clock::now();
            std::thread::park_timeout(Self::STEP);
            let to = clock::now();
            if to.since(from) >= Self::STEP + Self::LEAST {
                stalls.push(Stall { from, to });
            }
        }
        stalls
    }

    /// All until now; ends the watch.
    pub(crate) fn all(self) -> Vec<Stall> {
        self.ends.store(true, Ordering::Relaxed);
        let of_each =
            self.threads.into_iter().map(|thread| thread.join().expect("it does not panic"));
        of_each.flatten().collect()
    }

    /// The longest one until now; ends the watch.
    pub(crate) fn longest(self) -> Duration {
        let lengths = self.all().into_iter().map(|stall| stall.to.since(stall.from));
        lengths.max().unwrap_or_default()
    }
}
