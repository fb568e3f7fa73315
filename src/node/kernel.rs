//! What the node knows of the kernel and wants from it, as plain values: the language between the
//! pure core and the threads that speak netlink.

use std::fmt;
use std::net::IpAddr;

use super::Instant;
use crate::config::{IfName, Prefix};
use crate::wire::{Family, IfIndex, Mac};

/// IFA_PROTO of the addresses that havip puts on interfaces (kernel 5.18 and newer), and protocol
/// of its routes.
pub const IFA_PROTO_HAVIP: u8 = 0x48;
/// Metric of havip's on-link routes: a route of anybody else to the same network goes before.
pub const ROUTE_METRIC: u32 = 18_432;
/// The routing table of an interface that is in no VRF.
pub const MAIN_TABLE: u32 = 254;

/// A network interface as the kernel reports it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Link {
    /// Its index, new at each creation.
    pub index: IfIndex,
    /// Its present name.
    pub name: IfName,
    /// Administratively up (IFF_UP).
    pub up: bool,
    /// Has carrier and may carry packets (IFF_LOWER_UP, and operstate up or unknown).
    pub running: bool,
    /// IFF_LOOPBACK.
    pub loopback: bool,
    /// Ethernet address; `None` on links without one of six bytes.
    pub mac: Option<Mac>,
    /// Bytes.
    pub mtu: u32,
    /// Number of the routing table of the VRF that it is in, if it is in one.
    pub vrf_table: Option<u32>,
    /// What it is a port of, or whose routing table it uses.
    pub master: Option<Master>,
    /// Other names that it goes by (IFLA_ALT_IFNAME), as far as a configuration can have them.
    pub alt_names: Vec<IfName>,
}

/// A link's master (IFLA_MASTER).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Master {
    /// Which link that is.
    pub index: IfIndex,
    /// What it does with the packets of its ports.
    pub kind: MasterKind,
}

/// Kinds of masters (IFLA_INFO_SLAVE_KIND).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MasterKind {
    /// A routing table of its own: its members have their addresses and packets themselves.
    Vrf,
    /// Takes what its ports receive.
    Bridge,
    /// The same.
    Bond,
    /// The same.
    Team,
    /// The same.
    OpenVswitch,
    /// One that is not known by name; taken for one that takes what its ports receive.
    Other,
}

impl MasterKind {
    /// As the kernel names it, if it does.
    #[must_use]
    pub fn of(name: Option<&[u8]>) -> Self {
        match name {
            Some(b"vrf") => Self::Vrf,
            Some(b"bridge") => Self::Bridge,
            Some(b"bond") => Self::Bond,
            Some(b"team") => Self::Team,
            Some(b"openvswitch") => Self::OpenVswitch,
            Some(_) | None => Self::Other,
        }
    }

    /// In words, to stand before its name.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Vrf => "VRF",
            Self::Bridge => "bridge",
            Self::Bond => "bond",
            Self::Team => "team",
            Self::OpenVswitch => "Open vSwitch",
            Self::Other => "interface",
        }
    }
}

/// An address on an interface as the kernel reports it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Address {
    /// Where it is.
    pub index: IfIndex,
    /// The local address and its prefix length.
    pub prefix: Prefix,
    /// IFA_F_SECONDARY on IPv4 (on IPv6 that bit means temporary, also true here).
    pub secondary: bool,
    /// IFA_F_TENTATIVE or IFA_F_DADFAILED: not to be used yet, or at all.
    pub tentative: bool,
    /// IFA_F_PERMANENT: has no lifetime.
    pub permanent: bool,
    /// RT_SCOPE_LINK: a link-local address.
    pub link_scope: bool,
    /// IFA_PROTO; 0 where the kernel has none.
    pub proto: u8,
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Prefix { ip, len } = self.prefix;
        let life = if self.permanent { "permanent" } else { "with a lifetime" };
        // linux/if_addr.h.
        let origin = match self.proto {
            1 => ", of the loopback interface",
            2 => ", from a router advertisement",
            3 => ", link-local, from the kernel",
            _ => "",
        };
        let unusable = match self.tentative {
            true => ", not usable: duplicate address detection runs or has failed",
            false => "",
        };
        write!(f, "{ip}/{len} ({life}{origin}{unusable})")
    }
}

/// All links and addresses, from one dump.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Snapshot {
    /// Every link.
    pub links: Vec<Link>,
    /// Every address of both families, in the kernel's order.
    pub addresses: Vec<Address>,
}

/// One change that the kernel reported.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// RTM_NEWLINK: new or changed.
    Link(Link),
    /// RTM_DELLINK.
    LinkGone(IfIndex),
    /// RTM_NEWADDR: new or changed, renewals included.
    Address(Address),
    /// RTM_DELADDR, of whatever cause: taken away, or its lifetime ran out.
    AddressGone {
        /// Where it was.
        index: IfIndex,
        /// Which it was.
        prefix: Prefix,
    },
    /// Notifications were lost (ENOBUFS): only a dump tells what is.
    Overrun,
}

/// What is to be done with one address, or with the on-link route that goes with it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verb {
    /// RTM_NEWADDR with NLM_F_CREATE | NLM_F_EXCL: where such an address is there already, the
    /// answer is EEXIST, and it stays as it is. IPv6 with IFA_F_NODAD and preferred lifetime 0.
    Add {
        /// Seconds that the kernel keeps it; `None`: for ever.
        lifetime: Option<u32>,
    },
    /// RTM_NEWADDR with NLM_F_REPLACE: gives an address of ours another lifetime.
    Renew {
        /// As in [`Verb::Add`].
        lifetime: Option<u32>,
    },
    /// RTM_DELADDR with the exact local address, prefix length and scope.
    Remove,
    /// RTM_NEWROUTE: the network of the operation's prefix is on this link. Of havip's own protocol
    /// number and [`ROUTE_METRIC`]; IPv4 with the address as preferred source.
    Route {
        /// The routing table.
        table: u32,
        /// Seconds that the kernel keeps it, for IPv6; an IPv4 route goes with its address.
        lifetime: Option<u32>,
        /// Whether it is there and ours, and gets another lifetime. Else the answer is EEXIST where
        /// there is such a route already.
        again: bool,
    },
    /// RTM_DELROUTE of exactly that route.
    Unroute {
        /// The routing table.
        table: u32,
    },
}

impl Verb {
    /// What is done, in words that an address follows.
    #[must_use]
    pub const fn doing(self) -> &'static str {
        match self {
            Self::Add { .. } => "add",
            Self::Renew { .. } => "renew",
            Self::Remove => "remove",
            Self::Route { .. } => "add the on-link route of",
            Self::Unroute { .. } => "remove the on-link route of",
        }
    }
}

/// One operation on one address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Op {
    /// On which interface.
    pub index: IfIndex,
    /// Which address; for a route, with the prefix length of its network.
    pub prefix: Prefix,
    /// What to do.
    pub verb: Verb,
}

/// Whether the kernel may answer for a VIP.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Gate {
    /// Until then, unless it is told again.
    OpenUntil(Instant),
    /// No.
    Shut,
    /// As if there were no fence.
    Gone,
}

/// A way through the fence.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Passage {
    /// On this interface,
    pub index: IfIndex,
    /// for this address.
    pub ip: IpAddr,
    /// Whether it is open.
    pub gate: Gate,
}

/// A kernel error number as the system call or the netlink acknowledgement gave it, positive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Errno(pub i32);

impl Errno {
    /// Whether the kernel would say the same again a moment later: EPERM, EACCES (IPv6 is disabled),
    /// EINVAL, EOPNOTSUPP, EAFNOSUPPORT.
    #[must_use]
    pub const fn is_lasting(self) -> bool {
        matches!(self.0, 1 | 13 | 22 | 95 | 97)
    }

    /// Whether it says that the link, or what is needed there, is gone: ENXIO, ENODEV, EADDRNOTAVAIL,
    /// ENETDOWN, ENETUNREACH.
    #[must_use]
    pub const fn is_lost_link(self) -> bool {
        matches!(self.0, 6 | 19 | 99..=101)
    }
}

/// Sockets of one interface and family that a router needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Port {
    /// Which interface.
    pub index: IfIndex,
    /// Which family.
    pub family: Family,
}
