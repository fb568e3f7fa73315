//! Gratuitous ARP (RFC 826; RFC 5227 §2.3 and §3 on why as a request).

use std::net::Ipv4Addr;

use super::Mac;

/// Appends an Ethernet frame that announces `ip` at `mac` to everybody on the link: a broadcast
/// ARP request in which sender and target are the announced address.
pub fn gratuitous(mac: Mac, ip: Ipv4Addr, out: &mut Vec<u8>) {
    out.extend(Mac::BROADCAST.0);
    out.extend(mac.0);
    out.extend([0x08, 0x06]);
    // Ethernet, IPv4, their address lengths, request.
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
    fn a_gratuitous_arp_is_a_broadcast_request_from_and_for_the_address() {
        let mut frame = Vec::new();
        gratuitous(Mac([2, 0, 0, 0, 0, 1]), Ipv4Addr::new(10, 0, 0, 3), &mut frame);
        let expected = [
            0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 2, 0, 0, 0, 0, 1, 8, 6, // Ethernet
            0, 1, 8, 0, 6, 4, 0, 1, // Ethernet, IPv4, request
            2, 0, 0, 0, 0, 1, 10, 0, 0, 3, // sender
            0, 0, 0, 0, 0, 0, 10, 0, 0, 3, // target
        ];
        assert_eq!(frame, expected);
    }
}
