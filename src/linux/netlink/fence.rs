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
/// A chain that nothing leads to: a table that has it is havip's, and another of the same name is an
/// operator's.
const MARK: &str = "made-by-havip";
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
    /// As nft names it.
    name: &'static str,
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
    name: "table arp havip",
    family: 3,
    length: 4,
    kind: 20 << 6 | 7,
    chains: &[Chain { name: "output", hook: 1, interface: OIF, offset: 14 }],
};
const IPV4: Table = Table {
    name: "table ip havip",
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
    name: "table ip6 havip",
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
const GETCHAIN: u16 = 4;
const DELCHAIN: u16 = 5;
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

    /// Whether the kernel may have tables at all: asking one without nfnetlink loads its modules.
    #[must_use]
    pub fn may_stand() -> bool {
        let protocol = libc::NETLINK_NETFILTER.to_string();
        let sockets = std::fs::read_to_string("/proc/thread-self/net/netlink");
        // Without /proc nothing is known. The kernel has a socket of its own for each protocol.
        sockets.map_or(true, |sockets| {
            sockets.lines().any(|line| line.split_whitespace().nth(1) == Some(&protocol))
        })
    }

    /// Builds it anew, with nothing behind it.
    ///
    /// # Errors
    /// EEXIST where a table of that name is not havip's; EPERM without CAP_NET_ADMIN; EOPNOTSUPP,
    /// ENOENT or EAFNOSUPPORT where the kernel lacks nf_tables or one of the three families;
    /// [`io::ErrorKind::WouldBlock`] without an answer.
    pub fn build(&mut self) -> io::Result<()> {
        self.remove()?;
        let built = TABLES
            .into_iter()
            .try_for_each(|table| self.build_table(table).map_err(|e| sys::in_step(table.name, e)));
        if built.is_err() {
            // The first failure is the one to tell.
            let _ = self.remove();
        }
        built
    }

    fn build_table(&mut self, table: &Table) -> io::Result<()> {
        self.begin();
        self.message_with(table, NEWTABLE, libc::NLM_F_CREATE | libc::NLM_F_EXCL);
        self.message(table, NEWCHAIN);
        text(&mut self.out, 3, MARK);
        for (name, flags) in [(VIP, 0), (OPEN, SET_TIMEOUT)] {
            self.message(table, NEWSET);
            put_set(&mut self.out, table, name, flags);
        }
        for chain in table.chains {
            self.message(table, NEWCHAIN);
            put_chain(&mut self.out, chain);
            self.message(table, NEWRULE);
            put_rule(&mut self.out, table, chain);
        }
        self.commit()
    }

    /// Removes it, and gives whether any of it was there. Does not allocate.
    ///
    /// # Errors
    /// As [`Self::build`].
    pub fn remove(&mut self) -> io::Result<bool> {
        let mut removed = false;
        for table in TABLES {
            if self.is_absent(table) {
                continue;
            }
            self.begin();
            // All or nothing: without the mark the table is another's, or not there.
            self.message(table, DELCHAIN);
            text(&mut self.out, 3, MARK);
            self.message(table, DELTABLE);
            match self.commit() {
                Ok(()) => removed = true,
                Err(error) if error.raw_os_error() == Some(libc::ENOENT) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(removed)
    }

    /// Whether it is known that there is no such table, or none of havip's. That is a question: a
    /// transaction that fails makes the kernel wait for about 10 ms, at each start of a daemon.
    fn is_absent(&mut self, table: &Table) -> bool {
        self.out.clear();
        self.last = 0;
        self.message_with(table, GETCHAIN, libc::NLM_F_ACK);
        text(&mut self.out, 3, MARK);
        let asked = self.ask(self.seq);
        asked.is_err_and(|error| error.raw_os_error() == Some(libc::ENOENT))
    }

    /// Opens and shuts ways, at `now`; each of `passages` is another one. What a way was before
    /// does not matter.
    ///
    /// # Errors
    /// ENOENT: someone has removed the table. Else as [`Self::build`].
    pub fn apply(&mut self, now: Instant, passages: &[Passage]) -> io::Result<()> {
        for chunk in passages.chunks(CHUNK) {
            self.begin();
            for table in TABLES {
                // An element cannot be given more time before Linux 6.12, nor may one be deleted
                // that is not there: so each is added, deleted, and added as it is to be.
                self.elements(table, NEWSETELEM, VIP, chunk, &|_| Some(0));
                self.elements(table, NEWSETELEM, OPEN, chunk, &|_| Some(0));
                self.elements(table, DELSETELEM, OPEN, chunk, &|_| Some(0));
                self.elements(table, NEWSETELEM, OPEN, chunk, &|gate| left(gate, now));
                let gone = |gate| (gate == Gate::Gone).then_some(0);
                self.elements(table, DELSETELEM, VIP, chunk, &gone);
            }
            self.commit()?;
        }
        Ok(())
    }

    /// A message about elements of a set: those of the table's family of which `time_out` gives one,
    /// in milliseconds; 0: none. No message without elements.
    fn elements(
        &mut self,
        table: &Table,
        kind: u16,
        set: &str,
        passages: &[Passage],
        time_out: &dyn Fn(Gate) -> Option<u64>,
    ) {
        let mut list = None;
        for passage in passages {
            if passage.ip.is_ipv4() != (table.length == 4) {
                continue;
            }
            let Some(time_out) = time_out(passage.gate) else { continue };
            if list.is_none() {
                self.message(table, kind);
                text(&mut self.out, 2, set);
                list = Some(nest(&mut self.out, 3));
            }
            put_element(&mut self.out, passage, time_out);
        }
        if let Some(list) = list {
            end(&mut self.out, list);
        }
    }

    /// Begins a transaction.
    fn begin(&mut self) {
        self.out.clear();
        self.last = 0;
        self.control(libc::NFNL_MSG_BATCH_BEGIN);
    }

    fn control(&mut self, kind: libc::c_int) {
        self.put(kind as u16, 0, 0, libc::NFNL_SUBSYS_NFTABLES as u16);
    }

    /// Begins a message about what is in a table: its name is the first attribute of each.
    fn message(&mut self, table: &Table, kind: u16) {
        // The kernel reads each where it means something.
        self.message_with(table, kind, libc::NLM_F_CREATE | libc::NLM_F_APPEND);
    }

    fn message_with(&mut self, table: &Table, kind: u16, flags: libc::c_int) {
        let kind = (libc::NFNL_SUBSYS_NFTABLES as u16) << 8 | kind;
        self.put(kind, flags, table.family, 0);
        text(&mut self.out, 1, TABLE);
    }

    /// Ends the message before and begins another: struct nlmsghdr and struct nfgenmsg.
    fn put(&mut self, kind: u16, flags: libc::c_int, family: u8, id: u16) {
        self.end_message();
        self.seq = self.seq.wrapping_add(1);
        self.last = self.out.len();
        self.out.extend([0; 4]);
        self.out.extend(kind.to_ne_bytes());
        self.out.extend(((libc::NLM_F_REQUEST | flags) as u16).to_ne_bytes());
        self.out.extend(self.seq.to_ne_bytes());
        self.out.extend([0, 0, 0, 0, family, 0]);
        self.out.extend(id.to_be_bytes());
    }

    fn end_message(&mut self) {
        let length = (self.out.len() - self.last) as u32;
        if let Some(head) = self.out.get_mut(self.last..).and_then(<[u8]>::first_chunk_mut) {
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
        self.ask(last)
    }

    /// Sends what was put together and waits for the answer to the message `last`, or for the first
    /// refusal.
    fn ask(&mut self, last: u32) -> io::Result<()> {
        self.end_message();
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
fn left(gate: Gate, now: Instant) -> Option<u64> {
    match gate {
        Gate::OpenUntil(until) => {
            u64::try_from(until.since(now).as_millis()).ok().filter(|left| *left > 0)
        }
        Gate::Shut | Gate::Gone => None,
    }
}

fn put_set(out: &mut Vec<u8>, table: &Table, name: &str, flags: u32) {
    text(out, 2, name);
    // Flags, type and length of the key; which one it is in this transaction, which nobody asks.
    for (kind, number) in [(3, flags), (4, table.kind), (5, 4 + table.length), (10, flags + 1)] {
        word(out, kind, number);
    }
}

fn put_chain(out: &mut Vec<u8>, chain: &Chain) {
    text(out, 3, chain.name);
    let hook = nest(out, 4);
    word(out, 1, chain.hook);
    word(out, 2, 0);
    end(out, hook);
    text(out, 7, "filter");
}

/// `meta oif . arp saddr ip @vip meta oif . arp saddr ip != @open drop`, and its like.
fn put_rule(out: &mut Vec<u8>, table: &Table, chain: &Chain) {
    text(out, 2, chain.name);
    let list = nest(out, 4);
    expression(out, "meta", &[REGISTER, chain.interface]);
    // Into the next register, from the network header, where, how many bytes.
    expression(out, "payload", &[REGISTER + 1, 1, chain.offset, table.length]);
    for (set, inverted) in [(VIP, 0), (OPEN, 1)] {
        let lookup = begin_expression(out, "lookup");
        text(out, 1, set);
        word(out, 2, REGISTER);
        word(out, 5, inverted);
        end_expression(out, lookup);
    }
    // The verdict: NF_DROP.
    let immediate = begin_expression(out, "immediate");
    word(out, 1, 0);
    let data = nest(out, 2);
    let verdict = nest(out, 2);
    word(out, 1, 0);
    end(out, verdict);
    end(out, data);
    end_expression(out, immediate);
    end(out, list);
}

/// An expression whose attributes are numbers, from 1 on.
fn expression(out: &mut Vec<u8>, name: &str, numbers: &[u32]) {
    let expression = begin_expression(out, name);
    for (kind, number) in (1..).zip(numbers) {
        word(out, kind, *number);
    }
    end_expression(out, expression);
}

fn begin_expression(out: &mut Vec<u8>, name: &str) -> [usize; 2] {
    let element = nest(out, ELEMENT);
    text(out, EXPR_NAME, name);
    [element, nest(out, EXPR_DATA)]
}

fn end_expression(out: &mut Vec<u8>, [element, data]: [usize; 2]) {
    end(out, data);
    end(out, element);
}

fn put_element(out: &mut Vec<u8>, passage: &Passage, time_out: u64) {
    let element = nest(out, ELEMENT);
    let key = nest(out, 1);
    let value = attribute(out, 1);
    // The interface as the kernel holds it, then the address.
    out.extend(passage.index.0.to_ne_bytes());
    match passage.ip {
        IpAddr::V4(ip) => out.extend(ip.octets()),
        IpAddr::V6(ip) => out.extend(ip.octets()),
    }
    end(out, value);
    end(out, key);
    if time_out > 0 {
        let attribute = attribute(out, 4);
        out.extend(time_out.to_be_bytes());
        end(out, attribute);
    }
    end(out, element);
}

fn word(out: &mut Vec<u8>, kind: u16, number: u32) {
    let word = attribute(out, kind);
    out.extend(number.to_be_bytes());
    end(out, word);
}

fn text(out: &mut Vec<u8>, kind: u16, text: &str) {
    let start = attribute(out, kind);
    out.extend(text.as_bytes());
    out.push(0);
    end(out, start);
}

fn nest(out: &mut Vec<u8>, kind: u16) -> usize {
    attribute(out, libc::NLA_F_NESTED as u16 | kind)
}

/// Begins a struct nlattr; gives where.
fn attribute(out: &mut Vec<u8>, kind: u16) -> usize {
    let start = out.len();
    out.extend([0; 2]);
    out.extend(kind.to_ne_bytes());
    start
}

/// Ends the one that begins at `start`.
fn end(out: &mut Vec<u8>, start: usize) {
    let length = (out.len() - start) as u16;
    if let Some(head) = out.get_mut(start..).and_then(<[u8]>::first_chunk_mut) {
        *head = length.to_ne_bytes();
    }
    out.resize(out.len().next_multiple_of(4), 0);
}
