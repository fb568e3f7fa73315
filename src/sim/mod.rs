//! Several whole nodes on a virtual LAN, kernel and clock: the production loop body
//! ([`crate::node::turn`]) with everything around it made up, driven by a seed.
//!
//! The clock jumps from one thing that happens to the next. The same seed gives the same trace.

#![forbid(unsafe_code)]

mod clock;
mod etcd;
mod gateway;
mod kernel;
mod lan;
mod rng;
mod seen;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

pub use clock::{Clock, DRIFT_MAX_PPM};
pub use etcd::Etcd;
pub use gateway::Disk;
pub use kernel::Kernel;
pub use lan::Faults;
pub use rng::Rng;
pub use seen::{Heard, Said, Turn};

use crate::config::{Config, NodeName, Prefix};
use crate::node::kernel::{Change, Errno, Op, Port, Verb};
use crate::node::record::{self, Recording};
use crate::node::{Action, Actions, Event, Host, Inbox, Instant, Node, RouterId, Via, turn};
use crate::wire::ip::parse_ipv4;
use crate::wire::vrrp::{RxMeta, group};
use crate::wire::{Family, IfIndex, Mac};
use lan::Lan;

/// Time from a request to the kernel to its answer.
const KERNEL_NS: (u64, u64) = (100_000, 5_000_000);
/// Turns that a node may take without the clock moving: more, and it spins.
const TURNS_MAX: usize = 64;

/// Packets that a socket's buffer holds (an unread one of the default size, measured).
const PACKETS_MAX: usize = 256;
/// Packets read in one turn.
const READ_MAX: usize = 64;
/// Time from a change in the store to the daemons that follow it, and from asking to an answer.
const STORE_NS: (u64, u64) = (1_000_000, 50_000_000);
/// Time after which a daemon that lost the store finds it again.
const RECONNECT_NS: (u64, u64) = (10_000_000, 1_000_000_000);
/// Time after which a start goes on without the store.
const STORE_TIMEOUT: Duration = Duration::from_secs(2);

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
struct Machine {
    kernel: Kernel,
    index: IfIndex,
    /// The daemon's process; `None`: dead.
    process: Option<Process>,
    /// Stopped until then; what arrives waits.
    frozen_until: Option<Instant>,
    clock: Clock,
    /// What is wrong with it.
    trouble: Trouble,
    /// What it reads its configuration from, in place of a store: set by a scenario.
    name: Option<NodeName>,
    disk: Disk,
}

struct Process {
    node: Node,
    inbox: Inbox,
    actions: Actions,
    queue: VecDeque<Event<'static>>,
    packets: VecDeque<(Port, RxMeta, Vec<u8>)>,
    open: BTreeSet<Port>,
    config: Option<Arc<Config>>,
    gateway: Option<gateway::Gateway>,
    /// Notifications on their way, with the time at which they are read.
    notes: VecDeque<(Instant, Change)>,
    /// Sends that failed, told in the next turn.
    failed: Vec<(IfIndex, Errno, Option<RouterId>)>,
    /// Addresses whose addition the queue tells of.
    added: Vec<Prefix>,
}

enum Happening {
    Packet {
        to: usize,
        port: Port,
        meta: RxMeta,
        bytes: Vec<u8>,
    },
    Answer {
        to: usize,
        life: u64,
        event: Event<'static>,
        added: Vec<Prefix>,
    },
    /// The store's state reaches a daemon; after a connection, or while one holds.
    Store {
        to: usize,
        life: u64,
        is_first: bool,
    },
    /// A daemon has waited for the store for long enough.
    StoreTimeout {
        to: usize,
        life: u64,
    },
    Thaw {
        machine: usize,
    },
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
    lan: Lan,
    /// The datastore of the machines that follow one.
    pub etcd: Etcd,
    /// A machine whose daemon is recorded, and the record so far.
    record: Option<(usize, u64, Vec<u8>)>,
    /// What happened since the last look at the world.
    pub turns: Vec<Turn>,
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
            lan: Lan::default(),
            etcd: Etcd::default(),
            turns: Vec::new(),
            record: None,
            trace: 0xcbf2_9ce4_8422_2325,
            adverts: Vec::new(),
            announced: BTreeMap::new(),
            frames: 0,
        }
    }

    /// Adds a machine with one interface, `eth0`, and its own addresses, and starts a daemon.
    pub fn add(&mut self, own: &[Prefix], config: Arc<Config>) -> usize {
        let number = self.machine(own, Clock::default());
        self.start(number, config);
        number
    }

    /// Adds a machine whose daemon follows the store under a name.
    pub fn join(&mut self, own: &[Prefix], clock: Clock, name: NodeName) -> usize {
        let number = self.machine(own, clock);
        self.machines[number].name = Some(name);
        self.restart(number);
        number
    }

    fn machine(&mut self, own: &[Prefix], clock: Clock) -> usize {
        let number = self.machines.len();
        let mut kernel = Kernel::default();
        let last = u8::try_from(number).unwrap_or(u8::MAX);
        let index = kernel.add_link("eth0", Mac([2, 0, 0, 0, 0, last]));
        for prefix in own {
            kernel.add_own_address(index, *prefix);
        }
        self.machines.push(Machine {
            kernel,
            index,
            process: None,
            frozen_until: None,
            clock,
            trouble: Trouble::default(),
            name: None,
            disk: Disk::default(),
        });
        self.lives.push(0);
        self.adverts.push(0);
        number
    }

    /// Starts a daemon on a machine that has none.
    pub fn start(&mut self, machine: usize, config: Arc<Config>) {
        self.spawn(machine, None);
        self.configure(machine, config);
    }

    /// Starts a daemon that follows the store on a machine that has none.
    pub fn restart(&mut self, machine: usize) {
        let Some(name) = self.machines[machine].name.clone() else { return };
        let gateway = gateway::Gateway::new(name, &self.machines[machine].disk);
        self.spawn(machine, Some(gateway));
        let life = self.lives[machine];
        self.happen(self.now + STORE_TIMEOUT, Happening::StoreTimeout { to: machine, life });
        if self.etcd.is_up {
            let at = self.after(STORE_NS);
            self.happen(at, Happening::Store { to: machine, life, is_first: true });
        }
    }

    fn spawn(&mut self, number: usize, gateway: Option<gateway::Gateway>) {
        self.lives[number] += 1;
        let machine = &mut self.machines[number];
        // A daemon hears of changes from its start on; what was before is in its dump.
        machine.kernel.take_notifications();
        machine.process = Some(Process {
            node: Node::new(),
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
        });
    }

    /// Ends a daemon as kill -9 does: its addresses stay until their lifetime is over.
    pub fn kill(&mut self, machine: usize) -> Option<Arc<Config>> {
        self.machines[machine].frozen_until = None;
        self.machines[machine].process.take().and_then(|process| process.config)
    }

    /// Tells a daemon to stop.
    pub fn shutdown(&mut self, machine: usize) {
        self.tell(machine, Event::Shutdown);
    }

    /// Whether a machine has a daemon.
    #[must_use]
    pub fn is_alive(&self, machine: usize) -> bool {
        self.machines[machine].process.is_some()
    }

    /// Whether a machine's daemon stands still.
    #[must_use]
    pub fn is_frozen(&self, machine: usize) -> bool {
        self.machines[machine].frozen_until.is_some()
    }

    /// Gives a daemon another configuration.
    pub fn configure(&mut self, machine: usize, config: Arc<Config>) {
        if let Some(process) = &mut self.machines[machine].process {
            process.config = Some(Arc::clone(&config));
        }
        self.tell(machine, Event::Config(config));
    }

    /// What a daemon runs.
    #[must_use]
    pub fn config(&self, machine: usize) -> Option<&Arc<Config>> {
        self.machines[machine].process.as_ref().and_then(|process| process.config.as_ref())
    }

    /// What is wrong with a machine.
    pub fn trouble(&mut self, machine: usize) -> &mut Trouble {
        &mut self.machines[machine].trouble
    }

    /// The same, to look at.
    #[must_use]
    pub fn trouble_of(&self, machine: usize) -> Trouble {
        self.machines[machine].trouble
    }

    /// Whether the kernel told a daemon what it has not read yet.
    #[must_use]
    pub fn has_notes(&self, machine: usize) -> bool {
        let process = self.machines[machine].process.as_ref();
        process.is_some_and(|process| !process.notes.is_empty())
    }

    /// A machine's disk.
    pub fn disk(&mut self, machine: usize) -> &mut Disk {
        &mut self.machines[machine].disk
    }

    /// What is wrong with the LAN.
    pub const fn faults(&mut self) -> &mut Faults {
        &mut self.lan.faults
    }

    /// The store changed, or answers again, or its watches were cancelled: daemons hear of it
    /// while it answers. `is_first`: only after they connected again.
    pub fn store_moved(&mut self, is_first: bool) {
        if !self.etcd.is_up {
            return;
        }
        for to in 0..self.machines.len() {
            let at = self.after(if is_first { RECONNECT_NS } else { STORE_NS });
            let life = self.lives[to];
            self.happen(at, Happening::Store { to, life, is_first });
        }
    }

    /// What a daemon could not use when it started, and routers that it holds.
    #[must_use]
    pub fn gateway(&self, machine: usize) -> (usize, usize) {
        let process = self.machines[machine].process.as_ref();
        let gateway = process.and_then(|process| process.gateway.as_ref());
        gateway.map_or((0, 0), |gateway| (gateway.refused, gateway.sources.held.len()))
    }

    fn store_speaks(&mut self, to: usize, is_first: bool) {
        if !self.etcd.is_up {
            return;
        }
        let machine = &mut self.machines[to];
        let Some(process) = &mut machine.process else { return };
        let Some(gateway) = &mut process.gateway else { return };
        gateway.is_first |= is_first;
        if let Some(config) = gateway.take(&self.etcd, &mut machine.disk) {
            self.configure(to, config);
        }
    }

    fn store_is_late(&mut self, to: usize) {
        let Some(process) = &mut self.machines[to].process else { return };
        let Some(gateway) = &mut process.gateway else { return };
        if gateway.is_waiting {
            let config = gateway.start_without();
            self.configure(to, config);
        }
    }

    fn tell(&mut self, machine: usize, event: Event<'static>) {
        if let Some(process) = &mut self.machines[machine].process {
            process.queue.push_back(event);
        }
    }

    /// Stops a machine's daemon for a while, as SIGSTOP does.
    pub fn freeze(&mut self, machine: usize, time: Duration) {
        let until = self.now + time;
        let until = self.machines[machine].frozen_until.map_or(until, |before| before.max(until));
        self.machines[machine].frozen_until = Some(until);
        self.happen(until, Happening::Thaw { machine });
    }

    /// Lets nothing pass from one machine to another.
    pub fn cut(&mut self, from: usize, to: usize) {
        self.lan.cut.insert((from, to));
    }

    /// Lets everything pass from one machine to another again.
    pub fn join_up(&mut self, from: usize, to: usize) {
        self.lan.cut.remove(&(from, to));
    }

    /// Lets everything pass again.
    pub fn heal(&mut self) {
        self.lan = Lan::default();
    }

    /// A machine's kernel and its interface.
    pub fn kernel(&mut self, machine: usize) -> (&mut Kernel, IfIndex) {
        let machine = &mut self.machines[machine];
        (&mut machine.kernel, machine.index)
    }

    /// The same, to look at.
    #[must_use]
    pub fn kernel_of(&self, machine: usize) -> (&Kernel, IfIndex) {
        (&self.machines[machine].kernel, self.machines[machine].index)
    }

    /// How many machines there are.
    #[must_use]
    pub fn machines(&self) -> usize {
        self.machines.len()
    }

    /// How many daemons a machine has had.
    #[must_use]
    pub fn life(&self, machine: usize) -> u64 {
        self.lives[machine]
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

    /// Records a machine's daemon, which has had no turn yet.
    pub fn record(&mut self, machine: usize) {
        self.record = Some((machine, self.lives[machine], record::MAGIC.to_vec()));
    }

    /// What was recorded.
    #[must_use]
    pub fn recorded(&self) -> &[u8] {
        self.record.as_ref().map_or(&[], |(.., record)| record)
    }

    /// Random numbers from the world's seed.
    pub const fn rng(&mut self) -> &mut Rng {
        &mut self.rng
    }

    /// Lets time pass; `check` sees the world after everything that happens.
    pub fn run(&mut self, time: Duration, mut check: impl FnMut(&Self)) {
        let ran = self.try_run(time, |world| {
            check(world);
            Ok::<(), std::convert::Infallible>(())
        });
        match ran {
            Ok(()) => {}
            Err(never) => match never {},
        }
    }

    /// The same, until `check` finds something.
    ///
    /// # Errors
    /// What it found.
    pub fn try_run<E>(
        &mut self,
        time: Duration,
        mut check: impl FnMut(&Self) -> Result<(), E>,
    ) -> Result<(), E> {
        let end = self.now + time;
        loop {
            self.turns.clear();
            self.settle();
            check(self)?;
            match self.next() {
                Some(next) if next <= end => self.advance(next),
                Some(_) | None => break,
            }
        }
        self.now = end;
        Ok(())
    }

    /// When something happens next.
    fn next(&self) -> Option<Instant> {
        let happening = self.happenings.keys().next().map(|(at, _)| *at);
        let machines = self.machines.iter().filter_map(|machine| {
            let process = machine.process.as_ref().filter(|_| machine.frozen_until.is_none());
            let deadline = process.and_then(|process| process.node.next_deadline());
            let deadline = deadline.map(|at| machine.clock.reaches(at));
            let note = process.and_then(|process| process.notes.front().map(|(at, _)| *at));
            [deadline, note, machine.kernel.next_expiry()].into_iter().flatten().min()
        });
        happening.into_iter().chain(machines).min().map(|at| at.max(self.now))
    }

    fn advance(&mut self, to: Instant) {
        self.now = to;
        for machine in &mut self.machines {
            machine.kernel.expire(to);
        }
        let now = to;
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
                        && process.packets.len() < PACKETS_MAX
                    {
                        process.packets.push_back((port, meta, bytes));
                    }
                }
                Happening::Store { to, life, .. } | Happening::StoreTimeout { to, life }
                    if self.lives[to] != life => {}
                // The whole process stands still.
                what @ (Happening::Store { to, .. } | Happening::StoreTimeout { to, .. })
                    if self.machines[to].frozen_until.is_some_and(|until| until > now) =>
                {
                    let until = self.machines[to].frozen_until.unwrap_or(now);
                    self.happen(until, what);
                }
                Happening::Store { to, is_first, .. } => self.store_speaks(to, is_first),
                Happening::StoreTimeout { to, .. } => self.store_is_late(to),
                Happening::Answer { to, life, event, added } => {
                    if self.lives[to] == life {
                        if let Some(process) = &mut self.machines[to].process {
                            process.added.extend(added);
                        }
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
            self.notify(number);
            while self.has_work(number) {
                turns += 1;
                assert!(turns <= TURNS_MAX, "machine {number} spins at {:?}", self.now);
                self.turn(number);
                self.notify(number);
            }
        }
    }

    fn has_work(&self, number: usize) -> bool {
        let machine = &self.machines[number];
        machine.frozen_until.is_none()
            && machine.process.as_ref().is_some_and(|process| {
                let own = machine.clock.shows(self.now);
                !process.queue.is_empty()
                    || !process.packets.is_empty()
                    || !process.failed.is_empty()
                    || process.notes.front().is_some_and(|(at, _)| *at <= self.now)
                    || process.node.next_deadline().is_some_and(|at| at <= own)
            })
    }

    /// What the kernel told since, on its way to the daemon, or lost.
    fn notify(&mut self, number: usize) {
        let Machine { kernel, process, trouble, .. } = &mut self.machines[number];
        if !kernel.has_notifications() {
            return;
        }
        let changes = kernel.take_notifications();
        let Some(process) = process else { return };
        let due = self.now + Duration::from_nanos(trouble.notes_ns);
        let due = process.notes.back().map_or(due, |(last, _)| due.max(*last));
        if trouble.is_deaf {
            // Whoever reads them next learns that there were more.
            if !matches!(process.notes.back(), Some((_, Change::Overrun))) {
                process.notes.push_back((due, Change::Overrun));
            }
        } else {
            process.notes.extend(changes.into_iter().map(|change| (due, change)));
        }
    }

    fn turn(&mut self, number: usize) {
        let machine = &mut self.machines[number];
        let now = machine.clock.shows(self.now);
        let Some(mut process) = machine.process.take() else { return };
        let Process { node, inbox, actions, queue, packets, notes, failed, added, .. } =
            &mut process;
        for (index, errno, advert_of) in failed.drain(..) {
            let adverts = advert_of.into_iter().collect();
            queue.push_back(Event::SendFailed { index, errno, count: 1, adverts });
        }
        let ready = notes.iter().take_while(|(at, _)| *at <= self.now).count();
        let mut seen = Turn::new(number, self.lives[number], self.now);
        seen.added = std::mem::take(added);
        let notes = notes.drain(..ready).map(|(_, change)| change).collect();
        let at = (number, self.lives[number]);
        let mut host = SimHost { now, notes, queue, packets, seen: &mut seen };
        match &mut self.record {
            Some((machine, life, record)) if (*machine, *life) == at => {
                let mut recording = Recording::new(&mut host);
                turn(node, &mut recording, inbox, actions);
                record.extend(recording.frame());
            }
            Some(_) | None => turn(node, &mut host, inbox, actions),
        }
        seen.notices.extend(actions.notices.iter().cloned());
        let stopped = process.node.is_stopped();
        self.carry_out(number, &mut process, &mut seen);
        seen.is_due = process.node.next_deadline().is_some_and(|at| at <= now);
        self.turns.push(seen);
        if !stopped {
            self.machines[number].process = Some(process);
        }
    }

    fn carry_out(&mut self, number: usize, process: &mut Process, seen: &mut Turn) {
        let actions = std::mem::take(&mut process.actions);
        let trouble = self.machines[number].trouble;
        for (via, advert_of, bytes) in actions.frames() {
            self.frames += 1;
            self.note(number, bytes);
            seen.sent(via, bytes);
            let index = match via {
                Via::Vrrp(port) => port.index,
                Via::Ethernet(index) => index,
            };
            if let Some(errno) = trouble.sends {
                process.failed.push((index, errno, advert_of));
                continue;
            }
            match via {
                Via::Vrrp(port) => self.transmit(number, port, bytes),
                Via::Ethernet(_) => self.note_announcement(number, bytes),
            }
        }
        for action in &actions.kernel {
            let mut added = Vec::new();
            let event = match action {
                Action::Dump => Event::Dumped(match trouble.dumps {
                    Some(errno) => Err(errno),
                    None => Ok(self.machines[number].kernel.snapshot()),
                }),
                Action::Apply(ops) => {
                    let results = ops.iter().map(|op| self.apply(number, op, &mut added));
                    Event::Applied(results.collect())
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
            let slow = Duration::from_nanos(self.rng.below(trouble.slow_ns + 1));
            let at = self.after(KERNEL_NS) + slow;
            // The kernel's thread answers in order.
            let last = self
                .happenings
                .iter()
                .filter(|(_, what)| matches!(what, Happening::Answer { to, .. } if *to == number))
                .map(|((at, _), _)| *at)
                .max();
            let at = last.map_or(at, |last| at.max(last));
            let life = self.lives[number];
            self.happen(at, Happening::Answer { to: number, life, event, added });
        }
        process.actions = actions;
    }

    fn apply(&mut self, number: usize, op: &Op, added: &mut Vec<Prefix>) -> Result<(), Errno> {
        let Machine { kernel, trouble, .. } = &mut self.machines[number];
        match (trouble.operations, op.verb) {
            // Where there is no such interface there is no address to remove, either.
            (Some(Errno(19)), Verb::Remove) | (None, _) => {}
            (Some(errno), _) => return Err(errno),
        }
        let was_there = kernel.address(op.index, op.prefix).is_some();
        kernel.apply(self.now, op)?;
        if matches!(op.verb, Verb::Put { .. }) && !was_there {
            added.push(op.prefix);
        }
        Ok(())
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
                // Without one the kernel sends nothing.
                let Some(src) = machine.kernel.first(port.index, Family::V6) else { return };
                (RxMeta { src, dst: group(Family::V6), ttl: 255 }, &bytes[40..])
            }
        };
        for to in 0..self.machines.len() {
            if to == from {
                continue;
            }
            let Self { lan, rng, .. } = self;
            for (delay, bytes) in lan.pass(rng, (from, to), payload) {
                let port = Port { index: self.machines[to].index, family: port.family };
                self.happen(self.now + delay, Happening::Packet { to, port, meta, bytes });
            }
        }
    }

    fn note_announcement(&mut self, from: usize, frame: &[u8]) {
        let ip = seen::announced(frame);
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
    notes: Vec<Change>,
    queue: &'a mut VecDeque<Event<'static>>,
    packets: &'a mut VecDeque<(Port, RxMeta, Vec<u8>)>,
    seen: &'a mut Turn,
}

impl Host for SimHost<'_> {
    fn drain(&mut self, inbox: &mut Inbox) -> bool {
        for change in self.notes.drain(..) {
            inbox.event(Event::Kernel(change));
        }
        for event in self.queue.drain(..) {
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
