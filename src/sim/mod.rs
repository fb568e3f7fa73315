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
mod machine;
mod rng;
mod seen;
mod time;
mod turn;

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

pub use clock::{Clock, DRIFT_MAX_PPM};
pub use etcd::Etcd;
pub use gateway::Disk;
pub use kernel::Kernel;
pub use lan::Faults;
pub use machine::Trouble;
pub use rng::Rng;
pub use seen::{Heard, Said, Turn};

use crate::config::{Config, NodeName, Prefix};
use crate::node::{Event, Instant, Node, record};
use crate::wire::{IfIndex, Mac};
use gateway::{Gateway, Start};
use lan::Lan;
use machine::{Machine, Process};
use time::Happening;

/// Time from a change in the store to the daemons that follow it, and from asking to an answer.
const STORE_NS: (u64, u64) = (1_000_000, 50_000_000);
/// Time after which a daemon that lost the store finds it again.
const RECONNECT_NS: (u64, u64) = (10_000_000, 1_000_000_000);
/// Time after which a start goes on without the store.
const STORE_TIMEOUT: Duration = Duration::from_secs(2);

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

    /// Adds a machine whose daemon follows the store under a name, with the text of its local file.
    pub fn join(&mut self, own: &[Prefix], clock: Clock, name: NodeName, local: &str) -> usize {
        let number = self.machine(own, clock);
        self.machines[number].start = Some(Start::new(name, local, own));
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
        self.machines.push(Machine::new(kernel, index, clock));
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
        let Some(start) = &self.machines[machine].start else { return };
        let gateway = Gateway::new(start, &self.machines[machine].disk);
        self.spawn(machine, Some(gateway));
        let life = self.lives[machine];
        self.happen(self.now + STORE_TIMEOUT, Happening::StoreTimeout { to: machine, life });
        if self.etcd.is_up {
            let at = self.after(STORE_NS);
            self.happen(at, Happening::Store { to: machine, life, is_first: true });
        }
    }

    fn spawn(&mut self, number: usize, gateway: Option<Gateway>) {
        self.lives[number] += 1;
        let machine = &mut self.machines[number];
        // A daemon hears of changes from its start on; what was before is in its dump.
        machine.kernel.take_notifications();
        machine.kernel.forget_routes();
        machine.process = Some(Process::new(gateway));
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

    /// Has a machine's daemon let go what it holds against the store.
    pub fn confirm(&mut self, number: usize) {
        let Machine { process, disk, .. } = &mut self.machines[number];
        let gateway = process.as_mut().and_then(|process| process.gateway.as_mut());
        if let Some(config) = gateway.and_then(|gateway| gateway.confirm(&self.etcd, disk)) {
            self.configure(number, config);
        }
    }

    /// What a daemon could not use when it started, and routers that it holds.
    #[must_use]
    pub fn gateway(&self, machine: usize) -> (usize, usize) {
        let process = self.machines[machine].process.as_ref();
        let gateway = process.and_then(|process| process.gateway.as_ref());
        gateway.map_or((0, 0), |gateway| (gateway.refused, gateway.sources.held.len()))
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

    /// What a machine's daemon has open and has asked for: sockets, and requests that the kernel
    /// did not answer yet.
    #[must_use]
    pub fn uses(&self, machine: usize) -> [(&'static str, usize); 2] {
        let process = self.machines[machine].process.as_ref();
        let life = self.lives[machine];
        let requests = self.happenings.values().filter(|what| {
            matches!(what, Happening::Answer { to, life: of, .. } if (*to, *of) == (machine, life))
        });
        [
            ("sockets", process.map_or(0, |process| process.open.len())),
            ("kernel requests", requests.count()),
        ]
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
        self.record =
            Some((machine, self.lives[machine], [record::MAGIC, &record::fenced()].concat()));
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
}
