//! What a scenario begins with: a LAN, a cluster, two gateways and a listener.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use havip::daemon::socket;
use havip::linux::clock;
use havip::node::Instant;
use serde_json::Value;

use crate::cluster::{Cluster, Setup};
use crate::lab::listener::Listener;
use crate::lab::{Daemon, Host, Lan, wait};

/// Routers of the two gateways.
pub(crate) const ROUTERS: u8 = 4;

/// The key that makes the second gateway the backup of all routers.
const LOWER_PRIORITY: &str = "/havip/node/gw2/virtual_router/default/priority";

/// A LAN with a cluster, two gateways and a listener.
pub(crate) struct Site {
    pub(crate) lan: Lan,
    pub(crate) cluster: Cluster,
    pub(crate) gateways: Vec<(Host, Daemon)>,
    pub(crate) listener: Listener,
    /// What each gateway's daemon had counted of transitions when all had settled: who starts first
    /// is active until the other preempts it.
    transitions: [u64; 2],
    /// Changes made so far.
    pub(crate) changes: u32,
}

/// Elections of a third of a second.
pub(crate) fn quick(version: &'static str) -> Setup {
    let extra = ["--heartbeat-interval=30", "--election-timeout=300"].map(str::to_owned);
    Setup { members: 3, extra: extra.into(), ..Setup::new(version) }
}

/// A daemon's local file beside its own tables.
pub(crate) fn local_file(host: &Host, endpoints: &[String], rest: &str) -> String {
    format!(
        "[etcd]\nendpoints = {endpoints:?}\n{rest}[snapshot]\npath = \"{}\"\ninterval = 0\n",
        host.folder().join("state").display()
    )
}

impl Site {
    pub(crate) fn start(test: &str, setup: Setup, login: Option<&str>) -> Option<Self> {
        let mut lan = Lan::new();
        let address = lan.address();
        let mut cluster = Cluster::start(test, &Setup { address, ..setup })?;
        cluster.put("/havip/virtual_router/default/interface", "eth0");
        cluster.put("/havip/virtual_router/default/advert_interval", "0.3");
        let vrids: Vec<String> = (1..=ROUTERS).map(|vrid| vrid.to_string()).collect();
        for vrid in &vrids {
            cluster.put(&format!("/havip/virtual_router/{vrid}/vips"), &vip(vrid));
        }
        for node in ["gw1", "gw2"] {
            cluster.put(&format!("/havip/node/{node}/vrids"), &vrids.join(","));
        }
        // Two of equal priority that start together may each take some of the routers.
        cluster.put(LOWER_PRIORITY, "50");
        if let Some(password) = login {
            for node in ["gw1", "gw2"] {
                let own = format!("/havip/status/{node}");
                let grants = [
                    ("read", "/havip/", true),
                    ("readwrite", "/havip/vRouterGateway/", true),
                    ("readwrite", own.as_str(), false),
                ];
                cluster.add_user(node, Some(password), &grants);
            }
            cluster.enable_auth();
        }
        let hosts = [lan.host(), lan.host()];
        let listener = Listener::on(&lan.host());
        let gateways = hosts.map(|host| {
            let rest = login.map_or_else(String::new, |password| {
                let file = host.folder().join("password");
                std::fs::write(&file, password).unwrap();
                private(&file);
                let file = file.display();
                format!("username = \"gw{}\"\npassword_file = \"{file}\"\n", host.number())
            });
            let daemon = host.daemon(&local_file(&host, &cluster.endpoints(), &rest));
            (host, daemon)
        });
        let gateways = Vec::from(gateways);
        let mut site = Self { lan, cluster, gateways, listener, transitions: [0; 2], changes: 0 };
        wait("every router is active on the first gateway", || site.is_settled());
        site.transitions = site.counts("master_transitions");
        site.listener.forget();
        Some(site)
    }

    /// Whether the gateway of the higher priority is active for all routers, the gateway keys say so,
    /// and both report what they are.
    fn is_settled(&self) -> bool {
        let all = usize::from(ROUTERS);
        let gateways = self.cluster.dump("/havip/vRouterGateway/");
        let reports = self.cluster.dump("/havip/status/");
        self.actives() == [all, 0]
            && gateways.len() == all
            && reports.len() == 2
            && reports.values().all(|report| {
                let report: Value = serde_json::from_str(report).unwrap_or_default();
                report["routers"].as_object().is_some_and(|routers| {
                    routers.len() == all
                        && routers.values().all(|router| {
                            router["state"] == "active" || router["state"] == "backup"
                        })
                })
            })
    }

    /// Active routers of each gateway.
    pub(crate) fn actives(&self) -> Vec<usize> {
        let active = |daemon: &Daemon| {
            let status = daemon.status();
            let routers = status["vrrp"]["routers"].as_array().cloned().unwrap_or_default();
            routers.iter().filter(|router| router["state"] == "active").count()
        };
        self.gateways.iter().map(|(_, daemon)| active(daemon)).collect()
    }

    /// The gateway that is active.
    pub(crate) fn active(&self) -> usize {
        let actives = self.actives();
        actives.iter().position(|active| *active == usize::from(ROUTERS)).expect("one is active")
    }

    /// A counter of all routers of each gateway.
    pub(crate) fn counts(&self, counter: &str) -> [u64; 2] {
        [0, 1].map(|gateway| {
            let status = self.gateways[gateway].1.status();
            let routers = status["vrrp"]["routers"].as_array().cloned().unwrap_or_default();
            routers.iter().filter_map(|router| router["counters"][counter].as_u64()).sum()
        })
    }

    /// Ends a gateway's daemon with SIGTERM and starts it anew, to count from nothing. Returns
    /// when it was started.
    pub(crate) fn restart(&mut self, gateway: usize, endpoints: &[String]) -> Instant {
        let (host, daemon) = &mut self.gateways[gateway];
        assert!(daemon.stop().success());
        let begin = clock::now();
        *daemon = host.daemon(&local_file(host, endpoints, ""));
        self.transitions[gateway] = 0;
        begin
    }

    pub(crate) fn store(&self, gateway: usize) -> Value {
        self.gateways[gateway].1.status()["config"]["store"].clone()
    }

    pub(crate) fn is_connected(&self, gateway: usize) -> bool {
        self.store(gateway)["connected"] == true
    }

    /// The member that a gateway speaks with.
    pub(crate) fn member(&self, gateway: usize) -> usize {
        let endpoint = self.store(gateway)["endpoint"].as_str().unwrap_or_default().to_owned();
        let of = |index: &usize| endpoint.ends_with(&self.cluster.address(*index).to_string());
        (0..self.cluster.len()).find(of).expect("a member's endpoint")
    }

    /// What `havip status --check` says of a gateway.
    pub(crate) fn check(&self, gateway: usize) -> (Option<i32>, String) {
        self.gateways[gateway].1.check()
    }

    /// Makes a change that both gateways must take over, and waits until the active one's kernel
    /// and both configurations have it. Returns how long that took.
    pub(crate) fn change(&mut self) -> Duration {
        self.changes += 1;
        let excluded = format!("198.51.100.{}", self.changes);
        let begin = clock::now();
        // What is asked of a cluster that elects a leader at that moment times out.
        let put = ["put", "--", "/havip/virtual_router/1/vips_excluded", &excluded];
        wait("a change is written", || self.cluster.ctl(&put).is_ok());
        wait("a change arrives", || {
            self.gateways.iter().any(|(host, _)| host.has(&excluded)) && self.agrees()
        });
        clock::now().since(begin)
    }

    /// Whether both gateways have exactly what the store has.
    pub(crate) fn agrees(&self) -> bool {
        let routers = self.cluster.dump("/havip/virtual_router/");
        self.gateways.iter().all(|(host, daemon)| {
            let mut wanted = routers.clone();
            if host.number() == 2 {
                wanted.insert(LOWER_PRIORITY.to_owned(), "50".to_owned());
            }
            let Ok(body) = socket::get(&daemon.socket, "/v1/config") else { return false };
            let shown: Value = serde_json::from_slice(&body).unwrap();
            let mut values = BTreeMap::new();
            for value in shown["values"].as_array().into_iter().flatten() {
                let text = |key: &str| value[key].as_str().unwrap_or_default().to_owned();
                if text("origin").starts_with("/havip/") {
                    values.insert(format!("/havip/{}", text("path")), text("value"));
                }
            }
            values == wanted
        })
    }

    /// Checks that nothing moved on the network, and that no event was lost.
    pub(crate) fn is_calm(&mut self) {
        assert_eq!(self.counts("master_transitions"), self.transitions, "a transition");
        assert_eq!(self.counts("priority_zero_sent"), [0; 2]);
        // It may have looked for less than an interval so far.
        wait("someone advertises", || {
            self.listener.read();
            !self.listener.sources.is_empty()
        });
        assert_eq!(self.listener.farewells, 0);
        assert_eq!(self.listener.sources.len(), 1, "{:?}", self.listener.sources);
        wait("both have what the store has", || self.agrees());
        for (host, daemon) in &self.gateways {
            assert!(!daemon.log().contains("panic"), "{}\n{}", host.ip(), daemon.log());
        }
        wait("both are well", || self.check(0).0 == Some(0) && self.check(1).0 == Some(0));
    }
}

pub(crate) fn vip(vrid: &str) -> String {
    format!("192.0.2.10{vrid}")
}

pub(crate) fn private(file: &Path) {
    use std::os::unix::fs::PermissionsExt as _;
    std::fs::set_permissions(file, std::fs::Permissions::from_mode(0o600)).unwrap();
}

pub(crate) fn ms(duration: Duration) -> String {
    format!("{} ms", duration.as_millis())
}

impl Drop for Site {
    fn drop(&mut self) {
        if std::thread::panicking() {
            for (_, daemon) in &self.gateways {
                eprintln!("{}", daemon.log());
            }
        }
    }
}
