//! The guide: its commands are typed as they stand there, and then a node can do all that it has
//! to, and no more; what it says of a node's status is what nodes write.

use std::fs;
use std::process::Command;

use havip::config::{EtcdLogin, EtcdTls};
use havip::store::ErrorKind;
use serde_json::Value;

use crate::cluster::certs::Leaf;
use crate::cluster::ctl::ROOT_PASSWORD;
use crate::cluster::{Cluster, Setup, Tls, binary};
use crate::errors::is_named;
use crate::node::{Node, SEED, report};
use crate::setup::{SetUp, ca, node_keys, quick, start};

const GUIDE: &str = include_str!("../../docs/etcd.md");
/// The folder that the guide has a node's files in.
const FOLDER: &str = "/etc/havip/etcd";

/// What is to be typed below a heading, or another line that begins like this: the blocks that
/// say `sh`, up to the next heading.
fn blocks(line: &str) -> Vec<&'static str> {
    let (_, below) = GUIDE.split_once(&format!("\n{line}")).expect("the line is there");
    let below = below.split("\n#").next().expect("something is below it");
    below.split("```sh\n").skip(1).map(|block| before(block, "```")).collect()
}

fn before(text: &'static str, end: &str) -> &'static str {
    text.split_once(end).expect("it ends").0
}

/// A shell as the guide has it set up for etcd's root, with a node's files elsewhere.
fn shell(cluster: &Cluster, version: &str, commands: &str) -> Command {
    let folder = cluster.folder().join("node");
    let commands = commands.replace(FOLDER, &folder.display().to_string());
    let client = cluster.client_keys();
    let programs = binary(version, "etcdctl");
    let programs = programs.parent().expect("it is in a folder").display().to_string();
    let path = std::env::var("PATH").unwrap_or_default();
    let mut shell = Command::new("sh");
    shell.args(["-euc", &commands]).env_clear();
    shell.env("PATH", format!("{programs}:{path}"));
    shell.env("ETCDCTL_API", "3").env("ETCDCTL_ENDPOINTS", cluster.endpoint(0));
    shell.env("ETCDCTL_CACERT", client.join("ca.crt"));
    shell.env("ETCDCTL_CERT", client.join("client.crt"));
    shell.env("ETCDCTL_KEY", client.join("client.key"));
    shell.env("ETCDCTL_USER", format!("root:{ROOT_PASSWORD}"));
    shell
}

#[track_caller]
fn types(cluster: &Cluster, version: &str, commands: &str) {
    let output = shell(cluster, version, commands).output().expect("sh is there");
    assert!(output.status.success(), "{commands}{output:?}");
}

/// The last line must be refused, and only that.
#[track_caller]
fn verifies(cluster: &Cluster, version: &str, commands: &str) {
    let output = shell(cluster, version, commands).output().expect("sh is there");
    let (said, wrong) = (String::from_utf8_lossy(&output.stdout), output.stderr);
    let wrong = String::from_utf8_lossy(&wrong);
    assert!(said.contains("/havip/node/gw1/vrids\n100"), "{said}{wrong}");
    assert!(!output.status.success() && wrong.contains("permission denied"), "{said}{wrong}");
    assert_eq!(cluster.get("/havip/node/gw2/vrids").as_deref(), Some("200"));
}

fn with_users(version: &'static str) -> Option<SetUp> {
    let setup = Setup { tls: Tls::Clients, ..quick(version) };
    let mut set_up = start("rights", &setup)?;
    let cluster = &mut set_up.cluster;
    for (key, value) in SEED {
        cluster.put(key, value);
    }
    // So that what is refused below would change something.
    cluster.put("/havip/node/gw2/vrids", "200");
    cluster.enable_auth();
    set_up.options.tls = ca(cluster);
    Some(set_up)
}

/// Reads, hears, writes, holds its lease and gives it back.
#[track_caller]
fn does_all(set_up: &SetUp) {
    let mut node = Node::start(set_up.options.clone());
    node.reads_first();
    node.hears_a_change(&set_up.cluster);
    node.writes(&set_up.cluster);
    node.settles(&set_up.cluster);
    node.hears_a_change(&set_up.cluster);
    node.writes(&set_up.cluster);
    node.leaves(&set_up.cluster);
    node.is_undisturbed();
}

fn by_password(set_up: &mut SetUp) {
    let folder = set_up.cluster.folder().join("node");
    let keys = set_up.cluster.client_keys();
    // The server wants a certificate of everybody; this one names nobody.
    let identity = Some((keys.join("client.crt"), keys.join("client.key")));
    set_up.options.tls = EtcdTls { identity, ..ca(&set_up.cluster) };
    let password_file = folder.join("password");
    set_up.options.login = Some(EtcdLogin { username: "gw1".to_owned(), password_file });
}

with_each_version! {

fn a_node_with_a_password_can_do_its_work_and_no_more(version: &'static str) {
    let Some(mut set_up) = with_users(version) else { return };
    let [grant, verify] = blocks("### A node with a password")[..] else { panic!("two blocks") };
    types(&set_up.cluster, version, grant);
    by_password(&mut set_up);
    verifies(&set_up.cluster, version, verify);
    does_all(&set_up);
}

fn a_node_with_fewer_rights_can_do_its_work_and_no_more(version: &'static str) {
    let Some(mut set_up) = with_users(version) else { return };
    let [grant] = blocks("### Fewer rights")[..] else { panic!("one block") };
    let [wide, verify] = blocks("### A node with a password")[..] else { panic!("two blocks") };
    let password: Vec<_> = wide.lines().filter(|line| line.contains("etc/havip/etcd")).collect();
    types(&set_up.cluster, version, &password[..2].join("\n"));
    types(&set_up.cluster, version, grant);
    by_password(&mut set_up);
    verifies(&set_up.cluster, version, verify);
    does_all(&set_up);
    let file = &set_up.options.login.as_ref().expect("it has a password").password_file;
    let password = fs::read_to_string(file).expect("the guide wrote it");
    let get = ["get", "--prefix", "/havip/node/gw2/"];
    let refused = set_up.cluster.ctl_as("gw1", password.trim(), &get).unwrap_err();
    assert!(refused.contains("permission denied"), "{refused}");
}

fn a_node_with_a_certificate_can_do_its_work_and_no_more(version: &'static str) {
    let Some(mut set_up) = with_users(version) else { return };
    let [grant, verify] = blocks("### A node with a certificate")[..] else { panic!("two blocks") };
    types(&set_up.cluster, version, grant);
    let folder = node_keys(&set_up.cluster, "client", &Leaf::common_name("gw1"));
    set_up.options.tls = EtcdTls { dir: Some(folder), ..EtcdTls::default() };
    verifies(&set_up.cluster, version, verify);
    does_all(&set_up);
}

fn a_full_database_is_named_and_emptied(version: &'static str) {
    let mut setup = quick(version);
    setup.extra.push("--quota-backend-bytes=4194304".to_owned());
    let Some(set_up) = start("full database", &setup) else { return };
    set_up.cluster.fill_quota();
    let mut node = Node::start(set_up.options.clone());
    node.wants();
    is_named(&node.is_refused().1, ErrorKind::NoSpace, "compact, defragment and disarm");
    set_up.cluster.del("/havip-test-fill");
    let [commands] = blocks("A full database")[..] else { panic!("one block") };
    types(&set_up.cluster, version, &format!("unset ETCDCTL_USER\n{commands}"));
    node.writes(&set_up.cluster);
}

}

#[test]
fn a_nodes_status_is_as_the_guide_shows_it() {
    let (_, block) = GUIDE.split_once("```json\n").expect("it is there");
    let shown: Value = serde_json::from_str(before(block, "```")).expect("it is JSON");
    let written = serde_json::to_value(report(1)).expect("it is JSON");
    let names = |value: &Value| -> Vec<String> {
        value.as_object().expect("an object").keys().cloned().collect()
    };
    assert_eq!(names(&shown), names(&written));
    assert_eq!(names(&shown["routers"]["100"]), names(&written["routers"]["100"]));
    assert_eq!(shown["schema"], written["schema"]);
}
