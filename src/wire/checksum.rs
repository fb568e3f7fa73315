//! The Internet checksum (RFC 1071): the one's complement of the one's-complement sum of 16-bit
//! words in network byte order.

use std::net::IpAddr;

/// A running sum. Pieces add up as if they were one buffer, odd lengths included, and a missing
/// last byte counts as zero.
#[derive(Clone, Copy, Debug, Default)]
pub struct Sum {
    /// Carries are folded at the end: 64 bits hold the sum of 2^48 words.
    total: u64,
    /// The last piece ended in the middle of a word.
    odd: bool,
}

impl Sum {
    /// The sum of one buffer.
    #[must_use]
    pub fn of(bytes: &[u8]) -> Self {
        Self::default().bytes(bytes)
    }

    /// The pseudo-header of IPv4 (RFC 793 §3.1) or IPv6 (RFC 8200 §8.1): both add up the same
    /// fields. `length` is that of the upper-layer packet in bytes.
    #[must_use]
    pub fn pseudo_header(src: IpAddr, dst: IpAddr, protocol: u8, length: usize) -> Self {
        let mut sum = Self::default().address(src).address(dst);
        sum.total += u64::from(protocol);
        // A length that needs the upper half of IPv6's 32-bit field folds to the same sum.
        sum.total += length as u64;
        sum
    }

    /// Adds the bytes that follow.
    #[must_use]
    pub fn bytes(mut self, mut bytes: &[u8]) -> Self {
        if self.odd
            && let [low, rest @ ..] = bytes
        {
            self.total += u64::from(*low);
            self.odd = false;
            bytes = rest;
        }
        let (words, rest) = bytes.as_chunks();
        self.total += words.iter().map(|word| u64::from(u16::from_be_bytes(*word))).sum::<u64>();
        if let [high] = rest {
            self.total += u64::from(*high) << 8;
            self.odd = true;
        }
        self
    }

    /// Adds an address.
    #[must_use]
    pub fn address(self, address: IpAddr) -> Self {
        match address {
            IpAddr::V4(address) => self.bytes(&address.octets()),
            IpAddr::V6(address) => self.bytes(&address.octets()),
        }
    }

    /// What the checksum field takes, when it was zero in the sum.
    #[must_use]
    pub const fn checksum(self) -> u16 {
        !self.fold()
    }

    /// Whether a packet summed together with its checksum field is intact.
    #[must_use]
    pub const fn fits(self) -> bool {
        self.fold() == 0xffff
    }

    const fn fold(self) -> u16 {
        let mut total = self.total;
        while total > 0xffff {
            total = (total & 0xffff) + (total >> 16);
        }
        total as u16
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_example_of_rfc_1071_section_3_adds_up() {
        let sum = Sum::of(&[0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7]);
        assert_eq!(sum.fold(), 0xddf2);
        assert_eq!(sum.checksum(), 0x220d);
    }

    #[test]
    fn a_missing_last_byte_counts_as_zero() {
        assert_eq!(Sum::of(&[0x12, 0x34, 0x56]).fold(), Sum::of(&[0x12, 0x34, 0x56, 0]).fold());
        assert_eq!(Sum::of(&[]).checksum(), 0xffff);
    }

    #[test]
    fn pseudo_headers_have_the_fields_of_both_families() {
        let (src, dst) = ([192, 0, 2, 251], [224, 0, 0, 18]);
        let spelled_out = Sum::of(&src).bytes(&dst).bytes(&[0, 112, 0, 16]);
        let sum = Sum::pseudo_header(src.into(), dst.into(), 112, 16);
        assert_eq!(sum.fold(), spelled_out.fold());

        let (src, dst) = ([0xfe; 16], [0x20; 16]);
        let spelled_out = Sum::of(&src).bytes(&dst).bytes(&[0, 1, 0x11, 0x70, 0, 0, 0, 58]);
        let sum = Sum::pseudo_header(src.into(), dst.into(), 58, 0x1_1170);
        assert_eq!(sum.fold(), spelled_out.fold());
    }

    proptest! {
        #[test]
        fn pieces_of_any_length_add_up_as_one_buffer(
            pieces in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..9), 0..9),
        ) {
            let whole = Sum::of(&pieces.concat());
            let sum = pieces.iter().fold(Sum::default(), |sum, piece| sum.bytes(piece));
            prop_assert_eq!(sum.fold(), whole.fold());
        }

        #[test]
        fn a_packet_with_its_checksum_in_it_fits_and_with_a_flipped_bit_does_not(
            mut bytes in prop::collection::vec(any::<u8>(), 2..64),
            bit in any::<prop::sample::Index>(),
        ) {
            bytes[0] = 0;
            bytes[1] = 0;
            let checksum = Sum::of(&bytes).checksum();
            bytes[..2].copy_from_slice(&checksum.to_be_bytes());
            prop_assert!(Sum::of(&bytes).fits());
            let bit = bit.index(bytes.len() * 8);
            bytes[bit / 8] ^= 1 << (bit % 8);
            prop_assert!(!Sum::of(&bytes).fits());
        }
    }
}
