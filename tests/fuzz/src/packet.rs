//! Whole packets, as they come out of the sockets, into a node with a router of each kind.
//!
//! The input is a sequence of packets: a byte that says how each comes in (bit 0: IPv6; bit 1:
//! with its checksum made right; bits 2 to 7: how much time passes), two bytes of length, and the
//! packet itself.

use std::net::IpAddr;
use std::time::Duration;

use havip::node::kernel::Port;
use havip::node::{Action, Actions, Event, Instant, Node};
use havip::wire::Family;
use havip::wire::checksum::Sum;
use havip::wire::ip::parse_ipv4;
use havip::wire::vrrp::RxMeta;

use super::bench::{INDEX, start};

const ROUTERS: &str = r#"
node.gw1.vrids = ["2", "3", "6", "255"]
[virtual_router.default]
interface = "eth0"
[virtual_router.2]
version = 2
auth_pass = "secret"
vips = "10.0.0.2"
[virtual_router.3]
vips = ["10.0.0.3", "10.0.0.4"]
[virtual_router.6]
vips = "fe80::6"
[virtual_router.255]
vips = "10.0.0.201"
priority = 255
"#;

struct Bench {
    node: Node,
    now: Instant,
    actions: Actions,
}

impl Bench {
    fn new() -> Self {
        let (now, mut actions) = (Instant::from_nanos(1), Actions::default());
        let mut bench = Self { node: start(ROUTERS, now, &mut actions), now, actions };
        bench.settle();
        bench
    }

    fn event(&mut self, event: Event<'_>) {
        self.actions.clear();
        self.node.handle(self.now, event, &mut self.actions);
        self.settle();
    }

    fn settle(&mut self) {
        // The answer to what is asked of the kernel comes at once, and always succeeds.
        for _ in 0..8 {
            let asked = std::mem::take(&mut self.actions.kernel);
            for action in asked {
                if let Action::Apply(ops) = action {
                    let results = vec![Ok(()); ops.len()];
                    self.node.handle(self.now, Event::Applied(results), &mut self.actions);
                }
            }
        }
    }
}

/// Makes the checksum of a VRRP message right, so that what lies behind it is reached.
fn summed(meta: &RxMeta, message: &[u8]) -> Vec<u8> {
    let mut message = message.to_vec();
    if let Some(sum) = message.get_mut(6..8) {
        sum.fill(0);
        let start = match meta.src {
            IpAddr::V4(_) => Sum::default(),
            IpAddr::V6(_) => Sum::pseudo_header(meta.src, meta.dst, 112, message.len()),
        };
        let sum = start.bytes(&message).checksum().to_be_bytes();
        message[6..8].copy_from_slice(&sum);
    }
    message
}

/// Takes any bytes.
pub(crate) fn run(data: &[u8]) {
    let mut bench = Bench::new();
    let mut rest = data;
    while let [how, high, low, after @ ..] = rest {
        let length = usize::from(u16::from_be_bytes([*high, *low])).min(after.len());
        let (packet, next) = after.split_at(length);
        rest = next;
        let parsed = if how & 1 == 0 {
            parse_ipv4(packet).ok()
        } else {
            let src = "fe80::ca".parse().unwrap();
            Some((RxMeta { src, dst: "ff02::12".parse().unwrap(), ttl: 255 }, packet))
        };
        let family = if how & 1 == 0 { Family::V4 } else { Family::V6 };
        let port = Port { index: INDEX, family };
        match parsed {
            None => bench.event(Event::Malformed { port }),
            Some((meta, message)) => {
                let right = summed(&meta, message);
                let bytes = if how & 2 == 0 { message } else { &right };
                bench.event(Event::Packet { port, meta, bytes });
            }
        }
        bench.now = bench.now + Duration::from_millis(u64::from(how >> 2) * 100);
        bench.event(Event::Timeout { heard_all: true });
        // Whatever was heard: four routers, each with something to wait for.
        assert_eq!(bench.node.status(bench.now).routers.len(), 4);
        assert!(bench.node.next_deadline().is_some());
    }
}
