//! What this box is: for the policy, and for the gateway key that it writes when active.

use std::net::IpAddr;

use crate::config::{Facts, IfName};
use crate::linux::netlink::{Requests, default_gateways};
use crate::node::kernel::{Address, IFA_PROTO_HAVIP, Snapshot};
use crate::wire::Mac;

/// What the kernel says of the box.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Identity {
    /// For the policy.
    pub(super) facts: Facts,
    /// `node_ip` where the configuration has none: as the original's agents find it.
    pub(super) node_ip: Option<IpAddr>,
    /// MAC of the tunnel interface; all ones where it has none.
    pub(super) mac: Option<Mac>,
}

impl Identity {
    /// Asks the kernel; may take as long as its lock is held.
    ///
    /// # Errors
    /// What a dump says.
    pub(super) fn read(tunnel: &IfName) -> std::io::Result<Self> {
        let snapshot = Requests::open()?.dump()?;
        // Without them the policy knows less, and the rest of it still holds.
        let gateways = default_gateways().unwrap_or_default();
        Ok(Self::of(&snapshot, gateways, tunnel))
    }

    /// From what the kernel said.
    pub(super) fn of(snapshot: &Snapshot, gateways: Vec<IpAddr>, tunnel: &IfName) -> Self {
        let own = || snapshot.addresses.iter().filter(|address| address.proto != IFA_PROTO_HAVIP);
        let mac = snapshot.links.iter().find(|link| link.name == *tunnel).and_then(|link| link.mac);
        Self {
            node_ip: node_ip(snapshot, own(), &gateways),
            facts: Facts { own_addresses: own().map(|a| a.prefix.ip).collect(), gateways },
            mac: Some(mac.unwrap_or(Mac::BROADCAST)),
        }
    }
}

/// The first IPv4 address that is no host address, of the interface that the default route
/// leaves by; else of any other but loopback.
fn node_ip<'a>(
    snapshot: &Snapshot,
    own: impl Iterator<Item = &'a Address> + Clone,
    gateways: &[IpAddr],
) -> Option<IpAddr> {
    let loopback = |address: &Address| {
        snapshot.links.iter().any(|link| link.index == address.index && link.loopback)
    };
    let usable = own
        .filter(|address| address.prefix.ip.is_ipv4() && address.prefix.len < 32)
        .filter(|address| !loopback(address));
    let first = usable.clone().next();
    usable
        .clone()
        .find(|address| gateways.iter().any(|gateway| address.prefix.contains(gateway)))
        .or(first)
        .map(|address| address.prefix.ip)
}
