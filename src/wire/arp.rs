//! Gratuitous ARP: tells a LAN which MAC address an IPv4 address is at.

use std::net::Ipv4Addr;

use super::Mac;

/// EtherType of ARP.
pub const ETHERTYPE: u16 = 0x0806;

/// Bytes of a frame that [`gratuitous`] makes; the driver pads it to Ethernet's minimum.
pub const FRAME: usize = 42;

/// Appends an ARP announcement (RFC 5227 §2.3) as a complete Ethernet frame without its check
/// sequence: a broadcast request from `mac` in which sender and target both are `ip` and the
/// target hardware address is zero.
pub fn gratuitous(mac: Mac, ip: Ipv4Addr, out: &mut Vec<u8>) {
    out.extend(Mac::BROADCAST.0);
    out.extend(mac.0);
    out.extend(ETHERTYPE.to_be_bytes());
    // Ethernet, IPv4, address lengths 6 and 4, operation 1: request.
    out.extend([0, 1, 0x08, 0x00, 6, 4, 0, 1]);
    out.extend(mac.0);
    out.extend(ip.octets());
    out.extend([0; 6]);
    out.extend(ip.octets());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_announcement_is_a_broadcast_request_for_the_senders_own_address() {
        let mut out = vec![0xee];
        gratuitous(Mac([0, 0, 0x5e, 0, 1, 0x33]), Ipv4Addr::new(192, 0, 2, 1), &mut out);
        let frame = [
            0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0, 0, 0x5e, 0, 1, 0x33, 0x08, 0x06, //
            0, 1, 0x08, 0, 6, 4, 0, 1, //
            0, 0, 0x5e, 0, 1, 0x33, 192, 0, 2, 1, //
            0, 0, 0, 0, 0, 0, 192, 0, 2, 1,
        ];
        assert_eq!(out[1..], frame);
        assert_eq!(out[0], 0xee, "the buffer is appended to");
        assert_eq!(frame.len(), FRAME);
    }
}
