//! Making and changing interfaces, for the demonstration and for tests.

use std::io;
use std::net::IpAddr;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};

use neli::consts::nl::NlmF;
use neli::consts::rtnl::{Ifla, IflaInfo, RtAddrFamily, RtScope, RtTable, Rta, Rtm, Rtn, Rtprot};
use neli::rtnl::{Ifinfomsg, IfinfomsgBuilder, Rtattr, RtmsgBuilder};
use neli::types::{Buffer, RtBuffer};

use super::{Requests, encode};
use crate::config::{IfName, Prefix};
use crate::linux::sys;
use crate::wire::{Family, IfIndex};

/// VETH_INFO_PEER (linux/veth.h).
const VETH_INFO_PEER: u16 = 1;

impl Requests {
    /// Makes two interfaces joined by a wire: `name` here, `peer` here or, made right there, in the
    /// network namespace that is given.
    ///
    /// # Errors
    /// EEXIST for a name in use, EPERM without CAP_NET_ADMIN.
    pub fn add_veth(
        &mut self,
        name: &IfName,
        peer: &IfName,
        peer_namespace: Option<BorrowedFd<'_>>,
    ) -> io::Result<()> {
        let mut far = vec![encode::attribute(Ifla::Ifname, peer.as_str())?];
        if let Some(namespace) = peer_namespace {
            far.push(encode::attribute(Ifla::NetNsFd, namespace.as_raw_fd())?);
        }
        let far = encode::attribute(VETH_INFO_PEER, link(0, far)?)?;
        self.add_link(name, "veth", Some(far))
    }

    /// Makes a bridge.
    ///
    /// # Errors
    /// As [`Self::add_veth`].
    pub fn add_bridge(&mut self, name: &IfName) -> io::Result<()> {
        self.add_link(name, "bridge", None)
    }

    fn add_link(
        &mut self,
        name: &IfName,
        kind: &str,
        data: Option<Rtattr<u16, Buffer>>,
    ) -> io::Result<()> {
        let mut info = RtBuffer::new();
        info.push(encode::attribute(IflaInfo::Kind, kind)?);
        if let Some(data) = data {
            info.push(encode::attribute(IflaInfo::Data, data)?);
        }
        let attributes = vec![
            encode::attribute(Ifla::Ifname, name.as_str())?,
            encode::attribute(Ifla::Linkinfo, info)?,
        ];
        self.request(Rtm::Newlink, NlmF::CREATE | NlmF::EXCL, link(0, attributes)?)
    }

    /// Sets an interface up or down.
    ///
    /// # Errors
    /// ENODEV, EPERM.
    pub fn set_up(&mut self, index: IfIndex, up: bool) -> io::Result<()> {
        let builder = IfinfomsgBuilder::default()
            .ifi_family(RtAddrFamily::Unspecified)
            .ifi_index(sys::signed(index)?);
        let builder = if up { builder.up() } else { builder.down() };
        let message = builder.build().map_err(io::Error::other)?;
        self.request(Rtm::Newlink, NlmF::empty(), message)
    }

    /// Makes an interface a port of a bridge.
    ///
    /// # Errors
    /// ENODEV, EPERM, EBUSY.
    pub fn set_master(&mut self, index: IfIndex, master: IfIndex) -> io::Result<()> {
        self.set_link(index, encode::attribute(Ifla::Master, master.0)?)
    }

    /// Moves an interface to another network namespace, where it has another index and is down.
    ///
    /// # Errors
    /// ENODEV, EPERM, EEXIST when its name is in use there.
    pub fn move_to_namespace(&mut self, index: IfIndex, namespace: impl AsFd) -> io::Result<()> {
        let fd = namespace.as_fd().as_raw_fd();
        self.set_link(index, encode::attribute(Ifla::NetNsFd, fd)?)
    }

    /// Takes an interface away; both ends of a veth.
    ///
    /// # Errors
    /// ENODEV, EPERM.
    pub fn delete_link(&mut self, index: IfIndex) -> io::Result<()> {
        let message = link(sys::signed(index)?, Vec::new())?;
        self.request(Rtm::Dellink, NlmF::empty(), message)
    }

    /// Gives an interface an address as an operator would: no lifetime, no IFA_PROTO, IPv6 with
    /// duplicate address detection.
    ///
    /// # Errors
    /// EEXIST, ENODEV, EPERM.
    pub fn add_address(&mut self, index: IfIndex, prefix: Prefix) -> io::Result<()> {
        let message = encode::address(index.0, prefix, Vec::new())?;
        self.request(Rtm::Newaddr, NlmF::CREATE | NlmF::EXCL, message)
    }

    /// Adds a default route through `gateway` on an interface.
    ///
    /// # Errors
    /// EEXIST, ENODEV, EPERM; ENETUNREACH when the gateway is not on that network.
    pub fn add_default_route(&mut self, index: IfIndex, gateway: IpAddr) -> io::Result<()> {
        let mut attributes = RtBuffer::new();
        attributes.push(encode::attribute(Rta::Gateway, encode::octets(gateway))?);
        attributes.push(encode::attribute(Rta::Oif, index.0)?);
        let message = RtmsgBuilder::default()
            .rtm_family(encode::family(Family::of(&gateway)))
            .rtm_dst_len(0)
            .rtm_src_len(0)
            .rtm_tos(0)
            .rtm_table(RtTable::Main)
            .rtm_protocol(Rtprot::Static)
            .rtm_scope(RtScope::Universe)
            .rtm_type(Rtn::Unicast)
            .rtattrs(attributes)
            .build()
            .map_err(io::Error::other)?;
        self.request(Rtm::Newroute, NlmF::CREATE | NlmF::EXCL, message)
    }

    fn set_link(&mut self, index: IfIndex, attribute: Rtattr<Ifla, Buffer>) -> io::Result<()> {
        let message = link(sys::signed(index)?, vec![attribute])?;
        self.request(Rtm::Newlink, NlmF::empty(), message)
    }
}

fn link(index: libc::c_int, attributes: Vec<Rtattr<Ifla, Buffer>>) -> io::Result<Ifinfomsg> {
    IfinfomsgBuilder::default()
        .ifi_family(RtAddrFamily::Unspecified)
        .ifi_index(index)
        .rtattrs(attributes.into_iter().collect())
        .build()
        .map_err(io::Error::other)
}
