//! The part of a daemon that follows the store and keeps the snapshot, with the network and the
//! disk made up: what reaches the node has come through the same sources as in the daemon.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use super::etcd::Etcd;
use crate::config::snapshot::{self, Header, Snapshot};
use crate::config::sources::{Local, Sources, is_other_store};
use crate::config::{Config, Facts, NodeName, Prefix, Tree, Vanished};

/// A machine's disk, as far as snapshots go: the newest and the one before.
#[derive(Clone, Debug, Default)]
pub struct Disk {
    now: String,
    old: String,
}

impl Disk {
    /// The newest snapshot ends after these thousandths of it: torn in writing.
    pub fn tear(&mut self, thousandths: usize) {
        let mut end = self.now.len() * thousandths.min(1000) / 1000;
        while !self.now.is_char_boundary(end) {
            end -= 1;
        }
        self.now.truncate(end);
    }

    fn load(&self, node: &NodeName) -> (Option<Snapshot>, usize) {
        let mut refused = 0;
        for text in [&self.now, &self.old] {
            match snapshot::decode(text, Path::new("snapshot.toml"), node) {
                Ok(snapshot) => return (Some(snapshot), refused),
                Err(_) if text.is_empty() => {}
                Err(_) => refused += 1,
            }
        }
        (None, refused)
    }

    fn write(&mut self, text: String, node: &NodeName) {
        // A file that cannot be used must not push out the older one that can.
        let now = std::mem::replace(&mut self.now, text);
        if snapshot::decode(&now, Path::new("snapshot.toml"), node).is_ok() {
            self.old = now;
        }
    }
}

/// What a daemon that follows the store finds on its box.
#[derive(Clone, Debug)]
pub(super) struct Start {
    node: NodeName,
    local: Local,
    facts: Facts,
}

impl Start {
    /// Of a node, with the text of its local file, on a box with these addresses.
    pub(super) fn new(node: NodeName, local: &str, own: &[Prefix]) -> Self {
        let local = Local::parse(Path::new("havip.toml"), local.as_bytes());
        let local = local.unwrap_or_else(|problems| panic!("the local file: {problems:?}"));
        let own_addresses = own.iter().map(|prefix| prefix.ip).collect();
        Self { node, local, facts: Facts { own_addresses, ..Facts::default() } }
    }
}

/// What one process knows of the store.
#[derive(Debug)]
pub(super) struct Gateway {
    pub(super) sources: Sources,
    facts: Facts,
    last: Option<Snapshot>,
    noted: Option<Tree>,
    known: Option<(u64, i64)>,
    entries: BTreeMap<Vec<u8>, (Vec<u8>, i64)>,
    is_from_etcd: bool,
    pub(super) is_first: bool,
    /// The start waits for the store.
    pub(super) is_waiting: bool,
    /// Snapshots that were found and not used.
    pub(super) refused: usize,
}

impl Gateway {
    pub(super) fn new(start: &Start, disk: &Disk) -> Self {
        let Start { node, local, facts } = start.clone();
        let (last, refused) = disk.load(&node);
        let mut sources = Sources::new(local, node);
        sources.beside_store = true;
        Self {
            sources,
            facts,
            known: last.as_ref().map(|last| (last.header.cluster_id, last.header.revision)),
            noted: last.as_ref().map(|last| last.tree.clone()),
            last,
            entries: BTreeMap::new(),
            is_from_etcd: false,
            is_first: true,
            is_waiting: true,
            refused,
        }
    }

    /// The store did not answer in time: the snapshot stands in for it.
    pub(super) fn start_without(&mut self) -> Arc<Config> {
        self.is_waiting = false;
        if let Some(last) = &self.last {
            self.sources.store = Some(last.tree.clone());
            self.sources.store_problems.clone_from(&last.problems);
        }
        self.sources.rebuild(&self.facts)
    }

    /// Takes the store's present state; returns what is to run, if that is something new.
    pub(super) fn take(&mut self, etcd: &Etcd, disk: &mut Disk) -> Option<Arc<Config>> {
        let entries: BTreeMap<Vec<u8>, (Vec<u8>, i64)> = etcd
            .entries()
            .map(|(key, value, at)| (key.to_owned(), (value.to_owned(), at)))
            .collect();
        let before = std::mem::take(&mut self.entries);
        let known_key = |key: &[u8]| before.get(key).map(|(value, at)| (value.as_slice(), *at));
        let keys = entries.iter().map(|(key, (value, at))| (key.as_slice(), value.as_slice(), *at));
        let is_other = is_other_store(self.known, known_key, etcd.at(), keys);
        let same = before == entries;
        self.entries = entries;
        self.known = Some(etcd.at());
        let is_first = std::mem::take(&mut self.is_first);
        if same && !is_other && self.is_from_etcd {
            return None;
        }
        self.is_from_etcd = true;
        self.is_waiting = false;
        let (_, revision) = etcd.at();
        let prefix = self.sources.local.settings.prefix.clone();
        let found = Tree::from_flat(&prefix, etcd.entries());
        let before = self.sources.running.clone();
        let last = self.last.take();
        let restored = (is_other, is_first);
        let config = self.sources.take_state(found, revision, restored, last, &self.facts);
        self.note(etcd, &prefix, disk);
        (before.as_ref() != Some(&config)).then_some(config)
    }

    /// Lets go what is held, as an operator says; `None`: nothing is.
    pub(super) fn confirm(&mut self, etcd: &Etcd, disk: &mut Disk) -> Option<Arc<Config>> {
        if self.sources.held.is_empty() {
            return None;
        }
        let (config, _) = self.sources.confirm(&self.facts);
        let prefix = self.sources.local.settings.prefix.clone();
        self.note(etcd, &prefix, disk);
        Some(config)
    }

    /// Puts on disk what the configuration is from.
    fn note(&mut self, etcd: &Etcd, prefix: &str, disk: &mut Disk) {
        let since = match self.sources.vanished {
            Vanished::HoldSince(since) => since,
            Vanished::Hold | Vanished::Release => 0,
        };
        let Sources { kept, node, .. } = &self.sources;
        let (cluster_id, revision) = etcd.at();
        let held = (!kept.is_empty()).then_some(since);
        let header = Header { revision, cluster_id, time: 0, node: node.clone(), held };
        let mut tree = snapshot::kept(prefix, etcd.entries());
        if let Some(last) = &self.noted {
            tree = snapshot::graft(tree, last, node, kept);
        }
        disk.write(snapshot::encode(&header, &snapshot::body(&tree)), node);
        self.noted = Some(tree);
    }
}
