//! The values of a record as bytes, and back. Nothing is believed of what is read: a value that
//! cannot be is none.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use crate::config::{
    Check, ChecksumMode, Config, IfName, Lifetime, NodeName, Prefix, Router, RouterName, Secret,
};
use crate::node::kernel::{
    Address, Change, Errno, Gate, Link, Master, MasterKind, Op, Port, Snapshot, Verb,
};
use crate::node::{Action, Actions, Event, Inbox, Instant, RouterId, Via};
use crate::wire::vrrp::{Centis, Priority, RxMeta, Version, Vrid};
use crate::wire::{Family, IfIndex, Mac};

/// Bytes that are read from the front.
#[derive(Debug)]
pub(super) struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    pub(super) const fn new(bytes: &'a [u8]) -> Self {
        Self(bytes)
    }

    pub(super) fn take<T: Code>(&mut self) -> Option<T> {
        T::take(self)
    }

    /// A value that is all that is left.
    pub(super) fn last<T: Code>(&mut self) -> Option<T> {
        let value = T::take(self)?;
        self.0.is_empty().then_some(value)
    }

    fn chunk<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (chunk, rest) = self.0.split_first_chunk()?;
        self.0 = rest;
        Some(*chunk)
    }

    fn slice(&mut self, length: usize) -> Option<&'a [u8]> {
        let (slice, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        Some(slice)
    }
}

/// A value that can stand in a record.
pub(super) trait Code: Sized {
    fn put(&self, out: &mut Vec<u8>);
    fn take(from: &mut Reader<'_>) -> Option<Self>;
}

/// Numbers, as they are in memory of a little-endian machine.
macro_rules! numbers {
    ($($type:ty)*) => {$(
        impl Code for $type {
            fn put(&self, out: &mut Vec<u8>) {
                out.extend_from_slice(&self.to_le_bytes());
            }
            fn take(from: &mut Reader<'_>) -> Option<Self> {
                from.chunk().map(Self::from_le_bytes)
            }
        }
    )*};
}
numbers!(u8 u16 u32 u64 i32);

/// What has its fields one after the other.
macro_rules! fields {
    ($($type:ident { $($field:ident),* })*) => {$(
        impl Code for $type {
            fn put(&self, out: &mut Vec<u8>) {
                $(self.$field.put(out);)*
            }
            fn take(from: &mut Reader<'_>) -> Option<Self> {
                Some(Self { $($field: from.take()?),* })
            }
        }
    )*};
}
fields! {
    Address { index, prefix, secondary, tentative, permanent, link_scope, proto }
    Check { name, interval, timeout, rise, fall }
    Link { index, name, up, running, loopback, mac, mtu, vrf_table, master, alt_names }
    Master { index, kind }
    Op { index, prefix, verb }
    Port { index, family }
    Router {
        name, vrid, version, family, interface, priority, preempt, preempt_delay, listen_first,
        carrier_delay, probe_interval, yield_on_send_errors, advert_interval, auth_pass, vips,
        vips_excluded, checksum, address_lifetime, check
    }
    RxMeta { src, dst, ttl }
    Snapshot { links, addresses }
}

/// What is one of several: a byte that says which, then its fields one after the other.
macro_rules! variants {
    ($($type:ty {
        $($byte:literal = $variant:ident $(($inner:ident))? $({ $($field:ident),* })?,)*
        $(but $rest:pat)?
    })*) => {$(
        impl Code for $type {
            fn put(&self, out: &mut Vec<u8>) {
                match self {
                    $(Self::$variant $(($inner))? $({ $($field),* })? => {
                        u8::put(&$byte, out);
                        $($inner.put(out);)?
                        $($($field.put(out);)*)?
                    })*
                    $($rest => u8::MAX.put(out),)?
                }
            }
            fn take(from: &mut Reader<'_>) -> Option<Self> {
                Some(match from.take::<u8>()? {
                    $($byte => {
                        $(let $inner = from.take()?;)?
                        $($(let $field = from.take()?;)*)?
                        Self::$variant $(($inner))? $({ $($field),* })?
                    })*
                    _ => return None,
                })
            }
        }
    )*};
}
variants! {
    Change {
        0 = Link(link),
        1 = LinkGone(index),
        2 = Address(address),
        3 = AddressGone { index, prefix },
        4 = Overrun,
    }
    ChecksumMode {
        0 = Auto,
        1 = Both,
        2 = PseudoHeader,
        3 = Rfc9568,
    }
    // All but time and packets, which a turn has elsewhere: never in an inbox's list of events.
    Event<'static> {
        0 = Malformed { port },
        1 = Kernel(change),
        2 = Dumped(result),
        3 = Applied(results),
        4 = Opened { port, result },
        5 = SendFailed { index, errno, count, adverts },
        6 = Config(config),
        7 = Shutdown,
        8 = Claimed { index, ip, mac },
        9 = Overheard { index, mac, bytes },
        10 = Rejoined { port },
        but Self::Timeout { .. } | Self::Packet { .. }
    }
    Family {
        4 = V4,
        6 = V6,
    }
    Lifetime {
        0 = Auto,
        1 = Forever,
        2 = Seconds(seconds),
    }
    MasterKind {
        0 = Vrf,
        1 = Bridge,
        2 = Bond,
        3 = Team,
        4 = OpenVswitch,
        5 = Other,
    }
    Verb {
        0 = Add { lifetime },
        1 = Remove,
        2 = Renew { lifetime },
        3 = Route { table, lifetime, again },
        4 = Unroute { table },
    }
    Version {
        2 = V2,
        3 = V3,
    }
}

/// What is another value in other clothes.
macro_rules! like {
    ($($type:ty: $inner:ty, $out:expr, $back:expr;)*) => {$(
        impl Code for $type {
            fn put(&self, out: &mut Vec<u8>) {
                let inner: fn(&$type) -> $inner = $out;
                inner(self).put(out);
            }
            fn take(from: &mut Reader<'_>) -> Option<Self> {
                let back: fn($inner) -> Option<$type> = $back;
                back(from.take()?)
            }
        }
    )*};
}
like! {
    bool: u8, |is| u8::from(*is), |byte| match byte {
        0 => Some(false),
        1 => Some(true),
        _ => None,
    };
    RouterId: u64, |id| id.0, |number| Some(Self(number));
    Prefix: (IpAddr, u8), |prefix| (prefix.ip, prefix.len), |(ip, len)| {
        (len <= Family::of(&ip).bits()).then_some(Self { ip, len })
    };
    Centis: u16, |centis| centis.0, |number| Some(Self(number));
    Errno: i32, |errno| errno.0, |number| Some(Self(number));
    IfIndex: u32, |index| index.0, |number| Some(Self(number));
    IfName: String, |name| name.as_str().to_owned(), |text| Self::new(&text).ok();
    Instant: u64, |at| at.nanos(), |nanos| Some(Self::from_nanos(nanos));
    NodeName: String, |name| name.as_str().to_owned(), |text| Self::new(&text).ok();
    Priority: u8, |priority| priority.number(), Self::new;
    RouterName: String, |name| name.as_str().to_owned(), |text| Self::new(&text).ok();
    Secret: String, |secret| secret.reveal().to_owned(), |text| Some(Self::new(text));
    Vrid: u8, |vrid| vrid.number(), Self::new;
}

impl Code for Duration {
    fn put(&self, out: &mut Vec<u8>) {
        self.as_secs().put(out);
        self.subsec_nanos().put(out);
    }
    fn take(from: &mut Reader<'_>) -> Option<Self> {
        let (seconds, nanos): (u64, u32) = (from.take()?, from.take()?);
        (nanos < 1_000_000_000).then(|| Self::new(seconds, nanos))
    }
}

impl Code for Mac {
    fn put(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.0);
    }
    fn take(from: &mut Reader<'_>) -> Option<Self> {
        from.chunk().map(Self)
    }
}

impl Code for IpAddr {
    fn put(&self, out: &mut Vec<u8>) {
        Family::of(self).put(out);
        match self {
            Self::V4(ip) => out.extend_from_slice(&ip.octets()),
            Self::V6(ip) => out.extend_from_slice(&ip.octets()),
        }
    }
    fn take(from: &mut Reader<'_>) -> Option<Self> {
        match from.take()? {
            Family::V4 => from.chunk::<4>().map(Self::from),
            Family::V6 => from.chunk::<16>().map(Self::from),
        }
    }
}

impl Code for String {
    fn put(&self, out: &mut Vec<u8>) {
        length(self.len()).put(out);
        out.extend_from_slice(self.as_bytes());
    }
    fn take(from: &mut Reader<'_>) -> Option<Self> {
        let length: u32 = from.take()?;
        let bytes = from.slice(usize::try_from(length).ok()?)?;
        Self::from_utf8(bytes.to_owned()).ok()
    }
}

impl<T: Code> Code for Vec<T> {
    fn put(&self, out: &mut Vec<u8>) {
        length(self.len()).put(out);
        self.iter().for_each(|item| item.put(out));
    }
    fn take(from: &mut Reader<'_>) -> Option<Self> {
        let count: u32 = from.take()?;
        // Each takes a byte at least: a count that lies ends with the bytes.
        (0..count).map(|_| from.take()).collect()
    }
}

impl<T: Code> Code for Option<T> {
    fn put(&self, out: &mut Vec<u8>) {
        self.is_some().put(out);
        if let Some(value) = self {
            value.put(out);
        }
    }
    fn take(from: &mut Reader<'_>) -> Option<Self> {
        match from.take()? {
            true => from.take().map(Some),
            false => Some(None),
        }
    }
}

impl<T: Code> Code for Arc<T> {
    fn put(&self, out: &mut Vec<u8>) {
        self.as_ref().put(out);
    }
    fn take(from: &mut Reader<'_>) -> Option<Self> {
        from.take().map(Self::new)
    }
}

impl<T: Code> Code for Result<T, Errno> {
    fn put(&self, out: &mut Vec<u8>) {
        self.is_ok().put(out);
        match self {
            Ok(value) => value.put(out),
            Err(errno) => errno.put(out),
        }
    }
    fn take(from: &mut Reader<'_>) -> Option<Self> {
        match from.take()? {
            true => from.take().map(Ok),
            false => from.take().map(Err),
        }
    }
}

impl Code for () {
    fn put(&self, _out: &mut Vec<u8>) {}
    fn take(_from: &mut Reader<'_>) -> Option<Self> {
        Some(())
    }
}

impl<A: Code, B: Code> Code for (A, B) {
    fn put(&self, out: &mut Vec<u8>) {
        self.0.put(out);
        self.1.put(out);
    }
    fn take(from: &mut Reader<'_>) -> Option<Self> {
        Some((from.take()?, from.take()?))
    }
}

impl<A: Code, B: Code, C: Code, D: Code> Code for (A, B, C, D) {
    fn put(&self, out: &mut Vec<u8>) {
        self.0.put(out);
        self.1.put(out);
        self.2.put(out);
        self.3.put(out);
    }
    fn take(from: &mut Reader<'_>) -> Option<Self> {
        Some((from.take()?, from.take()?, from.take()?, from.take()?))
    }
}

impl Code for Config {
    fn put(&self, out: &mut Vec<u8>) {
        self.node.put(out);
        self.node_ip.put(out);
        length(self.routers.len()).put(out);
        self.routers.values().for_each(|router| router.put(out));
    }
    fn take(from: &mut Reader<'_>) -> Option<Self> {
        let (node, node_ip) = (from.take()?, from.take()?);
        let routers: Vec<Router> = from.take()?;
        let routers: BTreeMap<_, _> =
            routers.into_iter().map(|router| (router.name.clone(), Arc::new(router))).collect();
        Some(Self { node, node_ip, routers })
    }
}

impl Code for Inbox {
    fn put(&self, out: &mut Vec<u8>) {
        length(self.events().len()).put(out);
        self.events().iter().for_each(|event| event.put(out));
        length(self.packets().len()).put(out);
        for (port, meta, bytes) in self.packets() {
            port.put(out);
            meta.put(out);
            length(bytes.len()).put(out);
            out.extend_from_slice(bytes);
        }
    }
    fn take(from: &mut Reader<'_>) -> Option<Self> {
        let mut inbox = Self::default();
        for event in from.take::<Vec<Event<'static>>>()? {
            inbox.event(event);
        }
        let packets: u32 = from.take()?;
        for _ in 0..packets {
            let (port, meta): (Port, RxMeta) = from.take()?;
            let length: u32 = from.take()?;
            inbox.packet(port, meta, from.slice(usize::try_from(length).ok()?)?);
        }
        Some(inbox)
    }
}

fn length(length: usize) -> u32 {
    u32::try_from(length).unwrap_or(u32::MAX)
}

/// What stands for everything that a turn did to the world: FNV-1a with 64 bits.
pub(super) fn hash(actions: &Actions) -> u64 {
    let mut bytes = Vec::new();
    for (via, _, frame) in actions.frames() {
        match via {
            Via::Vrrp(port) => port.put(&mut bytes),
            Via::Ethernet(index) => index.put(&mut bytes),
        }
        bytes.extend_from_slice(frame);
    }
    for action in &actions.kernel {
        match action {
            Action::Dump => 0_u8.put(&mut bytes),
            Action::Apply(ops) => {
                1_u8.put(&mut bytes);
                ops.put(&mut bytes);
            }
            Action::Open(port) => {
                2_u8.put(&mut bytes);
                port.put(&mut bytes);
            }
            Action::Watch { port, addresses, vrids } => {
                4_u8.put(&mut bytes);
                port.put(&mut bytes);
                addresses.put(&mut bytes);
                vrids.put(&mut bytes);
            }
            Action::Close(port) => {
                3_u8.put(&mut bytes);
                port.put(&mut bytes);
            }
            Action::Join { port, anew } => {
                7_u8.put(&mut bytes);
                port.put(&mut bytes);
                anew.put(&mut bytes);
            }
            Action::Fence(passages) => {
                5_u8.put(&mut bytes);
                for passage in passages {
                    (passage.index, passage.ip).put(&mut bytes);
                    match passage.gate {
                        Gate::OpenUntil(until) => until.put(&mut bytes),
                        Gate::Shut => 0_u8.put(&mut bytes),
                        Gate::Gone => 1_u8.put(&mut bytes),
                    }
                }
            }
        }
    }
    actions.states_changed.put(&mut bytes);
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
    })
}
