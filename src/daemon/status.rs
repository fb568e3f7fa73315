//! What the daemon shows: the JSON of the control socket, schema 1.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::fence::FenceStatus;
use super::guard::GuardStatus;
use crate::node::NodeStatus;

/// Version of the JSON's shape. Fields may be added; a change of what is there gets a new number.
pub const SCHEMA: u32 = 1;

/// Everything about a running daemon.
#[derive(Clone, Debug, Serialize)]
pub struct Status {
    /// [`SCHEMA`].
    pub schema: u32,
    /// Of the daemon.
    pub version: &'static str,
    /// Process number.
    pub pid: u32,
    /// Its node's name.
    pub node: String,
    /// Milliseconds since its start.
    pub uptime_ms: u64,
    /// Where its configuration comes from.
    pub config: ConfigStatus,
    /// What does not work as it should on this box.
    pub warnings: Vec<String>,
    /// Notices that were not logged, because too many came at once.
    pub notices_lost: u64,
    /// What acts when this daemon dies.
    pub guard: GuardStatus,
    /// What shuts the VIPs off when this daemon stands still.
    pub fence: FenceStatus,
    /// Routers, sockets, counters.
    pub vrrp: NodeStatus,
}

/// Where the configuration comes from, and what is wrong with it.
#[derive(Clone, Debug, Serialize)]
pub struct ConfigStatus {
    /// The local file.
    pub file: String,
    /// Milliseconds since it was read.
    pub read_ms: u64,
    /// Why a newer version of it is refused.
    pub refused: Vec<String>,
    /// The store: absent without one.
    pub store: Option<StoreStatus>,
    /// Routers that this node lists and that do not run, and why.
    pub idle: BTreeMap<String, String>,
    /// What is wrong, most important first.
    pub problems: Vec<ProblemStatus>,
    /// Values of the store that the local file hides.
    pub shadowed: Vec<String>,
}

/// The store.
#[derive(Clone, Debug, Default, Serialize)]
pub struct StoreStatus {
    /// `etcd`, `snapshot` or `none`: where the values in use come from.
    pub source: &'static str,
    /// Whether etcd is connected; since when, or since when not, tells `link_since_ms`.
    pub connected: bool,
    /// Which endpoint, or which was tried last.
    pub endpoint: String,
    /// Revision of the values in use.
    pub revision: i64,
    /// Milliseconds since that changed.
    pub since_ms: u64,
    /// Milliseconds since the connection was made or lost, or since the start without either.
    pub link_since_ms: u64,
    /// Where the values are a snapshot's: when it was written, in seconds since 1970 by this box's
    /// clock of then.
    pub snapshot_time: Option<u64>,
    /// The last error.
    pub error: Option<String>,
    /// Keys that the server refuses to write, or that this node has nothing to write to, and why.
    pub refused: Vec<String>,
    /// Why nothing of the store is run, or that another box disturbs: it has this node's name.
    pub name_taken: Option<String>,
    /// Routers that vanished from the store without an order and go on: `havip confirm` lets go.
    pub held: Vec<String>,
    /// Events that etcd's watch brought since the start.
    pub events: u64,
    /// How often everything that concerns this node was read since the start.
    pub readings: u64,
}

/// One problem.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ProblemStatus {
    /// `error`, `warning` or `note`.
    pub severity: String,
    /// The router it concerns.
    pub router: Option<String>,
    /// Place and text.
    pub text: String,
}
