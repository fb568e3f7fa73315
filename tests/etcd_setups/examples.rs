//! The examples, with nothing but addresses and paths put in: they pass the check, and reach an
//! etcd of their kind.

use std::fs;
use std::path::Path;
use std::process::{Command, Output};

use crate::cluster::certs::Leaf;
use crate::node::SEED;
use crate::setup::{self, PASSWORD, SetUp, node_keys, write_secret};

/// The folder that the examples have their files in.
const FOLDER: &str = "/etc/havip/etcd";

/// An example with this cluster's addresses, and files in a folder of the cluster's.
fn example(file: &str, set_up: &SetUp) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("conf/examples").join(file);
    let text = fs::read_to_string(path).expect("the example is there");
    let address = set_up.cluster.address(0).to_string();
    let endpoints = ["192.0.2.11:2379", "192.0.2.12:2379", "192.0.2.13:2379"];
    let text = endpoints.iter().fold(text, |text, endpoint| {
        assert!(text.contains(endpoint), "{file} does not name {endpoint}");
        text.replace(endpoint, &address)
    });
    text.replace(FOLDER, &set_up.cluster.folder().join("node").display().to_string())
}

/// Runs a command with these variables and no others.
fn havip(arguments: &[&str], environment: &[(&str, &str)]) -> Output {
    let mut program = Command::new(env!("CARGO_BIN_EXE_havip"));
    program.env_clear().envs(environment.iter().copied()).args(arguments);
    program.output().expect("it runs")
}

#[track_caller]
fn succeeds(arguments: &[&str], environment: &[(&str, &str)]) -> String {
    let output = havip(arguments, environment);
    assert!(output.status.success(), "{arguments:?}: {output:?}");
    String::from_utf8(output.stdout).expect("it writes UTF-8")
}

/// Checks an example and gets etcd's keys by it.
#[track_caller]
fn works(file: &str, set_up: &SetUp) {
    for (key, value) in SEED {
        set_up.cluster.put(key, value);
    }
    let text = example(file, set_up);
    let config = set_up.cluster.folder().join(file);
    fs::write(&config, &text).expect("the folder is writable");
    let config = config.display().to_string();
    let exported = if file.ends_with(".env") {
        let lines = text.lines().filter(|line| !line.starts_with('#'));
        let environment: Vec<_> =
            lines.map(|line| line.split_once('=').expect("NAME=VALUE")).collect();
        let empty = set_up.cluster.folder().join("empty.toml");
        fs::write(&empty, "").expect("the folder is writable");
        let empty = empty.display().to_string();
        succeeds(&["export", "--config", &empty], &environment)
    } else {
        succeeds(&["check", &config], &[]);
        succeeds(&["export", "--config", &config], &[])
    };
    assert!(exported.contains("[node.gw1]") && exported.contains("192.0.2.100"), "{exported}");
}

with_each_version! {

fn http(version: &'static str) {
    let Some(set_up) = setup::http(version) else { return };
    works("etcd-http.toml", &set_up);
}

fn https(version: &'static str) {
    let Some(set_up) = setup::ip_addresses_alone(version) else { return };
    node_keys(&set_up.cluster, "unused", &Leaf::default());
    works("etcd-https.toml", &set_up);
}

fn auto_tls(version: &'static str) {
    let Some(set_up) = setup::auto_tls(version) else { return };
    works("etcd-auto-tls.toml", &set_up);
}

fn client_certificate(version: &'static str) {
    let Some(set_up) = setup::client_certificate(version) else { return };
    works("etcd-client-certificate.toml", &set_up);
}

fn password(version: &'static str) {
    let Some(set_up) = setup::password(version) else { return };
    let folder = node_keys(&set_up.cluster, "unused", &Leaf::default());
    write_secret(&folder.join("password"), &format!("{PASSWORD}\n"));
    works("etcd-password.toml", &set_up);
}

fn certificate_user(version: &'static str) {
    let Some(set_up) = setup::certificate_user(version) else { return };
    works("etcd-certificate-user.toml", &set_up);
}

fn environment(version: &'static str) {
    let Some(set_up) = setup::client_certificate(version) else { return };
    works("etcd-environment.env", &set_up);
}

}
