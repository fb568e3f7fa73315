//! Which keys this node needs to know: its own, the defaults, those of its routers in both
//! spellings, and its own outputs. Ten thousand other gateways do not wake it.

use std::collections::BTreeSet;

use super::Entry;
use crate::config::{NodeName, RouterName, Value, all_routers};

/// Routers that are read one by one; with more, whole branches are read and sifted here, as a
/// watch for each of thousands costs the server more than what is thrown away.
const NARROW_MAX: usize = 100;
/// Routers of one node: more than the product is made for.
const ROUTERS_MAX: usize = 4096;

/// A range of keys: `key` up to, not including, `end`; with an empty `end`, `key` alone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Range {
    pub(super) key: Vec<u8>,
    pub(super) end: Vec<u8>,
}

impl Range {
    /// Every key that begins with `prefix`, which ends in a slash.
    pub(super) fn below(prefix: &str) -> Self {
        let key = prefix.as_bytes().to_vec();
        Self { end: after(&key), key }
    }

    fn one(key: &str) -> Self {
        Self { key: key.as_bytes().to_vec(), end: Vec::new() }
    }
}

/// The first key behind all those that begin with `prefix`; etcd's "to the end" if there is none.
fn after(prefix: &[u8]) -> Vec<u8> {
    let mut end = prefix.to_vec();
    while let Some(last) = end.pop() {
        if last < u8::MAX {
            end.push(last + 1);
            return end;
        }
    }
    vec![0]
}

/// What a key is to this node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// It says what this node shall do.
    Config,
    /// This node writes it, or may have to.
    Output,
}

/// What this node needs to know.
#[derive(Clone, Debug)]
pub(super) struct Scope {
    prefix: String,
    node: NodeName,
    routers: BTreeSet<RouterName>,
    outputs: BTreeSet<String>,
}

impl Scope {
    /// Of a node whose routers are not known yet, with those that are wanted from elsewhere and
    /// the keys that it writes.
    pub(super) fn new(
        prefix: &str,
        node: &NodeName,
        routers: &BTreeSet<RouterName>,
        outputs: BTreeSet<String>,
    ) -> Self {
        let routers = routers.iter().take(ROUTERS_MAX).cloned().collect();
        Self { prefix: prefix.to_owned(), node: node.clone(), routers, outputs }
    }

    /// The key that lists the node's routers.
    pub(super) fn list_key(&self) -> String {
        format!("{}node/{}/vrids", self.prefix, self.node)
    }

    /// With the routers that the node's key lists.
    pub(super) fn with_listed(mut self, entries: &[Entry]) -> Self {
        let key = self.list_key();
        if let Some(entry) = entries.iter().find(|entry| entry.key == key.as_bytes()) {
            self.add_listed(&entry.value);
        }
        self
    }

    /// Adds the routers that a value of that key lists. Names that are none are left to those who
    /// report them.
    pub(super) fn add_listed(&mut self, value: &[u8]) {
        let Ok(text) = std::str::from_utf8(value) else { return };
        let text = text.trim();
        if text == "none" {
            return;
        }
        let value = Value::Text(text.to_owned());
        for name in all_routers(&value) {
            if self.routers.len() >= ROUTERS_MAX {
                break;
            }
            self.routers.insert(name);
        }
    }

    /// What can be read before the routers are known.
    pub(super) fn fixed(&self) -> Vec<Range> {
        vec![
            self.below(&format!("node/{}/", self.node)),
            self.below("virtual_router/default/"),
            self.below("virtual_routers/default/"),
        ]
    }

    /// The rest: what the routers are, and what is written for them.
    pub(super) fn of_routers(&self) -> Vec<Range> {
        if self.routers.len().max(self.outputs.len()) > NARROW_MAX {
            let mut ranges = vec![
                self.below("virtual_router/"),
                self.below("virtual_routers/"),
                self.below("vRouterGateway/"),
            ];
            let elsewhere = self.outputs.iter().filter(|key| self.gateway_of(key).is_none());
            ranges.extend(elsewhere.map(|key| Range::one(key)));
            return ranges;
        }
        let mut ranges = Vec::new();
        let mut outputs = self.outputs.clone();
        for router in &self.routers {
            ranges.push(self.below(&format!("virtual_router/{router}/")));
            ranges.push(self.below(&format!("virtual_routers/{router}/")));
            outputs.insert(format!("{}vRouterGateway/{router}", self.prefix));
        }
        ranges.extend(outputs.iter().map(|key| Range::one(key)));
        ranges
    }

    /// Everything that is watched.
    pub(super) fn all(&self) -> Vec<Range> {
        let mut ranges = self.fixed();
        ranges.extend(self.of_routers());
        ranges
    }

    /// Whether the same keys belong to both, for whatever reason: a router that becomes active
    /// writes what was read of it before.
    pub(super) fn is_as(&self, other: &Self) -> bool {
        self.all() == other.all()
    }

    /// What a key is to this node; `None`: nothing.
    pub(super) fn kind(&self, key: &[u8]) -> Option<Kind> {
        // No key of havip's tree is anything but text.
        let key = std::str::from_utf8(key).ok()?;
        if self.outputs.contains(key) || self.gateway_of(key).is_some_and(|name| self.runs(name)) {
            return Some(Kind::Output);
        }
        let path = key.strip_prefix(&self.prefix)?;
        let (branch, rest) = path.split_once('/')?;
        let (name, _) = rest.split_once('/')?;
        let wanted = match branch {
            "node" => name == self.node.as_str(),
            "virtual_router" | "virtual_routers" => name == "default" || self.runs(name),
            _ => false,
        };
        wanted.then_some(Kind::Config)
    }

    fn below(&self, path: &str) -> Range {
        Range::below(&format!("{}{path}", self.prefix))
    }

    fn gateway_of<'a>(&self, key: &'a str) -> Option<&'a str> {
        key.strip_prefix(&self.prefix)?.strip_prefix("vRouterGateway/")
    }

    fn runs(&self, name: &str) -> bool {
        RouterName::new(name).is_ok_and(|name| self.routers.contains(&name))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn scope(vrids: &str) -> Scope {
        let node = NodeName::new("gw1").unwrap();
        let mut scope = Scope::new("/havip/", &node, &BTreeSet::new(), BTreeSet::new());
        scope.add_listed(vrids.as_bytes());
        scope
    }

    #[test]
    fn each_router_of_a_range_is_read() {
        let scope = scope("100-102, lan");
        for router in ["100", "101", "102", "lan"] {
            let key = format!("/havip/virtual_router/{router}/vips");
            assert!(inside(&scope.all(), &key) && scope.kind(key.as_bytes()).is_some(), "{key}");
        }
        assert_eq!(scope.kind(b"/havip/virtual_router/100-102/vips"), None);
    }

    fn inside(ranges: &[Range], key: &str) -> bool {
        let key = key.as_bytes();
        ranges.iter().any(|range| {
            if range.end.is_empty() {
                range.key == key
            } else {
                *range.key <= *key && *key < *range.end
            }
        })
    }

    #[test]
    fn a_node_reads_its_own_keys_and_no_others() {
        let scope = scope(" 100, 101,\n");
        let all = scope.all();
        for (key, kind) in [
            ("/havip/node/gw1/vrids", Some(Kind::Config)),
            ("/havip/node/gw1/virtual_router/100/priority", Some(Kind::Config)),
            ("/havip/virtual_router/default/interface", Some(Kind::Config)),
            ("/havip/virtual_routers/default/interface", Some(Kind::Config)),
            ("/havip/virtual_router/100/vips", Some(Kind::Config)),
            ("/havip/virtual_routers/101/vips", Some(Kind::Config)),
            ("/havip/vRouterGateway/101", Some(Kind::Output)),
            ("/havip/node/gw10/vrids", None),
            ("/havip/node/gw1", None),
            ("/havip/virtual_router/10/vips", None),
            ("/havip/virtual_router/1000/vips", None),
            ("/havip/virtual_routers/102/vips", None),
            ("/havip/vRouterGateway/102", None),
            ("/havip/vRouterGateway/1011", None),
            ("/havip/binding/10.0.0.3/vrid", None),
            ("/havip/status/gw1", None),
            ("/other/node/gw1/vrids", None),
        ] {
            assert_eq!(scope.kind(key.as_bytes()), kind, "{key}");
            assert_eq!(inside(&all, key), kind.is_some(), "{key}");
        }
    }

    #[test]
    fn a_node_with_many_routers_reads_whole_branches_and_sifts_them() {
        let names: Vec<String> = (1..=1000).map(|n| format!("r{n}")).collect();
        let scope = scope(&names.join(","));
        let all = scope.all();
        assert!(all.len() < 10, "{}", all.len());
        for (key, kind) in [
            ("/havip/virtual_router/r1000/vips", Some(Kind::Config)),
            ("/havip/virtual_routers/default/interface", Some(Kind::Config)),
            ("/havip/vRouterGateway/r7", Some(Kind::Output)),
            ("/havip/virtual_router/r1001/vips", None),
        ] {
            assert_eq!(scope.kind(key.as_bytes()), kind, "{key}");
            assert!(inside(&all, key), "{key}");
        }
    }

    #[test]
    fn hostile_lists_of_routers_cannot_widen_what_is_read() {
        for value in ["none", "", "../x,/,default,a/b,\u{e9}", ",,,", "\0"] {
            assert_eq!(scope(value).all().len(), 3, "{value:?}");
        }
        let mut many = scope("");
        many.add_listed(&[0xff, 0xfe]);
        assert_eq!(many.all().len(), 3);
        let names: Vec<String> = (0..100_000).map(|n| n.to_string()).collect();
        many.add_listed(names.join(",").as_bytes());
        assert_eq!(many.routers.len(), ROUTERS_MAX);
    }

    #[test]
    fn written_keys_are_watched_wherever_they_are() {
        let node = NodeName::new("gw1").unwrap();
        let outputs: BTreeSet<String> =
            ["/havip/vRouterGateway/7", "/elsewhere"].map(str::to_owned).into();
        let mut scope = Scope::new("/havip/", &node, &BTreeSet::new(), outputs);
        for _ in 0..2 {
            for key in ["/havip/vRouterGateway/7", "/elsewhere"] {
                assert_eq!(scope.kind(key.as_bytes()), Some(Kind::Output), "{key}");
                assert!(inside(&scope.all(), key), "{key}");
            }
            let names: Vec<String> = (0..200).map(|n| n.to_string()).collect();
            scope.add_listed(names.join(",").as_bytes());
        }
    }

    #[test]
    fn becoming_active_is_no_reason_to_read_anew() {
        let node = NodeName::new("gw1").unwrap();
        let with = |key: &str| {
            let outputs = [key.to_owned(), "/havip/status/gw1".to_owned()].into();
            let mut scope = Scope::new("/havip/", &node, &BTreeSet::new(), outputs);
            scope.add_listed(b"100,101");
            scope
        };
        let quiet = with("/havip/status/gw1");
        assert!(quiet.is_as(&with("/havip/vRouterGateway/101")));
        assert!(!quiet.is_as(&with("/havip/vRouterGateway/102")));
    }

    #[test]
    fn the_end_of_a_prefix_is_behind_all_its_keys() {
        assert_eq!(after(b"/havip/"), b"/havip0");
        assert_eq!(after(&[b'a', 0xff]), b"b");
        assert_eq!(after(&[0xff]), [0]);
    }

    proptest! {
        #[test]
        fn what_concerns_the_node_is_read_and_nothing_else(
            vrids in prop::collection::vec("[a-c1-3]{1,2}", 0..6),
            branch in "node|virtual_routers?|vRouterGateway|binding|status",
            name in "[a-c1-3]{1,3}|gw1|default",
            rest in "|/|/vips|/[a-c]{1,3}|/x/y",
        ) {
            let scope = scope(&vrids.join(","));
            let key = format!("/havip/{branch}/{name}{rest}");
            prop_assert_eq!(scope.kind(key.as_bytes()).is_some(), inside(&scope.all(), &key));
        }

        #[test]
        fn no_key_and_no_list_makes_it_panic(key: Vec<u8>, list: Vec<u8>) {
            let mut scope = scope("100");
            scope.add_listed(&list);
            let _ = scope.kind(&key);
        }
    }
}
