//! Who is active, and says so: VRRP's promises, and that only an operator's word takes a router away.

use std::collections::BTreeMap;
use std::time::Duration;

use havip::node::notice::Notice;
use havip::node::router::Reason;
use havip::sim::{Turn, World};
use havip::wire::vrrp::Version;

use super::super::coverage::Coverage;
use super::super::faults::Kind;
use super::super::site::Site;
use super::{Found, RECOVERED, SETTLED, Watch, vips, vrid};

impl Watch {
    /// A process that stood still must hear what came meanwhile before it decides that nobody
    /// spoke: neither with packets unread, nor in the turn that reads the active router's advert.
    pub(super) fn nobody_takes_over_before_it_has_listened(&self, turn: &Turn) -> Found {
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
    pub(super) fn after_priority_zero_comes_nothing_until_it_activates_anew(
        &mut self,
        turn: &Turn,
    ) -> Found {
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

    /// Silence is what backups take over by: an active router that runs keeps its interval, by
    /// whatever others do to it.
    pub(super) fn an_active_router_advertises_in_time(&mut self, world: &World) -> Found {
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
    pub(super) fn those_who_hear_each_other_have_one_active(&mut self, world: &World) -> Found {
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

    /// A change of one router is no reason for another to give up or to leave its state.
    pub(super) fn a_reload_disturbs_no_other_router(&self, turn: &Turn) -> Found {
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
    pub(super) fn nothing_is_released_without_a_word(&self, turn: &Turn, site: &Site) -> Found {
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

fn activates(turn: &Turn, of: u8) -> bool {
    turn.notices.iter().any(|notice| {
        matches!(notice, Notice::Transition { router, states: (_, "active"), .. }
            if vrid(router.as_str()) == of)
    })
}
