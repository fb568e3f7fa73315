//! The one door in and the one door out: everything that happens, and everything to do.

use std::borrow::Cow;
use std::net::IpAddr;
use std::ops::Range;
use std::sync::Arc;

use super::RouterId;
use super::kernel::{Change, Errno, Op, Passage, Port, Snapshot};
use super::notice::Notice;
use crate::config::{Config, Prefix};
use crate::wire::vrrp::{RxMeta, Vrid};
use crate::wire::{IfIndex, Mac};

/// Something that happened.
#[derive(Clone, Debug)]
pub enum Event<'a> {
    /// Time passed. Comes last in a turn. `heard_all` is false if packets may still be waiting
    /// unread: then nobody takes over this turn.
    Timeout {
        /// Whether every socket was read empty.
        heard_all: bool,
    },
    /// A VRRP packet came in.
    Packet {
        /// Through these sockets.
        port: Port,
        /// Addresses and TTL.
        meta: RxMeta,
        /// The VRRP message, without IP header and Ethernet padding.
        bytes: &'a [u8],
    },
    /// Something came in that is no IP packet that could carry one.
    Malformed {
        /// Through these sockets.
        port: Port,
    },
    /// The kernel reported a change.
    Kernel(Change),
    /// Answer to [`Action::Dump`].
    Dumped(Result<Snapshot, Errno>),
    /// Answer to [`Action::Apply`]: a result for each of its operations, in order.
    Applied(Vec<Result<(), Errno>>),
    /// Answer to [`Action::Open`].
    Opened {
        /// Which sockets.
        port: Port,
        /// Whether they are there now.
        result: Result<(), Errno>,
    },
    /// The kernel had lost the membership of these sockets, as [`Action::Join`] showed: they are
    /// members again.
    Rejoined {
        /// Which sockets.
        port: Port,
    },
    /// Packets could not be sent.
    SendFailed {
        /// Through this interface.
        index: IfIndex,
        /// Why.
        errno: Errno,
        /// How many.
        count: u32,
        /// The routers whose adverts were among them, as [`Actions::frames`] named them.
        adverts: Vec<RouterId>,
    },
    /// Someone says, by ARP or a neighbour advertisement, that an address is his.
    Claimed {
        /// Heard on this interface.
        index: IfIndex,
        /// One of those that [`Action::Watch`] named, or one that ends alike.
        ip: IpAddr,
        /// Where it is said to be.
        mac: Mac,
    },
    /// A VRRP packet over IPv4 as it came off the wire: nothing of it was checked, and others than
    /// those that the IP layer keeps back are among them.
    Overheard {
        /// On this interface.
        index: IfIndex,
        /// From this MAC.
        mac: Mac,
        /// With its IP header.
        bytes: Vec<u8>,
    },
    /// A configuration to run from now on.
    Config(Arc<Config>),
    /// Give up every router and take every address away.
    Shutdown,
}

/// What an active router would say, and have taken away, if its process died now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Farewell<'a> {
    /// Through which sockets it speaks.
    pub port: Port,
    /// Its adverts with priority 0, whole IP packets: one for each checksum form in use.
    pub packets: Cow<'a, [Vec<u8>]>,
    /// Its addresses, all on the port's interface, but for those that another put there; each with
    /// the prefix length of its on-link route.
    pub addresses: Vec<Prefix>,
    /// The routing table of those routes.
    pub table: u32,
}

/// How a frame of [`Actions`] is to be sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Via {
    /// A whole IP packet to the VRRP group, through the raw socket of a port.
    Vrrp(Port),
    /// A whole Ethernet frame, through the packet socket of an interface.
    Ethernet(IfIndex),
}

/// Something for the kernel's thread, in order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Read all links and addresses; answered by [`Event::Dumped`].
    Dump,
    /// Do these in order; answered by [`Event::Applied`].
    Apply(Vec<Op>),
    /// Open sockets; answered by [`Event::Opened`].
    Open(Port),
    /// Close sockets, if open.
    Close(Port),
    /// Make sure that open sockets are members of the group; answered by [`Event::Opened`] if they
    /// cannot be.
    Join {
        /// Which sockets.
        port: Port,
        /// Leave and join whatever the kernel says: what the network knows of it counts, too. Else
        /// only if the kernel has lost it.
        anew: bool,
    },
    /// Listen through a port for others who claim these addresses, and for packets of these virtual
    /// routers that the IP layer keeps back, and for no others.
    Watch {
        /// Which sockets.
        port: Port,
        /// Those of active routers.
        addresses: Vec<IpAddr>,
        /// Answered by [`Event::Overheard`].
        vrids: Vec<Vrid>,
    },
    /// Change the fence, by a thread of its own; not answered. Each replaces what was said of the
    /// same way before.
    Fence(Vec<Passage>),
}

/// Everything to do after a turn; reused from turn to turn.
#[derive(Debug, Default)]
pub struct Actions {
    bytes: Vec<u8>,
    frames: Vec<(Via, Option<RouterId>, Range<usize>)>,
    /// For the kernel's thread, in order.
    pub kernel: Vec<Action>,
    /// For the log.
    pub notices: Vec<Notice>,
    /// Changes of a router that flaps, of which the log has a count: for who looks at each.
    pub untold: Vec<Notice>,
    /// A router changed its state, or an active one its adverts or addresses: what others are told
    /// of this node is out of date.
    pub states_changed: bool,
    /// A link, or an address that is not ours, changed: what this box is may be another.
    pub box_changed: bool,
}

impl Actions {
    /// Frames to send, in order: how, the router if it is its advert, and the bytes.
    pub fn frames(&self) -> impl Iterator<Item = (Via, Option<RouterId>, &[u8])> + Clone {
        let bytes = |at: &Range<usize>| self.bytes.get(at.clone()).unwrap_or_default();
        self.frames.iter().map(move |(via, advert_of, at)| (*via, *advert_of, bytes(at)))
    }

    /// Number of frames to send.
    #[must_use]
    pub const fn frame_count(&self) -> usize {
        self.frames.len()
    }

    /// Forgets everything; keeps the memory.
    pub fn clear(&mut self) {
        self.bytes.clear();
        self.frames.clear();
        self.kernel.clear();
        self.notices.clear();
        self.untold.clear();
        self.states_changed = false;
        self.box_changed = false;
    }

    /// Appends a frame that `write` makes.
    pub(super) fn frame(
        &mut self,
        via: Via,
        advert_of: Option<RouterId>,
        write: impl FnOnce(&mut Vec<u8>),
    ) {
        let start = self.bytes.len();
        write(&mut self.bytes);
        self.frames.push((via, advert_of, start..self.bytes.len()));
    }
}

/// What came in during one turn, kept in one piece of memory until the clock was read.
#[derive(Debug, Default)]
pub struct Inbox {
    bytes: Vec<u8>,
    packets: Vec<(Port, RxMeta, Range<usize>)>,
    events: Vec<Event<'static>>,
}

impl Inbox {
    /// Adds a packet.
    pub fn packet(&mut self, port: Port, meta: RxMeta, bytes: &[u8]) {
        let start = self.bytes.len();
        self.bytes.extend_from_slice(bytes);
        self.packets.push((port, meta, start..self.bytes.len()));
    }

    /// Adds anything else.
    pub fn event(&mut self, event: Event<'static>) {
        self.events.push(event);
    }

    /// Everything but packets, for a record.
    pub(super) fn events(&self) -> &[Event<'static>] {
        &self.events
    }

    /// The packets, for a record.
    pub(super) fn packets(&self) -> impl ExactSizeIterator<Item = (Port, RxMeta, &[u8])> {
        self.packets
            .iter()
            .map(|(port, meta, at)| (*port, *meta, self.bytes.get(at.clone()).unwrap_or_default()))
    }

    /// Hands everything to `take` and forgets it: first what changed on the box, then packets, then
    /// who says that he has an address. A new active router advertises before it announces (RFC
    /// 9568 §6.4.2), and the two come in through different sockets.
    pub(super) fn drain(&mut self, mut take: impl FnMut(Event<'_>)) {
        let mut claims = Vec::new();
        for event in self.events.drain(..) {
            match event {
                Event::Claimed { .. } => claims.push(event),
                event => take(event),
            }
        }
        for (port, meta, at) in self.packets.drain(..) {
            let bytes = self.bytes.get(at).unwrap_or_default();
            take(Event::Packet { port, meta, bytes });
        }
        for claim in claims {
            take(claim);
        }
        self.bytes.clear();
    }
}
