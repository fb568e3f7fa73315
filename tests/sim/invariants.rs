//! What must be true after every step of every schedule, whatever was done to the world. Each rule
//! is a function that is named after it; here is what they remember, and where they are asked for.

mod addresses;
mod notices;
mod routers;

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use havip::config::{Config, Prefix, Router};
use havip::node::Instant;
use havip::node::notice::Notice;
use havip::sim::{Turn, World};

use super::bounds::Bounds;
use super::coverage::Coverage;
use super::faults::{Fault, Kind, Scope};
use super::site::Site;
pub(crate) use routers::every_router_has_one_owner;

/// Time for packets, the kernel's answers and the store's news to arrive, with a margin.
const SETTLED: Duration = Duration::from_millis(60);
/// The same after something was wrong with a machine: a dump, an operation and a socket are each
/// tried again after a second.
const RECOVERED: Duration = Duration::from_millis(3_200);
/// Turns in which work may be left without the clock moving, with the few routers of a schedule.
const SPINS_MAX: u32 = 8;

/// What was found, in words.
pub(crate) type Found = Result<(), String>;

/// Asks for a rule, and counts that.
macro_rules! hold {
    ($watch:ident.$rule:ident($($argument:ident),*)) => {{
        $watch.coverage.asked(stringify!($rule));
        $watch.$rule($($argument),*)
    }};
}

#[derive(Clone, Copy, Debug)]
struct Active {
    /// When it last advertised, or stood still.
    said_at: Instant,
}

/// Everything that is remembered from one step to the next.
#[derive(Default)]
pub(crate) struct Watch {
    pub(crate) coverage: Coverage,
    /// Faults that began and did not end yet.
    pub(crate) present: Vec<Fault>,
    /// Kinds that ever began, and where.
    began: BTreeSet<(Kind, usize)>,
    /// When something was last wrong with each machine, changes of the store included or not.
    disturbed: BTreeMap<usize, Instant>,
    shaken: BTreeMap<usize, Instant>,
    deaf: BTreeMap<usize, Instant>,
    /// Machines that lost notifications and did not read that they did, or cannot dump for it.
    missed: BTreeSet<usize>,
    /// When each machine's kernel last had something to tell that was not heard.
    unheard: BTreeMap<usize, Instant>,
    /// Machines that stood still at the last step, and when that was.
    still: BTreeMap<usize, Instant>,
    lives: BTreeMap<usize, u64>,
    running: BTreeMap<usize, Arc<Config>>,
    /// Machines whose daemon gives up everything.
    stopping: BTreeSet<usize>,
    /// Routers that each machine ever ran, over all of its daemons.
    ran: BTreeMap<usize, BTreeSet<String>>,
    active: BTreeMap<(usize, u8), Active>,
    resigned: BTreeSet<(usize, u8)>,
    /// When each machine was last told of an address, and of which word it had made one known.
    told: BTreeMap<(usize, IpAddr), Instant>,
    announced: BTreeMap<(usize, IpAddr), Instant>,
    unannounced: BTreeMap<(usize, IpAddr), Instant>,
    together: BTreeMap<(u8, usize, usize), Instant>,
    misplaced: BTreeMap<(usize, Prefix), Instant>,
    missing: BTreeMap<(usize, Prefix), Instant>,
    /// VIPs without the route that they should have or with one that they should not.
    misrouted: BTreeMap<(usize, IpAddr), Instant>,
    doubled: BTreeMap<(usize, IpAddr), Instant>,
    spins: BTreeMap<usize, u32>,
    /// How often each machine has changed something of others'.
    wronged: BTreeMap<usize, usize>,
    bounds: Bounds,
}

impl Watch {
    /// A fault begins or ends.
    pub(crate) fn disturb(&mut self, fault: &Fault, world: &World) {
        self.began.insert((fault.kind, fault.machine));
        self.mark(fault, world);
    }

    fn mark(&mut self, fault: &Fault, world: &World) {
        let now = world.now();
        let machines = match fault.kind.scope() {
            Scope::Machine => vec![fault.machine, fault.other],
            Scope::Lan | Scope::Store => (0..world.machines()).collect(),
        };
        for machine in machines {
            self.disturbed.insert(machine, now);
            if fault.kind.scope() != Scope::Store {
                self.shaken.insert(machine, now);
            }
        }
    }

    /// Everybody is disturbed: the world is put in order.
    pub(crate) fn disturb_all(&mut self, world: &World) {
        for machine in 0..world.machines() {
            self.disturbed.insert(machine, world.now());
            self.shaken.insert(machine, world.now());
        }
    }

    /// Whether a gateway may hold what it had against what the store has by now.
    pub(crate) fn may_hold_a_restored_store(&self) -> bool {
        self.began.iter().any(|(kind, _)| *kind == Kind::Restored)
    }

    fn calm(of: &BTreeMap<usize, Instant>, machine: usize, now: Instant) -> Duration {
        of.get(&machine).map_or(Duration::MAX, |at| now.since(*at))
    }

    /// Holds one step against every rule.
    pub(crate) fn check(&mut self, world: &World, site: &Site) -> Found {
        let now = world.now();
        self.coverage.steps += 1;
        for fault in std::mem::take(&mut self.present) {
            self.mark(&fault, world);
            self.present.push(fault);
        }
        for machine in 0..world.machines() {
            self.stand_still(machine, world);
            let trouble = world.trouble_of(machine);
            if trouble.is_deaf {
                self.missed.insert(machine);
            }
            if self.missed.contains(&machine) {
                self.deaf.insert(machine, now);
            }
            if !trouble.is_deaf && !world.has_notes(machine) && trouble.dumps.is_none() {
                self.missed.remove(&machine);
            }
            if trouble.is_deaf || trouble.dumps.is_some() || world.has_notes(machine) {
                self.unheard.insert(machine, now);
            }
            let stands_still = world.is_frozen(machine) || !world.is_alive(machine);
            if stands_still {
                self.disturbed.insert(machine, now);
                self.shaken.insert(machine, now);
            }
            if !world.is_alive(machine) || self.lives.get(&machine) != Some(&world.life(machine)) {
                self.new_life(machine, world.life(machine));
            }
        }
        for turn in &world.turns {
            self.coverage.turn(turn);
            hold!(self.no_error_without_a_fault(turn))?;
            hold!(self.nobody_is_said_to_remove_what_nobody_removed(turn))?;
            hold!(self.nobody_takes_over_before_it_has_listened(turn))?;
            hold!(self.after_priority_zero_comes_nothing_until_it_activates_anew(turn))?;
            hold!(self.nobody_spins(turn))?;
            hold!(self.a_reload_disturbs_no_other_router(turn))?;
            hold!(self.nothing_is_released_without_a_word(turn, site))?;
            self.note(turn);
        }
        self.note_carried(world);
        if world.turns.is_empty() {
            return Ok(());
        }
        hold!(self.queues_and_maps_are_bounded(world))?;
        self.note_active(world);
        hold!(self.every_added_vip_is_announced(world))?;
        hold!(self.an_active_router_advertises_in_time(world))?;
        hold!(self.those_who_hear_each_other_have_one_active(world))?;
        hold!(self.nothing_is_put_that_no_operator_meant(world, site))?;
        hold!(self.a_vip_is_where_its_router_is_active_and_nowhere_else(world))?;
        hold!(self.a_route_of_ours_is_there_with_its_vip_and_else_not(world))?;
        hold!(self.ours_is_not_beside_anothers(world))?;
        hold!(self.nothing_of_others_changes(world))
    }

    /// Who stands still reads nothing: that time counts for nothing in which a machine is to read
    /// what it missed.
    fn stand_still(&mut self, machine: usize, world: &World) {
        let now = world.now();
        if let Some(before) = self.still.remove(&machine) {
            for of in [&mut self.deaf, &mut self.unheard] {
                if let Some(at) = of.get_mut(&machine) {
                    *at = *at + now.since(before);
                }
            }
        }
        if world.is_frozen(machine) {
            self.still.insert(machine, now);
        }
    }

    fn new_life(&mut self, machine: usize, life: u64) {
        self.lives.insert(machine, life);
        self.running.remove(&machine);
        self.stopping.remove(&machine);
        self.active.retain(|(of, _), _| *of != machine);
        self.resigned.retain(|(of, _)| *of != machine);
        self.unannounced.retain(|(of, _), _| *of != machine);
        self.announced.retain(|(of, _), _| *of != machine);
        self.told.retain(|(of, _), _| *of != machine);
        self.spins.remove(&machine);
    }

    fn note(&mut self, turn: &Turn) {
        for said in turn.said.iter().filter(|said| said.priority > 0) {
            if let Some(active) = self.active.get_mut(&(turn.machine, said.vrid)) {
                active.said_at = turn.at;
            }
        }
        for prefix in &turn.told {
            self.told.insert((turn.machine, prefix.ip), turn.at);
        }
        for ip in &turn.announced {
            let key = (turn.machine, *ip);
            self.unannounced.remove(&key);
            if let Some(told) = self.told.get(&key) {
                self.announced.insert(key, *told);
            }
        }
        for (prefix, at) in &turn.added {
            let key = (turn.machine, prefix.ip);
            // The kernel may tell everybody of it before it answers who asked.
            let is_known = self.announced.get(&key).is_some_and(|told| told >= at);
            if !is_known && !turn.announced.contains(&prefix.ip) {
                self.unannounced.insert(key, turn.at);
            }
        }
        if turn.notices.contains(&Notice::Stopping) {
            self.stopping.insert(turn.machine);
        }
        // Who is giving up everything takes over no configuration any more.
        if let Some(config) = turn.configs.last()
            && !self.stopping.contains(&turn.machine)
        {
            self.running.insert(turn.machine, Arc::clone(config));
            let names = config.routers.keys().map(ToString::to_string);
            self.ran.entry(turn.machine).or_default().extend(names);
        }
    }

    fn note_active(&mut self, world: &World) {
        let now = world.now();
        for turn in &world.turns {
            if turn.notices.is_empty() && turn.configs.is_empty() {
                continue;
            }
            self.active.retain(|(of, vrid), _| *of != turn.machine || is_active(world, *of, *vrid));
            for state in world.node(turn.machine).into_iter().flat_map(|node| node.states()) {
                if state.active {
                    let key = (turn.machine, vrid(state.name.as_str()));
                    self.active.entry(key).or_insert(Active { said_at: now });
                }
            }
        }
    }

    fn note_carried(&mut self, world: &World) {
        let (unheard, now) = (&self.unheard, world.now());
        let knows = |machine| {
            Self::calm(unheard, machine, now) > RECOVERED
                && !world.is_frozen(machine)
                && world.is_alive(machine)
        };
        let shaken = &self.shaken;
        let works = |machine| Self::calm(shaken, machine, now) > RECOVERED;
        self.bounds.note(world, knows, works);
    }

    fn router(&self, machine: usize, vrid: u8) -> Option<&Arc<Router>> {
        let config = self.running.get(&machine)?;
        config.routers.values().find(|router| router.vrid.number() == vrid)
    }

    fn ever(&self, kinds: &[Kind], machine: usize) -> bool {
        self.began.iter().any(|(kind, of)| {
            kinds.contains(kind) && (*of == machine || kind.scope() != Scope::Machine)
        })
    }

    /// A deadline that is past after a turn means work for the next; without an end it is a spin.
    fn nobody_spins(&mut self, turn: &Turn) -> Found {
        let spins = self.spins.entry(turn.machine).or_default();
        *spins = if turn.is_due { *spins + 1 } else { 0 };
        if *spins > SPINS_MAX {
            return Err(format!("machine {}: its deadline stays in the past", turn.machine));
        }
        Ok(())
    }

    /// What a node remembers grows with what it is told to run and with its kernel, and with
    /// neither time nor what others send.
    fn queues_and_maps_are_bounded(&self, world: &World) -> Found {
        world
            .turns
            .iter()
            .map(|turn| turn.machine)
            .collect::<BTreeSet<_>>()
            .into_iter()
            .try_for_each(|machine| {
                let config = self.running.get(&machine).map(AsRef::as_ref);
                self.bounds.check(world, machine, config)
            })
    }
}

/// Every address that a router has while it is active.
fn vips(router: &Router) -> impl Iterator<Item = &Prefix> {
    router.vips.iter().chain(&router.vips_excluded)
}

/// The VRID of a router, which is its name in these sites.
fn vrid(name: &str) -> u8 {
    name.parse().unwrap()
}

fn is_active(world: &World, machine: usize, of: u8) -> bool {
    world.node(machine).is_some_and(|node| {
        node.states().any(|state| state.active && vrid(state.name.as_str()) == of)
    })
}
