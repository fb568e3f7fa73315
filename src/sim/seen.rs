//! What one turn of one daemon took in and gave out, for those who judge it.

use std::net::IpAddr;
use std::sync::Arc;

use crate::config::{Config, Prefix};
use crate::node::kernel::{Change, Port};
use crate::node::notice::Notice;
use crate::node::{Event, Instant, Via};
use crate::wire::ip::{IPV6_HEADER, parse_ipv4};
use crate::wire::vrrp::{Packet, RxMeta};
use crate::wire::{Family, arp, ndp};

/// A valid advert that came in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Heard {
    /// Its family.
    pub family: Family,
    /// Its VRID.
    pub vrid: u8,
    /// 2 or 3.
    pub version: u8,
    /// Its priority.
    pub priority: u8,
}

/// An advert that went out, or was to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Said {
    /// Its family.
    pub family: Family,
    /// Its VRID.
    pub vrid: u8,
    /// Its priority.
    pub priority: u8,
}

/// One turn.
#[derive(Clone, Debug)]
pub struct Turn {
    /// Whose.
    pub machine: usize,
    /// Which of the machine's daemons.
    pub life: u64,
    /// When, by the world's clock.
    pub at: Instant,
    /// Whether nothing waits unread.
    pub heard_all: bool,
    /// Valid adverts, in their order.
    pub heard: Vec<Heard>,
    /// Configurations.
    pub configs: Vec<Arc<Config>>,
    /// Addresses that the kernel said it has, in notifications and dumps.
    pub told: Vec<Prefix>,
    /// Addresses that the kernel said it has now and had not before, and since when.
    pub added: Vec<(Prefix, Instant)>,
    /// Adverts sent, or tried.
    pub said: Vec<Said>,
    /// Addresses announced, or tried.
    pub announced: Vec<IpAddr>,
    /// What was to be logged.
    pub notices: Vec<Notice>,
    /// Whether there was work left for another turn at once.
    pub is_due: bool,
}

impl Turn {
    pub(super) const fn new(machine: usize, life: u64, at: Instant) -> Self {
        Self {
            machine,
            life,
            at,
            heard_all: true,
            heard: Vec::new(),
            configs: Vec::new(),
            told: Vec::new(),
            added: Vec::new(),
            said: Vec::new(),
            announced: Vec::new(),
            notices: Vec::new(),
            is_due: false,
        }
    }

    pub(super) fn heard_event(&mut self, event: &Event<'static>) {
        match event {
            Event::Config(config) => self.configs.push(Arc::clone(config)),
            Event::Dumped(Ok(snapshot)) => {
                self.told.extend(snapshot.addresses.iter().map(|address| address.prefix));
            }
            Event::Kernel(Change::Address(address)) => self.told.push(address.prefix),
            _ => {}
        }
    }

    pub(super) fn heard(&mut self, port: Port, meta: &RxMeta, bytes: &[u8]) {
        let Ok(packet) = Packet::new(bytes) else { return };
        let header = packet.header();
        let Ok(advert) = packet.check(meta) else { return };
        self.heard.push(Heard {
            family: port.family,
            vrid: header.vrid.number(),
            version: header.version.number(),
            priority: advert.priority,
        });
    }

    pub(super) fn sent(&mut self, via: Via, bytes: &[u8]) {
        match via {
            Via::Vrrp(port) => {
                let payload = match port.family {
                    Family::V4 => parse_ipv4(bytes).map(|(_, payload)| payload).ok(),
                    Family::V6 => bytes.get(40..),
                };
                if let Some([_, vrid, priority, ..]) = payload {
                    let (vrid, priority) = (*vrid, *priority);
                    self.said.push(Said { family: port.family, vrid, priority });
                }
            }
            Via::Ethernet(_) => self.announced.extend(announced(bytes)),
        }
    }
}

/// The address that a gratuitous ARP or an unsolicited NA announces.
pub(super) fn announced(frame: &[u8]) -> Option<IpAddr> {
    match frame.get(12..14) {
        Some([0x08, 0x06]) => arp::claim(frame.get(14..)?).map(|(ip, _)| ip.into()),
        _ => ndp::claim(frame.get(14 + IPV6_HEADER..)?).map(|(ip, _)| ip.into()),
    }
}

/// Whether a frame is an ARP probe or a neighbour solicitation: it announces nothing.
pub(super) fn asks(frame: &[u8]) -> bool {
    match frame.get(12..14) {
        Some([0x08, 0x06]) => frame.get(28..32) == Some(&[0; 4]),
        _ => frame.get(14 + IPV6_HEADER) == Some(&135),
    }
}
