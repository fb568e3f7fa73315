//! What the core wants logged, as typed values: tests read them, and the thread that sends
//! adverts formats nothing. The kinds are here, how often they are told is in `limits`, and what
//! they say in `words`.

mod limits;
mod words;

use std::net::IpAddr;
use std::time::Duration;

use super::kernel::{Address, Errno, MasterKind};
use super::router::Reason;
use super::source::Fit;
use crate::config::{IfName, Prefix, RouterName};
use crate::wire::vrrp::{Centis, Discard, Version, Vrid};
use crate::wire::{Family, Mac};

pub(super) use limits::Limits;
pub(super) use words::{CannotPlace, Conflict, DoesNotYield, Foreign, NotSent, OwnAddress, Stray};

/// How loud a notice is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// Something does not work, and someone has to do something.
    Error,
    /// Something is not as it should be.
    Warn,
    /// What an operator wants to read afterwards.
    Info,
}

/// Something worth a line in the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Notice {
    /// A router changed its state.
    Transition {
        /// Which.
        router: RouterName,
        /// From and to.
        states: (&'static str, &'static str),
        /// Why.
        reason: Reason,
    },
    /// A router cannot take part.
    NotReady {
        /// Which.
        router: RouterName,
        /// What is missing.
        why: NotReady,
    },
    /// A router that others believed inactive announces its addresses again.
    Reannounced {
        /// Which.
        router: RouterName,
        /// Why.
        reason: Reason,
    },
    /// The takeover timer fired late; listening for one advert more.
    Overslept {
        /// Which.
        router: RouterName,
        /// How late.
        late: Duration,
    },
    /// An advert names this router's addresses but is configured otherwise.
    Misconfigured {
        /// Which.
        router: RouterName,
        /// The sender.
        src: IpAddr,
        /// What differs.
        mismatch: Mismatch,
        /// Whether this router stays backup because of it (else it is active, and both are).
        backup: bool,
    },
    /// An advert for this VRID, of another kind, names none of its addresses.
    ForeignCluster {
        /// Which router has the same VRID.
        router: RouterName,
        /// The sender.
        src: IpAddr,
        /// That VRID.
        vrid: Vrid,
    },
    /// An accepted advert differs from what is configured here.
    Differs {
        /// Which.
        router: RouterName,
        /// The sender.
        src: IpAddr,
        /// In what.
        what: Difference,
    },
    /// No single checksum form serves everybody who was heard.
    ChecksumForms {
        /// Which.
        router: RouterName,
    },
    /// Packets were discarded.
    Discarded {
        /// Where they came in.
        interface: IfName,
        /// Their family.
        family: Family,
        /// The sender of the last one.
        src: Option<IpAddr>,
        /// Which rule it broke.
        reason: Discard,
        /// How many so far.
        count: u64,
    },
    /// A VIP was gone, by another hand or since it expired while all stood still; it is back.
    Restored {
        /// Whose.
        router: RouterName,
        /// Which.
        address: Prefix,
    },
    /// An address could not be added, renewed or removed.
    AddressFailed {
        /// Which.
        address: Prefix,
        /// On which interface, if it is still there.
        interface: Option<IfName>,
        /// As [`super::kernel::Verb::doing`] has it.
        doing: &'static str,
        /// Why.
        errno: Errno,
    },
    /// A VIP is on the interface already, and not from havip.
    HeldByOther {
        /// Whose.
        router: RouterName,
        /// What is there.
        other: Address,
        /// Where.
        interface: IfName,
        /// Whether the router has priority 255, whose VIPs are the box's own addresses.
        owner: bool,
    },
    /// Another's address that was a VIP is gone, and havip's own is put.
    Vacated {
        /// Whose.
        router: RouterName,
        /// Which.
        address: IpAddr,
    },
    /// A VIP is one that no host can have, by what the interface's own addresses say.
    UnfitVip {
        /// Whose.
        router: RouterName,
        /// Which.
        address: IpAddr,
        /// What is wrong with it.
        why: &'static str,
    },
    /// Adverts are sent from another address.
    SourceChanged {
        /// Whose.
        router: RouterName,
        /// Before.
        from: IpAddr,
        /// Now.
        to: IpAddr,
        /// Why this one.
        fit: Fit,
    },
    /// Addresses of an earlier run were found.
    Leftovers {
        /// How many.
        count: usize,
    },
    /// More VIPs than an advert can carry; 0: all of them fit again.
    NotAdvertised {
        /// Whose.
        router: RouterName,
        /// How many are held without being advertised.
        count: usize,
    },
    /// Another says that a VIP of an active router is his.
    AddressConflict {
        /// Whose.
        router: RouterName,
        /// Which.
        address: IpAddr,
        /// The interface's MAC.
        ours: Option<Mac>,
        /// Where the other says it is.
        theirs: Mac,
    },
    /// A VIP of a router that is not active is on this box, and not from havip.
    Stray {
        /// Whose.
        router: RouterName,
        /// Which, with its prefix length.
        address: Prefix,
        /// Where.
        interface: IfName,
        /// Whether it is the only address that the box itself has in that subnet.
        is_own: bool,
    },
    /// Another has the address that adverts are sent from.
    OwnAddress {
        /// Where both are.
        interface: IfName,
        /// Which.
        address: IpAddr,
        /// The other's.
        mac: Mac,
    },
    /// Another active router goes on though this one has precedence.
    DoesNotYield {
        /// Which.
        router: RouterName,
        /// The other's address.
        src: IpAddr,
    },
    /// Packets could not be sent.
    SendFailed {
        /// Where.
        interface: IfName,
        /// Why.
        errno: Errno,
        /// How many so far.
        count: u64,
    },
    /// Reading links and addresses failed.
    DumpFailed {
        /// Why.
        errno: Errno,
    },
    /// The kernel's notifications overflowed; everything is read again.
    Overrun,
    /// The kernel had lost the membership of the VRRP group; it was joined again.
    Rejoined {
        /// Where.
        interface: IfName,
        /// Whose group.
        family: Family,
    },
    /// A router's state changed so often that not each change was told.
    Flapping {
        /// Whose.
        router: RouterName,
        /// Changes, and reasons not to take part, that were not told.
        count: u32,
        /// Its state now.
        state: &'static str,
    },
    /// Another, before which some of its kind about the same thing were not told.
    After {
        /// How many.
        left_out: u64,
        /// That one.
        notice: Box<Self>,
    },
    /// Everything is given up; the daemon is about to end.
    Stopping,
}

/// Why a router does not take part.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NotReady {
    /// The kernel's links and addresses are not read yet, or leftovers not removed.
    Starting,
    /// No such interface.
    NoInterface,
    /// There is none of that name, and this one goes by it, too.
    OtherName {
        /// What is configured.
        name: IfName,
        /// What it is called.
        real: IfName,
    },
    /// It is the loopback interface.
    Loopback(IfName),
    /// It is a port: what it receives is its master's.
    PortOf {
        /// What is configured.
        port: IfName,
        /// What the master is.
        kind: MasterKind,
        /// The master.
        master: IfName,
    },
    /// It is administratively down.
    LinkDown,
    /// It has no carrier, or is dormant.
    NoCarrier,
    /// It has no primary IPv4 address, or no usable link-local IPv6 address.
    NoAddress,
    /// Its sockets are being opened.
    SocketsOpening,
    /// Its sockets could not be opened.
    SocketsFailed(Errno),
    /// Its adverts could not be sent, one after the other.
    SendFails(Errno),
    /// The kernel does not take this address.
    CannotPlace(Prefix, Errno),
    /// Someone takes this address away as often as it is put back.
    Fought(Prefix),
    /// The daemon is stopping.
    Stopping,
}

/// In what an advert of our own cluster is configured otherwise.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mismatch {
    /// The sender's version.
    Version(Version),
    /// The sender authenticates otherwise: none, a password, another type, or another password.
    Auth(&'static str),
    /// The sender's interval (version 2, which requires it to be equal).
    Interval(Centis),
    /// It sends to this box alone, and so hears nothing that goes to the group.
    Unicast,
    /// The sender's VRID, and this router's.
    Vrid {
        /// Its.
        theirs: Vrid,
        /// Ours.
        ours: Vrid,
    },
}

/// In what an accepted advert differs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Difference {
    /// The sender's interval; version 3 learns it.
    Interval(Centis),
    /// The list of addresses.
    Addresses,
}

impl Notice {
    /// How loud it is.
    #[must_use]
    pub const fn level(&self) -> Level {
        match self {
            Self::After { notice, .. } => notice.level(),
            Self::AddressConflict { .. }
            | Self::AddressFailed { .. }
            | Self::DoesNotYield { .. }
            | Self::DumpFailed { .. }
            | Self::Misconfigured { .. }
            | Self::OwnAddress { .. }
            | Self::SendFailed { .. }
            | Self::Stray { .. } => Level::Error,
            Self::ChecksumForms { .. }
            | Self::Differs { .. }
            | Self::Discarded { .. }
            | Self::Flapping { .. }
            | Self::Rejoined { .. }
            | Self::ForeignCluster { .. }
            | Self::HeldByOther { owner: false, .. }
            | Self::Leftovers { .. }
            | Self::NotAdvertised { .. }
            | Self::NotReady { .. }
            | Self::Overrun
            | Self::Overslept { .. }
            | Self::Reannounced { .. }
            | Self::Restored { .. }
            | Self::SourceChanged { .. }
            | Self::UnfitVip { .. } => Level::Warn,
            Self::HeldByOther { owner: true, .. }
            | Self::Stopping
            | Self::Transition { .. }
            | Self::Vacated { .. } => Level::Info,
        }
    }

    /// This notice, without the number of those that were not told before it.
    #[must_use]
    pub fn itself(&self) -> &Self {
        match self {
            Self::After { notice, .. } => notice,
            notice => notice,
        }
    }

    /// This notice, after so many of its kind that were not told.
    pub(super) fn after(self, left_out: u64) -> Self {
        match self {
            // Each has its own count.
            Self::Discarded { .. } | Self::SendFailed { .. } => self,
            notice if left_out == 0 => notice,
            notice => Self::After { left_out, notice: Box::new(notice) },
        }
    }
}
