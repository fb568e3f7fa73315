//! IPv4 and IPv6 headers, as far as raw sockets need them.

use std::net::{IpAddr, Ipv4Addr};

use super::checksum;
use super::vrrp::{Discard, RxMeta};

/// DSCP CS6, network control: what routing protocols are marked with.
const TRAFFIC_CLASS: u8 = 0xc0;
/// TTL and Hop Limit (RFC 9568 §5.1.1.3, §5.1.2.3).
const HOPS: u8 = 255;

/// Takes apart an IPv4 packet as a raw socket delivers it; returns the payload without padding.
///
/// # Errors
/// [`Discard::PacketLength`] for everything that is no whole IPv4 packet: fragments included.
pub fn parse_ipv4(bytes: &[u8]) -> Result<(RxMeta, &[u8]), Discard> {
    let Some(&[first, _, l0, l1, _, _, f0, f1, ttl, _, _, _, s0, s1, s2, s3, d0, d1, d2, d3]) =
        bytes.first_chunk::<20>()
    else {
        return Err(Discard::PacketLength);
    };
    let header = usize::from(first & 0x0f) * 4;
    let total = usize::from(u16::from_be_bytes([l0, l1]));
    // MF or a fragment offset: no advert is that long.
    let fragment = u16::from_be_bytes([f0, f1]) & 0x3fff != 0;
    if first >> 4 != 4 || header < 20 || fragment {
        return Err(Discard::PacketLength);
    }
    let payload = bytes.get(header..total).ok_or(Discard::PacketLength)?;
    let src = IpAddr::V4(Ipv4Addr::new(s0, s1, s2, s3));
    let dst = IpAddr::V4(Ipv4Addr::new(d0, d1, d2, d3));
    Ok((RxMeta { src, dst, ttl }, payload))
}

/// Appends a header without length; [`finish_header`] puts it in.
pub(super) fn emit_header(src: &IpAddr, dst: &IpAddr, protocol: u8, out: &mut Vec<u8>) {
    match (src, dst) {
        (IpAddr::V4(src), IpAddr::V4(dst)) => {
            // Identification 0: the kernel fills it in.
            out.extend([0x45, TRAFFIC_CLASS, 0, 0, 0, 0, 0, 0, HOPS, protocol, 0, 0]);
            out.extend(src.octets());
            out.extend(dst.octets());
        }
        (IpAddr::V6(src), IpAddr::V6(dst)) => {
            out.extend([0x60 | TRAFFIC_CLASS >> 4, TRAFFIC_CLASS << 4, 0, 0]);
            out.extend([0, 0, protocol, HOPS]);
            out.extend(src.octets());
            out.extend(dst.octets());
        }
        // The group is always taken of the source's family.
        (IpAddr::V4(_), IpAddr::V6(_)) | (IpAddr::V6(_), IpAddr::V4(_)) => {}
    }
}

/// Puts the payload's length, and for IPv4 the checksum, into the header that `packet` begins
/// with.
pub(super) fn finish_header(packet: &mut [u8], payload: usize) {
    let ipv4 = packet.first().is_some_and(|first| first >> 4 == 4);
    let (length, at) = if ipv4 { (payload + 20, 2) } else { (payload, 4) };
    let length = u16::try_from(length).unwrap_or(u16::MAX);
    if let Some(field) = packet.get_mut(at..at + 2) {
        field.copy_from_slice(&length.to_be_bytes());
    }
    if ipv4 && let Some(header) = packet.first_chunk_mut::<20>() {
        let sum = checksum::of(&[&header[..]]);
        [header[10], header[11]] = sum.to_be_bytes();
    }
}
