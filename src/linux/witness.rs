//! Hears who else has what this box has: ARP and neighbour advertisements that claim an address,
//! and VRRP packets that come from an address of its own, which the IP layer keeps from every
//! other socket.

use std::fs::File;
use std::io::{self, Read as _};
use std::net::IpAddr;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::atomic::{AtomicU16, Ordering};

use super::bpf::{self, DROP_ALL, JUMP, JUMP_IF, LOAD, LOAD_BYTE, NETWORK, RETURN, instruction};
use super::{packet_socket, sys};
use crate::node::kernel::{Errno, Port};
use crate::wire::vrrp::{PROTOCOL, Vrid};
use crate::wire::{Family, IfIndex, Mac, arp, ip, ndp};

/// What is kept of a message: a neighbour advertisement with a few options, and an advert with as
/// many addresses as there can be.
const MESSAGE_MAX: usize = 256;
const ADVERT_MAX: usize = 2048;
/// Bytes of unread messages: hosts that answer wrongly answer often.
const RECEIVE_BUFFER: libc::c_int = 64 * 1024;

/// ICMP6_FILTER (RFC 3542 §3.2), and the type of a Neighbor Advertisement (RFC 4861 §4.4).
const ICMP6_FILTER: libc::c_int = 1;
const NEIGHBOR_ADVERTISEMENT: u32 = 136;
/// SOL_PACKET, and PACKET_IGNORE_OUTGOING (Linux 4.20).
const SOL_PACKET: libc::c_int = 263;
const PACKET_IGNORE_OUTGOING: libc::c_int = 23;
/// ETH_P_ALL.
const ALL: u16 = 0x0003;
/// Bytes of an Ethernet header.
const ETHERNET: usize = 14;

/// For ARP, or for neighbour advertisements, of one interface; over IPv4 it sends frames as well. It
/// hears nothing but what it was told to watch: however busy the LAN is, nobody is woken for others'.
#[derive(Debug)]
pub struct Witness {
    file: File,
    port: Port,
    /// The EtherType that the packet socket is bound to; of no use over IPv6.
    bound: AtomicU16,
}

/// What a [`Witness`] hears.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Heard {
    /// This address is said to be at this MAC.
    Claim(IpAddr, Mac),
    /// A VRRP packet over IPv4 with its header, from this MAC, as it came off the wire: nothing of
    /// it was checked.
    Packet(Mac, Vec<u8>),
}

impl Witness {
    /// On this port's interface, in the calling thread's network namespace; watches nothing.
    ///
    /// # Errors
    /// EPERM without CAP_NET_RAW, ENODEV.
    pub fn open(port: Port) -> io::Result<Self> {
        let socket = match port.family {
            Family::V4 => {
                let kind = libc::SOCK_RAW | libc::SOCK_NONBLOCK;
                let socket = sys::socket(libc::AF_PACKET, kind, 0)?;
                sys::attach_filter(socket.as_fd(), &DROP_ALL)?;
                // Older kernels make a copy of each packet that is sent, for the filter to drop.
                let _ = sys::set_int(socket.as_fd(), SOL_PACKET, PACKET_IGNORE_OUTGOING, 1);
                bind(socket.as_fd(), arp::ETHERTYPE, port.index)?;
                sys::set_send_options(socket.as_fd())?;
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
        let bound = AtomicU16::new(arp::ETHERTYPE);
        Ok(Self { file: File::from(socket), port, bound })
    }

    /// Listens for those of these addresses that are of its family, and over IPv4 for packets of
    /// these virtual routers, and for no others. Of very many addresses it may hear others as well.
    ///
    /// # Errors
    /// ENOMEM; ENODEV when the interface is gone.
    pub fn watch(&self, addresses: &[IpAddr], vrids: &[Vrid]) -> io::Result<()> {
        let fd = self.file.as_fd();
        match self.port.family {
            Family::V6 => sys::attach_filter(fd, &filter_v6(addresses)),
            Family::V4 => {
                sys::attach_filter(fd, &filter_v4(self.port.index, addresses, vrids)?)?;
                // A socket for one EtherType shares each of its packets with the IP layer, which
                // then works on a copy; one for all of them has looked at a packet, and let it go,
                // before the IP layer gets it.
                let protocol = if vrids.is_empty() { arp::ETHERTYPE } else { ALL };
                if self.bound.load(Ordering::Relaxed) != protocol {
                    bind(fd, protocol, self.port.index)?;
                    self.bound.store(protocol, Ordering::Relaxed);
                }
                Ok(())
            }
        }
    }

    /// Sends as [`PacketSocket::send_batch`](super::PacketSocket::send_batch) does, if it is one for
    /// IPv4; `None`: it cannot.
    pub fn send_batch<'a, P: AsRef<[u8]> + ?Sized + 'a>(
        &self,
        frames: impl IntoIterator<Item = &'a P>,
    ) -> Option<(usize, Option<Errno>)> {
        let is_packet_socket = self.port.family == Family::V4;
        is_packet_socket.then(|| packet_socket::send(self.file.as_fd(), self.port.index, frames))
    }

    /// What the next message says, without waiting; `Some(None)` for a message that says nothing
    /// of that kind, `None` when none is left.
    pub fn read(&self) -> Option<Option<Heard>> {
        let mut bytes = [0; ADVERT_MAX];
        // ENETDOWN and the like come once, and the link's own notifications tell of them.
        let length = (&self.file).read(&mut bytes).ok()?;
        let message = bytes.get(..length).unwrap_or_default();
        Some(match self.port.family {
            Family::V4 => heard_v4(message),
            Family::V6 => ndp::claim(message).map(|(ip, mac)| Heard::Claim(ip.into(), mac)),
        })
    }
}

impl AsFd for Witness {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

/// Binds a packet socket to an interface and an EtherType, also one that is bound already.
fn bind(fd: BorrowedFd<'_>, protocol: u16, index: IfIndex) -> io::Result<()> {
    let address = packet_socket::address(protocol, index)?;
    // SAFETY: a sockaddr_ll for a packet socket.
    unsafe { sys::bind(fd, &address) }
}

/// What an Ethernet frame says.
fn heard_v4(frame: &[u8]) -> Option<Heard> {
    let (header, message) = frame.split_first_chunk::<ETHERNET>()?;
    let [.., a, b, c, d, e, f, high, low] = *header;
    match u16::from_be_bytes([high, low]) {
        arp::ETHERTYPE => arp::claim(message).map(|(ip, mac)| Heard::Claim(ip.into(), mac)),
        ip::ETHERTYPE_V4 => Some(Heard::Packet(Mac([a, b, c, d, e, f]), message.to_vec())),
        _ => None,
    }
}

fn filter_v6(addresses: &[IpAddr]) -> Vec<libc::sock_filter> {
    // RFC 4861 §7.1.2: Hop Limit 255, or it is not from this link; then the target. Its last four
    // bytes decide: those of another address that ends alike are sorted out by who reads.
    let mut filter = vec![
        instruction(LOAD_BYTE, 0, 0, NETWORK + 7),
        instruction(JUMP_IF, 1, 0, 255),
        instruction(RETURN, 0, 0, 0),
        instruction(LOAD, 0, 0, 20),
    ];
    let words = addresses.iter().filter_map(|address| match address {
        IpAddr::V6(ip) => {
            let [.., a, b, c, d] = ip.octets();
            Some(u32::from_be_bytes([a, b, c, d]))
        }
        IpAddr::V4(_) => None,
    });
    bpf::any_of(&mut filter, words, MESSAGE_MAX as u32);
    filter.push(instruction(RETURN, 0, 0, 0));
    filter
}

fn filter_v4(
    index: IfIndex,
    addresses: &[IpAddr],
    vrids: &[Vrid],
) -> io::Result<Vec<libc::sock_filter>> {
    // Packets that are forwarded come this way, so what they are not comes first.
    let mut packets = vec![
        instruction(LOAD_BYTE, 0, 0, NETWORK + 9),
        instruction(JUMP_IF, 1, 0, PROTOCOL.into()),
        instruction(RETURN, 0, 0, 0),
    ];
    own_vlan(&mut packets, index);
    // RFC 9568 §5.2.3: the VRID is the second byte behind the IP header.
    packets.push(instruction(bpf::LOAD_HEADER_LENGTH, 0, 0, NETWORK));
    packets.push(instruction(bpf::LOAD_BYTE_BEHIND, 0, 0, NETWORK + 1));
    let numbers = vrids.iter().map(|vrid| vrid.number().into());
    bpf::any_of(&mut packets, numbers, ADVERT_MAX as u32);
    packets.push(instruction(RETURN, 0, 0, 0));

    let behind = u32::try_from(packets.len()).map_err(io::Error::other)?;
    let mut filter = vec![
        instruction(LOAD, 0, 0, bpf::ETHERTYPE),
        instruction(JUMP_IF, 2, 0, arp::ETHERTYPE.into()),
        instruction(JUMP_IF, 2, 0, ip::ETHERTYPE_V4.into()),
        instruction(RETURN, 0, 0, 0),
        instruction(JUMP, 0, 0, behind),
    ];
    filter.append(&mut packets);
    own_vlan(&mut filter, index);
    // RFC 826: the sender's protocol address.
    filter.push(instruction(LOAD, 0, 0, NETWORK + 14));
    let words = addresses.iter().filter_map(|address| match address {
        IpAddr::V4(ip) => Some(u32::from(*ip)),
        IpAddr::V6(_) => None,
    });
    bpf::any_of(&mut filter, words, MESSAGE_MAX as u32);
    filter.push(instruction(RETURN, 0, 0, 0));
    Ok(filter)
}

/// Appends: drop what this box sends itself, what is for another host, and what belongs to another
/// VLAN. A tag is still there for a socket that hears all EtherTypes. For others the kernel has
/// taken it off by now, and shows the packet as one of the VLAN's own interface, or as one for
/// another host where there is none. A tag of VLAN 0 is a priority and no VLAN (IEEE 802.1Q §9.6).
fn own_vlan(filter: &mut Vec<libc::sock_filter>, index: IfIndex) {
    filter.extend([
        instruction(LOAD, 0, 0, bpf::PACKET_TYPE),
        instruction(JUMP_IF, 0, 1, libc::PACKET_OTHERHOST.into()),
        instruction(RETURN, 0, 0, 0),
        instruction(JUMP_IF, 0, 1, libc::PACKET_OUTGOING.into()),
        instruction(RETURN, 0, 0, 0),
        instruction(LOAD, 0, 0, bpf::INTERFACE),
        instruction(JUMP_IF, 1, 0, index.0),
        instruction(RETURN, 0, 0, 0),
        instruction(LOAD, 0, 0, bpf::VLAN_TAG_PRESENT),
        instruction(JUMP_IF, 4, 0, 0),
        instruction(LOAD, 0, 0, bpf::VLAN_TAG),
        instruction(bpf::AND, 0, 0, 0x0fff),
        instruction(JUMP_IF, 1, 0, 0),
        instruction(RETURN, 0, 0, 0),
    ]);
}
