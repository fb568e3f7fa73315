//! Each set-up, with each version: a node reads, watches and writes, goes on when its token has
//! ended, and comes back when the server was restarted. A line of times is printed for each
//! (`--nocapture`); they include those of etcdctl, by which the test changes and looks.

use havip::linux::clock;

use crate::cluster::Cluster;
use crate::gateway;
use crate::lab::{LIMIT, holds_within};
use crate::node::{Node, SEED};
use crate::setup::{self, PASSWORD, SetUp};

/// How the test knows that a node's token has ended.
#[derive(Clone, Copy)]
enum Tokens {
    /// There is none.
    None,
    /// The server says so.
    Simple,
    /// A younger one is refused.
    Jwt,
}

macro_rules! table {
    ($($name:ident: $tokens:ident,)*) => {
        with_each_version! {
            $(fn $name(version: &'static str) {
                if let Some(set_up) = setup::$name(version) {
                    walk(stringify!($name), version, set_up, Tokens::$tokens);
                }
            })*
        }
    };
}

table! {
    http: None,
    https: None,
    ip_addresses_alone: None,
    server_name: None,
    auto_tls: None,
    client_certificate: None,
    server_pair_for_clients: None,
    password: Simple,
    password_and_jwt: Jwt,
    certificate_user: None,
}

fn walk(name: &str, version: &str, set_up: SetUp, tokens: Tokens) {
    let SetUp { mut cluster, options } = set_up;
    for (key, value) in SEED {
        cluster.put(key, value);
    }
    let mut times = Vec::new();
    let mut timed = |step: &mut dyn FnMut()| {
        let begin = clock::now();
        step();
        times.push(clock::now().since(begin).as_millis().to_string());
    };
    let begin = clock::now();
    let mut node = Node::start(options);
    node.reads_first();
    let first = clock::now().since(begin).as_millis();
    timed(&mut || node.hears_a_change(&cluster));
    timed(&mut || node.writes(&cluster));
    let has_token = !matches!(tokens, Tokens::None);
    if has_token {
        wait_for_end(&cluster, tokens);
        timed(&mut || {
            node.hears_a_change(&cluster);
            node.writes(&cluster);
        });
        node.is_undisturbed();
    }
    cluster.restart(0);
    timed(&mut || {
        node.hears_a_change_at_last(&cluster);
        node.writes(&cluster);
    });
    if !has_token {
        times.insert(2, "-".to_owned());
    }
    let [change, write, token, restart] = &times[..] else { panic!("four steps") };
    println!(
        "set-up {name:<24} etcd {version}  read {first:>5}  change {change:>5}  write {write:>5}  \
         after token {token:>5}  after restart {restart:>5}  ms"
    );
}

/// Waits until every token that gw1 has got so far has ended.
fn wait_for_end(cluster: &Cluster, tokens: Tokens) {
    match tokens {
        Tokens::None => {}
        Tokens::Simple => {
            // To ask with it would lengthen its life; the log says when it is thrown away.
            let thrown_away = || {
                let log = cluster.log(0);
                let lines = log.lines().filter(|line| line.contains("deleted a simple token"));
                lines.filter(|line| line.contains("\"gw1\"")).count()
            };
            let before = thrown_away();
            assert!(holds_within(LIMIT, || thrown_away() > before), "{}", cluster.log(0));
        }
        Tokens::Jwt => {
            let younger = gateway::token(cluster, "gw1", PASSWORD);
            assert!(gateway::takes(cluster, &younger), "it is new");
            assert!(holds_within(LIMIT, || !gateway::takes(cluster, &younger)), "it ends");
        }
    }
}
