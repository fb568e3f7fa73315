//! Advertisements byte by byte; discards and properties have files of their own.

mod discards;
mod properties;

use super::*;
use crate::wire::ip::parse_ipv4;

const V4_SRC: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 251));
const V6_SRC: IpAddr = IpAddr::V6(Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 0xc8));

fn hex(text: &str) -> Vec<u8> {
    let digits: Vec<u8> =
        text.chars().filter_map(|c| c.to_digit(16)).map(|digit| digit as u8).collect();
    digits.chunks(2).map(|pair| pair[0] << 4 | pair[1]).collect()
}

fn addresses(list: &[&str]) -> Vec<IpAddr> {
    list.iter().map(|address| address.parse().unwrap()).collect()
}

/// From `src` to the group, TTL 255.
fn rx(src: IpAddr) -> RxMeta {
    RxMeta { src, dst: group(Family::of(&src)), ttl: 255 }
}

fn check<'a>(bytes: &'a [u8], rx: &RxMeta) -> Result<Advert<'a>, Discard> {
    Packet::new(bytes)?.check(rx)
}

fn emitted(spec: &AdvertSpec<'_>, src: IpAddr) -> Vec<u8> {
    let mut out = Vec::new();
    spec.emit(src, group(Family::of(&src)), &mut out);
    out
}

fn spec(version: Version, addresses: &[IpAddr]) -> AdvertSpec<'_> {
    AdvertSpec {
        version,
        vrid: Vrid::new(10).unwrap(),
        priority: 200,
        interval: Centis(100),
        auth: Auth::None,
        addresses,
        sum: SumForm::Message,
    }
}

/// The bytes are what `spec` emits, and read back they say what `spec` said, in the form `sum`.
fn both_ways(text: &str, src: IpAddr, spec: &AdvertSpec<'_>, sum: Option<SumForm>) {
    let bytes = hex(text);
    assert_eq!(emitted(spec, src), bytes);

    let packet = Packet::new(&bytes).unwrap();
    assert_eq!(packet.header(), Header { version: spec.version, vrid: spec.vrid });
    let advert = packet.check(&rx(src)).unwrap();
    assert_eq!((advert.version, advert.vrid), (spec.version, spec.vrid));
    assert_eq!((advert.priority, advert.interval), (spec.priority, spec.interval));
    assert_eq!((advert.auth, advert.sum), (spec.auth, sum));
    assert_eq!(advert.addresses().collect::<Vec<_>>(), spec.addresses);
    assert_eq!(advert.count(), spec.addresses.len());
}

#[test]
fn version_2_has_an_authentication_trailer_that_length_and_checksum_cover() {
    let vips = addresses(&["192.0.2.1", "192.0.2.2"]);
    let text = "210ac802000192ed c0000201c0000202 0000000000000000";
    both_ways(text, V4_SRC, &spec(Version::V2, &vips), None);
}

#[test]
fn version_2_carries_a_simple_password_in_its_trailer() {
    let vips = addresses(&["10.0.0.3", "10.0.0.4"]);
    let spec = AdvertSpec {
        vrid: Vrid::new(0x33).unwrap(),
        priority: 50,
        auth: Auth::Simple(*b"1234\0\0\0\0"),
        ..spec(Version::V2, &vips)
    };
    let text = "213332020101335c 0a0000030a000004 3132333400000000";
    both_ways(text, V4_SRC, &spec, None);
}

#[test]
fn version_3_over_ipv4_sums_the_message_alone_in_the_form_of_rfc_9568() {
    let vips = addresses(&["192.0.2.1", "192.0.2.2"]);
    let text = "310ac8020064828a c0000201c0000202";
    both_ways(text, V4_SRC, &spec(Version::V3, &vips), Some(SumForm::Message));
}

#[test]
fn version_3_over_ipv4_sums_a_pseudo_header_in_the_form_of_rfc_5798() {
    let vips = addresses(&["192.0.2.1", "192.0.2.2"]);
    let spec = AdvertSpec { sum: SumForm::PseudoHeader, ..spec(Version::V3, &vips) };
    let text = "310ac8020064defb c0000201c0000202";
    both_ways(text, V4_SRC, &spec, Some(SumForm::PseudoHeader));
}

#[test]
fn version_3_over_ipv6_always_sums_the_pseudo_header() {
    let vips = addresses(&["fe80::1", "2001:db8::1"]);
    let text = "310a6402 00643f5d fe800000000000000000000000000001
                20010db8000000000000000000000001";
    for sum in [SumForm::Message, SumForm::PseudoHeader] {
        let spec = AdvertSpec { priority: 100, sum, ..spec(Version::V3, &vips) };
        both_ways(text, V6_SRC, &spec, None);
    }
}

#[test]
fn a_router_that_gives_up_says_priority_0_and_the_longest_interval_has_12_bits() {
    let vips = addresses(&["198.51.100.1"]);
    let spec = AdvertSpec {
        vrid: Vrid::new(255).unwrap(),
        priority: 0,
        interval: Centis(4095),
        ..spec(Version::V3, &vips)
    };
    both_ways("31ff00010fff93cb c6336401", V4_SRC, &spec, Some(SumForm::Message));
}

#[test]
fn the_pseudo_header_has_the_address_that_the_packet_really_goes_to() {
    let vips = addresses(&["192.0.2.1", "192.0.2.2"]);
    let peer = IpAddr::from([192, 0, 2, 252]);
    let spec = AdvertSpec { sum: SumForm::PseudoHeader, ..spec(Version::V3, &vips) };
    let mut bytes = Vec::new();
    spec.emit(V4_SRC, peer, &mut bytes);
    assert_eq!(bytes, hex("310ac8020064fc11 c0000201c0000202"));
    let unicast = RxMeta { dst: peer, ..rx(V4_SRC) };
    assert_eq!(check(&bytes, &unicast).unwrap().sum, Some(SumForm::PseudoHeader));
    assert_eq!(check(&bytes, &rx(V4_SRC)), Err(Discard::Checksum));
}

#[test]
fn where_both_forms_give_one_sum_there_is_no_telling() {
    // The pseudo-header of this source adds up to a multiple of 0xffff.
    let src = IpAddr::from([10, 0, 21, 113]);
    let vips = addresses(&["10.0.0.3"]);
    let message = emitted(&spec(Version::V3, &vips), src);
    let pseudo_header =
        emitted(&AdvertSpec { sum: SumForm::PseudoHeader, ..spec(Version::V3, &vips) }, src);
    assert_eq!(message, pseudo_header);
    assert_eq!(check(&message, &rx(src)).unwrap().sum, None);
}

#[test]
fn one_flipped_bit_may_turn_one_form_into_the_other_where_the_pseudo_header_adds_up_to_1() {
    let src = IpAddr::from([10, 0, 21, 114]);
    let vips = addresses(&["10.0.0.3"]);
    let mut bytes = emitted(&spec(Version::V3, &vips), src);
    assert_eq!(check(&bytes, &rx(src)).unwrap().sum, Some(SumForm::Message));
    bytes[11] ^= 1;
    assert_eq!(check(&bytes, &rx(src)).unwrap().sum, Some(SumForm::PseudoHeader));
}

#[test]
fn the_reserved_bits_of_version_3_are_ignored() {
    let mut bytes = hex("310ac8020064828a c0000201c0000202");
    bytes[4] |= 0xf0;
    // In one's complement 0xf000 less is 0x0fff more.
    bytes[6..8].copy_from_slice(&(0x828a_u16 + 0x0fff).to_be_bytes());
    assert_eq!(check(&bytes, &rx(V4_SRC)).unwrap().interval, Centis(100));
}

#[test]
fn other_authentication_types_of_version_2_are_named_by_number() {
    let vips = addresses(&["192.0.2.1"]);
    let bytes = emitted(&AdvertSpec { auth: Auth::Other(2), ..spec(Version::V2, &vips) }, V4_SRC);
    assert_eq!(check(&bytes, &rx(V4_SRC)).unwrap().auth, Auth::Other(2));
}

#[test]
fn an_interval_that_the_wire_does_not_have_becomes_the_nearest() {
    let vips = addresses(&["192.0.2.1"]);
    let cases = [
        (Version::V3, 0, 1),
        (Version::V3, 4096, 4095),
        (Version::V2, 0, 100),
        (Version::V2, 99, 100),
        (Version::V2, 250, 200),
        (Version::V2, u16::MAX, 25_500),
    ];
    for (version, wanted, sent) in cases {
        let bytes =
            emitted(&AdvertSpec { interval: Centis(wanted), ..spec(version, &vips) }, V4_SRC);
        assert_eq!(
            check(&bytes, &rx(V4_SRC)).unwrap().interval,
            Centis(sent),
            "{version} {wanted}"
        );
    }
}

#[test]
fn addresses_of_the_other_family_are_passed_over_and_255_are_sent() {
    let v4: Vec<IpAddr> = (0..300_u32).map(|n| Ipv4Addr::from_bits(n).into()).collect();
    let mut mixed = addresses(&["fe80::1", "2001:db8::1"]);
    mixed.extend(&v4);

    let bytes = emitted(&spec(Version::V3, &mixed), V4_SRC);
    let advert = check(&bytes, &rx(V4_SRC)).unwrap();
    assert_eq!(advert.addresses().collect::<Vec<_>>(), v4[..255]);
    let bytes = emitted(&spec(Version::V3, &mixed), V6_SRC);
    let advert = check(&bytes, &rx(V6_SRC)).unwrap();
    assert_eq!(advert.addresses().collect::<Vec<_>>(), mixed[..2]);
}

#[test]
fn version_2_over_ipv6_is_neither_sent_nor_accepted() {
    let vips = addresses(&["fe80::1"]);
    let mut out = Vec::new();
    spec(Version::V2, &vips).emit(V6_SRC, group(Family::V6), &mut out);
    spec(Version::V2, &vips).emit_packet(V6_SRC, &mut out);
    assert!(out.is_empty(), "{out:?}");

    let bytes = hex("210ac80200019 2edc0000201c0000202 0000000000000000");
    assert_eq!(check(&bytes, &rx(V6_SRC)), Err(Discard::Version));
}

#[test]
fn a_whole_ipv4_packet_goes_to_the_group_with_ttl_255() {
    let vips = addresses(&["192.0.2.1", "192.0.2.2"]);
    let mut out = vec![0xee];
    spec(Version::V3, &vips).emit_packet(V4_SRC, &mut out);
    let packet = hex("45c00024 00000000 ff70179c c00002fb e0000012
                      310ac8020064828a c0000201c0000202");
    assert_eq!(out[1..], packet);
    assert_eq!(out[0], 0xee, "the buffer is appended to");

    let (meta, payload) = parse_ipv4(&packet).unwrap();
    assert_eq!(meta, rx(V4_SRC));
    assert!(check(payload, &meta).is_ok());
}

#[test]
fn a_whole_ipv6_packet_goes_to_the_group_with_hop_limit_255() {
    let vips = addresses(&["fe80::1", "2001:db8::1"]);
    let mut out = Vec::new();
    AdvertSpec { priority: 100, ..spec(Version::V3, &vips) }.emit_packet(V6_SRC, &mut out);
    let packet = hex("6c000000 0028 70 ff
                      fe8000000000000000000000000000c8 ff020000000000000000000000000012
                      310a6402 00643f5d fe800000000000000000000000000001
                      20010db8000000000000000000000001");
    assert_eq!(out, packet);
}

#[test]
fn a_packet_of_max_addresses_fills_the_mtu_and_one_more_would_not_fit() {
    let kinds = [
        (Version::V2, Family::V4, V4_SRC),
        (Version::V3, Family::V4, V4_SRC),
        (Version::V3, Family::V6, V6_SRC),
    ];
    let v4 = vec![IpAddr::V4(Ipv4Addr::LOCALHOST); 255];
    let v6 = vec![IpAddr::V6(Ipv6Addr::LOCALHOST); 255];
    let length = |version, src: IpAddr, count: usize| {
        let list = if src.is_ipv4() { &v4 } else { &v6 };
        let mut out = Vec::new();
        spec(version, &list[..count]).emit_packet(src, &mut out);
        out.len() as u32
    };
    for (version, family, src) in kinds {
        let empty = length(version, src, 0);
        assert_eq!(max_addresses(version, family, 0), 0);
        assert_eq!(max_addresses(version, family, u32::MAX), 255);
        for mtu in (empty..1600).chain([4127, 4128, 9000, 65_536]) {
            let count = max_addresses(version, family, mtu);
            assert!(length(version, src, count) <= mtu, "{version} {family} {mtu}");
            if count < 255 {
                assert!(length(version, src, count + 1) > mtu, "{version} {family} {mtu}");
            }
        }
    }
    assert_eq!(max_addresses(Version::V3, Family::V4, 1500), 255);
    assert_eq!(max_addresses(Version::V3, Family::V6, 1500), 90);
    assert_eq!(max_addresses(Version::V2, Family::V6, 1500), 0);
}

#[test]
fn a_password_stays_out_of_debug_output() {
    let vips = addresses(&["10.0.0.3"]);
    let spec = AdvertSpec { auth: Auth::Simple(*b"hunter2\0"), ..spec(Version::V2, &vips) };
    let bytes = emitted(&spec, V4_SRC);
    let advert = check(&bytes, &rx(V4_SRC)).unwrap();
    let debug = format!("{spec:?} {advert:?} {:?}", Packet::new(&bytes).unwrap());
    let secret = format!("{:?}", b"hunter2");
    assert!(!debug.contains("hunter2") && !debug.contains(secret.trim_matches(['[', ']'])));
}
