//! Default routes, as far as the policy wants them.

use std::io::{self, Cursor};
use std::net::IpAddr;

use neli::FromBytesWithInput;
use neli::attr::Attribute;
use neli::consts::rtnl::{RtAddrFamily, RtScope, RtTable, Rtm, Rtn, Rtprot};
use neli::rtnl::{Rtmsg, RtmsgBuilder};

use super::Requests;
use super::parse::{self, Malformed, Message};

/// RTA_VIA (linux/rtnetlink.h): a gateway of the other family. neli names it with glibc alone.
const RTA_VIA: u16 = 18;
/// Bytes of struct rtnexthop.
const NEXTHOP: usize = 8;

/// The gateways of every default route in every table, of both families, each once.
///
/// Reads all routes over a socket of its own; with a full table of the Internet that takes the
/// kernel about a second, so not for a thread that others wait for.
///
/// # Errors
/// As [`Requests::dump`].
pub fn default_gateways() -> io::Result<Vec<IpAddr>> {
    let mut requests = Requests::open()?;
    let mut gateways = Vec::new();
    for family in [RtAddrFamily::Inet, RtAddrFamily::Inet6] {
        let request = || {
            RtmsgBuilder::default()
                .rtm_family(family)
                .rtm_dst_len(0)
                .rtm_src_len(0)
                .rtm_tos(0)
                .rtm_table(RtTable::Unspec)
                .rtm_protocol(Rtprot::Unspec)
                .rtm_scope(RtScope::Universe)
                .rtm_type(Rtn::Unspec)
                .build()
                .map_err(io::Error::other)
        };
        for found in requests.dump_of(Rtm::Getroute, request, gateways_of)? {
            gateways.extend(found);
        }
    }
    gateways.sort_unstable();
    gateways.dedup();
    Ok(gateways)
}

fn gateways_of(message: &Message<'_>) -> Result<Option<Vec<IpAddr>>, Malformed> {
    // rtm_dst_len, before anything is allocated: nearly every route ends here.
    if message.kind != libc::RTM_NEWROUTE || message.body.get(1) != Some(&0) {
        return Ok(None);
    }
    let body = message.body;
    let route = Rtmsg::from_bytes_with_input(&mut Cursor::new(body), body.len())
        .map_err(|_| Malformed("route"))?;
    let mut gateways = Vec::new();
    for attribute in route.rtattrs().iter() {
        let payload = attribute.payload().as_ref();
        match u16::from(attribute.rta_type()) {
            libc::RTA_MULTIPATH => nexthops(payload, &mut gateways)?,
            kind => gateways.extend(gateway(kind, payload)),
        }
    }
    Ok(Some(gateways))
}

fn gateway(kind: u16, payload: &[u8]) -> Option<IpAddr> {
    match kind {
        libc::RTA_GATEWAY => parse::ip(payload),
        // struct rtvia: the family, then the address.
        RTA_VIA => payload.get(2..).and_then(parse::ip),
        _ => None,
    }
}

/// RTA_MULTIPATH: struct rtnexthop, its length in front, then attributes; each aligned to 4 bytes.
fn nexthops(mut payload: &[u8], gateways: &mut Vec<IpAddr>) -> Result<(), Malformed> {
    const BAD: Malformed = Malformed("route with several gateways");
    while !payload.is_empty() {
        let length = usize::from(parse::u16_at(payload, 0).ok_or(BAD)?);
        let mut attributes = payload.get(NEXTHOP..length).ok_or(BAD)?;
        while !attributes.is_empty() {
            let length = usize::from(parse::u16_at(attributes, 0).ok_or(BAD)?);
            let kind = parse::u16_at(attributes, 2).ok_or(BAD)?;
            gateways.extend(gateway(kind, attributes.get(4..length).ok_or(BAD)?));
            attributes = attributes.get(length.next_multiple_of(4)..).unwrap_or_default();
        }
        payload = payload.get(length.next_multiple_of(4)..).unwrap_or_default();
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn nexthop(gateway: [u8; 4]) -> Vec<u8> {
        let mut bytes = Vec::new();
        bytes.extend(16u16.to_ne_bytes());
        bytes.extend([0; 6]);
        bytes.extend(8u16.to_ne_bytes());
        bytes.extend(libc::RTA_GATEWAY.to_ne_bytes());
        bytes.extend(gateway);
        bytes
    }

    #[test]
    fn every_gateway_of_a_route_with_several_is_found() {
        let payload = [nexthop([10, 0, 0, 1]), nexthop([10, 0, 0, 2])].concat();
        let mut gateways = Vec::new();
        nexthops(&payload, &mut gateways).unwrap();
        assert_eq!(gateways, [IpAddr::from([10, 0, 0, 1]), IpAddr::from([10, 0, 0, 2])]);
    }

    #[test]
    fn a_gateway_of_the_other_family_is_found() {
        let mut payload = vec![10, 0];
        payload.extend([0xfe, 0x80, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1]);
        assert_eq!(gateway(RTA_VIA, &payload), Some("fe80::1".parse().unwrap()));
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(body in prop::collection::vec(any::<u8>(), 0..128)) {
            let mut body = body;
            if let Some(length) = body.get_mut(1) {
                *length = 0;
            }
            let kind = libc::RTM_NEWROUTE;
            let _ = gateways_of(&Message { kind, flags: 0, seq: 1, body: &body });
            let _ = nexthops(&body, &mut Vec::new());
        }
    }
}
