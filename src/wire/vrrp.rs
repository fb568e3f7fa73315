//! VRRP advertisements: version 3 (RFC 9568) for IPv4 and IPv6, version 2 (RFC 3768) for IPv4.
//!
//! Receiving is two steps, because between them the caller must find the router that the packet
//! is for: [`Packet::new`] reads what every version shares, [`Packet::check`] the rest.
//! Validation order (the first rule broken names the discard): length, version, type, VRID |
//! caller: is the VRID configured here | version 2 over IPv6, checksum, TTL, count, exact length,
//! first address, interval | caller: version as configured, authentication, interval as
//! configured.

mod discard;
mod receive;
mod send;
#[cfg(test)]
mod tests;
mod timers;

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::num::NonZeroU8;
use std::time::Duration;

use super::{Family, ip};

pub use discard::Discard;
pub use receive::{Advert, Header, Packet, RxMeta};
pub use send::AdvertSpec;
pub use timers::{active_down_interval, skew_time};

/// IP protocol number of VRRP (RFC 9568 §5.1.1.4).
pub const PROTOCOL: u8 = 112;

/// Bytes before the addresses, in both versions (RFC 9568 §5.1, RFC 3768 §5.1).
const HEADER: u16 = 8;

/// Bytes of authentication data behind the addresses of a version 2 packet (RFC 3768 §5.3.10).
const TRAILER: u16 = 8;

/// Where advertisements go: 224.0.0.18 (RFC 9568 §5.1.1.2) or ff02::12 (§5.1.2.2).
#[must_use]
pub const fn group(family: Family) -> IpAddr {
    match family {
        Family::V4 => IpAddr::V4(Ipv4Addr::new(224, 0, 0, 18)),
        Family::V6 => IpAddr::V6(Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 0x12)),
    }
}

/// How many addresses one advertisement carries without being fragmented on a link with an MTU
/// of `mtu` bytes: 0 to 255, as the count field has it. 0 for version 2 over IPv6, which does
/// not exist.
#[must_use]
pub const fn max_addresses(version: Version, family: Family, mtu: u32) -> usize {
    let (header, trailer) = match (family, version) {
        (Family::V4, Version::V2) => (ip::IPV4_HEADER, TRAILER),
        (Family::V4, Version::V3) => (ip::IPV4_HEADER, 0),
        (Family::V6, Version::V2) => return 0,
        (Family::V6, Version::V3) => (ip::IPV6_HEADER, 0),
    };
    let room = (mtu as usize).saturating_sub(header + HEADER as usize + trailer as usize);
    let fit = room / (family.bits() / 8) as usize;
    if fit > u8::MAX as usize { u8::MAX as usize } else { fit }
}

/// Virtual Router Identifier, 1 to 255 (RFC 9568 §5.2.3).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Vrid(NonZeroU8);

impl Vrid {
    /// The lowest.
    pub const MIN: Self = Self(NonZeroU8::MIN);

    /// `None` for 0.
    #[must_use]
    pub const fn new(vrid: u8) -> Option<Self> {
        match NonZeroU8::new(vrid) {
            Some(vrid) => Some(Self(vrid)),
            None => None,
        }
    }

    /// 1 to 255.
    #[must_use]
    pub const fn number(self) -> u8 {
        self.0.get()
    }
}

impl fmt::Display for Vrid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Debug for Vrid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Priority of a router that takes part in the election, 1 to 255; 255 is the address owner's
/// (RFC 9568 §5.2.4). The 0 of a router that gives up is not one of these.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Priority(NonZeroU8);

impl Priority {
    /// Default of the RFC and of havip: 100.
    pub const DEFAULT: Self = Self(NonZeroU8::new(100).unwrap());
    /// The address owner: 255.
    pub const OWNER: Self = Self(NonZeroU8::MAX);

    /// `None` for 0.
    #[must_use]
    pub const fn new(priority: u8) -> Option<Self> {
        match NonZeroU8::new(priority) {
            Some(priority) => Some(Self(priority)),
            None => None,
        }
    }

    /// 1 to 255.
    #[must_use]
    pub const fn number(self) -> u8 {
        self.0.get()
    }
}

impl fmt::Display for Priority {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Protocol version of an advertisement.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Version {
    /// RFC 3768, IPv4 only.
    V2,
    /// RFC 9568.
    V3,
}

impl Version {
    /// 2 or 3.
    #[must_use]
    pub const fn number(self) -> u8 {
        match self {
            Self::V2 => 2,
            Self::V3 => 3,
        }
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "VRRPv{}", self.number())
    }
}

/// An advertisement interval in hundredths of a second: 1 to 4095 on a version 3 wire
/// (RFC 9568 §5.2.7), whole seconds 100 to 25500 on a version 2 wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Centis(pub u16);

impl Centis {
    /// As a duration; exact.
    #[must_use]
    pub const fn duration(self) -> Duration {
        Duration::from_millis(self.0 as u64 * 10)
    }
}

impl fmt::Display for Centis {
    /// In seconds: `1`, `0.1`, `0.25`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (whole, part) = (self.0 / 100, self.0 % 100);
        match part {
            0 => write!(f, "{whole}"),
            part if part % 10 == 0 => write!(f, "{whole}.{}", part / 10),
            part => write!(f, "{whole}.{part:02}"),
        }
    }
}

/// How the checksum of a version 3 packet over IPv4 is made. RFC 9568 §5.2.8 sums the VRRP
/// message alone; RFC 5798 as keepalived and FRR read it adds a pseudo-header. Over IPv6 the
/// pseudo-header always belongs to it, in version 2 it never does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum SumForm {
    /// The message alone.
    Message,
    /// With a pseudo-header.
    PseudoHeader,
}

/// Authentication of a version 2 packet (RFC 3768 §5.3.6 and RFC 2338 for type 1).
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Auth {
    /// Type 0; the data is ignored.
    None,
    /// Type 1, simple text password of up to eight bytes, zero-padded.
    Simple([u8; 8]),
    /// Any other type, by its number.
    Other(u8),
}

impl fmt::Debug for Auth {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // A password heard on the wire is still somebody's password.
        match self {
            Self::None => f.write_str("None"),
            Self::Simple(_) => f.write_str("Simple(..)"),
            Self::Other(kind) => write!(f, "Other({kind})"),
        }
    }
}
