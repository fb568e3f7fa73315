//! The control thread: configuration, log and control socket. It may wait for a disk, a name or
//! a store; nothing that sends adverts waits for it.
//!
//! Its loop is here; what it looks at by itself, what it reads at SIGHUP, what it answers and what
//! it does beside a store are modules of their own.

mod answers;
mod looks;
#[cfg(not(feature = "etcd"))]
mod no_store;
mod reload;
#[cfg(feature = "etcd")]
mod store;

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::net::UnixListener;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::sync::mpsc::{Receiver, SyncSender, TrySendError};

use smol::channel::Sender;
use smol::future::or;
use smol::{Async, Executor, Task, Timer};

use super::channel::{Bell, Ringer};
use super::engine::{Report, Request};
use super::fence;
#[cfg(feature = "etcd")]
use super::follow::Follow;
use super::guard;
use super::identity::Identity;
#[cfg(feature = "etcd")]
use super::keep::{Keep, Written};
use super::run_dir::RunDir;
use super::socket::{self, Ask};
use super::sources::{LoadError, Local, Sources};
use crate::config::{Config, Problem, RouterName, Settings, Severity};
use crate::linux::clock;
use crate::linux::lock::LockError;
use crate::linux::netlink::DefaultRoutes;
use crate::linux::signals::{Signal, SignalFd};
use crate::node::notice::Level;
use crate::node::{Instant, NodeStatus, RouterState};
use crate::offload::{self, Lane};
#[cfg(feature = "etcd")]
use crate::store::StoreEvent;
#[cfg(feature = "etcd")]
use crate::store::snapshot::Snapshot;
use looks::{LOOK, LOOK_SOON};
use reload::Reload;

/// Clients' questions that may wait.
const ASKS_MAX: usize = 64;
/// Results of work off this thread: one of each kind.
const DONE_MAX: usize = 3;
/// Warnings that the status shows; the log has all of them.
const WARNINGS_MAX: usize = 32;

/// Everything that the control thread is connected to.
pub(super) struct Wiring {
    pub(super) requests: SyncSender<Request>,
    pub(super) engine: Ringer,
    pub(super) reports: Receiver<Report>,
    pub(super) bell: Bell,
    pub(super) signals: SignalFd,
    pub(super) texts: Texts,
    pub(super) notices_lost: Arc<AtomicU64>,
    pub(super) guard: guard::Shown,
    pub(super) fence: fence::Shown,
    /// By which a second daemon in this network namespace is noticed.
    pub(super) owner: Option<UnixListener>,
}

/// A control socket, if a new one was made.
pub(super) type Made = Result<Option<UnixListener>, LockError>;

/// What the status is in words, for who asks by a signal.
#[derive(Clone, Copy, Debug)]
pub struct Texts {
    /// SIGUSR1: what `havip status` shows.
    pub status: fn(&serde_json::Value) -> String,
    /// SIGUSR2: what was counted.
    pub counters: fn(&serde_json::Value) -> String,
}

/// The control thread's state.
pub(super) struct Control {
    executor: &'static Executor<'static>,
    wiring: Wiring,
    sources: Sources,
    identity: Identity,
    /// Away while the box is looked at.
    routes: Option<DefaultRoutes>,
    warnings: Vec<String>,
    started_at: Instant,
    read_at: Instant,
    /// Why the last version of the local file was refused.
    refused: Vec<String>,
    /// A configuration that found the engine's queue full.
    unsent: Option<Arc<Config>>,
    /// Questions that the engine is answering.
    asked: Vec<(Receiver<NodeStatus>, Sender<Vec<u8>>)>,
    /// Every router's state, and since when by the wall clock, in seconds since 1970.
    states: BTreeMap<RouterName, (&'static str, u64)>,
    /// When this daemon started, by the same clock.
    #[cfg_attr(not(feature = "etcd"), expect(dead_code, reason = "the store is told"))]
    started: u64,
    /// What the local file said at the start.
    at_start: Settings,
    #[cfg(feature = "etcd")]
    follow: Option<Follow>,
    /// What does the following.
    #[cfg(feature = "etcd")]
    work: Option<Task<()>>,
    #[cfg(feature = "etcd")]
    keep: Option<Keep>,
    /// What was on disk at the start, until it is used or of no use any more.
    #[cfg(feature = "etcd")]
    last: Option<Snapshot>,
    /// Until when the start waits for the store; `None`: it has started.
    waits_until: Option<Instant>,
    /// When the box is looked at again.
    look_at: Instant,
    /// The local file is to be read again.
    hangup: bool,
    /// What is under way off this thread: each of these once at a time.
    is_looking: bool,
    reload: Reload,
    done: (Sender<Done>, smol::channel::Receiver<Done>),
    /// While nothing is done in it.
    run_dir: Option<RunDir>,
    /// Why there is no control socket, as far as is known.
    no_socket: Option<String>,
    /// For the control socket, and what serves it.
    asks: Option<Sender<Ask>>,
    server: Option<Task<io::Result<()>>>,
    /// What hangs, as it was logged.
    hanging: BTreeSet<String>,
}

/// What came of work that may wait.
enum Done {
    /// What the box is.
    Looked(DefaultRoutes, io::Result<Identity>),
    /// The local file.
    Loaded(Box<Result<Local, LoadError>>),
    /// The folder, and what was missing in it.
    Mended(RunDir, Made),
}

enum Wake {
    Bell,
    Signal,
    Ask(Ask),
    /// Time to look at the box, and whether the start has waited long enough.
    Look,
    Done(Done),
    #[cfg(feature = "etcd")]
    Store(StoreEvent),
    /// The snapshot is on disk, or cannot be.
    #[cfg(feature = "etcd")]
    Written(Written),
}

/// What the control thread follows: endpoints, or nothing in a build without etcd.
#[cfg(feature = "etcd")]
type Store = super::access::Access;
#[cfg(not(feature = "etcd"))]
type Store = std::convert::Infallible;

impl Control {
    pub(super) fn new(
        executor: &'static Executor<'static>,
        wiring: Wiring,
        sources: Sources,
        (identity, routes): (Identity, DefaultRoutes),
        warnings: Vec<String>,
    ) -> Self {
        let now = clock::now();
        let at_start = sources.local.settings.clone();
        Self {
            executor,
            wiring,
            sources,
            identity,
            routes: Some(routes),
            warnings,
            started_at: now,
            read_at: now,
            refused: Vec::new(),
            unsent: None,
            asked: Vec::new(),
            states: BTreeMap::new(),
            started: clock::wall(),
            at_start,
            #[cfg(feature = "etcd")]
            follow: None,
            #[cfg(feature = "etcd")]
            work: None,
            #[cfg(feature = "etcd")]
            keep: None,
            #[cfg(feature = "etcd")]
            last: None,
            waits_until: None,
            look_at: now + LOOK,
            hangup: false,
            is_looking: false,
            reload: Reload::None,
            done: smol::channel::bounded(DONE_MAX),
            run_dir: None,
            no_socket: None,
            asks: None,
            server: None,
            hanging: BTreeSet::new(),
        }
    }

    /// Works until the engine has given up everything.
    pub(super) async fn run(
        mut self,
        (run_dir, made): (RunDir, Made),
        store: Option<Store>,
    ) -> io::Result<()> {
        let (asks, questions) = smol::channel::bounded(ASKS_MAX);
        self.asks = Some(asks);
        self.mended(run_dir, made);
        if let Some(owner) = self.wiring.owner.take() {
            self.executor.spawn(socket::refuse(owner)).detach();
        }
        self.wiring.bell.set_nonblocking()?;
        let bell = Async::new(self.wiring.bell.as_fd().try_clone_to_owned()?)?;
        let signals = self.wiring.signals.as_fd().try_clone_to_owned()?;
        let signals = Async::new(signals)?;
        self.follow_store(store).await;
        if !self.follows() {
            self.start();
        }
        loop {
            let wake = self.wake(&bell, &signals, &questions).await?;
            match wake {
                Wake::Bell => self.wiring.bell.silence(),
                Wake::Signal => {
                    while let Ok(Some(signal)) = self.wiring.signals.read() {
                        match signal {
                            Signal::Hangup => self.hangup = true,
                            Signal::User1 => self.write_down(self.wiring.texts.status),
                            Signal::User2 => self.write_down(self.wiring.texts.counters),
                            // The engine's.
                            Signal::Interrupt | Signal::Terminate => {}
                        }
                    }
                }
                Wake::Ask(ask) => self.ask(ask),
                Wake::Look => self.look(),
                Wake::Done(Done::Looked(routes, identity)) => {
                    self.routes = Some(routes);
                    self.looked(identity);
                }
                Wake::Done(Done::Loaded(local)) => self.reload(*local),
                Wake::Done(Done::Mended(run_dir, made)) => self.mended(run_dir, made),
                #[cfg(feature = "etcd")]
                Wake::Store(event) => self.store(event),
                #[cfg(feature = "etcd")]
                Wake::Written(written) => self.written(written),
            }
            if self.hear() {
                break;
            }
            // Who waits for the store has nothing yet that could be changed.
            if self.hangup && self.waits_until.is_none() && self.reload == Reload::None {
                self.hangup = false;
                self.reload = Reload::Looks;
                self.look_at = clock::now();
                self.look();
            }
            if let Some(config) = self.unsent.take() {
                self.send_config(config);
            }
            self.demand();
        }
        self.leave().await;
        if let Some(run_dir) = &self.run_dir {
            run_dir.leave();
        }
        drop(self.server.take());
        Ok(())
    }

    /// Waits until there is something to do.
    async fn wake(
        &self,
        bell: &Async<OwnedFd>,
        signals: &Async<OwnedFd>,
        questions: &smol::channel::Receiver<Ask>,
    ) -> io::Result<Wake> {
        let signals = or(async { bell.readable().await.map(|()| Wake::Bell) }, async {
            signals.readable().await.map(|()| Wake::Signal)
        });
        let ask = async { questions.recv().await.map(Wake::Ask).map_err(io::Error::other) };
        let done = async { self.done.1.recv().await.map(Wake::Done).map_err(io::Error::other) };
        or(or(signals, done), or(ask, or(self.store_speaks(), self.time_to_look()))).await
    }

    async fn time_to_look(&self) -> io::Result<Wake> {
        let at = self.waits_until.map_or(self.look_at, |until| until.min(self.look_at));
        let at = self.write_at().map_or(at, |write_at| write_at.min(at));
        Timer::after(at.since(clock::now())).await;
        Ok(Wake::Look)
    }

    /// Runs what the local file and, if it was heard of, the store say.
    fn start(&mut self) {
        self.waits_until = None;
        let config = self.sources.rebuild(&self.identity.facts);
        self.tell_problems(&[]);
        self.send_config(config);
    }

    /// Has something done off this thread, which hears of its end.
    fn begin(
        &self,
        lane: Lane,
        doing: impl Into<String>,
        work: impl FnOnce() -> Done + Send + 'static,
    ) {
        let (doing, done) = (doing.into(), self.done.0.clone());
        let work = async move {
            // There is room in the lane, as each thing is done once at a time.
            if let Ok(result) = offload::run(lane, doing, work).await {
                let _ = done.send(result).await;
            }
        };
        self.executor.spawn(work).detach();
    }

    /// Takes what the engine reports; returns whether it has ended.
    fn hear(&mut self) -> bool {
        let mut stopped = false;
        while let Ok(report) = self.wiring.reports.try_recv() {
            match report {
                Report::Notices(notices) => {
                    for notice in notices {
                        let level = match notice.level() {
                            Level::Error => log::Level::Error,
                            Level::Warn => log::Level::Warn,
                            Level::Info => log::Level::Info,
                        };
                        log::log!(target: "havip", level, "{notice}");
                    }
                }
                Report::Trouble(text) => {
                    log::warn!("{text}");
                    self.warnings.retain(|known| *known != text);
                    self.warnings.truncate(WARNINGS_MAX - 1);
                    self.warnings.insert(0, text);
                }
                Report::States(states) => {
                    let now = clock::wall();
                    let before = std::mem::take(&mut self.states);
                    let since = |state: &RouterState| match before.get(&state.name) {
                        Some((name, since)) if *name == state.state => *since,
                        Some(_) | None => now,
                    };
                    self.states = states
                        .into_iter()
                        .map(|state| {
                            let since = since(&state);
                            (state.name, (state.state, since))
                        })
                        .collect();
                }
                Report::Box => self.look_at = self.look_at.min(clock::now() + LOOK_SOON),
                Report::Stopped => stopped = true,
            }
        }
        self.answer();
        stopped
    }

    fn request(&self, request: Request) -> Result<(), Request> {
        self.wiring.requests.try_send(request).map_err(|error| match error {
            TrySendError::Full(request) | TrySendError::Disconnected(request) => request,
        })?;
        self.wiring.engine.ring();
        Ok(())
    }

    fn send_config(&mut self, config: Arc<Config>) {
        if let Err(Request::Config(config)) = self.request(Request::Config(config)) {
            self.unsent = Some(config);
        }
    }

    /// Logs what is wrong with the configuration, unless it was said before.
    fn tell_problems(&self, known: &[Problem]) {
        for problem in self.sources.problems.iter().filter(|problem| !known.contains(problem)) {
            let level = match problem.severity {
                Severity::Error => log::Level::Error,
                Severity::Warning => log::Level::Warn,
                Severity::Note => log::Level::Info,
            };
            log::log!(target: "havip", level, "{problem:#}");
        }
        for shadow in &self.sources.shadows {
            log::debug!("{}: {} hides {}", shadow.path, shadow.used, shadow.hidden);
        }
    }
}
