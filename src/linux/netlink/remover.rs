//! Takes addresses away when nobody else is left to do it: finds havip's and removes them, with
//! memory that was taken before.
//!
//! It stands beside [`Requests`](super::Requests) because nothing here may allocate.

use std::io;
use std::net::IpAddr;
use std::os::fd::AsFd as _;

use super::encode::IFA_PROTO;
use super::onlink::{Act, OnLink};
use super::parse::{self, Messages};
use super::socket::Socket;
use crate::config::Prefix;
use crate::linux::sys;
use crate::node::kernel::IFA_PROTO_HAVIP;
use crate::wire::IfIndex;

/// Bytes of one part of a dump: the kernel makes parts of up to 8 KiB for a reader that has not
/// shown more room, and none larger than what it has shown.
const DATAGRAM: usize = 8 * 1024;
/// Bytes of requests: some 8,000 addresses. Beyond that they are left to their lifetime.
const REQUESTS: usize = 512 * 1024;
/// Bytes of the longest request: headers and two attributes of 16 bytes.
const REQUEST_MAX: usize = HEADER + IFADDRMSG + 2 * (ATTRIBUTE + 16);
/// Bytes of requests in one sendmsg: 128 addresses or more.
const CHUNK: usize = 128 * REQUEST_MAX;
/// Seconds to wait for a part of a dump.
const TIMEOUT: u8 = 5;
/// Sequence number of the requests for a dump, and of those to remove.
const DUMP: u32 = 1;
const REMOVAL: u32 = 2;

/// struct nlmsghdr, struct ifaddrmsg, struct rtattr.
const HEADER: usize = 16;
const IFADDRMSG: usize = 8;
const ATTRIBUTE: usize = 4;

/// Finds havip's addresses and removes them. Does not allocate after [`Self::open`].
#[derive(Debug)]
pub struct Remover {
    socket: Socket,
    buffer: Vec<u8>,
    /// Requests to remove what was found, one after the other.
    requests: Vec<u8>,
    /// An address with an owner's mark was seen: this kernel keeps them.
    owners: bool,
}

/// An address as a dump has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Found {
    index: u32,
    prefix: Prefix,
    permanent: bool,
    scope: u8,
    proto: u8,
}

impl Remover {
    /// In the calling thread's network namespace.
    ///
    /// # Errors
    /// Out of descriptors or memory.
    pub fn open() -> io::Result<Self> {
        let socket = Socket::open(0, 0)?;
        sys::set_receive_timeout(socket.as_fd(), TIMEOUT)?;
        let (buffer, requests) = (vec![0; DATAGRAM], Vec::with_capacity(REQUESTS));
        Ok(Self { socket, buffer, requests, owners: false })
    }

    /// Looks for havip's addresses: those with its mark, where the kernel keeps marks; elsewhere
    /// those that are `named`, if they have a lifetime, which nothing has that an operator set.
    /// Gives how many there are.
    ///
    /// # Errors
    /// When the kernel does not answer or says what is no dump.
    pub fn find(&mut self, named: impl Fn(IfIndex, &Prefix) -> bool) -> io::Result<usize> {
        self.requests.clear();
        let mut count = 0;
        for family in [libc::AF_INET, libc::AF_INET6] {
            let start = self.requests.len();
            let flags = (libc::NLM_F_REQUEST | libc::NLM_F_DUMP) as u16;
            put(
                &mut self.requests,
                libc::RTM_GETADDR,
                flags,
                DUMP,
                [family as u8, 0, 0, 0],
                0,
                &[],
            );
            let sent = self.socket.send(self.requests.get(start..).unwrap_or_default());
            self.requests.truncate(start);
            sent?;
            while !self.read(&mut count, &named)? {}
        }
        Ok(count)
    }

    /// Asks for the removal of the on-link route of an address of ours. IPv4 routes have gone with
    /// their addresses already.
    pub fn unroute(&mut self, index: IfIndex, table: u32, vip: Prefix) {
        if vip == Prefix::host(vip.ip) {
            return;
        }
        let route = OnLink { index: index.0, vip, table };
        // There is nothing else to be done about one that stays, and it has a lifetime.
        let _ = self.socket.send(&route.request(REMOVAL, Act::Remove));
    }

    /// Asks for the removal of what was found. What the kernel refuses stays until its lifetime
    /// ends.
    ///
    /// # Errors
    /// What sendmsg(2) says.
    pub fn remove(&mut self) -> io::Result<()> {
        let mut rest = self.requests.as_slice();
        while !rest.is_empty() {
            let (chunk, after) = rest.split_at(first_chunk(rest));
            self.socket.send(chunk)?;
            rest = after;
        }
        Ok(())
    }

    /// Reads one part of a dump; whether it was the last.
    fn read(
        &mut self,
        count: &mut usize,
        named: impl Fn(IfIndex, &Prefix) -> bool,
    ) -> io::Result<bool> {
        let Self { socket, buffer, requests, owners } = self;
        let datagram = socket.receive(buffer)?;
        if !datagram.from_kernel {
            return Ok(false);
        }
        if datagram.truncated {
            return Err(io::ErrorKind::InvalidData.into());
        }
        for message in Messages::new(buffer.get(..datagram.length).unwrap_or_default()) {
            let Ok(message) = message else { return Err(io::ErrorKind::InvalidData.into()) };
            // Refusals of an earlier removal may lie in between.
            if message.seq != DUMP {
                continue;
            }
            match libc::c_int::from(message.kind) {
                libc::NLMSG_DONE => return Ok(true),
                libc::NLMSG_ERROR => return Err(io::ErrorKind::Other.into()),
                _ => {}
            }
            let Some(found) = found(message.body) else { continue };
            if found.proto != 0 && !*owners {
                // This kernel keeps owners: what had no mark before this one is another's.
                *owners = true;
                requests.clear();
                *count = 0;
            }
            let ours = match *owners {
                true => found.proto == IFA_PROTO_HAVIP,
                false => !found.permanent && named(IfIndex(found.index), &found.prefix),
            };
            if ours && requests.capacity() - requests.len() >= REQUEST_MAX {
                put_removal(requests, &found);
                *count += 1;
            }
        }
        Ok(false)
    }
}

/// Bytes of as many whole requests as go into one sendmsg; at least one.
fn first_chunk(requests: &[u8]) -> usize {
    let mut end = 0;
    while let Some(length) = requests.get(end..).and_then(|rest| parse::u32_at(rest, 0)) {
        let next = end.saturating_add(length as usize);
        if next > CHUNK || length == 0 {
            break;
        }
        end = next;
    }
    if end == 0 { requests.len() } else { end.min(requests.len()) }
}

/// An IPv4 or IPv6 address out of the body of an RTM_NEWADDR.
fn found(body: &[u8]) -> Option<Found> {
    let &[family, len, flags, scope, ..] = body else { return None };
    let index = parse::u32_at(body, 4)?;
    let (mut local, mut address, mut proto) = (None, None, 0);
    let mut flags = u32::from(flags);
    let mut rest = body.get(IFADDRMSG..)?;
    while let (Some(length), Some(kind)) = (parse::u16_at(rest, 0), parse::u16_at(rest, 2)) {
        let length = usize::from(length);
        let value = rest.get(ATTRIBUTE..length)?;
        match kind {
            libc::IFA_LOCAL => local = parse::ip(value),
            libc::IFA_ADDRESS => address = parse::ip(value),
            libc::IFA_FLAGS => flags = parse::u32_at(value, 0)?,
            IFA_PROTO => proto = value.first().copied()?,
            _ => {}
        }
        rest = rest.get(length.next_multiple_of(4)..).unwrap_or_default();
    }
    let ip = local.or(address)?;
    let of_family = match ip {
        IpAddr::V4(_) => libc::AF_INET,
        IpAddr::V6(_) => libc::AF_INET6,
    };
    let permanent = flags & libc::IFA_F_PERMANENT != 0;
    (i32::from(family) == of_family).then_some(Found {
        index,
        prefix: Prefix { ip, len },
        permanent,
        scope,
        proto,
    })
}

/// Names exactly the one address: interface, family, length, scope and address.
fn put_removal(out: &mut Vec<u8>, found: &Found) {
    let Found { index, prefix, scope, .. } = *found;
    let flags = libc::NLM_F_REQUEST as u16;
    let mut put = |family: libc::c_int, octets: &[u8]| {
        let fixed = [family as u8, prefix.len, 0, scope];
        put(out, libc::RTM_DELADDR, flags, REMOVAL, fixed, index, octets);
    };
    match prefix.ip {
        IpAddr::V4(ip) => put(libc::AF_INET, &ip.octets()),
        IpAddr::V6(ip) => put(libc::AF_INET6, &ip.octets()),
    }
}

/// One message about an address; `octets` become IFA_LOCAL and IFA_ADDRESS. `fixed` is the
/// beginning of struct ifaddrmsg: family, prefix length, flags, scope.
fn put(
    out: &mut Vec<u8>,
    kind: u16,
    flags: u16,
    seq: u32,
    fixed: [u8; 4],
    index: u32,
    octets: &[u8],
) {
    let attributes = if octets.is_empty() { 0 } else { 2 * (ATTRIBUTE + octets.len()) };
    out.extend(((HEADER + IFADDRMSG + attributes) as u32).to_ne_bytes());
    out.extend(kind.to_ne_bytes());
    out.extend(flags.to_ne_bytes());
    out.extend(seq.to_ne_bytes());
    out.extend(0u32.to_ne_bytes());
    out.extend(fixed);
    out.extend(index.to_ne_bytes());
    if octets.is_empty() {
        return;
    }
    for kind in [libc::IFA_LOCAL, libc::IFA_ADDRESS] {
        out.extend(((ATTRIBUTE + octets.len()) as u16).to_ne_bytes());
        out.extend(kind.to_ne_bytes());
        out.extend(octets);
    }
}

#[cfg(test)]
mod tests {
    use std::io::Cursor;

    use proptest::prelude::*;

    use super::super::encode;
    use super::*;
    use crate::node::kernel::{Op, Verb};

    fn body_of(prefix: Prefix, verb: Verb) -> Vec<u8> {
        let mut out = Cursor::new(Vec::new());
        encode::op(&mut out, REMOVAL, &Op { index: IfIndex(3), prefix, verb }).unwrap();
        out.into_inner()
    }

    #[test]
    fn a_removal_is_what_the_kernels_thread_would_send_without_asking_for_an_answer() {
        for text in ["10.0.0.3", "169.254.1.1", "2001:db8::3", "fe80::3"] {
            let prefix = Prefix::host(text.parse().unwrap());
            let put = body_of(prefix, Verb::Add { lifetime: Some(4) });
            let found = found(&put[HEADER..]).unwrap();
            assert_eq!((found.index, found.prefix, found.proto), (3, prefix, IFA_PROTO_HAVIP));
            assert!(!found.permanent);
            let mut out = Vec::new();
            put_removal(&mut out, &found);
            let mut expected = body_of(prefix, Verb::Remove);
            let flags = libc::NLM_F_REQUEST as u16;
            expected[6..8].copy_from_slice(&flags.to_ne_bytes());
            assert_eq!(out, expected);
            assert!(out.len() <= REQUEST_MAX);
        }
    }

    #[test]
    fn chunks_are_whole_requests() {
        let mut out = Vec::new();
        let found = |text: &str| Found {
            index: 3,
            prefix: Prefix::host(text.parse().unwrap()),
            permanent: false,
            scope: 0,
            proto: 0,
        };
        for _ in 0..500 {
            put_removal(&mut out, &found("10.0.0.3"));
            put_removal(&mut out, &found("2001:db8::3"));
        }
        let mut rest = out.as_slice();
        let mut requests = 0;
        while !rest.is_empty() {
            let (chunk, after) = rest.split_at(first_chunk(rest));
            assert!(chunk.len() <= CHUNK);
            requests += Messages::new(chunk).map(Result::unwrap).count();
            rest = after;
        }
        assert_eq!(requests, 1000);
        assert_eq!(first_chunk(&[0; 12]), 12, "what is no request ends it");
    }

    proptest! {
        #[test]
        fn no_address_message_makes_it_panic(body in prop::collection::vec(any::<u8>(), 0..96)) {
            let _ = found(&body);
        }
    }
}
