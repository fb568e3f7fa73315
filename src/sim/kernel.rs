//! A kernel's links and addresses, with lifetimes and notifications, as far as a node sees them.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;

use crate::config::{IfName, Prefix};
use crate::node::Instant;
use crate::node::kernel::{Address, Change, Errno, IFA_PROTO_HAVIP, Link, Op, Snapshot, Verb};
use crate::wire::{Family, IfIndex, Mac};

/// One machine's network as its kernel has it. It outlives the node's process.
#[derive(Debug, Default)]
pub struct Kernel {
    links: BTreeMap<IfIndex, Link>,
    /// With the time at which the kernel drops it.
    addresses: BTreeMap<(IfIndex, Prefix), (Address, Option<Instant>)>,
    /// What listeners were told and have not read.
    notifications: Vec<Change>,
    next_index: u32,
    /// Addresses of others that an operation removed.
    pub wronged: Vec<Prefix>,
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
        };
        self.links.insert(index, link.clone());
        self.notifications.push(Change::Link(link));
        index
    }

    /// Deletes an interface with everything on it.
    pub fn delete_link(&mut self, index: IfIndex) {
        self.links.remove(&index);
        self.addresses.retain(|(at, _), _| *at != index);
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

    /// Puts an operator's own address on an interface.
    pub fn add_own_address(&mut self, index: IfIndex, prefix: Prefix) {
        self.insert(index, prefix, 0, None);
    }

    /// Takes an address away, whoever put it there.
    pub fn remove_address(&mut self, index: IfIndex, prefix: Prefix) -> bool {
        let there = self.addresses.remove(&(index, prefix)).is_some();
        if there {
            self.notifications.push(Change::AddressGone { index, prefix });
        }
        there
    }

    fn insert(&mut self, index: IfIndex, prefix: Prefix, proto: u8, until: Option<Instant>) {
        let link_scope = matches!(prefix.ip, IpAddr::V6(ip) if ip.is_unicast_link_local());
        let address = Address {
            index,
            prefix,
            secondary: false,
            tentative: false,
            permanent: until.is_none(),
            link_scope,
            proto,
        };
        self.addresses.insert((index, prefix), (address, until));
        self.notifications.push(Change::Address(address));
    }

    /// Does one operation as rtnetlink would.
    ///
    /// # Errors
    /// ENODEV without the interface, EADDRNOTAVAIL when removing what is not there.
    pub fn apply(&mut self, now: Instant, op: &Op) -> Result<(), Errno> {
        if !self.links.contains_key(&op.index) {
            return Err(Errno(19));
        }
        match op.verb {
            Verb::Put { lifetime } => {
                let until = lifetime.map(|seconds| now + Duration::from_secs(u64::from(seconds)));
                self.insert(op.index, op.prefix, IFA_PROTO_HAVIP, until);
                Ok(())
            }
            Verb::Remove => {
                let place = (op.index, op.prefix);
                let found = self.addresses.get(&place);
                if found.is_some_and(|(address, _)| address.proto != IFA_PROTO_HAVIP) {
                    self.wronged.push(op.prefix);
                }
                if self.remove_address(op.index, op.prefix) { Ok(()) } else { Err(Errno(99)) }
            }
        }
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
            self.remove_address(index, prefix);
        }
    }

    /// When the next lifetime is over.
    #[must_use]
    pub fn next_expiry(&self) -> Option<Instant> {
        self.addresses.values().filter_map(|(_, until)| *until).min()
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

    /// The first address of a family on an interface: what it sends from.
    #[must_use]
    pub fn first(&self, index: IfIndex, family: Family) -> Option<IpAddr> {
        self.addresses
            .values()
            .map(|(address, _)| address)
            .find(|address| {
                address.index == index
                    && address.proto != IFA_PROTO_HAVIP
                    && Family::of(&address.prefix.ip) == family
            })
            .map(|address| address.prefix.ip)
    }
}
