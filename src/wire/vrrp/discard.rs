//! Why a packet is refused, for people and for counters.

use std::error::Error;
use std::fmt;

/// Why a received packet is discarded; names follow RFC 6527 and RFC 8347 where they have one.
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

impl Discard {
    /// Every reason, in the order of the enum, so that `reason as usize` is its place here.
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

    /// Name of its counter; never changes. The RFCs' `interval_errors` and `address_list_errors`
    /// are not among them: those count packets that differ from what is configured here.
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
            Self::Interval => "zero_interval_errors",
        }
    }
}

impl fmt::Display for Discard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::PacketLength => "packet length does not match its content",
            Self::Version => "version is neither 3 nor, over IPv4, 2",
            Self::Type => "type is not advertisement",
            Self::Vrid => "VRID is 0",
            Self::Checksum => "checksum is wrong",
            Self::Ttl => "TTL is not 255",
            Self::AddressCount => "no address in it",
            Self::FirstAddress => "first IPv6 address is not link-local",
            Self::Interval => "advertisement interval is 0",
        })
    }
}

impl Error for Discard {}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn each_reason_is_at_its_own_place_and_has_its_own_name_and_words() {
        for (place, reason) in Discard::ALL.into_iter().enumerate() {
            assert_eq!(reason as usize, place, "{reason}");
            let name = reason.name();
            assert!(name.bytes().all(|b| b.is_ascii_lowercase() || b == b'_'), "{name}");
        }
        let names: BTreeSet<_> = Discard::ALL.map(Discard::name).into();
        let words: BTreeSet<_> = Discard::ALL.map(|reason| reason.to_string()).into();
        assert_eq!((names.len(), words.len()), (Discard::ALL.len(), Discard::ALL.len()));
    }
}
