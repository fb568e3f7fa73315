//! Unsolicited Neighbor Advertisements (RFC 4861 §4.4, §7.2.6; RFC 9568 §6.4.1).

use std::net::{IpAddr, Ipv6Addr};

use super::{Mac, checksum};

const ICMPV6: u8 = 58;
const NEIGHBOR_ADVERTISEMENT: u8 = 136;
/// Router flag set, Solicited not, Override set.
const FLAGS: u8 = 0xa0;
const ALL_NODES: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);

/// Appends an Ethernet frame from `src` that announces `target` at `mac` to all nodes on the
/// link.
pub fn unsolicited_na(mac: Mac, src: Ipv6Addr, target: Ipv6Addr, out: &mut Vec<u8>) {
    out.extend([0x33, 0x33, 0, 0, 0, 1]);
    out.extend(mac.0);
    out.extend([0x86, 0xdd]);
    // Payload: 24 bytes of advertisement and 8 of the option.
    out.extend([0x60, 0, 0, 0, 0, 32, ICMPV6, 255]);
    out.extend(src.octets());
    out.extend(ALL_NODES.octets());
    let start = out.len();
    out.extend([NEIGHBOR_ADVERTISEMENT, 0, 0, 0, FLAGS, 0, 0, 0]);
    out.extend(target.octets());
    // Target Link-Layer Address option, length in units of eight bytes.
    out.extend([2, 1]);
    out.extend(mac.0);
    let message = out.get(start..).unwrap_or_default();
    let sum = checksum::of_upper(&IpAddr::V6(src), &IpAddr::V6(ALL_NODES), ICMPV6, message);
    if let Some(field) = out.get_mut(start + 2..start + 4) {
        field.copy_from_slice(&sum.to_be_bytes());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unsolicited_advertisement_has_router_and_override_and_a_right_checksum() {
        let src: Ipv6Addr = "fe80::c8".parse().unwrap();
        let target: Ipv6Addr = "2001:db8::1".parse().unwrap();
        let mac = Mac([2, 0, 0, 0, 0, 1]);
        let mut frame = Vec::new();
        unsolicited_na(mac, src, target, &mut frame);
        assert_eq!(frame.len(), 14 + 40 + 32);
        assert_eq!(frame[..6], [0x33, 0x33, 0, 0, 0, 1]);
        assert_eq!(frame[21], 255, "hop limit");
        let message = &frame[54..];
        assert_eq!(message[..2], [136, 0]);
        assert_eq!(message[4], 0xa0);
        assert_eq!(message[8..24], target.octets());
        assert_eq!(message[24..32], [2, 1, 2, 0, 0, 0, 0, 1]);
        let sum = checksum::of_upper(&src.into(), &ALL_NODES.into(), 58, message);
        assert_eq!(sum, 0);
    }
}
