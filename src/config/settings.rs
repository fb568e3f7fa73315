//! The daemon's own settings: tables that only the local file has.

use std::path::PathBuf;
use std::time::Duration;

use super::key::{ROUTER_KEYS, router_key};
use super::model::{IfName, NodeName, Prefix};
use super::policy::Policy;
use super::problem::{Problem, Severity, way_out};
use super::tree::{Entry, Tree, Value};
use super::value::{self, Parsed};
use super::vanished::Vanished;

/// The tables and their keys, with what each says.
pub const SETTINGS: &[(&str, &str, &str)] = &[
    ("havip", "node", "this node's name, or \"@mac:IFACE\" (default: HOSTNAME, else the host's)"),
    ("havip", "run_dir", "directory of lock and control socket (default /run/havip)"),
    ("havip", "prefix", "prefix of all keys in etcd (default /havip/)"),
    ("havip", "tunnel_interface", "whose MAC goes into vRouterGateway (default tun0)"),
    ("havip", "realtime", "true or false: real-time priority for adverts (default true)"),
    ("havip", "guard", "true or false: a process that acts when the daemon dies (default true)"),
    ("havip", "fence", "true or false: a frozen daemon's VIPs are shut off (default false)"),
    ("havip", "log_level", "error, warn, info or debug (default info)"),
    ("etcd", "endpoints", "list of endpoints, with or without http:// or https://"),
    ("etcd", "timeout", "seconds to wait for etcd at the start, before the snapshot (default 0.8)"),
    ("etcd", "username", "user of etcd's own authentication, with password_file"),
    ("etcd", "password_file", "file that holds the password and nothing else"),
    ("etcd", "ca", "file with the authorities that etcd's certificate is checked against"),
    ("etcd", "cert", "file with the certificate that this node shows, with key"),
    ("etcd", "key", "file with its key"),
    (
        "etcd",
        "tls_dir",
        "directory with ca.crt and client.crt, client.key or server.crt, server.key",
    ),
    ("etcd", "server_name", "name to look for in etcd's certificate (default: the endpoint's)"),
    ("etcd", "insecure_skip_verify", "true: do not check etcd's certificate (default false)"),
    (
        "etcd",
        "vanished",
        "hold or release: routers that vanish from etcd without an order (default hold)",
    ),
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

/// Who this node is to etcd.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EtcdLogin {
    /// The user.
    pub username: String,
    /// Where the password stands; it is never in the configuration itself.
    pub password_file: PathBuf,
}

/// How TLS to etcd is made, as far as the file says; whether there is any says the scheme of an
/// endpoint.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct EtcdTls {
    /// Authorities; `None`: those of the system.
    pub ca: Option<PathBuf>,
    /// Certificate and key that this node shows.
    pub identity: Option<(PathBuf, PathBuf)>,
    /// Instead of both: a directory with files of the usual names.
    pub dir: Option<PathBuf>,
    /// Name to look for in etcd's certificate.
    pub server_name: Option<String>,
    /// Whether any certificate will do.
    pub insecure_skip_verify: bool,
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
    /// A process of its own that says priority 0 and takes the VIPs away when the daemon dies.
    pub guard: bool,
    /// nf_tables shut off the VIPs of a daemon that stands still.
    pub fence: bool,
    /// How much is logged.
    pub log_level: LogLevel,
    /// Endpoints as written; `None`: no `[etcd]` endpoints in the file.
    pub etcd_endpoints: Option<Vec<String>>,
    /// How long the start waits for etcd.
    pub etcd_timeout: Duration,
    /// User and password.
    pub etcd_login: Option<EtcdLogin>,
    /// Certificates.
    pub etcd_tls: EtcdTls,
    /// What becomes of routers that vanish from etcd without an order.
    pub vanished: Vanished,
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
        guard: reader.read("havip/guard", value::boolean).unwrap_or(true),
        fence: reader.read("havip/fence", value::boolean).unwrap_or(false),
        log_level: reader.read("havip/log_level", log_level).unwrap_or(LogLevel::Info),
        etcd_endpoints: reader.read("etcd/endpoints", endpoints),
        etcd_timeout: reader
            .read("etcd/timeout", |v| value::seconds(v, 600))
            .unwrap_or(Duration::from_millis(800)),
        etcd_login: reader.login(),
        etcd_tls: reader.tls(),
        vanished: reader.read("etcd/vanished", vanished).unwrap_or_default(),
        snapshot_path: reader
            .read("snapshot/path", path)
            .unwrap_or_else(|| "/var/lib/havip".into()),
        snapshot_interval: reader
            .read("snapshot/interval", |v| value::seconds(v, 86_400))
            .unwrap_or(Duration::from_secs(60)),
        policy: Policy {
            interfaces: reader.read("policy/interfaces", patterns),
            addresses: reader.read("policy/addresses", networks),
            features: reader.read("policy/features", features),
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

    /// Two keys of `[etcd]` of which neither means anything without the other.
    fn pair<T>(
        &mut self,
        [a, b]: [&str; 2],
        parse: impl Fn(&Value) -> Parsed<T>,
        parse_b: impl Fn(&Value) -> Parsed<PathBuf>,
    ) -> Option<(T, PathBuf)> {
        let (at_a, at_b) = (format!("etcd/{a}"), format!("etcd/{b}"));
        let lonely = match (self.tree.set(&at_a), self.tree.set(&at_b)) {
            (Some(entry), None) => Some((&at_a, entry, b)),
            (None, Some(entry)) => Some((&at_b, entry, a)),
            (Some(_), Some(_)) | (None, None) => None,
        };
        if let Some((path, entry, other)) = lonely {
            let message = format!("{other} is missing beside it");
            self.problems.push(Problem::at(Severity::Error, path, &entry.origin, message));
        }
        let (a, b) = (self.read(&at_a, parse), self.read(&at_b, parse_b));
        Some((a?, b?))
    }

    fn login(&mut self) -> Option<EtcdLogin> {
        let (username, password_file) = self.pair(["username", "password_file"], one_word, path)?;
        Some(EtcdLogin { username, password_file })
    }

    fn tls(&mut self) -> EtcdTls {
        let tls = EtcdTls {
            ca: self.read("etcd/ca", path),
            identity: self.pair(["cert", "key"], path, path),
            dir: self.read("etcd/tls_dir", path),
            server_name: self.read("etcd/server_name", one_word),
            insecure_skip_verify: self
                .read("etcd/insecure_skip_verify", value::boolean)
                .unwrap_or(false),
        };
        if tls.dir.is_some() {
            for key in ["etcd/ca", "etcd/cert", "etcd/key"] {
                let message = "tls_dir says where this file is; delete one of the two";
                self.problems.extend(self.tree.set(key).map(|entry| {
                    Problem::at(Severity::Error, key, &entry.origin, message.to_owned())
                }));
            }
        }
        tls
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
            let message = format!("unknown key; {}", way_out(name, known()));
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

fn vanished(value: &Value) -> Parsed<Vanished> {
    match value::single(value)? {
        "hold" => Ok(Vanished::Hold),
        "release" => Ok(Vanished::Release),
        other => Err(format!("\"{}\" is neither hold nor release", value::short(other))),
    }
}

fn one_word(value: &Value) -> Parsed<String> {
    let text = value::single(value)?;
    if text.is_empty() || text.len() > 255 || text.chars().any(char::is_control) {
        return Err("1 to 255 characters are expected".into());
    }
    Ok(text.to_owned())
}

/// Who listens where is read by the store; that there is one is said here, with the line.
fn endpoints(value: &Value) -> Parsed<Vec<String>> {
    let endpoints: Vec<String> = value.items().map(str::to_owned).collect();
    if endpoints.is_empty() {
        return Err("empty; list at least one endpoint, or delete it".into());
    }
    Ok(endpoints)
}

fn patterns(value: &Value) -> Parsed<Vec<String>> {
    let check = |pattern: &str| match pattern.strip_suffix('*').unwrap_or(pattern) {
        "" => Ok(pattern.to_owned()),
        start if start.contains('*') => Err(format!(
            "\"{}\": a * stands at the end, for any rest of a name",
            value::short(pattern)
        )),
        start => match IfName::new(start) {
            Ok(_) => Ok(pattern.to_owned()),
            Err(why) => Err(format!("\"{}\": {why}", value::short(pattern))),
        },
    };
    value.items().map(check).collect()
}

fn networks(value: &Value) -> Parsed<Vec<Prefix>> {
    value.items().map(value::network).collect()
}

fn features(value: &Value) -> Parsed<Vec<String>> {
    let known = || ROUTER_KEYS.iter().map(|key| key.name);
    let check = |feature: &str| match router_key(feature) {
        Some(_) => Ok(feature.to_owned()),
        None => Err(format!(
            "\"{}\" is no key of a router; {}",
            value::short(feature),
            way_out(feature, known())
        )),
    };
    value.items().map(check).collect()
}
