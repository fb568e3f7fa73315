//! The control thread: configuration, log and control socket. It may wait for a disk, a name or
//! a store; nothing that sends adverts waits for it.

use std::io;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};

use polling::Poller;
use smol::channel::Sender;
use smol::{Async, Executor};

use super::engine::{Report, Request};
use super::socket::{self, Ask};
use super::sources::{LoadError, Local, Sources};
use super::status::{ConfigStatus, ProblemStatus, SCHEMA, Status, StoreStatus};
use crate::config::{Config, Facts, Problem, Severity, diff};
use crate::linux::clock;
use crate::linux::signals::{Signal, SignalFd};
use crate::node::notice::Level;
use crate::node::{Instant, NodeStatus};

/// Clients' questions that may wait.
const ASKS_MAX: usize = 64;

/// Everything that the control thread is connected to.
pub(super) struct Wiring {
    pub(super) requests: SyncSender<Request>,
    pub(super) engine: Arc<Poller>,
    pub(super) reports: Receiver<Report>,
    pub(super) bell: UnixStream,
    pub(super) hangup: SignalFd,
    pub(super) notices_lost: Arc<AtomicU64>,
    pub(super) socket: PathBuf,
}

/// The control thread's state.
pub(super) struct Control {
    wiring: Wiring,
    sources: Sources,
    facts: Facts,
    warnings: Vec<String>,
    started_at: Instant,
    read_at: Instant,
    /// Why the last version of the local file was refused.
    refused: Vec<String>,
    /// A configuration that found the engine's queue full.
    unsent: Option<Arc<Config>>,
    /// Questions that the engine is answering.
    asked: Vec<(Receiver<NodeStatus>, Sender<Vec<u8>>)>,
}

enum Wake {
    Bell,
    Hangup,
    Ask(Ask),
}

impl Control {
    pub(super) fn new(
        wiring: Wiring,
        sources: Sources,
        facts: Facts,
        warnings: Vec<String>,
    ) -> Self {
        let now = clock::now();
        Self {
            wiring,
            sources,
            facts,
            warnings,
            started_at: now,
            read_at: now,
            refused: Vec::new(),
            unsent: None,
            asked: Vec::new(),
        }
    }

    /// Works until the engine has given up everything.
    pub(super) async fn run(mut self, executor: &'static Executor<'static>) -> io::Result<()> {
        let listener = socket::bind(&self.wiring.socket)?;
        let (asks, questions) = smol::channel::bounded(ASKS_MAX);
        let server = executor.spawn(socket::serve(executor, listener, asks));
        let bell = Async::new(self.wiring.bell.try_clone()?)?;
        let hangup =
            Async::new(std::os::fd::AsFd::as_fd(&self.wiring.hangup).try_clone_to_owned()?)?;
        let config = self.sources.rebuild(&self.facts);
        self.tell_problems(&[]);
        self.send_config(config);
        loop {
            let wake = smol::future::or(
                async {
                    bell.readable().await?;
                    Ok::<Wake, io::Error>(Wake::Bell)
                },
                smol::future::or(
                    async {
                        hangup.readable().await?;
                        Ok(Wake::Hangup)
                    },
                    async { questions.recv().await.map(Wake::Ask).map_err(io::Error::other) },
                ),
            )
            .await?;
            match wake {
                Wake::Bell => silence(&bell),
                Wake::Hangup => {
                    while let Ok(Some(signal)) = self.wiring.hangup.read() {
                        if signal == Signal::Hangup {
                            self.reload();
                        }
                    }
                }
                Wake::Ask(ask) => self.ask(ask),
            }
            if self.hear() {
                break;
            }
            if let Some(config) = self.unsent.take() {
                self.send_config(config);
            }
        }
        drop(server);
        // A path that is gone already was not ours any more.
        let _ = std::fs::remove_file(&self.wiring.socket);
        Ok(())
    }

    /// Takes what the engine reports; returns whether it has ended.
    fn hear(&mut self) -> bool {
        let mut stopped = false;
        while let Ok(report) = self.wiring.reports.try_recv() {
            match report {
                Report::Notice(notice) => {
                    let level = match notice.level() {
                        Level::Error => log::Level::Error,
                        Level::Warn => log::Level::Warn,
                        Level::Info => log::Level::Info,
                    };
                    log::log!(target: "havip", level, "{notice}");
                }
                Report::States(_) => {}
                Report::Stopped => stopped = true,
            }
        }
        let asked = std::mem::take(&mut self.asked);
        for (answer, reply) in asked {
            match answer.try_recv() {
                Ok(vrrp) => {
                    let status = self.status(vrrp);
                    // A client that went away does not want it any more.
                    let _ = reply.try_send(serde_json::to_vec(&status).unwrap_or_default());
                }
                Err(std::sync::mpsc::TryRecvError::Empty) => self.asked.push((answer, reply)),
                Err(std::sync::mpsc::TryRecvError::Disconnected) => {}
            }
        }
        stopped
    }

    fn request(&self, request: Request) -> Result<(), Request> {
        self.wiring.requests.try_send(request).map_err(|error| match error {
            TrySendError::Full(request) | TrySendError::Disconnected(request) => request,
        })?;
        // Fails only without the engine, and then there is nobody to wake.
        let _ = self.wiring.engine.notify();
        Ok(())
    }

    fn send_config(&mut self, config: Arc<Config>) {
        if let Err(Request::Config(config)) = self.request(Request::Config(config)) {
            self.unsent = Some(config);
        }
    }

    fn ask(&mut self, ask: Ask) {
        match ask {
            Ask::Status(reply) => {
                let (sender, answer) = sync_channel(1);
                if self.request(Request::Status(sender)).is_ok() {
                    self.asked.push((answer, reply));
                }
            }
            Ask::Config(reply) => {
                let shown: Vec<_> = self
                    .sources
                    .shown()
                    .into_iter()
                    .map(|shown| {
                        serde_json::json!({
                            "router": shown.router,
                            "key": shown.key,
                            "value": shown.value,
                            "path": shown.path,
                            "origin": shown.origin.to_string(),
                        })
                    })
                    .collect();
                let body = serde_json::json!({ "schema": SCHEMA, "values": shown });
                let _ = reply.try_send(body.to_string().into_bytes());
            }
        }
    }

    /// SIGHUP: reads the local file again, and takes it if nothing in it is wrong.
    fn reload(&mut self) {
        let path = self.sources.local.path.clone();
        let before = self.sources.running.clone();
        let known = self.sources.problems.clone();
        let result = match Local::load(&path) {
            Ok(local) => self.sources.replace_local(local, &self.facts),
            Err(LoadError::Wrong(problems)) => Err(problems),
            Err(LoadError::Absent(path)) => {
                Err(vec![file_problem(format!("{}: not there any more", path.display()))])
            }
            Err(LoadError::Unreadable(path, error)) => {
                Err(vec![file_problem(format!("{}: {error}", path.display()))])
            }
        };
        match result {
            Ok(config) => {
                self.refused.clear();
                self.read_at = clock::now();
                if let Some(before) = before {
                    let diff = diff(&before, &config);
                    log::info!(
                        "{}: read again: {} router(s) added, {} removed, {} changed",
                        path.display(),
                        diff.added.len(),
                        diff.removed.len(),
                        diff.changed.len()
                    );
                }
                self.tell_problems(&known);
                self.send_config(config);
            }
            Err(problems) => {
                for problem in &problems {
                    log::error!("{problem}");
                }
                log::error!("{}: not taken over; what ran goes on", path.display());
                self.refused = problems.iter().map(ToString::to_string).collect();
            }
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
            log::log!(target: "havip", level, "{problem}");
        }
        for shadow in &self.sources.shadows {
            log::debug!("{}: {} hides {}", shadow.path, shadow.used, shadow.hidden);
        }
    }

    fn status(&self, vrrp: NodeStatus) -> Status {
        let now = clock::now();
        let since = |at| u64::try_from(now.since(at).as_millis()).unwrap_or(u64::MAX);
        let mut problems: Vec<&Problem> = self.sources.problems.iter().collect();
        problems.sort_by_key(|problem| problem.severity);
        Status {
            schema: SCHEMA,
            version: env!("CARGO_PKG_VERSION"),
            pid: std::process::id(),
            node: self.sources.node.to_string(),
            uptime_ms: since(self.started_at),
            config: ConfigStatus {
                file: self.sources.local.path.display().to_string(),
                read_ms: since(self.read_at),
                refused: self.refused.clone(),
                store: None::<StoreStatus>,
                problems: problems
                    .into_iter()
                    .map(|problem| ProblemStatus {
                        severity: problem.severity.to_string(),
                        router: problem.router.as_ref().map(ToString::to_string),
                        text: problem.to_string(),
                    })
                    .collect(),
                shadowed: self
                    .sources
                    .shadows
                    .iter()
                    .map(|s| format!("{}: {} hides {}", s.path, s.used, s.hidden))
                    .collect(),
            },
            warnings: self.warnings.clone(),
            notices_lost: self.wiring.notices_lost.load(Ordering::Relaxed),
            vrrp,
        }
    }
}

fn silence(bell: &Async<UnixStream>) {
    let mut rings = [0; 64];
    while matches!(io::Read::read(&mut bell.get_ref(), &mut rings), Ok(read) if read > 0) {}
}

fn file_problem(message: String) -> Problem {
    Problem::missing(Severity::Error, "", message)
}
