//! What this box is: for the policy, and for the gateway key that it writes when active.

use std::collections::BTreeSet;
use std::net::IpAddr;

use crate::config::{Facts, IfName};
use crate::linux::netlink::{DefaultRoutes, Requests};
use crate::node::kernel::{Address, IFA_PROTO_HAVIP, Snapshot};
use crate::wire::Mac;

/// What the kernel says of the box.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Identity {
    /// For the policy.
    pub(super) facts: Facts,
    /// Where `node_ip` is looked for when the configuration has none.
    addresses: Vec<Candidate>,
    /// MAC of the tunnel interface; all ones where it has none.
    pub(super) mac: Option<Mac>,
    /// By which the box is known from others; sorted.
    pub(super) macs: Vec<Mac>,
}

/// An address of the box's that others may know it by: no host address, no link-local one.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Candidate {
    interface: IfName,
    ip: IpAddr,
    /// The default route leaves by its network.
    leads_out: bool,
}

/// MAC addresses that tell a box: any box has fewer ports that count.
const MACS_MAX: usize = 16;

impl Identity {
    /// Asks the kernel; may take as long as its lock is held. `vips` are those of the routers that
    /// run.
    ///
    /// # Errors
    /// What a dump says.
    pub(super) fn read(
        routes: &mut DefaultRoutes,
        tunnel: &IfName,
        vips: &BTreeSet<IpAddr>,
    ) -> std::io::Result<Self> {
        let snapshot = Requests::open()?.dump()?;
        let gateways = gateways(routes, &snapshot);
        Ok(Self::of(&snapshot, gateways, tunnel, vips))
    }

    /// From what the kernel said.
    pub(super) fn of(
        snapshot: &Snapshot,
        gateways: Vec<IpAddr>,
        tunnel: &IfName,
        vips: &BTreeSet<IpAddr>,
    ) -> Self {
        // A kernel before 5.18 says of no address who put it.
        let is_ours = |address: &Address| match address.proto {
            IFA_PROTO_HAVIP => true,
            0 => vips.contains(&address.prefix.ip),
            _ => false,
        };
        let own = || snapshot.addresses.iter().filter(move |address| !is_ours(address));
        let links = || snapshot.links.iter().filter(|link| !link.loopback);
        let mac = snapshot.links.iter().find(|link| link.name == *tunnel).and_then(|link| link.mac);
        Self {
            addresses: candidates(snapshot, own(), &gateways),
            facts: Facts {
                own_addresses: own().map(|a| a.prefix.ip).collect(),
                gateways,
                interfaces: Some(links().map(|link| link.name.clone()).collect()),
                other_names: links()
                    .flat_map(|link| link.alt_names.iter().map(|alt| (alt, &link.name)))
                    .map(|(alt, name)| (alt.clone(), name.clone()))
                    .collect(),
            },
            mac: Some(mac.unwrap_or(Mac::BROADCAST)),
            macs: macs(snapshot),
        }
    }

    /// `node_ip` where the configuration has none, as the original's agents find it: on the
    /// interface that is the routers' default, else where the default route leaves.
    #[cfg_attr(not(feature = "etcd"), expect(dead_code, reason = "the store is told"))]
    pub(super) fn node_ip(&self, default_interface: Option<&str>) -> Option<IpAddr> {
        let of = |is_v4: bool| {
            let all = move || self.addresses.iter().filter(move |own| own.ip.is_ipv4() == is_v4);
            all()
                .find(|candidate| Some(candidate.interface.as_str()) == default_interface)
                .or_else(|| all().find(|candidate| candidate.leads_out))
                .or_else(|| all().next())
        };
        // The original knows of IPv4 alone.
        of(true).or_else(|| of(false)).map(|candidate| candidate.ip)
    }
}

/// The gateways of the default routes. Without them the policy knows less, and the rest of it still
/// holds.
pub(super) fn gateways(routes: &mut DefaultRoutes, snapshot: &Snapshot) -> Vec<IpAddr> {
    let tables = snapshot.links.iter().filter_map(|link| link.vrf_table);
    routes.gateways(tables).unwrap_or_default()
}

/// The addresses that were burnt into the box's ports; else, as in a virtual machine, those that
/// it was given. Bridges of containers have the same ones everywhere.
fn macs(snapshot: &Snapshot) -> Vec<Mac> {
    // IEEE 802 section 8.2.2: the bits of groups, and of addresses that were given locally. The
    // virtual routers' own (RFC 9568 section 7.3) move from box to box.
    let is_own = |mac: &Mac| mac.0[0] & 1 == 0 && mac.0 != [0; 6] && mac.0[..4] != [0, 0, 0x5e, 0];
    let of_links = || snapshot.links.iter().filter(|link| !link.loopback);
    let mut all: Vec<Mac> = of_links().filter_map(|link| link.mac).filter(is_own).collect();
    if all.iter().any(|mac| mac.0[0] & 2 == 0) {
        all.retain(|mac| mac.0[0] & 2 == 0);
    }
    all.sort_unstable();
    all.dedup();
    all.truncate(MACS_MAX);
    all
}

fn candidates<'a>(
    snapshot: &Snapshot,
    own: impl Iterator<Item = &'a Address>,
    gateways: &[IpAddr],
) -> Vec<Candidate> {
    let names = |address: &&Address| match address.prefix.ip {
        IpAddr::V4(_) => address.prefix.len < 32,
        // Not one for a while, either.
        IpAddr::V6(_) => {
            let passing = address.link_scope || address.tentative || address.secondary;
            address.prefix.len < 128 && !passing
        }
    };
    own.filter(names)
        .filter_map(|address| {
            let link = snapshot.links.iter().find(|link| link.index == address.index)?;
            (!link.loopback).then(|| Candidate {
                interface: link.name.clone(),
                ip: address.prefix.ip,
                leads_out: gateways.iter().any(|gateway| address.prefix.contains(gateway)),
            })
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Prefix;
    use crate::node::kernel::Link;
    use crate::wire::IfIndex;

    fn link(index: u32, name: &str, mac: [u8; 6]) -> Link {
        Link {
            index: IfIndex(index),
            name: IfName::new(name).unwrap(),
            up: true,
            running: true,
            loopback: name == "lo",
            mac: Some(Mac(mac)),
            mtu: 1500,
            vrf_table: None,
            master: None,
            alt_names: Vec::new(),
        }
    }

    fn address(index: u32, text: &str, proto: u8) -> Address {
        let (ip, len) = text.split_once('/').unwrap();
        let prefix = Prefix { ip: ip.parse().unwrap(), len: len.parse().unwrap() };
        Address {
            index: IfIndex(index),
            prefix,
            secondary: false,
            tentative: false,
            permanent: true,
            link_scope: false,
            proto,
        }
    }

    fn of(addresses: Vec<Address>, links: Vec<Link>, vips: &[&str]) -> Identity {
        let snapshot = Snapshot { links, addresses };
        let tunnel = IfName::new("tun0").unwrap();
        let vips = vips.iter().map(|vip| vip.parse().unwrap()).collect();
        Identity::of(&snapshot, vec![[10, 0, 0, 1].into()], &tunnel, &vips)
    }

    #[test]
    fn the_nodes_address_is_on_the_default_interface_else_where_the_default_route_leaves() {
        let links = vec![
            link(1, "lo", [0; 6]),
            link(2, "eth0", [0, 1, 2, 3, 4, 5]),
            link(3, "eth1", [0, 1, 2, 3, 4, 6]),
            link(4, "eth2", [0, 1, 2, 3, 4, 7]),
        ];
        let addresses = vec![
            address(1, "127.0.0.1/8", 0),
            address(2, "192.0.2.1/24", 0),
            address(3, "10.0.0.9/32", 0),
            address(3, "10.0.0.2/24", 0),
        ];
        let identity = of(addresses, links, &[]);
        for (interface, expected) in [
            (Some("eth0"), "192.0.2.1"),
            (Some("eth1"), "10.0.0.2"),
            (Some("eth2"), "10.0.0.2"),
            (None, "10.0.0.2"),
        ] {
            assert_eq!(identity.node_ip(interface), Some(expected.parse().unwrap()));
        }
    }

    #[test]
    fn a_box_without_ipv4_is_known_by_a_global_ipv6_address() {
        let links = vec![link(2, "eth0", [0, 1, 2, 3, 4, 5]), link(3, "eth1", [0, 1, 2, 3, 4, 6])];
        let with = |text: &str, change: fn(&mut Address)| {
            let mut address = address(3, text, 0);
            change(&mut address);
            address
        };
        let mut addresses = vec![
            with("fe80::1/64", |address| address.link_scope = true),
            with("2001:db8::5/64", |address| address.secondary = true),
            with("2001:db8::6/64", |address| address.tentative = true),
            address(3, "2001:db8::7/128", 0),
        ];
        let node_ip = |addresses: &[Address], interface| {
            of(addresses.to_vec(), links.clone(), &[]).node_ip(interface).map(|ip| ip.to_string())
        };
        assert_eq!(node_ip(&addresses, None), None);
        addresses.push(address(2, "2001:db8::9/64", 0));
        addresses.push(address(3, "2001:db8::8/64", 0));
        assert_eq!(node_ip(&addresses, None).as_deref(), Some("2001:db8::9"));
        assert_eq!(node_ip(&addresses, Some("eth1")).as_deref(), Some("2001:db8::8"));
        addresses.push(address(2, "192.0.2.1/24", 0));
        assert_eq!(node_ip(&addresses, Some("eth1")).as_deref(), Some("192.0.2.1"));
    }

    #[test]
    fn vips_are_not_the_boxs_own_whether_the_kernel_marks_them_or_not() {
        let links = vec![link(2, "eth0", [0, 1, 2, 3, 4, 5])];
        let addresses = vec![
            address(2, "192.0.2.1/24", 0),
            address(2, "192.0.2.100/32", IFA_PROTO_HAVIP),
            address(2, "192.0.2.101/32", 0),
            address(2, "192.0.2.102/32", 0),
        ];
        let own = of(addresses, links, &["192.0.2.101"]).facts.own_addresses;
        let own: Vec<String> = own.iter().map(ToString::to_string).collect();
        assert_eq!(own, ["192.0.2.1", "192.0.2.102"]);
    }

    #[test]
    fn a_box_is_known_by_the_addresses_of_its_ports_and_not_by_those_that_all_have() {
        let port = link(2, "eth0", [0, 1, 2, 3, 4, 5]);
        let bridge = link(3, "docker0", [2, 0x42, 0xac, 0x11, 0, 1]);
        let vrrp = link(4, "vrrp.1", [0, 0, 0x5e, 0, 1, 1]);
        let none = link(5, "tun0", [0; 6]);
        let all = vec![link(1, "lo", [0; 6]), none, vrrp, bridge.clone(), port];
        assert_eq!(of(Vec::new(), all, &[]).macs, [Mac([0, 1, 2, 3, 4, 5])]);
        assert_eq!(of(Vec::new(), vec![bridge], &[]).macs.len(), 1);
    }
}
