//! VRRP advertisements: version 3 (RFC 9568) for IPv4 and IPv6, version 2 (RFC 3768) for IPv4.
//!
//! Receiving is two steps, because between them the caller must find the router that the packet
//! is for: [`Header::parse`] reads what every version shares, [`Packet::check`] the rest.
//! Validation order (the first rule broken names the discard): length, version, type, VRID | caller:
//! is the VRID configured here | checksum, TTL, count, exact length, first address, interval |
//! caller: version as configured, authentication, interval as configured.

use std::fmt;
use std::net::IpAddr;
use std::num::NonZeroU8;
use std::time::Duration;

use super::Family;

/// IP protocol number of VRRP (RFC 9568 §5.1.1.4).
pub const PROTOCOL: u8 = 112;

/// Virtual Router Identifier, 1 to 255 (RFC 9568 §5.2.3).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Vrid(NonZeroU8);

impl Vrid {
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

/// Why a received packet is discarded; names follow RFC 6527 where it has one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Discard {
    /// Shorter or longer than its own fields say (RFC 9568 §7.1).
    PacketLength,
    /// Neither version 2 nor 3, or version 2 over IPv6.
    Version,
    /// Not an ADVERTISEMENT.
    Type,
    /// VRID 0.
    Vrid,
    /// Neither checksum form fits.
    Checksum,
    /// TTL or Hop Limit is not 255.
    Ttl,
    /// No address in it (erratum 8299).
    AddressCount,
    /// The first IPv6 address is not link-local (erratum 8300).
    FirstAddress,
    /// Interval 0 (erratum 8301).
    Interval,
}

/// What comes with a received packet beside its VRRP payload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RxMeta {
    /// Source address of the IP header.
    pub src: IpAddr,
    /// Destination address of the IP header.
    pub dst: IpAddr,
    /// TTL or Hop Limit.
    pub ttl: u8,
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

/// The part that every version has, read before the router is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// 2 or 3.
    pub version: Version,
    /// Whose it is.
    pub vrid: Vrid,
}

/// A received packet whose header was read.
#[derive(Clone, Copy, Debug)]
pub struct Packet<'a> {
    header: Header,
    bytes: &'a [u8],
}

/// A received advertisement that broke none of the rules above.
#[derive(Clone, Copy, Debug)]
pub struct Advert<'a> {
    /// 2 or 3.
    pub version: Version,
    /// Whose it is.
    pub vrid: Vrid,
    /// 0 when the sender gives up.
    pub priority: u8,
    /// The sender's interval; of a version 2 packet its seconds times 100, never 0.
    pub interval: Centis,
    /// Authentication; [`Auth::None`] in version 3.
    pub auth: Auth,
    /// The checksum form; `None` where both forms give the same sum, or only one exists
    /// (version 2, IPv6).
    pub sum: Option<SumForm>,
    /// The advertised addresses, raw; length is a multiple of 4 or 16.
    addresses: &'a [u8],
    family: Family,
}
