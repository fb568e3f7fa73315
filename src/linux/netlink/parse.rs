//! What the kernel says, as values. Pure: never panics, whatever the bytes.
//!
//! Messages and their attributes are split here, with every length checked and without a copy: the
//! thread that sends adverts reads them.

use std::fmt;
use std::net::IpAddr;

use super::encode::IFA_PROTO;
use crate::config::{IfName, Prefix};
use crate::node::kernel::{Address, Change, Link, Master, MasterKind};
use crate::wire::{Family, IfIndex, Mac};

/// Bytes of a netlink message's header (struct nlmsghdr).
const HEADER: usize = 16;

/// One netlink message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Message<'a> {
    /// RTM_* or NLMSG_*.
    pub(super) kind: u16,
    /// NLM_F_*.
    pub(super) flags: u16,
    /// Of the request that it answers.
    pub(super) seq: u32,
    /// After the header.
    pub(super) body: &'a [u8],
}

/// Bytes that are not what rtnetlink has there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Malformed(pub(super) &'static str);

impl fmt::Display for Malformed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "netlink message malformed: {}", self.0)
    }
}

impl std::error::Error for Malformed {}

/// The messages of one datagram; ends after the first that is malformed.
#[derive(Clone, Debug)]
pub(super) struct Messages<'a>(&'a [u8]);

impl<'a> Messages<'a> {
    pub(super) const fn new(datagram: &'a [u8]) -> Self {
        Self(datagram)
    }

    fn split(&self) -> Option<(Message<'a>, &'a [u8])> {
        let length = usize::try_from(u32_at(self.0, 0)?).ok()?;
        let body = self.0.get(HEADER..length)?;
        let message = Message {
            kind: u16_at(self.0, 4)?,
            flags: u16_at(self.0, 6)?,
            seq: u32_at(self.0, 8)?,
            body,
        };
        // The last message of a datagram may lack its padding.
        let next = length.checked_next_multiple_of(4)?.min(self.0.len());
        Some((message, self.0.get(next..)?))
    }
}

impl<'a> Iterator for Messages<'a> {
    type Item = Result<Message<'a>, Malformed>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.0.is_empty() {
            return None;
        }
        let Some((message, rest)) = self.split() else {
            self.0 = &[];
            return Some(Err(Malformed("length")));
        };
        self.0 = rest;
        Some(Ok(message))
    }
}

/// The native-endian number at `offset`.
pub(super) fn u16_at(bytes: &[u8], offset: usize) -> Option<u16> {
    let end = offset.checked_add(2)?;
    Some(u16::from_ne_bytes(bytes.get(offset..end)?.try_into().ok()?))
}

/// The native-endian number at `offset`.
pub(super) fn u32_at(bytes: &[u8], offset: usize) -> Option<u32> {
    let end = offset.checked_add(4)?;
    Some(u32::from_ne_bytes(bytes.get(offset..end)?.try_into().ok()?))
}

/// An IPv4 or IPv6 address of exactly its length.
pub(super) fn ip(bytes: &[u8]) -> Option<IpAddr> {
    match bytes.len() {
        4 => <[u8; 4]>::try_from(bytes).ok().map(IpAddr::from),
        16 => <[u8; 16]>::try_from(bytes).ok().map(IpAddr::from),
        _ => None,
    }
}

/// The changes that the messages of one datagram report; `None` for a message that is not about
/// links or IP addresses. Ends after the first that is malformed in its length.
pub fn changes(datagram: &[u8]) -> impl Iterator<Item = Result<Option<Change>, Malformed>> {
    Messages::new(datagram).map(|message| change(&message?))
}

/// The change that a message reports, or that a line of a dump amounts to; `None` for what is not
/// about links or IP addresses.
pub(super) fn change(message: &Message<'_>) -> Result<Option<Change>, Malformed> {
    match message.kind {
        libc::RTM_NEWLINK => link(message.body),
        libc::RTM_DELLINK => {
            let link = info(message.body)?;
            if !is_of_the_link_itself(&link) {
                return Ok(None);
            }
            Ok(Some(Change::LinkGone(link.index)))
        }
        libc::RTM_NEWADDR => Ok(address(message.body)?.map(Change::Address)),
        libc::RTM_DELADDR => Ok(address(message.body)?
            .map(|gone| Change::AddressGone { index: gone.index, prefix: gone.prefix })),
        _ => Ok(None),
    }
}

/// The attributes of a message, without copies; ends before one whose length cannot be.
#[derive(Clone, Copy, Debug)]
pub(super) struct Attributes<'a>(&'a [u8]);

/// Bits of an attribute's type that are flags (NLA_F_NESTED, NLA_F_NET_BYTEORDER).
const TYPE_FLAGS: u16 = 0xc000;

impl<'a> Attributes<'a> {
    pub(super) const fn new(bytes: &'a [u8]) -> Self {
        Self(bytes)
    }

    /// The first of a kind.
    pub(super) fn of(mut self, kind: u16) -> Option<&'a [u8]> {
        self.find_map(|(other, payload)| (other == kind).then_some(payload))
    }

    fn number(self, kind: u16) -> Option<u32> {
        self.of(kind).and_then(|bytes| u32_at(bytes, 0))
    }

    /// A name, up to its zero; `None` for one that no configuration can have.
    fn name(self, kind: u16) -> Option<Option<IfName>> {
        self.of(kind).map(name)
    }
}

impl<'a> Iterator for Attributes<'a> {
    type Item = (u16, &'a [u8]);

    fn next(&mut self) -> Option<Self::Item> {
        let length = usize::from(u16_at(self.0, 0)?);
        let payload = self.0.get(4..length)?;
        let kind = u16_at(self.0, 2)? & !TYPE_FLAGS;
        // The last one may lack its padding.
        self.0 = self.0.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some((kind, payload))
    }
}

fn name(bytes: &[u8]) -> Option<IfName> {
    let text = bytes.split(|b| *b == 0).next().unwrap_or_default();
    std::str::from_utf8(text).ok().and_then(|name| IfName::new(name).ok())
}

/// What struct ifinfomsg says.
struct Info<'a> {
    family: u8,
    index: IfIndex,
    flags: u32,
    attributes: Attributes<'a>,
}

fn info(body: &[u8]) -> Result<Info<'_>, Malformed> {
    const BAD: Malformed = Malformed("link");
    let index = match i32::from_ne_bytes(u32_at(body, 4).ok_or(BAD)?.to_ne_bytes()) {
        index if index > 0 => IfIndex(index.unsigned_abs()),
        _ => return Err(Malformed("interface index")),
    };
    Ok(Info {
        family: *body.first().ok_or(BAD)?,
        index,
        flags: u32_at(body, 8).ok_or(BAD)?,
        attributes: Attributes::new(body.get(16..).ok_or(BAD)?),
    })
}

/// A bridge reports its ports under AF_BRIDGE: RTM_DELLINK there says that a port has left the
/// bridge, not that the link is gone.
fn is_of_the_link_itself(info: &Info<'_>) -> bool {
    libc::c_int::from(info.family) == libc::AF_UNSPEC
}

fn link(body: &[u8]) -> Result<Option<Change>, Malformed> {
    let info = info(body)?;
    let Info { index, flags, attributes, .. } = info;
    // Wireless events come as RTM_NEWLINK with little beside them.
    if !is_of_the_link_itself(&info) || attributes.of(libc::IFLA_WIRELESS).is_some() {
        return Ok(None);
    }
    let name = attributes.name(libc::IFLA_IFNAME).ok_or(Malformed("link without a name"))?;
    // The kernel allows names that no configuration can have. A link that is renamed to one is
    // gone as far as anybody can ask for it.
    let Some(name) = name else { return Ok(Some(Change::LinkGone(index))) };
    let mtu = attributes.number(libc::IFLA_MTU).ok_or(Malformed("link without an MTU"))?;
    let operstate = attributes.of(libc::IFLA_OPERSTATE).and_then(|b| b.first().copied());
    let may_carry = match operstate.map(libc::c_int::from) {
        None | Some(libc::IF_OPER_UNKNOWN | libc::IF_OPER_UP) => true,
        Some(_) => false,
    };
    let has = |flag: libc::c_int| flags & flag.cast_unsigned() != 0;
    Ok(Some(Change::Link(Link {
        index,
        name,
        up: has(libc::IFF_UP),
        running: has(IFF_LOWER_UP) && may_carry,
        loopback: has(libc::IFF_LOOPBACK),
        mac: attributes.of(libc::IFLA_ADDRESS).and_then(|b| b.try_into().ok()).map(Mac),
        mtu,
        vrf_table: attributes.of(libc::IFLA_LINKINFO).and_then(vrf_table),
        master: master(attributes),
        alt_names: alt_names(attributes),
    })))
}

fn master(attributes: Attributes<'_>) -> Option<Master> {
    let index = IfIndex(attributes.number(libc::IFLA_MASTER)?);
    let info = Attributes::new(attributes.of(libc::IFLA_LINKINFO).unwrap_or_default());
    let kind = info.of(IFLA_INFO_SLAVE_KIND).and_then(|name| name.split(|b| *b == 0).next());
    Some(Master { index, kind: MasterKind::of(kind) })
}

fn alt_names(attributes: Attributes<'_>) -> Vec<IfName> {
    let all = Attributes::new(attributes.of(IFLA_PROP_LIST).unwrap_or_default());
    let names = all.filter(|(kind, _)| *kind == IFLA_ALT_IFNAME);
    names.filter_map(|(_, payload)| name(payload)).collect()
}

/// Of linux/if_link.h; libc has them for few targets.
const IFLA_INFO_SLAVE_KIND: u16 = 4;
const IFLA_PROP_LIST: u16 = 52;
const IFLA_ALT_IFNAME: u16 = 53;

/// IFF_LOWER_UP (linux/if.h), which libc has for few targets.
const IFF_LOWER_UP: libc::c_int = 1 << 16;

/// The routing table of the VRF whose port a link is, from its IFLA_LINKINFO.
fn vrf_table(linkinfo: &[u8]) -> Option<u32> {
    const IFLA_INFO_SLAVE_KIND: u16 = 4;
    const IFLA_INFO_SLAVE_DATA: u16 = 5;
    const IFLA_VRF_PORT_TABLE: u16 = 1;
    let info = Attributes::new(linkinfo);
    let kind = info.of(IFLA_INFO_SLAVE_KIND)?;
    let data = info.of(IFLA_INFO_SLAVE_DATA).filter(|_| kind.starts_with(b"vrf\0"))?;
    Attributes::new(data).number(IFLA_VRF_PORT_TABLE)
}

fn address(body: &[u8]) -> Result<Option<Address>, Malformed> {
    const BAD: Malformed = Malformed("address");
    // struct ifaddrmsg: family, length, flags, scope, index.
    let [family, len, low_flags, scope] = *body.first_chunk().ok_or(BAD)?;
    let index = u32_at(body, 4).ok_or(BAD)?;
    let attributes = Attributes::new(body.get(8..).ok_or(BAD)?);
    let family = match libc::c_int::from(family) {
        libc::AF_INET => Family::V4,
        libc::AF_INET6 => Family::V6,
        _ => return Ok(None),
    };
    // On a link to a single peer IFA_ADDRESS is the peer's.
    let local = attributes.of(libc::IFA_LOCAL).or_else(|| attributes.of(libc::IFA_ADDRESS));
    let ip = local.and_then(ip).ok_or(Malformed("address without an address"))?;
    if Family::of(&ip) != family || len > family.bits() {
        return Err(Malformed("address of another family or length"));
    }
    if index == 0 {
        return Err(Malformed("interface index"));
    }
    // The header has the lower eight bits alone.
    let flags = attributes.number(libc::IFA_FLAGS).unwrap_or_else(|| low_flags.into());
    let proto = attributes.of(IFA_PROTO);
    Ok(Some(Address {
        index: IfIndex(index),
        prefix: Prefix { ip, len },
        secondary: flags & libc::IFA_F_SECONDARY != 0,
        tentative: flags & (libc::IFA_F_TENTATIVE | libc::IFA_F_DADFAILED) != 0,
        permanent: flags & libc::IFA_F_PERMANENT != 0,
        link_scope: scope == libc::RT_SCOPE_LINK,
        proto: proto.and_then(|b| b.first().copied()).unwrap_or(0),
    }))
}

#[cfg(test)]
mod tests {
    use std::io::Cursor;

    use neli::consts::nl::NlmF;
    use neli::consts::rtnl::Rtm;
    use neli::types::Buffer;
    use proptest::prelude::*;

    use super::*;
    use crate::linux::netlink::encode;
    use crate::linux::netlink::socket::Socket;

    /// All that anything in here does with bytes from outside; gives how many messages were sound.
    fn digest(bytes: &[u8]) -> usize {
        Messages::new(bytes).filter(|m| m.is_ok_and(|m| change(&m).is_ok())).count()
    }

    /// What this kernel answers to a dump of links and of addresses.
    fn dumps() -> Vec<Vec<u8>> {
        let mut all = Vec::new();
        for kind in [Rtm::Getlink, Rtm::Getaddr] {
            let socket = Socket::open(0, 0).unwrap();
            let mut request = Cursor::new(Vec::new());
            let header = Buffer::from(vec![0; 16]);
            encode::message(&mut request, kind, NlmF::DUMP, 1, header).unwrap();
            socket.send(request.get_ref()).unwrap();
            loop {
                let mut buffer = vec![0; 64 * 1024];
                let length = socket.receive(&mut buffer).unwrap().length;
                buffer.truncate(length);
                let done = libc::NLMSG_DONE;
                let last = Messages::new(&buffer).any(|m| i32::from(m.unwrap().kind) == done);
                all.push(buffer);
                if last {
                    break;
                }
            }
        }
        all
    }

    /// A message with this body.
    fn framed(kind: u16, body: &[u8]) -> Vec<u8> {
        let mut bytes = Vec::new();
        bytes.extend(u32::try_from(HEADER + body.len()).unwrap().to_ne_bytes());
        bytes.extend(kind.to_ne_bytes());
        bytes.extend([0; 10]);
        bytes.extend(body);
        bytes
    }

    fn attribute_bytes(kind: u16, payload: &[u8]) -> Vec<u8> {
        let mut bytes = Vec::new();
        bytes.extend(u16::try_from(4 + payload.len()).unwrap().to_ne_bytes());
        bytes.extend(kind.to_ne_bytes());
        bytes.extend(payload);
        bytes.resize(bytes.len().next_multiple_of(4), 0);
        bytes
    }

    /// A link's body: family, index, flags, and the attributes.
    fn link_body(family: u8, flags: u32, attributes: &[(u16, &[u8])]) -> Vec<u8> {
        let mut body = vec![family, 0, 1, 0];
        body.extend(5i32.to_ne_bytes());
        body.extend(flags.to_ne_bytes());
        body.extend([0; 4]);
        for (kind, payload) in attributes {
            body.extend(attribute_bytes(*kind, payload));
        }
        body
    }

    fn only(bytes: &[u8]) -> Result<Option<Change>, Malformed> {
        change(&Messages::new(bytes).next().unwrap().unwrap())
    }

    const UP: u32 = 1;
    const LOWER_UP: u32 = 1 << 16;

    #[test]
    fn this_kernels_own_dumps_are_sound() {
        for dump in dumps() {
            assert_eq!(digest(&dump), Messages::new(&dump).count());
        }
    }

    #[test]
    fn a_link_runs_with_carrier_and_an_operational_state_of_up_or_unknown() {
        for (flags, operstate, running) in [
            (UP | LOWER_UP, 6, true),
            (UP | LOWER_UP, 0, true),
            (UP | LOWER_UP, 5, false),
            (UP | LOWER_UP, 2, false),
            (UP, 6, false),
        ] {
            let attributes: [(u16, &[u8]); 4] =
                [(3, b"eth0\0"), (4, &1500u32.to_ne_bytes()), (16, &[operstate]), (1, &[2; 6])];
            let bytes = framed(libc::RTM_NEWLINK, &link_body(0, flags, &attributes));
            let link = Link {
                index: IfIndex(5),
                name: IfName::new("eth0").unwrap(),
                up: true,
                running,
                loopback: false,
                mac: Some(Mac([2; 6])),
                mtu: 1500,
                vrf_table: None,
                master: None,
                alt_names: Vec::new(),
            };
            assert_eq!(only(&bytes), Ok(Some(Change::Link(link))), "{flags:#x} {operstate}");
        }
    }

    #[test]
    fn the_table_of_a_vrfs_port_is_known_and_no_other_masters() {
        let of = |kind: &[u8]| {
            let data = attribute_bytes(1, &1001u32.to_ne_bytes());
            let info = [attribute_bytes(4, kind), attribute_bytes(5, &data)].concat();
            let mtu = 1500u32.to_ne_bytes();
            let body = link_body(0, UP, &[(3, b"eth0\0"), (4, &mtu), (18, &info)]);
            match only(&framed(libc::RTM_NEWLINK, &body)) {
                Ok(Some(Change::Link(link))) => link.vrf_table,
                other => panic!("{other:?}"),
            }
        };
        assert_eq!((of(b"vrf\0"), of(b"bridge\0")), (Some(1001), None));
    }

    #[test]
    fn what_a_bridge_says_of_its_ports_is_not_taken_for_the_links_end() {
        let body = link_body(libc::AF_BRIDGE as u8, UP, &[(3, b"eth0\0")]);
        assert_eq!(only(&framed(libc::RTM_DELLINK, &body)), Ok(None));
        assert_eq!(only(&framed(libc::RTM_NEWLINK, &body)), Ok(None));
        let body = link_body(0, UP, &[]);
        let gone = Ok(Some(Change::LinkGone(IfIndex(5))));
        assert_eq!(only(&framed(libc::RTM_DELLINK, &body)), gone);
    }

    #[test]
    fn a_link_with_a_name_that_cannot_be_asked_for_is_not_there() {
        for name in [&b"\xff\xfe\0"[..], b"\x01\0"] {
            let mtu = 1500u32.to_ne_bytes();
            let body = link_body(0, UP, &[(3, name), (4, &mtu)]);
            let gone = Ok(Some(Change::LinkGone(IfIndex(5))));
            assert_eq!(only(&framed(libc::RTM_NEWLINK, &body)), gone);
        }
    }

    #[test]
    fn a_wireless_event_is_not_taken_for_a_link() {
        let body = link_body(0, UP, &[(3, b"wlan0\0"), (11, &[0; 8])]);
        assert_eq!(only(&framed(libc::RTM_NEWLINK, &body)), Ok(None));
    }

    #[test]
    fn an_address_to_a_single_peer_is_the_local_one() {
        let mut body = vec![libc::AF_INET as u8, 32, 0x80, 0, 5, 0, 0, 0];
        body[4..].copy_from_slice(&5u32.to_ne_bytes());
        body.extend(attribute_bytes(1, &[10, 0, 0, 2]));
        body.extend(attribute_bytes(2, &[10, 0, 0, 1]));
        let Ok(Some(Change::Address(address))) = only(&framed(libc::RTM_NEWADDR, &body)) else {
            panic!("an address");
        };
        assert_eq!(address.prefix, Prefix::host("10.0.0.1".parse().unwrap()));
        assert!(address.permanent);
        assert_eq!(address.proto, 0);
    }

    #[test]
    fn an_address_whose_length_is_beyond_its_family_is_refused() {
        let mut body = vec![libc::AF_INET as u8, 33, 0, 0, 5, 0, 0, 0];
        body[4..].copy_from_slice(&5u32.to_ne_bytes());
        body.extend(attribute_bytes(2, &[10, 0, 0, 1]));
        assert!(only(&framed(libc::RTM_NEWADDR, &body)).is_err());
        body[1] = 32;
        body[0] = libc::AF_INET6 as u8;
        assert!(only(&framed(libc::RTM_NEWADDR, &body)).is_err());
    }

    #[test]
    fn a_length_that_lies_ends_the_datagram() {
        for length in [0u32, 15, 17, u32::MAX] {
            let mut bytes = framed(0, &[]);
            bytes[..4].copy_from_slice(&length.to_ne_bytes());
            let all: Vec<_> = Messages::new(&bytes).collect();
            assert_eq!(all, [Err(Malformed("length"))]);
        }
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(bytes in prop::collection::vec(any::<u8>(), 0..512)) {
            digest(&bytes);
        }

        #[test]
        fn no_body_makes_it_panic(
            kind in prop::sample::select(vec![16u16, 17, 20, 21]),
            body in prop::collection::vec(any::<u8>(), 0..256),
        ) {
            digest(&framed(kind, &body));
        }

        #[test]
        fn no_change_to_a_real_dump_makes_it_panic(
            changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..20),
            end in any::<prop::sample::Index>(),
            cut in any::<bool>(),
        ) {
            thread_local!(static DUMPS: Vec<Vec<u8>> = dumps());
            for mut dump in DUMPS.with(Clone::clone) {
                for (at, byte) in &changes {
                    let at = at.index(dump.len());
                    dump[at] = *byte;
                }
                if cut {
                    dump.truncate(end.index(dump.len()));
                }
                digest(&dump);
            }
        }
    }
}
