//! What measuring a process needs.

use std::fs;
use std::time::Duration;

use havip::linux::clock;

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
