//! A router's VIPs: what must hold between them, and whether the store may set them.

use std::collections::BTreeSet;
use std::net::IpAddr;

use super::{Bad, Builder};
use crate::config::effective::{Found, View};
use crate::config::model::{IfName, Prefix, RouterName};
use crate::config::problem::{Problem, Severity};
use crate::wire::Family;
use crate::wire::vrrp::Version;

/// Addresses that an advert can count (RFC 9568 section 5.2.5).
const ADVERTISED_MAX: usize = 255;

/// VIPs, those listed twice, and where they stand.
type Vips<'a> = ((Vec<Prefix>, Vec<Prefix>), Option<Found<'a>>);

impl<'a> Builder<'a> {
    pub(super) fn without_doubles(
        &mut self,
        ((vips, doubles), found): Vips<'a>,
    ) -> (Vec<Prefix>, Option<Found<'a>>) {
        if let Some(found) = &found {
            for double in doubles {
                let message = format!("{} is listed twice; the first one counts", double.ip);
                self.report(Severity::Warning, &found.path, found.entry, message);
            }
        }
        (vips, found)
    }

    /// `excluded` without what is advertised already.
    pub(super) fn not_both(
        &mut self,
        vips: &[Prefix],
        excluded: Vec<Prefix>,
        found: Option<&Found<'a>>,
    ) -> Vec<Prefix> {
        let advertised: BTreeSet<IpAddr> = vips.iter().map(|vip| vip.ip).collect();
        let (both, excluded): (Vec<_>, Vec<_>) =
            excluded.into_iter().partition(|vip| advertised.contains(&vip.ip));
        if let Some(found) = found {
            for vip in both {
                let message = format!("{} stands in vips too, which counts", vip.ip);
                self.report(Severity::Warning, &found.path, found.entry, message);
            }
        }
        excluded
    }

    /// The one family of the VIPs, and what follows from it.
    pub(super) fn family(
        &mut self,
        name: &RouterName,
        vips: &[Prefix],
        found: Option<&Found<'a>>,
        (version, version_found): &(Version, Option<Found<'a>>),
    ) -> Result<Family, Bad> {
        let mut tell = |severity, found: Option<&Found<'a>>, message: String| {
            self.problems.push(match found {
                Some(found) => Problem::at(severity, &found.path, &found.entry.origin, message),
                None => {
                    Problem::missing(severity, &View::own_place(name.as_str(), "vips"), message)
                }
            });
            Bad
        };
        let Some(first) = vips.first() else {
            let message = "empty; a router has at least one VIP".into();
            return Err(tell(Severity::Error, found, message));
        };
        let family = Family::of(&first.ip);
        if let Some(other) = vips.iter().find(|vip| Family::of(&vip.ip) != family) {
            let message = format!(
                "{first} and {other} are of different families; put those of one family into \
                 vips_excluded, or into a router of their own"
            );
            return Err(tell(Severity::Error, found, message));
        }
        if *version == Version::V2 && family == Family::V6 {
            let message = "version 2 has no IPv6; set version = \"3\" for this router".into();
            return Err(tell(Severity::Error, version_found.as_ref().or(found), message));
        }
        if let IpAddr::V6(ip) = first.ip
            && !ip.is_unicast_link_local()
        {
            let message = format!(
                "{first} comes first, but peers discard adverts whose first IPv6 address is not \
                 link-local; put one from fe80::/10 in front"
            );
            return Err(tell(Severity::Error, found, message));
        }
        if vips.len() > ADVERTISED_MAX {
            let message = format!(
                "{} VIPs, but an advert carries {ADVERTISED_MAX}: the last {} are held, not \
                 advertised; write those into vips_excluded",
                vips.len(),
                vips.len() - ADVERTISED_MAX
            );
            let _ = tell(Severity::Warning, found, message);
        }
        Ok(family)
    }

    pub(super) fn policy_of_interface(
        &mut self,
        interface: &IfName,
        found: Option<&Found<'a>>,
    ) -> Result<(), Bad> {
        let Some(found) = found.filter(|found| found.entry.origin.is_store()) else {
            return Ok(());
        };
        self.input.policy.allows_interface(interface).map_err(|why| {
            self.report(Severity::Error, &found.path, found.entry, why);
            Bad
        })
    }

    /// A local interface does not make a store's VIP harmless, nor the other way round: each
    /// value is judged by its own origin.
    pub(super) fn policy_of_vips(
        &mut self,
        vips: &[Prefix],
        found: Option<&Found<'a>>,
    ) -> Result<(), Bad> {
        let Some(found) = found.filter(|found| found.entry.origin.is_store()) else {
            return Ok(());
        };
        let (policy, facts) = (self.input.policy, self.input.facts);
        vips.iter().try_for_each(|vip| policy.allows_vip(vip, facts)).map_err(|why| {
            self.report(Severity::Error, &found.path, found.entry, why);
            Bad
        })
    }
}
