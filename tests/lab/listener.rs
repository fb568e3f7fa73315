//! A host that hears the adverts of a LAN.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use havip::linux::netlink::Requests;
use havip::linux::{RecvBatch, VrrpSocket};
use havip::node::kernel::Port;
use havip::wire::Family;
use havip::wire::ip::parse_ipv4;
use havip::wire::vrrp::Packet;

use super::Host;

/// Hears the adverts of a LAN.
pub struct Listener {
    socket: VrrpSocket,
    batch: RecvBatch,
    /// How many of each VRID.
    heard: BTreeMap<u8, u32>,
    /// From whom any came.
    pub sources: BTreeSet<IpAddr>,
    /// With priority 0.
    pub farewells: u32,
    /// Of which VRIDs, and how many of each.
    pub resigned: BTreeMap<u8, u32>,
}

impl Listener {
    pub fn on(host: &Host) -> Self {
        Self::at(host, "eth0", Family::V4)
    }

    /// Of one interface and family.
    pub fn at(host: &Host, interface: &str, family: Family) -> Self {
        let socket = host.within(|| {
            let index = super::index_of(&mut Requests::open().unwrap(), interface);
            VrrpSocket::open(Port { index, family }).unwrap()
        });
        Self {
            socket,
            batch: RecvBatch::new(),
            heard: BTreeMap::new(),
            sources: BTreeSet::new(),
            farewells: 0,
            resigned: BTreeMap::new(),
        }
    }

    /// Reads all that has arrived.
    pub fn read(&mut self) {
        while self.socket.recv_batch(&mut self.batch).unwrap() > 0 {
            for packet in self.batch.packets() {
                let (meta, bytes) = match packet.meta {
                    Some(meta) => (meta, packet.bytes),
                    None => parse_ipv4(packet.bytes).unwrap(),
                };
                let advert = Packet::new(bytes).unwrap().check(&meta).unwrap();
                *self.heard.entry(advert.vrid.number()).or_default() += 1;
                if advert.priority == 0 {
                    self.farewells += 1;
                    *self.resigned.entry(advert.vrid.number()).or_default() += 1;
                }
                self.sources.insert(meta.src);
            }
        }
    }

    /// Adverts of a VRID so far.
    pub fn heard(&mut self, vrid: u8) -> u32 {
        self.read();
        self.heard.get(&vrid).copied().unwrap_or(0)
    }

    /// Whether priority 0 was heard so far.
    pub fn gave_up(&mut self) -> bool {
        self.read();
        self.farewells > 0
    }

    /// Forgets everything but what is still to come.
    pub fn forget(&mut self) {
        self.read();
        self.heard.clear();
        self.sources.clear();
        self.farewells = 0;
        self.resigned.clear();
    }
}
