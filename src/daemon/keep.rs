//! The snapshot's place in the daemon: what etcd had, on disk, for a start without etcd.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::time::Duration;

use crate::config::{NodeName, RouterName, Tree};
use crate::linux::clock;
use crate::node::Instant;
use crate::store::State;
use crate::store::snapshot::{self, Due, Header, Pace, Snapshot};

/// Least time between two tries of a disk that takes nothing.
const RETRY: Duration = Duration::from_secs(10);

/// Keeps the newest state of the store on disk.
pub(super) struct Keep {
    directory: PathBuf,
    node: NodeName,
    interval: Duration,
    pace: Pace,
    /// The last state of the store that counted, noted or loaded.
    last: Option<Tree>,
    /// What is to be written, and when at the earliest.
    waiting: Option<(Header, String, Instant)>,
    /// Why the last write failed.
    pub(super) error: Option<String>,
}

impl Keep {
    pub(super) const fn new(directory: PathBuf, interval: Duration, node: NodeName) -> Self {
        let pace = Pace::new(interval);
        Self { directory, node, interval, pace, last: None, waiting: None, error: None }
    }

    /// The snapshot on disk, if there is one that is whole and this node's.
    pub(super) fn load(&mut self) -> Option<Snapshot> {
        let (snapshot, refused) = snapshot::load(&self.directory, &self.node);
        for error in refused {
            log::warn!("{error}");
        }
        if let Some(snapshot) = &snapshot {
            let body = snapshot::body(&snapshot.tree);
            self.pace.found(&snapshot.header, &body);
            self.last = Some(snapshot.tree.clone());
        }
        snapshot
    }

    /// Takes note of a new state of the store; the routers that are `kept` count as they were.
    /// With any of them, `since` is the revision of the store when it was found restored.
    pub(super) fn note(
        &mut self,
        prefix: &str,
        state: &State,
        kept: &BTreeSet<RouterName>,
        since: i64,
    ) {
        let header = Header {
            revision: state.revision,
            cluster_id: state.cluster_id,
            time: clock::wall(),
            node: self.node.clone(),
            held: (!kept.is_empty()).then_some(since),
        };
        let mut tree = snapshot::kept(prefix, &state.entries);
        if let Some(last) = &self.last {
            tree = snapshot::graft(tree, last, &self.node, kept);
        }
        let body = snapshot::body(&tree);
        self.last = Some(tree);
        let now = clock::now();
        let at = match self.pace.due(now, &header, &body) {
            Due::Never => {
                self.waiting = None;
                return;
            }
            Due::At(at) => at,
            Due::Now => now,
        };
        self.waiting = Some((header, body, at));
    }

    /// When there is something to write.
    pub(super) fn due_at(&self) -> Option<Instant> {
        self.waiting.as_ref().map(|(.., at)| *at)
    }

    /// Writes at the next opportunity what would wait for its time.
    pub(super) fn hurry(&mut self) {
        if let Some((.., at)) = &mut self.waiting {
            *at = clock::now();
        }
    }

    /// Writes what is due; may wait for the disk, on a thread of its own.
    pub(super) async fn write(&mut self) {
        let now = clock::now();
        if self.due_at().is_none_or(|at| at > now) {
            return;
        }
        let Some((header, body, _)) = self.waiting.take() else { return };
        let directory = self.directory.clone();
        let (result, header, body) = smol::unblock(move || {
            let result = snapshot::write(&directory, &header, &body);
            (result, header, body)
        })
        .await;
        self.pace.tried(clock::now(), &header, &body, result.is_ok());
        if let Err(error) = &result {
            log::error!("{error}");
            // Unless something newer came meanwhile.
            let at = clock::now() + self.interval.max(RETRY);
            self.waiting.get_or_insert((header, body, at));
        }
        self.error = result.err().map(|error| error.to_string());
    }
}
