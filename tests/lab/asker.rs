//! A host that asks one kernel of the LAN, by ARP or neighbour solicitation, whether it has an
//! address, and hears its answers alone.

use std::io::Read as _;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Arc, Mutex};
use std::thread;

use havip::linux::netlink::Requests;
use havip::linux::{PacketSocket, clock, rt};
use havip::node::Instant;
use havip::wire::checksum::Sum;
use havip::wire::{IfIndex, Mac, arp, ip, ndp};
use socket2::{Domain, Protocol, Socket, Type};

use super::Host;
use super::capture::ALL;

/// A neighbour solicitation has to come from somewhere, and its answer only to the MAC.
const SOURCE: Ipv6Addr = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 0xa5);
const ICMPV6: u8 = 58;

/// An answer to this host.
#[derive(Clone, Copy, Debug)]
pub struct Answer {
    pub at: Instant,
    pub from: Mac,
    pub ip: IpAddr,
}

pub struct Asker {
    socket: PacketSocket,
    index: IfIndex,
    mac: Mac,
    heard: Arc<Mutex<Vec<Answer>>>,
}

impl Asker {
    pub fn on(host: &Host) -> Self {
        let (index, socket, mut listener) = host.within(|| {
            let index = super::index_of(&mut Requests::open().unwrap(), "eth0");
            let listener = Socket::new(Domain::PACKET, Type::RAW, Some(Protocol::from(ALL)));
            (index, PacketSocket::open().unwrap(), listener.unwrap())
        });
        let mac = host.mac();
        let heard = Arc::new(Mutex::new(Vec::new()));
        let theirs = Arc::clone(&heard);
        // Ends with the process.
        thread::spawn(move || {
            let _ = rt::realtime(90);
            let mut frame = [0; 2048];
            while let Ok(length @ 1..) = listener.read(&mut frame) {
                if let Some((from, ip)) = answer(mac, &frame[..length]) {
                    theirs.lock().unwrap().push(Answer { at: clock::now(), from, ip });
                }
            }
        });
        Self { socket, index, mac, heard }
    }

    /// Asks the one with this MAC for an address; nobody else hears it.
    pub fn ask(&self, of: Mac, wanted: IpAddr) {
        let mut frame = [of.0, self.mac.0].concat();
        match wanted {
            IpAddr::V4(wanted) => {
                frame.extend(arp::ETHERTYPE.to_be_bytes());
                frame.extend([0, 1, 0x08, 0x00, 6, 4, 0, 1]);
                frame.extend(self.mac.0);
                frame.extend([0; 10]);
                frame.extend(wanted.octets());
            }
            IpAddr::V6(wanted) => {
                frame.extend(ndp::ETHERTYPE.to_be_bytes());
                let mut message = vec![135, 0, 0, 0, 0, 0, 0, 0];
                message.extend(wanted.octets());
                message.extend([1, 1]);
                message.extend(self.mac.0);
                let length = message.len();
                // To its group (RFC 4291 §2.7.1): who is asked alone leaves out where he is.
                let [.., c, d] = wanted.segments();
                let group = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 1, 0xff00 | c & 0xff, d);
                let sum = Sum::pseudo_header(SOURCE.into(), group.into(), ICMPV6, length);
                let sum = sum.bytes(&message).checksum().to_be_bytes();
                message[2..4].copy_from_slice(&sum);
                let length = u16::try_from(length).unwrap();
                ip::ipv6_header(SOURCE, group, ICMPV6, length, &mut frame);
                frame.extend(message);
            }
        }
        // A port that is down says so by the missing answer.
        let _ = self.socket.send_batch(self.index, &[frame]);
    }

    /// Every answer since the beginning.
    pub fn heard(&self) -> Vec<Answer> {
        self.heard.lock().unwrap().clone()
    }

    /// Whether the one with this MAC answers for `wanted`. It is asked for `own` as well, which it
    /// surely has: once that is answered, the other would have been.
    pub fn is_answered(&self, of: Mac, wanted: &str, own: IpAddr) -> bool {
        let before = self.heard().len();
        let heard = |ip: IpAddr| {
            self.heard().iter().skip(before).any(|answer| answer.from == of && answer.ip == ip)
        };
        let wanted = super::ip(wanted);
        self.ask(of, wanted);
        super::wait("it answers for its own address", || {
            self.ask(of, own);
            heard(own)
        });
        heard(wanted)
    }
}

/// Who answers this host, and for what.
fn answer(mac: Mac, frame: &[u8]) -> Option<(Mac, IpAddr)> {
    let from = Mac(frame.get(6..12)?.try_into().ok()?);
    let message = frame.get(14..)?;
    if frame.get(..6)? != mac.0 {
        return None;
    }
    let ip = match u16::from_be_bytes(frame.get(12..14)?.try_into().ok()?) {
        arp::ETHERTYPE => arp::claim(message)?.0.into(),
        ndp::ETHERTYPE if message.get(6) == Some(&ICMPV6) => {
            ndp::claim(message.get(ip::IPV6_HEADER..)?)?.0.into()
        }
        _ => return None,
    };
    Some((from, ip))
}
