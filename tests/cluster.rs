//! Clusters started by `packaging/etcd/havip-etcd`, and what tests do to them.

#![cfg(feature = "etcd")]

#[macro_use]
#[path = "lab/cluster/mod.rs"]
mod cluster;
mod lab;

use std::fs;
use std::net::Ipv6Addr;
use std::os::unix::fs::PermissionsExt as _;
use std::process::Command;

use cluster::certs::{Authority, Leaf};
use cluster::ctl::ROOT_PASSWORD;
use cluster::{Cluster, LAUNCHER, LIMIT, Setup, Tls, Token, holds_within};

/// Elections of a third of a second.
fn quick(version: &'static str) -> Setup {
    let extra = ["--heartbeat-interval=30", "--election-timeout=300"].map(str::to_owned);
    Setup { extra: extra.into(), ..Setup::new(version) }
}

with_each_version! {

fn a_single_one_keeps_its_data(version: &'static str) {
    let Some(mut cluster) = Cluster::start("a single one", &quick(version)) else { return };
    cluster.put("/havip/a", "1\n");
    cluster.put("/havip/b", "");
    cluster.put("/other", "x");
    assert_eq!(cluster.get("/havip/a").as_deref(), Some("1\n"));
    assert_eq!(cluster.get("/havip/b").as_deref(), Some(""));
    cluster.restart(0);
    let dump: Vec<_> = cluster.dump("/havip/").into_iter().collect();
    let expected = [("/havip/a", "1\n"), ("/havip/b", "")];
    assert_eq!(dump, expected.map(|(key, value)| (key.to_owned(), value.to_owned())));
    cluster.del("/havip/a");
    assert_eq!(cluster.get("/havip/a"), None);
    assert_eq!(cluster.revision(), 5);
    cluster.kill(0);
    cluster.restart(0);
    assert_eq!(cluster.compact(), 5);
    let old = cluster.ctl(&["get", "--rev=2", "/havip/a"]).unwrap_err();
    assert!(old.contains("has been compacted"), "{old}");
}

fn each_kind_of_tls_serves_a_cluster(version: &'static str) {
    for tls in [Tls::None, Tls::Auto, Tls::Server, Tls::Clients, Tls::Peers, Tls::Mutual] {
        let setup = Setup { members: 2, tls, ..quick(version) };
        let Some(cluster) = Cluster::start("each kind of TLS", &setup) else { return };
        cluster.put("a", "1");
        assert_eq!(cluster.get("a").as_deref(), Some("1"), "{tls:?}");
    }
}

fn clients_and_servers_are_verified(version: &'static str) {
    let setup = Setup { tls: Tls::Mutual, ..quick(version) };
    let Some(cluster) = Cluster::start("clients and servers", &setup) else { return };
    let (keys, ours, other) = (cluster.client_keys(), cluster.authority(), Authority::new());
    let get = || cluster.ctl(&["get", "a"]);
    // The client goes on trying; of version 3.4 it does not say why.
    let refused = |why: &str| {
        let why = if version == "3.4" { "TransientFailure" } else { why };
        let get = || cluster.ctl(&["--command-timeout=300ms", "get", "a"]);
        let refused = holds_within(LIMIT, || get().is_err_and(|said| said.contains(why)));
        assert!(refused, "no {why} in {:?}", get());
    };
    get().unwrap();
    other.write_leaf(&keys, "client", &Leaf::default());
    refused("unknown certificate authority");
    ours.write_leaf(&keys, "client", &Leaf::default());
    get().unwrap();
    // The server reads its own with each connection.
    for (bad, why) in [
        (Leaf::server().expired(), "expired or is not yet valid"),
        (Leaf::server().not_yet(), "expired or is not yet valid"),
        (Leaf::named("etcd.test"), "any IP SANs"),
        (Leaf::common_name("127.0.0.1"), "legacy Common Name"),
    ] {
        ours.write_leaf(&cluster.keys(), "server", &bad);
        refused(why);
    }
    other.write_leaf(&cluster.keys(), "server", &Leaf::server());
    refused("unknown authority");
    ours.write_leaf(&cluster.keys(), "server", &Leaf::server());
    get().unwrap();
}

fn it_is_served_by_ipv6(version: &'static str) {
    let address = Ipv6Addr::LOCALHOST.into();
    let setup = Setup { tls: Tls::Mutual, members: 3, partitions: true, address, ..quick(version) };
    let Some(mut cluster) = Cluster::start("IPv6", &setup) else { return };
    assert!(cluster.endpoint(0).starts_with("https://[::1]:"));
    let old = cluster.leader();
    cluster.partition(old);
    assert_ne!(cluster.leader(), old);
    cluster.put("a", "1");
}

fn users_may_do_what_they_are_granted(version: &'static str) {
    let setup = Setup {
        tls: Tls::Mutual,
        token: Some(Token::Simple { ttl: 10 }),
        ..quick(version)
    };
    let Some(mut cluster) = Cluster::start("users", &setup) else { return };
    cluster.put("/havip/a", "1");
    cluster.enable_auth();
    cluster.add_user("reader", Some("secret"), &[("read", "/havip/", true)]);
    cluster.add_user("gw1", None, &[("readwrite", "/havip/a", false)]);
    let read = |password| cluster.ctl_as("reader", password, &["get", "/havip/a"]);
    assert!(read("secret").unwrap().contains("/havip/a\n1"));
    let wrong = read("wrong").unwrap_err();
    assert!(wrong.contains("authentication failed"), "{wrong}");
    cluster.ctl_as("reader", "secret", &["put", "/havip/a", "2"]).unwrap_err();
    cluster.revoke("reader", "/havip/", true);
    assert!(read("secret").unwrap_err().contains("permission denied"));
    cluster.grant("reader", ("read", "/havip/a", false));
    cluster.set_password("reader", "other");
    read("other").unwrap();
    // By its certificate alone, which every command brings when no user is named.
    cluster.authority().write_leaf(&cluster.client_keys(), "client", &Leaf::common_name("gw1"));
    cluster.ctl_without_user(&["put", "/havip/a", "3"]).unwrap();
    cluster.ctl_without_user(&["get", "/havip/b"]).unwrap_err();
    assert_eq!(cluster.get("/havip/a").as_deref(), Some("3"));
    cluster.remove_user("gw1");
    cluster.ctl_without_user(&["get", "/havip/a"]).unwrap_err();
    cluster.disable_auth();
    cluster.ctl_without_user(&["get", "/havip/a"]).unwrap();
}

fn tokens_may_be_signed(version: &'static str) {
    let setup = Setup { token: Some(Token::Jwt { ttl: 10 }), ..quick(version) };
    let Some(mut cluster) = Cluster::start("signed tokens", &setup) else { return };
    cluster.enable_auth();
    cluster.ctl_as("root", ROOT_PASSWORD, &["put", "a", "1"]).unwrap();
    cluster.ctl_without_user(&["get", "a"]).unwrap_err();
}

fn members_come_and_go(version: &'static str) {
    let setup = Setup { members: 3, ..quick(version) };
    let Some(mut cluster) = Cluster::start("members come and go", &setup) else { return };
    let first = cluster.leader();
    cluster.stop(first);
    let second = cluster.leader();
    assert_ne!(first, second);
    cluster.put("a", "1");
    cluster.cont(first);
    cluster.wait_healthy();
    cluster.move_leader(first);
    cluster.kill(first);
    // What is written before there is another leader waits for five seconds and is lost.
    cluster.leader();
    cluster.put("a", "2");
    cluster.restart(first);
    let value = cluster.ctl_at(first, &["get", "--print-value-only", "a"]);
    assert_eq!(value.as_deref(), Ok("2\n"));
    // Without a majority there is neither writing nor reading, but what a member has is there.
    let (one, other) = ((first + 1) % 3, (first + 2) % 3);
    cluster.terminate(one);
    cluster.kill(other);
    assert!(holds_within(LIMIT, || !cluster.healthy(first)));
    cluster.ctl(&["--command-timeout=1s", "get", "a"]).unwrap_err();
    cluster.ctl(&["get", "--consistency=s", "a"]).unwrap();
    cluster.spawn(one);
    cluster.restart(other);
    assert_eq!(cluster.endpoints().len(), 3);
}

fn a_member_is_cut_off(version: &'static str) {
    let setup = Setup { members: 3, partitions: true, tls: Tls::Mutual, ..quick(version) };
    let Some(mut cluster) = Cluster::start("a member is cut off", &setup) else { return };
    let old = cluster.leader();
    cluster.put("a", "1");
    cluster.partition(old);
    assert_ne!(cluster.leader(), old);
    cluster.put("a", "2");
    assert!(holds_within(LIMIT, || !cluster.healthy(old)));
    let stale = cluster.ctl_at(old, &["get", "--consistency=s", "--print-value-only", "a"]);
    assert_eq!(stale.as_deref(), Ok("1\n"));
    cluster.ctl_at(old, &["--command-timeout=1s", "get", "a"]).unwrap_err();
    cluster.join(old);
    cluster.wait_healthy();
    let value = cluster.ctl_at(old, &["get", "--print-value-only", "a"]);
    assert_eq!(value.as_deref(), Ok("2\n"));
}

fn a_snapshot_is_restored(version: &'static str) {
    let setup = Setup { members: 3, ..quick(version) };
    let Some(mut cluster) = Cluster::start("a snapshot", &setup) else { return };
    cluster.put("a", "1");
    let (snapshot, id) = (cluster.snapshot("snapshot"), cluster.id());
    cluster.put("a", "2");
    cluster.put("a", "3");
    cluster.restore(&snapshot, None);
    assert_eq!((cluster.get("a").as_deref(), cluster.revision()), (Some("1"), 2));
    assert_eq!(cluster.id(), id);
    cluster.restore(&snapshot, Some("token-02"));
    assert_eq!(cluster.get("a").as_deref(), Some("1"));
    assert_ne!(cluster.id(), id);
}

fn a_full_store_takes_no_more(version: &'static str) {
    let mut setup = quick(version);
    setup.extra.push("--quota-backend-bytes=4194304".to_owned());
    let Some(cluster) = Cluster::start("a full store", &setup) else { return };
    cluster.fill_quota();
    let full = cluster.ctl(&["put", "a", "1"]).unwrap_err();
    assert!(full.contains("database space exceeded"), "{full}");
    cluster.disarm();
    cluster.put("a", "1");
}

}

/// Runs the launcher with `--print`: the command line, or what is wrong.
fn print(variables: &[(&str, &str)], arguments: &[&str]) -> Result<String, String> {
    let mut launcher = Command::new(LAUNCHER);
    launcher.env_clear().env("PATH", std::env::var_os("PATH").unwrap());
    launcher.env("ETCD_BIN", "true").env("KEY_DIR", "/nonexistent");
    launcher.envs(variables.iter().copied());
    let output = launcher.arg("--print").args(arguments).output().unwrap();
    if output.status.success() {
        return Ok(String::from_utf8(output.stdout).unwrap());
    }
    assert_eq!(output.status.code(), Some(78));
    Err(String::from_utf8(output.stderr).unwrap())
}

#[test]
fn the_launcher_prints_the_command_line() {
    let said = print(
        &[
            ("CLUSTER", "127.0.0.1:2381, 127.0.0.1:2382,[::1]:2383"),
            ("MEMBER", "etcd-2"),
            ("ETCD_PORT", "2392"),
            ("ETCD_TOKEN", "blue"),
            ("ETCD_COUNT", "10000"),
            ("CLUSTER_STATE", "existing"),
            ("ETCD_DATA_DIR", "/srv/etcd"),
            ("AUTO_TLS", "Y"),
        ],
        &["--quota-backend-bytes=1"],
    );
    let expected = "true --name=etcd-2 --data-dir=/srv/etcd \
        --listen-client-urls=https://127.0.0.1:2392 --advertise-client-urls=https://127.0.0.1:2392 \
        --listen-peer-urls=https://127.0.0.1:2382 \
        --initial-advertise-peer-urls=https://127.0.0.1:2382 \
        --initial-cluster=etcd-1=https://127.0.0.1:2381,etcd-2=https://127.0.0.1:2382,\
        etcd-3=https://[::1]:2383 --initial-cluster-state=existing --initial-cluster-token=blue \
        --auto-tls --peer-auto-tls --snapshot-count=10000 --quota-backend-bytes=1\n";
    // Quoted for a shell.
    assert_eq!(said.unwrap().replace('\\', ""), expected);
    let said = print(&[("LISTEN", "127.0.0.1")], &[]).unwrap();
    assert!(
        said.contains("--data-dir=/var/lib/havip-etcd --listen-client-urls=http://127.0.0.1:2379")
    );
}

#[test]
fn the_launcher_takes_variables_away_that_etcd_would_stumble_over() {
    let folder = std::env::temp_dir().join(format!("havip-stub-{}", std::process::id()));
    fs::create_dir_all(&folder).unwrap();
    let stub = folder.join("etcd");
    fs::write(&stub, "#!/bin/sh\necho \"$@\"\nenv\n").unwrap();
    fs::set_permissions(&stub, fs::Permissions::from_mode(0o755)).unwrap();
    let output = Command::new(LAUNCHER)
        .env_clear()
        .env("PATH", std::env::var_os("PATH").unwrap())
        .env("ETCD_BIN", &stub)
        .env("ETCD_DATA_DIR", folder.join("a/data"))
        .envs([("ETCD_NAME", "here"), ("ETCD_PORT", "1234"), ("ETCD_TOKEN", "t")])
        .envs([("ETCD_LISTEN_CLIENT_URLS", "http://0.0.0.0:1"), ("ETCD_MAX_TXN_OPS", "1")])
        .envs([("ETCD_QUOTA_BACKEND_BYTES", "1"), ("LISTEN", "127.0.0.1"), ("KEY_DIR", "/none")])
        .arg("--max-txn-ops=2")
        .output()
        .unwrap();
    let (out, wrong) = (String::from_utf8(output.stdout), String::from_utf8(output.stderr));
    let (out, wrong) = (out.unwrap(), wrong.unwrap());
    assert!(out.starts_with("--name=here --data-dir="), "{out}{wrong}");
    let left: Vec<_> = out.lines().filter(|line| line.starts_with("ETCD_")).collect();
    assert_eq!(left, ["ETCD_QUOTA_BACKEND_BYTES=1"]);
    assert!(wrong.contains("ETCD_LISTEN_CLIENT_URLS is not used: --listen-client-urls is given"));
    assert!(wrong.contains("ETCD_MAX_TXN_OPS is not used"));
    assert_eq!(wrong.lines().count(), 3, "{wrong}");
    let mode = fs::metadata(folder.join("a/data")).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o700);
    fs::remove_dir_all(&folder).unwrap();
}

#[test]
fn the_launcher_says_what_is_wrong() {
    let folder = std::env::temp_dir().join(format!("havip-launcher-{}", std::process::id()));
    fs::create_dir_all(&folder).unwrap();
    let authority = Authority::new();
    let (certificate, key) = authority.write_leaf(&folder, "server", &Leaf::server());
    let keys = ("KEY_DIR", folder.to_str().unwrap());
    print(&[keys], &[]).unwrap();

    let wrong = |variables: &[(&str, &str)], expected: &[&str]| {
        let said = print(variables, &[]).unwrap_err();
        for expected in expected {
            assert!(said.contains(expected), "no {expected:?} in {said:?}");
        }
    };
    fs::set_permissions(&key, fs::Permissions::from_mode(0o644)).unwrap();
    wrong(&[keys], &["server.key", "chmod o= "]);
    fs::remove_file(&key).unwrap();
    wrong(&[keys], &["server.crt: its key", "is missing: put it there, or remove server.crt"]);
    authority.write_leaf(&folder, "server", &Leaf::server());
    fs::remove_file(&certificate).unwrap();
    wrong(&[keys], &["server.key: its certificate"]);
    fs::remove_file(&key).unwrap();
    authority.write(&folder);
    wrong(&[keys], &["ca.crt: alone it protects nothing"]);
    fs::remove_file(folder.join("ca.crt")).unwrap();
    authority.write_leaf(&folder, "peer", &Leaf::server());
    wrong(&[keys], &["peer.crt", "ca.crt is missing"]);
    fs::remove_dir_all(&folder).unwrap();

    let two = ("CLUSTER", "127.0.0.1:2381,127.0.0.1:2382");
    wrong(&[two], &["several entries (1 2)", "MEMBER=1"]);
    wrong(&[two, ("MEMBER", "3")], &["MEMBER: there is no \"3\"", "etcd-1 to etcd-2"]);
    wrong(&[two, ("ETCD_NAME", "here")], &["ETCD_NAME: there is no \"here\""]);
    wrong(&[("MEMBER", "1")], &["MEMBER", "set CLUSTER"]);
    wrong(&[("CLUSTER", "203.0.113.1:2380")], &["no entry of 203.0.113.1:2380 has an IP of this"]);
    for malformed in ["127.0.0.1", "127.0.0.1:", "127.0.0.1:99999", "host:2380", "127.0.0.1:2380,"]
    {
        wrong(&[("CLUSTER", malformed)], &["CLUSTER: entry ", "write IP:PEERPORT"]);
    }
    wrong(&[("CLUSTER", "127.0.0.1:1,127.0.0.1:1")], &["entries 1 and 2 are both 127.0.0.1:1"]);
    wrong(&[("CLUSTER_STATE", "old")], &["CLUSTER_STATE", "new or existing"]);
    wrong(&[("ETCD_PORT", "x")], &["ETCD_PORT: \"x\" is no port"]);
    wrong(&[("ETCD_COUNT", "many")], &["ETCD_COUNT"]);
    wrong(&[("LISTEN", "eth0")], &["LISTEN: \"eth0\" is no IP"]);
    wrong(&[("LISTEN_PEER", "127.0.0.1")], &["LISTEN_PEER"]);
    wrong(&[("ETCD_BIN", "no-such-etcd")], &["ETCD_BIN: there is no program no-such-etcd"]);
    wrong(&[("ETCD_CONFIG_FILE", "/etc/etcd.yml")], &["ETCD_CONFIG_FILE"]);
}
