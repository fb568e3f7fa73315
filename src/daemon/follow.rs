//! The daemon's side of the store: where it is, what it said, what is wanted of it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::identity::Identity;
use super::status::StoreStatus;
use crate::config::{Config, RouterName};
use crate::linux::clock;
use crate::node::Instant;
use crate::store::mailbox::{Receiver, Sender, mailbox};
use crate::store::snapshot::Header;
use crate::store::{Demand, Options, State, StoreEvent};

/// A store that is being followed.
pub(super) struct Follow {
    prefix: String,
    demands: Sender<Demand>,
    last_demand: Option<Demand>,
    pub(super) events: Receiver<StoreEvent>,
    connected: bool,
    endpoint: String,
    error: Option<String>,
    source: &'static str,
    revision: i64,
    changed_at: Instant,
    /// When the connection was made or lost.
    link_at: Instant,
    snapshot_time: Option<u64>,
}

impl Follow {
    /// What follows the store, and the future that does the work.
    pub(super) fn new(options: Options) -> (Self, impl Future<Output = ()> + Send + 'static) {
        let (demands, wanted) = mailbox();
        let (said, events) = mailbox();
        let follow = Self {
            prefix: options.prefix.clone(),
            demands,
            last_demand: None,
            events,
            connected: false,
            endpoint: options.endpoints.first().map(ToString::to_string).unwrap_or_default(),
            error: None,
            source: "none",
            revision: 0,
            changed_at: clock::now(),
            link_at: clock::now(),
            snapshot_time: None,
        };
        (follow, crate::store::run(options, wanted, said))
    }

    /// Takes what the store says; gives the keys if there are new ones.
    pub(super) fn take(&mut self, event: StoreEvent) -> Option<State> {
        match event {
            StoreEvent::Connected { endpoint } => {
                self.connected = true;
                self.link_at = clock::now();
                self.endpoint = endpoint.to_string();
                self.error = None;
                log::info!("etcd: connected to {endpoint}");
                None
            }
            StoreEvent::State(state) => {
                self.source = "etcd";
                self.snapshot_time = None;
                self.revision = state.revision;
                self.changed_at = clock::now();
                Some(state)
            }
            StoreEvent::Lost { error, .. } => {
                let text = error.to_string();
                // Each attempt says so again; the log wants it once.
                if self.connected || self.error.as_deref() != Some(&text) {
                    log::warn!("etcd: {text}; what runs goes on");
                }
                if std::mem::take(&mut self.connected) {
                    self.link_at = clock::now();
                }
                self.error = Some(text);
                None
            }
            StoreEvent::WriteRefused { key, error } => {
                let text = format!("{key}: {error}");
                if self.error.as_deref() != Some(&text) {
                    log::warn!("etcd: {text}; trying again");
                }
                self.error = Some(text);
                None
            }
        }
    }

    /// Tells the store what this node needs to read and wants to be written.
    pub(super) fn demand(
        &mut self,
        listed: impl IntoIterator<Item = RouterName>,
        running: Option<&Arc<Config>>,
        active: &BTreeSet<RouterName>,
        identity: &Identity,
    ) {
        let mut routers: BTreeSet<RouterName> = listed.into_iter().collect();
        routers.extend(running.iter().flat_map(|config| config.routers.keys().cloned()));
        let node_ip = running.and_then(|config| config.node_ip).or(identity.node_ip);
        let writes = match (node_ip, identity.mac) {
            (Some(ip), Some(mac)) => active
                .iter()
                .map(|name| {
                    (format!("{}vRouterGateway/{name}", self.prefix), format!("{ip},{mac}"))
                })
                .collect(),
            _ => BTreeMap::new(),
        };
        let demand = Demand { writes, routers };
        if self.last_demand.as_ref() != Some(&demand) {
            self.last_demand = Some(demand.clone());
            // It ends only with this daemon.
            let _ = self.demands.send(demand);
        }
    }

    /// Takes note that a snapshot is used.
    pub(super) fn uses_snapshot(&mut self, header: &Header) {
        self.source = "snapshot";
        self.revision = header.revision;
        self.snapshot_time = Some(header.time);
        self.changed_at = clock::now();
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
        }
    }
}
