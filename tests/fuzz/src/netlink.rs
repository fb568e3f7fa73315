//! What the kernel reports, and what others say by ARP and neighbour advertisements, into a node
//! with an active router: whatever it hears, it stays one that knows what it has to do.
//!
//! The input is a sequence: a byte that says what comes (0: a netlink datagram, 1: ARP, 2: ICMPv6,
//! of what is left when divided by three) and two bytes of its length before each.

use std::time::Duration;

use havip::config::{
    Facts, IfName, Input, NodeName, Policy, Prefix, TomlFile, Tree, Vanished, build,
};
use havip::linux::netlink::changes;
use havip::node::kernel::{Address, Change, Link, Snapshot};
use havip::node::{Action, Actions, Event, Instant, Node};
use havip::wire::{IfIndex, Mac, arp, ndp};

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

const INDEX: IfIndex = IfIndex(2);

fn start() -> Node {
    let (tree, _) = Tree::from_toml(ROUTERS, &TomlFile::Local("conf".into())).unwrap();
    let (policy, facts) = (Policy::default(), Facts::default());
    let name = NodeName::new("gw1").unwrap();
    let input = Input {
        tree: &tree,
        node: &name,
        previous: None,
        policy: &policy,
        facts: &facts,
        vanished: Vanished::Hold,
        listed_since: None,
    };
    let mut node = Node::new();
    let mut out = Actions::default();
    let link = Link {
        index: INDEX,
        name: IfName::new("eth0").unwrap(),
        up: true,
        running: true,
        loopback: false,
        mac: Some(Mac([2, 0, 0, 0, 0, 1])),
        mtu: 1500,
    };
    let address = |ip: &str, len, link_scope| Address {
        index: INDEX,
        prefix: Prefix { ip: ip.parse().unwrap(), len },
        secondary: false,
        tentative: false,
        permanent: true,
        link_scope,
        proto: 0,
    };
    let addresses = vec![address("10.0.0.201", 24, false), address("fe80::c9", 64, true)];
    let now = Instant::from_nanos(1);
    node.handle(now, Event::Config(build(&input).config.into()), &mut out);
    node.handle(now, Event::Timeout { heard_all: true }, &mut out);
    let snapshot = Snapshot { links: vec![link], addresses };
    node.handle(now, Event::Dumped(Ok(snapshot)), &mut out);
    answer(&mut node, now, &mut out);
    node
}

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
                Action::Close(_) | Action::Watch { .. } => {}
            }
        }
    }
}

/// Takes any bytes.
pub(crate) fn run(data: &[u8]) {
    let mut node = start();
    let mut out = Actions::default();
    let mut now = Instant::from_nanos(1);
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
