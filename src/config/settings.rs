//! The daemon's own settings: tables that only the local file has.

use std::path::PathBuf;
use std::time::Duration;

use super::model::{IfName, NodeName};
use super::policy::Policy;
use super::problem::{Problem, Severity, nearest};
use super::tree::{Entry, Tree, Value};
use super::value::{self, Parsed};

/// The tables and their keys, with what each says.
pub const SETTINGS: &[(&str, &str, &str)] = &[
    ("havip", "node", "this node's name, or \"@mac:IFACE\" (default: HOSTNAME, else the host's)"),
    ("havip", "run_dir", "directory of lock and control socket (default /run/havip)"),
    ("havip", "prefix", "prefix of all keys in etcd (default /havip/)"),
    ("havip", "tunnel_interface", "whose MAC goes into vRouterGateway (default tun0)"),
    ("havip", "realtime", "true or false: real-time priority for adverts (default true)"),
    ("havip", "log_level", "error, warn, info or debug (default info)"),
    ("etcd", "endpoints", "list of endpoints, with or without http://"),
    ("etcd", "timeout", "seconds to wait for etcd at the start, before the snapshot (default 3)"),
    ("snapshot", "path", "directory of the snapshot (default /var/lib/havip)"),
    ("snapshot", "interval", "least seconds between two writes of it (default 60)"),
    ("policy", "interfaces", "interfaces that the store may use; * at the end for any rest"),
    ("policy", "addresses", "networks that the store's VIPs must lie in"),
    ("policy", "features", "keys that the store may set (default: all)"),
];

/// Tables of settings.
pub(super) const TABLES: [&str; 4] = ["etcd", "havip", "policy", "snapshot"];

/// How a node's name is found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NodeNaming {
    /// HOSTNAME, else the host's name.
    Host,
    /// This interface's address, for images that are cloned.
    Mac(IfName),
    /// As given.
    Name(NodeName),
}

/// How much is logged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogLevel {
    /// What does not work.
    Error,
    /// And what is not as it should be.
    Warn,
    /// And every transition.
    Info,
    /// And more than an operator wants.
    Debug,
}

/// `[havip]`, `[etcd]`, `[snapshot]` and `[policy]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// This node.
    pub node: NodeNaming,
    /// Lock and control socket.
    pub run_dir: PathBuf,
    /// Of all keys in etcd; ends in a slash.
    pub prefix: String,
    /// Whose MAC goes into the gateway key.
    pub tunnel_interface: IfName,
    /// Real-time priority for the thread that sends adverts.
    pub realtime: bool,
    /// How much is logged.
    pub log_level: LogLevel,
    /// Endpoints as written; `None`: no `[etcd]` endpoints in the file.
    pub etcd_endpoints: Option<Vec<String>>,
    /// How long the start waits for etcd.
    pub etcd_timeout: Duration,
    /// Directory of the snapshot.
    pub snapshot_path: PathBuf,
    /// Least time between two writes.
    pub snapshot_interval: Duration,
    /// What the store may do.
    pub policy: Policy,
}

/// Reads the settings out of the local file's tree. With a problem that is an error they must
/// not be used.
#[must_use]
pub fn settings(tree: &Tree) -> (Settings, Vec<Problem>) {
    let mut reader = Reader { tree, problems: super::unknown::in_tree(tree, &TABLES) };
    for table in TABLES {
        reader.unknown(table);
    }
    let settings = Settings {
        node: reader.read("havip/node", naming).unwrap_or(NodeNaming::Host),
        run_dir: reader.read("havip/run_dir", path).unwrap_or_else(|| "/run/havip".into()),
        prefix: reader.read("havip/prefix", prefix).unwrap_or_else(|| "/havip/".to_owned()),
        tunnel_interface: reader
            .read("havip/tunnel_interface", interface)
            .unwrap_or_else(IfName::tun0),
        realtime: reader.read("havip/realtime", value::boolean).unwrap_or(true),
        log_level: reader.read("havip/log_level", log_level).unwrap_or(LogLevel::Info),
        etcd_endpoints: reader.read("etcd/endpoints", list),
        etcd_timeout: reader
            .read("etcd/timeout", |v| value::seconds(v, 600))
            .unwrap_or(Duration::from_secs(3)),
        snapshot_path: reader
            .read("snapshot/path", path)
            .unwrap_or_else(|| "/var/lib/havip".into()),
        snapshot_interval: reader
            .read("snapshot/interval", |v| value::seconds(v, 86_400))
            .unwrap_or(Duration::from_secs(60)),
        policy: Policy {
            interfaces: reader.read("policy/interfaces", list),
            addresses: reader.read("policy/addresses", networks),
            features: reader.read("policy/features", list),
        },
    };
    (settings, reader.problems)
}

struct Reader<'a> {
    tree: &'a Tree,
    problems: Vec<Problem>,
}

impl Reader<'_> {
    fn read<T>(&mut self, path: &str, parse: impl Fn(&Value) -> Parsed<T>) -> Option<T> {
        let Entry { value, origin } = self.tree.set(path)?;
        parse(value)
            .map_err(|why| self.problems.push(Problem::at(Severity::Error, path, origin, why)))
            .ok()
    }

    fn unknown(&mut self, table: &str) {
        let known = || SETTINGS.iter().filter(|(of, ..)| *of == table).map(|(_, name, _)| *name);
        let prefix = format!("{table}/");
        let mut problems = Vec::new();
        for (path, entry) in self.tree.below(&prefix) {
            let name = path.strip_prefix(&prefix).unwrap_or_default();
            if known().any(|known| known == name) {
                continue;
            }
            let way_out = match nearest(name, known()) {
                Some(near) => format!("did you mean \"{near}\"?"),
                None => format!("known here: {}", known().collect::<Vec<_>>().join(", ")),
            };
            let message = format!("unknown key; {way_out}");
            problems.push(Problem::at(Severity::Error, path, &entry.origin, message));
        }
        self.problems.extend(problems);
    }
}

fn naming(value: &Value) -> Parsed<NodeNaming> {
    let text = value::single(value)?;
    match text.strip_prefix("@mac:") {
        Some(name) => IfName::new(name).map(NodeNaming::Mac).map_err(|why| why.to_string()),
        None if text.starts_with('@') => {
            Err("a name that begins with @ is \"@mac:IFACE\"".to_owned())
        }
        None => NodeName::new(text).map(NodeNaming::Name).map_err(|why| why.to_string()),
    }
}

fn path(value: &Value) -> Parsed<PathBuf> {
    let text = value::single(value)?;
    if text.starts_with('/') {
        Ok(text.into())
    } else {
        Err(format!("\"{}\" is not an absolute path", value::short(text)))
    }
}

fn prefix(value: &Value) -> Parsed<String> {
    let text = value::single(value)?;
    if text.ends_with('/') && text.len() <= 256 {
        Ok(text.to_owned())
    } else {
        Err("a prefix ends in a slash and has at most 256 bytes".into())
    }
}

fn interface(value: &Value) -> Parsed<IfName> {
    IfName::new(value::single(value)?).map_err(|why| why.to_string())
}

fn log_level(value: &Value) -> Parsed<LogLevel> {
    match value::single(value)? {
        "error" => Ok(LogLevel::Error),
        "warn" => Ok(LogLevel::Warn),
        "info" => Ok(LogLevel::Info),
        "debug" => Ok(LogLevel::Debug),
        other => Err(format!("\"{}\" is none of error, warn, info and debug", value::short(other))),
    }
}

// A parser like the others, which do fail.
#[allow(clippy::unnecessary_wraps)]
fn list(value: &Value) -> Parsed<Vec<String>> {
    Ok(value.items().map(str::to_owned).collect())
}

fn networks(value: &Value) -> Parsed<Vec<super::model::Prefix>> {
    value.items().map(value::prefix).collect()
}
