//! The Internet checksum (RFC 1071), plain and with the pseudo-headers of IPv4 and IPv6.

use std::net::IpAddr;

/// One's-complement sum of 16-bit words, to be finished by [`Self::finish`].
#[derive(Clone, Copy, Debug, Default)]
struct Sum(u64);

impl Sum {
    /// Adds a part that begins at an even offset.
    fn add(self, part: &[u8]) -> Self {
        let mut words = part.chunks_exact(2);
        let mut sum = self.0;
        for word in &mut words {
            if let [high, low] = word {
                sum += u64::from(u16::from_be_bytes([*high, *low]));
            }
        }
        if let [last] = words.remainder() {
            sum += u64::from(u16::from_be_bytes([*last, 0]));
        }
        Self(sum)
    }

    fn finish(self) -> u16 {
        let mut sum = self.0;
        while sum > 0xffff {
            sum = (sum & 0xffff) + (sum >> 16);
        }
        !u16::try_from(sum).unwrap_or(u16::MAX)
    }
}

/// Checksum of parts, each of which but the last has an even length. Over data that carries its
/// right checksum it is 0.
#[must_use]
pub fn of(parts: &[&[u8]]) -> u16 {
    parts.iter().fold(Sum::default(), |sum, part| sum.add(part)).finish()
}

/// Checksum of an upper-layer message with its pseudo-header: RFC 793 §3.1 for IPv4, RFC 8200
/// §8.1 for IPv6. The families of `src` and `dst` are the same.
#[must_use]
pub fn of_upper(src: &IpAddr, dst: &IpAddr, protocol: u8, message: &[u8]) -> u16 {
    let length = u32::try_from(message.len()).unwrap_or(u32::MAX);
    let mut sum = Sum::default();
    for ip in [src, dst] {
        sum = match ip {
            IpAddr::V4(ip) => sum.add(&ip.octets()),
            IpAddr::V6(ip) => sum.add(&ip.octets()),
        };
    }
    // Of both families' fields only zero bytes differ in place, and those do not count.
    sum.add(&length.to_be_bytes()).add(&[0, protocol]).add(message).finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_example_of_rfc_1071_comes_out_right() {
        // RFC 1071 §3: the sum is ddf2, its complement the checksum.
        assert_eq!(of(&[&[0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7]]), !0xddf2);
    }

    #[test]
    fn an_odd_last_byte_counts_as_if_a_zero_followed() {
        assert_eq!(of(&[&[1, 2, 3]]), of(&[&[1, 2, 3, 0]]));
        assert_eq!(of(&[]), 0xffff);
    }

    #[test]
    fn parts_count_as_one_piece() {
        assert_eq!(of(&[&[1, 2], &[3, 4], &[5]]), of(&[&[1, 2, 3, 4, 5]]));
    }
}
