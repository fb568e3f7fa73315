//! Which of an interface's addresses adverts are sent from.

use std::fmt;
use std::net::IpAddr;

use super::kernel::Address;
use super::links::Links;
use crate::config::{Prefix, Router};
use crate::wire::vrrp::Priority;
use crate::wire::{Family, IfIndex};

/// Why an address was chosen; the best first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Fit {
    /// A VIP of the router is in its subnet: who looks for the VIPs' gateways finds it there.
    Subnet,
    /// IPv4: it is of global scope.
    Global,
    /// IPv6: it is link-local, as the protocol requires.
    LinkLocal,
    /// It is a VIP that another program put there, and there is no better one: the other gateway
    /// may have the same, and neither would hear the other.
    Vip,
    /// IPv4: it is of link scope, as 169.254.0.0/16 is, and there is no better one.
    LinkScope,
}

impl fmt::Display for Fit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Subnet => "its subnet holds a VIP",
            Self::Global => "global scope; no address of the interface has a VIP in its subnet",
            Self::LinkLocal => "link-local",
            Self::Vip => "a VIP itself; the interface has no better address",
            Self::LinkScope => "link scope; the interface has no other address",
        })
    }
}

/// An address to send from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Source {
    pub(super) ip: IpAddr,
    pub(super) fit: Fit,
}

/// How well an address serves; `None`: not at all (RFC 9568 §5.1.1.1, §5.1.2.1).
fn fit(address: &Address, router: &Router) -> Option<Fit> {
    let vips = &router.vips;
    let is_vip = |ip| vips.iter().chain(&router.vips_excluded).any(|vip: &Prefix| vip.ip == ip);
    match address.prefix.ip {
        IpAddr::V4(_) if address.secondary => None,
        IpAddr::V6(_) if !address.link_scope || address.tentative => None,
        ip if router.priority != Priority::OWNER && is_vip(ip) => Some(Fit::Vip),
        IpAddr::V4(_) if vips.iter().any(|vip| address.prefix.contains(&vip.ip)) => {
            Some(Fit::Subnet)
        }
        IpAddr::V4(_) if address.link_scope => Some(Fit::LinkScope),
        IpAddr::V4(_) => Some(Fit::Global),
        IpAddr::V6(_) => Some(Fit::LinkLocal),
    }
}

impl Links {
    /// The address that a router sends its adverts from: the one with the best fit, `kept` if that
    /// is as good as any, then the first. `ours` tells the VIPs that this daemon put there, which
    /// must not be it.
    pub(super) fn source(
        &self,
        index: IfIndex,
        router: &Router,
        kept: Option<IpAddr>,
        ours: impl Fn(&Address) -> bool,
    ) -> Option<Source> {
        let of = |address: &Address| {
            let fit = fit(address, router).filter(|_| !ours(address))?;
            Some(Source { ip: address.prefix.ip, fit })
        };
        let best = match router.family {
            Family::V4 => Fit::Subnet,
            Family::V6 => Fit::LinkLocal,
        };
        // So at nearly each event: not all of a link's addresses are looked at.
        let kept = kept.and_then(|ip| self.with_ip(index, ip).filter_map(of).min_by_key(|s| s.fit));
        if kept.is_some_and(|source| source.fit == best) {
            return kept;
        }
        self.in_order(index)
            .filter(|(_, address)| Family::of(&address.prefix.ip) == router.family)
            .filter_map(|(order, address)| Some((order, of(address)?)))
            .min_by_key(|(order, source)| {
                let is_kept = kept.is_some_and(|kept| kept.ip == source.ip);
                (source.fit, !is_kept, *order)
            })
            .map(|(_, source)| source)
    }
}

#[cfg(test)]
mod tests {
    use super::super::kernel::Change;
    use super::super::testing::{Bench, ETH0, address, router};
    use super::super::{Event, RouterStatus};
    use super::*;

    /// A router with VIP 10.0.0.51 on these addresses.
    fn on(addresses: &[(&str, u8, bool)]) -> Bench {
        Bench::on(addresses, vec![router(51)])
    }

    fn of(router: &RouterStatus) -> (&str, &str) {
        (router.source.as_deref().unwrap(), router.source_reason.as_deref().unwrap())
    }

    fn put(bench: &mut Bench, ip: &str, len: u8, link_scope: bool) {
        bench.event(Event::Kernel(Change::Address(address(ip, len, link_scope))));
    }

    fn take(bench: &mut Bench, ip: &str, len: u8) {
        let prefix = Prefix { ip: ip.parse().unwrap(), len };
        bench.event(Event::Kernel(Change::AddressGone { index: ETH0, prefix }));
    }

    #[test]
    fn a_vips_subnet_goes_before_scope_and_scope_before_order() {
        let link = ("169.254.7.7", 16, true);
        let (other, within) = (("198.51.100.1", 24, false), ("10.0.0.201", 24, false));
        for (addresses, source, reason) in [
            (&[link, other, within][..], "10.0.0.201", "its subnet holds a VIP"),
            (&[link, other], "198.51.100.1", "global scope"),
            (&[other, link], "198.51.100.1", "global scope"),
            (&[link], "169.254.7.7", "link scope"),
        ] {
            let router = on(addresses).router();
            let (is, why) = of(&router);
            assert!(is == source && why.starts_with(reason), "{addresses:?}: {is} {why}");
        }
    }

    #[test]
    fn an_address_in_a_vips_subnet_that_comes_later_is_used_from_then_on_and_that_is_told() {
        let mut bench = on(&[("169.254.7.7", 16, true)]);
        put(&mut bench, "10.0.0.9", 24, false);
        let [notice] = &bench.actions.notices[..] else { panic!("{:?}", bench.actions.notices) };
        let text = notice.to_string();
        assert!(text.contains("169.254.7.7") && text.contains("10.0.0.9"), "{text}");
        assert_eq!(of(&bench.router()), ("10.0.0.9", "its subnet holds a VIP"));
        // One that is as good and comes later changes nothing.
        put(&mut bench, "10.0.0.7", 16, false);
        assert!(bench.actions.notices.is_empty());
        assert_eq!(of(&bench.router()).0, "10.0.0.9");
        take(&mut bench, "10.0.0.9", 24);
        assert_eq!(of(&bench.router()).0, "10.0.0.7");
    }

    #[test]
    fn a_source_that_changes_while_there_was_none_is_told() {
        let mut bench = on(&[("10.0.0.9", 24, false)]);
        take(&mut bench, "10.0.0.9", 24);
        assert_eq!(bench.router().source, None);
        put(&mut bench, "10.0.0.8", 24, false);
        let text: Vec<String> = bench.actions.notices.iter().map(ToString::to_string).collect();
        assert!(text.iter().any(|text| text.contains("10.0.0.9")), "{text:?}");
    }

    #[test]
    fn a_vip_that_the_box_has_by_itself_is_the_source_only_where_nothing_else_is() {
        let bench = on(&[("10.0.0.51", 24, false), ("10.0.0.9", 25, false)]);
        assert_eq!(of(&bench.router()).0, "10.0.0.9");
        // One whose own addresses are in another subnet, where another program left the VIP.
        let bench = on(&[("10.0.0.51", 24, false), ("198.51.100.1", 24, false)]);
        assert_eq!(of(&bench.router()).0, "198.51.100.1");
        let mut bench = on(&[("198.51.100.1", 24, false)]);
        put(&mut bench, "10.0.0.51", 24, false);
        assert_eq!(of(&bench.router()).0, "198.51.100.1");
        let mut bench = on(&[("10.0.0.51", 24, false)]);
        let (source, why) = (bench.router().source, bench.router().source_reason);
        assert_eq!(source.as_deref(), Some("10.0.0.51"));
        assert_eq!(why.as_deref(), Some("a VIP itself; the interface has no better address"));
        put(&mut bench, "10.0.0.9", 25, false);
        assert_eq!(of(&bench.router()).0, "10.0.0.9");
        let owner = Router { priority: Priority::OWNER, ..router(51) };
        let addresses = [("10.0.0.51", 24, false), ("10.0.0.9", 25, false)];
        assert_eq!(of(&Bench::on(&addresses, vec![owner]).router()).0, "10.0.0.51");
    }
}
