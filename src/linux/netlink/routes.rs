//! Default routes, as far as the policy wants them.

use std::collections::BTreeSet;
use std::io::{self, Cursor};
use std::net::IpAddr;
use std::os::fd::AsFd as _;

use neli::FromBytesWithInput;
use neli::attr::Attribute;
use neli::consts::nl::NlmF;
use neli::consts::rtnl::{RtAddrFamily, Rtm, Rtprot};
use neli::rtnl::Rtmsg;
use neli::types::Buffer;

use super::parse::{self, Attributes, Malformed, Message, Messages};
use super::socket::Socket;
use super::{Requests, encode, requests};
use crate::linux::bpf::{JUMP_IF, LOAD_BYTE, RETURN, instruction};
use crate::linux::sys;

/// RTA_VIA (linux/rtnetlink.h): a gateway of the other family. neli names it with glibc alone.
const RTA_VIA: u16 = 18;
/// Bytes of struct rtnexthop.
const NEXTHOP: usize = 8;

/// The gateways of default routes, kept so that the length of the routing tables costs nothing.
///
/// The kernel dumps an IPv4 table from its default route on, so that the beginning is enough. IPv6
/// has it last: those tables are read once, and again when a default route changed, of which the
/// kernel tells through a filter.
#[derive(Debug)]
pub struct DefaultRoutes {
    /// Absent where there can be none: then IPv6 is read each time.
    changes: Option<Socket>,
    v6: Vec<IpAddr>,
    is_stale: bool,
}

impl DefaultRoutes {
    /// Watches those of the calling thread's network namespace from now on.
    #[must_use]
    pub fn watch() -> Self {
        Self { changes: changes().ok(), v6: Vec::new(), is_stale: true }
    }

    /// The gateways of every default route, of both families, each once: of the tables that rules
    /// name, and `tables` beside, as those of VRFs.
    ///
    /// Takes as long as the kernel's lock is held; after a change of an IPv6 default route as long
    /// as it takes to read all of them.
    ///
    /// # Errors
    /// As [`Requests::dump`].
    pub fn gateways(&mut self, tables: impl IntoIterator<Item = u32>) -> io::Result<Vec<IpAddr>> {
        let mut tables: BTreeSet<u32> = tables.into_iter().collect();
        tables.extend([RT_TABLE_MAIN, RT_TABLE_DEFAULT]);
        tables.extend(tables_of_rules()?);
        let mut gateways = Vec::new();
        for table in tables {
            match first_of_table(table)? {
                Some(found) => gateways.extend(found),
                // Before Linux 4.20 a table cannot be asked for.
                None => {
                    gateways.extend(all_of(RtAddrFamily::Inet)?);
                    break;
                }
            }
        }
        if self.has_changed() {
            self.v6 = all_of(RtAddrFamily::Inet6)?;
            self.is_stale = false;
        }
        gateways.extend(&self.v6);
        gateways.sort_unstable();
        gateways.dedup();
        Ok(gateways)
    }

    /// Whether what is known of IPv6 may be out of date.
    fn has_changed(&mut self) -> bool {
        let Some(changes) = &self.changes else { return true };
        // What it says is of no interest; lost notifications are an error, and say the same.
        let mut buffer = [0; 64];
        loop {
            match changes.receive(&mut buffer) {
                Ok(_) => self.is_stale = true,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return self.is_stale,
                Err(_) => {
                    self.is_stale = true;
                    return true;
                }
            }
        }
    }
}

const RT_TABLE_MAIN: u32 = libc::RT_TABLE_MAIN as u32;
const RT_TABLE_DEFAULT: u32 = libc::RT_TABLE_DEFAULT as u32;
/// Bytes of struct rtmsg, and of struct fib_rule_hdr.
const HEADER: usize = 12;
/// FRA_TABLE (linux/fib_rules.h).
const FRA_TABLE: u16 = 15;

/// Tells of changes of IPv6 default routes. The header of the message is 16 bytes, then comes the
/// family and the length of the destination.
fn changes() -> io::Result<Socket> {
    const FILTER: [libc::sock_filter; 4] = [
        instruction(LOAD_BYTE, 0, 0, 17),
        instruction(JUMP_IF, 0, 1, 0),
        instruction(RETURN, 0, 0, u32::MAX),
        instruction(RETURN, 0, 0, 0),
    ];
    let socket = Socket::open(libc::RTMGRP_IPV6_ROUTE, libc::SOCK_NONBLOCK)?;
    sys::attach_filter(socket.as_fd(), &FILTER)?;
    Ok(socket)
}

/// The tables that IPv4 rules look into.
fn tables_of_rules() -> io::Result<Vec<u32>> {
    let request = || Ok(Buffer::from(request_body(0)));
    let table = |message: &Message<'_>| {
        let attributes = message.body.get(HEADER..).map(Attributes::new);
        let table = attributes.and_then(|all| all.of(FRA_TABLE)).and_then(|b| parse::u32_at(b, 0));
        Ok(table.filter(|table| *table != 0))
    };
    Requests::open()?.dump_of(Rtm::Getrule, request, table)
}

/// A request for the IPv4 routes, or rules, of a table; 0: of all.
fn request_body(table: u32) -> Vec<u8> {
    let mut body = vec![0; HEADER];
    if let Some(family) = body.first_mut() {
        *family = libc::AF_INET as u8;
    }
    if table != 0 {
        body.extend(8_u16.to_ne_bytes());
        body.extend(libc::RTA_TABLE.to_ne_bytes());
        body.extend(table.to_ne_bytes());
    }
    body
}

/// The gateways of a table's IPv4 default routes: those at its beginning. `None` where the kernel
/// has only all tables in one.
fn first_of_table(table: u32) -> io::Result<Option<Vec<IpAddr>>> {
    let socket = requests::open_socket()?;
    if requests::filter_dumps(&socket).is_err() {
        return Ok(None);
    }
    let mut out = Cursor::new(Vec::new());
    let body = Buffer::from(request_body(table));
    encode::message(&mut out, Rtm::Getroute, NlmF::DUMP, 1, body)?;
    socket.send(out.get_ref())?;
    let mut buffer = vec![0; 64 * 1024];
    let mut gateways = Vec::new();
    loop {
        let datagram = socket.receive(&mut buffer)?;
        if !datagram.from_kernel {
            continue;
        }
        for message in Messages::new(buffer.get(..datagram.length).unwrap_or_default()) {
            let message = message.map_err(io::Error::other)?;
            // The end, or a table that is not there.
            if message.kind != libc::RTM_NEWROUTE {
                return Ok(Some(gateways));
            }
            let attributes = message.body.get(HEADER..).map(Attributes::new);
            let to = attributes.and_then(|all| all.of(libc::RTA_DST));
            if to.is_some_and(|to| to.iter().any(|byte| *byte != 0)) {
                return Ok(Some(gateways));
            }
            gateways.extend(gateways_of(&message).map_err(io::Error::other)?.unwrap_or_default());
        }
    }
}

/// The gateways of every default route of a family in every table. With a full table of the
/// Internet this takes the kernel about a second.
fn all_of(family: RtAddrFamily) -> io::Result<Vec<IpAddr>> {
    let request = || encode::routes(family, Rtprot::Unspec);
    let found = Requests::open()?.dump_of(Rtm::Getroute, request, gateways_of)?;
    Ok(found.into_iter().flatten().collect())
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
