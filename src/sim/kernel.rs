//! A kernel's links and addresses, with lifetimes and notifications, as far as a node sees them.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;

use crate::config::{IfName, Prefix};
use crate::node::Instant;
use crate::node::kernel::{Address, Change, Errno, IFA_PROTO_HAVIP, Link, Op, Snapshot, Verb};
use crate::wire::{Family, IfIndex, Mac};

/// A route to a network on a link.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Route {
    /// Which link.
    pub index: IfIndex,
    /// Without host bits.
    pub network: Prefix,
    /// [`IFA_PROTO_HAVIP`] for havip's own; 2 for those that the kernel makes with an address.
    pub protocol: u8,
    /// The preferred source, for IPv4.
    pub source: Option<IpAddr>,
    /// When the kernel drops it.
    pub until: Option<Instant>,
}

/// RTPROT_KERNEL.
const BY_KERNEL: u8 = 2;

/// An address with the time at which the kernel drops it.
type Kept = (Address, Option<Instant>);

/// One machine's network as its kernel has it. It outlives the node's process.
#[derive(Debug, Default)]
pub struct Kernel {
    links: BTreeMap<IfIndex, Link>,
    /// In the order of the keys, which stands for the one in which they came.
    addresses: BTreeMap<(IfIndex, Prefix), Kept>,
    routes: Vec<Route>,
    /// What listeners were told and have not read.
    notifications: Vec<Change>,
    next_index: u32,
    /// What havip's operations, or the end of its addresses' lifetimes, changed of others'.
    pub wronged: Vec<String>,
}

/// The same with no host bits.
fn network(prefix: Prefix) -> Prefix {
    let len = u32::from(prefix.len);
    let ip = match prefix.ip {
        IpAddr::V4(ip) => {
            IpAddr::V4((ip.to_bits() & !u32::MAX.checked_shr(len).unwrap_or(0)).into())
        }
        IpAddr::V6(ip) => {
            IpAddr::V6((ip.to_bits() & !u128::MAX.checked_shr(len).unwrap_or(0)).into())
        }
    };
    Prefix { ip, len: prefix.len }
}

impl Kernel {
    /// Makes an interface that is up, with carrier.
    pub fn add_link(&mut self, name: &str, mac: Mac) -> IfIndex {
        self.next_index += 1;
        let index = IfIndex(self.next_index);
        let name = IfName::new(name).expect("the simulator's own names are valid");
        let link = Link {
            index,
            name,
            up: true,
            running: true,
            loopback: false,
            mac: Some(mac),
            mtu: 1500,
            vrf_table: None,
            master: None,
            alt_names: Vec::new(),
        };
        self.links.insert(index, link.clone());
        self.notifications.push(Change::Link(link));
        index
    }

    /// Deletes an interface with everything on it.
    pub fn delete_link(&mut self, index: IfIndex) {
        self.links.remove(&index);
        self.addresses.retain(|(at, _), _| *at != index);
        self.routes.retain(|route| route.index != index);
        self.notifications.push(Change::LinkGone(index));
    }

    /// Gives or takes carrier.
    pub fn set_running(&mut self, index: IfIndex, running: bool) {
        if let Some(link) = self.links.get_mut(&index) {
            link.running = running;
            self.notifications.push(Change::Link(link.clone()));
        }
    }

    /// Whether there is such an interface.
    #[must_use]
    pub fn exists(&self, index: IfIndex) -> bool {
        self.links.contains_key(&index)
    }

    /// Tells listeners of an interface once more, as the kernel does for much that changes on it.
    pub fn touch(&mut self, index: IfIndex) {
        if let Some(link) = self.links.get(&index) {
            self.notifications.push(Change::Link(link.clone()));
        }
    }

    /// Whether packets go through.
    #[must_use]
    pub fn is_running(&self, index: IfIndex) -> bool {
        self.links.get(&index).is_some_and(|link| link.running)
    }

    /// Puts an operator's own address on an interface, if there is none like it.
    pub fn add_own_address(&mut self, index: IfIndex, prefix: Prefix) {
        self.add_other(index, prefix, None);
    }

    /// The same with a lifetime, as a router advertisement or DHCP gives one; whether it was taken.
    pub fn add_other(&mut self, index: IfIndex, prefix: Prefix, until: Option<Instant>) -> bool {
        let is_free = self.alike(index, prefix).is_none();
        if is_free {
            self.insert(index, prefix, 0, until);
        }
        is_free
    }

    /// Makes an address that is there another's, as `ip address replace` does.
    pub fn take_over(&mut self, index: IfIndex, ip: IpAddr, until: Option<Instant>) -> bool {
        let all = (index, Prefix { ip, len: 0 })..=(index, Prefix { ip, len: u8::MAX });
        let Some((_, (address, at))) = self.addresses.range_mut(all).next() else { return false };
        (address.proto, address.permanent, *at) = (0, until.is_none(), until);
        self.notifications.push(Change::Address(*address));
        true
    }

    /// Takes an address away, whoever put it there.
    pub fn remove_address(&mut self, index: IfIndex, prefix: Prefix) -> bool {
        let Some((address, _)) = self.addresses.remove(&(index, prefix)) else { return false };
        self.notifications.push(Change::AddressGone { index, prefix });
        let of = network(prefix);
        let alike: Vec<Kept> = self
            .addresses
            .values()
            .filter(|(other, _)| other.index == index && network(other.prefix) == of)
            .copied()
            .collect();
        match prefix.ip {
            // promote_secondaries = 0: they go with their primary.
            IpAddr::V4(_) if !address.secondary => {
                self.routes.retain(|route| {
                    let with_it = route.index == index && route.source == Some(prefix.ip);
                    let is_local = route.protocol != BY_KERNEL
                        && self
                            .addresses
                            .keys()
                            .any(|(at, other)| (*at, other.ip) == (index, prefix.ip));
                    !with_it || is_local || (route.protocol == BY_KERNEL && route.network != of)
                });
                for (secondary, _) in alike {
                    self.remove_address(index, secondary.prefix);
                }
            }
            IpAddr::V4(_) => {}
            // The route ends with the last permanent address, or by its own lifetime.
            IpAddr::V6(_) if address.permanent && alike.iter().all(|(a, _)| !a.permanent) => {
                let last = alike.iter().map(|(_, until)| *until).max();
                self.routes.retain_mut(|route| {
                    let is_its =
                        (route.index, route.network, route.protocol) == (index, of, BY_KERNEL);
                    if let (true, Some(until)) = (is_its, last) {
                        route.until = until;
                    }
                    !is_its || last.is_some()
                });
            }
            IpAddr::V6(_) => {}
        }
        true
    }

    /// What the kernel takes for the same address: of IPv6 the IP, of IPv4 its prefix too.
    fn alike(&self, index: IfIndex, prefix: Prefix) -> Option<&Address> {
        let all = (index, Prefix { ip: prefix.ip, len: 0 })
            ..=(index, Prefix { ip: prefix.ip, len: u8::MAX });
        let mut all = self.addresses.range(all).map(|(_, (address, _))| address);
        all.find(|address| prefix.ip.is_ipv6() || address.prefix == prefix)
    }

    fn insert(&mut self, index: IfIndex, prefix: Prefix, proto: u8, until: Option<Instant>) {
        let link_scope = matches!(prefix.ip, IpAddr::V6(ip) if ip.is_unicast_link_local());
        let of = network(prefix);
        let secondary = prefix.ip.is_ipv4()
            && self.addresses.values().any(|(other, _)| {
                other.index == index && network(other.prefix) == of && !other.secondary
            });
        let address = Address {
            index,
            prefix,
            secondary,
            tentative: false,
            permanent: until.is_none(),
            link_scope,
            proto,
        };
        self.addresses.insert((index, prefix), (address, until));
        self.notifications.push(Change::Address(address));
        // IFA_F_NOPREFIXROUTE is what havip asks for, with the length of a host alone.
        if of == prefix || secondary {
            return;
        }
        let protocol = BY_KERNEL;
        let known = self
            .routes
            .iter_mut()
            .find(|route| (route.index, route.network, route.protocol) == (index, of, protocol));
        match (prefix.ip, known) {
            (IpAddr::V6(_), Some(route)) => route.until = until,
            (IpAddr::V6(_), None) => {
                self.routes.push(Route { index, network: of, protocol, source: None, until });
            }
            (IpAddr::V4(_), _) => {
                let source = Some(prefix.ip);
                self.routes.push(Route { index, network: of, protocol, source, until: None });
            }
        }
    }

    /// What is not havip's.
    fn others(&self) -> (Vec<Kept>, Vec<Route>) {
        let addresses = self.addresses.values().filter(|(a, _)| a.proto != IFA_PROTO_HAVIP);
        let routes = self.routes.iter().filter(|route| route.protocol != IFA_PROTO_HAVIP);
        (addresses.copied().collect(), routes.copied().collect())
    }

    /// Does one operation as rtnetlink would.
    ///
    /// # Errors
    /// ENODEV without the interface, EEXIST when adding what is there, EADDRNOTAVAIL or ESRCH when
    /// removing what is not there, EINVAL for a route with a preferred source that is not there.
    pub fn apply(&mut self, now: Instant, op: &Op) -> Result<(), Errno> {
        if !self.links.contains_key(&op.index) {
            return Err(Errno(19));
        }
        let before = self.others();
        let result = self.operate(now, op);
        self.compare(&before, &format!("{op:?}"));
        result
    }

    fn compare(&mut self, before: &(Vec<Kept>, Vec<Route>), by: &str) {
        let after = self.others();
        if after != *before {
            self.wronged.push(format!("{by}: others' were {before:?}, and are {after:?}"));
        }
    }

    fn operate(&mut self, now: Instant, op: &Op) -> Result<(), Errno> {
        let Op { index, prefix, verb } = *op;
        let ends =
            |lifetime: Option<u32>| lifetime.map(|s| now + Duration::from_secs(u64::from(s)));
        match verb {
            Verb::Add { lifetime } if self.alike(index, prefix).is_none() => {
                self.insert(index, prefix, IFA_PROTO_HAVIP, ends(lifetime));
                Ok(())
            }
            Verb::Add { .. } => Err(Errno(17)),
            Verb::Renew { lifetime } => {
                let there = self.alike(index, prefix).map(|address| address.prefix);
                let until = ends(lifetime);
                match there.and_then(|prefix| self.addresses.get_mut(&(index, prefix))) {
                    Some((address, at)) => {
                        (address.proto, address.permanent) = (IFA_PROTO_HAVIP, until.is_none());
                        *at = until;
                        self.notifications.push(Change::Address(*address));
                    }
                    None => self.insert(index, prefix, IFA_PROTO_HAVIP, until),
                }
                Ok(())
            }
            Verb::Remove => match self.remove_address(index, prefix) {
                true => Ok(()),
                false => Err(Errno(99)),
            },
            Verb::Route { lifetime, again, .. } => {
                let (network, protocol) = (network(prefix), IFA_PROTO_HAVIP);
                let source = Some(prefix.ip).filter(IpAddr::is_ipv4);
                let until = ends(lifetime).filter(|_| source.is_none());
                if source.is_some_and(|ip| self.holder(index, ip).is_none()) {
                    return Err(Errno(22));
                }
                let route = Route { index, network, protocol, source, until };
                let is_it = |known: &&mut Route| {
                    (known.index, known.network, known.protocol, known.source)
                        == (index, network, protocol, source)
                };
                match self.routes.iter_mut().find(is_it) {
                    Some(known) => {
                        if again {
                            known.until = until;
                        }
                        Err(Errno(17))
                    }
                    None => {
                        self.routes.push(route);
                        Ok(())
                    }
                }
            }
            Verb::Unroute { .. } => {
                let of = network(prefix);
                let source = Some(prefix.ip).filter(IpAddr::is_ipv4);
                let is_it = |known: &Route| {
                    (known.index, known.network, known.protocol, known.source)
                        == (index, of, IFA_PROTO_HAVIP, source)
                };
                match self.routes.iter().position(is_it) {
                    Some(at) => {
                        self.routes.remove(at);
                        Ok(())
                    }
                    None => Err(Errno(3)),
                }
            }
        }
    }

    /// Removes the routes that a daemon of before left, as each start does.
    pub fn forget_routes(&mut self) {
        self.routes.retain(|route| route.protocol != IFA_PROTO_HAVIP);
    }

    /// Every route.
    #[must_use]
    pub fn routes(&self) -> &[Route] {
        &self.routes
    }

    /// An address with this IP on a link, of whatever prefix length; another's before havip's.
    #[must_use]
    pub fn holder(&self, index: IfIndex, ip: IpAddr) -> Option<&Address> {
        let all = (index, Prefix { ip, len: 0 })..=(index, Prefix { ip, len: u8::MAX });
        let all = self.addresses.range(all).map(|(_, (address, _))| address);
        all.min_by_key(|address| address.proto == IFA_PROTO_HAVIP)
    }

    /// Everything, as a dump has it.
    #[must_use]
    pub fn snapshot(&self) -> Snapshot {
        Snapshot {
            links: self.links.values().cloned().collect(),
            addresses: self.addresses.values().map(|(address, _)| *address).collect(),
        }
    }

    /// Drops addresses whose lifetime is over.
    pub fn expire(&mut self, now: Instant) {
        let over: Vec<(IfIndex, Prefix)> = self
            .addresses
            .iter()
            .filter(|(_, (_, until))| until.is_some_and(|until| until <= now))
            .map(|(place, _)| *place)
            .collect();
        for (index, prefix) in over {
            let is_ours = self
                .addresses
                .get(&(index, prefix))
                .is_some_and(|(address, _)| address.proto == IFA_PROTO_HAVIP);
            let before = self.others();
            self.remove_address(index, prefix);
            if is_ours {
                self.compare(&before, &format!("the end of {prefix}'s lifetime"));
            }
        }
        self.routes.retain(|route| route.until.is_none_or(|until| until > now));
    }

    /// When the next lifetime is over.
    #[must_use]
    pub fn next_expiry(&self) -> Option<Instant> {
        let routes = self.routes.iter().filter_map(|route| route.until);
        self.addresses.values().filter_map(|(_, until)| *until).chain(routes).min()
    }

    /// Takes what listeners have not read.
    pub fn take_notifications(&mut self) -> Vec<Change> {
        std::mem::take(&mut self.notifications)
    }

    /// Whether listeners have something to read.
    #[must_use]
    pub fn has_notifications(&self) -> bool {
        !self.notifications.is_empty()
    }

    /// An address as a dump has it, with the time at which its lifetime is over.
    #[must_use]
    pub fn address(&self, index: IfIndex, prefix: Prefix) -> Option<&(Address, Option<Instant>)> {
        self.addresses.get(&(index, prefix))
    }

    /// Every address that havip put there, with the time at which its lifetime is over.
    pub fn marked(&self) -> impl Iterator<Item = (IfIndex, Prefix, Option<Instant>)> {
        self.addresses
            .iter()
            .filter(|(_, (address, _))| address.proto == IFA_PROTO_HAVIP)
            .map(|((index, prefix), (_, until))| (*index, *prefix, *until))
    }

    /// Whether the kernel answers for an address.
    #[must_use]
    pub fn has(&self, ip: &IpAddr) -> bool {
        self.addresses.keys().any(|(_, prefix)| prefix.ip == *ip)
    }

    /// The first address of a family on an interface that it sends to a group from: of IPv6 a
    /// link-local one.
    #[must_use]
    pub fn first(&self, index: IfIndex, family: Family) -> Option<IpAddr> {
        self.addresses
            .values()
            .map(|(address, _)| address)
            .find(|address| {
                address.index == index
                    && address.proto != IFA_PROTO_HAVIP
                    && Family::of(&address.prefix.ip) == family
                    && (family == Family::V4 || address.link_scope)
            })
            .map(|address| address.prefix.ip)
    }
}
