//! What the daemon and the store tell each other.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use super::Entry;
use super::endpoint::Endpoint;
use super::error::Error;
use super::mailbox::Letter;
use super::report::Report;
use crate::config::{EtcdLogin, EtcdTls, NodeName, RouterName};
use crate::node::Instant;

/// What to connect to, and for whom.
#[derive(Clone, Debug)]
pub struct Options {
    /// Members of one cluster, at least one; each is tried in turn, from one chosen at random.
    pub endpoints: Vec<Endpoint>,
    /// Prefix of all keys; ends in a slash.
    pub prefix: String,
    /// Whose configuration is read.
    pub node: NodeName,
    /// Certificates and how they are checked, for the endpoints with https.
    pub tls: EtcdTls,
    /// User and password.
    pub login: Option<EtcdLogin>,
    /// Longest time for name and connection (default 2 s).
    pub dial_timeout: Duration,
    /// Longest time for an answer (default 2.5 s).
    pub call_timeout: Duration,
    /// Longest silence before the watch is asked whether it is alive (default 2.5 s). That it is
    /// not is known after this and `call_timeout`.
    pub probe_interval: Duration,
    /// Counted while it is followed.
    pub counters: Arc<Counters>,
}

/// What following the store costs.
#[derive(Debug, Default)]
pub struct Counters {
    /// Events that the watch brought.
    pub events: AtomicU64,
    /// Readings of everything that concerns the node.
    pub readings: AtomicU64,
}

impl Options {
    /// Without user and certificates, with the default times.
    #[must_use]
    pub fn new(endpoints: Vec<Endpoint>, prefix: String, node: NodeName) -> Self {
        Self {
            endpoints,
            prefix,
            node,
            tls: EtcdTls::default(),
            login: None,
            dial_timeout: Duration::from_secs(2),
            call_timeout: Duration::from_millis(2500),
            probe_interval: Duration::from_millis(2500),
            counters: Arc::default(),
        }
    }
}

/// What the daemon wants of the store. The newest demand replaces all of the older one.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Demand {
    /// Keys that shall hold these values, and be put right when another changes them. A key that
    /// is not listed any more is left as it stands.
    pub writes: BTreeMap<String, String>,
    /// Routers whose keys are read beside those that the node's key in the store lists: those that
    /// the local file lists, and those that run although the store lists them no more.
    pub routers: BTreeSet<RouterName>,
    /// What stands at `status/NODE` as long as this node lives; `None`: it goes.
    pub report: Option<Report>,
}

impl Letter for Demand {
    fn replaces(&self, _older: &Self) -> bool {
        true
    }
}

/// All keys that say what the node shall do, at one revision.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct State {
    /// Of the whole store.
    pub revision: i64,
    /// Which store. Another one, or an older revision, means that the store was replaced or
    /// restored.
    pub cluster_id: u64,
    /// Sorted by key. Keys that nodes write (`vRouterGateway/`, `status/`) are not among them.
    pub entries: Vec<Entry>,
    /// In words, another box that lives under this node's name: two would act on the same keys.
    pub rival: Option<String>,
}

/// What the store has to say.
#[derive(Debug)]
pub enum StoreEvent {
    /// An endpoint answers; a state follows.
    Connected {
        /// Which one.
        endpoint: Endpoint,
    },
    /// The complete present configuration; it differs from the one before, or is the first after
    /// a connection.
    State(State),
    /// No endpoint answers, or the one that did does not any more. Repeated with each attempt.
    Lost {
        /// The last failure; it names the endpoint.
        error: Error,
        /// Since when nothing was heard.
        since: Instant,
    },
    /// The server refused to write a key; it will be tried again, more and more rarely.
    WriteRefused {
        /// Which one.
        key: String,
        /// Why.
        error: Error,
    },
    /// A key that the server had refused is written.
    Written {
        /// Which one.
        key: String,
    },
    /// Nothing of this node's is left in the store: what [`Demand::report`] ended with.
    Gone,
}

impl StoreEvent {
    /// The key whose writing it is about.
    fn key(&self) -> Option<&str> {
        match self {
            Self::WriteRefused { key, .. } | Self::Written { key } => Some(key),
            Self::Connected { .. } | Self::State(_) | Self::Lost { .. } | Self::Gone => None,
        }
    }
}

impl Letter for StoreEvent {
    fn replaces(&self, older: &Self) -> bool {
        match (self.key(), older.key()) {
            // As many as there are keys to write.
            (Some(key), Some(older)) => key == older,
            _ => std::mem::discriminant(self) == std::mem::discriminant(older),
        }
    }
}
