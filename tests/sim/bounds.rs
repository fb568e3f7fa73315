//! How much a node may remember: what its configuration and its kernel justify, or a constant,
//! whatever others do and however long it runs.

use std::collections::{BTreeMap, BTreeSet};

use havip::config::{Config, Prefix};
use havip::sim::World;
use havip::wire::IfIndex;

use super::invariants::Found;

/// Changes kept while a dump is under way, and kinds of notices that are held back.
const CHANGES_MAX: usize = 65_536;
const LIMITS_MAX: usize = 4_096;
/// Operations on their way to the kernel: two requests of 32.
const OPERATIONS_MAX: usize = 64;
/// Peers of one router whose checksum form is remembered.
const PEERS_MAX: usize = 16;
/// Reasons to discard a packet.
const DISCARDS_MAX: usize = 16;
/// Requests to the kernel beside those for sockets: a dump, and two with operations.
const REQUESTS_MAX: usize = 3;

/// What one machine's kernel had of late.
#[derive(Default)]
struct Carried {
    links: BTreeSet<IfIndex>,
    addresses: BTreeSet<(IfIndex, Prefix)>,
    /// What kept a removal of an on-link route from being done keeps the route remembered.
    routed: BTreeSet<(IfIndex, Prefix)>,
}

/// What every machine's kernel had since its daemon last knew all of it.
#[derive(Default)]
pub(crate) struct Bounds {
    carried: BTreeMap<usize, Carried>,
}

impl Bounds {
    /// Takes note of what the kernels have now of which a daemon has heard, or will hear; `knows`
    /// says whether a machine's daemon was told of everything.
    /// `works` says whether its kernel does what is asked of it.
    pub(crate) fn note(
        &mut self,
        world: &World,
        knows: impl Fn(usize) -> bool,
        works: impl Fn(usize) -> bool,
    ) {
        for machine in 0..world.machines() {
            let has_notes = world.has_notes(machine);
            if !has_notes && world.turns.iter().all(|turn| turn.machine != machine) {
                continue;
            }
            let carried = self.carried.entry(machine).or_default();
            let is_answered = world.uses(machine).contains(&("kernel requests", 0));
            if knows(machine) && is_answered && !has_notes {
                let routed = std::mem::take(&mut carried.routed);
                *carried = Carried::default();
                if !works(machine) {
                    carried.routed = routed;
                }
            }
            let snapshot = world.kernel_of(machine).0.snapshot();
            carried.links.extend(snapshot.links.iter().map(|link| link.index));
            let places = snapshot.addresses.iter().map(|address| (address.index, address.prefix));
            carried.addresses.extend(places.clone());
            carried.routed.extend(places);
        }
    }

    /// Holds everything that a machine's daemon remembers and uses against its bound; `config` is
    /// what it runs.
    pub(crate) fn check(&self, world: &World, machine: usize, config: Option<&Config>) -> Found {
        let Some(node) = world.node(machine) else { return Ok(()) };
        let routers = config.map_or(0, |config| config.routers.len());
        let vips = config.map_or(0, |config| {
            let all = config.routers.values();
            all.map(|router| router.vips.len() + router.vips_excluded.len()).sum()
        });
        let (links, addresses, routed) = self.carried.get(&machine).map_or((0, 0, 0), |carried| {
            (carried.links.len(), carried.addresses.len(), carried.routed.len())
        });
        let sockets = 2 * links;
        for (what, count) in node.sizes().chain(world.uses(machine)) {
            let most = match what {
                "routers" | "routers by name" | "routers by interface" | "routers by VRID" => {
                    routers
                }
                // When it speaks, when it renews, when it is looked at again.
                "timers" => 3 * routers,
                "changes" => CHANGES_MAX,
                "limits" => LIMITS_MAX,
                "limits of what goes on" => LIMITS_MAX * PEERS_MAX,
                // They are of one call.
                "effects" => 0,
                // Each VRID of a port.
                "VRIDs looked at" => 255 * routers.min(sockets),
                "VIPs on the box" => addresses,
                "checksum forms" | "peers" => PEERS_MAX * routers,
                // An advert and a farewell, in both forms.
                "packets kept" => 4 * routers,
                "links" | "links by name" | "links by MAC" => links,
                // None has another name.
                "other names" => 0,
                "routers that changed" | "untold changes" => routers,
                "addresses" | "IP addresses" | "put" | "to remove" => addresses,
                // Of what is claimed, and of what was until its route is removed.
                "routes" | "to unroute" => vips + routed,
                // One of either family on each link, and for each router at most.
                "ports" | "port counters" => routers.min(sockets),
                "ports being opened or left" | "ports to try again" => sockets,
                // They are of one turn.
                "ports that nobody needs" | "routers to look at" | "watches out of date" => 0,
                "discards" => DISCARDS_MAX * routers.min(sockets),
                "send errors" => routers.min(links),
                "routers by VIP"
                | "claims"
                | "places"
                | "unfit VIPs"
                | "to renew"
                | "to add"
                | "to route"
                | "added"
                | "losses"
                | "announced"
                | "announcements"
                | "probed"
                | "probes"
                | "links with announcements" => vips,
                // VIPs, and what adverts are sent from.
                "watched addresses" => vips + routers,
                "held back" | "doubtful" => 2 * (vips + addresses.max(routed)),
                "ways open" => vips,
                "ways shut" => addresses,
                "ways to be told" => 0,
                "asked" | "told" => OPERATIONS_MAX,
                "watched ports" | "watched virtual routers" => routers,
                "sockets" => sockets,
                "kernel requests" => REQUESTS_MAX + sockets,
                _ => return Err(format!("nothing is known of how many {what} there may be")),
            };
            if count > most {
                return Err(format!("machine {machine}: {count} {what}, and {most} are justified"));
            }
        }
        Ok(())
    }
}
