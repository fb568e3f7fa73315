//! On-link routes of havip's own, as bytes, and the removal of all that an earlier run left.

use std::io;
use std::net::IpAddr;

use neli::consts::nl::NlmF;
use neli::consts::rtnl::{RtAddrFamily, Rtm, Rtprot};

use super::parse::{Attributes, Message};
use super::{Requests, encode};
use crate::config::Prefix;
use crate::node::kernel::{IFA_PROTO_HAVIP, ROUTE_METRIC};

/// rtm_protocol of havip's routes.
pub(super) const PROTOCOL: u8 = IFA_PROTO_HAVIP;
/// Bytes of the longest request.
pub(super) const REQUEST_MAX: usize = 128;

/// struct nlmsghdr and struct rtmsg, in bytes.
#[cfg(test)]
const HEADER: usize = 16;
const RTMSG: usize = 12;
/// RTA_EXPIRES (linux/rtnetlink.h), which libc has no name for.
const RTA_EXPIRES: u16 = 23;

/// The route to the network of a VIP.
#[derive(Clone, Copy, Debug)]
pub(super) struct OnLink {
    pub(super) index: u32,
    pub(super) vip: Prefix,
    pub(super) table: u32,
}

/// What is to be done with it.
#[derive(Clone, Copy, Debug)]
pub(super) enum Act {
    Add {
        lifetime: Option<u32>,
        /// It is there: with another lifetime from now on.
        again: bool,
    },
    Remove,
}

/// One request, of a size known before.
#[derive(Clone, Copy, Debug)]
pub(super) struct Bytes {
    bytes: [u8; REQUEST_MAX],
    length: usize,
}

impl std::ops::Deref for Bytes {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        self.bytes.get(..self.length).unwrap_or_default()
    }
}

impl Bytes {
    const fn new() -> Self {
        Self { bytes: [0; REQUEST_MAX], length: 0 }
    }

    /// What does not fit is left out; all of it does.
    fn put(&mut self, more: &[u8]) {
        let end = self.length + more.len();
        if let Some(room) = self.bytes.get_mut(self.length..end) {
            room.copy_from_slice(more);
            self.length = end;
        }
    }

    fn attribute(&mut self, kind: u16, payload: &[u8]) {
        self.put(&((4 + payload.len()) as u16).to_ne_bytes());
        self.put(&kind.to_ne_bytes());
        self.put(payload);
    }
}

impl OnLink {
    /// The request with which it is added or removed, without allocating.
    pub(super) fn request(&self, seq: u32, act: Act) -> Bytes {
        let Self { index, vip, table } = *self;
        let is_v4 = vip.ip.is_ipv4();
        let family = if is_v4 { libc::AF_INET } else { libc::AF_INET6 };
        let (kind, flags, scope) = match act {
            // IPv4 has a route for each VIP of a network, told apart by their preferred source.
            Act::Add { again, .. } if again || is_v4 => {
                (libc::RTM_NEWROUTE, libc::NLM_F_CREATE | libc::NLM_F_APPEND, libc::RT_SCOPE_LINK)
            }
            Act::Add { .. } => {
                (libc::RTM_NEWROUTE, libc::NLM_F_CREATE | libc::NLM_F_EXCL, libc::RT_SCOPE_LINK)
            }
            Act::Remove => (libc::RTM_DELROUTE, 0, libc::RT_SCOPE_NOWHERE),
        };
        let unicast = match act {
            Act::Add { .. } => libc::RTN_UNICAST,
            Act::Remove => libc::RTN_UNSPEC,
        };
        let flags = (libc::NLM_F_REQUEST | libc::NLM_F_ACK | flags) as u16;
        // RT_TABLE_UNSPEC: the attribute has room for every number.
        let fixed = [family as u8, vip.len, 0, 0, 0, PROTOCOL, scope, unicast];
        let mut out = Bytes::new();
        out.put(&[0; 4]);
        out.put(&kind.to_ne_bytes());
        out.put(&flags.to_ne_bytes());
        out.put(&seq.to_ne_bytes());
        out.put(&[0; 4]);
        out.put(&fixed);
        out.put(&[0; 4]);
        match (vip.ip, network(vip)) {
            (IpAddr::V4(source), IpAddr::V4(network)) => {
                out.attribute(libc::RTA_DST, &network.octets());
                out.attribute(libc::RTA_PREFSRC, &source.octets());
            }
            (_, IpAddr::V6(network)) => out.attribute(libc::RTA_DST, &network.octets()),
            (IpAddr::V6(_), IpAddr::V4(_)) => {}
        }
        out.attribute(libc::RTA_OIF, &index.to_ne_bytes());
        out.attribute(libc::RTA_PRIORITY, &ROUTE_METRIC.to_ne_bytes());
        out.attribute(libc::RTA_TABLE, &table.to_ne_bytes());
        if let (false, Act::Add { lifetime: Some(seconds), .. }) = (is_v4, act) {
            out.attribute(RTA_EXPIRES, &seconds.to_ne_bytes());
        }
        let length = (out.length as u32).to_ne_bytes();
        if let Some(head) = out.bytes.first_chunk_mut::<4>() {
            *head = length;
        }
        out
    }
}

/// A prefix's address without its host bits.
fn network(prefix: Prefix) -> IpAddr {
    let len = u32::from(prefix.len);
    match prefix.ip {
        IpAddr::V4(ip) => {
            let hosts = u32::MAX.checked_shr(len).unwrap_or(0);
            IpAddr::V4((ip.to_bits() & !hosts).into())
        }
        IpAddr::V6(ip) => {
            let hosts = u128::MAX.checked_shr(len).unwrap_or(0);
            IpAddr::V6((ip.to_bits() & !hosts).into())
        }
    }
}

/// Removes every route of havip's protocol number: those that an earlier run left. Gives how many.
///
/// Kernels since 4.20 look through their tables themselves and give those alone; earlier ones give
/// every route there is.
///
/// # Errors
/// As [`Requests::dump`].
pub fn remove_routes() -> io::Result<usize> {
    let mut requests = Requests::open()?;
    requests.filter_dumps();
    let mut count = 0;
    for family in [RtAddrFamily::Inet, RtAddrFamily::Inet6] {
        let request = || encode::routes(family, Rtprot::UnrecognizedConst(PROTOCOL));
        for mut body in requests.dump_of(Rtm::Getroute, request, |message| Ok(ours(message)))? {
            // What a dump says of a route names exactly that one.
            if let Some(flags) = body.get_mut(8..RTMSG) {
                flags.fill(0);
            }
            let removed = requests.request_bytes(libc::RTM_DELROUTE, NlmF::empty(), &body);
            count += usize::from(removed.is_ok());
        }
    }
    Ok(count)
}

/// The body of a message about a route of ours, as far as it names the route.
fn ours(message: &Message<'_>) -> Option<Vec<u8>> {
    let body = message.body;
    if message.kind != libc::RTM_NEWROUTE || body.get(5) != Some(&PROTOCOL) {
        return None;
    }
    let attributes = Attributes::new(body.get(RTMSG..)?);
    let mut out = body.get(..RTMSG)?.to_vec();
    for kind in
        [libc::RTA_DST, libc::RTA_PREFSRC, libc::RTA_OIF, libc::RTA_PRIORITY, libc::RTA_TABLE]
    {
        let Some(payload) = attributes.of(kind) else { continue };
        out.extend(((4 + payload.len()) as u16).to_ne_bytes());
        out.extend(kind.to_ne_bytes());
        out.extend(payload);
        out.resize(out.len().next_multiple_of(4), 0);
    }
    Some(out)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_network_has_no_host_bits() {
        for (text, len, expected) in [
            ("192.0.2.100", 24, "192.0.2.0"),
            ("192.0.2.100", 32, "192.0.2.100"),
            ("192.0.2.100", 0, "0.0.0.0"),
            ("2001:db8::ffff", 112, "2001:db8::"),
            ("2001:db8::ffff", 128, "2001:db8::ffff"),
        ] {
            let prefix = Prefix { ip: text.parse().unwrap(), len };
            assert_eq!(network(prefix).to_string(), expected, "{text}/{len}");
        }
    }

    #[test]
    fn a_request_fits_and_says_its_length() {
        for ip in ["192.0.2.100", "2001:db8::100"] {
            let vip = Prefix { ip: ip.parse().unwrap(), len: 24 };
            let route = OnLink { index: 3, vip, table: 254 };
            let act = Act::Add { lifetime: Some(4), again: false };
            let bytes = route.request(7, act);
            assert_eq!(super::super::parse::u32_at(&bytes, 0), Some(bytes.len() as u32));
            assert!(bytes.len() < REQUEST_MAX);
            let table = Attributes::new(&bytes[HEADER + RTMSG..]).of(libc::RTA_TABLE);
            assert_eq!(table, Some(&254u32.to_ne_bytes()[..]));
        }
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(body in prop::collection::vec(any::<u8>(), 0..128)) {
            let kind = libc::RTM_NEWROUTE;
            let _ = ours(&Message { kind, flags: 0, seq: 1, body: &body });
        }
    }
}
