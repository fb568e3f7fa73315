//! Requests as bytes.

use std::io::{self, Cursor, Write as _};
use std::net::IpAddr;

use neli::consts::nl::NlmF;
use neli::consts::rtnl::{Ifa, IfaF, RtAddrFamily, RtScope, RtTable, RtaType, Rtm, Rtn, Rtprot};
use neli::nl::{NlPayload, Nlmsghdr, NlmsghdrBuilder};
use neli::rtnl::{Ifaddrmsg, IfaddrmsgBuilder, Rtattr, RtattrBuilder, Rtmsg, RtmsgBuilder};
use neli::types::{Buffer, RtBuffer};
use neli::{Size, ToBytes};

use super::onlink;
use crate::config::Prefix;
use crate::node::kernel::{IFA_PROTO_HAVIP, Op, Verb};
use crate::wire::Family;

/// IFA_PROTO (linux/if_addr.h), which neli has no name for.
pub(super) const IFA_PROTO: u16 = 11;
/// A lifetime without end (linux/addrconf.h).
const INFINITY_LIFE_TIME: u32 = u32::MAX;

/// Appends one message to `buffer`.
pub(super) fn message<P: Size + ToBytes>(
    buffer: &mut Cursor<Vec<u8>>,
    kind: Rtm,
    flags: NlmF,
    seq: u32,
    payload: P,
) -> io::Result<()> {
    let message: Nlmsghdr<Rtm, P> = NlmsghdrBuilder::default()
        .nl_type(kind)
        .nl_flags(NlmF::REQUEST | flags)
        .nl_seq(seq)
        .nl_payload(NlPayload::Payload(payload))
        .build()
        .map_err(io::Error::other)?;
    message.to_bytes(buffer).map_err(io::Error::other)
}

/// One attribute.
pub(super) fn attribute<T: RtaType, P: Size + ToBytes>(
    kind: T,
    payload: P,
) -> io::Result<Rtattr<T, Buffer>> {
    RtattrBuilder::default().rta_type(kind).rta_payload(payload).build().map_err(io::Error::other)
}

/// An address attribute's bytes.
pub(super) fn octets(ip: IpAddr) -> Buffer {
    match ip {
        IpAddr::V4(ip) => Buffer::from(&ip.octets()[..]),
        IpAddr::V6(ip) => Buffer::from(&ip.octets()[..]),
    }
}

/// AF_INET or AF_INET6.
pub(super) const fn family(family: Family) -> RtAddrFamily {
    match family {
        Family::V4 => RtAddrFamily::Inet,
        Family::V6 => RtAddrFamily::Inet6,
    }
}

/// RT_SCOPE_LINK for 169.254.0.0/16 and fe80::/10, as `ip` has it.
fn scope(ip: IpAddr) -> RtScope {
    let link_local = match ip {
        IpAddr::V4(ip) => ip.is_link_local(),
        IpAddr::V6(ip) => ip.is_unicast_link_local(),
    };
    if link_local { RtScope::Link } else { RtScope::Universe }
}

/// An address message with what every request about an address names: family, exact prefix length,
/// interface and address. Without the address and the length the kernel would take away another
/// address of the interface.
pub(super) fn address(
    index: u32,
    prefix: Prefix,
    more: Vec<Rtattr<Ifa, Buffer>>,
) -> io::Result<Ifaddrmsg> {
    let mut attributes = RtBuffer::new();
    attributes.push(attribute(Ifa::Local, octets(prefix.ip))?);
    attributes.push(attribute(Ifa::Address, octets(prefix.ip))?);
    for attribute in more {
        attributes.push(attribute);
    }
    IfaddrmsgBuilder::default()
        .ifa_family(family(Family::of(&prefix.ip)))
        .ifa_prefixlen(prefix.len)
        .ifa_flags(IfaF::empty())
        .ifa_scope(scope(prefix.ip))
        .ifa_index(index)
        .rtattrs(attributes)
        .build()
        .map_err(io::Error::other)
}

/// Asks for the routes of a family in every table: of one protocol number, or of all.
pub(super) fn routes(family: RtAddrFamily, protocol: Rtprot) -> io::Result<Rtmsg> {
    RtmsgBuilder::default()
        .rtm_family(family)
        .rtm_dst_len(0)
        .rtm_src_len(0)
        .rtm_tos(0)
        .rtm_table(RtTable::Unspec)
        .rtm_protocol(protocol)
        .rtm_scope(RtScope::Universe)
        .rtm_type(Rtn::Unspec)
        .build()
        .map_err(io::Error::other)
}

/// Appends what `op` asks for.
pub(super) fn op(buffer: &mut Cursor<Vec<u8>>, seq: u32, op: &Op) -> io::Result<()> {
    let (flags, lifetime) = match op.verb {
        Verb::Add { lifetime } => (NlmF::CREATE | NlmF::EXCL, lifetime),
        Verb::Renew { lifetime } => (NlmF::REPLACE, lifetime),
        Verb::Remove => {
            let payload = address(op.index.0, op.prefix, Vec::new())?;
            return message(buffer, Rtm::Deladdr, NlmF::ACK, seq, payload);
        }
        Verb::Route { table, lifetime, again } => {
            let act = onlink::Act::Add { lifetime, again };
            let route = onlink::OnLink { index: op.index.0, vip: op.prefix, table };
            return buffer.write_all(&route.request(seq, act));
        }
        Verb::Unroute { table } => {
            let route = onlink::OnLink { index: op.index.0, vip: op.prefix, table };
            return buffer.write_all(&route.request(seq, onlink::Act::Remove));
        }
    };
    let more = put_attributes(op.prefix, lifetime.unwrap_or(INFINITY_LIFE_TIME))?;
    let payload = address(op.index.0, op.prefix, more)?;
    message(buffer, Rtm::Newaddr, NlmF::ACK | flags, seq, payload)
}

fn put_attributes(prefix: Prefix, valid: u32) -> io::Result<Vec<Rtattr<Ifa, Buffer>>> {
    let family = Family::of(&prefix.ip);
    // Source selection leaves a deprecated IPv6 address alone. IPv4 has no such rule: there the mark
    // would only mislead programs, so it is preferred as long as it is valid.
    let preferred = match family {
        Family::V4 => valid,
        Family::V6 => 0,
    };
    let mut flags = 0;
    if family == Family::V6 {
        // Another node may still hold it in the moment of taking over.
        flags |= libc::IFA_F_NODAD;
        // A host address has no network to reach; this saves a route for each.
        flags |= libc::IFA_F_NOPREFIXROUTE;
    }
    // struct ifa_cacheinfo: preferred, valid, created, updated; the kernel reads the first two.
    let mut cacheinfo = Buffer::new();
    for number in [preferred, valid, 0, 0] {
        cacheinfo.extend_from_slice(&number.to_ne_bytes());
    }
    Ok(vec![
        attribute(Ifa::Cacheinfo, cacheinfo)?,
        attribute(Ifa::Flags, flags)?,
        attribute(Ifa::UnrecognizedConst(IFA_PROTO), IFA_PROTO_HAVIP)?,
    ])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::linux::netlink::parse::{self, Messages};
    use crate::node::kernel::{Address, Change};
    use crate::wire::IfIndex;

    fn encoded(prefix: Prefix, verb: Verb) -> Vec<u8> {
        let mut buffer = Cursor::new(Vec::new());
        op(&mut buffer, 7, &Op { index: IfIndex(3), prefix, verb }).unwrap();
        buffer.into_inner()
    }

    #[test]
    fn a_put_reads_back_as_the_address_it_asks_for() {
        for (text, link_scope) in
            [("10.0.0.3", false), ("169.254.1.1", true), ("2001:db8::3", false), ("fe80::3", true)]
        {
            let prefix = Prefix::host(text.parse().unwrap());
            let bytes = encoded(prefix, Verb::Add { lifetime: Some(4) });
            let message = Messages::new(&bytes).next().unwrap().unwrap();
            assert_eq!(message.seq, 7);
            let address = Address {
                index: IfIndex(3),
                prefix,
                secondary: false,
                tentative: false,
                permanent: false,
                link_scope,
                proto: IFA_PROTO_HAVIP,
            };
            assert_eq!(parse::change(&message), Ok(Some(Change::Address(address))));
        }
    }

    #[test]
    fn a_remove_names_the_exact_prefix() {
        let prefix = Prefix { ip: "10.0.0.3".parse().unwrap(), len: 24 };
        let bytes = encoded(prefix, Verb::Remove);
        let message = Messages::new(&bytes).next().unwrap().unwrap();
        let gone = Change::AddressGone { index: IfIndex(3), prefix };
        assert_eq!(parse::change(&message), Ok(Some(gone)));
    }

    #[test]
    fn messages_of_one_chunk_follow_each_other_aligned() {
        let mut buffer = Cursor::new(Vec::new());
        let prefix = Prefix::host("10.0.0.3".parse().unwrap());
        for seq in 1..=3 {
            let verb = Verb::Add { lifetime: None };
            op(&mut buffer, seq, &Op { index: IfIndex(3), prefix, verb }).unwrap();
        }
        let bytes = buffer.into_inner();
        let seqs: Vec<u32> = Messages::new(&bytes).map(|m| m.unwrap().seq).collect();
        assert_eq!(seqs, [1, 2, 3]);
    }
}
