//! The fence in the kernel: a table `havip` of nf_tables for each of ARP, IPv4 and IPv6. What is in
//! its set `vip` (interface and address) is neither answered for nor received, unless it is in the
//! set `open` as well, whose elements end by themselves.
//!
//! The table has no owner in the kernel's sense (NFT_TABLE_F_OWNER): it would vanish with the
//! process, and the addresses behind it would be answered for again. As bytes, because neli has no
//! names for any of it. Numbers are big-endian here, other than in rtnetlink.

use std::io;
use std::net::IpAddr;
use std::os::fd::AsFd as _;

use super::parse::{self, Messages};
use super::socket::Socket;
use crate::linux::sys;
use crate::node::Instant;
use crate::node::kernel::{Gate, Passage};

/// Name of the tables.
const TABLE: &str = "havip";
const VIP: &str = "vip";
const OPEN: &str = "open";
/// Ways in one transaction: what it is made of stays below 64 KiB, where an attribute ends.
const CHUNK: usize = 256;
/// Bytes that a removal needs at most; more are taken as they are needed.
const ROOM: usize = 1024;
/// Bytes of one receive: answers alone.
const DATAGRAM: usize = 8 * 1024;
/// Seconds to wait for an answer. The kernel works within sendmsg.
const TIMEOUT: u8 = 5;

/// One table.
struct Table {
    /// NFPROTO_*.
    family: u8,
    /// Bytes of an address.
    length: u32,
    /// What its sets hold, for those who list them: two numbers of nft's, an interface's and an
    /// address's.
    kind: u32,
    chains: &'static [Chain],
}

/// A chain with the one rule.
struct Chain {
    name: &'static str,
    /// NF_ARP_OUT, NF_INET_LOCAL_IN or NF_INET_LOCAL_OUT.
    hook: u32,
    /// NFT_META_IIF or NFT_META_OIF.
    interface: u32,
    /// Where the VIP stands from the network header on.
    offset: u32,
}

const IIF: u32 = 4;
const OIF: u32 = 5;
/// The sender's address of a request as well: others learn from it.
const ARP: Table = Table {
    family: 3,
    length: 4,
    kind: 20 << 6 | 7,
    chains: &[Chain { name: "output", hook: 1, interface: OIF, offset: 14 }],
};
const IPV4: Table = Table {
    family: 2,
    length: 4,
    kind: 20 << 6 | 7,
    chains: &[
        Chain { name: "input", hook: 1, interface: IIF, offset: 16 },
        Chain { name: "output", hook: 3, interface: OIF, offset: 12 },
    ],
};
/// The kernel sends a neighbour advertisement from the address that it tells of.
const IPV6: Table = Table {
    family: 10,
    length: 16,
    kind: 20 << 6 | 8,
    chains: &[
        Chain { name: "input", hook: 1, interface: IIF, offset: 24 },
        Chain { name: "output", hook: 3, interface: OIF, offset: 8 },
    ],
};
const TABLES: [&Table; 3] = [&ARP, &IPV4, &IPV6];

/// NFT_MSG_*.
const NEWTABLE: u16 = 0;
const DELTABLE: u16 = 2;
const NEWCHAIN: u16 = 3;
const NEWRULE: u16 = 6;
const NEWSET: u16 = 9;
const NEWSETELEM: u16 = 12;
const DELSETELEM: u16 = 14;
/// NFT_SET_TIMEOUT.
const SET_TIMEOUT: u32 = 0x10;
/// NFT_REG32_00, which takes the interface, and the next one, which takes the address.
const REGISTER: u32 = 8;
/// NFTA_LIST_ELEM, NFTA_EXPR_NAME and NFTA_EXPR_DATA.
const ELEMENT: u16 = 1;
const EXPR_NAME: u16 = 1;
const EXPR_DATA: u16 = 2;

/// Builds, changes and removes the fence, each change at once or not at all. Waits: up to 5 s for
/// an answer, and as long as another changes nf_tables.
#[derive(Debug)]
pub struct Fence {
    socket: Socket,
    seq: u32,
    out: Vec<u8>,
    /// Where the last message in `out` begins.
    last: usize,
    buffer: Vec<u8>,
}

impl Fence {
    /// In the calling thread's network namespace; builds nothing yet.
    ///
    /// # Errors
    /// EPROTONOSUPPORT on a kernel without nfnetlink; out of descriptors or memory.
    pub fn open() -> io::Result<Self> {
        let (out, buffer) = (Vec::with_capacity(ROOM), vec![0; DATAGRAM]);
        Ok(Self { socket: socket()?, seq: 0, out, last: 0, buffer })
    }

    /// Builds it anew, with nothing behind it.
    ///
    /// # Errors
    /// EPERM without CAP_NET_ADMIN; EOPNOTSUPP, ENOENT or EAFNOSUPPORT where the kernel lacks
    /// nf_tables or one of the three families; [`io::ErrorKind::WouldBlock`] without an answer.
    pub fn build(&mut self) -> io::Result<()> {
        self.begin();
        self.put_removal();
        for table in TABLES {
            self.message(table, NEWTABLE, |out| text(out, 1, TABLE));
            for (name, flags) in [(VIP, 0), (OPEN, SET_TIMEOUT)] {
                self.message(table, NEWSET, |out| put_set(out, table, name, flags));
            }
            for chain in table.chains {
                self.message(table, NEWCHAIN, |out| put_chain(out, chain));
                self.message(table, NEWRULE, |out| put_rule(out, table, chain));
            }
        }
        self.commit()
    }

    /// Removes it, if it is there. Does not allocate.
    ///
    /// # Errors
    /// As [`Self::build`].
    pub fn remove(&mut self) -> io::Result<()> {
        self.begin();
        self.put_removal();
        self.commit()
    }

    /// Opens and shuts ways, at `now`. What a way was before does not matter.
    ///
    /// # Errors
    /// ENOENT: someone has removed the table. Else as [`Self::build`].
    pub fn apply(&mut self, now: Instant, passages: &[Passage]) -> io::Result<()> {
        for chunk in passages.chunks(CHUNK) {
            self.begin();
            for table in TABLES {
                self.put_passages(table, now, chunk);
            }
            self.commit()?;
        }
        Ok(())
    }

    /// An element cannot be given more time before Linux 6.12, nor may one be deleted that is not
    /// there: so each is added, deleted, and added as it is to be.
    fn put_passages(&mut self, table: &Table, now: Instant, passages: &[Passage]) {
        let here = |passage: &&Passage| match passage.ip {
            IpAddr::V4(_) => table.length == 4,
            IpAddr::V6(_) => table.length == 16,
        };
        let all = || passages.iter().filter(here);
        let gone = || all().filter(|passage| passage.gate == Gate::Gone);
        let open = || all().filter(|passage| left(passage, now) > 0);
        if all().next().is_none() {
            return;
        }
        let none = |_: &Passage| 0;
        self.message(table, NEWSETELEM, |out| put_elements(out, VIP, all(), none));
        self.message(table, NEWSETELEM, |out| put_elements(out, OPEN, all(), none));
        self.message(table, DELSETELEM, |out| put_elements(out, OPEN, all(), none));
        if open().next().is_some() {
            let left = |passage: &Passage| left(passage, now);
            self.message(table, NEWSETELEM, |out| put_elements(out, OPEN, open(), left));
        }
        if gone().next().is_some() {
            self.message(table, DELSETELEM, |out| put_elements(out, VIP, gone(), none));
        }
    }

    /// A table that is not there cannot be deleted, and one that is there may be added.
    fn put_removal(&mut self) {
        for table in TABLES {
            for kind in [NEWTABLE, DELTABLE] {
                self.message(table, kind, |out| text(out, 1, TABLE));
            }
        }
    }

    /// Begins a transaction.
    fn begin(&mut self) {
        self.out.clear();
        self.control(libc::NFNL_MSG_BATCH_BEGIN);
    }

    fn control(&mut self, kind: libc::c_int) {
        let subsystem = libc::NFNL_SUBSYS_NFTABLES as u16;
        self.put(kind as u16, 0, 0, subsystem, |_| {});
    }

    fn message(&mut self, table: &Table, kind: u16, body: impl FnOnce(&mut Vec<u8>)) {
        let kind = (libc::NFNL_SUBSYS_NFTABLES as u16) << 8 | kind;
        // The kernel reads each where it means something.
        let flags = libc::NLM_F_CREATE | libc::NLM_F_APPEND;
        self.put(kind, flags, table.family, 0, body);
    }

    /// One message: struct nlmsghdr, struct nfgenmsg, attributes.
    fn put(
        &mut self,
        kind: u16,
        flags: libc::c_int,
        family: u8,
        id: u16,
        body: impl FnOnce(&mut Vec<u8>),
    ) {
        self.seq = self.seq.wrapping_add(1);
        let start = self.out.len();
        self.last = start;
        self.out.extend([0; 4]);
        self.out.extend(kind.to_ne_bytes());
        self.out.extend(((libc::NLM_F_REQUEST | flags) as u16).to_ne_bytes());
        self.out.extend(self.seq.to_ne_bytes());
        self.out.extend([0; 4]);
        self.out.extend([family, 0]);
        self.out.extend(id.to_be_bytes());
        body(&mut self.out);
        let length = (self.out.len() - start) as u32;
        if let Some(head) = self.out.get_mut(start..).and_then(<[u8]>::first_chunk_mut) {
            *head = length.to_ne_bytes();
        }
    }

    /// Ends a transaction and waits for the last message's answer, or the first refusal.
    fn commit(&mut self) -> io::Result<()> {
        let last = self.seq;
        let flags = self.out.get_mut(self.last + 6..).and_then(<[u8]>::first_chunk_mut);
        if let Some(flags) = flags {
            *flags = (u16::from_ne_bytes(*flags) | libc::NLM_F_ACK as u16).to_ne_bytes();
        }
        self.control(libc::NFNL_MSG_BATCH_END);
        let result = self.socket.send(&self.out).and_then(|()| self.answered(last));
        if result.is_err() {
            // More answers may lie there; a new socket has none of them.
            self.socket = socket()?;
        }
        result
    }

    fn answered(&mut self, last: u32) -> io::Result<()> {
        loop {
            let datagram = self.socket.receive(&mut self.buffer)?;
            if !datagram.from_kernel {
                continue;
            }
            for message in Messages::new(self.buffer.get(..datagram.length).unwrap_or_default()) {
                let Ok(message) = message else { return Err(io::ErrorKind::InvalidData.into()) };
                if libc::c_int::from(message.kind) != libc::NLMSG_ERROR {
                    continue;
                }
                match parse::u32_at(message.body, 0).map(u32::cast_signed) {
                    Some(0) if message.seq == last => return Ok(()),
                    Some(0) => {}
                    Some(error) => {
                        return Err(io::Error::from_raw_os_error(error.saturating_neg()));
                    }
                    None => return Err(io::ErrorKind::InvalidData.into()),
                }
            }
        }
    }
}

fn socket() -> io::Result<Socket> {
    let socket = Socket::of(libc::NETLINK_NETFILTER, 0, 0)?;
    sys::set_receive_timeout(socket.as_fd(), TIMEOUT)?;
    // Refusals without the request.
    let _ = sys::set_int(socket.as_fd(), libc::SOL_NETLINK, libc::NETLINK_CAP_ACK, 1);
    Ok(socket)
}

/// Milliseconds that a way stays open.
fn left(passage: &Passage, now: Instant) -> u64 {
    match passage.gate {
        Gate::OpenUntil(until) => u64::try_from(until.since(now).as_millis()).unwrap_or(0),
        Gate::Shut | Gate::Gone => 0,
    }
}

fn put_set(out: &mut Vec<u8>, table: &Table, name: &str, flags: u32) {
    text(out, 1, TABLE);
    text(out, 2, name);
    // Flags, type and length of the key; which one it is in this transaction, which nobody asks.
    for (kind, number) in [(3, flags), (4, table.kind), (5, 4 + table.length), (10, flags + 1)] {
        word(out, kind, number);
    }
}

fn put_chain(out: &mut Vec<u8>, chain: &Chain) {
    text(out, 1, TABLE);
    text(out, 3, chain.name);
    nest(out, 4, |out| {
        word(out, 1, chain.hook);
        word(out, 2, 0);
    });
    text(out, 7, "filter");
}

/// `meta oif . arp saddr ip @vip meta oif . arp saddr ip != @open drop`, and its like.
fn put_rule(out: &mut Vec<u8>, table: &Table, chain: &Chain) {
    text(out, 1, TABLE);
    text(out, 2, chain.name);
    nest(out, 4, |out| {
        expression(out, "meta", |out| {
            word(out, 1, REGISTER);
            word(out, 2, chain.interface);
        });
        expression(out, "payload", |out| {
            // Into the register, from the network header, where, how many bytes.
            for (kind, number) in (1..).zip([REGISTER + 1, 1, chain.offset, table.length]) {
                word(out, kind, number);
            }
        });
        for (set, inverted) in [(VIP, 0), (OPEN, 1)] {
            expression(out, "lookup", |out| {
                text(out, 1, set);
                word(out, 2, REGISTER);
                word(out, 5, inverted);
            });
        }
        expression(out, "immediate", |out| {
            // The verdict: NF_DROP.
            word(out, 1, 0);
            nest(out, 2, |out| nest(out, 2, |out| word(out, 1, 0)));
        });
    });
}

fn expression(out: &mut Vec<u8>, name: &str, data: impl FnOnce(&mut Vec<u8>)) {
    nest(out, ELEMENT, |out| {
        text(out, EXPR_NAME, name);
        nest(out, EXPR_DATA, data);
    });
}

/// Elements of a set, each with its time-out in milliseconds; 0: none.
fn put_elements<'a>(
    out: &mut Vec<u8>,
    set: &str,
    passages: impl Iterator<Item = &'a Passage>,
    left: impl Fn(&Passage) -> u64,
) {
    text(out, 1, TABLE);
    text(out, 2, set);
    nest(out, 3, |out| {
        for passage in passages {
            nest(out, ELEMENT, |out| {
                nest(out, 1, |out| put_key(out, passage));
                let left = left(passage);
                if left > 0 {
                    attribute(out, 4, |out| out.extend(left.to_be_bytes()));
                }
            });
        }
    });
}

/// The interface as the kernel holds it, then the address.
fn put_key(out: &mut Vec<u8>, passage: &Passage) {
    attribute(out, 1, |out| {
        out.extend(passage.index.0.to_ne_bytes());
        match passage.ip {
            IpAddr::V4(ip) => out.extend(ip.octets()),
            IpAddr::V6(ip) => out.extend(ip.octets()),
        }
    });
}

fn word(out: &mut Vec<u8>, kind: u16, number: u32) {
    attribute(out, kind, |out| out.extend(number.to_be_bytes()));
}

fn text(out: &mut Vec<u8>, kind: u16, text: &str) {
    attribute(out, kind, |out| {
        out.extend(text.as_bytes());
        out.push(0);
    });
}

fn nest(out: &mut Vec<u8>, kind: u16, body: impl FnOnce(&mut Vec<u8>)) {
    attribute(out, libc::NLA_F_NESTED as u16 | kind, body);
}

/// struct nlattr and its payload, padded.
fn attribute(out: &mut Vec<u8>, kind: u16, body: impl FnOnce(&mut Vec<u8>)) {
    let start = out.len();
    out.extend([0; 2]);
    out.extend(kind.to_ne_bytes());
    body(out);
    let length = (out.len() - start) as u16;
    if let Some(head) = out.get_mut(start..).and_then(<[u8]>::first_chunk_mut) {
        *head = length.to_ne_bytes();
    }
    out.resize(out.len().next_multiple_of(4), 0);
}
