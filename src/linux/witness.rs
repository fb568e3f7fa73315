//! Hears who else says that an address is his: ARP, and neighbour advertisements.

use std::fs::File;
use std::io::{self, Read as _};
use std::mem::MaybeUninit;
use std::net::IpAddr;
use std::os::fd::{AsFd, BorrowedFd};

use super::bpf::{DROP_ALL, JUMP_IF, LOAD, LOAD_BYTE, NETWORK, RETURN, instruction};
use super::sys;
use crate::node::kernel::Port;
use crate::wire::{Family, Mac, arp, ndp};

/// Addresses that one socket listens for at most: a filter has 4,096 instructions (BPF_MAXINSNS).
pub const WATCHED_MAX: usize = 1000;
/// What is kept of a message: a neighbour advertisement with a few options.
const MESSAGE_MAX: usize = 256;
/// Bytes of unread messages: hosts that answer wrongly answer often.
const RECEIVE_BUFFER: libc::c_int = 64 * 1024;

/// ICMP6_FILTER (RFC 3542 §3.2), and the type of a Neighbor Advertisement (RFC 4861 §4.4).
const ICMP6_FILTER: libc::c_int = 1;
const NEIGHBOR_ADVERTISEMENT: u32 = 136;

/// A socket for ARP, or for neighbour advertisements, of one interface. It hears nothing but the
/// addresses that it was told to watch: however busy the LAN is, nobody is woken for others'.
#[derive(Debug)]
pub struct Witness {
    file: File,
    family: Family,
}

impl Witness {
    /// On this port's interface, in the calling thread's network namespace; watches nothing.
    ///
    /// # Errors
    /// EPERM without CAP_NET_RAW, ENODEV.
    pub fn open(port: Port) -> io::Result<Self> {
        let socket = match port.family {
            Family::V4 => {
                let kind = libc::SOCK_DGRAM | libc::SOCK_NONBLOCK;
                let socket = sys::socket(libc::AF_PACKET, kind, 0)?;
                sys::attach_filter(socket.as_fd(), &DROP_ALL)?;
                // SAFETY: a C structure of integers, for which all zeroes hold.
                let mut address: libc::sockaddr_ll = unsafe { MaybeUninit::zeroed().assume_init() };
                address.sll_family = libc::AF_PACKET as libc::c_ushort;
                address.sll_protocol = arp::ETHERTYPE.to_be();
                address.sll_ifindex = sys::signed(port.index)?;
                // SAFETY: a sockaddr_ll for a packet socket.
                unsafe { sys::bind(socket.as_fd(), &address) }?;
                socket
            }
            Family::V6 => {
                let kind = libc::SOCK_RAW | libc::SOCK_NONBLOCK;
                let socket = sys::socket(libc::AF_INET6, kind, libc::IPPROTO_ICMPV6)?;
                sys::attach_filter(socket.as_fd(), &DROP_ALL)?;
                sys::bind_to_interface(socket.as_fd(), port.index)?;
                // struct icmp6_filter: a bit for each type that is kept out.
                let kept_out = (0..8u32).flat_map(|word| {
                    let own = word == NEIGHBOR_ADVERTISEMENT / 32;
                    let bit = if own { 1 << (NEIGHBOR_ADVERTISEMENT % 32) } else { 0 };
                    (!bit as u32).to_ne_bytes()
                });
                let kept_out: Vec<u8> = kept_out.collect();
                let level = libc::IPPROTO_ICMPV6;
                sys::set_bytes(socket.as_fd(), level, ICMP6_FILTER, &kept_out)?;
                socket
            }
        };
        sys::set_receive_buffer(socket.as_fd(), RECEIVE_BUFFER)?;
        Ok(Self { file: File::from(socket), family: port.family })
    }

    /// Listens for the first [`WATCHED_MAX`] of these addresses that are of its family, and for no
    /// others.
    ///
    /// # Errors
    /// ENOMEM.
    pub fn watch(&self, addresses: &[IpAddr]) -> io::Result<()> {
        // The last four bytes decide: those of another address that ends alike are sorted out by
        // who reads.
        let words = addresses.iter().filter_map(|address| match (self.family, address) {
            (Family::V4, IpAddr::V4(ip)) => Some(u32::from(*ip)),
            (Family::V6, IpAddr::V6(ip)) => {
                let [.., a, b, c, d] = ip.octets();
                Some(u32::from_be_bytes([a, b, c, d]))
            }
            (Family::V4, IpAddr::V6(_)) | (Family::V6, IpAddr::V4(_)) => None,
        });
        let mut filter = match self.family {
            // RFC 826: the sender's protocol address.
            Family::V4 => vec![instruction(LOAD, 0, 0, 14)],
            // RFC 4861 §7.1.2: Hop Limit 255, or it is not from this link; then the target.
            Family::V6 => vec![
                instruction(LOAD_BYTE, 0, 0, NETWORK + 7),
                instruction(JUMP_IF, 1, 0, 255),
                instruction(RETURN, 0, 0, 0),
                instruction(LOAD, 0, 0, 20),
            ],
        };
        for word in words.take(WATCHED_MAX) {
            filter.push(instruction(JUMP_IF, 0, 1, word));
            filter.push(instruction(RETURN, 0, 0, MESSAGE_MAX as u32));
        }
        filter.push(instruction(RETURN, 0, 0, 0));
        sys::attach_filter(self.file.as_fd(), &filter)
    }

    /// What the next message says, without waiting: an address and the MAC that is said to have
    /// it; `Some(None)` for a message that says nothing of that kind, `None` when none is left.
    pub fn read(&self) -> Option<Option<(IpAddr, Mac)>> {
        let mut bytes = [0; MESSAGE_MAX];
        // ENETDOWN and the like come once, and the link's own notifications tell of them.
        let length = (&self.file).read(&mut bytes).ok()?;
        let message = bytes.get(..length).unwrap_or_default();
        Some(match self.family {
            Family::V4 => arp::claim(message).map(|(ip, mac)| (ip.into(), mac)),
            Family::V6 => ndp::claim(message).map(|(ip, mac)| (ip.into(), mac)),
        })
    }
}

impl AsFd for Witness {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}
