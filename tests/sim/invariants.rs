//! What must be true after every step of every schedule, whatever was done to the world. Each rule
//! is a function that is named after it.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use havip::config::{Config, Prefix, Router};
use havip::node::Instant;
use havip::node::kernel::IFA_PROTO_HAVIP;
use havip::node::notice::{Level, Notice};
use havip::node::router::Reason;
use havip::sim::{Turn, World};
use havip::wire::vrrp::Version;

use super::bounds::Bounds;
use super::coverage::Coverage;
use super::faults::{Fault, Kind, Scope};
use super::site::Site;

/// Time for packets, the kernel's answers and the store's news to arrive, with a margin.
const SETTLED: Duration = Duration::from_millis(60);
/// The same after something was wrong with a machine: a dump, an operation and a socket are each
/// tried again after a second.
const RECOVERED: Duration = Duration::from_millis(3_200);
/// From the kernel's word that an address is there to its announcement, with other routers' before.
const ANNOUNCED: Duration = Duration::from_millis(20);
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
        if let Some(config) = turn.configs.last() {
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

    /// An operator is woken by errors: each must come from something that is wrong.
    fn no_error_without_a_fault(&self, turn: &Turn) -> Found {
        for notice in turn.notices.iter().filter(|notice| notice.level() == Level::Error) {
            let causes: &[Kind] = match notice {
                // Told neither in notifications nor in a dump, it adds what is there.
                Notice::AddressFailed { .. } => {
                    &[Kind::DumpsFail, Kind::LinkGone, Kind::Operations]
                }
                // What this machine says does not arrive at the other, or not in time.
                Notice::DoesNotYield { .. } => &[
                    // Over IPv6 nothing leaves without one, and it may not hear that it has none.
                    Kind::AddressGone,
                    Kind::Bursts,
                    Kind::Corrupt,
                    Kind::Cut,
                    Kind::Late,
                    Kind::Loss,
                    Kind::Reorder,
                    Kind::SendsFail,
                ],
                // Somebody puts a VIP there.
                Notice::Stray { .. } => &[Kind::Others, Kind::Squat],
                Notice::DumpFailed { .. } => &[Kind::DumpsFail],
                Notice::SendFailed { .. } => &[Kind::SendsFail],
                Notice::Misconfigured { .. } => &[
                    Kind::Interval,
                    Kind::Restored,
                    Kind::EtcdGone,
                    Kind::Emptied,
                    Kind::BadEntry,
                    Kind::Forbidden,
                    Kind::Password,
                    Kind::Torn,
                ],
                _ => &[],
            };
            // What another machine suffers, or is told.
            let others =
                matches!(notice, Notice::DoesNotYield { .. } | Notice::Misconfigured { .. });
            let excused = self.ever(causes, turn.machine)
                || (others && self.began.iter().any(|(kind, _)| causes.contains(kind)));
            if !excused {
                return Err(format!(
                    "machine {}: an error without a fault: {notice}",
                    turn.machine
                ));
            }
        }
        Ok(())
    }

    /// Whoever is told that someone removes addresses looks for him.
    fn nobody_is_said_to_remove_what_nobody_removed(&self, turn: &Turn) -> Found {
        const CAUSES: [Kind; 12] = [
            Kind::Deaf,
            Kind::DumpsFail,
            Kind::Freeze,
            Kind::Kill,
            Kind::Late,
            Kind::LateNotes,
            Kind::LinkGone,
            // Its lifetime ends.
            Kind::Operations,
            Kind::Slow,
            Kind::Squat,
            Kind::Stranger,
            Kind::Others,
        ];
        let said = turn.notices.iter().find(|said| matches!(said, Notice::Restoring { .. }));
        match said.filter(|_| !self.ever(&CAUSES, turn.machine)) {
            Some(said) => Err(format!("machine {}: nobody did: {said}", turn.machine)),
            None => Ok(()),
        }
    }

    /// A process that stood still must hear what came meanwhile before it decides that nobody
    /// spoke: neither with packets unread, nor in the turn that reads the active router's advert.
    fn nobody_takes_over_before_it_has_listened(&self, turn: &Turn) -> Found {
        for notice in &turn.notices {
            let Notice::Transition { router, states: (_, "active"), reason } = notice else {
                continue;
            };
            if *reason == Reason::Owner {
                continue;
            }
            let name = router.as_str();
            if !turn.heard_all {
                return Err(format!("{}: ({name}) took over unheard", turn.machine));
            }
            let Some(config) = self.router(turn.machine, vrid(name)) else { continue };
            let last = turn.heard.iter().rfind(|heard| {
                heard.vrid == config.vrid.number()
                    && heard.family == config.family
                    && heard.version == config.version.number()
            });
            if config.version == Version::V3
                && turn.configs.is_empty()
                && last.is_some_and(|heard| {
                    heard.priority > 0 && heard.priority >= config.priority.number()
                })
            {
                return Err(format!(
                    "{}: ({name}) took over, {reason}, from one that it just heard",
                    turn.machine
                ));
            }
        }
        Ok(())
    }

    /// Whoever said that it goes and then speaks on makes others wait for nobody.
    fn after_priority_zero_comes_nothing_until_it_activates_anew(&mut self, turn: &Turn) -> Found {
        for said in &turn.said {
            let key = (turn.machine, said.vrid);
            if said.priority == 0 {
                self.resigned.insert(key);
            } else if self.resigned.remove(&key) && !activates(turn, said.vrid) {
                return Err(format!(
                    "machine {}: VRID {} gave up and advertises on",
                    turn.machine, said.vrid
                ));
            }
        }
        Ok(())
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

    /// A change of one router is no reason for another to give up or to leave its state.
    fn a_reload_disturbs_no_other_router(&self, turn: &Turn) -> Found {
        let machine = turn.machine;
        let (Some(before), Some(after)) = (self.running.get(&machine), turn.configs.last()) else {
            return Ok(());
        };
        if Self::calm(&self.shaken, machine, turn.at) < RECOVERED || turn.configs.len() > 1 {
            return Ok(());
        }
        for (name, router) in &after.routers {
            if before.routers.get(name) != Some(router) {
                continue;
            }
            let resigned = turn
                .said
                .iter()
                .any(|said| said.priority == 0 && said.vrid == router.vrid.number());
            let moved = turn.notices.iter().any(|notice| {
                matches!(notice, Notice::Transition { router, reason: Reason::Shutdown, .. }
                    if router == name)
            });
            if resigned || moved {
                return Err(format!("machine {machine}: a change of others stopped ({name})"));
            }
        }
        Ok(())
    }

    /// Neither a store that is gone, empty, restored or wrong, nor a start beside one, takes a
    /// router or a VIP away: only a word does.
    fn nothing_is_released_without_a_word(&self, turn: &Turn, site: &Site) -> Found {
        let machine = turn.machine;
        // A start from nothing runs nothing.
        if self.began.contains(&(Kind::Torn, machine)) {
            return Ok(());
        }
        for config in &turn.configs {
            for name in self.ran.get(&machine).into_iter().flatten() {
                let goes_on = config.routers.keys().any(|running| running.as_str() == name);
                if !goes_on && !site.ever_unlisted.contains(&(machine, name.clone())) {
                    return Err(format!("machine {machine}: ({name}) was released by a mistake"));
                }
            }
            let Some(before) = self.running.get(&machine) else { continue };
            for (name, router) in &before.routers {
                let Some(now) = config.routers.get(name) else { continue };
                let lost = vips(router).find(|vip| vips(now).all(|other| other.ip != vip.ip));
                if let Some(vip) = lost.filter(|vip| !site.ever_dropped.contains(&vip.ip)) {
                    return Err(format!("machine {machine}: ({name}) lost {vip} by a mistake"));
                }
            }
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

    /// Hosts and switches send to whoever announced last: an address that came must be announced.
    fn every_added_vip_is_announced(&mut self, world: &World) -> Found {
        let now = world.now();
        let mut waiting = std::mem::take(&mut self.unannounced);
        waiting.retain(|(machine, ip), at| {
            // An addition that the kernel did not answer yet announces it when it does.
            let is_asked = !world.uses(*machine).contains(&("kernel requests", 0));
            // Who was deaf may never hear that the address was gone: what is there is announced
            // after the next dump.
            let was_deaf = Self::calm(&self.deaf, *machine, now) <= RECOVERED;
            if world.is_frozen(*machine) || world.has_notes(*machine) || is_asked || was_deaf {
                *at = now;
            }
            // It may be gone again before its addition was answered.
            world.kernel_of(*machine).0.has(ip) && self.active_with(*machine, *ip)
        });
        self.unannounced = waiting;
        match self.unannounced.iter().find(|(_, at)| now.since(**at) > ANNOUNCED) {
            Some(((machine, ip), _)) => Err(format!("machine {machine}: {ip} is not announced")),
            None => Ok(()),
        }
    }

    /// Silence is what backups take over by: an active router that runs keeps its interval, by
    /// whatever others do to it.
    fn an_active_router_advertises_in_time(&mut self, world: &World) -> Found {
        let now = world.now();
        let mut active = std::mem::take(&mut self.active);
        for ((machine, _), at) in &mut active {
            if world.is_frozen(*machine) {
                at.said_at = now;
            }
        }
        self.active = active;
        for ((machine, name), active) in &self.active {
            let Some(router) = self.router(*machine, *name) else { continue };
            let interval = router.advert_interval.duration();
            // Its clock may be slow by 200 millionths.
            let silence = now.since(active.said_at);
            if silence > interval + interval / 1000 + Duration::from_micros(100) {
                return Err(format!(
                    "machine {machine}: ({name}) is active and silent for {silence:?}"
                ));
            }
        }
        Ok(())
    }

    /// Two that hear each other are one again within an advert: the promise of VRRP.
    fn those_who_hear_each_other_have_one_active(&mut self, world: &World) -> Found {
        let now = world.now();
        let mut together = BTreeMap::new();
        for (a, name) in self.active.keys() {
            let others = self.active.keys().filter(|(b, of)| b > a && of == name);
            for (b, _) in others {
                let (Some(one), Some(other)) = (self.router(*a, *name), self.router(*b, *name))
                else {
                    continue;
                };
                let apart = one.advert_interval != other.advert_interval;
                if one.version == Version::V2 && (apart || one.auth_pass != other.auth_pass) {
                    // RFC 3768 §7.1: they discard each other's adverts.
                    continue;
                }
                let key = (*name, *a, *b);
                let since = self.together.get(&key).copied().unwrap_or(now);
                let bound = one.advert_interval.max(other.advert_interval).duration() + SETTLED;
                let calm =
                    Self::calm(&self.disturbed, *a, now).min(Self::calm(&self.disturbed, *b, now));
                // Whose interface went unheard of hears nobody until it has read the kernel again.
                let knows = |of| Self::calm(&self.unheard, of, now) > RECOVERED;
                let knows = knows(*a) && knows(*b);
                if knows && now.since(since).min(calm) > bound {
                    return Err(format!("({name}) is active on {a} and {b} since {since:?}"));
                }
                together.insert(key, since);
            }
        }
        self.together = together;
        Ok(())
    }

    fn active_with(&self, machine: usize, ip: IpAddr) -> bool {
        self.active.keys().filter(|(of, _)| *of == machine).any(|(_, name)| {
            let router = self.router(machine, *name);
            router.is_some_and(|router| vips(router).any(|vip| vip.ip == ip))
        })
    }

    /// Neither garbage in the store nor what a box's policy forbids becomes an address.
    fn nothing_is_put_that_no_operator_meant(&self, world: &World, site: &Site) -> Found {
        for machine in 0..world.machines() {
            let mut put = world.kernel_of(machine).0.marked();
            if let Some((_, prefix, _)) = put.find(|(_, p, _)| !site.ever_meant.contains(&p.ip)) {
                return Err(format!("machine {machine}: nobody meant {prefix} to be there"));
            }
        }
        Ok(())
    }

    /// An address on the wrong box takes traffic, one that is missing loses it. A process that is
    /// dead or stands still leaves its addresses to their lifetime.
    fn a_vip_is_where_its_router_is_active_and_nowhere_else(&mut self, world: &World) -> Found {
        let now = world.now();
        let mut misplaced = BTreeMap::new();
        let mut missing = BTreeMap::new();
        for machine in 0..world.machines() {
            let (kernel, index) = world.kernel_of(machine);
            for (_, prefix, until) in kernel.marked() {
                if until.is_none() {
                    return Err(format!("machine {machine}: {prefix} would outlive its daemon"));
                }
                if !self.active_with(machine, prefix.ip) {
                    let since = self.misplaced.get(&(machine, prefix)).copied().unwrap_or(now);
                    misplaced.insert((machine, prefix), since);
                }
            }
            for (_, name) in self.active.keys().filter(|(of, _)| *of == machine) {
                let Some(router) = self.router(machine, *name) else { continue };
                for vip in vips(router) {
                    if kernel.holder(index, vip.ip).is_none() {
                        let since = self.missing.get(&(machine, *vip)).copied().unwrap_or(now);
                        missing.insert((machine, *vip), since);
                    }
                }
            }
        }
        (self.misplaced, self.missing) = (misplaced, missing);
        let is_late = |(machine, _): &(usize, Prefix), since: Instant| {
            let calm = Self::calm(&self.disturbed, *machine, now).min(Self::calm(
                &self.unheard,
                *machine,
                now,
            ));
            now.since(since) > SETTLED && calm > RECOVERED
        };
        if let Some(((machine, vip), since)) =
            self.misplaced.iter().find(|(key, since)| is_late(key, **since))
        {
            return Err(format!(
                "machine {machine}: {vip} is there since {since:?}, and its router not active"
            ));
        }
        if let Some(((machine, vip), since)) =
            self.missing.iter().find(|(key, since)| is_late(key, **since))
        {
            return Err(format!(
                "machine {machine}: {vip} is missing since {since:?}, and its router active"
            ));
        }
        Ok(())
    }

    /// What took the place of ours counts as the VIP, alone.
    fn ours_is_not_beside_anothers(&mut self, world: &World) -> Found {
        let mut doubled = BTreeSet::new();
        for machine in 0..world.machines() {
            let (kernel, _) = world.kernel_of(machine);
            let is_beside = |(index, prefix, _): &(_, Prefix, _)| {
                kernel.holder(*index, prefix.ip).is_some_and(|holder| holder.prefix != *prefix)
            };
            doubled.extend(kernel.marked().filter(is_beside).map(|(_, p, _)| (machine, p.ip)));
        }
        match self.late(world, |watch| &mut watch.doubled, doubled) {
            Some((machine, ip)) => Err(format!("machine {machine}: {ip} is there twice")),
            None => Ok(()),
        }
    }

    /// A route that stays takes traffic to where nobody is, one that is missing loses it.
    fn a_route_of_ours_is_there_with_its_vip_and_else_not(&mut self, world: &World) -> Found {
        let mut misrouted = BTreeSet::new();
        for machine in 0..world.machines() {
            let (kernel, _) = world.kernel_of(machine);
            let mut justified = Vec::new();
            for (index, prefix, _) in kernel.marked() {
                let len =
                    self.active.keys().filter(|(of, _)| *of == machine).find_map(|(_, name)| {
                        let vips = vips(self.router(machine, *name)?);
                        vips.into_iter().find(|vip| vip.ip == prefix.ip).map(|vip| vip.len)
                    });
                let is_local = matches!(prefix.ip, IpAddr::V6(ip) if ip.is_unicast_link_local());
                let Some(len) = len.filter(|len| *len < prefix.len && !is_local) else { continue };
                let wanted = Prefix { ip: prefix.ip, len };
                let found = kernel.routes().iter().position(|route| {
                    route.protocol == IFA_PROTO_HAVIP
                        && (route.index, route.network.len) == (index, len)
                        && wanted.contains(&route.network.ip)
                        && route.source.is_none_or(|source| source == prefix.ip)
                });
                match found {
                    Some(at) => justified.push(at),
                    None => _ = misrouted.insert((machine, prefix.ip)),
                }
            }
            let ours = kernel.routes().iter().enumerate();
            let ours = ours.filter(|(_, route)| route.protocol == IFA_PROTO_HAVIP);
            let left = ours.filter(|(at, _)| !justified.contains(at));
            misrouted.extend(left.map(|(_, route)| (machine, route.network.ip)));
        }
        match self.late(world, |watch| &mut watch.misrouted, misrouted) {
            Some((machine, ip)) => Err(format!("machine {machine}: the route of {ip} is wrong")),
            None => Ok(()),
        }
    }

    /// Remembers since when each of `now` is as it is; gives one that had the time to change.
    fn late(
        &mut self,
        world: &World,
        of: impl Fn(&mut Self) -> &mut BTreeMap<(usize, IpAddr), Instant>,
        found: BTreeSet<(usize, IpAddr)>,
    ) -> Option<(usize, IpAddr)> {
        let now = world.now();
        let before = std::mem::take(of(self));
        let since = |key: &(usize, IpAddr)| before.get(key).copied().unwrap_or(now);
        let found: BTreeMap<_, _> = found.into_iter().map(|key| (key, since(&key))).collect();
        let late = found.iter().find(|((machine, _), since)| {
            let calm = Self::calm(&self.disturbed, *machine, now);
            let calm = calm.min(Self::calm(&self.unheard, *machine, now));
            now.since(**since) > SETTLED && calm > RECOVERED
        });
        let late = late.map(|(key, _)| *key);
        *of(self) = found;
        late
    }

    /// What an operator put on the box, and the routes that the kernel made for it, are the
    /// operator's. Who replaces an address of ours before the node can have heard of it loses it:
    /// the kernel removes and renews by address, not by owner, and it takes notifications that come
    /// late or not at all for that to last longer than microseconds.
    fn nothing_of_others_changes(&mut self, world: &World) -> Found {
        for machine in 0..world.machines() {
            let all = &world.kernel_of(machine).0.wronged;
            let known = self.wronged.insert(machine, all.len()).unwrap_or(0);
            let hears = Self::calm(&self.unheard, machine, world.now()) > RECOVERED;
            if let Some(what) = all.get(known).filter(|_| hears) {
                return Err(format!("machine {machine}: {what}"));
            }
        }
        Ok(())
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

fn activates(turn: &Turn, of: u8) -> bool {
    turn.notices.iter().any(|notice| {
        matches!(notice, Notice::Transition { router, states: (_, "active"), .. }
            if vrid(router.as_str()) == of)
    })
}

/// In peace every router has one active, which alone has its VIPs, and it stays.
pub(crate) fn every_router_has_one_owner(
    world: &World,
    site: &Site,
    coverage: &mut Coverage,
) -> Found {
    coverage.asked("every_router_has_one_owner");
    for (at, router) in site.routers.iter().enumerate() {
        let could: Vec<usize> =
            (0..site.machines()).filter(|machine| site.is_listed(*machine, at)).collect();
        let active = world.active(&router.name);
        if active.len() != 1 || !could.contains(&active[0]) {
            return Err(format!("in peace ({}) is active on {active:?}", router.name));
        }
        for vip in site.vips(at) {
            let holders = world.holders(vip);
            if holders != active {
                return Err(format!(
                    "in peace {vip} is on {holders:?}, ({}) active on {active:?}",
                    router.name
                ));
            }
        }
    }
    Ok(())
}
