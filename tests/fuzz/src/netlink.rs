//! What the kernel reports, and what others say by ARP and neighbour advertisements, into a node
//! with an active router: whatever it hears, it stays one that knows what it has to do.
//!
//! The input is a sequence: a byte that says what comes (0: a netlink datagram, 1: ARP, 2: ICMPv6,
//! of what is left when divided by three) and two bytes of its length before each.

use std::time::Duration;

use havip::linux::netlink::changes;
use havip::node::kernel::{Change, Snapshot};
use havip::node::{Action, Actions, Event, Instant, Node};
use havip::wire::{arp, ndp};

use super::bench::{INDEX, start};

const ROUTERS: &str = r#"
node.gw1.vrids = ["3", "6"]
[virtual_router.default]
interface = "eth0"
priority = 255
[virtual_router.3]
vips = ["10.0.0.3", "10.0.0.4"]
[virtual_router.6]
vips = "fe80::6"
"#;

/// Does at once what is asked of the kernel; bounded, or it goes round for ever.
fn answer(node: &mut Node, now: Instant, out: &mut Actions) {
    for _ in 0..16 {
        node.handle(now, Event::Timeout { heard_all: true }, out);
        let asked = std::mem::take(&mut out.kernel);
        out.clear();
        if asked.is_empty() {
            return;
        }
        for action in asked {
            match action {
                Action::Apply(ops) => {
                    node.handle(now, Event::Applied(vec![Ok(()); ops.len()]), out);
                }
                Action::Open(port) => node.handle(now, Event::Opened { port, result: Ok(()) }, out),
                Action::Dump => node.handle(now, Event::Dumped(Ok(Snapshot::default())), out),
                Action::Join { .. }
                | Action::Close(_)
                | Action::Watch { .. }
                | Action::Fence(_) => {}
            }
        }
    }
}

/// Takes any bytes.
pub(crate) fn run(data: &[u8]) {
    let mut out = Actions::default();
    let mut now = Instant::from_nanos(1);
    let mut node = start(ROUTERS, now, &mut out);
    answer(&mut node, now, &mut out);
    let mut rest = data;
    while let [what, high, low, after @ ..] = rest {
        let length = usize::from(u16::from_be_bytes([*high, *low])).min(after.len());
        let (message, next) = after.split_at(length);
        rest = next;
        let claimed = match what % 3 {
            0 => {
                for change in changes(message).take(1024) {
                    let change = change.ok().flatten();
                    // As the reader has it: after anything odd only a dump tells.
                    let change = change.unwrap_or(Change::Overrun);
                    node.handle(now, Event::Kernel(change), &mut out);
                }
                None
            }
            1 => arp::claim(message).map(|(ip, mac)| (ip.into(), mac)),
            _ => ndp::claim(message).map(|(ip, mac)| (ip.into(), mac)),
        };
        if let Some((ip, mac)) = claimed {
            node.handle(now, Event::Claimed { index: INDEX, ip, mac }, &mut out);
        }
        answer(&mut node, now, &mut out);
        now = now + Duration::from_millis(u64::from(what / 3) * 50);
        let status = node.status(now);
        assert_eq!(status.routers.len(), 2);
    }
}
