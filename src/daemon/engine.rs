//! The thread that sends adverts: waits, drains every socket, reads the clock, lets the node
//! decide, sends. It does nothing that can block: no disk, no name, no store, no log, no request
//! to the kernel that takes its lock.

use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError};
use std::time::Duration;

use super::channel::{Bell, Ringer};
use super::fence::Ways;
use super::kernel::{self, Answer, Job, Sockets};
use super::record::Tape;
use super::rests::{REST, Rests};
use super::will::Will;
use crate::config::Config;
use crate::linux::netlink::Notifications;
use crate::linux::signals::{Signal, SignalFd};
use crate::linux::{Heard, MAX_SEND, Poll, RecvBatch, clock, errno};
use crate::node::kernel::{Change, Errno, Port};
use crate::node::notice::Notice;
use crate::node::record::Recording;
use crate::node::{
    Action, Actions, Event, Host, Inbox, Instant, Node, NodeStatus, RouterId, RouterState, Via,
    turn,
};
use crate::wire::Family;
use crate::wire::ip::parse_ipv4;

/// Reads of one socket in one turn, of up to 32 packets each: beyond that, others have their turn.
const READS_MAX: usize = 8;
/// Messages of others who claim addresses, read of one socket in one turn. More of them say no
/// more, and wait for the next.
const CLAIMS_MAX: usize = 16;
/// Changes read in one turn, and for how long they may take to read: what is due goes out before
/// the rest is looked at.
const CHANGES_MAX: usize = 256;
const CHANGES_TIME: Duration = Duration::from_millis(2);
/// Changes read without a look at the clock.
const CHANGES_STEP: usize = 16;
/// A turn whose draining took longer than this drains again: the process may have stood still in
/// between, and what arrived meanwhile must be heard before anything is said.
const DRAIN_STALE: Duration = Duration::from_millis(1);
/// How often it drains again.
const DRAINS_MAX: usize = 4;
/// After SIGTERM: longest time without a word from the kernel's thread while addresses are left, and
/// longest time in all. Who is stopped then leaves the rest to the guard.
const STOP_SILENCE: Duration = Duration::from_millis(400);
const STOP_MAX: Duration = Duration::from_secs(10);
/// Longest wait while jobs found no room.
const JOBS_RETRY: Duration = Duration::from_millis(10);

const NOTIFICATIONS: usize = 0;
const SIGNALS: usize = 1;
const BELL: usize = 2;
/// The keys of a port's sockets: this one and so on by twos for the adverts, the one after it for
/// what others claim.
const FIRST_SOCKET: usize = 3;

/// What others want of the engine.
#[derive(Debug)]
pub(super) enum Request {
    /// Run this from now on.
    Config(Arc<Config>),
    /// Show yourself.
    Status(SyncSender<NodeStatus>),
}

/// What the engine tells the control thread.
#[derive(Debug)]
pub(super) enum Report {
    /// Those of one turn.
    Notices(Vec<Notice>),
    /// Something does not work as it should.
    Trouble(String),
    /// Every router's state, after one of them moved.
    States(Vec<RouterState>),
    /// What this box is may have changed.
    Box,
    /// It has ended, after giving up everything.
    Stopped,
}

/// Everything that the engine is connected to.
pub(super) struct Wiring {
    /// Rung by those who put something into `requests` or `answers`.
    pub(super) bell: Bell,
    pub(super) notifications: Notifications,
    pub(super) signals: SignalFd,
    pub(super) requests: Receiver<Request>,
    pub(super) jobs: SyncSender<Job>,
    pub(super) kernel: Ringer,
    /// To the fence, where there is one.
    pub(super) ways: Option<Ways>,
    pub(super) answers: Receiver<Answer>,
    pub(super) reports: SyncSender<Report>,
    pub(super) control: Ringer,
    /// What another process would do if this one died.
    pub(super) will: Will,
    /// What enters the node is written down there.
    pub(super) tape: Option<Tape>,
    /// Notices that found the queue full.
    pub(super) notices_lost: Arc<AtomicU64>,
}

struct Engine {
    wiring: Wiring,
    poll: Poll,
    /// Keys of what was readable when `poll` returned, and whether that was all.
    ready: Vec<usize>,
    ready_is_all: bool,
    /// This turn has read its share of changes.
    has_changes: bool,
    batch: RecvBatch,
    changes: Vec<Change>,
    /// Sockets by their key with the poller, and keys by port.
    sockets: BTreeMap<usize, Box<Sockets>>,
    keys: BTreeMap<Port, usize>,
    next_key: usize,
    /// Jobs that found the queue full.
    jobs_waiting: VecDeque<Job>,
    /// Failures to send, told to the node in the next turn, which comes at once.
    failed: Vec<Event<'static>>,
    /// What the kernel's thread wants said.
    troubles: Vec<String>,
    status_wanted: Vec<SyncSender<NodeStatus>>,
    states_unsent: bool,
    box_unsent: bool,
    /// When the poller returned.
    woke_at: Instant,
    rests: Rests,
    stop: Option<Stop>,
}

/// Until when a stop waits for the kernel.
#[derive(Clone, Copy, Debug)]
struct Stop {
    /// Moves away with each of its answers.
    at: Instant,
    last: Instant,
}

/// Runs until everything is given up after a `Shutdown`; `false` if the kernel does not answer, and
/// addresses may be left.
///
/// # Errors
/// What the poller says: without it nothing works.
pub(super) fn run(wiring: Wiring, mut node: Node) -> io::Result<bool> {
    let mut engine = Engine::new(wiring)?;
    let result = engine.turns(&mut node);
    if matches!(result, Ok(false)) {
        // Addresses are left: the fence stays with them until the guard, or the next start, removes
        // both.
        std::mem::forget(engine.wiring.ways.take());
    }
    // The last word has to arrive: this thread has nothing else to do any more.
    let _ = engine.wiring.reports.send(Report::Stopped);
    engine.wiring.control.ring();
    kernel::close_all(std::mem::take(&mut engine.sockets).into_values());
    result
}

impl Engine {
    fn new(wiring: Wiring) -> io::Result<Self> {
        let poll = Poll::new()?;
        wiring.bell.set_nonblocking()?;
        poll.add(&wiring.notifications, NOTIFICATIONS)?;
        poll.add(&wiring.signals, SIGNALS)?;
        poll.add(&wiring.bell, BELL)?;
        Ok(Self {
            wiring,
            poll,
            ready: Vec::new(),
            ready_is_all: true,
            has_changes: false,
            batch: RecvBatch::new(),
            changes: Vec::new(),
            sockets: BTreeMap::new(),
            keys: BTreeMap::new(),
            next_key: FIRST_SOCKET,
            jobs_waiting: VecDeque::new(),
            failed: Vec::new(),
            troubles: Vec::new(),
            status_wanted: Vec::new(),
            states_unsent: false,
            box_unsent: false,
            woke_at: clock::now(),
            rests: Rests::new(),
            stop: None,
        })
    }

    fn turns(&mut self, node: &mut Node) -> io::Result<bool> {
        let mut inbox = Inbox::default();
        let mut actions = Actions::default();
        while !node.is_stopped() {
            let stop = self.stop.map(|stop| stop.at.min(stop.last));
            if stop.is_some_and(|stop| stop <= self.woke_at) {
                return Ok(false);
            }
            self.wait(node.next_deadline().into_iter().chain(stop).min())?;
            let Some(tape) = self.wiring.tape.take() else {
                turn(node, self, &mut inbox, &mut actions);
                continue;
            };
            let mut recording = Recording::new(self);
            turn(node, &mut recording, &mut inbox, &mut actions);
            let frame = recording.frame();
            self.wiring.tape = tape.take(frame).then_some(tape);
        }
        Ok(true)
    }

    fn wait(&mut self, deadline: Option<Instant>) -> io::Result<()> {
        // The kernel's thread rings after each answer; it gives none to a `Close`.
        let ways_wait = self.wiring.ways.as_ref().is_some_and(Ways::holds);
        let waits = ways_wait || !self.jobs_waiting.is_empty();
        let retry = waits.then(|| clock::now() + JOBS_RETRY);
        let at_once = (!self.failed.is_empty()).then_some(Instant::ZERO);
        let deadline = deadline.into_iter().chain(retry).chain(at_once).min();
        self.poll(deadline)?;
        if self.rests.is_due()
            && self.ready.iter().any(|key| *key >= FIRST_SOCKET)
            && deadline.is_none_or(|deadline| deadline > self.woke_at + REST * 2)
        {
            self.rests.taken();
            #[expect(clippy::disallowed_methods, reason = "nothing is due before it ends")]
            std::thread::sleep(REST);
            self.poll(Some(Instant::ZERO))?;
        }
        Ok(())
    }

    fn poll(&mut self, deadline: Option<Instant>) -> io::Result<()> {
        self.ready_is_all = self.poll.wait(deadline, &mut self.ready)?;
        self.woke_at = clock::now();
        Ok(())
    }

    /// Reads what is ready; returns whether everything was read.
    fn read_ready(&mut self, inbox: &mut Inbox) -> bool {
        let mut all = self.ready_is_all;
        let mut packets = 0;
        let ready = std::mem::take(&mut self.ready);
        for key in &ready {
            all &= match *key {
                NOTIFICATIONS => {
                    self.read_changes(inbox);
                    true
                }
                SIGNALS => self.read_signals(inbox),
                BELL => {
                    // Before the channels are read: what comes later rings again.
                    self.wiring.bell.silence();
                    self.read_channels(inbox);
                    true
                }
                key => {
                    self.read_claims(key, inbox);
                    self.read_packets(key, inbox, &mut packets)
                }
            };
        }
        if packets > 0 {
            self.rests.read(self.woke_at, packets);
        }
        self.ready = ready;
        for failed in self.failed.drain(..) {
            inbox.event(failed);
        }
        all
    }

    /// What it leaves for the next turn holds up no decision: adverts come through other sockets.
    fn read_changes(&mut self, inbox: &mut Inbox) {
        if std::mem::replace(&mut self.has_changes, true) {
            return;
        }
        let until = clock::now() + CHANGES_TIME;
        let mut read = 0;
        loop {
            let more = self.wiring.notifications.read(&mut self.changes, CHANGES_STEP);
            read += self.changes.len();
            for change in self.changes.drain(..) {
                inbox.event(Event::Kernel(change));
            }
            match more {
                Ok(false) => return,
                Ok(true) if read >= CHANGES_MAX || clock::now() >= until => return,
                Ok(true) => {}
                Err(_) => {
                    // Whatever it was, only a dump tells what is true now.
                    inbox.event(Event::Kernel(Change::Overrun));
                    return;
                }
            }
        }
    }

    fn read_signals(&mut self, inbox: &mut Inbox) -> bool {
        while let Ok(Some(signal)) = self.wiring.signals.read() {
            match signal {
                Signal::Interrupt | Signal::Terminate => {
                    let now = clock::now();
                    self.stop.get_or_insert(Stop { at: now + STOP_SILENCE, last: now + STOP_MAX });
                    inbox.event(Event::Shutdown);
                }
                // The control thread reads them from a descriptor of its own.
                Signal::Hangup | Signal::User1 | Signal::User2 => {}
            }
        }
        true
    }

    /// Adds how many there were to `count`.
    fn read_packets(&mut self, key: usize, inbox: &mut Inbox, count: &mut usize) -> bool {
        let Self { sockets, batch, .. } = self;
        let Some(socket) = sockets.get(&key).map(|sockets| &sockets.vrrp) else { return true };
        let port = socket.port();
        for _ in 0..READS_MAX {
            match socket.recv_batch(batch) {
                // ENETDOWN and the like: the link's own notifications tell what is the matter.
                Ok(0) | Err(_) => return true,
                Ok(more) => *count += more,
            }
            for packet in batch.packets() {
                let parsed = match port.family {
                    _ if packet.truncated => None,
                    Family::V4 => parse_ipv4(packet.bytes).ok(),
                    Family::V6 => packet.meta.map(|meta| (meta, packet.bytes)),
                };
                match parsed {
                    Some((meta, bytes)) => inbox.packet(port, meta, bytes),
                    None => inbox.event(Event::Malformed { port }),
                }
            }
            // It stopped short of its room because nothing was left.
            if !batch.is_full() {
                return true;
            }
        }
        false
    }

    fn read_claims(&self, key: usize, inbox: &mut Inbox) {
        let Some(sockets) = key.checked_sub(1).and_then(|key| self.sockets.get(&key)) else {
            return;
        };
        let index = sockets.vrrp.port().index;
        let messages = std::iter::from_fn(|| sockets.witness.read());
        for heard in messages.take(CLAIMS_MAX).flatten() {
            inbox.event(match heard {
                Heard::Claim(ip, mac) => Event::Claimed { index, ip, mac },
                Heard::Packet(mac, bytes) => Event::Overheard { index, mac, bytes },
            });
        }
    }

    fn read_channels(&mut self, inbox: &mut Inbox) {
        while let Ok(answer) = self.wiring.answers.try_recv() {
            if let Some(stop) = &mut self.stop {
                stop.at = clock::now() + STOP_SILENCE;
            }
            match answer {
                Answer::Dumped(result) => inbox.event(Event::Dumped(result)),
                Answer::Applied(results) => inbox.event(Event::Applied(results)),
                Answer::Unknown => inbox.event(Event::Kernel(Change::Overrun)),
                Answer::Trouble(text) => self.troubles.push(text),
                Answer::Rejoined(port) => inbox.event(Event::Rejoined { port }),
                Answer::Opened(port, sockets) => {
                    let result = sockets.and_then(|sockets| self.install(port, sockets));
                    inbox.event(Event::Opened { port, result });
                }
            }
        }
        while let Ok(request) = self.wiring.requests.try_recv() {
            match request {
                Request::Config(config) => inbox.event(Event::Config(config)),
                Request::Status(answer) => self.status_wanted.push(answer),
            }
        }
    }

    fn install(&mut self, port: Port, sockets: Box<Sockets>) -> Result<(), Errno> {
        self.close(port);
        let key = self.next_key;
        self.poll.add(&sockets.vrrp, key).map_err(|error| errno(&error))?;
        self.poll.add(&*sockets.witness, key + 1).map_err(|error| errno(&error))?;
        self.next_key += 2;
        self.sockets.insert(key, sockets);
        self.keys.insert(port, key);
        Ok(())
    }

    fn close(&mut self, port: Port) {
        let Some(sockets) = self.keys.remove(&port).and_then(|key| self.sockets.remove(&key))
        else {
            return;
        };
        // Fail only if they are not registered, and they are.
        let _ = self.poll.remove(&sockets.vrrp);
        let _ = self.poll.remove(&*sockets.witness);
        self.jobs_waiting.push_back(Job::Close(sockets));
    }

    /// Sends frames in batches of those that follow one another through one socket.
    fn send(&mut self, actions: &Actions) {
        let mut frames = actions.frames();
        while let Some((via, ..)) = frames.clone().next() {
            let alike = frames.clone().take_while(|(next, ..)| *next == via);
            let count = alike.take(MAX_SEND).count();
            self.send_batch(via, frames.clone().take(count));
            // At least the first is in the batch.
            frames.nth(count - 1);
        }
    }

    /// Sends at most `MAX_SEND` frames, adverts of those routers.
    fn send_batch<'a>(
        &mut self,
        via: Via,
        frames: impl Iterator<Item = (Via, Option<RouterId>, &'a [u8])> + Clone,
    ) {
        let socket = |port: Port| self.keys.get(&port).and_then(|key| self.sockets.get(key));
        let (index, sockets) = match via {
            Via::Vrrp(port) => (port.index, socket(port)),
            Via::Ethernet(index) => {
                let v6 = || socket(Port { index, family: Family::V6 });
                (index, socket(Port { index, family: Family::V4 }).or_else(v6))
            }
        };
        // A port that was just closed has nothing to say any more.
        let Some(sockets) = sockets else { return };
        let (mut at, mut count, mut unsent, mut last) = (0, 0, Vec::new(), None);
        // One that cannot be sent keeps none of the others back.
        loop {
            let rest = frames.clone().skip(at).map(|(.., frame)| frame);
            let (sent, errno) = match via {
                Via::Vrrp(_) => sockets.vrrp.send_batch(rest),
                Via::Ethernet(index) => {
                    let own = sockets.witness.send_batch(rest.clone());
                    own.unwrap_or_else(|| sockets.frames.send_batch(index, rest))
                }
            };
            if errno.is_none() {
                break;
            }
            last = errno;
            count += 1;
            unsent.extend(frames.clone().nth(at + sent).and_then(|(_, advert_of, _)| advert_of));
            at += sent + 1;
        }
        if let Some(errno) = last {
            self.failed.push(Event::SendFailed { index, errno, count, adverts: unsent });
        }
    }

    fn pass_jobs(&mut self, actions: &Actions) {
        for action in &actions.kernel {
            let job = match action {
                Action::Dump => Job::Dump,
                Action::Apply(ops) => Job::Apply(ops.clone()),
                Action::Open(port) => Job::Open(*port),
                Action::Watch { port, addresses, vrids } => {
                    let Some(sockets) = self.keys.get(port).and_then(|key| self.sockets.get(key))
                    else {
                        continue;
                    };
                    let witness = Arc::clone(&sockets.witness);
                    // What waits for the same socket is out of date: a kernel's thread that is
                    // held up has one of each to come back to.
                    self.jobs_waiting.retain(
                        |job| !matches!(job, Job::Watch(other, ..) if Arc::ptr_eq(other, &witness)),
                    );
                    Job::Watch(witness, addresses.clone(), vrids.clone())
                }
                Action::Join { port, anew } => {
                    let Some(sockets) = self.keys.get(port).and_then(|key| self.sockets.get(key))
                    else {
                        continue;
                    };
                    Job::Join(sockets.vrrp.membership(), *anew)
                }
                Action::Close(port) => {
                    self.close(*port);
                    continue;
                }
                Action::Fence(passages) => {
                    if let Some(ways) = &mut self.wiring.ways {
                        ways.tell(passages);
                    }
                    continue;
                }
            };
            self.jobs_waiting.push_back(job);
        }
        if let Some(ways) = self.wiring.ways.as_mut().filter(|ways| ways.holds()) {
            ways.pass();
        }
        let mut passed = false;
        while let Some(job) = self.jobs_waiting.pop_front() {
            match self.wiring.jobs.try_send(job) {
                Ok(()) => passed = true,
                Err(TrySendError::Full(job)) => {
                    self.jobs_waiting.push_front(job);
                    break;
                }
                // The kernel's thread ended: nothing can be asked any more.
                Err(TrySendError::Disconnected(_)) => break,
            }
        }
        if passed {
            self.wiring.kernel.ring();
        }
    }

    fn report(&mut self, node: &Node, actions: &Actions) {
        let mut ring = false;
        let notices = actions.notices.len();
        let batch = (notices > 0).then(|| (Report::Notices(actions.notices.clone()), notices));
        let troubles = self.troubles.drain(..).map(|text| (Report::Trouble(text), 1));
        for (report, count) in troubles.chain(batch) {
            match self.wiring.reports.try_send(report) {
                Ok(()) => ring = true,
                Err(_) => {
                    let count = u64::try_from(count).unwrap_or(u64::MAX);
                    self.wiring.notices_lost.fetch_add(count, Ordering::Relaxed);
                }
            }
        }
        self.box_unsent |= actions.box_changed;
        if self.box_unsent {
            // Full: in the next turn.
            self.box_unsent = self.wiring.reports.try_send(Report::Box).is_err();
            ring |= !self.box_unsent;
        }
        self.states_unsent |= actions.states_changed;
        if actions.states_changed {
            self.wiring.will.update(node);
        }
        if self.states_unsent {
            let states = node.states().collect();
            // Full: in the next turn, with what is true then.
            self.states_unsent = self.wiring.reports.try_send(Report::States(states)).is_err();
            ring |= !self.states_unsent;
        }
        for answer in self.status_wanted.drain(..) {
            // It asked, waits for one answer, and has room for it.
            let _ = answer.try_send(node.status(clock::now()));
            ring = true;
        }
        if ring {
            self.wiring.control.ring();
        }
    }
}

impl Host for Engine {
    fn drain(&mut self, inbox: &mut Inbox) -> bool {
        self.has_changes = false;
        let mut all = self.read_ready(inbox);
        for _ in 0..DRAINS_MAX {
            if clock::now().since(self.woke_at) < DRAIN_STALE {
                break;
            }
            // Fails only as `wait` does, which then says so.
            if self.poll(Some(Instant::ZERO)).is_err() {
                break;
            }
            all = self.read_ready(inbox);
        }
        all
    }

    fn now(&mut self) -> Instant {
        clock::now()
    }

    fn flush(&mut self, node: &Node, actions: &Actions) {
        self.send(actions);
        self.pass_jobs(actions);
        self.report(node, actions);
    }
}
