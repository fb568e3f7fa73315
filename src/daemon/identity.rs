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
    /// By which the box is known from others; sorted.
    pub(super) macs: Vec<Mac>,
}

/// MAC addresses that tell a box: any box has fewer ports that count.
const MACS_MAX: usize = 16;

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
            macs: macs(snapshot),
        }
    }
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
