//! Every rule, and which one names the discard when a packet breaks several.

use super::*;
use crate::wire::checksum::Sum;

/// A packet as it is being broken. Its checksum is made right before `Checksum` breaks it.
struct Broken {
    bytes: Vec<u8>,
    rx: RxMeta,
    checksum: u8,
}

type Break = fn(&mut Broken);

/// In the order in which they are looked for.
const RULES: [(Discard, Break); 10] = [
    (Discard::PacketLength, |packet| packet.bytes.truncate(7)),
    (Discard::Version, |packet| packet.bytes[0] = 0x40 | packet.bytes[0] & 0x0f),
    (Discard::Type, |packet| packet.bytes[0] = packet.bytes[0] & 0xf0 | 0x02),
    (Discard::Vrid, |packet| packet.bytes[1] = 0),
    (Discard::Checksum, |packet| packet.checksum = 0x10),
    (Discard::Ttl, |packet| packet.rx.ttl = 254),
    (Discard::AddressCount, |packet| packet.bytes[3] = 0),
    (Discard::PacketLength, |packet| packet.bytes.extend([0; 4])),
    (Discard::FirstAddress, |packet| packet.bytes[8..10].copy_from_slice(&[0x20, 0x01])),
    (Discard::Interval, |packet| packet.bytes[5] = 0),
];

fn packets() -> [(Vec<u8>, RxMeta); 3] {
    let v4 = addresses(&["192.0.2.1", "192.0.2.2"]);
    let v6 = addresses(&["fe80::1", "2001:db8::1"]);
    [
        (emitted(&spec(Version::V2, &v4), V4_SRC), rx(V4_SRC)),
        (emitted(&spec(Version::V3, &v4), V4_SRC), rx(V4_SRC)),
        (emitted(&spec(Version::V3, &v6), V6_SRC), rx(V6_SRC)),
    ]
}

fn verdict(bytes: &[u8], rx: RxMeta, breaks: &[Break]) -> Result<(), Discard> {
    let mut packet = Broken { bytes: bytes.to_vec(), rx, checksum: 0 };
    for apply in breaks {
        apply(&mut packet);
    }
    if packet.bytes.len() >= 8 {
        packet.bytes[6..8].fill(0);
        let sum = match rx.src {
            IpAddr::V4(_) => Sum::default(),
            IpAddr::V6(_) => Sum::pseudo_header(rx.src, rx.dst, PROTOCOL, packet.bytes.len()),
        };
        let checksum = sum.bytes(&packet.bytes).checksum();
        packet.bytes[6..8].copy_from_slice(&checksum.to_be_bytes());
        packet.bytes[7] ^= packet.checksum;
    }
    check(&packet.bytes, &packet.rx).map(|_| ())
}

#[test]
fn the_first_rule_that_a_packet_breaks_names_the_discard() {
    for (bytes, rx) in packets() {
        assert_eq!(verdict(&bytes, rx, &[]), Ok(()));
        let applies = |reason| reason != Discard::FirstAddress || rx.src.is_ipv6();
        for (place, (first, one)) in RULES.into_iter().enumerate().filter(|r| applies(r.1.0)) {
            assert_eq!(verdict(&bytes, rx, &[one]), Err(first), "{first:?} alone");
            // The later rule first, so that a shortened packet is still long enough for it.
            for (later, other) in RULES.into_iter().skip(place + 1) {
                let verdict = verdict(&bytes, rx, &[other, one]);
                assert_eq!(verdict, Err(first), "{first:?} before {later:?}");
            }
        }
    }
}

#[test]
fn every_rule_is_tried() {
    for reason in Discard::ALL {
        assert!(RULES.iter().any(|(rule, _)| *rule == reason), "{reason:?}");
    }
}

#[test]
fn a_message_below_eight_bytes_has_no_header() {
    let whole = hex("310ac8020064828a");
    for end in 0..8 {
        assert_eq!(Packet::new(&whole[..end]).map(|_| ()), Err(Discard::PacketLength));
    }
    assert!(Packet::new(&whole).is_ok());
}

#[test]
fn only_versions_2_and_3_and_type_1_are_known() {
    for first in 0..=u8::MAX {
        let bytes = [first, 1, 0, 0, 0, 0, 0, 0];
        let expected = match (first >> 4, first & 0x0f) {
            (2, 1) => Ok(Version::V2),
            (3, 1) => Ok(Version::V3),
            (2 | 3, _) => Err(Discard::Type),
            _ => Err(Discard::Version),
        };
        let version = Packet::new(&bytes).map(|packet| packet.header().version);
        assert_eq!(version, expected, "{first:#04x}");
    }
}

#[test]
fn a_ttl_below_255_is_a_packet_that_was_forwarded() {
    for (bytes, rx) in packets() {
        for ttl in 0..255 {
            assert_eq!(check(&bytes, &RxMeta { ttl, ..rx }), Err(Discard::Ttl));
        }
    }
}

#[test]
fn the_count_must_be_that_of_the_addresses() {
    for (bytes, rx) in packets() {
        for count in 0..=u8::MAX {
            let mut bytes = bytes.clone();
            bytes[3] = count;
            let expected = match count {
                0 => Err(Discard::AddressCount),
                2 => Ok(()),
                _ => Err(Discard::PacketLength),
            };
            assert_eq!(verdict(&bytes, rx, &[]), expected, "{count}");
        }
    }
}

#[test]
fn a_byte_too_few_or_too_many_is_a_wrong_length() {
    for (bytes, rx) in packets() {
        let extra: Break = |packet| packet.bytes.push(0);
        let missing: Break = |packet| packet.bytes.truncate(packet.bytes.len() - 1);
        assert_eq!(verdict(&bytes, rx, &[extra]), Err(Discard::PacketLength));
        assert_eq!(verdict(&bytes, rx, &[missing]), Err(Discard::PacketLength));
    }
}

#[test]
fn all_of_fe80_10_is_link_local_and_nothing_else() {
    let fits = [("fe80::1", true), ("febf:ffff::1", true), ("fec0::1", false), ("fe7f::1", false)];
    for (first, fit) in fits {
        let vips = addresses(&[first, "2001:db8::1"]);
        let bytes = emitted(&spec(Version::V3, &vips), V6_SRC);
        let expected = if fit { Ok(2) } else { Err(Discard::FirstAddress) };
        assert_eq!(check(&bytes, &rx(V6_SRC)).map(|advert| advert.count()), expected, "{first}");
    }
}

#[test]
fn a_mangled_checksum_fits_in_no_version_and_family() {
    for (bytes, rx) in packets() {
        let right = u16::from_be_bytes([bytes[6], bytes[7]]);
        let accepted: Vec<u16> = (0..=u16::MAX)
            .filter(|sum| {
                let mut bytes = bytes.clone();
                bytes[6..8].copy_from_slice(&sum.to_be_bytes());
                check(&bytes, &rx).is_ok_and(|a| a.sum != Some(SumForm::PseudoHeader))
            })
            .collect();
        assert_eq!(accepted, [right]);
    }
}
