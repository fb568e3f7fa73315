//! Requests to the kernel and its answers.

use std::fmt::Debug;
use std::io::{self, Cursor};
use std::os::fd::AsFd;

use neli::consts::nl::{NlmF, NlmsgerrAttr};
use neli::consts::rtnl::{IfaF, Ifla, RtAddrFamily, RtScope, Rtm};
use neli::err::{Nlmsgerr, NlmsghdrAck};
use neli::rtnl::{IfaddrmsgBuilder, IfinfomsgBuilder};
use neli::types::{Buffer, RtBuffer};
use neli::{FromBytesWithInput, Size, ToBytes};

use super::encode;
use super::parse::{self, Malformed, Message, Messages};
use super::socket::Socket;
use crate::linux::sys;
use crate::node::kernel::{Change, Errno, Op, Snapshot};

/// Operations in one sendmsg: their acknowledgements fit into the smallest receive buffer that the
/// kernel gives an unprivileged process by default (212,992 bytes, counted twice; about 1 KiB each).
const MAX_CHUNK: usize = 256;
/// How often a dump that changed under way is made again.
const DUMP_ATTEMPTS: usize = 5;
/// Bytes of the receive buffer; the kernel fills up to 32 KiB of it in each part of a dump.
const DATAGRAM: usize = 64 * 1024;
/// Largest buffer tried for a message that did not fit.
const MAX_DATAGRAM: usize = 1024 * 1024;
/// Seconds to wait for an answer. The kernel works within sendmsg, so an answer that is not there
/// after this was lost.
const TIMEOUT: u8 = 5;

/// Asks the kernel about links and addresses, and changes them. Waits: up to 5 s for an answer, and
/// without bound for the kernel's RTNL lock. Holds a receive buffer of 64 KiB (at most 1 MiB, after
/// a message that large) and a send buffer of up to 24 KiB.
#[derive(Debug)]
pub struct Requests {
    socket: Socket,
    seq: u32,
    out: Cursor<Vec<u8>>,
    buffer: Vec<u8>,
    explanation: Option<String>,
    malformed: u64,
}

/// Why a dump has to be made again.
enum Again {
    Interrupted,
    Truncated,
}

impl Requests {
    /// In the calling thread's network namespace.
    ///
    /// # Errors
    /// EMFILE, ENFILE or ENOMEM.
    pub fn open() -> io::Result<Self> {
        Ok(Self {
            socket: open_socket()?,
            seq: 0,
            out: Cursor::new(Vec::new()),
            buffer: vec![0; DATAGRAM],
            explanation: None,
            malformed: 0,
        })
    }

    /// What the kernel said in words about the first refusal of the last call, if it did.
    #[must_use]
    pub fn explanation(&self) -> Option<&str> {
        self.explanation.as_deref()
    }

    /// Messages in dumps that could not be parsed and were left out, since the start.
    #[must_use]
    pub const fn malformed(&self) -> u64 {
        self.malformed
    }

    /// All links and addresses. A dump that the kernel marks as inconsistent is made again, five
    /// times in all.
    ///
    /// # Errors
    /// [`io::ErrorKind::Interrupted`] when every attempt was inconsistent,
    /// [`io::ErrorKind::TimedOut`] without an answer, else what the kernel says.
    pub fn dump(&mut self) -> io::Result<Snapshot> {
        let mut snapshot = Snapshot::default();
        // RTEXT_FILTER_SKIP_STATS: counters are half of a link's message.
        let filter = libc::RTEXT_FILTER_SKIP_STATS.cast_unsigned();
        let request = || {
            let mut attributes = RtBuffer::new();
            attributes.push(encode::attribute(Ifla::ExtMask, filter)?);
            IfinfomsgBuilder::default()
                .ifi_family(RtAddrFamily::Unspecified)
                .rtattrs(attributes)
                .build()
                .map_err(io::Error::other)
        };
        for change in self.dump_of(Rtm::Getlink, request, parse::change)? {
            if let Change::Link(link) = change {
                snapshot.links.push(link);
            }
        }
        // One family after the other: a dump of all at once is marked as inconsistent for no cause
        // by some kernels.
        for family in [RtAddrFamily::Inet, RtAddrFamily::Inet6] {
            let request = || {
                IfaddrmsgBuilder::default()
                    .ifa_family(family)
                    .ifa_prefixlen(0)
                    .ifa_flags(IfaF::empty())
                    .ifa_scope(RtScope::Universe)
                    .ifa_index(0u32)
                    .build()
                    .map_err(io::Error::other)
            };
            for change in self.dump_of(Rtm::Getaddr, request, parse::change)? {
                if let Change::Address(address) = change {
                    snapshot.addresses.push(address);
                }
            }
        }
        Ok(snapshot)
    }

    /// Does all of `ops` in their order, in one sendmsg for up to 256, and gives the kernel's answer
    /// to each in the same order. An operation that fails does not keep the next from being done.
    ///
    /// The kernel knows an IPv6 address of a link by its IP alone, an IPv4 address by IP and prefix
    /// length: there is one already (EEXIST) where that is there. It takes a renewal of what is not
    /// there for an addition, whatever the flags say.
    ///
    /// # Errors
    /// When answers did not come (ENOBUFS, [`io::ErrorKind::TimedOut`]): what was done is then
    /// unknown and only a dump tells.
    pub fn apply(&mut self, ops: &[Op]) -> io::Result<Vec<Result<(), Errno>>> {
        self.explanation = None;
        let mut results = Vec::with_capacity(ops.len());
        for chunk in ops.chunks(MAX_CHUNK) {
            let first = self.begin(chunk.len());
            for (op, seq) in chunk.iter().zip(first..) {
                encode::op(&mut self.out, seq, op)?;
            }
            results.append(&mut self.transact(first, chunk.len())?);
        }
        Ok(results)
    }

    /// One request of any kind and its acknowledgement.
    pub(super) fn request<P: Size + ToBytes>(
        &mut self,
        kind: Rtm,
        flags: NlmF,
        payload: P,
    ) -> io::Result<()> {
        self.explanation = None;
        let seq = self.begin(1);
        encode::message(&mut self.out, kind, NlmF::ACK | flags, seq, payload)?;
        match self.transact(seq, 1)?.first() {
            Some(Err(errno)) => Err(io::Error::from_raw_os_error(errno.0)),
            Some(Ok(())) | None => Ok(()),
        }
    }

    /// The same with a body that is bytes already.
    pub(super) fn request_bytes(&mut self, kind: u16, flags: NlmF, body: &[u8]) -> io::Result<()> {
        self.request(Rtm::from(kind), flags, Buffer::from(body))
    }

    /// From now on the kernel looks at what a dump is asked for, where it can: without this it
    /// leaves that to the reader.
    pub(super) fn filter_dumps(&mut self) {
        let _ = filter_dumps(&self.socket);
    }

    /// Empties the send buffer and gives the first of `count` sequence numbers without a gap. Never
    /// 0, which notifications have.
    fn begin(&mut self, count: usize) -> u32 {
        self.out.set_position(0);
        self.out.get_mut().clear();
        let count = u32::try_from(count).unwrap_or(u32::MAX);
        let first = self.seq.checked_add(1).filter(|first| first.checked_add(count).is_some());
        let first = first.unwrap_or(1);
        self.seq = first.saturating_add(count);
        first
    }

    /// Sends what is encoded and collects `count` acknowledgements.
    fn transact(&mut self, first: u32, count: usize) -> io::Result<Vec<Result<(), Errno>>> {
        let result = self.try_transact(first, count);
        if result.is_err() {
            // Answers may still come; a new socket has none of them.
            self.socket = open_socket()?;
        }
        result
    }

    fn try_transact(&mut self, first: u32, count: usize) -> io::Result<Vec<Result<(), Errno>>> {
        self.socket.send(self.out.get_ref())?;
        let mut results: Vec<Option<Result<(), Errno>>> = vec![None; count];
        let mut missing = count;
        while missing > 0 {
            let datagram = self.socket.receive(&mut self.buffer).map_err(timed_out)?;
            if !datagram.from_kernel {
                continue;
            }
            let bytes = self.buffer.get(..datagram.length).unwrap_or_default();
            for message in Messages::new(bytes) {
                let message = message.map_err(io::Error::other)?;
                let slot = message.seq.checked_sub(first).and_then(|at| usize::try_from(at).ok());
                let Some(slot) = slot.and_then(|at| results.get_mut(at)) else { continue };
                // An answer to an earlier request, or no acknowledgement, or a second one.
                if libc::c_int::from(message.kind) != libc::NLMSG_ERROR || slot.is_some() {
                    continue;
                }
                let answer = error_number(&message).map_err(io::Error::other)?;
                if answer.is_err() && self.explanation.is_none() {
                    self.explanation = explanation(&message);
                }
                *slot = Some(answer);
                missing -= 1;
            }
        }
        // None is missing, so none is left out.
        Ok(results.into_iter().flatten().collect())
    }

    /// A dump of one kind, from one consistent pass.
    pub(super) fn dump_of<P: Size + ToBytes, T>(
        &mut self,
        kind: Rtm,
        request: impl Fn() -> io::Result<P>,
        parse: impl Fn(&Message<'_>) -> Result<Option<T>, Malformed>,
    ) -> io::Result<Vec<T>> {
        self.explanation = None;
        for _ in 0..DUMP_ATTEMPTS {
            let seq = self.begin(1);
            encode::message(&mut self.out, kind, NlmF::DUMP, seq, request()?)?;
            match self.try_dump(seq, &parse) {
                Ok(Ok(all)) => return Ok(all),
                Ok(Err(Again::Interrupted)) => {}
                Ok(Err(Again::Truncated)) => {
                    let larger = self.buffer.len().saturating_mul(2);
                    if larger > MAX_DATAGRAM {
                        return Err(io::Error::other("netlink: message of more than 1 MiB"));
                    }
                    self.buffer.resize(larger, 0);
                    // The dump under way would go on answering.
                    self.socket = open_socket()?;
                }
                Err(error) => {
                    self.socket = open_socket()?;
                    return Err(error);
                }
            }
        }
        let text = "changes came faster than the kernel could be read";
        Err(io::Error::new(io::ErrorKind::Interrupted, text))
    }

    fn try_dump<T>(
        &mut self,
        seq: u32,
        parse: impl Fn(&Message<'_>) -> Result<Option<T>, Malformed>,
    ) -> io::Result<Result<Vec<T>, Again>> {
        self.socket.send(self.out.get_ref())?;
        let mut all = Vec::new();
        let mut interrupted = false;
        loop {
            let datagram = self.socket.receive(&mut self.buffer).map_err(timed_out)?;
            if !datagram.from_kernel {
                continue;
            }
            if datagram.truncated {
                return Ok(Err(Again::Truncated));
            }
            let bytes = self.buffer.get(..datagram.length).unwrap_or_default();
            for message in Messages::new(bytes) {
                let message = message.map_err(io::Error::other)?;
                if message.seq != seq {
                    continue;
                }
                interrupted |= NlmF::from(message.flags).contains(NlmF::DUMP_INTR);
                match libc::c_int::from(message.kind) {
                    libc::NLMSG_DONE | libc::NLMSG_ERROR => {
                        // NLMSG_DONE has the same number in front.
                        if let Err(errno) = error_number(&message).map_err(io::Error::other)? {
                            self.explanation = explanation(&message);
                            return Err(io::Error::from_raw_os_error(errno.0));
                        }
                        return Ok(if interrupted { Err(Again::Interrupted) } else { Ok(all) });
                    }
                    _ => match parse(&message) {
                        Ok(Some(item)) => all.push(item),
                        Ok(None) => {}
                        Err(Malformed(_)) => self.malformed = self.malformed.saturating_add(1),
                    },
                }
            }
        }
    }
}

/// As [`Requests::filter_dumps`].
pub(super) fn filter_dumps(socket: &Socket) -> io::Result<()> {
    /// NETLINK_GET_STRICT_CHK (linux/netlink.h).
    const GET_STRICT_CHK: libc::c_int = 12;
    sys::set_int(socket.as_fd(), libc::SOL_NETLINK, GET_STRICT_CHK, 1)
}

pub(super) fn open_socket() -> io::Result<Socket> {
    let socket = Socket::open(0, 0)?;
    let fd = socket.as_fd();
    sys::set_receive_timeout(fd, TIMEOUT)?;
    sys::set_receive_buffer(fd, 1024 * 1024)?;
    // Words for a refusal, and the request not echoed: kernels before 4.12 have neither, and only
    // the words are then missing.
    let _ = sys::set_int(fd, libc::SOL_NETLINK, libc::NETLINK_EXT_ACK, 1);
    let _ = sys::set_int(fd, libc::SOL_NETLINK, libc::NETLINK_CAP_ACK, 1);
    Ok(socket)
}

fn timed_out(error: io::Error) -> io::Error {
    if error.kind() == io::ErrorKind::WouldBlock {
        let text = format!("netlink: no answer from the kernel within {TIMEOUT} s");
        return io::Error::new(io::ErrorKind::TimedOut, text);
    }
    error
}

fn error_number(message: &Message<'_>) -> Result<Result<(), Errno>, Malformed> {
    let number = parse::u32_at(message.body, 0).ok_or(Malformed("acknowledgement"))?;
    match number.cast_signed() {
        0 => Ok(Ok(())),
        negative if negative < 0 => Ok(Err(Errno(negative.saturating_neg()))),
        // A dump's end may carry a positive number, which is no error.
        _ => Ok(Ok(())),
    }
}

/// NLMSGERR_ATTR_MSG of an acknowledgement that has it and does not echo the request.
fn explanation(message: &Message<'_>) -> Option<String> {
    // struct nlmsgerr: the number and the request's header.
    const FIXED: usize = 20;
    let flags = NlmF::from(message.flags);
    if !flags.contains(NlmF::ACK_TLVS | NlmF::CAPPED) || message.body.len() < FIXED {
        return None;
    }
    let mut cursor = Cursor::new(message.body);
    let length = message.body.len();
    let error = Nlmsgerr::<NlmsghdrAck<u16>>::from_bytes_with_input(&mut cursor, length).ok()?;
    let handle = error.ext_ack().get_attr_handle();
    let text = handle.get_attribute(NlmsgerrAttr::Msg)?.nla_payload().as_ref();
    let text = text.split(|byte| *byte == 0).next()?;
    std::str::from_utf8(text).ok().map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::config::Prefix;
    use crate::node::kernel::Verb;
    use crate::wire::IfIndex;

    #[test]
    fn the_kernels_words_are_found() {
        let mut body = Vec::new();
        body.extend((-22i32).to_ne_bytes());
        body.extend([0; 16]);
        body.extend(10u16.to_ne_bytes());
        body.extend(1u16.to_ne_bytes());
        body.extend(b"wrong\0\0\0");
        let flags = (NlmF::CAPPED | NlmF::ACK_TLVS).bits();
        let message = Message { kind: 2, flags, seq: 1, body: &body };
        assert_eq!(error_number(&message), Ok(Err(Errno(22))));
        assert_eq!(explanation(&message).as_deref(), Some("wrong"));
    }

    #[test]
    fn a_dump_that_does_not_fit_is_made_again_with_more_room() {
        let mut requests = Requests::open().unwrap();
        requests.buffer = vec![0; 512];
        let snapshot = requests.dump().unwrap();
        assert!(snapshot.links.iter().any(|link| link.loopback));
        assert!(requests.buffer.len() > 512);
    }

    #[test]
    fn answers_to_earlier_requests_are_passed_over() {
        let mut requests = Requests::open().unwrap();
        let prefix = Prefix::host("192.0.2.1".parse().unwrap());
        let op = Op { index: IfIndex(u32::MAX), prefix, verb: Verb::Remove };
        // Sent, and its answer left lying.
        let seq = requests.begin(1);
        encode::op(&mut requests.out, seq, &op).unwrap();
        requests.socket.send(requests.out.get_ref()).unwrap();
        assert!(requests.dump().is_ok());
        let seq = requests.begin(1);
        encode::op(&mut requests.out, seq, &op).unwrap();
        requests.socket.send(requests.out.get_ref()).unwrap();
        let answers = requests.apply(&[op, op]).unwrap();
        assert!(answers.iter().all(Result::is_err) && answers.len() == 2);
    }

    #[test]
    fn sequence_numbers_start_again_before_they_run_over() {
        let mut requests = Requests::open().unwrap();
        requests.seq = u32::MAX - 3;
        assert_eq!(requests.begin(2), u32::MAX - 2);
        assert_eq!(requests.begin(2), 1);
    }

    proptest! {
        #[test]
        fn no_acknowledgement_makes_it_panic(body in prop::collection::vec(any::<u8>(), 0..128)) {
            let flags = (NlmF::CAPPED | NlmF::ACK_TLVS).bits();
            let message = Message { kind: 2, flags, seq: 1, body: &body };
            let _ = error_number(&message);
            let _ = explanation(&message);
        }
    }
}
