//! VRRP adverts in and out of one interface, for one family.

use std::io;
use std::mem::MaybeUninit;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;

use super::bpf::{
    DROP_ALL, JUMP_IF, JUMP_IF_NOT_LESS, LOAD, LOAD_BYTE, NETWORK, RETURN, instruction,
};
use super::membership::{self, Membership};
use super::recv_batch::RecvBatch;
use super::sys::{self, Target};
use crate::node::kernel::{Errno, Port};
use crate::wire::vrrp::PROTOCOL;
use crate::wire::{Family, IfIndex};

/// 224.0.0.18 (RFC 9568 §5.1.1.2).
pub(super) const GROUP_V4: Ipv4Addr = Ipv4Addr::new(224, 0, 0, 18);
/// ff02::12 (RFC 9568 §5.1.2.2).
pub(super) const GROUP_V6: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 0x12);

/// Bytes that the kernel may keep for us, counted with its own overhead: some hundred adverts.
const RECEIVE_BUFFER: libc::c_int = 512 * 1024;

/// A raw socket that hears adverts to the group, and to this box, on its interface alone, and sends
/// complete IP packets to the group there.
#[derive(Debug)]
pub struct VrrpSocket {
    port: Port,
    socket: Arc<OwnedFd>,
    /// Where the kernel cannot send complete IPv6 packets through the other (before 4.15).
    send: Option<OwnedFd>,
    target: TargetOf,
}

/// Sends complete IP packets to the group out of any interface, with one socket a family: for who
/// has to be ready for all of them and use few.
#[derive(Debug)]
pub struct AnySender {
    v4: OwnedFd,
    /// Absent where the kernel has no IPv6.
    v6: Option<OwnedFd>,
}

impl AnySender {
    /// In the calling thread's network namespace.
    ///
    /// # Errors
    /// EPERM without CAP_NET_RAW, or out of descriptors.
    pub fn open() -> io::Result<Self> {
        Ok(Self { v4: open_unbound(Family::V4)?, v6: open_unbound(Family::V6).ok() })
    }

    /// Sends as [`VrrpSocket::send_batch`] does, out of `port`, with two system calls and without
    /// allocating. An interface that is gone is an error of the first packet.
    pub fn send_batch<P: AsRef<[u8]>>(&self, port: Port, packets: &[P]) -> (usize, Option<Errno>) {
        let (fd, target) = match (port.family, &self.v6) {
            (Family::V4, _) => (self.v4.as_fd(), TargetOf::V4),
            (Family::V6, Some(v6)) => (v6.as_fd(), TargetOf::V6 { scope: port.index }),
            (Family::V6, None) => return (0, Some(Errno(libc::EAFNOSUPPORT))),
        };
        match choose_interface(fd, port) {
            Ok(()) => sys::send_batch(fd, packets, target.address()),
            Err(error) => (0, Some(sys::errno(&error))),
        }
    }
}

/// The group as a socket address; apart from [`Target`] so that it can be shown.
#[derive(Clone, Copy, Debug)]
enum TargetOf {
    V4,
    V6 { scope: IfIndex },
}

impl VrrpSocket {
    /// Opens it in the calling thread's network namespace and joins the group. Takes the kernel's
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
        let socket = Arc::new(open_receive(port)?);
        let send = match set_up_to_send(socket.as_fd(), port) {
            Ok(()) => None,
            Err(error) if error.raw_os_error() == Some(libc::ENOPROTOOPT) => Some(open_send(port)?),
            Err(error) => return Err(step("preparing the socket to send")(error)),
        };
        Ok(Self { port, socket, send, target })
    }

    /// Its membership of the group, to be renewed by a thread that may wait.
    #[must_use]
    pub fn membership(&self) -> Membership {
        Membership { port: self.port, socket: Arc::clone(&self.socket) }
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
        batch.fill(self.socket.as_fd(), self.port.family)
    }

    /// Sends the first [`MAX_SEND`](super::MAX_SEND) of `packets`, complete IP packets, to the group
    /// without waiting. Gives how many went, and the error of the first that did not: ENETDOWN or
    /// ENETUNREACH when the interface is down, ENODEV or ENXIO when it is gone, EPERM from a
    /// firewall, EAGAIN or ENOBUFS when its queue is full, EMSGSIZE.
    pub fn send_batch<'a, P: AsRef<[u8]> + ?Sized + 'a>(
        &self,
        packets: impl IntoIterator<Item = &'a P>,
    ) -> (usize, Option<Errno>) {
        let fd = self.send.as_ref().map_or_else(|| self.socket.as_fd(), AsFd::as_fd);
        sys::send_batch(fd, packets, self.target.address())
    }
}

impl AsFd for VrrpSocket {
    /// What receives, to wait for.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
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
pub(super) fn step(what: &'static str) -> impl Fn(io::Error) -> io::Error {
    move |error| sys::in_step(what, error)
}

fn open_receive(port: Port) -> io::Result<OwnedFd> {
    let kind = libc::SOCK_RAW | libc::SOCK_NONBLOCK;
    let socket = sys::socket(sys::domain(port.family), kind, PROTOCOL.into())
        .map_err(step("opening a raw socket for protocol 112"))?;
    let fd = socket.as_fd();
    // A raw socket hears every interface from the moment it exists. Nothing gets in before it is
    // bound to its own.
    sys::attach_filter(fd, &DROP_ALL).map_err(step("attaching a packet filter"))?;
    sys::bind_to_interface(fd, port.index).map_err(step("binding to the interface"))?;
    sys::set_receive_buffer(fd, RECEIVE_BUFFER).map_err(step("setting the receive buffer"))?;
    match port.family {
        Family::V4 => {
            sys::set_int(fd, libc::IPPROTO_IP, libc::IP_MULTICAST_ALL, 0)
                .map_err(step("setting IP_MULTICAST_ALL"))?;
            sys::attach_filter(fd, &FILTER_V4).map_err(step("attaching a packet filter"))?;
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
            sys::attach_filter(fd, &FILTER_V6).map_err(step("attaching a packet filter"))?;
        }
    }
    membership::join(fd, port)?;
    Ok(socket)
}

/// Lets the socket that receives send complete IP packets as well.
fn set_up_to_send(fd: BorrowedFd<'_>, port: Port) -> io::Result<()> {
    /// IPV6_HDRINCL.
    const V6_HEADER_INCLUDED: libc::c_int = 36;
    match port.family {
        Family::V4 => sys::set_int(fd, libc::IPPROTO_IP, libc::IP_HDRINCL, 1)?,
        Family::V6 => sys::set_int(fd, libc::IPPROTO_IPV6, V6_HEADER_INCLUDED, 1)?,
    }
    sys::set_send_options(fd)?;
    without_loop(fd, port.family)?;
    choose_interface(fd, port)
}

/// What is sent to a group is not heard by this box itself.
fn without_loop(fd: BorrowedFd<'_>, family: Family) -> io::Result<()> {
    match family {
        Family::V4 => sys::set_int(fd, libc::IPPROTO_IP, libc::IP_MULTICAST_LOOP, 0),
        Family::V6 => sys::set_int(fd, libc::IPPROTO_IPV6, libc::IPV6_MULTICAST_LOOP, 0),
    }
}

fn open_send(port: Port) -> io::Result<OwnedFd> {
    let socket = open_unbound(port.family)?;
    let fd = socket.as_fd();
    sys::bind_to_interface(fd, port.index).map_err(step("binding to the interface"))?;
    choose_interface(fd, port)?;
    Ok(socket)
}

/// A socket that sends out of whatever interface is chosen.
fn open_unbound(family: Family) -> io::Result<OwnedFd> {
    // IPPROTO_RAW: the caller gives the IP header, and no packet of protocol 112 is queued here.
    let kind = libc::SOCK_RAW | libc::SOCK_NONBLOCK;
    let socket = sys::socket(sys::domain(family), kind, libc::IPPROTO_RAW)
        .map_err(step("opening a raw socket to send"))?;
    let fd = socket.as_fd();
    // It would still hear protocol 255, which nobody reads.
    sys::attach_filter(fd, &DROP_ALL).map_err(step("attaching a packet filter"))?;
    sys::set_int(fd, libc::SOL_SOCKET, libc::SO_RCVBUF, 0)
        .map_err(step("setting the receive buffer"))?;
    sys::set_send_options(fd).map_err(step("setting the send buffer and priority"))?;
    without_loop(fd, family).map_err(step("turning off multicast loopback"))?;
    Ok(socket)
}

/// Where packets to the group leave. Takes no lock of the whole kernel.
fn choose_interface(fd: BorrowedFd<'_>, port: Port) -> io::Result<()> {
    let index = sys::signed(port.index)?;
    match port.family {
        Family::V4 => {
            // struct ip_mreqn: group, local address, index.
            let mut request = [0; 12];
            request[8..].copy_from_slice(&index.to_ne_bytes());
            sys::set_bytes(fd, libc::IPPROTO_IP, libc::IP_MULTICAST_IF, &request)
                .map_err(step("setting IP_MULTICAST_IF"))
        }
        Family::V6 => sys::set_int(fd, libc::IPPROTO_IPV6, libc::IPV6_MULTICAST_IF, index)
            .map_err(step("setting IPV6_MULTICAST_IF")),
    }
}

/// A length beyond any packet: all of it.
const WHOLE: u32 = 0x0004_0000;

/// 224.0.0.18, or no group: this box. An IPv4 raw socket's filter sees the IP header first.
const FILTER_V4: [libc::sock_filter; 5] = [
    instruction(LOAD, 0, 0, 16),
    instruction(JUMP_IF, 1, 0, 0xe000_0012),
    instruction(JUMP_IF_NOT_LESS, 1, 0, 0xe000_0000),
    instruction(RETURN, 0, 0, WHOLE),
    instruction(RETURN, 0, 0, 0),
];

/// ff02::12, or no group: this box. An IPv6 raw socket's filter sees the payload first.
const FILTER_V6: [libc::sock_filter; 12] = [
    instruction(LOAD_BYTE, 0, 0, NETWORK + 24),
    instruction(JUMP_IF, 0, 8, 0xff),
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
