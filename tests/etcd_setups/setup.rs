//! The set-ups: an etcd, and how a node named gw1 reaches it.

use std::fs;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use havip::config::{EtcdLogin, EtcdTls};
use havip::store::Options;

use crate::cluster::certs::Leaf;
use crate::cluster::ctl::Grant;
use crate::cluster::{Cluster, Setup, Tls, Token};
use crate::follower::options;

/// What a node needs that reads its own keys and writes what it puts out.
pub const RIGHTS: &[Grant<'_>] = &[
    ("read", "/havip/", true),
    ("readwrite", "/havip/vRouterGateway/", true),
    ("readwrite", "/havip/status/gw1", false),
];
/// The user gw1's, where it has one.
pub const PASSWORD: &str = "pass word+1";

/// An etcd and how it is reached.
pub struct SetUp {
    pub cluster: Cluster,
    pub options: Options,
}

/// A cluster of one that is soon there.
pub fn quick(version: &'static str) -> Setup {
    // That hashing a password is slow shows nothing here.
    let extra = ["--heartbeat-interval=30", "--election-timeout=300", "--bcrypt-cost=4"];
    Setup { extra: extra.map(str::to_owned).into(), ..Setup::new(version) }
}

/// A cluster, and the way to it by its addresses and nothing else.
pub fn start(test: &str, setup: &Setup) -> Option<SetUp> {
    let cluster = Cluster::start(test, setup)?;
    let options = options(&cluster.endpoints());
    Some(SetUp { cluster, options })
}

/// What makes an authority of one's own known.
pub fn ca(cluster: &Cluster) -> EtcdTls {
    EtcdTls { ca: Some(cluster.client_keys().join("ca.crt")), ..EtcdTls::default() }
}

/// A folder of its own with these files for a node.
pub fn node_keys(cluster: &Cluster, pair: &str, leaf: &Leaf) -> PathBuf {
    let folder = cluster.folder().join("node");
    fs::create_dir(&folder).expect("the cluster's folder is writable");
    cluster.authority().write(&folder);
    cluster.authority().write_leaf(&folder, pair, leaf);
    folder
}

/// Writes a file as an editor would, for its owner alone.
pub fn write_secret(path: &Path, text: &str) {
    let mut file = fs::File::options();
    let file = file.write(true).create(true).truncate(true).mode(0o600).open(path);
    std::io::Write::write_all(&mut file.expect("the folder is writable"), text.as_bytes())
        .expect("the disk has room");
}

/// Neither TLS nor users.
pub fn http(version: &'static str) -> Option<SetUp> {
    start("http", &quick(version))
}

/// Https by a certificate of an authority of one's own, dialled by name.
pub fn https(version: &'static str) -> Option<SetUp> {
    let mut server = Leaf::server();
    server.names.push("localhost".to_owned());
    let mut set_up = start("https", &Setup { tls: Tls::Server, server, ..quick(version) })?;
    let port = set_up.cluster.address(0).port();
    set_up.options = options(&[format!("https://localhost:{port}")]);
    set_up.options.tls = ca(&set_up.cluster);
    Some(set_up)
}

/// The same by a certificate of IP addresses alone.
pub fn ip_addresses_alone(version: &'static str) -> Option<SetUp> {
    let mut set_up = start("IP addresses", &Setup { tls: Tls::Server, ..quick(version) })?;
    set_up.options.tls = ca(&set_up.cluster);
    Some(set_up)
}

/// The same by a certificate of a name that is not the one that is dialled.
pub fn server_name(version: &'static str) -> Option<SetUp> {
    let server = Leaf::named("etcd.example.net");
    let mut set_up = start("server name", &Setup { tls: Tls::Server, server, ..quick(version) })?;
    let server_name = Some("etcd.example.net".to_owned());
    set_up.options.tls = EtcdTls { server_name, ..ca(&set_up.cluster) };
    Some(set_up)
}

/// Certificates that the server makes up.
pub fn auto_tls(version: &'static str) -> Option<SetUp> {
    let mut set_up = start("auto-tls", &Setup { tls: Tls::Auto, ..quick(version) })?;
    set_up.options.tls.insecure_skip_verify = true;
    Some(set_up)
}

/// Certificates on both sides, the node's in a folder.
pub fn client_certificate(version: &'static str) -> Option<SetUp> {
    let mut set_up = start("client certificate", &Setup { tls: Tls::Clients, ..quick(version) })?;
    set_up.options.tls.dir = Some(node_keys(&set_up.cluster, "client", &Leaf::default()));
    Some(set_up)
}

/// The same where the folder holds the server's pair and no other.
pub fn server_pair_for_clients(version: &'static str) -> Option<SetUp> {
    let mut set_up = start("server's pair", &Setup { tls: Tls::Clients, ..quick(version) })?;
    set_up.options.tls.dir = Some(set_up.cluster.keys());
    Some(set_up)
}

/// A user with a password over https; tokens end soon when they are not used.
pub fn password(version: &'static str) -> Option<SetUp> {
    password_with(version, Some(Token::Simple { ttl: 2 }))
}

/// The same with tokens that end soon, whatever they are used for.
pub fn password_and_jwt(version: &'static str) -> Option<SetUp> {
    password_with(version, Some(Token::Jwt { ttl: 4 }))
}

/// The same with other tokens; `None`: as etcd has them.
pub fn password_with(version: &'static str, token: Option<Token>) -> Option<SetUp> {
    let mut setup = Setup { tls: Tls::Server, token, ..quick(version) };
    // For the line that a token was thrown away.
    setup.extra.extend(["--logger=zap", "--log-level=debug"].map(str::to_owned));
    let mut set_up = start("password", &setup)?;
    let cluster = &mut set_up.cluster;
    cluster.enable_auth();
    cluster.add_user("gw1", Some(PASSWORD), RIGHTS);
    let password_file = cluster.folder().join("password");
    write_secret(&password_file, &format!("{PASSWORD}\n"));
    set_up.options.tls = ca(cluster);
    set_up.options.login = Some(EtcdLogin { username: "gw1".to_owned(), password_file });
    Some(set_up)
}

/// A user by the common name of its certificate.
pub fn certificate_user(version: &'static str) -> Option<SetUp> {
    let mut set_up = start("certificate user", &Setup { tls: Tls::Clients, ..quick(version) })?;
    set_up.cluster.enable_auth();
    set_up.cluster.add_user("gw1", None, RIGHTS);
    let leaf = Leaf::common_name("gw1");
    set_up.options.tls.dir = Some(node_keys(&set_up.cluster, "client", &leaf));
    Some(set_up)
}
