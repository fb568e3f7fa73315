//! docs/moving-from-havip.md, walked: the original's gateways become havip's one by one, and go
//! back, on one etcd, while a client counts how long each VIP does not answer.

#![cfg(feature = "etcd")]

#[macro_use]
#[path = "lab/cluster/mod.rs"]
mod cluster;
mod lab;
#[path = "lab/original.rs"]
mod original;

use std::process::Command;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use cluster::certs::Leaf;
use cluster::{Cluster, Setup, Tls};
use havip::linux::{Pinger, clock};
use havip::node::Instant;
use lab::peer::is_there;
use lab::{Daemon, Host, Lan, wait};
use original::{Agent, Api, agent, example, gateway};

const VIPS: [&str; 2] = ["192.0.2.100", "192.0.2.110"];
/// The original's own bound for a failover, 3 * advert_interval + 2 s, with Skew_Time.
const FAILOVER: Duration = Duration::from_millis(3 * 1000 + 805 + 2000);
/// Longest silence of a VIP that does not move; a busy machine is allowed some.
const HICCUP: Duration = Duration::from_millis(2500);

/// What a client and an observer of both gateways see.
struct Observer {
    seen: Mutex<Vec<Seen>>,
    ended: AtomicBool,
}

#[derive(Clone, Copy)]
struct Seen {
    answered_at: Instant,
    silence: Duration,
    doubles: u32,
    holder: Option<usize>,
    moves: u32,
}

impl Seen {
    fn nothing() -> Self {
        let silence = Duration::ZERO;
        Self { answered_at: clock::now(), silence, doubles: 0, holder: None, moves: 0 }
    }
}

impl Observer {
    fn new() -> Self {
        Self { seen: Mutex::new(vec![Seen::nothing(); VIPS.len()]), ended: AtomicBool::new(false) }
    }

    /// Looks until it is told to end.
    fn run(&self, client: &Host, gateways: [&Host; 2]) {
        let pingers = VIPS.map(|vip| {
            let target = vip.parse().unwrap();
            client.within(|| Pinger::open(target).unwrap())
        });
        for sequence in (0..=u16::MAX).cycle() {
            if self.ended.load(Ordering::Relaxed) {
                return;
            }
            for (at, pinger) in pingers.iter().enumerate() {
                pinger.send(sequence);
                // Each socket hears the answers to the others too.
                let answered = (0..2 * VIPS.len())
                    .any(|_| pinger.receive(Duration::from_millis(10)) == Some(sequence));
                let holders: Vec<usize> =
                    (0..gateways.len()).filter(|host| gateways[*host].has(VIPS[at])).collect();
                let now = clock::now();
                let mut seen = self.seen.lock().unwrap();
                let seen = &mut seen[at];
                seen.silence = seen.silence.max(now.since(seen.answered_at));
                seen.doubles += u32::from(holders.len() > 1);
                if let [holder] = *holders {
                    let before = seen.holder.replace(holder);
                    seen.moves += u32::from(before.is_some_and(|before| before != holder));
                }
                if answered {
                    seen.answered_at = now;
                }
            }
        }
    }

    /// Does one step of the guide, in which no VIP may be silent for longer than `bound`, or be
    /// on both gateways; nor may it move, where the bound leaves no time for that.
    #[track_caller]
    fn step<T>(&self, what: &str, bound: Duration, step: impl FnOnce() -> T) -> T {
        self.seen.lock().unwrap().fill_with(Seen::nothing);
        let result = step();
        let end = clock::now();
        wait("the VIPs answer at the end of the step", || {
            self.seen.lock().unwrap().iter().all(|seen| seen.answered_at > end)
        });
        for (vip, seen) in VIPS.iter().zip(self.seen.lock().unwrap().iter()) {
            eprintln!("{what}: {vip} was silent for {:?}", seen.silence);
            assert!(seen.silence <= bound, "{what}: {vip} was silent for {:?}", seen.silence);
            assert_eq!(seen.doubles, 0, "{what}: {vip} was on both gateways");
            assert!(bound > HICCUP || seen.moves == 0, "{what}: {vip} moved");
        }
        result
    }
}

/// Ends the observer when the test ends, however it ends.
struct End<'a>(&'a Observer);

impl Drop for End<'_> {
    fn drop(&mut self) {
        self.0.ended.store(true, Ordering::Relaxed);
    }
}

const GUIDE: &str = include_str!("../docs/moving-from-havip.md");
const FILE: &str = "/etc/havip/havip.toml";

/// The guide's command that begins like this.
fn command(beginning: &str) -> Vec<String> {
    let line = GUIDE.lines().map(str::trim).find(|line| line.starts_with(beginning));
    let line = line.unwrap_or_else(|| panic!("the guide has no command {beginning}"));
    let line = line.split(" #").next().unwrap_or_default();
    line.split_whitespace().map(str::to_owned).collect()
}

/// Runs the guide's command that begins like this on a host, with its own file: what it said, and
/// its exit code.
fn havip(host: &Host, beginning: &str) -> (String, Option<i32>) {
    havip_in(host, &[], beginning)
}

/// The same, with these variables in its environment.
fn havip_in(host: &Host, environment: &[(&str, String)], beginning: &str) -> (String, Option<i32>) {
    let file = host.folder().join("havip.toml").display().to_string();
    let arguments = command(beginning);
    let mut program = Command::new(env!("CARGO_BIN_EXE_havip"));
    program.args(arguments.iter().skip(1).map(|word| word.replace(FILE, &file)));
    program.envs(environment.iter().map(|(name, value)| (name, value)));
    let output = host.within(|| program.output().unwrap());
    (String::from_utf8([output.stdout, output.stderr].concat()).unwrap(), output.status.code())
}

/// Runs the guide's `etcdctl` command that begins like this.
fn etcdctl(etcd: &Cluster, beginning: &str) -> String {
    let words = command(beginning);
    let words: Vec<&str> = words.iter().skip(1).map(String::as_str).collect();
    etcd.ctl(&words).unwrap_or_else(|error| panic!("{words:?}: {error}"))
}

/// Starts havip as the guide does.
fn start(host: &Host, text: &str) -> Daemon {
    assert_eq!(command("havip run"), ["havip", "run", "--config", FILE]);
    host.daemon_of(text)
}

#[track_caller]
fn wait_for(daemon: &Daemon, state: &str, version: u8) {
    let mut status = serde_json::Value::Null;
    let came = lab::holds_within(lab::LIMIT, || {
        status = daemon.status();
        let routers = status["vrrp"]["routers"].as_array().unwrap();
        routers.len() == VIPS.len()
            && routers.iter().all(|router| router["state"] == state && router["version"] == version)
    });
    assert!(came, "not {state} in version {version}: {status:#}\n{}", daemon.log());
}

/// Waits until all routers of a daemon have heard this host.
#[track_caller]
fn wait_for_adverts(daemon: &Daemon, from: &Host) {
    let mut status = serde_json::Value::Null;
    let heard = lab::holds_within(lab::LIMIT, || {
        status = daemon.status();
        let routers = status["vrrp"]["routers"].as_array().unwrap();
        routers.len() == VIPS.len()
            && routers.iter().all(|router| {
                router["heard"]["address"] == from.ip().as_str()
                    && router["counters"]["adverts_received"].as_u64() >= Some(2)
            })
    });
    assert!(heard, "{status:#}");
}

/// A key of a daemon's first router.
fn value(daemon: &Daemon, key: &str) -> String {
    let value = daemon.status()["vrrp"]["routers"][0][key].clone();
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

/// Gives a daemon another file, as the guide does.
fn reload(host: &Host, daemon: &Daemon, text: &str) {
    let read = daemon.log().matches("read again").count();
    std::fs::write(host.folder().join("havip.toml"), text).unwrap();
    daemon.signal("-HUP");
    wait("the file is read again", || daemon.log().matches("read again").count() > read);
}

const PROFILE: &str = "profile = \"original\"\n";

fn with_priority(text: &str, priority: &str) -> String {
    assert!(text.contains(PROFILE), "{text}");
    text.replace(PROFILE, &format!("{PROFILE}priority = {priority}\n"))
}

fn without_profile(text: &str) -> String {
    text.replace(PROFILE, "")
}

/// Starts the agent of a host beside a daemon that is active, and waits until it must have heard
/// that.
fn start_agent(etcd: &Cluster, host: &Host, active: &Daemon) -> Agent {
    let sent = || {
        let counters = active.status()["vrrp"]["routers"][0]["counters"].clone();
        counters["adverts_sent"].as_u64().unwrap()
    };
    let agent = agent(etcd, host);
    wait("the agent is backup", || agent.log().matches("BACKUP STATE").count() >= 2);
    let before = sent();
    wait("two more adverts", || sent() >= before + 2);
    agent
}

fn holds(host: &Host) -> bool {
    VIPS.iter().all(|vip| host.has(vip))
}

/// Waits until a host holds the VIPs, and the gateway keys name it.
#[track_caller]
fn wait_for_gateway(etcd: &Cluster, host: &Host) {
    wait("it holds the VIPs", || holds(host));
    for vrid in ["100", "101"] {
        let key = format!("/havip/vRouterGateway/{vrid}");
        wait("the gateway key names it", || etcd.get(&key) == Some(gateway(host)));
    }
}

#[track_caller]
fn all_is_well(host: &Host) {
    let mut last = (String::new(), None);
    let well = lab::holds_within(lab::LIMIT, || {
        last = havip(host, "havip status --check");
        last.1 == Some(0)
    });
    assert!(well, "{last:?}");
}

/// An installation of the original: etcd, two gateways, and a client.
fn set_up(test: &str, setup: Setup) -> Option<(Lan, Cluster, Host, Host)> {
    if !is_there("keepalived") {
        lab::skip(test, "no keepalived; run tests/lab/fetch keepalived");
        return None;
    }
    let mut lan = Lan::new();
    let address = lan.address();
    let etcd = Cluster::start(test, &Setup { address, ..setup })?;
    let (a, b) = (lan.host(), lan.host());
    let api = Api(&etcd);
    api.begin();
    api.set_router("100", &[VIPS[0], "192.0.2.101"], "", "").unwrap();
    api.set_router("101", &[VIPS[1]], "", "").unwrap();
    for host in [&a, &b] {
        api.set_node(&format!("gw{}", host.number()), "", &["100", "101"]);
    }
    Some((lan, etcd, a, b))
}

isolated! {
    fn the_guide_moves_both_gateways_and_back_and_the_vips_answer_all_the_time() {
        let Some((mut lan, etcd, a, b)) = set_up("moving", Setup::new("3.4")) else { return };
        let client = lan.host();
        let (old, new) = (example(&etcd, &a), example(&etcd, &b));
        let mut second = agent(&etcd, &b);
        wait_for_gateway(&etcd, &b);
        let mut first = agent(&etcd, &a);
        wait("the first agent is backup", || first.log().matches("BACKUP STATE").count() >= 2);
        let observer = Observer::new();
        std::thread::scope(|scope| {
            let _end = End(&observer);
            scope.spawn(|| observer.run(&client, [&a, &b]));

            // Before anything is touched.
            std::fs::write(a.folder().join("havip.toml"), &old).unwrap();
            let (text, code) = havip(&a, "havip check --etcd");
            assert_eq!(code, Some(0), "{text}");

            let mut one = observer.step("move the backup", HICCUP, || {
                first.stop();
                let daemon = start(&a, &old);
                wait_for(&daemon, "backup", 2);
                wait_for_adverts(&daemon, &b);
                all_is_well(&a);
                daemon
            });
            wait_for_gateway(&etcd, &b);
            observer.step("fail over to it", FAILOVER, || {
                second.stop();
                wait_for_gateway(&etcd, &a);
                wait_for(&one, "active", 2);
            });
            observer.step("back, as the agent comes again", HICCUP, || {
                second = start_agent(&etcd, &b, &one);
            });
            observer.step("and fail over to the agent", FAILOVER, || {
                assert!(one.stop().success());
                wait_for_gateway(&etcd, &b);
            });
            one = observer.step("once more", HICCUP, || {
                let daemon = start(&a, &old);
                wait_for_adverts(&daemon, &b);
                daemon
            });
            observer.step("fail over to it again", FAILOVER, || {
                second.stop();
                wait_for_gateway(&etcd, &a);
            });
            let mut two = observer.step("move the other one", HICCUP, || {
                let daemon = start(&b, &new);
                wait_for(&daemon, "backup", 2);
                wait_for_adverts(&daemon, &a);
                all_is_well(&b);
                daemon
            });
            observer.step("go back with the first", FAILOVER, || {
                assert!(one.stop().success());
                wait_for_gateway(&etcd, &b);
                first = start_agent(&etcd, &a, &two);
            });
            one = observer.step("and forth", HICCUP, || {
                first.stop();
                let daemon = start(&a, &old);
                wait_for_adverts(&daemon, &b);
                daemon
            });

            // The last agent is gone: a priority each, the highest where the VIPs are. Nobody preempts:
            // they are so far apart that the higher one takes over first, though it may read a change
            // half a second later.
            let sides = [(&b, &two, &new, "250"), (&a, &one, &old, "10")];
            observer.step("priorities", HICCUP, || {
                for (host, daemon, text, priority) in sides {
                    reload(host, daemon, &with_priority(text, priority));
                    wait("it has it", || value(daemon, "priority") == priority);
                }
                wait_for_adverts(&one, &b);
                wait_for(&two, "active", 2);
                wait_for(&one, "backup", 2);
            });
            // The one step with an outage.
            observer.step("version 3", FAILOVER, || {
                etcdctl(&etcd, "etcdctl put /havip/virtual_router/default/version 3");
                wait_for(&two, "active", 3);
                wait_for(&one, "backup", 3);
                wait_for_gateway(&etcd, &b);
            });
            observer.step("the profile away", HICCUP, || {
                for (host, daemon, text, priority) in sides {
                    reload(host, daemon, &without_profile(&with_priority(text, priority)));
                }
                wait_for_adverts(&one, &b);
                wait_for(&two, "active", 3);
            });
            observer.step("a shorter interval", HICCUP, || {
                etcdctl(&etcd, "etcdctl put /havip/virtual_routers/default/advert_interval 0.2");
                wait("both have it", || {
                    [&one, &two].iter().all(|daemon| value(daemon, "advert_interval") == "0.2")
                });
                wait_for_adverts(&one, &b);
                wait_for(&two, "active", 3);
                wait_for(&one, "backup", 3);
            });
            for host in [&a, &b] {
                all_is_well(host);
            }

            // And all the way back.
            observer.step("a whole second again", HICCUP, || {
                etcdctl(&etcd, "etcdctl put /havip/virtual_routers/default/advert_interval 1");
                wait("both have it", || {
                    [&one, &two].iter().all(|daemon| value(daemon, "advert_interval") == "1")
                });
                wait_for_adverts(&one, &b);
            });
            observer.step("the profile back", HICCUP, || {
                for (host, daemon, text, priority) in sides {
                    reload(host, daemon, &with_priority(text, priority));
                }
                wait_for_adverts(&one, &b);
                wait_for(&two, "active", 3);
            });
            observer.step("version 2", FAILOVER, || {
                etcdctl(&etcd, "etcdctl del /havip/virtual_router/default/version");
                wait_for(&two, "active", 2);
                wait_for(&one, "backup", 2);
            });
            observer.step("the priorities away", HICCUP, || {
                for (host, daemon, text, _) in sides {
                    reload(host, daemon, text);
                    wait("it is the agents' again", || value(daemon, "priority") == "50");
                }
            });
            observer.step("an agent for the first", HICCUP, || {
                assert!(one.stop().success());
                first = start_agent(&etcd, &a, &two);
            });
            observer.step("fail over to it", FAILOVER, || {
                assert!(two.stop().success());
                wait_for_gateway(&etcd, &a);
            });
        });
    }
}

isolated! {
    fn what_a_killed_agent_left_behind_is_named_and_gone_after_the_guides_command() {
        let Some((_lan, etcd, a, b)) = set_up("leftovers", Setup::new("3.4")) else { return };
        let killed = agent(&etcd, &b);
        wait_for_gateway(&etcd, &b);
        let one = start(&a, &example(&etcd, &a));
        wait_for(&one, "backup", 2);
        killed.kill();
        wait_for_gateway(&etcd, &a);
        assert!(holds(&b), "nothing took its VIPs away");

        // Whoever forgets to look for them is told, and havip takes no part.
        let mut two = start(&b, &example(&etcd, &b));
        let mut said = (String::new(), None);
        let told = lab::holds_within(lab::LIMIT, || {
            said = havip(&b, "havip status --check");
            VIPS.iter().all(|vip| said.0.contains(&format!("{vip} is this box's own address")))
        });
        assert!(told && said.1 == Some(4), "{said:?}");
        for vip in [VIPS[0], VIPS[1], "192.0.2.101"] {
            let words = command("ip address del");
            let words: Vec<String> =
                words.iter().map(|word| word.replace("192.0.2.100", vip)).collect();
            let status = b.within(|| Command::new(&words[0]).args(&words[1..]).status());
            assert!(status.unwrap().success(), "{words:?}");
        }
        assert!(two.stop().success());
        let two = start(&b, &example(&etcd, &b));
        wait_for(&two, "backup", 2);
        wait_for_adverts(&two, &a);
        all_is_well(&b);
        assert!(holds(&a) && !holds(&b));
    }
}

isolated! {
    fn an_agent_that_comes_back_too_early_is_named_by_the_active_havip() {
        let Some((_lan, etcd, a, b)) = set_up("early", Setup::new("3.4")) else { return };
        let one = start(&a, &example(&etcd, &a));
        etcdctl(&etcd, "etcdctl put /havip/virtual_router/default/version 3");
        wait_for(&one, "active", 3);
        let mut early = agent(&etcd, &b);
        wait("the VIPs are on both gateways", || holds(&a) && holds(&b));
        let mut said = (String::new(), None);
        let told = lab::holds_within(lab::LIMIT, || {
            said = havip(&a, "havip status --check");
            said.0.matches(&format!("conflict: {}", b.ip())).count() == VIPS.len()
        });
        assert!(told && said.1 == Some(4), "{said:?}");
        assert!(said.0.contains("in VRRPv2; set version = \"2\""), "{said:?}");
        early.stop();
        all_is_well(&a);
        // The agent had the last word.
        wait_for_gateway(&etcd, &a);
    }
}

// With a certificate that says who it is, and the rights that the guide names.
isolated! {
    fn the_agents_environment_and_certificates_are_enough_to_join_and_take_over() {
        let setup = Setup { tls: Tls::Clients, ..Setup::new("3.5") };
        let Some((_lan, mut etcd, a, b)) = set_up("environment", setup) else { return };
        let node = format!("gw{}", a.number());
        let keys = etcd.client_keys();
        let (cert, key) = etcd.authority().write_leaf(&keys, &node, &Leaf::common_name(&node));
        etcd.add_user(&node, None, &[]);
        let grants = GUIDE.lines().map(str::trim).filter(|line| line.contains("grant-permission"));
        for line in grants {
            let line = line.replace("ROLE", &node);
            let words: Vec<&str> = line.split_whitespace().skip(1).collect();
            etcd.ctl(&words).unwrap_or_else(|error| panic!("{words:?}: {error}"));
        }
        etcd.enable_auth();
        let environment = [
            ("HOSTNAME", node),
            ("ETCD_ENDPOINTS", etcd.endpoints().join(",")),
            ("ETCD_CA", keys.join("ca.crt").display().to_string()),
            ("ETCD_CERT", cert.display().to_string()),
            ("ETCD_KEY", key.display().to_string()),
        ];
        assert!(environment[1].1.starts_with("https://"), "{environment:?}");
        assert!(environment.iter().all(|(name, _)| GUIDE.contains(&format!("`{name}`"))));
        let mut agent = agent(&etcd, &b);
        wait_for_gateway(&etcd, &b);

        // No node, no [etcd]; the paths are the test's own.
        let folder = a.folder().display();
        let text = format!(
            "[havip]\nrun_dir = \"{folder}/run\"\n[snapshot]\npath = \"{folder}/state\"\n\
             [virtual_router.default]\n{PROFILE}"
        );
        let one = a.daemon_in(&environment, &text);
        let (said, code) = havip_in(&a, &environment, "havip check --etcd");
        assert_eq!(code, Some(0), "{said}");
        wait_for(&one, "backup", 2);
        wait_for_adverts(&one, &b);
        all_is_well(&a);
        agent.stop();
        wait_for_gateway(&etcd, &a);
        wait_for(&one, "active", 2);
        all_is_well(&a);
    }
}

// The guide's commands that only ask, as they stand there.
isolated! {
    fn what_the_guide_looks_at_first_is_there() {
        let Some((_lan, etcd, _, _)) = set_up("guide", Setup::new("3.4")) else { return };
        etcd.put("/havip/vRouterGateway/100", "192.0.2.1,ff:ff:ff:ff:ff:ff");
        let gets: Vec<&str> =
            GUIDE.lines().map(str::trim).filter(|line| line.starts_with("etcdctl get")).collect();
        assert!(gets.len() >= 4, "{gets:?}");
        for line in gets {
            assert!(!etcdctl(&etcd, line).is_empty(), "{line}");
        }
    }
}
