//! etcd's HTTP gateway, for what etcdctl does not do: a token of the test's own.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use futures_rustls::pki_types::pem::PemObject as _;
use futures_rustls::pki_types::{CertificateDer, ServerName};
use futures_rustls::rustls::crypto::ring;
use futures_rustls::rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};

use crate::cluster::Cluster;

/// A new token of a user with a password, on a cluster with https.
pub fn token(cluster: &Cluster, user: &str, password: &str) -> String {
    let question = serde_json::json!({ "name": user, "password": password });
    let answer = post(cluster, "auth/authenticate", None, &question).expect("it answers");
    answer["token"].as_str().expect("a token").to_owned()
}

/// Whether a token is good for reading `/havip/`.
pub fn takes(cluster: &Cluster, token: &str) -> bool {
    let question = serde_json::json!({ "key": BASE64_STANDARD.encode("/havip/") });
    // Version 3.4.23 closes the connection where it should say what is wrong.
    post(cluster, "kv/range", Some(token), &question)
        .is_some_and(|answer| answer["header"].is_object())
}

fn post(
    cluster: &Cluster,
    path: &str,
    token: Option<&str>,
    question: &serde_json::Value,
) -> Option<serde_json::Value> {
    let mut roots = RootCertStore::empty();
    let ca = CertificateDer::from_pem_file(cluster.client_keys().join("ca.crt"));
    roots.add(ca.expect("it is PEM")).expect("a certificate");
    let config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .expect("the provider has them")
        .with_root_certificates(roots)
        .with_no_client_auth();
    let address = cluster.address(0);
    let stream = TcpStream::connect(address).ok()?;
    stream.set_read_timeout(Some(Duration::from_secs(10))).ok()?;
    let tls = ClientConnection::new(Arc::new(config), ServerName::from(address.ip())).ok()?;
    let mut stream = StreamOwned::new(tls, stream);
    let body = question.to_string();
    let token = token.map(|token| format!("Authorization: {token}\r\n")).unwrap_or_default();
    write!(
        stream,
        "POST /v3/{path} HTTP/1.0\r\nHost: {address}\r\n{token}Content-Length: {}\r\n\r\n{body}",
        body.len()
    )
    .ok()?;
    let mut answer = String::new();
    // The end may come without a farewell.
    let _ = stream.read_to_string(&mut answer);
    serde_json::from_str(answer.split_once("\r\n\r\n")?.1).ok()
}
