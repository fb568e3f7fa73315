//! The guard, as the daemon sees it: started before anything is active, watched, and started again
//! when it has died. What it does itself stands in `guard/process.rs`.
//!
//! It is this same program, executed once more: `/proc/self/exe` is that very file, even if
//! another version stands at its path by now, so both always agree on the form of the will.
//! Starting it is a vfork and an exec, which copies no page of a process with threads that must be
//! on time. It gets three descriptors and nothing else, no environment either:
//!
//! - 0: one end of a pair of sockets, whose other end this process has, and nobody else. It is
//!   closed by whatever ends a process: each learns of the other's death from it, on any kernel.
//! - 1: the will, to be read only.
//! - 2: standard error, for one line at the end.

mod process;

use std::fs::{self, File};
use std::io;
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt as _;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use serde::Serialize;
use smol::io::AsyncReadExt as _;
use smol::{Async, Timer};

use crate::linux::{clock, detached};
use crate::offload::{self, Lane};

pub(crate) use process::{Refused, run};

/// Wait before the second start, and at most; doubled each time.
const PAUSE: Duration = Duration::from_millis(100);
const PAUSE_MAX: Duration = Duration::from_secs(60);
/// A guard that lived this long did not die of its start.
const LIVED: Duration = Duration::from_secs(60);
/// How often a guard is looked at that says nothing: it may be stopped.
const LOOK: Duration = Duration::from_secs(5);
/// How often one that was killed is asked for, until it has ended.
const END: Duration = Duration::from_millis(10);
/// What the guard says when it is ready; anything else is why it cannot be, in words.
const READY: u8 = b'+';
/// Bytes of those words.
const WORDS_MAX: u64 = 512;

/// What the status shows of it.
#[derive(Clone, Debug, Serialize)]
pub struct GuardStatus {
    /// `off` by the configuration, `starting`, `running` or `absent`.
    pub state: &'static str,
    /// Of the one that runs or starts.
    pub pid: Option<u32>,
    /// Why there is none.
    pub why: Option<String>,
    /// How often one was started.
    pub starts: u64,
}

/// Where the control thread finds it.
pub(super) type Shown = Arc<Mutex<GuardStatus>>;

/// What a guard is started with.
#[derive(Debug)]
pub(super) struct Starter {
    will: File,
    /// Whether the guard asks for real-time priority, as the engine does.
    realtime: bool,
    /// Whether there is a fence to remove.
    fence: bool,
}

/// A guard that was started.
#[derive(Debug)]
pub(super) struct Started {
    child: Child,
    link: UnixStream,
}

impl Starter {
    /// Of guards that carry out `will`.
    ///
    /// # Errors
    /// Out of descriptors.
    pub(super) fn new(will: &File, realtime: bool, fence: bool) -> io::Result<Self> {
        Ok(Self { will: will.try_clone()?, realtime, fence })
    }

    /// Starts one.
    ///
    /// # Errors
    /// Out of descriptors, memory or processes; no /proc.
    pub(super) fn start(&self) -> io::Result<Started> {
        let (link, theirs) = UnixStream::pair()?;
        let link = UnixStream::from(detached::with_high_number(link)?);
        // Opened anew, for reading only.
        let will = File::open(format!("/proc/self/fd/{}", self.will.as_raw_fd()))?;
        let mut command = Command::new("/proc/self/exe");
        command.arg0("havip").arg("guard").arg(std::process::id().to_string());
        if self.realtime {
            command.arg("--realtime");
        }
        if self.fence {
            command.arg("--fence");
        }
        command.env_clear().stdin(OwnedFd::from(theirs)).stdout(will).stderr(Stdio::inherit());
        Ok(Started { child: command.spawn()?, link })
    }
}

/// What is shown before the first start, or for ever if there is to be none.
pub(super) fn shown(wanted: bool) -> Shown {
    let state = if wanted { "starting" } else { "off" };
    Arc::new(Mutex::new(GuardStatus { state, pid: None, why: None, starts: 0 }))
}

/// Watches over `first` and its successors, for ever.
pub(super) async fn keep(starter: Starter, first: io::Result<Started>, shown: Shown) {
    let starter = Arc::new(starter);
    let mut next = first;
    let mut pause = PAUSE;
    let mut said = String::new();
    loop {
        let since = clock::now();
        let why = match next {
            Ok(started) => watch(started, &shown).await,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                format!("cannot be started: {}", offload::no_task(&error))
            }
            Err(error) => format!("cannot be started: {error}"),
        };
        if said != why {
            log::warn!("guard: {why}; until another runs, a crash costs the VIPs their lifetime");
        }
        said.clone_from(&why);
        tell(&shown, |shown| (shown.state, shown.pid, shown.why) = ("absent", None, Some(why)));
        if clock::now().since(since) >= LIVED {
            pause = PAUSE;
        }
        Timer::after(pause).await;
        pause = (pause * 2).min(PAUSE_MAX);
        let starter = Arc::clone(&starter);
        let start = move || starter.start();
        next = offload::run(Lane::Process, "starting the guard", start).await.and_then(|next| next);
    }
}

/// Returns why a guard is there no more.
async fn watch(started: Started, shown: &Shown) -> String {
    let Started { mut child, link } = started;
    let pid = child.id();
    tell(shown, |shown| {
        shown.starts += 1;
        (shown.state, shown.pid) = ("starting", Some(pid));
    });
    let words = match Async::new(link) {
        Ok(link) => smol::future::or(listen(link, shown), stopped(pid)).await,
        Err(error) => error.to_string(),
    };
    // It has closed its end, which nothing but its end does; or it is stopped, and no use.
    let _ = child.kill();
    match ended(&mut child).await {
        _ if !words.is_empty() => words,
        Ok(status) => format!("process {pid} ended ({status})"),
        Err(error) => format!("process {pid} ended ({error})"),
    }
}

/// Returns once a process that was killed has ended, which leaves none behind.
async fn ended(child: &mut Child) -> io::Result<ExitStatus> {
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok(status);
        }
        Timer::after(END).await;
    }
}

/// Returns when the guard has ended, with the words that it gave as its reason.
async fn listen(mut link: Async<UnixStream>, shown: &Shown) -> String {
    let mut first = [0];
    match link.read_exact(&mut first).await {
        Ok(()) if first == [READY] => {
            tell(shown, |shown| (shown.state, shown.why) = ("running", None));
            // Nothing follows but the end.
            let _ = link.read_exact(&mut first).await;
            String::new()
        }
        Ok(()) => {
            let mut words = first.to_vec();
            let _ = link.take(WORDS_MAX).read_to_end(&mut words).await;
            String::from_utf8_lossy(&words).into_owned()
        }
        Err(_) => String::new(),
    }
}

/// Returns when the guard is stopped: it would not hear of the daemon's end.
async fn stopped(pid: u32) -> String {
    loop {
        Timer::after(LOOK).await;
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        // Behind the name, which may hold anything (proc(5)).
        let state = stat.rsplit_once(") ").map(|(_, rest)| rest);
        if state.is_some_and(|state| state.starts_with(['T', 't'])) {
            return format!("process {pid} was stopped, and is killed");
        }
    }
}

/// What the status shows now.
pub(super) fn status(shown: &Shown) -> GuardStatus {
    shown.lock().unwrap_or_else(PoisonError::into_inner).clone()
}

fn tell(shown: &Shown, change: impl FnOnce(&mut GuardStatus)) {
    change(&mut shown.lock().unwrap_or_else(PoisonError::into_inner));
}
