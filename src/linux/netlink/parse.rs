//! What the kernel says, as values. Pure: never panics, whatever the bytes.
//!
//! The frame is split here, with every length checked, before neli sees a message's body: neli
//! subtracts header sizes from lengths that it has not compared.

use std::fmt;
use std::io::Cursor;
use std::net::IpAddr;

use neli::FromBytesWithInput;
use neli::attr::Attribute;
use neli::consts::rtnl::{Ifa, Iff, Ifla, RtScope, RtaType};
use neli::rtnl::{Ifaddrmsg, Ifinfomsg, Rtattr};
use neli::types::Buffer;

use super::encode::IFA_PROTO;
use crate::config::{IfName, Prefix};
use crate::node::kernel::{Address, Change, Link};
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
pub(super) struct Malformed(pub(super) &'static str);

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

/// The change that a message reports, or that a line of a dump amounts to; `None` for what is not
/// about links or IP addresses.
pub(super) fn change(message: &Message<'_>) -> Result<Option<Change>, Malformed> {
    match message.kind {
        libc::RTM_NEWLINK => Ok(link(message.body)?.map(Change::Link)),
        libc::RTM_DELLINK => {
            let link = info(message.body)?;
            if !is_of_the_link_itself(&link) {
                return Ok(None);
            }
            Ok(Some(Change::LinkGone(index(*link.ifi_index())?)))
        }
        libc::RTM_NEWADDR => Ok(address(message.body)?.map(Change::Address)),
        libc::RTM_DELADDR => Ok(address(message.body)?
            .map(|gone| Change::AddressGone { index: gone.index, prefix: gone.prefix })),
        _ => Ok(None),
    }
}

fn info(body: &[u8]) -> Result<Ifinfomsg, Malformed> {
    Ifinfomsg::from_bytes_with_input(&mut Cursor::new(body), body.len())
        .map_err(|_| Malformed("link"))
}

/// A bridge reports its ports under AF_BRIDGE: RTM_DELLINK there says that a port has left the
/// bridge, not that the link is gone.
fn is_of_the_link_itself(info: &Ifinfomsg) -> bool {
    u8::from(info.ifi_family()) == libc::AF_UNSPEC as u8
}

fn index(index: libc::c_int) -> Result<IfIndex, Malformed> {
    match u32::try_from(index) {
        Ok(index) if index > 0 => Ok(IfIndex(index)),
        _ => Err(Malformed("interface index")),
    }
}

fn attribute<'a, T: RtaType>(attributes: &'a [Rtattr<T, Buffer>], kind: T) -> Option<&'a [u8]> {
    attributes.iter().find(|a| *a.rta_type() == kind).map(|a| a.payload().as_ref())
}

fn link(body: &[u8]) -> Result<Option<Link>, Malformed> {
    let info = info(body)?;
    let attributes: &[_] = info.rtattrs().as_ref();
    // Wireless events come as RTM_NEWLINK with little beside them.
    if !is_of_the_link_itself(&info) || attribute(attributes, Ifla::Wireless).is_some() {
        return Ok(None);
    }
    let name = attribute(attributes, Ifla::Ifname).ok_or(Malformed("link without a name"))?;
    let name = name.split(|b| *b == 0).next().unwrap_or_default();
    let name = std::str::from_utf8(name).map_err(|_| Malformed("link's name is not UTF-8"))?;
    let name = IfName::new(name).map_err(|_| Malformed("link's name"))?;
    let mtu = attribute(attributes, Ifla::Mtu).and_then(|b| u32_at(b, 0));
    let mtu = mtu.ok_or(Malformed("link without an MTU"))?;
    let operstate = attribute(attributes, Ifla::Operstate).and_then(|b| b.first().copied());
    let may_carry = match operstate.map(libc::c_int::from) {
        None | Some(libc::IF_OPER_UNKNOWN | libc::IF_OPER_UP) => true,
        Some(_) => false,
    };
    let mac = attribute(attributes, Ifla::Address).and_then(|b| b.try_into().ok()).map(Mac);
    let flags = *info.ifi_flags();
    Ok(Some(Link {
        index: index(*info.ifi_index())?,
        name,
        up: flags.contains(Iff::UP),
        running: flags.contains(Iff::LOWERUP) && may_carry,
        loopback: flags.contains(Iff::LOOPBACK),
        mac,
        mtu,
    }))
}

fn address(body: &[u8]) -> Result<Option<Address>, Malformed> {
    let info = Ifaddrmsg::from_bytes_with_input(&mut Cursor::new(body), body.len())
        .map_err(|_| Malformed("address"))?;
    let family = match libc::c_int::from(u8::from(info.ifa_family())) {
        libc::AF_INET => Family::V4,
        libc::AF_INET6 => Family::V6,
        _ => return Ok(None),
    };
    let attributes: &[_] = info.rtattrs().as_ref();
    // On a link to a single peer IFA_ADDRESS is the peer's.
    let local = attribute(attributes, Ifa::Local).or_else(|| attribute(attributes, Ifa::Address));
    let ip = local.and_then(ip).ok_or(Malformed("address without an address"))?;
    let len = *info.ifa_prefixlen();
    if Family::of(&ip) != family || len > family.bits() {
        return Err(Malformed("address of another family or length"));
    }
    let index = match *info.ifa_index() {
        0 => return Err(Malformed("interface index")),
        index => IfIndex(index),
    };
    // The header has the lower eight bits alone.
    let flags = attribute(attributes, Ifa::Flags).and_then(|b| u32_at(b, 0));
    let flags = flags.unwrap_or_else(|| info.ifa_flags().bits().into());
    let proto = attribute(attributes, Ifa::UnrecognizedConst(IFA_PROTO));
    Ok(Some(Address {
        index,
        prefix: Prefix { ip, len },
        secondary: flags & libc::IFA_F_SECONDARY != 0,
        tentative: flags & (libc::IFA_F_TENTATIVE | libc::IFA_F_DADFAILED) != 0,
        permanent: flags & libc::IFA_F_PERMANENT != 0,
        link_scope: *info.ifa_scope() == RtScope::Link,
        proto: proto.and_then(|b| b.first().copied()).unwrap_or(0),
    }))
}
