//! What a node writes into a real etcd: over what, under what lease, and in whose name. And that
//! a watch which has nothing to say is known to live.

#![cfg(feature = "etcd")]

#[macro_use]
#[path = "lab/cluster/mod.rs"]
mod cluster;
#[path = "lab/follower.rs"]
mod follower;
mod lab;

use std::collections::BTreeMap;
use std::sync::atomic::Ordering;
use std::time::Duration;

use cluster::{Cluster, Setup};
use follower::{Follower, options};
use havip::store::report::{Report, ReportedRouter, SCHEMA};
use havip::store::{Demand, StoreEvent};
use lab::proxy::Proxy;
use lab::{LIMIT, wait};
use serde_json::Value;

const KEY: &str = "/havip/vRouterGateway/100";
const STATUS: &str = "/havip/status/gw1";

fn start(version: &'static str) -> Option<Cluster> {
    let cluster = Cluster::start(module_path!(), &Setup::new(version))?;
    cluster.put("/havip/node/gw1/vrids", "100");
    cluster.put("/havip/virtual_router/100/vips", "10.0.0.3");
    Some(cluster)
}

fn report(mac: &str, state: &'static str) -> Report {
    let router = ReportedRouter { state, since: 7 };
    Report {
        schema: SCHEMA,
        node: "gw1".to_owned(),
        version: "0.0.0",
        started: 5,
        macs: vec![mac.to_owned()],
        node_ip: Some("192.0.2.1".to_owned()),
        source: "etcd",
        revision: 3,
        routers: BTreeMap::from([("100".to_owned(), router)]),
    }
}

fn says(mac: &str, state: &'static str) -> Demand {
    Demand { report: Some(report(mac, state)), ..Demand::default() }
}

/// What stands at the status key, and its lease.
fn status(cluster: &Cluster) -> Option<(Value, i64)> {
    let said = cluster.ctl(&["get", STATUS, "-w", "json"]).expect("it is read");
    let said: Value = serde_json::from_str(&said).expect("JSON");
    let lease = said["kvs"][0]["lease"].as_i64().unwrap_or(0);
    let text = cluster.get(STATUS)?;
    Some((serde_json::from_str(&text).expect("JSON"), lease))
}

with_each_version! {

fn a_word_that_was_held_up_does_not_undo_a_successors(version: &'static str) {
    let extra = ["--heartbeat-interval=30", "--election-timeout=300"].map(str::to_owned);
    let setup = Setup { members: 3, extra: extra.into(), ..Setup::new(version) };
    let Some(mut cluster) = Cluster::start(module_path!(), &setup) else { return };
    cluster.put("/havip/node/gw1/vrids", "100");
    cluster.put(KEY, "predecessor");
    let slow = cluster.follower();
    let proxy = Proxy::before(cluster.address(slow));
    let mut options = options(&[proxy.endpoint()]);
    options.call_timeout = LIMIT;
    options.probe_interval = LIMIT;
    let follower = Follower::with(options);
    follower.state();
    // Its own keys, the defaults and its router's in both spellings, two outputs.
    wait("all its watches are open", || {
        cluster.metric(slow, "etcd_debugging_mvcc_watcher_total") >= Some(7.0)
    });
    // It is active, says so to a member that is slow, and is active no more.
    cluster.stop(slow);
    follower.demand(&[(KEY, "late")], &[]);
    proxy.wait_said("late");
    follower.demand(&[], &[]);
    cluster.put(KEY, "successor");
    cluster.cont(slow);
    // What is said after it is heard after it.
    cluster.put("/havip/virtual_router/100/interface", "eth0");
    follower.until(|now| now.contains_key("/havip/virtual_router/100/interface"));
    assert_eq!(cluster.get(KEY).as_deref(), Some("successor"));
    // And one that is active is heard in the end.
    follower.demand(&[(KEY, "now")], &[]);
    wait("it is written", || cluster.get(KEY).as_deref() == Some("now"));
}

fn a_node_says_that_it_lives_under_a_lease_and_takes_it_back_when_it_goes(
    version: &'static str
) {
    let Some(cluster) = start(version) else { return };
    let follower = Follower::of(&[cluster.endpoint(0)]);
    follower.want(says("00:11:22:33:44:55", "backup"));
    wait("it says so", || status(&cluster).is_some());
    let (text, lease) = status(&cluster).expect("it is there");
    assert_ne!(lease, 0);
    assert_eq!(text["schema"], 1);
    assert_eq!(text["routers"]["100"]["state"], "backup");
    follower.want(says("00:11:22:33:44:55", "active"));
    wait("a change shows", || {
        status(&cluster).is_some_and(|(text, _)| text["routers"]["100"]["state"] == "active")
    });
    assert_eq!(status(&cluster).expect("it is there").1, lease, "the same lease");
    // Whoever overwrites it does not make it live for ever.
    cluster.put(STATUS, "{}");
    wait("it is put right", || status(&cluster).is_some_and(|(_, now)| now == lease));
    cluster.ctl(&["lease", "revoke", &format!("{lease:x}")]).expect("it is revoked");
    wait("under another lease", || {
        status(&cluster).is_some_and(|(_, now)| now != lease && now != 0)
    });
    follower.want(Demand::default());
    loop {
        if matches!(follower.next(), StoreEvent::Gone) {
            break;
        }
    }
    assert!(status(&cluster).is_none());
}

fn a_name_belongs_to_the_box_that_lives_under_it(version: &'static str) {
    let Some(cluster) = start(version) else { return };
    let first = Follower::of(&[cluster.endpoint(0)]);
    first.want(says("00:11:22:33:44:55", "active"));
    wait("the first says so", || status(&cluster).is_some());
    let (_, lease) = status(&cluster).expect("it is there");
    let second = Follower::of(&[cluster.endpoint(0)]);
    second.want(says("00:99:22:33:44:66", "backup"));
    let rival = loop {
        if let Some(rival) = second.state().rival {
            break rival;
        }
    };
    assert!(rival.contains("00:11:22:33:44:55") && rival.contains("192.0.2.1"), "{rival}");
    // The same box, started anew, is no stranger.
    let again = Follower::of(&[cluster.endpoint(0)]);
    again.want(says("00:11:22:33:44:55", "backup"));
    assert_eq!(again.state().rival, None);
    wait("it takes over its own name", || {
        status(&cluster).is_some_and(|(text, now)| {
            now != lease && text["routers"]["100"]["state"] == "backup"
        })
    });
    first.want(Demand::default());
    again.want(Demand::default());
    loop {
        if second.state().rival.is_none() {
            break;
        }
    }
    wait("the name is free", || {
        status(&cluster).is_some_and(|(text, _)| text["macs"][0] == "00:99:22:33:44:66")
    });
}

fn a_watch_that_has_nothing_to_say_answers_when_it_is_asked(version: &'static str) {
    let Some(cluster) = start(version) else { return };
    let proxy = Proxy::before(cluster.address(0));
    let mut options = options(&[proxy.endpoint()]);
    options.probe_interval = Duration::from_millis(100);
    let follower = Follower::with(options);
    follower.state();
    // An answer of a watch is a hundred bytes or so; http2's own talk is less often.
    let before = proxy.received();
    wait("it answers again and again", || proxy.received() > before + 2000);
    while let Some(event) = follower.try_next() {
        assert!(!matches!(event, StoreEvent::Lost { .. }), "{event:?}");
    }
}

fn a_message_of_many_pieces_is_no_reason_to_begin_anew(version: &'static str) {
    // etcd takes note of the wish for pieces a little after the watch has begun, and may send the
    // first message whole in between.
    let mut result = Ok(());
    for _ in 0..3 {
        result = many_pieces(version);
        if result.is_ok() {
            break;
        }
    }
    assert_eq!(result, Ok(()));
}

}

/// What ended the session, if that happened.
fn many_pieces(version: &'static str) -> Result<(), String> {
    let Some(cluster) = start(version) else { return Ok(()) };
    cluster.put("/havip/virtual_router/100/interface", "hold-here");
    let proxy = Proxy::before(cluster.address(0));
    proxy.hold_at("hold-here");
    let mut options = options(&[proxy.endpoint()]);
    options.call_timeout = LIMIT;
    options.probe_interval = LIMIT;
    let counters = std::sync::Arc::clone(&options.counters);
    let follower = Follower::with(options);
    // It has read, and not begun to watch: all that changes now comes as one message, larger than
    // a client takes.
    proxy.wait_held();
    let large = "x".repeat(1024 * 1024);
    for _ in 0..20 {
        cluster.put_large("/havip/node/gw1/large", &large);
    }
    cluster.put("/havip/virtual_router/100/interface", "eth0");
    proxy.let_go();
    loop {
        match follower.next() {
            StoreEvent::Lost { error, .. } => return Err(error.to_string()),
            StoreEvent::State(state)
                if state.entries.iter().any(|entry| entry.value == b"eth0") =>
            {
                break;
            }
            _ => {}
        }
    }
    wait("every event came", || counters.events.load(Ordering::Relaxed) >= 20);
    while let Some(event) = follower.try_next() {
        assert!(!matches!(event, StoreEvent::Lost { .. }), "{event:?}");
    }
    Ok(())
}
