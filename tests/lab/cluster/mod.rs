//! Clusters of real etcd members on loopback, started by `packaging/etcd/havip-etcd`, with their
//! certificates, users and faults.
//!
//! `#[path = "lab/cluster/mod.rs"] mod cluster;` brings it into a crate of tests that has
//! `mod lab;`. The binaries are those that `tests/lab/fetch` unpacks. Members run in the network
//! namespace of the thread that starts them, and end with that thread.

#![allow(dead_code, unreachable_pub, reason = "each test crate uses its part")]

pub mod certs;
pub mod ctl;
mod faults;
mod partition;
pub mod watch;

use std::fmt::Write as _;
use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::Duration;

use certs::{Authority, Leaf};
use havip::linux::die_with_parent;
use partition::Network;

use crate::lab::{Folder, peer, skip};
pub use crate::lab::{LIMIT, holds_within};

/// What starts the members.
pub const LAUNCHER: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/packaging/etcd/havip-etcd");

/// Tests that run with each version of etcd that is supported; `isolated` ones in a network
/// namespace of their own.
#[macro_export]
macro_rules! with_each_version {
    ($(isolated fn $name:ident($version:ident: &'static str $(,)?) $body:block)*) => {
        $(mod $name {
            use super::*;

            fn with($version: &'static str) $body

            $crate::isolated! { fn etcd_3_4() { with("3.4") } }
            $crate::isolated! { fn etcd_3_5() { with("3.5") } }
        })*
    };
    ($(fn $name:ident($version:ident: &'static str) $body:block)*) => {
        $(mod $name {
            use super::*;

            fn with($version: &'static str) $body

            #[test]
            fn etcd_3_4() {
                with("3.4");
            }

            #[test]
            fn etcd_3_5() {
                with("3.5");
            }
        })*
    };
}

/// How clients and peers are protected.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Tls {
    /// Neither.
    #[default]
    None,
    /// Both, by certificates that etcd makes up: nobody can verify them.
    Auto,
    /// Clients verify the server.
    Server,
    /// Clients and server verify one another.
    Clients,
    /// Peers verify one another, clients come by http.
    Peers,
    /// Everybody verifies everybody.
    Mutual,
}

/// What the tokens of users that log in by password are.
#[derive(Clone, Copy, Debug)]
pub enum Token {
    /// Known to the server; lives on while it is used.
    Simple {
        /// Seconds that it lives without being used.
        ttl: u32,
    },
    /// Signed by ES256.
    Jwt {
        /// Seconds from its making to its end.
        ttl: u32,
    },
}

/// What a cluster is to be like.
#[derive(Clone, Debug)]
pub struct Setup {
    /// 3.4 or 3.5.
    pub version: &'static str,
    /// How many members.
    pub members: usize,
    /// Their certificates.
    pub tls: Tls,
    /// What those of the servers say; with IP addresses, `address` is added to them.
    pub server: Leaf,
    /// What says otherwise than etcd's default of simple tokens for five minutes.
    pub token: Option<Token>,
    /// Where they are.
    pub address: IpAddr,
    /// Whether members can be cut off from one another.
    pub partitions: bool,
    /// Further arguments for each etcd.
    pub extra: Vec<String>,
}

impl Setup {
    /// A single one without TLS.
    pub fn new(version: &'static str) -> Self {
        Self {
            version,
            members: 1,
            tls: Tls::None,
            server: Leaf::server(),
            token: None,
            address: Ipv4Addr::LOCALHOST.into(),
            partitions: false,
            extra: Vec::new(),
        }
    }
}

/// A member; it ends with this.
#[derive(Debug)]
struct Member {
    /// The ports for clients and for plain-text health and metrics.
    client: u16,
    metrics: u16,
    /// Where other members dial it, and where it listens: differ when a proxy is between.
    peer: u16,
    peer_bind: u16,
    child: Option<Child>,
    /// SIGSTOP was sent.
    stopped: bool,
    /// No other member is reached.
    cut: bool,
}

impl Member {
    fn serves(&self) -> bool {
        self.child.is_some() && !self.stopped
    }
}

/// A running cluster; ends with this, data and all.
pub struct Cluster {
    setup: Setup,
    folder: Folder,
    authority: Authority,
    members: Vec<Member>,
    network: Option<Network>,
    /// The cluster's token: with the members' URLs it makes the cluster's id.
    token: String,
    /// NAME:PASSWORD that etcdctl logs in with.
    user: Option<String>,
}

impl Cluster {
    /// Starts one and waits until every member is healthy, which it is when there is a leader.
    /// Without binaries it says that the test is skipped.
    pub fn start(test: &str, setup: &Setup) -> Option<Self> {
        let etcd = binary(setup.version, "etcd");
        if !etcd.is_file() {
            let version = setup.version;
            skip(test, &format!("no etcd {version}; run tests/lab/fetch etcd-{version}"));
            return None;
        }
        // Between choosing a free port and using it another may take it.
        let started = (0..5).find_map(|_| {
            let mut cluster = Self::prepare(setup.clone());
            cluster.spawn_all();
            match cluster.become_healthy() {
                Ok(()) => Some(cluster),
                Err(log) if log.contains("address already in use") => None,
                Err(log) => panic!("no healthy cluster\n{log}"),
            }
        });
        Some(started.expect("ports are free"))
    }

    fn prepare(setup: Setup) -> Self {
        let folder = Folder::new();
        let authority = Authority::new();
        let keys = folder.0.join("key");
        fs::create_dir(&keys).unwrap();
        if matches!(setup.tls, Tls::Clients | Tls::Peers | Tls::Mutual) {
            authority.write(&keys);
        }
        let mut server = setup.server.clone();
        if !server.ips.is_empty() {
            server.ips.push(setup.address);
        }
        if matches!(setup.tls, Tls::Server | Tls::Clients | Tls::Mutual) {
            authority.write_leaf(&keys, "server", &server);
        }
        if matches!(setup.tls, Tls::Peers | Tls::Mutual) {
            authority.write_leaf(&keys, "peer", &server);
        }
        let for_clients = folder.0.join("client");
        fs::create_dir(&for_clients).unwrap();
        authority.write(&for_clients);
        authority.write_leaf(&for_clients, "client", &Leaf::default());
        if matches!(setup.token, Some(Token::Jwt { .. })) {
            certs::write_token_keys(&folder.0);
        }
        let address = setup.address;
        let members = (0..setup.members).map(|_| {
            let peer = free_port(address);
            let peer_bind = if setup.partitions { free_port(address) } else { peer };
            let (client, metrics) = (free_port(address), free_port(address));
            Member { client, metrics, peer, peer_bind, child: None, stopped: false, cut: false }
        });
        let members: Vec<_> = members.collect();
        let network = setup.partitions.then(|| {
            let ports = members.iter().map(|member| (member.peer, member.peer_bind));
            Network::new(address, ports)
        });
        let token = "token-01".to_owned();
        Self { setup, folder, authority, members, network, token, user: None }
    }

    /// Starts a member that does not run, and waits for nothing.
    pub fn spawn(&mut self, index: usize) {
        assert!(self.members[index].child.is_none(), "{} runs", name(index));
        let log = fs::File::options().create(true).append(true).open(self.log_file(index));
        let log = log.unwrap();
        let mut launcher = self.launcher(index);
        launcher.stdin(Stdio::null()).stdout(log.try_clone().unwrap()).stderr(log);
        die_with_parent(&mut launcher);
        let child = launcher.spawn().expect("bash is there");
        if let Some(network) = &self.network {
            network.is_process(index, child.id());
        }
        let member = &mut self.members[index];
        member.child = Some(child);
        member.stopped = false;
    }

    /// Starts all members, of which none runs, and waits for nothing.
    fn spawn_all(&mut self) {
        for index in 0..self.len() {
            self.spawn(index);
            // A new member asks each other one about the cluster, and waits a second for one that
            // listens and does not answer yet.
            holds_within(LIMIT, || self.ended() || self.plain(index, "/metrics").is_some());
        }
    }

    /// Whether a member ended by itself.
    fn ended(&mut self) -> bool {
        let mut children = self.members.iter_mut().filter_map(|member| member.child.as_mut());
        children.any(|child| matches!(child.try_wait(), Ok(Some(_))))
    }

    fn launcher(&self, index: usize) -> Command {
        let member = &self.members[index];
        let at = |port| SocketAddr::new(self.setup.address, port).to_string();
        let mut launcher = Command::new(LAUNCHER);
        launcher.env_clear().env("PATH", std::env::var_os("PATH").unwrap_or_default());
        launcher.env("ETCD_BIN", binary(self.setup.version, "etcd"));
        // Architectures that etcd's authors do not test are ours too.
        let arch = std::env::consts::ARCH.replace("aarch64", "arm64");
        launcher.env("ETCD_UNSUPPORTED_ARCH", arch);
        launcher.env("CLUSTER", self.peers().join(","));
        launcher.env("MEMBER", (index + 1).to_string());
        launcher.env("ETCD_TOKEN", &self.token);
        launcher.env("ETCD_PORT", member.client.to_string());
        launcher.env("LISTEN_PEER", at(member.peer_bind));
        launcher.env("DATA_DIR", self.data(index));
        launcher.env("KEY_DIR", self.keys());
        if self.setup.tls == Tls::Auto {
            launcher.env("AUTO_TLS", "Y");
        }
        // Plain http whatever the TLS, and no user is asked for.
        launcher.arg(format!("--listen-metrics-urls=http://{}", at(member.metrics)));
        match self.setup.token {
            None => {}
            Some(Token::Simple { ttl }) => {
                launcher.arg(format!("--auth-token-ttl={ttl}"));
            }
            Some(Token::Jwt { ttl }) => {
                let folder = self.folder.0.display();
                launcher.arg(format!(
                    "--auth-token=jwt,pub-key={folder}/token.pub,priv-key={folder}/token.key,\
                     sign-method=ES256,ttl={ttl}s"
                ));
            }
        }
        launcher.args(&self.setup.extra);
        launcher
    }

    /// Waits until each member that runs is healthy; needs a majority.
    #[track_caller]
    pub fn wait_healthy(&mut self) {
        if let Err(log) = self.become_healthy() {
            panic!("no healthy cluster\n{log}");
        }
    }

    /// The logs when it does not come to be.
    fn become_healthy(&mut self) -> Result<(), String> {
        let mut ended = false;
        let healthy = holds_within(LIMIT, || {
            ended = self.ended();
            ended || (0..self.len()).all(|index| !self.runs_connected(index) || self.healthy(index))
        });
        if healthy && !ended { Ok(()) } else { Err(self.logs()) }
    }

    fn runs_connected(&self, index: usize) -> bool {
        self.members[index].serves() && !self.members[index].cut
    }

    /// Whether a member says that it is healthy: it reads by consensus, so there is a leader.
    pub fn healthy(&self, index: usize) -> bool {
        // Being asked for its health without a leader fills its log.
        self.metric(index, "etcd_server_has_leader") == Some(1.0)
            && self.plain(index, "/health").is_some_and(|said| said.contains(r#""health":"true""#))
    }

    /// A number of a member's metrics.
    pub fn metric(&self, index: usize, name: &str) -> Option<f64> {
        let body = self.plain(index, "/metrics")?;
        let line = body.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        line?.trim().parse().ok()
    }

    /// Reads from where a member tells its health and metrics.
    fn plain(&self, index: usize, path: &str) -> Option<String> {
        let member = &self.members[index];
        if !member.serves() {
            return None;
        }
        let address = SocketAddr::new(self.setup.address, member.metrics);
        let mut stream = TcpStream::connect_timeout(&address, Duration::from_millis(500)).ok()?;
        stream.set_read_timeout(Some(Duration::from_secs(2))).ok()?;
        write!(stream, "GET {path} HTTP/1.0\r\n\r\n").ok()?;
        let mut body = String::new();
        stream.read_to_string(&mut body).ok()?;
        Some(body)
    }

    /// The member that leads the others that can talk; waits until there is one.
    #[track_caller]
    pub fn leader(&self) -> usize {
        let mut leader = None;
        let there = holds_within(LIMIT, || {
            let mut leaders = (0..self.len()).filter(|&index| {
                self.runs_connected(index)
                    && self.metric(index, "etcd_server_is_leader") == Some(1.0)
            });
            leader = leaders.next();
            // One that was stopped for long does not know yet that it was succeeded.
            leader.is_some() && leaders.next().is_none()
        });
        assert!(there, "no leader, or several\n{}", self.logs());
        leader.expect("it is there")
    }

    /// A member that runs, can talk and does not lead.
    #[track_caller]
    pub fn follower(&self) -> usize {
        let leader = self.leader();
        let mut others = (0..self.len()).filter(|&index| index != leader);
        others.find(|&index| self.runs_connected(index)).expect("there is a follower")
    }

    /// How many members it has, running or not.
    pub fn len(&self) -> usize {
        self.members.len()
    }

    /// Where clients reach a member.
    pub fn endpoint(&self, index: usize) -> String {
        let scheme = match self.setup.tls {
            Tls::None | Tls::Peers => "http",
            Tls::Auto | Tls::Server | Tls::Clients | Tls::Mutual => "https",
        };
        format!("{scheme}://{}", self.address(index))
    }

    /// Where clients reach each member, running or not.
    pub fn endpoints(&self) -> Vec<String> {
        (0..self.len()).map(|index| self.endpoint(index)).collect()
    }

    /// Address and port for clients.
    pub fn address(&self, index: usize) -> SocketAddr {
        SocketAddr::new(self.setup.address, self.members[index].client)
    }

    /// CLUSTER's entries.
    fn peers(&self) -> Vec<String> {
        let at = |member: &Member| SocketAddr::new(self.setup.address, member.peer).to_string();
        self.members.iter().map(at).collect()
    }

    /// The authority that servers, and clients of `Tls::Clients` and `Tls::Mutual`, are signed by.
    pub fn authority(&self) -> &Authority {
        &self.authority
    }

    /// The folder of the servers' keys: issue `server` there again to renew it.
    pub fn keys(&self) -> PathBuf {
        self.folder.0.join("key")
    }

    /// A folder for clients' keys; `ca.crt`, `client.crt` and `client.key`, of no user, are there.
    pub fn client_keys(&self) -> PathBuf {
        self.folder.0.join("client")
    }

    /// A folder that goes with the cluster.
    pub fn folder(&self) -> &Path {
        &self.folder.0
    }

    fn data(&self, index: usize) -> PathBuf {
        self.folder.0.join(name(index))
    }

    fn log_file(&self, index: usize) -> PathBuf {
        self.folder.0.join(format!("{}.log", name(index)))
    }

    /// What a member has said.
    pub fn log(&self, index: usize) -> String {
        fs::read_to_string(self.log_file(index)).unwrap_or_default()
    }

    /// The ends of all logs.
    fn logs(&self) -> String {
        let mut text = String::new();
        for index in 0..self.len() {
            let log = self.log(index);
            let lines: Vec<_> = log.lines().collect();
            let end = &lines[lines.len().saturating_sub(30)..];
            let _ = writeln!(text, "--- {}\n{}", name(index), end.join("\n"));
        }
        text
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("{}", self.logs());
        }
        for index in 0..self.len() {
            self.kill(index);
        }
    }
}

/// The name that the launcher gives a member.
fn name(index: usize) -> String {
    format!("etcd-{}", index + 1)
}

/// Where a program of a version is, if it is there.
pub fn binary(version: &str, program: &str) -> PathBuf {
    peer::folder(&format!("etcd-{version}")).join("usr/bin").join(program)
}

/// A port that was free just now, below those that the kernel gives to connections: one of these
/// could sit on the port of a member that is down for a while.
pub fn free_port(address: IpAddr) -> u16 {
    const FIRST: u16 = 15000;
    const COUNT: u16 = 16000;
    static NEXT: AtomicU16 = AtomicU16::new(0);
    // Other processes of tests begin elsewhere.
    let begin = u16::try_from(std::process::id().wrapping_mul(617) % u32::from(COUNT)).unwrap();
    for _ in 0..COUNT {
        let next = NEXT.fetch_add(1, Ordering::Relaxed);
        let port = FIRST + begin.wrapping_add(next) % COUNT;
        if TcpListener::bind((address, port)).is_ok() {
            return port;
        }
    }
    panic!("no port is free at {address}");
}
