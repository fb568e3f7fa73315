//! What tests of the node are made from.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use super::kernel::{Address, Errno, Link, Op, Port, Snapshot, Verb};
use super::{Action, Actions, Event, Instant, Node, RouterStatus};
use crate::config::{ChecksumMode, Config, IfName, Lifetime, NodeName, Prefix, Router, RouterName};
use crate::wire::vrrp::{
    AdvertSpec, Auth, Centis, Priority, RxMeta, SumForm, Version, Vrid, group,
};
use crate::wire::{Family, IfIndex, Mac};

/// A version 3 IPv4 router with priority 100 and an interval of 1 s, VIP 10.0.0.`vrid`.
pub(crate) fn router(vrid: u8) -> Router {
    Router {
        name: RouterName::new(&vrid.to_string()).unwrap(),
        vrid: Vrid::new(vrid).unwrap(),
        version: Version::V3,
        family: Family::V4,
        interface: IfName::new("eth0").unwrap(),
        priority: Priority::DEFAULT,
        preempt: true,
        preempt_delay: Duration::ZERO,
        listen_first: Duration::ZERO,
        carrier_delay: Duration::ZERO,
        probe_interval: Duration::from_secs(60),
        yield_on_send_errors: true,
        advert_interval: Centis(100),
        auth_pass: None,
        vips: vec![Prefix::host([10, 0, 0, vrid].into())],
        vips_excluded: Vec::new(),
        checksum: ChecksumMode::Auto,
        address_lifetime: Lifetime::Auto,
        check: None,
    }
}

/// A priority that is one.
pub(crate) fn priority(number: u8) -> Priority {
    Priority::new(number).unwrap()
}

/// A node with one link, `eth0` (10.0.0.201/24 and fe80::c9), whose kernel and sockets do at once
/// what is asked of them.
pub(crate) struct Bench {
    pub(crate) node: Node,
    pub(crate) now: Instant,
    /// What the last event led to.
    pub(crate) actions: Actions,
    /// What the kernel was asked for and has not been told of yet.
    pub(crate) asked: Vec<Op>,
    /// An address that it does not take, and what it says.
    pub(crate) refuses: Option<(IpAddr, Errno)>,
}

/// Its link.
pub(crate) const ETH0: IfIndex = IfIndex(2);

impl Bench {
    /// Runs these routers, which are not active yet.
    pub(crate) fn new(routers: Vec<Router>) -> Self {
        let addresses = [("10.0.0.201", 24, false), ("fe80::c9", 64, true)];
        Self::on(&addresses, routers)
    }

    /// Runs them where these addresses, with prefix length and whether they are link-local, are
    /// all that there is.
    pub(crate) fn on(addresses: &[(&str, u8, bool)], routers: Vec<Router>) -> Self {
        let mut bench = Self {
            node: Node::new(),
            now: Instant::from_nanos(1_000_000_000),
            actions: Actions::default(),
            asked: Vec::new(),
            refuses: None,
        };
        let addresses = addresses.iter().map(|(ip, len, local)| address(ip, *len, *local));
        let snapshot = Snapshot { links: vec![link(ETH0)], addresses: addresses.collect() };
        bench.configure(routers);
        bench.timeout();
        assert_eq!(bench.actions.kernel, [Action::Dump]);
        bench.event(Event::Dumped(Ok(snapshot)));
        bench.settle();
        bench
    }

    pub(crate) fn configure(&mut self, routers: Vec<Router>) {
        let routers = routers.into_iter().map(|r| (r.name.clone(), Arc::new(r))).collect();
        let node = NodeName::new("gw1").unwrap();
        self.event(Event::Config(Arc::new(Config { node, node_ip: None, routers })));
    }

    pub(crate) fn event(&mut self, event: Event<'_>) {
        self.actions.clear();
        self.node.handle(self.now, event, &mut self.actions);
        self.node.look(self.now, &mut self.actions);
    }

    pub(crate) fn timeout(&mut self) {
        self.event(Event::Timeout { heard_all: true });
    }

    /// Time passes, with all that it brings.
    pub(crate) fn pass(&mut self, time: Duration) {
        let end = self.now + time;
        while let Some(at) = self.node.next_deadline().filter(|at| *at <= end) {
            self.now = self.now.max(at);
            self.timeout();
            self.settle();
        }
        self.now = end;
    }

    /// Answers everything that is asked of the kernel.
    pub(crate) fn settle(&mut self) {
        loop {
            let asked = std::mem::take(&mut self.actions.kernel);
            if asked.is_empty() {
                return;
            }
            for action in asked {
                match action {
                    Action::Open(port) => self.event(Event::Opened { port, result: Ok(()) }),
                    Action::Apply(ops) => {
                        let refused = |op: &Op| {
                            self.refuses.filter(|(ip, _)| {
                                op.prefix.ip == *ip && matches!(op.verb, Verb::Add { .. })
                            })
                        };
                        let result = |op| refused(op).map_or(Ok(()), |(_, errno)| Err(errno));
                        let results = ops.iter().map(result).collect();
                        self.asked.extend(ops);
                        self.event(Event::Applied(results));
                    }
                    Action::Join { .. }
                    | Action::Dump
                    | Action::Close(_)
                    | Action::Watch { .. }
                    | Action::Fence(_) => {}
                }
            }
            let kernel = std::mem::take(&mut self.actions.kernel);
            self.timeout();
            self.actions.kernel.splice(0..0, kernel);
        }
    }

    /// A packet from `src` to the group, TTL 255.
    pub(crate) fn packet(&mut self, src: &str, bytes: &[u8]) {
        self.packet_with_ttl(src, bytes, 255);
    }

    pub(crate) fn packet_with_ttl(&mut self, src: &str, bytes: &[u8], ttl: u8) {
        let src: IpAddr = src.parse().unwrap();
        let family = Family::of(&src);
        let meta = RxMeta { src, dst: group(family), ttl };
        self.event(Event::Packet { port: Port { index: ETH0, family }, meta, bytes });
    }

    /// What the one router shows.
    pub(crate) fn router(&self) -> RouterStatus {
        let mut routers = self.node.status(self.now).routers;
        assert_eq!(routers.len(), 1);
        routers.remove(0)
    }

    /// A counter of the packets that no router was given.
    pub(crate) fn discarded(&self, name: &str) -> u64 {
        let ports = self.node.status(self.now).ports;
        ports.iter().filter_map(|port| port.discarded.get(name)).sum()
    }
}

/// An interface that is well, called `eth0`.
pub(crate) fn link(index: IfIndex) -> Link {
    Link {
        index,
        name: IfName::new("eth0").unwrap(),
        up: true,
        running: true,
        loopback: false,
        mac: Some(Mac([2, 0, 0, 0, 0, 1])),
        mtu: 1500,
        vrf_table: None,
        master: None,
        alt_names: Vec::new(),
    }
}

/// An address that an operator put on `eth0`.
pub(crate) fn address(ip: &str, len: u8, link_local: bool) -> Address {
    Address {
        index: ETH0,
        prefix: Prefix { ip: ip.parse().unwrap(), len },
        secondary: false,
        tentative: false,
        permanent: true,
        link_scope: link_local,
        proto: 0,
    }
}

/// An advert that a router with this configuration would send from `src` with `priority`.
pub(crate) fn advert(router: &Router, src: &str, priority: u8) -> Vec<u8> {
    let addresses: Vec<IpAddr> = router.vips.iter().map(|vip| vip.ip).collect();
    let spec = AdvertSpec {
        version: router.version,
        vrid: router.vrid,
        priority,
        interval: router.advert_interval,
        auth: Auth::None,
        addresses: &addresses,
        sum: SumForm::PseudoHeader,
    };
    let src: IpAddr = src.parse().unwrap();
    let mut out = Vec::new();
    spec.emit(src, group(Family::of(&src)), &mut out);
    out
}
