//! ARP: tells a LAN which MAC address an IPv4 address is at, and hears who else says so.

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
    request(mac, ip, ip, out);
}

/// Appends an ARP probe (RFC 5227 §2.1.1) as a complete Ethernet frame without its check sequence: a
/// broadcast request from `mac` for `ip` that says nothing of its sender's address.
pub fn probe(mac: Mac, ip: Ipv4Addr, out: &mut Vec<u8>) {
    request(mac, Ipv4Addr::UNSPECIFIED, ip, out);
}

fn request(mac: Mac, sender: Ipv4Addr, target: Ipv4Addr, out: &mut Vec<u8>) {
    out.extend(Mac::BROADCAST.0);
    out.extend(mac.0);
    out.extend(ETHERTYPE.to_be_bytes());
    // Ethernet, IPv4, address lengths 6 and 4, operation 1: request.
    out.extend([0, 1, 0x08, 0x00, 6, 4, 0, 1]);
    out.extend(mac.0);
    out.extend(sender.octets());
    out.extend([0; 6]);
    out.extend(target.octets());
}

/// What an ARP message, request or reply, says of its sender: at which MAC address its IPv4
/// address is (RFC 826). `None` for anything but ARP for IPv4 over Ethernet, and for a probe,
/// which says nothing yet (RFC 5227 §1.1).
#[must_use]
pub fn claim(message: &[u8]) -> Option<(Ipv4Addr, Mac)> {
    let (head, rest) = message.split_first_chunk::<8>()?;
    let (mac, rest) = rest.split_first_chunk::<6>()?;
    let (ip, _) = rest.split_first_chunk::<4>()?;
    let known = matches!(head, [0, 1, 0x08, 0x00, 6, 4, 0, 1 | 2]);
    (known && *ip != [0; 4]).then_some((Ipv4Addr::from(*ip), Mac(*mac)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_and_replies_tell_where_their_sender_is_and_probes_nothing() {
        let (mac, ip) = (Mac([2, 0, 0, 0, 0, 7]), Ipv4Addr::new(192, 0, 2, 1));
        let mut frame = Vec::new();
        gratuitous(mac, ip, &mut frame);
        let message = frame.split_off(14);
        assert_eq!(claim(&message), Some((ip, mac)));
        let with = |at: usize, byte: u8| {
            let mut other = message.clone();
            other[at] = byte;
            claim(&other)
        };
        assert_eq!(with(7, 2), Some((ip, mac)), "a reply");
        for (at, byte) in [(1, 6), (2, 0x86), (4, 8), (5, 16), (7, 3), (6, 1)] {
            assert_eq!(with(at, byte), None, "byte {at}");
        }
        let mut probe = message.clone();
        probe[14..18].fill(0);
        assert_eq!(claim(&probe), None);
        for length in 0..18 {
            assert_eq!(claim(&message[..length]), None);
        }
    }

    #[test]
    fn a_probe_is_a_broadcast_request_that_claims_nothing() {
        let mut out = Vec::new();
        probe(Mac([0, 0, 0x5e, 0, 1, 0x33]), Ipv4Addr::new(192, 0, 2, 1), &mut out);
        let frame = [
            0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0, 0, 0x5e, 0, 1, 0x33, 0x08, 0x06, //
            0, 1, 0x08, 0, 6, 4, 0, 1, //
            0, 0, 0x5e, 0, 1, 0x33, 0, 0, 0, 0, //
            0, 0, 0, 0, 0, 0, 192, 0, 2, 1,
        ];
        assert_eq!(out, frame);
        assert_eq!(claim(&out[14..]), None);
    }

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
