//! What measuring a process needs.

#![allow(dead_code, reason = "each benchmark uses its part")]

use std::collections::BTreeMap;
use std::fs;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use havip::linux::{clock, rt};

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

/// Nanoseconds of CPU of all threads.
pub(crate) fn cpu(processes: &[u32]) -> u64 {
    let tasks = processes.iter().flat_map(|pid| fs::read_dir(format!("/proc/{pid}/task")).unwrap());
    tasks
        .map(|task| {
            let text = fs::read_to_string(task.unwrap().path().join("schedstat")).unwrap();
            text.split(' ').next().unwrap().parse::<u64>().unwrap()
        })
        .sum()
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

/// Watches for moments in which the machine ran nothing of ours, at any priority.
pub(crate) struct Stalls {
    ends: Arc<AtomicBool>,
    thread: JoinHandle<Duration>,
}

impl Stalls {
    const STEP: Duration = Duration::from_millis(1);

    pub(crate) fn watch() -> Self {
        let ends = Arc::new(AtomicBool::new(false));
        let theirs = Arc::clone(&ends);
        let thread = std::thread::spawn(move || {
            let _ = rt::realtime(90);
            let mut longest = Duration::ZERO;
            while !theirs.load(Ordering::Relaxed) {
                let before = clock::now();
                std::thread::park_timeout(Self::STEP);
                longest = longest.max(clock::now().since(before).saturating_sub(Self::STEP));
            }
            longest
        });
        Self { ends, thread }
    }

    /// The longest one until now; ends the watch.
    pub(crate) fn longest(self) -> Duration {
        self.ends.store(true, Ordering::Relaxed);
        self.thread.join().expect("it does not panic")
    }
}
