//! One turn of one machine's daemon, and what becomes of all that it wants done.

use std::time::Duration;

use super::machine::{Machine, Process, SimHost};
use super::time::Happening;
use super::{Turn, World, seen};
use crate::config::Prefix;
use crate::node::kernel::{Errno, Op, Port, Verb};
use crate::node::notice::Notice;
use crate::node::record::Recording;
use crate::node::{Action, Event, Instant, Via, turn};
use crate::wire::Family;
use crate::wire::ip::{IPV6_HEADER, parse_ipv4};
use crate::wire::vrrp::{RxMeta, group};

/// Time from a request to the kernel to its answer.
const KERNEL_NS: (u64, u64) = (100_000, 5_000_000);

impl World {
    pub(super) fn turn(&mut self, number: usize) {
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
        let told = actions.notices.iter().map(Notice::itself);
        seen.notices.extend(told.chain(&actions.untold).cloned());
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
                // Its kernels lose no membership.
                Action::Join { .. } => continue,
                // Its kernels have no filter.
                Action::Fence(_) => continue,
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

    fn apply(
        &mut self,
        number: usize,
        op: &Op,
        added: &mut Vec<(Prefix, Instant)>,
    ) -> Result<(), Errno> {
        let Machine { kernel, trouble, .. } = &mut self.machines[number];
        match (trouble.operations, op.verb) {
            // Where there is no such interface there is nothing to remove, either; and that there is
            // such a route is true where the kernel says it.
            (Some(Errno(19)), Verb::Remove | Verb::Unroute { .. })
            | (Some(Errno(17)), Verb::Route { .. } | Verb::Unroute { .. })
            | (None, _) => {}
            (Some(errno), _) => return Err(errno),
        }
        let was_there = kernel.address(op.index, op.prefix).is_some();
        kernel.apply(self.now, op)?;
        if matches!(op.verb, Verb::Add { .. } | Verb::Renew { .. }) && !was_there {
            added.push((op.prefix, self.now));
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
                // Without an address the kernel sends nothing. The header is the sender's own.
                if machine.kernel.first(port.index, Family::V6).is_none() {
                    return;
                }
                let (header, payload) = bytes.split_at(IPV6_HEADER);
                let src: [u8; 16] = header[8..24].try_into().expect("a slice of 16 bytes");
                (RxMeta { src: src.into(), dst: group(Family::V6), ttl: 255 }, payload)
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
        if seen::asks(frame) {
            return;
        }
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
}
