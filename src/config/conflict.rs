//! Routers that cannot run beside each other: what may stand only once, and who keeps it.
//!
//! Who held something in the running configuration keeps it, so that a mistake at one router
//! takes nothing from another. A router that loses goes back to the form it had.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use super::model::{Config, IfName, Router, RouterName};
use crate::wire::Family;
use crate::wire::vrrp::Vrid;

/// Something that only one router of a node can have.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Claim {
    /// The identity on the wire.
    Id(IfName, Family, Vrid),
    /// An address on an interface.
    Vip(IfName, IpAddr),
}

impl Claim {
    fn of(router: &Router) -> impl Iterator<Item = Self> {
        let on = &router.interface;
        let id = Self::Id(on.clone(), router.family, router.vrid);
        let vips = router.vips.iter().chain(&router.vips_excluded);
        std::iter::once(id).chain(vips.map(|vip| Self::Vip(on.clone(), vip.ip)))
    }
}

/// A router that cannot have the form that its keys ask for.
#[derive(Debug)]
pub(super) struct Refused {
    pub(super) router: RouterName,
    pub(super) claim: Claim,
    /// Whose it is.
    pub(super) winner: RouterName,
    /// Whether it runs on in the form it had.
    pub(super) kept: bool,
}

impl Refused {
    /// What is wrong, and the way out.
    pub(super) fn message(&self) -> String {
        let winner = &self.winner;
        match &self.claim {
            Claim::Id(interface, family, vrid) => format!(
                "VRID {vrid} of {family} on {interface} is router {winner}'s already; choose \
                 another vrid or interface"
            ),
            Claim::Vip(interface, ip) => format!(
                "{ip} on {interface} is router {winner}'s already; take it out of one of the two"
            ),
        }
    }
}

/// Settles who runs in which form.
pub(super) fn settle(
    wanted: Vec<Arc<Router>>,
    previous: Option<&Config>,
) -> (BTreeMap<RouterName, Arc<Router>>, Vec<Refused>) {
    let mut chosen: BTreeMap<RouterName, Arc<Router>> =
        wanted.into_iter().map(|router| (router.name.clone(), router)).collect();
    let before = |name: &RouterName| previous.and_then(|config| config.routers.get(name));
    let mut held: BTreeMap<Claim, RouterName> = BTreeMap::new();
    for router in chosen.keys().filter_map(before) {
        held.extend(Claim::of(router).map(|claim| (claim, router.name.clone())));
    }
    let mut refused: BTreeMap<RouterName, Refused> = BTreeMap::new();
    loop {
        let mut losers = against_holders(&chosen, &held);
        if losers.is_empty() {
            losers = in_order(&chosen);
        }
        if losers.is_empty() {
            return (chosen, refused.into_values().collect());
        }
        // Each turn takes a form from at least one router, and each has two at most.
        for (name, (claim, winner)) in losers {
            let form = before(&name).filter(|form| chosen.get(&name) != Some(form)).cloned();
            let kept = form.is_some();
            match form {
                Some(form) => _ = chosen.insert(name.clone(), form),
                None => _ = chosen.remove(&name),
            }
            refused
                .entry(name.clone())
                .and_modify(|refused| refused.kept = kept)
                .or_insert(Refused { router: name, claim, winner, kept });
        }
    }
}

type Losers = BTreeMap<RouterName, (Claim, RouterName)>;

/// Who claims what another held and still wants.
fn against_holders(
    chosen: &BTreeMap<RouterName, Arc<Router>>,
    held: &BTreeMap<Claim, RouterName>,
) -> Losers {
    let mut kept: BTreeMap<Claim, &RouterName> = BTreeMap::new();
    for (name, router) in chosen {
        kept.extend(
            Claim::of(router).filter(|claim| held.get(claim) == Some(name)).map(|c| (c, name)),
        );
    }
    let lost = |(name, router): (&RouterName, &Arc<Router>)| {
        Claim::of(router).find_map(|claim| {
            let holder = *kept.get(&claim).filter(|holder| **holder != name)?;
            Some((name.clone(), (claim, holder.clone())))
        })
    };
    chosen.iter().filter_map(lost).collect()
}

/// Who comes after another in the order of names that claims the same.
fn in_order(chosen: &BTreeMap<RouterName, Arc<Router>>) -> Losers {
    let mut taken: BTreeMap<Claim, &RouterName> = BTreeMap::new();
    let mut losers = Losers::new();
    for (name, router) in chosen {
        let claims: BTreeSet<Claim> = Claim::of(router).collect();
        let lost =
            claims.iter().find_map(|claim| Some((claim.clone(), (*taken.get(claim)?).clone())));
        match lost {
            Some(lost) => _ = losers.insert(name.clone(), lost),
            None => taken.extend(claims.into_iter().map(|claim| (claim, name))),
        }
    }
    losers
}
