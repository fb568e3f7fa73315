//! From what a router wants to say to bytes.

use std::net::IpAddr;

use super::{Auth, Centis, HEADER, PROTOCOL, SumForm, TRAILER, Version, Vrid, group};
use crate::wire::checksum::Sum;
use crate::wire::{Family, ip};

/// Largest interval on a version 3 wire: 12 bits.
const MAX_CENTIS: u16 = 4095;

/// An advertisement to send.
///
/// The family is that of the source address. Version 2 does not exist over IPv6: nothing is
/// appended for it.
#[derive(Clone, Copy, Debug)]
pub struct AdvertSpec<'a> {
    /// 2 or 3.
    pub version: Version,
    /// Whose it is.
    pub vrid: Vrid,
    /// 1 to 255, or 0 to give up (RFC 9568 §5.2.4).
    pub priority: u8,
    /// Advertisement_Interval. Version 2 carries whole seconds, the rest is cut off; a value that
    /// the wire does not have becomes the nearest that it has (1 to 4095 hundredths, 1 to 255
    /// seconds), never 0.
    pub interval: Centis,
    /// Sent in version 2 alone; data is zero for all but [`Auth::Simple`].
    pub auth: Auth,
    /// The first 255 of the source's family are sent, others are passed over. Over IPv6 the first
    /// must be link-local, or receivers discard the packet.
    pub addresses: &'a [IpAddr],
    /// For version 3 over IPv4; everything else has one form.
    pub sum: SumForm,
}

impl AdvertSpec<'_> {
    /// Appends the VRRP message with its checksum. `dst` is where the packet really goes (the
    /// pseudo-header has it): the group, or a unicast peer.
    pub fn emit(&self, src: IpAddr, dst: IpAddr, out: &mut Vec<u8>) {
        let family = Family::of(&src);
        if self.version == Version::V2 && family == Family::V6 {
            return;
        }
        let data = match (self.version, self.auth) {
            (Version::V2, Auth::Simple(data)) => data,
            _ => [0; TRAILER as usize],
        };
        let trailer: &[u8] = match self.version {
            Version::V2 => &data,
            Version::V3 => &[],
        };

        let sum = match (self.version, family, self.sum) {
            (Version::V2, _, _) | (Version::V3, Family::V4, SumForm::Message) => Sum::default(),
            (Version::V3, Family::V4, SumForm::PseudoHeader) | (Version::V3, Family::V6, _) => {
                Sum::pseudo_header(src, dst, PROTOCOL, usize::from(self.length(family)))
            }
        };
        let sum = self
            .sent(family)
            .fold(sum.bytes(&self.head(family, 0)), |sum, address| sum.address(*address))
            .bytes(trailer);

        out.extend(self.head(family, sum.checksum()));
        for address in self.sent(family) {
            match address {
                IpAddr::V4(address) => out.extend(address.octets()),
                IpAddr::V6(address) => out.extend(address.octets()),
            }
        }
        out.extend(trailer);
    }

    /// Appends the whole IP packet from `src` to the [`group`] of its family: TTL or Hop Limit
    /// 255, DSCP CS6, protocol 112; over IPv4 identification 0, which a raw socket with
    /// IP_HDRINCL replaces.
    pub fn emit_packet(&self, src: IpAddr, out: &mut Vec<u8>) {
        let family = Family::of(&src);
        let length = self.length(family);
        match (src, group(family)) {
            (IpAddr::V4(src), IpAddr::V4(dst)) => {
                ip::ipv4_header(src, dst, PROTOCOL, length, out);
            }
            (IpAddr::V6(src), IpAddr::V6(dst)) if self.version == Version::V3 => {
                ip::ipv6_header(src, dst, PROTOCOL, length, out);
            }
            // Version 2 over IPv6; a group is of the family it was asked for.
            (IpAddr::V4(_) | IpAddr::V6(_), _) => return,
        }
        self.emit(src, group(family), out);
    }

    /// The eight bytes before the addresses.
    fn head(&self, family: Family, checksum: u16) -> [u8; HEADER as usize] {
        let (high, low) = match self.version {
            Version::V2 => {
                let kind = match self.auth {
                    Auth::None => 0,
                    Auth::Simple(_) => 1,
                    Auth::Other(kind) => kind,
                };
                (kind, (self.interval.0 / 100).clamp(1, 255) as u8)
            }
            Version::V3 => {
                let [high, low] = self.interval.0.clamp(1, MAX_CENTIS).to_be_bytes();
                (high, low)
            }
        };
        let first = self.version.number() << 4 | 1;
        let [c0, c1] = checksum.to_be_bytes();
        [first, self.vrid.number(), self.priority, self.count(family), high, low, c0, c1]
    }

    /// Bytes of the message, at most 4088.
    fn length(&self, family: Family) -> u16 {
        let addresses = u16::from(self.count(family)) * u16::from(family.bits() / 8);
        let trailer = match self.version {
            Version::V2 => TRAILER,
            Version::V3 => 0,
        };
        HEADER + addresses + trailer
    }

    fn count(&self, family: Family) -> u8 {
        self.sent(family).fold(0, |count, _| count + 1)
    }

    fn sent(&self, family: Family) -> impl Iterator<Item = &IpAddr> {
        let fitting = move |address: &&IpAddr| Family::of(address) == family;
        self.addresses.iter().filter(fitting).take(usize::from(u8::MAX))
    }
}
