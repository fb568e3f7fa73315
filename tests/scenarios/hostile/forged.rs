//! Packets to be: each an advert for one of the gateways' routers, and what is changed of it.

use std::net::IpAddr;

use havip::wire::checksum::Sum;
use havip::wire::vrrp::{AdvertSpec, Auth, Centis, PROTOCOL, SumForm, Version, Vrid, group};
use havip::wire::{Family, Mac, ip};

use super::VIP;
use crate::lab::ip as address;

pub(super) const VIP2: &str = "192.0.2.102";
pub(super) const VIP6: &str = "fe80::51";
const PASSWORD: [u8; 8] = *b"s3cret\0\0";
/// Loses against the active router, and wins against the backup: it is accepted by both.
const BETWEEN: u8 = 120;

/// The three routers of both gateways.
#[derive(Clone, Copy, PartialEq)]
pub(super) enum To {
    /// VRID 51, version 3 over IPv4.
    Three,
    /// VRID 52, version 2 with a password.
    Two,
    /// VRID 51, version 3 over IPv6.
    Six,
}

/// A packet to be. As it begins, it is an advert that nobody can find fault with.
pub(super) struct Forged {
    pub(super) version: Version,
    pub(super) vrid: u8,
    pub(super) priority: u8,
    pub(super) interval: Centis,
    pub(super) auth: Auth,
    pub(super) addresses: Vec<IpAddr>,
    pub(super) sum: SumForm,
    pub(super) source: IpAddr,
    /// Changes the message; its checksum is made right again.
    pub(super) message: fn(&mut Vec<u8>),
    /// Added to the checksum.
    pub(super) sum_off_by: u8,
    /// Changes the IP header, whose checksum is made right again over IPv4.
    pub(super) header: fn(&mut Vec<u8>),
    pub(super) options: &'static [u8],
    pub(super) padding: usize,
}

impl Forged {
    pub(super) fn to(to: To, source: IpAddr) -> Self {
        let (version, vrid, auth, vip) = match to {
            To::Three => (Version::V3, 51, Auth::None, VIP),
            To::Two => (Version::V2, 52, Auth::Simple(PASSWORD), VIP2),
            To::Six => (Version::V3, 51, Auth::None, VIP6),
        };
        Self {
            version,
            vrid,
            priority: BETWEEN,
            interval: Centis(100),
            auth,
            addresses: vec![address(vip)],
            sum: SumForm::Message,
            source,
            message: |_| {},
            sum_off_by: 0,
            header: |_| {},
            options: &[],
            padding: 0,
        }
    }

    /// The whole frame, from `mac`.
    pub(super) fn frame(&self, mac: Mac) -> Vec<u8> {
        let family = Family::of(&self.source);
        let message = self.whole_message(group(family));
        let length = u16::try_from(self.options.len() + message.len()).unwrap();
        let (mut frame, mut header) = (Vec::new(), Vec::new());
        match (self.source, group(family)) {
            (IpAddr::V4(source), IpAddr::V4(to)) => {
                frame.extend([1, 0, 0x5e, 0, 0, 18]);
                frame.extend(mac.0);
                frame.extend([8, 0]);
                ip::ipv4_header(source, to, PROTOCOL, length, &mut header);
                header.extend(self.options);
                header[0] += (self.options.len() / 4) as u8;
                (self.header)(&mut header);
                header[10..12].fill(0);
                let sum = Sum::of(&header).checksum();
                header[10..12].copy_from_slice(&sum.to_be_bytes());
            }
            (IpAddr::V6(source), IpAddr::V6(to)) => {
                frame.extend([0x33, 0x33, 0, 0, 0, 0x12]);
                frame.extend(mac.0);
                frame.extend([0x86, 0xdd]);
                ip::ipv6_header(source, to, PROTOCOL, length, &mut header);
                (self.header)(&mut header);
            }
            _ => unreachable!("a group is of the family it was asked for"),
        }
        frame.extend(header);
        frame.extend(message);
        frame.extend(vec![0xa5; self.padding]);
        frame
    }

    fn whole_message(&self, to: IpAddr) -> Vec<u8> {
        let spec = AdvertSpec {
            version: self.version,
            vrid: Vrid::new(51).unwrap(),
            priority: self.priority,
            interval: self.interval,
            auth: self.auth,
            addresses: &self.addresses,
            sum: self.sum,
        };
        let mut message = Vec::new();
        spec.emit(self.source, to, &mut message);
        message[1] = self.vrid;
        (self.message)(&mut message);
        if let Some(sum) = message.get_mut(6..8) {
            sum.fill(0);
            let pseudo = self.sum == SumForm::PseudoHeader;
            let start = if pseudo {
                Sum::pseudo_header(self.source, to, PROTOCOL, message.len())
            } else {
                Sum::default()
            };
            let sum = start.bytes(&message).checksum().wrapping_add(self.sum_off_by.into());
            message[6..8].copy_from_slice(&sum.to_be_bytes());
        }
        message
    }
}
