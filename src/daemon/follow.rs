//! The daemon's side of the store: where it is, what it said, what is wanted of it.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::access::Access;
use super::status::StoreStatus;
use crate::config::sources::is_other_store;
use crate::config::{Config, NodeName, RouterName};
use crate::linux::clock;
use crate::node::Instant;
use crate::store::mailbox::{Receiver, Sender, mailbox};
use crate::store::report::{self, Report, ReportedRouter};
use crate::store::snapshot::Header;
use crate::store::{Demand, Options, State, StoreEvent};
use crate::wire::Mac;

/// Different failures that are logged between two connections.
const LOGGED_MAX: usize = 100;

/// What came of an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum News {
    /// Nothing for the configuration.
    Nothing,
    /// A new state.
    State {
        /// It is another store's than the configuration's, or an older one's.
        is_other: bool,
        /// It is the first after a connection: the store may have been another's meanwhile.
        is_first: bool,
    },
    /// Another box has this node's name, and the configuration that would be this one's.
    NameTaken,
    /// Nothing of this node's is left in the store.
    Gone,
}

fn taken(rival: &str) -> String {
    format!(
        "{rival} has this node's name, and lives; give one of them another name ([havip] node in \
         its local file)"
    )
}

/// A store that is being followed.
pub(super) struct Follow {
    options: Options,
    /// What is odd about them.
    pub(super) warnings: Vec<String>,
    demands: Sender<Demand>,
    last_demand: Option<Demand>,
    pub(super) events: Receiver<StoreEvent>,
    connected: bool,
    /// No state came since the connection.
    is_first: bool,
    endpoint: String,
    error: Option<String>,
    /// What was logged since the last connection.
    logged: BTreeSet<String>,
    /// Keys that the server refuses to write, and why.
    refused: BTreeMap<String, String>,
    /// Why no gateway key is written, if one should be.
    nameless: Option<String>,
    /// The newest state.
    state: Option<State>,
    /// Which store the configuration is from, and which revision of it.
    known: Option<(u64, i64)>,
    source: &'static str,
    revision: i64,
    changed_at: Instant,
    /// When the connection was made or lost.
    link_at: Instant,
    snapshot_time: Option<u64>,
}

impl Follow {
    /// What follows the store, and the future that does the work. `before` is what followed it
    /// with other settings.
    pub(super) fn new(
        found: Access,
        before: Option<Self>,
    ) -> (Self, impl Future<Output = ()> + Send + 'static) {
        let Access { options, warnings } = found;
        let (demands, wanted) = mailbox();
        let (said, events) = mailbox();
        let now = clock::now();
        let fresh = Self {
            options: options.clone(),
            warnings,
            demands,
            last_demand: None,
            events,
            connected: false,
            is_first: true,
            endpoint: options.endpoints.first().map(ToString::to_string).unwrap_or_default(),
            error: None,
            logged: BTreeSet::new(),
            refused: BTreeMap::new(),
            nameless: None,
            state: None,
            known: None,
            source: "none",
            revision: 0,
            changed_at: now,
            link_at: now,
            snapshot_time: None,
        };
        let follow = match before {
            None => fresh,
            Some(Self { state, known, source, revision, changed_at, snapshot_time, .. }) => {
                Self { state, known, source, revision, changed_at, snapshot_time, ..fresh }
            }
        };
        (follow, crate::store::run(options, wanted, said))
    }

    /// Whether these settings are those that it is followed with.
    pub(super) fn is_with(&self, options: &Options) -> bool {
        let Options { endpoints, prefix, node, tls, login, .. } = options;
        let own = &self.options;
        own.endpoints == *endpoints
            && own.prefix == *prefix
            && own.node == *node
            && own.tls == *tls
            && own.login == *login
    }

    /// Takes what the store says.
    pub(super) fn take(&mut self, event: StoreEvent) -> News {
        match event {
            StoreEvent::Connected { endpoint } => {
                self.connected = true;
                self.is_first = true;
                self.link_at = clock::now();
                self.endpoint = endpoint.to_string();
                self.error = None;
                self.logged.clear();
                log::info!("etcd: connected to {endpoint}");
            }
            StoreEvent::State(state) => return self.take_state(state),
            StoreEvent::Lost { error, .. } => {
                let text = error.to_string();
                // Each attempt says so again, at each endpoint; the log wants it once.
                let known = self.logged.len() >= LOGGED_MAX || !self.logged.insert(text.clone());
                if self.connected || !known {
                    log::warn!("etcd: {text}; what runs goes on");
                }
                if std::mem::take(&mut self.connected) {
                    self.link_at = clock::now();
                }
                self.error = Some(text);
            }
            StoreEvent::WriteRefused { key, error } => {
                let text = format!("{key}: {error}");
                if self.refused.get(&key) != Some(&text) {
                    log::warn!("etcd: {text}; trying again");
                }
                self.refused.insert(key, text);
            }
            StoreEvent::Written { key } => {
                if self.refused.remove(&key).is_some() {
                    log::info!("etcd: {key}: written");
                }
            }
            StoreEvent::Gone => return News::Gone,
        }
        News::Nothing
    }

    fn take_state(&mut self, state: State) -> News {
        let rival = state.rival.clone();
        if let Some(rival) = &rival
            && self.state.as_ref().is_none_or(|before| before.rival != state.rival)
        {
            log::error!("etcd: {}", taken(rival));
        }
        let is_other = self.is_other_store(&state);
        let before = self.state.replace(state);
        // Who has begun goes on: two of a name disturb the store, not the network.
        if rival.is_some() && self.source == "none" {
            return News::NameTaken;
        }
        let state = self.state.as_ref();
        let same = before.as_ref().map(|before| &before.entries) == state.map(|s| &s.entries);
        let (cluster_id, revision) = state.map_or((0, 0), |s| (s.cluster_id, s.revision));
        self.known = Some((cluster_id, revision));
        let is_first = std::mem::take(&mut self.is_first);
        if same && !is_other && self.source == "etcd" {
            return News::Nothing;
        }
        self.source = "etcd";
        self.snapshot_time = None;
        self.revision = revision;
        self.changed_at = clock::now();
        News::State { is_other, is_first }
    }

    /// Whether a state cannot have come from the one that is known: a store that was set up
    /// anew, or restored from a backup, perhaps with newer changes on top.
    fn is_other_store(&self, state: &State) -> bool {
        let before = self.state.as_ref();
        let known_key = |key: &[u8]| {
            let before = &before?.entries;
            let at = before.binary_search_by(|known| known.key.as_slice().cmp(key)).ok()?;
            before.get(at).map(|known| (known.value.as_slice(), known.mod_revision))
        };
        let keys = state.entries.iter();
        let keys = keys.map(|e| (e.key.as_slice(), e.value.as_slice(), e.mod_revision));
        is_other_store(self.known, known_key, (state.cluster_id, state.revision), keys)
    }

    /// The newest state.
    pub(super) const fn state(&self) -> Option<&State> {
        self.state.as_ref()
    }

    /// Tells the store what this node needs to read and wants to be written.
    pub(super) fn demand(
        &mut self,
        listed: impl IntoIterator<Item = RouterName>,
        running: Option<&Arc<Config>>,
        active: &BTreeSet<RouterName>,
        node_ip: Option<IpAddr>,
        mac: Option<Mac>,
        report: Option<Report>,
    ) {
        let mut routers: BTreeSet<RouterName> = listed.into_iter().collect();
        routers.extend(running.iter().flat_map(|config| config.routers.keys().cloned()));
        let writes = match (node_ip, mac) {
            (Some(ip), Some(mac)) => active
                .iter()
                .map(|name| {
                    (format!("{}vRouterGateway/{name}", self.options.prefix), format!("{ip},{mac}"))
                })
                .collect(),
            _ => BTreeMap::new(),
        };
        let nameless = (node_ip.is_none() && !active.is_empty()).then(|| {
            let Options { prefix, node, .. } = &self.options;
            format!(
                "{prefix}vRouterGateway/: not written: this box has no IPv4 address except VIPs and \
                 /32 ones, and no global IPv6 address; set {prefix}node/{node}/node_ip"
            )
        });
        if nameless != self.nameless {
            nameless.iter().for_each(|text| log::warn!("etcd: {text}"));
            self.nameless = nameless;
        }
        // What is not written any more is not refused any more.
        let status = format!("{}status/", self.options.prefix);
        self.refused.retain(|key, _| writes.contains_key(key) || key.starts_with(&status));
        let demand = Demand { writes, routers, report };
        if self.last_demand.as_ref() != Some(&demand) {
            self.last_demand = Some(demand.clone());
            // It ends only with this daemon.
            let _ = self.demands.send(demand);
        }
    }

    /// Takes back everything that this node says in the store.
    pub(super) fn leave(&self) {
        let _ = self.demands.send(Demand::default());
    }

    /// Whether an etcd answers.
    pub(super) const fn is_connected(&self) -> bool {
        self.connected
    }

    /// Takes note of what the snapshot says of the store, used or not.
    pub(super) const fn knows(&mut self, header: &Header) {
        self.known = Some((header.cluster_id, header.revision));
    }

    /// Takes note that a snapshot is used.
    pub(super) fn uses_snapshot(&mut self, header: &Header) {
        self.source = "snapshot";
        self.revision = header.revision;
        self.snapshot_time = Some(header.time);
        self.changed_at = clock::now();
    }

    /// What this node says of itself.
    pub(super) fn report(
        &self,
        node: &NodeName,
        started: u64,
        node_ip: Option<IpAddr>,
        macs: &[Mac],
        routers: BTreeMap<String, ReportedRouter>,
    ) -> Report {
        Report {
            schema: report::SCHEMA,
            node: node.to_string(),
            version: env!("CARGO_PKG_VERSION"),
            started,
            macs: macs.iter().map(ToString::to_string).collect(),
            node_ip: node_ip.map(|ip| ip.to_string()),
            source: self.source,
            revision: self.revision,
            routers,
        }
    }

    pub(super) fn status(&self) -> StoreStatus {
        let now = clock::now();
        let since = |at| u64::try_from(now.since(at).as_millis()).unwrap_or(u64::MAX);
        StoreStatus {
            source: self.source,
            connected: self.connected,
            endpoint: self.endpoint.clone(),
            revision: self.revision,
            since_ms: since(self.changed_at),
            link_since_ms: since(self.link_at),
            snapshot_time: self.snapshot_time,
            error: self.error.clone(),
            refused: self.refused.values().chain(&self.nameless).cloned().collect(),
            name_taken: self.state.as_ref().and_then(|state| state.rival.as_deref()).map(taken),
            held: Vec::new(),
            events: self.options.counters.events.load(Ordering::Relaxed),
            readings: self.options.counters.readings.load(Ordering::Relaxed),
        }
    }
}
