//! The original havip's parts, as far as they touch etcd and VRRP: what its API writes, with its
//! mistakes, what its agent renders for keepalived, and what that agent writes when it is active.
//!
//! For crates of tests that have `mod lab;` and `mod cluster;`.

#![allow(dead_code, unreachable_pub, reason = "each test crate uses its part")]

use std::fmt::Write as _;
use std::fs;
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Child, Command};

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;

use crate::cluster::Cluster;
use crate::lab::peer::Keepalived;
use crate::lab::{Host, LIMIT, wait};

const ROUTERS: &str = "/havip/virtual_routers";

/// Its HTTP API: each call is the transaction that the original makes of it. A field with the
/// value `none` deletes its key, an empty one leaves it alone.
pub struct Api<'a>(pub &'a Cluster);

/// One `vrrp_instance` that an agent runs.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Instance {
    pub vrid: String,
    pub interface: String,
    pub advert_interval: String,
    pub vips: Vec<String>,
}

/// A key's value; empty where there is none.
fn get(etcd: &Cluster, key: &str) -> String {
    etcd.get(key).unwrap_or_default()
}

fn put(key: &str, value: &str) -> String {
    format!("put {key} \"{value}\"")
}

/// What a field of a request does to its key.
fn field(key: &str, value: &str) -> Option<String> {
    match value {
        "" => None,
        "none" => Some(delete(key)),
        value => Some(put(key, value)),
    }
}

fn delete(prefix: &str) -> String {
    format!("del --prefix {prefix}")
}

impl Api<'_> {
    /// What an installation begins with.
    pub fn begin(&self) {
        self.set_defaults(&[
            ("interface", "eth0"),
            ("advert_interval", "1"),
            ("check_interval", "2"),
            ("check_timeout", "4"),
            ("check_rise", "3"),
            ("check_fall", "3"),
        ]);
    }

    /// POST /virtual_router_default
    pub fn set_defaults(&self, fields: &[(&str, &str)]) {
        let key = |name: &str| format!("{ROUTERS}/default/{name}");
        let operations: Vec<_> =
            fields.iter().filter_map(|(name, value)| field(&key(name), value)).collect();
        self.0.txn(&operations);
    }

    /// POST /virtual_router. The VRID is not looked at; a VIP that leaves loses a key that it
    /// never had, and keeps its binding.
    pub fn set_router(
        &self,
        vrid: &str,
        vips: &[&str],
        advert_interval: &str,
        interface: &str,
    ) -> Result<(), String> {
        let key = |name: &str| format!("{ROUTERS}/{vrid}/{name}");
        let mut operations = vec![put(&key("vips"), &vips.join(","))];
        operations.extend(field(&key("advert_interval"), advert_interval));
        operations.extend(field(&key("interface"), interface));
        for vip in vips {
            operations.push(put(&format!("/havip/binding/{vip}/vrid"), vrid));
        }
        for stale in self.vips(vrid).iter().filter(|vip| !vips.contains(&vip.as_str())) {
            self.unused(stale)?;
            operations.push(delete(&format!("/havip/binding/{stale}/vip")));
        }
        self.0.txn(&operations);
        Ok(())
    }

    /// DELETE /virtual_router/VRID
    pub fn delete_router(&self, vrid: &str) -> Result<(), String> {
        let mut operations = vec![delete(&format!("{ROUTERS}/{vrid}/"))];
        for vip in self.vips(vrid) {
            self.unused(&vip)?;
            operations.push(delete(&format!("/havip/binding/{vip}/vip")));
        }
        self.0.txn(&operations);
        Ok(())
    }

    /// POST /node
    pub fn set_node(&self, node: &str, node_ip: &str, vrids: &[&str]) {
        let key = |name: &str| format!("/havip/node/{node}/{name}");
        let fields = [field(&key("node_ip"), node_ip), field(&key("vrids"), &vrids.join(","))];
        self.0.txn(&fields.into_iter().flatten().collect::<Vec<_>>());
    }

    /// DELETE /node/NODE
    pub fn delete_node(&self, node: &str) {
        self.0.txn(&[delete(&format!("/havip/node/{node}/"))]);
    }

    /// POST /vip
    pub fn bind(&self, vip: &str, namespace: &str, service: &str) -> Result<(), String> {
        let key = |name: &str| format!("/havip/binding/{vip}/{name}");
        if get(self.0, &key("vrid")).is_empty() {
            return Err("Invalid VIP, no VirtualRouter provides it.".into());
        }
        let owner = get(self.0, &key("namespace"));
        if owner.is_empty() {
            let shared = if service.is_empty() { "true" } else { "false" };
            let mut operations =
                vec![put(&key("namespace"), namespace), put(&key("shared"), shared)];
            operations.extend(field(&key("services"), service));
            self.0.txn(&operations);
            return Ok(());
        }
        if owner != namespace {
            return Err("VIP has been bound to another namespace".into());
        }
        if service.is_empty() {
            return Ok(());
        }
        if get(self.0, &key("shared")) != "true" {
            return Err("Non-shared VIP cannot be bound with another service".into());
        }
        let services = get(self.0, &key("services"));
        let services =
            if services.is_empty() { service.to_owned() } else { format!("{services},{service}") };
        self.0.txn(&[put(&key("services"), &services)]);
        Ok(())
    }

    /// DELETE /vip/VIP/NAMESPACE, or with a service /vip/VIP/NAMESPACE/SERVICE
    pub fn unbind(&self, vip: &str, service: &str) -> Result<(), String> {
        let key = |name: &str| format!("/havip/binding/{vip}/{name}");
        let services = get(self.0, &key("services"));
        let mut left: Vec<&str> = services.split(',').filter(|name| !name.is_empty()).collect();
        if service.is_empty() {
            if !left.is_empty() {
                return Err("Cannot unbound VIP".into());
            }
            self.0.txn(&[delete(&key("namespace")), delete(&key("shared"))]);
            return Ok(());
        }
        let at = left.iter().position(|name| *name == service).ok_or("not bound to it")?;
        left.swap_remove(at);
        let operations = if !left.is_empty() {
            vec![put(&key("services"), &left.join(","))]
        } else if get(self.0, &key("shared")) == "false" {
            ["services", "shared", "namespace"].map(|name| delete(&key(name))).into()
        } else {
            vec![delete(&key("services"))]
        };
        self.0.txn(&operations);
        Ok(())
    }

    fn vips(&self, vrid: &str) -> Vec<String> {
        let list = get(self.0, &format!("{ROUTERS}/{vrid}/vips"));
        list.split(',').filter(|vip| !vip.is_empty()).map(str::to_owned).collect()
    }

    fn unused(&self, vip: &str) -> Result<(), String> {
        if get(self.0, &format!("/havip/binding/{vip}/namespace")).is_empty() {
            return Ok(());
        }
        Err(format!("Cannot delete VIP {vip}, it's in used"))
    }
}

/// What the template of an agent makes of etcd; `None` where it fails, and the agent runs on with
/// what it had.
pub fn rendered(etcd: &Cluster, node: &str) -> Option<Vec<Instance>> {
    let get = |key: &str| Some(get(etcd, key)).filter(|value| !value.is_empty());
    let default = |name: &str| get(&format!("{ROUTERS}/default/{name}"));
    for check in ["check_interval", "check_timeout", "check_rise", "check_fall"] {
        default(check)?;
    }
    let vrids = get(&format!("/havip/node/{node}/vrids"))?;
    let instance = |vrid: &str| {
        let own = |name: &str| get(&format!("{ROUTERS}/{vrid}/{name}"));
        Some(Instance {
            vrid: vrid.to_owned(),
            interface: own("interface").or_else(|| default("interface"))?,
            advert_interval: own("advert_interval").or_else(|| default("advert_interval"))?,
            vips: own("vips")?.split(',').map(str::to_owned).collect(),
        })
    };
    vrids.split(',').map(instance).collect()
}

/// A keepalived as an agent runs it, and what it notifies.
pub struct Agent {
    keepalived: Keepalived,
    notified: Child,
}

/// Starts what an agent of this host would run, notify script included. That one hears of the states
/// through a FIFO: in a user namespace keepalived cannot start a script, since setgroups is denied.
pub fn agent(etcd: &Cluster, host: &Host) -> Agent {
    let node = format!("gw{}", host.number());
    let instances = rendered(etcd, &node).expect("the template has all of its keys");
    let default = |name: &str| get(etcd, &format!("{ROUTERS}/default/{name}"));
    let fifo = host.folder().join("notify.fifo");
    let mut text = format!(
        "global_defs {{\n  script_user root\n  vrrp_startup_delay 0\n  vrrp_notify_fifo {}\n}}\n\
         vrrp_script chk_script {{\n  script \"/bin/true\"\n  interval {}\n  timeout {}\n  \
         rise {}\n  fall {}\n}}\n",
        fifo.display(),
        default("check_interval"),
        default("check_timeout"),
        default("check_rise"),
        default("check_fall"),
    );
    for Instance { vrid, interface, advert_interval, vips } in instances {
        let vips: String = vips.iter().map(|vip| format!("    {vip} dev {interface}\n")).collect();
        let _ = write!(
            text,
            "vrrp_instance instance_{vrid} {{\n  interface {interface}\n  state BACKUP\n  \
             virtual_router_id {vrid}\n  priority 50\n  advert_int {advert_interval}\n  \
             nopreempt\n  authentication {{\n    auth_type PASS\n    auth_pass Sylvanas\n  }}\n  \
             track_script {{\n    chk_script\n  }}\n  virtual_ipaddress {{\n{vips}  }}\n}}\n",
        );
    }
    let mut script = Command::new("sh");
    script.arg("-c").arg(notify_script(etcd, host, &fifo));
    let notified = host.start(&mut script, &host.folder().join("notify.log"));
    Agent { keepalived: Keepalived::run("keepalived", host, &text), notified }
}

/// Reads a line `INSTANCE "NAME" STATE PRIORITY` for each new state, until keepalived has ended.
fn notify_script(etcd: &Cluster, host: &Host, fifo: &Path) -> String {
    let program = etcd.etcdctl();
    let words = std::iter::once(program.get_program()).chain(program.get_args());
    let words: Vec<_> = words.map(|word| format!("'{}'", word.display())).collect();
    let fifo = fifo.display();
    format!(
        "mkfifo '{fifo}'; while read -r kind name state priority; do\n\
         test \"$kind $state\" = 'INSTANCE MASTER' || continue\n\
         name=${{name#\\\"instance_}}\n\
         ETCDCTL_API=3 {} put \"/havip/vRouterGateway/${{name%\\\"}}\" {}\n\
         done <'{fifo}'\n",
        words.join(" "),
        gateway(host),
    )
}

impl Agent {
    pub fn log(&self) -> String {
        self.keepalived.log()
    }

    /// kill -9 of keepalived, all of it at once.
    pub fn kill(self) {
        let Self { keepalived, mut notified } = self;
        keepalived.kill();
        wait("what it notifies ends", || notified.try_wait().unwrap().is_some());
    }

    /// SIGTERM, and the end of both.
    pub fn stop(&mut self) {
        self.keepalived.stop();
        wait("what it notifies ends", || self.notified.try_wait().unwrap().is_some());
    }
}

/// What an agent of a host without a tunnel publishes.
pub fn gateway(host: &Host) -> String {
    format!("{},ff:ff:ff:ff:ff:ff", host.ip())
}

/// Writes a gateway key as an agent's notify.py does, through etcd's HTTP gateway.
pub fn publish(etcd: &Cluster, from: &Host, vrid: &str, value: &str) {
    let body = format!(
        "{{\"key\": \"{}\", \"value\": \"{}\"}}",
        BASE64_STANDARD.encode(format!("/havip/vRouterGateway/{vrid}")),
        BASE64_STANDARD.encode(value)
    );
    let answer = from.within(|| {
        let mut stream = TcpStream::connect(etcd.address(0)).unwrap();
        stream.set_read_timeout(Some(LIMIT)).unwrap();
        let head = format!(
            "POST /v3beta/kv/put HTTP/1.1\r\nHost: {}\r\nContent-Type: application/json\r\n\
             Content-Length: {}\r\nConnection: close\r\n\r\n",
            etcd.address(0),
            body.len()
        );
        stream.write_all(format!("{head}{body}").as_bytes()).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        answer
    });
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
}

/// The local file of conf/examples for a node beside the original, for this host and this etcd.
pub fn example(etcd: &Cluster, host: &Host) -> String {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/conf/examples/beside-the-original-etcd.toml");
    let mut text = fs::read_to_string(path).unwrap();
    let run_dir = host.folder().join("run");
    let node = format!("node = \"gw{}\"\nrun_dir = \"{}\"", host.number(), run_dir.display());
    let endpoints = format!("endpoints = [\"{}\"]", etcd.address(0));
    let example = "endpoints = [\"192.0.2.11:2379\", \"192.0.2.12:2379\", \"192.0.2.13:2379\"]";
    for (from, to) in [("node = \"gw1\"", &node), (example, &endpoints)] {
        assert!(text.contains(from), "{path} has no {from}");
        text = text.replace(from, to);
    }
    let state = host.folder().join("state");
    format!("{text}\n[snapshot]\npath = \"{}\"\n", state.display())
}
