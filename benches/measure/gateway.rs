//! A gateway of either kind, with the same routers.

#![allow(dead_code, reason = "each benchmark uses its part")]

use std::fs;

use crate::lab::peer::Keepalived;
use crate::lab::{Daemon, Host};

/// The VIP of a router: 10.77.0.1 and up, in no network of the hosts', so that they cost no route.
pub(crate) fn vip(number: usize) -> String {
    format!("10.77.{}.{}", number / 250, number % 250 + 1)
}

/// How many of them a host has.
pub(crate) fn vips(host: &Host) -> usize {
    let ours = |ip: std::net::IpAddr| ip.to_string().starts_with("10.77.");
    host.snapshot().addresses.iter().filter(|address| ours(address.prefix.ip)).count()
}

fn havip_config(host: &Host, routers: usize, interval: &str, priority: u8) -> String {
    let number = host.number();
    let names: Vec<String> = (1..=routers).map(|vrid| vrid.to_string()).collect();
    let mut text = format!(
        "[havip]\nnode = \"gw{number}\"\nrun_dir = \"{}\"\n[node.gw{number}]\nvrids = [{}]\n\n\
         [virtual_router.default]\ninterface = \"eth0\"\nadvert_interval = {interval}\n\
         priority = {priority}\n",
        host.folder().join("run").display(),
        names.join(", ")
    );
    for vrid in 1..=routers {
        text += &format!("\n[virtual_router.{vrid}]\nvips = [\"{}\"]\n", vip(vrid));
    }
    text
}

fn keepalived_config(routers: usize, interval: &str, priority: u8) -> String {
    let mut text = String::from("global_defs {\n  vrrp_version 3\n}\n");
    for vrid in 1..=routers {
        text += &format!(
            "vrrp_instance VI_{vrid} {{\n  state BACKUP\n  interface eth0\n  \
             virtual_router_id {vrid}\n  priority {priority}\n  advert_int {interval}\n  \
             virtual_ipaddress {{\n    {}/32\n  }}\n}}\n",
            vip(vrid)
        );
    }
    text
}

/// A running gateway.
pub(crate) enum Gateway {
    Havip(Daemon),
    Keepalived(Keepalived),
}

impl Gateway {
    /// As each program is by default, but for the interval.
    pub(crate) fn start(
        keepalived: bool,
        host: &Host,
        routers: usize,
        interval: &str,
        priority: u8,
    ) -> Self {
        if keepalived {
            Self::Keepalived(Keepalived::run(host, &keepalived_config(routers, interval, priority)))
        } else {
            Self::Havip(host.daemon_of(&havip_config(host, routers, interval, priority)))
        }
    }

    /// All of its processes.
    pub(crate) fn processes(&self) -> Vec<u32> {
        let mut all = vec![match self {
            Self::Havip(daemon) => daemon.pid(),
            Self::Keepalived(daemon) => daemon.pid(),
        }];
        let mut next = 0;
        while let Some(pid) = all.get(next) {
            let children = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children"));
            all.extend(children.unwrap_or_default().split_whitespace().flat_map(str::parse::<u32>));
            next += 1;
        }
        all
    }

    /// kill -9 of all that could speak.
    pub(crate) fn kill(self) {
        match self {
            Self::Havip(mut daemon) => daemon.kill(),
            Self::Keepalived(daemon) => daemon.kill(),
        }
    }

    /// SIGTERM, and its end.
    pub(crate) fn stop(mut self) {
        match &mut self {
            Self::Havip(daemon) => _ = daemon.stop(),
            Self::Keepalived(daemon) => daemon.stop(),
        }
    }
}
