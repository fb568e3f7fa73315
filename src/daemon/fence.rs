//! The fence: nf_tables shut off the VIPs of an engine that stands still. It is renewed with each
//! advert; what stops the adverts lets it fall, whatever else of this process lives on.
//!
//! A thread of its own, because the kernel's may wait for a lock that nf_tables know nothing of,
//! and a fence that is renewed late shuts off who is well.

use std::io;
use std::sync::mpsc::SyncSender;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use serde::Serialize;

use super::REALTIME;
use super::channel::{self, Bell, Ringer};
use super::engine::Report;
use crate::linux::netlink::Fence;
use crate::linux::{clock, errno, rt};
use crate::node::Instant;
use crate::node::kernel::{Errno, Gate, Passage};

/// Messages that may wait for this thread. Beyond that, those that only open ways are forgotten:
/// they are too old.
const WAITING_MAX: usize = 256;
/// Wait before another try after a refusal, and at most; doubled each time.
const PAUSE: Duration = Duration::from_secs(1);
const PAUSE_MAX: Duration = Duration::from_secs(60);
/// How to be rid of them by hand.
const BY_HAND: &str = "nft 'delete table arp havip; delete table ip havip; delete table ip6 havip'";

/// What the status shows of it.
#[derive(Clone, Debug, Serialize)]
pub struct FenceStatus {
    /// `off` by the configuration, `starting`, `stands` or `absent`.
    pub state: &'static str,
    /// Why there is none.
    pub why: Option<String>,
}

/// Where the control thread finds it.
pub(super) type Shown = Arc<Mutex<FenceStatus>>;

/// Messages for the thread, in order. The engine only tries the lock.
type Waiting = Arc<Mutex<Vec<Vec<Passage>>>>;

/// The engine's end. Never waits.
#[derive(Debug)]
pub(super) struct Ways {
    /// What found the lock taken.
    held: Vec<Vec<Passage>>,
    waiting: Waiting,
    bell: Ringer,
}

impl Ways {
    /// Takes what is new, for [`Self::pass`].
    pub(super) fn tell(&mut self, passages: &[Passage]) {
        self.held.push(passages.to_vec());
    }

    /// Whether there is something to pass on.
    pub(super) const fn holds(&self) -> bool {
        !self.held.is_empty()
    }

    /// Passes it on, unless the thread is taking what was passed before.
    pub(super) fn pass(&mut self) {
        let Ok(mut waiting) = self.waiting.try_lock() else { return };
        waiting.append(&mut self.held);
        if waiting.len() > WAITING_MAX {
            let opens = |passage: &Passage| matches!(passage.gate, Gate::OpenUntil(_));
            waiting.retain(|message| !message.iter().all(opens));
        }
        drop(waiting);
        self.bell.ring();
    }
}

/// Tells the control thread how it goes.
pub(super) struct Speaker {
    reports: SyncSender<Report>,
    control: Ringer,
    shown: Shown,
}

impl Speaker {
    pub(super) fn new(reports: SyncSender<Report>, control: Ringer, shown: &Shown) -> Self {
        Self { reports, control, shown: Arc::clone(shown) }
    }

    /// What is the case now, if that is new.
    fn show(&self, why: Option<&str>) {
        let state = if why.is_some() { "absent" } else { "stands" };
        let mut shown = self.shown.lock().unwrap_or_else(PoisonError::into_inner);
        if (shown.state, shown.why.as_deref()) != (state, why) {
            *shown = FenceStatus { state, why: why.map(str::to_owned) };
            drop(shown);
            if let Some(why) = why {
                self.say(format!(
                    "fence: {why}; until it stands, a freeze costs the VIPs their lifetime"
                ));
            }
        }
    }

    fn say(&self, text: String) {
        // Full: the control thread has more to say than anybody reads.
        let _ = self.reports.try_send(Report::Trouble(text));
        self.control.ring();
    }
}

/// The thread that keeps it.
pub(super) struct Standing(JoinHandle<()>);

impl Standing {
    /// Waits until the fence is removed, once the engine has let go of its end.
    pub(super) fn end(self) {
        // It does nothing that could panic.
        let _ = self.0.join();
    }
}

/// What is shown before it stands, or for ever if there is to be none.
pub(super) fn shown(wanted: bool) -> Shown {
    let state = if wanted { "starting" } else { "off" };
    Arc::new(Mutex::new(FenceStatus { state, why: None }))
}

/// What the status shows now.
pub(super) fn status(shown: &Shown) -> FenceStatus {
    shown.lock().unwrap_or_else(PoisonError::into_inner).clone()
}

/// Removes, where there is to be no fence, what an earlier run left: its VIPs would stay shut.
/// Gives what is to be said of that.
pub(super) fn remove_earlier() -> Option<String> {
    if !Fence::may_stand() {
        return None;
    }
    match Fence::open().and_then(|mut fence| fence.remove()) {
        Ok(false) => None,
        Ok(true) => Some("fence: removed the one that an earlier run had left".to_owned()),
        // A kernel without nf_tables, or without one of the families.
        Err(error) if is_absent(&error) => None,
        Err(error) => Some(format!(
            "fence: the one that an earlier run left cannot be removed, and may block VIPs: {error}; \
             remove it by hand: {BY_HAND}"
        )),
    }
}

/// Whether a kernel that has no fence says this.
fn is_absent(error: &io::Error) -> bool {
    matches!(
        errno(error).0,
        libc::EPROTONOSUPPORT | libc::EOPNOTSUPP | libc::EAFNOSUPPORT | libc::ENOENT
    )
}

/// Starts the thread that builds the fence, keeps it, and removes it when the engine has ended.
///
/// # Errors
/// Out of descriptors or threads.
pub(super) fn start(realtime: bool, speaker: Speaker) -> io::Result<(Ways, Standing)> {
    let waiting = Waiting::default();
    let theirs = Arc::clone(&waiting);
    let (ringer, bell) = channel::bell()?;
    let thread = super::spawn("fence", move || {
        if realtime {
            // The daemon says of its engine that this is not permitted; it is the same here.
            let _ = rt::realtime(REALTIME);
        }
        run(&theirs, &bell, &speaker)
    })?;
    Ok((Ways { held: Vec::new(), waiting, bell: ringer }, Standing(thread)))
}

/// Works until the engine is gone, and removes the fence then.
fn run(waiting: &Mutex<Vec<Vec<Passage>>>, bell: &Bell, speaker: &Speaker) {
    let mut keeper = Keeper { fence: None, retry_at: Instant::ZERO, pause: PAUSE };
    keeper.tell(&[], speaker);
    while bell.wait() {
        let messages = std::mem::take(&mut *waiting.lock().unwrap_or_else(PoisonError::into_inner));
        for passages in messages {
            keeper.tell(&passages, speaker);
        }
    }
    // Where it could not be built there may be an earlier one.
    if let Err(error) = Fence::open().and_then(|mut fence| fence.remove())
        && !is_absent(&error)
    {
        log::warn!("fence: cannot be removed: {error}; remove it by hand: {BY_HAND}");
    }
}

struct Keeper {
    /// Once it is built.
    fence: Option<Fence>,
    /// Not to be built before.
    retry_at: Instant,
    pause: Duration,
}

impl Keeper {
    /// Tells the kernel; builds the fence first, where there is none. What is not told now comes
    /// again with the next adverts.
    fn tell(&mut self, passages: &[Passage], speaker: &Speaker) {
        if self.fence.is_none() && clock::now() < self.retry_at {
            return;
        }
        let error = match self.try_tell(passages) {
            // Who loads a firewall's rules anew removes others' first.
            Err(error) if self.fence.is_some() && errno(&error) == Errno(libc::ENOENT) => {
                self.fence = None;
                speaker.say(
                    "fence: someone removed its tables (nft flush ruleset?); built anew".into(),
                );
                self.try_tell(passages).err()
            }
            result => result.err(),
        };
        let Some(error) = error else {
            self.pause = PAUSE;
            return speaker.show(None);
        };
        // A fence that cannot be renewed would shut off who is well.
        if let Some(mut fence) = self.fence.take() {
            let _ = fence.remove();
        }
        self.retry_at = clock::now() + self.pause;
        self.pause = (self.pause * 2).min(PAUSE_MAX);
        speaker.show(Some(&way_out(&error)));
    }

    fn try_tell(&mut self, passages: &[Passage]) -> io::Result<()> {
        if let Some(fence) = &mut self.fence {
            return fence.apply(clock::now(), passages);
        }
        let mut fence = Fence::open()?;
        fence.build()?;
        self.fence.insert(fence).apply(clock::now(), passages)
    }
}

fn way_out(error: &io::Error) -> String {
    let then = match errno(error).0 {
        libc::EPERM => "give havip CAP_NET_ADMIN",
        libc::EEXIST => "that table is not havip's: rename it, or set [havip] fence = false",
        _ if is_absent(error) => "load the module nf_tables, or set [havip] fence = false",
        _ => "trying again",
    };
    format!("nf_tables refuse it: {error}; {then}")
}
