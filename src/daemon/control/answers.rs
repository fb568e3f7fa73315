//! What the control thread answers: status, configuration and confirmation, to clients of the
//! control socket and to who asks by a signal.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;
use std::sync::mpsc::{TryRecvError, sync_channel};
use std::time::Duration;

use super::super::engine::Request;
use super::super::socket::Ask;
use super::super::status::{ConfigStatus, ProblemStatus, SCHEMA, Status};
use super::super::{fence, guard};
use super::Control;
use crate::config::Problem;
use crate::linux::clock;
use crate::node::NodeStatus;
use crate::offload;

impl Control {
    pub(super) fn ask(&mut self, ask: Ask) {
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
            Ask::Confirm(reply) => {
                let released = self.confirm();
                let body = serde_json::json!({ "schema": SCHEMA, "released": released });
                let _ = reply.try_send(body.to_string().into_bytes());
            }
        }
    }

    /// Passes on the statuses that the engine has given.
    pub(super) fn answer(&mut self) {
        let asked = std::mem::take(&mut self.asked);
        for (answer, reply) in asked {
            match answer.try_recv() {
                Ok(vrrp) => {
                    let status = self.status(vrrp);
                    // A client that went away does not want it any more.
                    let _ = reply.try_send(serde_json::to_vec(&status).unwrap_or_default());
                }
                Err(TryRecvError::Empty) => self.asked.push((answer, reply)),
                Err(TryRecvError::Disconnected) => {}
            }
        }
    }

    /// Writes the status in these words to the log, whatever its level.
    pub(super) fn write_down(&mut self, words: fn(&serde_json::Value) -> String) {
        let (reply, answer) = smol::channel::bounded(1);
        self.ask(Ask::Status(reply));
        let write = async move {
            let Ok(status) = answer.recv().await else { return };
            let status = serde_json::from_slice(&status).unwrap_or_default();
            crate::daemon::log::put(words(&status).trim_end().to_owned());
        };
        self.executor.spawn(write).detach();
    }

    fn idle(&self) -> BTreeMap<String, String> {
        let idle = self.sources.idle.iter();
        idle.map(|(name, why)| (name.to_string(), why.clone())).collect()
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
                file: absolute(&self.sources.local.path).display().to_string(),
                read_ms: since(self.read_at),
                refused: self.refused.clone(),
                store: self.store_status(),
                idle: self.idle(),
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
            warnings: self
                .warnings
                .iter()
                .chain(self.store_warnings())
                .chain(&self.no_socket)
                .cloned()
                .chain(hanging())
                .collect(),
            notices_lost: self.wiring.notices_lost.load(Ordering::Relaxed),
            guard: guard::status(&self.wiring.guard),
            fence: fence::status(&self.wiring.fence),
            vrrp,
        }
    }
}

/// What takes longer than it should, for the status.
fn hanging() -> impl Iterator<Item = String> {
    let words = |(doing, time): (String, Duration)| {
        format!(
            "{doing}: not finished after {} s; routers and adverts do not wait for it",
            time.as_secs()
        )
    };
    offload::hanging().into_iter().map(words)
}

/// A path that means the same to whoever asks, wherever that runs.
fn absolute(path: &Path) -> PathBuf {
    std::path::absolute(path).unwrap_or_else(|_| path.to_owned())
}
