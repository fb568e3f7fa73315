//! VRRP advertisements: version 3 (RFC 9568) for IPv4 and IPv6, version 2 (RFC 3768) for IPv4.
//!
//! Receiving is two steps, because between them the caller must find the router that the packet
//! is for: [`Packet::new`] reads what every version shares, [`Packet::check`] the rest.
//! Validation order (the first rule broken names the discard): length, version, type, VRID | caller:
//! is the VRID configured here | checksum, TTL, count, exact length, first address, interval |
//! caller: version as configured, authentication, interval as configured.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::num::NonZeroU8;
use std::time::Duration;

use super::{Family, checksum, ip};

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

impl<'a> Packet<'a> {
    /// Reads what every version shares.
    ///
    /// # Errors
    /// The first of length, version, type and VRID that is wrong.
    pub fn new(bytes: &'a [u8]) -> Result<Self, Discard> {
        let &[first, vrid, _, _, _, _, _, _, ..] = bytes else {
            return Err(Discard::PacketLength);
        };
        let version = match first >> 4 {
            2 => Version::V2,
            3 => Version::V3,
            _ => return Err(Discard::Version),
        };
        if first & 0x0f != TYPE_ADVERTISEMENT {
            return Err(Discard::Type);
        }
        let vrid = Vrid::new(vrid).ok_or(Discard::Vrid)?;
        Ok(Self { header: Header { version, vrid }, bytes })
    }

    /// Version and VRID.
    #[must_use]
    pub const fn header(&self) -> Header {
        self.header
    }

    /// Checks everything that can be checked without knowing how the router is configured.
    ///
    /// # Errors
    /// The first of version over IPv6, checksum, TTL, count, exact length, first address and
    /// interval that is wrong (RFC 9568 §7.1 with errata 8299 to 8301; RFC 3768 §7.1).
    pub fn check(&self, rx: &RxMeta) -> Result<Advert<'a>, Discard> {
        let family = Family::of(&rx.src);
        let Header { version, vrid } = self.header;
        let (&[_, _, priority, count, high, low, _, _], rest) =
            self.bytes.split_first_chunk::<8>().ok_or(Discard::PacketLength)?;
        let sum = self.checksum(rx)?;
        if rx.ttl != 255 {
            return Err(Discard::Ttl);
        }
        if count == 0 {
            return Err(Discard::AddressCount);
        }
        let size = address_size(family);
        let (addresses, trailer) =
            rest.split_at_checked(usize::from(count) * size).ok_or(Discard::PacketLength)?;
        let (interval, auth) = match version {
            Version::V2 => {
                let data = <[u8; 8]>::try_from(trailer).map_err(|_| Discard::PacketLength)?;
                let auth = match high {
                    0 => Auth::None,
                    1 => Auth::Simple(data),
                    other => Auth::Other(other),
                };
                (u16::from(low) * 100, auth)
            }
            Version::V3 => {
                if !trailer.is_empty() {
                    return Err(Discard::PacketLength);
                }
                // The upper nibble is reserved, and ignored (RFC 9568 §5.2.6).
                (u16::from_be_bytes([high & 0x0f, low]), Auth::None)
            }
        };
        if let (Family::V6, Some(&[first, second])) = (family, addresses.first_chunk::<2>())
            && (first != 0xfe || second & 0xc0 != 0x80)
        {
            return Err(Discard::FirstAddress);
        }
        if interval == 0 {
            return Err(Discard::Interval);
        }
        let interval = Centis(interval);
        Ok(Advert { version, vrid, priority, interval, auth, sum, addresses, family })
    }

    /// Which checksum form fits, where there is a choice and they differ.
    fn checksum(&self, rx: &RxMeta) -> Result<Option<SumForm>, Discard> {
        let message = || checksum::of(&[self.bytes]) == 0;
        let pseudo = || checksum::of_upper(&rx.src, &rx.dst, PROTOCOL, self.bytes) == 0;
        match (self.header.version, Family::of(&rx.src)) {
            (Version::V2, Family::V6) => Err(Discard::Version),
            (Version::V2, Family::V4) => message().then_some(None).ok_or(Discard::Checksum),
            (Version::V3, Family::V6) => pseudo().then_some(None).ok_or(Discard::Checksum),
            (Version::V3, Family::V4) => match (message(), pseudo()) {
                (true, true) => Ok(None),
                (true, false) => Ok(Some(SumForm::Message)),
                (false, true) => Ok(Some(SumForm::PseudoHeader)),
                (false, false) => Err(Discard::Checksum),
            },
        }
    }
}

impl Advert<'_> {
    /// The advertised addresses, in their order.
    pub fn addresses(&self) -> impl Iterator<Item = IpAddr> + '_ {
        self.addresses.chunks_exact(address_size(self.family)).filter_map(|bytes| {
            match self.family {
                Family::V4 => <[u8; 4]>::try_from(bytes).ok().map(IpAddr::from),
                Family::V6 => <[u8; 16]>::try_from(bytes).ok().map(IpAddr::from),
            }
        })
    }
}

/// An advertisement to send.
#[derive(Clone, Copy, Debug)]
pub struct AdvertSpec<'a> {
    /// 2 or 3.
    pub version: Version,
    /// Whose it is.
    pub vrid: Vrid,
    /// 0 to give up.
    pub priority: u8,
    /// Version 2: whole seconds, others are cut; version 3: 1 to 4095.
    pub interval: Centis,
    /// Version 2 only.
    pub auth: Auth,
    /// All of the family of the source; others are left out, as are those after the 255th.
    pub addresses: &'a [IpAddr],
    /// Version 3 over IPv4 only.
    pub sum: SumForm,
}

impl AdvertSpec<'_> {
    /// Appends the VRRP message, as sent from `src` to `dst`.
    pub fn emit(&self, src: IpAddr, dst: IpAddr, out: &mut Vec<u8>) {
        let start = out.len();
        let family = Family::of(&src);
        let first = self.version.number() << 4 | TYPE_ADVERTISEMENT;
        let addresses =
            || self.addresses.iter().filter(|ip| Family::of(ip) == family).take(ADDRESSES_MAX);
        let count = u8::try_from(addresses().count()).unwrap_or(u8::MAX);
        out.extend([first, self.vrid.number(), self.priority, count]);
        match self.version {
            Version::V2 => {
                let kind = match self.auth {
                    Auth::None => 0,
                    Auth::Simple(_) => 1,
                    Auth::Other(kind) => kind,
                };
                out.extend([kind, u8::try_from(self.interval.0 / 100).unwrap_or(u8::MAX)]);
            }
            Version::V3 => out.extend((self.interval.0 & 0x0fff).to_be_bytes()),
        }
        out.extend([0, 0]);
        for ip in addresses() {
            match ip {
                IpAddr::V4(ip) => out.extend(ip.octets()),
                IpAddr::V6(ip) => out.extend(ip.octets()),
            }
        }
        if self.version == Version::V2 {
            out.extend(match self.auth {
                Auth::Simple(data) => data,
                Auth::None | Auth::Other(_) => [0; 8],
            });
        }
        let message = out.get(start..).unwrap_or_default();
        let sum = match (self.version, family, self.sum) {
            (Version::V2, ..) | (Version::V3, Family::V4, SumForm::Message) => {
                checksum::of(&[message])
            }
            (Version::V3, Family::V6, _) | (Version::V3, Family::V4, SumForm::PseudoHeader) => {
                checksum::of_upper(&src, &dst, PROTOCOL, message)
            }
        };
        if let Some(field) = out.get_mut(start + 6..start + 8) {
            field.copy_from_slice(&sum.to_be_bytes());
        }
    }

    /// Appends a whole IP packet from `src` to the group: TTL 255 and DSCP CS6.
    pub fn emit_packet(&self, src: IpAddr, out: &mut Vec<u8>) {
        let start = out.len();
        let dst = group(Family::of(&src));
        ip::emit_header(&src, &dst, PROTOCOL, out);
        let payload = out.len();
        self.emit(src, dst, out);
        let length = out.len() - payload;
        if let Some(packet) = out.get_mut(start..) {
            ip::finish_header(packet, length);
        }
    }
}

/// Where adverts go: 224.0.0.18 (RFC 9568 §5.1.1.2) or ff02::12 (§5.1.2.2).
#[must_use]
pub const fn group(family: Family) -> IpAddr {
    match family {
        Family::V4 => IpAddr::V4(Ipv4Addr::new(224, 0, 0, 18)),
        Family::V6 => IpAddr::V6(Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 0x12)),
    }
}

/// Addresses that fit into one packet of `mtu` bytes without fragments; at most 255.
#[must_use]
pub fn max_addresses(version: Version, family: Family, mtu: u32) -> usize {
    let (header, size) = match family {
        Family::V4 => (20, 4),
        Family::V6 => (40, 16),
    };
    let trailer = if version == Version::V2 { 8 } else { 0 };
    let room = usize::try_from(mtu).unwrap_or(usize::MAX).saturating_sub(header + 8 + trailer);
    (room / size).min(ADDRESSES_MAX)
}

/// Skew_Time: a lower priority waits longer. ((256 - priority) × Active_Adver_Interval) / 256
/// (RFC 9568 §6.1), in version 2 (256 - priority) / 256 seconds (RFC 3768 §6.1). Never zero.
#[must_use]
pub fn skew_time(version: Version, priority: Priority, active_adver_interval: Centis) -> Duration {
    let base = match version {
        Version::V2 => Duration::from_secs(1),
        Version::V3 => active_adver_interval.duration(),
    };
    base * (256 - u32::from(priority.number())) / 256
}

/// Active_Down_Interval: 3 × Active_Adver_Interval + Skew_Time (RFC 9568 §6.1).
#[must_use]
pub fn active_down_interval(
    version: Version,
    priority: Priority,
    active_adver_interval: Centis,
) -> Duration {
    active_adver_interval.duration() * 3 + skew_time(version, priority, active_adver_interval)
}

const TYPE_ADVERTISEMENT: u8 = 1;
const ADDRESSES_MAX: usize = 255;

const fn address_size(family: Family) -> usize {
    match family {
        Family::V4 => 4,
        Family::V6 => 16,
    }
}

impl Discard {
    /// Every reason.
    pub const ALL: [Self; 9] = [
        Self::PacketLength,
        Self::Version,
        Self::Type,
        Self::Vrid,
        Self::Checksum,
        Self::Ttl,
        Self::AddressCount,
        Self::FirstAddress,
        Self::Interval,
    ];

    /// Its counter's name: RFC 6527 where that has one.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::PacketLength => "packet_length_errors",
            Self::Version => "version_errors",
            Self::Type => "invalid_type_packets",
            Self::Vrid => "vrid_errors",
            Self::Checksum => "checksum_errors",
            Self::Ttl => "ip_ttl_errors",
            Self::AddressCount => "address_count_errors",
            Self::FirstAddress => "first_address_errors",
            Self::Interval => "interval_zero_errors",
        }
    }
}

impl fmt::Display for Discard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::PacketLength => "its length is not what its fields say",
            Self::Version => "neither version 2 over IPv4 nor version 3",
            Self::Type => "not an advertisement",
            Self::Vrid => "VRID 0",
            Self::Checksum => "wrong checksum",
            Self::Ttl => "TTL is not 255, so it came through a router",
            Self::AddressCount => "no address in it",
            Self::FirstAddress => "the first IPv6 address is not link-local",
            Self::Interval => "interval 0",
        })
    }
}
