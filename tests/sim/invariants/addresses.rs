//! What the kernels carry: each VIP where its router is active, announced, with its route, and
//! nothing of others' changed.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::Duration;

use havip::config::Prefix;
use havip::node::Instant;
use havip::node::kernel::IFA_PROTO_HAVIP;
use havip::sim::World;

use super::super::site::Site;
use super::{Found, RECOVERED, SETTLED, Watch, vips};

/// From the kernel's word that an address is there to its announcement, with other routers' before.
const ANNOUNCED: Duration = Duration::from_millis(20);

impl Watch {
    /// Neither garbage in the store nor what a box's policy forbids becomes an address.
    pub(super) fn nothing_is_put_that_no_operator_meant(
        &self,
        world: &World,
        site: &Site,
    ) -> Found {
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
    pub(super) fn a_vip_is_where_its_router_is_active_and_nowhere_else(
        &mut self,
        world: &World,
    ) -> Found {
        let mut misplaced = BTreeSet::new();
        let mut missing = BTreeSet::new();
        for machine in 0..world.machines() {
            let (kernel, index) = world.kernel_of(machine);
            for (_, prefix, until) in kernel.marked() {
                if until.is_none() {
                    return Err(format!("machine {machine}: {prefix} would outlive its daemon"));
                }
                if !self.active_with(machine, prefix.ip) {
                    misplaced.insert((machine, prefix));
                }
            }
            for (_, name) in self.active.keys().filter(|(of, _)| *of == machine) {
                let Some(router) = self.router(machine, *name) else { continue };
                let lacks = |vip: &&Prefix| kernel.holder(index, vip.ip).is_none();
                missing.extend(vips(router).filter(lacks).map(|vip| (machine, *vip)));
            }
        }
        let misplaced = self.late(world, |watch| &mut watch.misplaced, misplaced);
        let missing = self.late(world, |watch| &mut watch.missing, missing);
        if let Some(((machine, vip), since)) = misplaced {
            return Err(format!(
                "machine {machine}: {vip} is there since {since:?}, and its router not active"
            ));
        }
        if let Some(((machine, vip), since)) = missing {
            return Err(format!(
                "machine {machine}: {vip} is missing since {since:?}, and its router active"
            ));
        }
        Ok(())
    }

    /// Hosts and switches send to whoever announced last: an address that came must be announced.
    pub(super) fn every_added_vip_is_announced(&mut self, world: &World) -> Found {
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

    /// A route that stays takes traffic to where nobody is, one that is missing loses it.
    pub(super) fn a_route_of_ours_is_there_with_its_vip_and_else_not(
        &mut self,
        world: &World,
    ) -> Found {
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
            Some(((machine, ip), _)) => {
                Err(format!("machine {machine}: the route of {ip} is wrong"))
            }
            None => Ok(()),
        }
    }

    /// What took the place of ours counts as the VIP, alone.
    pub(super) fn ours_is_not_beside_anothers(&mut self, world: &World) -> Found {
        let mut doubled = BTreeSet::new();
        for machine in 0..world.machines() {
            let (kernel, _) = world.kernel_of(machine);
            let is_beside = |(index, prefix, _): &(_, Prefix, _)| {
                kernel.holder(*index, prefix.ip).is_some_and(|holder| holder.prefix != *prefix)
            };
            doubled.extend(kernel.marked().filter(is_beside).map(|(_, p, _)| (machine, p.ip)));
        }
        match self.late(world, |watch| &mut watch.doubled, doubled) {
            Some(((machine, ip), _)) => Err(format!("machine {machine}: {ip} is there twice")),
            None => Ok(()),
        }
    }

    /// What an operator put on the box, and the routes that the kernel made for it, are the
    /// operator's. Who replaces an address of ours before the node can have heard of it loses it:
    /// the kernel removes and renews by address, not by owner, and it takes notifications that come
    /// late or not at all for that to last longer than microseconds.
    pub(super) fn nothing_of_others_changes(&mut self, world: &World) -> Found {
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

    fn active_with(&self, machine: usize, ip: IpAddr) -> bool {
        self.active.keys().filter(|(of, _)| *of == machine).any(|(_, name)| {
            let router = self.router(machine, *name);
            router.is_some_and(|router| vips(router).any(|vip| vip.ip == ip))
        })
    }

    /// Remembers since when each of `found` is as it is; gives one that had the time to change.
    fn late<T: Copy + Ord>(
        &mut self,
        world: &World,
        of: impl Fn(&mut Self) -> &mut BTreeMap<(usize, T), Instant>,
        found: BTreeSet<(usize, T)>,
    ) -> Option<((usize, T), Instant)> {
        let now = world.now();
        let before = std::mem::take(of(self));
        let since = |key: &(usize, T)| before.get(key).copied().unwrap_or(now);
        let found: BTreeMap<_, _> = found.into_iter().map(|key| (key, since(&key))).collect();
        let late = found.iter().find(|((machine, _), since)| {
            let calm = Self::calm(&self.disturbed, *machine, now);
            let calm = calm.min(Self::calm(&self.unheard, *machine, now));
            now.since(**since) > SETTLED && calm > RECOVERED
        });
        let late = late.map(|(key, since)| (*key, *since));
        *of(self) = found;
        late
    }
}
