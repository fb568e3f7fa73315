//! Neighbour advertisements: tell a LAN which MAC address an IPv6 address is at, and hear who
//! else says so.

use std::net::{IpAddr, Ipv6Addr};

use super::Mac;
use super::checksum::Sum;
use super::ip;

/// EtherType of IPv6.
pub const ETHERTYPE: u16 = 0x86dd;

/// Bytes of a frame that [`unsolicited_na`] makes.
pub const FRAME: usize = 14 + ip::IPV6_HEADER + MESSAGE as usize;

/// Next header of ICMPv6.
const ICMPV6: u8 = 58;

/// Neighbor Advertisement with one link-layer address option.
const MESSAGE: u16 = 32;

/// Neighbor Solicitation without options.
const SOLICITATION: u16 = 24;

/// ff02::1.
const ALL_NODES: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);

/// The Ethernet group of ff02::1 (RFC 2464 §7).
const ALL_NODES_MAC: Mac = Mac([0x33, 0x33, 0, 0, 0, 1]);

/// Router and Override set, Solicited clear (RFC 9568 §6.4.1).
const FLAGS: u8 = 0xa0;

/// Appends an unsolicited Neighbor Advertisement (RFC 4861 §4.4) for `target` as a complete
/// Ethernet frame without its check sequence, from `mac` and `src` to all nodes, with `mac` in
/// its target link-layer address option.
pub fn unsolicited_na(mac: Mac, src: Ipv6Addr, target: Ipv6Addr, out: &mut Vec<u8>) {
    let option = {
        let [a, b, c, d, e, f] = mac.0;
        // Type 2: target link-layer address; length 1: eight bytes.
        [2, 1, a, b, c, d, e, f]
    };
    let head = |c0, c1| [136, 0, c0, c1, FLAGS, 0, 0, 0];
    let (from, to) = (IpAddr::V6(src), IpAddr::V6(ALL_NODES));
    let [c0, c1] = Sum::pseudo_header(from, to, ICMPV6, usize::from(MESSAGE))
        .bytes(&head(0, 0))
        .bytes(&target.octets())
        .bytes(&option)
        .checksum()
        .to_be_bytes();

    out.extend(ALL_NODES_MAC.0);
    out.extend(mac.0);
    out.extend(ETHERTYPE.to_be_bytes());
    ip::ipv6_header(src, ALL_NODES, ICMPV6, MESSAGE, out);
    out.extend(head(c0, c1));
    out.extend(target.octets());
    out.extend(option);
}

/// Appends a Neighbor Solicitation for `target` from the unspecified address, as one sends that looks
/// for duplicates (RFC 4862 §5.4.2), as a complete Ethernet frame without its check sequence: who has
/// the target answers to all nodes (RFC 4861 §7.2.4).
pub fn probe(mac: Mac, target: Ipv6Addr, out: &mut Vec<u8>) {
    let [.., x, y, z] = target.octets();
    // RFC 4291 §2.7.1.
    let group = Ipv6Addr::from([0xff, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0xff, x, y, z]);
    let head = |c0, c1| [135, 0, c0, c1, 0, 0, 0, 0];
    let (from, to) = (IpAddr::V6(Ipv6Addr::UNSPECIFIED), IpAddr::V6(group));
    let [c0, c1] = Sum::pseudo_header(from, to, ICMPV6, usize::from(SOLICITATION))
        .bytes(&head(0, 0))
        .bytes(&target.octets())
        .checksum()
        .to_be_bytes();

    out.extend([0x33, 0x33, 0xff, x, y, z]);
    out.extend(mac.0);
    out.extend(ETHERTYPE.to_be_bytes());
    ip::ipv6_header(Ipv6Addr::UNSPECIFIED, group, ICMPV6, SOLICITATION, out);
    out.extend(head(c0, c1));
    out.extend(target.octets());
}

/// What a Neighbor Advertisement, as an ICMPv6 message, says: at which MAC address its target is.
/// `None` for anything else, and without that option (RFC 4861 §4.4).
#[must_use]
pub fn claim(message: &[u8]) -> Option<(Ipv6Addr, Mac)> {
    let (head, rest) = message.split_first_chunk::<8>()?;
    let (target, mut options) = rest.split_first_chunk::<16>()?;
    if !matches!(head, [136, 0, ..]) {
        return None;
    }
    // Each begins with its type and its length in units of 8 bytes.
    while let Some((&[kind, units], _)) = options.split_first_chunk::<2>() {
        let option = options.get(..usize::from(units) * 8).filter(|option| !option.is_empty())?;
        if let (2, [_, _, mac @ ..]) = (kind, option)
            && let Ok(mac) = mac.try_into()
        {
            return Some((Ipv6Addr::from(*target), Mac(mac)));
        }
        options = options.get(option.len()..)?;
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_advertisement_tells_where_its_target_is() {
        let (mac, ip) = (Mac([2, 0, 0, 0, 0, 7]), "2001:db8::1".parse().unwrap());
        let mut frame = Vec::new();
        unsolicited_na(mac, "fe80::c8".parse().unwrap(), ip, &mut frame);
        let message = frame.split_off(14 + ip::IPV6_HEADER);
        assert_eq!(claim(&message), Some((ip, mac)));
        // Another option before it is passed over, whatever its length says is believed.
        let nonce = [14, 1, 0, 0, 0, 0, 0, 0];
        let longer = [&message[..24], &nonce, &message[24..]].concat();
        assert_eq!(claim(&longer), Some((ip, mac)));
        for (at, byte) in [(0, 135), (1, 1), (24, 1), (25, 0), (25, 2)] {
            let mut other = message.clone();
            other[at] = byte;
            assert_eq!(claim(&other), None, "byte {at}");
        }
        for length in 0..message.len() {
            assert_eq!(claim(&message[..length]), None);
        }
    }

    #[test]
    fn a_probe_is_a_solicitation_to_the_targets_group_from_nobody() {
        let mut out = Vec::new();
        probe(Mac([2, 0, 0, 0, 0, 7]), "2001:db8::12:3456".parse().unwrap(), &mut out);
        assert_eq!(out[..14], [0x33, 0x33, 0xff, 0x12, 0x34, 0x56, 2, 0, 0, 0, 0, 7, 0x86, 0xdd]);
        assert_eq!(out[18..22], [0, 24, 58, 255]);
        assert_eq!(out[22..38], [0; 16]);
        assert_eq!(out[38..54], [0xff, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0xff, 0x12, 0x34, 0x56]);
        let (source, to) = (Ipv6Addr::UNSPECIFIED, "ff02::1:ff12:3456".parse().unwrap());
        assert!(Sum::pseudo_header(source.into(), to, 58, 24).bytes(&out[54..]).fits());
        assert_eq!(out[54], 135);
        assert_eq!(claim(&out[54..]), None);
    }

    #[test]
    fn an_unsolicited_na_has_router_and_override_and_its_link_layer_address() {
        let mut out = vec![0xee];
        let (src, target) = ("fe80::c8".parse().unwrap(), "2001:db8::1".parse().unwrap());
        unsolicited_na(Mac([2, 0, 0, 0, 0, 7]), src, target, &mut out);
        let frame = [
            0x33, 0x33, 0, 0, 0, 1, 2, 0, 0, 0, 0, 7, 0x86, 0xdd, //
            0x6c, 0, 0, 0, 0, 32, 58, 255, //
            0xfe, 0x80, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xc8, //
            0xff, 0x02, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, //
            136, 0, 0xa7, 0x95, 0xa0, 0, 0, 0, //
            0x20, 0x01, 0x0d, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, //
            2, 1, 2, 0, 0, 0, 0, 7,
        ];
        assert_eq!(out[1..], frame);
        assert_eq!(out[0], 0xee, "the buffer is appended to");
        assert_eq!(frame.len(), FRAME);
    }
}
