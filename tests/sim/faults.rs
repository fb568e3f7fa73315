//! Everything that a schedule does to a world: what begins it and what ends it.

use std::time::Duration;

use havip::config::Prefix;
use havip::node::kernel::Errno;
use havip::sim::{Faults, World};

use super::site::{Site, Way, own};

/// Kinds of faults. Each is injected in a run of the suite, or the suite fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Kind {
    AddressGone,
    BadEntry,
    Bursts,
    Compacted,
    Corrupt,
    Cut,
    Deaf,
    Duplicate,
    DumpsFail,
    Emptied,
    EtcdGone,
    Flap,
    Freeze,
    Interval,
    Kill,
    Late,
    LateNotes,
    LinkGone,
    Loss,
    Operations,
    Preempt,
    Priority,
    Reorder,
    Restored,
    SendsFail,
    Slow,
    Squat,
    Stop,
    Stranger,
    Torn,
    Unlisted,
    Vips,
    Excluded,
    Forbidden,
    Password,
    Others,
    Lengths,
}

/// In the order in which they were thought of: see [`kinds`].
pub(crate) const KINDS: [Kind; 37] = [
    Kind::AddressGone,
    Kind::BadEntry,
    Kind::Bursts,
    Kind::Compacted,
    Kind::Corrupt,
    Kind::Cut,
    Kind::Deaf,
    Kind::Duplicate,
    Kind::DumpsFail,
    Kind::Emptied,
    Kind::EtcdGone,
    Kind::Flap,
    Kind::Freeze,
    Kind::Interval,
    Kind::Kill,
    Kind::Late,
    Kind::LateNotes,
    Kind::LinkGone,
    Kind::Loss,
    Kind::Operations,
    Kind::Preempt,
    Kind::Priority,
    Kind::Reorder,
    Kind::Restored,
    Kind::SendsFail,
    Kind::Slow,
    Kind::Squat,
    Kind::Stop,
    Kind::Stranger,
    Kind::Torn,
    Kind::Unlisted,
    Kind::Vips,
    Kind::Excluded,
    Kind::Forbidden,
    Kind::Password,
    Kind::Others,
    Kind::Lengths,
];

/// Those that are drawn in one way.
pub(crate) fn kinds(way: Way) -> &'static [Kind] {
    match way {
        Way::First => &KINDS[..32],
        Way::Second => &KINDS[..35],
        Way::Third => &KINDS,
    }
}

/// EPERM, EEXIST, ENODEV, ENOBUFS: what kernels answer.
const ERRNOS: [i32; 4] = [1, 17, 19, 105];

/// What a fault is about, besides its machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Scope {
    /// One machine.
    Machine,
    /// Every machine: the LAN.
    Lan,
    /// What all are told to do.
    Store,
}

/// One fault: what, to whom, when, how long. It owns all of its numbers, so that leaving another
/// one out changes nothing of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Fault {
    pub(crate) kind: Kind,
    pub(crate) machine: usize,
    pub(crate) other: usize,
    pub(crate) at_ms: u64,
    pub(crate) for_ms: u64,
    /// Whatever the kind makes of it.
    pub(crate) roll: u64,
}

impl Kind {
    pub(crate) const fn scope(self) -> Scope {
        match self {
            Self::Bursts | Self::Corrupt | Self::Duplicate | Self::Loss | Self::Reorder => {
                Scope::Lan
            }
            Self::BadEntry
            | Self::Compacted
            | Self::Emptied
            | Self::EtcdGone
            | Self::Excluded
            | Self::Forbidden
            | Self::Interval
            | Self::Lengths
            | Self::Password
            | Self::Preempt
            | Self::Priority
            | Self::Restored
            | Self::Unlisted
            | Self::Vips => Scope::Store,
            Self::AddressGone
            | Self::Cut
            | Self::Deaf
            | Self::DumpsFail
            | Self::Flap
            | Self::Freeze
            | Self::Kill
            | Self::Late
            | Self::LateNotes
            | Self::LinkGone
            | Self::Operations
            | Self::Others
            | Self::SendsFail
            | Self::Slow
            | Self::Squat
            | Self::Stop
            | Self::Stranger
            | Self::Torn => Scope::Machine,
        }
    }
}

impl Fault {
    const fn below(&self, bound: u64) -> u64 {
        self.roll % bound
    }

    fn errno(&self) -> Errno {
        Errno(ERRNOS[usize::try_from(self.below(4)).unwrap()])
    }

    /// Does it; `unit_ms` is the longest interval.
    pub(crate) fn begin(&self, world: &mut World, site: &mut Site, unit_ms: u64) {
        let machine = self.machine;
        match self.kind {
            Kind::Loss => world.faults().loss = 50 + self.below(400),
            Kind::Bursts => world.faults().bursts = 20 + self.below(100),
            Kind::Duplicate => world.faults().duplicate = 100 + self.below(500),
            Kind::Corrupt => world.faults().corrupt = 50 + self.below(400),
            Kind::Reorder => world.faults().jitter_ns = self.below(2 * unit_ms * 1_000_000),
            Kind::Cut => world.cut(machine, self.other),
            Kind::Flap => {
                let (kernel, index) = world.kernel(machine);
                kernel.set_running(index, false);
            }
            Kind::Freeze => world.freeze(machine, Duration::from_millis(self.for_ms)),
            Kind::Late => {
                let late = Duration::from_millis(self.below(3 * unit_ms));
                world.freeze(machine, late);
            }
            Kind::Kill => _ = world.kill(machine),
            Kind::Torn => {
                world.disk(machine).tear(usize::try_from(self.below(1000)).unwrap());
                world.etcd.is_up = false;
                world.kill(machine);
                world.restart(machine);
            }
            Kind::Stop => world.shutdown(machine),
            Kind::Operations => world.trouble(machine).operations = Some(self.errno()),
            Kind::Slow => world.trouble(machine).slow_ns = self.below(400) * 1_000_000,
            Kind::DumpsFail => {
                world.trouble(machine).dumps = Some(self.errno());
                // Nobody dumps without a reason.
                world.trouble(machine).is_deaf = true;
                site.touch_kernel(world, machine);
            }
            Kind::SendsFail => {
                let errno = if self.below(2) == 0 { 1 } else { 105 };
                world.trouble(machine).sends = Some(Errno(errno));
            }
            Kind::Deaf => {
                world.trouble(machine).is_deaf = true;
                if self.below(2) == 0 {
                    site.delete_vip(world, machine, self.roll);
                }
            }
            Kind::LateNotes => {
                world.trouble(machine).notes_ns = (1 + self.below(2 * unit_ms)) * 1_000_000;
                site.delete_vip(world, machine, self.roll);
            }
            Kind::Stranger => site.delete_vip(world, machine, self.roll),
            Kind::Squat => site.squat(world, machine, self.roll),
            Kind::LinkGone => {
                let (kernel, index) = world.kernel(machine);
                kernel.delete_link(index);
            }
            Kind::AddressGone => {
                let (kernel, index) = world.kernel(machine);
                for prefix in own(machine) {
                    kernel.remove_address(index, prefix);
                }
            }
            Kind::EtcdGone => world.etcd.is_up = false,
            Kind::Compacted => world.store_moved(false),
            Kind::Emptied => site.empty(world),
            Kind::Restored => site.restore(world, self.roll),
            Kind::BadEntry => site.spoil(world, self.roll),
            Kind::Unlisted => site.unlist(world, machine, self.roll),
            Kind::Priority => site.set_priority(world, machine, self.roll),
            Kind::Preempt => site.set_preempt(world, machine, self.roll),
            Kind::Interval => site.set_interval(world, self.roll),
            Kind::Vips => site.change_vips(world, self.roll),
            Kind::Excluded => site.change_excluded(world, self.roll),
            Kind::Forbidden => site.forbid(world, self.roll),
            Kind::Password => site.change_passwords(world, self.roll),
            Kind::Others => site.add_other(world, machine, self.roll),
            Kind::Lengths => site.change_lens(world, self.roll),
        }
    }

    /// Ends it.
    pub(crate) fn end(&self, world: &mut World, site: &mut Site) {
        let machine = self.machine;
        match self.kind {
            Kind::Loss => world.faults().loss = 0,
            Kind::Bursts => world.faults().bursts = 0,
            Kind::Duplicate => world.faults().duplicate = 0,
            Kind::Corrupt => world.faults().corrupt = 0,
            Kind::Reorder => world.faults().jitter_ns = 0,
            Kind::Cut => world.join_up(machine, self.other),
            Kind::Flap => {
                let (kernel, index) = world.kernel(machine);
                kernel.set_running(index, true);
            }
            Kind::Kill | Kind::Stop => {
                // It may not have ended: what was slow is.
                if self.kind == Kind::Stop {
                    world.kill(machine);
                }
                if !world.is_alive(machine) {
                    world.restart(machine);
                }
            }
            Kind::Operations => world.trouble(machine).operations = None,
            Kind::Slow => world.trouble(machine).slow_ns = 0,
            Kind::DumpsFail => {
                world.trouble(machine).dumps = None;
                world.trouble(machine).is_deaf = false;
            }
            Kind::SendsFail => world.trouble(machine).sends = None,
            Kind::Deaf => {
                world.trouble(machine).is_deaf = false;
                // Whoever reads an overflown socket is told.
                site.touch_kernel(world, machine);
            }
            Kind::LateNotes => world.trouble(machine).notes_ns = 0,
            Kind::Squat | Kind::Others => site.unsquat(world, machine),
            Kind::LinkGone => site.recreate(world, machine),
            Kind::AddressGone => {
                let (kernel, index) = world.kernel(machine);
                for prefix in own(machine) {
                    if kernel.is_running(index) && kernel.address(index, prefix).is_none() {
                        kernel.add_own_address(index, prefix);
                    }
                }
            }
            Kind::EtcdGone | Kind::Torn => {
                world.etcd.is_up = true;
                world.store_moved(true);
            }
            Kind::Emptied | Kind::BadEntry | Kind::Forbidden => site.put_back(world),
            Kind::Unlisted => site.list_again(world, machine),
            Kind::Compacted
            | Kind::Excluded
            | Kind::Freeze
            | Kind::Interval
            | Kind::Late
            | Kind::Lengths
            | Kind::Password
            | Kind::Preempt
            | Kind::Priority
            | Kind::Restored
            | Kind::Stranger
            | Kind::Vips => {}
        }
    }
}

/// Everything in order again: what a schedule left is repaired.
pub(crate) fn peace(world: &mut World, site: &mut Site) {
    world.heal();
    *world.faults() = Faults::default();
    world.etcd.is_up = true;
    for machine in 0..world.machines() {
        *world.trouble(machine) = havip::sim::Trouble::default();
        site.unsquat(world, machine);
        site.recreate(world, machine);
        let (kernel, index) = world.kernel(machine);
        kernel.set_running(index, true);
        let missing: Vec<Prefix> = own(machine)
            .into_iter()
            .filter(|prefix| kernel.address(index, *prefix).is_none())
            .collect();
        for prefix in missing {
            kernel.add_own_address(index, prefix);
        }
        if !world.is_alive(machine) {
            world.restart(machine);
        }
        site.touch_kernel(world, machine);
    }
    site.put_back(world);
    for machine in 0..world.machines() {
        site.list_again(world, machine);
    }
    world.store_moved(true);
}
