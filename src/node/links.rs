//! What is on the box, as the kernel last said: links and addresses.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use super::kernel::{Address, Change, IFA_PROTO_HAVIP, Link, Snapshot};
use crate::config::{IfName, Prefix};
use crate::wire::{IfIndex, Mac};

/// An address on a link: what it is known by.
pub(super) type Place = (IfIndex, Prefix);

/// The same IP there as a host address, which is how a VIP is put.
pub(super) const fn host((index, prefix): Place) -> Place {
    (index, Prefix::host(prefix.ip))
}

/// Links and addresses, kept by notifications and replaced by dumps. What one of them costs does
/// not grow with the number of the others.
#[derive(Debug, Default)]
pub(super) struct Links {
    links: BTreeMap<IfIndex, (Link, Past)>,
    /// More than one of a name while a dump and what was reported during it are put together.
    by_name: BTreeMap<IfName, BTreeSet<IfIndex>>,
    by_alt_name: BTreeMap<IfName, BTreeSet<IfIndex>>,
    macs: BTreeMap<Mac, usize>,
    /// With the order of their appearance: the first address of a link is its primary one.
    addresses: BTreeMap<Place, (u64, Address)>,
    /// On how many places each of them stands.
    ips: BTreeMap<IpAddr, usize>,
    appeared: u64,
}

/// What a link went through, in numbers that only grow: so that what came and went between two looks
/// is seen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Past {
    /// Times that it was lost: set down, or without carrier.
    pub(super) lost: u32,
    /// Times that something happened which can cost the membership of a group.
    pub(super) torn: u32,
}

impl Past {
    /// A link that was like `before` is like `now`.
    fn note(&mut self, before: &Link, now: &Link) {
        let carries = |link: &Link| link.up && link.running;
        self.lost = self.lost.wrapping_add(u32::from(carries(before) && !carries(now)));
        // The kernel gives a family up where it does not fit, and its groups with it.
        let grown = |least| before.mtu < least && now.mtu >= least;
        let torn = (carries(now) && !carries(before))
            || MTU_LEAST.into_iter().any(grown)
            || before.master != now.master;
        self.torn = self.torn.wrapping_add(u32::from(torn));
    }
}

/// Least MTU of IPv4 and of IPv6 in the kernel, in bytes.
const MTU_LEAST: [u32; 2] = [68, 1280];

/// What a change was about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Touched {
    /// Nothing that was not known.
    Nothing,
    /// A link, and all of its addresses if it went.
    Link(IfIndex),
    /// One address.
    Address(Place),
}

impl Links {
    /// Takes everything from a dump in place of what was known.
    pub(super) fn replace(&mut self, snapshot: Snapshot) {
        let known = std::mem::take(&mut self.links);
        self.by_name.clear();
        self.by_alt_name.clear();
        self.macs.clear();
        for link in snapshot.links {
            let index = link.index;
            let before = known.get(&index);
            self.set_link(link, before);
            // What happened meanwhile is not known.
            if let Some((_, past)) = self.links.get_mut(&index) {
                past.torn = past.torn.wrapping_add(u32::from(before.is_some()));
            }
        }
        let before = std::mem::take(&mut self.addresses);
        self.ips.clear();
        for address in snapshot.addresses {
            let place = (address.index, address.prefix);
            let order = before.get(&place).map(|(order, _)| *order);
            self.insert(place, order, address);
        }
    }

    /// Takes one change.
    pub(super) fn apply(&mut self, change: &Change) -> Touched {
        match change {
            Change::Link(link) => {
                let before = self.take_link(link.index);
                let same = before.as_ref().is_some_and(|(before, _)| before == link);
                self.set_link(link.clone(), before.as_ref());
                if same {
                    return Touched::Nothing;
                }
                Touched::Link(link.index)
            }
            Change::LinkGone(index) => {
                let gone: Vec<Place> =
                    self.in_order(*index).map(|(_, address)| (*index, address.prefix)).collect();
                for place in gone {
                    self.forget_address(&place);
                }
                self.take_link(*index);
                // Also where the link was not known: a dump made after its end may be read before its
                // last addresses are reported, and those are to be forgotten by everyone.
                Touched::Link(*index)
            }
            Change::Address(address) => {
                let place = (address.index, address.prefix);
                let known = self.addresses.get(&place).copied();
                if known.is_some_and(|(_, known)| known == *address) {
                    return Touched::Nothing;
                }
                // The first one: IPv6 is back.
                let is_first =
                    known.is_none() && address.link_scope && !self.has_link_local(place.0);
                if is_first && let Some((_, past)) = self.links.get_mut(&place.0) {
                    past.torn = past.torn.wrapping_add(1);
                }
                self.insert(place, known.map(|(order, _)| order), *address);
                Touched::Address(place)
            }
            Change::AddressGone { index, prefix } => {
                let place = (*index, *prefix);
                if self.forget_address(&place) { Touched::Address(place) } else { Touched::Nothing }
            }
            // The caller asks for a dump.
            Change::Overrun => Touched::Nothing,
        }
    }

    fn set_link(&mut self, link: Link, before: Option<&(Link, Past)>) {
        let mut past = Past::default();
        if let Some((before, lived)) = before {
            past = *lived;
            past.note(before, &link);
        }
        self.by_name.entry(link.name.clone()).or_default().insert(link.index);
        for name in &link.alt_names {
            self.by_alt_name.entry(name.clone()).or_default().insert(link.index);
        }
        if let Some(mac) = link.mac {
            *self.macs.entry(mac).or_default() += 1;
        }
        self.links.insert(link.index, (link, past));
    }

    fn take_link(&mut self, index: IfIndex) -> Option<(Link, Past)> {
        let (link, past) = self.links.remove(&index)?;
        take_name(&mut self.by_name, &link.name, index);
        for name in &link.alt_names {
            take_name(&mut self.by_alt_name, name, index);
        }
        if let Some(mac) = link.mac
            && let Some(count) = self.macs.get_mut(&mac)
        {
            *count -= 1;
            if *count == 0 {
                self.macs.remove(&mac);
            }
        }
        Some((link, past))
    }

    fn has_link_local(&self, index: IfIndex) -> bool {
        self.in_order(index).any(|(_, address)| address.link_scope)
    }

    fn insert(&mut self, place: Place, order: Option<u64>, address: Address) {
        let order = order.unwrap_or_else(|| {
            self.appeared += 1;
            self.appeared
        });
        if self.addresses.insert(place, (order, address)).is_none() {
            *self.ips.entry(place.1.ip).or_default() += 1;
        }
    }

    /// Takes note that the kernel acknowledged one of our additions, before it tells everybody.
    pub(super) fn acknowledged(&mut self, index: IfIndex, prefix: Prefix) {
        let place = (index, prefix);
        if self.links.contains_key(&index) && !self.addresses.contains_key(&place) {
            let address = Address {
                index,
                prefix,
                secondary: false,
                tentative: false,
                permanent: false,
                link_scope: false,
                proto: IFA_PROTO_HAVIP,
            };
            self.insert(place, None, address);
        }
    }

    /// Takes note that an address is gone; returns whether it was there.
    pub(super) fn forget_address(&mut self, place: &Place) -> bool {
        if self.addresses.remove(place).is_none() {
            return false;
        }
        if let Some(places) = self.ips.get_mut(&place.1.ip) {
            *places -= 1;
            if *places == 0 {
                self.ips.remove(&place.1.ip);
            }
        }
        true
    }

    /// Whether a link has an address of the /64 that an IPv6 address is in: then that one is on the
    /// link as well, as networks are laid out.
    pub(super) fn shares_64(&self, index: IfIndex, ip: IpAddr) -> bool {
        const HOSTS: u128 = u64::MAX as u128;
        let IpAddr::V6(ip) = ip else { return false };
        let network = u128::from(ip) & !HOSTS;
        let place = |ip: u128, len| (index, Prefix { ip: IpAddr::V6(ip.into()), len });
        self.addresses.range(place(network, 0)..=place(network | HOSTS, u8::MAX)).next().is_some()
    }

    /// Whether one of the box's interfaces has this address: then the IP layer takes whatever comes
    /// from it for a forgery.
    pub(super) fn has_ip(&self, ip: &IpAddr) -> bool {
        self.ips.contains_key(ip)
    }

    pub(super) fn sizes(&self) -> [(&'static str, usize); 6] {
        [
            ("links", self.links.len()),
            ("links by name", self.by_name.values().map(BTreeSet::len).sum()),
            ("other names", self.by_alt_name.values().map(BTreeSet::len).sum()),
            ("links by MAC", self.macs.len()),
            ("addresses", self.addresses.len()),
            ("IP addresses", self.ips.len()),
        ]
    }

    pub(super) fn link(&self, index: IfIndex) -> Option<&Link> {
        self.links.get(&index).map(|(link, _)| link)
    }

    /// What a link went through.
    pub(super) fn past(&self, index: IfIndex) -> Past {
        self.links.get(&index).map(|(_, past)| *past).unwrap_or_default()
    }

    /// Whether one of the box's own links has this MAC.
    pub(super) fn has_mac(&self, mac: Mac) -> bool {
        self.macs.contains_key(&mac)
    }

    /// Where this address stands on a link, whatever its prefix length.
    pub(super) fn place_of(&self, index: IfIndex, ip: IpAddr) -> Option<Place> {
        self.with_ip(index, ip).next().map(|address| (index, address.prefix))
    }

    pub(super) fn by_name(&self, name: &IfName) -> Option<&Link> {
        self.link(*self.by_name.get(name)?.first()?)
    }

    /// The link that goes by this name, too.
    pub(super) fn by_alt_name(&self, name: &IfName) -> Option<&Link> {
        self.link(*self.by_alt_name.get(name)?.first()?)
    }

    pub(super) fn address(&self, place: &Place) -> Option<&Address> {
        self.addresses.get(place).map(|(_, address)| address)
    }

    /// Every address on the box.
    pub(super) fn addresses(&self) -> impl Iterator<Item = &Address> {
        self.addresses.values().map(|(_, address)| address)
    }

    /// Why no host can have this IP on a link: one of its subnets uses it for something else.
    pub(super) fn unfit(&self, index: IfIndex, ip: IpAddr) -> Option<&'static str> {
        let subnets = self.in_order(index).map(|(_, address)| address.prefix);
        let mut found = subnets.filter(|subnet| subnet.contains(&ip)).filter_map(|subnet| {
            // Host bits; of a /31, a /32 and a /127 every address is a host's (RFC 3021, RFC 6164).
            match ip {
                IpAddr::V4(ip) if subnet.len < 31 => {
                    let hosts = u32::MAX.checked_shr(u32::from(subnet.len)).unwrap_or(0);
                    match ip.to_bits() & hosts {
                        0 => Some("it is the address of the interface's subnet itself"),
                        bits if bits == hosts => {
                            Some("it is the broadcast address of the interface's subnet")
                        }
                        _ => None,
                    }
                }
                IpAddr::V6(ip) if subnet.len < 127 => {
                    let hosts = u128::MAX.checked_shr(u32::from(subnet.len)).unwrap_or(0);
                    (ip.to_bits() & hosts == 0).then_some(
                        "it is the subnet-router anycast address of the interface's subnet, to \
                         which every router there answers (RFC 4291)",
                    )
                }
                IpAddr::V4(_) | IpAddr::V6(_) => None,
            }
        });
        found.next()
    }

    /// Whether `ip` is an address of this link that adverts may be sent from.
    pub(super) fn has_source(
        &self,
        index: IfIndex,
        ip: &IpAddr,
        ours: impl Fn(&Address) -> bool,
    ) -> bool {
        self.with_ip(index, *ip).any(|address| {
            !ours(address) && !address.tentative && (ip.is_ipv6() || !address.secondary)
        })
    }

    /// Those of a link with this IP, of whatever prefix length.
    pub(super) fn with_ip(&self, index: IfIndex, ip: IpAddr) -> impl Iterator<Item = &Address> {
        let all = (index, Prefix { ip, len: 0 })..=(index, Prefix { ip, len: u8::MAX });
        self.addresses.range(all).map(|(_, (_, address))| address)
    }

    /// Those of a link, with the order in which they appeared.
    pub(super) fn in_order(&self, index: IfIndex) -> impl Iterator<Item = &(u64, Address)> {
        self.addresses
            .range(from(index)..)
            .take_while(move |((at, _), _)| *at == index)
            .map(|(_, entry)| entry)
    }
}

/// Where the places of a link begin.
pub(super) const fn from(index: IfIndex) -> Place {
    (index, Prefix { ip: IpAddr::V4(std::net::Ipv4Addr::UNSPECIFIED), len: 0 })
}

fn take_name(names: &mut BTreeMap<IfName, BTreeSet<IfIndex>>, name: &IfName, index: IfIndex) {
    if let Some(all) = names.get_mut(name) {
        all.remove(&index);
        if all.is_empty() {
            names.remove(name);
        }
    }
}
