//! The words of notices: each names the thing, the place and the way out. What the status shows as
//! well has a type of its own, so that both say the same.

use std::fmt;
use std::net::IpAddr;
use std::time::Duration;

use super::{Difference, Mismatch, NotReady, Notice};
use crate::config::{IfName, Prefix};
use crate::node::flaps::FLAPS_WINDOW;
use crate::node::kernel::Errno;
use crate::node::router::Reason;
use crate::wire::Mac;
use crate::wire::vrrp::{Version, Vrid};

impl fmt::Display for Notice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Transition { router, states: (from, to), reason } => {
                write!(f, "({router}) {from} -> {to}: {reason}")
            }
            Self::NotReady { router, why } => write!(f, "({router}) not taking part: {why}"),
            Self::Reannounced { router, reason } => {
                write!(f, "({router}) announcing its addresses again: {reason}")
            }
            Self::Overslept { router, late } => write!(
                f,
                "({router}) the takeover timer fired {} ms late: this machine or process stood \
                 still; listening for one advert more",
                late.as_millis()
            ),
            Self::Misconfigured { router, src, mismatch, backup } => {
                let then = if *backup {
                    "staying backup"
                } else {
                    "both are active until one of them is changed"
                };
                write!(
                    f,
                    "({router}) {src} advertises addresses of this router {mismatch}; {then}; {}",
                    mismatch.way_out()
                )
            }
            Self::ForeignCluster { router, src, vrid } => {
                write!(f, "({router}) {}", Foreign(src, *vrid))
            }
            Self::Differs { router, src, what } => {
                write!(f, "({router}) advert from {src} {what}")
            }
            Self::ChecksumForms { router } => write!(
                f,
                "({router}) peers send both checksum forms, and one may not accept the other's; \
                 set checksum = \"both\", or change the peers"
            ),
            Self::Discarded { interface, family, src, reason, count } => {
                write!(f, "{interface}: discarded {count} {family} packet(s), {reason}")?;
                src.map_or(Ok(()), |src| write!(f, ", the last one from {src}"))
            }
            Self::Restored { router, address } => {
                let how = "was removed, or expired while this process stood still";
                write!(f, "({router}) {address} {how}; it was put back")
            }
            Self::AddressFailed { address, interface, doing, errno } => {
                write!(f, "cannot {doing} {address}")?;
                if let Some(interface) = interface {
                    write!(f, " on {interface}")?;
                }
                write!(f, ": {errno}; trying again")
            }
            Self::HeldByOther { router, other, interface, owner } => {
                write!(
                    f,
                    "({router}) {other} is on {interface} and not from havip: havip announces it \
                     as the VIP, and neither changes nor removes it"
                )?;
                if *owner {
                    return f.write_str("; priority 255 means that it is this box's own address");
                }
                let Prefix { ip, len } = other.prefix;
                write!(
                    f,
                    "; it stays there when another gateway takes over; to have havip manage the \
                     VIP, remove it (ip address del {ip}/{len} dev {interface}): havip then adds \
                     its own"
                )
            }
            Self::Vacated { router, address } => write!(
                f,
                "({router}) {address}, which was not from havip, was removed from the interface; \
                 havip adds its own"
            ),
            Self::UnfitVip { router, address, why } => {
                write!(f, "({router}) VIP {address}: {why}; choose another address")
            }
            Self::SourceChanged { router, from, to, fit } => {
                write!(f, "({router}) adverts are sent from {to} ({fit}), no longer from {from}")
            }
            Self::Leftovers { count } => {
                write!(f, "removing {count} address(es) that an earlier run left behind")
            }
            Self::NotAdvertised { router, count: 0 } => {
                write!(f, "({router}) every VIP fits into an advert again")
            }
            Self::NotAdvertised { router, count } => write!(
                f,
                "({router}) {count} VIP(s) do not fit into an advert: they are on the interface, but \
                 not advertised; raise its MTU, or move them to vips_excluded or to another router"
            ),
            Self::AddressConflict { router, address, ours, theirs } => {
                write!(f, "({router}) {}", Conflict { address, ours: *ours, theirs: *theirs })
            }
            Self::OwnAddress { interface, address, mac } => {
                write!(f, "{interface}: {}", OwnAddress(address, *mac))
            }
            Self::Stray { router, address, interface, is_own } => {
                write!(f, "({router}) {}", Stray { address, interface, is_own: *is_own })
            }
            Self::DoesNotYield { router, src } => write!(f, "({router}) {}", DoesNotYield(src)),
            Self::SendFailed { interface, errno, count } => {
                write!(f, "{interface}: {count} packet(s) not sent: {errno}")
            }
            Self::DumpFailed { errno } => {
                write!(f, "cannot read links and addresses from the kernel: {errno}; trying again")
            }
            Self::Overrun => {
                f.write_str("the kernel's notifications overflowed: reading everything again")
            }
            Self::Rejoined { interface, family } => write!(
                f,
                "{interface}: the kernel had lost the membership of the {family} VRRP group, so that \
                 no advert was received; havip joined it again"
            ),
            Self::Flapping { router, count, state } => write!(
                f,
                "({router}) its state changed {count} more times within {} s, which are not logged one \
                 by one; it is {state} now; look for a link, an address or a peer that comes and \
                 goes",
                FLAPS_WINDOW.as_secs()
            ),
            Self::After { left_out, notice } => write!(
                f,
                "{notice} ({left_out} more of this kind were not logged since the last one)"
            ),
            Self::Stopping => f.write_str("giving up all routers"),
        }
    }
}

/// Another cluster with the same VRID, in words.
pub(in crate::node) struct Foreign<'a>(pub(in crate::node) &'a IpAddr, pub(in crate::node) Vrid);

impl fmt::Display for Foreign<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(src, vrid) = self;
        write!(
            f,
            "{src} advertises VRID {vrid} with other addresses and none of this router's: it is \
             another cluster on this link, and its adverts are ignored here; give one of the two \
             clusters another VRID"
        )
    }
}

/// Two who have one address, in words.
pub(in crate::node) struct Conflict<'a> {
    pub(in crate::node) address: &'a IpAddr,
    pub(in crate::node) ours: Option<Mac>,
    pub(in crate::node) theirs: Mac,
}

impl fmt::Display for Conflict<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { address, ours, theirs } = self;
        write!(f, "the host with MAC {theirs} answers for {address} as well")?;
        if let Some(ours) = ours {
            write!(f, ", which is here at MAC {ours}")?;
        }
        f.write_str(
            ": two hosts have it; find that host and remove the address there; or, if it is another \
             gateway of this router, its adverts do not arrive here: look for a firewall rule that \
             drops IP protocol 112, for rp_filter where their own addresses share no subnet, and \
             for the same own address on both",
        )
    }
}

/// A VIP on a box that is not active for it, in words.
pub(in crate::node) struct Stray<'a> {
    pub(in crate::node) address: &'a Prefix,
    pub(in crate::node) interface: &'a IfName,
    pub(in crate::node) is_own: bool,
}

impl fmt::Display for Stray<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { address: Prefix { ip, len }, interface, is_own } = self;
        if *is_own {
            return write!(
                f,
                "{ip}/{len} on {interface} is a VIP of this router, and this box has no other \
                 address of its own in that subnet: this box answers for it beside the active \
                 gateway; if it is this box's own address, give the router priority 255 here (it \
                 owns the address then, RFC 9568), or another VIP on all gateways; if another \
                 program left it, remove it"
            );
        }
        write!(
            f,
            "{ip}/{len} is on {interface} of this box, though this router is not active here, and \
             it is not from havip: this box answers for it beside the active gateway; remove it: \
             ip addr del {ip}/{len} dev {interface}"
        )
    }
}

/// Another who has the address that adverts are sent from, in words.
pub(in crate::node) struct OwnAddress<'a>(pub(in crate::node) &'a IpAddr, pub(in crate::node) Mac);

impl fmt::Display for OwnAddress<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(address, mac) = self;
        write!(
            f,
            "the host with MAC {mac} has {address} as well, from which this gateway sends its \
             adverts; gateways with the same address cannot reliably tell each other's adverts \
             from their own; give one of the two hosts another address"
        )
    }
}

/// An active router of less precedence that does not yield, in words.
pub(in crate::node) struct DoesNotYield<'a>(pub(in crate::node) &'a IpAddr);

impl fmt::Display for DoesNotYield<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} is active as well, has less precedence and does not yield: it does not hear this \
             gateway; look there for a firewall rule that drops IP protocol 112, for rp_filter, \
             and for a switch that does not pass multicast",
            self.0
        )
    }
}

/// Packets that could not be sent, in words: why, and how long ago the last one failed.
pub(in crate::node) struct NotSent(pub(in crate::node) Errno, pub(in crate::node) Duration);

impl fmt::Display for NotSent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(errno, ago) = self;
        write!(
            f,
            "packets could not be sent, the last one {} s ago: {errno}; look for a firewall rule, or \
             a full queue or table, that stops IP protocol 112, ARP or neighbour advertisements: \
             without the latter, hosts do not learn which gateway has the VIPs",
            ago.as_secs()
        )
    }
}

/// A VIP that the kernel does not take, in words.
pub(in crate::node) struct CannotPlace<'a>(
    pub(in crate::node) &'a Prefix,
    pub(in crate::node) Errno,
);

impl fmt::Display for CannotPlace<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(address, errno) = self;
        let way_out = match (errno.0, address.ip) {
            (1, _) => "give havip the capability CAP_NET_ADMIN",
            (13 | 95 | 97, IpAddr::V6(_)) => {
                "IPv6 seems to be disabled: see sysctl net.ipv6.conf.INTERFACE.disable_ipv6"
            }
            _ => "try it by hand, with ip addr add, and see the kernel's log",
        };
        write!(f, "{address} cannot be put on its interface: {errno}; {way_out}")
    }
}

impl fmt::Display for NotReady {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Starting => f.write_str("starting"),
            Self::NoInterface => f.write_str("its interface does not exist"),
            Self::OtherName { name, real } => write!(
                f,
                "{name} is another name of the interface {real}; write interface = \"{real}\""
            ),
            Self::Loopback(name) => write!(
                f,
                "{name} is the loopback interface, where no other gateway is; name another \
                 interface"
            ),
            Self::PortOf { port, kind, master } => write!(
                f,
                "{port} is a port of {} {master}, which takes what {port} receives; set \
                 interface = \"{master}\", and move the addresses of {port} to it",
                kind.name()
            ),
            Self::LinkDown => f.write_str("its interface is down"),
            Self::NoCarrier => f.write_str("its interface has no carrier"),
            Self::NoAddress => f.write_str(
                "its interface has no address to send from (IPv4: a primary address, IPv6: a \
                 link-local one that is not tentative)",
            ),
            Self::SocketsOpening => f.write_str("its sockets are being opened"),
            Self::SocketsFailed(errno) => write!(f, "its sockets could not be opened: {errno}"),
            Self::SendFails(errno) => write!(
                f,
                "its adverts cannot be sent: {errno}; look for a firewall rule, or a full queue or \
                 table, that stops IP protocol 112; trying again each second"
            ),
            Self::CannotPlace(address, errno) => write!(
                f,
                "{}; this router gave way so that another gateway can take over; trying again after a \
                 pause that doubles, up to a minute",
                CannotPlace(address, *errno)
            ),
            Self::Fought(address) => write!(
                f,
                "another program removes {address} as often as it is put back; find it (ip monitor \
                 address shows when), and have it leave the interface alone; trying again after \
                 30 s"
            ),
            Self::Stopping => f.write_str("the daemon is stopping"),
        }
    }
}

impl fmt::Display for Mismatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Version(version) => write!(f, "in {version}"),
            Self::Auth(what) => write!(f, "with {what}"),
            Self::Interval(interval) => write!(f, "every {interval} s"),
            Self::Unicast => f.write_str("to this box alone (it sends unicast)"),
            Self::Vrid { theirs, .. } => write!(f, "under VRID {theirs}"),
        }
    }
}

impl Mismatch {
    /// One for each kind.
    pub(super) const fn number(self) -> u64 {
        match self {
            Self::Version(_) => 0,
            Self::Auth(_) => 1,
            Self::Interval(_) => 2,
            Self::Unicast => 3,
            Self::Vrid { .. } => 4,
        }
    }

    pub(in crate::node) fn way_out(self) -> String {
        match self {
            Self::Version(version) => {
                let profile = if version == Version::V2 {
                    " (beside agents of the original havip: profile = \"original\")"
                } else {
                    ""
                };
                format!("set version = \"{}\"{profile} here", version.number())
            }
            Self::Auth(_) => "set the same auth_pass on all gateways".to_owned(),
            Self::Interval(interval) => format!("set advert_interval = {interval} here"),
            Self::Unicast => {
                "remove unicast_peer from its keepalived.conf: havip does not support unicast yet, \
                 and a peer that sends unicast does not hear adverts to the group"
                    .to_owned()
            }
            Self::Vrid { theirs, ours } => format!(
                "give both gateways the same VRID for these addresses ({theirs} there, {ours} here), \
                 or each its own addresses"
            ),
        }
    }
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Interval(interval) => {
                write!(f, "has another interval, {interval} s; set the same on all gateways")
            }
            Self::Addresses => {
                f.write_str("lists other addresses; set the same vips on all gateways")
            }
        }
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Startup => f.write_str("ready"),
            Self::Owner => f.write_str("priority 255 owns its addresses"),
            Self::NoResponse => f.write_str("no active router was heard"),
            Self::Resigned => f.write_str("the active router gave up"),
            Self::Preempted => f.write_str("this router has the higher priority"),
            Self::Outranked(src) => write!(f, "{src} has precedence"),
            Self::ConflictWon(src) => write!(f, "{src} was active as well, with less precedence"),
            Self::Overslept => f.write_str("this machine or process stood still for too long"),
            Self::SendsAgain => f.write_str("its adverts can be sent again"),
            Self::LinkBack => f.write_str("its link is back"),
            Self::NewMac => f.write_str("its interface has another MAC address"),
            Self::Shutdown => f.write_str("not ready any more"),
        }
    }
}

impl fmt::Display for Errno {
    /// A name for those that are likely here, else the number.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = match self.0 {
            1 => "operation not permitted (EPERM)",
            2 => "no such thing (ENOENT)",
            4 => "changed while it was read (EINTR)",
            5 => "no answer from the kernel (EIO)",
            11 => "queue full (EAGAIN)",
            12 => "out of memory (ENOMEM)",
            13 => "permission denied (EACCES)",
            17 => "exists already (EEXIST)",
            19 => "no such interface (ENODEV)",
            22 => "invalid argument (EINVAL)",
            23 => "the box's limit of open files (ENFILE): raise sysctl fs.file-max",
            24 => "the limit of open files (EMFILE): raise LimitNOFILE= or ulimit -n",
            90 => "packet too long (EMSGSIZE)",
            99 => "address not there (EADDRNOTAVAIL)",
            100 => "interface is down (ENETDOWN)",
            101 => "network unreachable (ENETUNREACH)",
            105 => "no buffer space (ENOBUFS)",
            number => return write!(f, "kernel error {number}"),
        };
        f.write_str(name)
    }
}
