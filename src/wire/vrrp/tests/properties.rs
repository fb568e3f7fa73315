//! What holds for every packet, not only for those that somebody thought of.

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::Index;

use super::*;

/// What goes out, owned.
#[derive(Clone, Debug)]
struct Sent {
    version: Version,
    vrid: u8,
    priority: u8,
    interval: Centis,
    auth: Auth,
    addresses: Vec<IpAddr>,
    sum: SumForm,
    src: IpAddr,
    dst: IpAddr,
}

impl Sent {
    fn spec(&self) -> AdvertSpec<'_> {
        AdvertSpec {
            version: self.version,
            vrid: Vrid::new(self.vrid).unwrap(),
            priority: self.priority,
            interval: self.interval,
            auth: self.auth,
            addresses: &self.addresses,
            sum: self.sum,
        }
    }

    fn bytes(&self) -> Vec<u8> {
        let mut out = Vec::new();
        self.spec().emit(self.src, self.dst, &mut out);
        out
    }

    fn rx(&self) -> RxMeta {
        RxMeta { src: self.src, dst: self.dst, ttl: 255 }
    }

    fn v3_over_ipv4(&self) -> bool {
        self.version == Version::V3 && self.src.is_ipv4()
    }
}

fn v4() -> impl Strategy<Value = IpAddr> {
    any::<Ipv4Addr>().prop_map(IpAddr::V4)
}

fn v6() -> impl Strategy<Value = IpAddr> {
    any::<Ipv6Addr>().prop_map(IpAddr::V6)
}

fn link_local() -> impl Strategy<Value = IpAddr> {
    (0..1_u128 << 118).prop_map(|low| IpAddr::V6(Ipv6Addr::from_bits(0xfe80 << 112 | low)))
}

fn auth() -> impl Strategy<Value = Auth> {
    prop_oneof![
        Just(Auth::None),
        any::<[u8; 8]>().prop_map(Auth::Simple),
        (2u8..).prop_map(Auth::Other)
    ]
}

fn form() -> impl Strategy<Value = SumForm> {
    prop_oneof![Just(SumForm::Message), Just(SumForm::PseudoHeader)]
}

fn version_2() -> impl Strategy<Value = Sent> {
    (1u8.., any::<u8>(), 1u16..=255, auth(), vec(v4(), 1..=255), form(), v4(), v4()).prop_map(
        |(vrid, priority, seconds, auth, addresses, sum, src, dst)| Sent {
            version: Version::V2,
            vrid,
            priority,
            interval: Centis(seconds * 100),
            auth,
            addresses,
            sum,
            src,
            dst,
        },
    )
}

fn version_3(
    addresses: impl Strategy<Value = Vec<IpAddr>>,
    ends: impl Strategy<Value = (IpAddr, IpAddr)>,
) -> impl Strategy<Value = Sent> {
    (1u8.., any::<u8>(), 1u16..=4095, addresses, form(), ends).prop_map(
        |(vrid, priority, centis, addresses, sum, (src, dst))| Sent {
            version: Version::V3,
            vrid,
            priority,
            interval: Centis(centis),
            auth: Auth::None,
            addresses,
            sum,
            src,
            dst,
        },
    )
}

fn sent() -> impl Strategy<Value = Sent> {
    let v6_addresses = (link_local(), vec(v6(), 0..=254))
        .prop_map(|(first, rest)| std::iter::once(first).chain(rest).collect());
    prop_oneof![
        version_2(),
        version_3(vec(v4(), 1..=255), (v4(), v4())),
        version_3(v6_addresses, (v6(), v6())),
    ]
}

/// Bytes that get past the first rules more often than chance lets them.
fn plausible() -> impl Strategy<Value = Vec<u8>> {
    let first = prop_oneof![Just(0x21u8), Just(0x31), any::<u8>()];
    (first, 0u8..4, vec(any::<u8>(), 0..100)).prop_map(|(first, count, mut bytes)| {
        for (at, byte) in [(0, first), (3, count)] {
            if let Some(place) = bytes.get_mut(at) {
                *place = byte;
            }
        }
        bytes
    })
}

proptest! {
    #[test]
    fn what_is_sent_is_what_is_received(sent in sent()) {
        let bytes = sent.bytes();
        let packet = Packet::new(&bytes).unwrap();
        prop_assert_eq!(packet.header().version, sent.version);
        prop_assert_eq!(packet.header().vrid.number(), sent.vrid);
        let advert = packet.check(&sent.rx()).unwrap();
        prop_assert_eq!(advert.version, sent.version);
        prop_assert_eq!(advert.vrid.number(), sent.vrid);
        prop_assert_eq!(advert.priority, sent.priority);
        prop_assert_eq!(advert.interval, sent.interval);
        prop_assert_eq!(advert.auth, sent.auth);
        if sent.v3_over_ipv4() {
            prop_assert!(advert.sum.is_none_or(|sum| sum == sent.sum));
        } else {
            prop_assert_eq!(advert.sum, None);
        }
        prop_assert_eq!(advert.count(), sent.addresses.len());
        prop_assert_eq!(advert.addresses().collect::<Vec<_>>(), sent.addresses);
    }

    #[test]
    fn what_was_received_is_sent_again_byte_by_byte(sent in sent()) {
        let bytes = sent.bytes();
        let advert = check(&bytes, &sent.rx()).unwrap();
        let addresses: Vec<IpAddr> = advert.addresses().collect();
        let again = AdvertSpec {
            version: advert.version,
            vrid: advert.vrid,
            priority: advert.priority,
            interval: advert.interval,
            auth: advert.auth,
            addresses: &addresses,
            sum: advert.sum.unwrap_or(SumForm::Message),
        };
        let mut out = Vec::new();
        again.emit(sent.src, sent.dst, &mut out);
        prop_assert_eq!(out, bytes);
    }

    /// Reserved and authentication bits included. Only the other form of version 3 over IPv4 can
    /// fit by accident.
    #[test]
    fn a_flipped_bit_is_never_accepted_in_the_form_that_was_sent(
        sent in sent(),
        bit in any::<Index>(),
    ) {
        let mut bytes = sent.bytes();
        let bit = bit.index(bytes.len() * 8);
        bytes[bit / 8] ^= 1 << (bit % 8);
        if let Ok(advert) = check(&bytes, &sent.rx()) {
            prop_assert!(sent.v3_over_ipv4());
            prop_assert_eq!(advert.version, Version::V3);
            prop_assert!(advert.sum.is_some_and(|sum| sum != sent.sum));
        }
    }

    #[test]
    fn a_packet_cut_short_is_never_accepted(
        sent in sent(),
        end in any::<Index>(),
    ) {
        let bytes = sent.bytes();
        let end = end.index(bytes.len());
        prop_assert!(check(&bytes[..end], &sent.rx()).is_err());
    }

    #[test]
    fn no_bytes_make_it_panic(
        bytes in plausible(),
        src in prop_oneof![v4(), v6()],
        dst in prop_oneof![v4(), v6()],
        ttl in any::<u8>(),
    ) {
        if let Ok(packet) = Packet::new(&bytes)
            && let Ok(advert) = packet.check(&RxMeta { src, dst, ttl })
        {
            prop_assert_eq!(advert.addresses().count(), advert.count());
        }
    }

    /// As [`no_bytes_make_it_panic`], with a checksum that lets the later rules have their turn.
    #[test]
    fn no_bytes_under_a_right_checksum_make_it_panic(mut bytes in plausible(), v6 in any::<bool>()) {
        let rx = rx(if v6 { V6_SRC } else { V4_SRC });
        bytes.resize(bytes.len().max(8), 0);
        bytes[6..8].fill(0);
        let checksum = crate::wire::checksum::Sum::pseudo_header(rx.src, rx.dst, 112, bytes.len())
            .bytes(&bytes)
            .checksum();
        bytes[6..8].copy_from_slice(&checksum.to_be_bytes());
        if let Ok(advert) = check(&bytes, &rx) {
            prop_assert!(advert.count() > 0 && advert.interval.0 > 0);
            prop_assert_eq!(advert.addresses().count(), advert.count());
        }
    }
}
