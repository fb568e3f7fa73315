//! From bytes to an advertisement that broke no rule.

use std::fmt;
use std::net::IpAddr;

use super::{Auth, Centis, Discard, PROTOCOL, SumForm, Version, Vrid};
use crate::wire::checksum::Sum;
use crate::wire::{Family, ip};

/// Type of the only message there is (RFC 9568 §5.2.2).
const ADVERTISEMENT: u8 = 1;

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

/// The part that every version has, read before the router is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// 2 or 3.
    pub version: Version,
    /// Whose it is.
    pub vrid: Vrid,
}

/// A received packet whose header was read.
#[derive(Clone, Copy)]
pub struct Packet<'a> {
    header: Header,
    bytes: &'a [u8],
}

/// A received advertisement that broke none of the rules of [`Packet::check`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
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
    /// Reads the header of an IP payload.
    ///
    /// # Errors
    /// In this order: [`Discard::PacketLength`] below 8 bytes, [`Discard::Version`],
    /// [`Discard::Type`], [`Discard::Vrid`].
    pub fn new(bytes: &'a [u8]) -> Result<Self, Discard> {
        let [first, vrid, _, _, _, _, _, _, ..] = *bytes else {
            return Err(Discard::PacketLength);
        };
        let version = match first >> 4 {
            2 => Version::V2,
            3 => Version::V3,
            _ => return Err(Discard::Version),
        };
        if first & 0x0f != ADVERTISEMENT {
            return Err(Discard::Type);
        }
        let vrid = Vrid::new(vrid).ok_or(Discard::Vrid)?;
        Ok(Self { header: Header { version, vrid }, bytes })
    }

    /// Which version, and whose.
    #[must_use]
    pub const fn header(&self) -> Header {
        self.header
    }

    /// Checks all that can be checked without knowing how the router is configured. The family
    /// is that of `rx.src`; the payload must end where the IP header says that it does.
    ///
    /// # Errors
    /// In this order (RFC 9568 §7.1 and errata 8299 to 8301): [`Discard::Version`] for version 2
    /// over IPv6, [`Discard::Checksum`], [`Discard::Ttl`], [`Discard::AddressCount`],
    /// [`Discard::PacketLength`], [`Discard::FirstAddress`], [`Discard::Interval`].
    pub fn check(&self, rx: &RxMeta) -> Result<Advert<'a>, Discard> {
        let Header { version, vrid } = self.header;
        let family = Family::of(&rx.src);
        let [_, _, priority, count, high, low, _, _, ref rest @ ..] = *self.bytes else {
            return Err(Discard::PacketLength);
        };

        let sum = self.sum_form(family, rx)?;
        if rx.ttl != ip::TTL {
            return Err(Discard::Ttl);
        }
        if count == 0 {
            return Err(Discard::AddressCount);
        }
        let length = usize::from(count) * usize::from(family.bits() / 8);
        let (addresses, trailer) = rest.split_at_checked(length).ok_or(Discard::PacketLength)?;
        let auth = match version {
            Version::V2 => {
                let data = trailer.try_into().map_err(|_| Discard::PacketLength)?;
                match high {
                    0 => Auth::None,
                    1 => Auth::Simple(data),
                    kind => Auth::Other(kind),
                }
            }
            Version::V3 if trailer.is_empty() => Auth::None,
            Version::V3 => return Err(Discard::PacketLength),
        };
        let first_is_fit = match family {
            Family::V4 => true,
            // fe80::/10.
            Family::V6 => matches!(addresses, [0xfe, second, ..] if second & 0xc0 == 0x80),
        };
        if !first_is_fit {
            return Err(Discard::FirstAddress);
        }
        let interval = Centis(match version {
            Version::V2 => u16::from(low) * 100,
            // The upper four bits are reserved and ignored (RFC 9568 §5.2.6).
            Version::V3 => u16::from_be_bytes([high & 0x0f, low]),
        });
        if interval.0 == 0 {
            return Err(Discard::Interval);
        }
        Ok(Advert { version, vrid, priority, interval, auth, sum, addresses, family })
    }

    /// The form that the checksum fits, `None` where there is no telling.
    ///
    /// Every flipped bit changes a one's-complement sum, but where the pseudo-header adds up to a
    /// power of two it can change one form into the other. That is the price of hearing both.
    fn sum_form(&self, family: Family, rx: &RxMeta) -> Result<Option<SumForm>, Discard> {
        let pseudo_header =
            Sum::pseudo_header(rx.src, rx.dst, PROTOCOL, self.bytes.len()).bytes(self.bytes).fits();
        let message = Sum::of(self.bytes).fits();
        match (self.header.version, family) {
            (Version::V2, Family::V6) => Err(Discard::Version),
            (Version::V2, Family::V4) if message => Ok(None),
            (Version::V3, Family::V6) if pseudo_header => Ok(None),
            (Version::V3, Family::V4) if message && pseudo_header => Ok(None),
            (Version::V3, Family::V4) if message => Ok(Some(SumForm::Message)),
            (Version::V3, Family::V4) if pseudo_header => Ok(Some(SumForm::PseudoHeader)),
            _ => Err(Discard::Checksum),
        }
    }
}

impl fmt::Debug for Packet<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The bytes of a version 2 packet end in its password.
        let Self { header, bytes } = self;
        f.debug_struct("Packet").field("header", header).field("length", &bytes.len()).finish()
    }
}

impl<'a> Advert<'a> {
    /// The advertised addresses, in the sender's order.
    pub fn addresses(&self) -> impl Iterator<Item = IpAddr> + use<'a> {
        let (v4, v6): (&'a [[u8; 4]], &'a [[u8; 16]]) = match self.family {
            Family::V4 => (self.addresses.as_chunks().0, &[]),
            Family::V6 => (&[], self.addresses.as_chunks().0),
        };
        let v4 = v4.iter().copied().map(IpAddr::from);
        v4.chain(v6.iter().copied().map(IpAddr::from))
    }

    /// How many they are, 1 to 255.
    #[must_use]
    pub const fn count(&self) -> usize {
        self.addresses.len() / (self.family.bits() / 8) as usize
    }
}
