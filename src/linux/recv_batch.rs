//! Packets read many at a time.

use std::io;
use std::mem::{MaybeUninit, size_of};
use std::net::Ipv6Addr;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::ptr;

use crate::wire::Family;
use crate::wire::vrrp::RxMeta;

/// Packets that one call reads at most.
const MAX_RECEIVE: usize = 32;
/// What it asks for at first, and again after fewer came: a header must be filled in for each.
const MIN_RECEIVE: usize = 4;
/// Bytes of one packet that are kept: the largest advert, 255 IPv6 addresses after 8 bytes, has
/// 4,088.
const PACKET: usize = 4096;
/// Most adverts are no longer than this, and lie side by side; of the room for longer ones no
/// page is touched before one comes.
const SHORT: usize = 256;
/// Bytes of ancillary data: hop limit (24 with its header) and packet information (40).
const CONTROL: usize = 128;
/// Bytes of an IPv6 socket address.
const NAME: usize = size_of::<libc::sockaddr_in6>();

/// Room for 32 packets, used again and again: 14 KiB on the heap, and 128 KiB of addresses for
/// long packets.
pub struct RecvBatch {
    slots: Box<[Slot]>,
    /// `PACKET` bytes a slot.
    long: Box<[u8]>,
    /// How many the next call asks for, and the last one asked for.
    room: usize,
    asked: usize,
    filled: usize,
    family: Family,
}

/// One packet as the kernel gives it. Aligned for a control message's header.
#[repr(C, align(8))]
struct Slot {
    control: [u8; CONTROL],
    name: [u8; NAME],
    /// Its first bytes, and all of them if it has no more.
    short: [u8; SHORT],
    length: usize,
    control_length: usize,
    truncated: bool,
}

/// One packet that has arrived.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Received<'a> {
    /// IPv4: the whole packet with its header. IPv6: what follows the header.
    pub bytes: &'a [u8],
    /// IPv6: what the IP header says; the kernel always tells. IPv4: `None`, it is in `bytes`.
    pub meta: Option<RxMeta>,
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
            short: [0; SHORT],
            length: 0,
            control_length: 0,
            truncated: false,
        };
        Self {
            slots: std::iter::repeat_with(slot).take(MAX_RECEIVE).collect(),
            // Asked for as zeroes, so that the kernel gives pages when they are written.
            long: vec![0; MAX_RECEIVE * PACKET].into_boxed_slice(),
            room: MIN_RECEIVE,
            asked: MIN_RECEIVE,
            filled: 0,
            family: Family::V4,
        }
    }

    /// The packets of the last [`VrrpSocket::recv_batch`](super::VrrpSocket::recv_batch), in order
    /// of arrival.
    pub fn packets(&self) -> impl Iterator<Item = Received<'_>> {
        let filled = self.slots.get(..self.filled).unwrap_or_default();
        let both = filled.iter().zip(self.long.chunks_exact(PACKET));
        both.map(|(slot, long)| slot.received(long, self.family))
    }

    /// Whether more may wait: the last read found as many as it had room for.
    #[must_use]
    pub const fn is_full(&self) -> bool {
        self.filled == self.asked
    }

    /// Reads from `fd`, a socket of `family`, without waiting.
    pub(super) fn fill(&mut self, fd: BorrowedFd<'_>, family: Family) -> io::Result<usize> {
        self.filled = 0;
        self.family = family;
        self.asked = self.room;
        let mut vectors = [const { MaybeUninit::<[libc::iovec; 2]>::uninit() }; MAX_RECEIVE];
        let mut messages = [const { MaybeUninit::<libc::mmsghdr>::uninit() }; MAX_RECEIVE];
        let rooms = self.slots.iter_mut().zip(self.long.chunks_exact_mut(PACKET));
        let headers = vectors.iter_mut().zip(&mut messages);
        for ((slot, long), (vector, message)) in rooms.zip(headers).take(self.asked) {
            let (_, beyond) = long.split_at_mut(SHORT);
            let vector = vector.write([
                libc::iovec { iov_base: slot.short.as_mut_ptr().cast(), iov_len: SHORT },
                libc::iovec { iov_base: beyond.as_mut_ptr().cast(), iov_len: beyond.len() },
            ]);
            // SAFETY: a plain C structure of integers and pointers, for which all zeroes hold.
            let message = message.write(unsafe { MaybeUninit::zeroed().assume_init() });
            message.msg_hdr.msg_iov = vector.as_mut_ptr();
            message.msg_hdr.msg_iovlen = vector.len() as _;
            if family == Family::V6 {
                message.msg_hdr.msg_name = slot.name.as_mut_ptr().cast();
                message.msg_hdr.msg_namelen = NAME as libc::socklen_t;
                message.msg_hdr.msg_control = slot.control.as_mut_ptr().cast();
                message.msg_hdr.msg_controllen = CONTROL as _;
            }
        }
        let count = loop {
            // SAFETY: the first `asked` headers are written, and point to two live packet buffers,
            // and some to a name and a control buffer, of the lengths that they give; no time-out.
            let result = unsafe {
                libc::recvmmsg(
                    fd.as_raw_fd(),
                    messages.as_mut_ptr().cast(),
                    self.asked as libc::c_uint,
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
                        io::ErrorKind::WouldBlock => break 0,
                        _ => return Err(error),
                    }
                }
            }
        };
        let rooms = self.slots.iter_mut().zip(self.long.chunks_exact_mut(PACKET));
        for ((slot, long), message) in rooms.zip(&messages).take(count) {
            // SAFETY: written above, and the kernel has filled in the first `count`.
            let message = unsafe { message.assume_init_ref() };
            slot.length = usize::try_from(message.msg_len).unwrap_or(usize::MAX).min(PACKET);
            if slot.length > SHORT {
                let (start, _) = long.split_at_mut(SHORT);
                start.copy_from_slice(&slot.short);
            }
            #[allow(clippy::unnecessary_cast, reason = "musl has a socklen_t there")]
            let control_length = message.msg_hdr.msg_controllen as usize;
            slot.control_length = control_length.min(CONTROL);
            slot.truncated = message.msg_hdr.msg_flags & libc::MSG_TRUNC != 0;
        }
        self.filled = count;
        // A burst is read in few calls; one packet at a time, without the headers of many.
        self.room = if count < MIN_RECEIVE { MIN_RECEIVE } else { MAX_RECEIVE };
        Ok(count)
    }
}

impl Default for RecvBatch {
    fn default() -> Self {
        Self::new()
    }
}

impl Slot {
    fn received<'a>(&'a self, long: &'a [u8], family: Family) -> Received<'a> {
        let bytes = if self.length > SHORT { long } else { &self.short };
        let bytes = bytes.get(..self.length).unwrap_or_default();
        let meta = match family {
            Family::V4 => None,
            Family::V6 => self.meta(),
        };
        Received { bytes, meta, truncated: self.truncated }
    }

    fn meta(&self) -> Option<RxMeta> {
        let control = self.control.get(..self.control_length).unwrap_or_default();
        let (dst, ttl) = control_messages(control);
        Some(RxMeta { src: source(&self.name)?.into(), dst: dst?.into(), ttl: ttl? })
    }
}

/// The address in a sockaddr_in6.
fn source(name: &[u8; NAME]) -> Option<Ipv6Addr> {
    let family = u16::from_ne_bytes(name.get(..2)?.try_into().ok()?);
    let address = <[u8; 16]>::try_from(name.get(8..24)?).ok()?;
    (libc::c_int::from(family) == libc::AF_INET6).then(|| address.into())
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

    const GROUP: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 0x12);

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
        let mut information = GROUP.octets().to_vec();
        information.extend(5u32.to_ne_bytes());
        let information = control_message(libc::IPV6_PKTINFO, &information);
        let limit = control_message(libc::IPV6_HOPLIMIT, &255i32.to_ne_bytes());
        for bytes in [[&information[..], &limit].concat(), [&limit[..], &information].concat()] {
            assert_eq!(control_messages(&bytes), (Some(GROUP), Some(255)));
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
