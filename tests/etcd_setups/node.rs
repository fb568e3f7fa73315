//! What a node does at a store, step by step; each step waits until it is done.

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use havip::store::report::{Report, ReportedRouter, SCHEMA};
use havip::store::{Demand, Error, Options, StoreEvent};

use crate::cluster::Cluster;
use crate::follower::{Follower, values};
use crate::lab::{LIMIT, holds_within};

pub const GATEWAY: &str = "/havip/vRouterGateway/100";
pub const STATUS: &str = "/havip/status/gw1";
/// What is gw1's to read, and then what is not.
pub const SEED: &[(&str, &str)] = &[
    ("/havip/node/gw1/node_ip", "192.0.2.1"),
    ("/havip/node/gw1/vrids", "100"),
    ("/havip/virtual_router/100/priority", "1"),
    ("/havip/virtual_router/default/advert_interval", "1"),
    ("/havip/virtual_routers/100/vips", "192.0.2.100"),
    ("/havip/virtual_routers/default/interface", "eth0"),
    ("/havip/node/gw2/vrids", "200"),
    ("/havip/virtual_routers/200/vips", "192.0.2.200"),
];
/// How many of these are gw1's.
const OWN: usize = 6;

/// The node gw1, which is active for the router 100.
pub struct Node {
    pub follower: Follower,
    /// Counts what is changed and written, so that each time differs from all before.
    round: u8,
}

impl Node {
    pub fn start(options: Options) -> Self {
        Self { follower: Follower::with(options), round: 1 }
    }

    /// Waits for the first state: its own keys, and no others.
    #[track_caller]
    pub fn reads_first(&self) {
        let expected: BTreeMap<_, _> = SEED[..OWN].iter().copied().collect();
        self.sees(|now| now.iter().map(|(k, v)| (k.as_str(), v.as_str())).eq(expected.clone()));
    }

    /// Has another change a key, and waits until the change is heard. The connection stays.
    #[track_caller]
    pub fn hears_a_change(&mut self, cluster: &Cluster) {
        let value = self.change(cluster);
        self.sees(|now| now.get("/havip/virtual_router/100/priority") == Some(&value));
    }

    /// The same where the connection may end.
    #[track_caller]
    pub fn hears_a_change_at_last(&mut self, cluster: &Cluster) {
        let value = self.change(cluster);
        self.follower.until(|now| now.get("/havip/virtual_router/100/priority") == Some(&value));
    }

    fn change(&mut self, cluster: &Cluster) -> String {
        self.round += 1;
        let value = self.round.to_string();
        cluster.put("/havip/virtual_router/100/priority", &value);
        value
    }

    /// Has something new to say, and waits until it stands in the store: which node is active,
    /// and, for as long as it lives, what it does.
    #[track_caller]
    pub fn writes(&mut self, cluster: &Cluster) {
        self.round += 1;
        let (gateway, status) = self.wants();
        let stands = || {
            let with_lease = stands(cluster, STATUS).filter(|(_, lease)| *lease != 0);
            stands(cluster, GATEWAY) == Some((gateway.clone(), 0))
                && with_lease.is_some_and(|(value, _)| value == status)
        };
        assert!(
            holds_within(LIMIT, stands),
            "it was not written: {:?}; {:?}",
            cluster.dump("/havip/"),
            self.follower.try_next()
        );
    }

    /// Says it, and gives both values.
    pub fn wants(&self) -> (String, String) {
        let gateway = format!("192.0.2.1,02:00:00:00:00:{:02x}", self.round);
        let report = report(self.round);
        let status = serde_json::to_string(&report).expect("it is JSON");
        self.follower.want(Demand {
            writes: [(GATEWAY.to_owned(), gateway.clone())].into(),
            report: Some(report),
            ..Demand::default()
        });
        (gateway, status)
    }

    /// Waits until the server refuses a write: which key, and why.
    #[track_caller]
    pub fn is_refused(&self) -> (String, Error) {
        loop {
            match self.follower.next() {
                StoreEvent::WriteRefused { key, error } => return (key, error),
                StoreEvent::Lost { error, .. } => panic!("lost: {error}"),
                _ => {}
            }
        }
    }

    /// Says that it goes, and waits until its status is gone with its lease.
    #[track_caller]
    pub fn leaves(&self, cluster: &Cluster) {
        self.follower.want(Demand::default());
        assert!(holds_within(LIMIT, || cluster.get(STATUS).is_none()), "its status stays");
    }

    /// Waits until it has renewed its lease once more: what it was doing is done by then, and its
    /// token, if it has one, is not new any more.
    #[track_caller]
    pub fn settles(&self, cluster: &Cluster) {
        let before = calls(cluster, "etcdserverpb.Lease", "LeaseKeepAlive", "bidi_stream");
        let renewed =
            || calls(cluster, "etcdserverpb.Lease", "LeaseKeepAlive", "bidi_stream") > before;
        assert!(holds_within(LIMIT, renewed), "it renews its lease");
        self.is_undisturbed();
    }

    /// That nothing was lost or refused since it was last looked at.
    #[track_caller]
    pub fn is_undisturbed(&self) {
        while let Some(event) = self.follower.try_next() {
            undisturbed(&event);
        }
    }

    #[track_caller]
    fn sees(&self, holds: impl Fn(&BTreeMap<String, String>) -> bool) {
        loop {
            let event = self.follower.next();
            undisturbed(&event);
            if let StoreEvent::State(state) = event
                && holds(&values(&state))
            {
                return;
            }
        }
    }
}

/// What gw1 tells of itself.
pub fn report(round: u8) -> Report {
    let active = ReportedRouter { state: "active", since: 1 };
    Report {
        schema: SCHEMA,
        node: "gw1".to_owned(),
        version: "0",
        started: 1,
        macs: vec!["02:00:00:00:00:01".to_owned()],
        node_ip: Some("192.0.2.1".to_owned()),
        source: "etcd",
        revision: round.into(),
        routers: [("100".to_owned(), active)].into(),
    }
}

#[track_caller]
fn undisturbed(event: &StoreEvent) {
    match event {
        StoreEvent::Lost { error, .. } => panic!("lost: {error}"),
        StoreEvent::WriteRefused { key, error } => panic!("refused: {key}: {error}"),
        _ => {}
    }
}

/// How often a method of the only member was called.
pub fn calls(cluster: &Cluster, service: &str, method: &str, kind: &str) -> f64 {
    let name = format!(
        "grpc_server_started_total{{grpc_method=\"{method}\",grpc_service=\"{service}\",\
         grpc_type=\"{kind}\"}}"
    );
    cluster.metric(0, &name).unwrap_or(0.0)
}

/// Value and lease of a key, if it is there.
fn stands(cluster: &Cluster, key: &str) -> Option<(String, i64)> {
    let answer = cluster.json(&["get", "--", key]);
    let found = answer["kvs"].as_array()?.first()?;
    let value = BASE64_STANDARD.decode(found["value"].as_str()?).expect("etcdctl writes base64");
    Some((String::from_utf8(value).ok()?, found["lease"].as_i64().unwrap_or(0)))
}
