//! IP headers as VRRP and neighbour discovery use them: network control traffic of one hop.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::checksum::Sum;
use super::vrrp::{Discard, RxMeta};

/// EtherType of IPv4.
pub const ETHERTYPE_V4: u16 = 0x0800;

/// Bytes of an IPv4 header without options.
pub const IPV4_HEADER: usize = 20;

/// Bytes of an IPv6 header.
pub const IPV6_HEADER: usize = 40;

/// TTL and Hop Limit of all that is sent here (RFC 9568 §5.1.1.3, RFC 4861 §7.1.2): a receiver
/// knows by it that no router forwarded the packet.
pub const TTL: u8 = 255;

/// Type of Service and Traffic Class: DSCP CS6, network control (RFC 4594 §3.1).
pub const TRAFFIC_CLASS: u8 = 0xc0;

/// More Fragments and the fragment offset: either makes a fragment.
const FRAGMENT: u16 = 0x3fff;

/// Reads what a raw AF_INET socket delivers: an IPv4 packet from its header on. Returns what its
/// header says and the payload, cut to the header's total length, so that Ethernet padding is no
/// part of it.
///
/// The header's checksum and protocol are not looked at: the kernel did, before it delivered.
///
/// # Errors
/// [`Discard::PacketLength`] if the packet is not IPv4, is shorter than its header or its total
/// length says, or is a fragment (the kernel delivers whole packets; an advertisement is never
/// longer than one).
pub fn parse_ipv4(bytes: &[u8]) -> Result<(RxMeta, &[u8]), Discard> {
    let [first, _, l0, l1, _, _, f0, f1, ttl, _, _, _, s0, s1, s2, s3, d0, d1, d2, d3, ..] = *bytes
    else {
        return Err(Discard::PacketLength);
    };
    let header = usize::from(first & 0x0f) * 4;
    let fragment = u16::from_be_bytes([f0, f1]) & FRAGMENT != 0;
    if first >> 4 != 4 || header < IPV4_HEADER || fragment {
        return Err(Discard::PacketLength);
    }
    let total = usize::from(u16::from_be_bytes([l0, l1]));
    // A total length inside the header is an inverted range, and `get` has none of it.
    let payload = bytes.get(header..total).ok_or(Discard::PacketLength)?;
    let src = IpAddr::V4(Ipv4Addr::new(s0, s1, s2, s3));
    let dst = IpAddr::V4(Ipv4Addr::new(d0, d1, d2, d3));
    Ok((RxMeta { src, dst, ttl }, payload))
}

/// Reads a packet as [`parse_ipv4`] does that no kernel has looked at: its header's checksum must
/// be right as well.
///
/// # Errors
/// Those of [`parse_ipv4`], and [`Discard::Checksum`].
pub fn parse_unchecked_ipv4(bytes: &[u8]) -> Result<(RxMeta, &[u8]), Discard> {
    let parsed = parse_ipv4(bytes)?;
    let length = bytes.first().map_or(0, |first| usize::from(first & 0x0f) * 4);
    let header = bytes.get(..length).ok_or(Discard::PacketLength)?;
    if Sum::of(header).fits() { Ok(parsed) } else { Err(Discard::Checksum) }
}

/// Appends an IPv4 header for `payload` bytes (at most 65515): TTL 255, DSCP CS6, may be
/// fragmented, identification 0 (which a raw socket with IP_HDRINCL replaces), checksum set.
pub fn ipv4_header(src: Ipv4Addr, dst: Ipv4Addr, protocol: u8, payload: u16, out: &mut Vec<u8>) {
    let [l0, l1] = payload.saturating_add(IPV4_HEADER as u16).to_be_bytes();
    let head = |c0, c1| [0x45, TRAFFIC_CLASS, l0, l1, 0, 0, 0, 0, TTL, protocol, c0, c1];
    let [c0, c1] =
        Sum::of(&head(0, 0)).bytes(&src.octets()).bytes(&dst.octets()).checksum().to_be_bytes();
    out.extend(head(c0, c1));
    out.extend(src.octets());
    out.extend(dst.octets());
}

/// Appends an IPv6 header for `payload` bytes: Hop Limit 255, Traffic Class CS6, flow label 0.
pub fn ipv6_header(src: Ipv6Addr, dst: Ipv6Addr, next: u8, payload: u16, out: &mut Vec<u8>) {
    let [l0, l1] = payload.to_be_bytes();
    out.extend([0x60 | TRAFFIC_CLASS >> 4, TRAFFIC_CLASS << 4, 0, 0, l0, l1, next, TTL]);
    out.extend(src.octets());
    out.extend(dst.octets());
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const SRC: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 251);
    const DST: Ipv4Addr = Ipv4Addr::new(224, 0, 0, 18);

    fn packet(payload: &[u8]) -> Vec<u8> {
        let mut out = Vec::new();
        ipv4_header(SRC, DST, 112, payload.len() as u16, &mut out);
        out.extend(payload);
        out
    }

    #[test]
    fn an_ipv4_header_is_network_control_with_ttl_255_and_a_checksum() {
        let header = [
            0x45, 0xc0, 0, 36, 0, 0, 0, 0, 255, 112, 0x17, 0x9c, //
            192, 0, 2, 251, 224, 0, 0, 18,
        ];
        assert_eq!(packet(&[0; 16])[..20], header);
    }

    #[test]
    fn an_ipv6_header_is_network_control_with_hop_limit_255() {
        let mut out = Vec::new();
        let (src, dst) = ("fe80::c8".parse().unwrap(), "ff02::12".parse().unwrap());
        ipv6_header(src, dst, 112, 40, &mut out);
        let header = [
            0x6c, 0x00, 0, 0, 0, 40, 112, 255, //
            0xfe, 0x80, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xc8, //
            0xff, 0x02, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x12,
        ];
        assert_eq!(out, header);
    }

    #[test]
    fn a_received_packet_is_cut_to_its_total_length() {
        let mut bytes = packet(b"message");
        bytes.extend([0; 19]);
        let rx = RxMeta { src: SRC.into(), dst: DST.into(), ttl: 255 };
        assert_eq!(parse_ipv4(&bytes), Ok((rx, &b"message"[..])));
    }

    #[test]
    fn options_are_skipped() {
        let mut bytes = packet(b"0123message");
        bytes[0] = 0x46;
        assert_eq!(parse_ipv4(&bytes).map(|(_, payload)| payload), Ok(&b"message"[..]));
        bytes[0] = 0x4f;
        assert_eq!(parse_ipv4(&bytes).map(|_| ()), Err(Discard::PacketLength));
    }

    #[test]
    fn what_no_kernel_has_looked_at_needs_a_header_whose_checksum_is_right() {
        let mut bytes = packet(b"message");
        assert_eq!(parse_unchecked_ipv4(&bytes), parse_ipv4(&bytes));
        bytes[15] ^= 1;
        assert!(parse_ipv4(&bytes).is_ok());
        assert_eq!(parse_unchecked_ipv4(&bytes), Err(Discard::Checksum));
        assert_eq!(parse_unchecked_ipv4(&bytes[..19]), Err(Discard::PacketLength));
    }

    #[test]
    fn headers_that_lie_and_fragments_are_refused() {
        let lies: [(&str, usize, u8); 8] = [
            ("version 6", 0, 0x65),
            ("header of 16 bytes", 0, 0x44),
            ("total length inside the header", 3, 19),
            ("total length zero", 3, 0),
            ("total length beyond the end", 3, 28),
            ("more fragments", 6, 0x20),
            ("fragment offset, high bits", 6, 0x10),
            ("fragment offset, low bits", 7, 1),
        ];
        for (lie, at, byte) in lies {
            let mut bytes = packet(b"message");
            bytes[at] = byte;
            assert_eq!(parse_ipv4(&bytes), Err(Discard::PacketLength), "{lie}");
        }
        let mut whole = packet(b"message");
        whole[6] = 0x40;
        assert!(parse_ipv4(&whole).is_ok(), "don't fragment makes no fragment");
        for end in 0..whole.len() {
            assert_eq!(parse_ipv4(&whole[..end]), Err(Discard::PacketLength), "{end} bytes");
        }
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(bytes in prop::collection::vec(any::<u8>(), 0..80)) {
            let _ = parse_ipv4(&bytes);
            let _ = parse_unchecked_ipv4(&bytes);
        }

        #[test]
        fn what_follows_a_plausible_first_byte_never_makes_it_panic(
            mut bytes in prop::collection::vec(any::<u8>(), 20..80),
            ihl in 0u8..16,
            total in 0u8..90,
        ) {
            bytes[0] = 0x40 | ihl;
            bytes[2..4].copy_from_slice(&[0, total]);
            bytes[6..8].copy_from_slice(&[0, 0]);
            if let Ok((_, payload)) = parse_ipv4(&bytes) {
                prop_assert_eq!(payload.len(), usize::from(total) - usize::from(ihl) * 4);
            }
        }

        #[test]
        fn an_emitted_packet_is_read_back(
            src in any::<Ipv4Addr>(),
            dst in any::<Ipv4Addr>(),
            payload in prop::collection::vec(any::<u8>(), 0..80),
        ) {
            let mut bytes = Vec::new();
            ipv4_header(src, dst, 112, payload.len() as u16, &mut bytes);
            prop_assert!(Sum::of(&bytes).fits());
            bytes.extend(&payload);
            let rx = RxMeta { src: src.into(), dst: dst.into(), ttl: 255 };
            prop_assert_eq!(parse_ipv4(&bytes), Ok((rx, payload.as_slice())));
        }
    }
}
