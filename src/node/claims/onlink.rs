//! The on-link route of a VIP that is configured with its network's prefix length.
//!
//! The kernel would make one by itself for an address of that length, and take it away with that
//! address; but the same route may serve addresses of others. This one is havip's own: recognised
//! by its protocol number, of a metric behind everybody else's, there as long as the VIP is.

use std::net::IpAddr;

use super::work::{Kind, Lane};
use super::{Claims, Done, EEXIST, ENODEV, ESRCH, Holder, RETRY, of_link};
use crate::config::Prefix;
use crate::node::Instant;
use crate::node::kernel::{Errno, MAIN_TABLE, Op, Verb};
use crate::node::links::{Links, Place};
use crate::wire::Family;

/// A route to the network of a VIP's prefix.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Route {
    len: u8,
    table: u32,
}

/// What is known of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Standing {
    /// It was asked for, or that failed.
    Unsure,
    /// It was asked for, and another VIP of ours has left its own of the same network to it.
    TakesOver,
    /// It is there, and havip made it.
    Ours,
    /// Another's of the same metric is there: it stays as it is.
    Others,
}

/// Whether a prefix is more than its address, and its network something that the kernel does not
/// have on every link anyway.
fn has_network(ip: IpAddr, len: u8) -> bool {
    let everywhere = matches!(ip, IpAddr::V6(ip) if ip.is_unicast_link_local());
    len < Family::of(&ip).bits() && !everywhere
}

impl Claims {
    /// The route that should be there: with an address of ours, while the link is up.
    fn wanted_route(&self, place: &Place, links: &Links) -> Option<Route> {
        let len = self.wanted.get(place)?.len;
        let link = links.link(place.0).filter(|link| link.up)?;
        let wanted = has_network(place.1.ip, len) && self.holder(place, links) == Holder::Ours;
        wanted.then_some(Route { len, table: link.vrf_table.unwrap_or(MAIN_TABLE) })
    }

    pub(super) fn look_at_route(&mut self, place: Place, links: &Links) {
        let wanted = self.wanted_route(&place, links);
        let is_renewed = self.work.is_queued(Kind::Route, &place);
        self.work.unqueue(Kind::Route, &place);
        self.work.unqueue(Kind::Unroute, &place);
        let kind = match (wanted, self.routes.get(&place)) {
            (None, None) => {
                self.pauses.unhold(&(place, Lane::Route));
                self.doubtful.remove(&(place, Lane::Route));
                return;
            }
            (Some(_), None) => Kind::Route,
            (Some(wanted), Some((route, standing))) if wanted == *route => match standing {
                Standing::Ours | Standing::Others if is_renewed => Kind::Route,
                Standing::Ours | Standing::Others => return,
                // Whatever is there of it goes first.
                Standing::Unsure | Standing::TakesOver => Kind::Unroute,
            },
            // The kernel removes an IPv4 route with its preferred source; it is asked to all the same,
            // as a report that the address is gone may be older than this route.
            (Some(_) | None, Some(_)) => Kind::Unroute,
        };
        self.work.queue(kind, place);
    }

    pub(super) fn route(&mut self, place: Place, links: &Links) -> Option<Op> {
        let Route { len, table } = self.wanted_route(&place, links)?;
        let lifetime = self.longest(&place, Route { len, table })?;
        let again = match self.routes.get(&place) {
            Some((_, Standing::Ours)) => true,
            // It may have gone meanwhile.
            Some((_, Standing::Others)) => false,
            Some((_, Standing::Unsure | Standing::TakesOver)) => return None,
            None => {
                self.routes.insert(place, (Route { len, table }, Standing::Unsure));
                false
            }
        };
        let prefix = Prefix { ip: place.1.ip, len };
        Some(Op { index: place.0, prefix, verb: Verb::Route { table, lifetime, again } })
    }

    pub(super) fn unroute(&mut self, place: Place, links: &Links) -> Option<Op> {
        let (route, standing) = self.routes.get(&place).copied()?;
        if standing == Standing::Others
            || self.is_shared(&place, route)
            || (standing == Standing::Ours && self.leave_to_another(&place, route))
        {
            self.routes.remove(&place);
            self.look_at_route(place, links);
            return None;
        }
        let prefix = Prefix { ip: place.1.ip, len: route.len };
        Some(Op { index: place.0, prefix, verb: Verb::Unroute { table: route.table } })
    }

    /// The longest lifetime of the VIPs that stand on one route: the others renew it too.
    fn longest(&self, place: &Place, route: Route) -> Option<Option<u32>> {
        let own = self.wanted.get(place)?.lifetime;
        let others = self.alike(place, route).filter_map(|(other, _)| self.wanted.get(&other));
        let mut all = others.map(|claim| claim.lifetime).chain([own]);
        Some(all.try_fold(0, |longest, lifetime| Some(lifetime?.max(longest))))
    }

    /// Whether another VIP of ours stands on the same route.
    fn is_shared(&self, place: &Place, route: Route) -> bool {
        self.alike(place, route).any(|(_, standing)| standing == Standing::Ours)
    }

    /// Leaves the route to another VIP of ours that has asked for the same and has no answer yet.
    fn leave_to_another(&mut self, place: &Place, route: Route) -> bool {
        let asked = |(other, standing): &(Place, Standing)| {
            *standing == Standing::Unsure && self.work.is_under_way(Kind::Route, other)
        };
        let Some((next, _)) = self.alike(place, route).find(asked) else { return false };
        self.routes.insert(next, (route, Standing::TakesOver));
        true
    }

    /// Other VIPs of ours whose route is the same. IPv4 has one for each, told apart by their
    /// preferred source.
    fn alike(&self, place: &Place, route: Route) -> impl Iterator<Item = (Place, Standing)> {
        let (index, ip) = (place.0, place.1.ip);
        let network = Prefix { ip, len: route.len };
        let all = of_link(&self.routes, index)
            .filter(move |other| ip.is_ipv6() && other.1.ip != ip && network.contains(&other.1.ip));
        all.filter_map(move |other| {
            let (of, standing) = self.routes.get(&other)?;
            (*of == route).then_some((other, *standing))
        })
    }

    pub(super) fn route_done(
        &mut self,
        now: Instant,
        place: Place,
        op: Op,
        result: Result<(), Errno>,
    ) -> Option<Done> {
        let key = (place, Lane::Route);
        let (route, before) = self.routes.get(&place).copied()?;
        let standing = match (op.verb, result) {
            (Verb::Unroute { .. }, Ok(()) | Err(Errno(ESRCH | ENODEV))) => {
                self.routes.remove(&place);
                self.doubtful.remove(&key);
                return None;
            }
            (Verb::Route { .. }, Ok(())) => Standing::Ours,
            (Verb::Route { again, .. }, Err(Errno(EEXIST))) => {
                // The kernel adds an IPv4 route beside one of another preferred source.
                let ours = again
                    || place.1.ip.is_ipv4()
                    || before == Standing::TakesOver
                    || self.is_shared(&place, route);
                if ours { Standing::Ours } else { Standing::Others }
            }
            (_, Err(errno)) => {
                self.routes.insert(place, (route, Standing::Unsure));
                self.pauses.hold(key, now + RETRY);
                // Its address or its link may be gone already.
                return (!self.doubtful.insert(key)).then_some(Done::Failed(op, errno));
            }
            (_, Ok(())) => return None,
        };
        self.doubtful.remove(&key);
        self.routes.insert(place, (route, standing));
        let is_joined = matches!(op.verb, Verb::Route { again: false, .. }) && result.is_err();
        if is_joined && standing == Standing::Ours && place.1.ip.is_ipv6() {
            // Its lifetime is another VIP's, and may be shorter.
            self.work.queue(Kind::Route, place);
        }
        None
    }
}
