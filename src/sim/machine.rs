//! One machine of the world: its kernel, its clock, its disk, and the daemon's process.

use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;

use super::gateway::{Gateway, Start};
use super::{Clock, Disk, Kernel, Turn};
use crate::config::{Config, Prefix};
use crate::node::kernel::{Change, Errno, Port};
use crate::node::{Actions, Event, Host, Inbox, Instant, Node, RouterId};
use crate::wire::IfIndex;
use crate::wire::vrrp::RxMeta;

/// Packets read in one turn.
const READ_MAX: usize = 64;

/// What is wrong with one machine.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Trouble {
    /// Every operation on an address fails with it.
    pub operations: Option<Errno>,
    /// Most that the kernel takes longer for an answer, in nanoseconds.
    pub slow_ns: u64,
    /// Every dump fails with it.
    pub dumps: Option<Errno>,
    /// Everything that is sent fails with it.
    pub sends: Option<Errno>,
    /// Notifications find their buffer full; read again, they say so.
    pub is_deaf: bool,
    /// Time by which notifications come late, in nanoseconds.
    pub notes_ns: u64,
}

/// One machine.
pub(super) struct Machine {
    pub(super) kernel: Kernel,
    pub(super) index: IfIndex,
    /// The daemon's process; `None`: dead.
    pub(super) process: Option<Process>,
    /// Stopped until then; what arrives waits.
    pub(super) frozen_until: Option<Instant>,
    pub(super) clock: Clock,
    /// What is wrong with it.
    pub(super) trouble: Trouble,
    /// With what a daemon that follows the store starts; `None`: a scenario configures it.
    pub(super) start: Option<Start>,
    pub(super) disk: Disk,
}

impl Machine {
    /// Without a daemon.
    pub(super) fn new(kernel: Kernel, index: IfIndex, clock: Clock) -> Self {
        Self {
            kernel,
            index,
            process: None,
            frozen_until: None,
            clock,
            trouble: Trouble::default(),
            start: None,
            disk: Disk::default(),
        }
    }
}

/// A daemon.
pub(super) struct Process {
    pub(super) node: Node,
    pub(super) inbox: Inbox,
    pub(super) actions: Actions,
    pub(super) queue: VecDeque<Event<'static>>,
    pub(super) packets: VecDeque<(Port, RxMeta, Vec<u8>)>,
    pub(super) open: BTreeSet<Port>,
    pub(super) config: Option<Arc<Config>>,
    pub(super) gateway: Option<Gateway>,
    /// Notifications on their way, with the time at which they are read.
    pub(super) notes: VecDeque<(Instant, Change)>,
    /// Sends that failed, told in the next turn.
    pub(super) failed: Vec<(IfIndex, Errno, Option<RouterId>)>,
    /// Addresses whose addition the queue tells of.
    pub(super) added: Vec<(Prefix, Instant)>,
}

impl Process {
    /// One that has had no turn yet.
    pub(super) fn new(gateway: Option<Gateway>) -> Self {
        let mut node = Node::new();
        // What it is told goes nowhere here; what it remembers is held against its bounds.
        node.fence();
        Self {
            node,
            inbox: Inbox::default(),
            actions: Actions::default(),
            queue: VecDeque::new(),
            packets: VecDeque::new(),
            open: BTreeSet::new(),
            config: None,
            gateway,
            notes: VecDeque::new(),
            failed: Vec::new(),
            added: Vec::new(),
        }
    }
}

/// What one turn of it is given.
pub(super) struct SimHost<'a> {
    pub(super) now: Instant,
    pub(super) notes: Vec<Change>,
    pub(super) queue: &'a mut VecDeque<Event<'static>>,
    pub(super) packets: &'a mut VecDeque<(Port, RxMeta, Vec<u8>)>,
    pub(super) seen: &'a mut Turn,
}

impl Host for SimHost<'_> {
    fn drain(&mut self, inbox: &mut Inbox) -> bool {
        for event in self.notes.drain(..).map(Event::Kernel).chain(self.queue.drain(..)) {
            self.seen.heard_event(&event);
            inbox.event(event);
        }
        let ready = self.packets.len().min(READ_MAX);
        for (port, meta, bytes) in self.packets.drain(..ready) {
            self.seen.heard(port, &meta, &bytes);
            inbox.packet(port, meta, &bytes);
        }
        self.seen.heard_all = self.packets.is_empty();
        self.seen.heard_all
    }

    fn now(&mut self) -> Instant {
        self.now
    }

    fn flush(&mut self, _node: &Node, _actions: &Actions) {}
}
