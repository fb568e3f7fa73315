//! How time passes: from one thing that happens to the next, each machine taking its turns between.

use std::time::Duration;

use super::World;
use super::machine::Machine;
use crate::config::Prefix;
use crate::node::kernel::{Change, Port};
use crate::node::{Event, Instant};
use crate::wire::vrrp::RxMeta;

/// Turns that a node may take without the clock moving: more, and it spins.
const TURNS_MAX: usize = 64;
/// Packets that a socket's buffer holds (an unread one of the default size, measured).
const PACKETS_MAX: usize = 256;

/// Something on its way, to happen at its time.
pub(super) enum Happening {
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
        added: Vec<(Prefix, Instant)>,
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

impl World {
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

    pub(super) fn after(&mut self, (least, most): (u64, u64)) -> Instant {
        self.now + Duration::from_nanos(least + self.rng.below(most - least))
    }

    pub(super) fn happen(&mut self, at: Instant, what: Happening) {
        self.sequence += 1;
        self.happenings.insert((at, self.sequence), what);
    }
}
