//! The snapshot's place in the daemon: what etcd had, on disk, for a start without etcd.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::time::Duration;

use smol::Executor;
use smol::channel::{Receiver, Sender, bounded};

use crate::config::{NodeName, RouterName, Tree};
use crate::linux::clock;
use crate::node::Instant;
use crate::offload::{self, Lane};
use crate::store::State;
use crate::store::snapshot::{self, Due, Error, Header, Pace, Snapshot};

/// Least time between two tries of a disk that takes nothing.
const RETRY: Duration = Duration::from_secs(10);

/// What became of a write.
pub(super) struct Written {
    result: Result<(), Error>,
    header: Header,
    body: String,
}

/// Keeps the newest state of the store on disk.
pub(super) struct Keep {
    directory: PathBuf,
    node: NodeName,
    pace: Pace,
    /// The last state of the store that counted, noted or loaded.
    last: Option<Tree>,
    /// What was noted last, unless it is on disk or being written, and when it may be written.
    newest: Option<(Header, String, Instant)>,
    /// Whether something is being written: one at a time, in their order.
    is_writing: bool,
    done: (Sender<Written>, Receiver<Written>),
    /// Why the last write failed.
    pub(super) error: Option<String>,
}

impl Keep {
    pub(super) fn new(directory: PathBuf, interval: Duration, node: NodeName) -> Self {
        let pace = Pace::new(interval);
        Self {
            directory,
            node,
            pace,
            last: None,
            newest: None,
            is_writing: false,
            done: bounded(1),
            error: None,
        }
    }

    /// The snapshot on disk, if there is one that is whole and this node's.
    pub(super) async fn load(&mut self) -> Option<Snapshot> {
        let (directory, node) = (self.directory.clone(), self.node.clone());
        let doing = format!("reading the snapshot in {}", directory.display());
        let load = offload::run(Lane::Snapshot, doing, move || snapshot::load(&directory, &node));
        let (snapshot, refused) = load.await.ok()?;
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
        self.newest = Some((header, body, clock::now()));
        self.plan();
    }

    /// Finds out when the newest is to be written, once it is known what is on disk.
    fn plan(&mut self) {
        let Some((header, body, at)) = &mut self.newest else { return };
        if self.is_writing {
            return;
        }
        match self.pace.due(clock::now(), header, body) {
            Due::Never => self.newest = None,
            Due::At(later) => *at = later.max(*at),
            Due::Now => {}
        }
    }

    /// When there is something to write, and nothing else is being written.
    pub(super) fn due_at(&self) -> Option<Instant> {
        self.newest.as_ref().filter(|_| !self.is_writing).map(|(.., at)| *at)
    }

    /// Writes at the next opportunity what would wait for its time.
    pub(super) fn hurry(&mut self) {
        if let Some((.., at)) = &mut self.newest {
            *at = clock::now();
        }
    }

    /// Begins to write what is due, on a thread of its own: nothing waits for the disk.
    pub(super) fn write(&mut self, executor: &Executor<'static>) {
        if self.due_at().is_none_or(|at| at > clock::now()) {
            return;
        }
        let Some((header, body, _)) = self.newest.take() else { return };
        self.is_writing = true;
        let directory = self.directory.clone();
        let done = self.done.0.clone();
        let work = async move {
            let doing = format!("writing the snapshot in {}", directory.display());
            let written = offload::run(Lane::Snapshot, doing, move || {
                let result = snapshot::write(&directory, &header, &body);
                Written { result, header, body }
            });
            // One is written at a time: there is room for it, and for what became of it.
            if let Ok(written) = written.await {
                let _ = done.send(written).await;
            }
        };
        executor.spawn(work).detach();
    }

    /// Waits for the end of what is being written; for ever without any.
    pub(super) async fn done(&self) -> Option<Written> {
        self.done.1.recv().await.ok()
    }

    /// Takes what became of it.
    pub(super) fn written(&mut self, written: Written) {
        let Written { result, header, body } = written;
        self.is_writing = false;
        self.pace.tried(clock::now(), &header, &body, result.is_ok());
        if let Err(error) = &result {
            log::error!("{error}");
            // Unless something newer came meanwhile.
            self.newest.get_or_insert_with(|| (header, body, clock::now() + RETRY));
        }
        self.error = result.err().map(|error| error.to_string());
        self.plan();
    }

    /// Writes what there is to write at once, and waits until nothing is being written.
    pub(super) async fn finish(&mut self, executor: &Executor<'static>) {
        loop {
            self.hurry();
            self.write(executor);
            if !self.is_writing {
                return;
            }
            let Some(written) = self.done().await else { return };
            self.written(written);
            if self.error.is_some() {
                return;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::Entry;

    const VIPS: &str = "/havip/virtual_router/1/vips";

    fn state(revision: i64, vips: &str) -> State {
        let entry = Entry { key: VIPS.into(), value: vips.into(), mod_revision: revision };
        State { revision, cluster_id: 1, entries: vec![entry], rival: None }
    }

    fn note(keep: &mut Keep, revision: i64, vips: &str) {
        keep.note("/havip/", &state(revision, vips), &BTreeSet::new(), 0);
    }

    #[test]
    fn nothing_waits_for_a_disk_that_hangs_and_the_newest_is_written_after_it() {
        let folder = std::env::temp_dir().join(format!("havip-keep-{}", std::process::id()));
        let node = NodeName::new("gw1").unwrap();
        let mut keep = Keep::new(folder.clone(), Duration::ZERO, node.clone());
        // As long as it does not run, the disk hangs.
        let executor = Executor::new();
        note(&mut keep, 5, "192.0.2.1");
        keep.write(&executor);
        smol::block_on(executor.run(async {
            let written = keep.done().await.unwrap();
            keep.written(written);
        }));
        assert_eq!((keep.due_at(), keep.error.as_deref()), (None, None));

        note(&mut keep, 6, "192.0.2.2");
        keep.write(&executor);
        note(&mut keep, 7, "192.0.2.3");
        assert_eq!(keep.due_at(), None, "one at a time");
        // What stands on disk at this moment will not, when the other one has come.
        note(&mut keep, 8, "192.0.2.1");
        smol::block_on(executor.run(async {
            let written = keep.done().await.unwrap();
            keep.written(written);
            assert!(keep.due_at().is_some());
            keep.finish(&executor).await;
        }));
        let (found, refused) = snapshot::load(&folder, &node);
        let (found, expected) =
            (found.unwrap(), snapshot::kept("/havip/", &state(8, "192.0.2.1").entries));
        assert_eq!((found.header.revision, refused.len()), (8, 0));
        assert_eq!(snapshot::body(&found.tree), snapshot::body(&expected));
        std::fs::remove_dir_all(folder).unwrap();
    }
}
