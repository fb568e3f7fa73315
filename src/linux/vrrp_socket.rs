//! VRRP adverts in and out of one interface, for one family.

use std::io;
use std::mem::{MaybeUninit, size_of};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::ptr;

use super::sys::{self, Target, instruction};
use crate::node::kernel::{Errno, Port};
use crate::wire::vrrp::PROTOCOL;
use crate::wire::{Family, IfIndex};

/// 224.0.0.18 (RFC 9568 §5.1.1.2).
const GROUP_V4: Ipv4Addr = Ipv4Addr::new(224, 0, 0, 18);
/// ff02::12 (RFC 9568 §5.1.2.2).
const GROUP_V6: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 0x12);

/// Packets that one call reads at most.
const MAX_RECEIVE: usize = 32;
/// Bytes of one packet that are kept: the largest advert, 255 IPv6 addresses after 8 bytes, has
/// 4,088.
const PACKET: usize = 4096;
/// Bytes of ancillary data: hop limit (24 with its header) and packet information (40).
const CONTROL: usize = 128;
/// Bytes of a socket address: sockaddr_in6, the larger one.
const NAME: usize = size_of::<libc::sockaddr_in6>();
/// Bytes that the kernel may keep for us, counted with its own overhead: some hundred adverts.
const RECEIVE_BUFFER: libc::c_int = 512 * 1024;

/// Two raw sockets: one that hears adverts to the group on its interface alone, one that sends
/// complete IP packets there and never hears anything.
#[derive(Debug)]
pub struct VrrpSocket {
    port: Port,
    receive: OwnedFd,
    send: OwnedFd,
    target: TargetOf,
}

/// The group as a socket address; apart from [`Target`] so that it can be shown.
#[derive(Clone, Copy, Debug)]
enum TargetOf {
    V4,
    V6 { scope: IfIndex },
}

impl VrrpSocket {
    /// Opens both in the calling thread's network namespace and joins the group. Takes the kernel's
    /// RTNL lock, so not for a thread that must be on time.
    ///
    /// # Errors
    /// Names the step that failed: EPERM without CAP_NET_RAW, ENODEV when the interface is gone or
    /// has no such family, ENOBUFS beyond `net.ipv4.igmp_max_memberships` or
    /// `net.core.optmem_max`.
    pub fn open(port: Port) -> io::Result<Self> {
        let target = match port.family {
            Family::V4 => TargetOf::V4,
            Family::V6 => TargetOf::V6 { scope: port.index },
        };
        Ok(Self { port, receive: open_receive(port)?, send: open_send(port)?, target })
    }

    /// Its interface and family.
    #[must_use]
    pub const fn port(&self) -> Port {
        self.port
    }

    /// Reads what has arrived into `batch`, up to 32 packets, without waiting; 0 when nothing waits.
    ///
    /// # Errors
    /// What recvmmsg(2) gives other than EAGAIN and EINTR, ENETDOWN among them.
    pub fn recv_batch(&self, batch: &mut RecvBatch) -> io::Result<usize> {
        batch.fill(self.receive.as_fd(), self.port.family)
    }

    /// Sends the first [`MAX_SEND`](super::MAX_SEND) of `packets`, complete IP packets, to the group
    /// without waiting. Gives how many went, and the error of the first that did not: ENETDOWN or
    /// ENETUNREACH when the interface is down, ENODEV or ENXIO when it is gone, EPERM from a
    /// firewall, EAGAIN or ENOBUFS when its queue is full, EMSGSIZE.
    pub fn send_batch<P: AsRef<[u8]>>(&self, packets: &[P]) -> (usize, Option<Errno>) {
        sys::send_batch(self.send.as_fd(), packets, self.target.address())
    }
}

impl AsFd for VrrpSocket {
    /// The receiving one, to wait for.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.receive.as_fd()
    }
}

impl TargetOf {
    fn address(self) -> Target {
        match self {
            Self::V4 => {
                // SAFETY: a C structure of integers, for which all zeroes hold.
                let mut to: libc::sockaddr_in = unsafe { MaybeUninit::zeroed().assume_init() };
                to.sin_family = libc::AF_INET as libc::sa_family_t;
                to.sin_addr.s_addr = u32::from_ne_bytes(GROUP_V4.octets());
                Target::V4(to)
            }
            Self::V6 { scope } => {
                // SAFETY: a C structure of integers, for which all zeroes hold.
                let mut to: libc::sockaddr_in6 = unsafe { MaybeUninit::zeroed().assume_init() };
                to.sin6_family = libc::AF_INET6 as libc::sa_family_t;
                to.sin6_addr.s6_addr = GROUP_V6.octets();
                to.sin6_scope_id = scope.0;
                Target::V6(to)
            }
        }
    }
}

/// Tells which step of opening failed.
fn step(what: &'static str) -> impl Fn(io::Error) -> io::Error {
    move |error| io::Error::new(error.kind(), format!("{what}: {error}"))
}

fn domain(family: Family) -> libc::c_int {
    match family {
        Family::V4 => libc::AF_INET,
        Family::V6 => libc::AF_INET6,
    }
}

fn open_receive(port: Port) -> io::Result<OwnedFd> {
    let kind = libc::SOCK_RAW | libc::SOCK_NONBLOCK;
    let socket = sys::socket(domain(port.family), kind, PROTOCOL.into())
        .map_err(step("opening a raw socket for protocol 112"))?;
    let fd = socket.as_fd();
    // A raw socket hears every interface from the moment it exists. Nothing gets in before it is
    // bound to its own.
    sys::attach_filter(fd, &sys::DROP_ALL).map_err(step("attaching a packet filter"))?;
    sys::bind_to_interface(fd, port.index).map_err(step("binding to the interface"))?;
    sys::set_receive_buffer(fd, RECEIVE_BUFFER).map_err(step("setting the receive buffer"))?;
    let index = sys::signed(port.index)?;
    match port.family {
        Family::V4 => {
            sys::set_int(fd, libc::IPPROTO_IP, libc::IP_MULTICAST_ALL, 0)
                .map_err(step("setting IP_MULTICAST_ALL"))?;
            // struct ip_mreqn: group, local address, index.
            let mut request = [0; 12];
            request[..4].copy_from_slice(&GROUP_V4.octets());
            request[8..].copy_from_slice(&index.to_ne_bytes());
            sys::attach_filter(fd, &FILTER_V4).map_err(step("attaching a packet filter"))?;
            sys::set_bytes(fd, libc::IPPROTO_IP, libc::IP_ADD_MEMBERSHIP, &request)
                .map_err(step("joining 224.0.0.18"))?;
        }
        Family::V6 => {
            // Before Linux 4.20 there is none; the filter keeps other groups out as well.
            let _ = sys::set_int(fd, libc::IPPROTO_IPV6, libc::IPV6_MULTICAST_ALL, 0);
            for (option, text) in [
                (libc::IPV6_RECVHOPLIMIT, "setting IPV6_RECVHOPLIMIT"),
                (libc::IPV6_RECVPKTINFO, "setting IPV6_RECVPKTINFO"),
            ] {
                sys::set_int(fd, libc::IPPROTO_IPV6, option, 1).map_err(step(text))?;
            }
            // struct ipv6_mreq: group, index.
            let mut request = [0; 20];
            request[..16].copy_from_slice(&GROUP_V6.octets());
            request[16..].copy_from_slice(&index.to_ne_bytes());
            sys::attach_filter(fd, &FILTER_V6).map_err(step("attaching a packet filter"))?;
            sys::set_bytes(fd, libc::IPPROTO_IPV6, libc::IPV6_ADD_MEMBERSHIP, &request)
                .map_err(step("joining ff02::12"))?;
        }
    }
    Ok(socket)
}

fn open_send(port: Port) -> io::Result<OwnedFd> {
    // IPPROTO_RAW: the caller gives the IP header, and no packet of protocol 112 is queued here.
    let kind = libc::SOCK_RAW | libc::SOCK_NONBLOCK;
    let socket = sys::socket(domain(port.family), kind, libc::IPPROTO_RAW)
        .map_err(step("opening a raw socket to send"))?;
    let fd = socket.as_fd();
    // It would still hear protocol 255, which nobody reads.
    sys::attach_filter(fd, &sys::DROP_ALL).map_err(step("attaching a packet filter"))?;
    sys::set_int(fd, libc::SOL_SOCKET, libc::SO_RCVBUF, 0)
        .map_err(step("setting the receive buffer"))?;
    sys::bind_to_interface(fd, port.index).map_err(step("binding to the interface"))?;
    sys::set_send_options(fd).map_err(step("setting the send buffer and priority"))?;
    let index = sys::signed(port.index)?;
    match port.family {
        Family::V4 => {
            let mut request = [0; 12];
            request[8..].copy_from_slice(&index.to_ne_bytes());
            sys::set_bytes(fd, libc::IPPROTO_IP, libc::IP_MULTICAST_IF, &request)
                .map_err(step("setting IP_MULTICAST_IF"))?;
            sys::set_int(fd, libc::IPPROTO_IP, libc::IP_MULTICAST_LOOP, 0)
                .map_err(step("setting IP_MULTICAST_LOOP"))?;
        }
        Family::V6 => {
            sys::set_int(fd, libc::IPPROTO_IPV6, libc::IPV6_MULTICAST_IF, index)
                .map_err(step("setting IPV6_MULTICAST_IF"))?;
            sys::set_int(fd, libc::IPPROTO_IPV6, libc::IPV6_MULTICAST_LOOP, 0)
                .map_err(step("setting IPV6_MULTICAST_LOOP"))?;
        }
    }
    Ok(socket)
}

/// Classic BPF (linux/bpf_common.h): load a word, jump if equal, return.
const LOAD: u16 = 0x20;
const JUMP_IF: u16 = 0x15;
const RETURN: u16 = 0x06;
/// A length beyond any packet: all of it.
const WHOLE: u32 = 0x0004_0000;
/// SKF_NET_OFF: offsets from here count from the network header.
const NETWORK: u32 = 0xfff0_0000;

/// Destination 224.0.0.18. An IPv4 raw socket's filter sees the IP header first.
const FILTER_V4: [libc::sock_filter; 4] = [
    instruction(LOAD, 0, 0, 16),
    instruction(JUMP_IF, 0, 1, 0xe000_0012),
    instruction(RETURN, 0, 0, WHOLE),
    instruction(RETURN, 0, 0, 0),
];

/// Destination ff02::12. An IPv6 raw socket's filter sees the payload first.
const FILTER_V6: [libc::sock_filter; 10] = [
    instruction(LOAD, 0, 0, NETWORK + 24),
    instruction(JUMP_IF, 0, 7, 0xff02_0000),
    instruction(LOAD, 0, 0, NETWORK + 28),
    instruction(JUMP_IF, 0, 5, 0),
    instruction(LOAD, 0, 0, NETWORK + 32),
    instruction(JUMP_IF, 0, 3, 0),
    instruction(LOAD, 0, 0, NETWORK + 36),
    instruction(JUMP_IF, 0, 1, 0x12),
    instruction(RETURN, 0, 0, WHOLE),
    instruction(RETURN, 0, 0, 0),
];

/// Room for 32 packets, used again and again: 133 KiB on the heap.
pub struct RecvBatch {
    slots: Box<[Slot]>,
    filled: usize,
    family: Family,
}

/// One packet as the kernel gives it. Aligned for a control message's header.
#[repr(C, align(8))]
struct Slot {
    control: [u8; CONTROL],
    name: [u8; NAME],
    bytes: [u8; PACKET],
    length: usize,
    control_length: usize,
    truncated: bool,
}

/// One packet that has arrived.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Received<'a> {
    /// IPv4: the whole packet with its header. IPv6: what follows the header.
    pub bytes: &'a [u8],
    /// From the IP header.
    pub source: IpAddr,
    /// IPv6: from the IP header. IPv4: `None`, it is in `bytes`.
    pub destination: Option<IpAddr>,
    /// IPv6: from the IP header. IPv4: `None`, it is in `bytes`.
    pub hop_limit: Option<u8>,
    /// The packet was longer than 4,096 bytes and its end is missing.
    pub truncated: bool,
}

impl RecvBatch {
    /// Empty.
    #[must_use]
    pub fn new() -> Self {
        let slot = || Slot {
            control: [0; CONTROL],
            name: [0; NAME],
            bytes: [0; PACKET],
            length: 0,
            control_length: 0,
            truncated: false,
        };
        let slots = std::iter::repeat_with(slot).take(MAX_RECEIVE).collect();
        Self { slots, filled: 0, family: Family::V4 }
    }

    /// The packets of the last [`VrrpSocket::recv_batch`], in order of arrival. One whose source
    /// the kernel did not tell, which it always does, is left out.
    pub fn packets(&self) -> impl Iterator<Item = Received<'_>> {
        let filled = self.slots.get(..self.filled).unwrap_or_default();
        filled.iter().filter_map(|slot| slot.received(self.family))
    }

    fn fill(&mut self, fd: BorrowedFd<'_>, family: Family) -> io::Result<usize> {
        self.filled = 0;
        self.family = family;
        // SAFETY: both are plain C structures of integers and pointers, for which all zeroes hold.
        let (mut vectors, mut messages): (
            [libc::iovec; MAX_RECEIVE],
            [libc::mmsghdr; MAX_RECEIVE],
        ) = unsafe { MaybeUninit::zeroed().assume_init() };
        for ((slot, vector), message) in self.slots.iter_mut().zip(&mut vectors).zip(&mut messages)
        {
            vector.iov_base = slot.bytes.as_mut_ptr().cast();
            vector.iov_len = PACKET;
            message.msg_hdr.msg_name = slot.name.as_mut_ptr().cast();
            message.msg_hdr.msg_namelen = NAME as libc::socklen_t;
            message.msg_hdr.msg_iov = vector;
            message.msg_hdr.msg_iovlen = 1;
            message.msg_hdr.msg_control = slot.control.as_mut_ptr().cast();
            message.msg_hdr.msg_controllen = CONTROL as _;
        }
        let count = loop {
            // SAFETY: each header points to a live vector, name, control buffer and packet buffer
            // of the lengths that it gives; no time-out.
            let result = unsafe {
                libc::recvmmsg(
                    fd.as_raw_fd(),
                    messages.as_mut_ptr(),
                    MAX_RECEIVE as libc::c_uint,
                    libc::MSG_DONTWAIT as _,
                    ptr::null_mut(),
                )
            };
            match usize::try_from(result) {
                Ok(count) => break count,
                Err(_) => {
                    let error = io::Error::last_os_error();
                    match error.kind() {
                        io::ErrorKind::Interrupted => {}
                        io::ErrorKind::WouldBlock => return Ok(0),
                        _ => return Err(error),
                    }
                }
            }
        };
        for (slot, message) in self.slots.iter_mut().zip(&messages).take(count) {
            slot.length = usize::try_from(message.msg_len).unwrap_or(usize::MAX).min(PACKET);
            slot.control_length = (message.msg_hdr.msg_controllen as usize).min(CONTROL);
            slot.truncated = message.msg_hdr.msg_flags & libc::MSG_TRUNC != 0;
        }
        self.filled = count;
        Ok(count)
    }
}

impl Default for RecvBatch {
    fn default() -> Self {
        Self::new()
    }
}

impl Slot {
    fn received(&self, family: Family) -> Option<Received<'_>> {
        let control = self.control.get(..self.control_length).unwrap_or_default();
        let (destination, hop_limit) = match family {
            Family::V4 => (None, None),
            Family::V6 => control_messages(control),
        };
        Some(Received {
            bytes: self.bytes.get(..self.length).unwrap_or_default(),
            source: source(family, &self.name)?,
            destination: destination.map(IpAddr::V6),
            hop_limit,
            truncated: self.truncated,
        })
    }
}

/// The address in a sockaddr_in or sockaddr_in6.
fn source(family: Family, name: &[u8; NAME]) -> Option<IpAddr> {
    let found = u16::from_ne_bytes(name.get(..2)?.try_into().ok()?);
    if libc::c_int::from(found) != domain(family) {
        return None;
    }
    Some(match family {
        Family::V4 => IpAddr::from(<[u8; 4]>::try_from(name.get(4..8)?).ok()?),
        Family::V6 => IpAddr::from(<[u8; 16]>::try_from(name.get(8..24)?).ok()?),
    })
}

/// Destination and hop limit out of ancillary data. Laid out as the kernel does: struct cmsghdr is
/// a length of the size of a pointer, level and type; data and next header aligned as the length.
fn control_messages(mut control: &[u8]) -> (Option<Ipv6Addr>, Option<u8>) {
    const WORD: usize = size_of::<usize>();
    const HEADER: usize = WORD + 8;
    let int = |bytes: Option<&[u8]>| -> Option<libc::c_int> {
        Some(libc::c_int::from_ne_bytes(bytes?.try_into().ok()?))
    };
    let (mut destination, mut hop_limit) = (None, None);
    while let Some(length) = control.get(..WORD).and_then(|b| b.try_into().ok()) {
        let length = usize::from_ne_bytes(length);
        let Some(data) = control.get(HEADER.next_multiple_of(WORD)..length) else { break };
        let level = int(control.get(WORD..WORD + 4));
        let kind = int(control.get(WORD + 4..HEADER));
        if level == Some(libc::IPPROTO_IPV6) && kind == Some(libc::IPV6_PKTINFO) {
            // struct in6_pktinfo: address, index.
            let address = data.get(..16).and_then(|b| <[u8; 16]>::try_from(b).ok());
            destination = address.map(Ipv6Addr::from);
        } else if level == Some(libc::IPPROTO_IPV6) && kind == Some(libc::IPV6_HOPLIMIT) {
            hop_limit = int(data.get(..4)).and_then(|limit| u8::try_from(limit).ok());
        }
        // `length` is at least the header's, as `data` shows, and within the buffer.
        control = control.get(length.next_multiple_of(WORD)..).unwrap_or_default();
    }
    (destination, hop_limit)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn control_message(kind: libc::c_int, data: &[u8]) -> Vec<u8> {
        let header = size_of::<usize>() + 8;
        let mut bytes = (header + data.len()).to_ne_bytes().to_vec();
        bytes.extend(libc::IPPROTO_IPV6.to_ne_bytes());
        bytes.extend(kind.to_ne_bytes());
        bytes.extend(data);
        bytes.resize(bytes.len().next_multiple_of(size_of::<usize>()), 0);
        bytes
    }

    #[test]
    fn destination_and_hop_limit_are_found_in_either_order() {
        let mut information = GROUP_V6.octets().to_vec();
        information.extend(5u32.to_ne_bytes());
        let information = control_message(libc::IPV6_PKTINFO, &information);
        let limit = control_message(libc::IPV6_HOPLIMIT, &255i32.to_ne_bytes());
        for bytes in [[&information[..], &limit].concat(), [&limit[..], &information].concat()] {
            assert_eq!(control_messages(&bytes), (Some(GROUP_V6), Some(255)));
        }
    }

    #[test]
    fn a_hop_limit_that_is_none_is_none() {
        let limit = control_message(libc::IPV6_HOPLIMIT, &(-1i32).to_ne_bytes());
        assert_eq!(control_messages(&limit), (None, None));
    }

    proptest! {
        #[test]
        fn no_ancillary_data_makes_it_panic(
            bytes in prop::collection::vec(any::<u8>(), 0..160),
            length in 0usize..64,
        ) {
            let mut bytes = bytes;
            control_messages(&bytes);
            if let Some(front) = bytes.get_mut(..size_of::<usize>()) {
                front.copy_from_slice(&length.to_ne_bytes());
            }
            control_messages(&bytes);
        }
    }
}
