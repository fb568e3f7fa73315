//! What the store may do on this box: decided locally, and by what the box is.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use super::model::{IfName, Prefix};
use crate::wire::Family;

/// The widest prefix that the store may give a VIP.
const LEAST_V4: u8 = 8;
const LEAST_V6: u8 = 16;

/// `[policy]` of the local file. An absent list allows everything that is not refused anyway.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Policy {
    /// Interfaces that the store may name; `*` at the end stands for any rest.
    pub interfaces: Option<Vec<String>>,
    /// Networks that the store's VIPs must lie in.
    pub addresses: Option<Vec<Prefix>>,
    /// Keys that the store may set.
    pub features: Option<Vec<String>>,
}

/// What the box is, as far as a configuration asks.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Facts {
    /// Its addresses, without VIPs.
    pub own_addresses: Vec<IpAddr>,
    /// Its default gateways.
    pub gateways: Vec<IpAddr>,
    /// Its interfaces that are no loopback, where that is known.
    pub interfaces: Option<BTreeSet<IfName>>,
    /// Other names that some of them go by.
    pub other_names: BTreeMap<IfName, IfName>,
}

impl Policy {
    /// # Errors
    /// Why the store may not put VIPs on it.
    pub fn allows_interface(&self, name: &IfName) -> Result<(), String> {
        let name = name.as_str();
        if name == "lo" {
            return Err("the store may not put VIPs on lo".into());
        }
        let matches = |pattern: &String| match pattern.strip_suffix('*') {
            Some(start) => name.starts_with(start),
            None => name == pattern,
        };
        match &self.interfaces {
            Some(patterns) if !patterns.iter().any(matches) => Err(format!(
                "the store may not use {name}: [policy] interfaces in the local file does not \
                 list it"
            )),
            Some(_) | None => Ok(()),
        }
    }

    /// # Errors
    /// Why the store may not make it a VIP.
    pub fn allows_vip(&self, vip: &Prefix, facts: &Facts) -> Result<(), String> {
        let ip = &vip.ip;
        let least = match Family::of(ip) {
            Family::V4 => LEAST_V4,
            Family::V6 => LEAST_V6,
        };
        if vip.len < least {
            // A VIP gets an on-link route of its whole prefix.
            return Err(format!(
                "{vip}: the store may not route a network wider than /{least} to an interface; if \
                 that is meant, list it in the local file"
            ));
        }
        if facts.own_addresses.contains(ip) {
            return Err(format!(
                "{ip} is this box's own address, which the store may not make a VIP; if that is \
                 meant, list it in the local file"
            ));
        }
        if facts.gateways.contains(ip) {
            return Err(format!(
                "{ip} is this box's default gateway, which the store may not make a VIP; if that \
                 is meant, list it in the local file"
            ));
        }
        match &self.addresses {
            Some(networks) if !networks.iter().any(|network| network.covers(vip)) => Err(format!(
                "the store may not use {vip}: it lies in no network of [policy] addresses in \
                 the local file"
            )),
            Some(_) | None => Ok(()),
        }
    }

    /// # Errors
    /// Why the store may not set it.
    pub fn allows_key(&self, key: &str) -> Result<(), String> {
        match &self.features {
            Some(features) if !features.iter().any(|feature| feature == key) => Err(format!(
                "the store may not set {key}: [policy] features in the local file does not list it"
            )),
            Some(_) | None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_match_whole_names_or_beginnings() {
        let policy =
            Policy { interfaces: Some(vec!["eth0".into(), "vlan*".into()]), ..Policy::default() };
        let allows = |name| policy.allows_interface(&IfName::new(name).unwrap()).is_ok();
        assert!(allows("eth0") && allows("vlan7") && !allows("eth1") && !allows("eth00"));
        assert!(Policy::default().allows_interface(&IfName::new("lo").unwrap()).is_err());
    }
}
