//! What is said of a set-up that does not work: what is wrong, where, and the way out. The guide
//! has each of these.

use std::fs::{self, Permissions};
use std::io::Read as _;
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use futures_rustls::pki_types::pem::PemObject as _;
use futures_rustls::pki_types::{CertificateDer, PrivateKeyDer};
use futures_rustls::rustls::crypto::ring;
use futures_rustls::rustls::{ServerConfig, ServerConnection, StreamOwned};
use havip::config::EtcdTls;
use havip::store::{Error, ErrorKind, Options};

use crate::cluster::certs::{Authority, Leaf};
use crate::cluster::{Setup, Tls};
use crate::follower::{Follower, options};
use crate::node::{Node, SEED, STATUS, calls};
use crate::setup::{self, PASSWORD, SetUp, ca, quick, start, write_secret};

/// Where operators look these up.
const GUIDE: &str = include_str!("../../docs/etcd.md");

/// That an attempt fails like this: the first, unless the server's last word was lost with the
/// connection, which it ends without reading what it was sent.
#[track_caller]
fn fails(options: &Options, kind: ErrorKind, words: &str) {
    let follower = Follower::with(options.clone());
    let mut attempts = (0..5).map(|_| follower.lost());
    let error = attempts.find(|error| error.kind() == kind || error.kind() != ErrorKind::Closed);
    is_named(&error.expect("it says more than that the connection is gone"), kind, words);
}

/// That an error is what it should be, says so, and can be looked up.
#[track_caller]
pub fn is_named(error: &Error, kind: ErrorKind, words: &str) {
    let text = error.to_string();
    println!("{text}");
    assert_eq!(error.kind(), kind, "{text}");
    assert!(text.contains(words), "no \"{words}\" in: {text}");
    // ENDPOINT: DOING: WHAT: DETAIL; WAY OUT
    let what = text.split(": ").nth(2).expect("it says what").split(';').next().expect("as above");
    assert!(GUIDE.contains(what), "the guide does not know \"{what}\"");
}

/// Lets everybody use a file, and gives the command that mends it.
fn open_to_all(path: &Path) -> String {
    fs::set_permissions(path, Permissions::from_mode(0o644)).expect("the file is there");
    format!("chmod 600 {}", path.display())
}

fn key_of(set_up: &SetUp) -> PathBuf {
    set_up.options.tls.dir.as_ref().expect("it has a folder").join("client.key")
}

with_each_version! {

fn an_authority_that_is_not_known(version: &'static str) {
    let Some(mut set_up) = setup::ip_addresses_alone(version) else { return };
    let other = set_up.cluster.folder().join("other.crt");
    fs::write(&other, Authority::new().certificate()).expect("the folder is writable");
    set_up.options.tls.ca = Some(other);
    fails(&set_up.options, ErrorKind::CertificateUntrusted, "set [etcd] ca");
    // Nor has the system one that signed it.
    set_up.options.tls = EtcdTls::default();
    fails(&set_up.options, ErrorKind::CertificateUntrusted, "set [etcd] ca");
}

fn a_certificate_of_another_name(version: &'static str) {
    let Some(mut set_up) = setup::server_name(version) else { return };
    set_up.options.tls.server_name = None;
    fails(&set_up.options, ErrorKind::CertificateName, "set [etcd] server_name");
}

fn a_certificate_that_is_over_or_not_valid_yet(version: &'static str) {
    for server in [Leaf::server().expired(), Leaf::server().not_yet()] {
        let setup = Setup { tls: Tls::Server, server, ..quick(version) };
        let Some(mut set_up) = start("certificate's time", &setup) else { return };
        set_up.options.tls = ca(&set_up.cluster);
        fails(&set_up.options, ErrorKind::CertificateTime, "look at this box's clock");
    }
}

fn no_certificate_where_the_server_wants_one(version: &'static str) {
    let Some(mut set_up) = setup::client_certificate(version) else { return };
    set_up.options.tls = ca(&set_up.cluster);
    fails(&set_up.options, ErrorKind::ClientCertificate, "set [etcd] cert and key");
}

fn a_certificate_of_another_authority(version: &'static str) {
    let Some(set_up) = setup::client_certificate(version) else { return };
    let key = key_of(&set_up);
    Authority::new().write_leaf(key.parent().expect("its folder"), "client", &Leaf::default());
    fails(&set_up.options, ErrorKind::ClientCertificate, "that its authority signed");
}

fn a_key_that_others_can_read(version: &'static str) {
    let Some(set_up) = setup::client_certificate(version) else { return };
    let command = open_to_all(&key_of(&set_up));
    fails(&set_up.options, ErrorKind::LocalFile, &command);
}

fn a_password_that_others_can_read(version: &'static str) {
    let Some(set_up) = setup::password(version) else { return };
    let login = set_up.options.login.as_ref().expect("it has a password");
    let command = open_to_all(&login.password_file);
    fails(&set_up.options, ErrorKind::LocalFile, &command);
}

fn http_where_the_server_has_tls_and_https_where_it_has_none(version: &'static str) {
    let Some(set_up) = setup::ip_addresses_alone(version) else { return };
    let address = set_up.cluster.address(0);
    let plain = options(&[format!("http://{address}")]);
    fails(&plain, ErrorKind::Closed, "write https://");

    let Some(set_up) = setup::http(version) else { return };
    let address = set_up.cluster.address(0);
    let mut private = options(&[format!("https://{address}")]);
    private.tls = ca(&set_up.cluster);
    fails(&private, ErrorKind::Handshake, "write http://");
}

fn self_made_certificates_that_are_not_taken(version: &'static str) {
    let Some(mut set_up) = setup::auto_tls(version) else { return };
    set_up.options.tls = ca(&set_up.cluster);
    fails(&set_up.options, ErrorKind::Handshake, "insecure_skip_verify");
}

fn no_user_where_there_are_users(version: &'static str) {
    let Some(mut set_up) = setup::password(version) else { return };
    set_up.options.login = None;
    fails(&set_up.options, ErrorKind::AuthRequired, "set [etcd] username and password_file");
}

fn a_user_that_may_not_read(version: &'static str) {
    let Some(set_up) = setup::certificate_user(version) else { return };
    set_up.cluster.revoke("gw1", "/havip/", true);
    fails(&set_up.options, ErrorKind::PermissionDenied, "grant the user read");
    set_up.cluster.remove_user("gw1");
    fails(&set_up.options, ErrorKind::PermissionDenied, "grant the user read");
}

fn a_user_that_may_not_write(version: &'static str) {
    let Some(set_up) = setup::certificate_user(version) else { return };
    set_up.cluster.revoke("gw1", STATUS, false);
    let node = Node::start(set_up.options.clone());
    node.wants();
    let (key, error) = node.is_refused();
    assert_eq!(key, STATUS);
    is_named(&error, ErrorKind::PermissionDenied, "write on its outputs");
}

}

#[test]
fn a_server_with_tls_that_does_not_speak_http2() {
    let authority = Authority::new();
    let (certificate, key) = authority.issue(&Leaf::server());
    let config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .expect("the provider has them")
        .with_no_client_auth()
        .with_single_cert(
            vec![CertificateDer::from_pem_slice(certificate.as_bytes()).expect("PEM")],
            PrivateKeyDer::from_pem_slice(key.as_bytes()).expect("PEM"),
        )
        .expect("they belong together");
    let config = Arc::new(config);
    let listener = TcpListener::bind(("127.0.0.1", 0)).expect("a port is free");
    let address = listener.local_addr().expect("it is bound");
    // Ends with the test's process.
    std::thread::spawn(move || {
        for client in listener.incoming().flatten() {
            let tls =
                ServerConnection::new(Arc::clone(&config)).expect("the configuration is good");
            // Whether the client stays is its own affair.
            let _ = StreamOwned::new(tls, client).read(&mut [0]);
        }
    });
    let mut options = options(&[format!("https://{address}")]);
    options.tls.insecure_skip_verify = true;
    fails(&options, ErrorKind::Protocol, "no http2 was agreed on");
}

/// Both versions at once, as it takes the better part of a minute.
#[test]
fn a_wrong_password_is_named_and_tried_once_in_half_a_minute() {
    let asked =
        |set_up: &SetUp| calls(&set_up.cluster, "etcdserverpb.Auth", "Authenticate", "unary");
    let mut waiting = Vec::new();
    for version in ["3.4", "3.5"] {
        let Some(set_up) = setup::password_with(version, None) else { return };
        for (key, value) in SEED {
            set_up.cluster.put(key, value);
        }
        let login = set_up.options.login.clone().expect("it has a password");
        write_secret(&login.password_file, "wrong\n");
        let before = asked(&set_up);
        let follower = Follower::with(set_up.options.clone());
        let error = follower.lost();
        is_named(&error, ErrorKind::WrongPassword, "tried once in 30 to 60 s");
        let text = error.to_string();
        assert!(text.contains("password file") && !text.contains("wrong\n"), "{text}");
        // Found at the next attempt.
        write_secret(&login.password_file, PASSWORD);
        waiting.push((set_up, follower, before));
    }
    for (set_up, follower, before) in waiting {
        follower.connected();
        assert_eq!(asked(&set_up) - before, 2.0, "one wrong password, one right one");
    }
}
