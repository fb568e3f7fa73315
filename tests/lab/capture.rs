//! What a LAN has seen: every frame that reaches a host that belongs to nobody.

use std::io::{ErrorKind, Read as _};
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use havip::linux::{clock, rt};
use havip::node::Instant;
use havip::wire::ip::parse_ipv4;
use havip::wire::vrrp::{Packet, RxMeta};
use havip::wire::{Mac, arp, ndp};
use socket2::{Domain, Protocol, Socket, Type};

use super::Host;

/// ETH_P_ALL, as the kernel wants it.
pub(super) const ALL: i32 = 0x0003_u16.to_be() as i32;

/// What a frame says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum What {
    /// A VRRP advert.
    Advert { vrid: u8, priority: u8 },
    /// By ARP or a neighbour advertisement: this address is at the sender.
    Claim(IpAddr),
}

/// A frame that was seen.
#[derive(Clone, Copy, Debug)]
pub struct Seen {
    pub at: Instant,
    /// Its Ethernet source.
    pub from: Mac,
    pub what: What,
}

/// Sees what is sent to all or to the groups of a LAN, from now on.
pub struct Capture {
    seen: Arc<Mutex<Vec<Seen>>>,
    _watch: Watch,
}

/// For as long as it lives, frames are looked at.
pub struct Watch(#[allow(dead_code, reason = "its life is its use")] Arc<()>);

impl Capture {
    pub fn on(host: &Host) -> Self {
        let seen = Arc::new(Mutex::new(Vec::new()));
        let theirs = Arc::clone(&seen);
        let watch = each(host, move |frame| theirs.lock().unwrap().push(frame));
        Self { seen, _watch: watch }
    }

    /// Everything since the beginning, or since the last [`Self::forget`].
    pub fn all(&self) -> Vec<Seen> {
        self.seen.lock().unwrap().clone()
    }

    /// Forgets everything.
    pub fn forget(&self) {
        self.seen.lock().unwrap().clear();
    }

    /// Whether `from` sent an advert.
    pub fn has_advert(&self, from: Mac) -> bool {
        let is_advert = |seen: &Seen| matches!(seen.what, What::Advert { .. });
        self.all().iter().any(|seen| seen.from == from && is_advert(seen))
    }

    /// How often `from` sent priority 0.
    pub fn farewells(&self, from: Mac) -> usize {
        let farewell = |seen: &&Seen| matches!(seen.what, What::Advert { priority: 0, .. });
        self.all().iter().filter(|seen| seen.from == from).filter(farewell).count()
    }

    /// Whether `from` announced an address.
    pub fn has_claim(&self, from: Mac, ip: &str) -> bool {
        let claim = What::Claim(ip.parse().unwrap());
        self.all().iter().any(|seen| seen.from == from && seen.what == claim)
    }
}

/// Hands each frame to `take` as it comes, until what it returns is dropped.
pub fn each(host: &Host, mut take: impl FnMut(Seen) + Send + 'static) -> Watch {
    let mut socket =
        host.within(|| Socket::new(Domain::PACKET, Type::RAW, Some(Protocol::from(ALL))).unwrap());
    socket.set_recv_buffer_size(4 << 20).unwrap();
    // How soon it notices that nobody wants it any more.
    socket.set_read_timeout(Some(Duration::from_millis(100))).unwrap();
    let alive = Arc::new(());
    let wanted = Arc::downgrade(&alive);
    thread::spawn(move || {
        // So that what is measured is not this thread's own lateness, where that is allowed.
        let _ = rt::realtime(90);
        let mut frame = [0; 2048];
        while wanted.strong_count() > 0 {
            let length = match socket.read(&mut frame) {
                Ok(length) => length,
                // A read with a time-out is not begun again after a suspend.
                Err(error)
                    if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) =>
                {
                    continue;
                }
                Err(_) => break,
            };
            if let Some((from, what)) = parse(&frame[..length]) {
                take(Seen { at: clock::now(), from, what });
            }
        }
    });
    Watch(alive)
}

fn parse(frame: &[u8]) -> Option<(Mac, What)> {
    let from = Mac(frame.get(6..12)?.try_into().ok()?);
    let message = frame.get(14..)?;
    let what = match u16::from_be_bytes(frame.get(12..14)?.try_into().ok()?) {
        arp::ETHERTYPE => What::Claim(arp::claim(message)?.0.into()),
        // Next header ICMPv6.
        ndp::ETHERTYPE if message.get(6) == Some(&58) => {
            let target: Ipv6Addr = ndp::claim(message.get(40..)?)?.0;
            What::Claim(target.into())
        }
        0x0800 if message.get(9) == Some(&112) => {
            let (meta, bytes) = parse_ipv4(message).ok()?;
            advert(&meta, bytes)?
        }
        ndp::ETHERTYPE if message.get(6) == Some(&112) => {
            let address = |from: usize| -> Option<IpAddr> {
                let bytes: [u8; 16] = message.get(from..from + 16)?.try_into().ok()?;
                Some(Ipv6Addr::from(bytes).into())
            };
            let meta = RxMeta { src: address(8)?, dst: address(24)?, ttl: *message.get(7)? };
            advert(&meta, message.get(40..)?)?
        }
        _ => return None,
    };
    Some((from, what))
}

fn advert(meta: &RxMeta, bytes: &[u8]) -> Option<What> {
    let advert = Packet::new(bytes).ok()?.check(meta).ok()?;
    Some(What::Advert { vrid: advert.vrid.number(), priority: advert.priority })
}
