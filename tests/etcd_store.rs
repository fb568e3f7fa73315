//! The store against a real etcd: what is read, what is written, and what happens when it goes
//! away.

#![cfg(feature = "etcd")]

#[macro_use]
#[path = "lab/cluster/mod.rs"]
mod cluster;
#[path = "lab/follower.rs"]
mod follower;
mod lab;

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, TcpListener};

use cluster::{Cluster, Setup};
use follower::{Follower, options, values};
use havip::linux::clock;
use havip::store::{ErrorKind, Guard, Options, StoreEvent, dump_prefix, import};
use lab::proxy::Proxy;
use lab::{LIMIT, wait};

fn pairs(list: &[(&str, &str)]) -> Vec<(String, String)> {
    list.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
}

const SEED: &[(&str, &str)] = &[
    ("/havip/virtual_routers/default/interface", "eth0"),
    ("/havip/virtual_routers/default/advert_interval", "1"),
    ("/havip/virtual_routers/100/vips", "10.0.0.3,10.0.0.4"),
    ("/havip/virtual_router/100/priority", "120"),
    ("/havip/virtual_routers/101/vips", "10.0.0.5"),
    ("/havip/virtual_routers/102/vips", "10.0.0.6"),
    ("/havip/binding/10.0.0.3/vrid", "100"),
    ("/havip/node/gw1/node_ip", "192.0.2.1"),
    ("/havip/node/gw1/vrids", "100,101"),
    ("/havip/node/gw2/vrids", "100,102"),
    ("/havip/vRouterGateway/100", "192.0.2.2,ff:ff:ff:ff:ff:ff"),
];

/// A single etcd.
fn start(test: &str, version: &'static str) -> Option<Cluster> {
    Cluster::start(test, &Setup::new(version))
}

/// Where nobody listens.
fn nowhere() -> String {
    format!("127.0.0.1:{}", cluster::free_port(Ipv4Addr::LOCALHOST.into()))
}

fn frozen(etcd: &mut Cluster, options: Options, kinds: &[ErrorKind]) {
    etcd.put("/havip/node/gw1/vrids", "100");
    let follower = Follower::with(options);
    follower.state();
    // A change that it hears of shows that its watches are open.
    etcd.put("/havip/node/gw1/node_ip", "192.0.2.1");
    follower.until(|now| now.contains_key("/havip/node/gw1/node_ip"));
    etcd.stop(0);
    let started = clock::now();
    let error = follower.lost();
    eprintln!("noticed after {:?}: {error}", clock::now().since(started));
    assert!(kinds.contains(&error.kind()), "{error}");
    etcd.cont(0);
    follower.connected();
    etcd.put("/havip/node/gw1/vrids", "101");
    follower.until(|now| now["/havip/node/gw1/vrids"] == "101");
}

with_each_version! {

fn a_node_follows_its_own_keys_of_the_seed(version: &'static str) {
    let Some(etcd) = start(module_path!(), version) else { return };
    for (key, value) in SEED {
        etcd.put(key, value);
    }
    let follower = Follower::of(&[etcd.endpoint(0)]);
    assert_eq!(follower.connected().to_string(), etcd.endpoint(0));
    let state = follower.state();
    let keys: Vec<_> = values(&state).into_keys().collect();
    assert_eq!(
        keys,
        [
            "/havip/node/gw1/node_ip",
            "/havip/node/gw1/vrids",
            "/havip/virtual_router/100/priority",
            "/havip/virtual_routers/100/vips",
            "/havip/virtual_routers/101/vips",
            "/havip/virtual_routers/default/advert_interval",
            "/havip/virtual_routers/default/interface",
        ]
    );
    assert!(state.cluster_id != 0 && state.revision >= 11);

    etcd.put("/havip/virtual_routers/101/vips", "10.0.0.7");
    let changed = follower.until(|now| now["/havip/virtual_routers/101/vips"] == "10.0.0.7");
    assert!(changed.revision > state.revision && changed.cluster_id == state.cluster_id);

    etcd.del("/havip/virtual_router/100/priority");
    follower.until(|now| !now.contains_key("/havip/virtual_router/100/priority"));

    // Another router, whose keys are there already: what is watched changes.
    etcd.put("/havip/node/gw1/vrids", "100,102\n");
    follower.until(|now| {
        now.contains_key("/havip/virtual_routers/102/vips")
            && !now.contains_key("/havip/virtual_routers/101/vips")
    });
    etcd.put("/havip/virtual_router/102/vips", "10.0.0.8");
    follower.until(|now| now.contains_key("/havip/virtual_router/102/vips"));

    // A router that only the local file lists.
    follower.demand(&[], &["101"]);
    follower.until(|now| now.contains_key("/havip/virtual_routers/101/vips"));
}

fn a_transaction_over_several_routers_is_never_seen_in_part(version: &'static str) {
    let Some(etcd) = start(module_path!(), version) else { return };
    let options = options(&[etcd.endpoint(0)]);
    let write = |round: u32| {
        let round = round.to_string();
        let pairs = pairs(&[
            ("/havip/node/gw1/vrids", "1,2,3"),
            ("/havip/virtual_router/1/priority", &round),
            ("/havip/virtual_routers/2/priority", &round),
            ("/havip/virtual_router/3/priority", &round),
            ("/havip/virtual_router/default/priority", &round),
        ]);
        smol::block_on(import(&options, &pairs, &[])).expect("it is written");
    };
    write(0);
    let follower = Follower::of(&[etcd.endpoint(0)]);
    follower.state();
    for round in 1..=100 {
        write(round);
    }
    follower.until(|now| {
        let rounds: Vec<_> =
            now.iter().filter(|(key, _)| key.ends_with("/priority")).map(|(_, v)| v).collect();
        assert!(rounds.len() == 4 && rounds.iter().all(|round| *round == rounds[0]), "{now:?}");
        *rounds[0] == "100"
    });
}

fn a_change_between_two_steps_of_reading_is_not_seen_in_part(version: &'static str) {
    let Some(etcd) = start(module_path!(), version) else { return };
    let direct = options(&[etcd.endpoint(0)]);
    let write = |round: &str| {
        let pairs = pairs(&[
            ("/havip/node/gw1/vrids", "100"),
            ("/havip/node/gw1/node_ip", "hold-here"),
            ("/havip/virtual_router/default/priority", round),
            ("/havip/virtual_router/100/priority", round),
        ]);
        smol::block_on(import(&direct, &pairs, &[])).expect("it is written")
    };
    write("0");
    let proxy = Proxy::before(etcd.address(0));
    for (round, before, compact) in [("1", "0", false), ("2", "2", true)] {
        proxy.hold_at("hold-here");
        let mut options = options(&[proxy.endpoint()]);
        options.call_timeout = LIMIT;
        let follower = Follower::with(options);
        // It knows its own keys and the defaults, and asks for its routers'.
        proxy.wait_held();
        let revision = write(round);
        if compact {
            assert_eq!(etcd.compact(), revision);
        }
        proxy.let_go();
        let both = |now: &BTreeMap<String, String>, value: &str| {
            let mut values = now.iter().filter(|(key, _)| key.ends_with("/priority"));
            values.all(|(_, found)| found == value)
        };
        let first = loop {
            match follower.next() {
                StoreEvent::State(state) => break values(&state),
                StoreEvent::Connected { .. } => {}
                event => panic!("{event:?}"),
            }
        };
        assert!(both(&first, before), "{first:?}");
        if before != round {
            follower.until(|now| both(now, round));
        }
    }
}

fn values_too_large_for_one_answer_are_read_in_smaller_ones(version: &'static str) {
    let Some(etcd) = start(module_path!(), version) else { return };
    let value = "x".repeat(1_000_000);
    for key in 0..24 {
        etcd.put_large(&format!("/havip/node/gw1/note/{key:02}"), &value);
    }
    etcd.put("/havip/node/gw1/vrids", "100");
    let dump = smol::block_on(dump_prefix(&options(&[etcd.endpoint(0)]), "/havip/")).unwrap();
    assert_eq!(dump.entries.len(), 25);
    assert!(dump.entries[..24].iter().all(|entry| entry.value == value.as_bytes()));
    let state = Follower::of(&[etcd.endpoint(0)]).state();
    assert_eq!(state.entries, dump.entries);
}

fn an_etcd_that_dies_and_returns_is_noticed_and_read_again(version: &'static str) {
    let Some(mut etcd) = start(module_path!(), version) else { return };
    etcd.put("/havip/node/gw1/vrids", "100");
    let follower = Follower::of(&[etcd.endpoint(0)]);
    let before = follower.state();
    etcd.kill(0);
    let error = follower.lost();
    assert!(matches!(error.kind(), ErrorKind::Closed | ErrorKind::Unreachable), "{error}");
    etcd.restart(0);
    follower.connected();
    let after = follower.state();
    assert_eq!(after.entries, before.entries);
    assert_eq!(after.cluster_id, before.cluster_id);
    etcd.put("/havip/node/gw1/vrids", "101");
    follower.until(|now| now["/havip/node/gw1/vrids"] == "101");
}

fn a_history_compacted_during_an_outage_is_no_loss(version: &'static str) {
    let Some(etcd) = start(module_path!(), version) else { return };
    etcd.put("/havip/node/gw1/vrids", "100");
    etcd.put("/havip/virtual_router/100/vips", "10.0.0.3");
    let proxy = Proxy::before(etcd.address(0));
    let follower = Follower::of(&[proxy.endpoint()]);
    follower.state();
    proxy.cut();
    follower.lost();
    for round in 0..10 {
        etcd.put("/havip/virtual_router/100/priority", &round.to_string());
    }
    etcd.del("/havip/virtual_router/100/vips");
    etcd.compact();
    proxy.mend();
    follower.until(|now| {
        now.get("/havip/virtual_router/100/priority").is_some_and(|value| value == "9")
            && !now.contains_key("/havip/virtual_router/100/vips")
    });
}

fn a_history_compacted_between_reading_and_watching_is_read_again(version: &'static str) {
    let Some(etcd) = start(module_path!(), version) else { return };
    etcd.put("/havip/node/gw1/vrids", "100");
    etcd.put("/havip/virtual_router/100/vips", "hold-here");
    let proxy = Proxy::before(etcd.address(0));
    proxy.hold_at("hold-here");
    let mut options = options(&[proxy.endpoint()]);
    options.call_timeout = LIMIT;
    options.probe_interval = LIMIT;
    let follower = Follower::with(options);
    // It has read everything, and its watches are under way.
    proxy.wait_held();
    for round in 0..5 {
        etcd.put("/havip/virtual_router/100/priority", &round.to_string());
    }
    etcd.del("/havip/virtual_router/100/vips");
    etcd.compact();
    proxy.let_go();
    loop {
        match follower.next() {
            StoreEvent::State(state) => {
                let now = values(&state);
                if now.contains_key("/havip/virtual_router/100/priority") {
                    assert!(!now.contains_key("/havip/virtual_router/100/vips"));
                    break;
                }
            }
            StoreEvent::Lost { error, .. } => panic!("the session ended: {error}"),
            _ => {}
        }
    }
    // And it watches again.
    etcd.put("/havip/virtual_router/100/priority", "200");
    follower.until(|now| now["/havip/virtual_router/100/priority"] == "200");
}

fn a_node_that_takes_over_a_thousand_routers_writes_few_revisions(version: &'static str) {
    const MANY: usize = 1000;
    let Some(etcd) = start(module_path!(), version) else { return };
    let keys: Vec<String> = (0..MANY).map(|n| format!("/havip/vRouterGateway/r{n}")).collect();
    let writes: Vec<(&str, &str)> = keys.iter().map(|key| (key.as_str(), "192.0.2.1,m")).collect();
    let before = etcd.revision();
    let follower = Follower::of(&[etcd.endpoint(0)]);
    follower.demand(&writes, &[]);
    wait("the keys are written", || etcd.dump("/havip/").len() == MANY);
    let revisions = etcd.revision() - before;
    assert!(revisions <= 20, "{revisions} revisions");
}

fn a_key_that_the_server_refuses_keeps_none_of_the_others_back(version: &'static str) {
    let Some(etcd) = start(module_path!(), version) else { return };
    etcd.put("/havip/node/gw1/vrids", "100");
    let follower = Follower::of(&[etcd.endpoint(0)]);
    follower.state();
    // Above the server's bound of a request.
    let huge = "x".repeat(1_600_000);
    follower.demand(
        &[("/havip/vRouterGateway/100", &huge), ("/havip/vRouterGateway/101", "fits")],
        &[],
    );
    loop {
        if let StoreEvent::WriteRefused { key, error } = follower.next() {
            assert_eq!(key, "/havip/vRouterGateway/100");
            assert_eq!(error.kind(), ErrorKind::TooLarge, "{error}");
            assert!(error.to_string().len() < 1000, "the value is not shown");
            break;
        }
    }
    wait("the other key is written", || {
        etcd.get("/havip/vRouterGateway/101").as_deref() == Some("fits")
    });
    // Reading goes on.
    etcd.put("/havip/node/gw1/vrids", "101");
    follower.until(|now| now["/havip/node/gw1/vrids"] == "101");
}

fn a_gateway_key_is_written_and_put_right_but_not_without_measure(version: &'static str) {
    const KEY: &str = "/havip/vRouterGateway/100";
    const OURS: &str = "192.0.2.1,02:00:00:00:00:01";
    let Some(etcd) = start(module_path!(), version) else { return };
    etcd.put("/havip/node/gw1/vrids", "100");
    let proxy = Proxy::before(etcd.address(0));
    let follower = Follower::of(&[proxy.endpoint()]);
    follower.state();
    let started = clock::now();
    let wait_for_ours = || wait("the key is ours", || etcd.get(KEY).as_deref() == Some(OURS));
    let version = || {
        let answer = etcd.json(&["get", KEY]);
        answer["kvs"][0]["version"].as_i64().expect("it is there")
    };
    follower.demand(&[(KEY, OURS)], &[]);
    wait_for_ours();
    etcd.del(KEY);
    wait_for_ours();
    let first = version();
    assert_eq!(first, 1, "it was created anew once");
    const FOREIGN: i64 = 20;
    for round in 0..FOREIGN {
        etcd.put(KEY, &format!("192.0.2.9,{round}"));
    }
    wait_for_ours();
    let version = version();
    let seconds = i64::try_from(clock::now().since(started).as_secs()).expect("a small number");
    assert!(version - first - FOREIGN <= seconds + 1, "{version} versions in {seconds} s");

    // While this node cannot hear it.
    proxy.cut();
    follower.lost();
    etcd.put(KEY, "192.0.2.9,offline");
    proxy.mend();
    wait_for_ours();

    // Not wanted any more: another's is left alone.
    follower.demand(&[], &[]);
    etcd.put(KEY, "192.0.2.9,other");
    etcd.put("/havip/node/gw1/node_ip", "192.0.2.1");
    follower.until(|now| now.contains_key("/havip/node/gw1/node_ip"));
    assert_eq!(etcd.get(KEY).as_deref(), Some("192.0.2.9,other"));
}

fn dead_and_mute_endpoints_do_not_keep_a_node_from_the_good_one(version: &'static str) {
    let Some(etcd) = start(module_path!(), version) else { return };
    etcd.put("/havip/node/gw1/vrids", "100");
    let mute = TcpListener::bind(("127.0.0.1", 0)).expect("a port is free");
    let mute = format!("127.0.0.1:{}", mute.local_addr().expect("it is bound").port());
    let dead = nowhere();
    let endpoints = [dead, mute, etcd.endpoint(0)];
    let follower = Follower::of(&endpoints);
    assert_eq!(follower.connected().to_string(), etcd.endpoint(0));
    follower.until(|now| now.contains_key("/havip/node/gw1/vrids"));
    let dump = smol::block_on(dump_prefix(&options(&endpoints), "/havip/")).expect("it is read");
    assert_eq!(dump.entries.len(), 1);
}

fn a_frozen_etcd_is_noticed_and_found_again(version: &'static str) {
    let Some(mut etcd) = start(module_path!(), version) else { return };
    let options = options(&[etcd.endpoint(0)]);
    frozen(&mut etcd, options, &[ErrorKind::TimedOut]);
}

fn a_watch_that_is_forgotten_while_all_else_is_answered_is_noticed(version: &'static str) {
    let Some(etcd) = start(module_path!(), version) else { return };
    etcd.put("/havip/node/gw1/vrids", "100");
    let proxy = Proxy::before(etcd.address(0));
    proxy.mute_at("from-now-on");
    let follower = Follower::of(&[proxy.endpoint()]);
    follower.state();
    etcd.put("/havip/node/gw1/node_ip", "192.0.2.1");
    follower.until(|now| now.contains_key("/havip/node/gw1/node_ip"));
    etcd.put("/havip/node/gw1/node_ip", "from-now-on");
    let started = clock::now();
    let error = follower.lost();
    eprintln!("noticed after {:?}: {error}", clock::now().since(started));
    assert_eq!(error.kind(), ErrorKind::TimedOut, "{error}");
    follower.until(|now| now["/havip/node/gw1/node_ip"] == "from-now-on");
}

fn a_frozen_etcd_is_noticed_by_pings_where_nothing_else_asks(version: &'static str) {
    let Some(mut etcd) = start(module_path!(), version) else { return };
    let mut options = options(&[etcd.endpoint(0)]);
    options.probe_interval = LIMIT * 2;
    frozen(&mut etcd, options, &[ErrorKind::Closed]);
}

fn ten_thousand_keys_of_others_do_not_reach_a_node(version: &'static str) {
    let Some(etcd) = start(module_path!(), version) else { return };
    etcd.put("/havip/node/gw1/vrids", "100");
    let proxy = Proxy::before(etcd.address(0));
    let follower = Follower::of(&[proxy.endpoint()]);
    follower.state();
    // A state that follows shows that everything before it was delivered.
    etcd.put("/havip/node/gw1/node_ip", "192.0.2.1");
    follower.until(|now| now.contains_key("/havip/node/gw1/node_ip"));
    let before = proxy.received();
    let direct = options(&[etcd.endpoint(0)]);
    for hundred in 0..100 {
        let keys: Vec<_> = (0..100)
            .map(|one| {
                let key = match one % 4 {
                    0 => format!("/havip/virtual_router/{hundred}0{one}/vips"),
                    1 => format!("/havip/node/gw1{hundred}-{one}/vrids"),
                    2 => format!("/havip/vRouterGateway/{hundred}0{one}"),
                    _ => format!("/havip/binding/10.0.{hundred}.{one}/vrid"),
                };
                (key, "x".repeat(50))
            })
            .collect();
        smol::block_on(import(&direct, &keys, &[])).expect("it is written");
    }
    etcd.put("/havip/node/gw1/node_ip", "192.0.2.2");
    follower.until(|now| now["/havip/node/gw1/node_ip"] == "192.0.2.2");
    let bytes = proxy.received() - before;
    eprintln!("{bytes} bytes were received meanwhile");
    // 10,000 events would be above a megabyte.
    assert!(bytes < 50_000, "{bytes} bytes");
}

fn more_routers_and_keys_than_fit_one_transaction_or_page_are_read_whole(version: &'static str) {
    let Some(etcd) = start(module_path!(), version) else { return };
    let direct = options(&[etcd.endpoint(0)]);
    for count in [90_usize, 150] {
        let names: Vec<String> = (0..count).map(|n| format!("r{n}")).collect();
        for name in &names {
            let keys: Vec<_> = (0..20)
                .map(|n| (format!("/havip/virtual_router/{name}/key{n}"), n.to_string()))
                .collect();
            smol::block_on(import(&direct, &keys, &[])).expect("it is written");
        }
        etcd.put("/havip/node/gw1/vrids", &names.join(","));
        let follower = Follower::of(&[etcd.endpoint(0)]);
        assert_eq!(follower.state().entries.len(), count * 20 + 1);
        let last = format!("/havip/virtual_router/r{}/key0", count - 1);
        etcd.put(&last, "changed");
        follower.until(|now| now[&last] == "changed");
    }
    let dump = smol::block_on(dump_prefix(&direct, "/havip/")).expect("it is read");
    assert_eq!(dump.entries.len(), 150 * 20 + 1);
    assert!(dump.entries.is_sorted_by(|a, b| a.key < b.key));
}

fn an_import_is_one_revision_or_nothing(version: &'static str) {
    let Some(etcd) = start(module_path!(), version) else { return };
    let options = options(&[etcd.endpoint(0)]);
    let absent = [Guard::Absent { key: "/havip/node/gw1/vrids".to_owned() }];
    let revision = smol::block_on(import(&options, &pairs(SEED), &absent)).expect("it is written");
    let dump = smol::block_on(dump_prefix(&options, "/havip/")).expect("it is read");
    assert_eq!(dump.revision, revision);
    assert_eq!(dump.entries.len(), SEED.len());
    assert!(dump.entries.iter().all(|entry| entry.mod_revision == revision));

    let error = smol::block_on(import(&options, &pairs(SEED), &absent)).expect_err("it is there");
    assert_eq!(error.kind(), ErrorKind::GuardFailed);
    assert!(error.to_string().contains("/havip/node/gw1/vrids is there already"), "{error}");

    let key = "/havip/node/gw1/vrids".to_owned();
    let unchanged = [Guard::Unchanged { key: key.clone(), mod_revision: revision }];
    let next = smol::block_on(import(&options, &[(key, "7".to_owned())], &unchanged));
    assert_eq!(next.expect("nobody changed it"), revision + 1);
    let error = smol::block_on(import(&options, &pairs(SEED), &unchanged)).expect_err("changed");
    assert!(error.to_string().contains("/havip/node/gw1/vrids was changed"), "{error}");

    let many: Vec<_> = (0..129).map(|n| (format!("/havip/x/{n}"), String::new())).collect();
    let error = smol::block_on(import(&options, &many, &[])).expect_err("too many");
    assert_eq!(error.kind(), ErrorKind::TooManyOperations, "{error}");
    assert!(error.to_string().contains("129 keys"), "{error}");
    assert!(error.to_string().contains("--max-txn-ops"), "{error}");
}

fn an_etcd_that_wants_a_user_says_so(version: &'static str) {
    let Some(mut etcd) = start(module_path!(), version) else { return };
    etcd.enable_auth();
    let follower = Follower::of(&[etcd.endpoint(0)]);
    let error = follower.lost();
    assert_eq!(error.kind(), ErrorKind::AuthRequired, "{error}");
    let dumped = smol::block_on(dump_prefix(&options(&[etcd.endpoint(0)]), "/havip/"));
    assert_eq!(dumped.expect_err("no user").kind(), ErrorKind::AuthRequired);
}

}

#[test]
fn what_is_not_etcd_is_refused_and_not_waited_for_for_ever() {
    // Answers http/1.1 to everything, as a web server on a mistyped port does.
    let listener = TcpListener::bind(("127.0.0.1", 0)).expect("a port is free");
    let port = listener.local_addr().expect("it is bound").port();
    std::thread::spawn(move || {
        for mut client in listener.incoming().flatten() {
            let _ = std::io::Write::write_all(&mut client, b"HTTP/1.1 400 Bad Request\r\n\r\n");
        }
    });
    let follower = Follower::of(&[format!("localhost:{port}")]);
    let error = follower.lost();
    assert!(
        matches!(error.kind(), ErrorKind::Closed | ErrorKind::Protocol),
        "{:?}: {error}",
        error.kind()
    );
    assert!(error.to_string().contains(&port.to_string()), "{error}");
}

#[test]
fn a_session_ends_when_nobody_wants_it() {
    let mut follower = Follower::of(&[nowhere()]);
    follower.lost();
    follower.demands = None;
    follower.thread.take().expect("it runs").join().expect("it does not panic");
    follower.thread = Some(std::thread::spawn(|| ()));
}
