//! Work that may wait for a disk, a name or the kernel, on threads that exist since the start: what
//! is given to them needs no thread that may not be had later, and what hangs costs one of them.
//!
//! Each kind of work has a lane of its own, so that a mount that hangs keeps nobody else waiting.
//! A lane takes work in its order; what nobody waits for any more is not begun.

use std::collections::VecDeque;
use std::fmt;
use std::fs::{self, File};
use std::io;
use std::sync::{Condvar, Mutex, MutexGuard, OnceLock, PoisonError};
use std::thread;
use std::time::Duration;

use smol::Timer;
use smol::channel::{Sender, bounded};

use crate::linux::clock;
use crate::node::Instant;

/// Work that may wait in one lane. Each of those who give work waits for it before it gives more.
const QUEUE_MAX: usize = 16;
/// Bytes of a thread's stack: C libraries' resolvers want more than a page or two.
const STACK: usize = 1024 * 1024;
/// What takes longer than this is shown.
const LONG: Duration = Duration::from_secs(5);

/// A kind of work.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lane {
    /// Reading the local file.
    File,
    /// Asking the kernel what the box is.
    Kernel,
    /// Reading and writing the snapshot.
    Snapshot,
    /// Making what is missing in `run_dir`.
    RunDir,
    /// Names of etcd's endpoints.
    Names,
    /// Certificates, keys and passwords for etcd.
    Secrets,
    /// Starting a process.
    Process,
}

/// Each lane with the number of its threads.
const LANES: [(Lane, usize); 7] = [
    (Lane::File, 1),
    (Lane::Kernel, 1),
    (Lane::Snapshot, 1),
    (Lane::RunDir, 1),
    // A name server that is silent must not keep the endpoints with other names waiting.
    (Lane::Names, 3),
    (Lane::Secrets, 1),
    (Lane::Process, 1),
];

/// Why work was not begun: too much of its kind waits.
#[derive(Debug)]
pub struct Busy {
    doing: String,
}

impl fmt::Display for Busy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "not started, as an earlier one has not finished: {}", self.doing)
    }
}

impl std::error::Error for Busy {}

struct Job {
    doing: String,
    work: Box<dyn FnOnce() + Send>,
    /// Whether nobody waits for it any more.
    is_idle: Box<dyn Fn() -> bool + Send>,
}

#[derive(Default)]
struct Queue {
    waiting: VecDeque<Job>,
    /// What its threads do, and since when.
    running: Vec<(String, Instant)>,
}

#[derive(Default)]
struct Shared {
    queue: Mutex<Queue>,
    bell: Condvar,
}

impl Shared {
    fn queue(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn work(&self) {
        let mut queue = self.queue();
        loop {
            let Some(job) = queue.waiting.pop_front() else {
                queue = self.bell.wait(queue).unwrap_or_else(PoisonError::into_inner);
                continue;
            };
            if (job.is_idle)() {
                continue;
            }
            let mark = (job.doing, clock::now());
            queue.running.push(mark.clone());
            drop(queue);
            (job.work)();
            queue = self.queue();
            let at = queue.running.iter().position(|running| *running == mark);
            at.map(|at| queue.running.swap_remove(at));
        }
    }
}

type Lanes = [Shared; LANES.len()];

static STARTED: OnceLock<Result<&'static Lanes, io::ErrorKind>> = OnceLock::new();

/// Starts all threads, unless they are there.
///
/// # Errors
/// One of them cannot be had.
pub fn start() -> io::Result<()> {
    lanes().map(drop)
}

fn lanes() -> io::Result<&'static Lanes> {
    static LANES_SHARED: OnceLock<Lanes> = OnceLock::new();
    let begin = || {
        let shared = LANES_SHARED.get_or_init(Lanes::default);
        for ((lane, threads), shared) in LANES.iter().zip(shared) {
            for _ in 0..*threads {
                let name = format!("{lane:?}").to_lowercase();
                let thread = thread::Builder::new().name(name).stack_size(STACK);
                thread.spawn(|| shared.work()).map_err(|error| error.kind())?;
            }
        }
        Ok(shared)
    };
    STARTED.get_or_init(begin).map_err(|kind| no_task(&kind.into()))
}

/// Starts the thread and opens the descriptors that smol's timers and sockets stand on, unless they
/// are there. smol itself panics where they cannot be had, so this tries first.
///
/// # Errors
/// One of them cannot be had.
pub fn reactor() -> io::Result<()> {
    static STARTED: OnceLock<Result<(), io::ErrorKind>> = OnceLock::new();
    let mut failed = None;
    let mut begin = || {
        let tried = try_thread().map_err(|error| no_task(&error)).and_then(|()| {
            // Its epoll, its eventfd and its timerfd, and one for what it is to wait for.
            (0..4).map(|_| File::open("/")).collect::<io::Result<Vec<_>>>().map(drop)
        });
        if let Err(error) = tried {
            let kind = error.kind();
            failed = Some(error);
            return Err(kind);
        }
        drop(Timer::after(Duration::ZERO));
        smol::block_on(Timer::after(Duration::ZERO));
        Ok(())
    };
    let result = *STARTED.get_or_init(&mut begin);
    result.map_err(|kind| failed.unwrap_or_else(|| kind.into()))
}

/// Whether a thread with the usual stack can be had. Returns once it is gone again.
fn try_thread() -> io::Result<()> {
    let count = || fs::read_dir("/proc/self/task").map_or(0, Iterator::count);
    let before = count();
    let tried = thread::Builder::new().name("async-io".into()).spawn(|| ())?;
    // It does nothing that could panic.
    let _ = tried.join();
    // The kernel counts it for a moment longer.
    for _ in 0..1000 {
        if count() <= before {
            break;
        }
        thread::yield_now();
    }
    Ok(())
}

/// Why no thread or process can be had, with the way out.
#[must_use]
pub fn no_task(error: &io::Error) -> io::Error {
    let way_out = "raise the limit of tasks (TasksMax=, pids.max of the cgroup, ulimit -u)";
    io::Error::new(error.kind(), format!("no new thread or process can be had: {error}; {way_out}"))
}

/// Has `work` done in a lane and gives what it gives. `doing` is what the status shows of it.
///
/// # Errors
/// It is not begun, as too much waits or there are no threads.
pub async fn run<T: Send + 'static>(
    lane: Lane,
    doing: impl Into<String>,
    work: impl FnOnce() -> T + Send + 'static,
) -> io::Result<T> {
    let (sender, result) = bounded(1);
    give(lane, doing.into(), sender, work)?;
    result.recv().await.map_err(|_| io::Error::other("it ended without a result"))
}

fn give<T: Send + 'static>(
    lane: Lane,
    doing: String,
    sender: Sender<T>,
    work: impl FnOnce() -> T + Send + 'static,
) -> io::Result<()> {
    let shared = lanes()?.iter().zip(LANES).find(|(_, (known, _))| *known == lane);
    let Some((shared, _)) = shared else { return Err(io::ErrorKind::NotFound.into()) };
    let waits = sender.clone();
    let job = Job {
        doing,
        work: Box::new(move || {
            // Nobody may wait for it any more.
            let _ = sender.try_send(work());
        }),
        is_idle: Box::new(move || waits.is_closed()),
    };
    let mut queue = shared.queue();
    queue.waiting.retain(|job| !(job.is_idle)());
    if queue.waiting.len() >= QUEUE_MAX {
        let waits_for = queue.running.first().map(|(doing, _)| doing);
        let waits_for = waits_for.or_else(|| queue.waiting.front().map(|job| &job.doing));
        let doing = waits_for.cloned().unwrap_or_default();
        return Err(io::Error::new(io::ErrorKind::ResourceBusy, Busy { doing }));
    }
    queue.waiting.push_back(job);
    drop(queue);
    shared.bell.notify_one();
    Ok(())
}

/// What has been under way for long, in words, with how long that is.
#[must_use]
pub fn hanging() -> Vec<(String, Duration)> {
    let Some(Ok(lanes)) = STARTED.get() else { return Vec::new() };
    let now = clock::now();
    let running = lanes.iter().flat_map(|shared| shared.queue().running.clone());
    running
        .map(|(doing, since)| (doing, now.since(since)))
        .filter(|(_, time)| *time >= LONG)
        .collect()
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    #[test]
    fn work_that_hangs_keeps_only_its_own_kind_waiting_and_what_nobody_waits_for_is_not_begun() {
        let (end, ended) = mpsc::channel::<()>();
        let hangs = run(Lane::File, "reading what hangs", move || ended.recv().is_ok());
        let mut hangs = Box::pin(hangs);
        assert!(smol::block_on(smol::future::poll_once(hangs.as_mut())).is_none());
        let (begun, begins) = mpsc::channel();
        for _ in 0..2 * QUEUE_MAX {
            let begun = begun.clone();
            let mut given_up = Box::pin(run(Lane::File, "nothing", move || begun.send(()).is_ok()));
            assert!(smol::block_on(smol::future::poll_once(given_up.as_mut())).is_none());
        }
        assert_eq!(smol::block_on(run(Lane::Kernel, "counting", || 7)).unwrap(), 7);
        end.send(()).unwrap();
        assert!(smol::block_on(hangs).unwrap());
        assert!(smol::block_on(run(Lane::File, "reading again", || true)).unwrap());
        assert!(begins.try_recv().is_err());
    }

    #[test]
    fn a_lane_that_is_full_says_what_it_waits_for() {
        let (end, ended) = mpsc::channel::<()>();
        let mut waiting = Vec::new();
        let mut first = Box::pin(run(Lane::Process, "what hangs", move || ended.recv().is_ok()));
        assert!(smol::block_on(smol::future::poll_once(first.as_mut())).is_none());
        let refused = loop {
            let mut next = Box::pin(run(Lane::Process, "more", || true));
            match smol::block_on(smol::future::poll_once(next.as_mut())) {
                None => waiting.push(next),
                Some(refused) => break refused.unwrap_err().to_string(),
            }
            assert!(waiting.len() <= QUEUE_MAX + 1);
        };
        assert!(refused.contains("what hangs"), "{refused}");
        end.send(()).unwrap();
        assert!(waiting.into_iter().all(|waits| smol::block_on(waits).unwrap()));
    }
}
