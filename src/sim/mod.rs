//! Several whole nodes on a virtual LAN, kernel and clock: the production loop body
//! ([`crate::node::turn`]) with everything around it made up, driven by a seed.
//!
//! The clock jumps from one thing that happens to the next. The same seed gives the same trace.

#![forbid(unsafe_code)]

mod kernel;
mod rng;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

pub use kernel::Kernel;
pub use rng::Rng;

use crate::config::{Config, Prefix};
use crate::node::kernel::{Errno, Port};
use crate::node::{Action, Actions, Event, Host, Inbox, Instant, Node, Via, turn};
use crate::wire::ip::parse_ipv4;
use crate::wire::vrrp::{RxMeta, group};
use crate::wire::{Family, IfIndex, Mac};

/// Time from the wire of one node to the socket of another.
const LATENCY_NS: (u64, u64) = (20_000, 200_000);
/// Time from a request to the kernel to its answer.
const KERNEL_NS: (u64, u64) = (100_000, 5_000_000);
/// Turns that a node may take without the clock moving: more, and it spins.
const TURNS_MAX: usize = 64;

/// What can be wrong with the LAN.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Faults {
    /// Packets lost, in thousandths.
    pub loss: u64,
    /// Packets that arrive twice, in thousandths.
    pub duplicate: u64,
    /// Packets with one bit flipped, in thousandths.
    pub corrupt: u64,
    /// Largest extra delay of a packet in nanoseconds: more than the pace of packets reorders.
    pub jitter_ns: u64,
}

/// One machine.
struct Machine {
    kernel: Kernel,
    index: IfIndex,
    /// The daemon's process; `None`: dead.
    process: Option<Process>,
    /// Stopped until then; what arrives waits.
    frozen_until: Option<Instant>,
}

struct Process {
    node: Node,
    inbox: Inbox,
    actions: Actions,
    queue: VecDeque<Event<'static>>,
    packets: VecDeque<(Port, RxMeta, Vec<u8>)>,
    open: BTreeSet<Port>,
    config: Arc<Config>,
}

enum Happening {
    Packet { to: usize, port: Port, meta: RxMeta, bytes: Vec<u8> },
    Answer { to: usize, life: u64, event: Event<'static> },
    Thaw { machine: usize },
}

/// Everything: machines, wires, time.
pub struct World {
    now: Instant,
    rng: Rng,
    machines: Vec<Machine>,
    /// Number of each machine's process: answers to a dead one get lost.
    lives: Vec<u64>,
    happenings: BTreeMap<(Instant, u64), Happening>,
    sequence: u64,
    /// Pairs (from, to) between which nothing passes.
    cut: BTreeSet<(usize, usize)>,
    /// What is wrong with the LAN.
    pub faults: Faults,
    trace: u64,
    /// Adverts sent by each machine.
    pub adverts: Vec<u64>,
    /// When each machine last announced an address.
    announced: BTreeMap<(usize, IpAddr), Instant>,
    /// Frames that went out.
    pub frames: u64,
}

impl World {
    /// An empty world at time zero.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self {
            now: Instant::ZERO,
            rng: Rng::new(seed),
            machines: Vec::new(),
            lives: Vec::new(),
            happenings: BTreeMap::new(),
            sequence: 0,
            cut: BTreeSet::new(),
            faults: Faults::default(),
            trace: 0xcbf2_9ce4_8422_2325,
            adverts: Vec::new(),
            announced: BTreeMap::new(),
            frames: 0,
        }
    }

    /// Adds a machine with one interface, `eth0`, and its own addresses, and starts a daemon.
    pub fn add(&mut self, own: &[Prefix], config: Arc<Config>) -> usize {
        let number = self.machines.len();
        let mut kernel = Kernel::default();
        let last = u8::try_from(number).unwrap_or(u8::MAX);
        let index = kernel.add_link("eth0", Mac([2, 0, 0, 0, 0, last]));
        for prefix in own {
            kernel.add_own_address(index, *prefix);
        }
        let machine = Machine { kernel, index, process: None, frozen_until: None };
        self.machines.push(machine);
        self.lives.push(0);
        self.adverts.push(0);
        self.start(number, config);
        number
    }

    /// Starts a daemon on a machine that has none.
    pub fn start(&mut self, machine: usize, config: Arc<Config>) {
        self.lives[machine] += 1;
        let mut process = Process {
            node: Node::new(),
            inbox: Inbox::default(),
            actions: Actions::default(),
            queue: VecDeque::new(),
            packets: VecDeque::new(),
            open: BTreeSet::new(),
            config: Arc::clone(&config),
        };
        process.queue.push_back(Event::Config(config));
        // A daemon hears of changes from its start on; what was before is in its dump.
        self.machines[machine].kernel.take_notifications();
        self.machines[machine].process = Some(process);
    }

    /// Ends a daemon as kill -9 does: its addresses stay until their lifetime is over.
    pub fn kill(&mut self, machine: usize) -> Option<Arc<Config>> {
        self.machines[machine].frozen_until = None;
        self.machines[machine].process.take().map(|process| process.config)
    }

    /// Tells a daemon to stop.
    pub fn shutdown(&mut self, machine: usize) {
        self.tell(machine, Event::Shutdown);
    }

    /// Gives a daemon another configuration.
    pub fn configure(&mut self, machine: usize, config: Arc<Config>) {
        if let Some(process) = &mut self.machines[machine].process {
            process.config = Arc::clone(&config);
        }
        self.tell(machine, Event::Config(config));
    }

    fn tell(&mut self, machine: usize, event: Event<'static>) {
        if let Some(process) = &mut self.machines[machine].process {
            process.queue.push_back(event);
        }
    }

    /// Stops a machine's daemon for a while, as SIGSTOP does.
    pub fn freeze(&mut self, machine: usize, time: Duration) {
        let until = self.now + time;
        self.machines[machine].frozen_until = Some(until);
        self.happen(until, Happening::Thaw { machine });
    }

    /// Lets nothing pass from one machine to another.
    pub fn cut(&mut self, from: usize, to: usize) {
        self.cut.insert((from, to));
    }

    /// Lets everything pass again.
    pub fn heal(&mut self) {
        self.cut.clear();
        self.faults = Faults::default();
    }

    /// A machine's kernel and its interface.
    pub fn kernel(&mut self, machine: usize) -> (&mut Kernel, IfIndex) {
        let machine = &mut self.machines[machine];
        (&mut machine.kernel, machine.index)
    }

    /// The interface was deleted: a machine gets a new one of the same name with `own` addresses.
    pub fn recreate_link(&mut self, machine: usize, own: &[Prefix]) {
        let last = u8::try_from(machine).unwrap_or(u8::MAX);
        let kernel = &mut self.machines[machine].kernel;
        let index = kernel.add_link("eth0", Mac([2, 0, 0, 0, 1, last]));
        for prefix in own {
            kernel.add_own_address(index, *prefix);
        }
        self.machines[machine].index = index;
    }

    /// A machine's node, while its daemon lives.
    #[must_use]
    pub fn node(&self, machine: usize) -> Option<&Node> {
        self.machines[machine].process.as_ref().map(|process| &process.node)
    }

    /// Machines on which the router of this name is active.
    #[must_use]
    pub fn active(&self, router: &str) -> Vec<usize> {
        (0..self.machines.len())
            .filter(|machine| {
                self.node(*machine).is_some_and(|node| {
                    node.states().any(|state| state.name.as_str() == router && state.active)
                })
            })
            .collect()
    }

    /// Machines whose kernel answers for an address.
    #[must_use]
    pub fn holders(&self, ip: &IpAddr) -> Vec<usize> {
        (0..self.machines.len()).filter(|machine| self.machines[*machine].kernel.has(ip)).collect()
    }

    /// When a machine last announced an address.
    #[must_use]
    pub fn announced(&self, machine: usize, ip: IpAddr) -> Option<Instant> {
        self.announced.get(&(machine, ip)).copied()
    }

    /// The time.
    #[must_use]
    pub const fn now(&self) -> Instant {
        self.now
    }

    /// A number that stands for everything that was sent so far, and when.
    #[must_use]
    pub const fn trace(&self) -> u64 {
        self.trace
    }

    /// Random numbers from the world's seed.
    pub const fn rng(&mut self) -> &mut Rng {
        &mut self.rng
    }

    /// Lets time pass; `check` sees the world after everything that happens.
    pub fn run(&mut self, time: Duration, mut check: impl FnMut(&Self)) {
        let end = self.now + time;
        loop {
            self.settle();
            check(self);
            match self.next() {
                Some(next) if next <= end => self.advance(next),
                Some(_) | None => break,
            }
        }
        self.now = end;
    }

    /// When something happens next.
    fn next(&self) -> Option<Instant> {
        let happening = self.happenings.keys().next().map(|(at, _)| *at);
        let machines = self.machines.iter().filter_map(|machine| {
            let deadline = machine
                .process
                .as_ref()
                .filter(|_| machine.frozen_until.is_none())
                .and_then(|process| process.node.next_deadline());
            [deadline, machine.kernel.next_expiry()].into_iter().flatten().min()
        });
        happening.into_iter().chain(machines).min().map(|at| at.max(self.now))
    }

    fn advance(&mut self, to: Instant) {
        self.now = to;
        for machine in &mut self.machines {
            machine.kernel.expire(to);
        }
        while let Some(entry) = self.happenings.first_entry() {
            if entry.key().0 > to {
                break;
            }
            match entry.remove() {
                Happening::Packet { to, port, meta, bytes } => {
                    let machine = &mut self.machines[to];
                    if machine.kernel.is_running(port.index)
                        && let Some(process) = &mut machine.process
                        && process.open.contains(&port)
                    {
                        process.packets.push_back((port, meta, bytes));
                    }
                }
                Happening::Answer { to, life, event } => {
                    if self.lives[to] == life {
                        if let (Event::Opened { port, result: Ok(()) }, Some(process)) =
                            (&event, &mut self.machines[to].process)
                        {
                            process.open.insert(*port);
                        }
                        self.tell(to, event);
                    }
                }
                Happening::Thaw { machine } => {
                    if self.machines[machine].frozen_until.is_some_and(|until| until <= to) {
                        self.machines[machine].frozen_until = None;
                    }
                }
            }
        }
    }

    /// Lets every daemon that has something to do take its turns.
    fn settle(&mut self) {
        for number in 0..self.machines.len() {
            let mut turns = 0;
            while self.has_work(number) {
                turns += 1;
                assert!(turns <= TURNS_MAX, "machine {number} spins at {:?}", self.now);
                self.turn(number);
            }
        }
    }

    fn has_work(&self, number: usize) -> bool {
        let machine = &self.machines[number];
        machine.frozen_until.is_none()
            && machine.process.as_ref().is_some_and(|process| {
                !process.queue.is_empty()
                    || !process.packets.is_empty()
                    || machine.kernel.has_notifications()
                    || process.node.next_deadline().is_some_and(|at| at <= self.now)
            })
    }

    fn turn(&mut self, number: usize) {
        let now = self.now;
        let machine = &mut self.machines[number];
        let Some(mut process) = machine.process.take() else { return };
        let Process { node, inbox, actions, queue, packets, .. } = &mut process;
        let mut host =
            SimHost { now, notifications: machine.kernel.take_notifications(), queue, packets };
        turn(node, &mut host, inbox, actions);
        let stopped = process.node.is_stopped();
        self.carry_out(number, &mut process);
        if !stopped {
            self.machines[number].process = Some(process);
        }
    }

    fn carry_out(&mut self, number: usize, process: &mut Process) {
        let actions = std::mem::take(&mut process.actions);
        for (via, _, bytes) in actions.frames() {
            self.frames += 1;
            self.note(number, bytes);
            match via {
                Via::Vrrp(port) => self.transmit(number, port, bytes),
                Via::Ethernet(_) => self.note_announcement(number, bytes),
            }
        }
        for action in &actions.kernel {
            let event = match action {
                Action::Dump => Event::Dumped(Ok(self.machines[number].kernel.snapshot())),
                Action::Apply(ops) => {
                    let now = self.now;
                    let kernel = &mut self.machines[number].kernel;
                    Event::Applied(ops.iter().map(|op| kernel.apply(now, op)).collect())
                }
                Action::Open(port) => {
                    let there = self.machines[number].kernel.is_running(port.index);
                    let result = if there { Ok(()) } else { Err(Errno(19)) };
                    Event::Opened { port: *port, result }
                }
                // Nobody else claims an address here.
                Action::Watch { .. } => continue,
                Action::Close(port) => {
                    process.open.remove(port);
                    continue;
                }
            };
            let at = self.after(KERNEL_NS);
            // The kernel's thread answers in order.
            let last = self
                .happenings
                .iter()
                .filter(|(_, what)| matches!(what, Happening::Answer { to, .. } if *to == number))
                .map(|((at, _), _)| *at)
                .max();
            let at = last.map_or(at, |last| at.max(last));
            let life = self.lives[number];
            self.happen(at, Happening::Answer { to: number, life, event });
        }
        process.actions = actions;
    }

    fn transmit(&mut self, from: usize, port: Port, bytes: &[u8]) {
        self.adverts[from] += 1;
        let machine = &self.machines[from];
        if !machine.kernel.is_running(port.index) {
            return;
        }
        let (meta, payload) = match port.family {
            Family::V4 => match parse_ipv4(bytes) {
                Ok((meta, payload)) => (meta, payload),
                Err(reason) => panic!("machine {from} sent a packet that is none: {reason:?}"),
            },
            Family::V6 => {
                let src = machine.kernel.first(port.index, Family::V6).expect("has a source");
                (RxMeta { src, dst: group(Family::V6), ttl: 255 }, &bytes[40..])
            }
        };
        for to in 0..self.machines.len() {
            if to == from || self.cut.contains(&(from, to)) || self.rng.chance(self.faults.loss) {
                continue;
            }
            let copies = if self.rng.chance(self.faults.duplicate) { 2 } else { 1 };
            for _ in 0..copies {
                let mut bytes = payload.to_vec();
                if self.rng.chance(self.faults.corrupt) && !bytes.is_empty() {
                    let bits = u64::try_from(bytes.len() * 8).unwrap_or(1);
                    let bit = usize::try_from(self.rng.below(bits)).unwrap_or(0);
                    bytes[bit / 8] ^= 1 << (bit % 8);
                }
                let jitter = self.rng.below(self.faults.jitter_ns + 1);
                let at = self.after(LATENCY_NS) + Duration::from_nanos(jitter);
                let port = Port { index: self.machines[to].index, family: port.family };
                self.happen(at, Happening::Packet { to, port, meta, bytes });
            }
        }
    }

    fn note_announcement(&mut self, from: usize, frame: &[u8]) {
        // The target of a gratuitous ARP, or of an unsolicited NA.
        let ip = match frame.get(12..14) {
            Some([0x08, 0x06]) => {
                frame.get(38..42).and_then(|ip| <[u8; 4]>::try_from(ip).ok()).map(IpAddr::from)
            }
            _ => frame.get(62..78).and_then(|ip| <[u8; 16]>::try_from(ip).ok()).map(IpAddr::from),
        };
        let ip = ip.unwrap_or_else(|| panic!("machine {from} announced nothing: {frame:02x?}"));
        self.announced.insert((from, ip), self.now);
    }

    fn note(&mut self, from: usize, bytes: &[u8]) {
        let mut hash = self.trace;
        let head = [u64::try_from(from).unwrap_or(0), self.now.nanos()];
        for byte in head.iter().flat_map(|part| part.to_le_bytes()).chain(bytes.iter().copied()) {
            hash = (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
        }
        self.trace = hash;
    }

    fn after(&mut self, (least, most): (u64, u64)) -> Instant {
        self.now + Duration::from_nanos(least + self.rng.below(most - least))
    }

    fn happen(&mut self, at: Instant, what: Happening) {
        self.sequence += 1;
        self.happenings.insert((at, self.sequence), what);
    }
}

struct SimHost<'a> {
    now: Instant,
    notifications: Vec<crate::node::kernel::Change>,
    queue: &'a mut VecDeque<Event<'static>>,
    packets: &'a mut VecDeque<(Port, RxMeta, Vec<u8>)>,
}

impl Host for SimHost<'_> {
    fn drain(&mut self, inbox: &mut Inbox) -> bool {
        for change in self.notifications.drain(..) {
            inbox.event(Event::Kernel(change));
        }
        for event in self.queue.drain(..) {
            inbox.event(event);
        }
        for (port, meta, bytes) in self.packets.drain(..) {
            inbox.packet(port, meta, &bytes);
        }
        true
    }

    fn now(&mut self) -> Instant {
        self.now
    }

    fn flush(&mut self, _node: &Node, _actions: &Actions) {}
}
