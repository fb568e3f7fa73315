//! A node on a box with one interface, as far as its start.

use havip::config::{
    Facts, IfName, Input, NodeName, Policy, Prefix, TomlFile, Tree, Vanished, build,
};
use havip::node::kernel::{Address, Link, Port, Snapshot};
use havip::node::{Actions, Event, Instant, Node};
use havip::wire::{Family, IfIndex, Mac};

/// Its interface.
pub(crate) const INDEX: IfIndex = IfIndex(2);

/// Runs what this local file has for node gw1; its sockets are open, its kernel is asked for more.
pub(crate) fn start(local: &str, now: Instant, out: &mut Actions) -> Node {
    let (tree, _) = Tree::from_toml(local, &TomlFile::Local("conf".into())).unwrap();
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
    let link = Link {
        index: INDEX,
        name: IfName::new("eth0").unwrap(),
        up: true,
        running: true,
        loopback: false,
        mac: Some(Mac([2, 0, 0, 0, 0, 1])),
        mtu: 1500,
        vrf_table: None,
        master: None,
        alt_names: Vec::new(),
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
    let mut node = Node::new();
    node.handle(now, Event::Config(build(&input).config.into()), out);
    node.handle(now, Event::Timeout { heard_all: true }, out);
    out.clear();
    node.handle(now, Event::Dumped(Ok(Snapshot { links: vec![link], addresses })), out);
    for family in [Family::V4, Family::V6] {
        let port = Port { index: INDEX, family };
        node.handle(now, Event::Opened { port, result: Ok(()) }, out);
    }
    node
}
